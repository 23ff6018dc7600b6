//! The engine: open, publish, flush, close.

use std::collections::BTreeMap;

mod append;
pub(crate) mod batch;
mod completions;
mod consumer;
mod dead_letters;
mod details;
mod enrich;
mod history;
pub(crate) mod intake;
pub(crate) mod keep;
mod kept;
mod losses;
mod metrics;
mod pressure;
mod replay;
mod reserve;
mod rules;
mod snapshot;
mod standing;
mod tail;
pub(crate) mod told;

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use crossbeam_utils::CachePadded;
use futures::channel::oneshot;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::config::{Config, EngineConfig, RulesKept};
use crate::driver::{self, ShardThread, WallClock};
use crate::engine::consumer::Groups;
use crate::engine::kept::Kept;
use crate::engine::replay::Replays;
use crate::engine::rules::Control;
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, EventType, EventTypes, frame, resource_hash};
use crate::fork::ForkGuard;
use crate::lock::Mutex;
use crate::log::Ack;
use crate::log::losses::LossReason;
use crate::log::recovery::{self, DataDir, ShardState, Writers};
use crate::rule::{LiveDestinations, RuleSet};
use crate::shard::dedup::DedupKey;
use crate::shard::entrance::Entrance;
use crate::shard::fair::Fairness;
use crate::shard::gate::{self, Peers};
use crate::shard::keep::KeepStart;
use crate::shard::message::Tag;
use crate::shard::progress::Receipt;
use crate::shard::queues::Queues;
use crate::shard::ring::PushError;
use crate::shard::snapshot::{Everywhere, Snapshot};
use crate::shard::{self, Command, Shared, shard_of, stats};
use crate::shared::{Listening, Server};

pub use batch::{PublishedJson, Receipts};
pub(crate) use completions::Keep;
pub use completions::{Completion, CompletionCalls, Completions};
pub use consumer::{Consumer, ConsumerOptions, Delivered, Delivery, GroupStats, Lease};
pub use dead_letters::{Redrive, RedriveOptions, Redriven};
pub use losses::LossCount;
pub use metrics::MetricsFormat;
pub use replay::{ReplayHandle, ReplayProgress, ReplayRequest, ReplayState, ReplayTo};
pub(crate) use reserve::bytes_max_of;
pub use reserve::{
    BatchReservation, CommitFields, CommitOptions, InDoubt, Intent, Reservation, ReserveOptions, Reserved,
    ReservedBatch, Resolution,
};
pub use rules::{BucketNotification, RulesStats};
pub use tail::{LogWatch, Tail};

/// What `publish` does when the ring of the event's shard is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFull {
    /// Waits for space, at most so long, then answers [`ErrorKind::Full`].
    Block(Duration),
    /// Answers [`ErrorKind::Full`] at once.
    Refuse,
    /// As [`OnFull::Block`], but what it refuses is not counted: for a caller that will try again by itself.
    Retry(Duration),
}

impl OnFull {
    /// Until when it waits; `None` if it does not.
    pub(crate) fn deadline(self) -> Option<Instant> {
        self.limit().map(deadline_in)
    }

    /// How long it waits; `None` if it does not.
    pub(crate) fn limit(self) -> Option<Duration> {
        match self {
            OnFull::Block(limit) | OnFull::Retry(limit) => Some(limit),
            OnFull::Refuse => None,
        }
    }
}

/// How an event is published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublishOptions {
    /// How safe the event is before the call returns.
    pub ack: Ack,
    /// What happens when there is no space.
    pub on_full: OnFull,
    /// How long the call waits for `ack`; then it answers [`ErrorKind::Timeout`] though the event stays accepted.
    pub ack_timeout: Duration,
    /// By what repeats of this publication are recognised: a second event of the same resource with the same key, within
    /// `engine.dedup.window`, is not accepted ([`Published::Duplicate`]). Default: `None`.
    pub dedup_key: Option<DedupKey>,
}

impl Default for PublishOptions {
    /// Durable, waiting for space and for the disk up to 30 s each.
    fn default() -> Self {
        PublishOptions {
            ack: Ack::Synced,
            on_full: OnFull::Block(Duration::from_secs(30)),
            ack_timeout: Duration::from_secs(30),
            dedup_key: None,
        }
    }
}

/// What became of an event that was published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Published {
    /// It is accepted, and has reached the ack level asked for.
    Accepted,
    /// No rule wants events of this bucket and type: nothing was copied, nothing will be kept.
    NoMatch,
    /// It was accepted before and is not accepted again. The one that was has reached the ack level asked for.
    Duplicate,
}

/// An event and notification engine over one data directory.
///
/// All methods may be called from any thread at the same time. Clones share one engine. The engine closes when
/// [`Engine::close`] is called or the last clone is dropped (then with the configured `close_timeout`).
///
/// After `fork`, a child must not use the engine of its parent: every call answers [`ErrorKind::WrongProcess`]. It may
/// open one of its own, on another data directory.
#[derive(Clone, Debug)]
pub struct Engine {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    config: Arc<EngineConfig>,
    /// In order of their numbers.
    shards: Vec<Arc<Shared>>,
    front: Front,
    snapshot: Arc<ArcSwap<Snapshot>>,
    writers: Arc<Writers>,
    queues: Arc<Queues>,
    /// What opening and closing change.
    life: Mutex<Life>,
    closed: AtomicBool,
    refused_invalid: AtomicU64,
    refused_queue: AtomicU64,
    refused_unfair: AtomicU64,
    no_match: SpreadCount,
    /// Of this opening.
    incarnation: u64,
    /// Held while an event is appended with a cursor of the host, so that they come in the order of the cursors.
    append: Mutex<()>,
    /// The next intent's ticket.
    next_ticket: AtomicU64,
    /// Where other processes publish, if they may.
    server: OnceLock<Arc<Server>>,
}

/// What every publish reads, in one cache line.
#[repr(align(64))]
struct Front {
    entrance: ForkGuard<Entrance>,
    /// So many shards, the first ones, take events; the others deliver what was theirs when there were more shards.
    publishing: usize,
    /// The first shard: that of every event where there is one.
    first: Arc<Shared>,
    fairness: Option<Arc<Fairness>>,
    /// The host's, if it has given one.
    clock: Option<WallClock>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner")
            .field("data_dir", &self.config.data_dir)
            .field("shards", &self.shards.len())
            .field("closed", &self.closed)
            .finish_non_exhaustive()
    }
}

struct Life {
    threads: Vec<ShardThread>,
    dir: Option<DataDir>,
    replays: Replays,
    groups: Groups,
    control: Control,
}

impl std::fmt::Debug for Life {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Life").field("threads", &self.threads.len()).field("dir", &self.dir).finish()
    }
}

impl Engine {
    /// Opens an engine with a configuration: its settings and rules. The sources of the configuration are the `tidewire`
    /// command's and are not started.
    ///
    /// Nothing is connected yet: a destination that is down never delays the start.
    ///
    /// # Errors
    /// [`ErrorKind::IoUringUnavailable`], [`ErrorKind::Locked`], [`ErrorKind::ReadOnly`], [`ErrorKind::NoSpace`],
    /// [`ErrorKind::NewerFormat`], [`ErrorKind::Corrupt`], [`ErrorKind::InvalidConfig`] or [`ErrorKind::Io`].
    pub fn open(config: Config) -> Result<Engine> {
        Engine::open_with(config.engine, config.rules)
    }

    /// Opens an engine with settings and rules made in code.
    ///
    /// # Errors
    /// As [`Engine::open`].
    pub fn open_with(config: EngineConfig, rules: RuleSet) -> Result<Engine> {
        config.check_rules(&rules)?;
        driver::probe()?;
        let cpus = driver::usable_cpus();
        let mut dir = DataDir::open(&config.data_dir, config.shards, cpus.len())?;
        let listening = config.shared.as_ref().map(Listening::new).transpose()?;
        let mut states = BTreeMap::new();
        for shard in dir.shard_numbers()? {
            states.insert(shard, recovery::recover_shard(&dir.shard_path(shard), dir.since(shard))?);
        }
        for s in states.values() {
            let f = &s.findings;
            if *f != recovery::Findings::default() {
                log::warn!("{}: recovered: {f:?}", s.path.display());
            }
        }
        dir.upgrade()?;
        let mut handed = shard::handed(&mut states);
        let all: Vec<ShardState> = states.values().cloned().collect();
        let groups = Groups::open(&dir, &config.event_types, &all)?;
        let former: Vec<u32> =
            dir.names.former().filter(|n| states.values().all(|s| shard::nothing_waits(s, *n))).collect();
        let kept = match config.rules {
            RulesKept::Stored => Some(Kept::open(&dir.path, &config.event_types)?),
            RulesKept::Host => None,
        };
        let (mut control, new) = Control::open(rules, groups.keepers()?, kept, &config, &mut dir.names)?;
        let snapshot = control.snapshot(&dir.names);
        // Only now that everything could be read. What cannot be written down is done at the next opening.
        let tidied = dir.names.set_done(&former).and_then(|()| dir.names.tidy());
        for e in [tidied, control.renew()].into_iter().filter_map(Result::err) {
            log::warn!("{e}");
        }
        let destinations = Arc::new(shard::EverDestinations { all: dir.names.destinations().collect(), new });
        let is_new = |destination| destinations.new.contains(&destination);
        let barriers = dir.arrange(&mut states, &destinations.all, is_new)?;
        // A key may have had another shard in an earlier life of the directory, so the clock starts above all of them.
        let floor = states.values().map(|s| s.clock_floor_ns).max().unwrap_or(0);
        for s in states.values_mut() {
            s.clock_floor_ns = floor;
        }
        let snapshot = Arc::new(ArcSwap::from_pointee(snapshot));
        let writers = Arc::new(dir.writers.clone());
        let mut replays = Replays::open(&dir, &config.event_types, &all, |name| {
            snapshot.load().destinations.by_name(name).map(|d| d.destination.clone())
        })?;
        let keep = KeepStart {
            shards: dir.shards,
            writers: writers.clone(),
            replays: replays.running().to_vec(),
            groups: groups.live().to_vec(),
        };
        let config = Arc::new(config);
        let entrance = Entrance::new(Everywhere::of(&snapshot.load()), config.event_bytes_max);
        let entrance = ForkGuard::new(entrance);
        let common = Arc::new(shard::Common::new(&config, &states, &dir, entrance.clone()));
        common.endpoints.follow(&LiveDestinations::default(), &snapshot.load().destinations);
        let shared = |(i, state): (&usize, &ShardState)| Arc::new(Shared::new(*i, &config, state, common.clone()));
        let shards: Vec<Arc<Shared>> = states.iter().map(shared).collect();
        let numbers: Vec<usize> = states.keys().copied().collect();
        let peers: Peers = shards.clone().into();
        let mut holds = gate::holds(&dir.layouts, &barriers, &numbers, &peers);
        let mut threads: Vec<ShardThread> = Vec::new();
        for (place, (i, state)) in states.into_iter().enumerate() {
            let handed = handed.remove(&i).unwrap_or_default();
            let holds = holds.remove(&i).unwrap_or_default();
            let cpu = config.pin_cpus.then(|| cpus[i % cpus.len()]);
            let start = shard::Start {
                shared: shards[place].clone(),
                peers: peers.clone(),
                snapshot: snapshot.clone(),
                destinations: destinations.clone(),
                config: config.clone(),
                state,
                handed,
                holds,
                incarnation: dir.incarnation,
                cpu,
                keep: keep.clone(),
            };
            match shard::start(start) {
                Ok(t) => threads.push(t),
                Err(e) => {
                    let _ = stop(&shards[..place], threads, driver::now());
                    return Err(e.at(format!("shard {i}")));
                }
            }
        }
        replays.tell(shards.clone());
        let engine = Engine {
            inner: Arc::new(Inner {
                front: Front {
                    entrance,
                    publishing: dir.shards,
                    first: shards[0].clone(),
                    fairness: common.fairness.clone(),
                    clock: config.clock.clone(),
                },
                config,
                shards,
                snapshot,
                incarnation: dir.incarnation,
                writers,
                queues: common.queues.clone(),
                life: Mutex::new(Life { threads, dir: Some(dir), replays, groups, control }),
                closed: AtomicBool::new(false),
                refused_invalid: AtomicU64::new(0),
                refused_queue: AtomicU64::new(0),
                refused_unfair: AtomicU64::new(0),
                no_match: SpreadCount::default(),
                next_ticket: AtomicU64::new(1),
                append: Mutex::new(()),
                server: OnceLock::new(),
            }),
        };
        if let Some(listening) = listening {
            // What fails here ends the engine again.
            let server = Server::start(listening, &engine.inner, engine.inner.front.entrance.clone())?;
            engine.inner.queues.watch(&server);
            let _ = engine.inner.server.set(server);
        }
        Ok(engine)
    }

    /// A handle of an engine.
    pub(crate) fn of(inner: Arc<Inner>) -> Engine {
        Engine { inner }
    }

    pub(crate) fn inner(&self) -> &Inner {
        &self.inner
    }

    /// Publishes an event and waits until it is durable (see [`PublishOptions::default`]).
    ///
    /// # Errors
    /// As [`Engine::publish_with`].
    pub fn publish(&self, event: &Event<'_>) -> Result<Published> {
        self.publish_with(event, &PublishOptions::default())
    }

    /// Publishes an event.
    ///
    /// Events of one resource key are delivered in the order in which their calls claimed space in the ring: calls of one
    /// thread, and calls of different threads that are ordered by anything else, keep their order.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidEvent`], [`ErrorKind::Full`], [`ErrorKind::Closed`], [`ErrorKind::WrongProcess`]: the event is
    /// not accepted. [`ErrorKind::Timeout`], [`ErrorKind::LogFailed`]: it is accepted, but has not reached the ack level.
    pub fn publish_with(&self, event: &Event<'_>, options: &PublishOptions) -> Result<Published> {
        if options.dedup_key.is_some() {
            return self.publish_keyed(event, options);
        }
        let Some((shard, position)) = self.push(event, options)? else { return Ok(Published::NoMatch) };
        if options.ack > Ack::Memory {
            let receipt = Receipt::new(shard.clone(), position);
            receipt.wait(options.ack, Some(deadline_in(options.ack_timeout)))?;
        }
        Ok(Published::Accepted)
    }

    /// Publishes an event without waiting for `options.ack`; the receipt tells when it is reached. The level is still
    /// worth giving: it tells the shard what somebody will wait for. `None` if no rule wants the event. The receipt of a
    /// repeat is that of the event that was accepted ([`Receipt::is_duplicate`]).
    ///
    /// # Errors
    /// As [`Engine::publish_with`], but for those about the ack level.
    pub fn submit(&self, event: &Event<'_>, options: &PublishOptions) -> Result<Option<Receipt>> {
        if options.dedup_key.is_some() {
            return self.submit_keyed(event, options);
        }
        Ok(self.push(event, options)?.map(|(shard, position)| Receipt::new(shard.clone(), position)))
    }

    #[inline]
    fn push(&self, event: &Event<'_>, options: &PublishOptions) -> Result<Option<(&Arc<Shared>, u64)>> {
        let inner = &*self.inner;
        let entrance = inner.entrance()?;
        let wanted = inner.interested(entrance, event.bucket, event.event_type);
        let shard = wanted.then(|| inner.shard_of_event(event));
        if let Some(shard) = shard {
            shard.ring.expect_push();
        }
        let layout = match event.check(entrance.event_bytes_max) {
            Ok(layout) => layout,
            Err(e) => {
                inner.refused_invalid.fetch_add(1, Ordering::Relaxed);
                return Err(e);
            }
        };
        if let EventType::Custom(_) = event.event_type {
            inner.snapshot.load().types.check(event.event_type)?;
        }
        let Some(shard) = shard else {
            inner.check_open()?;
            inner.no_match.add();
            return Ok(None);
        };
        let telling = entrance.telling.load(Ordering::Relaxed);
        if telling != 0 {
            inner.look_before(telling, event, options.on_full)?;
        }
        if let Some(fairness) = &inner.front.fairness {
            inner.enter_fairly(fairness, shard, event.bucket, layout.len(), options.on_full)?;
        }
        let time_ns = if event.time_ns == 0 { inner.wall_ns() } else { event.time_ns };
        let tag = Tag::plain(options.ack).number();
        let push = || shard.ring.push_with(layout.len(), tag, |out| frame::encode(event, layout, time_ns, out));
        let position = match push() {
            Ok(p) => p,
            Err(e) => {
                let pushed = inner.push_slowly(shard, options.on_full, e, push);
                if let (Err(_), Some(fairness)) = (&pushed, &inner.front.fairness) {
                    fairness.leave(shard.index, event.bucket, layout.len());
                }
                pushed?
            }
        };
        shard.ring.notify(options.ack > Ack::Memory);
        Ok(Some((shard, position)))
    }

    /// The event types that the configuration registers, and the known ones.
    pub fn event_types(&self) -> &EventTypes {
        &self.inner.config.event_types
    }

    /// Checks an event as [`Engine::submit`] does, without publishing it: its limits, and that its type is known.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidEvent`].
    pub fn check(&self, event: &Event<'_>) -> Result<()> {
        event.validate(self.inner.config.event_bytes_max)?;
        match event.event_type {
            EventType::Known(_) => Ok(()),
            EventType::Custom(_) => self.inner.snapshot.load().types.check(event.event_type),
        }
    }

    /// Whether this is the process that opened the engine. The calls that can fail ask themselves.
    ///
    /// # Errors
    /// [`ErrorKind::WrongProcess`] in a forked child.
    pub fn check_process(&self) -> Result<()> {
        self.inner.check_process()
    }

    /// Whether any rule could want events of this type in this bucket: if not, the host need not collect what an event
    /// would say. May be true for an event that no rule takes in the end, and is in a forked child, whose publishing fails.
    pub fn is_interested(&self, bucket: &str, event_type: EventType<'_>) -> bool {
        self.inner.entrance().map_or(true, |e| self.inner.interested(e, bucket, event_type))
    }

    /// Waits until every event accepted before the call is delivered or a dead letter. What is passed on to a dead-letter
    /// destination is waited for by the next flush.
    ///
    /// # Errors
    /// As [`Flush::wait`].
    pub fn flush(&self, timeout: Duration) -> Result<()> {
        self.start_flush()?.wait(deadline_in(timeout))
    }

    /// Begins a flush without waiting for it, for callers that have something to look after while they wait.
    ///
    /// # Errors
    /// [`ErrorKind::Closed`] if the engine closes; [`ErrorKind::WrongProcess`] in a forked child.
    pub fn start_flush(&self) -> Result<Flush> {
        let inner = &*self.inner;
        inner.check_process()?;
        inner.check_open()?;
        inner.after_clients(OnFull::Block(CLIENTS_WAIT))?;
        // What a shard hands over to another one is delivered there: once the first round is through, everything is where
        // it is delivered, and a second one waits for that.
        let rounds_left = usize::from(inner.shards.len() > 1 && inner.snapshot.load().hands_over);
        Ok(Flush { replies: inner.flush_shards(), rounds_left, engine: self.clone(), start: driver::now() })
    }

    /// What the engine has counted since it was opened.
    pub fn stats(&self) -> Stats {
        let inner = &*self.inner;
        let mut s = Stats {
            invalid: inner.refused_invalid.load(Ordering::Relaxed),
            no_match: inner.no_match.get(),
            refused_queue: inner.refused_queue.load(Ordering::Relaxed),
            refused_unfair: inner.refused_unfair.load(Ordering::Relaxed),
            log_warning: inner.queues.log.is_warned(),
            shards: inner.front.publishing as u64,
            ..Stats::default()
        };
        s.dedup_evicted = inner.shards.first().map_or(0, |shard| shard.common.dedup_evicted());
        let snapshot = inner.snapshot.load();
        let mut all = BTreeMap::<u32, DestinationStats>::new();
        let mut latency = stats::new_histogram();
        for shard in &inner.shards {
            let c = &shard.stats;
            s.accepted += c.accepted.get();
            s.refused_full += c.refused_full.get();
            s.no_match += c.unmatched.get();
            s.duplicates += c.duplicates.get();
            s.stored += c.stored.get();
            s.routed += c.routed.get();
            s.log_bytes += c.log_bytes.get();
            s.commits += c.commits.get();
            s.syncs += c.syncs.get();
            s.segments += c.segments.get();
            s.log_disk_bytes += c.log_disk_bytes.get();
            s.log_moves += c.log_moves.get();
            s.damaged += c.damaged.get();
            s.ring_used_bytes += shard.ring.used();
            s.ring_reserved_bytes += shard.ring.reserved();
            s.enriched += c.enriched.get();
            s.enrich_timeouts += c.enrich_timeouts.get();
            s.enrich_failed += c.enrich_failed.get();
            s.enrich_panicked += c.enrich_panicked.get();
            s.enrich_skipped += c.enrich_skipped.get();
            s.reservations += c.reservations.get();
            s.in_doubt += shard.in_doubt.lock().values().filter(|i| i.resolved.is_none()).count() as u64;
            s.held_bytes += c.held_bytes.get();
            s.log_file_bytes += c.log_file_bytes.get();
            s.losses_untold += c.losses_untold.get();
            s.tasks += c.tasks.get().map_or(0, |tasks| tasks.load(Ordering::Relaxed));
            s.dead_letters_kept += c.dead_kept.get();
            s.dead_letters_bytes += c.dead_bytes.get();
            s.dead_letters_lost += c.dead_lost.get();
            s.dead_letters_redriven += c.dead_redriven.get();
            s.dead_letters_purged += c.dead_purged.get();
            s.dead_letters_warning |= c.dead_warning.get() > 0;
            c.latency.add_to(&mut latency);
            if let Some(e) = shard.progress.failure().cloned().or_else(|| shard.progress.stalled()) {
                s.unhealthy.push(e.to_string());
            }
            for (number, lane) in shard.lane_stats.lock().iter() {
                let d = all.entry(*number & !shard::DELIVERY).or_default();
                d.routed += lane.routed.get();
                d.delivered += lane.delivered.get();
                d.retried += lane.retried.get();
                d.handed_over += lane.handed_over.get();
                d.dead_lettered += lane.dead_lettered.get();
                d.requests += lane.requests.get();
                d.failures += lane.failures.get();
                d.inherited += lane.inherited.get();
                d.waiting += lane.waiting.get();
                d.waiting_bytes += lane.waiting_bytes.get();
                for (reason, lost) in LossReason::ALL.into_iter().zip(&lane.lost) {
                    if lost.get() > 0 {
                        *d.losses.entry(reason).or_default() += lost.get();
                    }
                }
                d.connections += lane.connections.get();
                let last = lane.last_error.lock();
                if !last.is_empty() {
                    d.last_error.clone_from(&last);
                }
            }
        }
        for (number, mut d) in all {
            d.name = snapshot.destination(number).map_or_else(|| format!("removed #{number}"), |x| x.name.clone());
            d.dropped = d.losses.iter().filter(|(reason, _)| reason.was_waiting()).map(|(_, n)| n).sum();
            if let Some(queue) = inner.queues.get(number) {
                d.refused = queue.refused.load(Ordering::Relaxed);
                d.queue_warning = queue.is_warned();
            }
            if let Some(shard) = inner.shards.first() {
                d.certificates = shard.common.endpoints.certificates(number);
            }
            s.dropped += d.dropped;
            s.inherited += d.inherited;
            s.delivered += d.delivered;
            s.dead_lettered += d.dead_lettered;
            s.waiting += d.waiting;
            s.destinations.push(d);
        }
        if let Some(server) = inner.server() {
            (s.clients, s.clients_lost) = (server.clients(), server.lost());
        }
        s.latency = latency;
        s
    }

    /// The configuration that the engine was opened with.
    pub fn config(&self) -> &EngineConfig {
        &self.inner.config
    }

    /// Closes the engine: takes no more events, writes and syncs what was accepted, delivers until `timeout`, and leaves
    /// the rest in the data directory for the next opening. Calls after the first do nothing.
    ///
    /// Reservations that are open may still be committed or aborted until `timeout`: closing waits for them. After that
    /// their commits are refused, and those that were made durable are in doubt at the next opening.
    ///
    /// # Errors
    /// [`ErrorKind::LogFailed`] if the log of a shard failed: events accepted but not durable by then are lost;
    /// [`ErrorKind::Internal`] if a shard ended badly; [`ErrorKind::WrongProcess`] in a forked child.
    pub fn close(&self, timeout: Duration) -> Result<()> {
        self.inner.check_process()?;
        self.inner.close(timeout)
    }
}

/// A flush under way: see [`Engine::start_flush`]. Dropping it changes nothing for the events.
#[derive(Debug)]
#[must_use = "a flush is for waiting"]
pub struct Flush {
    engine: Engine,
    /// Of the shards that have not answered.
    replies: Vec<oneshot::Receiver<()>>,
    rounds_left: usize,
    start: Instant,
}

impl Flush {
    /// Waits until every event accepted before the flush began is delivered or a dead letter, at most until `deadline`.
    /// After a timeout it may be called again.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] with the number of events that still wait; [`ErrorKind::Closed`] if the engine closes;
    /// [`ErrorKind::WrongProcess`] in a forked child.
    pub fn wait(&mut self, deadline: Instant) -> Result<()> {
        driver::block_on(&mut *self, Some(deadline)).unwrap_or_else(|| Err(self.timeout()))
    }

    /// What is said when the time is over before everything is delivered.
    #[cold]
    pub fn timeout(&self) -> Error {
        let waiting: u64 = self.engine.stats().destinations.iter().map(|d| d.waiting).sum();
        let elapsed = self.start.elapsed();
        Error::new(ErrorKind::Timeout, format!("{waiting} deliveries still wait after {elapsed:.1?}"))
            .remedy("they stay in the log and go on; see the destinations' last errors in the statistics")
    }
}

impl Future for Flush {
    type Output = Result<()>;

    /// As [`Flush::wait`], without a deadline and for any executor.
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.engine.inner.check_process()?;
        loop {
            while let Some(reply) = self.replies.last_mut() {
                match ready!(Pin::new(reply).poll(cx)) {
                    Ok(()) => self.replies.pop(),
                    Err(_) => return Poll::Ready(Err(closed())),
                };
            }
            if self.rounds_left == 0 {
                return Poll::Ready(Ok(()));
            }
            self.rounds_left -= 1;
            self.replies = self.engine.inner.flush_shards();
        }
    }
}

/// A counter that threads add to without passing one cache line around.
#[derive(Debug, Default)]
struct SpreadCount([CachePadded<AtomicU64>; 16]);

impl SpreadCount {
    fn add(&self) {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        thread_local! {
            static MINE: usize = NEXT.fetch_add(1, Ordering::Relaxed) as usize % 16;
        }
        // A thread that is ending has no place of its own any more.
        let at = MINE.try_with(|m| *m).unwrap_or(0);
        self.0[at].fetch_add(1, Ordering::Relaxed);
    }

    fn add_all(&self, count: u64) {
        self.0[0].fetch_add(count, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.iter().map(|c| c.load(Ordering::Relaxed)).sum()
    }
}

/// How long those wait who come after what other processes have published, where they are given no other time.
const CLIENTS_WAIT: Duration = Duration::from_secs(30);

/// The end of a time limit, however long.
pub(crate) fn deadline_in(limit: Duration) -> Instant {
    const LONG: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
    let now = driver::now();
    now.checked_add(limit.min(LONG)).unwrap_or(now)
}

/// Why a shard takes no more events.
#[cold]
fn refused(shard: &Shared) -> Error {
    match shard.progress.failure() {
        Some(e) if e.kind() != ErrorKind::Closed => e.clone(),
        _ => closed(),
    }
}

#[cold]
fn full(shard: &Shared) -> Error {
    let e = Error::new(ErrorKind::Full, format!("the ring of shard {} is full", shard.index));
    match shard.progress.stalled() {
        Some(why) => e.remedy(format!("the log waits: {why}")),
        None => e.remedy("publish more slowly, wait longer, or raise engine.ring_bytes"),
    }
}

#[cold]
fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the engine is closed")
}

impl Inner {
    /// See [`Engine::is_interested`].
    #[inline]
    fn interested(&self, entrance: &Entrance, bucket: &str, event_type: EventType<'_>) -> bool {
        entrance.everywhere.wants(event_type) || self.snapshot.load().interested(bucket, event_type)
    }

    /// The time, by the engine's clock, on a thread of the host.
    #[inline]
    pub(crate) fn wall_ns(&self) -> u64 {
        self.front.clock.as_ref().map_or_else(driver::system_ns, WallClock::now_ns)
    }

    /// The shard of a resource's hash.
    #[inline]
    fn shard_of(&self, hash: u64) -> &Arc<Shared> {
        &self.shards[shard_of(hash, self.front.publishing)]
    }

    /// The shard of an event. There is nothing to calculate where there is one.
    #[inline]
    fn shard_of_event(&self, event: &Event<'_>) -> &Arc<Shared> {
        match self.front.publishing {
            1 => &self.front.first,
            _ => self.shard_of(resource_hash(event.bucket.as_bytes(), event.key)),
        }
    }

    /// The shards that take events.
    fn publishing_shards(&self) -> &[Arc<Shared>] {
        &self.shards[..self.front.publishing]
    }

    #[inline]
    pub(crate) fn check_process(&self) -> Result<()> {
        self.entrance().map(|_| ())
    }

    #[inline]
    fn entrance(&self) -> Result<&Entrance> {
        self.front.entrance.get().ok_or_else(wrong_process)
    }

    /// Whoever was refused because the engine closes is refused ever after.
    #[inline]
    fn check_open(&self) -> Result<()> {
        if self.closed.load(Ordering::SeqCst) { Err(closed()) } else { Ok(()) }
    }

    /// Tries `push` again for as long as `on_full` says, after it gave `error`.
    #[cold]
    fn push_slowly(
        &self,
        shard: &Shared,
        on_full: OnFull,
        mut error: PushError,
        mut push: impl FnMut() -> Result<u64, PushError>,
    ) -> Result<u64> {
        let deadline = on_full.deadline();
        loop {
            match error {
                PushError::Closed => return Err(refused(shard)),
                PushError::Full if deadline.is_none_or(|d| !shard.ring.wait_for_space(Some(d))) => {
                    if !matches!(on_full, OnFull::Retry(_)) {
                        shard.stats.refused_full.add_shared(1);
                    }
                    return Err(full(shard));
                }
                PushError::Full => {}
            }
            match push() {
                Ok(p) => return Ok(p),
                Err(e) => error = e,
            }
        }
    }

    pub(crate) fn config(&self) -> &EngineConfig {
        &self.config
    }

    /// Counts events that no rule wanted.
    pub(crate) fn count_no_match(&self, count: u64) {
        self.no_match.add_all(count);
    }

    /// The types that are wanted in every bucket.
    pub(crate) fn everywhere(&self) -> [u64; 2] {
        self.entrance().map_or([0; 2], |e| e.everywhere.words())
    }

    fn flush_shards(&self) -> Vec<oneshot::Receiver<()>> {
        let flush = |s: &Arc<Shared>| {
            let (reply, done) = oneshot::channel();
            s.command(Command::Flush { position: s.ring.tail(), destination: None, reply });
            done
        };
        self.shards.iter().map(flush).collect()
    }

    fn close(&self, timeout: Duration) -> Result<()> {
        self.closed.store(true, Ordering::SeqCst);
        let deadline = deadline_in(timeout);
        if let Some(server) = self.server() {
            server.stop_taking(self, deadline);
        }
        let mut life = self.life.lock();
        let threads = std::mem::take(&mut life.threads);
        life.replays.tidy();
        let result = stop(&self.shards, threads, deadline);
        if let Some(shard) = self.shards.first() {
            shard.common.network.resolver.close();
            shard.common.network.tls.close();
        }
        let merger = life.control.take_merger();
        // The lock on the directory goes last.
        if let Some(dir) = life.dir.take() {
            dir.unlock();
        }
        drop(life);
        if let Some(server) = self.server() {
            server.join(deadline);
        }
        if let Some(shard) = self.shards.first() {
            for name in shard.common.network.handlers.close(deadline) {
                log::error!(
                    "the handler `{name}` has not returned while the engine closed; its thread ends when it does"
                );
            }
        }
        if let Some(shard) = self.shards.first() {
            let left = shard.common.enrichers.close(deadline);
            if left > 0 {
                log::error!(
                    "the enricher has not returned on {left} threads while the engine closed; they end when it does"
                );
            }
        }
        // It may be the one that closes, if it had the last clone of the engine.
        merger.filter(|m| m.thread().id() != std::thread::current().id()).map(JoinHandle::join);
        // A log that failed has not kept what was accepted at `memory` or `written` before it could be made durable.
        let failed = self.shards.iter().filter_map(|s| s.progress.failure()).find(|e| e.kind() != ErrorKind::Closed);
        result.and(failed.map_or(Ok(()), |e| Err(e.clone())))
    }
}

#[cold]
fn wrong_process() -> Error {
    Error::new(ErrorKind::WrongProcess, "this engine belongs to the parent of this process")
        .remedy("open an engine after the fork")
}

/// Stops shards and waits for their threads.
fn stop(shards: &[Arc<Shared>], threads: Vec<ShardThread>, deadline: Instant) -> Result<()> {
    for s in shards {
        s.command(Command::Close { deadline });
        s.ring.close();
    }
    let mut result = Ok(());
    for t in threads {
        result = result.and(t.join());
    }
    result
}

impl Drop for Inner {
    fn drop(&mut self) {
        if self.check_process().is_err() {
            // The threads are the parent's; in this process there is nothing to join.
            let life = self.life.get_mut();
            std::mem::take(&mut life.threads).into_iter().for_each(std::mem::forget);
            self.server.take().into_iter().for_each(std::mem::forget);
            return;
        }
        if let Err(e) = self.close(self.config.close_timeout) {
            log::error!("{e}");
        }
    }
}

/// What an engine has counted.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Stats {
    /// Shards that take events.
    pub shards: u64,
    /// Events taken from the rings.
    pub accepted: u64,
    /// Events refused because a ring was full.
    pub refused_full: u64,
    /// Events refused because the queue of a destination, or the log, was full.
    pub refused_queue: u64,
    /// Events refused because their bucket had its share already.
    pub refused_unfair: u64,
    /// Events refused because they were not valid.
    pub invalid: u64,
    /// Events that no rule wanted.
    pub no_match: u64,
    /// Events not accepted because they were accepted before.
    pub duplicates: u64,
    /// Keys of the window forgotten before their time, because there were more than `engine.dedup.entries_max`.
    pub dedup_evicted: u64,
    /// Events written to the log.
    pub stored: u64,
    /// Deliveries that the stored events call for: one per event and destination.
    pub routed: u64,
    /// Deliveries done (those of earlier runs are not counted).
    pub delivered: u64,
    /// Deliveries given up: kept as dead letters, or passed on to a dead-letter destination.
    pub dead_lettered: u64,
    /// Deliveries dropped by a policy, or because the log was damaged; per destination, [`DestinationStats::losses`] tells
    /// which.
    pub dropped: u64,
    /// Deliveries that earlier runs left; for a while after opening, as far as they are counted.
    pub inherited: u64,
    /// Deliveries that are not done yet. Always `inherited + routed = delivered + dead_lettered + dropped + waiting`, but
    /// for what is being moved from one to the other.
    pub waiting: u64,
    /// Bytes of records written to the log.
    pub log_bytes: u64,
    /// Groups written.
    pub commits: u64,
    /// Times the log was made durable.
    pub syncs: u64,
    /// Segment files of the log.
    pub segments: u64,
    /// Bytes of the files of the log, spare ones included.
    pub log_disk_bytes: u64,
    /// Times the log went on in a new segment because a write or a sync of the one before failed.
    pub log_moves: u64,
    /// Damaged stretches found in the log.
    pub damaged: u64,
    /// Bytes in the rings.
    pub ring_used_bytes: u64,
    /// Bytes of the rings kept free for reservations.
    pub ring_reserved_bytes: u64,
    /// Reservations that are neither committed nor aborted.
    pub reservations: u64,
    /// Intents of earlier runs, and of clients that are gone, that the host has not resolved.
    pub in_doubt: u64,
    /// Bytes of rendered records held for delivery.
    pub held_bytes: u64,
    /// Bytes of the files of the log, where those have a limit.
    pub log_file_bytes: u64,
    /// Whether the files of the log take so much that events will soon be shed or refused.
    pub log_warning: bool,
    /// Losses that were counted, but of which the audit could not tell yet, because it cannot be written.
    pub losses_untold: u64,
    /// Dead letters that are kept, those of earlier runs included.
    pub dead_letters_kept: u64,
    /// Bytes of their files.
    pub dead_letters_bytes: u64,
    /// Dead letters dropped because there were too many or they were too old.
    pub dead_letters_lost: u64,
    /// Dead letters put back into the log.
    pub dead_letters_redriven: u64,
    /// Dead letters removed on request.
    pub dead_letters_purged: u64,
    /// Whether some shard has so many dead letters that the oldest will soon be dropped.
    pub dead_letters_warning: bool,
    /// Tasks of the shards: some for each shard and each destination, one for each request under way and for each connection
    /// of HTTP/2. Where nothing is under way it does not grow.
    pub tasks: u64,
    /// What is wrong, per shard that is not well.
    pub unhealthy: Vec<String>,
    /// Per destination.
    pub destinations: Vec<DestinationStats>,
    /// Other processes that are connected to the engine.
    pub clients: u64,
    /// Events that were accepted from other processes and could not be taken in, because the engine had failed.
    pub clients_lost: u64,
    /// Events that the enricher saw ([`Engine::set_enricher`]), whether it added anything or not.
    pub enriched: u64,
    /// Events for which it took too long; these and the next three have got the fallback.
    pub enrich_timeouts: u64,
    /// Events for which it failed, or added what cannot be.
    pub enrich_failed: u64,
    /// Events for which it panicked.
    pub enrich_panicked: u64,
    /// Events that it did not see, because it had not come back from an earlier one, or the engine closed.
    pub enrich_skipped: u64,
    /// Microseconds from acceptance by the shard to the destination's answer.
    #[serde(with = "told::latency")]
    pub latency: Histogram<u64>,
}

impl Default for Stats {
    fn default() -> Self {
        Stats {
            shards: 0,
            accepted: 0,
            refused_full: 0,
            refused_queue: 0,
            refused_unfair: 0,
            invalid: 0,
            no_match: 0,
            duplicates: 0,
            dedup_evicted: 0,
            stored: 0,
            routed: 0,
            delivered: 0,
            dead_lettered: 0,
            dropped: 0,
            inherited: 0,
            waiting: 0,
            log_bytes: 0,
            commits: 0,
            syncs: 0,
            segments: 0,
            log_disk_bytes: 0,
            log_moves: 0,
            damaged: 0,
            ring_used_bytes: 0,
            ring_reserved_bytes: 0,
            reservations: 0,
            in_doubt: 0,
            held_bytes: 0,
            log_file_bytes: 0,
            log_warning: false,
            losses_untold: 0,
            dead_letters_kept: 0,
            dead_letters_bytes: 0,
            dead_letters_lost: 0,
            dead_letters_redriven: 0,
            dead_letters_purged: 0,
            dead_letters_warning: false,
            tasks: 0,
            unhealthy: Vec::new(),
            destinations: Vec::new(),
            clients: 0,
            clients_lost: 0,
            enriched: 0,
            enrich_timeouts: 0,
            enrich_failed: 0,
            enrich_panicked: 0,
            enrich_skipped: 0,
            latency: stats::new_histogram(),
        }
    }
}

/// What an engine has counted for one destination.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct DestinationStats {
    /// The destination.
    pub name: String,
    /// Deliveries called for by events of this run.
    pub routed: u64,
    /// Deliveries done.
    pub delivered: u64,
    /// Times that an event was handed over to the shard that delivers it, which may be its own
    /// ([`crate::rule::Order::Strict`]). It is then neither delivered nor routed once more, but still waiting.
    pub handed_over: u64,
    /// Deliveries put off for another attempt, each time counted.
    pub retried: u64,
    /// Deliveries given up: kept as dead letters, or passed on to the dead-letter destination.
    pub dead_lettered: u64,
    /// Requests sent.
    pub requests: u64,
    /// Requests that failed.
    pub failures: u64,
    /// Deliveries that earlier runs left; for a while after opening, as far as they are counted.
    pub inherited: u64,
    /// Deliveries not done yet.
    pub waiting: u64,
    /// Bytes of the log that they take.
    pub waiting_bytes: u64,
    /// Deliveries dropped by a policy, or because the log was damaged.
    pub dropped: u64,
    /// Losses by reason: those that make up `dropped`, and those of dead letters.
    pub losses: std::collections::BTreeMap<LossReason, u64>,
    /// Events refused to publishers because the queue was full.
    pub refused: u64,
    /// Whether the queue is so full that events will soon be shed or refused.
    pub queue_warning: bool,
    /// Connections made.
    pub connections: u64,
    /// When its certificates expire, and whether those can be used that were replaced.
    pub certificates: crate::log::standing::Certificates,
    /// What went wrong last; empty if nothing ever did.
    pub last_error: String,
}
