//! What stays in the log after it was delivered, and for whom.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use super::Shard;
use super::group::{ConsumerGroup, encode_groups};
use super::lanes::LaneSlot;
use super::replay::Replay;
use crate::config::{EngineConfig, Keep};
use crate::driver;
use crate::error::Error;
use crate::log::cursor::{Cursor, section};
use crate::log::recovery::{SegmentInfo, ShardState, Writers};
use crate::log::retention::{Hold, Kept, Limits};

/// What a shard is started with for keeping.
#[derive(Clone)]
pub(crate) struct KeepStart {
    /// How many shards there are.
    pub(crate) shards: usize,
    pub(crate) writers: Arc<Writers>,
    /// The replays that were not through when the engine was closed.
    pub(crate) replays: Vec<Arc<Replay>>,
    /// The groups of consumers.
    pub(crate) groups: Vec<Arc<ConsumerGroup>>,
}

/// See the module.
pub(super) struct Keeping {
    limits: Limits,
    pub(super) writers: Arc<Writers>,
    /// Bytes of the closed segments, where it was asked for.
    sizes: RefCell<BTreeMap<u64, u64>>,
    /// The replays under way, by number.
    pub(super) replays: RefCell<BTreeMap<u32, Rc<LaneSlot>>>,
    /// The cursors of those that are through, or wait for a destination.
    pub(super) replay_cursors: RefCell<BTreeMap<u32, Cursor>>,
    /// How far those under way were when they were last saved: what they need of the log.
    pub(super) replay_marks: RefCell<BTreeMap<u32, u64>>,
    /// The groups of consumers, by number, and how far each was when it was last saved.
    groups: RefCell<BTreeMap<u32, (Arc<ConsumerGroup>, u64)>>,
}

impl Keeping {
    pub(super) fn new(config: &EngineConfig, start: KeepStart, state: &ShardState, shard: usize) -> Keeping {
        let r = &config.retention;
        let mut replay_cursors =
            state.cursors.sections.get(&section::REPLAYS).and_then(|b| decode_replays(b)).unwrap_or_default();
        replay_cursors.retain(|number, _| start.replays.iter().any(|r| r.number == *number));
        let keeping = Keeping {
            limits: Limits {
                keep: r.keep != Keep::Nothing,
                age_max_ns: r.age_max.map(|d| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)),
                bytes_max: r.bytes_max.map(|n| n / start.shards as u64),
            },
            writers: start.writers,
            sizes: RefCell::default(),
            replays: RefCell::default(),
            replay_cursors: RefCell::new(replay_cursors),
            replay_marks: RefCell::default(),
            groups: RefCell::default(),
        };
        start.groups.into_iter().for_each(|g| keeping.add_group(g, shard));
        keeping
    }

    /// Keeps the log for a group from now on.
    pub(super) fn add_group(&self, group: Arc<ConsumerGroup>, shard: usize) {
        let low = group.parts[shard].group.lock().state().0.low();
        self.groups.borrow_mut().insert(group.number, (group, low));
    }

    pub(super) fn remove_group(&self, number: u32) {
        self.groups.borrow_mut().remove(&number);
    }

    /// Whether segments stay although they are passed.
    pub(super) fn keeps(&self) -> bool {
        self.limits.keep
    }
}

/// See [`Shard::kept_sections`].
pub(super) struct KeptSections {
    pub(super) sections: BTreeMap<u16, Vec<u8>>,
    replay_marks: BTreeMap<u32, u64>,
    group_lows: BTreeMap<u32, u64>,
}

fn encode_replays<'a>(cursors: impl Iterator<Item = (u32, &'a Cursor)>) -> Vec<u8> {
    let mut out = vec![0; 4];
    let mut count = 0u32;
    for (number, cursor) in cursors {
        out.extend_from_slice(&number.to_le_bytes());
        cursor.encode(&mut out);
        count += 1;
    }
    out[..4].copy_from_slice(&count.to_le_bytes());
    out
}

/// How far a replay was on a shard, by what was saved.
pub(crate) fn saved_replay(state: &ShardState, number: u32) -> Option<u64> {
    let saved = decode_replays(state.cursors.sections.get(&section::REPLAYS)?)?;
    saved.get(&number).map(Cursor::low)
}

fn decode_replays(bytes: &[u8]) -> Option<BTreeMap<u32, Cursor>> {
    let (count, mut rest) = bytes.split_first_chunk::<4>()?;
    let mut out = BTreeMap::new();
    for _ in 0..u32::from_le_bytes(*count) {
        let (number, tail) = rest.split_first_chunk::<4>()?;
        let (cursor, tail) = Cursor::decode(tail)?;
        out.insert(u32::from_le_bytes(*number), cursor);
        rest = tail;
    }
    Some(out)
}

impl Shard {
    /// Who needs the log beside the lanes, by what is saved.
    fn holds(&self) -> Vec<Hold> {
        let mut holds = Vec::new();
        if self.shared.is_pinned() {
            holds.push(Hold::default());
        }
        let marks = self.keeping.replay_marks.borrow();
        holds.extend(marks.values().map(|low| Hold { passed: *low, ..Hold::default() }));
        for (group, low) in self.keeping.groups.borrow().values() {
            let limits = *group.limits.lock();
            holds.push(Hold { passed: *low, bytes_max: Some(limits.bytes_max), age_max_ns: Some(limits.age_max_ns) });
        }
        holds
    }

    /// What tells whether the cursors kept here have moved since they were saved.
    pub(super) fn kept_marks(&self) -> impl Iterator<Item = [u64; 4]> {
        let head = self.dispatched.get();
        let replays: Vec<_> = self.keeping.replays.borrow().values().map(|s| s.marks(head)).collect();
        let idle = self.keeping.replay_cursors.borrow().len() as u64;
        let index = self.shared.index;
        let groups = self.keeping.groups.borrow();
        let groups: Vec<_> = groups.values().map(|(g, _)| [g.parts[index].group.lock().version(), 0, 0, 0]).collect();
        replays.into_iter().chain([[idle, 0, 0, 0]]).chain(groups)
    }

    /// The sections of the cursor file for what is kept here.
    pub(super) fn kept_sections(&self) -> KeptSections {
        let head = self.dispatched.get();
        let running: Vec<(u32, Cursor)> =
            self.keeping.replays.borrow().iter().map(|(n, s)| (*n, s.cursor(head))).collect();
        let idle = self.keeping.replay_cursors.borrow();
        let all = running.iter().map(|(n, c)| (*n, c)).chain(idle.iter().map(|(n, c)| (*n, c)));
        let groups = encode_groups(self.keeping.groups.borrow().values().map(|(g, _)| g), self.shared.index);
        KeptSections {
            sections: [(section::REPLAYS, encode_replays(all)), (section::GROUPS, groups.bytes)].into(),
            replay_marks: running.iter().map(|(n, c)| (*n, c.low())).collect(),
            group_lows: groups.lows,
        }
    }

    /// They are saved, and decide from now on what may be removed.
    pub(super) fn kept_saved(&self, saved: KeptSections) {
        let mut marks = self.keeping.replay_marks.borrow_mut();
        for (number, low) in saved.replay_marks {
            // One that has ended meanwhile needs nothing.
            if let Some(mark) = marks.get_mut(&number) {
                *mark = low;
            }
        }
        let mut groups = self.keeping.groups.borrow_mut();
        for (number, low) in saved.group_lows {
            if let Some((_, mark)) = groups.get_mut(&number) {
                *mark = low;
            }
        }
    }

    /// Measures the closed segments that were not measured yet, if a limit in bytes asks for it.
    pub(super) async fn measure_segments(&self) {
        let wanted = self.keeping.limits.bytes_max.is_some() || self.holds().iter().any(|h| h.bytes_max.is_some());
        if !wanted {
            return;
        }
        let new = self.unmeasured();
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

    /// The closed segments that were not measured yet; those that are gone are forgotten.
    fn unmeasured(&self) -> Vec<(u64, PathBuf)> {
        let segments = self.files.infos();
        let mut sizes = self.keeping.sizes.borrow_mut();
        sizes.retain(|id, _| segments.first().is_some_and(|s| s.header.id <= *id));
        let closed = segments.iter().take(segments.len().saturating_sub(1));
        closed.filter(|s| !sizes.contains_key(&s.header.id)).map(|s| (s.header.id, s.path.clone())).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cursors_of_replays_come_back_and_cut_ones_do_not() {
        let mut cursor = Cursor::at(5);
        cursor.done(9);
        let all = BTreeMap::from([(3, cursor), (77, Cursor::at(u64::MAX))]);
        let bytes = encode_replays(all.iter().map(|(n, c)| (*n, c)));
        assert_eq!(decode_replays(&bytes), Some(all.clone()));
        for cut in 0..bytes.len() {
            assert_eq!(decode_replays(&bytes[..cut]), None);
        }
    }
}
