//! What publishing waits for, or is refused by: full queues of destinations, and the shares of buckets.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{Inner, OnFull, deadline_in};
use crate::driver;
use crate::error::{Error, ErrorKind, Result};
use crate::event::Event;
use crate::rule::OnQueueFull;
use crate::shard::Shared;
use crate::shard::fair::{Fairness, Unfair};
use crate::shard::snapshot::{Known, Scratch};

impl Inner {
    /// Waits for a place in the queues of the destinations that an event goes to, if some of them have none and say that
    /// publishers are to be told. Only called while there may be such. `counts` says whether a refusal is one for good.
    #[cold]
    pub(super) fn wait_for_queues(&self, event: &Event<'_>, known: Known, counts: bool) -> Result<()> {
        let (mut scratch, mut routes) = (Scratch::default(), Vec::new());
        let mut deadline = None;
        loop {
            let snapshot = self.snapshot.load();
            snapshot.routes_of(event, known, &mut scratch, &mut routes);
            let highest = routes.iter().map(|r| r.priority).max();
            let Some(highest) = highest else { return Ok(()) };
            let mut full = None;
            let queues = &self.queues;
            if queues.log.level().excludes(highest) && queues.log.rules().on_full.is_told() {
                full = Some((queues.log.rules(), "the log".to_owned(), None));
            }
            for r in &routes {
                let Some(queue) = queues.get(r.destination).filter(|q| q.level().excludes(r.priority)) else {
                    continue;
                };
                let rules = queue.rules();
                if rules.on_full.is_told() {
                    let name = snapshot.destination(r.destination).map_or_else(String::new, |d| d.label());
                    // One that refuses at once need not be waited for.
                    if rules.on_full == OnQueueFull::Refuse || full.is_none() {
                        full = Some((rules, name, Some(queue)));
                    }
                }
            }
            drop(snapshot);
            let Some((rules, name, queue)) = full else { return Ok(()) };
            let deadline = *deadline.get_or_insert_with(|| deadline_in(rules.block_timeout));
            if rules.on_full == OnQueueFull::Block && self.queues.wait(deadline) {
                self.check_open()?;
                continue;
            }
            self.refused_queue.fetch_add(u64::from(counts), Ordering::Relaxed);
            let load = queue.as_ref().map_or_else(|| self.queues.log.load(), |q| q.load());
            if let Some(queue) = queue {
                queue.refused.fetch_add(u64::from(counts), Ordering::Relaxed);
            }
            let waits = if load.events > 0 { format!("{} events, ", load.events) } else { String::new() };
            return Err(Error::new(
                ErrorKind::Full,
                format!("the queue of {name} is full: {waits}{} bytes wait", load.bytes),
            )
            .remedy("mend the destination, raise its limits, or let it shed (`queue.on_full`)"));
        }
    }

    /// Waits until nothing refuses an event that is told or reserved in another way than by a plain publication: full queues
    /// that refuse or block, and its bucket's rate and share.
    pub(super) fn wait_for_turn(&self, event: &Event<'_>, known: Known, on_full: OnFull) -> Result<()> {
        if self.entrance()?.telling.load(Ordering::Relaxed) {
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
                let (what, remedy) = match why {
                    Unfair::Share => ("has its share of the ring", "raise engine.fairness.bucket_ring_share"),
                    Unfair::Rate(_) => ("publishes too fast", "raise engine.fairness.bucket_rate"),
                };
                let error = format!("bucket `{}` {what}", bucket.escape_debug());
                return Err(
                    Error::new(ErrorKind::Full, error).remedy(format!("publish more slowly, wait longer, or {remedy}"))
                );
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
