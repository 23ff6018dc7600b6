//! Seeded runs of the real engine on a simulated machine.
//!
//! A run is made from its seed alone: rules, destinations, events, what fails and when the process or the power goes. At
//! its end everything is healed, and an oracle that saw only what went in and what came out says whether anything that was
//! reported as durable is missing, anything came that never was, anything came out of order, or anything hangs.

mod endpoint;
mod host;
mod oracle;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use tidewire::config::{EngineConfig, Idle};
use tidewire::event::{EventTypes, FrameView};
use tidewire::filter::Filter;
use tidewire::log::names::Names;
use tidewire::log::record::DeadLetter;
use tidewire::log::recovery;
use tidewire::rule::{Balance, Destination, DestinationKind, Expect, Order, Rule, RuleSet, Webhook, WebhookEndpoint};
use tidewire::sim::disk::Faults;
use tidewire::sim::{Rng, World};
use tidewire::{Ack, Engine, ErrorKind, Event, KnownType, OnFull, PublishOptions, Receipt};

use endpoint::{Endpoint, Mood};
use host::Host;
use oracle::Oracle;

const SECOND: u64 = 1_000_000_000;
const PORT: u16 = 9000;
/// So many endpoints each destination may have.
const ENDPOINTS: usize = 2;
const BUCKET: &str = "bucket";
/// The id of the rule that the host puts.
const PUT: &str = "put";
/// Polls of tasks that a run may take in all its parts; more is a hang.
const POLLS_MAX: u64 = 10_000_000;

/// What a run has come to.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// What was wrong; nothing if empty.
    pub violations: Vec<String>,
    /// Events published.
    pub published: u64,
    /// Of those, reported as durable.
    pub durable: u64,
    /// Deliveries accepted.
    pub accepted: u64,
    /// Deliveries repeated.
    pub repeats: u64,
    /// Dead letters.
    pub dead: u64,
    /// Times that the process was killed, the power lost, the engine closed.
    pub kills: u64,
    /// See above.
    pub power_losses: u64,
    /// See above.
    pub closes: u64,
    /// Sectors lost with the power.
    pub sectors_lost: u64,
    /// Errors that the disk gave.
    pub disk_errors: u64,
    /// Writes refused for want of space.
    pub no_space: u64,
    /// Task polls.
    pub steps: u64,
    /// Virtual nanoseconds.
    pub virtual_ns: u64,
    /// Tells whether two runs went the same way.
    pub trace: u64,
}

impl Report {
    /// Adds the counts of another run.
    pub fn add(&mut self, r: &Report) {
        self.published += r.published;
        self.durable += r.durable;
        self.accepted += r.accepted;
        self.repeats += r.repeats;
        self.dead += r.dead;
        self.kills += r.kills;
        self.power_losses += r.power_losses;
        self.closes += r.closes;
        self.sectors_lost += r.sectors_lost;
        self.disk_errors += r.disk_errors;
        self.no_space += r.no_space;
        self.steps += r.steps;
        self.virtual_ns += r.virtual_ns;
    }
}

/// What a seed decides before anything happens.
struct Plan {
    shards: usize,
    /// Each life may have another number of them.
    reshards: bool,
    segment_bytes: u64,
    /// The rules in force at first, and those that take their place later.
    rules: Vec<PlannedRule>,
    other_rules: Vec<PlannedRule>,
    /// The rule that the host has put, as the engine has acknowledged it; and what it may be after the next opening, because
    /// changes of it have failed.
    put: Option<PlannedRule>,
    put_perhaps: Vec<Option<PlannedRule>>,
    /// The host does more than publish.
    more: bool,
    dedup_window: Duration,
    destinations: Vec<Destination>,
    keys: Vec<String>,
    lives: u32,
    faults: Faults,
    capacity: Option<u64>,
    wall_steps: bool,
}

#[derive(Clone, Debug, PartialEq)]
struct PlannedRule {
    prefix: String,
    destinations: Vec<usize>,
}

/// The port of an endpoint of a destination.
fn port(destination: usize, endpoint: usize) -> u16 {
    PORT + 100 * endpoint as u16 + destination as u16
}

fn plan(rng: &mut Rng) -> Plan {
    let ms = Duration::from_millis;
    let destinations = (0..rng.between(1, 3))
        .map(|n| {
            let url = |i: u64| format!("http://127.0.0.1:{}/{n}", u64::from(port(n as usize, i as usize)));
            let mut webhook = Webhook::new(&url(0)).expect("a URL");
            if rng.percent(40) {
                let endpoint = |i: u64| {
                    let mut e = WebhookEndpoint::new(&url(i)).expect("a URL");
                    e.weight = rng.between(1, 4) as u32;
                    e.priority = rng.below(2) as u32;
                    e.region = rng.percent(20).then(|| ["us-east-1", "eu-1"][rng.below(2) as usize].to_owned());
                    e
                };
                webhook = Webhook::with_endpoints((0..ENDPOINTS as u64).map(endpoint).collect()).expect("endpoints");
                webhook.balance = match rng.below(5) {
                    0 => Some(Balance::RoundRobin),
                    1 => Some(Balance::LeastOutstanding),
                    2 => Some(Balance::Weighted),
                    _ => None,
                };
            }
            webhook.timeout = Duration::from_secs(rng.between(1, 15));
            webhook.connect_timeout = Duration::from_secs(1);
            let mut d = Destination::new(format!("d{n}"), DestinationKind::Webhook(webhook));
            d.batch.events_max = rng.between(1, 20) as usize;
            d.batch.bytes_max = rng.between(1, 20_000) as usize;
            d.batch.linger = ms(rng.below(20));
            d.concurrency = rng.between(1, 5) as usize;
            d.retry.backoff_min = ms(rng.between(1, 2_000));
            d.retry.backoff_max = d.retry.backoff_min * rng.between(1, 100) as u32;
            d.retry.poison_attempts = rng.between(1, 4) as u32;
            d.order = match rng.below(10) {
                0 => Order::None,
                1 | 2 => Order::Strict,
                _ => Order::Key,
            };
            d.breaker.consecutive_failures = rng.between(1, 6) as u32;
            d.breaker.open_min = ms(rng.between(10, 5_000));
            d.breaker.open_max = d.breaker.open_min * rng.between(1, 20) as u32;
            d
        })
        .collect::<Vec<_>>();
    let n = destinations.len() as u64;
    let first = PlannedRule {
        prefix: String::new(),
        destinations: (0..n as usize).filter(|d| *d == 0 || rng.percent(40)).collect(),
    };
    let mut rules = || -> Vec<PlannedRule> {
        let more = (1..rng.between(1, 4)).map(|i| PlannedRule {
            prefix: format!("{}/", ["a", "b", "c"][rng.below(3) as usize]),
            destinations: (0..n as usize).filter(|d| *d == (i % n) as usize || rng.percent(40)).collect(),
        });
        // The first is always there: so what keys other than these want does not change.
        std::iter::once(first.clone()).chain(more).collect()
    };
    let (rules, other_rules) = (rules(), rules());
    let keys = (0..rng.between(1, 14)).map(|k| format!("{}/{k}", ["a", "b", "c"][rng.below(3) as usize])).collect();
    let mut faults = Faults::default();
    if rng.percent(30) {
        faults.slow = rng.below(50);
    }
    if rng.percent(20) {
        faults.sync_error = rng.below(60);
        faults.write_error = rng.below(30);
        faults.read_error = rng.below(30);
    }
    Plan {
        shards: rng.between(1, 3) as usize,
        reshards: rng.percent(25),
        more: rng.percent(50),
        dedup_window: Duration::from_secs(if rng.percent(50) { rng.between(1, 600) } else { 0 }),
        segment_bytes: 4096 * rng.between(3, 40),
        rules,
        other_rules,
        put: None,
        put_perhaps: Vec::new(),
        destinations,
        keys,
        lives: rng.between(1, 6) as u32,
        faults,
        capacity: rng.percent(10).then(|| rng.between(150_000, 3_000_000)),
        wall_steps: rng.percent(30),
    }
}

impl PlannedRule {
    fn rule(&self, id: &str) -> Rule {
        let rule = Rule::new(id, ["s3:ObjectCreated:*", "s3:ObjectRemoved:*"], &EventTypes::default()).expect("a rule");
        let rule = rule.with_filter(Filter::new(self.prefix.as_bytes(), Vec::new()));
        self.destinations.iter().fold(rule, |rule, d| rule.with_destination(format!("d{d}")))
    }
}

impl Plan {
    fn change_rules(&mut self) {
        std::mem::swap(&mut self.rules, &mut self.other_rules);
    }

    fn wanted(&self, key: &str) -> u32 {
        let mut set = 0;
        for r in self.rules.iter().chain(&self.put).filter(|r| key.starts_with(&r.prefix)) {
            for d in &r.destinations {
                set |= 1 << d;
            }
        }
        set
    }

    fn rule_set(&self) -> RuleSet {
        let rules = self.rules.iter().enumerate().map(|(i, r)| r.rule(&format!("r{i}"))).collect();
        RuleSet::build(rules, self.destinations.clone(), EventTypes::default()).expect("rules")
    }
}

struct Run {
    world: Rc<World>,
    plan: Plan,
    rng: Rng,
    oracle: Rc<RefCell<Oracle>>,
    endpoints: Vec<Rc<Endpoint>>,
    engine: Option<Engine>,
    receipts: Vec<(u64, Receipt)>,
    host: Host,
    dir: PathBuf,
    report: Report,
}

/// Runs a seed.
pub fn run(seed: u64) -> Report {
    let mut rng = Rng::new(seed);
    let world = World::new(rng.draw());
    let entered = world.enter();
    let plan = plan(&mut rng);
    let oracle = Rc::new(RefCell::new(Oracle::default()));
    let places = (0..plan.destinations.len()).flat_map(|n| (0..ENDPOINTS).map(move |i| (n, i)));
    let endpoints =
        places.map(|(n, i)| Endpoint::start(&world, port(n, i), n, oracle.clone(), Rng::new(rng.draw()))).collect();
    let mut run = Run {
        world: world.clone(),
        plan,
        rng,
        oracle,
        endpoints,
        engine: None,
        receipts: Vec::new(),
        host: Host::default(),
        dir: PathBuf::from("/data"),
        report: Report { seed, ..Report::default() },
    };
    let orders: Vec<Order> = run.plan.destinations.iter().map(|d| d.order).collect();
    log::debug!(
        "{} shards{}, orders {orders:?}, dedup {:?}",
        run.plan.shards,
        if run.plan.reshards { " at first" } else { "" },
        run.plan.dedup_window
    );
    for (n, _) in orders.into_iter().enumerate().filter(|(_, order)| *order == Order::None) {
        run.oracle.borrow_mut().unordered(n);
    }
    run.live();
    let mut report = run.finish();
    drop(entered);
    report.trace = world.trace();
    report
}

impl Run {
    fn config(&self) -> EngineConfig {
        let mut c = EngineConfig::new(&self.dir);
        c.shards = Some(self.plan.shards);
        c.ring_bytes = 256 << 10;
        c.idle = Idle::Park;
        c.dedup.window = self.plan.dedup_window;
        c.log.segment_bytes = self.plan.segment_bytes;
        c.log.sync_interval = Duration::from_millis(5);
        c.delivery.lane_events_max = [4, 64, 8192][(self.report.seed % 3) as usize];
        c.delivery.memory_bytes = 1 << 20;
        c.delivery.cursor_interval = Duration::from_millis([20, 500, 5_000][(self.report.seed % 3) as usize]);
        c
    }

    fn violation(&mut self, text: String) {
        self.report.violations.push(text);
    }

    fn live(&mut self) {
        for life in 0..self.plan.lives {
            let faults = self.plan.faults;
            self.world.disk.set_capacity(self.plan.capacity.filter(|_| life % 2 == 0).unwrap_or(u64::MAX));
            if self.plan.reshards && life > 0 {
                self.plan.shards = self.rng.between(1, 4) as usize;
            }
            log::debug!("opens with {} shards", self.plan.shards);
            if !self.open() {
                return;
            }
            self.world.disk.set_faults(faults);
            self.take_up();
            for _ in 0..self.rng.between(1, 8) {
                self.act();
            }
            self.end_life();
            if !self.report.violations.is_empty() {
                return;
            }
        }
    }

    /// Opens the engine, and sees whether it has what was put.
    fn open(&mut self) -> bool {
        let opened = self.open_engine();
        if opened {
            self.find_put_rule();
        }
        opened
    }

    /// Faults of the disk are off: an open that fails for them is tried again by whoever opens it.
    fn open_engine(&mut self) -> bool {
        self.world.disk.set_faults(Faults::default());
        let rules = self.plan.rule_set();
        match Engine::open_with(self.config(), rules) {
            Ok(e) => {
                self.engine = Some(e);
                true
            }
            Err(e) if e.kind() == ErrorKind::NoSpace && self.plan.capacity.is_some() => {
                self.world.disk.set_capacity(u64::MAX);
                match Engine::open_with(self.config(), self.plan.rule_set()) {
                    Ok(e) => {
                        self.engine = Some(e);
                        true
                    }
                    Err(e) => {
                        self.violation(format!("cannot be opened with space: {e}"));
                        false
                    }
                }
            }
            Err(e) => {
                self.violation(format!("cannot be opened: {e}"));
                false
            }
        }
    }

    fn act(&mut self) {
        match self.rng.below(if self.plan.more { 13 } else { 10 }) {
            10.. => self.do_more(),
            0..=4 => {
                let n = self.rng.between(1, 60);
                self.publish(n);
            }
            5 | 6 => {
                let moods = [
                    Mood::Healthy,
                    Mood::Flaky(self.rng.between(5, 90)),
                    Mood::Down,
                    Mood::Silent,
                    Mood::Status([500, 503, 404, 410, 403, 302][self.rng.below(6) as usize]),
                ];
                let mood = moods[self.rng.below(5) as usize];
                let n = self.rng.below(self.endpoints.len() as u64) as usize;
                self.endpoints[n].set_mood(mood);
            }
            7 if self.plan.wall_steps => {
                let by = self.rng.below(7_200) as i64 - 3_600;
                self.world.step_wall_clock(by * SECOND as i64);
            }
            8 => {
                let changes = self.rng.percent(50);
                if changes {
                    self.plan.change_rules();
                }
                let rules = self.plan.rule_set();
                let result = self.engine.as_ref().map(|e| e.replace_rules(rules));
                log::debug!("rules replaced{}: {result:?}", if changes { " by others" } else { "" });
                let trouble = self.world.disk.counts.get().errors + self.world.disk.counts.get().no_space;
                match result {
                    Some(Err(e)) if trouble == 0 => self.violation(format!("rules cannot be replaced: {e}")),
                    // They were not.
                    Some(Err(_)) if changes => self.plan.change_rules(),
                    _ => {}
                }
            }
            9 => self.change_put_rule(),
            _ => {}
        }
        let ns = match self.rng.below(5) {
            0 => 0,
            1 => self.rng.below(SECOND / 1000),
            2 => self.rng.below(SECOND),
            3 => self.rng.below(30 * SECOND),
            _ => self.rng.below(600 * SECOND),
        };
        self.pass(ns);
    }

    /// Puts the one rule that the host keeps with the engine, another one in its place, or deletes it.
    fn change_put_rule(&mut self) {
        let Some(engine) = &self.engine else { return };
        let n = self.plan.destinations.len() as u64;
        let next = self.rng.percent(70).then(|| PlannedRule {
            prefix: format!("{}/", ["a", "b", "c"][self.rng.below(3) as usize]),
            destinations: vec![self.rng.below(n) as usize],
        });
        let result = match &next {
            Some(r) => engine.put_rule(r.rule(PUT), Expect::Anything).map(drop),
            None => engine.delete_rule(None, PUT, Expect::Anything),
        };
        log::debug!("put {next:?}: {result:?}");
        let trouble = self.world.disk.counts.get().errors + self.world.disk.counts.get().no_space;
        match result {
            Ok(()) => {
                self.plan.put = next;
                self.plan.put_perhaps.clear();
            }
            Err(e) if e.kind() == ErrorKind::NotFound && self.plan.put.is_none() => self.plan.put_perhaps.clear(),
            Err(e) if trouble == 0 => self.violation(format!("a rule cannot be put: {e}")),
            // It is as it was, but what was written of it may be there after a restart.
            Err(_) => self.plan.put_perhaps.push(next),
        }
    }

    /// What was put must be there again.
    fn find_put_rule(&mut self) {
        let Some(engine) = &self.engine else { return };
        let found = engine.rule(None, PUT).map(|r| (r.rule(), r.inactive().cloned()));
        let is = |planned: &Option<PlannedRule>| match (planned, &found) {
            (None, None) => true,
            (Some(planned), Some((rule, None))) => planned.rule(PUT) == *rule,
            _ => false,
        };
        let all = std::iter::once(&self.plan.put).chain(&self.plan.put_perhaps);
        match all.into_iter().find(|planned| is(planned)).cloned() {
            Some(planned) => {
                self.plan.put = planned;
                self.plan.put_perhaps.clear();
            }
            None => self.violation(format!("the rule is {found:?}, and was to be {:?}", self.plan.put)),
        }
    }

    fn publish(&mut self, n: u64) {
        let level = [Ack::Memory, Ack::Written, Ack::Synced][self.rng.below(3) as usize];
        for _ in 0..n {
            let key = self.plan.keys[self.rng.below(self.plan.keys.len() as u64) as usize].clone();
            let n = self.oracle.borrow_mut().publish(&key, self.plan.wanted(&key));
            let kind = if self.rng.percent(80) { KnownType::ObjectCreatedPut } else { KnownType::ObjectCreatedCopy };
            let mut event = Event::new(kind.into(), BUCKET, key.as_bytes());
            event.size = Some(n);
            let most = if self.rng.percent(5) { 4000 } else { 200 };
            let filler = "x".repeat(self.rng.below(most) as usize);
            event.request_id = &filler;
            let options = PublishOptions { ack: level, on_full: OnFull::Refuse, ..PublishOptions::default() };
            let Some(engine) = &self.engine else { return };
            match engine.submit(&event, &options) {
                Ok(Some(receipt)) => {
                    log::debug!("{n} at {level:?}");
                    self.receipts.push((n, receipt));
                }
                Ok(None) => self.oracle.borrow_mut().refused(n),
                Err(e) if matches!(e.kind(), ErrorKind::Full | ErrorKind::LogFailed) => {
                    self.oracle.borrow_mut().refused(n);
                    if e.kind() == ErrorKind::LogFailed && self.world.disk.counts.get().errors == 0 {
                        self.violation(format!("the log failed on a sound disk: {e}"));
                    }
                }
                Err(e) => {
                    self.violation(format!("event {n} was refused: {e}"));
                    return;
                }
            }
            if self.rng.percent(20) {
                let ns = self.rng.below(3_000_000);
                self.pass(ns);
            }
        }
    }

    /// Lets time pass.
    fn pass(&mut self, ns: u64) {
        let start = self.world.steps();
        self.world.run_until(ns, POLLS_MAX, || false);
        if self.world.steps() - start >= POLLS_MAX {
            self.violation(format!("more than {POLLS_MAX} polls within {ns} virtual ns: something spins"));
        }
        self.look_at_receipts();
    }

    fn look_at_receipts(&mut self) {
        let oracle = &self.oracle;
        self.receipts.retain(|(n, r)| {
            let durable = r.is(Ack::Synced);
            if durable {
                log::debug!("{n} is durable");
                oracle.borrow_mut().durable(*n);
            }
            !durable
        });
    }

    fn end_life(&mut self) {
        // At any point of what goes on, not only when it has calmed down.
        if self.rng.percent(60) {
            let n = self.rng.between(1, 30);
            self.publish(n);
            let polls = self.rng.below(400);
            self.world.run_until(SECOND, polls, || false);
        }
        self.look_at_receipts();
        let Some(engine) = self.engine.take() else { return };
        match self.rng.below(4) {
            0 => {
                log::debug!("kill");
                self.report.kills += 1;
                self.world.kill(false);
            }
            1 | 2 => {
                log::debug!("power lost");
                self.report.power_losses += 1;
                self.world.kill(true);
            }
            _ => {
                log::debug!("close");
                self.report.closes += 1;
                self.world.disk.set_faults(Faults::default());
                let ms = [0, 100, 60_000][self.rng.below(3) as usize];
                let errors = self.world.disk.counts.get().errors + self.world.disk.counts.get().no_space;
                if let Err(e) = engine.close(Duration::from_millis(ms))
                    && errors == 0
                {
                    self.violation(format!("cannot be closed: {e}"));
                }
                self.look_at_receipts();
            }
        }
        drop(engine);
        self.forget_life();
        self.receipts.clear();
        self.oracle.borrow_mut().ended();
    }

    /// Heals everything and sees what comes of it.
    fn finish(mut self) -> Report {
        if self.report.violations.is_empty() {
            self.heal();
        }
        if let Some(engine) = self.engine.take() {
            self.world.kill(false);
            drop(engine);
        }
        let oracle = self.oracle.borrow();
        let mut report = self.report;
        report.violations.extend(oracle.violations.iter().cloned());
        (report.published, report.accepted, report.dead) = oracle.counts();
        report.durable = oracle.durable_events();
        report.repeats = oracle.repeats;
        let disk = self.world.disk.counts.get();
        if disk.missing > 0 {
            report.violations.push(format!("{} times a file of the log was gone when it was to be read", disk.missing));
        }
        report.sectors_lost = disk.sectors_lost;
        report.disk_errors = disk.errors;
        report.no_space = disk.no_space;
        report.steps = self.world.steps();
        report.virtual_ns = self.world.now_ns();
        report
    }

    fn heal(&mut self) {
        self.world.disk.set_capacity(u64::MAX);
        for e in &self.endpoints {
            e.set_mood(Mood::Healthy);
        }
        if !self.open() {
            return;
        }
        // A fresh event of every key still gets through, and after it, or before, everything that is owed.
        let mut fresh = Vec::new();
        for key in self.plan.keys.clone() {
            let n = self.oracle.borrow_mut().publish(&key, self.plan.wanted(&key));
            let mut event = Event::new(KnownType::ObjectCreatedPut.into(), BUCKET, key.as_bytes());
            event.size = Some(n);
            let options = PublishOptions { on_full: OnFull::Refuse, ..PublishOptions::default() };
            match self.engine.as_ref().map(|e| e.submit(&event, &options)) {
                Some(Ok(Some(r))) => {
                    self.receipts.push((n, r));
                    fresh.push(n);
                }
                other => {
                    self.violation(format!("a fresh event was not taken: {other:?}"));
                    return;
                }
            }
        }
        let oracle = self.oracle.clone();
        let all_done = || {
            let o = oracle.borrow();
            fresh.iter().all(|n| o.settled(*n)) && o.missing().is_empty()
        };
        let start = self.world.steps();
        let mut looks = 0u32;
        // Receipts and dead letters are looked at from time to time: they tell nobody.
        for _ in 0..8 * 24 {
            let polls = POLLS_MAX.saturating_sub(self.world.steps() - start);
            self.world.run_until(3600 * SECOND, polls, || {
                looks += 1;
                // The oracle's look at everything is not cheap.
                looks.is_multiple_of(64) && all_done()
            });
            self.look_at_receipts();
            self.look_at_dead_letters();
            if all_done() || polls == 0 {
                break;
            }
        }
        let missing: Vec<(usize, u64)> = self.oracle.borrow().missing().iter().copied().collect();
        let stuck: Vec<u64> = fresh.iter().copied().filter(|n| !self.oracle.borrow().settled(*n)).collect();
        if !missing.is_empty() {
            let polls = self.world.steps() - start;
            self.violation(format!(
                "{} durable deliveries are missing (after {polls} polls), such as (destination, event) {:?}",
                missing.len(),
                &missing[..missing.len().min(5)]
            ));
        } else if !stuck.is_empty() {
            self.violation(format!("fresh events do not get through: {stuck:?}"));
        }
    }

    fn look_at_dead_letters(&mut self) {
        let numbers: BTreeMap<u32, usize> = match names(&self.dir) {
            Ok(n) => n,
            Err(e) => return self.violation(format!("the names cannot be read: {e}")),
        };
        let letters = match recovery::dead_letters(&self.dir) {
            Ok(l) => l,
            Err(e) => return self.violation(format!("dead letters cannot be read: {e}")),
        };
        for l in letters {
            let Ok(letter) = DeadLetter::decode(&l.body) else {
                self.violation("a dead letter that cannot be read".into());
                continue;
            };
            let Ok(frame) = FrameView::parse(letter.frame) else {
                self.violation("a dead letter without its event".into());
                continue;
            };
            let Some(d) = numbers.get(&letter.destination) else {
                self.violation(format!("a dead letter of nobody: {}", letter.destination));
                continue;
            };
            let key = String::from_utf8_lossy(frame.key()).into_owned();
            self.oracle.borrow_mut().dead(*d, frame.size().unwrap_or(u64::MAX), &key);
        }
    }
}

/// The destinations of the simulation by their number in the data directory.
fn names(dir: &Path) -> Result<BTreeMap<u32, usize>, String> {
    let names = Names::read(dir).map_err(|e| e.to_string())?;
    let number = |name: &str| {
        let d = name.strip_prefix('d').and_then(|d| d.parse().ok()).ok_or("a strange name")?;
        Ok((names.destination_number(name).unwrap_or(0), d))
    };
    names.destination_names().map(number).collect()
}

/// Has the engine's messages written to standard error, with the virtual time.
pub fn log_to_stderr() {
    struct Logger;
    impl log::Log for Logger {
        fn enabled(&self, _: &log::Metadata<'_>) -> bool {
            true
        }
        fn log(&self, r: &log::Record<'_>) {
            let at = tidewire::sim::world().map_or(0, |w| w.now_ns());
            eprintln!("{:>15.6} {} {}", at as f64 / 1e9, r.level(), r.args());
        }
        fn flush(&self) {}
    }
    if log::set_logger(&Logger).is_ok() {
        log::set_max_level(log::LevelFilter::Debug);
    }
}
