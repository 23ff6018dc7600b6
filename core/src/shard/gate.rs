//! Gates: what holds a lane's newer events back until all shards have delivered the older ones, after the number of shards
//! has changed (see [`crate::log::layout`]).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::{Command, Shared};
use crate::log::layout::{Barrier, Layout};

/// All shards of an engine, in order of their numbers; there are gaps where old ones are gone.
pub(crate) type Peers = Arc<[Arc<Shared>]>;

/// A barrier that opens when every shard has passed it.
pub(crate) struct Gate {
    /// How many have not.
    left: AtomicUsize,
    peers: Peers,
}

impl Gate {
    fn is_open(&self) -> bool {
        self.left.load(Ordering::Acquire) == 0
    }

    fn pass(&self) {
        if self.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            for shard in self.peers.iter() {
                shard.command(Command::Look);
            }
        }
    }
}

/// A gate as one lane sees it.
pub(crate) struct Hold {
    /// The lane's first event behind it.
    first: u64,
    gate: Arc<Gate>,
    /// The lane has events before it that are not delivered.
    behind: bool,
}

/// The gates before a lane, in order.
#[derive(Default)]
pub(crate) struct Holds(Vec<Hold>);

impl Holds {
    /// The first event that may not be delivered yet.
    pub(super) fn from(&mut self) -> Option<u64> {
        self.0.retain(|h| !h.gate.is_open());
        self.0.iter().map(|h| h.first).min()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Notes that everything up to `low` is done in this lane.
    pub(super) fn done(&mut self, low: u64) {
        for hold in self.0.iter_mut().filter(|h| h.behind && low + 1 >= h.first) {
            hold.behind = false;
            hold.gate.pass();
        }
    }
}

/// The holds of each shard's lanes, by destination.
pub(crate) fn holds(
    layouts: &[Layout],
    barriers: &[Barrier],
    shards: &[usize],
    peers: &Peers,
) -> BTreeMap<usize, BTreeMap<u32, Holds>> {
    let mut all: BTreeMap<usize, BTreeMap<u32, Holds>> = shards.iter().map(|s| (*s, BTreeMap::new())).collect();
    for barrier in barriers {
        let Some(layout) = layouts.iter().find(|l| l.generation == barrier.generation) else { continue };
        let gate = Arc::new(Gate { left: AtomicUsize::new(barrier.behind.len()), peers: peers.clone() });
        for (shard, lanes) in &mut all {
            lanes.entry(barrier.destination).or_default().0.push(Hold {
                first: layout.start(*shard),
                gate: gate.clone(),
                behind: barrier.behind.contains(shard),
            });
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gate_opens_when_the_last_shard_has_passed() {
        let layouts = [Layout::first(2), Layout { generation: 2, shards: 3, starts: vec![10, 20, 1] }];
        let barriers = [Barrier { destination: 5, generation: 2, behind: vec![0, 1] }];
        let mut all = holds(&layouts, &barriers, &[0, 1, 2], &Peers::default());
        let mut lane = |shard: usize| all.get_mut(&shard).unwrap().remove(&5).unwrap();
        let (mut a, mut b, mut c) = (lane(0), lane(1), lane(2));
        assert_eq!((a.from(), b.from(), c.from()), (Some(10), Some(20), Some(1)));
        a.done(8);
        assert_eq!(c.from(), Some(1));
        a.done(9);
        a.done(9);
        assert_eq!(c.from(), Some(1), "passing twice counts once");
        b.done(19);
        assert_eq!((a.from(), b.from(), c.from()), (None, None, None));
        assert!(c.is_empty());
    }
}
