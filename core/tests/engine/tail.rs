//! Following the log as it grows.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::common::*;
use tidewire::filter::{EventFilter, Filter};
use tidewire::log::reader::{Entry, Gap, GapCause, Item, ReadFrom};
use tidewire::{Engine, ErrorKind, Event, KnownType, Tail};
use tidewire_receiver::Behaviour;

/// So many events, each within the time that tests have, but for those of `sync`.
fn take(tail: &mut Tail, n: usize) -> Vec<Entry> {
    let mut entries = Vec::new();
    while entries.len() < n {
        match tail.next_within(WAIT).unwrap() {
            Some(Item::Entry(e)) if e.frame().bucket() == "sync" => {}
            Some(Item::Entry(e)) => entries.push(e),
            Some(Item::Gap(g)) => panic!("{g:?}"),
            None => panic!("only {} events came", entries.len()),
        }
    }
    entries
}

fn numbers(entries: &[Entry]) -> Vec<u64> {
    entries.iter().map(|e| e.frame().size().unwrap()).collect()
}

#[test]
fn events_come_as_they_are_published() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path(), 3, kept(vec![]));
    put(&engine, "before", 0);
    sync(&engine);
    let mut tail = engine.tail(EventFilter::all(), &ReadFrom::Now).unwrap();
    assert!(tail.next_within(Duration::from_millis(30)).unwrap().is_none());
    std::thread::scope(|s| {
        s.spawn(|| {
            for n in 1..=200 {
                put(&engine, &format!("k-{}", n % 7), n);
                if n % 20 == 0 {
                    std::thread::sleep(Duration::from_millis(2));
                }
            }
        });
        let entries = take(&mut tail, 200);
        let mut last = BTreeMap::new();
        for e in &entries {
            let n = e.frame().size().unwrap();
            assert!(last.insert(e.frame().key().to_vec(), n).is_none_or(|before| before < n), "order per key");
        }
        let mut all = numbers(&entries);
        all.sort_unstable();
        assert_eq!(all, (1..=200).collect::<Vec<_>>());
    });
    engine.close(WAIT).unwrap();
}

#[test]
fn a_waiting_tail_is_woken_at_once_and_told_of_the_close() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path(), 2, kept(vec![]));
    let tail = engine.tail(EventFilter::all(), &ReadFrom::Now).unwrap();
    let other = engine.tail(EventFilter::all(), &ReadFrom::Now).unwrap();
    std::thread::scope(|s| {
        let following = s.spawn(move || tail.collect::<tidewire::Result<Vec<Item>>>().unwrap().len());
        let also = s.spawn(move || other.collect::<tidewire::Result<Vec<Item>>>().unwrap().len());
        std::thread::sleep(Duration::from_millis(50));
        for n in 0..10 {
            put(&engine, &format!("k{n}"), n);
        }
        std::thread::sleep(Duration::from_millis(50));
        put(&engine, "last", 11);
        let begun = Instant::now();
        engine.close(WAIT).unwrap();
        assert_eq!((following.join().unwrap(), also.join().unwrap()), (11, 11));
        assert!(begun.elapsed() < WAIT, "the iterators ended by themselves");
    });
    let mut late = engine.tail(EventFilter::all(), &ReadFrom::Beginning).unwrap();
    take(&mut late, 11);
    assert_eq!(late.next_within(WAIT).unwrap_err().kind(), ErrorKind::Closed);
}

#[test]
fn a_tail_goes_on_from_its_position_in_another_run() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path(), 3, kept(vec![]));
    for n in 1..=90 {
        put(&engine, &format!("k-{n}"), n);
    }
    let mut tail = engine.tail(EventFilter::all(), &ReadFrom::Beginning).unwrap();
    let mut all = numbers(&take(&mut tail, 40));
    let position = tail.position().to_string();
    engine.close(WAIT).unwrap();
    let engine = open(dir.path(), 3, kept(vec![]));
    for n in 91..=100 {
        put(&engine, &format!("k-{n}"), n);
    }
    let from = ReadFrom::Position(position.parse().unwrap());
    let mut tail = engine.tail(EventFilter::all(), &from).unwrap();
    all.extend(numbers(&take(&mut tail, 60)));
    all.sort_unstable();
    assert_eq!(all, (1..=100).collect::<Vec<_>>());
    assert!(tail.next_within(Duration::from_millis(20)).unwrap().is_none());
    engine.close(WAIT).unwrap();
}

#[test]
fn a_reader_that_is_too_slow_is_told_what_it_missed() {
    // The fault of listen streams that lose events in silence.
    let dir = tempfile::tempdir().unwrap();
    let mut c = config(dir.path(), 1);
    c.retention.bytes_max = Some(3 << 20);
    let engine = Engine::open_with(c, kept(vec![])).unwrap();
    let mut tail = engine.tail(EventFilter::all(), &ReadFrom::Now).unwrap();
    put(&engine, "first", 0);
    let first = take(&mut tail, 1).pop().unwrap();
    for n in 1..=3000 {
        put_large(&engine, &format!("k-{n}"), n);
    }
    sync(&engine);
    until("old segments are gone", || segments(dir.path()).len() <= 3);
    let (mut events, mut gaps): (u64, Vec<Gap>) = (0, Vec::new());
    let mut next = first.sequence + 1;
    while events + gaps.iter().map(Gap::sequences).sum::<u64>() < 3064 {
        match tail.next_within(WAIT).unwrap().expect("more") {
            Item::Entry(e) => {
                assert_eq!(e.sequence, next, "nothing is passed over in silence");
                (events, next) = (events + 1, next + 1);
            }
            Item::Gap(g) => {
                assert_eq!((g.first, g.cause), (next, GapCause::Removed));
                assert!(g.since_ns.unwrap() >= first.clock.0 && g.until_ns > g.since_ns, "{g:?}");
                next = g.last + 1;
                gaps.push(g);
            }
        }
    }
    assert!(!gaps.is_empty() && events > 100);
    engine.close(WAIT).unwrap();
}

#[test]
fn without_retention_a_tail_sees_what_passes_through() {
    let dir = tempfile::tempdir().unwrap();
    let r = receiver(Behaviour::Ok204);
    let mut c = config(dir.path(), 1);
    c.retention.keep = tidewire::config::Keep::Nothing;
    let engine = Engine::open_with(c, passing(vec![hook("hook", &r.url())])).unwrap();
    let mut tail = engine.tail(EventFilter::all(), &ReadFrom::Now).unwrap();
    for n in 1..=100 {
        put(&engine, "k", n);
    }
    assert_eq!(numbers(&take(&mut tail, 100)), (1..=100).collect::<Vec<_>>());
    engine.close(WAIT).unwrap();
}

#[test]
fn a_tail_has_a_filter() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path(), 2, kept(vec![]));
    let filter = EventFilter::all().with_bucket("bucket").with_key(Filter::new("in/", ".jpg"));
    let mut tail = engine.tail(filter, &ReadFrom::Beginning).unwrap();
    for n in 1..=10 {
        put(&engine, &format!("in/{n}.jpg"), n);
        put(&engine, &format!("in/{n}.png"), n);
        put(&engine, &format!("out/{n}.jpg"), n);
    }
    engine.publish(&Event::new(KnownType::ObjectCreatedPut.into(), "other", b"in/1.jpg")).unwrap();
    assert_eq!(take(&mut tail, 10).len(), 10);
    assert!(tail.next_within(Duration::from_millis(50)).unwrap().is_none());
    let bad = EventFilter::all().with_bucket("a/b");
    assert_eq!(engine.tail(bad, &ReadFrom::Now).unwrap_err().kind(), ErrorKind::InvalidConfig);
    let of_three = ReadFrom::Position("tw1:1.2.3".parse().unwrap());
    assert_eq!(engine.tail(EventFilter::all(), &of_three).unwrap_err().kind(), ErrorKind::InvalidArgument);
    engine.close(WAIT).unwrap();
}
