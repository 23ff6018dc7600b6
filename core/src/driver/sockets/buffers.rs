//! The memory that a ring receives into: equal buffers that the kernel takes from and that are given back at once.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::IoUring;
use io_uring::types::BufRingEntry;

/// How many buffers there are; a power of two.
pub(super) const COUNT: u16 = 256;
/// What one holds. Answers are short; a longer one comes in several.
pub(super) const BYTES: usize = 2048;
/// The number of the group, of which a ring has only one.
pub(super) const GROUP: u16 = 0;

/// The kernel asks for entries at the begin of a page.
const PAGE_BYTES: usize = 4096;
const ENTRIES_BYTES: usize = (COUNT as usize * size_of::<BufRingEntry>()).next_multiple_of(PAGE_BYTES);

/// See the module.
pub(super) struct Buffers {
    /// The entries, then the buffers.
    memory: NonNull<u8>,
    tail: u16,
}

impl Buffers {
    fn layout() -> Layout {
        match Layout::from_size_align(ENTRIES_BYTES + COUNT as usize * BYTES, PAGE_BYTES) {
            Ok(layout) => layout,
            Err(_) => unreachable!("a small size and a power of two"),
        }
    }

    /// Makes them known to a ring. They must not go before the ring has finished with them: see
    /// [`Buffers::unregister`].
    pub(super) fn register(ring: &IoUring) -> io::Result<Buffers> {
        // SAFETY: the layout is not empty.
        let memory = unsafe { alloc_zeroed(Self::layout()) };
        let Some(memory) = NonNull::new(memory) else { handle_alloc_error(Self::layout()) };
        let mut buffers = Buffers { memory, tail: 0 };
        // SAFETY: the entries are there, aligned to a page, and stay until they are unregistered.
        unsafe { ring.submitter().register_buf_ring_with_flags(memory.as_ptr() as u64, COUNT, GROUP, 0)? };
        for buffer in 0..COUNT {
            buffers.give_back(buffer);
        }
        Ok(buffers)
    }

    /// Takes them from the ring again, which nothing must be received by any more.
    pub(super) fn unregister(&self, ring: &IoUring) -> io::Result<()> {
        ring.submitter().unregister_buf_ring(GROUP)
    }

    /// What was received into a buffer that the kernel has handed out.
    pub(super) fn bytes(&self, buffer: u16, len: usize) -> &[u8] {
        let buffer = usize::from(buffer % COUNT);
        // SAFETY: within the memory, which was zeroed when it was made; the kernel does not write to a buffer that it has
        // handed out until it is given back, which takes `&mut self`.
        unsafe { std::slice::from_raw_parts(self.memory.as_ptr().add(ENTRIES_BYTES + buffer * BYTES), len.min(BYTES)) }
    }

    /// Gives a buffer to the kernel.
    pub(super) fn give_back(&mut self, buffer: u16) {
        let buffer = buffer % COUNT;
        let entries = self.memory.as_ptr().cast::<BufRingEntry>();
        // SAFETY: the place is within the entries, and the kernel reads it only when the tail has passed it.
        unsafe {
            let entry = &mut *entries.add(usize::from(self.tail % COUNT));
            entry.set_addr(self.memory.as_ptr().add(ENTRIES_BYTES + usize::from(buffer) * BYTES) as u64);
            entry.set_len(BYTES as u32);
            entry.set_bid(buffer);
        }
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: the tail lies in the first entry, which is there and aligned; the kernel reads it meanwhile.
        unsafe { AtomicU16::from_ptr(BufRingEntry::tail(entries).cast_mut()) }.store(self.tail, Ordering::Release);
    }
}

impl Drop for Buffers {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout, and no ring knows of it any more.
        unsafe { dealloc(self.memory.as_ptr(), Self::layout()) };
    }
}
