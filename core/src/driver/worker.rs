//! A thread for one function of the host: it may block, and nothing else waits for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::spawn_helper;
use crate::error::Result;

/// So long a thread that has nothing to do may take to end, however short the time for closing is.
const ENDING: Duration = Duration::from_millis(100);
/// The stack of such a thread: that of threads in general, for what the host does there is not known.
const STACK_BYTES: usize = 2 << 20;

/// See the module. It ends when every [`Worker`] and [`Giver`] of it is dropped and the call under way has returned.
pub(crate) struct Worker<T> {
    giver: Giver<T>,
    thread: JoinHandle<()>,
    /// Closed when the thread has let go of the function.
    ended: Receiver<()>,
}

/// Gives work to a [`Worker`].
pub(crate) struct Giver<T> {
    queue: SyncSender<T>,
    stop: Arc<AtomicBool>,
}

impl<T> Clone for Giver<T> {
    fn clone(&self) -> Self {
        Giver { queue: self.queue.clone(), stop: self.stop.clone() }
    }
}

impl<T> Giver<T> {
    /// Hands over a piece of work, if no more than the worker's bound wait already.
    pub(crate) fn give(&self, work: T) -> std::result::Result<(), TrySendError<T>> {
        self.queue.try_send(work)
    }
}

impl<T: Send + 'static> Worker<T> {
    /// Starts a thread that does one piece of work after the other, of which `waiting_max` may wait. `work` must not panic.
    ///
    /// # Errors
    /// If there can be no thread.
    pub(crate) fn start(name: &str, waiting_max: usize, mut work: impl FnMut(T) + Send + 'static) -> Result<Worker<T>> {
        let (queue, waiting) = sync_channel::<T>(waiting_max);
        let (ending, ended) = sync_channel::<()>(0);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let run = move || {
            for piece in waiting {
                if !stopped.load(Ordering::Acquire) {
                    work(piece);
                }
            }
            drop(work);
            drop(ending);
        };
        let thread = spawn_helper(&format!("tw-{name}"), STACK_BYTES, &[], run)?;
        Ok(Worker { giver: Giver { queue, stop }, thread, ended })
    }

    pub(crate) fn giver(&self) -> &Giver<T> {
        &self.giver
    }

    /// Has what waits dropped instead of done.
    pub(crate) fn stop(&self) {
        self.giver.stop.store(true, Ordering::Release);
    }

    /// Ends the thread; one that is still at work at the deadline is left to end by itself. Whether it has ended, or is the
    /// one that calls.
    pub(crate) fn end(self, deadline: Instant) -> bool {
        self.stop();
        let Worker { giver, thread, ended } = self;
        drop(giver);
        // Who closes the engine from within his function does not wait for himself.
        if thread.thread().id() == std::thread::current().id() {
            return true;
        }
        let deadline = deadline.max(Instant::now() + ENDING);
        // Nothing is ever sent: an answer is that the other side is gone.
        match ended.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Err(RecvTimeoutError::Timeout) => false,
            _ => {
                drop(thread.join());
                true
            }
        }
    }
}
