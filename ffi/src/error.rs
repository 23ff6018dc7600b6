//! Errors as C sees them, and the barrier that every function stands behind.

use std::any::Any;
use std::ffi::{CString, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};

use engine::{Error, ErrorKind, Result};

use crate::args::null;
use crate::numbers;
use crate::raw::tidewire_result_t;

/// What went wrong in one call. It belongs to the caller, who frees it with `tidewire_error_free`. It never changes, so
/// any thread may read it.
///
/// Functions that can fail take the address of a pointer to one as their last argument, `err`. It may be NULL; then
/// only the result tells that something failed. Otherwise the pointer is set in every case: to NULL when the call
/// succeeds, to a new error when it fails. What it pointed to before is not freed.
pub struct tidewire_error_t {
    code: tidewire_result_t,
    message: CString,
    place: CString,
    remedy: CString,
    s3_code: CString,
    engines: Error,
}

impl tidewire_error_t {
    pub(crate) fn s3_code(&self) -> *const c_char {
        self.s3_code.as_ptr()
    }

    /// As the engine has told it.
    pub(crate) fn engines(&self) -> &Error {
        &self.engines
    }
}

/// What kind of error it is: the same as the result of the call that made it. `TIDEWIRE_OK` for NULL.
///
/// # Safety
/// `error` is NULL or an error that is not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidewire_error_code(error: *const tidewire_error_t) -> tidewire_result_t {
    // SAFETY: NULL or alive, by contract.
    unsafe { error.as_ref() }.map_or(OK, |e| e.code)
}

/// What happened, where, and what to do about it, for people: one line of UTF-8, NUL-terminated. It lives as long as
/// the error. Empty for NULL. The wording is not stable; programs look at the code. It contains no secrets.
///
/// # Safety
/// `error` is NULL or an error that is not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidewire_error_message(error: *const tidewire_error_t) -> *const c_char {
    // SAFETY: NULL or alive, by contract.
    unsafe { error.as_ref() }.map_or(c"".as_ptr(), |e| e.message.as_ptr())
}

/// Where in what was given it went wrong, such as `destination "x": url`; empty if there is no such place, and for NULL. A
/// part of the message by itself; it lives as long as the error.
///
/// # Safety
/// `error` is NULL or an error that is not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidewire_error_place(error: *const tidewire_error_t) -> *const c_char {
    // SAFETY: NULL or alive, by contract.
    unsafe { error.as_ref() }.map_or(c"".as_ptr(), |e| e.place.as_ptr())
}

/// What to do about it; empty if that is not known, and for NULL. A part of the message by itself; it lives as long as the
/// error.
///
/// # Safety
/// `error` is NULL or an error that is not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidewire_error_remedy(error: *const tidewire_error_t) -> *const c_char {
    // SAFETY: NULL or alive, by contract.
    unsafe { error.as_ref() }.map_or(c"".as_ptr(), |e| e.remedy.as_ptr())
}

/// Frees an error. NULL is allowed.
///
/// # Safety
/// `error` is NULL or an error that is not freed, and nobody uses it or its message any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidewire_error_free(error: *mut tidewire_error_t) {
    if !error.is_null() {
        // SAFETY: made by `report`, not freed yet, by contract.
        drop(unsafe { Box::from_raw(error) });
    }
}

pub(crate) const OK: tidewire_result_t = numbers::tidewire_result_t::TIDEWIRE_OK as u32;

/// Runs `body` behind the barrier and hands its error out.
///
/// # Safety
/// `err` is NULL or may be written.
pub(crate) unsafe fn entry(err: *mut *mut tidewire_error_t, body: impl FnOnce() -> Result<()>) -> tidewire_result_t {
    let error = match barrier(body) {
        Ok(()) => std::ptr::null_mut(),
        // SAFETY: as for this function.
        Err(e) => return unsafe { report(err, &e) },
    };
    if !err.is_null() {
        // SAFETY: may be written, by contract.
        unsafe { err.write_unaligned(error) };
    }
    OK
}

/// Runs `body` behind the barrier and hands the text out that it answers.
///
/// # Safety
/// `out`, `len_out` and `err` are NULL or may be written.
pub(crate) unsafe fn string(
    out: *mut *mut c_char,
    name: &str,
    len_out: *mut usize,
    err: *mut *mut tidewire_error_t,
    body: impl FnOnce() -> Result<String>,
) -> tidewire_result_t {
    let tell = |text: *mut c_char, len: usize| {
        // SAFETY: may be written, by contract; checked for NULL below.
        unsafe { out.write_unaligned(text) };
        if !len_out.is_null() {
            // SAFETY: may be written, by contract.
            unsafe { len_out.write_unaligned(len) };
        }
    };
    let body = || {
        if out.is_null() {
            return Err(null(name));
        }
        tell(std::ptr::null_mut(), 0);
        let text = CString::new(body()?).map_err(|_| Error::new(ErrorKind::Internal, "the text has a NUL byte"))?;
        let len = text.as_bytes().len();
        tell(text.into_raw(), len);
        Ok(())
    };
    // SAFETY: NULL or writable, by contract.
    unsafe { entry(err, body) }
}

/// Runs `body`; a panic becomes an error.
pub(crate) fn barrier<T>(body: impl FnOnce() -> Result<T>) -> Result<T> {
    // After a panic the engine is only good for closing, and its own state is behind locks that do not poison; what
    // `body` borrows from the caller is read only.
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|payload| Err(panicked(payload)))
}

#[cold]
fn panicked(payload: Box<dyn Any + Send>) -> Error {
    let what = payload
        .downcast_ref::<&str>()
        .map(|s| (*s).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned());
    // Dropping the payload runs code of whoever panicked, which may panic again.
    std::mem::forget(payload);
    Error::new(ErrorKind::Panic, format!("panic in Tidewire: {what}")).remedy("close the engine, and report the defect")
}

/// # Safety
/// `err` is NULL or may be written.
#[cold]
unsafe fn report(err: *mut *mut tidewire_error_t, error: &Error) -> tidewire_result_t {
    let code = error.kind() as u32;
    if !err.is_null() {
        let made = Box::into_raw(Box::new(tidewire_error_t {
            code,
            message: one_line(&error.to_string()),
            place: one_line(error.place().unwrap_or_default()),
            remedy: one_line(error.remedy_text().unwrap_or_default()),
            s3_code: one_line(error.s3_code().name()),
            engines: error.clone(),
        }));
        // SAFETY: may be written, by contract.
        unsafe { err.write_unaligned(made) };
    }
    code
}

/// The text with control characters escaped, so that C and log files take it as one line.
pub(crate) fn one_line(text: &str) -> CString {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() { line.extend(c.escape_default()) } else { line.push(c) }
    }
    // No NUL is left.
    CString::new(line).unwrap_or_default()
}
