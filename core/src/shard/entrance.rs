//! What every publish looks at before it does anything.

use std::sync::atomic::{AtomicU8, Ordering};

use super::snapshot::Everywhere;

/// It changes seldom, and lies side by side on the page by which a forked child is told apart: a publisher whose caches have
/// gone cold waits for one line instead of one for each.
#[derive(Debug)]
pub(crate) struct Entrance {
    /// What goes in without a look at the rules.
    pub(crate) everywhere: Everywhere,
    /// The largest event, encoded, in bytes.
    pub(crate) event_bytes_max: usize,
    /// What a publisher must look at besides: [`Entrance::QUEUES`], [`Entrance::CLIENTS`].
    pub(crate) telling: AtomicU8,
}

impl Entrance {
    /// Some queue may tell a publisher no.
    pub(crate) const QUEUES: u8 = 1;
    /// Other processes publish here: what they have published goes before what is published now.
    pub(crate) const CLIENTS: u8 = 2;

    pub(crate) fn new(everywhere: Everywhere, event_bytes_max: usize) -> Entrance {
        Entrance { everywhere, event_bytes_max, telling: AtomicU8::new(0) }
    }

    /// Sets or clears one of the things to look at.
    pub(crate) fn tell(&self, what: u8, whether: bool) {
        if whether {
            self.telling.fetch_or(what, Ordering::SeqCst);
        } else {
            self.telling.fetch_and(!what, Ordering::SeqCst);
        }
    }

    /// Whether some queue may tell a publisher no.
    pub(crate) fn queues_tell(&self) -> bool {
        self.telling.load(Ordering::Relaxed) & Entrance::QUEUES != 0
    }
}
