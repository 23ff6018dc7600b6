//! The log: packing records beside copying their bytes, and groups of events made durable through a whole engine.
//!
//! A group is 64 or 256 events of 900 bytes, published at `memory` but for the last, of which the receipt is awaited at
//! `synced`: ring, matching, appender, write, fdatasync, and the way back. Beside it, in turn on the same disk:
//!
//! - the limit: write and fdatasync of as many bytes into a file that is filled already, on the thread that waits, through
//!   the page cache and with direct I/O;
//! - what a store does that keeps one file per event: write, fsync, rename, fsync of the directory.
//!
//! *In a row* is the log as it works under load: the next group is published while one is on its way, and two that wait
//! for the disk may become one. *Alone* is one group after the other, which is all latency: publishing, the wake-ups of
//! three threads, and the commit. A shard that spins leaves out one of the three; that is the fairest comparison with a
//! loop that has no thread to wake. Napping is the default. The engine's segment is one that was filled before, as all are
//! in the steady state, and its only lane has fallen behind, so that nothing is delivered meanwhile.
//!
//! On a machine that is busy otherwise, run it before the others: `sudo chrt --rr 5 benches/run log`, once it is built.

use std::fs::File;
use std::hint::black_box;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use criterion::Criterion;
use tidewire::config::{EngineConfig, Idle};
use tidewire::event::EventTypes;
use tidewire::log::appender::{Appender, SegmentPlan};
use tidewire::log::buffer::BlockBuffer;
use tidewire::log::record::{Kind, Route};
use tidewire::log::segment::Purpose;
use tidewire::rule::{Destination, DestinationKind, Rule, RuleSet, Webhook};
use tidewire::{Ack, Engine, Event, KnownType, PublishOptions, Receipt};
use tidewire_benches::{Figure, criterion_figure, keep, median};

const ROUNDS: usize = 60;
/// Groups of each kind in a round.
const GROUPS: usize = 6;
const RECORD_BYTES: usize = 900;
const SEGMENT_BYTES: u64 = 1 << 30;
const FILE_BYTES: u64 = 64 << 20;

struct Log {
    engine: Engine,
    data: String,
}

impl Log {
    /// An engine that writes into a segment that was filled before.
    fn open(dir: &Path, idle: Idle) -> Log {
        let types = EventTypes::default();
        let webhook = Webhook::new("http://127.0.0.1:9/").expect("a URL");
        let down = Destination::new("down", DestinationKind::Webhook(webhook));
        let rule = Rule::new("all", ["s3:ObjectCreated:*"], &types).expect("a rule").with_destination("down");
        let rules = RuleSet::build(vec![rule], vec![down], types).expect("rules");
        let mut config = EngineConfig::new(dir);
        config.shards = Some(1);
        config.idle = idle;
        config.log.segment_bytes = SEGMENT_BYTES;
        config.delivery.lane_events_max = 64;
        let mut log = Log { engine: Engine::open_with(config, rules).expect("an engine"), data: "\"\"".into() };
        log.group(1).wait(Ack::Synced, None).expect("durable");
        let rest = RECORD_BYTES - log.engine.stats().log_bytes as usize;
        log.data = format!("{:?}", "x".repeat(rest));
        let deadline = Instant::now() + Duration::from_secs(120);
        while log.engine.stats().log_disk_bytes < SEGMENT_BYTES || log.engine.stats().segments < 2 {
            assert!(Instant::now() < deadline, "no segment was prepared");
            log.group(256).wait(Ack::Synced, None).expect("durable");
            std::thread::sleep(Duration::from_millis(10));
        }
        log
    }

    /// Publishes a group.
    fn group(&self, events: usize) -> Receipt {
        let mut event =
            Event::new(KnownType::ObjectCreatedPut.into(), "bucket", b"logs/acme/api/2025/03/api-11.log.gz");
        event.data = self.data.as_bytes();
        let memory = PublishOptions { ack: Ack::Memory, ..PublishOptions::default() };
        for _ in 1..events {
            self.engine.publish_with(&event, &memory).expect("published");
        }
        self.engine.submit(&event, &PublishOptions::default()).expect("published").expect("matched")
    }

    fn alone(&self, events: usize) {
        self.group(events).wait(Ack::Synced, None).expect("durable");
    }

    /// Groups with two on their way; the first one is not counted.
    fn in_a_row(&self, events: usize, groups: usize) -> Duration {
        let mut before = self.group(events);
        let mut begun = Instant::now();
        for n in 0..=groups {
            let next = (n < groups).then(|| self.group(events));
            before.wait(Ack::Synced, None).expect("durable");
            if n == 0 {
                begun = Instant::now();
            }
            if let Some(receipt) = next {
                before = receipt;
            }
        }
        begun.elapsed() / groups as u32
    }
}

/// A file of zeros that is written round and round.
struct Bare {
    file: File,
    at: u64,
}

impl Bare {
    fn open(path: &Path, direct: bool) -> Bare {
        let file = File::options().create_new(true).write(true).open(path).expect("a file");
        file.write_all_at(&vec![0; FILE_BYTES as usize], 0).expect("zeros");
        file.sync_all().expect("synced");
        let flags = if direct { libc::O_DIRECT } else { 0 };
        Bare { file: File::options().write(true).custom_flags(flags).open(path).expect("the file"), at: 0 }
    }

    fn commit(&mut self, bytes: &[u8]) {
        self.file.write_all_at(bytes, self.at).expect("written");
        self.file.sync_data().expect("synced");
        self.at = (self.at + bytes.len() as u64) % (FILE_BYTES - (1 << 20));
    }
}

/// One file per event.
fn files(dir: &Path, events: usize) {
    std::fs::create_dir_all(dir).expect("a directory");
    let bytes = [7; RECORD_BYTES];
    for n in 0..events {
        let scratch = dir.join("scratch");
        let file = File::create(&scratch).expect("a file");
        file.write_all_at(&bytes, 0).expect("written");
        file.sync_all().expect("synced");
        std::fs::rename(&scratch, dir.join(n.to_string())).expect("renamed");
        File::open(dir).and_then(|d| d.sync_all()).expect("synced");
    }
    std::fs::remove_dir_all(dir).expect("removed");
}

fn time(times: &mut Vec<f64>, run: impl FnOnce()) {
    let begun = Instant::now();
    run();
    times.push(begun.elapsed().as_nanos() as f64 / 1e3);
}

/// The median; prints the quartiles.
fn middle(name: &str, times: &mut [f64]) -> f64 {
    let m = median(times);
    let at = |part: usize| times[(times.len() - 1) * part / 4];
    println!("{name:<40} {m:>9.1} us, half of them {:.1} to {:.1}", at(1), at(3));
    m
}

/// What is measured with one policy, and under what name.
struct Run {
    idle: Idle,
    in_a_row: Option<&'static str>,
    alone: &'static str,
}

fn groups(run: &Run, figures: &mut Vec<Figure>) {
    let dir = tempfile::tempdir().expect("a directory");
    let log = Log::open(&dir.path().join("engine"), run.idle);
    let mut cached = Bare::open(&dir.path().join("cached"), false);
    let mut direct = Bare::open(&dir.path().join("direct"), true);
    for n in [64usize, 256] {
        let mut buffer = BlockBuffer::default();
        buffer.grow(n * RECORD_BYTES).fill(7);
        let bytes = buffer.padded(1);
        let [mut alone, mut row, mut in_cache, mut past_cache, mut per_file] = [const { Vec::new() }; 5];
        let mut row_syncs = 0;
        for round in 0..ROUNDS {
            (0..GROUPS).for_each(|_| time(&mut alone, || log.alone(n)));
            (0..GROUPS).for_each(|_| time(&mut in_cache, || cached.commit(bytes)));
            if run.in_a_row.is_some() {
                let before = log.engine.stats().syncs;
                row.push(log.in_a_row(n, GROUPS).as_nanos() as f64 / 1e3);
                row_syncs += log.engine.stats().syncs - before;
            }
            (0..GROUPS).for_each(|_| time(&mut past_cache, || direct.commit(bytes)));
            if round % 10 == 0 {
                time(&mut per_file, || files(&dir.path().join("files"), n));
            }
        }
        println!("groups of {n} events, {:?}", run.idle);
        let mut ours = vec![(run.alone, middle("one group", &mut alone))];
        if let Some(name) = run.in_a_row {
            ours.insert(0, (name, middle("groups in a row, each", &mut row)));
            let per_sync = (ROUNDS * (GROUPS + 1)) as f64 / row_syncs as f64;
            println!("{:<40} {per_sync:>9.2} groups per fdatasync", "");
        }
        let besides = [
            ("write + fdatasync", middle("write + fdatasync, page cache", &mut in_cache)),
            ("write + fdatasync, direct I/O", middle("write + fdatasync, direct", &mut past_cache)),
            ("a file per event, with fsync", middle("one file per event", &mut per_file)),
        ];
        let rate = |us: f64| n as f64 / us * 1e6;
        for (name, value) in ours {
            figures.extend(besides.iter().map(|(beside, beside_value)| Figure {
                name: format!("durable events, groups of {n}, {name}"),
                value: rate(value),
                unit: "ev/s".into(),
                beside: (*beside).into(),
                beside_value: rate(*beside_value),
            }));
        }
    }
    log.engine.close(Duration::ZERO).expect("closed");
}

fn main() {
    let body = [7u8; 300];
    let routes = [Route::new(1, 2)];
    let plan = SegmentPlan { bytes_max: 64 << 20, shard: 0, incarnation: 1, purpose: Purpose::Events };
    let mut c = Criterion::default().configure_from_args();
    let mut g = c.benchmark_group("log");
    g.bench_function("pack a record of 300 bytes", |b| {
        let mut a = Appender::new(plan, 1, 0, 1, 0);
        let mut wall = 1;
        b.iter(|| {
            wall += 1;
            a.append(Kind::Event, &routes, black_box(&body), wall);
            if a.pending_bytes() > 512 << 10
                && let Some(group) = a.take()
            {
                a.recycle(group);
            }
        });
    });
    g.bench_function("copy of the same bytes", |b| {
        let mut out: Vec<u8> = Vec::with_capacity(1 << 20);
        b.iter(|| {
            out.extend_from_slice(black_box(&[7u8; 344]));
            if out.len() > 512 << 10 {
                out.clear();
            }
        });
    });
    g.finish();
    let mut figures = vec![criterion_figure("log", "pack a record of 300 bytes", "copy of the same bytes")];
    groups(&Run { idle: Idle::Nap, in_a_row: Some("in a row"), alone: "alone, napping" }, &mut figures);
    groups(&Run { idle: Idle::Spin, in_a_row: None, alone: "alone, spinning" }, &mut figures);
    keep("log", &figures);
}
