//! Reservations: an event is held before the host's operation and told if, and only if, the operation came to be.
//!
//! [`Engine::reserve`] does everything that may fail: it checks, matches, and keeps space in the ring, so that the commit
//! after the operation cannot be refused. With [`Intent::Durable`] the log knows of the reservation too: if the process
//! dies between the operation and the commit, the next opening asks the host what became of it ([`Engine::in_doubt`]).
//!
//! Events of one resource key are delivered in the order of the commits, whatever the order of the reservations; a
//! resolution after a crash counts when it is made. A reservation has no time limit.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::batch::Receipts;
use super::{Engine, Inner, OnFull, closed, deadline_in, full, refused};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, EventId, EventType, FrameView, Layout, frame, resource_hash};
use crate::lock::Mutex;
use crate::log::Ack;
use crate::log::record::{Extensions, Kind, Origin};
use crate::log::recovery;
use crate::shard::message::{Prefix, Tag};
use crate::shard::progress::Receipt;
use crate::shard::ring::{PushError, ReserveError, Ring};
use crate::shard::snapshot::{Known, Scratch, Snapshot};
use crate::shard::{InDoubtIntent, Resolved, Shared};
use crate::shared::Promise;

/// Bytes that a reservation has for what is known only after the operation (etag, version, size), unless it says more.
const ROOM_BYTES: usize = 512;

/// What of a reservation survives a crash.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Intent {
    /// Nothing: a crash between operation and commit loses the event. Costs no I/O.
    #[default]
    None,
    /// It is in the log and synced before [`Engine::reserve`] returns.
    Durable,
}

/// How long a commit waits for what other processes have published before it.
const CLIENTS_WAIT: Duration = Duration::from_secs(30);

/// How an event is reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReserveOptions {
    /// The most bytes that the event will have encoded, up to `engine.event_bytes_max`; `None` is what the event given
    /// has and 512 bytes more.
    pub bytes_max: Option<usize>,
    /// What of it survives a crash.
    pub intent: Intent,
    /// What happens when there is no space, or too much of it is reserved.
    pub on_full: OnFull,
    /// How long the call waits for a durable intent to be synced.
    pub ack_timeout: Duration,
}

impl Default for ReserveOptions {
    /// Without an intent, answering at once. (30 s for the sync of an intent.)
    fn default() -> Self {
        ReserveOptions {
            bytes_max: None,
            intent: Intent::None,
            on_full: OnFull::Refuse,
            ack_timeout: Duration::from_secs(30),
        }
    }
}

/// The answer of [`Engine::reserve`].
#[derive(Debug)]
pub enum Reserved {
    /// There is space for the event: commit or abort it.
    Held(Reservation),
    /// No rule wants such an event: nothing is held, and there is nothing to commit.
    NoMatch,
    /// Too much is reserved now (`engine.reserve_percent`). Nothing is held; try again when others have committed.
    WouldBlock,
}

/// The answer of [`Engine::reserve_batch`].
#[derive(Debug)]
pub enum ReservedBatch {
    /// There is space for every event that a rule wants.
    Held(BatchReservation),
    /// Too much is reserved now (`engine.reserve_percent`). Nothing is held; try again when others have committed.
    WouldBlock,
}

/// What is known of an event only after the operation. Fields left empty stay as they were declared.
#[derive(Clone, Copy, Debug, Default)]
pub struct CommitFields<'a> {
    /// When it happened, in nanoseconds since the Unix epoch; 0 is the time that was declared, or now if none was.
    pub time_ns: u64,
    /// The object's size in bytes.
    pub size: Option<u64>,
    /// The entity tag, without quotes.
    pub etag: &'a str,
    /// The object's version.
    pub version_id: &'a str,
    /// The object's content type.
    pub content_type: &'a str,
    /// User metadata.
    pub metadata: &'a [(&'a str, &'a str)],
    /// Object tags.
    pub tags: &'a [(&'a str, &'a str)],
    /// Data of the host or of the event type's schema: a JSON document.
    pub data: &'a [u8],
}

/// How safe a committed event is before the call returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommitOptions {
    /// The level.
    pub ack: Ack,
    /// How long the call waits for it; then it answers [`ErrorKind::Timeout`] though the event stays committed.
    pub ack_timeout: Duration,
}

impl Default for CommitOptions {
    /// Durable, waiting for the disk up to 30 s.
    fn default() -> Self {
        CommitOptions { ack: Ack::Synced, ack_timeout: Duration::from_secs(30) }
    }
}

/// What a host says of an event in doubt.
#[derive(Clone, Copy, Debug)]
pub enum Resolution<'a> {
    /// The operation came to be; this is its event, of the bucket, key and type that were declared.
    Commit(&'a Event<'a>),
    /// It did not.
    Abort,
}

/// A reservation of an earlier run with neither commit nor abort in the log.
#[derive(Clone, Debug)]
pub struct InDoubt {
    /// As [`Reservation::token`] was.
    pub token: EventId,
    /// When it was made, in nanoseconds since the Unix epoch.
    pub reserved_ns: u64,
    frame: Vec<u8>,
}

impl InDoubt {
    /// As another process told it.
    pub(crate) fn of_parts(token: EventId, reserved_ns: u64, frame: Vec<u8>) -> InDoubt {
        InDoubt { token, reserved_ns, frame }
    }

    /// The event as it was declared.
    pub fn event(&self) -> FrameView<'_> {
        FrameView::trusted(&self.frame)
    }
}

/// Space for one event, and the promise that its commit is not refused for want of it.
///
/// May be used from any thread. It keeps the engine open as an [`Engine`] does. Dropping it while it is neither committed
/// nor aborted aborts it.
#[derive(Debug)]
pub struct Reservation {
    keeper: Keeper,
    /// The event as declared.
    frame: Box<[u8]>,
    /// It was declared with a time.
    timed: bool,
    bytes_max: usize,
    state: Mutex<State>,
}

/// Where the space is kept.
#[derive(Debug)]
enum Keeper {
    Engine(Space),
    /// In the ring to an engine in another process.
    Client(Promise),
}

/// Space in the ring of a shard.
#[derive(Debug)]
struct Space {
    engine: Engine,
    shard: Arc<Shared>,
    /// The payload for which the ring keeps space.
    payload: usize,
    intent: IntentName,
}

/// What the shard knows a reservation by.
#[derive(Clone, Copy, Debug)]
enum IntentName {
    /// Nothing: there is no intent.
    None,
    /// Until it is known to be in the log.
    Ticket(u64),
    Token(EventId),
}

#[derive(Clone, Copy, Debug)]
enum State {
    Open,
    /// With the ring position after the event, and the level that was asked for.
    Committed(u64, Ack),
    Aborted,
}

impl Engine {
    /// Keeps space for an event that an operation will lead to, of which `event` says what is known before: at least its
    /// type, bucket and key.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidEvent`], [`ErrorKind::InvalidArgument`] for a `bytes_max` out of range, [`ErrorKind::Full`],
    /// [`ErrorKind::Closed`], [`ErrorKind::WrongProcess`]; with a durable intent also [`ErrorKind::Timeout`] and
    /// [`ErrorKind::LogFailed`]. Nothing is held then.
    pub fn reserve(&self, event: &Event<'_>, options: &ReserveOptions) -> Result<Reserved> {
        Ok(match self.reserve_all(std::slice::from_ref(event), options)? {
            None => Reserved::WouldBlock,
            Some(mut items) => items.pop().flatten().map_or(Reserved::NoMatch, Reserved::Held),
        })
    }

    /// As [`Engine::reserve`] for several events, of all of which there is space or of none. Each is committed or aborted
    /// by itself, or all with one call. Durable intents of one batch are synced together.
    ///
    /// # Errors
    /// As [`Engine::reserve`].
    pub fn reserve_batch(&self, events: &[Event<'_>], options: &ReserveOptions) -> Result<ReservedBatch> {
        let items = self.reserve_all(events, options)?;
        Ok(items.map_or(ReservedBatch::WouldBlock, |items| ReservedBatch::Held(BatchReservation { items })))
    }

    /// The reservations with durable intents that earlier runs, or other processes that are gone ([`crate::shared`]), left
    /// without an end, in the order in which each shard made
    /// them. The host says of each what became of the operation ([`Engine::resolve`]); until then they are kept, and their
    /// part of the log with them.
    ///
    /// # Errors
    /// [`ErrorKind::WrongProcess`].
    pub fn in_doubt(&self) -> Result<Vec<InDoubt>> {
        self.inner.check_process()?;
        let mut all = Vec::new();
        for shard in &self.inner.shards {
            let intents = shard.in_doubt.lock();
            all.extend(intents.values().filter(|i| i.resolved.is_none()).map(|i| InDoubt {
                token: EventId {
                    incarnation: i.intent.incarnation,
                    shard: shard.index as u16,
                    sequence: i.intent.sequence,
                },
                reserved_ns: i.intent.accepted_ns,
                frame: i.intent.frame.clone(),
            }));
        }
        Ok(all)
    }

    /// Says what became of an operation that a crash left in doubt, and waits until that is durable. The event of a commit
    /// has the id of the token; it comes after the events of its key that were accepted before this call. To say the same
    /// again changes nothing.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if nothing of this token is in doubt, [`ErrorKind::InvalidArgument`] if the opposite was
    /// said before, [`ErrorKind::InvalidEvent`] if it is another event than was declared; and as
    /// [`Engine::publish_with`], with its default options.
    pub fn resolve(&self, token: EventId, resolution: Resolution<'_>) -> Result<()> {
        self.inner.check_process()?;
        self.inner.after_clients(super::PublishOptions::default().on_full)?;
        self.inner.resolve_now(token, resolution)
    }

    /// Holds all of these or none (`None`: too much is reserved). What no rule wants has no reservation.
    fn reserve_all(&self, events: &[Event<'_>], options: &ReserveOptions) -> Result<Option<Vec<Option<Reservation>>>> {
        let inner = &*self.inner;
        inner.check_process()?;
        // Whatever says no says it now: a commit is not refused.
        for event in events {
            inner.wait_for_turn(event, Known::Before, options.on_full)?;
        }
        let deadline = options.on_full.deadline();
        let mut items = 'again: loop {
            let mut items = Vec::with_capacity(events.len());
            for event in events {
                match self.hold(event, options)? {
                    Ok(item) => items.push(item),
                    Err((shard, why)) => {
                        // What is held would stand in the way of others who wait.
                        drop(items);
                        let ring = &shard.ring;
                        match why {
                            ReserveError::Closed => return Err(refused(&shard)),
                            ReserveError::Full => {
                                if deadline.is_none_or(|d| !ring.wait_for_space(Some(d))) {
                                    count_refused(&shard, options.on_full);
                                    return Err(full(&shard));
                                }
                            }
                            ReserveError::TooMuch => {
                                if deadline.is_none_or(|d| !ring.wait_for_release(Some(d))) {
                                    count_refused(&shard, options.on_full);
                                    return Ok(None);
                                }
                            }
                        }
                        continue 'again;
                    }
                }
            }
            break items;
        };
        if items.iter().any(Option::is_none) && inner.closed.load(Ordering::Relaxed) {
            return Err(closed());
        }
        items.iter().filter(|i| i.is_none()).for_each(|_| inner.no_match.add());
        if options.intent == Intent::Durable {
            self.write_intents(&mut items, options)?;
        }
        Ok(Some(items))
    }

    /// Checks and matches one event and keeps space for it, without waiting. Nothing if no rule wants it.
    #[allow(clippy::type_complexity)]
    fn hold(
        &self,
        event: &Event<'_>,
        options: &ReserveOptions,
    ) -> Result<Result<Option<Reservation>, (Arc<Shared>, ReserveError)>> {
        let inner = &*self.inner;
        let snapshot = inner.snapshot.load();
        let layout = event.check_seldom(inner.config.event_bytes_max).inspect_err(|_| {
            inner.refused_invalid.fetch_add(1, Ordering::Relaxed);
        })?;
        if let EventType::Custom(_) = event.event_type {
            snapshot.types.check(event.event_type)?;
        }
        if !wanted(&snapshot, event) {
            return Ok(Ok(None));
        }
        let limit = inner.config.event_bytes_max;
        let bytes_max = bytes_max_of(options, layout.len(), limit)?;
        let hash = resource_hash(event.bucket.as_bytes(), event.key);
        let shard = inner.shard_of(hash);
        // The commit of an intent says which one it ends.
        let prefix = match options.intent {
            Intent::None => 0,
            Intent::Durable => {
                commit_prefix(EventId { incarnation: u64::MAX, shard: u16::MAX, sequence: u64::MAX }).encoded_len()
            }
        };
        let payload = prefix + bytes_max;
        let share = shard.ring.capacity() / 100 * inner.config.reserve_percent as u64;
        if Ring::reservation_bytes(payload) > share {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                format!(
                    "bytes_max is {bytes_max}, and of a ring only {share} bytes may be reserved, for twice as much"
                ),
            )
            .at("bytes_max")
            .remedy("choose less, or raise engine.ring_bytes or engine.reserve_percent"));
        }
        if let Err(e) = shard.ring.reserve(payload, share) {
            return Ok(Err((shard.clone(), e)));
        }
        shard.stats.reservations.add_shared(1);
        let mut bytes = vec![0; layout.len()].into_boxed_slice();
        frame::encode(event, layout, inner.wall_ns(), &mut bytes);
        let space = Space { engine: self.clone(), shard: shard.clone(), payload, intent: IntentName::None };
        Ok(Ok(Some(Reservation {
            keeper: Keeper::Engine(space),
            frame: bytes,
            timed: event.time_ns != 0,
            bytes_max,
            state: Mutex::new(State::Open),
        })))
    }

    /// Writes the intents of reservations and waits until they are synced. If that fails, the reservations are dropped by
    /// the caller, which aborts them.
    fn write_intents(&self, items: &mut [Option<Reservation>], options: &ReserveOptions) -> Result<()> {
        let inner = &*self.inner;
        let mut receipts: Vec<Receipt> = Vec::new();
        fn of_engine(item: &mut Reservation) -> Option<(&mut Space, &[u8])> {
            match &mut item.keeper {
                Keeper::Engine(space) => Some((space, &item.frame)),
                Keeper::Client(_) => None,
            }
        }
        for (space, frame) in items.iter_mut().flatten().filter_map(of_engine) {
            let ticket = inner.next_ticket.fetch_add(1, Ordering::Relaxed);
            let prefix = Prefix { ticket: Some(ticket), ..Prefix::new(Kind::Intent) };
            let shard = &space.shard;
            let push = || {
                let tag = Tag::prefixed(Ack::Synced).number();
                shard.ring.push_with(prefix.encoded_len() + frame.len(), tag, |out| {
                    prefix.encode(out).copy_from_slice(frame);
                })
            };
            let position = push().or_else(|e| inner.push_slowly(shard, options.on_full, e, push))?;
            shard.ring.notify(true);
            let receipt = Receipt::new(shard.clone(), position);
            match receipts.iter_mut().find(|r| r.way.is(&receipt.way)) {
                Some(earlier) => *earlier = receipt,
                None => receipts.push(receipt),
            }
            space.intent = IntentName::Ticket(ticket);
        }
        let deadline = deadline_in(options.ack_timeout);
        for receipt in receipts {
            receipt.wait(Ack::Synced, Some(deadline))?;
        }
        for (space, _) in items.iter_mut().flatten().filter_map(of_engine) {
            let IntentName::Ticket(ticket) = space.intent else { continue };
            let Some(sequence) = space.shard.tickets.lock().remove(&ticket) else {
                return Err(Error::new(ErrorKind::Internal, "an intent was synced and got no sequence"));
            };
            let shard = space.shard.index as u16;
            space.intent = IntentName::Token(EventId { incarnation: inner.incarnation, shard, sequence });
        }
        Ok(())
    }
}

impl Inner {
    /// See [`Engine::resolve`]. It does not look after what other processes have published: for them it is called, too.
    pub(crate) fn resolve_now(&self, token: EventId, resolution: Resolution<'_>) -> Result<()> {
        let inner = self;
        let unknown = || {
            Error::new(ErrorKind::NotFound, format!("no reservation {token} is in doubt"))
                .remedy("see the list of those that are; what was resolved in an earlier run is not in it")
        };
        let options = super::PublishOptions::default();
        let deadline = options.on_full.deadline();
        let shard_at = |index: usize| inner.shards.iter().find(|s| s.index == index).ok_or_else(unknown);
        let shard = shard_at(usize::from(token.shard))?;
        let mut prefix = Prefix::new(Kind::Abort);
        prefix.extensions.resolves = Some(token.sequence);
        let resolved = loop {
            let mut intents = shard.in_doubt.lock();
            let known = intents.get_mut(&token.sequence).filter(|i| i.intent.incarnation == token.incarnation);
            let entry = known.ok_or_else(unknown)?;
            let commits = matches!(resolution, Resolution::Commit(_));
            if let Some(resolved) = &entry.resolved {
                if resolved.committed != commits {
                    let was = if resolved.committed { "committed" } else { "aborted" };
                    return Err(Error::new(ErrorKind::InvalidArgument, format!("{token} was {was} before")));
                }
                break resolved.clone();
            }
            let mut target = shard;
            let pushed = match resolution {
                Resolution::Commit(event) => {
                    let limit = inner.config.event_bytes_max;
                    let layout = check_final(event, &entry.intent.frame, limit, limit)?;
                    let mut prefix = commit_prefix(token);
                    target = inner.shard_of_event(event);
                    if !Arc::ptr_eq(target, shard) {
                        // The key has another shard by now, which does not know the intent.
                        prefix.extensions.resolves = None;
                    }
                    let time_ns = if event.time_ns == 0 { inner.wall_ns() } else { event.time_ns };
                    let tag = Tag::prefixed(Ack::Synced).number();
                    inner.bring(target, event.bucket, layout.len());
                    let pushed = target.ring.push_with(prefix.encoded_len() + layout.len(), tag, |out| {
                        frame::encode(event, layout, time_ns, prefix.encode(out));
                    });
                    pushed.inspect_err(|_| inner.take_back(target, event.bucket, layout.len()))
                }
                Resolution::Abort => push_prefix(&prefix, |len, tag, fill| shard.ring.push_with(len, tag, fill)),
            };
            match pushed {
                Ok(position) => {
                    let resolved = Resolved { committed: commits, shard: target.index, position };
                    entry.resolved = Some(resolved.clone());
                    entry.intent.frame = Vec::new();
                    break resolved;
                }
                Err(PushError::Closed) => return Err(refused(target)),
                Err(PushError::Full) => {
                    drop(intents);
                    if deadline.is_none_or(|d| !target.ring.wait_for_space(Some(d))) {
                        return Err(full(target));
                    }
                }
            }
        };
        let durable = |shard: &Arc<Shared>, position| {
            shard.ring.notify(true);
            let receipt = Receipt::new(shard.clone(), position);
            receipt.wait(Ack::Synced, Some(deadline_in(options.ack_timeout)))
        };
        durable(shard_at(resolved.shard)?, resolved.position)?;
        if resolved.shard == shard.index {
            return Ok(());
        }
        // Only now may the intent end. If a crash comes between, it is in doubt once more, and the event may be repeated.
        let push = || push_prefix(&prefix, |len, tag, fill| shard.ring.push_with(len, tag, fill));
        let position = push().or_else(|e| inner.push_slowly(shard, options.on_full, e, push))?;
        durable(shard, position)
    }
}

/// Whether the rules send such an event anywhere, as far as that can be known from its type, bucket and key.
fn wanted(snapshot: &Snapshot, event: &Event<'_>) -> bool {
    if !snapshot.interested(event.bucket, event.event_type) {
        return false;
    }
    let mut routes = Vec::new();
    snapshot.routes_of(event, Known::Before, &mut Scratch::default(), &mut routes);
    !routes.is_empty()
}

fn count_refused(shard: &Shared, on_full: OnFull) {
    if !matches!(on_full, OnFull::Retry(_)) {
        shard.stats.refused_full.add_shared(1);
    }
}

/// What precedes the event that ends an intent. The event has the intent's place as its id, so that it has the same one
/// again if power is lost before the commit is durable and the host commits once more.
fn commit_prefix(token: EventId) -> Prefix {
    let EventId { incarnation, shard, sequence } = token;
    let origin = Origin { incarnation, shard, sequence, clock_ns: 0, tie: 0 };
    let extensions = Extensions { resolves: Some(sequence), origin: Some(origin), ..Extensions::default() };
    Prefix { extensions, ..Prefix::new(Kind::Event) }
}

/// Pushes a record that has nothing but a prefix.
fn push_prefix(
    prefix: &Prefix,
    push: impl FnOnce(usize, u32, &mut dyn FnMut(&mut [u8])) -> Result<u64, PushError>,
) -> Result<u64, PushError> {
    push(prefix.encoded_len(), Tag::prefixed(Ack::Memory).number(), &mut |out| {
        prefix.encode(out);
    })
}

/// The most bytes that an event of which so many are known may have in the end.
pub(crate) fn bytes_max_of(options: &ReserveOptions, len: usize, limit: usize) -> Result<usize> {
    let bytes_max = options.bytes_max.unwrap_or(limit.min(len + ROOM_BYTES));
    if !(len..=limit).contains(&bytes_max) {
        return Err(Error::new(ErrorKind::InvalidArgument, format!("bytes_max is {bytes_max}"))
            .at("bytes_max")
            .remedy(format!("choose from {len} (the event as it is) to {limit}")));
    }
    Ok(bytes_max)
}

/// Checks an event that comes after its reservation. `limit` is what no event may be larger than, `bytes_max` what was
/// reserved.
fn check_final(event: &Event<'_>, declared: &[u8], limit: usize, bytes_max: usize) -> Result<Layout> {
    let declared = FrameView::trusted(declared);
    let layout = event.check_seldom(limit)?;
    let other = |field: &str| {
        Err(Error::invalid_event(format!("the {field} is another than the reservation's"))
            .at(field)
            .remedy("reserve for the resource and the type that the event will be of"))
    };
    if declared.bucket() != event.bucket {
        return other("bucket");
    }
    if declared.key() != event.key {
        return other("key");
    }
    if declared.event_type() != event.event_type {
        return other("event_type");
    }
    if layout.len() > bytes_max {
        return Err(Error::invalid_event(format!(
            "the event takes {} bytes encoded, and {bytes_max} were reserved",
            layout.len()
        ))
        .remedy("shorten metadata, tags or data, or reserve with a larger bytes_max"));
    }
    Ok(layout)
}

impl Space {
    fn commit(&self, event: &Event<'_>, layout: Layout, time_ns: u64, ack: Ack) -> Result<u64> {
        let inner = &*self.engine.inner;
        let ring = &self.shard.ring;
        inner.bring(&self.shard, event.bucket, layout.len());
        let pushed = match self.intent {
            IntentName::Token(token) => {
                let prefix = commit_prefix(token);
                let tag = Tag::prefixed(ack).number();
                ring.push_reserved(prefix.encoded_len() + layout.len(), tag, |out| {
                    frame::encode(event, layout, time_ns, prefix.encode(out));
                })
            }
            IntentName::None | IntentName::Ticket(_) => {
                ring.push_reserved(layout.len(), Tag::plain(ack).number(), |out| {
                    frame::encode(event, layout, time_ns, out);
                })
            }
        };
        pushed.map_err(|e| {
            inner.take_back(&self.shard, event.bucket, layout.len());
            match e {
                PushError::Closed => refused(&self.shard),
                PushError::Full => Error::new(ErrorKind::Internal, "reserved space was taken"),
            }
        })
    }

    fn abort(&self) -> Result<()> {
        let mut prefix = Prefix::new(Kind::Abort);
        let pushed = match self.intent {
            IntentName::None => Ok(0),
            IntentName::Ticket(ticket) => {
                prefix.ticket = Some(ticket);
                push_prefix(&prefix, |len, tag, fill| self.shard.ring.push_reserved(len, tag, fill))
            }
            IntentName::Token(token) => {
                prefix.extensions.resolves = Some(token.sequence);
                push_prefix(&prefix, |len, tag, fill| self.shard.ring.push_reserved(len, tag, fill))
            }
        };
        self.release();
        if matches!(pushed, Ok(position) if position > 0) {
            self.shard.ring.notify(false);
        }
        pushed.map(drop).map_err(|_| refused(&self.shard))
    }

    fn release(&self) {
        self.shard.ring.release(self.payload);
        self.shard.stats.reservations.sub_shared(1);
    }
}

impl Reservation {
    /// One that a client keeps the space for.
    pub(crate) fn of_client(promise: Promise, frame: Box<[u8]>, timed: bool, bytes_max: usize) -> Reservation {
        Reservation { keeper: Keeper::Client(promise), frame, timed, bytes_max, state: Mutex::new(State::Open) }
    }

    fn check_process(&self) -> Result<()> {
        match &self.keeper {
            Keeper::Engine(space) => space.engine.check_process(),
            Keeper::Client(promise) => promise.check_process(),
        }
    }

    /// Nobody is left who could commit or abort it. A durable intent is in doubt from now on; another is aborted.
    pub(crate) fn abandon(self) {
        let (Keeper::Engine(space), State::Open) = (&self.keeper, *self.state.lock()) else { return };
        let IntentName::Token(token) = space.intent else { return };
        let frame = FrameView::trusted(&self.frame);
        let intent = recovery::Intent {
            sequence: token.sequence,
            incarnation: token.incarnation,
            accepted_ns: frame.time_ns(),
            frame: self.frame.to_vec(),
        };
        let entry = InDoubtIntent { intent, resolved: None };
        space.shard.in_doubt.lock().insert(token.sequence, entry);
        *self.state.lock() = State::Aborted;
        space.release();
    }

    /// By what a journal of the host can name it: the id that the event has once it is committed. Only with
    /// [`Intent::Durable`].
    pub fn token(&self) -> Option<EventId> {
        match &self.keeper {
            Keeper::Engine(Space { intent: IntentName::Token(token), .. }) => Some(*token),
            Keeper::Engine(_) => None,
            Keeper::Client(promise) => promise.token(),
        }
    }

    /// The most bytes that the event may have encoded.
    pub fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    /// Whether it is neither committed nor aborted.
    pub fn is_open(&self) -> bool {
        matches!(*self.state.lock(), State::Open)
    }

    /// The operation came to be: its event is accepted, as it was declared but for `fields`. After the first time this
    /// changes nothing.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidEvent`] if the event is not valid or larger than was reserved: the reservation stays open.
    /// [`ErrorKind::InvalidArgument`] if it was aborted. [`ErrorKind::Closed`] or [`ErrorKind::LogFailed`] if the engine
    /// has closed or a disk has failed meanwhile: the event is not accepted, and a durable intent is in doubt at the next
    /// opening. [`ErrorKind::Timeout`]: the event is accepted, but has not reached the ack level.
    /// [`ErrorKind::WrongProcess`].
    pub fn commit(&self, fields: &CommitFields<'_>, options: &CommitOptions) -> Result<()> {
        wait(self.submit(fields, options.ack)?, options)
    }

    /// As [`Reservation::commit`], with the whole event; its bucket, key and type are those of the reservation.
    ///
    /// # Errors
    /// As [`Reservation::commit`], and [`ErrorKind::InvalidEvent`] for another bucket, key or type.
    pub fn commit_event(&self, event: &Event<'_>, options: &CommitOptions) -> Result<()> {
        wait(self.submit_event(event, options.ack)?, options)
    }

    /// As [`Reservation::commit`], without waiting for `ack`.
    ///
    /// # Errors
    /// As [`Reservation::commit`], but for those about the ack level.
    pub fn submit(&self, fields: &CommitFields<'_>, ack: Ack) -> Result<Receipt> {
        let declared = FrameView::trusted(&self.frame);
        let (metadata, tags): (Vec<_>, Vec<_>) = (declared.metadata().collect(), declared.tags().collect());
        let or = |new, field| if str::is_empty(new) { declared.text(field) } else { new };
        let event = Event {
            time_ns: match fields.time_ns {
                0 if self.timed => declared.time_ns(),
                given => given,
            },
            version_id: or(fields.version_id, frame::Field::VersionId),
            size: fields.size.or(declared.size()),
            etag: or(fields.etag, frame::Field::Etag),
            content_type: or(fields.content_type, frame::Field::ContentType),
            metadata: if fields.metadata.is_empty() { &metadata } else { fields.metadata },
            tags: if fields.tags.is_empty() { &tags } else { fields.tags },
            data: if fields.data.is_empty() { declared.field(frame::Field::Data) } else { fields.data },
            ..declared.event(&[], &[])
        };
        self.submit_event(&event, ack)
    }

    /// As [`Reservation::commit_event`], without waiting for `ack`.
    ///
    /// # Errors
    /// As [`Reservation::commit_event`], but for those about the ack level.
    pub fn submit_event(&self, event: &Event<'_>, ack: Ack) -> Result<Receipt> {
        self.check_process()?;
        if let Keeper::Engine(space) = &self.keeper {
            // A commit is not refused; if there is no end to it, it goes before what the others have published.
            let _ = space.engine.inner.after_clients(OnFull::Retry(CLIENTS_WAIT));
        }
        self.submit_now(event, ack)
    }

    /// As [`Reservation::submit_event`], without a look at what other processes have published.
    pub(crate) fn submit_now(&self, event: &Event<'_>, ack: Ack) -> Result<Receipt> {
        let mut state = self.state.lock();
        let receipt = |position, ack| match &self.keeper {
            Keeper::Engine(space) => Receipt::new(space.shard.clone(), position),
            Keeper::Client(promise) => promise.receipt(position, ack),
        };
        match *state {
            State::Committed(position, ack) => return Ok(receipt(position, ack)),
            State::Aborted => {
                return Err(Error::new(ErrorKind::InvalidArgument, "the reservation was aborted")
                    .remedy("publish the event, or reserve again"));
            }
            State::Open => {}
        }
        let (limit, now) = match &self.keeper {
            Keeper::Engine(space) => (space.engine.inner.config.event_bytes_max, space.engine.inner.wall_ns()),
            Keeper::Client(promise) => (promise.event_bytes_max(), promise.wall_ns()),
        };
        let layout = check_final(event, &self.frame, limit, self.bytes_max)?;
        let time_ns = if event.time_ns == 0 { now } else { event.time_ns };
        let position = match &self.keeper {
            Keeper::Engine(space) => space.commit(event, layout, time_ns, ack)?,
            Keeper::Client(promise) => promise.commit(event, layout, time_ns, ack)?,
        };
        *state = State::Committed(position, ack);
        drop(state);
        if let Keeper::Engine(space) = &self.keeper {
            space.release();
            space.shard.ring.notify(ack > Ack::Memory);
        }
        Ok(receipt(position, ack))
    }

    /// The operation did not come to be: nothing is told, and the space is free again. After the first time this changes
    /// nothing.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] if it was committed; [`ErrorKind::Closed`] or [`ErrorKind::LogFailed`] if a durable
    /// intent could not be ended and is in doubt at the next opening; [`ErrorKind::WrongProcess`].
    pub fn abort(&self) -> Result<()> {
        self.check_process()?;
        let mut state = self.state.lock();
        match *state {
            State::Aborted => return Ok(()),
            State::Committed(..) => {
                return Err(Error::new(ErrorKind::InvalidArgument, "the reservation was committed"));
            }
            State::Open => *state = State::Aborted,
        }
        match &self.keeper {
            Keeper::Engine(space) => space.abort(),
            Keeper::Client(promise) => promise.abort(),
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        // In a forked child the ring is not the engine's.
        if matches!(self.state.get_mut(), State::Open) && self.check_process().is_ok() {
            let _ = self.abort();
        }
    }
}

fn wait(receipt: Receipt, options: &CommitOptions) -> Result<()> {
    if options.ack == Ack::Memory {
        return Ok(());
    }
    receipt.wait(options.ack, Some(deadline_in(options.ack_timeout)))
}

impl Reservation {
    /// Commits several reservations that are open, with one wait for all of them. Those that were aborted are of no account.
    ///
    /// # Errors
    /// As [`Reservation::commit`], of the first that it is said of; those before it are committed, it and those after it stay
    /// open.
    pub fn commit_all<'a>(
        items: impl IntoIterator<Item = (&'a Reservation, CommitFields<'a>)>,
        options: &CommitOptions,
    ) -> Result<()> {
        let mut receipts = Receipts::default();
        for (item, fields) in items {
            if !matches!(*item.state.lock(), State::Aborted) {
                receipts.add(item.submit(&fields, options.ack)?);
            }
        }
        receipts.wait(options.ack, deadline_in(options.ack_timeout))
    }
}

/// The reservations of one operation on several objects. Those that are open when it is dropped are aborted.
#[derive(Debug)]
pub struct BatchReservation {
    items: Vec<Option<Reservation>>,
}

impl BatchReservation {
    pub(crate) fn of(items: Vec<Option<Reservation>>) -> BatchReservation {
        BatchReservation { items }
    }

    /// How many events were asked for.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// The reservation of an event by its place in the list, to be committed or aborted by itself; `None` if no rule wants
    /// the event, or there is no such place.
    pub fn get(&self, index: usize) -> Option<&Reservation> {
        self.items.get(index)?.as_ref()
    }

    /// Commits every reservation that is open, with one wait for all of them. `fields` has one entry per event, in their
    /// order; those of events that no rule wants, or that are aborted, are of no account.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] if the number of fields is another than that of the events: nothing is committed.
    /// Otherwise as [`Reservation::commit`]: of the first event that it is said of; those before it are committed, it and
    /// those after it stay open.
    pub fn commit_all(&self, fields: &[CommitFields<'_>], options: &CommitOptions) -> Result<()> {
        if fields.len() != self.items.len() {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                format!("{} fields for {} events", fields.len(), self.items.len()),
            )
            .remedy("give one entry per event"));
        }
        let items = self.items.iter().zip(fields);
        Reservation::commit_all(items.filter_map(|(item, fields)| Some((item.as_ref()?, *fields))), options)
    }

    /// The reservations, in the order of the events; `None` for those that no rule wants.
    pub fn into_items(self) -> Vec<Option<Reservation>> {
        self.items
    }

    /// Aborts every reservation that is open.
    ///
    /// # Errors
    /// As [`Reservation::abort`], of the last one that it is said of; all are aborted.
    pub fn abort_all(&self) -> Result<()> {
        let mut result = Ok(());
        for item in self.items.iter().flatten().filter(|i| i.is_open()) {
            result = item.abort().and(result);
        }
        result
    }
}
