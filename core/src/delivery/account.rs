//! The account of one lane: what waits, and where it is.
//!
//! Events come to be waited for when they are dispatched, or because earlier runs left them; the latter are counted only
//! while the lane is at work already, so that for a while more may have gone than was counted. When the lane has read
//! everything, what it holds is what waits, and the account is set right by that.

use std::collections::VecDeque;

use super::quota::Load;
use crate::event::Priority;

/// Every priority.
const ALL: [Priority; 3] = [Priority::Low, Priority::Normal, Priority::High];

/// Events and bytes, of which there may be fewer than none for a while.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// Events.
    pub events: i64,
    /// Bytes of their records.
    pub bytes: i64,
}

impl Sum {
    fn add(&mut self, events: i64, bytes: i64) {
        self.events += events;
        self.bytes += bytes;
    }

    fn load(self) -> Load {
        Load { events: self.events.max(0) as u64, bytes: self.bytes.max(0) as u64 }
    }
}

/// See the module. Everything is kept by priority.
#[derive(Clone, Debug)]
pub struct Account {
    /// Everything that is not done.
    waiting: [Sum; 3],
    /// Of that, what the lane has in memory.
    held: [Sum; 3],
    /// Of that, what is shed and not in memory, but not durably so.
    leaving: [Sum; 3],
    /// What is on its way into the log, with the bytes of each: it takes its place before it is dispatched.
    entering: VecDeque<(u64, u64)>,
    entering_sum: Sum,
    /// What of `waiting` and `entering` nobody was told yet.
    change: Sum,
    /// What earlier runs left.
    inherited: i64,
    /// All of that is counted.
    counted: bool,
}

impl Account {
    /// An empty account; `counted` if earlier runs left nothing.
    pub fn new(counted: bool) -> Account {
        let none = [Sum::default(); 3];
        Account {
            waiting: none,
            held: none,
            leaving: none,
            entering: VecDeque::new(),
            entering_sum: Sum::default(),
            change: Sum::default(),
            inherited: 0,
            counted,
        }
    }

    fn wait(&mut self, p: Priority, events: i64, bytes: i64) {
        self.waiting[p as usize].add(events, bytes);
        self.change.add(events, bytes);
    }

    /// An event goes into the log, with this sequence.
    #[inline]
    pub fn enter(&mut self, sequence: u64, bytes: u64) {
        self.entering.push_back((sequence, bytes));
        self.entering_sum.add(1, bytes as i64);
        self.change.add(1, bytes as i64);
    }

    /// What entered up to this sequence was dispatched, and is counted by that.
    pub fn entered(&mut self, through: u64) {
        while let Some((_, bytes)) = self.entering.pop_front_if(|(sequence, _)| *sequence <= through) {
            self.entering_sum.add(-1, -(bytes as i64));
            self.change.add(-1, -(bytes as i64));
        }
    }

    /// An event was dispatched.
    pub fn admit(&mut self, p: Priority, bytes: u64) {
        self.wait(p, 1, bytes as i64);
    }

    /// An event that is not in memory is done with.
    pub fn dismiss(&mut self, p: Priority, bytes: u64) {
        self.wait(p, -1, -(bytes as i64));
    }

    /// An event was taken into memory.
    pub fn hold(&mut self, p: Priority, bytes: u64) {
        self.held[p as usize].add(1, bytes as i64);
    }

    /// An event that was in memory is done with.
    pub fn release(&mut self, p: Priority, bytes: u64) {
        self.held[p as usize].add(-1, -(bytes as i64));
        self.wait(p, -1, -(bytes as i64));
    }

    /// So much is shed that is not in memory.
    pub fn leave(&mut self, p: Priority, load: Load) {
        self.leaving[p as usize].add(load.events as i64, load.bytes as i64);
    }

    /// It is durably shed.
    pub fn left(&mut self, p: Priority, load: Load) {
        self.leaving[p as usize].add(-(load.events as i64), -(load.bytes as i64));
        self.wait(p, -(load.events as i64), -(load.bytes as i64));
    }

    /// So much was found that earlier runs left.
    pub fn inherit(&mut self, loads: [Load; 3]) {
        if self.counted {
            return; // It has caught up meanwhile, and knows.
        }
        for p in ALL {
            let load = loads[p as usize];
            self.wait(p, load.events as i64, load.bytes as i64);
            self.inherited += load.events as i64;
        }
    }

    /// Everything that earlier runs left is counted.
    pub fn has_inherited(&mut self) {
        self.counted = true;
    }

    /// Whether everything that earlier runs left is counted.
    pub fn is_counted(&self) -> bool {
        self.counted
    }

    /// Everything that waits is in memory, or leaves. Returns how many events were counted that are not to be found.
    pub fn catch_up(&mut self) -> u64 {
        let mut missing = 0;
        for p in ALL {
            let (held, leaving, waiting) = (self.held[p as usize], self.leaving[p as usize], self.waiting[p as usize]);
            let events = held.events + leaving.events - waiting.events;
            self.wait(p, events, held.bytes + leaving.bytes - waiting.bytes);
            if self.counted {
                missing += u64::try_from(-events).unwrap_or(0);
            } else {
                self.inherited += events;
            }
        }
        self.counted = true;
        missing
    }

    /// What waits.
    pub fn waiting(&self) -> Load {
        self.sum().load()
    }

    /// The same, with what is on its way into the log.
    pub fn waiting_or_entering(&self) -> Load {
        let mut all = self.sum();
        all.add(self.entering_sum.events, self.entering_sum.bytes);
        all.load()
    }

    fn sum(&self) -> Sum {
        let mut all = Sum::default();
        self.waiting.iter().for_each(|s| all.add(s.events, s.bytes));
        all
    }

    /// What waits of one priority.
    pub fn waiting_of(&self, p: Priority) -> Load {
        self.waiting[p as usize].load()
    }

    /// Whether nothing of a priority waits, for certain.
    pub fn has_none_of(&self, p: Priority) -> bool {
        self.counted && self.waiting[p as usize].events == 0
    }

    /// What earlier runs left, as far as it is counted.
    pub fn inherited(&self) -> u64 {
        self.inherited.max(0) as u64
    }

    /// What has changed since [`Account::take_change`], in what waits and what is on its way there.
    #[inline]
    pub fn change(&self) -> Sum {
        self.change
    }

    /// The same, and begins anew.
    pub fn take_change(&mut self) -> Sum {
        std::mem::take(&mut self.change)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn load(events: u64, bytes: u64) -> Load {
        Load { events, bytes }
    }

    #[test]
    fn what_is_done_before_it_is_counted_is_no_debt_in_the_end() {
        let mut a = Account::new(false);
        a.hold(Priority::Normal, 10);
        a.release(Priority::Normal, 10);
        assert_eq!((a.waiting(), a.inherited()), (load(0, 0), 0));
        a.inherit([load(0, 0), load(3, 30), load(0, 0)]);
        a.has_inherited();
        assert_eq!((a.waiting(), a.inherited()), (load(2, 20), 3));
    }

    #[test]
    fn events_that_damage_has_taken_are_missed_when_everything_was_read() {
        let mut a = Account::new(true);
        (0..5).for_each(|_| a.admit(Priority::Low, 10));
        (0..3).for_each(|_| a.hold(Priority::Low, 10));
        assert_eq!((a.catch_up(), a.waiting()), (2, load(3, 30)));
        assert_eq!(a.catch_up(), 0);
    }

    #[test]
    fn what_enters_counts_until_it_is_dispatched_and_is_counted_once() {
        let mut a = Account::new(true);
        (1..=3).for_each(|sequence| a.enter(sequence, 10));
        assert_eq!((a.take_change(), a.waiting()), (Sum { events: 3, bytes: 30 }, load(0, 0)));
        assert_eq!(a.waiting_or_entering(), load(3, 30));
        // With padding the record is larger than was known.
        (1..=2).for_each(|_| a.admit(Priority::Normal, 16));
        a.entered(2);
        assert_eq!((a.take_change(), a.waiting()), (Sum { events: 0, bytes: 12 }, load(2, 32)));
        assert_eq!(a.waiting_or_entering(), load(3, 42));
        a.admit(Priority::Normal, 16);
        a.entered(3);
        a.entered(9);
        assert_eq!(a.take_change(), Sum { events: 0, bytes: 6 });
    }

    proptest! {
        /// A lane with events of earlier runs, read and counted at different speeds, and delivered and shed meanwhile.
        #[test]
        fn it_comes_out_right(
            before in 0usize..40,
            steps in proptest::collection::vec((0u8..7, 0usize..3, 1u64..9), 0..200),
        ) {
            let mut a = Account::new(before == 0);
            // Per event: priority, bytes. Those of earlier runs first; `counted` and `read` go through them in order.
            let mut events: Vec<(usize, u64)> = (0..before).map(|n| (n % 3, n as u64 % 7 + 1)).collect();
            let (mut counted, mut read) = (0, 0);
            let mut in_memory: Vec<(usize, u64)> = Vec::new();
            let (mut done, mut told) = (0u64, Sum::default());
            for (step, p, bytes) in steps {
                let here = ALL[p];
                match step {
                    0 | 1 => {
                        events.push((p, bytes));
                        a.admit(here, bytes);
                    }
                    2 | 3 if read < events.len() => {
                        let (p, bytes) = events[read];
                        in_memory.push((p, bytes));
                        a.hold(ALL[p], bytes);
                        read += 1;
                    }
                    4 if !in_memory.is_empty() => {
                        let (p, bytes) = in_memory.swap_remove(0);
                        a.release(ALL[p], bytes);
                        done += 1;
                    }
                    5 if counted < before => {
                        let (p, bytes) = events[counted];
                        let mut loads = [Load::default(); 3];
                        loads[p] = load(1, bytes);
                        a.inherit(loads);
                        counted += 1;
                        if counted == before {
                            a.has_inherited();
                        }
                    }
                    6 if read < events.len() => {
                        // Shed without being read.
                        let (p, bytes) = events[read];
                        a.leave(ALL[p], load(1, bytes));
                        read += 1;
                        if bytes % 2 == 0 && read == events.len() {
                            prop_assert_eq!(a.catch_up(), 0);
                            counted = before;
                        }
                        a.left(ALL[p], load(1, bytes));
                        done += 1;
                    }
                    _ if read == events.len() => {
                        prop_assert_eq!(a.catch_up(), 0);
                        counted = before;
                    }
                    _ => {}
                }
                let change = a.take_change();
                told.add(change.events, change.bytes);
                if counted == before {
                    prop_assert_eq!(a.waiting().events, events.len() as u64 - done);
                    prop_assert_eq!(a.inherited(), before as u64);
                    prop_assert_eq!(told.load(), a.waiting());
                }
            }
        }
    }
}
