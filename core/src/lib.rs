//! Tidewire tells the world what happens in an object store.

pub mod config;
pub mod error;
pub mod event;
pub mod filter;
pub mod rule;

pub use error::{Error, ErrorKind, Result};
pub use event::{Event, EventId, EventType, KnownType, Origin, Priority};
