//! Disks that fail while an engine writes, and places that are no ordinary disk.
//!
//! The file systems are images in loop devices, mounted in a mount namespace of this process.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tidewire::{Ack, Engine, Error, ErrorKind, Event, KnownType};
use tidewire_e2e::{BUCKET, config, hook, options, receiver, rules, wait_for_stats, wait_until};
use tidewire_receiver::{Behaviour, Receiver, check_per_key_order};

const DATA_BYTES: usize = 2 << 10;
const PATIENCE: Duration = Duration::from_secs(30);

/// What was acknowledged as durable: numbers, each of which is the key and the size of an event.
#[derive(Default)]
struct Acknowledged(BTreeSet<u64>);

impl Acknowledged {
    /// Publishes events with these numbers, up to ten at a time, until one is not acknowledged.
    fn publish(&mut self, engine: &Engine, numbers: Range<u64>) -> Option<Error> {
        let data = format!("\"{}\"", "x".repeat(DATA_BYTES));
        for first in numbers.clone().step_by(10) {
            let mut receipts = Vec::new();
            for n in first..(first + 10).min(numbers.end) {
                let key = format!("key {}", n % 50);
                let mut event = Event::new(KnownType::ObjectCreatedPut.into(), BUCKET, key.as_bytes());
                event.size = Some(n);
                event.data = data.as_bytes();
                match engine.submit(&event, &options(Ack::Synced)) {
                    Ok(receipt) => receipts.extend(receipt.map(|r| (n, r))),
                    Err(e) => return Some(e),
                }
            }
            for (n, receipt) in receipts {
                match receipt.wait(Ack::Synced, Some(Instant::now() + PATIENCE)) {
                    Ok(()) => self.0.insert(n),
                    Err(e) => return Some(e),
                };
            }
        }
        None
    }

    /// Waits until all of them have arrived, and checks the order.
    fn check(&self, receiver: &Receiver, published: u64) {
        let got =
            || -> BTreeSet<u64> { receiver.records().iter().filter(|r| r.accepted).filter_map(|r| r.size).collect() };
        wait_until(PATIENCE, || receiver.accepted() >= self.0.len() && self.0.is_subset(&got()));
        let got = got();
        let missing: Vec<&u64> = self.0.difference(&got).collect();
        println!("{} acknowledged, {} of them lost", self.0.len(), missing.len());
        assert!(missing.is_empty(), "lost: {missing:?}");
        assert!(got.iter().all(|n| *n < published), "an event that nobody published");
        assert_eq!(check_per_key_order(&receiver.records()), []);
    }
}

fn open(dir: &Path, receiver: &Receiver) -> Engine {
    Engine::open_with(config(dir, 1), rules(vec![hook("hook", &receiver.url())])).expect("an engine")
}

/// The log must have failed for this reason, say so to everybody, and go on saying so.
fn assert_failed(engine: &Engine, first: &Error, words: &[&str]) {
    println!("{first:?}");
    assert_eq!(first.kind(), ErrorKind::LogFailed);
    for w in words.iter().chain(&["takes no more events", "open the engine again", "synced is kept"]) {
        assert!(first.to_string().contains(w), "{w}: {first}");
    }
    for _ in 0..3 {
        let e = Acknowledged::default().publish(engine, 0..1).expect("a log that failed");
        assert_eq!((e.kind(), e.to_string()), (ErrorKind::LogFailed, first.to_string()));
        assert_eq!(engine.stats().unhealthy, [first.to_string()]);
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn close_failed(engine: &Engine) {
    assert_eq!(engine.close(Duration::from_millis(200)).expect_err("it had failed").kind(), ErrorKind::LogFailed);
}

/// The largest size of a file for this process.
fn limit_files(bytes: u64) {
    let limit = libc::rlimit { rlim_cur: bytes, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: the pointer is to a limit that lives as long as the call.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_FSIZE, &limit) }, 0);
}

/// A limit on the size of files: smaller than a segment, then too small for any.
pub fn limit(dir: &Path) {
    let data = dir.join("data");
    let receiver = receiver(Behaviour::Status(503));
    let mut acknowledged = Acknowledged::default();
    limit_files((600 << 10) + 1000);
    let engine = open(&data, &receiver);
    assert!(acknowledged.publish(&engine, 0..1500).is_none(), "segments end where the limit is");
    let stats = engine.stats();
    println!("{} moves to a new segment, {} segments", stats.log_moves, stats.segments);
    assert!(stats.log_moves >= 4 && stats.unhealthy.is_empty());

    limit_files(0);
    let e = acknowledged.publish(&engine, 1500..1510).expect("no file may grow");
    assert_failed(&engine, &e, &["File too large", "ulimit -f"]);
    limit_files(libc::RLIM_INFINITY);
    assert_failed(&engine, &e, &["File too large"]);
    close_failed(&engine);

    receiver.set_behaviour(Behaviour::Ok204);
    let engine = open(&data, &receiver);
    assert!(acknowledged.publish(&engine, 1600..1700).is_none());
    acknowledged.check(&receiver, 1700);
    engine.close(PATIENCE).expect("closed");
}

/// A file system of its own in an image.
struct Image {
    file: PathBuf,
    at: PathBuf,
}

fn run(command: &str, args: &[&Path]) {
    let status = Command::new(command).args(args).status().expect("a command");
    assert!(status.success(), "{command} {args:?}: {status}");
}

impl Image {
    fn make(dir: &Path) -> Image {
        let (file, at) = (dir.join("image"), dir.join("mounted"));
        File::create(&file).and_then(|f| f.set_len(96 << 20)).expect("an image");
        fs::create_dir(&at).expect("a directory");
        run("mkfs.ext4", &[Path::new("-q"), Path::new("-F"), &file]);
        let image = Image { file, at };
        image.mount();
        image
    }

    fn mount(&self) {
        run("mount", &[Path::new("-o"), Path::new("loop"), &self.file, &self.at]);
    }

    fn unmount(&self) {
        // A thread that has just ended may still be closing its files.
        let gone = || Command::new("umount").arg(&self.at).status().is_ok_and(|s| s.success());
        assert!(wait_until(PATIENCE, gone), "cannot unmount");
    }

    /// Makes the file system refuse everything from now on and forget what its journal does not hold durably.
    fn lose_power(&self) {
        const SHUTDOWN: libc::c_ulong = 0x8004_587d;
        const NO_LOG_FLUSH: u32 = 2;
        let root = File::open(&self.at).expect("the root");
        // SAFETY: the call reads four bytes.
        let result = unsafe { libc::ioctl(root.as_raw_fd(), SHUTDOWN, &NO_LOG_FLUSH) };
        assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    }
}

/// A file system that gives up and becomes read-only, as after an error of the disk, and is mended.
pub fn aborted(dir: &Path) {
    let image = Image::make(dir);
    let data = image.at.join("data");
    let receiver = receiver(Behaviour::Status(503));
    let mut acknowledged = Acknowledged::default();
    let engine = open(&data, &receiver);
    assert!(acknowledged.publish(&engine, 0..200).is_none());
    run("mount", &[Path::new("-o"), Path::new("remount,abort"), &image.at]);
    let e = acknowledged.publish(&engine, 200..300).expect("a read-only file system");
    assert_failed(&engine, &e, &["Read-only file system", "writable"]);
    close_failed(&engine);
    drop(engine);
    image.unmount();
    image.mount();

    let engine = open(&data, &receiver);
    receiver.set_behaviour(Behaviour::Ok204);
    assert!(acknowledged.publish(&engine, 300..400).is_none());
    acknowledged.check(&receiver, 400);
    engine.close(PATIENCE).expect("closed");
    drop(engine);
    image.unmount();
}

/// Power is lost in the middle of everything, again and again; segments are small, so that files are made, named anew and
/// removed all the time.
pub fn power(dir: &Path) {
    let rounds: u64 = if std::env::var_os("TIDEWIRE_LONG").is_some() { 200 } else { 6 };
    let image = Image::make(dir);
    let data = image.at.join("data");
    let receiver = receiver(Behaviour::Ok204);
    let mut acknowledged = Acknowledged::default();
    let mut number = 0;
    for round in 0..rounds {
        let engine = open(&data, &receiver);
        let off = AtomicBool::new(false);
        std::thread::scope(|s| {
            s.spawn(|| {
                std::thread::sleep(Duration::from_millis(100 + round * 7919 % 400));
                image.lose_power();
                off.store(true, Ordering::SeqCst);
            });
            loop {
                let e = acknowledged.publish(&engine, number..number + 50);
                number += 50;
                if e.is_some() {
                    break;
                }
            }
        });
        let s = engine.stats();
        println!("round {round}: {number} published, {} segments, {} bytes", s.segments, s.log_disk_bytes);
        assert!(off.load(Ordering::SeqCst));
        close_failed(&engine);
        drop(engine);
        image.unmount();
        image.mount();
    }
    let engine = open(&data, &receiver);
    acknowledged.check(&receiver, number);
    wait_for_stats(&engine, "all delivered", |s| s.waiting == 0);
    engine.close(PATIENCE).expect("closed");
    drop(engine);
    image.unmount();
}

/// Whatever is here: events are kept through closing and delivered, and the files of passed segments serve again.
pub fn works(dir: &Path) {
    let data = dir.join("data");
    let receiver = receiver(Behaviour::Status(503));
    let mut acknowledged = Acknowledged::default();
    let engine = open(&data, &receiver);
    assert!(acknowledged.publish(&engine, 0..1500).is_none());
    engine.close(Duration::ZERO).expect("closed");
    let engine = open(&data, &receiver);
    assert!(engine.stats().segments > 2);
    receiver.set_behaviour(Behaviour::Ok204);
    for part in 0..6 {
        let first = 1500 + part * 800;
        assert!(acknowledged.publish(&engine, first..first + 800).is_none());
        engine.flush(PATIENCE).expect("flushed");
    }
    acknowledged.check(&receiver, 6300);
    wait_for_stats(&engine, "passed segments are gone", |s| s.segments <= 2);
    println!("{} bytes of files", engine.stats().log_disk_bytes);
    assert!(engine.stats().log_disk_bytes <= 6 << 20);
    engine.close(PATIENCE).expect("closed");
}
