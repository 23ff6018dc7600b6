//! Following the log as it grows.

use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures::future::select_all;

use super::{Engine, closed, deadline_in};
use crate::driver;
use crate::error::{ErrorKind, Result};
use crate::filter::EventFilter;
use crate::log::Ack;
use crate::log::reader::{Item, LogReader, Position, ReadFrom, Step};
use crate::shard::progress::Receipt;

/// However short the time, so many chunks are looked through.
pub(super) const STEPS_MIN: usize = 16;

/// The events of the log from some place on, and then each one as it is published: see [`Engine::tail`].
///
/// As an iterator it waits for each event, and ends when the engine is closed.
#[derive(Debug)]
pub struct Tail {
    engine: Engine,
    reader: LogReader,
    filter: EventFilter,
}

impl Engine {
    /// Follows the log: the events that `filter` wants, from `from` on.
    ///
    /// A tail reads the log's files on the thread that asks it, a chunk at a time: however slow that is, nothing else waits
    /// for it, and its memory does not grow. It keeps no segment from being removed; what is removed before it was read
    /// comes as a [`crate::log::reader::Gap`]. Only events that a rule wants, or that are kept, are in the log.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] for a position of another directory, [`ErrorKind::InvalidConfig`] for a filter that is
    /// wrong, [`ErrorKind::WrongProcess`] in a forked child.
    pub fn tail(&self, filter: EventFilter, from: &ReadFrom) -> Result<Tail> {
        filter.validate()?;
        Ok(Tail { engine: self.clone(), reader: self.read_log(from)?, filter })
    }

    /// How far each shard has written: what [`Engine::wait_for_news`] waits to change.
    pub(super) fn written(&self) -> Vec<u64> {
        self.inner.shards.iter().map(|s| s.progress.written()).collect()
    }

    /// Waits until a shard has written more than `written` says, or has ended; `false` at the deadline. `other` ends the
    /// wait too.
    ///
    /// # Errors
    /// [`ErrorKind::Closed`] if every shard had ended before.
    pub(super) fn wait_for_news(
        &self,
        written: &[u64],
        other: impl Future<Output = ()>,
        deadline: Instant,
    ) -> Result<bool> {
        let news = self.inner.shards.iter().zip(written).filter(|(s, _)| s.progress.failure().is_none());
        let news: Vec<_> =
            news.map(|(shard, written)| Receipt::new(shard.clone(), written + 1).reached(Ack::Written)).collect();
        if news.is_empty() {
            return Err(closed());
        }
        let other = pin!(other);
        let both = futures::future::select(select_all(news), other);
        Ok(driver::block_on(both, Some(deadline)).is_some())
    }
}

/// Ready once there may be something new to read: see [`Tail::watch`]. It may be awaited on any executor, and is of no use
/// after it was ready.
#[must_use = "a watch is for waiting"]
pub struct LogWatch(Pin<Box<dyn Future<Output = ()> + Send>>);

impl std::fmt::Debug for LogWatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LogWatch")
    }
}

impl Future for LogWatch {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.0.as_mut().poll(cx)
    }
}

impl Engine {
    /// A watch that is ready once a shard has written more than it has now, or has ended, or `other` is ready.
    pub(super) fn watch_log(&self, other: impl Future<Output = ()> + Send + 'static) -> LogWatch {
        let news = self.inner.shards.iter().zip(self.written());
        let news: Vec<_> =
            news.map(|(shard, written)| Receipt::new(shard.clone(), written + 1).reached(Ack::Written)).collect();
        LogWatch(Box::pin(async move {
            futures::future::select(select_all(news), Box::pin(other)).await;
        }))
    }
}

impl Tail {
    /// A watch that is ready once there may be more to read than there is when this is called, or the engine is closed. For
    /// hosts that have no thread to wait: make it, then look with [`Tail::next_within`] without a wait, and await it if there
    /// was nothing.
    pub fn watch(&self) -> LogWatch {
        self.engine.watch_log(std::future::pending())
    }

    /// The next event or gap; `None` if there was none within `wait`.
    ///
    /// # Errors
    /// [`ErrorKind::Closed`] when the engine is closed and everything was read, [`ErrorKind::Io`] and the like if the log
    /// cannot be read, [`ErrorKind::WrongProcess`] in a forked child.
    pub fn next_within(&mut self, wait: Duration) -> Result<Option<Item>> {
        self.engine.inner.check_process()?;
        let deadline = deadline_in(wait);
        let mut steps = 0;
        loop {
            steps += 1;
            let written = self.engine.written();
            let heads = self.engine.heads();
            match self.reader.next(Some(&heads), &mut |frame| self.filter.matches(frame))? {
                Step::Item(item) => return Ok(Some(item)),
                Step::More if steps >= STEPS_MIN && driver::now() >= deadline => return Ok(None),
                Step::More => {}
                Step::End => {
                    if !self.engine.wait_for_news(&written, std::future::pending(), deadline)? {
                        return Ok(None);
                    }
                }
            }
        }
    }

    /// How far the tail has come: to be given to [`ReadFrom::Position`], also as text and in another process.
    pub fn position(&self) -> Position {
        self.reader.position()
    }
}

impl Iterator for Tail {
    type Item = Result<Item>;

    fn next(&mut self) -> Option<Result<Item>> {
        loop {
            match self.next_within(Duration::from_secs(3600)) {
                Ok(Some(item)) => return Some(Ok(item)),
                Ok(None) => {}
                Err(e) if e.kind() == ErrorKind::Closed => return None,
                Err(e) => return Some(Err(e)),
            }
        }
    }
}
