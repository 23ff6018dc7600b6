//! The engine from end to end, against a real HTTP server on the loopback interface.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tidewire::config::EngineConfig;
use tidewire::event::EventTypes;
use tidewire::event::profile::Profile;
use tidewire::filter::{Field, Filter, Regex, Test};
use tidewire::log::record::DeadLetter;
use tidewire::log::recovery;
use tidewire::rule::{
    BatchLimits, BreakerPolicy, Destination, DestinationKind, Order, RetryPolicy, Rule, RuleSet, Webhook,
};
use tidewire::{Ack, Engine, ErrorKind, Event, EventType, KnownType, OnFull, PublishOptions, Published};
use tidewire_receiver::{Behaviour, Receiver, Reply, check_per_key_order};

const WAIT: Duration = Duration::from_secs(120);

fn receiver(behaviour: Behaviour) -> Receiver {
    Receiver::start("127.0.0.1:0".parse().unwrap(), behaviour).unwrap()
}

/// A webhook that tries again soon.
fn hook(name: &str, url: &str) -> Destination {
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

/// One rule per destination that takes every creation and removal.
fn all(destinations: Vec<Destination>) -> RuleSet {
    let types = EventTypes::default();
    let rules = destinations
        .iter()
        .map(|d| {
            Rule::new(format!("to-{}", d.name), ["s3:ObjectCreated:*", "s3:ObjectRemoved:*"], &types)
                .unwrap()
                .with_destination(&d.name)
        })
        .collect();
    RuleSet::build(rules, destinations, types).unwrap()
}

fn config(dir: &Path, shards: usize) -> EngineConfig {
    let mut c = EngineConfig::new(dir);
    c.shards = Some(shards);
    c.close_timeout = Duration::from_secs(5);
    c
}

fn open(dir: &Path, shards: usize, rules: RuleSet) -> Engine {
    Engine::open_with(config(dir, shards), rules).unwrap()
}

fn memory() -> PublishOptions {
    PublishOptions { ack: Ack::Memory, ..PublishOptions::default() }
}

fn put(engine: &Engine, key: &str, size: u64) {
    let mut e = Event::new(KnownType::ObjectCreatedPut.into(), "bucket", key.as_bytes());
    e.size = Some(size);
    assert_eq!(engine.publish_with(&e, &memory()).unwrap(), Published::Accepted);
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + WAIT;
    while !done() {
        assert!(Instant::now() < deadline, "gave up waiting until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn files(dir: &Path, sub: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap().to_str().unwrap().starts_with("shard-") {
            let Ok(inner) = std::fs::read_dir(path.join(sub)) else { continue };
            found.extend(inner.map(|e| e.unwrap().path()).filter(|p| p.is_file()));
        }
    }
    found
}

/// The segments of events, but not the files kept or made ready for later ones.
fn segments(dir: &Path) -> Vec<PathBuf> {
    let shards = (0..recovery::SHARDS_MAX).map(|n| recovery::shard_path(dir, n));
    let found = shards.map(|s| recovery::list_segments(&s, &mut recovery::Findings::default()).unwrap());
    found.flatten().map(|s| s.path).collect()
}

fn assert_in_order(r: &Receiver) {
    let violations = check_per_key_order(&r.records());
    assert!(violations.is_empty(), "{violations:?}");
}

#[test]
fn published_events_arrive_in_order_per_key_and_are_accounted_for() {
    let dir = tempfile::tempdir().unwrap();
    let r = receiver(Behaviour::Ok204);
    let engine = open(dir.path(), 2, all(vec![hook("hook", &r.url())]));
    for round in 0..50 {
        for key in 0..100 {
            put(&engine, &format!("dir/key-{key}"), round);
        }
    }
    engine.publish(&Event::new(KnownType::ObjectRemovedDelete.into(), "bucket", b"last")).unwrap();
    engine.flush(WAIT).unwrap();
    assert_eq!(r.records().len(), 5001);
    assert_in_order(&r);
    let s = engine.stats();
    assert_eq!((s.accepted, s.stored, s.routed, s.delivered, s.waiting), (5001, 5001, 5001, 5001, 0));
    assert_eq!(s.latency.len(), 5001);
    engine.close(WAIT).unwrap();
    assert!(segments(dir.path()).is_empty(), "everything was delivered, so no segment is left");
}

#[test]
fn four_threads_keep_the_order_of_each_key() {
    let dir = tempfile::tempdir().unwrap();
    let r = receiver(Behaviour::Ok204);
    let engine = open(dir.path(), 2, all(vec![hook("hook", &r.url())]));
    std::thread::scope(|s| {
        for t in 0..4 {
            let engine = &engine;
            s.spawn(move || {
                for n in 0..1000 {
                    put(engine, &format!("thread-{t}/{}", n % 10), n);
                }
            });
        }
    });
    engine.flush(WAIT).unwrap();
    // The size tells the order in which the key's thread published.
    let mut last: BTreeMap<String, u64> = BTreeMap::new();
    for record in r.records() {
        let size = record.size.unwrap();
        assert!(last.insert(record.key.clone(), size).is_none_or(|before| before < size), "{}", record.key);
    }
    assert_eq!(r.records().len(), 4000);
    engine.close(WAIT).unwrap();
}

#[test]
fn every_matching_destination_gets_every_event_once() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (receiver(Behaviour::Ok204), receiver(Behaviour::Ok204));
    let types = EventTypes::default();
    let rule = |id: &str, filter: Filter, to: &str| {
        Rule::new(id, ["s3:ObjectCreated:*"], &types).unwrap().with_filter(filter).with_destination(to)
    };
    let rules = vec![
        rule("images", Filter::new("images/", ".jpg"), "a"),
        rule("images-too", Filter::new("", ".jpg"), "a"),
        rule("all", Filter::new("", ""), "b"),
    ];
    let set = RuleSet::build(rules, vec![hook("a", &a.url()), hook("b", &b.url())], types.clone()).unwrap();
    let engine = open(dir.path(), 2, set);
    for n in 0..100 {
        put(&engine, &format!("images/{n}.jpg"), 1);
        put(&engine, &format!("text/{n}.txt"), 1);
    }
    engine.flush(WAIT).unwrap();
    assert_eq!((a.records().len(), b.records().len()), (100, 200), "once per destination, however many rules match");
    engine.close(WAIT).unwrap();
}

#[test]
fn one_kind_of_target_never_starts_unless_another_kind_is_there() {
    let receivers: Vec<Receiver> = (0..4).map(|_| receiver(Behaviour::Ok204)).collect();
    let mut kinds: Vec<Destination> = Vec::new();
    for (r, name) in receivers.iter().zip(["plain", "unordered", "strict", "cloudevents"]) {
        kinds.push(hook(name, &r.url()));
    }
    kinds[1].order = Order::None;
    kinds[2].order = Order::Strict;
    kinds[3].profile = Profile::CloudEvents;
    for subset in 1..1 << kinds.len() {
        let dir = tempfile::tempdir().unwrap();
        let chosen: Vec<Destination> =
            kinds.iter().enumerate().filter(|(i, _)| subset & (1 << i) != 0).map(|(_, d)| d.clone()).collect();
        let before: Vec<u64> = receivers.iter().map(Receiver::requests).collect();
        let engine = open(dir.path(), 2, all(chosen.clone()));
        (0..10).for_each(|n| put(&engine, &format!("k{n}"), n));
        engine.flush(WAIT).unwrap();
        let delivered =
            engine.stats().destinations.into_iter().map(|d| (d.name, d.delivered)).collect::<BTreeMap<_, _>>();
        let expected = chosen.iter().map(|d| (d.name.clone(), 10)).collect::<BTreeMap<_, _>>();
        assert_eq!(delivered, expected);
        for (i, r) in receivers.iter().enumerate() {
            assert_eq!(r.requests() > before[i], subset & (1 << i) != 0, "subset {subset:#b}, {}", kinds[i].name);
        }
        engine.close(WAIT).unwrap();
    }
}

#[test]
fn a_rule_that_wants_nothing_of_it_costs_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path(), 1, all(vec![hook("hook", "http://127.0.0.1:9/")]));
    assert!(!engine.is_interested("bucket", KnownType::ObjectTaggingPut.into()));
    assert!(engine.is_interested("bucket", KnownType::ObjectCreatedCopy.into()));
    let tagging = Event::new(KnownType::ObjectTaggingPut.into(), "bucket", b"k");
    assert_eq!(engine.publish(&tagging).unwrap(), Published::NoMatch);
    let s = engine.stats();
    assert_eq!((s.no_match, s.accepted, s.log_bytes), (1, 0, 0));
    engine.close(WAIT).unwrap();
}

#[test]
fn bad_events_are_refused_by_name_and_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let r = receiver(Behaviour::Ok204);
    let engine = open(dir.path(), 1, all(vec![hook("hook", &r.url())]));
    put(&engine, "good", 1);
    let long = [b'k'; 1025];
    let big = [b'7'; 70_000];
    let mut oversize = Event::new(KnownType::ObjectCreatedPut.into(), "bucket", b"k");
    oversize.data = &big;
    let cases = [
        (Event::new(KnownType::ObjectCreatedPut.into(), "", b"k"), "bucket is empty"),
        (Event::new(KnownType::ObjectCreatedPut.into(), "bucket", b""), "key is empty"),
        (Event::new(KnownType::ObjectCreatedPut.into(), "bucket", &long), "1025 bytes, more than 1024"),
        (Event::new(EventType::Custom("acme:Scan:Clean"), "bucket", b"k"), "unknown event type `acme:Scan:Clean`"),
        (oversize, "more than 65536"),
    ];
    for (event, words) in cases {
        let e = engine.publish(&event).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::InvalidEvent, "{e}");
        assert!(e.to_string().contains(words), "{e}");
    }
    for key in [&b"nul\0"[..], b"new\nline", b"\xff\xfe", "+ % / é 🎉".as_bytes(), &long[..1024]] {
        engine.publish(&Event::new(KnownType::ObjectCreatedPut.into(), "bucket", key)).unwrap();
    }
    engine.flush(WAIT).unwrap();
    assert_eq!(r.records().len(), 6);
    engine.close(WAIT).unwrap();
}

#[test]
fn a_failing_key_is_retried_in_order_and_holds_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let tries = Arc::new(AtomicUsize::new(0));
    let seen = tries.clone();
    let r = receiver(Behaviour::decide(move |hit| {
        let bad = hit.records.iter().any(|r| r.key == "bad");
        Reply::status(if bad && seen.fetch_add(1, Ordering::SeqCst) < 4 { 404 } else { 204 })
    }));
    let mut d = hook("hook", &r.url());
    d.batch = BatchLimits { events_max: 1, ..BatchLimits::default() };
    let engine = open(dir.path(), 1, all(vec![d]));
    for n in 0..5 {
        put(&engine, "bad", n);
        put(&engine, &format!("good-{n}"), n);
    }
    engine.flush(WAIT).unwrap();
    assert_eq!(tries.load(Ordering::SeqCst), 9, "four failures, then each of the five");
    assert_in_order(&r);
    let arrival =
        |key: &str| r.records().iter().filter(|x| x.key == key && x.accepted).map(|x| x.arrival).max().unwrap();
    assert!((0..5).all(|n| arrival(&format!("good-{n}")) < arrival("bad")), "the other keys did not wait");
    let s = engine.stats();
    assert_eq!((s.delivered, s.destinations[0].failures, s.destinations[0].retried), (10, 4, 4));
    assert!(s.destinations[0].last_error.contains("404"), "{}", s.destinations[0].last_error);
    engine.close(WAIT).unwrap();
}

#[test]
fn poison_becomes_a_dead_letter_and_the_rest_of_its_batch_is_delivered() {
    let dir = tempfile::tempdir().unwrap();
    let r = receiver(Behaviour::decide(|hit| {
        Reply::status(if hit.records.iter().any(|r| r.key == "poison") { 400 } else { 204 })
    }));
    let mut d = hook("hook", &r.url());
    d.retry.poison_attempts = 1;
    d.batch.linger = Duration::from_millis(200);
    let engine = open(dir.path(), 1, all(vec![d]));
    for n in 0..30 {
        put(&engine, if n == 13 { "poison" } else { "fine" }, n);
        put(&engine, &format!("other-{n}"), n);
    }
    engine.flush(WAIT).unwrap();
    assert_in_order(&r);
    let s = engine.stats();
    assert_eq!((s.delivered, s.dead_lettered, s.waiting), (59, 1, 0));
    engine.close(WAIT).unwrap();
    let letters = recovery::dead_letters(dir.path()).unwrap();
    assert_eq!(letters.len(), 1);
    let letter = DeadLetter::decode(&letters[0].body).unwrap();
    assert_eq!(letter.status, 400);
    assert!(letter.reason.contains("400") && letter.attempts >= 1);
    let frame = tidewire::event::FrameView::parse(letter.frame).unwrap();
    assert_eq!((frame.key(), frame.size()), (&b"poison"[..], Some(13)));
    // A dead letter is not delivered, and not lost, by opening the directory again.
    let engine = open(dir.path(), 1, all(vec![hook("hook", &r.url())]));
    engine.flush(WAIT).unwrap();
    engine.close(WAIT).unwrap();
    assert_eq!(recovery::dead_letters(dir.path()).unwrap().len(), 1);
}

#[test]
fn events_that_grow_too_old_become_dead_letters() {
    let dir = tempfile::tempdir().unwrap();
    let mut d = hook("hook", "http://127.0.0.1:9/");
    d.retry.age_max = Duration::from_millis(300);
    let engine = open(dir.path(), 2, all(vec![d]));
    for n in 0..500 {
        put(&engine, &format!("k{n}"), n);
    }
    engine.flush(WAIT).unwrap();
    let s = engine.stats();
    assert_eq!((s.dead_lettered, s.delivered, s.waiting), (500, 0, 0));
    engine.close(WAIT).unwrap();
    assert_eq!(recovery::dead_letters(dir.path()).unwrap().len(), 500);
    assert!(segments(dir.path()).is_empty());
}

#[test]
fn a_backlog_larger_than_memory_survives_closing_and_drains_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let mut r = receiver(Behaviour::Ok204);
    let url = r.url();
    r.stop();
    let small = |dir: &Path| {
        let mut c = config(dir, 2);
        c.delivery.lane_events_max = 256;
        c.delivery.memory_bytes = 1 << 20;
        c.log.segment_bytes = 1 << 20;
        c
    };
    let engine = Engine::open_with(small(dir.path()), all(vec![hook("hook", &url)])).unwrap();
    for n in 0..20_000 {
        put(&engine, &format!("key-{:0>300}", n % 500), n);
    }
    engine.publish(&Event::new(KnownType::ObjectCreatedPut.into(), "bucket", b"synced")).unwrap();
    let e = engine.flush(Duration::from_millis(300)).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Timeout);
    assert!(e.message().starts_with("20001 deliveries still wait"), "{e}");
    engine.close(Duration::from_millis(100)).unwrap();
    assert!(segments(dir.path()).len() > 4, "several segments hold the backlog");

    let engine = Engine::open_with(small(dir.path()), all(vec![hook("hook", &url)])).unwrap();
    for n in 20_000..21_000 {
        put(&engine, &format!("key-{:0>300}", n % 500), n);
    }
    r.restart().unwrap();
    engine.flush(WAIT).unwrap();
    assert_eq!(r.records().len(), 21_001);
    assert_in_order(&r);
    let mut last: BTreeMap<String, u64> = BTreeMap::new();
    for record in r.records() {
        let size = record.size.unwrap_or(0);
        assert!(last.insert(record.key.clone(), size).is_none_or(|before| before < size), "{}", record.key);
    }
    let s = engine.stats();
    assert_eq!((s.waiting, s.delivered), (0, 21_001));
    assert!(s.held_bytes == 0);
    engine.close(WAIT).unwrap();
    assert!(segments(dir.path()).is_empty());
}

#[test]
fn segments_are_removed_while_the_engine_runs() {
    let dir = tempfile::tempdir().unwrap();
    let r = receiver(Behaviour::Ok204);
    let mut c = config(dir.path(), 1);
    c.log.segment_bytes = 1 << 20;
    let engine = Engine::open_with(c, all(vec![hook("hook", &r.url())])).unwrap();
    for n in 0..30_000 {
        put(&engine, &format!("{:0>200}", n % 1000), n);
    }
    engine.flush(WAIT).unwrap();
    assert!(engine.stats().log_bytes > 8 << 20);
    until("only the segment in use is left", || segments(dir.path()).len() <= 1);
    assert_eq!(r.records().len(), 30_000);
    engine.close(WAIT).unwrap();
}

#[test]
fn one_dead_destination_holds_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let r = receiver(Behaviour::Ok204);
    let engine = open(dir.path(), 1, all(vec![hook("dead", "http://127.0.0.1:9/"), hook("live", &r.url())]));
    for n in 0..1000 {
        put(&engine, &format!("k{n}"), n);
    }
    assert!(r.wait_for(1000, WAIT));
    until("the live destination has everything counted", || {
        let s = engine.stats();
        let of = |name: &str| s.destinations.iter().find(|d| d.name == name).unwrap().clone();
        of("live").delivered == 1000 && of("dead").waiting == 1000 && of("dead").last_error.contains("127.0.0.1:9")
    });
    engine.close(Duration::from_millis(50)).unwrap();
}

#[test]
fn rules_change_while_events_flow_and_nothing_is_lost_or_doubled() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (receiver(Behaviour::Ok204), receiver(Behaviour::Ok204));
    let engine = open(dir.path(), 2, all(vec![hook("a", &a.url())]));
    let stop = std::sync::atomic::AtomicBool::new(false);
    let published = std::thread::scope(|s| {
        let publisher = s.spawn(|| {
            let mut n = 0;
            while !stop.load(Ordering::SeqCst) {
                put(&engine, &format!("k{}", n % 50), n);
                n += 1;
            }
            n
        });
        for round in 0..20 {
            std::thread::sleep(Duration::from_millis(10));
            // `a` is always there; `b` comes and goes.
            let mut set = vec![hook("a", &a.url())];
            if round % 2 == 0 {
                set.push(hook("b", &b.url()));
            }
            engine.replace_rules(all(set)).unwrap();
        }
        stop.store(true, Ordering::SeqCst);
        publisher.join().unwrap()
    });
    engine.flush(WAIT).unwrap();
    assert_eq!(a.records().len() as u64, published);
    assert_in_order(&a);
    let ids: BTreeSet<String> = b.records().iter().map(|r| r.event_id.clone()).collect();
    assert_eq!(ids.len(), b.records().len());
    assert!(!ids.is_empty() && (ids.len() as u64) < published);
    engine.close(WAIT).unwrap();
}

#[test]
fn rules_beyond_the_limits_of_filters_are_refused_and_the_others_stay() {
    let dir = tempfile::tempdir().unwrap();
    let r = receiver(Behaviour::Ok204);
    let with = |filters: &[&str]| {
        let rule = |(i, pattern): (usize, &&str)| {
            let mut rule = Rule::new(format!("r{i}"), ["*"], &EventTypes::default()).unwrap();
            rule.filter = Filter::Is(Field::Key, Test::Regex(Regex::parse(pattern, false).unwrap()));
            rule.with_destination("hook")
        };
        let rules = filters.iter().enumerate().map(rule).collect();
        RuleSet::build(rules, vec![hook("hook", &r.url())], EventTypes::default()).unwrap()
    };
    let mut c = config(dir.path(), 1);
    c.filter.regexes_max = 1;
    c.filter.memory_bytes_max = 1 << 20;
    let refused = |result: tidewire::Result<()>, parts: &[&str]| {
        let e = result.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::InvalidConfig);
        parts.iter().for_each(|part| assert!(e.to_string().contains(part), "{e}"));
    };
    let open = |c: &EngineConfig, set| Engine::open_with(c.clone(), set).map(|e| e.close(WAIT).unwrap());
    refused(open(&c, with(&["^a", "^b"])), &["rule `r1`", "engine.filter.regexes_max (1)"]);
    c.filter.regexes_max = 100;
    // Each is within the limit, and alike in nothing; together they are not.
    let many: Vec<String> = (0..7).map(|n| format!(r"\w{{3}}x{n}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    refused(open(&c, with(&many)), &["rule `r6`", "regular expressions", "engine.filter.memory_bytes_max (1048576)"]);
    let long = |n: u32| Rule {
        filter: Filter::new(format!("{n:04}{}", "x".repeat(1000)), ""),
        ..Rule::new(format!("l{n}"), ["*"], &EventTypes::default()).unwrap().with_destination("hook")
    };
    let long = (0..1200).map(long).collect();
    let long = RuleSet::build(long, vec![hook("hook", &r.url())], EventTypes::default()).unwrap();
    refused(open(&c, long.clone()), &["the index", "memory_bytes_max (1048576)", "the rules of every bucket take"]);

    let engine = Engine::open_with(c, with(&["^k"])).unwrap();
    refused(engine.replace_rules(with(&many)), &["engine.filter.memory_bytes_max"]);
    refused(engine.replace_rules(long), &["the index"]);
    refused(engine.replace_rules(with(&["^x"; 101])), &["rule `r100`", "regexes_max (100)"]);
    put(&engine, "k", 1);
    engine.flush(WAIT).unwrap();
    assert_eq!(r.records().len(), 1, "the rules from before are in force");
    engine.close(WAIT).unwrap();
}

#[test]
fn events_of_a_removed_destination_end_as_dead_letters() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path(), 1, all(vec![hook("gone", "http://127.0.0.1:9/")]));
    for n in 0..700 {
        put(&engine, &format!("k{n}"), n);
    }
    engine.close(Duration::from_millis(50)).unwrap();
    let r = receiver(Behaviour::Ok204);
    let engine = open(dir.path(), 1, all(vec![hook("other", &r.url())]));
    engine.flush(WAIT).unwrap();
    assert_eq!(engine.stats().dead_lettered, 700);
    engine.close(WAIT).unwrap();
    let letters = recovery::dead_letters(dir.path()).unwrap();
    assert_eq!(letters.len(), 700);
    assert!(DeadLetter::decode(&letters[0].body).unwrap().reason.contains("removed from the configuration"));
    assert!(r.records().is_empty());
}

#[test]
fn damage_costs_the_frame_it_hit_and_is_quarantined() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path(), 1, all(vec![hook("hook", "http://127.0.0.1:9/")]));
    for n in 0..200 {
        put(&engine, &format!("key-number-{n:03}"), n);
    }
    engine.publish(&Event::new(KnownType::ObjectCreatedPut.into(), "bucket", b"synced")).unwrap();
    engine.close(Duration::from_millis(50)).unwrap();
    let segment = segments(dir.path()).pop().unwrap();
    let mut bytes = std::fs::read(&segment).unwrap();
    for key in [b"key-number-010", b"key-number-150"] {
        let at = memchr::memmem::find(&bytes, key).unwrap();
        bytes[at] ^= 0x40;
    }
    std::fs::write(&segment, &bytes).unwrap();
    let r = receiver(Behaviour::Ok204);
    let engine = open(dir.path(), 1, all(vec![hook("hook", &r.url())]));
    engine.flush(WAIT).unwrap();
    let keys: BTreeSet<String> = r.records().iter().map(|r| r.key.clone()).collect();
    assert_eq!(keys.len(), 199);
    assert!(!keys.contains("key-number-010") && !keys.contains("key-number-150") && keys.contains("key-number-151"));
    assert_eq!(engine.stats().damaged, 2, "each is counted once, though recovery and the lane both find it");
    assert_eq!(files(dir.path(), "quarantine").len(), 2);
    engine.close(WAIT).unwrap();
}

/// Publishes `keys` to destinations of which `hook` is down, and closes.
fn leave_behind(dir: &Path, other: &[Destination], keys: std::ops::Range<u64>) {
    let mut destinations = vec![hook("hook", "http://127.0.0.1:9/")];
    destinations.extend_from_slice(other);
    let engine = open(dir, 1, all(destinations));
    for n in keys {
        put(&engine, &format!("key-number-{n:03}"), n);
    }
    engine.publish(&Event::new(KnownType::ObjectCreatedPut.into(), "bucket", b"synced")).unwrap();
    for d in other {
        until("the others have theirs", || {
            engine.stats().destinations.iter().any(|s| s.name == d.name && s.waiting == 0 && s.delivered > 0)
        });
    }
    engine.close(Duration::from_millis(50)).unwrap();
}

/// Flips a bit of the first record with this key; answers in which segment.
fn flip(dir: &Path, key: &[u8]) -> PathBuf {
    let mut segments = segments(dir);
    segments.sort();
    for path in segments {
        let mut bytes = std::fs::read(&path).unwrap();
        if let Some(at) = memchr::memmem::find(&bytes, key) {
            bytes[at] ^= 0x40;
            std::fs::write(&path, bytes).unwrap();
            return path;
        }
    }
    panic!("no such record");
}

#[test]
fn damage_at_the_ends_of_older_segments_costs_no_other_event_and_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    leave_behind(dir.path(), &[], 0..20);
    let first = segments(dir.path()).pop().unwrap();
    leave_behind(dir.path(), &[], 20..40);
    leave_behind(dir.path(), &[], 40..60);
    assert_eq!(segments(dir.path()).len(), 3);
    // All of the first segment, and the first and the last record of the second.
    std::fs::write(&first, b"").unwrap();
    let second = flip(dir.path(), b"key-number-020");
    assert_eq!(flip(dir.path(), b"synced"), second);

    let r = receiver(Behaviour::Ok204);
    let engine = open(dir.path(), 1, all(vec![hook("hook", &r.url())]));
    engine.flush(WAIT).unwrap();
    let records = r.records();
    let keys: BTreeSet<&str> = records.iter().map(|r| r.key.as_str()).collect();
    assert!(!keys.contains("key-number-020"));
    assert_eq!((keys.len(), records.len()), (40, 40), "39 numbered keys and one `synced`: {keys:?}");
    assert_eq!(engine.stats().damaged, 2);
    engine.close(WAIT).unwrap();
}

#[test]
fn damaged_cursors_and_headers_deliver_again_and_skip_nothing() {
    for headers_too in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let r = receiver(Behaviour::Ok204);
        leave_behind(dir.path(), &[hook("other", &r.url())], 0..20);
        leave_behind(dir.path(), &[hook("other", &r.url())], 20..40);
        assert_eq!(r.records().len(), 42);
        for path in files(dir.path(), "") {
            let mut bytes = std::fs::read(&path).unwrap();
            let name = path.file_name().unwrap().to_str().unwrap();
            if name.starts_with("cursor.") || (headers_too && name.ends_with(".log")) {
                bytes[40] ^= 1;
            }
            std::fs::write(&path, bytes).unwrap();
        }
        let (hooked, again) = (receiver(Behaviour::Ok204), receiver(Behaviour::Ok204));
        let engine = open(dir.path(), 1, all(vec![hook("hook", &hooked.url()), hook("other", &again.url())]));
        engine.flush(WAIT).unwrap();
        for (name, r) in [("hook", &hooked), ("other", &again)] {
            let keys: BTreeSet<String> = r.records().iter().map(|r| r.key.clone()).collect();
            assert_eq!((keys.len(), r.records().len()), (41, 42), "{name}, headers {headers_too}");
            assert_in_order(r);
        }
        engine.close(WAIT).unwrap();
    }
}

#[test]
fn sequencers_rise_across_reopening_and_ids_never_repeat() {
    let dir = tempfile::tempdir().unwrap();
    let r = receiver(Behaviour::Ok204);
    for round in 0..10 {
        let engine = open(dir.path(), 2, all(vec![hook("hook", &r.url())]));
        for n in 0..20 {
            put(&engine, "the key", round * 100 + n);
        }
        engine.flush(WAIT).unwrap();
        engine.close(WAIT).unwrap();
    }
    let records = r.records();
    assert_eq!(records.len(), 200);
    assert_eq!(records.iter().map(|r| &r.event_id).collect::<BTreeSet<_>>().len(), 200);
    assert!(records.windows(2).all(|w| w[0].sequencer < w[1].sequencer && w[0].sequencer.len() == 32));
}

#[test]
fn ack_levels_are_reached_and_receipts_tell() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path(), 1, all(vec![hook("hook", "http://127.0.0.1:9/")]));
    let event = Event::new(KnownType::ObjectCreatedPut.into(), "bucket", b"k");
    for ack in [Ack::Memory, Ack::Written, Ack::Synced] {
        let options = PublishOptions { ack, ..PublishOptions::default() };
        let receipt = engine.submit(&event, &options).unwrap().unwrap();
        receipt.wait(ack, Some(Instant::now() + WAIT)).unwrap();
        assert!(receipt.is(ack));
        // Every level is reached in the end, whatever was asked for.
        receipt.wait(Ack::Synced, Some(Instant::now() + WAIT)).unwrap();
        futures::executor::block_on(receipt.reached(Ack::Synced)).unwrap();
    }
    assert!(engine.stats().syncs >= 1);
    engine.close(Duration::ZERO).unwrap();
}

#[test]
fn a_closed_engine_says_so_and_closing_twice_is_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path(), 1, all(vec![hook("hook", "http://127.0.0.1:9/")]));
    let clone = engine.clone();
    engine.close(Duration::ZERO).unwrap();
    engine.close(Duration::ZERO).unwrap();
    let event = Event::new(KnownType::ObjectCreatedPut.into(), "bucket", b"k");
    assert_eq!(clone.publish(&event).unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(clone.flush(WAIT).unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(clone.replace_rules(RuleSet::default()).unwrap_err().kind(), ErrorKind::Closed);
}

/// Whoever publishes while the engine closes is told that it is closed, or has an event that is not lost.
#[test]
fn use_after_shutdown_while_others_still_publish() {
    let r = receiver(Behaviour::Ok204);
    let mut accepted = BTreeSet::new();
    for round in 0..5 {
        let dir = tempfile::tempdir().unwrap();
        let engine = open(dir.path(), 2, all(vec![hook("hook", &r.url())]));
        let published: Vec<String> = std::thread::scope(|s| {
            let publish = |thread: usize| {
                let engine = engine.clone();
                move || {
                    let mut done = Vec::new();
                    loop {
                        let key = format!("{round}-{thread}-{}", done.len());
                        let event = Event::new(KnownType::ObjectCreatedPut.into(), "bucket", key.as_bytes());
                        let ack = [Ack::Memory, Ack::Written, Ack::Synced][done.len() % 3];
                        match engine.publish_with(&event, &PublishOptions { ack, ..PublishOptions::default() }) {
                            Ok(_) => done.push(key),
                            Err(e) if e.kind() == ErrorKind::Closed => break,
                            Err(e) => panic!("{e}"),
                        }
                    }
                    // Everything else is refused as well, by every handle.
                    assert_eq!(engine.flush(WAIT).unwrap_err().kind(), ErrorKind::Closed);
                    assert!(!engine.stats().destinations.is_empty());
                    done
                }
            };
            let threads: Vec<_> = (0..4).map(|thread| s.spawn(publish(thread))).collect();
            until("they publish", || engine.stats().accepted > 100);
            let closers = [engine.clone(), engine.clone()].map(|e| s.spawn(move || e.close(Duration::ZERO)));
            closers.into_iter().for_each(|c| c.join().unwrap().unwrap());
            threads.into_iter().flat_map(|t| t.join().unwrap()).collect()
        });
        accepted.extend(published);
        let engine = open(dir.path(), 2, all(vec![hook("hook", &r.url())]));
        engine.flush(WAIT).unwrap();
        engine.close(WAIT).unwrap();
    }
    let arrived: BTreeSet<String> = r.records().into_iter().map(|x| x.key).collect();
    let lost: Vec<&String> = accepted.difference(&arrived).collect();
    assert!(lost.is_empty(), "{lost:?}");
    assert_in_order(&r);
}

#[test]
fn closing_is_bounded_while_the_endpoint_stalls() {
    let dir = tempfile::tempdir().unwrap();
    let r = receiver(Behaviour::Delay(Duration::from_secs(20)));
    let engine = open(dir.path(), 1, all(vec![hook("hook", &r.url())]));
    put(&engine, "k", 1);
    until("the request is under way", || r.requests() > 0);
    let begun = Instant::now();
    engine.close(Duration::from_millis(200)).unwrap();
    assert!(begun.elapsed() < Duration::from_secs(10), "it took {:?}", begun.elapsed());
}

#[test]
fn a_full_ring_refuses_or_waits_as_asked_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let r = receiver(Behaviour::Ok204);
    let mut c = config(dir.path(), 1);
    c.ring_bytes = 256 * 1024;
    let engine = Engine::open_with(c, all(vec![hook("hook", &r.url())])).unwrap();
    let refuse = PublishOptions { on_full: OnFull::Refuse, ..memory() };
    let data = format!("{:?}", "x".repeat(20_000));
    let (mut accepted, mut refused) = (0, 0);
    // Faster than any disk: sooner or later the ring is full.
    for n in 0..20_000 {
        let key = format!("k{n}");
        let mut e = Event::new(KnownType::ObjectCreatedPut.into(), "bucket", key.as_bytes());
        e.data = data.as_bytes();
        match engine.publish_with(&e, &refuse) {
            Ok(_) => accepted += 1,
            Err(e) => {
                assert_eq!(e.kind(), ErrorKind::Full);
                assert!(e.to_string().contains("publish more slowly"), "{e}");
                refused += 1;
                if refused > 10 {
                    break;
                }
            }
        }
    }
    assert!(refused > 0, "the ring never filled");
    put(&engine, "waits for space", 1);
    accepted += 1;
    engine.flush(Duration::from_secs(120)).unwrap();
    let s = engine.stats();
    assert_eq!((s.accepted, s.delivered, s.refused_full), (accepted, accepted, refused));
    engine.close(WAIT).unwrap();
}

#[test]
fn the_same_directory_is_opened_by_one_engine_only() {
    let dir = tempfile::tempdir().unwrap();
    let rules = || all(vec![hook("hook", "http://127.0.0.1:9/")]);
    let engine = open(dir.path(), 1, rules());
    let e = Engine::open_with(config(dir.path(), 1), rules()).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Locked);
    assert!(e.to_string().contains(&format!("process {}", std::process::id())), "{e}");
    engine.close(Duration::ZERO).unwrap();
    open(dir.path(), 1, rules()).close(Duration::ZERO).unwrap();
}

/// The numbers of the shards that a directory has.
fn shards(dir: &Path) -> Vec<usize> {
    recovery::shard_numbers(dir).unwrap()
}

#[test]
fn another_number_of_shards_keeps_the_order_of_each_key_while_an_endpoint_is_dead() {
    let dir = tempfile::tempdir().unwrap();
    let (live, mut dead) = (receiver(Behaviour::Ok204), receiver(Behaviour::Ok204));
    let dead_url = dead.url();
    dead.stop();
    let rules = || all(vec![hook("live", &live.url()), hook("dead", &dead_url)]);
    let small = |shards| {
        let mut c = config(dir.path(), shards);
        c.delivery.lane_events_max = 64;
        c.log.segment_bytes = 1 << 20;
        c
    };
    let mut published = 0;
    let mut publish = |engine: &Engine, rounds: u64| {
        for n in published..published + rounds {
            for key in 0..40 {
                put(engine, &format!("key-{key}-{:0>200}", ""), n);
            }
        }
        published += rounds;
        published
    };
    // With the count left out, the directory's own is kept.
    for (asked, there) in [(Some(4), 4), (Some(2), 2), (None, 2), (Some(5), 5), (Some(5), 5)] {
        let mut c = small(1);
        c.shards = asked;
        let engine = Engine::open_with(c, rules()).unwrap();
        assert_eq!(engine.stats().shards, there);
        publish(&engine, 50);
        until("the live endpoint has everything", || {
            engine.stats().destinations.iter().any(|d| d.name == "live" && d.routed == 2000 && d.waiting == 0)
        });
        engine.close(Duration::ZERO).unwrap();
    }
    assert_eq!(shards(dir.path()), [0, 1, 2, 3, 4]);
    let engine = Engine::open_with(small(1), rules()).unwrap();
    let rounds = publish(&engine, 50);
    dead.restart().unwrap();
    engine.flush(WAIT).unwrap();
    for r in [&live, &dead] {
        assert_in_order(r);
        let records = r.records();
        assert_eq!(records.len() as u64, rounds * 40);
        let mut last: BTreeMap<String, u64> = BTreeMap::new();
        for record in records {
            let size = record.size.unwrap();
            assert!(last.insert(record.key.clone(), size).is_none_or(|before| before + 1 == size), "{}", record.key);
        }
        assert!(last.values().all(|n| *n == rounds - 1));
    }
    engine.close(WAIT).unwrap();
    // Shards that are needed no longer are gone after the next opening, and may come back.
    open(dir.path(), 1, rules()).close(WAIT).unwrap();
    assert_eq!(shards(dir.path()), [0]);
    let engine = open(dir.path(), 3, rules());
    for key in 0..40 {
        put(&engine, &format!("key-{key}-{:0>200}", ""), rounds);
    }
    engine.flush(WAIT).unwrap();
    assert_in_order(&live);
    assert_eq!(shards(dir.path()), [0, 1, 2]);
    engine.close(WAIT).unwrap();
}

#[test]
fn what_was_given_up_in_a_shard_that_is_needed_no_longer_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let r = receiver(Behaviour::Status(400));
    let mut d = hook("hook", &r.url());
    d.retry.poison_attempts = 1;
    let engine = open(dir.path(), 4, all(vec![d]));
    for n in 0..40 {
        put(&engine, &format!("k{n}"), n);
    }
    engine.flush(WAIT).unwrap();
    engine.close(WAIT).unwrap();
    for _ in 0..3 {
        open(dir.path(), 1, all(vec![hook("hook", &r.url())])).close(WAIT).unwrap();
        assert_eq!(recovery::dead_letters(dir.path()).unwrap().len(), 40);
    }
}

/// What the engine does on the caller's thread must not interrupt that thread's system calls afterwards.
#[test]
fn opening_and_closing_interrupt_no_call_of_the_host() {
    use std::io::Read;
    let (mut ours, _theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    ours.set_read_timeout(Some(Duration::from_millis(150))).unwrap();
    for _ in 0..5 {
        let dir = tempfile::tempdir().unwrap();
        let engine = open(dir.path(), 1, all(vec![hook("hook", "http://127.0.0.1:9/")]));
        put(&engine, "k", 1);
        let while_open = ours.read(&mut [0; 1]).unwrap_err();
        engine.close(Duration::ZERO).unwrap();
        let after = ours.read(&mut [0; 1]).unwrap_err();
        assert_eq!((while_open.kind(), after.kind()), (std::io::ErrorKind::WouldBlock, std::io::ErrorKind::WouldBlock));
    }
}
