//! Housekeeping: cursors are saved, passed segments removed, idle connections closed.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Shard;
use super::commit::SegmentFiles;
use crate::driver::wall_ns;
use crate::driver::{self, DiskFile};
use crate::error::{Error, ErrorKind, Result};
use crate::log::BLOCK_BYTES;
use crate::log::appender::{Appender, Group, SegmentPlan};
use crate::log::checkpoint::DedupEntry;
use crate::log::cursor::{Cursor, Cursors, section};
use crate::log::record::Kind;
use crate::log::recovery::{CURSOR_FILES, ShardState};

/// Clock readings are promised so far ahead, so that the promise is renewed seldom.
pub(super) const CLOCK_AHEAD_NS: u64 = 2_000_000_000;
const EXPIRE_EVERY: Duration = Duration::from_secs(1);

/// Size of a file of keys.
const DEDUP_SEGMENT_BYTES: u64 = 1 << 20;
const DEDUP_ENTRIES_PER_RECORD: usize = 4096;
const DEDUP_ZERO_AHEAD_BYTES: u64 = 64 * 1024;

/// The files that keep the keys of repeats when the log has let go of their events.
pub(super) struct DedupFiles {
    appender: RefCell<Appender>,
    files: SegmentFiles,
    /// What could not be written.
    unwritten: RefCell<Option<Group>>,
    /// The keys of the records up to here were handed to the appender.
    handed: Cell<u64>,
}

impl DedupFiles {
    pub(super) fn new(state: &ShardState, plan: SegmentPlan) -> DedupFiles {
        let (segment, sequence) = state.next_dedup;
        let plan = SegmentPlan { bytes_max: DEDUP_SEGMENT_BYTES, ..plan };
        DedupFiles {
            appender: RefCell::new(Appender::new(plan, segment, sequence, 0)),
            files: SegmentFiles::new(state.path.join("dedup"), state.dedup_segments.clone(), DEDUP_ZERO_AHEAD_BYTES),
            unwritten: RefCell::new(None),
            handed: Cell::new(0),
        }
    }

    pub(super) async fn close(&self) {
        self.files.close().await;
    }
}

impl Shard {
    /// Saves cursors while they move, until the shard stops.
    pub(super) async fn housekeeping(self: Rc<Self>) {
        let mut saved = Vec::new();
        let mut expired = driver::now();
        while !self.stopping.get() {
            let _ = driver::within(self.config.delivery.cursor_interval, self.house_wake.notified()).await;
            self.note_host_cursor();
            let marks = self.cursor_marks();
            // A promise is renewed only while readings are given out.
            let clock_due = self.appender.borrow().clock_ns() + CLOCK_AHEAD_NS / 2 > self.clock_ceiling_ns.get();
            if marks != saved || clock_due {
                match self.save_cursors(CLOCK_AHEAD_NS).await {
                    Ok(()) => {
                        saved = marks;
                        self.remove_passed_segments(false).await;
                    }
                    Err(e) => {
                        log::error!("shard {}: {e}", self.shared.index);
                        driver::sleep(Duration::from_secs(1)).await;
                    }
                }
            }
            if driver::since(expired) > EXPIRE_EVERY {
                expired = driver::now();
                for slot in self.lanes.borrow().values() {
                    if let Some(c) = slot.connector() {
                        c.expire(expired);
                    }
                }
            }
        }
    }

    /// What tells whether cursors have moved since they were saved, cheaply.
    fn cursor_marks(&self) -> Vec<(u64, u64)> {
        let head = self.dispatched.get();
        let mut marks: Vec<(u64, u64)> = self.lanes.borrow().values().map(|s| s.marks(head)).collect();
        let checkpoint = self.checkpoint.borrow();
        marks.push((checkpoint.low(), checkpoint.host_cursor()));
        marks.push((checkpoint.dedup().len() as u64, 0));
        marks
    }

    /// Takes note of how far the host has come with what it appends by its own cursor: once the ring is consumed up to
    /// where it ended when the cursor was read, the shard has everything up to the cursor, also if it was given nothing.
    pub(super) fn note_host_cursor(&self) {
        let ring = &self.shared.ring;
        loop {
            if self.checkpoint.borrow().awaits_host_cursor() {
                return;
            }
            match self.host_cursor_at.get() {
                None => {
                    let cursor = self.shared.common.host_cursor.load(Ordering::Acquire);
                    if cursor <= self.checkpoint.borrow().host_cursor() {
                        return;
                    }
                    self.host_cursor_at.set(Some((cursor, ring.tail())));
                }
                Some((cursor, position)) if ring.head() >= position => {
                    self.host_cursor_at.set(None);
                    let sequence = self.appender.borrow().next_sequence() - 1;
                    self.checkpoint.borrow_mut().note_host_cursor(sequence, cursor);
                }
                Some(_) => return,
            }
        }
    }

    /// Writes the cursors of all lanes, in turn into one of two files, and the promise that no clock reading more than
    /// `clock_ahead_ns` above the present one is given out before the next save.
    pub(super) async fn save_cursors(&self, clock_ahead_ns: u64) -> Result<()> {
        if let Err(e) = self.save_dedup().await {
            // Not a reason to keep the cursors, and with them segments that could make room: the log has the keys.
            log::error!("shard {}: {e}", self.shared.index);
        }
        let head = self.dispatched.get();
        let generation = self.saved_generation.get() + 1;
        let clock_ns = self.appender.borrow().clock_ns();
        let clock_ceiling_ns = if clock_ahead_ns == 0 { clock_ns } else { clock_ns.max(wall_ns()) + clock_ahead_ns };
        let mut cursors = Cursors {
            generation,
            next_sequence: self.appender.borrow().next_sequence(),
            clock_ceiling_ns,
            lanes: self.lanes.borrow().iter().map(|(n, s)| (*n, s.cursor(head))).collect(),
            sections: [(section::NEXT_SEGMENT, self.appender.borrow().next_segment().to_le_bytes().to_vec())].into(),
        };
        let (checkpoint_low, host_cursor) = {
            let checkpoint = self.checkpoint.borrow();
            checkpoint.save(&mut cursors.sections);
            (checkpoint.low(), checkpoint.host_cursor())
        };
        let bytes = cursors.encode();
        let path = self.files.dir().join(CURSOR_FILES[(generation % 2) as usize]);
        let place = |e| Error::io("cannot save the cursors", &e).at(path.display().to_string());
        let file = DiskFile::open_or_create(&path).await.map_err(place)?;
        let padded = bytes.len().next_multiple_of(BLOCK_BYTES);
        let mut buf = driver::allocate_buffer(padded);
        buf.as_bytes_mut()[..bytes.len()].copy_from_slice(&bytes);
        buf.as_bytes_mut()[bytes.len()..].fill(0);
        let mut result = file.write_at(Rc::new(buf), 0).await;
        if result.is_ok() {
            result = file.sync_data().await;
        }
        let _ = file.close().await;
        result.map_err(place)?;
        if generation <= 2 {
            let dir = self.files.dir().to_owned();
            driver::blocking(move || {
                driver::fs::sync_dir(&dir).map_err(|e| Error::io("cannot sync the directory", &e))
            })
            .await?;
        }
        self.saved_generation.set(generation);
        self.clock_ceiling_ns.set(clock_ceiling_ns);
        let lanes_low = cursors.lanes.values().map(Cursor::low).min().unwrap_or(head);
        self.saved.set(lanes_low.min(checkpoint_low));
        self.shared.host_cursor_saved.store(host_cursor, Ordering::Release);
        Ok(())
    }

    /// Appends the keys of repeats to those that are kept, and lets go of files whose keys are all older than the window.
    async fn save_dedup(&self) -> Result<()> {
        let window_ns = self.config.dedup.window.as_nanos() as u64;
        let DedupFiles { appender, files, unwritten, handed } = &self.dedup_files;
        let entries = {
            let mut checkpoint = self.checkpoint.borrow_mut();
            let entries = checkpoint.take_dedup();
            if window_ns == 0 || (entries.is_empty() && unwritten.borrow().is_none()) {
                let through = checkpoint.through();
                checkpoint.dedup_saved(through);
                return Ok(());
            }
            handed.set(checkpoint.through());
            entries
        };
        let wall = wall_ns();
        for chunk in entries.chunks(DEDUP_ENTRIES_PER_RECORD) {
            appender.borrow_mut().append(Kind::Mark, &[], &DedupEntry::encode(chunk), wall);
        }
        loop {
            let group = unwritten.take().or_else(|| appender.borrow_mut().take());
            let Some(group) = group else { break };
            if let Err(e) = files.write(&group).await {
                // It must be written before any later one.
                unwritten.replace(Some(group));
                return Err(e);
            }
            appender.borrow_mut().recycle(group);
        }
        files.sync().await?;
        self.checkpoint.borrow_mut().dedup_saved(handed.get());
        let most = self.config.dedup.entries_max as u64 * DedupEntry::BYTES as u64 / DEDUP_SEGMENT_BYTES + 2;
        for s in files.take_older(wall.saturating_sub(window_ns), most as usize) {
            let path = s.path.clone();
            driver::blocking(move || {
                driver::fs::remove_file(&path)
                    .map_err(|e| Error::io("cannot remove it", &e).at(path.display().to_string()))
            })
            .await?;
        }
        Ok(())
    }

    /// Removes the segments that every lane has passed by its saved cursor.
    pub(super) async fn remove_passed_segments(&self, also_active: bool) {
        let passed = self.saved.get();
        if also_active && passed >= self.dispatched.get() {
            self.files.close().await;
        }
        let segments = self.files.take_passed(passed, also_active);
        self.shared.stats.segments.set(self.files.len() as u64);
        for s in segments {
            let path = s.path.clone();
            let removed = driver::blocking(move || {
                driver::fs::remove_file(&path)
                    .map_err(|e| Error::new(ErrorKind::Io, format!("cannot remove {}: {e}", path.display())))
            })
            .await;
            if let Err(e) = removed {
                log::error!("shard {}: {e}", self.shared.index);
            }
        }
    }
}
