//! The compiled rules of one scope (a bucket, or every bucket): an index in one block of memory.
//!
//! Each rule is filed under the one condition that is expected to be met least often (an access predicate in the sense of
//! Fabret et al., SIGMOD 2001): a beginning or an end of the key, found by one walk through a trie each; a text within the
//! key, found by one pass of an Aho-Corasick automaton; or the value of another field, found by one probe for each value
//! that the event has. Where a rule is met, the rest of its filter is checked. So the cost of an event is that of the walk
//! plus the rules met, whatever the number of rules, and no automaton is ever built over several patterns with wildcards.
//!
//! ```text
//! block     name, types, patterns, then the parts that `Head` points to
//! node      u16 length of the label, u16 children, u32 bytes of postings; label; first byte of each child;
//!           u32 place of each child; postings
//! posting   u32 rule (or, with the top bit, the place of a list of rules), u16 pattern of types,
//!           u16 check (3 bits) and length of its operand; operand
//! ```

use std::borrow::Cow;
use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::Arc;

use aho_corasick::automaton::{Automaton, OverlappingState};
use aho_corasick::nfa::contiguous::NFA;
use aho_corasick::{Anchored, Input};
use foldhash::fast::FixedState;

use super::access::{self, Access, AnyOf};
use super::expression::{Field, Filter, Test};
use super::pattern::{self, Regex};
use super::program;
use super::subject::{Kind, Subject, Value};
use crate::error::{Error, Result};
use crate::event::{EventPattern, EventType, KnownType};

/// Known types have numbers below this.
const TYPE_BITS: usize = 128;
const TYPE_BYTES: usize = TYPE_BITS / 8;
const _: () = {
    let mut i = 0;
    while i < KnownType::ALL.len() {
        assert!((KnownType::ALL[i] as usize) < TYPE_BITS);
        i += 1;
    }
};

/// What the block begins with: the length of the name (u16), then the places (u32) of the parts.
mod head {
    pub(super) const PATTERNS: usize = 4;
    pub(super) const PREFIXES: usize = 8;
    pub(super) const SUFFIXES: usize = 12;
    pub(super) const VALUES: usize = 16;
    /// What the types of all rules are.
    pub(super) const TYPES: usize = 20;
    pub(super) const BYTES: usize = 36;
}
/// In the place of a part that is not there.
const NONE: u32 = 0;

const NODE_BYTES: usize = 8;
const POSTING_BYTES: usize = 8;
const LIST: u32 = 1 << 31;

/// What is left to check of a rule that was met.
mod check {
    /// Nothing.
    pub(super) const NOTHING: u16 = 0;
    pub(super) const SUFFIX: u16 = 1;
    pub(super) const PREFIX: u16 = 2;
    /// The key ends here: its length.
    pub(super) const LENGTH: u16 = 3;
    pub(super) const WILDCARD: u16 = 4;
    pub(super) const PROGRAM: u16 = 5;
    /// A program that is too long to stand here: its place.
    pub(super) const PROGRAM_AT: u16 = 6;
    pub(super) const SHIFT: u16 = 13;
    pub(super) const LEN: u16 = (1 << SHIFT) - 1;
}

/// Counted, so that no type of rule set can overflow what the block's fields hold.
const PATTERNS_MAX: usize = 1 << 16;

#[inline]
fn u16_at(b: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([b[at], b[at + 1]])
}

#[inline]
fn u32_at(b: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]])
}

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

/// The compiled rules of a scope. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Scope {
    block: Arc<[u8]>,
    extra: Option<Arc<Extra>>,
}

/// What does not fit into a block of bytes.
#[derive(Debug, Default)]
struct Extra {
    regexes: Vec<Regex>,
    /// By pattern number, those that have types of the host's own.
    custom: HashMap<u16, EventPattern>,
    infixes: Option<Infixes>,
    /// A rule may be met more than once.
    repeats: bool,
    bytes: usize,
}

#[derive(Debug)]
struct Infixes {
    automaton: NFA,
    /// The place of the postings of each text.
    postings: Vec<u32>,
}

/// Working memory of matching; used again and again, it allocates no more.
#[derive(Debug, Default)]
pub struct MatchMemory {
    pub(super) data: super::subject::DataMemory,
    /// The texts found in the present key.
    pub(super) found: Vec<u64>,
    pub(super) touched: Vec<u32>,
    /// Postings found by values of the present event.
    pub(super) places: Vec<u32>,
    /// Rules met, since the memory was made.
    pub(super) checks: u64,
}

impl MatchMemory {
    /// How many rules were met since the memory was made: those whose types and filter were looked at.
    pub fn met(&self) -> u64 {
        self.checks
    }
}

/// An event as the walk sees it.
pub(super) struct Met<'m, 's, 'a> {
    pub(super) event_type: EventType<'a>,
    pub(super) key: &'a [u8],
    pub(super) subject: &'m mut Subject<'s>,
    pub(super) found: &'m mut Vec<u64>,
    pub(super) touched: &'m mut Vec<u32>,
    pub(super) places: &'m mut Vec<u32>,
    pub(super) checks: &'m mut u64,
    /// Only type, bucket and key are known: rules that the rest may fulfil are met too.
    pub(super) before: bool,
}

// ------------------------------------------------------------------------------------------------ matching

impl Scope {
    pub(super) fn name(&self) -> &[u8] {
        &self.block[head::BYTES..][..u16_at(&self.block, 0) as usize]
    }

    /// Bytes of memory that it takes.
    pub(super) fn bytes(&self) -> usize {
        self.block.len() + 16 + self.extra.as_ref().map_or(0, |e| e.bytes)
    }

    /// Whether some rule wants events of this type.
    #[inline]
    pub(super) fn wants(&self, t: EventType<'_>) -> bool {
        match t {
            EventType::Known(t) => has_type(&self.block[head::TYPES..][..TYPE_BYTES], t),
            EventType::Custom(_) => {
                self.extra.as_ref().is_some_and(|e| e.custom.values().any(|pattern| pattern.contains(t)))
            }
        }
    }

    /// Whether a rule may be met twice.
    #[inline]
    pub(super) fn repeats(&self) -> bool {
        self.extra.as_ref().is_some_and(|e| e.repeats)
    }

    /// Appends the rules that want the event to `out`.
    #[inline]
    pub(super) fn matches(&self, m: &mut Met<'_, '_, '_>, out: &mut Vec<u32>) {
        let block = &*self.block;
        let prefixes = u32_at(block, head::PREFIXES);
        if prefixes != NONE {
            self.walk::<false>(prefixes as usize, m, out);
        }
        let suffixes = u32_at(block, head::SUFFIXES);
        if suffixes != NONE {
            self.walk::<true>(suffixes as usize, m, out);
        }
        let values = u32_at(block, head::VALUES);
        if values != NONE {
            self.probe(values as usize, m, out);
        }
        if let Some(infixes) = self.extra.as_ref().and_then(|e| e.infixes.as_ref()) {
            self.search(infixes, m, out);
        }
    }

    /// Walks along the key from its beginning, or with `FROM_END` from its end.
    #[inline]
    fn walk<const FROM_END: bool>(&self, root: usize, m: &mut Met<'_, '_, '_>, out: &mut Vec<u32>) {
        let block = &*self.block;
        let mut rest = m.key;
        let mut node = root;
        loop {
            let head = &block[node..node + NODE_BYTES];
            let (label, children) = (u16_at(head, 0) as usize, u16_at(head, 2) as usize);
            let postings = u32_at(head, 4) as usize;
            let at = node + NODE_BYTES;
            let label_bytes = &block[at..at + label];
            let beyond = if FROM_END { rest.strip_suffix(label_bytes) } else { rest.strip_prefix(label_bytes) };
            let Some(beyond) = beyond else { return };
            rest = beyond;
            let first_bytes = at + label;
            let links = first_bytes + children;
            if postings > 0 {
                let start = links + children * 4;
                self.post(&block[start..start + postings], m, out);
            }
            let next = if FROM_END { rest.split_last() } else { rest.split_first() };
            let Some((&next, behind)) = next else { return };
            let Some(i) = find_byte(&block[first_bytes..links], next) else { return };
            rest = behind;
            node = u32_at(block, links + i * 4) as usize;
        }
    }

    /// Checks the rules of a list of postings.
    #[inline]
    fn post(&self, mut postings: &[u8], m: &mut Met<'_, '_, '_>, out: &mut Vec<u32>) {
        while let Some((head, rest)) = postings.split_first_chunk::<POSTING_BYTES>() {
            let checked = u16_at(head, 6);
            let (operand, rest) = rest.split_at((checked & check::LEN) as usize);
            postings = rest;
            *m.checks += 1;
            if self.has_pattern(u16_at(head, 4), m.event_type) && self.check(checked >> check::SHIFT, operand, m) {
                let rule = u32_at(head, 0);
                if rule & LIST == 0 {
                    out.push(rule);
                } else {
                    self.push_list((rule & !LIST) as usize, out);
                }
            }
        }
    }

    #[cold]
    fn push_list(&self, at: usize, out: &mut Vec<u32>) {
        let count = u32_at(&self.block, at) as usize;
        let rules = self.block[at + 4..][..count * 4].chunks_exact(4);
        out.extend(rules.map(|b| u32_at(b, 0)));
    }

    #[inline]
    fn has_pattern(&self, number: u16, t: EventType<'_>) -> bool {
        match t {
            EventType::Known(t) => {
                let at = u32_at(&self.block, head::PATTERNS) as usize + number as usize * TYPE_BYTES;
                has_type(&self.block[at..at + TYPE_BYTES], t)
            }
            EventType::Custom(_) => {
                self.extra.as_ref().and_then(|e| e.custom.get(&number)).is_some_and(|pattern| pattern.contains(t))
            }
        }
    }

    #[inline]
    fn check(&self, which: u16, operand: &[u8], m: &mut Met<'_, '_, '_>) -> bool {
        match which {
            check::NOTHING => true,
            check::SUFFIX => m.key.ends_with(operand),
            check::PREFIX => m.key.starts_with(operand),
            check::LENGTH => m.key.len() == u16_at(operand, 0) as usize,
            // An empty key is none.
            check::WILDCARD => !m.key.is_empty() && pattern::matches(operand, m.key),
            check::PROGRAM => self.run(operand, m),
            _ => {
                let (at, len) = (u32_at(operand, 0) as usize, u32_at(operand, 4) as usize);
                self.run(&self.block[at..at + len], m)
            }
        }
    }

    fn run(&self, program: &[u8], m: &mut Met<'_, '_, '_>) -> bool {
        let regexes = self.extra.as_ref().map_or(&[][..], |e| &e.regexes);
        if m.before {
            return program::run_before(program, m.subject, regexes);
        }
        program::run(program, m.subject, regexes)
    }

    /// Looks up the values that the event has in the fields that rules are filed under.
    ///
    /// The part: u32 mask of the table; u16 fields, each with its kind (u8), the length of its selector (u16) and the
    /// selector; the table, u32 hash and u32 place of postings (0: free).
    fn probe(&self, part: usize, m: &mut Met<'_, '_, '_>, out: &mut Vec<u32>) {
        let block = &*self.block;
        let (mask, fields) = (u32_at(block, part), u16_at(block, part + 4));
        let table = u32_at(block, part + 6) as usize;
        let slot = |i: u32| {
            let at = table + (i & mask) as usize * 8;
            (u32_at(block, at), u32_at(block, at + 4))
        };
        let mut met = std::mem::take(m.places);
        let mut at = part + 10;
        for number in 0..fields {
            let kind = Kind::from_u8(block[at]);
            let len = u16_at(block, at + 1) as usize;
            let selector = &block[at + 3..at + 3 + len];
            at += 3 + len;
            if m.before {
                continue;
            }
            m.subject.any(kind, selector, &mut |value| {
                if let Value::Text(value) = value {
                    let hash = hash_value(number, value);
                    let mut i = hash;
                    loop {
                        let (held, place) = slot(i);
                        if place == NONE {
                            break;
                        }
                        if held == hash && !met.contains(&place) {
                            met.push(place);
                        }
                        i = i.wrapping_add(1);
                    }
                }
                false
            });
        }
        if m.before {
            met.extend((0..=mask).map(|i| slot(i).1).filter(|place| *place != NONE));
        }
        for place in &met {
            self.post_at(*place as usize, m, out);
        }
        met.clear();
        *m.places = met;
    }

    fn post_at(&self, place: usize, m: &mut Met<'_, '_, '_>, out: &mut Vec<u32>) {
        let len = u32_at(&self.block, place) as usize;
        self.post(&self.block[place + 4..][..len], m, out);
    }

    /// Finds the texts in the key that rules are filed under.
    fn search(&self, infixes: &Infixes, m: &mut Met<'_, '_, '_>, out: &mut Vec<u32>) {
        let words = infixes.postings.len().div_ceil(64);
        if m.found.len() < words {
            m.found.resize(words, 0);
        }
        let input = Input::new(m.key).anchored(Anchored::No);
        let mut state = OverlappingState::start();
        loop {
            // It fails only for kinds of search that the automaton was not built for.
            if infixes.automaton.try_find_overlapping(&input, &mut state).is_err() {
                break;
            }
            let Some(found) = state.get_match() else { break };
            let text = found.pattern().as_u32();
            let (word, bit) = (text as usize / 64, 1 << (text % 64));
            if m.found[word] & bit == 0 {
                m.found[word] |= bit;
                m.touched.push(text);
            }
        }
        let mut touched = std::mem::take(m.touched);
        for text in &touched {
            m.found[*text as usize / 64] = 0;
            self.post_at(infixes.postings[*text as usize] as usize, m, out);
        }
        touched.clear();
        *m.touched = touched;
    }
}

#[inline]
fn has_type(types: &[u8], t: KnownType) -> bool {
    types[t as usize / 8] & (1 << (t as usize % 8)) != 0
}

#[inline]
fn find_byte(bytes: &[u8], b: u8) -> Option<usize> {
    if bytes.len() <= 8 { bytes.iter().position(|x| *x == b) } else { memchr::memchr(b, bytes) }
}

fn hash_value(field: u16, value: &[u8]) -> u32 {
    xxhash_rust::xxh3::xxh3_64_with_seed(value, u64::from(field)) as u32
}

// ------------------------------------------------------------------------------------------------ building

/// Builds scopes, one after the other, with the same memory.
#[derive(Debug, Default)]
pub(super) struct Builder {
    /// Postings, before they have their places.
    postings: Vec<u8>,
}

/// Where a posting stands in [`Builder::postings`].
#[derive(Clone, Copy)]
struct Held {
    start: u32,
    len: u32,
}

/// A string of a trie, with a posting.
type Entry<'r> = (Cow<'r, [u8]>, Held);

/// A value that rules are filed under: the field, its selector, the value.
type ValueKey<'r> = (Kind, Cow<'r, [u8]>, &'r [u8]);

impl Builder {
    /// Compiles the rules of a scope. Their numbers are below 2^31.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidConfig`] if the rules take too much memory together, or name too many sets of types.
    pub(super) fn build(&mut self, name: &str, rules: &[Source<'_>]) -> Result<Scope> {
        self.postings.clear();
        let mut extra = Extra::default();
        let mut block = vec![0; head::BYTES];
        block[..2].copy_from_slice(&(name.len() as u16).to_le_bytes());
        block.extend_from_slice(name.as_bytes());

        let hasher = FixedState::default();
        let patterns = Patterns::of(rules, &hasher)?;
        patterns.write(&mut block, &mut extra);

        // Rules with the same types and filter are one.
        let mut groups: Vec<Group<'_>> = Vec::with_capacity(rules.len());
        // What is mutable in a compiled regular expression is no part of its identity.
        #[allow(clippy::mutable_key_type)]
        let mut known: HashMap<(u16, &Filter), u32, FixedState> =
            HashMap::with_capacity_and_hasher(rules.len(), hasher.clone());
        for (source, pattern) in rules.iter().zip(&patterns.of_rules) {
            let new = groups.len() as u32;
            let group = *known.entry((*pattern, source.filter)).or_insert(new);
            if group == new {
                groups.push(Group { rule: source.rule, more: Vec::new(), pattern: *pattern, filter: source.filter });
            } else {
                groups[group as usize].more.push(source.rule);
            }
        }
        drop(known);

        // How often each condition is there decides which one a rule is filed under.
        let mut ways: Vec<AnyOf<'_>> = Vec::new();
        let mut ends: Vec<u32> = Vec::with_capacity(groups.len());
        let mut uses: HashMap<Access<'_>, u32, FixedState> = HashMap::with_capacity_and_hasher(groups.len(), hasher);
        for group in &groups {
            let start = ways.len();
            access::ways(group.filter, &mut ways);
            for access in ways[start..].iter().flatten() {
                match uses.get_mut(access) {
                    Some(n) => *n += 1,
                    None => {
                        uses.insert(access.clone(), 1);
                    }
                }
            }
            ends.push(ways.len() as u32);
        }
        let cost = |way: &AnyOf<'_>| way.iter().map(|a| a.cost(uses.get(a).copied().unwrap_or(1)) + 0.01).sum::<f32>();

        let (mut prefixes, mut suffixes): (Vec<Entry<'_>>, Vec<Entry<'_>>) = (Vec::new(), Vec::new());
        let mut infixes: HashMap<Cow<'_, [u8]>, Vec<Held>> = HashMap::new();
        let mut values: HashMap<ValueKey<'_>, Vec<Held>> = HashMap::new();
        let mut start = 0;
        for (group, end) in groups.iter().zip(ends) {
            let own = start as usize..end as usize;
            start = end;
            let best = own.min_by(|a, b| cost(&ways[*a]).total_cmp(&cost(&ways[*b])));
            let way = best.map(|i| std::mem::take(&mut ways[i]));
            let way = way.unwrap_or_else(|| vec![Access::Prefix(Cow::Borrowed(&[]))]);
            extra.repeats |= way.len() > 1;
            for access in way {
                let held = self.posting(group, &access, &mut block, &mut extra)?;
                match access {
                    Access::Exact(x) | Access::Prefix(x) => prefixes.push((x, held)),
                    Access::Suffix(x) => suffixes.push((x, held)),
                    Access::Infix(x) => infixes.entry(x).or_default().push(held),
                    Access::Value(kind, selector, value) => {
                        values.entry((kind, selector, value)).or_default().push(held);
                    }
                }
            }
        }
        drop(uses);
        for (mut entries, from_end, place) in [(prefixes, false, head::PREFIXES), (suffixes, true, head::SUFFIXES)] {
            if !entries.is_empty() {
                let root = self.write_trie(&mut entries, from_end, &mut block);
                set_u32(&mut block, place, root);
            }
        }
        if !values.is_empty() {
            let part = self.write_values(values, &mut block);
            set_u32(&mut block, head::VALUES, part);
        }
        if !infixes.is_empty() {
            extra.infixes = Some(self.write_infixes(infixes, &mut block)?);
        }
        if block.len() > LIST as usize {
            return Err(Error::invalid_config(format!("the rules take {} bytes compiled", block.len()))
                .remedy("use fewer rules without a bucket, or shorter texts"));
        }
        Ok(Scope { block: block.into(), extra: extra.finish() })
    }

    /// Writes the posting of a group that is filed under `access`.
    fn posting(
        &mut self,
        group: &Group<'_>,
        access: &Access<'_>,
        block: &mut Vec<u8>,
        extra: &mut Extra,
    ) -> Result<Held> {
        let rule = if group.more.is_empty() {
            group.rule
        } else {
            let at = block.len() as u32;
            block.extend_from_slice(&(1 + group.more.len() as u32).to_le_bytes());
            for rule in [group.rule].iter().chain(&group.more) {
                block.extend_from_slice(&rule.to_le_bytes());
            }
            at | LIST
        };
        let start = self.postings.len();
        self.postings.extend_from_slice(&rule.to_le_bytes());
        self.postings.extend_from_slice(&group.pattern.to_le_bytes());
        self.postings.extend_from_slice(&[0; 2]);
        let mut which = self.operand(group.filter, access, extra);
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
        Ok(Held { start: start as u32, len: len as u32 })
    }

    /// Writes what is left to check of a filter that is filed under `access`, and answers which check it is.
    fn operand(&mut self, filter: &Filter, access: &Access<'_>, extra: &mut Extra) -> u16 {
        let mut left: Vec<&Filter> = Vec::new();
        let mut length = None;
        conjuncts(filter, &mut left);
        // A filter that nothing fulfils has the empty `any` as its only part, and no rule.
        left.retain(|f| {
            let Filter::Is(Field::Key, test) = f else { return true };
            match (test, access) {
                (Test::Equals(x) | Test::Prefix(x) | Test::Suffix(x), _) if x.is_empty() => true,
                (Test::Equals(x), Access::Exact(y)) if **x == **y => {
                    length = Some(x.len() as u16);
                    false
                }
                (Test::Prefix(x), Access::Prefix(y) | Access::Exact(y)) => !y.starts_with(x),
                (Test::Suffix(x), Access::Suffix(y)) => !y.ends_with(x),
                (Test::Contains(x), Access::Infix(y)) => **x != **y,
                _ => true,
            }
        });
        let out = &mut self.postings;
        match (length, &left[..]) {
            (None, []) => check::NOTHING,
            (Some(len), []) => {
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
                program::encode(&left, &mut extra.regexes, out);
                check::PROGRAM
            }
            (Some(_), _) => {
                left.clear();
                conjuncts(filter, &mut left);
                program::encode(&left, &mut extra.regexes, out);
                check::PROGRAM
            }
        }
    }

    fn held(&self, h: Held) -> &[u8] {
        &self.postings[h.start as usize..][..h.len as usize]
    }

    /// Writes a list of postings with its length before it, and answers its place.
    fn write_list(&self, list: &[Held], block: &mut Vec<u8>) -> u32 {
        let place = block.len();
        block.extend_from_slice(&[0; 4]);
        list.iter().for_each(|h| block.extend_from_slice(self.held(*h)));
        let len = block.len() - place - 4;
        set_u32(block, place, len);
        place as u32
    }

    /// Writes a trie, parents before children and each subtree in one piece, and answers the place of its root.
    fn write_trie(&self, entries: &mut [Entry<'_>], from_end: bool, block: &mut Vec<u8>) -> usize {
        if from_end {
            entries.sort_by(|a, b| a.0.iter().rev().cmp(b.0.iter().rev()));
        } else {
            entries.sort_by(|a, b| a.0.cmp(&b.0));
        }
        let byte = |s: &[u8], at: usize| if from_end { s[s.len() - 1 - at] } else { s[at] };
        let root = block.len();
        // Ranges of entries that share `depth` bytes, and where the place of their node is to be written. A stack rather
        // than recursion: nested prefixes may be a thousand levels deep.
        let mut open = vec![(0, entries.len(), 0, None::<usize>)];
        let mut children: Vec<(u8, usize, usize)> = Vec::new();
        while let Some((mut low, high, depth, link)) = open.pop() {
            let node = block.len();
            if let Some(link) = link {
                set_u32(block, link, node);
            }
            // Sorted, so what the first and the last share, all share.
            let (a, b) = (&*entries[low].0, &*entries[high - 1].0);
            let shortest = a.len().min(b.len());
            let end = (depth..shortest).find(|&i| byte(a, i) != byte(b, i)).unwrap_or(shortest);
            let end = end.min(depth + usize::from(u16::MAX));
            let label = if from_end { &a[a.len() - end..a.len() - depth] } else { &a[depth..end] };
            block.extend_from_slice(&(label.len() as u16).to_le_bytes());
            block.extend_from_slice(&[0; NODE_BYTES - 2]);
            block.extend_from_slice(label);
            let own = low;
            while low < high && entries[low].0.len() == end {
                low += 1;
            }
            let postings = &entries[own..low];
            children.clear();
            while low < high {
                let first = byte(&entries[low].0, end);
                let next = low + entries[low..high].partition_point(|(s, _)| byte(s, end) == first);
                children.push((first, low, next));
                low = next;
            }
            block[node + 2..node + 4].copy_from_slice(&(children.len() as u16).to_le_bytes());
            block.extend(children.iter().map(|c| c.0));
            let links = block.len();
            block.resize(links + children.len() * 4, 0);
            let start = block.len();
            postings.iter().for_each(|(_, h)| block.extend_from_slice(self.held(*h)));
            let len = block.len() - start;
            set_u32(block, node + 4, len);
            // The first child right behind its parent.
            open.extend(
                children
                    .iter()
                    .enumerate()
                    .rev()
                    .map(|(i, (_, low, high))| (*low, *high, end + 1, Some(links + i * 4))),
            );
        }
        root
    }

    fn write_values(&self, values: HashMap<ValueKey<'_>, Vec<Held>>, block: &mut Vec<u8>) -> usize {
        let mut all: Vec<_> = values.into_iter().collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        let mut fields: Vec<(Kind, Cow<'_, [u8]>)> = Vec::new();
        let mut places: Vec<(u32, u32)> = Vec::new();
        for ((kind, selector, value), list) in all {
            if fields.last().is_none_or(|(k, s)| (*k, s) != (kind, &selector)) {
                fields.push((kind, selector));
            }
            places.push((hash_value(fields.len() as u16 - 1, value), self.write_list(&list, block)));
        }
        let slots = (places.len() * 2).next_power_of_two();
        let part = block.len();
        block.extend_from_slice(&(slots as u32 - 1).to_le_bytes());
        block.extend_from_slice(&(fields.len() as u16).to_le_bytes());
        block.extend_from_slice(&[0; 4]);
        for (kind, selector) in fields {
            block.push(kind as u8);
            block.extend_from_slice(&(selector.len() as u16).to_le_bytes());
            block.extend_from_slice(&selector);
        }
        let table = block.len();
        set_u32(block, part + 6, table);
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

    fn write_infixes(&self, infixes: HashMap<Cow<'_, [u8]>, Vec<Held>>, block: &mut Vec<u8>) -> Result<Infixes> {
        let mut all: Vec<_> = infixes.into_iter().collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        let automaton = NFA::builder().match_kind(aho_corasick::MatchKind::Standard).build(all.iter().map(|(x, _)| x));
        let automaton = automaton.map_err(|e| {
            Error::invalid_config(format!("the texts within keys take too much memory: {e}"))
                .remedy("use fewer wildcards and regular expressions without a beginning or an end")
        })?;
        let postings = all.iter().map(|(_, list)| self.write_list(list, block)).collect();
        Ok(Infixes { automaton, postings })
    }
}

impl Extra {
    fn finish(mut self) -> Option<Arc<Extra>> {
        let needed = !self.regexes.is_empty() || !self.custom.is_empty() || self.infixes.is_some() || self.repeats;
        self.bytes = std::mem::size_of::<Extra>()
            + self.custom.len() * 64
            + self.infixes.as_ref().map_or(0, |i| i.automaton.memory_usage() + i.postings.len() * 4);
        needed.then(|| Arc::new(self))
    }
}

/// Rules with the same types and filter.
struct Group<'r> {
    rule: u32,
    more: Vec<u32>,
    pattern: u16,
    filter: &'r Filter,
}

/// The parts of a filter that must all hold.
fn conjuncts<'r>(filter: &'r Filter, out: &mut Vec<&'r Filter>) {
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
        let mut numbers: HashMap<u64, Vec<u16>> = HashMap::new();
        let mut of_rules = Vec::with_capacity(rules.len());
        let mut last: Option<(&EventPattern, u16)> = None;
        for source in rules {
            if let Some((pattern, number)) = last.filter(|(pattern, _)| *pattern == source.events) {
                of_rules.push(number);
                last = Some((pattern, number));
                continue;
            }
            let same = numbers.entry(hasher.hash_one(source.events)).or_default();
            let number = match same.iter().find(|n| distinct[**n as usize] == source.events) {
                Some(n) => *n,
                None if distinct.len() == PATTERNS_MAX => {
                    return Err(Error::invalid_config("more than 65536 different sets of event types in one bucket")
                        .remedy("use the same sets in several rules"));
                }
                None => {
                    same.push(distinct.len() as u16);
                    distinct.push(source.events);
                    distinct.len() as u16 - 1
                }
            };
            of_rules.push(number);
            last = Some((source.events, number));
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
