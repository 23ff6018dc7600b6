//! Publishing.

use std::time::{Duration, Instant};

use pyo3::exceptions::PyTypeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyAny, PyDict, PyString, PyTuple};
use tidewire::{
    Ack, AnyEngine, DedupKey, Error, ErrorKind, Event, OnFull, PublishOptions, Published, PublishedJson, Receipt,
    Receipts,
};

use crate::args::{self, Fields};
use crate::engine::{Engine, helper};
use crate::error::{OrRaise, guard};
use crate::event::PyEvent;
use crate::hub::Hub;
use crate::wait::{Acked, Limit, Wait, wait_for};

/// After so many events of a series other threads get a turn, and signals are handled.
const SERIES: u64 = 1024;

#[pymethods]
impl Engine {
    /// Publishes an event. Answers what became of it: ``Published.ACCEPTED``; ``Published.NO_MATCH``, the only one that is
    /// false, if no rule wants events of this type in this bucket, so that nothing was kept; or ``Published.DUPLICATE``, if an
    /// event of the same object with this ``dedup_key`` was accepted within ``engine.dedup.window``.
    ///
    /// >>> engine.publish("photos", "cats/tom.jpg", size=48213, metadata={"color": "grey"})
    /// <Published.ACCEPTED: 1>
    ///
    /// Instead of its parts an :class:`Event` may be given, or a mapping of the parts. ``bucket`` and ``key`` say which object,
    /// a key that is no text as ``bytes``. ``event_type`` is a name of :class:`EventType` or of the configuration. ``size`` is in
    /// bytes, ``time_ns`` in nanoseconds since the epoch; ``None`` is now. ``data`` is JSON text, or a ``dict`` or ``list`` to
    /// write as JSON. ``priority`` is ``low``, ``normal`` or ``high``; ``origin`` says what the cause was: a ``user``, a
    /// ``replica`` or the ``lifecycle``. ``hops`` counts the handlers of notifications that the event has passed through.
    ///
    /// ``ack`` says how safe the event is when the call returns: ``memory`` (lost if the process dies now), ``written`` (survives
    /// that, but not a power failure) or ``synced`` (durable). ``timeout`` limits the waiting in seconds, ``None`` is without
    /// limit. ``block=False`` raises :exc:`Full` at once when there is no space, but still waits for ``ack``.
    ///
    /// Raises :exc:`InvalidEvent`, :exc:`InvalidArgument`, :exc:`Full`, :exc:`Closed` or :exc:`WrongProcess`: the
    /// event is not accepted. :exc:`Timeout`, :exc:`LogFailed` and an exception of a signal handler while waiting for
    /// ``ack``: it is accepted, but has not reached that level yet. Where another process has the engine, also
    /// :exc:`Disconnected`: nobody is connected, and with ``block`` the whole ``timeout`` over; or its process has died while its
    /// answer was waited for, and nobody knows.
    #[pyo3(
        signature = (bucket, key=None, event_type=None, *, size=None, etag=None, version_id=None, requester=None,
            source_ip=None, request_id=None, host_id=None, region=None, content_type=None, method=None,
            user_agent=None, bucket_owner=None, metadata=None, tags=None, data=None, time_ns=None, priority=None,
            origin=None, hops=None, ack=None, timeout=Some(30.0), block=true, dedup_key=None),
        text_signature = "(self, bucket, key, event_type='s3:ObjectCreated:Put', *, size=None, etag=None, \
            version_id=None, requester=None, source_ip=None, request_id=None, host_id=None, region=None, \
            content_type=None, method=None, user_agent=None, bucket_owner=None, metadata=None, tags=None, data=None, \
            time_ns=None, priority='normal', origin='user', hops=0, ack='synced', timeout=30.0, block=True, \
            dedup_key=None)"
    )]
    #[allow(clippy::too_many_arguments)]
    fn publish<'py>(
        &self,
        py: Python<'py>,
        bucket: &Bound<'py, PyAny>,
        key: Option<&Bound<'py, PyAny>>,
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
        dedup_key: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Py<PyAny>> {
        let options = Options::new(py, ack, timeout, block, dedup_key)?;
        let (whole, bucket) = match bucket.cast::<PyString>() {
            Ok(_) => (None, Some(bucket)),
            Err(_) => (Some(bucket), None),
        };
        let fields = Fields {
            bucket,
            key,
            event_type,
            size,
            etag,
            version_id,
            requester,
            source_ip,
            request_id,
            host_id,
            region,
            content_type,
            method,
            user_agent,
            bucket_owner,
            metadata,
            tags,
            data,
            time_ns,
            priority,
            origin,
            hops,
        };
        let put = |event: &Event<'_>| guard(py, || self.put(py, event, &options));
        let became = match whole {
            None if key.is_none() => {
                return Err(PyTypeError::new_err(
                    "argument 'key': str, bytes or another buffer is wanted, and not given",
                ));
            }
            None => fields.with(py, put)?,
            Some(event) if fields.is_empty() => args::with_event(event, put)?,
            Some(event) if event.cast::<PyEvent>().is_ok() => {
                return Err(PyTypeError::new_err("an Event comes alone: use Event.replace to change parts of it"));
            }
            Some(bucket) => return Err(args::wrong_type("bucket", "str", bucket)),
        };
        Ok(published(py, became)?.clone_ref(py))
    }

    /// As :meth:`publish`, to be awaited. The event is on its way when this returns, so that calls keep their order, unless
    /// there is no space: then it is tried again while you wait.
    #[pyo3(
        signature = (*args, **kwargs),
        text_signature = "(self, bucket, key, event_type='s3:ObjectCreated:Put', *, size=None, etag=None, \
            version_id=None, requester=None, source_ip=None, request_id=None, host_id=None, region=None, \
            content_type=None, method=None, user_agent=None, bucket_owner=None, metadata=None, tags=None, data=None, \
            time_ns=None, priority='normal', origin='user', hops=0, ack='synced', timeout=30.0, block=True, \
            dedup_key=None)"
    )]
    fn publish_async<'py>(
        slf: &Bound<'py, Self>,
        args: &Bound<'py, PyTuple>,
        kwargs: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let (event, given) = args::event_and_options(args, kwargs, &["ack", "timeout", "block", "dedup_key"])?;
        let options = Options::of_dict(py, &given)?;
        // Without a loop there would be nobody to tell of an event that is on its way.
        helper(py, "get_running_loop", ())?;
        if options.dedup_key.is_some() && slf.get().state.client().is_some() {
            // Another process says whether it is a repeat.
            let event = args::with_event(&event, |e| PyEvent::of(py, e))?;
            return helper(py, "in_thread", (slf.getattr(intern!(py, "publish"))?, (event,), given));
        }
        let first = args::with_event(&event, |event| {
            guard(py, || Ok(slf.get().submit(py, event, &options, options.on_full(Duration::ZERO))))
        })?;
        match first {
            Err(e) if options.block && slf.get().state.has_no_space(&e) => {
                let event = match event.cast::<PyEvent>() {
                    Ok(_) => event,
                    Err(_) => Bound::new(py, args::with_event(&event, |e| PyEvent::of(py, e))?)?.into_any(),
                };
                helper(py, "publish_later", (slf, event, given))
            }
            other => {
                let (became, receipt) = other.or_raise(py)?;
                slf.get().acked(slf, published(py, became)?, receipt, &options)
            }
        }
    }

    /// Tries once to publish an event, for a loop: the future, or ``None`` if there is no space.
    fn _try_publish<'py>(
        slf: &Bound<'py, Self>,
        event: &Bound<'py, PyEvent>,
        given: &Bound<'py, PyDict>,
        last: bool,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let py = slf.py();
        let options = Options::of_dict(py, given)?;
        let on_full = if last { OnFull::Refuse } else { OnFull::Retry(Duration::ZERO) };
        match event.get().with(|event| slf.get().submit(py, event, &options, on_full)) {
            Err(e) if !last && slf.get().state.has_no_space(&e) => Ok(None),
            other => {
                let (became, receipt) = other.or_raise(py)?;
                slf.get().acked(slf, published(py, became)?, receipt, &options).map(Some)
            }
        }
    }

    /// Publishes many events, from any iterable of :class:`Event` or mappings of an event's parts, and waits once for ``ack`` of
    /// all of them. They are taken one by one, so that a generator needs no more memory for a million of them. Answers how
    /// many were accepted, wanted by no rule, and repeats.
    ///
    /// >>> engine.publish_many(Event("photos", f"cats/{n}.jpg") for n in range(3))
    /// PublishedCounts(accepted=3, no_match=0, duplicates=0)
    ///
    /// ``ack``, ``timeout``, ``block`` and ``dedup_key`` are those of :meth:`publish`; ``timeout`` is for the longest wait for
    /// space, and for the wait for ``ack`` at the end.
    ///
    /// Raises what :meth:`publish` does for the first event that is refused, and what the iterable raises: those before it are
    /// accepted, and were waited for; ``published`` of the exception counts them, and ``place`` tells which event it was.
    #[pyo3(
        signature = (events, *, ack=None, timeout=Some(30.0), block=true, dedup_key=None),
        text_signature = "(self, events, *, ack='synced', timeout=30.0, block=True, dedup_key=None)"
    )]
    fn publish_many<'py>(
        &self,
        py: Python<'py>,
        events: &Bound<'py, PyAny>,
        ack: Option<&Bound<'py, PyAny>>,
        timeout: Option<f64>,
        block: bool,
        dedup_key: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let options = Options::new(py, ack, timeout, block, dedup_key)?;
        let mut series = Series::default();
        let put = self.put_series(py, events, &options, &mut series);
        // Those before it are on their way, and the caller is told of them.
        let waited = self.wait_series(py, &series, &options);
        put.and(waited).map_err(|e| counted(py, e, &series))?;
        counts(py, &series)
    }

    /// As :meth:`publish_many`, to be awaited. Where there is no space, or after some events, others of the loop get their
    /// turn. The iterable may be asynchronous.
    #[pyo3(
        signature = (events, *, ack=None, timeout=Some(30.0), block=true, dedup_key=None),
        text_signature = "(self, events, *, ack='synced', timeout=30.0, block=True, dedup_key=None)"
    )]
    fn publish_many_async<'py>(
        slf: &Bound<'py, Self>,
        events: &Bound<'py, PyAny>,
        ack: Option<&Bound<'py, PyAny>>,
        timeout: Option<f64>,
        block: bool,
        dedup_key: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        Options::new(py, ack, timeout, block, dedup_key)?;
        let given = PyDict::new(py);
        given.set_item("ack", ack)?;
        given.set_item("timeout", timeout)?;
        given.set_item("block", block)?;
        given.set_item("dedup_key", dedup_key)?;
        helper(py, "publish_many", (slf, events, given))
    }

    /// Publishes the events of a JSON document, in its order, and waits once for ``ack`` of all of them: ``Records`` as S3 and
    /// its peers send them, CloudEvents (one or a batch), or a line per event with the names of the parts of :class:`Event`.
    ///
    /// ``document`` is text or a buffer, of at most 4 MiB, as lines 16 MiB, with at most 65,536 events. ``content_type`` says
    /// what it is, such as ``application/cloudevents+json``; if it does not say enough, the document does. The rest is as for
    /// :meth:`publish_many`.
    ///
    /// Raises :exc:`InvalidEvent`, with the place, if anything of the document is wrong: then nothing of it is published.
    /// Otherwise as :meth:`publish_many`.
    #[pyo3(
        signature = (document, content_type=None, *, ack=None, timeout=Some(30.0), block=true, dedup_key=None),
        text_signature = "(self, document, content_type='', *, ack='synced', timeout=30.0, block=True, dedup_key=None)"
    )]
    #[allow(clippy::too_many_arguments)]
    fn publish_json<'py>(
        &self,
        py: Python<'py>,
        document: &Bound<'py, PyAny>,
        content_type: Option<&Bound<'py, PyAny>>,
        ack: Option<&Bound<'py, PyAny>>,
        timeout: Option<f64>,
        block: bool,
        dedup_key: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let options = Options::new(py, ack, timeout, block, dedup_key)?;
        // The reader works in the document, so it gets one of its own.
        let mut document = args::document("document", document)?.to_vec();
        let content_type = args::text_or_none("content_type", content_type)?.unwrap_or_default().to_owned();
        self.state.check_open().or_raise(py)?;
        let engine = self.state.engine.clone();
        let limit = options.limit.0.unwrap_or(Duration::MAX);
        let on_full = if options.block { OnFull::Block(limit) } else { OnFull::Refuse };
        let publish = PublishOptions { ack: options.ack, on_full, ack_timeout: limit, dedup_key: options.dedup_key };
        guard(py, || {
            let (result, became) = self.state.run(py, move || {
                let mut became = PublishedJson::default();
                let result = engine.publish_json(&mut document, &content_type, &publish, &mut became);
                (result, became)
            })?;
            let series = Series {
                accepted: became.accepted,
                no_match: became.no_match,
                duplicates: became.duplicates,
                ..Series::default()
            };
            result.or_raise(py).map_err(|e| counted(py, e, &series))?;
            counts(py, &series)
        })
    }

    /// As :meth:`publish_json`, to be awaited: a thread reads the document.
    #[pyo3(
        signature = (*args, **kwargs),
        text_signature = "(self, document, content_type='', *, ack='synced', timeout=30.0, block=True, dedup_key=None)"
    )]
    fn publish_json_async<'py>(
        slf: &Bound<'py, Self>,
        args: &Bound<'py, PyTuple>,
        kwargs: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let call = slf.getattr(intern!(py, "publish_json"))?;
        helper(py, "in_thread", (call, args, kwargs))
    }

    /// Publishes an event that stands at ``cursor`` in a log of the host, from 1. Replaying that log is harmless: what the
    /// engine has already is ``Published.DUPLICATE``, and :meth:`last_applied` tells where to begin.
    ///
    /// Cursors grow from call to call: one that is not above an earlier call's is taken for a repeat. It is for the host to
    /// keep calls of several threads in the order of its log. An event that was refused must be given again before the next.
    ///
    /// Raises :exc:`InvalidArgument` for cursor 0; otherwise as :meth:`publish`, but that after :exc:`LogFailed` the event may
    /// or may not be in the log: give it again to the next opening.
    #[pyo3(
        signature = (cursor, event, /, *, ack=None, timeout=Some(30.0), block=true),
        text_signature = "(self, cursor, event, /, *, ack='synced', timeout=30.0, block=True)"
    )]
    fn append_at<'py>(
        &self,
        py: Python<'py>,
        cursor: u64,
        event: &Bound<'py, PyAny>,
        ack: Option<&Bound<'py, PyAny>>,
        timeout: Option<f64>,
        block: bool,
    ) -> PyResult<Py<PyAny>> {
        let options = Options::new(py, ack, timeout, block, None)?;
        self.state.check_open().or_raise(py)?;
        let event = args::with_event(event, |event| PyEvent::of(py, event))?;
        let engine = self.state.engine.clone();
        let (ack, block, wait) = (options.ack, options.block, options.limit.start());
        let in_hub = Hub::current(py)?.is_some();
        guard(py, || {
            // First what becomes of it, which a wait that is over would not tell; then the wait, for what is a repeat by then.
            let mut first = None;
            loop {
                let (slice_end, last) = wait.slice();
                let left = slice_end.saturating_duration_since(Instant::now());
                let left = if in_hub { wait.left().unwrap_or(Duration::MAX) } else { left };
                let on_full = match (block, last || in_hub) {
                    (false, _) => OnFull::Refuse,
                    (true, true) => OnFull::Block(left),
                    (true, false) => OnFull::Retry(left),
                };
                let ack = if first.is_some() { ack } else { Ack::Memory };
                let publish = PublishOptions { ack, on_full, ack_timeout: left, dedup_key: None };
                let result = if in_hub {
                    let (engine, event) = (engine.clone(), event.copy());
                    self.state.run(py, move || event.with(|event| engine.append_at(cursor, event, &publish)))?
                } else {
                    py.detach(|| event.with(|event| engine.append_at(cursor, event, &publish)))
                };
                match result {
                    Err(e) if !last && !in_hub && block && self.state.has_no_space(&e) => py.check_signals()?,
                    Err(e) if !last && !in_hub && e.kind() == ErrorKind::Timeout => py.check_signals()?,
                    other => {
                        let became = *first.get_or_insert(other.or_raise(py)?);
                        if ack == options.ack || became == Published::NoMatch {
                            return Ok(published(py, became)?.clone_ref(py));
                        }
                    }
                }
            }
        })
    }

    /// Up to which cursor everything that :meth:`append_at` was called with is durable, 0 if nothing is: the host need not keep
    /// its log up to there. It follows what is durable with a delay of about ``engine.delivery.cursor_interval``.
    ///
    /// Raises :exc:`WrongProcess` in a forked child.
    fn last_applied(&self, py: Python<'_>) -> PyResult<u64> {
        self.look(py, AnyEngine::last_applied)
    }

    /// Publishes the next events of an iterator, for a loop: ``end``, ``more`` or ``full``. ``series`` has what became of all
    /// of them. ``last``: if there is no space now, that is an error.
    fn _publish_some<'py>(
        &self,
        py: Python<'py>,
        events: &Bound<'py, PyAny>,
        given: &Bound<'py, PyDict>,
        series: &Bound<'py, PySeries>,
        last: bool,
    ) -> PyResult<&'static str> {
        let mut options = Options::of_dict(py, given)?;
        options.block &= !last;
        let mut series = series.borrow_mut();
        Ok(match guard(py, || self.put_some(py, events, &options, &mut series.0, false))? {
            Step::End => "end",
            Step::More => "more",
            Step::Full => "full",
        })
    }
}

/// How something is published.
pub(crate) struct Options {
    pub(crate) ack: Ack,
    pub(crate) limit: Limit,
    block: bool,
    dedup_key: Option<DedupKey>,
}

impl Options {
    #[inline]
    fn new(
        py: Python<'_>,
        ack: Option<&Bound<'_, PyAny>>,
        timeout: Option<f64>,
        block: bool,
        dedup_key: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Options> {
        let ack = args::ack(args::text_or_none("ack", ack)?).or_raise(py)?;
        let limit = Limit::new(timeout).or_raise(py)?;
        Ok(Options { ack, limit, block, dedup_key: args::dedup_key(dedup_key)? })
    }

    fn of_dict(py: Python<'_>, given: &Bound<'_, PyDict>) -> PyResult<Options> {
        let get = |name: &str| -> PyResult<Option<Bound<'_, PyAny>>> {
            Ok(given.get_item(name)?.filter(|value| !value.is_none()))
        };
        let timeout = match given.get_item("timeout")? {
            None => Some(30.0),
            Some(timeout) => timeout.extract()?,
        };
        let block = get("block")?.map_or(Ok(true), |block| block.extract())?;
        Options::new(py, get("ack")?.as_ref(), timeout, block, get("dedup_key")?.as_ref())
    }

    /// How to try, if there is nothing to wait with.
    fn on_full(&self, wait: Duration) -> OnFull {
        if self.block { OnFull::Retry(wait) } else { OnFull::Refuse }
    }
}

/// What became of a series of events so far.
#[derive(Default)]
pub(crate) struct Series {
    accepted: u64,
    no_match: u64,
    duplicates: u64,
    receipts: Receipts,
    /// For which there was no space.
    pending: Option<Py<PyAny>>,
}

/// How far a series came.
enum Step {
    End,
    More,
    Full,
}

/// The same in the hands of a loop.
#[pyclass(module = "tidewire._tidewire", name = "Series")]
pub(crate) struct PySeries(Series);

#[pymethods]
impl PySeries {
    #[new]
    fn new() -> PySeries {
        PySeries(Series::default())
    }

    /// Has a loop wait for the level of all of them: the number of what it waits for; ``None`` if they have it.
    fn start_wait(&self, py: Python<'_>, poller: &crate::aio::Poller, ack: &str) -> PyResult<Option<u64>> {
        let ack = args::ack(Some(ack)).or_raise(py)?;
        let receipts = self.0.receipts.clone();
        match poller.add(Box::pin(async move { receipts.reached(ack).await })) {
            Ok(id) => Ok(Some(id)),
            Err(done) => done.or_raise(py).map(|()| None),
        }
    }

    /// How many became what.
    fn counts<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        counts(py, &self.0)
    }
}

impl Engine {
    /// Publishes, waiting for space and for the ack level. As long as there is space and nothing to wait for, the interpreter
    /// is kept: letting go of it costs more than the whole call.
    #[inline]
    fn put(&self, py: Python<'_>, event: &Event<'_>, options: &Options) -> PyResult<Published> {
        let mut wait = None;
        let (became, receipt) = self.space(py, event, options, &mut wait)?;
        if let Some(receipt) = receipt.filter(|r| !r.is(options.ack)) {
            let wait = wait.unwrap_or_else(|| options.limit.start());
            wait_for(py, wait, Acked::new(receipt, options.ack))?;
        }
        Ok(became)
    }

    /// Has an event accepted, waiting for space. `wait` is set if it had to.
    #[inline]
    fn space(
        &self,
        py: Python<'_>,
        event: &Event<'_>,
        options: &Options,
        wait: &mut Option<Wait>,
    ) -> PyResult<(Published, Option<Receipt>)> {
        match self.submit(py, event, options, options.on_full(Duration::ZERO)) {
            Err(e) if options.block && self.state.has_no_space(&e) => {
                let wait = *wait.get_or_insert_with(|| options.limit.start());
                self.wait_for_space(py, event, options, wait)
            }
            other => other.or_raise(py),
        }
    }

    #[cold]
    fn wait_for_space(
        &self,
        py: Python<'_>,
        event: &Event<'_>,
        options: &Options,
        wait: Wait,
    ) -> PyResult<(Published, Option<Receipt>)> {
        let hub = Hub::current(py)?;
        loop {
            py.check_signals()?;
            let (end, last) = wait.slice();
            let left = end.saturating_duration_since(Instant::now());
            let result = match &hub {
                None => {
                    let on_full = if last { OnFull::Block(left) } else { OnFull::Retry(left) };
                    py.detach(|| self.submit_here(event, options, on_full))
                }
                Some(hub) => {
                    let last = wait.left().is_some_and(|left| left.is_zero());
                    let on_full = if last { OnFull::Refuse } else { OnFull::Retry(Duration::ZERO) };
                    let result = self.submit(py, event, options, on_full);
                    if !last && result.as_ref().is_err_and(|e| self.state.has_no_space(e)) {
                        hub.sleep(Duration::from_millis(2))?;
                        continue;
                    }
                    return result.or_raise(py);
                }
            };
            match result {
                Err(e) if !last && self.state.has_no_space(&e) => {}
                other => return other.or_raise(py),
            }
        }
    }

    /// Has an event accepted. What another process may have to say something of is done without the interpreter.
    #[inline]
    fn submit(
        &self,
        py: Python<'_>,
        event: &Event<'_>,
        options: &Options,
        on_full: OnFull,
    ) -> Result<(Published, Option<Receipt>), Error> {
        match self.state.client() {
            None => self.submit_here(event, options, on_full),
            Some(_) => py.detach(|| self.submit_here(event, options, on_full)),
        }
    }

    #[inline]
    fn submit_here(
        &self,
        event: &Event<'_>,
        options: &Options,
        on_full: OnFull,
    ) -> Result<(Published, Option<Receipt>), Error> {
        let engine = &self.state.engine;
        // How long an answer of another process is waited for; a loop asks for one on a thread.
        let ack_timeout = match options.dedup_key {
            Some(_) => options.limit.0.unwrap_or(Duration::MAX),
            None => Duration::ZERO,
        };
        let publish = PublishOptions { ack: options.ack, on_full, ack_timeout, dedup_key: options.dedup_key };
        if options.ack == Ack::Memory && options.dedup_key.is_none() {
            return engine.publish_with(event, &publish).map(|became| (became, None));
        }
        Ok(match engine.submit(event, &publish)? {
            None => (Published::NoMatch, None),
            Some(receipt) if receipt.is_duplicate() => (Published::Duplicate, Some(receipt)),
            Some(receipt) => (Published::Accepted, Some(receipt)),
        })
    }

    /// What a caller with a loop awaits.
    pub(crate) fn acked<'py>(
        &self,
        slf: &Bound<'py, Self>,
        answer: &Py<PyAny>,
        receipt: Option<Receipt>,
        options: &Options,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let Some(receipt) = receipt.filter(|r| !r.is(options.ack)) else { return helper(py, "answer", (answer,)) };
        let port = helper(py, "port", (slf,))?;
        let acks = port.getattr(intern!(py, "acks"))?;
        let id: u64 = port.call_method0(intern!(py, "next"))?.extract()?;
        acks.cast::<crate::aio::Acks>()?.get().watch(py, &receipt, options.ack, id)?;
        port.call_method1(intern!(py, "future"), (id, answer, options.limit.0.map(|l| l.as_secs_f64())))
    }

    fn put_series(
        &self,
        py: Python<'_>,
        events: &Bound<'_, PyAny>,
        options: &Options,
        series: &mut Series,
    ) -> PyResult<()> {
        self.state.check_open().or_raise(py)?;
        let events = events.try_iter()?;
        let (mut had_since, mut share) = (Instant::now(), None);
        while let Step::More = guard(py, || self.put_some(py, &events, options, series, true))? {
            py.check_signals()?;
            let share = match share {
                Some(share) => share,
                None => *share.insert(share_of_interpreter(py)?),
            };
            if had_since.elapsed() >= share {
                py.detach(|| ());
                had_since = Instant::now();
            }
        }
        Ok(())
    }

    /// Publishes some events of an iterator. `may_wait`: for space, if the options say so.
    fn put_some(
        &self,
        py: Python<'_>,
        events: &Bound<'_, PyAny>,
        options: &Options,
        series: &mut Series,
        may_wait: bool,
    ) -> PyResult<Step> {
        for _ in 0..SERIES {
            let event = match series.pending.take() {
                Some(event) => event.into_bound(py),
                None => {
                    // SAFETY: an iterator, as `try_iter` or the loop's side made sure; what is answered is new, or NULL.
                    let next = unsafe { Bound::from_owned_ptr_or_opt(py, pyo3::ffi::PyIter_Next(events.as_ptr())) };
                    match next {
                        Some(event) => event,
                        None => return PyErr::take(py).map_or(Ok(Step::End), Err),
                    }
                }
            };
            let put = |event: &Event<'_>| {
                if may_wait {
                    return self.space(py, event, options, &mut None).map(Some);
                }
                match self.submit(py, event, options, options.on_full(Duration::ZERO)) {
                    Err(e) if options.block && self.state.has_no_space(&e) => Ok(None),
                    other => other.or_raise(py).map(Some),
                }
            };
            let Some((became, receipt)) = args::with_event(&event, put).map_err(|e| series.place(py, e))? else {
                series.pending = Some(event.unbind());
                return Ok(Step::Full);
            };
            match became {
                Published::Accepted => series.accepted += 1,
                Published::NoMatch => series.no_match += 1,
                Published::Duplicate => series.duplicates += 1,
            }
            if let Some(receipt) = receipt {
                series.receipts.add(receipt);
            }
        }
        Ok(Step::More)
    }

    fn wait_series(&self, py: Python<'_>, series: &Series, options: &Options) -> PyResult<()> {
        if options.ack == Ack::Memory || series.receipts.is(options.ack) {
            return Ok(());
        }
        wait_for(py, options.limit.start(), Acked::new(series.receipts.clone(), options.ack))
    }
}

/// How long a thread keeps the interpreter while others wait for it. One that waits asks for it after the switch interval, if it
/// was not let go of meanwhile, and only then is it sure to get it: who lets go and takes it again at once is faster than any
/// that has to be woken. So it is let go of after twice as long, and not before.
fn share_of_interpreter(py: Python<'_>) -> PyResult<Duration> {
    let interval: f64 = py.import(intern!(py, "sys"))?.call_method0(intern!(py, "getswitchinterval"))?.extract()?;
    Ok(Duration::try_from_secs_f64(2.0 * interval).unwrap_or(Duration::MAX))
}

impl Series {
    /// Says of which event an error is.
    #[cold]
    fn place(&self, py: Python<'_>, e: PyErr) -> PyErr {
        let n = self.accepted + self.no_match + self.duplicates;
        let at = || -> PyResult<PyErr> {
            let at = py.import("tidewire._errors")?.getattr("at")?;
            Ok(PyErr::from_value(at.call1((e.value(py), format!("events[{n}]")))?))
        };
        at().unwrap_or(e)
    }
}

/// Adds the counts to an exception.
#[cold]
fn counted(py: Python<'_>, e: PyErr, series: &Series) -> PyErr {
    let set = counts(py, series).and_then(|counts| e.value(py).setattr(intern!(py, "published"), counts));
    // One that takes no attributes goes on without.
    drop(set);
    e
}

fn counts<'py>(py: Python<'py>, series: &Series) -> PyResult<Bound<'py, PyAny>> {
    static COUNTS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let class = COUNTS.import(py, "tidewire._types", "PublishedCounts")?;
    class.call1((series.accepted, series.no_match, series.duplicates))
}

/// The member of the enumeration.
#[inline]
pub(crate) fn published(py: Python<'_>, became: Published) -> PyResult<&Py<PyAny>> {
    static ALL: PyOnceLock<[Py<PyAny>; 3]> = PyOnceLock::new();
    let all = ALL.get_or_try_init(py, || -> PyResult<_> {
        let class = py.import("tidewire._types")?.getattr("Published")?;
        let member = |name: &str| class.getattr(name).map(Bound::unbind);
        Ok([member("NO_MATCH")?, member("ACCEPTED")?, member("DUPLICATE")?])
    })?;
    Ok(match became {
        Published::NoMatch => &all[0],
        Published::Accepted => &all[1],
        Published::Duplicate => &all[2],
    })
}
