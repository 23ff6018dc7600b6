//! Reading a directory: what is there is compared with what is known.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::{RecursiveMode, Watcher};

use super::index::{Entry, Seen, Stamp, look};
use super::worker::{First, Halt, Worker};

/// A file that changed less than this before it was found may still be written to.
const YOUNG: Duration = Duration::from_secs(1);

impl Worker {
    /// Compares the whole directory with what is known; answers the number of differences. `lost` says that notices
    /// were lost, so that a stamp that does not show later changes proves nothing.
    pub(super) fn scan_all(&mut self, first: First, lost: bool) -> Result<u64, Halt> {
        self.control.stats.lock().scans += 1;
        let root = self.root.clone();
        match look(&root) {
            Ok(Some(Seen::Directory)) => {}
            _ => {
                self.root_lost = true;
                return Ok(0);
            }
        }
        let was_lost = std::mem::take(&mut self.root_lost);
        if was_lost {
            log::info!("{}: the directory is back", root.display());
            self.renew_watcher()?;
        }
        self.unwatched = None;
        self.scan(&root, first, lost || was_lost)
    }

    /// Watches a directory and all below it, and compares it with what is known. Each directory is watched before it is
    /// read, so that nothing falls in between.
    pub(super) fn scan(&mut self, top: &Path, first: First, lost: bool) -> Result<u64, Halt> {
        self.scan += 1;
        let scan = self.scan;
        let mut differences = 0;
        // Where nothing can be said about what is gone.
        let mut unread: Vec<PathBuf> = Vec::new();
        let mut stack = vec![top.to_owned()];
        while let Some(directory) = stack.pop() {
            self.check_time()?;
            self.watch(&directory);
            let mut names = match read(&directory) {
                Ok(names) => names,
                Err(e) => {
                    if directory == self.root {
                        log::error!("{}: cannot read it: {e}; waiting until that is possible", directory.display());
                        self.root_lost = true;
                        return Ok(0);
                    }
                    if !matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) {
                        log::warn!("{}: cannot read it: {e}", directory.display());
                        unread.push(directory);
                    }
                    continue;
                }
            };
            names.sort_unstable();
            let mut inner = Vec::new();
            for path in names {
                match look(&path) {
                    Ok(Some(Seen::File(stamp))) => differences += u64::from(self.found(path, stamp, first, lost)?),
                    Ok(Some(Seen::Directory)) => inner.push(path),
                    Ok(Some(Seen::Other) | None) => {}
                    Err(e) => {
                        log::warn!("{}: {e}", path.display());
                        unread.push(path);
                    }
                }
            }
            stack.extend(inner.into_iter().rev());
        }
        let top = self.key_of(top).unwrap_or_default();
        let missing = self.index.below(top, |_, entry| entry.scan != scan);
        for key in missing {
            let path = self.path_of(&key);
            // What has come since the directory was read will be noticed.
            let there = !matches!(look(&path), Ok(None | Some(Seen::Directory | Seen::Other)));
            if !there && !unread.iter().any(|u| path.starts_with(u)) {
                self.removed(&key, false)?;
                differences += 1;
            }
        }
        Ok(differences)
    }

    /// A file that a scan met; answers whether it differs from what is known.
    fn found(&mut self, path: PathBuf, stamp: Stamp, first: First, lost: bool) -> Result<bool, Halt> {
        let scan = self.scan;
        let Some(key) = self.key_of(&path).map(Box::<[u8]>::from) else { return Ok(false) };
        if let Some(entry) = self.index.get_mut(&key) {
            entry.scan = scan;
            if entry.stamp.same_contents(&stamp) && (entry.settled || !lost) {
                // Of what was read from disk, the rest is learned here.
                entry.settled &= stamp.is_settled();
                entry.stamp = stamp;
                return Ok(false);
            }
        } else if first == First::Learn {
            let settled = stamp.is_settled();
            self.index.insert(&key, Entry { stamp, settled, scan });
            if !settled {
                self.settle_later(key);
            }
            return Ok(true);
        }
        if self.pending.contains_key(&path) {
            return Ok(false);
        }
        let young = (0..YOUNG.as_nanos() as i64).contains(&stamp.age());
        if young && self.moved_from(&stamp, false).is_none() {
            self.later(path, stamp.ctime, false);
        } else {
            self.created(&path, stamp)?;
        }
        Ok(true)
    }

    fn watch(&mut self, directory: &Path) {
        let Err(e) = self.watcher.watch(directory, RecursiveMode::NonRecursive) else { return };
        let remedy = match &e.kind {
            // Gone again; its parent's watch tells of that.
            notify::ErrorKind::PathNotFound => return,
            notify::ErrorKind::Io(io) if io.kind() == io::ErrorKind::NotADirectory => return,
            notify::ErrorKind::MaxFilesWatch => "raise the sysctl fs.inotify.max_user_watches",
            _ => "see its permissions and its file system",
        };
        if self.unwatched.is_none() {
            let why = format!("{}: cannot be watched ({e}) and is only scanned; {remedy}", directory.display());
            log::error!("{why}");
            self.unwatched = Some(why);
            self.scan_unwatched_soon();
        }
    }
}

fn read(directory: &Path) -> io::Result<Vec<PathBuf>> {
    fs::read_dir(directory)?.map(|entry| entry.map(|e| e.path())).collect()
}
