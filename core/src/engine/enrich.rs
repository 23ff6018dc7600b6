//! What the host adds to events.

use std::sync::Arc;

use super::Engine;
use crate::enrich::{EnrichOptions, Enricher};
use crate::error::Result;

impl Engine {
    /// Gives the engine a function of the host that adds metadata, tags or data to each event before it is matched, in the
    /// place of an earlier one; with `None` there is none any more. What is published after this call goes to the new one, and
    /// so does what was not taken in by then. The earlier one is dropped when the call returns that may be under way; so is
    /// each when the engine has closed.
    ///
    /// It sees the events that are published here and by other processes, those of reservations at their commit. What it adds
    /// is written to the log with the event and is never asked for again: not by retries, replays, or the next opening. The
    /// order of events stays as it is, for the shard waits for it: see [`EnrichOptions::timeout`]. After an event for which it
    /// took too long nobody waits for it until it has come back; meanwhile events get the fallback ([`super::Stats`] counts).
    /// Whether an event is of interest at all is decided before, by its bucket and type.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidArgument`] if the options cannot be; [`crate::ErrorKind::Closed`] if the engine is closed;
    /// [`crate::ErrorKind::Io`] if there can be no thread for it; [`crate::ErrorKind::WrongProcess`] in a forked child.
    pub fn set_enricher(&self, enricher: Option<Arc<dyn Enricher>>, options: EnrichOptions) -> Result<()> {
        self.inner.check_process()?;
        self.inner.check_open()?;
        let Some(shard) = self.inner.shards.first() else { return Ok(()) };
        shard.common.enrichers.set(&self.inner.shards, self.inner.config.event_bytes_max, enricher, options)
    }
}
