//! What is answered to one request.

use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Body, Bytes, Incoming};
use hyper::header::{ACCEPT, ALLOW, CONTENT_ENCODING, CONTENT_TYPE, HeaderValue, ORIGIN, RETRY_AFTER};
use hyper::http::request::Parts;
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use serde_json::{Value, json};

use super::Service;
use crate::engine::batch::Receipts;
use crate::engine::{MetricsFormat, OnFull, PublishOptions};
use crate::error::{Error, ErrorKind};
use crate::event::ingest::{self, Events};
use crate::log::Ack;

/// Bodies are counted in units of this many bytes.
pub(super) const UNIT: usize = 1024;
/// Waits between tries while a ring is full.
const PAUSE_MIN: Duration = Duration::from_millis(1);
const PAUSE_MAX: Duration = Duration::from_millis(50);
/// The header that asks for an ack level.
const ACK_HEADER: &str = "tidewire-ack";

pub(super) fn units(bytes: usize) -> usize {
    bytes.div_ceil(UNIT)
}

type Answer = Response<Full<Bytes>>;

/// Why a request is not granted.
struct Refusal {
    status: StatusCode,
    error: String,
    retry_after: Option<u64>,
    /// How many events had been taken by then.
    accepted: Option<usize>,
}

impl Refusal {
    fn new(status: StatusCode, error: impl Into<String>) -> Refusal {
        Refusal { status, error: error.into(), retry_after: None, accepted: None }
    }

    /// What the engine said, after so many events were taken.
    fn engine(e: &Error, accepted: usize) -> Refusal {
        match e.kind() {
            ErrorKind::InvalidEvent => Refusal::new(StatusCode::BAD_REQUEST, e.to_string()),
            kind => Refusal {
                status: StatusCode::SERVICE_UNAVAILABLE,
                error: e.to_string(),
                retry_after: Some(if matches!(kind, ErrorKind::Full | ErrorKind::Timeout) { 1 } else { 5 }),
                accepted: Some(accepted),
            },
        }
    }

    fn answer(self) -> Answer {
        let mut body = json!({ "error": self.error });
        if let Some(n) = self.accepted.filter(|n| *n > 0) {
            body["accepted"] = n.into();
        }
        let mut answer = json_answer(self.status, &body);
        if let Some(seconds) = self.retry_after {
            answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        answer
    }
}

impl From<Error> for Refusal {
    fn from(e: Error) -> Refusal {
        Refusal::engine(&e, 0)
    }
}

fn json_answer(status: StatusCode, body: &Value) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(format!("{body}\n"))));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

fn wrong_method(allowed: &'static str) -> Answer {
    let mut answer =
        Refusal::new(StatusCode::METHOD_NOT_ALLOWED, format!("the method is not for this path; use {allowed}"))
            .answer();
    answer.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    answer
}

impl Service {
    pub(super) async fn answer(&self, request: Request<Incoming>) -> Answer {
        let (head, body) = request.into_parts();
        if head.headers.contains_key(ORIGIN) {
            let error = "a web page sent this; publish from a program, without an Origin header";
            return Refusal::new(StatusCode::FORBIDDEN, error).answer();
        }
        let reading = matches!(head.method, Method::GET | Method::HEAD);
        match head.uri.path() {
            "/" | "/v1/events" if head.method == Method::POST => {
                self.take(&head, body).await.unwrap_or_else(Refusal::answer)
            }
            "/" | "/v1/events" => wrong_method("POST"),
            "/v1/stats" if reading => json_answer(StatusCode::OK, &self.stats()),
            "/metrics" if reading => self.metrics(&head.headers),
            "/healthz" if reading => self.health(),
            "/v1/confirm" if head.method == Method::GET || head.method == Method::POST => self.confirm(&head),
            "/v1/confirm" => wrong_method("GET, POST"),
            "/v1/stats" | "/metrics" | "/healthz" => wrong_method("GET, HEAD"),
            _ => {
                let error = "there is nothing at this path; use /v1/events, /v1/stats, /metrics or /healthz";
                Refusal::new(StatusCode::NOT_FOUND, error).answer()
            }
        }
    }

    fn metrics(&self, headers: &HeaderMap) -> Answer {
        // A scraper that sends several such headers gets the usual form.
        let accept = headers.get(ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let format = MetricsFormat::accepted(accept);
        match self.engine.prometheus(format) {
            Ok(text) => {
                let mut answer = Response::new(Full::new(Bytes::from(text)));
                answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(format.media_type()));
                answer
            }
            Err(e) => Refusal::from(e).answer(),
        }
    }

    async fn take(&self, head: &Parts, body: Incoming) -> Result<Answer, Refusal> {
        let ack = ack_level(head)?;
        let binary = ingest::is_binary(headers(&head.headers));
        let media = head.headers.get(CONTENT_TYPE).map(|v| v.to_str().unwrap_or("?"));
        check_media(media, &head.headers, binary)?;
        // What the body takes is given back when the request is over.
        let (mut body, _held) = self.read(body).await?;

        let mut events = Events::default();
        let mut each = |e: &crate::Event<'_>| {
            self.engine.check(e)?;
            events.push(e);
            Ok(())
        };
        if binary {
            ingest::parse_binary(headers(&head.headers), &mut body, &mut each)?;
        } else {
            ingest::parse(&mut body, media.unwrap_or_default(), &mut each)?;
        }
        drop(body);
        self.publish(&events, ack).await
    }

    /// Reads a body, at most the largest that is allowed, in the time that is allowed.
    async fn read(&self, body: Incoming) -> Result<(Vec<u8>, tokio::sync::SemaphorePermit<'_>), Refusal> {
        let max = self.body_max;
        let too_large = || {
            let error = format!("the body has more than {max} bytes; send fewer events at a time");
            Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, error)
        };
        let deadline = Instant::now() + self.limits.body_timeout;
        let hint = body.size_hint();
        if hint.lower() > max as u64 {
            return Err(too_large());
        }
        let expected = hint.exact().map_or(max, |n| n as usize);
        let permits = self.bodies.acquire_many(u32::try_from(units(expected)).unwrap_or(u32::MAX));
        let held = match tokio::time::timeout_at(deadline.into(), permits).await {
            Ok(Ok(held)) => held,
            Ok(Err(_)) | Err(_) => {
                let error = "too many bodies are being read at once; try again";
                let retry_after = Some(1);
                return Err(Refusal { retry_after, ..Refusal::new(StatusCode::SERVICE_UNAVAILABLE, error) });
            }
        };
        match tokio::time::timeout_at(deadline.into(), Limited::new(body, max).collect()).await {
            Ok(Ok(whole)) => Ok((whole.to_bytes().into(), held)),
            Ok(Err(e)) if e.is::<LengthLimitError>() => Err(too_large()),
            Ok(Err(e)) => Err(Refusal::new(StatusCode::BAD_REQUEST, format!("the body did not come whole: {e}"))),
            Err(_) => {
                let limit = self.limits.body_timeout;
                let error = format!("the body did not come within {limit:?}; send it faster, or in parts");
                Err(Refusal::new(StatusCode::REQUEST_TIMEOUT, error))
            }
        }
    }

    /// Submits all events in order, then waits until they are as safe as asked.
    async fn publish(&self, events: &Events, ack: Ack) -> Result<Answer, Refusal> {
        let options = PublishOptions { ack, on_full: OnFull::Retry(Duration::ZERO), ..PublishOptions::default() };
        let deadline = Instant::now() + self.limits.publish_timeout;
        let mut receipts = Receipts::default();
        let (mut accepted, mut no_match) = (0usize, 0usize);
        for place in 0..events.len() {
            let mut pause = PAUSE_MIN;
            loop {
                match events.with(place, |e| self.engine.submit(e, &options)) {
                    Ok(Some(receipt)) => {
                        receipts.add(receipt);
                        accepted += 1;
                        break;
                    }
                    Ok(None) => {
                        no_match += 1;
                        break;
                    }
                    Err(e) if e.kind() == ErrorKind::Full && Instant::now() + pause < deadline => {
                        tokio::time::sleep(pause).await;
                        pause = (pause * 2).min(PAUSE_MAX);
                    }
                    Err(e) => return Err(Refusal::engine(&e, accepted)),
                }
            }
            // A long body does not keep the others waiting.
            if place % 1024 == 1023 {
                tokio::task::yield_now().await;
            }
        }
        match tokio::time::timeout_at(deadline.into(), receipts.reached(ack)).await {
            Ok(Ok(())) => Ok(json_answer(StatusCode::OK, &json!({ "accepted": accepted, "no_match": no_match }))),
            Ok(Err(e)) => Err(Refusal::engine(&e, accepted)),
            Err(_) => {
                let reasons = self.engine.stats().unhealthy.join("; ");
                let e = Error::new(ErrorKind::Timeout, "the events were taken, but are not as safe as asked yet");
                let e = if reasons.is_empty() { e } else { e.remedy(format!("the log waits: {reasons}")) };
                Err(Refusal::engine(&e, accepted))
            }
        }
    }

    fn stats(&self) -> Value {
        let s = self.engine.stats();
        let micros = |q: f64| s.latency.value_at_quantile(q);
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "uptime_seconds": self.started.elapsed().as_secs(),
            "shards": s.shards,
            "accepted": s.accepted,
            "refused_full": s.refused_full,
            "invalid": s.invalid,
            "no_match": s.no_match,
            "stored": s.stored,
            "routed": s.routed,
            "delivered": s.delivered,
            "dead_lettered": s.dead_lettered,
            "waiting": s.waiting,
            "log_bytes": s.log_bytes,
            "commits": s.commits,
            "syncs": s.syncs,
            "segments": s.segments,
            "log_disk_bytes": s.log_disk_bytes,
            "log_moves": s.log_moves,
            "damaged": s.damaged,
            "ring_used_bytes": s.ring_used_bytes,
            "held_bytes": s.held_bytes,
            "unhealthy": s.unhealthy,
            "latency_micros": {
                "count": s.latency.len(),
                "p50": micros(0.5),
                "p90": micros(0.9),
                "p99": micros(0.99),
                "p999": micros(0.999),
                "max": s.latency.max(),
            },
            "destinations": s.destinations.iter().map(|d| json!({
                "name": d.name,
                "routed": d.routed,
                "delivered": d.delivered,
                "retried": d.retried,
                "dead_lettered": d.dead_lettered,
                "waiting": d.waiting,
                "requests": d.requests,
                "failures": d.failures,
                "connections": d.connections,
                "last_error": d.last_error,
            })).collect::<Vec<_>>(),
        })
    }

    /// An endpoint confirms that it wants events, with the token that it was sent.
    fn confirm(&self, head: &Parts) -> Answer {
        let query = head.uri.query().unwrap_or_default();
        let of = |key: &str| {
            url::form_urlencoded::parse(query.as_bytes()).find(|(k, _)| k == key).map(|(_, value)| value.into_owned())
        };
        let (Some(name), Some(token)) = (of("destination"), of("token")) else {
            let error = "query: `destination` and `token` are missing; use the address as it was sent";
            return Refusal::new(StatusCode::BAD_REQUEST, error).answer();
        };
        let rate = match head.headers.get("webhook-allowed-rate").map(|v| v.to_str().unwrap_or("?").trim()) {
            None | Some("*") => None,
            Some(text) => match text.parse::<u32>() {
                Ok(n) if n > 0 => Some(n),
                _ => {
                    let error = "WebHook-Allowed-Rate is no number of requests per minute";
                    return Refusal::new(StatusCode::BAD_REQUEST, error).answer();
                }
            },
        };
        match self.engine.confirm_by_token(&name, &token, rate) {
            Ok(()) => json_answer(StatusCode::OK, &json!({ "status": "confirmed" })),
            Err(e) => Refusal::new(StatusCode::NOT_FOUND, e.message().to_owned()).answer(),
        }
    }

    fn health(&self) -> Answer {
        let mut reasons = self.engine.stats().unhealthy;
        reasons.extend(self.health_checks.lock().iter().flat_map(|check| check()));
        if reasons.is_empty() {
            json_answer(StatusCode::OK, &json!({ "status": "ok" }))
        } else {
            json_answer(StatusCode::SERVICE_UNAVAILABLE, &json!({ "status": "unhealthy", "reasons": reasons }))
        }
    }
}

fn headers(map: &HeaderMap) -> impl Iterator<Item = (&str, &[u8])> {
    map.iter().map(|(name, value)| (name.as_str(), value.as_bytes()))
}

/// The ack level that a request asks for: by its query, by its header, or the safest.
fn ack_level(head: &Parts) -> Result<Ack, Refusal> {
    let bad = |place: &str, e: &Error| Refusal::new(StatusCode::BAD_REQUEST, format!("{place}: {e}"));
    let mut asked = None;
    for parameter in head.uri.query().unwrap_or_default().split('&').filter(|p| !p.is_empty()) {
        let Some(level) = parameter.strip_prefix("ack=") else {
            let name = parameter.split('=').next().unwrap_or_default();
            let error = format!("query: unknown parameter `{name}`; the only one is `ack`");
            return Err(Refusal::new(StatusCode::BAD_REQUEST, error));
        };
        asked = Some(Ack::parse(level).map_err(|e| bad("query", &e))?);
    }
    if let Some(ack) = asked {
        return Ok(ack);
    }
    match head.headers.get(ACK_HEADER) {
        None => Ok(Ack::default()),
        Some(value) => Ack::parse(value.to_str().unwrap_or("?").trim()).map_err(|e| bad("Tidewire-Ack", &e)),
    }
}

/// Refuses bodies that cannot be one of the documents. What a page in a browser can send without asking first (text,
/// forms) is among them.
fn check_media(media: Option<&str>, headers: &HeaderMap, binary: bool) -> Result<(), Refusal> {
    let unsupported = |error: String| Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, error));
    if let Some(coding) = headers.get(CONTENT_ENCODING)
        && !coding.as_bytes().eq_ignore_ascii_case(b"identity")
    {
        return unsupported("content-encoding: encoded bodies are not taken; send it as it is".into());
    }
    let Some(media) = media else { return Ok(()) };
    let name = media.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let lines = ["application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonlines"];
    // In the binary mode it is the type of the data, which is looked at there.
    if binary || name == "application/json" || name.ends_with("+json") || lines.contains(&name.as_str()) {
        return Ok(());
    }
    unsupported(format!(
        "content-type: `{}` is not taken; send application/json, application/cloudevents+json, \
         application/cloudevents-batch+json or application/x-ndjson",
        name.escape_debug()
    ))
}
