//! How much may wait for a destination: the decisions, without the counting.

use crate::event::Priority;
use crate::rule::QueueLimits;

/// What waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Events.
    pub events: u64,
    /// Bytes of their records.
    pub bytes: u64,
}

impl Load {
    /// Whether nothing is left.
    pub fn is_nothing(&self) -> bool {
        self.events == 0 && self.bytes == 0
    }
}

/// The limits of one queue.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// At most so many events, if there is a limit.
    pub events_max: Option<u64>,
    /// At most so many bytes.
    pub bytes_max: u64,
    /// The share of a limit from which on the queue is under pressure.
    pub warn_at: f64,
}

impl From<&QueueLimits> for Limits {
    fn from(q: &QueueLimits) -> Limits {
        Limits { events_max: q.events_max, bytes_max: q.bytes_max, warn_at: q.warn_at }
    }
}

/// How full a queue is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Level {
    /// All is well.
    #[default]
    Free = 0,
    /// The warning threshold is reached.
    Pressure = 1,
    /// A limit is reached.
    Full = 2,
    /// A limit is exceeded by a tenth.
    Over = 3,
}

/// By how much a queue may be over its limit for events of high priority.
const HIGH_RESERVE: f64 = 1.1;
/// A queue that sheds goes below its limit by so large a part of it, so that it need not shed again at once.
const MARGIN: u64 = 64;
/// The warning ends when the load has gone down to this part of the threshold.
const WARN_ENDS: f64 = 0.9;

impl Level {
    /// The level of a number, as stored.
    pub fn from_u8(n: u8) -> Level {
        match n {
            0 => Level::Free,
            1 => Level::Pressure,
            2 => Level::Full,
            _ => Level::Over,
        }
    }

    /// Whether a new event of this priority has no place in the queue.
    pub fn excludes(self, priority: Priority) -> bool {
        self >= match priority {
            Priority::Low => Level::Pressure,
            Priority::Normal => Level::Full,
            Priority::High => Level::Over,
        }
    }
}

impl Limits {
    /// The fullest limit's share, 1 at the limit.
    fn share(&self, load: Load) -> f64 {
        let bytes = load.bytes as f64 / self.bytes_max.max(1) as f64;
        self.events_max.map_or(bytes, |max| bytes.max(load.events as f64 / max.max(1) as f64))
    }

    /// How full the queue is.
    pub fn level(&self, load: Load) -> Level {
        match self.share(load) {
            s if s >= HIGH_RESERVE => Level::Over,
            s if s >= 1.0 => Level::Full,
            s if s >= self.warn_at => Level::Pressure,
            _ => Level::Free,
        }
    }

    /// Whether a warning holds, given whether it held before: it begins at the threshold, and ends somewhat below.
    pub fn warns(&self, load: Load, warned: bool) -> bool {
        self.share(load) >= if warned { self.warn_at * WARN_ENDS } else { self.warn_at }
    }

    /// What one of `shards` shards is to shed of its `own` part of what waits in all. Nothing while the queue is within its
    /// limits; then whoever holds more than an equal share sheds, so that what waits on one shard is not held against the
    /// others.
    pub fn excess(&self, own: Load, total: Load, shards: u64) -> Load {
        let over = |own: u64, total: u64, max: u64| {
            if total <= max {
                return 0;
            }
            let share = max / shards.max(1);
            (total - (max - max / MARGIN)).min(own.saturating_sub(share - share / MARGIN))
        };
        Load {
            events: self.events_max.map_or(0, |max| over(own.events, total.events, max)),
            bytes: over(own.bytes, total.bytes, self.bytes_max),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn limits(events: u64, bytes: u64) -> Limits {
        Limits { events_max: Some(events), bytes_max: bytes, warn_at: 0.8 }
    }

    fn load(events: u64, bytes: u64) -> Load {
        Load { events, bytes }
    }

    #[test]
    fn the_fullest_limit_counts() {
        let l = limits(100, 1000);
        for (load, level) in [
            (load(0, 0), Level::Free),
            (load(79, 799), Level::Free),
            (load(80, 0), Level::Pressure),
            (load(0, 800), Level::Pressure),
            (load(99, 999), Level::Pressure),
            (load(100, 0), Level::Full),
            (load(0, 1000), Level::Full),
            (load(0, 1100), Level::Over),
            (load(u64::MAX, 0), Level::Over),
        ] {
            assert_eq!(l.level(load), level, "{load:?}");
        }
        let l = Limits { events_max: None, ..l };
        assert_eq!(l.level(load(u64::MAX, 10)), Level::Free);
    }

    #[test]
    fn low_priority_stands_back_first_and_high_last() {
        use Level::*;
        use Priority::*;
        let out = |level: Level| [Low, Normal, High].map(|p| level.excludes(p));
        assert_eq!(out(Free), [false; 3]);
        assert_eq!(out(Pressure), [true, false, false]);
        assert_eq!(out(Full), [true, true, false]);
        assert_eq!(out(Over), [true; 3]);
    }

    #[test]
    fn a_queue_of_three_takes_three_and_one_more_of_high_priority() {
        let l = limits(3, 1 << 20);
        let takes = |waiting: u64, p: Priority| !l.level(load(waiting, 0)).excludes(p);
        assert!(takes(2, Priority::Normal) && !takes(3, Priority::Normal));
        assert!(takes(3, Priority::High) && !takes(4, Priority::High));
        assert!(takes(2, Priority::Low) && !takes(3, Priority::Low));
        assert_eq!(l.excess(load(5, 0), load(5, 0), 1), load(2, 0));
        assert_eq!(l.excess(load(3, 0), load(3, 0), 1), load(0, 0));
    }

    #[test]
    fn a_warning_does_not_flicker() {
        let l = limits(100, 1000);
        let mut warned = false;
        let mut changes = 0;
        for n in [79, 80, 79, 80, 79, 73, 72, 71, 79, 80] {
            let now = l.warns(load(n, 0), warned);
            changes += usize::from(now != warned);
            warned = now;
        }
        assert_eq!((warned, changes), (true, 3));
    }

    proptest! {
        /// Whatever way the load is spread, shedding brings it below the limit, and nobody sheds who holds little.
        #[test]
        fn shedding_ends_within_the_limit(
            own in proptest::collection::vec((0u64..5000, 0u64..500_000), 1..9),
            events in 1u64..10_000,
            bytes in 4096u64..1_000_000,
        ) {
            let l = limits(events, bytes);
            let shards = own.len() as u64;
            let mut own: Vec<Load> = own.into_iter().map(|(e, b)| load(e, b)).collect();
            let total = |own: &[Load]| load(own.iter().map(|l| l.events).sum(), own.iter().map(|l| l.bytes).sum());
            for round in 0.. {
                prop_assert!(round < 1000, "it never ends");
                let before = total(&own);
                for i in 0..own.len() {
                    let cut = l.excess(own[i], total(&own), shards);
                    if !cut.is_nothing() {
                        prop_assert!(before.events > events || before.bytes > bytes);
                        prop_assert!(own[i].events >= cut.events && own[i].bytes >= cut.bytes);
                        own[i].events -= cut.events;
                        own[i].bytes -= cut.bytes;
                    }
                }
                let after = total(&own);
                if after.events <= events && after.bytes <= bytes {
                    break;
                }
                prop_assert!(after != before, "stuck at {after:?} of {events} and {bytes}");
            }
        }
    }
}
