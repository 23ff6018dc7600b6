//! The circuit breaker of an endpoint: after failures in a row, or too large a share of failures in a while, it lets
//! nothing through for some time, then one probe at a time, then everything. The time it stays open grows with each
//! failed probe.

use std::time::Duration;

use crate::rule::BreakerPolicy;

/// What the breaker lets through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// Everything.
    Closed,
    /// One attempt at a time.
    Probe,
    /// Nothing before this time (monotonic ns).
    Open(u64),
}

/// The parts that the window is made of: the oldest goes at a time.
const PARTS: usize = 10;

#[derive(Clone, Copy, Debug, Default)]
struct Part {
    /// Which stretch of time since the start it counts.
    number: u64,
    calls: u32,
    failed: u32,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Breaker {
    policy: BreakerPolicy,
    /// In a row.
    failures: u32,
    window: [Part; PARTS],
    /// How often it opened since the endpoint last worked.
    opened: u32,
    until_ns: Option<u64>,
    /// Probes in a row that succeeded.
    successes: u32,
}

impl Breaker {
    /// A closed breaker.
    pub fn new(policy: BreakerPolicy) -> Breaker {
        Breaker { policy, failures: 0, window: [Part::default(); PARTS], opened: 0, until_ns: None, successes: 0 }
    }

    /// What may be sent now.
    pub fn gate(&self, now_ns: u64) -> Gate {
        match self.until_ns {
            None => Gate::Closed,
            Some(until) if now_ns < until => Gate::Open(until),
            Some(_) => Gate::Probe,
        }
    }

    /// Nothing has failed of late, so that another success changes nothing but the counts.
    pub fn is_calm(&self) -> bool {
        self.until_ns.is_none() && self.failures == 0
    }

    /// The time before which nothing goes, once it has opened and until it is closed again.
    pub fn until_ns(&self) -> Option<u64> {
        self.until_ns
    }

    /// The last probe succeeded, and more of them are to.
    pub fn answers(&self) -> bool {
        self.successes > 0
    }

    fn count(&mut self, now_ns: u64, failed: bool) {
        let length = (self.policy.window.as_nanos() as u64 / PARTS as u64).max(1);
        let number = now_ns / length;
        let part = &mut self.window[(number % PARTS as u64) as usize];
        if part.number != number {
            *part = Part { number, ..Part::default() };
        }
        part.calls = part.calls.saturating_add(1);
        part.failed = part.failed.saturating_add(u32::from(failed));
    }

    fn has_failed_share(&self, now_ns: u64) -> bool {
        let length = (self.policy.window.as_nanos() as u64 / PARTS as u64).max(1);
        let oldest = (now_ns / length).saturating_sub(PARTS as u64 - 1);
        let (mut calls, mut failed) = (0u64, 0u64);
        for part in self.window.iter().filter(|p| p.number >= oldest) {
            calls += u64::from(part.calls);
            failed += u64::from(part.failed);
        }
        calls >= u64::from(self.policy.calls_min) && failed * 100 >= calls * u64::from(self.policy.failed_percent)
    }

    /// The endpoint answered as it should, or at least answered for itself. Whether that closed the breaker.
    pub fn success(&mut self, now_ns: u64) -> bool {
        self.failures = 0;
        match self.gate(now_ns) {
            Gate::Closed => self.count(now_ns, false),
            // Of an attempt that began before it opened.
            Gate::Open(_) => {}
            Gate::Probe => {
                self.successes += 1;
                self.opened = 0;
                if self.successes >= self.policy.successes {
                    *self = Breaker::new(self.policy);
                    return true;
                }
            }
        }
        false
    }

    /// The endpoint failed: no connection, no answer in time, or an error that is the endpoint's. `random` is uniform in
    /// [0, 1) and spreads the open time by ±20 %.
    pub fn failure(&mut self, now_ns: u64, random: f64) {
        self.failures = self.failures.saturating_add(1);
        match self.gate(now_ns) {
            Gate::Open(_) => {}
            Gate::Probe => self.trip(now_ns, random),
            Gate::Closed => {
                self.count(now_ns, true);
                if self.failures >= self.policy.consecutive_failures || self.has_failed_share(now_ns) {
                    self.trip(now_ns, random);
                }
            }
        }
    }

    /// Opens at once, for longer each time.
    pub fn trip(&mut self, now_ns: u64, random: f64) {
        let open = backoff(self.policy.open_min, self.policy.open_max, self.opened);
        self.open_until(now_ns + (open.as_nanos() as f64 * (0.8 + 0.4 * random)) as u64);
        self.opened = self.opened.saturating_add(1);
    }

    /// Opens until this time.
    pub fn open_until(&mut self, at_ns: u64) {
        self.until_ns = Some(at_ns);
        self.successes = 0;
    }
}

/// `min * 2^n`, at most `max`.
pub fn backoff(min: Duration, max: Duration, n: u32) -> Duration {
    min.checked_mul(1u32.checked_shl(n.min(31)).unwrap_or(u32::MAX)).map_or(max, |d| d.min(max))
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;

    fn breaker() -> Breaker {
        Breaker::new(BreakerPolicy {
            consecutive_failures: 3,
            open_min: Duration::from_secs(5),
            open_max: Duration::from_secs(60),
            ..BreakerPolicy::default()
        })
    }

    #[test]
    fn opens_after_failures_in_a_row() {
        let mut b = breaker();
        for n in 0..10 {
            // Far enough from each other that the share of failures is not looked at.
            b.failure(n * 100 * S, 0.5);
            b.failure(n * 100 * S, 0.5);
            b.success(n * 100 * S);
        }
        assert_eq!(b.gate(1000 * S), Gate::Closed);
        for _ in 0..3 {
            b.failure(1000 * S, 0.5);
        }
        assert_eq!(b.gate(1000 * S), Gate::Open(1005 * S));
        assert_eq!(b.gate(1005 * S), Gate::Probe);
    }

    #[test]
    fn opens_when_half_of_ten_calls_within_the_window_failed() {
        let policy = BreakerPolicy::default();
        // One in two: opens with the tenth call. One in three never does; nor do too few, nor such that are long ago.
        for (every, calls, apart, opens) in
            [(2, 10, S, true), (2, 9, S, false), (3, 1000, S, false), (2, 1000, 4 * S, false)]
        {
            let mut b = Breaker::new(policy);
            for n in 1..=calls {
                match n % every {
                    0 => b.failure(n * apart, 0.5),
                    _ => assert!(!b.success(n * apart)),
                }
            }
            assert_eq!(b.gate(calls * apart) != Gate::Closed, opens, "1 of {every}, {calls} calls");
        }
    }

    #[test]
    fn a_failed_probe_opens_it_for_longer_up_to_the_cap_and_success_closes_it() {
        let mut b = breaker();
        (0..3).for_each(|_| b.failure(0, 0.5));
        let mut now = 0;
        for expect in [5, 10, 20, 40, 60, 60] {
            let Gate::Open(until) = b.gate(now) else { panic!("not open") };
            assert_eq!((until - now) / S, expect);
            now = until;
            assert_eq!(b.gate(now), Gate::Probe);
            b.failure(now, 0.5);
        }
        now += 60 * S;
        assert!(!b.success(now) && !b.success(now));
        assert_eq!(b.gate(now), Gate::Probe, "three in a row close it");
        assert!(b.success(now));
        assert_eq!(b.gate(now), Gate::Closed);
        (0..3).for_each(|_| b.failure(now, 0.5));
        assert_eq!(b.gate(now), Gate::Open(now + 5 * S));
    }

    #[test]
    fn failures_of_attempts_begun_before_it_opened_do_not_lengthen_it() {
        let mut b = breaker();
        (0..3).for_each(|_| b.failure(0, 0.5));
        let open = b.gate(0);
        b.failure(1, 0.5);
        b.success(1);
        assert_eq!(b.gate(1), open);
    }

    #[test]
    fn backoff_doubles_and_is_capped() {
        let (min, max) = (Duration::from_secs(1), Duration::from_secs(3600));
        assert_eq!(backoff(min, max, 0), min);
        assert_eq!(backoff(min, max, 3), Duration::from_secs(8));
        assert_eq!(backoff(min, max, 12), max);
        assert_eq!(backoff(min, max, u32::MAX), max);
    }
}
