//! What one bucket may take from the others: of a shard's ring, and of the time.
//!
//! Publishers count what they bring into the ring, the shard what it takes out, in a table of fixed size by the bucket's
//! hash. Made only if the configuration asks for it: without it publishing pays nothing.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::config::FairnessConfig;
use crate::driver;

const PLACES: usize = 4096;

/// Why an event has to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unfair {
    /// Its bucket has its share of the ring.
    Share,
    /// Its bucket publishes too fast; it may try again after this time.
    Rate(Duration),
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Fairness {
    separator: Option<String>,
    /// Bytes of a ring that one bucket may fill, and per shard and place the bytes that it fills.
    share_bytes: Option<u64>,
    filled: Vec<Box<[AtomicU64]>>,
    /// Per place, when its next event would be due if it kept the rate: nanoseconds since `begun`.
    rate: Option<Rate>,
    due: Box<[AtomicU64]>,
    begun: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Rate {
    interval_ns: u64,
    burst_ns: u64,
}

impl Rate {
    /// When the event after one at `now_ns` would be due, given when this one was; or how long it has to wait.
    fn next(self, due_ns: u64, now_ns: u64) -> Result<u64, u64> {
        let due = due_ns.max(now_ns);
        let ahead = due - now_ns;
        if ahead > self.burst_ns { Err(ahead - self.burst_ns) } else { Ok(due + self.interval_ns) }
    }
}

fn table(there: bool) -> Box<[AtomicU64]> {
    (0..if there { PLACES } else { 0 }).map(|_| AtomicU64::new(0)).collect()
}

impl Fairness {
    /// `None` if nothing is asked for.
    pub(crate) fn new(config: &FairnessConfig, ring_bytes: usize, shards: usize) -> Option<Fairness> {
        if config.bucket_ring_share.is_none() && config.bucket_rate.is_none() {
            return None;
        }
        let share_bytes = config.bucket_ring_share.map(|share| (ring_bytes as f64 * share) as u64);
        let rate = config.bucket_rate.map(|rate| {
            let interval_ns = 1_000_000_000 / u64::from(rate.max(1));
            Rate { interval_ns, burst_ns: interval_ns * u64::from(config.bucket_burst.max(1) - 1) }
        });
        Some(Fairness {
            separator: config.tenant_separator.clone(),
            share_bytes,
            filled: (0..shards).map(|_| table(share_bytes.is_some())).collect(),
            rate,
            due: table(rate.is_some()),
            begun: driver::now(),
        })
    }

    fn place(&self, bucket: &str) -> usize {
        let tenant = match &self.separator {
            Some(s) => bucket.split_once(s.as_str()).map_or(bucket, |(tenant, _)| tenant),
            None => bucket,
        };
        xxhash_rust::xxh3::xxh3_64(tenant.as_bytes()) as usize % PLACES
    }

    /// Takes a place for an event of so many bytes, if its bucket may have one.
    pub(crate) fn enter(&self, shard: usize, bucket: &str, bytes: usize) -> Result<(), Unfair> {
        let place = self.place(bucket);
        let bytes = bytes as u64;
        let filled = self.share_bytes.and_then(|share| Some((share, self.filled.get(shard)?.get(place)?)));
        if let Some((share, filled)) = filled {
            let before = filled.fetch_add(bytes, Ordering::Relaxed);
            // A bucket that has nothing there may always bring one event, however large.
            if before > 0 && before + bytes > share {
                filled.fetch_sub(bytes, Ordering::Relaxed);
                return Err(Unfair::Share);
            }
        }
        if let Some((rate, due)) = self.rate.zip(self.due.get(place)) {
            let now_ns = driver::since(self.begun).as_nanos() as u64;
            let mut seen = due.load(Ordering::Relaxed);
            loop {
                let next = match rate.next(seen, now_ns) {
                    Ok(next) => next,
                    Err(wait_ns) => {
                        self.leave(shard, bucket, bytes as usize);
                        return Err(Unfair::Rate(Duration::from_nanos(wait_ns)));
                    }
                };
                match due.compare_exchange_weak(seen, next, Ordering::Relaxed, Ordering::Relaxed) {
                    Ok(_) => break,
                    Err(other) => seen = other,
                }
            }
        }
        Ok(())
    }

    /// An event comes into the ring whatever its bucket has there already.
    pub(crate) fn bring(&self, shard: usize, bucket: &str, bytes: usize) {
        if self.share_bytes.is_some()
            && let Some(filled) = self.filled.get(shard).and_then(|f| f.get(self.place(bucket)))
        {
            filled.fetch_add(bytes as u64, Ordering::Relaxed);
        }
    }

    /// An event has left the ring, or never came into it.
    pub(crate) fn leave(&self, shard: usize, bucket: &str, bytes: usize) {
        if self.share_bytes.is_some()
            && let Some(filled) = self.filled.get(shard).and_then(|f| f.get(self.place(bucket)))
        {
            filled.fetch_sub(bytes as u64, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(share: Option<f64>, rate: Option<u32>) -> FairnessConfig {
        FairnessConfig { bucket_ring_share: share, bucket_rate: rate, bucket_burst: 3, ..FairnessConfig::default() }
    }

    #[test]
    fn one_bucket_fills_its_share_and_no_more() {
        let f = Fairness::new(&config(Some(0.25), None), 4000, 2).unwrap();
        for _ in 0..4 {
            f.enter(0, "flood", 250).unwrap();
        }
        assert_eq!(f.enter(0, "flood", 1), Err(Unfair::Share));
        f.enter(1, "flood", 250).unwrap();
        f.enter(0, "other", 1000).unwrap();
        f.leave(0, "flood", 250);
        f.enter(0, "flood", 250).unwrap();
        // A large event is not shut out for ever.
        f.enter(0, "third", 9999).unwrap();
        assert_eq!(f.enter(0, "third", 1), Err(Unfair::Share));
    }

    #[test]
    fn buckets_of_one_tenant_are_one() {
        let c = FairnessConfig { tenant_separator: Some("-".into()), ..config(Some(0.25), None) };
        let f = Fairness::new(&c, 4000, 1).unwrap();
        f.enter(0, "acme-logs", 900).unwrap();
        assert_eq!(f.enter(0, "acme-data", 900), Err(Unfair::Share));
        f.enter(0, "acmedata", 900).unwrap();
    }

    #[test]
    fn a_rate_allows_a_burst_and_then_one_by_one() {
        let r = Rate { interval_ns: 100, burst_ns: 200 };
        let mut due = 0;
        for _ in 0..3 {
            due = r.next(due, 1000).unwrap();
        }
        assert_eq!((due, r.next(due, 1000)), (1300, Err(100)));
        assert_eq!(r.next(due, 1100), Ok(1400));
        assert_eq!(r.next(due, 9000), Ok(9100), "time in which nothing came allows no more than the burst");
    }

    #[test]
    fn a_bucket_that_is_too_fast_gives_its_place_in_the_ring_back() {
        let f = Fairness::new(&config(Some(1.0), Some(1)), 4000, 1).unwrap();
        for _ in 0..3 {
            f.enter(0, "b", 100).unwrap();
        }
        assert!(matches!(f.enter(0, "b", 100), Err(Unfair::Rate(d)) if d > Duration::ZERO));
        assert_eq!(f.filled[0][f.place("b")].load(Ordering::Relaxed), 300);
        f.enter(0, "c", 100).unwrap();
    }

    #[test]
    fn nothing_is_made_if_nothing_is_asked_for() {
        assert!(Fairness::new(&FairnessConfig::default(), 4000, 2).is_none());
    }
}
