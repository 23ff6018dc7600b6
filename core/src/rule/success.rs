//! What a destination counts as success: its answers' statuses, a header, a test on the body; and where an answer names
//! the events that were not taken. Pure.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{Error, Result};

const STATUSES_MAX: usize = 64;
const TEXT_BYTES_MAX: usize = 1024;

/// When an answer is a success. By default each with a status from 200 to 299.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Success {
    /// The statuses that are, 200 to 599, at most 64 entries; an answer with any other is judged by its class, and one
    /// from 200 to 299 is tried again. Default: 200 to 299.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub statuses: Vec<Statuses>,
    /// A header that it must have. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header: Option<HeaderTest>,
    /// What its body must say. Default: nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<BodyTest>,
}

/// One status, or a range of them, written as `204` or `"200-204"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "StatusText", into = "StatusText")]
pub struct Statuses {
    /// The first one.
    pub first: u16,
    /// The last one.
    pub last: u16,
}

#[derive(Deserialize, Serialize)]
#[serde(untagged)]
enum StatusText {
    One(u16),
    Range(String),
}

impl TryFrom<StatusText> for Statuses {
    type Error = String;

    fn try_from(text: StatusText) -> std::result::Result<Statuses, String> {
        match text {
            StatusText::One(n) => Ok(Statuses { first: n, last: n }),
            StatusText::Range(text) => {
                let parsed = text
                    .split_once('-')
                    .and_then(|(a, b)| Some(Statuses { first: a.trim().parse().ok()?, last: b.trim().parse().ok()? }));
                parsed.ok_or_else(|| {
                    format!("`{}` is no range of statuses; write it as \"200-204\"", text.escape_debug())
                })
            }
        }
    }
}

impl From<Statuses> for StatusText {
    fn from(s: Statuses) -> StatusText {
        if s.first == s.last { StatusText::One(s.first) } else { StatusText::Range(format!("{}-{}", s.first, s.last)) }
    }
}

/// A header that an answer must have.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct HeaderTest {
    /// Its name, in any case.
    pub name: String,
    /// Its value, exactly, without space around it. Default: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
}

/// What the body of an answer must say, of which the first 64 KiB are read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct BodyTest {
    /// A JSON pointer (RFC 6901) to the value that is looked at, as in `/result/ok`. Without it the body is looked at as
    /// text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// What is to be there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub equals: Option<Value>,
    /// A text that is to be part of the text, or of the list, that is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub contains: Option<String>,
}

/// Where a successful answer names the events that the receiver did not take, as in a batch response of SQS:
/// `{"batchItemFailures": [{"itemIdentifier": "…"}]}`. Only those are sent again, and later ones of the same key behind
/// them. An answer without the list, or with an empty one, is a success; one that names what was not sent, or is not JSON,
/// is a failure of the whole request.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Partial {
    /// A JSON pointer to the list.
    pub failures: String,
    /// The member of each entry that says which event it is. Default: the entry itself says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// By what the events are named.
    #[serde(default)]
    pub by: PartialBy,
}

/// By what an answer names events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PartialBy {
    /// By their ids.
    #[default]
    Id,
    /// By their places in the request, from 0.
    Index,
}

fn bad<T>(key: &str, what: impl Into<String>, remedy: &str) -> Result<T> {
    Err(Error::invalid_config(what).at(key).remedy(remedy))
}

fn check_pointer(key: &str, pointer: &str) -> Result<()> {
    if pointer.len() > TEXT_BYTES_MAX || !(pointer.is_empty() || pointer.starts_with('/')) {
        let what = format!("`{}` is no JSON pointer", pointer.escape_debug());
        return bad(key, what, "write it as /member/of/member, or \"\" for the whole body");
    }
    Ok(())
}

impl Success {
    pub(super) fn validate(&self) -> Result<()> {
        let form = "write statuses from 200 to 599, as in [200, \"202-204\"], at most 64";
        let legal = self.statuses.iter().all(|s| (200..600).contains(&s.first) && (s.first..600).contains(&s.last));
        if !legal || self.statuses.len() > STATUSES_MAX {
            return bad("success.statuses", "these are no statuses of answers", form);
        }
        if let Some(h) = &self.header {
            let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
            if h.name.is_empty() || h.name.len() > TEXT_BYTES_MAX || !h.name.bytes().all(token) {
                let what = format!("`{}` is not a header name", h.name.escape_debug());
                return bad("success.header", what, "use letters, digits and hyphens");
            }
            if h.value.as_ref().is_some_and(|v| v.trim().len() != v.len() || v.len() > TEXT_BYTES_MAX) {
                return bad("success.header", "the value begins or ends with space, or is too long", "leave that out");
            }
        }
        let Some(b) = &self.body else { return Ok(()) };
        if let Some(path) = &b.path {
            check_pointer("success.body", path)?;
        }
        match (&b.equals, &b.contains) {
            (None, None) => bad("success.body", "it says nothing of the body", "add `equals` or `contains`"),
            (Some(_), Some(_)) => bad("success.body", "both `equals` and `contains` are given", "keep one"),
            (Some(v), None) if b.path.is_none() && !v.is_string() => {
                bad("success.body", "the whole body is text", "add a `path`, or write the text in quotes")
            }
            _ => Ok(()),
        }
    }

    /// Whether the body of answers must be read as a whole.
    pub(crate) fn reads_body(&self) -> bool {
        self.body.is_some()
    }

    /// Whether a status counts as success.
    pub(crate) fn has_status(&self, status: u16) -> bool {
        match self.statuses.is_empty() {
            true => (200..300).contains(&status),
            false => self.statuses.iter().any(|s| (s.first..=s.last).contains(&status)),
        }
    }

    /// What is wrong with an answer whose status is a success. `header` is the value of the header that is asked for.
    pub(crate) fn objection(&self, header: Option<&str>, body: &[u8]) -> Option<String> {
        if let Some(test) = &self.header {
            let Some(found) = header else { return Some(format!("without the header {}", test.name)) };
            if test.value.as_ref().is_some_and(|v| v != found) {
                return Some(format!("with another value of the header {}", test.name));
            }
        }
        let test = self.body.as_ref()?;
        let Some(path) = &test.path else {
            let text = String::from_utf8_lossy(body);
            let equal = test.equals.as_ref().is_none_or(|v| v.as_str() == Some(text.trim()));
            let within = test.contains.as_ref().is_none_or(|c| text.contains(c.as_str()));
            return (!(equal && within)).then(|| "with a body that does not say success".into());
        };
        let Ok(json) = serde_json::from_slice::<Value>(body) else {
            return Some("with a body that is not JSON".into());
        };
        let Some(value) = json.pointer(path) else { return Some(format!("with nothing at {path} of its body")) };
        let equal = test.equals.as_ref().is_none_or(|v| v == value);
        let within = test.contains.as_ref().is_none_or(|c| match value {
            Value::String(s) => s.contains(c.as_str()),
            Value::Array(list) => list.iter().any(|v| v.as_str() == Some(c)),
            _ => false,
        });
        (!(equal && within)).then(|| format!("with another value at {path} of its body"))
    }
}

impl Partial {
    pub(super) fn validate(&self) -> Result<()> {
        check_pointer("partial.failures", &self.failures)?;
        match &self.id {
            Some(id) if id.is_empty() || id.len() > TEXT_BYTES_MAX => {
                bad("partial.id", "it names no member", "write the name of a member of each entry")
            }
            _ => Ok(()),
        }
    }

    /// The places of the events that the receiver did not take, ascending, each once. `ids` are those of the request.
    ///
    /// # Errors
    /// Why the answer says nothing that can be relied on.
    pub(crate) fn failed(&self, body: &[u8], ids: &[String]) -> std::result::Result<Vec<usize>, String> {
        if body.trim_ascii().is_empty() {
            return Ok(Vec::new());
        }
        let json: Value = serde_json::from_slice(body).map_err(|_| "its body is not JSON".to_owned())?;
        let list = match json.pointer(&self.failures) {
            None | Some(Value::Null) => return Ok(Vec::new()),
            Some(Value::Array(list)) => list,
            Some(_) => return Err(format!("there is no list at {} of its body", self.failures)),
        };
        let mut failed = Vec::with_capacity(list.len().min(ids.len()));
        for entry in list {
            let name = match &self.id {
                Some(member) => entry.get(member),
                None => Some(entry),
            };
            let at = match (self.by, name) {
                (PartialBy::Id, Some(Value::String(id))) => ids.iter().position(|i| i == id),
                (PartialBy::Index, Some(Value::Number(n))) => n.as_u64().map(|n| n as usize),
                (PartialBy::Index, Some(Value::String(n))) => n.parse().ok(),
                _ => None,
            };
            match at.filter(|at| *at < ids.len()) {
                Some(at) => failed.push(at),
                None => return Err("its body names an event that was not sent".into()),
            }
        }
        failed.sort_unstable();
        failed.dedup();
        Ok(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn success(v: Value) -> Success {
        let s: Success = serde_json::from_value(v).unwrap();
        s.validate().unwrap();
        assert_eq!(serde_json::from_value::<Success>(serde_json::to_value(&s).unwrap()).unwrap(), s);
        s
    }

    #[test]
    fn statuses_are_a_set() {
        let usual = success(json!({}));
        assert!(usual.has_status(200) && usual.has_status(299) && !usual.has_status(300) && !usual.has_status(199));
        let own = success(json!({"statuses": [200, "202-204", 409]}));
        let yes: Vec<u16> = (100..999).filter(|s| own.has_status(*s)).collect();
        assert_eq!(yes, [200, 202, 203, 204, 409]);
        for wrong in [json!([100]), json!(["204-202"]), json!(["200-"]), json!(["x"]), json!([600])] {
            let read = serde_json::from_value::<Success>(json!({"statuses": wrong}));
            assert!(read.is_err() || read.unwrap().validate().is_err(), "{wrong}");
        }
    }

    #[test]
    fn headers_and_bodies_are_tested() {
        let s = success(json!({"header": {"name": "X-Result", "value": "ok"}}));
        assert_eq!(s.objection(Some("ok"), b""), None);
        assert!(s.objection(Some("no"), b"").is_some() && s.objection(None, b"").is_some());
        let any = success(json!({"header": {"name": "X-Result"}}));
        assert!(any.objection(Some(""), b"").is_none() && any.objection(None, b"").is_some());
        for (test, good, bad) in [
            (json!({"contains": "accepted"}), &b"was accepted."[..], &b"was refused."[..]),
            (json!({"equals": "ok"}), b" ok\n", b"okay"),
            (json!({"path": "/ok", "equals": true}), br#"{"ok": true}"#, br#"{"ok": "true"}"#),
            (json!({"path": "/a/0/b", "equals": 3}), br#"{"a": [{"b": 3}]}"#, br#"{"a": []}"#),
            (json!({"path": "", "equals": {"x": [1]}}), br#"{"x":[1]}"#, b"not JSON"),
            (json!({"path": "/s", "contains": "don"}), br#"{"s": "all done"}"#, br#"{"s": 7}"#),
            (json!({"path": "/s", "contains": "b"}), br#"{"s": ["a", "b"]}"#, br#"{"s": ["ab"]}"#),
        ] {
            let s = success(json!({ "body": test }));
            assert_eq!(s.objection(None, good), None, "{test}");
            assert!(s.objection(None, bad).is_some() && s.objection(None, b"").is_some(), "{test}");
        }
        for wrong in [
            json!({"body": {}}),
            json!({"body": {"equals": 1, "contains": "x", "path": "/a"}}),
            json!({"body": {"equals": 1}}),
            json!({"body": {"path": "a", "contains": "x"}}),
            json!({"header": {"name": "a b"}}),
            json!({"header": {"name": "a", "value": " x"}}),
        ] {
            assert!(serde_json::from_value::<Success>(wrong.clone()).unwrap().validate().is_err(), "{wrong}");
        }
    }

    #[test]
    fn failed_events_are_found_by_id_or_place() {
        let ids = ["a", "b", "c"].map(String::from);
        let sqs =
            Partial { failures: "/batchItemFailures".into(), id: Some("itemIdentifier".into()), by: PartialBy::Id };
        let of = |p: &Partial, body: &str| p.failed(body.as_bytes(), &ids);
        for (body, failed) in [
            (
                r#"{"batchItemFailures": [{"itemIdentifier": "c"}, {"itemIdentifier": "a"}, {"itemIdentifier": "c"}]}"#,
                vec![0, 2],
            ),
            (r#"{"batchItemFailures": []}"#, vec![]),
            (r#"{"batchItemFailures": null}"#, vec![]),
            ("{}", vec![]),
            (" ", vec![]),
        ] {
            assert_eq!(of(&sqs, body), Ok(failed), "{body}");
        }
        for body in [
            r#"{"batchItemFailures": [{"itemIdentifier": "z"}]}"#,
            r#"{"batchItemFailures": [{"itemIdentifier": ""}]}"#,
            r#"{"batchItemFailures": [{"other": "a"}]}"#,
            r#"{"batchItemFailures": "a"}"#,
            r#"{"batchItemFailures": [{"itemIdentifier": "#,
        ] {
            assert!(of(&sqs, body).is_err(), "{body}");
        }
        let plain = Partial { failures: String::new(), id: None, by: PartialBy::Index };
        assert_eq!(of(&plain, "[2, \"0\"]"), Ok(vec![0, 2]));
        assert!(of(&plain, "[3]").is_err() && of(&plain, "[-1]").is_err() && of(&plain, "[0.5]").is_err());
    }
}
