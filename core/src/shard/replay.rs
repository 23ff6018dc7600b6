//! Replays at work: on each shard a lane of its own, which reads the log from a place in the past and sends what it finds
//! there to its destination. The destination's ordinary lane does not notice.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::Instant;

use super::Shard;
use super::bell::Bell;
use super::dispatch::Backlog;
use super::gate::Holds;
use super::lanes::{LaneSlot, Saved, Way};
use super::queues::Queue;
use super::stats::LaneStats;
use crate::delivery::pace::Pace;
use crate::driver;
use crate::filter::EventFilter;
use crate::lock::Mutex;
use crate::log::BLOCK_BYTES;
use crate::log::appender::Position;
use crate::log::cursor::Cursor;
use crate::log::reader::event_of;
use crate::log::record::{RecordView, Route};
use crate::rule::{Destination, LiveDestinations};

/// The most events that a replay has in memory on one shard: enough for full batches, little beside the live lanes.
const EVENTS_MAX: usize = 1024;

/// A replay, as host threads and shards share it.
#[derive(Debug)]
pub(crate) struct Replay {
    /// What the shards' cursor files know it by.
    pub(crate) number: u32,
    pub(crate) name: String,
    pub(crate) filter: EventFilter,
    /// Under which its dead letters are filed.
    pub(crate) destination_number: u32,
    /// The destination is one of the rules', and changes with them.
    pub(crate) named: bool,
    /// `None` until somebody says, after a restart, where a replay goes whose destination is none of the rules'.
    pub(crate) destination: Mutex<Option<Arc<Destination>>>,
    pub(crate) not_before_ns: u64,
    pub(crate) until_ns: u64,
    pub(crate) pace: Option<Pace>,
    /// One per shard.
    pub(crate) parts: Vec<Part>,
    pub(crate) cancelled: AtomicBool,
    pub(crate) bell: Bell,
}

/// A replay on one shard.
#[derive(Debug, Default)]
pub(crate) struct Part {
    /// Everything up to here is not wanted.
    pub(crate) start: u64,
    /// What lies between `start` and the oldest segment is missing, not merely not asked for.
    pub(crate) strict: bool,
    /// The last sequence that is wanted.
    pub(crate) until: u64,
    pub(crate) stats: Arc<LaneStats>,
    /// How far the log was read.
    pub(crate) seen: AtomicU64,
    /// Sequences that were wanted and were not in the log any more.
    pub(crate) missing: AtomicU64,
    state: AtomicU8,
}

/// What becomes of a replay on one shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum PartState {
    /// Not begun, or nobody has said to where.
    Waiting = 0,
    Running = 1,
    Done = 2,
    Cancelled = 3,
    /// Its destination is gone.
    Failed = 4,
}

impl Part {
    pub(crate) fn new(start: u64, strict: bool, until: u64) -> Part {
        Part { start, strict, until, ..Part::default() }
    }

    pub(crate) fn state(&self) -> PartState {
        match self.state.load(Ordering::Acquire) {
            1 => PartState::Running,
            2 => PartState::Done,
            3 => PartState::Cancelled,
            4 => PartState::Failed,
            _ => PartState::Waiting,
        }
    }

    fn set(&self, state: PartState) {
        self.state.store(state as u8, Ordering::Release);
    }
}

/// A replay's lane's way to the replay.
pub(super) struct ReplayLane {
    pub(super) replay: Arc<Replay>,
    shard: usize,
}

impl ReplayLane {
    pub(super) fn part(&self) -> &Part {
        &self.replay.parts[self.shard]
    }

    /// Whether the record is behind what is wanted.
    pub(super) fn is_beyond(&self, r: &RecordView<'_>) -> bool {
        r.sequence() > self.part().until || r.header().clock_ns > self.replay.until_ns
    }

    /// How the record goes to the replay's destination, if it does.
    pub(super) fn route(&self, r: &RecordView<'_>, number: u32, destination: Option<&Destination>) -> Option<Route> {
        if r.header().clock_ns < self.replay.not_before_ns {
            return None;
        }
        let frame = event_of(r)?;
        if !destination?.profile.expressible(frame.event_type()) || !self.replay.filter.matches(&frame) {
            return None;
        }
        // The rule that sent it there at the time, or else the first that sent it anywhere.
        let route = r.routes().find(|x| x.destination == number).or_else(|| r.routes().next());
        Some(Route { destination: number, ..route.unwrap_or(Route::new(number, 0)) })
    }

    /// Whether the pace allows another event now.
    pub(super) fn is_due(&self) -> bool {
        self.replay.pace.as_ref().is_none_or(|p| p.ready_at() <= driver::now())
    }

    /// Takes an event off the pace; `false` if another shard was faster.
    pub(super) fn take(&self) -> bool {
        self.replay.pace.as_ref().is_none_or(|p| p.take(driver::now()).is_ok())
    }

    /// When the pace allows the next event, a time that has come if it does now; `None` without a pace.
    pub(super) fn due_at(&self) -> Option<Instant> {
        self.replay.pace.as_ref().map(Pace::ready_at)
    }
}

impl Shard {
    /// Begins or resumes a replay here.
    pub(super) fn start_replay(self: &Rc<Self>, replay: &Arc<Replay>) {
        let part = &replay.parts[self.shared.index];
        if self.keeping.replays.borrow().contains_key(&replay.number) || part.state() != PartState::Waiting {
            return;
        }
        let destination = replay.destination.lock().clone();
        let saved = self.keeping.replay_cursors.borrow().get(&replay.number).cloned();
        if let Some(low) = saved.as_ref().map(Cursor::low) {
            part.seen.store(low, Ordering::Relaxed);
        }
        let Some(destination) = destination else { return };
        let fresh = saved.is_none();
        let mut cursor = saved.unwrap_or_else(|| Cursor::at(part.start));
        // By the clocks in the headers, if that is what was asked for.
        let segments = self.files.infos();
        let by_time = segments.iter().rev().find(|s| s.header.base_clock_ns < replay.not_before_ns);
        let by_sequence = segments.iter().find(|s| s.last_sequence > cursor.low());
        let first = if fresh && replay.not_before_ns > 0 { by_time.or(by_sequence) } else { by_sequence };
        if let Some(first) = first {
            let before = first.header.base_sequence.saturating_sub(1);
            if before > cursor.low() {
                if part.strict || !fresh {
                    part.missing.fetch_add(before - cursor.low(), Ordering::Relaxed);
                }
                cursor.raise(before);
            }
        }
        if first.is_none() && part.until > cursor.low() && (part.strict || !fresh) {
            part.missing.fetch_add(part.until - cursor.low(), Ordering::Relaxed);
        }
        let Some(first) = first.filter(|_| cursor.low() < part.until) else {
            self.keeping.replay_cursors.borrow_mut().insert(replay.number, Cursor::at(part.until));
            part.seen.store(part.until, Ordering::Relaxed);
            part.set(PartState::Done);
            replay.bell.ring();
            return;
        };
        let at = Position { segment: first.header.id, offset: BLOCK_BYTES as u64 };
        let low = cursor.low();
        let mut slot = LaneSlot::new(
            replay.destination_number,
            Some(destination),
            Way::OF_REPLAYS,
            Saved { cursor, ..Saved::new(0) },
            Some(Backlog::at(at, low)),
            Holds::default(),
            part.stats.clone(),
            Queue::of_replay(),
            self.place(true),
            self.config.delivery.lane_events_max.min(EVENTS_MAX),
        );
        slot.replay = Some(ReplayLane { replay: replay.clone(), shard: self.shared.index });
        let slot = Rc::new(slot);
        part.seen.store(low, Ordering::Relaxed);
        part.set(PartState::Running);
        self.keeping.replay_cursors.borrow_mut().remove(&replay.number);
        self.keeping.replay_marks.borrow_mut().insert(replay.number, low);
        self.keeping.replays.borrow_mut().insert(replay.number, slot.clone());
        self.start_lane(&slot);
    }

    /// Ends a replay here before it is through.
    pub(super) fn end_replay(&self, replay: &Arc<Replay>, how: PartState) {
        let slot = self.keeping.replays.borrow().get(&replay.number).cloned();
        let part = &replay.parts[self.shared.index];
        match slot {
            Some(slot) => {
                part.set(how);
                slot.stop();
                self.house_wake.notify();
            }
            None => {
                if part.state() != PartState::Done {
                    part.set(how);
                }
                replay.bell.ring();
            }
        }
    }

    /// Drops what is left of a replay, of which nobody will ask again.
    pub(super) fn forget_replay(&self, number: u32) {
        self.keeping.replay_cursors.borrow_mut().remove(&number);
    }

    /// Clears away the replays that are through or were ended.
    pub(super) async fn reap_replays(&self) {
        let slots: Vec<(u32, Rc<LaneSlot>)> =
            self.keeping.replays.borrow().iter().map(|(n, s)| (*n, s.clone())).collect();
        for (number, slot) in slots {
            let Some(lane) = &slot.replay else { continue };
            let part = lane.part();
            let ended = matches!(part.state(), PartState::Cancelled | PartState::Failed);
            // Its dead letters are read from the log, which must stay until then.
            if !(slot.is_through() || ended) || self.dead.has(&slot) {
                continue;
            }
            slot.end().await;
            self.give_back(&slot);
            if slot.is_through() && part.state() == PartState::Running {
                self.keeping.replay_cursors.borrow_mut().insert(number, Cursor::at(part.until));
                part.seen.store(part.until, Ordering::Relaxed);
                part.set(PartState::Done);
            }
            self.keeping.replays.borrow_mut().remove(&number);
            self.keeping.replay_marks.borrow_mut().remove(&number);
            lane.replay.bell.ring();
        }
    }

    /// The rules have changed: replays to their destinations follow.
    pub(super) fn reload_replays(&self, destinations: &LiveDestinations) {
        let slots: Vec<Rc<LaneSlot>> = self.keeping.replays.borrow().values().cloned().collect();
        for slot in slots {
            let Some(lane) = slot.replay.as_ref().filter(|l| l.replay.named) else { continue };
            match destinations.get(slot.number) {
                Some(d) => slot.reconfigure(d.clone(), Way::OF_REPLAYS),
                None => self.end_replay(&lane.replay.clone(), PartState::Failed),
            }
        }
    }
}
