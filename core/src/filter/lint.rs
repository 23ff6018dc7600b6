//! What can be said of a filter without an event.

use super::expression::{Field, Filter, Test};
use super::number::{Bound, Range};
use super::subject::{Kind, Value};

impl Filter {
    /// Whether it holds for every event (`true`), or for none (`false`), as far as that is plain from the filter: a range
    /// without numbers, a key that is to begin in two ways, a field that is to be there and not to be there. `None` if it
    /// depends on the event, or if that is not plain.
    pub fn verdict(&self) -> Option<bool> {
        match self {
            Filter::All(list) => {
                let mut verdicts = list.iter().map(Filter::verdict);
                if list.iter().any(|f| f.verdict() == Some(false)) || self.contradicts() {
                    return Some(false);
                }
                verdicts.all(|v| v == Some(true)).then_some(true)
            }
            Filter::Any(list) => {
                if list.iter().any(|f| f.verdict() == Some(true)) {
                    return Some(true);
                }
                list.iter().all(|f| f.verdict() == Some(false)).then_some(false)
            }
            Filter::Not(inner) => inner.verdict().map(|v| !v),
            Filter::Is(field, test) => test.verdict(field),
            Filter::Cel(_) => None,
        }
    }

    /// Whether no event passes both, as far as that is plain.
    pub fn excludes(&self, other: &Filter) -> bool {
        // Alternatives of either are looked at one by one.
        let parts = |f: &Filter| match f {
            Filter::Any(list) if !list.is_empty() => list.clone(),
            f => vec![f.clone()],
        };
        let (own, others) = (parts(self), parts(other));
        own.iter().all(|a| others.iter().all(|b| Filter::All(vec![a.clone(), b.clone()]).verdict() == Some(false)))
    }

    /// The tests that must all pass.
    fn required<'a>(&'a self, tests: &mut Vec<(&'a Field, &'a Test)>) {
        match self {
            Filter::All(list) => list.iter().for_each(|f| f.required(tests)),
            Filter::Any(list) if list.len() == 1 => list[0].required(tests),
            Filter::Is(field, test) => tests.push((field, test)),
            _ => {}
        }
    }

    /// Whether two of the tests that must pass cannot.
    fn contradicts(&self) -> bool {
        let mut tests = Vec::new();
        self.required(&mut tests);
        tests.iter().enumerate().any(|(i, (field, a))| {
            tests[..i].iter().any(|(other, b)| field == other && (exclude(field, a, b) || exclude(field, b, a)))
        })
    }
}

impl Test {
    fn verdict(&self, field: &Field) -> Option<bool> {
        let always = matches!(field, Field::EventType | Field::Time | Field::Hops | Field::Origin | Field::Priority);
        match self {
            Test::Exists => always.then_some(true),
            Test::Absent => always.then_some(false),
            Test::Number(range) if range.is_empty() => Some(false),
            Test::Prefix(x) | Test::Suffix(x) | Test::Contains(x) if x.is_empty() && always => Some(true),
            Test::Equals(x)
                if x.is_empty() && !matches!(field, Field::Data(_) | Field::Metadata(_) | Field::Tag(_)) =>
            {
                Some(false)
            }
            Test::NoneOf(tests) => tests.iter().any(|t| t.verdict(field) == Some(true)).then_some(false),
            _ => None,
        }
    }
}

/// Whether one value cannot pass both.
fn exclude(field: &Field, a: &Test, b: &Test) -> bool {
    if *a == Test::Absent {
        return *b != Test::Absent;
    }
    if matches!(field, Field::Data(_) | Field::Metadata(_) | Field::Tag(_)) {
        // There may be several values, and one may pass the one and another the other.
        return false;
    }
    match (a, b) {
        (_, Test::Absent) => true,
        (Test::Equals(x), b) => !b.passes(Kind::Key, Value::Text(x)),
        (Test::Prefix(x), Test::Prefix(y)) => !x.starts_with(y) && !y.starts_with(x),
        (Test::Suffix(x), Test::Suffix(y)) => !x.ends_with(y) && !y.ends_with(x),
        (Test::Prefix(x), Test::NoneOf(tests)) => {
            tests.iter().any(|t| matches!(t, Test::Prefix(y) if x.starts_with(y)))
        }
        (Test::Suffix(x), Test::NoneOf(tests)) => tests.iter().any(|t| matches!(t, Test::Suffix(y) if x.ends_with(y))),
        (Test::Number(x), Test::Number(y)) => both(x, y).is_empty(),
        (test, Test::NoneOf(tests)) => tests.contains(test),
        _ => false,
    }
}

/// The numbers in both ranges.
fn both(a: &Range, b: &Range) -> Range {
    let low = match (a.low, b.low) {
        (Bound::Open, other) | (other, Bound::Open) => other,
        (x, y) => {
            let n = |b: Bound| match b {
                Bound::Included(n) | Bound::Excluded(n) => Some((n, matches!(b, Bound::Excluded(_)))),
                Bound::Open => None,
            };
            if n(x) >= n(y) { x } else { y }
        }
    };
    let high = match (a.high, b.high) {
        (Bound::Open, other) | (other, Bound::Open) => other,
        (x, y) => {
            let n = |b: Bound| match b {
                Bound::Included(n) | Bound::Excluded(n) => Some((n, matches!(b, Bound::Included(_)))),
                Bound::Open => None,
            };
            if n(x) <= n(y) { x } else { y }
        }
    };
    Range { low, high }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::NamedFilters;
    use super::*;

    fn read(value: Value) -> Filter {
        Filter::from_json(&value, &NamedFilters::new()).unwrap()
    }

    #[test]
    fn what_never_holds() {
        for value in [
            json!({"any": []}),
            json!({"size": {"above": 5, "max": 5}}),
            json!({"all": [{"size": {"min": 5}}, {"size": {"below": 5}}]}),
            json!({"all": [{"prefix": "a/"}, {"prefix": "b/"}]}),
            json!({"all": [{"suffix": "a"}, {"all": [{"suffix": "b"}]}]}),
            json!({"exact": "x", "prefix": "y"}),
            json!({"all": [{"bucket": "a"}, {"bucket": "b"}]}),
            json!({"exact": "x", "key": {"anything_but": ["x", "y"]}}),
            json!({"prefix": "ab", "key": {"anything_but": {"prefix": "a"}}}),
            json!({"etag": {"exists": false, "prefix": "a"}}),
            json!({"all": [{"tags": {"a": {"exists": false}}}, {"tags": {"a": "b"}}]}),
            json!({"priority": {"exists": false}}),
            json!({"requester": ""}),
            json!({"not": {}}),
            json!({"any": [{"size": {"min": 2, "max": 1}}, {"any": []}]}),
        ] {
            assert_eq!(read(value.clone()).verdict(), Some(false), "{value}");
        }
    }

    #[test]
    fn what_always_holds_and_what_depends() {
        for value in
            [json!({}), json!({"event_type": "*"}), json!({"any": [{"prefix": "a"}, {}]}), json!({"not": {"any": []}})]
        {
            assert_eq!(read(value.clone()).verdict(), Some(true), "{value}");
        }
        for value in [
            json!({"prefix": "a", "suffix": "b"}),
            json!({"all": [{"prefix": "a"}, {"prefix": "ab"}]}),
            json!({"exact": "ab", "prefix": "a"}),
            json!({"all": [{"size": {"min": 5}}, {"size": {"max": 5}}]}),
            // A list in the data may have both.
            json!({"all": [{"data": {"a": 1}}, {"data": {"a": 2}}]}),
            json!({"data": {"a": ""}}),
            json!({"prefix": "a", "key": {"anything_but": {"prefix": "ab"}}}),
            json!({"key": {"exists": true}}),
        ] {
            assert_eq!(read(value.clone()).verdict(), None, "{value}");
        }
    }

    #[test]
    fn filters_that_exclude_each_other() {
        let excludes = |a: Value, b: Value| (read(a.clone()).excludes(&read(b.clone())), read(b).excludes(&read(a)));
        assert_eq!(excludes(json!({"prefix": "a/"}), json!({"prefix": "b/"})), (true, true));
        assert_eq!(
            excludes(json!({"suffix": [".a", ".b"]}), json!({"suffix": [".c", ".d"], "size": 5})),
            (false, false)
        );
        assert_eq!(excludes(json!({"suffix": [".a", ".b"]}), json!({"suffix": [".c", ".d"]})), (true, true));
        assert_eq!(excludes(json!({"prefix": "a/"}), json!({"suffix": ".b"})), (false, false));
        assert_eq!(excludes(json!({}), json!({})), (false, false));
        assert_eq!(excludes(json!({"size": {"below": 5}}), json!({"size": {"min": 5}})), (true, true));
    }
}
