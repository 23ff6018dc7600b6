//! What C holds by a pointer: made by one function, freed by another.

use engine::Result;

use crate::args::null;
use crate::error::barrier;

/// Sets the place where a handle goes to NULL, which it stays if the call fails.
///
/// # Safety
/// `out` is NULL or may be written.
pub(crate) unsafe fn none<T>(out: *mut *mut T, name: &str) -> Result<()> {
    if out.is_null() {
        return Err(null(name));
    }
    // SAFETY: as for this function.
    unsafe { out.write_unaligned(std::ptr::null_mut()) };
    Ok(())
}

/// Hands a value out.
///
/// # Safety
/// `out` may be written.
pub(crate) unsafe fn give<T>(out: *mut *mut T, value: T) {
    // SAFETY: as for this function.
    unsafe { out.write_unaligned(Box::into_raw(Box::new(value))) };
}

/// What was handed out.
///
/// # Safety
/// `handle` is NULL or not freed for `'a`.
pub(crate) unsafe fn held<'a, T>(handle: *const T, name: &str) -> Result<&'a T> {
    // SAFETY: as for this function.
    unsafe { handle.as_ref() }.ok_or_else(|| null(name))
}

/// Frees what was handed out, and sets the pointer to NULL.
///
/// # Safety
/// `handle` is NULL, or may be read and written; then it points to NULL or to what [`give`] has made and nobody uses.
pub(crate) unsafe fn free<T>(handle: *mut *mut T) {
    let _ = barrier(|| {
        // SAFETY: as for this function.
        drop(unsafe { take(handle) });
        Ok(())
    });
}

/// Takes back what was handed out, if it is there, and sets the pointer to NULL.
///
/// # Safety
/// As for [`free`].
pub(crate) unsafe fn take<T>(handle: *mut *mut T) -> Option<Box<T>> {
    if handle.is_null() {
        return None;
    }
    // SAFETY: as for this function.
    let taken = unsafe { handle.replace(std::ptr::null_mut()) };
    // SAFETY: as for this function.
    (!taken.is_null()).then(|| unsafe { Box::from_raw(taken) })
}
