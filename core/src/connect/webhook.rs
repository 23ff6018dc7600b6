//! Webhooks: batches as POST requests over HTTP/1.1, plain or with TLS.

use std::cell::{Cell, RefCell};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_rustls::TlsConnector;

use super::credentials::Credentials;
use super::trace::Trace;
use super::wrapping::Wrapping;
use crate::config::Network;
use crate::delivery::{Attempt, Connector, Fault, Outcome, Record};
use crate::driver::{self, SocketOptions};
use crate::error::{Error, Result};
use crate::event::format::{Format, open_parcel};
use crate::event::profile::Profile;
use crate::net::dial::{Dialer, Way};
use crate::net::http::{self, Class, Method, RequestHead, Response, ResponseParser, State};
use crate::net::pool::{Pool, Pooled};
use crate::net::stream::Stream;
use crate::net::tls::{self, Roots};
use crate::rule::{Partial, Success, VerificationMethod, Webhook};

/// Answers are short, and the buffer is cleared for each.
const READ_BYTES: usize = 1024;
/// The shortest time that the kernel can wait before it asks after a quiet connection.
const KEEP_ALIVE_MIN: Duration = Duration::from_secs(1);

/// See the module.
pub(crate) struct WebhookConnector {
    parts: Parts,
    head: RequestHead,
    dialer: Dialer,
    timeout: Duration,
    pool: RefCell<Pool<Connection>>,
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
    header: Option<Arc<str>>,
    also: Option<Arc<str>>,
}

/// What a body is joined of, besides the records.
#[derive(Clone, Copy, Default)]
struct Parts {
    head: &'static [u8],
    separator: &'static [u8],
    tail: &'static [u8],
    /// A record brings headers: it is a parcel, alone in its request.
    parcels: bool,
    /// A request carries one event.
    single: bool,
}

impl Parts {
    fn of(format: &Format, profile: Profile) -> Parts {
        Parts {
            head: format.batch_head(profile),
            separator: format.separator(profile),
            tail: format.batch_tail(profile),
            parcels: format.has_parcels(profile),
            single: format.is_single(profile),
        }
    }
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
        let posting = Self::posting(webhook, Method::Post, &made, on_the_wire, concurrency, network)?;
        let (parts, content_type) = (Parts::of(format, profile), content_type.to_owned());
        Ok(WebhookConnector { parts, credentials, wrapping, content_type, ..posting })
    }

    /// One that asks for tokens, with [`WebhookConnector::post`].
    pub(super) fn of_tokens(webhook: &Webhook, content_type: &str, network: &Network) -> Result<WebhookConnector> {
        let posting = Self::posting(webhook, Method::Post, &[], content_type, 1, network)?;
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
        let posting = Self::posting(webhook, method, headers, content_type, 1, network)?;
        let header = Some("WebHook-Allowed-Origin".into());
        Ok(WebhookConnector { credentials, header, also: Some("WebHook-Allowed-Rate".into()), ..posting })
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

    fn posting(
        webhook: &Webhook,
        method: Method,
        of_profile: &[(&str, &str)],
        content_type: &str,
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
            parts: Parts::default(),
            head,
            dialer: Dialer::new(target, way, policy, tls, resolver, webhook.connect_timeout, options),
            timeout: webhook.timeout,
            pool: RefCell::new(Pool::new(webhook.pool, webhook.idle, concurrency)),
            connections: Cell::new(0),
            credentials: None,
            wrapping: None,
            content_type: content_type.to_owned(),
            keeps_bodies: webhook.success.reads_body() || webhook.partial.is_some(),
            success: webhook.success.clone(),
            partial: webhook.partial.clone(),
            header: webhook.success.header.as_ref().map(|h| h.name.as_str().into()),
            also: None,
        })
    }

    /// Where the steps of attempts are noted.
    pub(super) fn trace(&self) -> &Trace {
        self.dialer.trace()
    }

    async fn attempt(&self, records: &[Record]) -> Outcome {
        let Parts { head: batch_head, separator, tail, parcels, single } = self.parts;
        let retry = |fault, reason: String| Outcome::Retry { fault, reason, status: 0, answer: Bytes::new() };
        let again = |reason: String| retry(Fault::Endpoint, reason);
        let deadline = driver::now() + self.timeout;
        let late = || retry(Fault::Overload, format!("no complete answer within {:?}", self.timeout));
        if single && records.len() > 1 {
            // A batch from before the format was changed: it comes again in halves.
            let reason = "each event has a request of its own".into();
            return Outcome::Poison { reason, status: 0, answer: Bytes::new() };
        }
        if self.credentials.is_none() && self.wrapping.is_none() && !parcels {
            // Each record comes with the separator before it; the first one goes without.
            let records_len = records.iter().map(|r| r.bytes.len()).sum::<usize>();
            let length = batch_head.len() + records_len - separator.len() + tail.len();
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
                Some(Ok(response)) => self.judge(&response, records),
            };
        }
        let (made, body) = match records {
            [record] if parcels => match open_parcel(&record.bytes) {
                Some((headers, body)) => {
                    let body = record.bytes.slice_ref(body);
                    (headers, vec![Bytes::from_static(batch_head), body, Bytes::from_static(tail)])
                }
                None => {
                    return Outcome::Undeliverable { reason: "the record is no parcel; a defect of Tidewire".into() };
                }
            },
            _ => (Vec::new(), pieces(Bytes::from_static(batch_head), records, separator.len(), tail)),
        };
        let sending = async {
            let Some(wrapping) = &self.wrapping else { return self.send_signed(records, made, &body).await };
            let wrapped = wrapping.wrap(body.concat(), &self.content_type).await.map_err(|e| e.to_string())?;
            let encoding = wrapped.content_encoding.map(|value| ("Content-Encoding", value));
            self.send_signed(records, made.into_iter().chain(encoding).collect(), &[wrapped.body.into()]).await
        };
        match driver::until(deadline, sending).await {
            None => late(),
            Some(Err(reason)) => again(reason),
            Some(Ok(Err(reason))) => Outcome::Undeliverable { reason },
            Some(Ok(Ok(response))) => self.judge(&response, records),
        }
    }

    /// Sends a body with headers of its own, signed anew; the inner error is one for which no other attempt can be better.
    async fn send_signed(
        &self,
        records: &[Record],
        made: Vec<(&str, &str)>,
        body: &[Bytes],
    ) -> std::result::Result<std::result::Result<Response, String>, String> {
        let length = body.iter().map(|s| s.len() as u64).sum();
        let slices: Vec<&[u8]> = body.iter().map(|s| &s[..]).collect();
        let send = async |target: &str, headers: &[(&str, &str)]| {
            let mut head = Vec::with_capacity(1024);
            self.head.write_to(target, headers, length, &mut head).map_err(|e| (true, e.to_string()))?;
            let head = Bytes::from(head);
            let pieces = || std::iter::once(&head).chain(body).cloned().collect();
            self.exchange(pieces).await.map_err(|reason| (false, reason))
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
        let parser = parser.looking_for(self.header.clone()).looking_also_for(self.also.clone());
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
        let trace = self.dialer.trace();
        trace.note(|| format!("{} bytes of request are sent", pieces.iter().map(Bytes::len).sum::<usize>()));
        let sent: io::Result<()> = stream.send(pieces).await;
        let mut begun = false;
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
            if !std::mem::replace(&mut begun, true) {
                trace.note(|| "the answer begins".into());
            }
            let state = if n == 0 { parser.eof() } else { parser.feed(&buf[..n]).map(|p| p.state) };
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

/// Headers that receivers of a profile look for.
fn profile_headers(profile: Profile, format: &Format) -> &'static [(&'static str, &'static str)] {
    match profile {
        Profile::Azure if format.template.is_none() => &[("aeg-event-type", "Notification")],
        _ => &[],
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

/// What an answer means for the events of its request, by its status.
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
    let body = &response.body_start;
    let answer = Bytes::copy_from_slice(&body[..body.len().min(http::BODY_KEPT_BYTES_MAX)]);
    match (class, retry_after()) {
        (Class::Success, _) => Outcome::Success,
        (Class::Gone, _) => Outcome::Gone { reason, status, answer },
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
