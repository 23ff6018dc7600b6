//! What callers have put, in the data directory: `rules.json` has it as a whole, `rules.journal` what was changed since.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::config::stored::{destination_json, destination_of_json, rule_json, rule_of_json};
use crate::driver::fs;
use crate::error::{Error, Result};
use crate::event::EventTypes;
use crate::log::journal::{self, Journal};
use crate::log::recovery::{newer_format, read_json, write_json};
use crate::log::{FORMAT, RULES_FILE, RULES_JOURNAL};
use crate::rule::{Backlog, Edit, LiveDestination, LiveRules, Owner, Plan, Retired, key};

/// The journal may be so large before it is taken into the file, or as large as the file.
const JOURNAL_BYTES_MIN: u64 = 1 << 20;

#[derive(Debug, Serialize, Deserialize)]
struct RulesFile {
    format: u32,
    /// That of the last change.
    version: u64,
    /// When the rules of each bucket were changed last; the empty name is those of every bucket.
    buckets: BTreeMap<Box<str>, u64>,
    rules: Vec<StoredItem>,
    destinations: Vec<StoredItem>,
    /// Destinations that are gone, by number.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    retired: BTreeMap<u32, StoredRetired>,
}

/// What becomes of what waits for a destination that is gone.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct StoredRetired {
    name: String,
    backlog: StoredBacklog,
    settings: Option<Value>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum StoredBacklog {
    Drain,
    DeadLetter,
    Purge,
    MoveTo(String),
}

impl StoredRetired {
    fn of(r: &Retired) -> StoredRetired {
        let backlog = match &r.backlog {
            Backlog::Keep | Backlog::Drain => StoredBacklog::Drain,
            Backlog::DeadLetter => StoredBacklog::DeadLetter,
            Backlog::Purge => StoredBacklog::Purge,
            Backlog::MoveTo(name) => StoredBacklog::MoveTo(name.clone()),
        };
        StoredRetired { name: r.name.clone(), backlog, settings: r.settings.as_ref().map(|d| destination_json(d)) }
    }

    fn retired(self) -> Retired {
        let backlog = match self.backlog {
            StoredBacklog::Drain => Backlog::Drain,
            StoredBacklog::DeadLetter => Backlog::DeadLetter,
            StoredBacklog::Purge => Backlog::Purge,
            StoredBacklog::MoveTo(name) => Backlog::MoveTo(name),
        };
        let settings = self.settings.and_then(|json| {
            let read = destination_of_json(json).map(Arc::new);
            read.map_err(|e| log::error!("what waits for `{}` becomes dead letters: {e}", self.name)).ok()
        });
        Retired { name: self.name, backlog, settings }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct StoredItem {
    version: u64,
    item: Value,
}

/// A line of the journal: everything that one call has changed.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Change {
    version: u64,
    /// Bucket, id, and the rule; without one it was deleted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    rules: Vec<(Box<str>, Box<str>, Option<Value>)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    destinations: Vec<(String, Option<Value>)>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    retired: BTreeMap<u32, StoredRetired>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Kept {
    path: PathBuf,
    journal: Journal,
    file_bytes: u64,
    /// What cannot be read, as it is: it stays.
    unreadable: (Vec<StoredItem>, Vec<StoredItem>),
}

/// What an earlier run has left.
#[derive(Debug, Default)]
pub(super) struct Before {
    pub(super) version: u64,
    pub(super) bucket_versions: BTreeMap<Box<str>, u64>,
    pub(super) edit: Edit,
}

impl Kept {
    /// Opens what is kept. What cannot be read is left out, told of, and not lost.
    ///
    /// # Errors
    /// If the files cannot be read at all, or are of a newer format.
    pub(super) fn open(dir: &Path, types: &EventTypes) -> Result<(Kept, Before)> {
        let path = dir.join(RULES_FILE);
        // First what came later: what is taken from the one into the other meanwhile is then in both.
        let read = journal::read::<Change>(&dir.join(RULES_JOURNAL))?;
        if read.damaged > 0 {
            log::warn!("{}: {} changes cannot be understood", dir.join(RULES_JOURNAL).display(), read.damaged);
        }
        let file = match read_json::<RulesFile>(&path)? {
            Some(f) if f.format > FORMAT => return Err(newer_format(f.format).at(path.display().to_string())),
            Some(f) => f,
            None => RulesFile {
                format: FORMAT,
                version: 0,
                buckets: BTreeMap::new(),
                rules: Vec::new(),
                destinations: Vec::new(),
                retired: BTreeMap::new(),
            },
        };
        let mut kept = Kept {
            file_bytes: fs::len(&path).unwrap_or(0),
            path,
            journal: read.journal,
            unreadable: (Vec::new(), Vec::new()),
        };
        let mut before = Before { version: file.version, bucket_versions: file.buckets, ..Before::default() };
        let text = |item: &Value, key: &str| item.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let mut rules = BTreeMap::new();
        for stored in file.rules {
            rules.insert((text(&stored.item, "bucket").into(), text(&stored.item, "id").into()), stored);
        }
        let mut destinations: BTreeMap<String, StoredItem> =
            file.destinations.into_iter().map(|stored| (text(&stored.item, "name"), stored)).collect();
        let mut retired = file.retired;
        for change in read.changes.into_iter().filter(|c| c.version > file.version) {
            retired.extend(change.retired);
            let version = change.version;
            before.version = before.version.max(version);
            for (bucket, id, rule) in change.rules {
                before.bucket_versions.insert(bucket.clone(), version);
                match rule {
                    Some(item) => drop(rules.insert((bucket, id), StoredItem { version, item })),
                    None => drop(rules.remove(&(bucket, id))),
                }
            }
            for (name, destination) in change.destinations {
                match destination {
                    Some(item) => drop(destinations.insert(name, StoredItem { version, item })),
                    None => drop(destinations.remove(&name)),
                }
            }
        }
        before.edit.lenient = true;
        before.edit.retired = retired.into_iter().map(|(n, r)| (n, r.retired())).collect();
        for (name, stored) in destinations {
            match destination_of_json(stored.item.clone()).and_then(|d| d.validate().map(|()| d)) {
                Ok(d) => drop(before.edit.destinations.insert(name, Some((Arc::new(d), Some(stored.version))))),
                Err(e) => kept.cannot_read(&e, stored, true),
            }
        }
        for stored in rules.into_values() {
            match rule_of_json(stored.item.clone(), types) {
                Ok(rule) => {
                    let key = key(rule.bucket.as_deref(), &rule.id);
                    before.edit.rules.insert(key, Some((rule, Some(stored.version))));
                }
                Err(e) => kept.cannot_read(&e, stored, false),
            }
        }
        Ok((kept, before))
    }

    fn cannot_read(&mut self, e: &Error, stored: StoredItem, is_destination: bool) {
        log::error!("{}: {e}; it is kept, and not in force", self.path.display());
        let list = if is_destination { &mut self.unreadable.1 } else { &mut self.unreadable.0 };
        list.push(stored);
    }

    /// As [`Journal::renew`].
    ///
    /// # Errors
    /// If it cannot be written.
    pub(super) fn renew(&mut self) -> Result<()> {
        self.journal.renew()
    }

    /// Writes down what a change does to what callers have put.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(super) fn append(&mut self, plan: &Plan) -> Result<()> {
        let rule = |((bucket, id), rule): (_, Option<&crate::rule::LiveRule>)| {
            (bucket, id, rule.map(|r| rule_json(&r.whole())))
        };
        let destination = |(name, d): &(String, Option<LiveDestination>)| {
            (name.clone(), d.as_ref().map(|d| destination_json(&d.destination)))
        };
        let change = Change {
            version: plan.version,
            rules: plan.changed_rules().map(rule).collect(),
            destinations: plan.changed_destinations.iter().map(destination).collect(),
            retired: plan.retired.iter().map(|(n, r)| (*n, StoredRetired::of(r))).collect(),
        };
        self.journal.append(&[change])
    }

    /// Takes the journal into the whole file if it has become large.
    pub(super) fn tidy(&mut self, live: &LiveRules) {
        if self.journal.bytes() <= JOURNAL_BYTES_MIN.max(self.file_bytes) {
            return;
        }
        let rules = live.all_of(Owner::Callers).map(|r| StoredItem { version: r.version, item: rule_json(&r.whole()) });
        let mine = live.destinations().all().filter(|d| d.owner == Owner::Callers);
        let destinations = mine.map(|d| StoredItem { version: d.version, item: destination_json(&d.destination) });
        let file = RulesFile {
            format: FORMAT,
            version: live.version(),
            buckets: live.bucket_versions().clone(),
            rules: rules.chain(self.unreadable.0.iter().cloned()).collect(),
            destinations: destinations.chain(self.unreadable.1.iter().cloned()).collect(),
            retired: live.destinations().retired().iter().map(|(n, r)| (*n, StoredRetired::of(r))).collect(),
        };
        // What is in the journal stays there otherwise.
        match write_json(&self.path, &file).and_then(|()| self.journal.clear()) {
            Ok(()) => self.file_bytes = fs::len(&self.path).unwrap_or(0),
            Err(e) => log::warn!("{e}"),
        }
    }
}
