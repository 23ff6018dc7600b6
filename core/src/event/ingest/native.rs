//! Tidewire's own form: one JSON object per event, with the field names of [`Event`].

use std::borrow::Cow;

use base64::Engine as _;
use simd_json::{Buffers, Tape};

use super::json::Json;
use super::{Draft, Drafts, Place, replace_place};
use crate::error::{Error, Result};
use crate::event::{Event, EventType, Origin, Priority};

/// Every field that an object may have.
const FIELDS: &[&str] = &[
    "type",
    "time",
    "time_ns",
    "bucket",
    "key",
    "key_base64",
    "size",
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
    "metadata",
    "tags",
    "data",
    "priority",
    "origin",
];

/// The place of a name in [`FIELDS`].
#[inline]
fn number_of(name: &str) -> Option<usize> {
    // By length first: that alone tells most of them apart.
    FIELDS.iter().position(|f| f.len() == name.len() && *f == name)
}

/// Reads one event per line; lines of white space are skipped.
pub(super) fn read_lines<'a>(body: &'a mut [u8], buffers: &mut Buffers, tape: &mut Tape<'a>) -> Result<Drafts<'a>> {
    let mut events = Drafts::default();
    for (i, line) in body.split_mut(|b| *b == b'\n').enumerate() {
        if line.trim_ascii().is_empty() {
            continue;
        }
        let draft = super::read(line, buffers, tape).and_then(|()| draft(Json::root(&tape.0)));
        events.push(Place::Line(i + 1), draft)?;
    }
    Ok(events)
}

/// Reads the one event of a document.
pub(super) fn read<'a>(root: Json<'_, 'a>, events: &mut Drafts<'a>) -> Result<()> {
    events.push(Place::Whole, draft(root))
}

fn draft<'a>(object: Json<'_, 'a>) -> Result<Draft<'a>> {
    if !object.is_object() {
        return Err(Error::invalid_event(format!("an event is {}, not an object", object.kind()))
            .remedy("write one JSON object per event: {\"type\": ..., \"bucket\": ..., \"key\": ...}"));
    }
    let mut draft = Draft::default();
    let (mut seen, mut given) = (0u32, 0u32);
    for (name, value) in object.members() {
        let Some(number) = number_of(name) else {
            return Err(unknown_field(name));
        };
        if seen & (1 << number) != 0 {
            return Err(Error::invalid_event("is given twice").at(name).remedy("give it once"));
        }
        seen |= 1 << number;
        if !value.is_null() {
            given |= 1 << number;
            set(&mut draft, name, value).map_err(|e| if e.place() == Some(name) { e } else { e.at(name) })?;
        }
    }
    let given = |name: &str| number_of(name).is_some_and(|number| given & (1 << number) != 0);
    if !given("type") {
        return Err(Error::invalid_event("is missing").at("type").remedy("name the event type: s3:ObjectCreated:Put"));
    }
    for (one, other) in [("key", "key_base64"), ("time", "time_ns")] {
        if given(one) && given(other) {
            return Err(Error::invalid_event(format!("is given beside `{one}`")).at(other).remedy("give one of them"));
        }
    }
    Ok(draft)
}

fn set<'a>(draft: &mut Draft<'a>, name: &str, value: Json<'_, 'a>) -> Result<()> {
    let event: &mut Event<'a> = &mut draft.event;
    let text_field = match name {
        "bucket" => &mut event.bucket,
        "etag" => &mut event.etag,
        "version_id" => &mut event.version_id,
        "requester" => &mut event.requester,
        "source_ip" => &mut event.source_ip,
        "request_id" => &mut event.request_id,
        "host_id" => &mut event.host_id,
        "region" => &mut event.region,
        "content_type" => &mut event.content_type,
        "method" => &mut event.method,
        "user_agent" => &mut event.user_agent,
        "bucket_owner" => &mut event.bucket_owner,
        "type" => {
            event.event_type = EventType::parse(value.text()?).map_err(|e| replace_place(e, "type"))?;
            return Ok(());
        }
        "time" => {
            event.time_ns = match value.text() {
                Ok(text) => super::time_ns(text)?,
                Err(e) => return Err(e.remedy("write it as in RFC 3339, or nanoseconds as `time_ns`")),
            };
            return Ok(());
        }
        "time_ns" => {
            event.time_ns = value.unsigned()?;
            return Ok(());
        }
        "size" => {
            event.size = Some(value.unsigned()?);
            return Ok(());
        }
        "key" => {
            draft.key = Cow::Borrowed(value.text()?.as_bytes());
            return Ok(());
        }
        "key_base64" => {
            draft.key = Cow::Owned(key_from_base64(value.text()?)?);
            return Ok(());
        }
        "metadata" => {
            draft.metadata = value.pairs()?;
            return Ok(());
        }
        "tags" => {
            draft.tags = value.pairs()?;
            return Ok(());
        }
        "data" => {
            draft.data = value.to_data()?;
            return Ok(());
        }
        "priority" => {
            event.priority =
                choice(value, &[("low", Priority::Low), ("normal", Priority::Normal), ("high", Priority::High)])?;
            return Ok(());
        }
        // `FIELDS` has no other name.
        _ => {
            event.origin = choice(
                value,
                &[("user", Origin::User), ("replica", Origin::Replica), ("lifecycle", Origin::Lifecycle)],
            )?;
            return Ok(());
        }
    };
    *text_field = value.text()?;
    Ok(())
}

/// The bytes of a key that was written in base64.
pub(super) fn key_from_base64(text: &str) -> Result<Vec<u8>> {
    base64::engine::general_purpose::STANDARD
        .decode(text)
        .map_err(|e| Error::invalid_event(format!("is not base64: {e}")).remedy("encode the key's bytes, with padding"))
}

fn choice<T: Copy>(value: Json<'_, '_>, choices: &[(&str, T)]) -> Result<T> {
    let text = value.text()?;
    choices.iter().find(|(name, _)| *name == text).map(|(_, choice)| *choice).ok_or_else(|| {
        let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
        Error::invalid_event(format!("`{text}` is not known")).remedy(format!("use one of: {}", names.join(", ")))
    })
}

#[cold]
fn unknown_field(name: &str) -> Error {
    let near = FIELDS
        .iter()
        .map(|f| (strsim::jaro_winkler(f, &name.to_ascii_lowercase()), *f))
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .filter(|(score, _)| *score > 0.75);
    let error = Error::invalid_event(format!("unknown field `{name}`"));
    match near {
        Some((_, near)) => error.remedy(format!("did you mean `{near}`?")),
        None => error.remedy(format!("use one of: {}; anything else belongs into `data`", FIELDS.join(", "))),
    }
}
