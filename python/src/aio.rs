//! What asyncio waits for: descriptors that a loop watches, and what has happened when they are readable. `tidewire/_aio.py`
//! has the loop's side.

use std::collections::HashMap;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll, Wake, Waker};

use pyo3::prelude::*;
use tidewire::{Ack, Completions, Error, Receipt};

use crate::error::{OrRaise, guard, raise};
use crate::hub::Alarm;

/// So many are taken at a time, so that a loop comes round to its other work.
const AT_ONCE: usize = 1024;

/// What became of something that was waited for: its number, and `None` or an exception.
type Became = (u64, Option<Py<PyAny>>);

fn became(py: Python<'_>, id: u64, result: Result<(), Error>) -> Became {
    (id, result.err().map(|e| raise(py, &e).into_value(py).into_any()))
}

/// The acknowledgements that one loop waits for, of one engine.
#[pyclass(frozen, module = "tidewire._tidewire")]
pub(crate) struct Acks(pub(crate) Completions);

#[pymethods]
impl Acks {
    /// What the loop watches for reading.
    fn fileno(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }

    /// What has happened; never waits.
    fn take(&self, py: Python<'_>) -> PyResult<Vec<Became>> {
        guard(py, || {
            let mut all = Vec::new();
            self.0.take(AT_ONCE, |c| all.push((c.user_data, c.result))).or_raise(py)?;
            Ok(all.into_iter().map(|(id, result)| became(py, id, result)).collect())
        })
    }
}

impl Acks {
    /// Has the loop told when the event has reached its level.
    pub(crate) fn watch(&self, py: Python<'_>, receipt: &Receipt, ack: Ack, id: u64) -> PyResult<()> {
        self.0.watch(receipt, ack, id).or_raise(py)
    }
}

pub(crate) type Task = Pin<Box<dyn Future<Output = Result<(), Error>> + Send>>;

/// Whatever else one loop waits for, of all engines.
#[pyclass(frozen, module = "tidewire._tidewire")]
pub(crate) struct Poller(Arc<Inner>);

struct Inner {
    alarm: Arc<Alarm>,
    told: AtomicBool,
    woken: Mutex<Vec<u64>>,
    tasks: Mutex<Tasks>,
}

#[derive(Default)]
struct Tasks {
    next: u64,
    all: HashMap<u64, Task>,
}

/// Wakes one task.
struct Bell {
    id: u64,
    inner: Weak<Inner>,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        let Some(inner) = self.inner.upgrade() else { return };
        inner.woken.lock().unwrap_or_else(PoisonError::into_inner).push(self.id);
        if !inner.told.swap(true, Ordering::SeqCst) {
            inner.alarm.ring();
        }
    }
}

#[pymethods]
impl Poller {
    #[new]
    fn new(py: Python<'_>) -> PyResult<Poller> {
        let alarm = Alarm::new().or_raise(py)?;
        let inner = Inner { alarm, told: AtomicBool::new(false), woken: Mutex::default(), tasks: Mutex::default() };
        Ok(Poller(Arc::new(inner)))
    }

    /// What the loop watches for reading.
    fn fileno(&self) -> RawFd {
        self.0.alarm.fd()
    }

    /// What has happened; never waits.
    fn take(&self, py: Python<'_>) -> PyResult<Vec<Became>> {
        guard(py, || {
            let there = py.detach(|| {
                // Before looking: what comes after this tells again.
                self.0.alarm.hush();
                self.0.told.store(false, Ordering::SeqCst);
                let mut woken = std::mem::take(&mut *self.0.woken.lock().unwrap_or_else(PoisonError::into_inner));
                woken.sort_unstable();
                woken.dedup();
                woken.into_iter().filter_map(|id| Some((id, self.poll(id)?))).collect::<Vec<_>>()
            });
            Ok(there.into_iter().map(|(id, result)| became(py, id, result)).collect())
        })
    }

    /// Nobody waits for this any more.
    fn forget(&self, id: u64) {
        let task = self.0.tasks.lock().unwrap_or_else(PoisonError::into_inner).all.remove(&id);
        drop(task);
    }
}

impl Poller {
    /// Waits for something: its number, or what became of it if it is there already.
    pub(crate) fn add(&self, task: Task) -> Result<u64, Result<(), Error>> {
        let id = {
            let mut tasks = self.0.tasks.lock().unwrap_or_else(PoisonError::into_inner);
            tasks.next += 1;
            let id = tasks.next;
            tasks.all.insert(id, task);
            id
        };
        match self.poll(id) {
            None => Ok(id),
            Some(there) => Err(there),
        }
    }

    fn poll(&self, id: u64) -> Option<Result<(), Error>> {
        let mut task = self.0.tasks.lock().unwrap_or_else(PoisonError::into_inner).all.remove(&id)?;
        let waker = Waker::from(Arc::new(Bell { id, inner: Arc::downgrade(&self.0) }));
        match task.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(there) => Some(there),
            Poll::Pending => {
                self.0.tasks.lock().unwrap_or_else(PoisonError::into_inner).all.insert(id, task);
                None
            }
        }
    }
}
