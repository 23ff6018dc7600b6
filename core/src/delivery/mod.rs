//! How events get out: the lane of one destination on one shard, its batches, back-off and breaker. Pure state machines:
//! time and randomness are arguments, sending is the caller's.

pub mod breaker;
pub mod lane;
