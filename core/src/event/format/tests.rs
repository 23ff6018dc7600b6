//! Encodings, choices, the ceiling, parcels and templates.

use bytes::BytesMut;
use serde_json::{Value, json};

use super::{Encoding, Escape, Format, Template, open_parcel};
use crate::event::frame::{self, FrameView};
use crate::event::profile::{Choice, DeadNote, Profile, RecordContext, Story};
use crate::event::{Event, EventId, KnownType, Sequencer};

fn cx() -> RecordContext<'static> {
    RecordContext {
        id: EventId { incarnation: 1, shard: 2, sequence: 3 },
        sequencer: Sequencer { clock_ns: 4, tie: 5, writer: 6 },
        rule: "r",
        region: "x",
        event_source: "",
    }
}

fn put<'a>(key: &'a [u8]) -> Event<'a> {
    let mut e = Event::new(KnownType::ObjectCreatedPut.into(), "b", key);
    (e.size, e.metadata, e.tags) = (Some(7), &[("a", "1"), ("b", "2 <&>")], &[("t", "u")]);
    e
}

fn write_with(format: &Format, profile: Profile, e: &Event<'_>, story: &Story<'_>) -> Result<String, String> {
    let frame = frame::encode_to_vec(e, 1);
    let mut out = BytesMut::new();
    format.write(profile, &FrameView::trusted(&frame), &cx(), story, &mut out)?;
    Ok(String::from_utf8_lossy(&out).into_owned())
}

fn write(format: &Format, profile: Profile, e: &Event<'_>) -> String {
    write_with(format, profile, e, &Story::default()).unwrap()
}

fn json_of(format: &Format, profile: Profile, e: &Event<'_>) -> Value {
    serde_json::from_str(&write(format, profile, e)).unwrap()
}

fn by_template(source: &str) -> Format {
    Format { template: Some(Template::new(source, Escape::Json).unwrap()), ..Format::default() }
}

fn refused(source: &str, escape: Escape) -> String {
    Template::new(source, escape).map(|_| source.to_owned()).unwrap_err().to_string()
}

#[test]
fn a_plain_format_is_what_the_profile_writes() {
    for profile in Profile::ALL.iter().filter(|p| **p != Profile::CloudEventsBinary) {
        let frame = frame::encode_to_vec(&put(b"k"), 1);
        let mut out = BytesMut::new();
        profile.write_record(&FrameView::trusted(&frame), &cx(), &mut out);
        assert_eq!(write(&Format::default(), *profile, &put(b"k")).as_bytes(), &out[..]);
    }
    assert!(Format::default().is_plain());
}

#[test]
fn destinations_choose_metadata_and_tags() {
    let only = Format { metadata: Choice::only(["b", "absent"]), tags: Choice::None, ..Format::default() };
    let none = Format { metadata: Choice::only(["absent"]), ..Format::default() };
    let object = |f: &Format| json_of(f, Profile::Aws, &put(b"k"))["s3"]["object"].clone();
    assert_eq!(object(&only)["userMetadata"], json!({"b": "2 <&>"}));
    assert!(object(&only).get("tags").is_none());
    assert!(object(&none).get("userMetadata").is_none());
    assert_eq!(object(&none)["tags"], json!({"t": "u"}));
    let ceph = json_of(&only, Profile::Ceph, &put(b"k"));
    assert_eq!(ceph["s3"]["object"]["metadata"], json!([{"key": "x-amz-meta-b", "val": "2 <&>"}]));
    assert_eq!(ceph["s3"]["object"]["tags"], json!([]));
}

#[test]
fn over_the_ceiling_metadata_goes_first_and_the_record_says_so() {
    let long = "m".repeat(900);
    let (metadata, tags) = ([("m", &*long)], [("t", &*long)]);
    let data = format!("\"{}\"", "d".repeat(900));
    let key = [b'k'; 1024];
    let mut e = Event::new(KnownType::ObjectCreatedPut.into(), "b", &key);
    (e.metadata, e.tags, e.data) = (&metadata, &tags, data.as_bytes());
    for profile in Profile::ALL.iter().filter(|p| **p != Profile::CloudEventsBinary) {
        let all = write(&Format::default(), *profile, &e).len();
        // What is in base64 takes a third more.
        let third = if *profile == Profile::Gcs { 4.0 / 3.0 } else { 1.0 };
        for (less, left_out) in
            [(1, "metadata"), (1000, "metadata,tags"), (2000, "metadata,tags,data"), (9000, "metadata,tags,data")]
        {
            let format = Format {
                record_bytes_max: all.saturating_sub((f64::from(less) * third) as usize),
                ..Format::default()
            };
            let text = write(&format, *profile, &e);
            assert!(text.contains(&"k".repeat(1024)) || *profile == Profile::Gcs, "{profile}: {text}");
            let list = left_out.split(',').collect::<Vec<_>>();
            let as_list = format!("\"truncated\":{}", json!(list));
            let as_text = format!("\"truncated\":\"{left_out}\"");
            assert!([as_list, as_text].iter().any(|t| text.contains(t)), "{profile} {less}: {text}");
            assert_eq!(text.contains(&long), left_out == "metadata" && *profile != Profile::Gcs, "{profile} {less}");
        }
    }
    let binary = write(&Format { record_bytes_max: 1200, ..Format::default() }, Profile::CloudEventsBinary, &e);
    assert!(binary.contains("ce-truncated: metadata,tags,data\r\n") && !binary.contains(&long), "{binary}");
    // What the event does not have is not said to be missing.
    let mut plain = Event::new(KnownType::ObjectCreatedPut.into(), "b", &key);
    plain.tags = &tags;
    let format = Format { record_bytes_max: 1200, ..Format::default() };
    assert_eq!(json_of(&format, Profile::Aws, &plain)["truncated"], json!(["tags"]));
}

#[test]
fn encodings_are_refused_where_they_make_no_sense() {
    let with = |encoding| Format { encoding, ..Format::default() };
    for (encoding, profile, fits) in [
        (Encoding::NdJson, Profile::Aws, true),
        (Encoding::NdJson, Profile::EventBridge, true),
        (Encoding::NdJson, Profile::CloudEventsBinary, false),
        (Encoding::NdJson, Profile::CloudEventsStructured, false),
        (Encoding::NdJson, Profile::Gcs, false),
        (Encoding::NdJson, Profile::Azure, false),
        (Encoding::Xml, Profile::Ceph, true),
        (Encoding::Xml, Profile::CloudEvents, true),
        (Encoding::Xml, Profile::EventBridge, false),
        (Encoding::Xml, Profile::Debezium, false),
        (Encoding::Xml, Profile::CloudEventsBinary, false),
        (Encoding::Xml, Profile::Gcs, false),
        (Encoding::Json, Profile::Gcs, true),
    ] {
        let checked = with(encoding).validate(profile);
        assert_eq!(checked.is_ok(), fits, "{encoding:?} {profile}");
        if let Err(e) = checked {
            assert!(e.remedy_text().unwrap().contains("one of the profiles"), "{e}");
        }
    }
    let template = Some(Template::new("1", Escape::Json).unwrap());
    assert!(Format { template, encoding: Encoding::Xml, ..Format::default() }.validate(Profile::Aws).is_err());
}

#[test]
fn lines_join_to_a_document_of_lines() {
    let format = Format { encoding: Encoding::NdJson, ..Format::default() };
    for profile in [Profile::Minio, Profile::CloudEvents, Profile::Debezium] {
        assert!(!format.is_single(profile));
        assert_eq!((format.separator(profile), format.batch_head(profile)), (&b"\n"[..], &b""[..]));
        assert_eq!(format.content_type(profile), "application/x-ndjson");
        assert!(!write(&format, profile, &put(b"a\nb")).contains('\n'));
    }
}

/// The elements of a document as paths with their text.
fn elements(document: &str) -> Vec<(String, String)> {
    use quick_xml::Reader;
    use quick_xml::events::Event as Xml;
    let mut reader = Reader::from_str(document);
    let (mut path, mut found, mut text) = (Vec::new(), Vec::new(), String::new());
    loop {
        match reader.read_event().unwrap() {
            Xml::Start(e) => {
                path.push(e.name().0.to_string());
                text.clear();
            }
            Xml::Text(t) => text.push_str(&t),
            Xml::GeneralRef(r) => {
                let name = format!("&{};", &*r);
                text.push_str(&quick_xml::escape::unescape(&name).unwrap());
            }
            Xml::End(_) => {
                found.push((path.join("/"), std::mem::take(&mut text)));
                path.pop();
            }
            Xml::Eof => return found,
            _ => {}
        }
    }
}

fn xml_of(profile: Profile, e: &Event<'_>) -> Vec<(String, String)> {
    let format = Format { encoding: Encoding::Xml, ..Format::default() };
    let part = |b: &[u8]| String::from_utf8(b.to_vec()).unwrap();
    let document = part(format.batch_head(profile)) + &write(&format, profile, e) + &part(format.batch_tail(profile));
    elements(&document)
}

fn text_of<'a>(elements: &'a [(String, String)], path: &str) -> &'a str {
    elements.iter().find(|(p, _)| p == path).map_or("<none>", |(_, text)| text)
}

#[test]
fn xml_has_the_members_of_the_record() {
    let mut e = put(b"a b<&>\x01");
    e.metadata = &[("a", "1 <&\"'> \u{1}\r\n"), ("1 odd", "x"), ("xmlish", "y")];
    let aws = xml_of(Profile::Aws, &e);
    assert_eq!(text_of(&aws, "Records/Record/s3/object/key"), "a+b%3C%26%3E%01");
    assert_eq!(text_of(&aws, "Records/Record/s3/object/size"), "7");
    assert_eq!(text_of(&aws, "Records/Record/s3/object/userMetadata/a"), "1 <&\"'> \u{FFFD}\r\n");
    assert_eq!(aws.iter().filter(|(p, _)| p.ends_with("userMetadata/entry")).count(), 2);
    let ceph = xml_of(Profile::Ceph, &put(b"k"));
    assert_eq!(text_of(&ceph, "Records/Record/s3/object/tags/tag/key"), "t");
    let minio = xml_of(Profile::Minio, &put(b"k"));
    assert_eq!(text_of(&minio, "Notification/Records/Record/s3/object/key"), "k");
    let batch = xml_of(Profile::CloudEvents, &put(b"k<"));
    assert_eq!(text_of(&batch, "batch/event/subject"), "k<");
    let data: Value = serde_json::from_str(text_of(&batch, "batch/event/data")).unwrap();
    assert_eq!(data["s3"]["object"]["userMetadata"]["b"], "2 <&>");
    assert_eq!(
        text_of(&xml_of(Profile::CloudEventsStructured, &put(b"k")), "event/type"),
        "com.amazonaws.s3.ObjectCreated:Put"
    );
}

#[test]
fn binary_cloudevents_have_legal_headers() {
    let key = "dir/a b\"%é\r\nX-Injected: 1";
    let frame = frame::encode_to_vec(&put(key.as_bytes()), 1);
    let note = DeadNote { destination: "d é", reason: "x\ny", attempts: 1, status: 0, given_up_ns: 1, hops: 1 };
    let story = Story { replay: Some("again"), note: Some(&note), left_out: &[] };
    let mut out = BytesMut::new();
    let format = Format::default();
    format.write(Profile::CloudEventsBinary, &FrameView::trusted(&frame), &cx(), &story, &mut out).unwrap();
    let (headers, body) = open_parcel(&out).unwrap();
    let header = |name: &str| headers.iter().find(|(n, _)| *n == name).map(|(_, v)| *v);
    assert_eq!(header("ce-specversion"), Some("1.0"));
    // A key with control characters is encoded as in S3 records, and then once more for the header.
    assert_eq!(header("ce-subject"), Some("dir/a+b%2522%2525%25C3%25A9%250D%250AX-Injected%253A+1"));
    assert_eq!((header("ce-replay"), header("ce-deadletterfrom")), (Some("again"), Some("d%20%C3%A9")));
    assert_eq!(header("ce-deadletterreason"), Some("x%20y"));
    assert!(headers.iter().all(|(n, v)| n.starts_with("ce-") && v.bytes().all(|b| b.is_ascii_graphic())));
    let body: Value = serde_json::from_slice(body).unwrap();
    assert_eq!(body["s3"]["object"]["size"], 7);
    let mut out = BytesMut::new();
    let frame = frame::encode_to_vec(&put("a b\"%é".as_bytes()), 1);
    format.write(Profile::CloudEventsBinary, &FrameView::trusted(&frame), &cx(), &Story::default(), &mut out).unwrap();
    let (headers, _) = open_parcel(&out).unwrap();
    let subject = headers.iter().find(|(n, _)| *n == "ce-subject").unwrap().1;
    assert_eq!(subject, "a%20b%22%25%C3%A9");
}

#[test]
fn what_is_no_parcel_is_not_opened() {
    for bytes in [&b""[..], b"\0\0\0", b"\xff\xff\xff\xffx", b"\x02\0\0\0x", b"\x02\0\0\0ab", b"\x01\0\0\0\xff"] {
        assert!(open_parcel(bytes).is_none(), "{bytes:?}");
    }
    assert_eq!(open_parcel(b"\0\0\0\0body"), Some((Vec::new(), &b"body"[..])));
}

#[test]
fn templates_write_what_they_say() {
    let format = by_template(
        "{\"text\": {{ \"New \" ~ event.key }}, \"size\": {{ event.size }}, \"meta\": {{ event.metadata }},\
         {% if event.version_id is defined %}\"v\": {{ event.version_id }},{% endif %} \"record\": {{ event.record }}}",
    );
    let json = json_of(&format, Profile::Aws, &put("a\"b\\\n\u{2028}é".as_bytes()));
    assert_eq!(json["text"], "New a\"b\\\n\u{2028}é");
    assert_eq!((&json["size"], &json["meta"]), (&7.into(), &json!({"a": "1", "b": "2 <&>"})));
    assert!(json.get("v").is_none());
    assert_eq!(json["record"]["s3"]["object"]["size"], 7);
    let mut e = put(b"k");
    e.data = br#"{"a": {"b": [1, "x"]}}"#;
    let format = by_template("[{{ event.data.a.b[0] + 1 }}, {{ event.data.a.b[1] | upper }}, {{ event.tags.t }}]");
    assert_eq!(json_of(&format, Profile::Aws, &e), json!([2, "X", "u"]));
    let xml = Template::new("<k>{{ event.key }}</k>", Escape::Xml).unwrap();
    assert_eq!(xml.content_type(), "application/xml");
    let format = Format { template: Some(xml), ..Format::default() };
    assert_eq!(write(&format, Profile::Aws, &put(b"<&>")), "<k>&lt;&amp;&gt;</k>");
}

#[test]
fn a_template_on_an_absent_field_fails_with_the_reason() {
    let format = by_template("{\"v\": {{ event.version_id }}}");
    let failed = |f: &Format, e: &Event<'_>| write_with(f, Profile::Aws, e, &Story::default()).unwrap_err();
    let reason = failed(&format, &put(b"k"));
    assert!(reason.starts_with("the template: ") && reason.contains("event.version_id"), "{reason}");
    assert!(reason.contains("undefined"), "{reason}");
    // Metadata that is not there, a key that is no text, a record without a story.
    for source in
        ["{{ event.metadata.nosuch }}", "{{ event.replay }}", "{{ event.dead_letter.reason }}", "{{ event.data.x }}"]
    {
        assert!(failed(&by_template(source), &put(b"k")).contains("undefined"), "{source}");
    }
    assert!(failed(&by_template("{{ event.key }}"), &put(b"\xff")).contains("undefined"));
    assert_eq!(json_of(&by_template("{{ event.key_encoded }}"), Profile::Aws, &put(b"\xff")), "%FF");
}

#[test]
fn templates_that_cannot_work_are_refused() {
    for (source, part) in [
        ("{\"a\": {{ event.key }", "syntax error"),
        ("{{ event.buket }}", "did you mean `bucket`?"),
        ("{{ key }}", "write `event.key`"),
        ("{{ nosuch }}", "there is no `nosuch`"),
        ("{{ event.key | nosuch }}", "unknown filter"),
        ("{{ event.key is nosuch }}", "unknown test"),
        ("{{ event.key.nosuch() }}", "unknown method"),
        ("{{ event[\"nosuch\"] }}", "undefined"),
        ("{\"text\": \"{{ event.key }}\"}", "without quotes"),
        ("text", "no JSON"),
        ("{% include \"other\" %}", "syntax error"),
        ("", "0 bytes"),
        ("[{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}1]", "fuel"),
    ] {
        let e = refused(source, Escape::Json);
        assert!(e.contains(part), "{source}: {e}");
    }
    assert!(refused("{{ event.key }}\r\nX: 1", Escape::Header).contains("line break"));
}

#[test]
fn headers_made_by_templates_cannot_end_early() {
    let of = |source: &str| Format {
        header_templates: vec![("X-Key".into(), Template::new(source, Escape::Header).unwrap())],
        ..Format::default()
    };
    let parcel = |f: &Format, key: &str| {
        let frame = frame::encode_to_vec(&put(key.as_bytes()), 1);
        let mut out = BytesMut::new();
        f.write(Profile::Aws, &FrameView::trusted(&frame), &cx(), &Story::default(), &mut out)?;
        let (headers, _) = open_parcel(&out).unwrap();
        assert_eq!(headers.len(), 1);
        Ok::<String, String>(headers[0].1.to_owned())
    };
    assert!(of("{{ event.key }}").is_single(Profile::Aws));
    assert_eq!(parcel(&of("key {{ event.key }};"), "a\r\nb: é \"%").unwrap(), "key a%0D%0Ab:%20%C3%A9%20%22%25;");
    // What is marked as safe is still not let through.
    assert_eq!(parcel(&of("{{ event.key | safe }}"), "a\r\nX: 1").unwrap(), "a%0D%0AX:%201");
    assert!(parcel(&of("{{ event.metadata.a }}{{ event.version_id }}"), "k").unwrap_err().contains("header X-Key"));
}

#[test]
fn a_template_that_gives_too_much_fails() {
    let mut format = by_template("[{% for i in range(3000) %}1,{% endfor %}{{ event.key }}]");
    format.record_bytes_max = 1024;
    let e = write_with(&format, Profile::Aws, &put(b"k"), &Story::default()).unwrap_err();
    assert!(e.contains("more than 1024 bytes"), "{e}");
}
