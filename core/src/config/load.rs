//! From the tables of a file to a [`Config`].

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use toml::Spanned;

use super::network::{parse_ports, parse_server};
use super::text::{
    self, Addresses, DestinationTable, ExtensionsName, FilterValuesName, NotificationTable, OverlapName, PatternOfName,
    PoolTable, PriorityName, ResolverName, RuleTable, SourceTable,
};
use super::units::{Size, Time};
use super::{Config, DirectorySource, EngineConfig, HttpSource, Keep, NetworkConfig, Source, clamp};
use crate::auth;
use crate::error::{Error, Result};
use crate::event::{EventTypes, Priority};
use crate::filter::{Fault, Filter, NamedFilters, OwnStep, PatternOf, SourceOf, parse_json, toml_to_json};
use crate::log::recovery::check_path;
use crate::net::address::{AddressLists, parse_net};
use crate::net::proxy::{NoProxy, Proxy};
use crate::net::resolve::Source as Resolution;
use crate::net::tls::Tls;
use crate::rule::{
    Arns, Custom, Destination, DestinationKind, Extensions, FilterValues, Format, Notification, NotificationOptions,
    OnQueueFull, Overlap, ProxyChoice, Rule, RuleSet, Subject, Text, Webhook, check_bucket, suggest, within,
};
use crate::shared::SharedConfig;
use crate::wire;

/// The largest file that is read, in bytes.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// Where the parts of a rule stand.
struct RulePlaces {
    text: Text,
    whole: usize,
    events: Vec<usize>,
    filter: usize,
    retain: Option<usize>,
    destinations: Vec<usize>,
}

/// Errors in these are shown where the table begins.
const SUCCESS_KEYS: [&str; 3] = ["success.statuses", "success.header", "success.body"];
const PARTIAL_KEYS: [&str; 3] = ["partial.failures", "partial.id", "partial"];

/// Where the keys of a table stand, by the names that errors use.
pub(super) type Places = Vec<(&'static str, usize)>;

struct Loader<'a> {
    text: Text,
    base_dir: &'a Path,
    /// The settings whose files were read last and are as they should be.
    tls_checked: RefCell<Option<Tls>>,
}

pub(super) fn from_file(path: &Path, data_dir: Option<&Path>) -> Result<Config> {
    let text = read_file(path)?;
    let base_dir = path.parent().unwrap_or(Path::new(""));
    let mut config = from_toml(&text, &path.display().to_string(), base_dir, data_dir)?;
    config.files.insert(0, path.to_owned());
    Ok(config)
}

pub(super) fn from_toml(text: &str, file_name: &str, base_dir: &Path, data_dir: Option<&Path>) -> Result<Config> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let loader = Loader { text: Text::new(file_name, text), base_dir, tls_checked: RefCell::default() };
    let file = text::read(text, &loader.text)?;

    let operator_at = file.engine.operator_destination.as_ref().map_or(0, |name| name.span().start);
    let mut engine = loader.engine(file.engine, data_dir)?;
    let types = &engine.event_types;
    let mut destinations = Vec::new();
    let mut destination_places = Vec::new();
    for table in file.destination {
        let (destination, places) = loader.destination(table)?;
        destinations.push(destination);
        destination_places.push(places);
    }
    let names: Vec<&str> = destinations.iter().map(|d| d.name.as_str()).collect();
    let known = Arns::new(names.iter().copied(), HashMap::new())?;
    for (arn, name) in &file.arns {
        known.check_alias(arn.get_ref(), name.get_ref()).map_err(|e| loader.at(name.span().start, e))?;
        engine.arns.insert(arn.get_ref().clone(), name.get_ref().clone());
    }
    let arns = Arns::new(names.iter().copied(), engine.arns.clone().into_iter().collect())?;

    let named = loader.named_filters(file.filter)?;
    let files = file.notification.iter().map(|n| loader.path(n.get_ref().file.get_ref())).collect();
    let (rules, places) = loader.rules(file.rule, file.notification, &engine, &named, &arns)?;
    let sources = loader.sources(file.source)?;

    let rules = RuleSet::build_located(rules, destinations, types.clone())
        .map_err(|(subject, e)| place(&loader, subject, e, &places, &destination_places))?;
    check_limits(&engine, &rules.rules, &places)?;
    for (i, d) in rules.destinations.iter().enumerate() {
        engine
            .network
            .check(d)
            .map_err(|e| place(&loader, Subject::Destination(i), e, &places, &destination_places))?;
    }
    engine.check_operator_destination(&rules).map_err(|e| loader.at(operator_at, e))?;
    engine.check_retention(&rules).map_err(|e| {
        let at = places.iter().find_map(|p| p.retain.map(|offset| p.text.place(offset)));
        e.at(at.unwrap_or_else(|| loader.text.place(0)))
    })?;
    Ok(Config { engine, rules, sources, files })
}

/// The table of a text that has only one: TOML as a configuration file has it, or the table alone as a JSON object.
fn only_table<'a>(text: &'a str, list: &str) -> Result<Cow<'a, str>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if !text.trim_start().starts_with('{') {
        return Ok(text.into());
    }
    let value: serde_json::Value = serde_json::from_str(text)
        .map_err(|e| Error::invalid_config(format!("the JSON cannot be read: {e}")).at(list))?;
    let table = serde_json::json!({ list: [value] });
    let toml = toml::to_string(&table).map_err(|e| {
        Error::invalid_config(format!("the JSON has what a configuration cannot have: {e}"))
            .at(list)
            .remedy("leave out what is null")
    })?;
    Ok(toml.into())
}

#[cold]
fn not_one(list: &str) -> Error {
    Error::invalid_config(format!("the text has not one {list} and nothing else"))
        .at(list)
        .remedy(format!("write one [[{list}]], or its table as a JSON object"))
}

/// See [`super::Config::rule_of_text`].
pub(super) fn rule_of(text: &str, engine: &EngineConfig) -> Result<Rule> {
    let text = only_table(text, "rule")?;
    let loader = Loader { text: Text::new("rule", &text), base_dir: Path::new(""), tls_checked: RefCell::default() };
    let file = text::read(&text, &loader.text)?;
    let alone = file.destination.is_empty() && file.notification.is_empty() && file.source.is_empty();
    let named = loader.named_filters(file.filter)?;
    let mut tables = file.rule;
    match (tables.pop(), tables.is_empty() && alone) {
        (Some(table), true) => Ok(loader.rule(table, engine, &named)?.0),
        _ => Err(not_one("rule")),
    }
}

/// See [`super::Config::destination_of_text`].
pub(super) fn destination_of_text(text: &str, base_dir: &Path) -> Result<Destination> {
    let text = only_table(text, "destination")?;
    let loader = Loader { text: Text::new("destination", &text), base_dir, tls_checked: RefCell::default() };
    let file = text::read(&text, &loader.text)?;
    let alone = file.rule.is_empty() && file.notification.is_empty() && file.source.is_empty();
    let mut tables = file.destination;
    match (tables.pop(), tables.is_empty() && alone) {
        (Some(table), true) => Ok(loader.destination(table)?.0),
        _ => Err(not_one("destination")),
    }
}

/// The rules of a file by themselves: whether their destinations are there is not asked.
pub(super) fn rules_from_file(path: &Path) -> Result<Vec<Rule>> {
    let text = read_file(path)?;
    let base_dir = path.parent().unwrap_or(Path::new(""));
    rules_from_toml(&text, &path.display().to_string(), base_dir)
}

/// As [`rules_from_file`], of text.
pub(super) fn rules_from_toml(text: &str, file_name: &str, base_dir: &Path) -> Result<Vec<Rule>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let loader = Loader { text: Text::new(file_name, text), base_dir, tls_checked: RefCell::default() };
    let file = text::read(text, &loader.text)?;
    let engine = loader.engine(file.engine, Some(Path::new(".")))?;
    let named = loader.named_filters(file.filter)?;
    let names: Vec<&str> = file.destination.iter().map(|d| d.get_ref().name.get_ref().as_str()).collect();
    let aliases = file.arns.iter().map(|(arn, name)| (arn.get_ref().clone(), name.get_ref().clone()));
    let arns = Arns::new(names.iter().copied(), aliases.collect())?;
    let (rules, places) = loader.rules(file.rule, file.notification, &engine, &named, &arns)?;
    for (rule, p) in rules.iter().zip(&places) {
        rule.filter.validate().map_err(|e| e.at(rule.label()).at(p.text.place(p.filter)))?;
    }
    check_limits(&engine, &rules, &places)?;
    Ok(rules)
}

/// Checks that the rules are within the limits of the engine's filters.
fn check_limits(engine: &EngineConfig, rules: &[Rule], places: &[RulePlaces]) -> Result<()> {
    engine.filter.check_located(rules).map_err(|(i, e)| match places.get(i) {
        Some(p) => e.at(p.text.place(p.filter)),
        None => e,
    })
}

/// Adds the line that an error of the whole set is about.
fn place(loader: &Loader<'_>, subject: Subject, e: Error, rules: &[RulePlaces], destinations: &[Places]) -> Error {
    let in_rule = |i: usize, part: &dyn Fn(&RulePlaces) -> Option<usize>| {
        rules.get(i).map(|p| p.text.place(part(p).unwrap_or(p.whole)))
    };
    let place = match subject {
        Subject::Set => None,
        Subject::Destination(i) => destinations.get(i).map(|places| {
            // The innermost part of the error's place is the key, as in "destination `x`: batch.linger".
            let key = e.place().and_then(|p| p.rsplit(": ").next()).unwrap_or_default();
            loader.text.place(key_offset(places, key))
        }),
        Subject::Rule(i) => in_rule(i, &|_| None),
        Subject::RuleEvent(i, j) => in_rule(i, &|p| p.events.get(j).copied()),
        Subject::RuleFilter(i) => in_rule(i, &|p| Some(p.filter)),
        Subject::RuleDestination(i, j) => in_rule(i, &|p| p.destinations.get(j).copied()),
    };
    e.at(place.unwrap_or_else(|| loader.text.place(0)))
}

/// What is the own of a destination that the host serves, and where something stands that is not for it.
fn custom(
    table: &mut DestinationTable,
    start: usize,
    places: &mut Places,
) -> std::result::Result<Custom, (usize, Error)> {
    let at = |span: Option<std::ops::Range<usize>>| span.map(|span| span.start);
    // All of them are named, so that one that is added is not passed over.
    let PoolTable { lifetime, requests_max, user_timeout } = &table.pool;
    let pool = [
        at(lifetime.as_ref().map(Spanned::span)),
        at(requests_max.as_ref().map(Spanned::span)),
        at(user_timeout.as_ref().map(Spanned::span)),
    ];
    let first =
        |map: &BTreeMap<Spanned<String>, Spanned<String>>| map.first_key_value().map(|(name, _)| name.span().start);
    for (key, found) in [
        ("url", at(table.url.as_ref().map(Spanned::span))),
        ("endpoints", at(table.endpoints.as_ref().map(Spanned::span))),
        ("balance", at(table.balance.as_ref().map(Spanned::span))),
        ("verification", at(table.verification.as_ref().map(Spanned::span))),
        ("header_templates", first(&table.header_templates)),
        ("headers", first(&table.headers)),
        ("auth", at(table.auth.as_ref().map(Spanned::span))),
        ("compression", at(table.compression.as_ref().map(Spanned::span))),
        ("encryption", at(table.encryption.as_ref().map(Spanned::span))),
        ("connect_timeout", at(table.connect_timeout.as_ref().map(Spanned::span))),
        ("idle", at(table.idle.as_ref().map(Spanned::span))),
        ("pool", pool.into_iter().flatten().next()),
        // It has no place of its own.
        ("trust", table.trust.map(|_| start)),
        ("addresses", table.addresses.allow.iter().chain(&table.addresses.deny).map(|text| text.span().start).min()),
        ("tls", table.tls.begins()),
        ("proxy", at(table.proxy.as_ref().map(Spanned::span))),
        ("unix_socket", at(table.unix_socket.as_ref().map(Spanned::span))),
        ("success", at(table.success.as_ref().map(Spanned::span))),
        ("partial", at(table.partial.as_ref().map(Spanned::span))),
        ("http2", at(table.http2.as_ref().map(Spanned::span))),
    ] {
        if let Some(offset) = found {
            let error = Error::invalid_config(format!("`{key}` is not for a destination that the host serves")).at(key);
            return Err((offset, error.remedy("leave it out, or write `type = \"webhook\"`")));
        }
    }
    let mut custom = Custom::new(table.name.get_ref().as_str());
    set(&mut custom.handler, places, "handler", table.handler.take(), |name| name);
    set(&mut custom.timeout, places, "timeout", table.timeout.take(), time);
    Ok(custom)
}

/// Where a key stands; where its table begins if it is not written.
fn key_offset(places: &Places, key: &str) -> usize {
    let find = |key: &str| places.iter().find(|(k, _)| *k == key).map(|(_, offset)| *offset);
    find(key).or_else(|| find("")).unwrap_or(0)
}

pub(super) fn read_file(path: &Path) -> Result<String> {
    let doing = || format!("reading {}", path.display());
    let file = File::open(path).map_err(|e| Error::io(doing(), &e).remedy("check the path and its permissions"))?;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|e| Error::io(doing(), &e))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        let error = Error::invalid_config(format!("the file has more than {FILE_BYTES_MAX} bytes"));
        return Err(error.at(path.display().to_string()).remedy("is it the right file?"));
    }
    String::from_utf8(bytes).map_err(|e| {
        let error = Error::invalid_config(format!("byte {} is not UTF-8", e.utf8_error().valid_up_to()));
        error.at(path.display().to_string()).remedy("save the file as UTF-8")
    })
}

/// Puts a value of the file in the place of a default, and remembers where it stands.
fn set<T, U>(slot: &mut U, places: &mut Places, key: &'static str, value: Option<Spanned<T>>, f: impl Fn(T) -> U) {
    if let Some(value) = value {
        places.push((key, value.span().start));
        *slot = f(value.into_inner());
    }
}

fn bytes(Size(n): Size) -> usize {
    clamp(n)
}

fn time(Time(t): Time) -> std::time::Duration {
    t
}

impl Loader<'_> {
    fn at(&self, offset: usize, e: Error) -> Error {
        e.at(self.text.place(offset))
    }

    /// The rules of `[[rule]]`, and those of the documents of `[[notification]]`.
    fn rules(
        &self,
        tables: Vec<Spanned<RuleTable>>,
        notifications: Vec<Spanned<NotificationTable>>,
        engine: &EngineConfig,
        named: &NamedFilters,
        arns: &Arns,
    ) -> Result<(Vec<Rule>, Vec<RulePlaces>)> {
        let (mut rules, mut places) = (Vec::new(), Vec::new());
        for table in tables {
            let (rule, place) = self.rule(table, engine, named)?;
            rules.push(rule);
            places.push(place);
        }
        let mut buckets = HashSet::new();
        for table in notifications {
            let bucket = table.get_ref().bucket.clone();
            if !buckets.insert(bucket.get_ref().clone()) {
                let error = Error::invalid_config(format!("bucket `{}` has another notification", bucket.get_ref()));
                let error = error.remedy("keep one; a document is the whole configuration of its bucket");
                return Err(self.at(bucket.span().start, error));
            }
            self.notification(table, arns, &engine.event_types, &mut rules, &mut places)?;
        }
        Ok((rules, places))
    }

    fn path(&self, text: &str) -> PathBuf {
        self.base_dir.join(text)
    }

    /// Reads the files, once where destinations that follow each other have the same.
    fn check_tls_files(&self, tls: &Tls) -> Result<()> {
        let mut checked = self.tls_checked.borrow_mut();
        if *tls != Tls::default() && checked.as_ref() != Some(tls) {
            tls.check_files()?;
            *checked = Some(tls.clone());
        }
        Ok(())
    }

    fn engine(&self, table: text::Engine, data_dir: Option<&Path>) -> Result<EngineConfig> {
        let mut places = Vec::new();
        let mut engine = EngineConfig::new("");
        match (data_dir, table.data_dir) {
            (Some(given), _) => {
                check_path(given).map_err(|e| e.at("data_dir"))?;
                engine.data_dir = given.to_owned();
            }
            (None, Some(written)) => {
                places.push(("engine.data_dir", written.span().start));
                // As it is written; below the directory of the file it could not be told any more.
                check_path(Path::new(written.get_ref()))
                    .map_err(|e| self.at(written.span().start, e.at("engine.data_dir")))?;
                if !written.get_ref().is_empty() {
                    engine.data_dir = self.path(written.get_ref());
                }
            }
            (None, None) => {
                let error = Error::invalid_config("data_dir is missing").at("engine");
                return Err(self.at(0, error.remedy("add `data_dir = \"/var/lib/tidewire\"` to [engine]")));
            }
        }
        set(&mut engine.shards, &mut places, "engine.shards", table.shards, |n| Some(n as usize));
        set(&mut engine.ring_bytes, &mut places, "engine.ring_bytes", table.ring_bytes, bytes);
        set(&mut engine.reserve_percent, &mut places, "engine.reserve_percent", table.reserve_percent, clamp);
        engine.idle = table.idle.unwrap_or_default();
        engine.pin_cpus = table.pin_cpus.unwrap_or_default();
        engine.rules = table.rules.unwrap_or_default();
        set(&mut engine.region, &mut places, "engine.region", table.region, |s| s);
        let key = "engine.operator_destination";
        set(&mut engine.operator_destination, &mut places, key, table.operator_destination, Some);
        set(&mut engine.event_source, &mut places, "engine.event_source", table.event_source, |s| s);
        set(&mut engine.event_bytes_max, &mut places, "engine.event_bytes_max", table.event_bytes_max, bytes);
        set(&mut engine.close_timeout, &mut places, "engine.close_timeout", table.close_timeout, time);
        let log = table.log;
        set(&mut engine.log.segment_bytes, &mut places, "engine.log.segment_bytes", log.segment_bytes, |Size(n)| n);
        set(&mut engine.log.sync_interval, &mut places, "engine.log.sync_interval", log.sync_interval, time);
        let (own, delivery) = (&mut engine.delivery, table.delivery);
        let key = "engine.delivery.memory_bytes";
        set(&mut own.memory_bytes, &mut places, key, delivery.memory_bytes, |Size(n)| n);
        let key = "engine.delivery.lane_events_max";
        set(&mut own.lane_events_max, &mut places, key, delivery.lane_events_max, clamp);
        let key = "engine.delivery.cursor_interval";
        set(&mut own.cursor_interval, &mut places, key, delivery.cursor_interval, time);
        let (own, dead) = (&mut engine.dead_letters, table.dead_letters);
        set(&mut own.bytes_max, &mut places, "engine.dead_letters.bytes_max", dead.bytes_max, |Size(n)| n);
        set(&mut own.age_max, &mut places, "engine.dead_letters.age_max", dead.age_max, time);
        set(&mut own.warn_at, &mut places, "engine.dead_letters.warn_at", dead.warn_at, |n| n);
        set(&mut own.hops_max, &mut places, "engine.dead_letters.hops_max", dead.hops_max, |n| n);
        let (own, queue) = (&mut engine.queue, table.queue);
        set(&mut own.bytes_max, &mut places, "engine.queue.bytes_max", queue.bytes_max, |Size(n)| Some(n));
        set(&mut own.block_timeout, &mut places, "engine.queue.block_timeout", queue.block_timeout, time);
        set(&mut own.warn_at, &mut places, "engine.queue.warn_at", queue.warn_at, |n| n);
        if let Some(name) = queue.on_full {
            own.on_full = OnQueueFull::parse(name.get_ref())
                .map_err(|e| self.at(name.span().start, e.at("queue").at("engine")))?;
        }
        let key = "engine.losses.bytes_max";
        set(&mut engine.losses.bytes_max, &mut places, key, table.losses.bytes_max, |Size(n)| n);
        let (own, fair) = (&mut engine.fairness, table.fairness);
        let key = "engine.fairness.bucket_ring_share";
        set(&mut own.bucket_ring_share, &mut places, key, fair.bucket_ring_share, Some);
        set(&mut own.bucket_rate, &mut places, "engine.fairness.bucket_rate", fair.bucket_rate, Some);
        set(&mut own.bucket_burst, &mut places, "engine.fairness.bucket_burst", fair.bucket_burst, |n| n);
        let key = "engine.fairness.tenant_separator";
        set(&mut own.tenant_separator, &mut places, key, fair.tenant_separator, Some);
        let dedup = table.dedup;
        set(&mut engine.dedup.window, &mut places, "engine.dedup.window", dedup.window, time);
        set(&mut engine.dedup.entries_max, &mut places, "engine.dedup.entries_max", dedup.entries_max, clamp);
        let (own, retention) = (&mut engine.retention, table.retention);
        if retention.age_max.is_some() || retention.bytes_max.is_some() {
            own.keep = Keep::Rules;
        }
        set(&mut own.keep, &mut places, "engine.retention.keep", retention.keep, |k| k);
        set(&mut own.age_max, &mut places, "engine.retention.age_max", retention.age_max, |t| Some(time(t)));
        let key = "engine.retention.bytes_max";
        set(&mut own.bytes_max, &mut places, key, retention.bytes_max, |Size(n)| Some(n));
        let (own, filter) = (&mut engine.filter, table.filter);
        let key = "engine.filter.nodes_max";
        set(&mut own.nodes_max, &mut places, key, filter.nodes_max, clamp);
        let key = "engine.filter.literal_bytes_max";
        set(&mut own.literal_bytes_max, &mut places, key, filter.literal_bytes_max, bytes);
        let key = "engine.filter.wildcards_max";
        set(&mut own.wildcards_max, &mut places, key, filter.wildcards_max, clamp);
        let key = "engine.filter.regex_bytes_max";
        set(&mut own.regex_bytes_max, &mut places, key, filter.regex_bytes_max, bytes);
        let key = "engine.filter.rules_per_bucket_max";
        set(&mut own.rules_per_bucket_max, &mut places, key, filter.rules_per_bucket_max, clamp);
        let key = "engine.filter.rules_of_every_bucket_max";
        set(&mut own.rules_of_every_bucket_max, &mut places, key, filter.rules_of_every_bucket_max, clamp);
        let key = "engine.filter.unindexed_max";
        set(&mut own.unindexed_max, &mut places, key, filter.unindexed_max, clamp);
        let key = "engine.filter.regexes_max";
        set(&mut own.regexes_max, &mut places, key, filter.regexes_max, clamp);
        let key = "engine.filter.memory_bytes_max";
        set(&mut own.memory_bytes_max, &mut places, key, filter.memory_bytes_max, bytes);
        engine.network = self.network(table.network, &mut places)?;
        engine.shared = table.shared.map(|t| self.shared(t.into_inner(), &mut places)).transpose()?;
        for name in &table.event_types {
            EventTypes::with_custom([name.get_ref()]).map_err(|e| {
                let error = Error::invalid_config(e.message()).at("engine.event_types");
                let remedy = "name your own types as `family:Name`; the families of the registry are not free";
                self.at(name.span().start, error.remedy(remedy))
            })?;
        }
        engine.event_types = EventTypes::with_custom(table.event_types.iter().map(|n| n.get_ref()))?;
        engine.validate().map_err(|e| self.at(key_offset(&places, e.place().unwrap_or_default()), e))?;
        Ok(engine)
    }

    fn shared(&self, table: text::Shared, places: &mut Places) -> Result<SharedConfig> {
        places.push(("engine.shared.socket", table.socket.span().start));
        let socket = table.socket.get_ref();
        // Empty, it would be the directory of the file.
        let mut shared = SharedConfig::new(if socket.is_empty() { PathBuf::new() } else { self.path(socket) });
        if let Some(mode) = table.mode {
            let at = |e: Error| self.at(mode.span().start, e.at("mode").at("engine.shared"));
            shared.mode = u32::from_str_radix(mode.get_ref(), 8).map_err(|_| {
                let what = format!("`{}` is no mode of a file", mode.get_ref().escape_debug());
                at(Error::invalid_config(what).remedy("give its rights in octal, such as \"0660\""))
            })?;
            places.push(("engine.shared.mode", mode.span().start));
        }
        shared.uids = table.uids;
        set(&mut shared.ring_bytes, places, "engine.shared.ring_bytes", table.ring_bytes, bytes);
        set(&mut shared.clients_max, places, "engine.shared.clients_max", table.clients_max, clamp);
        Ok(shared)
    }

    fn network(&self, table: text::Network, places: &mut Places) -> Result<NetworkConfig> {
        let at = |offset: usize, key: &str, e: Error| self.at(offset, e.at(key).at("engine.network"));
        let mut network = NetworkConfig::default();
        let mut servers = Vec::new();
        if let Some(list) = table.dns_servers {
            places.push(("engine.network.dns_servers", list.span().start));
            for text in list.into_inner() {
                let server = parse_server(text.get_ref());
                servers.push(server.map_err(|e| at(text.span().start, "dns_servers", e))?);
            }
        }
        match table.resolver {
            Some(name) if *name.get_ref() == ResolverName::System => {
                if !servers.is_empty() {
                    let error = Error::invalid_config("the system's resolver is given no servers here");
                    let error = error.remedy("leave `dns_servers` out, or write `resolver = \"dns\"`");
                    return Err(at(name.span().start, "resolver", error));
                }
                network.resolver = Resolution::System;
            }
            _ => network.resolver = Resolution::Dns(servers),
        }
        network.trust = table.trust.unwrap_or_default();
        network.sockets = table.sockets.unwrap_or_default();
        network.addresses =
            self.addresses(&table.addresses).map_err(|(offset, e)| at(offset, "addresses", e))?.unwrap_or_default();
        network.tenant.https_only = table.tenant_https_only.unwrap_or(network.tenant.https_only);
        if let Some(list) = table.tenant_ports {
            places.push(("engine.network.tenant_ports", list.span().start));
            let ports = list
                .into_inner()
                .into_iter()
                .map(|text| parse_ports(text.get_ref()).map_err(|e| at(text.span().start, "tenant_ports", e)));
            network.tenant.ports = ports.collect::<Result<_>>()?;
        }
        if let Some(proxy) = table.proxy {
            places.push(("engine.network: proxy.url", proxy.span().start));
            let proxy = proxy.into_inner();
            let made = self.proxy(&proxy.url, proxy.user.as_ref(), proxy.password.as_ref());
            network.proxy = Some(made.map_err(|(offset, e)| self.at(offset, e.at("engine.network")))?);
            for text in proxy.no_proxy {
                let parsed = NoProxy::parse(text.get_ref());
                network.no_proxy.push(parsed.map_err(|e| at(text.span().start, "proxy.no_proxy", e))?);
            }
        }
        Ok(network)
    }

    /// Lists of ranges, if anything is in them; or where the fault is.
    fn addresses(&self, table: &Addresses) -> std::result::Result<Option<AddressLists>, (usize, Error)> {
        let read = |list: &[Spanned<String>], key: &str| {
            let nets = list.iter().map(|t| parse_net(t.get_ref()).map_err(|e| (t.span().start, e.at(key.to_owned()))));
            nets.collect::<std::result::Result<Vec<_>, _>>()
        };
        let lists = AddressLists { allow: read(&table.allow, "allow")?, deny: read(&table.deny, "deny")? };
        Ok((lists != AddressLists::default()).then_some(lists))
    }

    /// A proxy, or where the fault is.
    fn proxy(
        &self,
        url: &Spanned<String>,
        user: Option<&Spanned<String>>,
        password: Option<&Spanned<String>>,
    ) -> std::result::Result<Proxy, (usize, Error)> {
        let proxy = Proxy::new(url.get_ref()).map_err(|e| (url.span().start, e))?;
        match (user, password) {
            (None, None) => Ok(proxy),
            (Some(user), Some(password)) => proxy.with_credentials(user.get_ref(), password.get_ref()).map_err(|e| {
                let of = if e.place() == Some("proxy.user") { user } else { password };
                (of.span().start, e)
            }),
            (user, password) => {
                let offset = user.or(password).map_or(0, |t| t.span().start);
                let error = Error::invalid_config("the proxy has a user or a password, and not both").at("proxy");
                Err((offset, error.remedy("give `user` and `password`, an empty one if need be, or neither")))
            }
        }
    }

    /// The webhook of a destination's table, out of which it takes what is its own.
    fn webhook(&self, table: &mut DestinationTable, start: usize, label: &str, places: &mut Places) -> Result<Webhook> {
        let at = |offset: usize, e: Error| self.at(offset, e.at(label.to_owned()));
        let read = super::endpoints::read(table, start, places);
        let mut webhook = read.map_err(|(offset, e)| at(offset, e))?;
        if let Some((name, _)) = table.headers.first_key_value() {
            places.push(("headers", name.span().start));
        }
        let mut headers: Vec<_> = std::mem::take(&mut table.headers).into_iter().collect();
        headers.sort_by_key(|(name, _)| name.span().start);
        webhook.headers = headers.into_iter().map(|(n, v)| (n.into_inner(), v.into_inner())).collect();
        if let Some(value) = &table.auth {
            let offset = value.span().start;
            places.push(("auth", offset));
            let json = toml_to_json(value.get_ref()).map_err(|e| at(offset, e.at("auth")))?;
            let read = auth::read(&json, self.base_dir).and_then(|list| auth::check(&list).map(|()| list));
            webhook.auth = read.map_err(|f| self.fault("destination", start, Some("auth"), label.to_owned(), *f))?;
        }
        if let Some(value) = &table.compression {
            let offset = value.span().start;
            places.push(("compression", offset));
            let json = toml_to_json(value.get_ref()).map_err(|e| at(offset, e.at("compression")))?;
            let read = wire::read_compression(&json);
            let read = read.map_err(|f| self.fault("destination", start, Some("compression"), label.to_owned(), *f))?;
            webhook.compression = Some(read);
        }
        if let Some(value) = &table.encryption {
            let offset = value.span().start;
            places.push(("encryption", offset));
            let json = toml_to_json(value.get_ref()).map_err(|e| at(offset, e.at("encryption")))?;
            let read = wire::read_encryption(&json, self.base_dir);
            let read = read.map_err(|f| self.fault("destination", start, Some("encryption"), label.to_owned(), *f))?;
            read.check().map_err(|e| at(offset, e))?;
            webhook.encryption = Some(read);
        }
        set(&mut webhook.timeout, places, "timeout", table.timeout.take(), time);
        set(&mut webhook.connect_timeout, places, "connect_timeout", table.connect_timeout.take(), time);
        set(&mut webhook.idle, places, "idle", table.idle.take(), time);
        let (own, pool) = (&mut webhook.pool, std::mem::take(&mut table.pool));
        set(&mut own.lifetime, places, "pool.lifetime", pool.lifetime, time);
        set(&mut own.requests_max, places, "pool.requests_max", pool.requests_max, |n| n);
        set(&mut own.user_timeout, places, "pool.user_timeout", pool.user_timeout, time);
        webhook.trust = table.trust;
        let lists = self.addresses(&table.addresses).map_err(|(offset, e)| at(offset, e.at("addresses")))?;
        webhook.addresses = lists.unwrap_or_default();
        set(&mut webhook.unix_socket, places, "unix_socket", table.unix_socket.take(), |path| Some(self.path(&path)));
        for (at, keys) in [
            (table.success.as_ref().map(|s| s.span().start), &SUCCESS_KEYS),
            (table.partial.as_ref().map(|p| p.span().start), &PARTIAL_KEYS),
        ] {
            places.extend(at.into_iter().flat_map(|at| keys.iter().map(move |k| (*k, at))));
        }
        webhook.success = table.success.take().map(Spanned::into_inner).unwrap_or_default();
        webhook.partial = table.partial.take().map(Spanned::into_inner);
        if let Some(proxy) = table.proxy.take() {
            places.push(("proxy.url", proxy.span().start));
            let offset = proxy.span().start;
            let proxy = proxy.into_inner();
            let direct = proxy.direct.is_some_and(|d| *d.get_ref());
            webhook.proxy = match &proxy.url {
                Some(url) if !direct => {
                    let made = self.proxy(url, proxy.user.as_ref(), proxy.password.as_ref());
                    ProxyChoice::Through(made.map_err(|(offset, e)| at(offset, e))?)
                }
                None if direct && proxy.user.is_none() && proxy.password.is_none() => ProxyChoice::Direct,
                _ => {
                    let error = Error::invalid_config("the way is neither direct nor through a proxy").at("proxy");
                    let remedy = "write `proxy = { url = \"http://host:port\" }`, or `proxy = { direct = true }`";
                    return Err(at(offset, error.remedy(remedy)));
                }
            };
        }
        webhook.tls = super::tls::read(std::mem::take(&mut table.tls), &|path| self.path(path), places)
            .map_err(|(o, e)| at(o, e))?;
        self.check_tls_files(&webhook.tls).map_err(|e| {
            let key = e.place().and_then(|p| p.split(": ").next()).unwrap_or_default().to_owned();
            at(key_offset(places, &key), e)
        })?;
        set(&mut webhook.http2, places, "http2", table.http2.take(), |b| b);
        Ok(webhook)
    }

    fn destination(&self, table: Spanned<DestinationTable>) -> Result<(Destination, Places)> {
        let start = table.span().start;
        let mut table = table.into_inner();
        let label = format!("destination `{}`", table.name.get_ref());
        let at = |offset: usize, e: Error| self.at(offset, e.at(label.clone()));
        let mut places = vec![("", start), ("name", table.name.span().start)];
        let form = super::format::read(&table, &|path| self.path(path), &mut places).map_err(|(o, e)| at(o, e))?;
        let kind = match table.r#type.get_ref().as_str() {
            "webhook" => DestinationKind::Webhook(self.webhook(&mut table, start, &label, &mut places)?),
            "custom" => DestinationKind::Custom(custom(&mut table, start, &mut places).map_err(|(o, e)| at(o, e))?),
            name => {
                let error = Error::invalid_config(format!("unknown type of destination `{name}`"));
                return Err(at(table.r#type.span().start, error.remedy(suggest("type", name, ["webhook", "custom"]))));
            }
        };
        if let (DestinationKind::Webhook(_), Some(handler)) = (&kind, &table.handler) {
            let error = Error::invalid_config("a webhook has no handler").at("handler");
            return Err(at(handler.span().start, error.remedy("leave it out, or write `type = \"custom\"`")));
        }

        let mut d = Destination::new(table.name.into_inner(), kind);
        (d.profile, d.format) = form;
        set(&mut d.concurrency, &mut places, "concurrency", table.concurrency, clamp);
        let key = "adaptive_concurrency";
        set(&mut d.adaptive_concurrency, &mut places, key, table.adaptive_concurrency, |b| b);
        let (own, rate) = (&mut d.rate, table.rate);
        set(&mut own.events_per_second, &mut places, "rate.events_per_second", rate.events_per_second, Some);
        set(&mut own.requests_per_second, &mut places, "rate.requests_per_second", rate.requests_per_second, Some);
        set(&mut own.bytes_per_second, &mut places, "rate.bytes_per_second", rate.bytes_per_second, |Size(n)| Some(n));
        set(&mut own.burst, &mut places, "rate.burst", rate.burst, time);
        let (own, disable) = (&mut d.disable, table.disable);
        set(&mut own.after, &mut places, "disable.after", disable.after, time);
        set(&mut own.attempts_min, &mut places, "disable.attempts_min", disable.attempts_min, |n| n);
        d.order = table.order.unwrap_or_default();
        let batch = table.batch;
        set(&mut d.batch.events_max, &mut places, "batch.events_max", batch.events_max, clamp);
        set(&mut d.batch.bytes_max, &mut places, "batch.bytes_max", batch.bytes_max, bytes);
        set(&mut d.batch.linger, &mut places, "batch.linger", batch.linger, time);
        let retry = table.retry;
        set(&mut d.retry.backoff_min, &mut places, "retry.backoff_min", retry.backoff_min, time);
        set(&mut d.retry.backoff_max, &mut places, "retry.backoff_max", retry.backoff_max, time);
        set(&mut d.retry.age_max, &mut places, "retry.age_max", retry.age_max, time);
        set(&mut d.retry.poison_attempts, &mut places, "retry.poison_attempts", retry.poison_attempts, |n| n);
        set(&mut d.retry.retry_after_max, &mut places, "retry.retry_after_max", retry.retry_after_max, time);
        set(&mut d.retry.attempts_max, &mut places, "retry.attempts_max", retry.attempts_max, Some);
        set(&mut d.dead_letter_to, &mut places, "dead_letter_to", table.dead_letter_to, Some);
        let queue = table.queue;
        set(&mut d.queue.events_max, &mut places, "queue.events_max", queue.events_max, Some);
        set(&mut d.queue.bytes_max, &mut places, "queue.bytes_max", queue.bytes_max, |Size(n)| n);
        set(&mut d.queue.age_max, &mut places, "queue.age_max", queue.age_max, |Time(t)| Some(t));
        set(&mut d.queue.block_timeout, &mut places, "queue.block_timeout", queue.block_timeout, time);
        set(&mut d.queue.warn_at, &mut places, "queue.warn_at", queue.warn_at, |n| n);
        if let Some(name) = queue.on_full {
            d.queue.on_full = OnQueueFull::parse(name.get_ref()).map_err(|e| at(name.span().start, e.at("queue")))?;
        }
        let breaker = table.breaker;
        let key = "breaker.consecutive_failures";
        set(&mut d.breaker.consecutive_failures, &mut places, key, breaker.consecutive_failures, |n| n);
        set(&mut d.breaker.window, &mut places, "breaker.window", breaker.window, time);
        set(&mut d.breaker.calls_min, &mut places, "breaker.calls_min", breaker.calls_min, |n| n);
        set(&mut d.breaker.failed_percent, &mut places, "breaker.failed_percent", breaker.failed_percent, |n| n);
        set(&mut d.breaker.successes, &mut places, "breaker.successes", breaker.successes, |n| n);
        set(&mut d.breaker.open_min, &mut places, "breaker.open_min", breaker.open_min, time);
        set(&mut d.breaker.open_max, &mut places, "breaker.open_max", breaker.open_max, time);
        Ok((d, places))
    }

    /// Places of faults inside a table of a list: `key` leads to where the filter begins, if that is not the table.
    fn fault(&self, list: &str, offset: usize, key: Option<&str>, label: String, fault: Fault) -> Error {
        let key = key.map(|k| OwnStep::Name(k.to_owned()));
        let steps: Vec<OwnStep> = key.into_iter().chain(fault.steps).collect();
        let place = text::locate(self.text.text(), list, offset, &steps);
        self.at(place.unwrap_or(offset), fault.error.at(label))
    }

    fn named_filters(&self, tables: Vec<Spanned<toml::Table>>) -> Result<NamedFilters> {
        let mut definitions = Vec::new();
        let mut offsets = Vec::new();
        for table in tables {
            let offset = table.span().start;
            let mut table = table.into_inner();
            let name = match table.remove("name") {
                Some(toml::Value::String(name)) => name,
                Some(_) => {
                    let error = Error::invalid_config("`name` is no string").at("filter");
                    return Err(self.at(offset, error.remedy("write a name in double quotes")));
                }
                None => {
                    let error = Error::invalid_config("`name` is missing").at("filter");
                    return Err(self.at(offset, error.remedy("add it; rules refer to it with `use`")));
                }
            };
            let label = format!("filter `{}`", name.escape_debug());
            let value = toml_to_json(&toml::Value::Table(table)).map_err(|e| self.at(offset, e.at(label)))?;
            definitions.push((name, value));
            offsets.push(offset);
        }
        NamedFilters::resolve(&definitions).map_err(|(i, fault)| {
            let label = format!("filter `{}`", definitions[i].0.escape_debug());
            self.fault("filter", offsets[i], None, label, *fault)
        })
    }

    /// The filter of a rule, and where it begins: everything that is given must hold.
    fn filter(
        &self,
        table: &RuleTable,
        whole: usize,
        engine: &EngineConfig,
        named: &NamedFilters,
    ) -> Result<(Filter, usize)> {
        let label = || format!("rule `{}`", table.id.get_ref());
        let mut first: Option<usize> = None;
        let mut start = |offset: usize| {
            first.get_or_insert(offset);
            offset
        };
        let mut parts = Vec::new();
        let mut add = |filter: Filter| match filter {
            Filter::All(list) => parts.extend(list),
            filter => parts.push(filter),
        };
        let of_key = [
            ("prefix", &table.prefix),
            ("suffix", &table.suffix),
            ("exact", &table.exact),
            ("wildcard", &table.wildcard),
            ("contains", &table.contains),
            ("regex", &table.regex),
        ];
        let mut members = serde_json::Map::new();
        for (name, value) in of_key {
            let Some(value) = value else { continue };
            let offset = start(value.span().start);
            let json = toml_to_json(value.get_ref()).map_err(|e| self.at(offset, e.at(name).at(label())))?;
            members.insert(name.to_owned(), json);
        }
        let filter = Filter::read_native(&members.into(), "", named);
        add(filter.map_err(|fault| self.fault("rule", table.id.span().start, None, label(), *fault))?);
        if let Some(value) = &table.filter {
            let offset = start(value.span().start);
            let json = toml_to_json(value.get_ref()).map_err(|e| self.at(offset, e.at("filter").at(label())))?;
            let filter = Filter::read_native(&json, "filter", named);
            add(filter.map_err(|fault| self.fault("rule", offset, Some("filter"), label(), *fault))?);
        }
        if let Some(text) = &table.pattern {
            let offset = start(text.span().start);
            let of = match &table.pattern_of {
                Some(name) if *name.get_ref() == PatternOfName::Data => PatternOf::Data,
                _ => PatternOf::S3 { region: &engine.region },
            };
            let json = parse_json(text.get_ref()).map_err(|e| self.at(offset, e.at("pattern").at(label())))?;
            let filter = Filter::read_event_pattern(&json, of);
            add(filter.map_err(|fault| self.at(offset, fault.error.at(label())))?);
        } else if let Some(name) = &table.pattern_of {
            let error = Error::invalid_config("`pattern_of` has no pattern").at(label());
            return Err(self.at(name.span().start, error.remedy("add `pattern`, or leave `pattern_of` out")));
        }
        if let Some(value) = &table.cloudevents {
            let offset = start(value.span().start);
            let json = toml_to_json(value.get_ref()).map_err(|e| self.at(offset, e.at("cloudevents").at(label())))?;
            let source = SourceOf { event_source: &engine.event_source, region: &engine.region };
            let filter = Filter::read_cloudevents(&json, "cloudevents", source);
            add(filter.map_err(|fault| self.fault("rule", offset, Some("cloudevents"), label(), *fault))?);
        }
        if let Some(text) = &table.cel {
            let offset = start(text.span().start);
            add(Filter::parse_cel(text.get_ref()).map_err(|e| self.at(offset, e.at(label())))?);
        }
        Ok((Filter::all(parts), first.unwrap_or(whole)))
    }

    fn rule(
        &self,
        table: Spanned<RuleTable>,
        engine: &EngineConfig,
        named: &NamedFilters,
    ) -> Result<(Rule, RulePlaces)> {
        let types = &engine.event_types;
        let whole = table.span().start;
        let table = table.into_inner();
        let mut rule = Rule { id: table.id.get_ref().clone(), ..Rule::default() };
        for event in &table.events {
            let name = event.get_ref();
            rule.events.add(name, types).map_err(|e| self.at(event.span().start, e.at("events").at(rule.label())))?;
            rule.event_names.push(name.clone());
        }
        let filter;
        (rule.filter, filter) = self.filter(&table, whole, engine, named)?;
        rule.bucket = table.bucket.map(Spanned::into_inner).filter(|b| b != "*");
        rule.priority = table.priority.map(|p| match p {
            PriorityName::High => Priority::High,
            PriorityName::Normal => Priority::Normal,
            PriorityName::Low => Priority::Low,
        });
        rule.retain = table.retain.as_ref().is_some_and(|r| *r.get_ref());
        if table.destinations.is_none() && !rule.retain {
            let error = Error::invalid_config("`destinations` is missing").at(rule.label());
            return Err(self.at(whole, error.remedy("name some, or write `retain = true` to keep the events only")));
        }
        let destinations = table.destinations.unwrap_or_default();
        let places = RulePlaces {
            text: self.text.clone(),
            whole,
            events: table.events.iter().map(|e| e.span().start).collect(),
            filter,
            retain: table.retain.filter(|r| *r.get_ref()).map(|r| r.span().start),
            destinations: destinations.iter().map(|d| d.span().start).collect(),
        };
        rule.destinations = destinations.into_iter().map(Spanned::into_inner).collect();
        Ok((rule, places))
    }

    fn notification(
        &self,
        table: Spanned<NotificationTable>,
        arns: &Arns,
        types: &EventTypes,
        rules: &mut Vec<Rule>,
        places: &mut Vec<RulePlaces>,
    ) -> Result<()> {
        let table = table.into_inner();
        let bucket = table.bucket.get_ref();
        check_bucket(bucket).map_err(|e| self.at(table.bucket.span().start, e))?;
        let path = self.path(table.file.get_ref());
        let format = match path.extension().and_then(|e| e.to_str()) {
            Some("xml") => Format::Xml,
            Some("json") => Format::Json,
            _ => {
                let error = Error::invalid_config(format!("`{}` is neither .xml nor .json", table.file.get_ref()));
                return Err(self.at(table.file.span().start, error.remedy("name the file by what is in it")));
            }
        };
        if let Some(name) = &table.event_bridge
            && !arns.has(name.get_ref())
        {
            let error = Error::invalid_config(format!("unknown destination `{}`", name.get_ref()));
            let error = error.remedy(suggest("destination", name.get_ref(), arns.destinations()));
            return Err(self.at(name.span().start, error));
        }
        let options = NotificationOptions {
            overlap: match table.overlap {
                None | Some(OverlapName::AllowDedupe) => Overlap::AllowDedupe,
                Some(OverlapName::StrictAws) => Overlap::StrictAws,
                Some(OverlapName::AllowAll) => Overlap::AllowAll,
            },
            filter_values: match table.filter_values {
                None | Some(FilterValuesName::Raw) => FilterValues::Raw,
                Some(FilterValuesName::Encoded) => FilterValues::Encoded,
            },
            extensions: match table.extensions {
                None | Some(ExtensionsName::None) => Extensions::None,
                Some(ExtensionsName::Ceph) => Extensions::Ceph,
            },
            event_bridge: table.event_bridge.map(Spanned::into_inner),
        };
        let document = read_file(&path).map_err(|e| self.at(table.file.span().start, e))?;
        let name = path.display().to_string();
        let text = Text::new(&name, &document);
        let notification =
            Notification { bucket, text: &document, name: &name, format: Some(format), options: &options, arns, types };
        let located = notification.located_rules().map_err(|(offset, e)| e.at(text.place(offset)))?;
        for r in located {
            rules.push(r.rule);
            places.push(RulePlaces {
                text: text.clone(),
                whole: r.offset,
                events: r.event_offsets,
                filter: r.offset,
                retain: None,
                destinations: vec![r.destination_offset],
            });
        }
        Ok(())
    }

    fn sources(&self, tables: Vec<Spanned<SourceTable>>) -> Result<Vec<Source>> {
        let mut sources: Vec<Source> = Vec::new();
        for table in tables {
            let start = table.span().start;
            let source = self.source(start, table.into_inner())?;
            let twice = sources.iter().any(|other| match (other, &source) {
                (Source::Http(a), Source::Http(b)) => a.listen == b.listen && a.listen.port() != 0,
                (Source::Directory(a), Source::Directory(b)) => a.path == b.path,
                _ => false,
            });
            if twice {
                let error = Error::invalid_config("another source has the same address or directory").at("source");
                return Err(self.at(start, error.remedy("keep one")));
            }
            sources.push(source);
        }
        Ok(sources)
    }

    fn source(&self, start: usize, table: SourceTable) -> Result<Source> {
        let kind = table.r#type.get_ref().as_str();
        let label = format!("source `{kind}`");
        let at = |offset: usize, e: Error| self.at(offset, e.at(label.clone()));
        let missing = |key: &str| at(start, Error::invalid_config(format!("`{key}` is missing")).remedy("add it"));
        let misplaced = |key: &str, offset: usize| {
            let error = Error::invalid_config(format!("`{key}` is not for a source of type `{kind}`"));
            at(offset, error.remedy("leave it out, or correct the type"))
        };
        match kind {
            "http" => {
                let wrong = [("path", table.path.as_ref()), ("bucket", table.bucket.as_ref())];
                let wrong = wrong.iter().find_map(|(key, v)| v.map(|v| (*key, v.span().start)));
                let wrong = wrong.or(table.on_start.as_ref().map(|v| ("on_start", v.span().start)));
                if let Some((key, offset)) = wrong {
                    return Err(misplaced(key, offset));
                }
                let listen = table.listen.as_ref().ok_or_else(|| missing("listen"))?;
                let listen = parse_listen(listen.get_ref()).map_err(|e| at(listen.span().start, e.at("listen")))?;
                let max_body = match table.max_body {
                    Some(size) => {
                        let n = bytes(*size.get_ref());
                        within("max_body", n, 1 << 10, 1 << 30).map_err(|e| at(size.span().start, e))?;
                        n
                    }
                    None => 8 << 20,
                };
                Ok(Source::Http(HttpSource { listen, max_body }))
            }
            "directory" => {
                let wrong = table.listen.as_ref().map(|v| ("listen", v.span().start));
                let wrong = wrong.or(table.max_body.as_ref().map(|v| ("max_body", v.span().start)));
                if let Some((key, offset)) = wrong {
                    return Err(misplaced(key, offset));
                }
                let path = table.path.as_ref().ok_or_else(|| missing("path"))?;
                if path.get_ref().is_empty() {
                    let error = Error::invalid_config("the path is empty").at("path");
                    return Err(at(path.span().start, error.remedy("name the directory to watch")));
                }
                let bucket = table.bucket.as_ref().ok_or_else(|| missing("bucket"))?;
                check_bucket(bucket.get_ref()).map_err(|e| at(bucket.span().start, e))?;
                Ok(Source::Directory(DirectorySource {
                    path: self.path(path.get_ref()),
                    bucket: bucket.get_ref().clone(),
                    on_start: table.on_start.map(Spanned::into_inner).unwrap_or_default(),
                }))
            }
            _ => {
                let error = Error::invalid_config(format!("unknown type of source `{kind}`"));
                Err(at(table.r#type.span().start, error.remedy(suggest("type", kind, ["http", "directory"]))))
            }
        }
    }
}

fn parse_listen(text: &str) -> Result<SocketAddr> {
    let Ok(address) = text.parse::<SocketAddr>() else {
        return Err(Error::invalid_config(format!("`{text}` is not an address and a port"))
            .remedy("write it as 127.0.0.1:8080 or [::1]:8080"));
    };
    if !address.ip().is_loopback() {
        return Err(Error::invalid_config(format!("{address} can be reached from other machines"))
            .remedy("listen on 127.0.0.1 or ::1: this source neither encrypts nor asks who is there"));
    }
    Ok(address)
}
