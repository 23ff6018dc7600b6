//! Why an event does not pass a filter.

use std::fmt;

use super::evaluate::with_frame;
use super::expression::{Field, Filter};
use super::number::Number;
use super::subject::{DataMemory, Subject, Value};
use crate::error::Result;
use crate::event::{Event, FrameView};

/// A condition that an event does not meet.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Unmet {
    /// The condition: a test of one field, an expression that is evaluated, the negation of something that holds, or an
    /// empty `any`.
    pub condition: Filter,
    /// What the event has in the field that the condition is about, as people read it. None of it: the field is absent, or
    /// the condition is about several. Of an expression that is evaluated: what it gives, or why it is an error.
    pub values: Vec<String>,
}

impl fmt::Display for Unmet {
    /// Such as `{"prefix":"in/"} is not met by "out/a"`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is not met", self.condition.to_json())?;
        match (self.field(), self.values.as_slice()) {
            (None, []) => Ok(()),
            (None, values) => write!(f, ": evaluated, it is {}", values.join(", ")),
            (Some(field), []) => write!(f, ": the event has no {field}"),
            (Some(field), values) => write!(f, ": {field} is {}", values.join(", ")),
        }
    }
}

impl Unmet {
    /// The field that the condition is about, if it is one.
    pub fn field(&self) -> Option<&Field> {
        let mut filter = &self.condition;
        while let Filter::Not(inner) = filter {
            filter = inner;
        }
        match filter {
            Filter::Is(field, _) => Some(field),
            _ => None,
        }
    }
}

impl Filter {
    /// The conditions that keep the event from passing, in the order of the filter; none if it passes.
    ///
    /// Of what must hold together those that do not, of alternatives all, of a negation what is negated.
    pub fn explain(&self, frame: FrameView<'_>) -> Vec<Unmet> {
        let mut memory = DataMemory::default();
        let mut subject = Subject::new(frame, &mut memory);
        let mut unmet = Vec::new();
        self.collect(&mut subject, &mut unmet);
        unmet
    }

    /// As [`Filter::explain`], for an event that is in no engine. `now_ns` is when it happened if it does not say.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidEvent`] as [`Event::validate`].
    pub fn explain_event(&self, event: &Event<'_>, now_ns: u64) -> Result<Vec<Unmet>> {
        with_frame(event, now_ns, |frame| self.explain(frame))
    }

    fn collect(&self, subject: &mut Subject<'_>, unmet: &mut Vec<Unmet>) {
        if self.matches(subject) {
            return;
        }
        match self {
            Filter::All(list) => list.iter().for_each(|f| f.collect(subject, unmet)),
            Filter::Any(list) if !list.is_empty() => list.iter().for_each(|f| f.collect(subject, unmet)),
            condition => {
                let mut found = Unmet { condition: condition.clone(), values: Vec::new() };
                match (found.field(), condition) {
                    (Some(field), _) => found.values = field.values(subject),
                    (None, Filter::Cel(cel)) => found.values.push(cel.told(subject)),
                    _ => {}
                }
                unmet.push(found);
            }
        }
    }
}

impl Field {
    /// What the event has, as people read it.
    fn values(&self, subject: &mut Subject<'_>) -> Vec<String> {
        let mut values = Vec::new();
        subject.any(self.kind(), &self.selector(), &mut |v| {
            values.push(match v {
                Value::Text(text) => format!("\"{}\"", String::from_utf8_lossy(text).escape_debug()),
                Value::Number(Number::Int(ns)) if *self == Field::Time => {
                    jiff::Timestamp::from_nanosecond(ns).map_or_else(|_| ns.to_string(), |t| t.to_string())
                }
                Value::Number(n) => n.to_string(),
                Value::Bool(b) => b.to_string(),
                Value::Null => "null".to_owned(),
            });
            false
        });
        values
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::NamedFilters;
    use super::*;
    use crate::event::{KnownType, frame};

    fn explain(filter: serde_json::Value) -> Vec<String> {
        let mut e = Event::new(KnownType::ObjectCreatedPut.into(), "photos", b"out/a.png");
        (e.size, e.tags) = (Some(5), &[("env", "dev")]);
        e.data = br#"{"list": [1, "x", null]}"#;
        e.time_ns = 1_700_000_000_000_000_000;
        let filter = Filter::from_json(&filter, &NamedFilters::new()).unwrap();
        let bytes = frame::encode_to_vec(&e, 1);
        let frame = FrameView::parse(&bytes).unwrap();
        let unmet = filter.explain(frame);
        assert_eq!(unmet.is_empty(), filter.matches_frame(frame));
        unmet.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_passes_needs_no_explanation() {
        assert!(explain(json!({})).is_empty() && explain(json!({"prefix": "out/", "size": {"max": 5}})).is_empty());
        assert!(explain(json!({"any": [{"prefix": "in/"}, {"suffix": ".png"}]})).is_empty());
    }

    #[test]
    fn what_is_not_met_is_told_with_what_the_event_has() {
        let told = explain(json!({"prefix": "in/", "size": {"min": 5}, "tags": {"env": "prod"}}));
        assert_eq!(
            told,
            [
                r#"{"prefix":"in/"} is not met: key is "out/a.png""#,
                r#"{"tags":{"env":"prod"}} is not met: tags.env is "dev""#,
            ]
        );
        assert_eq!(explain(json!({"requester": "a"})), [r#"{"requester":"a"} is not met: the event has no requester"#]);
        assert_eq!(
            explain(json!({"not": {"suffix": ".png"}})),
            [r#"{"not":{"suffix":".png"}} is not met: key is "out/a.png""#]
        );
        assert_eq!(
            explain(json!({"any": [{"prefix": "in/"}, {"all": [{"suffix": ".png"}, {"size": 6}]}]})),
            [r#"{"prefix":"in/"} is not met: key is "out/a.png""#, r#"{"size":6} is not met: size is 5"#]
        );
        assert_eq!(
            explain(json!({"data": {"list": "y"}})),
            [r#"{"data":{"list":"y"}} is not met: data.list is 1, "x", null"#]
        );
        let told = explain(json!({"time": {"from": "2024-01-01T00:00:00Z"}}));
        assert!(told[0].ends_with("time is 2023-11-14T22:13:20Z"), "{told:?}");
        assert_eq!(explain(json!({"any": []})), [r#"{"any":[]} is not met"#]);
        assert_eq!(explain(json!({"not": {"all": [{"prefix": "o"}]}})).len(), 1);
    }
}
