//! Errors of the engine as Python exceptions.

use std::panic::{AssertUnwindSafe, catch_unwind};

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use tidewire::{Error, ErrorKind};

/// The exception of an error: the class of its kind, made by the package.
#[cold]
pub(crate) fn raise(py: Python<'_>, e: &Error) -> PyErr {
    static MAKE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let (kind, s3) = (e.kind(), e.s3_code());
    let parts = (kind as u32, format!("{kind:?}"), e.message(), e.place(), e.remedy_text(), s3.name(), s3.status());
    match MAKE.import(py, "tidewire._errors", "make").and_then(|make| make.call1(parts)) {
        Ok(exception) => PyErr::from_value(exception),
        Err(e) => e,
    }
}

/// Raises the error of a result.
pub(crate) trait OrRaise<T> {
    /// The value, or the exception of the error.
    fn or_raise(self, py: Python<'_>) -> PyResult<T>;
}

impl<T> OrRaise<T> for tidewire::Result<T> {
    #[inline]
    fn or_raise(self, py: Python<'_>) -> PyResult<T> {
        self.map_err(|e| raise(py, &e))
    }
}

/// Runs a call of the module. A panic becomes an exception of kind `Panic`, which `except Exception` catches, as it
/// would any other defect of one call.
#[inline]
pub(crate) fn guard<T>(py: Python<'_>, f: impl FnOnce() -> PyResult<T>) -> PyResult<T> {
    catch_unwind(AssertUnwindSafe(f)).unwrap_or_else(|panic| {
        let text = panic
            .downcast_ref::<&str>()
            .map(|s| (*s).to_owned())
            .or_else(|| panic.downcast_ref::<String>().cloned())
            .unwrap_or_default();
        let e = Error::new(ErrorKind::Panic, format!("a defect of Tidewire: {text}"));
        Err(raise(py, &e.remedy("report it, with what the process wrote to its standard error")))
    })
}

/// What is answered to an argument that cannot be used.
#[cold]
pub(crate) fn invalid_argument(name: &str, message: impl Into<String>, remedy: &str) -> Error {
    Error::new(ErrorKind::InvalidArgument, message).at(name).remedy(remedy)
}

/// The engine was closed by this process.
#[cold]
pub(crate) fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the engine is closed")
}
