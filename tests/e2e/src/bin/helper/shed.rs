//! Events that are shed while they come, until the process is killed.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tidewire::rule::OnQueueFull;
use tidewire::{Ack, DeadLetterFilter, Engine, Event, KnownType, RedriveOptions};
use tidewire_e2e::{BUCKET, config, hook, options, rules};

/// Publishes events numbered from `first`, more than the queue takes, and prints the number of each that was acknowledged.
/// Dead letters are put back all the time.
pub(crate) fn run(dir: &Path, url: &str, policy: &str, first: &str) {
    let mut destination = hook("hook", url);
    destination.queue.events_max = Some(150);
    destination.queue.on_full = OnQueueFull::parse(policy).expect("a policy");
    let mut config = config(dir, 2);
    // Shedding in memory and from the files.
    config.delivery.lane_events_max = 64;
    let engine = Engine::open_with(config, rules(vec![destination])).expect("an engine");
    let next = AtomicU64::new(first.parse().expect("a number"));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    let key = format!("k{n}");
                    let event = Event::new(KnownType::ObjectCreatedPut.into(), BUCKET, key.as_bytes());
                    engine.publish_with(&event, &options(Ack::Synced)).expect("it is taken");
                    println!("{n}");
                }
            });
        }
        loop {
            std::thread::sleep(Duration::from_millis(30));
            let mut redrive =
                engine.redrive(&DeadLetterFilter::default(), &RedriveOptions::default()).expect("a redrive");
            let _ = redrive.wait(Instant::now() + Duration::from_millis(200));
            redrive.stop();
        }
    });
}
