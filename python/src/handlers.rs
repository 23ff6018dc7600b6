//! Destinations that the host serves itself: its callables, and the batches that they are given.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyBytes, PyList};
use tidewire::custom;
use tidewire::{Error, ErrorKind};

use crate::args;
use crate::call::{call_helper, tell_raised};
use crate::engine::{Engine, helper};
use crate::error::{OrRaise, guard, invalid_argument};

#[pymethods]
impl Engine {
    /// Gives the engine a callable, or a coroutine function, for the custom destinations that name it: ``[[destination]] name =
    /// "index", type = "custom"``, with ``handler = "NAME"`` if that is another. It takes the place of an earlier one; ``None``
    /// takes that away, and events wait.
    ///
    /// It is called with one :class:`Batch` after the other. When it returns, everything is taken, or all but the events whose
    /// places it returns as a list; an exception means that it is tried again, and is logged. It may say more by the methods of
    /// the batch. A callable has a thread of its own: it may block, and holds up its own destinations and nothing else. A
    /// coroutine function runs on ``loop``, by default the one that runs now.
    ///
    /// Raises :exc:`InvalidConfig` for a name that is not valid; :exc:`InvalidArgument` if there is no loop for a coroutine
    /// function, or if the engine is another process's, or shared; :exc:`IoError` if there can be no thread; :exc:`Closed`,
    /// :exc:`WrongProcess`.
    ///
    /// >>> told = []
    /// >>> engine.set_handler("mine", lambda batch: told.extend(batch.records))
    #[pyo3(signature = (name, handler, *, r#loop=None))]
    fn set_handler(
        &self,
        py: Python<'_>,
        name: String,
        handler: Option<&Bound<'_, PyAny>>,
        r#loop: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let handler = match handler {
            None => None,
            Some(handler) if !handler.is_callable() => {
                return Err(args::wrong_type("handler", "a callable or None", handler));
            }
            Some(handler) => {
                let is_coroutine: bool = helper(py, "is_coroutine", (handler,))?.extract()?;
                if !is_coroutine && r#loop.is_some() {
                    return Err(PyTypeError::new_err("argument 'loop': only coroutine functions run on a loop"));
                }
                let on = match (is_coroutine, r#loop) {
                    (false, _) => None,
                    (true, Some(on)) => Some(on.clone()),
                    (true, None) => {
                        let running = helper(py, "running", ())?;
                        if running.is_none() {
                            let remedy = "call it where a loop runs, or give the loop";
                            return Err(invalid_argument("loop", "no loop runs here", remedy)).or_raise(py);
                        }
                        Some(running)
                    }
                };
                let host = Host { call: handler.clone().unbind(), on: on.map(Bound::unbind) };
                Some(Arc::new(host) as Arc<dyn custom::Handler>)
            }
        };
        self.change(py, move |engine| engine.set_handler(&name, handler))
    }
}

/// The callable of the host.
struct Host {
    call: Py<PyAny>,
    /// The loop that coroutines run on.
    on: Option<Py<PyAny>>,
}

impl custom::Handler for Host {
    fn deliver(&self, batch: custom::Batch) {
        // Where the interpreter ends nobody takes it, and it is tried again in the next run.
        Python::try_attach(|py| {
            let told = Batch::new(py, batch).and_then(|batch| match &self.on {
                None => call_helper(py, "handle", (&self.call, batch)),
                Some(on) => call_helper(py, "handle_on", (on, &self.call, batch)),
            });
            if let Err(e) = told {
                tell_raised(py, e, Some(&self.call));
            }
        });
    }
}

/// Some events of a custom destination, with the duty to say what became of them: see :meth:`Engine.set_handler`. As with every
/// destination, events may come more than once, with the same ids.
///
/// It has the records as a sequence of ``bytes``. One answer counts; further ones do nothing. One whose answer does not come
/// within the destination's ``timeout``, or that nobody has any more, is tried again.
#[pyclass(frozen, weakref, module = "tidewire")]
pub(crate) struct Batch {
    batch: Mutex<Option<custom::Batch>>,
    kept: AtomicBool,
    destination: String,
    content_type: String,
    ids: Vec<String>,
    records: Py<PyList>,
    headers: Vec<(String, String)>,
    deadline: Instant,
}

#[pymethods]
impl Batch {
    /// The name of the destination.
    #[getter]
    fn destination(&self) -> &str {
        &self.destination
    }

    /// The media type of the body.
    #[getter]
    fn content_type(&self) -> &str {
        &self.content_type
    }

    /// The ids of the events.
    #[getter]
    fn ids(&self) -> Vec<String> {
        self.ids.clone()
    }

    /// The record of each event by itself, as the destination's profile and format write it.
    #[getter]
    fn records(&self, py: Python<'_>) -> Py<PyList> {
        self.records.clone_ref(py)
    }

    /// Headers that belong to the record where the format has some, as CloudEvents in binary mode: pairs of name and value.
    #[getter]
    fn headers(&self) -> Vec<(String, String)> {
        self.headers.clone()
    }

    /// For how many seconds an answer still counts; 0 if none does any more.
    #[getter]
    fn left(&self) -> f64 {
        self.deadline.saturating_duration_since(Instant::now()).as_secs_f64()
    }

    /// Whether it was answered.
    #[getter]
    fn answered(&self) -> bool {
        self.batch.lock().unwrap_or_else(PoisonError::into_inner).is_none()
    }

    /// The body that a webhook would get.
    ///
    /// Raises :exc:`InvalidArgument` once it was answered.
    fn body<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let batch = self.batch.lock().unwrap_or_else(PoisonError::into_inner);
        let gone = || invalid_argument("batch", "it was answered", "read the body before");
        let pieces: Vec<&[u8]> = batch.as_ref().ok_or_else(gone).or_raise(py)?.body().collect();
        Ok(PyBytes::new(py, &pieces.concat()))
    }

    fn __len__(&self) -> usize {
        self.ids.len()
    }

    fn __getitem__<'py>(&self, py: Python<'py>, index: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        self.records.bind(py).as_any().get_item(index)
    }

    fn __iter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        Ok(self.records.bind(py).as_any().try_iter()?.into_any())
    }

    /// Everything was taken, and is yours to keep.
    fn accept(&self) {
        self.answer(custom::Batch::accept);
    }

    /// Everything was taken but for the events of these places, which are tried again.
    ///
    /// Raises :exc:`InvalidArgument` for a place that there is not.
    #[pyo3(signature = (failed, reason=String::new()), text_signature = "($self, failed, reason='')")]
    fn accept_but(&self, py: Python<'_>, failed: Vec<usize>, reason: String) -> PyResult<()> {
        if let Some(n) = failed.iter().find(|n| **n >= self.ids.len()) {
            let message = format!("there is no event {n}; there are {}", self.ids.len());
            return Err(invalid_argument("failed", message, "count from 0")).or_raise(py);
        }
        self.answer(|batch| batch.accept_but(&failed, &reason));
        Ok(())
    }

    /// It could not be taken now: it is tried again, with the waits of the destination's ``retry``, and counts as a failure.
    #[pyo3(signature = (reason=String::new()), text_signature = "($self, reason='')")]
    fn retry(&self, reason: String) {
        self.answer(|batch| batch.retry(&reason));
    }

    /// Nothing more is to come for so many seconds; then it is tried again. Does not count as an attempt.
    #[pyo3(signature = (seconds, reason=String::new()), text_signature = "($self, seconds, reason='')")]
    fn retry_after(&self, py: Python<'_>, seconds: f64, reason: String) -> PyResult<()> {
        let wait = args::seconds("seconds", seconds).or_raise(py)?;
        self.answer(|batch| batch.retry_after(wait, &reason));
        Ok(())
    }

    /// Something in it will never be taken. It is tried again in parts, until what is refused alone is a dead letter.
    #[pyo3(signature = (reason=String::new()), text_signature = "($self, reason='')")]
    fn refuse(&self, reason: String) {
        self.answer(|batch| batch.refuse(&reason));
    }

    /// Keeps it, to be answered later, from any thread: that the callable returns is then no answer.
    fn keep(&self) {
        self.kept.store(true, Ordering::Relaxed);
    }

    /// Whether somebody else answers it, or has.
    #[getter]
    fn _settled(&self) -> bool {
        self.kept.load(Ordering::Relaxed) || self.answered()
    }

    fn __repr__(&self) -> String {
        format!("<tidewire.Batch of {} for {}>", self.ids.len(), self.destination)
    }
}

impl Batch {
    fn new(py: Python<'_>, batch: custom::Batch) -> PyResult<Bound<'_, Batch>> {
        guard(py, || {
            let records = PyList::empty(py);
            let mut ids = Vec::with_capacity(batch.events());
            for n in 0..batch.events() {
                let (Some(id), Some(record)) = (batch.id(n), batch.record(n)) else {
                    return Err(Error::new(ErrorKind::Internal, "a batch has fewer events than it says")).or_raise(py);
                };
                ids.push(id.to_string());
                records.append(PyBytes::new(py, record))?;
            }
            let this = Batch {
                kept: AtomicBool::new(false),
                destination: batch.destination().to_owned(),
                content_type: batch.content_type().to_owned(),
                ids,
                records: records.unbind(),
                headers: batch.headers().to_vec(),
                deadline: batch.deadline(),
                batch: Mutex::new(Some(batch)),
            };
            Bound::new(py, this)
        })
    }

    fn answer(&self, give: impl FnOnce(custom::Batch)) {
        let batch = self.batch.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(batch) = batch {
            give(batch);
        }
    }
}
