//! What is recognised when it comes again: events of a host with a log of its own, and publications with a key. And ids,
//! which never come again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

use tidewire::config::EngineConfig;
use tidewire::event::EventTypes;
use tidewire::rule::{Destination, DestinationKind, Rule, RuleSet, Webhook};
use tidewire::{
    Ack, DeadLetterFilter, DedupKey, Engine, ErrorKind, Event, KnownType, OnFull, PublishOptions, Published,
    PublishedJson, RedriveOptions,
};
use tidewire_receiver::{Behaviour, Receiver, check_per_key_order};

use crate::common::copy;

const WAIT: Duration = Duration::from_secs(120);
const NOWHERE: &str = "http://127.0.0.1:9/";

fn receiver() -> Receiver {
    Receiver::start("127.0.0.1:0".parse().unwrap(), Behaviour::Ok204).unwrap()
}

fn rules(url: &str) -> RuleSet {
    let types = EventTypes::default();
    let hook = Destination::new("hook", DestinationKind::Webhook(Webhook::new(url).unwrap()));
    let rule = Rule::new("all", ["s3:ObjectCreated:*"], &types).unwrap();
    RuleSet::build(vec![rule.with_destination("hook")], vec![hook], types).unwrap()
}

fn config(dir: &Path) -> EngineConfig {
    let mut c = EngineConfig::new(dir);
    c.shards = Some(3);
    c.log.segment_bytes = 1 << 20;
    c.delivery.cursor_interval = Duration::from_millis(10);
    c.dedup.window = Duration::from_secs(3600);
    c
}

fn open(dir: &Path, url: &str) -> Engine {
    Engine::open_with(config(dir), rules(url)).unwrap()
}

fn put(key: &str) -> Event<'_> {
    Event::new(KnownType::ObjectCreatedPut.into(), "bucket", key.as_bytes())
}

fn memory() -> PublishOptions {
    PublishOptions { ack: Ack::Memory, ..PublishOptions::default() }
}

fn keyed(key: &str, ack: Ack) -> PublishOptions {
    PublishOptions { ack, dedup_key: Some(DedupKey::new(key.as_bytes())), ..PublishOptions::default() }
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + WAIT;
    while !done() {
        assert!(Instant::now() < deadline, "gave up waiting until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Appends `cursors`, each as an event of one of many keys whose size is the cursor.
fn append(engine: &Engine, cursors: std::ops::RangeInclusive<u64>, options: &PublishOptions) -> Vec<Published> {
    cursors
        .map(|cursor| {
            let key = format!("key-{}", cursor % 17);
            let mut event = put(&key);
            event.size = Some(cursor);
            engine.append_at(cursor, &event, options).unwrap()
        })
        .collect()
}

/// The sizes that arrived, each with how many ids it came with.
fn arrived(receiver: &Receiver) -> BTreeMap<u64, BTreeSet<String>> {
    let mut sizes: BTreeMap<u64, BTreeSet<String>> = BTreeMap::new();
    for record in receiver.records() {
        sizes.entry(record.size.unwrap()).or_default().insert(record.event_id);
    }
    sizes
}

fn each_arrived_once(receiver: &Receiver, cursors: impl Iterator<Item = u64>) {
    let sizes = arrived(receiver);
    let expected: BTreeSet<u64> = cursors.collect();
    let lost: Vec<_> = expected.iter().filter(|c| !sizes.contains_key(c)).collect();
    let wrong: Vec<_> = sizes.iter().filter(|(c, ids)| ids.len() > 1 || !expected.contains(c)).collect();
    assert!(lost.is_empty() && wrong.is_empty(), "lost {lost:?}, twice or never appended {wrong:?}");
    assert!(check_per_key_order(&receiver.records()).is_empty());
}

#[test]
fn a_replay_of_the_hosts_log_is_ignored_where_the_engine_has_it() {
    let dir = tempfile::tempdir().unwrap();
    let r = receiver();
    let engine = open(dir.path(), &r.url());
    assert_eq!(engine.last_applied().unwrap(), 0);
    assert!(append(&engine, 1..=100, &memory()).iter().all(|p| *p == Published::Accepted));
    assert!(append(&engine, 40..=100, &PublishOptions::default()).iter().all(|p| *p == Published::Duplicate));
    // What nobody wants has a cursor too.
    let nobody = Event::new(KnownType::ObjectTaggingPut.into(), "bucket", b"k");
    assert_eq!(engine.append_at(101, &nobody, &memory()).unwrap(), Published::NoMatch);
    assert_eq!(engine.append_at(101, &put("k"), &memory()).unwrap(), Published::Duplicate);
    assert_eq!(engine.append_at(0, &put("k"), &memory()).unwrap_err().kind(), ErrorKind::InvalidArgument);
    assert_eq!(engine.append_at(102, &put(""), &memory()).unwrap_err().kind(), ErrorKind::InvalidEvent);
    let mut last = put("last");
    last.size = Some(102);
    assert_eq!(engine.append_at(102, &last, &PublishOptions::default()).unwrap(), Published::Accepted);
    until("everything is applied", || engine.last_applied().unwrap() == 102);
    engine.flush(WAIT).unwrap();
    assert_eq!((engine.stats().accepted, engine.stats().duplicates), (101, 62));
    engine.close(WAIT).unwrap();
    assert_eq!(engine.append_at(103, &put("k"), &memory()).unwrap_err().kind(), ErrorKind::Closed);

    let engine = open(dir.path(), &r.url());
    assert_eq!(engine.last_applied().unwrap(), 102, "exact after a clean close, also on shards that got nothing");
    assert!(append(&engine, 1..=100, &memory()).iter().all(|p| *p == Published::Duplicate));
    append(&engine, 103..=110, &memory());
    engine.close(WAIT).unwrap();
    each_arrived_once(&r, (1..=110).filter(|c| *c != 101));
}

#[test]
fn exact_after_a_clean_close_with_shards_that_got_nothing() {
    let dir = tempfile::tempdir().unwrap();
    for round in 1..=3 {
        let engine = open(dir.path(), NOWHERE);
        assert_eq!(engine.last_applied().unwrap(), (round - 1) * 10);
        for cursor in round * 10 - 9..=round * 10 {
            engine.append_at(cursor, &put("one key"), &memory()).unwrap();
        }
        engine.close(Duration::ZERO).unwrap();
    }
}

#[test]
fn after_a_crash_what_is_applied_is_never_said_too_high() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path(), NOWHERE);
    let mut cursor = 0;
    for round in 0..8 {
        let mut told = 0;
        for _ in 0..20 {
            append(&engine, cursor + 1..=cursor + 37, &memory());
            cursor += 37;
            told = engine.last_applied().unwrap().max(told);
        }
        if round % 2 == 0 {
            append(&engine, cursor + 1..=cursor + 1, &PublishOptions::default());
            cursor += 1;
        }
        told = engine.last_applied().unwrap().max(told);
        let crashed = copy(dir.path());
        let r = receiver();
        let again = open(crashed.path(), &r.url());
        let applied = again.last_applied().unwrap();
        assert!(applied >= told, "it said {told} before and {applied} after the crash");
        // The host replays from there; everything arrives, and nothing twice.
        append(&again, applied + 1..=cursor, &memory());
        append(&again, cursor + 1..=cursor + 5, &memory());
        again.flush(WAIT).unwrap();
        each_arrived_once(&r, 1..=cursor + 5);
        again.close(WAIT).unwrap();
    }
    engine.close(Duration::ZERO).unwrap();
}

fn sized(key: &str, size: u64) -> Event<'_> {
    let mut event = put(key);
    event.size = Some(size);
    event
}

#[test]
fn check_then_insert_does_not_deliver_twice() {
    let dir = tempfile::tempdir().unwrap();
    let r = receiver();
    let engine = open(dir.path(), &r.url());
    const KEYS: usize = 200;
    let barrier = std::sync::Barrier::new(4);
    let accepted: Vec<Vec<Published>> = std::thread::scope(|s| {
        let threads: Vec<_> = (0..4)
            .map(|_| {
                s.spawn(|| {
                    (0..KEYS)
                        .map(|i| {
                            barrier.wait();
                            let options = keyed(&format!("request {i}"), Ack::Memory);
                            engine.publish_with(&put("the same object"), &options).unwrap()
                        })
                        .collect()
                })
            })
            .collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    for i in 0..KEYS {
        let winners = accepted.iter().filter(|a| a[i] == Published::Accepted).count();
        assert_eq!(winners, 1, "request {i}");
    }
    engine.flush(WAIT).unwrap();
    assert_eq!(r.records().len(), KEYS);
    assert_eq!((engine.stats().accepted, engine.stats().duplicates), (KEYS as u64, 3 * KEYS as u64));
    engine.close(WAIT).unwrap();
}

#[test]
fn a_repeat_is_known_within_the_window_and_of_one_resource_only() {
    let dir = tempfile::tempdir().unwrap();
    let r = receiver();
    let mut c = config(dir.path());
    c.dedup.window = Duration::from_millis(300);
    let engine = Engine::open_with(c, rules(&r.url())).unwrap();
    let synced = keyed("request", Ack::Synced);
    assert_eq!(engine.publish_with(&put("a"), &synced).unwrap(), Published::Accepted);
    assert_eq!(engine.publish_with(&put("b"), &synced).unwrap(), Published::Accepted, "another object");
    let other = keyed("another request", Ack::Synced);
    assert_eq!(engine.publish_with(&put("a"), &other).unwrap(), Published::Accepted);
    let none = Event::new(KnownType::ObjectTaggingPut.into(), "bucket", b"a");
    assert_eq!(engine.publish_with(&none, &synced).unwrap(), Published::NoMatch);
    until("the window is over", || engine.publish_with(&put("a"), &synced).unwrap() == Published::Accepted);
    let receipt = engine.submit(&put("a"), &other).unwrap().unwrap();
    receipt.wait(Ack::Synced, None).unwrap();
    engine.close(WAIT).unwrap();

    // Where nobody remembers keys, giving one is a mistake that is told.
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::open_with(EngineConfig::new(dir.path()), rules(NOWHERE)).unwrap();
    let e = engine.publish_with(&put("a"), &synced).unwrap_err();
    assert!(e.kind() == ErrorKind::InvalidArgument && e.to_string().contains("engine.dedup.window"), "{e}");
    engine.close(Duration::ZERO).unwrap();
}

#[test]
fn the_receipt_of_a_repeat_is_that_of_the_event() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path(), NOWHERE);
    let first = engine.submit(&put("a"), &keyed("request", Ack::Memory)).unwrap().unwrap();
    let second = engine.submit(&put("a"), &keyed("request", Ack::Synced)).unwrap().unwrap();
    assert!(!first.is_duplicate() && second.is_duplicate());
    second.wait(Ack::Synced, Some(Instant::now() + WAIT)).unwrap();
    assert!(first.is(Ack::Synced), "a repeat waits until the event is as safe as it asks");
    engine.close(Duration::ZERO).unwrap();
}

#[test]
fn repeats_are_known_after_a_restart_and_after_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let r = receiver();
    let engine = open(dir.path(), &r.url());
    let keys: Vec<String> = (0..300).map(|i| format!("request {i}")).collect();
    let publish = |engine: &Engine, from: usize, to: usize| -> Vec<Published> {
        let options = |i: usize| keyed(&keys[i], if i % 100 == 99 { Ack::Synced } else { Ack::Memory });
        (from..to).map(|i| engine.publish_with(&put(&format!("k{}", i % 7)), &options(i)).unwrap()).collect()
    };
    let every = |answers: Vec<Published>, expected: Published| {
        let other = answers.iter().position(|a| *a != expected);
        assert_eq!(other, None);
    };
    every(publish(&engine, 0, 100), Published::Accepted);
    // Delivered, and their segments passed: from then on only the files of keys know them.
    engine.flush(WAIT).unwrap();
    engine.close(WAIT).unwrap();
    let engine = open(dir.path(), &r.url());
    every(publish(&engine, 0, 100), Published::Duplicate);
    every(publish(&engine, 100, 200), Published::Accepted);
    let some_saved = copy(dir.path());
    engine.flush(WAIT).unwrap();
    std::thread::sleep(Duration::from_millis(50));
    every(publish(&engine, 200, 300), Published::Accepted);
    // Syncs of the three shards.
    engine.publish(&put("a")).unwrap();
    for i in 0..20 {
        engine.publish(&put(&format!("s{i}"))).unwrap();
    }
    let crashed = copy(dir.path());
    engine.close(WAIT).unwrap();
    for (copy, known) in [(&some_saved, 100), (&crashed, 300)] {
        let again = open(copy.path(), NOWHERE);
        every(publish(&again, 0, known), Published::Duplicate);
        again.close(Duration::ZERO).unwrap();
    }
    let ids: BTreeSet<String> = r.records().into_iter().map(|r| r.event_id).collect();
    assert_eq!(ids.len(), 300 + 21);
}

#[test]
fn the_oldest_keys_are_forgotten_when_there_are_too_many_and_that_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let mut c = config(dir.path());
    c.shards = Some(1);
    c.dedup.entries_max = 10;
    let engine = Engine::open_with(c.clone(), rules(NOWHERE)).unwrap();
    let publish = |engine: &Engine, i: usize| {
        engine.publish_with(&put("k"), &keyed(&format!("request {i}"), Ack::Memory)).unwrap()
    };
    for i in 0..15 {
        assert_eq!(publish(&engine, i), Published::Accepted);
    }
    assert_eq!(engine.stats().dedup_evicted, 5);
    assert_eq!(publish(&engine, 14), Published::Duplicate);
    assert_eq!(publish(&engine, 4), Published::Accepted);
    engine.close(Duration::ZERO).unwrap();
    let engine = Engine::open_with(c, rules(NOWHERE)).unwrap();
    assert_eq!(publish(&engine, 14), Published::Duplicate);
    assert_eq!(publish(&engine, 3), Published::Accepted);
    engine.close(Duration::ZERO).unwrap();
}

#[test]
fn a_refused_event_is_not_taken_for_a_repeat_when_it_comes_again() {
    let dir = tempfile::tempdir().unwrap();
    let r = receiver();
    let mut c = config(dir.path());
    c.shards = Some(1);
    c.ring_bytes = 256 << 10;
    let engine = Engine::open_with(c, rules(&r.url())).unwrap();
    let data = format!("{:?}", "x".repeat(40_000));
    let (mut refused, mut cursor) = (0, 0);
    // Faster than any disk: sooner or later the ring is full.
    while refused < 5 {
        cursor += 1;
        let mut event = sized("k", cursor);
        event.data = data.as_bytes();
        let options = PublishOptions { on_full: OnFull::Refuse, ..keyed(&format!("{cursor}"), Ack::Memory) };
        let answer = loop {
            match engine.append_at(cursor, &event, &options) {
                Ok(answer) => break answer,
                Err(e) => assert_eq!(e.kind(), ErrorKind::Full),
            }
            refused += 1;
        };
        assert_eq!(answer, Published::Accepted);
        assert!(cursor < 50_000, "the ring never filled");
    }
    engine.flush(Duration::from_secs(120)).unwrap();
    each_arrived_once(&r, 1..=cursor);
    engine.close(WAIT).unwrap();
}

/// A redrive within the window is no repeat of what it redrives.
#[test]
fn manual_retry_is_swallowed_by_its_idempotency_key() {
    let dir = tempfile::tempdir().unwrap();
    let r = receiver();
    r.set_behaviour(Behaviour::Status(500));
    let types = EventTypes::default();
    let mut hook = Destination::new("hook", DestinationKind::Webhook(Webhook::new(&r.url()).unwrap()));
    hook.retry.attempts_max = Some(1);
    (hook.breaker.consecutive_failures, hook.breaker.calls_min) = (1_000_000, 1_000_000);
    let rule = Rule::new("all", ["s3:ObjectCreated:*"], &types).unwrap().with_destination("hook");
    let rules = RuleSet::build(vec![rule], vec![hook], types).unwrap();
    let engine = Engine::open_with(config(dir.path()), rules.clone()).unwrap();
    for n in 0..20 {
        let key = format!("k{n}");
        assert_eq!(engine.publish_with(&put(&key), &keyed(&key, Ack::Synced)).unwrap(), Published::Accepted);
    }
    engine.flush(WAIT).unwrap();
    let first: BTreeSet<String> = r.records().into_iter().map(|x| x.event_id).collect();
    let redrive = |engine: &Engine| {
        let mut redrive = engine.redrive(&DeadLetterFilter::default(), &RedriveOptions::default()).unwrap();
        assert_eq!(redrive.wait(Instant::now() + WAIT).unwrap().redriven, 20);
        engine.flush(WAIT).unwrap();
    };
    // Twice, the second time after a restart, so that the keys come from the log.
    redrive(&engine);
    assert_eq!(r.records().len(), 40);
    engine.close(WAIT).unwrap();
    let engine = Engine::open_with(config(dir.path()), rules).unwrap();
    r.set_behaviour(Behaviour::Ok204);
    redrive(&engine);
    assert_eq!((r.records().len(), r.accepted()), (60, 20));
    assert_eq!(r.records().into_iter().map(|x| x.event_id).collect::<BTreeSet<_>>(), first);
    // The publication itself is still a repeat.
    assert_eq!(engine.publish_with(&put("k1"), &keyed("k1", Ack::Synced)).unwrap(), Published::Duplicate);
    engine.close(WAIT).unwrap();
}

#[test]
fn no_two_events_have_one_id_through_reopening_crashes_and_copies() {
    let dir = tempfile::tempdir().unwrap();
    let r = receiver();
    let mut published = 0;
    let mut some = |engine: &Engine, sync: bool| {
        for i in 0..40 {
            engine.publish_with(&put(&format!("k{}", i % 11)), &memory()).unwrap();
            published += 1;
        }
        if sync {
            for i in 0..11 {
                engine.publish(&put(&format!("k{i}"))).unwrap();
                published += 1;
            }
        }
    };
    let engine = open(dir.path(), &r.url());
    some(&engine, true);
    engine.flush(WAIT).unwrap();
    engine.close(WAIT).unwrap();
    // Restored copies go on side by side with the original.
    let copies = [copy(dir.path()), copy(dir.path())];
    let engines: Vec<Engine> =
        [dir.path(), copies[0].path(), copies[1].path()].iter().map(|d| open(d, &r.url())).collect();
    for _ in 0..3 {
        engines.iter().for_each(|e| some(e, false));
    }
    engines.iter().for_each(|e| e.flush(WAIT).unwrap());
    // One of them crashes and goes on, another is opened again.
    some(&engines[0], true);
    engines[0].flush(WAIT).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    let crashed = copy(dir.path());
    let after_crash = open(crashed.path(), &r.url());
    some(&after_crash, true);
    after_crash.flush(WAIT).unwrap();
    engines[1].close(WAIT).unwrap();
    let reopened = open(copies[0].path(), &r.url());
    some(&reopened, true);
    reopened.flush(WAIT).unwrap();
    let ids: BTreeSet<String> = r.records().into_iter().map(|r| r.event_id).collect();
    assert_eq!(ids.len(), published);
    for engine in engines.iter().chain([&after_crash, &reopened]) {
        engine.close(WAIT).unwrap();
    }
}

#[test]
fn the_events_of_a_document_are_published_in_its_order_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let r = receiver();
    let engine = open(dir.path(), &r.url());
    let line = |key: &str, size: u64| {
        format!("{{\"type\": \"s3:ObjectCreated:Put\", \"bucket\": \"b\", \"key\": \"{key}\", \"size\": {size}}}\n")
    };
    let mut lines: String = (0..200).map(|n| line(&format!("k{}", n % 7), n)).collect();
    lines.push_str("{\"type\": \"s3:ObjectRemoved:Delete\", \"bucket\": \"b\", \"key\": \"k\"}\n");
    let mut published = PublishedJson::default();
    let mut publish = |text: &str, options: &PublishOptions| {
        let result = engine.publish_json(&mut text.as_bytes().to_vec(), "", options, &mut published);
        (result, published.accepted, published.no_match, published.duplicates)
    };
    let (result, accepted, no_match, _) = publish(&lines, &PublishOptions::default());
    result.unwrap();
    assert_eq!((accepted, no_match), (200, 1));
    // One key for all tells only events of different keys apart.
    let (result, accepted, _, duplicates) = publish(&lines, &keyed("once", Ack::Synced));
    result.unwrap();
    assert_eq!((accepted, duplicates), (7, 193));

    let before = engine.stats().accepted;
    for (wrong, says) in [
        (format!("{}{}", line("k", 1), line("", 1)), "key"),
        (format!("{}{{\"type\": \"s3:ObjectCreated:Put\"", line("k", 1)), "line 2"),
        (line("k", 1).replace("ObjectCreated", "ObjectCreatd"), "s3:ObjectCreatd:Put"),
        (line("k", 1).replace("size", "sise"), "size"),
    ] {
        let (result, accepted, ..) = publish(&wrong, &PublishOptions::default());
        let e = result.unwrap_err();
        assert!(e.kind() == ErrorKind::InvalidEvent && e.to_string().contains(says), "{e}");
        assert_eq!(accepted, 0);
    }
    assert_eq!(engine.stats().accepted, before);
    engine.flush(WAIT).unwrap();
    let told = r.records();
    assert_eq!(told.iter().filter(|record| record.accepted).count(), 207);
    assert!(check_per_key_order(&told).is_empty());
    engine.close(WAIT).unwrap();
}
