//! Waking threads that wait for something to change.

use crate::lock::Mutex;
use std::future::{Future, poll_fn};
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Poll, Waker};

/// Rung by anyone when something has changed; any number of threads or tasks wait for the next time.
#[derive(Debug, Default)]
pub(crate) struct Bell {
    rings: AtomicU64,
    waiting: Mutex<Vec<Waker>>,
}

impl Bell {
    /// Tells everybody who waits.
    pub(crate) fn ring(&self) {
        self.rings.fetch_add(1, Ordering::SeqCst);
        let waiting = std::mem::take(&mut *self.waiting.lock());
        waiting.into_iter().for_each(Waker::wake);
    }

    /// How often it was rung. To be asked before one looks at what may change.
    pub(crate) fn rings(&self) -> u64 {
        self.rings.load(Ordering::SeqCst)
    }

    /// Ready once it was rung more often than that.
    pub(crate) fn rung_since(&self, rings: u64) -> impl Future<Output = ()> + '_ {
        poll_fn(move |cx| {
            if self.rings() != rings {
                return Poll::Ready(());
            }
            {
                let mut waiting = self.waiting.lock();
                if !waiting.iter().any(|w| w.will_wake(cx.waker())) {
                    waiting.push(cx.waker().clone());
                }
            }
            // Rung between the two: whoever did may not have seen the waker.
            if self.rings() == rings { Poll::Pending } else { Poll::Ready(()) }
        })
    }
}
