//! Tidewire tells the world what happens in an object store.

pub mod auth;
pub mod config;
mod connect;
#[cfg(feature = "bench")]
#[doc(hidden)]
pub use connect::bench;
pub mod delivery;
mod driver;
mod engine;
mod enrich;
pub mod error;
pub mod event;
pub mod filter;
mod fork;
mod le;
mod lock;
pub mod log;
pub mod net;
pub mod receive;
pub mod rule;
pub mod shard;
pub mod shared;
pub mod source;
mod stamp;
mod table;
pub mod wire;

#[cfg(feature = "sim")]
pub use driver::sim;

pub use connect::custom;
pub use connect::{TestReport, TestStep, test_destination};
pub use engine::{
    BatchReservation, BucketNotification, CommitFields, CommitOptions, Completion, CompletionCalls, Completions,
    Consumer, ConsumerOptions, Delivered, Delivery, DestinationStats, Engine, Flush, GroupStats, InDoubt, Intent,
    Lease, LogWatch, LossCount, MetricsFormat, OnFull, PublishOptions, Published, PublishedJson, Receipts, Redrive,
    RedriveOptions, Redriven, ReplayHandle, ReplayProgress, ReplayRequest, ReplayState, ReplayTo, Reservation,
    ReserveOptions, Reserved, ReservedBatch, Resolution, RulesStats, Stats, Tail,
};
pub use enrich::{EnrichOptions, Enricher, Enrichment};
pub use error::{Error, ErrorKind, Result, S3Code};
pub use event::{Event, EventId, EventType, KnownType, Origin, Priority};
pub use log::Ack;
pub use log::dead::{DeadLetterFilter, DeadLetterId, StoredDeadLetter};
pub use log::losses::{LossReason, RecordedLoss};
pub use shard::dedup::DedupKey;
pub use shard::progress::{Receipt, ReceiptFuture};
pub use shard::snapshot::DetailsWanted;
pub use shared::{AnyEngine, Client, ClientOptions};
