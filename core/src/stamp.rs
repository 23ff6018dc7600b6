//! What tells that a file is another one, or holds something else.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What is different if a file was changed or replaced. Links are followed: one that leads elsewhere is a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    inode: (u64, u64),
    modified: (i64, i64),
    changed: (i64, i64),
    bytes: u64,
}

impl Stamp {
    /// Of a file as it is now; `None` if it is not there. May block.
    pub(crate) fn of(path: &Path) -> Option<Stamp> {
        let m = std::fs::metadata(path).ok()?;
        Some(Stamp {
            inode: (m.dev(), m.ino()),
            modified: (m.mtime(), m.mtime_nsec()),
            changed: (m.ctime(), m.ctime_nsec()),
            bytes: m.len(),
        })
    }
}
