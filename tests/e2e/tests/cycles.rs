//! Opening and closing many times leaves nothing behind in the process. The only test of its process: it counts what the
//! process has.

use std::fs;
use std::time::Duration;

use tidewire::Ack;
use tidewire_e2e::{engine, keys, publish, receiver, wait_until};
use tidewire_receiver::Behaviour;

/// What the process holds: descriptors, threads, pinned and locked memory in kB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Held {
    descriptors: usize,
    threads: usize,
    pinned_kb: u64,
    locked_kb: u64,
}

impl Held {
    fn now() -> Held {
        let count = |dir: &str| fs::read_dir(dir).expect("procfs").count();
        let status = fs::read_to_string("/proc/self/status").expect("procfs");
        let field = |name: &str| {
            let line = status.lines().find_map(|l| l.strip_prefix(name)).expect("the field");
            line.trim().trim_end_matches(" kB").parse().expect("a number")
        };
        Held {
            descriptors: count("/proc/self/fd"),
            threads: count("/proc/self/task"),
            pinned_kb: field("VmPin:"),
            locked_kb: field("VmLck:"),
        }
    }

    fn within(self, limit: Held) -> bool {
        self.descriptors <= limit.descriptors
            && self.threads <= limit.threads
            && self.pinned_kb <= limit.pinned_kb
            && self.locked_kb <= limit.locked_kb
    }
}

#[test]
fn a_hundred_engines_leave_nothing_behind() {
    let dir = tempfile::tempdir().expect("a directory");
    let receiver = receiver(Behaviour::Ok204);
    let keys = keys("key", 10);
    let before = Held::now();
    let mut most = before;
    for round in 0..100 {
        let engine = engine(dir.path(), &receiver.url()).expect("an engine");
        publish(&engine, &keys, round, 1, Ack::Memory).expect("published");
        if round % 10 == 0 {
            engine.flush(Duration::from_secs(20)).expect("flushed");
            let now = Held::now();
            most = Held {
                descriptors: most.descriptors.max(now.descriptors),
                threads: most.threads.max(now.threads),
                ..now
            };
            // Every other way to close: the last handle goes.
            drop(engine);
        } else {
            engine.close(Duration::from_secs(20)).expect("closed");
        }
    }
    assert_eq!(receiver.accepted(), 1000);
    // The receiver sees its connections closed a little later, and the kernel takes rings down in its own time.
    let back = wait_until(Duration::from_secs(10), || Held::now().within(before));
    println!("before {before:?}, at most {most:?}, after {:?}", Held::now());
    assert!(back, "before {before:?}, after {:?}", Held::now());
}
