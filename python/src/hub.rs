//! Greenlets: where eventlet or gevent run the host, waiting is the hub's affair, and a thread that blocks keeps all of them.
//!
//! A greenlet that is switched away from may find its stack elsewhere for a while, so nothing that another thread looks at
//! lies on it: what waits is behind an `Arc`.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Wake;
use std::time::Duration;

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use tidewire::Error;

use crate::error::OrRaise;
use crate::wait::SLICE;

/// The hub that runs the caller: see `tidewire/_hubs.py`.
pub(crate) struct Hub<'py>(Bound<'py, PyAny>);

impl<'py> Hub<'py> {
    /// The hub of the calling thread, if the host has one.
    pub(crate) fn current(py: Python<'py>) -> PyResult<Option<Hub<'py>>> {
        static CURRENT: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let hub = CURRENT.import(py, "tidewire._hubs", "current")?.call0()?;
        Ok((!hub.is_none()).then_some(Hub(hub)))
    }

    /// Lets others run until the descriptor is readable, at most for so long.
    pub(crate) fn wait(&self, fd: RawFd, left: Option<Duration>) -> PyResult<()> {
        self.0.call_method1(intern!(self.0.py(), "wait"), (fd, left.map(|l| l.as_secs_f64()))).map(drop)
    }

    /// Lets others run for so long.
    pub(crate) fn sleep(&self, time: Duration) -> PyResult<()> {
        self.0.call_method1(intern!(self.0.py(), "sleep"), (time.as_secs_f64(),)).map(drop)
    }
}

/// Does something that takes a while without the interpreter; for a host with greenlets, on a thread of its own.
pub(crate) fn run<T: Send + 'static>(py: Python<'_>, work: impl FnOnce() -> T + Send + 'static) -> PyResult<T> {
    if Hub::current(py)?.is_none() {
        return Ok(py.detach(work));
    }
    run_apart(py, work)
}

/// The same on a thread of its own in any case, for what another process may hold up: signal handlers run meanwhile. If one
/// raises, the work is left to itself.
pub(crate) fn run_apart<T: Send + 'static>(py: Python<'_>, work: impl FnOnce() -> T + Send + 'static) -> PyResult<T> {
    let alarm = Alarm::new().or_raise(py)?;
    let done = Arc::new(Mutex::new(None));
    let (ring, result) = (alarm.clone(), done.clone());
    let thread = std::thread::Builder::new().name("tidewire-python".into()).spawn(move || {
        let worked = work();
        *result.lock().unwrap_or_else(PoisonError::into_inner) = Some(worked);
        ring.ring();
    });
    thread.map_err(|e| Error::io("cannot start a thread", &e)).or_raise(py)?;
    let hub = Hub::current(py)?;
    loop {
        match &hub {
            Some(hub) => hub.wait(alarm.fd(), None)?,
            None => {
                py.detach(|| alarm.wait(SLICE));
                py.check_signals()?;
            }
        }
        alarm.hush();
        if let Some(worked) = done.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return Ok(worked);
        }
    }
}

/// A descriptor that becomes readable when a waker is woken.
pub(crate) struct Alarm(OwnedFd);

impl Alarm {
    /// # Errors
    /// If there are no descriptors left.
    pub(crate) fn new() -> Result<Arc<Alarm>, Error> {
        // SAFETY: no pointers; what is answered is checked.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            let error = Error::io("cannot make an eventfd", &std::io::Error::last_os_error());
            return Err(error.remedy("raise the limit of open files"));
        }
        // SAFETY: it was just made, and nobody else has it.
        Ok(Arc::new(Alarm(unsafe { OwnedFd::from_raw_fd(fd) })))
    }

    pub(crate) fn fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    /// Makes it readable.
    pub(crate) fn ring(&self) {
        let one = 1u64.to_ne_bytes();
        // SAFETY: eight bytes that live; the descriptor is open. It fails only if it is readable anyway.
        unsafe { libc::write(self.fd(), one.as_ptr().cast(), one.len()) };
    }

    /// Waits until it is readable, at most for so long.
    fn wait(&self, limit: Duration) {
        let mut entry = libc::pollfd { fd: self.fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one valid entry. Whatever the answer is, everything is looked at.
        unsafe { libc::poll(&mut entry, 1, limit.as_millis() as libc::c_int) };
    }

    /// Makes it unreadable.
    pub(crate) fn hush(&self) {
        let mut count = [0u8; 8];
        // SAFETY: eight bytes that may be written; the descriptor is open, and does not block.
        unsafe { libc::read(self.fd(), count.as_mut_ptr().cast(), count.len()) };
    }
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.ring();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.ring();
    }
}
