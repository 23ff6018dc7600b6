//! A dead endpoint's backlog: what it takes of memory, what it does to `publish`, and whether it drains.
//!
//! Publishes 10 million events (`TIDEWIRE_BACKLOG` says another number) for an endpoint that refuses connections. Then
//! `publish` at `memory` is measured against this engine and against one whose endpoint takes everything, in pairs that
//! begin with the one and the other in turn. At the end the endpoint comes to life, and everything must reach it.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tidewire::config::EngineConfig;
use tidewire::event::EventTypes;
use tidewire::rule::{Destination, DestinationKind, Rule, RuleSet, Webhook};
use tidewire::{Ack, Engine, Event, KnownType, OnFull, PublishOptions};
use tidewire_benches::sink::Sink;
use tidewire_benches::{Bursts, Clock, Figure, in_turn, keep, paced, paired};

const PUBLISHERS: u64 = 2;
/// A single pair on a machine of two CPUs, which two publishers and the shards of two engines share, may be off by a half.
const PAIRS: usize = 60;
const PER_THREAD: usize = 40_000;
const SYNCS: u64 = 16;

fn engine(dir: &Path, url: &str) -> Engine {
    let types = EventTypes::default();
    let mut hook = Destination::new("hook", DestinationKind::Webhook(Webhook::new(url).expect("a URL")));
    hook.breaker.open_max = Duration::from_secs(5);
    hook.concurrency = 4;
    let rule = Rule::new("all", ["s3:ObjectCreated:*"], &types).expect("a rule").with_destination("hook");
    let rules = RuleSet::build(vec![rule], vec![hook], types).expect("rules");
    Engine::open_with(EngineConfig::new(dir), rules).expect("an engine")
}

fn publish(engine: &Engine, n: u64, ack: Ack) -> bool {
    let key = format!("logs/acme/api/2025/03/17/05/api-{:06}.log.gz", n % 100_000);
    let mut e = Event::new(KnownType::ObjectCreatedPut.into(), "bucket", key.as_bytes());
    e.size = Some(n);
    e.etag = "0123456789abcdef0123456789abcdef";
    let on_full = OnFull::Block(Duration::from_secs(60));
    engine.publish_with(&e, &PublishOptions { ack, on_full, ..PublishOptions::default() }).is_ok()
}

/// Waits until what was published before is durable.
fn sync(engine: &Engine) {
    // Enough keys for each shard to have one of them.
    (0..SYNCS).for_each(|n| assert!(publish(engine, n, Ack::Synced)));
}

/// A figure of this process in MiB.
fn memory(what: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("the status of the process");
    let line = status.lines().find_map(|l| l.strip_prefix(what)).expect("a line of it");
    line.trim().trim_end_matches(" kB").trim().parse::<f64>().expect("a number") / 1024.0
}

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port")
}

fn main() {
    let events: u64 = std::env::var("TIDEWIRE_BACKLOG").map_or(10_000_000, |n| n.parse().expect("TIDEWIRE_BACKLOG"));
    let clock = Clock::new();
    let (dead_dir, live_dir) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let address = free_address();
    let dead = engine(dead_dir.path(), &format!("http://{address}/"));

    let begun = Instant::now();
    std::thread::scope(|s| {
        for t in 0..PUBLISHERS {
            let dead = &dead;
            s.spawn(move || {
                (t..events).step_by(PUBLISHERS as usize).for_each(|n| assert!(publish(dead, n, Ack::Memory)))
            });
        }
    });
    let publishing = events as f64 / begun.elapsed().as_secs_f64();
    println!("{events} events published in {:.1} s", begun.elapsed().as_secs_f64());
    let (peak, resident) = (memory("VmHWM:"), memory("VmRSS:"));
    println!("resident: {resident:.0} MiB, at most {peak:.0} MiB");

    let sink = Sink::new();
    let live = engine(live_dir.path(), &sink.url);
    let next = AtomicU64::new(events);
    let side = |engine: &Engine| {
        let op = || publish(engine, next.fetch_add(1, Ordering::Relaxed), Ack::Memory);
        let times = paced(clock, PUBLISHERS as usize, PER_THREAD, Bursts::OF_16, op);
        // What one side leaves to be written or delivered is not to be done at the other's expense.
        sync(engine);
        live.flush(Duration::from_secs(60)).expect("delivered");
        times
    };
    let pairs = in_turn(PAIRS, || side(&dead), || side(&live));
    let of_dead = events + PAIRS as u64 * (PUBLISHERS * PER_THREAD as u64 + SYNCS);
    live.close(Duration::from_secs(10)).expect("closed");
    let waiting: u64 = dead.stats().destinations.iter().map(|d| d.waiting).sum();
    assert_eq!(waiting, of_dead, "everything for the dead endpoint waits");

    let begun = Instant::now();
    let revived = Sink::at(address);
    dead.flush(Duration::from_secs(3600)).expect("it drains completely");
    let drained = begun.elapsed().as_secs_f64();
    let s = dead.stats();
    let d = &s.destinations[0];
    assert_eq!((d.delivered, d.waiting, d.dead_lettered), (of_dead, 0, 0));
    println!("{of_dead} events drained in {drained:.1} s, {} requests", revived.requests.load(Ordering::Relaxed));
    dead.close(Duration::from_secs(10)).expect("closed");

    let figure = |name: &str, value: f64, unit: &str, beside: &str, beside_value: f64| Figure {
        name: name.into(),
        value,
        unit: unit.into(),
        beside: beside.into(),
        beside_value,
    };
    let live = "the same with a live endpoint";
    let (p50s, p99s): (Vec<_>, Vec<_>) = pairs.iter().map(|(d, l)| ((d.0, l.0), (d.1, l.1))).unzip();
    let (p50, p99) = (paired(&p50s), paired(&p99s));
    keep(
        "backlog",
        &[
            figure(&format!("resident memory with {events} waiting, peak"), peak, "MiB", "what is allowed", 256.0),
            figure("publish beside the backlog, 2 threads, p50", p50.0, "ns", live, p50.1),
            figure("publish beside the backlog, 2 threads, p99", p99.0, "ns", live, p99.1),
            figure("draining", of_dead as f64 / drained, "ev/s", "publishing them", publishing),
        ],
    );
}
