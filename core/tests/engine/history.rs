//! The past as the log tells it: the history of a key, the objects of a bucket at a time.

use crate::common::*;
use tidewire::log::history::{complete_since, history, state_at};
use tidewire::log::reader::{Gap, GapCause, Item};
use tidewire::{Engine, ErrorKind, Event, KnownType};

fn change(engine: &Engine, t: KnownType, key: &str, version: &str, size: u64) {
    let mut e = Event::new(t.into(), "bucket", key.as_bytes());
    (e.version_id, e.size, e.etag) = (version, Some(size), "0f343b");
    engine.publish(&e).unwrap();
}

fn told(items: impl Iterator<Item = tidewire::Result<Item>>) -> (Vec<(String, String)>, Vec<Gap>) {
    let (mut events, mut gaps) = (Vec::new(), Vec::new());
    for item in items {
        match item.unwrap() {
            Item::Entry(e) => {
                let f = e.frame();
                let version = f.text(tidewire::event::frame::Field::VersionId).to_owned();
                events.push((f.event_type().name().to_owned(), version));
            }
            Item::Gap(g) => gaps.push(g),
        }
    }
    (events, gaps)
}

fn live(objects: &tidewire::log::state::Objects) -> Vec<(String, u64)> {
    objects.live().map(|(k, v)| (String::from_utf8(k.to_vec()).unwrap(), v.size.unwrap())).collect()
}

#[test]
fn every_version_and_operation_of_a_key_is_told_in_order_while_the_engine_runs_and_after() {
    use KnownType::*;
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path(), 3, kept(vec![]));
    for n in 0..200 {
        put(&engine, &format!("noise-{n}"), n);
    }
    change(&engine, ObjectCreatedPut, "key", "v1", 1);
    change(&engine, ObjectTaggingPut, "key", "v1", 1);
    change(&engine, ObjectCreatedCopy, "key", "v2", 2);
    change(&engine, ObjectRemovedDeleteMarkerCreated, "key", "m", 0);
    let mut rename = Event::new(ObjectRenamed.into(), "bucket", b"new key");
    rename.data = br#"{"sourceKey":"key"}"#;
    engine.publish(&rename).unwrap();
    let mut elsewhere = Event::new(ObjectCreatedPut.into(), "other", b"key");
    elsewhere.version_id = "x";
    engine.publish(&elsewhere).unwrap();
    let expected: Vec<(String, String)> = [
        ("s3:ObjectCreated:Put", "v1"),
        ("s3:ObjectTagging:Put", "v1"),
        ("s3:ObjectCreated:Copy", "v2"),
        ("s3:ObjectRemoved:DeleteMarkerCreated", "m"),
        ("s3:ObjectRenamed", ""),
    ]
    .map(|(t, v)| (t.to_owned(), v.to_owned()))
    .into();
    let while_running = engine.history("bucket", b"key").unwrap();
    assert_eq!(while_running.complete_since_ns, None);
    let mut sequencers: Vec<String> = Vec::new();
    for item in engine.history("bucket", b"key").unwrap() {
        let Item::Entry(e) = item.unwrap() else { panic!("a gap") };
        sequencers.push(e.sequencer.to_string());
    }
    assert!(sequencers.windows(2).all(|w| w[0] < w[1]), "{sequencers:?}");
    assert_eq!(told(while_running), (expected.clone(), vec![]));
    assert_eq!(told(history(dir.path(), "bucket", b"key").unwrap()).0, expected, "another process sees the same");
    engine.close(WAIT).unwrap();
    assert_eq!(told(history(dir.path(), "bucket", b"key").unwrap()).0, expected);
    assert_eq!(told(history(dir.path(), "bucket", b"never").unwrap()).0, vec![]);
}

#[test]
fn the_objects_of_a_bucket_at_a_time() {
    use KnownType::*;
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path(), 3, kept(vec![]));
    change(&engine, ObjectCreatedPut, "a/1", "", 11);
    change(&engine, ObjectCreatedPut, "a/2", "", 12);
    change(&engine, ObjectCreatedPut, "b/1", "", 21);
    let then = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64;
    std::thread::sleep(std::time::Duration::from_millis(5));
    change(&engine, ObjectRemovedDelete, "a/1", "", 0);
    change(&engine, ObjectCreatedCompleteMultipartUpload, "a/2", "", 99);
    change(&engine, ObjectAclPut, "c", "", 1);
    let before = engine.state("bucket", b"", then).unwrap();
    assert_eq!(live(&before.objects), [("a/1".into(), 11), ("a/2".into(), 12), ("b/1".into(), 21)]);
    let now = engine.state("bucket", b"", u64::MAX).unwrap();
    assert_eq!(live(&now.objects), [("a/2".into(), 99), ("b/1".into(), 21)]);
    assert_eq!((now.complete_since_ns, now.gaps), (None, vec![]));
    engine.close(WAIT).unwrap();
    let there = |prefix: &[u8], at| live(&state_at(dir.path(), "bucket", prefix, at).unwrap().objects);
    assert_eq!(there(b"a/", then), [("a/1".into(), 11), ("a/2".into(), 12)]);
    assert_eq!(there(b"a/", u64::MAX), [("a/2".into(), 99)]);
    assert_eq!(there(b"", 0), vec![]);
}

#[test]
fn what_retention_has_dropped_is_told_with_the_time_since_when_the_log_is_complete() {
    let dir = tempfile::tempdir().unwrap();
    let mut c = config(dir.path(), 1);
    c.retention.bytes_max = Some(3 << 20);
    let begun = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64;
    let engine = Engine::open_with(c, kept(vec![])).unwrap();
    put(&engine, "first", 1);
    for n in 0..2000 {
        put_large(&engine, &format!("k{n}"), n);
    }
    sync(&engine);
    until("old segments are gone", || segments(dir.path()).len() <= 3);
    let state = engine.state("bucket", b"", u64::MAX).unwrap();
    let since = state.complete_since_ns.expect("the log does not reach back");
    assert!(since > begun);
    assert!(live(&state.objects).iter().all(|(k, _)| k != "first"));
    assert!(state.objects.live().all(|(_, v)| v.sequencer.clock_ns > since));
    engine.close(WAIT).unwrap();
    assert_eq!(complete_since(dir.path()).unwrap(), Some(since));
}

#[test]
fn a_log_of_which_nothing_is_left_is_not_complete() {
    let dir = tempfile::tempdir().unwrap();
    let mut c = config(dir.path(), 1);
    c.retention.keep = tidewire::config::Keep::Nothing;
    let r = receiver(tidewire_receiver::Behaviour::Ok204);
    let engine = Engine::open_with(c, passing(vec![hook("hook", &r.url())])).unwrap();
    assert_eq!(complete_since(dir.path()).unwrap(), None);
    put(&engine, "k", 1);
    engine.flush(WAIT).unwrap();
    engine.close(WAIT).unwrap();
    assert!(complete_since(dir.path()).unwrap().is_some());
}

#[test]
fn damage_is_told_in_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path(), 1, kept(vec![]));
    for n in 0..100 {
        change(&engine, KnownType::ObjectCreatedPut, "key", &format!("v{n}"), n);
    }
    engine.close(WAIT).unwrap();
    let path = &segments(dir.path())[0];
    let mut bytes = std::fs::read(path).unwrap();
    bytes[8192] ^= 1;
    std::fs::write(path, bytes).unwrap();
    let begun = std::time::Instant::now();
    let (events, gaps) = told(history(dir.path(), "bucket", b"key").unwrap());
    assert!(begun.elapsed() < WAIT);
    assert_eq!((events.len(), gaps.len()), (99, 1));
    assert_eq!((gaps[0].cause, gaps[0].sequences()), (GapCause::Damaged, 1));
}

#[test]
fn a_directory_that_is_none_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(history(dir.path(), "b", b"k").unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(state_at(&dir.path().join("no"), "b", b"", 0).unwrap_err().kind(), ErrorKind::NotFound);
}
