//! The class `Event`.

use pyo3::basic::CompareOp;
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyBytes, PyDict, PyTuple};
use tidewire::event::frame::{self, Field, FrameView};
use tidewire::{Event, Origin, Priority};

use crate::args::{self, Fields};
use crate::error::guard;

/// One thing that happened to one object: what :meth:`Engine.publish` takes, made once and used as often as you like.
///
/// The arguments are those of :meth:`Engine.publish`. It never changes, compares by its parts, may be a key of a ``dict``,
/// be pickled, and be used from any thread. It holds its parts encoded, in one piece of memory.
///
/// >>> event = Event("photos", "cats/tom.jpg", size=48213)
/// >>> event.size, event.event_type
/// (48213, 's3:ObjectCreated:Put')
/// >>> event.replace(size=5).to_dict()
/// {'bucket': 'photos', 'key': b'cats/tom.jpg', 'event_type': 's3:ObjectCreated:Put', 'size': 5}
///
/// Raises :exc:`InvalidEvent` for an unknown type or a part that has no form; limits are those of the engine, which says when
/// it is published.
#[pyclass(frozen, weakref, name = "Event", module = "tidewire")]
pub(crate) struct PyEvent {
    /// Without a time if none was given.
    frame: Box<[u8]>,
}

/// The texts of an event, which are `None` where they are empty.
const TEXTS: [(&str, Field); 11] = [
    ("etag", Field::Etag),
    ("version_id", Field::VersionId),
    ("requester", Field::Requester),
    ("source_ip", Field::SourceIp),
    ("request_id", Field::RequestId),
    ("host_id", Field::HostId),
    ("region", Field::Region),
    ("content_type", Field::ContentType),
    ("method", Field::Method),
    ("user_agent", Field::UserAgent),
    ("bucket_owner", Field::BucketOwner),
];

#[pymethods]
impl PyEvent {
    #[new]
    #[pyo3(
        signature = (bucket, key, event_type=None, *, size=None, etag=None, version_id=None, requester=None,
            source_ip=None, request_id=None, host_id=None, region=None, content_type=None, method=None,
            user_agent=None, bucket_owner=None, metadata=None, tags=None, data=None, time_ns=None, priority=None,
            origin=None, hops=None),
        text_signature = "(bucket, key, event_type='s3:ObjectCreated:Put', *, size=None, etag=None, \
            version_id=None, requester=None, source_ip=None, request_id=None, host_id=None, region=None, \
            content_type=None, method=None, user_agent=None, bucket_owner=None, metadata=None, tags=None, data=None, \
            time_ns=None, priority='normal', origin='user', hops=0)"
    )]
    #[allow(clippy::too_many_arguments)]
    fn new<'py>(
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
    ) -> PyResult<PyEvent> {
        let (bucket, key) = (Some(bucket), Some(key));
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
        fields.with(py, |event| guard(py, || PyEvent::of(py, event)))
    }

    /// The bucket.
    #[getter]
    fn bucket(&self) -> &str {
        self.view().bucket()
    }

    /// The key: raw bytes, which need not be UTF-8.
    #[getter]
    fn key(&self) -> &[u8] {
        self.view().key()
    }

    /// The name of the type, such as ``s3:ObjectCreated:Put``.
    #[getter]
    fn event_type(&self) -> String {
        self.view().event_type().name().to_owned()
    }

    /// The object's size in bytes, if it is known.
    #[getter]
    fn size(&self) -> Option<u64> {
        self.view().size()
    }

    /// The entity tag, without quotes.
    #[getter]
    fn etag(&self) -> Option<&str> {
        self.text(Field::Etag)
    }

    /// The object's version.
    #[getter]
    fn version_id(&self) -> Option<&str> {
        self.text(Field::VersionId)
    }

    /// Who asked for the operation.
    #[getter]
    fn requester(&self) -> Option<&str> {
        self.text(Field::Requester)
    }

    /// The address that the request came from.
    #[getter]
    fn source_ip(&self) -> Option<&str> {
        self.text(Field::SourceIp)
    }

    /// The id of the request (``x-amz-request-id``).
    #[getter]
    fn request_id(&self) -> Option<&str> {
        self.text(Field::RequestId)
    }

    /// The second id of the request (``x-amz-id-2``).
    #[getter]
    fn host_id(&self) -> Option<&str> {
        self.text(Field::HostId)
    }

    /// The region; ``None`` is that of the engine.
    #[getter]
    fn region(&self) -> Option<&str> {
        self.text(Field::Region)
    }

    /// The object's content type.
    #[getter]
    fn content_type(&self) -> Option<&str> {
        self.text(Field::ContentType)
    }

    /// The operation as the API names it, such as ``PutObject``.
    #[getter]
    fn method(&self) -> Option<&str> {
        self.text(Field::Method)
    }

    /// The client's user agent.
    #[getter]
    fn user_agent(&self) -> Option<&str> {
        self.text(Field::UserAgent)
    }

    /// Who owns the bucket.
    #[getter]
    fn bucket_owner(&self) -> Option<&str> {
        self.text(Field::BucketOwner)
    }

    /// User metadata, names without ``x-amz-meta-``. A new ``dict`` each time.
    #[getter]
    fn metadata<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        pairs(py, self.view().metadata())
    }

    /// Object tags. A new ``dict`` each time.
    #[getter]
    fn tags<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        pairs(py, self.view().tags())
    }

    /// Data of the host: a JSON document, empty if there is none.
    #[getter]
    fn data(&self) -> &[u8] {
        self.view().field(Field::Data)
    }

    /// When it happened, in nanoseconds since the epoch; ``None`` is when it is published.
    #[getter]
    fn time_ns(&self) -> Option<u64> {
        Some(self.view().time_ns()).filter(|ns| *ns > 0)
    }

    /// ``low``, ``normal`` or ``high``.
    #[getter]
    fn priority(&self) -> &'static str {
        match self.view().priority() {
            Priority::Low => "low",
            Priority::Normal => "normal",
            Priority::High => "high",
        }
    }

    /// ``user``, ``replica`` or ``lifecycle``.
    #[getter]
    fn origin(&self) -> &'static str {
        match self.view().origin() {
            Origin::User => "user",
            Origin::Replica => "replica",
            Origin::Lifecycle => "lifecycle",
        }
    }

    /// How many handlers of notifications it has passed through.
    #[getter]
    fn hops(&self) -> u8 {
        self.view().hops()
    }

    /// The parts that are known, under the names of the arguments. ``Event(**event.to_dict())`` is the same event.
    fn to_dict<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let (view, dict) = (self.view(), PyDict::new(py));
        dict.set_item("bucket", view.bucket())?;
        dict.set_item("key", PyBytes::new(py, view.key()))?;
        dict.set_item("event_type", view.event_type().name())?;
        if let Some(size) = view.size() {
            dict.set_item("size", size)?;
        }
        for (name, field) in TEXTS {
            if let Some(text) = self.text(field) {
                dict.set_item(name, text)?;
            }
        }
        for (name, of) in [("metadata", view.metadata()), ("tags", view.tags())] {
            let of = pairs(py, of)?;
            if !of.is_empty() {
                dict.set_item(name, of)?;
            }
        }
        if !view.field(Field::Data).is_empty() {
            dict.set_item("data", PyBytes::new(py, view.field(Field::Data)))?;
        }
        if let Some(ns) = self.time_ns() {
            dict.set_item("time_ns", ns)?;
        }
        if view.priority() != Priority::Normal {
            dict.set_item("priority", self.priority())?;
        }
        if view.origin() != Origin::User {
            dict.set_item("origin", self.origin())?;
        }
        if view.hops() > 0 {
            dict.set_item("hops", view.hops())?;
        }
        Ok(dict)
    }

    /// The same event but for these parts; ``None`` takes one away.
    #[pyo3(signature = (**changes))]
    fn replace<'py>(&self, py: Python<'py>, changes: Option<&Bound<'py, PyDict>>) -> PyResult<PyEvent> {
        let fields = self.to_dict(py)?;
        if let Some(changes) = changes {
            fields.update(changes.as_mapping())?;
        }
        args::with_event(fields.as_any(), |event| PyEvent::of(py, event))
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyTuple>)> {
        let py = slf.py();
        let make = py.import("tidewire._types")?.getattr("_event")?;
        Ok((make, PyTuple::new(py, [slf.get().to_dict(py)?])?))
    }

    fn __richcmp__(&self, other: &PyEvent, op: CompareOp) -> Option<bool> {
        match op {
            CompareOp::Eq => Some(self.frame == other.frame),
            CompareOp::Ne => Some(self.frame != other.frame),
            _ => None,
        }
    }

    fn __hash__(&self) -> u64 {
        use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
        BuildHasherDefault::<DefaultHasher>::new().hash_one(&self.frame)
    }

    fn __repr__<'py>(&self, py: Python<'py>) -> PyResult<String> {
        let known = self.to_dict(py)?;
        let parts: PyResult<Vec<String>> = known.iter().map(|(k, v)| Ok(format!("{k}={}", v.repr()?))).collect();
        Ok(format!("tidewire.Event({})", parts?.join(", ")))
    }

    fn __sizeof__(&self) -> usize {
        size_of::<pyo3::ffi::PyObject>() + size_of::<PyEvent>() + self.frame.len()
    }
}

impl PyEvent {
    /// Keeps an event.
    pub(crate) fn of(py: Python<'_>, event: &Event<'_>) -> PyResult<PyEvent> {
        // Its fields must have a form; what is allowed the engine says.
        use crate::error::OrRaise;
        event.validate(usize::MAX).or_raise(py)?;
        Ok(PyEvent { frame: frame::encode_to_vec(event, 0).into_boxed_slice() })
    }

    /// The same event once more.
    pub(crate) fn copy(&self) -> PyEvent {
        PyEvent { frame: self.frame.clone() }
    }

    /// Keeps the event of a frame that is one.
    pub(crate) fn of_frame(frame: FrameView<'_>) -> PyEvent {
        PyEvent { frame: frame.as_bytes().into() }
    }

    fn view(&self) -> FrameView<'_> {
        FrameView::trusted(&self.frame)
    }

    fn text(&self, field: Field) -> Option<&str> {
        Some(self.view().text(field)).filter(|text| !text.is_empty())
    }

    /// Does something with the event.
    #[inline]
    pub(crate) fn with<T>(&self, f: impl FnOnce(&Event<'_>) -> T) -> T {
        let view = self.view();
        let (metadata, tags): (Vec<_>, Vec<_>) = (view.metadata().collect(), view.tags().collect());
        f(&event_of(view, &metadata, &tags))
    }

    /// Does something with several events.
    pub(crate) fn with_all<T>(events: &[PyEvent], f: impl FnOnce(&[Event<'_>]) -> T) -> T {
        let pairs = events.iter().map(|event| (event.view().metadata().collect(), event.view().tags().collect()));
        let pairs: Vec<(Vec<_>, Vec<_>)> = pairs.collect();
        let all = events.iter().zip(&pairs).map(|(event, (metadata, tags))| event_of(event.view(), metadata, tags));
        f(&all.collect::<Vec<_>>())
    }
}

/// The event of a frame.
#[inline]
fn event_of<'a>(view: FrameView<'a>, metadata: &'a [(&'a str, &'a str)], tags: &'a [(&'a str, &'a str)]) -> Event<'a> {
    let mut event = Event::new(view.event_type(), view.bucket(), view.key());
    (event.time_ns, event.size) = (view.time_ns(), view.size());
    (event.priority, event.origin, event.hops) = (view.priority(), view.origin(), view.hops());
    event.version_id = view.text(Field::VersionId);
    event.etag = view.text(Field::Etag);
    event.requester = view.text(Field::Requester);
    event.source_ip = view.text(Field::SourceIp);
    event.request_id = view.text(Field::RequestId);
    event.host_id = view.text(Field::HostId);
    event.region = view.text(Field::Region);
    event.content_type = view.text(Field::ContentType);
    event.method = view.text(Field::Method);
    event.user_agent = view.text(Field::UserAgent);
    event.bucket_owner = view.text(Field::BucketOwner);
    event.data = view.field(Field::Data);
    (event.metadata, event.tags) = (metadata, tags);
    event
}

fn pairs<'py, 'a>(py: Python<'py>, of: impl Iterator<Item = (&'a str, &'a str)>) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    for (name, value) in of {
        dict.set_item(name, value)?;
    }
    Ok(dict)
}
