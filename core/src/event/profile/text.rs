//! The pieces of text that records are made of: JSON strings, encoded keys, times, ids, and JSON of the host.
//!
//! All of it is on the path of every record, hence written by hand: one table look-up per byte, and plain copies of
//! the runs in between.

use std::fmt;

use bytes::BufMut;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use crate::event::{EventId, Sequencer};

/// How deep JSON of a host may be nested. Common parsers stop at 128; a record adds a few levels of its own.
pub(crate) const DEPTH_MAX: usize = 64;

/// Marks the first byte of U+2028 and U+2029 in [`ESCAPES`].
const SEPARATOR: u8 = 1;

/// Per byte: 0 if JSON takes it as it is, the letter after the backslash otherwise, `u` for `\u00XX`.
const ESCAPES: [u8; 256] = {
    let mut table = [0; 256];
    let mut b = 0;
    while b < 0x20 {
        table[b] = b'u';
        b += 1;
    }
    table[0x08] = b'b';
    table[b'\t' as usize] = b't';
    table[b'\n' as usize] = b'n';
    table[0x0C] = b'f';
    table[b'\r' as usize] = b'r';
    table[b'"' as usize] = b'"';
    table[b'\\' as usize] = b'\\';
    table[0xE2] = SEPARATOR;
    table
};

const UPPER_HEX: &[u8; 16] = b"0123456789ABCDEF";

/// Per byte: whether it stands for itself in an encoded key (the unreserved characters of RFC 3986, and `/`).
const KEY_PLAIN: [bool; 256] = {
    let mut table = [false; 256];
    let mut b = 0;
    while b < 256 {
        let c = b as u8;
        table[b] = c.is_ascii_alphanumeric() || matches!(c, b'-' | b'.' | b'_' | b'~' | b'/');
        b += 1;
    }
    table
};

/// Writes `s` as a JSON string, with its quotes.
///
/// U+2028 and U+2029 are legal in JSON, but some readers of lines end a line there, so they are escaped.
#[inline]
pub(crate) fn string(out: &mut impl BufMut, s: &str) {
    out.put_u8(b'"');
    string_body(out, s.as_bytes());
    out.put_u8(b'"');
}

/// Writes UTF-8 text as the inside of a JSON string.
pub(crate) fn string_body(out: &mut impl BufMut, bytes: &[u8]) {
    let mut done = 0;
    for (i, &b) in bytes.iter().enumerate() {
        let escape = ESCAPES[b as usize];
        if escape == 0 || i < done {
            continue;
        }
        if escape == SEPARATOR {
            if let [0x80, last @ (0xA8 | 0xA9), ..] = bytes[i + 1..] {
                out.put_slice(&bytes[done..i]);
                out.put_slice(if last == 0xA8 { b"\\u2028" } else { b"\\u2029" });
                done = i + 3;
            }
            continue;
        }
        out.put_slice(&bytes[done..i]);
        if escape == b'u' {
            out.put_slice(&[b'\\', b'u', b'0', b'0', UPPER_HEX[(b >> 4) as usize], UPPER_HEX[(b & 15) as usize]]);
        } else {
            out.put_slice(&[b'\\', escape]);
        }
        done = i + 1;
    }
    out.put_slice(&bytes[done..]);
}

/// Writes `,"name":"value"`. The name needs no escape.
pub(crate) fn member(out: &mut impl BufMut, name: &str, value: &str) {
    out.put_slice(b",\"");
    out.put_slice(name.as_bytes());
    out.put_slice(b"\":");
    string(out, value);
}

/// As [`member`], unless the value is empty.
pub(crate) fn member_if(out: &mut impl BufMut, name: &str, value: &str) {
    if !value.is_empty() {
        member(out, name, value);
    }
}

/// Writes a number.
pub(crate) fn number(out: &mut impl BufMut, n: u64) {
    out.put_slice(itoa::Buffer::new().format(n).as_bytes());
}

/// Writes `"name":"value"` pairs as a JSON object.
pub(crate) fn string_map<'a>(out: &mut impl BufMut, pairs: impl Iterator<Item = (&'a str, &'a str)>) {
    out.put_u8(b'{');
    for (i, (name, value)) in pairs.enumerate() {
        if i > 0 {
            out.put_u8(b',');
        }
        string(out, name);
        out.put_u8(b':');
        string(out, value);
    }
    out.put_u8(b'}');
}

/// Writes a key in the form encoding of S3 records: space becomes `+`, `/` stays, everything that is not unreserved
/// becomes `%XX`. Works on bytes, so that a key that is not UTF-8 comes back unchanged too. The result needs no
/// escaping in JSON.
pub(crate) fn encoded_key(out: &mut impl BufMut, key: &[u8]) {
    let mut done = 0;
    for (i, &b) in key.iter().enumerate() {
        if KEY_PLAIN[b as usize] {
            continue;
        }
        out.put_slice(&key[done..i]);
        if b == b' ' {
            out.put_u8(b'+');
        } else {
            percent(out, b);
        }
        done = i + 1;
    }
    out.put_slice(&key[done..]);
}

/// As [`encoded_key`], with `/` as `%2F` too.
pub(crate) fn encoded_key_without_slash(out: &mut impl BufMut, key: &[u8]) {
    for (i, part) in key.split(|b| *b == b'/').enumerate() {
        if i > 0 {
            out.put_slice(b"%2F");
        }
        encoded_key(out, part);
    }
}

/// Writes a key as the path of a URI: as [`encoded_key`], but a space is `%20`.
pub(crate) fn uri_path(out: &mut impl BufMut, key: &[u8]) {
    for (i, part) in key.split(|b| *b == b' ').enumerate() {
        if i > 0 {
            out.put_slice(b"%20");
        }
        encoded_key(out, part);
    }
}

/// Writes text as the value of a header, as the HTTP binding of CloudEvents has it (3.1.3.2): visible ASCII stands for itself
/// but for `"` and `%`; all else, the space too, is percent-encoded. Nothing that comes out can end a header.
pub(crate) fn header_value(out: &mut impl BufMut, text: &str) {
    for &b in text.as_bytes() {
        if b.is_ascii_graphic() && !matches!(b, b'"' | b'%') {
            out.put_u8(b);
        } else {
            percent(out, b);
        }
    }
}

/// Writes bytes that should be UTF-8 as a JSON string with its quotes. What is not UTF-8 becomes U+FFFD; answers whether
/// nothing did.
pub(crate) fn lossy_string(out: &mut impl BufMut, bytes: &[u8]) -> bool {
    out.put_u8(b'"');
    let exact = lossy_body(out, bytes);
    out.put_u8(b'"');
    exact
}

/// As [`lossy_string`], without the quotes.
pub(crate) fn lossy_body(out: &mut impl BufMut, bytes: &[u8]) -> bool {
    let mut exact = true;
    for chunk in bytes.utf8_chunks() {
        string_body(out, chunk.valid().as_bytes());
        if !chunk.invalid().is_empty() {
            string_body(out, "\u{FFFD}".as_bytes());
            exact = false;
        }
    }
    exact
}

/// Writes `text` as one part of a URI: only unreserved characters stand for themselves.
pub(crate) fn uri_part(out: &mut impl BufMut, text: &str) {
    for &b in text.as_bytes() {
        if KEY_PLAIN[b as usize] && b != b'/' {
            out.put_u8(b);
        } else {
            percent(out, b);
        }
    }
}

/// Writes the byte as `%XX`.
pub(crate) fn percent(out: &mut impl BufMut, b: u8) {
    out.put_slice(&[b'%', UPPER_HEX[(b >> 4) as usize], UPPER_HEX[(b & 15) as usize]]);
}

/// A time as `YYYY-MM-DDThh:mm:ss.mmmZ`. A `u64` of nanoseconds ends in the year 2554, so four digits suffice.
pub(crate) fn timestamp(ns: u64) -> [u8; 24] {
    let ms = ns / 1_000_000;
    let (days, ms_of_day) = (ms / 86_400_000, ms % 86_400_000);
    let (year, month, day) = civil(days);
    let mut t = *b"0000-00-00T00:00:00.000Z";
    let mut put = |at: usize, n: u64| {
        t[at] = b'0' + (n / 10 % 10) as u8;
        t[at + 1] = b'0' + (n % 10) as u8;
    };
    put(0, year / 100);
    put(2, year);
    put(5, month);
    put(8, day);
    put(11, ms_of_day / 3_600_000);
    put(14, ms_of_day / 60_000 % 60);
    put(17, ms_of_day / 1_000 % 60);
    put(20, ms_of_day / 10 % 100);
    t[22] = b'0' + (ms_of_day % 10) as u8;
    t
}

/// A time as `YYYY-MM-DDThh:mm:ss` with so many digits of the second, one to nine of them or none, and `Z`.
pub(crate) fn timestamp_with(ns: u64, digits: usize) -> Vec<u8> {
    let mut t = timestamp(ns)[..19].to_vec();
    if digits > 0 {
        t.push(b'.');
        t.extend_from_slice(&format!("{:09}", ns % 1_000_000_000).as_bytes()[..digits.min(9)]);
    }
    t.push(b'Z');
    t
}

/// Year, month and day of a number of days since 1970-01-01.
///
/// Counts from 1 March of the year 0, so that the leap day is the last day of a year, in cycles of 400 years.
fn civil(days: u64) -> (u64, u64, u64) {
    const DAYS_TO_EPOCH: u64 = 719_468;
    const DAYS_PER_CYCLE: u64 = 146_097;
    let days = days + DAYS_TO_EPOCH;
    let (cycle, day) = (days / DAYS_PER_CYCLE, days % DAYS_PER_CYCLE);
    // Without leap days, the day number would divide by 365: take out those that have passed within the cycle.
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    // From March on, five months have 153 days, in the same rhythm each time.
    let month = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * month + 2) / 5 + 1;
    let (month, carry) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (cycle * 400 + year + carry, month, day_of_month)
}

fn hex(out: &mut [u8], mut n: u64) {
    for digit in out.iter_mut().rev() {
        *digit = UPPER_HEX[(n & 15) as usize];
        n >>= 4;
    }
}

/// The id as its `Display` writes it.
pub(crate) fn event_id(id: EventId) -> [u8; 38] {
    let mut t = [b'-'; 38];
    hex(&mut t[..16], id.incarnation);
    hex(&mut t[17..21], u64::from(id.shard));
    hex(&mut t[22..], id.sequence);
    t
}

/// The sequencer as its `Display` writes it.
pub(crate) fn sequencer(s: Sequencer) -> [u8; 32] {
    let mut t = [0; 32];
    hex(&mut t[..16], s.clock_ns);
    hex(&mut t[16..24], u64::from(s.tie));
    hex(&mut t[24..], u64::from(s.writer));
    t
}

/// Whether `json` is one JSON value that every reader can take: valid UTF-8, no lone surrogates, numbers in range,
/// nested at most [`DEPTH_MAX`] deep.
pub(crate) fn is_json(json: &[u8]) -> bool {
    let mut de = serde_json::Deserializer::from_slice(json);
    Walk(DEPTH_MAX).deserialize(&mut de).is_ok() && de.end().is_ok()
}

/// Writes a value that passed [`is_json`], without the white space between its tokens.
pub(crate) fn compact(out: &mut impl BufMut, json: &[u8]) {
    let mut at = 0;
    while at < json.len() {
        match json[at] {
            b'"' => {
                let mut end = at + 1;
                while json[end] != b'"' {
                    end += 1 + usize::from(json[end] == b'\\');
                }
                out.put_u8(b'"');
                literal_body(out, &json[at + 1..end]);
                out.put_u8(b'"');
                at = end + 1;
            }
            b' ' | b'\t' | b'\n' | b'\r' => at += 1,
            b => {
                out.put_u8(b);
                at += 1;
            }
        }
    }
}

/// Copies the inside of a JSON string that is already escaped, except for U+2028 and U+2029.
fn literal_body(out: &mut impl BufMut, body: &[u8]) {
    let mut rest = body;
    while let Some(i) = memchr::memchr(0xE2, rest) {
        if let [0x80, last @ (0xA8 | 0xA9), ..] = rest[i + 1..] {
            out.put_slice(&rest[..i]);
            out.put_slice(if last == 0xA8 { b"\\u2028" } else { b"\\u2029" });
            rest = &rest[i + 3..];
        } else {
            out.put_slice(&rest[..=i]);
            rest = &rest[i + 1..];
        }
    }
    out.put_slice(rest);
}

/// Visits everything of a JSON value and keeps nothing; the number is how many levels are left.
struct Walk(usize);

impl Walk {
    fn inside<E: serde::de::Error>(&self) -> Result<usize, E> {
        self.0.checked_sub(1).ok_or_else(|| E::custom("nested too deep"))
    }
}

impl<'de> DeserializeSeed<'de> for Walk {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, de: D) -> Result<(), D::Error> {
        de.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E: serde::de::Error>(self, n: f64) -> Result<(), E> {
        if n.is_finite() { Ok(()) } else { Err(E::custom("number out of range")) }
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let left = self.inside()?;
        while seq.next_element_seed(Walk(left))?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let left = self.inside()?;
        while map.next_key_seed(Walk(left))?.is_some() {
            map.next_value_seed(Walk(left))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn quoted(s: &str) -> String {
        let mut out = Vec::new();
        string(&mut out, s);
        String::from_utf8(out).expect("JSON is UTF-8")
    }

    fn encoded(key: &[u8]) -> String {
        let mut out = Vec::new();
        encoded_key(&mut out, key);
        String::from_utf8(out).expect("encoded keys are ASCII")
    }

    fn compacted(json: &str) -> Option<String> {
        is_json(json.as_bytes()).then(|| {
            let mut out = Vec::new();
            compact(&mut out, json.as_bytes());
            String::from_utf8(out).expect("UTF-8")
        })
    }

    #[test]
    fn strings_are_escaped() {
        assert_eq!(quoted(""), r#""""#);
        assert_eq!(quoted("plain/é🎉"), "\"plain/é🎉\"");
        assert_eq!(quoted("a\"b\\c"), r#""a\"b\\c""#);
        assert_eq!(quoted("\n\r\t\u{8}\u{c}\0\u{1f}\u{7f}"), "\"\\n\\r\\t\\b\\f\\u0000\\u001F\u{7f}\"");
        assert_eq!(quoted("x\u{2028}y\u{2029}\u{2027}\u{e2}"), "\"x\\u2028y\\u2029\u{2027}\u{e2}\"");
        assert_eq!(quoted("\u{2028}"), r#""\u2028""#);
    }

    #[test]
    fn keys_are_encoded_as_s3_does() {
        for (key, expected) in [
            (&b"red flower.jpg"[..], "red+flower.jpg"),
            (b"a+b", "a%2Bb"),
            (b"dir/x", "dir/x"),
            (b"k=v:1", "k%3Dv%3A1"),
            ("é".as_bytes(), "%C3%A9"),
            (b"100%", "100%25"),
            (b"a\0b", "a%00b"),
            (b"a\nb", "a%0Ab"),
            (b"\xff\xfe", "%FF%FE"),
            ("🎉".as_bytes(), "%F0%9F%8E%89"),
            (b"-._~AZaz09", "-._~AZaz09"),
            (b"\"\\<>", "%22%5C%3C%3E"),
            (b"(1)*!'", "%281%29%2A%21%27"),
        ] {
            assert_eq!(encoded(key), expected);
        }
    }

    #[test]
    fn timestamps_at_the_edges() {
        let text = |ns| String::from_utf8(timestamp(ns).to_vec()).expect("ASCII");
        assert_eq!(text(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(text(999_999), "1970-01-01T00:00:00.000Z");
        assert_eq!(text(951_782_400_123_456_789), "2000-02-29T00:00:00.123Z");
        assert_eq!(text(4_107_542_399_999_999_999), "2100-02-28T23:59:59.999Z");
        assert_eq!(text(4_107_542_400_000_000_000), "2100-03-01T00:00:00.000Z");
        assert_eq!(text(u64::MAX), "2554-07-21T23:34:33.709Z");
    }

    #[test]
    fn every_day_until_2262_agrees_with_a_calendar_library() {
        let day_ns = 86_400_000_000_000u64;
        for day in 0..(i64::MAX as u64 / day_ns) {
            let ns = day * day_ns + (day * 7_919_123_456_789) % day_ns;
            let expected = jiff::Timestamp::from_nanosecond(i128::from(ns)).expect("in range");
            let expected = expected.strftime("%Y-%m-%dT%H:%M:%S").to_string();
            let t = timestamp(ns);
            assert_eq!(std::str::from_utf8(&t[..19]), Ok(&*expected), "day {day}");
            assert_eq!(&t[19..], format!(".{:03}Z", ns / 1_000_000 % 1_000).as_bytes(), "day {day}");
        }
    }

    #[test]
    fn json_of_the_host_is_checked() {
        assert_eq!(
            compacted(" { \"a b\" : [ 1 , 2.50, \"x \\\" y\" ] }\n").as_deref(),
            Some(r#"{"a b":[1,2.50,"x \" y"]}"#)
        );
        assert_eq!(compacted("12345678901234567890123").as_deref(), Some("12345678901234567890123"));
        assert_eq!(compacted("\"a\u{2028}b\u{20ac}\"").as_deref(), Some("\"a\\u2028b\u{20ac}\""));
        for bad in ["", "{", "{\"a\":1}}", "1 2", "nul", "\"\\ud800\"", "\"\\x\"", "1e999", "{\"a\":1,}", "\"\u{1}\""] {
            assert_eq!(compacted(bad), None, "{bad}");
        }
        assert!(!is_json(b"\"\xff\""));
        let nested = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
        assert!(is_json(nested(DEPTH_MAX).as_bytes()));
        assert!(!is_json(nested(DEPTH_MAX + 1).as_bytes()));
        assert!(!is_json(nested(1_000_000).as_bytes()));
        let maps = |n: usize| format!("{}0{}", "{\"a\":".repeat(n), "}".repeat(n));
        assert!(is_json(maps(DEPTH_MAX).as_bytes()));
        assert!(!is_json(maps(DEPTH_MAX + 1).as_bytes()));
    }

    proptest! {
        #[test]
        fn ids_and_sequencers_are_written_as_displayed(a: u64, b: u16, c: u64, d: u32, e: u32) {
            let id = EventId { incarnation: a, shard: b, sequence: c };
            prop_assert_eq!(event_id(id).to_vec(), id.to_string().into_bytes());
            let s = Sequencer { clock_ns: c, tie: d, writer: e };
            prop_assert_eq!(sequencer(s).to_vec(), s.to_string().into_bytes());
        }

        #[test]
        fn any_string_comes_back(s in any::<String>()) {
            prop_assert_eq!(serde_json::from_str::<String>(&quoted(&s)).ok(), Some(s));
        }
    }
}
