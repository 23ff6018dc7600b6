//! The profile `debezium`: change events as Debezium writes them without schemas, one to a document.
//!
//! The row is the object: `bucket`, `key`, and what else is known. A creation is `c`, any other change of an object `u`, a
//! removal `d` with the row in `before`. A creation whose data has a member `before`, an object, is an overwrite: `u`, and
//! that is the row from before. The position is `source.lsn`, the sequencer, which orders the events of a key. Beyond what a
//! key can be as JSON, the row has `key_encoded` beside a key that is not UTF-8.

use bytes::{BufMut, BytesMut};
use serde_json::value::RawValue;

use super::{RecordContext, Shown, aws, raw_key, text};
use crate::event::frame::Field;
use crate::event::{EventType, FrameView, KnownType};

/// The version of these records, as `source.version`.
const VERSION: &str = "1.0";

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    Create,
    Update,
    Delete,
}

/// What a type does to the object's row, if anything.
pub(super) fn change(t: EventType<'_>) -> Option<Change> {
    use KnownType::*;
    let EventType::Known(t) = t else { return None };
    Some(match t {
        ObjectCreatedPut
        | ObjectCreatedPost
        | ObjectCreatedCopy
        | ObjectCreatedCompleteMultipartUpload
        | ReplicaCreated => Change::Create,
        ObjectRemovedDelete
        | ObjectRemovedDeleteMarkerCreated
        | ObjectRemovedDeleteAllVersions
        | LifecycleExpirationDelete
        | LifecycleExpirationDeleteMarkerCreated
        | ReplicaDeleted
        | ReplicaDeleteMarkerCreated => Change::Delete,
        LifecycleTransition
        | IntelligentTiering
        | ObjectRestoreCompleted
        | ObjectRestoreDelete
        | ObjectTaggingPut
        | ObjectTaggingDelete
        | ObjectAclPut
        | ObjectAnnotationPut
        | ObjectAnnotationDelete
        | ObjectMetadataPut
        | ObjectRetentionPut
        | ObjectLegalHoldPut => Change::Update,
        _ => return None,
    })
}

/// Data of a host that tells what was overwritten.
#[derive(serde::Deserialize)]
struct Overwritten<'a> {
    #[serde(borrow)]
    before: &'a RawValue,
}

/// Appends the change event.
pub(super) fn write(frame: &FrameView<'_>, cx: &RecordContext<'_>, shown: &Shown<'_>, out: &mut BytesMut) {
    let change = change(frame.event_type()).unwrap_or(Change::Update);
    let data = frame.field(Field::Data);
    let before = (shown.data && change == Change::Create && !data.is_empty() && text::is_json(data))
        .then(|| serde_json::from_slice::<Overwritten<'_>>(data).ok())
        .flatten()
        .map(|o| o.before.get())
        .filter(|text| text.starts_with('{'));
    out.reserve(aws::FIXED_BYTES + frame.as_bytes().len() + 2 * frame.key().len());
    let (op, row): (&[u8], &[u8]) = match (change, before) {
        (Change::Delete, _) => (b"d", b"{\"before\":"),
        (Change::Create, None) => (b"c", b"{\"before\":null,\"after\":"),
        (Change::Update, _) => (b"u", b"{\"before\":null,\"after\":"),
        (Change::Create, Some(_)) => (b"u", b"{\"before\":"),
    };
    out.put_slice(row);
    if let Some(before) = before {
        text::compact(out, before.as_bytes());
        out.put_slice(b",\"after\":");
    }
    write_row(frame, shown, before.is_none(), out);
    if change == Change::Delete {
        out.put_slice(b",\"after\":null");
    }
    let source_ms = frame.time_ns() / 1_000_000;
    out.put_slice(b",\"source\":{\"version\":\"");
    out.put_slice(VERSION.as_bytes());
    out.put_slice(b"\",\"connector\":\"tidewire\"");
    text::member(out, "name", cx.source());
    out.put_slice(b",\"ts_ms\":");
    text::number(out, source_ms);
    out.put_slice(b",\"snapshot\":\"false\"");
    text::member(out, "db", frame.bucket());
    out.put_slice(b",\"sequence\":\"");
    out.put_slice(&text::event_id(cx.id));
    out.put_slice(b"\",\"lsn\":\"");
    out.put_slice(&text::sequencer(cx.sequencer));
    out.put_u8(b'"');
    text::member(out, "region", cx.region_of(frame));
    text::member(out, "event", frame.event_type().name());
    text::member_if(out, "tx_id", frame.text(Field::RequestId));
    out.put_slice(b"},\"op\":\"");
    out.put_slice(op);
    out.put_slice(b"\",\"ts_ms\":");
    text::number(out, cx.sequencer.clock_ns / 1_000_000);
    out.put_u8(b'}');
}

fn write_row(frame: &FrameView<'_>, shown: &Shown<'_>, with_data: bool, out: &mut BytesMut) {
    out.put_slice(b"{\"bucket\":");
    text::string(out, frame.bucket());
    out.put_slice(b",\"key\":");
    let exact = raw_key(out, frame.key());
    if !exact {
        out.put_slice(b",\"key_encoded\":\"");
        text::encoded_key(out, frame.key());
        out.put_u8(b'"');
    }
    if let Some(size) = frame.size() {
        out.put_slice(b",\"size\":");
        text::number(out, size);
    }
    for (name, field) in [
        ("etag", Field::Etag),
        ("version_id", Field::VersionId),
        ("content_type", Field::ContentType),
        ("requester", Field::Requester),
    ] {
        text::member_if(out, name, frame.text(field));
    }
    shown.write_maps(frame, "metadata", "tags", out);
    if shown.data && with_data {
        aws::write_data(frame, None, out);
    }
    out.put_u8(b'}');
}
