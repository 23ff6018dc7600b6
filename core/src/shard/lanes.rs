//! Lanes at work: the task of each lane and its attempts.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
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

use super::dead::DeadEntry;
use super::dispatch::{Backlog, READ_ON_ROOM};
use super::endpoints::Endpoints;
use super::gate::Holds;
use super::handover::DELIVERY;
use super::queues::Queue;
use super::replay::ReplayLane;
use super::stats::LaneStats;
use super::walk::Walk;
use super::{Command, Shard, handover};
use crate::connect;
use crate::delivery::account::{Account, Sum};
use crate::delivery::balance::{Balancer, region_number};
use crate::delivery::behind::KeysBehind;
use crate::delivery::endpoint::Seat;
use crate::delivery::lane::{Action, Batch, BatchId, Item, Lane, LanePolicy, Now};
use crate::delivery::quota::{Level, Load};
use crate::delivery::{Connector, Fault, Outcome, Record};
use crate::driver::{self, Notify, Task};
use crate::error::{Error, ErrorKind, Result};
use crate::event::frame::Field as FrameField;
use crate::event::profile::Profile;
use crate::event::{EventId, FrameView, Priority};
use crate::log::appender::Position;
use crate::log::attempts::Tried;
use crate::log::cursor::Cursor;
use crate::log::record::{RecordView, Route};
use crate::log::shed::Shed;
use crate::log::standing::AttemptNote;
use crate::rule::{Destination, Order};

/// How long the lane waits after it could not read its backlog or write a dead letter.
pub(super) const TROUBLE_PAUSE: Duration = Duration::from_secs(1);

/// So much of an answer is remembered.
const ANSWER_KEPT_BYTES: usize = 4096;

/// How often a lane that goes after another one looks how far that is.
const FOLLOW_LOOK: Duration = Duration::from_millis(10);

/// What a lane holds of an event.
#[derive(Clone, Debug)]
pub(super) struct Body {
    pub(super) id: EventId,
    /// The rendered record, with the separator before it.
    pub(super) record: Bytes,
    /// Where the event stands in the log.
    pub(super) position: Position,
    /// The rule that sends it here.
    pub(super) rule: u32,
    /// Bytes that it takes in the log.
    pub(super) log_bytes: u32,
    /// The record shares its memory with others.
    pub(super) shared: bool,
    /// There is no record, but the reason why.
    pub(super) unwritable: bool,
    /// Which of the lane's formats it is written in.
    pub(super) format: u32,
}

impl Body {
    /// Takes the record out of memory that it shares with others.
    fn part(&mut self) {
        if self.shared {
            self.record = Bytes::copy_from_slice(&self.record);
            self.shared = false;
        }
    }
}

/// An attempt under way.
struct Running {
    task: Task<()>,
    /// Ends it before its time.
    stop: Rc<Notify>,
}

/// What is saved of a lane.
pub(super) struct Saved {
    pub(super) cursor: Cursor,
    pub(super) tried: BTreeMap<u64, Tried>,
    pub(super) shed: Shed,
}

impl Saved {
    /// Of a lane that is new, with everything up to `head` done.
    pub(super) fn new(head: u64) -> Saved {
        Saved { cursor: Cursor::at(head), tried: BTreeMap::new(), shed: Shed::default() }
    }
}

/// Where a lane asks whether it may send.
pub(super) struct Place {
    pub(super) endpoints: Arc<Endpoints>,
    pub(super) seat: Seat,
    /// Where events happened that do not say where.
    pub(super) region: u32,
}

impl Place {
    /// The endpoints of a lane that goes this way.
    fn endpoints(&self, number: u32, destination: Option<&Destination>, way: Way) -> Arc<Balancer> {
        match destination {
            Some(d) if way.home.is_none() => self.endpoints.of(number & !DELIVERY, d),
            _ => Endpoints::none(),
        }
    }
}

/// What a lane had open when the engine was opened, until that is counted.
struct Inherited {
    cursor: Cursor,
    shed: Shed,
}

/// What a lane has shed.
#[derive(Default)]
struct Shedding {
    shed: Shed,
    /// As far as it is durable what became of what was shed.
    saved: [u64; 3],
    walks: [Option<Walk>; 3],
}

/// A lane with what surrounds it.
pub(super) struct LaneSlot {
    /// The destination's number.
    pub(super) number: u32,
    /// It delivers what was handed over to the destination's home, and only that.
    delivers: bool,
    events_max: usize,
    way: Cell<Way>,
    /// The way that is taken once nothing is left in the lane.
    next_way: Cell<Option<Way>>,
    /// The shards that must deliver first what they were handed over.
    held_for: RefCell<Vec<usize>>,
    destination: RefCell<Option<Arc<Destination>>>,
    /// How often the format has changed.
    formats: Cell<u32>,
    /// By the numbers of endpoints.
    connectors: RefCell<BTreeMap<u32, Rc<dyn Connector>>>,
    lane: RefCell<Lane<Body>>,
    /// Where to read on, if the lane does not keep up.
    backlog: RefCell<Option<Backlog>>,
    /// What holds newer events back, after the number of shards has changed.
    holds: RefCell<Holds>,
    pub(super) notify: Notify,
    pub(super) stats: Arc<LaneStats>,
    pub(super) queue: Arc<Queue>,
    place: Place,
    account: RefCell<Account>,
    /// What the queue had room for when it was last told of what waits here.
    room: Cell<Sum>,
    /// Something of the group being dispatched was offered here.
    offered: Cell<bool>,
    inherited: RefCell<Option<Inherited>>,
    shedding: RefCell<Shedding>,
    /// Nothing that waits was accepted before.
    oldest_ns: Cell<u64>,
    /// The keys that have events which are left in the log, while the lane is behind.
    behind: RefCell<Option<KeysBehind>>,
    task: RefCell<Option<Task<()>>>,
    /// What waits is to be dropped, and nothing sent.
    purging: Cell<bool>,
    /// What was moved here from other destinations: their lanes, and up to which sequence they go first.
    follows: RefCell<Vec<(Rc<LaneSlot>, u64)>>,
    /// The task shall end.
    stopping: Cell<bool>,
    /// The attempts under way, and those that have ended since the last one began.
    attempts: RefCell<BTreeMap<BatchId, Running>>,
    ended: RefCell<Vec<BatchId>>,
    /// Bytes of records that it holds.
    held: Cell<usize>,
    /// Some of what waits may share its memory with others.
    shares: Cell<bool>,
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
    /// Of what was handed over to a destination's home.
    pub(super) const OF_DELIVERY: Way = Way { order: Order::Strict, home: None };
}

fn policy(destination: Option<&Destination>, way: Way, events_max: usize) -> LanePolicy {
    if way.home.is_some() {
        return handover::policy(events_max);
    }
    // A lane without a destination turns everything into dead letters, a batch at a time.
    let d = destination;
    LanePolicy {
        batch: d.map_or_else(Default::default, Destination::batch_limits),
        retry: d.map_or_else(Default::default, |d| d.retry),
        events_max,
    }
}

impl LaneSlot {
    #[allow(clippy::too_many_arguments)]
    pub(super) fn new(
        number: u32,
        destination: Option<Arc<Destination>>,
        way: Way,
        saved: Saved,
        backlog: Option<Backlog>,
        holds: Holds,
        stats: Arc<LaneStats>,
        queue: Arc<Queue>,
        place: Place,
        events_max: usize,
    ) -> LaneSlot {
        let Saved { cursor, tried, shed } = saved;
        let inherited = backlog.as_ref().map(|_| Inherited { cursor: cursor.clone(), shed: shed.clone() });
        // Of what earlier runs left it is not known how old it is.
        let oldest_ns = if inherited.is_some() { 0 } else { driver::wall_ns() };
        let endpoints = place.endpoints(number, destination.as_deref(), way);
        let mut lane = Lane::new(policy(destination.as_deref(), way, events_max), endpoints, place.seat, cursor);
        lane.restore_tried(tried);
        LaneSlot {
            number: number & !DELIVERY,
            delivers: number & DELIVERY != 0,
            events_max,
            way: Cell::new(way),
            next_way: Cell::new(None),
            held_for: RefCell::default(),
            lane: RefCell::new(lane),
            destination: RefCell::new(destination),
            formats: Cell::new(0),
            connectors: RefCell::default(),
            backlog: RefCell::new(backlog),
            holds: RefCell::new(holds),
            notify: Notify::default(),
            stats,
            queue,
            place,
            account: RefCell::new(Account::new(inherited.is_none())),
            room: Cell::default(),
            offered: Cell::default(),
            inherited: RefCell::new(inherited),
            shedding: RefCell::new(Shedding { saved: shed.up_to, shed, walks: [None; 3] }),
            oldest_ns: Cell::new(oldest_ns),
            behind: RefCell::default(),
            task: RefCell::new(None),
            purging: Cell::new(false),
            follows: RefCell::default(),
            stopping: Cell::new(false),
            attempts: RefCell::default(),
            ended: RefCell::default(),
            held: Cell::new(0),
            shares: Cell::new(false),
            replay: None,
        }
    }

    /// How a record goes to this lane, if it does.
    pub(super) fn route(&self, r: &RecordView<'_>) -> Option<Route> {
        match &self.replay {
            None if r.extensions().handed_over.is_some() != self.delivers => None,
            None => r.routes().find(|x| x.destination == self.number),
            Some(lane) => lane.route(r, self.number, self.destination.borrow().as_deref()),
        }
    }

    /// The lane's number: the destination's, or that of the lane that delivers what was handed over to it.
    pub(super) fn lane_number(&self) -> u32 {
        if self.delivers { self.number | DELIVERY } else { self.number }
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
        self.connectors.borrow_mut().clear();
    }

    /// Takes changed settings; the next attempt uses them. Another way is taken once what the lane holds is out: events
    /// that are on the old way would mix with those on the new one.
    pub(super) fn reconfigure(&self, destination: Arc<Destination>, way: Way) {
        if self.destination.borrow().as_ref().is_some_and(|d| **d == *destination) {
            return;
        }
        self.next_way.set(Some(way).filter(|w| *w != self.way.get()));
        self.set_destination(Some(destination));
        self.use_settings();
        self.change_way();
        self.notify.notify();
    }

    /// Its destination is gone: what waits is delivered with these settings, or without any becomes dead letters, or is
    /// dropped.
    pub(super) fn retire(&self, settings: Option<Arc<Destination>>, purge: bool) {
        if *self.destination.borrow() == settings && self.purging.get() == purge {
            return;
        }
        self.purging.set(purge);
        self.set_destination(settings);
        self.use_settings();
        self.notify.notify();
    }

    /// Whether what waits is to be dropped.
    pub(super) fn is_purged(&self) -> bool {
        self.purging.get()
    }

    /// Sends nothing before another lane has sent everything up to a sequence.
    pub(super) fn follow(&self, first: Rc<LaneSlot>, sequence: u64) {
        self.follows.borrow_mut().push((first, sequence));
    }

    /// Whether another lane goes first. `head` is the last event that was dispatched.
    fn is_following(&self, head: u64) -> bool {
        let mut follows = self.follows.borrow_mut();
        follows.retain(|(first, sequence)| first.low(head) < *sequence);
        !follows.is_empty()
    }

    /// What is held is in the format of before, and is written anew before it goes out.
    fn set_destination(&self, destination: Option<Arc<Destination>>) {
        let before = std::mem::replace(&mut *self.destination.borrow_mut(), destination);
        let same = match (&before, &*self.destination.borrow()) {
            (Some(a), Some(b)) => a.profile == b.profile && a.format == b.format,
            (None, Some(_)) => false,
            (_, None) => true,
        };
        if !same {
            self.formats.set(self.formats.get().wrapping_add(1));
        }
    }

    fn use_settings(&self) {
        let (destination, way) = (self.destination.borrow(), self.way.get());
        let policy = policy(destination.as_deref(), way, self.events_max);
        let endpoints = self.place.endpoints(self.number, destination.as_deref(), way);
        self.lane.borrow_mut().set_policy(policy, endpoints);
        self.reconnect();
    }

    /// Connects anew for what is sent from now on.
    pub(super) fn reconnect(&self) {
        self.connectors.borrow_mut().clear();
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

    /// Whether nothing is sent until somebody says otherwise.
    pub(super) fn is_stopped(&self) -> bool {
        self.lane.borrow().endpoints().is_stopped()
    }

    /// Whether nothing is on its way, and nothing will be until somebody says otherwise.
    pub(super) fn is_left(&self) -> bool {
        self.is_stopped() && self.lane.borrow().in_flight() == 0
    }

    pub(super) fn destination(&self) -> Option<Arc<Destination>> {
        self.destination.borrow().clone()
    }

    /// The profile in which events are written, and the destination, if its format is more than that.
    #[inline]
    pub(super) fn form(&self) -> Option<(Profile, Option<Arc<Destination>>)> {
        let destination = self.destination.borrow();
        let d = destination.as_ref()?;
        Some((d.profile, (!d.format.is_plain()).then(|| d.clone())))
    }

    /// The number of the format that records are written in now.
    pub(super) fn format_number(&self) -> u32 {
        self.formats.get()
    }

    pub(super) fn name(&self) -> String {
        match &*self.destination.borrow() {
            Some(d) => d.label(),
            None => format!("removed destination #{}", self.number),
        }
    }

    /// Whether the destination is configured no more.
    pub(super) fn is_orphan(&self) -> bool {
        self.destination.borrow().is_none()
    }

    /// The shard that events are handed over to, which may be this one.
    pub(super) fn home(&self) -> Option<usize> {
        self.way.get().home
    }

    /// By what the lane keeps events in order.
    pub(super) fn order_key(&self, resource_hash: u64, sequence: u64) -> u64 {
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

    /// Whether nothing may be pushed before what was pushed is out, here or where it was handed over to.
    fn changes_way(&self) -> bool {
        self.next_way.get().is_some() || self.held_for().is_some()
    }

    /// How many more events may be pushed.
    pub(super) fn room(&self) -> usize {
        if self.changes_way() { 0 } else { self.lane.borrow().room() }
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

    /// Whether an event of this priority may be pushed.
    pub(super) fn has_room(&self, priority: Priority) -> bool {
        match priority {
            Priority::High => !self.changes_way() && self.lane.borrow().has_high_room(),
            _ => self.room() > 0,
        }
    }

    /// From now on events stay in the log. With `keys` it is noted whose, so that others need not wait behind them.
    pub(super) fn fall_behind(&self, backlog: Backlog, keys: Option<KeysBehind>) {
        *self.backlog.borrow_mut() = Some(backlog);
        *self.behind.borrow_mut() = keys;
        self.notify.notify();
    }

    /// Whether it is noted whose events stay in the log.
    pub(super) fn notes_keys(&self) -> bool {
        self.behind.borrow().is_some()
    }

    /// An event stays in the log, while the lane is behind.
    pub(super) fn leave(&self, key: u64, sequence: u64) {
        if let Some(keys) = &mut *self.behind.borrow_mut() {
            keys.left(key, sequence);
        }
    }

    /// Whether an event may be pushed before what the lane has not read yet.
    pub(super) fn may_pass(&self, key: u64) -> bool {
        let seen = self.backlog.borrow().as_ref().map_or(0, Backlog::seen);
        self.behind.borrow().as_ref().is_some_and(|keys| keys.may_pass(key, seen))
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
    /// holds them back, they stay in the log. Returns how many events were counted that are not to be found any more.
    pub(super) fn catch_up(&self, at: Position, hold: Option<u64>) -> u64 {
        {
            let mut backlog = self.backlog.borrow_mut();
            *backlog = match (hold, &*backlog) {
                (Some(first), Some(b)) => Some(Backlog::at(at, b.seen().max(first - 1))),
                _ => None,
            };
            if backlog.is_some() {
                return 0;
            }
        }
        *self.behind.borrow_mut() = None;
        *self.inherited.borrow_mut() = None;
        self.account(Account::catch_up)
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

    /// Does something with the account, and tells the statistics.
    fn account<R>(&self, with: impl FnOnce(&mut Account) -> R) -> R {
        let mut account = self.account.borrow_mut();
        let result = with(&mut account);
        let Load { events, bytes } = account.waiting_or_entering();
        self.stats.waiting.set(events);
        self.stats.waiting_bytes.set(bytes);
        self.stats.inherited.set(account.inherited());
        result
    }

    /// An event was dispatched here, which had entered before. Whoever asks meanwhile finds it counted once.
    pub(super) fn admit(&self, sequence: u64, priority: Priority, log_bytes: usize) {
        self.account(|a| {
            a.entered(sequence);
            a.admit(priority, log_bytes as u64);
        });
    }

    /// An event that was never pushed is not to be delivered any more.
    pub(super) fn dismiss(&self, priority: Priority, log_bytes: usize) {
        self.account(|a| a.dismiss(priority, log_bytes as u64));
    }

    /// Events that were pushed are done with.
    pub(super) fn release<'a>(&self, items: impl IntoIterator<Item = &'a Item<Body>>) {
        self.account(|a| items.into_iter().for_each(|i| a.release(i.priority, i.body.log_bytes.into())));
    }

    /// What waits here.
    pub(super) fn waiting(&self) -> Load {
        self.account.borrow().waiting()
    }

    pub(super) fn waiting_of(&self, priority: Priority) -> Load {
        self.account.borrow().waiting_of(priority)
    }

    /// An event goes into the log, with this sequence. Whether the queue should be told: what it does not know makes out
    /// an eighth of the room that it had.
    #[inline]
    pub(super) fn enter(&self, sequence: u64, bytes: usize) -> bool {
        let mut account = self.account.borrow_mut();
        account.enter(sequence, bytes as u64);
        self.stats.routed.add(1);
        self.stats.waiting.add(1);
        self.stats.waiting_bytes.add(bytes as u64);
        let (change, room) = (account.change(), self.room.get());
        change.events * 8 >= room.events || change.bytes * 8 >= room.bytes
    }

    /// Marks that it is offered something of a group. Whether it was not marked yet.
    pub(super) fn mark_offered(&self) -> bool {
        !self.offered.replace(true)
    }

    pub(super) fn unmark_offered(&self) {
        self.offered.set(false);
    }

    /// What has changed since it was asked last.
    pub(super) fn take_change(&self) -> Sum {
        self.account.borrow_mut().take_change()
    }

    /// Looks how full the queue is.
    pub(super) fn take_level(&self) {
        self.lane.borrow_mut().set_pressure(self.queue.level() > Level::Free);
        self.room.set(self.queue.room());
    }

    /// Whether an event was open when the engine was opened, as far as that is not counted yet.
    pub(super) fn was_open(&self, sequence: u64, priority: Priority) -> bool {
        let inherited = self.inherited.borrow();
        inherited.as_ref().is_some_and(|i| !i.cursor.is_done(sequence) && !i.shed.is_shed(sequence, priority))
    }

    /// Whether everything that earlier runs left is counted.
    pub(super) fn is_counted(&self) -> bool {
        self.account.borrow().is_counted()
    }

    /// So much was found to have been left by earlier runs.
    pub(super) fn inherit(&self, loads: [Load; 3]) {
        self.account(|a| a.inherit(loads));
    }

    /// Everything that earlier runs left is counted.
    pub(super) fn has_inherited(&self) {
        *self.inherited.borrow_mut() = None;
        self.account(Account::has_inherited);
    }

    pub(super) fn oldest_ns(&self) -> u64 {
        self.oldest_ns.get()
    }

    pub(super) fn set_oldest_ns(&self, ns: u64) {
        self.oldest_ns.set(ns);
    }

    /// Whether an event was shed.
    pub(super) fn is_shed(&self, sequence: u64, priority: Priority) -> bool {
        self.shedding.borrow().shed.is_shed(sequence, priority)
    }

    pub(super) fn shed_up_to(&self, priority: Priority) -> u64 {
        self.shedding.borrow().shed.up_to[priority as usize]
    }

    pub(super) fn shed_walk(&self, priority: Priority) -> Option<Walk> {
        self.shedding.borrow().walks[priority as usize]
    }

    /// Everything of a priority up to where `walk` has come is shed, but for what is on its way. Of what waits, so much is
    /// not in memory.
    pub(super) fn shed(&self, priority: Priority, walk: Walk, load: Load) {
        self.account(|a| a.leave(priority, load));
        let mut shedding = self.shedding.borrow_mut();
        for p in [Priority::Low, Priority::Normal, Priority::High] {
            // Of a priority of which nothing waits there is nothing up to here either.
            if p == priority || self.account.borrow().has_none_of(p) {
                let up_to = &mut shedding.shed.up_to[p as usize];
                if walk.seen >= *up_to {
                    *up_to = walk.seen;
                    shedding.walks[p as usize] = Some(walk);
                }
            }
        }
        // What is shed whatever its priority need not be read again.
        let lowest = shedding.shed.lowest();
        let to = shedding.walks.iter().flatten().min_by_key(|w| w.seen).copied();
        if let Some(to) = to.filter(|w| w.seen == lowest)
            && let Some(backlog) = &mut *self.backlog.borrow_mut()
            && backlog.seen() < to.seen
        {
            *backlog = Backlog::at(to.at, to.seen);
        }
    }

    /// What was shed is durably so: `taken`, which the lane held, and so much else.
    pub(super) fn has_shed(&self, priority: Priority, load: Load, taken: &[Item<Body>]) {
        self.release(taken);
        taken.iter().for_each(|item| self.settle(item.sequence));
        self.account(|a| a.left(priority, load));
        let mut shedding = self.shedding.borrow_mut();
        shedding.saved = shedding.shed.up_to;
    }

    /// Where the waiting events are that `which` chooses: sequence, position and bytes in the log.
    pub(super) fn waiting_at(&self, which: impl Fn(&Item<Body>) -> bool) -> Vec<(u64, Position, u64)> {
        let lane = self.lane.borrow();
        let chosen = lane.waiting().filter(|i| which(i));
        chosen.map(|i| (i.sequence, i.body.position, u64::from(i.body.log_bytes))).collect()
    }

    /// Takes waiting events out of the lane; see [`Lane::take`].
    pub(super) fn take(&self, gone: impl Fn(&Item<Body>) -> bool) -> Vec<Item<Body>> {
        self.lane.borrow_mut().take(gone)
    }

    pub(super) fn busy(&self, retries: bool) -> BTreeSet<u64> {
        self.lane.borrow().busy(retries)
    }

    pub(super) fn attempts_of(&self, sequence: u64) -> u32 {
        self.lane.borrow().tried().get(&sequence).map_or(0, |t| t.attempts)
    }

    /// What was shed, as it is to be saved; `None` if the cursor says it all.
    pub(super) fn shed_to_save(&self, low: u64) -> Option<Shed> {
        let mut shedding = self.shedding.borrow_mut();
        let lane = self.lane.borrow();
        shedding.shed.kept.retain(|s| *s > low && !lane.is_done(*s));
        let mut shed = Shed { up_to: shedding.saved, kept: shedding.shed.kept.clone() };
        if shed.highest() <= low {
            return None;
        }
        shed.kept.extend(lane.open_up_to(shed.highest()));
        Some(shed)
    }

    /// Up to here at most the cursor may be raised: what is shed beyond is not durably so.
    fn seen(&self, head: u64) -> u64 {
        let seen = self.backlog.borrow().as_ref().map_or(head, Backlog::seen);
        let shedding = self.shedding.borrow();
        let marks = shedding.saved.iter().zip(&shedding.shed.up_to);
        marks.filter(|(saved, up_to)| saved < up_to).map(|(saved, _)| *saved).fold(seen, u64::min)
    }

    /// Pushes an event; `false` if it was done before, or is here already.
    pub(super) fn push(
        &self,
        sequence: u64,
        frame: &FrameView<'_>,
        accepted_ns: u64,
        priority: Priority,
        body: Body,
        now: Now,
    ) -> bool {
        let key = self.order_key(frame.resource_hash(), sequence);
        let mut lane = self.lane.borrow_mut();
        let region = match lane.endpoints().has_regions() {
            false => 0,
            true => match frame.text(FrameField::Region) {
                "" => self.place.region,
                named => region_number(named),
            },
        };
        let (bytes, log_bytes, shared) = (body.record.len(), u64::from(body.log_bytes), body.shared);
        let pushed = lane.push(Item { sequence, key, bytes, accepted_ns, priority, region, body }, now);
        if pushed {
            self.held.set(self.held.get() + bytes);
            self.shares.set(self.shares.get() || shared);
            if self.replay.is_some() {
                // It is not dispatched: this is where it comes to be waited for.
                self.stats.routed.add(1);
                self.account(|a| a.admit(priority, log_bytes));
            }
            self.account(|a| a.hold(priority, log_bytes));
        }
        pushed
    }

    /// Whether the lane has the event, and it is not done.
    pub(super) fn holds(&self, sequence: u64) -> bool {
        self.lane.borrow().holds(sequence)
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
        if !self.is_empty() {
            self.notify.notify();
        }
    }

    /// Whether what is pushed now will wait: its endpoints are left alone, or fail.
    pub(super) fn is_held_up(&self, now: Now) -> bool {
        self.lane.borrow().endpoints().is_held_up(now.mono_ns)
    }

    /// What was pushed before a time (monotonic ns) and still waits must not hold the memory that it shares with others.
    pub(super) fn part_waiting(&self, before_ns: u64) {
        if self.shares.get() {
            let (mut lane, mut shares) = (self.lane.borrow_mut(), false);
            for (item, pushed_ns) in lane.ready_mut() {
                if pushed_ns < before_ns {
                    item.body.part();
                }
                shares |= item.body.shared;
            }
            self.shares.set(shares);
        }
    }

    /// Marks an event done for good: its dead letter is kept.
    pub(super) fn settle(&self, sequence: u64) {
        self.lane.borrow_mut().settle(sequence);
    }

    /// Everything up to here is done; `head` is the last event that was dispatched.
    pub(super) fn low(&self, head: u64) -> u64 {
        self.marks(head)[0]
    }

    /// What changes with everything that is to be saved: the cursor's low-water mark and highest sequence, how often
    /// attempts were counted, and how far was shed.
    pub(super) fn marks(&self, head: u64) -> [u64; 4] {
        let seen = self.seen(head);
        let mut lane = self.lane.borrow_mut();
        let changes = lane.tried_changes();
        let c = lane.cursor(seen);
        [c.low(), c.high(), changes, self.shedding.borrow().saved.iter().fold(0, |sum, mark| sum.wrapping_add(*mark))]
    }

    /// The attempts that events have behind them which are not done, if any.
    pub(super) fn tried(&self) -> Option<BTreeMap<u64, Tried>> {
        Some(self.lane.borrow().tried()).filter(|t| !t.is_empty()).cloned()
    }

    /// The lane's cursor as it is to be saved.
    pub(super) fn cursor(&self, head: u64) -> Cursor {
        let seen = self.seen(head);
        self.lane.borrow_mut().cursor(seen).clone()
    }

    pub(super) fn connectors(&self) -> Vec<Rc<dyn Connector>> {
        self.connectors.borrow().values().cloned().collect()
    }

    /// The connector of an endpoint, made when it is first needed: a destination that is down never delays the start.
    fn connect(&self, shard: &Shard, endpoint: u32) -> Result<Option<Rc<dyn Connector>>> {
        let Some(destination) = self.destination.borrow().clone() else { return Ok(None) };
        if let Some(c) = self.connectors.borrow().get(&endpoint) {
            return Ok(Some(c.clone()));
        }
        let c = match self.home() {
            Some(home) => shard.hand_over_to(home),
            None => {
                let at = self.lane.borrow().endpoints().place_of(endpoint);
                let at = at.ok_or_else(|| Error::new(ErrorKind::NotFound, "the endpoint is configured no more"))?;
                let reached = self.place.endpoints.reached(self.number, &destination, at);
                connect::connector(&reached, &shard.shared.common.network, &shard.answers)?
            }
        };
        self.connectors.borrow_mut().insert(endpoint, c.clone());
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
            if slot.is_purged() {
                slot.notify.notified().await;
                continue;
            }
            if slot.is_following(self.dispatched.get()) {
                let _ = driver::within(FOLLOW_LOOK, slot.notify.notified()).await;
                continue;
            }
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
        let paced = slot.is_behind() && slot.has_reading_room() && !self.out_of_memory_for(slot, Priority::Normal);
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
        let (reply, mut done) = oneshot::channel();
        peer.command(Command::Flush { position: peer.ring.tail(), destination: Some(slot.number | DELIVERY), reply });
        while !slot.stopping.get() && slot.held_for() == Some(home) {
            match select(&mut done, pin!(slot.notify.notified())).await {
                Either::Left((Ok(()), _)) => return true,
                Either::Left((Err(_), _)) => {
                    // It has ended. This shard will be told to end too.
                    let _ = driver::within(TROUBLE_PAUSE, slot.notify.notified()).await;
                    return false;
                }
                Either::Right(_) => {}
            }
        }
        false
    }

    /// Sends a batch in a task of its own.
    fn begin_attempt(self: &Rc<Self>, slot: &Rc<LaneSlot>, batch: Batch<Body>) {
        let (shard, lane) = (self.clone(), slot.clone());
        let id = batch.id;
        let stop = Rc::new(Notify::default());
        let stopped = stop.clone();
        let task = driver::spawn(async move {
            let begun = driver::now();
            let outcome = {
                let attempt = pin!(AssertUnwindSafe(lane.attempt(&shard, &batch)).catch_unwind());
                // Ended by a word rather than cancelled: the runtime does not free the memory of a cancelled task.
                match select(attempt, pin!(stopped.notified())).await {
                    Either::Left((Ok(outcome), _)) => outcome,
                    Either::Left((Err(_), _)) => Outcome::Retry {
                        fault: Fault::Endpoint,
                        reason: "the connector panicked; a defect of Tidewire".into(),
                        status: 0,
                        answer: Bytes::new(),
                    },
                    Either::Right(_) => return,
                }
            };
            if !matches!(outcome, Outcome::Success) {
                // It may have failed without a wait. With many events that are due the lane would go from one such attempt
                // to the next, and nobody else's turn would come.
                driver::turn().await;
            }
            lane.remember(&batch, &outcome, begun);
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
        stats.requests.add(u64::from(!handed_over && !matches!(outcome, Outcome::Unwritable { .. })));
        if !handed_over {
            let connectors = slot.connectors();
            if !connectors.is_empty() {
                stats.connections.set(connectors.iter().map(|c| c.connections()).sum());
            }
        }
        let now = self.now();
        let mut freed = 0;
        let mut delivered = |items: &[Item<Body>]| {
            freed += items.iter().map(|i| i.bytes).sum::<usize>();
            slot.release(items);
            if !handed_over {
                let age = |i: &Item<Body>| Duration::from_nanos(now.wall_ns.saturating_sub(i.accepted_ns));
                self.shared.stats.latency.record(items.iter().map(age));
            }
        };
        match &outcome {
            Outcome::Unwritable { events } => {
                stats.failures.add(1);
                if let Some((_, reason)) = events.first() {
                    stats.last_error.lock().clone_from(reason);
                }
            }
            Outcome::Success => delivered(&batch.items),
            Outcome::Retry { reason, .. }
            | Outcome::Denied { reason, .. }
            | Outcome::Gone { reason, .. }
            | Outcome::Partial { reason, .. }
            | Outcome::Throttle { reason, .. }
            | Outcome::Poison { reason, .. }
            | Outcome::Undeliverable { reason } => {
                stats.failures.add(1);
                log::debug!("shard {}, destination #{}: {reason}", self.shared.index, slot.number);
                *stats.last_error.lock() = reason.clone();
                // What may wait for hours must not hold the memory that it shares with others.
                batch.items.iter_mut().for_each(|item| item.body.part());
            }
        }
        let done = slot.lane.borrow_mut().complete(batch, outcome, now, self.random());
        delivered(&done.delivered_items);
        if let Some(seat) = done.wake {
            self.tell_turn(slot.number, seat);
        }
        let counted = if handed_over { &stats.handed_over } else { &stats.delivered };
        counted.add(done.delivered as u64);
        stats.retried.add(done.retried as u64);
        freed += done.spent.iter().map(|s| s.item.bytes).sum::<usize>();
        self.free(slot, freed);
        for spent in done.spent {
            self.dead.push(DeadEntry::Spent(slot.clone(), spent));
        }
        self.settle_queue(slot);
        slot.pass_holds(self.dispatched.get());
        slot.notify.notify();
        self.lane_moved();
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

impl Shard {
    /// The lanes of a destination here may have something to send again.
    pub(super) fn wake_lanes_of(&self, number: u32) {
        self.lanes_of(number).iter().for_each(|slot| slot.notify.notify());
    }

    /// The lanes of a destination here connect anew.
    pub(super) fn reconnect_lanes_of(&self, number: u32) {
        self.lanes_of(number).iter().for_each(|slot| slot.reconnect());
        self.wake_lanes_of(number);
    }

    /// The lanes of a destination here: its own, what delivers what was handed over to it, replays.
    fn lanes_of(&self, number: u32) -> Vec<Rc<LaneSlot>> {
        let (lanes, replays) = (self.lanes.borrow(), self.keeping.replays.borrow());
        let own = [number, number | DELIVERY].into_iter().filter_map(|n| lanes.get(&n));
        own.chain(replays.values().filter(|slot| slot.number == number)).cloned().collect()
    }

    /// Tells those who have the seat that an attempt of another one has ended.
    fn tell_turn(&self, number: u32, seat: Seat) {
        for peer in self.peers.iter().filter(|p| seat.is_of(p.index)) {
            if peer.index == self.shared.index {
                self.wake_lanes_of(number);
            } else {
                peer.command(Command::Turn(number));
            }
        }
    }

    /// Bytes of rendered records that a lane does not hold any more.
    pub(super) fn free(&self, slot: &LaneSlot, bytes: usize) {
        slot.held.set(slot.held.get().saturating_sub(bytes));
        self.held_bytes.set(self.held_bytes.get().saturating_sub(bytes));
        self.shared.stats.held_bytes.set(self.held_bytes.get() as u64);
    }
}

/// The beginning of an answer. What is no text takes more room as such, and is bounded all the same.
fn text_of(answer: &[u8]) -> String {
    let mut text = String::from_utf8_lossy(&answer[..answer.len().min(ANSWER_KEPT_BYTES)]).into_owned();
    text.truncate(text.floor_char_boundary(ANSWER_KEPT_BYTES));
    text
}

impl LaneSlot {
    /// Remembers an attempt that failed, or the first one after such that did not.
    fn remember(&self, batch: &Batch<Body>, outcome: &Outcome, begun: Instant) {
        let Some(endpoint) = batch.endpoint() else { return };
        if (*outcome == Outcome::Success && !endpoint.is_troubled()) || self.home().is_some() {
            return;
        }
        let nothing = (&String::new(), 0, &Bytes::new());
        let (word, (reason, status, answer)) = match outcome {
            Outcome::Success => ("delivered", nothing),
            Outcome::Retry { reason, status, answer, .. } => ("retry", (reason, *status, answer)),
            Outcome::Throttle { reason, status, answer, .. } => ("wait", (reason, *status, answer)),
            Outcome::Denied { reason, status, answer } => ("denied", (reason, *status, answer)),
            Outcome::Gone { reason, status, answer } => ("gone", (reason, *status, answer)),
            Outcome::Partial { reason, status, answer, .. } => ("partial", (reason, *status, answer)),
            Outcome::Poison { reason, status, answer } => ("wrong", (reason, *status, answer)),
            Outcome::Undeliverable { reason } => ("undeliverable", (reason, 0, nothing.2)),
            Outcome::Unwritable { events } => {
                ("unwritable", (events.first().map_or(nothing.0, |(_, reason)| reason), 0, nothing.2))
            }
        };
        endpoint.remember(AttemptNote {
            at_ms: driver::wall_ns() / 1_000_000,
            took_ms: u64::try_from(driver::since(begun).as_millis()).unwrap_or(u64::MAX),
            events: batch.items.len(),
            first_event: batch.items.first().map(|i| i.body.id.to_string()).unwrap_or_default(),
            outcome: word.to_owned(),
            status,
            reason: reason.clone(),
            answer: text_of(answer),
            endpoint: self.address_of(endpoint.id()),
        });
    }

    /// Where an endpoint is, without its path, if there are several.
    fn address_of(&self, endpoint: u32) -> String {
        let at = self.lane.borrow().endpoints().place_of(endpoint);
        let destination = self.destination.borrow();
        let Some(w) = destination.as_ref().and_then(|d| d.kind.webhook()) else { return String::new() };
        let url = at.and_then(|at| w.endpoints.get(at)).filter(|_| w.endpoints.len() > 1);
        url.map_or(String::new(), |e| e.url.origin().ascii_serialization())
    }

    async fn attempt(&self, shard: &Shard, batch: &Batch<Body>) -> Outcome {
        match self.connect(shard, batch.endpoint().map_or(0, |e| e.id())) {
            Ok(Some(connector)) => {
                let record = |i: &Item<Body>| Record { id: i.body.id, bytes: i.body.record.clone() };
                let mut records: Vec<Record> = batch.items.iter().map(record).collect();
                let again = |e: Error| Outcome::Retry {
                    fault: Fault::Own,
                    reason: e.to_string(),
                    status: 0,
                    answer: Bytes::new(),
                };
                if self.home().is_some() {
                    // What is handed over and then lost here would have its sequence given to another event, which the
                    // home would take for a repeat.
                    if let Err(e) = shard.durable(batch.items.last().map_or(0, |i| i.sequence)).await {
                        return again(e);
                    }
                } else {
                    let format = self.format_number();
                    let reason = |i: &Item<Body>| String::from_utf8_lossy(&i.body.record).into_owned();
                    let fresh = |i: &&Item<Body>| i.body.format == format;
                    let unwritable = batch.items.iter().filter(fresh).filter(|i| i.body.unwritable);
                    let mut events: Vec<(u64, String)> = unwritable.map(|i| (i.sequence, reason(i))).collect();
                    for (item, record) in batch.items.iter().zip(&mut records).filter(|(i, _)| !fresh(i)) {
                        match shard.rewrite(self, item).await {
                            Ok(Ok(bytes)) => record.bytes = bytes,
                            Ok(Err(reason)) => events.push((item.sequence, reason)),
                            Err(e) => return again(e),
                        }
                    }
                    if !events.is_empty() {
                        return Outcome::Unwritable { events };
                    }
                    if self.format_number() != format {
                        // It has changed once more meanwhile, and the connector is of before.
                        return again(Error::new(ErrorKind::Internal, "the format has changed"));
                    }
                }
                connector.send(&records).await
            }
            Ok(None) => Outcome::Undeliverable { reason: "the destination was removed from the configuration".into() },
            Err(e) => Outcome::Retry { fault: Fault::Endpoint, reason: e.to_string(), status: 0, answer: Bytes::new() },
        }
    }
}
