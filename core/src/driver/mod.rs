//! The runtime: the only code that knows what drives a shard. Files, sockets, timers, tasks and the shard's thread.
//!
//! Everything else is written against the names exported here, so that a portable driver can stand in where io_uring is
//! refused.

mod clock;
pub mod disk;
mod file;
pub mod fs;
mod glommio;
mod notify;
mod probe;
#[cfg(feature = "sim")]
pub mod sim;
mod sockets;
mod stream;
mod task;
mod timers;
mod worker;

pub(crate) use clock::use_clock;
pub use clock::{WallClock, now, random_u64, since, system_ns, wall_ns};
pub use disk::{DISK_THREADS, Disk};
pub use file::{DiskFile, allocate_buffer};
pub(crate) use glommio::BlockedSignals;
pub use notify::Notify;
pub use probe::{probe, usable_cpus};
pub use sockets::{SocketCounts, be_prompt, socket_counts};
pub use stream::{SocketOptions, Sockets, Stream};
pub use task::{
    ShardThread, Sleep, Task, block_on, blocking, has_threads, sleep, sleep_until, spawn, spawn_helper, spawn_shard,
    spawn_urgent, spins, task_count, turn,
};
pub(crate) use worker::{Giver, Worker};

use std::future::Future;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use pin_project_lite::pin_project;

/// An eventfd that begins with this count, does not block, and is not handed on to programs that are started.
pub(crate) fn eventfd(count: u32) -> io::Result<OwnedFd> {
    // SAFETY: the call takes no pointers.
    let fd = unsafe { libc::eventfd(count, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just made and belongs to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Runs `future`, at most until `deadline`; `None` if it was not done by then (it is dropped).
pub fn until<F: Future>(deadline: Instant, future: F) -> Until<F> {
    Until { future: Some(future), timer: sleep_until(deadline) }
}

pin_project! {
    /// See [`until`]. Not an async function, which would hold the future twice: as an argument and where it is pinned.
    #[must_use = "futures do nothing unless they are awaited"]
    pub struct Until<F> {
        #[pin]
        future: Option<F>,
        timer: Sleep,
    }
}

impl<F: Future> Future for Until<F> {
    type Output = Option<F::Output>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let Some(future) = this.future.as_mut().as_pin_mut() else { return Poll::Ready(None) };
        if let Poll::Ready(out) = future.poll(cx) {
            return Poll::Ready(Some(out));
        }
        ready!(Pin::new(this.timer).poll(cx));
        this.future.set(None);
        Poll::Ready(None)
    }
}

/// Runs `future`, at most for `limit`.
pub fn within<F: Future>(limit: Duration, future: F) -> Until<F> {
    until(now() + limit, future)
}
