//! The profiles `cloudevents`, `cloudevents-structured` and `cloudevents-binary`: CloudEvents 1.0, as a JSON array of events,
//! as one event, and with the attributes in headers.
//!
//! `source`, `type`, `subject` and `time` are those of the published S3 adapter; `id` is the event's own id, as the
//! adapter's (made from the ids of the request) is the same for every object of one multi-object delete. Types that
//! S3 has no name for have the prefix `dev.tidewire.`. Extensions: `sequence` is the sequencer, `partitionkey` is
//! `bucket/key`. `data` is the record of the profile `aws` for events of objects, else `{bucket, key, data}`.

use bytes::{BufMut, BytesMut};

use super::note::Story;
use super::{RecordContext, Shown, aws, text};
use crate::event::frame::Field;
use crate::event::{FrameView, Scope};

/// Prefix of the `type` of events that S3 has a name for.
pub(crate) const S3_PREFIX: &str = "com.amazonaws.s3.";
/// Prefix of the `type` of all others.
pub(crate) const OWN_PREFIX: &str = "dev.tidewire.";

/// Bytes of names and punctuation around `data`, with the fields of fixed width; rounded up.
const FIXED_BYTES: usize = 512;

/// Appends the event.
pub(super) fn write(frame: &FrameView<'_>, cx: &RecordContext<'_>, shown: &Shown<'_>, out: &mut BytesMut) {
    let key = frame.key();
    out.reserve(FIXED_BYTES + frame.as_bytes().len() + 6 * key.len());
    out.put_slice(b"{\"specversion\":\"1.0\",\"id\":\"");
    out.put_slice(&text::event_id(cx.id));
    out.put_slice(b"\",\"source\":\"");
    write_source(frame, cx, out);
    out.put_slice(b"\",\"type\":\"");
    let (prefix, name) = type_name(frame);
    // Names of types are of letters, digits and a few signs, so that none of them needs an escape.
    out.put_slice(prefix.as_bytes());
    text::string_body(out, name.as_bytes());
    out.put_slice(b"\",\"time\":\"");
    out.put_slice(&text::timestamp(frame.time_ns()));
    out.put_u8(b'"');
    let plain = std::str::from_utf8(key).ok().filter(|s| is_attribute(s));
    if !key.is_empty() {
        out.put_slice(b",\"subject\":\"");
        write_key(out, key, plain);
        out.put_u8(b'"');
    }
    out.put_slice(b",\"sequence\":\"");
    out.put_slice(&text::sequencer(cx.sequencer));
    out.put_u8(b'"');
    let bucket = frame.bucket();
    if !(bucket.is_empty() && key.is_empty()) {
        out.put_slice(b",\"partitionkey\":\"");
        if is_attribute(bucket) {
            text::string_body(out, bucket.as_bytes());
        } else {
            text::uri_part(out, bucket);
        }
        if !key.is_empty() {
            out.put_u8(b'/');
            write_key(out, key, plain);
        }
        out.put_u8(b'"');
    }
    out.put_slice(b",\"datacontenttype\":\"application/json\",\"data\":");
    write_payload(frame, cx, shown, out);
    out.put_u8(b'}');
}

/// The `type`, in two parts.
fn type_name<'a>(frame: &FrameView<'a>) -> (&'static str, &'a str) {
    let name = frame.event_type().name();
    match name.strip_prefix("s3:") {
        Some(name) => (S3_PREFIX, name),
        None => (OWN_PREFIX, name),
    }
}

fn write_payload(frame: &FrameView<'_>, cx: &RecordContext<'_>, shown: &Shown<'_>, out: &mut BytesMut) {
    if frame.event_type().scope() == Scope::Object {
        aws::write(frame, cx, shown, out);
    } else {
        write_data(frame, shown, out);
    }
}

/// Appends the event in binary mode: the lines of its headers to `headers`, its data to `body`.
pub(super) fn write_binary(
    frame: &FrameView<'_>,
    cx: &RecordContext<'_>,
    shown: &Shown<'_>,
    story: &Story<'_>,
    headers: &mut BytesMut,
    body: &mut BytesMut,
) {
    let mut line = |name: &str, value: &str| {
        headers.put_slice(b"ce-");
        headers.put_slice(name.as_bytes());
        headers.put_slice(b": ");
        text::header_value(headers, value);
        headers.put_slice(b"\r\n");
    };
    let ascii = |write: &dyn Fn(&mut BytesMut)| {
        let mut out = BytesMut::new();
        write(&mut out);
        String::from_utf8_lossy(&out).into_owned()
    };
    let (key, bucket) = (frame.key(), frame.bucket());
    let (prefix, name) = type_name(frame);
    line("specversion", "1.0");
    line("id", &cx.id.to_string());
    line("source", &ascii(&|out| write_source(frame, cx, out)));
    line("type", &format!("{prefix}{name}"));
    line("time", &String::from_utf8_lossy(&text::timestamp(frame.time_ns())));
    let subject = match std::str::from_utf8(key).ok().filter(|s| is_attribute(s)) {
        Some(s) => s.to_owned(),
        None => ascii(&|out| text::encoded_key(out, key)),
    };
    if !key.is_empty() {
        line("subject", &subject);
    }
    line("sequence", &cx.sequencer.to_string());
    if !(bucket.is_empty() && key.is_empty()) {
        let bucket = if is_attribute(bucket) { bucket.to_owned() } else { ascii(&|out| text::uri_part(out, bucket)) };
        let slash = if key.is_empty() { "" } else { "/" };
        line("partitionkey", &format!("{bucket}{slash}{subject}"));
    }
    story.attributes(line);
    write_payload(frame, cx, shown, body);
}

/// Writes `eventSource.region.bucket`, which has to be a URI reference.
fn write_source(frame: &FrameView<'_>, cx: &RecordContext<'_>, out: &mut BytesMut) {
    for &b in cx.source().as_bytes() {
        if b.is_ascii_graphic() && !matches!(b, b'"' | b'\\' | b'<' | b'>' | b'^' | b'`' | b'{' | b'|' | b'}' | b'%') {
            out.put_u8(b);
        } else {
            text::percent(out, b);
        }
    }
    let own_region = frame.text(Field::Region);
    out.put_u8(b'.');
    text::uri_part(out, if own_region.is_empty() { cx.region } else { own_region });
    let bucket = frame.bucket();
    if !bucket.is_empty() {
        out.put_u8(b'.');
        text::uri_part(out, bucket);
    }
}

/// Writes the key as it is if it can be an attribute, else encoded as in S3 records.
fn write_key(out: &mut BytesMut, key: &[u8], plain: Option<&str>) {
    match plain {
        Some(s) => text::string_body(out, s.as_bytes()),
        None => text::encoded_key(out, key),
    }
}

/// Whether the text may be the value of a CloudEvents attribute: no control characters, no noncharacters.
fn is_attribute(s: &str) -> bool {
    s.chars().all(|c| !c.is_control() && !matches!(c, '\u{FDD0}'..='\u{FDEF}') && (c as u32) & 0xFFFE != 0xFFFE)
}

/// Writes `{bucket, key, data}`, each only if there is one. A key that is not UTF-8 is `key_base64`, as in the
/// native form of ingest.
fn write_data(frame: &FrameView<'_>, shown: &Shown<'_>, out: &mut BytesMut) {
    let mut next: &[u8] = b"{";
    if !frame.bucket().is_empty() {
        out.put_slice(next);
        out.put_slice(b"\"bucket\":");
        text::string(out, frame.bucket());
        next = b",";
    }
    if !frame.key().is_empty() {
        out.put_slice(next);
        match std::str::from_utf8(frame.key()) {
            Ok(key) => {
                out.put_slice(b"\"key\":");
                text::string(out, key);
            }
            Err(_) => {
                use base64::Engine as _;
                out.put_slice(b"\"key_base64\":\"");
                out.put_slice(base64::engine::general_purpose::STANDARD.encode(frame.key()).as_bytes());
                out.put_u8(b'"');
            }
        }
        next = b",";
    }
    let data = frame.field(Field::Data);
    if shown.data && text::is_json(data) {
        out.put_slice(next);
        out.put_slice(b"\"data\":");
        text::compact(out, data);
        next = b",";
    }
    out.put_slice(if next == b"{" { b"{}" } else { b"}" });
}
