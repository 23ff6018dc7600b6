//! What `publish` costs the host, by ack level and number of threads.
//!
//! At `memory`, beside a push of the same encoded bytes into crossbeam's `ArrayQueue` after encoding them, which is the
//! least that a bounded hand-over to another thread can do. The two are measured in turn, with the consumer awake in both
//! and the same pauses, so that neither queue is full: calls one at a time, and in bursts, whose first call finds the caches
//! of a processor that other machines use too less warm. The event brings its time, so that neither side reads a clock; what
//! it costs if it does not is told, too. At `written` and `synced`, beside a bare write, and a
//! bare write with fdatasync, of one block.

use std::hint::spin_loop;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam::queue::ArrayQueue;
use tidewire::config::{EngineConfig, Idle};
use tidewire::event::{EventTypes, Layout, frame};
use tidewire::rule::{Destination, DestinationKind, Rule, RuleSet, Webhook};
use tidewire::{Ack, Engine, Event, PublishOptions};
use tidewire_benches::{Bursts, Clock, Figure, in_turn, keep, median, paced, paired};

/// The encoded event, and a slot for it.
const FRAME_BYTES: usize = 300;
const SLOT_BYTES: usize = 304;
const ROUNDS: usize = 31;
const PER_THREAD: usize = 40_000;
/// More than the part of a log that is too small for a file to be made ready beside it.
const WARM_UP_EVENTS: usize = 30_000;

fn event() -> Event<'static> {
    let mut e = tidewire_benches::event();
    let short = FRAME_BYTES - frame::encoded_len(&e);
    // Fill up to the size that is wanted, so that the figure means what it says.
    e.user_agent = &"tidewire-bench/1 (a user agent of the usual length, as clients send them)"[..short - 4];
    assert_eq!(frame::encoded_len(&e), FRAME_BYTES);
    e.time_ns = 1_750_000_000_123_456_789;
    e
}

fn engine(dir: &Path, idle: Idle) -> Engine {
    let mut config = EngineConfig::new(dir);
    config.shards = Some(1);
    config.idle = idle;
    let types = EventTypes::default();
    // The destination is down: what is published is matched and logged, and nothing else competes for the two cores.
    let down = Destination::new("down", DestinationKind::Webhook(Webhook::new("http://127.0.0.1:9/").expect("a URL")));
    let rule = Rule::new("all", ["s3:ObjectCreated:*"], &types).expect("a rule").with_destination("down");
    let rules = RuleSet::build(vec![rule], vec![down], types).expect("rules");
    Engine::open_with(config, rules).expect("an engine")
}

fn array_queue(clock: Clock, threads: usize, bursts: Bursts) -> (f64, f64) {
    let queue = Arc::new(ArrayQueue::<[u8; SLOT_BYTES]>::new(16 * 1024));
    let stop = Arc::new(AtomicBool::new(false));
    let consumer = {
        let (queue, stop) = (queue.clone(), stop.clone());
        std::thread::spawn(move || {
            let mut sum = 0u64;
            while !stop.load(Ordering::Relaxed) {
                match queue.pop() {
                    Some(slot) => sum += u64::from(slot[0]),
                    None => spin_loop(),
                }
            }
            sum
        })
    };
    let e = event();
    let figures = paced(clock, threads, PER_THREAD, bursts, || {
        let mut slot = [0u8; SLOT_BYTES];
        let layout = Layout::of(&e);
        frame::encode(&e, layout, e.time_ns, &mut slot[..layout.len()]);
        queue.push(slot).is_ok()
    });
    stop.store(true, Ordering::Relaxed);
    consumer.join().expect("the consumer");
    figures
}

/// What the files under a directory take on disk, in blocks of 512 bytes.
fn allocated(dir: &Path) -> u64 {
    std::fs::read_dir(dir).map_or(0, |entries| {
        entries
            .flatten()
            .map(|e| match e.metadata() {
                Ok(m) if m.is_dir() => allocated(&e.path()),
                Ok(m) => m.blocks(),
                Err(_) => 0,
            })
            .sum()
    })
}

/// Goes on until the log has made a file ready for what comes, so that no side pays for the beginning of a log, which writes
/// as many zeros as data.
fn warm_up(engine: &Engine, dir: &Path, e: &Event<'_>) {
    for n in 0..=WARM_UP_EVENTS {
        let ack = if n == WARM_UP_EVENTS { Ack::Synced } else { Ack::Memory };
        engine.publish_with(e, &PublishOptions { ack, ..PublishOptions::default() }).expect("published");
    }
    let mut before = 0;
    loop {
        let now = allocated(dir);
        if now == before {
            return;
        }
        before = now;
        std::thread::sleep(Duration::from_millis(150));
    }
}

fn publish(clock: Clock, threads: usize, bursts: Bursts, e: &Event<'_>) -> (f64, f64) {
    let dir = tempfile::tempdir().expect("a directory");
    let engine = engine(dir.path(), Idle::Spin);
    warm_up(&engine, dir.path(), e);
    let options = PublishOptions { ack: Ack::Memory, ..PublishOptions::default() };
    let figures = paced(clock, threads, PER_THREAD, bursts, || engine.publish_with(e, &options).is_ok());
    engine.close(Duration::ZERO).expect("closed");
    figures
}

/// Median time of one durable publish after the other, and of bare writes of a block.
fn acks(figures: &mut Vec<Figure>, idle: Idle) {
    let dir = tempfile::tempdir().expect("a directory");
    let file = std::fs::File::options().create_new(true).write(true).open(dir.path().join("bare")).expect("a file");
    file.write_all_at(&vec![0; 4 << 20], 0).expect("zeros");
    file.sync_all().expect("synced");
    let engine = engine(&dir.path().join("engine"), idle);
    let e = event();
    let timed = |f: &mut dyn FnMut(u64)| {
        let mut times: Vec<f64> = (0..200u64)
            .map(|n| {
                let t = Instant::now();
                f(n);
                t.elapsed().as_nanos() as f64
            })
            .collect();
        median(&mut times)
    };
    let publish = |ack| {
        let options = PublishOptions { ack, ..PublishOptions::default() };
        engine.publish_with(&e, &options).expect("published");
    };
    let block = [7u8; 4096];
    let (mut written, mut synced, mut bare_write, mut bare_sync) = (vec![], vec![], vec![], vec![]);
    for _ in 0..5 {
        written.push(timed(&mut |_| publish(Ack::Written)));
        bare_write.push(timed(&mut |n| file.write_all_at(&block, n * 4096).expect("written")));
        synced.push(timed(&mut |_| publish(Ack::Synced)));
        bare_sync.push(timed(&mut |n| {
            file.write_all_at(&block, n * 4096).expect("written");
            file.sync_data().expect("synced");
        }));
    }
    let idle = format!("{idle:?}").to_lowercase();
    for (name, mut value, beside, mut bare) in [
        (format!("publish at written, 1 thread, {idle}, p50"), written, "page-cache write of a block", bare_write),
        (format!("publish at synced, 1 thread, {idle}, p50"), synced, "write + fdatasync of a block", bare_sync),
    ] {
        figures.push(Figure {
            name,
            value: median(&mut value) / 1000.0,
            unit: "us".into(),
            beside: beside.into(),
            beside_value: median(&mut bare) / 1000.0,
        });
    }
    engine.close(Duration::ZERO).expect("closed");
}

fn main() {
    let clock = Clock::new();
    let mut figures = Vec::new();
    for (bursts, rounds, pattern) in [(Bursts::EVENLY, ROUNDS, ""), (Bursts::OF_16, ROUNDS / 2, ", bursts of 16")] {
        for threads in [1, 2, 4] {
            let ours = || publish(clock, threads, bursts, &event());
            let pairs = in_turn(rounds, ours, || array_queue(clock, threads, bursts));
            let (p50, p99): (Vec<_>, Vec<_>) = pairs.iter().map(|(o, t)| ((o.0, t.0), (o.1, t.1))).unzip();
            for (what, pairs) in [("p50", p50), ("p99", p99)] {
                let (value, beside_value) = paired(&pairs);
                figures.push(Figure {
                    name: format!("publish at memory{pattern}, {threads} threads, {what}"),
                    value,
                    unit: "ns".into(),
                    beside: "encode + ArrayQueue push".into(),
                    beside_value,
                });
            }
        }
    }
    let mut timeless = event();
    timeless.time_ns = 0;
    let pairs = in_turn(
        ROUNDS,
        || publish(clock, 1, Bursts::EVENLY, &timeless).0,
        || publish(clock, 1, Bursts::EVENLY, &event()).0,
    );
    let (value, beside_value) = paired(&pairs);
    figures.push(Figure {
        name: "publish at memory without a time, 1 threads, p50".into(),
        value,
        unit: "ns".into(),
        beside: "the same with a time".into(),
        beside_value,
    });
    for idle in [Idle::Spin, Idle::Nap, Idle::Park] {
        acks(&mut figures, idle);
    }
    keep("publish", &figures);
}
