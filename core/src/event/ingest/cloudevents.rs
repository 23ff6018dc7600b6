//! CloudEvents 1.0 in JSON, and in the binary mode of HTTP.

use std::borrow::Cow;

use simd_json::{Buffers, Tape};

use super::json::Json;
use super::{DOCUMENT_BYTES_MAX, Draft, Drafts, Place, check_len, depth_max, replace_place, s3};
use crate::error::{Error, Result};
use crate::event::profile::cloudevents::{OWN_PREFIX, S3_PREFIX};
use crate::event::{Event, EventType, Scope};

/// The prefix of one peer's types.
const PEER_PREFIX: &str = "com.amazonaws.";

/// The context attributes that matter here.
#[derive(Clone, Copy, Default)]
struct Attributes<'a> {
    specversion: &'a str,
    id: &'a str,
    source: &'a str,
    event_type: &'a str,
    subject: &'a str,
    time: &'a str,
}

/// Reads one event.
pub(super) fn read<'a>(root: Json<'_, 'a>, events: &mut Drafts<'a>) -> Result<()> {
    structured(root, Place::Whole, events)
}

/// Reads an array of events.
pub(super) fn read_batch<'a>(root: Json<'_, 'a>, events: &mut Drafts<'a>) -> Result<()> {
    if !root.is_array() {
        return Err(Error::invalid_event(format!("the batch is {}, not an array", root.kind()))
            .remedy("send an array, or one event as application/cloudevents+json"));
    }
    for (i, event) in root.elements().enumerate() {
        structured(event, Place::Element(i), events)?;
    }
    Ok(())
}

fn structured<'a>(event: Json<'_, 'a>, place: Place, events: &mut Drafts<'a>) -> Result<()> {
    let read = || {
        if !event.is_object() {
            return Err(Error::invalid_event(format!("an event is {}, not an object", event.kind())));
        }
        if event.get("data_base64").is_some() {
            return Err(Error::invalid_event("data that is not JSON cannot be taken")
                .at("data_base64")
                .remedy("send JSON in `data`"));
        }
        let attributes = Attributes {
            specversion: event.text_at(&["specversion"])?,
            id: event.text_at(&["id"])?,
            source: event.text_at(&["source"])?,
            event_type: event.text_at(&["type"])?,
            subject: event.text_at(&["subject"])?,
            time: event.text_at(&["time"])?,
        };
        check(&attributes, "")?;
        Ok(attributes)
    };
    match read() {
        Ok(attributes) => with_data(attributes, event.get("data"), place, events),
        Err(e) => events.push(place, Err(e)),
    }
}

/// Checks the attributes; `prefix` is what their names begin with where they came from.
fn check(a: &Attributes<'_>, prefix: &str) -> Result<()> {
    for (name, value) in [("specversion", a.specversion), ("id", a.id), ("source", a.source), ("type", a.event_type)] {
        if value.is_empty() {
            return Err(Error::invalid_event("is missing")
                .at(format!("{prefix}{name}"))
                .remedy("CloudEvents requires it; give it"));
        }
    }
    if a.specversion != "1.0" {
        return Err(Error::invalid_event(format!("`{}` is not a version that can be read", a.specversion))
            .at(format!("{prefix}specversion"))
            .remedy("send CloudEvents 1.0"));
    }
    Ok(())
}

/// The type of an event: known prefixes are taken off.
fn event_type(name: &str) -> Result<EventType<'_>> {
    let bare = [S3_PREFIX, PEER_PREFIX, OWN_PREFIX].iter().find_map(|p| name.strip_prefix(p)).unwrap_or(name);
    EventType::parse(bare).map_err(|e| replace_place(e, "type"))
}

/// Adds the events of `data`: a document of S3 records, one such record, `{bucket, key, data}`, or anything else.
fn with_data<'a>(a: Attributes<'a>, data: Option<Json<'_, 'a>>, place: Place, events: &mut Drafts<'a>) -> Result<()> {
    match data {
        Some(data) if data.get("Records").is_some() => s3::read(data, events).map_err(|e| place.of(e.at("data"))),
        Some(data) if data.get("s3").is_some() => {
            let draft = s3::record(data).map_err(|e| e.at("data")).and_then(|mut d| {
                d.event.event_type = event_type(a.event_type)?;
                Ok(d)
            });
            events.push(place, draft)
        }
        _ => events.push(place, plain(a, data)),
    }
}

/// An event whose data is no S3 record. The key is that of the data, else the subject.
fn plain<'a>(a: Attributes<'a>, data: Option<Json<'_, 'a>>) -> Result<Draft<'a>> {
    let event_type = event_type(a.event_type)?;
    let mut draft = Draft {
        event: Event {
            event_type,
            time_ns: if a.time.is_empty() { 0 } else { super::time_ns(a.time).map_err(|e| e.at("time"))? },
            ..Event::default()
        },
        key: Cow::Borrowed(a.subject.as_bytes()),
        ..Draft::default()
    };
    let Some(data) = data else {
        return if event_type.scope() == Scope::System { Ok(draft) } else { Err(no_bucket()) };
    };
    draft.event.bucket = data.text_at(&["bucket"]).map_err(|e| e.at("data"))?;
    if draft.event.bucket.is_empty() && event_type.scope() != Scope::System {
        return Err(no_bucket());
    }
    if let Some(key) = data.get("key") {
        draft.key = Cow::Borrowed(key.text().map_err(|e| e.at("data.key"))?.as_bytes());
    } else if let Some(key) = data.get("key_base64") {
        let key = key.text().and_then(super::native::key_from_base64).map_err(|e| e.at("data.key_base64"))?;
        draft.key = Cow::Owned(key);
    }
    let own_form =
        data.is_object() && data.members().all(|(name, _)| matches!(name, "bucket" | "key" | "key_base64" | "data"));
    let inner = if own_form { data.get("data") } else { Some(data) };
    if let Some(inner) = inner {
        draft.data = inner.to_data().map_err(|e| e.at("data"))?;
    }
    Ok(draft)
}

fn no_bucket() -> Error {
    Error::invalid_event("is missing")
        .at("data.bucket")
        .remedy("give the bucket in the data: {\"bucket\": ..., \"key\": ...}")
}

/// Whether the headers of a request are those of a CloudEvent in binary mode.
pub fn is_binary<'h>(headers: impl IntoIterator<Item = (&'h str, &'h [u8])>) -> bool {
    headers.into_iter().any(|(name, _)| name.eq_ignore_ascii_case("ce-specversion"))
}

/// Reads the event of an HTTP request in the binary mode of CloudEvents: the attributes are headers, the body is the
/// data, a JSON document or empty. The body is used as scratch space. See [`super::parse`] for the rest.
///
/// # Errors
/// As [`super::parse`]; the place of an attribute is its header.
pub fn parse_binary<'h>(
    headers: impl IntoIterator<Item = (&'h str, &'h [u8])>,
    body: &mut [u8],
    each: &mut dyn FnMut(&Event<'_>) -> Result<()>,
) -> Result<usize> {
    const NAMES: [&str; 6] = ["ce-specversion", "ce-id", "ce-source", "ce-type", "ce-subject", "ce-time"];
    let mut values: [String; 6] = Default::default();
    for (name, value) in headers {
        if let Some(i) = NAMES.iter().position(|n| n.eq_ignore_ascii_case(name)) {
            values[i] = header_text(value).map_err(|e| e.at(NAMES[i]))?;
        } else if name.eq_ignore_ascii_case("content-type") && !is_json_type(value) && !body.trim_ascii().is_empty() {
            return Err(Error::invalid_event("data that is not JSON cannot be taken")
                .at("content-type")
                .remedy("send the data as application/json"));
        }
    }
    let [specversion, id, source, event_type, subject, time] = &values;
    let attributes = Attributes { specversion, id, source, event_type, subject, time };
    check(&attributes, "ce-")?;
    check_len("the body", body.len(), DOCUMENT_BYTES_MAX)?;
    let mut tape = Tape(Vec::new());
    let data = if body.trim_ascii().is_empty() {
        None
    } else {
        super::read(body, &mut Buffers::with_max_depth(0, depth_max()), &mut tape)?;
        Some(Json::root(&tape.0)).filter(|data| !data.is_null())
    };
    let mut events = Drafts::default();
    with_data(attributes, data, Place::Whole, &mut events)?;
    events.hand_to(each)
}

fn is_json_type(value: &[u8]) -> bool {
    let media = value.split(|b| *b == b';').next().unwrap_or_default().trim_ascii().to_ascii_lowercase();
    media == b"application/json" || media.ends_with(b"+json")
}

/// The text of a header: quotes are taken off, and `%XX` is decoded once.
fn header_text(value: &[u8]) -> Result<String> {
    let mut value = value.trim_ascii();
    let mut unquoted = Vec::new();
    if let [b'"', inner @ .., b'"'] = value {
        let mut escaped = false;
        for &b in inner {
            if b == b'\\' && !escaped {
                escaped = true;
            } else {
                unquoted.push(b);
                escaped = false;
            }
        }
        value = &unquoted;
    }
    let mut text = Vec::with_capacity(value.len());
    let mut at = 0;
    while let Some(&b) = value.get(at) {
        let digit = |i: usize| value.get(i).and_then(|d| (*d as char).to_digit(16));
        match (b, digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                text.push((high * 16 + low) as u8);
                at += 3;
            }
            _ => {
                text.push(b);
                at += 1;
            }
        }
    }
    String::from_utf8(text)
        .map_err(|_| Error::invalid_event("is not UTF-8").remedy("percent-encode everything that is not ASCII"))
}
