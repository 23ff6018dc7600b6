//! `Retry-After` and the dates of HTTP (RFC 9110, 5.6.7 and 10.2.3).

use std::time::Duration;

/// The longest pause that a `Retry-After` can ask for; what exceeds it counts as this.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(86_400);

/// When the endpoint wants to be asked again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryAfter {
    /// After this many seconds, at most [`RETRY_AFTER_MAX`].
    Seconds(u64),
    /// At this time, in seconds since the Unix epoch, as the endpoint's clock has it.
    At(i64),
}

impl RetryAfter {
    /// Reads a field value: a whole number of seconds, or one of the three date forms.
    ///
    /// A number too large is taken as [`RETRY_AFTER_MAX`]. Anything else (negative, fractional, empty, not a date) is
    /// `None`: such a header is treated as absent.
    pub fn parse(value: &[u8]) -> Option<Self> {
        let value = value.trim_ascii();
        if value.is_empty() {
            return None;
        }
        if !value.iter().all(u8::is_ascii_digit) {
            return parse_http_date(value).map(RetryAfter::At);
        }
        let max = RETRY_AFTER_MAX.as_secs();
        let seconds = value.iter().fold(0u64, |n, d| n.saturating_mul(10).saturating_add(u64::from(d - b'0')));
        Some(RetryAfter::Seconds(seconds.min(max)))
    }

    /// The pause from `now_unix_s` on: zero for a date gone by, at most [`RETRY_AFTER_MAX`].
    pub fn wait(self, now_unix_s: i64) -> Duration {
        let seconds = match self {
            RetryAfter::Seconds(s) => s,
            RetryAfter::At(at) => u64::try_from(at.saturating_sub(now_unix_s)).unwrap_or(0),
        };
        Duration::from_secs(seconds).min(RETRY_AFTER_MAX)
    }
}

/// Reads a date of HTTP into seconds since the Unix epoch: `Sun, 06 Nov 1994 08:49:37 GMT`, and the obsolete
/// `Sunday, 06-Nov-94 08:49:37 GMT` and `Sun Nov  6 08:49:37 1994`.
///
/// The day's name is not compared with the date. Two-digit years below 70 are of this century.
pub fn parse_http_date(value: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(value).ok()?;
    let mut words = text.split_ascii_whitespace();
    let first = words.next()?;
    let (day, month, year, time) = if first.ends_with(',') {
        let second = words.next()?;
        if let Some((day, rest)) = second.split_once('-') {
            let (month, year) = rest.split_once('-')?;
            let year = number(year, 2)?;
            (number(day, 2)?, month, if year < 70 { 2000 + year } else { 1900 + year }, words.next()?)
        } else {
            (number(second, 2)?, words.next()?, number(words.next()?, 4)?, words.next()?)
        }
    } else {
        let (month, day, time) = (words.next()?, words.next()?, words.next()?);
        let year = number(words.next()?, 4)?;
        return words.next().is_none().then(|| unix_seconds(number(day, day.len().min(2))?, month, year, time))?;
    };
    if words.next()? != "GMT" || words.next().is_some() {
        return None;
    }
    unix_seconds(day, month, year, time)
}

fn unix_seconds(day: i64, month: &str, year: i64, time: &str) -> Option<i64> {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let month = MONTHS.iter().position(|m| *m == month)? as i64 + 1;
    let mut parts = time.split(':');
    let mut part = || number(parts.next()?, 2);
    let (hour, minute, second) = (part()?, part()?, part()?);
    // 60 is a leap second.
    if parts.next().is_some() || hour > 23 || minute > 59 || second > 60 || !(1..=31).contains(&day) {
        return None;
    }
    Some(days_from_civil(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second)
}

fn number(text: &str, digits: usize) -> Option<i64> {
    (!text.is_empty() && text.len() == digits && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok())?
}

/// Days between 1970-01-01 and a date of the Gregorian calendar, with years counted from March so that the leap day
/// is the last of its year.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}
