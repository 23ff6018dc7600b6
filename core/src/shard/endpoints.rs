//! The endpoints of destinations, one each for all shards, and what is kept of them in the data directory.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::certificates::Watched;
use crate::delivery::endpoint::{Endpoint, EndpointPolicy, Known, Stopped};
use crate::lock::Mutex;
use crate::log::standing::{self, Certificates, Standing, State};
use crate::net::tls::keeper::Keeper;
use crate::rule::{BreakerPolicy, Destination, DestinationKind, DisablePolicy, Order, RateLimits};

/// How often what changes with each attempt that fails is written, of one destination.
const WRITE_EVERY_NS: u64 = 10_000_000_000;
/// How many are written at a time.
const WRITES_MAX: usize = 64;
const MS: u64 = 1_000_000;

#[derive(Debug)]
struct Entry {
    name: String,
    endpoint: Arc<Endpoint>,
    /// Where it is: another address is another endpoint, of which nothing is known.
    kind: DestinationKind,
    /// What is written of it: the count of its changes, when (monotonic ns), and why it gets nothing, since when (ms since
    /// the epoch).
    written: u64,
    written_ns: u64,
    stopped: Option<Stopped>,
    since_ms: u64,
    /// Its certificates, what is known of them, and what of that is written.
    watched: Option<Watched>,
    certificates: Certificates,
    written_certificates: Certificates,
}

/// By the numbers of destinations.
#[derive(Debug)]
pub(crate) struct Endpoints {
    tls: Arc<Keeper>,
    all: Mutex<BTreeMap<u32, Entry>>,
    /// What earlier runs left, by name, until somebody asks for it.
    kept: Mutex<BTreeMap<String, Standing>>,
}

fn policy(d: &Destination) -> EndpointPolicy {
    EndpointPolicy {
        concurrency: if d.order == Order::Strict { 1 } else { d.concurrency },
        adapts: d.adaptive_concurrency,
        breaker: d.breaker,
        retry_after_max_ns: d.retry.retry_after_max.as_nanos() as u64,
        rate: d.rate,
        disable: d.disable,
    }
}

fn reason(stopped: Stopped) -> (State, &'static str) {
    match stopped {
        Stopped::Gone => (State::Disabled, "the endpoint answered for a day that it is gone (410)"),
        Stopped::Failing => (State::Disabled, "it took nothing for too long"),
        Stopped::Suspended => (State::Suspended, "by an operator"),
    }
}

fn known(s: &Standing) -> Known {
    Known {
        stopped: match s.state {
            State::Active => None,
            State::Suspended => Some(Stopped::Suspended),
            State::Disabled if s.gone_ms > 0 => Some(Stopped::Gone),
            State::Disabled => Some(Stopped::Failing),
        },
        failing_ns: s.failing_ms.saturating_mul(MS),
        failing_attempts: s.failing_attempts,
        noticed: s.noticed,
        gone_ns: (s.gone_ms > 0).then(|| s.gone_ms.saturating_mul(MS)),
    }
}

impl Entry {
    fn certificates(&self) -> Certificates {
        let mut known = self.certificates.clone();
        if let Some(watched) = &self.watched {
            watched.update(&mut known);
        }
        known
    }

    fn standing(&self, now_ns: u64) -> Standing {
        let known = self.endpoint.known(now_ns);
        let (state, reason) = known.stopped.map_or((State::Active, ""), reason);
        let mut s = Standing::default();
        (s.state, s.reason) = (state, reason.to_owned());
        s.since_ms = self.since_ms;
        s.failing_ms = known.failing_ns / MS;
        (s.failing_attempts, s.noticed) = (known.failing_attempts, known.noticed);
        s.gone_ms = known.gone_ns.map_or(0, |ns| (ns / MS).max(1));
        s.certificates = self.certificates();
        s.attempts = self.endpoint.attempts();
        s
    }
}

impl Endpoints {
    /// With what earlier runs left in a data directory.
    pub(crate) fn open(dir: &Path, tls: Arc<Keeper>) -> Endpoints {
        let mut kept = BTreeMap::new();
        for name in standing::kept(dir) {
            match standing::read(dir, &name) {
                Ok(Some(s)) => drop(kept.insert(name, s)),
                Ok(None) => {}
                // Worse than being active would be not to start.
                Err(e) => log::error!("destination `{name}` counts as active: {e}"),
            }
        }
        for (name, order) in standing::orders(dir) {
            let s: &mut Standing = kept.entry(name).or_default();
            *s = Standing { attempts: std::mem::take(&mut s.attempts), ..Standing::default() };
            if order == standing::Order::Suspend {
                s.state = State::Suspended;
            }
        }
        Endpoints { tls, all: Mutex::default(), kept: Mutex::new(kept) }
    }

    /// The endpoint of a destination with these settings.
    pub(crate) fn of(&self, number: u32, d: &Destination) -> Arc<Endpoint> {
        let mut all = self.all.lock();
        match all.get_mut(&number) {
            Some(entry) => {
                entry.endpoint.set_policy(policy(d));
                if entry.kind != d.kind {
                    entry.kind = d.kind.clone();
                    entry.watched = Watched::of(&d.kind, &self.tls);
                    entry.certificates = Certificates::default();
                    entry.endpoint.replaced();
                }
                entry.endpoint.clone()
            }
            None => {
                let endpoint = Endpoint::new(policy(d));
                let kept = self.kept.lock().remove(&d.name);
                let (mut stopped, mut since_ms) = (None, 0);
                let (watched, mut certificates) = (Watched::of(&d.kind, &self.tls), Certificates::default());
                if let Some(s) = kept {
                    if watched.is_some() {
                        certificates = s.certificates.clone();
                    }
                    let known = known(&s);
                    (stopped, since_ms) = (known.stopped, s.since_ms);
                    endpoint.restore(known, s.attempts, 0);
                }
                let entry = Entry {
                    name: d.name.clone(),
                    endpoint: endpoint.clone(),
                    kind: d.kind.clone(),
                    written: 0,
                    written_ns: 0,
                    stopped,
                    since_ms,
                    watched,
                    written_certificates: certificates.clone(),
                    certificates,
                };
                all.insert(number, entry);
                endpoint
            }
        }
    }

    /// What is known of a destination, by name.
    pub(crate) fn standing(&self, name: &str, now_ns: u64) -> Option<Standing> {
        self.all.lock().values().find(|e| e.name == name).map(|e| e.standing(now_ns))
    }

    /// What is known of the certificates of a destination, by number.
    pub(crate) fn certificates(&self, number: u32) -> Certificates {
        self.all.lock().get(&number).map(Entry::certificates).unwrap_or_default()
    }

    /// Does what an operator asks for. The number of the destination, if there is such.
    pub(crate) fn obey(&self, name: &str, order: standing::Order) -> Option<u32> {
        let all = self.all.lock();
        let (number, entry) = all.iter().find(|(_, e)| e.name == name)?;
        match order {
            standing::Order::Suspend => entry.endpoint.suspend(),
            standing::Order::Resume => entry.endpoint.reset(),
        }
        log::info!("destination `{name}`: {order:?}");
        Some(*number)
    }

    /// Takes up orders, gives warnings, and writes down what has changed: at once what somebody decided, and now and then,
    /// or if this is the `last` time, what merely failed. The destinations that may send again. Blocks on files.
    pub(crate) fn tend(&self, dir: &Path, now_ns: u64, wall_ms: u64, last: bool) -> Vec<u32> {
        let mut obeyed = Vec::new();
        let mut taken_up = Vec::new();
        for (name, order) in standing::orders(dir) {
            obeyed.extend(self.obey(&name, order));
            taken_up.push(name);
        }
        let mut due = Vec::new();
        for (number, entry) in self.all.lock().iter_mut() {
            if let Some(percent) = entry.endpoint.take_notice(now_ns) {
                log::warn!(
                    "destination `{}` has taken nothing for {percent} % of the time after which it is disabled",
                    entry.name
                );
            }
            entry.certificates = entry.certificates();
            if let Some(watched) = &mut entry.watched {
                watched.warn(&entry.name, &entry.certificates, wall_ms);
            }
            let changes = entry.endpoint.changes();
            let stopped = entry.endpoint.stopped();
            let decided = stopped != entry.stopped;
            if decided {
                (entry.stopped, entry.since_ms) = (stopped, wall_ms);
                if let Some((State::Disabled, why)) = stopped.map(reason) {
                    log::error!("destination `{}` is disabled: {why}; its events wait until it is resumed", entry.name);
                }
            }
            let waited = now_ns.saturating_sub(entry.written_ns) >= WRITE_EVERY_NS || entry.written == 0;
            let is_news = changes != entry.written || entry.certificates != entry.written_certificates;
            if decided || taken_up.contains(&entry.name) || (is_news && (waited || last)) {
                due.push((*number, changes, decided));
            }
        }
        // What was decided goes first.
        due.sort_by_key(|(_, _, decided)| !decided);
        for (number, changes, _) in due.into_iter().take(if last { usize::MAX } else { WRITES_MAX }) {
            let found = self.all.lock().get(&number).map(|e| (e.name.clone(), e.standing(now_ns)));
            let Some((name, standing)) = found else { continue };
            match standing::write(dir, &name, &standing) {
                Ok(()) => {
                    if let Some(entry) = self.all.lock().get_mut(&number) {
                        (entry.written, entry.written_ns) = (changes, now_ns);
                        entry.written_certificates = standing.certificates;
                    }
                }
                Err(e) => {
                    log::error!("what is known of destination `{name}` cannot be kept: {e}");
                    taken_up.retain(|n| *n != name);
                }
            }
        }
        for name in taken_up {
            if let Err(e) = standing::forget_order(dir, &name) {
                log::error!("destination `{name}`: the order that was taken up cannot be removed: {e}");
            }
        }
        obeyed
    }

    /// What takes the place of an endpoint where there is none: one at a time, and always there.
    pub(crate) fn none() -> Arc<Endpoint> {
        let breaker = BreakerPolicy {
            consecutive_failures: u32::MAX,
            calls_min: u32::MAX,
            window: Duration::from_secs(3600),
            ..BreakerPolicy::default()
        };
        Endpoint::new(EndpointPolicy {
            concurrency: 1,
            adapts: false,
            breaker,
            retry_after_max_ns: 0,
            rate: RateLimits::default(),
            disable: DisablePolicy { after: Duration::MAX, attempts_min: u32::MAX },
        })
    }
}
