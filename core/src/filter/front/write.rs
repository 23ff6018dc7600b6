//! From the tree to the native form.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::native::{DAYS, exact, rank};
use super::time::{minutes_text, offset_text, time_text};
use crate::filter::expression::{Affix, Field, Filter, Test};
use crate::filter::number::{Bound, Number, Range};
use crate::filter::pattern;
use crate::filter::window::Window;

impl Filter {
    /// The native form. Read again, it passes the same events; named filters stand there in full.
    pub fn to_json(&self) -> Value {
        match self {
            Filter::All(list) if list.is_empty() => json!({}),
            Filter::All(list) => all(list.iter().map(Filter::to_json).collect()),
            Filter::Any(list) => any(list),
            Filter::Not(inner) => json!({"not": inner.to_json()}),
            Filter::Is(Field::Key, Test::Prefix(text)) if !text.is_empty() => json!({"prefix": text_json(text)}),
            Filter::Is(Field::Key, Test::Suffix(text)) if !text.is_empty() => json!({"suffix": text_json(text)}),
            Filter::Is(field, test) => of_field(field, test_json(field, test)),
            Filter::Cel(cel) => json!({"cel": cel.condition()}),
        }
    }
}

/// The filters in one object, if they are read from it in the same order; else in a list.
fn all(parts: Vec<Value>) -> Value {
    let mut last = None;
    let mut merged = Map::new();
    for part in &parts {
        let Some((name, value)) = part.as_object().filter(|o| o.len() == 1).and_then(|o| o.iter().next()) else {
            return json!({"all": parts});
        };
        if last.is_some_and(|last| rank(name) <= last) {
            return json!({"all": parts});
        }
        last = Some(rank(name));
        merged.insert(name.clone(), value.clone());
    }
    if merged.len() == 1 { json!({"all": parts}) } else { Value::Object(merged) }
}

/// The filters in a list; if they are all about one field, in a list of its conditions.
fn any(list: &[Filter]) -> Value {
    if let [Filter::Is(field, _), _, ..] = list {
        let tests = list.iter().map(|f| match f {
            Filter::Is(own, test) if own == field => Some(test_json(field, test)),
            _ => None,
        });
        if let Some(tests) = tests.collect::<Option<Vec<_>>>() {
            return of_field(field, tests.into());
        }
    }
    json!({"any": list.iter().map(Filter::to_json).collect::<Vec<_>>()})
}

fn of_field(field: &Field, condition: Value) -> Value {
    match field {
        Field::Metadata(name) | Field::Tag(name) => json!({field.name(): {&**name: condition}}),
        Field::Data(path) if path.is_empty() || path.iter().any(|s| s.is_empty() || s.contains('.')) => {
            json!({"data": [{"path": path, "is": condition}]})
        }
        Field::Data(path) => json!({"data": {path.join("."): condition}}),
        _ => json!({field.name(): condition}),
    }
}

fn text_json(text: &[u8]) -> Value {
    match std::str::from_utf8(text) {
        Ok(text) => text.into(),
        Err(_) => json!({"base64": STANDARD.encode(text)}),
    }
}

/// One test as a condition.
fn test_json(field: &Field, test: &Test) -> Value {
    match test {
        Test::Exists => json!({"exists": true}),
        Test::Absent => json!({"exists": false}),
        Test::Equals(text) => match exact(field, text) {
            Ok(tests) if tests == [test.clone()] => text_json(text),
            // A value that the field never has, or that would be read as another.
            _ => json!({"wildcard": text_json(&pattern::escape(text))}),
        },
        Test::Prefix(text) => json!({"prefix": text_json(text)}),
        Test::Suffix(text) => json!({"suffix": text_json(text)}),
        Test::Contains(text) => json!({"contains": text_json(text)}),
        Test::Wildcard(w) => json!({"wildcard": text_json(w.pattern())}),
        Test::Regex(r) if r.is_whole() => json!({"regex": r.pattern(), "whole": true}),
        Test::Regex(r) => json!({"regex": r.pattern()}),
        Test::IgnoreCase(affix, text) => {
            let name = match affix {
                Affix::Whole => "exact",
                Affix::Prefix => "prefix",
                Affix::Suffix => "suffix",
            };
            json!({name: text.as_str(), "ignore_case": true})
        }
        Test::Cidr(net) => json!({"cidr": net.to_string()}),
        Test::Number(range) => range_json(field, range),
        Test::Window(window) => window_json(window),
        Test::Bool(b) => (*b).into(),
        Test::Null => Value::Null,
        Test::NoneOf(tests) => {
            let mut tests: Vec<Value> = tests.iter().map(|t| test_json(field, t)).collect();
            json!({"anything_but": if tests.len() == 1 { tests.remove(0) } else { tests.into() }})
        }
    }
}

fn number_json(field: &Field, n: Number) -> Value {
    if *field == Field::Time
        && let Some(text) = time_text(n)
    {
        return text.into();
    }
    match n {
        Number::Int(n) => {
            let whole = i64::try_from(n).map(Value::from).or_else(|_| u64::try_from(n).map(Value::from));
            whole.unwrap_or_else(|_| json!(n as f64))
        }
        Number::Float(n) => json!(n),
    }
}

fn range_json(field: &Field, range: &Range) -> Value {
    if let (Bound::Included(low), Bound::Included(high)) = (range.low, range.high)
        && low == high
    {
        return number_json(field, low);
    }
    let mut members = Map::new();
    let time = *field == Field::Time;
    match range.low {
        Bound::Open => {}
        Bound::Included(n) => drop(members.insert(if time { "from" } else { "min" }.into(), number_json(field, n))),
        Bound::Excluded(n) => drop(members.insert("above".into(), number_json(field, n))),
    }
    match range.high {
        Bound::Open => {}
        Bound::Included(n) => drop(members.insert("max".into(), number_json(field, n))),
        Bound::Excluded(n) => drop(members.insert(if time { "until" } else { "below" }.into(), number_json(field, n))),
    }
    if members.is_empty() {
        // Every number; none is lower.
        members.insert("min".into(), json!(f64::MIN));
    }
    Value::Object(members)
}

fn window_json(window: &Window) -> Value {
    let (days, from, until, offset) = window.parts();
    let days: Vec<&str> = DAYS.iter().enumerate().filter(|(i, _)| days & (1 << i) != 0).map(|(_, d)| *d).collect();
    json!({
        "days": days,
        "from": minutes_text(from),
        "until": minutes_text(until),
        "offset": offset_text(offset),
    })
}
