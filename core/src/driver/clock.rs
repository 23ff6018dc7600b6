//! Time and randomness. Everything that a shard does asks here, so that a simulation can give both.
//!
//! There are two wall clocks. [`wall_ns`] is that of the engine, which the host may give: what it says is in events and in the
//! log, and ages are counted by it. [`system_ns`] is the machine's: what other machines compare with theirs (signatures, tokens,
//! certificates, the times when a secret is valid) must be right for them, whatever the host calls now.

use std::cell::RefCell;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
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

/// Nanoseconds since the Unix epoch, by the clock of the engine that this thread belongs to.
#[inline]
pub fn wall_ns() -> u64 {
    let own = OWN.try_with(|own| own.borrow().as_ref().map(WallClock::now_ns)).ok().flatten();
    own.unwrap_or_else(system_ns)
}

/// Nanoseconds since the Unix epoch, by the machine's clock.
#[inline]
pub fn system_ns() -> u64 {
    #[cfg(feature = "sim")]
    if let Some(world) = sim::current() {
        return world.wall();
    }
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64)
}

thread_local! {
    static OWN: RefCell<Option<WallClock>> = const { RefCell::new(None) };
}

/// Has this thread, which belongs to an engine, ask the clock of that engine from now on.
pub(crate) fn use_clock(clock: Option<WallClock>) {
    OWN.set(clock);
}

/// The latest time that a clock of the host may say: the year 2262, up to which nanoseconds fit where they are signed.
const LATEST_NS: u64 = i64::MAX as u64;

/// A wall clock of the host, for [`crate::config::EngineConfig::clock`].
///
/// Clones are the same clock, and are equal.
#[derive(Clone)]
pub struct WallClock(Arc<Host>);

struct Host {
    now_ns: Box<dyn Fn() -> u64 + Send + Sync>,
    has_panicked: AtomicBool,
}

impl WallClock {
    /// A clock that says the nanoseconds since the Unix epoch.
    ///
    /// It is asked by any thread, for each event that tells no time of its own, so it must be quick and must not wait for
    /// anything. It may go backwards and jump. A time beyond the year 2262 is that year, and 0 is 1; if it panics, the machine's
    /// clock is asked.
    pub fn new(now_ns: impl Fn() -> u64 + Send + Sync + 'static) -> WallClock {
        WallClock(Arc::new(Host { now_ns: Box::new(now_ns), has_panicked: AtomicBool::new(false) }))
    }

    /// What it says now.
    pub fn now_ns(&self) -> u64 {
        match catch_unwind(AssertUnwindSafe(&self.0.now_ns)) {
            Ok(now) => now.clamp(1, LATEST_NS),
            Err(_) => {
                if !self.0.has_panicked.swap(true, Ordering::Relaxed) {
                    log::error!("the host's clock has panicked; where it does, the machine's clock is used");
                }
                system_ns()
            }
        }
    }
}

impl fmt::Debug for WallClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WallClock").finish_non_exhaustive()
    }
}

impl PartialEq for WallClock {
    fn eq(&self, other: &WallClock) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_of_the_host_says_what_fits_and_its_panic_is_caught() {
        let says = |ns: u64| WallClock::new(move || ns).now_ns();
        assert_eq!([says(0), says(7), says(u64::MAX)], [1, 7, LATEST_NS]);
        let before = system_ns();
        let broken = WallClock::new(|| panic!("on purpose"));
        assert!(broken.now_ns() >= before && broken.now_ns() < LATEST_NS);
        assert_eq!(broken, broken.clone());
        assert_ne!(broken, WallClock::new(|| 1));
    }

    #[test]
    fn a_thread_asks_the_clock_of_its_engine() {
        let before = system_ns();
        assert!(wall_ns() >= before);
        use_clock(Some(WallClock::new(|| 42)));
        assert_eq!(wall_ns(), 42);
        assert!(system_ns() >= before);
        std::thread::spawn(move || assert!(wall_ns() >= before)).join().unwrap();
        use_clock(None);
        assert!(wall_ns() >= before);
    }
}
