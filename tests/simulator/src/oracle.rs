//! What must be true, kept by somebody who sees only what goes in and what comes out.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

/// One event as it was published.
#[derive(Clone, Debug)]
pub struct Published {
    /// The key that it is about.
    pub key: String,
    /// The destinations that must have it, as a bit set.
    pub wanted: u32,
    /// Those that may have it.
    pub allowed: u32,
    /// How often the engine took it, and the ids that it came with.
    takes: usize,
    ids: Vec<String>,
    /// It was reported as durable.
    pub durable: bool,
}

/// What one destination has got of an event.
#[derive(Clone, Copy, Debug, Default)]
struct Got {
    /// Requests with it that were read to the end.
    received: u32,
    /// It was told that it has it, and may be told so again after a failure only.
    accepted: bool,
    /// A failure since then: it may come again.
    excused: bool,
    dead: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Oracle {
    events: Vec<Published>,
    got: BTreeMap<(usize, u64), Got>,
    /// The durable events that a destination neither has accepted nor given up.
    owed: BTreeSet<(usize, u64)>,
    /// Per destination and key, the last event that came for the first time.
    newest: BTreeMap<(usize, String), u64>,
    /// Destinations whose order does not count, as a bit set.
    unordered: u32,
    /// Repeats seen.
    pub repeats: u64,
    /// What went wrong.
    pub violations: Vec<String>,
}

#[derive(Deserialize)]
struct Body {
    #[serde(rename = "Records")]
    records: Vec<Record>,
}

#[derive(Deserialize)]
struct Record {
    s3: S3,
    #[serde(rename = "eventId")]
    event_id: Option<String>,
}

#[derive(Deserialize)]
struct S3 {
    object: Object,
}

#[derive(Deserialize)]
struct Object {
    key: String,
    size: Option<u64>,
}

impl Oracle {
    fn violation(&mut self, text: String) {
        if self.violations.len() < 20 {
            self.violations.push(text);
        }
    }

    /// Notes an event that is about to be published; its number.
    pub fn publish(&mut self, key: &str, wanted: u32) -> u64 {
        self.events.push(Published {
            key: key.to_owned(),
            wanted,
            allowed: wanted,
            takes: 1,
            ids: Vec::new(),
            durable: false,
        });
        self.events.len() as u64 - 1
    }

    /// Forgets the event published last: it was refused.
    pub fn refused(&mut self, n: u64) {
        if let Some(e) = self.events.get_mut(n as usize) {
            (e.wanted, e.allowed) = (0, 0);
            self.owed.retain(|(_, owed)| *owed != n);
        }
    }

    /// The engine has taken an event once more, as it must if it did not keep it.
    pub fn taken_anew(&mut self, n: u64) {
        if let Some(e) = self.events.get_mut(n as usize) {
            e.takes += 1;
        }
    }

    /// It has not taken it once more after all.
    pub fn not_taken_anew(&mut self, n: u64) {
        let Some(e) = self.events.get_mut(n as usize) else { return };
        e.takes -= 1;
        if e.ids.len() > e.takes {
            let text = format!("event {n} doubled: it was not taken once more, but came with the ids {:?}", e.ids);
            self.violation(text);
        }
    }

    /// Whether the engine said that an event is durable.
    pub fn is_durable(&self, n: u64) -> bool {
        self.events.get(n as usize).is_some_and(|e| e.durable)
    }

    /// The order of a destination's events does not count.
    pub fn unordered(&mut self, destination: usize) {
        self.unordered |= 1 << destination;
    }

    /// The engine says that an event is durable.
    pub fn durable(&mut self, n: u64) {
        if let Some(e) = self.events.get_mut(n as usize) {
            if e.durable {
                return;
            }
            e.durable = true;
            for d in (0..32).filter(|d| e.wanted & (1 << d) != 0) {
                let got = self.got.get(&(d, n)).copied().unwrap_or_default();
                if !got.accepted && !got.dead {
                    self.owed.insert((d, n));
                }
            }
        }
    }

    /// The engine was stopped or killed: whatever was on its way may come again.
    pub fn ended(&mut self) {
        for got in self.got.values_mut() {
            got.excused = true;
        }
    }

    /// A destination has read a request. The numbers of its events.
    pub fn received(&mut self, destination: usize, body: &[u8]) -> Vec<u64> {
        let body: Body = match serde_json::from_slice(body) {
            Ok(b) => b,
            Err(e) => {
                self.violation(format!("destination {destination} got what is no document: {e}"));
                return Vec::new();
            }
        };
        let mut numbers = Vec::new();
        for r in body.records {
            let Some(n) = r.s3.object.size else {
                self.violation(format!("destination {destination} got an event without its number"));
                continue;
            };
            let id = r.event_id.unwrap_or_default();
            if id.is_empty() {
                self.violation(format!("event {n} came without an id"));
            }
            match self.events.get(n as usize) {
                None => {
                    self.violation(format!("destination {destination} got event {n}, which never was"));
                    continue;
                }
                Some(e) if e.key != r.s3.object.key => {
                    let text = format!("event {n} of {} came as one of {}", e.key, r.s3.object.key);
                    self.violation(text);
                    continue;
                }
                Some(e) if e.allowed & (1 << destination) == 0 => {
                    self.violation(format!("destination {destination} got event {n}, which it does not want"));
                }
                Some(_) => {}
            }
            if let Some(e) = self.events.get_mut(n as usize)
                && !e.ids.contains(&id)
            {
                e.ids.push(id);
                if e.ids.len() > e.takes {
                    let text = format!("event {n} doubled: it came with the ids {:?}", e.ids);
                    self.violation(text);
                }
            }
            numbers.push(n);
            let got = self.got.entry((destination, n)).or_default();
            got.received += 1;
            let once = self.events.get(n as usize).is_some_and(|e| e.takes == 1);
            let (first, unexcused) = (got.received == 1, got.accepted && !got.excused && once);
            if !first {
                self.repeats += 1;
            }
            if unexcused {
                self.violation(format!("destination {destination} got event {n} again without any failure"));
            }
            if first && self.unordered & (1 << destination) == 0 {
                let newest = self.newest.entry((destination, r.s3.object.key.clone())).or_insert(n);
                if *newest > n {
                    let newer = *newest;
                    self.violation(format!(
                        "destination {destination}, key {}: event {n} came after {newer}",
                        r.s3.object.key
                    ));
                } else {
                    *newest = n;
                }
            }
        }
        numbers
    }

    /// A destination has answered with success, and the answer went out whole.
    pub fn accepted(&mut self, destination: usize, events: &[u64]) {
        for n in events {
            let got = self.got.entry((destination, *n)).or_default();
            (got.accepted, got.excused) = (true, false);
            self.owed.remove(&(destination, *n));
        }
    }

    /// An event is among the dead letters of a destination.
    pub fn dead(&mut self, destination: usize, n: u64, key: &str) {
        match self.events.get(n as usize) {
            Some(e) if e.key == key && e.allowed & (1 << destination) != 0 => {
                self.got.entry((destination, n)).or_default().dead = true;
                self.owed.remove(&(destination, n));
            }
            _ => self.violation(format!("a dead letter of event {n}, key {key}, for destination {destination}")),
        }
    }

    /// The durable events that a destination neither has accepted nor given up.
    pub fn missing(&self) -> &BTreeSet<(usize, u64)> {
        &self.owed
    }

    /// Whether each destination that wants an event has accepted it or given it up.
    pub fn settled(&self, n: u64) -> bool {
        let Some(e) = self.events.get(n as usize) else { return true };
        (0..32).filter(|d| e.wanted & (1 << d) != 0).all(|d| {
            let got = self.got.get(&(d, n)).copied().unwrap_or_default();
            got.accepted || got.dead
        })
    }

    /// Events reported as durable.
    pub fn durable_events(&self) -> u64 {
        self.events.iter().filter(|e| e.durable).count() as u64
    }

    /// Events published, deliveries accepted, dead letters.
    pub fn counts(&self) -> (u64, u64, u64) {
        let accepted = self.got.values().filter(|g| g.accepted).count() as u64;
        let dead = self.got.values().filter(|g| g.dead).count() as u64;
        (self.events.len() as u64, accepted, dead)
    }
}
