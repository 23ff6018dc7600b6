//! Rules that are replaced, again and again, leave nothing running. The only test of its process: it counts what the
//! process has.

use std::time::Duration;

use tidewire::event::EventTypes;
use tidewire::rule::{Rule, RuleSet};
use tidewire::{Ack, Engine};
use tidewire_e2e::{Held, config, hook, keys, publish, receiver, rules, wait_until};
use tidewire_receiver::Behaviour;

const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn each_check_of_the_configuration_leaves_a_routine_running() {
    let dir = tempfile::tempdir().expect("a directory");
    let (first, second) = (receiver(Behaviour::Ok204), receiver(Behaviour::Ok204));
    let keys = keys("key", 10);
    let set = |round: u64| {
        let mut changing = hook("first", &first.url());
        changing.batch.linger = Duration::from_millis(round % 5);
        let mut set = vec![changing];
        if round % 2 == 1 {
            set.push(hook("second", &second.url()));
        }
        rules(set)
    };
    let engine = Engine::open_with(config(dir.path(), 2), set(1)).expect("an engine");
    let reload = |round: u64| {
        let types = EventTypes::default();
        let wrong = Rule::new("wrong", ["s3:ObjectCreated:*"], &types).expect("a rule").with_destination("nowhere");
        RuleSet::build(vec![wrong], Vec::new(), types).expect_err("an unknown destination");
        engine.replace_rules(set(round)).expect("new rules");
        publish(&engine, &keys, round, 1, Ack::Memory).expect("published");
        engine.flush(PATIENCE).expect("flushed");
    };
    (0..4).for_each(reload);
    let before = Held::now();
    (4..200).for_each(reload);
    assert_eq!((first.accepted(), second.accepted()), (2000, 1000), "the rules of the time hold");
    // Connections of earlier settings go when they have been idle for a while.
    let back = wait_until(PATIENCE, || Held::now().within(before));
    println!("before {before:?}, after {:?}", Held::now());
    assert!(back, "before {before:?}, after {:?}", Held::now());
    engine.close(PATIENCE).expect("closed");
}
