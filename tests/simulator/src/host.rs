//! What a host does beside publishing: it reserves and commits later, replays a log of its own, and publishes again what it
//! has published before. What it knows outlives the engine, as a store's own journal would.

use std::collections::BTreeMap;

use tidewire::{
    Ack, CommitFields, DedupKey, ErrorKind, Event, EventId, Intent, KnownType, OnFull, PublishOptions, Published,
    Reservation, ReserveOptions, Reserved, Resolution,
};

use super::{BUCKET, Run, SECOND};

/// The host's memory.
#[derive(Default)]
pub(super) struct Host {
    /// Reservations that are open.
    held: Vec<Held>,
    /// The durable intents that were given out, by their tokens.
    intents: BTreeMap<EventId, Doubt>,
    /// A durable intent was asked for and the answer was no token: there may be some that nobody knows.
    unknown_intents: bool,
    /// The host's own log: the event that stands at each cursor, from 1.
    log: Vec<(u64, String)>,
    /// Up to here the engine was given it.
    tried: u64,
    /// The engine did not take the last event of it: it must be given again before another one.
    stuck: bool,
    /// What [`tidewire::Engine::last_applied`] last said.
    applied: u64,
    /// Events that were published with a key, and when.
    keyed: Vec<Keyed>,
}

struct Held {
    reservation: Reservation,
    key: String,
}

struct Keyed {
    n: u64,
    key: String,
    wall_ns: u64,
}

/// What the host said of a durable intent.
#[derive(Clone, Debug)]
struct Doubt {
    key: String,
    /// Events by which it was committed; more than one after crashes.
    committed: Vec<u64>,
    aborted: bool,
}

fn event<'a>(key: &'a str, n: Option<u64>) -> Event<'a> {
    let mut event = Event::new(KnownType::ObjectCreatedPut.into(), BUCKET, key.as_bytes());
    event.size = n;
    event
}

/// The log cannot take it now, or ever; the host must live with that.
fn is_trouble(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::Full | ErrorKind::LogFailed | ErrorKind::Timeout)
}

impl Run {
    fn some_key(&mut self) -> String {
        self.plan.keys[self.rng.below(self.plan.keys.len() as u64) as usize].clone()
    }

    /// Something that a host does which is more than a simple publisher.
    pub(super) fn do_more(&mut self) {
        match self.rng.below(4) {
            0 => self.reserve(),
            1 => self.end_reservations(),
            2 => {
                for _ in 0..self.rng.between(1, 20) {
                    self.append_new();
                }
            }
            _ if !self.plan.dedup_window.is_zero() => self.publish_keyed(),
            _ => {}
        }
    }

    fn reserve(&mut self) {
        for _ in 0..self.rng.between(1, 6) {
            let key = self.some_key();
            let intent = if self.rng.percent(50) { Intent::Durable } else { Intent::None };
            let options = ReserveOptions { intent, on_full: OnFull::Refuse, ..ReserveOptions::default() };
            let Some(engine) = &self.engine else { return };
            match engine.reserve(&event(&key, None), &options) {
                Ok(Reserved::Held(reservation)) => {
                    if let Some(token) = reservation.token() {
                        log::debug!("reserved {token} for {key}");
                        let doubt = Doubt { key: key.clone(), committed: Vec::new(), aborted: false };
                        self.host.intents.insert(token, doubt);
                    }
                    self.host.held.push(Held { reservation, key });
                }
                Ok(Reserved::NoMatch | Reserved::WouldBlock) => {}
                Err(e) if is_trouble(e.kind()) => self.host.unknown_intents |= intent == Intent::Durable,
                Err(e) => return self.violation(format!("a reservation was refused: {e}")),
            }
        }
    }

    fn end_reservations(&mut self) {
        for _ in 0..self.rng.between(1, 6) {
            if self.host.held.is_empty() {
                return;
            }
            let at = self.rng.below(self.host.held.len() as u64) as usize;
            let Held { reservation, key } = self.host.held.swap_remove(at);
            let token = reservation.token();
            if self.rng.percent(20) {
                let _ = reservation.abort();
                if let Some(doubt) = token.and_then(|t| self.host.intents.get_mut(&t)) {
                    doubt.aborted = true;
                }
                continue;
            }
            let n = self.oracle.borrow_mut().publish(&key, self.plan.wanted(&key));
            if let Some(doubt) = token.and_then(|t| self.host.intents.get_mut(&t)) {
                doubt.committed.push(n);
            }
            let ack = [Ack::Memory, Ack::Written, Ack::Synced][self.rng.below(3) as usize];
            match reservation.submit(&CommitFields { size: Some(n), ..CommitFields::default() }, ack) {
                Ok(receipt) => {
                    log::debug!("{n} at {ack:?}, of the reservation {token:?}");
                    self.receipts.push((n, receipt));
                }
                Err(e) if e.kind() == ErrorKind::LogFailed => self.oracle.borrow_mut().refused(n),
                Err(e) => return self.violation(format!("the commit of event {n} was refused: {e}")),
            }
        }
    }

    /// Appends the next event of the host's log.
    fn append_new(&mut self) {
        if self.host.stuck {
            return;
        }
        let key = format!("h/{}", self.rng.below(3));
        let n = self.oracle.borrow_mut().publish(&key, self.plan.wanted(&key));
        self.host.log.push((n, key));
        self.append_at(self.host.log.len() as u64);
    }

    /// Gives the engine the event at a cursor; `false` if it does not take it.
    fn append_at(&mut self, cursor: u64) -> bool {
        let (n, key) = self.host.log[cursor as usize - 1].clone();
        let ack = [Ack::Memory, Ack::Memory, Ack::Written, Ack::Synced][self.rng.below(4) as usize];
        let options = PublishOptions { ack, on_full: OnFull::Refuse, ..PublishOptions::default() };
        let Some(engine) = &self.engine else { return false };
        let was_durable = self.oracle.borrow().is_durable(n);
        let again = cursor <= self.host.tried;
        self.host.tried = self.host.tried.max(cursor);
        if again {
            // It may be delivered before the call returns.
            self.oracle.borrow_mut().taken_anew(n);
        }
        let result = engine.append_at(cursor, &event(&key, Some(n)), &options);
        log::debug!("{n} at cursor {cursor} and {ack:?}: {result:?}");
        if again && !matches!(result, Ok(Published::Accepted)) {
            self.oracle.borrow_mut().not_taken_anew(n);
        }
        match result {
            Ok(Published::Accepted) if was_durable => {
                self.violation(format!("event {n}, durable at cursor {cursor}, doubled: it was taken once more"));
            }
            Ok(_) => {
                if ack == Ack::Synced {
                    self.oracle.borrow_mut().durable(n);
                }
                return true;
            }
            Err(e) if is_trouble(e.kind()) => {}
            Err(e) => self.violation(format!("the event at cursor {cursor} was refused: {e}")),
        }
        // It must be given again before the next one.
        self.host.stuck = true;
        false
    }

    /// What the host does once the engine is open again.
    pub(super) fn take_up(&mut self) {
        let Some(engine) = &self.engine else { return };
        let applied = match engine.last_applied() {
            Ok(cursor) => cursor,
            Err(e) => return self.violation(format!("what was applied is not known: {e}")),
        };
        let mut wrong = Vec::new();
        if applied < self.host.applied || applied > self.host.log.len() as u64 {
            wrong.push(format!("the host's log is applied up to {applied}, after {}", self.host.applied));
        }
        self.host.applied = applied;
        let in_doubt = match engine.in_doubt() {
            Ok(list) => list,
            Err(e) => return self.violation(format!("what is in doubt is not known: {e}")),
        };
        for (n, _) in self.host.log.iter().take(applied as usize) {
            self.oracle.borrow_mut().durable(*n);
        }
        for (token, doubt) in &self.host.intents {
            let listed = in_doubt.iter().any(|d| d.token == *token);
            let said = doubt.aborted || !doubt.committed.is_empty();
            let ended = doubt.committed.iter().any(|n| self.oracle.borrow().is_durable(*n));
            if listed && ended {
                wrong.push(format!("the reservation {token} is in doubt, and its commit was durable"));
            } else if !listed && !said {
                wrong.push(format!("the durable intent {token} is missing"));
            }
        }
        for d in &in_doubt {
            match self.host.intents.get(&d.token) {
                Some(doubt) if doubt.key.as_bytes() == d.event().key() => {}
                Some(doubt) => wrong.push(format!("the reservation {} was of {}", d.token, doubt.key)),
                None if self.host.unknown_intents => {}
                None => wrong.push(format!("the reservation {} in doubt never was", d.token)),
            }
        }
        // What ended for good is forgotten.
        self.host.intents.retain(|token, _| in_doubt.iter().any(|d| d.token == *token));
        wrong.into_iter().for_each(|text| self.violation(text));

        for d in in_doubt {
            if self.rng.percent(30) {
                continue; // In a later life.
            }
            self.resolve(d.token, String::from_utf8_lossy(d.event().key()).into_owned());
        }
        self.host.stuck = false;
        for cursor in applied + 1..=self.host.log.len() as u64 {
            if !self.append_at(cursor) {
                break;
            }
        }
        // A host that looks further back than it has to does no harm.
        if applied > 0 && self.rng.percent(30) {
            let from = self.rng.between(1, applied);
            for cursor in from..=applied.min(from + 3) {
                self.append_at(cursor);
            }
        }
    }

    fn resolve(&mut self, token: EventId, key: String) {
        let Some(engine) = &self.engine else { return };
        let commits = self.rng.percent(70);
        let n = self.oracle.borrow_mut().publish(&key, if commits { self.plan.wanted(&key) } else { 0 });
        let event = event(&key, Some(n));
        let result = engine.resolve(token, if commits { Resolution::Commit(&event) } else { Resolution::Abort });
        log::debug!("{n} resolves {token}: {result:?}");
        if let Some(doubt) = self.host.intents.get_mut(&token) {
            match commits {
                true => doubt.committed.push(n),
                false => doubt.aborted = true,
            }
        }
        match result {
            Ok(()) if commits => self.oracle.borrow_mut().durable(n),
            Ok(()) => drop(self.host.intents.remove(&token)),
            Err(e) if is_trouble(e.kind()) => {}
            Err(e) => self.violation(format!("the reservation {token} cannot be resolved: {e}")),
        }
    }

    /// Publishes something with a key, and perhaps something again that was published with one.
    fn publish_keyed(&mut self) {
        let window = self.plan.dedup_window;
        for _ in 0..self.rng.between(1, 10) {
            let again = !self.host.keyed.is_empty() && self.rng.percent(40);
            let (n, key, was) = if again {
                let at = self.rng.below(self.host.keyed.len() as u64) as usize;
                let k = self.host.keyed.swap_remove(at);
                // Long after, it would be a new event.
                if self.world.wall_ns() >= k.wall_ns + window.as_nanos() as u64 {
                    continue;
                }
                (k.n, k.key, Some(k.wall_ns))
            } else {
                let key = format!("k/{}", self.rng.below(4));
                (self.oracle.borrow_mut().publish(&key, self.plan.wanted(&key)), key, None)
            };
            let options = PublishOptions {
                ack: [Ack::Memory, Ack::Synced][self.rng.below(2) as usize],
                on_full: OnFull::Refuse,
                dedup_key: Some(DedupKey::new(&n.to_le_bytes())),
                ..PublishOptions::default()
            };
            let Some(engine) = &self.engine else { return };
            let now_ns = self.world.wall_ns();
            let durable = self.oracle.borrow().is_durable(n);
            match engine.submit(&event(&key, Some(n)), &options) {
                Ok(Some(receipt)) => {
                    log::debug!("{n} with a key, repeat: {}", receipt.is_duplicate());
                    // A clock that is set back makes the window longer, one that is set forward shorter.
                    let within = was.is_some_and(|at| !self.plan.wall_steps && now_ns < at + window.as_nanos() as u64);
                    if durable && within && !receipt.is_duplicate() {
                        self.violation(format!("event {n} doubled: its key is not known any more"));
                    } else if was.is_none() && receipt.is_duplicate() {
                        self.violation(format!("event {n} was taken for a repeat, and is missing"));
                    }
                    if !receipt.is_duplicate() {
                        if again {
                            self.oracle.borrow_mut().taken_anew(n);
                        }
                        self.receipts.push((n, receipt));
                    }
                    let wall_ns = was.filter(|_| within).unwrap_or(now_ns);
                    self.host.keyed.push(Keyed { n, key, wall_ns });
                }
                Ok(None) => self.oracle.borrow_mut().refused(n),
                Err(e) if is_trouble(e.kind()) => {
                    if was.is_none() {
                        self.oracle.borrow_mut().refused(n);
                    }
                }
                Err(e) => return self.violation(format!("event {n} with a key was refused: {e}")),
            }
            let ns = self.rng.below(SECOND);
            self.pass(ns);
        }
    }

    /// The process is gone, and what it held.
    pub(super) fn forget_life(&mut self) {
        self.host.held.clear();
        // What was lost and comes again is a new event in the order of its key.
        let oracle = self.oracle.borrow();
        self.host.keyed.retain(|k| oracle.is_durable(k.n));
    }
}
