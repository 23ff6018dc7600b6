use super::*;
use crate::error::ErrorKind;
use crate::event::{EventType, KnownType, Origin, Priority};

const JSON: &str = "application/json";

/// An event with everything owned, for comparison.
#[derive(Debug, PartialEq)]
struct Seen {
    name: String,
    bucket: String,
    key: Vec<u8>,
    debug: String,
    data: String,
}

fn try_read(body: &[u8], content_type: &str) -> Result<Vec<Seen>> {
    let mut seen = Vec::new();
    let count = parse(&mut body.to_vec(), content_type, &mut |e| {
        seen.push(Seen {
            name: e.event_type.name().to_owned(),
            bucket: e.bucket.to_owned(),
            key: e.key.to_vec(),
            debug: format!("{:?}", Event { event_type: EventType::default(), bucket: "", key: b"", data: b"", ..*e }),
            data: String::from_utf8(e.data.to_vec()).expect("JSON is UTF-8"),
        });
        Ok(())
    });
    match count {
        Ok(count) => {
            assert_eq!(count, seen.len());
            Ok(seen)
        }
        Err(e) => {
            assert!(seen.is_empty(), "a bad document must publish nothing, but did: {seen:?}");
            Err(e)
        }
    }
}

fn read_all(body: &str, content_type: &str) -> Vec<Seen> {
    try_read(body.as_bytes(), content_type).unwrap_or_else(|e| panic!("{e}: {body}"))
}

/// The error for a body, as its text.
fn refused(body: &str, content_type: &str) -> String {
    let e = try_read(body.as_bytes(), content_type).expect_err(body);
    assert_eq!(e.kind(), ErrorKind::InvalidEvent);
    assert!(e.remedy_text().is_some() || e.place().is_some(), "{e}");
    e.to_string()
}

fn record(key: &str) -> String {
    format!(r#"{{"eventName":"ObjectCreated:Put","s3":{{"bucket":{{"name":"b"}},"object":{{"key":"{key}"}}}}}}"#)
}

fn records(list: &[&str]) -> String {
    format!("{{\"Records\":[{}]}}", list.join(","))
}

#[test]
fn formats_are_told_by_media_type_or_body() {
    for (body, content_type, format) in [
        ("", "application/cloudevents+json; charset=utf-8", Format::CloudEvents),
        ("", "Application/CloudEvents-Batch+JSON", Format::CloudEventsBatch),
        (r#"{"Records":[]}"#, "application/x-ndjson", Format::Ndjson),
        (r#"{"Records":[]}"#, JSON, Format::S3Records),
        (r#"{"a":{"specversion":1},"Records":[]}"#, "", Format::S3Records),
        (r#"{"EventName":"s3:ObjectCreated:Put","Key":"b/k","Records":[]}"#, "text/plain", Format::S3Records),
        (r#" {"Service":"Amazon S3","Event":"s3:TestEvent"}"#, JSON, Format::S3Records),
        (r#"{"id":"\"specversion","specversion":"1.0"}"#, JSON, Format::CloudEvents),
        (" [{}]", JSON, Format::CloudEventsBatch),
        (r#"{"type":"Records","key":"specversion"}"#, JSON, Format::Ndjson),
        (r#"{"type":"x"} {"Records":1}"#, JSON, Format::Ndjson),
        ("", "", Format::Ndjson),
        ("{\"", "", Format::Ndjson),
        ("{\"a\\", "", Format::Ndjson),
    ] {
        assert_eq!(Format::detect(body.as_bytes(), content_type), format, "{body} as {content_type}");
    }
}

#[test]
fn a_record_of_s3_is_read_in_full() {
    let body = r#"{"Records":[{"eventVersion":"2.1","eventSource":"aws:s3","awsRegion":"us-west-2",
        "eventTime":"1970-01-01T00:00:01.500Z","eventName":"ObjectCreated:Put","userIdentity":{"principalId":"AIDA"},
        "requestParameters":{"sourceIPAddress":"127.0.0.1"},
        "responseElements":{"x-amz-request-id":"C3D1","x-amz-id-2":"FMy"},
        "s3":{"s3SchemaVersion":"1.0","configurationId":"cfg","bucket":{"name":"mybucket",
        "ownerIdentity":{"principalId":"A3NL"},"arn":"arn:aws:s3:::mybucket"},
        "object":{"key":"Happy+Face.jpg","size":1024,"eTag":"\"d41d\"","versionId":"096f","sequencer":"0055",
        "contentType":"image/jpeg","userMetadata":{"X-Amz-Meta-A":"1","content-type":"x"},"tags":{"t":"é"}}},
        "source":{"userAgent":"agent"}}]}"#;
    let mut body = body.as_bytes().to_vec();
    let count = parse(&mut body, JSON, &mut |e| {
        assert_eq!(e.event_type, KnownType::ObjectCreatedPut.into());
        assert_eq!(
            (e.time_ns, e.bucket, e.key, e.size),
            (1_500_000_000, "mybucket", &b"Happy Face.jpg"[..], Some(1024))
        );
        assert_eq!((e.version_id, e.etag, e.requester, e.source_ip), ("096f", "d41d", "AIDA", "127.0.0.1"));
        assert_eq!((e.request_id, e.host_id, e.region, e.bucket_owner), ("C3D1", "FMy", "us-west-2", "A3NL"));
        assert_eq!((e.content_type, e.user_agent), ("image/jpeg", "agent"));
        assert_eq!((e.metadata, e.tags), (&[("A", "1"), ("content-type", "x")][..], &[("t", "é")][..]));
        assert_eq!((e.data, e.origin, e.priority), (&b""[..], Origin::User, Priority::Normal));
        Ok(())
    });
    assert_eq!(count.ok(), Some(1));
}

#[test]
fn keys_of_records_are_decoded() {
    for (text, key) in [
        ("red+flower.jpg", &b"red flower.jpg"[..]),
        ("a%2Bb", b"a+b"),
        ("dir/x", b"dir/x"),
        ("dir%2fx", b"dir/x"),
        ("k%3Dv%3A1", b"k=v:1"),
        ("%C3%A9", "é".as_bytes()),
        ("é", "é".as_bytes()),
        ("%FF%00%0a", b"\xff\0\n"),
        ("100%25", b"100%"),
    ] {
        assert_eq!(read_all(&records(&[&record(text)]), JSON)[0].key, key, "{text}");
    }
    for bad in ["100%", "%zz", "a%4", "%é9"] {
        let e = refused(&records(&[&record("good"), &record(bad)]), JSON);
        assert!(e.starts_with("Records[1]: s3.object.key: "), "{e}");
    }
    let raw = record("a+b%20c").replacen('{', r#"{"eventSource":"ceph:s3","#, 1);
    assert_eq!(read_all(&records(&[&raw]), JSON)[0].key, b"a+b%20c");
}

#[test]
fn names_of_peers_and_wrappers_are_taken() {
    let with_prefix = record("k").replace("ObjectCreated", "s3:ObjectCreated");
    let body = format!(r#"{{"EventName":"s3:ObjectCreated:Put","Key":"b/k","Records":[{with_prefix}]}}"#);
    assert_eq!(read_all(&body, JSON)[0].name, "s3:ObjectCreated:Put");
    let tagging = record("k").replace("ObjectCreated:Put", "s3:ObjectCreated:PutTagging");
    assert_eq!(read_all(&records(&[&tagging]), JSON)[0].name, "s3:ObjectTagging:Put");
    let custom = record("k").replace("ObjectCreated:Put", "acme:Scan:Infected");
    assert_eq!(read_all(&records(&[&custom]), JSON)[0].name, "acme:Scan:Infected");
    let ceph =
        record("k").replace(r#""key":"k""#, r#""key":"k","metadata":[{"key":"x-amz-meta-m","val":"1"}],"tags":[]"#);
    assert!(read_all(&records(&[&ceph]), JSON)[0].debug.contains(r#"metadata: [("m", "1")]"#));
}

#[test]
fn the_test_event_has_no_events() {
    let body = r#"{"Service":"Amazon S3","Event":"s3:TestEvent","Time":"2026-01-01T00:00:00.000Z","Bucket":"b"}"#;
    assert_eq!(read_all(body, JSON), []);
    assert_eq!(read_all(r#"{"Records":[]}"#, JSON), []);
    assert!(refused(r#"{"Event":"s3:OtherEvent"}"#, JSON).starts_with("Records: "));
}

#[test]
fn blocks_of_event_data_become_data() {
    for (name, block, data) in [
        (
            "ObjectRestore:Completed",
            r#""glacierEventData":{"restoreEventData":{"lifecycleRestoreStorageClass":"S"}}"#,
            r#"{"lifecycleRestoreStorageClass":"S"}"#,
        ),
        (
            "LifecycleTransition",
            r#""lifecycleEventData":{"transitionEventData":{"destinationStorageClass":"G"}}"#,
            r#"{"destinationStorageClass":"G"}"#,
        ),
        ("IntelligentTiering", r#""intelligentTieringEventData":{"a":"\u0001\"x"}"#, r#"{"a":"\u0001\"x"}"#),
        (
            "Replication:OperationNotTracked",
            r#""replicationEventData":{"r":[1,-2,2.5,null]}"#,
            r#"{"r":[1,-2,2.5,null]}"#,
        ),
        ("ObjectRenamed", r#""data":{ "sourceKey" : "old" }"#, r#"{"sourceKey":"old"}"#),
        ("ObjectCreated:Put", r#""glacierEventData":null"#, ""),
    ] {
        let r = record("k").replace("ObjectCreated:Put", name).replacen('{', &format!("{{{block},"), 1);
        assert_eq!(read_all(&records(&[&r]), JSON)[0].data, data, "{name}");
    }
    let r = record("k").replace("ObjectCreated:Put", "LifecycleExpiration:Delete");
    assert!(read_all(&records(&[&r]), JSON)[0].debug.contains("origin: Lifecycle"));
}

#[test]
fn bad_records_are_refused_with_their_place() {
    let good = record("k");
    for (bad, place) in [
        (good.replace("ObjectCreated:Put", ""), "Records[1]: eventName: is missing"),
        (good.replace("ObjectCreated:Put", "s3:ObjectCreated:Pot"), "Records[1]: eventName: unknown event type"),
        (good.replace(r#""ObjectCreated:Put""#, "7"), "Records[1]: eventName: is a number, not a string"),
        (good.replace(r#""name":"b""#, ""), "Records[1]: s3.bucket.name: is missing"),
        (good.replace(r#""key":"k""#, ""), "Records[1]: key: key is empty"),
        (good.replace(r#""k""#, r#""k","size":-1"#), "Records[1]: s3.object.size: is not a whole number"),
        (good.replace(r#""k""#, r#""k","size":1.5"#), "Records[1]: s3.object.size: is not a whole number"),
        (good.replace(r#""k""#, r#""k","size":"1""#), "Records[1]: s3.object.size: is a string, not a number"),
        (good.replace(r#""k""#, r#""k","tags":{"a":1}"#), "Records[1]: s3.object.tags: a: is a number"),
        (good.replace(r#""k""#, r#""k","tags":7"#), "Records[1]: s3.object.tags: is a number"),
        (good.replacen('{', r#"{"eventTime":"yesterday","#, 1), "Records[1]: eventTime: `yesterday` is not a time"),
        (good.replacen('{', r#"{"eventTime":"1969-12-31T23:59:59Z","#, 1), "Records[1]: eventTime: "),
        (good.replace(r#""k""#, &format!("\"{}\"", "k".repeat(1025))), "Records[1]: key: key has 1025 bytes"),
        ("7".to_owned(), "Records[1]: a record is a number"),
    ] {
        let e = refused(&records(&[&good, &bad]), JSON);
        assert!(e.starts_with(place), "{e} should start with {place}");
    }
    for body in [r#"{"Records":{}}"#, r#"{"Records":null}"#, r#"{"Records":[}"#, r#"{"Records":[]"#] {
        refused(body, JSON);
    }
}

#[test]
fn lines_are_read_with_every_field() {
    let line = concat!(
        r#"{"type":"s3:ObjectCreated:Put","time":"1970-01-01T00:00:02+00:00","bucket":"b","key":"dir/é","size":9,"#,
        r#""etag":"e","version_id":"v","requester":"r","source_ip":"::1","request_id":"q","host_id":"h","region":"g","#,
        r#""content_type":"c","method":"PutObject","user_agent":"u","bucket_owner":"o","metadata":{"m":"1"},"#,
        r#""tags":{"t":"2"},"data":{"x":[true,{}]},"priority":"high","origin":"replica"}"#
    );
    let mut body = format!("{line}\r\n\n  \n{line}").into_bytes();
    let expected = Event {
        time_ns: 2_000_000_000,
        size: Some(9),
        etag: "e",
        version_id: "v",
        requester: "r",
        source_ip: "::1",
        request_id: "q",
        host_id: "h",
        region: "g",
        content_type: "c",
        method: "PutObject",
        user_agent: "u",
        bucket_owner: "o",
        metadata: &[("m", "1")],
        tags: &[("t", "2")],
        data: br#"{"x":[true,{}]}"#,
        priority: Priority::High,
        origin: Origin::Replica,
        ..Event::new(KnownType::ObjectCreatedPut.into(), "b", "dir/é".as_bytes())
    };
    let count = parse(&mut body, "application/x-ndjson", &mut |e| {
        assert_eq!(format!("{e:?}"), format!("{expected:?}"));
        Ok(())
    });
    assert_eq!(count.ok(), Some(2));
}

#[test]
fn lines_may_have_ns_base64_nulls_and_one_may_be_spread() {
    let body =
        r#"{"type":"ObjectCreated:Put","time_ns":18446744073709551615,"bucket":"b","key_base64":"/wA=","size":null}"#;
    let seen = read_all(body, JSON);
    assert_eq!(seen[0].key, b"\xff\0");
    assert!(seen[0].debug.contains("time_ns: 18446744073709551615") && seen[0].debug.contains("size: None"));
    let spread = body.replace(',', ",\n");
    assert_eq!(read_all(&spread, JSON), seen);
    assert_eq!(read_all(&format!("{spread}\n\n"), ""), seen);
    assert_eq!(read_all(&format!("{body}\n{body}"), JSON).len(), 2);
    assert!(refused(&spread, "application/x-ndjson").starts_with("line 1: "));
    assert_eq!(read_all(r#"{"type":"System:Health:Ok"}"#, "")[0].bucket, "");
    assert_eq!(read_all("\n \n", "application/x-ndjson"), []);
}

#[test]
fn bad_lines_are_refused_with_their_place() {
    let good = r#"{"type":"ObjectCreated:Put","bucket":"b","key":"k"}"#;
    let with = |more: &str| good.replacen('{', &format!("{{{more},"), 1);
    for (bad, starts, ends) in [
        (with(r#""versionid":"x""#), "line 3: unknown field `versionid`", "did you mean `version_id`?"),
        (with(r#""Size":1"#), "line 3: unknown field `Size`", "did you mean `size`?"),
        (with(r#""zzz":1"#), "line 3: unknown field `zzz`", "belongs into `data`"),
        (with(r#""bucket":"b""#), "line 3: bucket: is given twice", ""),
        (with(r#""key_base64":"aw==""#), "line 3: key_base64: is given beside `key`", ""),
        (with(r#""time":"2026-01-01T00:00:00Z","time_ns":1"#), "line 3: time_ns: is given beside `time`", ""),
        (with(r#""time":1"#), "line 3: time: is a number, not a string", "as `time_ns`"),
        (with(r#""time_ns":-1"#), "line 3: time_ns: is not a whole number", ""),
        (with(r#""size":1e3"#), "line 3: size: is not a whole number", ""),
        (with(r#""priority":"urgent""#), "line 3: priority: `urgent` is not known", "low, normal, high"),
        (with(r#""origin":"x""#), "line 3: origin: `x` is not known", "user, replica, lifecycle"),
        (with(r#""metadata":"x""#), "line 3: metadata: is a string", ""),
        (with(r#""metadata":{"":"x"}"#), "line 3: metadata: metadata has an entry without a name", ""),
        (with(r#""tags":{"a":null}"#), "line 3: tags: a: is null", ""),
        (good.replace(r#""key":"k""#, r#""key_base64":"a""#), "line 3: key_base64: is not base64", ""),
        (good.replace(r#""key":"k""#, r#""size":1"#), "line 3: key: key is empty", ""),
        (
            good.replace("ObjectCreated:Put", "s3:ObjectCreated:Putt"),
            "line 3: type: unknown",
            "did you mean `s3:ObjectCreated:Put`?",
        ),
        (r#"{"bucket":"b"}"#.to_owned(), "line 3: type: is missing", ""),
        ("[1]".to_owned(), "line 3: an event is an array", ""),
        ("{\"type\":".to_owned(), "line 3: not valid JSON", ""),
        (format!("{good}}}"), "line 3: not valid JSON", ""),
        (good.replace("\"k\"", "\"\\ud800\""), "line 3: not valid JSON", ""),
    ] {
        let e = refused(&format!("{good}\n\n{bad}\n{good}"), "application/x-ndjson");
        assert!(e.starts_with(starts) && e.ends_with(ends), "{e}");
    }
    let mut invalid = good.as_bytes().to_vec();
    invalid[good.len() - 3] = 0xFF;
    assert!(try_read(&invalid, "application/x-ndjson").is_err());
}

fn cloud_event(event_type: &str, rest: &str) -> String {
    format!(r#"{{"specversion":"1.0","id":"1","source":"s","type":"{event_type}"{rest}}}"#)
}

#[test]
fn cloudevents_with_records_inside() {
    let with_record = format!(r#","subject":"wrong","data":{}"#, record("a+b"));
    for event_type in ["com.amazonaws.s3.ObjectCreated:Put", "com.amazonaws.ObjectCreated:Put", "s3:ObjectCreated:Put"]
    {
        let seen = read_all(&cloud_event(event_type, &with_record), "application/cloudevents+json");
        assert_eq!((seen[0].name.as_str(), &*seen[0].key), ("s3:ObjectCreated:Put", &b"a b"[..]));
    }
    let document = format!(r#","data":{}"#, records(&[&record("x"), &record("y")]));
    let body = format!("[{0},{0}]", cloud_event("com.amazonaws.s3.ObjectCreated:Put", &document));
    let keys: Vec<_> = read_all(&body, JSON).into_iter().map(|s| s.key).collect();
    assert_eq!(keys, [b"x", b"y", b"x", b"y"]);
}

#[test]
fn cloudevents_with_other_data() {
    let ct = "application/cloudevents+json";
    let own = r#","time":"1970-01-01T00:00:00.001Z","data":{"bucket":"b","key":"k","data":{"reason":"x"}}"#;
    let seen = read_all(&cloud_event("dev.tidewire.Access:Denied:Read", own), ct);
    assert_eq!((seen[0].name.as_str(), seen[0].data.as_str()), ("Access:Denied:Read", r#"{"reason":"x"}"#));
    assert!(seen[0].debug.contains("time_ns: 1000000,"));
    let foreign = r#","subject":"dir/k é","data":{"bucket":"b","verdict":"clean"}"#;
    let seen = read_all(&cloud_event("acme:Scan:Clean", foreign), ct);
    assert_eq!((seen[0].name.as_str(), &*seen[0].key), ("acme:Scan:Clean", "dir/k é".as_bytes()));
    assert_eq!(seen[0].data, r#"{"bucket":"b","verdict":"clean"}"#);
    let base64 = r#","data":{"bucket":"b","key_base64":"/w=="}"#;
    assert_eq!(read_all(&cloud_event("acme:Scan:Clean", base64), ct)[0].key, b"\xff");
    assert_eq!(read_all(&cloud_event("dev.tidewire.System:Health:Ok", ""), ct)[0].name, "System:Health:Ok");
    assert_eq!(read_all(&cloud_event("dev.tidewire.System:Health:Ok", r#","data":7"#), ct)[0].data, "7");
}

#[test]
fn bad_cloudevents_are_refused_with_their_place() {
    let good = cloud_event("acme:A", r#","data":{"bucket":"b"}"#);
    for (bad, starts) in [
        (good.replace("1.0", "0.3"), "events[1]: specversion: `0.3`"),
        (good.replace(r#""id":"1","#, ""), "events[1]: id: is missing"),
        (good.replace(r#""source":"s""#, r#""source":"""#), "events[1]: source: is missing"),
        (good.replace("acme:A", "com.example.thing"), "events[1]: type: unknown event type"),
        (good.replace("acme:A", "com.amazonaws.s3.Bad"), "events[1]: type: unknown event type"),
        (good.replace(r#""data""#, r#""data_base64":"aa==","data""#), "events[1]: data_base64: "),
        (good.replace(r#""data""#, r#""time":"x","data""#), "events[1]: time: `x` is not a time"),
        (good.replace(r#"{"bucket":"b"}"#, "{}"), "events[1]: data.bucket: is missing"),
        (good.replace(r#"{"bucket":"b"}"#, "null"), "events[1]: data.bucket: is missing"),
        (good.replace(r#"{"bucket":"b"}"#, r#"{"bucket":"b","key":1}"#), "events[1]: data.key: is a number"),
        (good.replace(r#"{"bucket":"b"}"#, r#"{"s3":{}}"#), "events[1]: data: eventName: is missing"),
        (good.replace(r#"{"bucket":"b"}"#, r#"{"Records":[{}]}"#), "events[1]: data: Records[0]: eventName: "),
        ("[]".to_owned(), "events[1]: an event is an array"),
    ] {
        let e = refused(&format!("[{good},{bad}]"), "application/cloudevents-batch+json");
        assert!(e.starts_with(starts), "{e} should start with {starts}");
    }
    assert!(refused(&good, "application/cloudevents-batch+json").starts_with("the batch is an object"));
}

fn binary(headers: &[(&str, &str)], body: &str) -> Result<Vec<(String, Vec<u8>, String)>> {
    let mut seen = Vec::new();
    let headers = headers.iter().map(|(n, v)| (*n, v.as_bytes()));
    parse_binary(headers, &mut body.as_bytes().to_vec(), &mut |e| {
        let data = String::from_utf8_lossy(e.data).into_owned();
        seen.push((e.event_type.name().to_owned(), e.key.to_vec(), data));
        Ok(())
    })?;
    Ok(seen)
}

#[test]
fn binary_cloudevents() {
    let headers = [
        ("CE-SpecVersion", "1.0"),
        ("ce-id", "1"),
        ("ce-source", "s"),
        ("ce-type", "acme:Scan:Clean"),
        ("ce-subject", "a%20b%C3%A9%25"),
        ("content-type", "application/json; charset=utf-8"),
    ];
    assert!(is_binary(headers.iter().map(|(n, v)| (*n, v.as_bytes()))));
    assert!(!is_binary([("content-type", &b"x"[..])]));
    let seen = binary(&headers, r#"{"bucket":"b","v":1}"#).expect("good");
    assert_eq!(seen, [("acme:Scan:Clean".into(), "a bé%".as_bytes().to_vec(), r#"{"bucket":"b","v":1}"#.into())]);
    let seen = binary(&headers, &records(&[&record("x"), &record("y")])).expect("good");
    assert_eq!(seen.len(), 2);

    let with = |i: usize, value: &'static str| {
        let mut headers = headers;
        headers[i].1 = value;
        binary(&headers, r#"{"bucket":"b"}"#)
    };
    assert_eq!(with(4, "\"quoted \\\" text\"").expect("good")[0].1, b"quoted \" text");
    for (i, value, starts) in [
        (0, "2.0", "ce-specversion: `2.0`"),
        (1, "", "ce-id: is missing"),
        (3, "nonsense", "type: unknown event type"),
        (4, "%FF", "ce-subject: is not UTF-8"),
        (5, "text/plain", "content-type: data that is not JSON"),
    ] {
        let e = with(i, value).expect_err(starts);
        assert!(e.to_string().starts_with(starts), "{e}");
    }
    assert!(binary(&headers, "").is_err_and(|e| e.place() == Some("data.bucket")));
    assert!(binary(&headers, "{").is_err());
    let mut system = headers;
    system[3].1 = "dev.tidewire.System:Health:Ok";
    system[5].1 = "text/plain";
    assert_eq!(binary(&system, "").expect("good").len(), 1);
}

#[test]
fn deep_and_large_documents_are_refused() {
    let line = |data: &str| format!(r#"{{"type":"acme:A","bucket":"b","data":{data}}}"#);
    let nested = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
    assert_eq!(read_all(&line(&nested(DEPTH_MAX)), JSON)[0].data, nested(DEPTH_MAX));
    let e = refused(&line(&nested(DEPTH_MAX + 1)), JSON);
    assert!(e.starts_with("data: is nested more than 64 deep"), "{e}");
    let e = refused(&line(&nested(depth_max() + 1)), JSON);
    assert!(e.contains("DepthLimitExceeded") && e.contains("at most 70 deep"), "{e}");
    refused(&line(&nested(100_000)), JSON);
    refused(&"[".repeat(1_000_000), JSON);
    refused(&"{\"a\":".repeat(1_000_000), JSON);

    let e = refused(&records(&[&record(&"k".repeat(DOCUMENT_BYTES_MAX))]), JSON);
    assert!(e.starts_with("the body has "), "{e}");
    let e = refused(&line(&format!("\"{}\"", "x".repeat(EVENT_BYTES_MAX))), "application/x-ndjson");
    assert!(e.starts_with("line 1: the event takes "), "{e}");
    let e = refused(&line(&format!("\"{}\"", "x".repeat(DOCUMENT_BYTES_MAX))), "application/x-ndjson");
    assert!(e.starts_with("line 1: the document has "), "{e}");
    let many = format!("{}\n", line("1")).repeat(EVENTS_MAX);
    assert_eq!(read_all(&many, "application/x-ndjson").len(), EVENTS_MAX);
    let e = refused(&format!("{many}{}", line("1")), "application/x-ndjson");
    assert!(e.starts_with("line 65537: more than 65536 events"), "{e}");
}

#[test]
fn errors_of_the_receiver_end_the_call_with_the_place() {
    let mut seen = 0;
    let mut body = records(&[&record("a"), &record("b"), &record("c")]).into_bytes();
    let e = parse(&mut body, JSON, &mut |_| {
        seen += 1;
        if seen == 2 { Err(Error::new(ErrorKind::Full, "the ring is full")) } else { Ok(()) }
    })
    .expect_err("the second was refused");
    assert_eq!((seen, e.kind(), e.place()), (2, ErrorKind::Full, Some("Records[1]")));
}

proptest::proptest! {
    #[test]
    fn arbitrary_bodies_never_panic(
        body in proptest::collection::vec(proptest::sample::select(b"{}[]\",:\\0 e\nt\xff".to_vec()), 0..60),
        kind in 0usize..4,
    ) {
        let kinds = [JSON, "application/x-ndjson", "application/cloudevents+json", "application/cloudevents-batch+json"];
        let _ = try_read(&body, kinds[kind]);
    }

    #[test]
    fn damaged_bodies_never_panic(at in 0usize..200, value: u8, kind in 0usize..3) {
        let bodies = [
            records(&[&record("a%20b"), &record("b")]),
            cloud_event("acme:A", r#","data":{"bucket":"b","key":"k","data":[1,2]}"#),
            r#"{"type":"acme:A","bucket":"b","key":"k","metadata":{"a":"b"},"data":{"x":1.5}}"#.to_owned(),
        ];
        let mut body = bodies[kind].clone().into_bytes();
        let at = at % body.len();
        body[at] = value;
        let _ = try_read(&body, JSON);
    }
}
