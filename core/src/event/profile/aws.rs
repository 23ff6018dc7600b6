//! The profile `aws`: the event message structure of Amazon S3.
//!
//! Beyond the fields of S3 a record has, where the event has them: `eventId`, `data` (of the host, for types whose
//! data S3 has no block for), and in `s3.object` `contentType`, `userMetadata` and `tags`. Consumers of S3 records
//! are told to ignore names that they do not know.

use bytes::{BufMut, BytesMut};
use serde_json::{Map, Value};

use super::{RecordContext, Shown, text};
use crate::event::frame::Field;
use crate::event::{EventType, FrameView, KnownType, Origin};

/// `eventVersion`. From 2.4 on, S3 uses one number for all types (before, it depended on the type); 2.5 adds tags
/// that AWS itself generates, which no other store has. Consumers compare the minor number with `>=`.
const VERSION: &str = "2.4";

/// What S3 names as the actor and the address when the store itself acted.
pub(super) const STORE_ITSELF: &str = "s3.amazonaws.com";

/// Bytes of names and punctuation in a record, with the fields of fixed width; rounded up.
pub(super) const FIXED_BYTES: usize = 1_024;

/// Appends the record.
pub(super) fn write(frame: &FrameView<'_>, cx: &RecordContext<'_>, shown: &Shown<'_>, out: &mut BytesMut) {
    out.reserve(FIXED_BYTES + frame.as_bytes().len() + 2 * frame.key().len());
    let event_type = frame.event_type();
    let known = match event_type {
        EventType::Known(t) => Some(t),
        EventType::Custom(_) => None,
    };
    let id = text::event_id(cx.id);
    let own_region = frame.text(Field::Region);

    out.put_slice(b"{\"eventVersion\":\"");
    out.put_slice(VERSION.as_bytes());
    out.put_slice(b"\",\"eventSource\":");
    text::string(out, cx.source());
    out.put_slice(b",\"awsRegion\":");
    text::string(out, if own_region.is_empty() { cx.region } else { own_region });
    out.put_slice(b",\"eventTime\":\"");
    out.put_slice(&text::timestamp(frame.time_ns()));
    out.put_slice(b"\",\"eventName\":");
    text::string(
        out,
        match known {
            Some(t) => t.record_name(),
            None => event_type.name(),
        },
    );

    // These fields are in every record of S3, and consumers read them without asking.
    let actor = if frame.origin() == Origin::User { "" } else { STORE_ITSELF };
    let or_actor = |s| if <str>::is_empty(s) { actor } else { s };
    out.put_slice(b",\"userIdentity\":{\"principalId\":");
    text::string(out, or_actor(frame.text(Field::Requester)));
    out.put_slice(b"},\"requestParameters\":{\"sourceIPAddress\":");
    text::string(out, or_actor(frame.text(Field::SourceIp)));
    out.put_slice(b"},\"responseElements\":{\"x-amz-request-id\":");
    text_or(out, frame.text(Field::RequestId), &id);
    out.put_slice(b",\"x-amz-id-2\":");
    text_or(out, frame.text(Field::HostId), &id);

    out.put_slice(b"},\"s3\":{\"s3SchemaVersion\":\"1.0\",\"configurationId\":");
    text::string(out, cx.rule);
    write_bucket(frame, out);
    write_object(frame, known, cx, shown, out);
    out.put_u8(b'}');

    if shown.data {
        write_data(frame, known, out);
    }
    out.put_slice(b",\"eventId\":\"");
    out.put_slice(&id);
    out.put_slice(b"\"}");
}

pub(super) fn text_or(out: &mut BytesMut, s: &str, or: &[u8]) {
    if s.is_empty() {
        out.put_u8(b'"');
        out.put_slice(or);
        out.put_u8(b'"');
    } else {
        text::string(out, s);
    }
}

fn write_bucket(frame: &FrameView<'_>, out: &mut BytesMut) {
    let bucket = frame.bucket();
    out.put_slice(b",\"bucket\":{\"name\":");
    text::string(out, bucket);
    out.put_slice(b",\"ownerIdentity\":{\"principalId\":");
    text::string(out, frame.text(Field::BucketOwner));
    out.put_slice(b"},\"arn\":\"arn:aws:s3:::");
    text::string_body(out, bucket.as_bytes());
    out.put_slice(b"\"}");
}

fn write_object(
    frame: &FrameView<'_>,
    known: Option<KnownType>,
    cx: &RecordContext<'_>,
    shown: &Shown<'_>,
    out: &mut BytesMut,
) {
    out.put_slice(b",\"object\":{\"key\":\"");
    text::encoded_key(out, frame.key());
    out.put_u8(b'"');
    if let Some(size) = frame.size()
        && !known.is_some_and(is_removal)
    {
        out.put_slice(b",\"size\":");
        out.put_slice(itoa::Buffer::new().format(size).as_bytes());
    }
    for (name, field) in [
        (&b",\"eTag\":"[..], Field::Etag),
        (b",\"versionId\":", Field::VersionId),
        (b",\"contentType\":", Field::ContentType),
    ] {
        let s = frame.text(field);
        if !s.is_empty() {
            out.put_slice(name);
            text::string(out, s);
        }
    }
    if known.is_some_and(has_sequencer) {
        out.put_slice(b",\"sequencer\":\"");
        out.put_slice(&text::sequencer(cx.sequencer));
        out.put_u8(b'"');
    }
    shown.write_maps(frame, "userMetadata", "tags", out);
    out.put_u8(b'}');
}

/// Removals have no size, whatever the host says about the object that was there.
pub(super) fn is_removal(t: KnownType) -> bool {
    use KnownType::*;
    matches!(
        t,
        ObjectRemovedDelete
            | ObjectRemovedDeleteMarkerCreated
            | ObjectRemovedDeleteAllVersions
            | ObjectRemovedNoop
            | LifecycleExpirationDelete
            | LifecycleExpirationDeleteMarkerCreated
            | ReplicaDeleted
            | ReplicaDeleteMarkerCreated
    )
}

/// The types that put an object at a key or take it away; the others have no place in the order of the key's values.
pub(super) fn has_sequencer(t: KnownType) -> bool {
    use KnownType::*;
    is_removal(t)
        || matches!(
            t,
            ObjectCreatedPut
                | ObjectCreatedPost
                | ObjectCreatedCopy
                | ObjectCreatedCompleteMultipartUpload
                | ReplicaCreated
                | ObjectRenamed
        )
}

/// What encloses a block of event data and the names that the block may have, per type.
struct Block {
    head: &'static str,
    tail: &'static str,
    names: &'static [&'static str],
}

fn block(t: KnownType) -> Option<Block> {
    use KnownType::*;
    const REPLICATION: &str = ",\"replicationEventData\":";
    Some(match t {
        ObjectRestoreCompleted => Block {
            head: ",\"glacierEventData\":{\"restoreEventData\":",
            tail: "}",
            names: &["lifecycleRestorationExpiryTime", "lifecycleRestoreStorageClass"],
        },
        LifecycleTransition | LifecycleTransitionFailed => Block {
            head: ",\"lifecycleEventData\":{\"transitionEventData\":",
            tail: "}",
            names: &["destinationStorageClass"],
        },
        IntelligentTiering => {
            Block { head: ",\"intelligentTieringEventData\":", tail: "", names: &["destinationAccessTier"] }
        }
        ReplicationFailed => Block {
            head: REPLICATION,
            tail: "",
            names: &["replicationRuleId", "destinationBucket", "s3Operation", "requestTime", "failureReason"],
        },
        ReplicationMissedThreshold => Block {
            head: REPLICATION,
            tail: "",
            names: &["replicationRuleId", "destinationBucket", "s3Operation", "requestTime", "threshold"],
        },
        ReplicationReplicatedAfterThreshold => Block {
            head: REPLICATION,
            tail: "",
            names: &[
                "replicationRuleId",
                "destinationBucket",
                "s3Operation",
                "requestTime",
                "threshold",
                "replicationTime",
            ],
        },
        ReplicationNotTracked | ReplicationCompleted => Block {
            head: REPLICATION,
            tail: "",
            names: &["replicationRuleId", "destinationBucket", "s3Operation", "requestTime"],
        },
        _ => return None,
    })
}

/// Writes the block of event data that the type has in S3, or else the host's data as it is. Data that is not what
/// it should be is left out: it must not cost the event.
pub(super) fn write_data(frame: &FrameView<'_>, known: Option<KnownType>, out: &mut BytesMut) {
    let data = frame.field(Field::Data);
    if data.is_empty() {
        return;
    }
    let Some(block) = known.and_then(block) else {
        if text::is_json(data) {
            out.put_slice(b",\"data\":");
            text::compact(out, data);
        }
        return;
    };
    let Ok(fields) = serde_json::from_slice::<Map<String, Value>>(data) else {
        return;
    };
    let mut fields = block
        .names
        .iter()
        .filter_map(|name| match fields.get(*name) {
            Some(Value::String(s)) => Some((*name, s.as_str())),
            _ => None,
        })
        .peekable();
    if fields.peek().is_some() {
        out.put_slice(block.head.as_bytes());
        text::string_map(out, fields);
        out.put_slice(block.tail.as_bytes());
    }
}
