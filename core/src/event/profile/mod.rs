//! Records written from events: one file per profile.
//!
//! A profile is the shape that a consumer expects. Records are written straight from frames, each once per profile,
//! and joined to a document by head, separator and tail.

mod aws;
mod azure;
mod ceph;
mod choice;
pub(crate) mod cloudevents;
mod debezium;
pub(crate) mod eventbridge;
mod gcs;
mod minio;
mod note;
pub(crate) mod text;

use std::fmt;

use bytes::BytesMut;

pub use choice::Choice;
pub(crate) use choice::Shown;
pub use note::DeadNote;
pub(crate) use note::Story;

use super::frame::Field;
use super::{EventId, EventType, FrameView, Scope, Sequencer};
use crate::error::{Error, Result};

/// What [`RecordContext::event_source`] is when nothing else is configured.
pub const EVENT_SOURCE_DEFAULT: &str = "aws:s3";

/// The shape of the records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Profile {
    /// The event message structure of Amazon S3: `{"Records":[...]}`. Takes events of objects only.
    #[default]
    Aws,
    /// The document of MinIO: `{"EventName", "Key", "Records":[...]}`, one event each. Takes what MinIO tells of.
    Minio,
    /// The records of the RADOS gateway of Ceph: `{"Records":[...]}`. Takes what Ceph tells of.
    Ceph,
    /// The events that S3 sends to Amazon EventBridge, one to a document. Takes what S3 sends there.
    EventBridge,
    /// What a push subscription of Pub/Sub posts for Google Cloud Storage, one event each. Takes what that tells of.
    Gcs,
    /// Azure Event Grid for blobs, in the Event Grid schema, as a JSON array. Takes what that tells of.
    Azure,
    /// CloudEvents 1.0 in the JSON format, batched as a JSON array. Takes every event.
    CloudEvents,
    /// CloudEvents 1.0 in the structured mode: one event of the JSON format. Takes every event.
    CloudEventsStructured,
    /// CloudEvents 1.0 in the binary mode: the attributes in headers, one event each. Takes every event.
    CloudEventsBinary,
    /// Change events of Debezium, one to a document. Takes what creates, changes or removes objects.
    Debezium,
}

/// What a record says that is not in the event itself.
#[derive(Clone, Copy, Debug)]
pub struct RecordContext<'a> {
    /// The event's id. Also stands for the trace ids of the request if the host gave none, so that consumers who
    /// tell events apart by those still do.
    pub id: EventId,
    /// The event's place in the order of its key.
    pub sequencer: Sequencer,
    /// The id of the rule that matched (`configurationId`).
    pub rule: &'a str,
    /// The region of an event that names none.
    pub region: &'a str,
    /// The `eventSource`, such as `aws:s3`; empty means [`EVENT_SOURCE_DEFAULT`].
    pub event_source: &'a str,
}

impl RecordContext<'_> {
    pub(crate) fn source(&self) -> &str {
        if self.event_source.is_empty() { EVENT_SOURCE_DEFAULT } else { self.event_source }
    }

    fn region_of<'a>(&'a self, frame: &FrameView<'a>) -> &'a str {
        let own = frame.text(Field::Region);
        if own.is_empty() { self.region } else { own }
    }
}

/// Writes a key as a JSON string, with U+FFFD for what is not UTF-8. `false` if it has such, and its exact form must stand
/// beside it.
fn raw_key(out: &mut BytesMut, key: &[u8]) -> bool {
    text::lossy_string(out, key)
}

/// A UUID (version 8, RFC 9562) made from the event's id.
fn uuid(id: EventId) -> String {
    let hash = xxhash_rust::xxh3::xxh3_128(&text::event_id(id));
    let n = (hash & !(0xF << 76 | 0b11 << 62)) | 8 << 76 | 0b10 << 62;
    let hex = format!("{n:032x}");
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

impl Profile {
    /// Every profile.
    pub const ALL: &'static [Profile] = &[
        Profile::Aws,
        Profile::Minio,
        Profile::Ceph,
        Profile::EventBridge,
        Profile::Gcs,
        Profile::Azure,
        Profile::CloudEvents,
        Profile::CloudEventsStructured,
        Profile::CloudEventsBinary,
        Profile::Debezium,
    ];

    /// The profile of a name, as the configuration writes it.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidConfig`] that suggests the nearest name.
    pub fn parse(name: &str) -> Result<Profile> {
        if let Some(p) = Profile::ALL.iter().find(|p| p.name() == name) {
            return Ok(*p);
        }
        let near = Profile::ALL
            .iter()
            .map(|p| (strsim::jaro_winkler(p.name(), &name.to_ascii_lowercase()), p.name()))
            .max_by(|a, b| a.0.total_cmp(&b.0))
            .filter(|(score, _)| *score > 0.7);
        let e = Error::invalid_config(format!("unknown profile `{name}`")).at("profile");
        Err(match near {
            Some((_, near)) => e.remedy(format!("did you mean `{near}`?")),
            None => {
                let names: Vec<&str> = Profile::ALL.iter().map(|p| p.name()).collect();
                e.remedy(format!("use one of: {}", names.join(", ")))
            }
        })
    }

    /// The name, as the configuration writes it.
    pub fn name(self) -> &'static str {
        match self {
            Profile::Aws => "aws",
            Profile::Minio => "minio",
            Profile::Ceph => "ceph",
            Profile::EventBridge => "eventbridge",
            Profile::Gcs => "gcs",
            Profile::Azure => "azure",
            Profile::CloudEvents => "cloudevents",
            Profile::CloudEventsStructured => "cloudevents-structured",
            Profile::CloudEventsBinary => "cloudevents-binary",
            Profile::Debezium => "debezium",
        }
    }

    /// Appends the record of one event to `out`, without a separator. The record is one line of valid JSON whatever
    /// the event holds; a type that is not [`Profile::expressible`] is written as well as the profile can. That of
    /// [`Profile::CloudEventsBinary`] is the whole event in the JSON format: headers are for who sends it.
    pub fn write_record(&self, frame: &FrameView<'_>, cx: &RecordContext<'_>, out: &mut BytesMut) {
        self.write_shown(frame, cx, &Shown::ALL, out);
    }

    /// As [`Profile::write_record`], with the metadata, tags and data that are shown.
    #[inline]
    pub(crate) fn write_shown(
        &self,
        frame: &FrameView<'_>,
        cx: &RecordContext<'_>,
        shown: &Shown<'_>,
        out: &mut BytesMut,
    ) {
        match self {
            Profile::Aws => aws::write(frame, cx, shown, out),
            Profile::Minio => minio::write(frame, cx, shown, out),
            Profile::Ceph => ceph::write(frame, cx, shown, out),
            Profile::EventBridge => eventbridge::write(frame, cx, shown, out),
            Profile::Gcs => gcs::write(frame, cx, shown, out),
            Profile::Azure => azure::write(frame, cx, shown, out),
            Profile::CloudEvents | Profile::CloudEventsStructured | Profile::CloudEventsBinary => {
                cloudevents::write(frame, cx, shown, out);
            }
            Profile::Debezium => debezium::write(frame, cx, shown, out),
        }
    }

    /// Appends an event of CloudEvents in binary mode: the lines of its headers, and its data.
    pub(crate) fn write_binary(
        &self,
        frame: &FrameView<'_>,
        cx: &RecordContext<'_>,
        shown: &Shown<'_>,
        story: &Story<'_>,
        headers: &mut BytesMut,
        body: &mut BytesMut,
    ) {
        cloudevents::write_binary(frame, cx, shown, story, headers, body);
    }

    /// As [`Profile::write_record`], for an event of a replay: the record says so by its last member, `replay`, the
    /// replay's name. All else, the event's id too, is as it was the first time.
    pub fn write_replayed(&self, frame: &FrameView<'_>, cx: &RecordContext<'_>, replay: &str, out: &mut BytesMut) {
        self.write_record(frame, cx, out);
        self.add(&Story { replay: Some(replay), ..Story::default() }, out);
    }

    /// Whether a document is one event, so that each event has a request of its own.
    pub fn is_single(self) -> bool {
        match self {
            Profile::Aws | Profile::Ceph | Profile::Azure | Profile::CloudEvents => false,
            Profile::Minio
            | Profile::EventBridge
            | Profile::Gcs
            | Profile::CloudEventsStructured
            | Profile::CloudEventsBinary
            | Profile::Debezium => true,
        }
    }

    /// What comes before the first record of a document.
    pub fn batch_head(&self) -> &'static [u8] {
        match self {
            Profile::Aws | Profile::Ceph => b"{\"Records\":[",
            Profile::CloudEvents | Profile::Azure => b"[",
            _ => b"",
        }
    }

    /// What comes between two records.
    pub fn separator(&self) -> &'static [u8] {
        if self.is_single() { b"" } else { b"," }
    }

    /// What comes after the last record of a document.
    pub fn batch_tail(&self) -> &'static [u8] {
        match self {
            Profile::Aws | Profile::Ceph => b"]}",
            Profile::CloudEvents | Profile::Azure => b"]",
            _ => b"",
        }
    }

    /// The media type of a document.
    pub fn content_type(&self) -> &'static str {
        match self {
            Profile::CloudEvents => "application/cloudevents-batch+json",
            Profile::CloudEventsStructured => "application/cloudevents+json",
            _ => "application/json",
        }
    }

    /// Whether the profile has a form for events of this type. A rule that joins a type to a profile that has none
    /// is refused when it is loaded.
    pub fn expressible(&self, t: EventType<'_>) -> bool {
        match self {
            Profile::Aws => t.scope() == Scope::Object,
            Profile::Minio => minio::name(t).is_some(),
            Profile::Ceph => ceph::expressible(t),
            Profile::EventBridge => eventbridge::expressible(t),
            Profile::Gcs => gcs::name(t).is_some(),
            Profile::Azure => azure::names(t).is_some(),
            Profile::CloudEvents | Profile::CloudEventsStructured | Profile::CloudEventsBinary => true,
            Profile::Debezium => debezium::change(t).is_some(),
        }
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use crate::event::KnownType;

    #[test]
    fn names_are_parsed_and_the_nearest_is_suggested() {
        for p in Profile::ALL {
            assert_eq!(Profile::parse(p.name()).ok(), Some(*p));
        }
        for (wrong, near) in [("AWS", "aws"), ("cloudevent", "cloudevents"), ("cloud-events", "cloudevents")] {
            let e = Profile::parse(wrong).expect_err(wrong);
            assert_eq!(e.kind(), ErrorKind::InvalidConfig);
            assert_eq!(e.remedy_text(), Some(&*format!("did you mean `{near}`?")));
        }
        let names: Vec<&str> = Profile::ALL.iter().map(|p| p.name()).collect();
        let e = Profile::parse("xyz").expect_err("unknown");
        assert_eq!(e.remedy_text(), Some(&*format!("use one of: {}", names.join(", "))));
    }

    #[test]
    fn aws_takes_events_of_objects_only() {
        for t in [KnownType::ObjectCreatedPut, KnownType::ReplicationFailed, KnownType::ObjectAccessedGet] {
            assert!(Profile::Aws.expressible(t.into()), "{}", t.name());
        }
        for t in [
            EventType::from(KnownType::BucketCreated),
            KnownType::TestEvent.into(),
            KnownType::AccessDeniedRead.into(),
            KnownType::SystemHealthOk.into(),
            EventType::Custom("acme:Scan"),
        ] {
            assert!(!Profile::Aws.expressible(t), "{t}");
            assert!(Profile::CloudEvents.expressible(t), "{t}");
        }
    }
}
