//! The profile `azure`: events of Azure Event Grid for blobs, in the Event Grid schema, as a JSON array.
//!
//! The bucket is the container. `topic` is made of the event source and the region, and `data.url` is the `s3:` form of
//! bucket and encoded key, for it is not known where the store is. Beyond the fields of Event Grid `data` has, where the
//! event has them, `metadata`, `tags`, `versionId` and the host's `data`.

use bytes::{BufMut, BytesMut};

use super::{RecordContext, Shown, aws, text};
use crate::event::frame::Field;
use crate::event::{EventType, FrameView, KnownType};

/// What Event Grid calls a type and its operation, if it tells of it.
pub(super) fn names(t: EventType<'_>) -> Option<(&'static str, &'static str)> {
    use KnownType::*;
    let EventType::Known(t) = t else { return None };
    Some(match t {
        ObjectCreatedPut => ("Microsoft.Storage.BlobCreated", "PutBlob"),
        ObjectCreatedCopy => ("Microsoft.Storage.BlobCreated", "CopyBlob"),
        ObjectCreatedCompleteMultipartUpload => ("Microsoft.Storage.BlobCreated", "PutBlockList"),
        ObjectRemovedDelete | LifecycleExpirationDelete => ("Microsoft.Storage.BlobDeleted", "DeleteBlob"),
        LifecycleTransition | IntelligentTiering | ObjectRestoreCompleted => {
            ("Microsoft.Storage.BlobTierChanged", "SetBlobTier")
        }
        ObjectRestorePost => ("Microsoft.Storage.AsyncOperationInitiated", "SetBlobTier"),
        ObjectRenamed => ("Microsoft.Storage.BlobRenamed", "RenameFile"),
        _ => return None,
    })
}

/// Appends the event.
pub(super) fn write(frame: &FrameView<'_>, cx: &RecordContext<'_>, shown: &Shown<'_>, out: &mut BytesMut) {
    let (key, bucket, id) = (frame.key(), frame.bucket(), text::event_id(cx.id));
    let name = frame.event_type().name();
    let (event_type, api) = names(frame.event_type()).unwrap_or((name, name));
    out.reserve(aws::FIXED_BYTES + frame.as_bytes().len() + 5 * key.len());
    out.put_slice(b"{\"topic\":\"/");
    text::string_body(out, cx.source().as_bytes());
    out.put_u8(b'/');
    text::string_body(out, cx.region_of(frame).as_bytes());
    out.put_slice(b"\",\"subject\":\"/blobServices/default/containers/");
    text::string_body(out, bucket.as_bytes());
    out.put_slice(b"/blobs/");
    text::lossy_body(out, key);
    out.put_slice(b"\",\"eventType\":");
    text::string(out, event_type);
    out.put_slice(b",\"eventTime\":\"");
    out.put_slice(&text::timestamp_with(frame.time_ns(), 7));
    out.put_slice(b"\",\"id\":\"");
    out.put_slice(&id);
    out.put_slice(b"\",\"dataVersion\":\"2\",\"metadataVersion\":\"1\",\"data\":{\"api\":");
    text::string(out, api);
    out.put_slice(b",\"clientRequestId\":");
    aws::text_or(out, frame.text(Field::HostId), &id);
    out.put_slice(b",\"requestId\":");
    aws::text_or(out, frame.text(Field::RequestId), &id);
    let etag = frame.text(Field::Etag);
    if !etag.is_empty() {
        out.put_slice(b",\"eTag\":\"\\\"");
        text::string_body(out, etag.as_bytes());
        out.put_slice(b"\\\"\"");
    }
    text::member_if(out, "contentType", frame.text(Field::ContentType));
    if let Some(size) = frame.size() {
        out.put_slice(b",\"contentLength\":");
        text::number(out, size);
    }
    text::member(out, "blobType", "BlockBlob");
    out.put_slice(b",\"url\":\"s3://");
    text::uri_part(out, bucket);
    out.put_u8(b'/');
    text::uri_path(out, key);
    out.put_slice(b"\",\"sequencer\":\"");
    out.put_slice(&text::sequencer(cx.sequencer));
    out.put_u8(b'"');
    text::member_if(out, "identity", frame.text(Field::Requester));
    text::member_if(out, "versionId", frame.text(Field::VersionId));
    out.put_slice(b",\"storageDiagnostics\":{}");
    shown.write_maps(frame, "metadata", "tags", out);
    if shown.data {
        aws::write_data(frame, None, out);
    }
    out.put_slice(b"}}");
}
