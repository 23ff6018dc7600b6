//! Replays: events of the log are sent again, beside the live ones.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::keep::{FilterFile, StartFile, check_name};
use super::{Engine, closed, deadline_in};
use crate::delivery::pace::Pace;
use crate::driver;
use crate::error::{Error, ErrorKind, Result};
use crate::event::EventTypes;
use crate::filter::EventFilter;
use crate::lock::Mutex;
use crate::log::FORMAT;
use crate::log::reader::ReadFrom;
use crate::log::recovery::{DataDir, ShardState, read_json, write_json};
use crate::log::segment::newer_format;
use crate::rule::{Destination, suggest};
use crate::shard::Command;
use crate::shard::keep::saved_replay;
use crate::shard::replay::{Part, PartState, Replay};

/// The most replays that may be under way at a time: each has a lane on every shard.
const REPLAYS_MAX: usize = 64;
/// How often somebody who waits looks whether the engine is still there.
const LOOK: Duration = Duration::from_millis(200);

/// What to replay, and to whom. Make one with [`ReplayRequest::new`] and set what differs.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ReplayRequest {
    /// The replay's name: as for destinations. Records of the replay carry it as `replay`. Default: a new one.
    pub name: Option<String>,
    /// Where to begin. Not [`ReadFrom::Now`]: there is nothing to replay.
    pub from: ReadFrom,
    /// Events with a clock above this, ns since the epoch, are not replayed. Default: everything up to the request.
    pub until_ns: Option<u64>,
    /// Which events. Default: all. Those that the destination's profile has no record for are left out.
    pub filter: EventFilter,
    /// Who gets them.
    pub to: ReplayTo,
    /// The most events per second, of all shards together, from 1 on. Default: without limit.
    pub rate_max: Option<u32>,
}

/// Who gets the events of a replay.
#[derive(Clone, Debug)]
pub enum ReplayTo {
    /// A destination of the rules, by name.
    Named(String),
    /// A destination of its own. It is not stored (its settings may hold secrets): after a restart the replay waits until
    /// [`Engine::resume_replay`] says again where it goes.
    OneOff(Box<Destination>),
}

impl ReplayRequest {
    /// A replay of everything that the log still has.
    pub fn new(to: ReplayTo) -> ReplayRequest {
        ReplayRequest {
            name: None,
            from: ReadFrom::Beginning,
            until_ns: None,
            filter: EventFilter::all(),
            to,
            rate_max: None,
        }
    }
}

/// What a replay does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[non_exhaustive]
pub enum ReplayState {
    /// It is under way.
    Running,
    /// It waits for a destination: see [`Engine::resume_replay`].
    Waiting,
    /// Everything was delivered or became a dead letter.
    Done,
    /// It was cancelled.
    Cancelled,
    /// Its destination was removed from the rules.
    Failed,
}

/// How far a replay is. Counts are of this run of the engine.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[non_exhaustive]
pub struct ReplayProgress {
    /// What it does.
    pub state: ReplayState,
    /// How much of the log was read, from 0 to 1.
    pub read: f64,
    /// Events found that the filter wants.
    pub found: u64,
    /// Events delivered.
    pub delivered: u64,
    /// Events given up and kept as dead letters.
    pub dead_lettered: u64,
    /// Events that were put off for another attempt, each time counted.
    pub retried: u64,
    /// Sequences that were asked for and are not in the log any more. Not every one need have been an event.
    pub missing: u64,
    /// What went wrong last; empty if nothing did.
    pub last_error: String,
}

/// A replay under way. Dropping it changes nothing; the replay goes on, also after the engine was opened anew.
#[derive(Clone, Debug)]
pub struct ReplayHandle {
    engine: Engine,
    replay: Arc<Replay>,
}

impl Engine {
    /// Sends events of the log again.
    ///
    /// Events keep their ids and sequencers; their records say `replay` with the replay's name. They come in the order of
    /// the log for each resource key, through a lane of the replay's own: live events of the same destination are neither
    /// delayed nor kept in order with it. How far the replay is survives a restart; as everywhere, events that were on their
    /// way then are sent twice. While it runs, the log that it has still to read is kept.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if the rules have no such destination; [`ErrorKind::InvalidArgument`] for a name that is
    /// taken or not allowed, a beginning that is no place in the past, or a rate of 0; [`ErrorKind::InvalidConfig`] for a
    /// destination of its own that is wrong; [`ErrorKind::Full`] if too many replays are under way; [`ErrorKind::Io`] and
    /// the like if it cannot be written down; [`ErrorKind::Closed`], [`ErrorKind::WrongProcess`].
    pub fn replay(&self, request: ReplayRequest) -> Result<ReplayHandle> {
        let inner = &*self.inner;
        inner.check_process()?;
        request.filter.validate()?;
        if request.from == ReadFrom::Now {
            return Err(Error::new(ErrorKind::InvalidArgument, "there is nothing to replay from now on")
                .at("from")
                .remedy("begin in the past"));
        }
        if request.rate_max == Some(0) {
            return Err(Error::new(ErrorKind::InvalidArgument, "rate_max is 0")
                .at("rate_max")
                .remedy("choose at least 1, or none"));
        }
        let heads = self.settled_heads();
        let start = StartFile::of(&request.from, &heads)?;
        let mut life = inner.life.lock();
        life.replays.tidy();
        let life = &mut *life;
        let Some(dir) = life.dir.as_mut() else { return Err(closed()) };
        let name = match request.name {
            Some(name) => name,
            None => life.replays.free_name(),
        };
        check_name("replay", &name)?;
        if life.replays.file.replays.contains_key(&name) {
            return Err(Error::new(ErrorKind::InvalidArgument, format!("a replay `{name}` is under way"))
                .at("name")
                .remedy("choose another name, cancel it, or resume it (Engine::resume_replay)"));
        }
        if life.replays.file.replays.len() >= REPLAYS_MAX {
            return Err(Error::new(ErrorKind::Full, format!("{REPLAYS_MAX} replays are under way"))
                .remedy("wait for one to end, or cancel one"));
        }
        let (destination, destination_name) = match request.to {
            ReplayTo::Named(name) => (self.destination(&name)?, Some(name)),
            ReplayTo::OneOff(d) => {
                d.validate().map_err(|e| e.at(d.label()))?;
                (Arc::new(*d), None)
            }
        };
        let filed_under = destination_name.clone().unwrap_or_else(|| format!("replay:{name}"));
        let numbers = dir.names.assign(&[&filed_under], &[])?;
        let entry = ReplayFile {
            number: life.replays.file.next,
            destination: destination_name,
            destination_number: numbers.destinations.first().copied().unwrap_or_default(),
            filter: FilterFile::of(&request.filter),
            start,
            until: heads,
            until_ns: request.until_ns,
            rate_max: request.rate_max,
        };
        let replay = Arc::new(entry.replay(&name, request.filter, Some(destination)));
        life.replays.add(name, entry, replay.clone())?;
        for shard in &inner.shards {
            shard.command(Command::Replay(replay.clone()));
        }
        Ok(ReplayHandle { engine: self.clone(), replay })
    }

    /// Says where a replay goes that waits since the engine was opened, because its destination is none of the rules'.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is no such replay, [`ErrorKind::InvalidArgument`] if it does not wait,
    /// [`ErrorKind::InvalidConfig`] if the destination is wrong; [`ErrorKind::Closed`], [`ErrorKind::WrongProcess`].
    pub fn resume_replay(&self, name: &str, to: Destination) -> Result<ReplayHandle> {
        self.inner.check_process()?;
        to.validate().map_err(|e| e.at(to.label()))?;
        let life = self.inner.life.lock();
        if life.dir.is_none() {
            return Err(closed());
        }
        let replay = life.replays.running.iter().find(|r| r.name == name).cloned().ok_or_else(|| unknown(name))?;
        if replay.named || replay.destination.lock().is_some() {
            return Err(Error::new(ErrorKind::InvalidArgument, format!("replay `{name}` does not wait"))
                .remedy("start another one"));
        }
        *replay.destination.lock() = Some(Arc::new(to));
        for shard in &self.inner.shards {
            shard.command(Command::Replay(replay.clone()));
        }
        Ok(ReplayHandle { engine: self.clone(), replay })
    }

    /// The replays that are not through, those of earlier runs included.
    ///
    /// # Errors
    /// [`ErrorKind::WrongProcess`] in a forked child.
    pub fn replays(&self) -> Result<Vec<ReplayHandle>> {
        self.inner.check_process()?;
        let mut life = self.inner.life.lock();
        life.replays.tidy();
        let handle = |r: &Arc<Replay>| ReplayHandle { engine: self.clone(), replay: r.clone() };
        Ok(life.replays.running.iter().map(handle).collect())
    }

    /// A destination of the rules.
    fn destination(&self, name: &str) -> Result<Arc<Destination>> {
        let snapshot = self.inner.snapshot.load();
        match snapshot.destinations.by_name(name) {
            Some(d) => Ok(d.destination.clone()),
            None => {
                let known = snapshot.destination_names();
                Err(Error::new(ErrorKind::NotFound, format!("unknown destination `{}`", name.escape_debug()))
                    .remedy(suggest("destination", name, known)))
            }
        }
    }
}

fn unknown(name: &str) -> Error {
    Error::new(ErrorKind::NotFound, format!("there is no replay `{}`", name.escape_debug()))
        .remedy("it may be through; see Engine::replays")
}

impl ReplayHandle {
    /// The replay's name.
    pub fn name(&self) -> &str {
        &self.replay.name
    }

    /// How far it is.
    pub fn progress(&self) -> ReplayProgress {
        let r = &*self.replay;
        let mut p = ReplayProgress {
            state: state(r),
            read: 1.0,
            found: 0,
            delivered: 0,
            dead_lettered: 0,
            retried: 0,
            missing: 0,
            last_error: String::new(),
        };
        let (mut read, mut all) = (0, 0);
        for part in &r.parts {
            all += part.until.saturating_sub(part.start);
            read += part.seen.load(Ordering::Relaxed).clamp(part.start, part.until.max(part.start)) - part.start;
            p.found += part.stats.routed.get();
            p.delivered += part.stats.delivered.get();
            p.dead_lettered += part.stats.dead_lettered.get();
            p.retried += part.stats.retried.get();
            p.missing += part.missing.load(Ordering::Relaxed);
            let error = part.stats.last_error.lock();
            if !error.is_empty() {
                p.last_error.clone_from(&error);
            }
        }
        if all > 0 {
            p.read = read as f64 / all as f64;
        }
        p
    }

    /// Ends it before it is through: what is on its way may still arrive, the rest is not sent. Does nothing to a replay
    /// that has ended.
    ///
    /// # Errors
    /// [`ErrorKind::WrongProcess`], or [`ErrorKind::Io`] and the like if it cannot be written down; then the replay is
    /// resumed when the engine is opened again.
    pub fn cancel(&self) -> Result<()> {
        let inner = &*self.engine.inner;
        inner.check_process()?;
        self.replay.cancelled.store(true, Ordering::Release);
        for shard in &inner.shards {
            shard.command(Command::EndReplay(self.replay.clone()));
        }
        inner.life.lock().replays.remove(&self.replay.name)
    }

    /// Waits until it has ended, at most so long. Answers how far it came.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`], also for a replay that waits for a destination; [`ErrorKind::Closed`] if the engine closes
    /// first: the replay goes on when it is opened again.
    pub fn wait(&self, timeout: Duration) -> Result<ReplayProgress> {
        let inner = &*self.engine.inner;
        inner.check_process()?;
        let deadline = deadline_in(timeout);
        loop {
            let rings = self.replay.bell.rings();
            if !matches!(state(&self.replay), ReplayState::Running | ReplayState::Waiting) {
                if let Some(mut life) = inner.life.try_lock() {
                    life.replays.tidy();
                }
                return Ok(self.progress());
            }
            if inner.closed.load(Ordering::SeqCst) {
                return Err(closed().remedy("the replay goes on when the engine is opened again"));
            }
            let now = driver::now();
            if now >= deadline {
                let p = self.progress();
                let e = Error::new(
                    ErrorKind::Timeout,
                    format!("the replay is not through: {} of {} events delivered so far", p.delivered, p.found),
                );
                return Err(match p.state {
                    ReplayState::Waiting => e.remedy("it waits for a destination: see Engine::resume_replay"),
                    _ if !p.last_error.is_empty() => e.remedy(format!("the last error was: {}", p.last_error)),
                    _ => e.remedy("it goes on; wait again"),
                });
            }
            driver::block_on(self.replay.bell.rung_since(rings), Some(deadline.min(now + LOOK)));
        }
    }
}

fn state(r: &Replay) -> ReplayState {
    let states = || r.parts.iter().map(Part::state);
    let open = states().any(|s| matches!(s, PartState::Running | PartState::Waiting));
    if open && r.destination.lock().is_none() {
        ReplayState::Waiting
    } else if open {
        ReplayState::Running
    } else if states().any(|s| s == PartState::Failed) {
        ReplayState::Failed
    } else if states().any(|s| s == PartState::Cancelled) {
        ReplayState::Cancelled
    } else {
        ReplayState::Done
    }
}

/// `replays.json`.
#[derive(Debug, Serialize, Deserialize)]
struct ReplaysFile {
    format: u32,
    /// The next one's number; numbers are never used again.
    next: u32,
    replays: BTreeMap<String, ReplayFile>,
}

#[derive(Debug, Serialize, Deserialize)]
struct ReplayFile {
    number: u32,
    destination: Option<String>,
    destination_number: u32,
    filter: FilterFile,
    start: StartFile,
    until: Vec<u64>,
    until_ns: Option<u64>,
    rate_max: Option<u32>,
}

impl ReplayFile {
    fn replay(&self, name: &str, filter: EventFilter, destination: Option<Arc<Destination>>) -> Replay {
        let part = |(start, until): (&u64, &u64)| Part::new(*start, self.start.strict, *until);
        Replay {
            number: self.number,
            name: name.to_owned(),
            filter,
            destination_number: self.destination_number,
            named: self.destination.is_some(),
            destination: Mutex::new(destination),
            not_before_ns: self.start.not_before_ns,
            until_ns: self.until_ns.unwrap_or(u64::MAX),
            pace: self.rate_max.map(|rate| Pace::new(rate, driver::now())),
            parts: self.start.after.iter().zip(&self.until).map(part).collect(),
            cancelled: AtomicBool::new(false),
            bell: Default::default(),
        }
    }
}

/// The replays of an engine.
#[derive(Debug)]
pub(super) struct Replays {
    path: PathBuf,
    file: ReplaysFile,
    running: Vec<Arc<Replay>>,
    /// Told of those that are gone.
    shards: Vec<Arc<crate::shard::Shared>>,
}

impl Replays {
    /// Reads what earlier runs left. `destination` knows those of the rules.
    pub(super) fn open(
        dir: &DataDir,
        types: &EventTypes,
        states: &[ShardState],
        destination: impl Fn(&str) -> Option<Arc<Destination>>,
    ) -> Result<Replays> {
        let path = dir.path.join("replays.json");
        let file = match read_json::<ReplaysFile>(&path)? {
            Some(f) if f.format > FORMAT => return Err(newer_format(f.format).at(path.display().to_string())),
            Some(f) => f,
            None => ReplaysFile { format: FORMAT, next: 1, replays: BTreeMap::new() },
        };
        let mut out = Replays { path, file, running: Vec::new(), shards: Vec::new() };
        let mut over = Vec::new();
        for (name, entry) in &out.file.replays {
            let saved = |i: usize| states.get(i).and_then(|s| saved_replay(s, entry.number));
            let through = |(i, until): (usize, &u64)| saved(i).is_some_and(|low| low >= *until);
            if entry.until.len() != states.len() || entry.until.iter().enumerate().all(through) {
                over.push(name.clone());
                continue;
            }
            let whose = format!("replay `{name}`");
            let filter = match entry.filter.filter(&whose, types) {
                Ok(filter) => filter,
                // One replay that cannot go on does not keep the engine from opening.
                Err(e) => {
                    log::error!("{e}; it was ended");
                    over.push(name.clone());
                    continue;
                }
            };
            let to = entry.destination.as_deref().and_then(&destination);
            if let (Some(gone), None) = (&entry.destination, &to) {
                log::error!("{whose}: its destination `{gone}` was removed from the rules; it was ended");
                over.push(name.clone());
                continue;
            }
            out.running.push(Arc::new(entry.replay(name, filter, to)));
        }
        for name in over {
            out.file.replays.remove(&name);
        }
        Ok(out)
    }

    pub(super) fn running(&self) -> &[Arc<Replay>] {
        &self.running
    }

    /// Whom to tell of replays that are gone.
    pub(super) fn tell(&mut self, shards: Vec<Arc<crate::shard::Shared>>) {
        self.shards = shards;
    }

    fn free_name(&self) -> String {
        let mut n = self.file.next;
        while self.file.replays.contains_key(&format!("replay-{n}")) {
            n += 1;
        }
        format!("replay-{n}")
    }

    /// Writes a replay down before it begins.
    fn add(&mut self, name: String, entry: ReplayFile, replay: Arc<Replay>) -> Result<()> {
        self.file.next += 1;
        self.file.replays.insert(name.clone(), entry);
        if let Err(e) = write_json(&self.path, &self.file) {
            self.file.replays.remove(&name);
            return Err(e);
        }
        self.running.push(replay);
        Ok(())
    }

    fn remove(&mut self, name: &str) -> Result<()> {
        self.running.retain(|r| r.name != name);
        match self.file.replays.remove(name) {
            Some(entry) => {
                write_json(&self.path, &self.file)?;
                for shard in &self.shards {
                    shard.command(Command::ForgetReplay(entry.number));
                }
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Forgets those that have ended.
    pub(super) fn tidy(&mut self) {
        let over = |r: &&Arc<Replay>| !matches!(state(r), ReplayState::Running | ReplayState::Waiting);
        let names: Vec<String> = self.running.iter().filter(over).map(|r| r.name.clone()).collect();
        for name in names {
            if let Err(e) = self.remove(&name) {
                // It is through all the same, and the cursors say so.
                log::error!("replay `{name}`: {e}");
            }
        }
    }
}
