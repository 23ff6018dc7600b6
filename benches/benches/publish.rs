//! What `publish` costs the host, by ack level and number of threads.
//!
//! At `memory`, beside a push of the same encoded bytes into crossbeam's `ArrayQueue` after encoding them, which is the
//! least that a bounded hand-over to another thread can do. The two are measured in turn, with the consumer awake in both
//! and the same pauses, so that neither queue is full: calls one at a time, and in bursts, whose first call finds the caches
//! of a processor that other machines use too less warm. The event brings its time, so that neither side reads a clock; what
//! it costs if it does not is told, too. At `written` and `synced`, beside a bare write, and a
//! bare write with fdatasync, of one block. From a process that shares the engine of another one, beside the same call in the
//! process that has it.

use std::hint::spin_loop;
use std::io::Read;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam::queue::ArrayQueue;
use tidewire::config::{EngineConfig, Idle, SharedConfig};
use tidewire::event::{EventTypes, Layout, frame};
use tidewire::rule::{Destination, DestinationKind, Rule, RuleSet, Webhook};
use tidewire::{Ack, Client, ClientOptions, Engine, Event, PublishOptions};
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
    engine_at(dir, idle, None)
}

/// The same for other processes, too, at a socket.
fn engine_at(dir: &Path, idle: Idle, socket: Option<PathBuf>) -> Engine {
    let mut config = EngineConfig::new(dir);
    config.shards = Some(1);
    config.idle = idle;
    config.shared = socket.map(SharedConfig::new);
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
fn warm_up(publish: impl Fn(&Event<'_>, &PublishOptions), dir: &Path, e: &Event<'_>) {
    for n in 0..=WARM_UP_EVENTS {
        let ack = if n == WARM_UP_EVENTS { Ack::Synced } else { Ack::Memory };
        publish(e, &PublishOptions { ack, ..PublishOptions::default() });
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
    warm_up(|e, o| assert!(engine.publish_with(e, o).is_ok()), dir.path(), e);
    let options = PublishOptions { ack: Ack::Memory, ..PublishOptions::default() };
    let figures = paced(clock, threads, PER_THREAD, bursts, || engine.publish_with(e, &options).is_ok());
    engine.close(Duration::ZERO).expect("closed");
    figures
}

/// Where a process that has the engine for another one finds its directory.
const SERVE: &str = "TIDEWIRE_BENCH_SERVE";

/// Has the engine until its parent lets it go.
fn serve(dir: &Path) {
    let engine = engine_at(&dir.join("data"), Idle::Nap, Some(dir.join("s")));
    let _ = std::io::stdin().read(&mut [0]);
    engine.close(Duration::ZERO).expect("closed");
}

/// A process with an engine, and a client of it.
struct Served {
    dir: tempfile::TempDir,
    server: Child,
    client: Client,
}

impl Served {
    fn new() -> Served {
        let dir = tempfile::tempdir().expect("a directory");
        let server = Command::new(std::env::current_exe().expect("this program"))
            .env(SERVE, dir.path())
            .stdin(Stdio::piped())
            .spawn()
            .expect("a process");
        let mut options = ClientOptions::default();
        options.connect_timeout = Duration::from_secs(60);
        let client = Client::connect(dir.path().join("s"), options).expect("a client");
        Served { dir, server, client }
    }

    fn end(mut self) {
        drop(self.server.stdin.take());
        assert!(self.server.wait().expect("its end").success());
    }
}

/// What a client pays at `memory`, or the process that has the engine; its shard naps, for there are two processors and three
/// threads.
fn shared(clock: Clock, threads: usize, bursts: Bursts) -> (f64, f64) {
    let served = Served::new();
    let (client, e) = (&served.client, event());
    warm_up(|e, o| assert!(client.publish_with(e, o).is_ok()), &served.dir.path().join("data"), &e);
    let options = PublishOptions { ack: Ack::Memory, ..PublishOptions::default() };
    let figures = paced(clock, threads, PER_THREAD, bursts, || client.publish_with(&e, &options).is_ok());
    served.end();
    figures
}

fn alone(clock: Clock, threads: usize, bursts: Bursts) -> (f64, f64) {
    let dir = tempfile::tempdir().expect("a directory");
    let (engine, e) = (engine(dir.path(), Idle::Nap), event());
    warm_up(|e, o| assert!(engine.publish_with(e, o).is_ok()), dir.path(), &e);
    let options = PublishOptions { ack: Ack::Memory, ..PublishOptions::default() };
    let figures = paced(clock, threads, PER_THREAD, bursts, || engine.publish_with(&e, &options).is_ok());
    engine.close(Duration::ZERO).expect("closed");
    figures
}

/// Median time of one durable publish after the other, from a client and where the engine is.
fn shared_acks(figures: &mut Vec<Figure>) {
    let served = Served::new();
    let dir = tempfile::tempdir().expect("a directory");
    let (engine, e) = (engine(dir.path(), Idle::Nap), event());
    for ack in [Ack::Written, Ack::Synced] {
        let options = PublishOptions { ack, ..PublishOptions::default() };
        let timed = |publish: &dyn Fn()| {
            let mut times: Vec<f64> = (0..200)
                .map(|_| {
                    let t = Instant::now();
                    publish();
                    t.elapsed().as_nanos() as f64
                })
                .collect();
            median(&mut times)
        };
        let pairs = in_turn(
            5,
            || timed(&|| assert!(served.client.publish_with(&e, &options).is_ok())),
            || timed(&|| assert!(engine.publish_with(&e, &options).is_ok())),
        );
        let (value, beside_value) = paired(&pairs);
        figures.push(Figure {
            name: format!("publish at {} from another process, 1 thread, p50", ack.name()),
            value: value / 1000.0,
            unit: "us".into(),
            beside: "in the process that has the engine".into(),
            beside_value: beside_value / 1000.0,
        });
    }
    engine.close(Duration::ZERO).expect("closed");
    served.end();
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
    if let Some(dir) = std::env::var_os(SERVE) {
        return serve(Path::new(&dir));
    }
    let clock = Clock::new();
    let mut figures = Vec::new();
    for threads in [1, 2, 4] {
        let pairs =
            in_turn(ROUNDS / 2, || shared(clock, threads, Bursts::EVENLY), || alone(clock, threads, Bursts::EVENLY));
        let (p50, p99): (Vec<_>, Vec<_>) = pairs.iter().map(|(o, t)| ((o.0, t.0), (o.1, t.1))).unzip();
        for (what, pairs) in [("p50", p50), ("p99", p99)] {
            let (value, beside_value) = paired(&pairs);
            figures.push(Figure {
                name: format!("publish at memory from another process, {threads} threads, {what}"),
                value,
                unit: "ns".into(),
                beside: "in the process that has the engine".into(),
                beside_value,
            });
        }
    }
    shared_acks(&mut figures);
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
