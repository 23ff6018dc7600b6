//! The pipeline on one core: ring, matching, log, lanes.
//!
//! A shard is a thread with a few tasks that share a [`Shard`]: *ingest* takes events from the ring, matches them and packs
//! them for the log; *commit* writes and syncs groups and then hands their events to the lanes; each lane has a task that
//! sends; *housekeeping* saves cursors and removes segments that every lane has passed. Nothing here blocks the thread.

pub(crate) mod bell;
mod certificates;
mod commit;
mod crowd;
pub(crate) mod dead;
pub(crate) mod dedup;
mod dispatch;
pub(crate) mod endpoints;
mod enrich;
pub(crate) mod entrance;
pub(crate) mod fair;
mod files;
pub(crate) mod gate;
pub(crate) mod group;
mod guard;
mod handover;
mod house;
mod ingest;
mod journal;
pub(crate) mod keep;
mod kept;
mod lanes;
pub(crate) mod losses;
pub(crate) mod message;
mod notices;
pub mod progress;
pub(crate) mod queues;
pub(crate) mod replay;
pub mod ring;
pub(crate) mod snapshot;
pub(crate) mod stats;
mod sync;
#[cfg(test)]
mod tests;
mod verify;
mod walk;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use bytes::BytesMut;
use futures::FutureExt;
use futures::channel::oneshot;
use futures::future::select;

use crate::config::{EngineConfig, Idle, Network};
use crate::connect::custom::{Answer, Answers};
use crate::delivery::lane::Now;
use crate::driver::{self, Disk, Notify, ShardThread, wall_ns};
use crate::enrich::{Asking, Enrichers};
use crate::error::{Error, ErrorKind, Result};
use crate::fork::ForkGuard;
use crate::lock::Mutex;
use crate::log::BLOCK_BYTES;
use crate::log::appender::{Appender, SegmentPlan};
use crate::log::checkpoint::Checkpoint;
use crate::log::layout::Applied;
use crate::log::recovery::{self, DataDir, ShardState};
use crate::log::segment::Purpose;
use crate::log::standing::Standing;
use crate::rule::LiveDestinations;

use dead::{Buried, DeadJob, DeadLetters};
use dedup::Dedup;
use endpoints::Endpoints;
use enrich::Enriching;
use entrance::Entrance;
use fair::Fairness;
use files::{FilesPlan, SegmentFiles};
use gate::{Holds, Peers};
use group::ConsumerGroup;
use journal::Journal;
use keep::{KeepStart, Keeping};
use lanes::LaneSlot;
use losses::{LossCounts, Losses};
use progress::{Progress, Receipt, Way};
use queues::Queues;
use replay::{PartState, Replay};
use ring::Ring;
use snapshot::{Matches, Snapshot};
use stats::{LaneStats, ShardStats};

pub(crate) use handover::{DELIVERY, Handed, handed, nothing_waits};

/// What all shards of an engine share.
#[derive(Debug)]
pub(crate) struct Common {
    /// So many shards, the first ones, take events.
    pub(crate) publishing: usize,
    /// Everything that the host appended up to this cursor of its own is in the rings, or further, or was for nobody.
    pub(crate) host_cursor: AtomicU64,
    /// Which publications are repeats: one table per shard, or none if nobody wants to know.
    dedup: Vec<Mutex<Dedup>>,
    /// What the shards had of the host's log when there were more or fewer of them.
    applied: Vec<Applied>,
    pub(crate) queues: Arc<Queues>,
    /// What publishers look at first; it also tells a forked child apart.
    pub(crate) entrance: ForkGuard<Entrance>,
    pub(crate) fairness: Option<Arc<Fairness>>,
    pub(crate) enrichers: Enrichers,
    /// How destinations are reached.
    pub(crate) network: Arc<Network>,
    /// What is known of their endpoints.
    pub(crate) endpoints: Arc<Endpoints>,
    /// What the monotonic times of all shards are counted from.
    started: Instant,
}

impl Common {
    pub(crate) fn new(
        config: &EngineConfig,
        states: &BTreeMap<usize, ShardState>,
        dir: &DataDir,
        entrance: ForkGuard<Entrance>,
    ) -> Common {
        let publishing = dir.shards;
        let lowest = states.range(..publishing).map(|(_, s)| s.checkpoint.host_cursor()).min();
        let window_ns = config.dedup.window.as_nanos() as u64;
        let tables = if window_ns > 0 { publishing } else { 0 };
        let new_table = |_| Mutex::new(Dedup::new(window_ns, config.dedup.entries_max));
        let network = Arc::new(Network::new(&config.network));
        let common = Common {
            publishing,
            host_cursor: AtomicU64::new(lowest.unwrap_or(0)),
            dedup: (0..tables).map(new_table).collect(),
            applied: dir.applied().to_vec(),
            // By their numbers, which may have gaps.
            queues: Arc::new(Queues::new(
                &config.queue,
                states.keys().next_back().map_or(0, |last| last + 1),
                entrance.clone(),
            )),
            entrance,
            fairness: Fairness::new(&config.fairness, config.ring_bytes, publishing).map(Arc::new),
            endpoints: Arc::new(Endpoints::open(&config.data_dir, network.tls.clone())),
            enrichers: Enrichers::default(),
            network,
            started: driver::now(),
        };
        let mut entries: Vec<_> = states.values().flat_map(|s| &s.dedup).collect();
        entries.sort_by_key(|e| e.at_ns);
        for e in entries {
            if let Some(table) = common.dedup(e.key) {
                table.lock().insert(e.key, e.at_ns, 0);
            }
        }
        common
    }

    /// What is known of a destination, by name.
    pub(crate) fn standing_of(&self, name: &str) -> Option<Standing> {
        self.endpoints.standing(name, driver::since(self.started).as_nanos() as u64, driver::system_ns() / 1_000_000)
    }

    /// The table that a key belongs in.
    pub(crate) fn dedup(&self, key: u128) -> Option<&Mutex<Dedup>> {
        let n = self.dedup.len() as u64;
        self.dedup.get((key as u64).checked_rem(n)? as usize)
    }

    /// Whether an event that stands at `cursor` in the host's log is in the log of a shard that a resource with this hash
    /// had earlier.
    pub(crate) fn was_applied(&self, cursor: u64, hash: u64) -> bool {
        self.applied.iter().any(|a| a.cursors.get(shard_of(hash, a.cursors.len())).is_some_and(|had| cursor <= *had))
    }

    /// How many keys were forgotten before their time.
    pub(crate) fn dedup_evicted(&self) -> u64 {
        self.dedup.iter().map(|d| d.lock().evicted).sum()
    }
}

/// The shard of a hash: by its high bits, so that the low ones stay for tables.
pub(crate) fn shard_of(hash: u64, shards: usize) -> usize {
    ((u128::from(hash) * shards as u128) >> 64) as usize
}

/// What host threads and the shard's thread share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) index: usize,
    pub(crate) common: Arc<Common>,
    pub(crate) ring: RingBox,
    pub(crate) progress: Progress,
    pub(crate) stats: ShardStats,
    pub(crate) lane_stats: Mutex<BTreeMap<u32, Arc<LaneStats>>>,
    pub(crate) losses: Mutex<LossCounts>,
    /// The sequences that intents got, by the tickets that their hosts gave them, until somebody asks.
    pub(crate) tickets: Mutex<HashMap<u64, u64>>,
    /// The intents that earlier runs left without an end, by sequence.
    pub(crate) in_doubt: Mutex<BTreeMap<u64, InDoubtIntent>>,
    /// The highest of the host's cursors that the shard was given an event with.
    pub(crate) host_cursor_given: AtomicU64,
    /// The host's cursor up to which the shard will still know, after a crash, that it has everything.
    pub(crate) host_cursor_saved: AtomicU64,
    /// The ring is closed, and everything that came through it and is for another shard to deliver was handed over.
    pub(crate) handed_over: AtomicBool,
    /// Sequence of the last event that is in the log and was handed to the lanes.
    head: AtomicU64,
    /// How many want no segment to be removed.
    pins: AtomicUsize,
    /// `None` once nobody will obey any more.
    commands: Mutex<Option<Vec<Command>>>,
    /// How many there have been.
    commands_given: AtomicU64,
    /// Changes of the rules that were given and are not yet in force.
    rules_ahead: AtomicUsize,
}

/// So many changes of the rules may wait in a shard for the events before them.
const RULES_AHEAD_MAX: usize = 64;

/// So long a change of the rules waits for a shard that has too many ahead of it, and may be stuck at a disk: as long as
/// publishing does. Then, of those that wait, the last counts, and events are matched by rules that were not there yet.
const RULES_PATIENCE: Duration = Duration::from_secs(30);

/// Zeros are written so far ahead of the data, at a time: a write into zeros that are there already leaves the file
/// system nothing to record, which makes the sync several times faster than one of a growing file.
const ZERO_AHEAD_BYTES: u64 = 1 << 20;

/// The ring, with a `Debug` that does not print it.
pub(crate) struct RingBox(Ring);

impl std::fmt::Debug for RingBox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ring").field("used", &self.0.used()).finish_non_exhaustive()
    }
}

impl std::ops::Deref for RingBox {
    type Target = Ring;

    fn deref(&self) -> &Ring {
        &self.0
    }
}

/// An intent that an earlier run left without an end.
#[derive(Debug)]
pub(crate) struct InDoubtIntent {
    pub(crate) intent: recovery::Intent,
    /// What the host said since.
    pub(crate) resolved: Option<Resolved>,
}

/// What the host said became of an operation in doubt.
#[derive(Clone, Debug)]
pub(crate) struct Resolved {
    pub(crate) committed: bool,
    /// Where that stands: which shard's ring, and up to where.
    pub(crate) shard: usize,
    pub(crate) position: u64,
}

/// What the engine asks of a shard.
#[derive(Debug)]
pub(crate) enum Command {
    /// The rules have changed. What was published before, up to this ring position, is matched by those of before.
    Reload { position: u64, snapshot: Arc<Snapshot> },
    /// Answer once everything accepted up to this ring position is delivered or dead-lettered, of one destination or of all.
    Flush { position: u64, destination: Option<u32>, reply: oneshot::Sender<()> },
    /// Something is to be done with the dead letters.
    DeadLetters(DeadJob),
    /// Begin or resume a replay.
    Replay(Arc<Replay>),
    /// End a replay before it is through.
    EndReplay(Arc<Replay>),
    /// The replay of this number is no longer known.
    ForgetReplay(u32),
    /// Keep the log for a group of consumers, and the events that it wants; answer when that holds.
    Group { group: Arc<ConsumerGroup>, reply: oneshot::Sender<()> },
    /// Keep nothing for the group of this number any more.
    EndGroup(u32),
    /// Write a dead letter; answer when it is durable.
    Bury { letter: Buried, reply: oneshot::Sender<()> },
    /// Show events to this enricher from now on, or to none.
    Enrich(Option<Asking>),
    /// The host has answered a batch.
    Answered(Answer),
    /// What held lanes back is gone; look.
    Look,
    /// The lanes of this destination may send again.
    Turn(u32),
    /// The secrets of this destination have changed.
    Reconnect(u32),
    /// Deliver until `deadline`, then stop. The ring is closed already.
    Close { deadline: Instant },
}

impl Receipt {
    /// Sees to it that an ack level is reached soon.
    pub(crate) fn hurry(&self) {
        if let Way::Shard(shard) = &self.way {
            shard.ring.notify(true);
        }
    }
}

impl Shared {
    pub(crate) fn new(index: usize, config: &EngineConfig, state: &ShardState, common: Arc<Common>) -> Shared {
        let in_doubt =
            state.in_doubt.iter().cloned().map(|i| (i.sequence, InDoubtIntent { intent: i, resolved: None }));
        Shared {
            index,
            common,
            ring: RingBox(Ring::new(config.ring_bytes)),
            progress: Progress::default(),
            stats: ShardStats::default(),
            lane_stats: Mutex::default(),
            losses: Mutex::default(),
            tickets: Mutex::default(),
            in_doubt: Mutex::new(in_doubt.collect()),
            host_cursor_given: AtomicU64::new(state.checkpoint.host_cursor()),
            host_cursor_saved: AtomicU64::new(state.checkpoint.host_cursor()),
            handed_over: AtomicBool::new(false),
            // Known before anybody can ask, so that readers begin where this run does.
            head: AtomicU64::new(state.next_sequence - 1),
            pins: AtomicUsize::new(0),
            commands: Mutex::new(Some(Vec::new())),
            commands_given: AtomicU64::new(0),
            rules_ahead: AtomicUsize::new(0),
        }
    }

    /// Every record up to this sequence is complete in the log.
    pub(crate) fn head(&self) -> u64 {
        self.head.load(Ordering::Acquire)
    }

    fn set_head(&self, sequence: u64) {
        self.head.store(sequence, Ordering::Release);
    }

    /// Lets no segment be removed until [`Shared::unpin`].
    pub(crate) fn pin(&self) {
        self.pins.fetch_add(1, Ordering::AcqRel);
    }

    pub(crate) fn unpin(&self) {
        self.pins.fetch_sub(1, Ordering::AcqRel);
    }

    /// Whether somebody wants no segment to be removed.
    fn is_pinned(&self) -> bool {
        self.pins.load(Ordering::Acquire) > 0
    }

    /// Asks something of the shard. If it has ended, the command is dropped, and with it the reply's sender.
    pub(crate) fn command(&self, command: Command) {
        if let Some(commands) = &mut *self.commands.lock() {
            commands.push(command);
            // Release: who sees what the caller publishes next sees that there is a command before it.
            self.commands_given.fetch_add(1, Ordering::Release);
        }
        self.ring.wake();
    }

    /// Changes the rules for what is published from now on. Waits for a shard that is many changes behind, so that each event
    /// is matched by the rules of its time and the memory for those is bounded.
    pub(crate) fn change_rules(&self, snapshot: Arc<Snapshot>) {
        let begun = Instant::now();
        while self.rules_ahead.load(Ordering::Acquire) >= RULES_AHEAD_MAX
            // In a simulation nothing happens while this one waits.
            && driver::has_threads()
            && begun.elapsed() < RULES_PATIENCE
            && self.progress.failure().is_none()
            && self.commands.lock().is_some()
        {
            std::thread::sleep(Duration::from_micros(200));
        }
        self.rules_ahead.fetch_add(1, Ordering::AcqRel);
        self.command(Command::Reload { position: self.ring.tail(), snapshot });
    }

    fn take_commands(&self) -> Vec<Command> {
        self.commands.lock().as_mut().map(std::mem::take).unwrap_or_default()
    }

    fn has_commands(&self) -> bool {
        self.commands.lock().as_ref().is_some_and(|c| !c.is_empty())
    }
}

/// The numbers of all destinations that a directory ever had.
#[derive(Debug)]
pub(crate) struct EverDestinations {
    pub(crate) all: Vec<u32>,
    /// Those that it never had before this opening: nothing in its log is for them.
    pub(crate) new: Vec<u32>,
}

/// Everything a shard's thread is started with.
pub(crate) struct Start {
    pub(crate) shared: Arc<Shared>,
    pub(crate) peers: Peers,
    pub(crate) snapshot: Arc<ArcSwap<Snapshot>>,
    pub(crate) destinations: Arc<EverDestinations>,
    pub(crate) config: Arc<EngineConfig>,
    pub(crate) state: ShardState,
    pub(crate) handed: Handed,
    pub(crate) holds: BTreeMap<u32, Holds>,
    pub(crate) incarnation: u64,
    pub(crate) cpu: Option<usize>,
    pub(crate) keep: KeepStart,
}

/// Starts a shard's thread and waits until it runs.
///
/// # Errors
/// If the thread or its rings cannot be made.
pub(crate) fn start(start: Start) -> Result<ShardThread> {
    let shared = start.shared.clone();
    let (ready_tx, ready_rx) = std::sync::mpsc::channel::<()>();
    let disk = Disk::start(&format!("tidewire-{}-disk", shared.index))?;
    let thread = driver::spawn_shard(&format!("tidewire-{}", shared.index), start.cpu, move || async move {
        let end = Ended(start.shared.clone());
        driver::use_clock(start.config.clock.clone());
        let _ = end.0.stats.tasks.set(driver::task_count());
        let (shard, replays) = Shard::new(start, disk);
        let _ = ready_tx.send(());
        if AssertUnwindSafe(shard.run(replays)).catch_unwind().await.is_err() {
            log::error!("shard {} panicked and is down", end.0.index);
        }
        drop(end);
    })?;
    // The sender is dropped without a word if the executor could not be made; the thread's end tells why.
    match ready_rx.recv() {
        Ok(()) => Ok(thread),
        Err(_) => Err(thread
            .join()
            .err()
            .unwrap_or_else(|| Error::new(ErrorKind::Internal, "the shard's thread ended before it began"))
            .remedy("see the limits on locked memory, open files and threads")),
    }
}

/// Tells everybody who waits, whatever way the thread ends.
struct Ended(Arc<Shared>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.progress.fail(Error::new(ErrorKind::Closed, "the engine is closed"), || self.0.ring.seal());
        self.0.handed_over.store(true, Ordering::Release);
        // Replies that nobody will give: dropping them tells who waits.
        drop(self.0.commands.lock().take());
    }
}

/// The state that a shard's tasks share. One thread; no borrow is held across an await.
pub(crate) struct Shard {
    shared: Arc<Shared>,
    peers: Peers,
    snapshots: Arc<ArcSwap<Snapshot>>,
    /// The snapshot in use here.
    snapshot: RefCell<Arc<Snapshot>>,
    /// Those that come after it, and from which ring position on.
    next_snapshots: RefCell<VecDeque<(u64, Arc<Snapshot>)>>,
    matches: RefCell<Matches>,
    /// The destinations that the lanes are made for, and the version of that: the newest that this shard has heard of.
    lane_destinations: RefCell<(Arc<LiveDestinations>, u64)>,
    config: Arc<EngineConfig>,
    incarnation: u64,
    started: Instant,

    appender: RefCell<Appender>,
    files: SegmentFiles,
    checkpoint: RefCell<Checkpoint>,
    /// A cursor of the host, and the ring position from which on the shard has everything up to it.
    host_cursor_at: Cell<Option<(u64, u64)>>,
    /// The keys of repeats when the log has let go of their events, and up to which record it was given them.
    dedup_files: Journal,
    dedup_handed: Cell<u64>,
    /// Per destination and other shard, the last of its records that it handed over, durable or not.
    taken_over: RefCell<BTreeMap<(u32, u16), u64>>,
    taken_in_this_run: RefCell<BTreeMap<(u32, u16), u64>>,
    /// The last record that came through the ring from the host, once it is closed.
    own_end: Cell<Option<u64>>,
    keeping: Keeping,
    dead: DeadLetters,
    losses: Losses,
    /// Losses were noted of events that are not in the log: they are told before anybody hears that those are accepted.
    unaudited: Cell<bool>,
    queues: Arc<Queues>,
    fairness: Option<Arc<Fairness>>,
    /// Of the whole engine.
    shards: u64,
    /// Some event had another priority than the normal one.
    prioritised: Cell<bool>,
    guard_wake: Notify,
    guarding: Cell<bool>,
    lanes: RefCell<BTreeMap<u32, Rc<LaneSlot>>>,
    enriching: RefCell<Option<Enriching>>,
    /// The batches that the host has.
    answers: Rc<Answers>,
    /// Sequence of the last event that was handed to the lanes.
    dispatched: Cell<u64>,
    /// The first segment that this run may begin, and the last sequence that counts in those before.
    run: (u64, u64),
    /// Sequence of the last event that earlier runs left, and up to where they are counted.
    inherited: u64,
    inherited_seen: Cell<u64>,
    /// Bytes of rendered records that lanes hold.
    held_bytes: Cell<usize>,
    arena: RefCell<BytesMut>,
    flushes: RefCell<Vec<dispatch::FlushRequest>>,
    saved_generation: Cell<u64>,
    /// The lowest low-water mark of the cursors as saved: what segments are removed by.
    saved: Cell<u64>,
    clock_ceiling_ns: Cell<u64>,
    random: Cell<u64>,

    /// Who waits until everything up to a sequence is durable.
    durable_waiters: RefCell<Vec<(u64, oneshot::Sender<()>)>>,

    commit_wanted: Notify,
    /// The committer lets a group grow for which nobody waits.
    lingering: Cell<bool>,
    /// The committer took a group, so ingest may go on.
    commit_took: Notify,
    /// Somebody waited for a sync, and it has ended.
    told_synced: Notify,
    ingest_ended: Cell<bool>,
    /// After the end of ingest the committer has written everything that came from there.
    drained: Cell<bool>,
    drained_wake: Notify,
    /// Nobody appends to the log any more.
    appending_ended: Cell<bool>,
    close: Cell<Option<Instant>>,
    lane_settled: Notify,
    /// Grows with what is saved with the cursors.
    lane_moves: Cell<u64>,
    /// Whether anything waited when the guard looked last.
    guarded_any: Cell<bool>,
    stopping: Cell<bool>,
    house_wake: Notify,
    /// Endpoints that are being asked whether they want events.
    asking: RefCell<Vec<verify::Asking>>,
}

impl Shard {
    /// The shard, and the replays that it is to resume.
    fn new(start: Start, disk: Disk) -> (Rc<Shard>, Vec<Arc<Replay>>) {
        let Start {
            shared, peers, snapshot, destinations, config, mut state, handed, holds, incarnation, keep, ..
        } = start;
        let (queues, fairness) = (shared.common.queues.clone(), shared.common.fairness.clone());
        let shards = peers.len();
        let replays = keep.replays.clone();
        let segment_bytes = config.log.segment_bytes / BLOCK_BYTES as u64 * BLOCK_BYTES as u64;
        let disk = Rc::new(disk);
        let plan =
            SegmentPlan { bytes_max: segment_bytes, shard: shared.index as u16, incarnation, purpose: Purpose::Events };
        let current = snapshot.load_full();
        let last_sequence = state.segments.last().map_or(state.next_sequence - 1, |s| s.last_sequence);
        let shard = Rc::new(Shard {
            appender: RefCell::new(Appender::new(
                plan,
                state.next_segment,
                last_sequence,
                state.next_sequence,
                state.clock_floor_ns,
            )),
            dead: DeadLetters::new(
                state.path.join("dead"),
                disk.clone(),
                std::mem::take(&mut state.dead),
                state.clock_floor_ns,
                SegmentPlan { purpose: Purpose::DeadLetters, ..plan },
                &config.dead_letters,
                shards,
            ),
            losses: Losses::new(
                state.path.join(crate::log::losses::DIRECTORY),
                disk.clone(),
                std::mem::take(&mut state.losses),
                state.clock_floor_ns,
                SegmentPlan { purpose: Purpose::Losses, ..plan },
                &config.losses,
                shards,
            ),
            unaudited: Cell::new(false),
            queues,
            fairness,
            shards: shards as u64,
            prioritised: Cell::new(false),
            guard_wake: Notify::default(),
            guarding: Cell::new(false),
            files: SegmentFiles::new(
                state.path.clone(),
                disk.clone(),
                FilesPlan { segment_bytes, zero_ahead_bytes: ZERO_AHEAD_BYTES.min(segment_bytes), spares: true },
                state.segments.clone(),
                state.spares.clone(),
            ),
            checkpoint: RefCell::new(state.checkpoint.clone()),
            host_cursor_at: Cell::new(None),
            taken_in_this_run: RefCell::default(),
            taken_over: RefCell::new(handed.taken_over.as_ref().clone()),
            own_end: Cell::new(None),
            dedup_files: house::dedup_files(&state, disk, plan),
            dedup_handed: Cell::new(0),
            keeping: Keeping::new(&config, keep, &state, shared.index),
            lane_destinations: RefCell::new((current.destinations.clone(), current.version)),
            snapshot: RefCell::new(current),
            next_snapshots: RefCell::default(),
            matches: RefCell::default(),
            snapshots: snapshot,
            config,
            incarnation,
            started: shared.common.started,
            lanes: RefCell::default(),
            enriching: RefCell::default(),
            answers: Answers::new(&shared),
            dispatched: Cell::new(state.next_sequence - 1),
            run: (state.next_segment, last_sequence),
            inherited: state.next_sequence - 1,
            inherited_seen: Cell::new(state.segments.first().map_or(u64::MAX, |s| s.header.base_sequence - 1)),
            held_bytes: Cell::new(0),
            arena: RefCell::default(),
            flushes: RefCell::default(),
            saved_generation: Cell::new(state.cursors.generation),
            saved: Cell::new(0),
            clock_ceiling_ns: Cell::new(state.clock_floor_ns),
            random: Cell::new(incarnation ^ (shared.index as u64) << 32 | 1),
            durable_waiters: RefCell::default(),
            commit_wanted: Notify::default(),
            lingering: Cell::new(false),
            commit_took: Notify::default(),
            told_synced: Notify::default(),
            ingest_ended: Cell::new(false),
            drained: Cell::new(false),
            drained_wake: Notify::default(),
            appending_ended: Cell::new(false),
            close: Cell::new(None),
            lane_settled: Notify::default(),
            lane_moves: Cell::new(0),
            guarded_any: Cell::new(false),
            stopping: Cell::new(false),
            house_wake: Notify::default(),
            asking: RefCell::default(),
            shared,
            peers,
        });
        shard.shared.stats.damaged.add(state.findings.damaged + state.findings.headers_rebuilt.len() as u64);
        shard.tell_disk_use();
        shard.recover_lanes(&state, &handed, &destinations, holds);
        shard.count_dead_letters();
        (shard, replays)
    }

    async fn run(self: &Rc<Shard>, replays: Vec<Arc<Replay>>) {
        // Before anything is given out, so that a clock reading is never given out twice.
        if let Err(e) = self.save_cursors(house::CLOCK_AHEAD_NS).await {
            log::error!("shard {}: {e}", self.shared.index);
        }
        let ingest = driver::spawn_urgent(self.clone().guarded("ingest", Shard::ingest));
        let commit = driver::spawn_urgent(self.clone().guarded("commit", Shard::commit));
        let house = driver::spawn(self.clone().guarded("housekeeping", Shard::housekeeping));
        let prepare = driver::spawn(self.clone().guarded("file preparing", Shard::prepare_files));
        let dead = driver::spawn(self.clone().guarded("dead letters", Shard::write_dead_letters));
        let jobs = driver::spawn(self.clone().guarded("redrive", Shard::work_on_dead_letters));
        let guard = driver::spawn(self.clone().guarded("queue guard", Shard::guard_queues));
        self.start_lanes();
        replays.iter().for_each(|r| self.start_replay(r));

        ingest.await;
        while !self.drained.get() {
            self.drained_wake.notified().await;
        }
        // After a failure of the log the lanes go on with what it has, until the engine is closed.
        while self.close.get().is_none() {
            self.command_given().await;
            self.obey();
        }
        if let Some(deadline) = self.close.get() {
            // Ingest has ended, so commands are heard here.
            let obey = async {
                loop {
                    self.command_given().await;
                    self.obey();
                }
            };
            let delivered = pin!(self.all_delivered());
            driver::until(deadline, select(delivered, pin!(obey))).await;
        }
        self.stop_lanes().await;
        // These end by themselves, so that no write of theirs is under way when the last ones are made.
        self.stopping.set(true);
        self.dead.wake();
        dead.await;
        // It may wait for the dead letters, which are all told by now.
        self.dead.forget();
        self.guard_wake.notify();
        guard.await;
        self.dead.wake_jobs();
        jobs.await;
        self.appending_ended.set(true);
        self.commit_wanted.notify();
        commit.await;
        self.house_wake.notify();
        house.await;
        self.stop_asking().await;
        self.note_host_cursor();
        self.files.wake();
        prepare.await;
        if let Err(e) = self.save_cursors(0).await {
            log::error!("shard {}: {e}; events after the last saved cursor will be delivered again", self.shared.index);
        } else {
            self.remove_passed_segments(true).await;
        }
        self.write_losses().await;
        self.files.close();
        self.files.drop_spares().await;
        self.dead.close();
        self.losses.close();
        self.dedup_files.close();
    }

    /// Runs a task so that a panic in it takes down this shard in an orderly way, and no more.
    async fn guarded<F: Future<Output = ()>>(self: Rc<Shard>, name: &'static str, task: impl FnOnce(Rc<Shard>) -> F) {
        let shard = self.clone();
        if AssertUnwindSafe(async move { task(self).await }).catch_unwind().await.is_err() {
            shard.fail(Error::new(
                ErrorKind::Internal,
                format!("the {name} task of shard {} panicked", shard.shared.index),
            ));
        }
    }

    /// Takes no more events and tells everybody who waits.
    fn fail(&self, error: Error) {
        log::error!("{error}");
        self.shared.progress.fail(error, || self.shared.ring.seal());
        self.tell_handed_over();
        self.ingest_ended.set(true);
        self.has_drained();
        self.nothing_more_is_durable();
        self.commit_wanted.notify();
        self.commit_took.notify();
    }

    /// What ingest left is written, or never will be.
    fn has_drained(&self) {
        self.drained.set(true);
        self.drained_wake.notify();
    }

    /// Waits until everything up to a sequence is durable.
    ///
    /// # Errors
    /// If it never will be: the log failed, or the engine closes.
    async fn durable(&self, sequence: u64) -> Result<()> {
        if self.checkpoint.borrow().through() >= sequence {
            return Ok(());
        }
        let ended = || match self.shared.progress.failure() {
            Some(e) => e.clone(),
            None => Error::new(ErrorKind::Closed, "the engine is closed"),
        };
        if self.shared.progress.failure().is_some() {
            return Err(ended());
        }
        let (told, durable) = oneshot::channel();
        self.durable_waiters.borrow_mut().push((sequence, told));
        durable.await.map_err(|_| ended())
    }

    /// Everything up to a sequence is durable.
    fn is_durable(&self, sequence: u64) {
        self.checkpoint.borrow_mut().advance(sequence);
        let mut waiters = self.durable_waiters.borrow_mut();
        let (due, rest) = std::mem::take(&mut *waiters).into_iter().partition(|(s, _)| *s <= sequence);
        *waiters = rest;
        drop(waiters);
        let due: Vec<(u64, oneshot::Sender<()>)> = due;
        for (_, told) in due {
            let _ = told.send(());
        }
    }

    fn nothing_more_is_durable(&self) {
        self.durable_waiters.borrow_mut().clear();
    }

    fn now(&self) -> Now {
        Now { mono_ns: driver::since(self.started).as_nanos() as u64, wall_ns: wall_ns() }
    }

    fn instant(&self, mono_ns: u64) -> Instant {
        self.started + Duration::from_nanos(mono_ns)
    }

    /// Uniform in [0, 1), for jitter (xorshift64*).
    fn random(&self) -> f64 {
        let mut x = self.random.get();
        x ^= x >> 12;
        x ^= x << 25;
        x ^= x >> 27;
        self.random.set(x);
        (x.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11) as f64 / (1u64 << 53) as f64
    }

    fn idle(&self) -> Idle {
        self.config.idle
    }
}
