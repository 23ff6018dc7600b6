//! A journal: a log beside that of the events, in segments of the same format, for what the shard has to remember.

use std::cell::{Cell, RefCell};

use super::files::SegmentFiles;
use crate::driver::wall_ns;
use crate::error::Result;
use crate::log::appender::{Appender, Group};
use crate::log::record::{Extensions, Kind};

/// See the module. One task appends and stores.
pub(super) struct Journal {
    appender: RefCell<Appender>,
    pub(super) files: SegmentFiles,
    /// Groups that are written and not durable.
    unsynced: RefCell<Vec<Group>>,
    /// The last record that is durable.
    durable: Cell<u64>,
}

impl Journal {
    /// A journal that goes on with what `appender` packs in `files`.
    pub(super) fn new(appender: Appender, files: SegmentFiles) -> Journal {
        Journal {
            durable: Cell::new(appender.next_sequence() - 1),
            appender: RefCell::new(appender),
            files,
            unsynced: RefCell::default(),
        }
    }

    /// The numbers of the next segment and the next record.
    pub(super) fn next(&self) -> (u64, u64) {
        let appender = self.appender.borrow();
        (appender.next_segment(), appender.next_sequence())
    }

    /// Adds a record; [`Journal::store`] makes it durable.
    pub(super) fn append(&self, kind: Kind, extensions: &Extensions, body: &[u8], wall_ns: u64) {
        self.appender.borrow_mut().append_extended(kind, &[], extensions, body, wall_ns);
    }

    /// Bytes that were appended and not taken for writing.
    pub(super) fn pending_bytes(&self) -> usize {
        self.appender.borrow().pending_bytes()
    }

    /// Records that were appended and are not durable.
    pub(super) fn pending(&self) -> u64 {
        self.appender.borrow().next_sequence() - 1 - self.durable.get()
    }

    /// Makes durable what was appended, and hands each group to `stored` that is. If that fails it is done anew in another
    /// segment when this is called again.
    pub(super) async fn store(&self, stored: impl Fn(&Group)) -> Result<()> {
        let result = self.write_and_sync(&stored).await;
        if result.is_err() {
            // A sync is never tried again: the kernel may have dropped the data.
            let unsynced = std::mem::take(&mut *self.unsynced.borrow_mut());
            self.files.give_up(self.durable.get());
            self.appender.borrow_mut().relocate(unsynced, wall_ns());
        }
        result
    }

    async fn write_and_sync(&self, stored: &impl Fn(&Group)) -> Result<()> {
        loop {
            let group = self.appender.borrow_mut().take();
            let Some(mut group) = group else { break };
            // What is before a new segment must be durable.
            let ends_one = group.new_segment.is_some() && self.files.is_writing();
            let before = if ends_one { self.make_durable(stored).await } else { Ok(()) };
            let result = match before {
                Ok(()) => self.files.write(&mut group).await,
                e => e,
            };
            self.unsynced.borrow_mut().push(group);
            result?;
        }
        self.make_durable(stored).await
    }

    async fn make_durable(&self, stored: &impl Fn(&Group)) -> Result<()> {
        if self.unsynced.borrow().is_empty() {
            return Ok(());
        }
        if self.files.is_moving() {
            self.files.name().await?;
        } else {
            self.files.sync().await?;
        }
        let groups = std::mem::take(&mut *self.unsynced.borrow_mut());
        for group in groups {
            self.durable.set(self.durable.get().max(group.last_sequence));
            self.files.wrote(&group);
            stored(&group);
            self.appender.borrow_mut().recycle(group);
        }
        Ok(())
    }

    /// Ends the segment that is being written. Everything appended must be durable.
    pub(super) fn end_segment(&self) {
        self.appender.borrow_mut().end_segment();
        self.files.close();
    }

    /// Writes no more.
    pub(super) fn close(&self) {
        self.files.close();
    }
}
