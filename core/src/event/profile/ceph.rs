//! The profile `ceph`: the records of the RADOS gateway.
//!
//! The key is raw, `metadata` and `tags` are lists of `{key, val}`, times have microseconds. The sequencer is Tidewire's own,
//! which can be compared. Beyond the fields of Ceph a record has, where the event has them, `data`, `contentType` in its
//! object, and there `keyEncoded` beside a key that is not UTF-8.

use bytes::{BufMut, BytesMut};

use super::{RecordContext, Shown, aws, raw_key, text};
use crate::event::frame::Field;
use crate::event::{EventType, FrameView, KnownType};

const VERSION: &str = "2.2";
const EVENT_SOURCE: &str = "ceph:s3";

/// Whether Ceph tells of this type.
pub(super) fn expressible(t: EventType<'_>) -> bool {
    use KnownType::*;
    matches!(
        t,
        EventType::Known(
            ObjectCreatedPut
                | ObjectCreatedPost
                | ObjectCreatedCopy
                | ObjectCreatedCompleteMultipartUpload
                | ObjectRemovedDelete
                | ObjectRemovedDeleteMarkerCreated
                | LifecycleExpirationDelete
                | LifecycleExpirationDeleteMarkerCreated
                | LifecycleExpirationAbortMultipartUpload
                | LifecycleTransition
                | ReplicaCreated
                | ReplicaDeleted
                | ReplicaDeleteMarkerCreated
        )
    )
}

/// Appends the record.
pub(super) fn write(frame: &FrameView<'_>, cx: &RecordContext<'_>, shown: &Shown<'_>, out: &mut BytesMut) {
    let (bucket, id) = (frame.bucket(), text::event_id(cx.id));
    let event_type = frame.event_type();
    let source = if cx.event_source.is_empty() { EVENT_SOURCE } else { cx.event_source };
    let name = match event_type {
        EventType::Known(t) => t.record_name(),
        EventType::Custom(name) => name,
    };
    out.reserve(aws::FIXED_BYTES + frame.as_bytes().len() + 2 * frame.key().len());
    out.put_slice(b"{\"eventVersion\":\"");
    out.put_slice(VERSION.as_bytes());
    out.put_u8(b'"');
    text::member(out, "eventSource", source);
    text::member(out, "awsRegion", cx.region_of(frame));
    out.put_slice(b",\"eventTime\":\"");
    out.put_slice(&text::timestamp_with(frame.time_ns(), 6));
    out.put_u8(b'"');
    text::member(out, "eventName", name);
    out.put_slice(b",\"userIdentity\":{\"principalId\":");
    text::string(out, frame.text(Field::Requester));
    out.put_slice(b"},\"requestParameters\":{\"sourceIPAddress\":");
    text::string(out, frame.text(Field::SourceIp));
    out.put_slice(b"},\"responseElements\":{\"x-amz-request-id\":");
    aws::text_or(out, frame.text(Field::RequestId), &id);
    out.put_slice(b",\"x-amz-id-2\":");
    aws::text_or(out, frame.text(Field::HostId), &id);
    out.put_slice(b"},\"s3\":{\"s3SchemaVersion\":\"1.0\",\"configurationId\":");
    text::string(out, cx.rule);
    out.put_slice(b",\"bucket\":{\"name\":");
    text::string(out, bucket);
    out.put_slice(b",\"ownerIdentity\":{\"principalId\":");
    text::string(out, frame.text(Field::BucketOwner));
    out.put_slice(b"},\"arn\":\"arn:aws:s3:");
    text::string_body(out, cx.region_of(frame).as_bytes());
    out.put_slice(b"::");
    text::string_body(out, bucket.as_bytes());
    out.put_slice(b"\",\"id\":\"\"},\"object\":{\"key\":");
    let exact = raw_key(out, frame.key());
    out.put_slice(b",\"size\":");
    let removal = matches!(event_type, EventType::Known(t) if aws::is_removal(t));
    text::number(out, frame.size().filter(|_| !removal).unwrap_or(0));
    text::member(out, "eTag", frame.text(Field::Etag));
    text::member(out, "versionId", frame.text(Field::VersionId));
    out.put_slice(b",\"sequencer\":\"");
    out.put_slice(&text::sequencer(cx.sequencer));
    out.put_slice(b"\",\"metadata\":[");
    write_list(shown.metadata(frame), "x-amz-meta-", out);
    out.put_slice(b"],\"tags\":[");
    write_list(shown.tags(frame), "", out);
    out.put_u8(b']');
    text::member_if(out, "contentType", frame.text(Field::ContentType));
    if !exact {
        out.put_slice(b",\"keyEncoded\":\"");
        text::encoded_key(out, frame.key());
        out.put_u8(b'"');
    }
    out.put_slice(b"}},\"eventId\":\"");
    out.put_slice(&id);
    out.put_slice(b"\",\"opaqueData\":\"\"");
    if shown.data {
        aws::write_data(frame, None, out);
    }
    out.put_u8(b'}');
}

fn write_list<'a>(pairs: Option<impl Iterator<Item = (&'a str, &'a str)>>, prefix: &str, out: &mut BytesMut) {
    for (i, (name, value)) in pairs.into_iter().flatten().enumerate() {
        out.put_slice(if i == 0 { b"{\"key\":\"" } else { b",{\"key\":\"" });
        text::string_body(out, prefix.as_bytes());
        text::string_body(out, name.as_bytes());
        out.put_u8(b'"');
        text::member(out, "val", value);
        out.put_u8(b'}');
    }
}
