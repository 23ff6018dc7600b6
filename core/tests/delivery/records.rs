//! Records as consumers see them: golden documents, and keys read back with a client library's types.

use std::path::Path;

use aws_lambda_events::event::s3::S3Event;
use bytes::BytesMut;
use percent_encoding::percent_decode_str;
use proptest::prelude::*;
use serde_json::Value;
use tidewire::event::frame::{self, FrameView};
use tidewire::event::profile::{Profile, RecordContext};
use tidewire::event::{EventId, Sequencer, ingest};
use tidewire::{Event, EventType, KnownType, Origin};

/// 2026-02-28T23:59:59.123456789Z.
const TIME_NS: u64 = 1_772_323_199_123_456_789;
const ID: EventId = EventId { incarnation: 0xFEED_0000_0000_0001, shard: 2, sequence: 255 };
const ID_TEXT: &str = "FEED000000000001-0002-00000000000000FF";

fn context() -> RecordContext<'static> {
    RecordContext {
        id: ID,
        sequencer: Sequencer { clock_ns: TIME_NS, tie: 1, writer: 0xABCD },
        rule: "thumbnails",
        region: "eu-central-1",
        event_source: "",
    }
}

fn write(profile: Profile, e: &Event<'_>, cx: &RecordContext<'_>) -> String {
    let bytes = frame::encode_to_vec(e, TIME_NS);
    let view = FrameView::parse(&bytes).expect("a frame just encoded");
    let mut out = BytesMut::from(&b"before"[..]);
    profile.write_record(&view, cx, &mut out);
    let text = String::from_utf8(out.to_vec()).expect("records are UTF-8");
    text.strip_prefix("before").expect("records are appended").to_owned()
}

/// A document of one record.
fn document(profile: Profile, e: &Event<'_>) -> String {
    let part = |bytes: &'static [u8]| std::str::from_utf8(bytes).expect("ASCII");
    part(profile.batch_head()).to_owned() + &write(profile, e, &context()) + part(profile.batch_tail())
}

fn json(profile: Profile, e: &Event<'_>) -> Value {
    let text = write(profile, e, &context());
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

fn put<'a>(key: &'a [u8]) -> Event<'a> {
    Event::new(KnownType::ObjectCreatedPut.into(), "photos", key)
}

fn of(t: KnownType, data: &str) -> Value {
    let mut e = put(b"k");
    e.event_type = t.into();
    e.data = data.as_bytes();
    json(Profile::Aws, &e)
}

/// As a consumer decodes a key: with another implementation than ours.
fn decoded(key: &str) -> Vec<u8> {
    percent_decode_str(&key.replace('+', " ")).collect()
}

/// Compares with a golden file. To accept a wanted change, run with `TIDEWIRE_WRITE_GOLDEN=1` and read the difference.
fn golden(name: &str, e: &Event<'_>) {
    for profile in Profile::ALL.iter().filter(|p| p.expressible(e.event_type)) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/{name}.{}.json", profile.name()));
        let now = document(*profile, e) + "\n";
        if std::env::var_os("TIDEWIRE_WRITE_GOLDEN").is_some() {
            std::fs::write(&path, &now).expect("the directory is writable");
        }
        let golden = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        assert_eq!(now, golden, "{}", path.display());
    }
}

#[test]
fn golden_put() {
    let mut e = put(b"2026/red flower+1.jpg");
    e.size = Some(0);
    e.etag = "d41d8cd98f00b204e9800998ecf8427e";
    e.version_id = "096fKKXTRTtl3on89fVO.nfljtsv6qko";
    e.requester = "AWS:AIDAJDPLRKLG7UEXAMPLE";
    e.source_ip = "192.0.2.7";
    e.request_id = "C3D13FE58DE4C810";
    e.host_id = "FMyUVURIY8/IgAtTv8xRjskZQpcIZ9KG4V5Wp6S7S/JRWeUWerMUE5JgHvANOjpD";
    e.region = "eu-west-3";
    e.bucket_owner = "A3NL1KOZZKExample";
    e.content_type = "image/jpeg";
    e.metadata = &[("album", "Été \"26\""), ("n", "")];
    e.tags = &[("class", "public")];
    golden("put", &e);
}

#[test]
fn golden_delete() {
    let mut e = put(b"old.bin");
    e.event_type = KnownType::ObjectRemovedDelete.into();
    e.size = Some(77);
    golden("delete", &e);
}

#[test]
fn golden_restore_completed() {
    let mut e = put(b"archive.tar");
    e.event_type = KnownType::ObjectRestoreCompleted.into();
    e.size = Some(1_099_511_627_776);
    e.data =
        br#"{"lifecycleRestoreStorageClass": "GLACIER", "lifecycleRestorationExpiryTime": "2026-03-07T00:00:00.000Z"}"#;
    golden("restore-completed", &e);
}

#[test]
fn golden_transition() {
    let mut e = put(b"cold.log");
    e.event_type = KnownType::LifecycleTransition.into();
    e.origin = Origin::Lifecycle;
    e.data = br#"{"destinationStorageClass":"GLACIER"}"#;
    golden("transition", &e);
}

#[test]
fn golden_replication() {
    let mut e = put(b"a.txt");
    e.event_type = KnownType::ReplicationFailed.into();
    e.data = br#"{"replicationRuleId":"to-\u0062ackup","destinationBucket":"arn:aws:s3:::backup",
        "s3Operation":"OBJECT_PUT","requestTime":"2026-02-28T23:00:00.000Z","failureReason":"AssumeRoleNotPermitted",
        "threshold":"15","more":"is not of this type"}"#;
    golden("replication", &e);
}

#[test]
fn golden_bucket_and_system() {
    let mut e = Event::new(KnownType::ConfigurationPolicyPut.into(), "photos", b"");
    e.data = b"{ \"document\" : {\"Version\": \"2012-10-17\"} }";
    let json = json(Profile::CloudEvents, &e);
    assert_eq!(json["type"], "dev.tidewire.Configuration:Policy:Put");
    assert_eq!(json["data"], serde_json::json!({"bucket": "photos", "data": {"document": {"Version": "2012-10-17"}}}));
    assert!(json.get("subject").is_none());
    assert_eq!(json["partitionkey"], "photos");
    let system = Event::new(KnownType::SystemHealthOk.into(), "", b"");
    let json = self::json(Profile::CloudEvents, &system);
    assert_eq!((json["source"].as_str(), &json["data"]), (Some("aws:s3.eu-central-1"), &serde_json::json!({})));
    assert!(json.get("partitionkey").is_none());
}

#[test]
fn keys_read_back_by_a_client_library() {
    let long = vec![b'%'; 1024];
    let vectors: &[(&[u8], Option<&str>)] = &[
        (b"red flower.jpg", Some("red+flower.jpg")),
        (b"a+b", Some("a%2Bb")),
        (b"dir/x", Some("dir/x")),
        (b"k=v:1", Some("k%3Dv%3A1")),
        ("é".as_bytes(), Some("%C3%A9")),
        (b"100%", Some("100%25")),
        (b"a\0b", Some("a%00b")),
        (b"line\nbreak", Some("line%0Abreak")),
        (b"\xff\xc3", Some("%FF%C3")),
        ("🎉".as_bytes(), Some("%F0%9F%8E%89")),
        (b"\"quote\\", Some("%22quote%5C")),
        (b"//", Some("//")),
        (b" ", Some("+")),
        (&long, None),
        (&[0xFF; 1024], None),
    ];
    for (key, expected) in vectors {
        let event: S3Event = serde_json::from_str(&document(Profile::Aws, &put(key))).expect("the library reads it");
        let encoded = event.records[0].s3.object.key.as_deref().expect("a key");
        if let Some(expected) = expected {
            assert_eq!(encoded, *expected);
        }
        assert_eq!(decoded(encoded), *key, "{encoded}");
    }
}

#[test]
fn a_client_library_finds_every_field() {
    let mut e = put(b"k");
    e.size = Some(5);
    (e.etag, e.version_id, e.requester, e.source_ip) = ("tag", "v", "AWS:me", "::1");
    (e.request_id, e.host_id, e.bucket_owner) = ("req", "host", "owner");
    let event: S3Event = serde_json::from_str(&document(Profile::Aws, &e)).expect("the library reads it");
    let r = &event.records[0];
    assert_eq!(r.event_version.as_deref(), Some("2.4"));
    assert_eq!(r.event_source.as_deref(), Some("aws:s3"));
    assert_eq!(r.aws_region.as_deref(), Some("eu-central-1"));
    assert_eq!(r.event_time.timestamp_millis(), (TIME_NS / 1_000_000) as i64);
    assert_eq!(r.event_name.as_deref(), Some("ObjectCreated:Put"));
    assert_eq!(r.principal_id.principal_id.as_deref(), Some("AWS:me"));
    assert_eq!(r.request_parameters.source_ip_address.as_deref(), Some("::1"));
    assert_eq!(r.response_elements.get("x-amz-request-id").map(String::as_str), Some("req"));
    assert_eq!(r.response_elements.get("x-amz-id-2").map(String::as_str), Some("host"));
    assert_eq!(r.s3.schema_version.as_deref(), Some("1.0"));
    assert_eq!(r.s3.configuration_id.as_deref(), Some("thumbnails"));
    assert_eq!(r.s3.bucket.name.as_deref(), Some("photos"));
    assert_eq!(r.s3.bucket.arn.as_deref(), Some("arn:aws:s3:::photos"));
    assert_eq!(r.s3.bucket.owner_identity.as_ref().and_then(|o| o.principal_id.as_deref()), Some("owner"));
    assert_eq!((r.s3.object.size, r.s3.object.e_tag.as_deref()), (Some(5), Some("tag")));
    assert_eq!(r.s3.object.version_id.as_deref(), Some("v"));
    assert_eq!(r.s3.object.sequencer.as_deref(), Some(&*context().sequencer.to_string()));
}

#[test]
fn several_records_make_one_document() {
    for profile in Profile::ALL.iter().filter(|p| !p.is_single()) {
        let record = write(*profile, &put(b"k"), &context());
        let parts =
            [profile.batch_head(), record.as_bytes(), profile.separator(), record.as_bytes(), profile.batch_tail()];
        let json: Value = serde_json::from_slice(&parts.concat()).expect("valid JSON");
        let list = json.get("Records").unwrap_or(&json);
        assert_eq!(list.as_array().map(Vec::len), Some(2));
        assert!(!record.contains('\n'), "a record is one line");
    }
}

#[test]
fn trace_ids_stand_in_and_never_repeat() {
    let json = json(Profile::Aws, &put(b"k"));
    assert_eq!(json["responseElements"]["x-amz-request-id"], ID_TEXT);
    assert_eq!(json["responseElements"]["x-amz-id-2"], ID_TEXT);
    assert_eq!(json["eventId"], ID_TEXT);
    assert_eq!(self::json(Profile::CloudEvents, &put(b"k"))["id"], ID_TEXT);
}

#[test]
fn absent_fields_are_left_out() {
    let json = json(Profile::Aws, &put(b"k"));
    let names = |v: &Value| v.as_object().expect("an object").keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&json["s3"]["object"]), ["key", "sequencer"]);
    assert_eq!(
        names(&json),
        [
            "awsRegion",
            "eventId",
            "eventName",
            "eventSource",
            "eventTime",
            "eventVersion",
            "requestParameters",
            "responseElements",
            "s3",
            "userIdentity"
        ]
    );
    assert_eq!(
        (&json["userIdentity"]["principalId"], &json["requestParameters"]["sourceIPAddress"]),
        (&"".into(), &"".into())
    );
}

#[test]
fn which_types_have_size_and_sequencer() {
    for t in KnownType::ALL.iter().copied().filter(|t| Profile::Aws.expressible((*t).into())) {
        let mut e = put(b"k");
        e.event_type = t.into();
        e.size = Some(1);
        let object = &json(Profile::Aws, &e)["s3"]["object"];
        let name = t.record_name();
        let removal =
            ["ObjectRemoved:", "LifecycleExpiration:", "ObjectSynced:Del"].iter().any(|f| name.starts_with(f));
        let creation = ["ObjectCreated:", "ObjectSynced:Create", "ObjectRenamed"].iter().any(|f| name.starts_with(f));
        assert_eq!(object.get("size").is_some(), !removal, "{name}");
        assert_eq!(object.get("sequencer").is_some(), removal || creation, "{name}");
    }
}

#[test]
fn the_store_itself_is_named_as_s3_names_it() {
    let mut e = put(b"k");
    e.event_type = KnownType::LifecycleExpirationDelete.into();
    e.origin = Origin::Lifecycle;
    let json = json(Profile::Aws, &e);
    assert_eq!(json["userIdentity"]["principalId"], "s3.amazonaws.com");
    assert_eq!(json["requestParameters"]["sourceIPAddress"], "s3.amazonaws.com");
    assert_eq!(json["eventName"], "LifecycleExpiration:Delete");
}

/// Every type whose block S3 defines, with data made from its documented schema.
#[test]
fn blocks_hold_what_the_schema_says() {
    let mut blocks = 0;
    for t in KnownType::ALL.iter().copied().filter(|t| Profile::Aws.expressible((*t).into())) {
        let Some(schema) = t.data_schema().filter(|s| !s.contains("number")) else { continue };
        let data = schema.replace(": string", ": \"x\"");
        let json = of(t, &data);
        let path = match t.record_name().split(':').next() {
            Some("ObjectRestore") => "/glacierEventData/restoreEventData",
            Some("LifecycleTransition" | "ObjectTransition") => "/lifecycleEventData/transitionEventData",
            Some("IntelligentTiering") => "/intelligentTieringEventData",
            Some("Replication") => "/replicationEventData",
            _ => "/data",
        };
        let expected: Value = serde_json::from_str(&data).expect("the schema is an object");
        assert_eq!(json.pointer(path), Some(&expected), "{}", t.name());
        blocks += 1;
    }
    assert_eq!(blocks, 10);
}

#[test]
fn data_that_is_not_as_documented_is_left_out() {
    let plain = of(KnownType::LifecycleTransition, "");
    for data in
        ["{", "7", "[]", "{}", r#"{"destinationStorageClass":7}"#, r#"{"other":"x"}"#, "\"x\"", "{} {}", "\u{0}"]
    {
        assert_eq!(of(KnownType::LifecycleTransition, data), plain, "{data}");
    }
    let plain = of(KnownType::ObjectCreatedPut, "");
    for data in ["{", "{}}", "\"\\ud800\"", "nul", "1e999", "}, \"eventName\":\"forged\""] {
        assert_eq!(of(KnownType::ObjectCreatedPut, data), plain, "{data}");
    }
    assert_eq!(of(KnownType::ObjectCreatedPut, "{\n \"a\": 1 }")["data"], serde_json::json!({"a": 1}));
}

#[test]
fn attributes_of_cloudevents_are_legal() {
    for (key, subject) in [
        (&b"a b+%"[..], "a b+%"),
        ("é🎉".as_bytes(), "é🎉"),
        (b"a\r\nb", "a%0D%0Ab"),
        ("a\u{85}".as_bytes(), "a%C2%85"),
        ("\u{FFFE}".as_bytes(), "%EF%BF%BE"),
        (b"\xff", "%FF"),
    ] {
        let json = json(Profile::CloudEvents, &put(key));
        assert_eq!(json["subject"], subject);
        assert_eq!(json["partitionkey"], format!("photos/{subject}"));
        assert_eq!(decoded(json["data"]["s3"]["object"]["key"].as_str().expect("a key")), key);
    }
    let odd = Event::new(KnownType::ObjectCreatedPut.into(), "my bücket\n", b"k");
    let json = json(Profile::CloudEvents, &odd);
    assert_eq!(json["source"], "aws:s3.eu-central-1.my%20b%C3%BCcket%0A");
    assert_eq!(json["data"]["s3"]["bucket"]["name"], "my bücket\n");
    let cx = RecordContext { event_source: "my \"src\"", region: "", ..context() };
    let text = write(Profile::CloudEvents, &put(b"k"), &cx);
    let json: Value = serde_json::from_str(&text).expect("valid JSON");
    assert_eq!(json["source"], "my%20%22src%22..photos");
    assert_eq!(json["data"]["eventSource"], "my \"src\"");
}

#[test]
fn cloudevents_name_types_by_origin() {
    for t in KnownType::ALL {
        let e = Event::new((*t).into(), "b", b"k");
        let expected = match t.name().strip_prefix("s3:") {
            Some(name) => format!("com.amazonaws.s3.{name}"),
            None => format!("dev.tidewire.{}", t.name()),
        };
        assert_eq!(json(Profile::CloudEvents, &e)["type"], expected);
    }
    let e = Event::new(EventType::Custom("acme:Scan:Clean"), "b", b"\xff");
    let json = json(Profile::CloudEvents, &e);
    assert_eq!(json["type"], "dev.tidewire.acme:Scan:Clean");
    assert_eq!(json["data"], serde_json::json!({"bucket": "b", "key_base64": "/w=="}));
}

/// What one Tidewire writes, another reads: the same event, but for what a record does not hold.
#[test]
fn records_are_read_back_by_ingest() {
    for profile in &[Profile::Aws, Profile::CloudEvents, Profile::CloudEventsStructured] {
        for t in KnownType::ALL.iter().copied().filter(|t| profile.expressible((*t).into())) {
            let data =
                t.data_schema().map(|s| s.replace("string", "\"x\"").replace("number", "1").replace("any", "{}"));
            let mut e = Event::new(t.into(), "b", b"dir/a +%\xff");
            e.time_ns = TIME_NS;
            let data = data.unwrap_or_default().replace(": ", ":").replace(", ", ",");
            e.data = data.as_bytes();
            let mut body = document(*profile, &e).into_bytes();
            let mut seen = 0;
            let count = ingest::parse(&mut body, profile.content_type(), &mut |r| {
                seen += 1;
                assert_eq!((r.event_type, r.bucket, r.key), (e.event_type, e.bucket, e.key));
                assert_eq!(r.time_ns, TIME_NS / 1_000_000 * 1_000_000);
                assert_eq!(String::from_utf8_lossy(r.data), data, "{}", t.name());
                Ok(())
            });
            assert_eq!((count.ok(), seen), (Some(1), 1), "{} {}", profile.name(), t.name());
        }
    }
}

proptest! {
    #[test]
    fn every_record_is_valid_json_and_keeps_its_key(
        key in proptest::collection::vec(any::<u8>(), 1..60),
        texts in proptest::collection::vec(any::<String>(), 12),
        data in prop_oneof![any::<String>(), "[{}\\[\\]\",:a1 \\\\u]{0,20}"],
        t in proptest::sample::select(KnownType::ALL),
        time_ns: u64,
        size: Option<u64>,
    ) {
        let pairs = [(&*texts[0], &*texts[1]), (&*texts[2], &*texts[3])];
        let mut e = Event::new(t.into(), &texts[4], &key);
        (e.time_ns, e.size, e.data) = (time_ns, size, data.as_bytes());
        (e.etag, e.requester, e.source_ip, e.region) = (&texts[5], &texts[6], &texts[7], &texts[8]);
        (e.request_id, e.content_type, e.metadata, e.tags) = (&texts[9], &texts[10], &pairs, &pairs[..1]);
        let cx = RecordContext { rule: &texts[11], region: &texts[0], event_source: &texts[1], ..context() };
        for profile in Profile::ALL {
            let text = write(*profile, &e, &cx);
            let json: Value = serde_json::from_str(&text).map_err(|e| TestCaseError::fail(format!("{e}: {text}")))?;
            let breaks = text.contains(['\n', '\u{2028}', '\u{2029}']);
            prop_assert!(!breaks, "a record is one line");
            let kept: &[(Profile, &str)] = &[
                (Profile::Minio, "/Records/0/s3/object/key"),
                (Profile::Ceph, "/s3/object/keyEncoded"),
                (Profile::EventBridge, "/detail/key-encoded"),
                (Profile::Gcs, "/message/attributes/keyEncoded"),
                (Profile::Azure, "/data/url"),
                (Profile::Debezium, if json["op"] == "d" { "/before/key_encoded" } else { "/after/key_encoded" }),
            ];
            if let Some((_, path)) = kept.iter().find(|(p, _)| p == profile) {
                // Where the key is raw, its encoded form stands beside it if it is not UTF-8.
                let raw = std::str::from_utf8(&key).ok().filter(|_| !matches!(profile, Profile::Minio | Profile::Azure));
                match (raw, json.pointer(path).and_then(Value::as_str)) {
                    (Some(raw), None) => prop_assert!(
                        ["/s3/object/key", "/detail/object/key", "/message/attributes/objectId", "/before/key", "/after/key"]
                            .iter().any(|p| json.pointer(p).and_then(Value::as_str) == Some(raw)), "{}", text),
                    (None, Some(url)) if *profile == Profile::Azure => {
                        let path = url.strip_prefix("s3://").and_then(|u| u.split_once('/')).map(|(_, path)| path);
                        prop_assert_eq!(percent_decode_str(path.unwrap_or_default()).collect::<Vec<u8>>(), &*key);
                    }
                    (None, Some(encoded)) => prop_assert_eq!(decoded(encoded), &*key),
                    _ => prop_assert!(false, "{}", text),
                }
                continue;
            }
            let record = if *profile == Profile::Aws { &json } else { &json["data"] };
            if let Some(encoded) = record.pointer("/s3/object/key").and_then(Value::as_str) {
                prop_assert_eq!(decoded(encoded), &*key);
                prop_assert_eq!(&record["s3"]["bucket"]["name"], &texts[4]);
                prop_assert_eq!(&record["s3"]["configurationId"], &texts[11]);
            } else {
                prop_assert!(*profile != Profile::Aws, "the record has a key");
            }
        }
    }
}
