//! Waiting as Python hosts expect it: with a limit, without the interpreter, ended by Ctrl-C, and where the host runs greenlets,
//! without keeping their hub.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use pyo3::prelude::*;
use tidewire::shared::Pending;
use tidewire::{Ack, Error, ErrorKind, Flush, Receipt, Receipts};

use crate::error::{OrRaise, invalid_argument};
use crate::hub::{Alarm, Hub};

/// How long a call waits at a stretch before it lets the interpreter handle signals.
pub(crate) const SLICE: Duration = Duration::from_millis(100);

/// How long a greenlet sleeps before it looks again at something that cannot tell when it is there.
const LOOK: Duration = Duration::from_millis(10);

/// How much longer than it was given another process may take to answer.
const ANSWER_MARGIN: Duration = Duration::from_secs(5);

/// The longest wait that is told from no limit: about 30 years.
const SECONDS_MAX: f64 = 1e9;

/// How long a call may wait; `None` is without limit.
#[derive(Clone, Copy)]
pub(crate) struct Limit(pub(crate) Option<Duration>);

impl Limit {
    /// The limit of a `timeout` in seconds.
    pub(crate) fn new(seconds: Option<f64>) -> Result<Limit, Error> {
        match seconds {
            None => Ok(Limit(None)),
            Some(s) if s >= SECONDS_MAX => Ok(Limit(None)),
            // Not a number compares with nothing, and so ends below.
            Some(s) if s >= 0.0 => Ok(Limit(Some(Duration::from_secs_f64(s)))),
            Some(s) => Err(invalid_argument("timeout", format!("{s} is no time to wait"), "give seconds, 0 or more")),
        }
    }

    /// The same for what another process waits for: its answer comes a moment later.
    pub(crate) fn of_another(self) -> Limit {
        Limit(self.0.map(|limit| limit + ANSWER_MARGIN))
    }

    /// Starts the clock.
    pub(crate) fn start(self) -> Wait {
        Wait(self.0.map(|d| Instant::now() + d))
    }
}

/// A wait under way: when it ends.
#[derive(Clone, Copy)]
pub(crate) struct Wait(Option<Instant>);

impl Wait {
    /// The next stretch: its end, and whether it is the last.
    pub(crate) fn slice(self) -> (Instant, bool) {
        let end = Instant::now() + SLICE;
        match self.0 {
            Some(deadline) if deadline <= end => (deadline, true),
            _ => (end, false),
        }
    }

    /// What is left of it; `None` is without limit.
    pub(crate) fn left(self) -> Option<Duration> {
        self.0.map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }
}

/// Something to wait for.
pub(crate) trait Waiting: Send {
    /// What is there in the end.
    type Output: Send;

    /// Waits on this thread, at most until then.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] if it is not there by then; it may be called again.
    fn block(&mut self, until: Instant) -> Result<Self::Output, Error>;

    /// Looks whether it is there, and has the waker told when it is. `None`: there is no way to be told.
    fn poll(&mut self, _cx: &mut Context<'_>) -> Option<Poll<Result<Self::Output, Error>>> {
        None
    }

    /// If it cannot tell a waker: a descriptor that is readable when it is worth looking again, where there is one.
    fn ask(&mut self) -> Result<Option<OwnedFd>, Error> {
        Ok(None)
    }
}

/// Something that can only be looked at.
pub(crate) struct Look<F>(pub(crate) F);

impl<T: Send, F: FnMut(Instant) -> Result<T, Error> + Send> Waiting for Look<F> {
    type Output = T;

    fn block(&mut self, until: Instant) -> Result<T, Error> {
        (self.0)(until)
    }
}

impl<T: Send> Waiting for Pending<T> {
    /// Also an answer that the time is over.
    type Output = Result<T, Error>;

    fn block(&mut self, until: Instant) -> Result<Result<T, Error>, Error> {
        self.wait(until).transpose().ok_or_else(no_answer)
    }

    fn ask(&mut self) -> Result<Option<OwnedFd>, Error> {
        self.as_fd().try_clone_to_owned().map(Some).map_err(|e| Error::io("cannot wait for an answer", &e))
    }
}

/// What is said of another process that has not answered in time.
#[cold]
pub(crate) fn no_answer() -> Error {
    Error::new(ErrorKind::Timeout, "the engine's process has not answered yet").remedy("see what keeps it")
}

impl Waiting for Flush {
    type Output = ();

    fn block(&mut self, until: Instant) -> Result<(), Error> {
        self.wait(until)
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Option<Poll<Result<(), Error>>> {
        Some(Pin::new(self).poll(cx))
    }
}

/// Reaches a level.
type Reaching = Pin<Box<dyn Future<Output = Result<(), Error>> + Send>>;

/// That an event, or some, reach their level.
pub(crate) struct Acked<R> {
    receipt: R,
    ack: Ack,
    future: Option<Reaching>,
}

impl<R> Acked<R> {
    pub(crate) fn new(receipt: R, ack: Ack) -> Acked<R> {
        Acked { receipt, ack, future: None }
    }
}

impl Waiting for Acked<Receipt> {
    type Output = ();

    fn block(&mut self, until: Instant) -> Result<(), Error> {
        self.receipt.wait(self.ack, Some(until))
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Option<Poll<Result<(), Error>>> {
        let future = self.future.get_or_insert_with(|| Box::pin(self.receipt.reached(self.ack)));
        Some(future.as_mut().poll(cx))
    }
}

impl Waiting for Acked<Receipts> {
    type Output = ();

    fn block(&mut self, until: Instant) -> Result<(), Error> {
        self.receipt.wait(self.ack, until)
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Option<Poll<Result<(), Error>>> {
        let (receipts, ack) = (&self.receipt, self.ack);
        let future = self.future.get_or_insert_with(|| {
            let receipts = receipts.clone();
            Box::pin(async move { receipts.reached(ack).await })
        });
        Some(future.as_mut().poll(cx))
    }
}

/// Waits for something until it is there, the wait is over, or a signal handler raises.
pub(crate) fn wait_for<W: Waiting>(py: Python<'_>, wait: Wait, mut what: W) -> PyResult<W::Output> {
    if let Some(hub) = Hub::current(py)? {
        return wait_in_hub(py, &hub, wait, what);
    }
    loop {
        let (end, last) = wait.slice();
        match py.detach(|| what.block(end)) {
            Err(e) if !last && e.kind() == ErrorKind::Timeout => py.check_signals()?,
            other => return other.or_raise(py),
        }
    }
}

fn wait_in_hub<W: Waiting>(py: Python<'_>, hub: &Hub<'_>, wait: Wait, mut what: W) -> PyResult<W::Output> {
    let alarm = Alarm::new().or_raise(py)?;
    let waker = Waker::from(alarm.clone());
    loop {
        let now = Instant::now();
        match py.detach(|| what.poll(&mut Context::from_waker(&waker))) {
            Some(Poll::Ready(there)) => return there.or_raise(py),
            Some(Poll::Pending) => {
                let left = wait.left();
                if left.is_some_and(|left| left.is_zero()) {
                    return py.detach(|| what.block(now)).or_raise(py);
                }
                hub.wait(alarm.fd(), left)?;
                alarm.hush();
            }
            None => {
                let told_by = py.detach(|| what.ask()).or_raise(py)?;
                match (py.detach(|| what.block(now)), told_by) {
                    (Err(e), told_by)
                        if e.kind() == ErrorKind::Timeout && wait.left().is_none_or(|left| !left.is_zero()) =>
                    {
                        match told_by {
                            Some(fd) => hub.wait(fd.as_raw_fd(), wait.left())?,
                            None => hub.sleep(wait.left().map_or(LOOK, |left| left.min(LOOK)))?,
                        }
                    }
                    (other, _) => return other.or_raise(py),
                }
            }
        }
    }
}
