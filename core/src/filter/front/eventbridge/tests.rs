//! The operators by the examples that AWS publishes for them, and the fields of S3 events.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::error::Error;
use crate::event::{Event, EventType, FrameView, frame};

const S3: PatternOf<'_> = PatternOf::S3 { region: "eu-west-1" };

fn of_data(pattern: &Value, data: &Value) -> bool {
    let filter = Filter::from_event_pattern(pattern, PatternOf::Data).unwrap_or_else(|e| panic!("{pattern}: {e}"));
    let data = data.to_string();
    let mut event = Event::new(KnownType::ObjectCreatedPut.into(), "b", b"k");
    event.data = data.as_bytes();
    filter.matches_frame(FrameView::parse(&frame::encode_to_vec(&event, 1)).unwrap())
}

fn of_s3(pattern: &Value, event: &Event<'_>) -> bool {
    let filter = Filter::from_event_pattern(pattern, S3).unwrap_or_else(|e| panic!("{pattern}: {e}"));
    filter.matches_frame(FrameView::parse(&frame::encode_to_vec(event, 1)).unwrap())
}

#[track_caller]
fn refused_as(pattern: Value, of: PatternOf<'_>, parts: &[&str]) {
    let e: Error = match Filter::from_event_pattern(&pattern, of) {
        Err(e) => e,
        Ok(f) => panic!("{pattern} was read as {f:?}"),
    };
    super::super::tests::refused_with(e, parts);
}

#[test]
fn each_operator_takes_some_values_and_not_others() {
    // Pattern, what it takes, what it does not.
    let cases: Vec<(Value, Vec<Value>, Vec<Value>)> = vec![
        (
            json!({"Location": ["New York"], "Day": ["Monday"]}),
            vec![json!({"Location": "New York", "Day": "Monday"})],
            vec![json!({"Location": "New York", "Day": "Tuesday"}), json!({"Location": "New York"})],
        ),
        (
            json!({"state": ["initializing", "running"]}),
            vec![json!({"state": "running"}), json!({"state": ["x", "running"]})],
            vec![json!({"state": "Running"}), json!({"state": {"state": "running"}}), json!({})],
        ),
        (
            json!({"name": [""]}),
            vec![json!({"name": ""})],
            vec![json!({"name": " "}), json!({"name": null}), json!({})],
        ),
        (
            json!({"id": [null]}),
            vec![json!({"id": null})],
            vec![json!({}), json!({"id": ""}), json!({"id": "null"}), json!({"id": 0})],
        ),
        (json!({"on": [true]}), vec![json!({"on": true})], vec![json!({"on": "true"}), json!({"on": false})]),
        (
            json!({"n": [300]}),
            vec![json!({"n": 300}), json!({"n": 300.0})],
            vec![json!({"n": "300"}), json!({"n": 301})],
        ),
        (
            json!({"Price": [{"numeric": ["=", 100]}]}),
            vec![json!({"Price": 100})],
            vec![json!({"Price": 100.5}), json!({"Price": "100"})],
        ),
        (
            json!({"Price": [{"numeric": [">", 10, "<=", 20]}]}),
            vec![json!({"Price": 10.01}), json!({"Price": 20})],
            vec![json!({"Price": 10}), json!({"Price": 20.1}), json!({"Price": null})],
        ),
        (
            json!({"c-count": [{"numeric": [">", 0, "<=", 5]}], "d-count": [{"numeric": ["<", 10]}], "x-limit": [{"numeric": ["=", 3.018e2]}]}),
            vec![json!({"c-count": 5, "d-count": 9.9, "x-limit": 301.8})],
            vec![json!({"c-count": 0, "d-count": 9.9, "x-limit": 301.8}), json!({"c-count": 5, "d-count": 9.9})],
        ),
        (json!({"a": [{"numeric": [">=", 5]}]}), vec![json!({"a": 5})], vec![json!({"a": 4.999})]),
        (
            json!({"Region": [{"prefix": "us-"}]}),
            vec![json!({"Region": "us-east-1"})],
            vec![json!({"Region": "eu-us-1"}), json!({"Region": "US-east-1"})],
        ),
        (
            json!({"service": [{"prefix": {"equals-ignore-case": "EventB"}}]}),
            vec![json!({"service": "eventbridge"}), json!({"service": "EVENTBridge"})],
            vec![json!({"service": "event-b"})],
        ),
        (
            json!({"FileName": [{"suffix": ".png"}]}),
            vec![json!({"FileName": "a.png"})],
            vec![json!({"FileName": "a.PNG"}), json!({"FileName": "a.png.txt"})],
        ),
        (
            json!({"FileName": [{"suffix": {"equals-ignore-case": ".png"}}]}),
            vec![json!({"FileName": "a.PnG"})],
            vec![json!({"FileName": "a.jpg"})],
        ),
        (
            json!({"detail-type": [{"equals-ignore-case": "ec2 instance state-change notification"}]}),
            vec![json!({"detail-type": "EC2 Instance State-change Notification"})],
            vec![json!({"detail-type": "EC2 Instance State-change"})],
        ),
        (
            json!({"state": [{"anything-but": "initializing"}]}),
            vec![json!({"state": "running"}), json!({"state": 5}), json!({"state": ["initializing", "running"]})],
            vec![json!({"state": "initializing"}), json!({}), json!({"state": ["initializing"]})],
        ),
        (
            json!({"x-limit": [{"anything-but": 123}]}),
            vec![json!({"x-limit": 456}), json!({"x-limit": "123"})],
            vec![json!({"x-limit": 123}), json!({"x-limit": 123.0})],
        ),
        (
            json!({"state": [{"anything-but": ["stopped", "overloaded"]}]}),
            vec![json!({"state": "running"})],
            vec![json!({"state": "stopped"}), json!({"state": "overloaded"})],
        ),
        (
            json!({"x-limit": [{"anything-but": [100, 200, 300]}]}),
            vec![json!({"x-limit": 150})],
            vec![json!({"x-limit": 200})],
        ),
        (
            json!({"state": [{"anything-but": {"equals-ignore-case": "initializing"}}]}),
            vec![json!({"state": "running"})],
            vec![json!({"state": "INITIALIZING"}), json!({})],
        ),
        (
            json!({"state": [{"anything-but": {"equals-ignore-case": ["initializing", "stopped"]}}]}),
            vec![json!({"state": "running"})],
            vec![json!({"state": "Stopped"})],
        ),
        (
            json!({"state": [{"anything-but": {"prefix": "init"}}]}),
            vec![json!({"state": "running"})],
            vec![json!({"state": "initializing"})],
        ),
        (
            json!({"state": [{"anything-but": {"prefix": ["init", "stop"]}}]}),
            vec![json!({"state": "running"})],
            vec![json!({"state": "stopped"})],
        ),
        (
            json!({"FileName": [{"anything-but": {"suffix": [".txt", ".rtf"]}}]}),
            vec![json!({"FileName": "a.png"})],
            vec![json!({"FileName": "a.rtf"})],
        ),
        (
            json!({"FilePath": [{"anything-but": {"wildcard": "*/lib/*"}}]}),
            vec![json!({"FilePath": "/bin/x"})],
            vec![json!({"FilePath": "/usr/lib/x"})],
        ),
        (
            json!({"FilePath": [{"anything-but": {"wildcard": ["*/lib/*", "*/bin/*"]}}]}),
            vec![json!({"FilePath": "/etc/x"})],
            vec![json!({"FilePath": "/usr/bin/x"})],
        ),
        (
            json!({"source-ip": [{"cidr": "10.0.0.0/24"}]}),
            vec![json!({"source-ip": "10.0.0.255"})],
            vec![json!({"source-ip": "10.0.1.0"}), json!({"source-ip": "ten"})],
        ),
        (
            json!({"detail": {"state": [{"exists": true}]}}),
            vec![json!({"detail": {"state": null}}), json!({"detail": {"state": "x"}})],
            vec![json!({"detail": {}}), json!({})],
        ),
        (
            json!({"detail": {"c-count": [{"exists": false}]}}),
            vec![json!({"detail": {}}), json!({}), json!({"detail": {"c-count": {"c1": 100}}})],
            vec![json!({"detail": {"c-count": 100}})],
        ),
        (
            json!({"EventBusArn": [{"wildcard": "arn:aws:events:us-east-1:*:event-bus/*"}]}),
            vec![json!({"EventBusArn": "arn:aws:events:us-east-1:1:event-bus/a/b"})],
            vec![json!({"EventBusArn": "arn:aws:events:us-west-1:1:event-bus/a"})],
        ),
        (
            json!({"path": [{"wildcard": "a\\*b?c\\\\*"}]}),
            vec![json!({"path": "a*b?c\\"}), json!({"path": "a*b?c\\x"})],
            vec![json!({"path": "axb?c\\"}), json!({"path": "a*bxc\\"})],
        ),
        (
            json!({"$or": [{"Location": ["New York"]}, {"Day": ["Monday"]}]}),
            vec![json!({"Location": "New York"}), json!({"Day": "Monday"})],
            vec![json!({"Location": "Boston"})],
        ),
        (
            json!({"detail": {"$or": [
                {"c-count": [{"numeric": [">", 0, "<=", 5]}]},
                {"d-count": [{"numeric": ["<", 10]}]},
                {"x-limit": [{"numeric": ["=", 3.018e2]}]},
            ]}, "source": ["aws"]}),
            vec![json!({"source": "aws", "detail": {"c-count": 9, "x-limit": 301.8}})],
            vec![json!({"source": "aws", "detail": {"c-count": 9}}), json!({"detail": {"c-count": 5}})],
        ),
        (
            json!({"resources": ["a", "b"]}),
            vec![json!({"resources": ["x", "b"]})],
            vec![json!({"resources": ["x"]}), json!({"resources": []})],
        ),
        (json!({"a.b": ["x"]}), vec![json!({"a.b": "x"})], vec![json!({"a": {"b": "x"}})]),
    ];
    for (pattern, good, bad) in cases {
        for data in good {
            assert!(of_data(&pattern, &data), "{pattern} does not take {data}");
        }
        for data in bad {
            assert!(!of_data(&pattern, &data), "{pattern} takes {data}");
        }
    }
}

fn put<'a>() -> Event<'a> {
    let mut e = Event::new(KnownType::ObjectCreatedPut.into(), "amzn-s3-demo-bucket", b"photos/a.jpg");
    (e.size, e.etag, e.version_id) = (Some(5), "b1946ac9", "IYV3p45BT0ac8hjHg1houSdS1a.Mro8e");
    (e.requester, e.source_ip, e.request_id) = ("123456789012", "1.2.3.4", "N4N7GDK58NMKJ12R");
    e.time_ns = 1_636_733_033_500_000_000; // 2021-11-12T16:03:53.5Z
    e
}

#[test]
fn the_fields_of_s3_events() {
    let created = put();
    for pattern in [
        json!({"source": ["aws.s3"], "detail-type": ["Object Created"], "detail": {"bucket": {"name": ["amzn-s3-demo-bucket"]}}}),
        json!({"version": ["0"], "detail": {"version": ["0"]}}),
        json!({"detail": {"object": {"key": [{"prefix": "photos/"}], "size": [{"numeric": [">", 0, "<", 10]}]}}}),
        json!({"detail": {"object": {"size": [5, 6], "etag": ["b1946ac9"], "version-id": [{"prefix": "IYV3"}]}}}),
        json!({"detail": {"object": {"size": [{"anything-but": [6, 7]}]}}}),
        json!({"detail": {"requester": ["123456789012"], "request-id": [{"exists": true}]}}),
        json!({"detail": {"source-ip-address": [{"cidr": "1.2.0.0/16"}], "reason": ["PutObject", "CopyObject"]}}),
        json!({"detail": {"deletion-type": [{"exists": false}]}}),
        json!({"time": [{"prefix": "2021-11-12"}]}),
        json!({"time": ["2021-11-12T16:03:53Z"]}),
        json!({"time": [{"anything-but": {"prefix": "2022"}}]}),
        json!({"region": ["eu-west-1"]}),
        json!({"region": [{"anything-but": {"prefix": "us-"}}]}),
        json!({"region": [{"exists": true}]}),
        json!({"resources": ["arn:aws:s3:::amzn-s3-demo-bucket"]}),
        json!({"resources": [{"prefix": "arn:aws:s3:::amzn-"}]}),
        json!({"resources": [{"prefix": "arn:aws:s3"}]}),
        json!({"resources": [{"suffix": "demo-bucket"}]}),
        json!({"resources": [{"suffix": "::amzn-s3-demo-bucket"}]}),
        json!({"resources": [{"wildcard": "arn:aws:s3:::*-demo-*"}]}),
        json!({"resources": [{"anything-but": "arn:aws:s3:::other"}]}),
        json!({"resources": [{"anything-but": "arn:aws:sqs:::amzn-s3-demo-bucket"}]}),
        json!({"detail-type": [{"suffix": "Created"}, {"suffix": "Deleted"}]}),
        json!({"detail-type": [{"anything-but": {"prefix": "Object Restore"}}]}),
        json!({"$or": [{"detail": {"reason": ["POST Object"]}}, {"detail": {"object": {"key": [{"suffix": {"equals-ignore-case": ".JPG"}}]}}}]}),
    ] {
        assert!(of_s3(&pattern, &created), "{pattern}");
    }
    for pattern in [
        json!({"detail-type": ["Object Deleted"]}),
        json!({"detail": {"bucket": {"name": ["amzn"]}}}),
        json!({"detail": {"object": {"key": [{"prefix": "photo/"}]}}}),
        json!({"detail": {"object": {"size": [{"numeric": [">", 5]}]}}}),
        json!({"detail": {"object": {"size": [{"exists": false}]}}}),
        json!({"detail": {"reason": ["CopyObject"]}}),
        json!({"detail": {"deletion-type": [{"anything-but": "Delete Marker Created"}]}}),
        json!({"time": [{"prefix": "2021-11-13"}]}),
        json!({"time": ["2021-11-12T16:03:54Z"]}),
        json!({"region": ["us-east-1"]}),
        json!({"region": [{"anything-but": "eu-west-1"}]}),
        json!({"resources": ["arn:aws:s3:::amzn"]}),
        json!({"resources": [{"suffix": ":demo-bucket"}]}),
        json!({"resources": [{"anything-but": {"wildcard": "arn:aws:s3:::*demo*"}}]}),
    ] {
        assert!(!of_s3(&pattern, &created), "{pattern}");
    }
    let mut elsewhere = put();
    elsewhere.region = "us-east-1";
    assert!(
        of_s3(&json!({"region": ["us-east-1"]}), &elsewhere) && !of_s3(&json!({"region": ["eu-west-1"]}), &elsewhere)
    );
}

#[test]
fn what_follows_from_the_type_is_decided_over_all_types() {
    // Type, its detail type and its reason, as S3 documents them.
    let cases = [
        (KnownType::ObjectCreatedPost, "Object Created", Some("POST Object")),
        (KnownType::ObjectCreatedCompleteMultipartUpload, "Object Created", Some("CompleteMultipartUpload")),
        (KnownType::ObjectRemovedDelete, "Object Deleted", Some("DeleteObject")),
        (KnownType::LifecycleExpirationDeleteMarkerCreated, "Object Deleted", Some("Lifecycle Expiration")),
        (KnownType::LifecycleTransition, "Object Storage Class Changed", None),
        (KnownType::IntelligentTiering, "Object Access Tier Changed", None),
        (KnownType::ObjectRestorePost, "Object Restore Initiated", None),
        (KnownType::ObjectRestoreCompleted, "Object Restore Completed", None),
        (KnownType::ObjectRestoreDelete, "Object Restore Expired", None),
        (KnownType::ObjectTaggingPut, "Object Tags Added", None),
        (KnownType::ObjectTaggingDelete, "Object Tags Deleted", None),
        (KnownType::ObjectAclPut, "Object ACL Updated", None),
    ];
    for (t, detail_type, reason) in cases {
        let event = Event::new(t.into(), "b", b"k");
        assert!(of_s3(&json!({"source": ["aws.s3"], "detail-type": [detail_type]}), &event), "{t:?}");
        assert!(!of_s3(&json!({"detail-type": [{"anything-but": detail_type}]}), &event), "{t:?}");
        match reason {
            Some(reason) => assert!(of_s3(&json!({"detail": {"reason": [reason]}}), &event)),
            None => assert!(of_s3(&json!({"detail": {"reason": [{"exists": false}]}}), &event)),
        }
    }
    let own = Event::new(EventType::Custom("acme:Scan"), "b", b"k");
    let system = Event::new(KnownType::SystemHealthOk.into(), "", b"");
    for event in [own, system] {
        assert!(!of_s3(&json!({"source": [{"prefix": ""}]}), &event));
        assert!(!of_s3(&json!({"detail-type": [{"anything-but": "Object Created"}]}), &event));
        assert!(of_s3(&json!({"source": [{"exists": false}]}), &event));
    }
    let marker = Event::new(KnownType::ObjectRemovedDeleteMarkerCreated.into(), "b", b"k");
    assert!(of_s3(&json!({"detail": {"deletion-type": ["Delete Marker Created"]}}), &marker));
    assert!(!of_s3(&json!({"detail": {"deletion-type": ["Permanently Deleted"]}}), &marker));
    let mut moved = Event::new(KnownType::LifecycleTransition.into(), "b", b"k");
    moved.data = br#"{"destinationStorageClass": "GLACIER"}"#;
    assert!(of_s3(&json!({"detail": {"destination-storage-class": ["GLACIER", "DEEP_ARCHIVE"]}}), &moved));
    assert!(!of_s3(&json!({"detail": {"destination-storage-class": ["DEEP_ARCHIVE"]}}), &moved));
}

#[test]
fn what_is_no_pattern_is_refused_with_its_place() {
    let data = PatternOf::Data;
    refused_as(json!([]), data, &["pattern", "a list, not an object"]);
    refused_as(json!({}), data, &["pattern", "empty"]);
    refused_as(json!({"detail": {}}), data, &["pattern.detail", "empty"]);
    refused_as(json!({"source": "aws.s3"}), data, &["pattern.source", "a string, not a list", "brackets"]);
    refused_as(json!({"source": []}), data, &["pattern.source", "empty"]);
    refused_as(json!({"source": [["a"]]}), data, &["pattern.source[0]", "a list"]);
    refused_as(json!({"a": [{"prefix": 5}]}), data, &["pattern.a[0].prefix", "not a string"]);
    refused_as(json!({"a": [{"prefx": "b"}]}), data, &["pattern.a[0].prefx", "did you mean `prefix`?"]);
    refused_as(json!({"a": [{}]}), data, &["pattern.a[0]", "missing"]);
    refused_as(json!({"a": [{"prefix": "x", "suffix": "y"}]}), data, &["pattern.a[0]", "several operators"]);
    refused_as(json!({"a": [{"numeric": ["!=", 5]}]}), data, &["pattern.a[0].numeric[0]", "anything-but"]);
    refused_as(json!({"a": [{"numeric": ["=", 5, "<", 6]}]}), data, &["pattern.a[0].numeric[0]", "no comparison"]);
    refused_as(json!({"a": [{"numeric": [">", 5, ">=", 6]}]}), data, &["pattern.a[0].numeric[2]", "twice"]);
    refused_as(json!({"a": [{"numeric": [">", 5, "<", 5]}]}), data, &["pattern.a[0].numeric", "no number"]);
    refused_as(json!({"a": [{"numeric": [">", "5"]}]}), data, &["pattern.a[0].numeric[1]", "a string, not a number"]);
    refused_as(json!({"a": [{"numeric": [">"]}]}), data, &["pattern.a[0].numeric", "one or two"]);
    refused_as(json!({"a": [{"cidr": "10.0.0"}]}), data, &["pattern.a[0].cidr", "no network"]);
    refused_as(json!({"a": [{"exists": "true"}]}), data, &["pattern.a[0].exists", "true or false"]);
    refused_as(json!({"a": [{"wildcard": "a\\b"}]}), data, &["pattern.a[0].wildcard", "backslash"]);
    refused_as(json!({"a": [{"wildcard": "a\\"}]}), data, &["pattern.a[0].wildcard", "backslash"]);
    refused_as(json!({"a": [{"anything-but": []}]}), data, &["pattern.a[0].anything-but", "empty"]);
    refused_as(json!({"a": [{"anything-but": [null]}]}), data, &["pattern.a[0].anything-but[0]", "null"]);
    refused_as(json!({"a": [{"anything-but": {"exists": true}}]}), data, &["pattern.a[0].anything-but.exists"]);
    refused_as(json!({"a": [{"anything-but": {"prefix": {}}}]}), data, &["pattern.a[0].anything-but.prefix"]);
    refused_as(json!({"$or": {"a": ["b"]}}), data, &["pattern.$or", "no list"]);
    refused_as(json!({"$or": []}), data, &["pattern.$or", "no list"]);
    refused_as(json!({"$or": [{"a": ["b"]}, {}]}), data, &["pattern.$or[1]", "empty"]);
    let deep = (0..50).fold(json!(["x"]), |v, _| json!({"a": v}));
    refused_as(deep, data, &["more than 32 deep"]);
    refused_as(json!({"a": vec!["x"; 300]}), data, &["pattern.a[", "more than 256"]);
}

#[test]
fn what_an_s3_event_does_not_have_is_refused_naming_the_nearest() {
    refused_as(json!({"detial-type": ["Object Created"]}), S3, &["unknown field", "did you mean `detail-type`?"]);
    refused_as(
        json!({"detail": {"object": {"kye": ["a"]}}}),
        S3,
        &["pattern.detail.object.kye", "`detail.object.kye`", "did you mean `detail.object.key`?"],
    );
    refused_as(json!({"detail": {"object.key": ["a"]}}), S3, &["pattern.detail[\"object.key\"]"]);
    refused_as(json!({"id": ["a"]}), S3, &["pattern.id", "after rules were matched"]);
    refused_as(json!({"detail": {"object": {"sequencer": ["a"]}}}), S3, &["after rules were matched"]);
    refused_as(
        json!({"detail-type": ["Object Creatd"]}),
        S3,
        &["pattern.detail-type", "no event meets", "Object Created"],
    );
    refused_as(json!({"source": ["aws.ec2"]}), S3, &["pattern.source", "`aws.s3`"]);
    refused_as(json!({"version": ["1"]}), S3, &["pattern.version", "no event meets", "`0`"]);
    refused_as(json!({"region": [{"exists": false}]}), S3, &["pattern.region", "no event meets"]);
    refused_as(json!({"time": [{"suffix": "Z"}]}), S3, &["pattern.time", "not understood"]);
    refused_as(json!({"resources": ["arn:aws:sqs:::b"]}), S3, &["pattern.resources", "no event meets"]);
    refused_as(json!({"resources": [{"wildcard": "*bucket"}]}), S3, &["pattern.resources", "detail.bucket.name"]);
    refused_as(
        json!({"detail": {"object": {"size": ["5"]}}}),
        S3,
        &["pattern.detail.object.size[0]", "without quotes"],
    );
    refused_as(json!({"detail": {"object": {"size": [{"prefix": "5"}]}}}), S3, &["does not suit a number"]);
    refused_as(json!({"detail": {"object": {"key": [5]}}}), S3, &["pattern.detail.object.key[0]", "double quotes"]);
    refused_as(json!({"detail": {"object": {"key": [{"numeric": ["=", 5]}]}}}), S3, &["does not suit a text"]);
}

proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(text in "\\PC{0,60}", at in 0usize..1000, cut in 0usize..6) {
        let good = r#"{"detail":{"object":{"key":[{"prefix":"a"},{"anything-but":{"wildcard":["*b"]}}],"size":[{"numeric":[">",0]}]}},"$or":[{"time":[{"prefix":"2024-01"}]},{"resources":[{"suffix":":b"}]}]}"#;
        let at = at % good.len();
        let end = (at + cut).min(good.len());
        for of in [S3, PatternOf::Data] {
            let _ = Filter::parse_event_pattern(&text, of);
            let _ = Filter::parse_event_pattern(&[&good[..at], &text, &good[end..]].concat(), of);
        }
    }
}
