//! How often delivery of the events that wait was tried already: saved with the cursors, so that a budget by attempts is not
//! begun anew by a restart.
//!
//! Only events with attempts behind them are in it, in runs of neighbours with the same numbers.

use std::collections::BTreeMap;

/// The attempts that an event has behind it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tried {
    /// How many.
    pub attempts: u32,
    /// How many of them the receiver answered by calling the event wrong.
    pub poisoned: u32,
}

/// Per destination number and sequence.
pub type AllTried = BTreeMap<u32, BTreeMap<u64, Tried>>;

const RUN_BYTES: usize = 24;

/// Per destination: u32 number, u32 runs, per run u64 first sequence, u64 how many, u32 attempts, u32 poisoned.
pub fn encode(all: &AllTried) -> Vec<u8> {
    let mut out = Vec::new();
    for (destination, tried) in all.iter().filter(|(_, t)| !t.is_empty()) {
        out.extend_from_slice(&destination.to_le_bytes());
        let runs_at = out.len();
        out.extend_from_slice(&[0; 4]);
        let mut runs = 0u32;
        let mut run: Option<(u64, u64, Tried)> = None;
        let mut put = |(first, n, t): (u64, u64, Tried)| {
            out.extend_from_slice(&first.to_le_bytes());
            out.extend_from_slice(&n.to_le_bytes());
            out.extend_from_slice(&t.attempts.to_le_bytes());
            out.extend_from_slice(&t.poisoned.to_le_bytes());
            runs += 1;
        };
        for (sequence, t) in tried {
            run = match run {
                Some((first, n, same)) if first + n == *sequence && same == *t => Some((first, n + 1, same)),
                before => {
                    before.map(&mut put);
                    Some((*sequence, 1, *t))
                }
            };
        }
        run.map(&mut put);
        out[runs_at..runs_at + 4].copy_from_slice(&runs.to_le_bytes());
    }
    out
}

/// Reads what [`encode`] wrote; `None` if it is something else. `events_max` bounds what one run can make of itself.
pub fn decode(mut bytes: &[u8], events_max: u64) -> Option<AllTried> {
    let u32_at = |b: &[u8], at: usize| Some(u32::from_le_bytes(b.get(at..at + 4)?.try_into().ok()?));
    let u64_at = |b: &[u8], at: usize| Some(u64::from_le_bytes(b.get(at..at + 8)?.try_into().ok()?));
    let mut all = AllTried::new();
    while !bytes.is_empty() {
        let (destination, runs) = (u32_at(bytes, 0)?, u32_at(bytes, 4)? as usize);
        let (run_bytes, rest) = bytes[8..].split_at_checked(runs.checked_mul(RUN_BYTES)?)?;
        let tried = all.entry(destination).or_default();
        for run in run_bytes.chunks_exact(RUN_BYTES) {
            let (first, n) = (u64_at(run, 0)?, u64_at(run, 8)?);
            let t = Tried { attempts: u32_at(run, 16)?, poisoned: u32_at(run, 20)? };
            first.checked_add(n).filter(|_| n <= events_max)?;
            tried.extend((first..first + n).map(|sequence| (sequence, t)));
        }
        bytes = rest;
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_goes_in_comes_out(entries in proptest::collection::vec((0u32..3, 0u64..60, 1u32..3, 0u32..2), 0..200)) {
            let mut all = AllTried::new();
            for (destination, sequence, attempts, poisoned) in entries {
                all.entry(destination).or_default().insert(sequence, Tried { attempts, poisoned });
            }
            let bytes = encode(&all);
            prop_assert_eq!(decode(&bytes, 1000), Some(all));
            for cut in 1..bytes.len() {
                // A cut may fall between two destinations; it never makes up what was not there.
                if let Some(part) = decode(&bytes[..cut], 1000) {
                    prop_assert_eq!(encode(&part), &bytes[..cut]);
                }
            }
        }
    }

    #[test]
    fn neighbours_with_the_same_numbers_are_one_run() {
        let same = Tried { attempts: 4, poisoned: 0 };
        let mut tried: BTreeMap<u64, Tried> = (100..9000).map(|s| (s, same)).collect();
        tried.insert(5000, Tried { attempts: 5, poisoned: 1 });
        let all = AllTried::from([(7, tried)]);
        assert_eq!(encode(&all).len(), 8 + 3 * RUN_BYTES);
        assert_eq!(decode(&encode(&all), 10_000), Some(all));
    }

    #[test]
    fn a_run_too_long_to_be_true_is_refused() {
        let mut bytes = encode(&AllTried::from([(7, BTreeMap::from([(1, Tried::default())]))]));
        bytes[16..24].copy_from_slice(&u64::MAX.to_le_bytes());
        assert_eq!(decode(&bytes, 10_000), None);
        assert_eq!(decode(&[1, 2, 3], 10_000), None);
    }
}
