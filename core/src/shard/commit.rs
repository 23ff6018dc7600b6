//! Commit: groups become durable, then their events go to the lanes. And the segment files that this needs.

use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::Shard;
use crate::driver::fs::sync_dir;
use crate::driver::{self, DiskFile};
use crate::error::{Error, ErrorKind, Result};
use crate::log::appender::{Group, Position};
use crate::log::record::RECORD_HEADER_BYTES;
use crate::log::recovery::SegmentInfo;
use crate::log::segment::SegmentHeader;
use crate::log::{Ack, BLOCK_BYTES};

/// Zeros are written so far ahead of the data, at a time: a write into zeros that are there already leaves the file
/// system nothing to record, which makes the sync several times faster than one of a growing file.
pub(super) const ZERO_AHEAD_BYTES: u64 = 4 << 20;
/// Time between writes while nobody waits for one: a write for each handful of events would cost the disk and every core
/// (an interrupt, a kernel worker) more than the events themselves. After a pause an event is written at once.
const LINGER: Duration = Duration::from_millis(1);
/// How often a full disk is tried again.
const NO_SPACE_RETRY: Duration = Duration::from_millis(500);

impl Shard {
    /// Writes groups until nobody appends any more and everything is durable.
    pub(super) async fn commit(self: Rc<Self>) {
        let progress = &self.shared.progress;
        let stats = &self.shared.stats;
        let mut unsynced_since: Option<Instant> = None;
        let mut written = progress.written();
        let mut written_sequence = self.durable.get();
        let mut last_write = driver::now();
        loop {
            let ended = self.ingest_ended.get();
            if !ended && self.appender.borrow().may_linger() && driver::since(last_write) < LINGER {
                self.lingering.set(true);
                let _ = driver::until(last_write + LINGER, self.commit_wanted.notified()).await;
                self.lingering.set(false);
            }
            let group = self.appender.borrow_mut().take();
            if let Some(group) = group {
                let mut wants_sync = group.wants == Ack::Synced;
                if group.records > 0 {
                    if let Err(e) = self.write_group(&group).await {
                        self.fail(e);
                        break;
                    }
                    last_write = driver::now();
                    stats.commits.add(1);
                    stats.log_bytes.add((group.bytes.len() - group.fresh) as u64);
                    unsynced_since.get_or_insert_with(driver::now);
                    written_sequence = group.last_sequence;
                    self.dispatch(&group);
                }
                written = written.max(group.ring_position);
                self.appender.borrow_mut().recycle(group);
                self.commit_took.notify();
                let synced = if unsynced_since.is_none() { written } else { progress.synced() };
                if self.unaudited.replace(false) {
                    self.write_losses().await;
                }
                progress.advance(written, synced);
                wants_sync &= unsynced_since.is_some();
                if !wants_sync && unsynced_since.is_none_or(|t| driver::since(t) < self.config.log.sync_interval) {
                    continue;
                }
            } else if unsynced_since.is_none() {
                if ended {
                    self.has_drained();
                    if self.appending_ended.get() {
                        break;
                    }
                }
                self.commit_wanted.notified().await;
                continue;
            } else if !ended {
                // Nothing to write: sync when it is due, or when somebody comes who waits.
                let due = unsynced_since.map_or(driver::now(), |t| t + self.config.log.sync_interval);
                if driver::until(due, self.commit_wanted.notified()).await.is_some() {
                    continue;
                }
            }
            let (sync_covers, durable) = (written, written_sequence);
            if let Err(e) = self.files.sync().await {
                self.fail(e);
                break;
            }
            stats.syncs.add(1);
            unsynced_since = None;
            progress.advance(written, sync_covers);
            self.is_durable(durable);
        }
        self.nothing_more_is_durable();
    }

    /// Writes a group, waiting for space if there is none.
    async fn write_group(self: &Rc<Self>, group: &Group) -> Result<()> {
        let mut stalled = false;
        loop {
            match self.files.write(group).await {
                Ok(()) => {
                    if stalled {
                        log::warn!("shard {}: the log goes on", self.shared.index);
                        self.shared.progress.set_stalled(None);
                    }
                    self.shared.stats.segments.set(self.files.len() as u64);
                    return Ok(());
                }
                Err(e) if e.kind() == ErrorKind::NoSpace && self.close.get().is_none() => {
                    if !stalled {
                        log::error!("shard {}: the log waits: {e}", self.shared.index);
                        self.shared.progress.set_stalled(Some(e));
                        stalled = true;
                        // What is written already need not wait for space.
                        self.files.sync().await?;
                    }
                    driver::sleep(NO_SPACE_RETRY).await;
                    // Ingest may be waiting for this task, and cannot hear that the engine closes.
                    self.obey();
                }
                Err(e) => {
                    return Err(Error::new(
                        ErrorKind::LogFailed,
                        format!("the log failed and takes no more events: {}", e.message()),
                    )
                    .at(format!("shard {}", self.shared.index))
                    .remedy("mend the disk and open the engine again; what was acknowledged as synced is kept"));
                }
            }
        }
    }
}

/// The segments of a shard: the one being written, and those before it.
pub(super) struct SegmentFiles {
    dir: PathBuf,
    /// In order; the last one is being written if `active` is there.
    segments: RefCell<Vec<SegmentInfo>>,
    active: RefCell<Option<Rc<DiskFile>>>,
    zero_ahead_bytes: u64,
    /// Up to here the active file holds zeros or data.
    zeroed: Cell<u64>,
    /// After the last record that was written.
    end: Cell<Option<Position>>,
}

impl SegmentFiles {
    /// The segments found in `dir`; `zero_ahead_bytes` is a multiple of a block.
    pub(super) fn new(dir: PathBuf, segments: Vec<SegmentInfo>, zero_ahead_bytes: u64) -> SegmentFiles {
        SegmentFiles {
            dir,
            segments: RefCell::new(segments),
            active: RefCell::new(None),
            zero_ahead_bytes,
            zeroed: Cell::new(0),
            end: Cell::new(None),
        }
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn len(&self) -> usize {
        self.segments.borrow().len()
    }

    /// After the last record written since the engine was opened.
    pub(super) fn end(&self) -> Option<Position> {
        self.end.get()
    }

    /// Writes a group to where it belongs.
    pub(super) async fn write(&self, group: &Group) -> Result<()> {
        if let Some(header) = &group.new_segment {
            self.begin(header).await?;
        }
        let Some(file) = self.active.borrow().clone() else {
            return Err(Error::new(ErrorKind::Internal, "a group without a segment"));
        };
        let path = || self.dir.join(SegmentHeader::file_name(group.segment)).display().to_string();
        // At least one header of zeros behind the last record: there the segment ends, whatever the file held before.
        let padded = (group.bytes.len() + RECORD_HEADER_BYTES).next_multiple_of(BLOCK_BYTES);
        let end = group.offset + padded as u64;
        while self.zeroed.get() < end {
            let mut zeros = driver::allocate_buffer(self.zero_ahead_bytes as usize);
            zeros.as_bytes_mut().fill(0);
            file.write_at(Rc::new(zeros), self.zeroed.get())
                .await
                .map_err(|e| Error::io("cannot write the log", &e).at(path()))?;
            self.zeroed.set(self.zeroed.get() + self.zero_ahead_bytes);
        }
        let mut buf = driver::allocate_buffer(padded);
        let (data, rest) = buf.as_bytes_mut().split_at_mut(group.bytes.len());
        data.copy_from_slice(&group.bytes);
        rest.fill(0);
        file.write_at(Rc::new(buf), group.offset)
            .await
            .map_err(|e| Error::io("cannot write the log", &e).at(path()))?;
        if let Some(s) = self.segments.borrow_mut().last_mut() {
            s.last_sequence = group.last_sequence;
        }
        self.end.set(Some(group.end()));
        Ok(())
    }

    /// Makes everything written durable. Must not be tried again after a failure: the kernel may have dropped the data.
    pub(super) async fn sync(&self) -> Result<()> {
        let Some(file) = self.active.borrow().clone() else { return Ok(()) };
        file.sync_data().await.map_err(|e| {
            Error::new(ErrorKind::LogFailed, format!("the log could not be made durable: {e}"))
                .at(self.dir.display().to_string())
                .remedy("mend the disk and open the engine again; what was acknowledged as synced is kept")
        })
    }

    /// Starts a segment file; the one before is made durable and closed.
    async fn begin(&self, header: &SegmentHeader) -> Result<()> {
        let path = self.dir.join(SegmentHeader::file_name(header.id));
        if self.segments.borrow().last().is_some_and(|s| s.header.id == header.id) {
            return Ok(()); // A second try after the disk was full.
        }
        self.sync().await?;
        let previous = self.active.borrow_mut().take();
        if let Some(file) = previous.and_then(Rc::into_inner) {
            let _ = file.close().await;
        }
        let at = |e: Error| e.at(path.display().to_string());
        let _ = driver::fs::remove_file(&path); // What a failed try left; no segment of this number has records.
        let file = DiskFile::create_new(&path).await.map_err(|e| at(Error::io("cannot create a segment", &e)))?;
        let dir = self.dir.clone();
        driver::blocking(move || sync_dir(&dir).map_err(|e| Error::io("cannot sync the directory", &e)))
            .await
            .map_err(at)?;
        self.zeroed.set(0);
        *self.active.borrow_mut() = Some(Rc::new(file));
        self.segments.borrow_mut().push(SegmentInfo {
            header: *header,
            path,
            last_sequence: header.base_sequence.saturating_sub(1),
        });
        Ok(())
    }

    /// All segments, in order.
    pub(super) fn all(&self) -> Vec<SegmentInfo> {
        self.segments.borrow().clone()
    }

    /// The segment of a number, or the first one after it. One that was begun, and into which the first group is being
    /// written, is not there yet: what it holds has not been handed to the lanes.
    pub(super) fn at_or_after(&self, id: u64) -> Option<SegmentInfo> {
        let written = |s: &&SegmentInfo| s.header.id >= id && s.last_sequence >= s.header.base_sequence;
        self.segments.borrow().iter().find(written).cloned()
    }

    /// The segment that a sequence is in, or the first one that could hold a later one.
    pub(super) fn containing(&self, sequence: u64) -> Option<SegmentInfo> {
        self.segments.borrow().iter().find(|s| s.last_sequence >= sequence).cloned()
    }

    /// Takes out the segments whose records are all at most `passed`; the one being written stays unless `also_active`.
    pub(super) fn take_passed(&self, passed: u64, also_active: bool) -> Vec<SegmentInfo> {
        let mut segments = self.segments.borrow_mut();
        let keep_last = usize::from(self.active.borrow().is_some() && !also_active);
        let n = segments.len().saturating_sub(keep_last);
        let passed = segments[..n].iter().take_while(|s| s.last_sequence <= passed).count();
        segments.drain(..passed).collect()
    }

    pub(super) async fn close(&self) {
        let file = self.active.borrow_mut().take();
        if let Some(file) = file.and_then(Rc::into_inner) {
            let _ = file.close().await;
        }
    }
}
