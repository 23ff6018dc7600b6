//! Webhooks: batches as POST requests over HTTP/1.1, plain or with TLS.

use std::cell::{Cell, RefCell};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_rustls::TlsConnector;

use super::credentials::Credentials;
use crate::config::Network;
use crate::delivery::{Attempt, Connector, Outcome, Record};
use crate::driver::{self, SocketOptions};
use crate::error::{Error, Result};
use crate::event::profile::Profile;
use crate::net::dial::{Dialer, Way};
use crate::net::http::{self, Class, RequestHead, Response, ResponseParser, State};
use crate::net::pool::{Pool, Pooled};
use crate::net::stream::Stream;
use crate::net::tls::{self, Roots};
use crate::rule::Webhook;

/// Answers are short, and the buffer is cleared for each.
const READ_BYTES: usize = 1024;
/// The shortest time that the kernel can wait before it asks after a quiet connection.
const KEEP_ALIVE_MIN: Duration = Duration::from_secs(1);

/// See the module.
pub(crate) struct WebhookConnector {
    profile: Profile,
    head: RequestHead,
    dialer: Dialer,
    timeout: Duration,
    pool: RefCell<Pool<Connection>>,
    connections: Cell<u64>,
    credentials: Option<Credentials>,
    /// Bodies of answers are wanted as a whole.
    keeps_bodies: bool,
}

/// One connection with its parser.
struct Connection {
    stream: Stream,
    parser: ResponseParser,
}

/// Why a request got no answer.
enum Failure {
    /// A reused connection ended before the first byte of an answer: the request may be sent again at once.
    Stale,
    Other(String),
}

impl WebhookConnector {
    /// A connector for up to `concurrency` requests at once.
    pub(crate) fn new(
        webhook: &Webhook,
        profile: Profile,
        concurrency: usize,
        network: &Arc<Network>,
    ) -> Result<WebhookConnector> {
        let credentials = (!webhook.auth.is_empty()).then(|| Credentials::new(webhook, network.clone()));
        let posting = Self::posting(webhook, profile, profile.content_type(), concurrency, network)?;
        Ok(WebhookConnector { credentials, ..posting })
    }

    /// One that asks for tokens, with [`WebhookConnector::post`].
    pub(super) fn of_tokens(webhook: &Webhook, content_type: &str, network: &Network) -> Result<WebhookConnector> {
        let posting = Self::posting(webhook, Profile::default(), content_type, 1, network)?;
        Ok(WebhookConnector { keeps_bodies: true, ..posting })
    }

    fn posting(
        webhook: &Webhook,
        profile: Profile,
        content_type: &str,
        concurrency: usize,
        network: &Network,
    ) -> Result<WebhookConnector> {
        let headers: Vec<(&str, &str)> = webhook.headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        let mut head = RequestHead::post(&webhook.url, content_type, &headers)?;
        let host = webhook.url.host().ok_or_else(|| Error::invalid_config("the URL has no host"))?.to_owned();
        let tls = match webhook.url.scheme() {
            "https" => {
                let roots = webhook.tls_ca.clone().map_or(Roots::System, Roots::File);
                let config = tls::client_config(&roots, None)?;
                Some((TlsConnector::from(config), tls::server_name(&host.to_string())?))
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
        Ok(WebhookConnector {
            profile,
            head,
            dialer: Dialer::new(target, way, policy, tls, resolver, webhook.connect_timeout, options),
            timeout: webhook.timeout,
            pool: RefCell::new(Pool::new(webhook.pool, webhook.idle, concurrency)),
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
            let head = Bytes::from(head);
            let pieces = || pieces(head.clone(), records, separator.len(), tail);
            return match driver::until(deadline, self.exchange(pieces)).await {
                None => late(),
                Some(Err(reason)) => again(reason),
                Some(Ok(response)) => judge(&response),
            };
        };
        let body = pieces(Bytes::from_static(batch_head), records, separator.len(), tail);
        let signed_body: Vec<&[u8]> = body.iter().map(|p| &p[..]).collect();
        let sending = async {
            loop {
                let (signed, token) =
                    credentials.sign(&self.head, &signed_body, records).await.map_err(|e| e.to_string())?;
                let mut head = Vec::with_capacity(1024);
                let target = signed.target().unwrap_or(self.head.target());
                // What is too large now may be smaller with the next secret.
                let written = self.head.write_to(target, &signed.headers(), length as u64, &mut head);
                written.map_err(|e| e.to_string())?;
                let head = Bytes::from(head);
                let pieces = || std::iter::once(&head).chain(&body).cloned().collect();
                let mut response = self.exchange(pieces).await?;
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
        head.extend_from_slice(body);
        let request = Bytes::from(head);
        self.exchange(|| vec![request.clone()]).await
    }

    /// Sends the pieces of a request and reads its answer; once more on a fresh connection if a reused one turns out to be
    /// dead.
    async fn exchange(&self, pieces: impl Fn() -> Vec<Bytes>) -> std::result::Result<Response, String> {
        let idle = self.pool.borrow_mut().take(driver::now(), |c| c.stream.is_closed());
        if let Some(mut pooled) = idle {
            match self.exchange_on(&mut pooled.connection, pieces(), true).await {
                Ok(response) => {
                    self.give_back(pooled, &response);
                    return Ok(response);
                }
                Err(Failure::Stale) => {}
                Err(Failure::Other(reason)) => return Err(reason),
            }
        }
        let mut pooled = self.connect().await?;
        match self.exchange_on(&mut pooled.connection, pieces(), false).await {
            Ok(response) => {
                self.give_back(pooled, &response);
                Ok(response)
            }
            Err(Failure::Stale) => Err("the endpoint closed the connection without an answer".into()),
            Err(Failure::Other(reason)) => Err(reason),
        }
    }

    async fn connect(&self) -> std::result::Result<Pooled<Connection>, String> {
        let stream = self.dialer.dial().await?;
        self.connections.set(self.connections.get() + 1);
        let parser = match self.keeps_bodies {
            false => ResponseParser::new(),
            true => ResponseParser::keeping_bodies(),
        };
        let connection = Connection { stream, parser };
        Ok(self.pool.borrow().made(connection, driver::now()))
    }

    fn give_back(&self, pooled: Pooled<Connection>, response: &Response) {
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
        let sent: io::Result<()> = stream.send(pieces).await;
        let mut buf = [0u8; READ_BYTES];
        loop {
            let n = match stream.read(&mut buf).await {
                Ok(n) => n,
                Err(e) => {
                    if reused && parser.zero_bytes_seen() {
                        return Err(Failure::Stale);
                    }
                    let e = sent.err().or_else(|| stream.sent().err()).unwrap_or(e);
                    return Err(Failure::Other(self.dialer.explain(&e)));
                }
            };
            let state = if n == 0 { parser.eof() } else { parser.feed(&buf[..n]).map(|p| p.state) };
            match state {
                Ok(State::NeedMore) => {}
                Ok(State::Done | State::CloseAfter) => {
                    return match parser.take_response() {
                        Some(mut response) => {
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
fn pieces(head: Bytes, records: &[Record], separator: usize, tail: &'static [u8]) -> Vec<Bytes> {
    let mut out = Vec::with_capacity(records.len() + 2);
    out.push(head);
    let record = |(i, r): (usize, &Record)| if i == 0 { r.bytes.slice(separator..) } else { r.bytes.clone() };
    out.extend(records.iter().enumerate().map(record));
    out.push(Bytes::from_static(tail));
    out
}

/// What an answer means for the events of its request.
fn judge(response: &Response) -> Outcome {
    let status = response.status;
    let class = http::classify(status);
    if class == Class::Success {
        return Outcome::Success;
    }
    let retry_after = || {
        let unix = (driver::wall_ns() / 1_000_000_000) as i64;
        response.retry_after.map(|r| r.wait(unix).as_nanos() as u64)
    };
    let reason = http::describe(response);
    let answer = Bytes::copy_from_slice(&response.body_start);
    match class {
        Class::Poison => Outcome::Poison { reason, status, answer },
        Class::Throttle => Outcome::Throttle { after_ns: retry_after(), reason, status, answer },
        _ => match retry_after() {
            // Any answer that says when to come back is taken at its word.
            Some(ns) => Outcome::Throttle { after_ns: Some(ns), reason, status, answer },
            None => Outcome::Retry { endpoint: status >= 500, reason, status, answer },
        },
    }
}
