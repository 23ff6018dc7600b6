//! Reservations: an event is told if, and only if, the operation that it was reserved for came to be.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tidewire::config::EngineConfig;
use tidewire::event::EventTypes;
use tidewire::filter::{Field, Filter, Range, Test};
use tidewire::rule::{Destination, DestinationKind, Rule, RuleSet, Webhook};
use tidewire::{
    Ack, CommitFields, CommitOptions, Engine, ErrorKind, Event, EventId, Intent, KnownType, OnFull, PublishOptions,
    Reservation, ReserveOptions, Reserved, ReservedBatch, Resolution,
};
use tidewire_receiver::{Behaviour, Receiver, Record, check_per_key_order};

use crate::common::copy;

const WAIT: Duration = Duration::from_secs(120);
const DURABLE: ReserveOptions =
    ReserveOptions { bytes_max: None, intent: Intent::Durable, on_full: OnFull::Block(WAIT), ack_timeout: WAIT };
const NOWHERE: &str = "http://127.0.0.1:9/";

fn receiver() -> Receiver {
    Receiver::start("127.0.0.1:0".parse().unwrap(), Behaviour::Ok204).unwrap()
}

/// One rule that sends creations and removals to `url`.
fn rules(url: &str) -> RuleSet {
    let types = EventTypes::default();
    let hook = Destination::new("hook", DestinationKind::Webhook(Webhook::new(url).unwrap()));
    let rule = Rule::new("all", ["s3:ObjectCreated:*", "s3:ObjectRemoved:*"], &types).unwrap();
    RuleSet::build(vec![rule.with_destination("hook")], vec![hook], types).unwrap()
}

fn config(dir: &Path, shards: usize) -> EngineConfig {
    let mut c = EngineConfig::new(dir);
    c.shards = Some(shards);
    c.log.segment_bytes = 1 << 20;
    c
}

fn open(dir: &Path, url: &str) -> Engine {
    Engine::open_with(config(dir, 2), rules(url)).unwrap()
}

fn put(key: &str) -> Event<'_> {
    Event::new(KnownType::ObjectCreatedPut.into(), "bucket", key.as_bytes())
}

fn reserve(engine: &Engine, key: &str, options: &ReserveOptions) -> Reservation {
    match engine.reserve(&put(key), options).unwrap() {
        Reserved::Held(r) => r,
        other => panic!("{other:?}"),
    }
}

fn sized(size: u64) -> CommitFields<'static> {
    CommitFields { size: Some(size), ..CommitFields::default() }
}

/// What an engine that is opened on the directory delivers by itself.
fn delivered_by(dir: &Path) -> Vec<Record> {
    let r = receiver();
    let engine = open(dir, &r.url());
    engine.flush(WAIT).unwrap();
    engine.close(WAIT).unwrap();
    r.records()
}

fn tokens(engine: &Engine) -> Vec<EventId> {
    engine.in_doubt().unwrap().iter().map(|d| d.token).collect()
}

fn nothing_is_held(engine: &Engine) {
    let s = engine.stats();
    assert_eq!((s.reservations, s.ring_reserved_bytes), (0, 0));
}

#[test]
fn no_event_although_the_operation_failed() {
    let dir = tempfile::tempdir().unwrap();
    let r = receiver();
    let engine = open(dir.path(), &r.url());
    for options in [ReserveOptions::default(), DURABLE] {
        let failed = reserve(&engine, "failed", &options);
        let dropped = reserve(&engine, "dropped", &options);
        let done = reserve(&engine, "done", &options);
        assert_eq!(engine.stats().reservations, 3);
        failed.abort().unwrap();
        failed.abort().unwrap();
        drop(dropped);
        done.commit(&sized(7), &CommitOptions::default()).unwrap();
        assert_eq!(done.abort().unwrap_err().kind(), ErrorKind::InvalidArgument);
        let e = failed.commit(&sized(1), &CommitOptions::default()).unwrap_err();
        assert!(e.kind() == ErrorKind::InvalidArgument && e.message().contains("aborted"), "{e}");
        assert!(!failed.is_open() && !done.is_open());
    }
    nothing_is_held(&engine);
    engine.flush(WAIT).unwrap();
    let arrived: Vec<_> = r.records().into_iter().map(|r| (r.key, r.size)).collect();
    assert_eq!(arrived, [("done".to_owned(), Some(7)), ("done".to_owned(), Some(7))]);
    let s = engine.stats();
    assert_eq!((s.accepted, s.stored, s.routed, s.delivered, s.waiting), (2, 2, 2, 2, 0));
    engine.close(WAIT).unwrap();
    assert!(delivered_by(dir.path()).is_empty());
}

#[test]
fn a_commit_has_the_final_fields_and_counts_once() {
    let dir = tempfile::tempdir().unwrap();
    let r = receiver();
    let engine = open(dir.path(), &r.url());
    let mut event = put("key");
    event.requester = "somebody";
    let metadata = [("a", "1"), ("b", "2")];
    event.metadata = &metadata;
    event.etag = "declared";
    let Reserved::Held(held) = engine.reserve(&event, &DURABLE).unwrap() else { panic!() };
    let token = held.token().unwrap();
    let fields = CommitFields {
        size: Some(12),
        etag: "final",
        version_id: "v1",
        time_ns: 1_700_000_000_123_000_000,
        ..CommitFields::default()
    };
    held.commit(&fields, &CommitOptions::default()).unwrap();
    // Again, with something else: nothing changes.
    held.commit(&sized(99), &CommitOptions::default()).unwrap();
    held.submit(&sized(99), Ack::Memory).unwrap().wait(Ack::Synced, None).unwrap();
    engine.flush(WAIT).unwrap();
    let body = String::from_utf8(r.last_request().unwrap().body.to_vec()).unwrap();
    for part in ["\"final\"", "\"v1\"", "somebody", "2023-11-14T22:13:20.123Z", "\"size\":12"] {
        assert!(body.contains(part), "{part} in {body}");
    }
    let records = r.records();
    assert_eq!(records.len(), 1);
    assert_eq!(records[0].event_id, token.to_string(), "the token is the event's id");
    engine.close(WAIT).unwrap();
}

#[test]
fn another_resource_or_more_bytes_than_reserved_are_refused_and_the_reservation_stays() {
    let dir = tempfile::tempdir().unwrap();
    let r = receiver();
    let engine = open(dir.path(), &r.url());
    for intent in [Intent::None, Intent::Durable] {
        let options = ReserveOptions { bytes_max: Some(400), intent, ..ReserveOptions::default() };
        let held = reserve(&engine, "key", &options);
        assert_eq!(held.bytes_max(), 400);
        let mut other_bucket = put("key");
        other_bucket.bucket = "other";
        let removed = Event::new(KnownType::ObjectRemovedDelete.into(), "bucket", b"key");
        let mut large = put("key");
        let long = "x".repeat(400);
        large.version_id = &long;
        for (event, words) in [
            (other_bucket, "the bucket is another"),
            (put("other"), "the key is another"),
            (removed, "the event_type is another"),
            (large, "bytes encoded, and 400 were reserved"),
        ] {
            let e = held.commit_event(&event, &CommitOptions::default()).unwrap_err();
            assert!(e.kind() == ErrorKind::InvalidEvent && e.message().contains(words), "{e}");
            assert!(held.is_open());
        }
        held.commit_event(&put("key"), &CommitOptions::default()).unwrap();
    }
    for bytes_max in [10, 70_000] {
        let options = ReserveOptions { bytes_max: Some(bytes_max), ..ReserveOptions::default() };
        let e = engine.reserve(&put("key"), &options).unwrap_err();
        assert!(e.kind() == ErrorKind::InvalidArgument && e.to_string().contains("to 65536"), "{e}");
    }
    let e = engine.reserve(&put(""), &DURABLE).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::InvalidEvent);
    nothing_is_held(&engine);
    engine.flush(WAIT).unwrap();
    assert_eq!(r.records().len(), 2);
    engine.close(WAIT).unwrap();
}

#[test]
fn what_nothing_wants_is_neither_held_nor_written() {
    let dir = tempfile::tempdir().unwrap();
    let types = EventTypes::default();
    let hook = Destination::new("hook", DestinationKind::Webhook(Webhook::new(NOWHERE).unwrap()));
    let rule = Rule::new("jpg", ["s3:ObjectCreated:*"], &types).unwrap().with_destination("hook");
    let rule = rule.with_filter(tidewire::filter::Filter::new("", ".jpg"));
    let set = RuleSet::build(vec![rule], vec![hook], types).unwrap();
    let engine = Engine::open_with(config(dir.path(), 1), set).unwrap();
    let tagging = Event::new(KnownType::ObjectTaggingPut.into(), "bucket", b"a.jpg");
    for event in [tagging, put("a.png")] {
        for options in [ReserveOptions::default(), DURABLE] {
            assert!(matches!(engine.reserve(&event, &options).unwrap(), Reserved::NoMatch));
        }
    }
    nothing_is_held(&engine);
    let s = engine.stats();
    assert_eq!((s.no_match, s.log_bytes), (4, 0));
    // Rules that change before the commit decide anew: this one is not wanted any more, and its intent has an end.
    let held = reserve(&engine, "b.jpg", &DURABLE);
    engine.replace_rules(RuleSet::default()).unwrap();
    held.commit(&sized(1), &CommitOptions::default()).unwrap();
    assert_eq!(engine.stats().no_match, 5);
    engine.close(WAIT).unwrap();
}

#[test]
fn too_much_reserved_would_block_until_somebody_commits() {
    let dir = tempfile::tempdir().unwrap();
    let r = receiver();
    let mut c = config(dir.path(), 1);
    c.ring_bytes = 256 << 10;
    c.reserve_percent = 25;
    let engine = Engine::open_with(c, rules(&r.url())).unwrap();
    let options = ReserveOptions { bytes_max: Some(4000), ..ReserveOptions::default() };
    let mut held = Vec::new();
    loop {
        match engine.reserve(&put(&format!("k{}", held.len())), &options).unwrap() {
            Reserved::Held(r) => held.push(r),
            Reserved::WouldBlock => break,
            Reserved::NoMatch => panic!(),
        }
    }
    assert!((12..=16).contains(&held.len()), "{}", held.len());
    assert!(engine.stats().ring_reserved_bytes <= 64 << 10);
    assert_eq!(engine.stats().refused_full, 1);
    // Ordinary events do not mind.
    engine.publish(&put("ordinary")).unwrap();
    let brief = ReserveOptions { on_full: OnFull::Block(Duration::from_millis(30)), ..options };
    assert!(matches!(engine.reserve(&put("more"), &brief).unwrap(), Reserved::WouldBlock));
    let patient = ReserveOptions { on_full: OnFull::Block(WAIT), ..options };
    let waiting = AtomicBool::new(true);
    std::thread::scope(|s| {
        s.spawn(|| {
            reserve(&engine, "waiter", &patient).commit(&sized(0), &CommitOptions::default()).unwrap();
            waiting.store(false, Ordering::SeqCst);
        });
        std::thread::sleep(Duration::from_millis(20));
        assert!(waiting.load(Ordering::SeqCst));
        held.pop().unwrap().abort().unwrap();
    });
    let e = engine.reserve(&put("huge"), &ReserveOptions { bytes_max: Some(40_000), ..options }).unwrap_err();
    assert!(e.kind() == ErrorKind::InvalidArgument && e.to_string().contains("engine.reserve_percent"), "{e}");
    drop(held);
    nothing_is_held(&engine);
    engine.close(WAIT).unwrap();
}

#[test]
fn commits_are_never_refused_while_others_fill_the_ring() {
    let dir = tempfile::tempdir().unwrap();
    let r = receiver();
    let mut c = config(dir.path(), 1);
    c.ring_bytes = 256 << 10;
    let engine = Engine::open_with(c, rules(&r.url())).unwrap();
    let data = format!("{:?}", "x".repeat(30_000));
    let refuse = PublishOptions { ack: Ack::Memory, on_full: OnFull::Refuse, ..PublishOptions::default() };
    let (stop, full, full_to_reserve, committed) =
        (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|s| {
        for _ in 0..2 {
            s.spawn(|| {
                let mut event = put("flood");
                event.data = data.as_bytes();
                while !stop.load(Ordering::Relaxed) {
                    if let Err(e) = engine.publish_with(&event, &refuse) {
                        assert_eq!(e.kind(), ErrorKind::Full);
                        full.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        s.spawn(|| {
            let mut event = put("large");
            event.data = data.as_bytes();
            let mut n = 0;
            let none = |n: &AtomicUsize| n.load(Ordering::Relaxed) == 0;
            while n < 300 || none(&full) || none(&full_to_reserve) || none(&committed) {
                n += 1;
                match engine.reserve(&event, &ReserveOptions::default()) {
                    Ok(Reserved::Held(held)) => {
                        held.commit_event(&event, &CommitOptions { ack: Ack::Memory, ack_timeout: WAIT }).unwrap();
                        committed.fetch_add(1, Ordering::Relaxed);
                    }
                    Ok(other) => panic!("{other:?}"),
                    Err(e) => {
                        assert_eq!(e.kind(), ErrorKind::Full);
                        full_to_reserve.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
            stop.store(true, Ordering::Relaxed);
        });
    });
    nothing_is_held(&engine);
    engine.flush(Duration::from_secs(120)).unwrap();
    let large = r.records().iter().filter(|r| r.key == "large").count();
    assert_eq!(large, committed.load(Ordering::Relaxed));
    engine.close(WAIT).unwrap();
}

#[test]
fn thousands_of_reservations_at_a_time_leave_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let r = receiver();
    let mut c = config(dir.path(), 2);
    c.ring_bytes = 4 << 20;
    let engine = Engine::open_with(c, rules(&r.url())).unwrap();
    let patient = ReserveOptions { on_full: OnFull::Block(WAIT), ..ReserveOptions::default() };
    let commits: Vec<usize> = std::thread::scope(|s| {
        let threads: Vec<_> = (0..4)
            .map(|t| {
                let (engine, patient) = (&engine, &patient);
                s.spawn(move || {
                    let keys: Vec<String> = (0..1000).map(|i| format!("t{t}/{i}")).collect();
                    let held: Vec<Reservation> = keys.iter().map(|k| reserve(engine, k, patient)).collect();
                    let mut n = 0;
                    for (i, held) in held.into_iter().enumerate() {
                        match i % 4 {
                            0 => held.abort().unwrap(),
                            1 => drop(held),
                            _ => {
                                let options = CommitOptions { ack: Ack::Memory, ack_timeout: WAIT };
                                held.commit(&sized(i as u64), &options).unwrap();
                                held.commit(&sized(i as u64), &options).unwrap();
                                n += 1;
                            }
                        }
                    }
                    n
                })
            })
            .collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    assert_eq!(commits.iter().sum::<usize>(), 2000);
    nothing_is_held(&engine);
    engine.flush(WAIT).unwrap();
    let records = r.records();
    let keys: BTreeSet<&str> = records.iter().map(|r| r.key.as_str()).collect();
    assert_eq!((records.len(), keys.len()), (2000, 2000));
    assert!(keys.iter().all(|k| k.rsplit('/').next().unwrap().parse::<usize>().unwrap() % 4 > 1));
    engine.close(WAIT).unwrap();
}

#[test]
fn durable_intents_of_many_threads_share_syncs_and_all_get_their_end() {
    let dir = tempfile::tempdir().unwrap();
    let r = receiver();
    let engine = open(dir.path(), &r.url());
    std::thread::scope(|s| {
        for t in 0..8 {
            let engine = &engine;
            s.spawn(move || {
                for i in 0..25 {
                    let held = reserve(engine, &format!("t{t}/{i}"), &DURABLE);
                    if i % 5 == 0 {
                        drop(held);
                    } else {
                        held.commit(&sized(1), &CommitOptions::default()).unwrap();
                    }
                }
            });
        }
    });
    nothing_is_held(&engine);
    engine.flush(WAIT).unwrap();
    let ids: BTreeSet<String> = r.records().into_iter().map(|r| r.event_id).collect();
    assert_eq!((r.records().len(), ids.len()), (160, 160));
    let crashed = copy(dir.path());
    engine.close(WAIT).unwrap();
    for dir in [dir.path(), crashed.path()] {
        let engine = open(dir, NOWHERE);
        assert_eq!(tokens(&engine), []);
        engine.close(Duration::ZERO).unwrap();
    }
}

#[test]
fn the_order_of_a_key_is_that_of_the_commits() {
    let dir = tempfile::tempdir().unwrap();
    let r = receiver();
    let engine = open(dir.path(), &r.url());
    let held: Vec<Reservation> =
        (0..20).map(|i| reserve(&engine, "key", if i % 2 == 0 { &DURABLE } else { &DURABLE_NOT })).collect();
    let memory = CommitOptions { ack: Ack::Memory, ack_timeout: WAIT };
    for (n, i) in [7, 3, 19, 0, 1, 18, 2, 17, 4, 16].into_iter().enumerate() {
        held[i].commit(&sized(2 * n as u64), &memory).unwrap();
        let mut between = put("key");
        between.size = Some(2 * n as u64 + 1);
        engine.publish_with(&between, &PublishOptions { ack: Ack::Memory, ..PublishOptions::default() }).unwrap();
    }
    drop(held);
    engine.flush(WAIT).unwrap();
    let sizes: Vec<u64> = r.records().iter().map(|r| r.size.unwrap()).collect();
    assert_eq!(sizes, (0..20).collect::<Vec<_>>());
    assert!(check_per_key_order(&r.records()).is_empty());
    engine.close(WAIT).unwrap();
}

const DURABLE_NOT: ReserveOptions = ReserveOptions { intent: Intent::None, ..DURABLE };

#[test]
fn a_crash_at_any_step_leaves_what_the_host_can_decide() {
    let dir = tempfile::tempdir().unwrap();
    let r = receiver();
    let engine = open(dir.path(), &r.url());
    let nothing = copy(dir.path());
    let held = reserve(&engine, "key", &DURABLE);
    let other = reserve(&engine, "other", &DURABLE);
    let token = held.token().unwrap();
    let reserved = copy(dir.path());
    held.commit(&sized(5), &CommitOptions::default()).unwrap();
    let committed = copy(dir.path());
    other.abort().unwrap();
    // An abort is not waited for; an event after it is.
    engine.publish(&put("other")).unwrap();
    engine.publish(&put("key")).unwrap();
    let aborted = copy(dir.path());
    engine.close(WAIT).unwrap();

    let crashed = open(nothing.path(), NOWHERE);
    assert_eq!(tokens(&crashed), []);
    crashed.close(Duration::ZERO).unwrap();

    // Between the intent and what the host did: it says which. Both ways, from the same crash.
    for commit in [true, false] {
        let again = copy(reserved.path());
        let r = receiver();
        let crashed = open(again.path(), &r.url());
        let in_doubt = crashed.in_doubt().unwrap();
        assert_eq!((in_doubt.len(), crashed.stats().in_doubt), (2, 2));
        let doubt = in_doubt.iter().find(|d| d.token == token).unwrap();
        assert_eq!((doubt.event().bucket(), doubt.event().key()), ("bucket", &b"key"[..]));
        assert!(doubt.reserved_ns > 1_600_000_000_000_000_000);
        let wrong = crashed.resolve(token, Resolution::Commit(&put("another"))).unwrap_err();
        assert_eq!(wrong.kind(), ErrorKind::InvalidEvent);
        let unknown = crashed.resolve(EventId { incarnation: 1, ..token }, Resolution::Abort).unwrap_err();
        assert_eq!(unknown.kind(), ErrorKind::NotFound);
        let unknown = crashed.resolve(EventId { shard: 99, ..token }, Resolution::Abort).unwrap_err();
        assert_eq!(unknown.kind(), ErrorKind::NotFound);
        let mut event = put("key");
        event.size = Some(5);
        let (said, opposite) = match commit {
            true => (Resolution::Commit(&event), Resolution::Abort),
            false => (Resolution::Abort, Resolution::Commit(&event)),
        };
        crashed.resolve(token, said).unwrap();
        crashed.resolve(token, said).unwrap();
        assert_eq!(crashed.resolve(token, opposite).unwrap_err().kind(), ErrorKind::InvalidArgument);
        // The next crash knows what was said, and still asks for the other one.
        let later = copy(again.path());
        crashed.flush(WAIT).unwrap();
        crashed.close(WAIT).unwrap();
        let arrived: Vec<_> = r.records().into_iter().map(|r| (r.event_id, r.size)).collect();
        let expected = if commit { vec![(token.to_string(), Some(5))] } else { vec![] };
        assert_eq!(arrived, expected);
        for dir in [later.path(), again.path()] {
            let reopened = open(dir, NOWHERE);
            assert_eq!(tokens(&reopened), [doubt_of(&in_doubt, "other")]);
            reopened.close(Duration::ZERO).unwrap();
        }
    }

    let crashed = open(committed.path(), NOWHERE);
    assert_eq!(tokens(&crashed).len(), 1);
    crashed.close(Duration::ZERO).unwrap();
    let ids: Vec<String> = delivered_by(committed.path()).into_iter().map(|r| r.event_id).collect();
    assert_eq!(ids, [token.to_string()], "with the id that it had before the crash");

    let crashed = open(aborted.path(), NOWHERE);
    assert_eq!(tokens(&crashed), []);
    crashed.close(Duration::ZERO).unwrap();
}

fn doubt_of(in_doubt: &[tidewire::InDoubt], key: &str) -> EventId {
    in_doubt.iter().find(|d| d.event().key() == key.as_bytes()).unwrap().token
}

#[test]
fn an_old_intent_is_found_and_keeps_its_segment_until_it_has_an_end() {
    let dir = tempfile::tempdir().unwrap();
    let r = receiver();
    let mut engine = Engine::open_with(config(dir.path(), 1), rules(&r.url())).unwrap();
    let held = reserve(&engine, "old", &DURABLE);
    let token = held.token().unwrap();
    let segment = |n: u64| dir.path().join("shard-0000").join(format!("{n:016x}.log"));
    let data = format!("{:?}", "x".repeat(20_000));
    let fill = |engine: &Engine, key: &str| {
        let mut event = put(key);
        event.data = data.as_bytes();
        for _ in 0..200 {
            engine.publish_with(&event, &PublishOptions { ack: Ack::Memory, ..PublishOptions::default() }).unwrap();
        }
        engine.publish(&put(key)).unwrap();
        engine.flush(WAIT).unwrap();
    };
    fill(&engine, "new");
    let resolved = reserve(&engine, "resolved", &DURABLE);
    resolved.commit(&sized(1), &CommitOptions::default()).unwrap();
    // Everything is delivered, but the intent has no end. Segments go in order, so those behind it stay with it.
    std::thread::sleep(Duration::from_millis(300));
    assert!(segment(1).exists() && segment(4).exists());
    for round in 0..3 {
        let crashed = copy(dir.path());
        // The reservation is lost with its process.
        let again = Engine::open_with(config(crashed.path(), 1), rules(&r.url())).unwrap();
        assert_eq!(tokens(&again), [token], "round {round}");
        fill(&again, "newer");
        again.close(WAIT).unwrap();
        let again = Engine::open_with(config(crashed.path(), 1), rules(&r.url())).unwrap();
        assert_eq!(tokens(&again), [token], "round {round}, closed");
        again.resolve(token, Resolution::Abort).unwrap();
        again.flush(WAIT).unwrap();
        again.close(WAIT).unwrap();
        let left = std::fs::read_dir(crashed.path().join("shard-0000")).unwrap();
        let left = left.filter(|e| e.as_ref().unwrap().path().extension().is_some_and(|e| e == "log")).count();
        assert_eq!(left, 0, "everything has its end, so no segment is left");
        fill(&engine, "more");
    }
    held.commit(&sized(1), &CommitOptions::default()).unwrap();
    engine.flush(WAIT).unwrap();
    engine.close(WAIT).unwrap();
    assert!(!segment(1).exists());
    engine = Engine::open_with(config(dir.path(), 1), rules(&r.url())).unwrap();
    assert_eq!(tokens(&engine), []);
    engine.close(WAIT).unwrap();
}

#[test]
fn closing_waits_for_open_reservations() {
    let dir = tempfile::tempdir().unwrap();
    let r = receiver();
    let engine = open(dir.path(), &r.url());
    let (committed, aborted) = (reserve(&engine, "committed", &DURABLE), reserve(&engine, "aborted", &DURABLE_NOT));
    std::thread::scope(|s| {
        let closing = s.spawn(|| engine.close(Duration::from_secs(60)));
        while engine.publish(&put("late")).is_ok() {}
        assert_eq!(engine.reserve(&put("late"), &DURABLE).unwrap_err().kind(), ErrorKind::Closed);
        std::thread::sleep(Duration::from_millis(50));
        assert!(!closing.is_finished());
        committed.commit(&sized(3), &CommitOptions::default()).unwrap();
        aborted.abort().unwrap();
        closing.join().unwrap().unwrap();
    });
    assert_eq!(r.records().iter().filter(|r| r.key == "committed").count(), 1);
    let engine = open(dir.path(), NOWHERE);
    assert_eq!(tokens(&engine), []);
    engine.close(Duration::ZERO).unwrap();
}

#[test]
fn a_commit_after_the_close_is_refused_and_a_durable_one_is_in_doubt() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path(), NOWHERE);
    let (durable, volatile) = (reserve(&engine, "durable", &DURABLE), reserve(&engine, "volatile", &DURABLE_NOT));
    let dropped = reserve(&engine, "dropped", &DURABLE);
    engine.close(Duration::from_millis(50)).unwrap();
    for held in [&durable, &volatile] {
        let e = held.commit(&sized(1), &CommitOptions::default()).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Closed);
    }
    assert_eq!(durable.abort().unwrap_err().kind(), ErrorKind::Closed);
    let expected: BTreeSet<EventId> = [durable.token().unwrap(), dropped.token().unwrap()].into();
    drop((durable, volatile, dropped));
    nothing_is_held(&engine);
    let engine = open(dir.path(), NOWHERE);
    assert_eq!(tokens(&engine).into_iter().collect::<BTreeSet<_>>(), expected);
    engine.close(Duration::ZERO).unwrap();
}

#[test]
fn a_batch_is_held_as_a_whole_and_each_key_has_an_id_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let r = receiver();
    let engine = open(dir.path(), &r.url());
    let keys: Vec<String> = (0..100).map(|i| format!("k{i}")).collect();
    let mut events: Vec<Event<'_>> = keys
        .iter()
        .map(|k| {
            let mut e = Event::new(KnownType::ObjectRemovedDelete.into(), "bucket", k.as_bytes());
            // One request removes them all.
            e.request_id = "REQUEST";
            e
        })
        .collect();
    events[50].event_type = KnownType::ObjectTaggingPut.into();
    for options in [DURABLE, DURABLE_NOT] {
        let before = r.records().len();
        let syncs = engine.stats().syncs;
        let ReservedBatch::Held(batch) = engine.reserve_batch(&events, &options).unwrap() else { panic!() };
        assert!(engine.stats().syncs - syncs < 20, "the intents are synced together");
        assert_eq!((batch.len(), engine.stats().reservations), (100, 99));
        assert!(batch.get(50).is_none() && batch.get(100).is_none());
        batch.get(3).unwrap().abort().unwrap();
        batch.get(4).unwrap().commit(&sized(4), &CommitOptions::default()).unwrap();
        let e = batch.commit_all(&[], &CommitOptions::default()).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::InvalidArgument);
        let fields: Vec<CommitFields<'_>> = (0..100).map(|_| CommitFields::default()).collect();
        batch.commit_all(&fields, &CommitOptions::default()).unwrap();
        batch.commit_all(&fields, &CommitOptions::default()).unwrap();
        engine.flush(WAIT).unwrap();
        assert_eq!(r.records().len() - before, 98);
    }
    let ids: BTreeSet<String> = r.records().into_iter().map(|r| r.event_id).collect();
    assert_eq!(ids.len(), 2 * 98);
    let ReservedBatch::Held(batch) = engine.reserve_batch(&events, &DURABLE).unwrap() else { panic!() };
    batch.abort_all().unwrap();
    drop(engine.reserve_batch(&events, &DURABLE).unwrap());
    nothing_is_held(&engine);
    engine.flush(WAIT).unwrap();
    assert_eq!(r.records().len(), 2 * 98);
    engine.close(WAIT).unwrap();
}

#[test]
fn a_batch_for_which_there_is_no_room_holds_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut c = config(dir.path(), 1);
    c.ring_bytes = 256 << 10;
    let engine = Engine::open_with(c, rules(NOWHERE)).unwrap();
    let keys: Vec<String> = (0..1000).map(|i| format!("k{i}")).collect();
    let events: Vec<Event<'_>> = keys.iter().map(|k| put(k)).collect();
    for options in
        [ReserveOptions::default(), ReserveOptions { on_full: OnFull::Block(Duration::from_millis(20)), ..DURABLE }]
    {
        let answer = engine.reserve_batch(&events, &options).unwrap();
        assert!(matches!(answer, ReservedBatch::WouldBlock), "{answer:?}");
        nothing_is_held(&engine);
    }
    let mut bad = events[..10].to_vec();
    bad[9].key = b"";
    assert_eq!(engine.reserve_batch(&bad, &DURABLE).unwrap_err().kind(), ErrorKind::InvalidEvent);
    nothing_is_held(&engine);
    assert_eq!(engine.stats().log_bytes, 0);
    engine.close(Duration::ZERO).unwrap();
}

#[test]
fn a_constant_request_id_does_not_make_ids_equal() {
    let dir = tempfile::tempdir().unwrap();
    let r = receiver();
    let mut ids: BTreeMap<String, usize> = BTreeMap::new();
    let mut expected = 0;
    for _ in 0..3 {
        let engine = open(dir.path(), &r.url());
        for key in ["a", "b", "a"] {
            let mut event = put(key);
            event.request_id = "0000";
            engine.publish(&event).unwrap();
            let Reserved::Held(held) = engine.reserve(&event, &DURABLE).unwrap() else { panic!() };
            held.commit(&sized(1), &CommitOptions::default()).unwrap();
            expected += 2;
        }
        engine.flush(WAIT).unwrap();
        engine.close(WAIT).unwrap();
    }
    for record in r.records() {
        *ids.entry(record.event_id).or_default() += 1;
    }
    assert_eq!(ids.len(), expected);
}

/// Before the operation nobody knows the size, so that a rule that asks for it may want the event.
#[test]
fn what_is_not_known_yet_is_decided_when_it_is() {
    let (dir, r) = (tempfile::tempdir().unwrap(), receiver());
    let types = EventTypes::default();
    let hook = Destination::new("hook", DestinationKind::Webhook(Webhook::new(&r.url()).unwrap()));
    let mut large = Rule::new("large", ["s3:ObjectCreated:*"], &types).unwrap().with_destination("hook");
    large.filter = Filter::all([Filter::new("in/", ""), Filter::Is(Field::Size, Test::Number(Range::at_least(10u64)))]);
    let rules = RuleSet::build(vec![large], vec![hook], types).unwrap();
    let engine = Engine::open_with(config(dir.path(), 1), rules).unwrap();
    for (key, size) in [("in/small", 9), ("in/large", 10)] {
        reserve(&engine, key, &ReserveOptions::default()).commit(&sized(size), &CommitOptions::default()).unwrap();
    }
    // The key is known: no size can help here.
    let other = engine.reserve(&put("out/large"), &ReserveOptions::default()).unwrap();
    assert!(matches!(other, Reserved::NoMatch), "{other:?}");
    engine.flush(WAIT).unwrap();
    engine.close(WAIT).unwrap();
    let arrived: Vec<String> = r.records().into_iter().map(|x| x.key).collect();
    assert_eq!(arrived, ["in/large"]);
}

#[test]
fn a_flush_ends_although_nothing_came_of_what_was_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path(), NOWHERE);
    for _ in 0..20 {
        // Each leaves a place in the ring, and nothing for the log.
        reserve(&engine, "aborted", &ReserveOptions::default()).abort().unwrap();
        engine.flush(WAIT).unwrap();
    }
    engine.close(WAIT).unwrap();
}
