//! Encoding and reading a frame, beside copying the same bytes.

use std::hint::black_box;

use criterion::Criterion;
use tidewire::event::{FrameView, Layout, frame, resource_hash};
use tidewire_benches::{criterion_figure, event, keep};

fn main() {
    let mut e = event();
    e.tags = &[("class", "hot"), ("team", "umbrella")];
    let bytes = frame::encode_to_vec(&e, 0);
    let mut out = vec![0; bytes.len()];

    let mut c = Criterion::default().configure_from_args();
    let mut g = c.benchmark_group("frame");
    g.bench_function("encode", |b| {
        b.iter(|| frame::encode(black_box(&e), Layout::of(black_box(&e)), 0, black_box(&mut out)));
    });
    g.bench_function("check and read the matcher's fields", |b| {
        b.iter(|| {
            let v = FrameView::parse(black_box(&bytes)).expect("a frame");
            black_box((v.bucket(), v.key(), v.event_type(), v.size()))
        });
    });
    g.bench_function("hash of the resource key", |b| {
        b.iter(|| resource_hash(black_box(e.bucket.as_bytes()), black_box(e.key)));
    });
    g.bench_function("copy of the same bytes", |b| b.iter(|| black_box(&mut out).copy_from_slice(black_box(&bytes))));
    g.finish();
    let copy = "copy of the same bytes";
    keep(
        "frame",
        &["encode", "check and read the matcher's fields", "hash of the resource key"]
            .map(|id| criterion_figure("frame", id, copy)),
    );
}
