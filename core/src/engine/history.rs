//! What the engine's log tells of the past.

use std::time::Duration;

use super::{Engine, deadline_in};
use crate::error::Result;
use crate::log::Ack;
use crate::log::history::{History, State, history_with, state_with};
use crate::log::reader::{LogReader, ReadFrom};
use crate::shard::progress::Receipt;

/// How long a look at the log waits for what was accepted to be written.
const SOON: Duration = Duration::from_secs(1);

impl Engine {
    /// Every event of a resource key that the log still has, oldest first: see [`crate::log::history::history`]. Events
    /// that were accepted before the call are among them (unless the disk takes no writes). Reads the log on the calling
    /// thread; deliveries go on.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Io`] and the like if the log cannot be read, [`crate::ErrorKind::WrongProcess`] in a forked
    /// child.
    pub fn history(&self, bucket: &str, key: &[u8]) -> Result<History> {
        self.inner.check_process()?;
        let heads = self.settled_heads();
        history_with(&self.inner.config.data_dir, self.read_log(&ReadFrom::Beginning)?, Some(heads), bucket, key)
    }

    /// The objects of a bucket at a time, ns since the epoch: see [`crate::log::history::state_at`]. Reads the log on the
    /// calling thread; deliveries go on.
    ///
    /// # Errors
    /// As [`Engine::history`].
    pub fn state(&self, bucket: &str, prefix: &[u8], at_ns: u64) -> Result<State> {
        self.inner.check_process()?;
        let heads = self.settled_heads();
        let reader = self.read_log(&ReadFrom::Beginning)?;
        state_with(&self.inner.config.data_dir, reader, Some(&heads), bucket, prefix, at_ns)
    }

    /// A reader of this engine's log.
    pub(super) fn read_log(&self, from: &ReadFrom) -> Result<LogReader> {
        let inner = &*self.inner;
        inner.check_process()?;
        LogReader::with(&inner.config.data_dir, inner.shards.len(), inner.writers.clone(), from, Some(&self.heads()))
    }

    /// As [`Engine::heads`], when what was accepted before is written, if that is soon.
    pub(super) fn settled_heads(&self) -> Vec<u64> {
        let deadline = deadline_in(SOON);
        for shard in &self.inner.shards {
            let receipt = Receipt::new(shard.clone(), shard.ring.tail());
            // A log that failed or waits for space has what it has.
            let _ = receipt.wait(Ack::Written, Some(deadline));
        }
        self.heads()
    }

    /// Up to where the log of each shard is complete.
    pub(super) fn heads(&self) -> Vec<u64> {
        self.inner.shards.iter().map(|s| s.head()).collect()
    }
}
