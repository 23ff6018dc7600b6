//! The class `Engine`: opening, asking, closing. Its other methods are in the modules of what they are about.

use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use pyo3::exceptions::PyImportError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyAny, PyDict};
use tidewire::config::Config;
use tidewire::shared::Pending;
use tidewire::{AnyEngine, ClientOptions, Error, ErrorKind, Event, EventType, MetricsFormat};

use crate::aio::{Acks, Poller};
use crate::args;
use crate::error::{OrRaise, closed, guard, invalid_argument};
use crate::wait::{Limit, no_answer, wait_for};
use crate::{hub, logging, stats};

/// The longest that closing takes, whatever the caller says.
const CLOSE_MAX: Duration = Duration::from_secs(24 * 3600);

/// How errors name a configuration that came as text.
const TEXT_NAME: &str = "config";

/// The engines that are open, for [`close_all`]. Only touched with the interpreter held and without letting go of it,
/// so that no thread can have it locked when the process forks: an interpreter without its lock stops the others for that,
/// and only where they could let go.
static OPEN: Mutex<Vec<Weak<State>>> = Mutex::new(Vec::new());

pub(crate) struct State {
    pub(crate) engine: AnyEngine,
    closed: AtomicBool,
}

impl State {
    fn close(&self, timeout: Duration) -> Result<(), Error> {
        self.closed.store(true, Ordering::Relaxed);
        self.engine.close(timeout.min(CLOSE_MAX))
    }

    /// Does something that takes a while without the interpreter; what another process may hold up on a thread of its own, so
    /// that signal handlers run meanwhile.
    pub(crate) fn run<T: Send + 'static>(
        &self,
        py: Python<'_>,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> PyResult<T> {
        match self.client() {
            None => hub::run(py, work),
            Some(_) => hub::run_apart(py, work),
        }
    }

    /// What connects to the engine of another process, if there is one.
    #[inline]
    pub(crate) fn client(&self) -> Option<&tidewire::Client> {
        match &self.engine {
            AnyEngine::Local(_) => None,
            AnyEngine::Remote(client) => Some(client),
        }
    }

    /// Whether an event was not accepted for want of space, or of a connection, and may be tried again.
    #[cold]
    pub(crate) fn has_no_space(&self, e: &Error) -> bool {
        e.kind() == ErrorKind::Full || self.client().is_some_and(|client| client.is_unsent(e))
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    pub(crate) fn check_open(&self) -> Result<(), Error> {
        self.engine.check_process()?;
        if self.is_closed() { Err(closed()) } else { Ok(()) }
    }
}

/// An event and notification engine over one data directory: of this process, or of another one that this one is connected to.
///
/// Exactly one of ``config`` (TOML text), ``config_path`` (a file) and ``address`` says which. ``data_dir`` takes the place of
/// the one in the configuration. Paths in a text are relative to the working directory, those in a file to the file's. All
/// methods may be called from any thread. Use it as a context manager, or call :meth:`close`.
///
/// Several processes over one engine: ``address`` is ``unix:`` and the path of the socket where the engine of another process
/// listens (``engine.shared`` of its configuration). With ``shared=True`` all give the same configuration: the first process
/// has the data directory and listens, the others are connected to it, and when it ends one of them takes it over. Connect
/// after a fork, as each worker of gunicorn does in ``post_fork``. ``connect_timeout`` (seconds, 5.0 by default) is how long
/// to wait for that process to listen, and for the connection to come back in calls that have no time of their own.
///
/// All methods mean the same. When the engine's process dies the connection comes back by itself as soon as another one
/// listens: meanwhile calls wait as long as they may, and then raise :exc:`Disconnected`. So does what waited for an answer, such
/// as an ack level: then nobody knows whether the event was accepted. Tails and consumers end with :exc:`Disconnected`: open
/// new ones. Handlers and :meth:`replace_config` belong to the process that has the engine.
///
/// Raises :exc:`InvalidConfig`, :exc:`Locked`, :exc:`ReadOnly`, :exc:`NoSpace`, :exc:`IoUringUnavailable`,
/// :exc:`NewerFormat`, :exc:`Corrupt` or :exc:`IoError`; :exc:`InvalidArgument` for an address that is none, and if this user is
/// not let in; :exc:`Disconnected` if nobody listens there; :exc:`Full` if too many processes are connected.
#[pyclass(frozen, weakref, module = "tidewire")]
pub(crate) struct Engine {
    pub(crate) state: Arc<State>,
}

#[pymethods]
impl Engine {
    #[new]
    #[pyo3(signature = (
        config=None, *, config_path=None, data_dir=None, address=None, shared=false, connect_timeout=None,
    ))]
    fn new(
        py: Python<'_>,
        config: Option<&Bound<'_, PyAny>>,
        config_path: Option<PathBuf>,
        data_dir: Option<PathBuf>,
        address: Option<String>,
        shared: bool,
        connect_timeout: Option<f64>,
    ) -> PyResult<Engine> {
        let config = args::text_or_none("config", config)?;
        let mut options = ClientOptions::default();
        if let Some(s) = connect_timeout {
            options.connect_timeout = args::seconds("connect_timeout", s).or_raise(py)?;
        }
        guard(py, || {
            logging::start(py)?;
            let config = config.map(str::to_owned);
            let apart = shared || address.is_some();
            let open = move || {
                let Some(address) = address else {
                    let config = load(config.as_deref(), config_path.as_deref(), data_dir.as_deref())?;
                    return match shared {
                        true => AnyEngine::open_or_connect(config, options),
                        false => AnyEngine::open(config),
                    };
                };
                if config.is_some() || config_path.is_some() || data_dir.is_some() || shared {
                    let remedy = "the configuration is that of the process that has the engine; give one of them";
                    return Err(invalid_argument("address", "there are an address and a configuration", remedy));
                }
                AnyEngine::connect(&address, options)
            };
            let engine = if apart { hub::run_apart(py, open) } else { hub::run(py, open) };
            let engine = engine?.or_raise(py)?;
            let state = Arc::new(State { engine, closed: AtomicBool::new(false) });
            let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
            open.retain(|state| state.strong_count() > 0);
            open.push(Arc::downgrade(&state));
            drop(open);
            Ok(Engine { state })
        })
    }

    /// Waits until every event accepted before the call is delivered or a dead letter, at most ``timeout`` seconds;
    /// ``None`` is without limit.
    ///
    /// Raises :exc:`Timeout` with the number of deliveries that still wait: they go on. :exc:`Closed` if the engine
    /// closes; :exc:`WrongProcess` in a forked child.
    #[pyo3(signature = (timeout=Some(30.0)), text_signature = "(self, timeout=30.0)")]
    fn flush(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<()> {
        let limit = Limit::new(timeout).or_raise(py)?;
        let wait = limit.start();
        self.state.check_open().or_raise(py)?;
        guard(py, || match &self.state.engine {
            AnyEngine::Local(engine) => wait_for(py, wait, engine.start_flush().or_raise(py)?),
            AnyEngine::Remote(_) => {
                wait_for(py, limit.of_another().start(), self.ask_to_flush(py, limit)?)?.or_raise(py)
            }
        })
    }

    /// As :meth:`flush`, to be awaited.
    #[pyo3(signature = (timeout=Some(30.0)), text_signature = "(self, timeout=30.0)")]
    fn flush_async<'py>(slf: &Bound<'py, Self>, timeout: Option<f64>) -> PyResult<Bound<'py, PyAny>> {
        Limit::new(timeout).or_raise(slf.py())?;
        helper(slf.py(), "flush", (slf, timeout))
    }

    /// Begins a flush for a loop: the number of what it waits for; ``None`` if that is done.
    fn _start_flush(&self, py: Python<'_>, poller: &Poller) -> PyResult<Option<u64>> {
        self.state.check_open().or_raise(py)?;
        guard(py, || {
            let AnyEngine::Local(engine) = &self.state.engine else { return Ok(None) };
            let flush = engine.start_flush().or_raise(py)?;
            match poller.add(Box::pin(flush)) {
                Ok(id) => Ok(Some(id)),
                Err(done) => done.or_raise(py).map(|()| None),
            }
        })
    }

    /// Begins a flush of another process's engine, for a loop: the answer that is waited for.
    fn _ask_to_flush(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Flushing> {
        let limit = Limit::new(timeout).or_raise(py)?;
        self.state.check_open().or_raise(py)?;
        guard(py, || Ok(Flushing(Mutex::new(self.ask_to_flush(py, limit)?))))
    }

    /// Whether the engine is another process's, or may come to be.
    #[getter]
    fn _is_remote(&self) -> bool {
        self.state.client().is_some()
    }

    /// What is said when the time of a flush is over.
    fn _flush_timeout(&self, py: Python<'_>) -> PyResult<()> {
        let waiting: u64 = py.detach(|| self.state.engine.stats()).or_raise(py)?.waiting;
        let e = Error::new(ErrorKind::Timeout, format!("{waiting} deliveries still wait"));
        Err(e.remedy("they stay in the log and go on; see the destinations' last errors in the statistics"))
            .or_raise(py)
    }

    /// A queue of acknowledgements, for a loop.
    fn _acks(&self, py: Python<'_>) -> PyResult<Acks> {
        self.state.check_open().or_raise(py)?;
        Ok(Acks(self.state.engine.completions().or_raise(py)?))
    }

    /// What the engine has counted since it was opened, as a ``dict``: see :class:`Stats`. A closed engine still tells.
    ///
    /// Raises :exc:`WrongProcess` in a forked child.
    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let numbers = self.look(py, AnyEngine::stats)?;
        guard(py, || stats::stats(py, &numbers))
    }

    /// What the engine has counted, as the text that Prometheus scrapes (``text/plain; version=0.0.4``), or with
    /// ``openmetrics`` as OpenMetrics 1.0. All names begin with ``tidewire_``. A closed engine still tells.
    ///
    /// Raises :exc:`WrongProcess` in a forked child.
    #[pyo3(signature = (*, openmetrics = false))]
    fn prometheus(&self, py: Python<'_>, openmetrics: bool) -> PyResult<String> {
        let format = if openmetrics { MetricsFormat::OpenMetrics } else { MetricsFormat::Prometheus };
        self.look(py, move |engine| engine.prometheus(format))
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
        let event_type = EventType::parse(event_type).or_raise(py)?;
        let engine = &self.state.engine;
        guard(py, || {
            Ok(match engine {
                AnyEngine::Local(engine) => engine.is_interested(bucket, event_type),
                AnyEngine::Remote(client) => py.detach(|| client.is_interested(bucket, event_type)),
            })
        })
    }

    /// Which details of an object the host should fetch for an event with this type, bucket and key: a ``dict`` of
    /// ``metadata`` and ``tags`` to ``bool``. Neither is of use if no rule can want the event; then nothing need be published.
    ///
    /// Raises :exc:`InvalidEvent`, :exc:`Closed`, or :exc:`WrongProcess` in a forked child.
    #[pyo3(signature = (event, /))]
    fn details_wanted<'py>(&self, py: Python<'py>, event: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyDict>> {
        self.state.check_open().or_raise(py)?;
        let engine = &self.state.engine;
        let ask = |event: &Event<'_>| match engine {
            AnyEngine::Local(engine) => engine.details_wanted(event),
            AnyEngine::Remote(client) => py.detach(|| client.details_wanted(event)),
        };
        let wanted = args::with_event(event, |event| guard(py, || ask(event).or_raise(py)))?;
        let dict = PyDict::new(py);
        dict.set_item("metadata", wanted.metadata)?;
        dict.set_item("tags", wanted.tags)?;
        Ok(dict)
    }

    /// Writes a consistent copy of the data directory into a file: everything accepted before the call, and what is delivered
    /// of it. ``tidewire restore`` makes a directory of it. The engine goes on meanwhile.
    ///
    /// Raises :exc:`Timeout` or :exc:`LogFailed` if what was accepted cannot be made durable; :exc:`IoError` and the like;
    /// :exc:`Closed`, :exc:`WrongProcess`.
    #[pyo3(signature = (path, /))]
    fn snapshot(&self, py: Python<'_>, path: PathBuf) -> PyResult<()> {
        self.state.check_open().or_raise(py)?;
        let engine = self.state.engine.clone();
        guard(py, || self.state.run(py, move || engine.snapshot(&path))?.or_raise(py))
    }

    /// Closes the engine: takes no more events, makes durable what was accepted, delivers for at most ``timeout``
    /// seconds and leaves the rest in the data directory for the next engine on it. ``None`` is the ``close_timeout``
    /// of the configuration. Further calls do nothing. That of another process goes on: this waits until it has taken in what
    /// was published here, and ends the connection.
    ///
    /// Raises :exc:`WrongProcess` in a forked child; :exc:`Timeout` if another process has not taken in everything.
    #[pyo3(signature = (timeout=None))]
    fn close(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<()> {
        let timeout = match timeout {
            None => self.state.engine.close_timeout(),
            given => Limit::new(given).or_raise(py)?.0.unwrap_or(CLOSE_MAX),
        };
        let state = self.state.clone();
        guard(py, || hub::run(py, move || state.close(timeout))?.or_raise(py))
    }

    /// As :meth:`close`, to be awaited: a thread waits.
    #[pyo3(signature = (timeout=None))]
    fn close_async<'py>(slf: &Bound<'py, Self>, timeout: Option<f64>) -> PyResult<Bound<'py, PyAny>> {
        helper(slf.py(), "close", (slf, timeout))
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

    fn __aenter__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        slf.get().state.check_open().or_raise(slf.py())?;
        helper(slf.py(), "answer", (slf,))
    }

    /// Closes the engine as :meth:`close_async` does.
    #[pyo3(signature = (exc_type, exc_value, traceback, /))]
    fn __aexit__<'py>(
        slf: &Bound<'py, Self>,
        exc_type: &Bound<'py, PyAny>,
        exc_value: &Bound<'py, PyAny>,
        traceback: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let _ = (exc_type, exc_value, traceback);
        match slf.get().state.engine.check_process() {
            Ok(()) => helper(slf.py(), "close", (slf, None::<f64>)),
            Err(_) => helper(slf.py(), "answer", (slf.py().None(),)),
        }
    }

    fn __repr__(&self) -> String {
        let state = if self.state.is_closed() { "closed" } else { "open" };
        match &self.state.engine {
            AnyEngine::Local(engine) => format!("<tidewire.Engine on {:?}, {state}>", engine.config().data_dir),
            AnyEngine::Remote(client) => format!("<tidewire.Engine at unix:{}, {state}>", client.path().display()),
        }
    }
}

impl Engine {
    /// Asks what changes nothing, without the interpreter.
    pub(crate) fn look<T: Send + 'static>(
        &self,
        py: Python<'_>,
        ask: impl FnOnce(&AnyEngine) -> Result<T, Error> + Send + 'static,
    ) -> PyResult<T> {
        let engine = &self.state.engine;
        engine.check_process().or_raise(py)?;
        guard(py, || match engine {
            AnyEngine::Local(_) => py.detach(|| ask(engine)).or_raise(py),
            AnyEngine::Remote(_) => {
                let engine = engine.clone();
                self.state.run(py, move || ask(&engine))?.or_raise(py)
            }
        })
    }

    fn ask_to_flush(&self, py: Python<'_>, limit: Limit) -> PyResult<Pending<()>> {
        self.change(py, move |engine| match engine {
            AnyEngine::Remote(client) => client.start_flush(limit.0.unwrap_or(Duration::MAX)),
            AnyEngine::Local(_) => Err(Error::new(ErrorKind::Internal, "the engine is here")),
        })
    }
}

/// A flush of another process's engine.
#[pyclass(frozen, module = "tidewire._tidewire")]
pub(crate) struct Flushing(Mutex<Pending<()>>);

#[pymethods]
impl Flushing {
    /// What the loop watches for reading.
    fn fileno(&self) -> RawFd {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).as_fd().as_raw_fd()
    }

    /// Whether it is through. If not, another engine may have been asked: then the descriptor is another one, and it has waited
    /// for that engine.
    ///
    /// Raises :exc:`Timeout` if it is not and was to be.
    fn take(&self, py: Python<'_>, last: bool) -> PyResult<bool> {
        let take = || match self.0.lock().unwrap_or_else(PoisonError::into_inner).wait(Instant::now()) {
            Ok(None) if last => Err(no_answer()),
            other => other.map(|answer| answer.is_some()),
        };
        guard(py, || py.detach(take).or_raise(py))
    }
}

impl Drop for Engine {
    /// Closes an engine that nobody closed, without the interpreter.
    fn drop(&mut self) {
        if self.state.is_closed() || self.state.engine.check_process().is_err() {
            return;
        }
        let close = || self.state.close(self.state.engine.close_timeout());
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
            let _ = py.detach(|| state.close(state.engine.close_timeout()));
        }
    }
    logging::stop(py);
}

/// Raises `ImportError` where there is no place for the module; called when the package is imported.
#[pyfunction]
pub(crate) fn check_interpreter() -> PyResult<()> {
    // SAFETY: the interpreter is held, and a thread that holds it has one.
    let id = unsafe { pyo3::ffi::PyInterpreterState_GetID(pyo3::ffi::PyInterpreterState_Get()) };
    match id {
        0 => Ok(()),
        _ => Err(PyImportError::new_err(
            "tidewire works in the main interpreter only: import it there, or use a process",
        )),
    }
}

/// Calls a function of `tidewire/_aio.py`.
pub(crate) fn helper<'py>(
    py: Python<'py>,
    name: &str,
    args: impl pyo3::call::PyCallArgs<'py>,
) -> PyResult<Bound<'py, PyAny>> {
    helper_of(py, name)?.call1(args)
}

/// A function of `tidewire/_aio.py`.
pub(crate) fn helper_of<'py>(py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyAny>> {
    static MODULE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let module = MODULE.get_or_try_init(py, || Ok::<_, PyErr>(py.import("tidewire._aio")?.into_any().unbind()))?;
    module.bind(py).getattr(name)
}

/// Checks a configuration as :class:`Engine` would when it is opened, as far as nothing need be opened for that.
///
/// Exactly one of ``config`` (TOML text) and ``config_path`` (a file) has it.
///
/// Raises :exc:`InvalidConfig` with file, line and column, or :exc:`IoError`.
#[pyfunction]
#[pyo3(signature = (config=None, *, config_path=None))]
pub(crate) fn check_config(
    py: Python<'_>,
    config: Option<&Bound<'_, PyAny>>,
    config_path: Option<PathBuf>,
) -> PyResult<()> {
    let config = args::text_or_none("config", config)?;
    let nowhere = Some(Path::new("."));
    guard(py, || py.detach(|| load(config, config_path.as_deref(), nowhere).map(drop)).or_raise(py))
}

pub(crate) fn load(text: Option<&str>, path: Option<&Path>, data_dir: Option<&Path>) -> Result<Config, Error> {
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
