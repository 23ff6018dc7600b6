//! Formats at work: what a receiver is sent, and what becomes of events that a template has no record for.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::common::*;
use serde_json::Value;
use tidewire::auth::Secret;
use tidewire::event::format::{Encoding, Escape, Template};
use tidewire::event::profile::{Choice, Profile};
use tidewire::rule::{Backlog, BatchLimits, Destination, DestinationKind, Expect};
use tidewire::wire::{Aes128Gcm, Compression, CompressionAlgorithm, Encryption, Jwe, JweAlgorithm};
use tidewire::{Ack, DeadLetterFilter, Engine, Event, KnownType, PublishOptions};
use tidewire_receiver::{Behaviour, Hit, Receiver, Reply};

/// A request as it came.
#[derive(Clone)]
struct Request {
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Request {
    fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(n, _)| n == name).map_or("", |(_, v)| v)
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

type Seen = Arc<Mutex<Vec<Request>>>;

fn watched(answer: impl Fn(&Hit<'_>) -> Reply + Send + Sync + 'static) -> (Receiver, Seen) {
    let seen = Seen::default();
    let into = seen.clone();
    let r = receiver(Behaviour::decide(move |hit| {
        let headers = hit.headers.iter().map(|(n, v)| (n.as_str().to_owned(), v.to_str().unwrap().to_owned()));
        into.lock().unwrap().push(Request { headers: headers.collect(), body: hit.body.to_vec() });
        answer(hit)
    }));
    (r, seen)
}

fn publish(engine: &Engine, key: &str, version: &str) {
    let mut e = Event::new(KnownType::ObjectCreatedPut.into(), "bucket", key.as_bytes());
    (e.version_id, e.metadata) = (version, &[("album", "x")]);
    engine.publish_with(&e, &PublishOptions { ack: Ack::Memory, ..PublishOptions::default() }).unwrap();
}

fn template(text: &str) -> Option<Template> {
    Some(Template::new(text, Escape::Json).unwrap())
}

fn lingering(name: &str, url: &str) -> Destination {
    let mut d = hook(name, url);
    d.batch = BatchLimits { events_max: 3, linger: Duration::from_secs(5), ..BatchLimits::default() };
    d
}

fn requests(seen: &Seen) -> Vec<Request> {
    seen.lock().unwrap().clone()
}

#[test]
fn binary_cloudevents_have_a_request_and_headers_each() {
    let dir = tempfile::tempdir().unwrap();
    let (r, seen) = watched(|_| Reply::status(204));
    let mut d = lingering("hook", &r.url());
    d.profile = Profile::CloudEventsBinary;
    let engine = open(dir.path(), 1, passing(vec![d]));
    ["a", "b é\r\nX-Injected: 1", "c"].iter().for_each(|key| publish(&engine, key, "v"));
    engine.flush(WAIT).unwrap();
    let got = requests(&seen);
    assert_eq!(got.len(), 3);
    for request in &got {
        assert_eq!(request.header("ce-specversion"), "1.0");
        assert_eq!(request.header("content-type"), "application/json");
        assert_eq!(request.header("x-injected"), "");
        assert_eq!(request.json()["s3"]["bucket"]["name"], "bucket");
        assert_eq!(request.json()["eventId"], request.header("ce-id"));
    }
    let mut subjects: Vec<&str> = got.iter().map(|r| r.header("ce-subject")).collect();
    subjects.sort_unstable();
    assert_eq!(subjects, ["a", "b+%25C3%25A9%250D%250AX-Injected%253A+1", "c"]);
    engine.close(WAIT).unwrap();
}

#[test]
fn lines_and_xml_are_whole_documents() {
    let dir = tempfile::tempdir().unwrap();
    let (lines, seen_lines) = watched(|_| Reply::status(204));
    let (xml, seen_xml) = watched(|_| Reply::status(204));
    let mut first = lingering("lines", &lines.url());
    (first.profile, first.format.encoding) = (Profile::EventBridge, Encoding::NdJson);
    let mut second = lingering("xml", &xml.url());
    second.format.encoding = Encoding::Xml;
    (second.format.metadata, second.format.tags) = (Choice::None, Choice::None);
    let engine = open(dir.path(), 1, passing(vec![first, second]));
    ["a", "b", "c"].iter().for_each(|key| publish(&engine, key, "v"));
    engine.flush(WAIT).unwrap();
    let got = requests(&seen_lines);
    assert_eq!(got.len(), 1);
    assert_eq!(got[0].header("content-type"), "application/x-ndjson");
    let lines: Vec<Value> = got[0].text().lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!((lines.len(), got[0].text().ends_with('\n')), (3, true));
    let got = requests(&seen_xml);
    assert_eq!((got.len(), got[0].header("content-type")), (1, "application/xml"));
    assert_eq!(got[0].text().matches("<Record>").count(), 3);
    assert!(got[0].text().ends_with("</Records>") && !got[0].text().contains("userMetadata"));
    engine.close(WAIT).unwrap();
}

/// hookdeck/outpost PR #957: an error of a template was retried, and then gone with nobody told why.
#[test]
fn a_template_on_an_absent_field_is_a_dead_letter_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let (r, seen) = watched(|_| Reply::status(204));
    let mut d = lingering("hook", &r.url());
    d.profile = Profile::CloudEvents;
    d.format.encoding = Encoding::NdJson;
    d.format.template = template("{\"key\": {{ event.key }}, \"version\": {{ event.version_id }}}");
    let engine = open(dir.path(), 1, passing(vec![d]));
    for (key, version) in [("a", "1"), ("b", ""), ("c", "3")] {
        publish(&engine, key, version);
    }
    engine.flush(WAIT).unwrap();
    let mut keys: Vec<String> = Vec::new();
    for request in requests(&seen) {
        keys.extend(request.text().lines().map(|l| serde_json::from_str::<Value>(l).unwrap()["key"].to_string()));
    }
    keys.sort();
    assert_eq!(keys, ["\"a\"", "\"c\""]);
    let letters = engine.dead_letters(&DeadLetterFilter::default(), None, 10).unwrap();
    let letters: Vec<_> = letters.iter().map(|l| (l.key.clone(), l.reason.clone(), l.attempts)).collect();
    assert_eq!(letters.len(), 1);
    let (key, reason, attempts) = &letters[0];
    assert_eq!((key.as_slice(), *attempts), (&b"b"[..], 0));
    assert!(reason.contains("event.version_id") && reason.contains("undefined"), "{reason}");
    let stats = engine.stats().destinations[0].clone();
    assert_eq!((stats.delivered, stats.dead_lettered), (2, 1));
    engine.close(WAIT).unwrap();
}

#[test]
fn headers_are_made_from_the_event() {
    let dir = tempfile::tempdir().unwrap();
    let (r, seen) = watched(|_| Reply::status(204));
    let mut d = lingering("hook", &r.url());
    let header = Template::new("{{ event.bucket }}/{{ event.key }}", Escape::Header).unwrap();
    d.format.header_templates = vec![("X-Resource".into(), header)];
    let engine = open(dir.path(), 1, passing(vec![d]));
    ["a", "b\r\nX-Injected: 1"].iter().for_each(|key| publish(&engine, key, "v"));
    engine.flush(WAIT).unwrap();
    let got = requests(&seen);
    let mut values: Vec<&str> = got.iter().map(|r| r.header("x-resource")).collect();
    values.sort_unstable();
    assert_eq!(values, ["bucket/a", "bucket/b%0D%0AX-Injected:%201"]);
    assert!(got.iter().all(|r| r.header("x-injected").is_empty() && r.json()["Records"][0]["s3"].is_object()));
    engine.close(WAIT).unwrap();
}

/// What waits in memory in the format of before would be put between the head and the tail of another one.
#[test]
fn what_waits_is_written_anew_when_the_format_changes() {
    let dir = tempfile::tempdir().unwrap();
    let (down, _) = watched(|_| Reply::status(503));
    let (up, seen) = watched(|_| Reply::status(204));
    let mut d = lingering("hook", &down.url());
    d.batch.linger = Duration::ZERO;
    let engine = open(dir.path(), 1, passing(Vec::new()));
    engine.put_destination(d.clone(), Expect::Absent, &Backlog::Keep).unwrap();
    engine.put_rule(everything("all").with_destination("hook"), Expect::Absent).unwrap();
    (0..20).for_each(|n| publish(&engine, &format!("k{n}"), "v"));
    until("some were tried", || engine.stats().destinations.iter().any(|d| d.failures > 0));
    let mut changed = hook("hook", &up.url());
    (changed.profile, changed.batch.linger) = (Profile::CloudEventsBinary, Duration::ZERO);
    engine.put_destination(changed, Expect::Anything, &Backlog::Keep).unwrap();
    engine.flush(WAIT).unwrap();
    let mut subjects: Vec<String> = requests(&seen).iter().map(|r| r.header("ce-subject").to_owned()).collect();
    subjects.sort();
    subjects.dedup();
    assert_eq!(subjects.len(), 20);
    for request in requests(&seen) {
        assert_eq!(request.json()["s3"]["object"]["key"], request.header("ce-subject"));
    }
    engine.close(WAIT).unwrap();
}

#[test]
fn a_template_survives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (r, seen) = watched(|_| Reply::status(204));
    let engine = open(dir.path(), 1, passing(Vec::new()));
    let mut d = lingering("hook", &r.url());
    d.profile = Profile::CloudEvents;
    d.format.template = template("[{{ event.type }}]");
    engine.put_destination(d, Expect::Absent, &Backlog::Keep).unwrap();
    engine.put_rule(everything("all").with_destination("hook"), Expect::Absent).unwrap();
    engine.close(WAIT).unwrap();
    drop(engine);
    let engine = open(dir.path(), 1, passing(Vec::new()));
    publish(&engine, "a", "v");
    engine.flush(WAIT).unwrap();
    let got = requests(&seen);
    assert_eq!((got.len(), got[0].text()), (1, "[\"s3:ObjectCreated:Put\"]"));
    engine.close(WAIT).unwrap();
}

/// What a receiver is sent for three events.
fn sent(change: impl FnOnce(&mut Destination)) -> Vec<Request> {
    let dir = tempfile::tempdir().unwrap();
    let (r, seen) = watched(|_| Reply::status(204));
    let mut d = lingering("hook", &r.url());
    change(&mut d);
    let engine = open(dir.path(), 1, passing(vec![d]));
    ["a", "b", "c"].iter().for_each(|key| publish(&engine, key, "v"));
    engine.flush(WAIT).unwrap();
    engine.close(WAIT).unwrap();
    requests(&seen)
}

fn with_wire(d: &mut Destination, compression: Option<CompressionAlgorithm>, encryption: Option<Encryption>) {
    let DestinationKind::Webhook(w) = &mut d.kind else { unreachable!() };
    (w.compression, w.encryption) = (compression.map(Compression::new), encryption);
}

/// vector#22007, vector PR #5355: the receiver took the bytes of gzip for JSON.
#[test]
fn gzip_body_without_content_encoding() {
    for (algorithm, name) in CompressionAlgorithm::ALL {
        let got = sent(|d| with_wire(d, Some(algorithm), None));
        assert_eq!((got.len(), got[0].header("content-encoding")), (1, name));
        assert_eq!(got[0].header("content-length"), got[0].body.len().to_string());
        assert!(serde_json::from_slice::<Value>(&got[0].body).is_err());
    }
    // Below the threshold it goes as it is, and does not say otherwise.
    let got = sent(|d| {
        with_wire(d, Some(CompressionAlgorithm::Gzip), None);
        d.profile = Profile::Debezium;
    });
    assert!(got.iter().all(|r| r.header("content-encoding").is_empty() && r.json()["op"] == "c"));
}

/// vector#20012, vector#12103: a table of what is documented.
#[test]
fn content_type_and_encoding_are_not_what_is_documented() {
    use Encoding::{Json, NdJson, Xml};
    use Profile::*;
    let jwe =
        || Encryption::Jwe(Jwe::new(JweAlgorithm::Dir, Secret::text("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=")));
    let aes = || Encryption::Aes128Gcm(Aes128Gcm::new(Secret::text("AAECAwQFBgcICQoLDA0ODw==")));
    let gzip = Some(CompressionAlgorithm::Gzip);
    for (profile, encoding, compression, encryption, content_type, content_encoding, count) in [
        (Aws, Json, None, None, "application/json", "", 1),
        (Aws, NdJson, gzip, None, "application/x-ndjson", "gzip", 1),
        (Aws, Xml, None, None, "application/xml", "", 1),
        (CloudEvents, Json, None, None, "application/cloudevents-batch+json", "", 1),
        (CloudEvents, Xml, gzip, None, "application/cloudevents-batch+xml", "gzip", 1),
        (CloudEventsStructured, Json, None, None, "application/cloudevents+json", "", 3),
        (CloudEventsStructured, Xml, None, None, "application/cloudevents+xml", "", 3),
        (CloudEventsBinary, Json, None, None, "application/json", "", 3),
        (Aws, Json, None, Some(jwe()), "application/jose", "", 1),
        (Aws, Json, gzip, Some(jwe()), "application/jose", "", 1),
        (Aws, Json, None, Some(aes()), "application/json", "aes128gcm", 1),
        (Aws, Json, gzip, Some(aes()), "application/json", "gzip, aes128gcm", 1),
        (CloudEventsBinary, Json, None, Some(aes()), "application/json", "aes128gcm", 3),
    ] {
        let what = format!("{profile} {encoding:?} {compression:?} {encryption:?}");
        let got = sent(|d| {
            (d.profile, d.format.encoding) = (profile, encoding);
            with_wire(d, compression, encryption);
        });
        assert_eq!(got.len(), count, "{what}");
        for request in &got {
            assert_eq!(request.header("content-type"), content_type, "{what}");
            assert_eq!(request.header("content-encoding"), content_encoding, "{what}");
            assert_eq!(request.header("content-length"), request.body.len().to_string(), "{what}");
            assert_eq!(request.header("ce-id").is_empty(), profile != CloudEventsBinary, "{what}");
        }
    }
}
