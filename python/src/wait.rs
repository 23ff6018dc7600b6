//! Waiting as Python hosts expect it: with a limit, without the interpreter, and ended by Ctrl-C.

use std::time::{Duration, Instant};

use tidewire::Error;

use crate::error::invalid_argument;

/// How long a call waits at a stretch before it lets the interpreter handle signals.
pub(crate) const SLICE: Duration = Duration::from_millis(100);

/// The longest wait that is told from no limit: about 30 years.
const SECONDS_MAX: f64 = 1e9;

/// How long a call may wait; `None` is without limit.
#[derive(Clone, Copy)]
pub(crate) struct Limit(pub(crate) Option<Duration>);

impl Limit {
    /// The limit of a `timeout` in seconds.
    pub(crate) fn new(seconds: Option<f64>) -> Result<Limit, Error> {
        match seconds {
            None => Ok(Limit(None)),
            Some(s) if s >= SECONDS_MAX => Ok(Limit(None)),
            // Not a number compares with nothing, and so ends below.
            Some(s) if s >= 0.0 => Ok(Limit(Some(Duration::from_secs_f64(s)))),
            Some(s) => Err(invalid_argument("timeout", format!("{s} is no time to wait"), "give seconds, 0 or more")),
        }
    }

    /// Starts the clock.
    pub(crate) fn start(self) -> Wait {
        Wait(self.0.map(|d| Instant::now() + d))
    }
}

/// A wait under way: when it ends.
#[derive(Clone, Copy)]
pub(crate) struct Wait(Option<Instant>);

impl Wait {
    /// The next stretch: its end, and whether it is the last.
    pub(crate) fn slice(self) -> (Instant, bool) {
        let end = Instant::now() + SLICE;
        match self.0 {
            Some(deadline) if deadline <= end => (deadline, true),
            _ => (end, false),
        }
    }
}
