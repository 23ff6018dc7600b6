//! What arrived, and whether it arrived as promised.

use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::time::Instant;

use serde::Deserialize;

/// One record of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The record's `eventId`, or what stands in for it: the request's `webhook-id` and the place in the request.
    pub event_id: String,
    /// The bucket.
    pub bucket: String,
    /// The key, form-decoded.
    pub key: String,
    /// The sequencer, empty if there is none.
    pub sequencer: String,
    /// The name of the event.
    pub event_name: String,
    /// The object's size, if the record has one.
    pub size: Option<u64>,
    /// When the request's body was complete.
    pub arrival: Instant,
    /// The bytes of the request's body.
    pub raw_size: usize,
    /// The number of the request, from 1.
    pub request: u64,
    /// Whether the request was, or was to be, answered with 2xx.
    pub accepted: bool,
    /// The key as it came, encoded.
    pub(crate) encoded_key: String,
}

#[derive(Deserialize)]
struct Body {
    #[serde(rename = "Records")]
    records: Vec<RawRecord>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawRecord {
    event_id: Option<String>,
    #[serde(default)]
    event_name: String,
    s3: RawS3,
}

#[derive(Deserialize)]
struct RawS3 {
    bucket: RawBucket,
    object: RawObject,
}

#[derive(Deserialize)]
struct RawBucket {
    name: String,
}

#[derive(Deserialize)]
struct RawObject {
    key: String,
    #[serde(default)]
    sequencer: String,
    size: Option<u64>,
}

/// The records of a body, not yet accepted.
///
/// # Errors
/// The parser's words if it is not `{"Records": [...]}` of S3 records.
pub fn parse_body(body: &[u8], webhook_id: Option<&str>, request: u64) -> Result<Vec<Record>, serde_json::Error> {
    let parsed: Body = serde_json::from_slice(body)?;
    let arrival = Instant::now();
    let record = |(index, raw): (usize, RawRecord)| Record {
        event_id: raw.event_id.unwrap_or_else(|| match webhook_id {
            Some(id) => format!("{id}/{index}"),
            None => format!("request-{request}/{index}"),
        }),
        bucket: raw.s3.bucket.name,
        key: decode_key(&raw.s3.object.key),
        sequencer: raw.s3.object.sequencer,
        event_name: raw.event_name,
        size: raw.s3.object.size,
        arrival,
        raw_size: body.len(),
        request,
        accepted: false,
        encoded_key: raw.s3.object.key,
    };
    Ok(parsed.records.into_iter().enumerate().map(record).collect())
}

/// Undoes form encoding: `+` is a space, `%XX` a byte. A faulty escape stays as it is.
pub fn decode_key(encoded: &str) -> String {
    let bytes = encoded.as_bytes();
    let hex = |at: usize| bytes.get(at).and_then(|b| char::from(*b).to_digit(16));
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        match (bytes[at], hex(at + 1), hex(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                at += 2;
            }
            (b'+', ..) => out.push(b' '),
            (byte, ..) => out.push(byte),
        }
        at += 1;
    }
    String::from_utf8(out).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned())
}

/// Two records of one key that came in the wrong order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The bucket.
    pub bucket: String,
    /// The key.
    pub key: String,
    /// Id and sequencer of the record that came first.
    pub first: (String, String),
    /// Id and sequencer of the record that came later, with a sequencer that is not higher.
    pub then: (String, String),
    /// The number of the request that brought the later one.
    pub request: u64,
    /// Whether it shows among the accepted records only. Among them a record counts where it was accepted and not
    /// where it was refused, so that a successor that overtook a refused record is found.
    pub among_accepted: bool,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Violation { bucket, key, first, then, request, among_accepted } = self;
        let of = if *among_accepted { "accepted" } else { "all" };
        write!(
            f,
            "{bucket}/{key}: {} ({}) came after {} ({}) in request {request}, of {of} records",
            then.0, then.1, first.0, first.1
        )
    }
}

/// Checks the order of each key: when repeats (by event id) are dropped, sequencers must ascend strictly, among all
/// records as they arrived and again among the accepted ones.
///
/// Records without sequencer are passed over.
pub fn check_per_key_order(records: &[Record]) -> Vec<Violation> {
    let mut violations = check(records.iter(), false);
    violations.extend(check(records.iter().filter(|r| r.accepted), true));
    violations
}

fn check<'a>(records: impl Iterator<Item = &'a Record>, among_accepted: bool) -> Vec<Violation> {
    let mut seen = HashSet::new();
    let mut highest: HashMap<(&str, &str), &Record> = HashMap::new();
    let mut violations = Vec::new();
    for record in records.filter(|r| !r.sequencer.is_empty()) {
        if !seen.insert(record.event_id.as_str()) {
            continue;
        }
        let last = highest.entry((&record.bucket, &record.key)).or_insert(record);
        if std::ptr::eq(*last, record) {
            continue;
        }
        if compare_sequencers(&last.sequencer, &record.sequencer) == Ordering::Less {
            *last = record;
            continue;
        }
        violations.push(Violation {
            bucket: record.bucket.clone(),
            key: record.key.clone(),
            first: (last.event_id.clone(), last.sequencer.clone()),
            then: (record.event_id.clone(), record.sequencer.clone()),
            request: record.request,
            among_accepted,
        });
    }
    violations
}

/// Compares two sequencers of one key as hexadecimal numbers of any length.
pub fn compare_sequencers(a: &str, b: &str) -> Ordering {
    let (a, b) = (a.trim_start_matches('0'), b.trim_start_matches('0'));
    let lower = |s: &str| s.bytes().map(|b| b.to_ascii_lowercase()).collect::<Vec<_>>();
    a.len().cmp(&b.len()).then_with(|| lower(a).cmp(&lower(b)))
}

/// The ids that came more than once, with how often, in the order of their first arrival.
pub fn duplicates(records: &[Record]) -> Vec<(String, usize)> {
    let mut times: HashMap<&str, usize> = HashMap::new();
    for record in records {
        *times.entry(&record.event_id).or_default() += 1;
    }
    // Removing an id as it is listed keeps it from being listed again.
    let mut listed = |record: &Record| times.remove(record.event_id.as_str()).filter(|n| *n > 1);
    records.iter().filter_map(|r| Some((r.event_id.clone(), listed(r)?))).collect()
}

/// The expected ids that no accepted record has, in the order given.
pub fn missing<S: AsRef<str>>(records: &[Record], expected: impl IntoIterator<Item = S>) -> Vec<String> {
    let accepted: HashSet<&str> = records.iter().filter(|r| r.accepted).map(|r| r.event_id.as_str()).collect();
    expected.into_iter().map(|id| id.as_ref().to_owned()).filter(|id| !accepted.contains(id.as_str())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(event_id: &str, key: &str, sequencer: &str, accepted: bool) -> Record {
        Record {
            event_id: event_id.into(),
            bucket: "b".into(),
            key: key.into(),
            sequencer: sequencer.into(),
            event_name: String::new(),
            size: None,
            arrival: Instant::now(),
            raw_size: 0,
            request: 1,
            accepted,
            encoded_key: key.into(),
        }
    }

    #[test]
    fn keys() {
        for (encoded, key) in [
            ("red+flower.jpg", "red flower.jpg"),
            ("a%2Bb", "a+b"),
            ("dir%2fx", "dir/x"),
            ("%C3%A9", "é"),
            ("100%", "100%"),
            ("%zz%4", "%zz%4"),
            ("%FF", "\u{fffd}"),
            ("", ""),
        ] {
            assert_eq!(decode_key(encoded), key, "{encoded}");
        }
    }

    #[test]
    fn bodies() {
        let body = br#"{"Records":[
            {"eventId":"1","eventName":"ObjectCreated:Put","s3":{"bucket":{"name":"b"},
             "object":{"key":"a+b","sequencer":"0A","size":1}}, "more":[1]},
            {"s3":{"bucket":{"name":"b"},"object":{"key":"c"}}}]}"#;
        let records = parse_body(body, Some("w"), 7).expect("records");
        assert_eq!(records.len(), 2);
        let Record { event_id, key, sequencer, event_name, raw_size, request, .. } = &records[0];
        assert_eq!((event_id.as_str(), key.as_str(), sequencer.as_str()), ("1", "a b", "0A"));
        assert_eq!((event_name.as_str(), *raw_size, *request), ("ObjectCreated:Put", body.len(), 7));
        assert_eq!((records[1].event_id.as_str(), records[1].sequencer.as_str()), ("w/1", ""));
        for bad in ["", "[]", "{}", r#"{"Records":[{}]}"#, r#"{"Event":"s3:TestEvent"}"#] {
            assert!(parse_body(bad.as_bytes(), None, 1).is_err(), "{bad}");
        }
    }

    #[test]
    fn sequencers() {
        for (a, b, order) in [
            ("0A", "0B", Ordering::Less),
            ("9", "10", Ordering::Less),
            ("00ff", "FF", Ordering::Equal),
            ("617f08299329d189", "617f08299329d188", Ordering::Greater),
        ] {
            assert_eq!(compare_sequencers(a, b), order, "{a} {b}");
        }
    }

    #[test]
    fn order() {
        let good = [
            record("1", "k", "1", false),
            record("x", "other", "9", true),
            record("1", "k", "1", true),
            record("2", "k", "2", true),
            record("1", "k", "1", true),
            record("3", "k", "3", true),
            record("n", "k", "", true),
        ];
        assert_eq!(check_per_key_order(&good), []);

        let swapped = [record("2", "k", "2", true), record("1", "k", "1", true), record("3", "k", "3", true)];
        let found = check_per_key_order(&swapped);
        assert_eq!(found.iter().map(|v| v.among_accepted).collect::<Vec<_>>(), [false, true]);
        assert!(found.iter().all(|v| v.first.0 == "2" && v.then.0 == "1" && v.key == "k"));

        let overtaken = [record("1", "k", "1", false), record("2", "k", "2", true), record("1", "k", "1", true)];
        let found = check_per_key_order(&overtaken);
        assert_eq!(found.len(), 1);
        assert!(found[0].among_accepted && found[0].to_string().contains("b/k: 1 (1) came after 2 (2)"));

        let equal = [record("1", "k", "1", true), record("2", "k", "1", true)];
        assert_eq!(check_per_key_order(&equal).len(), 2, "an equal sequencer is not higher");
    }

    #[test]
    fn repeats_and_gaps() {
        let records = [
            record("1", "k", "1", true),
            record("2", "k", "2", false),
            record("3", "k", "3", true),
            record("3", "k", "3", true),
            record("1", "k", "1", true),
            record("1", "k", "1", true),
        ];
        assert_eq!(duplicates(&records), [("1".to_owned(), 3), ("3".to_owned(), 2)]);
        assert_eq!(missing(&records, ["1", "2", "3", "4"]), ["2", "4"]);
    }
}
