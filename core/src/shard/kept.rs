//! A journal of which much is kept: dead letters, losses. Its segments are kept within bounds; the oldest go as a whole.

use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::files::{FilesPlan, SegmentFiles};
use super::journal::Journal;
use crate::driver::{self, Disk, wall_ns};
use crate::error::Result;
use crate::log::BLOCK_BYTES;
use crate::log::appender::{Appender, Group, SegmentPlan};
use crate::log::dead::{self, KeptSegment, KeptState};
use crate::log::recovery::SegmentInfo;
use crate::log::segment::SegmentHeader;
use crate::log::taken::Taken;

/// See the module. One task appends and stores; others may take segments out that are not being written.
pub(super) struct KeptLog {
    dir: PathBuf,
    pub(super) journal: Journal,
    /// All that are kept, with what is durable in them, in order; the last one is being written if `active`.
    pub(super) segments: RefCell<Vec<KeptSegment>>,
    active: Cell<bool>,
}

impl KeptLog {
    pub(super) fn new(
        dir: PathBuf,
        disk: Rc<Disk>,
        state: KeptState,
        clock_floor_ns: u64,
        plan: SegmentPlan,
        zero_ahead_bytes: u64,
    ) -> KeptLog {
        let (segment, number) = state.next;
        let last = state.last().unwrap_or(number - 1);
        let plan = SegmentPlan { bytes_max: plan.bytes_max / BLOCK_BYTES as u64 * BLOCK_BYTES as u64, ..plan };
        let files = FilesPlan { segment_bytes: plan.bytes_max, zero_ahead_bytes, spares: false };
        KeptLog {
            journal: Journal::new(
                Appender::new(plan, segment, last, number, clock_floor_ns),
                SegmentFiles::new(dir.clone(), disk, files, Vec::new(), Vec::new()),
            ),
            dir,
            segments: RefCell::new(state.segments),
            active: Cell::new(false),
        }
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// As [`Journal::store`].
    pub(super) async fn store(&self) -> Result<()> {
        let result = self.journal.store(|group| self.note(group)).await;
        if result.is_err() {
            self.active.set(false);
        }
        result
    }

    /// Notes what is in the segment of a group now that it is durable.
    fn note(&self, group: &Group) {
        let written = self.journal.files.infos().pop();
        // Of the files, only the one being written concerns them; what is kept is noted here.
        self.journal.files.take_passed(u64::MAX, false, |_, _| true);
        let mut segments = self.segments.borrow_mut();
        if let Some(header) = group.new_segment {
            let path = self.dir.join(SegmentHeader::file_name(header.id));
            let last_sequence = header.base_sequence.saturating_sub(1);
            let info = SegmentInfo { header, path, last_sequence, bytes: 0 };
            let taken = Taken::new(header.id, header.base_sequence);
            segments.push(KeptSegment { info, taken, bytes: 0, newest_ns: 0 });
            self.active.set(true);
        }
        if let Some(s) = segments.last_mut().filter(|s| s.info.header.id == group.segment) {
            s.info.last_sequence = group.last_sequence;
            s.bytes = written.map_or(group.end().offset, |w| w.bytes);
            s.newest_ns = wall_ns();
        }
    }

    /// Ends the segment that is being written, so that it can be taken out. Everything appended must be durable.
    pub(super) fn end_segment(&self) {
        self.journal.end_segment();
        self.active.set(false);
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
