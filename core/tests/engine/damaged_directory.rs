//! Engines on directories that were damaged while nobody had them open: what is whole is delivered, nothing that is whole
//! is removed, and the engine goes on.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::common::*;
use tidewire::config::Keep;
use tidewire::log::BLOCK_BYTES;
use tidewire::log::record::{self, Parsed};
use tidewire::log::recovery::CURSOR_FILES;
use tidewire::log::segment::SegmentHeader;
use tidewire::{ConsumerOptions, Engine, ErrorKind, LossReason};
use tidewire_receiver::{Behaviour, Receiver, check_per_key_order};

const NOWHERE: &str = "http://127.0.0.1:9/";

/// An engine of one shard that keeps nothing which is delivered.
fn engine(dir: &Path, url: &str) -> tidewire::Result<Engine> {
    let mut c = config(dir, 1);
    c.retention.keep = Keep::Nothing;
    Engine::open_with(c, passing(vec![hook("hook", url)]))
}

/// Leaves events `k0`, `k1`, ... undelivered in a directory.
fn leave(dir: &Path, events: std::ops::Range<u64>) {
    let engine = engine(dir, NOWHERE).unwrap();
    events.for_each(|n| put(&engine, &format!("key-{n:03}"), n));
    sync(&engine);
    engine.close(Duration::ZERO).unwrap();
}

/// How often each event of [`leave`] was accepted, by number.
fn accepted(r: &Receiver) -> BTreeMap<u64, usize> {
    let mut out = BTreeMap::new();
    for x in r.records().iter().filter(|x| x.accepted && x.bucket == "bucket") {
        *out.entry(x.size.unwrap()).or_default() += 1;
    }
    out
}

fn each_once(events: impl IntoIterator<Item = u64>) -> BTreeMap<u64, usize> {
    events.into_iter().map(|n| (n, 1)).collect()
}

/// The records of a segment file: where each begins, and its key.
fn records(bytes: &[u8]) -> Vec<(std::ops::Range<usize>, Vec<u8>)> {
    let segment = SegmentHeader::decode(bytes).unwrap().id;
    let (mut at, mut found) = (BLOCK_BYTES, Vec::new());
    while let Parsed::Record(r) = record::parse(segment, &bytes[at..]) {
        let key = tidewire::event::FrameView::parse(r.body()).unwrap().key().to_vec();
        found.push((at..at + r.padded_len(), key));
        at += r.padded_len();
    }
    found
}

#[test]
fn a_bad_payload_behind_a_good_checksum_drops_its_neighbours_or_stops_the_start() {
    let dir = tempfile::tempdir().unwrap();
    leave(dir.path(), 0..100);
    let path = segments(dir.path()).pop().unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    let segment = SegmentHeader::decode(&bytes).unwrap().id;
    let found = records(&bytes);
    for key in ["key-000", "key-042", "key-043"] {
        let (place, _) = found.iter().find(|(_, k)| k == key.as_bytes()).unwrap();
        let record = &mut bytes[place.clone()];
        let Parsed::Record(r) = record::parse(segment, record) else { panic!("no record") };
        let (length, body) = (u32::from_le_bytes(record[4..8].try_into().unwrap()) as usize, r.body().len());
        record[length - body..length].fill(0xA5);
        let crc = crc32c::crc32c_append(crc32c::crc32c(&segment.to_le_bytes()), &record[4..length]);
        record[..4].copy_from_slice(&crc.to_le_bytes());
        assert!(matches!(record::parse(segment, record), Parsed::Record(_)), "its checksum is good");
    }
    std::fs::write(&path, &bytes).unwrap();
    let r = receiver(Behaviour::Ok204);
    let engine = engine(dir.path(), &r.url()).unwrap();
    put(&engine, "key-100", 100);
    engine.flush(WAIT).unwrap();
    assert_eq!(accepted(&r), each_once((0..=100).filter(|n| ![0, 42, 43].contains(n))));
    let s = engine.stats();
    assert_eq!((s.damaged, s.waiting), (3, 0));
    let damaged: u64 = engine.loss_counts().iter().filter(|c| c.reason == LossReason::Damaged).map(|c| c.count).sum();
    assert_eq!(damaged, 3, "each is accounted for");
    engine.close(WAIT).unwrap();
}

#[test]
fn an_undecodable_tail_blocks_sending() {
    for fill in [0xFF, 0x00, 0xA5] {
        let dir = tempfile::tempdir().unwrap();
        leave(dir.path(), 0..50);
        // Much more behind the last record than a segment has, with what looks like the start of a record now and then.
        let path = segments(dir.path()).pop().unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        let (end, first) = (records(&bytes).last().unwrap().0.end, records(&bytes)[0].0.clone());
        let start = bytes[first.start..first.start + 24].to_vec();
        bytes.truncate(end);
        bytes.resize(end + (4 << 20), fill);
        for at in (end..end + (4 << 20) - 4096).step_by(4096) {
            bytes[at..at + start.len()].copy_from_slice(&start);
        }
        std::fs::write(&path, &bytes).unwrap();
        let r = receiver(Behaviour::Ok204);
        let engine = engine(dir.path(), &r.url()).unwrap();
        put(&engine, "key-050", 50);
        engine.flush(WAIT).unwrap();
        assert_eq!(accepted(&r), each_once(0..=50), "{fill:#x}");
        engine.close(WAIT).unwrap();
        assert!(segments(dir.path()).is_empty(), "{fill:#x}");
    }
}

#[test]
fn crash_loop_because_segments_were_unlinked_before_the_cursor_was_saved() {
    let dir = tempfile::tempdir().unwrap();
    let shard = dir.path().join("shard-0000");
    leave(dir.path(), 0..50);
    let old: Vec<_> = CURSOR_FILES.iter().filter_map(|f| Some((f, std::fs::read(shard.join(f)).ok()?))).collect();
    assert!(!old.is_empty());
    let r = receiver(Behaviour::Ok204);
    let e = engine(dir.path(), &r.url()).unwrap();
    (50..100).for_each(|n| put(&e, &format!("key-{n:03}"), n));
    e.flush(WAIT).unwrap();
    e.close(WAIT).unwrap();
    assert!(segments(dir.path()).is_empty());
    for round in 1..=3 {
        for (name, bytes) in &old {
            std::fs::write(shard.join(name), bytes).unwrap();
        }
        let e = engine(dir.path(), &r.url()).unwrap();
        (50..100).for_each(|n| put(&e, &format!("key-{n:03}"), n + round * 1000));
        e.flush(WAIT).unwrap();
        assert_eq!(e.stats().waiting, 0);
        e.close(WAIT).unwrap();
    }
    let expected = (0..100).chain((1..=3).flat_map(|round| round * 1000 + 50..round * 1000 + 100));
    assert_eq!(accepted(&r), each_once(expected));
    let records = r.records();
    assert_eq!(records.iter().map(|x| &x.event_id).collect::<BTreeSet<_>>().len(), records.len());
    assert_eq!(check_per_key_order(&records), []);
}

/// Everything in a directory but the lock.
fn contents(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut out = BTreeMap::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            out.extend(contents(&path));
        } else if path.file_name().unwrap() != "LOCK" {
            out.insert(path.clone(), std::fs::read(&path).unwrap());
        }
    }
    out
}

#[test]
fn a_log_deleted_as_an_orphan_because_its_metadata_was_damaged() {
    let dir = tempfile::tempdir().unwrap();
    leave(dir.path(), 0..50);
    let e = engine(dir.path(), NOWHERE).unwrap();
    e.consumer("workers", &ConsumerOptions::default()).unwrap();
    e.close(Duration::ZERO).unwrap();
    for file in ["meta.json", "names.json", "groups.json"] {
        let path = dir.path().join(file);
        let good = std::fs::read(&path).unwrap();
        let damages: [(&str, Option<Vec<u8>>); 5] = [
            ("is empty", Some(Vec::new())),
            ("is cut", Some(good[..good.len() / 2].to_vec())),
            ("is all zeros", Some(vec![0; good.len()])),
            ("has another shape", Some(b"{}".to_vec())),
            ("is gone", None),
        ];
        for (what, bytes) in damages {
            if bytes.is_none() && file == "groups.json" {
                continue; // A directory without groups has none.
            }
            match bytes {
                Some(bytes) => std::fs::write(&path, bytes).unwrap(),
                None => std::fs::remove_file(&path).unwrap(),
            }
            let before = contents(dir.path());
            let e = engine(dir.path(), NOWHERE).expect_err(&format!("{file} {what}"));
            assert_eq!(e.kind(), ErrorKind::Corrupt, "{file} {what}: {e}");
            assert!(e.to_string().contains(file), "{file} {what}: {e}");
            assert!(contents(dir.path()) == before, "{file} {what}: something was changed");
            std::fs::write(&path, &good).unwrap();
        }
    }
    let r = receiver(Behaviour::Ok204);
    let engine = engine(dir.path(), &r.url()).unwrap();
    engine.flush(WAIT).unwrap();
    assert_eq!(accepted(&r), each_once(0..50));
    engine.close(WAIT).unwrap();
}
