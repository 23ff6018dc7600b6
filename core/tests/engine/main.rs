//! The engine as its host sees it: what it accepts, keeps, hands out again and survives.

#[path = "../common/mod.rs"]
mod common;

mod append;
mod clock;
mod consumers;
mod damaged_directory;
mod dead_letters;
mod details;
mod enrich;
mod history;
mod pipeline;
mod queues;
mod replay;
mod reserve;
mod retention;
mod rules;
mod shared;
mod snapshot;
mod tail;
