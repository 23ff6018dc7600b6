//! What the tests of kept logs share.
#![allow(dead_code)]

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tidewire::config::{EngineConfig, Keep};
use tidewire::event::EventTypes;
use tidewire::log::reader::{Entry, Gap, Item, LogReader, ReadFrom, Step};
use tidewire::log::segment::SegmentHeader;
use tidewire::rule::{BreakerPolicy, Destination, DestinationKind, RetryPolicy, Rule, RuleSet, Webhook};
use tidewire::{Ack, Engine, Event, KnownType, PublishOptions};
use tidewire_receiver::{Behaviour, Receiver};

pub const WAIT: Duration = Duration::from_secs(120);

pub fn receiver(behaviour: Behaviour) -> Receiver {
    Receiver::start("127.0.0.1:0".parse().unwrap(), behaviour).unwrap()
}

/// A webhook that tries again soon.
pub fn hook(name: &str, url: &str) -> Destination {
    let mut d = Destination::new(name, DestinationKind::Webhook(Webhook::new(url).unwrap()));
    d.retry = RetryPolicy {
        backoff_min: Duration::from_millis(20),
        backoff_max: Duration::from_millis(200),
        ..RetryPolicy::default()
    };
    d.breaker = BreakerPolicy {
        consecutive_failures: 5,
        open_min: Duration::from_millis(50),
        open_max: Duration::from_millis(200),
        ..BreakerPolicy::default()
    };
    d
}

/// A rule that takes everything.
pub fn everything(id: &str) -> Rule {
    Rule::new(id, ["*"], &EventTypes::default()).unwrap()
}

/// One rule per destination that takes everything, and one that keeps everything.
pub fn kept(destinations: Vec<Destination>) -> RuleSet {
    let mut keeper = everything("keep");
    keeper.retain = true;
    let rules = destinations.iter().map(|d| everything(&format!("to-{}", d.name)).with_destination(&d.name));
    let rules = rules.chain([keeper]).collect();
    RuleSet::build(rules, destinations, EventTypes::default()).unwrap()
}

/// The rules above without the one that keeps.
pub fn passing(destinations: Vec<Destination>) -> RuleSet {
    let rules = destinations.iter().map(|d| everything(&format!("to-{}", d.name)).with_destination(&d.name)).collect();
    RuleSet::build(rules, destinations, EventTypes::default()).unwrap()
}

/// Keeps what rules keep, in segments of the smallest size.
pub fn config(dir: &Path, shards: usize) -> EngineConfig {
    let mut c = EngineConfig::new(dir);
    c.shards = Some(shards);
    c.close_timeout = Duration::from_secs(5);
    c.log.segment_bytes = 1 << 20;
    c.delivery.cursor_interval = Duration::from_millis(20);
    c.retention.keep = Keep::Rules;
    c
}

pub fn open(dir: &Path, shards: usize, rules: RuleSet) -> Engine {
    Engine::open_with(config(dir, shards), rules).unwrap()
}

/// Publishes without waiting; `n` is the size.
pub fn put(engine: &Engine, key: &str, n: u64) {
    let mut e = Event::new(KnownType::ObjectCreatedPut.into(), "bucket", key.as_bytes());
    e.size = Some(n);
    engine.publish_with(&e, &PublishOptions { ack: Ack::Memory, ..PublishOptions::default() }).unwrap();
}

/// Publishes an event of about 4 KiB.
pub fn put_large(engine: &Engine, key: &str, n: u64) {
    let text = "x".repeat(4000);
    let mut e = Event::new(KnownType::ObjectCreatedPut.into(), "bucket", key.as_bytes());
    (e.size, e.user_agent) = (Some(n), &text);
    engine.publish_with(&e, &PublishOptions { ack: Ack::Memory, ..PublishOptions::default() }).unwrap();
}

/// Everything that was published before is in the log and durable, and the shards have looked at it: what is durable may be
/// told before that.
pub fn sync(engine: &Engine) {
    for n in 0..64 {
        let key = format!("{n}");
        let event = Event::new(KnownType::TestEvent.into(), "sync", key.as_bytes());
        let receipt = engine.submit(&event, &PublishOptions::default()).unwrap();
        for ack in [Ack::Synced, Ack::Written] {
            receipt.iter().for_each(|r| r.wait(ack, Some(Instant::now() + WAIT)).unwrap());
        }
    }
}

pub fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + WAIT;
    while !done() {
        assert!(Instant::now() < deadline, "gave up waiting until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub fn segments(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap().to_str().unwrap().starts_with("shard-") {
            found.extend(std::fs::read_dir(path).unwrap().map(|e| e.unwrap().path()));
        }
    }
    // Those that have begun: a file that waits for its segment has another number inside.
    found.retain(|p| {
        let name = p.file_name().and_then(|n| n.to_str()).and_then(SegmentHeader::parse_file_name);
        let header = std::fs::read(p).ok().and_then(|b| SegmentHeader::decode(&b).ok());
        name.is_some() && name == header.map(|h| h.id)
    });
    found.sort();
    found
}

/// What is in a directory's log, but for the events of [`sync`].
pub fn read_all(dir: &Path, from: ReadFrom) -> (Vec<Entry>, Vec<Gap>) {
    let mut reader = LogReader::open(dir, &from).unwrap();
    let (mut entries, mut gaps) = (Vec::new(), Vec::new());
    loop {
        match reader.next(None, &mut |f| f.bucket() != "sync").unwrap() {
            Step::Item(Item::Entry(e)) => entries.push(e),
            Step::Item(Item::Gap(g)) => gaps.push(g),
            Step::More => {}
            Step::End => return (entries, gaps),
        }
    }
}

pub fn keys(entries: &[Entry]) -> Vec<String> {
    entries.iter().map(|e| String::from_utf8(e.frame().key().to_vec()).unwrap()).collect()
}

/// Copies a data directory as a crash would leave it: what is synced is there.
pub fn copy(from: &Path) -> tempfile::TempDir {
    fn all(from: &Path, to: &Path) {
        std::fs::create_dir_all(to).unwrap();
        for entry in std::fs::read_dir(from).unwrap() {
            let path = entry.unwrap().path();
            let target = to.join(path.file_name().unwrap());
            if path.is_dir() {
                all(&path, &target);
            } else if let Err(e) = std::fs::copy(&path, &target) {
                // Passed segments are removed all the time.
                assert_eq!(e.kind(), std::io::ErrorKind::NotFound, "{}", path.display());
            }
        }
    }
    let to = tempfile::tempdir().unwrap();
    all(from, to.path());
    to
}
