//! Dead letters: written as lanes give events up, kept within bounds, passed on, redriven and purged.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures::channel::oneshot;

use super::Shard;
use super::kept::KeptLog;
use super::lanes::{Body, LaneSlot, TROUBLE_PAUSE};
use crate::config::DeadLettersConfig;
use crate::delivery::lane::Spent;
use crate::delivery::pace::Pace;
use crate::driver::{self, Disk, DiskFile, Notify, wall_ns};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{FrameView, Priority};
use crate::lock::Mutex;
use crate::log::BLOCK_BYTES;
use crate::log::appender::{Position, SegmentPlan};
use crate::log::dead::{self, KeptSegment, KeptState, Letter, Selected, Story, Wanted};
use crate::log::losses::{Loss, LossReason};
use crate::log::record::{self, DeadLetter, Extensions, Kind, Origin, Parsed, RecordView, Route};
use crate::log::recovery::{SegmentInfo, scan};

/// Zeros ahead of dead letters, which are few.
const ZERO_AHEAD_BYTES: u64 = 256 * 1024;
/// Letters written, or redriven, with one sync.
const BATCH: usize = 256;
const REDRIVE_BATCH: usize = 64;
/// While a rate is kept letters are redriven in steps at least so far apart.
const REDRIVE_STEP: Duration = Duration::from_millis(50);
/// Letters that a redrive looks for at a time; what it knows of them is held in memory.
const SELECT_MAX: usize = 65_536;
/// How many different reasons a redrive tells for what it left.
const REASONS_MAX: usize = 16;

/// What of the configuration one shard has to keep to.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    bytes_max: u64,
    warn_bytes: u64,
    age_max: Duration,
    hops_max: u8,
    segment_bytes: u64,
}

impl Bounds {
    fn new(config: &DeadLettersConfig, shards: usize) -> Bounds {
        let bytes_max = (config.bytes_max / shards.max(1) as u64).max(2 << 20);
        Bounds {
            bytes_max,
            warn_bytes: (bytes_max as f64 * config.warn_at) as u64,
            age_max: config.age_max,
            hops_max: config.hops_max,
            segment_bytes: (bytes_max / 8).clamp(1 << 20, 16 << 20),
        }
    }
}

/// A redrive as all shards work on it.
#[derive(Debug)]
pub(crate) struct RedriveOrder {
    wanted: Wanted,
    /// The number of another destination than that of the letter.
    to: Option<u32>,
    pace: Option<Pace>,
    stopped: AtomicBool,
    redriven: AtomicU64,
    /// Letters that stay where they are, by reason.
    left: Mutex<BTreeMap<String, u64>>,
}

impl RedriveOrder {
    pub(crate) fn new(wanted: Wanted, to: Option<u32>, rate: Option<u32>) -> RedriveOrder {
        RedriveOrder {
            wanted,
            to,
            pace: rate.map(|rate| Pace::new(rate, driver::now())),
            stopped: AtomicBool::new(false),
            redriven: AtomicU64::new(0),
            left: Mutex::default(),
        }
    }

    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    pub(crate) fn redriven(&self) -> u64 {
        self.redriven.load(Ordering::Relaxed)
    }

    pub(crate) fn left(&self) -> Vec<(String, u64)> {
        self.left.lock().iter().map(|(why, n)| (why.clone(), *n)).collect()
    }

    fn leave(&self, why: String) {
        let mut left = self.left.lock();
        let why = if left.len() < REASONS_MAX || left.contains_key(&why) { why } else { "other reasons".into() };
        *left.entry(why).or_default() += 1;
    }
}

/// What is asked of the dead letters of a shard.
pub(crate) enum DeadJob {
    /// Removes letters; answers how many.
    Purge { wanted: Wanted, reply: oneshot::Sender<Result<u64>> },
    /// Puts letters back into the log; answers when it is through.
    Redrive { order: Arc<RedriveOrder>, reply: oneshot::Sender<Result<()>> },
}

impl std::fmt::Debug for DeadJob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            DeadJob::Purge { .. } => "Purge",
            DeadJob::Redrive { .. } => "Redrive",
        })
    }
}

/// The dead letters of a shard.
pub(super) struct DeadLetters {
    shard: u16,
    bounds: Bounds,
    log: KeptLog,
    queue: RefCell<VecDeque<DeadEntry>>,
    /// Letters that do not come from a lane, and who waits for them.
    letters: RefCell<VecDeque<(Buried, oneshot::Sender<()>)>>,
    notify: Notify,
    jobs: RefCell<Vec<DeadJob>>,
    jobs_wake: Notify,
    warned: Cell<bool>,
}

/// A letter that does not come from a lane: its body, and where its event was accepted.
#[derive(Debug)]
pub(crate) struct Buried {
    pub(crate) body: Vec<u8>,
    pub(crate) origin: Origin,
    pub(crate) hops: u8,
}

/// An event on its way into the dead letters.
pub(super) enum DeadEntry {
    /// Its budget is spent. It is open in its lane until the letter is durable, and is read from the log.
    Spent(Rc<LaneSlot>, Spent<Body>),
    /// It was shed of its queue; who did so is told when the letter is durable.
    Shed {
        slot: Rc<LaneSlot>,
        rule: u32,
        attempts: u32,
        accepted_ns: u64,
        reason: String,
        event: ReadEvent,
        told: oneshot::Sender<()>,
    },
}

impl DeadEntry {
    fn slot(&self) -> &Rc<LaneSlot> {
        match self {
            DeadEntry::Spent(slot, _) | DeadEntry::Shed { slot, .. } => slot,
        }
    }
}

/// A redrive as one shard works on it.
struct Redriving {
    order: Arc<RedriveOrder>,
    reply: oneshot::Sender<Result<()>>,
    /// Only letters with numbers below: what dies again meanwhile is not redriven again.
    below: u64,
    selected: VecDeque<Selected>,
    /// The last one selected so far; `None` before the first look.
    after: Option<Selected>,
    exhausted: bool,
}

/// What became of a step of a redrive.
enum Step {
    Again,
    Wait(Instant),
    Through,
}

/// An event read back from the log.
#[derive(Clone)]
pub(super) struct ReadEvent {
    pub(super) frame: Vec<u8>,
    pub(super) origin: Origin,
    pub(super) hops: u8,
    /// The body of the letter that it came as, if it came from another destination's dead letters.
    pub(super) forwarded: Option<Vec<u8>>,
}

impl ReadEvent {
    /// The event of a record, accepted `here` unless the record says where else.
    pub(super) fn of(r: &RecordView<'_>, here: Origin) -> ReadEvent {
        let e = r.extensions();
        let forwarded = (r.header().kind == Kind::Forward).then(|| r.body().to_vec());
        let frame = match &forwarded {
            Some(body) => DeadLetter::decode(body).map(|l| l.frame.to_vec()).unwrap_or_default(),
            None => r.body().to_vec(),
        };
        ReadEvent { frame, origin: r.origin(here.incarnation, here.shard), hops: e.hops, forwarded }
    }
}

impl DeadLetters {
    pub(super) fn new(
        dir: PathBuf,
        disk: Rc<Disk>,
        state: KeptState,
        clock_floor_ns: u64,
        plan: SegmentPlan,
        config: &DeadLettersConfig,
        shards: usize,
    ) -> DeadLetters {
        let bounds = Bounds::new(config, shards);
        let plan = SegmentPlan { bytes_max: bounds.segment_bytes.min(plan.bytes_max), ..plan };
        DeadLetters {
            shard: plan.shard,
            bounds,
            log: KeptLog::new(dir, disk, state, clock_floor_ns, plan, ZERO_AHEAD_BYTES),
            queue: RefCell::default(),
            letters: RefCell::default(),
            notify: Notify::default(),
            jobs: RefCell::default(),
            jobs_wake: Notify::default(),
            warned: Cell::new(false),
        }
    }

    pub(super) fn push(&self, entry: DeadEntry) {
        self.queue.borrow_mut().push_back(entry);
        self.notify.notify();
    }

    /// Takes a letter that does not come from a lane.
    pub(super) fn bury(&self, letter: Buried, reply: oneshot::Sender<()>) {
        self.letters.borrow_mut().push_back((letter, reply));
        self.notify.notify();
    }

    fn is_empty(&self) -> bool {
        self.queue.borrow().is_empty() && self.letters.borrow().is_empty()
    }

    /// Whether events of this lane wait to be written.
    pub(super) fn has(&self, slot: &Rc<LaneSlot>) -> bool {
        self.queue.borrow().iter().any(|e| Rc::ptr_eq(e.slot(), slot))
    }

    /// Takes a job; it is dropped, and whoever waits for it told, when the shard ends.
    pub(super) fn give(&self, job: DeadJob) {
        self.jobs.borrow_mut().push(job);
        self.jobs_wake.notify();
    }

    /// Drops what could not be written: the events stay in the log, and who waits is told.
    pub(super) fn forget(&self) {
        self.queue.borrow_mut().clear();
        self.letters.borrow_mut().clear();
    }

    /// Makes the writer look whether it shall end.
    pub(super) fn wake(&self) {
        self.notify.notify();
    }

    /// Makes the one who works on jobs look whether it shall end.
    pub(super) fn wake_jobs(&self) {
        self.jobs_wake.notify();
    }

    pub(super) fn close(&self) {
        self.log.journal.close();
    }

    /// The numbers of the next segment and the next letter.
    pub(super) fn next(&self) -> (u64, u64) {
        self.log.journal.next()
    }

    fn letters(&self) -> u64 {
        self.log.segments.borrow().iter().map(KeptSegment::letters).sum()
    }

    /// Removes the segments of which every letter was taken.
    async fn remove_empty(&self) {
        while let Some(s) = self.log.take_out(|s| s.letters() == 0) {
            self.log.remove_files(s).await;
        }
    }

    /// Takes letters of one segment out, durably. Returns those that were there.
    async fn take(&self, segment: u64, numbers: &[u64]) -> Result<Vec<u64>> {
        let (before, taken, out) = {
            let mut segments = self.log.segments.borrow_mut();
            let Some(s) = segments.iter_mut().find(|s| s.info.header.id == segment) else { return Ok(Vec::new()) };
            let before = s.taken.clone();
            let out: Vec<u64> = numbers.iter().copied().filter(|n| s.taken.take(*n)).collect();
            (before, s.taken.clone(), out)
        };
        if !out.is_empty() {
            let dir = self.log.dir().to_owned();
            let written = driver::blocking(move || dead::write_taken(&dir, segment, &taken)).await;
            if let Err(e) = written {
                // Only this task takes letters, so nothing came between.
                if let Some(s) = self.log.segments.borrow_mut().iter_mut().find(|s| s.info.header.id == segment) {
                    s.taken = before;
                }
                return Err(e);
            }
            self.remove_empty().await;
        }
        Ok(out)
    }

    fn is_there(&self, s: &Selected) -> bool {
        let segments = self.log.segments.borrow();
        segments.iter().any(|x| x.info.header.id == s.segment && !x.taken.is_taken(s.number))
    }
}

fn extensions(event: &ReadEvent, hops: u8) -> Extensions {
    Extensions { origin: Some(event.origin), hops, ..Extensions::default() }
}

/// The letter of an event that was given up. One that had been passed on, and failed again, stays the letter of the
/// destination that it was meant for.
fn letter(entry: &DeadEntry, event: &ReadEvent, wall: u64) -> Vec<u8> {
    let first = event.forwarded.as_deref().and_then(|body| DeadLetter::decode(body).ok());
    let slot = entry.slot();
    let (rule, attempts, status, why, answer, accepted_ns) = match entry {
        DeadEntry::Spent(_, s) => {
            (s.item.body.rule, s.attempts, s.status, &s.reason, &s.answer[..], s.item.accepted_ns)
        }
        DeadEntry::Shed { rule, attempts, reason, accepted_ns, .. } => {
            (*rule, *attempts, 0, reason, &[][..], *accepted_ns)
        }
    };
    let reason = match &first {
        None => why.clone(),
        Some(l) => {
            let name = slot.destination().map_or_else(|| format!("#{}", slot.number), |d| d.name.clone());
            format!("{}; then its dead-letter destination `{name}`: {why}", l.reason)
        }
    };
    let l = DeadLetter {
        destination: first.as_ref().map_or(slot.number, |l| l.destination),
        rule,
        sequence: event.origin.sequence,
        incarnation: event.origin.incarnation,
        attempts: attempts.saturating_add(first.as_ref().map_or(0, |l| l.attempts)),
        // Of the event itself, not of its last way into the log.
        first_ns: if event.origin.clock_ns > 0 { event.origin.clock_ns } else { accepted_ns },
        last_ns: wall,
        status,
        reason: &reason,
        answer,
        frame: &event.frame,
    };
    l.encode()
}

impl Shard {
    /// Writes dead letters as they come, until the lanes have stopped and the last one is written. An event stays open in
    /// its lane until its letter is durable; what cannot be written before the engine closes stays undelivered in the log.
    pub(super) async fn write_dead_letters(self: Rc<Self>) {
        let tick = (self.dead.bounds.age_max / 4).min(Duration::from_secs(60));
        self.dead.remove_empty().await;
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
            self.keep_dead_letters_within_bounds().await;
            if self.stopping.get() {
                return;
            }
            let _ = driver::within(tick, self.dead.notify.notified()).await;
        }
    }

    async fn write_dead_batch(&self) -> Result<()> {
        let count = self.dead.queue.borrow().len().min(BATCH);
        let wall = wall_ns();
        // The entries stay in the queue until they are through; only this task takes any out.
        let mut events: Vec<Option<ReadEvent>> = Vec::with_capacity(count);
        for i in 0..count {
            let place = match &self.dead.queue.borrow()[i] {
                DeadEntry::Spent(_, spent) => Err((spent.item.body.position, spent.item.sequence)),
                DeadEntry::Shed { event, .. } => Ok(event.clone()),
            };
            events.push(match place {
                Ok(event) => Some(event),
                Err((position, sequence)) => Some(self.read_event(position, sequence).await?),
            });
        }
        // First what is passed on: while that is not durable nothing of the batch is written anywhere else.
        let mut forwarded = None;
        let mut kept = Vec::new();
        for (entry, event) in self.dead.queue.borrow().iter().zip(&mut events) {
            let Some(e) = event.as_ref().filter(|e| FrameView::parse(&e.frame).is_ok()) else {
                *event = None; // Damaged: there is nothing left to keep.
                continue;
            };
            let body = letter(entry, e, wall);
            let (rule, priority) = match entry {
                DeadEntry::Spent(_, s) => (s.item.body.rule, s.item.priority),
                DeadEntry::Shed { rule, .. } => (*rule, FrameView::trusted(&e.frame).priority()),
            };
            match self.forward_to(entry.slot(), e) {
                Some(destination) => {
                    let route = Route { destination, rule, priority };
                    let extensions = extensions(e, e.hops.saturating_add(1));
                    forwarded = Some(self.append(Kind::Forward, route, &extensions, &body, wall));
                }
                None => kept.push((extensions(e, e.hops), body)),
            }
        }
        if let Some(sequence) = forwarded {
            self.commit_wanted.notify();
            self.durable(sequence).await?;
        }
        let log = &self.dead.log;
        for (extensions, body) in kept {
            log.journal.append(Kind::DeadLetter, &extensions, &body, wall);
        }
        let letters: Vec<_> = {
            let mut letters = self.dead.letters.borrow_mut();
            let n = letters.len().min(BATCH);
            letters.drain(..n).collect()
        };
        for (l, _) in &letters {
            let extensions = Extensions { origin: Some(l.origin), hops: l.hops, ..Extensions::default() };
            log.journal.append(Kind::DeadLetter, &extensions, &l.body, wall);
        }
        // What was appended must be stored before anything else is, so it is tried until it is.
        while let Err(e) = log.store().await {
            if self.stopping.get() {
                return Err(e);
            }
            log::error!("shard {}: dead letters wait: {e}", self.shared.index);
            driver::sleep(TROUBLE_PAUSE).await;
        }
        self.count_dead_letters();
        for (_, reply) in letters {
            let _ = reply.send(());
        }
        let entries: Vec<DeadEntry> = self.dead.queue.borrow_mut().drain(..count).collect();
        for (entry, event) in entries.into_iter().zip(events) {
            let slot = entry.slot().clone();
            let rule = match &entry {
                DeadEntry::Spent(_, s) => s.item.body.rule,
                DeadEntry::Shed { rule, .. } => *rule,
            };
            match event {
                Some(_) => slot.stats.dead_lettered.add(1),
                None => self.lose(&Loss::sum(LossReason::Damaged, slot.number, rule, 1)),
            }
            match entry {
                DeadEntry::Spent(_, spent) => {
                    slot.release([&spent.item]);
                    slot.settle(spent.item.sequence);
                }
                DeadEntry::Shed { told, .. } => {
                    let _ = told.send(());
                }
            }
            self.settle_queue(&slot);
            slot.pass_holds(self.dispatched.get());
            slot.notify.notify();
        }
        self.lane_moved();
        self.lane_settled.notify();
        self.answer_flushes();
        Ok(())
    }

    /// Appends a record for one destination to the log. Its sequence.
    pub(super) fn append(&self, kind: Kind, route: Route, extensions: &Extensions, body: &[u8], wall: u64) -> u64 {
        let mut appender = self.appender.borrow_mut();
        let sequence = appender.append_extended(kind, &[route], extensions, body, wall);
        appender.want_synced();
        self.enter(&[route], sequence, body.len());
        self.shared.stats.stored.add(1);
        self.shared.stats.routed.add(1);
        sequence
    }

    /// The number of the destination that an event is passed on to, if its destination has one for dead letters. What cannot
    /// go there now (the log does not take it, the queue is full, the event came round too often) is kept as a letter.
    fn forward_to(&self, slot: &LaneSlot, event: &ReadEvent) -> Option<u32> {
        let own = slot.destination()?;
        let name = own.dead_letter_to.as_deref()?;
        let progress = &self.shared.progress;
        if event.hops >= self.dead.bounds.hops_max || progress.failure().is_some() || progress.stalled().is_some() {
            return None;
        }
        let snapshot = self.snapshot.borrow();
        let number = snapshot.destination_number(name)?;
        let frame = FrameView::parse(&event.frame).ok()?;
        let fits = snapshot.destination(number)?.profile.expressible(frame.event_type());
        (fits && !self.is_full_for(number, frame.priority())).then_some(number)
    }

    /// Whether a destination's queue has no place for an event that comes out of the dead letters.
    pub(super) fn is_full_for(&self, destination: u32, priority: Priority) -> bool {
        self.lanes.borrow().get(&destination).is_some_and(|slot| slot.queue.level().excludes(priority))
    }

    /// Reads an event back from the log.
    pub(super) async fn read_event(&self, at: Position, sequence: u64) -> Result<ReadEvent> {
        let holds = |s: &SegmentInfo| s.header.id == at.segment && s.last_sequence >= sequence;
        let Some(segment) = self.files.at_or_after(at.segment).filter(holds) else {
            return self.find_event(sequence).await;
        };
        let here = |clock_ns, tie| Origin {
            incarnation: segment.header.incarnation,
            shard: self.shared.index as u16,
            sequence,
            clock_ns,
            tie,
        };
        let place = |e| Error::io("cannot read the log", &e).at(segment.path.display().to_string());
        let _held = self.files.hold(segment.header.id);
        let file = DiskFile::open(&segment.path).await.map_err(place)?;
        let aligned = at.offset / BLOCK_BYTES as u64 * BLOCK_BYTES as u64;
        let skip = (at.offset - aligned) as usize;
        let mut want = 2 * BLOCK_BYTES;
        let mut bytes = Vec::new();
        let event = loop {
            bytes.clear();
            if let Err(e) = file.read_at(aligned, want, &mut bytes).await {
                let _ = file.close().await;
                return Err(place(e));
            }
            match record::parse(at.segment, bytes.get(skip..).unwrap_or_default()) {
                Parsed::Record(r) if r.sequence() == sequence => {
                    break ReadEvent::of(&r, here(r.header().clock_ns, r.header().tie));
                }
                Parsed::Short(need) if bytes.len() == want => want = (skip + need).next_multiple_of(BLOCK_BYTES),
                _ => {
                    self.shared.stats.damaged.add(1);
                    log::error!("{} at byte {}: event {sequence} is damaged", segment.path.display(), at.offset);
                    break ReadEvent { frame: Vec::new(), origin: here(0, 0), hops: 0, forwarded: None };
                }
            }
        };
        let _ = file.close().await;
        Ok(event)
    }

    /// Finds an event that is not where it was written first: its segment failed.
    async fn find_event(&self, sequence: u64) -> Result<ReadEvent> {
        let Some(segment) = self.files.containing(sequence) else {
            return Err(Error::new(ErrorKind::Internal, format!("event {sequence} has lost its segment")));
        };
        let shard = self.shared.index as u16;
        let _held = self.files.hold(segment.header.id);
        driver::blocking(move || {
            let place = |e| Error::io("cannot read the log", &e).at(segment.path.display().to_string());
            let bytes = driver::fs::read_log(&segment.path).map_err(place)?;
            let incarnation = segment.header.incarnation;
            let nowhere = Origin { incarnation, shard, sequence, clock_ns: 0, tie: 0 };
            let mut event = ReadEvent { frame: Vec::new(), origin: nowhere, hops: 0, forwarded: None };
            scan(&segment.header, &bytes, |_, r| {
                if r.sequence() == sequence {
                    let h = r.header();
                    event = ReadEvent::of(&r, Origin { clock_ns: h.clock_ns, tie: h.tie, ..nowhere });
                }
            });
            Ok(event)
        })
        .await
    }

    /// Lets the oldest segments go while there are too many or they are too old, and warns before that.
    async fn keep_dead_letters_within_bounds(&self) {
        let (dead, stats) = (&self.dead, &self.shared.stats);
        loop {
            let old = wall_ns().saturating_sub(dead.bounds.age_max.as_nanos() as u64);
            let aged = dead.log.segments.borrow().first().is_some_and(|s| s.newest_ns < old);
            if aged && dead.log.is_only_active() {
                // It can go only when nothing is written into it any more.
                dead.log.end_segment();
            }
            if !aged && dead.log.bytes() <= dead.bounds.bytes_max {
                break;
            }
            let Some(segment) = dead.log.take_out(|_| true) else { break };
            let lost = segment.letters();
            let (reason, why) = match aged {
                true => (LossReason::DeadLetterTooOld, "they are too old"),
                false => (LossReason::DeadLettersFull, "there are too many"),
            };
            log::warn!("shard {}: {lost} dead letters are dropped: {why}", self.shared.index);
            let (shard, read) = (dead.shard, segment.clone());
            match driver::blocking(move || dead::stories(shard, &read, &Wanted::default())).await {
                Ok(stories) => self.lose_letters(&stories, reason).await,
                Err(e) => log::error!("shard {}: which ones cannot be told: {e}", self.shared.index),
            }
            dead.log.remove_files(segment).await;
            stats.dead_lost.add(lost);
            self.count_dead_letters();
        }
        let bytes = dead.log.bytes();
        let full = bytes >= dead.bounds.warn_bytes;
        if full != dead.warned.replace(full) {
            let (index, max) = (self.shared.index, dead.bounds.bytes_max);
            if full {
                log::warn!(
                    "shard {index}: dead letters fill {bytes} of the {max} bytes that are kept; redrive or purge some, or \
                     the oldest go"
                );
            } else {
                log::info!("shard {index}: there is room for dead letters again");
            }
        }
        self.count_dead_letters();
    }

    /// Tells the audit of letters that are gone.
    async fn lose_letters(&self, stories: &[Story], reason: LossReason) {
        for some in stories.chunks(1024) {
            for s in some {
                self.lose(&s.loss(reason));
            }
            self.write_losses().await;
        }
    }

    pub(super) fn count_dead_letters(&self) {
        let stats = &self.shared.stats;
        stats.dead_kept.set(self.dead.letters());
        stats.dead_bytes.set(self.dead.log.bytes());
        stats.dead_warning.set(u64::from(self.dead.warned.get()));
    }

    /// Works on purges and redrives, until the shard stops.
    pub(super) async fn work_on_dead_letters(self: Rc<Self>) {
        let mut redrives: VecDeque<Redriving> = VecDeque::new();
        while !self.stopping.get() {
            let jobs = std::mem::take(&mut *self.dead.jobs.borrow_mut());
            for job in jobs {
                match job {
                    DeadJob::Purge { wanted, reply } => {
                        let _ = reply.send(self.purge(&wanted).await);
                    }
                    DeadJob::Redrive { order, reply } => redrives.push_back(Redriving {
                        order,
                        reply,
                        below: self.dead.next().1,
                        selected: VecDeque::new(),
                        after: None,
                        exhausted: false,
                    }),
                }
            }
            let mut until: Option<Instant> = None;
            let mut again = false;
            for _ in 0..redrives.len() {
                let Some(mut r) = redrives.pop_front() else { break };
                match self.redrive_step(&mut r).await {
                    Ok(Step::Through) => drop(r.reply.send(Ok(()))),
                    Err(e) => drop(r.reply.send(Err(e))),
                    Ok(Step::Again) => {
                        again = true;
                        redrives.push_back(r);
                    }
                    Ok(Step::Wait(at)) => {
                        until = Some(until.map_or(at, |u| u.min(at)));
                        redrives.push_back(r);
                    }
                }
                self.count_dead_letters();
            }
            match until {
                _ if again => {}
                Some(at) => drop(driver::until(at, self.dead.jobs_wake.notified()).await),
                None => self.dead.jobs_wake.notified().await,
            }
        }
        self.dead.jobs.borrow_mut().clear();
    }

    async fn purge(&self, wanted: &Wanted) -> Result<u64> {
        let mut purged = 0;
        let ids: Vec<u64> = self.dead.log.segments.borrow().iter().map(|s| s.info.header.id).collect();
        for id in ids {
            let segment = self.dead.log.segments.borrow().iter().find(|s| s.info.header.id == id).cloned();
            let Some(segment) = segment else { continue };
            let (shard, wanted) = (self.dead.shard, wanted.clone());
            let mut stories = driver::blocking(move || dead::stories(shard, &segment, &wanted)).await?;
            let numbers: Vec<u64> = stories.iter().map(|s| s.number).collect();
            let taken: BTreeSet<u64> = self.dead.take(id, &numbers).await?.into_iter().collect();
            stories.retain(|s| taken.contains(&s.number));
            self.lose_letters(&stories, LossReason::Purged).await;
            purged += taken.len() as u64;
        }
        self.shared.stats.dead_purged.add(purged);
        self.count_dead_letters();
        Ok(purged)
    }

    /// Puts the next few letters of a redrive back into the log, in the order of their events, and takes them out of the
    /// dead letters once they are durable there.
    async fn redrive_step(&self, r: &mut Redriving) -> Result<Step> {
        let order = r.order.clone();
        if order.stopped.load(Ordering::Relaxed) {
            return Ok(Step::Through);
        }
        if r.selected.is_empty() {
            if r.exhausted {
                return Ok(Step::Through);
            }
            let segments = self.dead.log.segments.borrow().clone();
            let (shard, wanted, after, below) = (self.dead.shard, order.wanted.clone(), r.after, r.below);
            let found =
                driver::blocking(move || dead::select(shard, &segments, &wanted, after.as_ref(), below, SELECT_MAX));
            r.selected = found.await?.into();
            r.exhausted = r.selected.len() < SELECT_MAX;
            r.after = r.selected.back().copied().or(r.after);
            return Ok(Step::Again);
        }
        let mut size = REDRIVE_BATCH;
        if let Some(pace) = &order.pace {
            let most = size.min(r.selected.len());
            size = 0;
            while size < most {
                match pace.take(driver::now()) {
                    Ok(()) => size += 1,
                    Err(at) if size == 0 => return Ok(Step::Wait(at.max(driver::now() + REDRIVE_STEP))),
                    Err(_) => break,
                }
            }
        }
        let size = size.min(r.selected.len());
        let batch: Vec<Selected> = r.selected.drain(..size).filter(|s| self.dead.is_there(s)).collect();
        let (dir, places) = (self.dead.log.dir().to_owned(), batch.clone());
        let records =
            driver::blocking(move || Ok(places.iter().map(|s| dead::fetch(&dir, s)).collect::<Vec<_>>())).await?;
        let wall = wall_ns();
        let mut last = None;
        let mut gone: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
        for (selected, bytes) in batch.iter().zip(&records) {
            match bytes.as_deref().map(|b| self.redrive_one(&order, selected.segment, b, wall)) {
                Some(Ok(sequence)) => {
                    last = Some(sequence);
                    gone.entry(selected.segment).or_default().push(selected.number);
                }
                Some(Err(why)) => order.leave(why),
                // Its segment went meanwhile, or it is damaged.
                None => order.leave("the letter cannot be read any more".into()),
            }
        }
        if let Some(sequence) = last {
            self.commit_wanted.notify();
            self.durable(sequence).await?;
        }
        for (segment, numbers) in gone {
            let n = self.dead.take(segment, &numbers).await?.len() as u64;
            order.redriven.fetch_add(n, Ordering::Relaxed);
            self.shared.stats.dead_redriven.add(n);
        }
        Ok(Step::Again)
    }

    /// Appends the event of a letter to the log again; why not, if it cannot be.
    fn redrive_one(&self, order: &RedriveOrder, segment: u64, bytes: &[u8], wall: u64) -> Result<u64, String> {
        let Parsed::Record(r) = record::parse(segment, bytes) else { return Err("the letter is damaged".into()) };
        let l = Letter::read(self.dead.shard, &r).map_err(|e| e.to_string())?;
        if l.hops >= self.dead.bounds.hops_max {
            return Err(format!(
                "it came out of the dead letters {} times already (engine.dead_letters.hops_max)",
                l.hops
            ));
        }
        let destination = order.to.unwrap_or(l.letter.destination);
        let snapshot = self.snapshot.borrow();
        let Some((destination, d)) = snapshot.current(destination) else {
            return Err("its destination is not configured any more; name another one".into());
        };
        if !d.profile.expressible(l.frame.event_type()) {
            return Err(format!(
                "{} writes records of profile `{}`, which has none for {}",
                d.label(),
                d.profile.name(),
                l.frame.event_type()
            ));
        }
        if self.is_full_for(destination, l.frame.priority()) {
            return Err(format!("the queue of {} is full", d.label()));
        }
        let extensions = Extensions { origin: Some(l.origin), hops: l.hops + 1, ..Extensions::default() };
        let route = Route { destination, rule: l.letter.rule, priority: l.frame.priority() };
        Ok(self.append(Kind::Event, route, &extensions, l.letter.frame, wall))
    }
}
