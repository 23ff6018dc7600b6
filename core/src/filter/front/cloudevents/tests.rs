//! The dialects by the examples of the specification, and filters against the records that the profile writes.

use bytes::BytesMut;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::event::profile::{Profile, RecordContext};
use crate::event::{Event, EventId, EventType, FrameView, Sequencer, frame};

const SOURCE: SourceOf<'_> = SourceOf { event_source: "acme:s3", region: "eu-west-1" };

/// The record of an event, as the profile writes it.
fn record(frame: &FrameView<'_>) -> Value {
    let cx = RecordContext {
        id: EventId { incarnation: 1, shard: 2, sequence: 3 },
        sequencer: Sequencer { clock_ns: 4, tie: 5, writer: 6 },
        rule: "r",
        region: SOURCE.region,
        event_source: SOURCE.event_source,
    };
    let mut out = BytesMut::new();
    Profile::CloudEvents.write_record(frame, &cx, &mut out);
    serde_json::from_slice(&out).unwrap()
}

/// What the specification says of a filter and a record.
fn passes(filter: &Value, record: &Value) -> bool {
    let (dialect, value) = filter.as_object().unwrap().iter().next().unwrap();
    let list = || value.as_array().unwrap().iter();
    let each = |fits: fn(&str, &str) -> bool| {
        let fits = |(name, text): (&String, &Value)| {
            record.get(name).and_then(Value::as_str).is_some_and(|v| fits(v, text.as_str().unwrap()))
        };
        value.as_object().unwrap().iter().all(fits)
    };
    match dialect.as_str() {
        "all" => list().all(|f| passes(f, record)),
        "any" => list().any(|f| passes(f, record)),
        "not" => !passes(value, record),
        "exact" => each(|v, t| v == t),
        "prefix" => each(|v, t| v.starts_with(t)),
        "suffix" => each(|v, t| v.ends_with(t)),
        _ => unreachable!(),
    }
}

#[track_caller]
fn check(filter: Value, event: &Event<'_>, expected: bool) {
    let bytes = frame::encode_to_vec(event, 1);
    let frame = FrameView::parse(&bytes).unwrap();
    let read = Filter::from_cloudevents(&filter, SOURCE).unwrap_or_else(|e| panic!("{filter}: {e}"));
    assert_eq!(read.matches_frame(frame), expected, "{filter}");
    if filter.is_object() {
        assert_eq!(passes(&filter, &record(&frame)), expected, "the specification, of {filter}");
    }
}

#[track_caller]
fn refused(filters: Value, parts: &[&str]) {
    match Filter::from_cloudevents(&filters, SOURCE) {
        Err(e) => super::super::tests::refused_with(e, parts),
        Ok(f) => panic!("{filters} was read as {f:?}"),
    }
}

fn put() -> Event<'static> {
    let mut event = Event::new(KnownType::ObjectCreatedPut.into(), "photos", b"in/a.jpg");
    event.time_ns = 1_636_733_033_500_000_000; // 2021-11-12T16:03:53.500Z
    event
}

#[test]
fn the_examples_of_the_specification_are_read_and_fit_no_event_of_ours() {
    let subject = "https://github.com/cloudevents/spec";
    for filter in [
        json!({"exact": {"type": "com.github.push", "subject": subject}}),
        json!({"prefix": {"type": "com.github.", "subject": "https://github.com/cloudevents"}}),
        json!({"suffix": {"type": ".created", "subject": "/cloudevents/spec"}}),
        json!({"all": [{"exact": {"type": "com.github.push"}}, {"exact": {"subject": subject}}]}),
        json!({"any": [{"exact": {"type": "com.github.push"}}, {"exact": {"subject": subject}}]}),
    ] {
        check(filter, &put(), false);
    }
    check(json!({"not": {"exact": {"type": "com.github.push"}}}), &put(), true);
    check(json!([{"prefix": {"type": "com.github.issue"}}]), &put(), false);
    check(json!([]), &put(), true);
}

#[test]
fn attributes_are_those_that_records_have() {
    let put = put();
    for filter in [
        json!({"exact": {"type": "com.amazonaws.s3.ObjectCreated:Put", "subject": "in/a.jpg"}}),
        json!({"prefix": {"type": "com.amazonaws."}}),
        json!({"prefix": {"type": "com.amazonaws.s3.ObjectCreated:"}}),
        json!({"suffix": {"type": ":Put"}}),
        json!({"suffix": {"type": "s3.ObjectCreated:Put"}}),
        json!({"exact": {"source": "acme:s3.eu-west-1.photos"}}),
        json!({"prefix": {"source": "acme:"}}),
        json!({"prefix": {"source": "acme:s3.eu-"}}),
        json!({"prefix": {"source": "acme:s3.eu-west-1."}}),
        json!({"prefix": {"source": "acme:s3.eu-west-1.pho"}}),
        json!({"suffix": {"source": "tos"}}),
        json!({"prefix": {"subject": "in/"}, "suffix": {"subject": ".jpg"}})
            .as_object()
            .map(|o| json!({"all": o.iter().map(|(n, v)| json!({n: v})).collect::<Vec<_>>()}))
            .unwrap(),
        json!({"exact": {"partitionkey": "photos/in/a.jpg"}}),
        json!({"prefix": {"partitionkey": "photos/"}}),
        json!({"prefix": {"partitionkey": "phot"}}),
        json!({"prefix": {"partitionkey": "photos/in/"}}),
        json!({"suffix": {"partitionkey": "os/in/a.jpg"}}),
        json!({"suffix": {"partitionkey": "/in/a.jpg"}}),
        json!({"suffix": {"partitionkey": "/a.jpg"}}),
        json!({"exact": {"specversion": "1.0", "datacontenttype": "application/json"}}),
        json!({"prefix": {"time": "2021-11-12T16"}}),
        json!({"exact": {"time": "2021-11-12T16:03:53.500Z"}}),
    ] {
        check(filter, &put, true);
    }
    for filter in [
        json!({"exact": {"type": "com.amazonaws.s3.ObjectCreated:Copy"}}),
        json!({"suffix": {"type": "3:ObjectCreated:Put"}}),
        json!({"prefix": {"type": "dev."}}),
        json!({"exact": {"source": "acme:s3.eu-west-1.photo"}}),
        json!({"exact": {"source": "acme:s3.us-east-1.photos"}}),
        json!({"exact": {"source": "acme:s3.eu-west-1"}}),
        json!({"exact": {"partitionkey": "photos"}}),
        json!({"suffix": {"partitionkey": "/a/in/a.jpg"}}),
        json!({"prefix": {"time": "2021-11-12T17"}}),
        json!({"exact": {"time": "2021-11-12T16:03:53.501Z"}}),
    ] {
        check(filter, &put, false);
    }
    let own = Event::new(EventType::Custom("acme:Scan:Clean"), "b", b"");
    check(json!({"exact": {"type": "dev.tidewire.acme:Scan:Clean"}}), &own, true);
    check(json!({"prefix": {"type": "dev.tidewire."}}), &own, true);
    check(json!({"suffix": {"type": "wire.acme:Scan:Clean"}}), &own, true);
    check(json!({"suffix": {"type": "Clean"}}), &own, true);
    check(json!({"prefix": {"subject": "a"}}), &own, false);
    check(json!({"exact": {"partitionkey": "b"}}), &own, true);
    let system = Event::new(KnownType::SystemHealthOk.into(), "", b"");
    check(json!({"exact": {"source": "acme:s3.eu-west-1"}}), &system, true);
    check(json!({"suffix": {"source": "st-1"}}), &system, true);
    check(json!({"not": {"prefix": {"partitionkey": "b"}}}), &system, true);
}

#[test]
fn what_is_no_filter_is_refused_with_its_place() {
    refused(json!(5), &["filters", "a number"]);
    refused(json!([{}]), &["filters[0]", "0 dialects"]);
    refused(json!([{"exact": {"type": "a"}, "prefix": {"type": "b"}}]), &["filters[0]", "2 dialects"]);
    refused(json!([{"exat": {"type": "a"}}]), &["filters[0].exat", "did you mean `exact`?"]);
    refused(json!([{"sql": "source LIKE '%x%'"}]), &["filters[0].sql", "not understood"]);
    refused(json!([{"all": []}]), &["filters[0].all", "at least one"]);
    refused(json!([{"any": {"exact": {"type": "a"}}}]), &["filters[0].any", "no list"]);
    refused(json!([{"not": [{"exact": {"type": "a"}}]}]), &["filters[0].not", "a list"]);
    refused(json!([{"exact": {}}]), &["filters[0].exact", "empty"]);
    refused(json!([{"exact": {"type": ""}}]), &["filters[0].exact.type", "empty"]);
    refused(json!([{"exact": {"type": 5}}]), &["filters[0].exact.type", "not a string"]);
    refused(json!([{"any": [{"prefix": {"tpye": "a"}}]}]), &["filters[0].any[0].prefix.tpye", "did you mean `type`?"]);
    refused(json!([{"exact": {"id": "a"}}]), &["filters[0].exact.id", "after rules were matched"]);
    refused(json!([{"exact": {"sequence": "a"}}]), &["filters[0].exact.sequence", "after rules were matched"]);
    refused(json!([{"exact": {"specversion": "0.3"}}]), &["filters[0].exact.specversion", "always `1.0`"]);
    refused(json!([{"exact": {"source": "aws:s3.x.b"}}]), &["filters[0].exact.source", "not understood"]);
    refused(json!([{"suffix": {"source": "a.b"}}]), &["filters[0].suffix.source", "not understood"]);
    refused(json!([{"suffix": {"time": "Z"}}]), &["filters[0].suffix.time", "not understood"]);
    refused(json!([{"exact": {"time": "now"}}]), &["filters[0].exact.time", "not understood"]);
    let deep = (0..40).fold(json!({"exact": {"type": "a"}}), |f, _| json!({"not": f}));
    refused(deep, &["more than 32 deep"]);
}

fn pick<T: Clone + std::fmt::Debug + 'static>(from: &[T]) -> impl Strategy<Value = T> + use<T> {
    prop::sample::select(from.to_vec())
}

fn piece(name: &'static str) -> impl Strategy<Value = Value> {
    // Cut out of what records have, so that they meet.
    let whole = match name {
        "type" => vec!["com.amazonaws.s3.ObjectCreated:Put", "dev.tidewire.acme:Put", "dev.tidewire.System:Health:Ok"],
        "subject" => vec!["a/b", "b", "é"],
        _ => vec!["x/a/b", "x.y/b", "/b", "x"],
    };
    (pick(&whole), 0usize..40, 0usize..40).prop_map(|(whole, a, b)| {
        let chars: Vec<char> = whole.chars().collect();
        let (a, b) = (a.min(chars.len() - 1), b.min(chars.len()));
        let text: String = chars[a.min(b)..a.max(b).max(a.min(b) + 1)].iter().collect();
        text.into()
    })
}

fn filters() -> impl Strategy<Value = Value> {
    let one = pick(&["type", "subject", "partitionkey"]).prop_flat_map(|name| {
        (pick(&["exact", "prefix", "suffix"]), piece(name))
            .prop_map(move |(dialect, text)| json!({dialect: {name: text}}))
    });
    one.prop_recursive(2, 8, 3, |inner| {
        prop_oneof![
            (pick(&["all", "any"]), prop::collection::vec(inner.clone(), 1..3)).prop_map(|(d, list)| json!({d: list})),
            inner.prop_map(|f| json!({"not": f})),
        ]
    })
}

proptest! {
    #[test]
    fn filters_pass_what_the_specification_says_of_the_record(
        filters in prop::collection::vec(filters(), 1..5),
        t in pick(&[
            EventType::Known(KnownType::ObjectCreatedPut), EventType::Known(KnownType::ObjectRemovedDelete),
            EventType::Custom("acme:Put"), EventType::Known(KnownType::SystemHealthOk),
        ]),
        bucket in pick(&["x", "x.y", ""]),
        key in pick(&["a/b", "b", "é", ""]),
    ) {
        let bytes = frame::encode_to_vec(&Event::new(t, bucket, key.as_bytes()), 1);
        let frame = FrameView::parse(&bytes).unwrap();
        for filter in filters {
            let read = Filter::from_cloudevents(&filter, SOURCE).unwrap();
            prop_assert_eq!(read.matches_frame(frame), passes(&filter, &record(&frame)), "{}: {:?}", filter, read);
        }
    }

    #[test]
    fn no_text_makes_the_reader_panic(text in "\\PC{0,40}", dialect in pick(&["exact", "prefix", "suffix"]),
        name in pick(ATTRIBUTES)) {
        let _ = Filter::from_cloudevents(&json!([{dialect: {name: text}}]), SOURCE);
        let _ = Filter::parse_cloudevents(&text, SOURCE);
    }
}
