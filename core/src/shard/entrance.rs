//! What every publish looks at before it does anything.

use std::sync::atomic::AtomicBool;

use super::snapshot::Everywhere;

/// It changes seldom, and lies side by side on the page by which a forked child is told apart: a publisher whose caches have
/// gone cold waits for one line instead of one for each.
#[derive(Debug)]
pub(crate) struct Entrance {
    /// What goes in without a look at the rules.
    pub(crate) everywhere: Everywhere,
    /// The largest event, encoded, in bytes.
    pub(crate) event_bytes_max: usize,
    /// Some queue may tell a publisher no.
    pub(crate) telling: AtomicBool,
}

impl Entrance {
    pub(crate) fn new(everywhere: Everywhere, event_bytes_max: usize) -> Entrance {
        Entrance { everywhere, event_bytes_max, telling: AtomicBool::new(false) }
    }
}
