//! How many requests an endpoint gets at once: one more per round trip while it keeps up, fewer when its answers get
//! slower or it says that it is too much, from one on after it was away.

/// What it begins with.
pub const START: u32 = 4;
/// How much of a new round trip goes into the mean (Vector's adaptive concurrency).
const ALPHA: f64 = 0.4;
/// So many deviations above the mean, answers count as slow.
const DEVIATIONS: f64 = 2.5;
const LESS_WHEN_SLOW: f64 = 0.9;
const LESS_WHEN_TOO_MUCH: f64 = 0.5;
/// What answers may be later by without counting as slow: noise of the machine.
const NOISE_NS: f64 = 1_000_000.0;

/// See the module.
#[derive(Clone, Debug)]
pub struct Concurrency {
    max: u32,
    adapts: bool,
    limit: f64,
    /// Below this each success allows one more: it was enough before.
    slow_start_to: f64,
    mean_ns: Option<f64>,
    deviation_ns: f64,
    /// The round trip that is being measured.
    since_ns: u64,
    sum_ns: f64,
    n: u32,
    /// All that were allowed were used.
    saturated: bool,
    /// The last time that it was halved.
    halved_ns: Option<u64>,
}

impl Concurrency {
    /// At most `max` requests; exactly that many unless it adapts.
    pub fn new(max: u32, adapts: bool) -> Concurrency {
        let limit = if adapts { START.min(max) } else { max };
        Concurrency {
            max,
            adapts,
            limit: limit.into(),
            slow_start_to: 0.0,
            mean_ns: None,
            deviation_ns: 0.0,
            since_ns: 0,
            sum_ns: 0.0,
            n: 0,
            saturated: false,
            halved_ns: None,
        }
    }

    /// How many requests may be on their way.
    pub fn limit(&self) -> u32 {
        (self.limit as u32).clamp(1, self.max.max(1))
    }

    /// A request was answered after `rtt_ns`. `saturated`: since the last call there were as many as may be.
    pub fn answered(&mut self, rtt_ns: u64, saturated: bool, now_ns: u64) {
        if !self.adapts {
            return;
        }
        self.saturated |= saturated;
        if self.limit < self.slow_start_to {
            self.limit = (self.limit + 1.0).min(self.max.into());
        }
        self.sum_ns += rtt_ns as f64;
        self.n += 1;
        let mean = self.mean_ns.unwrap_or(rtt_ns as f64);
        if (now_ns.saturating_sub(self.since_ns) as f64) < mean {
            return;
        }
        let rtt = self.sum_ns / f64::from(self.n);
        let over = rtt - mean;
        if self.mean_ns.is_some() && over > (self.deviation_ns * DEVIATIONS).max(NOISE_NS) {
            self.limit = (self.limit * LESS_WHEN_SLOW).max(1.0);
            self.slow_start_to = 0.0;
        } else if self.saturated && self.limit >= self.slow_start_to {
            self.limit = (self.limit + 1.0).min(self.max.into());
        }
        self.deviation_ns = if self.mean_ns.is_some() {
            ALPHA.mul_add(over.abs(), (1.0 - ALPHA) * self.deviation_ns)
        } else {
            rtt / 2.0
        };
        self.mean_ns = Some(ALPHA.mul_add(rtt, (1.0 - ALPHA) * mean));
        (self.since_ns, self.sum_ns, self.n, self.saturated) = (now_ns, 0.0, 0, false);
    }

    /// The endpoint says that it is too much, or does not answer in time. At most once per round trip, for what is on its
    /// way together is told the same.
    pub fn too_much(&mut self, rtt_ns: u64, now_ns: u64) {
        if !self.adapts {
            return;
        }
        let trip = self.mean_ns.map_or(0, |m| m as u64).max(rtt_ns);
        if self.halved_ns.is_none_or(|at| now_ns.saturating_sub(at) >= trip.max(1)) {
            self.limit = (self.limit * LESS_WHEN_TOO_MUCH).max(1.0);
            self.slow_start_to = 0.0;
            self.halved_ns = Some(now_ns);
            (self.since_ns, self.sum_ns, self.n, self.saturated) = (now_ns, 0.0, 0, false);
        }
    }

    /// The endpoint was away and is there again: from one on, soon as many as before.
    pub fn restart(&mut self) {
        if self.adapts {
            self.slow_start_to = self.limit.max(START.into()).min(self.max.into());
        } else {
            self.slow_start_to = self.max.into();
        }
        // What does not adapt grows to where it was all the same.
        self.limit = 1.0;
    }

    /// A request was answered while it grows again, if it does not adapt otherwise.
    pub fn grow(&mut self) {
        if !self.adapts && self.limit < self.slow_start_to {
            self.limit = (self.limit + 1.0).min(self.max.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    /// Answers of so many round trips, with as many requests as allowed.
    fn trips(c: &mut Concurrency, n: u32, rtt_ns: u64, now: &mut u64) {
        for _ in 0..n {
            *now += rtt_ns;
            for _ in 0..c.limit() {
                c.answered(rtt_ns, true, *now);
            }
        }
    }

    #[test]
    fn it_starts_with_four_and_grows_by_one_per_round_trip_when_saturated() {
        let mut c = Concurrency::new(64, true);
        assert_eq!(c.limit(), 4);
        let mut now = 0;
        trips(&mut c, 10, 10 * MS, &mut now);
        assert!((12..=15).contains(&c.limit()), "{}", c.limit());
        trips(&mut c, 100, 10 * MS, &mut now);
        assert_eq!(c.limit(), 64, "and no further");
        let mut idle = Concurrency::new(64, true);
        for n in 1..100 {
            idle.answered(10 * MS, false, n * 10 * MS);
        }
        assert_eq!(idle.limit(), 4, "what is not used does not grow");
        assert_eq!(Concurrency::new(2, true).limit(), 2);
        assert_eq!(Concurrency::new(50, false).limit(), 50);
    }

    #[test]
    fn slower_answers_make_it_a_tenth_less_and_too_much_halves_it_once_per_round_trip() {
        let mut c = Concurrency::new(64, true);
        let mut now = 0;
        trips(&mut c, 200, 10 * MS, &mut now);
        assert_eq!(c.limit(), 64);
        now += 100 * MS;
        c.answered(100 * MS, true, now);
        assert_eq!(c.limit(), 57);
        for _ in 0..50 {
            c.too_much(10 * MS, now);
        }
        assert_eq!(c.limit(), 28);
        c.too_much(10 * MS, now + 1000 * MS);
        assert_eq!(c.limit(), 14);
        for n in 0..20 {
            c.too_much(10 * MS, now + (n + 2) * 1000 * MS);
        }
        assert_eq!(c.limit(), 1, "one is always allowed");
        assert_eq!(
            {
                let mut fixed = Concurrency::new(9, false);
                fixed.too_much(1, 1);
                fixed.limit()
            },
            9
        );
    }

    #[test]
    fn a_little_noise_is_not_slow() {
        let mut c = Concurrency::new(64, true);
        let mut now = 0;
        for n in 0..2000u64 {
            let rtt = 50_000 + (n % 7) * 20_000;
            now += rtt;
            c.answered(rtt, true, now);
        }
        assert!(c.limit() > 50, "{}", c.limit());
    }

    #[test]
    fn after_it_was_away_it_grows_from_one_to_what_was_before() {
        for adapts in [true, false] {
            let mut c = Concurrency::new(16, adapts);
            let mut now = 0;
            trips(&mut c, 100, 10 * MS, &mut now);
            assert_eq!(c.limit(), 16);
            c.restart();
            assert_eq!(c.limit(), 1);
            for n in 1..16 {
                now += 10 * MS;
                c.answered(10 * MS, false, now);
                c.grow();
                assert_eq!(c.limit(), (n + 1).min(16));
            }
        }
    }
}
