//! Disks that are full or cannot be written. The directory is the only thing on a file system of 4 MiB, in a mount
//! namespace of this process.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use tidewire::{Ack, Engine, ErrorKind, Event, KnownType, OnFull, PublishOptions};
use tidewire_e2e::{BUCKET, config, engine, hook, receiver, rules, wait_for_stats, wait_until};
use tidewire_receiver::{Behaviour, Receiver, check_per_key_order};

const DATA_BYTES: usize = 8 << 10;
const SOON: PublishOptions = PublishOptions {
    ack: Ack::Synced,
    on_full: OnFull::Block(Duration::from_millis(200)),
    ack_timeout: Duration::from_millis(200),
    dedup_key: None,
};

/// What was published: how many of each key's events were accepted, and which of all were acknowledged as durable.
#[derive(Default)]
struct Published {
    accepted: u64,
    acknowledged: Vec<String>,
}

impl Published {
    /// Publishes large events, each with a key of its own: until one is accepted but not durable in time, and from then
    /// on without waiting, until one is refused.
    fn fill(&mut self, engine: &Engine) {
        let data = format!("\"{}\"", "x".repeat(DATA_BYTES));
        let mut publish = |options: &PublishOptions| {
            loop {
                let key = format!("key-{}", self.accepted);
                let mut event = Event::new(KnownType::ObjectCreatedPut.into(), BUCKET, key.as_bytes());
                event.data = data.as_bytes();
                match engine.publish_with(&event, options) {
                    Ok(_) => {
                        self.accepted += 1;
                        if options.ack == Ack::Synced {
                            self.acknowledged.push(key);
                        }
                    }
                    Err(e) => {
                        self.accepted += u64::from(e.kind() == ErrorKind::Timeout);
                        return e;
                    }
                }
            }
        };
        let errors = (publish(&SOON), publish(&PublishOptions { ack: Ack::Memory, ..SOON }));
        println!("full: {} acknowledged, {} accepted", self.acknowledged.len(), self.accepted);
        println!("  {:?}\n  {:?}", errors.0, errors.1);
        for e in [&errors.0, &errors.1] {
            assert!(e.to_string().contains("the log waits") && e.to_string().contains("No space left"), "{e}");
        }
        assert_eq!((errors.0.kind(), errors.1.kind()), (ErrorKind::Timeout, ErrorKind::Full));
    }
}

/// Takes the space that is left but for `spare` bytes.
fn ballast(dir: &Path, name: &str, bytes: usize) -> std::path::PathBuf {
    let path = dir.join(name);
    let mut file = fs::File::create(&path).expect("a file");
    for _ in 0..bytes / 4096 {
        if file.write_all(&[1; 4096]).is_err() {
            break;
        }
    }
    path
}

/// Closing must not wait for space.
fn close(engine: &Engine) {
    let started = Instant::now();
    let closed = engine.close(Duration::from_millis(500));
    println!("closed within {:?}: {closed:?}", started.elapsed());
    assert!(started.elapsed() < Duration::from_secs(5), "closing waits for the disk");
}

/// Publishing until the disk is full, going on when there is space, and closing and opening while there is none.
pub fn full(dir: &Path) {
    let first = ballast(dir, "ballast-1", 1280 << 10);
    let second = ballast(dir, "ballast-2", 1280 << 10);
    let data = dir.join("data");
    let receiver = receiver(Behaviour::Status(503));
    let open = || Engine::open_with(config(&data, 1), rules(vec![hook("hook", &receiver.url())]));
    let mut published = Published::default();

    let engine = open().expect("an engine");
    published.fill(&engine);
    assert!(!published.acknowledged.is_empty());
    let unhealthy = engine.stats().unhealthy;
    assert!(unhealthy.iter().any(|u| u.contains("No space left")), "{unhealthy:?}");

    // Room for about half of what waits: the log goes on by itself, and is full again.
    fs::remove_file(first).expect("space");
    let before = engine.stats().commits;
    wait_for_stats(&engine, "goes on by itself", |s| s.commits > before && !s.unhealthy.is_empty());
    close(&engine);

    let engine = open();
    println!("opened on the full disk: {:?}", engine.as_ref().map(|_| ()));
    match engine {
        Ok(engine) => {
            published.fill(&engine);
            close(&engine);
        }
        Err(e) => assert_eq!(e.kind(), ErrorKind::NoSpace, "{e}"),
    }

    fs::remove_file(second).expect("space");
    let engine = open().expect("an engine where there is space again");
    receiver.set_behaviour(Behaviour::Ok204);
    let all = |r: &Receiver| {
        let got: std::collections::HashSet<String> =
            r.records().into_iter().filter(|r| r.accepted).map(|r| r.key).collect();
        published.acknowledged.iter().filter(|k| !got.contains(*k)).count()
    };
    wait_until(Duration::from_secs(30), || all(&receiver) == 0);
    println!("{} acknowledged, {} of them lost", published.acknowledged.len(), all(&receiver));
    assert_eq!(all(&receiver), 0, "{:?}", engine.stats().destinations);
    let disorder = check_per_key_order(&receiver.records());
    assert!(disorder.is_empty(), "{disorder:?}");
    engine.close(Duration::from_secs(5)).expect("closed");
}

/// A new data directory where there is no space at all.
pub fn full_at_start(dir: &Path) {
    ballast(dir, "ballast", 8 << 20);
    let e = engine(&dir.join("data"), "http://127.0.0.1:9/").expect_err("a full disk");
    println!("{e:?}");
    assert_eq!(e.kind(), ErrorKind::NoSpace);
    assert!(e.to_string().contains("free space"), "{e}");
}

/// Data directories on a file system that has become read-only: one that is there, one that is not.
pub fn read_only(dir: &Path) {
    let data = dir.join("data");
    engine(&data, "http://127.0.0.1:9/").expect("an engine").close(Duration::ZERO).expect("closed");
    let status = Command::new("mount").args(["-o", "remount,ro"]).arg(dir).status().expect("mount");
    assert!(status.success());
    for path in [data, dir.join("another")] {
        let e = engine(&path, "http://127.0.0.1:9/").expect_err("a read-only directory");
        println!("{e:?}");
        assert_eq!(e.kind(), ErrorKind::ReadOnly);
        assert!(e.to_string().contains(&path.display().to_string()) && e.remedy_text().is_some(), "{e}");
    }
}
