//! What the host adds to events before they are matched: a function of its own, its thread, and what holds when it fails.
//!
//! The function sees each event once, after it was published and before the rules do. What it says is part of the event from
//! then on and is written to the log with it, so neither a retry nor a replay nor the next opening asks again.

use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures::task::AtomicWaker;

use crate::driver::{Giver, Worker};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, FrameView, frame};
use crate::lock::Mutex;
use crate::shard::{Command, Shared};

/// How long an enricher may take for an event unless its options say something else.
const TIMEOUT: Duration = Duration::from_millis(100);
/// The longest time that it may be given.
const TIMEOUT_MAX: Duration = Duration::from_secs(60);

/// A function of the host that adds to events: see [`crate::Engine::set_enricher`].
///
/// Each shard has a thread for it, so that it may block, and is called from several threads at the same time where there are
/// several shards. The events of one shard come one after the other. It must not wait for anything of this engine: what it
/// publishes there at [`crate::Ack::Memory`] is taken, but an ack waits for the event that is being enriched.
pub trait Enricher: Send + Sync {
    /// Says what is added to an event. With an error, whose text goes to the log, the event gets the fallback; so it does
    /// after a panic.
    ///
    /// # Errors
    /// As the host likes.
    fn enrich(&self, event: &FrameView<'_>, added: &mut Enrichment) -> std::result::Result<(), String>;
}

impl<F> Enricher for F
where
    F: Fn(&FrameView<'_>, &mut Enrichment) -> std::result::Result<(), String> + Send + Sync,
{
    fn enrich(&self, event: &FrameView<'_>, added: &mut Enrichment) -> std::result::Result<(), String> {
        self(event, added)
    }
}

/// What is added to an event. What the event has under the same name is replaced. Nothing else of it can be changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Enrichment {
    metadata: Vec<(String, String)>,
    tags: Vec<(String, String)>,
    data: Option<Vec<u8>>,
}

impl Enrichment {
    /// Sets an entry of the user metadata.
    pub fn set_metadata(&mut self, name: impl Into<String>, value: impl Into<String>) -> &mut Self {
        set(&mut self.metadata, name.into(), value.into());
        self
    }

    /// Sets a tag.
    pub fn set_tag(&mut self, name: impl Into<String>, value: impl Into<String>) -> &mut Self {
        set(&mut self.tags, name.into(), value.into());
        self
    }

    /// Sets the event's data: a JSON document. Nothing takes away what it has.
    pub fn set_data(&mut self, data: impl Into<Vec<u8>>) -> &mut Self {
        self.data = Some(data.into());
        self
    }

    /// Whether it adds nothing.
    pub fn is_empty(&self) -> bool {
        self.metadata.is_empty() && self.tags.is_empty() && self.data.is_none()
    }

    /// The frame of an event with what is added; `None` if that changes nothing.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidEvent`] if the event would not be one that may be published.
    pub(crate) fn apply(&self, frame: &[u8], bytes_max: usize) -> Result<Option<Vec<u8>>> {
        if self.is_empty() {
            return Ok(None);
        }
        let view = FrameView::trusted(frame);
        let metadata = merged(view.metadata().collect(), &self.metadata);
        let tags = merged(view.tags().collect(), &self.tags);
        let mut event = view.event(&metadata, &tags);
        if let Some(data) = &self.data {
            event.data = data;
        }
        let layout = event.check_seldom(bytes_max)?;
        let mut out = vec![0; layout.len()];
        frame::encode(&event, layout, event.time_ns, &mut out);
        Ok((out != frame).then_some(out))
    }

    /// Sees whether it could be added to any event at all.
    fn check(&self, bytes_max: usize) -> Result<()> {
        let least = Event { bucket: "b", key: b"k", ..Event::default() };
        self.apply(&frame::encode_to_vec(&least, 1), bytes_max).map(drop)
    }
}

fn set(pairs: &mut Vec<(String, String)>, name: String, value: String) {
    match pairs.iter_mut().find(|(n, _)| *n == name) {
        Some(pair) => pair.1 = value,
        None => pairs.push((name, value)),
    }
}

fn merged<'a>(mut pairs: Vec<(&'a str, &'a str)>, added: &'a [(String, String)]) -> Vec<(&'a str, &'a str)> {
    for (name, value) in added {
        match pairs.iter_mut().find(|(n, _)| n == name) {
            Some(pair) => pair.1 = value,
            None => pairs.push((name, value)),
        }
    }
    pairs
}

/// How an enricher is used.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EnrichOptions {
    /// How long it may take for one event, 1 ms to 60 s. Default: 100 ms. Publishers feel what is slow only when the
    /// ring is full; those who wait for an ack wait for the enricher, too.
    pub timeout: Duration,
    /// What is added to an event for which it took too long, failed, or said something that cannot be. Default: nothing, the
    /// event stays as it is. So does one that would be too large with it.
    pub fallback: Enrichment,
}

impl Default for EnrichOptions {
    fn default() -> Self {
        EnrichOptions { timeout: TIMEOUT, fallback: Enrichment::default() }
    }
}

impl EnrichOptions {
    fn check(&self, bytes_max: usize) -> Result<()> {
        if !(Duration::from_millis(1)..=TIMEOUT_MAX).contains(&self.timeout) {
            let what = format!("the enricher's timeout is {:?}, not 1 ms to {TIMEOUT_MAX:?}", self.timeout);
            return Err(Error::new(ErrorKind::InvalidArgument, what).at("timeout"));
        }
        self.fallback.check(bytes_max).map_err(|e| {
            Error::new(ErrorKind::InvalidArgument, format!("the fallback cannot be added to an event: {e}"))
                .at("fallback")
        })
    }
}

// ------------------------------------------------------------------------------------------------ the engine's side

/// The enricher of an engine, with a thread for each shard.
#[derive(Default)]
pub(crate) struct Enrichers(Mutex<Slots>);

#[derive(Default)]
struct Slots {
    workers: Vec<Worker<Job>>,
    closed: bool,
}

impl fmt::Debug for Enrichers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Enrichers").field("workers", &self.0.lock().workers.len()).finish()
    }
}

impl Enrichers {
    /// See [`crate::Engine::set_enricher`].
    pub(crate) fn set(
        &self,
        shards: &[Arc<Shared>],
        bytes_max: usize,
        enricher: Option<Arc<dyn Enricher>>,
        options: EnrichOptions,
    ) -> Result<()> {
        options.check(bytes_max)?;
        let mut slots = self.0.lock();
        if slots.closed {
            return Err(Error::new(ErrorKind::Closed, "the engine is closed"));
        }
        let mut workers = Vec::new();
        let mut asking = Vec::new();
        if let Some(enricher) = enricher {
            let options = Arc::new(options);
            for shard in shards {
                let board = Arc::new(Board::default());
                let work = work(enricher.clone(), board.clone(), bytes_max);
                // The next one may come before the thread is back from the one before.
                let worker = Worker::start(&format!("enrich-{}", shard.index), 1, work)?;
                asking.push(Some(Asking { giver: worker.giver().clone(), board, options: options.clone(), bytes_max }));
                workers.push(worker);
            }
        } else {
            asking.resize_with(shards.len(), || None);
        }
        for (shard, asking) in shards.iter().zip(asking) {
            shard.command(Command::Enrich(asking));
        }
        // Only now: whoever is to be told of a shard's earlier one gives it nothing any more, or gives up.
        let earlier = std::mem::replace(&mut slots.workers, workers);
        earlier.iter().for_each(Worker::stop);
        Ok(())
    }

    /// Ends all threads, once the shards have ended. How many are still within the host's function at the deadline: they are
    /// left to end by themselves.
    pub(crate) fn close(&self, deadline: Instant) -> usize {
        let mut slots = self.0.lock();
        slots.closed = true;
        let workers = std::mem::take(&mut slots.workers);
        drop(slots);
        workers.iter().for_each(Worker::stop);
        workers.into_iter().map(|worker| worker.end(deadline)).filter(|ended| !ended).count()
    }
}

/// Events of a shard that are to be enriched, in order.
struct Job {
    number: u64,
    frames: Vec<Vec<u8>>,
}

/// What became of an event.
#[derive(Debug)]
pub(crate) enum Answer {
    /// Its new frame.
    Frame(Vec<u8>),
    /// It stays as it is.
    Unchanged,
    /// The enricher failed, or said something that cannot be.
    Failed,
    /// The enricher panicked.
    Panicked,
}

/// Where a thread puts its answers.
#[derive(Default)]
struct Board {
    answers: Mutex<VecDeque<Answer>>,
    /// The job that somebody waits for; a thread that is at another one lets go of it.
    wanted: AtomicU64,
    /// The thread has a job.
    busy: AtomicBool,
    waker: AtomicWaker,
}

fn work(enricher: Arc<dyn Enricher>, board: Arc<Board>, bytes_max: usize) -> impl FnMut(Job) + Send + 'static {
    let (mut failed, mut panicked) = (0u64, 0u64);
    move |job: Job| {
        for (n, frame) in job.frames.iter().enumerate() {
            if board.wanted.load(Ordering::Acquire) != job.number {
                board.busy.store(false, Ordering::Release);
                return;
            }
            let answer = match asked(&*enricher, frame, bytes_max) {
                Ok(Some(frame)) => Answer::Frame(frame),
                Ok(None) => Answer::Unchanged,
                Err(None) => {
                    panicked += 1;
                    tell(panicked, format_args!("has panicked"));
                    Answer::Panicked
                }
                Err(Some(why)) => {
                    failed += 1;
                    tell(failed, format_args!("has failed: {why}"));
                    Answer::Failed
                }
            };
            let mut answers = board.answers.lock();
            if board.wanted.load(Ordering::Acquire) == job.number {
                answers.push_back(answer);
            }
            // Who sees the last answer may give the next job.
            if n + 1 == job.frames.len() {
                board.busy.store(false, Ordering::Release);
            }
            drop(answers);
            board.waker.wake();
        }
    }
}

/// What is wrong with each event is said more and more seldom.
#[cold]
fn tell(times: u64, what: fmt::Arguments<'_>) {
    if times.is_power_of_two() {
        log::error!("the enricher {what} ({times} times by now on this shard); the event gets the fallback");
    }
}

/// The frame of an event with what the host adds; why not, or `None` if it panicked.
fn asked(
    enricher: &dyn Enricher,
    frame: &[u8],
    bytes_max: usize,
) -> std::result::Result<Option<Vec<u8>>, Option<String>> {
    let event = FrameView::trusted(frame);
    let mut added = Enrichment::default();
    match catch_unwind(AssertUnwindSafe(|| enricher.enrich(&event, &mut added))) {
        Ok(Ok(())) => added.apply(frame, bytes_max).map_err(|e| Some(format!("what it adds cannot be: {e}"))),
        Ok(Err(why)) => Err(Some(why)),
        Err(_) => Err(None),
    }
}

// ------------------------------------------------------------------------------------------------ the shard's side

/// By what a shard asks the enricher.
pub(crate) struct Asking {
    giver: Giver<Job>,
    board: Arc<Board>,
    options: Arc<EnrichOptions>,
    bytes_max: usize,
}

impl fmt::Debug for Asking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Asking").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Asking {
    pub(crate) fn timeout(&self) -> Duration {
        self.options.timeout
    }

    /// Gives the enricher a job, if it has none. Whether it has it.
    pub(crate) fn give(&self, number: u64, frames: Vec<Vec<u8>>) -> bool {
        if self.board.busy.load(Ordering::Acquire) {
            return false;
        }
        let mut answers = self.board.answers.lock();
        answers.clear();
        self.board.wanted.store(number, Ordering::Release);
        drop(answers);
        self.board.busy.store(true, Ordering::Release);
        let given = self.giver.give(Job { number, frames }).is_ok();
        if !given {
            self.board.busy.store(false, Ordering::Release);
        }
        given
    }

    /// Waits no longer for the job that it has.
    pub(crate) fn give_up(&self) {
        let mut answers = self.board.answers.lock();
        self.board.wanted.store(0, Ordering::Release);
        answers.clear();
    }

    /// The answers that have come to the job that is wanted.
    pub(crate) fn take(&self) -> VecDeque<Answer> {
        std::mem::take(&mut *self.board.answers.lock())
    }

    /// Ready when there is an answer.
    pub(crate) fn waiter(&self) -> Waiter {
        Waiter(self.board.clone())
    }

    /// The frame of an event to which the enricher has said nothing that counts; `None` if it stays as it is.
    pub(crate) fn fallback(&self, frame: &[u8]) -> Option<Vec<u8>> {
        self.options.fallback.apply(frame, self.bytes_max).ok().flatten()
    }
}

/// See [`Asking::waiter`].
pub(crate) struct Waiter(Arc<Board>);

impl Future for Waiter {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let there = || !self.0.answers.lock().is_empty();
        if there() {
            return Poll::Ready(());
        }
        self.0.waker.register(cx.waker());
        if there() { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl Drop for Waiter {
    /// Nobody is to be woken any more: a waker that is dropped later, on another thread, would leave its task behind.
    fn drop(&mut self) {
        drop(self.0.waker.take());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::KnownType;

    fn frame_of(metadata: &[(&str, &str)], tags: &[(&str, &str)]) -> Vec<u8> {
        let mut event = Event::new(KnownType::ObjectCreatedPut.into(), "b", b"k");
        event.size = Some(7);
        event.etag = "e";
        event.metadata = metadata;
        event.tags = tags;
        frame::encode_to_vec(&event, 42)
    }

    #[test]
    fn what_is_added_replaces_entries_of_its_name_and_leaves_the_rest() {
        let before = frame_of(&[("a", "1"), ("b", "2")], &[("t", "x")]);
        let mut added = Enrichment::default();
        added.set_metadata("b", "3").set_metadata("c", "4").set_metadata("c", "5").set_tag("u", "").set_data("[1]");
        let after = added.apply(&before, 65536).unwrap().unwrap();
        let (old, new) = (FrameView::parse(&before).unwrap(), FrameView::parse(&after).unwrap());
        assert_eq!(new.metadata().collect::<Vec<_>>(), [("a", "1"), ("b", "3"), ("c", "5")]);
        assert_eq!(new.tags().collect::<Vec<_>>(), [("t", "x"), ("u", "")]);
        assert_eq!(new.field(frame::Field::Data), b"[1]");
        assert_eq!(
            (old.bucket_and_key(), old.time_ns(), old.size()),
            (new.bucket_and_key(), new.time_ns(), new.size())
        );
        assert_eq!((new.text(frame::Field::Etag), new.event_type()), ("e", old.event_type()));
        // What is there already changes nothing.
        assert_eq!(added.apply(&after, 65536).unwrap(), None);
        assert_eq!(Enrichment::default().apply(&before, 65536).unwrap(), None);
    }

    #[test]
    fn what_could_not_be_published_is_not_added() {
        let before = frame_of(&[], &[]);
        let refused = |change: fn(&mut Enrichment)| {
            let mut added = Enrichment::default();
            change(&mut added);
            added.apply(&before, 4096).unwrap_err().to_string()
        };
        assert!(
            refused(|a| {
                a.set_metadata("a", "x".repeat(5000));
            })
            .contains("more than 4096")
        );
        assert!(
            refused(|a| {
                a.set_tag("", "x");
            })
            .contains("without a name")
        );
        assert!(
            refused(|a| {
                a.set_tag("n".repeat(70_000), "");
            })
            .contains("tags")
        );
        assert!(
            refused(|a| {
                a.set_data("{");
            })
            .contains("no JSON")
        );
    }

    #[test]
    fn options_that_cannot_be_are_refused() {
        let with = |change: fn(&mut EnrichOptions)| {
            let mut options = EnrichOptions::default();
            change(&mut options);
            options.check(65536).map_err(|e| e.to_string())
        };
        assert_eq!(with(|_| {}), Ok(()));
        assert!(with(|o| o.timeout = Duration::ZERO).unwrap_err().contains("timeout"));
        assert!(with(|o| o.timeout = Duration::from_secs(61)).unwrap_err().contains("timeout"));
        assert!(
            with(|o| {
                o.fallback.set_tag("", "");
            })
            .unwrap_err()
            .contains("fallback")
        );
        assert!(
            with(|o| {
                o.fallback.set_metadata("a", "b").set_data("nonsense");
            })
            .unwrap_err()
            .contains("JSON")
        );
    }
}
