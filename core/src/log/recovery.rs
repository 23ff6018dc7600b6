//! Opening a data directory: lock, version, names, and per shard what a stop or a crash left.
//!
//! This runs on the caller's thread before the shards start, with ordinary blocking I/O. Only the last segment of a shard
//! is read whole, so the time to open is bounded by the segment size, not by the backlog.

use std::collections::BTreeMap;
use std::io::ErrorKind as IoKind;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::cursor::{Cursors, section};
use super::dead::{self, KeptState};
use super::losses;
use super::record::{self, Parsed, RecordView};
use super::segment::{SegmentHeader, newer_format};
use super::{BLOCK_BYTES, FORMAT};
use crate::driver::fs::{self, Lock, LockError};
use crate::driver::random_u64;
use crate::error::{Error, ErrorKind, Result};

/// The most shards a data directory can have.
pub const SHARDS_MAX: usize = 256;

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Meta {
    format: u32,
    writer: u32,
    shards: u16,
}

#[derive(Debug, Serialize, Deserialize)]
struct NamesFile {
    format: u32,
    next: u32,
    destinations: BTreeMap<String, u32>,
    rules: BTreeMap<String, u32>,
}

/// The numbers that destinations and rules have in the log. A number is never given to another name.
#[derive(Debug)]
pub struct Names {
    path: PathBuf,
    file: NamesFile,
}

impl Names {
    /// The names of a data directory, for looking only.
    ///
    /// # Errors
    /// If it has none, or they cannot be read.
    pub(crate) fn read(dir: &Path) -> Result<Names> {
        let path = dir.join("names.json");
        if !fs::is_file(&path) {
            return Err(Error::new(ErrorKind::NotFound, "there is no such file")
                .at(path.display().to_string())
                .remedy("name the data directory of an engine"));
        }
        Names::open(dir)
    }

    fn open(dir: &Path) -> Result<Names> {
        let path = dir.join("names.json");
        let file = match read_json::<NamesFile>(&path)? {
            Some(f) if f.format > FORMAT => return Err(newer_format(f.format).at(path.display().to_string())),
            Some(f) => f,
            None => NamesFile { format: FORMAT, next: 1, destinations: BTreeMap::new(), rules: BTreeMap::new() },
        };
        Ok(Names { path, file })
    }

    /// Gives numbers to names that have none and writes the file if there were any. Answers the numbers of all, in order,
    /// and which destinations are new.
    ///
    /// # Errors
    /// If the file cannot be written; then no number was given.
    pub fn assign(&mut self, destinations: &[&str], rules: &[&str]) -> Result<Assigned> {
        let mut file = NamesFile {
            format: FORMAT,
            next: self.file.next,
            destinations: self.file.destinations.clone(),
            rules: self.file.rules.clone(),
        };
        let mut out = Assigned::default();
        let mut number = |map: &mut BTreeMap<String, u32>, name: &str| match map.get(name) {
            Some(n) => (*n, false),
            None => {
                let n = file.next;
                file.next += 1;
                map.insert(name.to_owned(), n);
                (n, true)
            }
        };
        for name in destinations {
            let (n, new) = number(&mut file.destinations, name);
            out.destinations.push(n);
            if new {
                out.new_destinations.push(n);
            }
        }
        for name in rules {
            out.rules.push(number(&mut file.rules, name).0);
        }
        if file.next != self.file.next {
            write_json(&self.path, &file)?;
            self.file = file;
        }
        Ok(out)
    }

    /// The numbers of all destinations.
    pub fn destinations(&self) -> impl Iterator<Item = u32> {
        self.file.destinations.values().copied()
    }

    /// The names of all destinations.
    pub fn destination_names(&self) -> impl Iterator<Item = &str> {
        self.file.destinations.keys().map(String::as_str)
    }

    /// The number of a destination.
    pub fn destination_number(&self, name: &str) -> Option<u32> {
        self.file.destinations.get(name).copied()
    }

    /// The destination of a number.
    pub fn destination(&self, number: u32) -> Option<&str> {
        self.file.destinations.iter().find(|(_, n)| **n == number).map(|(name, _)| name.as_str())
    }

    /// The rule of a number.
    pub fn rule(&self, number: u32) -> Option<&str> {
        self.file.rules.iter().find(|(_, n)| **n == number).map(|(name, _)| name.as_str())
    }

    /// Every rule's name by number.
    pub fn rules(&self) -> impl Iterator<Item = (u32, &str)> {
        self.file.rules.iter().map(|(name, n)| (*n, name.as_str()))
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

/// An open data directory. Holds its lock until dropped.
#[derive(Debug)]
pub struct DataDir {
    /// Where it is.
    pub path: PathBuf,
    /// Part of every sequencer.
    pub writer: u32,
    /// How many shards it has.
    pub shards: usize,
    /// Drawn at random by this opening; part of the ids of its events.
    pub incarnation: u64,
    /// The numbers of destinations and rules.
    pub names: Names,
    lock: Lock,
    meta: Meta,
}

impl DataDir {
    /// Opens or creates a data directory and locks it. `shards` is what the caller insists on, `shards_default` what a
    /// new directory gets otherwise.
    ///
    /// # Errors
    /// [`ErrorKind::Locked`], [`ErrorKind::ReadOnly`], [`ErrorKind::NoSpace`], [`ErrorKind::NewerFormat`],
    /// [`ErrorKind::Corrupt`], [`ErrorKind::InvalidConfig`] for another shard count than the directory has, or
    /// [`ErrorKind::Io`]; each names the file.
    pub fn open(path: &Path, shards: Option<usize>, shards_default: usize) -> Result<DataDir> {
        let at = |e: Error| e.at(format!("data directory {}", path.display()));
        fs::create_dir_all(path).map_err(|e| at(Error::io("cannot create it", &e)))?;
        let lock = lock(path).map_err(at)?;
        let meta_path = path.join("meta.json");
        let meta = match read_json::<Meta>(&meta_path)? {
            Some(m) if m.format > FORMAT => return Err(at(newer_format(m.format))),
            Some(m) => {
                if let Some(asked) = shards
                    && asked != m.shards as usize
                {
                    return Err(at(Error::invalid_config(format!(
                        "it was made with {} shards, and {asked} are asked for",
                        m.shards
                    ))
                    .remedy(format!("set engine.shards = {}, or leave it out", m.shards))));
                }
                m
            }
            None => {
                let shards = shards.unwrap_or(shards_default).clamp(1, SHARDS_MAX);
                let m = Meta { format: FORMAT, writer: random_u64()? as u32, shards: shards as u16 };
                write_json(&meta_path, &m)?;
                m
            }
        };
        let names = Names::open(path)?;
        Ok(DataDir {
            path: path.to_owned(),
            writer: meta.writer,
            shards: (meta.shards as usize).clamp(1, SHARDS_MAX),
            incarnation: random_u64()?,
            names,
            lock,
            meta,
        })
    }

    /// Marks a directory of an older format as one of this format, so that older versions keep away from what is written
    /// from now on. Call when everything in it could be read.
    ///
    /// # Errors
    /// If the mark cannot be written.
    pub fn upgrade(&mut self) -> Result<()> {
        if self.meta.format < FORMAT {
            let meta = Meta { format: FORMAT, ..self.meta };
            write_json(&self.path.join("meta.json"), &meta)?;
            self.meta = meta;
        }
        Ok(())
    }

    /// Gives the lock up, also if children of this process have inherited its descriptor: they would hold it on.
    pub fn unlock(self) {
        if let Err(e) = self.lock.unlock() {
            log::warn!("data directory {}: cannot unlock it: {e}", self.path.display());
        }
    }

    /// The directory of a shard.
    pub fn shard_path(&self, shard: usize) -> PathBuf {
        shard_path(&self.path, shard)
    }
}

/// The writer id of a data directory.
pub(crate) fn writer(data_dir: &Path) -> Result<u32> {
    let path = data_dir.join("meta.json");
    match read_json::<Meta>(&path)? {
        Some(m) if m.format > FORMAT => Err(newer_format(m.format).at(path.display().to_string())),
        Some(m) => Ok(m.writer),
        None => Err(Error::new(ErrorKind::NotFound, "there is no such file")
            .at(path.display().to_string())
            .remedy("name the data directory of an engine")),
    }
}

/// The directory of a shard of the data directory at `path`.
pub fn shard_path(path: &Path, shard: usize) -> PathBuf {
    path.join(format!("shard-{shard:04}"))
}

/// Locks a data directory, for changing it without an engine.
///
/// # Errors
/// [`ErrorKind::Locked`] if somebody has it open.
pub(crate) fn lock_data_dir(dir: &Path) -> Result<Lock> {
    lock(dir).map_err(|e| e.at(format!("data directory {}", dir.display())))
}

fn lock(dir: &Path) -> Result<Lock> {
    fs::lock(&dir.join("LOCK"), &format!("{}\n", std::process::id())).map_err(|e| match e {
        LockError::Held(holder) => {
            let holder = holder.trim();
            let by = if holder.is_empty() { String::new() } else { format!(" (process {holder})") };
            Error::new(ErrorKind::Locked, format!("another engine has it open{by}"))
                .remedy("close that engine, or give this one a data directory of its own")
        }
        LockError::Io(e) => Error::io("cannot lock LOCK", &e),
    })
}

fn read_json<T: for<'a> Deserialize<'a>>(path: &Path) -> Result<Option<T>> {
    let text = match fs::read(path) {
        Ok(t) => t,
        Err(e) if e.kind() == IoKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::io("cannot read it", &e).at(path.display().to_string())),
    };
    serde_json::from_slice(&text).map(Some).map_err(|e| {
        // A newer format may have another shape: its number is worth more than what is missing.
        let format = serde_json::from_slice::<serde_json::Value>(&text).ok().and_then(|v| v.get("format")?.as_u64());
        match format {
            Some(f) if f > u64::from(FORMAT) => newer_format(f as u32),
            _ => Error::new(ErrorKind::Corrupt, e.to_string()).remedy("restore it from a copy of the data directory"),
        }
        .at(path.display().to_string())
    })
}

/// Replaces a file so that after a crash either the old or the new contents are there.
fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let at = |e: Error| e.at(path.display().to_string());
    let text = serde_json::to_vec_pretty(value).map_err(|e| at(Error::new(ErrorKind::Internal, e.to_string())))?;
    fs::replace(path, &path.with_extension("json.tmp"), &text).map_err(|e| at(Error::io("cannot write it", &e)))
}

/// A segment as found on disk.
#[derive(Clone, Debug)]
pub struct SegmentInfo {
    /// Its header.
    pub header: SegmentHeader,
    /// Its file.
    pub path: PathBuf,
    /// The last sequence it can hold; equal to `header.base_sequence - 1` if it is empty.
    pub last_sequence: u64,
}

/// What recovery found in a shard, beside the segments themselves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Damaged stretches, quarantined.
    pub damaged: u64,
    /// Bytes of those.
    pub damaged_bytes: u64,
    /// Bytes of a record that was being written when the process or machine stopped.
    pub torn_bytes: u64,
    /// Files that are no readable segments; they are left where they are.
    pub unreadable: Vec<PathBuf>,
    /// Cursor files whose checksum failed.
    pub cursor_damaged: u64,
}

/// A shard's state on disk.
#[derive(Clone, Debug)]
pub struct ShardState {
    /// Its directory.
    pub path: PathBuf,
    /// Event segments in order.
    pub segments: Vec<SegmentInfo>,
    /// The number of the next segment.
    pub next_segment: u64,
    /// The sequence of the next record.
    pub next_sequence: u64,
    /// The highest clock reading that may have been given out.
    pub clock_floor_ns: u64,
    /// What the lanes had delivered.
    pub cursors: Cursors,
    /// Its dead letters.
    pub(crate) dead: KeptState,
    /// What it has told of losses.
    pub(crate) losses: KeptState,
    /// What else was found.
    pub findings: Findings,
}

/// What [`scan`] saw.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scan {
    /// Valid records.
    pub records: u64,
    /// The last valid record's sequence and clock.
    pub last: Option<(u64, u64)>,
    /// Where the next record would go.
    pub end: usize,
    /// Damaged stretches between valid records, as offsets.
    pub damage: Vec<(usize, usize)>,
    /// Bytes after `end` that are not zero: a torn record.
    pub torn_bytes: usize,
}

/// Goes through the records of a whole segment file.
pub fn scan<'a>(header: &SegmentHeader, bytes: &'a [u8], mut each: impl FnMut(usize, RecordView<'a>)) -> Scan {
    let mut s = Scan { end: BLOCK_BYTES, ..Scan::default() };
    let mut at = BLOCK_BYTES;
    let mut after = header.base_sequence.saturating_sub(1);
    while at < bytes.len() {
        match record::parse(header.id, &bytes[at..]) {
            Parsed::Record(r) if r.sequence() > after => {
                after = r.sequence();
                s.records += 1;
                s.last = Some((after, r.header().clock_ns));
                each(at, r);
                at += r.padded_len();
                s.end = at;
            }
            Parsed::End if bytes[at..].iter().all(|b| *b == 0) => break,
            _ => match record::resync(header.id, bytes, at + 8, after) {
                Some(next) => {
                    s.damage.push((at, next));
                    at = next;
                }
                None => {
                    s.torn_bytes = torn_bytes(header, &bytes[at..]);
                    break;
                }
            },
        }
    }
    s
}

/// How many bytes of a segment's rest were a record that was being written. In a recycled file that is followed by bytes of
/// an earlier segment; what was written ends with a record's header of zeros, unless it never came so far.
fn torn_bytes(header: &SegmentHeader, rest: &[u8]) -> usize {
    let rest = if header.recycled {
        let end = (0..rest.len().min(record::RECORD_BYTES_MAX))
            .step_by(8)
            .find(|at| rest[*at..].iter().take(record::RECORD_HEADER_BYTES).all(|b| *b == 0));
        &rest[..end.unwrap_or(rest.len().min(record::RECORD_BYTES_MAX))]
    } else {
        rest
    };
    rest.iter().rposition(|b| *b != 0).map_or(0, |last| last + 1)
}

/// Reads the headers of the segments of a directory, in order of their numbers.
pub fn list_segments(dir: &Path, findings: &mut Findings) -> Result<Vec<SegmentInfo>> {
    let names = match fs::list(dir) {
        Ok(names) => names,
        Err(e) if e.kind() == IoKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(Error::io("cannot list it", &e).at(dir.display().to_string())),
    };
    let mut segments = Vec::new();
    for name in names {
        let Some(id) = SegmentHeader::parse_file_name(&name) else { continue };
        let path = dir.join(name);
        let block = match fs::read_front(&path, BLOCK_BYTES) {
            Ok(block) => block,
            // Removed since it was listed: a running engine may do that.
            Err(e) if e.kind() == IoKind::NotFound => continue,
            Err(e) => return Err(Error::io("cannot read it", &e).at(path.display().to_string())),
        };
        match SegmentHeader::decode(&block) {
            Ok(header) if header.id == id => {
                segments.push(SegmentInfo { header, path, last_sequence: header.base_sequence.saturating_sub(1) });
            }
            Err(e) if e.kind() == ErrorKind::NewerFormat => return Err(e.at(path.display().to_string())),
            // A crash while a segment was being made leaves a file without a header and without records.
            Ok(_) | Err(_) => findings.unreadable.push(path),
        }
    }
    segments.sort_by_key(|s| s.header.id);
    for i in 1..segments.len() {
        segments[i - 1].last_sequence = segments[i].header.base_sequence.saturating_sub(1);
    }
    Ok(segments)
}

/// Finds out what a shard holds. Creates its directories if they are not there.
///
/// # Errors
/// If a file cannot be read or was written by a newer version. Damage is no error: it is quarantined and reported.
pub fn recover_shard(dir: &Path) -> Result<ShardState> {
    let at_dir = |e: Error| e.at(dir.display().to_string());
    for sub in ["dead", losses::DIRECTORY, "quarantine"] {
        fs::create_dir_all(&dir.join(sub)).map_err(|e| at_dir(Error::io("cannot create it", &e)))?;
    }
    let mut findings = Findings::default();
    let cursors = read_cursors(dir, &mut findings)?;
    let mut segments = list_segments(dir, &mut findings)?;
    let mut clock_floor_ns = cursors.clock_ceiling_ns;
    let mut next_sequence = cursors.next_sequence.max(1);
    for s in &segments {
        clock_floor_ns = clock_floor_ns.max(s.header.base_clock_ns);
        next_sequence = next_sequence.max(s.header.base_sequence);
    }
    for lane in cursors.lanes.values() {
        // A cursor ahead of a damaged log must not make new events look delivered.
        next_sequence = next_sequence.max(lane.high() + 1);
    }
    if let Some(last) = segments.last_mut() {
        let bytes = read_file(&last.path)?;
        let s = scan(&last.header, &bytes, |_, _| ());
        if let Some((sequence, clock_ns)) = s.last {
            last.last_sequence = sequence;
            next_sequence = next_sequence.max(sequence + 1);
            clock_floor_ns = clock_floor_ns.max(clock_ns);
        }
        for (from, to) in &s.damage {
            quarantine(dir, last.header.id, *from, &bytes[*from..*to])?;
            findings.damaged += 1;
            findings.damaged_bytes += (to - from) as u64;
        }
        if s.torn_bytes > 0 {
            quarantine(dir, last.header.id, s.end, &bytes[s.end..s.end + s.torn_bytes.min(record::RECORD_BYTES_MAX)])?;
            findings.torn_bytes += s.torn_bytes as u64;
        }
        // Sequences of a torn or damaged tail are never used again.
        next_sequence += findings.torn_bytes.div_ceil(record::RECORD_HEADER_BYTES as u64);
    }
    let saved = cursors.sections.get(&section::NEXT_SEGMENT).and_then(|b| b.as_slice().try_into().ok());
    let next_segment = segments.last().map_or(1, |s| s.header.id + 1).max(saved.map_or(1, u64::from_le_bytes)).max(
        findings
            .unreadable
            .iter()
            .filter_map(|p| SegmentHeader::parse_file_name(p.file_name()?.to_str()?))
            .max()
            .map_or(1, |id| id + 1),
    );
    let mut dead = dead::recover(&dir.join("dead"), &mut findings)?;
    if let Some((segment, number)) = cursors.sections.get(&section::NEXT_DEAD).and_then(|b| section::two(b)) {
        dead.next = (dead.next.0.max(segment), dead.next.1.max(number));
    }
    let mut losses = dead::recover(&dir.join(losses::DIRECTORY), &mut findings)?;
    if let Some((segment, number)) = cursors.sections.get(&section::LOSSES).and_then(|b| section::two(b)) {
        losses.next = (losses.next.0.max(segment), losses.next.1.max(number));
    }
    Ok(ShardState {
        path: dir.to_owned(),
        segments,
        next_segment,
        next_sequence,
        clock_floor_ns,
        cursors,
        dead,
        losses,
        findings,
    })
}

fn read_file(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(|e| Error::io("cannot read it", &e).at(path.display().to_string()))
}

/// Copies damaged bytes to `quarantine/`, so that what was lost can be looked at.
pub fn quarantine(dir: &Path, segment: u64, offset: usize, bytes: &[u8]) -> Result<()> {
    let path = dir.join("quarantine").join(format!("{segment:016x}-{offset:08x}.bin"));
    fs::write(&path, bytes).map_err(|e| Error::io("cannot write it", &e).at(path.display().to_string()))
}

/// The names of the two cursor files; generation `n` goes into the one at `n % 2`.
pub const CURSOR_FILES: [&str; 2] = ["cursor.a", "cursor.b"];

/// Two numbers that were saved with the cursors of a shard.
pub(crate) fn saved_numbers(dir: &Path, tag: u16) -> Result<Option<(u64, u64)>> {
    let cursors = read_cursors(dir, &mut Findings::default())?;
    Ok(cursors.sections.get(&tag).and_then(|b| section::two(b)))
}

fn read_cursors(dir: &Path, findings: &mut Findings) -> Result<Cursors> {
    let mut best = Cursors::default();
    for name in CURSOR_FILES {
        let path = dir.join(name);
        let bytes = match fs::read(&path) {
            Ok(b) => b,
            Err(e) if e.kind() == IoKind::NotFound => continue,
            Err(e) => return Err(Error::io("cannot read it", &e).at(path.display().to_string())),
        };
        match Cursors::decode(&bytes) {
            Ok(c) if c.generation >= best.generation => best = c,
            Ok(_) => {}
            Err(e) if e.kind() == ErrorKind::NewerFormat => return Err(e.at(path.display().to_string())),
            // An empty or torn file is what a crash during a save leaves; the other one counts.
            Err(_) => findings.cursor_damaged += 1,
        }
    }
    Ok(best)
}

/// A dead letter in memory, for listing.
#[derive(Clone, Debug)]
pub struct OwnedDeadLetter {
    /// The shard it belongs to.
    pub shard: usize,
    /// Its number within the shard.
    pub number: u64,
    /// The record's body; decode with [`record::DeadLetter::decode`].
    pub body: Vec<u8>,
}

/// Every dead letter of a data directory, oldest first per shard. Reads only; works while an engine is running.
///
/// # Errors
/// If a file cannot be read.
pub fn dead_letters(data_dir: &Path) -> Result<Vec<OwnedDeadLetter>> {
    dead::bodies(data_dir)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::appender::{Appender, SegmentPlan};
    use crate::log::record::Kind;
    use crate::log::segment::Purpose;

    /// A segment as the shell writes it, with a block of zeros' beginning behind it.
    fn segment(id: u64, records: usize, body: usize) -> Vec<u8> {
        let plan = SegmentPlan { bytes_max: 1 << 20, shard: 0, incarnation: 1, purpose: Purpose::Events };
        let mut a = Appender::new(plan, id, 1, 0);
        for _ in 0..records {
            a.append(Kind::Event, &[], &vec![id as u8; body], 1);
        }
        let mut bytes = a.take().map(|g| g.bytes).unwrap_or_default();
        bytes.resize((bytes.len() + record::RECORD_HEADER_BYTES).next_multiple_of(BLOCK_BYTES), 0);
        bytes
    }

    fn recycled() -> (SegmentHeader, Vec<u8>, usize) {
        let mut file = segment(1, 100, 700);
        let new = segment(2, 7, 900);
        file[..new.len()].copy_from_slice(&new);
        let mut header = SegmentHeader::decode(&file).unwrap();
        header.recycled = true;
        (header, file, new.len())
    }

    #[test]
    fn what_an_earlier_segment_left_in_a_recycled_file_is_no_damage() {
        let (header, file, _) = recycled();
        let s = scan(&header, &file, |_, _| ());
        assert_eq!((s.records, s.damage.len(), s.torn_bytes), (7, 0, 0));
    }

    #[test]
    fn a_torn_or_damaged_last_record_of_a_recycled_file_is_reported() {
        let (header, mut file, end) = recycled();
        file[end - 2000] ^= 1;
        let s = scan(&header, &file, |_, _| ());
        assert_eq!(s.records, 6);
        assert!(s.torn_bytes > 0 && s.torn_bytes < 2000, "{}", s.torn_bytes);
        // The same in the middle.
        let (header, mut file, _) = recycled();
        file[BLOCK_BYTES + 1500] ^= 1;
        let s = scan(&header, &file, |_, _| ());
        assert_eq!((s.records, s.damage.len(), s.torn_bytes), (6, 1, 0));
    }
}
