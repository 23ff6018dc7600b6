//! Ingest: from the ring to the log's next group.

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures::future::{Either, select};

use super::enrich::Enriching;
use super::message::{Prefix, Tag};
use super::ring::Consumer;
use super::snapshot::Scratch;
use super::{Command, PartState, Shard, dispatch};
use crate::config::Idle;
use crate::driver;
use crate::driver::wall_ns;
use crate::event::{EventId, FrameView};
use crate::log::Ack;
use crate::log::appender::{Appender, ROUTES_MAX};
use crate::log::losses::{Loss, LossReason};
use crate::log::record::{Extensions, Kind, Origin, Route};

/// Bytes taken from the ring before other tasks get their turn.
const TURN_BYTES: u64 = 256 * 1024;
/// Bytes that may wait for the disk; then the ring is left to fill, and publishers feel it.
const PENDING_BYTES_MAX: usize = 8 << 20;
/// How long the ring is watched, and nothing else done, before the shard looks around or lies down.
const WATCH: Duration = Duration::from_micros(20);
const GATHER: Duration = Duration::from_micros(4);
/// How long a burst of events for which nobody waits is followed before the shard looks around: somebody often waits for
/// its end, and a look around costs as much as many events.
const BURST: Duration = Duration::from_micros(50);
/// A nap, and for how long after the last event naps are taken instead of sleep.
const NAP: Duration = Duration::from_micros(200);
const NAP_WHILE_ACTIVE: Duration = Duration::from_millis(10);

/// Lets a burst of events for which nobody waits come to its end: whoever reads the ring while a publisher writes takes
/// cache lines away from him.
fn gather() {
    let begun = Instant::now();
    while begun.elapsed() < GATHER {
        std::hint::spin_loop();
    }
}

/// The extensions of one of the records that an event is split into: only one of them may bear the event's given id, and
/// only with the last one the event is there as a whole.
fn of_part(whole: &Extensions, first: bool, last: bool) -> Extensions {
    Extensions {
        origin: whole.origin.filter(|_| first),
        resolves: whole.resolves.filter(|_| last),
        host_cursor: whole.host_cursor.filter(|_| last),
        dedup: whole.dedup.filter(|_| last),
        continued: whole.continued || !first,
        ..*whole
    }
}

/// Of one event in so many the time is taken that matching it needs.
const TIMED_ONE_IN: u64 = 64;

/// What was taken from the ring at once.
struct Drained {
    events: u64,
    /// The most that somebody waits for.
    wants: Ack,
}

impl Shard {
    /// Takes events until the ring is closed and empty.
    pub(super) async fn ingest(self: Rc<Self>) {
        // SAFETY: this task is the only consumer, and a shard has one such task in its life.
        let mut consumer = unsafe { Consumer::new(&self.shared.ring) };
        let mut scratch = Scratch::default();
        let mut routes = Vec::new();
        let mut last_active = driver::now();
        let mut fresh = false;
        let mut burst = None;
        loop {
            // Whoever has changed the rules and then published finds his event matched by the new ones: no event is taken
            // before which there were more commands than these.
            let obeyed = self.shared.commands_given.load(Ordering::Acquire);
            self.obey();
            // And what he had published before, by those of before.
            self.adopt_rules(consumer.position());
            let limit = self.next_snapshots.borrow().front().map_or(u64::MAX, |(from, _)| *from);
            while self.appender.borrow().pending_bytes() > PENDING_BYTES_MAX && self.shared.progress.failure().is_none()
            {
                self.commit_took.notified().await;
            }
            let mut limit = limit;
            if self.enriching.borrow().is_some() {
                match self.enriched_to(&consumer, limit, obeyed).await {
                    Some(decided) => limit = decided,
                    None => continue,
                }
            }
            if let Some(drained) = self.drain(&mut consumer, (limit, obeyed), &mut scratch, &mut routes) {
                last_active = driver::now();
                fresh = true;
                if drained.wants > Ack::Memory {
                    driver::be_prompt(last_active + NAP_WHILE_ACTIVE);
                }
                let begun = *burst.get_or_insert(last_active);
                let goes_on = drained.events > 1 && drained.wants == Ack::Memory && last_active - begun < BURST;
                if goes_on && consumer.watch(GATHER) {
                    if consumer.next_tag().is_some_and(|t| Tag::from_number(t).ack() == Ack::Memory) {
                        gather();
                    }
                    continue;
                }
                burst = None;
                driver::turn().await;
                continue;
            }
            burst = None;
            let ring = &self.shared.ring;
            if self.may_seal() {
                if !ring.is_sealed() {
                    ring.seal();
                }
                if consumer.is_empty() {
                    break;
                }
                driver::turn().await;
                continue;
            }
            if self.shared.progress.failure().is_some() {
                break;
            }
            // Right after an event the next one is likely near; after a nap it is not.
            if (std::mem::take(&mut fresh) || self.idle() == Idle::Spin) && driver::spins() && consumer.watch(WATCH) {
                if consumer.next_tag().is_some_and(|t| Tag::from_number(t).ack() == Ack::Memory) {
                    gather();
                }
                continue;
            }
            if self.idle() == Idle::Spin {
                driver::turn().await;
                continue;
            }
            let nap = self.idle() == Idle::Nap && driver::since(last_active) < NAP_WHILE_ACTIVE;
            let closed = ring.is_closed();
            if !consumer.sleep(nap) || self.shared.has_commands() || closed != ring.is_closed() || self.may_seal() {
                consumer.awake();
                continue;
            }
            let woken = async {
                let ring = pin!(poll_fn(|cx| consumer.poll_woken(cx)));
                matches!(select(ring, pin!(self.told_synced.notified())).await, Either::Right(_))
            };
            // Who was just told that his events are durable is likely to publish the next ones.
            fresh = if nap {
                driver::within(NAP, woken).await.unwrap_or(false)
            } else if let Some(deadline) = self.close.get() {
                driver::until(deadline, woken).await.unwrap_or(false)
            } else {
                woken.await
            };
            consumer.awake();
        }
        self.ingest_ended.set(true);
        self.commit_wanted.notify();
    }

    /// Whether the closed ring need not wait any more, for reservations and for what other shards hand over. The engine
    /// that closed it says how long it does.
    fn may_seal(&self) -> bool {
        let ring = &self.shared.ring;
        if !ring.is_closed() {
            return false;
        }
        if self.close.get().is_some_and(|deadline| driver::now() >= deadline) {
            return true;
        }
        ring.reserved() == 0 && self.all_handed_over()
    }

    /// Matches and packs what the ring has, a turn's worth, up to a position and while no more commands were given than
    /// are obeyed. `None` if there was nothing.
    fn drain(
        &self,
        consumer: &mut Consumer<'_>,
        (limit, obeyed): (u64, u64),
        scratch: &mut Scratch,
        routes: &mut Vec<Route>,
    ) -> Option<Drained> {
        let snapshot = self.snapshot.borrow();
        let mut appender = self.appender.borrow_mut();
        let stats = &self.shared.stats;
        let wall = wall_ns();
        let (mut accepted, mut unmatched, mut stored, mut routed, mut evaluations) = (0, 0, 0, 0, 0);
        let mut matches = self.matches.borrow_mut();
        let mut wants = Ack::Memory;
        let mut enriching = self.enriching.borrow_mut();
        let may = || self.shared.commands_given.load(Ordering::Relaxed) == obeyed;
        let taken = consumer.drain_to(limit, TURN_BYTES, may, |payload, tag, position| {
            let tag = Tag::from_number(tag);
            wants = wants.max(tag.ack());
            let (prefix, frame) =
                if tag.is_prefixed() { Prefix::decode(payload) } else { (Prefix::new(Kind::Event), payload) };
            if let Some(route) = prefix.route {
                self.take_over(&mut appender, prefix.kind, route, &prefix.extensions, frame, wall);
                return appender.pending_bytes() <= PENDING_BYTES_MAX;
            }
            if prefix.kind == Kind::Abort {
                self.append_abort(&mut appender, &prefix, wall);
                return appender.pending_bytes() <= PENDING_BYTES_MAX;
            }
            let published_bytes = frame.len();
            let enriched = match &mut *enriching {
                Some(e) if prefix.kind == Kind::Event => e.take(position),
                _ => None,
            };
            let frame = enriched.as_deref().unwrap_or(frame);
            let view = FrameView::trusted(frame);
            evaluations += 1;
            if (stats.evaluations.get() + evaluations).is_multiple_of(TIMED_ONE_IN) {
                let begun = driver::now();
                snapshot.routes(&view, scratch, routes);
                stats.evaluations_timed.add(1);
                stats.evaluations_ns.add(driver::since(begun).as_nanos() as u64);
            } else {
                snapshot.routes(&view, scratch, routes);
            }
            if prefix.kind == Kind::Intent {
                routes.truncate(ROUTES_MAX);
                let sequence = appender.append(Kind::Intent, routes, frame, wall);
                if let Some(ticket) = prefix.ticket {
                    self.shared.tickets.lock().insert(ticket, sequence);
                }
                return appender.pending_bytes() <= PENDING_BYTES_MAX;
            }
            accepted += 1;
            matches.count(scratch);
            if routes.is_empty() {
                unmatched += 1;
                if prefix.extensions.resolves.is_some() {
                    self.append_abort(&mut appender, &prefix, wall);
                }
            }
            let kept_only = |routes: &[Route]| routes.first().is_some_and(|r| r.destination == Route::NOBODY);
            if self.queues.is_dropping() && !routes.is_empty() && !kept_only(routes) {
                let keeper = snapshot.keeper(scratch);
                routed += self.drop_newest(&view, routes, keeper, prefix.extensions.origin, appender.next_sequence());
                if routes.is_empty() && prefix.extensions.resolves.is_some() {
                    self.append_abort(&mut appender, &prefix, wall);
                }
            }
            if let Some(f) = &self.fairness {
                f.leave(self.shared.index, view.bucket(), published_bytes);
            }
            if kept_only(routes) {
                appender.append_extended(Kind::Event, routes, &prefix.extensions, frame, wall);
                stored += 1;
                routes.clear();
            }
            let mut first = true;
            // A destination that shall get the event once per rule gets a record for each; so does a crowd of
            // destinations that is too large for one record.
            while !routes.is_empty() {
                let rest = dispatch::split_repeats(routes, ROUTES_MAX);
                let extensions = of_part(&prefix.extensions, first, rest.is_empty());
                let sequence = appender.append_extended(Kind::Event, routes, &extensions, frame, wall);
                self.enter(routes, sequence, frame.len());
                first = false;
                stored += 1;
                routed += routes.len() as u64;
                *routes = rest;
            }
            appender.pending_bytes() <= PENDING_BYTES_MAX
        });
        if taken == 0 {
            return None;
        }
        matches.tell(&snapshot);
        stats.evaluations.add(evaluations);
        // Also what is only padding counts: somebody may wait for a position behind it.
        appender.cover(consumer.position(), wants);
        stats.accepted.add(accepted);
        stats.unmatched.add(unmatched);
        stats.stored.add(stored);
        stats.routed.add(routed);
        if !(self.lingering.get() && appender.may_linger()) {
            self.commit_wanted.notify();
        }
        Some(Drained { events: accepted, wants })
    }

    /// Takes out the routes to queues that are full and drop what is new. If that leaves none, the event gets `keeper`, by
    /// which it is kept for replay. It will have the number `sequence` if it has a route then. Returns how many were taken
    /// out.
    #[cold]
    fn drop_newest(
        &self,
        event: &FrameView<'_>,
        routes: &mut Vec<Route>,
        keeper: Option<Route>,
        origin: Option<Origin>,
        sequence: u64,
    ) -> u64 {
        let lanes = self.lanes.borrow();
        let mut dropped = Vec::new();
        routes.retain(|r| {
            let full = self.queues.drops(&self.queues.log, r.priority)
                || lanes.get(&r.destination).is_some_and(|slot| self.queues.drops(&slot.queue, r.priority));
            if full {
                dropped.push(*r);
            }
            !full
        });
        if routes.is_empty() {
            routes.extend(keeper);
        }
        let own = EventId { incarnation: self.incarnation, shard: self.shared.index as u16, sequence };
        let given = |o: Origin| EventId { incarnation: o.incarnation, shard: o.shard, sequence: o.sequence };
        let id = origin.map(given).or_else(|| (!routes.is_empty()).then_some(own));
        for r in &dropped {
            if let Some(slot) = lanes.get(&r.destination) {
                slot.stats.routed.add(1);
            }
            self.lose(&Loss {
                reason: LossReason::DropNewest,
                destination: r.destination,
                rule: r.rule,
                count: 1,
                id,
                accepted_ns: wall_ns(),
                event_type: event.event_type().name(),
                bucket: event.bucket(),
                key: event.key(),
            });
        }
        self.unaudited.set(self.unaudited.get() || !dropped.is_empty());
        dropped.len() as u64
    }

    /// Ends an intent, named by its sequence or by its ticket, with nothing.
    fn append_abort(&self, appender: &mut Appender, prefix: &Prefix, wall_ns: u64) {
        let named = |ticket| self.shared.tickets.lock().remove(&ticket);
        let Some(intent) = prefix.extensions.resolves.or_else(|| prefix.ticket.and_then(named)) else { return };
        let extensions = Extensions { resolves: Some(intent), ..Extensions::default() };
        appender.append_extended(Kind::Abort, &[], &extensions, &[], wall_ns);
    }

    /// Waits for a command, once ingest has ended.
    pub(super) async fn command_given(&self) {
        // SAFETY: the ingest task, the only other consumer, has ended.
        let mut consumer = unsafe { Consumer::new(&self.shared.ring) };
        consumer.sleep(false);
        if !self.shared.has_commands() {
            poll_fn(|cx| consumer.poll_woken(cx)).await;
        }
        consumer.awake();
    }

    pub(super) fn obey(self: &Rc<Self>) {
        if !self.shared.has_commands() {
            return;
        }
        for command in self.shared.take_commands() {
            match command {
                Command::Reload { position, snapshot } => {
                    self.reload_lanes(&snapshot);
                    let mut next = self.next_snapshots.borrow_mut();
                    let many = next.len() >= super::RULES_AHEAD_MAX;
                    match next.back_mut() {
                        Some((from, last)) if many || *from == position => {
                            *last = snapshot;
                            self.shared.rules_ahead.fetch_sub(1, Ordering::Release);
                        }
                        _ => next.push_back((position, snapshot)),
                    }
                }
                Command::Flush { position, destination, reply } => self.flush(position, destination, reply),
                Command::DeadLetters(job) => self.dead.give(job),
                Command::Replay(replay) => self.start_replay(&replay),
                Command::EndReplay(replay) => self.end_replay(&replay, PartState::Cancelled),
                Command::ForgetReplay(number) => self.forget_replay(number),
                Command::Group { group, reply } => {
                    self.keeping.add_group(group, self.shared.index);
                    let _ = reply.send(());
                }
                Command::EndGroup(number) => {
                    self.keeping.remove_group(number);
                }
                Command::Bury { letter, reply } => self.dead.bury(letter, reply),
                Command::Enrich(asking) => *self.enriching.borrow_mut() = asking.map(Enriching::new),
                Command::Answered(answer) => self.answers.take(answer),
                Command::Turn(number) => self.wake_lanes_of(number),
                Command::Reconnect(number) => self.reconnect_lanes_of(number),
                Command::Look => self.lanes.borrow().values().for_each(|slot| slot.notify.notify()),
                Command::Close { deadline } => {
                    self.close.set(Some(deadline));
                    self.set_flushing(true);
                }
            }
        }
    }
}
