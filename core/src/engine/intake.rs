//! What other processes have published comes in: see [`crate::shared`].
//!
//! Nothing here waits, because one thread takes in what all of them have published.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::pressure::{Looking, unfair};
use super::{Inner, OnFull, PublishOptions};
use crate::driver;
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, EventType, frame};
use crate::log::Ack;
use crate::rule::OnQueueFull;
use crate::shard::dedup::DedupKey;
use crate::shard::message::Tag;
use crate::shard::progress::Receipt;
use crate::shard::ring::PushError;
use crate::shard::snapshot::Known;
use crate::shared::Server;

/// How an event of another process is taken in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Intake {
    pub(crate) ack: Ack,
    pub(crate) dedup_key: Option<DedupKey>,
    /// See [`Engine::append_at`].
    pub(crate) host_cursor: Option<u64>,
    /// Its publisher waits for the answer, and is told if a queue is full. Others have been told that it is accepted.
    pub(crate) asks: bool,
}

/// Why an event was not taken in.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// There is no space now; it must be tried again before anything else that its publisher may know to be later.
    Later,
    /// Its publisher may try again for so long.
    Busy(Error, Duration),
    /// For good.
    No(Error),
}

impl From<Error> for Refusal {
    fn from(e: Error) -> Refusal {
        Refusal::No(e)
    }
}

impl Inner {
    /// Takes an event in that a client has published. Nothing if no rule wants it.
    pub(crate) fn take_in(&self, event: &Event<'_>, how: &Intake) -> Result<Option<Receipt>, Refusal> {
        let entrance = self.entrance()?;
        let special = how.dedup_key.is_some() || how.host_cursor.is_some();
        let layout = event.check_seldom(entrance.event_bytes_max).inspect_err(|_| {
            self.refused_invalid.fetch_add(1, Ordering::Relaxed);
        })?;
        if let EventType::Custom(_) = event.event_type {
            self.snapshot.load().types.check(event.event_type)?;
        }
        if !self.interested(entrance, event.bucket, event.event_type) && how.host_cursor.is_none() {
            self.check_open()?;
            self.no_match.add();
            return Ok(None);
        }
        if how.asks && entrance.queues_tell() {
            self.ask_queues(event)?;
        }
        if special {
            return self.take_in_special(event, how);
        }
        let shard = self.shard_of_event(event);
        if let Some(fairness) = &self.front.fairness {
            if !how.asks {
                fairness.bring(shard.index, event.bucket, layout.len());
            } else if let Err(why) = fairness.enter(shard.index, event.bucket, layout.len()) {
                // For as long as it wants to.
                return Err(Refusal::Busy(unfair(event.bucket, why), Duration::MAX));
            }
        }
        let time_ns = if event.time_ns == 0 { self.wall_ns() } else { event.time_ns };
        let tag = Tag::plain(how.ack).number();
        match shard.ring.push_with(layout.len(), tag, |out| frame::encode(event, layout, time_ns, out)) {
            Ok(position) => {
                shard.ring.notify(how.ack > Ack::Memory);
                Ok(Some(Receipt::new(shard.clone(), position)))
            }
            Err(e) => {
                self.take_back(shard, event.bucket, layout.len());
                Err(match e {
                    PushError::Full => Refusal::Later,
                    PushError::Closed => Refusal::No(super::refused(shard)),
                })
            }
        }
    }

    fn take_in_special(&self, event: &Event<'_>, how: &Intake) -> Result<Option<Receipt>, Refusal> {
        let options = PublishOptions {
            ack: how.ack,
            // Not counted: it comes again.
            on_full: OnFull::Retry(Duration::ZERO),
            dedup_key: how.dedup_key,
            ..PublishOptions::default()
        };
        let place = self.place(event)?;
        let taken = match how.host_cursor {
            None => self.push_special(event, place, &options, None).map(Some),
            Some(cursor) => {
                let Some(_turn) = self.append.try_lock() else { return Err(Refusal::Later) };
                self.append(cursor, event, place, &options, || Ok(()))
            }
        };
        taken.map_err(|e| if e.kind() == ErrorKind::Full { Refusal::Later } else { Refusal::No(e) })
    }

    fn ask_queues(&self, event: &Event<'_>) -> Result<(), Refusal> {
        let Some(full) = self.full_queue(event, Known::Whole, &mut Looking::default()) else { return Ok(()) };
        let blocks = full.rules.on_full == OnQueueFull::Block;
        let error = self.queue_is_full(&full, !blocks);
        Err(if blocks { Refusal::Busy(error, full.rules.block_timeout) } else { Refusal::No(error) })
    }

    /// Whether events of these known types in this bucket could be wanted, as [`crate::shard::snapshot::Everywhere`] has
    /// them.
    pub(crate) fn interests(&self, bucket: &str) -> [u64; 2] {
        let snapshot = self.snapshot.load();
        let mut words = [0; 2];
        for t in crate::event::KnownType::ALL {
            if snapshot.interested(bucket, (*t).into()) {
                words[*t as usize / 64] |= 1 << (*t as usize % 64);
            }
        }
        words
    }

    /// What other processes had published before now is in the rings of the shards when this returns.
    pub(super) fn after_clients(&self, on_full: OnFull) -> Result<()> {
        match self.server() {
            Some(server) => server.settle(self, on_full.deadline().unwrap_or_else(driver::now)),
            None => Ok(()),
        }
    }

    /// Where other processes publish, if they may.
    pub(crate) fn server(&self) -> Option<&Server> {
        self.server.get().map(|server| &**server)
    }

    /// Whether buckets have shares.
    pub(crate) fn is_fair(&self) -> bool {
        self.front.fairness.is_some()
    }
}
