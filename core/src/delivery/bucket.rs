//! A limit on how much goes out per second, for all shards together: a token bucket in one number.

use std::sync::atomic::{AtomicU64, Ordering};

/// Times are kept in sixteenths of a nanosecond, so that several tokens fit in one; 64 bits of that are 36 years.
const FRACTION: u32 = 4;

/// Lets tokens through at a rate, and at most `burst` at once. Any thread may ask; nobody waits.
///
/// Kept as the time at which the bucket will be full again (the generic cell rate algorithm of ATM).
#[derive(Debug, Default)]
pub struct Bucket {
    /// Time per token; 0 if there is no limit.
    interval: AtomicU64,
    /// Time that makes a full bucket.
    depth: AtomicU64,
    full_at: AtomicU64,
}

fn units(ns: u64) -> u64 {
    ns.saturating_mul(1 << FRACTION)
}

impl Bucket {
    /// Sets the rate, in tokens per second, and the tokens of a full bucket, at least one; `None` for no limit.
    pub fn set(&self, limit: Option<(f64, u64)>) {
        let (interval, depth) = match limit {
            None => (0, 0),
            Some((rate, burst)) => {
                // Rounded up, so that never more goes.
                let interval = (units(1_000_000_000) as f64 / rate.max(1e-6)).ceil().clamp(1.0, 1e18) as u64;
                (interval, interval.saturating_mul(burst.max(1)))
            }
        };
        self.interval.store(interval, Ordering::Relaxed);
        self.depth.store(depth, Ordering::Relaxed);
    }

    /// Whether there is a limit.
    pub fn is_limited(&self) -> bool {
        self.interval.load(Ordering::Relaxed) != 0
    }

    /// Takes up to `n` tokens, at least one of them, or, `whole`, all of them, which may be more than a full bucket has.
    ///
    /// # Errors
    /// The time (monotonic ns) at which it is worth asking again.
    pub fn take(&self, n: u64, whole: bool, now_ns: u64) -> Result<u64, u64> {
        let interval = self.interval.load(Ordering::Relaxed);
        if interval == 0 || n == 0 {
            return Ok(n);
        }
        let (depth, now) = (self.depth.load(Ordering::Relaxed), units(now_ns));
        let mut full_at = self.full_at.load(Ordering::Relaxed);
        loop {
            let start = full_at.max(now);
            let have = (now.saturating_add(depth)).saturating_sub(start) / interval;
            // What is more than the bucket holds goes when it is full.
            let need = if whole { n.min((depth / interval).max(1)) } else { 1 };
            if have < need {
                let at = start.saturating_add(interval.saturating_mul(need)).saturating_sub(depth);
                return Err(at.div_ceil(1 << FRACTION).max(now_ns + 1));
            }
            let taken = if whole { n } else { n.min(have) };
            let next = start.saturating_add(interval.saturating_mul(taken));
            match self.full_at.compare_exchange_weak(full_at, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Ok(taken),
                Err(other) => full_at = other,
            }
        }
    }

    /// What was taken and then was not used, or was used beyond what was taken.
    pub fn settle(&self, taken: u64, used: u64) {
        let interval = self.interval.load(Ordering::Relaxed);
        if interval == 0 || taken == used {
            return;
        }
        let by = interval.saturating_mul(taken.abs_diff(used));
        let change = |at: u64| if used > taken { at.saturating_add(by) } else { at.saturating_sub(by) };
        let _ = self.full_at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |at| Some(change(at)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::atomic::AtomicU64;

    const S: u64 = 1_000_000_000;

    fn bucket(rate: f64, burst: u64) -> Bucket {
        let b = Bucket::default();
        b.set(Some((rate, burst)));
        b
    }

    proptest! {
        #[test]
        fn no_time_has_more_than_its_share_and_a_burst(
            rate in 1u64..100_000,
            burst in 1u64..500,
            steps in proptest::collection::vec((0u64..50_000_000, 1u64..100), 1..500),
        ) {
            let b = bucket(rate as f64, burst);
            let mut now = 0;
            let mut taken: Vec<(u64, u64)> = Vec::new();
            for (step, n) in steps {
                now += step;
                match b.take(n, false, now) {
                    Ok(got) => {
                        prop_assert!((1..=n).contains(&got));
                        // Half of what was taken is given back.
                        b.settle(got, got - got / 2);
                        taken.push((now, got - got / 2));
                    }
                    Err(at) => {
                        prop_assert!(at > now && at <= now + S / rate + 2);
                        prop_assert!(b.take(1, false, at).is_ok());
                        taken.push((at, 1));
                        now = at;
                    }
                }
            }
            for (i, (from, _)) in taken.iter().enumerate() {
                let mut sum = 0;
                for (to, n) in &taken[i..] {
                    sum += n;
                    let most = ((to - from) as f64 / S as f64 * rate as f64) as u64 + burst + 1;
                    prop_assert!(sum <= most, "{sum} in {} ns, at most {most}", to - from);
                }
            }
        }
    }

    #[test]
    fn the_whole_rate_is_there_for_who_asks_in_time() {
        let b = bucket(250.0, 10);
        let (mut now, mut sum) = (0, 0);
        while now < 100 * S {
            match b.take(7, false, now) {
                Ok(n) => sum += n,
                Err(at) => now = at,
            }
        }
        assert!((25_000..=25_011).contains(&sum), "{sum}");
    }

    #[test]
    fn what_is_larger_than_the_bucket_goes_when_it_is_full_and_is_paid_for_after() {
        let b = bucket(10.0, 5);
        assert_eq!(b.take(50, true, 0), Ok(50));
        let Err(at) = b.take(1, true, 0) else { panic!("nothing is left") };
        assert!((4_600_000_000..=4_600_000_100).contains(&at), "{at}");
        assert_eq!(bucket(10.0, 5).take(3, true, 0), Ok(3));
        let unlimited = Bucket::default();
        assert_eq!(unlimited.take(u64::MAX, true, 0), Ok(u64::MAX));
    }

    #[test]
    fn shards_together_never_have_more_than_one_of_them_might() {
        for shards in [1, 2, 4] {
            let b = bucket(5000.0, 100);
            let clock = AtomicU64::new(0);
            let sum = AtomicU64::new(0);
            std::thread::scope(|scope| {
                for _ in 0..shards {
                    scope.spawn(|| {
                        loop {
                            let now = clock.fetch_add(10_000, Ordering::Relaxed);
                            if now >= 10 * S {
                                break;
                            }
                            if let Ok(n) = b.take(20, false, now) {
                                sum.fetch_add(n, Ordering::Relaxed);
                            }
                        }
                    });
                }
            });
            let sum = sum.into_inner();
            assert!((45_000..=50_101).contains(&sum), "{shards}: {sum}");
        }
    }
}
