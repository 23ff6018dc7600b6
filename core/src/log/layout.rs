//! Layouts: over how many shards the keys are spread, and from which record of each shard on.
//!
//! When a data directory is opened with another number of shards, most keys get another shard. The events that wait in the
//! old one must be delivered before the new ones of the same key. So a layout has a beginning in every shard, and where
//! events from before it are not delivered yet, there is a [`Barrier`]: per destination, no shard delivers what belongs to
//! the layout before every shard has delivered what does not.

use serde::{Deserialize, Serialize};

/// Over how many shards the keys are spread, and since when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    /// Counts the changes, from 1.
    pub generation: u32,
    /// How many shards take events.
    pub shards: u16,
    /// Per shard of the directory, the sequence of the first record that belongs to this layout or a later one; 1 for
    /// shards that are not listed.
    pub starts: Vec<u64>,
}

impl Layout {
    /// The layout of a directory that never had another one.
    pub fn first(shards: u16) -> Layout {
        Layout { generation: 1, shards, starts: Vec::new() }
    }

    /// How a shard knows it.
    pub fn since(&self, shard: usize) -> Since {
        Since { generation: self.generation, sequence: self.start(shard) }
    }

    /// The sequence of the first record of a shard that belongs to it.
    pub fn start(&self, shard: usize) -> u64 {
        self.starts.get(shard).copied().unwrap_or(1).max(1)
    }
}

/// A layout as one shard knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Since {
    /// The layout's generation.
    pub generation: u32,
    /// The sequence of the shard's first record that belongs to it.
    pub sequence: u64,
}

impl Default for Since {
    fn default() -> Since {
        Layout::first(1).since(0)
    }
}

/// What the shards of a layout had of the log of the host (see [`crate::Engine::append_at`]) when another layout took its
/// place. An event of that log that comes again may have had another shard then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// The generation of the layout after it.
    pub generation: u32,
    /// Per shard that took events, the host's cursor up to which it had everything that was for it.
    pub cursors: Vec<u64>,
}

impl Applied {
    /// What all of them had.
    pub fn lowest(&self) -> u64 {
        self.cursors.iter().copied().min().unwrap_or(0)
    }

    /// What any of them had.
    pub fn highest(&self) -> u64 {
        self.cursors.iter().copied().max().unwrap_or(0)
    }
}

/// The lowest sequence that the next record of a shard may have, so that it belongs to the last layout.
pub fn floor(layouts: &[Layout], shard: usize) -> u64 {
    layouts.iter().map(|l| l.start(shard)).max().unwrap_or(1)
}

/// A destination for which events from before a layout are not delivered yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Barrier {
    /// The destination's number.
    pub destination: u32,
    /// The layout's generation.
    pub generation: u32,
    /// The shards that have such events, or may have.
    pub behind: Vec<usize>,
}

/// The barriers between layouts. `low` tells up to which sequence everything in a shard is done for a destination.
pub fn barriers(
    layouts: &[Layout],
    shards: &[usize],
    destinations: &[u32],
    low: impl Fn(usize, u32) -> u64,
) -> Vec<Barrier> {
    let mut out = Vec::new();
    for layout in layouts.iter().skip(1) {
        for destination in destinations.iter().copied() {
            let is_behind = |s: &usize| low(*s, destination) + 1 < layout.start(*s);
            let behind: Vec<usize> = shards.iter().copied().filter(is_behind).collect();
            if !behind.is_empty() {
                out.push(Barrier { destination, generation: layout.generation, behind });
            }
        }
    }
    out
}

/// Forgets the layouts of which everything is delivered.
pub fn forget_delivered(layouts: &mut Vec<Layout>, barriers: &[Barrier]) {
    let open = |l: &Layout| barriers.iter().any(|b| b.generation == l.generation);
    while layouts.get(1).is_some_and(|next| !open(next)) {
        layouts.remove(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layouts() -> Vec<Layout> {
        vec![
            Layout::first(2),
            Layout { generation: 2, shards: 3, starts: vec![10, 20, 1] },
            Layout { generation: 3, shards: 1, starts: vec![30, 20, 5] },
        ]
    }

    #[test]
    fn a_barrier_stands_while_a_shard_has_events_from_before() {
        // Destination 7 has nothing left; destination 8 has shard 1's first events, and shard 2's of the second layout.
        let low = |shard: usize, destination: u32| match (destination, shard) {
            (7, _) => 100,
            (_, 0) => 29,
            (_, 1) => 18,
            _ => 0,
        };
        let b = barriers(&layouts(), &[0, 1, 2], &[7, 8], low);
        assert_eq!(
            b,
            [
                Barrier { destination: 8, generation: 2, behind: vec![1] },
                Barrier { destination: 8, generation: 3, behind: vec![1, 2] },
            ]
        );
        let mut l = layouts();
        forget_delivered(&mut l, &b);
        assert_eq!(l, layouts(), "something of the first one is left");
    }

    #[test]
    fn layouts_are_forgotten_from_the_oldest_on() {
        let low = |shard: usize, _| if shard == 2 { 3 } else { 100 };
        let b = barriers(&layouts(), &[0, 1, 2], &[8], low);
        assert_eq!(b, [Barrier { destination: 8, generation: 3, behind: vec![2] }]);
        let mut l = layouts();
        forget_delivered(&mut l, &b);
        assert_eq!(l, layouts()[1..]);
        let mut l = layouts();
        forget_delivered(&mut l, &barriers(&layouts(), &[0, 1, 2], &[8], |_, _| 100));
        assert_eq!(l, layouts()[2..]);
        assert_eq!((floor(&layouts(), 0), floor(&layouts(), 1), floor(&layouts(), 9)), (30, 20, 1));
    }
}
