//! Delivery through a whole engine to a local sink that reads everything and answers 204, beside a bare loop that sends
//! requests of the same size over as many connections to the same sink.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tidewire::config::EngineConfig;
use tidewire::event::EventTypes;
use tidewire::rule::{BatchLimits, Destination, DestinationKind, Rule, RuleSet, Webhook};
use tidewire::{Ack, Engine, Event, KnownType, PublishOptions};
use tidewire_benches::sink::Sink;
use tidewire_benches::{Figure, keep, median};

const CONNECTIONS: usize = 4;
const ROUNDS: usize = 5;

/// Events per second through an engine whose backlog is in the log already, and the bytes of a request.
fn engine(per_request: usize, events: usize) -> (f64, usize) {
    let sink = Sink::new();
    let dir = tempfile::tempdir().expect("a directory");
    let types = EventTypes::default();
    let mut d = Destination::new("sink", DestinationKind::Webhook(Webhook::new(&sink.url).expect("a URL")));
    d.batch = BatchLimits { events_max: per_request, ..BatchLimits::default() };
    (d.concurrency, d.adaptive_concurrency) = (CONNECTIONS, false);
    let rule = Rule::new("all", ["s3:ObjectCreated:*"], &types).expect("a rule").with_destination("sink");
    let rules = RuleSet::build(vec![rule], vec![d], types).expect("rules");
    let mut config = EngineConfig::new(dir.path());
    config.shards = Some(1);
    let engine = Engine::open_with(config, rules).expect("an engine");
    let options = PublishOptions { ack: Ack::Memory, ..PublishOptions::default() };
    let keys: Vec<String> = (0..1000).map(|n| format!("logs/acme/api/2025/03/17/05/api-{n:04}.log.gz")).collect();
    let begun = Instant::now();
    for n in 0..events {
        let mut e = Event::new(KnownType::ObjectCreatedPut.into(), "bucket", keys[n % keys.len()].as_bytes());
        e.size = Some(n as u64);
        e.etag = "0123456789abcdef0123456789abcdef";
        engine.publish_with(&e, &options).expect("published");
    }
    engine.flush(Duration::from_secs(120)).expect("flushed");
    let rate = events as f64 / begun.elapsed().as_secs_f64();
    engine.close(Duration::ZERO).expect("closed");
    let requests = sink.requests.load(Ordering::Relaxed).max(1);
    (rate, (sink.bytes.load(Ordering::Relaxed) / requests) as usize)
}

/// Events per second of a loop that does nothing but send and read.
fn bare(per_request: usize, request_bytes: usize, events: usize) -> f64 {
    let sink = Sink::new();
    let requests = events / per_request / CONNECTIONS;
    let body = request_bytes.saturating_sub(100);
    let mut request =
        format!("POST / HTTP/1.1\r\nHost: {}\r\nContent-Length: {body}\r\n\r\n", sink.address).into_bytes();
    request.resize(request.len() + body, b'x');
    let begun = Instant::now();
    std::thread::scope(|s| {
        for _ in 0..CONNECTIONS {
            s.spawn(|| {
                let mut stream = TcpStream::connect(sink.address).expect("connected");
                stream.set_nodelay(true).expect("nodelay");
                let mut answer = [0; 256];
                for _ in 0..requests {
                    stream.write_all(&request).expect("sent");
                    assert!(stream.read(&mut answer).expect("answered") > 0);
                }
            });
        }
    });
    (requests * CONNECTIONS * per_request) as f64 / begun.elapsed().as_secs_f64()
}

fn main() {
    let mut figures = Vec::new();
    for (per_request, events) in [(1, 40_000), (100, 400_000)] {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let (rate, bytes) = engine(per_request, events);
            ours.push(rate);
            theirs.push(bare(per_request, bytes, events));
        }
        figures.push(Figure {
            name: format!("publish to delivered, {per_request} per request"),
            value: median(&mut ours),
            unit: "ev/s".into(),
            beside: "bare loopback send and read".into(),
            beside_value: median(&mut theirs),
        });
    }
    keep("delivery", &figures);
}
