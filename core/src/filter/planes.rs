//! The index of a scope of few rules: all are looked at at once, a bit for each.
//!
//! At some places of the key, counted from its beginning or its end, stands which byte each rule asks for. One comparison per
//! place leaves the rules that the byte there allows (bit vectors: Lakshman and Stiliadis, SIGCOMM 1998), and there is
//! nothing for the processor to guess. The places are those at which the rules differ most, so hardly any is left that does
//! not want the event; each of these is compared as a whole.
//!
//! ```text
//! part      u8 rules, u8 planes, u8 patterns, u8 lanes of a plane; u8 place for each of `PLANES_MAX`;
//!           for each pattern of types u64 the rules with it;
//!           for each plane u64 the rules that take any byte there, and the byte of each rule;
//!           u16 for each rule where its record stands, counted from behind these
//! record    u16 length of the text, with the top bit if keys end with it; a posting as of a trie, with its operand; the text
//! ```

use super::bytes::{LANES, same_lanes};
use super::scope::POSTING_BYTES;
use super::walk::{begins_at, ends_at};
use crate::le::{u16_at, u64_at};

/// So many rules have a bit each. In tests, which have few rules, so few that some scopes have more.
pub(super) const RULES_MAX: usize = if cfg!(test) { 8 } else { u64::BITS as usize };
/// More would cost more than they leave out.
const PLANES_MAX: usize = 8;
/// Each is looked at for every event.
const PATTERNS_MAX: usize = 16;
/// Places from the beginning and from the end of the key that are considered.
const FROM_START: u8 = 32;
const FROM_END: u8 = 12;
/// Of a place: it is counted from the end, 0 being the last byte.
const END: u8 = 1 << 7;
/// Of the length of a text: keys end with it.
const TEXT_END: u16 = 1 << 15;
/// A plane has to leave out so many rules of an event, in quarters, to be worth its comparison.
const WORTH: u32 = 1;
/// So many of the rules are asked what a plane would leave out for them.
const SAMPLES: usize = 8;
const HEAD: usize = 4 + PLANES_MAX;
const RECORD: usize = 2 + POSTING_BYTES;

/// A rule that is to be written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry<'a> {
    /// What it is filed under: keys begin with it, or end with it.
    pub(super) text: &'a [u8],
    pub(super) from_end: bool,
    /// What is known of the beginning and the end of the keys that it wants.
    pub(super) begins: &'a [u8],
    pub(super) ends: &'a [u8],
    pub(super) posting: &'a [u8],
}

/// One place, with what each rule asks for there.
#[derive(Clone, Debug)]
struct Plane {
    place: u8,
    /// The rules that take any byte.
    open: u64,
    /// Only the lanes of the rules that there are say anything.
    bytes: [u8; u64::BITS as usize],
    /// Of each sample, the rules that its byte allows. It says nothing of a place that is of no use.
    allowed: [u64; SAMPLES],
}

/// A place that tells some rules from others.
#[derive(Clone, Copy, Debug)]
struct Useful {
    /// Its number among the planes.
    plane: usize,
    /// It leaves out no more than so many rules of the samples.
    out_max: u32,
}

/// Finds the places, with the same memory each time.
#[derive(Debug)]
pub(super) struct Planner {
    /// One for each place, from the beginning and then from the end.
    planes: Vec<Plane>,
    /// Those that were chosen come first.
    useful: Vec<Useful>,
}

impl Default for Planner {
    fn default() -> Planner {
        let empty = |place| Plane { place, open: 0, bytes: [0; _], allowed: [0; _] };
        let places = (0..FROM_START).chain((0..FROM_END).map(|n| n | END));
        Planner { planes: places.map(empty).collect(), useful: Vec::new() }
    }
}

fn all_of(rules: usize) -> u64 {
    u64::MAX.checked_shr(u64::BITS - rules as u32).unwrap_or(0)
}

impl Plane {
    /// Whether it tells some of the rules from others; notes then what it allows of every so manieth one.
    fn tells(&mut self, rules: usize, step: usize) -> bool {
        let (all, bytes) = (all_of(rules), &self.bytes[..rules.div_ceil(LANES) * LANES]);
        if self.open == all {
            return false;
        }
        let first = bytes[(!self.open).trailing_zeros() as usize];
        // Where all ask for the same, none is told from another.
        if (same(bytes, first) | self.open) & all == all {
            return false;
        }
        for (allowed, rule) in self.allowed.iter_mut().zip((0..rules).step_by(step)) {
            *allowed = if self.open & 1 << rule == 0 { same(bytes, bytes[rule]) | self.open } else { all };
        }
        true
    }
}

impl Planner {
    /// Notes which byte each rule asks for at each place, and which places have any.
    fn fill(&mut self, entries: &[Entry<'_>]) -> [std::ops::Range<usize>; 2] {
        let longest = |len: fn(&Entry<'_>) -> usize| entries.iter().map(len).max().unwrap_or(0);
        let from_start = usize::from(FROM_START);
        let begins = 0..longest(|entry| entry.begins.len()).min(from_start);
        let ends = from_start..from_start + longest(|entry| entry.ends.len()).min(usize::from(FROM_END));
        let (open, lanes) = (all_of(entries.len()), entries.len().div_ceil(LANES));
        for n in begins.clone().chain(ends.clone()) {
            self.planes[n].open = open;
            self.planes[n].bytes[..lanes * LANES].fill(0);
        }
        let (starts, tails) = self.planes.split_at_mut(from_start);
        for (i, entry) in entries.iter().enumerate() {
            let of_start = starts.iter_mut().zip(entry.begins);
            for (plane, b) in of_start.chain(tails.iter_mut().zip(entry.ends.iter().rev())) {
                plane.bytes[i] = *b;
                plane.open &= !(1 << i);
            }
        }
        [begins, ends]
    }

    /// The planes that leave out most, best first: so many of the useful ones.
    fn choose(&mut self, entries: &[Entry<'_>]) -> usize {
        let rules = entries.len();
        let step = rules.div_ceil(SAMPLES).max(1);
        self.useful.clear();
        for plane in self.fill(entries).into_iter().flatten() {
            if self.planes[plane].tells(rules, step) {
                self.useful.push(Useful { plane, out_max: u32::MAX });
            }
        }
        let samples = rules.div_ceil(step);
        let worth = (WORTH * samples as u32).div_ceil(4);
        let mut left = [all_of(rules); SAMPLES];
        // Each is left for its own key.
        let mut others = (samples * rules - samples) as u32;
        let mut chosen = 0;
        while chosen < PLANES_MAX.min(self.useful.len()) && others >= worth {
            let (mut best, mut out) = (None, worth - 1);
            for (at, useful) in self.useful.iter_mut().enumerate().skip(chosen) {
                // The more are left out already, the fewer it leaves out besides.
                if useful.out_max <= out {
                    continue;
                }
                let rows = left[..samples].iter().zip(&self.planes[useful.plane].allowed);
                useful.out_max = rows.map(|(left, allowed)| (left & !allowed).count_ones()).sum();
                if useful.out_max > out {
                    (best, out) = (Some(at), useful.out_max);
                }
            }
            let Some(best) = best else { break };
            self.useful.swap(chosen, best);
            let plane = &self.planes[self.useful[chosen].plane];
            left.iter_mut().zip(&plane.allowed).for_each(|(left, allowed)| *left &= allowed);
            others -= out;
            chosen += 1;
        }
        chosen
    }

    /// Writes the part but for its records; `patterns` are the rules with each. Answers where the places of these are to be
    /// written.
    pub(super) fn write(&mut self, entries: &[Entry<'_>], patterns: &[u64], block: &mut Vec<u8>) -> usize {
        let lanes = entries.len().div_ceil(LANES);
        let chosen = self.choose(entries);
        let planes = self.useful[..chosen].iter().map(|useful| &self.planes[useful.plane]);
        block.extend([entries.len() as u8, chosen as u8, patterns.len() as u8, lanes as u8]);
        let places = block.len();
        block.resize(places + PLANES_MAX, 0);
        block[places..].iter_mut().zip(planes.clone()).for_each(|(place, plane)| *place = plane.place);
        patterns.iter().for_each(|rules| block.extend(rules.to_le_bytes()));
        for plane in planes {
            block.extend(plane.open.to_le_bytes());
            block.extend(&plane.bytes[..lanes * LANES]);
        }
        let records = block.len();
        block.resize(records + entries.len() * 2, 0);
        records
    }
}

/// Whether the part has room for these: a bit for each, and a place for each record.
pub(super) fn takes(entries: &[Entry<'_>], patterns: usize) -> bool {
    let records: usize = entries.iter().map(|e| 2 + e.posting.len() + e.text.len()).sum();
    entries.len() <= RULES_MAX && patterns <= PATTERNS_MAX && records < usize::from(TEXT_END)
}

/// Writes the records, and their places at `places`. Answers where the posting of each stands.
pub(super) fn write_records(entries: &[Entry<'_>], places: usize, block: &mut Vec<u8>) -> Vec<usize> {
    let start = places + entries.len() * 2;
    let mut postings = Vec::with_capacity(entries.len());
    for (i, entry) in entries.iter().enumerate() {
        let at = (block.len() - start) as u16;
        block[places + i * 2..][..2].copy_from_slice(&at.to_le_bytes());
        let end = if entry.from_end { TEXT_END } else { 0 };
        block.extend((entry.text.len() as u16 | end).to_le_bytes());
        postings.push(block.len());
        block.extend(entry.posting);
        block.extend(entry.text);
    }
    postings
}

/// Which of these bytes are `b`, a bit each.
#[inline(always)]
fn same(bytes: &[u8], b: u8) -> u64 {
    let chunks = bytes.as_chunks::<LANES>().0.iter();
    chunks.enumerate().fold(0, |bits, (n, chunk)| bits | u64::from(same_lanes(chunk, &[b; LANES])) << (n * LANES))
}

/// A rule that the planes have left: what of it there is to check.
pub(super) struct Left<'b> {
    pub(super) posting: &'b [u8; POSTING_BYTES],
    pub(super) operand: &'b [u8],
}

/// The part of a block.
#[derive(Clone, Copy)]
pub(super) struct Part<'b> {
    block: &'b [u8],
    start: usize,
    patterns: usize,
    planes: usize,
    /// Bytes of a plane.
    stride: usize,
    rules: usize,
}

impl<'b> Part<'b> {
    #[inline(always)]
    pub(super) fn at(block: &'b [u8], start: usize) -> Part<'b> {
        let [rules, planes, patterns, lanes] =
            block[start..].first_chunk::<4>().map_or([0; 4], |head| head.map(usize::from));
        Part { block, start, patterns, planes, stride: 8 + lanes * LANES, rules }
    }

    /// All rules.
    #[inline]
    pub(super) fn all(&self) -> u64 {
        all_of(self.rules)
    }

    /// The rules whose pattern has the type: `has` says so of each pattern.
    #[inline(always)]
    pub(super) fn of_type(&self, has: impl Fn(usize) -> bool) -> u64 {
        let masks = &self.block[self.start + HEAD..][..self.patterns * 8];
        let masks = masks.as_chunks::<8>().0.iter().enumerate();
        masks.fold(0, |rules, (n, mask)| rules | u64::from_le_bytes(*mask) & 0u64.wrapping_sub(u64::from(has(n))))
    }

    /// Those of these rules that the planes leave for a key.
    #[inline(always)]
    pub(super) fn left(&self, mut rules: u64, key: &[u8]) -> u64 {
        let places = self.block[self.start + 4..].first_chunk::<PLANES_MAX>().unwrap_or(&[0; _]);
        let planes = &self.block[self.start + HEAD + self.patterns * 8..][..self.planes * self.stride];
        for (place, plane) in places.iter().zip(planes.chunks_exact(self.stride)) {
            let from_end = key.len().wrapping_sub(usize::from(place & !END) + 1);
            let at = if place & END == 0 { usize::from(*place) } else { from_end };
            let (open, bytes) = plane.split_at(8);
            let allowed = key.get(at).map_or(0, |b| same(bytes, *b));
            rules &= allowed | u64_at(open, 0);
        }
        rules
    }

    /// What is left to check of a rule; `None` if its text is not in the key.
    #[inline(always)]
    pub(super) fn get(&self, rule: usize, key: &[u8]) -> Option<Left<'b>> {
        let places = self.start + HEAD + self.patterns * 8 + self.planes * self.stride;
        let at = places + self.rules * 2 + u16_at(self.block, places + rule * 2) as usize;
        let record = self.block[at..].first_chunk::<RECORD>()?;
        let (len, posting) = record.split_first_chunk::<2>()?;
        let (len, posting) = (u16::from_le_bytes(*len), posting.first_chunk::<POSTING_BYTES>()?);
        let operand_len = (u16_at(posting, 6) & super::scope::check::LEN) as usize;
        let (operand, text) = (at + RECORD, at + RECORD + operand_len);
        let has = match len & TEXT_END {
            0 => begins_at(self.block, text, len as usize, key),
            _ => ends_at(self.block, text, (len & !TEXT_END) as usize, key),
        };
        has.then(|| Left { posting, operand: &self.block[operand..text] })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::filter::scope::PADDING;

    /// A block with these entries, of which every other one has the pattern 1 and the rest 0.
    fn block(entries: &[Entry<'_>]) -> Vec<u8> {
        let mut block = vec![0xAA; 48];
        let (even, odd) =
            (0x5555_5555_5555_5555 & all_of(entries.len()), 0xAAAA_AAAA_AAAA_AAAA & all_of(entries.len()));
        let places = Planner::default().write(entries, &[even, odd], &mut block);
        // Something of the scope stands between.
        block.extend([0xBB; 5]);
        let postings = write_records(entries, places, &mut block);
        for (entry, at) in entries.iter().zip(postings) {
            assert_eq!(&block[at..][..entry.posting.len()], entry.posting);
        }
        block.resize(block.len() + PADDING, 0);
        block
    }

    fn text() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(prop::sample::select(&b"ab/\0"[..]), 0..40)
    }

    proptest! {
        #[test]
        fn no_rule_is_left_out_that_wants_the_key(
            rules in prop::collection::vec((text(), text(), any::<bool>(), 0usize..20), 1..64),
            keys in prop::collection::vec((text(), 0usize..64, 0usize..64), 1..20),
        ) {
            let postings: Vec<Vec<u8>> = rules.iter().enumerate().map(|(i, (_, _, _, operand))| {
                let head = [(i as u32).to_le_bytes(), (*operand as u32 * 0x1_0000).to_le_bytes()];
                head.concat().into_iter().chain(vec![7; *operand]).collect()
            }).collect();
            let entries: Vec<Entry<'_>> = rules.iter().zip(&postings).map(|((begins, ends, from_end, _), posting)| {
                Entry { text: if *from_end { ends } else { begins }, from_end: *from_end, begins, ends, posting }
            }).collect();
            let block = block(&entries);
            let part = Part::at(&block, 48);
            for (text, a, b) in keys {
                let (a, b) = (&rules[a % rules.len()].0, &rules[b % rules.len()].1);
                for key in [text.clone(), [&a[..], &text, b].concat(), [&a[..], b].concat()] {
                    for (pattern, rules) in [part.of_type(|n| n == 0), part.of_type(|n| n == 1)].into_iter().enumerate() {
                        let left = part.left(rules, &key);
                        prop_assert_eq!(left & !rules, 0);
                        for (i, e) in entries.iter().enumerate() {
                            let wants = key.starts_with(e.begins) && key.ends_with(e.ends) && i % 2 == pattern;
                            prop_assert!(!wants || left & 1 << i != 0, "{i} {key:?}");
                            let has = if e.from_end { key.ends_with(e.text) } else { key.starts_with(e.text) };
                            let found = part.get(i, &key);
                            prop_assert_eq!(found.is_some(), has);
                            if let Some(found) = found {
                                prop_assert_eq!((&found.posting[..], found.operand), e.posting.split_at(POSTING_BYTES));
                            }
                        }
                    }
                }
            }
        }
    }

    /// Of rules that differ somewhere hardly any but the right one is left.
    #[test]
    fn the_planes_are_where_rules_differ() {
        let names: Vec<String> = (0..60).map(|n| format!("tenants/one/{:02}/{}/", n % 20, n / 20)).collect();
        let entry =
            |name: &'static [u8]| Entry { text: name, from_end: false, begins: name, ends: b".log", posting: &[0; 8] };
        let names: Vec<&'static [u8]> = names.into_iter().map(|n| n.leak().as_bytes()).collect();
        let entries: Vec<Entry<'_>> = names.iter().map(|name| entry(name)).collect();
        let block = block(&entries);
        let part = Part::at(&block, 48);
        assert_eq!(part.planes, 3, "two digits, and one");
        for (i, name) in names.iter().enumerate() {
            assert_eq!(part.left(part.all(), &[name, &b"x.log"[..]].concat()), 1 << i);
        }
        assert_eq!(part.left(part.all(), b"tenants/"), 0, "too short for every one");
        // One rule needs none, and neither do any number that are alike.
        for alike in [&entries[..1], &[entries[0]; 9]] {
            assert_eq!(Planner::default().choose(alike), 0);
        }
    }

    #[test]
    fn what_there_is_no_room_for_is_refused() {
        let long = vec![b'x'; usize::from(TEXT_END)];
        let entry = |text| Entry { text, from_end: true, begins: b"", ends: text, posting: &[0; 8] };
        assert!(takes(&[entry(&long[11..])], PATTERNS_MAX) && !takes(&[entry(&long[10..])], 1));
        assert!(!takes(&[entry(b"x")], PATTERNS_MAX + 1));
        assert!(takes(&[entry(b"x"); RULES_MAX], 1) && !takes(&[entry(b"x"); RULES_MAX + 1], 1));
    }
}
