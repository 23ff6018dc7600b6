//! The order in which a destination's events arrive: by key, none at all, or one for all.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tidewire::config::EngineConfig;
use tidewire::event::EventTypes;
use tidewire::rule::{Destination, DestinationKind, Order, Rule, RuleSet, Webhook};
use tidewire::{Ack, CommitFields, CommitOptions, Engine, Event, EventId, Intent, KnownType, PublishOptions};
use tidewire::{ReserveOptions, Reserved};
use tidewire_receiver::{Behaviour, Receiver, Record, Reply, check_per_key_order};

use crate::common::copy;

const WAIT: Duration = Duration::from_secs(120);
const SHARDS: usize = 3;

fn receiver(behaviour: Behaviour) -> Receiver {
    Receiver::start("127.0.0.1:0".parse().unwrap(), behaviour).unwrap()
}

fn hook(name: &str, url: &str, order: Order) -> Destination {
    let mut d = Destination::new(name, DestinationKind::Webhook(Webhook::new(url).unwrap()));
    d.order = order;
    d.retry.backoff_min = Duration::from_millis(5);
    d.retry.backoff_max = Duration::from_millis(20);
    (d.breaker.consecutive_failures, d.breaker.calls_min) = (1000, 1_000_000);
    d
}

fn rules(destinations: Vec<Destination>) -> RuleSet {
    let types = EventTypes::default();
    let mut rule = Rule::new("all", ["s3:ObjectCreated:*"], &types).unwrap();
    for d in &destinations {
        rule = rule.with_destination(&d.name);
    }
    RuleSet::build(vec![rule], destinations, types).unwrap()
}

fn config(dir: &Path) -> EngineConfig {
    let mut c = EngineConfig::new(dir);
    c.shards = Some(SHARDS);
    c.log.segment_bytes = 1 << 20;
    c
}

fn open(dir: &Path, destinations: Vec<Destination>) -> Engine {
    Engine::open_with(config(dir), rules(destinations)).unwrap()
}

fn publish(engine: &Engine, sizes: std::ops::Range<u64>, ack: Ack) {
    for size in sizes {
        let key = format!("key-{}", size % 23);
        let mut event = Event::new(KnownType::ObjectCreatedPut.into(), "bucket", key.as_bytes());
        event.size = Some(size);
        engine.publish_with(&event, &PublishOptions { ack, ..PublishOptions::default() }).unwrap();
    }
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + WAIT;
    while !done() {
        assert!(Instant::now() < deadline, "gave up waiting until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn id(record: &Record) -> EventId {
    record.event_id.parse().unwrap()
}

/// Everything arrives in one order: as its first arrivals have it, every request, the failed ones too, is a stretch of it.
/// That order has the events of each shard in the order of their log, and with them those of each key.
fn in_one_order(records: &[Record]) {
    let mut order: HashMap<EventId, usize> = HashMap::new();
    let mut last_of_shard: BTreeMap<(u64, u16), u64> = BTreeMap::new();
    for r in records {
        let id = id(r);
        let n = order.len();
        if *order.entry(id).or_insert(n) == n {
            let before = last_of_shard.insert((id.incarnation, id.shard), id.sequence);
            assert!(before.is_none_or(|b| b < id.sequence), "{id} after {before:?}");
        }
    }
    let shards: BTreeSet<u16> = order.keys().map(|id| id.shard).collect();
    assert_eq!(shards.len(), SHARDS, "events of every shard");
    for pair in records.windows(2).filter(|p| p[0].request == p[1].request) {
        assert_eq!(order[&id(&pair[0])] + 1, order[&id(&pair[1])], "request {}", pair[0].request);
    }
    assert!(check_per_key_order(records).is_empty());
}

/// The sizes that were accepted, with how often.
fn accepted(records: &[Record]) -> BTreeMap<u64, usize> {
    let mut sizes = BTreeMap::new();
    for r in records.iter().filter(|r| r.accepted) {
        *sizes.entry(r.size.unwrap()).or_default() += 1;
    }
    sizes
}

fn each_once(records: &[Record], sizes: std::ops::Range<u64>) {
    let got = accepted(records);
    let lost: Vec<u64> = sizes.clone().filter(|s| !got.contains_key(s)).collect();
    let wrong: Vec<_> = got.iter().filter(|(s, n)| **n != 1 || !sizes.contains(s)).collect();
    assert!(lost.is_empty() && wrong.is_empty(), "lost {lost:?}, more than once {wrong:?}");
}

#[test]
fn strict_is_one_order_one_request_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let (strict, by_key) = (receiver(Behaviour::Ok204), receiver(Behaviour::Ok204));
    let engine =
        open(dir.path(), vec![hook("strict", &strict.url(), Order::Strict), hook("by-key", &by_key.url(), Order::Key)]);
    std::thread::scope(|s| {
        for t in 0..4 {
            let engine = &engine;
            s.spawn(move || publish(engine, t * 1000..t * 1000 + 1000, Ack::Memory));
        }
    });
    engine.flush(WAIT).unwrap();
    for r in [&strict, &by_key] {
        each_once(&r.records(), 0..4000);
    }
    in_one_order(&strict.records());
    assert_eq!(strict.connections(), 1, "never two requests at a time");
    // The id and the sequencer are those of the shard that accepted the event, wherever it is delivered from.
    let same = |r: &Receiver| -> BTreeMap<u64, (String, String)> {
        r.records().into_iter().map(|r| (r.size.unwrap(), (r.event_id, r.sequencer))).collect()
    };
    assert_eq!(same(&strict), same(&by_key));
    let s = engine.stats();
    assert_eq!((s.accepted, s.stored, s.routed), (4000, 4000, 8000));
    assert_eq!((s.delivered, s.dead_lettered, s.waiting), (8000, 0, 0));
    for d in &s.destinations {
        assert_eq!((d.routed, d.delivered, d.waiting), (4000, 4000, 0), "{}", d.name);
        // Also the home hands over, to itself.
        assert_eq!(d.handed_over, if d.name == "strict" { 4000 } else { 0 }, "{}", d.name);
    }
    engine.close(WAIT).unwrap();
    let left = std::fs::read_dir(dir.path().join("shard-0000")).unwrap();
    assert!(left.map(|e| e.unwrap().path()).all(|p| p.extension().is_none_or(|e| e != "log")));
}

#[test]
fn strict_stays_one_order_while_requests_fail_and_engines_restart() {
    let dir = tempfile::tempdir().unwrap();
    let n = Arc::new(AtomicUsize::new(0));
    let r = receiver(Behaviour::decide(move |_| {
        let n = n.fetch_add(1, Ordering::SeqCst);
        Reply::status(if n % 3 == 1 || (20..30).contains(&n) { 503 } else { 204 })
    }));
    let mut published = 0;
    for _ in 0..4 {
        let mut d = hook("strict", &r.url(), Order::Strict);
        d.batch.events_max = 7;
        d.concurrency = 8;
        let engine = open(dir.path(), vec![d]);
        publish(&engine, published..published + 500, Ack::Memory);
        published += 500;
        // Somewhere in the middle; what is left goes on after the next opening.
        until("some have arrived", || accepted(&r.records()).len() as u64 > published / 2);
        engine.close(Duration::ZERO).unwrap();
    }
    let engine = open(dir.path(), vec![hook("strict", &r.url(), Order::Strict)]);
    engine.flush(WAIT).unwrap();
    let records = r.records();
    assert_eq!(accepted(&records).keys().copied().collect::<Vec<_>>(), (0..published).collect::<Vec<_>>());
    assert!(records.iter().any(|r| !r.accepted), "some requests failed");
    in_one_order(&records);
    engine.close(WAIT).unwrap();
}

#[test]
fn what_was_handed_over_before_a_crash_is_not_delivered_twice() {
    let dir = tempfile::tempdir().unwrap();
    let refusing = receiver(Behaviour::Status(503));
    let mut c = config(dir.path());
    // Cursors are saved at the start only: after the crash only the home's log tells what was handed over.
    c.delivery.cursor_interval = Duration::from_secs(60);
    let engine = Engine::open_with(c, rules(vec![hook("strict", &refusing.url(), Order::Strict)])).unwrap();
    publish(&engine, 0..1000, Ack::Memory);
    // Some of them with ids that are older than their place in the log.
    let durable = ReserveOptions { intent: Intent::Durable, ..ReserveOptions::default() };
    let keys: Vec<String> = (0..20).map(|i| format!("reserved-{i}")).collect();
    let held: Vec<_> = keys
        .iter()
        .map(|k| {
            let event = Event::new(KnownType::ObjectCreatedPut.into(), "bucket", k.as_bytes());
            match engine.reserve(&event, &durable).unwrap() {
                Reserved::Held(held) => held,
                other => panic!("{other:?}"),
            }
        })
        .collect();
    for (i, held) in held.iter().enumerate().rev() {
        publish(&engine, 1000 + 2 * i as u64..1001 + 2 * i as u64, Ack::Memory);
        let fields = CommitFields { size: Some(1001 + 2 * i as u64), ..CommitFields::default() };
        held.commit(&fields, &CommitOptions::default()).unwrap();
    }
    for i in 0..23 {
        publish(&engine, 1040 + i..1041 + i, Ack::Synced);
    }
    let handed_over = |e: &Engine| e.stats().destinations.iter().map(|d| d.handed_over).sum::<u64>();
    until("some are handed over", || handed_over(&engine) > 200);
    let half = copy(dir.path());
    let mut before = 0;
    until("all are handed over", || std::mem::replace(&mut before, handed_over(&engine)) == before && before > 400);
    std::thread::sleep(Duration::from_millis(100));
    let all = copy(dir.path());
    for (copy, is_all) in [(half, false), (all, true)] {
        // Twice, so that what was handed over then is crashed upon once more.
        let refusing_again = hook("strict", &refusing.url(), Order::Strict);
        let mut c = config(copy.path());
        c.delivery.cursor_interval = Duration::from_secs(60);
        let again = Engine::open_with(c, rules(vec![refusing_again])).unwrap();
        let mut before = u64::MAX;
        until("the rest is handed over", || std::mem::replace(&mut before, handed_over(&again)) == before);
        assert!(before < if is_all { 1 } else { 1063 }, "{before} handed over again");
        let copy = self::copy(copy.path());
        again.close(Duration::ZERO).unwrap();

        let r = receiver(Behaviour::Ok204);
        let again = open(copy.path(), vec![hook("strict", &r.url(), Order::Strict)]);
        again.flush(WAIT).unwrap();
        each_once(&r.records(), 0..1063);
        let mut order: Vec<Record> = r.records();
        order.retain(|r| !r.key.starts_with("reserved"));
        let stretches = order.windows(2).all(|p| {
            let (a, b) = (id(&p[0]), id(&p[1]));
            a.shard != b.shard || a.sequence < b.sequence
        });
        assert!(stretches && check_per_key_order(&r.records()).is_empty());
        again.close(WAIT).unwrap();
    }
    engine.close(Duration::ZERO).unwrap();
}

#[test]
fn closing_waits_until_everything_strict_is_handed_over_and_delivered() {
    for round in 0..5 {
        let dir = tempfile::tempdir().unwrap();
        let r = receiver(Behaviour::Ok204);
        let (a, b) = (format!("a{round}"), format!("b{round}"));
        let engine =
            open(dir.path(), vec![hook(&a, &r.url(), Order::Strict), hook(&b, "http://127.0.0.1:9/", Order::Key)]);
        publish(&engine, 0..300, Ack::Memory);
        engine
            .replace_rules(rules(vec![hook(&a, &r.url(), Order::Strict), hook(&b, &r.url(), Order::Strict)]))
            .unwrap();
        publish(&engine, 300..600, Ack::Memory);
        engine.close(WAIT).unwrap();
        let got = accepted(&r.records());
        let expected = |size: &u64| if *size < 300 { 1..=2 } else { 2..=2 };
        assert_eq!(got.len(), 600);
        assert!(got.iter().all(|(size, n)| expected(size).contains(n)), "{got:?}");
        let s = engine.stats();
        assert_eq!(s.delivered + s.waiting, s.routed, "{:?}", s.destinations);
    }
}

#[test]
fn a_new_strict_destination_misses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let first = receiver(Behaviour::Ok204);
    let engine = open(dir.path(), vec![hook("first", &first.url(), Order::Key)]);
    let mut destinations = vec![hook("first", &first.url(), Order::Key)];
    let mut receivers = Vec::new();
    for round in 0..20u64 {
        let r = receiver(Behaviour::Ok204);
        destinations.push(hook(&format!("strict-{round}"), &r.url(), Order::Strict));
        receivers.push(r);
        let count = engine.stats().accepted;
        engine.replace_rules(rules(destinations.clone())).unwrap();
        publish(&engine, round * 100..round * 100 + 100, Ack::Memory);
        until("all are taken", || engine.stats().accepted == count + 100);
    }
    engine.flush(WAIT).unwrap();
    let s = engine.stats();
    assert_eq!((s.delivered, s.waiting), (s.routed, 0));
    // A shard may take the first events of a round before it has heard of the new rules.
    for d in &s.destinations {
        let index = d.name.strip_prefix("strict-").map(|n| n.parse::<usize>().unwrap());
        let r = index.map_or(&first, |i| &receivers[i]);
        assert_eq!(accepted(&r.records()).len() as u64, d.routed, "{}", d.name);
        let missed = index.map_or(0, |i| (20 - i as u64) * 100).saturating_sub(d.routed);
        assert!(missed < 100, "{} missed {missed}", d.name);
    }
    engine.close(WAIT).unwrap();
}

#[test]
fn another_order_is_taken_when_what_waits_is_out() {
    let dir = tempfile::tempdir().unwrap();
    let r = receiver(Behaviour::Status(503));
    let with = |order| rules(vec![hook("hook", &r.url(), order)]);
    let engine = Engine::open_with(config(dir.path()), with(Order::Key)).unwrap();
    let mut published = 0;
    for order in [Order::Strict, Order::Key, Order::Strict, Order::None, Order::Key] {
        publish(&engine, published..published + 300, Ack::Memory);
        until("all are taken", || engine.stats().accepted == published + 300);
        engine.replace_rules(with(order)).unwrap();
        publish(&engine, published + 300..published + 400, Ack::Memory);
        published += 400;
        until("some were tried", || r.requests() > 10);
        r.set_behaviour(Behaviour::Ok204);
        engine.flush(WAIT).unwrap();
        each_once(&r.records(), 0..published);
        if order != Order::None {
            publish(&engine, published..published + 200, Ack::Memory);
            published += 200;
            engine.flush(WAIT).unwrap();
        }
        if order == Order::Strict {
            let records = r.records();
            in_one_order(&records[records.len() - 200..]);
        }
        r.set_behaviour(Behaviour::Status(503));
    }
    r.set_behaviour(Behaviour::Ok204);
    engine.flush(WAIT).unwrap();
    each_once(&r.records(), 0..published);
    let s = engine.stats();
    assert_eq!((s.routed, s.delivered, s.waiting), (published, published, 0));
    engine.close(WAIT).unwrap();
}

#[test]
fn without_order_a_failing_event_holds_nobody_of_its_key() {
    let dir = tempfile::tempdir().unwrap();
    let fail = |hit: &tidewire_receiver::Hit<'_>| {
        Reply::status(if hit.records.iter().any(|r| r.size == Some(0)) { 404 } else { 204 })
    };
    let (none, by_key) = (receiver(Behaviour::decide(fail)), receiver(Behaviour::decide(fail)));
    let single = |name: &str, url: &str, order| {
        let mut d = hook(name, url, order);
        d.batch.events_max = 1;
        d
    };
    let engine =
        open(dir.path(), vec![single("none", &none.url(), Order::None), single("by-key", &by_key.url(), Order::Key)]);
    for size in 0..50 {
        let mut event = Event::new(KnownType::ObjectCreatedPut.into(), "bucket", b"one key");
        event.size = Some(size);
        engine.publish_with(&event, &PublishOptions { ack: Ack::Memory, ..PublishOptions::default() }).unwrap();
    }
    until("all the others have arrived", || accepted(&none.records()).len() == 49);
    until("the failing one was tried again", || by_key.requests() > 3);
    assert_eq!(accepted(&by_key.records()).len(), 0, "by key it holds the later ones");
    until("the statistics say so", || {
        let waiting: Vec<u64> = engine.stats().destinations.iter().map(|d| d.waiting).collect();
        waiting == [1, 50]
    });
    // It is kept, and comes in the end.
    let wrong = Behaviour::Ok204;
    none.set_behaviour(wrong.clone());
    by_key.set_behaviour(wrong);
    engine.flush(WAIT).unwrap();
    each_once(&none.records(), 0..50);
    each_once(&by_key.records(), 0..50);
    engine.close(WAIT).unwrap();
}

/// While the endpoint fails, then again with a restart in between.
#[test]
fn what_was_handed_over_is_delivered_before_what_comes_after_the_change() {
    for restart in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let r = receiver(Behaviour::Status(503));
        let with = |order| vec![hook("hook", &r.url(), order)];
        let mut engine = open(dir.path(), with(Order::Strict));
        publish(&engine, 0..300, Ack::Memory);
        let handed_over = || engine.stats().destinations[0].handed_over;
        let mut before = 0;
        until("all is handed over", || {
            std::thread::sleep(Duration::from_millis(50));
            std::mem::replace(&mut before, handed_over()) == before && before > 50
        });
        if restart {
            engine.close(Duration::ZERO).unwrap();
            engine = open(dir.path(), with(Order::Key));
        } else {
            engine.replace_rules(rules(with(Order::Key))).unwrap();
        }
        publish(&engine, 300..600, Ack::Synced);
        until("it was tried", || r.requests() > 10);
        r.set_behaviour(Behaviour::Ok204);
        engine.flush(WAIT).unwrap();
        each_once(&r.records(), 0..600);
        let violations = check_per_key_order(&r.records());
        assert!(violations.is_empty(), "restart {restart}: {} such as {:?}", violations.len(), violations[0]);
        engine.close(WAIT).unwrap();
    }
}
