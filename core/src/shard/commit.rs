//! Commit: groups become durable, and once written their events go to the lanes.
//!
//! While one group is synced the next is written, and the one after that fills. A group is handed to the lanes when it is
//! written: delivery does not wait for the sync, so an event may be delivered that a loss of power right then makes the
//! log forget. What is told to publishers as synced is durable, always.
//!
//! A sync that failed is never tried again: the kernel may have dropped the data and would call the next one a success.
//! Groups are therefore kept until a sync has covered them. After a failed write or sync they are written once more, to a
//! new segment (see [`super::files`]); if that fails too, the log takes no more events until it is opened again.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};

use super::Shard;
use crate::driver::disk::{OnSynced, Synced, Written};
use crate::driver::{self, DISK_THREADS, Notify, wall_ns};
use crate::error::{Error, ErrorKind, Result};
use crate::log::Ack;
use crate::log::appender::Group;
use crate::log::buffer::BlockBuffer;

/// Time between writes while nobody waits for one: a write for each handful of events would cost the disk and every core
/// (an interrupt, a kernel worker) more than the events themselves. After a pause an event is written at once.
const LINGER: Duration = Duration::from_millis(1);
/// How often a full disk is tried again.
const NO_SPACE_RETRY: Duration = Duration::from_millis(500);
/// What is kept until it is durable; more than that is synced at once, and nothing is written meanwhile.
const KEPT_BYTES_MAX: usize = 8 << 20;
const KEPT_GROUPS_MAX: usize = 256;

/// A write under way. The group is without its bytes meanwhile.
struct Writing {
    group: Group,
    done: Written,
    /// The last of the syncs goes with it.
    with_sync: bool,
}

/// A sync under way, and what it makes durable.
struct Syncing {
    done: Synced,
    /// The last record of it.
    sequence: u64,
}

/// What the commit task has under way.
struct Commits {
    /// Written, but not known to be durable; in order.
    kept: VecDeque<Group>,
    kept_bytes: usize,
    writing: Option<Writing>,
    syncing: VecDeque<Syncing>,
    /// A group for which there was no space, and when it is tried again.
    again: Option<(Group, Instant)>,
    /// Somebody waits for a sync of what no sync under way covers.
    wanted: bool,
    /// When the first group was written that no sync under way covers.
    unsynced_since: Option<Instant>,
    last_write: Instant,
    /// The ring up to here is written.
    written: u64,
    /// The last record that is durable.
    durable: u64,
    stalled: bool,
}

enum Event {
    Written(BlockBuffer, io::Result<()>),
    Synced(io::Result<()>),
    /// There is news for the task, or it is time.
    Look,
}

/// What the task does when nothing can be begun.
enum Wait {
    For(Option<Instant>),
    Ended,
}

impl Commits {
    fn is_idle(&self) -> bool {
        self.writing.is_none() && self.syncing.is_empty() && self.kept.is_empty() && self.again.is_none()
    }

    fn keep(&mut self, group: Group) {
        self.kept_bytes += group.bytes.len();
        self.kept.push_back(group);
    }

    fn has_enough(&self) -> bool {
        self.kept_bytes >= KEPT_BYTES_MAX || self.kept.len() >= KEPT_GROUPS_MAX
    }

    /// Waits for the end of what is under way, for word, or until a time.
    async fn event(&mut self, word: &Notify, until: Option<Instant>) -> Event {
        let mut word = pin!(word.notified());
        let event = poll_fn(|cx| {
            if let Some(w) = &mut self.writing
                && let Poll::Ready((bytes, result)) = Pin::new(&mut w.done).poll(cx)
            {
                return Poll::Ready(Event::Written(bytes, result));
            }
            // A sync that goes with a write ends after it, and is to be looked at after it.
            let with_write = usize::from(self.writing.as_ref().is_some_and(|w| w.with_sync));
            if self.syncing.len() > with_write
                && let Some(s) = self.syncing.front_mut()
                && let Poll::Ready(result) = Pin::new(&mut s.done).poll(cx)
            {
                return Poll::Ready(Event::Synced(result));
            }
            word.as_mut().poll(cx).map(|()| Event::Look)
        });
        match until {
            Some(t) => driver::until(t, event).await.unwrap_or(Event::Look),
            None => event.await,
        }
    }
}

impl Shard {
    /// Writes groups until nobody appends any more and everything is durable.
    pub(super) async fn commit(self: Rc<Self>) {
        let mut c = Commits {
            kept: VecDeque::new(),
            kept_bytes: 0,
            writing: None,
            syncing: VecDeque::new(),
            again: None,
            wanted: false,
            unsynced_since: None,
            last_write: driver::now(),
            written: self.shared.progress.written(),
            durable: self.dispatched.get(),
            stalled: false,
        };
        if let Err(e) = self.commit_until_end(&mut c).await {
            self.fail(e);
        }
        self.nothing_more_is_durable();
    }

    async fn commit_until_end(self: &Rc<Self>, c: &mut Commits) -> Result<()> {
        loop {
            let until = match self.begin(c).await? {
                Wait::Ended => return Ok(()),
                Wait::For(until) => until,
            };
            let event = c.event(&self.commit_wanted, until).await;
            self.lingering.set(false);
            match event {
                Event::Look => {}
                Event::Written(bytes, result) => self.end_write(c, bytes, result).await?,
                Event::Synced(Ok(())) => self.end_sync(c),
                Event::Synced(Err(e)) => {
                    c.syncing.pop_front();
                    let e = Error::io("cannot make the log durable", &e).at(self.files.dir().display().to_string());
                    self.move_to_new_segment(c, e).await?;
                }
            }
        }
    }

    /// Begins whatever may be begun now.
    async fn begin(self: &Rc<Self>, c: &mut Commits) -> Result<Wait> {
        loop {
            let ended = self.ingest_ended.get();
            let pending = self.appender.borrow().pending();
            let nothing_to_write = !pending && c.again.is_none();
            if ended && nothing_to_write && c.is_idle() {
                self.has_drained();
                return Ok(if self.appending_ended.get() { Wait::Ended } else { Wait::For(None) });
            }
            // The segment before a new one must be durable.
            let finishing = c.again.is_none() && self.appender.borrow().begins_segment();
            let due = c.unsynced_since.map(|t| t + self.config.log.sync_interval);
            if c.writing.is_none() && c.syncing.is_empty() && !c.kept.is_empty() {
                let now = driver::now();
                let at_once = c.wanted || finishing || c.has_enough() || (ended && nothing_to_write);
                if at_once || due.is_some_and(|t| t <= now) {
                    self.begin_sync(c);
                }
            }
            // What cannot be begun before something else has ended is not waited for by the clock.
            let due = due.filter(|_| c.writing.is_none() && c.syncing.is_empty());
            if c.writing.is_some()
                || c.syncing.len() >= DISK_THREADS
                || c.has_enough()
                || (finishing && !c.kept.is_empty())
                || nothing_to_write
            {
                return Ok(Wait::For(due));
            }
            let group = match c.again.take() {
                Some((group, at)) => {
                    if self.close.get().is_none() && at > driver::now() {
                        c.again = Some((group, at));
                        // Ingest may be waiting for this task, and cannot hear that the engine closes.
                        self.obey();
                        return Ok(Wait::For(Some(due.map_or(at, |t| t.min(at)))));
                    }
                    Some(group)
                }
                None if !ended && self.appender.borrow().may_linger() && driver::since(c.last_write) < LINGER => {
                    self.lingering.set(true);
                    let end = c.last_write + LINGER;
                    return Ok(Wait::For(Some(due.map_or(end, |t| t.min(end)))));
                }
                None => self.appender.borrow_mut().take(),
            };
            if let Some(group) = group {
                self.begin_group(c, group).await?;
            }
        }
    }

    /// Begins to write a group, or takes note of what it covers if it has no records.
    async fn begin_group(self: &Rc<Self>, c: &mut Commits, mut group: Group) -> Result<()> {
        // Before anybody hears that what the group covers is accepted.
        self.tell_unaudited().await;
        if group.records == 0 {
            c.written = c.written.max(group.ring_position);
            c.wanted |= group.wants == Ack::Synced && !c.kept.is_empty();
            self.appender.borrow_mut().recycle(group);
            self.commit_took.notify();
            self.tell(c);
            // A flush may wait for a position of which nothing was worth writing.
            self.answer_flushes();
            return Ok(());
        }
        if let Err(e) = self.files.ready(&mut group).await {
            return if e.kind() == ErrorKind::NoSpace {
                self.wait_for_space(c, group, e).await
            } else {
                c.keep(group);
                self.move_to_new_segment(c, e).await
            };
        }
        let with_sync = c.wanted || group.wants == Ack::Synced || group.new_segment.is_some();
        let on_synced = with_sync.then(|| self.on_synced(c.written.max(group.ring_position)));
        let (done, synced) = self.files.begin_write(&mut group, on_synced)?;
        if let Some(done) = synced {
            c.syncing.push_back(Syncing { done, sequence: group.last_sequence });
            c.wanted = false;
            c.unsynced_since = None;
        }
        c.writing = Some(Writing { group, done, with_sync });
        Ok(())
    }

    /// Tells the audit of what was dropped before it came into the log.
    async fn tell_unaudited(&self) {
        if self.unaudited.replace(false) {
            self.write_losses().await;
        }
    }

    async fn end_write(self: &Rc<Self>, c: &mut Commits, bytes: BlockBuffer, result: io::Result<()>) -> Result<()> {
        let Some(Writing { mut group, with_sync, .. }) = c.writing.take() else { return Ok(()) };
        group.bytes = bytes;
        if let Err(e) = result {
            if with_sync {
                c.syncing.pop_back();
            }
            let error = self.files.write_error(&group, &e);
            // Whatever the last sync covered but this group is to be synced by another one.
            c.wanted |= !c.kept.is_empty();
            return if error.kind() == ErrorKind::NoSpace {
                self.wait_for_space(c, group, error).await
            } else {
                c.keep(group);
                self.move_to_new_segment(c, error).await
            };
        }
        if std::mem::take(&mut c.stalled) {
            log::warn!("shard {}: the log goes on", self.shared.index);
            self.shared.progress.set_stalled(None);
        }
        if !with_sync {
            c.unsynced_since.get_or_insert_with(driver::now);
        }
        let begins = group.new_segment.is_some();
        if begins {
            // Nothing of a segment is delivered before its header is durable: the ids of its events hang on that.
            if let Some(sync) = c.syncing.back_mut()
                && let Err(e) = (&mut sync.done).await
            {
                c.syncing.pop_back();
                c.keep(group);
                let e = Error::io("cannot make the log durable", &e).at(self.files.dir().display().to_string());
                return self.move_to_new_segment(c, e).await;
            }
        }
        self.files.wrote(&group);
        self.wrote(c, &group);
        c.keep(group);
        self.commit_took.notify();
        if begins {
            self.end_sync(c);
        } else {
            self.tell(c);
        }
        Ok(())
    }

    /// Counts a group that is written and hands its events to the lanes.
    fn wrote(self: &Rc<Self>, c: &mut Commits, group: &Group) {
        let stats = &self.shared.stats;
        stats.commits.add(1);
        stats.log_bytes.add((group.bytes.len() - group.fresh) as u64);
        self.tell_disk_use();
        c.last_write = driver::now();
        c.written = c.written.max(group.ring_position);
        self.dispatch(group);
    }

    /// Tells those who wait for it, from the disk's thread, that the ring up to a position is durable.
    fn on_synced(&self, ring_position: u64) -> OnSynced {
        let shared = self.shared.clone();
        Box::new(move || shared.progress.advance_synced(ring_position))
    }

    fn begin_sync(&self, c: &mut Commits) {
        let Some(last) = c.kept.back() else { return };
        let Some(done) = self.files.begin_sync(self.on_synced(c.written)) else {
            c.unsynced_since = None; // Nothing is being written, so there is nothing to wait for.
            return;
        };
        c.syncing.push_back(Syncing { done, sequence: last.last_sequence });
        c.wanted = false;
        c.unsynced_since = None;
    }

    fn end_sync(&self, c: &mut Commits) {
        let Some(sync) = c.syncing.pop_front() else { return };
        self.shared.stats.syncs.add(1);
        c.durable = sync.sequence;
        let mut appender = self.appender.borrow_mut();
        while let Some(group) = c.kept.pop_front_if(|g| g.last_sequence <= sync.sequence) {
            c.kept_bytes -= group.bytes.len();
            if group.wants == Ack::Synced {
                self.told_synced.notify();
            }
            appender.recycle(group);
        }
        drop(appender);
        self.is_durable(c.durable);
        self.tell(c);
    }

    /// Tells publishers how far the log has come.
    fn tell(&self, c: &Commits) {
        // With nothing that is not durable, events that no rule wanted are as durable as they will ever be.
        self.shared.progress.advance_written(c.written);
        if c.kept.is_empty() && c.writing.is_none() {
            self.shared.progress.advance_synced(c.written);
        }
    }

    pub(super) fn tell_disk_use(&self) {
        if !self.files.have_changed() {
            return;
        }
        self.shared.stats.segments.set(self.files.len() as u64);
        self.shared.stats.log_disk_bytes.set(self.files.bytes());
    }

    /// Puts a group off for which there is no space. An engine that closes does not wait.
    async fn wait_for_space(&self, c: &mut Commits, group: Group, error: Error) -> Result<()> {
        if self.close.get().is_some() {
            self.sync_rest(c).await;
            return Err(self.log_failed(&error));
        }
        let mut at = driver::now();
        if !self.files.drop_spares().await {
            at += NO_SPACE_RETRY;
            if !c.stalled {
                log::error!("shard {}: the log waits: {error}", self.shared.index);
                self.shared.progress.set_stalled(Some(error));
                c.stalled = true;
                // What is written already need not wait for space.
                c.wanted = !c.kept.is_empty();
            }
        }
        c.again = Some((group, at));
        Ok(())
    }

    /// Makes what is written durable, if that can be done, before the log fails for want of space.
    async fn sync_rest(&self, c: &mut Commits) {
        self.begin_sync(c);
        while let Some(sync) = c.syncing.front_mut() {
            if (&mut sync.done).await.is_err() {
                return;
            }
            self.end_sync(c);
        }
    }

    /// Gives the segment up that is being written and writes what is not durable to a new one.
    async fn move_to_new_segment(self: &Rc<Self>, c: &mut Commits, cause: Error) -> Result<()> {
        log::error!("shard {}: {cause}; what is not durable is written to a new segment", self.shared.index);
        // What is under way comes to its end first. A sync that succeeds counts, if those before it did.
        let mut failed = false;
        if let Some(Writing { mut group, done, .. }) = c.writing.take() {
            (group.bytes, _) = done.await;
            c.keep(group);
        }
        while let Some(sync) = c.syncing.front_mut() {
            let result = (&mut sync.done).await;
            failed |= result.is_err();
            if failed {
                c.syncing.pop_front();
            } else {
                self.end_sync(c);
            }
        }
        let mut taken: Vec<Group> = c.kept.drain(..).collect();
        c.kept_bytes = 0;
        taken.extend(c.again.take().map(|(group, _)| group));
        let Some(last) = taken.last().map(|g| g.last_sequence) else { return Ok(()) };
        self.files.give_up(c.durable);
        self.appender.borrow_mut().relocate(taken, wall_ns());

        let result = self.write_moved(c, last).await;
        if let Err(e) = result {
            log::error!("shard {}: {e}; that was the second try", self.shared.index);
            return Err(self.log_failed(&cause));
        }
        self.shared.stats.log_moves.add(1);
        log::warn!("shard {}: the log goes on in a new segment", self.shared.index);
        // Lanes that read the log may go on.
        for slot in self.lanes.borrow().values() {
            slot.notify.notify();
        }
        Ok(())
    }

    /// Writes the records up to `last` to a new segment, makes them durable, and only then hands those of them to the lanes
    /// that were not handed to them before.
    async fn write_moved(self: &Rc<Self>, c: &mut Commits, last: u64) -> Result<()> {
        let mut moved: Vec<Group> = Vec::new();
        loop {
            let group = self.appender.borrow_mut().take();
            let Some(mut group) = group else { break };
            if group.records > 0 {
                while let Err(e) = self.files.write(&mut group).await {
                    if e.kind() != ErrorKind::NoSpace || self.close.get().is_some() {
                        return Err(e);
                    }
                    if !self.files.drop_spares().await {
                        self.shared.progress.set_stalled(Some(e));
                        c.stalled = true;
                        driver::sleep(NO_SPACE_RETRY).await;
                        self.obey();
                    }
                }
            }
            let end = group.last_sequence >= last;
            moved.push(group);
            if end {
                break;
            }
        }
        self.files.name().await?;
        c.durable = last;
        (c.wanted, c.unsynced_since) = (false, None);
        if std::mem::take(&mut c.stalled) {
            self.shared.progress.set_stalled(None);
        }
        for group in moved {
            if group.records > 0 {
                self.files.wrote(&group);
                self.wrote(c, &group);
                c.durable = c.durable.max(group.last_sequence);
            }
            c.written = c.written.max(group.ring_position);
            self.appender.borrow_mut().recycle(group);
        }
        self.is_durable(c.durable);
        self.commit_took.notify();
        self.tell_unaudited().await;
        self.tell(c);
        Ok(())
    }

    fn log_failed(&self, cause: &Error) -> Error {
        let e =
            Error::new(ErrorKind::LogFailed, format!("the log failed and takes no more events: {}", cause.message()));
        let e = match cause.place() {
            Some(place) => e.at(place),
            None => e,
        };
        let remedy = cause.remedy_text().unwrap_or("mend the disk");
        e.at(format!("shard {}", self.shared.index))
            .remedy(format!("{remedy} and open the engine again; what was acknowledged as synced is kept"))
    }
}
