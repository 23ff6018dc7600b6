//! What waits for each destination, all shards together, and what publishers must know of it.
//!
//! Shards add and take away; whoever changes a level tells the rest. Publishers look at one flag, which is set only while
//! some queue that refuses or blocks is under pressure.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use crossbeam_utils::CachePadded;

use crate::config::QueueConfig;
use crate::delivery::account::Sum;
use crate::delivery::quota::{Level, Limits, Load};
use crate::driver;
use crate::event::Priority;
use crate::fork::ForkGuard;
use crate::lock::{Condvar, Mutex};
use crate::rule::{OnQueueFull, QueueLimits};
use crate::shared::Server;

use super::entrance::Entrance;

/// What happens to an event for which a queue has no place.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Rules {
    pub(crate) limits: Limits,
    pub(crate) on_full: OnQueueFull,
    pub(crate) block_timeout: Duration,
}

impl From<&QueueLimits> for Rules {
    fn from(q: &QueueLimits) -> Rules {
        Rules { limits: q.into(), on_full: q.on_full, block_timeout: q.block_timeout }
    }
}

impl Rules {
    fn of_log(q: &QueueConfig) -> Rules {
        let limits = Limits { events_max: None, bytes_max: q.bytes_max.unwrap_or(u64::MAX), warn_at: q.warn_at };
        Rules { limits, on_full: q.on_full, block_timeout: q.block_timeout }
    }
}

/// One queue: a destination's, or all logs.
#[derive(Debug)]
pub(crate) struct Queue {
    rules: Mutex<Rules>,
    events: AtomicI64,
    bytes: AtomicI64,
    level: AtomicU8,
    warned: AtomicBool,
    /// Events refused to publishers.
    pub(crate) refused: AtomicU64,
}

impl Queue {
    fn new(rules: Rules) -> Queue {
        Queue {
            rules: Mutex::new(rules),
            events: AtomicI64::new(0),
            bytes: AtomicI64::new(0),
            level: AtomicU8::new(0),
            warned: AtomicBool::new(false),
            refused: AtomicU64::new(0),
        }
    }

    /// What a replay's lane has for a queue: its events wait in the log without being counted.
    pub(crate) fn of_replay() -> Arc<Queue> {
        Arc::new(Queue::new(Rules::from(&QueueLimits::default())))
    }

    pub(crate) fn rules(&self) -> Rules {
        *self.rules.lock()
    }

    pub(crate) fn load(&self) -> Load {
        let n = |a: &AtomicI64| a.load(Ordering::Relaxed).max(0) as u64;
        Load { events: n(&self.events), bytes: n(&self.bytes) }
    }

    /// What there is room for.
    pub(crate) fn room(&self) -> Sum {
        let limits = self.rules.lock().limits;
        let left = |max: u64, n: u64| i64::try_from(max.saturating_sub(n)).unwrap_or(i64::MAX);
        let load = self.load();
        Sum {
            events: left(limits.events_max.unwrap_or(u64::MAX), load.events),
            bytes: left(limits.bytes_max, load.bytes),
        }
    }

    pub(crate) fn level(&self) -> Level {
        Level::from_u8(self.level.load(Ordering::Relaxed))
    }

    /// Whether the warning threshold was reached, and has not been left behind since.
    pub(crate) fn is_warned(&self) -> bool {
        self.warned.load(Ordering::Relaxed)
    }
}

/// All queues of an engine.
#[derive(Debug)]
pub(crate) struct Queues {
    /// Tells other processes whether they must ask. Weak, because it knows the shards.
    server: OnceLock<Weak<Server>>,
    /// Where publishers look whether some queue may tell them no.
    entrance: ForkGuard<Entrance>,
    /// Some queue may drop what is new.
    dropping: CachePadded<AtomicBool>,
    by_number: Mutex<BTreeMap<u32, Arc<Queue>>>,
    /// The files of all logs.
    pub(crate) log: Queue,
    log_limited: bool,
    /// Of each shard's log.
    log_bytes: Vec<AtomicU64>,
    freed_lock: Mutex<()>,
    freed: Condvar,
}

impl Queues {
    pub(crate) fn new(config: &QueueConfig, shards: usize, entrance: ForkGuard<Entrance>) -> Queues {
        Queues {
            server: OnceLock::new(),
            entrance,
            dropping: CachePadded::new(AtomicBool::new(false)),
            by_number: Mutex::default(),
            log: Queue::new(Rules::of_log(config)),
            log_limited: config.bytes_max.is_some(),
            log_bytes: (0..shards).map(|_| AtomicU64::new(0)).collect(),
            freed_lock: Mutex::new(()),
            freed: Condvar::new(),
        }
    }

    /// Has other processes told what publishers here are told.
    pub(crate) fn watch(&self, server: &Arc<Server>) {
        let _ = self.server.set(Arc::downgrade(server));
        self.tell();
    }

    /// Whether a publisher must look whether there is a place for its event.
    #[cfg(test)]
    fn is_telling(&self) -> bool {
        self.entrance.get().unwrap().queues_tell()
    }

    /// Whether a shard must look whether a new event is to be dropped.
    #[inline]
    pub(crate) fn is_dropping(&self) -> bool {
        self.dropping.load(Ordering::Relaxed)
    }

    /// Whether the logs have a limit of their own.
    pub(crate) fn is_log_limited(&self) -> bool {
        self.log_limited
    }

    pub(crate) fn get(&self, number: u32) -> Option<Arc<Queue>> {
        self.by_number.lock().get(&number).cloned()
    }

    /// The queue of a destination, made if need be. A destination that is gone has none of its own rules: what waits for it
    /// is on its way into the dead letters.
    pub(crate) fn of(&self, number: u32, limits: Option<&QueueLimits>) -> Arc<Queue> {
        let rules = Rules::from(limits.unwrap_or(&QueueLimits::default()));
        self.by_number.lock().entry(number).or_insert_with(|| Arc::new(Queue::new(rules))).clone()
    }

    /// Takes changed rules.
    pub(crate) fn configure(&self, queue: &Queue, limits: &QueueLimits) {
        let rules = Rules::from(limits);
        if std::mem::replace(&mut *queue.rules.lock(), rules) != rules {
            self.look(queue, || "a destination".to_owned());
            self.tell();
        }
    }

    /// Adds to what waits, or takes from it.
    pub(crate) fn add(&self, queue: &Queue, change: Sum, name: impl Fn() -> String) {
        queue.events.fetch_add(change.events, Ordering::Relaxed);
        queue.bytes.fetch_add(change.bytes, Ordering::Relaxed);
        self.look(queue, name);
    }

    /// Sets the bytes of one shard's log.
    pub(crate) fn set_log_bytes(&self, shard: usize, bytes: u64) {
        if let Some(own) = self.log_bytes.get(shard) {
            own.store(bytes, Ordering::Relaxed);
        }
        let all: u64 = self.log_bytes.iter().map(|b| b.load(Ordering::Relaxed)).sum();
        self.log.bytes.store(i64::try_from(all).unwrap_or(i64::MAX), Ordering::Relaxed);
        self.look(&self.log, || "the log".to_owned());
    }

    /// Looks how full a queue is now.
    pub(crate) fn look(&self, queue: &Queue, name: impl Fn() -> String) {
        let limits = queue.rules.lock().limits;
        let load = queue.load();
        let level = limits.level(load);
        let before = Level::from_u8(queue.level.swap(level as u8, Ordering::SeqCst));
        if before != level {
            self.tell();
            if level < before {
                let _guard = self.freed_lock.lock();
                self.freed.notify_all();
            }
        }
        let warned = queue.is_warned();
        let warns = limits.warns(load, warned);
        if warns != warned && queue.warned.compare_exchange(warned, warns, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
            let (name, Load { events, bytes }) = (name(), load);
            if warns {
                let of = limits.events_max.map_or(String::new(), |max| format!(" of {max}"));
                let max = limits.bytes_max;
                log::warn!(
                    "the queue of {name} is filling up: {events}{of} events and {bytes} of {max} bytes wait; when it is \
                     full: {}",
                    queue.rules.lock().on_full.name()
                );
            } else {
                log::info!("the queue of {name} has room again");
            }
        }
    }

    /// Sets the flags by what the queues are at.
    fn tell(&self) {
        let by_number = self.by_number.lock();
        let any = |which: &dyn Fn(OnQueueFull) -> bool| {
            by_number
                .values()
                .map(Arc::as_ref)
                .chain([&self.log])
                .any(|q| q.level() > Level::Free && which(q.rules.lock().on_full))
        };
        if let Some(entrance) = self.entrance.get() {
            let tells = any(&OnQueueFull::is_told);
            entrance.tell(Entrance::QUEUES, tells);
            if let Some(server) = self.server.get().and_then(Weak::upgrade) {
                server.queues_tell(tells);
            }
        }
        self.dropping.store(any(&|p| p == OnQueueFull::DropNewest), Ordering::SeqCst);
    }

    /// Whether a new event has no place in a queue that drops what is new.
    pub(crate) fn drops(&self, queue: &Queue, priority: Priority) -> bool {
        queue.level().excludes(priority) && queue.rules.lock().on_full == OnQueueFull::DropNewest
    }

    /// Waits a moment for a queue to become less full, at most until `deadline`. Whether there is time left.
    pub(crate) fn wait(&self, deadline: Instant) -> bool {
        // Short rounds: a word that was missed costs a moment, never the deadline.
        let round = driver::now() + Duration::from_millis(10);
        drop(self.freed.wait_until(self.freed_lock.lock(), round.min(deadline)));
        driver::now() < deadline
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::snapshot::Everywhere;

    fn entrance() -> ForkGuard<Entrance> {
        ForkGuard::new(Entrance::new(Everywhere::default(), 0))
    }

    fn queues() -> Queues {
        Queues::new(&QueueConfig::default(), 2, entrance())
    }

    fn limits(on_full: OnQueueFull) -> QueueLimits {
        QueueLimits { events_max: Some(10), on_full, ..QueueLimits::default() }
    }

    #[test]
    fn publishers_are_told_only_while_a_queue_that_refuses_is_under_pressure() {
        let q = queues();
        let shedding = q.of(1, Some(&limits(OnQueueFull::DropOldest)));
        let refusing = q.of(2, Some(&limits(OnQueueFull::Refuse)));
        let name = || "x".to_owned();
        q.add(&shedding, Sum { events: 50, bytes: 5000 }, name);
        assert!(shedding.level() == Level::Over && !q.is_telling() && !q.is_dropping());
        q.add(&refusing, Sum { events: 8, bytes: 80 }, name);
        assert!(q.is_telling());
        q.add(&refusing, Sum { events: -1, bytes: -10 }, name);
        assert!(!q.is_telling());
        q.configure(&shedding, &limits(OnQueueFull::Block));
        assert!(q.is_telling());
        q.configure(&shedding, &limits(OnQueueFull::DropNewest));
        assert!(!q.is_telling() && q.is_dropping() && q.drops(&shedding, Priority::High));
        q.add(&shedding, Sum { events: -50, bytes: -5000 }, name);
        assert!(!q.is_dropping());
    }

    #[test]
    fn what_is_taken_before_it_is_counted_is_no_debt() {
        let q = queues();
        let a = q.of(1, None);
        q.add(&a, Sum { events: -5, bytes: -50 }, || "x".to_owned());
        assert_eq!(a.load(), Load::default());
        q.add(&a, Sum { events: 7, bytes: 70 }, || "x".to_owned());
        assert_eq!(a.load(), Load { events: 2, bytes: 20 });
    }

    #[test]
    fn the_logs_of_all_shards_are_one_queue() {
        let config = QueueConfig { bytes_max: Some(1000), on_full: OnQueueFull::Refuse, ..QueueConfig::default() };
        let q = Queues::new(&config, 2, entrance());
        q.set_log_bytes(0, 600);
        assert!(!q.is_telling());
        q.set_log_bytes(1, 600);
        assert!(q.is_telling() && q.log.level() == Level::Over);
        q.set_log_bytes(0, 100);
        assert!(!q.is_telling());
    }
}
