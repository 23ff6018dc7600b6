//! Several events at once, with one wait for all of them.

use std::time::Instant;

use super::{Engine, PublishOptions, Published, deadline_in};
use crate::error::Result;
use crate::event::Event;
use crate::event::ingest::{self, Events};
use crate::log::Ack;
use crate::shard::progress::Receipt;

/// What a series of events is still waiting for. An ack level that an event has reached, every earlier event of its
/// shard has reached too, so the last receipt of each shard is enough.
#[derive(Clone, Debug, Default)]
pub struct Receipts(Vec<Receipt>);

impl Receipts {
    /// Adds the receipt of an event.
    pub fn add(&mut self, receipt: Receipt) {
        match self.0.iter_mut().find(|r| r.way.is(&receipt.way)) {
            Some(r) => r.position = r.position.max(receipt.position),
            None => self.0.push(receipt),
        }
    }

    /// Whether all have reached the level.
    pub fn is(&self, ack: Ack) -> bool {
        self.0.iter().all(|r| r.is(ack))
    }

    /// Blocks until all have reached the level.
    ///
    /// # Errors
    /// As [`Receipt::wait`], of the first that it is said of.
    pub fn wait(&self, ack: Ack, deadline: Instant) -> Result<()> {
        self.0.iter().filter(|_| ack > Ack::Memory).try_for_each(|r| r.wait(ack, Some(deadline)))
    }

    /// Ready once all have reached the level. It may be awaited on any executor.
    ///
    /// # Errors
    /// [`crate::ErrorKind::LogFailed`] or [`crate::ErrorKind::Closed`] if one of them will never be reached.
    pub async fn reached(&self, ack: Ack) -> Result<()> {
        for r in &self.0 {
            r.reached(ack).await?;
        }
        Ok(())
    }
}

/// What became of the events of a document.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PublishedJson {
    /// Those that were accepted.
    pub accepted: u64,
    /// Those that no rule wants.
    pub no_match: u64,
    /// Those that had been accepted before.
    pub duplicates: u64,
}

impl Engine {
    /// Publishes the events of a JSON document, in its order, and waits once for the level of all of them: `Records` as S3 and
    /// its peers send them, CloudEvents, or a line per event with the field names of [`Event`]. The document is used as
    /// scratch space. `content_type` says what it is; if it does not say enough, the document does.
    ///
    /// `published` tells what became of them, also if the call fails.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidEvent`], with the place, if anything of it is wrong: then nothing of it is published. Others
    /// as [`Engine::publish_batch`].
    pub fn publish_json(
        &self,
        document: &mut [u8],
        content_type: &str,
        options: &PublishOptions,
        published: &mut PublishedJson,
    ) -> Result<()> {
        *published = PublishedJson::default();
        self.check_process()?;
        let check = |e: &Event<'_>| self.check(e);
        publish_document(document, content_type, options, published, check, |e| self.submit(e, options))
    }

    /// Publishes several events, one after the other, and waits once for the level of all of them. `outcomes` is emptied
    /// and gets what became of each.
    ///
    /// # Errors
    /// As [`Engine::publish_with`]. If an event is refused, those after it are not looked at: `outcomes` has as many entries
    /// as events before it, which are accepted and for which the call has waited all the same.
    pub fn publish_batch(
        &self,
        events: &[Event<'_>],
        options: &PublishOptions,
        outcomes: &mut Vec<Published>,
    ) -> Result<()> {
        outcomes.clear();
        self.check_process()?;
        submit_all(events.len(), options, |n| self.submit(&events[n], options), |became| outcomes.push(became))
    }
}

/// Publishes the events of a JSON document: see [`Engine::publish_json`].
pub(crate) fn publish_document(
    document: &mut [u8],
    content_type: &str,
    options: &PublishOptions,
    published: &mut PublishedJson,
    check: impl Fn(&Event<'_>) -> Result<()>,
    submit: impl Fn(&Event<'_>) -> Result<Option<Receipt>>,
) -> Result<()> {
    let mut events = Events::default();
    ingest::parse(document, content_type, &mut |e| {
        check(e)?;
        events.push(e);
        Ok(())
    })?;
    submit_all(
        events.len(),
        options,
        |place| events.with(place, &submit),
        |became| match became {
            Published::Accepted => published.accepted += 1,
            Published::NoMatch => published.no_match += 1,
            Published::Duplicate => published.duplicates += 1,
        },
    )
}

/// Submits so many events one after the other, up to one that is refused, and waits for those before it.
pub(crate) fn submit_all(
    count: usize,
    options: &PublishOptions,
    submit: impl Fn(usize) -> Result<Option<Receipt>>,
    mut became: impl FnMut(Published),
) -> Result<()> {
    let mut receipts = Receipts::default();
    let mut refused = Ok(());
    for n in 0..count {
        match submit(n) {
            Ok(None) => became(Published::NoMatch),
            Ok(Some(receipt)) => {
                became(if receipt.is_duplicate() { Published::Duplicate } else { Published::Accepted });
                receipts.add(receipt);
            }
            Err(e) => {
                refused = Err(e.at(format!("events[{n}]")));
                break;
            }
        }
    }
    let reached = receipts.wait(options.ack, deadline_in(options.ack_timeout));
    refused.and(reached)
}
