//! What is done with an input of the fuzzer: one function per target. The same functions are run on the checked-in corpus
//! and on mutations of it by `core/tests/corpus.rs`, with a stable compiler.
//!
//! Each answers whether the input was accepted, and panics if a promise is broken: no input may make Tidewire panic, what
//! is accepted keeps the stated limits, what is refused is refused with a place and a remedy, and what is written is read
//! back the same.

use std::collections::HashMap;
use std::path::Path;

use bytes::BytesMut;
use tidewire::config::Config;
use tidewire::event::frame::{self, Field, FrameView};
use tidewire::event::profile::{Profile, RecordContext};
use tidewire::event::{EVENT_BYTES_MAX, EventId, EventTypes, Sequencer, ingest};
use tidewire::filter::{Filter, NamedFilters, PatternOf, SourceOf};
use tidewire::log::BLOCK_BYTES;
use tidewire::log::cursor::Cursors;
use tidewire::log::record::{self, DeadLetter, Parsed, RecordView};
use tidewire::log::recovery;
use tidewire::log::segment::{Purpose, SegmentHeader};
use tidewire::net::http::{
    BODY_KEPT_BYTES_MAX, LOCATION_BYTES_MAX, Response, ResponseError, ResponseParser, State, classify, describe,
    parse_http_date,
};
use tidewire::rule::{
    Arns, Destination, DestinationKind, Extensions, FilterValues, Format, Notification, NotificationOptions, Overlap,
    Rule, RuleSet, Webhook,
};
use tidewire::{Error, ErrorKind, Event};

/// A target by name.
pub type Target = (&'static str, fn(&[u8]) -> bool);

/// Every target.
pub const TARGETS: &[Target] = &[
    ("frame", frame),
    ("segment", segment),
    ("ingest", ingest),
    ("notification_xml", notification_xml),
    ("notification_json", notification_json),
    ("config", config),
    ("filter", filter),
    ("http_response", http_response),
];

// --- Frames --------------------------------------------------------------------------------------------------------

/// A frame as a segment holds it. One whose length does not fit is tried with the right one as well.
pub fn frame(data: &[u8]) -> bool {
    let mut fitted = data.to_vec();
    if let Some(len) = fitted.get_mut(4..8) {
        len.copy_from_slice(&(data.len() as u32).to_le_bytes());
    }
    check_frame(data) | check_frame(&fitted)
}

fn check_frame(bytes: &[u8]) -> bool {
    let Ok(view) = FrameView::parse(bytes) else { return false };
    let (metadata, tags): (Vec<_>, Vec<_>) = (view.metadata().collect(), view.tags().collect());
    let e = event_of(&view, &metadata, &tags);
    let _ = view.resource_hash();
    for profile in Profile::ALL {
        let text = record(*profile, &view);
        let json: Result<serde_json::Value, _> = serde_json::from_str(&text);
        assert!(json.is_ok() && !text.contains('\n'), "{profile}: {text}");
    }
    if e.validate(usize::MAX).is_ok() {
        let again = frame::encode_to_vec(&e, view.time_ns());
        let again = FrameView::parse(&again).expect("a frame just encoded");
        assert_same_frame(&view, &again);
    }
    true
}

fn event_of<'a>(f: &FrameView<'a>, metadata: &'a [(&'a str, &'a str)], tags: &'a [(&'a str, &'a str)]) -> Event<'a> {
    let mut e = Event::new(f.event_type(), f.bucket(), f.key());
    (e.time_ns, e.size, e.priority, e.origin, e.hops) = (f.time_ns(), f.size(), f.priority(), f.origin(), f.hops());
    (e.version_id, e.etag, e.requester) = (f.text(Field::VersionId), f.text(Field::Etag), f.text(Field::Requester));
    (e.source_ip, e.request_id) = (f.text(Field::SourceIp), f.text(Field::RequestId));
    (e.host_id, e.region) = (f.text(Field::HostId), f.text(Field::Region));
    (e.content_type, e.method) = (f.text(Field::ContentType), f.text(Field::Method));
    (e.user_agent, e.bucket_owner) = (f.text(Field::UserAgent), f.text(Field::BucketOwner));
    (e.metadata, e.tags, e.data) = (metadata, tags, f.field(Field::Data));
    e
}

fn assert_same_frame(a: &FrameView<'_>, b: &FrameView<'_>) {
    let fixed = |f: &FrameView<'_>| {
        let name = f.event_type().name().to_owned();
        (name, f.time_ns(), f.size(), f.priority(), f.origin(), f.hops(), f.resource_hash())
    };
    assert_eq!(fixed(a), fixed(b));
    assert!(a.metadata().eq(b.metadata()) && a.tags().eq(b.tags()), "{a:?} {b:?}");
    for field in [
        Field::Bucket,
        Field::Key,
        Field::VersionId,
        Field::Etag,
        Field::Requester,
        Field::SourceIp,
        Field::RequestId,
        Field::HostId,
        Field::Region,
        Field::ContentType,
        Field::Method,
        Field::UserAgent,
        Field::BucketOwner,
        Field::Data,
    ] {
        assert_eq!(a.field(field), b.field(field), "{field:?}");
    }
}

fn record(profile: Profile, view: &FrameView<'_>) -> String {
    let cx = RecordContext {
        id: EventId { incarnation: 1, shard: 2, sequence: 3 },
        sequencer: Sequencer { clock_ns: 4, tie: 5, writer: 6 },
        rule: "rule \"1\"",
        region: "eu-central-1",
        event_source: "",
    };
    let mut out = BytesMut::new();
    profile.write_record(view, &cx, &mut out);
    String::from_utf8(out.to_vec()).expect("records are UTF-8")
}

// --- Segments and cursors ------------------------------------------------------------------------------------------

/// A segment without its header, a header, a cursor file, the body of a dead letter: whatever a shard's directory holds.
/// Where there are checksums it is tried with right ones as well.
pub fn segment(data: &[u8]) -> bool {
    let header = SegmentHeader {
        id: 5,
        incarnation: 77,
        base_sequence: 1000,
        base_clock_ns: 10,
        created_ns: 10,
        shard: 0,
        purpose: Purpose::Events,
        previous_last: 999,
        recycled: false,
    };
    let mut file = vec![0; BLOCK_BYTES];
    header.encode(&mut file);
    file.extend_from_slice(data);
    let mut accepted = check_scan(&header, &file);
    fit_records(header.id, &mut file[BLOCK_BYTES..]);
    accepted |= check_scan(&header, &file);

    let mut block = data[..data.len().min(BLOCK_BYTES)].to_vec();
    accepted |= check_header(&block);
    fit_checksum(&mut block, 16, 72);
    accepted |= check_header(&block);

    let mut cursors = data.to_vec();
    accepted |= check_cursors(&cursors);
    if let Some(len) = cursors.get(16..20) {
        let len = u32::from_le_bytes([len[0], len[1], len[2], len[3]]) as usize;
        fit_checksum(&mut cursors, 20, 20usize.saturating_add(len));
        accepted |= check_cursors(&cursors);
    }
    accepted | check_dead_letter(data)
}

/// Gives everything that could be a record the checksum that it should have.
fn fit_records(segment: u64, bytes: &mut [u8]) {
    let mut at = 0;
    while at + record::RECORD_HEADER_BYTES <= bytes.len() {
        let len = u32::from_le_bytes([bytes[at + 4], bytes[at + 5], bytes[at + 6], bytes[at + 7]]) as usize;
        if len < record::RECORD_HEADER_BYTES || len > bytes.len() - at {
            at += 8;
            continue;
        }
        let crc = crc32c::crc32c_append(crc32c::crc32c(&segment.to_le_bytes()), &bytes[at + 4..at + len]);
        bytes[at..at + 4].copy_from_slice(&crc.to_le_bytes());
        at += len.next_multiple_of(8);
    }
}

/// Gives a header or a cursor file the checksum that it should have.
fn fit_checksum(bytes: &mut [u8], from: usize, to: usize) {
    if let (Some(format), Some(rest)) = (bytes.get(8..12), bytes.get(from..to)) {
        let crc = crc32c::crc32c_append(crc32c::crc32c(format), rest);
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
    }
}

fn check_scan(header: &SegmentHeader, file: &[u8]) -> bool {
    let mut after = header.base_sequence - 1;
    let mut end = BLOCK_BYTES;
    let mut records = 0;
    let found = recovery::scan(header, file, |at, r| {
        assert!(at >= end && at % 8 == 0 && r.sequence() > after, "record {} at {at}", r.sequence());
        (after, end, records) = (r.sequence(), at + r.padded_len(), records + 1);
        assert!(end <= file.len());
        check_record(header.id, &r);
    });
    assert_eq!((found.records, found.end), (records, end));
    assert!(found.end + found.torn_bytes <= file.len());
    for (from, to) in &found.damage {
        assert!(BLOCK_BYTES <= *from && from < to && *to <= file.len(), "{:?}", found.damage);
    }
    if let Some((_, r)) = record::first(header.id, file, BLOCK_BYTES) {
        check_record(header.id, &r);
    }
    records > 0
}

fn check_record(segment: u64, r: &RecordView<'_>) {
    let routes: Vec<_> = r.routes().collect();
    let mut bytes = vec![0xAA; record::padded_len(routes.len(), &r.extensions(), r.body().len())];
    record::encode(segment, &r.header(), &routes, &r.extensions(), r.body(), &mut bytes);
    let Parsed::Record(again) = record::parse(segment, &bytes) else { panic!("a record just encoded") };
    let fixed = |r: &RecordView<'_>| (r.header().kind, r.sequence(), r.header().clock_ns, r.header().tie);
    assert_eq!(fixed(r), fixed(&again));
    assert!(again.routes().eq(routes) && again.body() == r.body() && again.extensions() == r.extensions());
    let _ = FrameView::parse(r.body()).map(|_| check_frame(r.body()));
    check_dead_letter(r.body());
}

fn check_header(block: &[u8]) -> bool {
    let Ok(header) = SegmentHeader::decode(block) else { return false };
    let mut again = vec![0xAA; BLOCK_BYTES];
    header.encode(&mut again);
    assert_eq!(SegmentHeader::decode(&again).ok(), Some(header));
    true
}

fn check_cursors(bytes: &[u8]) -> bool {
    let Ok(cursors) = Cursors::decode(bytes) else { return false };
    assert_eq!(Cursors::decode(&cursors.encode()).as_ref().ok(), Some(&cursors));
    for lane in cursors.lanes.values() {
        assert!(lane.high() >= lane.low() && lane.is_done(lane.high()));
    }
    true
}

fn check_dead_letter(body: &[u8]) -> bool {
    let Ok(letter) = DeadLetter::decode(body) else { return false };
    let again = letter.encode();
    let again = DeadLetter::decode(&again).expect("a dead letter just encoded");
    assert!(letter.reason.starts_with(again.reason), "a long reason is cut");
    assert!(letter.answer.starts_with(again.answer), "a long answer is cut");
    assert_eq!(DeadLetter { reason: letter.reason, answer: letter.answer, ..again }, letter);
    true
}

// --- Documents with events -----------------------------------------------------------------------------------------

/// The media types that a body is read as; the first byte of the input chooses.
const MEDIA_TYPES: [&str; 6] = [
    "",
    "application/json",
    "application/cloudevents+json; charset=utf-8",
    "application/cloudevents-batch+json",
    "application/x-ndjson",
    "text/plain",
];

/// A body as the ingest over HTTP takes it: the media type is chosen by the first byte. From `0x80` on the body is the data
/// of a CloudEvent in binary mode, with the attributes in the lines before the first empty one.
pub fn ingest(data: &[u8]) -> bool {
    let Some((choice, body)) = data.split_first() else { return false };
    let mut events = Vec::new();
    let mut each = |e: &Event<'_>| {
        events.push(check_event(e));
        Ok(())
    };
    let mut scratch = body.to_vec();
    let result = if *choice < 0x80 {
        ingest::parse(&mut scratch, MEDIA_TYPES[*choice as usize % MEDIA_TYPES.len()], &mut each)
    } else {
        let end = body.windows(2).position(|w| w == b"\n\n").unwrap_or(body.len());
        let headers = body[..end].split(|b| *b == b'\n').filter_map(|line| {
            let (name, value) = line.split_at(line.iter().position(|b| *b == b':')?);
            Some((std::str::from_utf8(name).ok()?, value[1..].trim_ascii()))
        });
        ingest::parse_binary(headers, scratch.get_mut(end + 2..).unwrap_or_default(), &mut each)
    };
    match result {
        Ok(count) => assert_eq!(count, events.len()),
        Err(e) => {
            assert_eq!((e.kind(), events.len()), (ErrorKind::InvalidEvent, 0), "{e}: nothing is published by halves");
            return false;
        }
    }
    events.iter().for_each(|f| reads_back(f));
    true
}

/// Checks an event that was read and answers its frame.
fn check_event(e: &Event<'_>) -> Vec<u8> {
    e.validate(EVENT_BYTES_MAX).expect("events that are handed on keep the limits");
    let bytes = frame::encode_to_vec(e, 1);
    assert!(check_frame(&bytes), "a frame just encoded");
    bytes
}

/// What Tidewire writes it also reads, with the type, bucket and key that it had.
fn reads_back(frame: &[u8]) {
    let view = FrameView::parse(frame).expect("a frame just encoded");
    let read = [Profile::Aws, Profile::CloudEvents, Profile::CloudEventsStructured];
    for profile in read.iter().filter(|p| p.expressible(view.event_type())) {
        let text = record(*profile, &view);
        let mut body = [profile.batch_head(), text.as_bytes(), profile.batch_tail()].concat();
        let count = ingest::parse(&mut body, profile.content_type(), &mut |e| {
            assert_eq!((e.event_type, e.bucket), (view.event_type(), view.bucket()), "{text}");
            assert_eq!(e.key, view.key(), "{text}");
            Ok(())
        });
        assert_eq!(count.as_ref().ok(), Some(&1), "{count:?}: {text}");
    }
}

// --- Notification documents ----------------------------------------------------------------------------------------

/// A notification document in XML, after one byte that chooses how it is read.
pub fn notification_xml(data: &[u8]) -> bool {
    notification(data, Format::Xml)
}

/// A notification document in JSON, after one byte that chooses how it is read.
pub fn notification_json(data: &[u8]) -> bool {
    notification(data, Format::Json)
}

fn notification(data: &[u8], format: Format) -> bool {
    let Some((choice, text)) = data.split_first() else { return false };
    let Ok(text) = std::str::from_utf8(text) else { return false };
    let options = NotificationOptions {
        overlap: [Overlap::AllowDedupe, Overlap::StrictAws, Overlap::AllowAll][*choice as usize % 3],
        filter_values: if choice & 8 == 0 { FilterValues::Raw } else { FilterValues::Encoded },
        extensions: if choice & 64 == 0 { Extensions::None } else { Extensions::Ceph },
        event_bridge: (choice & 16 != 0).then(|| "bus".to_owned()),
    };
    let format = if choice & 32 == 0 { Some(format) } else { None };
    let destinations = ["images", "audit", "bus"];
    let aliases = HashMap::from([("arn:aws:sns:us-east-1:1:t".to_owned(), "audit".to_owned())]);
    let arns = Arns::new(destinations, aliases).expect("the aliases lead somewhere");
    let types = EventTypes::with_custom(["acme:Scan:Clean"]).expect("a legal name");
    let read = |text: &str, format, options: &NotificationOptions| {
        Notification { bucket: "photos", text, name: "n", format, options, arns: &arns, types: &types }.rules()
    };
    let rules = read(text, format, &options);
    assert_eq!(rules.is_ok(), read(text, format, &options).is_ok());
    let rules = match rules {
        Ok(rules) => rules,
        Err(e) => {
            assert_refused(&e, "n:");
            return false;
        }
    };
    assert_eq!(read(text, format, &options).ok().as_ref(), Some(&rules), "read again, it is the same");
    let hooks = destinations.map(|name| {
        let hook = Webhook::new("http://127.0.0.1:9/").expect("a URL");
        Destination::new(name, DestinationKind::Webhook(hook))
    });
    // A rule may name types that a destination has no record for; anything else must fit together.
    if let Err(e) = RuleSet::build(rules.clone(), hooks.into(), types.clone()) {
        assert!(e.kind() == ErrorKind::InvalidConfig && e.remedy_text().is_some(), "{e}");
    }
    let plain = NotificationOptions { filter_values: FilterValues::Raw, event_bridge: None, ..options };
    let plain_rules: Option<Vec<_>> = rules.iter().map(as_configuration).collect();
    if let Some(configurations) = plain_rules {
        let document = serde_json::json!({ "QueueConfigurations": configurations }).to_string();
        let again = read(&document, Some(Format::Json), &plain);
        // They mean the same; what they came from is another document.
        let meant = |rules: &[Rule]| rules.iter().cloned().map(|r| Rule { document: None, ..r }).collect::<Vec<_>>();
        assert_eq!(again.as_ref().ok().map(|r| meant(r)), Some(meant(&rules)), "{again:?}: {document}");
    }
    true
}

/// A rule as the JSON form of a notification document has it; `None` if its filter is not text.
fn as_configuration(rule: &Rule) -> Option<serde_json::Value> {
    let mut filter = Vec::new();
    let (prefix, suffix) = rule.filter.affixes()?;
    for (name, value) in [("prefix", prefix), ("suffix", suffix)] {
        if !value.is_empty() {
            filter.push(serde_json::json!({ "Name": name, "Value": std::str::from_utf8(value).ok()? }));
        }
    }
    Some(serde_json::json!({
        "Id": rule.id,
        "QueueArn": format!("arn:tidewire:x:::{}", rule.destinations[0]),
        "Events": rule.event_names,
        "Filter": { "Key": { "FilterRules": filter } },
    }))
}

fn assert_refused(e: &Error, file: &str) {
    let placed = e.place().is_some_and(|p| p.starts_with(file));
    assert!(e.kind() == ErrorKind::InvalidConfig && placed && e.remedy_text().is_some(), "{:?}: {e}", e.kind());
}

// --- Filters --------------------------------------------------------------------------------------------------------

/// A filter, after one byte that chooses its form. One that is accepted is written in the native form and comes back.
pub fn filter(data: &[u8]) -> bool {
    let Some((choice, text)) = data.split_first() else { return false };
    let Ok(text) = std::str::from_utf8(text) else { return false };
    let named = NamedFilters::from_json([("images", serde_json::json!({ "suffix": [".jpg", ".png"] }))]);
    let named = named.expect("a good filter");
    let read = match choice % 5 {
        0 => Filter::parse_json(text, &named),
        1 => Filter::parse_event_pattern(text, PatternOf::S3 { region: "eu-west-1" }),
        2 => Filter::parse_event_pattern(text, PatternOf::Data),
        3 => Filter::parse_cloudevents(text, SourceOf::default()),
        _ => Filter::parse_cel(text),
    };
    let filter = match read {
        Ok(filter) => filter,
        Err(e) => {
            assert!(e.kind() == ErrorKind::InvalidConfig && e.place().is_some() && e.remedy_text().is_some(), "{e}");
            return false;
        }
    };
    filter.validate().expect("what is accepted keeps the limits");
    let written = filter.to_json();
    let again = Filter::parse_json(&written.to_string(), &NamedFilters::new());
    let again = again.unwrap_or_else(|e| panic!("{written}: {e}"));
    assert_eq!(again.to_json(), written);
    let mut event = Event::new(tidewire::KnownType::ObjectCreatedPut.into(), "photos", b"in/a.jpg");
    (event.size, event.requester, event.source_ip) = (Some(5), "alice", "10.0.0.1");
    (event.tags, event.data) = (&[("env", "prod")], br#"{"a": {"b": [1, "x", null, true]}, "state": "running"}"#);
    let bytes = frame::encode_to_vec(&event, 1);
    let view = FrameView::parse(&bytes).expect("a frame just encoded");
    let passes = filter.matches_frame(view);
    assert_eq!(passes, again.matches_frame(view), "{written}");
    assert_eq!(passes, filter.explain(view).is_empty(), "{written}");
    assert!(filter.verdict().is_none_or(|v| v == passes), "{written}");
    true
}

// --- Configuration files -------------------------------------------------------------------------------------------

/// A configuration file.
pub fn config(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else { return false };
    match Config::from_toml(text, "file.toml", Path::new("/no/such/directory")) {
        Ok(c) => {
            c.engine.validate().expect("what is accepted keeps the limits");
            for d in &c.rules.destinations {
                d.validate().expect("what is accepted keeps the limits");
            }
            true
        }
        Err(e) if e.kind() == ErrorKind::Io => false, // A document that it names is not there.
        Err(e) => {
            assert_refused(&e, "file.toml:");
            false
        }
    }
}

// --- Answers over HTTP ---------------------------------------------------------------------------------------------

/// The bytes that an endpoint sends. The first byte chooses the pieces that they arrive in: what is read must not depend on
/// that.
pub fn http_response(data: &[u8]) -> bool {
    let Some((pieces, bytes)) = data.split_first() else { return false };
    let _ = parse_http_date(bytes);
    let whole = answer(bytes, bytes.len().max(1));
    let in_pieces = answer(bytes, 1 + *pieces as usize % 40);
    assert_eq!(whole, in_pieces, "in one piece, and in several");
    match whole {
        Ok((_, response)) => {
            assert!((200..=999).contains(&response.status));
            assert!(response.body_start.len() <= BODY_KEPT_BYTES_MAX);
            assert!(response.location.as_ref().is_none_or(|l| l.len() <= LOCATION_BYTES_MAX));
            let _ = (classify(response.status), describe(&response));
            true
        }
        Err(e) => {
            assert!(!e.to_string().is_empty());
            false
        }
    }
}

/// Feeds a parser to the end of the connection.
fn answer(bytes: &[u8], piece: usize) -> Result<(State, Response), ResponseError> {
    let mut parser = ResponseParser::new();
    for piece in bytes.chunks(piece) {
        let progress = parser.feed(piece)?;
        assert!(progress.consumed <= piece.len());
        assert!(progress.consumed == piece.len() || progress.state != State::NeedMore, "bytes were left");
    }
    let state = parser.eof()?;
    let response = parser.take_response().expect("the answer is complete");
    assert!(parser.zero_bytes_seen() && parser.status().is_none(), "the parser starts anew");
    Ok((state, response))
}
