//! The side that has the engine.
//!
//! One thread takes in what all clients have published, in the order of their calls. The monotonic clock is read, then all
//! rings are read to their ends, and of what stands there only what is older than that reading goes in: whatever had
//! returned in one process before a call began in another one is among it, and has the lower stamp.
//!
//! What had been published before this engine was there, and not taken in by the last one, is the oldest. So nothing is taken in
//! before all clients of that one are here with what they have, or have ended, or it has taken too long ([`Former`]).
//!
//! Whoever publishes in this process, changes rules or waits for deliveries first takes in what the others have published
//! before ([`Server::settle`]).

use std::collections::{HashMap, HashSet, VecDeque};
use std::fs::Permissions;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::thread::{JoinHandle, ThreadId};
use std::time::{Duration, Instant};

use slab::Slab;

use super::calls::Calls;
use super::memory;
use super::presence::{Former, Presence};
use super::ring::{Header, Kind, Nonsense, Reader, Ring, file_bytes};
use super::status::{Doing, Status};
use super::wire::{self, Answer, Asked, Became, Hello, Outbox, Told, Wants, Welcome};
use super::{SharedConfig, monotonic_ns};
use crate::driver;
use crate::driver::fs::{Lock, LockError};
use crate::engine::intake::{Intake, Refusal};
use crate::engine::{Completions, Engine, Inner, Keep, Reservation, Resolution};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, EventId, FrameView};
use crate::fork::ForkGuard;
use crate::lock::Mutex;
use crate::log::Ack;
use crate::shard::entrance::Entrance;
use crate::shard::progress::Receipt;

/// How long somebody who connects may take to say what for.
const HELLO_WAIT: Duration = Duration::from_secs(5);
/// How long the thread looks at the rings by itself after the last event.
const AWAKE_FOR: Duration = Duration::from_millis(10);
/// How long it sleeps at a time meanwhile.
const NAP: Duration = Duration::from_micros(200);
/// How long it waits for a client to listen.
const UNSENT_WAIT: Duration = Duration::from_millis(10);
/// How long it waits for space in a shard.
const FULL_WAIT: Duration = Duration::from_millis(1);
/// Calls of all clients at a time, each of which has a thread.
const CALLS_MAX: usize = 1024;
/// How long it waits for the clients of the last engine, and how often it looks whether they are still there.
const FORMER_WAIT: Duration = Duration::from_secs(5);
const FORMER_LOOK: Duration = Duration::from_millis(10);
/// So much is taken in between two looks at the clock.
const ROUND_RECORDS: usize = 4096;
const COMPLETIONS_AT_ONCE: usize = 1024;
/// Of the threads: those that serve calls run the engine's.
const STACK_BYTES: usize = 2 << 20;

/// Where other processes publish: see the module.
#[derive(Debug)]
pub(crate) struct Server {
    config: SharedConfig,
    welcome: Welcome,
    engine: Weak<Inner>,
    entrance: ForkGuard<Entrance>,
    listening: Listening,
    /// Buckets have their shares, so that each event must be asked for.
    fair: bool,
    status: Status,
    status_fd: OwnedFd,
    /// What the thread waits at: the bells of all sessions, its own, and the completions.
    epoll: OwnedFd,
    bell: OwnedFd,
    drain: Mutex<Drain>,
    sessions: Mutex<HashMap<u64, Arc<Session>>>,
    next_session: AtomicU64,
    /// Takes nobody any more.
    stopping: AtomicBool,
    /// Takes nothing in any more.
    stopped: AtomicBool,
    /// Has nothing more to tell.
    ended: AtomicBool,
    /// So many wait for what was published before.
    settling: AtomicUsize,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// Those of connections, and the sockets that end them.
    connections: Mutex<Connections>,
    /// Events that had been accepted from clients and could not be taken in, because the engine had closed or failed.
    lost: AtomicU64,
}

#[derive(Debug, Default)]
struct Connections {
    threads: HashSet<ThreadId>,
    sockets: Slab<UnixStream>,
}

/// A client, from its connecting to its end.
#[derive(Debug)]
pub(super) struct Session {
    id: u64,
    secret: [u64; 2],
    socket: UnixStream,
    /// Wakes this process.
    bell: OwnedFd,
    /// Wakes the client.
    client_bell: OwnedFd,
    /// It has ended, and publishes no more.
    gone: AtomicBool,
    /// Its durable reservations.
    pub(super) reservations: Mutex<HashMap<EventId, Reservation>>,
    /// For messages about it.
    name: String,
}

/// What is taken in.
#[derive(Debug)]
struct Drain {
    /// The clients of the last engine that are still to come with what they have, until when they are waited for, and when
    /// that is looked at next.
    former: Option<(Former, Instant, Instant)>,
    lines: Vec<Line>,
    payload: Vec<u8>,
    completions: Completions,
    /// What waits for a level, by the number that its completion has.
    pending: Slab<(u64, Ack, u64)>,
}

/// A session, as the thread has it.
#[derive(Debug)]
struct Line {
    session: Arc<Session>,
    reader: Reader,
    /// The next record, and what it counts as.
    next: Option<(u64, Header)>,
    last_stamp: u64,
    waits: [Waits; 2],
    outbox: Outbox,
    /// Something was told that the client is to look at.
    ring_bell: bool,
    /// It has written nonsense, and is not looked at any more.
    broken: bool,
    /// An event of it was lost, and that was told.
    lost_told: bool,
}

/// The records that ask for one level, in their order.
#[derive(Debug, Default)]
struct Waits {
    /// The number of the first.
    base: u64,
    /// The position after each, and whether it is through.
    waiting: VecDeque<(u64, bool)>,
}

impl Waits {
    fn add(&mut self, position: u64, through: bool) -> u64 {
        self.waiting.push_back((position, through));
        self.base + self.waiting.len() as u64 - 1
    }

    fn through(&mut self, number: u64) {
        let place = number.checked_sub(self.base).and_then(|n| usize::try_from(n).ok());
        if let Some(wait) = place.and_then(|n| self.waiting.get_mut(n)) {
            wait.1 = true;
        }
    }

    /// Up to where all are through, if that is farther than before.
    fn advance(&mut self) -> Option<u64> {
        let mut reached = None;
        while let Some((position, true)) = self.waiting.front() {
            reached = Some(*position);
            self.waiting.pop_front();
            self.base += 1;
        }
        reached
    }
}

/// What one look at the rings came to.
#[derive(Clone, Copy, Debug, Default)]
struct Round {
    taken: usize,
    /// A shard has no space.
    full: bool,
}

impl Session {
    /// What its host had begun is in doubt, if it has gone.
    pub(super) fn abandon_if_gone(&self) {
        if self.gone.load(Ordering::SeqCst) {
            self.abandon();
        }
    }

    fn abandon(&self) {
        let held: Vec<Reservation> = self.reservations.lock().drain().map(|(_, r)| r).collect();
        held.into_iter().for_each(Reservation::abandon);
    }
}

impl Server {
    /// Takes clients of an engine.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] and the like.
    pub(crate) fn start(
        listening: Listening,
        inner: &Arc<Inner>,
        entrance: ForkGuard<Entrance>,
    ) -> Result<Arc<Server>> {
        let config = listening.config.clone();
        let cannot = |e: io::Error| Error::io("cannot make what clients of the engine share", &e);
        let (status, status_fd) = Status::new().map_err(cannot)?;
        // SAFETY: the call takes no pointers.
        let epoll = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if epoll < 0 {
            return Err(cannot(io::Error::last_os_error()));
        }
        // SAFETY: it was just made and belongs to nobody else.
        let epoll = unsafe { OwnedFd::from_raw_fd(epoll) };
        let bell = driver::eventfd(0).map_err(cannot)?;
        let completions = Completions::new(Keep::Nothing)?;
        watch(&epoll, &bell, OWN).map_err(cannot)?;
        watch(&epoll, &completions, COMPLETIONS).map_err(cannot)?;
        let of = inner.config();
        let welcome = Welcome {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ring_bytes: config.ring_bytes,
            event_bytes_max: of.event_bytes_max,
            reserve_percent: of.reserve_percent,
            event_types: of.event_types.custom().to_vec(),
            close_timeout_ms: of.close_timeout.as_millis() as u64,
            ..Welcome::default()
        };
        let now = driver::now();
        let former = Former::of(&lock_path(&config.socket)).map_err(cannot)?;
        if let (Some(entrance), false) = (entrance.get(), former.is_empty()) {
            entrance.tell(Entrance::CLIENTS, true);
        }
        let former = Some((former, now + FORMER_WAIT, now));
        let drain = Drain { former, lines: Vec::new(), payload: Vec::new(), completions, pending: Slab::new() };
        let server = Arc::new(Server {
            welcome,
            engine: Arc::downgrade(inner),
            entrance,
            listening,
            fair: inner.is_fair(),
            status,
            status_fd,
            epoll,
            bell,
            drain: Mutex::new(drain),
            sessions: Mutex::default(),
            next_session: AtomicU64::new(1),
            stopping: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            settling: AtomicUsize::new(0),
            threads: Mutex::default(),
            connections: Mutex::default(),
            lost: AtomicU64::new(0),
            config,
        });
        server.follow(inner);
        let cpus = driver::usable_cpus();
        let (taking, accepting) = (server.clone(), server.clone());
        let mut threads = server.threads.lock();
        threads.push(driver::spawn_helper("tidewire-shared", STACK_BYTES, &cpus, move || taking.take_in())?);
        match driver::spawn_helper("tidewire-accept", STACK_BYTES, &cpus, move || accepting.accept()) {
            Ok(thread) => threads.push(thread),
            Err(e) => {
                drop(threads);
                server.stop_taking(inner, driver::now());
                server.join(driver::now());
                return Err(e);
            }
        }
        drop(threads);
        log::info!("the engine is shared at {}", server.config.socket.display());
        Ok(server)
    }

    /// Other rules are in force.
    pub(crate) fn follow(&self, inner: &Inner) {
        self.status.set_rules(inner.everywhere());
    }

    /// Some queue tells publishers no, or none does any more.
    pub(crate) fn queues_tell(&self, tells: bool) {
        self.status.set_asks(tells || self.fair);
    }

    /// What clients had published before this call is in the shards' rings when it returns.
    ///
    /// # Errors
    /// [`ErrorKind::Full`] if there was no space until the deadline.
    pub(crate) fn settle(&self, inner: &Inner, deadline: Instant) -> Result<()> {
        let until = monotonic_ns();
        loop {
            self.settling.fetch_add(1, Ordering::SeqCst);
            let mut drain = self.drain.lock();
            self.settling.fetch_sub(1, Ordering::SeqCst);
            let round = drain.round(self, inner, until);
            drop(drain);
            if !round.full && round.taken < ROUND_RECORDS {
                return Ok(());
            }
            if round.full {
                if driver::now() >= deadline {
                    let what = "what other processes have published before has no place yet";
                    return Err(Error::new(ErrorKind::Full, what)
                        .remedy("publish more slowly, wait longer, or raise engine.ring_bytes"));
                }
                std::thread::sleep(FULL_WAIT);
            }
        }
    }

    /// Clients that are connected.
    pub(crate) fn clients(&self) -> u64 {
        self.sessions.lock().len() as u64
    }

    /// Events accepted from clients that could not be taken in.
    pub(crate) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Takes in what was published, until the deadline, and nobody and nothing any more.
    pub(crate) fn stop_taking(&self, inner: &Inner, deadline: Instant) {
        if self.stopping.swap(true, Ordering::SeqCst) {
            return;
        }
        self.listening.end();
        if let Err(e) = self.settle(inner, deadline) {
            log::warn!("{e}");
        }
        // What comes later is for the next engine.
        let drain = self.drain.lock();
        self.stopped.store(true, Ordering::SeqCst);
        drop(drain);
        ring(&self.bell);
    }

    /// Tells what has become of everything, once the engine has made it durable, and that it has gone. Waits for the threads,
    /// until the deadline for those that serve calls.
    pub(crate) fn join(&self, deadline: Instant) {
        self.ended.store(true, Ordering::SeqCst);
        ring(&self.bell);
        self.drain.lock().tell();
        for (_, socket) in &self.connections.lock().sockets {
            let _ = socket.shutdown(std::net::Shutdown::Both);
        }
        let own = std::thread::current().id();
        for thread in std::mem::take(&mut *self.threads.lock()) {
            if thread.thread().id() != own {
                let _ = thread.join();
            }
        }
        let left = || self.connections.lock().threads.iter().any(|t| *t != own);
        // They end as soon as what they have called does.
        let deadline = deadline.max(driver::now() + Duration::from_secs(1));
        while left() && driver::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
        // The reservations hold the engine, which is what closes here. They are in doubt at the next opening.
        let mut sessions: Vec<Arc<Session>> = self.sessions.lock().drain().map(|(_, s)| s).collect();
        sessions.extend(std::mem::take(&mut self.drain.lock().lines).into_iter().map(|line| line.session));
        sessions.iter().for_each(|session| session.abandon());
    }

    /// The thread that takes in.
    fn take_in(&self) {
        let mut last = driver::now();
        while !self.stopped.load(Ordering::SeqCst) {
            let Some(inner) = self.engine.upgrade() else { return };
            let round = self.drain.lock().round(self, &inner, u64::MAX);
            drop(inner);
            if round.full {
                std::thread::sleep(FULL_WAIT);
                continue;
            }
            if round.taken > 0 {
                last = driver::now();
                // Who waits for the lock gets it, however much there is to take in.
                while self.settling.load(Ordering::SeqCst) > 0 && !self.stopped.load(Ordering::SeqCst) {
                    std::thread::yield_now();
                }
                continue;
            }
            let (wait, doing) = if driver::since(last) < AWAKE_FOR {
                (Some(NAP), Doing::Napping)
            } else {
                // A client that does not listen is tried again.
                (self.drain.lock().has_unsent().then_some(UNSENT_WAIT), Doing::Parked)
            };
            let has_more = || self.drain.lock().has_more() || self.stopped.load(Ordering::SeqCst);
            self.status.rest(doing, has_more, || self.wait(wait));
            self.hush();
        }
        // The engine makes durable what it has.
        while !self.ended.load(Ordering::SeqCst) {
            self.drain.lock().tell();
            self.wait(Some(UNSENT_WAIT));
            self.hush();
        }
    }

    /// Waits for a bell.
    fn wait(&self, limit: Option<Duration>) {
        let mut poll = libc::pollfd { fd: self.epoll.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        let limit = limit
            .map(|l| libc::timespec { tv_sec: l.as_secs() as libc::time_t, tv_nsec: l.subsec_nanos() as libc::c_long });
        let limit = limit.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
        // SAFETY: one valid entry and a time that lives. Whatever the answer is, everything is looked at again.
        unsafe { libc::ppoll(&mut poll, 1, limit, std::ptr::null()) };
    }

    /// Makes the bells that have rung silent. What comes after it rings again.
    fn hush(&self) {
        // SAFETY: plain numbers that the call fills in.
        let mut events: [libc::epoll_event; 64] = unsafe { std::mem::zeroed() };
        // SAFETY: there is room for as many, and the descriptor is open.
        let n = unsafe { libc::epoll_wait(self.epoll.as_raw_fd(), events.as_mut_ptr(), events.len() as i32, 0) };
        for event in events.iter().take(usize::try_from(n).unwrap_or(0)) {
            match event.u64 {
                OWN => silence(&self.bell),
                // It is read where they are taken.
                COMPLETIONS => {}
                id => {
                    let session = self.sessions.lock().get(&id).cloned();
                    session.iter().for_each(|session| silence(&session.bell));
                }
            }
        }
    }

    fn accept(self: &Arc<Self>) {
        loop {
            let accepted = self.listening.listener.accept();
            if self.stopping.load(Ordering::SeqCst) {
                return;
            }
            let socket = match accepted {
                Ok((socket, _)) => socket,
                Err(e) => {
                    if e.kind() != io::ErrorKind::Interrupted {
                        log::warn!("{}", Error::io("cannot take a client of the engine", &e));
                        std::thread::sleep(Duration::from_millis(50));
                    }
                    continue;
                }
            };
            if self.connections.lock().threads.len() >= self.config.clients_max + CALLS_MAX {
                let e = Error::new(ErrorKind::Full, format!("{CALLS_MAX} calls are under way"));
                let _ = wire::send(&socket, &Answer::<()>::Err((&e).into()), &[]);
                continue;
            }
            let server = self.clone();
            let cpus = driver::usable_cpus();
            let serve = move || {
                let own = std::thread::current().id();
                let place = server.connections.lock().enter(own, &socket);
                let ended = server.serve(&socket);
                let mut connections = server.connections.lock();
                connections.threads.remove(&own);
                if let Some(place) = place {
                    connections.sockets.remove(place);
                }
                drop(connections);
                if let Err(e) = ended {
                    log::debug!("a client of the engine: {e}");
                }
            };
            if let Err(e) = driver::spawn_helper("tidewire-client", STACK_BYTES, &cpus, serve) {
                log::warn!("{e}");
            }
        }
    }

    /// One connection, to its end.
    fn serve(self: &Arc<Self>, socket: &UnixStream) -> Result<()> {
        let peer = peer(socket)?;
        let refuse_as = |level, e: Error| {
            log::log!(level, "a client was not let in: {e}");
            let _ = wire::send(socket, &Answer::<()>::Err((&e).into()), &[]);
            Err(e)
        };
        let refuse = |e| refuse_as(log::Level::Warn, e);
        // SAFETY: the call has no arguments and cannot fail.
        let own = unsafe { libc::geteuid() };
        if peer.uid != own && peer.uid != 0 && !self.config.uids.contains(&peer.uid) {
            let what = format!("user {} may not use the engine at {}", peer.uid, self.config.socket.display());
            return refuse(
                Error::new(ErrorKind::InvalidArgument, what)
                    .remedy("name the user in `uids` of [engine.shared], or run as the engine's own"),
            );
        }
        let _ = socket.set_read_timeout(Some(HELLO_WAIT));
        let hello: Hello = match wire::receive(socket) {
            Ok((hello, _)) => hello,
            Err(e) => return refuse(e),
        };
        let _ = socket.set_read_timeout(None);
        if hello.protocol != wire::PROTOCOL {
            let (own, version) = (wire::PROTOCOL, &hello.version);
            let what = format!(
                "the client's version {version} speaks protocol {}, the engine's {} protocol {own}",
                hello.protocol,
                env!("CARGO_PKG_VERSION"),
            );
            return refuse(Error::new(ErrorKind::InvalidArgument, what).remedy("run the same version on both sides"));
        }
        if self.stopping.load(Ordering::SeqCst) {
            // It finds the next one.
            return refuse_as(log::Level::Info, Error::new(ErrorKind::Disconnected, "the engine closes"));
        }
        match hello.wants {
            Wants::Session { position } => match self.begin(socket, position, &peer) {
                Ok((session, welcome, fds)) => {
                    let told = self.welcome(&session, &welcome, &fds);
                    drop(fds);
                    if told.is_ok() {
                        wait_for_end(&session.socket, peer.pid);
                    }
                    session.gone.store(true, Ordering::SeqCst);
                    let _ = session.socket.shutdown(std::net::Shutdown::Both);
                    ring(&self.bell);
                    told
                }
                Err(e) => refuse(e),
            },
            Wants::Calls { session, secret } => {
                let found = self.sessions.lock().get(&session).filter(|s| s.secret == secret).cloned();
                let Some(session) = found else {
                    let ended = Error::new(ErrorKind::Disconnected, "the session has ended");
                    return refuse_as(log::Level::Info, ended);
                };
                wire::send(socket, &Answer::Ok(()), &[])?;
                let mut calls = Calls::new(session.clone());
                loop {
                    let (request, behind) = wire::receive(socket)?;
                    let Some(inner) = self.engine.upgrade() else { return Ok(()) };
                    let engine = Engine::of(inner);
                    // What the client has published before is in, whatever it asks for now.
                    let answered = calls.answer(self, &engine, request, behind, socket);
                    drop(engine);
                    match answered {
                        Ok((value, behind)) => wire::send(socket, &Answer::Ok(value), &behind)?,
                        Err(e) => wire::send(socket, &Answer::<()>::Err((&e).into()), &[])?,
                    }
                }
            }
        }
    }

    /// A new session.
    fn begin(
        &self,
        socket: &UnixStream,
        position: u64,
        peer: &Peer,
    ) -> Result<(Arc<Session>, Welcome, (OwnedFd, Presence))> {
        if !position.is_multiple_of(8) {
            return Err(Error::new(ErrorKind::InvalidArgument, "the client's ring begins at no place of a record"));
        }
        let cannot = |e: io::Error| {
            Error::io("cannot make the ring of a client", &e)
                .remedy("raise the limit of open files of the engine's process")
        };
        let ring_bytes = self.config.ring_bytes;
        let ring_fd = memory::new_file(c"tidewire-ring", file_bytes(ring_bytes)).map_err(cannot)?;
        let ring = Arc::new(Ring::map(ring_fd.as_fd(), ring_bytes).map_err(cannot)?);
        ring.begin(position);
        let lock = lock_path(&self.config.socket);
        let presence = Presence::new(&lock)
            .map_err(|e| Error::io("cannot lock a byte for a client", &e).at(lock.display().to_string()))?;
        let session = Arc::new(Session {
            id: self.next_session.fetch_add(1, Ordering::Relaxed),
            secret: [driver::random_u64()?, driver::random_u64()?],
            socket: socket.try_clone().map_err(cannot)?,
            bell: driver::eventfd(0).map_err(cannot)?,
            client_bell: driver::eventfd(0).map_err(cannot)?,
            gone: AtomicBool::new(false),
            reservations: Mutex::default(),
            name: format!("process {}", peer.pid),
        });
        {
            let mut sessions = self.sessions.lock();
            if sessions.len() >= self.config.clients_max {
                let what = format!("{} processes share the engine", sessions.len());
                return Err(Error::new(ErrorKind::Full, what).remedy("raise engine.shared.clients_max"));
            }
            sessions.insert(session.id, session.clone());
        }
        let mut drain = self.drain.lock();
        if self.stopped.load(Ordering::SeqCst) {
            self.sessions.lock().remove(&session.id);
            return Err(Error::new(ErrorKind::Disconnected, "the engine closes"));
        }
        if let Err(e) = watch(&self.epoll, &session.bell, session.id) {
            self.sessions.lock().remove(&session.id);
            return Err(cannot(e));
        }
        drain.lines.push(Line {
            session: session.clone(),
            reader: Reader::new(ring, position),
            next: None,
            last_stamp: 0,
            waits: Default::default(),
            outbox: Outbox::default(),
            ring_bell: false,
            broken: false,
            lost_told: false,
        });
        // Before the client knows that it may publish.
        if let Some(entrance) = self.entrance.get() {
            entrance.tell(Entrance::CLIENTS, true);
        }
        drop(drain);
        let welcome = Welcome {
            session: session.id,
            secret: session.secret,
            presence: presence.number(),
            ..self.welcome.clone()
        };
        Ok((session, welcome, (ring_fd, presence)))
    }

    fn welcome(&self, session: &Session, welcome: &Welcome, fds: &(OwnedFd, Presence)) -> Result<()> {
        wire::send(&session.socket, &Answer::Ok(welcome), &[])?;
        let (ring_fd, presence) = fds;
        let fds = [
            presence.file().as_raw_fd(),
            ring_fd.as_raw_fd(),
            self.status_fd.as_raw_fd(),
            session.bell.as_raw_fd(),
            session.client_bell.as_raw_fd(),
        ];
        wire::send_descriptors(&session.socket, fds)
    }
}

impl Connections {
    fn enter(&mut self, thread: ThreadId, socket: &UnixStream) -> Option<usize> {
        self.threads.insert(thread);
        socket.try_clone().ok().map(|socket| self.sockets.insert(socket))
    }
}

impl Drain {
    /// Whether there is something to take in, or to bury.
    fn has_more(&self) -> bool {
        self.lines.iter().any(|l| (!l.broken && l.reader.has_more()) || l.session.gone.load(Ordering::SeqCst))
    }

    fn has_unsent(&self) -> bool {
        self.lines.iter().any(|l| !l.outbox.is_empty())
    }

    /// Takes in what was published before now, and before `until`.
    fn round(&mut self, server: &Server, inner: &Inner, until: u64) -> Round {
        let mut round = Round::default();
        if server.stopped.load(Ordering::SeqCst) {
            return round;
        }
        if self.waits_for_former(server) {
            round.full = true;
            return round;
        }
        // Before the rings are looked at: see the module.
        let now = monotonic_ns();
        let until = until.min(now);
        for line in &mut self.lines {
            line.look();
        }
        // What is seen was written by now, whatever it says.
        let seen = monotonic_ns();
        for line in &mut self.lines {
            line.peek(seen);
        }
        while round.taken < ROUND_RECORDS {
            let earliest = self.lines.iter().enumerate().filter_map(|(n, l)| Some((l.next?.0, n)));
            let Some((stamp, n)) = earliest.min() else { break };
            if stamp > until {
                break;
            }
            if !self.take(n, server, inner) {
                round.full = true;
                break;
            }
            round.taken += 1;
            self.lines[n].peek(seen);
        }
        self.complete();
        let mut gone = false;
        for line in &mut self.lines {
            let misses = line.reader.new_no_match();
            if misses > 0 {
                inner.count_no_match(misses);
            }
            line.tell();
            gone |= line.is_done();
        }
        if gone {
            self.bury(server);
        }
        round
    }

    /// Whether clients of the last engine are still to come: what they had published before it ended is older than what
    /// others publish now.
    fn waits_for_former(&mut self, server: &Server) -> bool {
        let Some((former, until, look)) = &mut self.former else { return false };
        let now = driver::now();
        if now < *look && !former.is_empty() {
            return true;
        }
        *look = now + FORMER_LOOK;
        let left = former.left();
        if left > 0 && now < *until {
            return true;
        }
        if left > 0 {
            log::warn!(
                "{left} processes that were connected to the last engine do not come back; what they had published then may \
                 come behind what others publish now"
            );
        }
        self.former = None;
        self.tell_entrance(server);
        false
    }

    /// Publishers of this process need not look at clients where there are none.
    fn tell_entrance(&self, server: &Server) {
        if self.lines.is_empty()
            && let Some(entrance) = server.entrance.get()
        {
            entrance.tell(Entrance::CLIENTS, false);
        }
    }

    /// Takes the next record of a line in; `false` if it must wait.
    fn take(&mut self, n: usize, server: &Server, inner: &Inner) -> bool {
        let Drain { lines, payload, .. } = self;
        let line = &mut lines[n];
        let Some((_, header)) = line.next else { return true };
        line.reader.copy(&header, payload);
        line.reader.taking(&header);
        let taken = match taken(&line.session, &header, payload, inner) {
            Ok(taken) => taken,
            Err(nonsense) => {
                line.give_up(nonsense);
                return true;
            }
        };
        let outcome = match taken {
            Err(Refusal::Later) => {
                line.reader.not_taking();
                return false;
            }
            Ok(receipt) => Ok(receipt),
            Err(Refusal::Busy(e, limit)) => Err((e, Some(limit))),
            Err(Refusal::No(e)) => Err((e, None)),
        };
        line.reader.taken(&header);
        self.settle_record(n, &header, outcome, server);
        true
    }

    /// Tells what became of a record, now and when it has reached its level.
    fn settle_record(
        &mut self,
        n: usize,
        header: &Header,
        outcome: std::result::Result<Option<Receipt>, (Error, Option<Duration>)>,
        server: &Server,
    ) {
        let line = &mut self.lines[n];
        let position = header.end;
        if header.kind == Kind::Asked {
            let became = match &outcome {
                Ok(None) => Ok(Became::NoMatch),
                Ok(Some(receipt)) if receipt.is_duplicate() => Ok(Became::Duplicate),
                Ok(Some(_)) => Ok(Became::Accepted),
                Err((e, Some(limit))) => {
                    let for_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
                    Ok(Became::Busy { error: e.into(), for_ms })
                }
                Err((e, None)) => Err(e.into()),
            };
            line.say(&Told::Became { position, outcome: became });
        } else if let Err((e, _)) = &outcome {
            server.lost.fetch_add(1, Ordering::Relaxed);
            let level =
                if std::mem::replace(&mut line.lost_told, true) { log::Level::Debug } else { log::Level::Error };
            log::log!(level, "an event of {} was accepted and is lost: {e}", line.session.name);
            if header.ack > Ack::Memory {
                line.say(&Told::Failed { position, ack: header.ack as u8, error: e.into() });
            }
        }
        if header.ack == Ack::Memory {
            return;
        }
        let waits = &mut line.waits[header.ack as usize - 1];
        match outcome {
            Ok(Some(receipt)) => {
                receipt.hurry();
                let number = waits.add(position, false);
                let key = self.pending.insert((line.session.id, header.ack, number));
                if let Err(e) = self.completions.watch(&receipt, header.ack, key as u64) {
                    log::error!("{e}");
                }
            }
            _ => {
                let number = waits.add(position, true);
                debug_assert!(number >= waits.base);
            }
        }
    }

    /// Tells what has reached its level.
    fn tell(&mut self) {
        self.complete();
        self.lines.iter_mut().for_each(Line::tell);
    }

    /// Looks what has reached its level.
    fn complete(&mut self) {
        let Drain { lines, completions, pending, .. } = self;
        loop {
            let each = |c: crate::engine::Completion| {
                let Some((session, ack, number)) = pending.try_remove(c.user_data as usize) else { return };
                let Some(line) = lines.iter_mut().find(|l| l.session.id == session) else { return };
                let waits = &mut line.waits[ack as usize - 1];
                if let Err(e) = &c.result {
                    let place = number.checked_sub(waits.base).and_then(|n| usize::try_from(n).ok());
                    if let Some((position, _)) = place.and_then(|n| waits.waiting.get(n)).copied() {
                        waits.through(number);
                        line.say(&Told::Failed { position, ack: ack as u8, error: e.into() });
                        return;
                    }
                }
                waits.through(number);
            };
            if completions.take(COMPLETIONS_AT_ONCE, each).unwrap_or(0) < COMPLETIONS_AT_ONCE {
                return;
            }
        }
    }

    /// Forgets the sessions that have ended and have nothing left. What their hosts had begun is in doubt.
    fn bury(&mut self, server: &Server) {
        let mut n = 0;
        while n < self.lines.len() {
            if !self.lines[n].is_done() {
                n += 1;
                continue;
            }
            let line = self.lines.swap_remove(n);
            unwatch(&server.epoll, line.session.bell.as_raw_fd());
            server.sessions.lock().remove(&line.session.id);
            line.session.abandon();
        }
        self.tell_entrance(server);
    }
}

impl Line {
    fn look(&mut self) {
        if self.broken {
            return;
        }
        if let Err(nonsense) = self.reader.look() {
            self.give_up(nonsense);
        }
    }

    fn peek(&mut self, seen: u64) {
        self.next = None;
        if self.broken {
            return;
        }
        match self.reader.peek() {
            Ok(Some(header)) => {
                // In the order of the ring, whatever the stamps say.
                self.last_stamp = self.last_stamp.max(header.stamp.min(seen));
                self.next = Some((self.last_stamp, header));
            }
            Ok(None) => {}
            Err(nonsense) => self.give_up(nonsense),
        }
    }

    /// The client writes what no client writes: nothing of it is taken in any more.
    fn give_up(&mut self, Nonsense(what): Nonsense) {
        log::error!("the ring of {} cannot be read: {what}; it is left alone", self.session.name);
        self.broken = true;
        self.next = None;
        let _ = self.session.socket.shutdown(std::net::Shutdown::Both);
    }

    fn say(&mut self, told: &Told) {
        if !self.outbox.add(told) {
            self.give_up(Nonsense("it does not listen"));
        }
        self.ring_bell = true;
    }

    /// Tells the client what there is to tell.
    fn tell(&mut self) {
        // Before the levels: who sees these has been told of what has failed.
        if !self.outbox.is_empty() && !self.outbox.flush(&self.session.socket) {
            self.outbox = Outbox::default();
        }
        if self.outbox.is_empty() {
            for ack in [Ack::Written, Ack::Synced] {
                if let Some(position) = self.waits[ack as usize - 1].advance() {
                    self.reader.tell_reached(ack, position);
                    self.ring_bell = true;
                }
            }
        }
        if std::mem::take(&mut self.ring_bell) | self.reader.space_wanted() {
            ring(&self.session.client_bell);
        }
    }

    /// Whether nothing comes of it any more.
    fn is_done(&self) -> bool {
        self.session.gone.load(Ordering::SeqCst) && (self.broken || !self.reader.has_more())
    }
}

type Taken = std::result::Result<Option<Receipt>, Refusal>;

/// Takes a record in. What it says is of another process, and may be anything.
fn taken(session: &Session, header: &Header, payload: &[u8], inner: &Inner) -> std::result::Result<Taken, Nonsense> {
    let mut how = Intake { ack: header.ack, dedup_key: None, host_cursor: None, asks: false };
    match header.kind {
        Kind::Event => with_event(payload, |event| inner.take_in(event, &how)),
        Kind::Asked => {
            let (asked, frame) = Asked::decode(payload).ok_or(Nonsense("an event asks for what there is not"))?;
            how.asks = true;
            (how.dedup_key, how.host_cursor) = (asked.dedup_key, asked.host_cursor);
            with_event(frame, |event| inner.take_in(event, &how))
        }
        Kind::Commit | Kind::Abort => {
            let (token, frame) = wire::decode_token(payload).ok_or(Nonsense("a reservation has no token"))?;
            let held = session.reservations.lock().remove(&token);
            if header.kind == Kind::Abort {
                let aborted = match held {
                    Some(reservation) => reservation.abort(),
                    None => inner.resolve_now(token, Resolution::Abort),
                };
                return Ok(aborted.map(|()| None).map_err(Refusal::No));
            }
            let Some(reservation) = held else {
                // It was reserved with an earlier run of the engine. It is durable when this returns.
                let resolve = |event: &Event<'_>| inner.resolve_now(token, Resolution::Commit(event));
                return with_event(frame, |event| resolve(event).map(|()| None).map_err(Refusal::No));
            };
            let taken = with_event(frame, |event| reservation.submit_now(event, header.ack));
            if !matches!(taken, Ok(Ok(_))) {
                // Its operation came to be all the same, and is in doubt in the end.
                session.reservations.lock().insert(token, reservation);
            }
            taken.map(|taken| taken.map(Some).map_err(Refusal::No))
        }
    }
}

fn with_event<T>(frame: &[u8], take: impl FnOnce(&Event<'_>) -> T) -> std::result::Result<T, Nonsense> {
    let frame = FrameView::parse(frame).map_err(|_| Nonsense("an event is none"))?;
    let (metadata, tags): (Vec<_>, Vec<_>) = (frame.metadata().collect(), frame.tags().collect());
    Ok(take(&frame.event(&metadata, &tags)))
}

/// Who is at the other end.
struct Peer {
    pid: libc::pid_t,
    uid: libc::uid_t,
}

fn peer(socket: &UnixStream) -> Result<Peer> {
    // SAFETY: plain numbers that the call fills in.
    let mut of = unsafe { std::mem::zeroed::<libc::ucred>() };
    let mut len = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: the struct and its length may be written, and the descriptor is open.
    let told = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            std::ptr::from_mut(&mut of).cast(),
            &mut len,
        )
    };
    if told < 0 {
        return Err(Error::io("cannot tell who connects", &io::Error::last_os_error()));
    }
    Ok(Peer { pid: of.pid, uid: of.uid })
}

/// Waits until a client has ended its connection, or its process has ended: a child that it has forked may have the
/// connection, too, and nothing to do with it.
fn wait_for_end(socket: &UnixStream, pid: libc::pid_t) {
    // SAFETY: the call takes no pointers. Where it is not there, or the process is of another namespace, the connection alone
    // tells.
    let process = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    // SAFETY: it was just made and belongs to nobody else.
    let process = (process >= 0).then(|| unsafe { OwnedFd::from_raw_fd(process as RawFd) });
    let mut polls = [
        libc::pollfd { fd: socket.as_raw_fd(), events: libc::POLLIN, revents: 0 },
        libc::pollfd { fd: process.as_ref().map_or(-1, AsRawFd::as_raw_fd), events: libc::POLLIN, revents: 0 },
    ];
    loop {
        // SAFETY: two valid entries; one of -1 is passed over.
        let n = unsafe { libc::poll(polls.as_mut_ptr(), 2, -1) };
        if n < 0 && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted {
            continue;
        }
        // A client says nothing in its session: whatever comes is the end.
        return;
    }
}

/// Rings a bell.
pub(super) fn ring(bell: &OwnedFd) {
    let one = 1u64.to_ne_bytes();
    // SAFETY: eight bytes that live; the descriptor is open. It fails only if the counter is at its end, and then it rings.
    unsafe { libc::write(bell.as_raw_fd(), one.as_ptr().cast(), one.len()) };
}

/// Silences a bell.
pub(super) fn silence(bell: &OwnedFd) {
    let mut count = [0u8; 8];
    // SAFETY: eight bytes that may be written; the descriptor is open, and it does not block.
    unsafe { libc::read(bell.as_raw_fd(), count.as_mut_ptr().cast(), count.len()) };
}

/// What the thread waits at besides the bells of sessions, which have their numbers, from 1.
const OWN: u64 = 0;
const COMPLETIONS: u64 = u64::MAX;

fn watch(epoll: &OwnedFd, fd: &impl AsFd, of: u64) -> io::Result<()> {
    let fd = fd.as_fd().as_raw_fd();
    let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: of };
    // SAFETY: both descriptors are open, and the struct lives.
    match unsafe { libc::epoll_ctl(epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, fd, &mut event) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn unwatch(epoll: &OwnedFd, fd: RawFd) {
    // SAFETY: both descriptors are open.
    unsafe { libc::epoll_ctl(epoll.as_raw_fd(), libc::EPOLL_CTL_DEL, fd, std::ptr::null_mut()) };
}

/// A socket that this process listens at.
#[derive(Debug)]
pub(crate) struct Listening {
    config: SharedConfig,
    listener: UnixListener,
    /// While it is held, what is there is this process's own.
    lock: Mutex<Option<Lock>>,
    process: ForkGuard,
}

impl Listening {
    /// Listens, if nobody else does. What a process that is gone has left there is removed.
    ///
    /// # Errors
    /// [`ErrorKind::Locked`] if another process listens there, [`ErrorKind::InvalidConfig`] if there is something else,
    /// [`ErrorKind::Io`] and the like.
    pub(crate) fn new(config: &SharedConfig) -> Result<Listening> {
        let path = &config.socket;
        let at = |e: Error| e.at(path.display().to_string());
        let lock = lock(path)?;
        match std::fs::symlink_metadata(path) {
            Ok(m) if m.file_type().is_socket() => {
                let removed = std::fs::remove_file(path);
                removed.map_err(|e| at(Error::io("cannot remove the socket of an earlier run", &e)))?;
            }
            Ok(_) => {
                return Err(at(Error::invalid_config("there is a file that is no socket")
                    .remedy("choose another path for engine.shared.socket, or remove it")));
            }
            Err(_) => {}
        }
        let cannot = |e: io::Error| at(Error::io("cannot listen for other processes", &e));
        let listener = UnixListener::bind(path).map_err(cannot)?;
        let (lock, process) = (Mutex::new(Some(lock)), ForkGuard::new(()));
        let listening = Listening { config: config.clone(), listener, lock, process };
        std::fs::set_permissions(path, Permissions::from_mode(config.mode)).map_err(cannot)?;
        Ok(listening)
    }

    /// Listens no more; whoever waits in accept is told.
    fn end(&self) {
        if let Some(lock) = self.lock.lock().take() {
            let _ = std::fs::remove_file(&self.config.socket);
            // SAFETY: the descriptor is open.
            unsafe { libc::shutdown(self.listener.as_raw_fd(), libc::SHUT_RDWR) };
            drop(lock);
        }
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        // In a forked child the socket is the parent's.
        if self.process.same_process() {
            self.end();
        }
    }
}

/// The file beside a socket that who listens there has locked; clients lock bytes of it.
fn lock_path(socket: &Path) -> PathBuf {
    let mut name = socket.as_os_str().to_owned();
    name.push(".lock");
    PathBuf::from(name)
}

/// The lock of who listens there.
fn lock(path: &Path) -> Result<Lock> {
    let name = lock_path(path);
    driver::fs::lock(&name, &format!("{}\n", std::process::id())).map_err(|e| {
        let e = match e {
            LockError::Held(holder) => {
                let what = format!("another engine listens there (process {})", holder.trim());
                Error::new(ErrorKind::Locked, what)
                    .remedy("connect to that one, or give engine.shared.socket another path")
            }
            LockError::Io(e) => Error::io("cannot lock the socket", &e),
        };
        e.at(name.display().to_string())
    })
}
