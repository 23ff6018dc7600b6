//! The configuration file as it is written: one struct per table, nothing checked but names and kinds of values.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::units::{Size, Time};
use crate::driver::Sockets;
use crate::error::Error;
use crate::filter::OwnStep;
use crate::net::address::Trust;
use crate::rule::{Text, suggest, unknown_name};

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    #[serde(default)]
    pub(super) engine: Engine,
    #[serde(default)]
    pub(super) destination: Vec<Spanned<DestinationTable>>,
    #[serde(default)]
    pub(super) filter: Vec<Spanned<toml::Table>>,
    #[serde(default)]
    pub(super) rule: Vec<Spanned<RuleTable>>,
    #[serde(default)]
    pub(super) notification: Vec<Spanned<NotificationTable>>,
    #[serde(default)]
    pub(super) arns: BTreeMap<Spanned<String>, Spanned<String>>,
    #[serde(default)]
    pub(super) source: Vec<Spanned<SourceTable>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Engine {
    pub(super) data_dir: Option<Spanned<String>>,
    pub(super) shards: Option<Spanned<u32>>,
    pub(super) ring_bytes: Option<Spanned<Size>>,
    pub(super) reserve_percent: Option<Spanned<u64>>,
    pub(super) idle: Option<super::Idle>,
    pub(super) pin_cpus: Option<bool>,
    pub(super) region: Option<Spanned<String>>,
    pub(super) operator_destination: Option<Spanned<String>>,
    pub(super) event_source: Option<Spanned<String>>,
    pub(super) event_bytes_max: Option<Spanned<Size>>,
    #[serde(default)]
    pub(super) event_types: Vec<Spanned<String>>,
    pub(super) close_timeout: Option<Spanned<Time>>,
    #[serde(default)]
    pub(super) log: Log,
    #[serde(default)]
    pub(super) delivery: Delivery,
    #[serde(default)]
    pub(super) dead_letters: DeadLetters,
    #[serde(default)]
    pub(super) queue: EngineQueue,
    #[serde(default)]
    pub(super) losses: Losses,
    #[serde(default)]
    pub(super) fairness: Fairness,
    #[serde(default)]
    pub(super) dedup: Dedup,
    #[serde(default)]
    pub(super) retention: Retention,
    pub(super) rules: Option<super::RulesKept>,
    #[serde(default)]
    pub(super) filter: FilterTable,
    #[serde(default)]
    pub(super) network: Network,
    pub(super) shared: Option<Spanned<Shared>>,
}

/// Where other processes get at the engine.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Shared {
    pub(super) socket: Spanned<String>,
    pub(super) mode: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) uids: Vec<u32>,
    pub(super) ring_bytes: Option<Spanned<Size>>,
    pub(super) clients_max: Option<Spanned<u64>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Network {
    pub(super) resolver: Option<Spanned<ResolverName>>,
    pub(super) dns_servers: Option<Spanned<Vec<Spanned<String>>>>,
    pub(super) trust: Option<Trust>,
    #[serde(default)]
    pub(super) addresses: Addresses,
    pub(super) tenant_https_only: Option<bool>,
    pub(super) tenant_ports: Option<Spanned<Vec<Spanned<String>>>>,
    pub(super) proxy: Option<Spanned<EngineProxy>>,
    pub(super) sockets: Option<Sockets>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum ResolverName {
    Dns,
    System,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Addresses {
    #[serde(default)]
    pub(super) allow: Vec<Spanned<String>>,
    #[serde(default)]
    pub(super) deny: Vec<Spanned<String>>,
}

/// The proxy of the engine, and who does without.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EngineProxy {
    pub(super) url: Spanned<String>,
    pub(super) user: Option<Spanned<String>>,
    pub(super) password: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) no_proxy: Vec<Spanned<String>>,
}

impl std::fmt::Debug for EngineProxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EngineProxy").field("no_proxy", &self.no_proxy).finish_non_exhaustive()
    }
}

/// The way to a destination.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ProxyTable {
    pub(super) direct: Option<Spanned<bool>>,
    pub(super) url: Option<Spanned<String>>,
    pub(super) user: Option<Spanned<String>>,
    pub(super) password: Option<Spanned<String>>,
}

impl std::fmt::Debug for ProxyTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProxyTable").finish_non_exhaustive()
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PoolTable {
    pub(super) lifetime: Option<Spanned<Time>>,
    pub(super) requests_max: Option<Spanned<u32>>,
    pub(super) user_timeout: Option<Spanned<Time>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FilterTable {
    pub(super) nodes_max: Option<Spanned<u64>>,
    pub(super) literal_bytes_max: Option<Spanned<Size>>,
    pub(super) wildcards_max: Option<Spanned<u64>>,
    pub(super) regex_bytes_max: Option<Spanned<Size>>,
    pub(super) rules_per_bucket_max: Option<Spanned<u64>>,
    pub(super) rules_of_every_bucket_max: Option<Spanned<u64>>,
    pub(super) unindexed_max: Option<Spanned<u64>>,
    pub(super) regexes_max: Option<Spanned<u64>>,
    pub(super) memory_bytes_max: Option<Spanned<Size>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Queue {
    pub(super) events_max: Option<Spanned<u64>>,
    pub(super) bytes_max: Option<Spanned<Size>>,
    pub(super) age_max: Option<Spanned<Time>>,
    pub(super) on_full: Option<Spanned<String>>,
    pub(super) block_timeout: Option<Spanned<Time>>,
    pub(super) warn_at: Option<Spanned<f64>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EngineQueue {
    pub(super) bytes_max: Option<Spanned<Size>>,
    pub(super) on_full: Option<Spanned<String>>,
    pub(super) block_timeout: Option<Spanned<Time>>,
    pub(super) warn_at: Option<Spanned<f64>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Losses {
    pub(super) bytes_max: Option<Spanned<Size>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Fairness {
    pub(super) bucket_ring_share: Option<Spanned<f64>>,
    pub(super) bucket_rate: Option<Spanned<u32>>,
    pub(super) bucket_burst: Option<Spanned<u32>>,
    pub(super) tenant_separator: Option<Spanned<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DeadLetters {
    pub(super) bytes_max: Option<Spanned<Size>>,
    pub(super) age_max: Option<Spanned<Time>>,
    pub(super) warn_at: Option<Spanned<f64>>,
    pub(super) hops_max: Option<Spanned<u8>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Retention {
    pub(super) keep: Option<Spanned<super::Keep>>,
    pub(super) age_max: Option<Spanned<Time>>,
    pub(super) bytes_max: Option<Spanned<Size>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Log {
    pub(super) segment_bytes: Option<Spanned<Size>>,
    pub(super) sync_interval: Option<Spanned<Time>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Delivery {
    pub(super) memory_bytes: Option<Spanned<Size>>,
    pub(super) lane_events_max: Option<Spanned<u64>>,
    pub(super) cursor_interval: Option<Spanned<Time>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Dedup {
    pub(super) window: Option<Spanned<Time>>,
    pub(super) entries_max: Option<Spanned<u64>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DestinationTable {
    pub(super) name: Spanned<String>,
    pub(super) r#type: Spanned<String>,
    pub(super) handler: Option<Spanned<String>>,
    pub(super) url: Option<Spanned<String>>,
    pub(super) endpoints: Option<Spanned<Vec<Spanned<EndpointTable>>>>,
    pub(super) balance: Option<Spanned<String>>,
    pub(super) verification: Option<Spanned<toml::Value>>,
    pub(super) profile: Option<Spanned<String>>,
    pub(super) encoding: Option<Spanned<String>>,
    pub(super) metadata: Option<Spanned<toml::Value>>,
    pub(super) tags: Option<Spanned<toml::Value>>,
    pub(super) record_bytes_max: Option<Spanned<Size>>,
    pub(super) template: Option<Spanned<TemplateTable>>,
    #[serde(default)]
    pub(super) header_templates: BTreeMap<Spanned<String>, Spanned<String>>,
    #[serde(default)]
    pub(super) headers: BTreeMap<Spanned<String>, Spanned<String>>,
    pub(super) auth: Option<Spanned<toml::Value>>,
    pub(super) compression: Option<Spanned<toml::Value>>,
    pub(super) encryption: Option<Spanned<toml::Value>>,
    pub(super) timeout: Option<Spanned<Time>>,
    pub(super) connect_timeout: Option<Spanned<Time>>,
    pub(super) idle: Option<Spanned<Time>>,
    #[serde(default)]
    pub(super) pool: PoolTable,
    pub(super) trust: Option<Trust>,
    #[serde(default)]
    pub(super) addresses: Addresses,
    pub(super) proxy: Option<Spanned<ProxyTable>>,
    pub(super) unix_socket: Option<Spanned<String>>,
    pub(super) success: Option<Spanned<crate::rule::Success>>,
    pub(super) partial: Option<Spanned<crate::rule::Partial>>,
    pub(super) concurrency: Option<Spanned<u64>>,
    pub(super) adaptive_concurrency: Option<Spanned<bool>>,
    #[serde(default)]
    pub(super) rate: Rate,
    #[serde(default)]
    pub(super) disable: Disable,
    pub(super) order: Option<crate::rule::Order>,
    #[serde(default)]
    pub(super) batch: Batch,
    #[serde(default)]
    pub(super) retry: Retry,
    #[serde(default)]
    pub(super) breaker: Breaker,
    pub(super) dead_letter_to: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) queue: Queue,
    #[serde(default)]
    pub(super) tls: super::tls::TlsTable,
    pub(super) http2: Option<Spanned<bool>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EndpointTable {
    pub(super) url: Spanned<String>,
    pub(super) weight: Option<u32>,
    pub(super) priority: Option<u32>,
    pub(super) region: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TemplateTable {
    pub(super) text: Option<Spanned<String>>,
    pub(super) file: Option<Spanned<String>>,
    pub(super) escape: Option<Spanned<String>>,
    pub(super) content_type: Option<Spanned<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Batch {
    pub(super) events_max: Option<Spanned<u64>>,
    pub(super) bytes_max: Option<Spanned<Size>>,
    pub(super) linger: Option<Spanned<Time>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Retry {
    pub(super) backoff_min: Option<Spanned<Time>>,
    pub(super) backoff_max: Option<Spanned<Time>>,
    pub(super) age_max: Option<Spanned<Time>>,
    pub(super) attempts_max: Option<Spanned<u32>>,
    pub(super) poison_attempts: Option<Spanned<u32>>,
    pub(super) retry_after_max: Option<Spanned<Time>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Disable {
    pub(super) after: Option<Spanned<Time>>,
    pub(super) attempts_min: Option<Spanned<u32>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rate {
    pub(super) events_per_second: Option<Spanned<u32>>,
    pub(super) requests_per_second: Option<Spanned<u32>>,
    pub(super) bytes_per_second: Option<Spanned<Size>>,
    pub(super) burst: Option<Spanned<Time>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Breaker {
    pub(super) consecutive_failures: Option<Spanned<u32>>,
    pub(super) window: Option<Spanned<Time>>,
    pub(super) calls_min: Option<Spanned<u32>>,
    pub(super) failed_percent: Option<Spanned<u8>>,
    pub(super) successes: Option<Spanned<u32>>,
    pub(super) open_min: Option<Spanned<Time>>,
    pub(super) open_max: Option<Spanned<Time>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RuleTable {
    pub(super) id: Spanned<String>,
    pub(super) bucket: Option<Spanned<String>>,
    pub(super) events: Vec<Spanned<String>>,
    pub(super) prefix: Option<Spanned<toml::Value>>,
    pub(super) suffix: Option<Spanned<toml::Value>>,
    pub(super) exact: Option<Spanned<toml::Value>>,
    pub(super) wildcard: Option<Spanned<toml::Value>>,
    pub(super) contains: Option<Spanned<toml::Value>>,
    pub(super) regex: Option<Spanned<toml::Value>>,
    pub(super) filter: Option<Spanned<toml::Value>>,
    pub(super) pattern: Option<Spanned<String>>,
    pub(super) pattern_of: Option<Spanned<PatternOfName>>,
    pub(super) cloudevents: Option<Spanned<toml::Value>>,
    pub(super) cel: Option<Spanned<String>>,
    pub(super) destinations: Option<Vec<Spanned<String>>>,
    pub(super) retain: Option<Spanned<bool>>,
    pub(super) priority: Option<PriorityName>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum PatternOfName {
    S3,
    Data,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum PriorityName {
    High,
    Normal,
    Low,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NotificationTable {
    pub(super) bucket: Spanned<String>,
    pub(super) file: Spanned<String>,
    pub(super) overlap: Option<OverlapName>,
    pub(super) filter_values: Option<FilterValuesName>,
    pub(super) extensions: Option<ExtensionsName>,
    pub(super) event_bridge: Option<Spanned<String>>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum OverlapName {
    AllowDedupe,
    StrictAws,
    AllowAll,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum ExtensionsName {
    None,
    Ceph,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum FilterValuesName {
    Raw,
    Encoded,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SourceTable {
    pub(super) r#type: Spanned<String>,
    pub(super) listen: Option<Spanned<String>>,
    pub(super) max_body: Option<Spanned<Size>>,
    pub(super) path: Option<Spanned<String>>,
    pub(super) bucket: Option<Spanned<String>>,
    pub(super) on_start: Option<Spanned<super::OnStart>>,
}

/// Reads the file's tables.
pub(super) fn read(text: &str, place: &Text) -> Result<File, Error> {
    toml::from_str(text).map_err(|e| explain(text, place, &e))
}

/// An error of the TOML reader in our words. Its message may hold values of the file, which may be secrets.
#[cold]
fn explain(text: &str, place: &Text, e: &toml::de::Error) -> Error {
    let message = e.message();
    let error = if let Some((name, known)) = unknown_name(message) {
        let (what, of) = if message.starts_with("unknown field") { ("key", "key") } else { ("value", "value") };
        Error::invalid_config(format!("unknown {what} `{name}`")).remedy(suggest(of, name, known))
    } else if let Some(name) = message.strip_prefix("missing field ") {
        Error::invalid_config(format!("{name} is missing")).remedy("add it")
    } else if let Some((got, expected)) =
        message.strip_prefix("invalid type: ").and_then(|m| m.rsplit_once(", expected "))
    {
        let got = if got.starts_with("string ") { "a string" } else { got };
        Error::invalid_config(format!("this is {got}")).remedy(format!("write {expected}"))
    } else if let Some((what, remedy)) = message.split_once("; ") {
        Error::invalid_config(what).remedy(remedy)
    } else {
        Error::invalid_config(message).remedy("correct the line; the file is TOML")
    };
    let Some(span) = e.span() else { return error.at(place.place(0)) };
    let error = match enclosing(text, span.start) {
        Some(label) => error.at(label),
        None => error,
    };
    error.at(place.place(span.start))
}

/// The rule, destination or the like that an offset lies in, by name.
fn enclosing(text: &str, offset: usize) -> Option<String> {
    let root = DeTable::parse(text).ok()?.into_inner();
    // Where each element begins; the last one to begin at or before the offset has it.
    let mut starts: Vec<(usize, Option<String>)> = Vec::new();
    for (key, value) in &root {
        let DeValue::Array(list) = value.get_ref() else {
            outside(key, value, &mut starts);
            continue;
        };
        let name_key = match &**key.get_ref() {
            "rule" => "id",
            "filter" => "name",
            "destination" => "name",
            "notification" => "bucket",
            "source" => "type",
            _ => continue,
        };
        for (i, element) in list.iter().enumerate() {
            let name = element.get_ref().get(name_key).and_then(|v| v.get_ref().as_str());
            let label = match name {
                Some(name) => format!("{} `{name}`", key.get_ref()),
                None => format!("{} number {}", key.get_ref(), i + 1),
            };
            starts.push((element.span().start, Some(label)));
        }
    }
    starts.into_iter().filter(|(start, _)| *start <= offset).max_by_key(|(start, _)| *start)?.1
}

/// Where the steps lead to from the table of the list that an offset lies in; as far as they lead.
pub(super) fn locate(text: &str, list: &str, offset: usize, steps: &[OwnStep]) -> Option<usize> {
    let root = DeTable::parse(text).ok()?.into_inner();
    let DeValue::Array(tables) = root.iter().find(|(name, _)| &**name.get_ref() == list)?.1.get_ref() else {
        return None;
    };
    let mut at = tables.iter().rfind(|t| t.span().start <= offset)?;
    let mut found = None;
    for step in steps {
        let next = match (step, at.get_ref()) {
            (OwnStep::Name(name), DeValue::Table(table)) => {
                table.iter().find(|(n, _)| n.get_ref() == name).map(|(_, v)| v)
            }
            (OwnStep::Index(i), DeValue::Array(list)) => list.get(*i),
            _ => None,
        };
        let Some(next) = next else { break };
        found = Some(next.span().start);
        at = next;
    }
    found
}

/// Where a table that is no rule, and everything in it, begins; `[engine.log]` may follow after a rule.
fn outside(
    key: &Spanned<toml::de::DeString<'_>>,
    value: &Spanned<DeValue<'_>>,
    starts: &mut Vec<(usize, Option<String>)>,
) {
    starts.push((key.span().start, None));
    if let DeValue::Table(table) = value.get_ref() {
        for (key, value) in table {
            outside(key, value, starts);
        }
    }
}
