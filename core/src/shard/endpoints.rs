//! The endpoints of destinations, the same for all shards, and what is kept of them in the data directory.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use url::Url;

use super::certificates::Watched;
use crate::auth::rotation::Rotated;
use crate::connect::Unwilling;
use crate::delivery::balance::{Balancer, Target, region_number};
use crate::delivery::breaker::{Gate, backoff};
use crate::delivery::endpoint::{Endpoint, EndpointPolicy, Known, Rates, Stopped};
use crate::lock::Mutex;
use crate::log::standing::{self, Certificates, EndpointStanding, Standing, State};
use crate::net::tls::keeper::Keeper;
use crate::rule::{
    Balance, BreakerPolicy, Destination, DestinationKind, DisablePolicy, LiveDestinations, Order, RateLimits,
    Verification, fingerprint,
};

/// How often what changes with each attempt that fails is written, of one destination.
const WRITE_EVERY_NS: u64 = 10_000_000_000;
/// How often it is told at most that an endpoint is left alone.
const TELL_EVERY_NS: u64 = 600_000_000_000;
/// How many are written at a time.
const WRITES_MAX: usize = 64;
const MS: u64 = 1_000_000;
/// Attempts that are shown of a destination.
const ATTEMPTS_MAX: usize = 20;
/// How long it takes until an endpoint that has not agreed is asked again.
const ASK_MIN: Duration = Duration::from_secs(1);
const ASK_MAX: Duration = Duration::from_secs(3600);

/// What became of a destination, for its operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Notice {
    /// The destination.
    pub(crate) name: String,
    pub(crate) what: News,
    /// More of it.
    pub(crate) reason: String,
}

/// What a notice is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum News {
    Pending,
    Verified,
    Suspended,
    Disabled,
    Resumed,
    /// It has taken nothing for this share of the time after which it is disabled.
    Failing(u8),
    BreakerOpened,
}

/// An endpoint that is to be asked whether it wants events.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    pub(crate) number: u32,
    pub(crate) endpoint: u32,
    /// As if this were its only endpoint.
    pub(crate) destination: Destination,
    /// What it may show later to confirm.
    pub(crate) code: String,
}

/// How the asking of an endpoint stands.
#[derive(Debug, Default)]
struct Asking {
    /// To what it is to agree; empty if it is not asked.
    proof: String,
    /// To what it has agreed.
    agreed: String,
    /// What it may show later to confirm.
    code: String,
    attempts: u32,
    /// When it is asked next (monotonic ns), unless that is under way.
    next_ns: u64,
    under_way: bool,
    /// Why it has not agreed.
    reason: String,
}

#[derive(Debug)]
struct Place {
    url: Url,
    key: String,
    endpoint: Arc<Endpoint>,
    asking: Asking,
    /// The breaker was open when that was looked at last, and when that was told last (monotonic ns).
    open: bool,
    told_ns: Option<u64>,
}

#[derive(Debug)]
struct Entry {
    destination: Destination,
    rates: Arc<Rates>,
    places: Vec<Place>,
    next_id: u32,
    balancer: Arc<Balancer>,
    /// What is written of it: the count of its changes, when (monotonic ns), its state, since when (ms since the epoch).
    written: u64,
    written_ns: u64,
    state: State,
    since_ms: u64,
    noticed: u8,
    secrets: Option<Arc<Rotated>>,
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
    /// Secrets that take the place of configured ones.
    secrets: Mutex<BTreeMap<String, Arc<Rotated>>>,
    /// Held while secrets are rotated: what one adds, another must find. Shards do not take it.
    pub(crate) rotating: Mutex<()>,
    /// Some endpoint may have to be asked.
    pending: AtomicBool,
}

/// Where several endpoints are, the destination as a whole is disabled, not each of them.
fn policy(d: &Destination, several: bool) -> EndpointPolicy {
    let never = DisablePolicy { after: Duration::MAX, attempts_min: u32::MAX };
    EndpointPolicy {
        concurrency: if d.order == Order::Strict { 1 } else { d.concurrency },
        adapts: d.adaptive_concurrency,
        breaker: d.breaker,
        retry_after_max_ns: d.retry.retry_after_max.as_nanos() as u64,
        rate: d.rate,
        disable: if several { never } else { d.disable },
    }
}

fn reason(stopped: Stopped) -> (State, &'static str) {
    match stopped {
        Stopped::Gone => (State::Disabled, "the endpoint answered for a day that it is gone (410)"),
        Stopped::Failing => (State::Disabled, "it took nothing for too long"),
        Stopped::Suspended => (State::Suspended, "by an operator"),
        Stopped::Pending => (State::Pending, "it has not been asked yet whether it wants events"),
    }
}

fn known_of(s: &EndpointStanding, of_all: State) -> Known {
    let state = if of_all == State::Suspended { State::Suspended } else { s.state };
    Known {
        stopped: match state {
            State::Active | State::Pending => None,
            State::Suspended => Some(Stopped::Suspended),
            State::Disabled if s.gone_ms > 0 => Some(Stopped::Gone),
            State::Disabled => Some(Stopped::Failing),
        },
        failing_ns: s.failing_ms.saturating_mul(MS),
        failing_attempts: s.failing_attempts,
        noticed: s.noticed,
        gone_ns: (s.gone_ms > 0).then(|| s.gone_ms.saturating_mul(MS)),
        pending: false,
        granted: s.granted_per_minute,
    }
}

/// What is kept of an endpoint, by its key; of the only one, what earlier versions kept of its destination.
fn kept_of(s: &Standing, key: &str, several: bool) -> Option<EndpointStanding> {
    if s.endpoints.is_empty() && !several {
        let mut one = EndpointStanding { state: s.state, ..EndpointStanding::default() };
        (one.failing_ms, one.failing_attempts, one.noticed) = (s.failing_ms, s.failing_attempts, s.noticed);
        one.gone_ms = s.gone_ms;
        return Some(one);
    }
    s.endpoints.iter().find(|e| e.key == key).cloned()
}

/// Where a destination is: URLs, and for what is none one that nothing else has.
fn addresses(d: &Destination) -> Vec<Url> {
    match &d.kind {
        DestinationKind::Webhook(webhook) => webhook.urls().cloned().collect(),
        DestinationKind::Custom(custom) => Url::parse(&format!("custom:{}", custom.handler)).into_iter().collect(),
    }
}

/// The destination as if the endpoint of this place were its only one, with secrets that take the place of configured ones.
fn at_endpoint(d: &Destination, at: usize, secrets: Option<&Rotated>) -> Destination {
    let mut d = d.clone();
    if let Some(w) = d.kind.webhook_mut() {
        *w = w.of_endpoint(at);
        if let Some(rotated) = secrets {
            rotated.apply(&mut w.auth);
        }
    }
    d
}

fn key_of(url: &Url) -> String {
    fingerprint(&[url.as_str()])
}

impl Place {
    /// Takes note of how the endpoint is to be asked. Where it has agreed to just that, it is not asked again.
    fn set_verification(&mut self, verification: Option<&Verification>) {
        let proof = verification.map_or(String::new(), |v| v.proof(&self.url));
        if proof.is_empty() {
            self.endpoint.needs_no_verification();
        }
        if proof == self.asking.proof {
            return;
        }
        let agreed = std::mem::take(&mut self.asking.agreed);
        self.asking = Asking { proof, agreed, ..Asking::default() };
        match () {
            () if self.asking.proof.is_empty() || self.asking.proof == self.asking.agreed => {}
            () => self.endpoint.unverified(),
        }
    }

    fn standing(&self, now_ns: u64) -> EndpointStanding {
        let known = self.endpoint.known(now_ns);
        let (state, why) = self.endpoint.stopped().map_or((State::Active, ""), reason);
        let why = if state == State::Pending && !self.asking.reason.is_empty() { &self.asking.reason } else { why };
        EndpointStanding {
            at: if self.url.has_host() { self.url.origin().ascii_serialization() } else { self.url.to_string() },
            key: self.key.clone(),
            state,
            reason: why.to_owned(),
            left_alone: state == State::Active && !matches!(self.endpoint.gate(now_ns), Gate::Closed),
            failing_ms: known.failing_ns / MS,
            failing_attempts: known.failing_attempts,
            noticed: known.noticed,
            gone_ms: known.gone_ns.map_or(0, |ns| (ns / MS).max(1)),
            latency_us: self.endpoint.latency_ns() / 1000,
            verified: self.asking.agreed.clone(),
            granted_per_minute: known.granted,
        }
    }

    fn agree(&mut self, per_minute: Option<u32>) {
        self.asking.agreed.clone_from(&self.asking.proof);
        (self.asking.code, self.asking.reason) = (String::new(), String::new());
        (self.asking.attempts, self.asking.under_way) = (0, false);
        self.endpoint.verified(per_minute);
    }
}

impl Entry {
    fn new(d: &Destination, kept: Option<Standing>, secrets: Option<Arc<Rotated>>, tls: &Arc<Keeper>) -> Entry {
        let rates = Arc::new(Rates::default());
        rates.set(&d.rate);
        let kept = kept.unwrap_or_default();
        let watched = Watched::of(&d.kind, tls);
        let certificates = if watched.is_some() { kept.certificates.clone() } else { Certificates::default() };
        let mut entry = Entry {
            destination: d.clone(),
            rates,
            places: Vec::new(),
            next_id: 0,
            balancer: Balancer::new(Balance::default(), Vec::new()),
            written: 0,
            written_ns: 0,
            state: kept.state,
            since_ms: kept.since_ms,
            noticed: kept.noticed,
            secrets,
            watched,
            written_certificates: certificates.clone(),
            certificates,
        };
        entry.arrange(&kept);
        if let Some(first) = entry.places.first() {
            let known = first.endpoint.known(0);
            first.endpoint.restore(known, kept.attempts, 0);
        }
        // What is pending now was not before, or it would not be told.
        entry
    }

    /// Makes the places that the destination has now. What is known of an address stays with it.
    fn arrange(&mut self, kept: &Standing) {
        let destination = self.destination.clone();
        let w = destination.kind.webhook();
        let endpoints = w.map_or(&[][..], |w| &w.endpoints);
        let several = endpoints.len() > 1;
        let policy = policy(&self.destination, several);
        let mut before = std::mem::take(&mut self.places);
        for url in addresses(&destination) {
            let at = before.iter().position(|p| p.url == url);
            let mut place = match at {
                Some(at) => before.remove(at),
                None => {
                    let endpoint = Endpoint::of_several(self.next_id, policy, self.rates.clone());
                    self.next_id += 1;
                    let key = key_of(&url);
                    let mut asking = Asking::default();
                    let suspended = kept.state == State::Suspended;
                    let found = kept_of(kept, &key, several)
                        .or(suspended.then(|| EndpointStanding { state: State::Suspended, ..Default::default() }));
                    if let Some(s) = found {
                        endpoint.restore(known_of(&s, kept.state), Vec::new(), 0);
                        asking.agreed = s.verified;
                    }
                    Place { url, key, endpoint, asking, open: false, told_ns: None }
                }
            };
            place.endpoint.set_policy(policy);
            place.set_verification(w.and_then(|w| w.verification.as_ref()));
            self.places.push(place);
        }
        let target = |(at, p): (usize, &Place)| {
            let e = endpoints.get(at);
            Target {
                endpoint: p.endpoint.clone(),
                at,
                weight: e.map_or(1, |e| e.weight),
                priority: e.map_or(0, |e| e.priority),
                region: e.and_then(|e| e.region.as_deref()).map_or(0, region_number),
                place: u64::from_str_radix(&p.key[..16], 16).unwrap_or(at as u64),
            }
        };
        let usual = if self.destination.order == Order::None { Balance::LeastOutstanding } else { Balance::Affinity };
        let targets = self.places.iter().enumerate().map(target).collect();
        self.balancer = Balancer::new(w.and_then(|w| w.balance).unwrap_or(usual), targets);
    }

    /// Takes changed settings.
    fn reconfigure(&mut self, d: &Destination, tls: &Arc<Keeper>) {
        if self.destination == *d {
            return;
        }
        let suspended = self.state() == State::Suspended;
        let before = std::mem::replace(&mut self.destination, d.clone());
        self.rates.set(&d.rate);
        let known = Standing { state: if suspended { State::Suspended } else { State::Active }, ..Standing::default() };
        self.arrange(&known);
        if before.kind != d.kind {
            // With other settings it may work, whatever was known.
            self.places.iter().for_each(|p| p.endpoint.replaced());
            (self.watched, self.certificates) = (Watched::of(&d.kind, tls), Certificates::default());
        }
    }

    fn certificates(&self) -> Certificates {
        let mut known = self.certificates.clone();
        if let Some(watched) = &self.watched {
            watched.update(&mut known);
        }
        known
    }

    /// Of the destination as a whole: it is active if any endpoint is.
    fn state(&self) -> State {
        let of = |p: &Place| p.endpoint.stopped().map_or(State::Active, |s| reason(s).0);
        let states: Vec<State> = self.places.iter().map(of).collect();
        let any = |state: State| states.contains(&state);
        match () {
            () if any(State::Active) => State::Active,
            () if any(State::Suspended) => State::Suspended,
            () if any(State::Pending) => State::Pending,
            () => State::Disabled,
        }
    }

    fn standing(&self, now_ns: u64, wall_ms: u64) -> Standing {
        let mut s = Standing { state: self.state(), since_ms: self.since_ms, ..Standing::default() };
        s.endpoints = self.places.iter().map(|p| p.standing(now_ns)).collect();
        s.reason = s.endpoints.iter().find(|e| e.state == s.state).map_or(String::new(), |e| e.reason.clone());
        // It takes nothing if none of them does.
        let failing = s.endpoints.iter().min_by_key(|e| e.failing_ms);
        s.failing_ms = failing.map_or(0, |e| e.failing_ms);
        s.failing_attempts = s.endpoints.iter().map(|e| e.failing_attempts).sum();
        s.noticed = if self.places.len() > 1 { self.noticed } else { s.endpoints.first().map_or(0, |e| e.noticed) };
        s.gone_ms = s.endpoints.iter().map(|e| e.gone_ms).min().unwrap_or(0);
        if s.state == State::Pending {
            let next = self.places.iter().filter(|p| p.endpoint.is_pending()).map(|p| p.asking.next_ns).min();
            s.next_verification_ms = next.map_or(0, |at| wall_ms + at.saturating_sub(now_ns) / MS);
        }
        s.certificates = self.certificates();
        s.attempts = self.places.iter().flat_map(|p| p.endpoint.attempts()).collect();
        s.attempts.sort_by_key(|a| a.at_ms);
        let more = s.attempts.len().saturating_sub(ATTEMPTS_MAX);
        s.attempts.drain(..more);
        s
    }

    fn changes(&self) -> u64 {
        self.places.iter().map(|p| p.endpoint.changes()).fold(0, u64::wrapping_add)
    }

    /// Disables a destination none of whose endpoints takes anything, and the warning that is due before.
    fn look_at_failing(&mut self, now_ns: u64) -> Option<u8> {
        if let [one] = &*self.places {
            return one.endpoint.take_notice(now_ns);
        }
        let disable = self.destination.disable;
        let known: Vec<Known> = self.places.iter().map(|p| p.endpoint.known(now_ns)).collect();
        let failing = known.iter().filter(|k| k.stopped != Some(Stopped::Gone)).map(|k| k.failing_ns).min()?;
        if failing == 0 {
            self.noticed = 0;
            return None;
        }
        let after = u64::try_from(disable.after.as_nanos()).unwrap_or(u64::MAX).max(1);
        let attempts: u64 = known.iter().map(|k| u64::from(k.failing_attempts)).sum();
        if failing >= after && attempts >= u64::from(disable.attempts_min) {
            self.places.iter().for_each(|p| p.endpoint.give_up());
        }
        let percent = u128::from(failing) * 100 / u128::from(after);
        let due = [50, 70, 90, 100].into_iter().rfind(|n| u128::from(*n) <= percent && *n > self.noticed)?;
        self.noticed = due;
        Some(due)
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
            let state = match order {
                standing::Order::Suspend => State::Suspended,
                standing::Order::Resume => State::Active,
                // Taken up when the endpoints are there.
                standing::Order::Confirm(_) | standing::Order::Secrets => continue,
            };
            let s: &mut Standing = kept.entry(name).or_default();
            let (attempts, endpoints) = (std::mem::take(&mut s.attempts), std::mem::take(&mut s.endpoints));
            // What somebody has agreed to is another matter.
            let endpoints = endpoints.into_iter().map(|e| EndpointStanding {
                at: e.at,
                key: e.key,
                state,
                verified: e.verified,
                granted_per_minute: e.granted_per_minute,
                ..EndpointStanding::default()
            });
            *s = Standing { state, attempts, endpoints: endpoints.collect(), ..Standing::default() };
        }
        Endpoints {
            tls,
            all: Mutex::default(),
            kept: Mutex::new(kept),
            secrets: Mutex::new(Rotated::read_all(dir)),
            rotating: Mutex::default(),
            pending: AtomicBool::new(true),
        }
    }

    /// Goes over to the destinations that have come into force, so that who asks for one at once finds it. Shards do so again
    /// when they come to it.
    pub(crate) fn follow(&self, earlier: &LiveDestinations, now: &LiveDestinations) {
        for (number, d) in now.by_number() {
            if !earlier.get(number).is_some_and(|before| Arc::ptr_eq(before, d)) {
                self.of(number, d);
            }
        }
    }

    /// The endpoints of a destination with these settings.
    pub(crate) fn of(&self, number: u32, d: &Destination) -> Arc<Balancer> {
        let mut all = self.all.lock();
        let entry = match all.entry(number) {
            std::collections::btree_map::Entry::Occupied(entry) => {
                let entry = entry.into_mut();
                entry.reconfigure(d, &self.tls);
                entry
            }
            std::collections::btree_map::Entry::Vacant(place) => {
                let kept = self.kept.lock().remove(&d.name);
                let secrets = self.secrets.lock().get(&d.name).cloned();
                place.insert(Entry::new(d, kept, secrets, &self.tls))
            }
        };
        if entry.places.iter().any(|p| p.endpoint.is_pending()) {
            self.pending.store(true, Ordering::SeqCst);
        }
        entry.balancer.clone()
    }

    /// The destination as it is reached at one of its endpoints, by its place, with the secrets that hold.
    pub(crate) fn reached(&self, number: u32, d: &Destination, at: usize) -> Destination {
        let secrets = self.all.lock().get(&number).and_then(|e| e.secrets.clone());
        at_endpoint(d, at, secrets.as_deref())
    }

    /// What is known of a destination, by name.
    pub(crate) fn standing(&self, name: &str, now_ns: u64, wall_ms: u64) -> Option<Standing> {
        self.all.lock().values().find(|e| e.destination.name == name).map(|e| e.standing(now_ns, wall_ms))
    }

    /// What is known of the certificates of a destination, by number.
    pub(crate) fn certificates(&self, number: u32) -> Certificates {
        self.all.lock().get(&number).map(Entry::certificates).unwrap_or_default()
    }

    /// Does what an operator asks for. The number of the destination, if there is such.
    pub(crate) fn obey(&self, name: &str, order: standing::Order) -> Option<u32> {
        let mut all = self.all.lock();
        let (number, entry) = all.iter_mut().find(|(_, e)| e.destination.name == name)?;
        for p in &mut entry.places {
            match order {
                standing::Order::Suspend => p.endpoint.suspend(),
                standing::Order::Resume => {
                    p.endpoint.reset();
                    (p.asking.next_ns, p.asking.attempts) = (0, 0);
                }
                standing::Order::Confirm(rate) if p.endpoint.is_pending() => p.agree(rate),
                standing::Order::Confirm(_) | standing::Order::Secrets => {}
            }
        }
        if order == standing::Order::Resume {
            self.pending.store(true, Ordering::SeqCst);
        }
        log::info!("destination `{name}`: {order:?}");
        Some(*number)
    }

    /// Takes secrets that were rotated. The number of the destination, if there is such.
    pub(crate) fn set_secrets(&self, name: &str, rotated: Rotated) -> Option<u32> {
        let rotated = Arc::new(rotated);
        self.secrets.lock().insert(name.to_owned(), rotated.clone());
        let mut all = self.all.lock();
        let (number, entry) = all.iter_mut().find(|(_, e)| e.destination.name == name)?;
        entry.secrets = Some(rotated);
        Some(*number)
    }

    /// The settings of a destination, by name.
    pub(crate) fn settings(&self, name: &str) -> Option<Destination> {
        self.all.lock().values().find(|e| e.destination.name == name).map(|e| e.destination.clone())
    }

    /// Whether any endpoint may have to be asked if it wants events.
    pub(crate) fn has_pending(&self) -> bool {
        self.pending.load(Ordering::SeqCst)
    }

    /// The endpoints that are to be asked now, of the destinations that `is_there`.
    pub(crate) fn to_ask(&self, now_ns: u64, most: usize, is_there: impl Fn(u32) -> bool) -> Vec<Question> {
        let mut found = Vec::new();
        let mut all = self.all.lock();
        self.pending.store(false, Ordering::SeqCst);
        for (number, entry) in all.iter_mut() {
            if !entry.places.iter().any(|p| p.endpoint.is_pending()) || !is_there(*number) {
                continue;
            }
            self.pending.store(true, Ordering::SeqCst);
            if entry.state() == State::Suspended {
                continue;
            }
            let secrets = entry.secrets.clone();
            let d = &entry.destination;
            for (at, p) in entry.places.iter_mut().enumerate() {
                let a = &mut p.asking;
                if !p.endpoint.is_pending() || a.under_way || a.next_ns > now_ns || found.len() >= most {
                    continue;
                }
                if a.code.is_empty() {
                    match new_code() {
                        Ok(code) => a.code = code,
                        Err(e) => {
                            // Never with one that could be guessed: it is asked later.
                            log::error!("destination `{}` cannot be asked now: no random numbers: {e}", d.name);
                            continue;
                        }
                    }
                }
                a.under_way = true;
                let destination = at_endpoint(d, at, secrets.as_deref());
                found.push(Question { number: *number, endpoint: p.endpoint.id(), destination, code: a.code.clone() });
            }
        }
        found
    }

    /// What came of a question: the rate that was granted, or why nothing was. `None` if nobody knows, because the engine
    /// closes. Whether it may send now.
    pub(crate) fn answered(
        &self,
        question: &Question,
        answer: Option<Result<Option<u32>, Unwilling>>,
        now_ns: u64,
        random: f64,
    ) -> bool {
        let mut all = self.all.lock();
        let Some(entry) = all.get_mut(&question.number) else { return false };
        let name = entry.destination.name.clone();
        let Some(p) = entry.places.iter_mut().find(|p| p.endpoint.id() == question.endpoint) else { return false };
        // Settings that changed meanwhile want another question.
        let asked = question.destination.kind.webhook();
        let same = asked.and_then(|w| w.verification.as_ref()).is_some_and(|v| v.proof(&p.url) == p.asking.proof);
        p.asking.under_way = false;
        match answer {
            Some(Ok(rate)) if same && p.endpoint.is_pending() => {
                p.agree(rate);
                log::info!("destination `{name}`: the endpoint agrees to be sent events");
                true
            }
            Some(Err(Unwilling { reason, wait })) if same => {
                let wait = wait.unwrap_or_else(|| backoff(ASK_MIN, ASK_MAX, p.asking.attempts)).as_nanos() as u64;
                p.asking.attempts = p.asking.attempts.saturating_add(1);
                p.asking.next_ns = now_ns + wait / 2 + (wait as f64 / 2.0 * random) as u64;
                log::debug!("destination `{name}`: asked again in {wait} ns at most");
                if p.asking.reason != reason {
                    log::warn!("destination `{name}` is pending: {reason}");
                    p.asking.reason = reason;
                    // So that it is written.
                    p.endpoint.touch();
                }
                false
            }
            _ => false,
        }
    }

    /// Somebody shows the code that an endpoint was given. Whether it is one; and the number of the destination.
    pub(crate) fn show_code(&self, name: &str, code: &str, rate: Option<u32>) -> Option<u32> {
        let mut all = self.all.lock();
        let (number, entry) = all.iter_mut().find(|(_, e)| e.destination.name == name)?;
        let requested = entry.destination.kind.webhook().and_then(|w| w.verification.as_ref()?.rate);
        let is_it = |p: &&mut Place| {
            // By their hashes, so that the time it takes says nothing.
            !p.asking.code.is_empty() && fingerprint(&[code]) == fingerprint(&[&p.asking.code])
        };
        let place = entry.places.iter_mut().find(is_it)?;
        place.agree(rate.or(requested));
        Some(*number)
    }

    /// Takes up orders, gives warnings, and writes down what has changed: at once what somebody decided, and now and then,
    /// or if this is the `last` time, what merely failed. The destinations that may send again, those whose secrets have
    /// changed, and what there is to tell of. Blocks on files.
    pub(crate) fn tend(&self, dir: &Path, now_ns: u64, wall_ms: u64, last: bool) -> Tended {
        let mut tended = Tended::default();
        let mut taken_up = Vec::new();
        for (name, order) in standing::orders(dir) {
            if order == standing::Order::Secrets {
                match Rotated::read(dir, &name) {
                    Ok(Some(rotated)) => tended.rotated.extend(self.set_secrets(&name, rotated)),
                    Ok(None) => {}
                    Err(e) => log::error!("destination `{name}`: its rotated secrets cannot be read: {e}"),
                }
            }
            tended.turns.extend(self.obey(&name, order));
            taken_up.push((name, order));
        }
        let mut due = Vec::new();
        // Shards ask for endpoints meanwhile, and must not wait for the look at all of them.
        let numbers: Vec<u32> = self.all.lock().keys().copied().collect();
        for number in numbers {
            let mut all = self.all.lock();
            let Some(entry) = all.get_mut(&number) else { continue };
            let name = entry.destination.name.clone();
            let mut tell = |what: News, reason: &str| {
                tended.notices.push(Notice { name: name.clone(), what, reason: reason.to_owned() });
            };
            if let Some(percent) = entry.look_at_failing(now_ns) {
                log::warn!(
                    "destination `{name}` has taken nothing for {percent} % of the time after which it is disabled"
                );
                tell(News::Failing(percent), "it takes nothing");
            }
            for p in &mut entry.places {
                let open = p.endpoint.is_open();
                let was = std::mem::replace(&mut p.open, open);
                let has_opened = open && !was;
                // One that comes and goes is no reason for a storm.
                if has_opened && p.told_ns.is_none_or(|told| now_ns.saturating_sub(told) >= TELL_EVERY_NS) {
                    p.told_ns = Some(now_ns);
                    tell(News::BreakerOpened, "the endpoint is left alone, for its attempts fail");
                }
            }
            entry.certificates = entry.certificates();
            if let Some(watched) = &mut entry.watched {
                watched.warn(&name, &entry.certificates, wall_ms);
            }
            let (changes, state) = (entry.changes(), entry.state());
            let decided = state != entry.state;
            if decided {
                let before = std::mem::replace(&mut entry.state, state);
                entry.since_ms = wall_ms;
                let why = entry.standing(now_ns, wall_ms).reason;
                match (before, state) {
                    (_, State::Disabled) => {
                        log::error!("destination `{name}` is disabled: {why}; its events wait until it is resumed");
                        tell(News::Disabled, &why);
                    }
                    (_, State::Suspended) => tell(News::Suspended, &why),
                    (_, State::Pending) => tell(News::Pending, &why),
                    (State::Pending, State::Active) => tell(News::Verified, "it agrees to be sent events"),
                    (_, State::Active) => tell(News::Resumed, "it gets events again"),
                }
            }
            let waited = now_ns.saturating_sub(entry.written_ns) >= WRITE_EVERY_NS || entry.written == 0;
            let is_news = changes != entry.written || entry.certificates != entry.written_certificates;
            if decided || taken_up.iter().any(|(n, _)| *n == name) || (is_news && (waited || last)) {
                due.push((number, changes, decided));
            }
        }
        // What was decided goes first.
        due.sort_by_key(|(_, _, decided)| !decided);
        for (number, changes, _) in due.into_iter().take(if last { usize::MAX } else { WRITES_MAX }) {
            let found = self.all.lock().get(&number).map(|e| (e.destination.name.clone(), e.standing(now_ns, wall_ms)));
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
                    taken_up.retain(|(n, _)| *n != name);
                }
            }
        }
        for (name, order) in taken_up {
            if let Err(e) = standing::forget_order(dir, &name, order) {
                log::error!("destination `{name}`: the order that was taken up cannot be removed: {e}");
            }
        }
        tended
    }

    /// What takes the place of an endpoint where there is none: one at a time, and always there.
    pub(crate) fn none() -> Arc<Balancer> {
        let breaker = BreakerPolicy {
            consecutive_failures: u32::MAX,
            calls_min: u32::MAX,
            window: Duration::from_secs(3600),
            ..BreakerPolicy::default()
        };
        Balancer::single(Endpoint::new(EndpointPolicy {
            concurrency: 1,
            adapts: false,
            breaker,
            retry_after_max_ns: 0,
            rate: RateLimits::default(),
            disable: DisablePolicy { after: Duration::MAX, attempts_min: u32::MAX },
        }))
    }
}

/// What came of looking after endpoints.
#[derive(Debug, Default)]
pub(crate) struct Tended {
    /// Destinations that may send again.
    pub(crate) turns: Vec<u32>,
    /// Destinations whose secrets have changed.
    pub(crate) rotated: Vec<u32>,
    pub(crate) notices: Vec<Notice>,
}

/// What nobody can guess, in hex.
fn new_code() -> crate::error::Result<String> {
    Ok(format!("{:016x}{:016x}", crate::driver::random_u64()?, crate::driver::random_u64()?))
}

#[cfg(test)]
mod tests;
