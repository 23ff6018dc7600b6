//! The host's wall clock, also one that goes backwards and jumps.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tidewire::config::{EngineConfig, SharedConfig, WallClock};
use tidewire::log::reader::{Entry, ReadFrom};
use tidewire::{
    Client, ClientOptions, CommitFields, CommitOptions, DedupKey, Engine, Event, KnownType, PublishOptions, Published,
    ReserveOptions, Reserved,
};
use tidewire_receiver::{Behaviour, check_per_key_order};

use crate::common::*;

const SECOND: u64 = 1_000_000_000;
const HOUR: u64 = 3600 * SECOND;
/// In the year 2001.
const THEN: u64 = 1_000_000_000 * SECOND;

/// A clock that says what it is told to.
#[derive(Clone)]
struct Hand(Arc<AtomicU64>);

impl Hand {
    fn at(ns: u64) -> Hand {
        Hand(Arc::new(AtomicU64::new(ns)))
    }

    fn set(&self, ns: u64) {
        self.0.store(ns, Ordering::SeqCst);
    }

    fn clock(&self) -> WallClock {
        let hand = self.0.clone();
        WallClock::new(move || hand.load(Ordering::SeqCst))
    }
}

fn config_of(dir: &Path, hand: &Hand) -> EngineConfig {
    let mut c = config(dir, 1);
    c.clock = Some(hand.clock());
    c
}

fn publish(engine: &Engine, key: &str, dedup: Option<&str>) -> Published {
    let e = Event::new(KnownType::ObjectCreatedPut.into(), "bucket", key.as_bytes());
    let options =
        PublishOptions { dedup_key: dedup.map(|key| DedupKey::new(key.as_bytes())), ..PublishOptions::default() };
    engine.publish_with(&e, &options).unwrap()
}

fn entries(dir: &Path) -> Vec<Entry> {
    let (entries, gaps) = read_all(dir, ReadFrom::Beginning);
    assert!(gaps.is_empty());
    entries
}

#[test]
fn events_and_the_log_have_the_times_that_the_host_says() {
    let dir = tempfile::tempdir().unwrap();
    let hand = Hand::at(THEN);
    let engine = Engine::open_with(config_of(dir.path(), &hand), kept(vec![])).unwrap();
    publish(&engine, "first", None);
    hand.set(THEN + SECOND);
    let e = Event::new(KnownType::ObjectCreatedPut.into(), "bucket", b"reserved");
    let Reserved::Held(held) = engine.reserve(&e, &ReserveOptions::default()).unwrap() else { panic!("held") };
    hand.set(THEN + 2 * SECOND);
    held.commit(&CommitFields::default(), &CommitOptions::default()).unwrap();
    let mut own = e;
    (own.key, own.time_ns) = (b"own", 77);
    engine.publish(&own).unwrap();
    let mut appended = e;
    appended.key = b"appended";
    engine.append_at(1, &appended, &PublishOptions::default()).unwrap();
    let found: Vec<_> = entries(dir.path()).iter().map(|e| (e.frame().time_ns(), e.clock.0)).collect();
    assert_eq!(found[0], (THEN, THEN));
    // Of a reservation it is the time of one of its two calls.
    assert!((THEN + SECOND..=THEN + 2 * SECOND).contains(&found[1].0) && found[1].1 == THEN + 2 * SECOND, "{found:?}");
    assert_eq!(found[2], (77, THEN + 2 * SECOND));
    assert_eq!(found[3], (THEN + 2 * SECOND, THEN + 2 * SECOND));
    engine.close(WAIT).unwrap();
}

#[test]
fn sequencers_grow_and_order_holds_whatever_the_clock_does() {
    let dir = tempfile::tempdir().unwrap();
    let r = receiver(Behaviour::FailFirst(5, 503));
    let hand = Hand::at(THEN);
    let mut n = 0;
    for opening in 0..3u64 {
        let engine = Engine::open_with(config_of(dir.path(), &hand), kept(vec![hook("hook", &r.url())])).unwrap();
        for ns in [THEN, THEN + HOUR, THEN - HOUR, 0, THEN + 48 * HOUR, 1, THEN + opening] {
            hand.set(ns);
            for _ in 0..20 {
                put(&engine, "key", n);
                n += 1;
            }
            // Also what is under way meets the next time.
            if n.is_multiple_of(3) {
                sync(&engine);
            }
        }
        engine.flush(WAIT).unwrap();
        assert_eq!(engine.stats().dead_lettered, 0);
        engine.close(WAIT).unwrap();
    }
    let all = entries(dir.path());
    assert_eq!(all.len(), n as usize);
    assert!(all.iter().map(|e| e.frame().size().unwrap()).eq(0..n));
    assert!(all.windows(2).all(|two| two[0].clock < two[1].clock));
    let records = r.records();
    assert!(check_per_key_order(&records).is_empty());
    assert_eq!(records.iter().filter(|x| x.accepted).count(), n as usize);
}

#[test]
fn a_clock_that_goes_backwards_ends_no_window_early() {
    let dir = tempfile::tempdir().unwrap();
    let hand = Hand::at(THEN);
    let open = || {
        let mut c = config_of(dir.path(), &hand);
        c.dedup.window = Duration::from_secs(600);
        Engine::open_with(c, kept(vec![])).unwrap()
    };
    let engine = open();
    assert_eq!(publish(&engine, "a", Some("1")), Published::Accepted);
    for back in [SECOND, HOUR, THEN] {
        hand.set(THEN - back);
        assert_eq!(publish(&engine, "a", Some("1")), Published::Duplicate);
        assert_eq!(publish(&engine, "a", Some(&format!("at-{back}"))), Published::Accepted);
    }
    engine.close(WAIT).unwrap();
    // After a restart as well.
    let engine = open();
    assert_eq!(publish(&engine, "a", Some("1")), Published::Duplicate);
    // It ends when the clock says so, and not because it has been elsewhere.
    hand.set(THEN + 599 * SECOND);
    assert_eq!(publish(&engine, "a", Some("1")), Published::Duplicate);
    hand.set(THEN + 601 * SECOND);
    assert_eq!(publish(&engine, "a", Some("1")), Published::Accepted);
    engine.close(WAIT).unwrap();
}

#[test]
fn retention_lets_go_by_the_hosts_clock_and_of_nothing_when_that_goes_backwards() {
    let dir = tempfile::tempdir().unwrap();
    let hand = Hand::at(THEN);
    let mut c = config_of(dir.path(), &hand);
    c.retention.age_max = Some(Duration::from_secs(3600));
    let engine = Engine::open_with(c, kept(vec![])).unwrap();
    // What goes while it is looked at is told as a gap.
    let first = || read_all(dir.path(), ReadFrom::Beginning).0.first().map(|e| e.frame().key().to_vec());
    let fill = |from: u64| {
        for n in 0..600 {
            put_large(&engine, &format!("{from}-{n}"), n);
        }
        sync(&engine);
    };
    fill(0);
    for back in [1, HOUR, THEN] {
        hand.set(THEN - back);
        fill(back);
    }
    // Rounds of housekeeping.
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(first().unwrap(), b"0-0");
    hand.set(THEN + HOUR / 2);
    fill(2);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(first().unwrap(), b"0-0");
    hand.set(THEN + 2 * HOUR);
    fill(3);
    until("what is old has gone", || first().unwrap() != b"0-0");
    engine.close(WAIT).unwrap();
}

#[test]
fn retries_go_on_by_their_own_time_and_end_by_the_hosts() {
    let dir = tempfile::tempdir().unwrap();
    let r = receiver(Behaviour::Status(503));
    let hand = Hand::at(THEN);
    let mut d = hook("hook", &r.url());
    d.retry.age_max = Duration::from_secs(3600);
    let engine = Engine::open_with(config_of(dir.path(), &hand), kept(vec![d])).unwrap();
    publish(&engine, "waits", None);
    // A clock that stands still, or goes back, puts no attempt off and gives nothing up.
    for ns in [THEN, THEN - HOUR, 0] {
        hand.set(ns);
        let before = r.requests();
        until("it is tried again", || r.requests() >= before + 3);
    }
    assert_eq!(engine.stats().dead_lettered, 0);
    hand.set(THEN + HOUR / 2);
    publish(&engine, "younger", None);
    hand.set(THEN + HOUR + SECOND);
    until("the budget is spent", || engine.stats().dead_lettered == 1);
    r.set_behaviour(Behaviour::Ok204);
    engine.flush(WAIT).unwrap();
    assert_eq!((engine.stats().dead_lettered, engine.stats().delivered), (1, 1));
    engine.close(WAIT).unwrap();
}

#[test]
fn timeouts_do_not_ask_it() {
    let dir = tempfile::tempdir().unwrap();
    let hand = Hand::at(THEN);
    let d = hook("hook", "http://127.0.0.1:9/");
    let engine = Engine::open_with(config_of(dir.path(), &hand), kept(vec![d])).unwrap();
    publish(&engine, "waits", None);
    let begun = Instant::now();
    assert!(engine.flush(Duration::from_millis(50)).is_err());
    engine.close(Duration::from_millis(50)).unwrap();
    assert!(begun.elapsed() < WAIT);
}

#[test]
fn one_that_panics_is_not_asked_for_the_time() {
    let dir = tempfile::tempdir().unwrap();
    let broken = Arc::new(AtomicBool::new(false));
    let breaks = broken.clone();
    let mut c = config(dir.path(), 1);
    c.clock = Some(WallClock::new(move || if breaks.load(Ordering::SeqCst) { panic!("on purpose") } else { THEN }));
    let engine = Engine::open_with(c, kept(vec![])).unwrap();
    publish(&engine, "a", None);
    broken.store(true, Ordering::SeqCst);
    publish(&engine, "b", None);
    broken.store(false, Ordering::SeqCst);
    publish(&engine, "c", None);
    let times: Vec<u64> = entries(dir.path()).iter().map(|e| e.frame().time_ns()).collect();
    assert!(times[0] == THEN && times[1] > THEN && times[2] == THEN, "{times:?}");
    engine.close(WAIT).unwrap();
}

#[test]
fn two_engines_of_a_process_have_each_their_own_and_clients_theirs() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s");
    let (one, two) = (dir.path().join("one"), dir.path().join("two"));
    let mut shared = config_of(&one, &Hand::at(THEN));
    shared.shared = Some(SharedConfig::new(&socket));
    let first = Engine::open_with(shared, kept(vec![])).unwrap();
    let second = Engine::open_with(config_of(&two, &Hand::at(THEN + HOUR)), kept(vec![])).unwrap();
    publish(&first, "a", None);
    publish(&second, "a", None);
    let mut options = ClientOptions::default();
    options.clock = Some(Hand::at(THEN + 5).clock());
    let client = Client::connect(&socket, options).unwrap();
    let e = Event::new(KnownType::ObjectCreatedPut.into(), "bucket", b"theirs");
    client.publish_with(&e, &PublishOptions::default()).unwrap();
    client.close(WAIT).unwrap();
    let times = |dir: &Path| entries(dir).iter().map(|e| (e.frame().time_ns(), e.clock.0)).collect::<Vec<_>>();
    assert_eq!(times(&one), [(THEN, THEN), (THEN + 5, THEN)]);
    assert_eq!(times(&two), [(THEN + HOUR, THEN + HOUR)]);
    first.close(WAIT).unwrap();
    second.close(WAIT).unwrap();
}
