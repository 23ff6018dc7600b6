//! Numbers that filters compare: integers exactly, and the decimals of JSON.

use std::cmp::Ordering;
use std::fmt;

/// A number. Integers of 64 bits with and without a sign are exact; everything else is a double.
#[derive(Clone, Copy, Debug)]
pub enum Number {
    /// An integer.
    Int(i128),
    /// A finite double.
    Float(f64),
}

impl Number {
    /// The double, unless it is infinite or no number.
    pub fn float(n: f64) -> Option<Number> {
        n.is_finite().then_some(Number::Float(n))
    }

    /// Reads a decimal number: sign, digits, fraction, exponent. Nothing else may be there.
    pub fn parse(text: &[u8]) -> Option<Number> {
        let text = std::str::from_utf8(text).ok()?;
        if !text.bytes().next()?.is_ascii_digit() && !text.starts_with('-') {
            return None;
        }
        if let Ok(n) = text.parse::<i64>() {
            return Some(Number::Int(n.into()));
        }
        if let Ok(n) = text.parse::<u64>() {
            return Some(Number::Int(n.into()));
        }
        if !text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'-' | b'+' | b'.' | b'e' | b'E')) {
            return None;
        }
        Number::float(text.parse().ok()?)
    }
}

/// Exact, also between integers and doubles.
fn compare(a: Number, b: Number) -> Ordering {
    match (a, b) {
        (Number::Int(a), Number::Int(b)) => a.cmp(&b),
        (Number::Float(a), Number::Float(b)) => a.partial_cmp(&b).unwrap_or(Ordering::Equal),
        (Number::Int(a), Number::Float(b)) => compare_mixed(a, b),
        (Number::Float(a), Number::Int(b)) => compare_mixed(b, a).reverse(),
    }
}

fn compare_mixed(a: i128, b: f64) -> Ordering {
    // Casts of doubles saturate, and every integer here is far from the ends.
    let whole = b.trunc();
    a.cmp(&(whole as i128)).then_with(|| 0.0.partial_cmp(&(b - whole)).unwrap_or(Ordering::Equal))
}

impl PartialEq for Number {
    fn eq(&self, other: &Number) -> bool {
        compare(*self, *other).is_eq()
    }
}

impl Eq for Number {}

impl PartialOrd for Number {
    fn partial_cmp(&self, other: &Number) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Number {
    fn cmp(&self, other: &Number) -> Ordering {
        compare(*self, *other)
    }
}

impl std::hash::Hash for Number {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        // Equal numbers have equal hashes, whichever form they have.
        match *self {
            Number::Float(f) if f.trunc() != f => f.to_bits().hash(state),
            Number::Float(f) => (f as i128).hash(state),
            Number::Int(n) => n.hash(state),
        }
    }
}

impl From<u64> for Number {
    fn from(n: u64) -> Number {
        Number::Int(n.into())
    }
}

impl From<i64> for Number {
    fn from(n: i64) -> Number {
        Number::Int(n.into())
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Number::Int(n) => n.fmt(f),
            Number::Float(n) => n.fmt(f),
        }
    }
}

/// One end of a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Bound {
    /// None.
    Open,
    /// Up to this, which is in.
    Included(Number),
    /// Up to this, which is out.
    Excluded(Number),
}

/// The numbers between two bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Range {
    /// The lower end.
    pub low: Bound,
    /// The upper end.
    pub high: Bound,
}

impl Range {
    /// This number alone.
    pub fn exactly(n: Number) -> Range {
        Range { low: Bound::Included(n), high: Bound::Included(n) }
    }

    /// From `low`, which is in.
    pub fn at_least(low: impl Into<Number>) -> Range {
        Range { low: Bound::Included(low.into()), high: Bound::Open }
    }

    /// Up to `high`, which is in.
    pub fn at_most(high: impl Into<Number>) -> Range {
        Range { low: Bound::Open, high: Bound::Included(high.into()) }
    }

    /// Whether the number is within.
    #[inline]
    pub fn contains(&self, n: Number) -> bool {
        (match self.low {
            Bound::Open => true,
            Bound::Included(low) => n >= low,
            Bound::Excluded(low) => n > low,
        }) && (match self.high {
            Bound::Open => true,
            Bound::Included(high) => n <= high,
            Bound::Excluded(high) => n < high,
        })
    }

    /// Whether no number is within.
    pub fn is_empty(&self) -> bool {
        match (self.low, self.high) {
            (Bound::Included(low), Bound::Included(high)) => low > high,
            (Bound::Included(low) | Bound::Excluded(low), Bound::Included(high) | Bound::Excluded(high)) => low >= high,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn n(text: &str) -> Number {
        Number::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn integers_and_decimals_compare_exactly() {
        // A double cannot hold the second of these.
        assert!(n("9007199254740992") < n("9007199254740993"));
        assert!(Number::Float(9007199254740992.0) < n("9007199254740993"));
        assert!(n("9007199254740993") > Number::Float(9007199254740992.0));
        assert!(n("18446744073709551615") > n("9223372036854775807"));
        assert_eq!(n("1.0"), n("1"));
        assert!(n("-1.5") < n("-1") && n("-1") > n("-1.5"));
        assert!(n("1") < n("1.5") && n("2") > n("1.5"));
        assert!(n("1e300") > n("18446744073709551615") && n("-1e300") < n("-5"));
    }

    #[test]
    fn what_is_no_decimal_is_no_number() {
        for text in ["", "x", "1x", "0x10", "inf", "NaN", " 1", "1 ", "1e999", "-", "+1", "١"] {
            assert!(Number::parse(text.as_bytes()).is_none(), "{text}");
        }
        assert_eq!(n("-0.5e1"), n("-5"));
    }

    #[test]
    fn ranges_keep_their_ends_or_not() {
        let r = Range { low: Bound::Excluded(n("0")), high: Bound::Included(n("5")) };
        assert!(!r.contains(n("0")) && r.contains(n("0.0001")) && r.contains(n("5")) && !r.contains(n("5.1")));
        assert!(!r.is_empty());
        assert!(Range { low: Bound::Excluded(n("5")), high: Bound::Included(n("5")) }.is_empty());
        assert!(!Range::exactly(n("5")).is_empty() && Range::exactly(n("5")).contains(n("5.0")));
        assert!(Range::at_least(3u64).contains(n("3")) && !Range::at_most(3u64).contains(n("3.5")));
    }

    #[test]
    fn equal_numbers_have_equal_hashes() {
        use std::hash::{BuildHasher, RandomState};
        let s = RandomState::new();
        assert_eq!(s.hash_one(n("4")), s.hash_one(Number::Float(4.0)));
    }
}
