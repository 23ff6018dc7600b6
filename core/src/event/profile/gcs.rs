//! The profile `gcs`: what a push subscription posts for a notification of Google Cloud Storage: the attributes of the
//! message, and in `data` the object resource, as base64 of JSON.
//!
//! `objectGeneration` is the version if that is a number, else the microseconds of the event's clock, which grows with each
//! event of a key. A key that is not UTF-8 has U+FFFD in `objectId`, and the attribute `keyEncoded` beside it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::{BufMut, BytesMut};

use super::{RecordContext, Shown, aws, text};
use crate::event::frame::Field;
use crate::event::{EventType, FrameView, KnownType};

/// What the store calls a type, if it tells of it.
pub(super) fn name(t: EventType<'_>) -> Option<&'static str> {
    use KnownType::*;
    let EventType::Known(t) = t else { return None };
    Some(match t {
        ObjectCreatedPut
        | ObjectCreatedPost
        | ObjectCreatedCopy
        | ObjectCreatedCompleteMultipartUpload
        | ReplicaCreated => "OBJECT_FINALIZE",
        ObjectRemovedDelete | LifecycleExpirationDelete => "OBJECT_DELETE",
        ObjectRemovedDeleteMarkerCreated | LifecycleExpirationDeleteMarkerCreated => "OBJECT_ARCHIVE",
        LifecycleTransition | ObjectTaggingPut | ObjectTaggingDelete | ObjectAclPut | ObjectMetadataPut
        | ObjectRetentionPut | ObjectLegalHoldPut => "OBJECT_METADATA_UPDATE",
        _ => return None,
    })
}

/// Appends the message.
pub(super) fn write(frame: &FrameView<'_>, cx: &RecordContext<'_>, shown: &Shown<'_>, out: &mut BytesMut) {
    let (key, bucket, version) = (frame.key(), frame.bucket(), frame.text(Field::VersionId));
    let generation = match version.parse::<u64>() {
        Ok(n) => n.to_string(),
        Err(_) => (cx.sequencer.clock_ns / 1_000).to_string(),
    };
    let time = text::timestamp_with(frame.time_ns(), 6);
    let mut resource = BytesMut::new();
    write_resource(frame, &generation, &time, shown, &mut resource);

    out.reserve(aws::FIXED_BYTES + resource.len() * 4 / 3 + 8 * key.len());
    out.put_slice(b"{\"subscription\":\"projects/_/subscriptions/");
    text::string_body(out, cx.rule.as_bytes());
    out.put_slice(b"\",\"message\":{\"messageId\":\"");
    out.put_slice(&text::event_id(cx.id));
    out.put_slice(b"\",\"publishTime\":\"");
    out.put_slice(&text::timestamp(cx.sequencer.clock_ns));
    out.put_slice(b"\",\"data\":\"");
    out.put_slice(BASE64.encode(&resource).as_bytes());
    out.put_slice(b"\",\"attributes\":{\"notificationConfig\":\"projects/_/buckets/");
    text::string_body(out, bucket.as_bytes());
    out.put_slice(b"/notificationConfigs/");
    text::string_body(out, cx.rule.as_bytes());
    out.put_u8(b'"');
    text::member(out, "eventType", name(frame.event_type()).unwrap_or(frame.event_type().name()));
    text::member(out, "payloadFormat", "JSON_API_V1");
    text::member(out, "bucketId", bucket);
    out.put_slice(b",\"objectId\":");
    let exact = text::lossy_string(out, key);
    text::member(out, "objectGeneration", &generation);
    out.put_slice(b",\"eventTime\":\"");
    out.put_slice(&time);
    out.put_u8(b'"');
    if !exact {
        out.put_slice(b",\"keyEncoded\":\"");
        text::encoded_key(out, key);
        out.put_u8(b'"');
    }
    out.put_slice(b"}}}");
}

/// The object resource of the JSON API, as far as the event knows it; beyond it there are `tags` and the host's `data`.
fn write_resource(frame: &FrameView<'_>, generation: &str, time: &[u8], shown: &Shown<'_>, out: &mut BytesMut) {
    out.put_slice(b"{\"kind\":\"storage#object\",\"id\":\"");
    text::string_body(out, frame.bucket().as_bytes());
    out.put_u8(b'/');
    text::lossy_body(out, frame.key());
    out.put_u8(b'/');
    out.put_slice(generation.as_bytes());
    out.put_slice(b"\",\"name\":");
    text::lossy_string(out, frame.key());
    text::member(out, "bucket", frame.bucket());
    text::member(out, "generation", generation);
    text::member(out, "metageneration", "1");
    text::member_if(out, "contentType", frame.text(Field::ContentType));
    out.put_slice(b",\"updated\":\"");
    out.put_slice(time);
    out.put_u8(b'"');
    if let Some(size) = frame.size() {
        text::member(out, "size", itoa::Buffer::new().format(size));
    }
    text::member_if(out, "etag", frame.text(Field::Etag));
    let owner = frame.text(Field::BucketOwner);
    if !owner.is_empty() {
        out.put_slice(b",\"owner\":{\"entity\":");
        text::string(out, owner);
        out.put_u8(b'}');
    }
    shown.write_maps(frame, "metadata", "tags", out);
    if shown.data {
        aws::write_data(frame, None, out);
    }
    out.put_u8(b'}');
}
