//! Rules and destinations as they are kept: JSON, with the keys of the configuration file.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::load;
use crate::auth;
use crate::error::{Error, Result};
use crate::event::{EventTypes, Priority};
use crate::filter::{Filter, NamedFilters};
use crate::net::address::AddressLists;
use crate::net::pool::PoolLimits;
use crate::rule::{
    BreakerPolicy, Destination, DestinationKind, DisablePolicy, DocumentEntry, Order, ProxyChoice, RateLimits,
    RetryPolicy, Rule, Success,
};
use crate::wire;

/// A rule. Its filter is in the native form, in full.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredRule {
    id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    bucket: Option<String>,
    events: Vec<String>,
    #[serde(default, skip_serializing_if = "is_empty")]
    filter: Value,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    destinations: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    priority: Option<String>,
    #[serde(default, skip_serializing_if = "is_false")]
    repeat: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    retain: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    document: Option<DocumentEntry>,
}

fn is_false(b: &bool) -> bool {
    !*b
}

fn is_empty(v: &Value) -> bool {
    v.is_null() || v.as_object().is_some_and(Map::is_empty)
}

const PRIORITIES: [(Priority, &str); 3] =
    [(Priority::High, "high"), (Priority::Normal, "normal"), (Priority::Low, "low")];

/// The rule as it is kept.
pub(crate) fn rule_json(rule: &Rule) -> Value {
    let written = !rule.event_names.is_empty();
    let known = rule.events.known().map(|t| t.name().to_owned());
    let made: Vec<String> = known.chain(rule.events.custom().map(str::to_owned)).collect();
    let stored = StoredRule {
        id: rule.id.clone(),
        bucket: rule.bucket.clone(),
        events: if written { rule.event_names.clone() } else { made },
        filter: rule.filter.to_json(),
        destinations: rule.destinations.clone(),
        priority: PRIORITIES.iter().find(|(p, _)| Some(*p) == rule.priority).map(|(_, name)| (*name).to_owned()),
        repeat: rule.repeat,
        retain: rule.retain,
        document: rule.document.as_deref().cloned(),
    };
    serde_json::to_value(stored).unwrap_or_default()
}

/// The rule that was kept so. That it fits the destinations is not checked.
///
/// # Errors
/// [`crate::ErrorKind::InvalidConfig`] that names the rule.
pub(crate) fn rule_of_json(value: Value, types: &EventTypes) -> Result<Rule> {
    let stored: StoredRule = serde_json::from_value(value).map_err(|e| Error::invalid_config(e.to_string()))?;
    let mut rule = Rule::new(stored.id, stored.events, types)?;
    let label = rule.label();
    if !is_empty(&stored.filter) {
        let filter = Filter::read_native(&stored.filter, "filter", &NamedFilters::new());
        rule.filter = filter.map_err(|fault| fault.error.at(label.clone()))?;
    }
    if let Some(name) = &stored.priority {
        let known = PRIORITIES.iter().find(|(_, n)| n == name);
        let unknown = || Error::invalid_config(format!("unknown priority `{}`", name.escape_debug())).at(label);
        rule.priority = Some(known.ok_or_else(unknown)?.0);
    }
    rule.bucket = stored.bucket;
    rule.destinations = stored.destinations;
    (rule.repeat, rule.retain) = (stored.repeat, stored.retain);
    rule.document = stored.document.map(Arc::new);
    Ok(rule)
}

pub(super) fn time(t: Duration) -> Value {
    format!("{}us", t.as_micros()).into()
}

/// The destination as it is kept, with its secrets.
pub(crate) fn destination_json(d: &Destination) -> Value {
    let order = match d.order {
        Order::Key => "key",
        Order::None => "none",
        Order::Strict => "strict",
    };
    let mut queue = json!({
        "bytes_max": d.queue.bytes_max,
        "on_full": d.queue.on_full.name(),
        "block_timeout": time(d.queue.block_timeout),
        "warn_at": d.queue.warn_at,
    });
    let mut retry = json!({
        "backoff_min": time(d.retry.backoff_min),
        "backoff_max": time(d.retry.backoff_max),
        "age_max": time(d.retry.age_max),
        "poison_attempts": d.retry.poison_attempts,
    });
    set(&mut queue, "events_max", d.queue.events_max.map(Value::from));
    set(&mut queue, "age_max", d.queue.age_max.map(time));
    set(&mut retry, "attempts_max", d.retry.attempts_max.map(Value::from));
    // What is as usual is left out, so that an earlier version can read it.
    let usual = RetryPolicy::default().retry_after_max;
    let longest = d.retry.retry_after_max;
    set(&mut retry, "retry_after_max", (longest != usual).then(|| time(longest)));
    let mut breaker = json!({
        "consecutive_failures": d.breaker.consecutive_failures,
        "open_min": time(d.breaker.open_min),
        "open_max": time(d.breaker.open_max),
    });
    let (own, usual) = (&d.breaker, BreakerPolicy::default());
    set(&mut breaker, "window", (own.window != usual.window).then(|| time(own.window)));
    set(&mut breaker, "calls_min", (own.calls_min != usual.calls_min).then(|| own.calls_min.into()));
    let percent = own.failed_percent;
    set(&mut breaker, "failed_percent", (percent != usual.failed_percent).then(|| percent.into()));
    set(&mut breaker, "successes", (own.successes != usual.successes).then(|| own.successes.into()));
    let mut rate = json!({});
    set(&mut rate, "events_per_second", d.rate.events_per_second.map(Value::from));
    set(&mut rate, "requests_per_second", d.rate.requests_per_second.map(Value::from));
    set(&mut rate, "bytes_per_second", d.rate.bytes_per_second.map(Value::from));
    set(&mut rate, "burst", Some(time(d.rate.burst)));
    let mut value = json!({
        "name": d.name,
        "profile": d.profile.name(),
        "concurrency": d.concurrency,
        "order": order,
        "batch": {
            "events_max": d.batch.events_max,
            "bytes_max": d.batch.bytes_max,
            "linger": time(d.batch.linger),
        },
        "retry": retry,
        "breaker": breaker,
        "queue": queue,
    });
    super::format::write(&d.format, &mut value);
    set(&mut value, "adaptive_concurrency", (!d.adaptive_concurrency).then_some(Value::Bool(false)));
    let disable = json!({"after": time(d.disable.after), "attempts_min": d.disable.attempts_min});
    set(&mut value, "disable", (d.disable != DisablePolicy::default()).then_some(disable));
    set(&mut value, "rate", (d.rate != RateLimits::default()).then_some(rate));
    set(&mut value, "dead_letter_to", d.dead_letter_to.clone().map(Value::from));
    match &d.kind {
        DestinationKind::Webhook(w) => {
            set(&mut value, "type", Some("webhook".into()));
            super::endpoints::write(w, &mut value);
            set(&mut value, "timeout", Some(time(w.timeout)));
            set(&mut value, "connect_timeout", Some(time(w.connect_timeout)));
            set(&mut value, "idle", Some(time(w.idle)));
            // A list, for their order counts.
            set(&mut value, "headers", Some(w.headers.iter().map(|(n, v)| json!([n, v])).collect()));
            set(&mut value, "auth", Some(auth::write(&w.auth)).filter(|_| !w.auth.is_empty()));
            set(&mut value, "compression", w.compression.as_ref().map(wire::write_compression));
            set(&mut value, "encryption", w.encryption.as_ref().map(wire::write_encryption));
            set(&mut value, "tls", super::tls::write(&w.tls));
            set(&mut value, "http2", w.http2.then_some(Value::Bool(true)));
            // What is as usual is left out, so that an earlier version can read it.
            let usual = PoolLimits::default();
            let pool = json!({
                "lifetime": time(w.pool.lifetime),
                "requests_max": w.pool.requests_max,
                "user_timeout": time(w.pool.user_timeout),
            });
            set(&mut value, "pool", (w.pool != usual).then_some(pool));
            set(&mut value, "trust", w.trust.map(|t| t.name().into()));
            let text = |list: &[IpNet]| list.iter().map(|net| net.to_string()).collect::<Vec<_>>();
            let lists = json!({"allow": text(&w.addresses.allow), "deny": text(&w.addresses.deny)});
            set(&mut value, "addresses", (w.addresses != AddressLists::default()).then_some(lists));
            let socket = w.unix_socket.as_ref().map(|path| path.to_string_lossy().into());
            set(&mut value, "unix_socket", socket);
            let success =
                (w.success != Success::default()).then(|| serde_json::to_value(&w.success).unwrap_or_default());
            set(&mut value, "success", success);
            set(&mut value, "partial", w.partial.as_ref().map(|p| serde_json::to_value(p).unwrap_or_default()));
            let proxy = match &w.proxy {
                ProxyChoice::Engine => None,
                ProxyChoice::Direct => Some(json!({"direct": true})),
                ProxyChoice::Through(proxy) => {
                    let mut way = json!({"url": proxy.url()});
                    if let Some((user, password)) = proxy.credentials() {
                        set(&mut way, "user", Some(user.into()));
                        set(&mut way, "password", Some(password.into()));
                    }
                    Some(way)
                }
            };
            set(&mut value, "proxy", proxy);
        }
        DestinationKind::Custom(c) => {
            set(&mut value, "type", Some("custom".into()));
            set(&mut value, "handler", Some(c.handler.clone().into()));
            set(&mut value, "timeout", Some(time(c.timeout)));
        }
    }
    value
}

fn set(object: &mut Value, key: &str, value: Option<Value>) {
    if let (Some(object), Some(value)) = (object.as_object_mut(), value) {
        object.insert(key.to_owned(), value);
    }
}

/// The destination that was kept so.
///
/// # Errors
/// [`crate::ErrorKind::InvalidConfig`] that names the destination.
pub(crate) fn destination_of_json(mut value: Value) -> Result<Destination> {
    // What the file has in another form, or what is not to be looked for now.
    let mut taken = |key: &str| value.as_object_mut().and_then(|o| o.remove(key));
    let (headers, auth, tls) = (taken("headers"), taken("auth"), taken("tls"));
    let header_templates = taken("header_templates");
    let (compression, encryption) = (taken("compression"), taken("encryption"));
    let text = toml::to_string(&json!({"destination": [value]})).map_err(|e| Error::invalid_config(e.to_string()))?;
    let mut d = load::destination_of_text(&text, Path::new(""))?;
    let label = d.label();
    let bad = |what: &str| Error::invalid_config(format!("{what} cannot be read")).at(label.clone());
    if let Some(list) = header_templates {
        d.format.header_templates = super::format::headers_of_json(&list).ok_or_else(|| bad("`header_templates`"))?;
    }
    let Some(w) = d.kind.webhook_mut() else { return Ok(d) };
    if let Some(headers) = headers {
        w.headers = serde_json::from_value(headers).map_err(|_| bad("`headers`"))?;
    }
    if let Some(auth) = auth {
        w.auth = auth::read(&auth, Path::new("")).map_err(|fault| fault.error.at(label.clone()))?;
    }
    if let Some(compression) = compression {
        let read = wire::read_compression(&compression).map_err(|fault| fault.error.at(label.clone()))?;
        w.compression = Some(read);
    }
    if let Some(encryption) = encryption {
        let read = wire::read_encryption(&encryption, Path::new("")).map_err(|fault| fault.error.at(label.clone()))?;
        w.encryption = Some(read);
    }
    if let Some(tls) = tls {
        w.tls = super::tls::of_json(tls).ok_or_else(|| bad("`tls`"))?;
    }
    Ok(d)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::{Auth, Bearer, Secret, StandardWebhooks};
    use crate::event::format::{Encoding, Escape, Template};
    use crate::event::profile::{Choice, Profile};
    use crate::filter::{Field, Test};
    use crate::net::address::Trust;
    use crate::net::proxy::Proxy;
    use crate::net::tls::{Pin, TlsVersion};
    use crate::rule::{
        Balance, BatchLimits, OnQueueFull, Partial, PartialBy, Verification, VerificationMethod, Webhook,
        WebhookEndpoint,
    };
    use crate::wire::{Aes128Gcm, Compression, CompressionAlgorithm, Encryption, Jwe, JweAlgorithm};

    #[test]
    fn a_rule_that_was_kept_is_the_same() {
        let types = EventTypes::with_custom(["acme:Scanned"]).unwrap();
        let mut rule = Rule::new("é \"r\"", ["s3:ObjectCreated:*", "acme:Scanned"], &types).unwrap();
        let again = |rule: &Rule| rule_of_json(rule_json(rule), &types).unwrap();
        assert_eq!(again(&rule), rule);
        rule.bucket = Some("photos".into());
        rule.filter = Filter::all([
            Filter::Is(Field::Key, Test::prefix("images/\u{1F389}")),
            Filter::any([Filter::Is(Field::Region, Test::equals("eu")), Filter::Is(Field::VersionId, Test::Absent)]),
        ]);
        rule.destinations = vec!["a".into(), "b".into()];
        (rule.priority, rule.repeat, rule.retain) = (Some(Priority::Low), true, true);
        assert_eq!(again(&rule), rule);
        #[cfg(feature = "cel")]
        for text in ["size(event.key) > 5", "event.key == 'é' || !(event.key + '\"' == event.bucket)"] {
            let evaluated = Rule { filter: Filter::parse_cel(text).unwrap(), ..rule.clone() };
            assert_eq!(again(&evaluated), evaluated);
        }
        // One that was made without names.
        rule.event_names.clear();
        assert_eq!(again(&rule).events, rule.events);
    }

    #[test]
    fn a_rule_that_cannot_be_read_is_named() {
        for (json, what) in [
            (json!({"id": "r", "events": ["s3:NoSuch"]}), "rule `r`"),
            (json!({"id": "r", "events": ["*"], "filter": {"nosuch": 1}}), "rule `r`"),
            (json!({"id": "r", "events": ["*"], "priority": "urgent"}), "`urgent`"),
            (json!({"id": "r", "events": ["*"], "more": 1}), "more"),
            (json!({"events": ["*"]}), "id"),
        ] {
            let e = rule_of_json(json, &EventTypes::default()).unwrap_err().to_string();
            assert!(e.contains(what), "{e}");
        }
    }

    #[test]
    fn a_destination_that_was_kept_is_the_same() {
        let mut w = Webhook::new("https://example.com/hook?x=1").unwrap();
        let plain = Destination::new("plain", DestinationKind::Webhook(w.clone()));
        assert_eq!(destination_of_json(destination_json(&plain)).unwrap(), plain);
        w.headers = vec![("X-Z".into(), "1".into()), ("Authorization".into(), "Bearer \"t\"".into())];
        (w.timeout, w.connect_timeout) = (Duration::from_millis(1500), Duration::from_micros(1001));
        w.idle = Duration::from_secs(9);
        w.tls.ca = vec!["/no/such/ca.pem".into()];
        w.headers[1].0 = "X-Y".into();
        w.auth = vec![
            Auth::StandardWebhooks(StandardWebhooks::new(vec![
                Secret::text("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").valid_until(9),
                Secret::env("NO_SUCH_VARIABLE").valid_from(8),
            ])),
            Auth::Bearer(Bearer::new(Secret::file("/no/such/file").with_id("k"))),
        ];
        let mut zstd = Compression::new(CompressionAlgorithm::Zstd);
        (zstd.level, zstd.bytes_min) = (9, 77);
        let mut sealed = Aes128Gcm::new(Secret::text("AAECAwQFBgcICQoLDA0ODw==").with_id("k1"));
        sealed.record_bytes = 100;
        (w.compression, w.encryption) = (Some(zstd), Some(Encryption::Aes128Gcm(sealed)));
        let full = Destination::new("x", DestinationKind::Webhook(w.clone()));
        assert_eq!(destination_of_json(destination_json(&full)).unwrap(), full);
        w.compression = Some(Compression::new(CompressionAlgorithm::Gzip));
        let secrets = vec![Secret::file("/no/such/key.pem"), Secret::env("NO_SUCH_VARIABLE").valid_until(7)];
        w.encryption = Some(Encryption::Jwe(Jwe::new(JweAlgorithm::EcdhEsA256Kw, secrets)));
        w.pool.lifetime = Duration::from_secs(77);
        w.pool.requests_max = 5;
        w.pool.user_timeout = Duration::from_millis(777);
        w.tls.ca.push("/no/such/second.pem".into());
        (w.tls.client_cert, w.tls.client_key) = (Some("/no/such/cert.pem".into()), Some("/no/such/key.pem".into()));
        w.tls.server_name = Some("inner.example".into());
        w.tls.pins = vec![Pin([7; 32]), Pin([8; 32])];
        w.tls.version_min = TlsVersion::V1_3;
        w.tls.expiry_warning = Duration::from_secs(9);
        w.http2 = true;
        w.trust = Some(Trust::Tenant);
        w.addresses.allow = vec!["10.0.0.0/8".parse().unwrap()];
        w.addresses.deny = vec!["2001:db8::/32".parse().unwrap(), "10.9.0.0/16".parse().unwrap()];
        w.unix_socket = Some("/run/x y.sock".into());
        w.success = serde_json::from_value(json!({
            "statuses": [200, "202-209"],
            "header": {"name": "X-Ok", "value": "yes"},
            "body": {"path": "/a", "equals": {"b": [1, "c", true, 0.5]}},
        }))
        .unwrap();
        w.partial = Some(Partial { failures: "/f".into(), id: Some("i".into()), by: PartialBy::Index });
        for proxy in [
            ProxyChoice::Direct,
            ProxyChoice::Through(Proxy::new("http://p.example:3128").unwrap()),
            ProxyChoice::Through(Proxy::new("http://[::1]").unwrap().with_credentials("u", "p\"ä").unwrap()),
        ] {
            w.proxy = proxy;
            let d = Destination::new("x", DestinationKind::Webhook(w.clone()));
            assert_eq!(destination_of_json(destination_json(&d)).unwrap(), d);
        }
        w.proxy = ProxyChoice::Direct;
        for method in VerificationMethod::ALL.map(|(method, _)| method) {
            let mut several = w.clone();
            several.unix_socket = None;
            several.verification = Some(Verification::new(method));
            let d = Destination::new("x", DestinationKind::Webhook(several));
            assert_eq!(destination_of_json(destination_json(&d)).unwrap(), d);
        }
        let mut far = WebhookEndpoint::new("https://b.example/y?z=1").unwrap();
        (far.weight, far.priority, far.region) = (7, 3, Some("eu \"1\"".into()));
        let near = WebhookEndpoint::new("https://a.example/").unwrap();
        for balance in Balance::ALL.map(|(balance, _)| Some(balance)).into_iter().chain([None]) {
            let mut several = Webhook::with_endpoints(vec![near.clone(), far.clone()]).unwrap();
            several.balance = balance;
            let mut asked = Verification::new(VerificationMethod::CloudEvents);
            (asked.origin, asked.rate) = (Some("me.example".into()), Some(60));
            several.verification = Some(asked.with_callback("https://me.example/v1/confirm?x=1").unwrap());
            let d = Destination::new("x", DestinationKind::Webhook(several));
            assert_eq!(destination_of_json(destination_json(&d)).unwrap(), d);
        }
        let mut d = Destination::new("full-1.x", DestinationKind::Webhook(w));
        d.profile = Profile::CloudEvents;
        d.format.encoding = Encoding::NdJson;
        (d.format.metadata, d.format.tags) = (Choice::only(["a", "b \"c\""]), Choice::None);
        d.format.record_bytes_max = 12_345;
        assert_eq!(destination_of_json(destination_json(&d)).unwrap(), d);
        d.format.encoding = Encoding::Json;
        let template = Template::new("<k>{{ event.key }}\n\"</k>", Escape::Xml).unwrap();
        d.format.template = Some(template.with_content_type("text/xml; charset=utf-8").unwrap());
        d.format.header_templates = vec![
            ("X-Z".into(), Template::new("{{ event.key }}", Escape::Header).unwrap()),
            ("X-A".into(), Template::new("a {{ event.bucket }}", Escape::Header).unwrap()),
        ];
        d.batch = BatchLimits { events_max: 7, bytes_max: 12_345, linger: Duration::from_micros(77) };
        (d.concurrency, d.order) = (9, Order::Strict);
        d.retry = RetryPolicy {
            backoff_min: Duration::from_millis(3),
            backoff_max: Duration::from_millis(33),
            age_max: Duration::from_secs(99),
            attempts_max: Some(5),
            poison_attempts: 2,
            retry_after_max: Duration::from_secs(7200),
        };
        d.breaker = BreakerPolicy {
            consecutive_failures: 8,
            window: Duration::from_secs(7),
            calls_min: 3,
            failed_percent: 75,
            successes: 2,
            open_min: Duration::from_millis(4),
            open_max: Duration::from_millis(44),
        };
        d.adaptive_concurrency = false;
        d.disable = DisablePolicy { after: Duration::from_secs(5), attempts_min: 3 };
        d.rate = RateLimits {
            events_per_second: Some(11),
            requests_per_second: Some(12),
            bytes_per_second: Some(1 << 40),
            burst: Duration::from_millis(1500),
        };
        d.dead_letter_to = Some("plain".into());
        d.queue.events_max = Some(1000);
        d.queue.bytes_max = 1 << 33;
        d.queue.age_max = Some(Duration::from_secs(66));
        d.queue.on_full = OnQueueFull::Block;
        d.queue.block_timeout = Duration::from_millis(6);
        d.queue.warn_at = 0.25;
        assert_eq!(destination_of_json(destination_json(&d)).unwrap(), d);
        assert!(destination_of_json(json!({"name": "x"})).is_err());
    }
}
