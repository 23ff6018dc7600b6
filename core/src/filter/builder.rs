//! Builds scopes: files each rule under one of its conditions and writes the block of a scope (see [`super::scope`]).

use std::borrow::Cow;
use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, Hasher};
use std::sync::Arc;

use aho_corasick::automaton::Automaton;
use aho_corasick::nfa::contiguous::NFA;
use foldhash::fast::FixedState;
use smallvec::SmallVec;

use super::access::{self, Access, Ways};
use super::bytes;
use super::expression::{Field, Filter, Test};
use super::grams;
use super::planes::{self, Planner};
use super::program::{self, Shared};
use super::region::Blocks;
use super::scope::{
    Extra, Infixes, LIST, NODE_BYTES, NONE, PADDING, POSTING_BYTES, Scope, TYPE_BYTES, check, hash_value, head,
};
use super::subject::Kind;
use crate::error::{Error, Result};
use crate::event::EventPattern;
use crate::le::u32_at;

/// Counted, so that no type of rule set can overflow what the block's fields hold.
const PATTERNS_MAX: usize = 1 << 16;
/// Of scopes that are built in a row: the filters so many rules on are asked for while one is compiled, and what those so
/// many on point to, and what the parts of those so many on do. All is asked for before a scope is compiled, so the steps are
/// longer than most scopes: else one would wait for what the one before it has just asked for.
const RULES_AHEAD: usize = 96;
const TEXTS_AHEAD: usize = 64;
const PARTS_AHEAD: usize = 32;
/// Of a filter, so many parts are asked for.
const PARTS_EXPECTED: usize = 4;
/// A filter has about so many ways to be found, and memory is asked for at once for no more than so many.
const WAYS_EXPECTED: usize = 4;
const WAYS_AHEAD: usize = 1 << 10;
/// So many entries are cleared for the next scope rather than made anew.
const USES_KEPT: usize = 1 << 10;
/// So many sets of types are compared without hashing.
const NEAR_PATTERNS: usize = 8;

fn set_u32(b: &mut [u8], at: usize, n: usize) {
    b[at..at + 4].copy_from_slice(&(n as u32).to_le_bytes());
}

/// One rule as the index sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Source<'r> {
    /// The number that a match gives.
    pub(super) rule: u32,
    pub(super) events: &'r EventPattern,
    pub(super) filter: &'r Filter,
}

/// Builds scopes, one after the other, with the same memory.
#[derive(Debug, Default)]
pub(super) struct Builder {
    /// Postings, before they have their places.
    postings: Vec<u8>,
    hasher: FixedState,
    /// How many rules have a condition, by its hash: a mistake would cost time, no more.
    uses: HashMap<u64, u32, BuildHasherDefault<Hashed>>,
    hashes: Vec<u64>,
    shared: Shared,
    /// Rules with the same posting, and where the place of their list is to be written.
    lists: Vec<(usize, Vec<u32>)>,
    planner: Planner,
}

/// What is hashed already.
#[derive(Debug, Default)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {}

    fn write_u64(&mut self, n: u64) {
        self.0 = n;
    }
}

/// Where a posting stands in [`Builder::postings`].
#[derive(Clone, Copy)]
struct Held {
    start: u32,
    len: u32,
}

/// A rule that is filed under a beginning or an end of keys, with its posting.
struct AtEnd<'r> {
    /// Its place among those of the scope.
    source: usize,
    access: &'r Access<'r>,
    text: &'r [u8],
    from_end: bool,
    held: Held,
}

/// A string of a trie, with a posting.
type Entry<'r> = (&'r [u8], Held);

/// How many bytes of a string stand beside it while many are sorted: most pairs differ within them.
const NEAR_BYTES: usize = 16;

/// The first bytes of a string, or the last ones backwards; they compare as the strings do, as far as they differ.
fn near_bytes(text: &[u8], from_end: bool) -> u128 {
    let mut near = [0; NEAR_BYTES];
    let len = text.len().min(NEAR_BYTES);
    if from_end {
        near.iter_mut().zip(text.iter().rev()).for_each(|(near, byte)| *near = *byte);
    } else {
        near[..len].copy_from_slice(&text[..len]);
    }
    u128::from_be_bytes(near)
}

/// A value that rules are filed under: the field, its selector, the value.
type ValueKey<'r> = (Kind, Cow<'r, [u8]>, &'r [u8]);

/// What each filter of a scope is filed under.
#[derive(Debug)]
pub(super) struct Chosen<'r> {
    ways: Ways<'r>,
    /// Where the ways of each filter end.
    ends: Vec<u32>,
    best: Vec<Option<u32>>,
}

impl<'r> Chosen<'r> {
    /// The conditions that a filter is filed under, by its place among those of the scope; `None`: it is tried on each event.
    pub(super) fn way(&self, filter: usize) -> Option<&[Access<'r>]> {
        self.best[filter].map(|n| self.ways.way(n as usize))
    }

    /// What the keys that a filter wants begin and end with, as far as one text says it.
    fn known(&self, filter: usize) -> (&[u8], &[u8]) {
        let start = filter.checked_sub(1).map_or(0, |before| self.ends[before]);
        let (mut begins, mut ends): (&[u8], &[u8]) = (&[], &[]);
        for way in start..self.ends[filter] {
            let [access] = self.ways.way(way as usize) else { continue };
            match access {
                Access::Exact(x) => (begins, ends) = (x, x),
                Access::Prefix(x) if x.len() > begins.len() => begins = x,
                Access::Suffix(x) if x.len() > ends.len() => ends = x,
                _ => {}
            }
        }
        (begins, ends)
    }
}

impl Source<'_> {
    /// Says that the rule will be compiled.
    fn expect(&self) {
        bytes::prefetch(std::slice::from_ref(self.filter), 0);
        bytes::prefetch(std::slice::from_ref(self.events), 0);
    }

    /// The same of what the filter points to.
    fn expect_texts(&self) {
        match self.filter {
            Filter::All(list) | Filter::Any(list) => {
                // Of most, each begins a line of its own.
                (0..list.len().min(PARTS_EXPECTED)).for_each(|n| bytes::prefetch(list, n));
            }
            Filter::Is(..) => expect_text(self.filter),
            _ => {}
        }
    }

    /// The same of what the parts of the filter point to.
    fn expect_parts(&self) {
        if let Filter::All(list) | Filter::Any(list) = self.filter {
            list.iter().take(PARTS_EXPECTED).for_each(expect_text);
        }
    }
}

/// Says that a part of a filter will be read.
fn expect_text(filter: &Filter) {
    match filter {
        Filter::Is(_, Test::Equals(x) | Test::Prefix(x) | Test::Suffix(x) | Test::Contains(x)) => {
            bytes::prefetch(x, 0);
        }
        Filter::All(list) | Filter::Any(list) => bytes::prefetch(list, 0),
        Filter::Not(inner) => bytes::prefetch(std::slice::from_ref(&**inner), 0),
        _ => {}
    }
}

/// How many filters have at least one way, given where the ways of each end.
fn filters_with_a_way(ends: &[u32]) -> usize {
    let starts = std::iter::once(&0).chain(ends);
    starts.zip(ends).filter(|(start, end)| start < end).count()
}

impl Builder {
    /// Compiles the rules of a scope. Their numbers are below 2^31.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidConfig`] if the rules take too much memory together, or name too many sets of types.
    pub(super) fn build(&mut self, name: &str, rules: &[Source<'_>]) -> Result<Scope> {
        let mut block = Vec::with_capacity(head::BYTES + name.len() + rules.len() * 64 + PADDING);
        let extra = self.write(name, rules, &mut block)?;
        Ok(Scope { block: block.into_boxed_slice().into(), extra })
    }

    /// Compiles scopes whose rules stand one behind the other, so many of each name, into one piece of memory, where they are
    /// found faster.
    ///
    /// # Errors
    /// As [`Builder::build`].
    pub(super) fn build_all(&mut self, names: &[(&str, usize)], rules: &[Source<'_>]) -> Result<Vec<Scope>> {
        let (mut blocks, mut extras, mut block) = (Blocks::default(), Vec::with_capacity(names.len()), Vec::new());
        let mut start = 0;
        for (name, count) in names {
            let end = start + count;
            // They lie wherever their rules do.
            for at in start..end {
                rules.get(at + RULES_AHEAD).into_iter().for_each(Source::expect);
                rules.get(at + TEXTS_AHEAD).into_iter().for_each(Source::expect_texts);
                rules.get(at + PARTS_AHEAD).into_iter().for_each(Source::expect_parts);
            }
            block.clear();
            extras.push(self.write(name, &rules[start..end], &mut block)?);
            blocks.push(&block);
            start = end;
        }
        Ok(blocks.finish().zip(extras).map(|(block, extra)| Scope { block, extra }).collect())
    }

    /// Writes the block of a scope, which is empty before.
    fn write(&mut self, name: &str, rules: &[Source<'_>], block: &mut Vec<u8>) -> Result<Option<Arc<Extra>>> {
        self.postings.clear();
        self.shared = Shared::default();
        let mut extra = Extra::default();
        block.resize(head::BYTES, 0);
        block[..2].copy_from_slice(&(name.len() as u16).to_le_bytes());
        block.extend_from_slice(name.as_bytes());
        let patterns = Patterns::of(rules, &self.hasher)?;

        let chosen = self.choose(rules.iter().map(|x| x.filter));
        let mut ends: Vec<AtEnd<'_>> = Vec::with_capacity(rules.len());
        let mut infixes: HashMap<Cow<'_, [u8]>, Vec<Held>> = HashMap::new();
        let mut values: HashMap<ValueKey<'_>, Vec<Held>> = HashMap::new();
        let anything = [Access::Prefix(Cow::Borrowed(&[]))];
        for (i, source) in rules.iter().enumerate() {
            let way = chosen.way(i).unwrap_or(&anything);
            extra.repeats |= way.len() > 1;
            for access in way {
                let held = self.posting(source, patterns.of_rules[i], access, block);
                match access {
                    Access::Exact(text) | Access::Prefix(text) | Access::Suffix(text) => {
                        let from_end = matches!(access, Access::Suffix(_));
                        ends.push(AtEnd { source: i, access, text, from_end, held });
                    }
                    Access::Infix(x) => infixes.entry(x.clone()).or_default().push(held),
                    Access::Value(kind, selector, value) => {
                        values.entry((*kind, selector.clone(), *value)).or_default().push(held);
                    }
                }
            }
        }
        extra.tables = std::mem::take(&mut self.shared).into_tables();
        if !self.write_planes(&ends, &chosen, &patterns, block, &mut extra) {
            let mut tries = [Trie::new(&ends, false), Trie::new(&ends, true)];
            for (trie, place) in tries.iter_mut().zip([head::PREFIXES, head::SUFFIXES]) {
                trie.write_root(place, self, block);
            }
            patterns.write(block, &mut extra);
            for trie in &mut tries {
                trie.write_rest(self, block);
            }
        }
        if !values.is_empty() {
            let part = self.write_values(values, block);
            set_u32(block, head::VALUES, part);
        }
        if !infixes.is_empty() {
            self.write_infixes(infixes, block, &mut extra)?;
        }
        block.resize(block.len() + PADDING, 0);
        if block.len() >= LIST as usize {
            return Err(Error::invalid_config(format!("the rules take {} bytes compiled", block.len()))
                .remedy("use fewer rules without a bucket, or shorter texts"));
        }
        Ok(extra.finish())
    }

    /// Decides what each of the filters of a scope is filed under: what few of the others have.
    pub(super) fn choose<'r>(&mut self, filters: impl ExactSizeIterator<Item = &'r Filter>) -> Chosen<'r> {
        let mut ways = Ways::with_capacity(filters.len().saturating_mul(WAYS_EXPECTED).min(WAYS_AHEAD));
        let mut ends: Vec<u32> = Vec::with_capacity(filters.len());
        for filter in filters {
            access::ways(filter, &mut ways);
            ends.push(ways.len() as u32);
        }
        if ways.len() > filters_with_a_way(&ends) {
            self.count_uses(&ways);
        }
        let mut start = 0;
        let best = ends.iter().map(|end| {
            let own = start..*end as usize;
            start = own.end;
            let best = match own.len() {
                0 => return None,
                1 => own.start,
                _ => own.min_by(|a, b| self.cost(&ways, *a).total_cmp(&self.cost(&ways, *b)))?,
            };
            u32::try_from(best).ok()
        });
        let best = best.collect();
        Chosen { ways, ends, best }
    }

    /// Counts how many rules have each condition.
    fn count_uses(&mut self, ways: &Ways<'_>) {
        let accesses = ways.accesses();
        // To clear what one large scope has left costs each small one as much as it did.
        if self.uses.capacity() > USES_KEPT.max(accesses.len() * 8) {
            self.uses = HashMap::default();
        }
        self.uses.clear();
        self.uses.reserve(accesses.len());
        self.hashes.clear();
        self.hashes.extend(accesses.iter().map(|access| self.hasher.hash_one(access)));
        for hash in &self.hashes {
            *self.uses.entry(*hash).or_default() += 1;
        }
    }

    /// What it is expected to cost that rules are filed under a way.
    fn cost(&self, ways: &Ways<'_>, number: usize) -> f32 {
        let uses = |hash| self.uses.get(hash).copied().unwrap_or(1);
        let hashes = &self.hashes[ways.range(number)];
        ways.way(number).iter().zip(hashes).map(|(access, hash)| access.cost(uses(hash)) + 0.01).sum()
    }

    /// Writes the posting of a rule that is filed under `access`.
    fn posting(&mut self, source: &Source<'_>, pattern: u16, access: &Access<'_>, block: &mut Vec<u8>) -> Held {
        let start = self.postings.len();
        self.postings.extend_from_slice(&source.rule.to_le_bytes());
        self.postings.extend_from_slice(&pattern.to_le_bytes());
        self.postings.extend_from_slice(&[0; 2]);
        let mut which = self.operand(source.filter, access);
        let mut len = self.postings.len() - start - POSTING_BYTES;
        if len > check::LEN as usize {
            let place = block.len() as u32;
            block.extend_from_slice(&self.postings[start + POSTING_BYTES..]);
            self.postings.truncate(start + POSTING_BYTES);
            self.postings.extend_from_slice(&place.to_le_bytes());
            self.postings.extend_from_slice(&(len as u32).to_le_bytes());
            (which, len) = (check::PROGRAM_AT, 8);
        }
        let checked = which << check::SHIFT | len as u16;
        self.postings[start + 6..start + 8].copy_from_slice(&checked.to_le_bytes());
        let len = self.postings.len() - start;
        Held { start: start as u32, len: len as u32 }
    }

    /// Writes what is left to check of a filter that is filed under `access`, and answers which check it is.
    fn operand(&mut self, filter: &Filter, access: &Access<'_>) -> u16 {
        let (length, left) = left_to_check(filter, access);
        let out = &mut self.postings;
        match (length, &left[..]) {
            (None, []) => check::NOTHING,
            (Some(len), _) => {
                out.extend_from_slice(&len.to_le_bytes());
                check::LENGTH
            }
            (None, [Filter::Is(Field::Key, Test::Suffix(x))]) if !x.is_empty() => {
                out.extend_from_slice(x);
                check::SUFFIX
            }
            (None, [Filter::Is(Field::Key, Test::Prefix(x))]) if !x.is_empty() => {
                out.extend_from_slice(x);
                check::PREFIX
            }
            (None, [Filter::Is(Field::Key, Test::Wildcard(w))]) => {
                out.extend_from_slice(w.code());
                check::WILDCARD
            }
            (None, _) => {
                program::encode(&left, &mut self.shared, out);
                check::PROGRAM
            }
        }
    }

    fn held(&self, h: Held) -> &[u8] {
        &self.postings[h.start as usize..][..h.len as usize]
    }

    /// Writes postings. Rules that have the same one, but for the rule, share it: their list is written by
    /// [`Builder::write_lists`].
    fn write_postings(&mut self, list: &mut [Held], block: &mut Vec<u8>) {
        let postings = &self.postings;
        let what = |h: &Held| &postings[h.start as usize + 4..(h.start + h.len) as usize];
        if list.len() > 1 {
            list.sort_by(|a, b| what(a).cmp(what(b)));
        }
        let mut rest = &*list;
        while let Some(first) = rest.first() {
            let same = rest.iter().take_while(|h| what(h) == what(first)).count();
            let at = block.len();
            block.extend_from_slice(self.held(*first));
            if same > 1 {
                let rules = rest[..same].iter().map(|h| u32_at(postings, h.start as usize)).collect();
                self.lists.push((at, rules));
            }
            rest = &rest[same..];
        }
    }

    /// Writes the lists of rules that share a posting, behind what was written.
    fn write_lists(&mut self, block: &mut Vec<u8>) {
        for (posting, rules) in self.lists.drain(..) {
            let place = block.len() as u32;
            block.extend_from_slice(&(rules.len() as u32).to_le_bytes());
            rules.iter().for_each(|rule| block.extend_from_slice(&rule.to_le_bytes()));
            block[posting..posting + 4].copy_from_slice(&(place | LIST).to_le_bytes());
        }
    }

    /// Writes a list of postings with its length before it, and answers its place.
    fn write_list(&mut self, list: &mut [Held], block: &mut Vec<u8>) -> u32 {
        let place = block.len();
        block.extend_from_slice(&[0; 4]);
        self.write_postings(list, block);
        let len = block.len() - place - 4;
        set_u32(block, place, len);
        self.write_lists(block);
        place as u32
    }

    /// Writes the index of few rules; `false` if there are too many, and then it has written nothing.
    fn write_planes<'r>(
        &mut self,
        rules: &[AtEnd<'r>],
        chosen: &'r Chosen<'_>,
        patterns: &Patterns<'_>,
        block: &mut Vec<u8>,
        extra: &mut Extra,
    ) -> bool {
        if rules.is_empty() || rules.len() > planes::RULES_MAX {
            return false;
        }
        let postings = std::mem::take(&mut self.postings);
        let what = |rule: &AtEnd<'r>| &postings[rule.held.start as usize..][..rule.held.len as usize];
        let all_but_rule = |rule: &AtEnd<'r>| (rule.from_end, rule.text, &what(rule)[4..]);
        let mut sorted: Vec<(u128, &AtEnd<'r>)> =
            rules.iter().map(|rule| (near_bytes(rule.text, rule.from_end), rule)).collect();
        sorted.sort_by(|a, b| a.0.cmp(&b.0).then_with(|| all_but_rule(a.1).cmp(&all_but_rule(b.1))));
        let alike =
            |a: &(u128, &AtEnd<'r>), b: &(u128, &AtEnd<'r>)| a.0 == b.0 && all_but_rule(a.1) == all_but_rule(b.1);
        let same: Vec<&[(u128, &AtEnd<'r>)]> = sorted.chunk_by(alike).collect();
        let entry = |rule: &AtEnd<'r>| {
            let (mut begins, mut ends) = chosen.known(rule.source);
            match rule.access {
                Access::Exact(x) => (begins, ends) = (x, x),
                Access::Suffix(x) if x.len() > ends.len() => ends = x,
                Access::Prefix(x) if x.len() > begins.len() => begins = x,
                _ => {}
            }
            planes::Entry { text: rule.text, from_end: rule.from_end, begins, ends, posting: what(rule) }
        };
        let entries: Vec<planes::Entry<'_>> = same.iter().map(|rules| entry(rules[0].1)).collect();
        let taken = planes::takes(&entries, patterns.distinct.len());
        if taken {
            let mut with = vec![0; patterns.distinct.len()];
            same.iter()
                .enumerate()
                .for_each(|(i, rules)| with[patterns.of_rules[rules[0].1.source] as usize] |= 1 << i);
            let part = block.len();
            set_u32(block, head::PLANES, part);
            let places = self.planner.write(&entries, &with, block);
            patterns.write(block, extra);
            for (at, rules) in planes::write_records(&entries, places, block).into_iter().zip(same) {
                if rules.len() > 1 {
                    let numbers = rules.iter().map(|(_, rule)| u32_at(&postings, rule.held.start as usize));
                    self.lists.push((at, numbers.collect()));
                }
            }
            self.write_lists(block);
        }
        self.postings = postings;
        taken
    }

    fn write_values(&mut self, values: HashMap<ValueKey<'_>, Vec<Held>>, block: &mut Vec<u8>) -> usize {
        let mut all: Vec<_> = values.into_iter().collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        let mut kinds = 0;
        let mut places: Vec<(u32, u32)> = Vec::new();
        for ((kind, name, value), mut list) in all {
            kinds |= kind.bit();
            places.push((hash_value(kind, &name, value), self.write_list(&mut list, block)));
        }
        let slots = (places.len() * 2).next_power_of_two();
        let part = block.len();
        block.extend_from_slice(&(slots as u32 - 1).to_le_bytes());
        block.extend_from_slice(&kinds.to_le_bytes());
        let table = block.len();
        block.resize(table + slots * 8, 0);
        for (hash, place) in places {
            let mut i = hash as usize & (slots - 1);
            while u32_at(block, table + i * 8 + 4) != NONE {
                i = (i + 1) & (slots - 1);
            }
            block[table + i * 8..][..4].copy_from_slice(&hash.to_le_bytes());
            set_u32(block, table + i * 8 + 4, place as usize);
        }
        part
    }

    /// Writes what finds the texts within keys that rules are filed under.
    fn write_infixes(
        &mut self,
        infixes: HashMap<Cow<'_, [u8]>, Vec<Held>>,
        block: &mut Vec<u8>,
        extra: &mut Extra,
    ) -> Result<()> {
        let mut all: Vec<_> = infixes.into_iter().collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        let (mut long, mut short) = (Vec::<(&[u8], u32)>::new(), Vec::<(&[u8], u32)>::new());
        let count = all.len();
        for (text, list) in &mut all {
            let place = self.write_list(list, block);
            if grams::takes(text, count) { long.push((text, place)) } else { short.push((text, place)) }
        }
        if !long.is_empty() {
            let (part, left) = grams::write(&long, block);
            set_u32(block, head::GRAMS, part);
            short.extend(left.into_iter().map(|i| long[i]));
        }
        if !short.is_empty() {
            let texts = short.iter().map(|(x, _)| x);
            let automaton = NFA::builder().match_kind(aho_corasick::MatchKind::Standard).build(texts);
            let automaton = automaton.map_err(|e| {
                Error::invalid_config(format!("the texts within keys take too much memory: {e}"))
                    .remedy("use fewer wildcards and regular expressions without a beginning or an end")
            })?;
            extra.infixes = Some(Infixes { automaton, postings: short.iter().map(|(_, place)| *place).collect() });
        }
        Ok(())
    }
}

/// A trie that is being written: parents before children, and each subtree in one piece.
struct Trie<'r> {
    entries: Vec<Entry<'r>>,
    from_end: bool,
    /// What is to be written, the next one last. A stack rather than recursion: nested prefixes may be a thousand levels
    /// deep.
    open: Vec<Open>,
    own: Vec<Held>,
}

/// A node that is to be written: of the entries of a range, which share `depth` bytes.
struct Open {
    low: usize,
    high: usize,
    depth: usize,
    /// Where its place is to be written.
    link: usize,
}

impl<'r> Trie<'r> {
    fn new(rules: &[AtEnd<'r>], from_end: bool) -> Trie<'r> {
        let own = rules.iter().filter(|rule| rule.from_end == from_end);
        let mut entries: Vec<(u128, Entry<'r>)> =
            own.map(|rule| (near_bytes(rule.text, from_end), (rule.text, rule.held))).collect();
        let further = |a: &[u8], b: &[u8]| if from_end { a.iter().rev().cmp(b.iter().rev()) } else { a.cmp(b) };
        entries.sort_by(|a, b| a.0.cmp(&b.0).then_with(|| further(a.1.0, b.1.0)));
        let entries = entries.into_iter().map(|(_, entry)| entry).collect();
        Trie { entries, from_end, open: Vec::new(), own: Vec::new() }
    }

    fn byte(&self, entry: usize, at: usize) -> u8 {
        let text = &self.entries[entry].0;
        text[if self.from_end { text.len() - 1 - at } else { at }]
    }

    fn write_root(&mut self, link: usize, builder: &mut Builder, block: &mut Vec<u8>) {
        if !self.entries.is_empty() {
            self.write_node(&Open { low: 0, high: self.entries.len(), depth: 0, link }, builder, block);
        }
    }

    fn write_rest(&mut self, builder: &mut Builder, block: &mut Vec<u8>) {
        while let Some(next) = self.open.pop() {
            self.write_node(&next, builder, block);
        }
    }

    fn write_node(&mut self, node: &Open, builder: &mut Builder, block: &mut Vec<u8>) {
        let Open { mut low, high, depth, link } = *node;
        let node = block.len();
        set_u32(block, link, node);
        // Sorted, so what the first and the last share, all share.
        let shortest = self.entries[low].0.len().min(self.entries[high - 1].0.len());
        let end = (depth..shortest).find(|&i| self.byte(low, i) != self.byte(high - 1, i)).unwrap_or(shortest);
        let end = end.min(depth + usize::from(u16::MAX));
        let text = &self.entries[low].0;
        let label = if self.from_end { text.len() - end..text.len() - depth } else { depth..end };
        block.extend_from_slice(&(label.len() as u16).to_le_bytes());
        block.extend_from_slice(&[0; NODE_BYTES - 2]);
        block.extend_from_slice(&text[label]);
        self.own.clear();
        while low < high && self.entries[low].0.len() == end {
            self.own.push(self.entries[low].1);
            low += 1;
        }
        let first_bytes = block.len();
        let before = self.open.len();
        while low < high {
            let first = self.byte(low, end);
            let same = self.entries[low..high]
                .partition_point(|(text, _)| text[if self.from_end { text.len() - 1 - end } else { end }] == first);
            self.open.push(Open { low, high: low + same, depth: end + 1, link: 0 });
            block.push(first);
            low += same;
        }
        let children = &mut self.open[before..];
        block[node + 2..node + 4].copy_from_slice(&(children.len() as u16).to_le_bytes());
        let links = first_bytes + children.len();
        children.iter_mut().enumerate().for_each(|(i, child)| child.link = links + i * 4);
        // The first child right behind its parent.
        children.reverse();
        block.resize(links + children.len() * 4, 0);
        let start = block.len();
        builder.write_postings(&mut self.own, block);
        let len = block.len() - start;
        set_u32(block, node + 4, len);
        builder.write_lists(block);
    }
}

impl Extra {
    fn finish(mut self) -> Option<Arc<Extra>> {
        let needed = !self.tables.is_empty() || !self.custom.is_empty() || self.infixes.is_some() || self.repeats;
        self.bytes = std::mem::size_of::<Extra>()
            + self.custom.len() * 64
            + self.infixes.as_ref().map_or(0, |i| i.automaton.memory_usage() + i.postings.len() * 4);
        needed.then(|| Arc::new(self))
    }
}

/// What is left to check of a filter that is filed under `access`: that the key is so long, which is all then, or conditions.
pub(super) fn left_to_check<'r>(filter: &'r Filter, access: &Access<'_>) -> (Option<u16>, Conjuncts<'r>) {
    let mut left = Conjuncts::new();
    let mut length = None;
    conjuncts(filter, &mut left);
    // A filter that nothing fulfils has the empty `any` as its only part, and no rule.
    left.retain(|f| {
        let Filter::Is(Field::Key, test) = *f else { return true };
        match (test, access) {
            (Test::Equals(x) | Test::Prefix(x) | Test::Suffix(x), _) if x.is_empty() => true,
            (Test::Equals(x), Access::Exact(y)) if **x == **y => {
                length = Some(x.len() as u16);
                false
            }
            (Test::Prefix(x), Access::Prefix(y) | Access::Exact(y)) => !y.starts_with(x),
            (Test::Suffix(x), Access::Suffix(y)) => !y.ends_with(x),
            (Test::Contains(x), Access::Infix(y)) => **x != **y,
            (Test::Wildcard(w), Access::Infix(y)) => w.contained() != Some(&**y),
            _ => true,
        }
    });
    if length.is_some() && !left.is_empty() {
        (length, left) = (None, Conjuncts::new());
        conjuncts(filter, &mut left);
    }
    (length, left)
}

/// Most filters have few.
pub(super) type Conjuncts<'r> = SmallVec<[&'r Filter; 8]>;

/// The parts of a filter that must all hold.
pub(super) fn conjuncts<'r>(filter: &'r Filter, out: &mut Conjuncts<'r>) {
    match filter {
        Filter::All(list) => list.iter().for_each(|f| conjuncts(f, out)),
        f => out.push(f),
    }
}

/// The distinct sets of types of a scope's rules.
struct Patterns<'r> {
    distinct: Vec<&'r EventPattern>,
    of_rules: Vec<u16>,
}

impl<'r> Patterns<'r> {
    fn of(rules: &[Source<'r>], hasher: &FixedState) -> Result<Patterns<'r>> {
        let mut distinct: Vec<&EventPattern> = Vec::new();
        let mut numbers: HashMap<u64, Vec<u16>, BuildHasherDefault<Hashed>> = HashMap::default();
        let mut of_rules = Vec::with_capacity(rules.len());
        for source in rules {
            // Few are looked at faster one after the other.
            let near = distinct.iter().take(NEAR_PATTERNS).position(|p| *p == source.events);
            let number = match near {
                Some(n) => n as u16,
                None => {
                    let same = numbers.entry(hasher.hash_one(source.events)).or_default();
                    match same.iter().find(|n| distinct[**n as usize] == source.events) {
                        Some(n) => *n,
                        None if distinct.len() == PATTERNS_MAX => {
                            let error = "more than 65536 different sets of event types in one bucket";
                            return Err(Error::invalid_config(error).remedy("use the same sets in several rules"));
                        }
                        None => {
                            same.push(distinct.len() as u16);
                            distinct.push(source.events);
                            distinct.len() as u16 - 1
                        }
                    }
                }
            };
            of_rules.push(number);
        }
        Ok(Patterns { distinct, of_rules })
    }

    fn write(&self, block: &mut Vec<u8>, extra: &mut Extra) {
        let at = block.len();
        set_u32(block, head::PATTERNS, at);
        for (number, pattern) in self.distinct.iter().enumerate() {
            let mut types = [0; TYPE_BYTES];
            for t in pattern.known() {
                types[t as usize / 8] |= 1 << (t as usize % 8);
            }
            block.extend_from_slice(&types);
            for (all, own) in block[head::TYPES..].iter_mut().zip(types) {
                *all |= own;
            }
            if pattern.custom().next().is_some() {
                extra.custom.insert(number as u16, (*pattern).clone());
            }
        }
    }
}
