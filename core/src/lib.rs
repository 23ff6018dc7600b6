//! Tidewire tells the world what happens in an object store.

pub mod delivery;
mod driver;
pub mod error;
pub mod event;
pub mod log;
pub mod rule;
pub mod shard;

pub use error::{Error, ErrorKind, Result};
pub use event::{Event, EventId, EventType, KnownType, Origin, Priority};
