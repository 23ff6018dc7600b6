//! The receiver's side, for services in Rust that get webhooks: verifying signatures, reading records, dropping repeats, and
//! knowing which of two events is newer. No engine is needed.
//!
//! Deliveries are at least once: a repeat has the same event id. Events of one key come in order; after a failure an older one
//! may come again behind a newer one, which its sequencer tells.

use std::cmp::Ordering;
use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::hmac::{self, HMAC_SHA256};
use ring::signature::{ED25519, UnparsedPublicKey};
use serde_json::Value;

use crate::error::{Error, ErrorKind, Result};

/// How far the time of a signature may be from now.
pub const TOLERANCE: Duration = Duration::from_secs(300);
/// The longest body that is read, in bytes.
const BODY_BYTES_MAX: usize = 64 << 20;
/// The longest sequencer, in digits.
const SEQUENCER_DIGITS_MAX: usize = 64;

/// Checks requests that are signed as Standard Webhooks says. It never changes, and may be used from any thread.
pub struct StandardWebhooks {
    shared: Vec<hmac::Key>,
    public: Vec<Vec<u8>>,
}

impl std::fmt::Debug for StandardWebhooks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StandardWebhooks").field("secrets", &(self.shared.len() + self.public.len())).finish()
    }
}

impl StandardWebhooks {
    /// With one secret, or several while one takes the place of another: `whsec_…`, or a public key `whpk_…`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] for one that is none, or if there is none.
    pub fn new<S: AsRef<str>>(secrets: impl IntoIterator<Item = S>) -> Result<StandardWebhooks> {
        let invalid = |what: &str| {
            Error::new(ErrorKind::InvalidArgument, what).at("secret").remedy("give whsec_… or whpk_… in base 64")
        };
        let mut this = StandardWebhooks { shared: Vec::new(), public: Vec::new() };
        for secret in secrets {
            let secret = secret.as_ref();
            let (text, is_public) = match secret.strip_prefix("whpk_") {
                Some(text) => (text, true),
                None => (secret.strip_prefix("whsec_").unwrap_or(secret), false),
            };
            let bytes = STANDARD.decode(text).map_err(|_| invalid("a secret is not base 64"))?;
            match (is_public, bytes.len()) {
                (true, 32) => this.public.push(bytes),
                (true, _) => return Err(invalid("a public key of Ed25519 has 32 bytes")),
                (false, 0) => return Err(invalid("a secret is empty")),
                (false, _) => this.shared.push(hmac::Key::new(HMAC_SHA256, &bytes)),
            }
        }
        if this.shared.is_empty() && this.public.is_empty() {
            return Err(invalid("there is no secret"));
        }
        Ok(this)
    }

    /// Checks a request: the values of its headers `webhook-id`, `webhook-timestamp` and `webhook-signature`, and its body as it
    /// was sent. `unix` is now, in seconds since the epoch.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] if no signature fits, or the time is too far from now: answer 401.
    pub fn verify(
        &self,
        id: &str,
        timestamp: &str,
        signatures: &str,
        body: &[u8],
        unix: i64,
        tolerance: Duration,
    ) -> Result<()> {
        let refused = |what: &str| Error::new(ErrorKind::InvalidArgument, what).at("webhook-signature");
        let is_number = (1..=15).contains(&timestamp.len()) && timestamp.bytes().all(|b| b.is_ascii_digit());
        let when: i64 = timestamp.parse().ok().filter(|_| is_number).ok_or_else(|| refused("the time is no number"))?;
        if unix.abs_diff(when) > tolerance.as_secs() {
            return Err(refused("the time is too far from now"));
        }
        let mut signed = format!("{id}.{timestamp}.").into_bytes();
        signed.extend_from_slice(body);
        for signature in signatures.split_ascii_whitespace() {
            let Some((version, text)) = signature.split_once(',') else { continue };
            let Ok(given) = STANDARD.decode(text) else { continue };
            let fits = match version {
                "v1" => self.shared.iter().any(|key| hmac::verify(key, &signed, &given).is_ok()),
                "v1a" => {
                    let verify = |key: &Vec<u8>| UnparsedPublicKey::new(&ED25519, key).verify(&signed, &given);
                    self.public.iter().any(|key| verify(key).is_ok())
                }
                _ => false,
            };
            if fits {
                return Ok(());
            }
        }
        Err(refused("no signature fits any secret"))
    }
}

/// One event of a request.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Received {
    /// The same in each repeat.
    pub id: String,
    /// With the prefix `s3:` where S3 has it, whatever the record has.
    pub event_type: String,
    /// The bucket.
    pub bucket: String,
    /// The key, raw.
    pub key: Vec<u8>,
    /// Its place among the events of the key ([`compare_sequencers`]); empty if the record has none.
    pub sequencer: String,
    /// All of it.
    pub record: Value,
}

/// The events of a body, in their order: `Records` of the profiles `aws`, `minio` and `ceph`, CloudEvents in JSON, one or many,
/// or lines of these. What S3 sends as a test (`s3:TestEvent`) has no events.
///
/// # Errors
/// [`ErrorKind::InvalidArgument`] if it is none of that: answer 400.
pub fn read(body: &[u8]) -> Result<Vec<Received>> {
    let refused = |what: String| Error::new(ErrorKind::InvalidArgument, what).at("body");
    if body.len() > BODY_BYTES_MAX {
        return Err(refused(format!("it has {} bytes, more than {BODY_BYTES_MAX}", body.len())));
    }
    let mut events = Vec::new();
    for document in serde_json::Deserializer::from_slice(body).into_iter::<Value>() {
        let document = document.map_err(|e| refused(format!("it is not JSON: {e}")))?;
        read_document(document, &mut events)
            .ok_or_else(|| refused("it is none of the documents that are known".into()))?;
    }
    if events.is_empty() && body.iter().all(u8::is_ascii_whitespace) {
        return Err(refused("it is empty".into()));
    }
    Ok(events)
}

fn read_document(mut document: Value, events: &mut Vec<Received>) -> Option<()> {
    let mut add = |event: Option<Received>| event.map(|event| events.push(event));
    if let Value::Array(all) = document {
        return all.into_iter().try_for_each(|one| read_document(one, events));
    }
    if let Some(records) = document.get_mut("Records").map(Value::take) {
        let Value::Array(records) = records else { return None };
        return records.into_iter().try_for_each(|record| add(read_s3(record)));
    }
    if document.get("specversion").is_some() {
        return add(read_cloudevent(document));
    }
    if document.get("s3").is_some() {
        return add(read_s3(document));
    }
    (document.get("Event")? == "s3:TestEvent").then_some(())
}

fn read_s3(record: Value) -> Option<Received> {
    let text = |pointer: &str| record.pointer(pointer).and_then(Value::as_str);
    let key = text("/s3/object/key")?;
    // Those of Ceph, which gives buckets an id, are raw, with the encoded form beside what is no UTF-8.
    let key = match (record.pointer("/s3/bucket/id"), text("/s3/object/keyEncoded")) {
        (Some(_), None) => key.as_bytes().to_vec(),
        (Some(_), Some(encoded)) => form_decode(encoded),
        (None, _) => form_decode(key),
    };
    let name = text("/eventName")?;
    let is_bare = ["Object", "Lifecycle", "Replication", "Intelligent", "Reduced"].iter().any(|p| name.starts_with(p));
    Some(Received {
        id: text("/eventId").or_else(|| text("/responseElements/x-amz-request-id")).unwrap_or_default().to_owned(),
        event_type: if is_bare { format!("s3:{name}") } else { name.to_owned() },
        bucket: text("/s3/bucket/name")?.to_owned(),
        key,
        sequencer: text("/s3/object/sequencer").unwrap_or_default().to_owned(),
        record,
    })
}

fn read_cloudevent(event: Value) -> Option<Received> {
    let text = |name: &str| event.get(name).and_then(Value::as_str);
    let kind = text("type")?;
    let event_type = match (kind.strip_prefix("com.amazonaws.s3."), kind.strip_prefix("dev.tidewire.")) {
        (Some(name), _) => format!("s3:{name}"),
        (_, Some(name)) => name.to_owned(),
        _ => kind.to_owned(),
    };
    let data = event.get("data").cloned().unwrap_or_default();
    let (bucket, key) = match data.get("s3") {
        Some(_) => read_s3(data).map(|inner| (inner.bucket, inner.key))?,
        None => {
            let of = |name: &str| data.get(name).and_then(Value::as_str);
            let key = of("key").or_else(|| text("subject")).unwrap_or_default();
            (of("bucket").unwrap_or_default().to_owned(), key.as_bytes().to_vec())
        }
    };
    Some(Received {
        id: text("id")?.to_owned(),
        event_type,
        bucket,
        key,
        sequencer: text("sequence").unwrap_or_default().to_owned(),
        record: event,
    })
}

/// A key as a form has it; what is no escape stays as it is.
fn form_decode(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let digit = |at: usize| after.get(at).and_then(|b| (*b as char).to_digit(16));
        match (first, digit(0), digit(1)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                rest = &after[2..];
            }
            (b'+', ..) => {
                out.push(b' ');
                rest = after;
            }
            _ => {
                out.push(*first);
                rest = after;
            }
        }
    }
    out
}

/// Which of two events of one key is newer. Sequencers are hexadecimal numbers; where their lengths differ the shorter one is
/// filled up with zeros on the left, as S3 asks for.
///
/// # Errors
/// [`ErrorKind::InvalidArgument`] for what has not 1 to 64 hexadecimal digits.
pub fn compare_sequencers(a: &str, b: &str) -> Result<Ordering> {
    let digits = |s: &str| -> Result<String> {
        if !(1..=SEQUENCER_DIGITS_MAX).contains(&s.len()) || !s.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(Error::new(ErrorKind::InvalidArgument, format!("`{}` is no sequencer", s.escape_debug()))
                .remedy("it has 1 to 64 hexadecimal digits"));
        }
        Ok(format!("{:0>SEQUENCER_DIGITS_MAX$}", s.to_ascii_uppercase()))
    };
    Ok(digits(a)?.cmp(&digits(b)?))
}

/// Remembers the ids of the events that are done: of so many at most, the oldest are forgotten first.
#[derive(Debug)]
pub struct Repeats {
    entries_max: usize,
    ids: HashSet<String>,
    order: VecDeque<String>,
}

impl Repeats {
    /// Of so many at most, at least 1.
    pub fn new(entries_max: usize) -> Repeats {
        Repeats { entries_max: entries_max.max(1), ids: HashSet::new(), order: VecDeque::new() }
    }

    /// Whether an event of this id is done.
    pub fn contains(&self, id: &str) -> bool {
        self.ids.contains(id)
    }

    /// Remembers an id. Answers whether it is new.
    pub fn add(&mut self, id: &str) -> bool {
        if !self.ids.insert(id.to_owned()) {
            return false;
        }
        self.order.push_back(id.to_owned());
        if self.order.len() > self.entries_max
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
    const BODY: &[u8] = b"{\"test\": 2432232314}";
    const SIGNATURE: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";

    #[test]
    fn a_request_is_verified_or_refused() {
        let webhooks = StandardWebhooks::new([format!("whsec_{SECRET}")]).unwrap();
        let verify = |id, time, signature: &str, body: &[u8], now| {
            webhooks.verify(id, time, signature, body, now, TOLERANCE).map_err(|e| e.message().to_owned())
        };
        let many = format!("v1a,AAAA v2,x nonsense {SIGNATURE}");
        assert_eq!(verify(ID, "1614265330", &many, BODY, 1_614_265_340), Ok(()));
        assert!(verify(ID, "1614265330", SIGNATURE, b"{}", 1_614_265_340).unwrap_err().contains("no signature"));
        assert!(verify("other", "1614265330", SIGNATURE, BODY, 1_614_265_340).is_err());
        assert!(verify(ID, "1614265330", SIGNATURE, BODY, 0).unwrap_err().contains("too far"));
        for time in ["", "-5", "+5", "x", "9999999999999999999"] {
            assert!(verify(ID, time, SIGNATURE, BODY, 0).unwrap_err().contains("no number"), "{time}");
        }
        for wrong in ["whsec_!", "whpk_AAAA", ""] {
            assert!(StandardWebhooks::new([wrong]).is_err(), "{wrong}");
        }
        assert!(StandardWebhooks::new(Vec::<String>::new()).is_err());
        assert!(!format!("{webhooks:?}").contains("MfKQ"));
    }

    #[test]
    fn records_are_read_in_every_form() {
        let record = r#"{"eventName":"ObjectCreated:Put","eventId":"1","s3":{"bucket":{"name":"b"},"object":{"key":"a+b%2B%FF","sequencer":"0A"}}}"#;
        let event =
            r#"{"specversion":"1.0","id":"2","type":"com.amazonaws.s3.ObjectRemoved:Delete","sequence":"0B","data":"#;
        let event = format!("{event}{record}}}");
        let ceph = record.replace(r#""name":"b""#, r#""name":"b","id":"x""#);
        for (body, count) in [
            (format!(r#"{{"Records":[{record},{record}]}}"#), 2),
            (format!("[{event},{event}]"), 2),
            (format!("{record}\n{event}\n"), 2),
            (event.clone(), 1),
            (r#"{"Event":"s3:TestEvent"}"#.to_owned(), 0),
        ] {
            let events = read(body.as_bytes()).unwrap();
            assert_eq!(events.len(), count, "{body}");
            assert!(events.iter().all(|e| e.bucket == "b" && e.key == b"a b+\xff"), "{events:?}");
        }
        let one = &read(event.as_bytes()).unwrap()[0];
        assert_eq!(
            (one.id.as_str(), one.event_type.as_str(), one.sequencer.as_str()),
            ("2", "s3:ObjectRemoved:Delete", "0B")
        );
        assert_eq!(read(ceph.as_bytes()).unwrap()[0].key, b"a+b%2B%FF");
        for wrong in ["", " ", "{", "5", "{}", r#"{"Records":5}"#, r#"{"Records":[{}]}"#, r#"{"specversion":"1.0"}"#] {
            assert!(read(wrong.as_bytes()).is_err(), "{wrong}");
        }
        assert!(read(&b"[".repeat(100_000)).is_err());
    }

    #[test]
    fn sequencers_are_compared_as_numbers() {
        assert_eq!(compare_sequencers("0A", "9").unwrap(), Ordering::Greater);
        assert_eq!(compare_sequencers("a", "0A").unwrap(), Ordering::Equal);
        assert_eq!(compare_sequencers("1", "F0").unwrap(), Ordering::Less);
        for wrong in ["", "xyz", "0x1", "-1"] {
            assert!(compare_sequencers(wrong, "1").is_err(), "{wrong}");
        }
    }

    #[test]
    fn repeats_are_known_up_to_a_number() {
        let mut repeats = Repeats::new(2);
        assert!(repeats.add("a") && repeats.add("b") && !repeats.add("a"));
        assert!(repeats.add("c") && !repeats.contains("a") && repeats.contains("b"));
    }
}
