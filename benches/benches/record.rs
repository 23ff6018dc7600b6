//! Writing a record, beside serde_json writing the same one from structs, and beside copying the same bytes.

use std::hint::black_box;

use bytes::BytesMut;
use criterion::Criterion;
use tidewire::event::profile::{Profile, RecordContext};
use tidewire::event::{EventId, FrameView, Sequencer, frame};
use tidewire::{Event, KnownType};
use tidewire_benches::{criterion_figure, keep};

fn main() {
    let mut e = Event::new(
        KnownType::ObjectCreatedPut.into(),
        "acme-prod",
        "images/acme/00042/orig/été 2024 (1).jpg".as_bytes(),
    );
    e.time_ns = 1_750_000_000_123_456_789;
    e.size = Some(1 << 20);
    e.etag = "0123456789abcdef0123456789abcdef";
    e.version_id = "fedcba9876543210fedcba9876543210";
    e.requester = "AWS:AIDA0042EXAMPLE";
    e.source_ip = "10.1.2.3";
    e.request_id = "4442587FB7D0A2F9";
    e.host_id = "vlR7PnpV2Ce81l0PRw6jlUpck7Jo5ZsQjryTjKlc5aLWGVHPZLj5NeC6qMa0emYBDXOo6QBU0Wo";
    let bytes = frame::encode_to_vec(&e, 0);
    let view = FrameView::parse(&bytes).expect("a frame");
    let context = RecordContext {
        id: EventId { incarnation: 0x1234_5678_9ABC_DEF0, shard: 1, sequence: 77 },
        sequencer: Sequencer { clock_ns: 1_750_000_000_123_456_789, tie: 1, writer: 7 },
        rule: "images",
        region: "eu-central-1",
        event_source: "aws:s3",
    };
    let mut out = BytesMut::with_capacity(4096);
    Profile::Aws.write_record(&view, &context, &mut out);
    let record = out.to_vec();
    let tree: serde_json::Value = serde_json::from_slice(&record).expect("JSON");
    let mut copy = vec![0; record.len()];

    let mut c = Criterion::default().configure_from_args();
    let mut g = c.benchmark_group("record");
    for (name, profile) in [("aws", Profile::Aws), ("cloudevents", Profile::CloudEvents)] {
        g.bench_function(name, |b| {
            b.iter(|| {
                out.clear();
                profile.write_record(black_box(&view), &context, &mut out);
            });
        });
    }
    let mut text = Vec::with_capacity(4096);
    g.bench_function("serde_json, a ready tree of the aws record", |b| {
        b.iter(|| {
            text.clear();
            serde_json::to_writer(&mut text, black_box(&tree)).expect("written");
        });
    });
    g.bench_function("copy of the same bytes", |b| b.iter(|| black_box(&mut copy).copy_from_slice(black_box(&record))));
    g.finish();
    keep(
        "record",
        &[
            criterion_figure("record", "aws", "serde_json, a ready tree of the aws record"),
            criterion_figure("record", "aws", "copy of the same bytes"),
            criterion_figure("record", "cloudevents", "copy of the same bytes"),
        ],
    );
}
