//! The circuit breaker of an endpoint: after failures in a row it lets nothing through for a while, then one probe, then
//! everything. The time it stays open grows with each failed probe.

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

/// See the module.
#[derive(Clone, Debug)]
pub struct Breaker {
    policy: BreakerPolicy,
    failures: u32,
    /// How often it opened since the endpoint last worked.
    opened: u32,
    until_ns: Option<u64>,
}

impl Breaker {
    /// A closed breaker.
    pub fn new(policy: BreakerPolicy) -> Breaker {
        Breaker { policy, failures: 0, opened: 0, until_ns: None }
    }

    /// What may be sent now.
    pub fn gate(&self, now_ns: u64) -> Gate {
        match self.until_ns {
            None => Gate::Closed,
            Some(until) if now_ns < until => Gate::Open(until),
            Some(_) => Gate::Probe,
        }
    }

    /// The endpoint answered as it should, or at least answered for itself.
    pub fn success(&mut self) {
        self.failures = 0;
        self.opened = 0;
        self.until_ns = None;
    }

    /// The endpoint failed: no connection, no answer in time, or an error that is the endpoint's. `random` is uniform in
    /// [0, 1) and spreads the open time by ±20 %.
    pub fn failure(&mut self, now_ns: u64, random: f64) {
        self.failures = self.failures.saturating_add(1);
        let probing = self.until_ns.is_some_and(|until| now_ns >= until);
        if probing || (self.until_ns.is_none() && self.failures >= self.policy.consecutive_failures) {
            let open = backoff(self.policy.open_min, self.policy.open_max, self.opened);
            self.until_ns = Some(now_ns + (open.as_nanos() as f64 * (0.8 + 0.4 * random)) as u64);
            self.opened = self.opened.saturating_add(1);
        }
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
        })
    }

    #[test]
    fn opens_after_failures_in_a_row_only() {
        let mut b = breaker();
        for _ in 0..10 {
            b.failure(0, 0.5);
            b.failure(0, 0.5);
            b.success();
        }
        assert_eq!(b.gate(0), Gate::Closed);
        for _ in 0..3 {
            b.failure(0, 0.5);
        }
        assert_eq!(b.gate(0), Gate::Open(5 * S));
        assert_eq!(b.gate(5 * S), Gate::Probe);
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
        b.success();
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
