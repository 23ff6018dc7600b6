//! What has changed since a file of settings was written as a whole: lines of JSON, each with a checksum.
//!
//! A line is the checksum in eight hex digits, a space, the JSON and a line feed. The checksum is CRC32C over that of the
//! line before (little-endian, 0 for the first) and the JSON, so that what an earlier, longer file has left behind the end
//! is not taken for a part of this one.
//!
//! Applying a change twice must be the same as once: after a crash the file may have changes that the whole one has too.

use std::io::ErrorKind as IoKind;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::driver::fs;
use crate::error::{Error, ErrorKind, Result};

/// The file behind another one.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    /// Where the next line goes.
    end: u64,
    /// The checksum of the last line.
    last: u32,
    /// What was read and may not be durable: an earlier run may have failed to make it so, and have left it in the cache of
    /// the system, which does not try again ([`Journal::renew`]).
    doubtful: Vec<u8>,
    /// Behind the end there may be what was never acknowledged, if only on the disk: what cut it off may not be durable.
    torn: bool,
}

/// What a file holds.
#[derive(Debug)]
pub(crate) struct Read<T> {
    pub(crate) journal: Journal,
    pub(crate) changes: Vec<T>,
    /// Lines that cannot be understood. The last one may be what a crash has left of a change that was never answered.
    pub(crate) damaged: u64,
}

/// Reads the changes; none if there is no file.
///
/// # Errors
/// If it cannot be read, or was written by a version whose changes this one does not know.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Result<Read<T>> {
    let at = |e: Error| e.at(path.display().to_string());
    let (bytes, exists) = match fs::read(path) {
        Ok(bytes) => (bytes, true),
        Err(e) if e.kind() == IoKind::NotFound => (Vec::new(), false),
        Err(e) => return Err(at(Error::io("cannot read it", &e))),
    };
    let mut read = Read {
        journal: Journal { path: path.to_owned(), end: 0, last: 0, doubtful: Vec::new(), torn: false },
        changes: Vec::new(),
        damaged: 0,
    };
    let (mut place, mut before) = (0, Some(0));
    for line in bytes.split_inclusive(|b| *b == b'\n') {
        place += line.len();
        let own = line.get(..8).and_then(|hex| u32::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        let json = line.strip_suffix(b"\n").and_then(|l| l.get(9..));
        let whole = match (own, json, before) {
            (Some(own), Some(json), Some(before)) => {
                own == checksum(before, json) && line.starts_with(format!("{own:08x} ").as_bytes())
            }
            _ => false,
        };
        before = own;
        let (Some(json), true) = (json, whole) else {
            read.damaged += 1;
            continue;
        };
        let change = serde_json::from_slice(json).map_err(|e| {
            at(Error::new(ErrorKind::NewerFormat, format!("a change is not known to this version: {e}"))
                .remedy("open the data directory with the version that wrote it, or a later one"))
        })?;
        read.changes.push(change);
        (read.journal.end, read.journal.last) = (place as u64, own.unwrap_or(0));
    }
    // Also if nothing is there: an earlier run may have cut off a change that failed, and failed to make that durable.
    read.journal.torn = exists;
    read.journal.doubtful = bytes;
    read.journal.doubtful.truncate(read.journal.end as usize);
    Ok(read)
}

fn checksum(before: u32, json: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&before.to_le_bytes()), json)
}

impl Journal {
    /// Adds changes; they are durable then.
    ///
    /// # Errors
    /// If they cannot be written. Whether they are there after a crash is open then.
    pub(crate) fn append<T: Serialize>(&mut self, changes: &[T]) -> Result<()> {
        let (mut text, mut last) = (Vec::new(), self.last);
        for change in changes {
            let json = serde_json::to_vec(change).map_err(|e| Error::new(ErrorKind::Internal, e.to_string()))?;
            last = checksum(last, &json);
            text.extend_from_slice(format!("{last:08x} ").as_bytes());
            text.extend_from_slice(&json);
            text.push(b'\n');
        }
        self.renew()?;
        self.torn = true;
        fs::write_from(&self.path, self.end, &text).map_err(|e| self.at(&e))?;
        (self.end, self.last, self.torn) = (self.end + text.len() as u64, last, false);
        Ok(())
    }

    /// Makes it certain, and durable, that the file has what was read and acknowledged and nothing else. Whoever tells of
    /// what it has, also that a change is none, must do this first; it costs nothing if nothing is in doubt.
    ///
    /// # Errors
    /// If it cannot be written; it is tried again then before anything is added.
    pub(crate) fn renew(&mut self) -> Result<()> {
        if !self.doubtful.is_empty() {
            // The same bytes in the same place: a crash leaves them as they are, and a full disk has room for them.
            let dir = self.path.parent().unwrap_or(Path::new("."));
            fs::rewrite(&self.path, &self.doubtful).and_then(|()| fs::sync_dir(dir)).map_err(|e| self.at(&e))?;
            self.doubtful = Vec::new();
        }
        if self.torn {
            fs::write_from(&self.path, self.end, b"").map_err(|e| self.at(&e))?;
            self.torn = false;
        }
        Ok(())
    }

    fn at(&self, e: &std::io::Error) -> Error {
        Error::io("cannot write it", e).at(self.path.display().to_string())
    }

    /// Forgets all changes: the whole file has them.
    ///
    /// # Errors
    /// If the file cannot be written; the changes may be there still.
    pub(crate) fn clear(&mut self) -> Result<()> {
        if self.end == 0 && !self.torn && !fs::exists(&self.path) {
            return Ok(());
        }
        // Also if this fails: the file may be empty already, and nothing may be added behind where the end was.
        (self.end, self.last, self.doubtful, self.torn) = (0, 0, Vec::new(), true);
        self.renew()
    }

    /// The bytes of the changes.
    pub(crate) fn bytes(&self) -> u64 {
        self.end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(path: &Path) -> (Vec<String>, u64) {
        let read = read::<String>(path).unwrap();
        (read.changes, read.damaged)
    }

    fn texts(list: &[&str]) -> Vec<String> {
        list.iter().map(|s| (*s).to_owned()).collect()
    }

    #[test]
    fn what_was_added_is_read_and_what_was_forgotten_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.journal");
        let mut journal = read::<String>(&path).unwrap().journal;
        journal.clear().unwrap();
        assert!(!path.exists());
        journal.append(&["one", "two\nlines"]).unwrap();
        journal.append(&["three"]).unwrap();
        assert_eq!(all(&path), (texts(&["one", "two\nlines", "three"]), 0));
        let mut journal = read::<String>(&path).unwrap().journal;
        journal.append(&["four"]).unwrap();
        assert_eq!(all(&path).0.len(), 4);
        journal.clear().unwrap();
        assert_eq!((all(&path), journal.bytes()), ((vec![], 0), 0));
        journal.append(&["five"]).unwrap();
        assert_eq!(all(&path), (texts(&["five"]), 0));
    }

    /// Every cut and every flipped bit: what was whole before the damage is read, and nothing is invented.
    #[test]
    fn damage_costs_the_lines_that_it_hit_and_the_next_at_most() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.journal");
        let whole = texts(&["one", "two", "three", "four"]);
        read::<String>(&path).unwrap().journal.append(&whole).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        for cut in 0..bytes.len() {
            std::fs::write(&path, &bytes[..cut]).unwrap();
            let (found, _) = all(&path);
            assert!(whole.starts_with(&found), "cut at {cut}: {found:?}");
            // What is added then is found again.
            read::<String>(&path).unwrap().journal.append(&["new"]).unwrap();
            assert_eq!(all(&path), ([&found[..], &texts(&["new"])].concat(), 0));
        }
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(&path, &damaged).unwrap();
            let (found, lines) = all(&path);
            // A line feed that is hit joins two lines.
            assert!(lines > 0 && found.len() + 3 >= whole.len(), "bit {bit}: {found:?}");
            assert!(found.iter().all(|f| whole.contains(f)), "bit {bit}: {found:?}");
        }
    }

    #[test]
    fn what_failed_to_be_added_is_gone_before_anything_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.journal");
        let mut journal = read::<String>(&path).unwrap().journal;
        journal.append(&["one"]).unwrap();
        let good = std::fs::read(&path).unwrap();
        journal.append(&["two"]).unwrap();
        let both = std::fs::read(&path).unwrap();
        // As if the sync of the second line had failed, in this run and in an earlier one.
        std::fs::write(&path, &good).unwrap();
        let mut journal = read::<String>(&path).unwrap().journal;
        journal.renew().unwrap();
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        journal.append(&["two"]).unwrap_err();
        std::fs::remove_dir(&path).unwrap();
        std::fs::write(&path, &both).unwrap();
        journal.renew().unwrap();
        assert_eq!(all(&path), (texts(&["one"]), 0));
        std::fs::write(&path, &both[..both.len() - 1]).unwrap();
        read::<String>(&path).unwrap().journal.renew().unwrap();
        assert_eq!(all(&path), (texts(&["one"]), 0));
        // That nothing is behind the end may not be durable either.
        let mut journal = read::<String>(&path).unwrap().journal;
        assert!(journal.torn);
        journal.renew().unwrap();
        assert!(!journal.torn);
        assert!(!read::<String>(&dir.path().join("none")).unwrap().journal.torn);
    }

    #[test]
    fn what_is_added_after_a_failed_clearing_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.journal");
        let mut journal = read::<String>(&path).unwrap().journal;
        journal.append(&["one"]).unwrap();
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        journal.clear().unwrap_err();
        journal.append(&["two"]).unwrap_err();
        std::fs::remove_dir(&path).unwrap();
        // It was emptied, and only the sync failed.
        std::fs::write(&path, b"").unwrap();
        journal.append(&["two"]).unwrap();
        assert_eq!(all(&path), (texts(&["two"]), 0));
    }

    #[test]
    fn a_change_of_another_kind_is_one_of_a_newer_version() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.journal");
        read::<String>(&path).unwrap().journal.append(&[7]).unwrap();
        let e = read::<String>(&path).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::NewerFormat);
        assert!(e.to_string().contains("x.journal"), "{e}");
    }
}
