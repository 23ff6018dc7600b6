//! Who was connected to the engine before.
//!
//! When the process that has the engine ends, what it had not taken in stands in the rings of its clients, and the next one
//! must not take in anything newer of the same key first. So it waits until they have all put that into their new rings. That
//! they are there they say by locks on a file: each holds a byte of it, which a server has chosen, until what the next server
//! is to take is in its new ring, or it ends.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use crate::driver;

/// Numbers are below this, so that they are places in a file.
const NUMBERS: u64 = 1 << 62;

/// So many are looked for: what is more is nobody's who was let in.
const FORMER_MAX: usize = 2 * super::CLIENTS_MAX;

/// A client's lock. The system gives it up when nobody has the descriptor any more.
#[derive(Debug)]
pub(super) struct Presence {
    file: OwnedFd,
    number: u64,
}

impl Presence {
    /// A new one, in a file that is there.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn new(path: &Path) -> io::Result<Presence> {
        let number = driver::random_u64().map_err(io::Error::other)? % NUMBERS;
        let file = File::open(path)?.into();
        let presence = Presence { file, number };
        presence.set(libc::F_RDLCK)?;
        Ok(presence)
    }

    /// What a server has made and sent.
    pub(super) fn of(file: OwnedFd, number: u64) -> Presence {
        Presence { file, number: number % NUMBERS }
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }

    pub(super) fn file(&self) -> &OwnedFd {
        &self.file
    }

    /// Gives it up although children of this process have inherited the descriptor.
    pub(super) fn end(self) {
        let _ = self.set(libc::F_UNLCK);
    }

    fn set(&self, kind: libc::c_int) -> io::Result<()> {
        let lock = range(kind, self.number, 1);
        // SAFETY: the descriptor is open, and the struct lives during the call.
        match unsafe { libc::fcntl(self.file.as_raw_fd(), libc::F_OFD_SETLK, &lock) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// Who may still come, as a server sees it.
#[derive(Debug)]
pub(super) struct Former {
    file: File,
    /// In no order.
    numbers: Vec<u64>,
}

impl Former {
    /// Those that hold locks now.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn of(path: &Path) -> io::Result<Former> {
        let file = File::open(path)?;
        let mut numbers = Vec::new();
        // Any lock is told that is in the way, so both sides of it are looked at.
        let mut ranges = vec![(0, NUMBERS)];
        while let Some((start, end)) = ranges.pop() {
            if start < end
                && numbers.len() < FORMER_MAX
                && let Some(found) = held(&file, start, end)?
            {
                // Another length is no client's.
                if found.end - found.start == 1 {
                    numbers.push(found.start);
                }
                ranges.extend([(start, found.start), (found.end, end)]);
            }
        }
        Ok(Former { file, numbers })
    }

    /// How many are still to come.
    pub(super) fn left(&mut self) -> usize {
        self.numbers.retain(|n| held(&self.file, *n, *n + 1).is_ok_and(|found| found.is_some()));
        self.numbers.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.numbers.is_empty()
    }
}

/// What somebody has locked of a range.
fn held(file: &File, start: u64, end: u64) -> io::Result<Option<Range<u64>>> {
    let mut lock = range(libc::F_WRLCK, start, end - start);
    // SAFETY: the descriptor is open, and the struct may be written.
    if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_GETLK, &mut lock) } != 0 {
        return Err(io::Error::last_os_error());
    }
    if i32::from(lock.l_type) == libc::F_UNLCK {
        return Ok(None);
    }
    let from = u64::try_from(lock.l_start).unwrap_or(0);
    let to = match u64::try_from(lock.l_len) {
        Ok(0) | Err(_) => u64::MAX,
        Ok(len) => from.saturating_add(len),
    };
    Ok(Some(from..to))
}

fn range(kind: libc::c_int, start: u64, len: u64) -> libc::flock {
    // SAFETY: plain numbers, for which zero is valid.
    let mut lock = unsafe { std::mem::zeroed::<libc::flock>() };
    lock.l_type = kind as libc::c_short;
    lock.l_whence = libc::SEEK_SET as libc::c_short;
    lock.l_start = start as libc::off_t;
    lock.l_len = len as libc::off_t;
    lock
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_there_is_found_until_he_says_so_or_ends() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.lock");
        assert!(Presence::new(&path).is_err() && Former::of(&path).is_err());
        std::fs::write(&path, "").unwrap();
        assert!(Former::of(&path).unwrap().is_empty());
        let mut clients: Vec<Presence> = (0..300).map(|_| Presence::new(&path).unwrap()).collect();
        // At either end, and beside each other.
        for number in [0, 1, NUMBERS - 1] {
            let presence = Presence::of(File::open(&path).unwrap().into(), number);
            presence.set(libc::F_RDLCK).unwrap();
            clients.push(presence);
        }
        let mut former = Former::of(&path).unwrap();
        let mut wanted: Vec<u64> = clients.iter().map(Presence::number).collect();
        let mut found = former.numbers.clone();
        wanted.sort_unstable();
        found.sort_unstable();
        assert_eq!(found, wanted);
        clients.remove(0).end();
        assert_eq!(former.left(), 302);
        // With a descriptor that somebody else has, too, it ends only if it is given up.
        let copy = clients[1].file().try_clone().unwrap();
        drop(clients.remove(1));
        assert_eq!(former.left(), 302);
        drop(copy);
        assert_eq!(former.left(), 301);
        let copy = clients[1].file().try_clone().unwrap();
        clients.remove(1).end();
        assert_eq!(former.left(), 300);
        drop(copy);
        drop(clients);
        assert_eq!(former.left(), 0);
        assert!(former.is_empty());
    }

    #[test]
    fn locks_of_others_do_no_harm() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.lock");
        std::fs::write(&path, "").unwrap();
        let whole = File::open(&path).unwrap();
        let lock = range(libc::F_RDLCK, 0, 0);
        // SAFETY: as in `set`.
        assert_eq!(unsafe { libc::fcntl(whole.as_raw_fd(), libc::F_OFD_SETLK, &lock) }, 0);
        assert!(Former::of(&path).unwrap().is_empty());
    }
}
