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
    /// What the log waits for, if it waits (a full disk).
    stalled: Mutex<Option<Error>>,
    waiting: CachePadded<AtomicUsize>,
    waiters: Mutex<Vec<Waiter>>,
    next_waiter: AtomicU64,
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
            return Poll::Ready(Ok(()));
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

/// A proof that an event was accepted; tells when it has reached an ack level.
#[derive(Debug, Clone)]
pub struct Receipt {
    pub(crate) shard: Arc<super::Shared>,
    pub(crate) position: u64,
    pub(crate) duplicate: bool,
}

impl Receipt {
    pub(crate) fn new(shard: Arc<super::Shared>, position: u64) -> Receipt {
        Receipt { shard, position, duplicate: false }
    }

    /// Whether the event is a repeat: this is the receipt of the one that was accepted before.
    pub fn is_duplicate(&self) -> bool {
        self.duplicate
    }

    /// Whether the event has reached this level.
    pub fn is(&self, ack: Ack) -> bool {
        self.shard.progress.reached(ack) >= self.position
    }

    /// The ring of its shard up to here has reached this level.
    pub(crate) fn reached_position(&self, ack: Ack) -> u64 {
        self.shard.progress.reached(ack)
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
            Err(match self.shard.progress.stalled() {
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
        this.receipt.shard.progress.poll(this.receipt.position, this.ack, &mut this.waiter, cx)
    }
}

impl Drop for ReceiptFuture {
    fn drop(&mut self) {
        if let Some(id) = self.waiter {
            self.receipt.shard.progress.forget(id);
        }
    }
}
