//! A rate that several threads keep together.

use std::sync::atomic::{AtomicU64, Ordering};

/// Places on a time line, evenly spaced; whoever wants to do something reserves the next ones. Times are nanoseconds from
/// any start that all callers share.
#[derive(Debug)]
pub struct Pace {
    interval_ns: u64,
    next_ns: AtomicU64,
}

impl Pace {
    /// So many a second, at least one.
    pub fn per_second(rate: u32) -> Pace {
        Pace { interval_ns: 1_000_000_000 / u64::from(rate.max(1)), next_ns: AtomicU64::new(0) }
    }

    /// Reserves `n` places and returns when they may be used. Time in which nobody reserved anything is not made up for.
    pub fn reserve(&self, n: u64, now_ns: u64) -> u64 {
        let mut next = self.next_ns.load(Ordering::Relaxed);
        loop {
            let start = next.max(now_ns);
            let after = start.saturating_add(n.saturating_mul(self.interval_ns));
            match self.next_ns.compare_exchange_weak(next, after, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return start,
                Err(now) => next = now,
            }
        }
    }

    /// How many places one reservation should take, so that they are used in small steps: a tenth of a second's worth, at
    /// least one.
    pub fn step(&self) -> u64 {
        (100_000_000 / self.interval_ns.max(1)).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_evenly_spaced_and_idle_time_is_not_made_up_for() {
        let p = Pace::per_second(10);
        assert_eq!([p.reserve(1, 0), p.reserve(2, 0), p.reserve(1, 0)], [0, 100_000_000, 300_000_000]);
        assert_eq!([p.reserve(1, 5_000_000_000), p.reserve(1, 0)], [5_000_000_000, 5_100_000_000]);
        assert_eq!((p.step(), Pace::per_second(1000).step(), Pace::per_second(0).step()), (1, 100, 1));
    }

    #[test]
    fn threads_share_one_rate() {
        let p = Pace::per_second(1000);
        let mut starts: Vec<u64> = std::thread::scope(|s| {
            let threads: Vec<_> =
                (0..4).map(|_| s.spawn(|| (0..500).map(|_| p.reserve(1, 0)).collect::<Vec<_>>())).collect();
            threads.into_iter().flat_map(|t| t.join().unwrap()).collect()
        });
        starts.sort_unstable();
        assert_eq!(starts, (0..2000).map(|n| n * 1_000_000).collect::<Vec<_>>());
    }
}
