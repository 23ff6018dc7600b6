//! Lanes at work: the task of each lane and its attempts.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::{Either, select};

use super::Shard;
use super::dispatch::{Backlog, READ_ON_ROOM};
use super::stats::LaneStats;
use crate::connect;
use crate::delivery::lane::{Action, Batch, BatchId, Item, Lane, LanePolicy, Now};
use crate::delivery::{Connector, Outcome};
use crate::driver::{self, Notify, Task};
use crate::error::Result;
use crate::event::profile::Profile;
use crate::log::appender::Position;
use crate::log::attempts::Tried;
use crate::log::cursor::Cursor;
use crate::rule::Destination;

/// How long the lane waits after it could not read its backlog or write a dead letter.
pub(super) const TROUBLE_PAUSE: Duration = Duration::from_secs(1);

/// What a lane holds of an event.
#[derive(Clone, Debug)]
pub(super) struct Body {
    /// The rendered record, with the separator before it.
    pub(super) record: Bytes,
    /// Where the event stands in the log.
    pub(super) position: Position,
    /// The rule that sends it here.
    pub(super) rule: u32,
    /// The record shares its memory with others.
    pub(super) shared: bool,
}

/// An attempt under way.
struct Running {
    task: Task<()>,
    /// Ends it before its time.
    stop: Rc<Notify>,
}

/// A lane with what surrounds it.
pub(super) struct LaneSlot {
    pub(super) number: u32,
    events_max: usize,
    destination: RefCell<Option<Arc<Destination>>>,
    connector: RefCell<Option<Rc<dyn Connector>>>,
    lane: RefCell<Lane<Body>>,
    /// Where to read on, if the lane does not keep up.
    backlog: RefCell<Option<Backlog>>,
    pub(super) notify: Notify,
    pub(super) stats: Arc<LaneStats>,
    task: RefCell<Option<Task<()>>>,
    /// The task shall end.
    stopping: Cell<bool>,
    /// The attempts under way, and those that have ended since the last one began.
    attempts: RefCell<HashMap<BatchId, Running>>,
    ended: RefCell<Vec<BatchId>>,
}

fn policy(destination: Option<&Destination>, events_max: usize) -> LanePolicy {
    // A lane without a destination turns everything into dead letters, a batch at a time.
    let d = destination;
    LanePolicy {
        batch: d.map_or_else(Default::default, |d| d.batch),
        concurrency: d.map_or(1, |d| d.concurrency),
        retry: d.map_or_else(Default::default, |d| d.retry),
        breaker: d.map_or_else(Default::default, |d| d.breaker),
        events_max,
    }
}

impl LaneSlot {
    pub(super) fn new(
        number: u32,
        destination: Option<Arc<Destination>>,
        cursor: Cursor,
        tried: BTreeMap<u64, Tried>,
        backlog: Option<Backlog>,
        stats: Arc<LaneStats>,
        events_max: usize,
    ) -> LaneSlot {
        let mut lane = Lane::new(policy(destination.as_deref(), events_max), cursor);
        lane.restore_tried(tried);
        LaneSlot {
            number,
            events_max,
            lane: RefCell::new(lane),
            destination: RefCell::new(destination),
            connector: RefCell::new(None),
            backlog: RefCell::new(backlog),
            notify: Notify::default(),
            stats,
            task: RefCell::new(None),
            stopping: Cell::new(false),
            attempts: RefCell::default(),
            ended: RefCell::default(),
        }
    }

    /// Takes changed settings; the next attempt uses them.
    pub(super) fn reconfigure(&self, destination: Arc<Destination>) {
        if self.destination.borrow().as_ref().is_some_and(|d| **d == *destination) {
            return;
        }
        self.lane.borrow_mut().set_policy(policy(Some(&destination), self.events_max));
        *self.destination.borrow_mut() = Some(destination);
        *self.connector.borrow_mut() = None;
        self.notify.notify();
    }

    pub(super) fn destination(&self) -> Option<Arc<Destination>> {
        self.destination.borrow().clone()
    }

    pub(super) fn profile(&self) -> Option<Profile> {
        self.destination.borrow().as_ref().map(|d| d.profile)
    }

    pub(super) fn is_behind(&self) -> bool {
        self.backlog.borrow().is_some()
    }

    /// How many more events may be pushed.
    pub(super) fn room(&self) -> usize {
        self.lane.borrow().room()
    }

    /// Whether the lane holds nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.lane.borrow().open_events() == 0
    }

    /// Whether the lane goes on, and has enough room to make reading from a segment worth it.
    pub(super) fn may_read_on(&self) -> bool {
        !self.stopping.get() && self.room() >= READ_ON_ROOM.min(self.events_max)
    }

    pub(super) fn fall_behind(&self, backlog: Backlog) {
        *self.backlog.borrow_mut() = Some(backlog);
        self.notify.notify();
    }

    pub(super) fn backlog_position(&self) -> Option<(Position, u64)> {
        self.backlog.borrow().as_ref().map(|b| (b.position(), b.seen()))
    }

    pub(super) fn move_backlog(&self, at: Position, seen: u64) {
        *self.backlog.borrow_mut() = Some(Backlog::at(at, seen));
    }

    /// Everything in the segments is in the lane or done: from now on events are offered.
    pub(super) fn catch_up(&self) {
        *self.backlog.borrow_mut() = None;
    }

    /// Pushes an event; `false` if it was done before.
    pub(super) fn push(&self, sequence: u64, key: u64, accepted_ns: u64, body: Body, now: Now) -> bool {
        let mut lane = self.lane.borrow_mut();
        if lane.is_done(sequence) {
            return false;
        }
        let bytes = body.record.len();
        lane.push(Item { sequence, key, bytes, accepted_ns, body }, now);
        true
    }

    pub(super) fn is_done(&self, sequence: u64) -> bool {
        self.lane.borrow().is_done(sequence)
    }

    /// Notes that an event cannot be delivered because it is damaged.
    pub(super) fn skip(&self, sequence: u64) {
        self.lane.borrow_mut().skip(sequence);
    }

    pub(super) fn set_flushing(&self, on: bool) {
        self.lane.borrow_mut().set_flushing(on);
        self.notify.notify();
    }

    /// Marks an event done for good: its dead letter is kept.
    pub(super) fn settle(&self, sequence: u64) {
        self.lane.borrow_mut().settle(sequence);
    }

    /// Everything up to here is done; `head` is the last event that was dispatched.
    pub(super) fn low(&self, head: u64) -> u64 {
        self.marks(head)[0]
    }

    /// What changes with everything that is to be saved: the cursor's low-water mark and highest sequence, and how often
    /// attempts were counted.
    pub(super) fn marks(&self, head: u64) -> [u64; 3] {
        let seen = self.backlog.borrow().as_ref().map_or(head, Backlog::seen);
        let mut lane = self.lane.borrow_mut();
        let changes = lane.tried_changes();
        let c = lane.cursor(seen);
        [c.low(), c.high(), changes]
    }

    /// The attempts that events have behind them which are not done.
    pub(super) fn tried(&self) -> BTreeMap<u64, Tried> {
        self.lane.borrow().tried().clone()
    }

    /// The lane's cursor as it is to be saved.
    pub(super) fn cursor(&self, head: u64) -> Cursor {
        let seen = self.backlog.borrow().as_ref().map_or(head, Backlog::seen);
        self.lane.borrow_mut().cursor(seen).clone()
    }

    pub(super) fn connector(&self) -> Option<Rc<dyn Connector>> {
        self.connector.borrow().clone()
    }

    /// The connector, made when it is first needed: a destination that is down never delays the start.
    fn connect(&self) -> Result<Option<Rc<dyn Connector>>> {
        let Some(destination) = self.destination.borrow().clone() else { return Ok(None) };
        if let Some(c) = self.connector.borrow().as_ref() {
            return Ok(Some(c.clone()));
        }
        let c = connect::connector(&destination)?;
        *self.connector.borrow_mut() = Some(c.clone());
        Ok(Some(c))
    }
}

impl Shard {
    pub(super) fn start_lanes(self: &Rc<Self>) {
        let slots: Vec<_> = self.lanes.borrow().values().cloned().collect();
        for slot in slots {
            self.start_lane(&slot);
        }
    }

    pub(super) fn start_lane(self: &Rc<Self>, slot: &Rc<LaneSlot>) {
        let (shard, lane) = (self.clone(), slot.clone());
        *slot.task.borrow_mut() = Some(driver::spawn(self.clone().guarded("lane", |_| shard.run_lane(lane))));
    }

    /// Ends the lanes' tasks; what was on its way counts as not delivered.
    pub(super) async fn stop_lanes(&self) {
        let slots: Vec<_> = self.lanes.borrow().values().cloned().collect();
        for slot in slots {
            // Not cancelled: a segment file that is being opened would stay open with nobody to close it.
            slot.stopping.set(true);
            slot.notify.notify();
            let task = slot.task.borrow_mut().take();
            if let Some(task) = task {
                task.await;
            }
            let attempts = std::mem::take(&mut *slot.attempts.borrow_mut());
            for attempt in attempts.into_values() {
                attempt.stop.notify();
                attempt.task.await;
            }
            *slot.connector.borrow_mut() = None;
        }
    }

    async fn run_lane(self: Rc<Self>, slot: Rc<LaneSlot>) {
        while !slot.stopping.get() {
            if slot.is_behind()
                && slot.may_read_on()
                && let Err(e) = self.read_backlog(&slot).await
            {
                *slot.stats.last_error.lock() = e.to_string();
                log::error!("shard {}: {e}", self.shared.index);
                let end = driver::now() + TROUBLE_PAUSE;
                while !slot.stopping.get() && driver::until(end, slot.notify.notified()).await.is_some() {}
                continue;
            }
            let action = slot.lane.borrow_mut().poll(self.now());
            match action {
                Action::Send(batch) => self.begin_attempt(&slot, batch),
                Action::Idle => slot.notify.notified().await,
                Action::Wait(until_ns) => {
                    let _ = driver::until(self.instant(until_ns), slot.notify.notified()).await;
                }
            }
        }
    }

    /// Sends a batch in a task of its own.
    fn begin_attempt(self: &Rc<Self>, slot: &Rc<LaneSlot>, batch: Batch<Body>) {
        let (shard, lane) = (self.clone(), slot.clone());
        let id = batch.id;
        let stop = Rc::new(Notify::default());
        let stopped = stop.clone();
        let task = driver::spawn(async move {
            let outcome = {
                let attempt = pin!(AssertUnwindSafe(lane.attempt(&batch)).catch_unwind());
                // Ended by a word rather than cancelled: the runtime does not free the memory of a cancelled task.
                match select(attempt, pin!(stopped.notified())).await {
                    Either::Left((Ok(outcome), _)) => outcome,
                    Either::Left((Err(_), _)) => Outcome::Retry {
                        endpoint: true,
                        reason: "the connector panicked; a defect of Tidewire".into(),
                        status: 0,
                        answer: Bytes::new(),
                    },
                    Either::Right(_) => return,
                }
            };
            shard.end_attempt(&lane, batch, outcome);
            lane.ended.borrow_mut().push(id);
        });
        let mut attempts = slot.attempts.borrow_mut();
        for id in slot.ended.borrow_mut().drain(..) {
            attempts.remove(&id);
        }
        attempts.insert(id, Running { task, stop });
    }

    fn end_attempt(self: &Rc<Self>, slot: &Rc<LaneSlot>, mut batch: Batch<Body>, outcome: Outcome) {
        let stats = &slot.stats;
        stats.requests.add(1);
        if let Some(c) = slot.connector() {
            stats.connections.set(c.connections());
        }
        let now = self.now();
        let mut freed = 0;
        match &outcome {
            Outcome::Success => {
                freed = batch.items.iter().map(|i| i.bytes).sum();
                stats.latency.record(
                    batch.items.iter().map(|i| Duration::from_nanos(now.wall_ns.saturating_sub(i.accepted_ns))),
                );
            }
            Outcome::Retry { reason, .. }
            | Outcome::Throttle { reason, .. }
            | Outcome::Poison { reason, .. }
            | Outcome::Undeliverable { reason } => {
                stats.failures.add(1);
                *stats.last_error.lock() = reason.clone();
                // What may wait for hours must not hold the memory that it shares with others.
                for item in batch.items.iter_mut().filter(|i| i.body.shared) {
                    item.body.record = Bytes::copy_from_slice(&item.body.record);
                    item.body.shared = false;
                }
            }
        }
        let done = slot.lane.borrow_mut().complete(batch, outcome, now, self.random());
        stats.delivered.add(done.delivered as u64);
        stats.retried.add(done.retried as u64);
        stats.waiting.sub(done.delivered as u64);
        freed += done.spent.iter().map(|s| s.item.bytes).sum::<usize>();
        self.held_bytes.set(self.held_bytes.get().saturating_sub(freed));
        self.shared.stats.held_bytes.set(self.held_bytes.get() as u64);
        for spent in done.spent {
            self.dead.push(slot.clone(), spent);
        }
        slot.notify.notify();
        if done.delivered > 0 {
            self.lane_settled.notify();
            self.answer_flushes();
        }
    }
}

impl LaneSlot {
    async fn attempt(&self, batch: &Batch<Body>) -> Outcome {
        match self.connect() {
            Ok(Some(connector)) => {
                let records: Vec<Bytes> = batch.items.iter().map(|i| i.body.record.clone()).collect();
                connector.send(&records).await
            }
            Ok(None) => Outcome::Undeliverable { reason: "the destination was removed from the configuration".into() },
            Err(e) => Outcome::Retry { endpoint: true, reason: e.to_string(), status: 0, answer: Bytes::new() },
        }
    }
}
