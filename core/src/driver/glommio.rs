//! glommio behind the driver's names.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::Path;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use ::glommio::io::{DmaBuffer, DmaFile, OpenOptions, PollState, PollableFd};
use ::glommio::{ExecutorJoinHandle, GlommioError, Latency, LocalExecutorBuilder, Placement, Shares, TaskQueueHandle};
use futures::FutureExt;
use futures::io::{AsyncRead, AsyncWrite};

use super::stream::{SocketOptions, set_options};
use super::{sockets, timers};
use crate::error::{Error, ErrorKind, Result};
use crate::log::BLOCK_BYTES;

/// Registered memory per shard. Small: what is registered counts against the limit on locked memory.
const IO_MEMORY_BYTES: usize = 64 << 10;
const RING_DEPTH: usize = 256;
/// glommio's preemption timer, set so far away that it never fires.
///
/// If it fires between the executor's look at its rings and its look at the task queues, the executor takes the queues for
/// empty and goes to sleep although tasks are ready to run; nothing wakes it then but a completion that happens to be
/// outstanding. A thread that is kept from its CPU for longer than the timer at just that place is enough: with 1 ms that
/// took a few hundred short runs on a busy machine, with 100 us a handful. Without the timer every completion that can end
/// the executor's round also gives it something to do. The price: a task must not keep itself ready for ever, for then no
/// completion is looked at. Whoever polls uses [`turn`], which lets the executor go round.
const PREEMPT: Duration = Duration::from_secs(3600);

thread_local! {
    static URGENT: Cell<Option<TaskQueueHandle>> = const { Cell::new(None) };
    static ALWAYS_READABLE: RefCell<Option<Rc<PollableFd<OwnedFd>>>> = const { RefCell::new(None) };
}

/// The system's error as it was: with its number, which tells a full disk from a broken one.
fn to_io(e: GlommioError<()>) -> io::Error {
    match e {
        GlommioError::IoError(source) | GlommioError::EnhancedIoError { source, .. } => source,
        e => io::Error::from(e),
    }
}

/// The thread of a shard.
pub struct ShardThread {
    handle: ExecutorJoinHandle<()>,
}

impl ShardThread {
    /// Waits for its end; an error if it panicked.
    pub fn join(self) -> Result<()> {
        self.handle.join().map_err(|e| Error::new(ErrorKind::Internal, format!("a shard's thread ended badly: {e}")))
    }
}

/// Starts a shard's thread and runs `main` on it. All signals but those of faults are blocked there: the host's handlers
/// run on the host's threads, and writing to a closed connection is an error instead of the process's end.
///
/// # Errors
/// If there can be no thread. What happens on it later is for `main` to tell.
pub fn spawn_shard<G, F>(name: &str, cpu: Option<usize>, main: G) -> Result<ShardThread>
where
    G: FnOnce() -> F + Send + 'static,
    F: Future<Output = ()> + 'static,
{
    let placement = cpu.map_or(Placement::Unbound, Placement::Fixed);
    let _mask = BlockedSignals::new();
    let handle = LocalExecutorBuilder::new(placement)
        .name(name)
        .io_memory(IO_MEMORY_BYTES)
        .ring_depth(RING_DEPTH)
        .preempt_timer(PREEMPT)
        .spawn(move || async move {
            let queue =
                ::glommio::executor().create_task_queue(Shares::Static(2000), Latency::Matters(PREEMPT), "urgent");
            URGENT.set(Some(queue));
            ALWAYS_READABLE.set(always_readable());
            main().await;
            sockets::close().await;
            timers::close().await;
            ALWAYS_READABLE.set(None);
        })
        .map_err(|e| Error::new(ErrorKind::Io, format!("cannot start the thread of {name}: {e}")))?;
    Ok(ShardThread { handle })
}

/// Blocks the signals of the calling thread until dropped; threads started meanwhile inherit that.
pub(crate) struct BlockedSignals(libc::sigset_t);

impl BlockedSignals {
    pub(crate) fn new() -> BlockedSignals {
        // SAFETY: plain bits that the next calls fill in.
        let (mut all, mut old) =
            unsafe { (std::mem::zeroed::<libc::sigset_t>(), std::mem::zeroed::<libc::sigset_t>()) };
        // SAFETY: both sets are valid; the calls only change this thread's mask.
        unsafe {
            libc::sigfillset(&mut all);
            for fault in [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGTRAP, libc::SIGABRT] {
                libc::sigdelset(&mut all, fault);
            }
            libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut old);
        }
        BlockedSignals(old)
    }
}

impl Drop for BlockedSignals {
    fn drop(&mut self) {
        // SAFETY: the set was filled in by `new`.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &self.0, std::ptr::null_mut()) };
    }
}

/// A task of a shard. Await it rather than drop or cancel it before its end: a cancelled task leaves its memory behind.
pub type Task<T> = ::glommio::Task<T>;

/// Runs a future as a task of this shard.
pub fn spawn<T: 'static>(future: impl Future<Output = T> + 'static) -> Task<T> {
    ::glommio::spawn_local(future)
}

/// Runs a future as a task that goes before the ordinary ones.
pub fn spawn_urgent<T: 'static>(future: impl Future<Output = T> + 'static) -> Task<T> {
    match URGENT.get() {
        // The queue is made before anything runs on the shard and never removed.
        Some(queue) => match ::glommio::spawn_local_into(Box::pin(future), queue) {
            Ok(task) => task,
            Err(e) => unreachable!("the urgent queue is gone: {e}"),
        },
        None => spawn(future),
    }
}

/// The runtime's own timer; see [`super::timers`].
pub(super) struct Timer {
    when: Instant,
    armed: Option<::glommio::timer::Timer>,
}

impl Timer {
    /// Ready at a time.
    pub(super) fn until(when: Instant) -> Timer {
        Timer { when, armed: None }
    }
}

impl Future for Timer {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let left = self.when.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Poll::Ready(());
        }
        // A new one each time: with each poll the runtime enters a timer once more, and takes only the last entry out again.
        self.armed = None;
        let mut timer = ::glommio::timer::Timer::new(left);
        let polled = Pin::new(&mut timer).poll(cx).map(drop);
        self.armed = Some(timer);
        polled
    }
}

/// Lets the executor look at completions, timers and wake-ups, and other tasks run. Costs some microseconds: it is a trip
/// through the ring.
pub async fn turn() {
    let always = ALWAYS_READABLE.with_borrow(Clone::clone);
    match always {
        Some(fd) => {
            let _ = fd.readable().await;
        }
        // Without the descriptor (none were left when the shard started) the timer's resolution has to do.
        None => timers::sleep(Duration::from_micros(100)).await,
    }
}

/// An eventfd that is readable for ever, so that waiting for it ends with the ring's next round.
fn always_readable() -> Option<Rc<PollableFd<OwnedFd>>> {
    PollableFd::new(super::eventfd(1).ok()?).ok().map(Rc::new)
}

/// Waits for a descriptor to be readable, again and again.
pub(super) struct Readable {
    fd: PollableFd<RawFd>,
    state: PollState,
    armed: bool,
}

impl Readable {
    /// The descriptor must stay open as long as this is.
    pub(super) fn new(fd: RawFd) -> io::Result<Readable> {
        let fd = PollableFd::new(fd).map_err(to_io)?;
        Ok(Readable { fd, state: PollState::new(), armed: false })
    }

    /// Ready if it was readable since it was asked for; to ask again is to wait anew.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = self.fd.poll_readable(cx, &mut self.state).map_err(to_io);
        self.armed = polled.is_pending();
        polled
    }

    /// Whether the kernel waits for it.
    pub(super) fn is_armed(&self) -> bool {
        self.armed
    }
}

/// Runs a closure that may block on the shard's helper thread. A panic in it is an error.
///
/// # Errors
/// What the closure says, or [`ErrorKind::Internal`] if it panicked.
pub async fn blocking<T: Send + 'static>(f: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    ::glommio::executor()
        .spawn_blocking(move || std::panic::catch_unwind(std::panic::AssertUnwindSafe(f)))
        .await
        .unwrap_or_else(|_| Err(Error::new(ErrorKind::Internal, "a helper panicked")))
}

/// Memory that direct I/O can use, aligned to a block.
pub type Buffer = DmaBuffer;

/// A buffer of at least `bytes`, of a shard's thread.
pub fn allocate_buffer(bytes: usize) -> Buffer {
    ::glommio::allocate_dma_buffer(bytes)
}

/// A file for the log: direct I/O where the file system has it, ordinary I/O elsewhere.
#[derive(Debug)]
pub struct DiskFile(DmaFile);

impl DiskFile {
    /// Opens or creates a file for writing, keeping what it has.
    pub async fn open_or_create(path: &Path) -> io::Result<DiskFile> {
        Self::opened(OpenOptions::new().read(true).write(true).create(true).mode(super::fs::FILE_MODE).dma_open(path))
            .await
    }

    /// Opens a file for reading.
    pub async fn open(path: &Path) -> io::Result<DiskFile> {
        Self::opened(DmaFile::open(path)).await
    }

    /// The runtime asks for the kind of the file system by the file's name once it has opened it, and panics if somebody
    /// has removed it meanwhile.
    async fn opened(opening: impl Future<Output = ::glommio::Result<DmaFile, ()>>) -> io::Result<DiskFile> {
        match std::panic::AssertUnwindSafe(opening).catch_unwind().await {
            Ok(opened) => opened.map(DiskFile).map_err(to_io),
            Err(_) => Err(io::Error::from_raw_os_error(libc::ENOENT)),
        }
    }

    /// Writes a whole buffer at a position; both are multiples of a block.
    pub async fn write_at(&self, buf: Rc<Buffer>, position: u64) -> io::Result<()> {
        let len = buf.len();
        let mut wrote = self.0.write_rc_at(buf.clone(), position).await.map_err(to_io)?;
        // A write stops short where the space or a limit ends; writing what is left tells which it is.
        while wrote < len {
            let from = wrote / BLOCK_BYTES * BLOCK_BYTES;
            let mut rest = ::glommio::allocate_dma_buffer(len - from);
            rest.as_bytes_mut().copy_from_slice(&buf.as_bytes()[from..]);
            let more = self.0.write_at(rest, position + from as u64).await.map_err(to_io)?;
            if from + more <= wrote {
                return Err(io::Error::new(io::ErrorKind::WriteZero, format!("wrote {wrote} of {len} bytes")));
            }
            wrote = from + more;
        }
        Ok(())
    }

    /// Reads up to `len` bytes at a position; fewer at the end of the file. Both are multiples of a block.
    pub async fn read_at(&self, position: u64, len: usize, out: &mut Vec<u8>) -> io::Result<()> {
        let read = self.0.read_at_aligned(position, len).await.map_err(to_io)?;
        out.extend_from_slice(&read);
        Ok(())
    }

    /// Makes what was written durable.
    pub async fn sync_data(&self) -> io::Result<()> {
        self.0.fdatasync().await.map_err(to_io)
    }

    /// Closes it.
    pub async fn close(self) -> io::Result<()> {
        self.0.close().await.map_err(to_io)
    }
}

/// A TCP connection of a shard.
pub struct TcpStream(::glommio::net::TcpStream);

impl TcpStream {
    /// Connects. The caller sets the limit: the runtime's own variant with a time-out keeps the waiting task's memory for
    /// ever.
    pub async fn connect(address: SocketAddr, options: &SocketOptions) -> io::Result<TcpStream> {
        let stream = ::glommio::net::TcpStream::connect(address).await.map_err(to_io)?;
        // SAFETY: the stream owns the descriptor and outlives the borrow.
        let fd = unsafe { BorrowedFd::borrow_raw(stream.as_raw_fd()) };
        set_options(&fd, options)?;
        Ok(TcpStream(stream))
    }
}

/// A connection of a shard over a Unix socket.
pub struct UnixStream(::glommio::net::UnixStream);

impl UnixStream {
    /// Connects. The caller sets the limit.
    pub async fn connect(path: &Path) -> io::Result<UnixStream> {
        ::glommio::net::UnixStream::connect(path).await.map(UnixStream).map_err(to_io)
    }
}

macro_rules! byte_stream {
    ($name:ident) => {
        impl AsyncRead for $name {
            fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
                Pin::new(&mut self.0).poll_read(cx, buf)
            }
        }

        impl AsyncWrite for $name {
            fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
                Pin::new(&mut self.0).poll_write(cx, buf)
            }

            fn poll_write_vectored(
                mut self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                bufs: &[io::IoSlice<'_>],
            ) -> Poll<io::Result<usize>> {
                Pin::new(&mut self.0).poll_write_vectored(cx, bufs)
            }

            fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                Pin::new(&mut self.0).poll_flush(cx)
            }

            fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                Pin::new(&mut self.0).poll_close(cx)
            }
        }
    };
}

byte_stream!(TcpStream);
byte_stream!(UnixStream);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_removed_while_it_is_opened_is_not_there() {
        let opened = DiskFile::opened(async { panic!("as the runtime does") });
        let error = futures::executor::block_on(opened).expect_err("no file");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
