//! The lane: one destination on one shard.
//!
//! Events of one resource key leave in order, one request at a time; events of different keys do not wait for each other.
//! A batch that fails stays together, so that its retry carries the same events, and blocks only the keys in it. A batch
//! that the receiver calls wrong is cut in half until the wrong event stands alone.
//!
//! The lane holds what is on its way and what is ready, within limits. What does not fit stays in the log: the caller asks
//! [`Lane::has_room`] and reads on later.
//!
//! Of what is ready, keys with events of high priority go first. A key goes as a whole, so that its events keep their order:
//! one of high priority takes those before it along. Under pressure, keys with nothing but low priority wait for all others.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BinaryHeap, HashMap, HashSet, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use bytes::Bytes;

use super::balance::{Balancer, Want};
use super::breaker::{Gate, backoff};
use super::endpoint::{Endpoint, Leave, NEVER_NS, Permit, Said, Seat};
use crate::event::Priority;
use crate::log::attempts::Tried;
use crate::log::cursor::Cursor;
use crate::rule::{BatchLimits, RetryPolicy};

/// The time, passed into every call: monotonic for waiting, wall for the age of events. Nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Monotonic, from any start.
    pub mono_ns: u64,
    /// Since the Unix epoch.
    pub wall_ns: u64,
}

/// What the lane needs to know of its destination.
#[derive(Clone, Debug)]
pub struct LanePolicy {
    /// When a batch is full, and how long it waits for more.
    pub batch: BatchLimits,
    /// Back-off and budget.
    pub retry: RetryPolicy,
    /// Events held in memory at most.
    pub events_max: usize,
}

/// One event for the lane. `T` is what the caller needs to send it.
#[derive(Clone, Debug)]
pub struct Item<T> {
    /// Place in the shard's log.
    pub sequence: u64,
    /// Hash of the resource key. Two keys with one hash are merely kept in order with each other.
    pub key: u64,
    /// Size in a request's body.
    pub bytes: usize,
    /// When it was accepted, ns since the epoch.
    pub accepted_ns: u64,
    /// What goes first.
    pub priority: Priority,
    /// Where it happened, as [`super::balance::region_number`] has it.
    pub region: u32,
    /// The caller's.
    pub body: T,
}

/// A batch's number within its lane.
pub type BatchId = u64;

/// The events of one request, in order per key.
#[derive(Debug)]
pub struct Batch<T> {
    /// Its number.
    pub id: BatchId,
    /// The events.
    pub items: Vec<Item<T>>,
    /// Attempts made and counted so far.
    pub attempts: u32,
    /// Of those, how many the receiver called wrong.
    poisoned: u32,
    /// Held while it is on its way.
    permit: Option<Permit>,
    /// It was tried at once when the endpoint came back, instead of after its back-off.
    hurried: bool,
    /// The endpoint that failed with it last.
    failed: Option<u32>,
}

impl<T> Batch<T> {
    /// The endpoint that it goes to, while it is on its way.
    pub fn endpoint(&self) -> Option<&Arc<Endpoint>> {
        self.permit.as_ref().map(Permit::endpoint)
    }
}

/// Whose fault it is that an attempt failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Of these events, or of nobody that matters to others: the endpoint answered for itself.
    Events,
    /// The endpoint's: no connection, an answer that is none, 5xx. Counts for the breaker.
    Endpoint,
    /// The same, and we are likely too much for it: no answer in time, 503.
    Overload,
    /// Ours: the endpoint had no part in it.
    Own,
}

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Delivered.
    Success,
    /// It failed, and is tried again.
    Retry {
        /// Whose fault it is.
        fault: Fault,
        /// What to tell an operator.
        reason: String,
        /// The answer's status, 0 if none.
        status: u16,
        /// The beginning of the answer's body, as far as the connector keeps it.
        answer: Bytes,
    },
    /// The endpoint asks to be left alone; the attempt does not count. `after_ns`, if it said how long.
    Throttle {
        /// How long, if it said.
        after_ns: Option<u64>,
        /// What to tell an operator.
        reason: String,
        /// The answer's status.
        status: u16,
        /// The beginning of the answer's body.
        answer: Bytes,
    },
    /// The endpoint does not let us in (401, 403): the whole endpoint is left alone but for probes, and the events keep
    /// their full budget, for it is the credentials that are wrong.
    Denied {
        /// What to tell an operator.
        reason: String,
        /// The answer's status.
        status: u16,
        /// The beginning of the answer's body.
        answer: Bytes,
    },
    /// The endpoint is there no more (410): the whole endpoint is left alone but for a probe each hour, and given up after
    /// a day.
    Gone {
        /// What to tell an operator.
        reason: String,
        /// The answer's status.
        status: u16,
        /// The beginning of the answer's body.
        answer: Bytes,
    },
    /// The receiver took the request, but for some of its events.
    Partial {
        /// Their places in the request, ascending, each once.
        failed: Vec<usize>,
        /// What to tell an operator.
        reason: String,
        /// The answer's status.
        status: u16,
        /// The beginning of the answer's body.
        answer: Bytes,
    },
    /// The receiver calls the request wrong (400, 413, 415, 422).
    Poison {
        /// What to tell an operator.
        reason: String,
        /// The answer's status.
        status: u16,
        /// The beginning of the answer's body.
        answer: Bytes,
    },
    /// Nothing was sent, for these events of the batch, by their sequences, have no record: they become dead letters, each
    /// for its reason, and the others go at once.
    Unwritable {
        /// Sequences and reasons; at least one.
        events: Vec<(u64, String)>,
    },
    /// Never sent and never will be: every event becomes a dead letter.
    Undeliverable {
        /// What to tell an operator.
        reason: String,
    },
}

/// An event whose budget is spent. The caller stores it, then calls [`Lane::settle`].
#[derive(Clone, Debug)]
pub struct Spent<T> {
    /// The event.
    pub item: Item<T>,
    /// Attempts made.
    pub attempts: u32,
    /// Why.
    pub reason: String,
    /// The last answer's status, 0 if none.
    pub status: u16,
    /// The beginning of the last answer's body.
    pub answer: Bytes,
}

/// What went wrong last with a batch.
struct Failure {
    /// Everything to that endpoint would have failed.
    with_endpoint: bool,
    reason: String,
    status: u16,
    answer: Bytes,
}

/// What the caller shall do next.
#[derive(Debug)]
pub enum Action<T> {
    /// Send this batch and report with [`Lane::complete`].
    Send(Batch<T>),
    /// Nothing before this time (monotonic ns), unless something is pushed or completed.
    Wait(u64),
    /// Nothing until something is pushed or completed.
    Idle,
}

impl<T> Action<T> {
    /// The earlier one of two times to wait for.
    fn sooner(self, other: Action<T>) -> Action<T> {
        match (self, other) {
            (Action::Wait(a), Action::Wait(b)) => Action::Wait(a.min(b)),
            (Action::Idle, other) => other,
            (one, _) => one,
        }
    }
}

/// What a completion brought.
#[derive(Debug)]
pub struct Completed<T> {
    /// Events that are delivered.
    pub delivered: usize,
    /// Events that will be tried again.
    pub retried: usize,
    /// Events that will not.
    pub spent: Vec<Spent<T>>,
    /// Those of a batch that are delivered while others of it are not.
    pub delivered_items: Vec<Item<T>>,
    /// Another lane of the same endpoint that is to be told that it may send.
    pub wake: Option<Seat>,
}

const NONE: u32 = u32::MAX;
/// So many keys are looked at for one whose endpoint has a place.
const KEYS_LOOKED_AT: usize = 512;
/// Between the attempts of an event that the receiver calls wrong: three attempts within about five minutes.
const POISON_BACKOFF_NS: u64 = 60_000_000_000;

#[derive(Debug)]
struct Slot<T> {
    item: Option<Item<T>>,
    pushed_ns: u64,
    next: u32,
}

/// The events of one key that wait: a list through the slots. `busy` while one of the key is in a batch.
#[derive(Debug)]
struct KeyQueue {
    head: u32,
    tail: u32,
    busy: bool,
    /// The queue of ready keys that it is in, if it is ready.
    class: Priority,
    /// Events that wait, and of which priority.
    events: u32,
    high: u32,
    low: u32,
}

impl KeyQueue {
    fn class(&self, pressure: bool) -> Priority {
        match () {
            () if self.high > 0 => Priority::High,
            () if pressure && self.low == self.events => Priority::Low,
            () => Priority::Normal,
        }
    }

    fn count(&mut self, priority: Priority, by: i32) {
        self.events = self.events.saturating_add_signed(by);
        match priority {
            Priority::High => self.high = self.high.saturating_add_signed(by),
            Priority::Low => self.low = self.low.saturating_add_signed(by),
            Priority::Normal => {}
        }
    }
}

#[derive(Debug)]
struct Later<T> {
    at_ns: u64,
    /// It failed with its endpoint, not by itself.
    with_endpoint: bool,
    batch: Batch<T>,
}

impl<T> PartialEq for Later<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}
impl<T> Eq for Later<T> {}
impl<T> PartialOrd for Later<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl<T> Ord for Later<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        // The heap gives the greatest; the earliest shall come first.
        (other.at_ns, other.batch.id).cmp(&(self.at_ns, self.batch.id))
    }
}

/// Whether the key is to be found in the queue of ready keys of this class.
fn is_ready(keys: &KeyMap, key: u64, class: Priority) -> bool {
    keys.get(&key).is_some_and(|q| !q.busy && q.head != NONE && q.class == class)
}

/// What an attempt says of its endpoint.
fn said(outcome: &Outcome) -> Said {
    match outcome {
        Outcome::Success | Outcome::Partial { .. } => Said::Works,
        Outcome::Poison { .. } | Outcome::Retry { fault: Fault::Events, .. } => Said::Answers,
        Outcome::Retry { fault: Fault::Endpoint, .. } => Said::Fails,
        Outcome::Retry { fault: Fault::Overload, .. } => Said::Overloaded,
        Outcome::Retry { fault: Fault::Own, .. } | Outcome::Undeliverable { .. } | Outcome::Unwritable { .. } => {
            Said::Nothing
        }
        Outcome::Denied { .. } => Said::Denied,
        Outcome::Gone { .. } => Said::Gone,
        Outcome::Throttle { after_ns, status, .. } => {
            Said::Wait { after_ns: *after_ns, too_much: matches!(status, 429 | 503) }
        }
    }
}

fn spent<T>(item: Item<T>, attempts: u32, why: &Failure) -> Spent<T> {
    Spent { item, attempts, reason: why.reason.clone(), status: why.status, answer: why.answer.clone() }
}

/// Keys are hashes already.
#[derive(Default)]
struct Identity(u64);
impl Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for b in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*b);
        }
    }
    fn write_u64(&mut self, n: u64) {
        self.0 = n;
    }
}
type KeyMap = HashMap<u64, KeyQueue, BuildHasherDefault<Identity>>;

/// See the module.
#[derive(Debug)]
pub struct Lane<T> {
    policy: LanePolicy,
    endpoints: Arc<Balancer>,
    seat: Seat,
    cursor: Cursor,
    /// Sequences that were pushed and are not done.
    open: std::collections::BTreeSet<u64>,
    /// The attempts that events have behind them which are not done, and how often that changed.
    tried: BTreeMap<u64, Tried>,
    tried_changes: u64,
    slots: Vec<Slot<T>>,
    free: u32,
    keys: KeyMap,
    /// Keys that are not busy and have events, by priority. A key that has moved to another one is still in the old one,
    /// where it is passed over.
    ready: [VecDeque<u64>; 3],
    pressure: bool,
    ready_events: usize,
    ready_bytes: usize,
    retries: BinaryHeap<Later<T>>,
    in_flight: usize,
    /// What the endpoint had come back from when that was last looked at.
    recoveries: (u32, u32),
    /// The last probe was a batch that had failed before.
    probed_retry: bool,
    next_batch: BatchId,
    flushing: bool,
}

impl<T> Lane<T> {
    /// A lane that has done what `cursor` says, and sends to these endpoints.
    pub fn new(policy: LanePolicy, endpoints: Arc<Balancer>, seat: Seat, cursor: Cursor) -> Lane<T> {
        Lane {
            policy,
            endpoints,
            seat,
            cursor,
            open: std::collections::BTreeSet::new(),
            tried: BTreeMap::new(),
            tried_changes: 0,
            slots: Vec::new(),
            free: NONE,
            keys: KeyMap::default(),
            ready: Default::default(),
            pressure: false,
            ready_events: 0,
            ready_bytes: 0,
            retries: BinaryHeap::new(),
            in_flight: 0,
            recoveries: (0, 0),
            probed_retry: false,
            next_batch: 1,
            flushing: false,
        }
    }

    /// Takes over the attempts that were made before a restart.
    pub fn restore_tried(&mut self, tried: BTreeMap<u64, Tried>) {
        self.tried = tried.into_iter().filter(|(sequence, _)| !self.cursor.is_done(*sequence)).collect();
    }

    /// The attempts that events have behind them which are not done.
    pub fn tried(&self) -> &BTreeMap<u64, Tried> {
        &self.tried
    }

    /// Grows whenever [`Lane::tried`] changes.
    pub fn tried_changes(&self) -> u64 {
        self.tried_changes
    }

    /// Takes a changed policy, and perhaps other endpoints, for what is sent from now on.
    pub fn set_policy(&mut self, policy: LanePolicy, endpoints: Arc<Balancer>) {
        self.policy = policy;
        self.endpoints = endpoints;
    }

    /// Whether another event may be pushed; if not, it stays in the log.
    pub fn has_room(&self) -> bool {
        self.open.len() < self.policy.events_max
    }

    /// How many more events may be pushed.
    pub fn room(&self) -> usize {
        self.policy.events_max.saturating_sub(self.open.len())
    }

    /// Whether an event of high priority may be pushed: for those there is an eighth more room.
    pub fn has_high_room(&self) -> bool {
        self.open.len() < self.policy.events_max + (self.policy.events_max / 8).max(1)
    }

    /// Whether the event was pushed and is not done.
    pub fn holds(&self, sequence: u64) -> bool {
        self.open.contains(&sequence)
    }

    /// Under pressure, low priority waits for everything else. Concerns what is pushed or becomes ready from now on.
    pub fn set_pressure(&mut self, on: bool) {
        self.pressure = on;
    }

    /// The events that wait in the lane: not on their way, not given up.
    pub fn waiting(&self) -> impl Iterator<Item = &Item<T>> {
        let ready = self.slots.iter().filter_map(|s| s.item.as_ref());
        ready.chain(self.retries.iter().flat_map(|l| &l.batch.items))
    }

    /// The events that have not been tried since they were pushed, each with when that was (monotonic ns).
    pub fn ready_mut(&mut self) -> impl Iterator<Item = (&mut Item<T>, u64)> {
        self.slots.iter_mut().filter_map(|s| Some((s.item.as_mut()?, s.pushed_ns)))
    }

    /// The sequences that were pushed and are not done, but do not wait in the lane: they are on their way, or given up and
    /// about to be stored. With `retries`, also those that wait for another attempt.
    pub fn busy(&self, retries: bool) -> std::collections::BTreeSet<u64> {
        let mut busy = self.open.clone();
        for item in self.slots.iter().filter_map(|s| s.item.as_ref()) {
            busy.remove(&item.sequence);
        }
        if !retries {
            for item in self.retries.iter().flat_map(|l| &l.batch.items) {
                busy.remove(&item.sequence);
            }
        }
        busy
    }

    /// Pushed and not done, up to a sequence.
    pub fn open_up_to(&self, sequence: u64) -> impl Iterator<Item = u64> + '_ {
        self.open.range(..=sequence).copied()
    }

    /// Takes out the waiting events that `gone` chooses. They stay open until the caller has stored what becomes of them and
    /// calls [`Lane::settle`]. What is on its way stays where it is.
    pub fn take(&mut self, gone: impl Fn(&Item<T>) -> bool) -> Vec<Item<T>> {
        let mut out: Vec<Item<T>> = Vec::new();
        let mut freed = Vec::new();
        for mut later in std::mem::take(&mut self.retries).into_vec() {
            let (removed, kept): (Vec<_>, Vec<_>) = later.batch.items.into_iter().partition(&gone);
            freed.extend(removed.iter().map(|i| i.key).filter(|k| !kept.iter().any(|i| i.key == *k)));
            out.extend(removed);
            if !kept.is_empty() {
                later.batch.items = kept;
                self.retries.push(later);
            }
        }
        let waited = out.len();
        let (slots, free) = (&mut self.slots, &mut self.free);
        self.keys.retain(|_, q| {
            let (mut at, mut last) = (q.head, NONE);
            while at != NONE {
                let slot = &mut slots[at as usize];
                let next = slot.next;
                match slot.item.take_if(|item| gone(item)) {
                    Some(item) => {
                        q.count(item.priority, -1);
                        out.push(item);
                        slot.next = *free;
                        *free = at;
                        match last {
                            NONE => q.head = next,
                            last => slots[last as usize].next = next,
                        }
                    }
                    None => last = at,
                }
                at = next;
            }
            q.tail = last;
            q.head != NONE || q.busy
        });
        self.ready_events -= out.len() - waited;
        self.ready_bytes -= out[waited..].iter().map(|i| i.bytes).sum::<usize>();
        self.release(freed.into_iter());
        out
    }

    /// Marks an event done that was never pushed, because it is damaged.
    pub fn skip(&mut self, sequence: u64) {
        self.tried.remove(&sequence);
        self.cursor.done(sequence);
    }

    /// Events that are in the lane and not done.
    pub fn open_events(&self) -> usize {
        self.open.len()
    }

    /// Requests in flight.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Whether the event was delivered before (only after a restart).
    pub fn is_done(&self, sequence: u64) -> bool {
        self.cursor.is_done(sequence)
    }

    /// Takes an event; `false` if it is done already, or here. Events of one key come in the order of their sequences.
    pub fn push(&mut self, item: Item<T>, now: Now) -> bool {
        if self.cursor.is_done(item.sequence) || !self.open.insert(item.sequence) {
            return false;
        }
        self.enqueue(item, now);
        true
    }

    fn enqueue(&mut self, item: Item<T>, now: Now) {
        let (key, priority) = (item.key, item.priority);
        self.ready_events += 1;
        self.ready_bytes += item.bytes;
        let slot = Slot { item: Some(item), pushed_ns: now.mono_ns, next: NONE };
        let at = if self.free == NONE {
            self.slots.push(slot);
            (self.slots.len() - 1) as u32
        } else {
            let at = self.free;
            self.free = self.slots[at as usize].next;
            self.slots[at as usize] = slot;
            at
        };
        let q = self.keys.entry(key).or_insert(KeyQueue {
            head: NONE,
            tail: NONE,
            busy: false,
            class: Priority::Normal,
            events: 0,
            high: 0,
            low: 0,
        });
        let was_empty = q.head == NONE;
        if was_empty {
            q.head = at;
        } else {
            self.slots[q.tail as usize].next = at;
        }
        q.tail = at;
        q.count(priority, 1);
        let class = q.class(self.pressure);
        if !q.busy && (was_empty || class > q.class) {
            q.class = class;
            self.make_ready(key, class);
        }
    }

    fn make_ready(&mut self, key: u64, class: Priority) {
        self.ready[class as usize].push_back(key);
        // What was passed over must not pile up where nothing is taken for a long time.
        if self.ready[class as usize].len() > 2 * self.keys.len() + 64 {
            let mut seen = std::collections::HashSet::new();
            let keys = &self.keys;
            self.ready[class as usize].retain(|key| is_ready(keys, *key, class) && seen.insert(*key));
        }
    }

    /// The key that is to go next, still in its queue of ready keys; what is there but not ready any more is dropped.
    fn next_ready(&mut self) -> Option<u64> {
        for class in [Priority::High, Priority::Normal, Priority::Low] {
            while let Some(key) = self.ready[class as usize].front() {
                if is_ready(&self.keys, *key, class) {
                    return Some(*key);
                }
                self.ready[class as usize].pop_front();
            }
        }
        None
    }

    /// When the endpoint is there again, what failed with it need not wait for the end of its back-off: once, so that a batch
    /// that fails by itself does not do so each time, unless somebody says that the endpoint works.
    fn look_for_recovery(&mut self, now: Now) {
        let recoveries = self.endpoints.recoveries();
        if recoveries == self.recoveries {
            return;
        }
        let reset = recoveries.1 != self.recoveries.1;
        self.recoveries = recoveries;
        let mut all = std::mem::take(&mut self.retries).into_vec();
        for later in all.iter_mut().filter(|l| l.with_endpoint && (reset || !l.batch.hurried)) {
            later.at_ns = later.at_ns.min(now.mono_ns);
            later.batch.hurried = !reset;
        }
        self.retries = all.into();
    }

    /// What to do now.
    pub fn poll(&mut self, now: Now) -> Action<T> {
        let ready = self.next_ready();
        if self.retries.is_empty() && ready.is_none() {
            return Action::Idle;
        }
        let probing = match self.endpoints.gate(now.mono_ns) {
            Gate::Open(NEVER_NS) => return Action::Idle,
            Gate::Open(until) => return Action::Wait(until),
            Gate::Probe => true,
            Gate::Closed => false,
        };
        self.look_for_recovery(now);
        let retry_at = self.retries.peek().map(|l| l.at_ns);
        let is_due = |at: Option<u64>| at.is_some_and(|at| at <= now.mono_ns);
        let ready_at = ready.map(|key| {
            let full =
                self.ready_events >= self.policy.batch.events_max || self.ready_bytes >= self.policy.batch.bytes_max;
            // A probe waits for no company.
            if full || self.flushing || probing {
                0
            } else {
                let head = self.keys.get(&key).map_or(NONE, |q| q.head);
                let pushed = self.slots.get(head as usize).map_or(0, |s| s.pushed_ns);
                pushed + self.policy.batch.linger.as_nanos() as u64
            }
        });
        // A probe is a real batch. One that has failed before and what has never been tried take turns, until there is a
        // success; so one that fails every time does not stand for all others. Where there is nothing else its back-off is
        // cut short.
        let answers = self.endpoints.answers();
        let retries = match (probing, ready) {
            (true, None) => is_due(retry_at) || !answers,
            (true, Some(_)) => is_due(retry_at) && !self.probed_retry && !answers,
            (false, _) => is_due(retry_at),
        };
        if !retries && !is_due(ready_at) {
            return match (retry_at, ready_at) {
                (None, None) => Action::Idle,
                (a, b) => Action::Wait(a.unwrap_or(u64::MAX).min(b.unwrap_or(u64::MAX))),
            };
        }
        let mut nothing = Action::Idle;
        if retries {
            match self.ask_for_retry(now) {
                Ok(permit) => return self.send_retry(permit, probing),
                Err(leave) => nothing = self.later(leave, now),
            }
            // What waits for one endpoint does not hold up what goes to others.
            if self.endpoints.only().is_some() || !is_due(ready_at) {
                return nothing;
            }
        }
        match self.ask_for_ready(now) {
            Ok((permit, key)) => self.send_ready(permit, key, now),
            Err(leave) => self.later(leave, now).sooner(nothing),
        }
    }

    /// What is to be done after an endpoint has refused for now.
    fn later(&self, leave: Leave, now: Now) -> Action<T> {
        match leave {
            Leave::Go(_) => Action::Wait(now.mono_ns),
            Leave::Wait(NEVER_NS) => Action::Idle,
            Leave::Wait(until) => Action::Wait(until),
            // The end of its own attempt brings it back here, if there is one endpoint only.
            Leave::Busy(_) if self.in_flight > 0 && self.endpoints.only().is_some() => Action::Idle,
            Leave::Busy(again) => Action::Wait(again),
        }
    }

    fn ask_for_retry(&self, now: Now) -> Result<Permit, Leave> {
        let Some(Later { batch, .. }) = self.retries.peek() else { return Err(Leave::Wait(NEVER_NS)) };
        let bytes = batch.items.iter().map(|i| i.bytes).sum();
        let (key, region) = batch.items.first().map_or((0, 0), |i| (i.key, i.region));
        let want = Want { events: batch.items.len(), bytes, whole: true, key, region, failed: batch.failed };
        match self.endpoints.ask(self.seat, &want, now.mono_ns) {
            Leave::Go(permit) => Ok(permit),
            other => Err(other),
        }
    }

    fn send_retry(&mut self, permit: Permit, probing: bool) -> Action<T> {
        let Some(later) = self.retries.pop() else { return Action::Idle };
        self.probed_retry = probing;
        self.send(later.batch, permit)
    }

    /// Asks for what is ready: for the key that is next, or where it matters which endpoint a key goes to, for the next one
    /// whose endpoint has a place.
    fn ask_for_ready(&self, now: Now) -> Result<(Permit, Option<u64>), Leave> {
        let limits = self.policy.batch;
        let (events, bytes) = (self.ready_events.min(limits.events_max), self.ready_bytes.min(limits.bytes_max));
        if let Some(only) = self.endpoints.only() {
            return match only.ask(self.seat, events, bytes, false, now.mono_ns) {
                Leave::Go(permit) => Ok((permit, None)),
                other => Err(other),
            };
        }
        let ask = |key: u64| {
            let head = self.keys.get(&key).and_then(|q| self.slots.get(q.head as usize)?.item.as_ref());
            let region = head.map_or(0, |i| i.region);
            self.endpoints.ask(self.seat, &Want { events, bytes, whole: false, key, region, failed: None }, now.mono_ns)
        };
        let mut ready = [Priority::High, Priority::Normal, Priority::Low]
            .into_iter()
            .flat_map(|class| self.ready[class as usize].iter().map(move |key| (class, *key)))
            .filter(|(class, key)| is_ready(&self.keys, *key, *class))
            .map(|(_, key)| key);
        let Some(first) = ready.next() else { return Err(Leave::Wait(NEVER_NS)) };
        let refused = match ask(first) {
            Leave::Go(permit) => return Ok((permit, self.endpoints.is_choosy().then_some(first))),
            other => other,
        };
        if self.endpoints.is_choosy() {
            // Each endpoint refuses a few keys at most before others are found.
            for key in ready.take(KEYS_LOOKED_AT) {
                if let Leave::Go(permit) = ask(key) {
                    return Ok((permit, Some(key)));
                }
            }
        }
        Err(refused)
    }

    fn send_ready(&mut self, permit: Permit, key: Option<u64>, now: Now) -> Action<T> {
        let limits = self.policy.batch;
        let events_max = limits.events_max.min(permit.events_max).max(1);
        let limits = BatchLimits { events_max, bytes_max: limits.bytes_max.min(permit.bytes_max), ..limits };
        let batch = match key {
            None => self.take_batch(limits),
            Some(key) => self.take_batch_for(limits, permit.endpoint().id(), key, now),
        };
        let Some(batch) = batch else { return Action::Idle };
        self.probed_retry = false;
        self.send(batch, permit)
    }

    fn send(&mut self, mut batch: Batch<T>, mut permit: Permit) -> Action<T> {
        permit.carries(batch.items.len(), batch.items.iter().map(|i| i.bytes).sum());
        batch.permit = Some(permit);
        self.in_flight += 1;
        Action::Send(batch)
    }

    /// As [`Lane::take_batch`], with only those keys that go to an endpoint; `first` is one of them, and goes first.
    fn take_batch_for(&mut self, limits: BatchLimits, endpoint: u32, first: u64, now: Now) -> Option<Batch<T>> {
        let class = self.keys.get(&first)?.class;
        let mut aside: [Vec<u64>; 3] = Default::default();
        let region = |lane: &Lane<T>, key: u64| {
            let head = lane.keys.get(&key).and_then(|q| lane.slots.get(q.head as usize)?.item.as_ref());
            head.map_or(0, |i| i.region)
        };
        let wanted = region(self, first);
        // The others are put aside while the batch is made.
        let mut looked_at = 0;
        for of in [Priority::High, Priority::Normal, Priority::Low] {
            let mut kept = VecDeque::new();
            while looked_at < KEYS_LOOKED_AT
                && let Some(key) = self.ready[of as usize].pop_front()
            {
                if !is_ready(&self.keys, key, of) || (key == first && of == class) {
                    continue;
                }
                looked_at += 1;
                let fits = region(self, key) == wanted && self.endpoints.leads_to(endpoint, key, wanted, now.mono_ns);
                if fits {
                    kept.push_back(key);
                    if kept.len() >= limits.events_max {
                        break;
                    }
                } else {
                    aside[of as usize].push(key);
                }
            }
            aside[of as usize].extend(std::mem::take(&mut self.ready[of as usize]));
            self.ready[of as usize] = kept;
        }
        self.ready[class as usize].push_front(first);
        let batch = self.take_batch(limits);
        for (ready, aside) in self.ready.iter_mut().zip(aside) {
            let left = std::mem::replace(ready, aside.into());
            ready.extend(left);
        }
        batch
    }

    /// Takes ready events up to the limits: all that is ready of one key, then the next.
    fn take_batch(&mut self, limits: BatchLimits) -> Option<Batch<T>> {
        let mut items: Vec<Item<T>> = Vec::new();
        let mut bytes = 0;
        // Only events with attempts from before a restart have any here; a batch has one number for all of its events.
        let mut tried = Tried::default();
        let choosy = self.endpoints.is_choosy();
        'keys: while let Some(key) = self.next_ready() {
            let Some(q) = self.keys.get_mut(&key) else { continue };
            while q.head != NONE {
                let at = q.head as usize;
                let size = self.slots[at].item.as_ref().map_or(0, |i| i.bytes);
                let before = if self.tried.is_empty() {
                    Tried::default()
                } else {
                    let sequence = self.slots[at].item.as_ref().map_or(0, |i| i.sequence);
                    self.tried.get(&sequence).copied().unwrap_or_default()
                };
                if items.is_empty() {
                    tried = before;
                } else if items.len() >= limits.events_max || bytes + size > limits.bytes_max || before != tried {
                    break 'keys;
                } else if choosy && self.slots[at].item.as_ref().map(|i| i.region) != items.first().map(|i| i.region) {
                    // What happened elsewhere may go elsewhere, after this.
                    break;
                }
                let slot = &mut self.slots[at];
                q.head = slot.next;
                slot.next = self.free;
                self.free = at as u32;
                if let Some(item) = slot.item.take() {
                    bytes += item.bytes;
                    q.count(item.priority, -1);
                    items.push(item);
                }
                q.busy = true;
            }
            if items.len() >= limits.events_max || bytes >= limits.bytes_max {
                break;
            }
        }
        self.ready_events -= items.len();
        self.ready_bytes -= bytes;
        if items.is_empty() { None } else { Some(self.batch(items, tried.attempts, tried.poisoned)) }
    }

    fn batch(&mut self, items: Vec<Item<T>>, attempts: u32, poisoned: u32) -> Batch<T> {
        let id = self.next_batch;
        self.next_batch += 1;
        Batch { id, items, attempts, poisoned, permit: None, hurried: false, failed: None }
    }

    /// Takes the result of an attempt. `random` is uniform in [0, 1).
    pub fn complete(&mut self, mut batch: Batch<T>, outcome: Outcome, now: Now, random: f64) -> Completed<T> {
        self.in_flight -= 1;
        let mut done =
            Completed { delivered: 0, retried: 0, spent: Vec::new(), delivered_items: Vec::new(), wake: None };
        let endpoint = batch.endpoint().map(|e| e.id());
        if let Some(permit) = batch.permit.take() {
            done.wake = Endpoint::ended(permit, self.seat, said(&outcome), now.mono_ns, random);
        }
        let with_endpoint = matches!(
            outcome,
            Outcome::Retry { fault: Fault::Endpoint | Fault::Overload, .. }
                | Outcome::Denied { .. }
                | Outcome::Gone { .. }
        );
        let jittered = |d: u64| d / 2 + (d as f64 / 2.0 * random) as u64;
        let retry = self.policy.retry;
        let is_put_off = matches!(outcome, Outcome::Throttle { .. });
        batch.failed = endpoint.filter(|_| with_endpoint || is_put_off);
        // Another endpoint is tried at once, until all of them have failed in a row.
        let elsewhere = with_endpoint
            && !(batch.attempts as usize + 1).is_multiple_of(self.endpoints.targets().len().max(1))
            && endpoint.is_some_and(|id| self.endpoints.has_other(id, now.mono_ns));
        let backed_off = |attempts: u32| {
            if elsewhere {
                return now.mono_ns;
            }
            let wait = backoff(retry.backoff_min, retry.backoff_max, attempts);
            now.mono_ns + jittered(wait.as_nanos() as u64)
        };
        match outcome {
            Outcome::Success => {
                done.delivered = batch.items.len();
                for item in &batch.items {
                    self.settle(item.sequence);
                }
                self.release(batch.items.iter().map(|i| i.key));
            }
            Outcome::Partial { failed, reason, status, answer } => {
                let batch = self.keep_failed(batch, &failed, &mut done);
                let at_ns = backed_off(batch.attempts);
                let batch = Batch { attempts: batch.attempts.saturating_add(1), ..batch };
                self.keep_or_spend(batch, now, at_ns, Failure { with_endpoint, reason, status, answer }, &mut done);
            }
            Outcome::Retry { reason, status, answer, .. }
            | Outcome::Denied { reason, status, answer }
            | Outcome::Gone { reason, status, answer } => {
                let at_ns = backed_off(batch.attempts);
                batch.attempts = batch.attempts.saturating_add(1);
                self.keep_or_spend(batch, now, at_ns, Failure { with_endpoint, reason, status, answer }, &mut done);
            }
            Outcome::Throttle { reason, status, answer, .. } => {
                let at_ns = self.endpoints.paused_until_ns(now.mono_ns).max(now.mono_ns + 1);
                self.keep_or_spend(batch, now, at_ns, Failure { with_endpoint, reason, status, answer }, &mut done);
            }
            Outcome::Poison { reason, status, answer } => {
                if batch.items.len() > 1 {
                    // No attempt counts: most of these events have done nothing wrong.
                    done.retried = batch.items.len();
                    self.bisect(batch, now);
                    return done;
                }
                batch.attempts = batch.attempts.saturating_add(1);
                let failure = Failure { with_endpoint, reason, status, answer };
                if batch.poisoned + 1 >= self.policy.retry.poison_attempts {
                    self.spend(batch, &failure, &mut done);
                } else {
                    batch.poisoned += 1;
                    let at_ns = now.mono_ns + jittered(POISON_BACKOFF_NS);
                    self.keep_or_spend(batch, now, at_ns, failure, &mut done);
                }
            }
            // The endpoint has not been asked, so that the breaker hears nothing of it.
            Outcome::Unwritable { events } => {
                let Batch { id, items, attempts, poisoned, permit, hurried, failed } = batch;
                let reason = |i: &Item<T>| events.iter().find(|(s, _)| *s == i.sequence).map(|(_, reason)| reason);
                let (bad, kept): (Vec<_>, Vec<_>) = items.into_iter().partition(|i| reason(i).is_some());
                let keys: Vec<u64> = bad.iter().map(|i| i.key).filter(|k| !kept.iter().any(|i| i.key == *k)).collect();
                for item in bad {
                    let reason = reason(&item).cloned().unwrap_or_default();
                    let failure = Failure { with_endpoint, reason, status: 0, answer: Bytes::new() };
                    done.spent.push(spent(item, attempts, &failure));
                }
                self.release(keys.into_iter());
                if !kept.is_empty() {
                    done.retried = kept.len();
                    let batch = Batch { id, items: kept, attempts, poisoned, permit, hurried, failed };
                    self.retries.push(Later { at_ns: now.mono_ns, with_endpoint, batch });
                }
            }
            Outcome::Undeliverable { reason } => {
                self.spend(batch, &Failure { with_endpoint, reason, status: 0, answer: Bytes::new() }, &mut done);
            }
        }
        done
    }

    /// Settles the events of a batch that the receiver took. From the first one of a key on that it did not, those of the
    /// key stay in the batch, for later ones must not have come before it in the end.
    fn keep_failed(&mut self, batch: Batch<T>, failed: &[usize], done: &mut Completed<T>) -> Batch<T> {
        let mut keys: HashSet<u64, BuildHasherDefault<Identity>> = HashSet::default();
        let (mut taken, mut kept) = (Vec::new(), Vec::new());
        for (at, item) in batch.items.into_iter().enumerate() {
            if failed.binary_search(&at).is_ok() || keys.contains(&item.key) {
                keys.insert(item.key);
                kept.push(item);
            } else {
                taken.push(item);
            }
        }
        done.delivered = taken.len();
        for item in &taken {
            self.settle(item.sequence);
        }
        self.release(taken.iter().map(|i| i.key).filter(|k| !keys.contains(k)));
        done.delivered_items = taken;
        Batch { items: kept, ..batch }
    }

    /// Puts a batch off until `at_ns`, but for the events whose budget is spent.
    fn keep_or_spend(&mut self, batch: Batch<T>, now: Now, at_ns: u64, why: Failure, done: &mut Completed<T>) {
        let retry = &self.policy.retry;
        if retry.attempts_max.is_some_and(|max| batch.attempts >= max) {
            return self.spend(batch, &why, done);
        }
        let born_before = now.wall_ns.saturating_sub(retry.age_max.as_nanos() as u64);
        let Batch { id, items, attempts, poisoned, hurried, failed, .. } = batch;
        let (old, kept): (Vec<_>, Vec<_>) = items.into_iter().partition(|i| i.accepted_ns < born_before);
        let keys: Vec<u64> = old.iter().map(|i| i.key).filter(|k| !kept.iter().any(|i| i.key == *k)).collect();
        for item in old {
            done.spent.push(spent(item, attempts, &why));
        }
        self.release(keys.into_iter());
        if !kept.is_empty() {
            done.retried = kept.len();
            self.remember_tried(&kept, attempts, poisoned);
            let batch = Batch { id, items: kept, attempts, poisoned, permit: None, hurried, failed };
            self.retries.push(Later { at_ns, with_endpoint: why.with_endpoint, batch });
        }
    }

    fn remember_tried(&mut self, items: &[Item<T>], attempts: u32, poisoned: u32) {
        let tried = Tried { attempts, poisoned };
        if tried != Tried::default() {
            self.tried_changes += 1;
            self.tried.extend(items.iter().map(|i| (i.sequence, tried)));
        }
    }

    fn spend(&mut self, batch: Batch<T>, why: &Failure, done: &mut Completed<T>) {
        self.release(batch.items.iter().map(|i| i.key));
        for item in batch.items {
            done.spent.push(spent(item, batch.attempts, why));
        }
    }

    /// Cuts a batch in two that go out at once. Events of one key stay in one half, unless there is one key only: then the
    /// second half waits in the key's queue, before what waits there already.
    fn bisect(&mut self, batch: Batch<T>, now: Now) {
        let middle = batch.items.len() / 2;
        let attempts = batch.attempts;
        let mut first: Vec<Item<T>> = Vec::with_capacity(middle);
        let mut second: Vec<Item<T>> = Vec::new();
        let mut sides: HashMap<u64, bool, BuildHasherDefault<Identity>> = HashMap::default();
        for item in batch.items {
            let left = *sides.entry(item.key).or_insert(first.len() < middle);
            if left { first.push(item) } else { second.push(item) }
        }
        if second.is_empty() {
            let back = first.split_off(middle);
            self.requeue_front(back, now);
        }
        for half in [first, second] {
            if !half.is_empty() {
                let b = self.batch(half, attempts, 0);
                self.retries.push(Later { at_ns: now.mono_ns, with_endpoint: false, batch: b });
            }
        }
    }

    /// Puts events of one busy key back before all others of that key.
    fn requeue_front(&mut self, items: Vec<Item<T>>, now: Now) {
        let Some(key) = items.first().map(|i| i.key) else { return };
        let Some(q) = self.keys.get_mut(&key) else { return };
        let (head, tail) = (q.head, q.tail);
        (q.head, q.tail) = (NONE, NONE);
        for item in items {
            self.enqueue(item, now);
        }
        if head != NONE
            && let Some(q) = self.keys.get_mut(&key)
        {
            self.slots[q.tail as usize].next = head;
            q.tail = tail;
        }
    }

    /// Lets the next events of these keys go.
    fn release(&mut self, keys: impl Iterator<Item = u64>) {
        for key in keys {
            if let Some(q) = self.keys.get_mut(&key)
                && q.busy
            {
                q.busy = false;
                if q.head == NONE {
                    self.keys.remove(&key);
                } else {
                    q.class = q.class(self.pressure);
                    let class = q.class;
                    self.make_ready(key, class);
                }
            }
        }
    }

    /// Marks an event done for good: delivered, or kept as a dead letter.
    pub fn settle(&mut self, sequence: u64) {
        if self.open.remove(&sequence) {
            if !self.tried.is_empty() {
                self.tried.remove(&sequence);
            }
            self.cursor.done(sequence);
        }
    }

    /// The lane's cursor, when everything up to `seen` that is meant for it was pushed. The low-water mark is moved up to
    /// just before the first open event.
    pub fn cursor(&mut self, seen: u64) -> &Cursor {
        let low = self.open.first().map_or(seen, |first| (first - 1).min(seen));
        self.cursor.raise(low);
        if self.tried.first_key_value().is_some_and(|(first, _)| *first <= low) {
            self.tried = self.tried.split_off(&(low + 1));
        }
        &self.cursor
    }

    /// Sends what is ready without waiting for fuller batches.
    pub fn set_flushing(&mut self, on: bool) {
        self.flushing = on;
    }

    /// Events that wait for a retry, for a probe, or behind one that does.
    pub fn retrying(&self) -> usize {
        self.retries.iter().map(|l| l.batch.items.len()).sum()
    }

    /// What the endpoint lets through.
    pub fn gate(&self, now: Now) -> Gate {
        self.endpoints.gate(now.mono_ns)
    }

    /// The endpoints that it sends to.
    pub fn endpoints(&self) -> &Arc<Balancer> {
        &self.endpoints
    }
}
