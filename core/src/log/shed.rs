//! What was shed of a queue: saved with the cursors.
//!
//! A lane that sheds its oldest events does so by priority: of each it has shed everything up to a mark, but for the few that
//! were on their way just then. Three marks and those few tell what a set of all shed events would.

use std::collections::{BTreeMap, BTreeSet};

use crate::event::Priority;

/// What one lane has shed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shed {
    /// By priority: everything up to this sequence was shed.
    pub up_to: [u64; 3],
    /// Sequences at or below a mark that were not.
    pub kept: BTreeSet<u64>,
}

impl Shed {
    /// Whether an event was shed.
    pub fn is_shed(&self, sequence: u64, priority: Priority) -> bool {
        sequence <= self.up_to[priority as usize] && !self.kept.contains(&sequence)
    }

    /// The highest mark.
    pub fn highest(&self) -> u64 {
        self.up_to.into_iter().max().unwrap_or(0)
    }

    /// Up to here everything was shed, whatever its priority.
    pub fn lowest(&self) -> u64 {
        self.up_to.into_iter().min().unwrap_or(0)
    }
}

/// Per destination: u32 number, three u64 marks, u32 number of sequences kept, each u64.
pub fn encode(all: &BTreeMap<u32, Shed>) -> Vec<u8> {
    let mut out = Vec::new();
    for (destination, shed) in all {
        out.extend_from_slice(&destination.to_le_bytes());
        shed.up_to.iter().for_each(|m| out.extend_from_slice(&m.to_le_bytes()));
        out.extend_from_slice(&(shed.kept.len() as u32).to_le_bytes());
        shed.kept.iter().for_each(|s| out.extend_from_slice(&s.to_le_bytes()));
    }
    out
}

/// Reads what [`encode`] wrote; `None` if it is something else.
pub fn decode(mut bytes: &[u8]) -> Option<BTreeMap<u32, Shed>> {
    let mut all = BTreeMap::new();
    while !bytes.is_empty() {
        let (head, rest) = bytes.split_at_checked(32)?;
        let u64_at = |at: usize| u64::from_le_bytes(head[at..at + 8].try_into().unwrap_or_default());
        let u32_at = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let (kept, rest) = rest.split_at_checked((u32_at(28) as usize).checked_mul(8)?)?;
        let kept = kept.chunks_exact(8).map(|c| u64::from_le_bytes(c.try_into().unwrap_or_default())).collect();
        all.insert(u32_at(0), Shed { up_to: [u64_at(4), u64_at(12), u64_at(20)], kept });
        bytes = rest;
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_say_what_was_shed() {
        let s = Shed { up_to: [100, 50, 0], kept: [40, 90].into() };
        for (sequence, priority, shed) in [
            (100, Priority::Low, true),
            (101, Priority::Low, false),
            (90, Priority::Low, false),
            (50, Priority::Normal, true),
            (40, Priority::Normal, false),
            (51, Priority::Normal, false),
            (1, Priority::High, false),
        ] {
            assert_eq!(s.is_shed(sequence, priority), shed, "{sequence} {priority:?}");
        }
        assert_eq!((s.lowest(), s.highest()), (0, 100));
    }

    #[test]
    fn round_trip_and_cuts() {
        let all = BTreeMap::from([
            (7, Shed { up_to: [1, 2, 3], kept: [1, 2].into() }),
            (9, Shed { up_to: [u64::MAX, 0, 5], kept: BTreeSet::new() }),
        ]);
        let bytes = encode(&all);
        assert_eq!(decode(&bytes), Some(all));
        assert_eq!(decode(&[]), Some(BTreeMap::new()));
        for cut in 1..bytes.len() {
            if let Some(part) = decode(&bytes[..cut]) {
                assert_eq!(encode(&part), &bytes[..cut]);
            }
        }
    }
}
