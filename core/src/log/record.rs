//! A record: one event in a segment, with the routes that matching gave it.
//!
//! ```text
//!  0  u32  CRC32C of the segment id (u64) and of bytes 4.. of the record, padding excluded
//!  4  u32  length without padding; 0 ends the segment
//!  8  u64  sequence: place in the shard's log, one more than the record before
//! 16  u8   kind           17  u8  flags (0)       18  u16  number of routes
//! 20  u32  clock tie      24  u64 hybrid clock, ns since the epoch
//! 32  per route: u32 destination, u32 rule
//! ..  body, padded with zeros to 8 bytes
//! ```
//!
//! The segment id in the checksum keeps a recycled file's old records from being taken for new ones.

use crate::error::{Error, ErrorKind, Result};

/// The fixed part of a record, in bytes.
pub const RECORD_HEADER_BYTES: usize = 32;
/// One route, in bytes.
pub const ROUTE_BYTES: usize = 8;
/// The largest record: a frame of the largest size with as many routes as fit.
pub const RECORD_BYTES_MAX: usize = 1024 * 1024;

/// What a record holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A frame that is to be delivered along its routes.
    Event = 1,
    /// A dead letter (only in `dead/` segments): its body is a [`DeadLetter`].
    DeadLetter = 2,
}

/// One destination that wants the event, and the rule that says so. Numbers come from `names.json`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// The destination's number.
    pub destination: u32,
    /// The rule's number.
    pub rule: u32,
}

/// A record's fields in memory.
#[derive(Clone, Copy, Debug)]
pub struct RecordHeader {
    /// What the body is.
    pub kind: Kind,
    /// Place in the log.
    pub sequence: u64,
    /// Hybrid clock, ns since the epoch.
    pub clock_ns: u64,
    /// Counts records with the same clock.
    pub tie: u32,
}

/// The record's length in the segment, padding included.
pub fn padded_len(routes: usize, body: usize) -> usize {
    (RECORD_HEADER_BYTES + routes * ROUTE_BYTES + body).next_multiple_of(8)
}

/// Writes a record into the front of `out`, which must have [`padded_len`] bytes; returns that length.
///
/// # Panics
/// If `out` is shorter.
pub fn encode(segment: u64, h: &RecordHeader, routes: &[Route], body: &[u8], out: &mut [u8]) -> usize {
    let len = RECORD_HEADER_BYTES + routes.len() * ROUTE_BYTES + body.len();
    let padded = len.next_multiple_of(8);
    let out = &mut out[..padded];
    out[4..8].copy_from_slice(&(len as u32).to_le_bytes());
    out[8..16].copy_from_slice(&h.sequence.to_le_bytes());
    out[16] = h.kind as u8;
    out[17] = 0;
    out[18..20].copy_from_slice(&(routes.len() as u16).to_le_bytes());
    out[20..24].copy_from_slice(&h.tie.to_le_bytes());
    out[24..32].copy_from_slice(&h.clock_ns.to_le_bytes());
    let mut at = RECORD_HEADER_BYTES;
    for r in routes {
        out[at..at + 4].copy_from_slice(&r.destination.to_le_bytes());
        out[at + 4..at + 8].copy_from_slice(&r.rule.to_le_bytes());
        at += ROUTE_BYTES;
    }
    out[at..len].copy_from_slice(body);
    out[len..].fill(0);
    let crc = checksum(segment, &out[4..len]);
    out[..4].copy_from_slice(&crc.to_le_bytes());
    padded
}

fn checksum(segment: u64, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&segment.to_le_bytes()), bytes)
}

/// A record read in place.
#[derive(Clone, Copy, Debug)]
pub struct RecordView<'a> {
    bytes: &'a [u8],
    routes: usize,
}

fn u32_at(b: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]])
}

fn u64_at(b: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(b[at..at + 8].try_into().unwrap_or_default())
}

/// What stands at the front of some bytes of a segment.
#[derive(Debug)]
pub enum Parsed<'a> {
    /// A whole, valid record.
    Record(RecordView<'a>),
    /// The record goes on past the bytes given; so many are needed at least.
    Short(usize),
    /// Length zero: nothing was written here.
    End,
    /// Not a record of this segment.
    Invalid,
}

/// Reads the record at the front of `bytes`.
pub fn parse(segment: u64, bytes: &[u8]) -> Parsed<'_> {
    if bytes.len() < RECORD_HEADER_BYTES {
        return Parsed::Short(RECORD_HEADER_BYTES);
    }
    let len = u32_at(bytes, 4) as usize;
    if len == 0 {
        return if u32_at(bytes, 0) == 0 { Parsed::End } else { Parsed::Invalid };
    }
    let routes = u16::from_le_bytes([bytes[18], bytes[19]]) as usize;
    if !(RECORD_HEADER_BYTES..=RECORD_BYTES_MAX).contains(&len)
        || len < RECORD_HEADER_BYTES + routes * ROUTE_BYTES
        || !matches!(bytes[16], 1 | 2)
    {
        return Parsed::Invalid;
    }
    let padded = len.next_multiple_of(8);
    if bytes.len() < padded {
        return Parsed::Short(padded);
    }
    if u32_at(bytes, 0) != checksum(segment, &bytes[4..len]) {
        return Parsed::Invalid;
    }
    Parsed::Record(RecordView { bytes: &bytes[..len], routes })
}

/// The record at the front of bytes that this process encoded, without checking it again; `None` at their end.
pub(crate) fn parse_trusted(bytes: &[u8]) -> Option<RecordView<'_>> {
    if bytes.len() < RECORD_HEADER_BYTES {
        return None;
    }
    let len = u32_at(bytes, 4) as usize;
    let routes = u16::from_le_bytes([bytes[18], bytes[19]]) as usize;
    bytes
        .get(..len)
        .filter(|b| b.len() >= RECORD_HEADER_BYTES + routes * ROUTE_BYTES)
        .map(|bytes| RecordView { bytes, routes })
}

impl<'a> RecordView<'a> {
    /// The record's length in the segment.
    pub fn padded_len(&self) -> usize {
        self.bytes.len().next_multiple_of(8)
    }

    /// The fixed fields.
    pub fn header(&self) -> RecordHeader {
        RecordHeader {
            kind: if self.bytes[16] == 2 { Kind::DeadLetter } else { Kind::Event },
            sequence: u64_at(self.bytes, 8),
            clock_ns: u64_at(self.bytes, 24),
            tie: u32_at(self.bytes, 20),
        }
    }

    /// The place in the log.
    pub fn sequence(&self) -> u64 {
        u64_at(self.bytes, 8)
    }

    /// The routes.
    pub fn routes(&self) -> impl ExactSizeIterator<Item = Route> + 'a {
        let bytes = self.bytes;
        (0..self.routes).map(move |i| {
            let at = RECORD_HEADER_BYTES + i * ROUTE_BYTES;
            Route { destination: u32_at(bytes, at), rule: u32_at(bytes, at + 4) }
        })
    }

    /// The body: a frame, or a dead letter.
    pub fn body(&self) -> &'a [u8] {
        &self.bytes[RECORD_HEADER_BYTES + self.routes * ROUTE_BYTES..]
    }
}

/// Finds the next valid record in `bytes` at an offset that is a multiple of 8 and not before `from`, whose sequence is
/// above `after`. Used to go on behind damage.
///
/// The sequence is checked before the checksum, and must be plausible for the distance, so that damage is passed in
/// about one step per 8 bytes.
pub fn resync(segment: u64, bytes: &[u8], from: usize, after: u64) -> Option<usize> {
    let mut at = from.next_multiple_of(8);
    while at + RECORD_HEADER_BYTES <= bytes.len() {
        let sequence = u64_at(bytes, at + 8);
        let skipped_max = (at - from) as u64 / RECORD_HEADER_BYTES as u64 + 2;
        if sequence > after
            && sequence <= after.saturating_add(skipped_max)
            && let Parsed::Record(_) = parse(segment, &bytes[at..])
        {
            return Some(at);
        }
        at += 8;
    }
    None
}

/// The first valid record in `bytes`, whatever its sequence, at an offset that is a multiple of 8 and not before `from`.
pub fn first(segment: u64, bytes: &[u8], from: usize) -> Option<(usize, RecordView<'_>)> {
    let from = from.next_multiple_of(8);
    (from..bytes.len()).step_by(8).find_map(|at| match parse(segment, &bytes[at..]) {
        Parsed::Record(r) => Some((at, r)),
        Parsed::Short(_) | Parsed::End | Parsed::Invalid => None,
    })
}

/// Why and how an event came to be dead, with its original frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter<'a> {
    /// The destination's number.
    pub destination: u32,
    /// The rule's number.
    pub rule: u32,
    /// Sequence in the log that it came from.
    pub sequence: u64,
    /// Incarnation of the segment it came from; with shard and sequence, the event's id.
    pub incarnation: u64,
    /// How often delivery was tried.
    pub attempts: u32,
    /// When it was accepted, ns since the epoch.
    pub first_ns: u64,
    /// When it was given up, ns since the epoch.
    pub last_ns: u64,
    /// The status of the last answer; 0 if there was none.
    pub status: u16,
    /// What went wrong last.
    pub reason: &'a str,
    /// The event.
    pub frame: &'a [u8],
}

impl<'a> DeadLetter<'a> {
    const FIXED: usize = 4 + 4 + 8 + 8 + 4 + 8 + 8 + 2 + 2;

    /// The letter as a record's body. The reason is cut to 1 KiB.
    pub fn encode(&self) -> Vec<u8> {
        let mut cut = self.reason.len().min(1024);
        while !self.reason.is_char_boundary(cut) {
            cut -= 1;
        }
        let mut b = Vec::with_capacity(Self::FIXED + cut + self.frame.len());
        b.extend_from_slice(&self.destination.to_le_bytes());
        b.extend_from_slice(&self.rule.to_le_bytes());
        b.extend_from_slice(&self.sequence.to_le_bytes());
        b.extend_from_slice(&self.incarnation.to_le_bytes());
        b.extend_from_slice(&self.attempts.to_le_bytes());
        b.extend_from_slice(&self.first_ns.to_le_bytes());
        b.extend_from_slice(&self.last_ns.to_le_bytes());
        b.extend_from_slice(&self.status.to_le_bytes());
        b.extend_from_slice(&(cut as u16).to_le_bytes());
        b.extend_from_slice(&self.reason.as_bytes()[..cut]);
        b.extend_from_slice(self.frame);
        b
    }

    /// Reads a record's body.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] if it is not one.
    pub fn decode(b: &'a [u8]) -> Result<DeadLetter<'a>> {
        let corrupt = || Error::new(ErrorKind::Corrupt, "dead letter: shorter than its fields");
        if b.len() < Self::FIXED {
            return Err(corrupt());
        }
        let reason_len = u16::from_le_bytes([b[46], b[47]]) as usize;
        let reason = b.get(Self::FIXED..Self::FIXED + reason_len).ok_or_else(corrupt)?;
        Ok(DeadLetter {
            destination: u32_at(b, 0),
            rule: u32_at(b, 4),
            sequence: u64_at(b, 8),
            incarnation: u64_at(b, 16),
            attempts: u32_at(b, 24),
            first_ns: u64_at(b, 28),
            last_ns: u64_at(b, 36),
            status: u16::from_le_bytes([b[44], b[45]]),
            reason: std::str::from_utf8(reason)
                .map_err(|_| Error::new(ErrorKind::Corrupt, "dead letter: reason is not UTF-8"))?,
            frame: &b[Self::FIXED + reason_len..],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(segment: u64, sequence: u64, body: &[u8]) -> Vec<u8> {
        let routes = [Route { destination: 1, rule: 2 }, Route { destination: 3, rule: 4 }];
        let mut out = vec![0xAA; padded_len(routes.len(), body.len())];
        let h = RecordHeader { kind: Kind::Event, sequence, clock_ns: 77, tie: 5 };
        encode(segment, &h, &routes, body, &mut out);
        out
    }

    #[test]
    fn round_trip() {
        let r = record(9, 42, b"hello");
        let Parsed::Record(v) = parse(9, &r) else { panic!("not a record") };
        assert_eq!((v.sequence(), v.header().clock_ns, v.header().tie), (42, 77, 5));
        assert_eq!(v.routes().map(|r| (r.destination, r.rule)).collect::<Vec<_>>(), [(1, 2), (3, 4)]);
        assert_eq!(v.body(), b"hello");
        assert_eq!(v.padded_len(), r.len());
    }

    #[test]
    fn a_record_of_another_segment_is_not_taken() {
        assert!(matches!(parse(10, &record(9, 42, b"hello")), Parsed::Invalid));
    }

    #[test]
    fn every_single_bit_flip_is_noticed() {
        let good = record(9, 42, b"some body that is long enough");
        let len = u32_at(&good, 4) as usize;
        for bit in 0..len * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            match parse(9, &bad) {
                Parsed::Record(_) => panic!("bit {bit} was not noticed"),
                Parsed::End => panic!("bit {bit} hides the record"),
                Parsed::Short(_) | Parsed::Invalid => {}
            }
        }
    }

    #[test]
    fn every_cut_is_noticed() {
        let good = record(9, 42, b"body");
        for cut in 0..good.len() {
            assert!(matches!(parse(9, &good[..cut]), Parsed::Short(_)), "cut at {cut}");
        }
    }

    #[test]
    fn resync_finds_the_next_record_behind_damage() {
        let mut log = Vec::new();
        let mut starts = Vec::new();
        for s in 1..=5 {
            starts.push(log.len());
            log.extend(record(1, s, format!("body {s}").as_bytes()));
        }
        log[starts[1] + 40] ^= 1;
        assert!(matches!(parse(1, &log[starts[1]..]), Parsed::Invalid));
        assert_eq!(resync(1, &log, starts[1] + 8, 1), Some(starts[2]));
        assert_eq!(resync(1, &log[..starts[2]], starts[1] + 8, 1), None);
    }

    #[test]
    fn dead_letter_round_trip_and_cuts() {
        let d = DeadLetter {
            destination: 1,
            rule: 2,
            sequence: 3,
            incarnation: 4,
            attempts: 5,
            first_ns: 6,
            last_ns: 7,
            status: 503,
            reason: "it said é",
            frame: b"frame",
        };
        let b = d.encode();
        assert_eq!(DeadLetter::decode(&b).unwrap(), d);
        for cut in 0..DeadLetter::FIXED + d.reason.len() {
            assert!(DeadLetter::decode(&b[..cut]).is_err());
        }
    }
}
