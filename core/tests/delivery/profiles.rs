//! The profiles of other stores and routers, as their consumers see them.

use aws_lambda_events::event::eventbridge::EventBridgeEvent;
use aws_lambda_events::event::s3::S3Event;
use base64::Engine as _;
use bytes::BytesMut;
use serde_json::{Value, json};
use tidewire::event::frame::{self, FrameView};
use tidewire::event::profile::{Profile, RecordContext};
use tidewire::event::{EventId, Sequencer};
use tidewire::{Event, EventType, KnownType};

/// 2026-02-28T23:59:59.123456789Z.
const TIME_NS: u64 = 1_772_323_199_123_456_789;

fn write(profile: Profile, e: &Event<'_>) -> Value {
    let bytes = frame::encode_to_vec(e, TIME_NS);
    let cx = RecordContext {
        id: EventId { incarnation: 0xFEED_0000_0000_0001, shard: 2, sequence: 255 },
        sequencer: Sequencer { clock_ns: TIME_NS, tie: 1, writer: 0xABCD },
        rule: "thumbnails",
        region: "eu-central-1",
        event_source: "",
    };
    let mut out = BytesMut::new();
    profile.write_record(&FrameView::parse(&bytes).unwrap(), &cx, &mut out);
    serde_json::from_slice(&out).unwrap()
}

fn full() -> Event<'static> {
    let mut e = Event::new(KnownType::ObjectCreatedPut.into(), "photos", "2026/é +%.jpg".as_bytes());
    (e.size, e.etag, e.version_id) = (Some(5), "tag", "v1");
    (e.requester, e.source_ip, e.request_id, e.host_id) = ("AWS:me", "192.0.2.7", "req", "host");
    (e.content_type, e.user_agent, e.bucket_owner) = ("image/jpeg", "curl/8", "111122223333");
    (e.metadata, e.tags) = (&[("album", "x")], &[("class", "public")]);
    e
}

fn of(t: KnownType) -> Event<'static> {
    let mut e = full();
    e.event_type = t.into();
    e
}

#[test]
fn minio_documents_are_those_of_minio() {
    let json = write(Profile::Minio, &full());
    assert_eq!(json["EventName"], "s3:ObjectCreated:Put");
    assert_eq!(json["Key"], "photos/2026/é +%.jpg");
    let record = &json["Records"][0];
    assert_eq!(record["eventName"], "s3:ObjectCreated:Put");
    assert_eq!(record["eventSource"], "minio:s3");
    assert_eq!(record["s3"]["object"]["key"], "2026%2F%C3%A9+%2B%25.jpg");
    assert_eq!(record["s3"]["object"]["userMetadata"], json!({"album": "x"}));
    assert_eq!(record["source"], json!({"host": "192.0.2.7", "port": "", "userAgent": "curl/8"}));
    // The record is one of S3 to a client library.
    let event: S3Event = serde_json::from_value(json!({ "Records": json["Records"] })).unwrap();
    assert_eq!(event.records[0].s3.object.size, Some(5));
    for (t, name) in [
        (KnownType::ObjectTaggingPut, "s3:ObjectCreated:PutTagging"),
        (KnownType::ObjectRetentionPut, "s3:ObjectCreated:PutRetention"),
        (KnownType::LifecycleTransition, "s3:ObjectTransition:Complete"),
    ] {
        assert_eq!(write(Profile::Minio, &of(t))["EventName"], name);
    }
}

#[test]
fn ceph_records_have_raw_keys_and_lists() {
    let json = write(Profile::Ceph, &full());
    assert_eq!((&json["eventName"], &json["eventSource"]), (&"ObjectCreated:Put".into(), &"ceph:s3".into()));
    assert_eq!(json["eventTime"], "2026-02-28T23:59:59.123456Z");
    let object = &json["s3"]["object"];
    assert_eq!(object["key"], "2026/é +%.jpg");
    assert_eq!(object["metadata"], json!([{"key": "x-amz-meta-album", "val": "x"}]));
    assert_eq!(object["tags"], json!([{"key": "class", "val": "public"}]));
    assert_eq!(json["s3"]["bucket"]["arn"], "arn:aws:s3:eu-central-1::photos");
    let event: S3Event = serde_json::from_value(json!({ "Records": [json] })).unwrap();
    assert_eq!(event.records[0].s3.object.e_tag.as_deref(), Some("tag"));
}

#[test]
fn eventbridge_events_are_read_by_a_client_library() {
    let json = write(Profile::EventBridge, &full());
    let event: EventBridgeEvent = serde_json::from_value(json.clone()).unwrap();
    assert_eq!((&*event.detail_type, &*event.source), ("Object Created", "aws.s3"));
    assert_eq!(event.account.as_deref(), Some("111122223333"));
    assert_eq!(event.resources.as_deref(), Some(&["arn:aws:s3:::photos".to_owned()][..]));
    assert_eq!(event.time.map(|t| t.timestamp()), Some((TIME_NS / 1_000_000_000) as i64));
    let detail = &event.detail;
    assert_eq!(detail["object"]["key"], "2026/é +%.jpg");
    assert_eq!((&detail["object"]["size"], &detail["object"]["version-id"]), (&5.into(), &"v1".into()));
    assert_eq!((&detail["reason"], &detail["request-id"]), (&"PutObject".into(), &"req".into()));
    let id = json["id"].as_str().unwrap();
    assert!(id.len() == 36 && id.as_bytes()[14] == b'8' && b"89ab".contains(&id.as_bytes()[19]), "{id}");
    // localstack#11448: consumers rely on these.
    let deleted = write(Profile::EventBridge, &of(KnownType::ObjectRemovedDeleteMarkerCreated));
    assert_eq!(deleted["detail-type"], "Object Deleted");
    assert_eq!(deleted["detail"]["deletion-type"], "Delete Marker Created");
    assert_eq!(deleted["detail"]["object"]["version-id"], "v1");
    let mut moved = of(KnownType::LifecycleTransition);
    moved.data = br#"{"destinationStorageClass":"GLACIER"}"#;
    assert_eq!(write(Profile::EventBridge, &moved)["detail"]["destination-storage-class"], "GLACIER");
}

#[test]
fn gcs_messages_hold_the_object_resource() {
    let json = write(Profile::Gcs, &full());
    let attributes = &json["message"]["attributes"];
    assert!(attributes.as_object().unwrap().values().all(Value::is_string));
    assert_eq!(attributes["eventType"], "OBJECT_FINALIZE");
    assert_eq!((&attributes["bucketId"], &attributes["objectId"]), (&"photos".into(), &"2026/é +%.jpg".into()));
    assert_eq!(attributes["objectGeneration"], (TIME_NS / 1000).to_string());
    assert_eq!(attributes["notificationConfig"], "projects/_/buckets/photos/notificationConfigs/thumbnails");
    let data = json["message"]["data"].as_str().unwrap();
    let data = base64::engine::general_purpose::STANDARD.decode(data).unwrap();
    let object: Value = serde_json::from_slice(&data).unwrap();
    assert_eq!((&object["kind"], &object["size"]), (&"storage#object".into(), &"5".into()));
    assert_eq!((&object["name"], &object["metadata"]), (&"2026/é +%.jpg".into(), &json!({"album": "x"})));
    let mut numbered = of(KnownType::ObjectRemovedDelete);
    numbered.version_id = "1700000000000001";
    let json = write(Profile::Gcs, &numbered);
    assert_eq!(json["message"]["attributes"]["objectGeneration"], "1700000000000001");
    assert_eq!(json["message"]["attributes"]["eventType"], "OBJECT_DELETE");
}

#[test]
fn azure_events_are_of_blobs() {
    let json = write(Profile::Azure, &full());
    assert_eq!(json["subject"], "/blobServices/default/containers/photos/blobs/2026/é +%.jpg");
    assert_eq!(json["eventType"], "Microsoft.Storage.BlobCreated");
    assert_eq!(json["eventTime"], "2026-02-28T23:59:59.1234567Z");
    let data = &json["data"];
    assert_eq!((&data["api"], &data["eTag"]), (&"PutBlob".into(), &"\"tag\"".into()));
    assert_eq!(data["url"], "s3://photos/2026/%C3%A9%20%2B%25.jpg");
    assert_eq!(data["contentLength"], 5);
    assert_eq!(data["sequencer"].as_str().map(str::len), Some(32));
}

#[test]
fn debezium_changes_have_before_and_after() {
    let created = write(Profile::Debezium, &full());
    assert_eq!((&created["op"], &created["before"]), (&"c".into(), &Value::Null));
    assert_eq!((&created["after"]["bucket"], &created["after"]["size"]), (&"photos".into(), &5.into()));
    assert_eq!(created["ts_ms"], TIME_NS / 1_000_000);
    assert_eq!(created["source"]["lsn"].as_str().map(str::len), Some(32));
    let removed = write(Profile::Debezium, &of(KnownType::ObjectRemovedDelete));
    assert_eq!((&removed["op"], &removed["after"]), (&"d".into(), &Value::Null));
    assert_eq!(removed["before"]["key"], "2026/é +%.jpg");
    assert_eq!(write(Profile::Debezium, &of(KnownType::ObjectTaggingPut))["op"], "u");
    let mut overwritten = full();
    overwritten.data = br#"{ "before": {"size": 3} }"#;
    let overwritten = write(Profile::Debezium, &overwritten);
    assert_eq!((&overwritten["op"], &overwritten["before"]), (&"u".into(), &json!({"size": 3})));
    assert!(overwritten["after"].get("data").is_none());
}

/// The table of types: what a system has no form for is not said in its name.
#[test]
fn what_a_profile_has_no_form_for_is_not_expressible() {
    use KnownType::*;
    let cases: &[(Profile, &[KnownType], &[KnownType])] = &[
        (
            Profile::Minio,
            &[ObjectCreatedPut, ObjectRemovedDeleteAllVersions, ObjectAccessedGet, ScannerBigPrefix, ObjectTaggingPut],
            &[ObjectAclPut, IntelligentTiering, ReplicaCreated, BucketCreated, TestEvent, ObjectRestoreDelete],
        ),
        (
            Profile::Ceph,
            &[ObjectCreatedPut, LifecycleExpirationAbortMultipartUpload, ReplicaDeleted],
            &[ObjectTaggingPut, ObjectAccessedGet, ObjectRestorePost, ReplicationFailed],
        ),
        (
            Profile::EventBridge,
            &[ObjectCreatedPost, ObjectAclPut, ObjectTaggingDelete, IntelligentTiering, ObjectRestoreDelete],
            &[ReplicationFailed, ReducedRedundancyLostObject, ObjectAccessedGet, ObjectRemovedDeleteAllVersions],
        ),
        (
            Profile::Gcs,
            &[ObjectCreatedPut, ObjectMetadataPut, LifecycleExpirationDeleteMarkerCreated, ReplicaCreated],
            &[ObjectRestorePost, ObjectAccessedGet, IntelligentTiering, ObjectAnnotationPut],
        ),
        (
            Profile::Azure,
            &[ObjectCreatedPut, ObjectRemovedDelete, ObjectRenamed, ObjectRestorePost, ObjectRestoreCompleted],
            &[ObjectCreatedPost, ObjectRemovedDeleteMarkerCreated, ObjectTaggingPut, ObjectRestoreDelete],
        ),
        (
            Profile::Debezium,
            &[ObjectCreatedPut, ObjectRemovedDelete, ObjectTaggingPut],
            &[ObjectAccessedGet, AccessDeniedRead, BucketCreated, ReplicationFailed, ObjectRemovedNoop],
        ),
    ];
    for (profile, has, lacks) in cases {
        for t in *has {
            assert!(profile.expressible((*t).into()), "{profile} {}", t.name());
        }
        for t in *lacks {
            assert!(!profile.expressible((*t).into()), "{profile} {}", t.name());
        }
        assert!(!profile.expressible(EventType::Custom("acme:Scan")), "{profile}");
        assert!(!profile.expressible(SystemHealthOk.into()), "{profile}");
    }
}
