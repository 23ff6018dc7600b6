//! Groups of consumers: members of a group take events from the log and share the work.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use futures::channel::oneshot;
use serde::{Deserialize, Serialize};

use super::keep::{FilterFile, StartFile, check_name};
use super::tail::{LogWatch, STEPS_MIN};
use super::{Engine, Life, closed, deadline_in};
use crate::delivery::group::{GroupPolicy, Refused};
use crate::driver;
use crate::error::{Error, ErrorKind, Result};
use crate::event::EventTypes;
use crate::filter::EventFilter;
use crate::lock::Mutex;
use crate::log::FORMAT;
use crate::log::reader::{Entry, Gap, ReadFrom, ShardReader};
use crate::log::recovery::{DataDir, ShardState, Writers, read_json, write_json};
use crate::log::segment::newer_format;
use crate::rule::{Owner, Rule, within, within_time};
use crate::shard::Command;
use crate::shard::bell::Bell;
use crate::shard::group::{ConsumerGroup, Filled, GroupPart, LagLimits, SavedGroup, saved_groups};

/// The most groups of one engine: each is asked about every event that is written.
const GROUPS_MAX: usize = 256;
/// What a group holds of events that were read and are not done, per shard.
const WINDOW_EVENTS_MAX: usize = 1024;
const WINDOW_BYTES_MAX: usize = 4 << 20;
/// How often a member that waits looks whether the engine is still there.
const LOOK: Duration = Duration::from_millis(200);
/// The same while dead letters are on their way.
const LOOK_SOON: Duration = Duration::from_millis(10);
/// How long shards are given to take a group in.
const SHARDS_WAIT: Duration = Duration::from_secs(10);

/// How a group of consumers works. Make one with [`ConsumerOptions::default`] and set what differs.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ConsumerOptions {
    /// Which events the group wants. They are kept in the log for it, whether or not a rule wants them. Fixed when the
    /// group is made. Default: all.
    pub filter: EventFilter,
    /// Where a group begins that is made by this call; of no account for one that exists. Default: [`ReadFrom::Now`].
    pub from: ReadFrom,
    /// How long a member has for an event before another may get it, 1 ms to 12 h. Longer than processing takes: see
    /// [`Consumer::extend`]. Of this member. Default: 30 s.
    pub visibility_timeout: Duration,
    /// How often an event is given out before it becomes a dead letter, 1 to 1,000,000. Default: 16. The latest call
    /// counts for the group.
    pub deliveries_max: u32,
    /// The most events that one call of [`Consumer::fetch`] brings, 1 to 10,000. Of this member. Default: 100.
    pub batch: usize,
    /// How many bytes of log are kept for the group while it is behind, of all shards together, at least 1 MiB. What it
    /// has not read by then comes as a gap. Default: 1 GiB. The latest call counts for the group.
    pub lag_bytes_max: u64,
    /// How old the log gets that is kept for the group while it is behind, 1 s to 100 years. Default: 7 days. The latest
    /// call counts for the group.
    pub lag_age_max: Duration,
}

impl Default for ConsumerOptions {
    fn default() -> Self {
        ConsumerOptions {
            filter: EventFilter::all(),
            from: ReadFrom::Now,
            visibility_timeout: Duration::from_secs(30),
            deliveries_max: 16,
            batch: 100,
            lag_bytes_max: 1 << 30,
            lag_age_max: Duration::from_secs(7 * 24 * 3600),
        }
    }
}

impl ConsumerOptions {
    fn validate(&self) -> Result<()> {
        let ms = Duration::from_millis;
        self.filter.validate()?;
        within_time("visibility_timeout", self.visibility_timeout, ms(1), Duration::from_secs(12 * 3600))?;
        within("deliveries_max", self.deliveries_max as usize, 1, 1_000_000)?;
        within("batch", self.batch, 1, 10_000)?;
        within("lag_bytes_max", usize::try_from(self.lag_bytes_max).unwrap_or(usize::MAX), 1 << 20, usize::MAX)?;
        within_time("lag_age_max", self.lag_age_max, ms(1000), Duration::from_secs(100 * 366 * 24 * 3600))
    }

    fn policy(&self) -> GroupPolicy {
        policy(self.deliveries_max)
    }

    fn limits(&self, shards: usize) -> LagLimits {
        LagLimits {
            bytes_max: self.lag_bytes_max / shards as u64,
            age_max_ns: u64::try_from(self.lag_age_max.as_nanos()).unwrap_or(u64::MAX),
        }
    }
}

fn policy(deliveries_max: u32) -> GroupPolicy {
    GroupPolicy { events_max: WINDOW_EVENTS_MAX, bytes_max: WINDOW_BYTES_MAX, deliveries_max }
}

/// What a member holds an event by. It names one giving-out: after the lease has run out it is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Lease {
    shard: u16,
    sequence: u64,
    token: u64,
}

impl Lease {
    /// As numbers, for who keeps leases elsewhere: the shard, the event's sequence there, and which giving-out it is.
    pub fn to_numbers(self) -> [u64; 3] {
        [u64::from(self.shard), self.sequence, self.token]
    }

    /// Of such numbers. A lease that nobody gave is refused where it is used.
    pub fn of_numbers([shard, sequence, token]: [u64; 3]) -> Lease {
        Lease { shard: u16::try_from(shard).unwrap_or(u16::MAX), sequence, token }
    }
}

/// What a member gets.
#[derive(Clone, Debug)]
pub enum Delivery {
    /// An event, to be acknowledged.
    Event(Delivered),
    /// Events that the group should have had and will not get, because it was behind too far, or they were damaged. Told
    /// to one member, once; [`GroupStats::missed`] counts them. There is nothing to acknowledge.
    Gap(Gap),
}

/// An event in the hands of a member.
#[derive(Clone, Debug)]
pub struct Delivered {
    /// To acknowledge it by.
    pub lease: Lease,
    /// How often it was given out, this time included; more than 1 means that somebody may have processed it before.
    pub deliveries: u32,
    /// The event.
    pub entry: Arc<Entry>,
}

/// What a group has done and has still to do. Counts are of this run of the engine.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[non_exhaustive]
pub struct GroupStats {
    /// The group.
    pub name: String,
    /// Events given out, each time counted.
    pub given: u64,
    /// Of those, events that had been given out before.
    pub repeated: u64,
    /// Leases that ran out.
    pub expired: u64,
    /// Events acknowledged.
    pub acknowledged: u64,
    /// Events given out too often, and kept as dead letters.
    pub dead_lettered: u64,
    /// Sequences that the group should have had and did not get. Not every one need have been an event of the group.
    pub missed: u64,
    /// Events that members have now.
    pub out: u64,
    /// Sequences of the log behind the oldest event that is not done. Not every one need be an event of the group.
    pub lag: u64,
}

/// A member of a group. Dropping it gives back what it holds; the group stays.
///
/// All methods may be called from any thread at the same time.
#[derive(Debug)]
pub struct Consumer {
    engine: Engine,
    group: Arc<ConsumerGroup>,
    member: u64,
    visibility_ns: u64,
    batch: usize,
    /// The shard to look at first.
    turn: AtomicUsize,
}

impl Engine {
    /// A member of a group of consumers, which is made if it is not there.
    ///
    /// Members of a group share its events: each event goes to one of them, on a lease. Of one resource key there is one
    /// event out at a time, so that the events of a key are processed in order, whoever does it. An event that is not
    /// acknowledged in time goes out again. What a group has done is saved with the cursors
    /// (`engine.delivery.cursor_interval`): after a crash, what was acknowledged since the last save goes out again.
    ///
    /// A group exists until [`Engine::delete_group`], with or without members, and the log is kept for it within its
    /// limits.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] for a name that is not allowed, a filter other than the group's, or a position of
    /// another directory; [`ErrorKind::InvalidConfig`] for options out of range; [`ErrorKind::Full`] if there are too many
    /// groups; [`ErrorKind::Io`] and the like if it cannot be written down; [`ErrorKind::Closed`],
    /// [`ErrorKind::WrongProcess`].
    pub fn consumer(&self, group: &str, options: &ConsumerOptions) -> Result<Consumer> {
        let inner = &*self.inner;
        inner.check_process()?;
        options.validate()?;
        check_name("group", group)?;
        let (group, taken_in) = self.find_or_make_group(group, options)?;
        // Not with the lock held, which closing needs. A shard that has ended takes nothing anyway.
        let deadline = deadline_in(SHARDS_WAIT);
        for reply in taken_in {
            let _ = driver::block_on(reply, Some(deadline));
        }
        Ok(Consumer {
            engine: self.clone(),
            member: group.next_member.fetch_add(1, Ordering::Relaxed),
            visibility_ns: u64::try_from(options.visibility_timeout.as_nanos()).unwrap_or(u64::MAX),
            batch: options.batch,
            turn: AtomicUsize::new(0),
            group,
        })
    }

    /// The group, and for a new one what tells when the shards keep for it what it wants.
    fn find_or_make_group(&self, group: &str, options: &ConsumerOptions) -> Result<(Arc<ConsumerGroup>, Replies)> {
        let inner = &*self.inner;
        let heads = self.settled_heads();
        let mut life = inner.life.lock();
        let life = &mut *life;
        if life.dir.is_none() || inner.closed.load(Ordering::SeqCst) {
            return Err(closed());
        }
        let known = life.groups.live.iter().find(|g| g.name == group).cloned();
        let Some(g) = known else { return self.make_group(group, options, &heads, life) };
        if let Some(fault) = &g.fault {
            return Err(fault.clone());
        }
        if g.filter != options.filter {
            return Err(Error::new(ErrorKind::InvalidArgument, format!("group `{group}` has another filter"))
                .at("filter")
                .remedy("use the filter that it was made with, or another group"));
        }
        life.groups.change(&g, options)?;
        *g.limits.lock() = options.limits(g.parts.len());
        g.parts.iter().for_each(|p| p.group.lock().set_policy(options.policy()));
        Ok((g, Vec::new()))
    }

    fn make_group(
        &self,
        name: &str,
        options: &ConsumerOptions,
        heads: &[u64],
        life: &mut Life,
    ) -> Result<(Arc<ConsumerGroup>, Replies)> {
        if life.groups.live.len() >= GROUPS_MAX {
            return Err(Error::new(ErrorKind::Full, format!("there are {GROUPS_MAX} groups"))
                .remedy("delete one (Engine::delete_group)"));
        }
        let Some(dir) = life.dir.as_mut() else { return Err(closed()) };
        let numbers = dir.names.assign(&[&filed_under(name)], &[])?;
        let entry = GroupFile {
            number: life.groups.file.next,
            dead_number: numbers.destinations.first().copied().unwrap_or_default(),
            filter: FilterFile::of(&options.filter),
            start: StartFile::of(&options.from, heads)?,
            deliveries_max: options.deliveries_max,
            lag_bytes_max: options.lag_bytes_max,
            lag_age_max_s: options.lag_age_max.as_secs(),
        };
        let place = Place { dir: &self.inner.config.data_dir, writers: &self.inner.writers };
        let group = Arc::new(entry.group(name, Ok(options.filter.clone()), &place, &|_| None)?);
        life.groups.add(name, entry, group.clone())?;
        if let Err(e) = self.apply_groups(life) {
            let _ = life.groups.remove(name);
            return Err(e);
        }
        let replies = self.inner.shards.iter().map(|shard| {
            let (reply, done) = oneshot::channel();
            shard.command(Command::Group { group: group.clone(), reply });
            done
        });
        let replies = replies.collect();
        Ok((group, replies))
    }

    /// Puts the rules of the groups that there are behind the configured ones.
    fn apply_groups(&self, life: &mut Life) -> Result<()> {
        let keepers = life.groups.keepers()?;
        life.edit_rules(Owner::Engine, |live| Ok(live.replacing(Owner::Engine, keepers)))?;
        self.inner.publish_rules(life);
        Ok(())
    }

    /// Deletes a group of consumers: what it has done is forgotten, and the log is not kept for it any more. Its members get
    /// [`ErrorKind::NotFound`] from then on.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is no such group; [`ErrorKind::Io`] and the like if that cannot be written down;
    /// [`ErrorKind::Closed`], [`ErrorKind::WrongProcess`].
    pub fn delete_group(&self, name: &str) -> Result<()> {
        let inner = &*self.inner;
        inner.check_process()?;
        let mut life = inner.life.lock();
        let life = &mut *life;
        if life.dir.is_none() {
            return Err(closed());
        }
        let group = life.groups.live.iter().find(|g| g.name == name).cloned().ok_or_else(|| {
            Error::new(ErrorKind::NotFound, format!("there is no group `{}`", name.escape_debug()))
                .remedy("see Engine::groups")
        })?;
        life.groups.remove(name)?;
        group.deleted.store(true, Ordering::Release);
        self.apply_groups(life)?;
        for shard in &inner.shards {
            shard.command(Command::EndGroup(group.number));
        }
        group.bell.ring();
        Ok(())
    }

    /// The groups of consumers, and how they are getting on.
    ///
    /// # Errors
    /// [`ErrorKind::WrongProcess`] in a forked child.
    pub fn groups(&self) -> Result<Vec<GroupStats>> {
        self.inner.check_process()?;
        let heads = self.heads();
        let groups = self.inner.life.lock().groups.live.clone();
        Ok(groups.iter().map(|g| stats(g, &heads)).collect())
    }
}

type Replies = Vec<oneshot::Receiver<()>>;

fn filed_under(name: &str) -> String {
    format!("group:{name}")
}

fn stats(g: &ConsumerGroup, heads: &[u64]) -> GroupStats {
    let mut s = GroupStats { name: g.name.clone(), ..GroupStats::default() };
    for (part, head) in g.parts.iter().zip(heads) {
        let c = &part.counts;
        s.given += c.given.load(Ordering::Relaxed);
        s.repeated += c.repeated.load(Ordering::Relaxed);
        s.acknowledged += c.acknowledged.load(Ordering::Relaxed);
        s.dead_lettered += c.dead_lettered.load(Ordering::Relaxed);
        s.missed += c.missed.load(Ordering::Relaxed);
        let mut group = part.group.lock();
        s.expired += group.expired();
        s.out += group.open().1 as u64;
        s.lag += head.saturating_sub(group.state().0.low());
    }
    s
}

impl Consumer {
    /// The group's name.
    pub fn group(&self) -> &str {
        &self.group.name
    }

    /// Takes up to `max` events that nobody has, and waits up to `wait` if there are none. Fewer than `max`, and fewer than
    /// [`ConsumerOptions::batch`], are no sign that there are no more.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if the group was deleted; [`ErrorKind::Io`] and the like if the log cannot be read;
    /// [`ErrorKind::Closed`], [`ErrorKind::WrongProcess`].
    pub fn fetch(&self, max: usize, wait: Duration) -> Result<Vec<Delivery>> {
        let deadline = deadline_in(wait);
        let max = max.min(self.batch);
        let mut steps = 0;
        loop {
            self.check()?;
            let (rings, written) = (self.group.bell.rings(), self.engine.written());
            let mut timer = None;
            let mut burying = false;
            let mut out = Vec::new();
            self.take(max, &mut out, &mut timer, &mut burying);
            if !out.is_empty() || max == 0 {
                return Ok(out);
            }
            let heads = self.engine.heads();
            let mut more = false;
            for (part, head) in self.group.parts.iter().zip(&heads) {
                more |= part.fill(*head, &self.group.filter)? == Filled::More || part.group.lock().is_ready();
            }
            let now = driver::now();
            if more {
                steps += 1;
                if steps >= STEPS_MIN && now >= deadline {
                    return Ok(out);
                }
                continue;
            }
            if now >= deadline {
                return Ok(out);
            }
            let mut until = deadline.min(now + if burying { LOOK_SOON } else { LOOK });
            if let Some(timer) = timer {
                until = until.min(self.group.started + Duration::from_nanos(timer));
            }
            self.engine.wait_for_news(&written, self.group.bell.rung_since(rings), until)?;
        }
    }

    /// A watch that is ready once there may be an event that is not there when this is called: something was published, or
    /// another member gave an event back, or the engine is closed. Leases that run out, and waits that are over, it does not
    /// tell of: look again after [`Consumer::LOOK_AGAIN`] at the latest. For hosts that have no thread to wait: make it, then
    /// call [`Consumer::fetch`] without a wait, and await it if there was nothing.
    pub fn watch(&self) -> LogWatch {
        let group = self.group.clone();
        let rings = group.bell.rings();
        self.engine.watch_log(async move { group.bell.rung_since(rings).await })
    }

    /// How long who waits for events need not look again; see [`Consumer::watch`].
    pub const LOOK_AGAIN: Duration = LOOK;

    /// Takes what is ready on any shard.
    fn take(&self, max: usize, out: &mut Vec<Delivery>, timer: &mut Option<u64>, burying: &mut bool) {
        let parts = &self.group.parts;
        let first = self.turn.fetch_add(1, Ordering::Relaxed);
        for i in 0..parts.len() {
            let shard = (first + i) % parts.len();
            let part = &parts[shard];
            while let Some(gap) = if out.len() < max { part.take_gap() } else { None } {
                out.push(Delivery::Gap(gap));
            }
            let now_ns = self.group.now_ns();
            part.group.lock().expire(now_ns);
            *burying |= part.bury(self.group.dead_number, &self.engine.inner.shards[shard]);
            let mut group = part.group.lock();
            let until_ns = now_ns.saturating_add(self.visibility_ns);
            while out.len() < max
                && let Some(o) = group.take(self.member, until_ns)
            {
                part.counts.given.fetch_add(1, Ordering::Relaxed);
                if o.deliveries > 1 {
                    part.counts.repeated.fetch_add(1, Ordering::Relaxed);
                }
                let lease = Lease { shard: shard as u16, sequence: o.sequence, token: o.token };
                out.push(Delivery::Event(Delivered { lease, deliveries: o.deliveries, entry: o.item.clone() }));
            }
            *timer = [*timer, group.next_timer()].into_iter().flatten().min();
            if group.is_ready() {
                // Somebody else may take the rest.
                drop(group);
                self.group.bell.ring();
            }
        }
    }

    /// Events are processed. Those whose leases are good are done, whatever becomes of the others.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] if a lease had run out: the event was, or will be, given to another member, and what was done
    /// for it here may be done twice. [`ErrorKind::NotFound`] if an event is done already, or the group was deleted.
    /// [`ErrorKind::Closed`], [`ErrorKind::WrongProcess`]: nothing is done.
    pub fn ack(&self, leases: &[Lease]) -> Result<()> {
        self.each(leases, |part, lease, now_ns| {
            let result = part.group.lock().ack(lease.sequence, lease.token, now_ns);
            if result.is_ok() {
                part.counts.acknowledged.fetch_add(1, Ordering::Relaxed);
            }
            result
        })
    }

    /// An event could not be processed: it goes out again after `delay`.
    ///
    /// # Errors
    /// As [`Consumer::ack`].
    pub fn nack(&self, lease: Lease, delay: Duration) -> Result<()> {
        let delay_ns = u64::try_from(delay.as_nanos()).unwrap_or(u64::MAX);
        self.each(&[lease], |part, lease, now_ns| {
            part.group.lock().nack(lease.sequence, lease.token, now_ns, now_ns.saturating_add(delay_ns))
        })
    }

    /// An event takes longer: the lease begins anew, with the member's whole [`ConsumerOptions::visibility_timeout`].
    ///
    /// # Errors
    /// As [`Consumer::ack`].
    pub fn extend(&self, lease: Lease) -> Result<()> {
        self.each(&[lease], |part, lease, now_ns| {
            let until_ns = now_ns.saturating_add(self.visibility_ns);
            part.group.lock().extend(lease.sequence, lease.token, now_ns, until_ns)
        })
    }

    fn each(&self, leases: &[Lease], change: impl Fn(&GroupPart, &Lease, u64) -> Result<(), Refused>) -> Result<()> {
        self.check()?;
        let mut refused: Vec<(Lease, Refused)> = Vec::new();
        for lease in leases {
            let result = match self.group.parts.get(lease.shard as usize) {
                Some(part) => change(part, lease, self.group.now_ns()),
                None => Err(Refused::NotOut),
            };
            if let Err(why) = result {
                refused.push((*lease, why));
            }
        }
        self.group.bell.ring();
        match refused.first() {
            None => Ok(()),
            Some((lease, why)) => Err(self.refusal(lease, *why, refused.len(), leases.len())),
        }
    }

    #[cold]
    fn refusal(&self, lease: &Lease, why: Refused, refused: usize, all: usize) -> Error {
        let event = format!("event {} of shard {}", lease.sequence, lease.shard);
        let which = if all == 1 { String::new() } else { format!("{refused} of {all} refused; the first: ") };
        let late = |what: &str| {
            Error::new(ErrorKind::Timeout, format!("{which}the lease on {event} has run out, and {what}"))
                .remedy("raise visibility_timeout above the time that processing takes, or extend leases in time")
        };
        match why {
            Refused::Superseded => late("the event was given out again"),
            Refused::Expired => late("the event will be given out again"),
            Refused::NotOut => Error::new(
                ErrorKind::NotFound,
                format!("{which}{event} is not out: it is done, or was never given out"),
            )
            .remedy("acknowledge each delivery once"),
        }
        .at(format!("group `{}`", self.group.name))
    }

    fn check(&self) -> Result<()> {
        self.engine.inner.check_process()?;
        if self.group.deleted.load(Ordering::Acquire) {
            return Err(Error::new(ErrorKind::NotFound, format!("group `{}` was deleted", self.group.name))
                .remedy("make it again (Engine::consumer), if it is still wanted"));
        }
        self.engine.inner.check_open()?;
        Ok(())
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        if self.engine.check_process().is_err() {
            // The locks are as the parent's threads had them.
            return;
        }
        for part in &self.group.parts {
            part.group.lock().release(self.member);
        }
        self.group.bell.ring();
    }
}

/// `groups.json`.
#[derive(Debug, Serialize, Deserialize)]
struct GroupsFile {
    format: u32,
    /// The next one's number; numbers are never used again, so that a group that is made anew has nothing of the old one.
    #[serde(default)]
    next: u32,
    groups: BTreeMap<String, GroupFile>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct GroupFile {
    number: u32,
    /// 0 if it is the same.
    #[serde(default)]
    dead_number: u32,
    filter: FilterFile,
    start: StartFile,
    deliveries_max: u32,
    lag_bytes_max: u64,
    lag_age_max_s: u64,
}

/// Where the log is.
struct Place<'a> {
    dir: &'a std::path::Path,
    writers: &'a Arc<Writers>,
}

impl GroupFile {
    fn group(
        &self,
        name: &str,
        filter: Result<EventFilter>,
        place: &Place<'_>,
        saved: &dyn Fn(usize) -> Option<SavedGroup>,
    ) -> Result<ConsumerGroup> {
        let mut parts = Vec::new();
        for (shard, after) in self.start.after.iter().enumerate() {
            let saved = saved(shard);
            // What was there at a save is missing if it is gone; where a log begins, nothing is.
            let strict = self.start.strict || saved.as_ref().is_some_and(|s| s.cursor.low() > *after);
            let saved = saved.unwrap_or_else(|| SavedGroup {
                cursor: crate::log::cursor::Cursor::at(*after),
                ..SavedGroup::default()
            });
            let low = saved.cursor.low();
            let reader =
                ShardReader::new(place.dir, shard, place.writers.clone(), low, strict, self.start.not_before_ns);
            // Half of the numbers, so that counting up never comes to the end of them.
            let first_token = driver::random_u64()? >> 1;
            parts.push(GroupPart::new(policy(self.deliveries_max), saved, first_token, reader));
        }
        let (filter, fault) = match filter {
            Ok(filter) => (filter, None),
            Err(e) => (EventFilter::all(), Some(e)),
        };
        let shards = parts.len().max(1) as u64;
        Ok(ConsumerGroup {
            number: self.number,
            dead_number: if self.dead_number == 0 { self.number } else { self.dead_number },
            name: name.to_owned(),
            filter,
            fault,
            limits: Mutex::new(LagLimits {
                bytes_max: self.lag_bytes_max / shards,
                age_max_ns: self.lag_age_max_s.saturating_mul(1_000_000_000),
            }),
            parts,
            bell: Bell::default(),
            deleted: AtomicBool::new(false),
            next_member: AtomicU64::new(0),
            started: driver::now(),
        })
    }
}

/// The groups of an engine.
#[derive(Debug)]
pub(super) struct Groups {
    path: PathBuf,
    file: GroupsFile,
    live: Vec<Arc<ConsumerGroup>>,
    types: EventTypes,
}

impl Groups {
    /// Reads what earlier runs left.
    pub(super) fn open(dir: &DataDir, types: &EventTypes, states: &[ShardState]) -> Result<Groups> {
        let path = dir.path.join("groups.json");
        let mut file = match read_json::<GroupsFile>(&path)? {
            Some(f) if f.format > FORMAT => return Err(newer_format(f.format).at(path.display().to_string())),
            Some(f) => f,
            None => GroupsFile { format: FORMAT, next: 1, groups: BTreeMap::new() },
        };
        let above = file.groups.values().map(|g| g.number + 1).max().unwrap_or(1);
        file.next = file.next.max(above);
        let saved: Vec<_> = states.iter().map(saved_groups).collect();
        let writers = Arc::new(dir.writers.clone());
        let place = Place { dir: &dir.path, writers: &writers };
        let mut live = Vec::new();
        for (name, entry) in &mut file.groups {
            // Shards that there were not when the group began have only what came later.
            entry.start.after.resize(states.len(), 0);
            let whose = format!("group `{name}`");
            let filter = entry.filter.filter(&whose, types);
            if let Err(e) = &filter {
                log::error!("{e}; until then its events are kept and not given out");
            }
            let saved = |shard: usize| saved.get(shard).and_then(|s| s.get(&entry.number)).cloned();
            live.push(Arc::new(entry.group(name, filter, &place, &saved)?));
        }
        Ok(Groups { path, file, live, types: types.clone() })
    }

    pub(super) fn live(&self) -> &[Arc<ConsumerGroup>] {
        &self.live
    }

    /// The rules that keep what the groups want.
    pub(super) fn keepers(&self) -> Result<Vec<Rule>> {
        self.live.iter().map(|g| g.filter.keeper(filed_under(&g.name), &self.types)).collect()
    }

    fn add(&mut self, name: &str, entry: GroupFile, group: Arc<ConsumerGroup>) -> Result<()> {
        self.file.next += 1;
        self.file.groups.insert(name.to_owned(), entry);
        if let Err(e) = write_json(&self.path, &self.file) {
            self.file.groups.remove(name);
            return Err(e);
        }
        self.live.push(group);
        Ok(())
    }

    /// Writes down what of a group's options may change.
    fn change(&mut self, group: &ConsumerGroup, options: &ConsumerOptions) -> Result<()> {
        let Some(entry) = self.file.groups.get_mut(&group.name) else { return Ok(()) };
        let new = (options.deliveries_max, options.lag_bytes_max, options.lag_age_max.as_secs());
        if new == (entry.deliveries_max, entry.lag_bytes_max, entry.lag_age_max_s) {
            return Ok(());
        }
        (entry.deliveries_max, entry.lag_bytes_max, entry.lag_age_max_s) = new;
        write_json(&self.path, &self.file)
    }

    fn remove(&mut self, name: &str) -> Result<()> {
        if let Some(entry) = self.file.groups.remove(name) {
            if let Err(e) = write_json(&self.path, &self.file) {
                self.file.groups.insert(name.to_owned(), entry);
                return Err(e);
            }
            self.live.retain(|g| g.name != name);
        }
        Ok(())
    }
}
