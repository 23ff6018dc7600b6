//! Publications that are recognised when they come again: those of a host with a log of its own, by its cursor, and those
//! with a key.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Engine, Inner, PublishOptions, Published, deadline_in};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, EventType, Layout, frame, resource_hash};
use crate::log::Ack;
use crate::log::record::{Extensions, Kind};
use crate::shard::Shared;
use crate::shard::entrance::Entrance;
use crate::shard::message::{Prefix, Tag};
use crate::shard::progress::Receipt;
use crate::shard::snapshot::Known;

impl Engine {
    /// Publishes an event that stands at `cursor` in a log of the host, from 1. Replaying that log is harmless: what the
    /// engine has already is answered with [`Published::Duplicate`], and [`Engine::last_applied`] says where to begin.
    ///
    /// Every event has a cursor of its own, and they grow from call to call: one that is not above an earlier call's is
    /// taken for a repeat. Calls of several threads are made one after the other, in whatever order they come; it is for
    /// the host to keep them in that of its log. An event that was refused must be given again before the next one.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] for cursor 0; otherwise as [`Engine::publish_with`].
    pub fn append_at(&self, cursor: u64, event: &Event<'_>, options: &PublishOptions) -> Result<Published> {
        let inner = &*self.inner;
        let entrance = inner.entrance()?;
        if cursor == 0 {
            return Err(Error::new(ErrorKind::InvalidArgument, "the cursor is 0").remedy("count from 1"));
        }
        if entrance.telling.load(Ordering::Relaxed) & Entrance::CLIENTS != 0 {
            inner.after_clients(options.on_full)?;
        }
        let place = inner.place(event)?;
        let receipt = {
            let _turn = inner.append.lock();
            inner.append(cursor, event, place, options, || inner.wait_for_turn(event, Known::Whole, options.on_full))?
        };
        settle(receipt, options)
    }

    /// The cursor up to which everything that [`Engine::append_at`] was called with is durable, 0 if nothing is: the host
    /// need not keep its log up to there, and replays it from there. It never falls, not through a crash either; it
    /// follows what is durable with a delay of about `engine.delivery.cursor_interval`, and is exact after a clean close.
    ///
    /// # Errors
    /// [`ErrorKind::WrongProcess`].
    pub fn last_applied(&self) -> Result<u64> {
        self.inner.check_process()?;
        let saved = self.inner.publishing_shards().iter().map(|s| s.host_cursor_saved.load(Ordering::Acquire));
        Ok(saved.min().unwrap_or(0))
    }

    /// [`Engine::publish_with`] with a key.
    #[cold]
    pub(super) fn publish_keyed(&self, event: &Event<'_>, options: &PublishOptions) -> Result<Published> {
        settle(self.submit_keyed(event, options)?, options)
    }

    /// [`Engine::submit`] with a key.
    #[cold]
    pub(super) fn submit_keyed(&self, event: &Event<'_>, options: &PublishOptions) -> Result<Option<Receipt>> {
        let inner = &*self.inner;
        let entrance = inner.entrance()?;
        if entrance.telling.load(Ordering::Relaxed) & Entrance::CLIENTS != 0 {
            inner.after_clients(options.on_full)?;
        }
        let place = inner.place(event)?;
        if !inner.interested(entrance, event.bucket, event.event_type) {
            inner.check_open()?;
            inner.no_match.add();
            return Ok(None);
        }
        inner.wait_for_turn(event, Known::Whole, options.on_full)?;
        inner.push_special(event, place, options, None).map(Some)
    }
}

/// Waits as the options say, and tells what became of the event.
fn settle(receipt: Option<Receipt>, options: &PublishOptions) -> Result<Published> {
    let Some(receipt) = receipt else { return Ok(Published::NoMatch) };
    if options.ack > Ack::Memory {
        // Of a repeat, the one that was accepted may have asked for less.
        receipt.hurry();
        receipt.wait(options.ack, Some(deadline_in(options.ack_timeout)))?;
    }
    Ok(if receipt.duplicate { Published::Duplicate } else { Published::Accepted })
}

/// Where a valid event goes.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    shard: &'a Arc<Shared>,
    hash: u64,
    layout: Layout,
}

impl Inner {
    /// Checks an event and finds its shard.
    pub(super) fn place(&self, event: &Event<'_>) -> Result<Place<'_>> {
        let layout = event.check_seldom(self.config.event_bytes_max).inspect_err(|_| {
            self.refused_invalid.fetch_add(1, Ordering::Relaxed);
        })?;
        if let EventType::Custom(_) = event.event_type {
            self.snapshot.load().types.check(event.event_type)?;
        }
        let hash = resource_hash(event.bucket.as_bytes(), event.key);
        Ok(Place { shard: self.shard_of(hash), hash, layout })
    }

    /// See [`Engine::append_at`]; the caller holds [`Inner::append`]. `enter` is asked before something that is no repeat
    /// goes in.
    pub(super) fn append(
        &self,
        cursor: u64,
        event: &Event<'_>,
        place: Place<'_>,
        options: &PublishOptions,
        enter: impl FnOnce() -> Result<()>,
    ) -> Result<Option<Receipt>> {
        self.check_open()?;
        let shard = place.shard;
        let applied = &shard.common.host_cursor;
        let known = cursor <= applied.load(Ordering::Relaxed)
            || cursor <= shard.host_cursor_given.load(Ordering::Relaxed)
            || shard.common.was_applied(cursor, place.hash);
        let receipt = if known {
            shard.stats.duplicates.add_shared(1);
            // Where it is exactly is not known, only that it is before this.
            let position = shard.ring.tail();
            Some(Receipt { duplicate: true, ..Receipt::new(shard.clone(), position) })
        } else if self.interested(self.entrance()?, event.bucket, event.event_type) {
            enter()?;
            let receipt = self.push_special(event, place, options, Some(cursor))?;
            shard.host_cursor_given.store(cursor, Ordering::Relaxed);
            Some(receipt)
        } else {
            self.no_match.add();
            None
        };
        // Release: who sees the cursor sees what was pushed before it. A repeat is lower and changes nothing.
        applied.fetch_max(cursor, Ordering::Release);
        Ok(receipt)
    }

    /// Pushes an event with a key or a cursor of the host, or finds by the key that it is a repeat. The caller has waited for
    /// the event's turn.
    pub(super) fn push_special(
        &self,
        event: &Event<'_>,
        place: Place<'_>,
        options: &PublishOptions,
        host_cursor: Option<u64>,
    ) -> Result<Receipt> {
        let Place { shard, hash, layout } = place;
        let dedup = options.dedup_key.map(|key| key.of_resource(hash));
        let table = match dedup.map(|key| (key, shard.common.dedup(key))) {
            None => None,
            Some((key, Some(table))) => Some((key, table)),
            Some((_, None)) => {
                return Err(Error::new(ErrorKind::InvalidArgument, "a dedup key, and repeats are not looked for")
                    .at("dedup_key")
                    .remedy("set engine.dedup.window"));
            }
        };
        let extensions = Extensions { host_cursor, dedup, ..Extensions::default() };
        let prefix = Prefix { extensions, ..Prefix::new(Kind::Event) };
        let time_ns = if event.time_ns == 0 { self.wall_ns() } else { event.time_ns };
        let push = || {
            let tag = Tag::prefixed(options.ack).number();
            shard.ring.push_with(prefix.encoded_len() + layout.len(), tag, |out| {
                frame::encode(event, layout, time_ns, prefix.encode(out));
            })
        };
        self.bring(shard, event.bucket, layout.len());
        let mut duplicate = false;
        // Looking the key up, pushing and entering the key are one step for everybody else.
        let mut claim = || {
            let Some((key, table)) = table else { return push() };
            let mut table = table.lock();
            let now = self.wall_ns();
            if let Some(position) = table.find(key, now) {
                duplicate = true;
                return Ok(position);
            }
            let position = push()?;
            table.insert(key, now, position);
            Ok(position)
        };
        let position = match claim() {
            Ok(position) => position,
            Err(e) => self
                .push_slowly(shard, options.on_full, e, claim)
                .inspect_err(|_| self.take_back(shard, event.bucket, layout.len()))?,
        };
        if duplicate {
            self.take_back(shard, event.bucket, layout.len());
            shard.stats.duplicates.add_shared(1);
        }
        shard.ring.notify(options.ack > Ack::Memory);
        Ok(Receipt { duplicate, ..Receipt::new(shard.clone(), position) })
    }
}
