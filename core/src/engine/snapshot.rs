//! Snapshots of a running engine.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::{Engine, deadline_in};
use crate::error::Result;
use crate::log::Ack;
use crate::log::archive::{Manifest, export_to, write_file};
use crate::shard::Shared;
use crate::shard::progress::Receipt;

/// How long the disk is given to make durable what was accepted.
const SYNC_WAIT: Duration = Duration::from_secs(60);

/// Keeps segments from being removed until dropped.
struct Pins<'a>(&'a [Arc<Shared>]);

impl<'a> Pins<'a> {
    fn new(shards: &'a [Arc<Shared>]) -> Pins<'a> {
        shards.iter().for_each(|s| s.pin());
        Pins(shards)
    }
}

impl Drop for Pins<'_> {
    fn drop(&mut self) {
        self.0.iter().for_each(|s| s.unpin());
    }
}

impl Engine {
    /// Writes a consistent copy of the data directory into a file: everything that was accepted before the call, and what
    /// is delivered of it. [`crate::log::archive::restore`] makes a directory of it. The engine goes on meanwhile; nothing
    /// is removed from the log until the copy is written. The file is there as a whole or not at all.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Timeout`] or [`crate::ErrorKind::LogFailed`] if what was accepted cannot be made durable,
    /// [`crate::ErrorKind::Io`] and the like, [`crate::ErrorKind::Closed`], [`crate::ErrorKind::WrongProcess`].
    pub fn snapshot(&self, file: &Path) -> Result<Manifest> {
        write_file(file, |out| self.snapshot_to(out))
    }

    /// As [`Engine::snapshot`], to anything that can be written to. What was written is of no use after an error.
    ///
    /// # Errors
    /// As [`Engine::snapshot`].
    pub fn snapshot_to(&self, out: &mut dyn Write) -> Result<Manifest> {
        let inner = &*self.inner;
        inner.check_process()?;
        inner.check_open()?;
        let _pins = Pins::new(&inner.shards);
        export_to(&inner.config.data_dir, Some(&|| self.synced_heads()), out)
    }

    /// Up to where the log of each shard is durable, everything accepted before included.
    fn synced_heads(&self) -> Result<Vec<u64>> {
        let deadline = deadline_in(SYNC_WAIT);
        let synced = |shard: &Arc<Shared>| {
            let position = shard.ring.tail();
            Receipt::new(shard.clone(), position).wait(Ack::Synced, Some(deadline))
        };
        let mut heads = Vec::new();
        for shard in &self.inner.shards {
            synced(shard)?;
            // By now more may be written than is durable: once more for that.
            heads.push(shard.head());
            synced(shard)?;
        }
        Ok(heads)
    }
}
