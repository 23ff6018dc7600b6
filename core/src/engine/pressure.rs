//! What publishing waits for, or is refused by: full queues of destinations, and the shares of buckets.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{Inner, OnFull, deadline_in};
use crate::driver;
use crate::error::{Error, ErrorKind, Result};
use crate::event::Event;
use crate::log::record::Route;
use crate::rule::OnQueueFull;
use crate::shard::Shared;
use crate::shard::entrance::Entrance;
use crate::shard::fair::{Fairness, Unfair};
use crate::shard::queues::{Queue, Rules};
use crate::shard::snapshot::{Known, Scratch};

/// Working memory for looking at queues.
#[derive(Default)]
pub(super) struct Looking {
    scratch: Scratch,
    routes: Vec<Route>,
}

/// See [`Inner::full_queue`].
pub(super) struct FullQueue {
    pub(super) rules: Rules,
    name: String,
    /// `None` is the log.
    queue: Option<Arc<Queue>>,
}

impl Inner {
    /// What [`crate::shard::entrance::Entrance::telling`] says is to be looked at before an event goes in.
    #[cold]
    pub(super) fn look_before(&self, telling: u8, event: &Event<'_>, on_full: OnFull) -> Result<()> {
        if telling & Entrance::CLIENTS != 0 {
            self.after_clients(on_full)?;
        }
        if telling & Entrance::QUEUES != 0 {
            self.wait_for_queues(event, Known::Whole, !matches!(on_full, OnFull::Retry(_)))?;
        }
        Ok(())
    }

    /// A queue that has no place for an event and says that publishers are to be told.
    pub(super) fn full_queue(&self, event: &Event<'_>, known: Known, memory: &mut Looking) -> Option<FullQueue> {
        let Looking { scratch, routes } = memory;
        let snapshot = self.snapshot.load();
        snapshot.routes_of(event, known, scratch, routes);
        let highest = routes.iter().map(|r| r.priority).max()?;
        let mut full = None;
        let queues = &self.queues;
        if queues.log.level().excludes(highest) && queues.log.rules().on_full.is_told() {
            full = Some(FullQueue { rules: queues.log.rules(), name: "the log".to_owned(), queue: None });
        }
        for r in routes.iter() {
            let Some(queue) = queues.get(r.destination).filter(|q| q.level().excludes(r.priority)) else {
                continue;
            };
            let rules = queue.rules();
            if rules.on_full.is_told() {
                let name = snapshot.destination(r.destination).map_or_else(String::new, |d| d.label());
                // One that refuses at once need not be waited for.
                if rules.on_full == OnQueueFull::Refuse || full.is_none() {
                    full = Some(FullQueue { rules, name, queue: Some(queue) });
                }
            }
        }
        full
    }

    /// The refusal of a full queue. `counts` says whether it is one for good.
    pub(super) fn queue_is_full(&self, full: &FullQueue, counts: bool) -> Error {
        self.refused_queue.fetch_add(u64::from(counts), Ordering::Relaxed);
        let load = full.queue.as_ref().map_or_else(|| self.queues.log.load(), |q| q.load());
        if let Some(queue) = &full.queue {
            queue.refused.fetch_add(u64::from(counts), Ordering::Relaxed);
        }
        let waits = if load.events > 0 { format!("{} events, ", load.events) } else { String::new() };
        let name = &full.name;
        Error::new(ErrorKind::Full, format!("the queue of {name} is full: {waits}{} bytes wait", load.bytes))
            .remedy("mend the destination, raise its limits, or let it shed (`queue.on_full`)")
    }

    /// Waits for a place in the queues of the destinations that an event goes to, if some of them have none and say that
    /// publishers are to be told. Only called while there may be such. `counts` says whether a refusal is one for good.
    #[cold]
    pub(super) fn wait_for_queues(&self, event: &Event<'_>, known: Known, counts: bool) -> Result<()> {
        let mut memory = Looking::default();
        let mut deadline = None;
        loop {
            let Some(full) = self.full_queue(event, known, &mut memory) else { return Ok(()) };
            let deadline = *deadline.get_or_insert_with(|| deadline_in(full.rules.block_timeout));
            if full.rules.on_full == OnQueueFull::Block && self.queues.wait(deadline) {
                self.check_open()?;
                continue;
            }
            return Err(self.queue_is_full(&full, counts));
        }
    }

    /// Waits until nothing refuses an event that is told or reserved in another way than by a plain publication: full queues
    /// that refuse or block, and its bucket's rate and share.
    pub(crate) fn wait_for_turn(&self, event: &Event<'_>, known: Known, on_full: OnFull) -> Result<()> {
        if self.entrance()?.queues_tell() {
            self.wait_for_queues(event, known, !matches!(on_full, OnFull::Retry(_)))?;
        }
        if let Some(fairness) = &self.front.fairness {
            let shard = self.shard_of_event(event);
            // The bytes count when they are there.
            self.enter_fairly(fairness, shard, event.bucket, 1, on_full)?;
            fairness.leave(shard.index, event.bucket, 1);
        }
        Ok(())
    }

    /// An event comes into a ring without being asked whether it may.
    pub(super) fn bring(&self, shard: &Shared, bucket: &str, bytes: usize) {
        if let Some(fairness) = &self.front.fairness {
            fairness.bring(shard.index, bucket, bytes);
        }
    }

    /// It did not.
    pub(super) fn take_back(&self, shard: &Shared, bucket: &str, bytes: usize) {
        if let Some(fairness) = &self.front.fairness {
            fairness.leave(shard.index, bucket, bytes);
        }
    }

    /// Waits until the event's bucket may bring another event into the ring.
    pub(super) fn enter_fairly(
        &self,
        fairness: &Fairness,
        shard: &Shared,
        bucket: &str,
        bytes: usize,
        on_full: OnFull,
    ) -> Result<()> {
        let mut deadline = None;
        while let Err(why) = fairness.enter(shard.index, bucket, bytes) {
            let left = match on_full {
                OnFull::Refuse => Duration::ZERO,
                OnFull::Block(limit) | OnFull::Retry(limit) => {
                    let deadline = *deadline.get_or_insert_with(|| deadline_in(limit));
                    deadline.saturating_duration_since(driver::now())
                }
            };
            let wait = match why {
                Unfair::Share => Duration::from_millis(1),
                Unfair::Rate(wait) => wait,
            };
            if left.is_zero() || (matches!(why, Unfair::Rate(_)) && wait > left) {
                if !matches!(on_full, OnFull::Retry(_)) {
                    self.refused_unfair.fetch_add(1, Ordering::Relaxed);
                }
                return Err(unfair(bucket, why));
            }
            self.check_open()?;
            match why {
                Unfair::Share => drop(shard.ring.wait_for_space(Some(driver::now() + wait.min(left)))),
                Unfair::Rate(_) => std::thread::sleep(wait.min(Duration::from_millis(20))),
            }
        }
        Ok(())
    }
}

/// The refusal of an event whose bucket must wait.
#[cold]
pub(super) fn unfair(bucket: &str, why: Unfair) -> Error {
    let (what, remedy) = match why {
        Unfair::Share => ("has its share of the ring", "raise engine.fairness.bucket_ring_share"),
        Unfair::Rate(_) => ("publishes too fast", "raise engine.fairness.bucket_rate"),
    };
    Error::new(ErrorKind::Full, format!("bucket `{}` {what}", bucket.escape_debug()))
        .remedy(format!("publish more slowly, wait longer, or {remedy}"))
}
