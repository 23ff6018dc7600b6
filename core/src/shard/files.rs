//! The segment files of a log: the one being written, those before it, and spare ones for those to come.
//!
//! A segment that every lane has passed is not removed but kept as a *spare* (`*.spare`), a few of them, and becomes the
//! file of a later segment: its blocks are there and written, so that a commit changes nothing but data, which is several
//! times faster to make durable than a file that grows. Where no spare is left, one is filled with zeros in time.
//!
//! What keeps a spare from being taken for a segment, whenever the machine stops:
//!
//! 1. A file becomes a spare, or is removed, after the cursors that have passed it are durable. If that renaming is lost,
//!    it is a passed segment as before.
//! 2. A spare gets the name of the next segment, and the name is made durable, before the first record goes into it. Until
//!    then its header says another number, or it has none: recovery takes it for a spare.
//! 3. The checksums of its old records are made with other segment numbers, and at least one header of zeros follows what
//!    was written last.
//!
//! A segment that failed is given up with what is not durable in it, which is written once more, to a new file that has no
//! segment's name. That file gets its header when the records in it are durable, then its name. From then on it holds
//! everything from its first sequence on; recovery takes no such record from the segments before it.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use crate::driver::disk::{Disk, LogFile, OnSynced, Synced, Written};
use crate::driver::{self, Notify, fs};
use crate::error::{Error, ErrorKind, Result};
use crate::log::BLOCK_BYTES;
use crate::log::appender::{Group, Position};
use crate::log::buffer::BlockBuffer;
use crate::log::record::RECORD_HEADER_BYTES;
use crate::log::recovery::{SPARE_SUFFIX, SegmentInfo};
use crate::log::segment::{Purpose, SegmentHeader};

/// Zeros are written in such pieces, so that nobody waits long behind one.
const ZEROS_BYTES: u64 = 1 << 20;
/// So much must have been written before a spare is made beside the first segment: an engine that hardly has anything to
/// write shall not fill the disk with zeros.
const WORTH_A_SPARE_BYTES: u64 = 4 << 20;
/// The pause after each piece of a spare, as a multiple of the time that it took: commits go first.
const SPARE_PAUSE: u32 = 1;
const SPARE_PAUSE_MAX: Duration = Duration::from_millis(20);
/// Spares of all sizes together hold at most this much.
const SPARE_BYTES_MAX: u64 = 1 << 30;

/// How a log's files are kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct FilesPlan {
    /// The size of a segment's file; a multiple of a block.
    pub(super) segment_bytes: u64,
    /// Zeros are written so far ahead of the data where there are none; a multiple of a block.
    pub(super) zero_ahead_bytes: u64,
    /// Whether spare files are kept and made.
    pub(super) spares: bool,
}

/// The segment that is being written.
struct Active {
    header: SegmentHeader,
    path: PathBuf,
    file: LogFile,
    /// Up to here the file holds zeros or data.
    zeroed: u64,
    /// It takes the place of a segment that failed, and has neither header nor name yet.
    unnamed: bool,
}

/// The file of the next segment.
struct Prepared {
    id: u64,
    path: PathBuf,
    file: LogFile,
    bytes: u64,
}

/// A file that waits for a segment.
struct Spare {
    path: PathBuf,
    bytes: u64,
}

/// See the module.
pub(super) struct SegmentFiles {
    dir: PathBuf,
    disk: Rc<Disk>,
    plan: FilesPlan,
    /// In order; the last one is being written if `active` is there and has its name.
    segments: RefCell<Vec<SegmentInfo>>,
    active: RefCell<Option<Active>>,
    next: RefCell<Option<Prepared>>,
    /// The number that the file being prepared will have, and word that it is done.
    preparing: Cell<Option<u64>>,
    prepared: Notify,
    /// The segment during which making a spare failed: it is not tried again before the next one.
    no_spare_during: Cell<u64>,
    spares: RefCell<Vec<Spare>>,
    /// What an earlier run left that is no segment.
    found: RefCell<Vec<PathBuf>>,
    /// Segments begun since spares were last kept, and how many spares that calls for.
    begun: Cell<usize>,
    spares_wanted: Cell<usize>,
    /// Their number or size is not what it was when somebody last asked.
    changed: Cell<bool>,
    /// Something may have to be prepared.
    prepare_wanted: Notify,
    /// After the last record that was written.
    end: Cell<Option<Position>>,
    /// A segment has failed, and what was in it is not yet in another one.
    moving: Cell<bool>,
    holds: Holds,
}

/// The segments that are being read, and by how many.
#[derive(Clone, Default)]
struct Holds(Rc<RefCell<BTreeMap<u64, usize>>>);

impl Holds {
    fn hold(&self, segment: u64) -> Held {
        *self.0.borrow_mut().entry(segment).or_default() += 1;
        Held { all: self.clone(), segment }
    }

    /// The first one that is held.
    fn first(&self) -> Option<u64> {
        self.0.borrow().keys().next().copied()
    }
}

/// While it is there, a segment and those behind it keep their files.
pub(super) struct Held {
    all: Holds,
    segment: u64,
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut all = self.all.0.borrow_mut();
        if let Some(readers) = all.get_mut(&self.segment) {
            *readers -= 1;
            if *readers == 0 {
                all.remove(&self.segment);
            }
        }
    }
}

/// What was being done, on which file.
fn at(doing: &str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    move |e| Error::io(doing, &e).at(path.display().to_string())
}

async fn rename_durably(from: PathBuf, to: PathBuf) -> Result<()> {
    driver::blocking(move || {
        fs::rename(&from, &to)
            .and_then(|()| fs::sync_dir(to.parent().unwrap_or(Path::new("."))))
            .map_err(at("cannot name a segment", &to))
    })
    .await
}

async fn remove(path: PathBuf) -> Result<()> {
    driver::blocking(move || fs::remove_file(&path).map_err(at("cannot remove it", &path))).await
}

impl SegmentFiles {
    /// The segments found in `dir`, and files there that are none.
    pub(super) fn new(
        dir: PathBuf,
        disk: Rc<Disk>,
        plan: FilesPlan,
        segments: Vec<SegmentInfo>,
        found: Vec<PathBuf>,
    ) -> SegmentFiles {
        SegmentFiles {
            dir,
            disk,
            plan,
            segments: RefCell::new(segments),
            active: RefCell::new(None),
            next: RefCell::new(None),
            preparing: Cell::new(None),
            prepared: Notify::default(),
            no_spare_during: Cell::new(0),
            spares: RefCell::default(),
            found: RefCell::new(found),
            begun: Cell::new(0),
            spares_wanted: Cell::new(1),
            changed: Cell::new(true),
            prepare_wanted: Notify::default(),
            end: Cell::new(None),
            moving: Cell::new(false),
            holds: Holds::default(),
        }
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn len(&self) -> usize {
        self.segments.borrow().len()
    }

    /// Whether number or size of the files have changed since this was last called.
    pub(super) fn have_changed(&self) -> bool {
        self.changed.replace(false)
    }

    /// Bytes of all files, spares included.
    pub(super) fn bytes(&self) -> u64 {
        self.segments.borrow().iter().map(|s| s.bytes).sum::<u64>()
            + self.spares.borrow().iter().map(|s| s.bytes).sum::<u64>()
            + self.next.borrow().as_ref().map_or(0, |n| n.bytes)
    }

    /// Where the records of a segment end that is being written; `None` for another one.
    pub(super) fn live_end(&self, id: u64) -> Option<Position> {
        let active = self.active.borrow();
        active.as_ref().filter(|a| a.header.id == id && !a.unnamed)?;
        let begun = Position { segment: id, offset: BLOCK_BYTES as u64 };
        Some(self.end.get().filter(|e| e.segment == id).unwrap_or(begun))
    }

    /// Whether a segment is being written.
    pub(super) fn is_writing(&self) -> bool {
        self.active.borrow().is_some()
    }

    /// Whether records are on their way from a segment that failed to another one: what is not found in the segments is
    /// not to be taken for passed.
    pub(super) fn is_moving(&self) -> bool {
        self.moving.get()
    }

    // --- Writing -----------------------------------------------------------------------------------------------------

    /// Makes ready what a group needs: its segment's file, if it begins one, and zeros. Everything before a new segment
    /// must be durable.
    pub(super) async fn ready(&self, group: &mut Group) -> Result<()> {
        if group.new_segment.is_some() {
            self.begin(group).await?;
        }
        self.write_zeros_for(group).await;
        Ok(())
    }

    /// Begins to write a group that was made ready, and to sync after that if so asked.
    pub(super) fn begin_write(&self, group: &mut Group, sync: Option<OnSynced>) -> Result<(Written, Option<Synced>)> {
        let active = self.active.borrow();
        let Some(active) = active.as_ref().filter(|a| a.header.id == group.segment) else {
            return Err(Error::new(ErrorKind::Internal, "a group without a segment"));
        };
        let skip = if active.unnamed && group.offset == 0 { BLOCK_BYTES } else { 0 };
        let bytes = std::mem::take(&mut group.bytes);
        Ok(active.file.write(bytes, RECORD_HEADER_BYTES, skip, group.offset, sync))
    }

    /// Notes that a group was written.
    pub(super) fn wrote(&self, group: &Group) {
        let active = self.active.borrow();
        let Some(active) = active.as_ref().filter(|a| !a.unnamed) else { return };
        if let Some(s) = self.segments.borrow_mut().last_mut() {
            s.last_sequence = group.last_sequence;
            s.bytes = active.zeroed;
        }
        self.end.set(Some(group.end()));
        if self.wants_next(active) {
            self.prepare_wanted.notify();
        }
    }

    /// Writes a group.
    pub(super) async fn write(&self, group: &mut Group) -> Result<()> {
        self.ready(group).await?;
        let (written, _) = self.begin_write(group, None)?;
        let (bytes, result) = written.await;
        group.bytes = bytes;
        result.map_err(|e| self.write_error(group, &e))?;
        self.wrote(group);
        Ok(())
    }

    /// Begins to make everything written durable; `None` if nothing is being written.
    pub(super) fn begin_sync(&self, then: OnSynced) -> Option<Synced> {
        self.active.borrow().as_ref().map(|a| a.file.sync(then))
    }

    /// Makes everything written durable. After a failure the segment must be given up ([`SegmentFiles::give_up`]).
    pub(super) async fn sync(&self) -> Result<()> {
        let Some(done) = self.begin_sync(Box::new(|| ())) else { return Ok(()) };
        done.await.map_err(at("cannot make the log durable", &self.dir))
    }

    /// What it is called that a group could not be written. [`ErrorKind::NoSpace`] if waiting may help: a limit on the size
    /// of files does not go away by itself, but leaves room for another file.
    pub(super) fn write_error(&self, group: &Group, e: &std::io::Error) -> Error {
        let path = self.dir.join(SegmentHeader::file_name(group.segment)).display().to_string();
        if e.raw_os_error() == Some(libc::EFBIG) {
            return Error::new(ErrorKind::Io, format!("cannot write the log: {e}"))
                .at(path)
                .remedy("raise the limit on the size of files (ulimit -f)");
        }
        Error::io("cannot write the log", e).at(path)
    }

    async fn begin(&self, group: &mut Group) -> Result<()> {
        let Some(header) = group.new_segment else { return Ok(()) };
        if self.active.borrow().as_ref().is_some_and(|a| a.header.id == header.id) {
            return Ok(()); // A second try after the disk was full.
        }
        self.active.borrow_mut().take();
        while self.preparing.get() == Some(header.id) {
            self.prepared.notified().await;
        }
        let unnamed = self.moving.get();
        let path =
            self.dir.join(if unnamed { format!("moved{SPARE_SUFFIX}") } else { SegmentHeader::file_name(header.id) });
        let next = self.next.borrow_mut().take();
        let (file, zeroed) = match next {
            Some(next) if next.id == header.id && !unnamed => (next.file, next.bytes),
            next => {
                // Prepared for a segment that never began.
                self.spares.borrow_mut().extend(next.map(|n| Spare { path: n.path, bytes: n.bytes }));
                let spare = self.spares.borrow_mut().pop();
                match spare {
                    Some(spare) => {
                        rename_durably(spare.path, path.clone()).await?;
                        (self.disk.open(&path).await.map_err(at("cannot open a segment", &path))?, spare.bytes)
                    }
                    None => (self.create(&path).await?, 0),
                }
            }
        };
        if zeroed > 0 {
            group.mark_recycled();
        }
        let header = group.new_segment.unwrap_or(header);
        if !unnamed {
            let last_sequence = header.base_sequence.saturating_sub(1);
            let info = SegmentInfo { header, path: path.clone(), last_sequence, bytes: zeroed };
            self.segments.borrow_mut().push(info);
        }
        *self.active.borrow_mut() = Some(Active { header, path, file, zeroed, unnamed });
        self.changed.set(true);
        self.begun.set(self.begun.get() + 1);
        Ok(())
    }

    /// Creates a file whose name is durable; what a failed try left there is removed.
    async fn create(&self, path: &Path) -> Result<LogFile> {
        let _ = fs::remove_file(path);
        let file = self.disk.create_new(path).await.map_err(at("cannot create a segment", path))?;
        let dir = self.dir.clone();
        driver::blocking(move || fs::sync_dir(&dir).map_err(at("cannot sync the directory", &dir))).await?;
        Ok(file)
    }

    /// Writes zeros up to beyond the end of a group, where the file has none. If there is no space for them there may be
    /// some for the group, so its own write shall tell.
    async fn write_zeros_for(&self, group: &Group) {
        let end = group.offset + (group.bytes.len() + RECORD_HEADER_BYTES).next_multiple_of(BLOCK_BYTES) as u64;
        let active = self.active.borrow().as_ref().map(|a| (a.file.clone(), a.zeroed));
        let Some((file, zeroed)) = active else { return };
        if end <= zeroed {
            return;
        }
        let ahead = end.next_multiple_of(self.plan.zero_ahead_bytes).min(self.plan.segment_bytes.max(end));
        let written = file.write_zeros(zeroed, ahead).await.is_ok();
        if let Some(a) = self.active.borrow_mut().as_mut() {
            a.zeroed = if written { ahead } else { end };
            self.changed.set(true);
        }
    }

    // --- A segment that failed ---------------------------------------------------------------------------------------

    /// Gives the segment that is being written up, but for its records up to `durable`. The next one begun gets its header
    /// and name from [`SegmentFiles::name`].
    pub(super) fn give_up(&self, durable: u64) {
        if let Some(active) = self.active.borrow_mut().take()
            && let Some(s) = self.segments.borrow_mut().last_mut()
            && s.header.id == active.header.id
        {
            s.last_sequence = s.last_sequence.min(durable.max(s.header.base_sequence.saturating_sub(1)));
        }
        self.end.set(None);
        self.moving.set(true);
    }

    /// Makes a segment durable that was begun after one was given up, then makes it known by its header and name.
    pub(super) async fn name(&self) -> Result<()> {
        let active = self.active.borrow().as_ref().map(|a| (a.header, a.path.clone(), a.file.clone()));
        let Some((header, path, file)) = active else { return Ok(()) };
        file.sync(Box::new(|| ())).await.map_err(at("cannot make the log durable", &path))?;
        let mut block = BlockBuffer::default();
        header.encode(block.grow(BLOCK_BYTES));
        let (written, synced) = file.write(block, 0, 0, 0, Some(Box::new(|| ())));
        written.await.1.map_err(at("cannot write the log", &path))?;
        if let Some(synced) = synced {
            synced.await.map_err(at("cannot make the log durable", &path))?;
        }
        let named = self.dir.join(SegmentHeader::file_name(header.id));
        rename_durably(path, named.clone()).await?;
        if let Some(a) = self.active.borrow_mut().as_mut() {
            a.unnamed = false;
            a.path.clone_from(&named);
            let last_sequence = header.base_sequence.saturating_sub(1);
            self.segments.borrow_mut().push(SegmentInfo { header, path: named, last_sequence, bytes: a.zeroed });
        }
        self.moving.set(false);
        self.changed.set(true);
        Ok(())
    }

    // --- Spares ------------------------------------------------------------------------------------------------------

    /// Whether the file of the next segment should be made ready: when the one being written is half full, or if it has to
    /// be filled with zeros while records wait for that.
    fn wants_next(&self, active: &Active) -> bool {
        if !self.plan.spares || self.next.borrow().is_some() || self.no_spare_during.get() == active.header.id {
            return false;
        }
        let half = self.plan.segment_bytes / 2;
        let from = if active.zeroed >= self.plan.segment_bytes { half } else { half.min(WORTH_A_SPARE_BYTES) };
        self.end.get().is_some_and(|e| e.segment == active.header.id && e.offset >= from)
    }

    /// Waits until there may be something to prepare.
    pub(super) async fn preparation_wanted(&self) {
        self.prepare_wanted.notified().await;
    }

    /// Makes whoever waits in [`SegmentFiles::preparation_wanted`] look.
    pub(super) fn wake(&self) {
        self.prepare_wanted.notify();
    }

    /// Makes the file of the next segment ready, if it is time for that. `next_segment` tells its number, `stopping`
    /// whether to leave it. Answers whether it is better to go on in that file now than to fill the present one.
    pub(super) async fn prepare(&self, next_segment: impl Fn() -> u64, stopping: impl Fn() -> bool) -> bool {
        let wanted = |active: &Option<Active>| active.as_ref().filter(|a| self.wants_next(a)).map(|a| a.header.id);
        let Some(during) = wanted(&self.active.borrow()) else { return false };
        match self.prepare_now(next_segment, stopping).await {
            Ok(()) => {
                let active = self.active.borrow();
                active.as_ref().is_some_and(|a| !a.unnamed && a.zeroed < self.plan.segment_bytes)
            }
            Err(e) => {
                log::debug!("no file is prepared for the next segment: {e}");
                self.no_spare_during.set(during);
                false
            }
        }
    }

    async fn prepare_now(&self, next_segment: impl Fn() -> u64, stopping: impl Fn() -> bool) -> Result<()> {
        let spare = self.spares.borrow_mut().pop();
        let spare = match spare {
            Some(spare) => spare,
            None => self.make_spare(stopping).await?,
        };
        // From here on nobody else makes a file of this number: see `begin`.
        let id = next_segment();
        self.preparing.set(Some(id));
        let path = self.dir.join(SegmentHeader::file_name(id));
        let result = async {
            rename_durably(spare.path, path.clone()).await?;
            self.disk.open(&path).await.map_err(at("cannot open a segment", &path))
        }
        .await;
        if let Ok(file) = &result {
            *self.next.borrow_mut() = Some(Prepared { id, path, file: file.clone(), bytes: spare.bytes });
            self.changed.set(true);
        }
        self.preparing.set(None);
        self.prepared.notify();
        result.map(|_| ())
    }

    /// Makes a file of zeros, piece by piece.
    async fn make_spare(&self, stopping: impl Fn() -> bool) -> Result<Spare> {
        let path = self.dir.join(format!("new{SPARE_SUFFIX}"));
        let file = self.create(&path).await?;
        let bytes = self.plan.segment_bytes;
        let mut from = 0;
        let result = loop {
            if from >= bytes {
                break self.mark_unused(&file, &path).await;
            }
            if stopping() {
                break Err(Error::new(ErrorKind::Closed, "the engine closes"));
            }
            let begun = driver::now();
            let to = (from + ZEROS_BYTES).min(bytes);
            if let Err(e) = file.write_zeros_aside(from, to).await {
                break Err(at("cannot make a spare file", &path)(e));
            }
            from = to;
            driver::sleep((driver::since(begun) * SPARE_PAUSE).min(SPARE_PAUSE_MAX)).await;
        };
        drop(file);
        match result {
            Ok(()) => Ok(Spare { path, bytes }),
            Err(e) => {
                let _ = remove(path).await;
                Err(e)
            }
        }
    }

    /// Writes the header of no segment into a file, so that recovery knows it for a spare under any name.
    async fn mark_unused(&self, file: &LogFile, path: &Path) -> Result<()> {
        let header = SegmentHeader {
            id: 0,
            incarnation: 0,
            base_sequence: 0,
            base_clock_ns: 0,
            created_ns: driver::wall_ns(),
            shard: 0,
            purpose: Purpose::Events,
            previous_last: 0,
            recycled: false,
        };
        let mut block = BlockBuffer::default();
        header.encode(block.grow(BLOCK_BYTES));
        let (written, synced) = file.write(block, 0, 0, 0, Some(Box::new(|| ())));
        let mut result = written.await.1;
        if let Some(synced) = synced {
            result = result.and(synced.await);
        }
        result.map_err(at("cannot make a spare file", path))
    }

    /// Removes those files that an earlier run left ready. They are not used again: a write of a process that was killed may
    /// still be on its way into one.
    pub(super) async fn remove_found(&self) {
        let found = std::mem::take(&mut *self.found.borrow_mut());
        for path in found {
            if let Err(e) = remove(path).await {
                log::warn!("{e}");
            }
        }
        self.changed.set(true);
    }

    /// Removes a file that holds no undelivered record. Its cursors must be durable.
    pub(super) async fn remove(&self, path: PathBuf) -> Result<()> {
        self.changed.set(true);
        remove(path).await
    }

    /// Puts a file that holds no undelivered record away for a later segment, or removes it: if it is not of full size with
    /// all its blocks, or if there are enough. Its cursors must be durable.
    pub(super) async fn keep(&self, path: PathBuf) -> Result<()> {
        let room = self.plan.spares && self.spares.borrow().len() < self.spares_wanted.get();
        let full = self.plan.segment_bytes;
        let kept = driver::blocking(move || {
            let (bytes, allocated) = fs::lengths(&path).map_err(at("cannot look at it", &path))?;
            if !room || bytes != full || allocated < bytes {
                return fs::remove_file(&path).map(|()| None).map_err(at("cannot remove it", &path));
            }
            if path.to_string_lossy().ends_with(SPARE_SUFFIX) {
                return Ok(Some(Spare { path, bytes }));
            }
            let spare = path.with_extension(&SPARE_SUFFIX[1..]);
            fs::rename(&path, &spare).map_err(at("cannot rename it", &path))?;
            Ok(Some(Spare { path: spare, bytes }))
        })
        .await?;
        self.spares.borrow_mut().extend(kept);
        self.changed.set(true);
        Ok(())
    }

    /// Reckons how many spares the recent rate calls for: as many as segments were begun since the last call, a little
    /// less each time when they become fewer, and at least one (the one after that is being written or is made in time).
    pub(super) fn reckon_spares(&self) {
        let most = (SPARE_BYTES_MAX / self.plan.segment_bytes).clamp(1, 16) as usize;
        let wanted = self.begun.replace(0).max(self.spares_wanted.get().saturating_sub(1));
        self.spares_wanted.set(wanted.clamp(1, most));
    }

    /// Removes the spares, because their space is wanted. Whether there were any.
    pub(super) async fn drop_spares(&self) -> bool {
        let mut paths: Vec<PathBuf> = self.spares.borrow_mut().drain(..).map(|s| s.path).collect();
        paths.append(&mut self.found.borrow_mut());
        paths.extend(self.next.borrow_mut().take().map(|n| n.path));
        let any = !paths.is_empty();
        self.changed.set(any || self.changed.get());
        for path in paths {
            if let Err(e) = remove(path).await {
                log::warn!("{e}");
            }
        }
        any
    }

    // --- Reading and removing ----------------------------------------------------------------------------------------

    /// The segment of a number, or the first one after it.
    pub(super) fn at_or_after(&self, id: u64) -> Option<SegmentInfo> {
        self.segments.borrow().iter().find(|s| s.header.id >= id).cloned()
    }

    /// The segment that a sequence is in, or the first one that could hold a later one.
    pub(super) fn containing(&self, sequence: u64) -> Option<SegmentInfo> {
        self.segments.borrow().iter().find(|s| s.last_sequence >= sequence).cloned()
    }

    /// All of them, in order.
    pub(super) fn infos(&self) -> Vec<SegmentInfo> {
        self.segments.borrow().clone()
    }

    /// After the last record written since the engine was opened.
    pub(super) fn end(&self) -> Option<Position> {
        self.end.get()
    }

    /// Takes out the oldest segments: those whose records are all at most `passed`, and that `releases` lets go (it is
    /// asked with the segment after). The one being written stays unless `also_active`.
    pub(super) fn take_passed(
        &self,
        passed: u64,
        also_active: bool,
        mut releases: impl FnMut(&SegmentInfo, Option<&SegmentInfo>) -> bool,
    ) -> Vec<SegmentInfo> {
        let mut segments = self.segments.borrow_mut();
        let keep_last = usize::from(self.active.borrow().is_some() && !also_active);
        let n = segments.len().saturating_sub(keep_last);
        let held = self.holds.first().unwrap_or(u64::MAX);
        let goes = |i: &usize| {
            let s = &segments[*i];
            s.last_sequence <= passed && s.header.id < held && releases(s, segments.get(i + 1))
        };
        let passed = (0..n).take_while(goes).count();
        self.changed.set(passed > 0 || self.changed.get());
        segments.drain(..passed).collect()
    }

    /// Keeps the files of a segment and of those behind it in place: an event may be delivered while somebody reads it for
    /// another purpose, and its file would go, or become that of a new segment.
    pub(super) fn hold(&self, segment: u64) -> Held {
        self.holds.hold(segment)
    }

    /// Takes out the segments of which the next one was begun before `created_ns`, and the oldest ones if there are more
    /// than `segments_max`; the one being written stays.
    pub(super) fn take_older(&self, created_ns: u64, segments_max: usize) -> Vec<SegmentInfo> {
        let mut segments = self.segments.borrow_mut();
        let older = segments.windows(2).take_while(|s| s[1].header.created_ns < created_ns).count();
        let n = older.max(segments.len().saturating_sub(segments_max)).min(segments.len().saturating_sub(1));
        segments.drain(..n).collect()
    }

    /// Writes no more.
    pub(super) fn close(&self) {
        self.active.borrow_mut().take();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_is_held_until_its_last_reader_is_gone() {
        let holds = Holds::default();
        let (seven, three) = (holds.hold(7), holds.hold(3));
        let again = holds.hold(3);
        assert_eq!(holds.first(), Some(3));
        drop(three);
        assert_eq!(holds.first(), Some(3));
        drop(again);
        assert_eq!(holds.first(), Some(7));
        drop(seven);
        assert_eq!(holds.first(), None);
    }
}
