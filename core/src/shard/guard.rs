//! The guard of the queues: counts what earlier runs left, sheds what is too much or too old, and keeps the log's files
//! within their limit.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use futures::channel::oneshot;

use super::Shard;
use super::crowd::LANES_AT_ONCE;
use super::dead::{DeadEntry, ReadEvent};
use super::handover::lane_of;
use super::lanes::{Body, LaneSlot, TROUBLE_PAUSE};
use super::walk::{Look, Walk, Walked};
use crate::delivery::account::Sum;
use crate::delivery::lane::Item;
use crate::delivery::quota::{Level, Load};
use crate::driver::{self, wall_ns};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{EventId, FrameView, Priority};
use crate::log::losses::{Loss, LossReason};
use crate::log::record::Origin;
use crate::log::recovery::SegmentInfo;
use crate::rule::OnQueueFull;

/// How often the guard looks by itself.
const TICK: Duration = Duration::from_millis(100);
/// The same while nothing waits.
const IDLE_TICK: Duration = Duration::from_secs(1);
/// How often it looks for what is too old.
const AGE_TICK: Duration = Duration::from_secs(1);

/// Shed first to last.
const ORDER: [Priority; 3] = [Priority::Low, Priority::Normal, Priority::High];

/// How far one step of shedding goes; it ends at the first of these.
#[derive(Clone, Copy, Debug)]
struct Extent {
    /// So many events, and so many bytes; a part that is zero is no aim.
    load: Load,
    /// Only records of a clock below.
    before_ns: u64,
    /// Only records up to this sequence.
    through: u64,
    /// Not what waits for another attempt: that has a budget of its own.
    untried: bool,
}

impl Extent {
    const ALL: Extent =
        Extent { load: Load { events: 0, bytes: 0 }, before_ns: u64::MAX, through: u64::MAX, untried: false };
}

/// What becomes of what is shed.
#[derive(Clone, Debug)]
enum How {
    Drop(LossReason),
    DeadLetter(String),
}

/// An event that is shed.
struct Victim {
    sequence: u64,
    rule: u32,
    attempts: u32,
    accepted_ns: u64,
    event: ReadEvent,
}

/// What a step of shedding came to.
struct Stepped {
    walked: Walked,
    /// The clock of the record that it stopped at.
    stopped_ns: u64,
}

impl Shard {
    /// Counts what there is, then looks after the queues until the shard stops.
    pub(super) async fn guard_queues(self: Rc<Self>) {
        while !self.stopping.get() {
            match self.count_inherited().await {
                Ok(()) => break,
                Err(e) => {
                    log::error!("shard {}: what waits could not be counted: {e}", self.shared.index);
                    let _ = driver::within(TROUBLE_PAUSE, self.guard_wake.notified()).await;
                }
            }
        }
        self.inherited_seen.set(u64::MAX);
        let mut aged = driver::now();
        while !self.stopping.get() {
            let age_due = driver::since(aged) >= AGE_TICK;
            if age_due {
                aged = driver::now();
            }
            self.guarding.set(true);
            let result = self.guard_once(age_due).await;
            self.guarding.set(false);
            if let Err(e) = result
                && !self.stopping.get()
            {
                log::error!("shard {}: the queues cannot be kept within their limits: {e}", self.shared.index);
                driver::sleep(TROUBLE_PAUSE).await;
            }
            let tick = if self.guarded_any.get() || self.queues.is_log_limited() { TICK } else { IDLE_TICK };
            let _ = driver::within(tick * self.many(), self.guard_wake.notified()).await;
        }
    }

    async fn guard_once(self: &Rc<Self>, age_due: bool) -> Result<()> {
        let mut waiting: Vec<Rc<LaneSlot>> = Vec::new();
        self.each_lane(|_, slot| {
            if slot.waiting().events > 0 || slot.queue.level() > Level::Free {
                waiting.push(slot.clone());
            }
        })
        .await;
        self.guarded_any.set(waiting.iter().any(|slot| slot.waiting().events > 0));
        for (n, slot) in waiting.into_iter().enumerate() {
            if (n + 1).is_multiple_of(LANES_AT_ONCE) {
                driver::turn().await;
            }
            // Other shards may have changed what waits in all.
            self.settle_queue(&slot);
            if self.is_to_shed(&slot) {
                self.shed_excess(&slot).await?;
            }
            if age_due {
                self.shed_aged(&slot).await?;
            }
            if self.stopping.get() {
                return Ok(());
            }
        }
        if self.queues.is_log_limited() {
            self.guard_log().await?;
        }
        Ok(())
    }

    /// Counts what earlier runs left for each lane, in one walk through the log. Segments stay until they are counted.
    async fn count_inherited(self: &Rc<Self>) -> Result<()> {
        let head = self.dispatched.get();
        let behind = self.lanes.borrow().values().filter(|s| !s.is_counted()).map(|s| s.low(head)).min();
        let Some(low) = behind else { return Ok(()) };
        self.inherited_seen.set(self.inherited_seen.get().max(low));
        let Some(mut walk) = self.walk_from(self.inherited_seen.get()) else { return Ok(()) };
        let end = self.inherited;
        while walk.seen < end && !self.stopping.get() {
            let lanes = self.lanes.borrow().clone();
            let mut found: BTreeMap<u32, [Load; 3]> = BTreeMap::new();
            let walked = self
                .walk(&mut walk, |_, _, r| {
                    if r.sequence() > end {
                        return Look::Stop;
                    }
                    let bytes = r.padded_len() as u64;
                    for route in r.routes().take_while(|_| r.header().kind.is_delivered()) {
                        let number = lane_of(r, route.destination);
                        let Some(slot) = lanes.get(&number) else { continue };
                        if slot.was_open(r.sequence(), route.priority) {
                            let load = &mut found.entry(number).or_default()[route.priority as usize];
                            load.events += 1;
                            load.bytes += bytes;
                        }
                    }
                    Look::On
                })
                .await?;
            for (number, loads) in found {
                if let Some(slot) = lanes.get(&number) {
                    slot.inherit(loads);
                    self.settle_queue(slot);
                }
            }
            self.inherited_seen.set(walk.seen);
            if walked != Walked::On {
                break;
            }
        }
        for slot in self.lanes.borrow().values() {
            slot.has_inherited();
        }
        Ok(())
    }

    /// Tells the queue what has changed in a lane, and the lane what the queue is at.
    pub(super) fn settle_queue(&self, slot: &LaneSlot) {
        let change = slot.take_change();
        if slot.replay.is_some() {
            return;
        }
        if change != Sum::default() {
            self.queues.add(&slot.queue, change, || slot.name());
        }
        slot.take_level();
        // The guard does not wake itself: what it could not shed just now is on its way.
        if !self.guarding.get() && self.is_to_shed(slot) {
            self.guard_wake.notify();
        }
    }

    /// What a lane is to shed now.
    fn excess(&self, slot: &LaneSlot) -> Load {
        if slot.is_purged() {
            return slot.waiting();
        }
        let rules = slot.queue.rules();
        match rules.on_full {
            OnQueueFull::DropOldest | OnQueueFull::DeadLetterOldest if !slot.is_orphan() => {
                rules.limits.excess(slot.waiting(), slot.queue.load(), self.shards)
            }
            _ => Load::default(),
        }
    }

    fn is_to_shed(&self, slot: &LaneSlot) -> bool {
        !self.excess(slot).is_nothing()
    }

    async fn shed_excess(self: &Rc<Self>, slot: &Rc<LaneSlot>) -> Result<()> {
        let how = match slot.queue.rules().on_full {
            _ if slot.is_purged() => How::Drop(LossReason::Removed),
            OnQueueFull::DropOldest => How::Drop(LossReason::DropOldest),
            _ => How::DeadLetter("the destination's queue was full, and the oldest events had to go".into()),
        };
        // Up to where nothing of a priority is left that could be shed.
        let mut bare = [0; 3];
        loop {
            let (load, head) = (self.excess(slot), self.dispatched.get());
            if load.is_nothing() || self.stopping.get() {
                return Ok(());
            }
            // More of low priority may have come while the next higher one was shed.
            let sheddable = |p: &Priority| bare[*p as usize] < head && slot.waiting_of(*p).events > 0;
            let Some(priority) = ORDER.into_iter().find(sheddable) else { return Ok(()) };
            let stepped = self.shed_step(slot, priority, Extent { load, ..Extent::ALL }, &how).await?;
            if stepped.walked == Walked::End {
                bare[priority as usize] = head;
            }
        }
    }

    /// Sheds what has waited for too long.
    async fn shed_aged(self: &Rc<Self>, slot: &Rc<LaneSlot>) -> Result<()> {
        let Some(d) = slot.destination() else { return Ok(()) };
        // Without a limit of the queue's own this is about what is never tried; the rest has its own budget.
        // What nothing is tried of any more has none.
        let untried = d.queue.age_max.is_none() && !slot.is_stopped();
        let age = d.queue.age_max.unwrap_or(d.retry.age_max);
        let before_ns = wall_ns().saturating_sub(age.as_nanos() as u64);
        if slot.waiting().events == 0 || before_ns < slot.oldest_ns() {
            return Ok(());
        }
        let how = match d.queue.on_full {
            OnQueueFull::DropOldest => How::Drop(LossReason::TooOld),
            _ => How::DeadLetter(format!("it waited in the destination's queue for more than {age:?}")),
        };
        let mut oldest_ns = u64::MAX;
        for priority in ORDER {
            if slot.waiting_of(priority).events == 0 {
                continue;
            }
            loop {
                let extent = Extent { before_ns, untried, ..Extent::ALL };
                let stepped = self.shed_step(slot, priority, extent, &how).await?;
                if stepped.walked != Walked::On || self.stopping.get() {
                    oldest_ns = oldest_ns.min(stepped.stopped_ns);
                    break;
                }
            }
        }
        // Everything older is gone or on its way, so there is nothing to look for until this one has grown old.
        slot.set_oldest_ns(oldest_ns);
        Ok(())
    }

    /// Sheds the oldest events of one priority from one stretch of the log.
    ///
    /// From then on they are neither delivered nor counted as done; only when it is durable what became of them are they
    /// saved as shed.
    async fn shed_step(
        self: &Rc<Self>,
        slot: &Rc<LaneSlot>,
        priority: Priority,
        extent: Extent,
        how: &How,
    ) -> Result<Stepped> {
        // What was on its way when others of its priority were shed, and has come back since.
        let up_to = slot.shed_up_to(priority).min(extent.through);
        let (mut back, mut load) = (Vec::new(), Load::default());
        let spared = if extent.untried { slot.busy(true) } else { BTreeSet::new() };
        let came_back = |i: &Item<Body>| {
            i.priority == priority
                && i.sequence <= up_to
                && i.accepted_ns < extent.before_ns
                && !spared.contains(&i.sequence)
        };
        let aim = extent.load;
        let reached = |load: Load| !aim.is_nothing() && load.events >= aim.events && load.bytes >= aim.bytes;
        let mut candidates = slot.waiting_at(came_back);
        candidates.sort_unstable();
        // Any of them may be delivered while another one is read.
        let _held = candidates.iter().map(|(_, position, _)| position.segment).min().map(|s| self.files.hold(s));
        for (sequence, position, bytes) in candidates {
            if reached(load) {
                break;
            }
            back.push((sequence, self.read_event(position, sequence).await?));
            load.events += 1;
            load.bytes += bytes;
        }
        let (mut victims, mut walked, mut stopped_ns) = (Vec::new(), Walked::End, extent.before_ns);
        let mut walk = self.shed_walk(slot, priority);
        let before = load;
        if let Some(walk) = &mut walk {
            let mut busy: Option<BTreeSet<u64>> = None;
            let shard = self.shared.index as u16;
            walked = self
                .walk(walk, |segment, _, r| {
                    let (sequence, header) = (r.sequence(), r.header());
                    if reached(load) || sequence > extent.through || header.clock_ns >= extent.before_ns {
                        stopped_ns = header.clock_ns;
                        return Look::Stop;
                    }
                    let route = slot.route(r).filter(|x| x.priority == priority);
                    let Some(route) = route.filter(|_| header.kind.is_delivered()) else { return Look::On };
                    if slot.is_done(sequence) || slot.is_shed(sequence, priority) {
                        return Look::On;
                    }
                    if busy.get_or_insert_with(|| slot.busy(extent.untried)).contains(&sequence) {
                        return Look::On;
                    }
                    let origin = Origin {
                        incarnation: segment.header.incarnation,
                        shard,
                        sequence,
                        clock_ns: header.clock_ns,
                        tie: header.tie,
                    };
                    load.events += 1;
                    load.bytes += r.padded_len() as u64;
                    victims.push(Victim {
                        sequence,
                        rule: route.rule,
                        attempts: slot.attempts_of(sequence),
                        accepted_ns: header.clock_ns,
                        event: ReadEvent::of(r, origin),
                    });
                    Look::On
                })
                .await?;
        }
        // From here on to the next await nothing else runs: what was looked at is as it was.
        let new: BTreeSet<u64> = victims.iter().map(|v| v.sequence).collect();
        let mut taken = slot.take(|i| new.contains(&i.sequence));
        let mut on_disk = Load { events: load.events - before.events, bytes: load.bytes - before.bytes };
        for item in &taken {
            on_disk.events -= 1;
            on_disk.bytes = on_disk.bytes.saturating_sub(u64::from(item.body.log_bytes));
        }
        if let Some(walk) = walk {
            slot.shed(priority, walk, on_disk);
        }
        let back_ids: BTreeSet<u64> = back.iter().map(|(s, _)| *s).collect();
        for item in slot.take(|i| back_ids.contains(&i.sequence)) {
            let at = back.iter().position(|(s, _)| *s == item.sequence);
            let Some((sequence, event)) = at.map(|at| back.swap_remove(at)) else { continue };
            victims.push(Victim {
                sequence,
                rule: item.body.rule,
                attempts: slot.attempts_of(sequence),
                accepted_ns: item.accepted_ns,
                event,
            });
            taken.push(item);
        }
        self.free(slot, taken.iter().map(|i| i.bytes).sum());
        if !victims.is_empty() {
            match how {
                How::Drop(reason) => self.drop_victims(slot, &victims, *reason).await,
                How::DeadLetter(reason) => {
                    let last = slot.stats.last_error.lock().clone();
                    let last = if last.is_empty() { last } else { format!("; its last error: {last}") };
                    self.give_up(slot, victims, &format!("{reason}{last}")).await?;
                }
            }
        }
        slot.has_shed(priority, on_disk, &taken);
        self.settle_queue(slot);
        slot.pass_holds(self.dispatched.get());
        self.lane_moved();
        self.lane_settled.notify();
        self.answer_flushes();
        slot.notify.notify();
        Ok(Stepped { walked, stopped_ns })
    }

    /// Where shedding of a priority goes on.
    fn shed_walk(&self, slot: &LaneSlot, priority: Priority) -> Option<Walk> {
        let low = slot.low(self.dispatched.get());
        match slot.shed_walk(priority) {
            Some(walk) if walk.seen >= low => Some(walk),
            _ => self.walk_from(low),
        }
    }

    async fn drop_victims(&self, slot: &LaneSlot, victims: &[Victim], reason: LossReason) {
        for v in victims {
            let o = v.event.origin;
            let frame = FrameView::parse(&v.event.frame).ok();
            let event_type = frame.as_ref().map(|f| f.event_type());
            self.lose(&Loss {
                reason,
                destination: slot.number,
                rule: v.rule,
                count: 1,
                id: Some(EventId { incarnation: o.incarnation, shard: o.shard, sequence: o.sequence }),
                accepted_ns: v.accepted_ns,
                event_type: event_type.as_ref().map_or("", |t| t.name()),
                bucket: frame.as_ref().map_or("", |f| f.bucket()),
                key: frame.as_ref().map_or(&[][..], |f| f.key()),
            });
        }
        self.write_losses().await;
    }

    /// Makes dead letters of events, and waits until they are durable.
    async fn give_up(&self, slot: &Rc<LaneSlot>, victims: Vec<Victim>, reason: &str) -> Result<()> {
        let closed = || Error::new(ErrorKind::Closed, "the engine is closed");
        if self.stopping.get() {
            return Err(closed()); // Nobody would write them any more.
        }
        let mut waits = Vec::new();
        for v in victims {
            let (told, stored) = oneshot::channel();
            waits.push(stored);
            self.dead.push(DeadEntry::Shed {
                slot: slot.clone(),
                rule: v.rule,
                attempts: v.attempts,
                accepted_ns: v.accepted_ns,
                reason: reason.to_owned(),
                event: v.event,
                told,
            });
        }
        for stored in waits {
            stored.await.map_err(|_| closed())?;
        }
        Ok(())
    }

    /// Keeps the files of the log within their limit: what is in the oldest segments is shed for every lane.
    async fn guard_log(self: &Rc<Self>) -> Result<()> {
        // What is kept although it is delivered has limits of its own.
        let saved = self.saved.get();
        let mut files = self.files.infos();
        files.retain(|s| s.last_sequence > saved || self.files.live_end(s.header.id).is_some());
        // The file being written may be larger than what is in it.
        let size = |s: &SegmentInfo| self.files.live_end(s.header.id).map_or(s.bytes, |end| end.offset);
        let own: u64 = files.iter().map(size).sum();
        self.queues.set_log_bytes(self.shared.index, own);
        self.shared.stats.log_file_bytes.set(own);
        let rules = self.queues.log.rules();
        let how = match rules.on_full {
            OnQueueFull::DropOldest => How::Drop(LossReason::DropOldest),
            OnQueueFull::DeadLetterOldest => {
                How::DeadLetter("the log was full, and the oldest events had to go".into())
            }
            _ => return Ok(()),
        };
        let mut excess = rules.limits.excess(Load { events: 0, bytes: own }, self.queues.log.load(), self.shards).bytes;
        // The last one is being written; it can go only when another one has begun.
        for segment in files.iter().take(files.len().saturating_sub(1)) {
            if excess == 0 || self.stopping.get() {
                break;
            }
            excess = excess.saturating_sub(segment.bytes);
            let through = segment.last_sequence;
            let slots: Vec<Rc<LaneSlot>> = self.lanes.borrow().values().cloned().collect();
            for slot in slots.iter().filter(|s| !s.is_orphan()) {
                for priority in ORDER {
                    while slot.low(self.dispatched.get()) < through {
                        let extent = Extent { through, ..Extent::ALL };
                        let stepped = self.shed_step(slot, priority, extent, &how).await?;
                        if stepped.walked != Walked::On || self.stopping.get() {
                            break;
                        }
                    }
                }
            }
        }
        self.house_wake.notify();
        Ok(())
    }
}
