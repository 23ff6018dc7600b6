//! The log: packing records beside copying their bytes, and durable groups through a whole engine beside a bare write and
//! fdatasync of as many bytes.

use std::hint::black_box;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use criterion::Criterion;
use tidewire::config::EngineConfig;
use tidewire::event::EventTypes;
use tidewire::log::appender::{Appender, SegmentPlan};
use tidewire::log::record::{Kind, Route};
use tidewire::log::segment::Purpose;
use tidewire::rule::{Destination, DestinationKind, Rule, RuleSet, Webhook};
use tidewire::{Ack, Engine, Event, KnownType, PublishOptions};
use tidewire_benches::{Figure, criterion_figure, keep, median};

const ROUNDS: usize = 40;

fn groups(figures: &mut Vec<Figure>) {
    let dir = tempfile::tempdir().expect("a directory");
    let types = EventTypes::default();
    let down = Destination::new("down", DestinationKind::Webhook(Webhook::new("http://127.0.0.1:9/").expect("a URL")));
    let rule = Rule::new("all", ["s3:ObjectCreated:*"], &types).expect("a rule").with_destination("down");
    let rules = RuleSet::build(vec![rule], vec![down], types).expect("rules");
    let mut config = EngineConfig::new(dir.path().join("engine"));
    config.shards = Some(1);
    let engine = Engine::open_with(config, rules).expect("an engine");
    let file = std::fs::File::options().create_new(true).write(true).open(dir.path().join("bare")).expect("a file");
    file.write_all_at(&vec![0; 64 << 20], 0).expect("zeros");
    file.sync_all().expect("synced");
    let mut e = Event::new(KnownType::ObjectCreatedPut.into(), "bucket", b"logs/acme/api/2025/03/17/05/api-11.log.gz");
    let data = format!("{:?}", "x".repeat(330));
    e.data = data.as_bytes();
    let memory = PublishOptions { ack: Ack::Memory, ..PublishOptions::default() };
    let synced = PublishOptions { ack: Ack::Synced, ..PublishOptions::default() };
    let mut at = 0;
    for n in [1usize, 64, 1024] {
        let (mut ours, mut bare) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let before = engine.stats().log_bytes;
            let t = Instant::now();
            for _ in 1..n {
                engine.publish_with(&e, &memory).expect("published");
            }
            engine.publish_with(&e, &synced).expect("published");
            ours.push(t.elapsed().as_secs_f64() / n as f64 * 1e9);
            let bytes = vec![7; ((engine.stats().log_bytes - before) as usize).next_multiple_of(4096)];
            let t = Instant::now();
            file.write_all_at(&bytes, at).expect("written");
            file.sync_data().expect("synced");
            bare.push(t.elapsed().as_secs_f64() / n as f64 * 1e9);
            at = (at + bytes.len() as u64) % (60 << 20);
        }
        figures.push(Figure {
            name: format!("durable event, {n} at a time"),
            value: median(&mut ours),
            unit: "ns".into(),
            beside: "bare write + fdatasync".into(),
            beside_value: median(&mut bare),
        });
    }
    engine.close(Duration::ZERO).expect("closed");
}

fn main() {
    let body = [7u8; 300];
    let routes = [Route::new(1, 2)];
    let plan = SegmentPlan { bytes_max: 64 << 20, shard: 0, incarnation: 1, purpose: Purpose::Events };
    let mut c = Criterion::default().configure_from_args();
    let mut g = c.benchmark_group("log");
    g.bench_function("pack a record of 300 bytes", |b| {
        let mut a = Appender::new(plan, 1, 1, 0);
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
    groups(&mut figures);
    keep("log", &figures);
}
