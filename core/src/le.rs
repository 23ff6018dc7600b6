//! Little-endian numbers in bytes. What lies behind the end reads as 0, with one look at the length for each number.

/// Two bytes from `at` on.
///
/// # Panics
/// If `at` itself lies behind the end.
#[inline(always)]
pub(crate) fn u16_at(b: &[u8], at: usize) -> u16 {
    b[at..].first_chunk().map_or(0, |b| u16::from_le_bytes(*b))
}

/// Four bytes from `at` on; see [`u16_at`].
#[inline(always)]
pub(crate) fn u32_at(b: &[u8], at: usize) -> u32 {
    b[at..].first_chunk().map_or(0, |b| u32::from_le_bytes(*b))
}

/// Eight bytes from `at` on; see [`u16_at`].
#[inline(always)]
pub(crate) fn u64_at(b: &[u8], at: usize) -> u64 {
    b[at..].first_chunk().map_or(0, |b| u64::from_le_bytes(*b))
}
