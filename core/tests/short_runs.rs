//! Many short lives of an engine, each with a burst of events or some requests: none may stall.
//!
//! An executor that goes to sleep while tasks are ready shows here within some hundred runs on a busy machine, and so does
//! a wake-up that is lost between a shard and its connections.

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use tidewire::config::{EngineConfig, Idle, Sockets};
use tidewire::event::EventTypes;
use tidewire::net::socket_counts;
use tidewire::rule::{BatchLimits, Destination, DestinationKind, Rule, RuleSet, Webhook};
use tidewire::{Ack, Engine, Event, KnownType, PublishOptions};
use tidewire_receiver::{Behaviour, Receiver};

/// Far beyond what a run takes, so that only a stall is one. Counted in looks, so that a machine that is stopped for a while
/// is none.
const LOOKS: usize = 600;
const LOOK: Duration = Duration::from_millis(100);
const HOUR: Duration = Duration::from_secs(3600);

fn open(config: EngineConfig, destination: Destination) -> Engine {
    let types = EventTypes::default();
    let rule = Rule::new("all", ["s3:ObjectCreated:*"], &types).unwrap().with_destination(&destination.name);
    Engine::open_with(config, RuleSet::build(vec![rule], vec![destination], types).unwrap()).unwrap()
}

fn run(idle: Idle, events: usize) {
    let dir = tempfile::tempdir().unwrap();
    let mut config = EngineConfig::new(dir.path());
    config.shards = Some(1);
    config.idle = idle;
    let down = Destination::new("down", DestinationKind::Webhook(Webhook::new("http://127.0.0.1:9/").unwrap()));
    let engine = open(config, down);
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

/// A few requests on a few connections, in two goes.
fn requests(idle: Idle, sockets: Sockets, url: &str, round: usize) {
    let dir = tempfile::tempdir().unwrap();
    let mut config = EngineConfig::new(dir.path());
    config.shards = Some(1 + round % 2);
    config.idle = idle;
    config.network.sockets = sockets;
    let mut up = Destination::new("up", DestinationKind::Webhook(Webhook::new(url).unwrap()));
    up.batch = BatchLimits { events_max: 1, ..BatchLimits::default() };
    up.concurrency = 1 + round % 5;
    let engine = open(config, up);
    let options = PublishOptions { ack: Ack::Memory, ..PublishOptions::default() };
    for _ in 0..2 {
        for n in 0..1 + round % 7 {
            let key = n.to_string();
            let e = Event::new(KnownType::ObjectCreatedPut.into(), "bucket", key.as_bytes());
            engine.publish_with(&e, &options).unwrap();
        }
        engine.flush(HOUR).unwrap();
    }
    engine.close(HOUR).unwrap();
}

/// Runs so many, and fails at the first that does not end.
fn many(rounds: usize, run: impl Fn(usize, Idle) + Clone + Send + 'static) {
    for round in 0..rounds {
        let idle = [Idle::Spin, Idle::Nap, Idle::Park][round % 3];
        let (done, ended) = channel();
        let run = run.clone();
        let worker = std::thread::spawn(move || {
            run(round, idle);
            done.send(()).unwrap();
        });
        let stalls = (0..LOOKS).all(|_| ended.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout));
        assert!(!stalls, "run {round} ({idle:?}) stalled; {:?}", socket_counts());
        worker.join().unwrap();
    }
}

fn is_long() -> bool {
    std::env::var_os("TIDEWIRE_LONG").is_some()
}

#[test]
fn short_runs_never_stall() {
    let (rounds, events) = if is_long() { (10_000, 2_000) } else { (60, 5_000) };
    many(rounds, move |_, idle| run(idle, events));
}

#[test]
fn short_runs_with_requests_never_stall() {
    let receiver = Receiver::start("127.0.0.1:0".parse().unwrap(), Behaviour::Ok204).unwrap();
    let url = receiver.url();
    let rounds = if is_long() { 10_000 } else { 60 };
    many(rounds, move |round, idle| {
        // Mostly on the ring of sockets, which is what others are tried for beside.
        let sockets = if round % 8 == 7 { Sockets::Runtime } else { Sockets::Ring };
        requests(idle, sockets, &url, round);
    });
    let expected: usize = (0..rounds).map(|round| 2 * (1 + round % 7)).sum();
    assert_eq!(receiver.accepted(), expected);
    println!("{:?}", socket_counts());
}
