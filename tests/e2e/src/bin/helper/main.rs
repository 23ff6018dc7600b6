//! What a test needs a process of its own for: a filter on system calls, a mount namespace, a crash.
//!
//! `helper MODE DIRECTORY ...` prints what it found on its standard output, the last line being `OK` if that is as it
//! should be.

mod disk;
mod failing;
mod golden;
mod host;
mod shed;

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use seccompiler::{SeccompAction, SeccompFilter};
use tidewire::rule::Order;
use tidewire::{Ack, Engine, Event, KnownType};
use tidewire_e2e as e2e;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["seccomp", errno, dir] => seccomp(errno, Path::new(dir)),
        ["open", dir] => open(Path::new(dir)),
        ["full", dir] => disk::full(Path::new(dir)),
        ["full-at-start", dir] => disk::full_at_start(Path::new(dir)),
        ["read-only", dir] => disk::read_only(Path::new(dir)),
        ["shed", dir, url, policy, first] => shed::run(Path::new(dir), url, policy, first),
        ["limit", dir] => failing::limit(Path::new(dir)),
        ["aborted", dir] => failing::aborted(Path::new(dir)),
        ["power", dir] => failing::power(Path::new(dir)),
        ["use", dir] => failing::works(Path::new(dir)),
        ["publish", dir, shards, url, first, rounds] => publish(Path::new(dir), shards, url, first, rounds),
        ["golden", dir, expected] => golden::write(Path::new(dir), Path::new(expected)),
        ["host", dir, journal, url, first, count] => host::run(
            Path::new(dir),
            Path::new(journal),
            url,
            first.parse().expect("a number"),
            count.parse().expect("a number"),
        ),
        ["strict", dir, url, first, count] => {
            strict(Path::new(dir), url, first.parse().expect("a number"), count.parse().expect("a number"));
        }
        _ => panic!("unknown arguments {args:?}"),
    }
    println!("OK");
}

/// Opens an engine and holds it until the standard input ends.
fn open(dir: &Path) {
    match e2e::engine(dir, "http://127.0.0.1:9/") {
        Ok(engine) => {
            println!("open");
            let _ = std::io::stdin().read(&mut [0]);
            drop(engine);
        }
        Err(e) => println!("{e:?}"),
    }
}

/// Publishes events `first..first + count` to a destination with one order for all, and prints the number of each that is
/// acknowledged as durable.
fn strict(dir: &Path, url: &str, first: u64, count: u64) {
    const THREADS: u64 = 3;
    let mut hook = e2e::hook("hook", url);
    hook.order = Order::Strict;
    let engine = Engine::open_with(e2e::config(dir, 3), e2e::rules(vec![hook])).expect("an engine");
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let engine = &engine;
            scope.spawn(move || {
                for n in (first + thread..first + count).step_by(THREADS as usize) {
                    let key = format!("t{thread}/{}", n / THREADS % 7);
                    let mut event = Event::new(KnownType::ObjectCreatedPut.into(), e2e::BUCKET, key.as_bytes());
                    event.size = Some(n);
                    engine.publish_with(&event, &e2e::options(Ack::Synced)).expect("published");
                    println!("{n}");
                }
            });
        }
    });
    engine.flush(Duration::from_secs(60)).expect("delivered");
    engine.close(Duration::from_secs(10)).expect("closed");
}

/// Publishes rounds of events, each durable, of the keys `key 0` to `key 29`, and tells of each round by a line `acked N`;
/// then holds the engine until the standard input ends.
fn publish(dir: &Path, shards: &str, url: &str, first: &str, rounds: &str) {
    let number = |text: &str| text.parse::<u64>().expect("a number");
    let mut config = e2e::config(dir, number(shards) as usize);
    config.delivery.lane_events_max = 64;
    let engine = tidewire::Engine::open_with(config, e2e::rules(vec![e2e::hook("hook", url)])).expect("an engine");
    println!("open");
    let keys = e2e::keys("key ", 30);
    for n in number(first)..number(first) + number(rounds) {
        e2e::publish(&engine, &keys, n, 1, tidewire::Ack::Memory).expect("published");
        // Once more with the last, for the acknowledgement of all of them: one shard's says nothing of another's.
        let receipts: Vec<_> = keys
            .iter()
            .filter_map(|key| {
                let event =
                    tidewire::Event::new(tidewire::KnownType::ObjectRemovedDelete.into(), e2e::BUCKET, key.as_bytes());
                engine.submit(&event, &e2e::options(tidewire::Ack::Synced)).expect("published")
            })
            .collect();
        for receipt in receipts {
            receipt.wait(tidewire::Ack::Synced, None).expect("durable");
        }
        println!("acked {n}");
    }
    let _ = std::io::stdin().read(&mut [0]);
}

/// Opens an engine where `io_uring_setup` is refused, as container runtimes do.
fn seccomp(errno: &str, dir: &Path) {
    let errno = match errno {
        "EPERM" => libc::EPERM,
        "ENOSYS" => libc::ENOSYS,
        _ => panic!("unknown errno {errno}"),
    };
    let refused = BTreeMap::from([(libc::SYS_io_uring_setup, Vec::new())]);
    let action = SeccompAction::Errno(errno.unsigned_abs());
    let arch = std::env::consts::ARCH.try_into().expect("an architecture");
    let filter = SeccompFilter::new(refused, SeccompAction::Allow, action, arch).expect("a filter");
    let program: seccompiler::BpfProgram = filter.try_into().expect("a program");
    seccompiler::apply_filter(&program).expect("the filter applied");
    match e2e::engine(dir, "http://127.0.0.1:9/") {
        Ok(_) => panic!("opened without io_uring"),
        Err(e) => println!("{e:?}"),
    }
}
