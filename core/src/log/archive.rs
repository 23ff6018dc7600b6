//! Snapshots: a consistent copy of a data directory in one file, and a new data directory made of it.
//!
//! The file is a plain tar archive. It has, in this order: per shard the cursors as they were saved last, `names.json` and
//! the other files about the whole, the segments, the dead letters and the audit of losses, and at its end `manifest.json` with the sizes and
//! CRC32C of all of them. Cursors come before the log they are about, so that they are never ahead of it: what was delivered
//! in between is delivered again.
//!
//! A restored directory is another writer's: new events have ids and sequencers unlike those that the original gives out
//! from then on. Events that came with the snapshot keep theirs.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::reader::{find_record, last_sequence, segment_ids};
use super::record::{self, Parsed, RECORD_HEADER_BYTES};
use super::recovery::{
    CURSOR_FILES, Findings, SHARDS_MAX, WRITERS_FILE, check_path, inspect, lock, meta_json, newest_cursors, shard_path,
    to_json, writers_json,
};
use super::segment::{SegmentHeader, newer_format};
use super::taken::Taken;
use super::{BLOCK_BYTES, FORMAT, RULES_FILE, RULES_JOURNAL, losses, names, standing};
use crate::driver;
use crate::driver::fs::{FILE_MODE, ReadFile};
use crate::error::{Error, ErrorKind, Result};

const MANIFEST: &str = "manifest.json";
/// Files about the whole directory, a journal before the file that it goes into, but for `meta.json`, which is made anew.
const WHOLE: [&str; 7] =
    [names::JOURNAL, names::FILE, RULES_JOURNAL, RULES_FILE, "groups.json", "replays.json", WRITERS_FILE];
const COPY_BYTES: usize = 256 * 1024;
/// The largest file of a snapshot that is not a segment.
const SMALL_BYTES_MAX: u64 = 1 << 30;

/// What a snapshot says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Manifest {
    /// The format of the directory.
    pub format: u32,
    /// When it was made, ns since the epoch.
    pub made_ns: u64,
    /// How many shards the directory has.
    pub shards: u16,
    /// The writer id of the directory it was made of.
    pub writer: u32,
    /// Per shard, the last sequence in it.
    pub heads: Vec<u64>,
    /// Its files.
    pub files: BTreeMap<String, FileSum>,
}

/// A file of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileSum {
    /// Its size in bytes.
    pub bytes: u64,
    /// Its CRC32C.
    pub crc32c: u32,
}

/// Writes a snapshot of a directory that no engine has open (for a running one there is
/// [`crate::Engine::snapshot`]). The file is there as a whole or not at all.
///
/// # Errors
/// [`ErrorKind::NotFound`] if it is no data directory, [`ErrorKind::Locked`] if an engine has it open, [`ErrorKind::Io`]
/// and the like.
pub fn export(data_dir: &Path, file: &Path) -> Result<Manifest> {
    inspect(data_dir)?;
    let _lock = lock(data_dir).map_err(|e| {
        let e = e.at(format!("data directory {}", data_dir.display()));
        match e.kind() {
            ErrorKind::Locked => {
                e.remedy("stop that engine, or ask it for the snapshot in its own process (Engine::snapshot)")
            }
            _ => e,
        }
    })?;
    write_file(file, |out| export_to(data_dir, None, out))
}

/// Makes a file of what `write` writes, as a whole or not at all.
pub(crate) fn write_file<T>(file: &Path, write: impl FnOnce(&mut dyn Write) -> Result<T>) -> Result<T> {
    let at = |e: Error| e.at(file.display().to_string());
    let name = file.file_name().ok_or_else(|| {
        at(Error::new(ErrorKind::InvalidArgument, "this is no name of a file").remedy("name the file to write"))
    })?;
    let mut scratch = name.to_owned();
    scratch.push(".partial");
    let scratch = file.with_file_name(scratch);
    let io = |e: io::Error| at(Error::io("cannot write the snapshot", &e));
    let mut out = io::BufWriter::with_capacity(COPY_BYTES, driver::fs::create(&scratch).map_err(io)?);
    let result = write(&mut out).and_then(|manifest| {
        let inner = out.into_inner().map_err(|e| io(e.into_error()))?;
        inner.sync_all().map_err(io)?;
        fs::rename(&scratch, file).map_err(io)?;
        let dir = file.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new("."));
        driver::fs::sync_dir(dir).map_err(io)?;
        Ok(manifest)
    });
    if result.is_err() {
        let _ = fs::remove_file(&scratch);
    }
    result
}

/// Writes a snapshot. `heads` says up to where each shard's log is complete and durable, while an engine is writing to it;
/// nothing may be removed meanwhile.
pub(crate) fn export_to(
    data_dir: &Path,
    heads: Option<&dyn Fn() -> Result<Vec<u64>>>,
    out: &mut dyn Write,
) -> Result<Manifest> {
    let info = inspect(data_dir)?;
    if info.rearranging {
        return Err(Error::new(
            ErrorKind::InvalidArgument,
            "events from before the number of shards was changed still wait",
        )
        .at(format!("data directory {}", data_dir.display()))
        .remedy("make the snapshot when they are delivered and the engine was opened again"));
    }
    let mut archive = Archive {
        tar: tar::Builder::new(out),
        manifest: Manifest {
            format: FORMAT,
            made_ns: driver::wall_ns(),
            shards: info.shards as u16,
            writer: info.writers.current,
            heads: Vec::new(),
            files: BTreeMap::new(),
        },
    };
    for shard in 0..info.shards {
        let dir = shard_path(data_dir, shard);
        if let Some((name, bytes)) = newest_cursors(&dir, &mut Findings::default())? {
            archive.add(&in_shard(shard, name), bytes.len() as u64, &bytes[..])?;
        }
    }
    // The log may have grown since; every number in it up to here has its name.
    let heads = heads.map(|heads| heads()).transpose()?;
    for name in WHOLE {
        match driver::fs::read(&data_dir.join(name)) {
            Ok(bytes) => archive.add(name, bytes.len() as u64, &bytes[..])?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(Error::io("cannot read it", &e).at(data_dir.join(name).display().to_string())),
        }
    }
    for (name, bytes) in standing::files(data_dir)? {
        archive.add(&format!("{}/{name}", standing::DIRECTORY), bytes.len() as u64, &bytes[..])?;
    }
    for shard in 0..info.shards {
        let dir = shard_path(data_dir, shard);
        let head = heads.as_ref().map(|h| h[shard]);
        archive.add_segments(&dir, &in_shard(shard, ""), head, false)?;
        archive.manifest.heads.push(match head {
            Some(head) => head,
            None => last_sequence(data_dir, shard, &Arc::default())?,
        });
        for sub in ["dead", losses::DIRECTORY] {
            archive.add_segments(&dir.join(sub), &in_shard(shard, &format!("{sub}/")), None, true)?;
        }
        archive.add_taken(&dir.join("dead"), &in_shard(shard, "dead/"))?;
    }
    archive.finish()
}

fn in_shard(shard: usize, name: &str) -> String {
    format!("shard-{shard:04}/{name}")
}

struct Archive<'a> {
    tar: tar::Builder<&'a mut dyn Write>,
    manifest: Manifest,
}

impl Archive<'_> {
    fn add(&mut self, name: &str, bytes: u64, contents: impl Read) -> Result<()> {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes);
        header.set_mode(0o600);
        header.set_mtime(self.manifest.made_ns / 1_000_000_000);
        let mut summed = Summed { inner: contents.take(bytes), crc32c: 0, bytes: 0 };
        self.tar
            .append_data(&mut header, name, &mut summed)
            .map_err(|e| Error::io(format!("cannot write {name} into the snapshot"), &e))?;
        let sum = FileSum { bytes: summed.bytes, crc32c: summed.crc32c };
        if sum.bytes != bytes {
            return Err(Error::new(ErrorKind::Io, format!("{name} became shorter while it was read"))
                .remedy("make the snapshot again"));
        }
        self.manifest.files.insert(name.to_owned(), sum);
        Ok(())
    }

    /// Adds the lists of dead letters that were taken out. Letters that were taken since the segments were added are in the
    /// log by now, or gone for good.
    fn add_taken(&mut self, dir: &Path, prefix: &str) -> Result<()> {
        let mut names = match driver::fs::list(dir) {
            Ok(names) => names,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(Error::io("cannot list it", &e).at(dir.display().to_string())),
        };
        names.retain(|name| {
            let segment = Taken::parse_file_name(name).map(SegmentHeader::file_name);
            segment.is_some_and(|s| self.manifest.files.contains_key(&format!("{prefix}{s}")))
        });
        names.sort_unstable();
        for name in names {
            match driver::fs::read(&dir.join(&name)) {
                Ok(bytes) => self.add(&format!("{prefix}{name}"), bytes.len() as u64, &bytes[..])?,
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(Error::io("cannot read it", &e).at(dir.join(&name).display().to_string())),
            }
        }
        Ok(())
    }

    /// Adds the segments of a directory, up to a sequence. `any_may_go` says that segments may be removed in any order
    /// meanwhile.
    fn add_segments(&mut self, dir: &Path, prefix: &str, head: Option<u64>, any_may_go: bool) -> Result<()> {
        let mut begun = false;
        let segments: Vec<u64> = segment_ids(dir)?;
        for (i, id) in segments.iter().enumerate() {
            let path = dir.join(SegmentHeader::file_name(*id));
            let place = |e: &io::Error| Error::io("cannot read it", e).at(path.display().to_string());
            let file = match ReadFile::open(&path) {
                Ok(file) => file,
                // Removed before the snapshot was asked for; that had not ended yet.
                Err(e) if e.kind() == io::ErrorKind::NotFound && (any_may_go || !begun) => continue,
                Err(e) => return Err(place(&e)),
            };
            let mut block = Vec::new();
            file.read_at(0, BLOCK_BYTES, &mut block).map_err(|e| place(&e))?;
            let header = match SegmentHeader::decode(&block) {
                Ok(h) if h.id == *id => h,
                Err(e) if e.kind() == ErrorKind::NewerFormat => return Err(e.at(path.display().to_string())),
                // Without a header there are no records; the file is what a crash left, or is being made.
                Ok(_) | Err(_) => continue,
            };
            if head.is_some_and(|h| header.base_sequence > h) {
                break;
            }
            let next = segments.get(i + 1).copied();
            let cut = match head {
                // Where the next one begins at or below the head, this one is whole.
                Some(head) if !begins_by(dir, next, head)? => Some(end_of(&file, *id, head).map_err(|e| place(&e))?),
                _ => None,
            };
            let used = match cut {
                Some(end) => end,
                None => last_byte(&file, driver::fs::len(&path).map_err(|e| place(&e))?).map_err(|e| place(&e))?,
            };
            // A header of zeros behind the last record ends a segment.
            let bytes = (used + RECORD_HEADER_BYTES as u64).next_multiple_of(BLOCK_BYTES as u64);
            let contents = At { file: &file, at: 0, end: used }.chain(io::repeat(0));
            self.add(&format!("{prefix}{}", SegmentHeader::file_name(*id)), bytes, contents)?;
            begun = true;
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Manifest> {
        let manifest = self.manifest.clone();
        let text = to_json(&manifest)?;
        self.add(MANIFEST, text.len() as u64, &text[..])?;
        self.tar.into_inner().and_then(|out| out.flush()).map_err(|e| Error::io("cannot write the snapshot", &e))?;
        Ok(manifest)
    }
}

/// Whether a segment begins at or below a sequence.
fn begins_by(dir: &Path, id: Option<u64>, sequence: u64) -> Result<bool> {
    let Some(id) = id else { return Ok(false) };
    match driver::fs::read_front(&dir.join(SegmentHeader::file_name(id)), BLOCK_BYTES) {
        // A file that is kept ready for a segment has an earlier one's header.
        Ok(block) => Ok(SegmentHeader::decode(&block).is_ok_and(|h| h.id == id && h.base_sequence <= sequence)),
        Err(_) => Ok(false),
    }
}

/// Where the last record ends whose sequence is at most `head`.
fn end_of(file: &ReadFile, id: u64, head: u64) -> io::Result<u64> {
    let mut end = BLOCK_BYTES as u64;
    let (mut base, mut at, mut seen) = (end, 0, 0);
    let mut bytes = Vec::new();
    file.read_at(base, COPY_BYTES, &mut bytes)?;
    loop {
        match record::parse(id, &bytes[at..]) {
            Parsed::Record(r) if r.sequence() <= head => {
                at += r.padded_len();
                (end, seen) = (base + at as u64, r.sequence());
            }
            Parsed::Record(_) | Parsed::End => return Ok(end),
            Parsed::Short(need) => {
                (base, at) = (base + at as u64, 0);
                file.read_at(base, need.max(COPY_BYTES), &mut bytes)?;
                if bytes.len() < need {
                    return Ok(end);
                }
            }
            // What follows on damage belongs to the snapshot all the same.
            Parsed::Invalid => match find_record(file, id, base + at as u64, seen, head)? {
                Some((next, ..)) => {
                    (base, at) = (next, 0);
                    file.read_at(base, COPY_BYTES, &mut bytes)?;
                }
                None => return Ok(end),
            },
        }
    }
}

/// How many bytes of a file there are before the zeros at its end.
fn last_byte(file: &ReadFile, len: u64) -> io::Result<u64> {
    let mut end = len;
    let mut bytes = Vec::new();
    while end > 0 {
        let from = end.saturating_sub(COPY_BYTES as u64);
        file.read_at(from, (end - from) as usize, &mut bytes)?;
        if let Some(last) = bytes.iter().rposition(|b| *b != 0) {
            return Ok(from + last as u64 + 1);
        }
        end = from;
    }
    Ok(0)
}

/// Reads a stretch of a file.
struct At<'a> {
    file: &'a ReadFile,
    at: u64,
    end: u64,
}

impl Read for At<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let want = (self.end - self.at).min(out.len().min(COPY_BYTES) as u64) as usize;
        let mut bytes = Vec::new();
        self.file.read_at(self.at, want, &mut bytes)?;
        out[..bytes.len()].copy_from_slice(&bytes);
        self.at += bytes.len() as u64;
        Ok(bytes.len())
    }
}

/// Sums up what is read.
struct Summed<R> {
    inner: R,
    crc32c: u32,
    bytes: u64,
}

impl<R: Read> Read for Summed<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(out)?;
        self.crc32c = crc32c::crc32c_append(self.crc32c, &out[..n]);
        self.bytes += n as u64;
        Ok(n)
    }
}

/// Makes a data directory of a snapshot. `data_dir` must not be there, or be empty; it is there as a whole afterwards, or as
/// it was.
///
/// # Errors
/// [`ErrorKind::InvalidArgument`] if there is something in `data_dir`, [`ErrorKind::InvalidConfig`] if it is an address,
/// [`ErrorKind::Corrupt`] if the file is no snapshot, is cut short or damaged, [`ErrorKind::NewerFormat`], [`ErrorKind::Io`]
/// and the like.
pub fn restore(file: &Path, data_dir: &Path) -> Result<Manifest> {
    check_path(data_dir).map_err(|e| e.at(format!("data directory {}", data_dir.display())))?;
    let at = |e: Error| e.at(file.display().to_string());
    let input = File::open(file).map_err(|e| at(Error::io("cannot read it", &e)))?;
    let occupied = match fs::read_dir(data_dir) {
        Ok(mut entries) => entries.next().is_some(),
        Err(e) if e.kind() == io::ErrorKind::NotFound => false,
        Err(e) => return Err(Error::io("cannot look into it", &e).at(data_dir.display().to_string())),
    };
    if occupied {
        return Err(Error::new(ErrorKind::InvalidArgument, "there is something in it already")
            .at(format!("data directory {}", data_dir.display()))
            .remedy("name a directory that is not there yet, or empty"));
    }
    let name = data_dir.file_name().ok_or_else(|| {
        Error::new(ErrorKind::InvalidArgument, format!("{} is no name of a directory", data_dir.display()))
            .remedy("name the directory to make")
    })?;
    let mut scratch_name = name.to_owned();
    scratch_name.push(format!(".restoring-{}", std::process::id()));
    let scratch = data_dir.with_file_name(scratch_name);
    let io = |e: io::Error| Error::io("cannot write the directory", &e).at(scratch.display().to_string());
    fs::create_dir_all(scratch.parent().unwrap_or(Path::new(""))).map_err(io)?;
    let _ = fs::remove_dir_all(&scratch);
    fs::create_dir(&scratch).map_err(io)?;
    let result = unpack(io::BufReader::with_capacity(COPY_BYTES, input), &scratch).map_err(at).and_then(|manifest| {
        fs::rename(&scratch, data_dir).map_err(io)?;
        let parent = data_dir.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new("."));
        driver::fs::sync_dir(parent).map_err(io)?;
        Ok(manifest)
    });
    if result.is_err() {
        let _ = fs::remove_dir_all(&scratch);
    }
    result
}

#[cold]
fn corrupt(what: impl Into<String>) -> Error {
    Error::new(ErrorKind::Corrupt, what).remedy("use a snapshot that is whole; nothing was restored")
}

/// The place of a file of a snapshot, if a snapshot can have such a file.
fn target(path: &Path) -> Option<PathBuf> {
    let mut parts = Vec::new();
    for part in path.components() {
        match part {
            Component::Normal(p) => parts.push(p.to_str()?),
            _ => return None,
        }
    }
    let shard =
        |s: &str| s.strip_prefix("shard-").is_some_and(|n| n.len() == 4 && n.bytes().all(|b| b.is_ascii_digit()));
    let segment = |s: &str| SegmentHeader::parse_file_name(s).is_some();
    let known = match parts[..] {
        [whole] => WHOLE.contains(&whole) || whole == MANIFEST,
        [standing::DIRECTORY, name] => standing::is_kept(name),
        [dir, name] => shard(dir) && (CURSOR_FILES.contains(&name) || segment(name)),
        [dir, "dead", name] => shard(dir) && (segment(name) || Taken::parse_file_name(name).is_some()),
        [dir, losses::DIRECTORY, name] => shard(dir) && segment(name),
        _ => false,
    };
    known.then(|| parts.iter().collect())
}

fn unpack(input: impl Read, dir: &Path) -> Result<Manifest> {
    let io = |e: &io::Error| Error::io("cannot write the directory", e).at(dir.display().to_string());
    let broken = |e: io::Error| corrupt(format!("this is no snapshot, or it is cut short: {e}"));
    let mut tar = tar::Archive::new(input);
    let mut sums = BTreeMap::new();
    let mut manifest = None;
    let mut incarnations = Vec::new();
    for entry in tar.entries().map_err(broken)? {
        let entry = entry.map_err(broken)?;
        let path = entry.path().map_err(broken)?.into_owned();
        let shown = path.display().to_string();
        let Some(target) = target(&path).filter(|_| entry.header().entry_type() == tar::EntryType::Regular) else {
            return Err(corrupt(format!("a snapshot has no `{}`", shown.escape_debug())));
        };
        if manifest.is_some() || sums.contains_key(&shown) {
            return Err(corrupt(format!("`{shown}` comes where nothing should")));
        }
        let mut summed = Summed { inner: entry, crc32c: 0, bytes: 0 };
        if shown == MANIFEST {
            let mut text = Vec::new();
            (&mut summed).take(SMALL_BYTES_MAX).read_to_end(&mut text).map_err(broken)?;
            manifest = Some(read_manifest(&text)?);
            continue;
        }
        let target = dir.join(target);
        fs::create_dir_all(target.parent().unwrap_or(dir)).map_err(|e| io(&e))?;
        let mut options = OpenOptions::new();
        let mut out = options.write(true).create_new(true).mode(FILE_MODE).open(&target).map_err(|e| io(&e))?;
        let mut front = Vec::new();
        copy(&mut summed, &mut out, &mut front).map_err(|e| match e {
            Copy::Read(e) => broken(e),
            Copy::Write(e) => io(&e),
        })?;
        out.sync_all().map_err(|e| io(&e))?;
        if target.extension().is_some_and(|e| e == "log")
            && let Ok(header) = SegmentHeader::decode(&front)
        {
            incarnations.push(header.incarnation);
        }
        sums.insert(shown, FileSum { bytes: summed.bytes, crc32c: summed.crc32c });
    }
    let Some(manifest) = manifest else { return Err(corrupt("its end is missing (no manifest.json)")) };
    for (name, sum) in &manifest.files {
        match sums.get(name) {
            Some(found) if found == sum => {}
            Some(_) => return Err(corrupt(format!("`{name}` is damaged: its checksum differs"))),
            None => return Err(corrupt(format!("`{name}` is missing"))),
        }
    }
    if let Some(name) = sums.keys().find(|n| !manifest.files.contains_key(*n)) {
        return Err(corrupt(format!("`{name}` is not in its manifest")));
    }
    become_another(dir, &manifest, &incarnations)?;
    for shard in 0..manifest.shards as usize {
        let shard = shard_path(dir, shard);
        let own = ["dead", losses::DIRECTORY].map(|sub| shard.join(sub));
        for d in &own {
            fs::create_dir_all(d).map_err(|e| io(&e))?;
        }
        for d in own.into_iter().chain([shard]) {
            driver::fs::sync_dir(&d).map_err(|e| io(&e))?;
        }
    }
    let states = dir.join(standing::DIRECTORY);
    if states.is_dir() {
        driver::fs::sync_dir(&states).map_err(|e| io(&e))?;
    }
    driver::fs::sync_dir(dir).map_err(|e| io(&e))?;
    Ok(manifest)
}

fn read_manifest(text: &[u8]) -> Result<Manifest> {
    #[derive(Deserialize)]
    struct Format {
        format: u32,
    }
    let bad = |e: serde_json::Error| corrupt(format!("manifest.json: {e}"));
    let format = serde_json::from_slice::<Format>(text).map_err(bad)?.format;
    if format > FORMAT {
        return Err(newer_format(format));
    }
    let manifest: Manifest = serde_json::from_slice(text).map_err(bad)?;
    if manifest.shards == 0 || manifest.shards as usize > SHARDS_MAX {
        return Err(corrupt(format!("manifest.json: {} shards", manifest.shards)));
    }
    Ok(manifest)
}

/// A new writer id for what is written from now on; what is there keeps its own.
fn become_another(dir: &Path, manifest: &Manifest, incarnations: &[u64]) -> Result<()> {
    let io = |e: io::Error| Error::io("cannot write the directory", &e).at(dir.display().to_string());
    let mut writer = driver::random_u64()? as u32;
    while writer == manifest.writer {
        writer = driver::random_u64()? as u32;
    }
    driver::fs::write(&dir.join("meta.json"), &meta_json(manifest.format, writer, manifest.shards)?).map_err(io)?;
    let mut earlier = inspect(dir)?.writers.earlier;
    for incarnation in incarnations {
        // Those of a snapshot of a snapshot are there already.
        earlier.entry(*incarnation).or_insert(manifest.writer);
    }
    driver::fs::write(&dir.join(WRITERS_FILE), &writers_json(&earlier)?).map_err(io)?;
    for name in ["meta.json", WRITERS_FILE] {
        File::open(dir.join(name)).and_then(|f| f.sync_all()).map_err(io)?;
    }
    Ok(())
}

enum Copy {
    Read(io::Error),
    Write(io::Error),
}

/// Copies everything, and keeps the first block.
fn copy(from: &mut impl Read, to: &mut impl Write, front: &mut Vec<u8>) -> Result<(), Copy> {
    let mut buffer = vec![0; COPY_BYTES];
    loop {
        let n = match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(Copy::Read(e)),
        };
        let wanted = (BLOCK_BYTES - front.len()).min(n);
        front.extend_from_slice(&buffer[..wanted]);
        to.write_all(&buffer[..n]).map_err(Copy::Write)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_of_a_data_directory_are_taken() {
        for good in [
            "names.json",
            "groups.json",
            "manifest.json",
            "writers.json",
            "names.journal",
            "rules.json",
            "rules.journal",
            "shard-0000/cursor.a",
            "shard-0012/00000000000000ff.log",
            "shard-0012/dead/00000000000000ff.log",
            "shard-0012/dead/00000000000000ff.taken",
            "shard-0012/losses/00000000000000ff.log",
        ] {
            assert_eq!(target(Path::new(good)), Some(PathBuf::from(good)));
        }
        for bad in [
            "",
            "/etc/passwd",
            "../names.json",
            "shard-0000/../names.json",
            "meta.json",
            "LOCK",
            "shard-0000/x.log",
            "shard-0000",
            "shard-00/cursor.a",
            "shard-0000/dead/cursor.a",
            "shard-0000/00000000000000ff.taken",
            "shard-0000/losses/cursor.a",
            "shard-0000/quarantine/00000000000000ff.log",
            "shard-0000/dead/x/00000000000000ff.log",
        ] {
            assert_eq!(target(Path::new(bad)), None, "{bad}");
        }
    }
}
