//! Everything but publishing: what a client calls for over a connection of its own, and how that is answered.
//!
//! [`answer`] serves an engine of the same process as well: see [`super::AnyEngine`].

use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::server::{Server, Session};
use super::wire::{self, Answer};
use crate::config::Config;
use crate::driver;
use crate::engine::keep::FilterFile;
use crate::engine::{
    Consumer, ConsumerOptions, Delivered, Delivery, Engine, Intent, Lease, MetricsFormat, OnFull, RedriveOptions,
    ReplayHandle, ReplayRequest, ReplayTo, Reservation, ReserveOptions, ReservedBatch, Resolution, Tail,
};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, EventType, EventTypes, FrameView, Sequencer};
use crate::filter::EventFilter;
use crate::log::dead::{DeadLetterFilter, DeadLetterId, StoredDeadLetter};
use crate::log::reader::{Entry, Gap, GapCause, Item, ReadFrom};
use crate::log::record::Route;
use crate::rule::{Backlog, Expect, Format, NotificationOptions, Rule};
use crate::shard::snapshot::Known;

/// What an export sends at a time.
const EXPORT_BYTES: usize = 256 << 10;
/// What a fetch brings at a time, as far as it is for the caller to say.
const ITEMS_MAX: usize = 10_000;
/// The bytes of the events that it brings, but for the last.
const ITEMS_BYTES_MAX: usize = 8 << 20;
/// Dead letters that a call lists at a time.
const LETTERS_MAX: usize = 1000;
/// How long a call waits for what was published before it.
const SETTLE_WAIT: Duration = Duration::from_secs(30);

/// A call. Frames of events stand behind it, where it is about some.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    /// Which known types are of interest in a bucket.
    Interests {
        bucket: String,
    },
    /// The same of another type.
    Interested {
        bucket: String,
        event_type: String,
    },
    DetailsWanted,
    /// Whether there is a place for events in the queues that they may come to.
    Turn {
        full_ms: Option<u64>,
        lens: Vec<usize>,
    },
    Reserve {
        bytes_max: Option<usize>,
        full_ms: Option<u64>,
        ack_ms: u64,
        lens: Vec<usize>,
    },
    InDoubt,
    Resolve {
        token: String,
        commit: bool,
    },
    LastApplied,
    Flush {
        ms: u64,
    },
    Stats,
    StatsJson,
    Prometheus {
        open: bool,
    },
    PutRule {
        text: String,
        expect: Expect,
    },
    DeleteRule {
        bucket: Option<String>,
        id: String,
        expect: Expect,
    },
    Rule {
        bucket: Option<String>,
        id: String,
    },
    Rules,
    PutNotification {
        bucket: String,
        text: String,
        format: Option<Format>,
        options: NotificationOptions,
        expect: Expect,
    },
    CheckNotification {
        bucket: String,
        text: String,
        format: Option<Format>,
        options: NotificationOptions,
    },
    Notification {
        bucket: String,
        format: Format,
    },
    PutDestination {
        text: String,
        expect: Expect,
        backlog: Backlog,
    },
    DeleteDestination {
        name: String,
        expect: Expect,
        backlog: Backlog,
    },
    Suspend {
        name: String,
    },
    Resume {
        name: String,
    },
    Confirm {
        name: String,
        per_minute: Option<u32>,
    },
    Test {
        name: String,
    },
    RotateSecret {
        name: String,
        secret: Option<String>,
        overlap_ms: u64,
    },
    Destination {
        name: String,
    },
    Destinations,
    DeadLetters {
        filter: DeadLetterFilter,
        after: Option<DeadLetterId>,
        limit: usize,
    },
    ExportDeadLetters {
        filter: DeadLetterFilter,
    },
    PurgeDeadLetters {
        filter: DeadLetterFilter,
        ms: u64,
    },
    Redrive {
        filter: DeadLetterFilter,
        options: RedriveOptions,
        ms: u64,
    },
    Groups,
    DeleteGroup {
        name: String,
    },
    Replays,
    ResumeReplay {
        name: String,
        destination: String,
    },
    Snapshot,
    // What follows is bound to its connection.
    Replay(Box<WireReplay>),
    FindReplay {
        name: String,
    },
    ReplayProgress,
    ReplayWait {
        ms: u64,
    },
    ReplayCancel,
    Tail {
        filter: FilterFile,
        from: WireFrom,
    },
    TailNext {
        max: usize,
        ms: u64,
    },
    TailPosition,
    Consumer {
        group: String,
        options: WireConsumer,
    },
    Fetch {
        max: usize,
        ms: u64,
    },
    Ack {
        leases: Vec<[u64; 3]>,
    },
    Nack {
        lease: [u64; 3],
        ms: u64,
    },
    Extend {
        lease: [u64; 3],
    },
}

/// [`ReplayRequest`], with the text of a destination of its own.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct WireReplay {
    pub(crate) name: Option<String>,
    pub(crate) from: WireFrom,
    pub(crate) until_ns: Option<u64>,
    pub(crate) filter: FilterFile,
    pub(crate) named: Option<String>,
    pub(crate) one_off: Option<String>,
    pub(crate) rate_max: Option<u32>,
}

/// [`ReadFrom`].
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum WireFrom {
    Beginning,
    Now,
    Time(u64),
    Sequence(u64),
    Position(String),
}

/// [`ConsumerOptions`].
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct WireConsumer {
    filter: FilterFile,
    from: WireFrom,
    visibility_ms: u64,
    deliveries_max: u32,
    batch: usize,
    lag_bytes_max: u64,
    lag_age_s: u64,
}

impl Request {
    /// Whether it only looks: it may be made twice, and need not wait for what was published before it.
    pub(super) fn looks(&self) -> bool {
        matches!(
            self,
            Request::Interests { .. }
                | Request::Interested { .. }
                | Request::DetailsWanted
                | Request::Turn { .. }
                | Request::InDoubt
                | Request::LastApplied
                | Request::Stats
                | Request::StatsJson
                | Request::Prometheus { .. }
                | Request::Rule { .. }
                | Request::Rules
                | Request::CheckNotification { .. }
                | Request::Notification { .. }
                | Request::Destination { .. }
                | Request::Destinations
                | Request::DeadLetters { .. }
                | Request::Groups
                | Request::Replays
        )
    }
}

impl From<&ReadFrom> for WireFrom {
    fn from(from: &ReadFrom) -> WireFrom {
        match from {
            ReadFrom::Beginning => WireFrom::Beginning,
            ReadFrom::Now => WireFrom::Now,
            ReadFrom::Time(ns) => WireFrom::Time(*ns),
            ReadFrom::Sequence(n) => WireFrom::Sequence(*n),
            ReadFrom::Position(p) => WireFrom::Position(p.to_string()),
        }
    }
}

impl WireFrom {
    fn read_from(self) -> Result<ReadFrom> {
        Ok(match self {
            WireFrom::Beginning => ReadFrom::Beginning,
            WireFrom::Now => ReadFrom::Now,
            WireFrom::Time(ns) => ReadFrom::Time(ns),
            WireFrom::Sequence(n) => ReadFrom::Sequence(n),
            WireFrom::Position(text) => ReadFrom::Position(text.parse()?),
        })
    }
}

impl From<&ConsumerOptions> for WireConsumer {
    fn from(o: &ConsumerOptions) -> WireConsumer {
        WireConsumer {
            filter: FilterFile::of(&o.filter),
            from: (&o.from).into(),
            visibility_ms: millis(o.visibility_timeout),
            deliveries_max: o.deliveries_max,
            batch: o.batch,
            lag_bytes_max: o.lag_bytes_max,
            lag_age_s: o.lag_age_max.as_secs(),
        }
    }
}

impl WireConsumer {
    fn options(self, types: &EventTypes) -> Result<ConsumerOptions> {
        Ok(ConsumerOptions {
            filter: filter_of(&self.filter, types)?,
            from: self.from.read_from()?,
            visibility_timeout: Duration::from_millis(self.visibility_ms),
            deliveries_max: self.deliveries_max,
            batch: self.batch,
            lag_bytes_max: self.lag_bytes_max,
            lag_age_max: Duration::from_secs(self.lag_age_s),
        })
    }
}

/// What a reader of the log brings; the frames of events stand behind all of it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct WireItem {
    shard: u16,
    /// Of a gap the first.
    sequence: u64,
    entry: Option<WireEntry>,
    gap: Option<WireGap>,
}

#[derive(Debug, Serialize, Deserialize)]
struct WireEntry {
    clock: (u64, u32),
    id: String,
    sequencer: (u64, u32, u32),
    routes: Vec<(u32, u32)>,
    len: usize,
    lease: Option<[u64; 3]>,
    deliveries: u32,
}

#[derive(Debug, Serialize, Deserialize)]
struct WireGap {
    last: u64,
    since_ns: Option<u64>,
    until_ns: Option<u64>,
    damaged: bool,
}

impl WireItem {
    fn of_entry(e: &Entry, given: Option<&Delivered>, behind: &mut Vec<u8>) -> WireItem {
        let frame = e.frame();
        behind.extend_from_slice(frame.as_bytes());
        let entry = WireEntry {
            clock: e.clock,
            id: e.id.to_string(),
            sequencer: (e.sequencer.clock_ns, e.sequencer.tie, e.sequencer.writer),
            routes: e.routes.iter().map(|r| r.to_words()).collect(),
            len: frame.as_bytes().len(),
            lease: given.map(|d| d.lease.to_numbers()),
            deliveries: given.map_or(0, |d| d.deliveries),
        };
        WireItem { shard: e.shard, sequence: e.sequence, entry: Some(entry), gap: None }
    }

    fn of_gap(g: &Gap) -> WireItem {
        let damaged = g.cause == GapCause::Damaged;
        let gap = WireGap { last: g.last, since_ns: g.since_ns, until_ns: g.until_ns, damaged };
        WireItem { shard: g.shard, sequence: g.first, entry: None, gap: Some(gap) }
    }

    /// What it stands for; `behind` loses its frame.
    fn delivery(self, behind: &mut &[u8]) -> Result<Delivery> {
        if let Some(g) = self.gap {
            let cause = if g.damaged { GapCause::Damaged } else { GapCause::Removed };
            let (shard, first) = (self.shard, self.sequence);
            return Ok(Delivery::Gap(Gap {
                shard,
                first,
                last: g.last,
                since_ns: g.since_ns,
                until_ns: g.until_ns,
                cause,
            }));
        }
        let e = self.entry.ok_or_else(garbled)?;
        let (frame, rest) = behind.split_at_checked(e.len).ok_or_else(garbled)?;
        *behind = rest;
        FrameView::parse(frame)?;
        let (clock_ns, tie, writer) = e.sequencer;
        let entry = Entry::of_parts(
            (self.shard, self.sequence, e.clock),
            e.id.parse()?,
            Sequencer { clock_ns, tie, writer },
            e.routes.iter().map(|(d, r)| Route::from_words(*d, *r)).collect(),
            frame.to_vec(),
        );
        let lease = Lease::of_numbers(e.lease.unwrap_or_default());
        Ok(Delivery::Event(Delivered { lease, deliveries: e.deliveries, entry: Arc::new(entry) }))
    }
}

/// What a reader brought, as it was.
pub(super) fn exchange_items(items: Vec<WireItem>, behind: &[u8]) -> Result<Vec<Delivery>> {
    let mut behind = behind;
    items.into_iter().map(|item| item.delivery(&mut behind)).collect()
}

/// The letters of an answer, with what stood behind them.
pub(super) fn letters(
    (mut letters, lens): (Vec<StoredDeadLetter>, Vec<(usize, usize)>),
    behind: &[u8],
) -> Result<Vec<StoredDeadLetter>> {
    let mut rest = behind;
    let mut take = |len| {
        let (part, behind) = rest.split_at_checked(len).ok_or_else(garbled)?;
        rest = behind;
        Ok::<_, Error>(part.to_vec())
    };
    for (letter, (frame, answer)) in letters.iter_mut().zip(lens) {
        (letter.frame, letter.answer) = (take(frame)?, take(answer)?);
    }
    Ok(letters)
}

#[cold]
fn garbled() -> Error {
    Error::new(ErrorKind::Disconnected, "the other side says what nobody understands")
        .remedy("run the same version on both sides")
}

pub(super) fn millis(t: Duration) -> u64 {
    u64::try_from(t.as_millis()).unwrap_or(u64::MAX)
}

fn filter_of(file: &FilterFile, types: &EventTypes) -> Result<EventFilter> {
    file.filter("filter", types)
}

/// What a connection has opened, and what it is asked.
#[derive(Debug)]
pub(super) struct Calls {
    session: Arc<Session>,
    open: Open,
}

#[derive(Debug)]
enum Open {
    Nothing,
    Replay(ReplayHandle),
    Tail(Box<Tail>),
    Consumer(Consumer),
}

type Answered = Result<(Value, Vec<u8>)>;

impl Calls {
    pub(super) fn new(session: Arc<Session>) -> Calls {
        Calls { session, open: Open::Nothing }
    }

    /// Answers a call, after everything that its client had published before. An export goes to the socket while it is made.
    pub(super) fn answer(
        &mut self,
        server: &Server,
        engine: &Engine,
        request: Request,
        behind: Vec<u8>,
        socket: &UnixStream,
    ) -> Answered {
        let limit = match &request {
            // What has no place yet is not delivered either.
            Request::Flush { ms } => Duration::from_millis(*ms).min(SETTLE_WAIT),
            _ => SETTLE_WAIT,
        };
        let settled =
            server.settle(engine.inner(), driver::now() + if request.looks() { Duration::ZERO } else { limit });
        // Who only looks is told how it is, also where nothing goes on.
        if !request.looks() {
            settled?;
        }
        match request {
            Request::Reserve { bytes_max, full_ms, ack_ms, lens } => {
                let options = ReserveOptions {
                    bytes_max,
                    intent: Intent::Durable,
                    on_full: full_ms.map_or(OnFull::Refuse, |ms| OnFull::Block(Duration::from_millis(ms))),
                    ack_timeout: Duration::from_millis(ack_ms),
                };
                self.reserve(engine, &options, &lens, &behind)
            }
            Request::Turn { full_ms, lens } => {
                let on_full = full_ms.map_or(OnFull::Refuse, |ms| OnFull::Block(Duration::from_millis(ms)));
                let turn = |events: &[Event<'_>]| {
                    events.iter().try_for_each(|e| engine.inner().wait_for_turn(e, Known::Before, on_full))
                };
                plain(with_events(&lens, &behind, turn)??)
            }
            Request::ExportDeadLetters { filter } => {
                let mut out = io::BufWriter::with_capacity(EXPORT_BYTES, Chunks(socket));
                let count = engine.export_dead_letters(&filter, &mut out)?;
                out.flush().map_err(|e| wire::lost(&e))?;
                plain(count)
            }
            Request::Snapshot => {
                let mut out = io::BufWriter::with_capacity(EXPORT_BYTES, Chunks(socket));
                engine.snapshot_to(&mut out)?;
                out.flush().map_err(|e| wire::lost(&e))?;
                plain(())
            }
            Request::Replay(request) => {
                let handle = engine.replay(replay_request(*request, engine)?)?;
                let name = handle.name().to_owned();
                self.open = Open::Replay(handle);
                plain(name)
            }
            Request::FindReplay { name } => {
                self.open = Open::Replay(find_replay(engine, &name)?);
                plain(())
            }
            Request::ReplayProgress => plain(self.replay()?.progress()),
            Request::ReplayWait { ms } => plain(self.replay()?.wait(Duration::from_millis(ms))?),
            Request::ReplayCancel => plain(self.replay()?.cancel()?),
            Request::Tail { filter, from } => {
                let filter = filter_of(&filter, engine.event_types())?;
                self.open = Open::Tail(Box::new(engine.tail(filter, &from.read_from()?)?));
                plain(())
            }
            Request::TailNext { max, ms } => {
                let tail = self.tail()?;
                let (mut items, mut positions, mut behind) = (Vec::new(), Vec::new(), Vec::new());
                let mut wait = Duration::from_millis(ms);
                while items.len() < max.min(ITEMS_MAX) && behind.len() < ITEMS_BYTES_MAX {
                    match tail.next_within(wait) {
                        Ok(Some(Item::Entry(e))) => items.push(WireItem::of_entry(&e, None, &mut behind)),
                        Ok(Some(Item::Gap(g))) => items.push(WireItem::of_gap(&g)),
                        Ok(None) => break,
                        // It is told by the next call.
                        Err(_) if !items.is_empty() => break,
                        Err(e) => return Err(e),
                    }
                    positions.push(Tail::position(tail).to_string());
                    wait = Duration::ZERO;
                }
                Ok((to_value((items, positions))?, behind))
            }
            Request::TailPosition => plain(Tail::position(self.tail()?).to_string()),
            Request::Consumer { group, options } => {
                let options = options.options(engine.event_types())?;
                self.open = Open::Consumer(engine.consumer(&group, &options)?);
                plain(())
            }
            Request::Fetch { max, ms } => {
                let mut behind = Vec::new();
                let fetched = self.consumer()?.fetch(max.min(ITEMS_MAX), Duration::from_millis(ms))?;
                let items = fetched.iter().map(|d| match d {
                    Delivery::Event(d) => WireItem::of_entry(&d.entry, Some(d), &mut behind),
                    Delivery::Gap(g) => WireItem::of_gap(g),
                });
                let items: Vec<WireItem> = items.collect();
                Ok((to_value(items)?, behind))
            }
            Request::Ack { leases } => {
                let leases: Vec<Lease> = leases.into_iter().map(Lease::of_numbers).collect();
                plain(self.consumer()?.ack(&leases)?)
            }
            Request::Nack { lease, ms } => {
                plain(self.consumer()?.nack(Lease::of_numbers(lease), Duration::from_millis(ms))?)
            }
            Request::Extend { lease } => plain(self.consumer()?.extend(Lease::of_numbers(lease))?),
            other => answer(engine, other, &behind).map(|value| (value, Vec::new())).or_else(|e| match e {
                NotPlain::Error(e) => Err(e),
                NotPlain::Frames(value, frames) => Ok((value, frames)),
            }),
        }
    }

    fn reserve(&self, engine: &Engine, options: &ReserveOptions, lens: &[usize], frames: &[u8]) -> Answered {
        let items = with_events(lens, frames, |events| engine.reserve_batch(events, options))??;
        let ReservedBatch::Held(batch) = items else { return plain(None::<()>) };
        let items: Vec<Option<Reservation>> = batch.into_items();
        let tokens: Vec<Option<String>> =
            items.iter().map(|i| i.as_ref().and_then(Reservation::token).map(|t| t.to_string())).collect();
        let mut held = self.session.reservations.lock();
        for reservation in items.into_iter().flatten() {
            if let Some(token) = reservation.token() {
                held.insert(token, reservation);
            }
        }
        drop(held);
        // The client may have died meanwhile.
        self.session.abandon_if_gone();
        plain(Some(tokens))
    }

    fn replay(&self) -> Result<&ReplayHandle> {
        match &self.open {
            Open::Replay(replay) => Ok(replay),
            _ => Err(garbled()),
        }
    }

    fn tail(&mut self) -> Result<&mut Tail> {
        match &mut self.open {
            Open::Tail(tail) => Ok(tail),
            _ => Err(garbled()),
        }
    }

    fn consumer(&self) -> Result<&Consumer> {
        match &self.open {
            Open::Consumer(consumer) => Ok(consumer),
            _ => Err(garbled()),
        }
    }
}

/// What an export writes, as messages.
struct Chunks<'a>(&'a UnixStream);

impl Write for Chunks<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let bytes = &bytes[..bytes.len().min(wire::PART_BYTES_MAX)];
        wire::send(self.0, &Answer::Ok(Value::Null), bytes).map_err(io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn to_value(of: impl Serialize) -> Result<Value> {
    serde_json::to_value(of).map_err(|e| Error::new(ErrorKind::Internal, e.to_string()))
}

fn plain(of: impl Serialize) -> Answered {
    Ok((to_value(of)?, Vec::new()))
}

/// The events of frames that another process has sent.
fn with_events<T>(lens: &[usize], frames: &[u8], with: impl FnOnce(&[Event<'_>]) -> T) -> Result<T> {
    let mut rest = frames;
    let mut views = Vec::with_capacity(lens.len().min(frames.len()));
    for len in lens {
        let (frame, behind) = rest.split_at_checked(*len).ok_or_else(garbled)?;
        views.push(FrameView::parse(frame)?);
        rest = behind;
    }
    let pairs: Vec<(Vec<_>, Vec<_>)> = views.iter().map(|v| (v.metadata().collect(), v.tags().collect())).collect();
    let events: Vec<Event<'_>> = views.iter().zip(&pairs).map(|(v, (m, t))| v.event(m, t)).collect();
    Ok(with(&events))
}

pub(super) fn find_replay(engine: &Engine, name: &str) -> Result<ReplayHandle> {
    engine.replays()?.into_iter().find(|r| r.name() == name).ok_or_else(|| {
        Error::new(ErrorKind::NotFound, format!("there is no replay `{}`", name.escape_debug()))
            .remedy("it may be through; see the list of those that are under way")
    })
}

pub(super) fn replay_request(r: WireReplay, engine: &Engine) -> Result<ReplayRequest> {
    let to = match (r.named, r.one_off) {
        (Some(name), None) => ReplayTo::Named(name),
        (None, Some(text)) => ReplayTo::OneOff(Box::new(destination(&text)?)),
        _ => {
            return Err(Error::new(ErrorKind::InvalidArgument, "it does not say to whom")
                .at("destination")
                .remedy("give destination or one_off, and not both"));
        }
    };
    let mut request = ReplayRequest::new(to);
    request.name = r.name;
    request.from = r.from.read_from()?;
    request.until_ns = r.until_ns;
    request.filter = filter_of(&r.filter, engine.event_types())?;
    request.rate_max = r.rate_max;
    Ok(request)
}

fn destination(text: &str) -> Result<crate::rule::Destination> {
    Config::destination_of_text(text, Path::new(""))
}

/// What [`answer`] gives that is no value alone.
#[derive(Debug)]
pub(super) enum NotPlain {
    Error(Error),
    Frames(Value, Vec<u8>),
}

impl From<Error> for NotPlain {
    fn from(e: Error) -> NotPlain {
        NotPlain::Error(e)
    }
}

/// Answers what needs nothing but the engine.
pub(super) fn answer(engine: &Engine, request: Request, behind: &[u8]) -> Result<Value, NotPlain> {
    engine.check_process()?;
    let deadline = |ms| driver::now() + Duration::from_millis(ms).min(Duration::from_secs(10 * 366 * 24 * 3600));
    Ok(match request {
        Request::Interests { bucket } => json!(engine.inner().interests(&bucket)),
        Request::Interested { bucket, event_type } => {
            json!(engine.is_interested(&bucket, EventType::parse(&event_type)?))
        }
        Request::DetailsWanted => {
            let wanted = with_events(&[behind.len()], behind, |events| engine.details_wanted(&events[0]))??;
            json!([wanted.metadata, wanted.tags])
        }
        Request::InDoubt => {
            let (mut frames, mut told) = (Vec::new(), Vec::new());
            for d in engine.in_doubt()? {
                let frame = d.event().as_bytes().to_vec();
                told.push((d.token.to_string(), d.reserved_ns, frame.len()));
                frames.extend(frame);
            }
            return Err(NotPlain::Frames(to_value(told)?, frames));
        }
        Request::Resolve { token, commit } => {
            let token = token.parse()?;
            if commit {
                with_events(&[behind.len()], behind, |e| engine.resolve(token, Resolution::Commit(&e[0])))??;
            } else {
                engine.resolve(token, Resolution::Abort)?;
            }
            Value::Null
        }
        Request::LastApplied => json!(engine.last_applied()?),
        Request::Flush { ms } => json!(engine.flush(Duration::from_millis(ms))?),
        Request::Stats => to_value(engine.stats())?,
        Request::StatsJson => engine.stats_json(),
        Request::Prometheus { open } => {
            json!(engine.prometheus(if open { MetricsFormat::OpenMetrics } else { MetricsFormat::Prometheus })?)
        }
        Request::PutRule { text, expect } => json!(engine.put_rule(engine.rule_of_text(&text)?, expect)?),
        Request::DeleteRule { bucket, id, expect } => json!(engine.delete_rule(bucket.as_deref(), &id, expect)?),
        Request::Rule { bucket, id } => engine.rule_json(bucket.as_deref(), &id)?,
        Request::Rules => engine.rules_json(),
        Request::PutNotification { bucket, text, format, options, expect } => {
            json!(engine.put_bucket_notification(&bucket, &text, format, &options, expect)?)
        }
        Request::CheckNotification { bucket, text, format, options } => {
            let rules = engine.check_bucket_notification(&bucket, &text, format, &options)?;
            rules.iter().map(Rule::to_json).collect()
        }
        Request::Notification { bucket, format } => to_value(engine.bucket_notification(&bucket, format)?)?,
        Request::PutDestination { text, expect, backlog } => {
            json!(engine.put_destination(destination(&text)?, expect, &backlog)?)
        }
        Request::DeleteDestination { name, expect, backlog } => {
            json!(engine.delete_destination(&name, expect, &backlog)?)
        }
        Request::Suspend { name } => json!(engine.suspend_destination(&name)?),
        Request::Resume { name } => json!(engine.resume_destination(&name)?),
        Request::Confirm { name, per_minute } => json!(engine.confirm_destination(&name, per_minute)?),
        Request::Test { name } => engine.destination_test_json(&name)?,
        Request::RotateSecret { name, secret, overlap_ms } => {
            let new = engine.rotate_secret(&name, secret.map(Into::into), Duration::from_millis(overlap_ms))?;
            json!(new.secret.to_string())
        }
        Request::Destination { name } => to_value(engine.destination_standing(&name)?)?,
        Request::Destinations => engine.destinations_json(),
        Request::DeadLetters { filter, after, limit } => {
            let (mut letters, mut frames, mut lens) = (Vec::new(), Vec::new(), Vec::new());
            // A page is as long as a message may well be; the next one begins after it.
            for mut letter in engine.dead_letters(&filter, after, limit.min(LETTERS_MAX))? {
                let bytes = letter.frame.len() + letter.answer.len();
                if !lens.is_empty() && frames.len() + bytes > ITEMS_BYTES_MAX {
                    break;
                }
                let (frame, answer) = (std::mem::take(&mut letter.frame), std::mem::take(&mut letter.answer));
                lens.push((frame.len(), answer.len()));
                frames.extend(frame);
                frames.extend(answer);
                letters.push(letter);
            }
            return Err(NotPlain::Frames(to_value((letters, lens))?, frames));
        }
        Request::PurgeDeadLetters { filter, ms } => json!(engine.purge_dead_letters(&filter, deadline(ms))?),
        Request::Redrive { filter, options, ms } => {
            let mut redrive = engine.redrive(&filter, &options)?;
            let result = redrive.wait(deadline(ms));
            if result.is_err() {
                redrive.stop();
            }
            let reached = redrive.progress();
            let failed = result.err().map(|e| wire::WireError::from(&e));
            to_value((reached.redriven, reached.left, reached.why, failed))?
        }
        Request::Groups => to_value(engine.groups()?)?,
        Request::DeleteGroup { name } => json!(engine.delete_group(&name)?),
        Request::Replays => engine.replays_json()?,
        Request::ResumeReplay { name, destination: text } => {
            engine.resume_replay(&name, destination(&text)?)?;
            Value::Null
        }
        _ => return Err(garbled().into()),
    })
}
