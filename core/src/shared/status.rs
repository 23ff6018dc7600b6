//! What a server tells all its clients, in a page that they can only read.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::memory::{self, Mapping, PAGE_BYTES};
use super::sync::{AtomicU32, AtomicU64, Ordering, fence};
use crate::event::EventType;

/// What the thread of a server is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Doing {
    /// It looks at the rings by itself.
    Awake = 0,
    /// It sleeps for a moment; only who waits for an answer wakes it.
    Napping = 1,
    /// It sleeps until it is woken.
    Parked = 2,
}

#[derive(Default)]
#[repr(C)]
struct Words {
    doing: AtomicU32,
    /// Publishers must ask for each event.
    asks: AtomicU32,
    /// Grows with each change of the rules.
    rules: AtomicU64,
    /// The known types that the rules of every bucket want.
    everywhere: [AtomicU64; 2],
}

/// The page, on either side.
#[derive(Debug)]
pub(super) struct Status(Mapping);

impl Status {
    /// The server's, and the descriptor that clients map.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn new() -> io::Result<(Status, OwnedFd)> {
        let fd = memory::new_file(c"tidewire-status", PAGE_BYTES)?;
        let status = Status(Mapping::new(fd.as_fd(), PAGE_BYTES, None, true)?);
        memory::forbid_writing(fd.as_fd())?;
        Ok((status, fd))
    }

    /// A client's.
    ///
    /// # Errors
    /// What the system says, also if it is no such file.
    pub(super) fn map(fd: BorrowedFd<'_>) -> io::Result<Status> {
        if !memory::is_fixed(fd, PAGE_BYTES) {
            return Err(io::Error::other("the page of the server has another size"));
        }
        Mapping::new(fd, PAGE_BYTES, None, false).map(Status)
    }

    #[inline]
    fn words(&self) -> &Words {
        // SAFETY: atomics alone. Clients, which cannot write here, only load.
        unsafe { self.0.front() }
    }

    /// Has the server sleep, by `wait`, unless there is something to do after all.
    pub(super) fn rest(&self, doing: Doing, has_more: impl FnOnce() -> bool, wait: impl FnOnce()) {
        self.set_doing(doing);
        if !has_more() {
            wait();
        }
        self.set_doing(Doing::Awake);
    }

    fn set_doing(&self, doing: Doing) {
        self.words().doing.store(doing as u32, Ordering::SeqCst);
        // Before the next look at the rings.
        fence(Ordering::SeqCst);
    }

    /// Whether the server must be woken for a record that has just been written.
    #[inline]
    pub(super) fn sleeps(&self, urgent: bool) -> bool {
        // After the record's end was stored: either this sees that the server sleeps, or the server sees the record.
        fence(Ordering::SeqCst);
        let doing = self.words().doing.load(Ordering::Relaxed);
        doing == Doing::Parked as u32 || (urgent && doing != Doing::Awake as u32)
    }

    pub(super) fn set_asks(&self, asks: bool) {
        self.words().asks.store(u32::from(asks), Ordering::Release);
    }

    #[inline]
    pub(super) fn asks(&self) -> bool {
        self.words().asks.load(Ordering::Acquire) != 0
    }

    /// Other rules are in force.
    pub(super) fn set_rules(&self, everywhere: [u64; 2]) {
        let words = self.words();
        words.everywhere.iter().zip(everywhere).for_each(|(word, now)| word.store(now, Ordering::Release));
        words.rules.fetch_add(1, Ordering::Release);
    }

    /// Which rules are in force, as a number that grows.
    #[inline]
    pub(super) fn rules(&self) -> u64 {
        self.words().rules.load(Ordering::Acquire)
    }

    #[inline]
    pub(super) fn wanted_everywhere(&self, event_type: EventType<'_>) -> bool {
        match event_type {
            EventType::Known(t) => {
                self.words().everywhere[t as usize / 64].load(Ordering::Acquire) & 1 << (t as usize % 64) != 0
            }
            EventType::Custom(_) => false,
        }
    }
}
