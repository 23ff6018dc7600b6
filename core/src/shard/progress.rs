//! How far a shard has come, and who waits for it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use crossbeam_utils::CachePadded;

use super::sync::{AtomicU64, AtomicUsize, Mutex, OnceLock, Ordering, fence};
use crate::driver::block_on;
use crate::error::{Error, ErrorKind, Result};
use crate::log::Ack;

/// Ring positions reached, at each ack level.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    written: CachePadded<AtomicU64>,
    synced: CachePadded<AtomicU64>,
    failed: OnceLock<Error>,
    /// There are stretches of which `faults` tells. It never is of a shard, so the model check need not look at it.
    faulty: std::sync::atomic::AtomicBool,
    /// Stretches that will never reach a level, though those behind them may; the latest last.
    faults: Mutex<Vec<Fault>>,
    /// What the log waits for, if it waits (a full disk).
    stalled: Mutex<Option<Error>>,
    waiting: CachePadded<AtomicUsize>,
    waiters: Mutex<Vec<Waiter>>,
    next_waiter: AtomicU64,
}

/// So many stretches are remembered. Whoever waits is told of one when it comes up.
const FAULTS_MAX: usize = 1024;

/// Positions above `after`, up to `through`, that will not reach the level.
#[derive(Debug)]
struct Fault {
    ack: Ack,
    after: u64,
    through: u64,
    error: Error,
}

#[derive(Debug)]
struct Waiter {
    id: u64,
    position: u64,
    ack: Ack,
    waker: Waker,
}

impl Progress {
    fn reached(&self, ack: Ack) -> u64 {
        match ack {
            Ack::Memory => u64::MAX,
            Ack::Written => self.written.load(Ordering::Acquire),
            Ack::Synced => self.synced.load(Ordering::Acquire),
        }
    }

    /// The shard has written everything up to this position.
    pub(crate) fn advance_written(&self, written: u64) {
        if self.written.fetch_max(written, Ordering::AcqRel) < written {
            self.wake(|w| w.ack == Ack::Written && w.position <= written);
        }
    }

    /// Everything up to this position is durable. Called by any thread.
    pub(crate) fn advance_synced(&self, synced: u64) {
        if self.synced.fetch_max(synced, Ordering::AcqRel) < synced {
            self.wake(|w| w.ack == Ack::Synced && w.position <= synced);
        }
    }

    pub(crate) fn written(&self) -> u64 {
        self.written.load(Ordering::Acquire)
    }

    fn wake(&self, due: impl Fn(&Waiter) -> bool) {
        // Pairs with the fence in `poll`: either the waiter sees the new position, or this thread sees the waiter.
        fence(Ordering::SeqCst);
        if self.waiting.load(Ordering::Relaxed) == 0 {
            return;
        }
        let mut ready = Vec::new();
        {
            let mut waiters = self.waiters.lock();
            let mut i = 0;
            while i < waiters.len() {
                if due(&waiters[i]) {
                    ready.push(waiters.swap_remove(i).waker);
                } else {
                    i += 1;
                }
            }
            self.waiting.store(waiters.len(), Ordering::Relaxed);
        }
        ready.into_iter().for_each(Waker::wake);
    }

    /// Nothing more will be reached; everybody who waits gets this error, after `close` has seen to it that nothing more is
    /// accepted.
    pub(crate) fn fail(&self, error: Error, close: impl FnOnce()) {
        let _ = self.failed.set(error);
        close();
        self.wake(|_| true);
    }

    /// What is above `after`, up to `through`, and asked for this level will never reach it. To be told before anything behind
    /// it is said to have.
    pub(crate) fn fault(&self, ack: Ack, after: u64, through: u64, error: Error) {
        {
            let mut faults = self.faults.lock();
            if faults.len() == FAULTS_MAX {
                faults.remove(0);
            }
            faults.push(Fault { ack, after, through, error });
            self.faulty.store(true, Ordering::Release);
        }
        self.wake(|w| w.ack == ack && w.position > after && w.position <= through);
    }

    /// Why a position will never reach a level, if it is known of this one by itself.
    fn fault_at(&self, position: u64, ack: Ack) -> Option<Error> {
        if !self.faulty.load(Ordering::Acquire) {
            return None;
        }
        let faults = self.faults.lock();
        let of = |f: &&Fault| ack == f.ack && position > f.after && position <= f.through;
        faults.iter().find(of).map(|f| f.error.clone())
    }

    pub(crate) fn failure(&self) -> Option<&Error> {
        self.failed.get()
    }

    pub(crate) fn set_stalled(&self, error: Option<Error>) {
        *self.stalled.lock() = error;
    }

    pub(crate) fn stalled(&self) -> Option<Error> {
        self.stalled.lock().clone()
    }

    fn poll(&self, position: u64, ack: Ack, id: &mut Option<u64>, cx: &Context<'_>) -> Poll<Result<()>> {
        if self.reached(ack) >= position {
            return Poll::Ready(self.fault_at(position, ack).map_or(Ok(()), Err));
        }
        {
            let mut waiters = self.waiters.lock();
            let known = id.and_then(|id| waiters.iter_mut().find(|w| w.id == id));
            match known {
                Some(w) => w.waker.clone_from(cx.waker()),
                None => {
                    let new = self.next_waiter.fetch_add(1, Ordering::Relaxed);
                    *id = Some(new);
                    waiters.push(Waiter { id: new, position, ack, waker: cx.waker().clone() });
                }
            }
            self.waiting.store(waiters.len(), Ordering::Relaxed);
        }
        fence(Ordering::SeqCst);
        if let Some(e) = self.fault_at(position, ack) {
            return Poll::Ready(Err(e));
        }
        if self.reached(ack) >= position {
            return Poll::Ready(Ok(()));
        }
        match self.failed.get() {
            Some(e) => Poll::Ready(Err(e.clone())),
            None => Poll::Pending,
        }
    }

    fn forget(&self, id: u64) {
        let mut waiters = self.waiters.lock();
        waiters.retain(|w| w.id != id);
        self.waiting.store(waiters.len(), Ordering::Relaxed);
    }
}

/// What an event came in by.
#[derive(Clone, Debug)]
pub(crate) enum Way {
    /// The ring of a shard.
    Shard(Arc<super::Shared>),
    /// The ring to an engine in another process, which tells only of the level that was asked for.
    Client(Arc<Progress>, Ack),
}

impl Way {
    fn progress(&self) -> &Progress {
        match self {
            Way::Shard(shard) => &shard.progress,
            Way::Client(progress, _) => progress,
        }
    }

    /// The level whose progress tells of `ack`.
    pub(crate) fn level(&self, ack: Ack) -> Result<Ack> {
        match self {
            Way::Client(_, asked) if ack > *asked => {
                Err(Error::new(ErrorKind::InvalidArgument, format!("the event was published at `{}`", asked.name()))
                    .remedy("ask for the level when it is published: the engine is another process's"))
            }
            Way::Client(_, asked) if ack > Ack::Memory => Ok(*asked),
            _ => Ok(ack),
        }
    }

    /// Whether positions of both are of one ring.
    pub(crate) fn is(&self, other: &Way) -> bool {
        std::ptr::eq(self.progress(), other.progress())
    }
}

/// A proof that an event was accepted; tells when it has reached an ack level.
#[derive(Debug, Clone)]
pub struct Receipt {
    pub(crate) way: Way,
    pub(crate) position: u64,
    pub(crate) duplicate: bool,
}

impl Receipt {
    pub(crate) fn new(shard: Arc<super::Shared>, position: u64) -> Receipt {
        Receipt { way: Way::Shard(shard), position, duplicate: false }
    }

    /// Whether the event is a repeat: this is the receipt of the one that was accepted before.
    pub fn is_duplicate(&self) -> bool {
        self.duplicate
    }

    /// Whether the event has reached this level.
    pub fn is(&self, ack: Ack) -> bool {
        let (progress, Ok(ack)) = (self.way.progress(), self.way.level(ack)) else { return false };
        progress.reached(ack) >= self.position && progress.fault_at(self.position, ack).is_none()
    }

    /// The ring of its shard up to here has reached this level.
    pub(crate) fn reached_position(&self, ack: Ack) -> u64 {
        self.way.progress().reached(ack)
    }

    /// Why the ring's record up to this position will never reach the level, where that is known of it alone.
    pub(crate) fn fault_at(&self, position: u64, ack: Ack) -> Option<Error> {
        self.way.progress().fault_at(position, ack)
    }

    /// A future that is ready once the event has reached this level. It may be awaited on any executor.
    pub fn reached(&self, ack: Ack) -> ReceiptFuture {
        ReceiptFuture { receipt: self.clone(), ack, waiter: None }
    }

    /// Blocks until the event has reached this level.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] if `deadline` passes first (the event stays accepted), [`ErrorKind::LogFailed`] or
    /// [`ErrorKind::Closed`] if it will never be reached.
    pub fn wait(&self, ack: Ack, deadline: Option<Instant>) -> Result<()> {
        if self.is(ack) {
            return Ok(());
        }
        block_on(self.reached(ack), deadline).unwrap_or_else(|| {
            let e = Error::new(
                ErrorKind::Timeout,
                format!(
                    "the event was accepted, but is not {} yet",
                    match ack {
                        Ack::Synced => "durable",
                        Ack::Memory | Ack::Written => "written",
                    }
                ),
            );
            Err(match self.way.progress().stalled() {
                Some(why) => e.remedy(format!("the log waits: {why}")),
                None => e.remedy("wait again, or give more time"),
            })
        })
    }
}

/// See [`Receipt::reached`].
#[derive(Debug)]
pub struct ReceiptFuture {
    receipt: Receipt,
    ack: Ack,
    waiter: Option<u64>,
}

impl ReceiptFuture {
    /// Of which event.
    pub(crate) fn receipt(&self) -> &Receipt {
        &self.receipt
    }
}

impl Future for ReceiptFuture {
    type Output = Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let this = &mut *self;
        let way = &this.receipt.way;
        match way.level(this.ack) {
            Ok(ack) => way.progress().poll(this.receipt.position, ack, &mut this.waiter, cx),
            Err(e) => Poll::Ready(Err(e)),
        }
    }
}

impl Drop for ReceiptFuture {
    fn drop(&mut self) {
        if let Some(id) = self.waiter {
            self.receipt.way.progress().forget(id);
        }
    }
}
