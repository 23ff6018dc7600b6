use std::hint::black_box;
use std::time::Instant;
use tidewire::config::EngineConfig;
use tidewire::event::{EventTypes, frame, resource_hash};
use tidewire::rule::*;
use tidewire::*;
fn t(name: &str, mut f: impl FnMut()) {
    for _ in 0..2 {
    let n = 2_000_000;
    let b = Instant::now();
    for _ in 0..n { f(); }
    println!("{name}: {:.1} ns", b.elapsed().as_nanos() as f64 / n as f64);
    }
}
fn main() {
    let mut e = Event::new(KnownType::ObjectCreatedPut.into(), "acme-prod", b"logs/acme/api/2025/03/17/05/api-11-0123456789abcdef.log.gz");
    e.time_ns = 1; e.size = Some(1); e.etag = "0123456789abcdef0123456789abcdef"; e.version_id = "fedcba9876543210fedcba9876543210";
    e.requester = "AWS:AIDA0042EXAMPLE"; e.source_ip = "10.1.2.3"; e.request_id = "4442587FB7D0A2F9"; e.content_type = "application/gzip"; e.metadata = &[("owner", "billing")];
    let mut out = vec![0u8; frame::encoded_len(&e)];
    t("encode", || frame::encode(black_box(&e), frame::Layout::of(black_box(&e)), 0, &mut out));
    t("encoded_len", || { black_box(frame::encoded_len(black_box(&e))); });
    t("validate", || { black_box(e).validate(65536).unwrap(); });
    t("hash", || { black_box(resource_hash(black_box(b"acme-prod"), black_box(e.key))); });
    let src = out.clone();
    t("memcpy", || out.copy_from_slice(black_box(&src)));
    let dir = tempfile::tempdir().unwrap();
    let types = EventTypes::default();
    let down = Destination::new("down", DestinationKind::Webhook(Webhook::new("http://127.0.0.1:9/").unwrap()));
    let rule = Rule::new("all", ["s3:ObjectCreated:*"], &types).unwrap().with_bucket("acme-prod").with_destination("down");
    let engine = Engine::open_with(EngineConfig::new(dir.path()), RuleSet::build(vec![rule], vec![down], types).unwrap()).unwrap();
    t("interested(with load)", || { black_box(engine.is_interested(black_box("acme-prod"), e.event_type)); });
    let o = PublishOptions { ack: Ack::Memory, ..Default::default() };
    let mut no = e; no.bucket = "other";
    t("publish no match", || { engine.publish_with(black_box(&no), &o).unwrap(); });
}
