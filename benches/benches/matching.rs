//! Matching an event against prefix and suffix rules of one bucket, beside trying the rules one after the other.

use std::hint::black_box;

use criterion::Criterion;
use tidewire::KnownType;
use tidewire::event::{Event, EventTypes, FrameView, frame};
use tidewire::filter::{Filter, MatchMemory, Matcher};
use tidewire::rule::Rule;
use tidewire_benches::{Figure, criterion_median, keep};

fn main() {
    let types = EventTypes::default();
    let keys: Vec<String> = (0..256)
        .map(|n| format!("tenant-{}/images/{n:05}/orig/{:08x}.jpg", n * 37 % 1000, n * 2_654_435_761u64))
        .collect();
    let mut c = Criterion::default().configure_from_args().sample_size(30);
    let mut g = c.benchmark_group("match");
    let mut figures = Vec::new();
    let sizes = [10usize, 1000, 100_000];
    for n in sizes {
        let rules: Vec<Rule> = (0..n)
            .map(|i| {
                let filter = Filter::new(format!("tenant-{i}/"), if i % 2 == 0 { ".jpg" } else { ".png" });
                Rule::new(format!("rule-{i}"), ["s3:ObjectCreated:*"], &types)
                    .expect("a rule")
                    .with_bucket("bucket")
                    .with_filter(filter)
                    .with_destination("d")
            })
            .collect();
        let matcher = Matcher::compile(&rules).expect("rules that fit");
        let t = KnownType::ObjectCreatedPut.into();
        let frames: Vec<Vec<u8>> =
            keys.iter().map(|k| frame::encode_to_vec(&Event::new(t, "bucket", k.as_bytes()), 1)).collect();
        let mut memory = MatchMemory::default();
        let mut out = Vec::new();
        let mut at = 0;
        g.bench_function(format!("{n} rules"), |b| {
            b.iter(|| {
                at = (at + 1) % keys.len();
                out.clear();
                matcher.matches(&FrameView::trusted(black_box(&frames[at])), &mut memory, &mut out);
                out.len()
            });
        });
        g.bench_function(format!("{n} rules in turn"), |b| {
            b.iter(|| {
                at = (at + 1) % keys.len();
                out.clear();
                let event = FrameView::trusted(black_box(&frames[at]));
                out.extend(
                    rules
                        .iter()
                        .enumerate()
                        .filter(|(_, r)| r.events.contains(t) && r.filter.matches_frame(event))
                        .map(|(i, _)| i as u32),
                );
                out.len()
            });
        });
    }
    g.finish();
    for n in sizes {
        figures.push(Figure {
            name: format!("match against {n} rules"),
            value: criterion_median("match", &format!("{n} rules")),
            unit: "ns".into(),
            beside: "the rules in turn".into(),
            beside_value: criterion_median("match", &format!("{n} rules in turn")),
        });
    }
    keep("matching", &figures);
}
