//! Files of the log, written and synced by threads of their own.
//!
//! A commit is a write and a sync, one right after the other. Done by a thread that may block, that costs one wake-up
//! there and one back; through the reactor it would be two trips, and a worker thread of the kernel would do the sync in
//! any case. There are two such threads per shard, so that one group is written while the one before is synced.

use std::cell::Cell;
use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::future::Future;
use std::io;
use std::marker::PhantomData;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::pin::Pin;
#[cfg(feature = "sim")]
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::thread::JoinHandle;

use futures::channel::oneshot;

use super::glommio::BlockedSignals;
#[cfg(feature = "sim")]
use super::sim;
use crate::error::{Error, ErrorKind, Result};
use crate::lock::{Condvar, Mutex};
use crate::log::BLOCK_BYTES;
use crate::log::buffer::BlockBuffer;

/// One writes while the other syncs.
pub const DISK_THREADS: usize = 2;
/// What they need is little.
const STACK_BYTES: usize = 128 << 10;
/// Zeros written by one call.
const ZEROS_BYTES: usize = 256 << 10;

type Job = Box<dyn FnOnce() + Send>;

/// What is done on the disk's thread when a sync has succeeded, before the shard hears of it: whoever waits for that need
/// not wait for the shard. Quick.
pub type OnSynced = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct Jobs {
    waiting: VecDeque<Job>,
    closed: bool,
}

#[derive(Default)]
struct Queue {
    jobs: Mutex<Jobs>,
    news: Condvar,
}

impl Queue {
    fn work(&self) {
        loop {
            let mut jobs = self.jobs.lock();
            let job = loop {
                match jobs.waiting.pop_front() {
                    Some(job) => break job,
                    None if jobs.closed => return,
                    None => jobs = self.news.wait(jobs),
                }
            };
            drop(jobs);
            job();
        }
    }
}

/// The threads that write and sync the files of a shard. They end when this is dropped.
pub struct Disk {
    queue: Arc<Queue>,
    threads: Vec<JoinHandle<()>>,
    /// A simulated disk has no threads.
    #[cfg(feature = "sim")]
    simulated: bool,
}

impl Disk {
    /// Starts them. To be called where no CPU is chosen for the calling thread: they inherit that.
    ///
    /// # Errors
    /// If there can be no thread.
    pub fn start(name: &str) -> Result<Disk> {
        let mut disk = Disk {
            queue: Arc::default(),
            threads: Vec::new(),
            #[cfg(feature = "sim")]
            simulated: sim::active(),
        };
        #[cfg(feature = "sim")]
        if disk.simulated {
            return Ok(disk);
        }
        let _mask = BlockedSignals::new();
        for _ in 0..DISK_THREADS {
            let queue = disk.queue.clone();
            let thread = std::thread::Builder::new().name(name.to_owned()).stack_size(STACK_BYTES);
            let thread = thread
                .spawn(move || queue.work())
                .map_err(|e| Error::new(ErrorKind::Io, format!("cannot start the thread of {name}: {e}")))?;
            disk.threads.push(thread);
        }
        Ok(disk)
    }

    fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> Done<T> {
        run(&self.queue, job)
    }

    /// Creates a file for reading and writing.
    pub async fn create_new(&self, path: &Path) -> io::Result<LogFile> {
        self.open_with(path, true).await
    }

    /// Opens a file for reading and writing.
    pub async fn open(&self, path: &Path) -> io::Result<LogFile> {
        self.open_with(path, false).await
    }

    async fn open_with(&self, path: &Path, new: bool) -> io::Result<LogFile> {
        #[cfg(feature = "sim")]
        if let Some(world) = sim::current().filter(|_| self.simulated) {
            let file = match new {
                true => sim::disk::DiskFile::create_new(&world, path).await?,
                false => sim::disk::DiskFile::open(&world, path, false).await?,
            };
            return Ok(LogFile(Kind::Sim(Rc::new(file))));
        }
        let (queue, path) = (self.queue.clone(), path.to_owned());
        let file = self.run(move || Opened::open(&path, new)).await?;
        Ok(LogFile(Kind::Threads { file: Arc::new(file), queue }))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.queue.jobs.lock().closed = true;
        self.queue.news.notify_all();
        for thread in self.threads.drain(..) {
            // It cannot have panicked: jobs do not.
            let _ = thread.join();
        }
    }
}

fn run<T: Send + 'static>(queue: &Queue, job: impl FnOnce() -> T + Send + 'static) -> Done<T> {
    let (done, ended) = oneshot::channel();
    queue.jobs.lock().waiting.push_back(Box::new(move || {
        let _ = done.send(job());
    }));
    queue.news.notify_one();
    Done::of(ended)
}

/// Does something in a task of the simulation.
#[cfg(feature = "sim")]
fn simulate<T: 'static>(work: impl Future<Output = T> + 'static) -> Done<T> {
    let (done, ended) = oneshot::channel();
    drop(super::spawn(async move {
        let _ = done.send(work.await);
    }));
    Done::of(ended)
}

/// The end of something that a disk's thread does. It is done whether this is awaited or not.
#[derive(Debug)]
#[must_use = "tells how it ended"]
pub struct Done<T> {
    ended: oneshot::Receiver<T>,
    _awaited: Awaited,
}

impl<T> Done<T> {
    fn of(ended: oneshot::Receiver<T>) -> Done<T> {
        Done { ended, _awaited: Awaited::new() }
    }
}

thread_local! {
    static AWAITED: Cell<usize> = const { Cell::new(0) };
}

/// Counts what a thread has the disk do; bound to that thread.
#[derive(Debug)]
struct Awaited(PhantomData<*const ()>);

impl Awaited {
    fn new() -> Awaited {
        AWAITED.set(AWAITED.get() + 1);
        Awaited(PhantomData)
    }
}

impl Drop for Awaited {
    fn drop(&mut self) {
        AWAITED.set(AWAITED.get() - 1);
    }
}

/// Whether this thread waits for something that the disk does.
pub(super) fn is_busy() -> bool {
    AWAITED.get() > 0
}

impl<T> Future for Done<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        Pin::new(&mut self.ended).poll(cx).map(|end| match end {
            Ok(value) => value,
            // The queue lives as long as the files on it, and its threads end when it is empty.
            Err(_) => unreachable!("a thread of the disk is gone"),
        })
    }
}

/// The end of a write: the buffer comes back.
pub type Written = Done<(BlockBuffer, io::Result<()>)>;

/// The end of a sync.
pub type Synced = Done<io::Result<()>>;

/// A file of the log. Direct I/O where the file system has it, ordinary I/O elsewhere. Clones are the same open file.
#[derive(Clone)]
pub struct LogFile(Kind);

#[derive(Clone)]
enum Kind {
    Threads {
        file: Arc<Opened>,
        queue: Arc<Queue>,
    },
    #[cfg(feature = "sim")]
    Sim(Rc<sim::disk::DiskFile>),
}

struct Opened {
    file: File,
    path: PathBuf,
    direct: AtomicBool,
    /// One sync at a time, for an error is told once per open file: whoever comes first has it, and the others must not
    /// take their luck for success. Set by a sync that failed; none succeeds after that.
    sync_failed: Mutex<bool>,
}

impl LogFile {
    /// Writes a buffer as whole blocks, with at least so many zeros behind it, at a position that is a multiple of a block;
    /// of the buffer the first `skip` bytes (whole blocks) are left out. The buffer comes back. If there is `sync`, the same
    /// thread then makes everything durable that was written before, and calls it; the second future tells that.
    pub fn write(
        &self,
        mut buf: BlockBuffer,
        zeros: usize,
        skip: usize,
        position: u64,
        sync: Option<OnSynced>,
    ) -> (Written, Option<Synced>) {
        let (done, ended) = oneshot::channel();
        let (synced, sync_ended) = sync.map(|then| (then, oneshot::channel())).map(|(f, (s, e))| ((f, s), e)).unzip();
        let not_tried = || Err(io::Error::other("what came before could not be written"));
        let (file, queue) = match &self.0 {
            Kind::Threads { file, queue } => (file.clone(), queue),
            #[cfg(feature = "sim")]
            Kind::Sim(file) => {
                let file = file.clone();
                drop(super::spawn(async move {
                    let result = file.write_at(&buf.padded(zeros)[skip..], position + skip as u64).await;
                    let written = result.is_ok();
                    let _ = done.send((buf, result));
                    if let Some((then, synced)) = synced {
                        let _ = synced.send(if written { file.sync_once(then).await } else { not_tried() });
                    }
                }));
                return (Done::of(ended), sync_ended.map(Done::of));
            }
        };
        queue.jobs.lock().waiting.push_back(Box::new(move || {
            let result = file.write(&buf.padded(zeros)[skip..], position + skip as u64);
            let written = result.is_ok();
            let _ = done.send((buf, result));
            if let Some((then, synced)) = synced {
                let _ = synced.send(if written { file.sync(then) } else { not_tried() });
            }
        }));
        queue.news.notify_one();
        (Done::of(ended), sync_ended.map(Done::of))
    }

    /// Makes everything durable that was written before. After a failure it fails for ever: the kernel may have dropped
    /// what it could not write.
    pub fn sync(&self, then: OnSynced) -> Synced {
        match &self.0 {
            Kind::Threads { file, queue } => {
                let file = file.clone();
                run(queue, move || file.sync(then))
            }
            #[cfg(feature = "sim")]
            Kind::Sim(file) => {
                let file = file.clone();
                simulate(async move { file.sync_once(then).await })
            }
        }
    }

    /// Writes zeros from one position up to another, both multiples of a block.
    pub fn write_zeros(&self, from: u64, to: u64) -> Done<io::Result<()>> {
        match &self.0 {
            Kind::Threads { file, queue } => {
                let file = file.clone();
                run(queue, move || file.write_zeros(from, to))
            }
            #[cfg(feature = "sim")]
            Kind::Sim(file) => {
                let file = file.clone();
                simulate(async move { file.write_at(&vec![0; (to - from) as usize], from).await })
            }
        }
    }

    /// As [`LogFile::write_zeros`], by the shard's helper thread (see [`super::blocking`]): a thread of the disk has
    /// better to do.
    pub async fn write_zeros_aside(&self, from: u64, to: u64) -> io::Result<()> {
        match &self.0 {
            Kind::Threads { file, .. } => {
                let file = file.clone();
                super::blocking(move || Ok(file.write_zeros(from, to)))
                    .await
                    .unwrap_or_else(|e| Err(io::Error::other(e)))
            }
            #[cfg(feature = "sim")]
            Kind::Sim(_) => self.write_zeros(from, to).await,
        }
    }
}

impl Opened {
    fn open(path: &Path, new: bool) -> io::Result<Opened> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(new).mode(super::fs::FILE_MODE);
        let mut open = |flags| options.custom_flags(flags).open(path);
        let (file, direct) = match open(libc::O_DIRECT) {
            Ok(file) => (file, true),
            // Some file systems create the file before they find that they have no direct I/O.
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => {
                if new {
                    let _ = std::fs::remove_file(path);
                }
                (open(0)?, false)
            }
            Err(e) => return Err(e),
        };
        Ok(Opened { file, path: path.to_owned(), direct: AtomicBool::new(direct), sync_failed: Mutex::new(false) })
    }

    fn write(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        fault(&self.path, Operation::Write)?;
        let mut from = 0;
        let mut wrote = 0;
        while wrote < bytes.len() {
            match self.file.write_at(&bytes[from..], position + from as u64) {
                Ok(n) if from + n <= wrote => {
                    let why = format!("wrote {wrote} of {} bytes", bytes.len());
                    return Err(io::Error::new(io::ErrorKind::WriteZero, why));
                }
                // A write stops short where the space or a limit ends; writing what is left tells which it is.
                Ok(n) => {
                    wrote = from + n;
                    from = wrote / BLOCK_BYTES * BLOCK_BYTES;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.raw_os_error() == Some(libc::EINVAL) && self.give_up_direct() => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Goes on with ordinary I/O, where direct I/O was accepted but does not work. `false` if it was not in use.
    fn give_up_direct(&self) -> bool {
        if !self.direct.swap(false, Ordering::Relaxed) {
            return false;
        }
        let fd = self.file.as_raw_fd();
        // SAFETY: the calls take no pointers, and the descriptor is open.
        unsafe {
            let flags = libc::fcntl(fd, libc::F_GETFL);
            flags >= 0 && libc::fcntl(fd, libc::F_SETFL, flags & !libc::O_DIRECT) == 0
        }
    }

    fn write_zeros(&self, from: u64, to: u64) -> io::Result<()> {
        let mut zeros = BlockBuffer::default();
        let mut at = from;
        while at < to {
            let bytes = (to - at).min(ZEROS_BYTES as u64) as usize;
            self.write(&zeros.padded(bytes)[..bytes], at)?;
            at += bytes as u64;
        }
        Ok(())
    }

    fn sync(&self, then: OnSynced) -> io::Result<()> {
        let mut failed = self.sync_failed.lock();
        if *failed {
            return Err(io::Error::other("an earlier sync failed"));
        }
        let result = fault(&self.path, Operation::Sync).and_then(|()| self.file.sync_data());
        *failed = result.is_err();
        drop(failed);
        if result.is_ok() {
            // It may call wakers of the host.
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(then));
        }
        result
    }
}

/// What a test can make fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// A write.
    Write,
    /// A sync.
    Sync,
}

#[cfg(not(test))]
fn fault(_: &Path, _: Operation) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
fn fault(path: &Path, operation: Operation) -> io::Result<()> {
    faults::check(path, operation)
}

/// Failures that tests of this crate order.
#[cfg(test)]
pub mod faults {
    use super::*;

    struct Order {
        under: PathBuf,
        operation: Operation,
        errno: i32,
        left: usize,
    }

    static ORDERS: Mutex<Vec<Order>> = Mutex::new(Vec::new());

    /// Makes the next `times` operations on files under a directory fail.
    pub fn order(under: &Path, operation: Operation, errno: i32, times: usize) {
        ORDERS.lock().push(Order { under: under.to_owned(), operation, errno, left: times });
    }

    /// Forgets the failures ordered for a directory.
    pub fn lift(under: &Path) {
        ORDERS.lock().retain(|o| o.under != under);
    }

    /// How many of the failures ordered for a directory have not happened.
    pub fn left(under: &Path) -> usize {
        ORDERS.lock().iter().filter(|o| o.under == under).map(|o| o.left).sum()
    }

    pub(super) fn check(path: &Path, operation: Operation) -> io::Result<()> {
        let mut orders = ORDERS.lock();
        match orders.iter_mut().find(|o| o.left > 0 && o.operation == operation && path.starts_with(&o.under)) {
            Some(o) => {
                o.left -= 1;
                Err(io::Error::from_raw_os_error(o.errno))
            }
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait<T>(future: impl Future<Output = T>) -> T {
        futures::executor::block_on(future)
    }

    fn buffer(bytes: &[u8]) -> BlockBuffer {
        let mut b = BlockBuffer::default();
        b.extend_from_slice(bytes);
        b
    }

    #[test]
    fn writes_whole_blocks_with_zeros_behind_and_leaves_out_what_it_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let disk = Disk::start("disk").unwrap();
        let file = wait(disk.create_new(&path)).unwrap();
        wait(file.write_zeros(0, 1 << 20)).unwrap();
        let bytes: Vec<u8> = (0..2 * BLOCK_BYTES).map(|n| n as u8 | 1).collect();
        let (written, synced) =
            file.write(buffer(&bytes), 32, BLOCK_BYTES, 8 * BLOCK_BYTES as u64, Some(Box::new(|| ())));
        let (buf, result) = wait(written);
        result.unwrap();
        wait(synced.unwrap()).unwrap();
        assert_eq!(&*buf, &bytes[..]);
        let on_disk = std::fs::read(&path).unwrap();
        assert_eq!(on_disk.len(), 1 << 20);
        assert!(on_disk[..9 * BLOCK_BYTES].iter().all(|b| *b == 0), "the first block was left out");
        assert_eq!(on_disk[9 * BLOCK_BYTES..10 * BLOCK_BYTES], bytes[BLOCK_BYTES..]);
        assert!(on_disk[10 * BLOCK_BYTES..].iter().all(|b| *b == 0));
        assert!(wait(disk.create_new(&path)).is_err(), "it is there already");
    }

    #[test]
    fn after_a_failed_sync_none_succeeds() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk::start("disk").unwrap();
        let file = wait(disk.create_new(&dir.path().join("file"))).unwrap();
        wait(file.sync(Box::new(|| ()))).unwrap();
        faults::order(dir.path(), Operation::Sync, libc::EIO, 1);
        assert_eq!(wait(file.sync(Box::new(|| ()))).unwrap_err().raw_os_error(), Some(libc::EIO));
        let (written, synced) = file.write(buffer(b"more"), 32, 0, 0, Some(Box::new(|| ())));
        wait(written).1.unwrap();
        assert!(wait(synced.unwrap()).is_err());
        assert!(wait(file.clone().sync(Box::new(|| ()))).is_err());
        // Another file is not concerned.
        let other = wait(disk.create_new(&dir.path().join("other"))).unwrap();
        wait(other.sync(Box::new(|| ()))).unwrap();
    }

    #[test]
    fn a_write_that_fails_is_not_followed_by_a_sync() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk::start("disk").unwrap();
        let file = wait(disk.create_new(&dir.path().join("file"))).unwrap();
        faults::order(dir.path(), Operation::Write, libc::ENOSPC, 1);
        let (written, synced) = file.write(buffer(b"x"), 32, 0, 0, Some(Box::new(|| ())));
        let (buf, result) = wait(written);
        assert_eq!((&*buf, result.unwrap_err().raw_os_error()), (&b"x"[..], Some(libc::ENOSPC)));
        assert!(wait(synced.unwrap()).is_err());
        // The same write may be tried again.
        let (written, synced) = file.write(buf, 32, 0, 0, Some(Box::new(|| ())));
        wait(written).1.unwrap();
        wait(synced.unwrap()).unwrap();
    }

    #[test]
    fn goes_on_with_ordinary_io_where_direct_io_does_not_work() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let file = Opened::open(&path, true).unwrap();
        if !file.direct.load(Ordering::Relaxed) {
            return;
        }
        // What is not aligned is refused by direct I/O as some file systems refuse everything.
        let bytes = vec![7; BLOCK_BYTES + 1];
        file.write(&bytes[1..], 1).unwrap();
        assert!(!file.direct.load(Ordering::Relaxed));
        assert_eq!(std::fs::read(&path).unwrap()[1..], bytes[1..]);
    }

    #[test]
    fn on_memory_file_systems_too() {
        let Ok(dir) = tempfile::tempdir_in("/dev/shm") else { return };
        let disk = Disk::start("disk").unwrap();
        let file = wait(disk.create_new(&dir.path().join("file"))).unwrap();
        let (written, synced) = file.write(buffer(&[9; 5000]), 32, 0, 4096, Some(Box::new(|| ())));
        wait(written).1.unwrap();
        wait(synced.unwrap()).unwrap();
        assert_eq!(std::fs::read(dir.path().join("file")).unwrap()[4096..9096], [9; 5000]);
    }
}
