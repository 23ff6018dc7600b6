//! The profile `eventbridge`: the events that Amazon S3 sends to EventBridge, one to a document.
//!
//! The key is written raw. What only the account of the store would know is made up: `account` is the owner of the bucket if
//! that is twelve digits, else zeros; `id` is a UUID made from the event's id. Beyond the fields of S3 `detail` has, where
//! the event has them, `content-type`, `metadata`, `tags`, `data`, and `key-encoded` beside a key that is not UTF-8.

use bytes::{BufMut, BytesMut};
use serde_json::{Map, Value};

use super::{RecordContext, Shown, aws, raw_key, text, uuid};
use crate::event::frame::Field;
use crate::event::{EventType, FrameView, KnownType, Origin};

pub(crate) fn detail_type(t: KnownType) -> Option<&'static str> {
    use KnownType::*;
    Some(match t {
        ObjectCreatedPut | ObjectCreatedPost | ObjectCreatedCopy | ObjectCreatedCompleteMultipartUpload => {
            "Object Created"
        }
        ObjectRemovedDelete
        | ObjectRemovedDeleteMarkerCreated
        | ObjectRemovedDeleteAllVersions
        | LifecycleExpirationDelete
        | LifecycleExpirationDeleteMarkerCreated => "Object Deleted",
        LifecycleTransition => "Object Storage Class Changed",
        IntelligentTiering => "Object Access Tier Changed",
        ObjectRestorePost => "Object Restore Initiated",
        ObjectRestoreCompleted => "Object Restore Completed",
        ObjectRestoreDelete => "Object Restore Expired",
        ObjectTaggingPut => "Object Tags Added",
        ObjectTaggingDelete => "Object Tags Deleted",
        ObjectAclPut => "Object ACL Updated",
        _ => return None,
    })
}

pub(crate) fn reason(t: KnownType) -> Option<&'static str> {
    use KnownType::*;
    Some(match t {
        ObjectCreatedPut => "PutObject",
        ObjectCreatedPost => "POST Object",
        ObjectCreatedCopy => "CopyObject",
        ObjectCreatedCompleteMultipartUpload => "CompleteMultipartUpload",
        ObjectRemovedDelete | ObjectRemovedDeleteMarkerCreated | ObjectRemovedDeleteAllVersions => "DeleteObject",
        LifecycleExpirationDelete | LifecycleExpirationDeleteMarkerCreated => "Lifecycle Expiration",
        _ => return None,
    })
}

pub(crate) fn deletion_type(t: KnownType) -> Option<&'static str> {
    use KnownType::*;
    Some(match t {
        ObjectRemovedDelete | ObjectRemovedDeleteAllVersions | LifecycleExpirationDelete => "Permanently Deleted",
        ObjectRemovedDeleteMarkerCreated | LifecycleExpirationDeleteMarkerCreated => "Delete Marker Created",
        _ => return None,
    })
}

/// Whether S3 sends EventBridge events of this type.
pub(super) fn expressible(t: EventType<'_>) -> bool {
    // That all versions go at once is an operation of other stores.
    matches!(t, EventType::Known(t) if t != KnownType::ObjectRemovedDeleteAllVersions && detail_type(t).is_some())
}

/// Members of `detail` that come from the data of some types.
const OF_DATA: [(&str, &str); 4] = [
    ("restore-expiry-time", "lifecycleRestorationExpiryTime"),
    ("source-storage-class", "lifecycleRestoreStorageClass"),
    ("destination-storage-class", "destinationStorageClass"),
    ("destination-access-tier", "destinationAccessTier"),
];

/// Appends the event.
pub(super) fn write(frame: &FrameView<'_>, cx: &RecordContext<'_>, shown: &Shown<'_>, out: &mut BytesMut) {
    let known = match frame.event_type() {
        EventType::Known(t) => Some(t),
        EventType::Custom(_) => None,
    };
    let name = frame.event_type().name();
    let (bucket, owner) = (frame.bucket(), frame.text(Field::BucketOwner));
    out.reserve(aws::FIXED_BYTES + frame.as_bytes().len() + frame.key().len());
    out.put_slice(b"{\"version\":\"0\",\"id\":\"");
    out.put_slice(uuid(cx.id).as_bytes());
    out.put_slice(b"\",\"detail-type\":");
    text::string(out, known.and_then(detail_type).unwrap_or(name));
    out.put_slice(b",\"source\":");
    text::string(out, &cx.source().replace(':', "."));
    let is_account = owner.len() == 12 && owner.bytes().all(|b| b.is_ascii_digit());
    text::member(out, "account", if is_account { owner } else { "000000000000" });
    out.put_slice(b",\"time\":\"");
    out.put_slice(&text::timestamp_with(frame.time_ns(), 0));
    out.put_u8(b'"');
    text::member(out, "region", cx.region_of(frame));
    out.put_slice(b",\"resources\":[\"arn:aws:s3:::");
    text::string_body(out, bucket.as_bytes());
    out.put_slice(b"\"],\"detail\":{\"version\":\"0\",\"bucket\":{\"name\":");
    text::string(out, bucket);
    out.put_slice(b"},\"object\":{\"key\":");
    let exact = raw_key(out, frame.key());
    if let Some(size) = frame.size().filter(|_| !known.is_some_and(aws::is_removal)) {
        out.put_slice(b",\"size\":");
        text::number(out, size);
    }
    text::member_if(out, "etag", frame.text(Field::Etag));
    text::member_if(out, "version-id", frame.text(Field::VersionId));
    if known.is_some_and(aws::has_sequencer) {
        out.put_slice(b",\"sequencer\":\"");
        out.put_slice(&text::sequencer(cx.sequencer));
        out.put_u8(b'"');
    }
    out.put_slice(b"},\"request-id\":");
    aws::text_or(out, frame.text(Field::RequestId), &text::event_id(cx.id));
    let requester = frame.text(Field::Requester);
    let actor = if frame.origin() == Origin::User { requester } else { aws::STORE_ITSELF };
    text::member(out, "requester", if requester.is_empty() { actor } else { requester });
    text::member_if(out, "source-ip-address", frame.text(Field::SourceIp));
    text::member_if(out, "reason", known.and_then(reason).unwrap_or_default());
    text::member_if(out, "deletion-type", known.and_then(deletion_type).unwrap_or_default());
    text::member_if(out, "content-type", frame.text(Field::ContentType));
    if !exact {
        out.put_slice(b",\"key-encoded\":\"");
        text::encoded_key(out, frame.key());
        out.put_u8(b'"');
    }
    shown.write_maps(frame, "metadata", "tags", out);
    let data = frame.field(Field::Data);
    if shown.data && !data.is_empty() {
        write_data(known, data, out);
    }
    out.put_slice(b"}}");
}

fn write_data(known: Option<KnownType>, data: &[u8], out: &mut BytesMut) {
    let own = known.and_then(KnownType::data_schema).is_some();
    match serde_json::from_slice::<Map<String, Value>>(data) {
        Ok(fields) if own => {
            for (name, field) in OF_DATA {
                text::member_if(out, name, fields.get(field).and_then(Value::as_str).unwrap_or_default());
            }
        }
        _ if text::is_json(data) => {
            out.put_slice(b",\"data\":");
            text::compact(out, data);
        }
        _ => {}
    }
}
