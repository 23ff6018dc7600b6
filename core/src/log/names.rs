//! The numbers that destinations and rules have in the log.
//!
//! `names.json` has them as a whole, and `names.journal` those that came since: one new name among a million costs a line.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::FORMAT;
use super::journal::{self, Journal};
use super::recovery::{check_path, newer_format, read_json, write_json};
use crate::driver::fs;
use crate::error::{Error, ErrorKind, Result};
use crate::table::Table;

pub(super) const FILE: &str = "names.json";
pub(super) const JOURNAL: &str = "names.journal";
/// The journal may be so large before it is taken into the file, or as large as the file.
const JOURNAL_BYTES_MIN: u64 = 64 << 10;
/// So many numbers are left out where some may have been given to names that are lost.
const NUMBERS_SKIPPED: u32 = 1 << 16;

#[derive(Debug, Serialize, Deserialize)]
struct NamesFile {
    format: u32,
    next: u32,
    destinations: BTreeMap<Arc<str>, u32>,
    rules: BTreeMap<Arc<str>, u32>,
    /// Destinations that are gone, or have another number now, as far as something may wait for them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    former: BTreeMap<u32, Former>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Former {
    name: Arc<str>,
    /// Nothing waits for it any more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    done: bool,
}

/// A line of the journal: a name and its number.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Named {
    Destination(Arc<str>, u32),
    Rule(Arc<str>, u32),
    /// A destination that has this number no more.
    Former(Arc<str>, u32),
    /// One for which nothing waits any more.
    Done(u32),
}

/// The numbers that destinations and rules have in the log. A number is never given to another name.
#[derive(Debug)]
pub struct Names {
    path: PathBuf,
    destinations: BTreeMap<Arc<str>, u32>,
    rules: BTreeMap<Arc<str>, u32>,
    former: BTreeMap<u32, Former>,
    by_number: Table<Name>,
    next: u32,
    journal: Journal,
    /// The bytes of the whole file.
    file_bytes: u64,
}

/// What has a number.
#[derive(Clone, Debug)]
pub(crate) enum Name {
    Destination(Arc<str>),
    Rule(Arc<str>),
}

impl Names {
    /// The names of a data directory, for looking only; also while an engine is running.
    ///
    /// # Errors
    /// If it has none, or they cannot be read.
    pub fn read(dir: &Path) -> Result<Names> {
        check_path(dir)?;
        let path = dir.join(FILE);
        if !fs::exists(&path) {
            return Err(Error::new(ErrorKind::NotFound, "there is no such file")
                .at(path.display().to_string())
                .remedy("name the data directory of an engine"));
        }
        Names::open(dir)
    }

    pub(super) fn open(dir: &Path) -> Result<Names> {
        let path = dir.join(FILE);
        // First what came later: what is taken from the one into the other meanwhile is then in both.
        let read = journal::read::<Named>(&dir.join(JOURNAL))?;
        let file = match read_json::<NamesFile>(&path)? {
            Some(f) if f.format > FORMAT => return Err(newer_format(f.format).at(path.display().to_string())),
            Some(f) => f,
            None => NamesFile {
                format: FORMAT,
                next: 1,
                destinations: BTreeMap::new(),
                rules: BTreeMap::new(),
                former: BTreeMap::new(),
            },
        };
        let mut names = Names {
            file_bytes: fs::len(&path).unwrap_or(0),
            path,
            destinations: BTreeMap::new(),
            rules: BTreeMap::new(),
            former: BTreeMap::new(),
            by_number: Table::default(),
            next: file.next,
            journal: read.journal,
        };
        let destinations = file.destinations.into_iter().map(|(name, n)| Named::Destination(name, n));
        let rules = file.rules.into_iter().map(|(name, n)| Named::Rule(name, n));
        let done: Vec<u32> = file.former.iter().filter(|(_, f)| f.done).map(|(n, _)| *n).collect();
        let former = file.former.into_iter().map(|(n, f)| Named::Former(f.name, n));
        let former = former.chain(done.into_iter().map(Named::Done));
        former.chain(destinations).chain(rules).chain(read.changes).for_each(|named| names.take(named));
        if read.damaged > 0 {
            names.next += NUMBERS_SKIPPED;
            log::warn!("{}: {} lines cannot be understood", dir.join(JOURNAL).display(), read.damaged);
        }
        Ok(names)
    }

    fn take(&mut self, named: Named) {
        let (name, number) = match named {
            Named::Destination(name, n) => {
                self.former.remove(&n);
                self.destinations.insert(name.clone(), n);
                (Name::Destination(name), n)
            }
            Named::Rule(name, n) => {
                self.rules.insert(name.clone(), n);
                (Name::Rule(name), n)
            }
            Named::Former(name, n) => {
                if self.destinations.get(&name) == Some(&n) {
                    self.destinations.remove(&name);
                }
                self.former.insert(n, Former { name: name.clone(), done: false });
                (Name::Destination(name), n)
            }
            Named::Done(n) => {
                if let Some(former) = self.former.get_mut(&n) {
                    former.done = true;
                }
                return;
            }
        };
        self.by_number.set(number, Some(name));
        self.next = self.next.max(number.saturating_add(1));
    }

    /// Whether `names.json` is there.
    pub(super) fn is_written(&self) -> bool {
        fs::exists(&self.path)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes the whole file.
    ///
    /// # Errors
    /// If it cannot be written; then nothing has changed.
    pub(super) fn write(&mut self) -> Result<()> {
        let file = NamesFile {
            format: FORMAT,
            next: self.next,
            destinations: self.destinations.clone(),
            rules: self.rules.clone(),
            former: self.former.clone(),
        };
        write_json(&self.path, &file)?;
        self.file_bytes = fs::len(&self.path).unwrap_or(0);
        self.journal.clear()
    }

    /// Takes the journal into the whole file, if it is there.
    ///
    /// # Errors
    /// If that cannot be written.
    pub(crate) fn tidy(&mut self) -> Result<()> {
        if self.journal.bytes() > 0 { self.write() } else { Ok(()) }
    }

    /// Gives numbers to names that have none, durably. Answers the numbers of all, in order, and which destinations are new.
    ///
    /// # Errors
    /// If that cannot be written; then no number was given.
    pub fn assign(&mut self, destinations: &[&str], rules: &[&str]) -> Result<Assigned> {
        // Events are about to be kept under the numbers of names that are known, too.
        self.journal.renew()?;
        let mut out = Assigned::default();
        let mut new = Vec::new();
        let mut next = self.next;
        let mut given: BTreeMap<(bool, &str), u32> = BTreeMap::new();
        let mut number = |name: &str, known: Option<&u32>, is_rule: bool| {
            let n = next;
            let name: Arc<str> = name.into();
            match known {
                Some(n) => (*n, false),
                None => {
                    next += 1;
                    new.push(if is_rule { Named::Rule(name, n) } else { Named::Destination(name, n) });
                    (n, true)
                }
            }
        };
        for name in destinations {
            let known = self.destinations.get(*name).or_else(|| given.get(&(false, *name)));
            let (n, is_new) = number(name, known, false);
            out.destinations.push(n);
            if is_new {
                given.insert((false, name), n);
                out.new_destinations.push(n);
            }
        }
        for name in rules {
            let known = self.rules.get(*name).or_else(|| given.get(&(true, *name)));
            let (n, is_new) = number(name, known, true);
            out.rules.push(n);
            if is_new {
                given.insert((true, name), n);
            }
        }
        if !new.is_empty() {
            self.journal.append(&new)?;
            new.into_iter().for_each(|named| self.take(named));
            if self.journal.bytes() > JOURNAL_BYTES_MIN.max(self.file_bytes)
                && let Err(e) = self.write()
            {
                // They are in the journal.
                log::warn!("{e}");
            }
        }
        Ok(out)
    }

    /// A further number for a destination, durably one of its name from now on; [`Names::retire`] makes it the one it has.
    ///
    /// # Errors
    /// If that cannot be written; then no number was given.
    pub(crate) fn reserve(&mut self, name: &str) -> Result<u32> {
        let number = self.next;
        let reserved = Named::Former(name.into(), number);
        self.journal.append(std::slice::from_ref(&reserved))?;
        self.take(reserved);
        Ok(number)
    }

    /// Takes its number from a destination, durably: what waits under that number is not that of the name any more. It may
    /// have one that was reserved in its place.
    ///
    /// # Errors
    /// If that cannot be written; then nothing has changed.
    pub(crate) fn retire(&mut self, name: &str, reserved: Option<u32>) -> Result<()> {
        let known = self.destinations.get_key_value(name).map(|(name, n)| (name.clone(), *n));
        let mut named: Vec<Named> = known.into_iter().map(|(name, n)| Named::Former(name, n)).collect();
        named.extend(reserved.map(|n| Named::Destination(name.into(), n)));
        self.journal.append(&named)?;
        named.into_iter().for_each(|named| self.take(named));
        Ok(())
    }

    /// For these destinations, which are gone, nothing waits any more. Dead letters there may be.
    ///
    /// # Errors
    /// If that cannot be written.
    pub(crate) fn set_done(&mut self, numbers: &[u32]) -> Result<()> {
        let gone: Vec<Named> =
            numbers.iter().filter(|n| self.former.get(n).is_some_and(|f| !f.done)).map(|n| Named::Done(*n)).collect();
        if !gone.is_empty() {
            self.journal.append(&gone)?;
            gone.into_iter().for_each(|named| self.take(named));
        }
        Ok(())
    }

    /// The numbers of all destinations that rules ever had. Names with a colon are the engine's own, which have no lanes.
    pub fn destinations(&self) -> impl Iterator<Item = u32> {
        let named = self.destinations.iter().filter(|(name, _)| !name.contains(':')).map(|(_, n)| *n);
        named.chain(self.former())
    }

    /// The numbers of destinations that are gone, as far as something may wait for them.
    pub(crate) fn former(&self) -> impl Iterator<Item = u32> {
        self.former.iter().filter(|(_, f)| !f.done).map(|(n, _)| *n)
    }

    /// All numbers that a destination has or had.
    pub(crate) fn numbers_of(&self, name: &str) -> Vec<u32> {
        let former = self.former.iter().filter(|(_, f)| &*f.name == name).map(|(n, _)| *n);
        self.destinations.get(name).copied().into_iter().chain(former).collect()
    }

    /// The names of all destinations, those that are gone after the others.
    pub fn destination_names(&self) -> impl Iterator<Item = &str> {
        self.destinations.keys().map(|name| &**name).chain(self.former.values().map(|f| &*f.name))
    }

    /// The number of a destination.
    pub fn destination_number(&self, name: &str) -> Option<u32> {
        self.destinations.get(name).copied()
    }

    /// The destination of a number.
    pub fn destination(&self, number: u32) -> Option<&str> {
        match self.by_number.get(number)? {
            Name::Destination(name) => Some(name),
            Name::Rule(_) => None,
        }
    }

    /// The rule of a number.
    pub fn rule(&self, number: u32) -> Option<&str> {
        match self.by_number.get(number)? {
            Name::Rule(name) => Some(name),
            Name::Destination(_) => None,
        }
    }

    /// Everything that has a number.
    pub(crate) fn by_number(&self) -> &Table<Name> {
        &self.by_number
    }
}

/// Numbers as [`Names::assign`] gave them.
#[derive(Debug, Default)]
pub struct Assigned {
    /// One per destination asked for.
    pub destinations: Vec<u32>,
    /// One per rule asked for.
    pub rules: Vec<u32>,
    /// Those of the destinations that had no number before.
    pub new_destinations: Vec<u32>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_their_numbers_and_get_them_in_the_journal_first() {
        let dir = tempfile::tempdir().unwrap();
        let mut names = Names::open(dir.path()).unwrap();
        names.write().unwrap();
        let a = names.assign(&["x", "y", "x"], &["x", "r"]).unwrap();
        assert_eq!((a.destinations, a.rules, a.new_destinations), (vec![1, 2, 1], vec![3, 4], vec![1, 2]));
        assert!(!std::fs::read_to_string(dir.path().join(FILE)).unwrap().contains("\"y\""));
        for tidy in [false, true] {
            let mut again = Names::read(dir.path()).unwrap();
            if tidy {
                again.tidy().unwrap();
                assert_eq!(fs::len(&dir.path().join(JOURNAL)).unwrap(), 0);
                again = Names::read(dir.path()).unwrap();
            }
            assert_eq!((again.destination(2), again.rule(4), again.rule(2)), (Some("y"), Some("r"), None));
            assert_eq!(again.destination_names().collect::<Vec<_>>(), ["x", "y"]);
            let a = again.assign(&["y"], &["r"]).unwrap();
            assert_eq!((a.destinations, a.rules, a.new_destinations), (vec![2], vec![4], vec![]));
        }
    }

    #[test]
    fn a_number_that_may_have_been_given_is_not_given_again() {
        let dir = tempfile::tempdir().unwrap();
        let mut names = Names::open(dir.path()).unwrap();
        names.write().unwrap();
        names.assign(&["x"], &[]).unwrap();
        names.assign(&["y"], &[]).unwrap();
        let path = dir.path().join(JOURNAL);
        let mut bytes = std::fs::read(&path).unwrap();
        let last = bytes.len() - 3;
        bytes[last] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        let mut names = Names::read(dir.path()).unwrap();
        assert_eq!((names.destination_number("x"), names.destination_number("y")), (Some(1), None));
        assert!(names.assign(&["z"], &[]).unwrap().destinations[0] > 2);
    }

    #[test]
    fn a_large_journal_goes_into_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let mut names = Names::open(dir.path()).unwrap();
        names.write().unwrap();
        let rules: Vec<String> = (0..3000).map(|n| format!("rule-{n:08}")).collect();
        for rules in rules.chunks(500) {
            names.assign(&[], &rules.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
        }
        assert!(fs::len(&dir.path().join(FILE)).unwrap() > 40_000);
        assert!(fs::len(&dir.path().join(JOURNAL)).unwrap() < 100_000);
        assert_eq!(Names::read(dir.path()).unwrap().rule(3000), Some("rule-00002999"));
    }
}
