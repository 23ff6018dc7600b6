//! Records in XML: made of the JSON of the profile, member by member.
//!
//! A member becomes an element of its name, an entry of a list an element with the list's name without its `s`; a name that
//! XML cannot have becomes `<entry name="…">`. CloudEvents are written in their XML format: attributes as elements, those of
//! extensions with their type, and the data as text, which is JSON. U+FFFD stands for characters that XML cannot have; keys of
//! S3 records are encoded and have none.

use std::fmt;

use bytes::{BufMut, BytesMut};
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use crate::event::profile::Profile;

macro_rules! declaration {
    () => {
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
    };
}

macro_rules! namespaces {
    () => {
        concat!(
            " xmlns=\"http://cloudevents.io/xmlformat/V1\" xmlns:ce=\"http://cloudevents.io/xmlformat/V1\"",
            " xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\" xmlns:xs=\"http://www.w3.org/2001/XMLSchema\""
        )
    };
}

/// Attributes of CloudEvents that have their types from the specification.
const CORE: [&str; 7] = ["id", "source", "type", "time", "subject", "datacontenttype", "dataschema"];

pub(super) fn head(profile: Profile) -> &'static [u8] {
    match profile {
        Profile::CloudEvents => concat!(declaration!(), "<batch", namespaces!(), ">").as_bytes(),
        Profile::CloudEventsStructured | Profile::Minio => declaration!().as_bytes(),
        _ => concat!(declaration!(), "<Records>").as_bytes(),
    }
}

pub(super) fn tail(profile: Profile) -> &'static [u8] {
    match profile {
        Profile::CloudEvents => b"</batch>",
        Profile::CloudEventsStructured | Profile::Minio => b"",
        _ => b"</Records>",
    }
}

pub(super) fn content_type(profile: Profile) -> &'static str {
    match profile {
        Profile::CloudEvents => "application/cloudevents-batch+xml",
        Profile::CloudEventsStructured => "application/cloudevents+xml",
        _ => "application/xml",
    }
}

/// Appends a record of the profile as XML.
pub(super) fn write(json: &[u8], out: &mut BytesMut) {
    if json.starts_with(b"{\"specversion\"") {
        return write_cloudevent(json, out);
    }
    let root = if json.starts_with(b"{\"EventName\"") { "Notification" } else { "Record" };
    let mut de = serde_json::Deserializer::from_slice(json);
    // What was just written is JSON.
    let _ = Element { name: root, out }.deserialize(&mut de);
}

/// Writes a value as an element.
struct Element<'a> {
    name: &'a str,
    out: &'a mut BytesMut,
}

impl Element<'_> {
    fn open(&mut self) {
        if is_name(self.name) {
            put(self.out, &["<", self.name, ">"]);
        } else {
            put(self.out, &["<entry name=\""]);
            escape(self.out, self.name, true);
            put(self.out, &["\">"]);
        }
    }

    fn close(&mut self) {
        put(self.out, &["</", if is_name(self.name) { self.name } else { "entry" }, ">"]);
    }

    fn text(&mut self, text: &str) {
        self.open();
        escape(self.out, text, false);
        self.close();
    }
}

impl<'de> DeserializeSeed<'de> for Element<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, de: D) -> Result<(), D::Error> {
        de.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Element<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(mut self, b: bool) -> Result<(), E> {
        self.text(if b { "true" } else { "false" });
        Ok(())
    }

    fn visit_i64<E>(mut self, n: i64) -> Result<(), E> {
        self.text(&n.to_string());
        Ok(())
    }

    fn visit_u64<E>(mut self, n: u64) -> Result<(), E> {
        self.text(&n.to_string());
        Ok(())
    }

    fn visit_f64<E>(mut self, n: f64) -> Result<(), E> {
        self.text(&n.to_string());
        Ok(())
    }

    fn visit_str<E>(mut self, s: &str) -> Result<(), E> {
        self.text(s);
        Ok(())
    }

    fn visit_unit<E>(mut self) -> Result<(), E> {
        self.text("");
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<(), A::Error> {
        self.open();
        let name = match self.name.strip_suffix('s') {
            Some(one) if is_name(one) => one,
            _ => "item",
        };
        while seq.next_element_seed(Element { name, out: &mut *self.out })?.is_some() {}
        self.close();
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        self.open();
        while let Some(name) = map.next_key::<String>()? {
            map.next_value_seed(Element { name: &name, out: &mut *self.out })?;
        }
        self.close();
        Ok(())
    }
}

fn write_cloudevent(json: &[u8], out: &mut BytesMut) {
    put(out, &["<event", namespaces!(), " specversion=\"1.0\">"]);
    let mut de = serde_json::Deserializer::from_slice(json);
    let _ = de.deserialize_map(CloudEvent(out));
    put(out, &["</event>"]);
}

/// Writes the members of an event.
struct CloudEvent<'a>(&'a mut BytesMut);

impl<'de> Visitor<'de> for CloudEvent<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a CloudEvent")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        // The data comes before extensions that were added, and in XML after them as well as before.
        while let Some(name) = map.next_key::<String>()? {
            let value: &serde_json::value::RawValue = map.next_value()?;
            if name == "specversion" {
                continue;
            }
            let text = serde_json::from_str::<String>(value.get());
            let content = text.as_deref().unwrap_or(value.get());
            let kind = match &text {
                _ if name == "data" => " xsi:type=\"xs:string\"",
                _ if CORE.contains(&&*name) => "",
                Ok(_) => " xsi:type=\"ce:string\"",
                Err(_) => " xsi:type=\"ce:integer\"",
            };
            put(self.0, &["<", &name, kind, ">"]);
            escape(self.0, content, false);
            put(self.0, &["</", &name, ">"]);
        }
        Ok(())
    }
}

/// Whether an element can have the name, whatever the namespace.
fn is_name(name: &str) -> bool {
    let reserved = name.get(..3).is_some_and(|s| s.eq_ignore_ascii_case("xml"));
    let first = name.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    first && !reserved && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

fn put(out: &mut BytesMut, parts: &[&str]) {
    for part in parts {
        out.put_slice(part.as_bytes());
    }
}

fn escape(out: &mut BytesMut, text: &str, in_attribute: bool) {
    let mut utf8 = [0; 4];
    for c in text.chars() {
        put(
            out,
            &[match c {
                '&' => "&amp;",
                '<' => "&lt;",
                '>' => "&gt;",
                '"' if in_attribute => "&quot;",
                '\r' => "&#13;",
                '\n' if in_attribute => "&#10;",
                '\t' if in_attribute => "&#9;",
                '\n' | '\t' => c.encode_utf8(&mut utf8),
                '\0'..='\u{1F}' | '\u{FFFE}' | '\u{FFFF}' => "\u{FFFD}",
                _ => c.encode_utf8(&mut utf8),
            }],
        );
    }
}
