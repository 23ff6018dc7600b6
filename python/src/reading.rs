//! Reading the log: tails, which follow it, and groups of consumers, which share it.

use std::collections::VecDeque;
use std::os::fd::{IntoRawFd, OwnedFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use pyo3::prelude::*;
use pyo3::types::{PyAny, PyDict, PyList};
use tidewire::log::reader::{self, GapCause, Item, ReadFrom};
use tidewire::shared::{AnyConsumer, AnyTail};
use tidewire::{AnyEngine, ConsumerOptions, Delivery as Given, Error, ErrorKind, Lease};

use crate::aio::Poller;
use crate::args;
use crate::engine::{Engine, helper};
use crate::error::{OrRaise, guard, invalid_argument};
use crate::event::PyEvent;
use crate::wait::{Limit, Waiting, wait_for};

/// The most that one call brings, whatever it asks for.
const FETCH_MAX: usize = 10_000;

#[pymethods]
impl Engine {
    /// Follows the log: an iterator, also an asynchronous one, of :class:`Entry` for the events from some place on, then for each
    /// one as it is published, and of :class:`Gap` for what is missing. It ends when the engine is closed.
    ///
    /// ``start`` is ``now`` or ``beginning``; instead ``from_ns`` begins with events whose clock is at least that, in nanoseconds
    /// since the epoch, and ``position`` goes on where another tail stopped (:meth:`Tail.position`). ``bucket``, ``events`` (names
    /// and wildcards of types) and ``filter`` (a :class:`Filter`, or the native form) say which events; what is not given is no
    /// condition. Only events that a rule wants, or that are kept (``engine.retention``), are in the log. A tail keeps nothing
    /// there: what is removed before it was read comes as a gap.
    ///
    /// Raises :exc:`InvalidArgument` for a position of another data directory, :exc:`InvalidConfig` for a filter, a bucket or
    /// types that are wrong, :exc:`Closed`, :exc:`WrongProcess`.
    ///
    /// >>> tail = engine.tail(bucket="photos", filter={"suffix": ".jpg"})
    /// >>> engine.publish("photos", "cats/tim.jpg")
    /// <Published.ACCEPTED: 1>
    /// >>> next(tail).event.key
    /// b'cats/tim.jpg'
    #[pyo3(
        signature = (*, start=None, from_ns=None, position=None, bucket=None, events=None, filter=None),
        text_signature = "(self, *, start='now', from_ns=None, position=None, bucket=None, events=None, filter=None)"
    )]
    #[allow(clippy::too_many_arguments)]
    fn tail(
        &self,
        py: Python<'_>,
        start: Option<&str>,
        from_ns: Option<u64>,
        position: Option<&str>,
        bucket: Option<&Bound<'_, PyAny>>,
        events: Option<&Bound<'_, PyAny>>,
        filter: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Tail> {
        self.state.check_open().or_raise(py)?;
        let wanted = args::event_filter(py, &self.state.engine, bucket, events, filter)?;
        let from = read_from(start, from_ns, position).or_raise(py)?;
        let tail = guard(py, || py.detach(|| self.state.engine.tail(wanted, &from)).or_raise(py))?;
        Ok(Tail { tail: Arc::new(Mutex::new(tail)) })
    }

    /// A member of a group of consumers, which is made if it is not there: an iterator, also an asynchronous one, of
    /// :class:`Delivery`, to be acknowledged, and :class:`Gap`.
    ///
    /// Members of a group share its events: each goes to one of them, on a lease. Of one key there is one event out at a time, so
    /// that the events of a key are processed in order. An event that is not acknowledged in time goes out again. The events that
    /// a group wants are kept in the log for it, whether or not a rule wants them. A group exists until :meth:`delete_group`.
    ///
    /// ``start`` and the others as for :meth:`tail`, for a group that is made. ``visibility_timeout`` is how long a member has for
    /// an event before another may get it, in seconds. ``deliveries_max`` is how often an event is given out before it becomes a
    /// dead letter. ``batch`` is the most that is fetched at a time, 1 to 10,000. ``lag_bytes_max`` and ``lag_age_max`` (seconds)
    /// limit the log that is kept for a group that is behind; what it has not read by then comes as a gap.
    ///
    /// Raises :exc:`InvalidArgument` for a name that is not allowed, another filter than the group's, or a position of another
    /// directory; :exc:`InvalidConfig` for options out of range; :exc:`Full` if there are too many groups; :exc:`IoError` and the
    /// like if it cannot be stored; :exc:`Closed`, :exc:`WrongProcess`.
    #[pyo3(
        signature = (group, *, start=None, from_ns=None, position=None, bucket=None, events=None, filter=None,
            visibility_timeout=None, deliveries_max=None, batch=None, lag_bytes_max=None, lag_age_max=None),
        text_signature = "(self, group, *, start='now', from_ns=None, position=None, bucket=None, events=None, filter=None, \
            visibility_timeout=30.0, deliveries_max=16, batch=100, lag_bytes_max=1073741824, lag_age_max=604800.0)"
    )]
    #[allow(clippy::too_many_arguments)]
    fn consumer(
        &self,
        py: Python<'_>,
        group: String,
        start: Option<&str>,
        from_ns: Option<u64>,
        position: Option<&str>,
        bucket: Option<&Bound<'_, PyAny>>,
        events: Option<&Bound<'_, PyAny>>,
        filter: Option<&Bound<'_, PyAny>>,
        visibility_timeout: Option<f64>,
        deliveries_max: Option<u32>,
        batch: Option<usize>,
        lag_bytes_max: Option<u64>,
        lag_age_max: Option<f64>,
    ) -> PyResult<Consumer> {
        self.state.check_open().or_raise(py)?;
        let mut options = ConsumerOptions::default();
        options.filter = args::event_filter(py, &self.state.engine, bucket, events, filter)?;
        options.from = read_from(start, from_ns, position).or_raise(py)?;
        if let Some(s) = visibility_timeout {
            options.visibility_timeout = args::seconds("visibility_timeout", s).or_raise(py)?;
        }
        options.deliveries_max = deliveries_max.unwrap_or(options.deliveries_max);
        options.batch = batch.unwrap_or(options.batch);
        options.lag_bytes_max = lag_bytes_max.unwrap_or(options.lag_bytes_max);
        if let Some(s) = lag_age_max {
            options.lag_age_max = args::seconds("lag_age_max", s).or_raise(py)?;
        }
        let consumer = self.change(py, move |engine| engine.consumer(&group, &options))?;
        Ok(Consumer { consumer: Mutex::new(Some(Arc::new(consumer))), fetched: Mutex::default() })
    }

    /// Deletes a group of consumers: what it has done is forgotten, and the log is not kept for it any more. Its members get
    /// :exc:`NotFound` from then on.
    ///
    /// Raises :exc:`NotFound` if there is no such group; :exc:`IoError` and the like if that cannot be stored; :exc:`Closed`,
    /// :exc:`WrongProcess`.
    fn delete_group(&self, py: Python<'_>, group: String) -> PyResult<()> {
        self.change(py, move |engine| engine.delete_group(&group))
    }

    /// The groups of consumers, and how they are getting on: see :class:`GroupStats`.
    ///
    /// Raises :exc:`WrongProcess` in a forked child.
    fn groups<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let list = PyList::empty(py);
        for g in self.look(py, AnyEngine::groups)? {
            let dict = PyDict::new(py);
            macro_rules! set {
                ($($name:ident)*) => { $(dict.set_item(stringify!($name), &g.$name)?;)* };
            }
            set!(name given repeated expired acknowledged dead_lettered missed out lag);
            list.append(dict)?;
        }
        Ok(list)
    }
}

fn read_from(start: Option<&str>, from_ns: Option<u64>, position: Option<&str>) -> Result<ReadFrom, Error> {
    match (start, from_ns, position) {
        (None | Some("now"), None, None) => Ok(ReadFrom::Now),
        (Some("beginning"), None, None) => Ok(ReadFrom::Beginning),
        (None, Some(ns), None) => Ok(ReadFrom::Time(ns)),
        (None, None, Some(position)) => Ok(ReadFrom::Position(position.parse().map_err(|e: Error| e.at("position"))?)),
        (Some(other), None, None) => Err(args::unknown("start", other, "use now or beginning")),
        _ => Err(invalid_argument("start", "there are several beginnings", "give start, from_ns or position")),
    }
}

/// An event of the log.
#[pyclass(frozen, subclass, module = "tidewire")]
pub(crate) struct Entry {
    event: Py<PyEvent>,
    entry: Arc<reader::Entry>,
}

#[pymethods]
impl Entry {
    /// The event: an :class:`Event`, with its time.
    #[getter]
    fn event(&self, py: Python<'_>) -> Py<PyEvent> {
        self.event.clone_ref(py)
    }

    /// The event's id, as records have it.
    #[getter]
    fn id(&self) -> String {
        self.entry.id.to_string()
    }

    /// The event's place in the order of its key: 32 hexadecimal digits, which compare as text.
    #[getter]
    fn sequencer(&self) -> String {
        self.entry.sequencer.to_string()
    }

    /// The shard that has it.
    #[getter]
    fn shard(&self) -> u16 {
        self.entry.shard
    }

    /// Its place in the log of that shard.
    #[getter]
    fn sequence(&self) -> u64 {
        self.entry.sequence
    }

    /// When it was accepted: nanoseconds since the epoch, by a clock that never goes back.
    #[getter]
    fn clock_ns(&self) -> u64 {
        self.entry.clock.0
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        Ok(format!("<tidewire entry {}: {}>", self.id(), self.event.bind(py).repr()?))
    }
}

impl Entry {
    fn new(py: Python<'_>, entry: Arc<reader::Entry>) -> PyResult<Entry> {
        Ok(Entry { event: Py::new(py, PyEvent::of_frame(entry.frame()))?, entry })
    }
}

/// A stretch of the log that was wanted and is not there.
#[pyclass(frozen, module = "tidewire")]
pub(crate) struct Gap(reader::Gap);

#[pymethods]
impl Gap {
    /// The shard.
    #[getter]
    fn shard(&self) -> u16 {
        self.0.shard
    }

    /// The first sequence that is missing.
    #[getter]
    fn first(&self) -> u64 {
        self.0.first
    }

    /// The last one. Not every number between need have been an event.
    #[getter]
    fn last(&self) -> u64 {
        self.0.last
    }

    /// ``removed`` (it was delivered, and retention did not keep it) or ``damaged``.
    #[getter]
    fn cause(&self) -> &'static str {
        match self.0.cause {
            GapCause::Removed => "removed",
            GapCause::Damaged => "damaged",
        }
    }

    /// The clock of the last event before it, in nanoseconds since the epoch, if that is known.
    #[getter]
    fn since_ns(&self) -> Option<u64> {
        self.0.since_ns
    }

    /// The clock at which the log goes on, if it does.
    #[getter]
    fn until_ns(&self) -> Option<u64> {
        self.0.until_ns
    }

    fn __repr__(&self) -> String {
        format!("<tidewire gap of shard {}: {} to {}, {}>", self.shard(), self.first(), self.last(), self.cause())
    }
}

/// Follows the log: see :meth:`Engine.tail`. It reads on the thread that asks it; threads that use it at the same time wait for
/// each other.
#[pyclass(frozen, weakref, module = "tidewire")]
pub(crate) struct Tail {
    tail: Arc<Mutex<AnyTail>>,
}

#[pymethods]
impl Tail {
    /// What comes next, an :class:`Entry` or a :class:`Gap`; ``None`` if there is nothing within ``timeout`` seconds.
    ///
    /// Raises :exc:`Closed` when the engine is closed and everything was read; :exc:`IoError` and the like if the log cannot be
    /// read; :exc:`Disconnected` if the engine's process has died: open another one at the position; :exc:`WrongProcess`.
    #[pyo3(signature = (timeout=None))]
    fn next(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Option<Py<PyAny>>> {
        let wait = Limit::new(timeout).or_raise(py)?.start();
        guard(py, || match wait_for(py, wait, NextItem(self)) {
            Ok(item) => of_item(py, item).map(Some),
            Err(e) if is_timeout(py, &e) => Ok(None),
            Err(e) => Err(e),
        })
    }

    /// As :meth:`next`, to be awaited.
    #[pyo3(signature = (timeout=None))]
    fn next_async<'py>(slf: &Bound<'py, Self>, timeout: Option<f64>) -> PyResult<Bound<'py, PyAny>> {
        Limit::new(timeout).or_raise(slf.py())?;
        helper(slf.py(), "tail_next", (slf, timeout))
    }

    /// How far it has come, as a text for ``position``, also of another run.
    #[getter]
    fn position(&self, py: Python<'_>) -> String {
        py.detach(|| self.lock().position())
    }

    /// Has a loop wait until there may be more: the number of what it waits for.
    fn _watch(&self, py: Python<'_>, poller: &Poller) -> PyResult<Option<u64>> {
        let watch = py.detach(|| self.lock().watch());
        watch.map_or(Ok(None), |watch| add_watch(py, poller, watch))
    }

    /// Asks another process's engine for more, for a loop: the descriptor that is readable when it has answered, within so many
    /// seconds, and the loop closes it. ``None`` if it need not wait.
    fn _ask(&self, py: Python<'_>, seconds: f64) -> PyResult<Option<RawFd>> {
        let wait = args::seconds("seconds", seconds).or_raise(py)?;
        guard(py, || Ok(py.detach(|| self.lock().ask(wait)).or_raise(py)?.map(IntoRawFd::into_raw_fd)))
    }

    /// Whether the engine is another process's.
    #[getter]
    fn _is_remote(&self, py: Python<'_>) -> bool {
        py.detach(|| self.lock().is_remote())
    }

    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        match self.next(py, None) {
            Err(e) if is_closed(py, &e) => Ok(None),
            other => other,
        }
    }

    fn __aiter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __anext__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        helper(slf.py(), "anext", (slf,))
    }
}

impl Tail {
    fn lock(&self) -> MutexGuard<'_, AnyTail> {
        self.tail.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The next item of a tail.
struct NextItem<'a>(&'a Tail);

impl Waiting for NextItem<'_> {
    type Output = Item;

    fn block(&mut self, until: Instant) -> Result<Item, Error> {
        let mut tail = self.0.lock();
        let wait = until.saturating_duration_since(Instant::now());
        tail.next_within(wait)?.ok_or_else(|| Error::new(ErrorKind::Timeout, "nothing new is in the log"))
    }

    fn ask(&mut self) -> Result<Option<OwnedFd>, Error> {
        self.0.lock().ask(AnyTail::ASK_MAX)
    }
}

/// Some events of a group.
struct NextDeliveries<'a> {
    consumer: &'a AnyConsumer,
    max: usize,
}

impl Waiting for NextDeliveries<'_> {
    type Output = Vec<Given>;

    fn block(&mut self, until: Instant) -> Result<Vec<Given>, Error> {
        let given = self.consumer.fetch(self.max, until.saturating_duration_since(Instant::now()))?;
        match given.is_empty() && self.max > 0 {
            true => Err(Error::new(ErrorKind::Timeout, "there are no events")),
            false => Ok(given),
        }
    }

    fn ask(&mut self) -> Result<Option<OwnedFd>, Error> {
        self.consumer.ask(self.max, AnyConsumer::ASK_MAX)
    }
}

/// An event in the hands of a member of a group. Say what became of it: :meth:`ack` or :meth:`nack`, or use it as a context
/// manager: the end of the block acknowledges, an exception gives it back.
#[pyclass(frozen, extends = Entry, module = "tidewire")]
pub(crate) struct Delivery {
    /// What it has goes out again when it is closed, whoever still has a delivery.
    consumer: Weak<AnyConsumer>,
    lease: Lease,
    deliveries: u32,
}

#[pymethods]
impl Delivery {
    /// How often it was given out, this time included; more than 1 means that somebody may have processed it before.
    #[getter]
    fn deliveries(&self) -> u32 {
        self.deliveries
    }

    /// The event is processed.
    ///
    /// Raises :exc:`Timeout` if the lease had run out: what was done for it here may be done twice. :exc:`NotFound` if it is done
    /// already, or the group was deleted. :exc:`Closed`, :exc:`WrongProcess`.
    fn ack(&self, py: Python<'_>) -> PyResult<()> {
        self.with(py, |consumer| consumer.ack(&[self.lease]))
    }

    /// The event could not be processed: it goes out again after ``delay`` seconds.
    ///
    /// Raises what :meth:`ack` does.
    #[pyo3(signature = (delay=0.0))]
    fn nack(&self, py: Python<'_>, delay: f64) -> PyResult<()> {
        let delay = args::seconds("delay", delay).or_raise(py)?;
        self.with(py, |consumer| consumer.nack(self.lease, delay))
    }

    /// The event takes longer: the lease begins anew, with the member's whole ``visibility_timeout``.
    ///
    /// Raises what :meth:`ack` does.
    fn extend(&self, py: Python<'_>) -> PyResult<()> {
        self.with(py, |consumer| consumer.extend(self.lease))
    }

    fn __enter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    /// Acknowledges, or after an exception gives it back.
    #[pyo3(signature = (exc_type, exc_value, traceback, /))]
    fn __exit__(
        &self,
        py: Python<'_>,
        exc_type: &Bound<'_, PyAny>,
        exc_value: &Bound<'_, PyAny>,
        traceback: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let _ = (exc_value, traceback);
        if exc_type.is_none() { self.ack(py) } else { self.nack(py, 0.0) }
    }
}

impl Delivery {
    fn with(&self, py: Python<'_>, act: impl FnOnce(&AnyConsumer) -> Result<(), Error> + Send) -> PyResult<()> {
        guard(py, || {
            let consumer = self.consumer.upgrade().ok_or_else(closed).or_raise(py)?;
            py.detach(|| act(&consumer)).or_raise(py)
        })
    }
}

/// What is said of a consumer that is closed.
fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the consumer is closed, and what it had goes out again")
        .remedy("keep the consumer until everything is acknowledged")
}

/// A member of a group of consumers: see :meth:`Engine.consumer`. Use it as a context manager, or call :meth:`close`: what it has
/// not acknowledged goes out again at once; the group stays.
#[pyclass(frozen, weakref, module = "tidewire")]
pub(crate) struct Consumer {
    /// Nothing once it is closed.
    consumer: Mutex<Option<Arc<AnyConsumer>>>,
    /// For iteration: fetched, and not given out yet.
    fetched: Mutex<VecDeque<Py<PyAny>>>,
}

#[pymethods]
impl Consumer {
    /// The group's name.
    #[getter]
    fn group(&self, py: Python<'_>) -> PyResult<String> {
        Ok(self.get(py)?.group().to_owned())
    }

    /// Takes up to ``max`` events that no member has, and waits at most ``timeout`` seconds if there are none: a list of
    /// :class:`Delivery` and :class:`Gap`, which may be empty. Fewer than ``max`` are no sign that there are no more.
    ///
    /// Raises :exc:`NotFound` if the group was deleted; :exc:`IoError` and the like if the log cannot be read;
    /// :exc:`Disconnected` if the engine's process has died: what it had goes out again; :exc:`Closed`, :exc:`WrongProcess`.
    #[pyo3(signature = (max=100, timeout=None))]
    fn fetch<'py>(&self, py: Python<'py>, max: usize, timeout: Option<f64>) -> PyResult<Bound<'py, PyList>> {
        let wait = Limit::new(timeout).or_raise(py)?.start();
        let consumer = self.get(py)?;
        guard(py, || {
            let next = NextDeliveries { consumer: &consumer, max: max.min(FETCH_MAX) };
            let given = match wait_for(py, wait, next) {
                Err(e) if is_timeout(py, &e) => Vec::new(),
                other => other?,
            };
            let list = PyList::empty(py);
            for item in given {
                list.append(of_given(py, &consumer, item)?)?;
            }
            Ok(list)
        })
    }

    /// As :meth:`fetch`, to be awaited.
    #[pyo3(signature = (max=100, timeout=None))]
    fn fetch_async<'py>(slf: &Bound<'py, Self>, max: usize, timeout: Option<f64>) -> PyResult<Bound<'py, PyAny>> {
        Limit::new(timeout).or_raise(slf.py())?;
        helper(slf.py(), "fetch", (slf, max, timeout))
    }

    /// Acknowledges several deliveries at once.
    ///
    /// Raises what :meth:`Delivery.ack` does; those whose leases are good are done all the same.
    #[pyo3(signature = (deliveries, /))]
    fn ack(&self, py: Python<'_>, deliveries: &Bound<'_, PyAny>) -> PyResult<()> {
        let consumer = self.get(py)?;
        let leases: PyResult<Vec<Lease>> =
            deliveries.try_iter()?.map(|d| Ok(d?.cast::<Delivery>()?.get().lease)).collect();
        let leases = leases?;
        guard(py, || py.detach(|| consumer.ack(&leases)).or_raise(py))
    }

    /// Gives back what it has. Further calls do nothing.
    fn close(&self, py: Python<'_>) {
        self.fetched.lock().unwrap_or_else(PoisonError::into_inner).clear();
        let consumer = self.consumer.lock().unwrap_or_else(PoisonError::into_inner).take();
        py.detach(|| drop(consumer));
    }

    /// Has a loop wait until there may be an event: the number of what it waits for.
    fn _watch(&self, py: Python<'_>, poller: &Poller) -> PyResult<Option<u64>> {
        self.get(py)?.watch().map_or(Ok(None), |watch| add_watch(py, poller, watch))
    }

    /// As :meth:`Tail._ask`.
    fn _ask(&self, py: Python<'_>, max: usize, seconds: f64) -> PyResult<Option<RawFd>> {
        let (consumer, wait) = (self.get(py)?, args::seconds("seconds", seconds).or_raise(py)?);
        let ask = || consumer.ask(max.min(FETCH_MAX), wait);
        guard(py, || Ok(py.detach(ask).or_raise(py)?.map(IntoRawFd::into_raw_fd)))
    }

    /// Whether the engine is another process's.
    #[getter]
    fn _is_remote(&self, py: Python<'_>) -> PyResult<bool> {
        Ok(self.get(py)?.is_remote())
    }

    fn __enter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    /// Closes it.
    #[pyo3(signature = (exc_type, exc_value, traceback, /))]
    fn __exit__(
        &self,
        py: Python<'_>,
        exc_type: &Bound<'_, PyAny>,
        exc_value: &Bound<'_, PyAny>,
        traceback: &Bound<'_, PyAny>,
    ) {
        let _ = (exc_type, exc_value, traceback);
        self.close(py);
    }

    fn __aenter__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        helper(slf.py(), "answer", (slf,))
    }

    /// Closes it.
    #[pyo3(signature = (exc_type, exc_value, traceback, /))]
    fn __aexit__<'py>(
        &self,
        py: Python<'py>,
        exc_type: &Bound<'py, PyAny>,
        exc_value: &Bound<'py, PyAny>,
        traceback: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let _ = (exc_type, exc_value, traceback);
        self.close(py);
        helper(py, "answer", (py.None(),))
    }

    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        if let Some(item) = self._fetched() {
            return Ok(Some(item));
        }
        match self.fetch(py, FETCH_MAX, None) {
            Ok(list) => {
                self._keep(&list);
                Ok(self._fetched())
            }
            Err(e) if is_closed(py, &e) => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn __aiter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __anext__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        helper(slf.py(), "consumer_next", (slf,))
    }

    /// The next of those that were fetched for iteration.
    fn _fetched(&self) -> Option<Py<PyAny>> {
        self.fetched.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    /// Keeps what was fetched for iteration.
    fn _keep(&self, list: &Bound<'_, PyList>) {
        let items = list.iter().map(Bound::unbind);
        self.fetched.lock().unwrap_or_else(PoisonError::into_inner).extend(items);
    }
}

impl Consumer {
    fn get(&self, py: Python<'_>) -> PyResult<Arc<AnyConsumer>> {
        let consumer = self.consumer.lock().unwrap_or_else(PoisonError::into_inner).clone();
        consumer.ok_or_else(closed).or_raise(py)
    }
}

fn of_item(py: Python<'_>, item: Item) -> PyResult<Py<PyAny>> {
    Ok(match item {
        Item::Entry(entry) => Py::new(py, Entry::new(py, Arc::new(entry))?)?.into_any(),
        Item::Gap(gap) => Py::new(py, Gap(gap))?.into_any(),
    })
}

fn of_given(py: Python<'_>, consumer: &Arc<AnyConsumer>, given: Given) -> PyResult<Py<PyAny>> {
    Ok(match given {
        Given::Event(given) => {
            let delivery =
                Delivery { consumer: Arc::downgrade(consumer), lease: given.lease, deliveries: given.deliveries };
            let whole = PyClassInitializer::from(Entry::new(py, given.entry)?).add_subclass(delivery);
            Py::new(py, whole)?.into_any()
        }
        Given::Gap(gap) => Py::new(py, Gap(gap))?.into_any(),
    })
}

fn add_watch(py: Python<'_>, poller: &Poller, watch: tidewire::LogWatch) -> PyResult<Option<u64>> {
    let watch = Box::pin(async move {
        watch.await;
        Ok(())
    });
    match poller.add(watch) {
        Ok(id) => Ok(Some(id)),
        Err(done) => done.or_raise(py).map(|()| None),
    }
}

fn is_timeout(py: Python<'_>, e: &PyErr) -> bool {
    is_code(py, e, ErrorKind::Timeout)
}

fn is_closed(py: Python<'_>, e: &PyErr) -> bool {
    is_code(py, e, ErrorKind::Closed)
}

/// Whether it is an error of the engine of that kind.
fn is_code(py: Python<'_>, e: &PyErr, kind: ErrorKind) -> bool {
    e.value(py)
        .getattr(pyo3::intern!(py, "code"))
        .and_then(|code| code.extract::<u32>())
        .is_ok_and(|c| c == kind as u32)
}
