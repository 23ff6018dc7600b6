//! Tasks, waiting, and the thread of a shard.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};

use futures::FutureExt;

use super::glommio as ring;
#[cfg(feature = "sim")]
use super::sim;
use super::timers;
use crate::error::{Error, ErrorKind, Result};

/// The thread of a shard.
pub enum ShardThread {
    /// Of the io_uring runtime.
    Ring(ring::ShardThread),
    /// Of a simulation.
    #[cfg(feature = "sim")]
    Sim(sim::Thread),
}

impl ShardThread {
    /// Waits for its end; an error if it panicked.
    pub fn join(self) -> Result<()> {
        match self {
            ShardThread::Ring(t) => t.join(),
            #[cfg(feature = "sim")]
            ShardThread::Sim(t) => {
                while !t.is_done() && sim::current().is_some_and(|w| w.step()) {}
                Ok(())
            }
        }
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
    #[cfg(feature = "sim")]
    if let Some(world) = sim::current() {
        return Ok(ShardThread::Sim(sim::spawn_shard(&world, main())));
    }
    ring::spawn_shard(name, cpu, main).map(ShardThread::Ring)
}

/// A task of a shard. Await it rather than drop or cancel it before its end: a cancelled task of the io_uring runtime
/// leaves its memory behind.
pub enum Task<T> {
    /// Of the io_uring runtime.
    Ring(ring::Task<T>),
    /// Of a simulation.
    #[cfg(feature = "sim")]
    Sim(sim::Join<T>),
}

impl<T: 'static> Task<T> {
    /// Lets it run without anybody who awaits it. It must end by itself, or when it is told to.
    pub fn detach(self) {
        match self {
            Task::Ring(t) => drop(t.detach()),
            // Tasks of a simulation run whether they are awaited or not.
            #[cfg(feature = "sim")]
            Task::Sim(_) => {}
        }
    }
}

impl<T> Future for Task<T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        match self.get_mut() {
            Task::Ring(t) => Pin::new(t).poll(cx),
            #[cfg(feature = "sim")]
            Task::Sim(t) => Pin::new(t).poll(cx),
        }
    }
}

thread_local! {
    static TASKS: Arc<AtomicU64> = Arc::default();
}

/// How many tasks this thread has, those of a simulation aside. Any thread may read it.
pub fn task_count() -> Arc<AtomicU64> {
    TASKS.with(Arc::clone)
}

/// One task of this thread, for as long as its future is there.
struct Counted;

impl Counted {
    fn new() -> Counted {
        Counted::add(1);
        Counted
    }

    fn add(n: u64) {
        // Only this thread writes. Where its variables are gone already, nobody reads any more.
        let _ = TASKS.try_with(|tasks| {
            tasks.store(tasks.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
        });
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        Counted::add(u64::MAX);
    }
}

fn counted<T>(future: impl Future<Output = T>) -> impl Future<Output = T> {
    let counted = Counted::new();
    // Not an async block, which would hold the future twice.
    future.map(move |out| {
        drop(counted);
        out
    })
}

/// Runs a future as a task of this shard.
pub fn spawn<T: 'static>(future: impl Future<Output = T> + 'static) -> Task<T> {
    #[cfg(feature = "sim")]
    if let Some(world) = sim::current() {
        return Task::Sim(world.spawn(future));
    }
    Task::Ring(ring::spawn(counted(future)))
}

/// Runs a future as a task that goes before the ordinary ones.
pub fn spawn_urgent<T: 'static>(future: impl Future<Output = T> + 'static) -> Task<T> {
    #[cfg(feature = "sim")]
    if let Some(world) = sim::current() {
        return Task::Sim(world.spawn(future));
    }
    Task::Ring(ring::spawn_urgent(counted(future)))
}

/// See [`sleep`].
pub enum Sleep {
    /// Of the io_uring runtime.
    Ring(timers::Sleep),
    /// Of a simulation.
    #[cfg(feature = "sim")]
    Sim(sim::Sleep),
}

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        match self.get_mut() {
            Sleep::Ring(s) => Pin::new(s).poll(cx),
            #[cfg(feature = "sim")]
            Sleep::Sim(s) => Pin::new(s).poll(cx),
        }
    }
}

/// Waits.
pub fn sleep(duration: Duration) -> Sleep {
    sleep_until(super::now() + duration)
}

/// Waits for a time.
pub fn sleep_until(when: Instant) -> Sleep {
    #[cfg(feature = "sim")]
    if let Some(world) = sim::current() {
        return Sleep::Sim(world.sleep_until(when));
    }
    Sleep::Ring(timers::sleep_until(when))
}

/// Lets the runtime look at completions, timers and wake-ups, and other tasks run. Costs some microseconds: it is a trip
/// through the ring.
pub async fn turn() {
    #[cfg(feature = "sim")]
    if sim::active() {
        return sim::turn().await;
    }
    ring::turn().await;
}

/// Whether it makes sense to watch memory for what another thread writes.
#[inline]
pub fn spins() -> bool {
    #[cfg(feature = "sim")]
    if sim::active() {
        return false;
    }
    true
}

/// Runs a closure that may block on the shard's helper thread. A panic in it is an error.
///
/// # Errors
/// What the closure says, or [`crate::ErrorKind::Internal`] if it panicked.
pub async fn blocking<T: Send + 'static>(f: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    #[cfg(feature = "sim")]
    if let Some(world) = sim::current() {
        world.pause(world.random() % 1_000_000).await;
        let out = f();
        world.pause(world.random() % 1_000_000).await;
        return out;
    }
    ring::blocking(f).await
}

/// Starts a thread beside the shards that may block, on any of these CPUs. Signals are as on a shard's thread.
///
/// # Errors
/// If there can be no thread.
pub fn spawn_helper(
    name: &str,
    stack_bytes: usize,
    cpus: &[usize],
    work: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>> {
    let cpus = cpus.to_vec();
    let _mask = ring::BlockedSignals::new();
    let thread = std::thread::Builder::new().name(name.to_owned()).stack_size(stack_bytes);
    let work = move || {
        run_on(&cpus);
        work();
    };
    thread.spawn(work).map_err(|e| Error::new(ErrorKind::Io, format!("cannot start the thread of {name}: {e}")))
}

/// Has the calling thread run on these CPUs; if that is refused it stays where it is.
fn run_on(cpus: &[usize]) {
    // SAFETY: plain bits that the next lines fill in.
    let mut set = unsafe { std::mem::zeroed::<libc::cpu_set_t>() };
    for cpu in cpus.iter().filter(|cpu| **cpu < libc::CPU_SETSIZE as usize) {
        // SAFETY: the set is valid, and the number is within it.
        unsafe { libc::CPU_SET(*cpu, &mut set) };
    }
    // SAFETY: the set is valid and of the size given; the call only concerns the calling thread.
    unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set) };
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.unpark();
    }
}

thread_local! {
    static UNPARK: Waker = Waker::from(Arc::new(Unpark(std::thread::current())));
}

/// Runs a future on the calling thread, which is none of the runtime's, at most until `deadline`; `None` if it was not ready
/// by then.
pub fn block_on<F: Future>(future: F, deadline: Option<Instant>) -> Option<F::Output> {
    let mut future = std::pin::pin!(future);
    let waker = UNPARK.with(Waker::clone);
    let mut cx = Context::from_waker(&waker);
    loop {
        if let Poll::Ready(out) = future.as_mut().poll(&mut cx) {
            return Some(out);
        }
        let left = deadline.map(|d| d.saturating_duration_since(super::now()));
        if left.is_some_and(|left| left.is_zero()) {
            return None;
        }
        #[cfg(feature = "sim")]
        if let Some(world) = sim::current() {
            world.let_happen(left);
            continue;
        }
        match left {
            None => std::thread::park(),
            Some(left) => std::thread::park_timeout(left),
        }
    }
}

/// Whether work that takes long can be given to a thread of its own: the simulation has only one.
pub fn has_threads() -> bool {
    #[cfg(feature = "sim")]
    if super::sim::current().is_some() {
        return false;
    }
    true
}
