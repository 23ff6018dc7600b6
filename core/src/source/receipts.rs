//! What a source still waits for.

use std::sync::Arc;

use crate::error::Result;
use crate::log::Ack;
use crate::shard::progress::Receipt;

/// What a series of events is still waiting for. An ack level that an event has reached, every earlier event of its
/// shard has reached too, so the last receipt of each shard is enough.
#[derive(Debug, Default)]
pub(crate) struct Receipts(Vec<Receipt>);

impl Receipts {
    /// Adds the receipt of an event that was submitted after all those already here.
    pub(crate) fn add(&mut self, receipt: Receipt) {
        match self.0.iter_mut().find(|r| Arc::ptr_eq(&r.shard, &receipt.shard)) {
            Some(earlier) => *earlier = receipt,
            None => self.0.push(receipt),
        }
    }

    /// Blocks until all have reached the level.
    #[cfg(feature = "source-directory")]
    pub(crate) fn wait(&self, ack: Ack, deadline: std::time::Instant) -> Result<()> {
        self.0.iter().try_for_each(|r| r.wait(ack, Some(deadline)))
    }

    /// Ready once all have reached the level.
    #[cfg(feature = "source-http")]
    pub(crate) async fn reached(&self, ack: Ack) -> Result<()> {
        for r in &self.0 {
            r.reached(ack).await?;
        }
        Ok(())
    }
}
