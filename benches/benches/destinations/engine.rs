//! The engine's process: it opens, publishes at a steady rate, and tells what that took.

use std::io::stdin;
use std::time::{Duration, Instant};

use tidewire::config::EngineConfig;
use tidewire::event::EventTypes;
use tidewire::rule::{Destination, DestinationKind, Rule, RuleSet, Webhook};
use tidewire::{Ack, Engine, Event, KnownType, PublishOptions};

use super::{DEAD_OF, Done, Plan, hear, monotonic_ns, raise_descriptors, say};

/// The first events, which make the connections, are not measured.
const WARM_UP: Duration = Duration::from_secs(3);
/// Events are published in groups of what is due.
const TICK_NS: u64 = 1_000_000;

fn rules(plan: &Plan) -> RuleSet {
    let types = EventTypes::default();
    let (mut rules, mut destinations) = (Vec::new(), Vec::new());
    for n in 0..plan.destinations {
        let name = format!("tenant-{n:05}");
        let among = |addresses: &[String]| addresses[n / DEAD_OF % addresses.len()].clone();
        let is_dead = plan.with_dead && n.is_multiple_of(DEAD_OF);
        let address = if is_dead { among(&plan.addresses.dead) } else { among(&plan.addresses.healthy) };
        let webhook = Webhook::new(&format!("http://{address}/{n:05}")).expect("a URL");
        destinations.push(Destination::new(&name, DestinationKind::Webhook(webhook)));
        let rule = Rule::new(&name, ["s3:ObjectCreated:*"], &types).expect("a rule");
        rules.push(rule.with_bucket(&name).with_destination(&name));
    }
    RuleSet::build(rules, destinations, types).expect("rules")
}

/// A figure of this process in KiB.
fn memory(what: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("the status of the process");
    let line = status.lines().find_map(|l| l.strip_prefix(what)).expect("a line of it");
    line.trim().trim_end_matches(" kB").trim().parse().expect("a number")
}

fn cpu() -> Duration {
    // SAFETY: plain numbers, into a valid place.
    let usage = unsafe {
        let mut usage = std::mem::zeroed::<libc::rusage>();
        assert_eq!(libc::getrusage(libc::RUSAGE_SELF, &mut usage), 0);
        usage
    };
    let of = |t: libc::timeval| Duration::new(t.tv_sec as u64, t.tv_usec as u32 * 1000);
    of(usage.ru_utime) + of(usage.ru_stime)
}

/// Publishes for so long; with `stamped` each event says when it was due.
fn publish(engine: &Engine, plan: &Plan, buckets: &[String], duration: Duration, stamped: bool) -> u64 {
    let options = PublishOptions { ack: Ack::Memory, ..PublishOptions::default() };
    let begun = monotonic_ns();
    let (mut published, ticks) = (0, duration.as_nanos() as u64 / TICK_NS);
    for tick in 1..=ticks {
        let due_ns = begun + tick * TICK_NS;
        let ahead = due_ns.saturating_sub(monotonic_ns());
        std::thread::sleep(Duration::from_nanos(ahead));
        while published < plan.rate * tick * TICK_NS / 1_000_000_000 {
            // All of them in turn, but not in their order.
            let bucket = &buckets[published as usize * 7919 % buckets.len()];
            let mut e = Event::new(KnownType::ObjectCreatedPut.into(), bucket, b"logs/2025/03/17/05/api.log.gz");
            e.size = Some(if stamped { due_ns } else { 0 });
            e.etag = "0123456789abcdef0123456789abcdef";
            engine.publish_with(&e, &options).expect("published");
            published += 1;
        }
    }
    published
}

/// Waits until everything for healthy destinations is delivered.
fn settle(engine: &Engine, plan: &Plan) {
    let deadline = Instant::now() + Duration::from_secs(20);
    let is_dead = |name: &str| {
        plan.with_dead && name.trim_start_matches("tenant-").parse().is_ok_and(|n: usize| n.is_multiple_of(DEAD_OF))
    };
    loop {
        let mut stats = engine.stats();
        let all = std::mem::take(&mut stats.destinations);
        let healthy = || all.iter().filter(|d| !is_dead(&d.name));
        let failed = healthy().find(|d| d.failures > 0);
        assert!(failed.is_none(), "what is healthy has failed: {failed:?}");
        if healthy().all(|d| d.waiting == 0) {
            return;
        }
        assert!(Instant::now() < deadline, "the healthy ones do not get everything: {stats:?}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

pub(super) fn main() {
    let plan: Plan = hear(&mut stdin().lock());
    raise_descriptors();
    let dir = tempfile::tempdir().expect("a directory");
    let rules = rules(&plan);
    let mut config = EngineConfig::new(dir.path());
    config.shards = Some(plan.shards);
    let begun = Instant::now();
    let engine = Engine::open_with(config, rules).expect("an engine");
    let open_ms = begun.elapsed().as_secs_f64() * 1e3;
    let rest_kib = memory("VmRSS:");
    let mut cpu_us = 0.0;
    if plan.seconds > 0 {
        let buckets: Vec<String> = (0..plan.destinations).map(|n| format!("tenant-{n:05}")).collect();
        publish(&engine, &plan, &buckets, WARM_UP, false);
        let before = cpu();
        let published = publish(&engine, &plan, &buckets, Duration::from_secs(plan.seconds), true);
        cpu_us = (cpu() - before).as_secs_f64() * 1e6 / published as f64;
        settle(&engine, &plan);
    }
    let done = Done { open_ms, rest_kib, end_kib: memory("VmRSS:"), peak_kib: memory("VmHWM:"), cpu_us };
    engine.close(Duration::ZERO).expect("closed");
    say(&mut std::io::stdout(), &done);
}
