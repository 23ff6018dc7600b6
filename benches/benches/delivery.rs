//! Delivery through a whole engine to a local sink that reads everything and answers 204, beside a bare loop that sends
//! requests of the same size over as many connections to the same sink.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tidewire::config::EngineConfig;
use tidewire::event::EventTypes;
use tidewire::rule::{BatchLimits, Destination, DestinationKind, Rule, RuleSet, Webhook};
use tidewire::{Ack, Engine, Event, KnownType, PublishOptions};
use tidewire_benches::{Figure, keep, median};

const CONNECTIONS: usize = 4;
const ROUNDS: usize = 5;

/// A sink that understands just enough HTTP to be honest: it reads every byte of every request.
struct Sink {
    url: String,
    address: std::net::SocketAddr,
    bytes: Arc<AtomicU64>,
    requests: Arc<AtomicU64>,
}

fn sink() -> Sink {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let (bytes, requests) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let (b, r) = (bytes.clone(), requests.clone());
    std::thread::spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            let (b, r) = (b.clone(), r.clone());
            std::thread::spawn(move || serve(stream, &b, &r));
        }
    });
    Sink { url: format!("http://{address}/"), address, bytes, requests }
}

fn serve(mut stream: TcpStream, bytes: &AtomicU64, requests: &AtomicU64) {
    let _ = stream.set_nodelay(true);
    let mut buf = vec![0; 256 * 1024];
    let mut have = 0;
    loop {
        let head_end = loop {
            if let Some(at) = memchr::memmem::find(&buf[..have], b"\r\n\r\n") {
                break at + 4;
            }
            match stream.read(&mut buf[have..]) {
                Ok(n) if n > 0 => have += n,
                _ => return,
            }
        };
        let head = String::from_utf8_lossy(&buf[..head_end]).to_ascii_lowercase();
        let length: usize = head
            .split("content-length:")
            .nth(1)
            .and_then(|rest| rest.split("\r\n").next())
            .and_then(|n| n.trim().parse().ok())
            .unwrap_or(0);
        let mut body = have - head_end;
        while body < length {
            match stream.read(&mut buf) {
                Ok(n) if n > 0 => body += n,
                _ => return,
            }
        }
        bytes.fetch_add((head_end + length) as u64, Ordering::Relaxed);
        requests.fetch_add(1, Ordering::Relaxed);
        have = 0;
        if stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").is_err() {
            return;
        }
    }
}

/// Events per second through an engine whose backlog is in the log already, and the bytes of a request.
fn engine(per_request: usize, events: usize) -> (f64, usize) {
    let sink = sink();
    let dir = tempfile::tempdir().expect("a directory");
    let types = EventTypes::default();
    let mut d = Destination::new("sink", DestinationKind::Webhook(Webhook::new(&sink.url).expect("a URL")));
    d.batch = BatchLimits { events_max: per_request, ..BatchLimits::default() };
    d.concurrency = CONNECTIONS;
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
    let sink = sink();
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
