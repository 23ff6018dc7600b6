//! Endpoints that come late, and what a closed engine leaves to the next one.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use tidewire::{Ack, ErrorKind};
use tidewire_e2e::{engine, free_port, keys, publish, receiver, wait_for_stats};
use tidewire_receiver::{Behaviour, Receiver, check_per_key_order, duplicates};

const PATIENCE: Duration = Duration::from_secs(20);

/// The records must be each of `keys` with the sizes from 0 up, in order, whatever was repeated: the receiver may come to a
/// request only after the engine that sent it was closed.
fn check(receiver: &Receiver, keys: &[String], rounds: u64) {
    let records = receiver.records();
    assert_eq!(check_per_key_order(&records), []);
    for key in keys {
        let mut sizes: Vec<u64> =
            records.iter().filter(|r| r.accepted && r.key == *key).filter_map(|r| r.size).collect();
        let mut seen = HashSet::new();
        sizes.retain(|size| seen.insert(*size));
        assert_eq!(sizes, (0..rounds).collect::<Vec<_>>(), "{key}");
    }
}

#[test]
fn an_endpoint_that_is_dead_at_the_start_is_found_when_it_comes() {
    let dir = tempfile::tempdir().expect("a directory");
    let port = free_port();
    let started = Instant::now();
    let engine = engine(dir.path(), &format!("http://127.0.0.1:{port}/")).expect("an engine");
    assert!(started.elapsed() < Duration::from_secs(5), "the start waited for the endpoint");
    let keys = keys("dir/key ", 30);
    publish(&engine, &keys, 0, 10, Ack::Synced).expect("published");
    let e = engine.flush(Duration::from_millis(300)).expect_err("nobody listens");
    assert!(e.kind() == ErrorKind::Timeout && e.to_string().contains("300 deliveries still wait"), "{e}");
    let d = &engine.stats().destinations[0];
    assert!(d.failures > 0 && d.last_error.contains("refused"), "{d:?}");
    println!("{} failures, {}", d.failures, d.last_error);

    let receiver = Receiver::start(([127, 0, 0, 1], port).into(), Behaviour::Ok204).expect("a receiver");
    engine.flush(PATIENCE).expect("flushed");
    check(&receiver, &keys, 10);
    let stats = engine.stats();
    assert_eq!((stats.delivered, stats.waiting, stats.dead_lettered), (300, 0, 0));
    engine.close(PATIENCE).expect("closed");
}

#[test]
fn what_was_not_delivered_is_delivered_after_the_next_opening() {
    let dir = tempfile::tempdir().expect("a directory");
    let receiver = receiver(Behaviour::Status(503));
    let keys = keys("k", 50);
    let mut rounds = 0;
    for _ in 0..3 {
        let engine = engine(dir.path(), &receiver.url()).expect("an engine");
        publish(&engine, &keys, rounds, 20, Ack::Memory).expect("published");
        rounds += 20;
        let started = Instant::now();
        engine.close(Duration::from_millis(100)).expect("closed");
        assert!(started.elapsed() < Duration::from_secs(5), "closing took {:?}", started.elapsed());
        let e = publish(&engine, &keys, rounds, 1, Ack::Memory).expect_err("a closed engine");
        assert_eq!(e.kind(), ErrorKind::Closed);
    }
    receiver.set_behaviour(Behaviour::Ok204);
    let engine = engine(dir.path(), &receiver.url()).expect("an engine");
    engine.flush(PATIENCE).expect("flushed");
    check(&receiver, &keys, rounds);
    wait_for_stats(&engine, "all counted", |s| s.waiting == 0 && s.delivered == 50 * rounds);
    engine.close(PATIENCE).expect("closed");
}

#[test]
fn a_clean_close_repeats_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let receiver = receiver(Behaviour::Ok204);
    let keys = keys("k", 50);
    for round in 0..5 {
        let engine = engine(dir.path(), &receiver.url()).expect("an engine");
        publish(&engine, &keys, round * 4, 4, Ack::Memory).expect("published");
        engine.close(PATIENCE).expect("closed");
    }
    check(&receiver, &keys, 20);
    assert_eq!(receiver.accepted(), 1000);
    assert_eq!(duplicates(&receiver.records()), []);
}
