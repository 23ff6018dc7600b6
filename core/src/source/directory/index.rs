//! What a directory source knows of its files, in memory and on disk.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::ops::Bound;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::driver::fs::sync_dir;
use crate::driver::system_ns;
use crate::error::{Error, ErrorKind, Result};

/// First bytes of the file; the digit is the format's number.
const MAGIC: &[u8; 16] = b"TIDEWIRE-INDEX1\n";

/// What the file system says about a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    File(Stamp),
    Directory,
    /// A symbolic link, a socket or the like.
    Other,
}

/// Two changes of a file that are closer than this may have the same times: the clock of file systems has steps of up
/// to 10 ms.
const TIME_STEP: i64 = 50_000_000;

/// State of a regular file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) size: u64,
    /// When it was written last, ns since the epoch. Programs can set it.
    pub(super) mtime: i64,
    /// When anything about it changed, its name included. Programs cannot set it.
    pub(super) ctime: i64,
    pub(super) inode: u64,
    pub(super) links: u64,
    /// The time just before it was looked at.
    pub(super) taken: i64,
}

/// A file that was told of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) stamp: Stamp,
    /// Whether the stamp would show any later change. One taken within the file system's time step of the change that
    /// it shows would not: another change in that step leaves the same stamp.
    pub(super) settled: bool,
    /// The last scan that met the file.
    pub(super) scan: u64,
}

/// Looks at a name without following a link; `None` if there is nothing.
pub(super) fn look(path: &Path) -> io::Result<Option<Seen>> {
    let taken = system_ns() as i64;
    match fs::symlink_metadata(path) {
        Ok(m) if m.is_file() => Ok(Some(Seen::File(Stamp {
            size: m.size(),
            mtime: nanoseconds(m.mtime(), m.mtime_nsec()),
            ctime: nanoseconds(m.ctime(), m.ctime_nsec()),
            inode: m.ino(),
            links: m.nlink(),
            taken,
        }))),
        Ok(m) if m.is_dir() => Ok(Some(Seen::Directory)),
        Ok(_) => Ok(Some(Seen::Other)),
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(e) => Err(e),
    }
}

fn nanoseconds(seconds: i64, rest: i64) -> i64 {
    seconds.saturating_mul(1_000_000_000).saturating_add(rest)
}

impl Stamp {
    /// How long ago the file changed, when it was looked at, in ns.
    pub(super) fn age(&self) -> i64 {
        self.taken.saturating_sub(self.ctime)
    }

    /// Whether any later change would show.
    pub(super) fn is_settled(&self) -> bool {
        self.age() > TIME_STEP
    }

    /// Whether it is the same file in the same state.
    pub(super) fn same(&self, other: &Stamp) -> bool {
        (self.size, self.mtime, self.ctime, self.inode) == (other.size, other.mtime, other.ctime, other.inode)
    }

    /// Whether the contents look the same. What is unknown of a stamp from disk does not count.
    pub(super) fn same_contents(&self, other: &Stamp) -> bool {
        let inode_differs = self.inode != 0 && other.inode != 0 && self.inode != other.inode;
        self.size == other.size && self.mtime == other.mtime && !inode_differs
    }
}

/// The files by key.
#[derive(Debug, Default)]
pub(super) struct Index {
    files: BTreeMap<Box<[u8]>, Entry>,
    /// Whether it differs from what was saved.
    pub(super) changed: bool,
}

impl Index {
    pub(super) fn len(&self) -> usize {
        self.files.len()
    }

    pub(super) fn get(&self, key: &[u8]) -> Option<&Entry> {
        self.files.get(key)
    }

    pub(super) fn get_mut(&mut self, key: &[u8]) -> Option<&mut Entry> {
        self.files.get_mut(key)
    }

    pub(super) fn insert(&mut self, key: &[u8], entry: Entry) {
        self.changed = true;
        match self.files.get_mut(key) {
            Some(old) => *old = entry,
            None => {
                self.files.insert(key.into(), entry);
            }
        }
    }

    pub(super) fn remove(&mut self, key: &[u8]) -> Option<Entry> {
        let removed = self.files.remove(key);
        self.changed |= removed.is_some();
        removed
    }

    /// The keys below a directory (all, for the empty name), of entries that `wanted` takes.
    pub(super) fn below(&self, directory: &[u8], wanted: impl Fn(&[u8], &Entry) -> bool) -> Vec<Box<[u8]>> {
        let mut prefix = directory.to_vec();
        if !prefix.is_empty() {
            prefix.push(b'/');
        }
        self.files
            .range::<[u8], _>((Bound::Included(&prefix[..]), Bound::Unbounded))
            .take_while(|(key, _)| key.starts_with(&prefix))
            .filter(|(key, entry)| wanted(key, entry))
            .map(|(key, _)| key.clone())
            .collect()
    }

    /// Reads the index of this directory; `None` if there is none.
    ///
    /// # Errors
    /// If the file cannot be read, or is not what was written.
    pub(super) fn load(file: &Path, root: &Path) -> Result<Option<Index>> {
        let at = |e: Error| e.at(file.display().to_string());
        let bytes = match fs::read(file) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(at(Error::io("cannot read it", &e))),
        };
        if bytes.starts_with(&MAGIC[..14]) && !bytes.starts_with(MAGIC) {
            let e = Error::new(ErrorKind::NewerFormat, "another version of Tidewire wrote it");
            return Err(at(e.remedy("use that version, or remove the file; then changes since are not noticed")));
        }
        let (found_root, index) = decode(&bytes).ok_or_else(|| {
            at(Error::new(ErrorKind::Corrupt, "it is damaged")
                .remedy("remove it; then changes made since it was written are not noticed"))
        })?;
        if found_root != root.as_os_str().as_bytes() {
            log::warn!(
                "{}: it is of {}, not of {}; starting anew",
                file.display(),
                PathBuf::from(std::ffi::OsStr::from_bytes(found_root)).display(),
                root.display()
            );
            return Ok(None);
        }
        Ok(Some(index))
    }

    /// Replaces the file, so that after a crash the old or the new one is there.
    ///
    /// # Errors
    /// If it cannot be written; then the old one is still there.
    pub(super) fn save(&mut self, file: &Path, root: &Path) -> Result<()> {
        let bytes = self.encode(root);
        let tmp = file.with_extension("index.tmp");
        let write = || -> io::Result<()> {
            let mut f = File::create(&tmp)?;
            f.write_all(&bytes)?;
            f.sync_all()?;
            fs::rename(&tmp, file)?;
            sync_dir(file.parent().unwrap_or(Path::new(".")))
        };
        write().map_err(|e| Error::io("cannot write it", &e).at(file.display().to_string()))?;
        self.changed = false;
        Ok(())
    }

    /// `MAGIC`, then the root and each key with its length before it, keys with size and mtime; the CRC32C of all that
    /// at the end.
    fn encode(&self, root: &Path) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        let put = |bytes: &[u8], out: &mut Vec<u8>| {
            out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
            out.extend_from_slice(bytes);
        };
        put(root.as_os_str().as_bytes(), &mut out);
        for (key, entry) in &self.files {
            put(key, &mut out);
            out.extend_from_slice(&entry.stamp.size.to_le_bytes());
            out.extend_from_slice(&entry.stamp.mtime.to_le_bytes());
        }
        let crc = crc32c::crc32c(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        out
    }
}

fn decode(bytes: &[u8]) -> Option<(&[u8], Index)> {
    let (body, crc) = bytes.split_last_chunk::<4>()?;
    if u32::from_le_bytes(*crc) != crc32c::crc32c(body) {
        return None;
    }
    let mut rest = body.strip_prefix(MAGIC)?;
    let root = take_text(&mut rest)?;
    let mut index = Index::default();
    while !rest.is_empty() {
        let key = take_text(&mut rest)?;
        let (size, after) = rest.split_first_chunk::<8>()?;
        let (mtime, after) = after.split_first_chunk::<8>()?;
        rest = after;
        let stamp = Stamp { size: u64::from_le_bytes(*size), mtime: i64::from_le_bytes(*mtime), ..Stamp::default() };
        index.files.insert(key.into(), Entry { stamp, settled: true, scan: 0 });
    }
    Some((root, index))
}

fn take_text<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (len, after) = rest.split_first_chunk::<4>()?;
    let (text, after) = after.split_at_checked(u32::from_le_bytes(*len) as usize)?;
    *rest = after;
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(size: u64) -> Entry {
        Entry { stamp: Stamp { size, mtime: -7, ..Stamp::default() }, settled: true, scan: 0 }
    }

    #[test]
    fn it_comes_back_from_disk_as_it_was() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("source-b.index");
        let root = Path::new("/srv/data");
        assert!(Index::load(&file, root).expect("no file").is_none());
        let mut index = Index::default();
        for (i, key) in [&b"a/b"[..], b"a/\xff\n", b"a", b"z z"].into_iter().enumerate() {
            index.insert(key, entry(i as u64));
        }
        index.save(&file, root).expect("saved");
        assert!(!index.changed);
        let back = Index::load(&file, root).expect("loaded").expect("there");
        let all = |i: &Index| i.files.iter().map(|(k, e)| (k.clone(), e.stamp)).collect::<Vec<_>>();
        assert_eq!(all(&back), all(&index));
        assert!(Index::load(&file, Path::new("/srv/other")).expect("another root").is_none());

        let mut bytes = fs::read(&file).expect("bytes");
        for at in [20, bytes.len() - 1] {
            bytes[at] ^= 1;
            fs::write(&file, &bytes).expect("written");
            assert_eq!(Index::load(&file, root).expect_err("damaged").kind(), ErrorKind::Corrupt);
            bytes[at] ^= 1;
        }
        bytes[14] = b'2';
        fs::write(&file, &bytes).expect("written");
        assert_eq!(Index::load(&file, root).expect_err("newer").kind(), ErrorKind::NewerFormat);
    }

    #[test]
    fn below_a_directory_are_its_files_only() {
        let mut index = Index::default();
        for key in [&b"a"[..], b"a-b/c", b"a/1", b"a/b/2", b"b"] {
            index.insert(key, entry(0));
        }
        let keys = |d: &[u8]| index.below(d, |_, _| true).iter().map(|k| k.to_vec()).collect::<Vec<_>>();
        assert_eq!(keys(b"a"), [b"a/1".to_vec(), b"a/b/2".to_vec()]);
        assert_eq!(keys(b"").len(), 5);
        assert!(keys(b"c").is_empty());
    }
}
