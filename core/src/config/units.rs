//! Sizes and times as people write them.

use std::fmt;
use std::time::Duration;

use serde::de::{self, Deserialize, Deserializer, Visitor};

pub(crate) const SIZE_FORMS: &str =
    "write a number of bytes, or a whole number with B, KiB, MiB or GiB, as in \"4MiB\"";
pub(super) const TIME_FORMS: &str = "write a whole number with us, ms, s, m, h or d, as in \"5ms\" or \"72h\"";

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size(pub(crate) u64);

/// A length of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Time(pub(super) Duration);

/// A whole number and its unit.
fn split(text: &str) -> Option<(u64, &str)> {
    let end = text.bytes().position(|b| !b.is_ascii_digit()).unwrap_or(text.len());
    Some((text[..end].parse().ok()?, &text[end..]))
}

pub(crate) fn parse_size(text: &str) -> Result<Size, String> {
    let bad = || format!("`{text}` is not a size; {SIZE_FORMS}");
    let (n, unit) = split(text).ok_or_else(bad)?;
    let shift = match unit {
        "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        _ => return Err(bad()),
    };
    n.checked_mul(1 << shift).map(Size).ok_or_else(bad)
}

/// A length of time as people write it.
///
/// # Errors
/// What is wrong, `; ` and the remedy.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    parse_time(text).map(|Time(t)| t)
}

pub(super) fn parse_time(text: &str) -> Result<Time, String> {
    let bad = || format!("`{text}` is not a length of time; {TIME_FORMS}");
    let (n, unit) = split(text).ok_or_else(bad)?;
    let micros = match unit {
        "us" => 1,
        "ms" => 1000,
        "s" => 1_000_000,
        "m" => 60 * 1_000_000,
        "h" => 3600 * 1_000_000,
        "d" => 24 * 3600 * 1_000_000,
        _ => return Err(bad()),
    };
    n.checked_mul(micros).map(|us| Time(Duration::from_micros(us))).ok_or_else(bad)
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Size, D::Error> {
        struct V;
        impl Visitor<'_> for V {
            type Value = Size;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a size such as \"4MiB\", or a number of bytes")
            }
            fn visit_i64<E: de::Error>(self, n: i64) -> Result<Size, E> {
                u64::try_from(n).map(Size).map_err(|_| E::custom(format!("{n} is less than nothing; {SIZE_FORMS}")))
            }
            fn visit_u64<E: de::Error>(self, n: u64) -> Result<Size, E> {
                Ok(Size(n))
            }
            fn visit_str<E: de::Error>(self, s: &str) -> Result<Size, E> {
                parse_size(s).map_err(E::custom)
            }
        }
        d.deserialize_any(V)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Time, D::Error> {
        struct V;
        impl Visitor<'_> for V {
            type Value = Time;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a length of time such as \"5ms\"")
            }
            // A bare number would leave the unit to guesswork.
            fn visit_i64<E: de::Error>(self, n: i64) -> Result<Time, E> {
                Err(E::custom(format!("{n} has no unit; {TIME_FORMS}")))
            }
            fn visit_str<E: de::Error>(self, s: &str) -> Result<Time, E> {
                parse_time(s).map_err(E::custom)
            }
        }
        d.deserialize_any(V)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in [("0B", 0), ("7B", 7), ("4KiB", 4096), ("4MiB", 4 << 20), ("3GiB", 3 << 30)] {
            assert_eq!(parse_size(text), Ok(Size(bytes)), "{text}");
        }
        for bad in [
            "",
            "4",
            "MiB",
            "4MB",
            "4M",
            "4mib",
            "4 MiB",
            "4MiB ",
            "-4MiB",
            "+4MiB",
            "1.5MiB",
            "4MiBs",
            "99999999999GiB",
            "٤MiB",
        ] {
            assert!(parse_size(bad).unwrap_err().contains("\"4MiB\""), "{bad}");
        }
    }

    #[test]
    fn times() {
        for (text, ms) in [("5ms", 5), ("2s", 2000), ("3m", 180_000), ("72h", 259_200_000), ("1d", 86_400_000)] {
            assert_eq!(parse_time(text), Ok(Time(Duration::from_millis(ms))), "{text}");
        }
        assert_eq!(parse_time("250us"), Ok(Time(Duration::from_micros(250))));
        for bad in ["", "5", "ms", "5 ms", "5min", "5S", "-5s", "0.5s", "1h30m", "99999999999999999d"] {
            assert!(parse_time(bad).unwrap_err().contains("\"72h\""), "{bad}");
        }
    }
}
