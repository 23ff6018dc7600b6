//! The configuration: a TOML file, or the same things set from code.
//!
//! A file is taken as a whole or refused as a whole. Errors name file, line, column, and the rule or destination.

mod endpoints;
mod format;
mod load;
mod network;
pub(crate) mod stored;
mod text;
mod tls;
pub(crate) mod units;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

pub use crate::driver::{Sockets, WallClock};
pub use crate::shared::SharedConfig;
pub use network::NetworkConfig;
pub(crate) use network::{Network, check_proxy};

use crate::error::{Error, Result};
use crate::event::{EVENT_BYTES_MAX, EventTypes, KnownType};
use crate::filter::{FILTER_NODES_MAX, FILTER_TEXT_BYTES_MAX, FilterLimits, WILDCARD_STARS_MAX};
use crate::log::recovery::{SHARDS_MAX, check_path};
use crate::rule::{Destination, OnQueueFull, RULES_MAX, Rule, RuleSet, within, within_ratio, within_time};

/// Everything an engine is opened with, and the sources of the command.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// How the engine runs.
    pub engine: EngineConfig,
    /// Rules and destinations, those of the notification documents included.
    pub rules: RuleSet,
    /// The ways in other than publishing from code.
    pub sources: Vec<Source>,
    /// The files that it was read from: the configuration file first, then the notification documents. Empty if it was read
    /// from text.
    pub files: Vec<PathBuf>,
}

impl Config {
    /// Reads a configuration file. Paths in it are relative to its directory.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidConfig`] for anything wrong in it or in a document that it names;
    /// [`crate::ErrorKind::Io`] if a file cannot be read.
    pub fn from_file(path: &Path) -> Result<Config> {
        load::from_file(path, None)
    }

    /// As [`Config::from_file`], with the data directory given by the caller; one in the file is then of no account.
    ///
    /// # Errors
    /// As [`Config::from_file`].
    pub fn from_file_with_data_dir(path: &Path, data_dir: &Path) -> Result<Config> {
        load::from_file(path, Some(data_dir))
    }

    /// Reads the rules of a configuration file by themselves, those of its notification documents among them. Whether their
    /// destinations are there is not asked, and no data directory is needed.
    ///
    /// # Errors
    /// As [`Config::from_file`], for rules and what they are read with.
    pub fn rules_from_file(path: &Path) -> Result<Vec<Rule>> {
        load::rules_from_file(path)
    }

    /// One rule by itself: a text with one `[[rule]]`, and the named filters that it uses; or its table as a JSON object. The
    /// event types and limits are those of `engine`. Whether its destinations are there is not asked.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidConfig`] with the place.
    pub fn rule_of_text(text: &str, engine: &EngineConfig) -> Result<Rule> {
        load::rule_of(text, engine)
    }

    /// One destination by itself: a text with one `[[destination]]`, or its table as a JSON object. Paths are relative to
    /// `base_dir`.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidConfig`] with the place.
    pub fn destination_of_text(text: &str, base_dir: &Path) -> Result<Destination> {
        load::destination_of_text(text, base_dir)
    }

    /// As [`Config::rules_from_file`], of text. Errors call it `file_name`; paths in it are relative to `base_dir`.
    ///
    /// # Errors
    /// As [`Config::rules_from_file`].
    pub fn rules_from_toml(text: &str, file_name: &str, base_dir: &Path) -> Result<Vec<Rule>> {
        load::rules_from_toml(text, file_name, base_dir)
    }

    /// Reads a configuration from text. Errors call it `file_name`; paths in it are relative to `base_dir`.
    ///
    /// # Errors
    /// As [`Config::from_file`].
    pub fn from_toml(text: &str, file_name: &str, base_dir: &Path) -> Result<Config> {
        load::from_toml(text, file_name, base_dir, None)
    }

    /// As [`Config::from_toml`], with the data directory given by the caller; one in the text is then of no account.
    ///
    /// # Errors
    /// As [`Config::from_file`].
    pub fn from_toml_with_data_dir(text: &str, file_name: &str, base_dir: &Path, data_dir: &Path) -> Result<Config> {
        load::from_toml(text, file_name, base_dir, Some(data_dir))
    }
}

/// How an engine runs. Make one with [`EngineConfig::new`] and set what differs.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct EngineConfig {
    /// The directory of logs and cursors. One engine at a time has it open.
    pub data_dir: PathBuf,
    /// How many shards, 1 to 256; `None` is what the data directory has, for a new one the number of usable CPUs. Default:
    /// `None`. It may be another number at each opening: what is undelivered of the earlier spread goes before what comes
    /// after it, so that a destination that has fallen behind gets nothing new before all of that.
    pub shards: Option<usize>,
    /// The size of each shard's ring in bytes: a power of two from 256 KiB to 1 GiB. Default: 4 MiB.
    pub ring_bytes: usize,
    /// How much of each ring may be kept for reservations at a time, in percent, 1 to 90. Default: 50.
    pub reserve_percent: usize,
    /// What a shard does when there is nothing to do. Default: [`Idle::Nap`].
    pub idle: Idle,
    /// Whether each shard is bound to a CPU of its own. Default: `false`.
    pub pin_cpus: bool,
    /// The region of events that name none. Default: `us-east-1`.
    pub region: String,
    /// The destination that is told what becomes of others: events `System:Destination:*`, when one is pending, verified,
    /// suspended, disabled or resumed, takes nothing for long, or is left alone by its breaker. They go to it alone, through
    /// no rule, and never about itself. Its profile must have records for them, as `cloudevents` has. Default: `None`,
    /// that stands in the log only.
    pub operator_destination: Option<String>,
    /// The `eventSource` of records. Default: `aws:s3`.
    pub event_source: String,
    /// The largest encoded event in bytes, 4 KiB to 64 KiB. Default: 64 KiB.
    pub event_bytes_max: usize,
    /// The event types: the known ones, and the host's own. Default: only the known ones.
    pub event_types: EventTypes,
    /// ARNs that notification documents may name beside those that name a destination themselves, and the destinations that
    /// they mean: `[arns]` of the configuration, as it was when the engine was opened. Default: none.
    pub arns: BTreeMap<String, String>,
    /// How long closing waits for deliveries, up to 1 h. Default: 10 s. What is left is delivered after the next open.
    pub close_timeout: Duration,
    /// The log of each shard.
    pub log: LogConfig,
    /// Deliveries of each shard.
    pub delivery: DeliveryConfig,
    /// What is kept of events that were given up.
    pub dead_letters: DeadLettersConfig,
    /// How much disk the logs may take.
    pub queue: QueueConfig,
    /// What is kept of the story of events that were dropped.
    pub losses: LossesConfig,
    /// What one bucket may take from the others.
    pub fairness: FairnessConfig,
    /// How repeats of one publication are recognised.
    pub dedup: DedupConfig,
    /// What stays in the log after it was delivered.
    pub retention: RetentionConfig,
    /// Who keeps the rules and destinations that are put while the engine runs ([`crate::Engine::put_rule`]).
    pub rules: RulesKept,
    /// How much the filters of rules may ask for (`[engine.filter]` in a file).
    pub filter: FilterLimits,
    /// How destinations are reached.
    pub network: NetworkConfig,
    /// Where other processes get at the engine. Default: `None`, nowhere.
    pub shared: Option<SharedConfig>,
    /// The wall clock: what events are told the time by that have none of their own, and what the log, ages, retention and
    /// windows go by. Waiting is by the monotonic clock, and what other machines compare with theirs (signatures, tokens,
    /// certificates, the times when a secret is valid, states of destinations) by the machine's. One that goes backwards makes
    /// no sequencer smaller than an earlier one and no age larger; one that jumps ahead makes what is there as old as it says.
    /// Not in a file. Default: `None`, the machine's.
    pub clock: Option<WallClock>,
}

/// Who keeps what is put while the engine runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RulesKept {
    /// The data directory: it is there again at the next opening. The default.
    #[default]
    Stored,
    /// The host, which puts it again after each opening; or else it is gone.
    Host,
}

/// What stays in the log after it was delivered, for replay, history and point-in-time recovery.
///
/// The log is kept in whole segments: one goes when its newest event is older than `age_max`, or when the log is larger
/// than `bytes_max`, whichever comes first. Without limits it stays for ever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RetentionConfig {
    /// Whether the log is kept, and which events are in it. Default: [`Keep::Nothing`]; in a file, [`Keep::Rules`] if
    /// one of the limits is set.
    pub keep: Keep,
    /// How long events are kept at least, 1 s to 100 years. Default: without limit.
    pub age_max: Option<Duration>,
    /// How many bytes of segments are kept, of all shards together, at least 1 MiB. The segments being written are not
    /// removed, however large they are. Default: without limit.
    pub bytes_max: Option<u64>,
}

/// What is kept: see [`RetentionConfig`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Keep {
    /// A segment goes when everything in it is delivered. The default.
    #[default]
    Nothing,
    /// The log is kept: events that a destination wants, and those that a rule with [`crate::rule::Rule::retain`] wants.
    Rules,
    /// The log is kept, with every event that is published.
    All,
}

/// The log of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogConfig {
    /// The size of a segment file in bytes, 1 MiB to 4 GiB. Default: 64 MiB.
    pub segment_bytes: u64,
    /// The longest that an event which nobody waits for stays unsynced, 1 ms to 60 s. Default: 5 ms.
    pub sync_interval: Duration,
}

impl Default for LogConfig {
    fn default() -> Self {
        LogConfig { segment_bytes: 64 << 20, sync_interval: Duration::from_millis(5) }
    }
}

/// Deliveries of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeliveryConfig {
    /// The most bytes of events that a shard keeps in memory for its lanes, 1 MiB to 1 TiB. Default: 256 MiB. The rest
    /// of a backlog is read from the log when its turn comes.
    pub memory_bytes: u64,
    /// The most events that one lane has in memory, 1 to 16,777,216. Default: 8192.
    pub lane_events_max: usize,
    /// How often cursors are stored, 1 ms to 60 s, and with each 2048 destinations after so much longer. Default: 100 ms.
    /// What was delivered since is delivered again after a crash.
    pub cursor_interval: Duration,
}

impl Default for DeliveryConfig {
    fn default() -> Self {
        DeliveryConfig { memory_bytes: 256 << 20, lane_events_max: 8192, cursor_interval: Duration::from_millis(100) }
    }
}

/// What is kept of events that were given up. When there are too many, or they grow too old, the oldest go, a whole segment
/// file at a time; each is counted.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct DeadLettersConfig {
    /// The most bytes of files that all shards together keep, 8 MiB to 1 TiB. Default: 1 GiB. Each shard has an equal share
    /// of it, of at least 2 MiB, in segment files of an eighth of that, 1 MiB to 16 MiB.
    pub bytes_max: u64,
    /// How long a dead letter is kept, 1 s to 3650 days. Default: 30 days. A segment goes when its youngest letter is older.
    pub age_max: Duration,
    /// The share of `bytes_max` from which on a warning is given, 0.1 to 1. Default: 0.8.
    pub warn_at: f64,
    /// How often an event may come out of the dead letters again (redriven, or passed on to a dead-letter destination), 1
    /// to 255; then it stays there until it is purged. Default: 16.
    pub hops_max: u8,
}

impl Default for DeadLettersConfig {
    fn default() -> Self {
        DeadLettersConfig {
            bytes_max: 1 << 30,
            age_max: Duration::from_secs(30 * 24 * 3600),
            warn_at: 0.8,
            hops_max: 16,
        }
    }
}

/// How much disk the logs of all shards together may take, and what happens to what is more. Segment files are removed as a
/// whole, so that the limit is kept to about one of them per shard.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct QueueConfig {
    /// The most bytes of segment files, at least four segments per shard to be of use, at most 1 PiB. Default: no limit but
    /// those of the destinations.
    pub bytes_max: Option<u64>,
    /// What happens when there are more. Default: [`OnQueueFull::DeadLetterOldest`]. What is oldest is shed for every
    /// destination that it still waits for.
    pub on_full: OnQueueFull,
    /// How long [`OnQueueFull::Block`] lets a publisher wait, up to 1 h. Default: 5 s.
    pub block_timeout: Duration,
    /// The share of `bytes_max` from which on a warning is given, 0.1 to 1. Default: 0.8.
    pub warn_at: f64,
}

impl Default for QueueConfig {
    fn default() -> Self {
        QueueConfig {
            bytes_max: None,
            on_full: OnQueueFull::default(),
            block_timeout: Duration::from_secs(5),
            warn_at: 0.8,
        }
    }
}

/// What is kept of the story of events that were dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LossesConfig {
    /// The most bytes of files that all shards together keep, 1 MiB to 1 TiB; then the oldest go. Default: 64 MiB. Each
    /// shard has an equal share of it, of at least 512 KiB.
    pub bytes_max: u64,
}

impl Default for LossesConfig {
    fn default() -> Self {
        LossesConfig { bytes_max: 64 << 20 }
    }
}

/// What one bucket may take from the others. Nothing is checked, and nothing is paid for it, unless one of the first two is
/// set. Buckets are told apart by a hash into a table of 4096 places; two that share one share what it may take.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct FairnessConfig {
    /// The share of a shard's ring that the events of one bucket may fill, 0.05 to 1. What is more waits for space or is
    /// refused, as if the ring were full. Default: none, the whole ring.
    pub bucket_ring_share: Option<f64>,
    /// How many events a second one bucket may publish, at least 1. What is more waits or is refused, as if the ring were
    /// full. Default: no limit.
    pub bucket_rate: Option<u32>,
    /// How many events a bucket that was quiet may publish at once, at least 1. Default: 1000.
    pub bucket_burst: u32,
    /// If set, buckets whose names are the same up to the first of this text are one: `-` makes `acme-logs` and
    /// `acme-data` the tenant `acme`. Default: none, each bucket for itself.
    pub tenant_separator: Option<String>,
}

impl Default for FairnessConfig {
    fn default() -> Self {
        FairnessConfig { bucket_ring_share: None, bucket_rate: None, bucket_burst: 1000, tenant_separator: None }
    }
}

/// How repeats of one publication are recognised, by the key that the host gives with it
/// ([`crate::PublishOptions::dedup_key`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DedupConfig {
    /// How long a key is remembered, up to 24 h, by the wall clock: setting that back makes it longer, setting it forward
    /// shorter. Default: zero, which switches it off.
    pub window: Duration,
    /// The most keys that a shard remembers, 1 to 100,000,000, each about 80 bytes of memory. When there are more, the
    /// oldest are forgotten before their time, and counted. Default: 1,000,000.
    pub entries_max: usize,
}

impl Default for DedupConfig {
    fn default() -> Self {
        DedupConfig { window: Duration::ZERO, entries_max: 1_000_000 }
    }
}

/// What a shard does when there is nothing to do: the choice between latency and CPU time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Idle {
    /// Sleeps in the kernel until it is woken. Costs nothing while idle; the publisher that wakes it pays a system
    /// call.
    Park,
    /// Looks again after short sleeps, and parks when it stays quiet. The default.
    #[default]
    Nap,
    /// Never sleeps. The fastest answer, at the cost of a CPU.
    Spin,
}

/// A way in other than publishing from code.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Source {
    /// Events are posted over HTTP.
    Http(HttpSource),
    /// A directory is watched.
    Directory(DirectorySource),
}

/// Events posted over HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HttpSource {
    /// Where to listen: a loopback address. Port 0 lets the system choose.
    pub listen: SocketAddr,
    /// The largest request body in bytes, 1 KiB to 1 GiB. Default: 8 MiB.
    pub max_body: usize,
}

/// Changes of files in a directory, told as events of objects.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DirectorySource {
    /// The directory.
    pub path: PathBuf,
    /// The bucket that events name.
    pub bucket: String,
    /// What to do about files that are there already. Default: [`OnStart::Ignore`].
    pub on_start: OnStart,
}

/// What a directory source does about files that are there when it starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnStart {
    /// Nothing. The default.
    #[default]
    Ignore,
    /// Tells of each as created.
    Emit,
}

impl EngineConfig {
    /// The defaults, with this data directory.
    pub fn new(data_dir: impl Into<PathBuf>) -> EngineConfig {
        EngineConfig {
            data_dir: data_dir.into(),
            shards: None,
            ring_bytes: 4 << 20,
            reserve_percent: 50,
            idle: Idle::default(),
            pin_cpus: false,
            region: "us-east-1".to_owned(),
            operator_destination: None,
            event_source: "aws:s3".to_owned(),
            event_bytes_max: EVENT_BYTES_MAX,
            event_types: EventTypes::default(),
            arns: BTreeMap::new(),
            close_timeout: Duration::from_secs(10),
            log: LogConfig::default(),
            delivery: DeliveryConfig::default(),
            dead_letters: DeadLettersConfig::default(),
            queue: QueueConfig::default(),
            losses: LossesConfig::default(),
            fairness: FairnessConfig::default(),
            dedup: DedupConfig::default(),
            retention: RetentionConfig::default(),
            rules: RulesKept::default(),
            filter: FilterLimits::default(),
            network: NetworkConfig::default(),
            shared: None,
            clock: None,
        }
    }

    /// Checks that rules which retain events are given with a log that is kept.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidConfig`] that names the rule.
    pub fn check_retention(&self, rules: &RuleSet) -> Result<()> {
        match rules.rules.iter().find(|r| r.retain) {
            Some(rule) if self.retention.keep == Keep::Nothing => Err(rule.retains_in_vain()),
            _ => Ok(()),
        }
    }

    /// Checks that rules may be loaded: that none retains without a log that is kept, that they are within
    /// [`EngineConfig::filter`], but for the memory of their index, which is known when it is made, and that the URL of no
    /// destination leads where [`EngineConfig::network`] does not let it.
    ///
    /// # Errors
    /// As [`EngineConfig::check_retention`], [`FilterLimits::check_rules`] and [`NetworkConfig::check`].
    pub fn check_rules(&self, rules: &RuleSet) -> Result<()> {
        self.check_retention(rules)?;
        self.check_operator_destination(rules)?;
        rules.destinations.iter().try_for_each(|d| self.network.check(d))?;
        self.filter.check_rules(&rules.rules)
    }

    /// Checks that the destination for the operator is there, unless it may be put while running, and can be told.
    pub(crate) fn check_operator_destination(&self, rules: &RuleSet) -> Result<()> {
        let Some(name) = &self.operator_destination else { return Ok(()) };
        let at = |e: Error| Err(e.at("engine.operator_destination"));
        let Some(d) = rules.destinations.iter().find(|d| d.name == *name) else {
            if self.rules == RulesKept::Stored {
                return Ok(());
            }
            let error = Error::invalid_config(format!("unknown destination `{}`", name.escape_debug()));
            let known = rules.destinations.iter().map(|d| d.name.as_str());
            return at(error.remedy(crate::rule::suggest("destination", name, known)));
        };
        if d.format.template.is_none() && !d.profile.expressible(KnownType::SystemDestinationDisabled.into()) {
            let what = format!("{} has a profile without records for `System:Destination:*`", d.label());
            return at(Error::invalid_config(what).remedy("give it the profile `cloudevents`, or a template"));
        }
        Ok(())
    }

    /// How other processes get at the engine, for who wants them to.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidConfig`] if nothing says so.
    pub fn required_shared(&self) -> Result<&SharedConfig> {
        self.shared.as_ref().ok_or_else(|| {
            Error::invalid_config("the engine is to be shared, and has no socket")
                .at("engine.shared.socket")
                .remedy("name one, such as `shared = { socket = \"/run/tidewire/engine.sock\" }` in [engine]")
        })
    }

    /// Checks the limits.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidConfig`]; its place is the key, as in `engine.ring_bytes`.
    pub fn validate(&self) -> Result<()> {
        let ms = Duration::from_millis;
        if self.data_dir.as_os_str().is_empty() {
            return Err(Error::invalid_config("the data directory's path is empty")
                .at("engine.data_dir")
                .remedy("name a directory on a local disk"));
        }
        check_path(&self.data_dir).map_err(|e| e.at("engine.data_dir"))?;
        if let Some(shards) = self.shards {
            within("engine.shards", shards, 1, SHARDS_MAX)?;
        }
        within("engine.ring_bytes", self.ring_bytes, 256 << 10, 1 << 30)?;
        if !self.ring_bytes.is_power_of_two() {
            let near = self.ring_bytes.next_power_of_two();
            return Err(Error::invalid_config(format!("engine.ring_bytes is {}, not a power of two", self.ring_bytes))
                .at("engine.ring_bytes")
                .remedy(format!("choose {} or {near}", near / 2)));
        }
        within("engine.reserve_percent", self.reserve_percent, 1, 90)?;
        for (key, text) in [("engine.region", &self.region), ("engine.event_source", &self.event_source)] {
            if text.is_empty() || text.len() > 128 || !text.bytes().all(|b| b.is_ascii_graphic()) {
                return Err(Error::invalid_config(format!("{key} is `{}`", text.escape_debug()))
                    .at(key)
                    .remedy("use 1 to 128 printable ASCII characters without spaces"));
            }
        }
        within("engine.event_bytes_max", self.event_bytes_max, 4 << 10, EVENT_BYTES_MAX)?;
        within_time("engine.close_timeout", self.close_timeout, Duration::ZERO, ms(3_600_000))?;
        within("engine.log.segment_bytes", clamp(self.log.segment_bytes), 1 << 20, 4 << 30)?;
        within_time("engine.log.sync_interval", self.log.sync_interval, ms(1), ms(60_000))?;
        within("engine.delivery.memory_bytes", clamp(self.delivery.memory_bytes), 1 << 20, 1 << 40)?;
        within("engine.delivery.lane_events_max", self.delivery.lane_events_max, 1, 1 << 24)?;
        within_time("engine.delivery.cursor_interval", self.delivery.cursor_interval, ms(1), ms(60_000))?;
        let dead = &self.dead_letters;
        within("engine.dead_letters.bytes_max", clamp(dead.bytes_max), 8 << 20, 1 << 40)?;
        within_time("engine.dead_letters.age_max", dead.age_max, ms(1000), Duration::from_secs(3650 * 24 * 3600))?;
        within_ratio("engine.dead_letters.warn_at", dead.warn_at, 0.1, 1.0)?;
        within("engine.dead_letters.hops_max", dead.hops_max as usize, 1, 255)?;
        let queue = &self.queue;
        if let Some(bytes) = queue.bytes_max {
            within("engine.queue.bytes_max", clamp(bytes), 1 << 20, 1 << 50)?;
        }
        within_time("engine.queue.block_timeout", queue.block_timeout, Duration::ZERO, ms(3_600_000))?;
        within_ratio("engine.queue.warn_at", queue.warn_at, 0.1, 1.0)?;
        within("engine.losses.bytes_max", clamp(self.losses.bytes_max), 1 << 20, 1 << 40)?;
        let fair = &self.fairness;
        if let Some(share) = fair.bucket_ring_share {
            within_ratio("engine.fairness.bucket_ring_share", share, 0.05, 1.0)?;
        }
        if let Some(rate) = fair.bucket_rate {
            within("engine.fairness.bucket_rate", rate as usize, 1, 1_000_000_000)?;
        }
        within("engine.fairness.bucket_burst", fair.bucket_burst as usize, 1, 1_000_000_000)?;
        if let Some(s) = &fair.tenant_separator {
            within("engine.fairness.tenant_separator (bytes)", s.len(), 1, 16).map_err(|e| {
                Error::invalid_config(e.message())
                    .at("engine.fairness.tenant_separator")
                    .remedy("write what ends the tenant's part, such as `-`")
            })?;
        }
        within_time("engine.dedup.window", self.dedup.window, Duration::ZERO, ms(24 * 3_600_000))?;
        within("engine.dedup.entries_max", self.dedup.entries_max, 1, 100_000_000)?;
        let filter = &self.filter;
        within("engine.filter.nodes_max", filter.nodes_max, 1, FILTER_NODES_MAX)?;
        within("engine.filter.literal_bytes_max", filter.literal_bytes_max, 1, FILTER_TEXT_BYTES_MAX)?;
        within("engine.filter.wildcards_max", filter.wildcards_max, 0, WILDCARD_STARS_MAX)?;
        within("engine.filter.regex_bytes_max", filter.regex_bytes_max, 1 << 10, 2 << 20)?;
        within("engine.filter.rules_per_bucket_max", filter.rules_per_bucket_max, 1, RULES_MAX)?;
        within("engine.filter.rules_of_every_bucket_max", filter.rules_of_every_bucket_max, 0, RULES_MAX)?;
        within("engine.filter.unindexed_max", filter.unindexed_max, 0, RULES_MAX)?;
        within("engine.filter.regexes_max", filter.regexes_max, 0, RULES_MAX)?;
        within("engine.filter.memory_bytes_max", filter.memory_bytes_max, 1 << 20, 1 << 40)?;
        self.network.validate()?;
        self.shared.as_ref().map_or(Ok(()), SharedConfig::validate)?;
        let retention = &self.retention;
        if let Some(age) = retention.age_max {
            within_time("engine.retention.age_max", age, ms(1000), Duration::from_secs(100 * 366 * 24 * 3600))?;
        }
        if let Some(bytes) = retention.bytes_max {
            within("engine.retention.bytes_max", clamp(bytes), 1 << 20, usize::MAX)?;
        }
        if retention.keep == Keep::Nothing && (retention.age_max.is_some() || retention.bytes_max.is_some()) {
            return Err(Error::invalid_config("engine.retention has limits and keeps nothing")
                .at("engine.retention.keep")
                .remedy("choose `rules` or `all`, or leave the limits out"));
        }
        Ok(())
    }
}

/// The number as a usize, the largest one if it has no room; only for comparing.
fn clamp(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests;
