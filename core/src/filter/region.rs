//! One piece of memory for the blocks of many scopes: each begins with a line of the cache, and much memory has large pages,
//! so that the processor finds it without looking up where its page is first.
//!
//! The memory is free when the last of the blocks is. A scope that is compiled anew has a block of its own.

use std::alloc::{Layout, handle_alloc_error};
use std::ops::Range;
use std::ptr::NonNull;

use bytes::Bytes;

const LINE_BYTES: usize = 64;
const LARGE_PAGE_BYTES: usize = 2 << 20;

/// Blocks one behind the other, each at the beginning of a line of the cache.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    bytes: Vec<u8>,
    places: Vec<Range<usize>>,
}

impl Blocks {
    pub(super) fn push(&mut self, block: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(block);
        self.places.push(start..self.bytes.len());
        self.bytes.resize(self.bytes.len().next_multiple_of(LINE_BYTES), 0);
    }

    /// Moves them to where they stay.
    pub(super) fn gather(self) -> impl Iterator<Item = Bytes> {
        let total = self.bytes.len();
        let (all, start) = if total < LARGE_PAGE_BYTES {
            let mut memory = vec![0; total + LINE_BYTES];
            let start = memory.as_ptr().align_offset(LINE_BYTES).min(LINE_BYTES);
            memory[start..start + total].copy_from_slice(&self.bytes);
            (Bytes::from(memory), start)
        } else {
            let mut region = Region::new(total);
            region.bytes_mut().copy_from_slice(&self.bytes);
            (Bytes::from_owner(region), 0)
        };
        self.places.into_iter().map(move |place| all.slice(start + place.start..start + place.end))
    }
}

/// Memory with large pages, where the system has them to give.
#[derive(Debug)]
struct Region {
    start: NonNull<u8>,
    len: usize,
    mapping: *mut libc::c_void,
    mapped: usize,
}

// SAFETY: the memory belongs to this value alone, and is written through `&mut` only.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

impl Region {
    /// Memory of `len` bytes, all zero.
    fn new(len: usize) -> Region {
        let mapped = len.next_multiple_of(LARGE_PAGE_BYTES) + LARGE_PAGE_BYTES;
        // SAFETY: a new private mapping; nothing else is touched.
        let mapping = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                mapped,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        let start = (mapping != libc::MAP_FAILED).then(|| NonNull::new(mapping.cast::<u8>())).flatten();
        let Some(start) = start else {
            handle_alloc_error(Layout::from_size_align(mapped, LINE_BYTES).unwrap_or_else(|_| Layout::new::<u64>()));
        };
        // SAFETY: less than a large page on, and the mapping is at least that much longer than `len`.
        let start = unsafe { start.add(start.align_offset(LARGE_PAGE_BYTES)) };
        // A wish; it works as well if it is not granted.
        // SAFETY: the range is part of the mapping.
        unsafe {
            libc::madvise(start.as_ptr().cast(), len.next_multiple_of(LARGE_PAGE_BYTES), libc::MADV_HUGEPAGE);
        }
        Region { start, len, mapping, mapped }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: so many bytes of the mapping, which is all zero at first and borrowed as a whole here.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl AsRef<[u8]> for Region {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: so many bytes of the mapping, which nobody writes while this is borrowed.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: the mapping that `new` made, which nothing refers to any more.
        unsafe { libc::munmap(self.mapping, self.mapped) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_keep_their_bytes() {
        for size in [1, 100, LARGE_PAGE_BYTES / 2 + 1] {
            let mut blocks = Blocks::default();
            (0..5).for_each(|i| blocks.push(&vec![i as u8 + 1; size + i]));
            let mut blocks: Vec<Bytes> = blocks.gather().collect();
            for (i, block) in blocks.iter().enumerate() {
                assert_eq!(block, &vec![i as u8 + 1; size + i]);
                assert_eq!(block.as_ptr().align_offset(LINE_BYTES), 0);
            }
            let last = blocks.pop().unwrap();
            drop(blocks);
            assert_eq!(last, vec![5; size + 4]);
        }
        assert_eq!(Blocks::default().gather().count(), 0);
    }
}
