//! The side that has no engine.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use foldhash::fast::RandomState;
use futures::channel::oneshot;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::calls::{Request, millis};
use super::memory;
use super::presence::Presence;
use super::ring::{Kind, Reached, Ring, Writer, file_bytes, need};
use super::server::{ring, silence};
use super::status::Status;
use super::wire::{self, Answer, Asked, Became, Hello, Inbox, Told, Wants, Welcome};
use super::{check_socket_path, monotonic_ns};
use crate::config::Config;
use crate::driver::{self, WallClock};
use crate::engine::batch::{self, PublishedJson};
use crate::engine::{
    BatchReservation, Completion, CompletionCalls, Completions, Engine, InDoubt, Intent, Keep, PublishOptions,
    Published, RedriveOptions, Redriven, Reservation, ReserveOptions, Reserved, ReservedBatch, Resolution,
    bytes_max_of, deadline_in,
};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, EventId, EventType, EventTypes, Layout, frame};
use crate::fork::ForkGuard;
use crate::lock::{Condvar, Mutex, MutexGuard};
use crate::log::Ack;
use crate::log::dead::DeadLetterFilter;
use crate::shard::progress::{Progress, Receipt, Way};
use crate::shard::snapshot::DetailsWanted;

#[cfg(test)]
mod tests;

/// Between two tries to connect, at first and at most.
const BACKOFF_MIN: Duration = Duration::from_millis(10);
const BACKOFF_MAX: Duration = Duration::from_millis(250);
/// How long a server may take to answer somebody who connects.
const HELLO_WAIT: Duration = Duration::from_secs(10);
/// How much longer than it was given a call may take, before its answer is given up.
pub(super) const CALL_MARGIN: Duration = Duration::from_secs(60);
/// Between two tries of an event that a full queue holds up.
const BUSY_WAIT: Duration = Duration::from_millis(5);
/// Buckets of which it is known what is wanted.
const INTERESTS_MAX: usize = 16 * 1024;
/// Connections that are kept for the next calls.
const IDLE_CALLS_MAX: usize = 2;
const STACK_BYTES: usize = 512 << 10;
/// The longest that is waited at a stretch.
const PART_MAX: Duration = Duration::from_secs(3600);

/// How a client connects. Make one with [`ClientOptions::default`] and set what differs.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ClientOptions {
    /// How long connecting waits for somebody to listen; and how long later calls that are given no time of their own wait
    /// for the connection to come back. Default: 5 s.
    pub connect_timeout: Duration,
    /// What events that are published here are told the time by, if they have none of their own; as
    /// [`crate::config::EngineConfig::clock`], which is meant if there is a configuration. Default: `None`, the machine's clock.
    pub clock: Option<WallClock>,
}

impl Default for ClientOptions {
    fn default() -> Self {
        ClientOptions { connect_timeout: Duration::from_secs(5), clock: None }
    }
}

/// An engine that another process has.
///
/// Its calls are those of [`Engine`], and mean the same. All may be made from any thread at the same time. Clones share one
/// connection, which ends when [`Client::close`] is called or the last clone is dropped.
///
/// Where nobody is connected, what publishes waits as long as it may wait for space, other calls for
/// [`ClientOptions::connect_timeout`]; then they answer [`ErrorKind::Disconnected`].
///
/// After `fork`, a child must not use the client of its parent: every call answers [`ErrorKind::WrongProcess`]. It may connect
/// a client of its own.
#[derive(Clone, Debug)]
pub struct Client {
    inner: Arc<Inner>,
}

#[derive(Debug)]
pub(super) struct Inner {
    guard: ForkGuard,
    path: PathBuf,
    options: ClientOptions,
    /// To open the engine with, if it is for whoever comes first.
    config: Option<Config>,
    /// The engine, if it is here.
    own: Mutex<Option<Engine>>,
    /// Tells the next server that this client has what the last one has not taken, until that is in its new ring.
    presence: Mutex<Option<Presence>>,
    progress: Arc<Progress>,
    state: Mutex<State>,
    /// There may be space, or a connection.
    changed: Condvar,
    /// Who waits for an answer to an event, by the position after it.
    asking: Mutex<HashMap<u64, oneshot::Sender<Result<Became>>>>,
    idle: Mutex<Vec<Arc<UnixStream>>>,
    /// The connections for calls that there are, to end them.
    calls: Mutex<Vec<Weak<UnixStream>>>,
    /// Of the latest server.
    welcome: ArcSwap<Welcome>,
    types: ArcSwap<EventTypes>,
    event_bytes_max: AtomicUsize,
    closed: AtomicBool,
    /// Events that a server had begun to take when it died, whose publishers do not wait for them.
    lost: AtomicU64,
    reconnects: AtomicU64,
    /// Wakes the thread.
    bell: Arc<OwnedFd>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What publishers of this process share.
#[derive(Debug)]
struct State {
    link: Option<Link>,
    /// Stays when the connection goes, with what the server has not taken.
    writer: Writer,
    /// What is kept free of the ring for reservations.
    reserved: u64,
    waiting: usize,
    interests: Interests,
    /// Why there is no connection.
    trouble: Option<Error>,
}

/// A connection, for publishers.
#[derive(Debug)]
struct Link {
    status: Arc<Status>,
    bell: Arc<OwnedFd>,
}

/// The same, for the thread.
#[derive(Debug)]
struct Connection {
    socket: UnixStream,
    client_bell: OwnedFd,
    ring: Arc<Ring>,
    inbox: Inbox,
}

/// What the rules want that not every bucket is wanted of.
#[derive(Debug, Default)]
struct Interests {
    /// Of which version of the rules.
    rules: u64,
    known: HashMap<Box<str>, [u64; 2], RandomState>,
    others: HashMap<(Box<str>, Box<str>), bool, RandomState>,
}

impl Interests {
    fn follow(&mut self, rules: u64) {
        if self.rules != rules || self.known.len() + self.others.len() > INTERESTS_MAX {
            self.known.clear();
            self.others.clear();
            self.rules = rules;
        }
    }

    fn get(&self, bucket: &str, event_type: EventType<'_>) -> Option<bool> {
        match event_type {
            EventType::Known(t) => {
                self.known.get(bucket).map(|words| words[t as usize / 64] & 1 << (t as usize % 64) != 0)
            }
            EventType::Custom(name) => self.others.get(&(Box::from(bucket), Box::from(name))).copied(),
        }
    }
}

impl Client {
    /// Connects to the engine that listens at a socket.
    ///
    /// # Errors
    /// [`ErrorKind::Disconnected`] if nobody listens there within [`ClientOptions::connect_timeout`];
    /// [`ErrorKind::InvalidArgument`] if this user is not let in, or it speaks of another version;
    /// [`ErrorKind::InvalidConfig`] for a path that no socket can have; [`ErrorKind::Full`] if too many are connected;
    /// [`ErrorKind::Io`].
    pub fn connect(socket: impl AsRef<Path>, options: ClientOptions) -> Result<Client> {
        Client::start(socket.as_ref(), options, None)
    }

    /// Opens the engine of a configuration for several processes: the first that comes has the data directory and listens at
    /// [`crate::shared::SharedConfig::socket`], the others connect to it. When the process that has it ends, one of them
    /// takes it over, with the configuration that it was given itself.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] if the configuration has no `engine.shared`; as [`Engine::open`], but for
    /// [`ErrorKind::Locked`], and as [`Client::connect`].
    pub fn open_or_connect(config: Config, options: ClientOptions) -> Result<Client> {
        let path = config.engine.required_shared()?.socket.clone();
        Client::start(&path, options, Some(config))
    }

    fn start(path: &Path, mut options: ClientOptions, config: Option<Config>) -> Result<Client> {
        options.clock = options.clock.or_else(|| config.as_ref().and_then(|c| c.engine.clock.clone()));
        check_socket_path(path)?;
        let cannot = |e: io::Error| Error::io("cannot make what a client of an engine needs", &e);
        let bell = Arc::new(driver::eventfd(0).map_err(cannot)?);
        let deadline = deadline_in(options.connect_timeout);
        let mut own = None;
        let mut backoff = BACKOFF_MIN;
        let (connection, link, welcome, presence) = loop {
            match reach(path, 0, config.as_ref(), &mut own) {
                Ok(connected) => break connected,
                Err(e) if e.kind() == ErrorKind::Disconnected && driver::now() < deadline => {
                    let left = deadline.saturating_duration_since(driver::now());
                    std::thread::sleep(backoff.min(left));
                    backoff = (backoff * 2).min(BACKOFF_MAX);
                }
                Err(e) => return Err(e),
            }
        };
        let state = State {
            link: Some(link),
            writer: Writer::new(connection.ring.clone(), 0),
            reserved: 0,
            waiting: 0,
            interests: Interests::default(),
            trouble: None,
        };
        let inner = Arc::new(Inner {
            guard: ForkGuard::new(()),
            path: path.to_owned(),
            options,
            config,
            own: Mutex::new(own),
            presence: Mutex::new(Some(presence)),
            progress: Arc::default(),
            state: Mutex::new(state),
            changed: Condvar::new(),
            asking: Mutex::default(),
            idle: Mutex::default(),
            calls: Mutex::default(),
            types: ArcSwap::from_pointee(EventTypes::with_custom(&welcome.event_types)?),
            event_bytes_max: AtomicUsize::new(welcome.event_bytes_max),
            welcome: ArcSwap::from_pointee(welcome),
            closed: AtomicBool::new(false),
            lost: AtomicU64::new(0),
            reconnects: AtomicU64::new(0),
            bell: bell.clone(),
            thread: Mutex::new(None),
        });
        let weak = Arc::downgrade(&inner);
        let cpus = driver::usable_cpus();
        let work = move || attend(&weak, &bell, connection);
        *inner.thread.lock() = Some(driver::spawn_helper("tidewire-client", STACK_BYTES, &cpus, work)?);
        Ok(Client { inner })
    }

    /// The socket.
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// Whether it is connected now.
    pub fn is_connected(&self) -> bool {
        self.check_process().is_ok() && self.inner.state.lock().link.is_some()
    }

    /// Whether this process has the engine itself: see [`Client::open_or_connect`].
    pub fn has_engine(&self) -> bool {
        self.check_process().is_ok() && self.inner.own.lock().is_some()
    }

    /// How often it was connected anew.
    pub fn reconnects(&self) -> u64 {
        self.inner.reconnects.load(Ordering::Relaxed)
    }

    /// Events that were accepted at `memory`, and of which it is not known whether they were taken, because the engine's
    /// process died at that moment.
    pub fn lost(&self) -> u64 {
        self.inner.lost.load(Ordering::Relaxed)
    }

    /// Whether an error of a call that publishes says that nobody was connected, so that nothing was sent: it may be made
    /// again without fear that the event is told twice. Any other [`ErrorKind::Disconnected`] leaves that open.
    pub fn is_unsent(&self, e: &Error) -> bool {
        e.kind() == ErrorKind::Disconnected && e.place() == self.inner.path.to_str()
    }

    /// As [`Engine::check_process`].
    ///
    /// # Errors
    /// [`ErrorKind::WrongProcess`] in a forked child.
    pub fn check_process(&self) -> Result<()> {
        self.inner.check_process()
    }

    /// As [`Engine::publish`].
    ///
    /// # Errors
    /// As [`Client::publish_with`].
    pub fn publish(&self, event: &Event<'_>) -> Result<Published> {
        self.publish_with(event, &PublishOptions::default())
    }

    /// As [`Engine::publish_with`].
    ///
    /// # Errors
    /// As [`Engine::publish_with`], and [`ErrorKind::Disconnected`]: the event is not accepted, unless it has been waiting for
    /// an ack level or an answer; then nobody knows.
    pub fn publish_with(&self, event: &Event<'_>, options: &PublishOptions) -> Result<Published> {
        let Some(receipt) = self.submit(event, options)? else { return Ok(Published::NoMatch) };
        if options.ack > Ack::Memory {
            receipt.wait(options.ack, Some(deadline_in(options.ack_timeout)))?;
        }
        Ok(if receipt.is_duplicate() { Published::Duplicate } else { Published::Accepted })
    }

    /// As [`Engine::submit`]. The receipt tells of the level that was asked for, and of no higher one.
    ///
    /// # Errors
    /// As [`Client::publish_with`], but for those about the ack level.
    pub fn submit(&self, event: &Event<'_>, options: &PublishOptions) -> Result<Option<Receipt>> {
        let inner = &*self.inner;
        inner.check_process()?;
        let layout = inner.check(event)?;
        if options.dedup_key.is_some() {
            let asked = Asked { dedup_key: options.dedup_key, host_cursor: None };
            return inner.ask(event, layout, options, asked);
        }
        let needed = need(layout.len());
        let deadline = options.on_full.deadline();
        let Some(mut state) = inner.enter(event.bucket, event.event_type, deadline, true)? else { return Ok(None) };
        loop {
            let Some(link) = &state.link else {
                state = inner.linked(state, deadline)?;
                continue;
            };
            if link.status.asks() {
                drop(state);
                return inner.ask(event, layout, options, Asked::default());
            }
            let reserved = state.reserved;
            if state.writer.has_space(needed, reserved) {
                break;
            }
            state = inner.wait_for_space(state, needed, deadline)?;
        }
        let time_ns = if event.time_ns == 0 { inner.wall_ns() } else { event.time_ns };
        let fill = |out: &mut [u8]| frame::encode(event, layout, time_ns, out);
        let position = state.writer.push(Kind::Event, options.ack, monotonic_ns(), layout.len(), fill);
        state.wake(options.ack > Ack::Memory);
        drop(state);
        Ok(Some(inner.receipt(position, options.ack)))
    }

    /// As [`Engine::publish_batch`].
    ///
    /// # Errors
    /// As [`Client::publish_with`].
    pub fn publish_batch(
        &self,
        events: &[Event<'_>],
        options: &PublishOptions,
        outcomes: &mut Vec<Published>,
    ) -> Result<()> {
        outcomes.clear();
        self.check_process()?;
        let submit = |n: usize| self.submit(&events[n], options);
        batch::submit_all(events.len(), options, submit, |became| outcomes.push(became))
    }

    /// As [`Engine::publish_json`].
    ///
    /// # Errors
    /// As [`Engine::publish_json`] and [`Client::publish_with`].
    pub fn publish_json(
        &self,
        document: &mut [u8],
        content_type: &str,
        options: &PublishOptions,
        published: &mut PublishedJson,
    ) -> Result<()> {
        *published = PublishedJson::default();
        self.check_process()?;
        let check = |e: &Event<'_>| self.inner.check(e).map(|_| ());
        batch::publish_document(document, content_type, options, published, check, |e| self.submit(e, options))
    }

    /// As [`Engine::append_at`].
    ///
    /// # Errors
    /// As [`Engine::append_at`] and [`Client::publish_with`].
    pub fn append_at(&self, cursor: u64, event: &Event<'_>, options: &PublishOptions) -> Result<Published> {
        let inner = &*self.inner;
        inner.check_process()?;
        if cursor == 0 {
            return Err(Error::new(ErrorKind::InvalidArgument, "the cursor is 0").remedy("count from 1"));
        }
        let layout = inner.check(event)?;
        let asked = Asked { dedup_key: options.dedup_key, host_cursor: Some(cursor) };
        let Some(receipt) = inner.ask(event, layout, options, asked)? else { return Ok(Published::NoMatch) };
        if options.ack > Ack::Memory {
            receipt.wait(options.ack, Some(deadline_in(options.ack_timeout)))?;
        }
        Ok(if receipt.is_duplicate() { Published::Duplicate } else { Published::Accepted })
    }

    /// As [`Engine::last_applied`].
    ///
    /// # Errors
    /// [`ErrorKind::Disconnected`], [`ErrorKind::WrongProcess`].
    pub fn last_applied(&self) -> Result<u64> {
        self.call(&Request::LastApplied)
    }

    /// As [`Engine::is_interested`]; true where nobody can tell.
    pub fn is_interested(&self, bucket: &str, event_type: EventType<'_>) -> bool {
        let inner = &*self.inner;
        let deadline = Some(deadline_in(inner.options.connect_timeout));
        inner
            .check_process()
            .and_then(|()| inner.enter(bucket, event_type, deadline, false))
            .map_or(true, |e| e.is_some())
    }

    /// As [`Engine::details_wanted`].
    ///
    /// # Errors
    /// [`ErrorKind::Disconnected`], [`ErrorKind::WrongProcess`].
    pub fn details_wanted(&self, event: &Event<'_>) -> Result<DetailsWanted> {
        self.check_process()?;
        if !self.is_interested(event.bucket, event.event_type) {
            return Ok(DetailsWanted::default());
        }
        let known = Event::new(event.event_type, event.bucket, event.key);
        let [metadata, tags]: [bool; 2] =
            self.call_with(&Request::DetailsWanted, &frame::encode_to_vec(&known, 0), None)?.0;
        Ok(DetailsWanted { metadata, tags })
    }

    /// As [`Engine::check`].
    ///
    /// # Errors
    /// [`ErrorKind::InvalidEvent`].
    pub fn check(&self, event: &Event<'_>) -> Result<()> {
        self.inner.check(event).map(|_| ())
    }

    /// As [`Engine::event_types`].
    pub fn event_types(&self) -> Arc<EventTypes> {
        self.inner.types.load_full()
    }

    /// As [`Engine::completions`].
    ///
    /// # Errors
    /// As [`Engine::completions`].
    pub fn completions(&self) -> Result<Completions> {
        Completions::new(Keep::Client(self.clone()))
    }

    /// As [`Engine::completions_to`].
    ///
    /// # Errors
    /// As [`Engine::completions_to`].
    pub fn completions_to(&self, each: impl FnMut(&[Completion]) + Send + 'static) -> Result<CompletionCalls> {
        self.completions()?.call(each)
    }

    /// As [`Engine::reserve`]. Without a durable intent an event is held that a rule may want in the end, though the rules say
    /// that they do not.
    ///
    /// # Errors
    /// As [`Engine::reserve`], and [`ErrorKind::Disconnected`].
    pub fn reserve(&self, event: &Event<'_>, options: &ReserveOptions) -> Result<Reserved> {
        Ok(match self.reserve_all(std::slice::from_ref(event), options)? {
            None => Reserved::WouldBlock,
            Some(mut items) => items.pop().flatten().map_or(Reserved::NoMatch, Reserved::Held),
        })
    }

    /// As [`Engine::reserve_batch`].
    ///
    /// # Errors
    /// As [`Client::reserve`].
    pub fn reserve_batch(&self, events: &[Event<'_>], options: &ReserveOptions) -> Result<ReservedBatch> {
        let items = self.reserve_all(events, options)?;
        Ok(items.map_or(ReservedBatch::WouldBlock, |items| ReservedBatch::Held(BatchReservation::of(items))))
    }

    fn reserve_all(&self, events: &[Event<'_>], options: &ReserveOptions) -> Result<Option<Vec<Option<Reservation>>>> {
        let inner = &*self.inner;
        inner.check_process()?;
        let deadline = options.on_full.deadline();
        let prefix = if options.intent == Intent::Durable { wire::TOKEN_BYTES } else { 0 };
        // What may refuse an event refuses it now.
        if self.inner.link_asks(deadline)? {
            let (mut frames, mut lens) = (Vec::new(), Vec::new());
            for event in events {
                inner.check(event)?;
                let bytes = frame::encode_to_vec(event, inner.wall_ns());
                lens.push(bytes.len());
                frames.extend(bytes);
            }
            let full_ms = options.on_full.limit().map(millis);
            let limit = options.on_full.limit();
            let () = self.call_with(&Request::Turn { full_ms, lens }, &frames, limit)?.0;
        }
        let mut items: Vec<Option<Kept>> = Vec::with_capacity(events.len());
        'again: loop {
            items.clear();
            for event in events {
                let layout = inner.check(event)?;
                let bytes_max = bytes_max_of(options, layout.len(), inner.event_bytes_max.load(Ordering::Relaxed))?;
                let Some(mut state) = inner.enter(event.bucket, event.event_type, deadline, true)? else {
                    items.push(None);
                    continue;
                };
                let bytes = need(prefix + bytes_max);
                let capacity = state.writer.ring.capacity();
                let share = capacity / 100 * inner.welcome.load().reserve_percent as u64;
                if bytes > share || prefix + bytes_max > state.writer.ring.payload_bytes_max() {
                    let what = format!("bytes_max is {bytes_max}, and of a ring only {share} bytes may be reserved");
                    return Err(Error::new(ErrorKind::InvalidArgument, what)
                        .at("bytes_max")
                        .remedy("choose less, or raise engine.shared.ring_bytes or engine.reserve_percent"));
                }
                let (reserved, too_much) = (state.reserved, state.reserved + bytes > share);
                if too_much || !state.writer.has_space(bytes, reserved) {
                    drop(state);
                    // What is held would stand in the way of others who wait.
                    items.clear();
                    let Some(deadline) = deadline.filter(|d| driver::now() < *d) else {
                        return if too_much { Ok(None) } else { Err(full()) };
                    };
                    let state = inner.state.lock();
                    state.writer.ring.want_space();
                    drop(inner.wait(state, deadline));
                    continue 'again;
                }
                state.reserved += bytes;
                drop(state);
                let promise = Promise { client: self.clone(), bytes: AtomicU64::new(bytes), token: None };
                items.push(Some((promise, frame_of(event, layout, inner.wall_ns()), bytes_max)));
            }
            break;
        }
        if options.intent == Intent::Durable && !self.make_durable(&mut items, options)? {
            return Ok(None);
        }
        let reservation = |(n, item): (usize, Option<Kept>)| {
            item.map(|(promise, frame, max)| Reservation::of_client(promise, frame, events[n].time_ns != 0, max))
        };
        Ok(Some(items.into_iter().enumerate().map(reservation).collect()))
    }

    /// Has the engine write the intents; `false` if too much is reserved there.
    fn make_durable(&self, items: &mut [Option<Kept>], options: &ReserveOptions) -> Result<bool> {
        let held: Vec<_> = items.iter().flatten().collect();
        if held.is_empty() {
            return Ok(true);
        }
        let frames: Vec<u8> = held.iter().flat_map(|(_, frame, _)| frame.iter().copied()).collect();
        let request = Request::Reserve {
            bytes_max: options.bytes_max,
            full_ms: options.on_full.limit().map(millis),
            ack_ms: millis(options.ack_timeout),
            lens: held.iter().map(|(_, frame, _)| frame.len()).collect(),
        };
        let limit = options.ack_timeout.saturating_add(options.on_full.limit().unwrap_or_default());
        let tokens: Option<Vec<Option<String>>> = self.call_with(&request, &frames, Some(limit))?.0;
        let Some(tokens) = tokens else { return Ok(false) };
        for (item, token) in items.iter_mut().filter(|item| item.is_some()).zip(tokens) {
            match (item.as_mut(), token) {
                (Some((promise, ..)), Some(token)) => promise.token = Some(token.parse()?),
                // No rule wants it, as the engine sees it.
                _ => *item = None,
            }
        }
        Ok(true)
    }

    /// As [`Engine::in_doubt`].
    ///
    /// # Errors
    /// [`ErrorKind::Disconnected`], [`ErrorKind::WrongProcess`].
    pub fn in_doubt(&self) -> Result<Vec<InDoubt>> {
        let (told, frames): (Vec<(String, u64, usize)>, _) = self.call_with(&Request::InDoubt, &[], None)?;
        let mut rest = &frames[..];
        let mut all = Vec::with_capacity(told.len());
        for (token, reserved_ns, len) in told {
            let (frame, behind) =
                rest.split_at_checked(len).ok_or_else(|| wire::lost(&io::ErrorKind::InvalidData.into()))?;
            crate::event::FrameView::parse(frame)?;
            all.push(InDoubt::of_parts(token.parse()?, reserved_ns, frame.to_vec()));
            rest = behind;
        }
        Ok(all)
    }

    /// As [`Engine::resolve`].
    ///
    /// # Errors
    /// As [`Engine::resolve`], and [`ErrorKind::Disconnected`].
    pub fn resolve(&self, token: EventId, resolution: Resolution<'_>) -> Result<()> {
        let frame = match resolution {
            Resolution::Commit(event) => {
                self.inner.check(event)?;
                frame::encode_to_vec(event, self.inner.wall_ns())
            }
            Resolution::Abort => Vec::new(),
        };
        let request =
            Request::Resolve { token: token.to_string(), commit: matches!(resolution, Resolution::Commit(_)) };
        self.call_with(&request, &frame, Some(Duration::from_secs(60))).map(|((), _)| ())
    }

    /// As [`Engine::flush`].
    ///
    /// # Errors
    /// As [`Engine::flush`], and [`ErrorKind::Disconnected`].
    pub fn flush(&self, timeout: Duration) -> Result<()> {
        let deadline = deadline_in(timeout.saturating_add(CALL_MARGIN));
        let mut flush = self.start_flush(timeout)?;
        loop {
            match flush.wait(deadline)? {
                Some(()) => return Ok(()),
                None if driver::now() < deadline => {}
                None => return Err(Error::new(ErrorKind::Timeout, "the engine's process has not answered")),
            }
        }
    }

    /// Begins a flush without waiting for it; the engine's process waits for so long.
    ///
    /// # Errors
    /// [`ErrorKind::Disconnected`], [`ErrorKind::WrongProcess`].
    pub fn start_flush(&self, timeout: Duration) -> Result<Pending<()>> {
        let until = deadline_in(timeout);
        let line = self.begin(|| flush_until(until))?;
        // What was published before is in the log, or goes to the next engine, which may be asked as well.
        Ok(Pending { client: self.clone(), line, read: wire::value, again: Some(until) })
    }

    /// Begins a redrive without waiting for it: see [`super::AnyEngine::redrive`].
    ///
    /// # Errors
    /// [`ErrorKind::Disconnected`], [`ErrorKind::WrongProcess`].
    pub fn start_redrive(
        &self,
        filter: &DeadLetterFilter,
        options: &RedriveOptions,
        timeout: Duration,
    ) -> Result<Pending<(Redriven, Result<()>)>> {
        let request = || Request::Redrive { filter: filter.clone(), options: options.clone(), ms: millis(timeout) };
        let line = self.begin(request)?;
        Ok(Pending { client: self.clone(), line, read: |answer| wire::value(answer).map(redriven), again: None })
    }

    /// Sends a request on a connection of its own. Where the engine ends before it has the whole of it, the next one is asked.
    fn begin(&self, request: impl Fn() -> Request) -> Result<Line> {
        loop {
            let mut line = Line::new(self.open_call()?);
            match line.begin(&request()) {
                Err(e) if e.kind() == ErrorKind::Disconnected => {}
                begun => return begun.map_err(|e| self.explain(e)).map(|()| line),
            }
        }
    }

    /// Waits until the engine has taken in what this process has published, and ends the connection. The engine goes on,
    /// unless this process has it: then it is closed as [`Engine::close`] says, and another process may take it over.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] if something was not taken in; as [`Engine::close`]; [`ErrorKind::WrongProcess`].
    pub fn close(&self, timeout: Duration) -> Result<()> {
        let inner = &*self.inner;
        inner.check_process()?;
        let deadline = deadline_in(timeout);
        let mut result = Ok(());
        if !inner.closed.load(Ordering::SeqCst) {
            let mut state = inner.state.lock();
            while state.link.is_some() && state.writer.has_records() {
                if driver::now() >= deadline {
                    let what = "the engine has not taken in all that was published";
                    result = Err(Error::new(ErrorKind::Timeout, what).remedy("it does so all the same, if it lives"));
                    break;
                }
                state.writer.ring.want_space();
                state.wake(true);
                let soon = driver::now() + Duration::from_millis(20);
                state = inner.wait(state, soon.min(deadline));
            }
        }
        inner.end();
        let own = inner.own.lock().take();
        result.and(own.map_or(Ok(()), |engine| engine.close(timeout)))
    }

    /// What closing waits for, as the engine's configuration says.
    pub fn close_timeout(&self) -> Duration {
        Duration::from_millis(self.inner.welcome.load().close_timeout_ms)
    }

    /// Calls, and waits at most for [`ClientOptions::connect_timeout`] for a connection.
    pub(super) fn call<T: DeserializeOwned>(&self, request: &Request) -> Result<T> {
        self.call_with(request, &[], None).map(|(value, _)| value)
    }

    /// The same, with something behind it, for a call that may take so long.
    pub(super) fn call_with<T: DeserializeOwned>(
        &self,
        request: &Request,
        behind: &[u8],
        limit: Option<Duration>,
    ) -> Result<(T, Vec<u8>)> {
        let inner = &*self.inner;
        inner.check_process()?;
        let idle = inner.idle.lock().pop();
        if let Some(socket) = idle {
            match exchange(&socket, request, behind, limit) {
                // It had ended meanwhile, before it was asked.
                Err(e) if e.kind() == ErrorKind::Disconnected && request.looks() => {}
                answer => return self.finish(socket, answer),
            }
        }
        let socket = self.open_call()?;
        let answer = exchange(&socket, request, behind, limit);
        self.finish(socket, answer)
    }

    fn finish<T: DeserializeOwned>(
        &self,
        socket: Arc<UnixStream>,
        answer: Result<(Answer<Value>, Vec<u8>)>,
    ) -> Result<(T, Vec<u8>)> {
        let (answer, behind) = answer.map_err(|e| self.explain(e))?;
        let mut idle = self.inner.idle.lock();
        if idle.len() < IDLE_CALLS_MAX {
            idle.push(socket);
        }
        drop(idle);
        wire::value(answer).map(|value| (value, behind)).map_err(|e| self.explain(e))
    }

    /// What an error means: where this process has ended the connection itself, that it is closed; where the engine is, that
    /// its process is gone for those who are connected.
    pub(super) fn explain(&self, e: Error) -> Error {
        match (e.kind(), self.inner.closed.load(Ordering::SeqCst)) {
            (ErrorKind::Disconnected, true) => closed(),
            (ErrorKind::Closed, false) => Error::new(ErrorKind::Disconnected, "the engine's process closes it")
                .remedy("it is connected to anew when an engine is there; then try again"),
            _ => e,
        }
    }

    /// A connection for calls, which ends when this is closed.
    pub(super) fn open_call(&self) -> Result<Arc<UnixStream>> {
        let inner = &*self.inner;
        inner.check_process()?;
        let deadline = deadline_in(inner.options.connect_timeout);
        loop {
            drop(inner.linked(inner.state.lock(), Some(deadline))?);
            let welcome = inner.welcome.load_full();
            let wants = Wants::Calls { session: welcome.session, secret: welcome.secret };
            let opened = hello(&inner.path, wants).and_then(|socket| {
                let (answer, _): (Answer<()>, _) = wire::receive(&socket)?;
                answer.map_err(Error::from)?;
                let _ = socket.set_read_timeout(None);
                Ok(socket)
            });
            match opened {
                // The session has just ended, or is about to, and there is another one soon.
                Err(e)
                    if matches!(e.kind(), ErrorKind::Disconnected | ErrorKind::Closed) && driver::now() < deadline =>
                {
                    std::thread::sleep(BACKOFF_MIN);
                }
                opened => return opened.map_err(|e| self.explain(e)).and_then(|socket| inner.keep(socket)),
            }
        }
    }
}

/// What a redrive came to, as it is answered.
pub(super) type ToldRedriven = (u64, u64, Vec<(String, u64)>, Option<wire::WireError>);

pub(super) fn redriven((redriven, left, why, failed): ToldRedriven) -> (Redriven, Result<()>) {
    (Redriven { redriven, left, why }, failed.map_or(Ok(()), |e| Err(e.into())))
}

/// A call of the engine's process that is on its way: see [`Client::start_flush`]. For callers that have something to look
/// after while they wait: its descriptor is readable once the answer is there, or will never be.
#[derive(Debug)]
#[must_use = "an answer is for waiting"]
pub struct Pending<T> {
    client: Client,
    line: Line,
    read: fn(Answer<Value>) -> Result<T>,
    /// It is a flush until then, which the next engine is asked for if this one ends before it has answered.
    again: Option<Instant>,
}

/// What an engine is asked for that is to wait until then.
fn flush_until(until: Instant) -> Request {
    Request::Flush { ms: millis(until.saturating_duration_since(driver::now())) }
}

impl<T> Pending<T> {
    /// Waits for the answer, at most until `deadline`; `None` if there is none yet, and it may be called again. Where the
    /// engine's process ends and the call may be made twice, the next one is called for the time that is left. That one is
    /// waited for as when a client opens, whatever `deadline` is; then the descriptor is another one.
    ///
    /// # Errors
    /// What the call answers; [`ErrorKind::Closed`] if the client is closed meanwhile; [`ErrorKind::Disconnected`] if the
    /// engine's process dies; [`ErrorKind::WrongProcess`] in a forked child.
    pub fn wait(&mut self, deadline: Instant) -> Result<Option<T>> {
        self.client.check_process()?;
        let answer = match self.line.answer(deadline) {
            Ok(None) => return Ok(None),
            Ok(Some((answer, _))) => (self.read)(answer),
            Err(e) => Err(e),
        };
        match answer.map_err(|e| self.client.explain(e)) {
            Ok(answer) => Ok(Some(answer)),
            Err(e) => match self.again {
                Some(until) if e.kind() == ErrorKind::Disconnected => {
                    self.line = self.client.begin(|| flush_until(until))?;
                    Ok(None)
                }
                _ => Err(e),
            },
        }
    }
}

impl<T> AsFd for Pending<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.line.socket.as_fd()
    }
}

/// A connection for calls, of which one may be on its way.
#[derive(Debug)]
pub(super) struct Line {
    socket: Arc<UnixStream>,
    asked: bool,
}

impl Line {
    pub(super) fn new(socket: Arc<UnixStream>) -> Line {
        Line { socket, asked: false }
    }

    pub(super) fn socket(&self) -> &UnixStream {
        &self.socket
    }

    /// Whether an answer is still to come.
    pub(super) fn is_asked(&self) -> bool {
        self.asked
    }

    /// Calls; the answer to the call before must be there.
    pub(super) fn begin(&mut self, request: &Request) -> Result<()> {
        debug_assert!(!self.asked);
        wire::send(&self.socket, request, &[])?;
        self.asked = true;
        Ok(())
    }

    /// The answer, if it comes until then.
    pub(super) fn answer(&mut self, until: Instant) -> Result<Option<(Answer<Value>, Vec<u8>)>> {
        let left = until.saturating_duration_since(Instant::now());
        // Rounded up, or the last of it would be spun away.
        let left = left.min(PART_MAX).saturating_add(Duration::from_micros(999));
        if !wait_for(&[self.socket.as_raw_fd()], Some(left)) {
            return Ok(None);
        }
        self.asked = false;
        let _ = self.socket.set_read_timeout(Some(CALL_MARGIN));
        wire::receive(&self.socket).map(Some)
    }
}

#[cold]
fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the client is closed")
}

/// Asks and waits for the answer.
pub(super) fn exchange(
    socket: &UnixStream,
    request: &Request,
    behind: &[u8],
    limit: Option<Duration>,
) -> Result<(Answer<Value>, Vec<u8>)> {
    let _ = socket.set_read_timeout(Some(limit.unwrap_or_default().saturating_add(CALL_MARGIN)));
    wire::send(socket, request, behind)?;
    wire::receive(socket)
}

fn frame_of(event: &Event<'_>, layout: Layout, time_ns: u64) -> Box<[u8]> {
    let mut bytes = vec![0; layout.len()].into_boxed_slice();
    frame::encode(event, layout, time_ns, &mut bytes);
    bytes
}

impl State {
    /// Wakes the server, if it sleeps and there is a reason to.
    #[inline]
    fn wake(&self, urgent: bool) {
        if let Some(link) = &self.link
            && link.status.sleeps(urgent || self.writer.is_half_full())
        {
            ring(&link.bell);
        }
    }
}

impl Inner {
    #[inline]
    fn check_process(&self) -> Result<()> {
        if self.guard.same_process() {
            return Ok(());
        }
        Err(Error::new(ErrorKind::WrongProcess, "this client belongs to the parent of this process")
            .remedy("connect after the fork"))
    }

    #[inline]
    fn check(&self, event: &Event<'_>) -> Result<Layout> {
        let layout = event.check_seldom(self.event_bytes_max.load(Ordering::Relaxed))?;
        if let EventType::Custom(_) = event.event_type {
            self.types.load().check(event.event_type)?;
        }
        Ok(layout)
    }

    fn receipt(&self, position: u64, ack: Ack) -> Receipt {
        Receipt { way: Way::Client(self.progress.clone(), ack), position, duplicate: false }
    }

    /// Waits for a connection.
    fn linked<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        deadline: Option<Instant>,
    ) -> Result<MutexGuard<'a, State>> {
        loop {
            if self.closed.load(Ordering::SeqCst) {
                return Err(closed());
            }
            if state.link.is_some() {
                return Ok(state);
            }
            let Some(deadline) = deadline.filter(|d| driver::now() < *d) else {
                return Err(self.unlinked(state.trouble.as_ref()));
            };
            state = self.wait(state, deadline);
        }
    }

    /// What is said where nobody is connected: see [`Client::is_unsent`].
    #[cold]
    fn unlinked(&self, why: Option<&Error>) -> Error {
        let e = Error::new(ErrorKind::Disconnected, "no engine is connected").at(self.path.display().to_string());
        match why {
            Some(why) => e.remedy(format!("it is tried again and again; so far: {why}")),
            None => e.remedy("it is tried again and again; start the process that has the engine"),
        }
    }

    fn wait<'a>(&'a self, mut state: MutexGuard<'a, State>, deadline: Instant) -> MutexGuard<'a, State> {
        state.waiting += 1;
        // Looks again by itself: the other side is another process.
        let soon = driver::now() + Duration::from_millis(100);
        let mut state = self.changed.wait_until(state, deadline.min(soon));
        state.waiting -= 1;
        state
    }

    /// Waits until there may be space for a record.
    #[cold]
    fn wait_for_space<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        bytes: u64,
        deadline: Option<Instant>,
    ) -> Result<MutexGuard<'a, State>> {
        state.writer.ring.want_space();
        let reserved = state.reserved;
        if state.writer.has_space(bytes, reserved) {
            return Ok(state);
        }
        let Some(deadline) = deadline.filter(|d| driver::now() < *d) else {
            return Err(full());
        };
        state.wake(true);
        Ok(self.wait(state, deadline))
    }

    /// The state, if rules may want such events; `counts` says whether one that they do not want is counted.
    #[inline]
    fn enter(
        &self,
        bucket: &str,
        event_type: EventType<'_>,
        deadline: Option<Instant>,
        counts: bool,
    ) -> Result<Option<MutexGuard<'_, State>>> {
        let mut state = self.state.lock();
        loop {
            if state.link.is_none() || self.closed.load(Ordering::Relaxed) {
                state = self.linked(state, deadline)?;
            }
            let State { link: Some(link), interests, writer, .. } = &mut *state else { continue };
            if link.status.wanted_everywhere(event_type) {
                return Ok(Some(state));
            }
            let rules = link.status.rules();
            interests.follow(rules);
            match interests.get(bucket, event_type) {
                Some(true) => return Ok(Some(state)),
                Some(false) => {
                    if counts {
                        writer.ring.count_no_match();
                    }
                    return Ok(None);
                }
                None => {
                    drop(state);
                    state = self.learn(rules, bucket, event_type, deadline)?;
                }
            }
        }
    }

    /// Asks what is of interest in a bucket.
    #[cold]
    fn learn(
        &self,
        rules: u64,
        bucket: &str,
        event_type: EventType<'_>,
        deadline: Option<Instant>,
    ) -> Result<MutexGuard<'_, State>> {
        let (mut words, mut wanted) = ([0; 2], false);
        let asked = match event_type {
            EventType::Known(_) => self.ask_here(&Request::Interests { bucket: bucket.to_owned() }).map(|w| words = w),
            EventType::Custom(name) => {
                let request = Request::Interested { bucket: bucket.to_owned(), event_type: name.to_owned() };
                self.ask_here(&request).map(|w| wanted = w)
            }
        };
        if let Err(e) = asked {
            if e.kind() != ErrorKind::Disconnected {
                return Err(e);
            }
            if deadline.is_none_or(|d| driver::now() >= d) {
                return Err(self.unlinked(Some(&e)));
            }
            std::thread::sleep(BACKOFF_MIN);
            return Ok(self.state.lock());
        }
        let mut state = self.state.lock();
        // What was learned of other rules is of no use.
        if state.interests.rules == rules {
            match event_type {
                EventType::Known(_) => drop(state.interests.known.insert(bucket.into(), words)),
                EventType::Custom(name) => {
                    state.interests.others.insert((bucket.into(), name.into()), wanted);
                }
            }
        }
        Ok(state)
    }

    /// A call from within.
    fn ask_here<T: DeserializeOwned>(&self, request: &Request) -> Result<T> {
        let idle = self.idle.lock().pop();
        let socket = match idle {
            Some(socket) => socket,
            None => {
                let welcome = self.welcome.load_full();
                let socket = hello(&self.path, Wants::Calls { session: welcome.session, secret: welcome.secret })?;
                let (answer, _): (Answer<()>, _) = wire::receive(&socket)?;
                answer.map_err(Error::from)?;
                self.keep(socket)?
            }
        };
        let (answer, _) = exchange(&socket, request, &[], None)?;
        let mut idle = self.idle.lock();
        if idle.len() < IDLE_CALLS_MAX {
            idle.push(socket);
        }
        drop(idle);
        wire::value(answer)
    }

    /// Has a connection for calls end with everything else.
    fn keep(&self, socket: UnixStream) -> Result<Arc<UnixStream>> {
        let socket = Arc::new(socket);
        let mut calls = self.calls.lock();
        calls.retain(|call| call.strong_count() > 0);
        calls.push(Arc::downgrade(&socket));
        drop(calls);
        // After it is there to be ended.
        if self.closed.load(Ordering::SeqCst) { Err(closed()) } else { Ok(socket) }
    }

    fn link_asks(&self, deadline: Option<Instant>) -> Result<bool> {
        let state = self.linked(self.state.lock(), deadline)?;
        Ok(state.link.as_ref().is_some_and(|l| l.status.asks()))
    }

    /// The time for events that have none.
    fn wall_ns(&self) -> u64 {
        self.options.clock.as_ref().map_or_else(driver::system_ns, WallClock::now_ns)
    }

    /// Publishes an event and waits for the answer whether it is accepted.
    #[cold]
    fn ask(
        &self,
        event: &Event<'_>,
        layout: Layout,
        options: &PublishOptions,
        asked: Asked,
    ) -> Result<Option<Receipt>> {
        let deadline = options.on_full.deadline();
        let time_ns = if event.time_ns == 0 { self.wall_ns() } else { event.time_ns };
        let len = Asked::BYTES + layout.len();
        let begun = driver::now();
        loop {
            let mut state = self.linked(self.state.lock(), deadline)?;
            let (reserved, needed) = (state.reserved, need(len));
            if !state.writer.has_space(needed, reserved) {
                drop(self.wait_for_space(state, needed, deadline)?);
                continue;
            }
            let (reply, answer) = oneshot::channel();
            let mut asking = self.asking.lock();
            let position = state.writer.push(Kind::Asked, options.ack, monotonic_ns(), len, |out| {
                frame::encode(event, layout, time_ns, asked.encode(out));
            });
            asking.insert(position, reply);
            drop(asking);
            state.wake(true);
            drop(state);
            let patience = options.ack_timeout.max(options.on_full.limit().unwrap_or_default()) + BACKOFF_MAX;
            let became = match driver::block_on(answer, Some(deadline_in(patience))) {
                Some(Ok(became)) => became?,
                Some(Err(_)) => return Err(closed()),
                None => {
                    self.asking.lock().remove(&position);
                    let what = "the engine's process does not say whether the event is accepted";
                    return Err(Error::new(ErrorKind::Timeout, what)
                        .remedy("publish it again with a dedup key, or wait longer"));
                }
            };
            let duplicate = matches!(became, Became::Duplicate);
            match became {
                Became::NoMatch => return Ok(None),
                Became::Accepted | Became::Duplicate => {
                    return Ok(Some(Receipt { duplicate, ..self.receipt(position, options.ack) }));
                }
                Became::Busy { error, for_ms } => {
                    let limit = match for_ms {
                        u64::MAX => options.on_full.limit().unwrap_or_default(),
                        ms => Duration::from_millis(ms),
                    };
                    let left = limit.saturating_sub(driver::since(begun));
                    if left.is_zero() {
                        return Err(error.into());
                    }
                    std::thread::sleep(BUSY_WAIT.min(left));
                }
            }
        }
    }

    /// Takes what the server says by itself.
    fn told(&self, told: Told) {
        match told {
            Told::Became { position, outcome } => {
                if let Some(reply) = self.asking.lock().remove(&position) {
                    let _ = reply.send(outcome.map_err(Error::from));
                }
            }
            Told::Failed { position, ack, error } => {
                let ack = Ack::from_number(u32::from(ack));
                self.progress.fault(ack, position - 1, position, error.into());
            }
        }
    }

    fn reached(&self, reached: Reached) {
        self.progress.advance_written(reached.written);
        self.progress.advance_synced(reached.synced);
        let state = self.state.lock();
        if state.waiting > 0 {
            self.changed.notify_all();
        }
    }

    /// The connection is gone: whoever waits for what the server had taken is told.
    fn disconnected(&self, why: Error) {
        let mut state = self.state.lock();
        state.link = None;
        let reached = state.writer.ring.reached();
        self.doubt(&reached, reached.taken, &gone());
        if reached.taken != reached.head {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        state.interests = Interests::default();
        state.trouble = Some(why);
        self.idle.lock().clear();
        drop(state);
        self.changed.notify_all();
    }

    /// Nothing more will be known of what is not acknowledged up to here.
    fn doubt(&self, reached: &Reached, through: u64, why: &Error) {
        for (ack, acked) in [(Ack::Written, reached.written), (Ack::Synced, reached.synced)] {
            if through > acked {
                self.progress.fault(ack, acked, through, why.clone());
            }
        }
        self.progress.advance_written(through);
        self.progress.advance_synced(through);
        let mut asking = self.asking.lock();
        let known: Vec<u64> = asking.keys().copied().filter(|p| *p <= through).collect();
        for reply in known.iter().filter_map(|p| asking.remove(p)) {
            let _ = reply.send(Err(why.clone()));
        }
    }

    /// Another server takes what the last one has not taken.
    fn reconnected(&self, connection: &Connection, link: Link, welcome: Welcome) -> Result<()> {
        let types = EventTypes::with_custom(&welcome.event_types)?;
        let mut state = self.state.lock();
        let head = state.writer.ring.reached().taken;
        let mut writer = Writer::new(connection.ring.clone(), head);
        if !writer.take_over(&state.writer, head) {
            // Its ring is smaller, and there is more than goes in.
            let tail = state.writer.tail();
            log::error!("what was published while no engine was connected does not fit into its ring, and is lost");
            self.lost.fetch_add(1, Ordering::Relaxed);
            self.doubt(&state.writer.ring.reached(), tail, &gone());
            return Err(Error::new(ErrorKind::Full, "the engine's ring is smaller than the last one's")
                .remedy("raise engine.shared.ring_bytes"));
        }
        state.writer = writer;
        state.link = Some(link);
        state.trouble = None;
        self.types.store(Arc::new(types));
        self.event_bytes_max.store(welcome.event_bytes_max, Ordering::Relaxed);
        self.welcome.store(Arc::new(welcome));
        self.reconnects.fetch_add(1, Ordering::Relaxed);
        state.wake(true);
        drop(state);
        self.changed.notify_all();
        Ok(())
    }

    /// Ends the connection for good.
    fn end(&self) {
        self.closed.store(true, Ordering::SeqCst);
        ring(&self.bell);
        let thread = self.thread.lock().take();
        if let Some(thread) = thread.filter(|t| t.thread().id() != std::thread::current().id()) {
            let _ = thread.join();
        }
        let mut state = self.state.lock();
        state.link = None;
        let reached = state.writer.ring.reached();
        let tail = state.writer.tail();
        drop(state);
        let closed = Error::new(ErrorKind::Closed, "the client was closed before the event reached its level");
        self.doubt(&reached, tail, &closed);
        self.presence.lock().take().into_iter().for_each(Presence::end);
        self.idle.lock().clear();
        // Who waits for an answer is told.
        for call in self.calls.lock().drain(..).filter_map(|call| call.upgrade()) {
            let _ = call.shutdown(std::net::Shutdown::Both);
        }
        self.changed.notify_all();
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if self.check_process().is_err() {
            // The thread and the memory are the parent's; this process does not have them.
            std::mem::forget(self.thread.get_mut().take());
            let state = self.state.get_mut();
            std::mem::forget(state.link.take());
            std::mem::forget(state.writer.ring.clone());
            std::mem::forget(self.own.get_mut().take());
            return;
        }
        self.end();
    }
}

/// What becomes a reservation: its space, the event as declared, and how large it may get.
type Kept = (Promise, Box<[u8]>, usize);

/// Space in the ring to an engine in another process, kept for a commit.
#[derive(Debug)]
pub(crate) struct Promise {
    client: Client,
    /// What of the ring is kept; nothing once it was used or given back.
    bytes: AtomicU64,
    token: Option<EventId>,
}

impl Drop for Promise {
    fn drop(&mut self) {
        if *self.bytes.get_mut() > 0 && self.check_process().is_ok() {
            self.release(&mut self.client.inner.state.lock());
        }
    }
}

impl Promise {
    pub(crate) fn check_process(&self) -> Result<()> {
        self.client.check_process()
    }

    pub(crate) fn token(&self) -> Option<EventId> {
        self.token
    }

    pub(crate) fn wall_ns(&self) -> u64 {
        self.client.inner.wall_ns()
    }

    pub(crate) fn event_bytes_max(&self) -> usize {
        self.client.inner.event_bytes_max.load(Ordering::Relaxed)
    }

    pub(crate) fn receipt(&self, position: u64, ack: Ack) -> Receipt {
        self.client.inner.receipt(position, ack)
    }

    /// Also while nobody is connected: it is told to whoever is next.
    pub(crate) fn commit(&self, event: &Event<'_>, layout: Layout, time_ns: u64, ack: Ack) -> Result<u64> {
        let (kind, prefix) = match self.token {
            Some(_) => (Kind::Commit, wire::TOKEN_BYTES),
            None => (Kind::Event, 0),
        };
        self.push(kind, ack, prefix + layout.len(), |out| {
            let out = match self.token {
                Some(token) => wire::encode_token(token, out),
                None => out,
            };
            frame::encode(event, layout, time_ns, out);
        })
    }

    pub(crate) fn abort(&self) -> Result<()> {
        match self.token {
            None => {
                self.release(&mut self.client.inner.state.lock());
                Ok(())
            }
            Some(token) => {
                let fill = |out: &mut [u8]| {
                    wire::encode_token(token, out);
                };
                self.push(Kind::Abort, Ack::Memory, wire::TOKEN_BYTES, fill).map(|_| ())
            }
        }
    }

    fn push(&self, kind: Kind, ack: Ack, len: usize, fill: impl FnOnce(&mut [u8])) -> Result<u64> {
        let inner = &*self.client.inner;
        let mut state = inner.state.lock();
        if inner.closed.load(Ordering::SeqCst) {
            return Err(Error::new(ErrorKind::Closed, "the client is closed"));
        }
        if !state.writer.has_space(need(len), 0) {
            return Err(Error::new(ErrorKind::Internal, "reserved space was taken"));
        }
        let position = state.writer.push(kind, ack, monotonic_ns(), len, fill);
        state.wake(ack > Ack::Memory);
        self.release(&mut state);
        Ok(position)
    }

    fn release(&self, state: &mut State) {
        state.reserved = state.reserved.saturating_sub(self.bytes.swap(0, Ordering::Relaxed));
        if state.waiting > 0 {
            self.client.inner.changed.notify_all();
        }
    }
}

#[cold]
fn full() -> Error {
    Error::new(ErrorKind::Full, "the ring to the engine's process is full")
        .remedy("publish more slowly, wait longer, or raise engine.shared.ring_bytes")
}

/// What becomes of events that a server had taken when it ended.
#[cold]
fn gone() -> Error {
    let what = "the process that had the engine has ended, or has ended the connection";
    Error::new(ErrorKind::Disconnected, what)
        .remedy("the event may have been accepted or not: publish it again if it may be told twice")
}

/// Connects and says what for.
fn hello(path: &Path, wants: Wants) -> Result<UnixStream> {
    let socket = UnixStream::connect(path).map_err(|e| match e.kind() {
        io::ErrorKind::PermissionDenied => Error::new(ErrorKind::InvalidArgument, format!("{}: {e}", path.display()))
            .remedy("let this user write to the socket (engine.shared.mode), or run as another one"),
        _ => Error::new(ErrorKind::Disconnected, format!("nobody listens at {}: {e}", path.display()))
            .remedy("start the process that has the engine, with this path as engine.shared.socket"),
    })?;
    let _ = socket.set_read_timeout(Some(HELLO_WAIT));
    match wire::send(&socket, &Hello::new(wants), &[]) {
        Ok(()) => Ok(socket),
        // Who is not let in is told why at once, and may find that the other side has gone before he says anything.
        Err(e) => match wire::receive::<Answer<Value>>(&socket) {
            Ok((Err(why), _)) => Err(why.into()),
            _ => Err(e),
        },
    }
}

type Connected = (Connection, Link, Welcome, Presence);

/// Connects a session whose ring begins at a position.
fn connect(path: &Path, position: u64) -> Result<Connected> {
    let socket = hello(path, Wants::Session { position })?;
    let (answer, _): (Answer<Welcome>, _) = wire::receive(&socket)?;
    let welcome = answer.map_err(Error::from)?;
    let [presence, ring_fd, status_fd, bell, client_bell] = wire::receive_descriptors(&socket)?;
    let presence = Presence::of(presence, welcome.presence);
    let _ = socket.set_read_timeout(None);
    let cannot = |e: io::Error| Error::io("cannot map the ring to the engine's process", &e);
    let capacity = welcome.ring_bytes;
    if !capacity.is_power_of_two()
        || !(memory::PAGE_BYTES..=1 << 30).contains(&capacity)
        || !memory::is_fixed(ring_fd.as_fd(), file_bytes(capacity))
    {
        return Err(cannot(io::Error::other("it has another size than it says")));
    }
    let ring = Arc::new(Ring::map(ring_fd.as_fd(), capacity).map_err(cannot)?);
    let status = Arc::new(Status::map(status_fd.as_fd()).map_err(cannot)?);
    let link = Link { status, bell: Arc::new(bell) };
    Ok((Connection { socket, client_bell, ring, inbox: Inbox::default() }, link, welcome, presence))
}

/// Connects; if nobody listens and there is a configuration, opens the engine and connects to that.
fn reach(path: &Path, position: u64, config: Option<&Config>, own: &mut Option<Engine>) -> Result<Connected> {
    let failed = match connect(path, position) {
        Err(e) if e.kind() == ErrorKind::Disconnected => e,
        connected => return connected,
    };
    let Some(config) = config else { return Err(failed) };
    match Engine::open(config.clone()) {
        Ok(engine) => {
            *own = Some(engine);
            connect(path, position)
        }
        // Somebody else has it, and will listen in a moment.
        Err(e) if e.kind() == ErrorKind::Locked => Err(failed.remedy(e.to_string())),
        Err(e) => Err(e),
    }
}

/// The thread of a client: hears what the server says, and connects again.
fn attend(client: &Weak<Inner>, bell: &OwnedFd, first: Connection) {
    let mut connection = Some(first);
    let mut backoff = BACKOFF_MIN;
    loop {
        let Some(c) = &mut connection else {
            wait_for(&[bell.as_raw_fd()], Some(backoff));
            backoff = (backoff * 2).min(BACKOFF_MAX);
            let Some(inner) = client.upgrade() else { return };
            if inner.closed.load(Ordering::SeqCst) {
                return;
            }
            let position = inner.state.lock().writer.ring.reached().taken;
            let mut own = None;
            let reached = reach(&inner.path, position, inner.config.as_ref(), &mut own);
            if let Some(engine) = own {
                log::info!("this process has the engine of {} now", inner.path.display());
                *inner.own.lock() = Some(engine);
            }
            let done = reached.and_then(|(c, link, welcome, presence)| {
                let done = inner.reconnected(&c, link, welcome).map(|()| c);
                // What the last engine has not taken is in the new ring now, or lost: this one need not wait for it any more.
                inner.presence.lock().replace(presence).into_iter().for_each(Presence::end);
                done
            });
            match done {
                Ok(c) => {
                    connection = Some(c);
                    backoff = BACKOFF_MIN;
                }
                Err(e) => inner.state.lock().trouble = Some(e),
            }
            continue;
        };
        wait_for(&[c.socket.as_raw_fd(), c.client_bell.as_raw_fd(), bell.as_raw_fd()], None);
        let Some(inner) = client.upgrade() else { return };
        if inner.closed.load(Ordering::SeqCst) {
            return;
        }
        silence(&c.client_bell);
        // Before the socket: what is said there of an event is said before its level is told here.
        let reached = c.ring.reached();
        let mut end = (!c.inbox.fill(&c.socket)).then(|| wire::lost(&io::ErrorKind::UnexpectedEof.into()));
        while end.is_none() {
            match c.inbox.next() {
                Ok(Some(told)) => inner.told(told),
                Ok(None) => break,
                Err(e) => end = Some(e),
            }
        }
        inner.reached(reached);
        if let Some(why) = end {
            connection = None;
            inner.disconnected(why);
        }
    }
}

/// Whether one of them is readable within the limit.
fn wait_for(fds: &[i32], limit: Option<Duration>) -> bool {
    let entry = |fd: &i32| libc::pollfd { fd: *fd, events: libc::POLLIN, revents: 0 };
    let mut polls: Vec<libc::pollfd> = fds.iter().map(entry).collect();
    let ms = limit.map_or(-1, |l| l.as_millis() as libc::c_int);
    // SAFETY: valid entries. Whatever the answer is, everything is looked at.
    unsafe { libc::poll(polls.as_mut_ptr(), polls.len() as libc::nfds_t, ms) > 0 }
}
