//! Groups of consumers: what their members, on host threads, and the shards share. The members read the log's files
//! themselves; a shard saves what they have done with its cursors and keeps what they have not read.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use futures::channel::oneshot;

use super::bell::Bell;
use super::dead::Buried;
use super::{Command, Shared};
use crate::delivery::group::{Group, GroupPolicy};
use crate::driver;
use crate::error::{Error, Result};
use crate::filter::EventFilter;
use crate::lock::Mutex;
use crate::log::cursor::{Cursor, section};
use crate::log::reader::{Entry, Gap, Item, ShardReader, Step};
use crate::log::record::{DeadLetter, Origin};
use crate::log::recovery::ShardState;

/// Gaps that wait to be told; reading stops until they are.
const GAPS_MAX: usize = 16;

/// A group, as host threads and shards share it.
#[derive(Debug)]
pub(crate) struct ConsumerGroup {
    /// What the cursor files know it by.
    pub(crate) number: u32,
    /// Under which its dead letters are filed.
    pub(crate) dead_number: u32,
    pub(crate) name: String,
    pub(crate) filter: EventFilter,
    /// Why it cannot be used, if it cannot. What it has not read is kept all the same.
    pub(crate) fault: Option<Error>,
    pub(crate) limits: Mutex<LagLimits>,
    /// One per shard.
    pub(crate) parts: Vec<GroupPart>,
    /// Rung when an event may have become ready for another member.
    pub(crate) bell: Bell,
    pub(crate) deleted: AtomicBool,
    pub(crate) next_member: AtomicU64,
    /// What the leases' times are counted from.
    pub(crate) started: Instant,
}

/// How far a group may be behind before the log is no longer kept for it. Per shard.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LagLimits {
    pub(crate) bytes_max: u64,
    pub(crate) age_max_ns: u64,
}

/// A group on one shard.
#[derive(Debug)]
pub(crate) struct GroupPart {
    /// Held only for moments: the shard's thread looks at it too.
    pub(crate) group: Mutex<Group<Arc<Entry>>>,
    /// Held while files are read.
    reader: Mutex<ShardReader>,
    gaps: Mutex<VecDeque<Gap>>,
    /// Spent events on their way into the dead letters.
    burying: Mutex<BTreeMap<u64, oneshot::Receiver<()>>>,
    pub(crate) counts: Counts,
}

/// What a group has counted on one shard.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) given: AtomicU64,
    pub(crate) repeated: AtomicU64,
    pub(crate) acknowledged: AtomicU64,
    pub(crate) dead_lettered: AtomicU64,
    pub(crate) missed: AtomicU64,
}

/// What reading on brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Filled {
    /// Something was read, and there may be more.
    More,
    /// Nothing more is there, or there is no room, or another member is reading.
    No,
}

impl GroupPart {
    pub(crate) fn new(policy: GroupPolicy, saved: SavedGroup, first_token: u64, reader: ShardReader) -> GroupPart {
        GroupPart {
            group: Mutex::new(Group::new(policy, saved.cursor, saved.counts, first_token)),
            reader: Mutex::new(reader),
            gaps: Mutex::default(),
            burying: Mutex::default(),
            counts: Counts::default(),
        }
    }

    /// Reads a chunk, if there is room.
    pub(crate) fn fill(&self, limit: u64, filter: &EventFilter) -> Result<Filled> {
        // Whoever reads offers what was read in its order, so one reads at a time.
        let Some(mut reader) = self.reader.try_lock() else { return Ok(Filled::No) };
        loop {
            if !self.group.lock().has_room() || self.gaps.lock().len() >= GAPS_MAX {
                return Ok(Filled::No);
            }
            match reader.next(Some(limit), &mut |frame| filter.matches(frame))? {
                Step::Item(Item::Entry(e)) => {
                    let key = e.frame().resource_hash();
                    self.group.lock().offer(e.sequence, key, e.bytes(), Arc::new(e));
                }
                Step::Item(Item::Gap(gap)) => {
                    self.counts.missed.fetch_add(gap.sequences(), Ordering::Relaxed);
                    self.group.lock().pass(gap.last);
                    self.gaps.lock().push_back(gap);
                    return Ok(Filled::More);
                }
                step => {
                    self.group.lock().pass(reader.seen());
                    return Ok(if matches!(step, Step::More) { Filled::More } else { Filled::No });
                }
            }
        }
    }

    /// The next gap that nobody was told of.
    pub(crate) fn take_gap(&self) -> Option<Gap> {
        self.gaps.lock().pop_front()
    }

    /// Sends spent events to the dead letters, and settles those that have got there. Whether some are on their way.
    pub(crate) fn bury(&self, number: u32, shard: &Shared) -> bool {
        let mut burying = self.burying.lock();
        let mut group = self.group.lock();
        let spent: Vec<(u64, u32, Arc<Entry>)> = group.spent().map(|(n, d, e)| (n, d, e.clone())).collect();
        for (sequence, deliveries, entry) in spent {
            match burying.get_mut(&sequence).map(oneshot::Receiver::try_recv) {
                Some(Ok(None)) => continue,
                Some(Ok(Some(()))) => {
                    burying.remove(&sequence);
                    group.settle(sequence);
                    self.counts.dead_lettered.fetch_add(1, Ordering::Relaxed);
                    continue;
                }
                // It was not written; again.
                Some(Err(_)) | None => {}
            }
            let letter = DeadLetter {
                destination: number,
                rule: entry.routes.first().map_or(0, |r| r.rule),
                sequence: entry.id.sequence,
                incarnation: entry.id.incarnation,
                attempts: deliveries,
                first_ns: entry.clock.0,
                last_ns: driver::wall_ns(),
                status: 0,
                reason: &format!("given out {deliveries} times and not acknowledged"),
                answer: &[],
                frame: entry.frame().as_bytes(),
            };
            let origin = Origin {
                incarnation: entry.id.incarnation,
                shard: entry.id.shard,
                sequence: entry.id.sequence,
                clock_ns: entry.sequencer.clock_ns,
                tie: entry.sequencer.tie,
            };
            let (reply, done) = oneshot::channel();
            shard.command(Command::Bury { letter: Buried { body: letter.encode(), origin, hops: 0 }, reply });
            burying.insert(sequence, done);
        }
        !burying.is_empty()
    }
}

impl ConsumerGroup {
    /// Now, as leases count.
    pub(crate) fn now_ns(&self) -> u64 {
        u64::try_from(driver::since(self.started).as_nanos()).unwrap_or(u64::MAX)
    }
}

/// A group as a shard's cursor file has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SavedGroup {
    pub(crate) cursor: Cursor,
    /// How often events that are not done were given out.
    pub(crate) counts: BTreeMap<u64, u32>,
}

/// The section of a cursor file; its form is told there.
pub(super) fn encode_groups<'a>(groups: impl Iterator<Item = &'a Arc<ConsumerGroup>>, shard: usize) -> EncodedGroups {
    let mut out = EncodedGroups { bytes: vec![0; 4], lows: BTreeMap::new() };
    for g in groups {
        let mut group = g.parts[shard].group.lock();
        let (cursor, counts) = group.state();
        out.bytes.extend_from_slice(&g.number.to_le_bytes());
        cursor.encode(&mut out.bytes);
        out.bytes.extend_from_slice(&(counts.len() as u32).to_le_bytes());
        for (sequence, count) in counts {
            out.bytes.extend_from_slice(&sequence.to_le_bytes());
            out.bytes.extend_from_slice(&count.to_le_bytes());
        }
        out.lows.insert(g.number, cursor.low());
    }
    let count = out.lows.len() as u32;
    out.bytes[..4].copy_from_slice(&count.to_le_bytes());
    out
}

pub(super) struct EncodedGroups {
    pub(super) bytes: Vec<u8>,
    /// What each has done up to.
    pub(super) lows: BTreeMap<u32, u64>,
}

/// The groups that a shard had saved.
pub(crate) fn saved_groups(state: &ShardState) -> BTreeMap<u32, SavedGroup> {
    state.cursors.sections.get(&section::GROUPS).and_then(|b| decode_groups(b)).unwrap_or_default()
}

fn decode_groups(bytes: &[u8]) -> Option<BTreeMap<u32, SavedGroup>> {
    fn u32_of<'a>(bytes: &mut &'a [u8]) -> Option<u32> {
        let (head, rest): (&'a [u8; 4], _) = bytes.split_first_chunk()?;
        *bytes = rest;
        Some(u32::from_le_bytes(*head))
    }
    fn u64_of<'a>(bytes: &mut &'a [u8]) -> Option<u64> {
        let (head, rest): (&'a [u8; 8], _) = bytes.split_first_chunk()?;
        *bytes = rest;
        Some(u64::from_le_bytes(*head))
    }
    let mut rest = bytes;
    let mut out = BTreeMap::new();
    for _ in 0..u32_of(&mut rest)? {
        let number = u32_of(&mut rest)?;
        let (cursor, tail) = Cursor::decode(rest)?;
        rest = tail;
        let mut counts = BTreeMap::new();
        for _ in 0..u32_of(&mut rest)? {
            counts.insert(u64_of(&mut rest)?, u32_of(&mut rest)?);
        }
        out.insert(number, SavedGroup { cursor, counts });
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn saved_groups_come_back_and_cut_ones_do_not() {
        let dir = tempfile::tempdir().unwrap();
        let policy = GroupPolicy { events_max: 10, bytes_max: 10, deliveries_max: 10 };
        let mut cursor = Cursor::at(5);
        cursor.done(9);
        let saved = SavedGroup { cursor, counts: [(7, 3)].into() };
        let group = |number: u32, saved: &SavedGroup| {
            let reader = ShardReader::new(dir.path(), 0, Arc::default(), 0, false, 0);
            Arc::new(ConsumerGroup {
                number,
                dead_number: 1,
                name: format!("g{number}"),
                filter: EventFilter::all(),
                fault: None,
                limits: Mutex::new(LagLimits { bytes_max: 1, age_max_ns: 1 }),
                parts: vec![GroupPart::new(policy, saved.clone(), 1, reader)],
                bell: Bell::default(),
                deleted: AtomicBool::new(false),
                next_member: AtomicU64::new(0),
                started: driver::now(),
            })
        };
        let groups = [group(3, &saved), group(8, &SavedGroup::default())];
        let encoded = encode_groups(groups.iter(), 0);
        assert_eq!(encoded.lows, [(3, 5), (8, 0)].into());
        let expected: BTreeMap<u32, SavedGroup> = [(3, saved), (8, SavedGroup::default())].into();
        assert_eq!(decode_groups(&encoded.bytes), Some(expected));
        for cut in 0..encoded.bytes.len() {
            assert_eq!(decode_groups(&encoded.bytes[..cut]), None);
        }
    }
}
