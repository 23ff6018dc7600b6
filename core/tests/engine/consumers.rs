//! Groups of consumers: members share the events of a group, in order per key, on leases.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::common::*;
use tidewire::config::Keep;
use tidewire::event::{EventTypes, FrameView};
use tidewire::filter::{EventFilter, Filter};
use tidewire::log::reader::{Gap, GapCause, ReadFrom};
use tidewire::log::record::DeadLetter;
use tidewire::log::recovery;
use tidewire::{
    Consumer, ConsumerOptions, Delivered, Delivery, Engine, ErrorKind, Event, GroupStats, KnownType, Published,
};

/// An engine that keeps nothing but for its groups.
fn groups_only(dir: &Path, shards: usize) -> Engine {
    let mut c = config(dir, shards);
    c.retention.keep = Keep::Nothing;
    Engine::open_with(c, passing(vec![])).unwrap()
}

fn options() -> ConsumerOptions {
    let mut o = ConsumerOptions::default();
    o.filter = EventFilter::all().with_bucket("bucket");
    o
}

fn events(deliveries: Vec<Delivery>) -> Vec<Delivered> {
    let event = |d| match d {
        Delivery::Event(e) => e,
        Delivery::Gap(g) => panic!("{g:?}"),
    };
    deliveries.into_iter().map(event).collect()
}

fn fetch(c: &Consumer, max: usize) -> Vec<Delivered> {
    events(c.fetch(max, WAIT).unwrap())
}

fn none(c: &Consumer) {
    let got = events(c.fetch(10, Duration::from_millis(60)).unwrap());
    assert!(got.is_empty(), "{:?}", got.iter().map(key).collect::<Vec<_>>());
}

fn key(d: &Delivered) -> String {
    String::from_utf8(d.entry.frame().key().to_vec()).unwrap()
}

fn number(d: &Delivered) -> u64 {
    d.entry.frame().size().unwrap()
}

/// Takes and acknowledges so many events; answers their numbers.
fn work(c: &Consumer, n: usize) -> Vec<u64> {
    let mut done = Vec::new();
    while done.len() < n {
        let got = fetch(c, n - done.len());
        assert!(!got.is_empty(), "only {} came", done.len());
        c.ack(&got.iter().map(|d| d.lease).collect::<Vec<_>>()).unwrap();
        done.extend(got.iter().map(number));
    }
    done
}

fn stats(engine: &Engine) -> GroupStats {
    engine.groups().unwrap().pop().unwrap()
}

#[test]
fn members_share_the_events_and_each_key_is_processed_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let engine = groups_only(dir.path(), 3);
    const EVENTS: u64 = 2000;
    // What was processed, in the order in which it was.
    let processed: Mutex<Vec<(String, u64, u64)>> = Mutex::default();
    let members: Vec<Consumer> = (0..4).map(|_| engine.consumer("workers", &options()).unwrap()).collect();
    std::thread::scope(|s| {
        for (i, member) in members.iter().enumerate() {
            let processed = &processed;
            s.spawn(move || {
                loop {
                    let got = fetch(member, 7);
                    let stop = got.iter().any(|d| key(d).starts_with("stop"));
                    for d in got {
                        if !key(&d).starts_with("stop") {
                            processed.lock().unwrap().push((key(&d), number(&d), i as u64));
                        }
                        member.ack(&[d.lease]).unwrap();
                    }
                    if stop {
                        return;
                    }
                }
            });
        }
        for n in 0..EVENTS {
            put(&engine, &format!("k-{}", n % 40), n);
        }
        until("all are processed", || processed.lock().unwrap().len() as u64 == EVENTS);
        let mut n = 0;
        while engine.groups().unwrap()[0].acknowledged < EVENTS + 4 && n < 200 {
            // One for each, whoever gets it: who has it leaves.
            put(&engine, &format!("stop-{n}"), 0);
            n += 1;
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    let processed = processed.into_inner().unwrap();
    let mut last: BTreeMap<&str, u64> = BTreeMap::new();
    for (key, n, _) in &processed {
        assert!(last.insert(key, *n).is_none_or(|before| before < *n), "{key} out of order");
    }
    assert_eq!(processed.iter().map(|(_, n, _)| *n).collect::<BTreeSet<_>>().len() as u64, EVENTS);
    assert!(processed.iter().map(|(.., who)| *who).collect::<BTreeSet<_>>().len() > 1, "the work was shared");
    let s = stats(&engine);
    assert_eq!((s.repeated, s.expired, s.missed, s.dead_lettered), (0, 0, 0, 0));
    engine.close(WAIT).unwrap();
}

#[test]
fn a_visibility_timeout_shorter_than_processing_gives_the_event_to_another_and_refuses_the_late_ack() {
    let dir = tempfile::tempdir().unwrap();
    let engine = groups_only(dir.path(), 1);
    let mut o = options();
    o.visibility_timeout = Duration::from_millis(80);
    let slow = engine.consumer("g", &o).unwrap();
    let other = engine.consumer("g", &options()).unwrap();
    put(&engine, "k", 1);
    put(&engine, "k", 2);
    let first = fetch(&slow, 10);
    assert_eq!((first.len(), first[0].deliveries), (1, 1));
    // The other one waits while the slow one works, and gets it when its time is over.
    let second = fetch(&other, 10);
    assert_eq!((second.len(), number(&second[0]), second[0].deliveries), (1, 1, 2));
    assert_eq!(second[0].entry.id, first[0].entry.id, "the same event");
    let e = slow.ack(&[first[0].lease]).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Timeout);
    assert!(e.to_string().contains("given out again") && e.to_string().contains("visibility_timeout"), "{e}");
    assert_eq!(slow.extend(first[0].lease).unwrap_err().kind(), ErrorKind::Timeout);
    other.ack(&[second[0].lease]).unwrap();
    assert_eq!(slow.ack(&[first[0].lease]).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(work(&other, 1), [2], "the next of the key comes when the first is done");
    let s = stats(&engine);
    assert_eq!((s.given, s.repeated, s.expired, s.acknowledged), (3, 1, 1, 2));
    engine.close(WAIT).unwrap();
}

#[test]
fn a_lease_is_extended_and_an_event_given_back() {
    let dir = tempfile::tempdir().unwrap();
    let engine = groups_only(dir.path(), 1);
    let mut o = options();
    o.visibility_timeout = Duration::from_millis(150);
    let a = engine.consumer("g", &o).unwrap();
    let b = engine.consumer("g", &options()).unwrap();
    put(&engine, "k", 1);
    let got = fetch(&a, 1).pop().unwrap();
    for _ in 0..6 {
        std::thread::sleep(Duration::from_millis(50));
        a.extend(got.lease).unwrap();
    }
    none(&b);
    a.nack(got.lease, Duration::from_millis(100)).unwrap();
    assert_eq!(a.ack(&[got.lease]).unwrap_err().kind(), ErrorKind::Timeout);
    none(&b);
    let again = fetch(&b, 1).pop().unwrap();
    assert_eq!(again.deliveries, 2);
    b.nack(again.lease, Duration::ZERO).unwrap();
    assert_eq!(fetch(&b, 1)[0].deliveries, 3);
    engine.close(WAIT).unwrap();
}

#[test]
fn what_a_member_had_goes_out_again_when_it_is_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let engine = groups_only(dir.path(), 2);
    let a = engine.consumer("g", &options()).unwrap();
    let b = engine.consumer("g", &options()).unwrap();
    for n in 0..20 {
        put(&engine, &format!("k{n}"), n);
    }
    let mut had = 0;
    while had < 20 {
        had += fetch(&a, 20).len();
    }
    std::thread::scope(|s| {
        let waiting = s.spawn(|| work(&b, 20).len());
        std::thread::sleep(Duration::from_millis(30));
        drop(a);
        assert_eq!(waiting.join().unwrap(), 20);
    });
    engine.close(WAIT).unwrap();
}

#[test]
fn an_event_that_is_never_acknowledged_becomes_a_dead_letter_and_its_key_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let engine = groups_only(dir.path(), 2);
    let mut o = options();
    o.deliveries_max = 3;
    let c = engine.consumer("g", &o).unwrap();
    put(&engine, "poison", 1);
    put(&engine, "poison", 2);
    for n in 1..=3 {
        let d = fetch(&c, 10).pop().unwrap();
        assert_eq!((number(&d), d.deliveries), (1, n));
        c.nack(d.lease, Duration::ZERO).unwrap();
    }
    let d = fetch(&c, 10).pop().unwrap();
    assert_eq!((number(&d), d.deliveries), (2, 1));
    c.ack(&[d.lease]).unwrap();
    let s = stats(&engine);
    assert_eq!((s.dead_lettered, s.acknowledged), (1, 1));
    engine.close(WAIT).unwrap();
    let letters = recovery::dead_letters(dir.path()).unwrap();
    let letter = DeadLetter::decode(&letters[0].body).unwrap();
    assert_eq!((letters.len(), letter.attempts), (1, 3));
    assert!(letter.reason.contains("not acknowledged"), "{}", letter.reason);
    assert_eq!(FrameView::parse(letter.frame).unwrap().size(), Some(1));
    // It is done for good.
    let engine = groups_only(dir.path(), 2);
    none(&engine.consumer("g", &o).unwrap());
    engine.close(WAIT).unwrap();
}

#[test]
fn a_group_goes_on_after_a_restart_with_its_counts() {
    let dir = tempfile::tempdir().unwrap();
    let engine = groups_only(dir.path(), 2);
    let c = engine.consumer("g", &options()).unwrap();
    for n in 0..100 {
        put(&engine, &format!("k-{n}"), n);
    }
    let mut got = Vec::new();
    while got.len() < 100 {
        got.extend(fetch(&c, 100));
    }
    // Every third one is left.
    let (left, done): (Vec<&Delivered>, Vec<&Delivered>) = got.iter().partition(|d| number(d).is_multiple_of(3));
    c.ack(&done.iter().map(|d| d.lease).collect::<Vec<_>>()).unwrap();
    let old = left[0].lease;
    engine.close(WAIT).unwrap();
    assert_eq!(c.ack(&[old]).unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(c.fetch(1, WAIT).unwrap_err().kind(), ErrorKind::Closed);

    let engine = groups_only(dir.path(), 2);
    // What is published while nobody is there is kept too.
    for n in 100..110 {
        put(&engine, &format!("k-{n}"), n);
    }
    engine.close(WAIT).unwrap();
    let engine = groups_only(dir.path(), 2);
    let c = engine.consumer("g", &options()).unwrap();
    let mut again = Vec::new();
    while again.len() < 44 {
        again.extend(fetch(&c, 100));
    }
    let expected: BTreeSet<u64> = (0..110).filter(|n| n % 3 == 0 || *n >= 100).collect();
    assert_eq!(again.iter().map(number).collect::<BTreeSet<_>>(), expected);
    assert!(again.iter().all(|d| d.deliveries == if number(d) < 100 { 2 } else { 1 }));
    c.ack(&again.iter().map(|d| d.lease).collect::<Vec<_>>()).unwrap();
    none(&c);
    until("nothing is kept for it", || stats(&engine).lag == 0);
    engine.close(WAIT).unwrap();
    assert!(segments(dir.path()).is_empty());
}

#[test]
fn a_group_begins_where_it_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path(), 2, kept(vec![]));
    for n in 0..10 {
        put(&engine, &format!("k-{n}"), n);
    }
    sync(&engine);
    let middle = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64;
    std::thread::sleep(Duration::from_millis(5));
    for n in 10..15 {
        put(&engine, &format!("k-{n}"), n);
    }
    let group = |name: &str, from: ReadFrom| {
        let mut o = options();
        o.from = from;
        engine.consumer(name, &o).unwrap()
    };
    let beginning = group("beginning", ReadFrom::Beginning);
    let time = group("time", ReadFrom::Time(middle));
    let now = group("now", ReadFrom::Now);
    for n in 15..20 {
        put(&engine, &format!("k-{n}"), n);
    }
    let all = |c: &Consumer, n: usize| {
        let mut done = work(c, n);
        none(c);
        done.sort_unstable();
        done
    };
    assert_eq!(all(&beginning, 20), (0..20).collect::<Vec<_>>());
    assert_eq!(all(&time, 10), (10..20).collect::<Vec<_>>());
    assert_eq!(all(&now, 5), (15..20).collect::<Vec<_>>());
    assert_eq!(engine.groups().unwrap().len(), 3);
    engine.close(WAIT).unwrap();
}

#[test]
fn a_group_wants_events_that_no_rule_wants_and_only_those_of_its_filter() {
    let dir = tempfile::tempdir().unwrap();
    let engine = groups_only(dir.path(), 2);
    let publish = |key: &str, n: u64| {
        let mut e = Event::new(KnownType::ObjectCreatedPut.into(), "bucket", key.as_bytes());
        e.size = Some(n);
        engine.publish(&e).unwrap()
    };
    assert_eq!(publish("in/1", 1), Published::NoMatch);
    let mut o = options();
    o.filter =
        o.filter.with_key(Filter::new("in/", "")).with_events(["s3:ObjectCreated:*"], &EventTypes::default()).unwrap();
    let c = engine.consumer("g", &o).unwrap();
    // From now on they are stored.
    assert_eq!(publish("in/2", 2), Published::Accepted);
    publish("out/3", 3);
    let tagging = Event::new(KnownType::ObjectTaggingPut.into(), "bucket", b"in/2");
    assert_eq!(engine.publish(&tagging).unwrap(), Published::NoMatch);
    // Also when the rules are replaced, and for a destination of theirs.
    let r = receiver(tidewire_receiver::Behaviour::Ok204);
    engine.replace_rules(passing(vec![hook("hook", &r.url())])).unwrap();
    publish("in/4", 4);
    engine.replace_rules(passing(vec![])).unwrap();
    publish("in/5", 5);
    assert_eq!(work(&c, 3).into_iter().collect::<BTreeSet<_>>(), [2, 4, 5].into());
    none(&c);
    engine.flush(WAIT).unwrap();
    assert_eq!(r.records().len(), 1);
    let e = engine.consumer("g", &options()).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::InvalidArgument);
    assert!(e.to_string().contains("another filter"), "{e}");
    engine.close(WAIT).unwrap();
}

#[test]
fn groups_do_not_take_events_from_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let engine = groups_only(dir.path(), 2);
    let a = engine.consumer("a", &options()).unwrap();
    let b = engine.consumer("b", &options()).unwrap();
    for n in 0..50 {
        put(&engine, &format!("k-{}", n % 5), n);
    }
    assert_eq!(work(&a, 50).len(), 50);
    assert_eq!(work(&b, 50).len(), 50);
    engine.close(WAIT).unwrap();
}

#[test]
fn a_group_that_is_too_far_behind_is_told_of_what_it_missed() {
    let dir = tempfile::tempdir().unwrap();
    let engine = groups_only(dir.path(), 1);
    let mut o = options();
    o.lag_bytes_max = 3 << 20;
    let c = engine.consumer("g", &o).unwrap();
    let patient = engine.consumer("patient", &options()).unwrap();
    put(&engine, "first", 0);
    let first = fetch(&c, 1).pop().unwrap();
    c.ack(&[first.lease]).unwrap();
    for n in 1..=2000 {
        put_large(&engine, &format!("k-{n}"), n);
    }
    until("much is written", || segments(dir.path()).len() > 6);
    std::thread::sleep(Duration::from_millis(300));
    assert!(segments(dir.path()).len() > 6, "another group still needs it");
    engine.delete_group("patient").unwrap();
    assert_eq!(patient.fetch(1, WAIT).unwrap_err().kind(), ErrorKind::NotFound);
    until("the log is not kept any longer", || segments(dir.path()).len() <= 4);
    // What of it the member still has open comes, then the gap in its place, and then what is left.
    let (mut got, mut gaps) = (BTreeSet::new(), Vec::new());
    while got.len() as u64 + gaps.iter().map(Gap::sequences).sum::<u64>() < 2000 {
        for d in c.fetch(10, WAIT).unwrap() {
            match d {
                Delivery::Event(d) => {
                    c.ack(&[d.lease]).unwrap();
                    assert!(got.insert(d.entry.sequence));
                }
                Delivery::Gap(g) => gaps.push(g),
            }
        }
    }
    assert_eq!((gaps.len(), gaps[0].cause), (1, GapCause::Removed));
    assert!(got.iter().all(|n| !(gaps[0].first..=gaps[0].last).contains(n)));
    assert_eq!(got.last(), Some(&(first.entry.sequence + 2000)));
    assert_eq!(stats(&engine).missed, gaps[0].sequences());
    engine.close(WAIT).unwrap();
}

#[test]
fn a_group_that_is_deleted_keeps_nothing_and_can_be_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let engine = groups_only(dir.path(), 1);
    let c = engine.consumer("g", &options()).unwrap();
    for n in 0..1000 {
        put_large(&engine, &format!("k-{n}"), n);
    }
    until("several segments are there", || segments(dir.path()).len() > 3);
    let held = fetch(&c, 1).pop().unwrap();
    std::thread::scope(|s| {
        let waiting = engine.consumer("g", &options()).unwrap();
        work(&waiting, 999);
        let waiter = s.spawn(move || waiting.fetch(1, WAIT).unwrap_err().kind());
        std::thread::sleep(Duration::from_millis(30));
        engine.delete_group("g").unwrap();
        assert_eq!(waiter.join().unwrap(), ErrorKind::NotFound);
    });
    assert_eq!(c.ack(&[held.lease]).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(engine.delete_group("g").unwrap_err().kind(), ErrorKind::NotFound);
    until("nothing is kept", || segments(dir.path()).len() <= 1);
    assert!(!engine.is_interested("bucket", KnownType::ObjectCreatedPut.into()));
    let c = engine.consumer("g", &options()).unwrap();
    put(&engine, "new", 7);
    assert_eq!(work(&c, 1), [7]);
    engine.close(WAIT).unwrap();
}

#[test]
fn a_member_that_waits_gets_an_event_as_it_comes() {
    let dir = tempfile::tempdir().unwrap();
    let engine = groups_only(dir.path(), 3);
    let c = engine.consumer("g", &options()).unwrap();
    for n in 0..20 {
        std::thread::scope(|s| {
            let got = s.spawn(|| {
                let begun = Instant::now();
                (fetch(&c, 1), begun.elapsed())
            });
            std::thread::sleep(Duration::from_millis(5));
            put(&engine, &format!("k{n}"), n);
            let (got, elapsed) = got.join().unwrap();
            assert_eq!(number(&got[0]), n);
            assert!(elapsed < WAIT);
            c.ack(&[got[0].lease]).unwrap();
        });
    }
    let begun = Instant::now();
    none(&c);
    assert!(begun.elapsed() >= Duration::from_millis(60));
    assert!(c.fetch(0, WAIT).unwrap().is_empty());
    engine.close(WAIT).unwrap();
}

#[test]
fn memory_stays_bounded_however_far_a_group_is_behind() {
    let dir = tempfile::tempdir().unwrap();
    let engine = groups_only(dir.path(), 1);
    let c = engine.consumer("g", &options()).unwrap();
    for n in 0..6000 {
        put_large(&engine, &format!("k-{n}"), n);
    }
    let mut held = Vec::new();
    loop {
        let got = events(c.fetch(100, Duration::from_millis(100)).unwrap());
        if got.is_empty() {
            break;
        }
        held.extend(got);
    }
    assert!(held.len() >= 100 && held.len() <= 1100, "{}", held.len());
    c.ack(&held.iter().map(|d| d.lease).collect::<Vec<_>>()).unwrap();
    assert_eq!(work(&c, 6000 - held.len()).len(), 6000 - held.len());
    engine.close(WAIT).unwrap();
}

#[test]
fn a_group_that_was_made_survives_a_copy_taken_in_the_middle_of_work() {
    // What a crash leaves: cursors first, then the log, of a running engine.
    let dir = tempfile::tempdir().unwrap();
    let engine = groups_only(dir.path(), 1);
    let c = engine.consumer("g", &options()).unwrap();
    for n in 0..500 {
        put(&engine, &format!("k-{n}"), n);
    }
    let done: BTreeSet<u64> = work(&c, 200).into_iter().collect();
    let copy = tempfile::tempdir().unwrap();
    for file in ["meta.json", "names.json", "groups.json", "shard-0000/cursor.a", "shard-0000/cursor.b"] {
        std::fs::create_dir_all(copy.path().join("shard-0000")).unwrap();
        if dir.path().join(file).exists() {
            std::fs::copy(dir.path().join(file), copy.path().join(file)).unwrap();
        }
    }
    work(&c, 100);
    for segment in segments(dir.path()) {
        std::fs::copy(&segment, copy.path().join("shard-0000").join(segment.file_name().unwrap())).unwrap();
    }
    engine.close(WAIT).unwrap();
    let engine = groups_only(copy.path(), 1);
    let c = engine.consumer("g", &options()).unwrap();
    let mut again = BTreeSet::new();
    loop {
        let got = events(c.fetch(100, Duration::from_millis(300)).unwrap());
        if got.is_empty() {
            break;
        }
        c.ack(&got.iter().map(|d| d.lease).collect::<Vec<_>>()).unwrap();
        again.extend(got.iter().map(number));
    }
    let missing: Vec<u64> = (0..500).filter(|n| !again.contains(n) && !done.contains(n)).collect();
    assert!(missing.is_empty(), "{missing:?}");
    engine.close(WAIT).unwrap();
}

#[test]
fn options_and_names_are_checked() {
    let dir = tempfile::tempdir().unwrap();
    let engine = groups_only(dir.path(), 1);
    let refused = |name: &str, change: &dyn Fn(&mut ConsumerOptions)| {
        let mut o = options();
        change(&mut o);
        engine.consumer(name, &o).unwrap_err().kind()
    };
    for bad in ["", "a b", "a:b", "-a"] {
        assert_eq!(refused(bad, &|_| ()), ErrorKind::InvalidArgument);
    }
    assert_eq!(refused("g", &|o| o.visibility_timeout = Duration::ZERO), ErrorKind::InvalidConfig);
    assert_eq!(refused("g", &|o| o.deliveries_max = 0), ErrorKind::InvalidConfig);
    assert_eq!(refused("g", &|o| o.batch = 0), ErrorKind::InvalidConfig);
    assert_eq!(refused("g", &|o| o.lag_bytes_max = 1), ErrorKind::InvalidConfig);
    assert_eq!(refused("g", &|o| o.lag_age_max = Duration::ZERO), ErrorKind::InvalidConfig);
    assert_eq!(refused("g", &|o| o.filter = EventFilter::all().with_bucket("")), ErrorKind::InvalidConfig);
    let of_two = ReadFrom::Position("tw1:1.2".parse().unwrap());
    assert_eq!(refused("g", &|o| o.from = of_two.clone()), ErrorKind::InvalidArgument);
    assert!(engine.groups().unwrap().is_empty());
    engine.close(WAIT).unwrap();
    assert_eq!(refused("g", &|_| ()), ErrorKind::Closed);
}
