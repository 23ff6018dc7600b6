//! `tidewire dead-letters`.

use std::collections::HashMap;
use std::io::Write;
use std::path::Path;

use base64::Engine as _;
use serde_json::{Value, json};
use tidewire::event::{EventId, FrameView};
use tidewire::log::record::DeadLetter;
use tidewire::log::recovery::dead_letters;
use tidewire::{Error, ErrorKind};

use crate::Failure;

pub(crate) fn list(data_dir: &Path, as_json: bool, out: &mut dyn Write) -> Result<(), Failure> {
    let names = Names::read(data_dir)?;
    let mut count = 0u64;
    for letter in dead_letters(data_dir)? {
        let id = format!("shard {} number {}", letter.shard, letter.number);
        let decoded = DeadLetter::decode(&letter.body).and_then(|d| Ok((FrameView::parse(d.frame)?, d)));
        let (frame, d) = match decoded {
            Ok(decoded) => decoded,
            Err(e) => {
                log::error!("{id}: {e}");
                continue;
            }
        };
        count += 1;
        let event_id = EventId { incarnation: d.incarnation, shard: letter.shard as u16, sequence: d.sequence };
        let destination = names.of(&names.destinations, d.destination);
        let rule = names.of(&names.rules, d.rule);
        if as_json {
            let mut line = json!({
                "shard": letter.shard,
                "number": letter.number,
                "event_id": event_id.to_string(),
                "type": frame.event_type().name(),
                "bucket": frame.bucket(),
                "destination": destination,
                "rule": rule,
                "attempts": d.attempts,
                "status": d.status,
                "reason": d.reason,
                "accepted": time(d.first_ns),
                "given_up": time(d.last_ns),
            });
            match std::str::from_utf8(frame.key()) {
                Ok(key) => line["key"] = key.into(),
                Err(_) => {
                    line["key_base64"] = base64::engine::general_purpose::STANDARD.encode(frame.key()).into();
                }
            }
            writeln!(out, "{line}")?;
        } else {
            writeln!(out, "{destination}: {} {}/{}", frame.event_type(), frame.bucket(), frame.key().escape_ascii())?;
            writeln!(out, "  rule {rule}, event {event_id} ({id})")?;
            let tries = if d.attempts == 1 { "1 attempt".to_owned() } else { format!("{} attempts", d.attempts) };
            let status = if d.status == 0 { String::new() } else { format!(" (status {})", d.status) };
            writeln!(out, "  given up after {tries}{status}: {}", d.reason)?;
            writeln!(out, "  accepted {}, given up {}", time(d.first_ns), time(d.last_ns))?;
        }
    }
    if !as_json {
        let s = if count == 1 { "" } else { "s" };
        writeln!(out, "{count} dead letter{s}")?;
    }
    Ok(())
}

fn time(ns: u64) -> String {
    match jiff::Timestamp::from_nanosecond(i128::from(ns)) {
        Ok(t) => format!("{t:.3}"),
        Err(_) => format!("{ns} ns"),
    }
}

/// What the numbers in the log stand for.
pub(crate) struct Names {
    destinations: HashMap<u64, String>,
    rules: HashMap<u64, String>,
}

impl Names {
    pub(crate) fn read(data_dir: &Path) -> Result<Names, Error> {
        let path = data_dir.join("names.json");
        let at = |e: Error| e.at(path.display().to_string());
        let text = std::fs::read(&path)
            .map_err(|e| at(Error::io("cannot read it", &e).remedy("name the data directory of an engine")))?;
        let file: Value =
            serde_json::from_slice(&text).map_err(|e| at(Error::new(ErrorKind::Corrupt, e.to_string())))?;
        let table = |name: &str| {
            let entries = file.get(name).and_then(Value::as_object).into_iter().flatten();
            entries.filter_map(|(name, number)| Some((number.as_u64()?, name.clone()))).collect()
        };
        Ok(Names { destinations: table("destinations"), rules: table("rules") })
    }

    pub(crate) fn has_rule(&self, number: u32) -> bool {
        self.rules.contains_key(&u64::from(number))
    }

    pub(crate) fn rule(&self, number: u32) -> String {
        self.of(&self.rules, number)
    }

    fn of(&self, table: &HashMap<u64, String>, number: u32) -> String {
        table.get(&u64::from(number)).cloned().unwrap_or_else(|| format!("#{number}"))
    }
}
