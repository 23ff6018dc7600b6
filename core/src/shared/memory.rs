//! Memory that two processes share.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;

use super::sync::{AtomicU64, Ordering};

/// Part of the file of a mapping that is mapped twice, one behind the other, so that what goes over its end goes on at its
/// beginning.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mirrored {
    /// Where it begins, in bytes: a multiple of [`PAGE_BYTES`]. It is the last part.
    pub(super) from: usize,
    /// A multiple of [`PAGE_BYTES`].
    pub(super) bytes: usize,
}

/// What mappings and their parts are made of.
pub(super) const PAGE_BYTES: usize = 4096;

/// A mapping of a file in memory. A forked child does not have it.
#[derive(Debug)]
pub(super) struct Mapping {
    base: NonNull<u8>,
    bytes: usize,
}

// SAFETY: it is memory that everybody may use from any thread; who reads and writes what is said where it is used.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

/// A new file in memory, of so many bytes, of which neither side can change the size later: memory that is there when it is
/// mapped stays there.
///
/// # Errors
/// What the system says.
pub(super) fn new_file(name: &std::ffi::CStr, bytes: usize) -> io::Result<OwnedFd> {
    // SAFETY: the name ends with a NUL.
    let fd = unsafe { libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it was just made and belongs to nobody else.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    let size = libc::off_t::try_from(bytes).map_err(io::Error::other)?;
    // SAFETY: the descriptor is open.
    if unsafe { libc::ftruncate(fd.as_raw_fd(), size) } < 0 {
        return Err(io::Error::last_os_error());
    }
    seal(fd.as_fd(), libc::F_SEAL_SHRINK | libc::F_SEAL_GROW)?;
    Ok(fd)
}

/// Whoever gets the descriptor from now on can only read; mappings that there are go on writing.
///
/// # Errors
/// What the system says.
pub(super) fn forbid_writing(fd: BorrowedFd<'_>) -> io::Result<()> {
    // `F_SEAL_FUTURE_WRITE`, of Linux 5.1.
    seal(fd, 0x0010 | libc::F_SEAL_SEAL)
}

fn seal(fd: BorrowedFd<'_>, seals: libc::c_int) -> io::Result<()> {
    // SAFETY: the descriptor is open, and the call takes no pointers.
    match unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_ADD_SEALS, seals) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Whether the size of a file is this one, and stays so.
pub(super) fn is_fixed(fd: BorrowedFd<'_>, bytes: usize) -> bool {
    // SAFETY: the descriptor is open, and the call takes no pointers.
    let seals = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GET_SEALS) };
    // SAFETY: plain numbers that the next line fills in.
    let mut stat = unsafe { std::mem::zeroed::<libc::stat>() };
    // SAFETY: the descriptor is open, and the struct may be written.
    let told = unsafe { libc::fstat(fd.as_raw_fd(), &mut stat) } == 0;
    told && seals >= 0
        && seals & libc::F_SEAL_SHRINK != 0
        && usize::try_from(stat.st_size).is_ok_and(|size| size == bytes)
}

impl Mapping {
    /// Maps `bytes` of a file from its beginning, with a part of it twice. The memory is touched at once, so that nobody pays
    /// for a page fault later.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn new(
        fd: BorrowedFd<'_>,
        bytes: usize,
        mirrored: Option<Mirrored>,
        writable: bool,
    ) -> io::Result<Mapping> {
        let all = bytes + mirrored.map_or(0, |m| m.bytes);
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a new mapping; nothing else is touched.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), all, libc::PROT_NONE, flags, -1, 0) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let Some(base) = NonNull::new(base.cast::<u8>()) else { return Err(io::Error::other("mapped at 0")) };
        let mapping = Mapping { base, bytes: all };
        mapping.place(fd, 0, bytes, 0, writable)?;
        if let Some(m) = mirrored {
            mapping.place(fd, bytes, m.bytes, m.from, writable)?;
        }
        // SAFETY: the whole mapping, which is this one's.
        unsafe { libc::madvise(base.as_ptr().cast(), all, libc::MADV_DONTFORK) };
        Ok(mapping)
    }

    fn place(&self, fd: BorrowedFd<'_>, at: usize, bytes: usize, offset: usize, writable: bool) -> io::Result<()> {
        let rights = if writable { libc::PROT_READ | libc::PROT_WRITE } else { libc::PROT_READ };
        let flags = libc::MAP_SHARED | libc::MAP_FIXED | libc::MAP_POPULATE;
        let offset = libc::off_t::try_from(offset).map_err(io::Error::other)?;
        debug_assert!(at + bytes <= self.bytes);
        // SAFETY: it replaces a part of this mapping, which nobody uses yet.
        let placed =
            unsafe { libc::mmap(self.base.as_ptr().add(at).cast(), bytes, rights, flags, fd.as_raw_fd(), offset) };
        if placed == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Where the byte at an offset is.
    ///
    /// # Panics
    /// If so many bytes from there are not within it.
    #[inline]
    pub(super) fn at(&self, offset: usize, bytes: usize) -> *mut u8 {
        assert!(offset <= self.bytes && bytes <= self.bytes - offset, "out of the mapping");
        // SAFETY: within it.
        unsafe { self.base.as_ptr().add(offset) }
    }

    /// Lets `fill` write the bytes from an offset on.
    ///
    /// # Safety
    /// Nobody else accesses them until this returns.
    ///
    /// # Panics
    /// If so many bytes from there are not within it.
    #[inline]
    pub(super) unsafe fn write(&self, offset: usize, bytes: usize, fill: impl FnOnce(&mut [u8])) {
        let at = self.at(offset, bytes);
        // SAFETY: within the mapping; the rest by contract.
        fill(unsafe { std::slice::from_raw_parts_mut(at, bytes) });
    }

    /// The eight bytes at an offset that is a multiple of eight, which the other process may write meanwhile.
    ///
    /// # Panics
    /// If they are not within it.
    #[inline]
    pub(super) fn word(&self, offset: usize) -> u64 {
        let at = self.at(offset, 8);
        debug_assert!(at.cast::<AtomicU64>().is_aligned());
        // SAFETY: within the mapping, and aligned: it begins with a page. Atomic, for others may write it.
        unsafe { (*at.cast::<AtomicU64>()).load(Ordering::Relaxed) }
    }

    /// What stands at its beginning: atomics only, for the other process writes them at any time.
    ///
    /// # Safety
    /// `T` is made of atomics alone, whatever their bytes are, and needs no larger alignment than a page has.
    pub(super) unsafe fn front<T>(&self) -> &T {
        let at = self.at(0, size_of::<T>());
        // SAFETY: within the mapping, which lives as long as `self`; the rest by contract.
        unsafe { &*at.cast::<T>() }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: made by `new`, and nobody uses it any more.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.bytes) };
    }
}
