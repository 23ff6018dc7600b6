//! What a record says more than its event: that it is of a replay, what was left out of it, and for a dead-letter destination
//! where the event could not be delivered, and why.

use bytes::{BufMut, BytesMut};

use super::{Profile, text};

/// The story of an event that was given up.
#[derive(Clone, Copy, Debug)]
pub struct DeadNote<'a> {
    /// The destination that could not be told.
    pub destination: &'a str,
    /// What went wrong.
    pub reason: &'a str,
    /// How often delivery was tried.
    pub attempts: u32,
    /// The status of the last answer; 0 if there was none, and then it is left out.
    pub status: u16,
    /// When it was given up, ns since the epoch.
    pub given_up_ns: u64,
    /// How often the event came out of the dead letters, this time included.
    pub hops: u8,
}

/// What is added to a record.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Story<'a> {
    /// The replay's name.
    pub(crate) replay: Option<&'a str>,
    pub(crate) note: Option<&'a DeadNote<'a>>,
    /// What was left out of the record because it was too large.
    pub(crate) left_out: &'a [&'static str],
}

/// A value that is added.
enum Value<'a> {
    Text(&'a str),
    Number(u64),
}

/// Where and how a profile takes what is added.
enum Style {
    /// As members `replay`, `truncated` and the object `deadLetter`.
    Members,
    /// As extension attributes of CloudEvents: names in lower case, no objects.
    Attributes,
    /// As strings beside other strings.
    Strings,
}

impl DeadNote<'_> {
    /// Its parts: the name as a member, as an attribute, and the value. `reason` is the reason without control characters,
    /// which an attribute must not have.
    fn parts<'a>(&'a self, reason: &'a str, time: &'a str) -> Vec<(&'static str, &'static str, Value<'a>)> {
        let mut parts = vec![
            ("destination", "deadletterfrom", Value::Text(self.destination)),
            ("reason", "deadletterreason", Value::Text(reason)),
            ("attempts", "deadletterattempts", Value::Number(self.attempts.into())),
        ];
        if self.status != 0 {
            parts.push(("status", "deadletterstatus", Value::Number(self.status.into())));
        }
        parts.push(("hops", "deadletterhops", Value::Number(self.hops.into())));
        parts.push(("givenUpTime", "deadlettertime", Value::Text(time)));
        parts
    }

    fn plain_reason(&self) -> String {
        self.reason.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
    }

    fn time(&self) -> String {
        String::from_utf8_lossy(&text::timestamp(self.given_up_ns)).into_owned()
    }
}

impl Story<'_> {
    fn is_empty(&self) -> bool {
        self.replay.is_none() && self.note.is_none() && self.left_out.is_empty()
    }

    /// Everything as attributes of CloudEvents.
    pub(super) fn attributes(&self, mut each: impl FnMut(&str, &str)) {
        if let Some(name) = self.replay {
            each("replay", name);
        }
        if !self.left_out.is_empty() {
            each("truncated", &self.left_out.join(","));
        }
        if let Some(note) = self.note {
            let (reason, time) = (note.plain_reason(), note.time());
            for (_, name, value) in note.parts(&reason, &time) {
                match value {
                    Value::Text(text) => each(name, text),
                    Value::Number(n) => each(name, itoa::Buffer::new().format(n)),
                }
            }
        }
    }
}

fn member(name: &str, value: &Value<'_>, as_text: bool, out: &mut BytesMut) {
    match value {
        Value::Text(text) => text::member(out, name, text),
        Value::Number(n) if as_text => text::member(out, name, itoa::Buffer::new().format(*n)),
        Value::Number(n) => {
            out.put_slice(b",\"");
            out.put_slice(name.as_bytes());
            out.put_slice(b"\":");
            text::number(out, *n);
        }
    }
}

impl Profile {
    fn style(self) -> Style {
        match self {
            Profile::CloudEvents | Profile::CloudEventsStructured | Profile::CloudEventsBinary => Style::Attributes,
            Profile::Gcs => Style::Strings,
            _ => Style::Members,
        }
    }

    /// What ends a record, after the last member of the object to which more can be added.
    fn record_tail(self) -> &'static [u8] {
        match self {
            Profile::Minio => b"}]}",
            Profile::EventBridge | Profile::Azure => b"}}",
            Profile::Gcs => b"}}}",
            _ => b"}",
        }
    }

    /// Adds to the record that `out` ends with.
    pub(crate) fn add(self, story: &Story<'_>, out: &mut BytesMut) {
        if story.is_empty() {
            return;
        }
        let tail = self.record_tail();
        out.truncate(out.len().saturating_sub(tail.len()));
        match self.style() {
            Style::Members => {
                if let Some(name) = story.replay {
                    text::member(out, "replay", name);
                }
                for (i, what) in story.left_out.iter().enumerate() {
                    out.put_slice(if i == 0 { b",\"truncated\":[" } else { b"," });
                    text::string(out, what);
                }
                if !story.left_out.is_empty() {
                    out.put_u8(b']');
                }
                if let Some(note) = story.note {
                    let (reason, time) = (note.plain_reason(), note.time());
                    out.put_slice(b",\"deadLetter\":{");
                    let start = out.len();
                    for (name, _, value) in note.parts(&reason, &time) {
                        member(name, &value, false, out);
                    }
                    // The first member has no comma before it.
                    let members = out.split_off(start);
                    out.put_slice(&members[1..]);
                    out.put_u8(b'}');
                }
            }
            Style::Attributes | Style::Strings => {
                if let Some(name) = story.replay {
                    text::member(out, "replay", name);
                }
                if !story.left_out.is_empty() {
                    text::member(out, "truncated", &story.left_out.join(","));
                }
                if let Some(note) = story.note {
                    let (reason, time) = (note.plain_reason(), note.time());
                    let as_text = matches!(self.style(), Style::Strings);
                    for (_, name, value) in note.parts(&reason, &time) {
                        member(name, &value, as_text, out);
                    }
                }
            }
        }
        out.put_slice(tail);
    }

    /// Adds a note to the record that `out` ends with: where records are of JSON members, the member `deadLetter`; in
    /// `cloudevents` the extension attributes `deadletterfrom`, `deadletterreason`, `deadletterattempts`,
    /// `deadletterstatus`, `deadlettertime` and `deadletterhops`, which in `gcs` are attributes of the message.
    pub fn write_note(&self, note: &DeadNote<'_>, out: &mut BytesMut) {
        self.add(&Story { note: Some(note), ..Story::default() }, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::profile::RecordContext;
    use crate::event::{Event, EventId, FrameView, KnownType, Sequencer, frame};

    #[test]
    fn a_note_leaves_the_record_valid_and_as_it_was() {
        let event = Event::new(KnownType::ObjectCreatedPut.into(), "bucket", b"key");
        let frame = frame::encode_to_vec(&event, 1);
        let cx = RecordContext {
            id: EventId { incarnation: 1, shard: 2, sequence: 3 },
            sequencer: Sequencer { clock_ns: 4, tie: 5, writer: 6 },
            rule: "r",
            region: "x",
            event_source: "",
        };
        let note = DeadNote {
            destination: "hook",
            reason: "it \"said\"\nno",
            attempts: 7,
            status: 503,
            given_up_ns: 1_700_000_000_000_000_000,
            hops: 1,
        };
        for profile in Profile::ALL {
            let mut plain = BytesMut::new();
            profile.write_record(&FrameView::trusted(&frame), &cx, &mut plain);
            let mut noted = plain.clone();
            profile.write_note(&note, &mut noted);
            profile
                .add(&Story { replay: Some("rep"), left_out: &["metadata", "tags"], ..Story::default() }, &mut noted);
            let plain: serde_json::Value = serde_json::from_slice(&plain).unwrap();
            let mut noted: serde_json::Value = serde_json::from_slice(&noted).unwrap();
            let place = match profile {
                Profile::Minio => "/Records/0",
                Profile::EventBridge => "/detail",
                Profile::Azure => "/data",
                Profile::Gcs => "/message/attributes",
                _ => "",
            };
            let o = noted.pointer_mut(place).unwrap().as_object_mut().unwrap();
            assert_eq!(o.remove("replay").unwrap(), "rep");
            let truncated = o.remove("truncated").unwrap().to_string();
            assert!(["[\"metadata\",\"tags\"]", "\"metadata,tags\""].contains(&&*truncated), "{truncated}");
            let got = match profile.style() {
                Style::Members => o.remove("deadLetter").unwrap(),
                _ => {
                    let names = ["from", "reason", "attempts", "status", "time", "hops"];
                    names.map(|n| o.remove(&format!("deadletter{n}")).unwrap()).to_vec().into()
                }
            };
            let text = got.to_string();
            for part in ["\"hook\"", "it \\\"said\\\" no", "7", "503", "\"2023-11-14T22:13:20.000Z\"", "1"] {
                assert!(text.contains(part), "{part}: {text}");
            }
            assert_eq!(plain, noted);
        }
    }

    #[test]
    fn an_attempt_without_an_answer_has_no_status() {
        let note = DeadNote { destination: "hook", reason: "refused", attempts: 1, status: 0, given_up_ns: 0, hops: 1 };
        for profile in [Profile::Aws, Profile::CloudEvents] {
            let mut out = BytesMut::from(&b"{\"a\":1}"[..]);
            profile.write_note(&note, &mut out);
            let text = std::str::from_utf8(&out).unwrap();
            assert!(serde_json::from_str::<serde_json::Value>(text).is_ok() && !text.contains("status"), "{text}");
        }
    }
}
