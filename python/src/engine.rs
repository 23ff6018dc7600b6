//! The class `Engine`.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use pyo3::prelude::*;
use pyo3::types::{PyAny, PyDict};
use tidewire::config::Config;
use tidewire::{Ack, Error, ErrorKind, Event, MetricsFormat, OnFull, PublishOptions, Published};

use crate::args::{self, Pairs};
use crate::error::{OrRaise, closed, guard, invalid_argument};
use crate::stats;
use crate::wait::{Limit, Wait};

/// The longest that closing takes, whatever the caller says.
const CLOSE_MAX: Duration = Duration::from_secs(24 * 3600);

/// How errors name a configuration that came as text.
const TEXT_NAME: &str = "config";

/// The engines that are open, for [`close_all`]. Only touched with the interpreter held and without letting go of it,
/// so that no thread can have it locked when the process forks.
static OPEN: Mutex<Vec<Weak<State>>> = Mutex::new(Vec::new());

struct State {
    engine: tidewire::Engine,
    closed: AtomicBool,
}

impl State {
    fn close(&self, timeout: Duration) -> Result<(), Error> {
        self.closed.store(true, Ordering::Relaxed);
        self.engine.close(timeout.min(CLOSE_MAX))
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    fn check_open(&self) -> Result<(), Error> {
        self.engine.check_process()?;
        if self.is_closed() { Err(closed()) } else { Ok(()) }
    }
}

/// An event and notification engine over one data directory.
///
/// Exactly one of ``config`` (TOML text) and ``config_path`` (a file) says what it does; ``data_dir`` takes the place
/// of the one in it. Paths in a text are relative to the working directory, those in a file to the file's. All methods
/// may be called from any thread. Use it as a context manager, or call :meth:`close`.
///
/// Raises :exc:`InvalidConfig`, :exc:`Locked`, :exc:`ReadOnly`, :exc:`NoSpace`, :exc:`IoUringUnavailable`,
/// :exc:`NewerFormat`, :exc:`Corrupt` or :exc:`IoError`.
#[pyclass(frozen, weakref, module = "tidewire")]
pub(crate) struct Engine {
    state: Arc<State>,
}

#[pymethods]
impl Engine {
    #[new]
    #[pyo3(signature = (config=None, *, config_path=None, data_dir=None))]
    fn new(
        py: Python<'_>,
        config: Option<&Bound<'_, PyAny>>,
        config_path: Option<PathBuf>,
        data_dir: Option<PathBuf>,
    ) -> PyResult<Engine> {
        let config = args::text_or_none("config", config)?;
        guard(py, || {
            let engine = py.detach(|| {
                let config = load(config.as_deref(), config_path.as_deref(), data_dir.as_deref())?;
                tidewire::Engine::open(config)
            });
            let engine = engine.or_raise(py)?;
            let state = Arc::new(State { engine, closed: AtomicBool::new(false) });
            let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
            open.retain(|state| state.strong_count() > 0);
            open.push(Arc::downgrade(&state));
            drop(open);
            Ok(Engine { state })
        })
    }

    /// Publishes an event. Returns whether it was accepted: ``False`` means that no rule wants events of this type in
    /// this bucket, so that nothing was kept.
    ///
    /// ``data`` is JSON text, or a ``dict`` or ``list`` to write as JSON. ``time_ns`` is in nanoseconds since the
    /// epoch; ``None`` is now. ``ack`` is ``memory``, ``written`` or ``synced``: how safe the event is when the call
    /// returns. ``timeout`` limits the waiting in seconds, ``None`` is without limit. ``block=False`` raises
    /// :exc:`Full` at once when there is no space, but still waits for ``ack``.
    ///
    /// Raises :exc:`InvalidEvent`, :exc:`InvalidArgument`, :exc:`Full`, :exc:`Closed` or :exc:`WrongProcess`: the
    /// event is not accepted. :exc:`Timeout`, :exc:`LogFailed` and an exception of a signal handler while waiting for
    /// ``ack``: it is accepted, but has not reached that level yet.
    #[pyo3(
        signature = (bucket, key, event_type=None, *, size=None, etag=None, version_id=None, requester=None,
            source_ip=None, request_id=None, host_id=None, region=None, content_type=None, method=None,
            user_agent=None, bucket_owner=None, metadata=None, tags=None, data=None, time_ns=None, priority=None,
            origin=None, hops=None, ack=None, timeout=Some(30.0), block=true),
        text_signature = "(self, bucket, key, event_type='s3:ObjectCreated:Put', *, size=None, etag=None, \
            version_id=None, requester=None, source_ip=None, request_id=None, host_id=None, region=None, \
            content_type=None, method=None, user_agent=None, bucket_owner=None, metadata=None, tags=None, data=None, \
            time_ns=None, priority='normal', origin='user', hops=0, ack='synced', timeout=30.0, block=True)"
    )]
    #[allow(clippy::too_many_arguments)]
    fn publish<'py>(
        &self,
        py: Python<'py>,
        bucket: &Bound<'py, PyAny>,
        key: &Bound<'py, PyAny>,
        event_type: Option<&Bound<'py, PyAny>>,
        size: Option<&Bound<'py, PyAny>>,
        etag: Option<&Bound<'py, PyAny>>,
        version_id: Option<&Bound<'py, PyAny>>,
        requester: Option<&Bound<'py, PyAny>>,
        source_ip: Option<&Bound<'py, PyAny>>,
        request_id: Option<&Bound<'py, PyAny>>,
        host_id: Option<&Bound<'py, PyAny>>,
        region: Option<&Bound<'py, PyAny>>,
        content_type: Option<&Bound<'py, PyAny>>,
        method: Option<&Bound<'py, PyAny>>,
        user_agent: Option<&Bound<'py, PyAny>>,
        bucket_owner: Option<&Bound<'py, PyAny>>,
        metadata: Option<&Bound<'py, PyAny>>,
        tags: Option<&Bound<'py, PyAny>>,
        data: Option<&Bound<'py, PyAny>>,
        time_ns: Option<&Bound<'py, PyAny>>,
        priority: Option<&Bound<'py, PyAny>>,
        origin: Option<&Bound<'py, PyAny>>,
        hops: Option<&Bound<'py, PyAny>>,
        ack: Option<&Bound<'py, PyAny>>,
        timeout: Option<f64>,
        block: bool,
    ) -> PyResult<bool> {
        macro_rules! texts {
            ($($name:ident)*) => { $(let $name = args::text_or_none(stringify!($name), $name)?;)* };
        }
        texts!(event_type etag version_id requester source_ip request_id host_id region content_type method
            user_agent bucket_owner priority origin ack);
        let (bucket, key) = (args::text("bucket", bucket)?, args::key(key)?);
        let (metadata, tags) = (Pairs::new("metadata", metadata)?, Pairs::new("tags", tags)?);
        let (metadata, tags) = (metadata.borrow(), tags.borrow());
        let data = args::data(data)?;

        let mut event = Event::new(args::event_type(event_type.as_ref()).or_raise(py)?, &bucket, &key);
        event.size = args::number("size", size, u64::MAX)?;
        event.time_ns = args::number("time_ns", time_ns, u64::MAX)?.unwrap_or(0);
        macro_rules! set {
            ($($name:ident)*) => { $(event.$name = $name.as_deref().unwrap_or_default();)* };
        }
        set!(etag version_id requester source_ip request_id host_id region content_type method user_agent
            bucket_owner data);
        (event.metadata, event.tags) = (&metadata, &tags);
        event.priority = args::priority(priority.as_ref()).or_raise(py)?;
        event.origin = args::origin(origin.as_ref()).or_raise(py)?;
        event.hops = args::number("hops", hops, u64::from(u8::MAX))?.unwrap_or(0) as u8;
        let ack = ack.map_or(Ok(Ack::Synced), |ack| Ack::parse(&ack).map_err(|e| e.at("ack"))).or_raise(py)?;
        let limit = Limit::new(timeout).or_raise(py)?;
        guard(py, || self.put(py, &event, ack, limit, block))
    }

    /// Waits until every event accepted before the call is delivered or a dead letter, at most ``timeout`` seconds;
    /// ``None`` is without limit.
    ///
    /// Raises :exc:`Timeout` with the number of deliveries that still wait: they go on. :exc:`Closed` if the engine
    /// closes; :exc:`WrongProcess` in a forked child.
    #[pyo3(signature = (timeout=Some(30.0)), text_signature = "(self, timeout=30.0)")]
    fn flush(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<()> {
        let wait = Limit::new(timeout).or_raise(py)?.start();
        self.state.check_open().or_raise(py)?;
        guard(py, || {
            let mut flush = self.state.engine.start_flush().or_raise(py)?;
            in_slices(py, wait, |end| flush.wait(end))
        })
    }

    /// What the engine has counted since it was opened, as a ``dict``: see :class:`Stats`. A closed engine still tells.
    ///
    /// Raises :exc:`WrongProcess` in a forked child.
    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        self.state.engine.check_process().or_raise(py)?;
        guard(py, || {
            let numbers = py.detach(|| self.state.engine.stats());
            stats::stats(py, &numbers)
        })
    }

    /// What the engine has counted, as the text that Prometheus scrapes (``text/plain; version=0.0.4``), or with
    /// ``openmetrics`` as OpenMetrics 1.0. All names begin with ``tidewire_``. A closed engine still tells.
    ///
    /// Raises :exc:`WrongProcess` in a forked child.
    #[pyo3(signature = (*, openmetrics = false))]
    fn prometheus(&self, py: Python<'_>, openmetrics: bool) -> PyResult<String> {
        let format = if openmetrics { MetricsFormat::OpenMetrics } else { MetricsFormat::Prometheus };
        guard(py, || py.detach(|| self.state.engine.prometheus(format)).or_raise(py))
    }

    /// Whether any rule could want events of this type in this bucket: if not, there is no need to collect what an
    /// event would say. May be true for an event that no rule takes in the end.
    ///
    /// Raises :exc:`InvalidEvent` for an unknown type, :exc:`Closed`, or :exc:`WrongProcess` in a forked child.
    fn is_interested(
        &self,
        py: Python<'_>,
        bucket: &Bound<'_, PyAny>,
        event_type: &Bound<'_, PyAny>,
    ) -> PyResult<bool> {
        let (bucket, event_type) = (args::text("bucket", bucket)?, args::text("event_type", event_type)?);
        self.state.check_open().or_raise(py)?;
        let event_type = args::event_type(Some(&event_type)).or_raise(py)?;
        guard(py, || Ok(self.state.engine.is_interested(&bucket, event_type)))
    }

    /// Closes the engine: takes no more events, makes durable what was accepted, delivers for at most ``timeout``
    /// seconds and leaves the rest in the data directory for the next engine on it. ``None`` is the ``close_timeout``
    /// of the configuration. Further calls do nothing.
    ///
    /// Raises :exc:`WrongProcess` in a forked child.
    #[pyo3(signature = (timeout=None))]
    fn close(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<()> {
        let timeout = match timeout {
            None => self.state.engine.config().close_timeout,
            given => Limit::new(given).or_raise(py)?.0.unwrap_or(CLOSE_MAX),
        };
        guard(py, || py.detach(|| self.state.close(timeout)).or_raise(py))
    }

    /// Whether the engine was closed.
    #[getter]
    fn closed(&self) -> bool {
        self.state.is_closed()
    }

    fn __enter__(slf: Bound<'_, Self>) -> PyResult<Bound<'_, Self>> {
        slf.get().state.check_open().or_raise(slf.py())?;
        Ok(slf)
    }

    /// Closes the engine; a forked child that leaves the block leaves the engine to its parent.
    #[pyo3(signature = (exc_type, exc_value, traceback, /))]
    fn __exit__(
        &self,
        py: Python<'_>,
        exc_type: &Bound<'_, PyAny>,
        exc_value: &Bound<'_, PyAny>,
        traceback: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let _ = (exc_type, exc_value, traceback);
        if self.state.engine.check_process().is_err() {
            return Ok(());
        }
        self.close(py, None)
    }

    fn __repr__(&self) -> String {
        let state = if self.state.is_closed() { "closed" } else { "open" };
        format!("<tidewire.Engine on {:?}, {state}>", self.state.engine.config().data_dir)
    }
}

impl Engine {
    /// Publishes, waiting for space and for the ack level in slices. As long as there is space and nothing to wait
    /// for, the interpreter is kept: letting go of it costs more than the whole call.
    fn put(&self, py: Python<'_>, event: &Event<'_>, ack: Ack, limit: Limit, block: bool) -> PyResult<bool> {
        let engine = &self.state.engine;
        let attempt = |on_full| {
            let options = PublishOptions { ack, on_full, ack_timeout: Duration::ZERO, ..PublishOptions::default() };
            if ack == Ack::Memory {
                engine.publish_with(event, &options).map(|p| (p == Published::Accepted, None))
            } else {
                engine.submit(event, &options).map(|receipt| (receipt.is_some(), receipt))
            }
        };
        let mut wait = None;
        let mut result = attempt(if block { OnFull::Retry(Duration::ZERO) } else { OnFull::Refuse });
        while block && result.as_ref().is_err_and(|e| e.kind() == ErrorKind::Full) {
            py.check_signals()?;
            let (end, last) = wait.get_or_insert_with(|| limit.start()).slice();
            let left = end.saturating_duration_since(Instant::now());
            result = py.detach(|| attempt(if last { OnFull::Block(left) } else { OnFull::Retry(left) }));
            if last {
                break;
            }
        }
        let (accepted, receipt) = result.or_raise(py)?;
        if let Some(receipt) = receipt.filter(|r| !r.is(ack)) {
            let wait = wait.unwrap_or_else(|| limit.start());
            in_slices(py, wait, |end| receipt.wait(ack, Some(end)))?;
        }
        Ok(accepted)
    }
}

impl Drop for Engine {
    /// Closes an engine that nobody closed, without the interpreter.
    fn drop(&mut self) {
        if self.state.is_closed() || self.state.engine.check_process().is_err() {
            return;
        }
        let close = || self.state.close(self.state.engine.config().close_timeout);
        // There is nobody to tell: what was not delivered is in the data directory.
        let _ = Python::try_attach(|py| py.detach(close)).unwrap_or_else(close);
    }
}

/// Closes the engines that are still open when the interpreter ends, so that what they accepted is durable.
#[pyfunction]
pub(crate) fn close_all(py: Python<'_>) {
    let open = std::mem::take(&mut *OPEN.lock().unwrap_or_else(PoisonError::into_inner));
    for state in open.iter().filter_map(Weak::upgrade) {
        if !state.is_closed() && state.engine.check_process().is_ok() {
            // The interpreter is ending; the engine has logged what went wrong.
            let _ = py.detach(|| state.close(state.engine.config().close_timeout));
        }
    }
}

/// Waits for something until it is there, the wait is over, or a signal handler raises.
fn in_slices(py: Python<'_>, wait: Wait, mut step: impl FnMut(Instant) -> Result<(), Error> + Send) -> PyResult<()> {
    loop {
        let (end, last) = wait.slice();
        match py.detach(|| step(end)) {
            Err(e) if !last && e.kind() == ErrorKind::Timeout => py.check_signals()?,
            other => return other.or_raise(py),
        }
    }
}

fn load(text: Option<&str>, path: Option<&Path>, data_dir: Option<&Path>) -> Result<Config, Error> {
    match (text, path, data_dir) {
        (Some(text), None, None) => Config::from_toml(text, TEXT_NAME, Path::new("")),
        (Some(text), None, Some(dir)) => Config::from_toml_with_data_dir(text, TEXT_NAME, Path::new(""), dir),
        (None, Some(path), None) => Config::from_file(path),
        (None, Some(path), Some(dir)) => Config::from_file_with_data_dir(path, dir),
        (None, None, _) => {
            Err(invalid_argument("config", "there is no configuration", "give config (TOML text) or config_path"))
        }
        (Some(_), Some(_), _) => {
            Err(invalid_argument("config", "there are two configurations", "give config or config_path, not both"))
        }
    }
}
