//! Identity and order: the id of an event, and the sequencer of its record.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, ErrorKind};

/// The id of an event, unique for ever: no two events, of any run of any engine, share one.
///
/// Written as `incarnation-shard-sequence` in upper-case hex. It has no dot, as Standard Webhooks asks of an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct EventId {
    /// Drawn at random each time a data directory is opened.
    pub incarnation: u64,
    /// The shard.
    pub shard: u16,
    /// The event's place in the shard's log.
    pub sequence: u64,
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016X}-{:04X}-{:016X}", self.incarnation, self.shard, self.sequence)
    }
}

impl FromStr for EventId {
    type Err = Error;

    /// Reads an id as it is written, in either case.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`].
    fn from_str(text: &str) -> Result<EventId, Error> {
        let part = |s: Option<&str>, digits: usize| {
            let s = s.filter(|s| s.len() == digits && s.bytes().all(|b| b.is_ascii_hexdigit()))?;
            u64::from_str_radix(s, 16).ok()
        };
        let mut parts = text.split('-');
        match (part(parts.next(), 16), part(parts.next(), 4), part(parts.next(), 16), parts.next()) {
            (Some(incarnation), Some(shard), Some(sequence), None) => {
                Ok(EventId { incarnation, shard: shard as u16, sequence })
            }
            _ => Err(Error::new(ErrorKind::InvalidArgument, format!("`{}` is no event id", text.escape_debug()))
                .remedy("an id is 16, 4 and 16 hex digits with hyphens between")),
        }
    }
}

/// The order of events of one resource key: 32 upper-case hex digits, compared as text, as numbers, or after padding
/// on either side, with the same result.
///
/// 64 bits of hybrid logical clock (nanoseconds since the Unix epoch that never step back), 32 bits that count within
/// one nanosecond, 32 bits of the writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Sequencer {
    /// Nanoseconds since the Unix epoch, never lower than any given before by the same data directory.
    pub clock_ns: u64,
    /// Counts events with the same `clock_ns`.
    pub tie: u32,
    /// The data directory's writer id.
    pub writer: u32,
}

impl fmt::Display for Sequencer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016X}{:08X}{:08X}", self.clock_ns, self.tie, self.writer)
    }
}

/// A hybrid logical clock: follows the wall clock, never steps back.
#[derive(Clone, Copy, Debug, Default)]
pub struct HybridClock {
    last_ns: u64,
    tie: u32,
}

impl HybridClock {
    /// A clock whose next reading is above `floor_ns`.
    pub fn starting_above(floor_ns: u64) -> Self {
        HybridClock { last_ns: floor_ns, tie: u32::MAX }
    }

    /// The next reading, strictly above every earlier one, given the wall clock.
    pub fn tick(&mut self, wall_ns: u64) -> (u64, u32) {
        if wall_ns > self.last_ns {
            self.last_ns = wall_ns;
            self.tie = 0;
        } else if let Some(tie) = self.tie.checked_add(1) {
            self.tie = tie;
        } else {
            self.last_ns += 1;
            self.tie = 0;
        }
        (self.last_ns, self.tie)
    }

    /// The last reading's nanoseconds.
    pub fn last_ns(&self) -> u64 {
        self.last_ns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clock_never_steps_back() {
        let mut c = HybridClock::starting_above(1_000);
        let mut last = (1_000, u32::MAX);
        for wall in [5, 2_000, 2_000, 1_999, 0, 2_001, u64::MAX / 2, 3] {
            let t = c.tick(wall);
            assert!(t > last, "{t:?} after {last:?}");
            last = t;
        }
    }

    #[test]
    fn clock_passes_a_full_tie_counter() {
        let mut c = HybridClock { last_ns: 7, tie: u32::MAX - 1 };
        assert_eq!(c.tick(7), (7, u32::MAX));
        assert_eq!(c.tick(7), (8, 0));
    }

    #[test]
    fn sequencer_is_fixed_width_upper_hex_and_sorts_as_text() {
        let a = Sequencer { clock_ns: 255, tie: 1, writer: 0xABCD };
        let b = Sequencer { clock_ns: 256, tie: 0, writer: 0 };
        assert_eq!(a.to_string(), "00000000000000FF000000010000ABCD");
        assert_eq!(a.to_string().len(), 32);
        assert!(a.to_string() < b.to_string() && a < b);
    }

    #[test]
    fn event_id_has_no_dot() {
        let id = EventId { incarnation: 0xFEED, shard: 3, sequence: 12 }.to_string();
        assert_eq!(id, "000000000000FEED-0003-000000000000000C");
        assert!(!id.contains('.'));
    }

    #[test]
    fn event_ids_are_read_as_they_are_written_and_nothing_else_is() {
        let id = EventId { incarnation: u64::MAX, shard: 0xABC, sequence: 1 };
        assert_eq!(id.to_string().parse::<EventId>().unwrap(), id);
        assert_eq!(id.to_string().to_lowercase().parse::<EventId>().unwrap(), id);
        let good = id.to_string();
        for bad in ["", "-", "--", &good[1..], &good[..good.len() - 1], &format!("{good}-"), &good.replace('A', "+")] {
            assert_eq!(bad.parse::<EventId>().unwrap_err().kind(), ErrorKind::InvalidArgument, "{bad}");
        }
    }
}
