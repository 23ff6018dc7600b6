//! Idle connections of one endpoint on one shard. Pure: the clock is an argument, and what a connection is does not matter.
//!
//! The last one to be given back is the first to be taken again, so that what a burst has opened ends when the burst is
//! over. A connection ends when it was idle for too long, lived for too long, or has carried too many requests: a moved
//! endpoint is noticed, and load spreads again after a restart of one of several.

use std::time::{Duration, Instant};

/// How long a connection is used, and how the other end's silence is noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PoolLimits {
    /// The longest that a connection is used, 1 ms to 1 h. Default: 60 s. A change of the endpoint's address is followed
    /// after this and the lifetime of its record at the latest.
    pub lifetime: Duration,
    /// The most requests that one connection carries, 1 to 1,000,000,000. Default: 1000.
    pub requests_max: u32,
    /// How long what was sent may stay without an acknowledgement before the connection is given up (`TCP_USER_TIMEOUT`),
    /// 100 ms to 1 h; a quiet connection is asked after as long whether the other end is there (TCP keep-alive). Default:
    /// 15 s.
    pub user_timeout: Duration,
}

impl Default for PoolLimits {
    fn default() -> Self {
        PoolLimits { lifetime: Duration::from_secs(60), requests_max: 1000, user_timeout: Duration::from_secs(15) }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Pool<C> {
    limits: PoolLimits,
    idle: Duration,
    size: usize,
    /// The last one was used last.
    free: Vec<Pooled<C>>,
}

/// A connection with what the pool knows of it.
#[derive(Debug)]
pub struct Pooled<C> {
    /// The connection.
    pub connection: C,
    opened: Instant,
    last_used: Instant,
    idle: Duration,
    requests: u32,
}

impl<C> Pool<C> {
    /// A pool of up to `size` connections, which is as many as there may be requests at once: with fewer, the rest would
    /// be made anew for each request. `idle` is how long an unused one is kept unless its endpoint says less.
    pub fn new(limits: PoolLimits, idle: Duration, size: usize) -> Pool<C> {
        Pool { limits, idle, size, free: Vec::new() }
    }

    /// A connection that was just made, to be used and given back.
    pub fn made(&self, connection: C, now: Instant) -> Pooled<C> {
        Pooled { connection, opened: now, last_used: now, idle: self.idle, requests: 0 }
    }

    /// The connection that was used last, if it can still be used and is not known to be closed.
    pub fn take(&mut self, now: Instant, is_closed: impl Fn(&C) -> bool) -> Option<Pooled<C>> {
        while let Some(c) = self.free.pop() {
            if self.is_usable(&c, now) && !is_closed(&c.connection) {
                return Some(c);
            }
        }
        None
    }

    /// Takes back a connection that has carried one more request and can carry another. `keep_alive` is how long its
    /// endpoint says that it keeps it.
    pub fn give_back(&mut self, mut pooled: Pooled<C>, keep_alive: Option<Duration>, now: Instant) {
        pooled.last_used = now;
        pooled.requests = pooled.requests.saturating_add(1);
        if let Some(theirs) = keep_alive {
            // A second less: the request must be there before they hang up.
            pooled.idle = self.idle.min(theirs.saturating_sub(Duration::from_secs(1)));
        }
        if self.free.len() < self.size && self.is_usable(&pooled, now) {
            self.free.push(pooled);
        }
    }

    /// Lets go of what can no longer be used, or is known to be closed.
    pub fn expire(&mut self, now: Instant, is_closed: impl Fn(&C) -> bool) {
        let mut free = std::mem::take(&mut self.free);
        free.retain(|c| self.is_usable(c, now) && !is_closed(&c.connection));
        self.free = free;
    }

    /// How many are idle.
    pub fn len(&self) -> usize {
        self.free.len()
    }

    /// Whether none is idle.
    pub fn is_empty(&self) -> bool {
        self.free.is_empty()
    }

    fn is_usable(&self, c: &Pooled<C>, now: Instant) -> bool {
        now.saturating_duration_since(c.last_used) < c.idle
            && now.saturating_duration_since(c.opened) < self.limits.lifetime
            && c.requests < self.limits.requests_max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    fn open(_: &u32) -> bool {
        false
    }

    fn pool(size: usize) -> Pool<u32> {
        Pool::new(PoolLimits::default(), 4 * S, size)
    }

    #[test]
    fn the_last_one_used_is_taken_first() {
        let (mut pool, now) = (pool(3), Instant::now());
        for n in 1..=4 {
            let c = pool.made(n, now);
            pool.give_back(c, None, now);
        }
        assert_eq!(pool.len(), 3, "no more than there are requests at once");
        let taken: Vec<u32> = std::iter::from_fn(|| pool.take(now, open)).map(|c| c.connection).collect();
        assert_eq!(taken, [3, 2, 1]);
        assert!(pool.is_empty());
    }

    #[test]
    fn idle_connections_end_before_the_endpoint_ends_them() {
        let (mut pool, now) = (pool(9), Instant::now());
        let keep = |pool: &mut Pool<u32>, n, theirs: Option<u64>| {
            let c = pool.made(n, now);
            pool.give_back(c, theirs.map(Duration::from_secs), now);
        };
        keep(&mut pool, 1, None);
        keep(&mut pool, 2, Some(3));
        keep(&mut pool, 3, Some(100));
        keep(&mut pool, 4, Some(1));
        keep(&mut pool, 5, Some(0));
        assert_eq!(pool.len(), 3, "one that is closed at once is not kept");
        pool.expire(now + S, open);
        assert_eq!(pool.len(), 3);
        pool.expire(now + 2 * S, open);
        assert_eq!(pool.take(now + 3 * S, open).map(|c| c.connection), Some(3));
        assert_eq!(pool.len(), 1);
        assert!(pool.take(now + 4 * S, open).is_none());
    }

    #[test]
    fn those_that_their_endpoint_has_closed_are_not_used() {
        let (mut pool, now) = (pool(9), Instant::now());
        for n in 1..=5 {
            let c = pool.made(n, now);
            pool.give_back(c, None, now);
        }
        assert_eq!(pool.take(now, |c| *c > 3).map(|c| c.connection), Some(3));
        pool.expire(now, |c| *c == 1);
        assert_eq!((pool.len(), pool.take(now, open).map(|c| c.connection)), (1, Some(2)));
    }

    #[test]
    fn connections_end_by_age_and_by_requests() {
        let limits = PoolLimits { requests_max: 3, ..PoolLimits::default() };
        let (mut pool, mut now) = (Pool::new(limits, 4 * S, 2), Instant::now());
        let mut c = pool.made(1, now);
        for _ in 0..2 {
            pool.give_back(c, None, now);
            c = pool.take(now, open).expect("kept");
        }
        pool.give_back(c, None, now);
        assert!(pool.is_empty(), "three requests");
        let mut c = pool.made(2, now);
        pool = Pool::new(PoolLimits::default(), 4 * S, 2);
        for _ in 0..19 {
            pool.give_back(c, None, now);
            now += 3 * S;
            c = pool.take(now, open).expect("kept");
        }
        pool.give_back(c, None, now);
        now += 3 * S;
        assert!(pool.take(now, open).is_none(), "a minute");
        // A clock that steps back makes nothing usable for longer, and nothing panic.
        let c = pool.made(3, now);
        pool.give_back(c, None, now - S);
        assert!(pool.take(now - 2 * S, open).is_some());
    }
}
