//! Comparing short texts. Most are shorter than what a call of the C library is worth.

use memchr::memmem;

use crate::le::u64_at;

/// Whether two texts of the same length are the same.
#[inline(always)]
fn same(a: &[u8], b: &[u8]) -> bool {
    let n = a.len();
    if b.len() != n {
        return false;
    }
    if n < 8 {
        if n < 4 {
            return n == 0 || (a[0] == b[0] && a[n / 2] == b[n / 2] && a[n - 1] == b[n - 1]);
        }
        return a.first_chunk::<4>() == b.first_chunk::<4>() && a.last_chunk::<4>() == b.last_chunk::<4>();
    }
    let mut at = 0;
    while at + 8 < n {
        if u64_at(a, at) != u64_at(b, at) {
            return false;
        }
        at += 8;
    }
    u64_at(a, n - 8) == u64_at(b, n - 8)
}

/// Whether `text` is `other`.
#[inline(always)]
pub(super) fn equals(text: &[u8], other: &[u8]) -> bool {
    same(text, other)
}

/// What is behind `prefix`, if `text` begins with it.
#[inline(always)]
pub(super) fn strip_prefix<'a>(text: &'a [u8], prefix: &[u8]) -> Option<&'a [u8]> {
    let (front, rest) = text.split_at_checked(prefix.len())?;
    same(front, prefix).then_some(rest)
}

/// What is before `suffix`, if `text` ends with it.
#[inline(always)]
pub(super) fn strip_suffix<'a>(text: &'a [u8], suffix: &[u8]) -> Option<&'a [u8]> {
    let (rest, back) = text.split_at_checked(text.len().checked_sub(suffix.len())?)?;
    same(back, suffix).then_some(rest)
}

/// Where `part` is in `text` first. Short ones are tried at each place where their first byte stands, without the
/// preparations that are worth it for long ones.
#[inline]
pub(super) fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    let Some((first, rest)) = part.split_first() else { return Some(0) };
    if text.len() > 256 || part.len() > 32 {
        return memmem::find(text, part);
    }
    let last = text.len().checked_sub(part.len())?;
    let mut at = 0;
    while let Some(next) = memchr::memchr(*first, &text[at..=last]) {
        at += next;
        if same(&text[at + 1..=at + rest.len()], rest) {
            return Some(at);
        }
        at += 1;
        if at > last {
            break;
        }
    }
    None
}

/// How many bytes [`same_lanes`] compares.
pub(super) const LANES: usize = 16;

/// Which bytes are the same in both: a bit each, the lowest for the first.
#[inline(always)]
pub(super) fn same_lanes(a: &[u8; LANES], b: &[u8; LANES]) -> u32 {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86-64 processor has these operations, and the loads, which need no alignment, are of what both arrays have.
    unsafe {
        use std::arch::x86_64::{_mm_cmpeq_epi8, _mm_loadu_si128, _mm_movemask_epi8};
        let same = _mm_cmpeq_epi8(_mm_loadu_si128(a.as_ptr().cast()), _mm_loadu_si128(b.as_ptr().cast()));
        _mm_movemask_epi8(same) as u32
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        let mut lanes = a.iter().zip(b);
        (0..LANES).fold(0, |bits, i| bits | u32::from(lanes.next().is_some_and(|(a, b)| a == b)) << i)
    }
}

/// Asks for the cache line of what will be looked at soon. It need not be there.
#[inline(always)]
pub(super) fn prefetch<T>(of: &[T], at: usize) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: a hint, which has no effect on memory and fails for no address.
    unsafe {
        let place = of.as_ptr().wrapping_add(at);
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(place.cast());
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = (of, at);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn they_agree_with_the_standard_library(
            text in prop::collection::vec(0u8..3, 0..70),
            part in prop::collection::vec(0u8..3, 0..40),
            cut in 0usize..70,
        ) {
            let part = if cut < text.len() { &text[cut..] } else { &part[..] };
            let begin = &text[..cut.min(text.len())];
            for part in [part, begin] {
                prop_assert_eq!(equals(&text, part), text == part);
                prop_assert_eq!(strip_prefix(&text, part), text.strip_prefix(part));
                prop_assert_eq!(strip_suffix(&text, part), text.strip_suffix(part));
                prop_assert_eq!(find(&text, part), memmem::find(&text, part));
            }
            let lanes: Vec<&[u8; LANES]> = text.chunks(LANES).filter_map(|c| c.first_chunk()).collect();
            for (a, b) in lanes.iter().zip(lanes.iter().skip(1)) {
                let expected = (0..LANES).filter(|i| a[*i] == b[*i]).fold(0, |bits, i| bits | 1 << i);
                prop_assert_eq!(same_lanes(a, b), expected);
            }
            let long = text.repeat(5);
            prop_assert_eq!(find(&long, part), memmem::find(&long, part));
        }
    }
}
