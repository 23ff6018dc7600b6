//! Memory that two processes share, as the checker knows it: what stands at its beginning, and the rest in words. Here both
//! sides are threads that have one mapping.

use std::any::Any;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::OnceLock;

use loom::cell::UnsafeCell;

#[derive(Clone, Copy, Debug)]
pub(super) struct Mirrored {
    pub(super) from: usize,
    pub(super) bytes: usize,
}

/// As small as what stands at the beginning lets it be, so that rings are.
pub(super) const PAGE_BYTES: usize = 256;

const WORD_BYTES: usize = 8;

#[derive(Debug)]
pub(super) struct Mapping {
    front: OnceLock<Box<dyn Any + Send + Sync>>,
    words: Vec<UnsafeCell<u64>>,
}

// SAFETY: the checker sees who accesses the words.
unsafe impl Sync for Mapping {}

/// Stands in for a file.
pub(super) fn new_file(_: &std::ffi::CStr, _: usize) -> io::Result<OwnedFd> {
    std::fs::File::open("/dev/null").map(OwnedFd::from)
}

pub(super) fn forbid_writing(_: BorrowedFd<'_>) -> io::Result<()> {
    Ok(())
}

pub(super) fn is_fixed(_: BorrowedFd<'_>, _: usize) -> bool {
    true
}

impl Mapping {
    pub(super) fn new(_: BorrowedFd<'_>, _: usize, mirrored: Option<Mirrored>, _: bool) -> io::Result<Mapping> {
        let bytes = mirrored.map_or(0, |m| {
            assert_eq!(m.from, PAGE_BYTES);
            m.bytes
        });
        let words = (0..bytes / WORD_BYTES).map(|_| UnsafeCell::new(0)).collect();
        Ok(Mapping { front: OnceLock::new(), words })
    }

    fn place(&self, offset: usize) -> usize {
        assert!(offset >= PAGE_BYTES && offset.is_multiple_of(WORD_BYTES));
        // What goes over the end goes on at the beginning.
        (offset - PAGE_BYTES) / WORD_BYTES % self.words.len()
    }

    /// # Safety
    /// The checker sees for itself.
    pub(super) unsafe fn write(&self, offset: usize, bytes: usize, fill: impl FnOnce(&mut [u8])) {
        let mut all = vec![0; bytes];
        fill(&mut all);
        for (n, word) in all.chunks_exact(WORD_BYTES).enumerate() {
            let word = u64::from_ne_bytes(word.try_into().unwrap());
            // SAFETY: the pointer is valid within the closure, and the checker fails if there is another access.
            self.words[self.place(offset + n * WORD_BYTES)].with_mut(|p| unsafe { *p = word });
        }
    }

    pub(super) fn word(&self, offset: usize) -> u64 {
        // SAFETY: as in `write`.
        self.words[self.place(offset)].with(|p| unsafe { *p })
    }

    /// # Safety
    /// Always called for one type.
    pub(super) unsafe fn front<T: Default + Any + Send + Sync>(&self) -> &T {
        self.front.get_or_init(|| Box::new(T::default())).downcast_ref().unwrap()
    }
}
