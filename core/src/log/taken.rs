//! Which dead letters of a segment were taken out again: redriven or purged.
//!
//! Segments are only ever appended to, so what was taken is kept beside them, one small file per segment, replaced as a
//! whole. It goes when its segment goes. If it is lost or damaged, letters are there again that were taken: they may be
//! redriven twice, but none is lost.
//!
//! ```text
//!  0  "TWTAKEN\0"      16  u64  segment           32  u32  length of the bits
//!  8  u32 format       24  u64  the number that   36  the bits: of each letter from that number on,
//! 12  u32 CRC32C of          bit 0 stands for         1 = taken
//!     bytes 16..
//! ```

use super::{FORMAT, segment::newer_format};
use crate::error::{Error, ErrorKind, Result};

const MAGIC: &[u8; 8] = b"TWTAKEN\0";
const HEADER_BYTES: usize = 36;
/// More letters than a segment of the largest size can hold.
const LETTERS_MAX: u64 = 1 << 27;

/// The letters of one segment that were taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    segment: u64,
    base: u64,
    bits: Vec<u8>,
    count: u64,
}

impl Taken {
    /// Nothing taken of a segment whose first letter has the number `base`.
    pub fn new(segment: u64, base: u64) -> Taken {
        Taken { segment, base, bits: Vec::new(), count: 0 }
    }

    fn place(&self, number: u64) -> Option<(usize, u8)> {
        let bit = number.checked_sub(self.base).filter(|n| *n < LETTERS_MAX)?;
        Some(((bit / 8) as usize, 1 << (bit % 8)))
    }

    /// Whether a letter was taken.
    pub fn is_taken(&self, number: u64) -> bool {
        self.place(number).is_some_and(|(byte, bit)| self.bits.get(byte).is_some_and(|b| b & bit != 0))
    }

    /// Takes a letter; `false` if it was taken before or cannot be one of the segment.
    pub fn take(&mut self, number: u64) -> bool {
        let Some((byte, bit)) = self.place(number).filter(|_| !self.is_taken(number)) else { return false };
        if self.bits.len() <= byte {
            self.bits.resize(byte + 1, 0);
        }
        self.bits[byte] |= bit;
        self.count += 1;
        true
    }

    /// How many were taken.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The file.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER_BYTES + self.bits.len());
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&FORMAT.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&self.segment.to_le_bytes());
        out.extend_from_slice(&self.base.to_le_bytes());
        out.extend_from_slice(&(self.bits.len() as u32).to_le_bytes());
        out.extend_from_slice(&self.bits);
        let crc = crc32c::crc32c(&out[16..]);
        out[12..16].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads the file of a segment.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] if it is damaged or another segment's, [`ErrorKind::NewerFormat`].
    pub fn decode(segment: u64, base: u64, bytes: &[u8]) -> Result<Taken> {
        let corrupt = |what: &str| Error::new(ErrorKind::Corrupt, format!("list of taken dead letters: {what}"));
        let (header, bits) = bytes.split_at_checked(HEADER_BYTES).ok_or_else(|| corrupt("too short"))?;
        if &header[..8] != MAGIC {
            return Err(corrupt("no such file of Tidewire"));
        }
        let u32_at = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let u64_at = |at: usize| u64::from_le_bytes(header[at..at + 8].try_into().unwrap_or_default());
        if u32_at(8) > FORMAT {
            return Err(newer_format(u32_at(8)));
        }
        if u32_at(12) != crc32c::crc32c(&bytes[16..]) || u32_at(32) as usize != bits.len() {
            return Err(corrupt("checksum or length differs"));
        }
        if (u64_at(16), u64_at(24)) != (segment, base) || bits.len() as u64 > LETTERS_MAX / 8 {
            return Err(corrupt("it belongs to another segment"));
        }
        let count = bits.iter().map(|b| u64::from(b.count_ones())).sum();
        Ok(Taken { segment, base, bits: bits.to_vec(), count })
    }

    /// The name of a segment's file.
    pub fn file_name(segment: u64) -> String {
        format!("{segment:016x}.taken")
    }

    /// The segment of a file name.
    pub fn parse_file_name(name: &str) -> Option<u64> {
        let hex = name.strip_suffix(".taken")?;
        if hex.len() == 16 { u64::from_str_radix(hex, 16).ok() } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn behaves_like_a_set(base in 1u64..1000, numbers in proptest::collection::vec(0u64..3000, 0..200)) {
            let mut taken = Taken::new(7, base);
            let mut set = BTreeSet::new();
            for n in numbers {
                prop_assert_eq!(taken.take(n), n >= base && set.insert(n));
            }
            for n in 0..3000 {
                prop_assert_eq!(taken.is_taken(n), set.contains(&n));
            }
            prop_assert_eq!(taken.count(), set.len() as u64);
            prop_assert_eq!(Taken::decode(7, base, &taken.encode()).unwrap(), taken);
        }
    }

    #[test]
    fn numbers_far_from_the_segment_cost_no_memory() {
        let mut taken = Taken::new(7, 10);
        assert!(!taken.take(9) && !taken.take(u64::MAX) && taken.take(10));
        assert_eq!(taken.bits.len(), 1);
    }

    #[test]
    fn every_flip_and_cut_is_noticed() {
        let mut taken = Taken::new(7, 10);
        taken.take(12);
        taken.take(40);
        let good = taken.encode();
        for bit in (0..good.len() * 8).filter(|b| !(64..96).contains(b)) {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Taken::decode(7, 10, &bad).is_err(), "bit {bit}");
        }
        for cut in 0..good.len() {
            assert!(Taken::decode(7, 10, &good[..cut]).is_err());
        }
        assert!(Taken::decode(8, 10, &good).is_err() && Taken::decode(7, 11, &good).is_err());
        let mut newer = good;
        newer[8] = FORMAT as u8 + 1;
        assert_eq!(Taken::decode(7, 10, &newer).unwrap_err().kind(), ErrorKind::NewerFormat);
    }

    #[test]
    fn file_names() {
        assert_eq!(Taken::file_name(255), "00000000000000ff.taken");
        assert_eq!(Taken::parse_file_name("00000000000000ff.taken"), Some(255));
        assert_eq!(Taken::parse_file_name("00000000000000ff.log"), None);
    }
}
