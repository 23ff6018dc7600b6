//! Telling a forked child from the process that opened an engine, without a system call or a global.

use std::ptr::NonNull;

/// A page that the kernel wipes in a forked child.
#[derive(Debug)]
pub(crate) struct ForkGuard {
    page: NonNull<u8>,
    /// A simulation ends processes without ending this one.
    #[cfg(feature = "sim")]
    process: u64,
}

const PAGE_BYTES: usize = 4096;

// SAFETY: the page is only read after `new`.
unsafe impl Send for ForkGuard {}
// SAFETY: as above.
unsafe impl Sync for ForkGuard {}

impl ForkGuard {
    /// A guard of the calling process; `None` if the kernel (before 4.14) has no such pages.
    pub(crate) fn new() -> Option<ForkGuard> {
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
        if page == libc::MAP_FAILED {
            return None;
        }
        let guard = ForkGuard {
            page: NonNull::new(page.cast())?,
            #[cfg(feature = "sim")]
            process: crate::driver::sim::process(),
        };
        // SAFETY: the page was just mapped.
        unsafe {
            if libc::madvise(page, PAGE_BYTES, libc::MADV_WIPEONFORK) != 0 {
                return None;
            }
            guard.page.write(1);
        }
        Some(guard)
    }

    /// Whether this is still the process that made the guard.
    #[inline]
    pub(crate) fn same_process(&self) -> bool {
        #[cfg(feature = "sim")]
        if crate::driver::sim::process() != self.process {
            return false;
        }
        // SAFETY: the page stays mapped until `drop`; volatile because the kernel changes it behind the compiler's back.
        unsafe { self.page.as_ptr().read_volatile() == 1 }
    }
}

impl Drop for ForkGuard {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`, not used any more.
        unsafe { libc::munmap(self.page.as_ptr().cast(), PAGE_BYTES) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_child_of_a_fork_is_told_apart() {
        let guard = ForkGuard::new().unwrap();
        assert!(guard.same_process());
        // SAFETY: the child only reads the page and leaves at once.
        unsafe {
            match libc::fork() {
                0 => libc::_exit(if guard.same_process() { 1 } else { 0 }),
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
