//! The shard's ring, its wake-ups and its receipts under loom, which runs a model in every order that threads can be
//! scheduled in, and with every value that the memory model lets a load see.
//!
//! `ring.rs` and `progress.rs` are those of the core crate, compiled with the `sync` module of this crate instead of theirs.
//! The models are in [`ring`] and [`progress`]; `tests/` runs them. So are the ring that processes share and the page by which its
//! reader says that it sleeps, with the models in [`shared`].

// The files of the core crate have unit tests, which are not for the checker.
#![cfg(not(test))]
// What they have for others.
#![allow(dead_code, unreachable_pub)]

#[path = "../../../core/src/log/ack.rs"]
mod ack;
#[path = "../../../core/src/error.rs"]
mod error;
pub mod progress;
pub mod ring;
mod shard;
pub mod shared;

/// Where the core crate has it.
mod log {
    pub use crate::ack::Ack;
}

/// As much of it as is needed here.
mod event {
    pub enum EventType<'a> {
        Known(u8),
        Custom(&'a str),
    }
}

/// Where the core crate has it.
mod driver {
    /// Models wait without a limit.
    pub fn block_on<F: Future>(future: F, _: Option<std::time::Instant>) -> Option<F::Output> {
        Some(loom::future::block_on(future))
    }
}

pub use shard::sync::Heavy;

/// Runs a model in every order in which threads are interrupted at most so often against their will.
pub fn check(interruptions: usize, heavy: Heavy, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(interruptions);
    builder.max_branches = 20_000;
    builder.check(move || {
        heavy.set();
        model();
    });
}
