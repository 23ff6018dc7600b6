//! A journal: a log beside that of the events, in segments of the same format, for what the shard has to remember.

use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::rc::Rc;

use super::files::{FilesPlan, SegmentFiles};
use crate::driver::{Disk, wall_ns};
use crate::error::Result;
use crate::log::appender::{Appender, Group, SegmentPlan};
use crate::log::record::Kind;
use crate::log::recovery::SegmentInfo;

const ZERO_AHEAD_BYTES: u64 = 64 * 1024;

/// See the module.
pub(super) struct Journal {
    appender: RefCell<Appender>,
    pub(super) files: SegmentFiles,
    /// Groups that are written and not durable.
    kept: RefCell<Vec<Group>>,
    /// The last record that is durable.
    durable: Cell<u64>,
}

impl Journal {
    /// The journal in `dir`, with the segments found there; `next` is the number of its next segment and the sequence of
    /// its next record.
    pub(super) fn new(
        dir: PathBuf,
        disk: Rc<Disk>,
        plan: SegmentPlan,
        segments: Vec<SegmentInfo>,
        next: (u64, u64),
        clock_floor_ns: u64,
    ) -> Journal {
        let files = FilesPlan { segment_bytes: plan.bytes_max, zero_ahead_bytes: ZERO_AHEAD_BYTES, spares: false };
        Journal {
            appender: RefCell::new(Appender::new(plan, next.0, next.1 - 1, next.1, clock_floor_ns)),
            files: SegmentFiles::new(dir, disk, files, segments, Vec::new()),
            kept: RefCell::default(),
            durable: Cell::new(next.1 - 1),
        }
    }

    /// Adds a record; [`Journal::store`] makes it durable.
    pub(super) fn append(&self, kind: Kind, body: &[u8]) {
        self.appender.borrow_mut().append(kind, &[], body, wall_ns());
    }

    /// Whether everything that was added is durable.
    pub(super) fn is_stored(&self) -> bool {
        self.durable.get() + 1 >= self.appender.borrow().next_sequence()
    }

    /// Makes durable what was added. If that fails it is done anew in another segment when this is called again.
    pub(super) async fn store(&self) -> Result<()> {
        loop {
            let group = self.appender.borrow_mut().take();
            let Some(mut group) = group else { break };
            let ends_one = group.new_segment.is_some() && self.files.is_writing();
            let before = if ends_one { self.make_durable().await } else { Ok(()) };
            let result = match before {
                Ok(()) => self.files.write(&mut group).await,
                e => e,
            };
            self.kept.borrow_mut().push(group);
            if result.is_err() {
                self.move_on();
                return result;
            }
        }
        let result = self.make_durable().await;
        if result.is_err() {
            self.move_on();
        }
        result
    }

    async fn make_durable(&self) -> Result<()> {
        if self.files.is_moving() {
            self.files.name().await?;
        } else {
            self.files.sync().await?;
        }
        let groups = std::mem::take(&mut *self.kept.borrow_mut());
        for group in groups {
            self.durable.set(self.durable.get().max(group.last_sequence));
            self.files.wrote(&group);
            self.appender.borrow_mut().recycle(group);
        }
        Ok(())
    }

    /// Takes what is not durable to a new segment.
    fn move_on(&self) {
        let kept = std::mem::take(&mut *self.kept.borrow_mut());
        self.files.give_up(self.durable.get());
        self.appender.borrow_mut().relocate(kept, wall_ns());
    }

    /// Writes no more.
    pub(super) fn close(&self) {
        self.files.close();
    }
}
