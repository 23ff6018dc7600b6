//! The thread of a directory source: notices in, events out.

use std::collections::{HashMap, HashSet, VecDeque};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError};
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode, EventKind, ModifyKind, RenameMode};
use notify::{RecommendedWatcher, Watcher};

use super::index::{Entry, Index, Seen, Stamp, look};
use super::{Control, Observer};
use crate::config::{DirectorySource, OnStart};
use crate::driver::system_ns;
use crate::engine::batch::Receipts;
use crate::engine::{OnFull, PublishOptions, Published};
use crate::error::{Error, ErrorKind, Result};
use crate::log::Ack;
use crate::{Engine, Event, KnownType};

/// A file that no notice of closing has come for is told of when it has been left alone for this long.
pub(super) const QUIET: Duration = Duration::from_millis(200);
/// Stamps are looked at again after this time, to see whether later changes show.
const SETTLE_AFTER: Duration = Duration::from_secs(2);
/// Stamps that wait for that; beyond it they are forgotten, which costs at most a repeated event.
const SETTLING_MAX: usize = 100_000;
/// A file that went away by renaming is known by its inode for this long.
const MOVED_KEPT: Duration = Duration::from_secs(2);
const MOVED_MAX: usize = 100_000;
/// One try to publish while the ring is full, and one look at the log.
const PATIENCE: Duration = Duration::from_millis(100);
/// Events between two waits for the log to have them.
const OUTSTANDING_MAX: usize = 1024;
const SAVE_EVERY: Duration = Duration::from_secs(5);
/// The index is saved so seldom that saving takes at most one part in so many of the time.
const SAVE_SHARE: u32 = 20;
/// How long saving waits for the log.
const SAVE_PATIENCE: Duration = Duration::from_secs(2);
const ROOT_RETRY: Duration = Duration::from_secs(1);
/// How often everything is scanned while some directories cannot be watched.
const SCAN_UNWATCHED: Duration = Duration::from_secs(30);
/// After so long, notices are put aside for what is due.
const TURN: Duration = Duration::from_millis(500);
const WAIT_MAX: Duration = Duration::from_secs(60);

/// One notice of the watcher.
#[derive(Debug)]
pub(super) enum Change {
    /// A name was made: a file, a directory, a link.
    Appeared(PathBuf),
    /// A file that had just been made is opened, so it will be closed.
    Opened(PathBuf),
    /// A file was closed after writing.
    Written(PathBuf),
    Removed(PathBuf),
    MovedAway(PathBuf),
    MovedHere(PathBuf),
    /// The watcher cannot go on with something.
    Failed(String),
    /// Have a look at the control block.
    Nothing,
}

/// Why the thread does not go on.
pub(super) enum Halt {
    /// The time to stop is over.
    Stopped,
    Failed(Error),
}

impl From<Error> for Halt {
    fn from(e: Error) -> Halt {
        Halt::Failed(e)
    }
}

/// Everything the thread is started with.
pub(super) struct Start {
    pub(super) engine: Engine,
    pub(super) config: DirectorySource,
    pub(super) root: PathBuf,
    pub(super) index_file: PathBuf,
    pub(super) control: Arc<Control>,
    pub(super) sender: SyncSender<Change>,
    pub(super) changes: Receiver<Change>,
    pub(super) observer: Option<Observer>,
}

/// What is done about the files of the first scan.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum First {
    /// They are taken as known.
    Learn,
    /// What is not known is told of.
    Tell,
}

/// A file that is told of later.
pub(super) struct Pending {
    pub(super) due: Instant,
    pub(super) ctime: i64,
    /// Only because its name was made: once it is opened, its closing will be noticed.
    pub(super) only_named: bool,
}

struct Moved {
    key: Box<[u8]>,
    stamp: Stamp,
    until: Instant,
}

pub(super) struct Worker {
    engine: Engine,
    bucket: Arc<str>,
    pub(super) root: PathBuf,
    index_file: PathBuf,
    pub(super) control: Arc<Control>,
    sender: SyncSender<Change>,
    changes: Receiver<Change>,
    observer: Option<Observer>,
    pub(super) watcher: RecommendedWatcher,
    pub(super) index: Index,
    pub(super) scan: u64,
    pub(super) pending: HashMap<PathBuf, Pending>,
    /// Pending files by the time they are due; some are out of date.
    queue: VecDeque<(Instant, PathBuf)>,
    settling: VecDeque<(Instant, Box<[u8]>)>,
    moved: HashMap<u64, Moved>,
    receipts: Receipts,
    outstanding: usize,
    pub(super) root_lost: bool,
    /// Why some directories are not watched.
    pub(super) unwatched: Option<String>,
    next_scan: Option<Instant>,
    save_at: Instant,
}

impl Worker {
    pub(super) fn new(start: Start) -> Result<(Worker, First)> {
        let Start { engine, config, root, index_file, control, sender, changes, observer } = start;
        let (index, first) = match Index::load(&index_file, &root) {
            Ok(Some(index)) => (index, First::Tell),
            Ok(None) if config.on_start == OnStart::Emit => (Index::default(), First::Tell),
            Ok(None) => (Index::default(), First::Learn),
            Err(e) if e.kind() == ErrorKind::Corrupt => {
                log::error!("{e}; going on without it");
                (Index::default(), if config.on_start == OnStart::Emit { First::Tell } else { First::Learn })
            }
            Err(e) => return Err(e),
        };
        let watcher = watcher(&control, &sender)?;
        let worker = Worker {
            engine,
            bucket: config.bucket.into(),
            root,
            index_file,
            control,
            sender,
            changes,
            observer,
            watcher,
            index,
            scan: 0,
            pending: HashMap::new(),
            queue: VecDeque::new(),
            settling: VecDeque::new(),
            moved: HashMap::new(),
            receipts: Receipts::default(),
            outstanding: 0,
            root_lost: false,
            unwatched: None,
            next_scan: None,
            save_at: Instant::now() + SAVE_EVERY,
        };
        Ok((worker, first))
    }

    /// Begins to watch, and compares the directory with what is known.
    pub(super) fn begin(&mut self, first: First) -> Result<()> {
        std::fs::read_dir(&self.root).map_err(|e| Error::io("cannot read it", &e))?;
        let scanned = self.scan_all(first, false).and_then(|_| {
            // Without an index, the next start would not know that this one has been.
            self.index.changed = true;
            self.try_save()
        });
        self.publish_stats();
        match scanned {
            Ok(()) if self.root_lost => {
                Err(Error::new(ErrorKind::NotFound, "the directory is gone").remedy("make the directory"))
            }
            Ok(()) => Ok(()),
            Err(Halt::Failed(e)) => Err(e),
            Err(Halt::Stopped) => Err(Error::new(ErrorKind::Closed, "it was stopped")),
        }
    }

    pub(super) fn run(mut self) -> Result<()> {
        let result = loop {
            match self.turn() {
                Ok(true) => {}
                Ok(false) | Err(Halt::Stopped) => break Ok(()),
                Err(Halt::Failed(e)) => break Err(e),
            }
        };
        let saved = result.and_then(|()| {
            let deadline = self.control.deadline().unwrap_or_else(Instant::now);
            self.save(deadline)
        });
        if let Err(e) = &saved {
            log::error!("the source `directory` on {} has ended: {e}", self.root.display());
            self.control.stats.lock().unhealthy.push(e.to_string());
        }
        saved
    }

    /// Looks at the notices that are there, then at what is due. Answers whether to go on.
    fn turn(&mut self) -> Result<bool, Halt> {
        self.check_time()?;
        let mut next = match self.changes.recv_timeout(self.wait()) {
            Ok(change) => Some(change),
            Err(RecvTimeoutError::Timeout) => None,
            // This thread has a sender, so there is always one.
            Err(RecvTimeoutError::Disconnected) => return Ok(false),
        };
        let begun = Instant::now();
        while let Some(change) = next.take() {
            self.look_into(change)?;
            if begun.elapsed() < TURN {
                next = self.changes.try_recv().ok();
            }
        }
        let idle = begun.elapsed() < TURN;
        self.due(idle)?;
        self.publish_stats();
        Ok(!(self.control.deadline().is_some() && idle))
    }

    fn wait(&self) -> Duration {
        if self.control.deadline().is_some() {
            return Duration::ZERO;
        }
        let mut until = Instant::now() + WAIT_MAX;
        let times = [
            self.queue.front().map(|(at, _)| *at),
            self.settling.front().map(|(at, _)| *at),
            self.index.changed.then_some(self.save_at),
            self.next_scan,
        ];
        for at in times.into_iter().flatten() {
            until = until.min(at);
        }
        until.saturating_duration_since(Instant::now())
    }

    fn due(&mut self, idle: bool) -> Result<(), Halt> {
        let now = Instant::now();
        let overflow = self.control.overflow.swap(false, Ordering::AcqRel);
        let asked = if idle { std::mem::take(&mut *self.control.rescans.lock()) } else { Vec::new() };
        if overflow {
            self.control.stats.lock().overflows += 1;
            log::warn!("{}: notices were lost; scanning", self.root.display());
        }
        let scan_due = self.next_scan.is_some_and(|at| at <= now);
        if overflow || scan_due || !asked.is_empty() {
            self.next_scan = None;
            let differences = self.scan_all(First::Tell, overflow)?;
            for reply in asked {
                let _ = reply.send(differences);
            }
            if self.root_lost {
                self.next_scan = Some(Instant::now() + ROOT_RETRY);
            } else if self.unwatched.is_some() {
                self.next_scan = Some(Instant::now() + SCAN_UNWATCHED);
            }
        }
        while self.queue.front().is_some_and(|(at, _)| *at <= now) {
            if let Some((at, path)) = self.queue.pop_front()
                && self.pending.get(&path).is_some_and(|p| p.due == at)
            {
                self.quiet(path)?;
            }
        }
        // A stamp may only be called settled when nothing is left that was noticed before.
        while idle && self.settling.front().is_some_and(|(at, _)| *at <= now) {
            if let Some((_, key)) = self.settling.pop_front() {
                let seen = look(&self.path_of(&key));
                if let (Ok(Some(Seen::File(stamp))), Some(entry)) = (seen, self.index.get_mut(&key)) {
                    entry.settled |= stamp.is_settled() && stamp.same(&entry.stamp);
                }
            }
        }
        if !self.moved.is_empty() {
            self.moved.retain(|_, m| m.until > now);
        }
        if self.index.changed && self.save_at <= now {
            self.try_save()?;
        }
        Ok(())
    }

    /// Saves the index while running. If that does not work now, it may the next time.
    fn try_save(&mut self) -> Result<(), Halt> {
        let begun = Instant::now();
        match self.save(begun + SAVE_PATIENCE) {
            Err(e) if matches!(e.kind(), ErrorKind::LogFailed | ErrorKind::Closed) => return Err(e.into()),
            Err(e) => log::error!("cannot save the index: {e}"),
            Ok(()) => {}
        }
        self.save_at = Instant::now() + SAVE_EVERY.max(begun.elapsed() * SAVE_SHARE);
        Ok(())
    }

    /// Saves the index, once the log durably has everything that it says was told.
    fn save(&mut self, deadline: Instant) -> Result<()> {
        if !self.index.changed {
            return Ok(());
        }
        self.receipts.wait(Ack::Synced, deadline)?;
        self.index.save(&self.index_file, &self.root)
    }

    fn publish_stats(&self) {
        let mut stats = self.control.stats.lock();
        stats.files = self.index.len() as u64;
        stats.pending = self.pending.len() as u64;
        stats.unhealthy.clear();
        if self.root_lost {
            stats.unhealthy.push(format!("the directory {} is gone", self.root.display()));
        }
        stats.unhealthy.extend(self.unwatched.clone());
    }

    fn look_into(&mut self, change: Change) -> Result<(), Halt> {
        if self.root_lost {
            // Notices of a directory that is somewhere else now.
            return Ok(());
        }
        match change {
            Change::Nothing => Ok(()),
            Change::Failed(why) => {
                log::error!("{}: {why}", self.root.display());
                self.control.lost_notices();
                Ok(())
            }
            Change::Removed(path) => self.gone(&path, false),
            Change::MovedAway(path) => self.gone(&path, true),
            Change::Opened(path) => {
                if self.pending.get(&path).is_some_and(|p| p.only_named) {
                    self.pending.remove(&path);
                }
                Ok(())
            }
            Change::Appeared(path) => match self.look(&path) {
                Some(Seen::Directory) => self.scan(&path, First::Tell, false).map(|_| ()),
                // The second name of a file that may have been closed long ago.
                Some(Seen::File(stamp)) if stamp.links > 1 => self.created(&path, stamp),
                Some(Seen::File(stamp)) => {
                    self.later(path, stamp.ctime, true);
                    Ok(())
                }
                Some(Seen::Other) | None => Ok(()),
            },
            Change::MovedHere(path) => match self.look(&path) {
                Some(Seen::Directory) => self.scan(&path, First::Tell, false).map(|_| ()),
                Some(Seen::File(stamp)) => {
                    self.pending.remove(&path);
                    let known = self.key_of(&path).and_then(|key| self.index.get(key));
                    if known.is_some_and(|e| e.stamp.same(&stamp)) {
                        return Ok(());
                    }
                    self.created(&path, stamp)
                }
                Some(Seen::Other) | None => Ok(()),
            },
            Change::Written(path) => {
                self.pending.remove(&path);
                let Some(Seen::File(stamp)) = self.look(&path) else { return Ok(()) };
                let known = self.key_of(&path).and_then(|key| self.index.get(key));
                if known.is_some_and(|e| e.settled && e.stamp.same(&stamp)) {
                    // A scan came first, or nothing was written.
                    return Ok(());
                }
                self.created(&path, stamp)
            }
        }
    }

    /// A name was removed or renamed. It may exist again by now.
    fn gone(&mut self, path: &Path, moved: bool) -> Result<(), Halt> {
        let Some(key) = self.key_of(path).map(Box::<[u8]>::from) else {
            self.root_lost = self.look(path) != Some(Seen::Directory);
            if self.root_lost {
                log::error!("{}: the directory is gone; waiting for its return", path.display());
                self.next_scan = Some(Instant::now() + ROOT_RETRY);
                return Ok(());
            }
            return self.scan_all(First::Tell, false).map(|_| ());
        };
        let now = self.look(path);
        if let Some(Seen::File(stamp)) = now
            && self.index.get(&key).is_some_and(|e| e.stamp.same(&stamp))
        {
            // An old notice: what is known is the file that is there now.
            return Ok(());
        }
        self.removed(&key, moved)?;
        if now == Some(Seen::Directory) {
            return self.scan(path, First::Tell, false).map(|_| ());
        }
        for below in self.index.below(&key, |_, _| true) {
            self.removed(&below, moved)?;
        }
        match now {
            Some(Seen::File(stamp)) => self.later(path.to_owned(), stamp.ctime, false),
            _ => {
                self.pending.remove(path);
            }
        }
        Ok(())
    }

    /// Tells of a pending file, if it has been left alone.
    fn quiet(&mut self, path: PathBuf) -> Result<(), Halt> {
        let Some(pending) = self.pending.remove(&path) else { return Ok(()) };
        let Some(Seen::File(stamp)) = self.look(&path) else { return Ok(()) };
        if stamp.ctime != pending.ctime {
            self.later(path, stamp.ctime, pending.only_named);
            return Ok(());
        }
        let known = self.key_of(&path).and_then(|key| self.index.get(key));
        if known.is_some_and(|e| e.stamp.same(&stamp)) {
            return Ok(());
        }
        self.created(&path, stamp)
    }

    /// Has a file told of when it has been left alone.
    pub(super) fn later(&mut self, path: PathBuf, ctime: i64, only_named: bool) {
        let due = Instant::now() + QUIET;
        let only_named = only_named && self.pending.get(&path).is_none_or(|p| p.only_named);
        self.queue.push_back((due, path.clone()));
        self.pending.insert(path, Pending { due, ctime, only_named });
    }

    /// Tells of a file as created.
    pub(super) fn created(&mut self, path: &Path, stamp: Stamp) -> Result<(), Halt> {
        let Some(key) = self.key_of(path).map(Box::<[u8]>::from) else { return Ok(()) };
        let from = self.moved_from(&stamp, true);
        let data = match from.as_deref().and_then(|k| std::str::from_utf8(k).ok()) {
            Some(source) => serde_json::json!({ "sourceKey": source }).to_string(),
            None => String::new(),
        };
        let kind = if from.is_some() { KnownType::ObjectCreatedCopy } else { KnownType::ObjectCreatedPut };
        let bucket = self.bucket.clone();
        let etag = format!("{:x}-{:x}", stamp.mtime, stamp.size);
        let mut event = Event::new(kind.into(), &bucket, &key);
        event.time_ns = u64::try_from(stamp.ctime).unwrap_or(0).min(system_ns());
        event.size = Some(stamp.size);
        event.etag = &etag;
        event.data = data.as_bytes();
        self.publish(&event)?;
        self.control.stats.lock().created += 1;
        let settled = stamp.is_settled();
        self.index.insert(&key, Entry { stamp, settled, scan: self.scan });
        if !settled {
            self.settle_later(key);
        }
        Ok(())
    }

    pub(super) fn settle_later(&mut self, key: Box<[u8]>) {
        if self.settling.len() == SETTLING_MAX {
            self.settling.pop_front();
        }
        self.settling.push_back((Instant::now() + SETTLE_AFTER, key));
    }

    /// Tells of a file as removed, if it was told of before.
    pub(super) fn removed(&mut self, key: &[u8], moved: bool) -> Result<(), Halt> {
        let Some(entry) = self.index.get(key).copied() else { return Ok(()) };
        let bucket = self.bucket.clone();
        self.publish(&Event::new(KnownType::ObjectRemovedDelete.into(), &bucket, key))?;
        self.control.stats.lock().removed += 1;
        self.index.remove(key);
        if moved && self.moved.len() < MOVED_MAX {
            let until = Instant::now() + MOVED_KEPT;
            self.moved.insert(entry.stamp.inode, Moved { key: key.into(), stamp: entry.stamp, until });
        }
        Ok(())
    }

    /// The key that a file had before it was renamed just now.
    pub(super) fn moved_from(&mut self, stamp: &Stamp, take: bool) -> Option<Box<[u8]>> {
        let found = self.moved.get(&stamp.inode).filter(|m| m.stamp.same_contents(stamp))?.key.clone();
        if take {
            self.moved.remove(&stamp.inode);
        }
        Some(found)
    }

    fn publish(&mut self, event: &Event<'_>) -> Result<(), Halt> {
        let on_full = OnFull::Retry(PATIENCE);
        let options = PublishOptions { ack: Ack::Written, on_full, ..PublishOptions::default() };
        loop {
            match self.engine.submit(event, &options) {
                Ok(receipt) => {
                    if let Some(observer) = &mut self.observer {
                        let published = if receipt.is_some() { Published::Accepted } else { Published::NoMatch };
                        observer(event, published);
                    }
                    match receipt {
                        Some(receipt) => {
                            self.receipts.add(receipt);
                            self.outstanding += 1;
                        }
                        None => self.control.stats.lock().no_match += 1,
                    }
                    break;
                }
                Err(e) if e.kind() == ErrorKind::Full => self.check_time()?,
                Err(e) if e.kind() == ErrorKind::InvalidEvent => {
                    log::warn!("{}: not told of: {e}", self.path_of(event.key).display());
                    self.control.stats.lock().invalid += 1;
                    break;
                }
                Err(e) => return Err(e.into()),
            }
        }
        while self.outstanding >= OUTSTANDING_MAX {
            match self.receipts.wait(Ack::Written, Instant::now() + PATIENCE) {
                Ok(()) => self.outstanding = 0,
                Err(e) if e.kind() == ErrorKind::Timeout => self.check_time()?,
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }

    /// Whether there is still time, if the source is told to stop.
    pub(super) fn check_time(&self) -> Result<(), Halt> {
        match self.control.deadline() {
            Some(at) if at <= Instant::now() => Err(Halt::Stopped),
            _ => Ok(()),
        }
    }

    /// Looks at a name. What cannot be looked at is passed over: it is as it was.
    fn look(&self, path: &Path) -> Option<Seen> {
        look(path).unwrap_or_else(|e| {
            log::warn!("{}: {e}", path.display());
            None
        })
    }

    /// The key of a path; `None` for the directory itself.
    pub(super) fn key_of<'p>(&self, path: &'p Path) -> Option<&'p [u8]> {
        let key = path.strip_prefix(&self.root).ok()?.as_os_str().as_bytes();
        (!key.is_empty()).then_some(key)
    }

    pub(super) fn path_of(&self, key: &[u8]) -> PathBuf {
        self.root.join(std::ffi::OsString::from_vec(key.to_vec()))
    }

    /// Has everything scanned from time to time, for what is not watched.
    pub(super) fn scan_unwatched_soon(&mut self) {
        self.next_scan = Some(Instant::now() + SCAN_UNWATCHED);
    }

    /// Begins anew with watching: what an old watcher watches may be somewhere else now.
    pub(super) fn renew_watcher(&mut self) -> Result<()> {
        self.watcher = watcher(&self.control, &self.sender)?;
        Ok(())
    }
}

fn watcher(control: &Arc<Control>, sender: &SyncSender<Change>) -> Result<RecommendedWatcher> {
    let (control, sender) = (control.clone(), sender.clone());
    let mut named = HashSet::new();
    let handler = move |notice: notify::Result<notify::Event>| {
        let change = match notice {
            Ok(event) => {
                if event.need_rescan() {
                    control.lost_notices();
                }
                translate(event, &mut named)
            }
            Err(e) => Some(Change::Failed(e.to_string())),
        };
        // The handler must not block: this thread also adds watches, which the other one waits for.
        if let Some(change) = change
            && let Err(TrySendError::Full(_)) = sender.try_send(change)
        {
            control.lost_notices();
        }
    };
    RecommendedWatcher::new(handler, notify::Config::default().with_follow_symlinks(false)).map_err(|e| {
        Error::new(ErrorKind::Io, format!("cannot watch: {e}"))
            .remedy("raise the sysctl fs.inotify.max_user_instances, or the limit on open files")
    })
}

/// What a notice means here. `named` are files that were made and neither opened nor closed since.
fn translate(mut event: notify::Event, named: &mut HashSet<PathBuf>) -> Option<Change> {
    const NAMED_MAX: usize = 4096;
    if event.need_rescan() {
        return Some(Change::Nothing);
    }
    let path = event.paths.pop()?;
    Some(match event.kind {
        EventKind::Create(_) => {
            if named.len() == NAMED_MAX {
                named.clear();
            }
            named.insert(path.clone());
            Change::Appeared(path)
        }
        EventKind::Access(AccessKind::Open(_)) if named.remove(&path) => Change::Opened(path),
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => {
            named.remove(&path);
            Change::Written(path)
        }
        EventKind::Remove(_) => Change::Removed(path),
        EventKind::Modify(ModifyKind::Name(RenameMode::From)) => Change::MovedAway(path),
        EventKind::Modify(ModifyKind::Name(RenameMode::To)) => Change::MovedHere(path),
        _ => return None,
    })
}
