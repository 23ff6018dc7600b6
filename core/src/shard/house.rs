//! Housekeeping: cursors are saved, passed segments removed, files of coming ones made ready, idle connections closed.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::files::{FilesPlan, SegmentFiles};
use super::journal::Journal;
use super::{Command, Shard};
use crate::driver::wall_ns;
use crate::driver::{self, Disk, DiskFile};
use crate::error::{Error, Result};
use crate::log::BLOCK_BYTES;
use crate::log::appender::{Appender, SegmentPlan};
use crate::log::attempts::{self, AllTried};
use crate::log::checkpoint::DedupEntry;
use crate::log::cursor::{Cursor, Cursors, section};
use crate::log::record::{Extensions, Kind};
use crate::log::recovery::{CURSOR_FILES, ShardState};
use crate::log::segment::Purpose;
use crate::log::shed::{self, Shed};

/// Clock readings are promised so far ahead, so that the promise is renewed seldom.
pub(super) const CLOCK_AHEAD_NS: u64 = 2_000_000_000;
const EXPIRE_EVERY: Duration = Duration::from_secs(1);
/// What waits for longer does not share memory with others any more.
const SHARED_MAX: Duration = Duration::from_secs(1);

/// Size of a file of keys.
const DEDUP_SEGMENT_BYTES: u64 = 1 << 20;
const DEDUP_ZERO_AHEAD_BYTES: u64 = 64 * 1024;
const DEDUP_ENTRIES_PER_RECORD: usize = 4096;

/// The journal of the keys by which repeats are recognised.
pub(super) fn dedup_files(state: &ShardState, disk: Rc<Disk>, plan: SegmentPlan) -> Journal {
    let (segment, sequence) = state.next_dedup;
    let plan = SegmentPlan { purpose: Purpose::Dedup, bytes_max: DEDUP_SEGMENT_BYTES, ..plan };
    let files = FilesPlan { segment_bytes: plan.bytes_max, zero_ahead_bytes: DEDUP_ZERO_AHEAD_BYTES, spares: false };
    Journal::new(
        Appender::new(plan, segment, sequence - 1, sequence, state.clock_floor_ns),
        SegmentFiles::new(state.path.join("dedup"), disk, files, state.dedup_segments.clone(), Vec::new()),
    )
}

impl Shard {
    /// Saves cursors while they move, until the shard stops.
    pub(super) async fn housekeeping(self: Rc<Self>) {
        let (mut saved, mut saved_at) = (Vec::new(), None);
        let mut expired = driver::now();
        while !self.stopping.get() {
            let _ = driver::within(self.config.delivery.cursor_interval, self.house_wake.notified()).await;
            self.note_host_cursor();
            self.ask_endpoints();
            self.reap_replays().await;
            // All cursors are written at once: where there are many lanes, less often.
            let interval = self.config.delivery.cursor_interval;
            let pause = interval * (self.many() - 1);
            let is_due = saved_at.is_none_or(|at| driver::since(at) >= pause);
            let marks = self.cursor_marks();
            // A promise is renewed only while readings are given out.
            let clock_due = self.appender.borrow().clock_ns() + CLOCK_AHEAD_NS / 2 > self.clock_ceiling_ns.get();
            if (is_due && marks != saved) || clock_due {
                match self.save_cursors(CLOCK_AHEAD_NS).await {
                    Ok(()) => {
                        saved = marks;
                        saved_at = Some(driver::now());
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
                let before_ns = self.now().mono_ns.saturating_sub(SHARED_MAX.as_nanos() as u64);
                self.each_lane(|_, slot| {
                    slot.connectors().iter().for_each(|c| c.expire(expired));
                    slot.part_waiting(before_ns);
                })
                .await;
                // Retention releases by time too.
                self.remove_passed_segments(false).await;
                self.tend_endpoints(false).await;
            }
        }
        self.tend_endpoints(true).await;
    }

    /// One shard looks after what is kept of endpoints.
    async fn tend_endpoints(&self, last: bool) {
        if self.peers.iter().any(|p| p.index < self.shared.index) {
            return;
        }
        let (endpoints, dir) = (self.shared.common.endpoints.clone(), self.config.data_dir.clone());
        // Certificates end by everybody's clock.
        let (now_ns, wall_ms) = (self.now().mono_ns, driver::system_ns() / 1_000_000);
        let tended = driver::blocking(move || Ok(endpoints.tend(&dir, now_ns, wall_ms, last))).await;
        let tended = tended.unwrap_or_default();
        if !last {
            tended.notices.iter().for_each(|notice| self.tell_operator(notice));
        }
        for peer in self.peers.iter() {
            tended.rotated.iter().for_each(|number| peer.command(Command::Reconnect(*number)));
            tended.turns.iter().for_each(|number| peer.command(Command::Turn(*number)));
        }
    }

    /// What tells whether cursors have moved since they were saved, cheaply.
    fn cursor_marks(&self) -> Vec<[u64; 4]> {
        // All lanes that have nothing are passed as the log grows.
        let (head, lanes) = (self.dispatched.get(), self.lanes.borrow().len() as u64);
        let mut marks = vec![[head, self.lane_moves.get(), lanes, 0]];
        marks.extend(self.kept_marks());
        let checkpoint = self.checkpoint.borrow();
        marks.push([checkpoint.low(), checkpoint.host_cursor(), checkpoint.dedup().len() as u64, 0]);
        marks
    }

    /// What is saved with the cursors.
    fn sections(&self, shed: &BTreeMap<u32, Shed>, tried: &AllTried) -> BTreeMap<u16, Vec<u8>> {
        let mut sections = BTreeMap::new();
        sections.insert(section::NEXT_SEGMENT, self.appender.borrow().next_segment().to_le_bytes().to_vec());
        let (segment, last) = self.run;
        sections.insert(section::RUN, [segment.to_le_bytes(), last.to_le_bytes()].concat());
        let (segment, letter) = self.dead.next();
        sections.insert(section::NEXT_DEAD, [segment.to_le_bytes(), letter.to_le_bytes()].concat());
        let (segment, loss) = self.losses.next();
        sections.insert(section::LOSSES, [segment.to_le_bytes(), loss.to_le_bytes()].concat());
        if !shed.is_empty() {
            sections.insert(section::SHED, shed::encode(shed));
        }
        let tried = attempts::encode(tried);
        if !tried.is_empty() {
            sections.insert(section::ATTEMPTS, tried);
        }
        sections
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
        // Each lane's part is true by itself, whenever it is looked at; of what comes meanwhile nothing is said.
        let head = self.dispatched.get();
        let (mut lanes, mut shed, mut tried) = (BTreeMap::new(), BTreeMap::new(), AllTried::new());
        self.each_lane(|number, slot| {
            lanes.insert(number, slot.cursor(head));
            shed.extend(slot.shed_to_save(slot.low(head)).map(|s| (number, s)));
            tried.extend(slot.tried().map(|t| (number, t)));
        })
        .await;
        let generation = self.saved_generation.get() + 1;
        let clock_ns = self.appender.borrow().clock_ns();
        let clock_ceiling_ns = if clock_ahead_ns == 0 { clock_ns } else { clock_ns.max(wall_ns()) + clock_ahead_ns };
        let mut kept = self.kept_sections();
        let mut sections = self.sections(&shed, &tried);
        sections.append(&mut kept.sections);
        let mut cursors = Cursors {
            generation,
            next_sequence: self.appender.borrow().next_sequence(),
            clock_ceiling_ns,
            lanes,
            sections,
        };
        let (checkpoint_low, host_cursor) = {
            let checkpoint = self.checkpoint.borrow();
            checkpoint.save(&mut cursors.sections);
            (checkpoint.low(), checkpoint.host_cursor())
        };
        let bytes = cursors.encode();
        // What these cursors pass over because it was dropped is told first.
        self.write_losses().await;
        let path = self.files.dir().join(CURSOR_FILES[(generation % 2) as usize]);
        let place = |e| Error::io("cannot save the cursors", &e).at(path.display().to_string());
        let file = DiskFile::open_or_create(&path).await.map_err(place)?;
        let padded = bytes.len().next_multiple_of(BLOCK_BYTES);
        let mut buf = driver::allocate_buffer(padded);
        buf.as_bytes_mut()[..bytes.len()].copy_from_slice(&bytes);
        buf.as_bytes_mut()[bytes.len()..].fill(0);
        let mut result = file.write_at(&buf, 0).await;
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
        self.saved.replace(lanes_low.min(checkpoint_low));
        self.kept_saved(kept);
        self.shared.host_cursor_saved.store(host_cursor, Ordering::Release);
        Ok(())
    }

    /// Appends the keys of repeats to those that are kept, and lets go of files whose keys are all older than the window.
    async fn save_dedup(&self) -> Result<()> {
        let window_ns = self.config.dedup.window.as_nanos() as u64;
        let entries = {
            let mut checkpoint = self.checkpoint.borrow_mut();
            let entries = checkpoint.take_dedup();
            if window_ns == 0 || (entries.is_empty() && self.dedup_files.pending() == 0) {
                let through = checkpoint.through();
                checkpoint.dedup_saved(through);
                return Ok(());
            }
            self.dedup_handed.set(checkpoint.through());
            entries
        };
        for chunk in entries.chunks(DEDUP_ENTRIES_PER_RECORD) {
            self.dedup_files.append(Kind::Mark, &Extensions::default(), &DedupEntry::encode(chunk), wall_ns());
        }
        self.dedup_files.store(|_| ()).await?;
        self.checkpoint.borrow_mut().dedup_saved(self.dedup_handed.get());
        let oldest_ns = wall_ns().saturating_sub(window_ns);
        let most = self.config.dedup.entries_max as u64 * DedupEntry::BYTES as u64 / DEDUP_SEGMENT_BYTES + 2;
        for s in self.dedup_files.files.take_older(oldest_ns, most as usize) {
            let path = s.path.clone();
            driver::blocking(move || {
                driver::fs::remove_file(&path)
                    .map_err(|e| Error::io("cannot remove it", &e).at(path.display().to_string()))
            })
            .await?;
        }
        Ok(())
    }

    /// Removes the segments that every lane has passed by its saved cursor and that nothing else keeps, or keeps their files
    /// for later ones.
    pub(super) async fn remove_passed_segments(&self, also_active: bool) {
        // What is not counted yet stays until it is.
        let passed = self.saved.get().min(self.inherited_seen.get());
        let also_active = also_active && !self.keeping.keeps();
        self.measure_segments().await;
        if also_active && passed >= self.dispatched.get() {
            self.files.close();
        }
        let segments = self.files.take_passed(passed, also_active, self.releasing());
        self.files.reckon_spares();
        for s in segments {
            // Files of an earlier run are not used again: a write of that process may still be on its way into one.
            let own = s.header.incarnation == self.incarnation;
            let gone = if own { self.files.keep(s.path).await } else { self.files.remove(s.path).await };
            if let Err(e) = gone {
                log::error!("shard {}: {e}", self.shared.index);
            }
        }
        self.tell_disk_use();
    }

    /// Makes the files of coming segments ready before they are needed, until the shard stops.
    pub(super) async fn prepare_files(self: Rc<Self>) {
        self.files.remove_found().await;
        self.tell_disk_use();
        while !self.stopping.get() {
            self.files.preparation_wanted().await;
            let next_segment = || self.appender.borrow().next_segment();
            if self.files.prepare(next_segment, || self.stopping.get()).await {
                // From here on no commit waits for zeros.
                self.appender.borrow_mut().end_segment();
            }
            self.tell_disk_use();
        }
    }
}
