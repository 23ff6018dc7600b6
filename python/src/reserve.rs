//! Reservations: an event that is told if, and only if, an operation comes to be.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyDict, PyList, PyTuple};
use tidewire::{
    Ack, AnyEngine, CommitFields, Error, ErrorKind, EventId, Intent, OnFull, Receipt, Receipts, ReserveOptions,
    ReservedBatch, Resolution,
};

use crate::aio::Poller;
use crate::args::{self, Pairs};
use crate::engine::{Engine, helper};
use crate::error::{OrRaise, guard, invalid_argument};
use crate::event::PyEvent;
use crate::publish::published;
use crate::wait::{Acked, Limit, wait_for};

/// The keywords of `Engine.reserve` that are not parts of the event.
const OPTIONS: [&str; 6] = ["intent", "bytes_max", "ack", "timeout", "block", "events"];

#[pymethods]
impl Engine {
    /// Keeps space for the event of an operation that is still to be done, and does all that may fail, so that the commit after
    /// the operation is not refused. Use it as a context manager: the end of the block commits, an exception aborts.
    ///
    /// The event is given as for :meth:`publish`, with what is known before; :meth:`Reservation.set` adds what is known after.
    /// If no rule wants such an event the reservation holds nothing, and is false.
    ///
    /// ``intent="durable"`` writes the reservation into the log before this returns: after a crash between operation and commit
    /// the next opening asks what became of it (:meth:`in_doubt`). ``bytes_max`` is the most bytes that the event will have
    /// encoded; by default what it has now and 512 more. ``block=True`` waits for space, at most ``timeout`` seconds. ``ack``
    /// and ``timeout`` are also for the commit at the end of the block, as for :meth:`publish`.
    ///
    /// >>> with engine.reserve("photos", "cats/tom.jpg") as held:
    /// ...     held.set(size=48213, etag="0f343b0931126a20f133d67c2b018a3b")
    ///
    /// Raises :exc:`Full` if there is no space, or too much is reserved (``engine.reserve_percent``): answer the client that it
    /// shall try again. :exc:`InvalidEvent`, :exc:`InvalidArgument`, :exc:`Closed`, :exc:`WrongProcess`; with a durable intent
    /// also :exc:`Timeout` and :exc:`LogFailed`. Nothing is held then.
    #[pyo3(
        signature = (*args, **kwargs),
        text_signature = "(self, bucket, key, event_type='s3:ObjectCreated:Put', *, size=None, etag=None, \
            version_id=None, requester=None, source_ip=None, request_id=None, host_id=None, region=None, \
            content_type=None, method=None, user_agent=None, bucket_owner=None, metadata=None, tags=None, data=None, \
            time_ns=None, priority='normal', origin='user', hops=0, intent='none', bytes_max=None, ack='synced', \
            timeout=30.0, block=False)"
    )]
    fn reserve(
        &self,
        py: Python<'_>,
        args: &Bound<'_, PyTuple>,
        kwargs: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Reservation> {
        let (event, given) = args::event_and_options(args, kwargs, &OPTIONS[..5])?;
        let event = args::with_event(&event, |event| PyEvent::of(py, event))?;
        let mut held = self.hold(py, vec![event], &given)?;
        held.pop().ok_or_else(|| PyValueError::new_err("nothing was reserved"))
    }

    /// As :meth:`reserve`, to be awaited, or for ``async with``: the end of the block commits, an exception aborts. A durable
    /// intent, and ``block=True``, keep a thread waiting.
    #[pyo3(
        signature = (*args, **kwargs),
        text_signature = "(self, bucket, key, event_type='s3:ObjectCreated:Put', *, size=None, etag=None, \
            version_id=None, requester=None, source_ip=None, request_id=None, host_id=None, region=None, \
            content_type=None, method=None, user_agent=None, bucket_owner=None, metadata=None, tags=None, data=None, \
            time_ns=None, priority='normal', origin='user', hops=0, intent='none', bytes_max=None, ack='synced', \
            timeout=30.0, block=False)"
    )]
    fn reserve_async<'py>(
        slf: &Bound<'py, Self>,
        args: &Bound<'py, PyTuple>,
        kwargs: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        helper(slf.py(), "Reserving", (slf.getattr("reserve")?, args, kwargs))
    }

    /// As :meth:`reserve` for the events of one operation on several objects: there is space for all of them or for none. The
    /// options are those of :meth:`reserve`; durable intents are written together.
    ///
    /// Raises what :meth:`reserve` does.
    #[pyo3(
        signature = (events, **options),
        text_signature = "(self, events, *, intent='none', bytes_max=None, ack='synced', timeout=30.0, block=False)"
    )]
    fn reserve_batch(
        &self,
        py: Python<'_>,
        events: &Bound<'_, PyAny>,
        options: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<BatchReservation> {
        let given = options.cloned().unwrap_or_else(|| PyDict::new(py));
        for name in given.keys() {
            if !OPTIONS[..5].contains(&args::text("options", &name)?) {
                return Err(PyTypeError::new_err(format!("reserve_batch() has no argument {}", name.repr()?)));
            }
        }
        let events: PyResult<Vec<PyEvent>> =
            events.try_iter()?.map(|event| args::with_event(&event?, |event| PyEvent::of(py, event))).collect();
        let options = Commit::of_dict(py, &given)?;
        let items = self.hold(py, events?, &given)?;
        let items: PyResult<Vec<Py<Reservation>>> = items.into_iter().map(|item| Py::new(py, item)).collect();
        Ok(BatchReservation { items: items?, ack: options.ack, limit: options.limit })
    }

    /// The reservations with durable intents that earlier runs left without an end: a list of ``dict`` with ``token``,
    /// ``reserved_ns`` (nanoseconds since the epoch) and ``event`` as it was declared. Say of each what became of the operation
    /// (:meth:`resolve`).
    ///
    /// Raises :exc:`WrongProcess` in a forked child.
    fn in_doubt<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        guard(py, || {
            let list = PyList::empty(py);
            for doubt in self.look(py, AnyEngine::in_doubt)? {
                let dict = PyDict::new(py);
                dict.set_item("token", doubt.token.to_string())?;
                dict.set_item("reserved_ns", doubt.reserved_ns)?;
                dict.set_item("event", Py::new(py, PyEvent::of_frame(doubt.event()))?)?;
                list.append(dict)?;
            }
            Ok(list)
        })
    }

    /// Says what became of an operation that a crash left in doubt, and waits until that is durable: ``event`` if it came to
    /// be, of the bucket, key and type that were declared; ``None`` if it did not. To say the same again changes nothing.
    ///
    /// Raises :exc:`NotFound` if nothing of this token is in doubt, :exc:`InvalidArgument` if the opposite was said before,
    /// :exc:`InvalidEvent` if it is another event than was declared; and what :meth:`publish` does.
    #[pyo3(signature = (token, event, /))]
    fn resolve(&self, py: Python<'_>, token: &str, event: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        let token: EventId = token.parse().or_raise(py)?;
        let event = event.map(|event| args::with_event(event, |event| PyEvent::of(py, event))).transpose()?;
        let engine = self.state.engine.clone();
        guard(py, || {
            let resolve = move || match &event {
                Some(event) => event.with(|event| engine.resolve(token, Resolution::Commit(event))),
                None => engine.resolve(token, Resolution::Abort),
            };
            self.state.run(py, resolve)?.or_raise(py)
        })
    }
}

impl Engine {
    fn hold(&self, py: Python<'_>, events: Vec<PyEvent>, given: &Bound<'_, PyDict>) -> PyResult<Vec<Reservation>> {
        let commit = Commit::of_dict(py, given)?;
        let get = |name: &str| -> PyResult<Option<Bound<'_, PyAny>>> {
            Ok(given.get_item(name)?.filter(|value| !value.is_none()))
        };
        let intent = match get("intent")? {
            None => Intent::None,
            Some(name) => match args::text("intent", &name)? {
                "none" => Intent::None,
                "durable" => Intent::Durable,
                other => return Err(args::unknown("intent", other, "use none or durable")).or_raise(py),
            },
        };
        let bytes_max = args::number("bytes_max", get("bytes_max")?.as_ref(), usize::MAX as u64)?;
        let block = get("block")?.map_or(Ok(false), |block| block.extract())?;
        let limit = commit.limit.0.unwrap_or(Duration::MAX);
        let options = ReserveOptions {
            bytes_max: bytes_max.map(|n| n as usize),
            intent,
            on_full: if block { OnFull::Block(limit) } else { OnFull::Refuse },
            ack_timeout: limit,
        };
        self.state.check_open().or_raise(py)?;
        let engine = self.state.engine.clone();
        let reserve = move || -> Result<Vec<Option<tidewire::Reservation>>, Error> {
            match PyEvent::with_all(&events, |events| engine.reserve_batch(events, &options))? {
                ReservedBatch::Held(batch) => Ok(batch.into_items()),
                ReservedBatch::WouldBlock => {
                    let e = Error::new(ErrorKind::Full, "too much is reserved now");
                    Err(e.remedy("try again when others have committed, or raise engine.reserve_percent"))
                }
            }
        };
        let held = guard(py, || {
            if block || intent == Intent::Durable || self.state.client().is_some() {
                self.state.run(py, reserve)?.or_raise(py)
            } else {
                reserve().or_raise(py)
            }
        })?;
        Ok(held.into_iter().map(|held| Reservation { held, commit: commit.copy(), set: Mutex::new(None) }).collect())
    }
}

/// How a reservation is committed at the end of its block.
struct Commit {
    ack: Ack,
    limit: Limit,
}

impl Commit {
    fn of_dict(py: Python<'_>, given: &Bound<'_, PyDict>) -> PyResult<Commit> {
        let ack = given.get_item("ack")?.filter(|ack| !ack.is_none());
        let ack = args::ack(args::text_or_none("ack", ack.as_ref())?).or_raise(py)?;
        let timeout = match given.get_item("timeout")? {
            None => Some(30.0),
            Some(timeout) => timeout.extract()?,
        };
        Ok(Commit { ack, limit: Limit::new(timeout).or_raise(py)? })
    }

    fn copy(&self) -> Commit {
        Commit { ack: self.ack, limit: self.limit }
    }
}

/// Space for one event, and the promise that its commit is not refused for want of it: see :meth:`Engine.reserve`.
///
/// It may be used from any thread. One that nobody holds any more is aborted. It is false if no rule wants the event.
#[pyclass(frozen, weakref, module = "tidewire")]
pub(crate) struct Reservation {
    /// Nothing if no rule wants the event.
    held: Option<tidewire::Reservation>,
    commit: Commit,
    /// What was learned since.
    set: Mutex<Option<Py<PyDict>>>,
}

#[pymethods]
impl Reservation {
    /// By what a journal of the host can name it: the id that the event has once it is committed. Only with a durable intent.
    #[getter]
    fn token(&self) -> Option<String> {
        self.held.as_ref()?.token().map(|token| token.to_string())
    }

    /// The most bytes that the event may have encoded; 0 if nothing is held.
    #[getter]
    fn bytes_max(&self) -> usize {
        self.held.as_ref().map_or(0, tidewire::Reservation::bytes_max)
    }

    /// Whether it is neither committed nor aborted.
    #[getter]
    fn is_open(&self) -> bool {
        self.held.as_ref().is_some_and(tidewire::Reservation::is_open)
    }

    fn __bool__(&self) -> bool {
        self.held.is_some()
    }

    /// Remembers for the commit what is known of the event by now: ``size``, ``etag``, ``version_id``, ``content_type``,
    /// ``metadata``, ``tags``, ``data`` and ``time_ns``.
    #[pyo3(
        signature = (**fields),
        text_signature = "(self, *, size=None, etag=None, version_id=None, content_type=None, metadata=None, tags=None, \
            data=None, time_ns=None)"
    )]
    fn set(&self, py: Python<'_>, fields: Option<&Bound<'_, PyDict>>) -> PyResult<()> {
        let Some(fields) = fields else { return Ok(()) };
        // What is wrong is said here, where it is said.
        with_fields(Some(fields), |_| Ok(()))?;
        let mut set = self.set.lock().unwrap_or_else(PoisonError::into_inner);
        set.get_or_insert_with(|| PyDict::new(py).unbind()).bind(py).update(fields.as_mapping())
    }

    /// The operation came to be: its event is accepted, as it was declared but for these parts and those of :meth:`set`. After
    /// the first time this changes nothing. Answers ``Published.NO_MATCH`` if nothing is held.
    ///
    /// Raises :exc:`InvalidEvent` if the event is not valid or larger than was reserved: the reservation stays open.
    /// :exc:`InvalidArgument` if it was aborted. :exc:`Closed` or :exc:`LogFailed`: the event is not accepted, and a durable
    /// intent is in doubt at the next opening. :exc:`Timeout`: it is accepted, but has not reached the ack level.
    #[pyo3(
        signature = (*, ack=None, timeout=None, **fields),
        text_signature = "(self, *, size=None, etag=None, version_id=None, content_type=None, metadata=None, tags=None, \
            data=None, time_ns=None, ack=None, timeout=None)"
    )]
    fn commit(
        &self,
        py: Python<'_>,
        ack: Option<&Bound<'_, PyAny>>,
        timeout: Option<f64>,
        fields: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Py<PyAny>> {
        let how = self.how(py, ack, timeout)?;
        guard(py, || {
            let Some(receipt) = self.submit(py, fields, how.ack)? else {
                return Ok(published(py, tidewire::Published::NoMatch)?.clone_ref(py));
            };
            if !receipt.is(how.ack) {
                wait_for(py, how.limit.start(), Acked::new(receipt, how.ack))?;
            }
            Ok(published(py, tidewire::Published::Accepted)?.clone_ref(py))
        })
    }

    /// As :meth:`commit`, to be awaited. The event is on its way when this returns.
    #[pyo3(
        signature = (*, ack=None, timeout=None, **fields),
        text_signature = "(self, *, size=None, etag=None, version_id=None, content_type=None, metadata=None, tags=None, \
            data=None, time_ns=None, ack=None, timeout=None)"
    )]
    fn commit_async<'py>(
        slf: &Bound<'py, Self>,
        ack: Option<&Bound<'py, PyAny>>,
        timeout: Option<f64>,
        fields: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (py, this) = (slf.py(), slf.get());
        let how = this.how(py, ack, timeout)?;
        helper(py, "get_running_loop", ())?;
        let Some(receipt) = this.submit(py, fields, how.ack)? else {
            return helper(py, "answer", (published(py, tidewire::Published::NoMatch)?,));
        };
        let answer = published(py, tidewire::Published::Accepted)?;
        if receipt.is(how.ack) {
            return helper(py, "answer", (answer,));
        }
        let reached = receipt.reached(how.ack);
        let poller = helper(py, "poller", ())?;
        let added = poller.cast::<Poller>()?.get().add(Box::pin(reached));
        match added {
            Ok(id) => helper(py, "polled", (id, answer, how.limit.0.map(|l| l.as_secs_f64()))),
            Err(done) => {
                done.or_raise(py)?;
                helper(py, "answer", (answer,))
            }
        }
    }

    /// The operation did not come to be: nothing is told, and the space is free again. After the first time this changes
    /// nothing.
    ///
    /// Raises :exc:`InvalidArgument` if it was committed; :exc:`Closed` or :exc:`LogFailed` if a durable intent could not be
    /// ended and is in doubt at the next opening; :exc:`WrongProcess`.
    fn abort(&self, py: Python<'_>) -> PyResult<()> {
        guard(py, || self.held.as_ref().map_or(Ok(()), tidewire::Reservation::abort).or_raise(py))
    }

    fn __enter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    /// Commits, or after an exception aborts, if neither was done within the block.
    #[pyo3(signature = (exc_type, exc_value, traceback, /))]
    fn __exit__(
        &self,
        py: Python<'_>,
        exc_type: &Bound<'_, PyAny>,
        exc_value: &Bound<'_, PyAny>,
        traceback: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let _ = (exc_value, traceback);
        if !self.is_open() {
            return Ok(());
        }
        if exc_type.is_none() { self.commit(py, None, None, None).map(drop) } else { self.abort(py) }
    }

    fn __aenter__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        helper(slf.py(), "answer", (slf,))
    }

    /// As the end of a ``with`` block.
    #[pyo3(signature = (exc_type, exc_value, traceback, /))]
    fn __aexit__<'py>(
        slf: &Bound<'py, Self>,
        exc_type: &Bound<'py, PyAny>,
        exc_value: &Bound<'py, PyAny>,
        traceback: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let _ = (exc_value, traceback);
        let py = slf.py();
        if slf.get().is_open() {
            if exc_type.is_none() {
                return helper(py, "then_none", (Self::commit_async(slf, None, None, None)?,));
            }
            slf.get().abort(py)?;
        }
        helper(py, "answer", (py.None(),))
    }

    fn __repr__(&self) -> String {
        let state = match &self.held {
            None => "not wanted",
            Some(held) if held.is_open() => "open",
            Some(_) => "ended",
        };
        format!("<tidewire.Reservation, {state}>")
    }
}

impl Reservation {
    fn how(&self, py: Python<'_>, ack: Option<&Bound<'_, PyAny>>, timeout: Option<f64>) -> PyResult<Commit> {
        let mut how = self.commit.copy();
        if let Some(ack) = args::text_or_none("ack", ack)? {
            how.ack = args::ack(Some(ack)).or_raise(py)?;
        }
        if timeout.is_some() {
            how.limit = Limit::new(timeout).or_raise(py)?;
        }
        Ok(how)
    }

    fn submit(&self, py: Python<'_>, fields: Option<&Bound<'_, PyDict>>, ack: Ack) -> PyResult<Option<Receipt>> {
        let Some(held) = &self.held else { return Ok(None) };
        let all = self.fields(py, fields)?;
        with_fields(all.as_ref(), |fields| held.submit(fields, ack).or_raise(py)).map(Some)
    }

    /// What was set, with what is given now.
    fn fields<'py>(
        &self,
        py: Python<'py>,
        fields: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Option<Bound<'py, PyDict>>> {
        let set = self.set.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|set| set.clone_ref(py));
        let Some(set) = set else { return Ok(fields.cloned()) };
        let all = set.bind(py).copy()?;
        if let Some(fields) = fields {
            all.update(fields.as_mapping())?;
        }
        Ok(Some(all))
    }
}

/// The reservations of one operation on several objects: see :meth:`Engine.reserve_batch`. A sequence of
/// :class:`Reservation`, in the order of the events, and a context manager: the end of the block commits those that are open,
/// with one wait for all of them; an exception aborts them.
#[pyclass(frozen, module = "tidewire", sequence)]
pub(crate) struct BatchReservation {
    items: Vec<Py<Reservation>>,
    ack: Ack,
    limit: Limit,
}

#[pymethods]
impl BatchReservation {
    fn __len__(&self) -> usize {
        self.items.len()
    }

    fn __getitem__(&self, py: Python<'_>, index: isize) -> PyResult<Py<Reservation>> {
        let at = if index < 0 { index + self.items.len() as isize } else { index };
        let item = usize::try_from(at).ok().and_then(|at| self.items.get(at));
        item.map(|item| item.clone_ref(py))
            .ok_or_else(|| pyo3::exceptions::PyIndexError::new_err("there is no such event"))
    }

    fn __iter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        Ok(PyTuple::new(py, &self.items)?.into_any().try_iter()?.into_any())
    }

    /// Commits those that are open, as :meth:`Reservation.commit` with what was set of each, and waits once for all of them.
    ///
    /// Raises what :meth:`Reservation.commit` does, of the first event that it is said of: those before it are committed, it
    /// and those after it stay open.
    fn commit_all(&self, py: Python<'_>) -> PyResult<()> {
        guard(py, || {
            let mut receipts = Receipts::default();
            let mut refused = Ok(());
            for item in &self.items {
                let item = item.get();
                if !item.is_open() {
                    continue;
                }
                match item.submit(py, None, self.ack) {
                    Ok(receipt) => receipt.into_iter().for_each(|receipt| receipts.add(receipt)),
                    Err(e) => {
                        refused = Err(e);
                        break;
                    }
                }
            }
            let mut waited = Ok(());
            if self.ack > Ack::Memory && !receipts.is(self.ack) {
                waited = wait_for(py, self.limit.start(), Acked::new(receipts, self.ack));
            }
            refused.and(waited)
        })
    }

    /// Aborts those that are open.
    ///
    /// Raises what :meth:`Reservation.abort` does, of the last event that it is said of; all are aborted.
    fn abort_all(&self, py: Python<'_>) -> PyResult<()> {
        let mut result = Ok(());
        for item in self.items.iter().map(Py::get).filter(|item| item.is_open()) {
            result = item.abort(py).and(result);
        }
        result
    }

    fn __enter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    /// Commits those that are open, or after an exception aborts them.
    #[pyo3(signature = (exc_type, exc_value, traceback, /))]
    fn __exit__(
        &self,
        py: Python<'_>,
        exc_type: &Bound<'_, PyAny>,
        exc_value: &Bound<'_, PyAny>,
        traceback: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let _ = (exc_value, traceback);
        if exc_type.is_none() { self.commit_all(py) } else { self.abort_all(py) }
    }
}

/// Does something with what is known of an event after its operation.
fn with_fields<T>(fields: Option<&Bound<'_, PyDict>>, f: impl FnOnce(&CommitFields<'_>) -> PyResult<T>) -> PyResult<T> {
    const NAMES: [&str; 8] = ["size", "etag", "version_id", "content_type", "metadata", "tags", "data", "time_ns"];
    let Some(fields) = fields else { return f(&CommitFields::default()) };
    let py = fields.py();
    for name in fields.keys() {
        let name = args::text("fields", &name)?;
        if !NAMES.contains(&name) {
            let message = format!("`{}` is nothing that a commit can say", name.escape_debug());
            return Err(invalid_argument("fields", message, "use one of the names of Reservation.set")).or_raise(py);
        }
    }
    let get = |name: &str| -> PyResult<Option<Bound<'_, PyAny>>> {
        Ok(fields.get_item(name)?.filter(|value| !value.is_none()))
    };
    let (etag, version_id, content_type) = (get("etag")?, get("version_id")?, get("content_type")?);
    let pairs = |name| get(name)?.map(|given| Pairs::new(name, &given)).transpose();
    let (metadata, tags) = (pairs("metadata")?, pairs("tags")?);
    let borrow = |name, pairs: Option<_>| pairs.map_or(Ok(Vec::new()), |p: &Pairs<'_>| p.borrow(name));
    let (metadata, tags) = (borrow("metadata", metadata.as_ref())?, borrow("tags", tags.as_ref())?);
    let given = get("data")?;
    let data = given.as_ref().map(args::data).transpose()?;
    f(&CommitFields {
        time_ns: args::number("time_ns", get("time_ns")?.as_ref(), u64::MAX)?.unwrap_or(0),
        size: args::number("size", get("size")?.as_ref(), u64::MAX)?,
        etag: args::text_or_none("etag", etag.as_ref())?.unwrap_or_default(),
        version_id: args::text_or_none("version_id", version_id.as_ref())?.unwrap_or_default(),
        content_type: args::text_or_none("content_type", content_type.as_ref())?.unwrap_or_default(),
        metadata: &metadata,
        tags: &tags,
        data: data.as_deref().unwrap_or_default(),
    })
}
