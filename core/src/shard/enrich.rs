//! The shard's side of the enricher: events are shown to it while they are still in the ring, and taken from there with what
//! it said.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::Shard;
use super::message::{Prefix, Tag};
use super::ring::Consumer;
use super::stats::ShardStats;
use crate::driver;
use crate::enrich::{Answer, Asking};
use crate::log::record::Kind;

/// So many events, and so many bytes of them, are given to the enricher at a time.
const EVENTS_MAX: usize = 64;
const BYTES_MAX: usize = 256 * 1024;
/// How often a shard that waits for the enricher looks around: commands come, and the time to close does.
const LOOK_AROUND: Duration = Duration::from_millis(5);

/// What the enricher has, and what it has said.
#[derive(Debug)]
pub(super) struct Enriching {
    asking: Asking,
    /// What is decided of events that are still in the ring, by the positions after them: their new frames.
    decided: VecDeque<(u64, Option<Vec<u8>>)>,
    /// Everything before this position is decided.
    through: u64,
    /// The events that the enricher has, by the positions after them, with their frames.
    given: VecDeque<(u64, Vec<u8>)>,
    /// The position up to which the ring was looked at for them.
    looked: u64,
    /// Since when it has the first of them.
    since: Instant,
    /// The number of the last job.
    number: u64,
}

impl Enriching {
    pub(super) fn new(asking: Asking) -> Enriching {
        Enriching {
            asking,
            decided: VecDeque::new(),
            through: 0,
            given: VecDeque::new(),
            looked: 0,
            since: driver::now(),
            number: 0,
        }
    }

    /// What an event has become, by the position after it; `None` if it stays as it is.
    pub(super) fn take(&mut self, position: u64) -> Option<Vec<u8>> {
        while self.decided.front().is_some_and(|(at, _)| *at < position) {
            self.decided.pop_front();
        }
        let (_, frame) = self.decided.pop_front_if(|(at, _)| *at == position)?;
        frame
    }

    /// Takes the answers that have come.
    fn collect(&mut self, stats: &ShardStats) {
        for answer in self.asking.take() {
            let Some((position, before)) = self.given.pop_front() else { break };
            self.since = driver::now();
            let (count, frame) = match answer {
                Answer::Frame(frame) => (&stats.enriched, Some(frame)),
                Answer::Unchanged => (&stats.enriched, None),
                Answer::Failed => (&stats.enrich_failed, self.asking.fallback(&before)),
                Answer::Panicked => (&stats.enrich_panicked, self.asking.fallback(&before)),
            };
            count.add(1);
            self.decided.push_back((position, frame));
            self.through = if self.given.is_empty() { self.looked } else { position };
        }
    }

    /// Everything that was looked at and is not decided gets the fallback. How many events that are.
    fn fall_back(&mut self) -> u64 {
        let given = std::mem::take(&mut self.given);
        let count = given.len() as u64;
        for (position, before) in given {
            let frame = self.asking.fallback(&before);
            self.decided.push_back((position, frame));
        }
        self.through = self.looked;
        count
    }
}

impl Shard {
    /// Up to which position events may be taken from the ring: what they become is decided. It asks the enricher and waits for
    /// it, a moment at a time; `None` if there is something to look at before that goes on. No event is looked at from the
    /// position `limit` on, nor after a command that is not obeyed.
    pub(super) async fn enriched_to(&self, consumer: &Consumer<'_>, limit: u64, obeyed: u64) -> Option<u64> {
        let wait = {
            let mut enriching = self.enriching.borrow_mut();
            let Some(e) = &mut *enriching else { return Some(limit) };
            let stats = &self.shared.stats;
            if e.given.is_empty() && e.through <= consumer.position() {
                self.ask(e, consumer, limit, obeyed);
            }
            e.collect(stats);
            if e.through > consumer.position() || e.given.is_empty() {
                return Some(limit.min(e.through));
            }
            let ended = self.close.get().is_some_and(|deadline| driver::now() >= deadline)
                || self.shared.progress.failure().is_some();
            let deadline = e.since + e.asking.timeout();
            if ended || driver::now() >= deadline {
                e.asking.give_up();
                // The others of the job have not had their time.
                stats.enrich_timeouts.add(u64::from(!ended));
                stats.enrich_skipped.add(e.fall_back() - u64::from(!ended));
                return Some(limit.min(e.through));
            }
            driver::until(deadline.min(driver::now() + LOOK_AROUND), e.asking.waiter())
        };
        wait.await;
        None
    }

    /// Gives the enricher what comes next in the ring. While it has not come back from an event that it took too long for,
    /// nobody waits for it.
    fn ask(&self, e: &mut Enriching, consumer: &Consumer<'_>, limit: u64, obeyed: u64) {
        let may = || self.shared.commands_given.load(Ordering::Relaxed) == obeyed;
        let mut bytes = 0;
        e.looked = consumer.look_ahead(limit, may, |payload, tag, position| {
            let (prefix, frame) = match Tag::from_number(tag).is_prefixed() {
                true => Prefix::decode(payload),
                false => (Prefix::new(Kind::Event), payload),
            };
            // What another shard has matched was enriched there.
            if prefix.kind == Kind::Event && prefix.route.is_none() {
                e.given.push_back((position, frame.to_vec()));
                bytes += frame.len();
            }
            e.given.len() < EVENTS_MAX && bytes < BYTES_MAX
        });
        e.through = if e.given.is_empty() { e.looked } else { consumer.position() };
        if e.given.is_empty() {
            return;
        }
        e.number += 1;
        e.since = driver::now();
        let frames = e.given.iter().map(|(_, frame)| frame.clone()).collect();
        if !e.asking.give(e.number, frames) {
            let skipped = e.fall_back();
            self.shared.stats.enrich_skipped.add(skipped);
        }
    }
}
