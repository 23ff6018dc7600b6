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

pub use clock::{now, random_u64, since, wall_ns};
pub use disk::{DISK_THREADS, Disk};
pub use file::{DiskFile, allocate_buffer};
pub use notify::Notify;
pub use probe::{probe, usable_cpus};
pub use sockets::{SocketCounts, socket_counts};
pub use stream::{SocketOptions, Sockets, Stream};
pub use task::{
    ShardThread, Task, block_on, blocking, has_threads, sleep, spawn, spawn_helper, spawn_shard, spawn_urgent, spins,
    task_count, turn,
};

use std::future::Future;
use std::pin::pin;
use std::time::{Duration, Instant};

/// Runs `future`, at most until `deadline`; `None` if it was not done by then (it is dropped).
pub async fn until<F: Future>(deadline: Instant, future: F) -> Option<F::Output> {
    let left = deadline.saturating_duration_since(now());
    let timer = pin!(sleep(left));
    match futures::future::select(pin!(future), timer).await {
        futures::future::Either::Left((out, _)) => Some(out),
        futures::future::Either::Right(_) => None,
    }
}

/// Runs `future`, at most for `limit`.
pub async fn within<F: Future>(limit: Duration, future: F) -> Option<F::Output> {
    until(now() + limit, future).await
}
