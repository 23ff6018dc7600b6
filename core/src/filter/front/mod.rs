//! The forms that filters are written in. Each is read into the one tree, [`super::Filter`].
//!
//! What a reader does not understand it refuses, with the place inside the filter and a remedy. Nothing is skipped, and
//! nothing widens to "everything". How deep a filter may be nested is bounded, and so is its size.

mod cel;
mod cloudevents;
mod eventbridge;
mod json;
mod native;
mod time;
mod types;
mod write;

use std::fmt;

use serde_json::Value;

use super::expression::{FILTER_DEPTH_MAX, FILTER_NODES_MAX, FILTER_TEXT_BYTES_MAX, Filter};
use crate::error::{Error, Result};

pub use self::cel::CEL_BYTES_MAX;
pub use cloudevents::SourceOf;
pub use eventbridge::PatternOf;
pub(crate) use json::{parse_json, toml_to_json};
pub use native::NamedFilters;

/// The JSON Schema (draft 2020-12) of the native form.
pub const FILTER_SCHEMA: &str = include_str!("../filter.schema.json");

/// The most steps of a path into the data of events.
const PATH_STEPS_MAX: usize = 32;

/// One step to a place inside a filter.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step<'a> {
    /// What the filter as a whole is called; nothing if its members stand by themselves.
    Root(&'a str),
    /// A member of an object.
    Name(&'a str),
    /// An element of a list, from 0.
    Index(usize),
}

/// A place inside a filter; displayed as `filter.all[2].size.min`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    outer: Option<&'a Place<'a>>,
    step: Step<'a>,
}

impl<'a> Place<'a> {
    pub(crate) fn root(name: &'a str) -> Place<'a> {
        Place { outer: None, step: Step::Root(name) }
    }

    fn name(&'a self, name: &'a str) -> Place<'a> {
        Place { outer: Some(self), step: Step::Name(name) }
    }

    fn index(&'a self, index: usize) -> Place<'a> {
        Place { outer: Some(self), step: Step::Index(index) }
    }

    /// Whether nothing stands before it.
    fn is_first(&self) -> bool {
        self.outer.is_some_and(|o| matches!(o.step, Step::Root("")))
    }

    /// A fault here.
    #[cold]
    fn fault(&self, message: impl Into<String>, remedy: impl Into<String>) -> Box<Fault> {
        self.wrap(Error::invalid_config(message).remedy(remedy))
    }

    /// An error of something that is here.
    #[cold]
    fn wrap(&self, error: Error) -> Box<Fault> {
        let mut steps: Vec<OwnStep> = std::iter::successors(Some(self), |p| p.outer)
            .filter_map(|p| match p.step {
                Step::Root(_) => None,
                Step::Name(name) => Some(OwnStep::Name(name.to_owned())),
                Step::Index(i) => Some(OwnStep::Index(i)),
            })
            .collect();
        steps.reverse();
        let place = self.to_string();
        Box::new(Fault { steps, error: if place.is_empty() { error } else { error.at(place) } })
    }
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(outer) = self.outer {
            outer.fmt(f)?;
        }
        match self.step {
            Step::Root(name) => f.write_str(name),
            Step::Name(name) if is_plain(name) && self.is_first() => f.write_str(name),
            Step::Name(name) if is_plain(name) => write!(f, ".{name}"),
            Step::Name(name) => write!(f, "[\"{}\"]", name.escape_debug()),
            Step::Index(i) => write!(f, "[{i}]"),
        }
    }
}

/// Whether a name needs no quotes in a place.
fn is_plain(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'$'))
}

/// As [`Step`], by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum OwnStep {
    Name(String),
    Index(usize),
}

/// An error and the way to its place from the beginning of the filter.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    pub(crate) steps: Vec<OwnStep>,
    pub(crate) error: Error,
}

/// What readers answer.
pub(crate) type Read<T> = Result<T, Box<Fault>>;

/// How errors call a kind of value.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// The members of an object.
fn object<'v>(value: &'v Value, at: &Place<'_>, form: &str) -> Read<&'v serde_json::Map<String, Value>> {
    value
        .as_object()
        .ok_or_else(|| at.fault(format!("this is {}, not an object", kind(value)), format!("write {form}")))
}

/// The string of a value.
fn string<'v>(value: &'v Value, at: &Place<'_>) -> Read<&'v str> {
    value
        .as_str()
        .ok_or_else(|| at.fault(format!("this is {}, not a string", kind(value)), "write a text in double quotes"))
}

/// Refuses a name that is not among the known ones.
fn unknown(what: &str, name: &str, known: &[&str], at: &Place<'_>) -> Box<Fault> {
    let near = crate::rule::suggest(what, name, known.iter().copied());
    at.fault(format!("unknown {what} `{}`", name.escape_debug()), near)
}

/// Checks the finished filter: its size, and that each test suits its field.
fn finish(filter: Filter, at: &Place<'_>) -> Read<Filter> {
    match filter.validate() {
        Ok(()) => Ok(filter),
        Err(e) => Err(at.wrap(e)),
    }
}

/// Refuses what is nested too deep.
fn check_depth(depth: usize, at: &Place<'_>) -> Read<()> {
    if depth > FILTER_DEPTH_MAX {
        return Err(at.fault(
            format!("the filter is nested more than {FILTER_DEPTH_MAX} deep"),
            "merge nested `all`, `any` and `not`",
        ));
    }
    Ok(())
}

/// Counts conditions while a filter is read, so that one that is too large does not grow without bound.
#[derive(Debug, Default)]
struct Budget(usize);

impl Budget {
    fn spend(&mut self, nodes: usize, at: &Place<'_>) -> Read<()> {
        self.0 += nodes;
        if self.0 > FILTER_NODES_MAX {
            return Err(at.fault(
                format!("the filter has more than {FILTER_NODES_MAX} conditions"),
                "split the rule, or use a wildcard in place of many values",
            ));
        }
        Ok(())
    }
}

/// The steps of a path into the data of events.
fn check_path(path: &[&str], at: &Place<'_>) -> Read<()> {
    if path.len() > PATH_STEPS_MAX {
        return Err(at.fault(
            format!("the path has {} steps, more than {PATH_STEPS_MAX}", path.len()),
            "filter on a value that is nested less deep",
        ));
    }
    if let Some(step) = path.iter().find(|s| s.len() > FILTER_TEXT_BYTES_MAX) {
        let message = format!("a name in the path has {} bytes, more than {FILTER_TEXT_BYTES_MAX}", step.len());
        return Err(at.fault(message, "shorten it"));
    }
    Ok(())
}

/// A name of metadata, of a tag or of a filter.
fn check_name(what: &str, name: &str, at: &Place<'_>) -> Read<()> {
    if name.is_empty() || name.len() > FILTER_TEXT_BYTES_MAX {
        return Err(at.fault(
            format!("the {what} has {} bytes, not 1 to {FILTER_TEXT_BYTES_MAX}", name.len()),
            "write the name of what the condition is about",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
