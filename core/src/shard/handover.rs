//! Handing over: the events of a destination with [`Order::Strict`] are all delivered by one shard, its home.
//!
//! On every shard the destination's lane sends to the home's ring instead of the network: the frame, the route, and the id
//! and clock that the event was accepted with. The event is done there once the home has it synced. The home knows per
//! destination and shard which record it was given last, durably, and drops what comes again after a crash. Another lane,
//! which only the home has, delivers what was handed over in the order in which that was. The home hands its own events over
//! to itself: so what came to it first is first, also when the number of shards or the home has changed and the others'
//! events from before must be first.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::lanes::Way;
use super::message::{Prefix, Tag};
use super::progress::Receipt;
use super::ring::PushError;
use super::{Shard, Shared, shard_of};
use crate::delivery::lane::{Fault, LanePolicy, Outcome};
use crate::delivery::{Attempt, Connector, Record};
use crate::log::Ack;
use crate::log::appender::Appender;
use crate::log::cursor::Cursor;
use crate::log::record::{Extensions, HandedOver, Kind, Origin, RecordView, Route};
use crate::log::recovery::ShardState;
use crate::rule::{BatchLimits, Destination, Order, RetryPolicy};

/// In the number of a lane: it delivers what was handed over to its destination's home.
pub(crate) const DELIVERY: u32 = 1 << 31;

/// Whether nothing waits for a destination that had been there before.
pub(crate) fn nothing_waits(state: &ShardState, destination: u32) -> bool {
    let head = state.next_sequence - 1;
    let delivered = |lane| state.done(lane, false) >= head;
    delivered(destination) && (!was_handed(state, destination) || delivered(destination | DELIVERY))
}

/// Whether this shard was handed over something of a destination, now or ever.
fn was_handed(state: &ShardState, destination: u32) -> bool {
    state.cursors.lanes.contains_key(&(destination | DELIVERY))
        || state.checkpoint.handed_destinations().any(|d| d == destination)
}

/// The number of the lane that a record goes to on its way to a destination.
#[inline]
pub(super) fn lane_of(record: &RecordView<'_>, destination: u32) -> u32 {
    if record.is_extended() && record.extensions().handed_over.is_some() { destination | DELIVERY } else { destination }
}

/// The shard that delivers a destination's events, if it is one for all of them.
fn home(destination: &Destination, shards: usize) -> Option<usize> {
    let hash = xxhash_rust::xxh3::xxh3_64(destination.name.as_bytes());
    (destination.order == Order::Strict).then(|| shard_of(hash, shards))
}

/// What earlier runs handed over, as one shard must know it.
#[derive(Clone, Default)]
pub(crate) struct Handed {
    /// Per destination, the shards that have something left to deliver that they were handed over. A lane that hands over to
    /// another one now, or to none, waits for that.
    waits_for: Arc<BTreeMap<u32, Vec<usize>>>,
    /// Per destination and shard, the last of its records that any shard was given.
    pub(super) taken_over: Arc<BTreeMap<(u32, u16), u64>>,
    /// Per destination, the records here that will be handed over once more, because one before them is not here.
    void: BTreeMap<u32, Vec<u64>>,
}

impl Handed {
    /// The shards that must deliver first what they were handed over of a destination.
    pub(super) fn waits_for(&self, destination: u32) -> &[usize] {
        self.waits_for.get(&destination).map_or(&[], Vec::as_slice)
    }

    /// The last record of this shard that the home of a destination has.
    pub(super) fn given(&self, destination: u32, shard: usize) -> u64 {
        self.taken_over.get(&(destination, shard as u16)).copied().unwrap_or(0)
    }

    /// The cursor of the lane that delivers what this shard was handed over of a destination, if it has something of it.
    pub(super) fn cursor(&self, destination: u32, state: &ShardState) -> Option<Cursor> {
        if !was_handed(state, destination) {
            return None;
        }
        let mut cursor = state.cursor(destination | DELIVERY, false);
        self.void.get(&destination).into_iter().flatten().for_each(|sequence| cursor.done(*sequence));
        Some(cursor)
    }
}

/// What earlier runs handed over, by shard. No shard will use a sequence again that another one knows.
pub(crate) fn handed(states: &mut BTreeMap<usize, ShardState>) -> BTreeMap<usize, Handed> {
    let mut waits_for: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
    let mut taken_over: BTreeMap<(u32, u16), u64> = BTreeMap::new();
    let mut void: BTreeMap<usize, BTreeMap<u32, Vec<u64>>> = BTreeMap::new();
    let low = |state: &ShardState, lane: u32| state.cursors.lanes.get(&lane).map_or(0, Cursor::low);
    for (home, state) in states.iter() {
        let checkpoint = &state.checkpoint;
        let mut take = |from: (u32, u16), sequence: u64| {
            let last = taken_over.entry(from).or_default();
            *last = (*last).max(sequence);
        };
        checkpoint.handed_over().iter().for_each(|(from, sequence)| take(*from, *sequence));
        for gap in checkpoint.behind_gaps() {
            let (shard, sequence) = gap.from;
            // What the other shard knows to be here is not handed over again; then what is missing was damaged.
            match states.get(&usize::from(shard)) {
                Some(source) if gap.again || low(source, gap.destination) < sequence => {
                    void.entry(*home).or_default().entry(gap.destination).or_default().push(gap.sequence);
                }
                _ => take((gap.destination, shard), sequence),
            }
        }
        let destinations: BTreeSet<u32> = checkpoint.handed_destinations().collect();
        for destination in destinations {
            if low(state, destination | DELIVERY) + 1 < state.next_sequence {
                waits_for.entry(destination).or_default().push(*home);
            }
        }
    }
    for ((_, shard), sequence) in &taken_over {
        if let Some(state) = states.get_mut(&usize::from(*shard)) {
            state.next_sequence = state.next_sequence.max(sequence + 1);
        }
    }
    let (waits_for, taken_over) = (Arc::new(waits_for), Arc::new(taken_over));
    let mut handed = |shard: &usize| Handed {
        waits_for: waits_for.clone(),
        taken_over: taken_over.clone(),
        void: void.remove(shard).unwrap_or_default(),
    };
    states.keys().map(|shard| (*shard, handed(shard))).collect()
}

/// How events go to another shard: in order, soon again after a failure, and never given up.
pub(super) fn policy(events_max: usize) -> LanePolicy {
    LanePolicy {
        batch: BatchLimits { events_max: 256, bytes_max: 64 * 1024, linger: Duration::ZERO },
        retry: RetryPolicy {
            backoff_min: Duration::from_millis(5),
            backoff_max: Duration::from_millis(200),
            age_max: Duration::from_nanos(u64::MAX),
            attempts_max: None,
            poison_attempts: u32::MAX,
            retry_after_max: Duration::ZERO,
        },
        events_max,
    }
}

/// The way from a lane into another shard's ring.
struct HandOver {
    home: Arc<Shared>,
}

impl HandOver {
    async fn send(&self, messages: &[Record]) -> Outcome {
        let shard = self.home.index;
        let failed = |what: String| Outcome::Retry { fault: Fault::Own, reason: what, status: 0, answer: Bytes::new() };
        let ring = &self.home.ring;
        let mut position = 0;
        for message in messages.iter().map(|m| &m.bytes) {
            match ring.push_late(message.len(), Tag::prefixed(Ack::Synced).number(), |out| out.copy_from_slice(message))
            {
                Ok(p) => position = p,
                // The next attempt begins with the first one again; the home drops what it has.
                Err(PushError::Full) => {
                    ring.notify(true);
                    return failed(format!("the ring of shard {shard}, which delivers, is full"));
                }
                Err(PushError::Closed) => return failed(format!("shard {shard}, which delivers, is closed")),
            }
        }
        ring.notify(true);
        match Receipt::new(self.home.clone(), position).reached(Ack::Synced).await {
            Ok(()) => Outcome::Success,
            Err(e) => failed(e.to_string()),
        }
    }
}

impl Connector for HandOver {
    fn send<'a>(&'a self, records: &'a [Record]) -> Attempt<'a> {
        Box::pin(self.send(records))
    }

    fn expire(&self, _: Instant) {}

    fn connections(&self) -> u64 {
        0
    }
}

impl Shard {
    /// The way of a destination's events from this shard.
    pub(super) fn way(&self, destination: Option<&Destination>) -> Way {
        // All alone, a shard has nobody whose events could mix with its own.
        let home = destination.and_then(|d| home(d, self.shared.common.publishing)).filter(|_| self.peers.len() > 1);
        Way { order: destination.map_or_else(Order::default, |d| d.order), home }
    }

    /// The shard of a number that is one of the engine's.
    pub(super) fn peer(&self, number: usize) -> &Arc<Shared> {
        self.peers.iter().find(|p| p.index == number).unwrap_or(&self.shared)
    }

    /// The way to the shard that delivers, which may be this one.
    pub(super) fn hand_over_to(&self, home: usize) -> Rc<dyn Connector> {
        Rc::new(HandOver { home: self.peer(home).clone() })
    }

    /// What the home of a destination is given of an event.
    pub(super) fn message(&self, record: &RecordView<'_>, route: Route, origin: &Origin) -> Bytes {
        let extensions = Extensions {
            origin: Some(*origin),
            handed_over: Some(HandedOver { shard: self.shared.index as u16, sequence: record.sequence(), previous: 0 }),
            hops: record.extensions().hops,
            ..Extensions::default()
        };
        let prefix = Prefix { route: Some(route), extensions, ..Prefix::new(record.header().kind) };
        let mut message = vec![0; prefix.encoded_len() + record.body().len()];
        prefix.encode(&mut message).copy_from_slice(record.body());
        Bytes::from(message)
    }

    /// Appends an event that another shard hands over, unless it did before.
    pub(super) fn take_over(
        &self,
        appender: &mut Appender,
        kind: Kind,
        route: Route,
        extensions: &Extensions,
        frame: &[u8],
        wall_ns: u64,
    ) {
        let Some(from) = extensions.handed_over else { return };
        let mut taken_over = self.taken_over.borrow_mut();
        let last = taken_over.entry((route.destination, from.shard)).or_default();
        if from.sequence > *last {
            *last = from.sequence;
            // What recovery finds without the one before it is there because a write came through in part.
            let key = (route.destination, from.shard);
            let previous = self.taken_in_this_run.borrow_mut().insert(key, from.sequence).unwrap_or(0);
            let extensions = Extensions { handed_over: Some(HandedOver { previous, ..from }), ..*extensions };
            appender.append_extended(kind, &[route], &extensions, frame, wall_ns);
        }
    }

    /// Whether nothing will be handed over to this shard any more. Called while the ring is closed and no reservation of
    /// this shard is open.
    pub(super) fn all_handed_over(&self) -> bool {
        if self.peers.len() == 1 || !self.snapshot.borrow().hands_over {
            self.tell_handed_over();
            return true;
        }
        let ring = &self.shared.ring;
        if self.own_end.get().is_none() && ring.head() == ring.tail() {
            self.own_end.set(Some(self.appender.borrow().next_sequence() - 1));
        }
        let dispatched = self.dispatched.get();
        let own_is_out = self.own_end.get().is_some_and(|end| {
            let lanes = self.lanes.borrow();
            dispatched >= end && lanes.values().all(|slot| slot.home().is_none() || slot.low(dispatched) >= end)
        });
        if own_is_out {
            self.tell_handed_over();
        }
        self.peers.iter().all(|peer| peer.handed_over.load(Ordering::Acquire))
    }

    /// This shard hands nothing over any more.
    pub(super) fn tell_handed_over(&self) {
        if !self.shared.handed_over.swap(true, Ordering::AcqRel) {
            for peer in self.peers.iter().filter(|p| p.index != self.shared.index) {
                peer.ring.wake();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::appender::SegmentPlan;
    use crate::log::layout::Since;
    use crate::log::recovery::recover_shard;
    use crate::log::segment::{Purpose, SegmentHeader};

    const DESTINATION: u32 = 3;

    /// The home as it is found with these records of shard 0, each with the one before it as it was handed over.
    fn home(records: &[(u64, u64)]) -> ShardState {
        let dir = tempfile::tempdir().unwrap();
        let plan = SegmentPlan { bytes_max: 1 << 20, shard: 1, incarnation: 1, purpose: Purpose::Events };
        let mut appender = Appender::new(plan, 1, 0, 1, 0);
        for (sequence, previous) in records {
            let handed_over = Some(HandedOver { shard: 0, sequence: *sequence, previous: *previous });
            let extensions = Extensions { handed_over, ..Extensions::default() };
            appender.append_extended(Kind::Event, &[Route::new(DESTINATION, 1)], &extensions, b"", 1);
        }
        let mut bytes = appender.take().unwrap().bytes;
        std::fs::write(dir.path().join(SegmentHeader::file_name(1)), bytes.padded(4096)).unwrap();
        recover_shard(dir.path(), Since::default()).unwrap()
    }

    /// Of which records here nothing is delivered, and up to which of its own shard 0 need not hand over again.
    fn passed_over(home: ShardState, source_low: u64) -> (Vec<u64>, u64) {
        let dir = tempfile::tempdir().unwrap();
        let mut source = recover_shard(dir.path(), Since::default()).unwrap();
        source.cursors.lanes.insert(DESTINATION, Cursor::at(source_low));
        let mut states = BTreeMap::from([(0, source), (1, home)]);
        let all = handed(&mut states);
        assert_eq!(all[&0].waits_for(DESTINATION), [1], "the others wait until the home has delivered this");
        assert!(!nothing_waits(&states[&1], DESTINATION));
        let cursor = all[&1].cursor(DESTINATION, &states[&1]).expect("a lane");
        let last = states[&1].checkpoint.through();
        ((1..=last).filter(|n| cursor.is_done(*n)).collect(), all[&0].given(DESTINATION, 0))
    }

    #[test]
    fn what_stands_behind_a_hole_and_comes_again_is_not_delivered_twice_and_too_soon() {
        // 1 and 2 were in the hole, and nothing else of the destination is here.
        assert_eq!(passed_over(home(&[(5, 2), (6, 5)]), 0), (vec![1, 2], 0));
        // They came again, and the other shard has saved that before this one has.
        assert_eq!(passed_over(home(&[(5, 2), (1, 0), (2, 1), (5, 2)]), 5), (vec![1], 5));
        // It is known to be here, so what is missing was damaged.
        assert_eq!(passed_over(home(&[(5, 2)]), 5), (vec![], 5));
        assert_eq!(passed_over(home(&[(1, 0), (2, 1)]), 0), (vec![], 2));
    }
}
