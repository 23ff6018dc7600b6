//! Dispatch: from the log to the lanes, at once while a lane keeps up, from the segments when it does not.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures::channel::oneshot;

use super::crowd::Straggler;
use super::gate::Holds;
use super::handover::{DELIVERY, Handed, lane_of};
use super::lanes::{Body, LaneSlot, Place, Saved, Way};
use super::snapshot::Snapshot;
use super::{EverDestinations, Shard};
use crate::delivery::balance::region_number;
use crate::delivery::behind::KeysBehind;
use crate::delivery::endpoint::Seat;
use crate::delivery::lane::Item;
use crate::driver::{self, DiskFile};
use crate::error::{Error, Result};
use crate::event::format::Format;
use crate::event::profile::{DeadNote, Profile, RecordContext, Story};
use crate::event::{EventId, FrameView, Priority, Sequencer};
use crate::log::BLOCK_BYTES;
use crate::log::appender::{Group, Position};
use crate::log::attempts::{self, AllTried};
use crate::log::cursor::section;
use crate::log::losses::{Loss, LossReason};
use crate::log::record::{self, DeadLetter, Kind, Origin, Parsed, RecordView, Route};
use crate::log::recovery::{self, SegmentInfo, ShardState};
use crate::log::shed;
use crate::rule::{self, Destination, LiveDestinations};

/// Bytes read from a segment at a time.
pub(super) const READ_BYTES: usize = 256 * 1024;
/// A lane that has fallen behind reads on once it has room for so many events.
pub(super) const READ_ON_ROOM: usize = 64;

/// Lanes of a shard that note whose events they leave in the log; each takes [`KeysBehind::BYTES`].
const KEY_TABLES_MAX: usize = 16;
/// How often closing looks whether a destination was suspended meanwhile.
const LOOK: Duration = Duration::from_millis(100);
/// More events than a lane can have tried.
const TRIED_MAX: u64 = 1 << 24;

/// Who waits until everything accepted up to a ring position is out.
pub(super) struct FlushRequest {
    position: u64,
    /// Of this destination only.
    destination: Option<u32>,
    /// The last sequence that counts, once the position has been dispatched.
    sequence: Option<u64>,
    straggler: Straggler,
    reply: Option<oneshot::Sender<()>>,
}

/// Keeps in `routes` at most `max` routes and one per destination; returns the others.
pub(super) fn split_repeats(routes: &mut Vec<Route>, max: usize) -> Vec<Route> {
    if routes.len() <= max && routes.windows(2).all(|w| w[0].destination != w[1].destination) {
        // Routes come ordered by place, so equal destinations are neighbours.
        return Vec::new();
    }
    let mut seen = BTreeSet::new();
    let (first, rest): (Vec<Route>, Vec<Route>) =
        routes.drain(..).partition(|r| seen.len() < max && seen.insert(r.destination));
    *routes = first;
    rest
}

/// The frame of a record that is delivered, and the letter that it is in if it was passed on as one. Nothing, if the letter
/// is not one.
fn deliverable<'a>(record: &RecordView<'a>) -> (&'a [u8], Option<DeadLetter<'a>>) {
    if record.header().kind != Kind::Forward {
        return (record.body(), None);
    }
    match DeadLetter::decode(record.body()) {
        Ok(letter) => (letter.frame, Some(letter)),
        Err(_) => (&[], None),
    }
}

fn event_id(origin: &Origin) -> EventId {
    EventId { incarnation: origin.incarnation, shard: origin.shard, sequence: origin.sequence }
}

/// A format that adds nothing to the profile.
static PLAIN: Format = Format::PLAIN;

/// A record that was written for one destination, and is for others of the same format as well.
struct Rendered {
    profile: Profile,
    /// The destination, if its format is not plain.
    special: Option<Arc<Destination>>,
    rule: u32,
    bytes: Bytes,
    /// The bytes are the reason why there is no record.
    unwritable: bool,
}

impl Rendered {
    #[inline]
    fn is_for(&self, profile: Profile, special: Option<&Arc<Destination>>, rule: u32) -> bool {
        let same = || match (&self.special, special) {
            (None, None) => true,
            (Some(a), Some(b)) => Arc::ptr_eq(a, b) || a.format == b.format,
            _ => false,
        };
        self.profile == profile && self.rule == rule && same()
    }
}

/// An event with what a record of it needs.
struct Writable<'a> {
    frame: &'a FrameView<'a>,
    /// The letter that it came in.
    letter: Option<&'a DeadLetter<'a>>,
    origin: &'a Origin,
    hops: u8,
}

/// A lane's way through the segments, while it is behind.
#[derive(Debug)]
pub(super) struct Backlog {
    /// Where to read on.
    at: Position,
    /// The last sequence looked at.
    seen: u64,
}

impl Backlog {
    pub(super) fn at(at: Position, seen: u64) -> Backlog {
        Backlog { at, seen }
    }

    pub(super) fn position(&self) -> Position {
        self.at
    }

    pub(super) fn seen(&self) -> u64 {
        self.seen
    }
}

impl Shard {
    /// Makes the lanes that the rules and the saved cursors call for.
    pub(super) fn recover_lanes(
        self: &Rc<Self>,
        state: &ShardState,
        handed: &Handed,
        ever: &EverDestinations,
        mut holds: BTreeMap<u32, Holds>,
    ) {
        let snapshot = self.snapshot.borrow().clone();
        let head = state.next_sequence - 1;
        let known = snapshot.destinations.by_number().map(|(n, d)| (n, Some(d.clone())));
        let gone = ever.all.iter().filter(|n| snapshot.destination(**n).is_none());
        let orphans = gone.map(|n| (*n, snapshot.destinations.settings(*n)));
        let all: Vec<_> = known.chain(orphans).collect();
        let saved = state.cursors.sections.get(&section::ATTEMPTS).map_or(&[][..], Vec::as_slice);
        let mut tried = attempts::decode(saved, TRIED_MAX).unwrap_or_else(|| {
            log::error!("shard {}: the counts of attempts cannot be understood and begin anew", self.shared.index);
            AllTried::default()
        });
        let saved = state.cursors.sections.get(&section::SHED).map_or(&[][..], Vec::as_slice);
        let mut shed = shed::decode(saved).unwrap_or_else(|| {
            log::error!("shard {}: what was shed is not known any more; it is delivered", self.shared.index);
            BTreeMap::new()
        });
        let of_homes = all.clone();
        for (number, destination) in all {
            let mut cursor = state.cursor(number, ever.new.contains(&number));
            // Events were handed over in order, so everything up to the last is done here.
            cursor.raise(handed.given(number, self.shared.index).min(head));
            let (tried, shed) = (tried.remove(&number).unwrap_or_default(), shed.remove(&number).unwrap_or_default());
            let holds = holds.remove(&number).unwrap_or_default();
            let slot = self.add_lane(number, destination, Saved { cursor, tried, shed }, head, holds);
            handed.waits_for(number).iter().for_each(|home| slot.hold_for(*home));
        }
        for (number, destination) in of_homes {
            let mine = self.way(destination.as_deref()).home == Some(self.shared.index);
            let cursor = match handed.cursor(number, state) {
                Some(cursor) => cursor,
                None if mine => state.cursor(number | DELIVERY, false),
                None => continue,
            };
            let number = number | DELIVERY;
            let (tried, shed) = (tried.remove(&number).unwrap_or_default(), shed.remove(&number).unwrap_or_default());
            self.add_lane(number, destination, Saved { cursor, tried, shed }, head, Holds::default());
        }
        for (number, retired) in snapshot.destinations.retired() {
            if let Some(slot) = self.lanes.borrow().get(number).filter(|_| retired.backlog == rule::Backlog::Purge) {
                slot.retire(None, true);
            }
        }
        self.follow_moved(&snapshot.destinations, head, |_| false);
    }

    /// Adds a lane; one whose cursor is not at `head` starts behind and reads the segments, and so does one that must wait
    /// for others before it delivers what will be there.
    fn add_lane(
        self: &Rc<Self>,
        number: u32,
        destination: Option<Arc<Destination>>,
        mut saved: Saved,
        head: u64,
        holds: Holds,
    ) -> Rc<LaneSlot> {
        let backlog = match self.files.containing(saved.cursor.low() + 1) {
            Some(s) if saved.cursor.low() < head => {
                Some(Backlog::at(Position { segment: s.header.id, offset: BLOCK_BYTES as u64 }, saved.cursor.low()))
            }
            _ => {
                saved.cursor.raise(head);
                let next = Position { segment: self.appender.borrow().next_segment(), offset: BLOCK_BYTES as u64 };
                (!holds.is_empty()).then(|| Backlog::at(next, head))
            }
        };
        let stats = self.shared.lane_stats.lock().entry(number).or_default().clone();
        let way = if number & DELIVERY == 0 { self.way(destination.as_deref()) } else { Way::OF_DELIVERY };
        let events_max = self.config.delivery.lane_events_max;
        let queue = self.queues.of(number & !DELIVERY, destination.as_ref().map(|d| &d.queue));
        let place = self.place(false);
        let slot =
            Rc::new(LaneSlot::new(number, destination, way, saved, backlog, holds, stats, queue, place, events_max));
        self.lanes.borrow_mut().insert(number, slot.clone());
        slot
    }

    /// Where a lane of this shard asks whether it may send.
    pub(super) fn place(&self, replays: bool) -> Place {
        let region = region_number(&self.config.region);
        Place { endpoints: self.shared.common.endpoints.clone(), seat: Seat::new(self.shared.index, replays), region }
    }

    /// Takes the rules into force that hold from a ring position on.
    pub(super) fn adopt_rules(&self, position: u64) {
        let mut next = self.next_snapshots.borrow_mut();
        while next.front().is_some_and(|(from, _)| *from <= position) {
            if let Some((_, snapshot)) = next.pop_front() {
                self.shared.rules_ahead.fetch_sub(1, Ordering::Release);
                let before = std::mem::replace(&mut *self.snapshot.borrow_mut(), snapshot.clone());
                if !Arc::ptr_eq(&before.destinations, &snapshot.destinations) {
                    let gone = |n: u32| before.destinations.retired().contains_key(&n);
                    self.follow_moved(&snapshot.destinations, self.appender.borrow().next_sequence() - 1, gone);
                }
            }
        }
    }

    /// Destinations to which what waits for another one was moved get it first: everything up to a sequence. `known` are those
    /// of which that was seen to before.
    pub(super) fn follow_moved(&self, destinations: &LiveDestinations, sequence: u64, known: impl Fn(u32) -> bool) {
        let lanes = self.lanes.borrow();
        for (number, _) in destinations.by_number() {
            let Some(slot) = lanes.get(&number) else { continue };
            for moved in destinations.moved_to(number).into_iter().filter(|n| !known(*n)) {
                if let Some(moved) = lanes.get(&moved) {
                    slot.follow(moved.clone(), sequence);
                }
            }
        }
    }

    /// Looks at the destinations of a snapshot: those that are new get lanes, and if no newer one was looked at, changed ones
    /// get their new settings and those that are gone are retired.
    ///
    /// Each snapshot has to be looked at, also one that is followed by another at once: events that were published between
    /// the two are matched by it, and need the lanes of its destinations.
    pub(super) fn reload_lanes(self: &Rc<Self>, snapshot: &Snapshot) {
        let destinations = &snapshot.destinations;
        if Arc::ptr_eq(destinations, &self.lane_destinations.borrow().0) {
            return;
        }
        let (known, version) = self.lane_destinations.borrow().clone();
        // Records that are not dispatched yet may be for a new destination, if another shard has handed them over.
        let head = self.dispatched.get();
        let is_newest = snapshot.version >= version;
        // Most are as they were, whose lanes were seen to.
        let changed = destinations.by_number().filter(|(n, d)| !known.get(*n).is_some_and(|k| Arc::ptr_eq(k, d)));
        for (number, destination) in changed {
            let way = self.way(Some(destination));
            let mut own = vec![(number, way)];
            if way.home == Some(self.shared.index) || self.lanes.borrow().contains_key(&(number | DELIVERY)) {
                own.push((number | DELIVERY, Way::OF_DELIVERY));
            }
            if is_newest {
                self.queues.configure(&self.queues.of(number, Some(&destination.queue)), &destination.queue);
            }
            for (lane, way) in own {
                let existing = self.lanes.borrow().get(&lane).cloned();
                match existing {
                    Some(slot) if is_newest => slot.reconfigure(destination.clone(), way),
                    Some(_) => {}
                    None => {
                        let saved = Saved::new(head);
                        let slot = self.add_lane(lane, Some(destination.clone()), saved, head, Holds::default());
                        self.start_lane(&slot);
                    }
                }
            }
        }
        // What a newer one says of lanes that were made just now holds too.
        let newest = if is_newest { destinations.clone() } else { known };
        for (number, retired) in newest.retired() {
            for number in [*number, *number | DELIVERY] {
                if let Some(slot) = self.lanes.borrow().get(&number).cloned() {
                    slot.retire(newest.settings(slot.number), retired.backlog == rule::Backlog::Purge);
                }
            }
        }
        self.guard_wake.notify();
        if is_newest {
            self.reload_replays(destinations);
            *self.lane_destinations.borrow_mut() = (newest, snapshot.version);
        }
    }

    /// An event that goes into the log takes its place in the queues now: whoever hears that it is written finds it counted.
    pub(super) fn enter(&self, routes: &[Route], sequence: u64, bytes: usize) {
        let lanes = self.lanes.borrow();
        for slot in routes.iter().filter_map(|r| lanes.get(&r.destination)) {
            if slot.enter(sequence, bytes) {
                self.settle_queue(slot);
            }
        }
    }

    /// Hands the records of a group that was just written to their lanes.
    pub(super) fn dispatch(self: &Rc<Self>, group: &Group) {
        // A shard that has heard of new rules earlier may have handed over events for a new destination.
        let newest = self.snapshots.load_full();
        self.reload_lanes(&newest);
        let lanes = self.lanes.borrow();
        let mut checkpoint = self.checkpoint.borrow_mut();
        let mut rendered: Vec<Rendered> = Vec::new();
        let mut told: Vec<u32> = Vec::new();
        for (position, record) in group.iter() {
            checkpoint.note(position, &record);
            if record.sequence() <= self.dispatched.get() {
                continue; // Written once more, to a new segment.
            }
            rendered.clear();
            for route in record.routes().take_while(|_| record.header().kind.is_delivered()) {
                let Some(slot) = lanes.get(&lane_of(&record, route.destination)) else { continue };
                if slot.mark_offered() {
                    told.push(slot.lane_number());
                }
                self.offer(slot, position, &record, route, self.incarnation, &mut rendered);
            }
            self.dispatched.set(record.sequence());
        }
        for slot in told.iter().filter_map(|number| lanes.get(number)) {
            slot.unmark_offered();
            self.settle_queue(slot);
        }
        drop(lanes);
        self.shared.set_head(self.dispatched.get());
        let mut flushes = self.flushes.borrow_mut();
        for f in flushes.iter_mut().filter(|f| f.sequence.is_none() && f.position <= group.ring_position) {
            f.sequence = Some(group.last_sequence);
        }
        drop(flushes);
        self.answer_flushes();
    }

    /// Pushes an event into a lane that keeps up; one that has no room falls behind here.
    fn offer(
        &self,
        slot: &LaneSlot,
        position: Position,
        record: &RecordView<'_>,
        route: Route,
        incarnation: u64,
        rendered: &mut Vec<Rendered>,
    ) {
        let priority = route.priority;
        slot.admit(record.sequence(), priority, record.padded_len());
        if priority != Priority::Normal {
            self.prioritised.set(true);
        }
        let key = || slot.order_key(FrameView::trusted(deliverable(record).0).resource_hash(), record.sequence());
        if slot.is_behind() {
            if !slot.notes_keys() {
                return;
            }
            let key = key();
            if priority != Priority::High
                || !slot.may_pass(key)
                || !slot.has_room(priority)
                || self.out_of_memory_for(slot, priority)
            {
                slot.leave(key, record.sequence());
                return;
            }
        } else if !slot.has_room(priority) || self.out_of_memory_for(slot, priority) {
            // Keys are noted only where there is something that could go before others.
            let noting = || self.lanes.borrow().values().filter(|s| s.notes_keys()).count();
            let keys = (self.prioritised.get() && noting() < KEY_TABLES_MAX).then(KeysBehind::default);
            slot.fall_behind(Backlog::at(position, record.sequence() - 1), keys);
            if slot.notes_keys() {
                slot.leave(key(), record.sequence());
            }
            return;
        }
        self.push(slot, position, record, route, incarnation, rendered);
        slot.notify.notify();
    }

    /// Whether a lane must leave its events in the log for now. One that holds nothing always gets some: it has nobody else
    /// who would wake it later. For high priority there is an eighth more memory.
    pub(super) fn out_of_memory_for(&self, slot: &LaneSlot, priority: Priority) -> bool {
        let (held, max) = (self.held_bytes.get() as u64, self.config.delivery.memory_bytes);
        if held <= max / 2 {
            return false;
        }
        // Replays, and what cannot go out for now, leave half of it to what can.
        let leaves_half = slot.replay.is_some() || slot.is_held_up(self.now());
        let max = if leaves_half { max / 2 } else { max };
        let max = if priority == Priority::High { max + max / 8 } else { max };
        held > max && !slot.is_empty()
    }

    /// Renders an event, or takes what was rendered for another destination, and pushes it.
    fn push(
        &self,
        slot: &LaneSlot,
        position: Position,
        record: &RecordView<'_>,
        route: Route,
        incarnation: u64,
        rendered: &mut Vec<Rendered>,
    ) {
        let (frame, letter) = deliverable(record);
        let frame = FrameView::trusted(frame);
        let origin = record.origin(incarnation, self.shared.index as u16);
        let (handed_over, hops) = (slot.home().is_some(), record.extensions().hops);
        let (bytes, unwritable) = match slot.form() {
            _ if handed_over => (self.message(record, route, &origin), false),
            // A lane without a destination only makes dead letters: nothing to render.
            None => (Bytes::new(), false),
            Some((profile, special)) => match rendered.iter().find(|r| r.is_for(profile, special.as_ref(), route.rule))
            {
                Some(r) => (r.bytes.clone(), r.unwritable),
                None => {
                    let replay = slot.replay.as_ref().map(|l| l.replay.name.as_str());
                    let format = special.as_ref().map_or(&PLAIN, |d| &d.format);
                    let event = Writable { frame: &frame, letter: letter.as_ref(), origin: &origin, hops };
                    let (bytes, unwritable) = match self.render(profile, format, &event, route.rule, replay) {
                        Ok(bytes) => (bytes, false),
                        Err(reason) => (reason.into(), true),
                    };
                    rendered.push(Rendered { profile, special, rule: route.rule, bytes: bytes.clone(), unwritable });
                    (bytes, unwritable)
                }
            },
        };
        let len = bytes.len();
        let log_bytes = record.padded_len() as u32;
        let id = event_id(&origin);
        let (rule, format) = (route.rule, slot.format_number());
        let now = self.now();
        // What will wait for long must not hold the memory that it shares with others.
        let shared = !handed_over && !slot.is_held_up(now);
        let bytes = if handed_over || shared { bytes } else { Bytes::copy_from_slice(&bytes) };
        let body = Body { id, record: bytes, position, rule, log_bytes, shared, unwritable, format };
        let accepted_ns = match hops {
            // An old event that is replayed is as young as the replay: its budget begins now.
            _ if slot.replay.is_some() => now.wall_ns,
            0 => origin.clock_ns,
            // One that comes out of the dead letters has a fresh budget.
            _ => record.header().clock_ns,
        };
        if slot.push(record.sequence(), &frame, accepted_ns, route.priority, body, now) {
            self.held_bytes.set(self.held_bytes.get() + len);
            self.shared.stats.held_bytes.set(self.held_bytes.get() as u64);
        }
    }

    /// Writes a record into the arena, with the separator before it; why not, if that cannot be.
    fn render(
        &self,
        profile: Profile,
        format: &Format,
        event: &Writable<'_>,
        rule: u32,
        replay: Option<&str>,
    ) -> std::result::Result<Bytes, String> {
        let Writable { frame, letter, origin, hops } = *event;
        let snapshot = self.snapshot.borrow();
        let context = RecordContext {
            id: event_id(origin),
            sequencer: Sequencer {
                clock_ns: origin.clock_ns,
                tie: origin.tie,
                writer: self.keeping.writers.of(origin.incarnation),
            },
            rule: snapshot.rule_id(rule),
            region: &self.config.region,
            event_source: &self.config.event_source,
        };
        let from = letter.map(|l| {
            let known = snapshot.destination(l.destination).map(|d| d.name.clone());
            known.unwrap_or_else(|| format!("removed #{}", l.destination))
        });
        let note = letter.zip(from.as_deref()).map(|(l, destination)| DeadNote {
            destination,
            reason: l.reason,
            attempts: l.attempts,
            status: l.status,
            given_up_ns: l.last_ns,
            hops,
        });
        let mut arena = self.arena.borrow_mut();
        if arena.capacity() < 4096 {
            *arena = bytes::BytesMut::with_capacity(64 * 1024);
        }
        arena.extend_from_slice(format.separator(profile));
        let story = Story { replay, note: note.as_ref(), left_out: &[] };
        if let Err(reason) = format.write(profile, frame, &context, &story, &mut arena) {
            arena.clear();
            return Err(reason);
        }
        Ok(arena.split().freeze())
    }

    /// Writes an event that a lane holds in the lane's present format; why not, if that cannot be.
    ///
    /// # Errors
    /// If the log cannot be read.
    pub(super) async fn rewrite(
        &self,
        slot: &LaneSlot,
        item: &Item<Body>,
    ) -> Result<std::result::Result<Bytes, String>> {
        let event = self.read_event(item.body.position, item.sequence).await?;
        let Some((profile, special)) = slot.form() else { return Ok(Ok(Bytes::new())) };
        let Ok(frame) = FrameView::parse(&event.frame) else {
            return Ok(Err("the event is damaged in the log".into()));
        };
        let letter = event.forwarded.as_deref().and_then(|body| DeadLetter::decode(body).ok());
        let event = Writable { frame: &frame, letter: letter.as_ref(), origin: &event.origin, hops: event.hops };
        let replay = slot.replay.as_ref().map(|l| l.replay.name.as_str());
        let format = special.as_ref().map_or(&PLAIN, |d| &d.format);
        Ok(self.render(profile, format, &event, item.body.rule, replay))
    }

    /// Reads on for a lane that is behind, until it has caught up or has no room.
    pub(super) async fn read_backlog(self: &Rc<Self>, slot: &Rc<LaneSlot>) -> Result<()> {
        let mut file: Option<(u64, DiskFile)> = None;
        let result = self.read_backlog_with(slot, &mut file).await;
        if let Some((_, f)) = file {
            let _ = f.close().await;
        }
        // A lane for which there was nothing more has come further without delivering anything.
        slot.pass_holds(self.dispatched.get());
        self.lane_moved();
        self.lane_settled.notify();
        self.answer_flushes();
        result
    }

    async fn read_backlog_with(self: &Rc<Self>, slot: &Rc<LaneSlot>, file: &mut Option<(u64, DiskFile)>) -> Result<()> {
        let mut buffer = Vec::new();
        loop {
            let Some((at, seen)) = slot.backlog_position() else { return Ok(()) };
            if slot.replay.as_ref().is_some_and(|l| seen >= l.part().until) {
                self.catch_up(slot, at, None);
                return Ok(());
            }
            let hold = slot.hold();
            if !slot.may_read_on()
                || self.out_of_memory_for(slot, Priority::Normal)
                || hold.is_some_and(|first| seen + 1 >= first)
            {
                return Ok(());
            }
            let Some(segment) = self.files.at_or_after(at.segment) else {
                // Records on their way to a new segment are read when they are there.
                if !self.files.is_moving() {
                    self.catch_up(slot, at, hold);
                }
                return Ok(());
            };
            let at = if segment.header.id == at.segment {
                at
            } else {
                Position { segment: segment.header.id, offset: BLOCK_BYTES as u64 }
            };
            // What is being written now is read only up to what was dispatched; the rest will be offered.
            let live = self.files.live_end(at.segment);
            if live.is_some_and(|e| e.offset <= at.offset) {
                self.catch_up(slot, at, hold);
                return Ok(());
            }
            if live.is_none() && seen >= segment.last_sequence {
                slot.move_backlog(Position { segment: at.segment + 1, offset: BLOCK_BYTES as u64 }, seen);
                continue;
            }
            // All that the segment has from here on may have been delivered by other ways: then it would go meanwhile.
            let _held = self.files.hold(at.segment);
            if file.as_ref().is_none_or(|(id, _)| *id != at.segment) {
                if let Some((_, f)) = file.take() {
                    let _ = f.close().await;
                }
                let f = DiskFile::open(&segment.path)
                    .await
                    .map_err(|e| Error::io("cannot read the log", &e).at(segment.path.display().to_string()))?;
                *file = Some((at.segment, f));
            }
            let Some((_, f)) = file.as_ref() else { continue };
            let aligned = at.offset / BLOCK_BYTES as u64 * BLOCK_BYTES as u64;
            let skip = (at.offset - aligned) as usize;
            let mut want = READ_BYTES;
            loop {
                buffer.clear();
                f.read_at(aligned, want, &mut buffer)
                    .await
                    .map_err(|e| Error::io("cannot read the log", &e).at(segment.path.display().to_string()))?;
                if let Some(e) = live {
                    buffer.truncate((e.offset - aligned) as usize);
                }
                let bytes = buffer.get(skip..).unwrap_or_default();
                let whole_segment = buffer.len() < want;
                match self.feed(slot, &segment, at, seen, hold, bytes, whole_segment) {
                    Fed::Next { offset, seen } => {
                        slot.move_backlog(Position { segment: at.segment, offset }, seen);
                        break;
                    }
                    Fed::SegmentDone { seen } => {
                        if live.is_some() && self.files.live_end(at.segment) == live {
                            let end = live.unwrap_or(at);
                            slot.move_backlog(end, seen);
                            self.catch_up(slot, end, hold);
                        } else {
                            let next = segment.header.id + u64::from(live.is_none());
                            let offset = live.map_or(BLOCK_BYTES as u64, |e| e.offset);
                            slot.move_backlog(Position { segment: next, offset }, seen);
                        }
                        break;
                    }
                    Fed::More(bytes) => want = (skip + bytes).next_multiple_of(BLOCK_BYTES).max(want * 2),
                }
            }
        }
    }

    /// Pushes the records of a stretch of a segment that are for this lane, up to the one that must be held back, if any.
    #[allow(clippy::too_many_arguments)]
    fn feed(
        self: &Rc<Self>,
        slot: &LaneSlot,
        segment: &SegmentInfo,
        from: Position,
        mut seen: u64,
        hold: Option<u64>,
        bytes: &[u8],
        last_of_segment: bool,
    ) -> Fed {
        let mut at = 0;
        let mut rendered = Vec::new();
        while at < bytes.len() {
            if slot.room() == 0 || slot.replay.as_ref().is_some_and(|l| !l.is_due()) {
                return Fed::Next { offset: from.offset + at as u64, seen };
            }
            // What a segment that failed has beyond its last durable record is in the next one.
            if seen >= segment.last_sequence {
                return Fed::SegmentDone { seen };
            }
            match record::parse(segment.header.id, &bytes[at..]) {
                // A write that was under way when the process was killed may land after the next one has looked. What was
                // not there then never was: its sequence may be another event's by now.
                Parsed::Record(r) if r.sequence() > segment.last_sequence => {
                    return Fed::SegmentDone { seen: seen.max(segment.last_sequence) };
                }
                Parsed::Record(r) if hold.is_some_and(|first| r.sequence() >= first) => {
                    let before = hold.map_or(seen, |first| first - 1);
                    return Fed::Next { offset: from.offset + at as u64, seen: seen.max(before) };
                }
                Parsed::Record(r) if r.sequence() > seen || at == 0 => {
                    let position = Position { segment: from.segment, offset: from.offset + at as u64 };
                    if let Some(lane) = slot.replay.as_ref().filter(|l| l.is_beyond(&r)) {
                        return Fed::Next { offset: from.offset + at as u64, seen: lane.part().until };
                    }
                    if r.sequence() > seen && r.header().kind.is_delivered() {
                        let route = slot.route(&r).filter(|route| {
                            let sequence = r.sequence();
                            !slot.is_done(sequence) && !slot.holds(sequence) && !slot.is_shed(sequence, route.priority)
                        });
                        if let Some(route) = route {
                            if slot.replay.as_ref().is_some_and(|l| !l.take()) {
                                return Fed::Next { offset: from.offset + at as u64, seen };
                            }
                            // Only what passes the checks of a frame from a file is read without them later.
                            match FrameView::parse(deliverable(&r).0) {
                                Ok(_) => {
                                    rendered.clear();
                                    let incarnation = segment.header.incarnation;
                                    self.push(slot, position, &r, route, incarnation, &mut rendered);
                                }
                                Err(e) => {
                                    self.found_damage(segment, position.offset, r.body(), &e.to_string());
                                    slot.skip(r.sequence());
                                    if slot.replay.is_some() {
                                        seen = r.sequence();
                                        at += r.padded_len();
                                        continue;
                                    }
                                    slot.dismiss(route.priority, r.padded_len());
                                    let shard = self.shared.index as u16;
                                    let incarnation = segment.header.incarnation;
                                    self.lose(&Loss {
                                        id: Some(EventId { incarnation, shard, sequence: r.sequence() }),
                                        accepted_ns: r.header().clock_ns,
                                        ..Loss::sum(LossReason::Damaged, slot.number, route.rule, 1)
                                    });
                                }
                            }
                        }
                        seen = r.sequence();
                    }
                    at += r.padded_len();
                }
                // Records before the cursor, when a segment is read from its start.
                Parsed::Record(r) => at += r.padded_len(),
                Parsed::Short(need) if !last_of_segment => {
                    return if at > 0 { Fed::Next { offset: from.offset + at as u64, seen } } else { Fed::More(need) };
                }
                Parsed::End
                    if seen >= segment.last_sequence || (last_of_segment && bytes[at..].iter().all(|b| *b == 0)) =>
                {
                    return Fed::SegmentDone { seen };
                }
                _ if !last_of_segment => {
                    // Damage, or zeros in the middle: what follows tells, so the rest of the segment is needed.
                    return if at > 0 {
                        Fed::Next { offset: from.offset + at as u64, seen }
                    } else {
                        Fed::More(bytes.len() * 2)
                    };
                }
                _ => {
                    // Sequences go on without a gap within a segment, but not from what was before it.
                    let after = seen.max(segment.header.base_sequence.saturating_sub(1));
                    let Some(next) = record::resync(segment.header.id, bytes, at + 8, after) else {
                        // Nothing that is being written is read here, so this was lost, unless recovery has told of it.
                        let lost = &bytes[at..at + recovery::torn_bytes(&segment.header, &bytes[at..])];
                        if !lost.is_empty() {
                            self.found_damage(segment, from.offset + at as u64, lost, "not a record");
                        }
                        return Fed::SegmentDone { seen: seen.max(segment.last_sequence) };
                    };
                    self.found_damage(segment, from.offset + at as u64, &bytes[at..next], "checksum differs");
                    at = next;
                }
            }
        }
        if last_of_segment { Fed::SegmentDone { seen } } else { Fed::Next { offset: from.offset + at as u64, seen } }
    }

    /// A lane has read everything. What was counted for it and is not to be found was damaged.
    fn catch_up(&self, slot: &LaneSlot, at: Position, hold: Option<u64>) {
        let missing = slot.catch_up(at, hold);
        if missing > 0 {
            self.lose(&Loss::sum(LossReason::Damaged, slot.number, 0, missing));
        }
        self.settle_queue(slot);
    }

    fn found_damage(&self, segment: &SegmentInfo, offset: u64, bytes: &[u8], what: &str) {
        let Some(dir) = segment.path.parent() else { return };
        match recovery::quarantine(dir, segment.header.id, offset as usize, bytes) {
            Ok(false) => return,
            Ok(true) => {}
            Err(e) => log::error!("{e}"),
        }
        self.shared.stats.damaged.add(1);
        log::error!("{} at byte {offset}: {} bytes quarantined: {what}", segment.path.display(), bytes.len());
    }

    /// Answers `reply` once everything accepted up to `position` is out.
    pub(super) fn flush(&self, position: u64, destination: Option<u32>, reply: oneshot::Sender<()>) {
        // Already written, or nothing of it was worth writing: what is dispatched counts.
        let sequence = (self.shared.progress.written() >= position).then(|| self.dispatched.get());
        let straggler = Straggler::default();
        self.flushes.borrow_mut().push(FlushRequest { position, destination, sequence, straggler, reply: Some(reply) });
        self.set_flushing(true);
        self.answer_flushes();
    }

    pub(super) fn set_flushing(&self, on: bool) {
        for slot in self.lanes.borrow().values() {
            slot.set_flushing(on);
        }
    }

    /// Answers the flushes that are through.
    pub(super) fn answer_flushes(&self) {
        if self.flushes.borrow().is_empty() {
            return;
        }
        let written = self.shared.progress.written();
        let dispatched = self.dispatched.get();
        let lanes = self.lanes.borrow();
        let lane_low = |number: u32| lanes.get(&number).map_or(dispatched, |slot| slot.low(dispatched));
        let mut flushes = self.flushes.borrow_mut();
        flushes.retain_mut(|f| {
            if f.sequence.is_none() && written >= f.position {
                f.sequence = Some(dispatched);
            }
            if f.reply.as_ref().is_none_or(oneshot::Sender::is_canceled) {
                return false;
            }
            let straggler = &mut f.straggler;
            let is_through = |s: u64| match f.destination {
                Some(number) => lane_low(number) >= s,
                None => straggler.all(&lanes, |slot| slot.low(dispatched) >= s),
            };
            if f.sequence.is_some_and(is_through) {
                if let Some(reply) = f.reply.take() {
                    let _ = reply.send(());
                }
                return false;
            }
            true
        });
        let idle = flushes.is_empty() && self.close.get().is_none();
        drop((flushes, lanes));
        if idle {
            self.set_flushing(false);
        }
    }

    /// Resolves once no lane has anything left.
    pub(super) async fn all_delivered(&self) {
        let head = self.dispatched.get();
        // What waits until somebody says otherwise is not waited for here.
        let is_out = |s: &Rc<LaneSlot>| s.low(head) >= head || s.is_left();
        let mut straggler = Straggler::default();
        while !straggler.all_at_once(&self.lanes.borrow(), is_out) {
            let _ = driver::within(LOOK, self.lane_settled.notified()).await;
        }
    }
}

enum Fed {
    Next { offset: u64, seen: u64 },
    SegmentDone { seen: u64 },
    More(usize),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeats_are_split_into_records_of_their_own() {
        let r = Route::new;
        let mut routes = vec![r(1, 1), r(1, 2), r(1, 3), r(2, 1)];
        let mut rounds = Vec::new();
        while !routes.is_empty() {
            let rest = split_repeats(&mut routes, 10);
            rounds.push(std::mem::replace(&mut routes, rest));
        }
        assert_eq!(rounds, [vec![r(1, 1), r(2, 1)], vec![r(1, 2)], vec![r(1, 3)]]);
        let mut many: Vec<Route> = (0..25).map(|n| r(n, 0)).collect();
        let rest = split_repeats(&mut many, 10);
        assert_eq!((many.len(), rest.len()), (10, 15));
    }
}
