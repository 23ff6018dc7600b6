//! Files and directories, blocking: for opening a data directory, before its shards run, and for what a shard leaves to
//! its helper thread (see [`super::blocking`]). What a shard reads and writes all the time goes through
//! [`super::DiskFile`].

use std::cell::Cell;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

#[cfg(feature = "sim")]
use super::sim;
use crate::log::BLOCK_BYTES;

/// Files of the data directory are for their owner alone: they hold names of objects, and secrets of destinations.
pub(crate) const FILE_MODE: u32 = 0o600;

/// Makes a directory and those above it, if they are not there, durably.
pub fn create_dir_all(dir: &Path) -> io::Result<()> {
    #[cfg(feature = "sim")]
    if let Some(world) = sim::current() {
        return world.disk.create_dir_all(dir);
    }
    let parent = match dir.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    match fs::create_dir(dir) {
        Ok(()) => sync_dir(parent),
        Err(_) if dir.is_dir() => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotFound && parent != dir => {
            create_dir_all(parent)?;
            fs::create_dir(dir).or_else(|e| if dir.is_dir() { Ok(()) } else { Err(e) })?;
            sync_dir(parent)
        }
        Err(e) => Err(e),
    }
}

/// Removes a directory with everything in it, durably.
pub fn remove_dir_all(dir: &Path) -> io::Result<()> {
    #[cfg(feature = "sim")]
    if let Some(world) = sim::current() {
        return world.disk.remove_dir_all(dir);
    }
    fs::remove_dir_all(dir)?;
    sync_dir(dir.parent().unwrap_or(Path::new(".")))
}

/// The names of the files and directories in a directory, in no order. Names that are not UTF-8 are left out: nothing of
/// Tidewire's has such.
pub fn list(dir: &Path) -> io::Result<Vec<String>> {
    #[cfg(feature = "sim")]
    if let Some(world) = sim::current() {
        return world.disk.list(dir);
    }
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        if let Ok(name) = entry?.file_name().into_string() {
            names.push(name);
        }
    }
    Ok(names)
}

/// Whether there is such a file.
pub fn exists(path: &Path) -> bool {
    #[cfg(feature = "sim")]
    if let Some(world) = sim::current() {
        return world.disk.contents(path).is_some();
    }
    path.exists()
}

/// A whole file.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    #[cfg(feature = "sim")]
    if let Some(world) = sim::current() {
        return world.disk.read(path);
    }
    fs::read(path)
}

/// The first bytes of a file of the log, fewer if it is shorter. As [`ReadFile`].
pub fn read_front(path: &Path, bytes: usize) -> io::Result<Vec<u8>> {
    read_at(path, 0, bytes)
}

/// Up to so many bytes of a file from a position on, fewer where it ends.
pub fn read_at(path: &Path, position: u64, bytes: usize) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    ReadFile::open(path)?.read_at(position, bytes, &mut out)?;
    Ok(out)
}

/// Writes the front of a file anew in its place, and makes that durable. After a crash any part of it may be as it was.
pub fn rewrite(path: &Path, bytes: &[u8]) -> io::Result<()> {
    #[cfg(feature = "sim")]
    if let Some(world) = sim::current() {
        return world.disk.rewrite(path, bytes);
    }
    let file = OpenOptions::new().write(true).open(path)?;
    file.write_all_at(bytes, 0)?;
    file.sync_all()
}

/// Writes bytes into a file from a position on, in place of what it has there and behind, and makes that durable. Creates the
/// file if need be. After a crash or an error any part of the bytes may be there.
pub fn write_from(path: &Path, position: u64, bytes: &[u8]) -> io::Result<()> {
    #[cfg(feature = "sim")]
    if let Some(world) = sim::current() {
        return world.disk.write_from(path, position, bytes);
    }
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(FILE_MODE).open(path)?;
    file.set_len(position)?;
    file.write_all_at(bytes, position)?;
    file.sync_all()?;
    // Its name too: whoever created it may have failed before that was durable.
    if position == 0 { sync_dir(path.parent().unwrap_or(Path::new("."))) } else { Ok(()) }
}

/// A whole file of the log. As [`ReadFile`].
pub fn read_log(path: &Path) -> io::Result<Vec<u8>> {
    const CHUNK_BYTES: usize = 1 << 20;
    let file = ReadFile::open(path)?;
    let (mut out, mut chunk) = (Vec::new(), Vec::new());
    loop {
        file.read_at(out.len() as u64, CHUNK_BYTES, &mut chunk)?;
        out.extend_from_slice(&chunk);
        if chunk.len() < CHUNK_BYTES {
            return Ok(out);
        }
    }
}

/// The length of a file in bytes.
pub fn len(path: &Path) -> io::Result<u64> {
    #[cfg(feature = "sim")]
    if let Some(world) = sim::current() {
        return world.disk.lengths(path).map(|(bytes, _)| bytes);
    }
    fs::metadata(path).map(|m| m.len())
}

/// A file of the log, open for reading at any place as long as it is wanted: also after it was removed.
///
/// Read past the page cache where the file system can: a page of a file that a shard is writing directly must not be in the
/// cache. If the kernel cannot throw it out after such a write, it reports the next sync of the file as failed.
#[derive(Debug)]
pub struct ReadFile(Readable);

#[derive(Debug)]
enum Readable {
    File {
        file: File,
        direct: Cell<bool>,
    },
    #[cfg(feature = "sim")]
    Sim(u64),
}

impl ReadFile {
    /// Opens it.
    pub fn open(path: &Path) -> io::Result<ReadFile> {
        #[cfg(feature = "sim")]
        if let Some(world) = sim::current() {
            return world.disk.node(path).map(Readable::Sim).map(ReadFile);
        }
        match OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(path) {
            Ok(file) => Ok(ReadFile(Readable::File { file, direct: Cell::new(true) })),
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => {
                Ok(ReadFile(Readable::File { file: File::open(path)?, direct: Cell::new(false) }))
            }
            Err(e) => Err(e),
        }
    }

    /// Replaces `out` by up to `bytes` bytes from `offset` on; fewer only where the file ends.
    pub fn read_at(&self, offset: u64, bytes: usize, out: &mut Vec<u8>) -> io::Result<()> {
        let (file, direct) = match &self.0 {
            Readable::File { file, direct } => (file, direct),
            #[cfg(feature = "sim")]
            Readable::Sim(node) => {
                return sim::current().map_or(Ok(()), |w| w.disk.read_node(*node, offset, bytes, out));
            }
        };
        let block = BLOCK_BYTES as u64;
        let start = offset / block * block;
        let skip = (offset - start) as usize;
        let len = (skip + bytes).next_multiple_of(BLOCK_BYTES);
        // Memory for direct reads begins at a block too.
        let mut memory = vec![0; len + BLOCK_BYTES];
        let shift = memory.as_ptr().align_offset(BLOCK_BYTES).min(BLOCK_BYTES);
        let buffer = &mut memory[shift..shift + len];
        let mut read = 0;
        while read < len {
            match file.read_at(&mut buffer[read..], start + read as u64) {
                Ok(0) => break,
                Ok(n) => {
                    read += n;
                    if n % BLOCK_BYTES != 0 && direct.get() {
                        break; // The end of the file.
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.raw_os_error() == Some(libc::EINVAL) && direct.replace(false) => {
                    // It could be opened so, but not read.
                    read_through_cache(file)?;
                }
                Err(e) => return Err(e),
            }
        }
        out.clear();
        out.extend_from_slice(&buffer[skip.min(read)..(skip + bytes).min(read)]);
        Ok(())
    }
}

fn read_through_cache(file: &File) -> io::Result<()> {
    let fd = file.as_raw_fd();
    // SAFETY: the descriptor is open as long as `file`; the calls take no pointers.
    let done = unsafe {
        let flags = libc::fcntl(fd, libc::F_GETFL);
        flags >= 0 && libc::fcntl(fd, libc::F_SETFL, flags & !libc::O_DIRECT) >= 0
    };
    if done { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Creates or replaces a file; after a crash it may be empty or torn.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    #[cfg(feature = "sim")]
    if let Some(world) = sim::current() {
        return world.disk.write(path, bytes);
    }
    create(path)?.write_all(bytes)
}

/// Creates or empties a file that is for its owner alone.
pub(crate) fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(true).mode(FILE_MODE).open(path)
}

/// Creates or replaces a file so that after a crash either the old or the new contents are there. `scratch` is a file in
/// the same directory that may be overwritten.
pub fn replace(path: &Path, scratch: &Path, bytes: &[u8]) -> io::Result<()> {
    #[cfg(feature = "sim")]
    if let Some(world) = sim::current() {
        return world.disk.replace(path, scratch, bytes);
    }
    let mut f = create(scratch)?;
    f.write_all(bytes)?;
    f.sync_all()?;
    fs::rename(scratch, path)?;
    sync_dir(path.parent().unwrap_or(Path::new(".")))
}

/// The length of a file, and how much of it the file system has blocks for.
pub fn lengths(path: &Path) -> io::Result<(u64, u64)> {
    #[cfg(feature = "sim")]
    if let Some(world) = sim::current() {
        return world.disk.lengths(path);
    }
    fs::metadata(path).map(|m| (m.len(), m.blocks() * 512))
}

/// Gives a file another name in the same file system, in place of what has that name. Durable only after [`sync_dir`].
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    #[cfg(feature = "sim")]
    if let Some(world) = sim::current() {
        return world.disk.rename(from, to);
    }
    fs::rename(from, to)
}

/// Removes a file. Durable only after [`sync_dir`].
pub fn remove_file(path: &Path) -> io::Result<()> {
    #[cfg(feature = "sim")]
    if let Some(world) = sim::current() {
        return world.disk.remove_file(path);
    }
    fs::remove_file(path)
}

/// Makes creations, renames and removals in a directory durable.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    #[cfg(feature = "sim")]
    if let Some(world) = sim::current() {
        return world.disk.sync_dir(dir);
    }
    File::open(dir)?.sync_all()
}

/// A lock on a file, held until dropped.
#[derive(Debug)]
pub struct Lock(Holder);

#[derive(Debug)]
enum Holder {
    File(File),
    #[cfg(feature = "sim")]
    Sim {
        _held: SimLock,
    },
}

#[cfg(feature = "sim")]
#[derive(Debug)]
struct SimLock(std::path::PathBuf, u64);

#[cfg(feature = "sim")]
impl Drop for SimLock {
    fn drop(&mut self) {
        // What a killed process held is free already, and may be another's.
        if let Some(world) = sim::current().filter(|_| sim::process() == self.1) {
            world.disk.unlock(&self.0);
        }
    }
}

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
    #[cfg(feature = "sim")]
    if let Some(world) = sim::current() {
        return if world.disk.lock(path) {
            Ok(Lock(Holder::Sim { _held: SimLock(path.to_owned(), sim::process()) }))
        } else {
            Err(LockError::Held(String::new()))
        };
    }
    let io = LockError::Io;
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(FILE_MODE);
    let mut file = options.open(path).map_err(io)?;
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
    Ok(Lock(Holder::File(file)))
}

impl Lock {
    /// Gives the lock up, also if children of this process have inherited its descriptor: they would hold it on.
    pub fn unlock(self) -> io::Result<()> {
        match self.0 {
            Holder::File(f) => f.unlock(),
            #[cfg(feature = "sim")]
            Holder::Sim { .. } => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_stretch_of_a_file_is_read_past_the_cache_and_through_it() {
        for dir in ["/dev/shm", ""] {
            let dir = if dir.is_empty() { tempfile::tempdir().unwrap() } else { tempfile::tempdir_in(dir).unwrap() };
            let path = dir.path().join("file");
            let contents: Vec<u8> = (0..50_000u32).map(|n| (n % 251) as u8).collect();
            fs::write(&path, &contents).unwrap();
            let file = ReadFile::open(&path).unwrap();
            let cached = ReadFile(Readable::File { file: File::open(&path).unwrap(), direct: Cell::new(false) });
            let mut out = vec![9; 3];
            for (offset, bytes) in
                [(0, 1), (0, 4096), (4095, 2), (4096, 8192), (1, 49_999), (49_999, 1), (40_000, 20_000)]
            {
                for f in [&file, &cached] {
                    f.read_at(offset, bytes, &mut out).unwrap();
                    let end = contents.len().min(offset as usize + bytes);
                    assert!(out == contents[offset as usize..end], "{bytes} bytes from {offset}");
                }
            }
            for offset in [50_000, 53_248, 1 << 20] {
                file.read_at(offset, 100, &mut out).unwrap();
                assert!(out.is_empty());
            }
            fs::remove_file(&path).unwrap();
            file.read_at(10, 5, &mut out).unwrap();
            assert_eq!(out, contents[10..15]);
        }
        assert_eq!(ReadFile::open(Path::new("/no/such")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
