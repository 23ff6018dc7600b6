//! Webhooks: batches as POST requests over HTTP/1.1, plain or with TLS.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use futures_rustls::TlsConnector;
use futures_rustls::client::TlsStream;
use rustls::pki_types::ServerName;
use url::Host;

use super::credentials::Credentials;
use crate::delivery::{Attempt, Connector, Outcome, Record};
use crate::driver::{self, TcpStream};
use crate::error::{Error, ErrorKind, Result};
use crate::event::profile::Profile;
use crate::net::http::{self, Class, RequestHead, Response, ResponseParser, State};
use crate::net::tls::{self, Roots};
use crate::rule::Webhook;

/// How long an address stays as it was looked up. The system's resolver does not tell the record's own lifetime.
const ADDRESS_KEPT: Duration = Duration::from_secs(30);
/// A connection is not used for longer than this, so that a moved endpoint is noticed.
const CONNECTION_LIFETIME: Duration = Duration::from_secs(60);
/// Idle connections kept per endpoint and shard.
const IDLE_MAX: usize = 64;
/// How many slices one write is given; the system takes 1024 at most.
const SLICES_MAX: usize = 512;
const READ_BYTES: usize = 4096;

/// See the module.
pub(crate) struct WebhookConnector {
    profile: Profile,
    head: RequestHead,
    host: Host<String>,
    port: u16,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    timeout: Duration,
    connect_timeout: Duration,
    idle: Duration,
    pool: RefCell<Vec<Connection>>,
    addresses: RefCell<Option<(Instant, Vec<SocketAddr>)>>,
    connections: Cell<u64>,
    credentials: Option<Credentials>,
    /// Bodies of answers are wanted as a whole.
    keeps_bodies: bool,
}

/// One connection with its parser.
struct Connection {
    stream: Stream,
    parser: ResponseParser,
    opened: Instant,
    last_used: Instant,
    idle: Duration,
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    fn poll_write_vectored(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match self {
            Stream::Plain(s) => Pin::new(s).poll_write_vectored(cx, bufs),
            Stream::Tls(s) => Pin::new(s).poll_write_vectored(cx, bufs),
        }
    }

    async fn flush(&mut self) -> io::Result<()> {
        match self {
            Stream::Plain(_) => Ok(()),
            Stream::Tls(s) => s.flush().await,
        }
    }

    async fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        poll_fn(|cx| match self {
            Stream::Plain(s) => Pin::new(s).poll_read(cx, buf),
            Stream::Tls(s) => Pin::new(s).poll_read(cx, buf),
        })
        .await
    }
}

/// Why a request got no answer.
enum Failure {
    /// A reused connection ended before the first byte of an answer: the request may be sent again at once.
    Stale,
    Other(String),
}

impl WebhookConnector {
    pub(crate) fn new(webhook: &Webhook, profile: Profile) -> Result<WebhookConnector> {
        let credentials = (!webhook.auth.is_empty()).then(|| Credentials::new(webhook));
        Ok(WebhookConnector { credentials, ..Self::posting(webhook, profile, profile.content_type())? })
    }

    /// One that asks for tokens, with [`WebhookConnector::post`].
    pub(super) fn of_tokens(webhook: &Webhook, content_type: &str) -> Result<WebhookConnector> {
        Ok(WebhookConnector { keeps_bodies: true, ..Self::posting(webhook, Profile::default(), content_type)? })
    }

    fn posting(webhook: &Webhook, profile: Profile, content_type: &str) -> Result<WebhookConnector> {
        let headers: Vec<(&str, &str)> = webhook.headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        let head = RequestHead::post(&webhook.url, content_type, &headers)?;
        let host = webhook.url.host().ok_or_else(|| Error::invalid_config("the URL has no host"))?.to_owned();
        let tls = match webhook.url.scheme() {
            "https" => {
                let roots = webhook.tls_ca.clone().map_or(Roots::System, Roots::File);
                let config = tls::client_config(&roots, None)?;
                Some((TlsConnector::from(config), tls::server_name(&host.to_string())?))
            }
            _ => None,
        };
        Ok(WebhookConnector {
            profile,
            head,
            port: webhook.url.port_or_known_default().unwrap_or(80),
            host,
            tls,
            timeout: webhook.timeout,
            connect_timeout: webhook.connect_timeout,
            idle: webhook.idle,
            pool: RefCell::default(),
            addresses: RefCell::default(),
            connections: Cell::new(0),
            credentials: None,
            keeps_bodies: false,
        })
    }

    async fn attempt(&self, records: &[Record]) -> Outcome {
        let (batch_head, separator, tail) =
            (self.profile.batch_head(), self.profile.separator(), self.profile.batch_tail());
        // Each record comes with the separator before it; the first one goes without.
        let records_len = records.iter().map(|r| r.bytes.len()).sum::<usize>();
        let length = batch_head.len() + records_len - separator.len() + tail.len();
        let again = |reason: String| Outcome::Retry { endpoint: true, reason, status: 0, answer: Bytes::new() };
        let deadline = driver::now() + self.timeout;
        let late = || again(format!("no complete answer within {:?}", self.timeout));
        let Some(credentials) = &self.credentials else {
            let mut head = Vec::with_capacity(512);
            if let Err(e) = self.head.write(&[], length as u64, &mut head) {
                return Outcome::Undeliverable { reason: e.to_string() };
            }
            head.extend_from_slice(batch_head);
            let pieces = pieces(&head, records, separator.len(), tail);
            return match driver::until(deadline, self.exchange(&pieces)).await {
                None => late(),
                Some(Err(reason)) => again(reason),
                Some(Ok(response)) => judge(&response),
            };
        };
        let body = pieces(batch_head, records, separator.len(), tail);
        let sending = async {
            loop {
                let (signed, token) = credentials.sign(&self.head, &body, records).await.map_err(|e| e.to_string())?;
                let mut head = Vec::with_capacity(1024);
                let target = signed.target().unwrap_or(self.head.target());
                // What is too large now may be smaller with the next secret.
                let written = self.head.write_to(target, &signed.headers(), length as u64, &mut head);
                written.map_err(|e| e.to_string())?;
                let mut pieces = body.clone();
                pieces.insert(0, &head);
                let mut response = self.exchange(&pieces).await?;
                signed.hide(&mut response.body_start);
                if !credentials.is_token_refused(token, response.status) {
                    return Ok(response);
                }
            }
        };
        match driver::until(deadline, sending).await {
            None => late(),
            Some(Err(reason)) => again(reason),
            Some(Ok(response)) => judge(&response),
        }
    }

    /// Sends a body, and answers with what comes back, whatever it is.
    pub(super) async fn post(&self, headers: &[(&str, &str)], body: &[u8]) -> std::result::Result<Response, String> {
        let mut head = Vec::with_capacity(512);
        self.head.write(headers, body.len() as u64, &mut head).map_err(|e| e.to_string())?;
        self.exchange(&[&head, body]).await
    }

    /// Sends a request and reads its answer; once more on a fresh connection if a reused one turns out to be dead.
    async fn exchange(&self, pieces: &[&[u8]]) -> std::result::Result<Response, String> {
        if let Some(mut connection) = self.take_idle() {
            match self.exchange_on(&mut connection, pieces, true).await {
                Ok(response) => {
                    self.give_back(connection, &response);
                    return Ok(response);
                }
                Err(Failure::Stale) => {}
                Err(Failure::Other(reason)) => return Err(reason),
            }
        }
        let mut connection = self.connect().await?;
        match self.exchange_on(&mut connection, pieces, false).await {
            Ok(response) => {
                self.give_back(connection, &response);
                Ok(response)
            }
            Err(Failure::Stale) => Err("the endpoint closed the connection without an answer".into()),
            Err(Failure::Other(reason)) => Err(reason),
        }
    }

    async fn exchange_on(
        &self,
        connection: &mut Connection,
        pieces: &[&[u8]],
        reused: bool,
    ) -> std::result::Result<Response, Failure> {
        let Connection { stream, parser, .. } = connection;
        parser.reset();
        // An endpoint may answer and hang up before it has read everything: the answer counts, not the failed write.
        let sent = write_all(stream, pieces).await;
        let mut buf = [0u8; READ_BYTES];
        loop {
            let n = match stream.read(&mut buf).await {
                Ok(n) => n,
                Err(e) => {
                    if reused && parser.zero_bytes_seen() {
                        return Err(Failure::Stale);
                    }
                    let e = sent.err().unwrap_or(e);
                    return Err(Failure::Other(self.explain(&e)));
                }
            };
            let state = if n == 0 { parser.eof() } else { parser.feed(&buf[..n]).map(|p| p.state) };
            match state {
                Ok(State::NeedMore) => {}
                Ok(State::Done | State::CloseAfter) => {
                    return match parser.take_response() {
                        Some(mut response) => {
                            response.keep_alive &= sent.is_ok();
                            Ok(response)
                        }
                        None => Err(Failure::Other("the endpoint's answer was lost".into())),
                    };
                }
                Err(http::ResponseError::Closed) if reused => return Err(Failure::Stale),
                Err(e) => return Err(Failure::Other(e.to_string())),
            }
        }
    }

    fn explain(&self, e: &io::Error) -> String {
        match &self.tls {
            Some(_) => tls::explain(&self.host.to_string(), e).to_string(),
            None => format!("the connection broke: {e}"),
        }
    }

    fn take_idle(&self) -> Option<Connection> {
        let now = driver::now();
        let mut pool = self.pool.borrow_mut();
        while let Some(c) = pool.pop() {
            if now.duration_since(c.last_used) < c.idle && now.duration_since(c.opened) < CONNECTION_LIFETIME {
                return Some(c);
            }
        }
        None
    }

    fn give_back(&self, mut connection: Connection, response: &Response) {
        let mut pool = self.pool.borrow_mut();
        if response.keep_alive && pool.len() < IDLE_MAX {
            connection.last_used = driver::now();
            if let Some(theirs) = response.keep_alive_timeout {
                connection.idle = self.idle.min(theirs.saturating_sub(Duration::from_secs(1)));
            }
            pool.push(connection);
        }
    }

    /// Lets go of connections that were idle for too long.
    pub(super) fn expire_idle(&self, now: Instant) {
        self.pool.borrow_mut().retain(|c| now.duration_since(c.last_used) < c.idle);
    }

    async fn connect(&self) -> std::result::Result<Connection, String> {
        let deadline = driver::now() + self.connect_timeout;
        let late = || format!("no connection to {}:{} within {:?}", self.host, self.port, self.connect_timeout);
        let addresses = match driver::until(deadline, self.resolve()).await {
            Some(r) => r.map_err(|e| e.to_string())?,
            None => return Err(format!("the name {} could not be looked up in time", self.host)),
        };
        let mut last = String::new();
        for address in addresses {
            let Some(connected) = driver::until(deadline, TcpStream::connect(address)).await else {
                return Err(late());
            };
            match connected {
                Ok(tcp) => {
                    let stream = match &self.tls {
                        None => Stream::Plain(tcp),
                        Some((connector, name)) => {
                            match driver::until(deadline, connector.connect(name.clone(), tcp)).await {
                                Some(Ok(s)) => Stream::Tls(Box::new(s)),
                                Some(Err(e)) => return Err(self.explain(&e)),
                                None => return Err(late()),
                            }
                        }
                    };
                    self.connections.set(self.connections.get() + 1);
                    let now = driver::now();
                    return Ok(Connection {
                        stream,
                        parser: match self.keeps_bodies {
                            false => ResponseParser::new(),
                            true => ResponseParser::keeping_bodies(),
                        },
                        opened: now,
                        last_used: now,
                        idle: self.idle,
                    });
                }
                Err(e) => last = format!("cannot connect to {address}: {e}"),
            }
        }
        // The next attempt asks again: the endpoint may have moved.
        *self.addresses.borrow_mut() = None;
        Err(last)
    }

    async fn resolve(&self) -> Result<Vec<SocketAddr>> {
        let name = match &self.host {
            Host::Ipv4(ip) => return Ok(vec![SocketAddr::new(IpAddr::V4(*ip), self.port)]),
            Host::Ipv6(ip) => return Ok(vec![SocketAddr::new(IpAddr::V6(*ip), self.port)]),
            Host::Domain(name) => name.clone(),
        };
        if let Some((at, found)) = self.addresses.borrow().as_ref()
            && driver::since(*at) < ADDRESS_KEPT
        {
            return Ok(found.clone());
        }
        let port = self.port;
        let found = driver::blocking(move || {
            let failed = |e: String| {
                Error::new(ErrorKind::Io, format!("cannot look up {name}: {e}"))
                    .remedy("check the name and the resolver")
            };
            let found: Vec<SocketAddr> =
                (name.as_str(), port).to_socket_addrs().map_err(|e| failed(e.to_string()))?.collect();
            if found.is_empty() { Err(failed("it has no address".into())) } else { Ok(found) }
        })
        .await?;
        *self.addresses.borrow_mut() = Some((driver::now(), found.clone()));
        Ok(found)
    }
}

impl Connector for WebhookConnector {
    fn send<'a>(&'a self, records: &'a [Record]) -> Attempt<'a> {
        Box::pin(self.attempt(records))
    }

    fn expire(&self, now: Instant) {
        self.expire_idle(now);
        if let Some(c) = &self.credentials {
            c.expire(now);
        }
    }

    fn connections(&self) -> u64 {
        self.connections.get()
    }
}

/// A request, or its body, as slices: the head, the records (the first without its separator), the tail.
fn pieces<'a>(head: &'a [u8], records: &'a [Record], separator: usize, tail: &'a [u8]) -> Vec<&'a [u8]> {
    let mut out = Vec::with_capacity(records.len() + 2);
    out.push(head);
    out.extend(records.iter().enumerate().map(|(i, r)| if i == 0 { &r.bytes[separator..] } else { &r.bytes[..] }));
    out.push(tail);
    out
}

async fn write_all(stream: &mut Stream, pieces: &[&[u8]]) -> io::Result<()> {
    let mut piece = 0;
    let mut offset = 0;
    while piece < pieces.len() {
        let mut slices: [IoSlice<'_>; SLICES_MAX] = [IoSlice::new(&[]); SLICES_MAX];
        let mut n = 0;
        for p in &pieces[piece..] {
            if n == SLICES_MAX {
                break;
            }
            slices[n] = IoSlice::new(if n == 0 { &p[offset..] } else { p });
            n += 1;
        }
        let mut wrote = poll_fn(|cx| stream.poll_write_vectored(cx, &slices[..n])).await?;
        if wrote == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        while piece < pieces.len() && wrote >= pieces[piece].len() - offset {
            wrote -= pieces[piece].len() - offset;
            piece += 1;
            offset = 0;
        }
        offset += wrote;
    }
    stream.flush().await
}

/// What an answer means for the events of its request.
fn judge(response: &Response) -> Outcome {
    let status = response.status;
    let retry_after = || {
        let unix = (driver::wall_ns() / 1_000_000_000) as i64;
        response.retry_after.map(|r| r.wait(unix).as_nanos() as u64)
    };
    let reason = http::describe(response);
    let answer = Bytes::copy_from_slice(&response.body_start);
    match http::classify(status) {
        Class::Success => Outcome::Success,
        Class::Poison => Outcome::Poison { reason, status, answer },
        Class::Throttle => Outcome::Throttle { after_ns: retry_after(), reason, status, answer },
        _ => match retry_after() {
            // Any answer that says when to come back is taken at its word.
            Some(ns) => Outcome::Throttle { after_ns: Some(ns), reason, status, answer },
            None => Outcome::Retry { endpoint: status >= 500, reason, status, answer },
        },
    }
}
