//! Dead letters, and replays of the log.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use pyo3::prelude::*;
use pyo3::types::{PyAny, PyBytes, PyDict, PyList};
use tidewire::event::FrameView;
use tidewire::log::reader::ReadFrom;
use tidewire::shared::AnyReplay;
use tidewire::{
    AnyEngine, DeadLetterFilter, DeadLetterId, Error, ErrorKind, RedriveOptions, ReplayProgress, ReplayState,
    StoredDeadLetter,
};

use crate::args;
use crate::call::call;
use crate::engine::{Engine, helper};
use crate::error::{OrRaise, guard, invalid_argument};
use crate::event::PyEvent;
use crate::wait::{Limit, Look, wait_for};

#[pymethods]
impl Engine {
    /// Lists dead letters by shard and number, at most ``limit`` and 10,000: a list of :class:`DeadLetter`. The next page begins
    /// after the last one's id (``after``).
    ///
    /// The others say which are meant, those for which everything that is given holds: ``ids``, ``destination``, ``bucket``,
    /// ``key_prefix``, ``reason`` (a part of it), and ``from_ns`` and ``before_ns``, between which they were given up, in
    /// nanoseconds since the epoch.
    ///
    /// Raises :exc:`NotFound` for a destination that the data directory never had; :exc:`IoError` and the like if a file cannot be
    /// read; :exc:`InvalidArgument`, :exc:`WrongProcess`.
    #[pyo3(
        signature = (*, limit=100, after=None, **which),
        text_signature = "(self, *, limit=100, after=None, ids=None, destination=None, bucket=None, key_prefix=None, \
            reason=None, from_ns=None, before_ns=None)"
    )]
    fn dead_letters<'py>(
        &self,
        py: Python<'py>,
        limit: usize,
        after: Option<&str>,
        which: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyList>> {
        let wanted = letters(py, which)?;
        let after = after.map(str::parse::<DeadLetterId>).transpose().or_raise(py)?;
        self.state.engine.check_process().or_raise(py)?;
        let engine = self.state.engine.clone();
        let found = guard(py, || self.state.run(py, move || engine.dead_letters(&wanted, after, limit))?.or_raise(py))?;
        let list = PyList::empty(py);
        for letter in &found {
            list.append(dead_letter(py, letter)?)?;
        }
        Ok(list)
    }

    /// Writes dead letters as lines of JSON with everything that is known of them, the records that their destinations would have
    /// been sent among that. ``file`` is a path, or an object with ``write`` for ``bytes``. Which are meant is said as for
    /// :meth:`dead_letters`. Answers how many.
    ///
    /// Raises what :meth:`dead_letters` does, and what ``write`` raises.
    #[pyo3(
        signature = (file, /, **which),
        text_signature = "(self, file, /, *, ids=None, destination=None, bucket=None, key_prefix=None, reason=None, \
            from_ns=None, before_ns=None)"
    )]
    fn export_dead_letters<'py>(
        &self,
        py: Python<'py>,
        file: &Bound<'py, PyAny>,
        which: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<u64> {
        let wanted = letters(py, which)?;
        let engine = self.state.engine.clone();
        engine.check_process().or_raise(py)?;
        if file.hasattr("write")? {
            let mut out =
                io::BufWriter::with_capacity(64 << 10, Object { write: file.getattr("write")?.unbind(), raised: None });
            let written = guard(py, || {
                Ok(py.detach(|| {
                    let count = engine.export_dead_letters(&wanted, &mut out)?;
                    out.flush().map_err(|e| Error::io("cannot write dead letters", &e))?;
                    Ok(count)
                }))
            })?;
            let (object, _) = out.into_parts();
            return match object.raised {
                Some(raised) => Err(raised),
                None => written.or_raise(py),
            };
        }
        let path: PathBuf = file.extract()?;
        let write = move || {
            let failed = |e: &io::Error| Error::io("cannot write dead letters", e).at(path.display().to_string());
            let mut out = io::BufWriter::new(std::fs::File::create(&path).map_err(|e| failed(&e))?);
            let count = engine.export_dead_letters(&wanted, &mut out)?;
            out.flush().map_err(|e| failed(&e))?;
            Ok(count)
        };
        guard(py, || self.state.run(py, write)?.or_raise(py))
    }

    /// Puts dead letters back into the log, to be delivered as the same events, in the order of their keys, with a fresh budget.
    /// Which are meant is said as for :meth:`dead_letters`. ``to`` is a destination that gets them instead of their own,
    /// ``per_second`` how many a second. Waits at most ``timeout`` seconds; what is not redriven by then stays a letter. Answers a
    /// :class:`Redriven`.
    ///
    /// Raises :exc:`NotFound` if a destination is not configured; :exc:`Timeout`; :exc:`LogFailed` and the like if the log or the
    /// letters cannot be written; :exc:`Closed`, :exc:`WrongProcess`.
    #[pyo3(
        signature = (*, to=None, per_second=None, timeout=Some(30.0), **which),
        text_signature = "(self, *, to=None, per_second=None, timeout=30.0, ids=None, destination=None, bucket=None, \
            key_prefix=None, reason=None, from_ns=None, before_ns=None)"
    )]
    fn redrive<'py>(
        &self,
        py: Python<'py>,
        to: Option<String>,
        per_second: Option<u32>,
        timeout: Option<f64>,
        which: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let wanted = letters(py, which)?;
        let limit = Limit::new(timeout).or_raise(py)?;
        let wait = limit.start();
        self.state.check_open().or_raise(py)?;
        let mut options = RedriveOptions::default();
        (options.to, options.per_second) = (to, per_second);
        guard(py, || {
            let done = match &self.state.engine {
                AnyEngine::Local(engine) => {
                    let mut redrive = py.detach(|| engine.redrive(&wanted, &options)).or_raise(py)?;
                    let done = wait_for(py, wait, Look(|until| redrive.wait(until)));
                    if done.is_err() {
                        redrive.stop();
                    }
                    done?
                }
                AnyEngine::Remote(client) => {
                    let (client, for_how_long) = (client.clone(), limit.0.unwrap_or(Duration::MAX));
                    let begun = self.state.run(py, move || client.start_redrive(&wanted, &options, for_how_long))?;
                    let answer = wait_for(py, limit.of_another().start(), begun.or_raise(py)?)?;
                    let (done, failed) = answer.or_raise(py)?;
                    failed.or_raise(py)?;
                    done
                }
            };
            let dict = PyDict::new(py);
            dict.set_item("redriven", done.redriven)?;
            dict.set_item("left", done.left)?;
            dict.set_item("why", done.why)?;
            Ok(dict)
        })
    }

    /// Removes dead letters for good; which are meant is said as for :meth:`dead_letters`. Answers how many, once that is durable.
    ///
    /// Raises what :meth:`dead_letters` does; :exc:`Timeout` if it is not through within ``timeout`` seconds (it goes on);
    /// :exc:`Closed`.
    #[pyo3(
        signature = (*, timeout=30.0, **which),
        text_signature = "(self, *, timeout=30.0, ids=None, destination=None, bucket=None, key_prefix=None, reason=None, \
            from_ns=None, before_ns=None)"
    )]
    fn purge_dead_letters(&self, py: Python<'_>, timeout: f64, which: Option<&Bound<'_, PyDict>>) -> PyResult<u64> {
        let wanted = letters(py, which)?;
        let limit = args::seconds("timeout", timeout).or_raise(py)?.min(Duration::from_secs(365 * 24 * 3600));
        self.change(py, move |engine| engine.purge_dead_letters(&wanted, limit))
    }

    /// Sends events of the log again. They keep their ids and their order for each key, through a lane of the replay's own: live
    /// events are neither delayed nor kept in order with it. It goes on after a restart.
    ///
    /// ``to`` is a destination of the rules by name, or one of the replay's own: a ``dict`` as for :meth:`put_destination`, which
    /// is not stored. ``name`` is the replay's, by default a new one. ``from_ns`` and ``until_ns`` are clocks in nanoseconds since
    /// the epoch; by default everything that the log still has. ``bucket``, ``events`` and ``filter`` as for :meth:`tail`.
    /// ``rate_max`` is the most events per second.
    ///
    /// Raises :exc:`NotFound` if the rules have no such destination; :exc:`InvalidArgument` for a name that is taken or not
    /// allowed, or a rate of 0; :exc:`InvalidConfig` for a destination of its own that is wrong; :exc:`Full` if too many are under
    /// way; :exc:`IoError` and the like if it cannot be stored; :exc:`Closed`, :exc:`WrongProcess`.
    #[pyo3(signature = (to, *, name=None, from_ns=None, until_ns=None, bucket=None, events=None, filter=None, rate_max=None))]
    #[allow(clippy::too_many_arguments)]
    fn replay(
        &self,
        py: Python<'_>,
        to: &Bound<'_, PyAny>,
        name: Option<String>,
        from_ns: Option<u64>,
        until_ns: Option<u64>,
        bucket: Option<&Bound<'_, PyAny>>,
        events: Option<&Bound<'_, PyAny>>,
        filter: Option<&Bound<'_, PyAny>>,
        rate_max: Option<u32>,
    ) -> PyResult<Replay> {
        let (named, own) = match to.cast::<PyDict>() {
            Ok(own) => (None, Some(args::json("to", own.as_any())?.into_owned())),
            Err(_) => (Some(args::text("to", to)?.to_owned()), None),
        };
        self.state.check_open().or_raise(py)?;
        let from = from_ns.map_or(ReadFrom::Beginning, ReadFrom::Time);
        let wanted = args::event_filter(py, &self.state.engine, bucket, events, filter)?;
        self.change(py, move |engine| engine.replay(name, named, own, &from, until_ns, &wanted, rate_max)).map(Replay)
    }

    /// The replays that are not through, those of earlier runs included.
    ///
    /// Raises :exc:`WrongProcess` in a forked child.
    fn replays(&self, py: Python<'_>) -> PyResult<Vec<Replay>> {
        let found = self.look(py, |engine| {
            let listed = engine.replays_json()?;
            let names = listed.as_array().into_iter().flatten().filter_map(|r| r["name"].as_str());
            let mut found = Vec::new();
            for name in names {
                match engine.find_replay(name) {
                    Ok(replay) => found.push(replay),
                    // It is through since.
                    Err(e) if e.kind() == ErrorKind::NotFound => {}
                    Err(e) => return Err(e),
                }
            }
            Ok(found)
        })?;
        Ok(found.into_iter().map(Replay).collect())
    }

    /// Says where a replay goes that waits since the engine was opened, because its destination is none of the rules'.
    ///
    /// Raises :exc:`NotFound` if there is no such replay, :exc:`InvalidArgument` if it does not wait, :exc:`InvalidConfig` if the
    /// destination is wrong; :exc:`Closed`, :exc:`WrongProcess`.
    #[pyo3(signature = (name, to))]
    fn resume_replay(&self, py: Python<'_>, name: String, to: &Bound<'_, PyDict>) -> PyResult<Replay> {
        let to = args::json("to", to.as_any())?.into_owned();
        let resume = move |engine: &AnyEngine| {
            engine.resume_replay_text(&name, &to)?;
            engine.find_replay(&name)
        };
        self.change(py, resume).map(Replay)
    }
}

/// Which dead letters are meant.
fn letters(py: Python<'_>, which: Option<&Bound<'_, PyDict>>) -> PyResult<DeadLetterFilter> {
    let mut wanted = DeadLetterFilter::default();
    for (name, value) in which.iter().flat_map(|w| w.iter()) {
        if value.is_none() {
            continue;
        }
        match args::text("which", &name)? {
            "ids" => {
                let ids = args::texts("ids", Some(&value))?;
                wanted.ids = ids.iter().map(|id| id.parse()).collect::<Result<_, Error>>().or_raise(py)?;
                if wanted.ids.is_empty() {
                    // None given would mean all.
                    let e = invalid_argument("ids", "there is no id", "name at least one, or leave it out");
                    return Err(e).or_raise(py);
                }
            }
            "destination" => wanted.destination = Some(args::text("destination", &value)?.to_owned()),
            "bucket" => wanted.bucket = Some(args::text("bucket", &value)?.to_owned()),
            "key_prefix" => wanted.key_prefix = args::key(&value)?.to_vec(),
            "reason" => wanted.reason = Some(args::text("reason", &value)?.to_owned()),
            "from_ns" => wanted.from_ns = args::number("from_ns", Some(&value), u64::MAX)?,
            "before_ns" => wanted.before_ns = args::number("before_ns", Some(&value), u64::MAX)?,
            other => {
                let message = format!("unexpected keyword argument '{other}'");
                return Err(pyo3::exceptions::PyTypeError::new_err(message));
            }
        }
    }
    Ok(wanted)
}

fn dead_letter<'py>(py: Python<'py>, letter: &StoredDeadLetter) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    macro_rules! set {
        ($($name:ident)*) => { $(dict.set_item(stringify!($name), &letter.$name)?;)* };
    }
    dict.set_item("id", letter.id.to_string())?;
    dict.set_item("event_id", letter.event_id.to_string())?;
    set!(destination rule event_type bucket);
    dict.set_item("key", PyBytes::new(py, &letter.key))?;
    set!(accepted_ns given_up_ns attempts hops status reason);
    dict.set_item("answer", PyBytes::new(py, &letter.answer))?;
    // One of a newer version has no form here.
    let event = FrameView::parse(&letter.frame).ok().map(|frame| Py::new(py, PyEvent::of_frame(frame))).transpose()?;
    dict.set_item("event", event)?;
    Ok(dict)
}

/// An object of the host that is written to.
struct Object {
    write: Py<PyAny>,
    raised: Option<PyErr>,
}

impl Write for Object {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = Python::attach(|py| call(self.write.bind(py), (PyBytes::new(py, bytes),)).map(drop));
        match written {
            Ok(()) => Ok(bytes.len()),
            Err(e) => {
                self.raised.get_or_insert(e);
                Err(io::Error::other("the object raised"))
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A replay under way: see :meth:`Engine.replay`. It goes on if nobody holds this.
#[pyclass(frozen, module = "tidewire")]
pub(crate) struct Replay(AnyReplay);

#[pymethods]
impl Replay {
    /// The replay's name.
    #[getter]
    fn name(&self) -> &str {
        self.0.name()
    }

    /// How far it is: see :class:`ReplayProgress`.
    fn progress<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        progress(py, &guard(py, || py.detach(|| self.0.progress()).or_raise(py))?)
    }

    /// Waits until it has ended, at most ``timeout`` seconds. Answers how far it came.
    ///
    /// Raises :exc:`Timeout`, also for a replay that waits for a destination; :exc:`Closed` if the engine closes first: it goes on
    /// at the next opening.
    #[pyo3(signature = (timeout=Some(30.0)), text_signature = "(self, timeout=30.0)")]
    fn wait<'py>(&self, py: Python<'py>, timeout: Option<f64>) -> PyResult<Bound<'py, PyDict>> {
        let wait = Limit::new(timeout).or_raise(py)?.start();
        guard(py, || {
            let look = |until: Instant| self.0.wait(until.saturating_duration_since(Instant::now()));
            progress(py, &wait_for(py, wait, Look(look))?)
        })
    }

    /// As :meth:`wait`, to be awaited.
    #[pyo3(signature = (timeout=Some(30.0)), text_signature = "(self, timeout=30.0)")]
    fn wait_async<'py>(slf: &Bound<'py, Self>, timeout: Option<f64>) -> PyResult<Bound<'py, PyAny>> {
        Limit::new(timeout).or_raise(slf.py())?;
        helper(slf.py(), "look_again", (slf.getattr("wait")?, timeout))
    }

    /// Ends it before it is through: what is on its way may still arrive, the rest is not sent.
    ///
    /// Raises :exc:`IoError` and the like if that cannot be stored; then it goes on at the next opening. :exc:`WrongProcess`.
    fn cancel(&self, py: Python<'_>) -> PyResult<()> {
        guard(py, || py.detach(|| self.0.cancel()).or_raise(py))
    }

    fn __repr__(&self) -> String {
        format!("<tidewire.Replay {}>", self.0.name())
    }
}

fn progress<'py>(py: Python<'py>, p: &ReplayProgress) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    let state = match p.state {
        ReplayState::Running => "running",
        ReplayState::Waiting => "waiting",
        ReplayState::Done => "done",
        ReplayState::Cancelled => "cancelled",
        _ => "failed",
    };
    dict.set_item("state", state)?;
    macro_rules! set {
        ($($name:ident)*) => { $(dict.set_item(stringify!($name), &p.$name)?;)* };
    }
    set!(read found delivered dead_lettered retried missing last_error);
    Ok(dict)
}
