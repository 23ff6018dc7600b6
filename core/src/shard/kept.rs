//! A log beside the main one: dead letters, losses. Its segments are kept within bounds; the oldest go as a whole.

use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};

use super::commit::SegmentFiles;
use crate::driver::{self, wall_ns};
use crate::error::Result;
use crate::log::appender::{Appender, Group, SegmentPlan};
use crate::log::dead::{self, KeptSegment, KeptState};
use crate::log::record::{Extensions, Kind};
use crate::log::recovery::SegmentInfo;
use crate::log::segment::SegmentHeader;
use crate::log::taken::Taken;

/// See the module. One task appends and writes; others may take segments out that are not being written.
pub(super) struct KeptLog {
    dir: PathBuf,
    zero_ahead_bytes: u64,
    appender: RefCell<Appender>,
    files: SegmentFiles,
    /// All that are kept, in order; the last one is being written if `active`.
    pub(super) segments: RefCell<Vec<KeptSegment>>,
    active: Cell<bool>,
}

impl KeptLog {
    pub(super) fn new(
        dir: PathBuf,
        state: KeptState,
        clock_floor_ns: u64,
        plan: SegmentPlan,
        zero_ahead_bytes: u64,
    ) -> KeptLog {
        let (segment, number) = state.next;
        KeptLog {
            appender: RefCell::new(Appender::new(plan, segment, number, clock_floor_ns)),
            files: SegmentFiles::new(dir.clone(), Vec::new(), zero_ahead_bytes),
            dir,
            zero_ahead_bytes,
            segments: RefCell::new(state.segments),
            active: Cell::new(false),
        }
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The numbers of the next segment and the next record.
    pub(super) fn next(&self) -> (u64, u64) {
        let appender = self.appender.borrow();
        (appender.next_segment(), appender.next_sequence())
    }

    pub(super) fn append(&self, kind: Kind, extensions: &Extensions, body: &[u8], wall: u64) {
        self.appender.borrow_mut().append_extended(kind, &[], extensions, body, wall);
    }

    /// Bytes that were appended and not taken for writing.
    pub(super) fn pending_bytes(&self) -> usize {
        self.appender.borrow().pending_bytes()
    }

    /// The next group to write. It must be written before any later one.
    pub(super) fn take(&self) -> Option<Group> {
        self.appender.borrow_mut().take()
    }

    /// Writes a group and notes what is in its segment now.
    pub(super) async fn write(&self, group: &Group) -> Result<()> {
        self.files.write(group).await?;
        // Of the files, only the one being written concerns them; what is kept is noted here.
        self.files.take_passed(u64::MAX, false);
        let mut segments = self.segments.borrow_mut();
        if let Some(header) = group.new_segment {
            let path = self.dir.join(SegmentHeader::file_name(header.id));
            let info = SegmentInfo { header, path, last_sequence: header.base_sequence.saturating_sub(1) };
            let taken = Taken::new(header.id, header.base_sequence);
            segments.push(KeptSegment { info, taken, bytes: 0, newest_ns: 0 });
            self.active.set(true);
        }
        if let Some(s) = segments.last_mut() {
            s.info.last_sequence = group.last_sequence;
            s.bytes = group.end().offset.next_multiple_of(self.zero_ahead_bytes);
            s.newest_ns = wall_ns();
        }
        Ok(())
    }

    pub(super) fn recycle(&self, group: Group) {
        self.appender.borrow_mut().recycle(group);
    }

    pub(super) async fn sync(&self) -> Result<()> {
        self.files.sync().await
    }

    /// Ends the segment that is being written, so that it can be taken out, or because it cannot be written.
    pub(super) async fn end_segment(&self) {
        self.appender.borrow_mut().end_segment();
        self.files.close().await;
        self.active.set(false);
    }

    pub(super) async fn close(&self) {
        self.files.close().await;
    }

    /// Bytes of all files.
    pub(super) fn bytes(&self) -> u64 {
        self.segments.borrow().iter().map(|s| s.bytes).sum()
    }

    /// Whether only the segment that is being written is there.
    pub(super) fn is_only_active(&self) -> bool {
        self.active.get() && self.segments.borrow().len() == 1
    }

    /// Takes the first segment that `which` chooses out of the list, unless it is being written.
    pub(super) fn take_out(&self, which: impl Fn(&KeptSegment) -> bool) -> Option<KeptSegment> {
        let mut segments = self.segments.borrow_mut();
        let n = segments.len() - usize::from(self.active.get());
        let at = segments[..n].iter().position(which)?;
        Some(segments.remove(at))
    }

    /// Removes the files of a segment that was taken out.
    pub(super) async fn remove_files(&self, s: KeptSegment) {
        let (path, id) = (s.info.path, s.info.header.id);
        if let Err(e) = driver::blocking(move || dead::remove_segment(&path, id)).await {
            // It is found again at the next open.
            log::error!("{e}");
        }
    }
}
