//! What the lock-free parts are made of, as the checker knows it; see the module of this name in the core crate.

use std::cell::Cell;
use std::task::Waker;
use std::time::Instant;

use loom::cell::UnsafeCell;
use loom::sync::MutexGuard;
use loom::sync::atomic::AtomicBool;
use loom::thread;

pub(super) use loom::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering, fence};

/// How [`Fences::heavy`] acts on other threads. The model of it: for each thread that has passed [`Fences::light`] or will,
/// either what it did before is seen by who passed `heavy`, or it sees what that one did before. Two threads that pass
/// `light` tell each other nothing: in the true one that is only a word to the compiler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heavy {
    /// As membarrier(2) does.
    Expedited,
    /// Without membarrier: both sides use an ordinary fence.
    Ordinary,
    /// Not at all: a mistake that the models must find.
    Missing,
}

thread_local! {
    // All threads of a model run on one thread of the system.
    static HEAVY: Cell<Heavy> = const { Cell::new(Heavy::Expedited) };
}

impl Heavy {
    pub(crate) fn set(self) {
        HEAVY.set(self);
    }
}

loom::thread_local! {
    static NUMBER: Cell<Option<usize>> = Cell::new(None);
}

/// The most threads that pass `light` in a model.
const THREADS_MAX: usize = 3;

pub(super) struct Fences {
    /// Where each thread meets who passes `heavy`.
    meetings: [AtomicUsize; THREADS_MAX],
    threads: std::sync::atomic::AtomicUsize,
}

impl Fences {
    pub(super) fn new() -> Fences {
        Fences { meetings: Default::default(), threads: 0.into() }
    }

    pub(super) fn light(&self) {
        if HEAVY.get() == Heavy::Ordinary {
            fence(Ordering::SeqCst);
            return;
        }
        let number = NUMBER.with(|n| {
            let number = n.get().unwrap_or_else(|| self.threads.fetch_add(1, Ordering::Relaxed));
            n.set(Some(number));
            number
        });
        self.meetings[number].fetch_add(1, Ordering::AcqRel);
    }

    pub(super) fn heavy(&self) {
        match HEAVY.get() {
            Heavy::Expedited => {
                fence(Ordering::SeqCst);
                for m in &self.meetings {
                    m.fetch_add(1, Ordering::AcqRel);
                }
            }
            Heavy::Ordinary => fence(Ordering::SeqCst),
            Heavy::Missing => {}
        }
    }
}

pub(super) const WORDS_BYTES: u64 = 16;
const CELL_BYTES: usize = WORDS_BYTES as usize;

/// The ring's memory: words and payload apart, so that the checker knows both.
pub(super) struct Memory {
    words: Vec<[AtomicU64; 2]>,
    payload: Vec<UnsafeCell<[u8; CELL_BYTES]>>,
}

impl Memory {
    pub(super) fn new(capacity: usize) -> Memory {
        let n = capacity / CELL_BYTES;
        Memory {
            words: (0..n).map(|_| Default::default()).collect(),
            payload: (0..n).map(|_| UnsafeCell::new([0; CELL_BYTES])).collect(),
        }
    }

    pub(super) fn words(&self, offset: u64) -> &[AtomicU64; 2] {
        assert!(offset.is_multiple_of(WORDS_BYTES));
        &self.words[offset as usize / CELL_BYTES]
    }

    /// # Safety
    /// The checker sees for itself.
    pub(super) unsafe fn write(&self, offset: u64, len: usize, fill: impl FnOnce(&mut [u8])) {
        let mut bytes = vec![0; len];
        fill(&mut bytes);
        for (part, cell) in bytes.chunks(CELL_BYTES).zip(&self.payload[offset as usize / CELL_BYTES..]) {
            // SAFETY: the pointer is valid within the closure, and the checker fails if there is another access.
            cell.with_mut(|p| unsafe { (&mut *p)[..part.len()].copy_from_slice(part) });
        }
    }

    /// # Safety
    /// The checker sees for itself.
    pub(super) unsafe fn read<R>(&self, offset: u64, len: usize, each: impl FnOnce(&[u8]) -> R) -> R {
        let mut bytes = vec![0; len];
        for (part, cell) in bytes.chunks_mut(CELL_BYTES).zip(&self.payload[offset as usize / CELL_BYTES..]) {
            // SAFETY: as in `write`.
            cell.with(|p| unsafe { part.copy_from_slice(&(&*p)[..part.len()]) });
        }
        each(&bytes)
    }

    pub(super) fn prefetch(&self, _offset: u64) {}
}

#[derive(Debug, Default)]
pub(super) struct AtomicWaker(loom::future::AtomicWaker);

impl AtomicWaker {
    pub(super) fn new() -> AtomicWaker {
        AtomicWaker(loom::future::AtomicWaker::new())
    }

    pub(super) fn take(&self) -> Option<Waker> {
        self.0.take_waker()
    }

    pub(super) fn register(&self, waker: &Waker) {
        self.0.register_by_ref(waker);
    }

    pub(super) fn wake(&self) {
        self.0.wake();
    }
}

#[derive(Debug, Default)]
pub(super) struct Mutex<T>(loom::sync::Mutex<T>);

impl<T> Mutex<T> {
    pub(super) fn new(value: T) -> Mutex<T> {
        Mutex(loom::sync::Mutex::new(value))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap()
    }
}

#[derive(Debug)]
pub(super) struct Condvar(loom::sync::Condvar);

impl Condvar {
    pub(super) fn new() -> Condvar {
        Condvar(loom::sync::Condvar::new())
    }

    pub(super) fn notify_all(&self) {
        self.0.notify_all();
    }

    /// Waits without an end, so that a wake-up that is missed shows as a deadlock.
    pub(super) fn wait_until<'a, T>(&self, guard: MutexGuard<'a, T>, _until: Instant) -> MutexGuard<'a, T> {
        self.0.wait(guard).unwrap()
    }
}

/// Set once, read by many.
#[derive(Debug)]
pub(super) struct OnceLock<T> {
    set: AtomicBool,
    value: std::sync::OnceLock<T>,
}

impl<T> Default for OnceLock<T> {
    fn default() -> OnceLock<T> {
        OnceLock { set: AtomicBool::new(false), value: std::sync::OnceLock::new() }
    }
}

impl<T> OnceLock<T> {
    pub(super) fn set(&self, value: T) -> Result<(), T> {
        self.value.set(value)?;
        self.set.store(true, Ordering::Release);
        Ok(())
    }

    pub(super) fn get(&self) -> Option<&T> {
        self.set.load(Ordering::Acquire).then(|| self.value.get()).flatten()
    }
}

/// Gives way to other threads where the true one would wait a moment.
pub(crate) fn pause() {
    thread::yield_now();
}
