//! The header block of a segment.

use super::{BLOCK_BYTES, FORMAT};
use crate::error::{Error, ErrorKind, Result};

const MAGIC: &[u8; 8] = b"TIDEWIRE";
/// Bytes of the header that mean something; format 1 ended before the flags.
const USED: usize = 72;
const USED_BY_FORMAT_1: usize = 60;
const RECYCLED: u32 = 1;
/// The header has a block of its own.
pub(super) const HEADER_FITS: bool = USED <= BLOCK_BYTES;

/// What a segment says about itself in its first block.
///
/// ```text
///  0  "TIDEWIRE"          24  u64  incarnation             48  u64  created, ns since the epoch
///  8  u32 format          32  u64  sequence of the first   56  u16  shard     58  u16 purpose
/// 12  u32 CRC32C of       40  u64  hybrid clock that every      60  u32  flags: 1 = recycled
///     8..12 and 16..72             record of it is above        64  u64  last sequence of the
/// 16  u64 segment id                                                     segment before
/// ```
///
/// The checksum stands in this place and covers these bytes in every later format too (in format 1 it did not cover the format): only so can a flipped bit in the
/// format's number be told from a newer format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// The segment's number in its directory, from 1.
    pub id: u64,
    /// Drawn at random when the engine that wrote it was opened; part of the ids of its events.
    pub incarnation: u64,
    /// Sequence of its first record.
    pub base_sequence: u64,
    /// Every record of it has a hybrid clock above this.
    pub base_clock_ns: u64,
    /// When it was made.
    pub created_ns: u64,
    /// The shard.
    pub shard: u16,
    /// What it holds.
    pub purpose: Purpose,
    /// The last sequence of the segment before, as the engine that began this one knew it. What that segment may have
    /// beyond never was: it was being written when the process was killed, or could not be made durable.
    pub previous_last: u64,
    /// The file held an earlier segment, of which the bytes behind the records may still be there.
    pub recycled: bool,
}

/// What a segment holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Purpose {
    /// Events on their way.
    Events = 0,
    /// Dead letters.
    DeadLetters = 1,
    /// What was dropped.
    Losses = 2,
    /// Keys by which repeats are recognised.
    Dedup = 8,
}

impl SegmentHeader {
    /// The block.
    pub fn encode(&self, block: &mut [u8]) {
        block[..BLOCK_BYTES].fill(0);
        block[..8].copy_from_slice(MAGIC);
        block[8..12].copy_from_slice(&FORMAT.to_le_bytes());
        block[16..24].copy_from_slice(&self.id.to_le_bytes());
        block[24..32].copy_from_slice(&self.incarnation.to_le_bytes());
        block[32..40].copy_from_slice(&self.base_sequence.to_le_bytes());
        block[40..48].copy_from_slice(&self.base_clock_ns.to_le_bytes());
        block[48..56].copy_from_slice(&self.created_ns.to_le_bytes());
        block[56..58].copy_from_slice(&self.shard.to_le_bytes());
        block[58..60].copy_from_slice(&(self.purpose as u16).to_le_bytes());
        block[60..64].copy_from_slice(&(if self.recycled { RECYCLED } else { 0 }).to_le_bytes());
        block[64..72].copy_from_slice(&self.previous_last.to_le_bytes());
        let crc = checksum(FORMAT, &block[16..USED]);
        block[12..16].copy_from_slice(&crc.to_le_bytes());
    }

    /// Reads the block.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] if it is damaged or no segment at all, [`ErrorKind::NewerFormat`] if it was written by a
    /// newer version.
    pub fn decode(block: &[u8]) -> Result<SegmentHeader> {
        let corrupt = |what: &str| Error::new(ErrorKind::Corrupt, format!("segment header: {what}"));
        if block.len() < USED || &block[..8] != MAGIC {
            return Err(corrupt("no segment of Tidewire"));
        }
        let u64_at = |at: usize| u64::from_le_bytes(block[at..at + 8].try_into().unwrap_or_default());
        let format = u32::from_le_bytes([block[8], block[9], block[10], block[11]]);
        let crc = u32::from_le_bytes([block[12], block[13], block[14], block[15]]);
        if !fits(crc, format, &block[16..if format == 1 { USED_BY_FORMAT_1 } else { USED }]) {
            return Err(corrupt("checksum differs"));
        }
        if format > FORMAT {
            return Err(newer_format(format));
        }
        Ok(SegmentHeader {
            id: u64_at(16),
            incarnation: u64_at(24),
            base_sequence: u64_at(32),
            base_clock_ns: u64_at(40),
            created_ns: u64_at(48),
            shard: u16::from_le_bytes([block[56], block[57]]),
            purpose: match u16::from_le_bytes([block[58], block[59]]) {
                0 => Purpose::Events,
                1 => Purpose::DeadLetters,
                2 => Purpose::Losses,
                8 => Purpose::Dedup,
                n => return Err(corrupt(&format!("purpose {n}"))),
            },
            previous_last: if format > 1 { u64_at(64) } else { u64_at(32).saturating_sub(1) },
            recycled: format > 1 && u32::from_le_bytes([block[60], block[61], block[62], block[63]]) & RECYCLED != 0,
        })
    }

    /// The segment's file name.
    pub fn file_name(id: u64) -> String {
        format!("{id:016x}.log")
    }

    /// The segment number of a file name.
    pub fn parse_file_name(name: &str) -> Option<u64> {
        let hex = name.strip_suffix(".log")?;
        if hex.len() == 16 { u64::from_str_radix(hex, 16).ok() } else { None }
    }
}

/// The checksum of a file's format number and of what comes after the checksum.
pub(super) fn checksum(format: u32, rest: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&format.to_le_bytes()), rest)
}

/// Whether a file has the checksum that it should have. The first files of format 1 left the format's number out of it.
pub(super) fn fits(crc: u32, format: u32, rest: &[u8]) -> bool {
    crc == checksum(format, rest) || (format == 1 && crc == crc32c::crc32c(rest))
}

pub(crate) fn newer_format(format: u32) -> Error {
    Error::new(ErrorKind::NewerFormat, format!("written in format {format}, and this version knows up to {FORMAT}"))
        .remedy("open it with a newer Tidewire; nothing was changed")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> SegmentHeader {
        SegmentHeader {
            id: 7,
            incarnation: 8,
            base_sequence: 9,
            base_clock_ns: 10,
            created_ns: 11,
            shard: 1,
            purpose: Purpose::Events,
            previous_last: 5,
            recycled: true,
        }
    }

    #[test]
    fn round_trip_and_flips() {
        let mut block = vec![1; BLOCK_BYTES];
        header().encode(&mut block);
        assert_eq!(SegmentHeader::decode(&block).unwrap(), header());
        for bit in 0..USED * 8 {
            let mut bad = block.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let e = SegmentHeader::decode(&bad).unwrap_err();
            assert_eq!(e.kind(), ErrorKind::Corrupt, "bit {bit}: a damaged format number is no newer format");
        }
    }

    #[test]
    fn headers_of_format_1_are_read() {
        let mut block = vec![0; BLOCK_BYTES];
        header().encode(&mut block);
        block[8..12].copy_from_slice(&1u32.to_le_bytes());
        let crc = crc32c::crc32c(&block[16..USED_BY_FORMAT_1]);
        block[12..16].copy_from_slice(&crc.to_le_bytes());
        let expect = SegmentHeader { previous_last: 8, recycled: false, ..header() };
        assert_eq!(SegmentHeader::decode(&block).unwrap(), expect);
        block[8] ^= 2;
        assert_eq!(SegmentHeader::decode(&block).unwrap_err().kind(), ErrorKind::Corrupt);
    }

    #[test]
    fn newer_format_is_refused_by_name() {
        let mut block = vec![0; BLOCK_BYTES];
        header().encode(&mut block);
        block[8..12].copy_from_slice(&99u32.to_le_bytes());
        let crc = checksum(99, &block[16..USED]);
        block[12..16].copy_from_slice(&crc.to_le_bytes());
        let e = SegmentHeader::decode(&block).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::NewerFormat);
        assert!(e.to_string().contains("format 99") && e.to_string().contains("newer Tidewire"), "{e}");
    }

    #[test]
    fn file_names() {
        assert_eq!(SegmentHeader::file_name(255), "00000000000000ff.log");
        assert_eq!(SegmentHeader::parse_file_name("00000000000000ff.log"), Some(255));
        assert_eq!(SegmentHeader::parse_file_name("ff.log"), None);
        assert_eq!(SegmentHeader::parse_file_name("00000000000000ff.tmp"), None);
    }
}
