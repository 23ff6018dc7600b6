//! Records written from events: one file per profile.
//!
//! A profile is the shape that a consumer expects. Records are written straight from frames, each once per profile,
//! and joined to a document by head, separator and tail.

mod aws;
pub(crate) mod cloudevents;
mod note;
pub(crate) mod text;

use std::fmt;

use bytes::BytesMut;

pub use note::DeadNote;

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
    /// CloudEvents 1.0 in the structured JSON format, batched as a JSON array. Takes every event.
    CloudEvents,
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
    fn source(&self) -> &str {
        if self.event_source.is_empty() { EVENT_SOURCE_DEFAULT } else { self.event_source }
    }
}

impl Profile {
    /// Every profile.
    pub const ALL: &'static [Profile] = &[Profile::Aws, Profile::CloudEvents];

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
            Profile::CloudEvents => "cloudevents",
        }
    }

    /// Appends the record of one event to `out`, without a separator. The record is one line of valid JSON whatever
    /// the event holds; a type that is not [`Profile::expressible`] is written as well as the profile can.
    pub fn write_record(&self, frame: &FrameView<'_>, cx: &RecordContext<'_>, out: &mut BytesMut) {
        match self {
            Profile::Aws => aws::write(frame, cx, out),
            Profile::CloudEvents => cloudevents::write(frame, cx, out),
        }
    }

    /// As [`Profile::write_record`], for an event of a replay: the record says so by its last member, `replay`, the
    /// replay's name. All else, the event's id too, is as it was the first time.
    pub fn write_replayed(&self, frame: &FrameView<'_>, cx: &RecordContext<'_>, replay: &str, out: &mut BytesMut) {
        self.write_record(frame, cx, out);
        // A record is an object of several members in both profiles; for CloudEvents the member is an extension.
        match self {
            Profile::Aws | Profile::CloudEvents => {
                out.truncate(out.len() - 1);
                out.extend_from_slice(b",\"replay\":");
                text::string(out, replay);
                out.extend_from_slice(b"}");
            }
        }
    }

    /// What comes before the first record of a document.
    pub fn batch_head(&self) -> &'static [u8] {
        match self {
            Profile::Aws => b"{\"Records\":[",
            Profile::CloudEvents => b"[",
        }
    }

    /// What comes between two records.
    pub fn separator(&self) -> &'static [u8] {
        b","
    }

    /// What comes after the last record of a document.
    pub fn batch_tail(&self) -> &'static [u8] {
        match self {
            Profile::Aws => b"]}",
            Profile::CloudEvents => b"]",
        }
    }

    /// The media type of a document.
    pub fn content_type(&self) -> &'static str {
        match self {
            Profile::Aws => "application/json",
            Profile::CloudEvents => "application/cloudevents-batch+json",
        }
    }

    /// Whether the profile has a form for events of this type. A rule that joins a type to a profile that has none
    /// is refused when it is loaded.
    pub fn expressible(&self, t: EventType<'_>) -> bool {
        match self {
            Profile::Aws => t.scope() == Scope::Object,
            Profile::CloudEvents => true,
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
        let e = Profile::parse("xyz").expect_err("unknown");
        assert_eq!(e.remedy_text(), Some("use one of: aws, cloudevents"));
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
