//! What is known of names, and for how long. Pure: the clock is an argument, looking up is the caller's.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Answer, Failure, FailureKind};

/// How long an answer is used: as long as its records say, within these.
pub const TTL_MIN: Duration = Duration::from_secs(5);
/// See [`TTL_MIN`].
pub const TTL_MAX: Duration = Duration::from_secs(60);
/// How long a name that could not be looked up is not looked up again.
pub const FAILURE_KEPT: Duration = Duration::from_secs(5);
/// How long an answer is used beyond its time while the DNS servers do not answer: an outage of theirs is none of the
/// receivers'. A name that is said not to be there is gone at once.
pub const STALE_MAX: Duration = Duration::from_secs(3600);
/// The most names that are remembered.
pub const NAMES_MAX: usize = 1024;

/// What the cache says of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// These are its addresses.
    Known(Arc<Answer>),
    /// It could not be looked up a moment ago.
    Failed(Failure),
    /// The caller is to look it up, and to tell with [`Cache::done`]; meanwhile there is perhaps an old answer.
    Look(Option<Arc<Answer>>),
    /// It is being looked up; meanwhile there is perhaps an old answer.
    Wait(Option<Arc<Answer>>),
}

#[derive(Debug)]
struct Known {
    answer: Arc<Answer>,
    looked_up: Instant,
    fresh_until: Instant,
}

#[derive(Debug, Default)]
struct Entry {
    known: Option<Known>,
    failed: Option<(Failure, Instant)>,
    looking: bool,
}

impl Entry {
    fn old(&self, now: Instant) -> Option<Arc<Answer>> {
        let known = self.known.as_ref()?;
        (now < known.fresh_until + STALE_MAX).then(|| known.answer.clone())
    }

    /// When it is of no more use than any other that is looked up anew.
    fn expires(&self) -> Option<Instant> {
        let known = self.known.as_ref().map(|k| k.fresh_until);
        known.max(self.failed.as_ref().map(|(_, until)| *until))
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct Cache {
    entries: HashMap<Arc<str>, Entry>,
}

impl Cache {
    /// Asks for a name.
    pub fn ask(&mut self, name: &str, now: Instant) -> Ask {
        if !self.entries.contains_key(name) && !self.make_room() {
            let text = format!("more than {NAMES_MAX} names are being looked up");
            return Ask::Failed(Failure { kind: FailureKind::Unanswered, text });
        }
        let entry = match self.entries.get_mut(name) {
            Some(entry) => entry,
            None => self.entries.entry(name.into()).or_default(),
        };
        if let Some(known) = entry.known.as_ref().filter(|k| now < k.fresh_until) {
            return Ask::Known(known.answer.clone());
        }
        let old = entry.old(now);
        if let Some((failure, _)) = entry.failed.as_ref().filter(|(_, until)| now < *until) {
            return match old {
                Some(old) => Ask::Known(old),
                None => Ask::Failed(failure.clone()),
            };
        }
        if std::mem::replace(&mut entry.looking, true) { Ask::Wait(old) } else { Ask::Look(old) }
    }

    /// Tells how a lookup ended that [`Ask::Look`] asked for.
    pub fn done(&mut self, name: &str, result: Result<Answer, Failure>, now: Instant) {
        let Some(entry) = self.entries.get_mut(name) else { return };
        entry.looking = false;
        match result {
            Ok(answer) => {
                let fresh_until = now + answer.ttl.clamp(TTL_MIN, TTL_MAX);
                entry.known = Some(Known { answer: Arc::new(answer), looked_up: now, fresh_until });
                entry.failed = None;
            }
            Err(failure) => {
                if failure.kind == FailureKind::NoAddress {
                    entry.known = None;
                }
                entry.failed = Some((failure, now + FAILURE_KEPT));
            }
        }
    }

    /// No address of a name can be reached: it may have moved. It is looked up again at the next occasion, but not more
    /// often than every [`TTL_MIN`].
    pub fn doubt(&mut self, name: &str) {
        if let Some(known) = self.entries.get_mut(name).and_then(|e| e.known.as_mut()) {
            known.fresh_until = known.fresh_until.min(known.looked_up + TTL_MIN);
        }
    }

    /// How many names are remembered.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.entries.len()
    }

    /// Makes room for a name more; `false` if all are being looked up.
    fn make_room(&mut self) -> bool {
        if self.entries.len() < NAMES_MAX {
            return true;
        }
        let idle = self.entries.iter().filter(|(_, e)| !e.looking);
        let Some(first) = idle.min_by_key(|(_, e)| e.expires()).map(|(name, _)| name.clone()) else { return false };
        self.entries.remove(&first);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    fn answer(last: u8, ttl: u64) -> Answer {
        Answer { addresses: vec![[10, 0, 0, last].into()], ttl: Duration::from_secs(ttl) }
    }

    fn failed(kind: FailureKind) -> Failure {
        Failure { kind, text: "x".into() }
    }

    fn known(ask: Ask) -> u8 {
        match ask {
            Ask::Known(a) => match a.addresses[0] {
                std::net::IpAddr::V4(ip) => ip.octets()[3],
                std::net::IpAddr::V6(_) => 0,
            },
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn one_lookup_at_a_time() {
        let (mut c, now) = (Cache::default(), Instant::now());
        assert_eq!(c.ask("a", now), Ask::Look(None));
        assert_eq!(c.ask("a", now), Ask::Wait(None));
        assert_eq!(c.ask("b", now), Ask::Look(None));
        c.done("a", Ok(answer(1, 30)), now);
        assert_eq!(known(c.ask("a", now)), 1);
        assert_eq!(c.ask("b", now), Ask::Wait(None));
    }

    #[test]
    fn answers_live_as_long_as_they_say_within_bounds() {
        for (ttl, lives) in [(0, 5), (1, 5), (5, 5), (30, 30), (60, 60), (86400, 60), (u64::from(u32::MAX), 60)] {
            let (mut c, now) = (Cache::default(), Instant::now());
            c.ask("a", now);
            c.done("a", Ok(answer(1, ttl)), now);
            assert_eq!(known(c.ask("a", now + lives * S - Duration::from_millis(1))), 1, "{ttl}");
            assert!(matches!(c.ask("a", now + lives * S), Ask::Look(Some(_))), "{ttl}");
        }
    }

    #[test]
    fn a_change_of_address_is_followed() {
        let (mut c, now) = (Cache::default(), Instant::now());
        c.ask("a", now);
        c.done("a", Ok(answer(1, 10)), now);
        let later = now + 10 * S;
        assert!(matches!(c.ask("a", later), Ask::Look(Some(_))));
        assert!(matches!(c.ask("a", later), Ask::Wait(Some(_))));
        c.done("a", Ok(answer(2, 10)), later);
        assert_eq!(known(c.ask("a", later)), 2);
    }

    #[test]
    fn what_could_not_be_looked_up_is_left_alone_for_a_while() {
        for kind in [FailureKind::Unanswered, FailureKind::NoAddress] {
            let (mut c, mut now) = (Cache::default(), Instant::now());
            let mut lookups = 0;
            let end = now + 60 * S;
            while now < end {
                match c.ask("a", now) {
                    Ask::Look(None) => {
                        lookups += 1;
                        c.done("a", Err(failed(kind)), now);
                    }
                    Ask::Failed(f) => assert_eq!(f.kind, kind),
                    other => panic!("{other:?}"),
                }
                now += Duration::from_millis(1);
            }
            assert_eq!(lookups, 12);
        }
    }

    #[test]
    fn an_outage_of_the_servers_of_names_is_outlived_for_an_hour() {
        let (mut c, now) = (Cache::default(), Instant::now());
        c.ask("a", now);
        c.done("a", Ok(answer(1, 60)), now);
        let mut later = now + 60 * S;
        while later < now + 60 * S + STALE_MAX {
            assert!(matches!(c.ask("a", later), Ask::Look(Some(_))));
            c.done("a", Err(failed(FailureKind::Unanswered)), later);
            assert_eq!(known(c.ask("a", later)), 1);
            later += 300 * S;
        }
        assert_eq!(c.ask("a", later), Ask::Look(None));
        c.done("a", Err(failed(FailureKind::Unanswered)), later);
        assert!(matches!(c.ask("a", later), Ask::Failed(_)));
    }

    #[test]
    fn a_name_that_is_gone_is_gone() {
        let (mut c, now) = (Cache::default(), Instant::now());
        c.ask("a", now);
        c.done("a", Ok(answer(1, 5)), now);
        let later = now + 5 * S;
        c.ask("a", later);
        c.done("a", Err(failed(FailureKind::NoAddress)), later);
        assert!(matches!(c.ask("a", later), Ask::Failed(_)));
        assert_eq!(c.ask("a", later + FAILURE_KEPT), Ask::Look(None));
    }

    #[test]
    fn doubted_answers_are_looked_up_again_but_not_too_often() {
        let (mut c, now) = (Cache::default(), Instant::now());
        c.ask("a", now);
        c.done("a", Ok(answer(1, 60)), now);
        c.doubt("a");
        c.doubt("nobody");
        assert_eq!(known(c.ask("a", now + 4 * S)), 1);
        assert!(matches!(c.ask("a", now + 5 * S), Ask::Look(Some(_))));
    }

    #[test]
    fn names_are_bounded() {
        let (mut c, now) = (Cache::default(), Instant::now());
        for n in 0..NAMES_MAX {
            c.ask(&format!("n{n}"), now);
        }
        assert!(matches!(c.ask("more", now), Ask::Failed(_)), "all are being looked up");
        c.done("n7", Ok(answer(1, 60)), now);
        c.done("n8", Ok(answer(1, 5)), now);
        assert_eq!(c.ask("more", now), Ask::Look(None));
        assert_eq!(c.len(), NAMES_MAX);
        assert_eq!(known(c.ask("n7", now)), 1, "the one that would have ended first has gone");
        // A lookup of a name that was forgotten ends in nothing.
        c.done("n8", Ok(answer(1, 5)), now);
        assert_eq!(c.len(), NAMES_MAX);
    }
}
