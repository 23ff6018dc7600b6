//! Opening a data directory: lock, version, names, and per shard what a stop or a crash left.
//!
//! This runs on the caller's thread before the shards start, with ordinary blocking I/O. Only the last segment of a shard
//! is read whole, so the time to open is bounded by the segment size, not by the backlog.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind as IoKind;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::appender::Position;
use super::checkpoint::{Checkpoint, DedupEntry};
use super::cursor::{Cursor, Cursors, section};
use super::dead::{self, KeptState};
use super::layout::{self, Applied, Barrier, Layout, Since};
use super::losses;
use super::names::Names;
use super::record::{self, Extensions, Kind, Parsed, RecordHeader, RecordView};
pub(crate) use super::segment::newer_format;
use super::segment::{Purpose, SegmentHeader};
use super::{BLOCK_BYTES, FORMAT};
use crate::driver::fs::{self, Lock, LockError};
use crate::driver::random_u64;
use crate::error::{Error, ErrorKind, Result};
use crate::event::FrameView;

/// The most shards a data directory can have.
pub const SHARDS_MAX: usize = 256;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Meta {
    format: u32,
    writer: u32,
    /// How many shards take events.
    shards: u16,
    /// What is left of earlier layouts, and the present one; empty if there never was another one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    layouts: Vec<Layout>,
    /// What the shards of earlier layouts had of the host's log, as long as the present ones have not all of that.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    applied: Vec<Applied>,
    /// No shard that was removed gave out a clock reading above this.
    #[serde(default, skip_serializing_if = "is_zero")]
    clock_floor_ns: u64,
    /// `names.json` was written: if it is not there, it was lost.
    #[serde(default, skip_serializing_if = "is_false")]
    named: bool,
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

fn is_false(b: &bool) -> bool {
    !*b
}

/// Whose records are in a directory: the writer's number of a record's sequencer, by the incarnation that accepted it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Writers {
    /// Of everything that is written now, and was since the directory was made.
    pub current: u32,
    /// Of what came with a snapshot of another directory.
    pub earlier: BTreeMap<u64, u32>,
}

impl Writers {
    /// The writer of what this incarnation accepted.
    pub fn of(&self, incarnation: u64) -> u32 {
        // Nearly every directory has only ever had one.
        if self.earlier.is_empty() {
            return self.current;
        }
        self.earlier.get(&incarnation).copied().unwrap_or(self.current)
    }

    fn read(dir: &Path, current: u32) -> Result<Writers> {
        let path = dir.join(WRITERS_FILE);
        let at = |e: Error| e.at(path.display().to_string());
        let Some(file) = read_json::<WritersFile>(&path)? else { return Ok(Writers { current, ..Writers::default() }) };
        if file.format > FORMAT {
            return Err(at(newer_format(file.format)));
        }
        let mut earlier = BTreeMap::new();
        for (incarnation, writer) in file.earlier {
            let number = u64::from_str_radix(&incarnation, 16).map_err(|_| {
                at(Error::new(ErrorKind::Corrupt, format!("`{incarnation}` is no incarnation"))
                    .remedy("restore it from a copy of the data directory"))
            })?;
            earlier.insert(number, writer);
        }
        Ok(Writers { current, earlier })
    }
}

/// The file of [`Writers::earlier`]; only a restored directory has one.
pub(crate) const WRITERS_FILE: &str = "writers.json";

#[derive(Debug, Serialize, Deserialize)]
struct WritersFile {
    format: u32,
    /// By incarnation, in hex: JSON numbers are not that long everywhere.
    earlier: BTreeMap<String, u32>,
}

/// The contents of `writers.json`.
pub(crate) fn writers_json(earlier: &BTreeMap<u64, u32>) -> Result<Vec<u8>> {
    let earlier = earlier.iter().map(|(i, w)| (format!("{i:016X}"), *w)).collect();
    to_json(&WritersFile { format: FORMAT, earlier })
}

/// The contents of `meta.json`.
pub(crate) fn meta_json(format: u32, writer: u32, shards: u16) -> Result<Vec<u8>> {
    let (layouts, applied) = (Vec::new(), Vec::new());
    to_json(&Meta { format, writer, shards, layouts, applied, clock_floor_ns: 0, named: false })
}

/// What a data directory says of itself, read without opening it.
#[derive(Clone, Debug)]
pub struct DirInfo {
    /// How many shards it has.
    pub shards: usize,
    /// Whether shards of an earlier layout still have something to deliver.
    pub rearranging: bool,
    /// Whose records it has.
    pub writers: Writers,
}

/// Reads what a data directory says of itself. Takes no lock: works while an engine has it open.
///
/// # Errors
/// [`ErrorKind::NotFound`] if it is no data directory, [`ErrorKind::InvalidConfig`] if it is an address,
/// [`ErrorKind::NewerFormat`], [`ErrorKind::Corrupt`] or [`ErrorKind::Io`].
pub fn inspect(path: &Path) -> Result<DirInfo> {
    let at = |e: Error| e.at(format!("data directory {}", path.display()));
    check_path(path).map_err(at)?;
    match read_json::<Meta>(&path.join("meta.json"))? {
        Some(m) if m.format > FORMAT => Err(at(newer_format(m.format))),
        Some(m) => Ok(DirInfo {
            shards: (m.shards as usize).clamp(1, SHARDS_MAX),
            rearranging: m.layouts.len() > 1,
            writers: Writers::read(path, m.writer)?,
        }),
        None => Err(at(Error::new(ErrorKind::NotFound, "there is no engine's data here (no meta.json)")
            .remedy("name the directory that engine.data_dir names"))),
    }
}

/// An open data directory. Holds its lock until dropped.
#[derive(Debug)]
pub struct DataDir {
    /// Where it is.
    pub path: PathBuf,
    /// Part of every sequencer.
    pub writer: u32,
    /// How many shards take events. There may be more that still deliver.
    pub shards: usize,
    /// What is left of earlier layouts, and the present one.
    pub layouts: Vec<Layout>,
    /// Drawn at random by this opening; part of the ids of its events.
    pub incarnation: u64,
    /// Whose records it has.
    pub writers: Writers,
    /// The numbers of destinations and rules.
    pub names: Names,
    lock: Lock,
    meta: Meta,
}

impl DataDir {
    /// Opens or creates a data directory and locks it. `shards` is what the caller wants, `shards_default` what a new
    /// directory gets otherwise. Another count than the directory has takes effect with [`DataDir::arrange`].
    ///
    /// # Errors
    /// [`ErrorKind::Locked`], [`ErrorKind::ReadOnly`], [`ErrorKind::NoSpace`], [`ErrorKind::NewerFormat`],
    /// [`ErrorKind::Corrupt`] or [`ErrorKind::Io`], each of which names the file; [`ErrorKind::InvalidConfig`] if the path is
    /// an address.
    pub fn open(path: &Path, shards: Option<usize>, shards_default: usize) -> Result<DataDir> {
        let at = |e: Error| e.at(format!("data directory {}", path.display()));
        check_path(path).map_err(at)?;
        fs::create_dir_all(path).map_err(|e| at(Error::io("cannot create it", &e)))?;
        let lock = lock(path).map_err(at)?;
        let meta_path = path.join("meta.json");
        let meta = match read_json::<Meta>(&meta_path)? {
            Some(m) if m.format > FORMAT => return Err(at(newer_format(m.format))),
            Some(m) => m,
            // It is the first file to be written.
            None if !shard_numbers(path)?.is_empty() => return Err(lost(&meta_path)),
            None => {
                let shards = shards.unwrap_or(shards_default).clamp(1, SHARDS_MAX) as u16;
                let writer = random_u64()? as u32;
                let m = Meta {
                    format: FORMAT,
                    writer,
                    shards,
                    layouts: Vec::new(),
                    applied: Vec::new(),
                    clock_floor_ns: 0,
                    named: false,
                };
                write_json(&meta_path, &m)?;
                m
            }
        };
        let names = Names::open(path)?;
        if meta.named && !names.is_written() {
            return Err(lost(names.path()));
        }
        let layouts = if meta.layouts.is_empty() { vec![Layout::first(meta.shards)] } else { meta.layouts.clone() };
        Ok(DataDir {
            path: path.to_owned(),
            writer: meta.writer,
            writers: Writers::read(path, meta.writer)?,
            shards: shards.unwrap_or(meta.shards as usize).clamp(1, SHARDS_MAX),
            layouts,
            incarnation: random_u64()?,
            names,
            lock,
            meta,
        })
    }

    /// Marks a directory of an older format as one of this format, so that older versions keep away from what is written
    /// from now on, and a new one as having names. Call when everything in it could be read.
    ///
    /// # Errors
    /// If the mark or the names cannot be written.
    pub fn upgrade(&mut self) -> Result<()> {
        if !self.meta.named {
            self.names.write()?;
        }
        self.write_meta(Meta { format: FORMAT.max(self.meta.format), named: true, ..self.meta.clone() })
    }

    fn write_meta(&mut self, meta: Meta) -> Result<()> {
        if meta != self.meta {
            write_json(&self.path.join("meta.json"), &meta)?;
            self.meta = meta;
        }
        Ok(())
    }

    /// What the shards of earlier layouts had of the host's log, if it is not certain that the present ones have it.
    pub fn applied(&self) -> &[Applied] {
        &self.meta.applied
    }

    /// The present layout, as a shard knows it.
    pub fn since(&self, shard: usize) -> Since {
        self.layouts.last().map_or_else(Since::default, |l| l.since(shard))
    }

    /// The shards to recover: those that take events, and whatever an earlier layout has left.
    ///
    /// # Errors
    /// If the directory cannot be listed.
    pub fn shard_numbers(&self) -> Result<Vec<usize>> {
        let mut all: BTreeSet<usize> = shard_numbers(&self.path)?.into_iter().collect();
        all.extend(0..self.shards);
        Ok(all.into_iter().collect())
    }

    /// Puts the shard count that was asked for into effect, once all shards are recovered and destinations have their
    /// numbers: says from which record of each shard on it holds, forgets layouts of which everything is delivered, and
    /// removes shards that are neither needed nor hold anything. Answers what of earlier layouts must be delivered first.
    /// `states` loses the shards that need not run.
    ///
    /// A crash at any time leaves either the old layout or the new one: the file that tells is replaced as a whole, before
    /// any event is accepted.
    ///
    /// # Errors
    /// If the file cannot be written; then nothing has changed.
    pub fn arrange(
        &mut self,
        states: &mut BTreeMap<usize, ShardState>,
        destinations: &[u32],
        is_new: impl Fn(u32) -> bool,
    ) -> Result<Vec<Barrier>> {
        for (shard, state) in states.iter_mut() {
            state.next_sequence = state.next_sequence.max(layout::floor(&self.layouts, *shard));
            state.clock_floor_ns = state.clock_floor_ns.max(self.meta.clock_floor_ns);
        }
        let mut applied = self.meta.applied.clone();
        let (generation, present, listed) =
            self.layouts.last().map_or((0, 0, 0), |l| (l.generation, l.shards as usize, l.starts.len()));
        if present == self.shards {
            // Only what the shards have saved themselves since counts.
            let lowest = (0..present).map(|s| states.get(&s).map_or(0, |s| s.checkpoint.host_cursor())).min();
            applied.retain(|a| a.highest() > lowest.unwrap_or(0));
        } else {
            let floor = applied.last().filter(|a| a.generation == generation).map_or(0, Applied::lowest);
            let cursor = |shard| states.get(&shard).map_or(0, |s: &ShardState| s.checkpoint.host_cursor()).max(floor);
            let before = Applied { generation: generation + 1, cursors: (0..present).map(cursor).collect() };
            applied.extend(Some(before).filter(|a| a.highest() > 0));
            // Also shards that are gone: their sequences are known to others, and must not begin anew if they come back.
            let shards = states.keys().next_back().map_or(0, |last| last + 1).max(listed);
            let start = |s| states.get(&s).map_or_else(|| layout::floor(&self.layouts, s), |s| s.next_sequence);
            let starts = (0..shards).map(start).collect();
            self.layouts.push(Layout { generation: generation + 1, shards: self.shards as u16, starts });
        }
        if let Some(layout) = self.layouts.last() {
            let floor = applied.last().filter(|a| a.generation == layout.generation).map_or(0, Applied::lowest);
            for (shard, state) in states.iter_mut() {
                state.checkpoint.follow(layout.since(*shard), floor);
            }
        }
        let shards: Vec<usize> = states.keys().copied().collect();
        let low = |shard: usize, destination| states[&shard].done(destination, is_new(destination));
        let barriers = layout::barriers(&self.layouts, &shards, destinations, low);
        layout::forget_delivered(&mut self.layouts, &barriers);

        let unneeded: Vec<usize> = shards.into_iter().filter(|s| *s >= self.shards && states[s].is_empty()).collect();
        let clock_floor_ns = states.values().map(|s| s.clock_floor_ns).max().unwrap_or(0);
        self.write_meta(Meta {
            shards: self.shards as u16,
            layouts: if self.layouts.len() == 1 && self.layouts[0].generation == 1 {
                Vec::new()
            } else {
                self.layouts.clone()
            },
            applied,
            clock_floor_ns: if unneeded.is_empty() { self.meta.clock_floor_ns } else { clock_floor_ns },
            ..self.meta.clone()
        })?;
        for shard in unneeded {
            states.remove(&shard);
            let path = self.shard_path(shard);
            // What was quarantined is for somebody to look at, and so is what was told of losses.
            let kept = |sub: &str| fs::list(&path.join(sub)).map(|names| !names.is_empty());
            let removed = match (kept("quarantine"), kept(losses::DIRECTORY)) {
                (Ok(false), Ok(false)) => fs::remove_dir_all(&path),
                (Ok(_), Ok(_)) => continue,
                (Err(e), _) | (_, Err(e)) => Err(e),
            };
            if let Err(e) = removed {
                log::warn!("{}: cannot remove it: {e}", path.display());
            }
        }
        Ok(barriers)
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

/// The directory of a shard of the data directory at `path`.
pub fn shard_path(path: &Path, shard: usize) -> PathBuf {
    path.join(format!("shard-{shard:04}"))
}

/// The numbers of the shards of the data directory at `path`, of those too that only deliver what an earlier layout has
/// left, in order.
///
/// # Errors
/// If it cannot be listed.
pub fn shard_numbers(path: &Path) -> Result<Vec<usize>> {
    let names = fs::list(path).map_err(|e| Error::io("cannot list it", &e).at(path.display().to_string()))?;
    let number = |name: &String| name.strip_prefix("shard-").filter(|n| n.len() == 4)?.parse::<usize>().ok();
    let mut numbers: Vec<usize> = names.iter().filter_map(number).filter(|n| *n < SHARDS_MAX).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// Refuses the address of an engine where a data directory is wanted: a directory of that name would be a mistake.
///
/// # Errors
/// [`ErrorKind::InvalidConfig`].
pub(crate) fn check_path(path: &Path) -> Result<()> {
    let text = path.to_string_lossy();
    let Some((scheme, rest)) = text.split_once(':') else { return Ok(()) };
    let is_scheme = scheme.len() > 1
        && scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
    if !is_scheme || !(scheme == "unix" || rest.starts_with('/')) {
        return Ok(());
    }
    let text = text.escape_debug();
    let connect =
        if scheme == "unix" { "connect to that engine (Client::connect, `address` in C and Python), or " } else { "" };
    Err(Error::invalid_config(format!("`{text}` is an address, not a directory"))
        .remedy(format!("{connect}name a directory; one that is called so is `./{text}`")))
}

/// Locks a data directory, for changing it without an engine.
///
/// # Errors
/// [`ErrorKind::Locked`] if somebody has it open.
pub(crate) fn lock_data_dir(dir: &Path) -> Result<Lock> {
    lock(dir).map_err(|e| e.at(format!("data directory {}", dir.display())))
}

pub(crate) fn lock(dir: &Path) -> Result<Lock> {
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

pub(crate) fn read_json<T: for<'a> Deserialize<'a>>(path: &Path) -> Result<Option<T>> {
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

/// Made anew, the file would give the log another meaning.
fn lost(path: &Path) -> Error {
    Error::new(ErrorKind::Corrupt, "the file is gone, but the logs that belong to it are there")
        .at(path.display().to_string())
        .remedy("restore it from a copy of the data directory, or move the directory away to begin with a new one")
}

pub(crate) fn to_json(value: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec_pretty(value).map_err(|e| Error::new(ErrorKind::Internal, e.to_string()))
}

/// Replaces a file so that after a crash either the old or the new contents are there.
pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let at = |e: Error| e.at(path.display().to_string());
    let text = to_json(value).map_err(at)?;
    fs::replace(path, &path.with_extension("json.tmp"), &text).map_err(|e| at(Error::io("cannot write it", &e)))
}

/// A segment as found on disk.
#[derive(Clone, Debug)]
pub struct SegmentInfo {
    /// Its header.
    pub header: SegmentHeader,
    /// Its file.
    pub path: PathBuf,
    /// The last sequence it can hold; equal to `header.base_sequence - 1` if it is empty. What it has beyond that is void:
    /// it was written once more, to the next segment, because this one could not be made durable.
    pub last_sequence: u64,
    /// The size of its file.
    pub bytes: u64,
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
    /// Segments whose header was damaged and could be told from their records. The ids of their events may differ from
    /// those that were given out before.
    pub headers_rebuilt: Vec<PathBuf>,
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
    /// Files that may serve for later segments, or are to be removed.
    pub spares: Vec<PathBuf>,
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
    /// What is known of the records.
    pub checkpoint: Checkpoint,
    /// The intents without an end, in order.
    pub in_doubt: Vec<Intent>,
    /// The keys by which repeats are recognised, in the order of their events.
    pub dedup: Vec<DedupEntry>,
    /// The segments that hold them, but for the latest, which the checkpoint has; the next one's number and the sequence
    /// of its first record.
    pub dedup_segments: Vec<SegmentInfo>,
    /// See `dedup_segments`.
    pub next_dedup: (u64, u64),
    /// What else was found.
    pub findings: Findings,
}

/// An intent of which neither commit nor abort is in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Intent {
    /// Its place in the shard's log.
    pub sequence: u64,
    /// The incarnation that wrote it.
    pub incarnation: u64,
    /// When it was accepted, ns since the epoch.
    pub accepted_ns: u64,
    /// The event as it was declared.
    pub frame: Vec<u8>,
}

impl ShardState {
    /// What a lane has delivered. `new` says that its destination has never been there before.
    pub fn cursor(&self, destination: u32, new: bool) -> Cursor {
        let head = self.next_sequence - 1;
        match self.cursors.lanes.get(&destination) {
            Some(c) => c.clone(),
            None if new => Cursor::at(head),
            // Known by name but never saved: whatever the log has for it is undelivered.
            None => Cursor::at(self.segments.first().map_or(head, |s| s.header.base_sequence.saturating_sub(1))),
        }
    }

    /// Up to where everything is done for a destination.
    pub(crate) fn done(&self, destination: u32, new: bool) -> u64 {
        let low = self.cursor(destination, new).low();
        let head = self.next_sequence - 1;
        if self.segments.iter().any(|s| s.last_sequence > low) { low } else { head }
    }

    /// Whether it holds neither events nor dead letters nor anything else that is asked for.
    fn is_empty(&self) -> bool {
        self.segments.is_empty()
            && self.dead.letters() == 0
            && self.dedup.is_empty()
            && self.in_doubt.is_empty()
            && self.findings.unreadable.is_empty()
    }
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
pub(crate) fn torn_bytes(header: &SegmentHeader, rest: &[u8]) -> usize {
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

/// How the names of files end that are kept for later segments and hold no records of use.
pub const SPARE_SUFFIX: &str = ".spare";

/// The files of a log.
#[derive(Clone, Debug, Default)]
pub struct Listing {
    /// The segments, in order of their numbers.
    pub segments: Vec<SegmentInfo>,
    /// Files without records of use: spare ones, and such as were named for a segment that was not begun. What they hold
    /// of old records is of segments up to `numbers_used`.
    pub spares: Vec<PathBuf>,
    /// The highest number that was ever given to one of the files.
    pub numbers_used: u64,
}

/// Reads the headers of the segments of a directory, in order of their numbers.
///
/// # Errors
/// If something cannot be read or was written by a newer version.
pub fn list_segments(dir: &Path, findings: &mut Findings) -> Result<Vec<SegmentInfo>> {
    list_files(dir, findings).map(|l| l.segments)
}

/// Looks at the files of a log: segments and spare ones.
///
/// # Errors
/// As [`list_segments`].
pub fn list_files(dir: &Path, findings: &mut Findings) -> Result<Listing> {
    let names = match fs::list(dir) {
        Ok(names) => names,
        Err(e) if e.kind() == IoKind::NotFound => return Ok(Listing::default()),
        Err(e) => return Err(Error::io("cannot list it", &e).at(dir.display().to_string())),
    };
    let mut l = Listing::default();
    for name in names {
        let spare = name.strip_suffix(SPARE_SUFFIX);
        let id = match spare {
            Some(stem) => SegmentHeader::parse_file_name(&format!("{stem}.log")),
            None => SegmentHeader::parse_file_name(&name),
        };
        if spare.is_none() && id.is_none() {
            continue;
        }
        let path = dir.join(name.as_str());
        let cannot_read = |e| Error::io("cannot read it", &e).at(path.display().to_string());
        let block = match fs::read_front(&path, BLOCK_BYTES) {
            Ok(block) => block,
            // Removed since it was listed: a running engine may do that.
            Err(e) if e.kind() == IoKind::NotFound => continue,
            Err(e) => return Err(cannot_read(e)),
        };
        l.numbers_used = l.numbers_used.max(id.unwrap_or(0));
        match SegmentHeader::decode(&block) {
            Err(e) if e.kind() == ErrorKind::NewerFormat => return Err(e.at(path.display().to_string())),
            Ok(header) if spare.is_none() && Some(header.id) == id => {
                let bytes = match fs::lengths(&path) {
                    Ok((bytes, _)) => bytes,
                    Err(e) if e.kind() == IoKind::NotFound => continue,
                    Err(e) => return Err(cannot_read(e)),
                };
                let last_sequence = header.base_sequence.saturating_sub(1);
                l.segments.push(SegmentInfo { header, path, last_sequence, bytes });
            }
            // A spare file, or one that has its new name but not its new header yet.
            Ok(header) => {
                l.numbers_used = l.numbers_used.max(header.id);
                l.spares.push(path);
            }
            Err(_) if spare.is_some() => l.spares.push(path),
            // A crash while a segment was being made leaves zeros, at most.
            Err(_) if read_file(&path)?.iter().all(|b| *b == 0) => l.spares.push(path),
            Err(_) => match id.and_then(|id| header_from_records(id, &read_file(&path).ok()?)) {
                Some(header) => {
                    findings.headers_rebuilt.push(path.clone());
                    let (bytes, _) = fs::lengths(&path).map_err(cannot_read)?;
                    let last_sequence = header.base_sequence.saturating_sub(1);
                    l.segments.push(SegmentInfo { header, path, last_sequence, bytes });
                }
                None => findings.unreadable.push(path),
            },
        }
    }
    l.segments.sort_by_key(|s| s.header.id);
    lend_incarnations(&mut l.segments);
    set_ends(&mut l.segments);
    Ok(l)
}

/// Says of each segment but the last where it ends: where the next one begins, and no later than those behind it begin. A
/// header that was made from what records are left may have come too late: the first of them were lost, and stand in a later
/// segment if this one was given up.
fn set_ends(segments: &mut [SegmentInfo]) {
    let mut end = u64::MAX;
    for i in (1..segments.len()).rev() {
        end = end.min(segments[i].header.previous_last);
        segments[i - 1].last_sequence = end;
    }
}

/// The highest sequence that counts in each of these segments. The last one may hold anything; one before it ends where the
/// next begins, whatever it has beyond.
pub(super) fn limits(segments: &[SegmentInfo]) -> impl Iterator<Item = (&SegmentInfo, u64)> {
    let last = segments.len().saturating_sub(1);
    segments.iter().enumerate().map(move |(i, s)| (s, if i == last { u64::MAX } else { s.last_sequence }))
}

/// What the records of a segment tell of its header, but for the incarnation; `None` if there are no records.
fn header_from_records(id: u64, bytes: &[u8]) -> Option<SegmentHeader> {
    let (_, first) = record::first(id, bytes, BLOCK_BYTES)?;
    let first = first.header();
    Some(SegmentHeader {
        id,
        incarnation: UNKNOWN_INCARNATION,
        base_sequence: first.sequence,
        base_clock_ns: first.clock_ns.saturating_sub(1),
        created_ns: first.clock_ns,
        shard: 0,
        purpose: match first.kind {
            Kind::DeadLetter => Purpose::DeadLetters,
            Kind::Loss => Purpose::Losses,
            _ => Purpose::Events,
        },
        previous_last: first.sequence.saturating_sub(1),
        // It may have been: then what is behind its end is no damage.
        recycled: true,
    })
}

/// Stands in a header that was told from records.
const UNKNOWN_INCARNATION: u64 = 0;

/// Segments that follow each other mostly come from one opening, so a neighbour's incarnation is the best guess.
fn lend_incarnations(segments: &mut [SegmentInfo]) {
    let known = |s: &SegmentInfo| Some((s.header.incarnation, s.header.shard)).filter(|k| k.0 != UNKNOWN_INCARNATION);
    for i in 0..segments.len() {
        if known(&segments[i]).is_none() {
            let before = segments[..i].iter().rev().find_map(known);
            if let Some(k) = before.or_else(|| segments[i + 1..].iter().find_map(known)) {
                (segments[i].header.incarnation, segments[i].header.shard) = k;
            }
        }
    }
}

/// A segment file as recovery has found it, without what is damaged or torn: the records in their places, marks where one
/// is missing, zeros behind the last.
///
/// It takes the place of the file that was found. A write that was under way when the process was killed may land after
/// recovery has looked, and then in a file that nobody reads any more: what recovery has called lost must not come back
/// when later events have been delivered. A last mark tells up to which sequence all are `used`. The records that are `void`,
/// by place, length and header, become marks.
fn mend(
    header: &SegmentHeader,
    bytes: &[u8],
    found: &Scan,
    void: &[(usize, usize, RecordHeader)],
    used: u64,
) -> (SegmentHeader, Vec<u8>) {
    let header = SegmentHeader { recycled: false, ..*header };
    let mut out = bytes[..found.end.min(bytes.len())].to_vec();
    out.resize((found.end + 2 * record::RECORD_HEADER_BYTES).next_multiple_of(BLOCK_BYTES), 0);
    header.encode(&mut out);
    let (last, clock_ns) = found.last.unwrap_or((header.base_sequence.saturating_sub(1), header.base_clock_ns));
    if used > last {
        let mark = RecordHeader { kind: Kind::Mark, sequence: used, clock_ns, tie: 0 };
        record::encode(header.id, &mark, &[], &Extensions::default(), &[], &mut out[found.end..]);
    }
    for (from, to) in &found.damage {
        out[*from..*to].fill(0);
        let next = match record::parse(header.id, &out[*to..]) {
            Parsed::Record(r) if to - from >= record::RECORD_HEADER_BYTES => r.header(),
            _ => continue,
        };
        // The sequence before the next one is that of a record that was lost.
        let mark = RecordHeader { kind: Kind::Mark, sequence: next.sequence - 1, ..next };
        let body = vec![0; to - from - record::RECORD_HEADER_BYTES];
        record::encode(header.id, &mark, &[], &Extensions::default(), &body, &mut out[*from..*to]);
    }
    for (at, len, header_of) in void {
        let mark = RecordHeader { kind: Kind::Mark, ..*header_of };
        let body = vec![0; len - record::RECORD_HEADER_BYTES];
        record::encode(header.id, &mark, &[], &Extensions::default(), &body, &mut out[*at..at + len]);
    }
    (header, out)
}

/// Finds out what a shard holds. Creates its directories if they are not there. `since` is the present layout, as the shard
/// knows it.
///
/// # Errors
/// If a file cannot be read or was written by a newer version. Damage is no error: it is quarantined and reported.
pub fn recover_shard(dir: &Path, since: Since) -> Result<ShardState> {
    let at_dir = |e: Error| e.at(dir.display().to_string());
    for sub in ["dead", losses::DIRECTORY, "dedup", "quarantine"] {
        fs::create_dir_all(&dir.join(sub)).map_err(|e| at_dir(Error::io("cannot create it", &e)))?;
    }
    let mut findings = Findings::default();
    let cursors = read_cursors(dir, &mut findings)?;
    let Listing { mut segments, spares, numbers_used } = list_files(dir, &mut findings)?;
    let mut clock_floor_ns = cursors.clock_ceiling_ns;
    let mut next_sequence = cursors.next_sequence.max(1);
    for s in &segments {
        clock_floor_ns = clock_floor_ns.max(s.header.base_clock_ns);
        next_sequence = next_sequence.max(s.header.base_sequence);
    }
    for lane in cursors.lanes.values() {
        // A cursor ahead of a damaged log must not make new events look delivered.
        next_sequence = next_sequence.max(lane.high().saturating_add(1));
    }
    let mut checkpoint = Checkpoint::saved(&cursors, since);
    let first = segments.partition_point(|s| s.last_sequence <= checkpoint.look_after());
    let before_last = segments.len().saturating_sub(1);
    for s in segments.get(first..before_last).unwrap_or_default() {
        // Damage here is told when a lane comes to it.
        scan(&s.header, &read_file(&s.path)?, |offset, r| {
            if r.sequence() <= s.last_sequence {
                checkpoint.note(position(s, offset), &r);
            }
        });
    }
    if let Some(last) = segments.last_mut() {
        let durable = checkpoint.through();
        let rebuilt = findings.headers_rebuilt.contains(&last.path);
        if last.header.incarnation == UNKNOWN_INCARNATION {
            // Its header never was durable, so no id of its events was given out.
            last.header.incarnation = random_u64()?;
        }
        let bytes = read_file(&last.path)?;
        // A write that was under way when a process was killed may land when the next one has looked, and has begun no segment
        // after that: what it left out never was.
        let run = cursors.sections.get(&section::RUN).and_then(|b| section::two(b));
        let limit = run.filter(|(first, _)| last.header.id < *first).map_or(u64::MAX, |(_, end)| end);
        let mut void = Vec::new();
        let (mut before, mut gap) = (last.header.base_sequence.saturating_sub(1), false);
        let s = scan(&last.header, &bytes, |offset, r| {
            if r.sequence() > limit {
                return;
            }
            gap |= r.sequence() > before + 1 && r.header().kind != Kind::Mark;
            before = r.sequence();
            // What the host appended after something that was lost will come again, and in order.
            if gap && r.is_extended() && r.extensions().host_cursor.is_some() && r.sequence() > checkpoint.through() {
                void.push((offset, r.padded_len(), r.header()));
            } else {
                checkpoint.note(position(last, offset), &r);
            }
        });
        if let Some((sequence, clock_ns)) = s.last {
            last.last_sequence = sequence.min(limit);
            next_sequence = next_sequence.max(sequence.saturating_add(1));
            clock_floor_ns = clock_floor_ns.max(clock_ns);
        }
        for (from, to) in &s.damage {
            quarantine(dir, last.header.id, *from, &bytes[*from..*to])?;
            findings.damaged += 1;
            findings.damaged_bytes += (to - from) as u64;
        }
        if s.torn_bytes > 0 {
            quarantine(dir, last.header.id, s.end, &bytes[s.end..s.end + s.torn_bytes])?;
            findings.torn_bytes += s.torn_bytes as u64;
        }
        // Sequences of a torn or damaged tail are never used again.
        let torn_max = findings.torn_bytes.div_ceil(record::RECORD_HEADER_BYTES as u64);
        next_sequence = next_sequence.saturating_add(torn_max);
        // What was written but perhaps not synced is taken for durable from now on, so it shall be. A sync would not do: that
        // of the run before may have failed, and then no later one tries again.
        let uncertain = s.last.is_some_and(|(sequence, _)| sequence > durable);
        if uncertain || !s.damage.is_empty() || s.torn_bytes > 0 || rebuilt {
            let (mut header, mut mended) = mend(&last.header, &bytes, &s, &void, next_sequence - 1);
            if let Err(e) = fs::replace(&last.path, &last.path.with_extension("mended"), &mended) {
                // On a full disk there is still the place that it has. What is behind its end there stays.
                log::warn!("{}: it is mended in its place: {e}", last.path.display());
                header.recycled = true;
                header.encode(&mut mended);
                fs::rewrite(&last.path, &mended)
                    .map_err(|e| Error::io("cannot make it durable", &e).at(last.path.display().to_string()))?;
            }
            (last.header, last.bytes) = (header, mended.len() as u64);
        }
    }
    checkpoint.advance(next_sequence - 1);
    let in_doubt = read_intents(&segments, &mut checkpoint, &mut findings)?;
    let saved = cursors.sections.get(&section::NEXT_SEGMENT).and_then(|b| b.as_slice().try_into().ok());
    let next_segment = (numbers_used + 1).max(saved.map_or(1, u64::from_le_bytes));
    let mut dead = dead::recover(&dir.join("dead"), &mut findings)?;
    if let Some((segment, number)) = cursors.sections.get(&section::NEXT_DEAD).and_then(|b| section::two(b)) {
        dead.next = (dead.next.0.max(segment), dead.next.1.max(number));
    }
    let mut losses = dead::recover(&dir.join(losses::DIRECTORY), &mut findings)?;
    if let Some((segment, number)) = cursors.sections.get(&section::LOSSES).and_then(|b| section::two(b)) {
        losses.next = (losses.next.0.max(segment), losses.next.1.max(number));
    }
    let mut dedup_segments = list_segments(&dir.join("dedup"), &mut findings)?;
    let mut next_dedup = (dedup_segments.last().map_or(1, |s| s.header.id + 1), 1);
    let mut dedup = Vec::new();
    for (s, limit) in limits(&dedup_segments) {
        scan(&s.header, &read_file(&s.path)?, |_, r| {
            if r.sequence() <= limit {
                dedup.extend(DedupEntry::decode(r.body()));
                next_dedup.1 = r.sequence().saturating_add(1);
            }
        });
    }
    if let Some(s) = dedup_segments.last_mut() {
        s.last_sequence = next_dedup.1 - 1;
    }
    dedup.extend(checkpoint.dedup());
    Ok(ShardState {
        path: dir.to_owned(),
        segments,
        spares,
        next_segment,
        next_sequence,
        clock_floor_ns,
        cursors,
        dead,
        losses,
        checkpoint,
        in_doubt,
        dedup,
        dedup_segments,
        next_dedup,
        findings,
    })
}

fn position(segment: &SegmentInfo, offset: usize) -> Position {
    Position { segment: segment.header.id, offset: offset as u64 }
}

/// Reads the intents that the checkpoint leaves open. One that is damaged is reported and given up.
fn read_intents(segments: &[SegmentInfo], checkpoint: &mut Checkpoint, findings: &mut Findings) -> Result<Vec<Intent>> {
    let open: Vec<(u64, Position)> = checkpoint.intents().collect();
    let mut intents = Vec::new();
    for (sequence, at) in open {
        let segment = segments.iter().find(|s| s.header.id == at.segment);
        match segment.map(|s| read_intent(s, sequence, at.offset)).transpose()?.flatten() {
            Some(intent) => intents.push(intent),
            None => {
                log::error!("segment {:016x} at byte {}: the intent {sequence} is damaged", at.segment, at.offset);
                checkpoint.forget_intent(sequence);
                findings.damaged += 1;
            }
        }
    }
    Ok(intents)
}

fn read_intent(segment: &SegmentInfo, sequence: u64, offset: u64) -> Result<Option<Intent>> {
    let mut want = BLOCK_BYTES;
    loop {
        let bytes = fs::read_at(&segment.path, offset, want)
            .map_err(|e| Error::io("cannot read it", &e).at(segment.path.display().to_string()))?;
        match record::parse(segment.header.id, &bytes) {
            Parsed::Short(need) if bytes.len() == want => want = need,
            Parsed::Record(r)
                if r.sequence() == sequence
                    && r.header().kind == record::Kind::Intent
                    && FrameView::parse(r.body()).is_ok() =>
            {
                return Ok(Some(Intent {
                    sequence,
                    incarnation: segment.header.incarnation,
                    accepted_ns: r.header().clock_ns,
                    frame: r.body().to_vec(),
                }));
            }
            _ => return Ok(None),
        }
    }
}

fn read_file(path: &Path) -> Result<Vec<u8>> {
    fs::read_log(path).map_err(|e| Error::io("cannot read it", &e).at(path.display().to_string()))
}

/// Copies damaged bytes to `quarantine/`, so that what was lost can be looked at; at most as many as the largest record
/// has. Answers whether this is news: the same place may be read again by each lane and after each opening.
///
/// # Errors
/// If the copy cannot be written.
pub fn quarantine(dir: &Path, segment: u64, offset: usize, bytes: &[u8]) -> Result<bool> {
    let path = dir.join("quarantine").join(format!("{segment:016x}-{offset:08x}.bin"));
    let news = !fs::exists(&path);
    let bytes = &bytes[..bytes.len().min(record::RECORD_BYTES_MAX)];
    fs::write(&path, bytes).map_err(|e| Error::io("cannot write it", &e).at(path.display().to_string()))?;
    Ok(news)
}

/// The names of the two cursor files; generation `n` goes into the one at `n % 2`.
pub const CURSOR_FILES: [&str; 2] = ["cursor.a", "cursor.b"];

/// Two numbers that were saved with the cursors of a shard.
pub(crate) fn saved_numbers(dir: &Path, tag: u16) -> Result<Option<(u64, u64)>> {
    let cursors = read_cursors(dir, &mut Findings::default())?;
    Ok(cursors.sections.get(&tag).and_then(|b| section::two(b)))
}

pub(crate) fn read_cursors(dir: &Path, findings: &mut Findings) -> Result<Cursors> {
    match newest_cursors(dir, findings)? {
        Some((_, bytes)) => Cursors::decode(&bytes),
        None => Ok(Cursors::default()),
    }
}

/// The file of the two that counts, with its contents.
pub(crate) fn newest_cursors(dir: &Path, findings: &mut Findings) -> Result<Option<(&'static str, Vec<u8>)>> {
    let mut best = None;
    let mut generation = 0;
    for name in CURSOR_FILES {
        let path = dir.join(name);
        let bytes = match fs::read(&path) {
            Ok(b) => b,
            Err(e) if e.kind() == IoKind::NotFound => continue,
            Err(e) => return Err(Error::io("cannot read it", &e).at(path.display().to_string())),
        };
        match Cursors::decode(&bytes) {
            Ok(c) if c.generation >= generation => {
                generation = c.generation;
                best = Some((name, bytes));
            }
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
        let mut a = Appender::new(plan, id, 0, 1, 0);
        for _ in 0..records {
            a.append(Kind::Event, &[], &vec![id as u8; body], 1);
        }
        let mut bytes = a.take().map(|g| g.bytes).unwrap_or_default();
        bytes.padded(record::RECORD_HEADER_BYTES).to_vec()
    }

    fn recycled() -> (SegmentHeader, Vec<u8>, usize) {
        let mut file = segment(1, 100, 700);
        let new = segment(2, 7, 900);
        file[..new.len()].copy_from_slice(&new);
        let mut header = SegmentHeader::decode(&file).unwrap();
        header.recycled = true;
        (header, file, new.len())
    }

    /// The segment 2 was given up, its first records and its header were lost; they are in 3.
    #[test]
    fn a_segment_does_not_end_behind_where_a_later_one_begins() {
        let (header, _, _) = recycled();
        let of = |id, base, previous_last| SegmentInfo {
            header: SegmentHeader { id, base_sequence: base, previous_last, ..header },
            path: PathBuf::new(),
            last_sequence: base - 1,
            bytes: 0,
        };
        let mut all = [of(1, 1, 0), of(2, 15, 14), of(3, 12, 11), of(4, 58, 57)];
        set_ends(&mut all);
        assert_eq!(all.each_ref().map(|s| s.last_sequence), [11, 11, 57, 57]);
    }

    #[test]
    fn what_an_earlier_segment_left_in_a_recycled_file_is_no_damage() {
        let (header, file, _) = recycled();
        let s = scan(&header, &file, |_, _| ());
        assert_eq!((s.records, s.damage.len(), s.torn_bytes), (7, 0, 0));
    }

    #[test]
    fn a_mended_file_has_what_was_found_and_no_more() {
        let (header, mut file, end) = recycled();
        file[BLOCK_BYTES + 1500] ^= 1; // The second record.
        file[end - 2000] ^= 1; // The last.
        let mut found = Vec::new();
        let s = scan(&header, &file, |at, r| found.push((at, r.sequence(), r.body().to_vec())));
        assert!(s.torn_bytes > 0 && s.damage.len() == 1);
        let (header, mended) = mend(&header, &file, &s, &[], 20);
        assert_eq!(SegmentHeader::decode(&mended).unwrap(), header);
        assert!(!header.recycled && mended.len() % BLOCK_BYTES == 0);
        let (mut again, mut marks) = (Vec::new(), 0);
        let s = scan(&header, &mended, |at, r| match r.header().kind {
            Kind::Mark => marks += 1,
            _ => again.push((at, r.sequence(), r.body().to_vec())),
        });
        assert_eq!((again, marks, s.damage.len(), s.torn_bytes), (found, 2, 0, 0));
        assert_eq!(s.last.map(|l| l.0), Some(20));
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
