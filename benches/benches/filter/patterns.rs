//! Rules in the forms of peers.

use serde_json::{Map, Value, json};
use tidewire_benches::workload::{self, Condition, Wish};

/// The conditions on the key as one pattern with stars, in which prefix and suffix cannot overlap.
pub fn glob_of(conditions: &[Condition]) -> Option<String> {
    let (mut prefix, mut suffix, mut whole) = (None, None, None);
    for c in conditions {
        match c {
            Condition::Prefix(x) => prefix = Some(x),
            Condition::Suffix(x) => suffix = Some(x),
            Condition::Exact(x) | Condition::Wildcard(x) => whole = Some(x),
            _ => {}
        }
    }
    if let Some(whole) = whole {
        return Some(whole.clone());
    }
    let text = |x: Option<&String>| x.cloned().unwrap_or_default();
    (prefix.is_some() || suffix.is_some()).then(|| format!("{}*{}", text(prefix), text(suffix)))
}

/// The rule as patterns in the language that Quamina and Event Ruler share; an event that fits one of them fits the rule.
/// Conditions on one field are alternatives there, so that prefix and suffix become one wildcard.
pub fn patterns(wish: &Wish) -> Vec<Value> {
    let conditions = match &wish.filter {
        Some(Condition::All(all)) => all.clone(),
        _ => wish.conditions(),
    };
    let mut pattern = Map::new();
    if let Some(bucket) = &wish.bucket {
        pattern.insert("bucket".into(), json!([bucket]));
    }
    let types = wish.events.iter().map(|name| match name.strip_suffix('*') {
        Some(start) => json!({ "prefix": start }),
        None => json!(name),
    });
    pattern.insert("type".into(), types.collect());
    let key = match &conditions[..] {
        [Condition::Prefix(x), ..] if !matches!(conditions.get(1), Some(Condition::Suffix(_))) => {
            json!([{ "prefix": x }])
        }
        [Condition::Suffix(x), ..] => json!([{ "suffix": x }]),
        [Condition::Exact(x), ..] => json!([x]),
        _ => json!([{ "wildcard": glob_of(&conditions).expect("a condition on the key") }]),
    };
    pattern.insert("key".into(), key);
    let with = |c: &Condition| {
        let mut pattern = pattern.clone();
        add(&mut pattern, c);
        Value::Object(pattern)
    };
    match conditions.last() {
        Some(Condition::Any(any)) => any.iter().map(with).collect(),
        Some(c) => vec![with(c)],
        None => vec![Value::Object(pattern)],
    }
}

/// Adds a condition that is not on the key.
fn add(pattern: &mut Map<String, Value>, condition: &Condition) {
    let (field, value) = match condition {
        Condition::Size(size) => {
            let (sign, n) = size.min.map_or((("<="), size.max), |min| (">=", Some(min)));
            ("size", json!([{ "numeric": [sign, n] }]))
        }
        Condition::Tags(tags) => ("tags", tags.iter().map(|(k, v)| ((*k).to_owned(), json!([v]))).collect()),
        Condition::Metadata(metadata) => {
            ("metadata", metadata.iter().map(|(k, v)| (workload::bare(k).to_owned(), json!([v]))).collect())
        }
        // Every event has one.
        Condition::Not(inner) => match &**inner {
            Condition::Requester(x) => ("requester", json!([{ "anything-but": [x] }])),
            other => panic!("no pattern for the opposite of {other:?}"),
        },
        _ => return,
    };
    pattern.insert(field.into(), value);
}
