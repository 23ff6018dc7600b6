//! What holds for the endpoint of a destination as a whole, whichever shards send to it: pauses, the breaker, how many
//! requests are on their way, and rates. Nothing of it is multiplied by the number of shards.
//!
//! Each shard's lane asks here before it sends, and gets a [`Permit`] or a time; with the permit it tells how the attempt
//! ended. Asking takes a few atomic operations and no lock. A lock is taken for a moment when an attempt has ended: it is
//! not waited for after a success while all is well, and otherwise held for as long as some numbers take to change.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use super::breaker::{Breaker, Gate};
use super::bucket::Bucket;
use super::concurrency::Concurrency;
use crate::lock::Mutex;
use crate::log::standing::AttemptNote;
use crate::rule::{BreakerPolicy, DisablePolicy, RateLimits};

/// How long an endpoint that says 429 without Retry-After is left alone.
const THROTTLE_DEFAULT_NS: u64 = 30_000_000_000;
const THROTTLE_MIN_NS: u64 = 1_000_000_000;
/// How often an endpoint is asked that says it is gone, and for how long.
const GONE_PROBE_NS: u64 = 3_600_000_000_000;
const GONE_GIVEN_UP_NS: u64 = 24 * GONE_PROBE_NS;
/// A lane that found all permits taken by others asks again after so long, even if nobody tells it that one is free.
const ASK_AGAIN_NS: u64 = 100_000_000;
/// Nothing goes until somebody says so.
pub const NEVER_NS: u64 = u64::MAX;

/// What the endpoint of a destination needs to know of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EndpointPolicy {
    /// Requests on their way at most.
    pub concurrency: usize,
    /// Whether fewer go while more would be too much.
    pub adapts: bool,
    /// When it is left alone.
    pub breaker: BreakerPolicy,
    /// The longest pause that it may ask for, ns.
    pub retry_after_max_ns: u64,
    /// How much it gets per second.
    pub rate: RateLimits,
    /// When it is given up.
    pub disable: DisablePolicy,
}

/// What an attempt says of its endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// It took the events, or some of them.
    Works,
    /// It answered for itself, but took none.
    Answers,
    /// It could not be reached, or said that it is in trouble.
    Fails,
    /// The same, and it is likely too much for it: no answer in time, 503.
    Overloaded,
    /// It does not let us in.
    Denied,
    /// It is there no more.
    Gone,
    /// It asks to be left alone, for so long if it said so (ns); `too_much`: because we send too much.
    Wait {
        /// How long.
        after_ns: Option<u64>,
        /// 429 or 503.
        too_much: bool,
    },
    /// Nothing: the attempt never came to it.
    Nothing,
}

/// Why nothing is sent until somebody says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// The endpoint said for a day that it is gone (410).
    Gone,
    /// It took nothing for too long.
    Failing,
    /// An operator has said so.
    Suspended,
    /// It has not agreed to be sent events yet.
    Pending,
}

/// A time that goes on while an engine is running.
#[derive(Clone, Copy, Debug)]
struct Span {
    /// Before this run.
    before_ns: u64,
    since_ns: u64,
}

impl Span {
    fn begun(now_ns: u64) -> Span {
        Span { before_ns: 0, since_ns: now_ns }
    }

    fn length_ns(self, now_ns: u64) -> u64 {
        self.before_ns.saturating_add(now_ns.saturating_sub(self.since_ns))
    }
}

/// What the endpoint is failing with.
#[derive(Clone, Copy, Debug)]
struct Trouble {
    span: Span,
    attempts: u32,
    /// The last warning about it, in percent.
    noticed: u8,
}

/// What outlives the engine of what is known of an endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// Why it gets nothing, if so.
    pub stopped: Option<Stopped>,
    /// For how long it has taken nothing, ns; 0 if it did last time.
    pub failing_ns: u64,
    /// With how many attempts.
    pub failing_attempts: u32,
    /// The last warning about that, in percent.
    pub noticed: u8,
    /// For how long it has said that it is gone, ns.
    pub gone_ns: Option<u64>,
    /// It has not agreed to be sent events yet.
    pub pending: bool,
    /// What it granted when it was asked, in requests per minute.
    pub granted: Option<u32>,
}

/// When warnings are given, in percent of the time after which an endpoint is given up.
const NOTICES: [u8; 4] = [50, 70, 90, 100];

/// The attempts of an endpoint that are remembered.
const ATTEMPTS_MAX: usize = 20;

/// The right to make one attempt; given back when it is dropped.
#[derive(Debug)]
pub struct Permit {
    endpoint: Arc<Endpoint>,
    /// Which of the breaker's times it is of: what an attempt tells that began before it opened is old news.
    epoch: u32,
    since_ns: u64,
    /// Bytes and events that were taken from the buckets for it.
    events: u64,
    bytes: u64,
    /// The events that it may carry at most, and their bytes, by the rates.
    pub events_max: usize,
    /// See above.
    pub bytes_max: usize,
}

impl Permit {
    /// Tells what is sent with it; what was taken from the buckets and is not needed is given back.
    pub fn carries(&mut self, events: usize, bytes: usize) {
        let (events, bytes) = (events as u64, bytes as u64);
        self.endpoint.rates.events.settle(self.events, events);
        self.endpoint.rates.bytes.settle(self.bytes, bytes);
        (self.events, self.bytes) = (events, bytes);
    }

    /// To which endpoint.
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.endpoint.in_flight.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Who asks: a lane of a shard. Lanes of replays share the seat of their shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seat(u32);

const SEATS: u32 = 64;

impl Seat {
    /// The seat of a shard's lane for the destination, or of its replays. Shards 32 apart share theirs.
    pub fn new(shard: usize, replays: bool) -> Seat {
        Seat(shard as u32 % (SEATS / 2) + if replays { SEATS / 2 } else { 0 })
    }

    /// Whether it is of this shard, or of another one that shares it.
    pub fn is_of(self, shard: usize) -> bool {
        self.0 % (SEATS / 2) == shard as u32 % (SEATS / 2)
    }

    fn bit(self) -> u64 {
        1 << self.0
    }
}

/// What a lane gets when it wants to send.
#[derive(Debug)]
pub enum Leave {
    /// It may.
    Go(Permit),
    /// Not before this time (monotonic ns).
    Wait(u64),
    /// Not before an attempt has ended. Who has none on its way is told, or asks again at this time.
    Busy(u64),
}

/// How much a destination gets, all of its endpoints together.
#[derive(Debug, Default)]
pub struct Rates {
    limited: AtomicBool,
    events: Bucket,
    bytes: Bucket,
    requests: Bucket,
}

impl Rates {
    /// Takes changed limits.
    pub fn set(&self, rate: &RateLimits) {
        let burst = rate.burst.as_secs_f64();
        let full = |per_second: f64| (per_second * burst).max(1.0) as u64;
        self.events.set(rate.events_per_second.map(|r| (f64::from(r), full(r.into()))));
        self.requests.set(rate.requests_per_second.map(|r| (f64::from(r), full(r.into()))));
        self.bytes.set(rate.bytes_per_second.map(|r| (r as f64, full(r as f64))));
        let limited = [&self.events, &self.requests, &self.bytes].iter().any(|b| b.is_limited());
        self.limited.store(limited, Ordering::Relaxed);
    }
}

/// What changes when attempts end.
#[derive(Debug)]
struct Inner {
    policy: EndpointPolicy,
    breaker: Breaker,
    concurrency: Concurrency,
    paused_until_ns: u64,
    gone: Option<Span>,
    trouble: Option<Trouble>,
    stopped: Option<Stopped>,
    /// It has not agreed yet.
    pending: bool,
    /// A grant in requests per minute.
    granted: Option<u32>,
}

/// See the module.
#[derive(Debug)]
pub struct Endpoint {
    /// Its number among those of its destination; never used again.
    id: u32,
    in_flight: AtomicU32,
    limit: AtomicU32,
    /// All that may be on their way were.
    saturated: AtomicBool,
    /// One attempt at a time, to see whether the endpoint is there again.
    probing: AtomicBool,
    /// The last of those succeeded.
    answers: AtomicBool,
    /// How often it came back, or somebody said that it works.
    recoveries: AtomicU32,
    /// How often somebody said so.
    resets: AtomicU32,
    until_ns: AtomicU64,
    epoch: AtomicU32,
    /// What was told last was not success, or not all is as usual yet.
    troubled: AtomicBool,
    /// How long its answers take, a moving average in ns; 0 if it is not known.
    latency_ns: AtomicU64,
    rates: Arc<Rates>,
    /// What it granted when it was asked, in requests.
    granted: Bucket,
    /// Who waits for a permit, as bits, and who had the last.
    waiting: AtomicU64,
    last: AtomicU32,
    inner: Mutex<Inner>,
    /// The last attempts that failed.
    attempts: Mutex<VecDeque<AttemptNote>>,
    /// Grows with everything that outlives the engine.
    changes: AtomicU64,
}

impl Endpoint {
    /// The only one of its destination, about which nothing is known.
    pub fn new(policy: EndpointPolicy) -> Arc<Endpoint> {
        let rates = Arc::new(Rates::default());
        rates.set(&policy.rate);
        Endpoint::of_several(0, policy, rates)
    }

    /// One of several, which share what their destination gets. Nothing is known of it.
    pub fn of_several(id: u32, policy: EndpointPolicy, rates: Arc<Rates>) -> Arc<Endpoint> {
        let concurrency = Concurrency::new(clamp(policy.concurrency), policy.adapts);
        Arc::new(Endpoint {
            id,
            in_flight: AtomicU32::new(0),
            limit: AtomicU32::new(concurrency.limit()),
            saturated: AtomicBool::new(false),
            probing: AtomicBool::new(false),
            answers: AtomicBool::new(false),
            recoveries: AtomicU32::new(0),
            resets: AtomicU32::new(0),
            until_ns: AtomicU64::new(0),
            epoch: AtomicU32::new(0),
            troubled: AtomicBool::new(false),
            latency_ns: AtomicU64::new(0),
            rates,
            granted: Bucket::default(),
            waiting: AtomicU64::new(0),
            last: AtomicU32::new(u32::MAX),
            inner: Mutex::new(Inner {
                policy,
                breaker: Breaker::new(policy.breaker),
                concurrency,
                paused_until_ns: 0,
                gone: None,
                trouble: None,
                stopped: None,
                pending: false,
                granted: None,
            }),
            attempts: Mutex::default(),
            changes: AtomicU64::new(0),
        })
    }

    /// Its number among those of its destination.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Takes a changed policy. What is known of the endpoint stays, except of what has changed.
    pub fn set_policy(&self, policy: EndpointPolicy) {
        let mut inner = self.inner.lock();
        let before = std::mem::replace(&mut inner.policy, policy);
        if before == policy {
            return;
        }
        if before.breaker != policy.breaker {
            inner.breaker = Breaker::new(policy.breaker);
        }
        if (before.concurrency, before.adapts) != (policy.concurrency, policy.adapts) {
            inner.concurrency = Concurrency::new(clamp(policy.concurrency), policy.adapts);
        }
        self.rates.set(&policy.rate);
        self.publish(&inner);
    }

    /// It agrees to be sent so many requests per minute, `None` for as many as there are. What was in the way, but for an
    /// operator, is so no more.
    pub fn verified(&self, per_minute: Option<u32>) {
        let mut inner = self.inner.lock();
        inner.pending = false;
        self.set_granted(&mut inner, per_minute);
        self.changes.fetch_add(1, Ordering::SeqCst);
        self.publish(&inner);
    }

    /// It is to be asked whether it agrees, before it is sent anything.
    pub fn unverified(&self) {
        let mut inner = self.inner.lock();
        inner.pending = true;
        self.set_granted(&mut inner, None);
        self.changes.fetch_add(1, Ordering::SeqCst);
        self.publish(&inner);
    }

    /// Nobody asks it any more.
    pub fn needs_no_verification(&self) {
        let mut inner = self.inner.lock();
        if inner.pending || inner.granted.is_some() {
            inner.pending = false;
            self.set_granted(&mut inner, None);
            self.changes.fetch_add(1, Ordering::SeqCst);
            self.publish(&inner);
        }
    }

    /// So many requests per minute, a second's worth of them at once.
    fn set_granted(&self, inner: &mut Inner, per_minute: Option<u32>) {
        inner.granted = per_minute;
        self.granted.set(per_minute.map(|n| {
            let per_second = f64::from(n) / 60.0;
            (per_second, per_second.max(1.0) as u64)
        }));
    }

    /// It took nothing for too long, as the others of its destination.
    pub fn give_up(&self) {
        let mut inner = self.inner.lock();
        if inner.stopped.is_none() {
            inner.stopped = Some(Stopped::Failing);
            self.changes.fetch_add(1, Ordering::SeqCst);
            self.publish(&inner);
        }
    }

    /// How long its answers take, ns; 0 if it is not known.
    pub fn latency_ns(&self) -> u64 {
        self.latency_ns.load(Ordering::Relaxed)
    }

    /// It is another one now: forgets what is known of it, unless it was suspended.
    pub fn replaced(&self) {
        if self.stopped() != Some(Stopped::Suspended) {
            self.reset();
        }
    }

    /// Sends nothing until [`Endpoint::reset`].
    pub fn suspend(&self) {
        let mut inner = self.inner.lock();
        inner.stopped = Some(Stopped::Suspended);
        self.changes.fetch_add(1, Ordering::SeqCst);
        self.publish(&inner);
    }

    /// Forgets what is known of it: somebody says that it works.
    pub fn reset(&self) {
        let mut inner = self.inner.lock();
        self.changes.fetch_add(1, Ordering::SeqCst);
        inner.breaker = Breaker::new(inner.policy.breaker);
        inner.concurrency = Concurrency::new(clamp(inner.policy.concurrency), inner.policy.adapts);
        (inner.paused_until_ns, inner.gone, inner.trouble, inner.stopped) = (0, None, None, None);
        self.epoch.fetch_add(1, Ordering::SeqCst);
        self.resets.fetch_add(1, Ordering::SeqCst);
        self.publish(&inner);
    }

    /// Why it gets nothing more, if so.
    pub fn stopped(&self) -> Option<Stopped> {
        let inner = self.inner.lock();
        inner.stopped.or(inner.pending.then_some(Stopped::Pending))
    }

    /// Whether it has not agreed to be sent events yet.
    pub fn is_pending(&self) -> bool {
        self.inner.lock().pending
    }

    /// Whether nothing is sent until somebody says otherwise.
    pub fn is_stopped(&self) -> bool {
        self.until_ns.load(Ordering::Relaxed) == NEVER_NS
    }

    /// Whether the breaker is open, or is being closed by probes.
    pub fn is_open(&self) -> bool {
        self.probing.load(Ordering::SeqCst)
    }

    /// Something about it has changed that outlives the engine.
    pub fn touch(&self) {
        self.changes.fetch_add(1, Ordering::SeqCst);
    }

    /// What outlives the engine.
    pub fn known(&self, now_ns: u64) -> Known {
        let inner = self.inner.lock();
        Known {
            stopped: inner.stopped,
            failing_ns: inner.trouble.map_or(0, |t| t.span.length_ns(now_ns)),
            failing_attempts: inner.trouble.map_or(0, |t| t.attempts),
            noticed: inner.trouble.map_or(0, |t| t.noticed),
            gone_ns: inner.gone.map(|g| g.length_ns(now_ns)),
            pending: inner.pending,
            granted: inner.granted,
        }
    }

    /// Takes over what was known before.
    pub fn restore(&self, known: Known, attempts: Vec<AttemptNote>, now_ns: u64) {
        let span = |before_ns| Span { before_ns, since_ns: now_ns };
        let mut inner = self.inner.lock();
        inner.stopped = known.stopped;
        inner.trouble = (known.failing_attempts > 0).then_some(Trouble {
            span: span(known.failing_ns),
            attempts: known.failing_attempts,
            noticed: known.noticed,
        });
        inner.gone = known.gone_ns.map(span);
        inner.pending = known.pending;
        self.set_granted(&mut inner, known.granted);
        *self.attempts.lock() = attempts.into();
        self.publish(&inner);
    }

    /// Whether an attempt that ends now is worth remembering even if it succeeds.
    pub fn is_troubled(&self) -> bool {
        self.troubled.load(Ordering::Relaxed)
    }

    /// Remembers an attempt.
    pub fn remember(&self, note: AttemptNote) {
        let mut attempts = self.attempts.lock();
        if attempts.len() == ATTEMPTS_MAX {
            attempts.pop_front();
        }
        attempts.push_back(note);
        self.changes.fetch_add(1, Ordering::SeqCst);
    }

    /// The attempts that are remembered, oldest first.
    pub fn attempts(&self) -> Vec<AttemptNote> {
        self.attempts.lock().iter().cloned().collect()
    }

    /// Grows with everything that outlives the engine.
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::SeqCst)
    }

    /// The warning that is due about an endpoint that takes nothing, in percent of the time after which it is given up;
    /// each is given once.
    pub fn take_notice(&self, now_ns: u64) -> Option<u8> {
        let after = self.inner.lock().policy.disable.after;
        self.take_notice_of(after, now_ns)
    }

    /// The same for another time after which it is given up.
    pub fn take_notice_of(&self, after: Duration, now_ns: u64) -> Option<u8> {
        let mut inner = self.inner.lock();
        let after = clamped_ns(after).max(1);
        let trouble = inner.trouble.as_mut()?;
        let percent = u128::from(trouble.span.length_ns(now_ns)) * 100 / u128::from(after);
        let due = NOTICES.into_iter().rfind(|n| u128::from(*n) <= percent && *n > trouble.noticed)?;
        trouble.noticed = due;
        self.changes.fetch_add(1, Ordering::SeqCst);
        Some(due)
    }

    /// Makes known what was decided.
    fn publish(&self, inner: &Inner) {
        let opened = inner.breaker.until_ns();
        let until = match inner.stopped {
            Some(_) => NEVER_NS,
            None if inner.pending => NEVER_NS,
            None => inner.paused_until_ns.max(opened.unwrap_or(0)),
        };
        self.until_ns.store(until, Ordering::SeqCst);
        self.probing.store(opened.is_some(), Ordering::SeqCst);
        self.answers.store(inner.breaker.answers(), Ordering::SeqCst);
        self.limit.store(if opened.is_some() { 1 } else { inner.concurrency.limit() }, Ordering::SeqCst);
        let troubled = !inner.breaker.is_calm() || inner.gone.is_some() || inner.trouble.is_some();
        self.troubled.store(troubled, Ordering::SeqCst);
    }

    /// What it lets through now, as far as pauses and the breaker go.
    pub fn gate(&self, now_ns: u64) -> Gate {
        let until = self.until_ns.load(Ordering::Relaxed);
        match () {
            () if now_ns < until => Gate::Open(until),
            () if self.probing.load(Ordering::Relaxed) => Gate::Probe,
            () => Gate::Closed,
        }
    }

    /// Whether the last probe succeeded, and more of them are to.
    pub fn answers(&self) -> bool {
        self.answers.load(Ordering::Relaxed)
    }

    /// How often the endpoint came back after it was left alone, and how often somebody said that it works again.
    pub fn recoveries(&self) -> (u32, u32) {
        (self.recoveries.load(Ordering::Relaxed), self.resets.load(Ordering::Relaxed))
    }

    /// How many requests are on their way, and how many may be.
    pub fn in_flight(&self) -> (usize, usize) {
        (self.in_flight.load(Ordering::Relaxed) as usize, self.limit.load(Ordering::Relaxed) as usize)
    }

    /// Asks to send up to so many events and bytes; `whole`: all of them or nothing.
    pub fn ask(self: &Arc<Self>, seat: Seat, events: usize, bytes: usize, whole: bool, now_ns: u64) -> Leave {
        let until = self.until_ns.load(Ordering::Relaxed);
        if now_ns < until {
            return Leave::Wait(until);
        }
        if !self.take_place(seat) {
            return Leave::Busy(now_ns.saturating_add(ASK_AGAIN_NS));
        }
        // From here on the place is given back with the permit.
        let mut permit = Permit {
            endpoint: self.clone(),
            epoch: self.epoch.load(Ordering::SeqCst),
            since_ns: now_ns,
            events: 0,
            bytes: 0,
            events_max: usize::MAX,
            bytes_max: usize::MAX,
        };
        if (self.rates.limited.load(Ordering::Relaxed) || self.granted.is_limited())
            && let Err(at) = self.take_tokens(&mut permit, events as u64, bytes as u64, whole, now_ns)
        {
            return Leave::Wait(at);
        }
        Leave::Go(permit)
    }

    fn take_tokens(&self, p: &mut Permit, events: u64, bytes: u64, whole: bool, now_ns: u64) -> Result<(), u64> {
        let rates = &self.rates;
        let one_request = rates
            .requests
            .take(1, true, now_ns)
            .and_then(|_| self.granted.take(1, true, now_ns).inspect_err(|_| rates.requests.settle(1, 0)));
        one_request?;
        let back = || {
            rates.requests.settle(1, 0);
            self.granted.settle(1, 0);
        };
        p.events = rates.events.take(events, whole, now_ns).inspect_err(|_| back())?;
        p.bytes = rates.bytes.take(bytes, whole, now_ns).inspect_err(|_| {
            back();
            rates.events.settle(p.events, 0);
        })?;
        if !whole {
            (p.events_max, p.bytes_max) = (clamped(p.events), clamped(p.bytes));
        }
        Ok(())
    }

    /// Counts one more on its way, if there is a place. Who had the last one lets those go first that wait.
    fn take_place(&self, seat: Seat) -> bool {
        let own = seat.bit();
        loop {
            let n = self.in_flight.load(Ordering::SeqCst);
            let limit = self.limit.load(Ordering::SeqCst);
            let waiting = self.waiting.load(Ordering::SeqCst);
            let others = waiting & !own;
            let free = limit.saturating_sub(n);
            let stands_back = others != 0
                && waiting & own == 0
                && free <= others.count_ones()
                && self.last.load(Ordering::Relaxed) == seat.0;
            if free == 0 || stands_back {
                self.waiting.fetch_or(own, Ordering::SeqCst);
                // One may have become free before anybody could know that it is waited for.
                if free == 0 && self.in_flight.load(Ordering::SeqCst) < self.limit.load(Ordering::SeqCst) {
                    continue;
                }
                self.saturated.store(true, Ordering::Relaxed);
                return false;
            }
            if self.in_flight.compare_exchange(n, n + 1, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
                if waiting & own != 0 {
                    self.waiting.fetch_and(!own, Ordering::SeqCst);
                }
                if n + 1 >= limit {
                    self.saturated.store(true, Ordering::Relaxed);
                }
                self.last.store(seat.0, Ordering::Relaxed);
                return true;
            }
        }
    }

    /// An attempt has ended. `random` is uniform in [0, 1). Returns who is to be told that it may send, of the others.
    pub fn ended(permit: Permit, seat: Seat, said: Said, now_ns: u64, random: f64) -> Option<Seat> {
        let it = permit.endpoint.clone();
        it.note(&permit, said, now_ns, random);
        drop(permit);
        it.next_waiting(seat)
    }

    /// Whose turn it is of those that wait, which then waits no more: the next one after `seat`, around.
    fn next_waiting(&self, seat: Seat) -> Option<Seat> {
        loop {
            let others = self.waiting.load(Ordering::SeqCst) & !seat.bit();
            if others == 0 {
                return None;
            }
            let next = Seat((others.rotate_right(seat.0).trailing_zeros() + seat.0) % SEATS);
            if self.waiting.fetch_and(!next.bit(), Ordering::SeqCst) & next.bit() != 0 {
                return Some(next);
            }
        }
    }

    fn note(&self, permit: &Permit, said: Said, now_ns: u64, random: f64) {
        let rtt = now_ns.saturating_sub(permit.since_ns);
        let saturated = self.saturated.load(Ordering::Relaxed);
        if matches!(said, Said::Works | Said::Answers) {
            // What is lost when two shards do so at once is sample enough.
            let before = self.latency_ns.load(Ordering::Relaxed);
            let after = if before == 0 { rtt } else { before - before / 8 + rtt / 8 };
            self.latency_ns.store(after.max(1), Ordering::Relaxed);
        }
        if said == Said::Works && !self.troubled.load(Ordering::SeqCst) {
            // What another shard is just noting is sample enough.
            let Some(mut inner) = self.inner.try_lock() else { return };
            if inner.breaker.is_calm() && inner.trouble.is_none() {
                inner.breaker.success(now_ns);
                inner.concurrency.answered(rtt, saturated, now_ns);
                inner.concurrency.grow();
                self.saturated.store(false, Ordering::Relaxed);
                let limit = inner.concurrency.limit();
                if self.limit.load(Ordering::Relaxed) != limit {
                    self.limit.store(limit, Ordering::SeqCst);
                }
                return;
            }
            drop(inner);
        }
        let mut guard = self.inner.lock();
        let inner = &mut *guard;
        let current = permit.epoch == self.epoch.load(Ordering::SeqCst);
        let was_open = inner.breaker.until_ns();
        match said {
            Said::Nothing => return,
            Said::Works => inner.trouble = None,
            _ => {
                let fresh = Trouble { span: Span::begun(now_ns), attempts: 0, noticed: 0 };
                let trouble = inner.trouble.get_or_insert(fresh);
                trouble.attempts = trouble.attempts.saturating_add(1);
                let limit = inner.policy.disable;
                let too_long = trouble.span.length_ns(now_ns) >= clamped_ns(limit.after);
                if too_long && trouble.attempts >= limit.attempts_min && inner.stopped.is_none() {
                    inner.stopped = Some(Stopped::Failing);
                    self.changes.fetch_add(1, Ordering::SeqCst);
                }
            }
        }
        match said {
            // Old news.
            Said::Works | Said::Answers | Said::Fails | Said::Overloaded | Said::Denied | Said::Gone if !current => {}
            Said::Nothing => {}
            Said::Works | Said::Answers => {
                inner.gone = None;
                inner.concurrency.answered(rtt, saturated, now_ns);
                inner.concurrency.grow();
                let answered = inner.breaker.answers();
                let closed = inner.breaker.success(now_ns);
                if closed {
                    inner.concurrency.restart();
                }
                if !answered && (closed || inner.breaker.answers()) {
                    self.recoveries.fetch_add(1, Ordering::SeqCst);
                }
            }
            Said::Fails | Said::Overloaded => {
                inner.gone = None;
                if said == Said::Overloaded {
                    inner.concurrency.too_much(rtt, now_ns);
                }
                inner.breaker.failure(now_ns, random);
            }
            Said::Denied => {
                inner.gone = None;
                inner.breaker.trip(now_ns, random);
            }
            Said::Gone => {
                let gone = *inner.gone.get_or_insert(Span::begun(now_ns));
                if gone.length_ns(now_ns) >= GONE_GIVEN_UP_NS && inner.stopped.is_none() {
                    inner.stopped = Some(Stopped::Gone);
                    self.changes.fetch_add(1, Ordering::SeqCst);
                }
                inner.breaker.open_until(now_ns + GONE_PROBE_NS);
            }
            Said::Wait { after_ns, too_much } => {
                let max = inner.policy.retry_after_max_ns.max(THROTTLE_MIN_NS);
                let pause = after_ns.unwrap_or(THROTTLE_DEFAULT_NS).clamp(THROTTLE_MIN_NS, max);
                inner.paused_until_ns = inner.paused_until_ns.max(now_ns + pause);
                if too_much {
                    inner.concurrency.too_much(rtt, now_ns);
                }
            }
        }
        if inner.breaker.until_ns() != was_open && inner.breaker.until_ns().is_some() {
            self.epoch.fetch_add(1, Ordering::SeqCst);
        }
        self.publish(inner);
    }

    /// Until when it has asked to be left alone (monotonic ns).
    pub fn paused_until_ns(&self) -> u64 {
        self.inner.lock().paused_until_ns
    }
}

fn clamped_ns(t: Duration) -> u64 {
    u64::try_from(t.as_nanos()).unwrap_or(u64::MAX)
}

fn clamp(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX).max(1)
}

fn clamped(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests;
