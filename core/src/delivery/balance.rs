//! Which of its endpoints a destination's next request goes to.
//!
//! Endpoints stand in groups by priority; a group is used only while none of the groups before it has an endpoint that can
//! be used. Within the group those nearest to the event's region come first, and among these the method decides. What is
//! known of each endpoint, and so whether it can be used, is kept in [`Endpoint`]; here nothing is kept but whose turn it
//! is. With one endpoint all of this is a call of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::breaker::Gate;
use super::endpoint::{Endpoint, Leave, NEVER_NS, Seat};
use crate::rule::Balance;

/// One of the endpoints.
#[derive(Clone, Debug)]
pub struct Target {
    /// What is known of it.
    pub endpoint: Arc<Endpoint>,
    /// Its place in the destination's list.
    pub at: usize,
    /// Its share, compared with the others of its group; at least 1.
    pub weight: u32,
    /// Lower numbers are used first.
    pub priority: u32,
    /// Its region, as [`region_number`] has it.
    pub region: u32,
    /// A number that its address decides, so that every shard and every run sends a key the same way.
    pub place: u64,
}

/// The regions of events and endpoints as numbers: 0 for none.
pub fn region_number(name: &str) -> u32 {
    if name.is_empty() {
        return 0;
    }
    // FNV-1a; two regions with one number would merely be near to each other.
    let hash = name.bytes().fold(0x811c_9dc5_u32, |h, b| (h ^ u32::from(b)).wrapping_mul(0x0100_0193));
    hash.max(1)
}

/// What is to be sent.
#[derive(Clone, Copy, Debug)]
pub struct Want {
    /// Up to so many events.
    pub events: usize,
    /// Up to so many bytes.
    pub bytes: usize,
    /// All of them or nothing.
    pub whole: bool,
    /// The key of the first one.
    pub key: u64,
    /// The region of all of them; see [`region_number`].
    pub region: u32,
    /// The endpoint that has just failed with them: another one is tried first.
    pub failed: Option<u32>,
}

/// What is known of a target at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Health {
    Usable,
    /// One request at a time, to see whether it is there again, and none is on its way.
    Probe,
    /// The same, and one is on its way.
    Probed,
    /// Not before this time.
    Away(u64),
}

/// Where something goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Choice {
    To(usize),
    Wait(u64),
    /// Every endpoint that could be used is being probed.
    Probed,
}

/// See the module.
#[derive(Debug)]
pub struct Balancer {
    method: Balance,
    /// By priority.
    targets: Vec<Target>,
    regions: bool,
    turn: AtomicU64,
}

/// Spreads the bits of a number (splitmix64).
fn mix(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

/// From 0 to 1, neither included.
fn unit(x: u64) -> f64 {
    ((x >> 11) as f64 + 0.5) / (1u64 << 53) as f64
}

impl Balancer {
    /// Of at least one endpoint.
    pub fn new(method: Balance, mut targets: Vec<Target>) -> Arc<Balancer> {
        targets.sort_by_key(|t| t.priority);
        let regions = targets.iter().any(|t| t.region != 0);
        Arc::new(Balancer { method, targets, regions, turn: AtomicU64::new(0) })
    }

    /// Of one endpoint.
    pub fn single(endpoint: Arc<Endpoint>) -> Arc<Balancer> {
        Balancer::new(Balance::Affinity, vec![Target { endpoint, at: 0, weight: 1, priority: 0, region: 0, place: 0 }])
    }

    /// All of them, by priority.
    pub fn targets(&self) -> &[Target] {
        &self.targets
    }

    /// The only one, if there is one only.
    pub fn only(&self) -> Option<&Arc<Endpoint>> {
        match &*self.targets {
            [one] => Some(&one.endpoint),
            _ => None,
        }
    }

    /// The place of an endpoint in the destination's list, if it is one of them.
    pub fn place_of(&self, endpoint: u32) -> Option<usize> {
        self.targets.iter().find(|t| t.endpoint.id() == endpoint).map(|t| t.at)
    }

    /// Whether what a request carries must go to the same endpoint: events of other keys may belong elsewhere.
    pub fn is_choosy(&self) -> bool {
        self.targets.len() > 1 && (self.regions || self.method == Balance::Affinity)
    }

    /// What all of them together let through.
    pub fn gate(&self, now_ns: u64) -> Gate {
        if let Some(one) = self.only() {
            return one.gate(now_ns);
        }
        let mut until = NEVER_NS;
        let mut probes = false;
        for t in &self.targets {
            match t.endpoint.gate(now_ns) {
                Gate::Closed => return Gate::Closed,
                Gate::Probe => probes = true,
                Gate::Open(at) => until = until.min(at),
            }
        }
        if probes { Gate::Probe } else { Gate::Open(until) }
    }

    /// Whether nothing is sent until somebody says otherwise.
    pub fn is_stopped(&self) -> bool {
        self.targets.iter().all(|t| t.endpoint.is_stopped())
    }

    /// Whether all of them are left alone, or fail.
    pub fn is_held_up(&self, now_ns: u64) -> bool {
        let is_held_up = |t: &Target| t.endpoint.is_troubled() || matches!(t.endpoint.gate(now_ns), Gate::Open(_));
        self.targets.iter().all(is_held_up)
    }

    /// Whether the last probe of one succeeded, and more are to.
    pub fn answers(&self) -> bool {
        self.targets.iter().any(|t| t.endpoint.answers())
    }

    /// How often one came back after it was left alone, and how often somebody said that one works.
    pub fn recoveries(&self) -> (u32, u32) {
        self.targets.iter().fold((0, 0), |(a, b), t| {
            let (recovered, reset) = t.endpoint.recoveries();
            (a.wrapping_add(recovered), b.wrapping_add(reset))
        })
    }

    /// Until when all of them have asked to be left alone (monotonic ns).
    pub fn paused_until_ns(&self, now_ns: u64) -> u64 {
        let at = |t: &Target| match t.endpoint.gate(now_ns) {
            Gate::Open(_) => t.endpoint.paused_until_ns(),
            _ => now_ns,
        };
        self.targets.iter().map(at).min().unwrap_or(now_ns)
    }

    /// Whether it matters where an event happened.
    pub fn has_regions(&self) -> bool {
        self.regions
    }

    /// Whether another endpoint than this one can be used now.
    pub fn has_other(&self, than: u32, now_ns: u64) -> bool {
        self.targets.iter().any(|t| t.endpoint.id() != than && t.endpoint.gate(now_ns) == Gate::Closed)
    }

    /// Whether events of this key and region go to the endpoint of this number, as things are.
    pub fn leads_to(&self, endpoint: u32, key: u64, region: u32, now_ns: u64) -> bool {
        let want = Want { events: 1, bytes: 1, whole: false, key, region, failed: None };
        match self.choose(&want, now_ns, 0) {
            Choice::To(at) => self.targets[at].endpoint.id() == endpoint,
            _ => false,
        }
    }

    /// Asks to send.
    pub fn ask(&self, seat: Seat, want: &Want, now_ns: u64) -> Leave {
        if let Some(one) = self.only() {
            return one.ask(seat, want.events, want.bytes, want.whole, now_ns);
        }
        // A turn that comes to nothing is not given back: that only shifts whose turn is next.
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        match self.choose(want, now_ns, turn) {
            Choice::Wait(until) => Leave::Wait(until),
            Choice::Probed => Leave::Busy(now_ns.saturating_add(ASK_AGAIN_NS)),
            Choice::To(at) => {
                let endpoint = &self.targets[at].endpoint;
                match endpoint.ask(seat, want.events, want.bytes, want.whole, now_ns) {
                    // Its breaker or a pause came between. Others may be there.
                    Leave::Wait(_) if matches!(endpoint.gate(now_ns), Gate::Open(_)) => {
                        Leave::Busy(now_ns.saturating_add(ASK_AGAIN_NS))
                    }
                    other => other,
                }
            }
        }
    }

    fn health(&self, t: &Target, now_ns: u64) -> Health {
        match t.endpoint.gate(now_ns) {
            Gate::Closed => Health::Usable,
            Gate::Open(until) => Health::Away(until),
            Gate::Probe => {
                let (n, limit) = t.endpoint.in_flight();
                if n < limit { Health::Probe } else { Health::Probed }
            }
        }
    }

    /// Where events go. `turn` counts the questions.
    fn choose(&self, want: &Want, now_ns: u64, turn: u64) -> Choice {
        let mut until = NEVER_NS;
        let mut probed = false;
        // Whether the one that has just failed would do, if there is no other.
        let mut again = None;
        let mut start = 0;
        while start < self.targets.len() {
            let priority = self.targets[start].priority;
            let end = start + self.targets[start..].iter().take_while(|t| t.priority == priority).count();
            let mut usable: Vec<usize> = Vec::with_capacity(end - start);
            let mut probes: Vec<usize> = Vec::new();
            for (at, t) in self.targets.iter().enumerate().take(end).skip(start) {
                match self.health(t, now_ns) {
                    Health::Away(at) => until = until.min(at),
                    Health::Probed => probed = true,
                    _ if want.failed == Some(t.endpoint.id()) => again = again.or(Some(at)),
                    Health::Usable => usable.push(at),
                    // What has just failed is no good probe while there is anything better.
                    Health::Probe if want.failed.is_some() => again = again.or(Some(at)),
                    Health::Probe => probes.push(at),
                }
            }
            start = end;
            if usable.is_empty() && probes.is_empty() {
                continue;
            }
            return Choice::To(self.choose_of(usable, probes, want, turn));
        }
        match again {
            Some(at) => Choice::To(at),
            None if probed => Choice::Probed,
            None => Choice::Wait(until),
        }
    }

    fn choose_of(&self, usable: Vec<usize>, probes: Vec<usize>, want: &Want, turn: u64) -> usize {
        if self.method == Balance::Affinity {
            let all: Vec<usize> = usable.into_iter().chain(probes).collect();
            return self.of_key(&self.nearest(all, want.region), want.key);
        }
        // Those that are to be probed do not wait for a turn: without a request they would never be back.
        if let Some(at) = probes.first() {
            return *at;
        }
        let near = self.nearest(usable, want.region);
        let has_place = |at: &usize| {
            let (n, limit) = self.targets[*at].endpoint.in_flight();
            n < limit
        };
        let free: Vec<usize> = near.iter().copied().filter(has_place).collect();
        // Where none has a place, one is asked all the same: it tells when it has.
        let of = if free.is_empty() { near } else { free };
        match self.method {
            Balance::Affinity | Balance::RoundRobin => of[(turn % of.len() as u64) as usize],
            Balance::LeastOutstanding => {
                let load = |at: usize| {
                    let t = &self.targets[at];
                    t.endpoint.in_flight().0 as f64 / f64::from(t.weight.max(1))
                };
                let first = (turn % of.len() as u64) as usize;
                let around = of[first..].iter().chain(&of[..first]).copied();
                around.min_by(|a, b| load(*a).total_cmp(&load(*b))).unwrap_or(of[first])
            }
            Balance::Weighted => {
                let total: u64 = of.iter().map(|at| u64::from(self.targets[*at].weight)).sum();
                // Multiples of the golden ratio fall evenly, so that the shares hold over few requests too.
                let fraction = turn.wrapping_mul(0x9E37_79B9_7F4A_7C15);
                let mut point = ((u128::from(fraction) * u128::from(total)) >> 64) as u64;
                for at in &of {
                    let weight = u64::from(self.targets[*at].weight);
                    if point < weight {
                        return *at;
                    }
                    point -= weight;
                }
                of[of.len() - 1]
            }
        }
    }

    /// Those of the event's region; if there are none, those of the region whose fastest one answers soonest.
    fn nearest(&self, of: Vec<usize>, region: u32) -> Vec<usize> {
        if !self.regions || of.len() < 2 {
            return of;
        }
        let has = |region: u32| of.iter().any(|at| self.targets[*at].region == region);
        let near = if region != 0 && has(region) {
            region
        } else {
            // What was never measured counts as near, so that it is measured.
            let soonest = of.iter().min_by_key(|at| self.targets[**at].endpoint.latency_ns());
            soonest.map_or(0, |at| self.targets[*at].region)
        };
        of.iter().copied().filter(|at| self.targets[*at].region == near).collect()
    }

    /// Rendezvous hashing with weights: when an endpoint goes or comes, only the keys move that it has.
    fn of_key(&self, of: &[usize], key: u64) -> usize {
        let score = |at: usize| {
            let t = &self.targets[at];
            -f64::from(t.weight.max(1)) / unit(mix(key ^ mix(t.place))).ln()
        };
        of.iter().copied().max_by(|a, b| score(*a).total_cmp(&score(*b))).unwrap_or(of[0])
    }
}

/// A lane that found everything taken asks again after so long, even if nobody tells it that something is free.
const ASK_AGAIN_NS: u64 = 100_000_000;

#[cfg(test)]
mod tests;
