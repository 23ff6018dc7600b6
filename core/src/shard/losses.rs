//! The audit of losses at work: what is dropped is noted, and made durable before anything is saved that depends on it.
//!
//! The audit never holds up anything: what cannot be written is counted as not told and tried again with the next losses,
//! and what comes faster than the disk takes it is told in sums.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;

use super::kept::KeptLog;
use super::{Shard, stats};
use crate::config::LossesConfig;
use crate::driver::{Disk, wall_ns};
use crate::log::appender::SegmentPlan;
use crate::log::dead::KeptState;
use crate::log::losses::{Loss, LossReason};
use crate::log::record::{Extensions, Kind};

const ZERO_AHEAD_BYTES: u64 = 64 * 1024;
/// Bytes of losses that wait for the disk; what is more is told in sums.
const PENDING_BYTES_MAX: usize = 4 << 20;
/// Sums that are kept apart; what is more is told without its rule.
const SUMS_MAX: usize = 1024;

/// See the module.
pub(super) struct Losses {
    log: KeptLog,
    bytes_max: u64,
    sums: RefCell<BTreeMap<(LossReason, u32, u32), u64>>,
    /// Somebody writes, and these wait for the end of that.
    writing: Cell<bool>,
    written: RefCell<Vec<futures::channel::oneshot::Sender<()>>>,
}

impl Losses {
    pub(super) fn new(
        dir: PathBuf,
        disk: Rc<Disk>,
        state: KeptState,
        clock_floor_ns: u64,
        plan: SegmentPlan,
        config: &LossesConfig,
        shards: usize,
    ) -> Losses {
        let bytes_max = (config.bytes_max / shards.max(1) as u64).max(512 << 10);
        let segment_bytes = (bytes_max / 4).clamp(128 << 10, 4 << 20);
        let plan = SegmentPlan { bytes_max: segment_bytes, ..plan };
        Losses {
            log: KeptLog::new(dir, disk, state, clock_floor_ns, plan, ZERO_AHEAD_BYTES),
            bytes_max,
            sums: RefCell::default(),
            writing: Cell::new(false),
            written: RefCell::default(),
        }
    }

    /// The numbers of the next segment and the next loss.
    pub(super) fn next(&self) -> (u64, u64) {
        self.log.journal.next()
    }

    fn is_written(&self) -> bool {
        self.log.journal.pending() == 0 && self.sums.borrow().is_empty()
    }

    pub(super) fn close(&self) {
        self.log.journal.close();
    }
}

impl Shard {
    /// Counts a loss and notes it for the audit. Durable after [`Shard::write_losses`].
    pub(super) fn lose(&self, loss: &Loss<'_>) {
        let stats = self.shared.lane_stats.lock().entry(loss.destination).or_default().clone();
        stats.lost(loss.reason).add(loss.count);
        self.shared.losses.lock().add(loss.reason, loss.destination, loss.rule, loss.count);
        if loss.count == 1 && self.losses.log.journal.pending_bytes() < PENDING_BYTES_MAX {
            self.losses.log.journal.append(Kind::Loss, &Extensions::default(), &loss.encode(), wall_ns());
            return;
        }
        let mut sums = self.losses.sums.borrow_mut();
        let rule = if sums.len() < SUMS_MAX { loss.rule } else { 0 };
        *sums.entry((loss.reason, loss.destination, rule)).or_default() += loss.count;
    }

    /// Makes everything noted so far durable, as far as that is possible.
    pub(super) async fn write_losses(&self) {
        // One at a time; who comes while it is under way does the rest afterwards.
        while self.losses.writing.get() {
            let (told, written) = futures::channel::oneshot::channel();
            self.losses.written.borrow_mut().push(told);
            let _ = written.await;
        }
        if self.losses.is_written() {
            return;
        }
        self.losses.writing.set(true);
        self.write_noted_losses().await;
        self.losses.writing.set(false);
        for told in self.losses.written.borrow_mut().drain(..) {
            let _ = told.send(());
        }
    }

    async fn write_noted_losses(&self) {
        let log = &self.losses.log;
        // After a failure of the disk sums stay sums until there is room.
        if log.journal.pending_bytes() < PENDING_BYTES_MAX {
            for ((reason, destination, rule), count) in std::mem::take(&mut *self.losses.sums.borrow_mut()) {
                let loss = Loss::sum(reason, destination, rule, count);
                log.journal.append(Kind::Loss, &Extensions::default(), &loss.encode(), wall_ns());
            }
        }
        let untold = match log.store().await {
            Ok(()) => 0,
            Err(e) => {
                let untold = log.journal.pending();
                log::error!("shard {}: {untold} losses cannot be told yet: {e}", self.shared.index);
                untold
            }
        };
        self.shared.stats.losses_untold.set(untold);
        while log.bytes() > self.losses.bytes_max {
            let Some(segment) = log.take_out(|_| true) else { break };
            log.remove_files(segment).await;
        }
    }
}

/// Losses by reason, destination and rule.
#[derive(Debug, Default)]
pub(crate) struct LossCounts(BTreeMap<(u32, u32, LossReason), u64>);

impl LossCounts {
    /// Counts of so many are kept apart; what is more is counted without its rule.
    const MAX: usize = 4096;

    fn add(&mut self, reason: LossReason, destination: u32, rule: u32, n: u64) {
        let key = (destination, rule, reason);
        let known = self.0.len() < Self::MAX || self.0.contains_key(&key);
        *self.0.entry(if known { key } else { (destination, 0, reason) }).or_default() += n;
    }

    /// Destination, rule, reason and count.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, u32, LossReason, u64)> + '_ {
        self.0.iter().map(|((d, r, reason), n)| (*d, *r, *reason, *n))
    }
}

impl stats::LaneStats {
    fn lost(&self, reason: LossReason) -> &stats::Count {
        &self.lost[LossReason::ALL.iter().position(|r| *r == reason).unwrap_or_default()]
    }
}
