//! A directory as a bucket: changes of its files, told as events of objects.
//!
//! Every regular file below the directory is an object; its key is its path relative to the directory, as raw bytes
//! with `/` between the parts. Links are not followed, other files than regular ones are not told of, and no name is
//! special.
//!
//! | what happens | what is told |
//! |---|---|
//! | a file is closed after writing | `s3:ObjectCreated:Put` |
//! | a file gets a second name, or comes from outside of the directory | `s3:ObjectCreated:Put` |
//! | a file is removed, or goes out of the directory | `s3:ObjectRemoved:Delete` |
//! | a file is renamed | `s3:ObjectRemoved:Delete` of the old key, then `s3:ObjectCreated:Copy` of the new one, with the old one as `sourceKey` in the data |
//! | a directory is renamed, moved in, moved out or removed | the same for each file in it |
//!
//! Created objects have a size and an etag; the etag is made of the time of writing and the size, so it changes when
//! the file does, but is no hash of the contents. The events of one key are in the order of the changes. Changes that
//! follow each other faster than they are looked at may be told of as one; the last state is always told of.
//!
//! A file that was there before its directory was watched, as in a tree that is made or moved in at once, is found by
//! reading the directory. It is told of once it has been left alone for a fifth of a second, or is closed.
//! A change without closing (through a memory map, or by cutting a file by its name) is noticed at the next scan.
//!
//! If the kernel drops notices because there are too many, or the limit of watches is reached, the whole directory is
//! scanned and the differences are told of. A file whose state cannot be told apart from an earlier one is then told of
//! once more rather than not at all.
//!
//! **Between runs.** The files with size and time are kept in `source-BUCKET.index` in the engine's data directory,
//! replaced when the source stops and every few seconds while something changes. With an index, the differences between
//! it and the directory are told of at the start, whatever `on_start` says. Without one (the first start), `on_start`
//! decides: `ignore` takes the files as known, `emit` tells of each as created. The index only ever holds what the
//! engine's log holds durably, so a crash repeats events but does not lose any.
//!
//! If the directory itself goes away, nothing is told of (it may be a file system that is not mounted); when it is
//! back, the differences are.

mod index;
mod scan;
mod worker;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, SyncSender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::config::DirectorySource;
use crate::error::{Error, ErrorKind, Result};
use crate::lock::Mutex;
use crate::{Engine, Event, Published};
use worker::{Change, Worker};

/// Notices that wait to be looked at. When there are more, the directory is scanned instead.
const CHANGES_MAX: usize = 16 * 1024;
/// How much longer than asked a stop may take, before the thread is left to itself.
const STOP_SLACK: Duration = Duration::from_secs(2);

/// Is told of each event right after it was submitted, on the thread of the source.
pub type Observer = Box<dyn FnMut(&Event<'_>, Published) + Send>;

/// What a directory source has counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DirectoryStats {
    /// Files known now.
    pub files: u64,
    /// Files that are told of once they are left alone.
    pub pending: u64,
    /// Events of created objects.
    pub created: u64,
    /// Events of removed objects.
    pub removed: u64,
    /// Those of both that no rule could want, as far as the bucket and the type tell.
    pub no_match: u64,
    /// Changes that cannot be told of, such as those of a file whose path is longer than a key may be.
    pub invalid: u64,
    /// Scans of the whole directory, the first included.
    pub scans: u64,
    /// Times that notices were lost.
    pub overflows: u64,
    /// What is wrong now.
    pub unhealthy: Vec<String>,
}

/// What the owner and the thread of a source share.
#[derive(Debug, Default)]
struct Control {
    /// When the thread must be done.
    stop: Mutex<Option<Instant>>,
    /// Notices were lost.
    overflow: AtomicBool,
    /// Who asked for a scan.
    rescans: Mutex<Vec<mpsc::Sender<u64>>>,
    stats: Mutex<DirectoryStats>,
}

/// A watched directory. Dropping it stops it, for at most a second.
#[derive(Debug)]
pub struct DirectoryWatch {
    path: PathBuf,
    control: Arc<Control>,
    changes: SyncSender<Change>,
    thread: Option<JoinHandle<Result<()>>>,
    ended: mpsc::Receiver<()>,
}

impl DirectoryWatch {
    /// Watches a directory and tells the engine of its changes, in a thread of its own. When this returns, changes from
    /// now on are noticed, and what has changed since the last run has been published.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] and the like if the directory cannot be read or watched, or the index cannot be read;
    /// [`ErrorKind::InvalidConfig`] if the data directory of the engine is in it.
    pub fn start(engine: Engine, config: &DirectorySource) -> Result<DirectoryWatch> {
        DirectoryWatch::start_with(engine, config, None)
    }

    /// As [`DirectoryWatch::start`], with an observer.
    ///
    /// # Errors
    /// As [`DirectoryWatch::start`].
    pub fn start_with(engine: Engine, config: &DirectorySource, observer: Option<Observer>) -> Result<DirectoryWatch> {
        let label = format!("source `directory` on {}", config.path.display());
        let (root, index_file) = paths(&engine, config).map_err(|e| e.at(label.clone()))?;
        let control = Arc::new(Control::default());
        let (changes, received) = mpsc::sync_channel(CHANGES_MAX);
        let (ready, is_ready) = mpsc::channel();
        let (end, ended) = mpsc::channel();
        let start = worker::Start {
            engine,
            config: config.clone(),
            root: root.clone(),
            index_file,
            control: control.clone(),
            sender: changes.clone(),
            changes: received,
            observer,
        };
        let work = move || {
            // Dropped last, whatever happens.
            let _end: mpsc::Sender<()> = end;
            let (mut worker, load) = Worker::new(start)?;
            worker.begin(load)?;
            let _ = ready.send(());
            drop(ready);
            worker.run()
        };
        let thread = std::thread::Builder::new()
            .name("tidewire-dir".into())
            .spawn(work)
            .map_err(|e| Error::io("cannot start a thread", &e).at(label.clone()))?;
        let mut watch = DirectoryWatch { path: root, control, changes, thread: Some(thread), ended };
        if is_ready.recv().is_err() {
            // The thread has ended and says why.
            let result = watch.thread.take().map_or(Ok(()), join);
            return Err(result.err().unwrap_or_else(|| Error::new(ErrorKind::Closed, "it was stopped")).at(label));
        }
        Ok(watch)
    }

    /// The directory, with links resolved.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it has counted.
    pub fn stats(&self) -> DirectoryStats {
        self.control.stats.lock().clone()
    }

    /// A way to ask for [`DirectoryWatch::stats`] that another thread may keep.
    pub fn monitor(&self) -> impl Fn() -> DirectoryStats + Send + Sync + 'static {
        let control = self.control.clone();
        move || control.stats.lock().clone()
    }

    /// Compares the whole directory with what is known and publishes the differences; answers how many there were.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] if that takes longer (it goes on); [`ErrorKind::Closed`] if the source has ended.
    pub fn rescan(&self, timeout: Duration) -> Result<u64> {
        let (reply, answer) = mpsc::channel();
        self.control.rescans.lock().push(reply);
        self.nudge();
        answer.recv_timeout(timeout).map_err(|e| match e {
            mpsc::RecvTimeoutError::Timeout => {
                Error::new(ErrorKind::Timeout, format!("the scan of {} takes longer", self.path.display()))
            }
            mpsc::RecvTimeoutError::Disconnected => Error::new(ErrorKind::Closed, "the source has ended"),
        })
    }

    /// Stops: publishes what was noticed, waits until the log has it, and saves the index, all until `timeout`. What is
    /// left is noticed at the next start.
    ///
    /// # Errors
    /// What ended the source, if it had ended before; [`ErrorKind::Timeout`] if a system call on the directory does not
    /// come back (the thread is left to itself); an error of saving.
    pub fn stop(mut self, timeout: Duration) -> Result<()> {
        self.end(timeout)
    }

    fn end(&mut self, timeout: Duration) -> Result<()> {
        let Some(thread) = self.thread.take() else { return Ok(()) };
        *self.control.stop.lock() = Some(Instant::now() + timeout);
        self.nudge();
        let at = |e: Error| e.at(format!("source `directory` on {}", self.path.display()));
        match self.ended.recv_timeout(timeout + STOP_SLACK) {
            Err(mpsc::RecvTimeoutError::Timeout) => {
                let e = Error::new(ErrorKind::Timeout, "it does not stop: a system call on the directory hangs");
                Err(at(e.remedy("look at the file system that it is on")))
            }
            _ => join(thread).map_err(at),
        }
    }

    /// Has the thread look at the control block. If the channel is full, it looks anyway.
    fn nudge(&self) {
        let _ = self.changes.try_send(Change::Nothing);
    }
}

impl Drop for DirectoryWatch {
    fn drop(&mut self) {
        if let Err(e) = self.end(Duration::from_secs(1)) {
            log::error!("{e}");
        }
    }
}

fn join(thread: JoinHandle<Result<()>>) -> Result<()> {
    thread.join().unwrap_or_else(|_| Err(Error::new(ErrorKind::Internal, "the thread panicked")))
}

/// The directory without links, and where its index is kept.
fn paths(engine: &Engine, config: &DirectorySource) -> Result<(PathBuf, PathBuf)> {
    let root = std::fs::canonicalize(&config.path)
        .map_err(|e| Error::io("cannot open it", &e).remedy("make the directory, or correct the path"))?;
    if !root.is_dir() {
        return Err(Error::invalid_config("it is no directory").remedy("name a directory"));
    }
    let data_dir = std::fs::canonicalize(&engine.config().data_dir)
        .map_err(|e| Error::io("cannot find the engine's data directory", &e))?;
    if data_dir.starts_with(&root) {
        return Err(Error::invalid_config("the engine's data directory is in it; each event would cause others")
            .remedy("move the one or the other"));
    }
    Ok((root, data_dir.join(format!("source-{}.index", config.bucket))))
}

impl Control {
    /// Until when the thread may go on, once it is told to stop.
    fn deadline(&self) -> Option<Instant> {
        *self.stop.lock()
    }

    fn lost_notices(&self) {
        self.overflow.store(true, Ordering::Release);
    }
}
