//! What a record for a dead-letter destination says more: where the event could not be delivered, and why.

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

impl Profile {
    /// Adds a note to the record that `out` ends with. In the profile `aws` it is the member `deadLetter` of the record, in
    /// `cloudevents` the extension attributes `deadletterfrom`, `deadletterreason`, `deadletterattempts`,
    /// `deadletterstatus`, `deadlettertime` and `deadletterhops`.
    pub fn write_note(&self, note: &DeadNote<'_>, out: &mut BytesMut) {
        // Both write a record as one JSON object, whose end is taken off and put on again.
        out.truncate(out.len().saturating_sub(1));
        let (open, names, close): (&[u8], [&str; 6], &[u8]) = match self {
            Profile::Aws => {
                (b",\"deadLetter\":{", ["destination", "reason", "attempts", "status", "givenUpTime", "hops"], b"}}")
            }
            Profile::CloudEvents => (
                b",",
                [
                    "deadletterfrom",
                    "deadletterreason",
                    "deadletterattempts",
                    "deadletterstatus",
                    "deadlettertime",
                    "deadletterhops",
                ],
                b"}",
            ),
        };
        let [destination, reason, attempts, status, time, hops] = names;
        out.put_slice(open);
        let name = |out: &mut BytesMut, name: &str| {
            text::string(out, name);
            out.put_u8(b':');
        };
        name(out, destination);
        text::string(out, note.destination);
        out.put_u8(b',');
        name(out, reason);
        // An attribute of CloudEvents has no control characters.
        let plain: String = note.reason.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        text::string(out, &plain);
        let mut number = itoa::Buffer::new();
        for (key, value) in
            [(attempts, u64::from(note.attempts)), (status, note.status.into()), (hops, note.hops.into())]
        {
            if key == status && value == 0 {
                continue;
            }
            out.put_u8(b',');
            name(out, key);
            out.put_slice(number.format(value).as_bytes());
        }
        out.put_u8(b',');
        name(out, time);
        out.put_u8(b'"');
        out.put_slice(&text::timestamp(note.given_up_ns));
        out.put_u8(b'"');
        out.put_slice(close);
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
            let plain: serde_json::Value = serde_json::from_slice(&plain).unwrap();
            let mut noted: serde_json::Value = serde_json::from_slice(&noted).unwrap();
            let got = match profile {
                Profile::Aws => noted.as_object_mut().unwrap().remove("deadLetter").unwrap(),
                Profile::CloudEvents => {
                    let names = ["from", "reason", "attempts", "status", "time", "hops"];
                    let o = noted.as_object_mut().unwrap();
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
        for profile in Profile::ALL {
            let mut out = BytesMut::from(&b"{\"a\":1}"[..]);
            profile.write_note(&note, &mut out);
            let text = std::str::from_utf8(&out).unwrap();
            assert!(serde_json::from_str::<serde_json::Value>(text).is_ok() && !text.contains("status"), "{text}");
        }
    }
}
