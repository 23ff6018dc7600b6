//! Finds which of many texts are in a key, in one pass.
//!
//! Of each text, a few bytes in a row (a gram) that few others have stand for it. At each place of the key the bytes there
//! are looked up in a set of bits, which is small enough to stay close to the processor; what passes is looked up in a table
//! of grams, and the texts of a gram are compared. So the pass does the same few independent steps at each place, however many
//! texts there are: unlike the states of an automaton, none has to wait for the one before. Texts without a gram that few
//! others have would be compared again and again, so they are left to an automaton.
//!
//! ```text
//! u8 bits of the index of the set (log2), u8 of the table, u8 length of a gram, u8 unused; the set;
//! the table, of each slot: u32 gram, u32 place of its texts (0: free)
//! texts of a gram, of each: u32 place of postings, u16 length (the top bit is set for the last), u16 offset of the gram, the bytes
//! ```

use std::collections::HashMap;

use foldhash::fast::FixedState;

use super::bytes;

use crate::le::{u16_at, u32_at};

/// The shortest text that is found so.
pub(super) const TEXT_BYTES_MIN: usize = 3;
/// The length of a gram, if some text is no longer; else it is one more.
const SHORT_GRAM_BYTES: usize = TEXT_BYTES_MIN;
const GRAM_BYTES: usize = SHORT_GRAM_BYTES + 1;
/// With more texts, all must have [`GRAM_BYTES`]: too many would share one that is shorter.
const SHORT_TEXTS_MAX: usize = 4096;
const HEAD_BYTES: usize = 4;
/// At least one line of the cache.
const SET_BITS_MIN: u32 = 9;
/// Bits of the set per gram: of 32 places that have none of the grams, at most one passes.
const SET_BITS_PER_GRAM: usize = 32;
/// The most texts of a gram.
const TEXTS_MAX: usize = 16;
const LAST: u16 = 1 << 15;
/// What of a part is looked at for most keys, as far as it is not longer.
const EXPECTED_LINES: usize = 4;

#[inline(always)]
fn gram(bytes: &[u8]) -> u32 {
    match *bytes {
        [a, b, c, d] => u32::from_le_bytes([a, b, c, d]),
        [a, b, c] => u32::from_le_bytes([a, b, c, 0]),
        _ => 0,
    }
}

/// Spread over the upper bits.
#[inline(always)]
fn spread(gram: u32) -> u32 {
    (gram ^ gram >> 15).wrapping_mul(0x9e37_79b1)
}

/// Whether a text can be among so many others.
pub(super) fn takes(text: &[u8], others: usize) -> bool {
    text.len() >= if others > SHORT_TEXTS_MAX { GRAM_BYTES } else { TEXT_BYTES_MIN }
}

/// Appends the index of these texts, each with the place of its postings. Answers its place, and which of the texts are not
/// in it because they have no gram that few others have.
pub(super) fn write(texts: &[(&[u8], u32)], block: &mut Vec<u8>) -> (usize, Vec<usize>) {
    let shortest = texts.iter().map(|(text, _)| text.len()).min().unwrap_or(GRAM_BYTES);
    let gram_bytes = shortest.clamp(SHORT_GRAM_BYTES, GRAM_BYTES);
    let grams_of = |text: &[u8]| 0..=text.len() - gram_bytes;
    let gram_at = |text: &[u8], at: usize| gram(&text[at..at + gram_bytes]);
    let mut uses: HashMap<u32, u32, FixedState> = HashMap::default();
    for (text, _) in texts {
        for at in grams_of(text) {
            *uses.entry(gram_at(text, at)).or_default() += 1;
        }
    }
    let mut by_gram: HashMap<u32, Vec<(usize, usize)>, FixedState> = HashMap::default();
    for (number, (text, _)) in texts.iter().enumerate() {
        // The last of the rarest: what texts begin with is shared more often.
        let rarest = grams_of(text).rev().min_by_key(|at| uses.get(&gram_at(text, *at)));
        let at = rarest.unwrap_or(0);
        by_gram.entry(gram_at(text, at)).or_default().push((number, at));
    }
    let mut left: Vec<usize> = Vec::new();
    by_gram.retain(|_, list| {
        let are_few = list.len() <= TEXTS_MAX;
        if !are_few {
            left.extend(list.iter().map(|(number, _)| number));
        }
        are_few
    });
    left.sort_unstable();
    let set_bits = (by_gram.len() * SET_BITS_PER_GRAM).next_power_of_two().ilog2().max(SET_BITS_MIN);
    let table_bits = (by_gram.len() * 3 / 2 + 1).next_power_of_two().ilog2();
    let part = block.len();
    block.extend_from_slice(&[set_bits as u8, table_bits as u8, gram_bytes as u8, 0]);
    let set = block.len();
    let table = set + (1 << set_bits) / 8;
    block.resize(table + (8 << table_bits), 0);
    let mut all: Vec<_> = by_gram.into_iter().collect();
    all.sort_unstable();
    for (gram, list) in all {
        let hash = spread(gram);
        let bit = (hash >> (32 - set_bits)) as usize;
        block[set + bit / 8] |= 1 << (bit % 8);
        let place = block.len() as u32;
        for (i, (number, at)) in list.iter().enumerate() {
            let (text, postings) = texts[*number];
            let last = if i + 1 == list.len() { LAST } else { 0 };
            block.extend_from_slice(&postings.to_le_bytes());
            block.extend_from_slice(&(text.len() as u16 | last).to_le_bytes());
            block.extend_from_slice(&(*at as u16).to_le_bytes());
            block.extend_from_slice(text);
        }
        let mask = (1 << table_bits) - 1;
        let mut slot = (hash >> (32 - table_bits)) as usize;
        while u32_at(block, table + slot * 8 + 4) != 0 {
            slot = (slot + 1) & mask;
        }
        block[table + slot * 8..][..4].copy_from_slice(&gram.to_le_bytes());
        block[table + slot * 8 + 4..][..4].copy_from_slice(&place.to_le_bytes());
    }
    (part, left)
}

/// Says that keys will be searched.
#[inline]
pub(super) fn expect(block: &[u8], part: usize) {
    for line in 0..EXPECTED_LINES {
        bytes::prefetch(block, part + line * 64);
    }
}

/// Calls `found` with the postings of each text that is in the key, as often as its gram is there with it around.
#[inline]
pub(super) fn search(block: &[u8], part: usize, key: &[u8], found: impl FnMut(u32)) {
    if block[part + 2] as usize == GRAM_BYTES {
        search_grams::<GRAM_BYTES>(block, part, key, found);
    } else {
        search_grams::<SHORT_GRAM_BYTES>(block, part, key, found);
    }
}

#[inline]
fn search_grams<const BYTES: usize>(block: &[u8], part: usize, key: &[u8], mut found: impl FnMut(u32)) {
    let (set_bits, table_bits) = (u32::from(block[part]), u32::from(block[part + 1]));
    let rest = &block[part + HEAD_BYTES..];
    let (set, table) = rest.split_at((1 << set_bits) / 8);
    for (at, window) in key.windows(BYTES).enumerate() {
        let gram = gram(window);
        let hash = spread(gram);
        let bit = (hash >> (32 - set_bits)) as usize;
        if set[bit / 8] & (1 << (bit % 8)) != 0 {
            look(block, table, table_bits, key, (at, gram, hash), &mut found);
        }
    }
}

/// Compares the texts of a gram that is at a place of the key.
fn look(
    block: &[u8],
    table: &[u8],
    table_bits: u32,
    key: &[u8],
    (at, gram, hash): (usize, u32, u32),
    found: &mut impl FnMut(u32),
) {
    let mut slot = (hash >> (32 - table_bits)) as usize;
    let mut next = loop {
        let (held, place) = (u32_at(table, slot * 8), u32_at(table, slot * 8 + 4));
        if place == 0 {
            return;
        }
        if held == gram {
            break place as usize;
        }
        slot = (slot + 1) & ((1 << table_bits) - 1);
    };
    loop {
        let (len, offset) = (u16_at(block, next + 4), u16_at(block, next + 6) as usize);
        let text = &block[next + 8..next + 8 + (len & !LAST) as usize];
        let here = at.checked_sub(offset).and_then(|start| key.get(start..start + text.len()));
        if here.is_some_and(|here| bytes::equals(here, text)) {
            found(u32_at(block, next));
        }
        if len & LAST != 0 {
            return;
        }
        next += 8 + text.len();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_finds_what_is_there(
            (texts, key) in (3..6usize).prop_flat_map(|shortest| (
                prop::collection::btree_set(prop::collection::vec(0u8..3, shortest..9), 1..60),
                prop::collection::vec(0u8..3, 0..60),
            )),
        ) {
            let texts: Vec<Vec<u8>> = texts.into_iter().collect();
            let list: Vec<(&[u8], u32)> = texts.iter().enumerate().map(|(i, x)| (&x[..], 1000 + i as u32)).collect();
            let mut block = vec![7; 13];
            let (part, left) = write(&list, &mut block);
            let mut found = std::collections::BTreeSet::new();
            search(&block, part, &key, |meaning| found.extend([meaning as usize - 1000]));
            let there = |x: &Vec<u8>| key.windows(x.len()).any(|w| w == x);
            let expected: std::collections::BTreeSet<usize> =
                (0..texts.len()).filter(|i| !left.contains(i) && there(&texts[*i])).collect();
            prop_assert_eq!(found, expected);
        }
    }

    #[test]
    fn texts_that_are_too_much_alike_are_left() {
        let texts: Vec<Vec<u8>> =
            (0u32..5000).map(|n| (0..13).map(|bit| if n >> bit & 1 == 0 { b'a' } else { b'b' }).collect()).collect();
        let mut list: Vec<(&[u8], u32)> = texts.iter().map(|x| (&x[..], 7)).collect();
        list.push((b"something else", 8));
        let mut block = Vec::new();
        let (part, left) = write(&list, &mut block);
        // There are 16 grams of two letters.
        assert!(list.len() - left.len() <= 16 * TEXTS_MAX + 1, "{} left", left.len());
        let mut found = Vec::new();
        search(&block, part, b"...something else...", |meaning| found.push(meaning));
        assert_eq!(found, [8]);
    }
}
