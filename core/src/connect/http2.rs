//! HTTP/2 (RFC 9113) as a client of webhooks speaks it: the connections of one destination on one shard, each with several
//! requests at once. The protocol is the library's; connections, limits and what a failure means are ours.
//!
//! A connection has a task, which ends when nobody wants the connection any more, when it breaks, or when it is told to. A
//! request is a stream, and runs within its attempt: an attempt that ends early resets it, and nothing is left behind.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::select;
use futures::io::{AsyncRead, AsyncWrite};
use futures::task::noop_waker_ref;
use futures_rustls::client::TlsStream;
use h2::Reason;
use h2::client::SendRequest;
use http::header::{ACCEPT_ENCODING, CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue};
use http::{Request, Uri};
use tokio::io::{AsyncRead as TokioRead, AsyncWrite as TokioWrite, ReadBuf};

use super::webhook::Failure;
use crate::driver::{self, Notify};
use crate::error::{Error, ErrorKind, Result};
use crate::net::http::{
    BODY_KEPT_BYTES_MAX, BODY_READ_BYTES_MAX, HEADERS_MAX, RESPONSE_HEAD_BYTES_MAX, RequestHead, Response,
};
use crate::net::pool::PoolLimits;

/// A stream may be sent so much without our asking for more: all that is read of a body.
const WINDOW_BYTES: u32 = BODY_READ_BYTES_MAX as u32;
/// All streams of a connection together.
const CONNECTION_WINDOW_BYTES: u32 = 1 << 20;
/// Requests at once before the endpoint has said how many it takes (RFC 9113, 6.5.2, wants at least so many).
const STREAMS_AT_FIRST: usize = 100;

/// The connections of a destination on a shard.
pub(super) struct Http2 {
    method: http::Method,
    authority: String,
    /// The fields that every request has.
    fields: HeaderMap,
    limits: PoolLimits,
    idle: Duration,
    /// The headers of answers that matter.
    wanted: [Option<Arc<str>>; 2],
    body_kept: usize,
    open: RefCell<Vec<Rc<Connection>>>,
    /// What ends the tasks of connections, those too that take no requests any more.
    tasks: RefCell<Vec<Weak<Notify>>>,
    /// So many requests at once a connection is given before the endpoint has said how many it takes.
    at_first: Cell<usize>,
    /// The endpoint has chosen HTTP/1.1 the last time.
    chose_http1: Cell<bool>,
    dialing: RefCell<Dialing>,
}

/// Who makes a connection, and who waits for it: attempts that begin together share one.
#[derive(Default)]
struct Dialing {
    under_way: bool,
    waiting: Vec<Rc<Wait>>,
}

#[derive(Default)]
struct Wait {
    done: Notify,
    /// Why there is no connection.
    failure: RefCell<Option<String>>,
}

/// What an attempt without a connection is to do.
pub(super) enum Turn<'a> {
    /// Make one, and say what came of it.
    Dial(DialTurn<'a>),
    /// Look again.
    Again,
    /// Another one has tried, and failed.
    Failed(String),
}

/// The duty to make a connection.
pub(super) struct DialTurn<'a> {
    http2: &'a Http2,
    failure: Option<String>,
}

impl DialTurn<'_> {
    /// There is no connection.
    pub(super) fn failed(mut self, reason: &str) {
        self.failure = Some(reason.to_owned());
    }
}

impl Drop for DialTurn<'_> {
    fn drop(&mut self) {
        let mut dialing = self.http2.dialing.borrow_mut();
        dialing.under_way = false;
        for wait in std::mem::take(&mut dialing.waiting) {
            wait.failure.borrow_mut().clone_from(&self.failure);
            wait.done.notify();
        }
    }
}

struct Connection {
    sender: SendRequest<Bytes>,
    opened: Instant,
    last_used: Cell<Instant>,
    in_flight: Cell<usize>,
    /// What it has refused to take at once was more than this.
    in_flight_max: Cell<usize>,
    requests: Cell<u32>,
    /// It has answered a request.
    answered: Cell<bool>,
    /// It takes no new requests.
    retired: Cell<bool>,
    /// When something came last.
    heard: Rc<Cell<Instant>>,
}

impl Connection {
    fn is_usable(&self, limits: &PoolLimits, now: Instant) -> bool {
        if self.retired.get()
            || now.saturating_duration_since(self.opened) >= limits.lifetime
            || self.requests.get() >= limits.requests_max
        {
            return false;
        }
        // A handle of its own has nothing to wait for; what it says is whether the endpoint wants to end this.
        let ready = self.sender.clone().poll_ready(&mut Context::from_waker(noop_waker_ref()));
        !matches!(ready, Poll::Ready(Err(_)))
    }

    fn has_room(&self) -> bool {
        self.in_flight.get() < self.in_flight_max.get().min(self.sender.current_max_send_streams())
    }
}

/// The right to one request on a connection.
pub(super) struct Seat {
    connection: Rc<Connection>,
    begun: Instant,
    done: bool,
}

impl Seat {
    fn new(connection: Rc<Connection>, now: Instant) -> Seat {
        connection.in_flight.set(connection.in_flight.get() + 1);
        connection.requests.set(connection.requests.get().saturating_add(1));
        Seat { connection, begun: now, done: false }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let c = &self.connection;
        c.in_flight.set(c.in_flight.get() - 1);
        c.last_used.set(driver::now());
        if !self.done && c.heard.get() < self.begun {
            // Given up, and nothing was heard of the other end meanwhile: others must not wait for it as well.
            c.retired.set(true);
        }
    }
}

impl Http2 {
    pub(super) fn new(
        head: &RequestHead,
        limits: PoolLimits,
        idle: Duration,
        wanted: [Option<Arc<str>>; 2],
        keeps_bodies: bool,
    ) -> Result<Http2> {
        let mut fields = HeaderMap::new();
        for (name, value) in head.fields() {
            add(&mut fields, name, value)?;
        }
        fields.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let method = http::Method::from_bytes(head.method().as_str().as_bytes());
        Ok(Http2 {
            method: method.map_err(|e| Error::invalid_config(e.to_string()))?,
            authority: head.authority().to_owned(),
            fields,
            limits,
            idle,
            wanted,
            body_kept: if keeps_bodies { BODY_READ_BYTES_MAX } else { BODY_KEPT_BYTES_MAX },
            open: RefCell::default(),
            tasks: RefCell::default(),
            at_first: Cell::new(STREAMS_AT_FIRST),
            chose_http1: Cell::new(false),
            dialing: RefCell::default(),
        })
    }

    /// A place on a connection that is there.
    pub(super) fn take(&self, now: Instant) -> Option<Seat> {
        let mut open = self.open.borrow_mut();
        open.retain(|c| c.is_usable(&self.limits, now));
        open.iter().find(|c| c.has_room()).map(|c| Seat::new(c.clone(), now))
    }

    /// Whose turn it is to make a connection; waits while another one makes one.
    pub(super) async fn turn(&self) -> Turn<'_> {
        // Connections for HTTP/1.1 cannot be shared.
        if self.chose_http1.get() {
            return Turn::Dial(DialTurn { http2: self, failure: None });
        }
        let wait = {
            let mut dialing = self.dialing.borrow_mut();
            if !dialing.under_way {
                dialing.under_way = true;
                return Turn::Dial(DialTurn { http2: self, failure: None });
            }
            let wait = Rc::<Wait>::default();
            dialing.waiting.push(wait.clone());
            wait
        };
        wait.done.notified().await;
        let failure = wait.failure.borrow_mut().take();
        failure.map_or(Turn::Again, Turn::Failed)
    }

    /// Notes that the endpoint has chosen HTTP/1.1.
    pub(super) fn note_http1(&self) {
        self.chose_http1.set(true);
        self.open.borrow().iter().for_each(|c| c.retired.set(true));
    }

    /// Takes a connection into use on which HTTP/2 was agreed on.
    pub(super) async fn add(&self, stream: Box<TlsStream<driver::Stream>>) -> std::result::Result<Seat, h2::Error> {
        self.chose_http1.set(false);
        let now = driver::now();
        let heard = Rc::new(Cell::new(now));
        let io = Io { stream, heard: heard.clone() };
        let (sender, running) = h2::client::Builder::new()
            .enable_push(false)
            .initial_window_size(WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .initial_max_send_streams(self.at_first.get())
            .max_header_list_size(RESPONSE_HEAD_BYTES_MAX as u32)
            .handshake::<_, Bytes>(io)
            .await?;
        let connection = Rc::new(Connection {
            sender,
            opened: now,
            last_used: Cell::new(now),
            in_flight: Cell::new(0),
            in_flight_max: Cell::new(usize::MAX),
            requests: Cell::new(0),
            answered: Cell::new(false),
            retired: Cell::new(false),
            heard,
        });
        let stop = Rc::new(Notify::default());
        let mut tasks = self.tasks.borrow_mut();
        tasks.retain(|t| t.strong_count() > 0);
        tasks.push(Rc::downgrade(&stop));
        let known = Rc::downgrade(&connection);
        // It ends by itself, or by a word: the runtime does not free the memory of a cancelled task.
        driver::spawn(async move {
            select(pin!(running), pin!(stop.notified())).await;
            if let Some(connection) = known.upgrade() {
                connection.retired.set(true);
            }
        })
        .detach();
        self.open.borrow_mut().push(connection.clone());
        Ok(Seat::new(connection, now))
    }

    /// Sends a request and reads its answer.
    pub(super) async fn exchange(
        &self,
        mut seat: Seat,
        target: &str,
        extra: &[(&str, &str)],
        body: Bytes,
        explain: &dyn Fn(&io::Error) -> String,
    ) -> std::result::Result<Response, Failure> {
        let request = self.request(target, extra, body.len()).map_err(|e| Failure::Other(e.to_string()))?;
        let result = self.exchange_on(&seat.connection, request, body).await;
        seat.done = true;
        // The next connection begins with what this one allows.
        self.at_first.set(seat.connection.sender.current_max_send_streams().clamp(1, STREAMS_AT_FIRST));
        result.map_err(|(e, begun)| judge(&e, &seat.connection, begun, explain))
    }

    fn request(&self, target: &str, extra: &[(&str, &str)], length: usize) -> Result<Request<()>> {
        let bad = |e: http::Error| Error::new(ErrorKind::InvalidArgument, e.to_string());
        let uri = Uri::builder().scheme("https").authority(self.authority.as_str()).path_and_query(target);
        let mut request = Request::new(());
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = uri.build().map_err(bad)?;
        *request.version_mut() = http::Version::HTTP_2;
        let mut fields = self.fields.clone();
        for (name, value) in extra {
            add(&mut fields, name, value)?;
        }
        fields.insert(CONTENT_LENGTH, HeaderValue::from(length));
        *request.headers_mut() = fields;
        Ok(request)
    }

    /// An error comes with whether the answer had begun.
    async fn exchange_on(
        &self,
        connection: &Connection,
        request: Request<()>,
        body: Bytes,
    ) -> std::result::Result<Response, (h2::Error, bool)> {
        let mut sender = connection.sender.clone();
        poll_fn(|cx| sender.poll_ready(cx)).await.map_err(|e| (e, false))?;
        let (answer, mut stream) = sender.send_request(request, body.is_empty()).map_err(|e| (e, false))?;
        drop(sender);
        if !body.is_empty() {
            // An endpoint may answer before it has read everything: the answer counts, not what could not be sent.
            let _ = stream.send_data(body, true);
        }
        let (head, mut body) = answer.await.map_err(|e| (e, false))?.into_parts();
        connection.answered.set(true);
        let fields = head.headers.iter().take(HEADERS_MAX).map(|(name, value)| (name.as_str(), value.as_bytes()));
        let wanted = self.wanted.each_ref().map(Option::as_deref);
        let mut response = Response::of_fields(head.status.as_u16(), fields, wanted);
        let mut read = 0;
        while read < BODY_READ_BYTES_MAX {
            let piece = match body.data().await {
                None => break,
                Some(Ok(piece)) => piece,
                // All was said, and it does not want the rest of the request (RFC 9113, 8.1).
                Some(Err(e)) if e.is_reset() && e.reason() == Some(Reason::NO_ERROR) => break,
                Some(Err(e)) => return Err((e, true)),
            };
            read += piece.len();
            let room = self.body_kept - response.body_start.len();
            response.body_start.extend_from_slice(&piece[..piece.len().min(room)]);
            let _ = body.flow_control().release_capacity(piece.len());
        }
        // A longer body is abandoned: the stream is reset when it is dropped here.
        Ok(response)
    }

    /// Lets go of connections that were idle for too long.
    pub(super) fn expire(&self, now: Instant) {
        self.open.borrow_mut().retain(|c| {
            let is_idle = c.in_flight.get() == 0 && now.saturating_duration_since(c.last_used.get()) >= self.idle;
            !is_idle && c.is_usable(&self.limits, now)
        });
    }
}

impl Drop for Http2 {
    fn drop(&mut self) {
        for task in self.tasks.get_mut().iter().filter_map(Weak::upgrade) {
            task.notify();
        }
    }
}

fn add(fields: &mut HeaderMap, name: &str, value: &str) -> Result<()> {
    let pair = HeaderName::from_bytes(name.as_bytes()).ok().zip(HeaderValue::from_str(value).ok());
    // The value may be a secret.
    let Some((name, value)) = pair else {
        return Err(Error::new(ErrorKind::InvalidArgument, format!("header {name:?} cannot be sent")));
    };
    fields.append(name, value);
    Ok(())
}

/// What a request that failed says, and what it means for its connection. `begun`: the answer had begun.
fn judge(e: &h2::Error, connection: &Connection, begun: bool, explain: &dyn Fn(&io::Error) -> String) -> Failure {
    if e.is_reset() && e.is_remote() {
        return match e.reason() {
            // Surely not looked at (RFC 9113, 8.7).
            Some(Reason::REFUSED_STREAM) => {
                let others = connection.in_flight.get().saturating_sub(1);
                connection.in_flight_max.set(others.max(1));
                Failure::Refused("the endpoint refuses streams".into())
            }
            Some(Reason::HTTP_1_1_REQUIRED) => Failure::Http1,
            reason => Failure::Other(format!(
                "the endpoint reset the request's stream: {}",
                reason.map_or_else(|| e.to_string(), |r| r.description().to_owned())
            )),
        };
    }
    connection.retired.set(true);
    if e.is_go_away() && e.is_remote() {
        // Streams that it has taken go on; of the others it says that it has not looked at them (RFC 9113, 6.8).
        let why = e.reason().filter(|r| *r != Reason::NO_ERROR).map(|r| format!(": {}", r.description()));
        return Failure::Refused(format!("the endpoint ends the connection{}", why.unwrap_or_default()));
    }
    match e.get_io() {
        _ if begun => Failure::Other(format!("the answer was cut off: {e}")),
        // As with HTTP/1.1: it was closed at the moment at which it was used again.
        Some(_) if connection.answered.get() => Failure::Stale,
        Some(io) => Failure::Other(explain(io)),
        None => Failure::Other(format!("the endpoint does not speak HTTP/2 as it should: {e}")),
    }
}

/// A connection as the library wants it.
struct Io {
    stream: Box<TlsStream<driver::Stream>>,
    heard: Rc<Cell<Instant>>,
}

impl TokioRead for Io {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        Pin::new(&mut this.stream).poll_read(cx, buf.initialize_unfilled()).map_ok(|n| {
            buf.advance(n);
            this.heard.set(driver::now());
        })
    }
}

impl TokioWrite for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_close(cx)
    }
}
