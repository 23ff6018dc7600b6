//! What the ring and the page of the server are made of, as the checker knows it.

pub(super) use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
