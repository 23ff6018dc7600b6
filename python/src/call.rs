//! Calls into Python from threads that are none of Python's.

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::engine::helper_of;

/// Holds a thread for ever where it is ended.
///
/// A thread that wants to go on in Python after the interpreter has ended is ended there, before CPython 3.14 by
/// `pthread_exit`, which goes back through all frames and drops what they have: objects of Python, without the lock that they
/// need, and the lock itself, which is fatal. PyO3 holds such a thread where it asks for the lock; this does it for Python code
/// that it runs.
struct Held;

impl Drop for Held {
    fn drop(&mut self) {
        loop {
            std::thread::park();
        }
    }
}

unsafe extern "C-unwind" {
    // As in `pyo3::ffi`, but that one must not be left by unwinding.
    fn PyObject_CallObject(callable: *mut ffi::PyObject, args: *mut ffi::PyObject) -> *mut ffi::PyObject;
}

/// Calls `callable` on a thread that the interpreter may end before it returns; then this does not return either.
///
/// # Errors
/// What it raises, or why the arguments cannot be made.
pub(crate) fn call<'py>(
    callable: &Bound<'py, PyAny>,
    args: impl IntoPyObject<'py, Target = PyTuple, Output = Bound<'py, PyTuple>, Error = PyErr>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = callable.py();
    let args = args.into_pyobject(py)?;
    // SAFETY: the thread is attached, and has both.
    unsafe { Bound::from_owned_ptr_or_err(py, call_held(callable.as_ptr(), args.as_ptr())) }
}

/// # Safety
/// As for `PyObject_CallObject`.
#[inline(never)]
unsafe fn call_held(callable: *mut ffi::PyObject, args: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // The innermost frame: none that has anything to drop is between it and Python.
    let held = Held;
    // SAFETY: as for this function.
    let result = unsafe { PyObject_CallObject(callable, args) };
    std::mem::forget(held);
    result
}

/// Calls a function of `tidewire/_aio.py` on such a thread.
pub(crate) fn call_helper<'py>(
    py: Python<'py>,
    name: &str,
    args: impl IntoPyObject<'py, Target = PyTuple, Output = Bound<'py, PyTuple>, Error = PyErr>,
) -> PyResult<Bound<'py, PyAny>> {
    call(&helper_of(py, name)?, args)
}

/// Tells what a callable of the host raised where nobody waits for it, by `sys.unraisablehook`.
pub(crate) fn tell_raised(py: Python<'_>, error: PyErr, callable: Option<&Py<PyAny>>) {
    if let Err(e) = call_helper(py, "unraisable", (error.into_value(py), callable)) {
        log::error!("what a callable raised could not be told: {e}");
    }
}
