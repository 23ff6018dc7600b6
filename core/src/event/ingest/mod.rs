//! Events read from documents that others send: S3 `Records`, CloudEvents, newline-delimited JSON.
//!
//! A document is read to its end before the first event is handed on, so that a document with an error in it
//! publishes nothing. What a document may cost is bounded: its size, the number of its events, and how deep its JSON
//! is nested.

mod cloudevents;
mod json;
mod kept;
mod native;
mod s3;

use std::borrow::Cow;
use std::cell::Cell;

use simd_json::{Buffers, Node, Tape};

use self::json::Json;
use super::{EVENT_BYTES_MAX, Event};
use crate::error::{Error, Result};
use crate::event::profile::text::DEPTH_MAX;

pub use cloudevents::{is_binary, parse_binary};
pub(crate) use kept::Events;

/// The largest body, in bytes.
pub const BODY_BYTES_MAX: usize = 16 * 1024 * 1024;
/// The largest single JSON document, in bytes: a whole body, or one line of newline-delimited JSON. Parsed, it takes
/// up to sixteen times as much memory.
pub const DOCUMENT_BYTES_MAX: usize = 4 * 1024 * 1024;
/// The most events in one body.
pub const EVENTS_MAX: usize = 65_536;

/// The kind of a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Format {
    /// `{"Records":[...]}` as S3 and its peers send it, or the `s3:TestEvent` document.
    S3Records,
    /// One CloudEvent, structured.
    CloudEvents,
    /// A JSON array of CloudEvents.
    CloudEventsBatch,
    /// One JSON object per line, with the field names of [`Event`].
    Ndjson,
}

impl Format {
    /// The format of a body: what the media type says if it says enough, else what the body looks like.
    pub fn detect(body: &[u8], content_type: &str) -> Format {
        Format::of_media_type(content_type).unwrap_or_else(|| match body.trim_ascii_start().first() {
            Some(b'[') => Format::CloudEventsBatch,
            _ => match json::members(body).find(|name| matches!(*name, b"Records" | b"Event" | b"specversion")) {
                Some(b"specversion") => Format::CloudEvents,
                Some(_) => Format::S3Records,
                None => Format::Ndjson,
            },
        })
    }

    fn of_media_type(content_type: &str) -> Option<Format> {
        let media = content_type.split(';').next().unwrap_or_default().trim();
        [
            ("application/cloudevents+json", Format::CloudEvents),
            ("application/cloudevents-batch+json", Format::CloudEventsBatch),
            ("application/x-ndjson", Format::Ndjson),
            ("application/ndjson", Format::Ndjson),
            ("application/jsonl", Format::Ndjson),
            ("application/x-jsonlines", Format::Ndjson),
        ]
        .into_iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(media))
        .map(|(_, format)| format)
    }
}

/// Reads the events of a body, hands each to `each`, and tells how many there were. The body is used as scratch
/// space. An `s3:TestEvent` document is accepted and has no events.
///
/// Names of event types are read, not checked against a registry: a name that is not known arrives as
/// [`crate::EventType::Custom`], for the engine to accept or refuse.
///
/// # Errors
/// [`crate::ErrorKind::InvalidEvent`] if the body is not what its format demands, with record or line, field and
/// remedy; `each` was not called then. An error of `each` ends the call, with the record's place added; the events
/// before that one have been handed on.
pub fn parse(body: &mut [u8], content_type: &str, each: &mut dyn FnMut(&Event<'_>) -> Result<()>) -> Result<usize> {
    let format = Format::detect(body, content_type);
    // A single object that was not announced as lines may be spread over several.
    let lines =
        format == Format::Ndjson && (Format::of_media_type(content_type).is_some() || !json::is_single_value(body));
    check_len("the body", body.len(), if lines { BODY_BYTES_MAX } else { DOCUMENT_BYTES_MAX })?;
    let events = with_memory(body.len(), |buffers, tape| {
        if lines {
            return native::read_lines(body, buffers, tape);
        }
        read(body, buffers, tape)?;
        let root = Json::root(&tape.0);
        let mut events = Drafts::default();
        match format {
            Format::S3Records => s3::read(root, &mut events)?,
            Format::CloudEvents => cloudevents::read(root, &mut events)?,
            Format::CloudEventsBatch => cloudevents::read_batch(root, &mut events)?,
            Format::Ndjson => native::read(root, &mut events)?,
        }
        Ok(events)
    })?;
    events.hand_to(each)
}

/// After a longer body, a thread does not keep the memory that reading took.
const KEPT_BODY_BYTES_MAX: usize = 64 * 1024;

thread_local! {
    /// What was needed to read JSON last.
    static MEMORY: Cell<Option<(Buffers, Vec<Node<'static>>)>> = const { Cell::new(None) };
}

/// Calls `work` with the memory that reading a body of so many bytes takes.
fn with_memory<'a, R>(bytes: usize, work: impl FnOnce(&mut Buffers, &mut Tape<'a>) -> R) -> R {
    let kept = MEMORY.take();
    let (mut buffers, nodes) = kept.unwrap_or_else(|| (Buffers::with_max_depth(0, depth_max()), Vec::new()));
    let mut tape = Tape(nodes).reset();
    let done = work(&mut buffers, &mut tape);
    if bytes <= KEPT_BODY_BYTES_MAX {
        MEMORY.set(Some((buffers, tape.reset().0)));
    }
    done
}

/// Levels of nesting around the data of the host in the deepest format (`Records`, record, `s3`, object, ...).
const LEVELS_AROUND: usize = 6;

fn depth_max() -> usize {
    DEPTH_MAX + LEVELS_AROUND
}

fn check_len(what: &str, len: usize, max: usize) -> Result<()> {
    if len > max {
        return Err(Error::invalid_event(format!("{what} has {len} bytes, more than {max}"))
            .remedy("send fewer events at a time"));
    }
    Ok(())
}

/// Parses one JSON document onto the tape.
fn read<'a>(document: &'a mut [u8], buffers: &mut Buffers, tape: &mut Tape<'a>) -> Result<()> {
    check_len("the document", document.len(), DOCUMENT_BYTES_MAX)?;
    if document.trim_ascii().is_empty() {
        return Err(Error::invalid_event("the document is empty").remedy("send at least one event"));
    }
    simd_json::fill_tape(document, buffers, tape).map_err(|e| {
        let error = Error::invalid_event(format!("not valid JSON: {e}"));
        match e.error() {
            simd_json::ErrorType::DepthLimitExceeded => {
                error.remedy(format!("nest values at most {} deep", depth_max()))
            }
            _ => error.remedy("correct the JSON there"),
        }
    })
}

/// An event as it was read, with what had to be decoded.
#[derive(Default)]
struct Draft<'a> {
    /// All but key, metadata, tags and data.
    event: Event<'a>,
    key: Cow<'a, [u8]>,
    metadata: Vec<(&'a str, &'a str)>,
    tags: Vec<(&'a str, &'a str)>,
    data: Vec<u8>,
}

impl Draft<'_> {
    fn event(&self) -> Event<'_> {
        Event { key: &self.key, metadata: &self.metadata, tags: &self.tags, data: &self.data, ..self.event }
    }
}

/// Where in a body an event is, for messages.
#[derive(Clone, Copy)]
enum Place {
    /// The body is this event.
    Whole,
    /// An element of `Records`, from 0.
    Record(usize),
    /// An element of a batch, from 0.
    Element(usize),
    /// A line, from 1.
    Line(usize),
}

impl Place {
    fn of(self, e: Error) -> Error {
        match self {
            Place::Whole => e,
            Place::Record(i) => e.at(format!("Records[{i}]")),
            Place::Element(i) => e.at(format!("events[{i}]")),
            Place::Line(n) => e.at(format!("line {n}")),
        }
    }
}

/// The events of a body.
#[derive(Default)]
struct Drafts<'a>(Vec<(Place, Draft<'a>)>);

impl<'a> Drafts<'a> {
    /// Adds an event, if it keeps the limits that hold for every engine.
    fn push(&mut self, place: Place, draft: Result<Draft<'a>>) -> Result<()> {
        let draft = draft.map_err(|e| place.of(e))?;
        draft.event().validate(EVENT_BYTES_MAX).map_err(|e| place.of(e))?;
        if self.0.len() == EVENTS_MAX {
            return Err(place
                .of(Error::invalid_event(format!("more than {EVENTS_MAX} events"))
                    .remedy("send fewer events at a time")));
        }
        self.0.push((place, draft));
        Ok(())
    }

    fn hand_to(&self, each: &mut dyn FnMut(&Event<'_>) -> Result<()>) -> Result<usize> {
        for (place, draft) in &self.0 {
            each(&draft.event()).map_err(|e| place.of(e))?;
        }
        Ok(self.0.len())
    }
}

/// The error with its place replaced by the name that the document has for the field.
fn replace_place(e: Error, place: &str) -> Error {
    let error = Error::new(e.kind(), e.message()).at(place);
    match e.remedy_text() {
        Some(remedy) => error.remedy(remedy),
        None => error,
    }
}

/// Nanoseconds since the Unix epoch of an RFC 3339 time.
fn time_ns(text: &str) -> Result<u64> {
    let time: jiff::Timestamp = text.parse().map_err(|_| {
        Error::invalid_event(format!("`{text}` is not a time"))
            .remedy("write it as in RFC 3339: 2026-01-31T12:00:00.000Z")
    })?;
    u64::try_from(time.as_nanosecond())
        .map_err(|_| Error::invalid_event(format!("`{text}` is before 1970")).remedy("correct the clock of the sender"))
}

#[cfg(test)]
mod tests;
