//! Webhooks: batches as POST requests over HTTP/1.1, plain or with TLS, or over HTTP/2.

use std::cell::{Cell, RefCell};
use std::future::{poll_fn, ready};
use std::io;
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use super::credentials::Credentials;
use super::http2::{Http2, Seat, Turn};
use super::parts::Parts;
use super::trace::Trace;
use super::wrapping::Wrapping;
use crate::config::Network;
use crate::delivery::{Attempt, Connector, Fault, Outcome, Record};
use crate::driver::{self, SocketOptions};
use crate::error::{Error, Result};
use crate::event::format::Format;
use crate::event::profile::Profile;
use crate::net::dial::{Dialer, Secured, Way};
use crate::net::http::{self, Class, Method, RequestHead, Response, ResponseParser, State};
use crate::net::pool::{Pool, Pooled};
use crate::net::stream::Stream;
use crate::net::tls;
use crate::rule::{Partial, Success, VerificationMethod, Webhook};

/// Answers are short.
const READ_BYTES: usize = 4096;

thread_local! {
    /// What an answer is read into. Not beside the read, where it would be part of every attempt.
    static READ: RefCell<[u8; READ_BYTES]> = const { RefCell::new([0; READ_BYTES]) };
    /// What requests are written into, one behind the other.
    static WRITTEN: RefCell<BytesMut> = RefCell::new(BytesMut::with_capacity(WRITTEN_BYTES));
}

/// So much memory is asked for at once, for several requests.
const WRITTEN_BYTES: usize = 8192;
/// A body of no more bytes is copied behind the head: that takes less than to have the kernel gather the two.
const SMALL_BYTES: usize = 2048;

/// What of a request is written rather than shared.
fn written(write: impl FnOnce(&mut BytesMut) -> Result<()>) -> Result<Bytes> {
    WRITTEN.with_borrow_mut(|out| {
        let result = write(out);
        let written = out.split().freeze();
        result.map(|()| written)
    })
}

/// The shortest time that the kernel can wait before it asks after a quiet connection.
const KEEP_ALIVE_MIN: Duration = Duration::from_secs(1);

/// See the module.
pub(crate) struct WebhookConnector {
    parts: Parts,
    head: RequestHead,
    dialer: Dialer,
    timeout: Duration,
    pool: RefCell<Pool<Box<Connection>>>,
    /// Where HTTP/2 is allowed.
    http2: Option<Http2>,
    connections: Cell<u64>,
    credentials: Option<Credentials>,
    wrapping: Option<Wrapping>,
    /// The media type of bodies before they are wrapped.
    content_type: String,
    /// Bodies of answers are wanted as a whole.
    keeps_bodies: bool,
    success: Success,
    partial: Option<Partial>,
    /// The header that answers are to have, and another one that is looked at.
    wanted: [Option<Arc<str>>; 2],
}

/// One connection with its parser.
struct Connection {
    stream: Stream,
    parser: ResponseParser,
}

/// What the request of one attempt consists of.
struct Message<'a> {
    /// The pieces in which it is sent over HTTP/1.1.
    pieces: &'a dyn Fn() -> Vec<Bytes>,
    /// So many bytes of the first piece are the head; what follows is the body.
    head_bytes: usize,
    /// What else the head is made of.
    target: &'a str,
    headers: &'a [(&'a str, &'a str)],
}

/// What a request is sent on.
enum Line {
    /// A connection for it alone, and whether it was used before.
    Own(Pooled<Box<Connection>>, bool),
    /// One of HTTP/2.
    Shared(Seat),
}

/// Why a request got no answer.
pub(super) enum Failure {
    /// A reused connection ended before the first byte of an answer: the request may be sent again at once.
    Stale,
    /// The endpoint says that it has not looked at the request, and why.
    Refused(String),
    /// The endpoint wants HTTP/1.1 for it.
    Http1,
    Other(String),
}

/// How often a request is sent again at once that the endpoint has not looked at.
const RESENDS_MAX: u32 = 3;

impl WebhookConnector {
    /// A connector for up to `concurrency` requests at once.
    pub(crate) fn new(
        webhook: &Webhook,
        (profile, format): (Profile, &Format),
        concurrency: usize,
        network: &Arc<Network>,
    ) -> Result<WebhookConnector> {
        let credentials = (!webhook.auth.is_empty()).then(|| Credentials::new(webhook, network.clone()));
        let wrapping = Wrapping::of(webhook);
        let content_type = format.content_type(profile);
        let on_the_wire = wrapping.as_ref().and_then(Wrapping::content_type).unwrap_or(content_type);
        let origin = webhook.verification.as_ref().filter(|v| v.method == VerificationMethod::CloudEvents);
        let origin = origin.map(|v| v.origin());
        let mut made = profile_headers(profile, format).to_vec();
        made.extend(origin.as_ref().map(|origin| ("WebHook-Request-Origin", origin.as_str())));
        let posting =
            Self::posting(webhook, (Method::Post, &made, on_the_wire), Self::wanted(webhook), concurrency, network)?;
        let (parts, content_type) = (Parts::of(format, profile), content_type.to_owned());
        Ok(WebhookConnector { parts, credentials, wrapping, content_type, ..posting })
    }

    /// One that asks for tokens, with [`WebhookConnector::post`].
    pub(super) fn of_tokens(webhook: &Webhook, content_type: &str, network: &Network) -> Result<WebhookConnector> {
        let posting = Self::posting(webhook, (Method::Post, &[], content_type), Self::wanted(webhook), 1, network)?;
        Ok(WebhookConnector { keeps_bodies: true, ..posting })
    }

    /// One that asks the endpoint something before it gets events, with [`WebhookConnector::ask`], and looks for
    /// `WebHook-Allowed-Origin` and `WebHook-Allowed-Rate`.
    pub(super) fn asking(
        webhook: &Webhook,
        method: Method,
        headers: &[(&str, &str)],
        content_type: &str,
        network: &Arc<Network>,
    ) -> Result<WebhookConnector> {
        let credentials = (!webhook.auth.is_empty()).then(|| Credentials::new(webhook, network.clone()));
        let wanted = ["WebHook-Allowed-Origin", "WebHook-Allowed-Rate"].map(|name| Some(name.into()));
        let posting = Self::posting(webhook, (method, headers, content_type), wanted, 1, network)?;
        Ok(WebhookConnector { credentials, ..posting })
    }

    /// The same for records that are whole bodies.
    pub(super) fn of_documents(self) -> WebhookConnector {
        WebhookConnector { parts: Parts::default(), ..self }
    }

    /// Sends a body, signed, and answers with what comes back, whatever it is, within the time of an attempt.
    pub(super) async fn ask(&self, body: Bytes) -> std::result::Result<Response, String> {
        let id = crate::event::EventId { incarnation: driver::wall_ns(), shard: 0, sequence: 1 };
        let records = [Record { id, bytes: body.clone() }];
        let deadline = driver::now() + self.timeout;
        match driver::until(deadline, self.send_signed(&records, Vec::new(), &[body])).await {
            None => Err(format!("no complete answer within {:?}", self.timeout)),
            Some(Err(reason) | Ok(Err(reason))) => Err(reason),
            Some(Ok(Ok(response))) => Ok(response),
        }
    }

    /// The headers of answers that matter where events are sent.
    fn wanted(webhook: &Webhook) -> [Option<Arc<str>>; 2] {
        [webhook.success.header.as_ref().map(|h| h.name.as_str().into()), None]
    }

    fn posting(
        webhook: &Webhook,
        (method, of_profile, content_type): (Method, &[(&str, &str)], &str),
        wanted: [Option<Arc<str>>; 2],
        concurrency: usize,
        network: &Network,
    ) -> Result<WebhookConnector> {
        let mut headers: Vec<(&str, &str)> = webhook.headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        for (name, value) in of_profile {
            if !headers.iter().any(|(n, _)| n.eq_ignore_ascii_case(name)) {
                headers.push((name, value));
            }
        }
        let kind = (!content_type.is_empty()).then_some(content_type);
        let mut head = RequestHead::new(method, &webhook.url, kind, &headers)?;
        let host = webhook.url.host().ok_or_else(|| Error::invalid_config("the URL has no host"))?.to_owned();
        let tls = match webhook.url.scheme() {
            "https" => {
                let name = webhook.tls.server_name.clone().unwrap_or_else(|| host.to_string());
                let shared = network.tls.get(&webhook.tls, webhook.http2);
                Some(Secured { shared, name: tls::server_name(&name)?, http1_only: Cell::new(false) })
            }
            _ => None,
        };
        let policy = network.config.policy(webhook);
        let way = match (&webhook.unix_socket, network.config.proxy_of(webhook)) {
            (Some(path), _) => Way::Unix(path.clone()),
            (None, Some(proxy)) => {
                if tls.is_none() {
                    head = head.for_proxy(proxy.authorization().as_deref())?;
                }
                Way::Proxy(proxy.clone(), network.config.policy_of_proxies())
            }
            (None, None) => Way::Direct,
        };
        let target = (host, webhook.url.port_or_known_default().unwrap_or(80));
        let user_timeout = webhook.pool.user_timeout;
        let options = SocketOptions {
            sockets: network.config.sockets,
            user_timeout,
            keep_alive: user_timeout.max(KEEP_ALIVE_MIN),
        };
        let resolver = network.resolver.clone();
        let keeps_bodies = webhook.success.reads_body() || webhook.partial.is_some();
        let http2 = webhook.http2 && tls.is_some();
        let http2 = http2.then(|| Http2::new(&head, webhook.pool, webhook.idle, wanted.clone(), keeps_bodies));
        Ok(WebhookConnector {
            parts: Parts::default(),
            head,
            dialer: Dialer::new(target, way, policy, tls, resolver, webhook.connect_timeout, options),
            timeout: webhook.timeout,
            pool: RefCell::new(Pool::new(webhook.pool, webhook.idle, concurrency)),
            http2: http2.transpose()?,
            connections: Cell::new(0),
            credentials: None,
            wrapping: None,
            content_type: content_type.to_owned(),
            keeps_bodies,
            success: webhook.success.clone(),
            partial: webhook.partial.clone(),
            wanted,
        })
    }

    /// Where the steps of attempts are noted.
    pub(super) fn trace(&self) -> &Trace {
        self.dialer.trace()
    }

    /// Sends records as they are: nothing but their number of bytes is to be known for the head.
    async fn attempt_plain(&self, records: &[Record]) -> Outcome {
        let Parts { head: batch_head, separator, tail, .. } = self.parts;
        // Each record comes with the separator before it; the first one goes without.
        let records_len = records.iter().map(|r| r.bytes.len()).sum::<usize>();
        let length = batch_head.len() + records_len - separator.len() + tail.len();
        let small = length <= SMALL_BYTES;
        let mut head_bytes = 0;
        let written = written(|out| {
            self.head.write(&[], length as u64, out)?;
            head_bytes = out.len();
            out.extend_from_slice(batch_head);
            if small {
                self.parts.join(records, out);
            }
            Ok(())
        });
        let head = match written {
            Ok(head) => head,
            Err(e) => return Outcome::Undeliverable { reason: e.to_string() },
        };
        let pieces = || if small { vec![head.clone()] } else { self.parts.pieces(head.clone(), records) };
        let message = Message { pieces: &pieces, head_bytes, target: self.head.target(), headers: &[] };
        let now = driver::now();
        match driver::until(now + self.timeout, self.exchange(&message, now)).await {
            None => self.late(),
            Some(Err(reason)) => again(reason),
            Some(Ok(response)) => self.judge(&response, records),
        }
    }

    /// Sends records in a body that is wrapped or signed, or that brings headers of its own.
    async fn attempt_made(&self, records: &[Record]) -> Outcome {
        let Some((made, body)) = self.parts.open(records) else {
            return Outcome::Undeliverable { reason: "the record is no parcel; a defect of Tidewire".into() };
        };
        let sending = async {
            let Some(wrapping) = &self.wrapping else { return self.send_signed(records, made, &body).await };
            let wrapped = wrapping.wrap(body.concat(), &self.content_type).await.map_err(|e| e.to_string())?;
            let encoding = wrapped.content_encoding.map(|value| ("Content-Encoding", value));
            self.send_signed(records, made.into_iter().chain(encoding).collect(), &[wrapped.body.into()]).await
        };
        match driver::until(driver::now() + self.timeout, sending).await {
            None => self.late(),
            Some(Err(reason)) => again(reason),
            Some(Ok(Err(reason))) => Outcome::Undeliverable { reason },
            Some(Ok(Ok(response))) => self.judge(&response, records),
        }
    }

    fn late(&self) -> Outcome {
        retry(Fault::Overload, format!("no complete answer within {:?}", self.timeout))
    }

    /// Sends a body with headers of its own, signed anew; the inner error is one for which no other attempt can be better.
    async fn send_signed(
        &self,
        records: &[Record],
        made: Vec<(&str, &str)>,
        body: &[Bytes],
    ) -> std::result::Result<std::result::Result<Response, String>, String> {
        let length = body.iter().map(Bytes::len).sum::<usize>();
        let slices: Vec<&[u8]> = body.iter().map(|s| &s[..]).collect();
        let (joined, rest) = if length <= SMALL_BYTES { (body, &[][..]) } else { (&[][..], body) };
        let send = async |target: &str, headers: &[(&str, &str)]| {
            let mut head_bytes = 0;
            let written = written(|out| {
                self.head.write_to(target, headers, length as u64, out)?;
                head_bytes = out.len();
                joined.iter().for_each(|piece| out.extend_from_slice(piece));
                Ok(())
            });
            let head = written.map_err(|e| (true, e.to_string()))?;
            let pieces = || std::iter::once(&head).chain(rest).cloned().collect();
            let message = Message { pieces: &pieces, head_bytes, target, headers };
            self.exchange(&message, driver::now()).await.map_err(|reason| (false, reason))
        };
        let Some(credentials) = &self.credentials else {
            return match send(self.head.target(), &made).await {
                Ok(response) => Ok(Ok(response)),
                Err((true, reason)) => Ok(Err(reason)),
                Err((false, reason)) => Err(reason),
            };
        };
        loop {
            let signing = credentials.sign(&self.head, &made, &slices, records);
            let (signed, token) = signing.await.map_err(|e| e.to_string())?;
            let headers: Vec<(&str, &str)> = made.iter().copied().chain(signed.headers()).collect();
            // What is too large now may be smaller with the next secret.
            let sent = send(signed.target().unwrap_or(self.head.target()), &headers).await;
            let mut response = sent.map_err(|(_, reason)| reason)?;
            signed.hide(&mut response.body_start);
            if !credentials.is_token_refused(token, response.status) {
                return Ok(Ok(response));
            }
        }
    }

    /// What an answer means for the events of its request, by what counts as success here.
    fn judge(&self, response: &Response, records: &[Record]) -> Outcome {
        let status = response.status;
        let body = &response.body_start;
        let answer = || Bytes::copy_from_slice(&body[..body.len().min(http::BODY_KEPT_BYTES_MAX)]);
        let retry = |reason| Outcome::Retry { fault: Fault::Events, reason, status, answer: answer() };
        if !self.success.has_status(status) {
            return match judge(response) {
                Outcome::Success => retry(format!("the endpoint answered {status}, which is no success here")),
                other => other,
            };
        }
        if let Some(objection) = self.success.objection(response.header.as_deref(), body) {
            return retry(format!("the endpoint answered {status} {objection}"));
        }
        let Some(partial) = &self.partial else { return Outcome::Success };
        let ids: Vec<String> = records.iter().map(|r| r.id.to_string()).collect();
        match partial.failed(body, &ids) {
            Err(what) => retry(format!("the endpoint answered {status}, but {what}")),
            Ok(failed) if failed.is_empty() => Outcome::Success,
            Ok(failed) => {
                let reason = format!("the endpoint did not take {} of {} events", failed.len(), records.len());
                Outcome::Partial { failed, reason, status, answer: answer() }
            }
        }
    }

    /// Sends a body, and answers with what comes back, whatever it is.
    pub(super) async fn post(&self, headers: &[(&str, &str)], body: &[u8]) -> std::result::Result<Response, String> {
        let mut head_bytes = 0;
        let written = written(|out| {
            self.head.write(headers, body.len() as u64, out)?;
            head_bytes = out.len();
            out.extend_from_slice(body);
            Ok(())
        });
        let request = written.map_err(|e| e.to_string())?;
        let pieces = || vec![request.clone()];
        let message = Message { pieces: &pieces, head_bytes, target: self.head.target(), headers };
        self.exchange(&message, driver::now()).await
    }

    /// Sends a request and reads its answer; once more on a fresh connection if a reused one turns out to be dead, and more
    /// often if the endpoint says that it has not looked at it. Begun `now`.
    async fn exchange(&self, message: &Message<'_>, now: Instant) -> std::result::Result<Response, String> {
        let mut resent = 0;
        loop {
            // What an attempt seldom needs is not part of it: it would be moved with it.
            let line = match self.idle(resent > 0, now) {
                Some(pooled) => Line::Own(pooled, true),
                None => Box::pin(self.line(resent > 0)).await?,
            };
            let sent = match line {
                Line::Own(mut pooled, reused) => {
                    let sent = self.exchange_on(&mut pooled.connection, (message.pieces)(), reused).await;
                    if let Ok(response) = &sent {
                        self.give_back(pooled, response);
                    }
                    sent
                }
                Line::Shared(seat) => Box::pin(self.exchange_shared(seat, message)).await,
            };
            match sent {
                Ok(response) => return Ok(response),
                Err(Failure::Other(reason)) => return Err(reason),
                Err(Failure::Stale) if resent > 0 => {
                    return Err("the endpoint closed the connection without an answer".into());
                }
                Err(Failure::Refused(reason)) if resent >= RESENDS_MAX => return Err(reason),
                Err(Failure::Http1) => match self.dialer.secured() {
                    Some(secured) if !secured.http1_only.replace(true) => {
                        self.http2.iter().for_each(Http2::note_http1);
                    }
                    _ if resent >= RESENDS_MAX => {
                        return Err("the endpoint wants HTTP/1.1, and does not take it".into());
                    }
                    _ => {}
                },
                Err(Failure::Stale | Failure::Refused(_)) => {}
            }
            resent += 1;
        }
    }

    /// A connection of HTTP/1.1 that was used before, unless it has to be a fresh one.
    fn idle(&self, fresh: bool, now: Instant) -> Option<Pooled<Box<Connection>>> {
        match fresh {
            true => None,
            false => self.pool.borrow_mut().take(now, |c| c.stream.is_closed()),
        }
    }

    /// What the next request is sent on; if `fresh`, no connection of HTTP/1.1 that was used before.
    async fn line(&self, fresh: bool) -> std::result::Result<Line, String> {
        loop {
            if let Some(pooled) = self.idle(fresh, driver::now()) {
                return Ok(Line::Own(pooled, true));
            }
            let Some(http2) = &self.http2 else { return self.connect().await };
            if let Some(seat) = http2.take(driver::now()) {
                return Ok(Line::Shared(seat));
            }
            match http2.turn().await {
                Turn::Dial(turn) => {
                    let made = self.connect().await;
                    match &made {
                        Err(reason) => turn.failed(reason),
                        Ok(_) => drop(turn),
                    }
                    return made;
                }
                Turn::Again => {}
                Turn::Failed(reason) => return Err(reason),
            }
        }
    }

    async fn exchange_shared(&self, seat: Seat, message: &Message<'_>) -> std::result::Result<Response, Failure> {
        let Some(http2) = &self.http2 else { return Err(Failure::Http1) };
        let mut pieces = (message.pieces)();
        if let Some(first) = pieces.first_mut() {
            *first = first.slice(message.head_bytes..);
        }
        let body = match &pieces[..] {
            [one] => one.clone(),
            // One frame, or a few; TLS copies it once more.
            more => more.concat().into(),
        };
        let trace = self.dialer.trace();
        trace.note(|| format!("a request with {} bytes of body is sent over HTTP/2", body.len()));
        let explain = |e: &io::Error| self.dialer.explain(e);
        let sent = http2.exchange(seat, message.target, message.headers, body, &explain).await;
        if let Ok(response) = &sent {
            trace.note(|| format!("the answer is {}", response.status));
        }
        sent
    }

    async fn connect(&self) -> std::result::Result<Line, String> {
        let stream = self.dialer.dial().await?;
        self.connections.set(self.connections.get() + 1);
        let stream = match (stream, &self.http2) {
            (Stream::Tls(stream), Some(http2)) if stream.get_ref().1.alpn_protocol() == Some(tls::H2) => {
                let added = http2.add(stream).await;
                return added.map(Line::Shared).map_err(|e| match e.get_io() {
                    Some(io) => self.dialer.explain(io),
                    None => format!("the endpoint does not speak HTTP/2 as it should: {e}"),
                });
            }
            (stream, http2) => {
                http2.iter().for_each(|http2| http2.note_http1());
                stream
            }
        };
        let parser = match self.keeps_bodies {
            false => ResponseParser::new(),
            true => ResponseParser::keeping_bodies(),
        };
        let [header, also] = self.wanted.clone();
        let parser = parser.looking_for(header).looking_also_for(also);
        let made = self.pool.borrow().made(Box::new(Connection { stream, parser }), driver::now());
        Ok(Line::Own(made, false))
    }

    fn give_back(&self, pooled: Pooled<Box<Connection>>, response: &Response) {
        if response.keep_alive {
            self.pool.borrow_mut().give_back(pooled, response.keep_alive_timeout, driver::now());
        }
    }

    async fn exchange_on(
        &self,
        connection: &mut Connection,
        pieces: Vec<Bytes>,
        reused: bool,
    ) -> std::result::Result<Response, Failure> {
        let Connection { stream, parser } = connection;
        parser.reset();
        // An endpoint may answer and hang up before it has read everything: the answer counts, not the failed write.
        let trace = self.dialer.trace();
        trace.note(|| format!("{} bytes of request are sent", pieces.iter().map(Bytes::len).sum::<usize>()));
        let sent: io::Result<()> = stream.send(pieces).await;
        let mut begun = false;
        loop {
            let read = poll_fn(|cx| {
                READ.with_borrow_mut(|buf| {
                    let n = ready!(stream.poll_read(cx, buf))?;
                    if !std::mem::replace(&mut begun, true) {
                        trace.note(|| "the answer begins".into());
                    }
                    let state = if n == 0 { parser.eof() } else { parser.feed(&buf[..n]).map(|p| p.state) };
                    Poll::Ready(io::Result::Ok(state))
                })
            });
            let state = match read.await {
                Ok(state) => state,
                Err(e) => {
                    if reused && parser.zero_bytes_seen() {
                        return Err(Failure::Stale);
                    }
                    let e = sent.err().or_else(|| stream.sent().err()).unwrap_or(e);
                    return Err(Failure::Other(self.dialer.explain(&e)));
                }
            };
            match state {
                Ok(State::NeedMore) => {}
                Ok(State::Done | State::CloseAfter) => {
                    return match parser.take_response() {
                        Some(mut response) => {
                            trace.note(|| format!("the answer is {}", response.status));
                            response.keep_alive &= sent.is_ok() && stream.sent().is_ok_and(|all| all);
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

    /// Lets go of connections that were idle for too long.
    pub(super) fn expire_idle(&self, now: Instant) {
        self.pool.borrow_mut().expire(now, |c| c.stream.is_closed());
        if let Some(http2) = &self.http2 {
            http2.expire(now);
        }
    }
}

impl Connector for WebhookConnector {
    fn send<'a>(&'a self, records: &'a [Record]) -> Attempt<'a> {
        if self.parts.single && records.len() > 1 {
            // A batch from before the format was changed: it comes again in halves.
            let reason = "each event has a request of its own".into();
            return Box::pin(ready(Outcome::Poison { reason, status: 0, answer: Bytes::new() }));
        }
        if self.credentials.is_none() && self.wrapping.is_none() && !self.parts.parcels {
            return Box::pin(self.attempt_plain(records));
        }
        Box::pin(self.attempt_made(records))
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

/// An attempt that has failed, without an answer.
fn retry(fault: Fault, reason: String) -> Outcome {
    Outcome::Retry { fault, reason, status: 0, answer: Bytes::new() }
}

fn again(reason: String) -> Outcome {
    retry(Fault::Endpoint, reason)
}

/// Headers that receivers of a profile look for.
fn profile_headers(profile: Profile, format: &Format) -> &'static [(&'static str, &'static str)] {
    match profile {
        Profile::Azure if format.template.is_none() => &[("aeg-event-type", "Notification")],
        _ => &[],
    }
}

/// Whether an answer 400 is about the client certificate and not about the events: nginx has 495 and 496 for that, and sends
/// 400.
fn is_about_certificates(status: u16, body: &[u8]) -> bool {
    let says = |text: &str| memchr::memmem::find(body, text.as_bytes()).is_some();
    status == 400 && (says("The SSL certificate error") || says("No required SSL certificate was sent"))
}

/// What an answer means for the events of its request, by its status.
fn judge(response: &Response) -> Outcome {
    let status = response.status;
    let class = http::classify(status);
    if class == Class::Success {
        return Outcome::Success;
    }
    let retry_after = || {
        let unix = (driver::system_ns() / 1_000_000_000) as i64;
        response.retry_after.map(|r| r.wait(unix).as_nanos() as u64)
    };
    let reason = http::describe(response);
    let body = &response.body_start;
    let answer = Bytes::copy_from_slice(&body[..body.len().min(http::BODY_KEPT_BYTES_MAX)]);
    match (class, retry_after()) {
        (Class::Success, _) => Outcome::Success,
        (Class::Gone, _) => Outcome::Gone { reason, status, answer },
        // nginx says so that it was shown no client certificate that it trusts.
        (Class::Poison, None) if is_about_certificates(status, body) => Outcome::Denied { reason, status, answer },
        (Class::Throttle, after_ns) => Outcome::Throttle { after_ns, reason, status, answer },
        // What is too large now may not be so later (RFC 9110, 15.5.14); what else is wrong with the events stays so, and
        // must not hold up others.
        (Class::Poison, after_ns) if status != 413 || after_ns.is_none() => Outcome::Poison { reason, status, answer },
        // Any other answer that says when to come back is taken at its word.
        (_, Some(ns)) => Outcome::Throttle { after_ns: Some(ns), reason, status, answer },
        (Class::Unauthorized, None) => Outcome::Denied { reason, status, answer },
        (Class::Retry | Class::Poison, None) => {
            let fault = match status {
                503 => Fault::Overload,
                500.. => Fault::Endpoint,
                _ => Fault::Events,
            };
            Outcome::Retry { fault, reason, status, answer }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, header: &str) -> Response {
        let mut parser = ResponseParser::new();
        let text = format!("HTTP/1.1 {status} X\r\n{header}Content-Length: 0\r\n\r\n");
        parser.feed(text.as_bytes()).expect("an answer");
        parser.take_response().expect("an answer")
    }

    /// What an outcome is, in a word.
    fn word(outcome: &Outcome) -> String {
        match outcome {
            Outcome::Success => "success".into(),
            Outcome::Retry { fault, .. } => format!("retry {fault:?}"),
            Outcome::Throttle { after_ns, .. } => format!("wait {:?}", after_ns.map(|ns| ns / 1_000_000_000)),
            Outcome::Denied { .. } => "denied".into(),
            Outcome::Gone { .. } => "gone".into(),
            Outcome::Poison { .. } => "poison".into(),
            other => format!("{other:?}"),
        }
    }

    /// Each attempt is moved to the heap as a whole, and what it holds but seldom needs is moved with it.
    #[test]
    fn an_attempt_takes_little_memory() {
        let network = Arc::new(Network::new(&crate::config::NetworkConfig::default()));
        let webhook = Webhook::new("http://127.0.0.1/").expect("a URL");
        let c = WebhookConnector::new(&webhook, (Profile::Aws, &Format::default()), 1, &network).expect("a connector");
        let (plain, made) = (size_of_val(&c.attempt_plain(&[])), size_of_val(&c.attempt_made(&[])));
        assert!(plain <= 1024 && made <= 2048, "{plain} and {made} bytes");
    }

    #[test]
    fn every_status_has_its_outcome() {
        let table: [(&[u16], &str, &str); 8] = [
            (&[200, 201, 202, 204, 299], "success", "success"),
            (&[300, 301, 302, 303, 304, 307, 308], "retry Events", "wait Some(7)"),
            (&[400, 415, 422], "poison", "poison"),
            (&[413], "poison", "wait Some(7)"),
            (&[401, 403], "denied", "wait Some(7)"),
            (&[402, 404, 405, 408, 409, 418, 451], "retry Events", "wait Some(7)"),
            (&[410], "gone", "gone"),
            (&[429], "wait None", "wait Some(7)"),
        ];
        let fails: [(&[u16], &str, &str); 2] = [
            (&[500, 501, 502, 504, 599, 999], "retry Endpoint", "wait Some(7)"),
            (&[503], "retry Overload", "wait Some(7)"),
        ];
        for (statuses, plain, with_retry_after) in table.into_iter().chain(fails) {
            for status in statuses {
                assert_eq!(word(&judge(&answer(*status, ""))), plain, "{status}");
                let told = answer(*status, "Retry-After: 7\r\n");
                assert_eq!(word(&judge(&told)), with_retry_after, "{status}");
                let garbage = answer(*status, "Retry-After: soon\r\n");
                assert_eq!(word(&judge(&garbage)), plain, "{status}");
            }
        }
        // A date, as the endpoint's clock has it; one gone by is now.
        let date = answer(503, "Retry-After: Fri, 31 Dec 1999 23:59:59 GMT\r\n");
        assert_eq!(word(&judge(&date)), "wait Some(0)");
        let Outcome::Throttle { after_ns: Some(ns), .. } =
            judge(&answer(503, "Retry-After: Fri, 31 Dec 2199 23:59:59 GMT\r\n"))
        else {
            panic!("no wait")
        };
        assert_eq!(ns / 1_000_000_000, 86_400, "at most a day");
    }
}
