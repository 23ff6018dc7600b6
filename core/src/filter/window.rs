//! Windows of time that come again: hours of the day, on some days of the week.

use crate::error::{Error, Result};

const MINUTE_NS: u64 = 60_000_000_000;
const DAY_MINUTES: u64 = 24 * 60;

/// The minutes of a day from `from` until before `to`, on some days of the week, in UTC shifted by an offset. A window
/// whose end is not after its beginning runs past midnight and belongs to the day it begins on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Window {
    /// Bit 0 is Monday, bit 6 is Sunday.
    days: u8,
    from: u16,
    to: u16,
    offset: i16,
}

impl Window {
    /// The window from minute `from` of the day until before minute `to`, on the days whose bits are set (bit 0 is Monday).
    /// `offset` is the zone's distance from UTC in minutes.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidConfig`] for no days, minutes beyond the day, or an offset of more than a day.
    pub fn new(days: u8, from: u16, to: u16, offset: i16) -> Result<Window> {
        if days == 0 || days > 0x7f {
            return Err(Error::invalid_config("the window has no day of the week").remedy("name days from mon to sun"));
        }
        if u64::from(from) >= DAY_MINUTES || u64::from(to) > DAY_MINUTES {
            return Err(Error::invalid_config("a time of the window is not within a day")
                .remedy("write times as HH:MM, from 00:00 to 24:00"));
        }
        if u64::from(offset.unsigned_abs()) >= DAY_MINUTES {
            return Err(Error::invalid_config("the offset from UTC is more than a day").remedy("write it as +HH:MM"));
        }
        Ok(Window { days, from, to, offset })
    }

    /// Days, beginning, end and offset, as given.
    pub fn parts(&self) -> (u8, u16, u16, i16) {
        (self.days, self.from, self.to, self.offset)
    }

    /// Whether the time is within, in nanoseconds since the Unix epoch.
    pub fn contains(&self, time_ns: u64) -> bool {
        // The day before the epoch, so that no offset leads below zero; it was a Wednesday.
        let minutes = time_ns / MINUTE_NS + DAY_MINUTES;
        let minutes = minutes.saturating_add_signed(self.offset.into());
        let (day, minute) = (minutes / DAY_MINUTES, (minutes % DAY_MINUTES) as u16);
        let on = |day: u64| self.days & (1 << ((day + 2) % 7)) != 0;
        if self.from < self.to {
            on(day) && (self.from..self.to).contains(&minute)
        } else {
            (on(day) && minute >= self.from) || (on(day + 6) && minute < self.to)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> u64 {
        text.parse::<jiff::Timestamp>().unwrap().as_nanosecond() as u64
    }

    #[test]
    fn hours_on_days_of_the_week() {
        // 2024-01-01 was a Monday.
        let office = Window::new(0b001_1111, 9 * 60, 17 * 60, 0).unwrap();
        assert!(office.contains(at("2024-01-01T09:00:00Z")) && office.contains(at("2024-01-05T16:59:59Z")));
        assert!(!office.contains(at("2024-01-01T08:59:59Z")) && !office.contains(at("2024-01-01T17:00:00Z")));
        assert!(!office.contains(at("2024-01-06T12:00:00Z")) && !office.contains(at("2024-01-07T12:00:00Z")));
    }

    #[test]
    fn past_midnight_it_belongs_to_the_day_it_began_on() {
        let night = Window::new(0b000_0001, 22 * 60, 6 * 60, 0).unwrap();
        assert!(night.contains(at("2024-01-01T22:00:00Z")) && night.contains(at("2024-01-02T05:59:00Z")));
        assert!(!night.contains(at("2024-01-01T05:00:00Z")) && !night.contains(at("2024-01-02T22:00:00Z")));
        let always = Window::new(0x7f, 0, 0, 0).unwrap();
        assert!(always.contains(at("2024-01-02T00:00:00Z")) && always.contains(at("2024-01-02T23:59:59Z")));
    }

    #[test]
    fn an_offset_moves_the_day() {
        let monday = Window::new(0b000_0001, 0, 1440, 120).unwrap();
        assert!(monday.contains(at("2023-12-31T22:00:00Z")) && !monday.contains(at("2024-01-01T22:00:00Z")));
        let west = Window::new(0b000_1000, 0, 60, -720).unwrap();
        assert!(west.contains(at("1970-01-01T12:30:00Z")), "the epoch was a Thursday");
        assert!(!west.contains(0));
    }

    #[test]
    fn what_is_no_window_is_refused() {
        assert!(Window::new(0, 0, 10, 0).is_err() && Window::new(0x80, 0, 10, 0).is_err());
        assert!(Window::new(1, 1440, 10, 0).is_err() && Window::new(1, 0, 1441, 0).is_err());
        assert!(Window::new(1, 0, 10, 1440).is_err());
    }
}
