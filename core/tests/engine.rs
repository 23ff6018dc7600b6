//! The engine from end to end, against a real HTTP server on the loopback interface.

use std::time::Duration;

use tidewire::config::EngineConfig;
use tidewire::event::EventTypes;
use tidewire::filter::Filter;
use tidewire::rule::{Destination, DestinationKind, Rule, RuleSet, Webhook};
use tidewire::{Ack, Engine, Event, KnownType, PublishOptions};
use tidewire_receiver::{Behaviour, Receiver};

fn rules(url: &str) -> RuleSet {
    let types = EventTypes::default();
    let rule = Rule::new("all", ["s3:ObjectCreated:*", "s3:ObjectRemoved:*"], &types)
        .unwrap()
        .with_filter(Filter::new("", ""))
        .with_destination("hook");
    let hook = Destination::new("hook", DestinationKind::Webhook(Webhook::new(url).unwrap()));
    RuleSet::build(vec![rule], vec![hook], types).unwrap()
}

fn engine(dir: &std::path::Path, url: &str) -> Engine {
    let mut config = EngineConfig::new(dir);
    config.shards = Some(2);
    Engine::open_with(config, rules(url)).unwrap()
}

#[test]
fn published_events_arrive_in_order_per_key() {
    let dir = tempfile::tempdir().unwrap();
    let receiver = Receiver::start("127.0.0.1:0".parse().unwrap(), Behaviour::Ok204).unwrap();
    let engine = engine(dir.path(), &receiver.url());
    let options = PublishOptions { ack: Ack::Memory, ..PublishOptions::default() };
    let keys: Vec<String> = (0..100).map(|i| format!("dir/key-{i}")).collect();
    for round in 0..50 {
        for key in &keys {
            let mut e = Event::new(KnownType::ObjectCreatedPut.into(), "bucket", key.as_bytes());
            e.size = Some(round);
            engine.publish_with(&e, &options).unwrap();
        }
    }
    let last = Event::new(KnownType::ObjectRemovedDelete.into(), "bucket", b"last");
    engine.publish(&last).unwrap();
    engine.flush(Duration::from_secs(20)).unwrap();
    let records = receiver.records();
    assert_eq!(records.len(), 5001);
    assert!(tidewire_receiver::check_per_key_order(&records).is_empty());
    let stats = engine.stats();
    assert_eq!(
        (stats.accepted, stats.stored, stats.routed, stats.delivered, stats.waiting),
        (5001, 5001, 5001, 5001, 0)
    );
    engine.close(Duration::from_secs(5)).unwrap();
}
