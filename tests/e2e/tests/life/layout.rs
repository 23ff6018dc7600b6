//! Other numbers of shards, with a kill in the middle of everything and an endpoint that is dead for most of the time.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::time::Duration;

use tidewire::log::recovery;
use tidewire_e2e::{Helper, config, hook, receiver, rules};
use tidewire_receiver::{Behaviour, Receiver, check_per_key_order};

const HELPER: &str = env!("CARGO_BIN_EXE_helper");
const ROUNDS: u64 = 40;

/// The creations of each key must be there with all sizes up to the last one acknowledged, in order, repeats aside.
fn check(receiver: &Receiver, acknowledged: &[u64]) {
    let records = receiver.records();
    assert_eq!(check_per_key_order(&records), []);
    let mut sizes: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for r in records.iter().filter(|r| r.accepted) {
        if let Some(n) = r.size {
            sizes.entry(r.key.clone()).or_default().push(n);
        }
    }
    assert_eq!(sizes.len(), 30);
    for (key, sizes) in sizes {
        let missing: Vec<&u64> = acknowledged.iter().filter(|n| !sizes.contains(n)).collect();
        assert!(missing.is_empty(), "{key}: {missing:?}");
        // Whatever a crash repeats, each comes first after the one before.
        let mut firsts = Vec::new();
        for n in sizes {
            if !firsts.contains(&n) {
                firsts.push(n);
            }
        }
        assert!(firsts.is_sorted(), "{key}: {firsts:?}");
    }
}

#[test]
fn killed_while_the_number_of_shards_changes_it_keeps_order_and_loses_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let receiver = receiver(Behaviour::Status(503));
    let mut first = 0;
    let mut acknowledged = Vec::new();
    // In one of them the endpoint comes back for a moment, so that only a part of each layout is delivered.
    for (step, shards) in [4, 2, 2, 5, 1, 3, 2].into_iter().enumerate() {
        if step == 4 {
            receiver.set_behaviour(Behaviour::Ok204);
        }
        let mut publisher = Command::new(HELPER);
        let (from, rounds) = (first.to_string(), ROUNDS.to_string());
        publisher.arg("publish").arg(dir.path()).args([&shards.to_string(), &receiver.url(), &from, &rounds]);
        let mut helper = Helper::start(publisher.stdin(Stdio::piped()));
        // Some are killed before they have published anything.
        let until = [ROUNDS - 1, 20, 0, 31, 25, ROUNDS - 1, 10][step];
        helper.wait_for(if step == 2 { "open".to_owned() } else { format!("acked {}", first + until) }.as_str());
        let lines = helper.end();
        acknowledged.extend(lines.iter().filter_map(|l| l.strip_prefix("acked ")?.parse::<u64>().ok()));
        receiver.set_behaviour(Behaviour::Status(503));
        first += ROUNDS;
    }
    receiver.set_behaviour(Behaviour::Ok204);
    let engine = tidewire::Engine::open_with(config(dir.path(), 2), rules(vec![hook("hook", &receiver.url())]))
        .expect("an engine");
    engine.flush(Duration::from_secs(30)).expect("flushed");
    check(&receiver, &acknowledged);
    println!("{} rounds acknowledged, {} arrivals", acknowledged.len(), receiver.accepted());
    engine.close(Duration::from_secs(5)).expect("closed");
    // Shards that have nothing left go.
    let engine = tidewire::Engine::open_with(config(dir.path(), 2), rules(vec![hook("hook", &receiver.url())]))
        .expect("an engine");
    engine.close(Duration::from_secs(5)).expect("closed");
    assert_eq!(recovery::shard_numbers(dir.path()).expect("shards"), [0, 1]);
}
