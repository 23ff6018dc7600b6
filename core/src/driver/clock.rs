//! Time and randomness. Everything that a shard does asks here, so that a simulation can give both.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

#[cfg(feature = "sim")]
use super::sim;
use crate::error::{Error, ErrorKind, Result};

/// Now, for waiting and measuring.
#[inline]
pub fn now() -> Instant {
    #[cfg(feature = "sim")]
    if let Some(world) = sim::current() {
        return world.now();
    }
    Instant::now()
}

/// How long ago that was.
#[inline]
pub fn since(then: Instant) -> Duration {
    now().saturating_duration_since(then)
}

/// Nanoseconds since the Unix epoch.
#[inline]
pub fn wall_ns() -> u64 {
    #[cfg(feature = "sim")]
    if let Some(world) = sim::current() {
        return world.wall();
    }
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64)
}

/// A random number, for what must be unlike anything before.
///
/// # Errors
/// If the system gives none.
pub fn random_u64() -> Result<u64> {
    #[cfg(feature = "sim")]
    if let Some(world) = sim::current() {
        return Ok(world.random());
    }
    getrandom::u64().map_err(|e| Error::new(ErrorKind::Io, format!("the system gives no random numbers: {e}")))
}
