//! What the log tells of the past: the history of a key, and the objects of a bucket at a time.

use std::path::Path;

use super::BLOCK_BYTES;
use super::reader::{Gap, Item, LogReader, ReadFrom, segment_ids};
use super::recovery::{self, Findings, read_cursors, shard_path};
use super::segment::SegmentHeader;
use super::state::{Objects, source_key};
use crate::driver::fs;
use crate::error::{Error, Result};
use crate::event::frame::Field;
use crate::event::{EventType, FrameView, KnownType};

/// Since when the log of a directory is complete: `None` if it reaches back to the beginning, else ns since the epoch.
/// Events that no rule wanted were never in it.
///
/// # Errors
/// As [`LogReader::open`].
pub fn complete_since(data_dir: &Path) -> Result<Option<u64>> {
    let mut since = None;
    for shard in 0..recovery::inspect(data_dir)?.shards {
        let dir = shard_path(data_dir, shard);
        let mut begins = None;
        for id in segment_ids(&dir)? {
            let path = dir.join(SegmentHeader::file_name(id));
            let block = match fs::read_front(&path, BLOCK_BYTES) {
                Ok(block) => block,
                // Removed since it was listed; the next one tells.
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
                Err(e) => return Err(Error::io("cannot read it", &e).at(path.display().to_string())),
            };
            if let Ok(h) = SegmentHeader::decode(&block) {
                begins = Some((h.base_sequence, h.base_clock_ns));
                break;
            }
        }
        let cursors = read_cursors(&dir, &mut Findings::default())?;
        match begins {
            Some((0 | 1, _)) => {}
            Some((_, clock_ns)) => since = since.max(Some(clock_ns)),
            None if cursors.next_sequence > 1 => since = since.max(Some(cursors.clock_ceiling_ns)),
            None => {}
        }
    }
    Ok(since)
}

/// The events of one resource key, oldest first, as an iterator: see [`history`].
#[derive(Debug)]
pub struct History {
    reader: LogReader,
    limits: Option<Vec<u64>>,
    bucket: String,
    key: Vec<u8>,
    /// As [`complete_since`] says.
    pub complete_since_ns: Option<u64>,
    failed: bool,
}

/// Every event of a resource key that the log still has, and those that renamed the key to another. What is damaged comes
/// as a gap in its place. Reads the whole log; takes no lock.
///
/// # Errors
/// As [`LogReader::open`].
pub fn history(data_dir: &Path, bucket: &str, key: &[u8]) -> Result<History> {
    history_with(data_dir, LogReader::open(data_dir, &ReadFrom::Beginning)?, None, bucket, key)
}

pub(crate) fn history_with(
    data_dir: &Path,
    reader: LogReader,
    limits: Option<Vec<u64>>,
    bucket: &str,
    key: &[u8],
) -> Result<History> {
    Ok(History {
        reader,
        limits,
        bucket: bucket.to_owned(),
        key: key.to_vec(),
        complete_since_ns: complete_since(data_dir)?,
        failed: false,
    })
}

impl Iterator for History {
    type Item = Result<Item>;

    fn next(&mut self) -> Option<Result<Item>> {
        if self.failed {
            return None;
        }
        let (bucket, key) = (&self.bucket, &self.key);
        let result =
            self.reader.next_settled(self.limits.as_deref(), &mut |frame| concerns(frame, bucket, key)).transpose();
        self.failed = result.as_ref().is_some_and(Result::is_err);
        result
    }
}

fn concerns(frame: &FrameView<'_>, bucket: &str, key: &[u8]) -> bool {
    frame.bucket() == bucket
        && (frame.key() == key
            || frame.event_type() == EventType::Known(KnownType::ObjectRenamed)
                && source_key(frame.field(Field::Data)).is_some_and(|s| s.as_bytes() == key))
}

/// The objects of a bucket at a time: see [`state_at`].
#[derive(Debug)]
pub struct State {
    /// The objects.
    pub objects: Objects,
    /// The log is complete since then, ns since the epoch; `None` if since the beginning. If this is later than when the
    /// bucket was made, objects from before may be missing.
    pub complete_since_ns: Option<u64>,
    /// What was missing on the way.
    pub gaps: Vec<Gap>,
}

/// The objects of a bucket whose keys begin with `prefix`, after every event that was accepted up to `at_ns` (ns since the
/// epoch). Reads the whole log up to then; takes no lock. Memory grows with the number of objects.
///
/// # Errors
/// As [`LogReader::open`].
pub fn state_at(data_dir: &Path, bucket: &str, prefix: &[u8], at_ns: u64) -> Result<State> {
    state_with(data_dir, LogReader::open(data_dir, &ReadFrom::Beginning)?, None, bucket, prefix, at_ns)
}

pub(crate) fn state_with(
    data_dir: &Path,
    mut reader: LogReader,
    limits: Option<&[u64]>,
    bucket: &str,
    prefix: &[u8],
    at_ns: u64,
) -> Result<State> {
    let complete_since_ns = complete_since(data_dir)?;
    let mut objects = Objects::new(bucket, prefix);
    let mut gaps = Vec::new();
    while let Some(item) = reader.next_settled(limits, &mut |frame| objects.wants(frame))? {
        match item {
            Item::Entry(e) if e.clock.0 > at_ns => break,
            Item::Entry(e) => objects.apply(&e.frame(), e.id, e.sequencer),
            Item::Gap(g) if g.since_ns.is_some_and(|since| since > at_ns) => {}
            Item::Gap(g) => gaps.push(g),
        }
    }
    Ok(State { objects, complete_since_ns, gaps })
}
