//! Queues within their limits: every policy, what it costs, and that all of it is accounted for.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tidewire::config::EngineConfig;
use tidewire::event::EventTypes;
use tidewire::filter::Filter;
use tidewire::rule::{BreakerPolicy, Destination, DestinationKind, OnQueueFull, Rule, RuleSet, Webhook};
use tidewire::{
    Ack, DeadLetterFilter, DestinationStats, Engine, ErrorKind, Event, KnownType, LossReason, OnFull, Priority,
    PublishOptions, RecordedLoss,
};
use tidewire_receiver::{Behaviour, Receiver, Reply, check_per_key_order};

const WAIT: Duration = Duration::from_secs(120);
const DOWN: &str = "http://127.0.0.1:9/";

fn receiver(behaviour: Behaviour) -> Receiver {
    Receiver::start("127.0.0.1:0".parse().unwrap(), behaviour).unwrap()
}

/// A webhook that tries again soon, and for ever.
fn hook(name: &str, url: &str) -> Destination {
    let mut d = Destination::new(name, DestinationKind::Webhook(Webhook::new(url).unwrap()));
    d.retry.backoff_min = Duration::from_millis(5);
    d.retry.backoff_max = Duration::from_millis(20);
    d.breaker = BreakerPolicy {
        consecutive_failures: 5,
        open_min: Duration::from_millis(10),
        open_max: Duration::from_millis(20),
        ..BreakerPolicy::default()
    };
    d
}

fn limited(name: &str, url: &str, events_max: u64, on_full: OnQueueFull) -> Destination {
    let mut d = hook(name, url);
    d.queue.events_max = Some(events_max);
    d.queue.on_full = on_full;
    d
}

/// Creations go to every destination; those with keys that begin with `low/` or `high/` with that priority.
fn rules(destinations: Vec<Destination>) -> RuleSet {
    let types = EventTypes::default();
    let mut rules = Vec::new();
    for (prefix, priority) in
        [("low/", Some(Priority::Low)), ("high/", Some(Priority::High)), ("n/", None), ("k", None)]
    {
        for d in &destinations {
            let id = format!("{prefix}{}", d.name);
            let mut rule = Rule::new(id, ["s3:ObjectCreated:*"], &types).unwrap().with_destination(&d.name);
            rule.filter = Filter::new(prefix, "");
            rule.priority = priority;
            rules.push(rule);
        }
    }
    RuleSet::build(rules, destinations, types).unwrap()
}

fn config(dir: &Path, shards: usize) -> EngineConfig {
    let mut c = EngineConfig::new(dir);
    c.shards = Some(shards);
    c.close_timeout = Duration::from_secs(5);
    c.log.segment_bytes = 1 << 20;
    c
}

fn open(dir: &Path, shards: usize, destinations: Vec<Destination>) -> Engine {
    Engine::open_with(config(dir, shards), rules(destinations)).unwrap()
}

fn try_put(engine: &Engine, key: &str, size: u64, ack: Ack) -> tidewire::Result<()> {
    let mut e = Event::new(KnownType::ObjectCreatedPut.into(), "bucket", key.as_bytes());
    e.size = Some(size);
    let receipt = engine.submit(&e, &PublishOptions { ack, ..PublishOptions::default() })?;
    if let Some(receipt) = receipt.filter(|_| ack > Ack::Memory) {
        receipt.wait(ack, Some(Instant::now() + WAIT))?;
        // What is durable may be told before the shard has looked; what is written is in the queues.
        receipt.wait(Ack::Written, Some(Instant::now() + WAIT))?;
    }
    Ok(())
}

fn put(engine: &Engine, key: &str, size: u64) {
    try_put(engine, key, size, Ack::Memory).unwrap();
}

fn put_synced(engine: &Engine, key: &str, size: u64) {
    try_put(engine, key, size, Ack::Synced).unwrap();
}

fn of(engine: &Engine, name: &str) -> DestinationStats {
    engine.stats().destinations.into_iter().find(|d| d.name == name).unwrap_or_default()
}

fn until(what: &str, engine: &Engine, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + WAIT;
    while !done() {
        assert!(Instant::now() < deadline, "gave up waiting until {what}: {:?}", engine.stats().destinations);
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Everything that came is delivered, waiting, dead or dropped.
fn balanced(d: &DestinationStats) -> bool {
    d.inherited + d.routed == d.delivered + d.dead_lettered + d.dropped + d.waiting
}

fn losses(engine: &Engine) -> Vec<RecordedLoss> {
    let mut out = Vec::new();
    engine
        .each_loss(|l| {
            out.push(l);
            ControlFlow::Continue(())
        })
        .unwrap();
    out
}

fn dead(engine: &Engine) -> Vec<String> {
    let letters = engine.dead_letters(&DeadLetterFilter::default(), None, 10_000).unwrap();
    letters.into_iter().map(|l| String::from_utf8(l.key).unwrap()).collect()
}

/// The sizes of the accepted records: the events' numbers.
fn delivered(r: &Receiver) -> Vec<u64> {
    r.records().iter().filter(|x| x.accepted).map(|x| x.size.unwrap()).collect()
}

/// A queue of three for a destination that is down, and five events.
fn three_of_five(on_full: OnQueueFull) -> (tempfile::TempDir, Engine, Vec<tidewire::Result<()>>) {
    let dir = tempfile::tempdir().unwrap();
    let mut d = limited("hook", DOWN, 3, on_full);
    d.queue.block_timeout = Duration::from_millis(50);
    // What is on its way just then is not shed, so nothing is.
    d.batch.linger = Duration::from_secs(30);
    let engine = open(dir.path(), 1, vec![d]);
    // Durable, so that the queue is what it is before the next one comes.
    let results = (0..5).map(|n| try_put(&engine, &format!("k{n}"), n, Ack::Synced)).collect();
    (dir, engine, results)
}

/// Also events that go into the log together are counted one by one.
#[test]
fn a_burst_that_waits_for_nothing_fills_the_queue_and_no_more() {
    for _ in 0..20 {
        let dir = tempfile::tempdir().unwrap();
        let engine = open(dir.path(), 1, vec![limited("hook", DOWN, 3, OnQueueFull::DropNewest)]);
        (0..50).for_each(|n| try_put(&engine, &format!("k{n}"), n, Ack::Memory).unwrap());
        until("all came", &engine, || of(&engine, "hook").routed == 50);
        let d = of(&engine, "hook");
        assert!(d.waiting == 3 && d.dropped == 47 && balanced(&d), "{d:?}");
        engine.close(Duration::ZERO).unwrap();
    }
}

#[test]
fn queue_limit_reached_new_events_silently_dropped() {
    let (_dir, engine, results) = three_of_five(OnQueueFull::DropNewest);
    assert!(results.iter().all(Result::is_ok));
    let d = of(&engine, "hook");
    assert_eq!((d.routed, d.waiting, d.dropped), (5, 3, 2));
    assert_eq!(d.losses, BTreeMap::from([(LossReason::DropNewest, 2)]));
    assert!(d.queue_warning && balanced(&d));
    let told = losses(&engine);
    assert_eq!(told.len(), 2);
    for (l, n) in told.iter().zip(3..) {
        assert_eq!((l.reason, &*l.destination, &*l.rule), (LossReason::DropNewest, "hook", "khook"));
        assert_eq!(
            (&*l.event_type, &*l.bucket, &l.key[..]),
            ("s3:ObjectCreated:Put", "bucket", format!("k{n}").as_bytes())
        );
        assert_eq!((l.event_id, l.count), (None, 1), "it was never stored");
    }
    let counts = engine.loss_counts();
    assert_eq!((counts.len(), &*counts[0].rule, counts[0].count), (1, "khook", 2));
    engine.close(Duration::ZERO).unwrap();
}

#[test]
fn endpoint_down_then_queue_full_then_storage_writes_refused_without_a_choice() {
    // By default nobody is refused: the oldest become dead letters.
    let (_dir, engine, results) = three_of_five(OnQueueFull::default());
    assert!(results.iter().all(Result::is_ok));
    until("two are dead letters", &engine, || of(&engine, "hook").dead_lettered == 2);
    assert_eq!(dead(&engine), ["k0", "k1"]);
    until("it is balanced", &engine, || balanced(&of(&engine, "hook")));
    engine.close(Duration::ZERO).unwrap();

    // Only who asks for it is told.
    for on_full in [OnQueueFull::Refuse, OnQueueFull::Block] {
        let (_dir, engine, results) = three_of_five(on_full);
        assert_eq!(results.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, true, true, false, false]);
        let e = results[4].as_ref().unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Full);
        assert!(
            e.to_string().contains("destination `hook` is full: 3 events") && e.to_string().contains("on_full"),
            "{e}"
        );
        let (s, d) = (engine.stats(), of(&engine, "hook"));
        assert_eq!((s.refused_queue, d.refused, d.routed, d.waiting, d.dropped), (2, 2, 3, 3, 0));
        engine.close(Duration::ZERO).unwrap();
    }
}

#[test]
fn a_destination_that_refuses_refuses_for_itself_only() {
    let dir = tempfile::tempdir().unwrap();
    let r = receiver(Behaviour::Ok204);
    let mut one = limited("one", DOWN, 2, OnQueueFull::Refuse);
    one.queue.warn_at = 1.0;
    let types = EventTypes::default();
    let to = |id: &str, prefix: &str, name: &str| {
        let mut rule = Rule::new(id, ["s3:ObjectCreated:*"], &types).unwrap().with_destination(name);
        rule.filter = Filter::new(prefix, "");
        rule
    };
    let set = vec![to("a", "a/", "one"), to("b", "b/", "other")];
    let set = RuleSet::build(set, vec![one, hook("other", &r.url())], types.clone()).unwrap();
    let engine = Engine::open_with(config(dir.path(), 2), set).unwrap();
    let mut refused = 0;
    for n in 0..20 {
        refused += u64::from(try_put(&engine, &format!("a/{n}"), n, Ack::Synced).is_err());
        put_synced(&engine, &format!("b/{n}"), n);
    }
    assert_eq!(refused, 18);
    until("the other one has all", &engine, || r.accepted() == 20);
    engine.close(Duration::ZERO).unwrap();
}

#[test]
fn a_blocked_publisher_goes_on_when_there_is_room_again() {
    let dir = tempfile::tempdir().unwrap();
    let open_now = Arc::new(AtomicBool::new(false));
    let gate = open_now.clone();
    let r = receiver(Behaviour::decide(move |_| Reply::status(if gate.load(Ordering::SeqCst) { 204 } else { 503 })));
    let mut d = limited("hook", &r.url(), 5, OnQueueFull::Block);
    d.queue.block_timeout = WAIT;
    let engine = open(dir.path(), 2, vec![d]);
    std::thread::scope(|s| {
        let publisher = s.spawn(|| (0..50).for_each(|n| put_synced(&engine, &format!("k{}", n % 5), n)));
        until("it is blocked", &engine, || of(&engine, "hook").waiting >= 5);
        assert!(!publisher.is_finished());
        open_now.store(true, Ordering::SeqCst);
        publisher.join().unwrap();
    });
    engine.flush(WAIT).unwrap();
    let d = of(&engine, "hook");
    assert_eq!((d.delivered, d.refused, d.dropped), (50, 0, 0));
    assert!(check_per_key_order(&r.records()).is_empty());
    engine.close(WAIT).unwrap();
}

#[test]
fn closing_frees_a_blocked_publisher() {
    let dir = tempfile::tempdir().unwrap();
    let mut d = limited("hook", DOWN, 1, OnQueueFull::Block);
    d.queue.block_timeout = Duration::from_secs(3600);
    let engine = open(dir.path(), 1, vec![d]);
    put_synced(&engine, "k0", 0);
    std::thread::scope(|s| {
        let blocked = s.spawn(|| try_put(&engine, "k1", 1, Ack::Memory));
        std::thread::sleep(Duration::from_millis(50));
        engine.close(Duration::ZERO).unwrap();
        assert_eq!(blocked.join().unwrap().unwrap_err().kind(), ErrorKind::Closed);
    });
}

/// Under every policy, with failures, restarts and several shards: what came is what was delivered, waits, is dead, or was
/// dropped; the audit tells of each that was dropped, and no event is in two of these.
#[test]
fn everything_is_accounted_for_under_every_policy() {
    for (on_full, _) in OnQueueFull::ALL {
        let dir = tempfile::tempdir().unwrap();
        let r = receiver(Behaviour::Status(503));
        let make = || {
            let mut d = limited("hook", &r.url(), 100, on_full);
            d.queue.block_timeout = Duration::from_millis(1);
            vec![d]
        };
        let (mut accepted, mut refused) = (Vec::new(), 0);
        let mut dropped = BTreeSet::new();
        let mut dead_lettered = 0;
        for run in 0..3u64 {
            let engine = open(dir.path(), 2, make());
            if run == 2 {
                r.set_behaviour(Behaviour::Ok204);
            }
            for n in run * 1000..run * 1000 + 1000 {
                let prefix = ["low/", "n/", "high/", "k"][n as usize % 4];
                // Now and then somebody waits, so that the queue is known to be full.
                let ack = if n % 20 == 0 { Ack::Synced } else { Ack::Memory };
                match try_put(&engine, &format!("{prefix}{}", n % 50), n, ack) {
                    Ok(()) => accepted.push(n),
                    Err(e) => {
                        assert_eq!(e.kind(), ErrorKind::Full);
                        refused += 1;
                    }
                }
            }
            if run == 2 {
                engine.flush(WAIT).unwrap();
            }
            let name = on_full.name();
            until(&format!("{name}: the run is balanced"), &engine, || {
                let d = of(&engine, "hook");
                balanced(&d) && d.routed + refused >= 1000 && (on_full.is_told() || d.waiting <= 200)
            });
            engine.close(Duration::ZERO).unwrap();
            let d = of(&engine, "hook");
            dead_lettered += d.dead_lettered;
            assert_eq!(d.dropped, d.losses.values().sum::<u64>(), "{name}");
            assert!(balanced(&d), "{name}: {d:?}");
            if run == 2 {
                assert_eq!((d.waiting, d.inherited + d.routed), (0, d.delivered + d.dead_lettered + d.dropped));
            }
        }
        // And event by event.
        tidewire::log::losses::each_loss(dir.path(), |l| {
            assert_eq!(l.count, 1);
            assert!(l.event_id.is_none_or(|id| dropped.insert(id.to_string())), "{} told twice", l.event_id.unwrap());
            if l.event_id.is_none() {
                dropped.insert(format!("new {}", l.number * 2 + u64::from(l.shard)));
            }
            ControlFlow::Continue(())
        })
        .unwrap();
        let mut letters = BTreeSet::new();
        tidewire::log::dead::each_dead_letter(dir.path(), &DeadLetterFilter::default(), None, |l| {
            letters.insert(l.event_id.to_string());
            ControlFlow::Continue(())
        })
        .unwrap();
        assert_eq!(letters.len() as u64, dead_lettered);
        let arrived: BTreeSet<String> = r.records().into_iter().filter(|x| x.accepted).map(|x| x.event_id).collect();
        assert!(arrived.is_disjoint(&letters) && arrived.is_disjoint(&dropped) && letters.is_disjoint(&dropped));
        let name = on_full.name();
        assert_eq!(arrived.len() + letters.len() + dropped.len(), accepted.len(), "{name}");
        match on_full {
            OnQueueFull::DropOldest | OnQueueFull::DropNewest => assert!(!dropped.is_empty(), "{name}"),
            OnQueueFull::DeadLetterOldest => assert!(!letters.is_empty(), "{name}"),
            _ => assert!(refused > 0 && dropped.is_empty() && letters.is_empty(), "{name}"),
        }
        assert!(check_per_key_order(&r.records()).is_empty(), "{name}");
    }
}

#[test]
fn what_waits_is_counted_exactly_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let r = receiver(Behaviour::decide(|hit| {
        Reply::status(if hit.records.iter().any(|r| r.key.starts_with("n/")) { 404 } else { 204 })
    }));
    let one = || {
        let mut d = hook("hook", &r.url());
        d.batch.events_max = 1;
        d.concurrency = 16;
        d.retry.backoff_min = Duration::from_secs(3600);
        d.retry.backoff_max = Duration::from_secs(3600);
        vec![d]
    };
    let engine = open(dir.path(), 2, one());
    for n in 0..3000u64 {
        put(&engine, &format!("{}{:0>300}", if n % 3 == 0 { "n/" } else { "k" }, n), n);
    }
    until("the good ones are delivered", &engine, || of(&engine, "hook").waiting == 1000);
    let bytes = of(&engine, "hook").waiting_bytes;
    engine.close(Duration::ZERO).unwrap();
    for _ in 0..2 {
        let engine = open(dir.path(), 2, one());
        until("the rest is counted", &engine, || of(&engine, "hook").inherited == 1000);
        let d = of(&engine, "hook");
        assert_eq!((d.waiting, d.waiting_bytes, d.routed), (1000, bytes, 0));
        engine.close(Duration::ZERO).unwrap();
    }
    r.set_behaviour(Behaviour::Ok204);
    let engine = open(dir.path(), 2, one());
    engine.flush(WAIT).unwrap();
    until("nothing is left", &engine, || of(&engine, "hook").waiting == 0 && balanced(&of(&engine, "hook")));
    assert_eq!(of(&engine, "hook").waiting_bytes, 0);
    engine.close(WAIT).unwrap();
}

/// With a saved count, a crash would leave a queue that is full for ever.
#[test]
fn after_a_crash_the_queue_is_as_full_as_its_log() {
    let dir = tempfile::tempdir().unwrap();
    let copy = tempfile::tempdir().unwrap();
    let r = receiver(Behaviour::Status(503));
    let engine = open(dir.path(), 1, vec![limited("hook", &r.url(), 50, OnQueueFull::Refuse)]);
    (0..40).for_each(|n| put_synced(&engine, &format!("k{n}"), n));
    // What a crash would leave.
    copy_dir(dir.path(), copy.path());
    engine.close(Duration::ZERO).unwrap();
    let engine = open(copy.path(), 1, vec![limited("hook", &r.url(), 50, OnQueueFull::Refuse)]);
    until("it is counted", &engine, || of(&engine, "hook").waiting == 40);
    let taken = (40..60).filter(|n| try_put(&engine, &format!("k{n}"), *n, Ack::Synced).is_ok()).count();
    assert_eq!(taken, 10);
    r.set_behaviour(Behaviour::Ok204);
    engine.flush(WAIT).unwrap();
    put_synced(&engine, "k99", 99);
    engine.flush(WAIT).unwrap();
    assert!(balanced(&of(&engine, "hook")));
    engine.close(WAIT).unwrap();
}

fn copy_dir(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            std::fs::create_dir_all(&target).unwrap();
            copy_dir(&entry.path(), &target);
        } else if entry.file_name() != "LOCK" {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
fn what_was_shed_does_not_come_back_with_a_restart() {
    for on_full in [OnQueueFull::DropOldest, OnQueueFull::DeadLetterOldest] {
        let dir = tempfile::tempdir().unwrap();
        let copy = tempfile::tempdir().unwrap();
        let make = |url: &str| {
            let mut d = limited("hook", url, 100, on_full);
            d.batch.events_max = 7;
            vec![d]
        };
        let small = |dir: &Path| {
            let mut c = config(dir, 1);
            c.delivery.lane_events_max = 64;
            c
        };
        let slow = receiver(Behaviour::Delay(Duration::from_secs(20)));
        let engine = Engine::open_with(small(dir.path()), rules(make(&slow.url()))).unwrap();
        // Some are on their way while the others are shed.
        for n in 0..2000u64 {
            put(&engine, &format!("{}{:0>200}", ["low/", "n/", "high/"][n as usize % 3], n % 100), n);
        }
        put_synced(&engine, "high/last", 2000);
        let shed = |d: &DestinationStats| d.dropped + d.dead_lettered;
        until("the queue is within its limit", &engine, || {
            let d = of(&engine, "hook");
            d.waiting <= 100 && balanced(&d)
        });
        let before = of(&engine, "hook");
        assert!(shed(&before) >= 1900);
        // Long enough for the cursors to be saved.
        std::thread::sleep(Duration::from_millis(400));
        copy_dir(dir.path(), copy.path());
        engine.close(Duration::ZERO).unwrap();

        for (crashed, path) in [(true, copy.path()), (false, dir.path())] {
            let r = receiver(Behaviour::Ok204);
            let engine = Engine::open_with(small(path), rules(make(&r.url()))).unwrap();
            engine.flush(WAIT).unwrap();
            until("it is balanced", &engine, || balanced(&of(&engine, "hook")));
            let d = of(&engine, "hook");
            assert_eq!((d.delivered, shed(&d)), (before.waiting, 0), "{} crashed: {crashed}", on_full.name());
            let numbers: BTreeSet<u64> = delivered(&r).into_iter().collect();
            assert_eq!((numbers.len() as u64, numbers.last()), (before.waiting, Some(&2000)), "{numbers:?}");
            assert!(check_per_key_order(&r.records()).is_empty());
            engine.close(WAIT).unwrap();
            let mut told = BTreeSet::new();
            tidewire::log::losses::each_loss(path, |l| {
                assert!(told.insert(l.event_id));
                ControlFlow::Continue(())
            })
            .unwrap();
            assert_eq!(told.len() as u64, before.dropped);
        }
    }
}

#[test]
fn low_priority_is_shed_before_everything_else() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path(), 1, vec![limited("hook", DOWN, 300, OnQueueFull::DropOldest)]);
    // More than can be told in memory, and the least important last.
    for (prefix, from) in [("high/", 0u64), ("n/", 100), ("low/", 200)] {
        (from..from + 100).for_each(|n| put_synced(&engine, &format!("{prefix}{n}"), n));
    }
    for n in 300..350 {
        put_synced(&engine, &format!("n/{n}"), n);
    }
    let settled = |n: u64| {
        let d = of(&engine, "hook");
        d.routed == n && d.waiting <= 300 && balanced(&d)
    };
    until("it has shed", &engine, || settled(350));
    let told = losses(&engine);
    assert!(told.len() >= 50 && told.iter().all(|l| l.key.starts_with(b"low/")), "{}", told.len());
    let keys: Vec<&[u8]> = told.iter().map(|l| &l.key[..]).collect();
    assert_eq!(keys[0], b"low/200", "the oldest of them first");
    for n in 350..600 {
        put_synced(&engine, &format!("high/{n}"), n);
    }
    until("it has shed", &engine, || settled(600));
    let kinds: BTreeMap<Vec<u8>, usize> = losses(&engine).iter().fold(BTreeMap::new(), |mut m, l| {
        *m.entry(l.key.split(|b| *b == b'/').next().unwrap().to_vec()).or_default() += 1;
        m
    });
    assert_eq!((kinds[&b"low"[..]], kinds[&b"n"[..]]), (100, 150), "all that is less important: {kinds:?}");
    engine.close(Duration::ZERO).unwrap();
}

#[test]
fn low_priority_is_refused_early_and_high_priority_late() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path(), 1, vec![limited("hook", DOWN, 10, OnQueueFull::Refuse)]);
    let fill = |prefix: &str, from: u64| {
        (from..).take_while(|n| try_put(&engine, &format!("{prefix}{n}"), *n, Ack::Synced).is_ok()).count()
    };
    assert_eq!(fill("low/", 0), 8, "up to the warning threshold");
    assert_eq!(fill("n/", 100), 2, "up to the limit");
    assert_eq!(fill("high/", 200), 1, "a tenth more");
    assert_eq!(of(&engine, "hook").waiting, 11);
    engine.close(Duration::ZERO).unwrap();
}

#[test]
fn high_priority_overtakes_a_backlog_but_not_its_own_key() {
    let dir = tempfile::tempdir().unwrap();
    let open_now = Arc::new(AtomicBool::new(false));
    let gate = open_now.clone();
    let r = receiver(Behaviour::decide(move |_| Reply::status(if gate.load(Ordering::SeqCst) { 204 } else { 503 })));
    let mut c = config(dir.path(), 1);
    c.delivery.lane_events_max = 128;
    let mut d = hook("hook", &r.url());
    d.batch.events_max = 4;
    d.concurrency = 1;
    let engine = Engine::open_with(c, rules(vec![d])).unwrap();
    // Something has another priority before the lane falls behind.
    put(&engine, "high/first", 0);
    for n in 1..=4000 {
        put(&engine, &format!("k{}", n % 400), n);
    }
    let mut e = Event::new(KnownType::ObjectCreatedPut.into(), "bucket", b"k7");
    e.priority = Priority::High;
    e.size = Some(4001);
    engine.publish(&e).unwrap();
    (4002..4010).for_each(|n| put_synced(&engine, &format!("high/{n}"), n));
    open_now.store(true, Ordering::SeqCst);
    engine.flush(WAIT).unwrap();
    let order = delivered(&r);
    assert_eq!(order.len(), 4010);
    assert!(check_per_key_order(&r.records()).is_empty());
    let place = |n: u64| order.iter().position(|x| *x == n).unwrap();
    for n in 4002..4010 {
        assert!(place(n) < 400, "{n} came as number {} of 4010", place(n));
    }
    assert!(place(4001) > place(3607), "the events of its key come before it");
    engine.close(WAIT).unwrap();
}

#[test]
fn events_that_are_never_tried_grow_old_too() {
    for on_full in [OnQueueFull::DropOldest, OnQueueFull::Refuse] {
        let dir = tempfile::tempdir().unwrap();
        let mut d = hook("hook", DOWN);
        // One failure, and nothing is tried any more.
        d.breaker.consecutive_failures = 1;
        d.breaker.open_min = Duration::from_secs(3600);
        d.breaker.open_max = Duration::from_secs(3600);
        d.retry.backoff_min = Duration::from_secs(3600);
        d.retry.backoff_max = Duration::from_secs(3600);
        d.queue.age_max = Some(Duration::from_millis(1500));
        d.queue.on_full = on_full;
        let engine = open(dir.path(), 2, vec![d]);
        (0..200).for_each(|n| put(&engine, &format!("k{n}"), n));
        until("all are shed", &engine, || {
            let d = of(&engine, "hook");
            d.routed == 200 && d.waiting == 0 && balanced(&d)
        });
        let d = of(&engine, "hook");
        match on_full {
            OnQueueFull::DropOldest => assert_eq!(d.losses, BTreeMap::from([(LossReason::TooOld, 200)])),
            _ => {
                assert_eq!((d.dead_lettered, d.dropped), (200, 0));
                let letters = engine.dead_letters(&DeadLetterFilter::default(), None, 1).unwrap();
                assert!(letters[0].reason.contains("waited in the destination's queue"), "{}", letters[0].reason);
            }
        }
        engine.close(WAIT).unwrap();
    }
}

#[test]
fn the_log_as_a_whole_keeps_within_its_limit() {
    for (on_full, _) in OnQueueFull::ALL {
        let dir = tempfile::tempdir().unwrap();
        let r = receiver(Behaviour::Ok204);
        let mut c = config(dir.path(), 1);
        c.queue.bytes_max = Some(8 << 20);
        c.queue.on_full = on_full;
        c.queue.block_timeout = Duration::from_millis(200);
        let engine = Engine::open_with(c, rules(vec![hook("down", DOWN), hook("up", &r.url())])).unwrap();
        let data = format!("{:?}", "x".repeat(20_000));
        let (mut accepted, mut refused) = (0u64, 0u64);
        for n in 0..1500u64 {
            let key = format!("k{n}");
            let mut e = Event::new(KnownType::ObjectCreatedPut.into(), "bucket", key.as_bytes());
            e.data = data.as_bytes();
            match engine.publish(&e) {
                Ok(_) => accepted += 1,
                Err(e) => {
                    assert_eq!(e.kind(), ErrorKind::Full);
                    assert!(e.to_string().contains("the queue of the log is full"), "{e}");
                    refused += 1;
                    if refused > 3 {
                        break;
                    }
                }
            }
        }
        let name = on_full.name();
        until(&format!("{name}: within the limit"), &engine, || {
            let s = engine.stats();
            s.log_file_bytes <= 8 << 20 || on_full.is_told() || on_full == OnQueueFull::DropNewest
        });
        // Where new ones are kept out, what came in between two looks is over the limit; but not for ever more.
        let files = engine.stats().log_file_bytes;
        assert!(files < 24 << 20, "{name}: {files}");
        until(&format!("{name}: balanced"), &engine, || {
            balanced(&of(&engine, "down")) && balanced(&of(&engine, "up")) && of(&engine, "up").waiting == 0
        });
        let (down, up) = (of(&engine, "down"), of(&engine, "up"));
        assert_eq!((down.routed, up.routed), (accepted, accepted));
        match on_full {
            OnQueueFull::DropOldest => assert!(down.losses[&LossReason::DropOldest] > 500),
            OnQueueFull::DeadLetterOldest => assert!(down.dead_lettered > 500),
            OnQueueFull::DropNewest => assert!(down.losses[&LossReason::DropNewest] > 100),
            _ => assert!(refused > 3 && down.dropped == 0),
        }
        engine.close(Duration::ZERO).unwrap();
    }
}

#[test]
fn a_backlog_larger_than_memory_is_shed_from_disk_and_the_rest_arrives_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let r = receiver(Behaviour::Status(503));
    let mut c = config(dir.path(), 2);
    c.delivery.lane_events_max = 64;
    let mut d = hook("hook", &r.url());
    d.queue.bytes_max = 1 << 20;
    d.queue.on_full = OnQueueFull::DropOldest;
    let engine = Engine::open_with(c, rules(vec![d])).unwrap();
    for n in 0..20_000u64 {
        put(&engine, &format!("k{:0>300}", n % 500), n);
    }
    put_synced(&engine, "k", 20_000);
    until("within the limit", &engine, || {
        let d = of(&engine, "hook");
        d.waiting_bytes <= 1 << 20 && balanced(&d)
    });
    r.set_behaviour(Behaviour::Ok204);
    engine.flush(WAIT).unwrap();
    until("balanced", &engine, || balanced(&of(&engine, "hook")));
    let d = of(&engine, "hook");
    let arrived: BTreeSet<u64> = delivered(&r).into_iter().collect();
    assert_eq!((arrived.len() as u64, d.delivered + d.dropped), (d.delivered, 20_001));
    assert!(arrived.contains(&20_000) && d.dropped > 15_000 && d.delivered > 1000, "{d:?}");
    assert!(check_per_key_order(&r.records()).is_empty());
    assert_eq!(losses(&engine).iter().map(|l| l.count).sum::<u64>(), d.dropped);
    engine.close(WAIT).unwrap();
}

#[test]
fn a_hot_shard_sheds_and_the_others_do_not() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path(), 2, vec![limited("hook", DOWN, 100, OnQueueFull::DropOldest)]);
    // One key is on one shard.
    (0..500).for_each(|n| put(&engine, "k-hot", n));
    for n in 0..20 {
        put(&engine, &format!("k-{n}"), n);
    }
    until("within the limit", &engine, || {
        let d = of(&engine, "hook");
        d.routed == 520 && d.waiting <= 100 && balanced(&d)
    });
    let told = losses(&engine);
    let others = told.iter().filter(|l| l.key != b"k-hot").count();
    // Those of the hot shard may go with it; a shard with less than its share sheds nothing.
    let shards: BTreeSet<u16> = told.iter().map(|l| l.shard).collect();
    assert_eq!(shards.len(), 1, "{others} others");
    engine.close(Duration::ZERO).unwrap();
}

#[test]
fn entries_skipped_for_a_retry_sleep_were_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let fails = Arc::new(AtomicBool::new(true));
    let failing = fails.clone();
    let r = receiver(Behaviour::decide(move |hit| {
        let bad = failing.load(Ordering::SeqCst) && hit.records.iter().any(|r| r.key == "k-sleeps");
        Reply::status(if bad { 404 } else { 204 })
    }));
    let make = || {
        let mut d = hook("hook", &r.url());
        d.retry.backoff_min = Duration::from_secs(3600);
        d.retry.backoff_max = Duration::from_secs(3600);
        vec![d]
    };
    let engine = open(dir.path(), 1, make());
    put(&engine, "k-sleeps", 0);
    until("it has failed", &engine, || of(&engine, "hook").retried == 1);
    // Segments come and go while it sleeps.
    for n in 1..20_000u64 {
        put(&engine, &format!("k{:0>100}", n % 700), n);
    }
    until("the others are through", &engine, || of(&engine, "hook").delivered == 19_999);
    engine.close(Duration::ZERO).unwrap();
    fails.store(false, Ordering::SeqCst);
    let engine = open(dir.path(), 1, make());
    engine.flush(WAIT).unwrap();
    assert_eq!(delivered(&r).len(), 20_000);
    engine.close(WAIT).unwrap();
}

#[test]
fn delivered_entries_not_removed_from_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let r = receiver(Behaviour::Ok204);
    let engine = open(dir.path(), 1, vec![limited("hook", &r.url(), 1_000_000, OnQueueFull::DropOldest)]);
    for n in 0..20_000u64 {
        put(&engine, &format!("k{:0>200}", n % 700), n);
    }
    engine.flush(WAIT).unwrap();
    until("the files are gone", &engine, || engine.stats().segments <= 1);
    let d = of(&engine, "hook");
    assert_eq!((d.waiting, d.waiting_bytes, d.dropped), (0, 0, 0));
    engine.close(WAIT).unwrap();
    let engine = open(dir.path(), 1, vec![limited("hook", &r.url(), 1_000_000, OnQueueFull::DropOldest)]);
    assert_eq!(engine.stats().segments, 0);
    engine.close(WAIT).unwrap();
    assert_eq!(delivered(&r).len(), 20_000);
}

#[test]
fn limits_and_policies_change_while_events_wait() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path(), 2, vec![hook("hook", DOWN)]);
    (0..1000).for_each(|n| put(&engine, &format!("k{n}"), n));
    until("all wait", &engine, || of(&engine, "hook").waiting == 1000);
    engine.replace_rules(rules(vec![limited("hook", DOWN, 100, OnQueueFull::Refuse)])).unwrap();
    until("it refuses", &engine, || try_put(&engine, "k", 1, Ack::Synced).is_err());
    engine.replace_rules(rules(vec![limited("hook", DOWN, 100, OnQueueFull::DropOldest)])).unwrap();
    until("it sheds", &engine, || of(&engine, "hook").waiting <= 100 && balanced(&of(&engine, "hook")));
    put_synced(&engine, "k", 1);
    engine.close(Duration::ZERO).unwrap();
}

#[test]
fn the_audit_is_bounded_and_tells_the_youngest() {
    let dir = tempfile::tempdir().unwrap();
    let mut c = config(dir.path(), 1);
    c.losses.bytes_max = 1 << 20;
    let engine = Engine::open_with(c, rules(vec![limited("hook", DOWN, 1, OnQueueFull::DropNewest)])).unwrap();
    put_synced(&engine, "k", 0);
    for n in 0..20_000u64 {
        try_put(&engine, &format!("k{n:0>200}"), n, if n % 500 == 0 { Ack::Synced } else { Ack::Memory }).unwrap();
    }
    put_synced(&engine, "k-last", 0);
    assert_eq!(of(&engine, "hook").dropped, 20_001);
    let told = losses(&engine);
    assert!(told.len() < 10_000, "{}", told.len());
    assert_eq!(told.last().unwrap().key, b"k-last");
    assert_eq!(engine.stats().losses_untold, 0);
    let files = std::fs::read_dir(dir.path().join("shard-0000/losses")).unwrap();
    let bytes: u64 = files.map(|f| f.unwrap().metadata().unwrap().len()).sum();
    assert!(bytes <= (1 << 20) + (512 << 10), "{bytes}");
    engine.close(Duration::ZERO).unwrap();
}

#[test]
fn purged_and_evicted_dead_letters_are_in_the_audit() {
    let dir = tempfile::tempdir().unwrap();
    let r = receiver(Behaviour::Status(500));
    let mut d = hook("hook", &r.url());
    d.retry.attempts_max = Some(1);
    let engine = open(dir.path(), 1, vec![d]);
    (0..30).for_each(|n| put(&engine, &format!("k{n}"), n));
    engine.flush(WAIT).unwrap();
    let mut some = DeadLetterFilter::default();
    some.key_prefix = b"k1".to_vec();
    assert_eq!(engine.purge_dead_letters(&some, Instant::now() + WAIT).unwrap(), 11);
    let told = losses(&engine);
    assert!(told.len() == 11 && told.iter().all(|l| l.reason == LossReason::Purged && l.key.starts_with(b"k1")));
    let d = of(&engine, "hook");
    assert_eq!((d.dropped, d.losses[&LossReason::Purged]), (0, 11), "they were dead letters already");
    assert!(balanced(&d));
    engine.close(WAIT).unwrap();
    assert_eq!(tidewire::log::dead::purge_dead_letters(dir.path(), &DeadLetterFilter::default()).unwrap(), 19);
    let mut all = 0;
    tidewire::log::losses::each_loss(dir.path(), |l| {
        all += l.count;
        ControlFlow::Continue(())
    })
    .unwrap();
    assert_eq!(all, 30, "also those purged without an engine");
}

#[test]
fn a_flooding_bucket_starves_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let mut c = config(dir.path(), 1);
    c.ring_bytes = 256 << 10;
    c.fairness.bucket_ring_share = Some(0.05);
    let engine = Engine::open_with(c, rules(vec![hook("hook", DOWN)])).unwrap();
    let stop = AtomicBool::new(false);
    let data = format!("{:?}", "x".repeat(8000));
    let refuse = PublishOptions { ack: Ack::Memory, on_full: OnFull::Refuse, ..PublishOptions::default() };
    let (mut flooded, mut fullest, mut quiet) = (0u64, 0, Vec::new());
    std::thread::scope(|s| {
        let floods: Vec<_> = (0..3)
            .map(|t| {
                let (engine, stop, data, refuse) = (&engine, &stop, &data, &refuse);
                s.spawn(move || {
                    let (mut full, mut n) = (0u64, 0u64);
                    while !stop.load(Ordering::Relaxed) {
                        let key = format!("k{t}-{n}");
                        let mut e = Event::new(KnownType::ObjectCreatedPut.into(), "flood", key.as_bytes());
                        e.data = data.as_bytes();
                        full += u64::from(engine.publish_with(&e, refuse).is_err());
                        n += 1;
                    }
                    full
                })
            })
            .collect();
        for n in 0..500 {
            let key = format!("k{n}");
            let e = Event::new(KnownType::ObjectCreatedPut.into(), "quiet", key.as_bytes());
            quiet.extend(engine.publish(&e).err());
            fullest = fullest.max(engine.stats().ring_used_bytes);
        }
        stop.store(true, Ordering::Relaxed);
        flooded = floods.into_iter().map(|f| f.join().unwrap()).sum();
    });
    assert!(quiet.is_empty(), "{quiet:?}");
    assert!(fullest < 64 << 10, "the flood had {fullest} bytes of the ring");
    assert!(flooded > 0, "the flood never reached its share");
    assert_eq!(engine.stats().refused_unfair, flooded);
    engine.close(Duration::ZERO).unwrap();
}

#[test]
fn a_bucket_has_a_rate_and_waits_or_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut c = config(dir.path(), 1);
    c.fairness.bucket_rate = Some(1);
    c.fairness.bucket_burst = 5;
    c.fairness.tenant_separator = Some("-".into());
    let engine = Engine::open_with(c, rules(vec![hook("hook", DOWN)])).unwrap();
    let publish = |bucket: &str, on_full: OnFull| {
        let e = Event::new(KnownType::ObjectCreatedPut.into(), bucket, b"k");
        engine.publish_with(&e, &PublishOptions { ack: Ack::Memory, on_full, ..PublishOptions::default() })
    };
    for n in 0..5 {
        publish(["acme-a", "acme-b"][n % 2], OnFull::Refuse).unwrap();
    }
    let e = publish("acme-c", OnFull::Refuse).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Full);
    assert!(e.to_string().contains("`acme-c` publishes too fast") && e.to_string().contains("bucket_rate"), "{e}");
    publish("other", OnFull::Refuse).unwrap();
    publish("acme-a", OnFull::Block(WAIT)).unwrap();
    assert_eq!(engine.stats().refused_unfair, 1);
    engine.close(Duration::ZERO).unwrap();
}
