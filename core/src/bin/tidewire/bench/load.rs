//! An engine under a load: as much as goes through, or so many events per second.
//!
//! At a rate, events are due at times that were fixed before, at random distances (a Poisson process), and every time counts
//! from when its event was due: an engine that keeps publishers waiting is not asked less often for it.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tidewire::config::EngineConfig;
use tidewire::event::EventTypes;
use tidewire::rule::{BatchLimits, Destination, DestinationKind, Rule, RuleSet, Webhook};
use tidewire::{Ack, Engine, Error, ErrorKind, Event, OnFull, PublishOptions, Receipt};

use super::receiver::{Arrived, Checksum, Receiver, cpu_time, histogram, id_of, monotonic_ns};
use super::workload::{Happening, Mix, Random, happenings, type_names, wishes};
use crate::Failure;

/// Different events of a load; they are published again and again.
const EVENTS: usize = 1 << 16;
/// How long everything may take to arrive at the end.
const PATIENCE: Duration = Duration::from_secs(120);
/// A publisher that goes as fast as it can stops when so many events have not arrived.
const WAITING_MAX: u64 = 100_000;
/// How often it is looked how many those are.
const LOOK: Duration = Duration::from_millis(2);
/// Events between two looks at how many those are.
const STRIDE: usize = 64;
/// A publisher has so many events at most that have not reached their ack level.
const WINDOW: usize = 8192;
const WARM_UP: Duration = Duration::from_millis(500);

/// What is measured.
#[derive(Clone, Debug)]
pub(super) struct Setup {
    pub(super) dir: PathBuf,
    pub(super) seed: u64,
    pub(super) ack: Ack,
    /// Threads that publish.
    pub(super) publishers: usize,
    pub(super) shards: Option<usize>,
    pub(super) batch: usize,
    pub(super) linger: Duration,
    /// Of each destination.
    pub(super) concurrency: usize,
    pub(super) destinations: usize,
    /// Rules beside the one that takes all events.
    pub(super) rules: usize,
}

/// How fast events are published.
#[derive(Clone, Copy, Debug)]
pub(super) enum Pace {
    /// As fast as they go through.
    Full,
    /// Events per second of all publishers.
    Rate(f64),
}

/// What became of a load.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) events: u64,
    /// From the first event until the last has arrived.
    pub(super) elapsed: Duration,
    /// Processor time of the engine's process but that of the publishers.
    pub(super) engine_cpu: Duration,
    /// What publishing itself takes, with the making of the events.
    pub(super) publishers_cpu: Duration,
    pub(super) receiver_cpu: Duration,
    /// From when an event was due until the call of `publish` was back.
    pub(super) called: Histogram<u64>,
    /// From when it was due until its ack level was reached; empty at `memory`.
    pub(super) acknowledged: Histogram<u64>,
    /// From when it was due until the receiver had read it.
    pub(super) received: Histogram<u64>,
    pub(super) requests: u64,
    pub(super) bytes: u64,
    /// Of the log, and how often it was synced meanwhile.
    pub(super) log_bytes: u64,
    pub(super) syncs: u64,
}

impl Run {
    pub(super) fn rate(&self) -> f64 {
        self.events as f64 / self.elapsed.as_secs_f64()
    }

    /// Nanoseconds of a processor for each event, publishing included.
    pub(super) fn cpu_ns_per_event(&self) -> f64 {
        (self.engine_cpu + self.publishers_cpu).as_nanos() as f64 / self.events.max(1) as f64
    }
}

/// An engine with its receiver.
pub(super) struct Bed {
    engine: Engine,
    receiver: Receiver,
    setup: Setup,
    events: Vec<Happening>,
    /// Removed at the end.
    _dir: tempfile::TempDir,
}

impl Bed {
    /// Opens the engine and warms it up.
    pub(super) fn new(setup: &Setup) -> Result<Bed, Failure> {
        let receiver = Receiver::start()?;
        let dir = tempfile::Builder::new().prefix("tidewire-bench-").tempdir_in(&setup.dir);
        let dir = dir.map_err(|e| Error::io(format!("cannot make a directory in {}", setup.dir.display()), &e))?;
        let mut config = EngineConfig::new(dir.path());
        config.shards = setup.shards;
        let engine = Engine::open_with(config, rules(setup, receiver.address())?)?;
        let events = happenings(EVENTS, setup.seed, setup.rules.max(100)).collect();
        let mut bed = Bed { engine, receiver, setup: setup.clone(), events, _dir: dir };
        bed.run(Pace::Full, WARM_UP)?;
        Ok(bed)
    }

    /// Publishes for so long, and waits until everything has arrived.
    ///
    /// # Errors
    /// If anything does not arrive, or arrives twice.
    pub(super) fn run(&mut self, pace: Pace, duration: Duration) -> Result<Run, Failure> {
        let before = self.engine.stats();
        let cpu = cpu_time(libc::RUSAGE_SELF);
        let (begun, begun_ns) = (Instant::now(), monotonic_ns());
        let end_ns = begun_ns + duration.as_nanos() as u64;
        let (arrived, ended) = (AtomicU64::new(0), AtomicBool::new(false));
        let (setup, engine, events, receiver) = (&self.setup, &self.engine, &self.events, &mut self.receiver);
        let done = std::thread::scope(|scope| {
            let publishers: Vec<_> = (0..setup.publishers)
                .map(|n| {
                    let publisher = Publisher { engine, events, setup, n, begun_ns, end_ns, arrived: &arrived };
                    std::thread::Builder::new()
                        .name("publisher".into())
                        .spawn_scoped(scope, move || publisher.run(pace))
                })
                .collect();
            let watching = scope.spawn(|| {
                while !ended.load(Ordering::Relaxed) {
                    arrived.store(receiver.count()? / setup.destinations as u64, Ordering::Relaxed);
                    std::thread::sleep(LOOK);
                }
                Ok(())
            });
            let mut done = Published::new();
            let mut failed = None;
            for publisher in publishers {
                match publisher.map_err(|e| Failure::from(Error::io("cannot start a publisher", &e))).and_then(joined) {
                    Ok(published) => done.add(&published),
                    Err(e) => failed = Some(e),
                }
            }
            let flushed = engine.flush(PATIENCE);
            ended.store(true, Ordering::Relaxed);
            joined::<()>(watching)?;
            flushed?;
            failed.map_or(Ok(done), Err)
        })?;
        let elapsed = begun.elapsed();
        let cpu = cpu_time(libc::RUSAGE_SELF) - cpu;
        let after = self.engine.stats();
        let Arrived { checksum, requests, bytes, cpu_us, times } = self.receiver.take()?;
        let expected = done.checksum.times(self.setup.destinations as u64);
        if checksum != expected {
            let what = format!("{} events were published, and {} have arrived", expected.events, checksum.events);
            return Err(Error::new(ErrorKind::Internal, format!("{what}, or others than those")).into());
        }
        let mut received = histogram();
        times.iter().for_each(|(ns, n)| received.saturating_record_n(*ns, *n));
        Ok(Run {
            events: done.checksum.events,
            elapsed,
            engine_cpu: cpu.saturating_sub(done.cpu),
            publishers_cpu: done.cpu,
            receiver_cpu: Duration::from_micros(cpu_us),
            called: done.called,
            acknowledged: done.acknowledged,
            received,
            requests,
            bytes,
            log_bytes: after.log_bytes - before.log_bytes,
            syncs: after.syncs - before.syncs,
        })
    }

    pub(super) fn close(self) -> Result<(), Failure> {
        Ok(self.engine.close(PATIENCE)?)
    }
}

fn joined<T>(thread: std::thread::ScopedJoinHandle<'_, Result<T, Failure>>) -> Result<T, Failure> {
    thread.join().unwrap_or_else(|_| Err(Error::new(ErrorKind::Internal, "a thread of the bench panicked").into()))
}

/// One rule that takes everything, and others that are there to be looked at: a destination hears of an event once.
fn rules(setup: &Setup, address: &str) -> Result<RuleSet, Error> {
    let types = EventTypes::default();
    let names: Vec<String> = (0..setup.destinations).map(|n| format!("d{n}")).collect();
    let destinations = names.iter().map(|name| {
        let webhook = Webhook::new(&format!("http://{address}/{name}"))?;
        let mut d = Destination::new(name, DestinationKind::Webhook(webhook));
        d.batch = BatchLimits { events_max: setup.batch, linger: setup.linger, ..BatchLimits::default() };
        d.concurrency = setup.concurrency;
        Ok(d)
    });
    let destinations = destinations.collect::<Result<Vec<_>, Error>>()?;
    let mut all = Rule::new("all", type_names(), &types)?;
    all.destinations.clone_from(&names);
    let mut rules: Vec<Rule> = wishes(setup.rules, setup.seed, Mix::Scoped).map(|w| w.rule(&types)).collect();
    rules.iter_mut().for_each(|r| r.destinations.extend(names.first().cloned()));
    rules.push(all);
    RuleSet::build(rules, destinations, types)
}

/// What a publisher has done.
struct Published {
    checksum: Checksum,
    called: Histogram<u64>,
    acknowledged: Histogram<u64>,
    cpu: Duration,
}

impl Published {
    fn new() -> Published {
        Published { checksum: Checksum::default(), called: histogram(), acknowledged: histogram(), cpu: Duration::ZERO }
    }

    fn add(&mut self, other: &Published) {
        self.checksum.add_all(&other.checksum);
        for (ours, theirs) in [(&mut self.called, &other.called), (&mut self.acknowledged, &other.acknowledged)] {
            ours.add(theirs).unwrap_or_else(|_| unreachable!("the same bounds"));
        }
        self.cpu += other.cpu;
    }
}

struct Publisher<'a> {
    engine: &'a Engine,
    events: &'a [Happening],
    setup: &'a Setup,
    /// Which one it is.
    n: usize,
    begun_ns: u64,
    end_ns: u64,
    arrived: &'a AtomicU64,
}

impl Publisher<'_> {
    fn run(&self, pace: Pace) -> Result<Published, Failure> {
        // SAFETY: the call only concerns the calling thread: it is to be woken when it is due, not when it suits others.
        unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1) };
        let mut out = Published::new();
        let mut open = Open { receipts: VecDeque::new(), ack: self.setup.ack };
        let mut random = Random::new(self.setup.seed ^ (self.n as u64 + 1));
        let mut at = self.events.len() / self.setup.publishers * self.n;
        match pace {
            Pace::Full => {
                let fair_share = WAITING_MAX / self.setup.publishers as u64;
                loop {
                    let now = monotonic_ns();
                    if now >= self.end_ns {
                        break;
                    }
                    // Of all publishers it is known what has arrived; they are taken to be equally fast.
                    let arrived = self.arrived.load(Ordering::Relaxed) / self.setup.publishers as u64;
                    if out.checksum.events.saturating_sub(arrived) > fair_share {
                        open.reap(&mut out.acknowledged);
                        std::thread::sleep(LOOK / 2);
                        continue;
                    }
                    for _ in 0..STRIDE {
                        self.publish(monotonic_ns(), &mut at, &mut open, &mut out)?;
                    }
                }
            }
            Pace::Rate(rate) => {
                let mean_ns = 1e9 * self.setup.publishers as f64 / rate;
                let mut due = self.begun_ns as f64;
                loop {
                    due += -(1.0 - random.unit()).ln() * mean_ns;
                    if due as u64 >= self.end_ns {
                        break;
                    }
                    loop {
                        let now = monotonic_ns();
                        if now >= due as u64 {
                            break;
                        }
                        open.reap(&mut out.acknowledged);
                        std::thread::sleep(Duration::from_nanos(due as u64 - now));
                    }
                    self.publish(due as u64, &mut at, &mut open, &mut out)?;
                }
            }
        }
        open.drain(&mut out.acknowledged)?;
        out.cpu = cpu_time(libc::RUSAGE_THREAD);
        Ok(out)
    }

    fn publish(&self, due_ns: u64, at: &mut usize, open: &mut Open, out: &mut Published) -> Result<(), Failure> {
        let id = id_of(due_ns);
        let options =
            PublishOptions { ack: self.setup.ack, on_full: OnFull::Block(PATIENCE), ..PublishOptions::default() };
        let event = &self.events[*at];
        *at = (*at + 1) % self.events.len();
        let receipt = event.with_event(|event: Event<'_>| {
            // One that may live as shortly as the id.
            let mut event = event;
            event.request_id = &id;
            self.engine.submit(&event, &options)
        })?;
        out.called.saturating_record(monotonic_ns().saturating_sub(due_ns).max(1));
        out.checksum.add(due_ns);
        if let (Some(receipt), true) = (receipt, self.setup.ack > Ack::Memory) {
            open.receipts.push_back((receipt, due_ns));
            if open.receipts.len() > WINDOW {
                open.wait_first(&mut out.acknowledged)?;
            }
        }
        Ok(())
    }
}

/// Events that have not reached their ack level.
struct Open {
    receipts: VecDeque<(Receipt, u64)>,
    ack: Ack,
}

impl Open {
    /// Notes those that have.
    fn reap(&mut self, times: &mut Histogram<u64>) {
        let now = monotonic_ns();
        while let Some((_, due)) = self.receipts.pop_front_if(|(receipt, _)| receipt.is(self.ack)) {
            times.saturating_record(now.saturating_sub(due).max(1));
        }
    }

    fn wait_first(&mut self, times: &mut Histogram<u64>) -> Result<(), Failure> {
        if let Some((receipt, _)) = self.receipts.front() {
            receipt.wait(self.ack, Some(Instant::now() + PATIENCE))?;
        }
        self.reap(times);
        Ok(())
    }

    fn drain(&mut self, times: &mut Histogram<u64>) -> Result<(), Failure> {
        while !self.receipts.is_empty() {
            self.wait_first(times)?;
        }
        Ok(())
    }
}
