//! Who hears about what: rules, destinations, and the validated set of both.

mod arn;
mod custom;
mod destination;
mod endpoints;
mod lint;
mod live;
mod notification;
mod place;
mod set;
mod success;
mod verification;

pub use crate::net::tls::{Pin, Tls, TlsVersion};
pub use arn::Arns;
pub use custom::Custom;
pub use destination::{
    BatchLimits, BreakerPolicy, DESTINATION_NAME_BYTES_MAX, Destination, DestinationKind, DisablePolicy, OnQueueFull,
    Order, ProxyChoice, QueueLimits, RateLimits, RetryPolicy, Webhook,
};
pub use endpoints::{Balance, WebhookEndpoint};
pub use lint::{Finding, FindingKind, lint};
pub use live::{Backlog, Expect, LiveDestination, LiveRule, Owner};
pub use notification::{
    DocumentEntry, DocumentFilterRule, EntryKind, Extensions, FilterList, FilterValues, Format, Notification,
    NotificationOptions, Overlap, parse_s3_filter,
};
pub use set::RuleSet;
pub use success::{BodyTest, HeaderTest, Partial, PartialBy, Statuses, Success};
pub use verification::{Verification, VerificationMethod};

pub(crate) use destination::{check_header, within, within_ratio, within_time};
pub(crate) use live::{Edit, Key, LiveDestinations, LiveRules, Numbers, Plan, RULES_MAX, Retired, RuleTable, key};
pub(crate) use notification::write as write_document;
pub(crate) use place::{Text, suggest, unknown_name};
pub(crate) use set::Subject;
pub(crate) use verification::fingerprint;

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::event::{BUCKET_BYTES_MAX, EventPattern, EventTypes, Priority};
use crate::filter::Filter;

/// The longest id of a rule, in bytes; S3 allows as many characters.
pub const RULE_ID_BYTES_MAX: usize = 255;

/// One rule: events of these types, in this bucket, that pass this filter, go to these destinations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// The name of the rule, 1 to [`RULE_ID_BYTES_MAX`] bytes without control characters. Unique among the rules of its
    /// bucket: two buckets may each have a rule `images`, as two S3 documents may.
    pub id: String,
    /// The bucket; `None` is every bucket, and the events of the store itself, which have none.
    pub bucket: Option<String>,
    /// The event types.
    pub events: EventPattern,
    /// The names and wildcards that `events` was made from, as written. Those without a star are promises: the load is
    /// refused if a destination of the rule cannot be told of them. May be empty if `events` was made another way.
    pub event_names: Vec<String>,
    /// The condition on the key.
    pub filter: Filter,
    /// The names of the destinations, each once, at least one unless the rule retains.
    pub destinations: Vec<String>,
    /// Whether a destination is told once more by this rule when another rule already tells it of the same event.
    /// Default: `false`, each destination hears of an event once.
    pub repeat: bool,
    /// The priority of what the rule sends, whatever the event says of itself. Default: `None`, as the event says.
    pub priority: Option<Priority>,
    /// Whether the rule's events are kept in the log for replay, also if no destination wants them. Such a rule may have no
    /// destinations. Needs a log that is kept ([`crate::config::RetentionConfig`]). Default: `false`.
    pub retain: bool,
    /// What it was in the notification document of S3 that it came from, if it did: [`crate::Engine::bucket_notification`]
    /// gives that back. It says nothing about what the rule wants: who changes that sets it to `None`. Default: `None`.
    pub document: Option<Arc<DocumentEntry>>,
}

impl Rule {
    /// A rule for these event types (names and wildcards) in every bucket, without condition and destination; set the
    /// fields or use the `with_` functions.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidConfig`] if a name is unknown to `types`.
    pub fn new<S: AsRef<str>>(
        id: impl Into<String>,
        event_names: impl IntoIterator<Item = S>,
        types: &EventTypes,
    ) -> Result<Rule> {
        let id = id.into();
        let mut rule = Rule { id, ..Rule::default() };
        for name in event_names {
            let name = name.as_ref();
            rule.events.add(name, types).map_err(|e| e.at("events").at(rule.label()))?;
            rule.event_names.push(name.to_owned());
        }
        Ok(rule)
    }

    /// The rule, for one bucket.
    #[must_use]
    pub fn with_bucket(mut self, bucket: impl Into<String>) -> Rule {
        self.bucket = Some(bucket.into());
        self
    }

    /// The rule, with this condition.
    #[must_use]
    pub fn with_filter(mut self, filter: Filter) -> Rule {
        self.filter = filter;
        self
    }

    /// The rule, with one destination more.
    #[must_use]
    pub fn with_destination(mut self, name: impl Into<String>) -> Rule {
        self.destinations.push(name.into());
        self
    }

    /// The rule, with this priority.
    #[must_use]
    pub fn with_priority(mut self, priority: Priority) -> Rule {
        self.priority = Some(priority);
        self
    }

    /// The rule as a JSON object with the keys of the configuration, its filter in the native form.
    pub fn to_json(&self) -> serde_json::Value {
        let mut json = crate::config::stored::rule_json(self);
        if let Some(object) = json.as_object_mut() {
            // No key of the configuration.
            object.remove("document");
        }
        json
    }

    /// How errors name the rule.
    pub(crate) fn label(&self) -> String {
        format!("rule `{}`", self.id)
    }

    /// Why a rule that retains cannot be in force while the log is not kept.
    pub(crate) fn retains_in_vain(&self) -> Error {
        Error::invalid_config("it retains events, and the log is not kept")
            .at(self.label())
            .remedy("say how long in [engine.retention], as in `age_max = \"7d\"`, or leave `retain` out")
    }

    fn check_id(&self) -> Result<()> {
        if self.id.is_empty() {
            return Err(Error::invalid_config("the rule has no id").remedy("give it one that is unique in its bucket"));
        }
        if self.id.len() > RULE_ID_BYTES_MAX || self.id.chars().any(char::is_control) {
            return Err(Error::invalid_config(format!(
                "the id has {} bytes; at most {RULE_ID_BYTES_MAX} are allowed, and no control characters",
                self.id.len()
            ))
            .remedy("choose a shorter, printable id"));
        }
        Ok(())
    }
}

/// Checks the name of a bucket as rules and sources write it.
pub(crate) fn check_bucket(bucket: &str) -> Result<()> {
    if bucket.is_empty() || bucket.len() > BUCKET_BYTES_MAX {
        return Err(Error::invalid_config(format!(
            "the bucket's name has {} bytes; it must have 1 to {BUCKET_BYTES_MAX}",
            bucket.len()
        ))
        .at("bucket")
        .remedy("name one bucket, or leave `bucket` out for every bucket"));
    }
    if bucket.contains(['*', '?', '/']) || bucket.chars().any(char::is_control) {
        return Err(Error::invalid_config(format!("`{}` is not the name of a bucket", bucket.escape_debug()))
            .at("bucket")
            .remedy("name one bucket exactly (one rule each), or leave `bucket` out for every bucket"));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
