//! What is asked of all lanes, where there may be ten thousands of them: no event may cost a look at each, and no task may
//! look at all of them in one go.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::Shard;
use super::lanes::LaneSlot;
use crate::driver;

/// So many lanes are looked at before others have their turn. The simulator has few lanes, and has to see what comes between.
pub(super) const LANES_AT_ONCE: usize = if cfg!(feature = "sim") { 1 } else { 256 };

/// With each so many lanes, all of them are looked at less often.
const LANES_MANY: usize = 2048;

/// Finds out when all lanes have come so far, by looking at one of them that has not: only when that one has, at those
/// after it. So all lanes are looked at once, however often it is asked.
#[derive(Debug, Default)]
pub(super) struct Straggler {
    /// Those before have come so far.
    at: u32,
}

impl Straggler {
    /// Whether all have come so far. What has will not go back, and neither will lanes that are added.
    pub(super) fn all<L>(&mut self, lanes: &BTreeMap<u32, L>, has_come: impl Fn(&L) -> bool) -> bool {
        match lanes.range(self.at..).find(|(_, lane)| !has_come(lane)) {
            Some((number, _)) => {
                self.at = *number;
                false
            }
            None => true,
        }
    }

    /// As [`Straggler::all`], of what may go back: once all have come, it looks at all of them again.
    pub(super) fn all_at_once<L>(&mut self, lanes: &BTreeMap<u32, L>, has_come: impl Fn(&L) -> bool) -> bool {
        let from = self.at;
        if !self.all(lanes, &has_come) {
            return false;
        }
        self.at = 0;
        from == 0 || self.all(lanes, has_come)
    }
}

impl Shard {
    /// Does something with each lane that there is now, and lets others have their turn between.
    pub(super) async fn each_lane(&self, mut with: impl FnMut(u32, &Rc<LaneSlot>)) {
        let numbers: Vec<u32> = self.lanes.borrow().keys().copied().collect();
        for (n, some) in numbers.chunks(LANES_AT_ONCE).enumerate() {
            if n > 0 {
                driver::turn().await;
            }
            let lanes = self.lanes.borrow();
            for number in some {
                if let Some(slot) = lanes.get(number) {
                    with(*number, slot);
                }
            }
        }
    }

    /// How many times as long it takes until all lanes are looked at again as where there are few.
    pub(super) fn many(&self) -> u32 {
        1 + (self.lanes.borrow().len() / LANES_MANY) as u32
    }

    /// Something of a lane has changed that is saved with the cursors.
    pub(super) fn lane_moved(&self) {
        self.lane_moves.set(self.lane_moves.get().wrapping_add(1));
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    const LANES: u32 = 10_000;

    fn lanes() -> BTreeMap<u32, Cell<bool>> {
        (0..LANES).map(|n| (n, Cell::new(false))).collect()
    }

    #[test]
    fn a_flush_does_not_look_at_all_lanes_for_each_delivery() {
        for step in [1, 7919, LANES as usize - 1] {
            let (lanes, looks, mut straggler) = (lanes(), Cell::new(0), Straggler::default());
            let mut ask = || {
                straggler.all(&lanes, |come| {
                    looks.set(looks.get() + 1);
                    come.get()
                })
            };
            for n in 0..LANES as usize {
                assert!(!ask());
                lanes[&((n * step % LANES as usize) as u32)].set(true);
            }
            assert!(ask());
            assert!(looks.get() <= 2 * LANES + 1, "{} looks", looks.get());
        }
    }

    #[test]
    fn what_has_gone_back_is_found() {
        let (lanes, mut straggler) = (lanes(), Straggler::default());
        lanes.values().for_each(|come| come.set(true));
        lanes[&17].set(false);
        assert!(!straggler.all_at_once(&lanes, Cell::get));
        lanes[&17].set(true);
        lanes[&3].set(false);
        assert!(!straggler.all_at_once(&lanes, Cell::get));
        lanes[&3].set(true);
        assert!(straggler.all_at_once(&lanes, Cell::get));
        assert!(Straggler::default().all_at_once(&BTreeMap::<u32, Cell<bool>>::new(), Cell::get));
    }
}
