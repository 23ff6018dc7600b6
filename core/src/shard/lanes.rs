//! Lanes at work: the task of each lane, its attempts, and the dead letters.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::FutureExt;
use futures::channel::oneshot;
use futures::future::{Either, select};

use super::dispatch::{Backlog, READ_ON_ROOM};
use super::files::{FilesPlan, SegmentFiles};
use super::gate::Holds;
use super::replay::ReplayLane;
use super::stats::LaneStats;
use super::{Command, Shard, handover};
use crate::connect;
use crate::delivery::lane::{Action, Batch, BatchId, Item, Lane, LanePolicy, Now, Spent};
use crate::delivery::{Connector, Outcome};
use crate::driver::wall_ns;
use crate::driver::{self, Disk, DiskFile, Notify, Task};
use crate::error::{Error, ErrorKind, Result};
use crate::event::profile::Profile;
use crate::log::BLOCK_BYTES;
use crate::log::appender::{Appender, Group, Position, SegmentPlan};
use crate::log::cursor::Cursor;
use crate::log::record::{self, DeadLetter, Kind, Parsed, RecordView, Route};
use crate::log::recovery::{SegmentInfo, ShardState, scan};
use crate::rule::{Destination, Order};

/// How long the lane waits after it could not read its backlog or write a dead letter.
const TROUBLE_PAUSE: Duration = Duration::from_secs(1);
/// Zeros ahead of dead letters, which are few.
const DEAD_ZERO_AHEAD_BYTES: u64 = 256 * 1024;

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
    way: Cell<Way>,
    /// The way that is taken once nothing is left in the lane.
    next_way: Cell<Option<Way>>,
    /// The shards that must deliver first what they were handed over.
    held_for: RefCell<Vec<usize>>,
    destination: RefCell<Option<Arc<Destination>>>,
    connector: RefCell<Option<Rc<dyn Connector>>>,
    lane: RefCell<Lane<Body>>,
    /// Where to read on, if the lane does not keep up.
    backlog: RefCell<Option<Backlog>>,
    /// What holds newer events back, after the number of shards has changed.
    holds: RefCell<Holds>,
    pub(super) notify: Notify,
    pub(super) stats: Arc<LaneStats>,
    task: RefCell<Option<Task<()>>>,
    /// The task shall end.
    stopping: Cell<bool>,
    /// The attempts under way, and those that have ended since the last one began.
    attempts: RefCell<HashMap<BatchId, Running>>,
    ended: RefCell<Vec<BatchId>>,
    /// Bytes of records that it holds.
    held: Cell<usize>,
    /// The lane is a replay's: its events come from the log, by a filter of its own.
    pub(super) replay: Option<ReplayLane>,
}

/// In which order a lane's events go, and to which shard if another one delivers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Way {
    pub(super) order: Order,
    pub(super) home: Option<usize>,
}

impl Way {
    /// Each shard replays what is its own, whatever shard delivers new events.
    pub(super) const OF_REPLAYS: Way = Way { order: Order::Key, home: None };
}

fn policy(destination: Option<&Destination>, way: Way, events_max: usize) -> LanePolicy {
    if way.home.is_some() {
        return handover::policy(events_max);
    }
    // A lane without a destination turns everything into dead letters, a batch at a time.
    let d = destination;
    LanePolicy {
        batch: d.map_or_else(Default::default, |d| d.batch),
        concurrency: d.filter(|_| way.order != Order::Strict).map_or(1, |d| d.concurrency),
        retry: d.map_or_else(Default::default, |d| d.retry),
        breaker: d.map_or_else(Default::default, |d| d.breaker),
        events_max,
    }
}

impl LaneSlot {
    #[allow(clippy::too_many_arguments)]
    pub(super) fn new(
        number: u32,
        destination: Option<Arc<Destination>>,
        way: Way,
        cursor: Cursor,
        backlog: Option<Backlog>,
        holds: Holds,
        stats: Arc<LaneStats>,
        events_max: usize,
    ) -> LaneSlot {
        LaneSlot {
            number,
            events_max,
            lane: RefCell::new(Lane::new(policy(destination.as_deref(), way, events_max), cursor)),
            way: Cell::new(way),
            next_way: Cell::new(None),
            held_for: RefCell::default(),
            destination: RefCell::new(destination),
            connector: RefCell::new(None),
            backlog: RefCell::new(backlog),
            holds: RefCell::new(holds),
            notify: Notify::default(),
            stats,
            task: RefCell::new(None),
            stopping: Cell::new(false),
            attempts: RefCell::default(),
            ended: RefCell::default(),
            held: Cell::new(0),
            replay: None,
        }
    }

    /// How a record goes to this lane, if it does.
    pub(super) fn route(&self, r: &RecordView<'_>) -> Option<Route> {
        match &self.replay {
            None => r.routes().find(|x| x.destination == self.number),
            Some(lane) => lane.route(r, self.number, self.destination.borrow().as_deref()),
        }
    }

    /// Whether a replay has sent everything that it was to send.
    pub(super) fn is_through(&self) -> bool {
        self.replay.is_some() && !self.is_behind() && self.is_empty()
    }

    /// Makes the lane's task end.
    pub(super) fn stop(&self) {
        self.stopping.set(true);
        self.notify.notify();
    }

    /// Ends the lane's task; what was on its way counts as not delivered.
    pub(super) async fn end(&self) {
        // Not cancelled: a segment file that is being opened would stay open with nobody to close it.
        self.stop();
        let task = self.task.borrow_mut().take();
        if let Some(task) = task {
            task.await;
        }
        let attempts = std::mem::take(&mut *self.attempts.borrow_mut());
        for attempt in attempts.into_values() {
            attempt.stop.notify();
            attempt.task.await;
        }
        *self.connector.borrow_mut() = None;
    }

    /// Takes changed settings; the next attempt uses them. Another way is taken once what the lane holds is out: events
    /// that are on the old way would mix with those on the new one.
    pub(super) fn reconfigure(&self, destination: Arc<Destination>, way: Way) {
        if self.destination.borrow().as_ref().is_some_and(|d| **d == *destination) {
            return;
        }
        self.next_way.set(Some(way).filter(|w| *w != self.way.get()));
        *self.destination.borrow_mut() = Some(destination);
        self.use_settings();
        self.change_way();
        self.notify.notify();
    }

    fn use_settings(&self) {
        let policy = policy(self.destination.borrow().as_deref(), self.way.get(), self.events_max);
        self.lane.borrow_mut().set_policy(policy);
        *self.connector.borrow_mut() = None;
    }

    /// Takes the next way, if there is one and nothing is left on the old one.
    fn change_way(&self) {
        if self.is_empty()
            && let Some(way) = self.next_way.take()
        {
            if let Some(home) = self.home() {
                self.hold_for(home);
            }
            self.way.set(way);
            self.use_settings();
        }
    }

    /// Sends nothing before a shard has delivered what it was handed over of this destination.
    pub(super) fn hold_for(&self, home: usize) {
        self.held_for.borrow_mut().push(home);
    }

    /// The shard that the lane waits for; not if it hands over to it still, or again.
    fn held_for(&self) -> Option<usize> {
        self.held_for.borrow().iter().copied().find(|home| self.home() != Some(*home))
    }

    pub(super) fn profile(&self) -> Option<Profile> {
        self.destination.borrow().as_ref().map(|d| d.profile)
    }

    /// The shard that delivers, if that is another one.
    pub(super) fn home(&self) -> Option<usize> {
        self.way.get().home
    }

    /// By what the lane keeps events in order.
    fn order_key(&self, resource_hash: u64, sequence: u64) -> u64 {
        match self.way.get().order {
            Order::Key => resource_hash,
            // Spread, for the lane's table does not hash.
            Order::None => sequence.wrapping_mul(0x9E37_79B9_7F4A_7C15),
            Order::Strict => 0,
        }
    }

    pub(super) fn is_behind(&self) -> bool {
        self.backlog.borrow().is_some()
    }

    /// How many more events may be pushed.
    pub(super) fn room(&self) -> usize {
        if self.next_way.get().is_some() || self.held_for().is_some() { 0 } else { self.lane.borrow().room() }
    }

    /// Whether the lane holds nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.lane.borrow().open_events() == 0
    }

    /// Whether the lane goes on, and has enough room to make reading from a segment worth it.
    pub(super) fn may_read_on(&self) -> bool {
        !self.stopping.get() && self.has_reading_room() && self.replay.as_ref().is_none_or(ReplayLane::is_due)
    }

    /// Whether there is enough room to make reading from a segment worth it.
    fn has_reading_room(&self) -> bool {
        self.room() >= READ_ON_ROOM.min(self.events_max)
    }

    pub(super) fn fall_behind(&self, backlog: Backlog) {
        *self.backlog.borrow_mut() = Some(backlog);
        self.notify.notify();
    }

    pub(super) fn backlog_position(&self) -> Option<(Position, u64)> {
        self.backlog.borrow().as_ref().map(|b| (b.position(), b.seen()))
    }

    pub(super) fn move_backlog(&self, at: Position, seen: u64) {
        if let Some(lane) = &self.replay {
            lane.part().seen.store(seen, Ordering::Relaxed);
        }
        *self.backlog.borrow_mut() = Some(Backlog::at(at, seen));
    }

    /// Everything in the segments, which end at `at`, is in the lane or done: from now on events are offered. If something
    /// holds them back, they stay in the log.
    pub(super) fn catch_up(&self, at: Position, hold: Option<u64>) {
        let mut backlog = self.backlog.borrow_mut();
        *backlog = match (hold, &*backlog) {
            (Some(first), Some(b)) => Some(Backlog::at(at, b.seen().max(first - 1))),
            _ => None,
        };
    }

    /// The first event that must not be delivered yet, if there is such.
    pub(super) fn hold(&self) -> Option<u64> {
        self.holds.borrow_mut().from()
    }

    /// Tells those who wait for it what this lane has passed; `head` is the last event that was dispatched.
    pub(super) fn pass_holds(&self, head: u64) {
        if !self.holds.borrow().is_empty() {
            let low = self.low(head);
            self.holds.borrow_mut().done(low);
        }
    }

    /// Pushes an event; `false` if it was done before.
    pub(super) fn push(&self, sequence: u64, resource_hash: u64, accepted_ns: u64, body: Body, now: Now) -> bool {
        let key = self.order_key(resource_hash, sequence);
        let mut lane = self.lane.borrow_mut();
        if lane.is_done(sequence) {
            return false;
        }
        let bytes = body.record.len();
        self.held.set(self.held.get() + bytes);
        if self.replay.is_some() {
            self.stats.routed.add(1);
        }
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

    /// Everything up to here is done; `head` is the last event that was dispatched.
    pub(super) fn low(&self, head: u64) -> u64 {
        self.marks(head).0
    }

    /// The cursor's low-water mark and highest sequence.
    pub(super) fn marks(&self, head: u64) -> (u64, u64) {
        let seen = self.backlog.borrow().as_ref().map_or(head, Backlog::seen);
        let mut lane = self.lane.borrow_mut();
        let c = lane.cursor(seen);
        (c.low(), c.high())
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
    fn connect(&self, shard: &Shard) -> Result<Option<Rc<dyn Connector>>> {
        let Some(destination) = self.destination.borrow().clone() else { return Ok(None) };
        if let Some(c) = self.connector.borrow().as_ref() {
            return Ok(Some(c.clone()));
        }
        let c = match self.home() {
            Some(home) => shard.hand_over_to(home),
            None => connect::connector(&destination)?,
        };
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
        let mut slots: Vec<_> = self.lanes.borrow().values().cloned().collect();
        slots.extend(self.keeping.replays.borrow().values().cloned());
        for slot in slots {
            slot.end().await;
        }
    }

    async fn run_lane(self: Rc<Self>, slot: Rc<LaneSlot>) {
        while !slot.stopping.get() && !slot.is_through() {
            slot.change_way();
            if let Some(home) = slot.held_for() {
                if self.has_delivered(home, &slot).await {
                    slot.held_for.borrow_mut().retain(|h| *h != home);
                }
                continue;
            }
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
                Action::Idle => self.wait_for(&slot, None).await,
                Action::Wait(until_ns) => self.wait_for(&slot, Some(self.instant(until_ns))).await,
            }
        }
        if slot.is_through() {
            self.house_wake.notify();
        }
    }

    /// Waits for news of a lane, at most until a time, or until its replay's pace allows more.
    async fn wait_for(&self, slot: &LaneSlot, until: Option<Instant>) {
        // Only where nothing but the pace is in the way: everything else wakes the lane.
        let paced = slot.is_behind() && slot.has_reading_room() && !self.out_of_memory_for(slot);
        let due = slot.replay.as_ref().filter(|_| paced).and_then(ReplayLane::due_at);
        match until.into_iter().chain(due).min() {
            None => slot.notify.notified().await,
            Some(at) => {
                let _ = driver::until(at, slot.notify.notified()).await;
            }
        }
    }

    /// Memory that a lane held and will not send any more.
    pub(super) fn give_back(&self, slot: &LaneSlot) {
        self.held_bytes.set(self.held_bytes.get().saturating_sub(slot.held.take()));
        self.shared.stats.held_bytes.set(self.held_bytes.get() as u64);
    }

    /// Waits until another shard has delivered what it was handed over of a lane's destination so far. `false` if something
    /// else has happened to the lane meanwhile.
    async fn has_delivered(&self, home: usize, slot: &LaneSlot) -> bool {
        let peer = self.peer(home);
        let (reply, done) = oneshot::channel();
        peer.command(Command::Flush { position: peer.ring.tail(), destination: Some(slot.number), reply });
        match select(done, pin!(slot.notify.notified())).await {
            Either::Left((Ok(()), _)) => true,
            Either::Left((Err(_), _)) => {
                // It has ended. This shard will be told to end too.
                let _ = driver::within(TROUBLE_PAUSE, slot.notify.notified()).await;
                false
            }
            Either::Right(_) => false,
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
                let attempt = pin!(AssertUnwindSafe(lane.attempt(&shard, &batch)).catch_unwind());
                // Ended by a word rather than cancelled: the runtime does not free the memory of a cancelled task.
                match select(attempt, pin!(stopped.notified())).await {
                    Either::Left((Ok(outcome), _)) => outcome,
                    Either::Left((Err(_), _)) => Outcome::Retry {
                        endpoint: true,
                        reason: "the connector panicked; a defect of Tidewire".into(),
                        status: 0,
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
        // The way does not change while the lane holds anything.
        let handed_over = slot.home().is_some();
        stats.requests.add(u64::from(!handed_over));
        if let Some(c) = slot.connector() {
            stats.connections.set(c.connections());
        }
        let now = self.now();
        let mut freed = 0;
        match &outcome {
            Outcome::Success => {
                freed = batch.items.iter().map(|i| i.bytes).sum();
                if !handed_over {
                    stats.latency.record(
                        batch.items.iter().map(|i| Duration::from_nanos(now.wall_ns.saturating_sub(i.accepted_ns))),
                    );
                }
            }
            Outcome::Retry { reason, .. }
            | Outcome::Throttle { reason, .. }
            | Outcome::Poison { reason, .. }
            | Outcome::Undeliverable { reason } => {
                stats.failures.add(1);
                log::debug!("shard {}, destination #{}: {reason}", self.shared.index, slot.number);
                *stats.last_error.lock() = reason.clone();
                // What may wait for hours must not hold the memory that it shares with others.
                for item in batch.items.iter_mut().filter(|i| i.body.shared) {
                    item.body.record = Bytes::copy_from_slice(&item.body.record);
                    item.body.shared = false;
                }
            }
        }
        let done = slot.lane.borrow_mut().complete(batch, outcome, now, self.random());
        let counted = if handed_over { &stats.handed_over } else { &stats.delivered };
        counted.add(done.delivered as u64);
        stats.retried.add(done.retried as u64);
        stats.waiting.sub(done.delivered as u64);
        freed += done.spent.iter().map(|s| s.item.bytes).sum::<usize>();
        slot.held.set(slot.held.get().saturating_sub(freed));
        self.held_bytes.set(self.held_bytes.get().saturating_sub(freed));
        self.shared.stats.held_bytes.set(self.held_bytes.get() as u64);
        for spent in done.spent {
            self.dead.push(slot.clone(), spent);
        }
        slot.pass_holds(self.dispatched.get());
        slot.notify.notify();
        if done.delivered > 0 {
            self.lane_settled.notify();
            self.answer_flushes();
            if handed_over && self.close.get().is_some() {
                // Ingest waits for the last of it.
                self.shared.ring.wake();
            }
        }
    }
}

impl LaneSlot {
    async fn attempt(&self, shard: &Shard, batch: &Batch<Body>) -> Outcome {
        match self.connect(shard) {
            Ok(Some(connector)) => {
                let records: Vec<Bytes> = batch.items.iter().map(|i| i.body.record.clone()).collect();
                if self.home().is_some() {
                    shard.durable(batch.items.last().map_or(0, |i| i.sequence)).await;
                }
                connector.send(&records).await
            }
            Ok(None) => Outcome::Undeliverable { reason: "the destination was removed from the configuration".into() },
            Err(e) => Outcome::Retry { endpoint: true, reason: e.to_string(), status: 0 },
        }
    }
}

/// Events that are given up, on their way into the dead-letter log.
pub(super) struct DeadLetters {
    appender: RefCell<Appender>,
    files: SegmentFiles,
    /// Groups that are written and not durable.
    kept: RefCell<Vec<Group>>,
    /// The last letter that is durable.
    durable: Cell<u64>,
    queue: RefCell<VecDeque<(Rc<LaneSlot>, Spent<Body>)>>,
    /// Letters that do not come from a lane, and who waits for them.
    letters: RefCell<VecDeque<(Vec<u8>, oneshot::Sender<()>)>>,
    notify: Notify,
}

impl DeadLetters {
    pub(super) fn new(state: &ShardState, disk: Rc<Disk>, plan: SegmentPlan) -> DeadLetters {
        let (segment, sequence) = state.next_dead;
        let files = FilesPlan { segment_bytes: plan.bytes_max, zero_ahead_bytes: DEAD_ZERO_AHEAD_BYTES, spares: false };
        DeadLetters {
            appender: RefCell::new(Appender::new(plan, segment, sequence - 1, sequence, state.clock_floor_ns)),
            files: SegmentFiles::new(state.path.join("dead"), disk, files, Vec::new(), Vec::new()),
            kept: RefCell::default(),
            durable: Cell::new(sequence - 1),
            queue: RefCell::default(),
            letters: RefCell::default(),
            notify: Notify::default(),
        }
    }

    fn push(&self, slot: Rc<LaneSlot>, spent: Spent<Body>) {
        self.queue.borrow_mut().push_back((slot, spent));
        self.notify.notify();
    }

    /// Takes a letter that does not come from a lane.
    pub(super) fn bury(&self, letter: Vec<u8>, reply: oneshot::Sender<()>) {
        self.letters.borrow_mut().push_back((letter, reply));
        self.notify.notify();
    }

    fn is_empty(&self) -> bool {
        self.queue.borrow().is_empty() && self.letters.borrow().is_empty()
    }

    /// Whether events of this lane wait to be written.
    pub(super) fn has(&self, slot: &Rc<LaneSlot>) -> bool {
        self.queue.borrow().iter().any(|(s, _)| Rc::ptr_eq(s, slot))
    }

    /// Makes the writer look whether it shall end.
    pub(super) fn wake(&self) {
        self.notify.notify();
    }

    pub(super) fn close(&self) {
        self.files.close();
    }

    /// Makes the letters durable that were appended. If that fails it is done anew in another segment when this is called
    /// again.
    async fn store(&self) -> Result<()> {
        loop {
            let group = self.appender.borrow_mut().take();
            let Some(mut group) = group else { break };
            let ends_one = group.new_segment.is_some() && self.files.is_writing();
            let before = if ends_one { self.make_durable().await } else { Ok(()) };
            let result = match before {
                Ok(()) => self.files.write(&mut group).await,
                e => e,
            };
            self.kept.borrow_mut().push(group);
            if result.is_err() {
                self.move_on();
                return result;
            }
        }
        let result = self.make_durable().await;
        if result.is_err() {
            self.move_on();
        }
        result
    }

    async fn make_durable(&self) -> Result<()> {
        if self.files.is_moving() {
            self.files.name().await?
        } else {
            self.files.sync().await?
        }
        let groups = std::mem::take(&mut *self.kept.borrow_mut());
        for group in groups {
            self.durable.set(self.durable.get().max(group.last_sequence));
            self.files.wrote(&group);
            self.appender.borrow_mut().recycle(group);
        }
        Ok(())
    }

    /// Takes what is not durable to a new segment.
    fn move_on(&self) {
        let kept = std::mem::take(&mut *self.kept.borrow_mut());
        self.files.give_up(self.durable.get());
        self.appender.borrow_mut().relocate(kept, wall_ns());
    }
}

impl Shard {
    /// Writes dead letters as they come, until the lanes have stopped and the last one is written. An event stays open in
    /// its lane until its letter is durable; what cannot be written before the engine closes stays undelivered in the log.
    pub(super) async fn write_dead_letters(self: Rc<Self>) {
        loop {
            while !self.dead.is_empty() {
                if let Err(e) = self.write_dead_batch().await {
                    if self.stopping.get() {
                        log::error!("shard {}: {e}; the events stay in the log", self.shared.index);
                        return;
                    }
                    log::error!("shard {}: dead letters wait: {e}", self.shared.index);
                    driver::sleep(TROUBLE_PAUSE).await;
                }
            }
            if self.stopping.get() {
                return;
            }
            self.dead.notify.notified().await;
        }
    }

    async fn write_dead_batch(&self) -> Result<()> {
        const BATCH: usize = 256;
        let batch: Vec<(Rc<LaneSlot>, Spent<Body>)> = self.dead.queue.borrow().iter().take(BATCH).cloned().collect();
        let wall = wall_ns();
        let mut frames = Vec::new();
        for (_, spent) in &batch {
            frames.push(self.read_frame(spent.item.body.position, spent.item.sequence).await?);
        }
        for ((slot, spent), frame) in batch.iter().zip(&frames) {
            let letter = DeadLetter {
                destination: slot.number,
                rule: spent.item.body.rule,
                sequence: spent.item.sequence,
                incarnation: self.files.containing(spent.item.sequence).map_or(0, |s| s.header.incarnation),
                attempts: spent.attempts,
                first_ns: spent.item.accepted_ns,
                last_ns: wall,
                status: spent.status,
                reason: &spent.reason,
                frame,
            };
            self.dead.appender.borrow_mut().append(Kind::DeadLetter, &[], &letter.encode(), wall);
        }
        let letters: Vec<_> = {
            let mut letters = self.dead.letters.borrow_mut();
            let n = letters.len().min(BATCH);
            letters.drain(..n).collect()
        };
        for (letter, _) in &letters {
            self.dead.appender.borrow_mut().append(Kind::DeadLetter, &[], letter, wall);
        }
        while let Err(e) = self.dead.store().await {
            if self.stopping.get() {
                return Err(e);
            }
            log::error!("shard {}: dead letters wait: {e}", self.shared.index);
            driver::sleep(TROUBLE_PAUSE).await;
        }
        for (_, reply) in letters {
            let _ = reply.send(());
        }
        self.dead.queue.borrow_mut().drain(..batch.len());
        for (slot, spent) in batch {
            slot.lane.borrow_mut().settle(spent.item.sequence);
            slot.stats.dead_lettered.add(1);
            slot.stats.waiting.sub(1);
            slot.pass_holds(self.dispatched.get());
            slot.notify.notify();
        }
        self.lane_settled.notify();
        self.answer_flushes();
        Ok(())
    }

    /// Finds the frame of an event that is not where it was written first: its segment failed.
    async fn find_frame(&self, sequence: u64) -> Result<Vec<u8>> {
        let Some(segment) = self.files.containing(sequence) else {
            return Err(Error::new(ErrorKind::Internal, format!("event {sequence} has lost its segment")));
        };
        driver::blocking(move || {
            let place = |e| Error::io("cannot read the log", &e).at(segment.path.display().to_string());
            let bytes = driver::fs::read(&segment.path).map_err(place)?;
            let mut frame = Vec::new();
            scan(&segment.header, &bytes, |_, r| {
                if r.sequence() == sequence {
                    frame = r.body().to_vec();
                }
            });
            Ok(frame)
        })
        .await
    }

    /// Reads one event's frame back from the log.
    async fn read_frame(&self, at: Position, sequence: u64) -> Result<Vec<u8>> {
        let holds = |s: &SegmentInfo| s.header.id == at.segment && s.last_sequence >= sequence;
        let Some(segment) = self.files.at_or_after(at.segment).filter(holds) else {
            return self.find_frame(sequence).await;
        };
        let place = |e| Error::io("cannot read the log", &e).at(segment.path.display().to_string());
        let file = DiskFile::open(&segment.path).await.map_err(place)?;
        let aligned = at.offset / BLOCK_BYTES as u64 * BLOCK_BYTES as u64;
        let skip = (at.offset - aligned) as usize;
        let mut want = 2 * BLOCK_BYTES;
        let mut bytes = Vec::new();
        let frame = loop {
            bytes.clear();
            file.read_at(aligned, want, &mut bytes).await.map_err(place)?;
            match record::parse(at.segment, bytes.get(skip..).unwrap_or_default()) {
                Parsed::Record(r) if r.sequence() == sequence => break Ok(r.body().to_vec()),
                Parsed::Short(need) if bytes.len() == want => want = (skip + need).next_multiple_of(BLOCK_BYTES),
                _ => {
                    self.shared.stats.damaged.add(1);
                    log::error!("{} at byte {}: event {sequence} is damaged", segment.path.display(), at.offset);
                    break Ok(Vec::new());
                }
            }
        };
        let _ = file.close().await;
        frame
    }
}
