//! What a change of one rule costs among many, and what it costs those who match meanwhile.
//!
//! In an engine: how long `put_rule` takes, after which the rule is in force, where the host keeps the rules and where the
//! data directory does (then beside a bare write with fdatasync of a block, which it cannot do without). For the matching
//! thread: the longest pauses between two events with and without changes once a millisecond, taken in turn in the same run,
//! on another core than the one that compiles.

use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tidewire::Engine;
use tidewire::config::{EngineConfig, RulesKept};
use tidewire::event::{EventTypes, FrameView};
use tidewire::filter::{Compiler, MatchMemory, Matcher};
use tidewire::rule::{Destination, DestinationKind, Expect, Rule, RuleSet, Webhook};
use tidewire_benches::workload::{Mix, happenings, wishes};
use tidewire_benches::{Clock, Figure, histogram, keep, median, ticks};

const CHANGES: usize = 2000;
/// So many rules are put and changed in turn. With the others there are never more than an engine takes.
const CHANGING: usize = 50;
const ROUNDS: usize = 7;
const ROUND: Duration = Duration::from_secs(2);
const EVENTS: usize = 20_000;

fn rules(n: usize, seed: u64, types: &EventTypes) -> Vec<Rule> {
    let named = |(i, wish): (usize, tidewire_benches::workload::Wish)| {
        let mut rule = wish.rule(types);
        rule.id = format!("rule-{i}");
        rule.destinations = vec!["down".into()];
        rule
    };
    wishes(n, seed, Mix::Full).enumerate().map(named).collect()
}

/// The one rule of a few that changes: others of the same workload take its place in turn.
fn changing(types: &EventTypes, n: usize) -> Vec<Rule> {
    let mut others = rules(CHANGES, 77, types);
    others.iter_mut().enumerate().for_each(|(i, rule)| {
        rule.id = format!("changing-{}", i % n);
        rule.bucket = None;
    });
    others
}

/// Microseconds of each change, sorted.
fn changes_in_an_engine(all: &[Rule], kept: RulesKept, types: &EventTypes) -> Vec<f64> {
    let dir = tempfile::tempdir().expect("a directory");
    let mut config = EngineConfig::new(dir.path());
    config.shards = Some(1);
    config.rules = kept;
    let down = Destination::new("down", DestinationKind::Webhook(Webhook::new("http://127.0.0.1:9/").expect("a URL")));
    let set = RuleSet::build(all.to_vec(), vec![down], types.clone()).expect("rules");
    let engine = Engine::open_with(config, set).expect("an engine");
    let mut took = Vec::new();
    for rule in changing(types, CHANGING) {
        let begun = Instant::now();
        engine.put_rule(rule, Expect::Anything).expect("a rule");
        took.push(begun.elapsed().as_nanos() as f64 / 1e3);
        std::thread::sleep(Duration::from_micros(200));
    }
    engine.close(Duration::from_secs(1)).expect("closed");
    took.sort_by(f64::total_cmp);
    took
}

/// Microseconds of a bare durable write of a block, the median.
fn durable_write() -> f64 {
    let file = tempfile::tempfile().expect("a file");
    file.write_all_at(&vec![1; 1 << 20], 0).expect("written");
    file.sync_all().expect("synced");
    let mut took: Vec<f64> = (0..500)
        .map(|i| {
            let begun = Instant::now();
            file.write_all_at(&[2; 4096], i % 256 * 4096).and_then(|()| file.sync_data()).expect("written");
            begun.elapsed().as_nanos() as f64 / 1e3
        })
        .collect();
    median(&mut took)
}

/// The p99.99 and the longest time from one event to the next, in ns, and the events.
fn gaps(clock: Clock, current: &ArcSwap<Matcher>, frames: &[Vec<u8>]) -> (f64, f64, u64) {
    let mut cached = arc_swap::Cache::new(current);
    let (mut memory, mut out) = (MatchMemory::default(), Vec::new());
    let mut gaps = histogram();
    let begun = Instant::now();
    let mut last = ticks();
    let mut events = 0;
    while begun.elapsed() < ROUND {
        for i in 0..1000 {
            out.clear();
            let bytes = &frames[(events as usize + i) % EVENTS];
            cached.load().matches(&FrameView::trusted(bytes), &mut memory, &mut out);
            let now = ticks();
            gaps.saturating_record(clock.ns(last, now));
            last = now;
        }
        events += 1000;
    }
    (gaps.value_at_quantile(0.9999) as f64, gaps.max() as f64, events)
}

fn gaps_while_rules_change(clock: Clock, all: &[Rule], types: &EventTypes, figures: &mut Vec<Figure>) {
    let n = all.len() + CHANGING;
    let others = changing(types, CHANGING);
    let mut table = all.to_vec();
    table.extend(others.iter().take(CHANGING).cloned());
    let mut compiler = Compiler::compile(&table).expect("a matcher");
    let current = ArcSwap::from_pointee(compiler.matcher().clone());
    let frames: Vec<Vec<u8>> = happenings(EVENTS, 3, n).map(|h| h.frame()).collect();
    let (mut still, mut changed, mut longest) = (Vec::new(), Vec::new(), (0f64, 0f64));
    let (mut next, mut in_force) = (0, Vec::new());
    for round in 0..ROUNDS * 2 {
        let changes = round % 2 == 1;
        let stop = AtomicBool::new(false);
        let (gap, max) = std::thread::scope(|s| {
            let matching = s.spawn(|| {
                let (gap, max, _) = gaps(clock, &current, &frames);
                stop.store(true, Ordering::Relaxed);
                (gap, max)
            });
            // What was in force may be dropped by whoever has it last: here, not by the thread that matches.
            let mut earlier: Vec<Arc<Matcher>> = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                if !changes {
                    std::thread::sleep(Duration::from_millis(1));
                    continue;
                }
                let begun = Instant::now();
                let at = all.len() + next % CHANGING;
                let before = std::mem::replace(&mut table[at], others[next % others.len()].clone());
                compiler.change(&[(at as u32, &before)], &[at as u32], &table).expect("changed");
                earlier.push(current.swap(Arc::new(compiler.matcher().clone())));
                in_force.push(begun.elapsed().as_nanos() as f64 / 1e3);
                earlier.retain(|m| Arc::strong_count(m) > 1);
                next += 1;
                std::thread::sleep(Duration::from_millis(1).saturating_sub(begun.elapsed()));
            }
            matching.join().expect("matched")
        });
        if changes {
            changed.push(gap);
            longest.1 = longest.1.max(max);
        } else {
            still.push(gap);
            longest.0 = longest.0.max(max);
        }
    }
    let (still, changed) = (median(&mut still), median(&mut changed));
    println!("{n} rules, longest gap: {:.0} ns without changes, {:.0} ns with", longest.0, longest.1);
    figures.push(Figure {
        name: format!("p99.99 gap between matches of {n} rules, changes"),
        value: changed,
        unit: "ns".into(),
        beside: "the same without changes".into(),
        beside_value: still,
    });
    figures.push(Figure {
        name: format!("the same, beyond that without changes, {n} rules"),
        value: changed - still,
        unit: "ns".into(),
        beside: "what is allowed".into(),
        beside_value: 50_000.0,
    });
    figures.push(Figure {
        name: format!("compile and swap one change of {n} rules, p50"),
        value: median(&mut in_force),
        unit: "us".into(),
        beside: "what is allowed".into(),
        beside_value: 1000.0,
    });
}

/// ns to find the snapshot in force, and ns of the same loop without that.
fn snapshot_read(current: &ArcSwap<u64>) -> (f64, f64) {
    const READS: u64 = 50_000_000;
    let mut cached = arc_swap::Cache::new(current);
    let per_read = |read: &mut dyn FnMut() -> u64| {
        let begun = Instant::now();
        std::hint::black_box(read());
        begun.elapsed().as_nanos() as f64 / READS as f64
    };
    let plain = 1u64;
    let found = per_read(&mut || (0..READS).map(|_| std::hint::black_box(**cached.load())).sum());
    let bare = per_read(&mut || (0..READS).map(|_| *std::hint::black_box(&plain)).sum());
    (found, bare)
}

fn main() {
    let clock = Clock::new();
    let types = EventTypes::default();
    let mut figures = Vec::new();
    let mut reads: Vec<(f64, f64)> = (0..5).map(|_| snapshot_read(&ArcSwap::from_pointee(1))).collect();
    reads.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (read, bare) = reads[reads.len() / 2];
    figures.push(Figure {
        name: "read the snapshot in force, beyond the loop".into(),
        value: read - bare,
        unit: "ns".into(),
        beside: "what is allowed".into(),
        beside_value: 2.0,
    });
    for n in [100_000, 1_000_000] {
        let all = rules(n - CHANGING, 1, &types);
        let write = durable_write();
        for kept in [RulesKept::Host, RulesKept::Stored] {
            let took = changes_in_an_engine(&all, kept, &types);
            let at = |q: f64| took[((took.len() - 1) as f64 * q) as usize];
            let (whose, beside, beside_value) = match kept {
                RulesKept::Stored => ("stored", "write + fdatasync of a block", write),
                _ => ("kept by the host", "what is allowed", 1000.0),
            };
            for (name, q) in [("p50", 0.5), ("p99", 0.99)] {
                figures.push(Figure {
                    name: format!("put a rule among {n}, {whose}, {name}"),
                    value: at(q),
                    unit: "us".into(),
                    beside: beside.into(),
                    beside_value,
                });
            }
            println!("{n} rules, {whose}: the longest change {:.0} us", at(1.0));
        }
        gaps_while_rules_change(clock, &all, &types, &mut figures);
    }
    keep("updates", &figures);
}
