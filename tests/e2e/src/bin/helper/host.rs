//! A host that tells of its operations through reservations, and may be killed at any point. Its operation is a line in a
//! journal: what is in there came to be, and nothing else did.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use tidewire::event::frame::Field;
use tidewire::{
    Ack, CommitFields, CommitOptions, Engine, Event, Intent, KnownType, OnFull, ReserveOptions, Reserved, Resolution,
};
use tidewire_e2e::{BUCKET, config, hook, rules};

const THREADS: u64 = 4;
const KEYS_PER_THREAD: u64 = 5;
const LIMIT: Duration = Duration::from_secs(30);

/// Operations `first..first + count`; every fifth fails.
pub fn run(dir: &Path, journal: &Path, url: &str, first: u64, count: u64) {
    let engine = Engine::open_with(config(dir, 2), rules(vec![hook("hook", url)])).expect("an engine");
    let done = done(journal);
    for doubt in engine.in_doubt().expect("a list") {
        let declared = doubt.event();
        let n: u64 = declared.text(Field::RequestId).parse().expect("a number");
        let key = String::from_utf8(declared.key().to_vec()).expect("a key");
        let event = event(&key, declared.text(Field::RequestId), Some(n));
        let resolution = if done.contains(&n) { Resolution::Commit(&event) } else { Resolution::Abort };
        engine.resolve(doubt.token, resolution).expect("resolved");
    }
    println!("working");
    let journal = OpenOptions::new().create(true).append(true).open(journal).expect("the journal");
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (engine, journal) = (&engine, &journal);
            scope.spawn(move || {
                for n in (first + thread..first + count).step_by(THREADS as usize) {
                    operation(engine, journal, thread, n);
                }
            });
        }
    });
    engine.flush(LIMIT).expect("delivered");
    engine.close(LIMIT).expect("closed");
}

/// What came to be, as the journal says.
pub fn done(journal: &Path) -> HashSet<u64> {
    let text = fs::read_to_string(journal).unwrap_or_default();
    text.lines().map(|line| line.parse().expect("a number")).collect()
}

fn event<'a>(key: &'a str, request_id: &'a str, size: Option<u64>) -> Event<'a> {
    let mut event = Event::new(KnownType::ObjectCreatedPut.into(), BUCKET, key.as_bytes());
    event.request_id = request_id;
    event.size = size;
    event
}

fn operation(engine: &Engine, mut journal: &File, thread: u64, n: u64) {
    let key = format!("t{thread}/{}", n / THREADS % KEYS_PER_THREAD);
    let request_id = n.to_string();
    let options = ReserveOptions {
        intent: Intent::Durable,
        on_full: OnFull::Block(LIMIT),
        ack_timeout: LIMIT,
        ..ReserveOptions::default()
    };
    let held = match engine.reserve(&event(&key, &request_id, None), &options).expect("a reservation") {
        Reserved::Held(held) => held,
        other => panic!("{other:?}"),
    };
    if n / THREADS % 5 == 4 {
        return held.abort().expect("aborted");
    }
    journal.write_all(format!("{n}\n").as_bytes()).expect("a line");
    let ack = if n.is_multiple_of(3) { Ack::Synced } else { Ack::Memory };
    let fields = CommitFields { size: Some(n), ..CommitFields::default() };
    held.commit(&fields, &CommitOptions { ack, ack_timeout: LIMIT }).expect("committed");
}
