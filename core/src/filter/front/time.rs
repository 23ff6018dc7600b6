//! Times in filters: RFC 3339, the beginning of one, and the hours of a day.

use jiff::Timestamp;
use jiff::civil::DateTime;

use crate::filter::number::{Bound, Number, Range};

/// Nanoseconds since the Unix epoch of an RFC 3339 time. Times before the epoch are negative.
pub(super) fn parse_time(text: &str) -> Option<Number> {
    let time: Timestamp = text.parse().ok()?;
    Some(Number::Int(time.as_nanosecond()))
}

/// The RFC 3339 time of a number that [`parse_time`] gives.
pub(super) fn time_text(n: Number) -> Option<String> {
    let Number::Int(ns) = n else { return None };
    Timestamp::from_nanosecond(ns).ok().map(|t| t.to_string())
}

/// The times whose form `2026-05-04T10:20:30Z` (or with milliseconds) begins with the text, if those lie side by side: the
/// text ends behind the year, the month, the day, the hour, the minute or the second.
pub(super) fn times_that_begin_with(text: &str) -> Option<Range> {
    const FORM: &str = "0000-01-01T00:00:00";
    if !text.is_ascii() {
        return None;
    }
    // A separator at the end says nothing that its absence does not.
    let whole = text.strip_suffix(['-', 'T', ':', '.', 'Z']).unwrap_or(text);
    let cut = &text[whole.len()..];
    let next = FORM.as_bytes().get(whole.len()).copied().map(char::from);
    let fits = match cut.chars().next() {
        None => true,
        Some('.' | 'Z') => whole.len() == FORM.len(),
        cut => cut == next,
    };
    if !fits || !matches!(whole.len(), 4 | 7 | 10 | 13 | 16 | 19) {
        return None;
    }
    let shape = |b: u8| if b.is_ascii_digit() { b'0' } else { b };
    if !whole.bytes().map(shape).eq(FORM.bytes().take(whole.len()).map(shape)) {
        return None;
    }
    let start: DateTime = format!("{whole}{}", &FORM[whole.len()..]).parse().ok()?;
    let span = match whole.len() {
        4 => jiff::Span::new().years(1),
        7 => jiff::Span::new().months(1),
        10 => jiff::Span::new().days(1),
        13 => jiff::Span::new().hours(1),
        16 => jiff::Span::new().minutes(1),
        _ => jiff::Span::new().seconds(1),
    };
    let end = start.checked_add(span).ok()?;
    let utc = |t: DateTime| parse_time(&format!("{t}Z"));
    Some(Range { low: Bound::Included(utc(start)?), high: Bound::Excluded(utc(end)?) })
}

/// `HH:MM` in minutes, up to 24:00.
pub(super) fn parse_minutes(text: &str) -> Option<u16> {
    let (hours, minutes) = text.split_once(':')?;
    let two = |s: &str| (s.len() == 2).then(|| s.parse::<u16>().ok()).flatten();
    // `parse` takes a sign.
    if !text.bytes().all(|b| b.is_ascii_digit() || b == b':') {
        return None;
    }
    let (hours, minutes) = (two(hours)?, two(minutes)?);
    let all = hours * 60 + minutes;
    (minutes < 60 && all <= 24 * 60).then_some(all)
}

/// `HH:MM`.
pub(super) fn minutes_text(minutes: u16) -> String {
    format!("{:02}:{:02}", minutes / 60, minutes % 60)
}

/// `+HH:MM`, `-HH:MM` or `Z` in minutes.
pub(super) fn parse_offset(text: &str) -> Option<i16> {
    if text == "Z" {
        return Some(0);
    }
    let minutes = parse_minutes(text.get(1..)?)? as i16;
    match text.as_bytes()[0] {
        b'+' => Some(minutes),
        b'-' => Some(-minutes),
        _ => None,
    }
}

/// `+HH:MM` or `-HH:MM`.
pub(super) fn offset_text(minutes: i16) -> String {
    format!("{}{}", if minutes < 0 { '-' } else { '+' }, minutes_text(minutes.unsigned_abs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ns(text: &str) -> Number {
        parse_time(text).unwrap()
    }

    #[test]
    fn the_beginning_of_a_time_is_a_range() {
        for (text, from, until) in [
            ("2024", "2024-01-01T00:00:00Z", "2025-01-01T00:00:00Z"),
            ("2024-02", "2024-02-01T00:00:00Z", "2024-03-01T00:00:00Z"),
            ("2024-02-", "2024-02-01T00:00:00Z", "2024-03-01T00:00:00Z"),
            ("2024-12-31", "2024-12-31T00:00:00Z", "2025-01-01T00:00:00Z"),
            ("2024-12-31T23", "2024-12-31T23:00:00Z", "2025-01-01T00:00:00Z"),
            ("2024-12-31T23:59", "2024-12-31T23:59:00Z", "2025-01-01T00:00:00Z"),
            ("2024-12-31T23:59:58Z", "2024-12-31T23:59:58Z", "2024-12-31T23:59:59Z"),
        ] {
            let range = times_that_begin_with(text).unwrap_or_else(|| panic!("{text}"));
            assert_eq!(range, Range { low: Bound::Included(ns(from)), high: Bound::Excluded(ns(until)) }, "{text}");
        }
    }

    #[test]
    fn what_is_no_beginning_of_a_time_is_refused() {
        for text in [
            "",
            "2",
            "202",
            "2024-1",
            "2024-13",
            "2024-02-30",
            "2024T",
            "2024-02-01Z",
            "20240",
            "x024",
            "2024-02-01T25",
            "२०२४",
        ] {
            assert!(times_that_begin_with(text).is_none(), "{text}");
        }
    }

    #[test]
    fn hours_and_offsets_come_back() {
        for (text, minutes) in [("00:00", 0), ("09:05", 545), ("24:00", 1440)] {
            assert_eq!((parse_minutes(text), minutes_text(minutes).as_str()), (Some(minutes), text));
        }
        for text in ["", "9:00", "24:01", "10:60", "+1:00", "10", "10:00:00", "ab:cd"] {
            assert!(parse_minutes(text).is_none(), "{text}");
        }
        for (text, minutes) in [("+02:00", 120), ("-09:30", -570), ("+00:00", 0)] {
            assert_eq!((parse_offset(text), offset_text(minutes).as_str()), (Some(minutes), text));
        }
        for text in ["", "02:00", "é2:00", "+2", "UTC"] {
            assert!(parse_offset(text).is_none(), "{text}");
        }
    }
}
