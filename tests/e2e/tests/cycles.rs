//! Opening and closing many times leaves nothing behind in the process. The only test of its process: it counts what the
//! process has.

use std::time::Duration;

use tidewire::Ack;
use tidewire_e2e::{Held, engine, keys, publish, receiver, wait_until};
use tidewire_receiver::Behaviour;

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
