//! What an engine can tell of events that were dropped.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use super::Engine;
use crate::error::Result;
use crate::log::losses::{self, LossReason, RecordedLoss};

/// How many events were dropped for one destination, by one rule and for one reason, since the engine was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LossCount {
    /// The destination.
    pub destination: String,
    /// The rule; empty where there are so many that they were not counted apart.
    pub rule: String,
    /// Why.
    pub reason: LossReason,
    /// How many.
    pub count: u64,
}

impl Engine {
    /// The losses that the audit still knows of, those of earlier runs included, by shard and number, until `each` says to
    /// stop. The caller's thread reads the files; the shards are not disturbed. The youngest may be told some 100 ms late.
    ///
    /// # Errors
    /// If a file cannot be read; [`crate::ErrorKind::WrongProcess`] in a forked child.
    pub fn each_loss(&self, each: impl FnMut(RecordedLoss) -> ControlFlow<()>) -> Result<()> {
        self.inner.check_process()?;
        losses::each_loss(&self.inner.config.data_dir, each)
    }

    /// How many events were dropped since the engine was opened, by destination, rule and reason.
    pub fn loss_counts(&self) -> Vec<LossCount> {
        let mut all: BTreeMap<(u32, u32, LossReason), u64> = BTreeMap::new();
        for shard in &self.inner.shards {
            for (destination, rule, reason, n) in shard.losses.lock().iter() {
                *all.entry((destination, rule, reason)).or_default() += n;
            }
        }
        let snapshot = self.inner.snapshot.load();
        let counts = all.into_iter().map(|((destination, rule, reason), count)| {
            let name = snapshot.destination(destination).map(|d| d.name.clone());
            LossCount {
                destination: name.unwrap_or_else(|| format!("removed #{destination}")),
                rule: snapshot.rule_id(rule).to_owned(),
                reason,
                count,
            }
        });
        counts.collect()
    }
}
