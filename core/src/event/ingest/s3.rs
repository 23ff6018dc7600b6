//! Event records of S3 and of its peers.

use std::borrow::Cow;

use super::json::Json;
use super::{Draft, Drafts, Place, replace_place};
use crate::error::{Error, Result};
use crate::event::{Event, EventType, KnownType, Origin};

/// Reads `{"Records":[...]}`; other members beside `Records` (a peer adds some) are ignored.
pub(super) fn read<'a>(root: Json<'_, 'a>, events: &mut Drafts<'a>) -> Result<()> {
    if root.get("Records").is_none()
        && let Some(name) = root.get("Event").and_then(Json::as_str)
        && EventType::parse(name).is_ok_and(|t| t == EventType::Known(KnownType::TestEvent))
    {
        return Ok(());
    }
    let Some(records) = root.get("Records").filter(|r| r.is_array()) else {
        return Err(Error::invalid_event("the document has no array of records")
            .at("Records")
            .remedy("send {\"Records\": [...]}, CloudEvents, or one JSON object per line"));
    };
    for (i, r) in records.elements().enumerate() {
        events.push(Place::Record(i), record(r))?;
    }
    Ok(())
}

/// Reads one record.
pub(super) fn record<'a>(r: Json<'_, 'a>) -> Result<Draft<'a>> {
    if !r.is_object() {
        return Err(Error::invalid_event(format!("a record is {}, not an object", r.kind())));
    }
    let mut draft = Draft::default();
    let name = required(r, &["eventName"])?;
    let event_type = EventType::parse(name).map_err(|e| replace_place(e, "eventName"))?;
    let time = r.text_at(&["eventTime"])?;
    draft.event = Event {
        event_type,
        time_ns: if time.is_empty() { 0 } else { super::time_ns(time).map_err(|e| e.at("eventTime"))? },
        bucket: required(r, &["s3", "bucket", "name"])?,
        version_id: r.text_at(&["s3", "object", "versionId"])?,
        size: match r.path(&["s3", "object", "size"]) {
            Some(size) => Some(size.unsigned().map_err(|e| e.at("s3.object.size"))?),
            None => None,
        },
        etag: unquoted(r.text_at(&["s3", "object", "eTag"])?),
        requester: r.text_at(&["userIdentity", "principalId"])?,
        source_ip: r.text_at(&["requestParameters", "sourceIPAddress"])?,
        request_id: r.text_at(&["responseElements", "x-amz-request-id"])?,
        host_id: r.text_at(&["responseElements", "x-amz-id-2"])?,
        region: r.text_at(&["awsRegion"])?,
        content_type: r.text_at(&["s3", "object", "contentType"])?,
        user_agent: r.text_at(&["source", "userAgent"])?,
        bucket_owner: r.text_at(&["s3", "bucket", "ownerIdentity", "principalId"])?,
        origin: origin(event_type),
        ..Event::default()
    };
    let key = r.text_at(&["s3", "object", "key"])?;
    // One peer does not encode keys, and says so only by its name.
    let raw = r.text_at(&["eventSource"])?.starts_with("ceph:");
    draft.key =
        if raw { Cow::Borrowed(key.as_bytes()) } else { decoded_key(key).map_err(|e| e.at("s3.object.key"))? };
    let object = r.path(&["s3", "object"]);
    for name in ["userMetadata", "metadata"] {
        if let Some(pairs) = object.and_then(|o| o.get(name)) {
            draft.metadata = pairs.pairs().map_err(|e| e.at(format!("s3.object.{name}")))?;
            for (name, _) in &mut draft.metadata {
                *name = bare_name(name);
            }
        }
    }
    if let Some(pairs) = object.and_then(|o| o.get("tags")) {
        draft.tags = pairs.pairs().map_err(|e| e.at("s3.object.tags"))?;
    }
    let blocks: [&[&str]; 5] = [
        &["glacierEventData", "restoreEventData"],
        &["lifecycleEventData", "transitionEventData"],
        &["intelligentTieringEventData"],
        &["replicationEventData"],
        &["data"],
    ];
    if let Some(data) = blocks.iter().find_map(|path| r.path(path)) {
        draft.data = data.to_data().map_err(|e| e.at("event data"))?;
    }
    Ok(draft)
}

fn required<'a>(r: Json<'_, 'a>, path: &[&str]) -> Result<&'a str> {
    match r.text_at(path)? {
        "" => Err(Error::invalid_event("is missing").at(path.join(".")).remedy("S3 has it in every record; give it")),
        text => Ok(text),
    }
}

/// Who caused an event of this type, as far as the type says.
fn origin(t: EventType<'_>) -> Origin {
    use KnownType::*;
    match t {
        EventType::Known(
            LifecycleExpirationDelete
            | LifecycleExpirationDeleteMarkerCreated
            | LifecycleExpirationAbortMultipartUpload
            | LifecycleTransition
            | LifecycleTransitionFailed
            | IntelligentTiering,
        ) => Origin::Lifecycle,
        EventType::Known(ReplicaCreated | ReplicaDeleted | ReplicaDeleteMarkerCreated) => Origin::Replica,
        _ => Origin::User,
    }
}

fn unquoted(etag: &str) -> &str {
    etag.strip_prefix('"').and_then(|e| e.strip_suffix('"')).unwrap_or(etag)
}

/// The name of an entry of user metadata without the prefix that it has in HTTP.
fn bare_name(name: &str) -> &str {
    const PREFIX: &str = "x-amz-meta-";
    match name.get(..PREFIX.len()) {
        Some(head) if head.eq_ignore_ascii_case(PREFIX) && name.len() > PREFIX.len() => &name[PREFIX.len()..],
        _ => name,
    }
}

/// The key of its form encoding: `+` is a space, `%XX` a byte; whatever else was left as it is stands for itself.
fn decoded_key(text: &str) -> Result<Cow<'_, [u8]>> {
    let bytes = text.as_bytes();
    if memchr::memchr2(b'+', b'%', bytes).is_none() {
        return Ok(Cow::Borrowed(bytes));
    }
    let mut key = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&b) = bytes.get(at) {
        at += 1;
        match b {
            b'+' => key.push(b' '),
            b'%' => {
                let digit = |i: usize| bytes.get(i).and_then(|d| (*d as char).to_digit(16));
                let (Some(high), Some(low)) = (digit(at), digit(at + 1)) else {
                    return Err(Error::invalid_event(format!(
                        "`%` at byte {} is not followed by two hex digits",
                        at - 1
                    ))
                    .remedy("encode the key as S3 does: space as +, a percent sign as %25"));
                };
                key.push((high * 16 + low) as u8);
                at += 2;
            }
            b => key.push(b),
        }
    }
    Ok(Cow::Owned(key))
}
