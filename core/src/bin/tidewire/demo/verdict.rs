//! Whether everything arrived as promised, and how fast.

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use hdrhistogram::Histogram;

use super::files::Fate;
use super::receiver::{Arrival, Log};

/// One event that the source published.
#[derive(Clone, Debug)]
pub(super) struct Said {
    pub(super) key: String,
    pub(super) created: bool,
    pub(super) size: Option<u64>,
    pub(super) at: Instant,
}

/// What was found at one receiver.
#[derive(Debug)]
pub(super) struct Verdict {
    pub(super) expected: u64,
    pub(super) received: u64,
    pub(super) repeats: u64,
    pub(super) requests: u64,
    /// Microseconds from publishing to the first arrival.
    pub(super) latency: Histogram<u64>,
    /// What is wrong, in words.
    pub(super) faults: Vec<String>,
}

/// How many faults are told in words; the rest is counted.
const FAULTS_TOLD: usize = 5;

#[derive(Default)]
struct Faults {
    told: Vec<String>,
    more: u64,
}

impl Faults {
    fn add(&mut self, fault: String) {
        if self.told.len() < FAULTS_TOLD {
            self.told.push(fault);
        } else {
            self.more += 1;
        }
    }
}

/// Compares what a receiver got with what the source published for it, and with how the files themselves ended.
pub(super) fn judge(said: &[&Said], log: &Log, fates: &BTreeMap<&str, Fate>) -> Verdict {
    let mut faults = Faults::default();
    let mut latency = match Histogram::new_with_bounds(1, 3_600_000_000, 3) {
        Ok(h) => h,
        Err(e) => unreachable!("bounds are constant: {e}"),
    };
    let mut expected: HashMap<&str, Vec<&Said>> = HashMap::new();
    for s in said {
        expected.entry(&s.key).or_default().push(s);
    }
    let mut arrived: HashMap<&str, Vec<&Arrival>> = HashMap::new();
    for a in &log.arrivals {
        arrived.entry(&a.key).or_default().push(a);
    }
    if log.unreadable > 0 {
        faults.add(format!("{} requests could not be read", log.unreadable));
    }
    for (key, said) in &expected {
        let got = arrived.get(key).map_or(&[][..], Vec::as_slice);
        if got.len() != said.len() {
            faults.add(format!("{key}: {} of {} events arrived", got.len(), said.len()));
            continue;
        }
        if let Some(pair) = got.windows(2).find(|w| w[0].sequencer >= w[1].sequencer) {
            faults.add(format!("{key}: {} arrived before {}", pair[0].sequencer, pair[1].sequencer));
        }
        for (said, got) in said.iter().zip(got) {
            if (said.created, said.size) != (got.created, got.size) {
                faults.add(format!("{key}: published {said:?}, arrived {got:?}"));
            }
            let micros = got.at.saturating_duration_since(said.at).as_micros() as u64;
            latency.saturating_record(micros.max(1));
        }
    }
    for key in arrived.keys().filter(|key| !expected.contains_key(*key)) {
        faults.add(format!("{key}: arrived, but was not published"));
    }
    for (key, fate) in fates {
        let last = arrived.get(key).and_then(|all| all.last());
        match (fate, last) {
            (Fate::There { size }, Some(a)) if a.created && a.size == Some(*size) => {}
            (Fate::There { size }, last) => {
                let last = last.map_or("nothing".to_owned(), |a| format!("{a:?}"));
                faults.add(format!("{key}: is there with {size} bytes, and the last to arrive was {last}"));
            }
            (Fate::Deleted, Some(a)) if a.created => {
                faults.add(format!("{key}: was deleted, and the last to arrive was {a:?}"));
            }
            // One that went before it was looked at was never told of.
            (Fate::Deleted, _) => {}
        }
    }
    let Faults { mut told, more } = faults;
    if more > 0 {
        told.push(format!("and {more} more"));
    }
    Verdict {
        expected: said.len() as u64,
        received: log.arrivals.len() as u64,
        repeats: log.repeats,
        requests: log.requests,
        latency,
        faults: told,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(key: &str, size: Option<u64>) -> Said {
        Said { key: key.into(), created: size.is_some(), size, at: Instant::now() }
    }

    fn arrival(key: &str, sequencer: &str, size: Option<u64>) -> Arrival {
        let created = size.is_some();
        Arrival { key: key.into(), sequencer: sequencer.into(), created, size, at: Instant::now() }
    }

    #[test]
    fn what_is_missing_out_of_order_or_different_is_found() {
        let published = [said("a", Some(1)), said("a", None), said("b", Some(2))];
        let published: Vec<&Said> = published.iter().collect();
        let fates = BTreeMap::from([("a", Fate::Deleted), ("b", Fate::There { size: 2 })]);
        let (a1, a2, b) = (arrival("a", "1", Some(1)), arrival("a", "2", None), arrival("b", "1", Some(2)));
        let faults = |arrivals: &[&Arrival]| {
            let mut log = Log::default();
            log.arrivals.extend(arrivals.iter().map(|a| (*a).clone()));
            judge(&published, &log, &fates).faults.len()
        };
        assert_eq!(faults(&[&a1, &b, &a2]), 0);
        assert_eq!(faults(&[&a1, &b]), 2, "an event is missing, and the file is not there");
        assert_eq!(faults(&[&a1, &a2]), 2);
        assert!(faults(&[&a2, &b, &a1]) > 0);
        assert!(faults(&[&a1, &a2, &arrival("b", "1", Some(3))]) > 0);
        assert!(faults(&[&a1, &a2, &b, &arrival("c", "1", Some(3))]) > 0);
    }
}
