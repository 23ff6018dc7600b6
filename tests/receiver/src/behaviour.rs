//! How a receiver answers.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::record::Record;

/// What the receiver does with each request.
#[derive(Clone, Default)]
pub enum Behaviour {
    /// Answers 204.
    #[default]
    Ok204,
    /// Answers with this status.
    Status(u16),
    /// Answers so many requests with a status, and the rest with 204.
    FailFirst(u64, u16),
    /// Answers 204 after a time.
    Delay(Duration),
    /// Closes the connection instead of answering so many requests, then answers 204.
    CloseBeforeResponse(u64),
    /// Answers so many requests with a status and this `Retry-After`, and the rest with 204.
    RetryAfter(u64, u16, String),
    /// Answers with these in turn, and then with 204.
    Script(Vec<Reply>),
    /// Asks a function, which must not block.
    Decide(Arc<dyn Fn(&Hit<'_>) -> Reply + Send + Sync>),
}

/// A request, as [`Behaviour::Decide`] sees it.
#[derive(Debug)]
pub struct Hit<'a> {
    /// The number of the request since the behaviour was set, from 0.
    pub number: u64,
    /// Its records; empty if the body was none of ours.
    pub records: &'a [Record],
    /// Its head.
    pub headers: &'a hyper::HeaderMap,
    /// Its body.
    pub body: &'a [u8],
}

/// What the receiver does with one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The time to wait first.
    pub delay: Duration,
    /// The status; `None` closes the connection instead.
    pub status: Option<u16>,
    /// Headers of the answer. Those that are not valid are left out.
    pub headers: Vec<(String, String)>,
    /// The body of the answer.
    pub body: Vec<u8>,
}

impl Reply {
    /// An answer with nothing but a status.
    pub fn status(status: u16) -> Self {
        Reply { delay: Duration::ZERO, status: Some(status), headers: Vec::new(), body: Vec::new() }
    }

    /// The end of the connection.
    pub fn close() -> Self {
        Reply { status: None, ..Reply::status(0) }
    }

    /// The same with a header more.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// The same after a time.
    #[must_use]
    pub fn after(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// Whether it accepts the records of the request.
    pub fn accepts(&self) -> bool {
        matches!(self.status, Some(200..=299))
    }
}

impl Behaviour {
    /// A behaviour that asks a function.
    pub fn decide(with: impl Fn(&Hit<'_>) -> Reply + Send + Sync + 'static) -> Self {
        Behaviour::Decide(Arc::new(with))
    }

    pub(crate) fn reply(&self, hit: &Hit<'_>) -> Reply {
        let ok = || Reply::status(204);
        match self {
            Behaviour::Ok204 => ok(),
            Behaviour::Status(status) => Reply::status(*status),
            Behaviour::FailFirst(n, status) if hit.number < *n => Reply::status(*status),
            Behaviour::Delay(delay) => ok().after(*delay),
            Behaviour::CloseBeforeResponse(n) if hit.number < *n => Reply::close(),
            Behaviour::RetryAfter(n, status, value) if hit.number < *n => {
                Reply::status(*status).header("Retry-After", value)
            }
            Behaviour::Script(replies) => {
                let index = usize::try_from(hit.number).unwrap_or(usize::MAX);
                replies.get(index).cloned().unwrap_or_else(ok)
            }
            Behaviour::Decide(with) => with(hit),
            Behaviour::FailFirst(..) | Behaviour::CloseBeforeResponse(_) | Behaviour::RetryAfter(..) => ok(),
        }
    }
}

impl fmt::Debug for Behaviour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Behaviour::Ok204 => f.write_str("Ok204"),
            Behaviour::Status(status) => f.debug_tuple("Status").field(status).finish(),
            Behaviour::FailFirst(n, status) => f.debug_tuple("FailFirst").field(n).field(status).finish(),
            Behaviour::Delay(delay) => f.debug_tuple("Delay").field(delay).finish(),
            Behaviour::CloseBeforeResponse(n) => f.debug_tuple("CloseBeforeResponse").field(n).finish(),
            Behaviour::RetryAfter(n, status, value) => {
                f.debug_tuple("RetryAfter").field(n).field(status).field(value).finish()
            }
            Behaviour::Script(replies) => f.debug_tuple("Script").field(replies).finish(),
            Behaviour::Decide(_) => f.write_str("Decide(..)"),
        }
    }
}
