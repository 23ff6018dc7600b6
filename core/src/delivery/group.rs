//! A group of consumers on one shard: who has which event, until when, and what is done.
//!
//! Pure: time is an argument, reading events and giving them out is the caller's. Events are offered in the order of the
//! log. Each goes out on a lease; one that is not acknowledged in time goes out again, with a count one higher. Of one
//! resource key there is one event out at a time, so that the events of a key are done in order, whoever does them.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use crate::log::cursor::Cursor;

/// How much a group has in memory, and how often an event is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupPolicy {
    /// Events read and not done, at most.
    pub events_max: usize,
    /// Their bytes, at most; a single event is always let in.
    pub bytes_max: usize,
    /// How often an event is given out before it is spent, at least 1.
    pub deliveries_max: u32,
}

/// An event that goes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Out<'a, T> {
    /// Place in the shard's log.
    pub sequence: u64,
    /// Proves that the lease is still the one that was given.
    pub token: u64,
    /// How often it was given out, this time included.
    pub deliveries: u32,
    /// The event.
    pub item: &'a T,
}

/// Why a lease is no longer good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It ran out; the event waits to be given out again, or is given up.
    Expired,
    /// It ran out, and the event was given to another member, or to the same one again.
    Superseded,
    /// The event is done, or was never given out.
    NotOut,
}

#[derive(Debug)]
struct Slot<T> {
    item: T,
    key: u64,
    bytes: usize,
    deliveries: u32,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Behind another event of its key.
    Behind,
    Ready,
    /// Not before this time.
    Delayed(u64),
    Leased {
        token: u64,
        member: u64,
        until_ns: u64,
    },
    /// Given out too often: waits for the caller to keep it somewhere and settle it.
    Spent,
}

/// See the module.
#[derive(Debug)]
pub struct Group<T> {
    policy: GroupPolicy,
    cursor: Cursor,
    /// The last sequence that was offered or passed.
    seen: u64,
    slots: BTreeMap<u64, Slot<T>>,
    bytes: usize,
    /// Per key, the events in the slots, in order. The first is the one that may go.
    keys: HashMap<u64, VecDeque<u64>>,
    ready: BTreeSet<u64>,
    /// Ends of leases and of delays.
    timers: BTreeSet<(u64, u64)>,
    spent: BTreeSet<u64>,
    /// How often events were given out before a restart.
    counts: BTreeMap<u64, u32>,
    next_token: u64,
    version: u64,
    /// Leases that ran out.
    expired: u64,
}

impl<T> Group<T> {
    /// A group that has done what `cursor` says, with the counts of events that were given out and not done. Tokens begin
    /// at `first_token`, which must be unlike those of earlier runs.
    pub fn new(policy: GroupPolicy, cursor: Cursor, counts: BTreeMap<u64, u32>, first_token: u64) -> Group<T> {
        Group {
            policy,
            seen: cursor.low(),
            cursor,
            slots: BTreeMap::new(),
            bytes: 0,
            keys: HashMap::new(),
            ready: BTreeSet::new(),
            timers: BTreeSet::new(),
            spent: BTreeSet::new(),
            counts,
            next_token: first_token,
            version: 0,
            expired: 0,
        }
    }

    /// Takes a changed policy.
    pub fn set_policy(&mut self, policy: GroupPolicy) {
        self.policy = policy;
    }

    /// Whether another event may be offered.
    pub fn has_room(&self) -> bool {
        self.slots.is_empty() || (self.slots.len() < self.policy.events_max && self.bytes < self.policy.bytes_max)
    }

    /// Takes the next event of the log. One that is done already is ignored.
    pub fn offer(&mut self, sequence: u64, key: u64, bytes: usize, item: T) {
        let deliveries = self.counts.remove(&sequence).unwrap_or(0);
        self.pass(sequence);
        if self.cursor.is_done(sequence) || self.slots.contains_key(&sequence) {
            return;
        }
        let queue = self.keys.entry(key).or_default();
        queue.push_back(sequence);
        let first = queue.len() == 1;
        self.slots.insert(sequence, Slot { item, key, bytes, deliveries, state: State::Behind });
        self.bytes += bytes;
        if first {
            self.make_ready(sequence);
        }
    }

    /// Notes that everything up to `sequence` was looked at, and nothing more of it will be offered.
    pub fn pass(&mut self, sequence: u64) {
        if sequence > self.seen {
            self.seen = sequence;
            self.version += 1;
            if !self.counts.is_empty() {
                self.counts = self.counts.split_off(&(sequence + 1));
            }
        }
    }

    /// The last sequence that was offered or passed.
    pub fn seen(&self) -> u64 {
        self.seen
    }

    fn make_ready(&mut self, sequence: u64) {
        let Some(slot) = self.slots.get_mut(&sequence) else { return };
        if slot.deliveries >= self.policy.deliveries_max {
            slot.state = State::Spent;
            self.spent.insert(sequence);
        } else {
            slot.state = State::Ready;
            self.ready.insert(sequence);
        }
    }

    /// Ends leases and delays whose time has come.
    pub fn expire(&mut self, now_ns: u64) {
        while let Some((at, sequence)) = self.timers.first().copied().filter(|(at, _)| *at <= now_ns) {
            self.timers.remove(&(at, sequence));
            if matches!(self.slots.get(&sequence).map(|s| s.state), Some(State::Leased { .. })) {
                self.expired += 1;
            }
            self.make_ready(sequence);
        }
    }

    /// When [`Group::expire`] will have something to do.
    pub fn next_timer(&self) -> Option<u64> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Gives out the oldest event that may go, until `until_ns`.
    pub fn take(&mut self, member: u64, until_ns: u64) -> Option<Out<'_, T>> {
        let sequence = self.ready.pop_first()?;
        let token = self.next_token;
        let slot = self.slots.get_mut(&sequence)?;
        self.next_token += 1;
        self.version += 1;
        slot.deliveries += 1;
        slot.state = State::Leased { token, member, until_ns };
        self.timers.insert((until_ns, sequence));
        Some(Out { sequence, token, deliveries: slot.deliveries, item: &slot.item })
    }

    /// The end of the lease, if it is still good at `now_ns`.
    fn lease(&self, sequence: u64, token: u64, now_ns: u64) -> Result<u64, Refused> {
        match self.slots.get(&sequence).map(|s| s.state) {
            Some(State::Leased { token: t, until_ns, .. }) if t == token && now_ns < until_ns => Ok(until_ns),
            Some(State::Leased { token: t, .. }) if t != token => Err(Refused::Superseded),
            Some(_) if token < self.next_token => Err(Refused::Expired),
            _ => Err(Refused::NotOut),
        }
    }

    /// The event is done.
    ///
    /// # Errors
    /// If the lease is no longer good; nothing changes then.
    pub fn ack(&mut self, sequence: u64, token: u64, now_ns: u64) -> Result<(), Refused> {
        let until_ns = self.lease(sequence, token, now_ns)?;
        self.timers.remove(&(until_ns, sequence));
        self.settle(sequence);
        Ok(())
    }

    /// The event shall go out again, not before `again_ns`.
    ///
    /// # Errors
    /// If the lease is no longer good.
    pub fn nack(&mut self, sequence: u64, token: u64, now_ns: u64, again_ns: u64) -> Result<(), Refused> {
        let until_ns = self.lease(sequence, token, now_ns)?;
        self.timers.remove(&(until_ns, sequence));
        self.put_off(sequence, now_ns, again_ns);
        Ok(())
    }

    fn put_off(&mut self, sequence: u64, now_ns: u64, again_ns: u64) {
        match self.slots.get_mut(&sequence) {
            Some(slot) if again_ns > now_ns && slot.deliveries < self.policy.deliveries_max => {
                slot.state = State::Delayed(again_ns);
                self.timers.insert((again_ns, sequence));
            }
            _ => self.make_ready(sequence),
        }
    }

    /// The lease shall last until `until_ns`.
    ///
    /// # Errors
    /// If it is no longer good.
    pub fn extend(&mut self, sequence: u64, token: u64, now_ns: u64, until_ns: u64) -> Result<(), Refused> {
        let before = self.lease(sequence, token, now_ns)?;
        self.timers.remove(&(before, sequence));
        self.timers.insert((until_ns, sequence));
        if let Some(slot) = self.slots.get_mut(&sequence)
            && let State::Leased { until_ns: end, .. } = &mut slot.state
        {
            *end = until_ns;
        }
        Ok(())
    }

    /// A member is gone: what it had goes out again at once.
    pub fn release(&mut self, gone: u64) {
        let had: Vec<(u64, u64)> = self
            .slots
            .iter()
            .filter_map(|(sequence, s)| match s.state {
                State::Leased { member, until_ns, .. } if member == gone => Some((until_ns, *sequence)),
                _ => None,
            })
            .collect();
        for (until_ns, sequence) in had {
            self.timers.remove(&(until_ns, sequence));
            self.make_ready(sequence);
        }
    }

    /// The events that were given out too often. They hold their keys until they are settled.
    pub fn spent(&self) -> impl Iterator<Item = (u64, u32, &T)> {
        self.spent.iter().filter_map(|n| self.slots.get(n).map(|s| (*n, s.deliveries, &s.item)))
    }

    /// Marks an event done for good.
    pub fn settle(&mut self, sequence: u64) {
        let Some(slot) = self.slots.remove(&sequence) else { return };
        self.spent.remove(&sequence);
        self.ready.remove(&sequence);
        self.bytes -= slot.bytes;
        self.cursor.done(sequence);
        self.version += 1;
        let next = match self.keys.get_mut(&slot.key) {
            Some(queue) => {
                queue.pop_front();
                queue.front().copied()
            }
            None => None,
        };
        match next {
            Some(next) => self.make_ready(next),
            None => {
                self.keys.remove(&slot.key);
            }
        }
    }

    /// What is done, and how often each event that is not was given out: what is to be saved.
    pub fn state(&mut self) -> (&Cursor, Vec<(u64, u32)>) {
        let low = self.slots.keys().next().map_or(self.seen, |first| (first - 1).min(self.seen));
        self.cursor.raise(low);
        let open = self.slots.iter().filter(|(_, s)| s.deliveries > 0).map(|(n, s)| (*n, s.deliveries));
        let counts = open.chain(self.counts.iter().map(|(n, d)| (*n, *d))).collect();
        (&self.cursor, counts)
    }

    /// Grows whenever [`Group::state`] has changed.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Whether events wait that may go out now.
    pub fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Events read and not done, and of those the ones that are out.
    pub fn open(&self) -> (usize, usize) {
        let out = self.slots.values().filter(|s| matches!(s.state, State::Leased { .. })).count();
        (self.slots.len(), out)
    }

    /// Leases that ran out.
    pub fn expired(&self) -> u64 {
        self.expired
    }
}

#[cfg(test)]
mod tests;
