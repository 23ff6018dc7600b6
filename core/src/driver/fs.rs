//! Files and directories, blocking: for opening a data directory, before its shards run, and for what a shard leaves to
//! its helper thread (see [`super::blocking`]). What a shard reads and writes all the time goes through
//! [`super::DiskFile`].

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

/// Makes a directory and those above it, if they are not there.
pub fn create_dir_all(dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir)
}

/// The names of the files and directories in a directory, in no order. Names that are not UTF-8 are left out: nothing of
/// Tidewire's has such.
pub fn list(dir: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        if let Ok(name) = entry?.file_name().into_string() {
            names.push(name);
        }
    }
    Ok(names)
}

/// Whether there is such a directory.
pub fn is_dir(path: &Path) -> bool {
    path.is_dir()
}

/// Whether there is such a file.
pub fn is_file(path: &Path) -> bool {
    path.is_file()
}

/// A whole file.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    fs::read(path)
}

/// The first bytes of a file, fewer if it is shorter.
pub fn read_front(path: &Path, bytes: usize) -> io::Result<Vec<u8>> {
    let mut out = Vec::with_capacity(bytes);
    File::open(path)?.take(bytes as u64).read_to_end(&mut out)?;
    Ok(out)
}

/// Bytes from the middle of a file, fewer if it ends before.
pub fn read_at(path: &Path, offset: u64, bytes: usize) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(offset))?;
    let mut out = Vec::with_capacity(bytes);
    file.take(bytes as u64).read_to_end(&mut out)?;
    Ok(out)
}

/// The length of a file.
pub fn len(path: &Path) -> io::Result<u64> {
    fs::metadata(path).map(|m| m.len())
}

/// Creates or replaces a file; after a crash it may be empty or torn.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    fs::write(path, bytes)
}

/// Creates or replaces a file so that after a crash either the old or the new contents are there. `scratch` is a file in
/// the same directory that may be overwritten.
pub fn replace(path: &Path, scratch: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut f = File::create(scratch)?;
    f.write_all(bytes)?;
    f.sync_all()?;
    fs::rename(scratch, path)?;
    sync_dir(path.parent().unwrap_or(Path::new(".")))
}

/// Removes a file. Durable only after [`sync_dir`].
pub fn remove_file(path: &Path) -> io::Result<()> {
    fs::remove_file(path)
}

/// Makes creations, renames and removals in a directory durable.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// A lock on a file, held until dropped.
#[derive(Debug)]
pub struct Lock(File);

/// Why there is no lock.
#[derive(Debug)]
pub enum LockError {
    /// Somebody else has it; the contents of the file tell who.
    Held(String),
    /// It could not be tried.
    Io(io::Error),
}

/// Creates or opens a file, locks it for this process and writes `contents` into it.
pub fn lock(path: &Path, contents: &str) -> Result<Lock, LockError> {
    let io = LockError::Io;
    let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).map_err(io)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            let _ = (&mut file).take(64).read_to_string(&mut holder);
            return Err(LockError::Held(holder));
        }
        Err(TryLockError::Error(e)) => return Err(LockError::Io(e)),
    }
    file.set_len(0).and_then(|()| (&file).write_all(contents.as_bytes())).map_err(LockError::Io)?;
    Ok(Lock(file))
}

impl Lock {
    /// Gives the lock up, also if children of this process have inherited its descriptor: they would hold it on.
    pub fn unlock(self) -> io::Result<()> {
        self.0.unlock()
    }
}
