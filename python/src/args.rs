//! Python arguments as an [`Event`]. What is wrong with one names it.

use std::ops::Deref;

use pyo3::exceptions::{PyTypeError, PyUnicodeEncodeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::pybacked::{PyBackedBytes, PyBackedStr};
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyByteArray, PyBytes, PyDict, PyList, PyMapping, PyString};
use serde::de::IgnoredAny;
use tidewire::{Error, ErrorKind, Event, EventType, Origin, Priority};

use crate::error::{invalid_argument, raise};

/// Bytes that a Python object owns: read without the interpreter, never copied but from a `bytearray`.
pub(crate) enum Bytes {
    Text(PyBackedStr),
    Raw(PyBackedBytes),
}

impl Deref for Bytes {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match self {
            Bytes::Text(s) => s.as_bytes(),
            Bytes::Raw(b) => b,
        }
    }
}

/// The UTF-8 of a `str`.
#[inline]
pub(crate) fn text(name: &str, s: &Bound<'_, PyAny>) -> PyResult<PyBackedStr> {
    match s.cast::<PyString>() {
        Ok(s) => PyBackedStr::try_from(s.clone()).map_err(|e| lone_surrogate(s.py(), name, e)),
        Err(_) => Err(wrong_type(name, "str", s)),
    }
}

/// As [`text`], where nothing given is nothing known.
#[inline]
pub(crate) fn text_or_none(name: &str, s: Option<&Bound<'_, PyAny>>) -> PyResult<Option<PyBackedStr>> {
    s.map(|s| text(name, s)).transpose()
}

/// A key, which need not be text.
#[inline]
pub(crate) fn key(key: &Bound<'_, PyAny>) -> PyResult<Bytes> {
    match bytes("key", key) {
        Some(key) => key,
        None => Err(wrong_type("key", "str or bytes", key)),
    }
}

/// The bytes of a `str`, `bytes` or `bytearray`; `None` for anything else.
#[inline]
fn bytes(name: &str, object: &Bound<'_, PyAny>) -> Option<PyResult<Bytes>> {
    if object.cast::<PyString>().is_ok() {
        Some(text(name, object).map(Bytes::Text))
    } else if object.cast::<PyBytes>().is_ok() || object.cast::<PyByteArray>().is_ok() {
        Some(object.extract::<PyBackedBytes>().map(Bytes::Raw).map_err(PyErr::from))
    } else {
        None
    }
}

/// A JSON text, or what Python's own `json` writes of a `dict` or `list`.
pub(crate) fn json(name: &str, value: &Bound<'_, PyAny>) -> PyResult<PyBackedStr> {
    if value.cast::<PyDict>().is_ok() || value.cast::<PyList>().is_ok() {
        return dump(name, value, ErrorKind::InvalidConfig);
    }
    match value.cast::<PyString>() {
        Ok(_) => text(name, value),
        Err(_) => Err(wrong_type(name, "str, dict or list", value)),
    }
}

/// Data of the host: JSON text, or a `dict` or `list` to write as such.
pub(crate) fn data(data: Option<&Bound<'_, PyAny>>) -> PyResult<Option<Bytes>> {
    let Some(data) = data else { return Ok(None) };
    let py = data.py();
    let json = match bytes("data", data) {
        Some(json) => json?,
        None if data.cast::<PyDict>().is_ok() || data.cast::<PyList>().is_ok() => {
            Bytes::Text(dump("data", data, ErrorKind::InvalidEvent)?)
        }
        None => return Err(wrong_type("data", "bytes, str, dict or list", data)),
    };
    match check_json(&json) {
        Ok(()) => Ok(Some(json)),
        Err(why) => {
            let e = Error::invalid_event(format!("data is not JSON: {why}")).at("data");
            Err(raise(py, &e.remedy("give one JSON document in UTF-8, or a dict")))
        }
    }
}

fn check_json(json: &[u8]) -> Result<(), String> {
    // The reader below looks into no string, so it would not see bytes that are not text.
    let text = std::str::from_utf8(json).map_err(|e| format!("byte {} is not UTF-8", e.valid_up_to()))?;
    serde_json::from_str::<IgnoredAny>(text).map(drop).map_err(|e| e.to_string())
}

/// What Python's own `json` writes, compact. `TypeError` for what it cannot write is left as it is.
fn dump(name: &str, value: &Bound<'_, PyAny>, kind: ErrorKind) -> PyResult<PyBackedStr> {
    static DUMPS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let py = value.py();
    let options = PyDict::new(py);
    options.set_item(intern!(py, "ensure_ascii"), false)?;
    options.set_item(intern!(py, "allow_nan"), false)?;
    options.set_item(intern!(py, "separators"), (",", ":"))?;
    let json = DUMPS.import(py, "json", "dumps")?.call((value,), Some(&options)).map_err(|e| {
        if !e.is_instance_of::<PyValueError>(py) {
            return e;
        }
        let error = Error::new(kind, format!("{name} cannot be written as JSON: {}", e.value(py))).at(name);
        let new = raise(py, &error.remedy("NaN and infinity have no JSON form, and a value cannot contain itself"));
        new.set_cause(py, Some(e));
        new
    })?;
    text(name, &json)
}

/// Name and value pairs of a mapping.
pub(crate) struct Pairs(Vec<(PyBackedStr, PyBackedStr)>);

impl Pairs {
    /// Those of the argument `name`.
    pub(crate) fn new(name: &str, mapping: Option<&Bound<'_, PyAny>>) -> PyResult<Pairs> {
        let Some(mapping) = mapping else { return Ok(Pairs(Vec::new())) };
        let string = |s: Bound<'_, PyAny>| match s.cast::<PyString>() {
            Ok(_) => text(name, &s),
            Err(_) => Err(wrong_type(name, "a mapping of str to str", &s)),
        };
        if let Ok(dict) = mapping.cast::<PyDict>() {
            let pairs = dict.iter().map(|(k, v)| Ok((string(k)?, string(v)?)));
            return pairs.collect::<PyResult<_>>().map(Pairs);
        }
        let Ok(mapping) = mapping.cast::<PyMapping>() else {
            return Err(wrong_type(name, "a mapping of str to str", mapping));
        };
        let pairs = mapping.items()?.into_iter().map(|item| {
            let (k, v) = item.extract::<(Bound<'_, PyAny>, Bound<'_, PyAny>)>()?;
            Ok((string(k)?, string(v)?))
        });
        pairs.collect::<PyResult<_>>().map(Pairs)
    }

    /// The pairs as an event has them.
    pub(crate) fn borrow(&self) -> Vec<(&str, &str)> {
        self.0.iter().map(|(k, v)| (&**k, &**v)).collect()
    }
}

/// An event as a mapping, with the names of the arguments of `Engine.publish`.
pub(crate) struct EventParts {
    texts: Vec<(&'static str, PyBackedStr)>,
    bucket: PyBackedStr,
    key: Bytes,
    data: Option<Bytes>,
    metadata: Pairs,
    tags: Pairs,
    size: Option<u64>,
    time_ns: u64,
    hops: u8,
}

/// The texts of an event that need nothing else.
const TEXTS: &[&str] = &[
    "event_type",
    "etag",
    "version_id",
    "requester",
    "source_ip",
    "request_id",
    "host_id",
    "region",
    "content_type",
    "method",
    "user_agent",
    "bucket_owner",
    "priority",
    "origin",
];
const OTHERS: &[&str] = &["bucket", "key", "size", "metadata", "tags", "data", "time_ns", "hops"];

impl EventParts {
    pub(crate) fn new(event: &Bound<'_, PyAny>) -> PyResult<EventParts> {
        let py = event.py();
        let Ok(mapping) = event.cast::<PyMapping>() else {
            return Err(wrong_type("event", "a mapping of an event's parts", event));
        };
        for name in mapping.keys()? {
            let Ok(name) = text("event", &name) else {
                return Err(wrong_type("event", "a mapping of str to an event's parts", &name));
            };
            if !TEXTS.iter().chain(OTHERS).any(|known| **known == *name) {
                let message = format!("an event has no `{}`", name.escape_debug());
                let remedy = "use the names of the arguments of Engine.publish, such as bucket, key and size";
                return Err(raise(py, &Error::invalid_event(message).at("event").remedy(remedy)));
            }
        }
        let get = |name: &str| -> PyResult<Option<Bound<'_, PyAny>>> {
            if !mapping.contains(name)? {
                return Ok(None);
            }
            Ok(Some(mapping.get_item(name)?).filter(|value| !value.is_none()))
        };
        let needed = |name: &str| {
            let missing = || Error::invalid_event(format!("the event has no {name}")).at(name.to_owned());
            get(name)?.ok_or_else(|| raise(py, &missing().remedy("give it")))
        };
        let mut texts = Vec::new();
        for name in TEXTS {
            if let Some(value) = get(name)? {
                texts.push((*name, text(name, &value)?));
            }
        }
        Ok(EventParts {
            texts,
            bucket: text("bucket", &needed("bucket")?)?,
            key: key(&needed("key")?)?,
            data: data(get("data")?.as_ref())?,
            metadata: Pairs::new("metadata", get("metadata")?.as_ref())?,
            tags: Pairs::new("tags", get("tags")?.as_ref())?,
            size: number("size", get("size")?.as_ref(), u64::MAX)?,
            time_ns: number("time_ns", get("time_ns")?.as_ref(), u64::MAX)?.unwrap_or(0),
            hops: number("hops", get("hops")?.as_ref(), u64::from(u8::MAX))?.unwrap_or(0) as u8,
        })
    }

    /// Does something with the event.
    pub(crate) fn with<T>(&self, f: impl FnOnce(&Event<'_>) -> Result<T, Error>) -> Result<T, Error> {
        let named = |name: &str| self.texts.iter().find(|(n, _)| *n == name).map(|(_, value)| value);
        let (metadata, tags) = (self.metadata.borrow(), self.tags.borrow());
        let mut event = Event::new(event_type(named("event_type"))?, &self.bucket, &self.key);
        macro_rules! set {
            ($($name:ident)*) => { $(event.$name = named(stringify!($name)).map_or("", |s| s);)* };
        }
        set!(etag version_id requester source_ip request_id host_id region content_type method user_agent
            bucket_owner);
        event.data = self.data.as_deref().unwrap_or_default();
        (event.metadata, event.tags) = (&metadata, &tags);
        (event.size, event.time_ns, event.hops) = (self.size, self.time_ns, self.hops);
        event.priority = priority(named("priority"))?;
        event.origin = origin(named("origin"))?;
        f(&event)
    }
}

/// A number from 0 to `max`, or nothing.
pub(crate) fn number(name: &str, n: Option<&Bound<'_, PyAny>>, max: u64) -> PyResult<Option<u64>> {
    let Some(n) = n else { return Ok(None) };
    match n.extract::<u64>() {
        Ok(n) if n <= max => Ok(Some(n)),
        Err(e) if e.is_instance_of::<PyTypeError>(n.py()) => Err(wrong_type(name, "int", n)),
        _ => {
            let error = Error::invalid_event(format!("{name} is {n}, not between 0 and {max}")).at(name);
            Err(raise(n.py(), &error.remedy("leave it out if it is not known")))
        }
    }
}

/// The type of a name; an object's creation if there is none.
pub(crate) fn event_type(name: Option<&PyBackedStr>) -> Result<EventType<'_>, Error> {
    name.map_or(Ok(EventType::default()), |name| EventType::parse(name))
}

pub(crate) fn priority(name: Option<&PyBackedStr>) -> Result<Priority, Error> {
    match name.map(|n| &**n) {
        None | Some("normal") => Ok(Priority::Normal),
        Some("low") => Ok(Priority::Low),
        Some("high") => Ok(Priority::High),
        Some(other) => Err(unknown("priority", other, "use low, normal or high")),
    }
}

pub(crate) fn origin(name: Option<&PyBackedStr>) -> Result<Origin, Error> {
    match name.map(|n| &**n) {
        None | Some("user") => Ok(Origin::User),
        Some("replica") => Ok(Origin::Replica),
        Some("lifecycle") => Ok(Origin::Lifecycle),
        Some(other) => Err(unknown("origin", other, "use user, replica or lifecycle")),
    }
}

#[cold]
fn unknown(name: &str, value: &str, remedy: &str) -> Error {
    invalid_argument(name, format!("unknown {name} `{value}`"), remedy)
}

#[cold]
fn wrong_type(name: &str, wanted: &str, got: &Bound<'_, PyAny>) -> PyErr {
    let got = got.get_type().name().map_or_else(|_| "something else".to_owned(), |n| n.to_string());
    PyTypeError::new_err(format!("argument '{name}': {wanted} is wanted, not {got}"))
}

/// A `str` that has no UTF-8, as those are that `os.fsdecode` makes of bytes that are no text.
#[cold]
fn lone_surrogate(py: Python<'_>, name: &str, e: PyErr) -> PyErr {
    if !e.is_instance_of::<PyUnicodeEncodeError>(py) {
        return e;
    }
    let error = Error::invalid_event(format!("{name} has a lone surrogate, so it has no UTF-8")).at(name);
    let remedy = if name == "key" { "give the key as bytes, as from os.fsencode" } else { "give text" };
    let new = raise(py, &error.remedy(remedy));
    new.set_cause(py, Some(e));
    new
}
