//! The log under a whole engine: what fails is ordered from the disk's threads.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tidewire_receiver::{Behaviour, Receiver, check_per_key_order, duplicates};

use crate::config::EngineConfig;
use crate::driver::disk::{Operation, faults};
use crate::event::EventTypes;
use crate::log::layout::Since;
use crate::log::recovery::{self, Findings, list_files, scan, shard_path};
use crate::rule::{Destination, DestinationKind, Rule, RuleSet, Webhook};
use crate::{Ack, Engine, ErrorKind, Event, KnownType, PublishOptions};

const WAIT: Duration = Duration::from_secs(30);

fn receiver(behaviour: Behaviour) -> Receiver {
    Receiver::start("127.0.0.1:0".parse().unwrap(), behaviour).unwrap()
}

fn config(dir: &Path) -> EngineConfig {
    let mut c = EngineConfig::new(dir);
    c.shards = Some(1);
    c.log.segment_bytes = 1 << 20;
    c
}

fn rules(url: &str) -> RuleSet {
    let mut d = Destination::new("hook", DestinationKind::Webhook(Webhook::new(url).unwrap()));
    d.retry.backoff_min = Duration::from_millis(20);
    d.retry.backoff_max = Duration::from_millis(100);
    d.retry.poison_attempts = 1;
    d.breaker.open_min = Duration::from_millis(50);
    d.breaker.open_max = Duration::from_millis(100);
    let types = EventTypes::default();
    let rule = Rule::new("all", ["s3:ObjectCreated:*"], &types).unwrap().with_destination("hook");
    RuleSet::build(vec![rule], vec![d], types).unwrap()
}

fn open(dir: &Path, url: &str) -> Engine {
    Engine::open_with(config(dir), rules(url)).unwrap()
}

/// Publishes events of ten keys; the size is the number.
fn publish(engine: &Engine, numbers: std::ops::Range<u64>, ack: Ack) -> crate::Result<()> {
    let options = PublishOptions { ack, ..PublishOptions::default() };
    for n in numbers {
        let key = format!("key-{:0>200}", n % 10);
        let mut e = Event::new(KnownType::ObjectCreatedPut.into(), "bucket", key.as_bytes());
        e.size = Some(n);
        engine.publish_with(&e, &options)?;
    }
    Ok(())
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + WAIT;
    while !done() {
        assert!(Instant::now() < deadline, "gave up waiting until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Each number once, in order per key.
fn assert_complete(r: &Receiver, numbers: std::ops::Range<u64>) {
    let records = r.records();
    assert_eq!(check_per_key_order(&records), []);
    assert_eq!(duplicates(&records), []);
    let got: BTreeSet<u64> = records.iter().filter(|r| r.accepted).filter_map(|r| r.size).collect();
    assert_eq!(got, numbers.collect::<BTreeSet<_>>());
    let mut last = BTreeMap::new();
    for r in records.iter().filter(|r| r.accepted) {
        assert!(last.insert(r.key.clone(), r.size).is_none_or(|before| before < r.size), "{}", r.key);
    }
}

fn shard(dir: &Path) -> PathBuf {
    shard_path(dir, 0)
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() { copy(&path, &target) } else { drop(std::fs::copy(&path, &target)) }
    }
}

#[test]
fn after_a_failed_sync_the_log_goes_on_in_a_new_segment_and_nothing_is_lost_or_doubled() {
    let dir = tempfile::tempdir().unwrap();
    let r = receiver(Behaviour::Ok204);
    let engine = open(dir.path(), &r.url());
    publish(&engine, 0..40, Ack::Synced).unwrap();
    faults::order(&shard(dir.path()), Operation::Sync, libc::EIO, 1);
    publish(&engine, 40..100, Ack::Synced).unwrap();
    assert_eq!(faults::left(&shard(dir.path())), 0);
    let s = engine.stats();
    assert_eq!((s.log_moves, s.unhealthy.len()), (1, 0));
    engine.flush(WAIT).unwrap();
    assert_complete(&r, 0..100);
    engine.close(WAIT).unwrap();
    open(dir.path(), &r.url()).close(WAIT).unwrap();
    assert_complete(&r, 0..100);
}

#[test]
fn a_lane_that_is_behind_reads_what_was_moved_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut r = receiver(Behaviour::Ok204);
    let url = r.url();
    r.stop();
    let mut c = config(dir.path());
    c.delivery.lane_events_max = 16;
    let engine = Engine::open_with(c, rules(&url)).unwrap();
    publish(&engine, 0..300, Ack::Memory).unwrap();
    publish(&engine, 300..301, Ack::Synced).unwrap();
    faults::order(&shard(dir.path()), Operation::Sync, libc::EIO, 1);
    publish(&engine, 301..600, Ack::Memory).unwrap();
    publish(&engine, 600..700, Ack::Synced).unwrap();
    assert_eq!(engine.stats().log_moves, 1);

    // A crash now: the segment that failed holds what the next one holds too.
    let crashed = tempfile::tempdir().unwrap();
    copy(dir.path(), crashed.path());
    let files = list_files(&shard(crashed.path()), &mut Findings::default()).unwrap();
    let void: u64 = files
        .segments
        .iter()
        .map(|s| {
            let mut void = 0;
            scan(&s.header, &std::fs::read(&s.path).unwrap(), |_, r| {
                void += u64::from(r.sequence() > s.last_sequence && s.last_sequence >= s.header.base_sequence);
            });
            void
        })
        .sum();
    assert!(void > 0, "the test is void: nothing is in two segments");
    let second = receiver(Behaviour::Ok204);
    let again = open(crashed.path(), &second.url());
    again.flush(WAIT).unwrap();
    assert_complete(&second, 0..700);
    again.close(WAIT).unwrap();

    r.restart().unwrap();
    engine.flush(WAIT).unwrap();
    assert_complete(&r, 0..700);
    engine.close(WAIT).unwrap();
}

#[test]
fn after_a_failed_write_too() {
    let dir = tempfile::tempdir().unwrap();
    let r = receiver(Behaviour::Ok204);
    let engine = open(dir.path(), &r.url());
    for round in 0..5 {
        publish(&engine, round * 20..round * 20 + 10, Ack::Synced).unwrap();
        faults::order(&shard(dir.path()), Operation::Write, libc::EIO, 1);
        publish(&engine, round * 20 + 10..round * 20 + 20, Ack::Synced).unwrap();
    }
    assert_eq!(engine.stats().log_moves, 5);
    engine.flush(WAIT).unwrap();
    assert_complete(&r, 0..100);
    until("the segments that failed are gone", || engine.stats().segments <= 1);
    engine.close(WAIT).unwrap();
}

struct Ended<'a>(&'a std::sync::atomic::AtomicBool);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.store(true, std::sync::atomic::Ordering::SeqCst);
    }
}

/// Some groups are in the middle of being written or synced when the failure comes, others wait behind them.
#[test]
fn failures_in_the_middle_of_traffic_lose_and_double_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let r = receiver(Behaviour::Ok204);
    let engine = open(dir.path(), &r.url());
    let place = shard(dir.path());
    let stop = std::sync::atomic::AtomicBool::new(false);
    let published = std::thread::scope(|s| {
        let publishers: Vec<_> = (0..4u64)
            .map(|t| {
                let (engine, stop) = (&engine, &stop);
                s.spawn(move || {
                    let mut n = 0;
                    while !stop.load(std::sync::atomic::Ordering::SeqCst) {
                        let key = format!("thread-{t}-{:0>300}", n % 7);
                        let mut e = Event::new(KnownType::ObjectCreatedPut.into(), "bucket", key.as_bytes());
                        e.size = Some(n);
                        let ack = if n % 3 == 0 { Ack::Synced } else { Ack::Memory };
                        engine.publish_with(&e, &PublishOptions { ack, ..PublishOptions::default() }).unwrap();
                        n += 1;
                    }
                    n
                })
            })
            .collect();
        // Whatever happens here, the publishers shall end.
        let ended = Ended(&stop);
        for round in 0..40 {
            std::thread::sleep(Duration::from_millis(8));
            let operation = if round % 3 == 0 { Operation::Write } else { Operation::Sync };
            faults::order(&place, operation, libc::EIO, 1);
            until("the failure has come", || faults::left(&place) == 0);
            // The next one must not meet the second try.
            engine.publish(&Event::new(KnownType::ObjectCreatedPut.into(), "bucket", b"the log goes on")).unwrap();
        }
        drop(ended);
        publishers.into_iter().map(|p| p.join().unwrap()).collect::<Vec<u64>>()
    });
    engine.flush(WAIT).unwrap();
    let s = engine.stats();
    // Some failures meet the zeros of a file that is being made ready, which is none of the log's.
    assert!((20..=40).contains(&s.log_moves), "{}", s.log_moves);
    assert_eq!((s.unhealthy.len(), s.waiting), (0, 0));
    let records = r.records();
    assert_eq!((check_per_key_order(&records), duplicates(&records)), (vec![], vec![]));
    let mut got: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for r in records.iter().filter(|r| r.accepted && r.size.is_some()) {
        got.entry(r.key[..8].to_owned()).or_default().push(r.size.unwrap());
    }
    for (t, n) in published.iter().enumerate() {
        let mut sizes = got.remove(&format!("thread-{t}")).unwrap_or_default();
        sizes.sort_unstable();
        assert_eq!(sizes, (0..*n).collect::<Vec<_>>(), "thread {t}");
    }
    engine.close(WAIT).unwrap();
}

#[test]
fn a_second_failure_stops_the_log_until_it_is_opened_again() {
    let dir = tempfile::tempdir().unwrap();
    let r = receiver(Behaviour::Ok204);
    let engine = open(dir.path(), &r.url());
    publish(&engine, 0..40, Ack::Synced).unwrap();
    faults::order(&shard(dir.path()), Operation::Sync, libc::EIO, usize::MAX);
    let e = publish(&engine, 40..41, Ack::Synced).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::LogFailed);
    for words in ["shard 0", "durable: Input/output error", "mend the disk and open the engine again"] {
        assert!(e.to_string().contains(words), "{e}");
    }
    // The flag stays, and tells the same.
    for _ in 0..3 {
        let again = publish(&engine, 41..42, Ack::Memory).unwrap_err();
        assert_eq!((again.kind(), again.to_string()), (ErrorKind::LogFailed, e.to_string()));
        assert_eq!(engine.stats().unhealthy, [e.to_string()]);
    }
    // What was durable before is delivered meanwhile.
    until("the lanes have gone on", || engine.stats().delivered >= 40);
    assert_eq!(engine.close(WAIT).unwrap_err().kind(), ErrorKind::LogFailed);
    faults::lift(&shard(dir.path()));

    let engine = open(dir.path(), &r.url());
    assert_eq!(engine.stats().unhealthy, [""; 0]);
    publish(&engine, 100..120, Ack::Synced).unwrap();
    engine.flush(WAIT).unwrap();
    let got: BTreeSet<u64> = r.records().iter().filter_map(|r| r.size).collect();
    assert!((0..40).chain(100..120).all(|n| got.contains(&n)), "{got:?}");
    assert_eq!(duplicates(&r.records()), []);
    assert_eq!(check_per_key_order(&r.records()), []);
    engine.close(WAIT).unwrap();
}

#[test]
fn a_dead_letter_whose_sync_failed_is_kept_once() {
    let dir = tempfile::tempdir().unwrap();
    let r = receiver(Behaviour::Status(400));
    let engine = open(dir.path(), &r.url());
    faults::order(&shard(dir.path()).join("dead"), Operation::Sync, libc::EIO, 1);
    faults::order(&shard(dir.path()).join("dead"), Operation::Write, libc::EIO, 1);
    publish(&engine, 0..1, Ack::Synced).unwrap();
    until("the first letter is kept", || engine.stats().dead_lettered == 1);
    publish(&engine, 1..30, Ack::Synced).unwrap();
    engine.flush(WAIT).unwrap();
    assert_eq!(faults::left(&shard(dir.path()).join("dead")), 0);
    assert_eq!(engine.stats().dead_lettered, 30);
    let numbers = || recovery::dead_letters(dir.path()).unwrap().iter().map(|l| l.number).collect::<Vec<_>>();
    assert_eq!(numbers(), (1..31).collect::<Vec<_>>());
    engine.close(WAIT).unwrap();
    // Events whose first segment failed are found where they are now.
    let engine = open(dir.path(), &r.url());
    faults::order(&shard(dir.path()), Operation::Sync, libc::EIO, 1);
    publish(&engine, 30..60, Ack::Synced).unwrap();
    engine.flush(WAIT).unwrap();
    engine.close(WAIT).unwrap();
    let letters = recovery::dead_letters(dir.path()).unwrap();
    let sizes: BTreeSet<u64> = letters
        .iter()
        .filter_map(|l| {
            let letter = recovery_letter(&l.body);
            crate::event::FrameView::parse(letter.frame).unwrap().size()
        })
        .collect();
    assert_eq!((letters.len(), sizes), (60, (0..60).collect()));
}

fn recovery_letter(body: &[u8]) -> crate::log::record::DeadLetter<'_> {
    crate::log::record::DeadLetter::decode(body).unwrap()
}

#[test]
fn files_of_passed_segments_serve_again_and_a_crash_at_any_time_takes_none_for_a_segment() {
    let dir = tempfile::tempdir().unwrap();
    let r = receiver(Behaviour::Ok204);
    let engine = open(dir.path(), &r.url());
    let mut most = 0;
    let mut recycled = 0;
    for round in 0..12u64 {
        // More than a segment.
        publish(&engine, round * 4000..round * 4000 + 3999, Ack::Memory).unwrap();
        publish(&engine, round * 4000 + 3999..round * 4000 + 4000, Ack::Synced).unwrap();
        engine.flush(WAIT).unwrap();
        most = most.max(engine.stats().log_disk_bytes);
        let crashed = tempfile::tempdir().unwrap();
        copy(dir.path(), crashed.path());
        let mut findings = Findings::default();
        let files = list_files(&shard(crashed.path()), &mut findings).unwrap();
        recycled += files.segments.iter().filter(|s| s.header.recycled).count();
        let state = recovery::recover_shard(&shard(crashed.path()), Since::default()).unwrap();
        assert_eq!((state.findings.damaged, state.findings.unreadable.len()), (0, 0), "{:?}", state.findings);
        assert!(state.segments.windows(2).all(|w| w[0].header.id < w[1].header.id));
        assert!(state.segments.iter().all(|s| s.header.id < state.next_segment));
        // What was delivered shortly before may come again, but nothing from before the cursors, and never out of order.
        let second = receiver(Behaviour::Ok204);
        let again = open(crashed.path(), &second.url());
        publish(&again, 1_000_000..1_000_010, Ack::Synced).unwrap();
        again.flush(WAIT).unwrap();
        assert_eq!(check_per_key_order(&second.records()), []);
        assert_eq!(duplicates(&second.records()), []);
        let old = second.records().iter().filter_map(|r| r.size).filter(|n| *n < 1_000_000).collect::<Vec<_>>();
        assert!(old.iter().all(|n| *n < (round + 1) * 4000), "an event that was never published");
        again.close(WAIT).unwrap();
    }
    assert!(recycled > 0, "no file was used again");
    assert!(engine.stats().log_disk_bytes <= most && most <= 24 << 20, "{most} bytes");
    assert_complete(&r, 0..48_000);
    engine.close(WAIT).unwrap();
    let files = list_files(&shard(dir.path()), &mut Findings::default()).unwrap();
    assert!(files.segments.is_empty() && files.spares.is_empty(), "{files:?}");
}

#[test]
fn numbers_of_segments_are_never_used_again() {
    let dir = tempfile::tempdir().unwrap();
    let r = receiver(Behaviour::Ok204);
    let mut before = 0;
    for round in 0..4 {
        let engine = open(dir.path(), &r.url());
        publish(&engine, round * 10..round * 10 + 10, Ack::Synced).unwrap();
        let files = list_files(&shard(dir.path()), &mut Findings::default()).unwrap();
        let id = files.segments.last().unwrap().header.id;
        assert!(id > before, "{id} again");
        before = id;
        engine.flush(WAIT).unwrap();
        engine.close(WAIT).unwrap();
        assert!(list_files(&shard(dir.path()), &mut Findings::default()).unwrap().segments.is_empty());
    }
    assert_complete(&r, 0..40);
}

#[test]
fn what_a_crash_leaves_of_files_in_the_making_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let r = receiver(Behaviour::Status(503));
    let engine = open(dir.path(), &r.url());
    publish(&engine, 0..50, Ack::Synced).unwrap();
    engine.close(Duration::ZERO).unwrap();
    let s = shard(dir.path());
    let segment = list_files(&s, &mut Findings::default()).unwrap().segments.pop().unwrap();
    let mut old = std::fs::read(&segment.path).unwrap();
    old.resize(1 << 20, 0);
    // A segment's file named anew, its header and records not yet written; a spare; one half made; one being moved to; a
    // segment that was created and not written.
    std::fs::write(s.join("0000000000000009.log"), &old).unwrap();
    std::fs::write(s.join("0000000000000007.spare"), &old).unwrap();
    std::fs::write(s.join("new.spare"), vec![0; 300_000]).unwrap();
    std::fs::write(s.join("moved.spare"), &old).unwrap();
    std::fs::write(s.join("000000000000000a.log"), vec![0; 8192]).unwrap();

    let state = recovery::recover_shard(&s, Since::default()).unwrap();
    assert_eq!((state.segments.len(), state.spares.len(), state.next_segment), (1, 5, 11));
    assert_eq!(state.findings, Findings::default());
    r.set_behaviour(Behaviour::Ok204);
    let engine = open(dir.path(), &r.url());
    engine.flush(WAIT).unwrap();
    publish(&engine, 50..60, Ack::Synced).unwrap();
    engine.flush(WAIT).unwrap();
    let got: BTreeSet<u64> = r.records().iter().filter(|r| r.accepted).filter_map(|r| r.size).collect();
    assert_eq!(got, (0..60).collect());
    assert_eq!(r.records().iter().filter(|r| r.accepted).count(), 60);
    until("files of no use are gone", || !s.join("new.spare").exists() && !s.join("moved.spare").exists());
    let files = list_files(&s, &mut Findings::default()).unwrap();
    // The one that was killed may still be writing to them.
    assert!(!files.segments.iter().any(|s| s.header.recycled), "a file that was found serves again: {files:?}");
    engine.close(WAIT).unwrap();
}
