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
    /// the system, which does not try again. It is written anew before anything is added.
    doubtful: Vec<u8>,
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
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == IoKind::NotFound => Vec::new(),
        Err(e) => return Err(at(Error::io("cannot read it", &e))),
    };
    let mut read = Read {
        journal: Journal { path: path.to_owned(), end: 0, last: 0, doubtful: Vec::new() },
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
        let at = |e: Error| e.at(self.path.display().to_string());
        let (mut text, mut last) = (Vec::new(), self.last);
        for change in changes {
            let json = serde_json::to_vec(change).map_err(|e| at(Error::new(ErrorKind::Internal, e.to_string())))?;
            last = checksum(last, &json);
            text.extend_from_slice(format!("{last:08x} ").as_bytes());
            text.extend_from_slice(&json);
            text.push(b'\n');
        }
        let written = if self.doubtful.is_empty() {
            fs::write_from(&self.path, self.end, &text)
        } else {
            let whole = [&self.doubtful[..], &text].concat();
            fs::replace(&self.path, &self.path.with_extension("journal.tmp"), &whole)
        };
        written.map_err(|e| at(Error::io("cannot write it", &e)))?;
        self.doubtful = Vec::new();
        (self.end, self.last) = (self.end + text.len() as u64, last);
        Ok(())
    }

    /// Forgets all changes: the whole file has them.
    ///
    /// # Errors
    /// If the file cannot be written; the changes may be there still.
    pub(crate) fn clear(&mut self) -> Result<()> {
        if self.end == 0 && !fs::exists(&self.path) {
            return Ok(());
        }
        fs::write_from(&self.path, 0, b"").map_err(|e| {
            let e = Error::io("cannot write it", &e);
            e.at(self.path.display().to_string())
        })?;
        (self.end, self.last, self.doubtful) = (0, 0, Vec::new());
        Ok(())
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
    fn a_change_of_another_kind_is_one_of_a_newer_version() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.journal");
        read::<String>(&path).unwrap().journal.append(&[7]).unwrap();
        let e = read::<String>(&path).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::NewerFormat);
        assert!(e.to_string().contains("x.journal"), "{e}");
    }
}
