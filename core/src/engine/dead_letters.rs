//! What can be done with the dead letters of a running engine.

use std::io::Write;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

use futures::channel::oneshot;

use super::{Command, Engine, closed};
use crate::driver;
use crate::error::{Error, ErrorKind, Result};
use crate::log::dead::{self, DeadLetterFilter, DeadLetterId, ExportOptions, StoredDeadLetter, Wanted};
use crate::rule::suggest;
use crate::shard::dead::{DeadJob, RedriveOrder};

/// The most dead letters that one call lists.
const PAGE_MAX: usize = 10_000;

/// How dead letters are redriven. The default: each to its own destination, as fast as the log takes them.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[non_exhaustive]
pub struct RedriveOptions {
    /// The destination that gets them instead of their own, by name.
    pub to: Option<String>,
    /// How many a second, all shards together.
    pub per_second: Option<u32>,
}

/// What a redrive did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Redriven {
    /// Letters whose events are in the log again, and which are letters no more.
    pub redriven: u64,
    /// Letters that were left where they are.
    pub left: u64,
    /// Why they were left, with the number of letters for each reason.
    pub why: Vec<(String, u64)>,
}

/// A redrive under way: see [`Engine::redrive`]. It goes on if this is dropped, until the engine closes.
#[derive(Debug)]
pub struct Redrive {
    engine: Engine,
    order: Arc<RedriveOrder>,
    /// Of the shards that are not through.
    replies: Vec<oneshot::Receiver<Result<()>>>,
}

impl Redrive {
    /// Waits until it is through, at most until `deadline`. After a timeout it may be called again.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`]; [`ErrorKind::Closed`] if the engine closes, [`ErrorKind::LogFailed`] and the like if the log
    /// or the dead letters cannot be written: what was not redriven by then is still a letter;
    /// [`ErrorKind::WrongProcess`] in a forked child.
    pub fn wait(&mut self, deadline: Instant) -> Result<Redriven> {
        self.engine.inner.check_process()?;
        while let Some(reply) = self.replies.last_mut() {
            match driver::block_on(reply, Some(deadline)) {
                Some(Ok(result)) => {
                    self.replies.pop();
                    result?;
                }
                Some(Err(_)) => return Err(closed()),
                None => {
                    let done = self.progress().redriven;
                    let error = Error::new(ErrorKind::Timeout, format!("{done} dead letters are redriven so far"));
                    return Err(error.remedy("it goes on; wait again"));
                }
            };
        }
        Ok(self.progress())
    }

    /// What it has done so far.
    pub fn progress(&self) -> Redriven {
        let why = self.order.left();
        Redriven { redriven: self.order.redriven(), left: why.iter().map(|(_, n)| n).sum(), why }
    }

    /// Ends it after the step that is under way; what was not redriven by then is still a letter.
    pub fn stop(&self) {
        self.order.stop();
    }
}

impl Engine {
    /// Lists dead letters by shard and number, at most `limit` and 10,000; the next page begins after the last one's id. The
    /// caller's thread reads the files; the shards are not disturbed.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if the filter names a destination that the data directory never had; if a file cannot be
    /// read; [`ErrorKind::WrongProcess`] in a forked child.
    pub fn dead_letters(
        &self,
        filter: &DeadLetterFilter,
        after: Option<DeadLetterId>,
        limit: usize,
    ) -> Result<Vec<StoredDeadLetter>> {
        self.inner.check_process()?;
        let mut page = Vec::new();
        if limit == 0 {
            return Ok(page);
        }
        dead::each_dead_letter(&self.inner.config.data_dir, filter, after, |l| {
            page.push(l);
            if page.len() < limit.min(PAGE_MAX) { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        Ok(page)
    }

    /// One dead letter.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is none of this id; as [`Engine::dead_letters`].
    pub fn dead_letter(&self, id: DeadLetterId) -> Result<StoredDeadLetter> {
        let filter = DeadLetterFilter { ids: vec![id], ..DeadLetterFilter::default() };
        let found = self.dead_letters(&filter, None, 1)?;
        found.into_iter().next().ok_or_else(|| {
            Error::new(ErrorKind::NotFound, format!("there is no dead letter {id}"))
                .remedy("it may have been redriven, purged or dropped; list them")
        })
    }

    /// Writes dead letters as lines of JSON with everything that is known of them; see [`dead::export_dead_letters`].
    /// Records are written in the profiles of their destinations. Returns how many.
    ///
    /// # Errors
    /// As [`Engine::dead_letters`], or if `out` cannot be written.
    pub fn export_dead_letters(&self, filter: &DeadLetterFilter, out: &mut dyn Write) -> Result<u64> {
        self.inner.check_process()?;
        let config = &self.inner.config;
        let snapshot = self.inner.snapshot.load();
        let options = ExportOptions {
            profiles: snapshot.destinations.by_number().map(|(_, d)| (d.name.clone(), d.profile)).collect(),
            region: config.region.clone(),
            event_source: config.event_source.clone(),
            ..ExportOptions::default()
        };
        dead::export_dead_letters(&config.data_dir, filter, &options, out)
    }

    /// Puts dead letters back into the log, to be delivered as the same events (their ids and their places in the order of
    /// their keys stay), in that order, with a fresh budget. A letter is removed once its event is durable in the log; after
    /// a crash in between it is both, and the event may arrive twice. Letters that come while it runs are not redriven by it,
    /// so that it ends even if everything fails again. Events of the same key that were published since are not waited for.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if `options.to`, or the filter's destination without one, is not configured;
    /// [`ErrorKind::Closed`]; [`ErrorKind::WrongProcess`] in a forked child.
    pub fn redrive(&self, filter: &DeadLetterFilter, options: &RedriveOptions) -> Result<Redrive> {
        let wanted = self.wanted(filter)?;
        let to = {
            let snapshot = self.inner.snapshot.load();
            let configured = |name: &str| {
                snapshot.destination_number(name).ok_or_else(|| {
                    let known = snapshot.destination_names();
                    let error = format!("destination `{}` is not configured", name.escape_debug());
                    let remedy = suggest("destination", name, known);
                    Error::new(ErrorKind::NotFound, error)
                        .remedy(format!("configure it, or name another one to redrive to; {remedy}"))
                })
            };
            match (&options.to, &filter.destination) {
                (Some(name), _) => Some(configured(name)?),
                (None, Some(name)) => configured(name).map(|_| None)?,
                (None, None) => None,
            }
        };
        let order = Arc::new(RedriveOrder::new(wanted, to, options.per_second));
        let replies = self.ask_dead_letters(|reply| DeadJob::Redrive { order: order.clone(), reply });
        Ok(Redrive { engine: self.clone(), order, replies })
    }

    /// Removes dead letters for good. Returns how many, once that is durable.
    ///
    /// # Errors
    /// As [`Engine::dead_letters`]; [`ErrorKind::Timeout`] if it is not through by `deadline` (it goes on);
    /// [`ErrorKind::Closed`] if the engine closes; or if a file cannot be written.
    pub fn purge_dead_letters(&self, filter: &DeadLetterFilter, deadline: Instant) -> Result<u64> {
        let wanted = self.wanted(filter)?;
        let mut purged = 0;
        for reply in self.ask_dead_letters(|reply| DeadJob::Purge { wanted: wanted.clone(), reply }) {
            match driver::block_on(reply, Some(deadline)) {
                Some(Ok(n)) => purged += n?,
                Some(Err(_)) => return Err(closed()),
                None => {
                    let error = Error::new(ErrorKind::Timeout, format!("{purged} dead letters are purged so far"));
                    return Err(error.remedy("it goes on; list what is left"));
                }
            }
        }
        Ok(purged)
    }

    fn wanted(&self, filter: &DeadLetterFilter) -> Result<Wanted> {
        self.inner.check_process()?;
        let life = self.inner.life.lock();
        let dir = life.dir.as_ref().ok_or_else(closed)?;
        Wanted::new(filter, &dir.names)
    }

    fn ask_dead_letters<T>(&self, job: impl Fn(oneshot::Sender<T>) -> DeadJob) -> Vec<oneshot::Receiver<T>> {
        let ask = |shard: &Arc<crate::shard::Shared>| {
            let (reply, answer) = oneshot::channel();
            shard.command(Command::DeadLetters(job(reply)));
            answer
        };
        self.inner.shards.iter().map(ask).collect()
    }
}
