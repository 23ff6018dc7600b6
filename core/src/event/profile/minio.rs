//! The profile `minio`: the document that MinIO posts, with one record in it.
//!
//! The names of the types keep their `s3:`, keys are encoded with `/` as `%2F`, and the document's `Key` is the raw
//! `bucket/key`, in which U+FFFD stands for what is not UTF-8. Beyond the fields of MinIO a record has `eventId`, and where
//! the event has them `tags` in its object, and `data`.

use bytes::{BufMut, BytesMut};

use super::{RecordContext, Shown, aws, text};
use crate::event::frame::Field;
use crate::event::{EventType, FrameView, KnownType};

const VERSION: &str = "2.0";
const EVENT_SOURCE: &str = "minio:s3";

/// What MinIO calls a type, if it tells of it.
pub(super) fn name(t: EventType<'_>) -> Option<&'static str> {
    use KnownType::*;
    let EventType::Known(t) = t else { return None };
    Some(match t {
        ObjectTaggingPut => "s3:ObjectCreated:PutTagging",
        ObjectTaggingDelete => "s3:ObjectCreated:DeleteTagging",
        ObjectRetentionPut => "s3:ObjectCreated:PutRetention",
        ObjectLegalHoldPut => "s3:ObjectCreated:PutLegalHold",
        LifecycleTransition => "s3:ObjectTransition:Complete",
        LifecycleExpirationDelete => "s3:ObjectRemoved:Delete",
        ObjectCreatedPut
        | ObjectCreatedPost
        | ObjectCreatedCopy
        | ObjectCreatedCompleteMultipartUpload
        | ObjectRemovedDelete
        | ObjectRemovedDeleteMarkerCreated
        | ObjectRemovedDeleteAllVersions
        | ObjectRemovedNoop
        | LifecycleTransitionFailed
        | ObjectRestorePost
        | ObjectRestoreCompleted
        | ReplicationFailed
        | ReplicationMissedThreshold
        | ReplicationReplicatedAfterThreshold
        | ReplicationNotTracked
        | ReplicationCompleted
        | ObjectAccessedGet
        | ObjectAccessedHead
        | ObjectAccessedGetRetention
        | ObjectAccessedGetLegalHold
        | ObjectAccessedAttributes
        | ScannerManyVersions
        | ScannerLargeVersions
        | ScannerBigPrefix => t.name(),
        _ => return None,
    })
}

/// Appends the document.
pub(super) fn write(frame: &FrameView<'_>, cx: &RecordContext<'_>, shown: &Shown<'_>, out: &mut BytesMut) {
    let (key, bucket, id) = (frame.key(), frame.bucket(), text::event_id(cx.id));
    let event_type = frame.event_type();
    let name = name(event_type).unwrap_or(event_type.name());
    let source = if cx.event_source.is_empty() { EVENT_SOURCE } else { cx.event_source };
    out.reserve(aws::FIXED_BYTES + frame.as_bytes().len() + 5 * key.len());
    out.put_slice(b"{\"EventName\":");
    text::string(out, name);
    out.put_slice(b",\"Key\":\"");
    text::string_body(out, bucket.as_bytes());
    out.put_u8(b'/');
    text::lossy_body(out, key);
    out.put_slice(b"\",\"Records\":[{\"eventVersion\":\"");
    out.put_slice(VERSION.as_bytes());
    out.put_u8(b'"');
    text::member(out, "eventSource", source);
    text::member(out, "awsRegion", cx.region_of(frame));
    out.put_slice(b",\"eventTime\":\"");
    out.put_slice(&text::timestamp(frame.time_ns()));
    out.put_u8(b'"');
    text::member(out, "eventName", name);
    out.put_slice(b",\"userIdentity\":{\"principalId\":");
    text::string(out, frame.text(Field::Requester));
    out.put_slice(b"},\"requestParameters\":{\"principalId\":");
    text::string(out, frame.text(Field::Requester));
    text::member(out, "region", cx.region_of(frame));
    text::member(out, "sourceIPAddress", frame.text(Field::SourceIp));
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
    out.put_slice(b"},\"arn\":\"arn:aws:s3:::");
    text::string_body(out, bucket.as_bytes());
    out.put_slice(b"\"},\"object\":{\"key\":\"");
    text::encoded_key_without_slash(out, key);
    out.put_u8(b'"');
    let removal = matches!(event_type, EventType::Known(t) if aws::is_removal(t));
    if let Some(size) = frame.size().filter(|_| !removal) {
        out.put_slice(b",\"size\":");
        text::number(out, size);
    }
    text::member_if(out, "eTag", frame.text(Field::Etag));
    text::member_if(out, "contentType", frame.text(Field::ContentType));
    shown.write_maps(frame, "userMetadata", "tags", out);
    text::member_if(out, "versionId", frame.text(Field::VersionId));
    out.put_slice(b",\"sequencer\":\"");
    out.put_slice(&text::sequencer(cx.sequencer));
    out.put_slice(b"\"}},\"source\":{\"host\":");
    text::string(out, frame.text(Field::SourceIp));
    out.put_slice(b",\"port\":\"\"");
    text::member(out, "userAgent", frame.text(Field::UserAgent));
    out.put_u8(b'}');
    if shown.data {
        aws::write_data(frame, None, out);
    }
    out.put_slice(b",\"eventId\":\"");
    out.put_slice(&id);
    out.put_slice(b"\"}]}");
}
