//! Which publications are repeats: the keys that the host gave with those of the last while.
//!
//! A key counts for one resource only: it is hashed together with bucket and key. The hash alone says which of the engine's
//! tables it is in, so a table knows it whatever shard its resource has. Two different keys are taken for one with the odds of a 128-bit hash: among a billion that are remembered, about
//! one in 10^21. The hash has no secret; who may choose the keys of a resource could make two collide, and would only lose
//! events of his own by it.

use std::collections::{HashMap, VecDeque};

use foldhash::fast::RandomState;
use xxhash_rust::xxh3::{xxh3_128, xxh3_128_with_seed};

/// By what the host has repeats of one publication recognised: any bytes, such as the id of its request. Events of
/// different resources may have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DedupKey(u128);

impl DedupKey {
    /// The key of these bytes, which are not kept.
    pub fn new(bytes: &[u8]) -> DedupKey {
        DedupKey(xxh3_128(bytes))
    }

    /// As a number, for another process.
    pub(crate) fn number(self) -> u128 {
        self.0
    }

    /// Of such a number.
    pub(crate) fn of_number(number: u128) -> DedupKey {
        DedupKey(number)
    }

    /// What stands for it in the tables and in the log. Must never change between versions.
    pub(crate) fn of_resource(self, resource_hash: u64) -> u128 {
        xxh3_128_with_seed(&self.0.to_le_bytes(), resource_hash)
    }
}

/// A table of keys. Whoever looks a key up and enters it does both before anybody else looks.
#[derive(Debug)]
pub(crate) struct Dedup {
    window_ns: u64,
    entries_max: usize,
    seen: HashMap<u128, Seen, RandomState>,
    /// In the order in which they were entered.
    order: VecDeque<(u128, u64)>,
    /// Entries that had to go before their time.
    pub(crate) evicted: u64,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    at_ns: u64,
    /// The ring position after the event; 0 if an earlier run accepted it.
    position: u64,
}

impl Dedup {
    /// A table for keys of the last `window_ns`, of at most `entries_max` of them.
    pub(crate) fn new(window_ns: u64, entries_max: usize) -> Dedup {
        Dedup { window_ns, entries_max, seen: HashMap::default(), order: VecDeque::new(), evicted: 0 }
    }

    /// Where the event of this key is, if there was one within the window.
    pub(crate) fn find(&mut self, key: u128, now_ns: u64) -> Option<u64> {
        self.expire(now_ns);
        self.seen.get(&key).filter(|s| now_ns.saturating_sub(s.at_ns) < self.window_ns).map(|s| s.position)
    }

    /// Enters a key.
    pub(crate) fn insert(&mut self, key: u128, at_ns: u64, position: u64) {
        self.seen.insert(key, Seen { at_ns, position });
        self.order.push_back((key, at_ns));
        while self.order.len() > self.entries_max {
            self.evicted += 1;
            self.forget_oldest();
        }
    }

    fn expire(&mut self, now_ns: u64) {
        while self.order.front().is_some_and(|(_, at)| now_ns.saturating_sub(*at) >= self.window_ns) {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some((key, at_ns)) = self.order.pop_front()
            // It may have been entered anew meanwhile.
            && self.seen.get(&key).is_some_and(|s| s.at_ns == at_ns)
        {
            self.seen.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_known_for_the_window_and_no_longer() {
        let mut d = Dedup::new(100, 10);
        assert_eq!(d.find(1, 1000), None);
        d.insert(1, 1000, 7);
        assert_eq!(d.find(1, 1000), Some(7));
        assert_eq!(d.find(1, 1099), Some(7));
        assert_eq!(d.find(2, 1099), None);
        assert_eq!(d.find(1, 1100), None);
        assert_eq!(d.seen.len(), 0);
        // A clock that is set back makes the window longer.
        d.insert(1, 1100, 8);
        assert_eq!(d.find(1, 5), Some(8));
    }

    #[test]
    fn the_oldest_go_when_there_are_too_many() {
        let mut d = Dedup::new(100, 3);
        for key in 1..=5 {
            d.insert(key, key as u64, key as u64);
        }
        assert_eq!((d.seen.len(), d.evicted), (3, 2));
        assert_eq!([1, 2, 3, 4, 5].map(|k| d.find(k, 6)), [None, None, Some(3), Some(4), Some(5)]);
        // Entered anew, it counts from then on.
        d.insert(3, 50, 9);
        d.insert(6, 51, 6);
        d.insert(7, 52, 7);
        assert_eq!([3, 4, 5, 6, 7].map(|k| d.find(k, 60)), [Some(9), None, None, Some(6), Some(7)]);
    }

    #[test]
    fn a_key_counts_for_one_resource() {
        let key = DedupKey::new(b"request 1");
        assert_eq!(key, DedupKey::new(b"request 1"));
        assert_ne!(key, DedupKey::new(b"request 2"));
        assert_ne!(key.of_resource(1), key.of_resource(2));
        // Written in logs, so it must stay what it is.
        assert_eq!(key.of_resource(7), 0x9F41_8AA2_B66E_87F9_FD83_4E87_750D_CA9E);
    }
}
