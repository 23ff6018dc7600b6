//! Ten thousand destinations, a hundredth of them dead or stalling: what that does to the healthy ones.
//!
//! Each destination has a bucket, a rule and a URL of its own. Events are published at a steady rate, to one destination
//! after another; what is measured is the time from when an event was to be published until its request has arrived, of
//! those for healthy destinations. Runs in which all are healthy alternate with runs in which every hundredth one refuses
//! connections, accepts and never answers, lets connections wait, or answers a byte per second, in equal parts. Retries and
//! breakers are at their defaults. The receivers are a process of their own, and so is each engine, so that its memory and
//! CPU are its own.
//!
//! A key per destination makes a connection per destination; with more keys, and so connections from each shard, the usual
//! limits of descriptors do not suffice.
//!
//! Options: `--pairs N` (5) of runs, `--destinations N` (10000), `--rate N` (5000) events per second, `--seconds N` (5) per
//! run, `--shards N` (1 and 2).

mod engine;
mod receivers;

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tidewire_benches::{Figure, keep, median};

/// Of so many destinations one is dead.
const DEAD_OF: usize = 100;
/// The healthy ones' p99 may be so many times that of a run without dead ones.
const RATIO_MAX: f64 = 1.25;

/// Where receivers listen.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Addresses {
    /// They take everything.
    healthy: Vec<String>,
    /// In turn: each is dead in another way.
    dead: Vec<String>,
}

/// What an engine is to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Plan {
    addresses: Addresses,
    shards: usize,
    destinations: usize,
    /// Whether a hundredth of them is dead.
    with_dead: bool,
    rate: u64,
    /// How long it is measured; none: it is only opened.
    seconds: u64,
}

/// What came of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Done {
    open_ms: f64,
    /// Resident, in KiB: opened, at the end, at most.
    rest_kib: f64,
    end_kib: f64,
    peak_kib: f64,
    /// CPU time of the engine and its publisher for an event, in µs.
    cpu_us: f64,
}

/// Times of arrival at healthy destinations, in µs.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Arrivals {
    events: u64,
    p50: f64,
    p99: f64,
    max: f64,
}

/// This program again, in another role.
fn spawn(role: &str, input: &impl Serialize) -> (Child, BufReader<std::process::ChildStdout>) {
    let program = std::env::current_exe().expect("this program");
    let mut command = Command::new(program);
    command.arg(role).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().expect("a process");
    say(child.stdin.as_mut().expect("its input"), input);
    let output = BufReader::new(child.stdout.take().expect("its output"));
    (child, output)
}

/// A line.
fn say(to: &mut impl Write, what: &impl Serialize) {
    let text = serde_json::to_string(what).expect("plain data");
    writeln!(to, "{text}").and_then(|()| to.flush()).expect("somebody reads it");
}

/// The next line.
fn hear<T: DeserializeOwned>(from: &mut impl BufRead) -> T {
    let mut line = String::new();
    from.read_line(&mut line).expect("a line");
    serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}"))
}

/// A run against receivers of its own.
fn run(plan: Plan) -> (Done, Arrivals) {
    let (mut receivers, mut told) = spawn("receivers", &());
    let plan = Plan { addresses: hear(&mut told), ..plan };
    let (mut engine, mut output) = spawn("engine", &plan);
    let done: Done = hear(&mut output);
    assert!(engine.wait().expect("its end").success());
    say(receivers.stdin.as_mut().expect("its input"), &());
    let arrivals = hear(&mut told);
    receivers.kill().expect("it is there");
    receivers.wait().expect("its end");
    (done, arrivals)
}

/// What is only opened.
fn open(shards: usize, destinations: usize) -> Done {
    let addresses = Addresses { healthy: vec!["127.0.0.1:9".into()], dead: vec!["127.0.0.1:9".into()] };
    let plan = Plan { addresses, shards, destinations, with_dead: false, rate: 0, seconds: 0 };
    let (mut engine, mut output) = spawn("engine", &plan);
    let done = hear(&mut output);
    assert!(engine.wait().expect("its end").success());
    done
}

struct Options {
    pairs: usize,
    destinations: usize,
    rate: u64,
    seconds: u64,
    shards: Vec<usize>,
}

fn options() -> Options {
    let mut o = Options { pairs: 5, destinations: 10_000, rate: 5000, seconds: 5, shards: vec![2, 1] };
    let mut args = std::env::args().skip(1).filter(|a| a != "--bench");
    while let Some(name) = args.next() {
        let n: usize = args.next().and_then(|n| n.parse().ok()).unwrap_or_else(|| panic!("{name} needs a number"));
        match name.as_str() {
            "--pairs" => o.pairs = n,
            "--destinations" => o.destinations = n,
            "--rate" => o.rate = n as u64,
            "--seconds" => o.seconds = n as u64,
            "--shards" => o.shards = vec![n],
            _ => panic!("{name} is not known; there are --pairs, --destinations, --rate, --seconds, --shards"),
        }
    }
    o
}

fn measure(o: &Options, shards: usize, figures: &mut Vec<Figure>) {
    let of = format!("{} shard{}", shards, if shards == 1 { "" } else { "s" });
    let (few, tenth, all) = (open(shards, 1), open(shards, o.destinations / 10), open(shards, o.destinations));
    let mut runs: [Vec<(Done, Arrivals)>; 2] = Default::default();
    for pair in 0..o.pairs {
        for with_dead in [pair % 2 == 1, pair % 2 == 0] {
            let plan = Plan {
                addresses: Addresses::default(),
                shards,
                destinations: o.destinations,
                with_dead,
                rate: o.rate,
                seconds: o.seconds,
            };
            let (done, arrivals) = run(plan);
            println!(
                "{of}, {:<14} {:>7} events, p50 {:>6.0} µs, p99 {:>7.0} µs, at most {:>7.0} µs; {:.1} µs of CPU for an event; \
                 open in {:.0} ms; resident {:.0} MiB at rest, {:.0} MiB at the end, {:.0} MiB at most",
                if with_dead { "1 % are dead" } else { "all healthy" },
                arrivals.events,
                arrivals.p50,
                arrivals.p99,
                arrivals.max,
                done.cpu_us,
                done.open_ms,
                done.rest_kib / 1024.0,
                done.end_kib / 1024.0,
                done.peak_kib / 1024.0,
            );
            runs[usize::from(with_dead)].push((done, arrivals));
        }
    }
    let medians = |with_dead: bool, what: fn(&(Done, Arrivals)) -> f64| {
        median(&mut runs[usize::from(with_dead)].iter().map(what).collect::<Vec<_>>())
    };
    let healthy = "the same without dead ones";
    let mut figure = |name: &str, value: f64, unit: &str, beside: &str, beside_value: f64| {
        let name = format!("{of}: {name}");
        figures.push(Figure { name, value, unit: unit.into(), beside: beside.into(), beside_value });
    };
    let beside = |what: fn(&(Done, Arrivals)) -> f64| (medians(true, what), medians(false, what));
    let (dead, alive) = beside(|(_, a)| a.p50);
    figure("healthy, 1 % are dead, p50", dead, "µs", healthy, alive);
    let (dead, alive) = beside(|(_, a)| a.p99);
    figure("healthy, 1 % are dead, p99", dead, "µs", healthy, alive);
    figure("the ratio of these", dead / alive, "", "what is allowed", RATIO_MAX);
    let (dead, alive) = beside(|(d, _)| d.cpu_us);
    figure("CPU for an event, 1 % are dead", dead, "µs", healthy, alive);
    let (dead, alive) = beside(|(d, _)| d.peak_kib / 1024.0);
    figure("resident at most, 1 % are dead", dead, "MiB", healthy, alive);
    let per = |kib: f64| (kib - few.rest_kib) / o.destinations as f64;
    figure(
        "a destination at rest",
        per(all.rest_kib),
        "KiB",
        "with a connection in use",
        per(medians(false, |(d, _)| d.end_kib)),
    );
    figure(
        &format!("open {} destinations", o.destinations),
        all.open_ms,
        "ms",
        "10 times that of a tenth",
        10.0 * tenth.open_ms,
    );
}

fn main() {
    match std::env::args().nth(1).as_deref() {
        Some("receivers") => return receivers::main(),
        Some("engine") => return engine::main(),
        _ => {}
    }
    let options = options();
    let mut figures = Vec::new();
    for &shards in &options.shards {
        measure(&options, shards, &mut figures);
    }
    keep("destinations", &figures);
}

/// Now, on the clock that all processes share, in ns.
fn monotonic_ns() -> u64 {
    let mut t = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the place for the time is valid.
    let ok = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut t) };
    assert_eq!(ok, 0);
    t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64
}

/// As many descriptors as may be.
fn raise_descriptors() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the limit is a valid place.
    let ok = unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit);
        limit.rlim_cur = limit.rlim_max;
        libc::setrlimit(libc::RLIMIT_NOFILE, &limit)
    };
    assert_eq!(ok, 0);
}
