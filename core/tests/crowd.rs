//! Many destinations of which some are dead: the others do not notice.

mod common;

use std::io::Read;
use std::net::TcpListener;
use std::time::Duration;

use common::*;
use tidewire::event::EventTypes;
use tidewire::rule::{Destination, Rule, RuleSet};
use tidewire::{Ack, Engine, Event, KnownType, PublishOptions};
use tidewire_receiver::Behaviour;

const DESTINATIONS: usize = 300;
const DEAD_OF: usize = 10;
const MEMORY: u64 = 1 << 20;
const EACH: u64 = 40;

fn is_dead(n: usize) -> bool {
    n.is_multiple_of(DEAD_OF)
}

/// A place that takes connections and what comes on them, and never answers.
fn stalling() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            std::thread::spawn(move || while stream.read(&mut [0; 4096]).is_ok_and(|n| n > 0) {});
        }
    });
    url
}

/// Each destination has a bucket and a rule of its own.
fn rules(urls: impl Fn(usize) -> String) -> RuleSet {
    let types = EventTypes::default();
    let destinations: Vec<Destination> =
        (0..DESTINATIONS).map(|n| hook(&format!("tenant-{n}"), &format!("{}{n}", urls(n)))).collect();
    let rule = |d: &Destination| {
        let rule = Rule::new(&d.name, ["s3:ObjectCreated:*"], &types).unwrap();
        rule.with_bucket(&d.name).with_destination(&d.name)
    };
    RuleSet::build(destinations.iter().map(rule).collect(), destinations.clone(), types).unwrap()
}

fn publish(engine: &Engine, times: u64) {
    let options = PublishOptions { ack: Ack::Memory, ..PublishOptions::default() };
    for k in 0..times {
        for n in 0..DESTINATIONS {
            let bucket = format!("tenant-{n}");
            let key = format!("k{k}");
            let event = Event::new(KnownType::ObjectCreatedPut.into(), &bucket, key.as_bytes());
            engine.publish_with(&event, &options).unwrap();
        }
    }
}

#[test]
fn dead_destinations_among_many_hold_up_none_of_the_others() {
    for shards in [1, 2] {
        let dir = tempfile::tempdir().unwrap();
        let well = receiver(Behaviour::Ok204);
        let (stalls, refuses) =
            (stalling(), format!("http://{}/", TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()));
        let rules = rules(|n| match n {
            n if !is_dead(n) => well.url(),
            n if n.is_multiple_of(2 * DEAD_OF) => stalls.clone(),
            _ => refuses.clone(),
        });
        let mut c = config(dir.path(), shards);
        // The half of it is less than what waits for the dead ones.
        c.delivery.memory_bytes = MEMORY;
        let engine = Engine::open_with(c, rules).unwrap();
        publish(&engine, EACH);
        let of = |name: &str| name.trim_start_matches("tenant-").parse::<usize>().unwrap();
        until("the healthy ones have everything", || {
            let stats = engine.stats();
            stats.destinations.iter().all(|d| is_dead(of(&d.name)) || d.delivered == EACH)
        });
        let stats = engine.stats();
        for d in &stats.destinations {
            let (delivered, waiting) = if is_dead(of(&d.name)) { (0, EACH) } else { (EACH, 0) };
            assert_eq!((d.delivered, d.waiting, d.dead_lettered), (delivered, waiting, 0), "{}", d.name);
        }
        // What waits takes memory within the limit: all that is allowed, and an event of each destination.
        let one = 4096;
        assert!(stats.held_bytes <= MEMORY + DESTINATIONS as u64 * one, "{} bytes are held", stats.held_bytes);
        engine.close(Duration::ZERO).unwrap();
    }
}
