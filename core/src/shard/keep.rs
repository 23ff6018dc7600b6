//! What stays in the log after it was delivered, and for whom.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::Shard;
use crate::config::{EngineConfig, Keep};
use crate::driver;
use crate::error::Error;
use crate::log::recovery::{SegmentInfo, Writers};
use crate::log::retention::{Hold, Kept, Limits};

/// What a shard is started with for keeping.
#[derive(Clone)]
pub(crate) struct KeepStart {
    /// How many shards there are.
    pub(crate) shards: usize,
    pub(crate) writers: Arc<Writers>,
}

/// See the module.
pub(super) struct Keeping {
    limits: Limits,
    pub(super) writers: Arc<Writers>,
    /// Bytes of the closed segments, where it was asked for.
    sizes: RefCell<BTreeMap<u64, u64>>,
}

impl Keeping {
    pub(super) fn new(config: &EngineConfig, start: KeepStart) -> Keeping {
        let r = &config.retention;
        Keeping {
            limits: Limits {
                keep: r.keep != Keep::Nothing,
                age_max_ns: r.age_max.map(|d| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)),
                bytes_max: r.bytes_max.map(|n| n / start.shards as u64),
            },
            writers: start.writers,
            sizes: RefCell::default(),
        }
    }

    /// Whether segments stay although they are passed.
    pub(super) fn keeps(&self) -> bool {
        self.limits.keep
    }
}

impl Shard {
    /// Who needs the log beside the lanes, by what is saved.
    fn holds(&self) -> Vec<Hold> {
        let mut holds = Vec::new();
        if self.shared.is_pinned() {
            holds.push(Hold::default());
        }
        holds
    }

    /// Measures the closed segments that were not measured yet, if a limit in bytes asks for it.
    pub(super) async fn measure_segments(&self) {
        let wanted = self.keeping.limits.bytes_max.is_some() || self.holds().iter().any(|h| h.bytes_max.is_some());
        if !wanted {
            return;
        }
        let segments = self.files.infos();
        let mut sizes = self.keeping.sizes.borrow_mut();
        sizes.retain(|id, _| segments.first().is_some_and(|s| s.header.id <= *id));
        let closed = &segments[..segments.len().saturating_sub(1)];
        let new: Vec<(u64, PathBuf)> = closed
            .iter()
            .filter(|s| !sizes.contains_key(&s.header.id))
            .map(|s| (s.header.id, s.path.clone()))
            .collect();
        drop(sizes);
        if new.is_empty() {
            return;
        }
        let measured = driver::blocking(move || {
            let measure = |(id, path): (u64, PathBuf)| {
                let bytes = driver::fs::len(&path)
                    .map_err(|e| Error::io("cannot measure it", &e).at(path.display().to_string()))?;
                Ok((id, bytes))
            };
            new.into_iter().map(measure).collect::<crate::Result<Vec<_>>>()
        })
        .await;
        match measured {
            Ok(measured) => self.keeping.sizes.borrow_mut().extend(measured),
            Err(e) => log::error!("shard {}: {e}", self.shared.index),
        }
    }

    /// Tells of one passed segment after the other, oldest first, whether it may go.
    pub(super) fn releasing(&self) -> impl FnMut(&SegmentInfo, Option<&SegmentInfo>) -> bool + use<> {
        let limits = self.keeping.limits;
        let holds = self.holds();
        let sizes = self.keeping.sizes.borrow().clone();
        let (now_ns, clock_ns) = (driver::wall_ns(), self.appender.borrow().clock_ns());
        // The segment being written counts with what is in it.
        let live = self.files.end().map_or(0, |end| end.offset);
        let mut total = live + sizes.values().sum::<u64>();
        move |segment, next| {
            let kept = Kept {
                last_sequence: segment.last_sequence,
                // The clock of the next segment starts above this one's.
                newest_ns: next.map_or(clock_ns, |n| n.header.base_clock_ns),
            };
            let released =
                limits.releases(&kept, now_ns, total) && !holds.iter().any(|h| h.holds(&kept, now_ns, total));
            total = total.saturating_sub(sizes.get(&segment.header.id).copied().unwrap_or(0));
            released
        }
    }
}
