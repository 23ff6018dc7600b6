//! A whole engine: events published as fast as it takes them, through the log, to the sink; what the lanes and the rest cost
//! beside the connector alone. All threads of the engine and the publisher share the CPU of clients.

use std::time::{Duration, Instant};

use tidewire::config::EngineConfig;
use tidewire::event::EventTypes;
use tidewire::rule::{BatchLimits, Destination, DestinationKind, Rule, RuleSet};
use tidewire::{Ack, Engine, PublishOptions};
use tidewire_benches::sink::Sink;
use tidewire_benches::{Figure, median};

use super::{CLIENT, SERVER, pin, webhook};

const CONNECTIONS: usize = 16;

pub(super) fn measure(figures: &mut Vec<Figure>, rounds: usize) {
    for (per_request, events) in [(1, 40_000), (100, 1_000_000)] {
        let (mut by_time, mut by_cpu): (Vec<f64>, Vec<f64>) = (0..rounds).map(|_| deliver(per_request, events)).unzip();
        let (by_time, by_cpu) = (median(&mut by_time), median(&mut by_cpu));
        println!(
            "a whole engine, {per_request} per request    {by_time:>10.0} ev/s {by_cpu:>10.0} ev per CPU second of the shard"
        );
        figures.push(Figure {
            name: format!("a whole engine, {per_request} per request"),
            value: by_time,
            unit: "ev/s".into(),
            beside: "per CPU second of its shard".into(),
            beside_value: by_cpu,
        });
    }
}

/// Events per second from the first publication to the last delivery, and per CPU second of the shard.
fn deliver(per_request: usize, events: usize) -> (f64, f64) {
    pin(SERVER);
    let sink = Sink::new();
    pin(CLIENT);
    let dir = tempfile::tempdir().expect("a directory");
    let types = EventTypes::default();
    let mut d = Destination::new("sink", DestinationKind::Webhook(webhook(&sink.url)));
    d.batch = BatchLimits { events_max: per_request, ..BatchLimits::default() };
    d.concurrency = CONNECTIONS;
    let rule = Rule::new("all", ["s3:ObjectCreated:*"], &types).expect("a rule").with_destination("sink");
    let rules = RuleSet::build(vec![rule], vec![d], types).expect("rules");
    let mut config = EngineConfig::new(dir.path());
    config.shards = Some(1);
    let engine = Engine::open_with(config, rules).expect("an engine");
    let options = PublishOptions { ack: Ack::Memory, ..PublishOptions::default() };
    let keys: Vec<String> = (0..10_000).map(|n| format!("logs/acme/api/2025/03/17/05/api-{n:05}.log.gz")).collect();
    let (begun, cpu) = (Instant::now(), shard_cpu());
    for n in 0..events {
        let mut e = tidewire_benches::event();
        e.key = keys[n % keys.len()].as_bytes();
        engine.publish_with(&e, &options).expect("published");
    }
    engine.flush(Duration::from_secs(120)).expect("flushed");
    let (elapsed, cpu) = (begun.elapsed(), shard_cpu().saturating_sub(cpu));
    engine.close(Duration::ZERO).expect("closed");
    pin(SERVER);
    (events as f64 / elapsed.as_secs_f64(), events as f64 / cpu.as_secs_f64())
}

/// What the shards' threads have used of a processor.
fn shard_cpu() -> Duration {
    let tasks = std::fs::read_dir("/proc/self/task").expect("threads");
    let of_shards = tasks.flatten().filter_map(|t| {
        let name = std::fs::read_to_string(t.path().join("comm")).ok()?;
        name.trim().strip_prefix("tidewire-")?.parse::<usize>().ok()?;
        t.file_name().to_str()?.parse::<libc::pid_t>().ok()
    });
    let used: Duration = of_shards.map(cpu_of).sum();
    assert!(!used.is_zero(), "no thread of a shard is there");
    used
}

/// What a thread of this process has used.
fn cpu_of(thread: libc::pid_t) -> Duration {
    /// The clock of a thread's processor time, as the kernel numbers them (`CPUCLOCK_PERTHREAD_MASK`, `CPUCLOCK_SCHED`).
    const THREAD_CLOCK: libc::clockid_t = 4 | 2;
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a place for the answer; the call takes nothing else. Of a thread that has ended it fails, and nothing counts.
    unsafe { libc::clock_gettime((!thread << 3) | THREAD_CLOCK, &mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
