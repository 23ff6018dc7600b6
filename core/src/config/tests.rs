use std::fs;

use super::*;
use crate::auth::{Auth, Bearer, Secret, StandardWebhooks};
use crate::event::format::{Encoding, Escape};
use crate::event::profile::{Choice, Profile};
use crate::event::{Event, EventType, FrameView, KnownType, frame};
use crate::filter::{Filter, MatchMemory, Matcher};
use crate::net::address::Trust;
use crate::net::proxy::Proxy;
use crate::net::resolve::Source as Resolution;
use crate::rule::ProxyChoice;
use crate::wire::{Compression, CompressionAlgorithm, Encryption};

const DATA: &str = "[engine]\ndata_dir = \"data\"\n";
const HOOK: &str = "[[destination]]\nname = \"hook\"\ntype = \"webhook\"\nurl = \"https://example.com/h\"\n";
const RULE: &str =
    "[[rule]]\nid = \"images\"\nbucket = \"photos\"\nevents = [\"s3:ObjectCreated:*\"]\ndestinations = [\"hook\"]\n";

fn read(text: &str) -> Result<Config> {
    Config::from_toml(text, "t.toml", Path::new("/base"))
}

/// The file is refused, with all of these words, a place and a remedy.
#[track_caller]
fn refused(text: &str, parts: &[&str]) {
    let e = read(text).unwrap_err();
    let shown = e.to_string();
    assert_eq!(e.kind(), crate::ErrorKind::InvalidConfig, "{shown}");
    assert!(e.remedy_text().is_some(), "{shown}");
    assert!(shown.starts_with("t.toml:"), "{shown}");
    for part in parts {
        assert!(shown.contains(part), "`{part}` is not in: {shown}");
    }
}

/// With one more line in the destination.
fn hook(line: &str) -> String {
    format!("{DATA}{HOOK}{line}\n{RULE}")
}

/// With one more line in the rule.
fn rule(line: &str) -> String {
    format!("{DATA}{HOOK}{RULE}{line}\n")
}

/// With one more line in `[engine]`.
fn engine(line: &str) -> String {
    format!("{DATA}{line}\n")
}

#[test]
fn a_full_file_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let ca = rcgen::CertificateParams::new(Vec::new()).unwrap().self_signed(&key).unwrap();
    fs::write(dir.path().join("ca.pem"), ca.pem()).unwrap();
    fs::write(
        dir.path().join("n.json"),
        r#"{"QueueConfigurations": [{"Id": "q", "QueueArn": "arn:aws:sqs:us-east-1:1:thumbs", "Events": ["s3:ObjectCreated:*"],
            "Filter": {"Key": {"FilterRules": [{"Name": "prefix", "Value": "my+photos/"}]}}}],
            "EventBridgeConfiguration": {}}"#,
    )
    .unwrap();
    let text = r#"
[engine]
data_dir = "/var/lib/tidewire"
shards = 2
ring_bytes = "1MiB"
reserve_percent = 25
idle = "spin"
pin_cpus = true
region = "eu-west-1"
event_source = "acme:s3"
event_bytes_max = 16384
event_types = ["acme:Scan:Clean"]
close_timeout = "30s"
[engine.log]
segment_bytes = "1GiB"
sync_interval = "2ms"
[engine.delivery]
memory_bytes = "64MiB"
lane_events_max = 100
cursor_interval = "1s"
[engine.dead_letters]
bytes_max = "16MiB"
age_max = "7d"
warn_at = 0.5
hops_max = 3
[engine.queue]
bytes_max = "1GiB"
on_full = "refuse"
block_timeout = "1s"
warn_at = 1
[engine.losses]
bytes_max = "2MiB"
[engine.fairness]
bucket_ring_share = 0.25
bucket_rate = 500
bucket_burst = 50
tenant_separator = "-"
[engine.dedup]
window = "10m"
entries_max = 5000
[engine.shared]
socket = "run/engine.sock"
mode = "0660"
uids = [33, 1000]
ring_bytes = "2MiB"
clients_max = 64
[engine.retention]
keep = "all"
age_max = "30d"
bytes_max = "2GiB"
[engine.filter]
nodes_max = 200
literal_bytes_max = 512
wildcards_max = 8
regex_bytes_max = "64KiB"
rules_per_bucket_max = 100
rules_of_every_bucket_max = 10
unindexed_max = 16
regexes_max = 20
memory_bytes_max = "16MiB"

[[destination]]
name = "hook"
type = "webhook"
url = "https://example.com/hook?x=1"
profile = "cloudevents"
headers = { X-B = "2", "X-A" = "1" }
timeout = "20s"
connect_timeout = "2s"
idle = "9s"
concurrency = 8
order = "strict"
batch = { events_max = 10, bytes_max = "1MiB", linger = "0s" }
retry = { backoff_min = "2s", backoff_max = "1m", age_max = "1d", poison_attempts = 1 }
breaker = { consecutive_failures = 9, open_min = "1s", open_max = "2s" }
tls = { ca = "ca.pem" }

[[rule]]
id = "all"
bucket = "*"
events = ["acme:Scan:Clean", "System:*"]
prefix = "a+b/"
suffix = ".jpg"
destinations = ["hook"]

[[notification]]
bucket = "photos"
file = "n.json"
overlap = "allow-all"
filter_values = "encoded"
event_bridge = "hook"

[arns]
"arn:aws:sqs:us-east-1:1:thumbs" = "hook"

[[source]]
type = "http"
listen = "127.0.0.1:8080"
max_body = "1MiB"

[[source]]
type = "directory"
path = "in"
bucket = "files"
on_start = "emit"
"#;
    let file = dir.path().join("t.toml");
    fs::write(&file, text).unwrap();
    let config = Config::from_file(&file).unwrap();
    let e = &config.engine;
    assert_eq!((e.data_dir.as_path(), e.shards), (Path::new("/var/lib/tidewire"), Some(2)));
    assert_eq!((e.ring_bytes, e.idle, e.pin_cpus, e.event_bytes_max), (1 << 20, Idle::Spin, true, 16384));
    assert_eq!(e.reserve_percent, 25);
    assert_eq!((e.region.as_str(), e.event_source.as_str()), ("eu-west-1", "acme:s3"));
    assert_eq!(e.event_types.custom(), ["acme:Scan:Clean"]);
    assert_eq!(e.close_timeout, Duration::from_secs(30));
    assert_eq!(e.log, LogConfig { segment_bytes: 1 << 30, sync_interval: Duration::from_millis(2) });
    assert_eq!((e.delivery.memory_bytes, e.delivery.lane_events_max), (64 << 20, 100));
    assert_eq!(e.delivery.cursor_interval, Duration::from_secs(1));
    let dead =
        DeadLettersConfig { bytes_max: 16 << 20, age_max: Duration::from_secs(7 * 86400), warn_at: 0.5, hops_max: 3 };
    assert_eq!(e.dead_letters, dead);
    let queue = QueueConfig {
        bytes_max: Some(1 << 30),
        on_full: OnQueueFull::Refuse,
        block_timeout: Duration::from_secs(1),
        warn_at: 1.0,
    };
    assert_eq!((e.queue, e.losses), (queue, LossesConfig { bytes_max: 2 << 20 }));
    let fairness = FairnessConfig {
        bucket_ring_share: Some(0.25),
        bucket_rate: Some(500),
        bucket_burst: 50,
        tenant_separator: Some("-".to_owned()),
    };
    assert_eq!(e.fairness, fairness);
    assert_eq!(e.dedup, DedupConfig { window: Duration::from_secs(600), entries_max: 5000 });
    let mut shared = SharedConfig::new(dir.path().join("run/engine.sock"));
    (shared.mode, shared.uids, shared.ring_bytes, shared.clients_max) = (0o660, vec![33, 1000], 2 << 20, 64);
    assert_eq!(e.shared, Some(shared));
    assert_eq!((e.retention.keep, e.retention.bytes_max), (Keep::All, Some(2 << 30)));
    assert_eq!(e.retention.age_max, Some(Duration::from_secs(30 * 86400)));
    let f = e.filter;
    assert_eq!((f.nodes_max, f.literal_bytes_max, f.wildcards_max, f.regex_bytes_max), (200, 512, 8, 64 << 10));
    assert_eq!((f.rules_per_bucket_max, f.rules_of_every_bucket_max), (100, 10));
    assert_eq!((f.unindexed_max, f.regexes_max, f.memory_bytes_max), (16, 20, 16 << 20));

    let d = &config.rules.destinations[0];
    assert_eq!((d.profile, d.concurrency), (Profile::CloudEvents, 8));
    assert_eq!(d.order, crate::rule::Order::Strict);
    assert_eq!((d.batch.events_max, d.batch.bytes_max, d.batch.linger), (10, 1 << 20, Duration::ZERO));
    assert_eq!((d.retry.backoff_min, d.retry.backoff_max), (Duration::from_secs(2), Duration::from_secs(60)));
    assert_eq!((d.retry.age_max, d.retry.poison_attempts), (Duration::from_secs(86400), 1));
    assert_eq!((d.breaker.consecutive_failures, d.breaker.open_max), (9, Duration::from_secs(2)));
    let w = d.kind.webhook().unwrap();
    // In the order of the file.
    assert_eq!(w.headers, [("X-B".to_owned(), "2".to_owned()), ("X-A".to_owned(), "1".to_owned())]);
    assert_eq!((w.timeout, w.connect_timeout), (Duration::from_secs(20), Duration::from_secs(2)));
    assert_eq!(w.tls.ca, [dir.path().join("ca.pem")]);

    let r = &config.rules.rules;
    assert_eq!(r.iter().map(|r| r.id.as_str()).collect::<Vec<_>>(), ["all", "q", "EventBridge"]);
    assert_eq!((r[0].bucket.as_deref(), &r[0].filter), (None, &Filter::new("a+b/", ".jpg")));
    assert_eq!((r[1].bucket.as_deref(), &r[1].filter), (Some("photos"), &Filter::new("my photos/", "")));
    assert!(!r[0].repeat && r[1].repeat && r[2].repeat);
    assert!(r[0].events.contains(EventType::Known(KnownType::SystemHealthOk)));

    let [Source::Http(http), Source::Directory(directory)] = &config.sources[..] else { panic!() };
    assert_eq!((http.listen.to_string().as_str(), http.max_body), ("127.0.0.1:8080", 1 << 20));
    assert_eq!(directory.path, dir.path().join("in"));
    assert_eq!((directory.bucket.as_str(), directory.on_start), ("files", OnStart::Emit));
}

#[test]
fn the_smallest_file_has_the_documented_defaults() {
    let c = read(DATA).unwrap();
    let e = &c.engine;
    assert_eq!(e.data_dir, Path::new("/base/data"));
    assert_eq!((e.shards, e.ring_bytes, e.idle, e.pin_cpus), (None, 4 << 20, Idle::Nap, false));
    assert_eq!(e.reserve_percent, 50);
    assert_eq!((e.region.as_str(), e.event_source.as_str(), e.event_bytes_max), ("us-east-1", "aws:s3", 65536));
    assert_eq!(e.close_timeout, Duration::from_secs(10));
    assert_eq!((e.log.segment_bytes, e.log.sync_interval), (64 << 20, Duration::from_millis(5)));
    assert_eq!((e.delivery.memory_bytes, e.delivery.lane_events_max), (256 << 20, 8192));
    assert_eq!(e.delivery.cursor_interval, Duration::from_millis(100));
    assert_eq!((e.dead_letters.bytes_max, e.dead_letters.age_max), (1 << 30, Duration::from_secs(30 * 86400)));
    assert_eq!((e.dedup.window, e.dedup.entries_max), (Duration::ZERO, 1_000_000));
    assert_eq!((e.retention.keep, e.retention.age_max, e.retention.bytes_max), (Keep::Nothing, None, None));
    assert_eq!(e.shared, None);
    let shared = read(&engine("shared = { socket = \"/s\" }")).unwrap().engine.shared.unwrap();
    assert_eq!((shared.socket.as_path(), shared.mode, shared.uids.len()), (Path::new("/s"), 0o600, 0));
    assert_eq!((shared.ring_bytes, shared.clients_max), (1 << 20, 256));
    let f = e.filter;
    assert_eq!((f.nodes_max, f.literal_bytes_max, f.wildcards_max, f.regex_bytes_max), (256, 1024, 16, 1 << 20));
    assert_eq!((f.rules_per_bucket_max, f.rules_of_every_bucket_max), (1_000_000, 1_000_000));
    assert_eq!((f.unindexed_max, f.regexes_max, f.memory_bytes_max), (256, 4096, 1 << 30));
    assert!(c.rules.rules.is_empty() && c.sources.is_empty());
    let c = read(&rule("")).unwrap();
    assert_eq!(*c.rules.destinations[0], crate::rule::Destination::new("hook", c.rules.destinations[0].kind.clone()));
}

#[test]
fn retention_is_by_rule_unless_told_otherwise() {
    let c = read(&engine("[engine.retention]\nage_max = \"1h\"")).unwrap();
    assert_eq!(c.engine.retention.keep, Keep::Rules);
    let c = read(&engine("retention = { keep = \"all\" }")).unwrap();
    assert_eq!((c.engine.retention.keep, c.engine.retention.age_max), (Keep::All, None));
    refused(&engine("retention = { keep = \"nothing\", age_max = \"1h\" }"), &["t.toml:3:22", "limits", "`rules`"]);
    refused(&engine("retention.age_max = \"1ms\""), &["t.toml:3:21", "engine.retention.age_max"]);
    refused(&engine("retention.bytes_max = \"1B\""), &["t.toml:3:23", "engine.retention.bytes_max"]);
    refused(&engine("retention.keep = \"some\""), &["t.toml:3:18", "unknown value `some`"]);
    let text = "[engine.retention]\nkeep = \"rules\"\n[[rule]]\nid = \"r\"\nevents = [\"*\"]\nretain = true\n";
    let c = read(&engine(text)).unwrap();
    assert!(c.rules.rules[0].retain && c.rules.rules[0].destinations.is_empty());
    refused(&rule("retain = true"), &["t.toml:12:10: rule `images`", "not kept", "[engine.retention]"]);
    refused(&rule("retain = 1"), &["t.toml:12:10: rule `images`", "boolean"]);
    assert!(!read(&rule("retain = false")).unwrap().rules.rules[0].retain);
}

#[test]
fn the_data_directory_comes_from_somewhere() {
    refused("", &["t.toml:1:1", "data_dir is missing", "[engine]"]);
    refused("[engine]\ndata_dir = \"\"\n", &["t.toml:2:12", "empty"]);
    let given =
        |text| Config::from_toml_with_data_dir(text, "t.toml", Path::new("/base"), Path::new("/given")).unwrap();
    assert_eq!(given("").engine.data_dir, Path::new("/given"));
    assert_eq!(given(DATA).engine.data_dir, Path::new("/given"));
}

#[test]
fn an_address_is_no_data_directory() {
    let connect = ["is an address, not a directory", "Client::connect", "`./unix:"];
    for (written, says) in [
        ("unix:/run/engine.sock", &connect[..]),
        ("unix:engine.sock", &connect[..]),
        ("http://127.0.0.1:80/", &["`http://127.0.0.1:80/` is an address", "name a directory"][..]),
        ("file:/var/lib/tidewire", &["is an address", "name a directory"][..]),
    ] {
        refused(&format!("[engine]\ndata_dir = \"{written}\"\n"), &[&["t.toml:2:12: engine.data_dir"], says].concat());
        let given =
            Config::from_toml_with_data_dir(DATA, "t.toml", Path::new("/base"), Path::new(written)).unwrap_err();
        assert_eq!((given.kind(), given.place()), (crate::ErrorKind::InvalidConfig, Some("data_dir")), "{given}");
        let made = EngineConfig::new(written).validate().unwrap_err();
        assert_eq!(made.place(), Some("engine.data_dir"), "{made}");
    }
    for name in ["./unix:/x", "a:b", "c:/x", "/data/unix:/x", "2026-01-01T10:00", "x y:/z"] {
        read(&format!("[engine]\ndata_dir = \"{name}\"\n")).unwrap();
        EngineConfig::new(name).validate().unwrap();
    }
}

#[test]
fn unknown_keys_are_refused_with_the_nearest() {
    for (text, place, name, near) in [
        (format!("{DATA}[[rules]]\n"), "t.toml:3:3", "rules", "rule"),
        (engine("sharts = 2"), "t.toml:3:1", "sharts", "shards"),
        (engine("log.segment_byte = 2"), "t.toml:3:5", "segment_byte", "segment_bytes"),
        (engine("[engine.delivery]\nlane_event_max = 2"), "t.toml:4:1", "lane_event_max", "lane_events_max"),
        (hook("timout = \"5s\""), "t.toml:7:1: destination `hook`", "timout", "timeout"),
        (hook("batch = { event_max = 1 }"), "t.toml:7:11: destination `hook`", "event_max", "events_max"),
        (hook("retry.backof_min = \"1s\""), "t.toml:7:7: destination `hook`", "backof_min", "backoff_min"),
        (hook("breaker = { open_mim = \"1s\" }"), "t.toml:7:13: destination `hook`", "open_mim", "open_min"),
        (hook("tls = { cafile = \"x\" }"), "t.toml:7:9: destination `hook`", "cafile", "ca"),
        (rule("prefex = \"a\""), "t.toml:12:1: rule `images`", "prefex", "prefix"),
        (
            format!("{DATA}[[notification]]\nbucket = \"b\"\nfiles = \"x\"\n"),
            "t.toml:5:1: notification `b`",
            "files",
            "file",
        ),
        (format!("{DATA}[[source]]\ntype = \"http\"\nlisen = \"x\"\n"), "t.toml:5:1: source `http`", "lisen", "listen"),
    ] {
        refused(&text, &[place, &format!("unknown key `{name}`"), &format!("did you mean `{near}`?")]);
    }
    refused(&engine("xyzzy = 1"), &["unknown key `xyzzy`", "known: `data_dir`, `shards`"]);
}

#[test]
fn the_rule_is_named_by_number_if_it_has_no_id() {
    let text = format!("{DATA}{HOOK}{RULE}[[rule]]\nevents = []\ndestinations = []\n");
    refused(&text, &["t.toml:12:1", "rule number 2", "`id` is missing"]);
    refused(&text.replace("events = []", "id = 5"), &["t.toml:13:6", "rule number 2", "integer"]);
}

#[test]
fn a_table_after_a_rule_is_not_the_rule() {
    for text in ["[engine.log]\nsegment_byte = 1\n", "[engine.log]\nsegment_bytes = 1.5\n", "[arns]\nx = 1\n"] {
        let e = read(&(rule("") + text)).unwrap_err().to_string();
        assert!(e.starts_with("t.toml:1") && !e.contains("images"), "{e}");
    }
    refused(&(rule("") + "[engin]\n"), &["t.toml:13:2: unknown key `engin`"]);
}

#[test]
fn wrong_kinds_of_values_are_refused() {
    refused(&engine("shards = \"two\""), &["t.toml:3:10", "this is a string", "u32"]);
    refused(&engine("shards = -1"), &["t.toml:3:10"]);
    refused(&engine("pin_cpus = 1"), &["t.toml:3:12", "boolean"]);
    refused(&engine("region = 1"), &["t.toml:3:10", "string"]);
    refused(&engine("event_types = \"acme:A\""), &["t.toml:3:15", "sequence"]);
    refused(&rule("prefix = 3"), &["t.toml:12:10", "rule `images`"]);
    refused(&format!("{DATA}[rule]\nid = \"x\"\n"), &["t.toml:3:"]);
    refused(
        &format!("{DATA}[[source]]\ntype = \"directory\"\non_start = \"emmit\"\n"),
        &["t.toml:5:12", "did you mean `emit`?"],
    );
    refused(&engine("idle = \"spinn\""), &["t.toml:3:8", "unknown value `spinn`", "did you mean `spin`?"]);
    refused(&engine("idle = \"x\""), &["known: `park`, `nap`, `spin`"]);
}

#[test]
fn bad_units_are_refused_with_the_forms() {
    for bad in ["\"4MB\"", "\"4 MiB\"", "\"\"", "\"-1B\"", "-1", "\"1.5MiB\"", "\"99999999999GiB\"", "1.5", "true"] {
        refused(&engine(&format!("ring_bytes = {bad}")), &["t.toml:3:14", "4MiB"]);
    }
    for bad in ["\"5\"", "5", "\"5 s\"", "\"1h30m\"", "\"-5s\"", "5.0"] {
        refused(&engine(&format!("close_timeout = {bad}")), &["t.toml:3:17", "5ms"]);
    }
    refused(&hook("batch.linger = \"5msec\""), &["t.toml:7:16", "destination `hook`", "`5msec`", "\"72h\""]);
}

#[test]
fn broken_toml_is_refused_with_its_place() {
    refused("[engine\n", &["t.toml:1:8"]);
    refused("[engine]\ndata_dir = \"data\n", &["t.toml:2:"]);
    refused(&engine("data_dir = \"again\""), &["t.toml:3:1", "duplicate key"]);
    refused("[engine]\né = 1\n", &["t.toml:2:1"]);
}

#[test]
fn limits_of_the_engine_are_told_at_their_key() {
    for (line, parts) in [
        ("ring_bytes = \"3MiB\"", ["t.toml:3:14", "not a power of two", "choose 2097152 or 4194304"]),
        ("ring_bytes = \"128KiB\"", ["t.toml:3:14", "131072", "262144"]),
        ("reserve_percent = 0", ["t.toml:3:19", "engine.reserve_percent is 0", "1 to 90"]),
        ("reserve_percent = 1000", ["t.toml:3:19", "engine.reserve_percent is 1000", "1 to 90"]),
        ("shards = 0", ["t.toml:3:10", "engine.shards is 0", "1 to 256"]),
        ("event_bytes_max = \"65KiB\"", ["t.toml:3:19", "66560", "65536"]),
        ("event_bytes_max = 0", ["t.toml:3:19", "is 0", "4096"]),
        ("region = \"\"", ["t.toml:3:10", "engine.region", "printable"]),
        ("event_source = \"a b\"", ["t.toml:3:16", "engine.event_source", "printable"]),
        ("close_timeout = \"2h\"", ["t.toml:3:17", "engine.close_timeout", "3600s"]),
        ("log.segment_bytes = \"1KiB\"", ["t.toml:3:21", "engine.log.segment_bytes", "1048576"]),
        ("log.sync_interval = \"0ms\"", ["t.toml:3:21", "engine.log.sync_interval", "1ms"]),
        ("delivery.memory_bytes = 0", ["t.toml:3:25", "engine.delivery.memory_bytes", "1048576"]),
        ("delivery.lane_events_max = 0", ["t.toml:3:28", "lane_events_max is 0", "1 to"]),
        ("delivery.cursor_interval = \"0s\"", ["t.toml:3:28", "cursor_interval", "1ms"]),
        ("dead_letters.bytes_max = \"1MiB\"", ["t.toml:3:26", "engine.dead_letters.bytes_max", "8388608"]),
        ("dead_letters.age_max = \"0s\"", ["t.toml:3:24", "engine.dead_letters.age_max", "1s"]),
        ("dead_letters.warn_at = 1.5", ["t.toml:3:24", "engine.dead_letters.warn_at", "0.1 to 1"]),
        ("dead_letters.hops_max = 0", ["t.toml:3:25", "engine.dead_letters.hops_max", "1 to 255"]),
        ("queue.bytes_max = \"1KiB\"", ["t.toml:3:19", "engine.queue.bytes_max", "1048576"]),
        ("queue.on_full = \"drop\"", ["t.toml:3:17", "unknown policy `drop`", "drop_newest"]),
        ("queue.warn_at = 0", ["t.toml:3:17", "engine.queue.warn_at", "0.1 to 1"]),
        ("losses.bytes_max = 0", ["t.toml:3:20", "engine.losses.bytes_max", "1048576"]),
        ("fairness.bucket_ring_share = 2.0", ["t.toml:3:30", "bucket_ring_share", "0.05 to 1"]),
        ("fairness.bucket_rate = 0", ["t.toml:3:24", "bucket_rate is 0", "1 to"]),
        ("fairness.bucket_burst = 0", ["t.toml:3:25", "bucket_burst is 0", "1 to"]),
        ("fairness.tenant_separator = \"\"", ["t.toml:3:29", "tenant_separator", "such as `-`"]),
        ("dedup.window = \"25h\"", ["t.toml:3:16", "engine.dedup.window", "86400s"]),
        ("dedup.entries_max = 0", ["t.toml:3:21", "entries_max is 0", "1 to"]),
        ("shared.mode = \"0600\"", ["t.toml:3", "socket", "missing"]),
        ("shared = { socket = \"\" }", ["t.toml:3:21", "0 bytes", "107"]),
        ("shared = { socket = \"/s\", mode = \"0999\" }", ["t.toml:3:34", "no mode of a file", "octal"]),
        ("shared = { socket = \"/s\", mode = \"7000\" }", ["t.toml:3:34", "engine.shared.mode is 7000", "octal"]),
        ("shared = { socket = \"/s\", ring_bytes = \"3MiB\" }", ["t.toml:3:40", "not a power of two", "2097152 or"]),
        ("shared = { socket = \"/s\", ring_bytes = \"1KiB\" }", ["t.toml:3:40", "engine.shared.ring_bytes", "262144"]),
        ("shared = { socket = \"/s\", clients_max = 0 }", ["t.toml:3:41", "clients_max is 0", "1 to 4096"]),
        ("filter.nodes_max = 257", ["t.toml:3:20", "engine.filter.nodes_max is 257", "1 to 256"]),
        ("filter.literal_bytes_max = \"2KiB\"", ["t.toml:3:28", "engine.filter.literal_bytes_max", "1024"]),
        ("filter.wildcards_max = 17", ["t.toml:3:24", "engine.filter.wildcards_max is 17", "0 to 16"]),
        ("filter.regex_bytes_max = 1000", ["t.toml:3:26", "engine.filter.regex_bytes_max", "1024"]),
        ("filter.rules_per_bucket_max = 0", ["t.toml:3:31", "rules_per_bucket_max is 0", "1 to 1000000"]),
        ("filter.rules_of_every_bucket_max = 1000001", ["t.toml:3:36", "is 1000001", "0 to 1000000"]),
        ("filter.unindexed_max = 1000001", ["t.toml:3:24", "engine.filter.unindexed_max", "0 to 1000000"]),
        ("filter.regexes_max = 1000001", ["t.toml:3:22", "engine.filter.regexes_max", "0 to 1000000"]),
        ("filter.memory_bytes_max = \"1KiB\"", ["t.toml:3:27", "engine.filter.memory_bytes_max", "1048576"]),
        ("event_types = [\"acme:A\",\n\"s3:Mine\"]", ["t.toml:4:1", "`s3:Mine`", "family:Name"]),
        ("event_types = [\"System:Mine:x\"]", ["t.toml:3:16", "`System:Mine:x`", "family:Name"]),
    ] {
        refused(&engine(line), &parts);
    }
}

#[test]
fn destinations_are_checked_at_their_keys() {
    for (line, parts) in [
        ("queue.events_max = 0", ["t.toml:7:20", "queue.events_max", "1 to"]),
        ("queue.bytes_max = 7", ["t.toml:7:19", "queue.bytes_max", "4096 to"]),
        ("queue.age_max = \"0s\"", ["t.toml:7:17", "queue.age_max", "1ms"]),
        ("queue.block_timeout = \"2h\"", ["t.toml:7:23", "queue.block_timeout", "3600s"]),
        ("queue.warn_at = 0.01", ["t.toml:7:17", "queue.warn_at", "0.1 to 1"]),
        ("queue.on_full = \"block!\"", ["t.toml:7:17", "destination `hook`", "did you mean `block`?"]),
    ] {
        refused(&hook(line), &parts);
    }
    refused(&rule("priority = \"urgent\""), &["t.toml:12:12", "unknown value `urgent`", "high"]);
    refused(&hook("retry.attempts_max = 0"), &["t.toml:7:22: destination `hook`: retry.attempts_max", "1 to"]);
    refused(&hook("dead_letter_to = \"hook\""), &["t.toml:7:18: destination `hook`: dead_letter_to", "hook -> hook"]);
    refused(&hook("concurrency = 0"), &["t.toml:7:15: destination `hook`: concurrency", "1 to 1024"]);
    refused(&hook("batch = { events_max = 0 }"), &["t.toml:7:24", "destination `hook`", "batch.events_max is 0"]);
    refused(
        &hook("retry = { backoff_min = \"2h\" }"),
        &["t.toml:7:25", "destination `hook`", "retry.backoff_min (7200s) is more than retry.backoff_max (3600s)"],
    );
    refused(&hook("order = \"strikt\""), &["t.toml:7:9", "`strikt`", "did you mean `strict`?"]);
    refused(&hook("breaker.consecutive_failures = 0"), &["t.toml:7:32", "destination `hook`"]);
    refused(&hook("profile = \"awss\""), &["t.toml:7:11", "destination `hook`", "awss"]);
    refused(&hook("tls.ca = \"none.pem\""), &["t.toml:7:10", "destination `hook`", "/base/none.pem"]);
    refused(&hook("").replace("\"webhook\"", "\"webhok\""), &["t.toml:5:8", "did you mean `webhook`?"]);
    refused(
        &hook("").replace("url = \"https://example.com/h\"", ""),
        &["t.toml:3:1", "destination `hook`", "`url` is missing"],
    );
    refused(&hook("").replace("name = \"hook\"", "name = \"a b\""), &["t.toml:4:8", "cannot name a destination"]);
    refused(&format!("{DATA}{HOOK}{HOOK}"), &["t.toml:7:1: destination `hook`", "same name"]);
}

#[test]
fn bad_urls_and_headers_are_refused_without_showing_secrets() {
    let url = |url: &str| hook("").replace("https://example.com/h", url);
    refused(&url("ftp://example.com"), &["t.toml:6:7: destination `hook`: url", "https://"]);
    refused(&url("https://"), &["t.toml:6:7", "malformed"]);
    let text = url("https://u:hunter2@example.com");
    refused(&text, &["t.toml:6:7", "Authorization"]);
    assert!(!read(&text).unwrap_err().to_string().contains("hunter2"));
    refused(&hook("headers = { \"X Y\" = \"1\" }"), &["t.toml:7:13: destination `hook`: headers", "header name"]);
    refused(&hook("headers.Host = \"x\""), &["t.toml:7:9", "`Host` cannot be set"]);
    let text = hook("headers = { X-Token = \"hunter2\\r\\nX-Evil: 1\" }");
    refused(&text, &["t.toml:7:13", "X-Token"]);
    assert!(!read(&text).unwrap_err().to_string().contains("hunter2"));
    // The reader's own words would show the value.
    let text = hook("headers = \"Bearer hunter2\"");
    refused(&text, &["t.toml:7:11", "this is a string"]);
    assert!(!read(&text).unwrap_err().to_string().contains("hunter2"));
}

#[test]
fn rules_are_checked_at_their_values() {
    let change = |from: &str, to: &str| rule("").replace(from, to);
    refused(
        &change("[\"hook\"]", "[\"hok\"]"),
        &["t.toml:11:17: rule `images`", "unknown destination `hok`", "did you mean `hook`?"],
    );
    refused(
        &change("[\"s3:ObjectCreated:*\"]", "[\"s3:ObjectRemoved:*\",\n\"s3:ObjectCreatd:Put\"]"),
        &["t.toml:11:1: rule `images`", "s3:ObjectCreatd:Put", "did you mean `s3:ObjectCreated:Put`?"],
    );
    refused(&change("s3:ObjectCreated:*", "acme:Scan:Clean"), &["t.toml:10:11", "rule `images`", "event_types"]);
    refused(
        &change("\"s3:ObjectCreated:*\"", "\"s3:*\", \"System:Health:Failed\""),
        &["t.toml:10:19: rule `images`", "`System:Health:Failed`", "`aws`", "destination `hook`"],
    );
    refused(&change("[\"s3:ObjectCreated:*\"]", "[]"), &["t.toml:7:1: rule `images`", "no event types"]);
    refused(&change("[\"hook\"]", "[]"), &["t.toml:7:1: rule `images`", "no destinations"]);
    refused(&change("destinations = [\"hook\"]", ""), &["t.toml:7:1: rule `images`", "`destinations` is missing"]);
    refused(&change("\"photos\"", "\"logs-*\""), &["t.toml:7:1: rule `images`", "`logs-*`"]);
    refused(&rule(&format!("suffix = \"{}\"", "a".repeat(1025))), &["t.toml:12:10: rule `images`", "1025"]);
    refused(&(rule("") + RULE), &["t.toml:13:1: rule `images`", "same id"]);
}

#[test]
fn values_of_rules_are_taken_as_they_are() {
    // As the matcher sees them: nothing is decoded, nothing is a wildcard.
    for prefix in ["my photos/", "a+b/", "100%/", "what?/", "a*b/", "schemaVersion=1/", "é/", "a\u{1}b"] {
        let c = read(&rule(&format!("prefix = {}", toml::Value::from(prefix)))).unwrap();
        assert_eq!(c.rules.rules[0].filter, Filter::new(prefix, ""));
        let m = Matcher::compile(&c.rules.rules).unwrap();
        let found = |key: String| {
            let frame = frame::encode_to_vec(&Event::new(EventType::default(), "photos", key.as_bytes()), 1);
            let mut out = Vec::new();
            m.matches(&FrameView::parse(&frame).unwrap(), &mut MatchMemory::default(), &mut out);
            out
        };
        assert_eq!(found(format!("{prefix}x")), [0], "{prefix}");
        let other = prefix.replace(' ', "+").replace(['*', '?'], "X").replace('+', "%2B");
        assert_eq!(found(format!("{other}x")).is_empty(), other != prefix, "{prefix}");
    }
}

#[test]
fn a_bucket_left_out_or_a_star_is_every_bucket() {
    for text in [rule("").replace("bucket = \"photos\"\n", ""), rule("").replace("photos", "*")] {
        assert_eq!(read(&text).unwrap().rules.rules[0].bucket, None);
    }
}

#[test]
fn aliases_lead_to_destinations() {
    refused(&format!("{DATA}{HOOK}[arns]\n\"arn:x\" = \"hok\"\n"), &["t.toml:8:11", "arn:x", "did you mean `hook`?"]);
}

/// The error of a document beside the configuration.
fn document_error(name: &str, document: &str, more: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join(name), document).unwrap();
    let text = format!("{DATA}{HOOK}[[notification]]\nbucket = \"photos\"\nfile = \"{name}\"\n{more}\n");
    let e = Config::from_toml(&text, "t.toml", dir.path()).unwrap_err();
    assert!(e.remedy_text().is_some(), "{e}");
    e.to_string().replace(&format!("{}/", dir.path().display()), "")
}

#[test]
fn documents_are_told_with_their_own_place() {
    let xml = "<NotificationConfiguration>\n <QueueConfiguration>\n  <Id>q</Id><Queue>ARN</Queue>\n  <Event>EVENT</Event>\n </QueueConfiguration>\n</NotificationConfiguration>";
    let with = |arn: &str, event: &str| xml.replace("ARN", arn).replace("EVENT", event);
    let ours = "arn:tidewire:events:::hook";
    for (name, document, more, parts) in [
        (
            "n.xml",
            with("arn:aws:sqs:x:1:q", "s3:ObjectCreated:*"),
            "",
            &["n.xml:3:20", "bucket `photos`, configuration `q`", "arn:aws:sqs:x:1:q"][..],
        ),
        ("n.xml", with(ours, "s3:ObjectCreatd:*"), "", &["n.xml:4:10", "configuration `q`"]),
        ("n.xml", with(ours, "System:Health:Ok"), "", &["n.xml:4:10: rule `q`", "profile `aws`"]),
        ("n.xml", "<NotificationConfiguration>\n<a>".to_owned(), "", &["n.xml:2:1", "not closed"]),
        ("n.xml", "{}".to_owned(), "", &["n.xml:1:", "outside"]),
        ("n.json", "{\n \"Queue\": []}".to_owned(), "", &["n.json:2:2", "unknown field `Queue`"]),
        (
            "n.json",
            "{}".to_owned(),
            "overlap = \"strict\"",
            &["t.toml:10:11: notification `photos`", "did you mean `strict-aws`?"],
        ),
        ("n.json", "{}".to_owned(), "filter_values = \"url\"", &["t.toml:10:17", "known: `raw`, `encoded`"]),
        ("n.json", "{}".to_owned(), "event_bridge = \"hok\"", &["t.toml:10:16", "did you mean `hook`?"]),
        (
            "n.json",
            "{}".to_owned(),
            "[[notification]]\nbucket = \"photos\"\nfile = \"n.json\"",
            &["t.toml:11:10", "another notification"],
        ),
        ("n.txt", "{}".to_owned(), "", &["t.toml:9:8", ".xml"]),
    ] {
        let shown = document_error(name, &document, more);
        for part in parts {
            assert!(shown.contains(part), "`{part}` is not in: {shown}");
        }
    }
}

#[test]
fn one_id_in_a_rule_and_in_a_document_of_its_bucket_is_double() {
    let document = "<NotificationConfiguration>\n<QueueConfiguration><Id>images</Id><Queue>arn:tidewire:events:::hook</Queue><Event>s3:ObjectCreated:*</Event></QueueConfiguration></NotificationConfiguration>";
    let shown = document_error("n.xml", document, RULE);
    assert!(shown.starts_with("n.xml:2:1: rule `images`") && shown.contains("same id"), "{shown}");
}

#[test]
fn files_that_cannot_be_read_are_named() {
    let e = Config::from_file(Path::new("/nowhere/t.toml")).unwrap_err();
    assert_eq!(e.kind(), crate::ErrorKind::Io);
    assert!(e.to_string().contains("/nowhere/t.toml") && e.remedy_text().is_some(), "{e}");
    let e = read(&format!("{DATA}[[notification]]\nbucket = \"b\"\nfile = \"none.xml\"\n")).unwrap_err();
    assert!(e.to_string().starts_with("t.toml:5:8: reading /base/none.xml"), "{e}");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.toml");
    fs::write(&path, b"[engine]\ndata_dir = \"\xff\"\n").unwrap();
    assert!(Config::from_file(&path).unwrap_err().to_string().contains("byte 21 is not UTF-8"));
}

#[test]
fn sources_listen_on_this_machine_only() {
    let http = |line: &str| format!("{DATA}[[source]]\ntype = \"http\"\n{line}\n");
    for good in ["127.0.0.1:0", "[::1]:8080", "127.1.2.3:80"] {
        read(&http(&format!("listen = \"{good}\""))).unwrap();
    }
    for bad in ["0.0.0.0:8080", "10.0.0.1:80", "[::]:80", "192.0.2.1:80", "[::ffff:127.0.0.1]:80"] {
        refused(
            &http(&format!("listen = \"{bad}\"")),
            &["t.toml:5:10: source `http`: listen", "other machines", "127.0.0.1"],
        );
    }
    for bad in ["localhost:8080", "8080", ":8080", "127.0.0.1", "127.0.0.1:99999", ""] {
        refused(&http(&format!("listen = \"{bad}\"")), &["t.toml:5:10", "not an address"]);
    }
    refused(&http("listen = \"127.0.0.1:1\"\nmax_body = 0"), &["t.toml:6:12", "max_body is 0"]);
    refused(&http(""), &["t.toml:3:1: source `http`", "`listen` is missing"]);
}

#[test]
fn sources_have_the_keys_of_their_type() {
    let source = |lines: &str| format!("{DATA}[[source]]\n{lines}\n");
    refused(&source("type = \"http\"\nlisten = \"127.0.0.1:1\"\npath = \"x\""), &["t.toml:6:8", "`path` is not for"]);
    refused(&source("type = \"directory\"\nlisten = \"127.0.0.1:1\""), &["t.toml:5:10", "`listen` is not for"]);
    refused(&source("type = \"directory\"\npath = \"x\""), &["t.toml:3:1: source `directory`", "`bucket` is missing"]);
    refused(&source("type = \"directory\"\nbucket = \"x\""), &["`path` is missing"]);
    refused(&source("type = \"directory\"\npath = \"\"\nbucket = \"x\""), &["t.toml:5:8", "empty"]);
    refused(&source("type = \"directory\"\npath = \"x\"\nbucket = \"a/b\""), &["t.toml:6:10", "`a/b`"]);
    refused(&source("type = \"kafka\""), &["t.toml:4:8", "unknown type of source `kafka`", "`http`"]);
    let twice = "type = \"directory\"\npath = \"x\"\nbucket = \"b\"\n";
    refused(&source(&format!("{twice}[[source]]\n{twice}")), &["t.toml:7:1", "same address or directory"]);
}

#[test]
fn rules_beyond_the_limits_of_filters_are_told_at_their_filter() {
    let limited = |limits: &str, more: &str| {
        let text = format!("{DATA}filter = {{ {limits} }}\n{HOOK}{RULE}{more}\n");
        let e = read(&text).unwrap_err();
        let parts: Vec<&str> = limits.split(" = ").take(1).collect();
        refused(&text, &parts);
        assert!(e.remedy_text().is_some_and(|r| r.contains("raise the limit")), "{e}");
        e.to_string()
    };
    for (limits, more, start, found) in [
        ("nodes_max = 2", "suffix = [\"a\", \"b\"]", "t.toml:13:10: rule `images`", "3 conditions"),
        ("literal_bytes_max = 3", "prefix = \"abcd\"", "t.toml:13:10: rule `images`: key", "has 4 bytes"),
        ("wildcards_max = 0", "wildcard = \"a*\"", "t.toml:13:12: rule `images`: key", "has 1 stars"),
        ("regexes_max = 0", "prefix = \"a\"\nregex = \"b\"", "t.toml:13:10: rule `images`", "have 1 regular"),
        ("unindexed_max = 0", "filter.size = 5", "t.toml:13:", "bucket `photos` have 1 tests"),
    ] {
        let e = limited(limits, more);
        assert!(e.starts_with(start) && e.contains(found), "{e}");
    }
    let second = RULE.replace("images", "more");
    let e = limited("rules_per_bucket_max = 1", &second);
    assert!(
        e.starts_with("t.toml:13:") && e.contains("rule `more`") && e.contains("bucket `photos` have 2 rules"),
        "{e}"
    );
    let every = RULE.replace("bucket = \"photos\"\n", "");
    let e = limited("rules_of_every_bucket_max = 0", &every.replace("images", "every"));
    assert!(e.contains("rule `every`: the rules of every bucket have 1 rules"), "{e}");
    // Rules by themselves are read with the limits of their file.
    let text = format!("engine.filter.regexes_max = 0\n{RULE}regex = \"a\"\n");
    let e = Config::rules_from_toml(&text, "r.toml", Path::new("")).unwrap_err().to_string();
    assert!(e.starts_with("r.toml:7:9: rule `images`") && e.contains("regexes_max (0)"), "{e}");
    assert_eq!(Config::rules_from_toml(&text.replace("= 0", "= 1"), "r.toml", Path::new("")).unwrap().len(), 1);
}

#[test]
fn a_configuration_from_code_is_checked_too() {
    let mut e = EngineConfig::new("/data");
    e.validate().unwrap();
    e.ring_bytes = 100;
    assert_eq!(e.validate().unwrap_err().place(), Some("engine.ring_bytes"));
    let mut e = EngineConfig::new("/data");
    e.filter.wildcards_max = 17;
    assert_eq!(e.validate().unwrap_err().place(), Some("engine.filter.wildcards_max"));
}

#[test]
fn a_byte_order_mark_is_skipped() {
    read(&format!("\u{feff}{DATA}")).unwrap();
}

#[test]
#[cfg(feature = "cel")]
fn everything_that_a_rule_says_of_its_events_must_hold() {
    let text = rule(
        r#"
prefix = ["in/", "up/"]
suffix = ".jpg"
exact = ["in/a.jpg", "up/b.jpg"]
wildcard = "*/?.jpg"
contains = "/"
regex = '^(in|up)/'
filter = { size.min = "1KiB", time = { from = 2024-01-01T00:00:00Z }, not.use = "raw" }
pattern = '''{"detail": {"requester": ["alice"], "reason": [{"exists": true}]}, "region": ["eu-west-1"]}'''
cloudevents = [{ prefix.type = "com.amazonaws.s3." }, { not.exact.source = "aws:s3.eu-west-1.other" }]
cel = "event.tags.env == 'prod' || event.tags['env'] == 'test'"
"#,
    )
    .replace(DATA, "[engine]\ndata_dir = \"data\"\nregion = \"eu-west-1\"\n");
    let text = format!(
        "{text}[[filter]]\nname = \"raw\"\nany = [{{ use = \"draft\" }}, {{ suffix = \".raw\" }}]\n[[filter]]\nname = \"draft\"\ntags.draft.exists = true\n"
    );
    let c = read(&text).unwrap();
    let filter = &c.rules.rules[0].filter;
    let event = |change: &dyn Fn(&mut Event<'_>)| {
        let mut e = Event::new(KnownType::ObjectCreatedPut.into(), "photos", b"in/a.jpg");
        (e.size, e.time_ns, e.requester, e.tags) =
            (Some(5000), 1_700_000_000_000_000_000 + (1 << 56), "alice", &[("env", "prod")]);
        change(&mut e);
        let bytes = frame::encode_to_vec(&e, 1);
        filter.matches_frame(FrameView::parse(&bytes).unwrap())
    };
    assert!(event(&|_| {}));
    assert!(event(&|e| e.key = b"up/b.jpg") && event(&|e| e.tags = &[("env", "test")]));
    assert!(!event(&|e| e.key = b"in/b.jpg") && !event(&|e| e.key = b"up/a.jpg"));
    assert!(!event(&|e| e.size = Some(1023)) && !event(&|e| e.time_ns = 5) && !event(&|e| e.requester = "bob"));
    assert!(!event(&|e| e.tags = &[("env", "dev")]) && !event(&|e| e.tags = &[("env", "prod"), ("draft", "x")]));
    assert!(!event(&|e| e.bucket = "other") && !event(&|e| e.region = "us-east-1"));
    assert!(!event(&|e| e.event_type = KnownType::ObjectTaggingPut.into()), "it has no reason");
    let data = rule("pattern = '{\"a\": [1]}'\npattern_of = \"data\"");
    assert_eq!(read(&data).unwrap().rules.rules[0].filter.to_json().to_string(), r#"{"data":{"a":1}}"#);
}

#[test]
fn a_wrong_filter_is_told_at_its_line_and_column() {
    let label = "rule `images`";
    refused(&rule("exact = 5"), &["t.toml:12:9", label, "exact", "a number"]);
    refused(&rule("wildcard = [\"a\", \"b\\\\c\"]"), &["t.toml:12:18", label, "wildcard[1]", "backslash"]);
    refused(&rule("regex = '('"), &["t.toml:12:9", label, "no regular expression"]);
    refused(&rule("filter = { size = { min = \"5MB\" } }"), &["t.toml:12:27", label, "filter.size.min", "5MB"]);
    refused(
        &rule("[rule.filter]\nprefix = \"a\"\nany = [\n  { sufix = \"b\" },\n]"),
        &["t.toml:15:", label, "filter.any[0].sufix", "did you mean `suffix`?"],
    );
    refused(&rule("filter = { size = inf }"), &["t.toml:12:10", label, "filter", "no number"]);
    refused(&rule("filter.use = \"x\""), &["t.toml:12:14", label, "filter.use", "unknown filter `x`"]);
    refused(&rule("pattern = '{'"), &["t.toml:12:11", label, "pattern: line 1, column 1", "no JSON"]);
    refused(&rule("pattern = '{\"detial\": [\"a\"]}'"), &["t.toml:12:11", label, "pattern.detial"]);
    refused(&rule("pattern_of = \"data\""), &["t.toml:12:14", label, "add `pattern`"]);
    refused(&rule("pattern_of = \"dat\""), &["t.toml:12:14", label, "did you mean `data`?"]);
    refused(
        &rule("cloudevents = [{ exact = { tpye = \"a\" } }]"),
        &["t.toml:12:35", label, "cloudevents[0].exact.tpye"],
    );
    refused(&rule("cel = \"event.key == \""), &["t.toml:12:7", label, "cel"]);
    #[cfg(feature = "cel")]
    refused(&rule("cel = \"event.key == \""), &["t.toml:12:7", label, "cel, column 14"]);
    let filter = |text: &str| format!("{}[[filter]]\n{text}\n", rule(""));
    refused(&filter("name = \"a\"\nsize = {max = \"x\"}"), &["t.toml:15:15", "filter `a`", "size.max"]);
    refused(&filter("size = 5"), &["t.toml:13:", "filter", "`name` is missing"]);
    refused(&filter("name = 5"), &["t.toml:13:", "no string"]);
    refused(
        &filter("name = \"a\"\nuse = \"b\"\n[[filter]]\nname = \"b\"\nnot.use = \"a\""),
        &["t.toml:18:11", "filter `b`", "not.use", "circle"],
    );
    refused(&filter("name = \"a\"\n[[filter]]\nname = \"a\""), &["t.toml:15:", "another filter has the name `a`"]);
}

fn auth_of(text: &str, dir: &Path) -> Vec<Auth> {
    let config = Config::from_toml(text, "t.toml", dir).unwrap();
    let w = config.rules.destinations[0].kind.webhook().unwrap();
    w.auth.clone()
}

#[test]
fn credentials_of_a_destination() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("s"), "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n").unwrap();
    let table = "[destination.auth]\nscheme = \"standard-webhooks\"\n\
        secret = [{ file = \"s\" }, { text = \"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\", until = 2030-01-31T12:00:00Z }]";
    let old = Secret::text("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").valid_until(1_896_091_200);
    let both = Auth::StandardWebhooks(StandardWebhooks::new(vec![Secret::file(dir.path().join("s")), old]));
    assert_eq!(auth_of(&hook(table), dir.path()), std::slice::from_ref(&both));
    let list = "[[destination.auth]]\nscheme = \"bearer\"\nsecret = { env = \"PATH\" }\n[[destination.auth]]\n\
        scheme = \"standard-webhooks\"\nsecret = { file = \"s\" }\n";
    let bearer = Auth::Bearer(Bearer::new(Secret::env("PATH")));
    assert_eq!(auth_of(&hook(list), dir.path())[..1], [bearer]);
    assert_eq!(auth_of(&hook(""), dir.path()), []);
}

#[test]
fn credentials_that_cannot_be_used_are_refused_with_their_line() {
    let line = 7;
    let at = |line: usize, column: usize| format!("t.toml:{line}:{column}: destination `hook`: auth");
    for (text, place, parts) in [
        ("auth = { scheme = \"bearer\", secert = \"x\" }", at(line, 8), &["`secret` is missing"][..]),
        ("auth = { scheme = \"baerer\", secret = \"x\" }", at(line, 19), &["did you mean `bearer`?"]),
        ("auth = { scheme = \"bearer\", secret = \"x\", tokn = 1 }", at(line, 50), &["unknown key `tokn`"]),
        (
            "auth = [{ scheme = \"github\", secret = \"x\" },\n{ scheme = \"bearer\", secret = { env = \"NO_SUCH_VAR\" } }]",
            at(line + 1, 31),
            &["no environment variable NO_SUCH_VAR", "set NO_SUCH_VAR"],
        ),
        (
            "auth.scheme = \"bearer\"\nauth.secret.file = \"no-such-file\"",
            at(line + 1, 6),
            &["reading the secret /base/no-such-file: No such file", "check the path"],
        ),
        (
            "auth.scheme = \"standard-webhooks\"\nauth.secret = [\"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\",\n\"MfKQ\"]",
            at(line + 2, 1),
            &["secret[1]", "neither whsec_ nor whsk_"],
        ),
        ("auth = \"bearer x\"", at(line, 8), &["a scheme is no table"]),
        (
            "headers = { authorization = \"x\" }\nauth = { scheme = \"bearer\", secret = \"x\" }",
            at(line + 1, 8),
            &["sets the header Authorization, which is given too"],
        ),
    ] {
        let text = hook(text);
        refused(&text, parts);
        let shown = read(&text).unwrap_err().to_string();
        assert!(shown.starts_with(&place), "{place}: {shown}");
    }
}

#[test]
fn the_network_of_the_engine_and_of_destinations() {
    let text = format!(
        "{DATA}{}{HOOK}{}{RULE}",
        r#"
[engine.network]
resolver = "dns"
dns_servers = ["10.0.0.2", "10.0.0.3:5353", "2001:db8::2", "[2001:db8::3]:53"]
trust = "tenant"
addresses = { allow = ["10.1.0.0/16"], deny = ["10.1.2.0/24", "2001:db8::1"] }
tenant_https_only = false
tenant_ports = ["443", "8000-9000"]
[engine.network.proxy]
url = "http://proxy.example:3128"
user = "u"
password = "hunter2"
no_proxy = [".internal.example", "10.0.0.0/8", "*"]
"#,
        r#"
trust = "operator"
addresses = { allow = ["127.0.0.1"], deny = [] }
proxy = { url = "http://[::1]:8080" }
pool = { lifetime = "5m", requests_max = 7, user_timeout = "3s" }
"#
    );
    let c = read(&text).unwrap();
    let n = &c.engine.network;
    let Resolution::Dns(servers) = &n.resolver else { panic!("{n:?}") };
    let shown: Vec<String> = servers.iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["10.0.0.2:53", "10.0.0.3:5353", "[2001:db8::2]:53", "[2001:db8::3]:53"]);
    assert_eq!((n.trust, n.tenant.https_only, n.tenant.ports.len()), (Trust::Tenant, false, 2));
    assert_eq!((n.addresses.allow.len(), n.addresses.deny.len(), n.no_proxy.len()), (1, 2, 3));
    assert_eq!(n.proxy.as_ref().map(Proxy::url).as_deref(), Some("http://proxy.example:3128"));
    assert!(!format!("{c:?}").contains("hunter2"));
    let w = c.rules.destinations[0].kind.webhook().unwrap();
    assert_eq!((w.trust, w.pool.requests_max), (Some(Trust::Operator), 7));
    assert_eq!((w.pool.lifetime, w.pool.user_timeout), (Duration::from_secs(300), Duration::from_secs(3)));
    assert_eq!(n.proxy_of(w).map(Proxy::url).as_deref(), Some("http://[::1]:8080"));
    let policy = n.policy(w);
    assert_eq!((policy.trust, policy.allow.len(), policy.deny.len()), (Trust::Operator, 2, 2));

    let c = read(&engine("network.resolver = \"system\"")).unwrap();
    assert_eq!(c.engine.network.resolver, Resolution::System);
    assert_eq!(read(DATA).unwrap().engine.network, NetworkConfig::default());
    let c = read(&engine("network.sockets = \"runtime\"")).unwrap();
    assert_eq!((c.engine.network.sockets, NetworkConfig::default().sockets), (Sockets::Runtime, Sockets::Ring));
    let e = read(&engine("network.sockets = \"kernel\"")).unwrap_err().to_string();
    assert!(e.contains("ring") && e.contains("runtime"), "{e}");
    let c = read(&hook("proxy = { direct = true }")).unwrap();
    let w = c.rules.destinations[0].kind.webhook().unwrap();
    assert_eq!(w.proxy, ProxyChoice::Direct);
    let c = read(&hook("unix_socket = \"run/x.sock\"")).unwrap();
    let w = c.rules.destinations[0].kind.webhook().unwrap();
    assert_eq!(w.unix_socket.as_deref(), Some(Path::new("/base/run/x.sock")));
}

#[test]
fn faults_of_the_network_are_told_with_place_and_remedy() {
    for (line, parts) in [
        ("network.resolver = \"dnss\"", &["t.toml:3:20", "did you mean `dns`?"][..]),
        ("network.resolvr = \"dns\"", &["t.toml:3:9", "did you mean `resolver`?"]),
        ("network.dns_servers = [\"ten\"]", &["t.toml:3:24: engine.network: dns_servers", "`ten`"]),
        ("network.dns_servers = [\"10.0.0.1:0\"]", &["t.toml:3:23", "port 0"]),
        (
            "network = { resolver = \"system\", dns_servers = [\"10.0.0.1\"] }",
            &["engine.network: resolver", "leave `dns_servers` out"],
        ),
        ("network.trust = \"tennant\"", &["t.toml:3:17", "did you mean `tenant`?"]),
        ("network.addresses.alow = []", &["t.toml:3:19", "did you mean `allow`?"]),
        (
            "network.addresses.deny = [\"::/0\", \"10.0.0.1/8\"]",
            &["t.toml:3:35", "addresses: deny", "write 10.0.0.0/8"],
        ),
        ("network.tenant_ports = [\"0\"]", &["t.toml:3:25", "tenant_ports", "443"]),
        ("network.tenant_ports = [\"9-1\"]", &["t.toml:3:25", "tenant_ports"]),
        ("network.tenant_ports = []", &["t.toml:3:24", "engine.network.tenant_ports"]),
        ("network.proxy.url = \"https://p.example\"", &["t.toml:3:21", "engine.network: proxy.url", "plain HTTP"]),
        ("network.proxy.url = \"http://u:hunter2@p.example\"", &["t.toml:3:21", "proxy.user"]),
        ("network.proxy = { url = \"http://p.example\", user = \"u\" }", &["engine.network: proxy", "not both"]),
        (
            "network.proxy = { url = \"http://p.example\", no_proxy = [\"a b\"] }",
            &["t.toml:3:57", "proxy.no_proxy", "`a b`"],
        ),
        ("network.proxy.url = \"http://169.254.169.254\"", &["t.toml:3:", "metadata"]),
    ] {
        refused(&engine(line), parts);
        assert!(!read(&engine(line)).unwrap_err().to_string().contains("hunter2"));
    }
    for (line, parts) in [
        ("trust = \"nobody\"", &["t.toml:7:9: destination `hook`", "known: `operator`, `tenant`"][..]),
        ("addresses = { allow = [\"10.0.0.0/40\"] }", &["t.toml:7:24: destination `hook`: addresses: allow"]),
        ("addresses = { dney = [] }", &["t.toml:7:15: destination `hook`", "did you mean `deny`?"]),
        ("pool = { idel = 1 }", &["t.toml:7:10: destination `hook`", "unknown key `idel`"]),
        ("pool = { lifetime = \"2h\" }", &["t.toml:7:21", "destination `hook`: pool.lifetime"]),
        ("pool = { requests_max = 0 }", &["t.toml:7:25", "destination `hook`: pool.requests_max"]),
        ("pool = { user_timeout = \"1ms\" }", &["t.toml:7:25", "destination `hook`: pool.user_timeout"]),
        ("proxy = {}", &["t.toml:7:9: destination `hook`: proxy", "direct = true"]),
        ("proxy = { direct = true, url = \"http://p\" }", &["t.toml:7:9: destination `hook`: proxy"]),
        ("proxy = { direct = false }", &["t.toml:7:9: destination `hook`: proxy"]),
        ("proxy = { urls = \"http://p\" }", &["t.toml:7:11: destination `hook`", "did you mean `url`?"]),
        ("proxy = { url = \"http://169.254.1.1\" }", &["t.toml:7:9: destination `hook`: proxy.url", "metadata"]),
        ("unix_socket = \"/x\"\nproxy = { url = \"http://p\" }", &["t.toml:7:15: destination `hook`: unix_socket"]),
        ("unix_socket = \"/x\"\ntrust = \"tenant\"", &["t.toml:7:15: destination `hook`: unix_socket", "operator"]),
    ] {
        refused(&hook(line), parts);
    }
    let long = format!("unix_socket = \"/{}\"", "x".repeat(107));
    refused(&hook(&long), &["t.toml:7:15: destination `hook`: unix_socket", "107 bytes"]);
    // The URL by itself, by the trust of the destination or of the engine.
    let at = |url: &str, more: &str| format!("{DATA}{}{more}\n{RULE}", HOOK.replace("https://example.com/h", url));
    for (url, more, part) in [
        ("https://169.254.169.254/latest", "", "metadata"),
        ("http://0xa9fea9fe/", "", "metadata"),
        ("https://[::ffff:10.0.0.1]/", "trust = \"tenant\"", "10.0.0.0/8"),
        ("http://h.example/", "trust = \"tenant\"", "https"),
        ("https://h.example:25/", "trust = \"tenant\"", "port 25"),
        ("https://10.0.0.1/", "addresses.deny = [\"10.0.0.0/8\"]", "addresses.deny"),
    ] {
        refused(&at(url, more), &["t.toml:6:7: destination `hook`: url", part]);
    }
    let tenants = at("https://10.0.0.1/", "").replace(DATA, &engine("network.trust = \"tenant\""));
    refused(&tenants, &["t.toml:7:7: destination `hook`: url", "tenant"]);
    read(&at("https://10.0.0.1/", "")).unwrap();
    read(&at("https://10.0.0.1/", "trust = \"tenant\"\naddresses.allow = [\"10.0.0.1\"]")).unwrap();
}

#[test]
fn formats_are_read() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("t.j2"), "{\"k\": {{ event.key }}}").unwrap();
    let text = hook(
        "encoding = \"ndjson\"\nmetadata = [\"a\", \"b\"]\ntags = \"none\"\nrecord_bytes_max = \"2KiB\"\n\
         compression = \"zstd\"\nencryption = { scheme = \"aes128gcm\", secret = \"AAECAwQFBgcICQoLDA0ODw==\" }\n\
         template = { file = \"t.j2\", content_type = \"application/x.k+json\" }",
    );
    let config = Config::from_toml(&text, "t.toml", dir.path()).unwrap();
    let d = &config.rules.destinations[0];
    // A template takes every event unless a profile is asked for.
    assert_eq!((d.profile, d.format.encoding), (Profile::CloudEvents, Encoding::NdJson));
    assert_eq!((&d.format.metadata, &d.format.tags), (&Choice::only(["a", "b"]), &Choice::None));
    assert_eq!(d.format.record_bytes_max, 2048);
    let template = d.format.template.as_ref().unwrap();
    assert_eq!((template.source(), template.escape()), ("{\"k\": {{ event.key }}}", Escape::Json));
    assert_eq!(template.content_type(), "application/x.k+json");
    let w = d.kind.webhook().unwrap();
    assert_eq!(w.compression, Some(Compression::new(CompressionAlgorithm::Zstd)));
    assert_eq!(w.encryption.as_ref().map(Encryption::scheme), Some("aes128gcm"));
    let d =
        &read(&hook("header_templates = { X-B = \"{{ event.key }}\", X-A = \"b\" }")).unwrap().rules.destinations[0];
    let names: Vec<&str> = d.format.header_templates.iter().map(|(n, _)| n.as_str()).collect();
    assert_eq!((names, d.batch_limits().events_max, d.profile), (vec!["X-B", "X-A"], 1, Profile::Aws));
}

#[test]
fn formats_that_cannot_be_are_refused_at_their_keys() {
    let at = "t.toml:7:";
    refused(&hook("encoding = \"jsn\""), &[at, "destination `hook`", "did you mean `json`"]);
    refused(
        &hook("profile = \"gcs\"\nencoding = \"ndjson\""),
        &["t.toml:8:12", "profile `gcs`", "one of the profiles"],
    );
    refused(&hook("metadata = 7"), &["t.toml:7:12", "`metadata`", "a list of names"]);
    refused(&hook("tags = []"), &["t.toml:7:8", "tags is 0"]);
    refused(&hook("record_bytes_max = \"1B\""), &["t.toml:7:20", "record_bytes_max"]);
    refused(&hook("template = { text = \"{{ event.kee }}\" }"), &["t.toml:7:21", "template", "an event has no `kee`"]);
    refused(&hook("template = {}"), &[at, "one of `text` and `file`"]);
    refused(&hook("template = { text = \"1\", escape = \"jsn\" }"), &[at, "did you mean `json`"]);
    let missing = read(&hook("template = { file = \"nosuch.j2\" }")).unwrap_err().to_string();
    assert!(missing.starts_with("t.toml:7:21: destination `hook`: template") && missing.contains("/base/nosuch.j2"));
    refused(&hook("header_templates = { Host = \"x\" }"), &["header `Host` cannot be set"]);
    refused(&hook("header_templates = { X = \"{{ nosuch }}\" }"), &["t.toml:7:26", "header_templates: X"]);
    refused(&hook("headers = { X-A = \"1\" }\nheader_templates = { x-a = \"1\" }"), &["header `x-a` is given twice"]);
    refused(&hook("compression = \"gz\""), &["t.toml:7:15", "compression", "did you mean `gzip`"]);
    refused(&hook("compression = { algorithm = \"gzip\", level = 10 }"), &["level is 10", "choose from 1 to 9"]);
    refused(&hook("compression = { algoritm = \"gzip\" }"), &[at, "did you mean `algorithm`"]);
    refused(&hook("encryption = { scheme = \"jw\", secret = \"x\" }"), &[at, "did you mean `jwe`"]);
    refused(
        &hook("encryption = { scheme = \"jwe\", secret = { file = \"no.pem\" } }"),
        &["t.toml:7:14", "/base/no.pem"],
    );
    refused(
        &hook(
            "compression = \"zstd\"\nencryption = { scheme = \"jwe\", algorithm = \"dir\", secret = \
               \"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\" }",
        ),
        &["t.toml:7:15", "cannot be compressed by zstd"],
    );
    // An event type that the profile has no form for.
    let text = hook("profile = \"eventbridge\"").replace("s3:ObjectCreated:*", "s3:Replication:OperationNotTracked");
    refused(&text, &["rule `images`", "profile `eventbridge`", "has none for"]);
}
