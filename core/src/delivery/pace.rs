//! A limit on how many events go out per second, shared by all shards.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Lets so many events through per second, evenly, with a burst of at most a tenth of that. Any thread may ask.
#[derive(Debug)]
pub struct Pace {
    /// What times are counted from.
    start: Instant,
    interval_ns: u64,
    burst_ns: u64,
    /// When the next event is due if none is let through early.
    next_ns: AtomicU64,
}

impl Pace {
    /// At most `per_second` events per second, from `start` on; at least one.
    pub fn new(per_second: u32, start: Instant) -> Pace {
        let interval_ns = 1_000_000_000 / u64::from(per_second.max(1));
        Pace { start, interval_ns, burst_ns: 100_000_000.max(interval_ns) - interval_ns, next_ns: AtomicU64::new(0) }
    }

    fn since_start(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.start).as_nanos()).unwrap_or(u64::MAX)
    }

    /// Lets one event through, or says when to ask again.
    ///
    /// # Errors
    /// The time at which there is room.
    pub fn take(&self, now: Instant) -> Result<(), Instant> {
        let now_ns = self.since_start(now);
        let mut next = self.next_ns.load(Ordering::Relaxed);
        loop {
            // What was not used in time is lost.
            let due = next.max(now_ns.saturating_sub(self.burst_ns));
            if due > now_ns {
                return Err(self.start + Duration::from_nanos(due));
            }
            match self.next_ns.compare_exchange_weak(next, due + self.interval_ns, Ordering::Relaxed, Ordering::Relaxed)
            {
                Ok(_) => return Ok(()),
                Err(other) => next = other,
            }
        }
    }

    /// When there is room for an event; a time that has come if there is room now.
    pub fn ready_at(&self) -> Instant {
        self.start + Duration::from_nanos(self.next_ns.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_second_has_more_than_its_share_and_a_burst(
            rate in 1u32..5000,
            steps in proptest::collection::vec(0u64..50_000, 1..2000),
        ) {
            let start = Instant::now();
            let pace = Pace::new(rate, start);
            let mut now_us = 0;
            let mut taken: Vec<u64> = Vec::new();
            for step in steps {
                now_us += step;
                let now = start + Duration::from_micros(now_us);
                match pace.take(now) {
                    Ok(()) => taken.push(now_us),
                    Err(at) => prop_assert!(at > now && at <= now + Duration::from_secs(1)),
                }
                let last_second = taken.iter().filter(|t| **t + 1_000_000 > now_us).count() as u64;
                prop_assert!(last_second <= u64::from(rate) + u64::from(rate) / 10 + 1);
            }
        }
    }

    #[test]
    fn a_steady_stream_has_the_whole_rate() {
        let start = Instant::now();
        let pace = Pace::new(100, start);
        let taken = (0..10_000).filter(|ms| pace.take(start + Duration::from_millis(*ms)).is_ok()).count();
        assert!((1000..=1011).contains(&taken), "{taken}");
        assert!(pace.ready_at() <= start + Duration::from_secs(11));
    }
}
