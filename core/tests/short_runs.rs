//! Many short lives of an engine, each with a burst of events: none may stall.
//!
//! An executor that goes to sleep while tasks are ready shows here within some hundred runs on a busy machine.

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use tidewire::config::{EngineConfig, Idle};
use tidewire::event::EventTypes;
use tidewire::rule::{Destination, DestinationKind, Rule, RuleSet, Webhook};
use tidewire::{Ack, Engine, Event, KnownType, PublishOptions};

/// Far beyond what a run takes, so that only a stall is one.
const STALL: Duration = Duration::from_secs(60);

fn run(idle: Idle, events: usize) {
    let dir = tempfile::tempdir().unwrap();
    let mut config = EngineConfig::new(dir.path());
    config.shards = Some(1);
    config.idle = idle;
    let types = EventTypes::default();
    let down = Destination::new("down", DestinationKind::Webhook(Webhook::new("http://127.0.0.1:9/").unwrap()));
    let rule = Rule::new("all", ["s3:ObjectCreated:*"], &types).unwrap().with_destination("down");
    let engine = Engine::open_with(config, RuleSet::build(vec![rule], vec![down], types).unwrap()).unwrap();
    let options = PublishOptions { ack: Ack::Memory, ..PublishOptions::default() };
    let data = format!("{:?}", "x".repeat(200));
    std::thread::scope(|s| {
        for _ in 0..2 {
            s.spawn(|| {
                let mut e = Event::new(KnownType::ObjectCreatedPut.into(), "bucket", b"key");
                e.data = data.as_bytes();
                for _ in 0..events {
                    engine.publish_with(&e, &options).unwrap();
                }
                engine.publish(&e).unwrap();
            });
        }
    });
    engine.close(Duration::ZERO).unwrap();
}

#[test]
fn short_runs_never_stall() {
    let long = std::env::var_os("TIDEWIRE_LONG").is_some();
    let (rounds, events) = if long { (10_000, 2_000) } else { (60, 5_000) };
    for round in 0..rounds {
        let idle = [Idle::Spin, Idle::Nap, Idle::Park][round % 3];
        let (done, ended) = channel();
        let worker = std::thread::spawn(move || {
            run(idle, events);
            done.send(()).unwrap();
        });
        assert_ne!(ended.recv_timeout(STALL), Err(RecvTimeoutError::Timeout), "run {round} ({idle:?}) stalled");
        worker.join().unwrap();
    }
}
