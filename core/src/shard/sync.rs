//! What the lock-free parts of a shard are made of: atomics, locks, fences, and the memory of the ring.
//!
//! A module of its own because the model check (`tests/model`) compiles `ring.rs` and `progress.rs` as they are with
//! another version of it, in which each operation here tells the checker what it does.

use std::alloc::{Layout, handle_alloc_error};
use std::sync::atomic::compiler_fence;

pub(super) use std::sync::OnceLock;
pub(super) use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering, fence};

pub(super) use futures::task::AtomicWaker;

pub(super) use crate::lock::{Condvar, Mutex};

/// A pair of fences of which the frequent one costs nothing.
///
/// Between a publisher's store of a record and its look at the consumer's state there must be a full fence, which would
/// wait for all those stores to reach memory. With membarrier(2) the consumer, which sleeps seldom, makes every running
/// thread of the process pass such a fence at once, and the publishers need only keep the compiler from reordering. Where
/// the kernel has no such call, both sides use an ordinary fence.
pub(super) struct Fences {
    expedited: bool,
}

/// `MEMBARRIER_CMD_PRIVATE_EXPEDITED` and the command that registers for it.
const MEMBARRIER_EXPEDITED: libc::c_int = 1 << 3;
const MEMBARRIER_REGISTER: libc::c_int = 1 << 4;

fn membarrier(command: libc::c_int) -> bool {
    // SAFETY: the call takes no pointers.
    unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) == 0 }
}

impl Fences {
    pub(super) fn new() -> Fences {
        Fences { expedited: cfg!(not(miri)) && membarrier(MEMBARRIER_REGISTER) }
    }

    #[inline]
    pub(super) fn light(&self) {
        if self.expedited {
            compiler_fence(Ordering::SeqCst);
        } else {
            fence(Ordering::SeqCst);
        }
    }

    pub(super) fn heavy(&self) {
        fence(Ordering::SeqCst);
        if self.expedited && !membarrier(MEMBARRIER_EXPEDITED) {
            // Registered, so this cannot fail; going on without it could lose a wake-up.
            log::error!("membarrier failed: {}", std::io::Error::last_os_error());
        }
    }
}

/// Zeroed memory of its own, in large pages where the system has them: a publisher walks through the whole ring, and each
/// page it has not seen for a while costs it a walk through the page tables.
pub(super) struct Memory {
    start: *mut u8,
    mapping: *mut libc::c_void,
    bytes: usize,
}

/// The size of [`Memory::words`]; offsets of words are multiples of it.
pub(super) const WORDS_BYTES: u64 = 16;

const LARGE_PAGE_BYTES: usize = 2 << 20;

// SAFETY: the memory belongs to this value; who may access which part of it when is a matter of the callers of its unsafe
// functions.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Memory {
    /// Memory of `capacity` bytes, a multiple of a page. All of it is touched at once.
    pub(super) fn new(capacity: usize) -> Memory {
        let align = if capacity >= LARGE_PAGE_BYTES { LARGE_PAGE_BYTES } else { 4096 };
        let bytes = capacity + align;
        // SAFETY: a new private mapping; nothing else is touched.
        let mapping = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if mapping == libc::MAP_FAILED {
            handle_alloc_error(Layout::from_size_align(bytes, align).unwrap_or_else(|_| Layout::new::<u64>()));
        }
        let start = mapping.cast::<u8>();
        // SAFETY: at most `align` bytes on, and the mapping is that much longer than `capacity`.
        let start = unsafe { start.add(start.align_offset(align)) };
        // A wish; the ring works as well if it is not granted.
        // SAFETY: the range is part of the mapping.
        unsafe { libc::madvise(start.cast(), capacity, libc::MADV_HUGEPAGE) };
        for at in (0..capacity).step_by(4096) {
            // SAFETY: within the mapping; volatile so that the page is really touched.
            unsafe { start.add(at).write_volatile(0) };
        }
        Memory { start, mapping, bytes }
    }

    /// The two words at an offset.
    #[inline]
    pub(super) fn words(&self, offset: u64) -> &[AtomicU64; 2] {
        // SAFETY: offsets are multiples of 16 and the memory is page-aligned, so both words lie within it.
        unsafe { &*self.start.add(offset as usize).cast::<[AtomicU64; 2]>() }
    }

    /// Lets `fill` write `len` bytes.
    ///
    /// # Safety
    /// They lie within the memory, and nobody else accesses them until this returns.
    #[inline]
    pub(super) unsafe fn write(&self, offset: u64, len: usize, fill: impl FnOnce(&mut [u8])) {
        // SAFETY: promised by the caller.
        fill(unsafe { std::slice::from_raw_parts_mut(self.start.add(offset as usize), len) });
    }

    /// Lets `each` read `len` bytes.
    ///
    /// # Safety
    /// They lie within the memory, and nobody writes them until this returns.
    #[inline]
    pub(super) unsafe fn read<R>(&self, offset: u64, len: usize, each: impl FnOnce(&[u8]) -> R) -> R {
        // SAFETY: promised by the caller.
        each(unsafe { std::slice::from_raw_parts(self.start.add(offset as usize), len) })
    }

    /// Asks for the cache line at an offset, which will be written soon.
    #[inline]
    pub(super) fn prefetch(&self, offset: u64) {
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        // SAFETY: a hint, which has no effect on memory, be the address in it or, at its end, behind it. A processor that
        // does not know the instruction ignores it.
        unsafe {
            std::arch::asm!(
                "prefetchw [{}]",
                in(reg) self.start.wrapping_add(offset as usize),
                options(nostack, preserves_flags, readonly)
            );
        }
        #[cfg(not(all(target_arch = "x86_64", not(miri))))]
        let _ = offset;
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`; the ring that used it is gone.
        unsafe { libc::munmap(self.mapping, self.bytes) };
    }
}
