//! What a shard counts.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::lock::Mutex;
use crate::log::losses::LossReason;

/// A counter or gauge that one thread writes and any thread reads.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    /// Adds, on the one thread that writes.
    pub(crate) fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    /// Adds, on any thread.
    pub(crate) fn add_shared(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// Takes away, on any thread, what the same thread or another has added before.
    pub(crate) fn sub_shared(&self, n: u64) {
        self.0.fetch_sub(n, Ordering::Relaxed);
    }

    pub(crate) fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Counters of one shard.
#[derive(Debug, Default)]
pub(crate) struct ShardStats {
    pub(crate) accepted: Count,
    pub(crate) refused_full: Count,
    pub(crate) unmatched: Count,
    pub(crate) stored: Count,
    pub(crate) routed: Count,
    pub(crate) log_bytes: Count,
    pub(crate) commits: Count,
    pub(crate) syncs: Count,
    pub(crate) segments: Count,
    pub(crate) log_disk_bytes: Count,
    pub(crate) log_moves: Count,
    pub(crate) damaged: Count,
    pub(crate) held_bytes: Count,
    pub(crate) dead_kept: Count,
    pub(crate) dead_bytes: Count,
    /// 1 while there are so many dead letters that a warning is due.
    pub(crate) dead_warning: Count,
    pub(crate) dead_lost: Count,
    pub(crate) dead_redriven: Count,
    pub(crate) dead_purged: Count,
    /// Losses of which the audit could not tell.
    pub(crate) losses_untold: Count,
    /// Of the log, where its files have a limit.
    pub(crate) log_file_bytes: Count,
    pub(crate) reservations: Count,
    pub(crate) duplicates: Count,
    /// Events that were matched, those of them for which the time was taken, and the sum of that in ns.
    pub(crate) evaluations: Count,
    pub(crate) evaluations_timed: Count,
    pub(crate) evaluations_ns: Count,
    /// Events that the enricher saw, those for which it took too long, failed and panicked, and those that it did not see.
    pub(crate) enriched: Count,
    pub(crate) enrich_timeouts: Count,
    pub(crate) enrich_failed: Count,
    pub(crate) enrich_panicked: Count,
    pub(crate) enrich_skipped: Count,
    pub(crate) latency: Latency,
    /// Of the shard's thread, once it runs.
    pub(crate) tasks: OnceLock<Arc<AtomicU64>>,
}

/// Counters of one destination on one shard.
#[derive(Debug, Default)]
pub(crate) struct LaneStats {
    pub(crate) routed: Count,
    /// Deliveries that earlier runs left, as far as they are counted.
    pub(crate) inherited: Count,
    pub(crate) delivered: Count,
    pub(crate) handed_over: Count,
    pub(crate) retried: Count,
    pub(crate) dead_lettered: Count,
    pub(crate) requests: Count,
    pub(crate) failures: Count,
    pub(crate) waiting: Count,
    pub(crate) waiting_bytes: Count,
    /// By reason, in the order of [`LossReason::ALL`].
    pub(crate) lost: [Count; LossReason::ALL.len()],
    pub(crate) connections: Count,
    pub(crate) last_error: Mutex<String>,
}

/// Times from acceptance to delivery, of all destinations: a histogram for each would take more memory than all the rest.
#[derive(Debug)]
pub(crate) struct Latency(Mutex<Histogram<u64>>);

impl Default for Latency {
    fn default() -> Self {
        Latency(Mutex::new(new_histogram()))
    }
}

/// Microseconds from 1 to one day, two significant digits.
pub(crate) fn new_histogram() -> Histogram<u64> {
    match Histogram::new_with_bounds(1, 24 * 3600 * 1_000_000, 2) {
        Ok(h) => h,
        Err(e) => unreachable!("bounds are constant: {e}"),
    }
}

impl Latency {
    pub(crate) fn record(&self, times: impl Iterator<Item = Duration>) {
        let mut h = self.0.lock();
        for t in times {
            h.saturating_record(t.as_micros().min(u128::from(u64::MAX)) as u64);
        }
    }

    pub(crate) fn add_to(&self, total: &mut Histogram<u64>) {
        // The bounds are the same, so this cannot fail.
        let _ = total.add(&*self.0.lock());
    }
}
