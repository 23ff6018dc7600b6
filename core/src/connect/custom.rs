//! Destinations that the host itself serves: its functions, the threads that call them, and the way of their answers back.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::rc::Rc;
use std::sync::mpsc::TrySendError;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::parts::Parts;
use crate::delivery::{Attempt, Connector, Fault, Outcome, Record};
use crate::driver::{self, Notify, Worker};
use crate::error::{Error, ErrorKind, Result};
use crate::event::EventId;
use crate::lock::Mutex;
use crate::rule::{Custom, Destination};
use crate::shard::{Command, Shared};

/// So many batches may wait for the function of one handler.
const WAITING_MAX: usize = 4096;
/// How often a shard looks whether the host has given the handler that it waits for.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// A function of the host that takes the batches of custom destinations.
///
/// Each handler has a thread of its own, on which it is called with one batch after the other. It may keep a batch and
/// answer later, from any thread: then it is called with the next one meanwhile, as many as the destination's `concurrency`
/// allows. One that blocks holds up its own destinations and nothing else.
pub trait Handler: Send + Sync {
    /// Takes a batch. A panic is caught, and the batch, if it has not been answered, is tried again.
    fn deliver(&self, batch: Batch);
}

impl<F: Fn(Batch) + Send + Sync> Handler for F {
    fn deliver(&self, batch: Batch) {
        self(batch);
    }
}

/// Some events of a destination, with the duty to say what became of them. One that is dropped without an answer is tried
/// again, and so is one whose answer does not come within the destination's `timeout`; an answer after that changes nothing.
///
/// As with every destination, events may come more than once, with the same ids.
pub struct Batch {
    destination: Arc<str>,
    ids: Vec<EventId>,
    records: Vec<Bytes>,
    headers: Vec<(String, String)>,
    content_type: Arc<str>,
    pieces: Vec<Bytes>,
    deadline: Instant,
    reply: Option<Reply>,
}

/// Where the answer goes.
struct Reply {
    shard: Weak<Shared>,
    number: u64,
}

/// What the host says of a batch.
#[derive(Debug)]
pub(crate) struct Answer {
    number: u64,
    outcome: Outcome,
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch")
            .field("destination", &self.destination)
            .field("events", &self.ids.len())
            .finish_non_exhaustive()
    }
}

impl Batch {
    /// The name of the destination.
    pub fn destination(&self) -> &str {
        &self.destination
    }

    /// How many events it has, at least 1.
    pub fn events(&self) -> usize {
        self.ids.len()
    }

    /// The id of an event, by its place.
    pub fn id(&self, event: usize) -> Option<EventId> {
        self.ids.get(event).copied()
    }

    /// The record of an event by itself, as the destination's profile and format write it, by its place.
    pub fn record(&self, event: usize) -> Option<&[u8]> {
        self.records.get(event).map(|record| &record[..])
    }

    /// Headers that belong to the record where the format has some, as CloudEvents in binary mode: names and values.
    pub fn headers(&self) -> &[(String, String)] {
        &self.headers
    }

    /// The media type of the body.
    pub fn content_type(&self) -> &str {
        &self.content_type
    }

    /// The body that a webhook would get, in pieces to be put together in this order.
    pub fn body(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.pieces.iter().map(|piece| &piece[..])
    }

    /// Until when an answer counts, as a monotonic time.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Everything was taken, and is the host's to keep.
    pub fn accept(mut self) {
        self.answer(Outcome::Success);
    }

    /// Everything was taken but for the events of these places, which are tried again. Places that there are not, and ones
    /// that come twice, do not count.
    pub fn accept_but(mut self, failed: &[usize], reason: &str) {
        let mut failed: Vec<usize> = failed.iter().copied().filter(|n| *n < self.ids.len()).collect();
        failed.sort_unstable();
        failed.dedup();
        self.answer(match failed.is_empty() {
            true => Outcome::Success,
            false => Outcome::Partial { failed, reason: reason.to_owned(), status: 0, answer: Bytes::new() },
        });
    }

    /// It could not be taken now: it is tried again, with the waits of the destination's `retry`, and counts as a failure for
    /// its breaker.
    pub fn retry(mut self, reason: &str) {
        self.answer(again(Fault::Endpoint, reason));
    }

    /// Nothing more is to come for so long; then it is tried again. Does not count as an attempt.
    pub fn retry_after(mut self, wait: Duration, reason: &str) {
        let after_ns = Some(u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX));
        self.answer(Outcome::Throttle { after_ns, reason: reason.to_owned(), status: 0, answer: Bytes::new() });
    }

    /// Something in it will never be taken. It is tried again in parts, until what is refused alone is a dead letter after
    /// the destination's `retry.poison_attempts`.
    pub fn refuse(mut self, reason: &str) {
        self.answer(Outcome::Poison { reason: reason.to_owned(), status: 0, answer: Bytes::new() });
    }

    fn answer(&mut self, outcome: Outcome) {
        if let Some(Reply { shard, number }) = self.reply.take()
            && let Some(shard) = shard.upgrade()
            && shard.common.entrance.same_process()
        {
            shard.command(Command::Answered(Answer { number, outcome }));
        }
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        self.answer(again(Fault::Own, "the host let go of the batch without an answer"));
    }
}

fn again(fault: Fault, reason: &str) -> Outcome {
    Outcome::Retry { fault, reason: reason.to_owned(), status: 0, answer: Bytes::new() }
}

// ------------------------------------------------------------------------------------------------ handlers

/// The handlers of an engine, by name, each with its thread.
#[derive(Default)]
pub(crate) struct Handlers(Mutex<Slots>);

#[derive(Default)]
struct Slots {
    by_name: HashMap<String, Worker<Batch>>,
    closed: bool,
}

impl fmt::Debug for Handlers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.lock().by_name.keys()).finish()
    }
}

impl Handlers {
    /// Puts a handler in the place of the one of its name, or with `None` takes that away. The earlier one is called no more,
    /// but for the call that may be under way; it is dropped after that.
    ///
    /// # Errors
    /// If the engine is closed, or there can be no thread.
    pub(crate) fn set(&self, name: &str, handler: Option<Arc<dyn Handler>>) -> Result<()> {
        let mut slots = self.0.lock();
        if slots.closed {
            return Err(Error::new(ErrorKind::Closed, "the engine is closed"));
        }
        let slot = handler.map(|handler| start(name, handler)).transpose()?;
        let earlier = match slot {
            Some(slot) => slots.by_name.insert(name.to_owned(), slot),
            None => slots.by_name.remove(name),
        };
        drop(slots);
        if let Some(earlier) = earlier {
            earlier.stop();
        }
        Ok(())
    }

    fn has(&self, name: &str) -> bool {
        self.0.lock().by_name.contains_key(name)
    }

    /// Gives a batch to the handler of a name, or says why it cannot have it: then there is no other answer.
    fn give(&self, name: &str, batch: Batch) -> std::result::Result<(), String> {
        let slots = self.0.lock();
        let (mut batch, why) = match slots.by_name.get(name) {
            None => (batch, format!("the host has given no handler `{name}`")),
            Some(slot) => match slot.giver().give(batch) {
                Ok(()) => return Ok(()),
                Err(TrySendError::Full(batch)) => {
                    (batch, format!("{WAITING_MAX} batches wait for the handler `{name}`"))
                }
                Err(TrySendError::Disconnected(batch)) => (batch, format!("the handler `{name}` has ended")),
            },
        };
        batch.reply = None;
        Err(why)
    }

    /// Ends all threads. Those that are still within their handler at the deadline are left to end by themselves: their names.
    pub(crate) fn close(&self, deadline: Instant) -> Vec<String> {
        let mut slots = self.0.lock();
        slots.closed = true;
        let all = std::mem::take(&mut slots.by_name);
        drop(slots);
        // All at once: none of them waits for another to end.
        all.values().for_each(Worker::stop);
        all.into_iter().filter_map(|(name, slot)| (!slot.end(deadline)).then_some(name)).collect()
    }
}

fn start(name: &str, handler: Arc<dyn Handler>) -> Result<Worker<Batch>> {
    let label = name.to_owned();
    Worker::start(name, WAITING_MAX, move |batch: Batch| {
        // A batch that nobody waits for any more was given up or is under way again.
        if batch.deadline <= driver::now() {
            return;
        }
        let call = std::panic::AssertUnwindSafe(|| handler.deliver(batch));
        if std::panic::catch_unwind(call).is_err() {
            log::error!("the handler `{label}` has panicked; the batch is tried again");
        }
    })
}

// ------------------------------------------------------------------------------------------------ the shard's side

/// The batches of a shard that the host has.
#[derive(Debug)]
pub(crate) struct Answers {
    shard: Weak<Shared>,
    next: Cell<u64>,
    waiting: RefCell<HashMap<u64, Rc<Waiting>>>,
}

#[derive(Debug, Default)]
struct Waiting {
    there: Notify,
    outcome: RefCell<Option<Outcome>>,
}

impl Answers {
    pub(crate) fn new(shard: &Arc<Shared>) -> Rc<Answers> {
        Rc::new(Answers { shard: Arc::downgrade(shard), next: Cell::new(0), waiting: RefCell::default() })
    }

    /// Takes an answer to the attempt that waits for it, if one still does.
    pub(crate) fn take(&self, answer: Answer) {
        let waiting = self.waiting.borrow().get(&answer.number).cloned();
        if let Some(waiting) = waiting {
            *waiting.outcome.borrow_mut() = Some(answer.outcome);
            waiting.there.notify();
        }
    }
}

/// Forgets an attempt, however it ends.
struct Forget<'a>(&'a Answers, u64);

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.0.waiting.borrow_mut().remove(&self.1);
    }
}

/// See the module.
pub(super) struct CustomConnector {
    destination: Arc<str>,
    custom: Custom,
    parts: Parts,
    content_type: Arc<str>,
    handlers: Arc<Handlers>,
    answers: Rc<Answers>,
}

impl CustomConnector {
    pub(super) fn new(
        d: &Destination,
        custom: &Custom,
        handlers: &Arc<Handlers>,
        answers: &Rc<Answers>,
    ) -> CustomConnector {
        CustomConnector {
            destination: d.name.as_str().into(),
            custom: custom.clone(),
            parts: Parts::of(&d.format, d.profile),
            content_type: d.format.content_type(d.profile).into(),
            handlers: handlers.clone(),
            answers: answers.clone(),
        }
    }

    async fn attempt(&self, records: &[Record]) -> Outcome {
        let handler = &self.custom.handler;
        let mut deadline = driver::now() + self.custom.timeout;
        while !self.handlers.has(handler) {
            if driver::now() >= deadline {
                let reason = format!("the host has given no handler `{handler}`");
                return Outcome::Throttle { after_ns: None, reason, status: 0, answer: Bytes::new() };
            }
            driver::sleep(LOOK_AGAIN).await;
        }
        let Some((headers, pieces)) = self.parts.open(records) else {
            return Outcome::Undeliverable { reason: "the record is no parcel; a defect of Tidewire".into() };
        };
        let number = self.answers.next.get();
        self.answers.next.set(number + 1);
        let waiting = Rc::new(Waiting::default());
        self.answers.waiting.borrow_mut().insert(number, waiting.clone());
        let _forget = Forget(&self.answers, number);
        deadline = driver::now() + self.custom.timeout;
        let batch = Batch {
            destination: self.destination.clone(),
            ids: records.iter().map(|r| r.id).collect(),
            records: records.iter().map(|r| self.parts.record(r)).collect(),
            headers: headers.into_iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect(),
            content_type: self.content_type.clone(),
            pieces,
            deadline,
            reply: Some(Reply { shard: self.answers.shard.clone(), number }),
        };
        if let Err(reason) = self.handlers.give(handler, batch) {
            return again(Fault::Overload, &reason);
        }
        match driver::until(deadline, waiting.there.notified()).await {
            None => again(Fault::Overload, &format!("the handler has not answered within {:?}", self.custom.timeout)),
            Some(()) => waiting.outcome.take().unwrap_or_else(|| again(Fault::Own, "there is no answer")),
        }
    }
}

impl Connector for CustomConnector {
    fn send<'a>(&'a self, records: &'a [Record]) -> Attempt<'a> {
        Box::pin(self.attempt(records))
    }

    fn expire(&self, _: Instant) {}

    fn connections(&self) -> u64 {
        0
    }
}
