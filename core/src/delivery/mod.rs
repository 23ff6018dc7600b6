//! How events get out: the lane of one destination on one shard, its batches, back-off and breaker. Pure state machines:
//! time and randomness are arguments, sending is the caller's.

pub mod account;
pub mod balance;
pub mod behind;
pub mod breaker;
pub mod bucket;
pub mod concurrency;
pub mod endpoint;
pub mod group;
pub mod lane;
pub mod pace;
pub mod quota;

use std::future::Future;
use std::pin::Pin;
use std::time::Instant;

use bytes::Bytes;

pub use lane::{Fault, Outcome};

use crate::event::EventId;

/// The future of one attempt, on the shard's thread.
pub type Attempt<'a> = Pin<Box<dyn Future<Output = Outcome> + 'a>>;

/// An event as it goes out.
#[derive(Clone, Debug)]
pub struct Record {
    /// The event's id.
    pub id: EventId,
    /// The event as the destination's format writes it, with the separator before it; where it brings headers a parcel, which
    /// [`crate::event::format`] opens.
    pub bytes: Bytes,
}

/// The code that speaks to one destination, on one shard.
///
/// A connector makes one attempt at a time per call and keeps no queue: order, retries and what is done are the lane's.
pub trait Connector {
    /// Sends records as one request.
    fn send<'a>(&'a self, records: &'a [Record]) -> Attempt<'a>;

    /// Lets go of connections that were idle for too long.
    fn expire(&self, now: Instant);

    /// Connections made so far.
    fn connections(&self) -> u64;
}
