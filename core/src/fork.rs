//! Telling a forked child from the process that opened an engine, without a system call or a global.

use std::alloc::{Layout, handle_alloc_error};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A value on a page that the kernel wipes in a forked child. Clones share it.
#[derive(Debug)]
pub(crate) struct ForkGuard<T = ()> {
    page: NonNull<Page<T>>,
    /// A simulation ends processes without ending this one.
    #[cfg(feature = "sim")]
    process: u64,
}

#[derive(Debug)]
#[repr(C)]
struct Page<T> {
    /// [`HERE`], and nothing in a child.
    mark: u64,
    clones: AtomicUsize,
    value: T,
}

const HERE: u64 = 1;
const PAGE_BYTES: usize = 4096;

// SAFETY: the page is written by `new` alone, but for the count and what the value does by itself, of which any thread may
// be the last to use it.
unsafe impl<T: Send + Sync> Send for ForkGuard<T> {}
// SAFETY: as above.
unsafe impl<T: Send + Sync> Sync for ForkGuard<T> {}

impl<T> ForkGuard<T> {
    /// A guard of the calling process. If the kernel (before 4.14) has no such pages, children are not told apart.
    pub(crate) fn new(value: T) -> ForkGuard<T> {
        // The value is forgotten with its page.
        const { assert!(size_of::<Page<T>>() <= PAGE_BYTES && !std::mem::needs_drop::<T>()) };
        // SAFETY: a new private mapping; nothing else is touched.
        let page = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                PAGE_BYTES,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        let page = match NonNull::new(page.cast::<Page<T>>()) {
            Some(page) if page.as_ptr().cast() != libc::MAP_FAILED => page,
            _ => handle_alloc_error(Layout::new::<Page<T>>()),
        };
        // SAFETY: the page was just mapped, and is large enough and aligned.
        unsafe {
            libc::madvise(page.as_ptr().cast(), PAGE_BYTES, libc::MADV_WIPEONFORK);
            page.write(Page { mark: HERE, clones: AtomicUsize::new(1), value });
        }
        ForkGuard {
            page,
            #[cfg(feature = "sim")]
            process: crate::driver::sim::process(),
        }
    }

    /// The value, if this is still the process that made the guard.
    #[inline]
    pub(crate) fn get(&self) -> Option<&T> {
        #[cfg(feature = "sim")]
        if crate::driver::sim::process() != self.process {
            return None;
        }
        // SAFETY: the page stays mapped until the last clone is dropped.
        self.is_here().then(|| unsafe { &(*self.page.as_ptr()).value })
    }

    #[inline]
    fn is_here(&self) -> bool {
        // SAFETY: as in `get`; volatile because the kernel changes it behind the compiler's back.
        unsafe { (&raw const (*self.page.as_ptr()).mark).read_volatile() == HERE }
    }

    /// Whether this is still the process that made the guard.
    pub(crate) fn same_process(&self) -> bool {
        self.get().is_some()
    }

    fn clones(&self) -> &AtomicUsize {
        // SAFETY: as in `get`; a page that was wiped has a count, too.
        unsafe { &(*self.page.as_ptr()).clones }
    }
}

impl<T> Clone for ForkGuard<T> {
    fn clone(&self) -> Self {
        self.clones().fetch_add(1, Ordering::Relaxed);
        ForkGuard {
            page: self.page,
            #[cfg(feature = "sim")]
            process: self.process,
        }
    }
}

impl<T> Drop for ForkGuard<T> {
    fn drop(&mut self) {
        // In a child the count was wiped, too: the page stays.
        if self.clones().fetch_sub(1, Ordering::AcqRel) == 1 && self.is_here() {
            // SAFETY: mapped by `new`, and this was the last clone.
            unsafe { libc::munmap(self.page.as_ptr().cast(), PAGE_BYTES) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_child_of_a_fork_is_told_apart() {
        let guard = ForkGuard::new(AtomicUsize::new(7));
        let clone = guard.clone();
        drop(guard);
        let guard = clone;
        assert_eq!(guard.get().unwrap().load(Ordering::Relaxed), 7);
        // SAFETY: the child only reads the page and leaves at once.
        unsafe {
            match libc::fork() {
                0 => {
                    let clone = guard.clone();
                    let taken = guard.same_process() || clone.same_process();
                    drop((guard, clone));
                    libc::_exit(i32::from(taken))
                }
                child => {
                    let mut status = 0;
                    assert_eq!(libc::waitpid(child, &mut status, 0), child);
                    assert_eq!(status, 0, "the child took itself for its parent");
                }
            }
        }
        assert!(guard.same_process());
    }
}
