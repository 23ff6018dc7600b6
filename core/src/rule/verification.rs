//! Whether an endpoint is asked if it wants events before it gets any.

use std::fmt;

use ring::digest;
use url::Url;

use super::destination::{check_header, parse_url, within};
use crate::error::{Error, Result};

/// The most requests per minute that may be asked for.
const RATE_MAX: usize = 100_000_000;

/// How an endpoint is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum VerificationMethod {
    /// An `OPTIONS` request with `WebHook-Request-Origin`, to be answered with `WebHook-Allowed-Origin` and
    /// `WebHook-Allowed-Rate` (CloudEvents, HTTP 1.1 Web Hooks for Event Delivery 1.0.2, 4). What the status says is no
    /// consent. The granted rate is kept to, by all shards together, and each request carries the origin.
    CloudEvents,
    /// An event `Microsoft.EventGrid.SubscriptionValidationEvent`, whose `validationCode` is to come back as
    /// `validationResponse`, or to be confirmed otherwise, by `callback` or by an operator.
    EventGrid,
    /// A document `{"type":"url_verification","challenge":"…"}`, whose challenge is to come back, as text or as a member
    /// `challenge`.
    Challenge,
    /// The document `s3:TestEvent` of S3, or the profile's own record of such an event where it has one; to be answered as
    /// any events are.
    TestEvent,
}

impl VerificationMethod {
    pub(crate) const ALL: [(VerificationMethod, &'static str); 4] = [
        (VerificationMethod::CloudEvents, "cloudevents"),
        (VerificationMethod::EventGrid, "event-grid"),
        (VerificationMethod::Challenge, "challenge"),
        (VerificationMethod::TestEvent, "test-event"),
    ];

    /// Its name in configurations.
    pub fn name(self) -> &'static str {
        VerificationMethod::ALL.iter().find(|(m, _)| *m == self).map_or("", |(_, name)| name)
    }
}

/// How the endpoints of a destination are asked before they get events. Its `Debug` form leaves out path and query of the
/// callback.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verification {
    /// The way to ask.
    pub method: VerificationMethod,
    /// The name of the sender that is told to the endpoint (CloudEvents): that of a DNS host. Default: `None`, the name of
    /// this host.
    pub origin: Option<String>,
    /// The requests per minute that are asked for (CloudEvents), at least 1. Default: `None`, nothing is said of a rate.
    pub rate: Option<u32>,
    /// Where the endpoint may confirm later, by GET or POST (CloudEvents, Event Grid): an address at which the engine's own
    /// HTTP source, or whatever calls [`crate::Engine::confirm_destination`], is reached from outside. The destination and a
    /// token are added to its query.
    pub callback: Option<Url>,
}

impl Verification {
    /// With the defaults for everything but the method.
    pub fn new(method: VerificationMethod) -> Verification {
        Verification { method, origin: None, rate: None, callback: None }
    }

    /// With an address for later confirmation.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidConfig`] if it is malformed.
    pub fn with_callback(mut self, url: &str) -> Result<Verification> {
        self.callback = Some(parse_url(url)?);
        Ok(self)
    }

    /// The name that the endpoint is told.
    pub(crate) fn origin(&self) -> String {
        self.origin.clone().unwrap_or_else(host_name)
    }

    pub(super) fn validate(&self) -> Result<()> {
        let of = |what: &str, methods: &[VerificationMethod], is_set: bool| {
            if is_set && !methods.contains(&self.method) {
                let error = Error::invalid_config(format!("`{what}` is not for `{}`", self.method.name()));
                return Err(error.at("verification").remedy("leave it out, or choose another method"));
            }
            Ok(())
        };
        of("origin", &[VerificationMethod::CloudEvents], self.origin.is_some())?;
        of("rate", &[VerificationMethod::CloudEvents], self.rate.is_some())?;
        let with_callback = [VerificationMethod::CloudEvents, VerificationMethod::EventGrid];
        of("callback", &with_callback, self.callback.is_some())?;
        if let Some(rate) = self.rate {
            within("verification.rate", rate as usize, 1, RATE_MAX)?;
        }
        if let Some(origin) = &self.origin {
            let legal = |b: u8| b.is_ascii_alphanumeric() || b"-._:".contains(&b);
            if origin.is_empty() || origin.len() > 255 || !origin.bytes().all(legal) {
                return Err(Error::invalid_config("the origin is no name of a host")
                    .at("verification")
                    .remedy("write it as store.example.com"));
            }
            check_header("WebHook-Request-Origin", origin)?;
        }
        Ok(())
    }

    /// What an endpoint has agreed to, as a text that says nothing: with another one it is asked anew.
    pub(crate) fn proof(&self, url: &Url) -> String {
        let origin = self.origin.as_deref().unwrap_or_default();
        let rate = self.rate.map_or(String::new(), |r| r.to_string());
        fingerprint(&[self.method.name(), origin, &rate, url.as_str()])
    }
}

impl fmt::Debug for Verification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let callback = self.callback.as_ref().map(|url| format!("{}/…", url.origin().ascii_serialization()));
        f.debug_struct("Verification")
            .field("method", &self.method)
            .field("origin", &self.origin)
            .field("rate", &self.rate)
            .field("callback", &callback)
            .finish()
    }
}

/// Half of the SHA-256 of texts, in hex.
pub(crate) fn fingerprint(parts: &[&str]) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        context.update(&(part.len() as u64).to_le_bytes());
        context.update(part.as_bytes());
    }
    context.finish().as_ref()[..16].iter().map(|b| format!("{b:02x}")).collect()
}

fn host_name() -> String {
    let read = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name: String = read.trim().chars().filter(|c| c.is_ascii_alphanumeric() || "-.".contains(*c)).collect();
    if name.is_empty() { "localhost".into() } else { name }
}
