//! Writes the data directory that later versions must be able to open.

use std::path::Path;
use std::time::Duration;

use tidewire::event::EventTypes;
use tidewire::rule::{Backlog, Expect, Rule, RuleSet};
use tidewire::{Ack, CommitFields, CommitOptions, Engine, Event, Intent, KnownType, ReserveOptions, Reserved};
use tidewire_e2e::{BUCKET, GOLDEN, config, deliver_rest, golden_hook, keys, options, receiver, wait_for_stats};
use tidewire_receiver::{Behaviour, Reply};

const KEYS: [&str; 8] =
    ["done/a", "done/b c", "dead/x", "later/a", "later/ü+ä", "later/dir//file.jpg", "later/100%", "later/e"];

/// Events with a cursor of the host.
const APPENDED: u64 = 5;

/// Fills a directory with delivered, undelivered and given-up events of two destinations, writes what must still come
/// out of it, and crashes.
pub fn write(dir: &Path, expected: &Path) {
    let behaviour = Behaviour::decide(|hit| {
        let key = hit.records.first().map_or("", |r| r.key.as_str());
        match key.split('/').next() {
            Some("done") => Reply::status(204),
            Some("dead") => Reply::status(400),
            _ => Reply::status(503),
        }
    });
    let receiver = receiver(behaviour);
    let destinations = GOLDEN.map(|name| {
        let mut d = golden_hook(name, &format!("{}{name}", receiver.url()));
        d.batch.events_max = 1;
        d.retry.poison_attempts = 1;
        d.breaker.consecutive_failures = 1_000_000;
        d
    });
    let types = EventTypes::default();
    let both = Rule::new("created", ["s3:ObjectCreated:*"], &types).expect("a rule");
    let both = both.with_destination("first").with_destination("second");
    let one = Rule::new("removed", ["s3:ObjectRemoved:*"], &types).expect("a rule").with_destination("first");
    let strict = Rule::new("tagged", ["s3:ObjectTagging:*"], &types).expect("a rule").with_destination("strict");
    let rules = RuleSet::build(vec![both, one, strict], destinations.to_vec(), types).expect("rules");
    let engine = Engine::open_with(config(dir, 2), rules).expect("an engine");

    let kept = Rule::new("kept", ["s3:ObjectCreated:*"], &EventTypes::default()).expect("a rule");
    engine.put_rule(kept.with_bucket("kept").with_destination("first"), Expect::Absent).expect("put");
    for name in ["stays", "goes"] {
        let d = golden_hook(name, &format!("{}{name}", receiver.url()));
        engine.put_destination(d, Expect::Absent, &Backlog::Keep).expect("put");
    }
    engine.delete_destination("goes", Expect::Anything, &Backlog::Purge).expect("deleted");

    let pairs = [("colour", "blé"), ("n", "1")];
    for n in 0..4u64 {
        for key in KEYS {
            if key == "dead/x" && n > 0 {
                continue;
            }
            let mut event = Event::new(KnownType::ObjectCreatedPut.into(), BUCKET, key.as_bytes());
            event.size = Some(n);
            event.etag = "d41d8cd98f00b204e9800998ecf8427e";
            event.version_id = "v1";
            event.requester = "somebody";
            event.source_ip = "192.0.2.7";
            event.content_type = "text/plain";
            event.metadata = &pairs;
            event.tags = &pairs;
            engine.publish_with(&event, &options(Ack::Synced)).expect("published");
        }
        let removed = Event::new(KnownType::ObjectRemovedDelete.into(), BUCKET, b"later/a");
        engine.publish_with(&removed, &options(Ack::Synced)).expect("published");
    }
    // Every shard has some for the one destination that a single shard delivers.
    for key in keys("later/tagged ", 8) {
        let tagged = Event::new(KnownType::ObjectTaggingPut.into(), BUCKET, key.as_bytes());
        engine.publish_with(&tagged, &options(Ack::Synced)).expect("published");
    }
    for (cursor, key) in (1..=APPENDED).zip(keys("later/appended ", APPENDED as usize)) {
        let event = Event::new(KnownType::ObjectCreatedCopy.into(), BUCKET, key.as_bytes());
        engine.append_at(cursor, &event, &options(Ack::Synced)).expect("appended");
    }
    let intent = ReserveOptions { intent: Intent::Durable, ..ReserveOptions::default() };
    let held = keys("later/reserved ", 3).into_iter().map(|key| {
        match engine.reserve(&Event::new(KnownType::ObjectCreatedPut.into(), BUCKET, key.as_bytes()), &intent) {
            Ok(Reserved::Held(reservation)) => reservation,
            other => panic!("{other:?}"),
        }
    });
    let held: Vec<_> = held.collect();
    held[0]
        .commit(&CommitFields { size: Some(7), ..CommitFields::default() }, &CommitOptions::default())
        .expect("told");
    wait_for_stats(&engine, "delivered and given up", |s| s.delivered == 16 && s.dead_lettered == 2);
    // Cursors are saved every 100 ms.
    std::thread::sleep(Duration::from_millis(500));

    // The rest is read from a second engine over a copy, so that the directory stays as the crash leaves it.
    let copy = tempfile::tempdir().expect("a directory");
    let status = std::process::Command::new("cp").arg("-r").arg(dir).arg(copy.path().join("data")).status();
    assert!(status.expect("cp").success());
    let text = deliver_rest(&copy.path().join("data"));
    std::fs::write(expected, text).expect("written");
    std::process::abort();
}
