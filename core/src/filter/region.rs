//! One piece of memory, or a few, for the blocks of many scopes: each begins with a line of the cache, and much memory has large pages,
//! so that the processor finds it without looking up where its page is first.
//!
//! The memory is free when the last of the blocks is. A scope that is compiled anew has a block of its own.

use std::alloc::{Layout, handle_alloc_error};
use std::ops::Range;
use std::ptr::NonNull;

use bytes::Bytes;

const LINE_BYTES: usize = 64;
const LARGE_PAGE_BYTES: usize = 2 << 20;
/// What is not used of a region takes no memory.
const REGION_BYTES: usize = 64 << 20;

/// Blocks one behind the other, each at the beginning of a line of the cache.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    /// The first, as long as they are few.
    few: Vec<u8>,
    /// All of them, once they are many.
    regions: Vec<Region>,
    /// Of the last region.
    used: usize,
    /// The number of the region, and the place in it.
    places: Vec<(usize, Range<usize>)>,
}

impl Blocks {
    pub(super) fn push(&mut self, block: &[u8]) {
        if self.regions.is_empty() {
            let start = self.few.len();
            if start + block.len() <= LARGE_PAGE_BYTES {
                self.few.extend_from_slice(block);
                self.few.resize(self.few.len().next_multiple_of(LINE_BYTES), 0);
                self.places.push((0, start..start + block.len()));
                return;
            }
            let mut region = Region::new(REGION_BYTES.max(start));
            region.bytes_mut()[..start].copy_from_slice(&std::mem::take(&mut self.few));
            self.regions.push(region);
            self.used = start;
        }
        let fits = |region: &&mut Region| region.len - self.used >= block.len();
        let region = match self.regions.last_mut().filter(fits) {
            Some(region) => region,
            None => {
                self.used = 0;
                self.regions.push_mut(Region::new(REGION_BYTES.max(block.len())))
            }
        };
        let place = self.used..self.used + block.len();
        region.bytes_mut()[place.clone()].copy_from_slice(block);
        self.used = place.end.next_multiple_of(LINE_BYTES).min(region.len);
        self.places.push((self.regions.len() - 1, place));
    }

    /// Gives them out.
    pub(super) fn finish(self) -> impl Iterator<Item = Bytes> {
        let (mut all, mut first): (Vec<Bytes>, usize) = (Vec::new(), 0);
        if self.regions.is_empty() {
            let mut memory = vec![0; self.few.len() + LINE_BYTES];
            first = memory.as_ptr().align_offset(LINE_BYTES).min(LINE_BYTES);
            memory[first..first + self.few.len()].copy_from_slice(&self.few);
            all.push(memory.into());
        }
        all.extend(self.regions.into_iter().map(Bytes::from_owner));
        self.places.into_iter().map(move |(region, place)| all[region].slice(first + place.start..first + place.end))
    }
}

/// An empty list with room for `len`, in large pages if it is long: they are there with fewer faults.
pub(super) fn long_list<T>(len: usize) -> Vec<T> {
    let mut list: Vec<T> = Vec::with_capacity(len);
    let spare = list.spare_capacity_mut();
    let before = spare.as_ptr().cast::<u8>().align_offset(LARGE_PAGE_BYTES);
    let pages = size_of_val(spare).saturating_sub(before) / LARGE_PAGE_BYTES;
    if pages > 0 {
        // SAFETY: whole pages within the memory of the list; it says how they are to be made, and changes nothing in them.
        unsafe {
            let start = spare.as_mut_ptr().cast::<u8>().add(before);
            libc::madvise(start.cast(), pages * LARGE_PAGE_BYTES, libc::MADV_HUGEPAGE);
        }
    }
    list
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
        for size in [1, 100, LARGE_PAGE_BYTES / 2 + 1, REGION_BYTES / 3, REGION_BYTES + 1] {
            let mut blocks = Blocks::default();
            (0..5).for_each(|i| blocks.push(&vec![i as u8 + 1; size + i]));
            let mut blocks: Vec<Bytes> = blocks.finish().collect();
            for (i, block) in blocks.iter().enumerate() {
                assert!(block == &vec![i as u8 + 1; size + i]);
                assert_eq!(block.as_ptr().align_offset(LINE_BYTES), 0);
            }
            let last = blocks.pop().unwrap();
            drop(blocks);
            assert!(last == vec![5; size + 4]);
        }
        assert_eq!(Blocks::default().finish().count(), 0);
    }

    #[test]
    fn long_lists_are_lists() {
        for len in [0, 1, LARGE_PAGE_BYTES, 4 * LARGE_PAGE_BYTES] {
            let mut list = long_list::<u16>(len);
            assert!(list.is_empty() && list.capacity() >= len);
            list.extend((0..len).map(|n| n as u16));
            assert!(list.iter().enumerate().all(|(n, x)| n as u16 == *x));
        }
        assert!(long_list::<()>(5).is_empty());
    }
}
