//! Comparing short texts. Most are shorter than what a call of the C library is worth.

use memchr::memmem;

#[inline(always)]
fn u64_at(b: &[u8], at: usize) -> u64 {
    b[at..].first_chunk::<8>().map_or(0, |c| u64::from_le_bytes(*c))
}

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

/// Asks for the cache line of what will be looked at soon.
#[inline(always)]
pub(super) fn prefetch<T>(what: &T) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: a hint without an effect on memory; the address is that of something that is there.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(std::ptr::from_ref(what).cast());
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = what;
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
            let long = text.repeat(5);
            prop_assert_eq!(find(&long, part), memmem::find(&long, part));
        }
    }
}
