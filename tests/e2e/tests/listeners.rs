//! Listeners that come and go leave nothing behind in the process. The only test of its process: it counts what the process
//! has.

use std::time::Duration;

use tidewire::config::Keep;
use tidewire::filter::EventFilter;
use tidewire::log::reader::ReadFrom;
use tidewire::{Ack, ConsumerOptions, Engine};
use tidewire_e2e::{Held, config, hook, keys, publish, receiver, rules, wait_until};
use tidewire_receiver::Behaviour;

const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn listeners_that_went_away_are_not_cleaned_up() {
    let dir = tempfile::tempdir().expect("a directory");
    let receiver = receiver(Behaviour::Ok204);
    let mut c = config(dir.path(), 2);
    c.retention.keep = Keep::All;
    let engine = Engine::open_with(c, rules(vec![hook("hook", &receiver.url())])).expect("an engine");
    let mut round = 0;
    let mut listen = || {
        publish(&engine, &keys("key", 10), round, 1, Ack::Memory).expect("published");
        round += 1;
        // They stop in the middle of everything: with events that they have not read, and leases that they hold.
        let mut tails: Vec<_> =
            (0..10).map(|_| engine.tail(EventFilter::all(), &ReadFrom::Beginning).expect("a tail")).collect();
        for tail in &mut tails {
            tail.next_within(PATIENCE).expect("read").expect("an event");
        }
        for _ in 0..3 {
            let member = engine.consumer("workers", &ConsumerOptions::default()).expect("a member");
            member.fetch(2, Duration::from_millis(1)).expect("fetched");
        }
        engine.flush(PATIENCE).expect("flushed");
    };
    (0..3).for_each(|_| listen());
    // Connections may be more or less just then; what leaks is one of each round at least.
    let settled = |limit: Held| wait_until(PATIENCE, || Held::now().within(limit));
    let before = Held::now();
    (0..40).for_each(|_| listen());
    let back = settled(Held { descriptors: before.descriptors + 20, ..before });
    println!("before {before:?}, after {:?}", Held::now());
    assert!(back, "before {before:?}, after {:?}", Held::now());
    assert_eq!(receiver.accepted(), 430);
    engine.close(PATIENCE).expect("closed");
}
