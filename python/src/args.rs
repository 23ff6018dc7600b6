//! Python arguments as an [`Event`] and as options. What is wrong with one names it.

use std::borrow::Cow;
use std::ffi::c_char;
use std::ops::Deref;
use std::time::Duration;

use pyo3::exceptions::{PyTypeError, PyUnicodeEncodeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::sync::critical_section::with_critical_section;
use pyo3::types::{PyByteArray, PyBytes, PyDict, PyList, PyMapping, PyMemoryView, PyString, PyTuple};
use serde::de::IgnoredAny;
use tidewire::filter::EventFilter;
use tidewire::rule::Expect;
use tidewire::{Ack, DedupKey, Error, ErrorKind, Event, EventType, Origin, Priority};

use crate::error::{OrRaise, invalid_argument, raise};
use crate::event::PyEvent;
use crate::filter::Filter;
use crate::wait::Limit;

/// Bytes of a Python object: those of `str` and `bytes` are read where they are, of other buffers there is a copy.
pub(crate) enum Bytes<'a, 'py> {
    Borrowed(&'a [u8]),
    Copied(Vec<u8>),
    Object(Bound<'py, PyBytes>),
}

impl Deref for Bytes<'_, '_> {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match self {
            Bytes::Borrowed(b) => b,
            Bytes::Copied(v) => v,
            Bytes::Object(b) => b.as_bytes(),
        }
    }
}

unsafe extern "C" {
    /// Of the stable interface since 3.10, and there in 3.9 all the same.
    fn PyUnicode_AsUTF8AndSize(text: *mut pyo3::ffi::PyObject, size: *mut pyo3::ffi::Py_ssize_t) -> *const c_char;
}

/// The UTF-8 of a `str`, read where it is.
#[inline]
pub(crate) fn text<'a>(name: &str, s: &'a Bound<'_, PyAny>) -> PyResult<&'a str> {
    match s.cast::<PyString>() {
        Ok(s) => utf8(name, s),
        Err(_) => Err(wrong_type(name, "str", s)),
    }
}

#[inline]
fn utf8<'a>(name: &str, s: &'a Bound<'_, PyString>) -> PyResult<&'a str> {
    let mut len = 0;
    // SAFETY: a `str`, and the interpreter is held. What is answered is UTF-8, belongs to the `str`, never changes, and lives
    // as long as that, which `'a` does not outlive.
    unsafe {
        let at = PyUnicode_AsUTF8AndSize(s.as_ptr(), &raw mut len);
        if at.is_null() {
            return Err(lone_surrogate(s.py(), name, PyErr::fetch(s.py())));
        }
        Ok(std::str::from_utf8_unchecked(std::slice::from_raw_parts(at.cast(), len as usize)))
    }
}

/// As [`text`], where nothing given is nothing known.
#[inline]
pub(crate) fn text_or_none<'a>(name: &str, s: Option<&'a Bound<'_, PyAny>>) -> PyResult<Option<&'a str>> {
    s.map(|s| text(name, s)).transpose()
}

/// Some texts: a list or any other iterable of `str`, but not one `str`.
pub(crate) fn texts(name: &str, list: Option<&Bound<'_, PyAny>>) -> PyResult<Vec<String>> {
    let Some(list) = list else { return Ok(Vec::new()) };
    if list.cast::<PyString>().is_ok() {
        return Err(wrong_type(name, "a list of str", list));
    }
    let Ok(items) = list.try_iter() else { return Err(wrong_type(name, "a list of str", list)) };
    items.map(|item| text(name, &item?).map(str::to_owned)).collect()
}

/// A key, which need not be text.
#[inline]
pub(crate) fn key<'a, 'py>(key: &'a Bound<'py, PyAny>) -> PyResult<Bytes<'a, 'py>> {
    match bytes("key", key) {
        Some(key) => key,
        None => Err(wrong_type("key", "str, bytes or another buffer", key)),
    }
}

/// A document: text or a buffer.
pub(crate) fn document<'a, 'py>(name: &str, of: &'a Bound<'py, PyAny>) -> PyResult<Bytes<'a, 'py>> {
    bytes(name, of).unwrap_or_else(|| Err(wrong_type(name, "str, bytes or another buffer", of)))
}

/// The bytes of a `str` or a buffer; `None` for anything else.
#[inline]
fn bytes<'a, 'py>(name: &str, object: &'a Bound<'py, PyAny>) -> Option<PyResult<Bytes<'a, 'py>>> {
    if let Ok(s) = object.cast::<PyString>() {
        return Some(utf8(name, s).map(|s| Bytes::Borrowed(s.as_bytes())));
    }
    if let Ok(b) = object.cast::<PyBytes>() {
        return Some(Ok(Bytes::Borrowed(b.as_bytes())));
    }
    if let Ok(b) = object.cast::<PyByteArray>() {
        // It may change at any time.
        return Some(Ok(Bytes::Copied(b.to_vec())));
    }
    let view = PyMemoryView::from(object).ok()?;
    let copy = view.call_method0(intern!(object.py(), "tobytes"));
    Some(copy.and_then(|copy| Ok(Bytes::Object(copy.cast_into::<PyBytes>()?))))
}

/// A JSON text, or what Python's own `json` writes of a `dict` or `list`.
pub(crate) fn json<'a>(name: &str, value: &'a Bound<'_, PyAny>) -> PyResult<Cow<'a, str>> {
    if value.cast::<PyDict>().is_ok() || value.cast::<PyList>().is_ok() {
        return dump(name, value, ErrorKind::InvalidConfig).map(Cow::Owned);
    }
    match value.cast::<PyString>() {
        Ok(s) => utf8(name, s).map(Cow::Borrowed),
        Err(_) => Err(wrong_type(name, "str, dict or list", value)),
    }
}

/// Data of the host: JSON text, or a `dict` or `list` to write as such.
pub(crate) fn data<'a, 'py>(data: &'a Bound<'py, PyAny>) -> PyResult<Bytes<'a, 'py>> {
    let py = data.py();
    let json = match bytes("data", data) {
        Some(json) => json?,
        None if data.cast::<PyDict>().is_ok() || data.cast::<PyList>().is_ok() => {
            Bytes::Copied(dump("data", data, ErrorKind::InvalidEvent)?.into_bytes())
        }
        None => return Err(wrong_type("data", "bytes, str, dict or list", data)),
    };
    match check_json(&json) {
        Ok(()) => Ok(json),
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
fn dump(name: &str, value: &Bound<'_, PyAny>, kind: ErrorKind) -> PyResult<String> {
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
    text(name, &json).map(str::to_owned)
}

/// What Python's own `json` reads.
pub(crate) fn loads<'py>(py: Python<'py>, text: &str) -> PyResult<Bound<'py, PyAny>> {
    static LOADS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    LOADS.import(py, "json", "loads")?.call1((text,))
}

/// Name and value pairs of a mapping.
pub(crate) struct Pairs<'py>(Vec<(Bound<'py, PyAny>, Bound<'py, PyAny>)>);

impl<'py> Pairs<'py> {
    /// Those of the argument `name`.
    pub(crate) fn new(name: &str, mapping: &Bound<'py, PyAny>) -> PyResult<Pairs<'py>> {
        if let Ok(dict) = mapping.cast::<PyDict>() {
            // Without the interpreter's lock another thread may change it.
            return Ok(Pairs(with_critical_section(dict, || dict.iter().collect())));
        }
        let Ok(mapping) = mapping.cast::<PyMapping>() else {
            return Err(wrong_type(name, "a mapping of str to str", mapping));
        };
        mapping.items()?.into_iter().map(|item| item.extract()).collect::<PyResult<_>>().map(Pairs)
    }

    /// The pairs as an event has them.
    pub(crate) fn borrow(&self, name: &str) -> PyResult<Vec<(&str, &str)>> {
        fn string<'a>(name: &str, s: &'a Bound<'_, PyAny>) -> PyResult<&'a str> {
            match s.cast::<PyString>() {
                Ok(s) => utf8(name, s),
                Err(_) => Err(wrong_type(name, "a mapping of str to str", s)),
            }
        }
        self.0.iter().map(|(k, v)| Ok((string(name, k)?, string(name, v)?))).collect()
    }
}

/// Defines the parts that an event is given in, under the names of the arguments.
macro_rules! event_fields {
    ($($name:ident)*) => {
        /// The parts of an event as Python objects.
        pub(crate) struct Fields<T> {
            $(pub(crate) $name: Option<T>,)*
        }

        impl<T> Default for Fields<T> {
            fn default() -> Self {
                Fields { $($name: None,)* }
            }
        }

        impl<T> Fields<T> {
            /// The place of a part, by its name.
            fn place(&mut self, name: &str) -> Option<&mut Option<T>> {
                match name {
                    $(stringify!($name) => Some(&mut self.$name),)*
                    _ => None,
                }
            }

            fn as_ref(&self) -> Fields<&T> {
                Fields { $($name: self.$name.as_ref(),)* }
            }

            /// Whether nothing is given.
            pub(crate) fn is_empty(&self) -> bool {
                $(self.$name.is_none() &&)* true
            }
        }
    };
}

event_fields! {
    bucket key event_type size etag version_id requester source_ip request_id host_id region content_type method user_agent
    bucket_owner metadata tags data time_ns priority origin hops
}

impl<'py> Fields<Bound<'py, PyAny>> {
    /// Those of a mapping. `None` is nothing known.
    fn of_mapping(event: &Bound<'py, PyAny>) -> PyResult<Self> {
        let mut fields = Fields::default();
        if let Ok(dict) = event.cast::<PyDict>() {
            with_critical_section(dict, || dict.iter().try_for_each(|(name, value)| fields.set(&name, value)))?;
            return Ok(fields);
        }
        let Ok(mapping) = event.cast::<PyMapping>() else {
            return Err(wrong_type("event", "an Event, or a mapping of an event's parts", event));
        };
        for name in mapping.keys()? {
            let value = mapping.get_item(&name)?;
            fields.set(&name, value)?;
        }
        Ok(fields)
    }

    fn set(&mut self, name: &Bound<'py, PyAny>, value: Bound<'py, PyAny>) -> PyResult<()> {
        let Ok(text) = text("event", name) else {
            return Err(wrong_type("event", "a mapping of str to an event's parts", name));
        };
        match self.place(text) {
            Some(place) => *place = Some(value).filter(|value| !value.is_none()),
            None => {
                let message = format!("an event has no `{}`", text.escape_debug());
                let remedy = "use the names of the arguments of Event, such as bucket, key and size";
                return Err(raise(name.py(), &Error::invalid_event(message).at("event").remedy(remedy)));
            }
        }
        Ok(())
    }
}

impl<'py> Fields<&Bound<'py, PyAny>> {
    /// Does something with the event that they make.
    #[inline]
    pub(crate) fn with<T>(self, py: Python<'py>, f: impl FnOnce(&Event<'_>) -> PyResult<T>) -> PyResult<T> {
        let missing = |name: &str| {
            raise(py, &Error::invalid_event(format!("the event has no {name}")).at(name).remedy("give it"))
        };
        let bucket = text("bucket", self.bucket.ok_or_else(|| missing("bucket"))?)?;
        let key = key(self.key.ok_or_else(|| missing("key"))?)?;
        let name = text_or_none("event_type", self.event_type)?;
        let event_type = name.map_or(Ok(EventType::default()), EventType::parse).or_raise(py)?;
        let mut event = Event::new(event_type, bucket, &key);
        macro_rules! texts {
            ($($name:ident)*) => {
                $(if let Some(given) = self.$name {
                    event.$name = text(stringify!($name), given)?;
                })*
            };
        }
        texts!(etag version_id requester source_ip request_id host_id region content_type method user_agent
            bucket_owner);
        event.size = number("size", self.size, u64::MAX)?;
        event.time_ns = number("time_ns", self.time_ns, u64::MAX)?.unwrap_or(0);
        event.hops = number("hops", self.hops, u64::from(u8::MAX))?.unwrap_or(0) as u8;
        event.priority = priority(text_or_none("priority", self.priority)?).or_raise(py)?;
        event.origin = origin(text_or_none("origin", self.origin)?).or_raise(py)?;
        if self.metadata.is_none() && self.tags.is_none() && self.data.is_none() {
            return f(&event);
        }
        let pairs = |name, given: Option<_>| given.map(|given| Pairs::new(name, given)).transpose();
        let (metadata, tags) = (pairs("metadata", self.metadata)?, pairs("tags", self.tags)?);
        let borrow = |name, pairs: Option<_>| pairs.map_or(Ok(Vec::new()), |p: &Pairs<'_>| p.borrow(name));
        let (metadata, tags) = (borrow("metadata", metadata.as_ref())?, borrow("tags", tags.as_ref())?);
        let data = self.data.map(data).transpose()?;
        event.data = data.as_deref().unwrap_or_default();
        (event.metadata, event.tags) = (&metadata, &tags);
        f(&event)
    }
}

/// Does something with an event: an `Event`, or a mapping of its parts.
#[inline]
pub(crate) fn with_event<'py, T>(event: &Bound<'py, PyAny>, f: impl FnOnce(&Event<'_>) -> PyResult<T>) -> PyResult<T> {
    match event.cast::<PyEvent>() {
        Ok(event) => event.get().with(f),
        Err(_) => Fields::of_mapping(event)?.as_ref().with(event.py(), f),
    }
}

/// Splits the arguments of a call like `Engine.publish` that is not made for each event: the event, as an object, and the
/// options, which are those of the keywords in `options`.
pub(crate) fn event_and_options<'py>(
    args: &Bound<'py, PyTuple>,
    kwargs: Option<&Bound<'py, PyDict>>,
    options: &[&str],
) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyDict>)> {
    let py = args.py();
    let (given, fields) = (PyDict::new(py), PyDict::new(py));
    for (name, value) in kwargs.iter().flat_map(|k| k.iter()) {
        let to = if options.contains(&text("name", &name)?) { &given } else { &fields };
        to.set_item(name, value)?;
    }
    if let Ok(first) = args.get_item(0)
        && first.cast::<PyString>().is_err()
    {
        if args.len() > 1 || !fields.is_empty() {
            return Err(PyTypeError::new_err("an Event comes alone: use Event.replace to change parts of it"));
        }
        return Ok((first, given));
    }
    let event = py.get_type::<PyEvent>().call(args, Some(&fields))?;
    Ok((event, given))
}

/// A number from 0 to `max`, or nothing.
#[inline]
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

pub(crate) fn priority(name: Option<&str>) -> Result<Priority, Error> {
    match name {
        None | Some("normal") => Ok(Priority::Normal),
        Some("low") => Ok(Priority::Low),
        Some("high") => Ok(Priority::High),
        Some(other) => Err(unknown("priority", other, "use low, normal or high")),
    }
}

pub(crate) fn origin(name: Option<&str>) -> Result<Origin, Error> {
    match name {
        None | Some("user") => Ok(Origin::User),
        Some("replica") => Ok(Origin::Replica),
        Some("lifecycle") => Ok(Origin::Lifecycle),
        Some(other) => Err(unknown("origin", other, "use user, replica or lifecycle")),
    }
}

/// The level that an `ack` names; `synced` if there is none.
#[inline]
pub(crate) fn ack(name: Option<&str>) -> Result<Ack, Error> {
    name.map_or(Ok(Ack::Synced), |ack| Ack::parse(ack).map_err(|e| e.at("ack")))
}

/// A `dedup_key`: text or a buffer.
#[inline]
pub(crate) fn dedup_key(given: Option<&Bound<'_, PyAny>>) -> PyResult<Option<DedupKey>> {
    given.map(|given| document("dedup_key", given).map(|bytes| DedupKey::new(&bytes))).transpose()
}

/// Seconds as a time, from 0 on.
pub(crate) fn seconds(name: &str, seconds: f64) -> Result<Duration, Error> {
    Limit::new(Some(seconds))
        .map(|limit| limit.0.unwrap_or(Duration::MAX))
        .map_err(|_| invalid_argument(name, format!("{seconds} is no time"), "give seconds, 0 or more"))
}

/// What must be there for a change: `None` is whatever is, a version, or `"absent"`.
pub(crate) fn expect(given: Option<&Bound<'_, PyAny>>) -> PyResult<Expect> {
    let Some(given) = given else { return Ok(Expect::Anything) };
    if given.cast::<PyString>().is_ok() {
        return match text("expect", given)? {
            "absent" => Ok(Expect::Absent),
            other => Err(unknown("expect", other, "give a version, or \"absent\"")).or_raise(given.py()),
        };
    }
    let version = number("expect", Some(given), u64::MAX)?.unwrap_or(0);
    Ok(Expect::Version(version))
}

/// A filter: one that is made, or the native form.
pub(crate) fn filter(given: &Bound<'_, PyAny>) -> PyResult<tidewire::filter::Filter> {
    match given.cast::<Filter>() {
        Ok(filter) => Ok(filter.get().filter.clone()),
        Err(_) => {
            let text = json("filter", given)?;
            tidewire::filter::Filter::parse_json(&text, &tidewire::filter::NamedFilters::new()).or_raise(given.py())
        }
    }
}

/// Which events somebody wants who reads the log.
pub(crate) fn event_filter(
    py: Python<'_>,
    engine: &tidewire::AnyEngine,
    bucket: Option<&Bound<'_, PyAny>>,
    events: Option<&Bound<'_, PyAny>>,
    filter: Option<&Bound<'_, PyAny>>,
) -> PyResult<EventFilter> {
    let mut wanted = EventFilter::all();
    if let Some(bucket) = text_or_none("bucket", bucket)? {
        wanted = wanted.with_bucket(bucket);
    }
    let names = texts("events", events)?;
    wanted = wanted.with_events(names, &engine.event_types()).or_raise(py)?;
    if let Some(filter) = filter {
        wanted = wanted.with_filter(self::filter(filter)?);
    }
    Ok(wanted)
}

#[cold]
pub(crate) fn unknown(name: &str, value: &str, remedy: &str) -> Error {
    invalid_argument(name, format!("unknown {name} `{}`", value.escape_debug()), remedy)
}

#[cold]
pub(crate) fn wrong_type(name: &str, wanted: &str, got: &Bound<'_, PyAny>) -> PyErr {
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
