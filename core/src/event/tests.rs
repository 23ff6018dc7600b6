use super::*;
use crate::error::ErrorKind;

fn put<'a>(bucket: &'a str, key: &'a [u8]) -> Event<'a> {
    Event::new(KnownType::ObjectCreatedPut.into(), bucket, key)
}

fn refused(e: &Event<'_>) -> Error {
    let error = e.validate(EVENT_BYTES_MAX).expect_err("breaks a limit");
    assert_eq!(error.kind(), ErrorKind::InvalidEvent);
    error
}

#[test]
fn any_bytes_are_a_key() {
    for key in [&b"a"[..], b"a\0b", b"a\nb\r\n", b"\xff\xfe", b"+ % /", "é".as_bytes(), "🎉".as_bytes(), &[b'k'; 1024]]
    {
        assert!(put("b", key).validate(EVENT_BYTES_MAX).is_ok(), "{key:?}");
    }
}

#[test]
fn lengths_of_keys_and_buckets() {
    let e = refused(&put("b", b""));
    assert_eq!(e.place(), Some("key"));
    let e = refused(&put("b", &[b'k'; 1025]));
    assert_eq!((e.place(), e.message()), (Some("key"), "key has 1025 bytes, more than 1024"));
    let e = refused(&put("", b"k"));
    assert_eq!(e.place(), Some("bucket"));
    assert!(put(&"b".repeat(255), b"k").validate(EVENT_BYTES_MAX).is_ok());
    assert_eq!(refused(&put(&"b".repeat(256), b"k")).place(), Some("bucket"));
}

#[test]
fn what_a_scope_requires() {
    let valid = |t: EventType<'_>, bucket, key| Event::new(t, bucket, key).validate(EVENT_BYTES_MAX).is_ok();
    assert!(valid(KnownType::BucketCreated.into(), "b", b""));
    assert!(!valid(KnownType::BucketCreated.into(), "", b""));
    assert!(valid(KnownType::SystemHealthFailed.into(), "", b""));
    assert!(valid(KnownType::SystemHealthFailed.into(), "", b"node-7"));
    assert!(valid(EventType::Custom("acme:Scan"), "b", b""));
    assert!(!valid(EventType::Custom("acme:Scan"), "", b"k"));
    assert!(!valid(EventType::Custom(""), "b", b"k"), "a frame cannot hold an empty name");
    assert!(!valid(EventType::Custom(&"a".repeat(129)), "b", b"k"));
}

#[test]
fn every_text_has_a_limit() {
    let long = "x".repeat(TEXT_BYTES_MAX + 1);
    let fits = &long[1..];
    let with = |set: for<'a> fn(&mut Event<'a>, &'a str), text: &str| {
        let mut e = put("b", b"k");
        set(&mut e, text);
        e.validate(EVENT_BYTES_MAX).map_err(|e| e.place().unwrap_or_default().to_owned())
    };
    type Set = for<'a> fn(&mut Event<'a>, &'a str);
    let fields: [(&str, Set); 11] = [
        ("version_id", |e, s| e.version_id = s),
        ("etag", |e, s| e.etag = s),
        ("requester", |e, s| e.requester = s),
        ("source_ip", |e, s| e.source_ip = s),
        ("request_id", |e, s| e.request_id = s),
        ("host_id", |e, s| e.host_id = s),
        ("region", |e, s| e.region = s),
        ("content_type", |e, s| e.content_type = s),
        ("method", |e, s| e.method = s),
        ("user_agent", |e, s| e.user_agent = s),
        ("bucket_owner", |e, s| e.bucket_owner = s),
    ];
    for (name, set) in fields {
        assert_eq!(with(set, fits), Ok(()), "{name}");
        assert_eq!(with(set, &long), Err(name.to_owned()));
    }
}

#[test]
fn metadata_needs_names_and_fits_its_lengths() {
    let nameless = [("", "v")];
    let e = Event { metadata: &nameless, ..put("b", b"k") };
    assert_eq!(refused(&e).place(), Some("metadata"));
    let e = Event { tags: &nameless, ..put("b", b"k") };
    assert_eq!(refused(&e).place(), Some("tags"));
    let value = "v".repeat(u16::MAX as usize + 1);
    let pairs = [("n", value.as_str())];
    let e = Event { metadata: &pairs, ..put("b", b"k") };
    assert_eq!(e.validate(usize::MAX).map_err(|e| e.place().map(str::to_owned)), Err(Some("metadata".to_owned())));
}

#[test]
fn the_encoded_event_has_a_limit() {
    let data = vec![b'7'; EVENT_BYTES_MAX];
    let mut e = Event { data: &data, ..put("b", b"k") };
    assert!(refused(&e).message().contains("more than 65536"));
    let overhead = frame::encoded_len(&e) - data.len();
    e.data = &data[..EVENT_BYTES_MAX - overhead];
    assert!(e.validate(EVENT_BYTES_MAX).is_ok());
    assert!(e.validate(EVENT_BYTES_MAX - 1).is_err());
}

/// The hash decides which log holds an event: it must be the same in every version.
#[test]
fn resource_hashes_are_fixed() {
    assert_ne!(resource_hash(b"ab", b"c"), resource_hash(b"a", b"bc"));
    let hashes = [resource_hash(b"", b""), resource_hash(b"bucket", b"key"), resource_hash(b"b", &[0xFF; 300])];
    assert_eq!(hashes, [4_696_993_233_866_070_003, 1_964_380_407_074_053_123, 8_264_478_758_848_208_012]);
}
