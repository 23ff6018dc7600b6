//! The compiled rules of one scope (a bucket, or every bucket): an index in one block of memory.
//!
//! Each rule is filed under the one condition that is expected to be met least often (an access predicate in the sense of
//! Fabret et al., SIGMOD 2001): a beginning or an end of the key, found by one walk through a trie each; a text within the
//! key, found by one pass over the key (see [`super::grams`]; an Aho-Corasick automaton for texts that are too short or too
//! much alike for that); or the value of another field, found by one probe for each value that the event has. Where a rule is met, the
//! rest of its filter is checked. So the cost of an event is that of the walk plus the rules met, whatever the number of
//! rules, and no automaton is ever built over several patterns with wildcards.
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
use std::hash::{BuildHasher, BuildHasherDefault, Hasher};
use std::sync::Arc;

use aho_corasick::automaton::{Automaton, OverlappingState};
use aho_corasick::nfa::contiguous::NFA;
use aho_corasick::{Anchored, Input};
use foldhash::fast::FixedState;

use super::access::{self, Access, Ways};
use super::bytes::{prefetch, strip_prefix, strip_suffix};
use super::expression::{Field, Filter, Test};
use super::grams;
use super::pattern::{self, Regex};
use super::program::{self, Regexes};
use super::subject::{Kind, Subject};
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
    pub(super) const GRAMS: usize = 20;
    /// What the types of all rules are.
    pub(super) const TYPES: usize = 24;
    pub(super) const BYTES: usize = 40;
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
/// So many sets of types are compared without hashing.
const NEAR_PATTERNS: usize = 8;

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

/// Texts within keys that are too short for [`grams`], or too much alike.
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
    /// The rules that want the present event of a batch.
    pub(super) matched: Vec<u32>,
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

    /// Says that it will be matched.
    #[inline]
    pub(super) fn expect(&self) {
        // The head and what most walks begin with; the rest is found from there.
        for line in self.block.chunks(64).take(4) {
            prefetch(&line[0]);
        }
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
        let grams = u32_at(block, head::GRAMS);
        let short = self.extra.as_ref().and_then(|e| e.infixes.as_ref());
        if grams != NONE || short.is_some() {
            self.search(grams as usize, short, m, out);
        }
    }

    /// Walks along the key from its beginning, or with `FROM_END` from its end.
    #[inline]
    fn walk<const FROM_END: bool>(&self, root: usize, m: &mut Met<'_, '_, '_>, out: &mut Vec<u32>) {
        let block = &*self.block;
        let mut rest = m.key;
        let mut node = root;
        loop {
            let Some((head, body)) = block[node..].split_first_chunk::<NODE_BYTES>() else { return };
            let head = u64::from_le_bytes(*head);
            let (label, children, postings) =
                (head as u16 as usize, (head >> 16) as u16 as usize, (head >> 32) as usize);
            let (label, body) = body.split_at(label);
            let beyond = if FROM_END { strip_suffix(rest, label) } else { strip_prefix(rest, label) };
            let Some(beyond) = beyond else { return };
            rest = beyond;
            let (first_bytes, body) = body.split_at(children);
            let (links, body) = body.split_at(children * 4);
            if postings > 0 {
                self.post(&body[..postings], m, out);
            }
            let next = if FROM_END { rest.split_last() } else { rest.split_first() };
            let Some((&next, behind)) = next else { return };
            let Some(i) = find_byte(first_bytes, next) else { return };
            rest = behind;
            node = u32_at(links, i * 4) as usize;
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
            check::SUFFIX => strip_suffix(m.key, operand).is_some(),
            check::PREFIX => strip_prefix(m.key, operand).is_some(),
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
    /// The part: u32 mask of the table, u32 kinds of the fields as bits; the table, u32 hash and u32 place of postings
    /// (0: free).
    fn probe(&self, part: usize, m: &mut Met<'_, '_, '_>, out: &mut Vec<u32>) {
        let block = &*self.block;
        let (mask, kinds) = (u32_at(block, part), u32_at(block, part + 4));
        let slot = |i: u32| {
            let at = part + 8 + (i & mask) as usize * 8;
            (u32_at(block, at), u32_at(block, at + 4))
        };
        let mut met = std::mem::take(m.places);
        if m.before {
            met.extend((0..=mask).map(|i| slot(i).1).filter(|place| *place != NONE));
        } else {
            m.subject.each_text(kinds, |kind, name, value| {
                let hash = hash_value(kind, name, value);
                let mut i = hash;
                loop {
                    let (held, place) = slot(i);
                    if place == NONE {
                        break;
                    }
                    if held == hash {
                        met.push(place);
                    }
                    i = i.wrapping_add(1);
                }
            });
        }
        // An event may have a value twice.
        met.sort_unstable();
        met.dedup();
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
    fn search(&self, grams: usize, short: Option<&Infixes>, m: &mut Met<'_, '_, '_>, out: &mut Vec<u32>) {
        let mut places = std::mem::take(m.places);
        let found = &mut *m.found;
        let touched = &mut *m.touched;
        // Each text once, however often it is there.
        let mut find = |number: u32, place: u32| {
            let (word, bit) = (number as usize / 64, 1 << (number % 64));
            if word >= found.len() {
                found.resize(word + 1, 0);
            }
            if found[word] & bit == 0 {
                found[word] |= bit;
                touched.push(number);
                places.push(place);
            }
        };
        let mut long = 0;
        if grams != NONE as usize {
            long = grams::count(&self.block, grams);
            grams::search(&self.block, grams, m.key, &mut find);
        }
        if let Some(short) = short {
            let input = Input::new(m.key).anchored(Anchored::No);
            let mut state = OverlappingState::start();
            // It fails only for kinds of search that the automaton was not built for.
            while short.automaton.try_find_overlapping(&input, &mut state).is_ok()
                && let Some(text) = state.get_match().map(|f| f.pattern())
            {
                find(long + text.as_u32(), short.postings[text.as_usize()]);
            }
        }
        m.touched.drain(..).for_each(|number| m.found[number as usize / 64] = 0);
        for place in &places {
            self.post_at(*place as usize, m, out);
        }
        places.clear();
        *m.places = places;
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

/// Of a value and the field that has it. The case of a name does not count: that of metadata has none.
#[inline]
fn hash_value(kind: Kind, name: &[u8], value: &[u8]) -> u32 {
    let fold = |hash: u64, b: &u8| (hash ^ u64::from(b.to_ascii_lowercase())).wrapping_mul(0x100_0000_01b3);
    let field = name.iter().fold(0xcbf2_9ce4_8422_2325 ^ kind as u64, fold);
    xxhash_rust::xxh3::xxh3_64_with_seed(value, field) as u32
}

// ------------------------------------------------------------------------------------------------ building

/// Builds scopes, one after the other, with the same memory.
#[derive(Debug, Default)]
pub(super) struct Builder {
    /// Postings, before they have their places.
    postings: Vec<u8>,
    hasher: FixedState,
    /// How many rules have a condition, by its hash: a mistake would cost time, no more.
    uses: HashMap<u64, u32, BuildHasherDefault<Hashed>>,
    hashes: Vec<u64>,
    regexes: Regexes,
    /// Rules with the same posting, and where the place of their list is to be written.
    lists: Vec<(usize, Vec<u32>)>,
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
        self.uses.clear();
        self.hashes.clear();
        self.regexes = Regexes::default();
        let mut extra = Extra::default();
        let mut block = Vec::with_capacity(head::BYTES + name.len() + rules.len() * 64);
        block.resize(head::BYTES, 0);
        block[..2].copy_from_slice(&(name.len() as u16).to_le_bytes());
        block.extend_from_slice(name.as_bytes());
        let patterns = Patterns::of(rules, &self.hasher)?;
        patterns.write(&mut block, &mut extra);

        // How often each condition is there decides which one a rule is filed under.
        let mut ways = Ways::default();
        let mut ends: Vec<u32> = Vec::with_capacity(rules.len());
        for source in rules {
            access::ways(source.filter, &mut ways);
            ends.push(ways.len() as u32);
        }
        for access in ways.accesses() {
            let hash = self.hasher.hash_one(access);
            *self.uses.entry(hash).or_default() += 1;
            self.hashes.push(hash);
        }

        let (mut prefixes, mut suffixes): (Vec<Entry<'_>>, Vec<Entry<'_>>) = (Vec::new(), Vec::new());
        let mut infixes: HashMap<Cow<'_, [u8]>, Vec<Held>> = HashMap::new();
        let mut values: HashMap<ValueKey<'_>, Vec<Held>> = HashMap::new();
        let anything = [Access::Prefix(Cow::Borrowed(&[]))];
        let mut start = 0;
        for (i, source) in rules.iter().enumerate() {
            let own = start..ends[i] as usize;
            start = own.end;
            let best = match own.len() {
                0 => None,
                1 => Some(own.start),
                _ => own.min_by(|a, b| self.cost(&ways, *a).total_cmp(&self.cost(&ways, *b))),
            };
            let way = best.map_or(&anything[..], |n| ways.way(n));
            extra.repeats |= way.len() > 1;
            for access in way {
                let held = self.posting(source, patterns.of_rules[i], access, &mut block);
                match access {
                    Access::Exact(x) | Access::Prefix(x) => prefixes.push((x.clone(), held)),
                    Access::Suffix(x) => suffixes.push((x.clone(), held)),
                    Access::Infix(x) => infixes.entry(x.clone()).or_default().push(held),
                    Access::Value(kind, selector, value) => {
                        values.entry((*kind, selector.clone(), *value)).or_default().push(held);
                    }
                }
            }
        }
        extra.regexes = std::mem::take(&mut self.regexes).into_list();
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
            self.write_infixes(infixes, &mut block, &mut extra)?;
        }
        if block.len() >= LIST as usize {
            return Err(Error::invalid_config(format!("the rules take {} bytes compiled", block.len()))
                .remedy("use fewer rules without a bucket, or shorter texts"));
        }
        Ok(Scope { block: block.into(), extra: extra.finish() })
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
                program::encode(&left, &mut self.regexes, out);
                check::PROGRAM
            }
            (Some(_), _) => {
                left.clear();
                conjuncts(filter, &mut left);
                program::encode(&left, &mut self.regexes, out);
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

    /// Writes a trie, parents before children and each subtree in one piece, and answers the place of its root.
    fn write_trie(&mut self, entries: &mut [Entry<'_>], from_end: bool, block: &mut Vec<u8>) -> usize {
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
        let mut own_postings: Vec<Held> = Vec::new();
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
            own_postings.clear();
            own_postings.extend(postings.iter().map(|(_, h)| *h));
            self.write_postings(&mut own_postings, block);
            let len = block.len() - start;
            set_u32(block, node + 4, len);
            self.write_lists(block);
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
        for (text, list) in &mut all {
            let place = self.write_list(list, block);
            if text.len() >= grams::GRAM_BYTES { long.push((text, place)) } else { short.push((text, place)) }
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

impl Extra {
    fn finish(mut self) -> Option<Arc<Extra>> {
        let needed = !self.regexes.is_empty() || !self.custom.is_empty() || self.infixes.is_some() || self.repeats;
        self.bytes = std::mem::size_of::<Extra>()
            + self.custom.len() * 64
            + self.infixes.as_ref().map_or(0, |i| i.automaton.memory_usage() + i.postings.len() * 4);
        needed.then(|| Arc::new(self))
    }
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
