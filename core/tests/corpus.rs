//! The fuzz targets on the checked-in corpus and on mutations of it, without a fuzzer: see `fuzz/`.
//!
//! 20,000 mutations per target; with `TIDEWIRE_LONG=1` a million. `TIDEWIRE_SEED` repeats a run. An input that fails is left
//! in a file that the failure names.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tidewire::event::frame;
use tidewire::log::appender::{Appender, SegmentPlan};
use tidewire::log::cursor::{Cursor, Cursors};
use tidewire::log::record::{DeadLetter, Kind, Route};
use tidewire::log::segment::{Purpose, SegmentHeader};
use tidewire::log::{BLOCK_BYTES, record};
use tidewire::{Event, EventType, KnownType};

#[path = "../../fuzz/src/lib.rs"]
mod targets;

/// Far beyond what an input takes, so that only a hang is one.
const HANG: Duration = Duration::from_secs(60);
/// Inputs are not made longer than this.
const INPUT_BYTES_MAX: usize = 16 * 1024;

fn corpus(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target)
}

/// The checked-in inputs of a target, by name.
fn seeds(target: &str) -> Vec<(String, Vec<u8>)> {
    let dir = corpus(target);
    let entries = std::fs::read_dir(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    let mut seeds: Vec<_> = entries
        .map(|e| {
            let path = e.unwrap().path();
            (path.file_name().unwrap().to_str().unwrap().to_owned(), std::fs::read(path).unwrap())
        })
        .collect();
    seeds.sort();
    assert!(seeds.len() >= 5, "{} has {} inputs", dir.display(), seeds.len());
    seeds
}

/// Numbers that look random (xorshift64*).
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % n.max(1)
    }

    /// A place in something of this length, and a length that fits there, mostly short.
    fn range(&mut self, len: usize) -> std::ops::Range<usize> {
        let from = self.below(len + 1);
        let most = [4, 16, 64, len][self.below(4)].min(len - from);
        from..from + self.below(most + 1)
    }
}

/// Values at which limits lie.
const EDGES: [u64; 12] =
    [0, 1, 7, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFF_FFFF, 0xFFFF_FFFF, i64::MAX as u64, u64::MAX];

/// Bytes that mean something somewhere.
const MARKS: &[u8] = b"\0\n\r {}[]<>\"'&:,=\\%+/.*-09azAZ\x7f\x80\xc3\xff";

/// Changes an input a little, with parts of others.
fn mutate(random: &mut Random, input: &mut Vec<u8>, others: &[(String, Vec<u8>)]) {
    for _ in 0..1 + random.below(4) {
        let at = random.below(input.len());
        match random.below(9) {
            0 if !input.is_empty() => input[at] ^= 1 << random.below(8),
            1 if !input.is_empty() => input[at] = random.below(256) as u8,
            2 => input.insert(at, MARKS[random.below(MARKS.len())]),
            3 => drop(input.drain(random.range(input.len()))),
            4 => input.truncate(at),
            5 => {
                let bytes = EDGES[random.below(EDGES.len())].to_le_bytes();
                let n = [1, 2, 4, 8][random.below(4)].min(input.len() - at);
                input[at..at + n].copy_from_slice(&bytes[..n]);
            }
            6 => {
                let part = input[random.range(input.len())].to_vec();
                input.splice(at..at, part);
            }
            7 => {
                let other = &others[random.below(others.len())].1;
                let part = other[random.range(other.len())].to_vec();
                let to = random.range(input.len());
                input.splice(to, part);
            }
            _ => {
                let (a, b) = (random.range(input.len()), random.below(input.len()));
                let n = a.len().min(input.len() - b);
                input.copy_within(a.start..a.start + n, b);
            }
        }
    }
    input.truncate(INPUT_BYTES_MAX);
}

/// Runs a target on its corpus and on mutations of it.
fn run(name: &str) {
    let (_, target) = targets::TARGETS.iter().find(|(n, _)| *n == name).unwrap();
    let seeds = seeds(name);
    let accepted = seeds.iter().filter(|(_, input)| target(input)).count();
    assert!(accepted > 0 && accepted < seeds.len(), "{accepted} of {} inputs are accepted", seeds.len());

    let mutations = if std::env::var_os("TIDEWIRE_LONG").is_some() { 1_000_000 } else { 20_000 };
    let seed = std::env::var("TIDEWIRE_SEED").ok().map_or(1, |s| s.parse().expect("TIDEWIRE_SEED is a number"));
    let current = Arc::new(Mutex::new(Vec::new()));
    let (step, steps) = channel();
    let worker = std::thread::spawn({
        let (current, target, name) = (current.clone(), *target, name.to_owned());
        move || {
            let mut random = Random(seed | 1 << 63);
            let mut found = Vec::new();
            for n in 0..mutations {
                let from = random.below(seeds.len() + found.len());
                let mut input = seeds.get(from).map_or_else(|| &found[from - seeds.len()], |(_, input)| input).clone();
                mutate(&mut random, &mut input, &seeds);
                current.lock().unwrap().clone_from(&input);
                match catch_unwind(AssertUnwindSafe(|| target(&input))) {
                    // What is still accepted is a good start for the next mutations.
                    Ok(true) if found.len() < 64 => found.push(input),
                    Ok(true) => found[random.below(64)] = input,
                    Ok(false) => {}
                    Err(_) => panic!("{name}, mutation {n} of seed {seed}: {}", keep(&name, &input)),
                }
                if n % 64 == 0 && step.send(()).is_err() {
                    return;
                }
            }
        }
    });
    loop {
        match steps.recv_timeout(HANG) {
            Ok(()) => {}
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => panic!("{name} hangs: {}", keep(name, &current.lock().unwrap())),
        }
    }
    if let Err(e) = worker.join() {
        std::panic::resume_unwind(e);
    }
}

/// Leaves an input in a file; answers where.
fn keep(target: &str, input: &[u8]) -> String {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("failed-{target}"));
    std::fs::write(&path, input).unwrap();
    format!("the input is in {}", path.display())
}

#[test]
fn frames_do_no_harm() {
    run("frame");
}

#[test]
fn segments_do_no_harm() {
    run("segment");
}

#[test]
fn ingested_documents_do_no_harm() {
    run("ingest");
}

#[test]
fn notification_documents_in_xml_do_no_harm() {
    run("notification_xml");
}

#[test]
fn notification_documents_in_json_do_no_harm() {
    run("notification_json");
}

#[test]
fn configuration_files_do_no_harm() {
    run("config");
}

#[test]
fn filters_do_no_harm() {
    run("filter");
}

#[test]
fn answers_over_http_do_no_harm() {
    run("http_response");
}

// --- Inputs that nobody can type -----------------------------------------------------------------------------------

fn frames() -> Vec<(&'static str, Vec<u8>)> {
    let put = Event::new(KnownType::ObjectCreatedPut.into(), "photos", b"2026/red flower+1.jpg");
    let mut full = put;
    full.size = Some(77);
    (full.version_id, full.etag, full.requester, full.source_ip) = ("v1", "d41d8cd9", "AWS:me", "192.0.2.7");
    (full.request_id, full.host_id, full.region, full.content_type) = ("C3D1", "FMyU", "eu-west-3", "image/jpeg");
    (full.method, full.user_agent, full.bucket_owner) = ("PutObject", "curl/8", "owner");
    (full.metadata, full.tags, full.data) = (&[("album", "Été \"26\""), ("n", "")], &[("a", "b")], b"{\"a\": [1]}");
    let custom = Event::new(EventType::Custom("acme:Scan:Clean"), "b", b"\xff\0");
    let system = Event::new(KnownType::SystemHealthOk.into(), "", b"");
    let mut transition = put;
    transition.event_type = KnownType::LifecycleTransition.into();
    transition.data = br#"{"destinationStorageClass":"GLACIER"}"#;
    let encode = |e: &Event<'_>| frame::encode_to_vec(e, 1_772_323_199_123_456_789);
    let mut newer = encode(&put);
    newer[0] = 2;
    let mut ends_crossed = encode(&full);
    ends_crossed[32..36].copy_from_slice(&200u32.to_le_bytes());
    let short = encode(&put)[..31].to_vec();
    vec![
        ("put", encode(&put)),
        ("full", encode(&full)),
        ("custom", encode(&custom)),
        ("system", encode(&system)),
        ("transition", encode(&transition)),
        ("newer", newer),
        ("ends-crossed", ends_crossed),
        ("short", short),
    ]
}

fn segments() -> Vec<(&'static str, Vec<u8>)> {
    let plan = SegmentPlan { bytes_max: 1 << 20, shard: 0, incarnation: 77, purpose: Purpose::Events };
    let mut appender = Appender::new(plan, 5, 999, 1000, 10);
    for (i, (_, frame)) in frames().iter().enumerate() {
        let routes: Vec<_> = (0..i as u32).map(|n| Route::new(n, n + 1)).collect();
        appender.append(Kind::Event, &routes, frame, 20);
    }
    let group = appender.take().unwrap();
    let log = group.bytes[BLOCK_BYTES..].to_vec();
    let mut damaged = log.clone();
    damaged[200] ^= 1;
    let mut torn = log[..log.len() - 9].to_vec();
    torn.resize(log.len() + 64, 0);
    let mut lengths = vec![0; 256];
    for at in (0..256).step_by(16) {
        lengths[at + 4..at + 8].copy_from_slice(&(record::RECORD_BYTES_MAX as u32).to_le_bytes());
    }
    let mut header = vec![0; BLOCK_BYTES];
    group.new_segment.unwrap().encode(&mut header);
    assert!(SegmentHeader::decode(&header).is_ok());
    header.truncate(64);
    let mut lane = Cursor::at(5);
    lane.done(8);
    let cursors = Cursors {
        generation: 2,
        next_sequence: 9,
        clock_ceiling_ns: 10,
        lanes: [(1, lane), (2, Cursor::at(0))].into(),
        sections: [(1, vec![9; 8])].into(),
    };
    let letter = DeadLetter {
        destination: 1,
        rule: 2,
        sequence: 3,
        incarnation: 4,
        attempts: 5,
        first_ns: 6,
        last_ns: 7,
        status: 503,
        reason: "it said é",
        answer: &[],
        frame: &frames()[0].1,
    };
    vec![
        ("log", log),
        ("damaged", damaged),
        ("torn", torn),
        ("lengths", lengths),
        ("header", header),
        ("cursors", cursors.encode()),
        ("dead-letter", letter.encode()),
        ("dead-letter-answered", DeadLetter { answer: b"<p>busy", ..letter }.encode()),
        ("short", vec![0; 10]),
    ]
}

/// The formats change; the inputs go with them. To write them anew, run with `TIDEWIRE_WRITE_CORPUS=1`.
#[test]
fn the_binary_inputs_are_in_the_present_format() {
    for (target, inputs) in [("frame", frames()), ("segment", segments())] {
        for (name, now) in inputs {
            let path = corpus(target).join(name);
            if std::env::var_os("TIDEWIRE_WRITE_CORPUS").is_some() {
                std::fs::create_dir_all(corpus(target)).unwrap();
                std::fs::write(&path, &now).unwrap();
            }
            let kept = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            assert!(kept == now, "{} is not as it would be written now", path.display());
        }
    }
}
