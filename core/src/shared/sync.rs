//! What the ring and the page of the server are made of. A module of its own because the model check (`tests/model`) compiles
//! `ring.rs` and `status.rs` as they are, with another version of it and of `memory`.

pub(super) use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
