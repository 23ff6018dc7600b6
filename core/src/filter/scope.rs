//! The compiled rules of one scope (a bucket, or every bucket): an index in one block of memory.
//!
//! Each rule is filed under the one condition that is expected to be met least often (an access predicate in the sense of
//! Fabret et al., SIGMOD 2001): a beginning or an end of the key, found by one walk through a trie each; a text within the
//! key, found by one pass over the key (see [`super::grams`]; an Aho-Corasick automaton for texts that are too short or too
//! much alike for that); or the value of another field, found by one probe for each value that the event has. Where a rule is met, the
//! rest of its filter is checked. So the cost of an event is that of the walk plus the rules met, whatever the number of
//! rules, and no automaton is ever built over several patterns with wildcards.
//!
//! Where there are only few rules, their beginnings and ends are compared all at once instead (see [`super::planes`]).
//!
//! What most walks begin with stands at the beginning of the block: the roots of both tries, and the patterns. So it is
//! fetched at once, and only what is further down in a trie is found step by step.
//!
//! ```text
//! block     head, name, root of the prefixes, root of the suffixes (or the planes), patterns, then the rest of the parts;
//!           `PADDING`
//! node      u16 length of the label, u16 children, u32 bytes of postings; label; first byte of each child;
//!           u32 place of each child; postings
//! posting   u32 rule (or, with the top bit, the place of a list of rules), u16 pattern of types,
//!           u16 check (3 bits) and length of its operand; operand
//! ```

use std::collections::HashMap;
use std::sync::Arc;

use aho_corasick::automaton::{Automaton, OverlappingState};
use aho_corasick::nfa::contiguous::NFA;
use aho_corasick::{Anchored, Input};
use bytes::Bytes;

use super::bytes::{prefetch, strip_prefix, strip_suffix};
use super::grams;
use super::pattern;
use super::planes::{Left, Part};
use super::program::{self, Tables};
use super::subject::{Kind, Subject};
use super::walk::{Postings, Step, Walks, visit};
use crate::event::{EventPattern, EventType, KnownType};
use crate::le::{u16_at, u32_at};

/// Known types have numbers below this.
const TYPE_BITS: usize = 128;
pub(super) const TYPE_BYTES: usize = TYPE_BITS / 8;
const _: () = {
    let mut i = 0;
    while i < KnownType::ALL.len() {
        assert!((KnownType::ALL[i] as usize) < TYPE_BITS);
        i += 1;
    }
};

/// What the block begins with: the length of the name (u16), then the places (u32) of the parts.
pub(super) mod head {
    pub(in super::super) const PATTERNS: usize = 4;
    pub(in super::super) const PREFIXES: usize = 8;
    pub(in super::super) const SUFFIXES: usize = 12;
    pub(in super::super) const VALUES: usize = 16;
    pub(in super::super) const GRAMS: usize = 20;
    pub(in super::super) const PLANES: usize = 24;
    /// What the types of all rules are.
    pub(in super::super) const TYPES: usize = 28;
    pub(in super::super) const BYTES: usize = 44;
}
/// In the place of a part that is not there.
pub(super) const NONE: u32 = 0;

/// The last bytes of a block, so that as many can be read at once from any place before.
pub(super) const PADDING: usize = 104;
/// As much as is asked for at once when a scope is about to be matched: what most walks need. The processor has not many
/// more on their way at a time.
const EXPECTED_LINES: usize = 12;
/// A longer block is expected to have been displaced from the processor's own memory since it was matched last.
/// In tests, which have few rules, it is so small that some scopes are large and some are not.
pub(super) const LARGE_BYTES: usize = if cfg!(test) { 512 } else { 256 * 1024 };

pub(super) const NODE_BYTES: usize = 8;
pub(super) const POSTING_BYTES: usize = 8;
pub(super) const LIST: u32 = 1 << 31;

/// What is left to check of a rule that was met.
pub(super) mod check {
    /// Nothing.
    pub(in super::super) const NOTHING: u16 = 0;
    pub(in super::super) const SUFFIX: u16 = 1;
    pub(in super::super) const PREFIX: u16 = 2;
    /// The key ends here: its length.
    pub(in super::super) const LENGTH: u16 = 3;
    pub(in super::super) const WILDCARD: u16 = 4;
    pub(in super::super) const PROGRAM: u16 = 5;
    /// A program that is too long to stand here: its place.
    pub(in super::super) const PROGRAM_AT: u16 = 6;
    pub(in super::super) const SHIFT: u16 = 13;
    pub(in super::super) const LEN: u16 = (1 << SHIFT) - 1;
}

/// The compiled rules of a scope. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Scope {
    pub(super) block: Bytes,
    pub(super) extra: Option<Arc<Extra>>,
}

/// What does not fit into a block of bytes.
#[derive(Debug, Default)]
pub(super) struct Extra {
    pub(super) tables: Tables,
    /// By pattern number, those that have types of the host's own.
    pub(super) custom: HashMap<u16, EventPattern>,
    pub(super) infixes: Option<Infixes>,
    /// A rule may be met more than once.
    pub(super) repeats: bool,
    pub(super) bytes: usize,
}

/// Texts within keys that are too short for [`grams`], or too much alike.
#[derive(Debug)]
pub(super) struct Infixes {
    pub(super) automaton: NFA,
    /// The place of the postings of each text.
    pub(super) postings: Vec<u32>,
}

/// Working memory of matching; used again and again, it allocates no more.
#[derive(Debug, Default)]
pub struct MatchMemory {
    pub(super) data: super::subject::DataMemory,
    /// Lists of postings found by values or texts of the present event.
    pub(super) places: Vec<u32>,
    /// The rules that want the present event of a batch.
    pub(super) matched: Vec<u32>,
    pub(super) walks: Walks,
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
        self.block.len() + self.extra.as_ref().map_or(0, |e| e.bytes)
    }

    /// Whether its tries do not stay close to the processor: then a walk waits at each node, and several at once wait less.
    /// Else one after the other is faster, for the processor guesses better what comes next.
    #[inline]
    pub(super) fn is_large(&self) -> bool {
        self.block.len() > LARGE_BYTES
    }

    /// The expressions of its rules, regular ones and those that are evaluated: an address that is the same for those that are
    /// the same, and bytes of memory. That is not in [`Scope::bytes`], because scopes may share them.
    pub(super) fn shared(&self) -> impl Iterator<Item = (usize, usize)> {
        self.extra.iter().flat_map(|e| e.tables.shared())
    }

    /// Says that it will be matched.
    #[inline]
    pub(super) fn expect(&self) {
        let lines = self.block.len().div_ceil(64).min(EXPECTED_LINES);
        for line in 0..lines {
            prefetch(&self.block, line * 64);
        }
    }

    /// Whether some rule wants events of this type.
    #[inline(always)]
    pub(super) fn wants(&self, t: EventType<'_>) -> bool {
        match t {
            EventType::Known(t) => has_type(&self.block[head::TYPES..][..TYPE_BYTES], t),
            EventType::Custom(_) => self.wants_custom(t),
        }
    }

    #[cold]
    #[inline(never)]
    fn wants_custom(&self, t: EventType<'_>) -> bool {
        self.extra.as_ref().is_some_and(|e| e.custom.values().any(|pattern| pattern.contains(t)))
    }

    /// Whether a rule may be met twice.
    #[inline]
    pub(super) fn repeats(&self) -> bool {
        self.extra.as_ref().is_some_and(|e| e.repeats)
    }

    /// Appends the rules that want the event to `out`.
    #[inline]
    pub(super) fn matches(&self, m: &mut Met<'_, '_, '_>, out: &mut Vec<u32>) {
        let prefixes = u32_at(&self.block, head::PREFIXES);
        if prefixes != NONE {
            self.walk::<false>(prefixes, m, out);
        }
        let suffixes = u32_at(&self.block, head::SUFFIXES);
        if suffixes != NONE {
            self.walk::<true>(suffixes, m, out);
        }
        self.matches_beside(m, out);
    }

    /// The same, where the tries have been walked through already.
    #[inline]
    pub(super) fn matches_walked(
        &self,
        walked: impl Iterator<Item = Postings>,
        m: &mut Met<'_, '_, '_>,
        out: &mut Vec<u32>,
    ) {
        for postings in walked {
            self.post(postings.of(&self.block), m, out);
        }
        self.matches_beside(m, out);
    }

    /// Appends those that want the event of the rules that no trie has.
    #[inline]
    fn matches_beside(&self, m: &mut Met<'_, '_, '_>, out: &mut Vec<u32>) {
        let planes = u32_at(&self.block, head::PLANES);
        if planes != NONE {
            self.compare(planes as usize, m, out);
        }
        let values = u32_at(&self.block, head::VALUES);
        if values != NONE {
            self.probe(values as usize, m, out);
        }
        let grams = u32_at(&self.block, head::GRAMS);
        let short = self.extra.as_ref().and_then(|e| e.infixes.as_ref());
        if grams != NONE || short.is_some() {
            self.search(grams as usize, short, m, out);
        }
    }

    /// Looks at all rules at once.
    #[inline]
    fn compare(&self, part: usize, m: &mut Met<'_, '_, '_>, out: &mut Vec<u32>) {
        let part = Part::at(&self.block, part);
        let rules = match m.event_type {
            EventType::Known(t) => {
                let patterns = &self.block[u32_at(&self.block, head::PATTERNS) as usize..];
                part.of_type(|n| has_type(&patterns[n * TYPE_BYTES..][..TYPE_BYTES], t))
            }
            EventType::Custom(_) => part.all(),
        };
        let mut left = part.left(rules, m.key);
        while left != 0 {
            let rule = left.trailing_zeros() as usize;
            left &= left - 1;
            *m.checks += 1;
            if let Some(Left { posting, operand }) = part.get(rule, m.key)
                && (matches!(m.event_type, EventType::Known(_)) || self.has_pattern(u16_at(posting, 4), m.event_type))
                && self.check(u16_at(posting, 6) >> check::SHIFT, operand, m)
            {
                self.push(u32_at(posting, 0), out);
            }
        }
    }

    pub(super) fn block(&self) -> &[u8] {
        &self.block
    }

    /// Has a list the walks through the tries.
    #[inline(always)]
    pub(super) fn begin(&self, list: usize, walks: &mut Walks) {
        let prefixes = u32_at(&self.block, head::PREFIXES);
        if prefixes != NONE {
            walks.begin(list, prefixes);
        }
        let suffixes = u32_at(&self.block, head::SUFFIXES);
        if suffixes != NONE {
            walks.begin_from_end(list, suffixes);
        }
        let grams = u32_at(&self.block, head::GRAMS);
        if grams != NONE {
            grams::expect(&self.block, grams as usize);
        }
    }

    /// Walks along the key from its beginning, or with `FROM_END` from its end.
    #[inline]
    fn walk<const FROM_END: bool>(&self, root: u32, m: &mut Met<'_, '_, '_>, out: &mut Vec<u32>) {
        let mut next = Some(Step { node: root, seen: 0 });
        while let Some(step) = next
            && let Some(visit) = visit::<FROM_END>(&self.block, step, m.key)
        {
            next = visit.next;
            if visit.postings.len > 0 {
                self.post(visit.postings.of(&self.block), m, out);
            }
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
                self.push(u32_at(head, 0), out);
            }
        }
    }

    /// Appends the rule of a posting, or its rules.
    #[inline(always)]
    fn push(&self, rule: u32, out: &mut Vec<u32>) {
        if rule & LIST == 0 {
            out.push(rule);
        } else {
            self.push_list((rule & !LIST) as usize, out);
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
        static NONE: Tables = Tables::NONE;
        let tables = self.extra.as_ref().map_or(&NONE, |e| &e.tables);
        if m.before {
            return program::run_before(program, m.subject, tables);
        }
        program::run(program, m.subject, tables)
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
        self.post_each(&mut met, m, out);
        *m.places = met;
    }

    /// Finds the texts in the key that rules are filed under.
    fn search(&self, grams: usize, short: Option<&Infixes>, m: &mut Met<'_, '_, '_>, out: &mut Vec<u32>) {
        let mut places = std::mem::take(m.places);
        if grams != NONE as usize {
            grams::search(&self.block, grams, m.key, |place| places.push(place));
        }
        if let Some(short) = short {
            let input = Input::new(m.key).anchored(Anchored::No);
            let mut state = OverlappingState::start();
            // It fails only for kinds of search that the automaton was not built for.
            while short.automaton.try_find_overlapping(&input, &mut state).is_ok()
                && let Some(text) = state.get_match().map(|f| f.pattern())
            {
                places.push(short.postings[text.as_usize()]);
            }
        }
        self.post_each(&mut places, m, out);
        *m.places = places;
    }

    /// Checks the rules of several lists, each once however often it was found, and forgets the lists.
    #[inline]
    fn post_each(&self, places: &mut Vec<u32>, m: &mut Met<'_, '_, '_>, out: &mut Vec<u32>) {
        if places.len() > 1 {
            places.sort_unstable();
            places.dedup();
        }
        for place in places.drain(..) {
            let place = place as usize;
            let len = u32_at(&self.block, place) as usize;
            self.post(&self.block[place + 4..][..len], m, out);
        }
    }
}

#[inline]
fn has_type(types: &[u8], t: KnownType) -> bool {
    types[t as usize / 8] & (1 << (t as usize % 8)) != 0
}

/// Of a value and the field that has it. The case of a name does not count: that of metadata has none.
#[inline]
pub(super) fn hash_value(kind: Kind, name: &[u8], value: &[u8]) -> u32 {
    let fold = |hash: u64, b: &u8| (hash ^ u64::from(b.to_ascii_lowercase())).wrapping_mul(0x100_0000_01b3);
    let field = name.iter().fold(0xcbf2_9ce4_8422_2325 ^ kind as u64, fold);
    xxhash_rust::xxh3::xxh3_64_with_seed(value, field) as u32
}
