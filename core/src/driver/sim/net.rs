//! A network of streams between the engine and endpoints of the simulation.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::{Rng, World};

/// What becomes of a connection that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is made.
    Accept,
    /// Nobody listens.
    Refuse,
    /// Nothing is heard.
    Silence,
}

type Serve = Rc<dyn Fn(Peer) -> Answer>;

/// See the module.
pub struct Net {
    rng: RefCell<Rng>,
    listeners: RefCell<BTreeMap<u16, Serve>>,
    pipes: RefCell<Vec<std::rc::Weak<Pipe>>>,
    /// Connections made.
    pub connections: Cell<u64>,
}

#[derive(Default)]
struct Half {
    bytes: VecDeque<u8>,
    /// No more will come, and what came before is readable.
    closed: bool,
    reader: Option<Waker>,
}

#[derive(Default)]
struct Pipe {
    to_server: RefCell<Half>,
    to_client: RefCell<Half>,
    reset: Cell<bool>,
}

impl Pipe {
    fn wake(&self) {
        for half in [&self.to_server, &self.to_client] {
            if let Some(w) = half.borrow_mut().reader.take() {
                w.wake();
            }
        }
    }
}

fn reset() -> io::Error {
    io::Error::from_raw_os_error(libc::ECONNRESET)
}

fn poll_read(pipe: &Pipe, half: &RefCell<Half>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
    if pipe.reset.get() {
        return Poll::Ready(Err(reset()));
    }
    let mut half = half.borrow_mut();
    if half.bytes.is_empty() {
        if half.closed {
            return Poll::Ready(Ok(0));
        }
        half.reader = Some(cx.waker().clone());
        return Poll::Pending;
    }
    let n = buf.len().min(half.bytes.len());
    for (to, from) in buf.iter_mut().zip(half.bytes.drain(..n)) {
        *to = from;
    }
    Poll::Ready(Ok(n))
}

fn write(pipe: &Pipe, half: &RefCell<Half>, bytes: &[u8]) -> io::Result<usize> {
    if pipe.reset.get() {
        return Err(reset());
    }
    let mut half = half.borrow_mut();
    if half.closed {
        return Err(io::Error::from_raw_os_error(libc::EPIPE));
    }
    half.bytes.extend(bytes);
    if let Some(w) = half.reader.take() {
        w.wake();
    }
    Ok(bytes.len())
}

impl Net {
    pub(super) fn new(rng: Rng) -> Net {
        Net {
            rng: RefCell::new(rng),
            listeners: RefCell::default(),
            pipes: RefCell::default(),
            connections: Cell::new(0),
        }
    }

    /// Has `serve` decide about every connection to a port, and look after those it accepts (in a task of the world).
    pub fn listen(&self, port: u16, serve: impl Fn(Peer) -> Answer + 'static) {
        self.listeners.borrow_mut().insert(port, Rc::new(serve));
    }

    /// The engine's ends of all connections go away.
    pub(super) fn end_process(&self) {
        for pipe in self.pipes.borrow_mut().drain(..).filter_map(|p| p.upgrade()) {
            pipe.reset.set(true);
            pipe.wake();
        }
    }

    pub(crate) async fn connect(world: &Rc<World>, address: SocketAddr) -> io::Result<Stream> {
        let ns = world.net.rng.borrow_mut().between(5_000, 2_000_000);
        world.pause(ns).await;
        let serve = world.net.listeners.borrow().get(&address.port()).cloned();
        let pipe = Rc::new(Pipe::default());
        let answer = serve.map_or(Answer::Refuse, |serve| serve(Peer(pipe.clone())));
        match answer {
            Answer::Refuse => Err(io::Error::from_raw_os_error(libc::ECONNREFUSED)),
            Answer::Silence => std::future::pending().await,
            Answer::Accept => {
                world.net.connections.set(world.net.connections.get() + 1);
                let mut pipes = world.net.pipes.borrow_mut();
                pipes.retain(|p| p.strong_count() > 0);
                pipes.push(Rc::downgrade(&pipe));
                Ok(Stream(pipe))
            }
        }
    }
}

/// The engine's end of a connection.
pub struct Stream(Rc<Pipe>);

impl Stream {
    pub(crate) fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        poll_read(&self.0, &self.0.to_client, cx, buf)
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        write(&self.0, &self.0.to_server, bytes)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.to_server.borrow_mut().closed = true;
        self.0.to_client.borrow_mut().closed = true;
        self.0.wake();
    }
}

/// The endpoint's end of a connection.
pub struct Peer(Rc<Pipe>);

impl Peer {
    /// Reads some bytes; none at the end.
    ///
    /// # Errors
    /// If the connection was reset.
    pub async fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
        poll_fn(|cx| poll_read(&self.0, &self.0.to_server, cx, buf)).await
    }

    /// Writes bytes.
    ///
    /// # Errors
    /// If the connection is gone.
    pub fn write(&self, bytes: &[u8]) -> io::Result<()> {
        write(&self.0, &self.0.to_client, bytes).map(|_| ())
    }

    /// Ends the connection as a failure of the network does.
    pub fn reset(&self) {
        self.0.reset.set(true);
        self.0.wake();
    }

    /// Hangs up: what was written can still be read.
    pub fn close(&self) {
        self.0.to_client.borrow_mut().closed = true;
        self.0.to_server.borrow_mut().closed = true;
        self.0.wake();
    }
}
