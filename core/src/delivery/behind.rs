//! Which keys may have events in the log that a lane has not read yet. A lane that has fallen behind may take an event of
//! high priority before its turn only if none of the same key waits there.
//!
//! A table of fixed size, one place per hash: of the keys that share a place it knows the last event. It may say that an
//! event has to wait that need not, never the other way round.

const PLACES: usize = 1 << 16;

/// See the module.
#[derive(Clone, Debug)]
pub struct KeysBehind {
    last: Box<[u64]>,
}

impl Default for KeysBehind {
    fn default() -> Self {
        KeysBehind { last: vec![0; PLACES].into_boxed_slice() }
    }
}

impl KeysBehind {
    /// Bytes that a table takes.
    pub const BYTES: usize = PLACES * 8;

    /// An event of a key stays in the log for now.
    pub fn left(&mut self, key: u64, sequence: u64) {
        self.last[key as usize % PLACES] = sequence;
    }

    /// Whether an event of the key may be taken now, when everything up to `seen` was read.
    pub fn may_pass(&self, key: u64, seen: u64) -> bool {
        self.last[key as usize % PLACES] <= seen
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn an_event_never_passes_an_older_one_of_its_key(
            steps in proptest::collection::vec((0u64..40, any::<bool>(), 0u64..4), 1..300),
        ) {
            let mut table = KeysBehind::default();
            let mut unread: Vec<(u64, u64)> = Vec::new();
            let mut seen = 0;
            for (sequence, (key, high, read)) in steps.into_iter().enumerate() {
                let sequence = sequence as u64 + 1;
                // Keys far apart that share places, too.
                let key = key * (PLACES as u64 / 4);
                if high && table.may_pass(key, seen) {
                    prop_assert!(!unread.iter().any(|(k, _)| *k == key));
                } else {
                    table.left(key, sequence);
                    unread.push((key, sequence));
                }
                for _ in 0..read.min(unread.len() as u64) {
                    seen = unread.remove(0).1;
                }
            }
        }
    }

    #[test]
    fn a_key_of_which_nothing_waits_passes() {
        let mut table = KeysBehind::default();
        table.left(1, 10);
        assert!(table.may_pass(2, 0) && !table.may_pass(1, 9) && table.may_pass(1, 10));
    }
}
