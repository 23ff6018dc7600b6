//! Destinations as configured: what receives, how much at a time, and how patiently.

use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use url::Url;

use super::custom::Custom;
use super::endpoints::{self, Balance, WebhookEndpoint};
use super::success::{Partial, Success};
use super::verification::Verification;
use crate::auth::{self, Auth};
use crate::config::check_proxy;
use crate::error::{Error, Result};
use crate::event::format::Format;
use crate::event::profile::Profile;
use crate::net::address::{AddressLists, Trust};
use crate::net::pool::PoolLimits;
use crate::net::proxy::Proxy;
use crate::net::tls::Tls;
use crate::wire::{self, Compression, Encryption};

/// The longest name of a destination, in bytes.
pub const DESTINATION_NAME_BYTES_MAX: usize = 128;

/// The most events one request may be configured to carry.
const BATCH_EVENTS_MAX: usize = 10_000;
/// The largest request body that may be configured, in bytes.
const BATCH_BYTES_MAX: usize = 64 << 20;
const LINGER_MAX: Duration = Duration::from_secs(60);
const CONCURRENCY_MAX: usize = 1024;
/// The longest wait of any kind that may be configured: 400 days.
const WAIT_MAX: Duration = Duration::from_secs(400 * 24 * 3600);
/// What a pause that an endpoint asks for is at least, and the most that may be configured for it.
const RETRY_AFTER_MIN: Duration = Duration::from_secs(1);
const RETRY_AFTER_MAX: Duration = Duration::from_secs(24 * 3600);
const RATE_MAX: usize = 1 << 40;
pub(super) const TIMEOUT_MAX: Duration = Duration::from_secs(3600);
/// The most ranges of addresses in one list.
const RANGES_MAX: usize = 1024;
/// The longest path of a Unix socket, without the zero at its end.
const UNIX_SOCKET_BYTES_MAX: usize = 107;
const HEADERS_MAX: usize = 64;
const HEADER_BYTES_MAX: usize = 8 * 1024;

/// One system that receives events.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Destination {
    /// The name that rules, metrics and stored cursors use: 1 to [`DESTINATION_NAME_BYTES_MAX`] letters, digits, `-`,
    /// `_` and `.`, the first a letter or digit.
    pub name: String,
    /// What kind of system it is, with its address.
    pub kind: DestinationKind,
    /// How events are written for it. Default: [`Profile::default`]. With a template it decides which types of events there
    /// are, and what `event.record` is: [`Profile::CloudEvents`] has all.
    pub profile: Profile,
    /// In which encoding, with which metadata and tags, or by which template.
    pub format: Format,
    /// How many events one request carries.
    pub batch: BatchLimits,
    /// How many requests may be on their way at once at most, those of all shards together, 1 to 1024. Default: 64. Of
    /// one resource key there is never more than one, unless the order is [`Order::None`]; with [`Order::Strict`] there is
    /// one in all.
    pub concurrency: usize,
    /// Whether fewer requests are made at once while the endpoint's answers get slower with more, or it says that it is
    /// too much: from 4 on, one more per round trip while all are used. Default: true.
    pub adaptive_concurrency: bool,
    /// How much it gets per second.
    pub rate: RateLimits,
    /// When it is given up.
    pub disable: DisablePolicy,
    /// Which events wait for which. Default: [`Order::Key`]. A change is in force once what was on its way is out, so that
    /// the order of each key holds across it.
    pub order: Order,
    /// How failed events are tried again.
    pub retry: RetryPolicy,
    /// When a failing destination is left alone.
    pub breaker: BreakerPolicy,
    /// The destination that is told of the events that are given up here, with the reason, instead of their being kept as
    /// dead letters; only what cannot be told there either is kept. Default: none. No chain of these may lead back, and the
    /// other destination's profile must have records for what this one is told of.
    pub dead_letter_to: Option<String>,
    /// How much may wait for it, and what happens to what is more.
    pub queue: QueueLimits,
}

/// Which events of a destination wait for which.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// Events of one resource key arrive in the order in which they were published; a failing one holds the later ones of
    /// its key back, and no others.
    #[default]
    Key,
    /// Events arrive as it happens, also those of one key: a failing one holds nobody back.
    None,
    /// All events arrive in one order, which keeps that of each key, one request at a time: a failing one holds everybody
    /// back. One shard delivers them all, and the others hand theirs over to it through its log.
    Strict,
}

impl Destination {
    /// A destination with the defaults for everything but name and kind.
    pub fn new(name: impl Into<String>, kind: DestinationKind) -> Destination {
        Destination {
            name: name.into(),
            kind,
            profile: Profile::default(),
            format: Format::default(),
            batch: BatchLimits::default(),
            concurrency: 64,
            adaptive_concurrency: true,
            rate: RateLimits::default(),
            disable: DisablePolicy::default(),
            order: Order::default(),
            retry: RetryPolicy::default(),
            breaker: BreakerPolicy::default(),
            dead_letter_to: None,
            queue: QueueLimits::default(),
        }
    }

    /// How many events go together: one, where each has a request of its own.
    pub fn batch_limits(&self) -> BatchLimits {
        match self.format.is_single(self.profile) {
            false => self.batch,
            true => BatchLimits { events_max: 1, linger: Duration::ZERO, ..self.batch },
        }
    }

    /// How errors name the destination.
    pub(crate) fn label(&self) -> String {
        format!("destination `{}`", self.name)
    }

    /// Checks everything that can be checked without the network.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidConfig`] that names the field, the value and the limit.
    pub fn validate(&self) -> Result<()> {
        check_name(&self.name)?;
        self.format.validate(self.profile)?;
        within("batch.events_max", self.batch.events_max, 1, BATCH_EVENTS_MAX)?;
        within("batch.bytes_max", self.batch.bytes_max, 1, BATCH_BYTES_MAX)?;
        within_time("batch.linger", self.batch.linger, Duration::ZERO, LINGER_MAX)?;
        within("concurrency", self.concurrency, 1, CONCURRENCY_MAX)?;
        let retry = &self.retry;
        within_time("retry.backoff_min", retry.backoff_min, TICK, WAIT_MAX)?;
        within_time("retry.backoff_max", retry.backoff_max, TICK, WAIT_MAX)?;
        within_time("retry.age_max", retry.age_max, TICK, WAIT_MAX)?;
        within("retry.poison_attempts", retry.poison_attempts as usize, 1, 1000)?;
        if let Some(max) = retry.attempts_max {
            within("retry.attempts_max", max as usize, 1, 1_000_000)?;
        }
        in_order("retry.backoff_min", retry.backoff_min, "retry.backoff_max", retry.backoff_max)?;
        within_time("retry.retry_after_max", retry.retry_after_max, RETRY_AFTER_MIN, RETRY_AFTER_MAX)?;
        self.rate.validate()?;
        within_time("disable.after", self.disable.after, TICK, WAIT_MAX)?;
        within("disable.attempts_min", self.disable.attempts_min as usize, 1, 1_000_000)?;
        self.queue.validate()?;
        let breaker = &self.breaker;
        within_time("breaker.window", breaker.window, TICK, WAIT_MAX)?;
        within("breaker.calls_min", breaker.calls_min as usize, 1, 1_000_000)?;
        within("breaker.failed_percent", breaker.failed_percent.into(), 1, 100)?;
        within("breaker.successes", breaker.successes as usize, 1, 1000)?;
        within("breaker.consecutive_failures", breaker.consecutive_failures as usize, 1, 1_000_000)?;
        within_time("breaker.open_min", breaker.open_min, TICK, WAIT_MAX)?;
        within_time("breaker.open_max", breaker.open_max, TICK, WAIT_MAX)?;
        in_order("breaker.open_min", breaker.open_min, "breaker.open_max", breaker.open_max)?;
        let webhook = match &self.kind {
            DestinationKind::Webhook(webhook) => webhook,
            DestinationKind::Custom(custom) => return custom.validate(),
        };
        let names = self.format.header_templates.iter().map(|(name, _)| name);
        if let Some(name) = names.into_iter().find(|n| webhook.headers.iter().any(|(h, _)| h.eq_ignore_ascii_case(n))) {
            return Err(Error::invalid_config(format!("header `{name}` is given twice"))
                .at("header_templates")
                .remedy("keep it in `headers` or in `header_templates`"));
        }
        webhook.validate(&self.format.header_names(self.profile))
    }
}

/// What kind of system a destination is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[allow(clippy::large_enum_variant)] // There are few destinations, and each is in one place for long.
pub enum DestinationKind {
    /// An HTTP endpoint that takes POST requests.
    Webhook(Webhook),
    /// A function of the host.
    Custom(Custom),
}

impl DestinationKind {
    /// The webhook, if it is one.
    pub fn webhook(&self) -> Option<&Webhook> {
        match self {
            DestinationKind::Webhook(webhook) => Some(webhook),
            DestinationKind::Custom(_) => None,
        }
    }

    /// As [`DestinationKind::webhook`], to be changed.
    pub fn webhook_mut(&mut self) -> Option<&mut Webhook> {
        match self {
            DestinationKind::Webhook(webhook) => Some(webhook),
            DestinationKind::Custom(_) => None,
        }
    }

    /// Its name in a file.
    pub fn name(&self) -> &'static str {
        match self {
            DestinationKind::Webhook(_) => "webhook",
            DestinationKind::Custom(_) => "custom",
        }
    }

    /// What of its address is no secret: scheme, host and port, or who serves it.
    pub fn shown(&self) -> String {
        match self {
            DestinationKind::Webhook(webhook) => webhook.url.origin().ascii_serialization(),
            DestinationKind::Custom(custom) => format!("the handler {}", custom.handler),
        }
    }
}

/// How many events go together. A batch is sent when one of the three is reached; a single event is always sent, even
/// if its record alone is larger than `bytes_max`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchLimits {
    /// The most events of one request, 1 to 10,000. Default: 100. Where each event has a request of its own
    /// ([`Format::is_single`]) it is one, whatever this says.
    pub events_max: usize,
    /// The most bytes of one request body, up to 64 MiB. Default: 256 KiB.
    pub bytes_max: usize,
    /// How long the first event waits for company, up to 60 s. Default: 5 ms; zero sends at once.
    pub linger: Duration,
}

impl Default for BatchLimits {
    fn default() -> Self {
        BatchLimits { events_max: 100, bytes_max: 256 * 1024, linger: Duration::from_millis(5) }
    }
}

/// How failed events are tried again. The wait doubles from `backoff_min` to `backoff_max` with jitter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// The first wait, at least 1 ms. Default: 1 s.
    pub backoff_min: Duration,
    /// The longest wait, at least `backoff_min`. Default: 1 h.
    pub backoff_max: Duration,
    /// The age at which an event becomes a dead letter. Default: 72 h.
    pub age_max: Duration,
    /// How many attempts an event has, however they fail, 1 to 1,000,000. Those that the endpoint puts off (429,
    /// `Retry-After`) do not count. Default: no limit, `age_max` alone decides. Attempts made before a restart count, but
    /// for those of the last `engine.delivery.cursor_interval` before a crash.
    pub attempts_max: Option<u32>,
    /// How many attempts an event has whose contents the receiver refuses (400, 413, 415, 422), 1 to 1000. Default: 3.
    pub poison_attempts: u32,
    /// The longest pause that the endpoint may ask for with `Retry-After`, 1 s to 24 h; what is longer counts as this. Also
    /// where it says 429 and not for how long, which are 30 s else.
    /// Default: 1 h.
    pub retry_after_max: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        RetryPolicy {
            backoff_min: Duration::from_secs(1),
            backoff_max: Duration::from_secs(3600),
            age_max: Duration::from_secs(72 * 3600),
            attempts_max: None,
            poison_attempts: 3,
            retry_after_max: Duration::from_secs(3600),
        }
    }
}

/// When a destination that takes nothing is disabled: nothing more is sent to it until somebody resumes it; its events wait,
/// and become dead letters when they are too old. One that says that it is gone (410) is disabled after a day of that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DisablePolicy {
    /// For how long it has taken nothing, while an engine was running, up to 400 days. Warnings are given at 50, 70 and
    /// 90 % of this time. Default: 120 h.
    pub after: Duration,
    /// The attempts in that time at least. Default: 20.
    pub attempts_min: u32,
}

impl Default for DisablePolicy {
    fn default() -> Self {
        DisablePolicy { after: Duration::from_secs(120 * 3600), attempts_min: 20 }
    }
}

/// How much a destination gets per second, from all shards together. What would be more waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimits {
    /// The most events, at least 1. Default: no limit.
    pub events_per_second: Option<u32>,
    /// The most requests, at least 1. Default: no limit.
    pub requests_per_second: Option<u32>,
    /// The most bytes of request bodies, at least 1. A single event that is larger than what a burst may have goes when
    /// that is free, and others wait the longer. Default: no limit.
    pub bytes_per_second: Option<u64>,
    /// What was not used of so much time may go at once, 1 ms to 1 h; at least one event or request may. Default: 1 s.
    pub burst: Duration,
}

impl Default for RateLimits {
    fn default() -> Self {
        RateLimits {
            events_per_second: None,
            requests_per_second: None,
            bytes_per_second: None,
            burst: Duration::from_secs(1),
        }
    }
}

impl RateLimits {
    fn validate(&self) -> Result<()> {
        let rates = [
            ("rate.events_per_second", self.events_per_second.map(u64::from)),
            ("rate.requests_per_second", self.requests_per_second.map(u64::from)),
            ("rate.bytes_per_second", self.bytes_per_second),
        ];
        for (key, rate) in rates {
            if let Some(rate) = rate {
                within(key, usize::try_from(rate).unwrap_or(usize::MAX), 1, RATE_MAX)?;
            }
        }
        within_time("rate.burst", self.burst, TICK, TIMEOUT_MAX)
    }
}

/// How much may wait for a destination, all shards together, and what happens to what is more.
///
/// A queue is full at the first of its limits. The limits are not hard: what the shards have taken in before they tell each
/// other stays, and one that sheds does so in steps.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct QueueLimits {
    /// The most events that wait, at least 1. Default: no limit.
    pub events_max: Option<u64>,
    /// The most bytes of the log that wait, at least 4 KiB. Default: 10 GiB. An event for several destinations counts for
    /// each.
    pub bytes_max: u64,
    /// How long an event may wait, tried or not; then it is shed, as a dead letter unless `on_full` says that the oldest
    /// are dropped. Default: `None`, then what was never tried may wait for `retry.age_max`, and what was has that as its
    /// budget.
    pub age_max: Option<Duration>,
    /// What happens when the queue is full. Default: [`OnQueueFull::DeadLetterOldest`].
    pub on_full: OnQueueFull,
    /// How long [`OnQueueFull::Block`] lets a publisher wait, up to 1 h. Default: 5 s.
    pub block_timeout: Duration,
    /// The share of a limit from which on the queue is under pressure, 0.1 to 1: a warning is given, and low priority
    /// stands back. Default: 0.8.
    pub warn_at: f64,
}

/// What happens when the queue of a destination is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OnQueueFull {
    /// `publish` answers [`crate::ErrorKind::Full`]. An event of low priority is refused from `warn_at` on, one of high
    /// priority only when the queue is a tenth over its limit.
    Refuse,
    /// `publish` waits for `block_timeout`, and then refuses.
    Block,
    /// The oldest events are dropped, those of low priority first.
    DropOldest,
    /// New events are dropped, those of low priority from `warn_at` on, those of high priority only when the queue is a
    /// tenth over its limit.
    DropNewest,
    /// The oldest events become dead letters, those of low priority first.
    #[default]
    DeadLetterOldest,
}

impl OnQueueFull {
    /// Every policy with its name in the configuration.
    pub const ALL: [(OnQueueFull, &'static str); 5] = [
        (OnQueueFull::Refuse, "refuse"),
        (OnQueueFull::Block, "block"),
        (OnQueueFull::DropOldest, "drop_oldest"),
        (OnQueueFull::DropNewest, "drop_newest"),
        (OnQueueFull::DeadLetterOldest, "dead_letter_oldest"),
    ];

    /// The policy of a name.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidConfig`] with the nearest name.
    pub fn parse(name: &str) -> Result<OnQueueFull> {
        let found = Self::ALL.iter().find(|(_, n)| *n == name).map(|(policy, _)| *policy);
        found.ok_or_else(|| {
            Error::invalid_config(format!("unknown policy `{}`", name.escape_debug()))
                .at("on_full")
                .remedy(super::suggest("policy", name, Self::ALL.iter().map(|(_, n)| *n)))
        })
    }

    /// Its name in the configuration.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(policy, _)| *policy == self).map_or("", |(_, name)| name)
    }

    /// Whether publishers are told instead of events being shed.
    pub fn is_told(self) -> bool {
        matches!(self, OnQueueFull::Refuse | OnQueueFull::Block)
    }
}

impl Default for QueueLimits {
    fn default() -> Self {
        QueueLimits {
            events_max: None,
            bytes_max: 10 << 30,
            age_max: None,
            on_full: OnQueueFull::default(),
            block_timeout: Duration::from_secs(5),
            warn_at: 0.8,
        }
    }
}

impl QueueLimits {
    fn validate(&self) -> Result<()> {
        if let Some(events) = self.events_max {
            within("queue.events_max", usize::try_from(events).unwrap_or(usize::MAX), 1, 1 << 50)?;
        }
        within("queue.bytes_max", usize::try_from(self.bytes_max).unwrap_or(usize::MAX), 4 << 10, 1 << 50)?;
        if let Some(age) = self.age_max {
            within_time("queue.age_max", age, TICK, WAIT_MAX)?;
        }
        within_time("queue.block_timeout", self.block_timeout, Duration::ZERO, TIMEOUT_MAX)?;
        within_ratio("queue.warn_at", self.warn_at, 0.1, 1.0)
    }
}

/// When a failing destination is left alone for a while, by all shards together. What counts is no connection, no answer
/// in time, and 5xx.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerPolicy {
    /// How many failures in a row open the breaker, at least 1. Default: 5.
    pub consecutive_failures: u32,
    /// It opens as well when of the attempts within this time, `calls_min` at least, `failed_percent` have failed.
    /// Default: 30 s.
    pub window: Duration,
    /// Default: 10.
    pub calls_min: u32,
    /// 1 to 100. Default: 50.
    pub failed_percent: u8,
    /// How many probes in a row must succeed before it closes, 1 to 1000; then requests begin anew with one at a time.
    /// Default: 3.
    pub successes: u32,
    /// How long it stays open the first time, at least 1 ms. Default: 5 s; doubles each time.
    pub open_min: Duration,
    /// The longest it stays open, at least `open_min`. Default: 300 s.
    pub open_max: Duration,
}

impl Default for BreakerPolicy {
    fn default() -> Self {
        BreakerPolicy {
            consecutive_failures: 5,
            window: Duration::from_secs(30),
            calls_min: 10,
            failed_percent: 50,
            successes: 3,
            open_min: Duration::from_secs(5),
            open_max: Duration::from_secs(300),
        }
    }
}

/// An HTTP endpoint. Its `Debug` form leaves out what may be secret: header values, and the path and query of the URL.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Webhook {
    /// Where to POST: `http` or `https`, without user, password and fragment.
    pub url: Url,
    /// Several endpoints instead of one; `url` is then that of the first. Default: empty.
    pub endpoints: Vec<WebhookEndpoint>,
    /// How requests are spread over them. Default: `None`, [`Balance::Affinity`], without an order
    /// [`Balance::LeastOutstanding`].
    pub balance: Option<Balance>,
    /// How an endpoint is asked before it gets events, after each change of its address or of this. Until it has agreed its
    /// events wait. Default: not.
    pub verification: Option<Verification>,
    /// Headers to add, in this order, each name once.
    pub headers: Vec<(String, String)>,
    /// How requests are signed, and who we say that we are, up to 4 schemes that set different headers. Default: none.
    pub auth: Vec<Auth>,
    /// How bodies are compressed. Default: not.
    pub compression: Option<Compression>,
    /// How bodies are encrypted, after they were compressed. Default: not.
    pub encryption: Option<Encryption>,
    /// How long a whole attempt may take, the reading of the answer included, up to 1 h. Default: 15 s.
    pub timeout: Duration,
    /// How long connecting may take, TLS included, at most `timeout`. Default: 5 s.
    pub connect_timeout: Duration,
    /// How its certificate is judged, and by which one we are known there. `https` only.
    pub tls: Tls,
    /// Whether HTTP/2 is spoken if the endpoint offers it in the TLS handshake (ALPN), with several requests at once on one
    /// connection; otherwise HTTP/1.1 is. `https` only. Default: false.
    pub http2: bool,
    /// How long an unused connection is kept, unless its endpoint says less. Default: 4 s, below the 5 s after which servers
    /// commonly hang up.
    pub idle: Duration,
    /// How long connections are used otherwise. There are as many per shard as requests at once, at most.
    pub pool: PoolLimits,
    /// On whose word the address is taken. Default: `None`, as [`crate::config::NetworkConfig::trust`] says.
    pub trust: Option<Trust>,
    /// Ranges that its address may or may not be in, besides those of [`crate::config::NetworkConfig::addresses`].
    pub addresses: AddressLists,
    /// When an answer is a success.
    pub success: Success,
    /// Where a successful answer names events that were not taken. Default: it takes all or none.
    pub partial: Option<Partial>,
    /// The way to it.
    pub proxy: ProxyChoice,
    /// A Unix socket to connect to instead of the URL's host and port, which then only say what is asked for there. An
    /// absolute path of at most 107 bytes. Not for tenants, and not through a proxy. Default: none.
    pub unix_socket: Option<PathBuf>,
}

/// Which way a destination is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ProxyChoice {
    /// Through the proxy of the engine, if it has one ([`crate::config::NetworkConfig::proxy`]). The default.
    #[default]
    Engine,
    /// Without a proxy (`proxy = { direct = true }`).
    Direct,
    /// Through this one. The names of its hosts are then looked up by the proxy, and judged by it as well: of what is
    /// behind a proxy only literal addresses are judged here.
    Through(Proxy),
}

impl Webhook {
    /// An endpoint with the defaults for everything but its URL.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidConfig`] if the URL is malformed or not allowed. The message leaves the URL out
    /// where it may hold a secret.
    pub fn new(url: &str) -> Result<Webhook> {
        Ok(Webhook {
            url: parse_url(url)?,
            endpoints: Vec::new(),
            balance: None,
            verification: None,
            headers: Vec::new(),
            auth: Vec::new(),
            compression: None,
            encryption: None,
            timeout: Duration::from_secs(15),
            connect_timeout: Duration::from_secs(5),
            tls: Tls::default(),
            http2: false,
            idle: Duration::from_secs(4),
            pool: PoolLimits::default(),
            trust: None,
            addresses: AddressLists::default(),
            success: Success::default(),
            partial: None,
            proxy: ProxyChoice::default(),
            unix_socket: None,
        })
    }

    /// One with several endpoints, at least one.
    ///
    /// # Errors
    /// As [`Webhook::new`], and if there is none.
    pub fn with_endpoints(endpoints: Vec<WebhookEndpoint>) -> Result<Webhook> {
        let Some(first) = endpoints.first() else {
            return Err(Error::invalid_config("there is no endpoint").at("endpoints").remedy("name one at least"));
        };
        Ok(Webhook { url: first.url.clone(), endpoints, ..Webhook::new("http://localhost/")? })
    }

    /// The URLs of all endpoints.
    pub fn urls(&self) -> impl Iterator<Item = &Url> {
        let only = self.endpoints.is_empty().then_some(&self.url);
        only.into_iter().chain(self.endpoints.iter().map(|e| &e.url))
    }

    /// The webhook of one of several endpoints, by its place.
    pub(crate) fn of_endpoint(&self, at: usize) -> Webhook {
        let url = self.endpoints.get(at).map_or(&self.url, |e| &e.url).clone();
        Webhook { url, endpoints: Vec::new(), ..self.clone() }
    }

    /// `made` are the names of headers that each event has of its own.
    fn validate(&self, made: &[&str]) -> Result<()> {
        check_url(&self.url)?;
        endpoints::validate(&self.endpoints, check_url)?;
        if self.endpoints.first().is_some_and(|first| first.url != self.url) {
            return Err(Error::invalid_config("the URL is not that of the first endpoint")
                .at("endpoints")
                .remedy("make it with Webhook::with_endpoints"));
        }
        if let Some(verification) = &self.verification {
            verification.validate()?;
        }
        if self.headers.len() > HEADERS_MAX {
            return Err(too_many("headers", self.headers.len(), HEADERS_MAX));
        }
        let bytes: usize = self.headers.iter().map(|(n, v)| n.len() + v.len() + 4).sum();
        if bytes > HEADER_BYTES_MAX {
            return Err(too_many("headers (bytes)", bytes, HEADER_BYTES_MAX));
        }
        for (i, (name, value)) in self.headers.iter().enumerate() {
            check_header(name, value)?;
            if self.headers[..i].iter().any(|(n, _)| n.eq_ignore_ascii_case(name)) {
                return Err(Error::invalid_config(format!("header `{name}` is given twice"))
                    .at("headers")
                    .remedy("keep one; names differ by more than case"));
            }
        }
        let mut headers = self.headers.clone();
        headers.extend(made.iter().map(|name| ((*name).to_owned(), String::new())));
        wire::validate(self.compression.as_ref(), self.encryption.as_ref())?;
        if matches!(self.encryption, Some(Encryption::Aes128Gcm(_))) {
            headers.push(("content-encoding".into(), String::new()));
        }
        auth::validate(&self.auth, &headers)?;
        self.success.validate()?;
        if let Some(partial) = &self.partial {
            partial.validate()?;
        }
        within_time("timeout", self.timeout, TICK, TIMEOUT_MAX)?;
        within_time("connect_timeout", self.connect_timeout, TICK, TIMEOUT_MAX)?;
        in_order("connect_timeout", self.connect_timeout, "timeout", self.timeout)?;
        within_time("idle", self.idle, TICK, TIMEOUT_MAX)?;
        within_time("pool.lifetime", self.pool.lifetime, TICK, TIMEOUT_MAX)?;
        within("pool.requests_max", self.pool.requests_max as usize, 1, 1_000_000_000)?;
        within_time("pool.user_timeout", self.pool.user_timeout, Duration::from_millis(100), TIMEOUT_MAX)?;
        for (key, list) in [("addresses.allow", &self.addresses.allow), ("addresses.deny", &self.addresses.deny)] {
            within(key, list.len(), 0, RANGES_MAX)?;
        }
        if let ProxyChoice::Through(proxy) = &self.proxy {
            check_proxy(proxy)?;
        }
        if self.unix_socket.is_some() && self.endpoints.len() > 1 {
            return Err(Error::invalid_config("several endpoints cannot be reached through one Unix socket")
                .at("unix_socket")
                .remedy("leave one of both out"));
        }
        if let Some(path) = &self.unix_socket {
            let bytes = path.as_os_str().len();
            if !path.is_absolute() || bytes > UNIX_SOCKET_BYTES_MAX || path.as_os_str().as_bytes().contains(&0) {
                return Err(Error::invalid_config(format!("unix_socket is `{}`", path.display()))
                    .at("unix_socket")
                    .remedy(format!("write an absolute path of at most {UNIX_SOCKET_BYTES_MAX} bytes")));
            }
            if matches!(self.proxy, ProxyChoice::Through(_)) {
                return Err(Error::invalid_config("a Unix socket is not reached through a proxy")
                    .at("unix_socket")
                    .remedy("leave one of both out"));
            }
        }
        let has_tls = self.urls().all(|url| url.scheme() == "https");
        if self.http2 && !has_tls {
            return Err(Error::invalid_config("HTTP/2 is allowed for a URL without TLS, where it cannot be agreed on")
                .at("http2")
                .remedy("write https://, or leave http2 out"));
        }
        self.tls.validate(has_tls)?;
        Ok(())
    }
}

impl fmt::Debug for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.headers.iter().map(|(n, _)| n.as_str()).collect();
        f.debug_struct("Webhook")
            .field("url", &format_args!("{}/…", self.url.origin().ascii_serialization()))
            .field("endpoints", &self.endpoints)
            .field("balance", &self.balance)
            .field("verification", &self.verification)
            .field("headers", &names)
            .field("auth", &self.auth)
            .field("compression", &self.compression)
            .field("encryption", &self.encryption)
            .field("timeout", &self.timeout)
            .field("connect_timeout", &self.connect_timeout)
            .field("tls", &self.tls)
            .field("http2", &self.http2)
            .field("idle", &self.idle)
            .field("pool", &self.pool)
            .field("trust", &self.trust)
            .field("addresses", &self.addresses)
            .field("success", &self.success)
            .field("partial", &self.partial)
            .field("proxy", &self.proxy)
            .field("unix_socket", &self.unix_socket)
            .finish()
    }
}

/// The shortest wait that can be configured where zero makes no sense.
pub(super) const TICK: Duration = Duration::from_millis(1);

pub(super) fn parse_url(text: &str) -> Result<Url> {
    let bad = |what: String| Err(Error::invalid_config(what).at("url").remedy("write it as https://host[:port]/path"));
    // The parser repairs much (tabs, backslashes, a missing slash); what needs repair is more likely a mistake.
    if text.bytes().any(|b| b <= b' ' || b == 0x7f || b == b'\\') {
        return bad("the URL has a space, a control character or a backslash".to_owned());
    }
    let lower = text.to_ascii_lowercase();
    if !(lower.starts_with("http://") || lower.starts_with("https://")) {
        return bad("the URL does not begin with http:// or https://".to_owned());
    }
    match Url::parse(text) {
        Ok(url) => check_url(&url).map(|()| url),
        Err(e) => bad(format!("the URL is malformed: {e}")),
    }
}

fn check_url(url: &Url) -> Result<()> {
    let bad = |what: &str, remedy: &str| Err(Error::invalid_config(what).at("url").remedy(remedy));
    if !matches!(url.scheme(), "http" | "https") {
        return bad("the URL is neither http nor https", "write it as https://host[:port]/path");
    }
    if url.host_str().is_none_or(str::is_empty) {
        return bad("the URL has no host", "write it as https://host[:port]/path");
    }
    if url.port() == Some(0) {
        return bad("the URL has port 0", "name the port that the receiver listens on");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return bad("the URL has a user or a password in it", "give them as an Authorization header");
    }
    if url.fragment().is_some() {
        return bad("the URL has a fragment (`#…`), which is never sent", "leave it out, or write %23 for `#`");
    }
    Ok(())
}

/// Names that the HTTP engine writes itself, or that concern one hop only.
const HEADERS_REFUSED: &[(&str, &str)] = &[
    ("host", "it comes from the URL"),
    ("content-length", "it frames the body"),
    ("transfer-encoding", "it frames the body"),
    ("content-encoding", "it comes from the body"),
    ("content-type", "it comes from the profile"),
    ("accept-encoding", "answers are read as they are"),
    ("expect", "it is never sent"),
    ("connection", "it concerns one hop only"),
    ("keep-alive", "it concerns one hop only"),
    ("proxy-connection", "it concerns one hop only"),
    ("proxy-authenticate", "it concerns one hop only"),
    ("proxy-authorization", "it concerns one hop only"),
    ("te", "it concerns one hop only"),
    ("trailer", "it concerns one hop only"),
    ("upgrade", "it concerns one hop only"),
    ("http2-settings", "it concerns one hop only"),
];

/// Checks a header that is added to those of the HTTP engine. No error shows the value.
pub(crate) fn check_header(name: &str, value: &str) -> Result<()> {
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    let bad = |what: String, remedy: &str| Err(Error::invalid_config(what).at("headers").remedy(remedy));
    if name.is_empty() || !name.bytes().all(token) {
        return bad(format!("`{}` is not a header name", name.escape_debug()), "use letters, digits and hyphens");
    }
    if let Some((_, why)) = HEADERS_REFUSED.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)) {
        return bad(format!("header `{name}` cannot be set: {why}"), "leave it out");
    }
    // The value may be a secret and is never shown.
    if !value.bytes().all(|b| b == b'\t' || (b' '..=b'~').contains(&b)) {
        return bad(
            format!("the value of header `{name}` has a line break, a control character or is not ASCII"),
            "encode it (percent or base64), or leave the character out",
        );
    }
    if value.trim_matches([' ', '\t']).len() != value.len() {
        return bad(format!("the value of header `{name}` begins or ends with white space"), "leave the space out");
    }
    Ok(())
}

/// Checks a destination's name.
pub(super) fn check_name(name: &str) -> Result<()> {
    let legal = name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    let first = name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    if !legal || !first || name.len() > DESTINATION_NAME_BYTES_MAX {
        return Err(Error::invalid_config(format!("`{}` cannot name a destination", name.escape_debug()))
            .at("name")
            .remedy(format!(
                "use 1 to {DESTINATION_NAME_BYTES_MAX} letters, digits, `-`, `_` and `.`, the first a letter or digit"
            )));
    }
    Ok(())
}

pub(crate) fn within(field: &str, value: usize, min: usize, max: usize) -> Result<()> {
    if value < min || value > max {
        return Err(Error::invalid_config(format!("{field} is {value}"))
            .at(field)
            .remedy(format!("choose from {min} to {max}")));
    }
    Ok(())
}

pub(crate) fn within_time(field: &str, value: Duration, min: Duration, max: Duration) -> Result<()> {
    if value < min || value > max {
        return Err(Error::invalid_config(format!("{field} is {value:?}"))
            .at(field)
            .remedy(format!("choose from {min:?} to {max:?}")));
    }
    Ok(())
}

pub(crate) fn within_ratio(field: &str, value: f64, min: f64, max: f64) -> Result<()> {
    if !(min..=max).contains(&value) {
        return Err(Error::invalid_config(format!("{field} is {value}"))
            .at(field)
            .remedy(format!("choose from {min} to {max}")));
    }
    Ok(())
}

fn in_order(low_name: &str, low: Duration, high_name: &str, high: Duration) -> Result<()> {
    if low > high {
        return Err(Error::invalid_config(format!("{low_name} ({low:?}) is more than {high_name} ({high:?})"))
            .at(low_name)
            .remedy("lower the one or raise the other"));
    }
    Ok(())
}

#[cold]
fn too_many(what: &str, n: usize, max: usize) -> Error {
    Error::invalid_config(format!("{what}: {n}, more than {max}")).at("headers").remedy("leave some out")
}
