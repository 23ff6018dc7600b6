//! The steps of an attempt with their times, for whoever wants to see them.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use crate::driver;

/// One step of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestStep {
    /// What was done.
    pub what: String,
    /// How long it took.
    pub took: Duration,
}

/// Takes notes, or not.
#[derive(Debug, Default)]
pub(crate) struct Trace(RefCell<Option<(Instant, Vec<TestStep>)>>);

impl Trace {
    /// Takes notes from now on.
    pub(crate) fn begin(&self) {
        *self.0.borrow_mut() = Some((driver::now(), Vec::new()));
    }

    /// A step is done.
    pub(crate) fn note(&self, what: impl FnOnce() -> String) {
        if let Some((last, steps)) = &mut *self.0.borrow_mut() {
            let now = driver::now();
            steps.push(TestStep { what: what(), took: now.saturating_duration_since(*last) });
            *last = now;
        }
    }

    /// What was noted.
    pub(crate) fn end(&self) -> Vec<TestStep> {
        self.0.borrow_mut().take().map(|(_, steps)| steps).unwrap_or_default()
    }
}
