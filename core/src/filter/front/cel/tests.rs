//! What expressions mean, against an evaluator of CEL's own rules, and what is refused.

use proptest::prelude::*;

use super::parse::{Comparison, Expr, Kind};
use super::*;
use crate::event::{Event, FrameView, KnownType, frame};
use crate::filter::Number;

fn event() -> Vec<u8> {
    let mut e = Event::new(KnownType::ObjectCreatedPut.into(), "photos", b"in/a.jpg");
    (e.size, e.requester, e.source_ip) = (Some(2048), "alice", "10.1.2.3");
    e.time_ns = 1_700_000_000_000_000_000; // 2023-11-14T22:13:20Z
    (e.tags, e.metadata) = (&[("env", "prod"), ("a b", "c")], &[("colour", "red")]);
    e.data = br#"{"n": 5, "f": true, "s": "text", "z": null, "o": {"list": ["x", 2], "k-1": "v"}}"#;
    frame::encode_to_vec(&e, 1)
}

fn holds(text: &str) -> bool {
    let filter = Filter::parse_cel(text).unwrap_or_else(|e| panic!("{text}: {e}"));
    filter.matches_frame(FrameView::parse(&event()).unwrap())
}

#[track_caller]
fn refused(text: &str, parts: &[&str]) {
    match Filter::parse_cel(text) {
        Err(e) => super::super::tests::refused_with(e, parts),
        Ok(f) => panic!("{text} was read as {f:?}"),
    }
}

#[test]
fn expressions_hold_or_do_not() {
    for text in [
        "true",
        "!false",
        "event.key == 'in/a.jpg'",
        "\"photos\" == event.bucket",
        "event.key.startsWith(\"in/\") && event.key.endsWith(\".jpg\")",
        "event.key.contains('/a') || event.key.contains('zz')",
        r"event.key.matches('^in/.*\\.jpg$')",
        r#"event.key.matches(r"^in/.*\.jpg$")"#,
        "event.key != 'x'",
        "!(event.key == 'x')",
        "event.size > 2 * 1024 - 1 && event.size <= 2048u && event.size < 1e9 && 2047 < event.size",
        "event.size == 0x800",
        "event.size == 2048.0",
        "event.time >= timestamp('2023-11-14T22:13:20Z') && event.time < timestamp('2024-01-01T00:00:00+01:00')",
        "event.event_type == 's3:ObjectCreated:Put'",
        "event.event_type.startsWith('s3:ObjectCreated:')",
        "event.requester in ['bob', 'alice',]",
        "!(event.requester in ['bob'])",
        "event.size in [1, 2048]",
        "'env' in event.tags && !('x' in event.tags)",
        "event.tags.env == 'prod' && event.tags['a b'] == 'c' && event.metadata['Colour'] == 'red'",
        "has(event.tags.env) && !has(event.tags.x) && has(event.requester) && !has(event.etag)",
        "event.data.n == 5 && event.data.n > 4.5 && event.data.f && event.data.s == 'text' && event.data.z == null",
        "!event.data.g || event.data.f",
        "event.data.o['k-1'] == 'v' && event.data.o.list == 'x' && event.data.o.list == 2",
        "event.data.n != 'five' && event.data.n != null",
        "event.size > 1 ? event.bucket == 'photos' : false",
        "event.size > 5000 ? false : event.bucket == 'photos'",
        // An operand that is an error is left out where the other one decides.
        "event.etag == 'x' || event.bucket == 'photos'",
        "!(event.etag == 'x' && event.bucket == 'x')",
        "event.key == 'in/a.jpg' // a remark",
        "event.origin == \"user\" && event.priority == 'normal' && event.hops == 0",
        "event.key == '''in/a.jpg''' && event.key == \"in\\x2fa\\u002ejp\\147\"",
    ] {
        assert!(holds(text), "{text}");
    }
    for text in [
        "false",
        "event.key == 'in/A.jpg'",
        "event.key.startsWith('a')",
        "event.size > 2048",
        "event.tags.env != 'prod'",
        "event.data.f == false",
        "!event.data.f",
        "event.data.o.list == 'y'",
        "!(event.data.o.list == 'x')",
        "event.requester in []",
        // Errors: neither they nor their negations hold.
        "event.etag == 'x'",
        "event.etag != 'x'",
        "!(event.etag == 'x')",
        "event.etag == 'x' || event.bucket == 'x'",
        "!(event.etag == 'x') && event.bucket == 'photos'",
        "event.data.n.startsWith('5')",
        "!event.data.n.startsWith('5')",
        "event.data.s > 5",
        "!(event.data.s > 5)",
        "event.data.n",
        "!event.data.n",
        "event.etag == 'x' ? true : true",
    ] {
        assert!(!holds(text), "{text}");
    }
}

#[test]
fn what_is_not_understood_is_refused_naming_the_part() {
    refused("", &["cel, column 1", "ends", "a value"]);
    refused("event.key ==", &["column 13", "ends"]);
    refused("event.key = 'a'", &["column 11", "`=`"]);
    refused("event.requestr == 'a'", &["column 1", "unknown field `requestr`", "did you mean `requester`?"]);
    refused("key == 'a'", &["unknown name `key`", "event.key"]);
    refused("event", &["the whole event"]);
    refused("event.tags == 'a'", &["`event.tags` is not understood", "event.tags[\"name\"]"]);
    refused("event.key.x == 'a'", &["`key` has no members"]);
    refused("event.key", &["no boolean", "has()"]);
    refused("'a'", &["no boolean"]);
    refused("event.key == event.bucket", &["`event.key == event.bucket`", "written out"]);
    refused("'a' == 'b'", &["one side must be a field"]);
    refused("event.key == 5", &["`key` never has such a value", "in quotes"]);
    refused("event.size == '5'", &["`size` never has such a value", "a number"]);
    refused("event.time == '2024-01-01T00:00:00Z'", &["timestamp"]);
    refused("event.time > timestamp('soon')", &["`timestamp('soon')`", "no time"]);
    refused("event.key < 'b'", &["have no order"]);
    refused("event.key.size() > 5", &["`event.key.size()`", "no field of the event"]);
    refused("size(event.key) > 5", &["no field of the event"]);
    refused("event.key.startWith('a')", &["`event.key.startWith('a')`", "did you mean `startsWith`?"]);
    refused("event.key.startsWith('a', 'b')", &["one argument"]);
    refused("event.key.startsWith(event.bucket)", &["`event.bucket`", "no text"]);
    refused("event.size.startsWith('a')", &["`size` is no text"]);
    refused("event.key.matches('(')", &["column 19", "no regular expression"]);
    refused("event.data.list.all(x, x > 5)", &["comprehensions"]);
    refused("event.data.list.exists(x, x == 'a')", &["comprehensions", "each of its elements"]);
    refused("'a' in event.data.list", &["no list", "=="]);
    refused("event.key in event.bucket", &["no list"]);
    refused("event.key in [event.bucket]", &["`event.bucket`", "no value"]);
    refused("event.data.list[0] == 'a'", &["column 17", "its number"]);
    refused("has(event.tags['x'])", &["`\"x\" in …`"]);
    refused("event.size + 1 > 5", &["`event.size + 1`", "`+`"]);
    refused("event.size > 9223372036854775807 * 4", &["no number that can be compared"]);
    refused("event.size > 5 / 0", &["no number that can be compared"]);
    refused("event.size > 99999999999999999999", &["no number"]);
    refused("event.event_type == 's3:ObjectCreted:Put'", &["did you mean"]);
    refused("event.event_type == 'ObjectCreated:Put'", &["write \"s3:ObjectCreated:Put\""]);
    refused("event.event_type == 's3:ObjectCreated:*'", &["startsWith()"]);
    refused("event.origin == 'me'", &["unknown origin `me`"]);
    refused("event.key == b'a'", &["bytes are not understood"]);
    refused("event.key == {'a': 1}", &["maps"]);
    refused("event.key == 'a", &["does not end"]);
    refused("event.key == 'a\\q'", &["column 16", "escape"]);
    refused("event.key == 'a' event", &["column 18", "`event` stands where the end"]);
    refused("(event.key == 'a'", &["`)`"]);
    refused(&"!".repeat(200), &["more than 64 deep"]);
    refused(&"(".repeat(5000), &["more than 64 deep"]);
    refused(&format!("event.data{}", ".a".repeat(2000)), &["follow one another"]);
    refused(&"x".repeat(9000), &["9000 bytes"]);
    refused(&vec!["event.key == 'a'"; 300].join("||"), &["more than 256 conditions"]);
    // Each choice asks twice for its condition.
    let choice = (0..30).fold("event.data.f".to_owned(), |c, _| format!("({c} ? true : false)"));
    refused(&choice, &["more than 256 conditions"]);
}

/// A value of CEL, or an error.
#[derive(Clone, Debug, PartialEq)]
enum Value {
    Text(String),
    Number(Number),
    Bool(bool),
    Null,
}

/// What CEL says of an expression over these values of `event.data`; `None` is an error.
fn evaluate(e: &Expr, data: &[(&str, Value)]) -> Option<Value> {
    let truth = |e: &Expr| match evaluate(e, data) {
        Some(Value::Bool(b)) => Some(b),
        _ => None,
    };
    Some(match &e.kind {
        Kind::Text(t) => Value::Text(t.clone()),
        Kind::Number(n) => Value::Number(*n),
        Kind::Bool(b) => Value::Bool(*b),
        Kind::Null => Value::Null,
        Kind::Member { name, .. } => data.iter().find(|(n, _)| n == name)?.1.clone(),
        Kind::Not(inner) => Value::Bool(!truth(inner)?),
        Kind::And(list) | Kind::Or(list) => {
            let decides = matches!(e.kind, Kind::Or(_));
            let all: Vec<Option<bool>> = list.iter().map(truth).collect();
            if all.contains(&Some(decides)) {
                Value::Bool(decides)
            } else if all.contains(&None) {
                return None;
            } else {
                Value::Bool(!decides)
            }
        }
        Kind::Choice(parts) => evaluate(&parts[if truth(&parts[0])? { 1 } else { 2 }], data)?,
        Kind::Compare(comparison, a, b) => {
            let (a, b) = (evaluate(a, data)?, evaluate(b, data)?);
            Value::Bool(match (comparison, a, b) {
                (Comparison::Equal, a, b) => a == b,
                (Comparison::NotEqual, a, b) => a != b,
                (Comparison::Less, Value::Number(a), Value::Number(b)) => a < b,
                (Comparison::LessEqual, Value::Number(a), Value::Number(b)) => a <= b,
                (Comparison::Greater, Value::Number(a), Value::Number(b)) => a > b,
                (Comparison::GreaterEqual, Value::Number(a), Value::Number(b)) => a >= b,
                _ => return None,
            })
        }
        Kind::In(a, b) => {
            let a = evaluate(a, data)?;
            let Kind::List(list) = &b.kind else { return None };
            Value::Bool(list.iter().any(|b| evaluate(b, data).as_ref() == Some(&a)))
        }
        Kind::Call { of: Some(of), name, arguments } => {
            let (Value::Text(of), Value::Text(text)) = (evaluate(of, data)?, evaluate(&arguments[0], data)?) else {
                return None;
            };
            Value::Bool(match name.as_str() {
                "startsWith" => of.starts_with(&text),
                "endsWith" => of.ends_with(&text),
                _ => of.contains(&text),
            })
        }
        Kind::Call { of: None, arguments, .. } => Value::Bool(evaluate(&arguments[0], data).is_some()),
        Kind::Name(_) | Kind::List(_) => return None,
    })
}

fn pick<T: Clone + std::fmt::Debug + 'static>(from: &[T]) -> impl Strategy<Value = T> + use<T> {
    prop::sample::select(from.to_vec())
}

fn expressions() -> impl Strategy<Value = String> {
    let field = || pick(&["event.data.a", "event.data.b", "event.data[\"c\"]", "event.data.none"]);
    let constant = || pick(&["1", "2.5", "'x'", "''", "true", "false", "null", "-1"]);
    let one = prop_oneof![
        (field(), pick(&["==", "!="]), constant()).prop_map(|(f, o, c)| format!("{f} {o} {c}")),
        (field(), pick(&["<", "<=", ">", ">=", "==", "!="]), pick(&["1", "2.5", "-1"]))
            .prop_map(|(f, o, c)| format!("{c} {o} {f}")),
        (field(), prop::collection::vec(constant(), 0..3)).prop_map(|(f, c)| format!("{f} in [{}]", c.join(","))),
        (field(), pick(&["startsWith", "endsWith", "contains"])).prop_map(|(f, m)| format!("{f}.{m}('x')")),
        pick(&["event.data.a", "event.data.b", "event.data.none"]).prop_map(|f| format!("has({f})")),
        field().prop_map(str::to_owned),
        pick(&["true", "false"]).prop_map(str::to_owned),
    ];
    one.prop_recursive(3, 16, 3, |inner| {
        prop_oneof![
            (inner.clone(), pick(&["&&", "||"]), inner.clone()).prop_map(|(a, o, b)| format!("({a} {o} {b})")),
            inner.clone().prop_map(|a| format!("!({a})")),
            (inner.clone(), inner.clone(), inner).prop_map(|(a, b, c)| format!("({a} ? {b} : {c})")),
        ]
    })
}

fn values() -> impl Strategy<Value = (&'static str, Value)> {
    prop_oneof![
        pick(&[("1", 1i64), ("2", 2), ("-1", -1)]).prop_map(|(t, n)| (t, Value::Number(n.into()))),
        Just(("2.5", Value::Number(Number::Float(2.5)))),
        pick(&[("\"x\"", "x"), ("\"ax\"", "ax"), ("\"\"", "")]).prop_map(|(t, v)| (t, Value::Text(v.to_owned()))),
        pick(&[("true", true), ("false", false)]).prop_map(|(t, b)| (t, Value::Bool(b))),
        Just(("null", Value::Null)),
    ]
}

proptest! {
    #[test]
    fn filters_hold_where_cel_says_true(texts in prop::collection::vec(expressions(), 1..6), a in values(), b in values(), c in values()) {
        let data = format!(r#"{{"a": {}, "b": {}, "c": {}}}"#, a.0, b.0, c.0);
        let mut e = Event::new(KnownType::ObjectCreatedPut.into(), "b", b"k");
        e.data = data.as_bytes();
        let bytes = frame::encode_to_vec(&e, 1);
        let values = [("a", a.1), ("b", b.1), ("c", c.1)];
        for text in texts {
            let Ok(filter) = Filter::parse_cel(&text) else { continue };
            let expected = evaluate(&parse::parse(&text).unwrap(), &values) == Some(Value::Bool(true));
            prop_assert_eq!(filter.matches_frame(FrameView::parse(&bytes).unwrap()), expected, "{} of {}", text, data);
        }
    }

    #[test]
    fn no_text_makes_the_reader_panic(text in "\\PC{0,80}", words in prop::collection::vec(pick(&[
        "event", ".", "key", "data", "(", ")", "[", "]", "'a'", "\"", "'''", "r'", "1", "1.", "0x", "1e", "-", "!", "&&", "||",
        "==", "<", "in", "?", ":", "has", "size", "{", ",", "\\", "é", "//", "\n", "timestamp", "true",
    ]), 0..24)) {
        let _ = Filter::parse_cel(&text);
        let _ = Filter::parse_cel(&words.concat());
        let _ = Filter::parse_cel(&words.join(" "));
    }
}
