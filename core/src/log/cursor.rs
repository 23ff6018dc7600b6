//! Cursors: what each lane of a shard has delivered.
//!
//! A cursor is a low-water mark (every event for the lane up to it is done) and the ranges done beyond it. The cursors of
//! a shard are saved together, in turn into one of two files, each with a generation and a checksum: a crash while one is
//! written leaves the other.

use std::collections::BTreeMap;

use super::FORMAT;
use super::segment::{checksum, fits, newer_format};
use crate::error::{Error, ErrorKind, Result};

const MAGIC: &[u8; 8] = b"TWCURSOR";

/// What one lane has done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    low: u64,
    /// Ranges beyond `low`, first to last inclusive, neither touching nor overlapping.
    beyond: BTreeMap<u64, u64>,
}

impl Cursor {
    /// A cursor with everything up to `low` done.
    pub fn at(low: u64) -> Cursor {
        Cursor { low, beyond: BTreeMap::new() }
    }

    /// Everything up to here is done.
    pub fn low(&self) -> u64 {
        self.low
    }

    /// The highest sequence that is done.
    pub fn high(&self) -> u64 {
        self.beyond.last_key_value().map_or(self.low, |(_, last)| *last)
    }

    /// Whether `sequence` is done.
    pub fn is_done(&self, sequence: u64) -> bool {
        sequence <= self.low || self.beyond.range(..=sequence).next_back().is_some_and(|(_, last)| *last >= sequence)
    }

    /// Marks one event done. The low-water mark is moved by [`Cursor::raise`] only: the cursor does not know which
    /// sequences are the lane's.
    pub fn done(&mut self, sequence: u64) {
        if self.is_done(sequence) {
            return;
        }
        let mut first = sequence;
        let mut last = sequence;
        if let Some((f, l)) = self.beyond.range(..sequence).next_back().map(|(f, l)| (*f, *l))
            && l + 1 == sequence
        {
            first = f;
        }
        if let Some(l) = self.beyond.remove(&(sequence + 1)) {
            last = l;
        }
        self.beyond.insert(first, last);
    }

    /// Declares everything up to `low` done (the lane has nothing open there).
    pub fn raise(&mut self, low: u64) {
        if low <= self.low {
            return;
        }
        self.low = low;
        while let Some((first, last)) = self.beyond.first_key_value().map(|(f, l)| (*f, *l)) {
            if first > self.low + 1 {
                break;
            }
            self.beyond.remove(&first);
            self.low = self.low.max(last);
        }
    }

    /// Appends the cursor to some bytes: u64 low, u32 ranges, per range u64 first, u64 last.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.low.to_le_bytes());
        out.extend_from_slice(&(self.beyond.len() as u32).to_le_bytes());
        for (f, l) in &self.beyond {
            out.extend_from_slice(&f.to_le_bytes());
            out.extend_from_slice(&l.to_le_bytes());
        }
    }

    /// Reads a cursor off the front of some bytes; answers it and the rest.
    pub fn decode(bytes: &[u8]) -> Option<(Cursor, &[u8])> {
        let mut r = Reader(bytes);
        let mut cursor = Cursor::at(r.u64()?);
        for _ in 0..r.u32()? {
            let (first, last) = (r.u64()?, r.u64()?);
            // In order, as `done` and `raise` leave them.
            if first <= cursor.high() || last < first {
                return None;
            }
            cursor.beyond.insert(first, last);
        }
        Some((cursor, r.0))
    }

    /// The ranges done beyond the low-water mark.
    pub fn ranges(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.beyond.iter().map(|(f, l)| (*f, *l))
    }
}

/// The cursors of a shard as saved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cursors {
    /// Grows by one with each save; the higher of the two files counts.
    pub generation: u64,
    /// The sequence that the shard's next record will have at least.
    pub next_sequence: u64,
    /// No hybrid clock reading above this was given out before the next save.
    pub clock_ceiling_ns: u64,
    /// Per destination number.
    pub lanes: BTreeMap<u32, Cursor>,
    /// What else is saved with them, by the tags in [`section`]. Sections that are not known are kept as they are.
    pub sections: BTreeMap<u16, Vec<u8>>,
}

/// Tags of [`Cursors::sections`].
pub mod section {
    /// u64: the number of the next segment, so that numbers are never used again, whatever was removed.
    pub const NEXT_SEGMENT: u16 = 1;
    /// u64: everything that the host appended up to this cursor of its own is in this shard's log, or was not for it; u32:
    /// the generation of the layout in which that is so.
    pub const HOST_CURSOR: u16 = 2;
    /// Per lane, the attempts that its batches have behind them.
    pub const ATTEMPTS: u16 = 3;
    /// u64: the keys of the records up to this sequence, by which repeats are recognised, are in the files of `dedup/`.
    pub const DEDUP: u16 = 4;
    /// u64, u64: the number of the next segment of losses, and of the next loss.
    pub const LOSSES: u16 = 5;
    /// u64, u64: the number of the next segment of dead letters, and of the next letter, so that neither is used again.
    pub const NEXT_DEAD: u16 = 6;
    /// What lanes have shed: see [`crate::log::shed`].
    pub const SHED: u16 = 7;
    /// u64, u64: the number of the first segment that the run which saved the cursors may begin, and the last sequence that
    /// counts in the segments before.
    pub const RUN: u16 = 8;
    /// Per group of consumers, what it has done: u32 groups, per group u32 number, cursor, u32 events, per event u64
    /// sequence, u32 times that it was given out.
    pub const GROUPS: u16 = 16;
    /// Per replay, what it has done: u32 replays, per replay u32 number, cursor.
    pub const REPLAYS: u16 = 17;
    /// u64: what the sections of the checkpoint say is true of the durable records up to this sequence.
    pub const THROUGH: u16 = 32;
    /// The intents without an end: per intent u64 sequence, u64 segment, u64 offset.
    pub const INTENTS: u16 = 33;
    /// What other shards have handed over: per destination and shard u32 destination, u16 shard, u64 the last sequence there.
    pub const HANDED_OVER: u16 = 34;

    /// A section of two numbers.
    pub(crate) fn two(bytes: &[u8]) -> Option<(u64, u64)> {
        let (a, b) = bytes.split_first_chunk::<8>()?;
        Some((u64::from_le_bytes(*a), u64::from_le_bytes(b.try_into().ok()?)))
    }
}

impl Cursors {
    /// The file's contents:
    /// magic, u32 format, u32 CRC32C of the format and the rest (in format 1 of the rest), u32 length of the rest, u64
    /// generation, u64 next sequence, u64 clock ceiling, u32 lanes, per lane u32 destination, u64 low, u32 ranges, per range
    /// u64 first, u64 last; since format 2 u32 sections, per section u16 tag, u32 length, bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut body = Vec::new();
        body.extend_from_slice(&self.generation.to_le_bytes());
        body.extend_from_slice(&self.next_sequence.to_le_bytes());
        body.extend_from_slice(&self.clock_ceiling_ns.to_le_bytes());
        body.extend_from_slice(&(self.lanes.len() as u32).to_le_bytes());
        for (destination, c) in &self.lanes {
            body.extend_from_slice(&destination.to_le_bytes());
            c.encode(&mut body);
        }
        body.extend_from_slice(&(self.sections.len() as u32).to_le_bytes());
        for (tag, bytes) in &self.sections {
            body.extend_from_slice(&tag.to_le_bytes());
            body.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
            body.extend_from_slice(bytes);
        }
        let mut out = Vec::with_capacity(20 + body.len());
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&FORMAT.to_le_bytes());
        out.extend_from_slice(&checksum(FORMAT, &body).to_le_bytes());
        out.extend_from_slice(&(body.len() as u32).to_le_bytes());
        out.extend_from_slice(&body);
        out
    }

    /// Reads a file; bytes after the contents are ignored.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] or [`ErrorKind::NewerFormat`].
    pub fn decode(bytes: &[u8]) -> Result<Cursors> {
        let corrupt = || Error::new(ErrorKind::Corrupt, "cursor file: damaged");
        if bytes.get(..8) != Some(MAGIC) {
            return Err(corrupt());
        }
        let mut r = Reader(&bytes[8..]);
        let format = r.u32().ok_or_else(corrupt)?;
        let crc = r.u32().ok_or_else(corrupt)?;
        let len = r.u32().ok_or_else(corrupt)? as usize;
        let body = r.0.get(..len).ok_or_else(corrupt)?;
        if !fits(crc, format, body) {
            return Err(corrupt());
        }
        if format > FORMAT {
            return Err(newer_format(format));
        }
        Self::decode_body(Reader(body), format).ok_or_else(corrupt)
    }

    fn decode_body(mut r: Reader<'_>, format: u32) -> Option<Cursors> {
        let mut c =
            Cursors { generation: r.u64()?, next_sequence: r.u64()?, clock_ceiling_ns: r.u64()?, ..Cursors::default() };
        for _ in 0..r.u32()? {
            let destination = r.u32()?;
            let (lane, rest) = Cursor::decode(r.0)?;
            r.0 = rest;
            c.lanes.insert(destination, lane);
        }
        if format > 1 {
            for _ in 0..r.u32()? {
                let tag = r.u16()?;
                let len = r.u32()? as usize;
                let (bytes, rest) = r.0.split_at_checked(len)?;
                c.sections.insert(tag, bytes.to_vec());
                r.0 = rest;
            }
        }
        Some(c)
    }
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn u16(&mut self) -> Option<u16> {
        let (head, rest) = self.0.split_first_chunk::<2>()?;
        self.0 = rest;
        Some(u16::from_le_bytes(*head))
    }

    fn u32(&mut self) -> Option<u32> {
        let (head, rest) = self.0.split_first_chunk::<4>()?;
        self.0 = rest;
        Some(u32::from_le_bytes(*head))
    }

    fn u64(&mut self) -> Option<u64> {
        let (head, rest) = self.0.split_first_chunk::<8>()?;
        self.0 = rest;
        Some(u64::from_le_bytes(*head))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn ranges_join() {
        let mut c = Cursor::at(10);
        for s in [13, 15, 14, 20, 12] {
            c.done(s);
        }
        assert_eq!(c.ranges().collect::<Vec<_>>(), [(12, 15), (20, 20)]);
        c.raise(11);
        assert_eq!((c.low(), c.high()), (15, 20));
        c.raise(19);
        assert_eq!((c.low(), c.ranges().count()), (20, 0));
    }

    proptest! {
        #[test]
        fn behaves_like_a_set(ops in proptest::collection::vec((0u64..60, any::<bool>()), 0..200)) {
            let mut c = Cursor::at(0);
            let mut set = BTreeSet::new();
            for (n, raise) in ops {
                if raise && n < 20 {
                    c.raise(n);
                    set.extend(1..=n);
                } else if n > 0 {
                    c.done(n);
                    set.insert(n);
                }
                for s in 1..62 {
                    prop_assert_eq!(c.is_done(s), set.contains(&s), "sequence {}", s);
                }
                let mut last = c.low();
                for (f, l) in c.ranges() {
                    prop_assert!(f > last && l >= f);
                    last = l + 1;
                }
            }
            let saved = Cursors {
                generation: 3, next_sequence: 9, clock_ceiling_ns: 8, lanes: [(7, c)].into_iter().collect(),
                sections: [(1, vec![1, 2, 3]), (77, vec![])].into(),
            };
            prop_assert_eq!(Cursors::decode(&saved.encode()).unwrap(), saved);
        }
    }

    #[test]
    fn ranges_out_of_order_are_refused() {
        for ranges in [[(3, 9), (8, 12)], [(20, 10), (30, 30)], [(8, 9), (3, 4)]] {
            let mut lane = Cursor::at(2);
            lane.beyond.extend(ranges);
            let mut bytes = Cursors { lanes: [(1, lane)].into(), ..Cursors::default() }.encode();
            let at = bytes.len() - 32;
            for (i, n) in ranges.iter().flat_map(|(f, l)| [*f, *l]).enumerate() {
                bytes[at + 8 * i..][..8].copy_from_slice(&u64::to_le_bytes(n));
            }
            let crc = checksum(FORMAT, &bytes[20..]);
            bytes[12..16].copy_from_slice(&crc.to_le_bytes());
            assert_eq!(Cursors::decode(&bytes).unwrap_err().kind(), ErrorKind::Corrupt, "{ranges:?}");
        }
    }

    #[test]
    fn every_flip_and_cut_is_noticed() {
        let mut lane = Cursor::at(5);
        lane.done(8);
        let good = Cursors {
            generation: 1,
            next_sequence: 2,
            clock_ceiling_ns: 3,
            lanes: [(1, lane)].into(),
            sections: [(section::HOST_CURSOR, vec![7; 8])].into(),
        }
        .encode();
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let e = Cursors::decode(&bad).unwrap_err();
            assert_eq!(e.kind(), ErrorKind::Corrupt, "bit {bit}: a damaged format number is no newer format");
        }
        for cut in 0..good.len() {
            assert!(Cursors::decode(&good[..cut]).is_err());
        }
    }
}
