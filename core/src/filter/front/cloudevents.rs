//! Filters of the CloudEvents Subscriptions API: the dialects `exact`, `prefix`, `suffix`, `all`, `any` and `not`.
//!
//! Attributes are those that the profile `cloudevents` writes. `type` and `datacontenttype` follow from the event's type,
//! `source` is made of the engine's event source, the region and the bucket, `subject` is the key, `partitionkey` is
//! `bucket/key`. A key that cannot be an attribute (it has control characters, or is no UTF-8) is compared as it is, not
//! as it would be encoded. An attribute that the event does not have passes nothing.

use serde_json::Value;

use super::time::times_that_begin_with;
use super::types;
use super::{Budget, Fault, Place, Read, check_depth, finish, object, string, unknown};
use crate::error::Result;
use crate::event::KnownType;
use crate::event::profile::cloudevents::{OWN_PREFIX, S3_PREFIX};
use crate::filter::expression::{Affix, Field, Filter, Test};
use crate::filter::number::{Bound, Number, Range};

/// What the attribute `source` is made of, beside the event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceOf<'a> {
    /// How the engine names itself in records (`engine.event_source`).
    pub event_source: &'a str,
    /// The region of events that do not name one (`engine.region`).
    pub region: &'a str,
}

impl Default for SourceOf<'_> {
    /// As in a configuration that says nothing.
    fn default() -> Self {
        SourceOf { event_source: "aws:s3", region: "us-east-1" }
    }
}

impl Filter {
    /// Reads the `filters` of a CloudEvents subscription: a list of which each must hold, or one of them.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidConfig`] that names the place, as in `filters[0].any[1].prefix.type`, for unknown
    /// dialects and attributes, attributes that are not known when rules are matched (`id`, `sequence`), and what is no
    /// filter.
    pub fn from_cloudevents(filters: &Value, source: SourceOf<'_>) -> Result<Filter> {
        Filter::read_cloudevents(filters, "filters", source).map_err(|fault| fault.error)
    }

    /// `root` is how places call the list.
    pub(crate) fn read_cloudevents(filters: &Value, root: &str, source: SourceOf<'_>) -> Read<Filter> {
        let at = Place::root(root);
        let mut reader = Reader { source, budget: Budget::default() };
        let filter = match filters {
            // The only list that may be empty: there is no condition then.
            Value::Array(list) => {
                let each = list.iter().enumerate().map(|(i, v)| reader.filter(v, 0, &at.index(i)));
                Filter::all(each.collect::<Read<Vec<_>>>()?)
            }
            one => reader.filter(one, 0, &at)?,
        };
        finish(filter, &at)
    }

    /// Reads the filters from JSON text. A name that an object has twice is refused.
    ///
    /// # Errors
    /// As [`Filter::from_cloudevents`], and for what is no JSON.
    pub fn parse_cloudevents(text: &str, source: SourceOf<'_>) -> Result<Filter> {
        Filter::from_cloudevents(&super::parse_json(text)?, source)
    }
}

const DIALECTS: &[&str] = &["exact", "prefix", "suffix", "all", "any", "not"];

const ATTRIBUTES: &[&str] = &["type", "source", "subject", "time", "specversion", "datacontenttype", "partitionkey"];

/// What records have and rules do not see.
const LATER: &[&str] = &[
    "id",
    "sequence",
    "deadletterfrom",
    "deadletterreason",
    "deadletterattempts",
    "deadletterstatus",
    "deadlettertime",
    "deadletterhops",
];

struct Reader<'a> {
    source: SourceOf<'a>,
    budget: Budget,
}

impl Reader<'_> {
    fn filter(&mut self, value: &Value, depth: usize, at: &Place<'_>) -> Read<Filter> {
        check_depth(depth, at)?;
        self.budget.spend(1, at)?;
        let members = object(value, at, "an object such as {\"exact\": {\"type\": \"…\"}}")?;
        let mut all = members.iter();
        let (Some((dialect, value)), None) = (all.next(), all.next()) else {
            let message = format!("the filter has {} dialects, not one", members.len());
            return Err(at.fault(message, "write each in an object of its own"));
        };
        let at = &at.name(dialect);
        match dialect.as_str() {
            "all" | "any" => {
                let list = value.as_array().filter(|l| !l.is_empty()).ok_or_else(|| {
                    at.fault(format!("`{dialect}` is no list of filters"), "write at least one filter in brackets")
                })?;
                let each = list.iter().enumerate().map(|(i, v)| self.filter(v, depth + 1, &at.index(i)));
                let list = each.collect::<Read<Vec<_>>>()?;
                Ok(if dialect == "all" { Filter::all(list) } else { Filter::any(list) })
            }
            "not" => Ok(self.filter(value, depth + 1, at)?.not()),
            "exact" => self.attributes(value, Affix::Whole, at),
            "prefix" => self.attributes(value, Affix::Prefix, at),
            "suffix" => self.attributes(value, Affix::Suffix, at),
            "sql" | "cesql" => {
                Err(at
                    .fault("CloudEvents SQL is not understood", "write it with `exact`, `prefix`, `suffix` and `any`"))
            }
            _ => Err(unknown("dialect", dialect, DIALECTS, at)),
        }
    }

    fn attributes(&mut self, value: &Value, affix: Affix, at: &Place<'_>) -> Read<Filter> {
        let members = object(value, at, "an object of attributes and texts")?;
        if members.is_empty() {
            return Err(at.fault("the object is empty", "name an attribute and a text"));
        }
        let mut parts = Vec::new();
        for (name, value) in members {
            let at = &at.name(name);
            self.budget.spend(1, at)?;
            let text = string(value, at)?;
            if text.is_empty() {
                return Err(at.fault("the text is empty", "write at least one character; the specification demands it"));
            }
            parts.push(self.attribute(name, affix, text, at)?);
        }
        Ok(Filter::all(parts))
    }

    fn attribute(&self, name: &str, affix: Affix, text: &str, at: &Place<'_>) -> Read<Filter> {
        Ok(match name {
            "type" => of_type(affix, text),
            "source" => self.of_source(affix, text, at)?,
            "subject" => Filter::Is(Field::Key, test(affix, text)),
            "partitionkey" => of_partition_key(affix, text),
            "time" => of_time(affix, text, at)?,
            "specversion" => constant(affix, text, "1.0", at)?,
            "datacontenttype" => constant(affix, text, "application/json", at)?,
            _ if LATER.contains(&name) => {
                let message = format!("`{name}` is made when a record is written, after rules were matched");
                return Err(at.fault(message, "filter on another attribute"));
            }
            _ => return Err(unknown("attribute", name, ATTRIBUTES, at)),
        })
    }

    /// `eventSource.region.bucket`; without a bucket, the first two.
    fn of_source(&self, affix: Affix, text: &str, at: &Place<'_>) -> Read<Filter> {
        let not_understood = |remedy: &str| at.fault("this condition on `source` is not understood", remedy);
        let start = format!("{}.", self.source.event_source);
        let whole = "begin it with the event source and the region, as in `aws:s3.us-east-1.bucket`";
        if text.contains('%') || !text.is_ascii() {
            return Err(not_understood("write names that need no encoding"));
        }
        let bucket = |test| Filter::Is(Field::Bucket, test);
        if affix == Affix::Suffix {
            if text.contains('.') {
                return Err(not_understood("let it end within the bucket's name, or use `exact`"));
            }
            let region = Filter::all([bucket(Test::Absent), self.of_region(affix, text)]);
            return Ok(Filter::any([bucket(Test::suffix(text)), region]));
        }
        if affix == Affix::Prefix && start.starts_with(text) {
            return Ok(Filter::All(Vec::new()));
        }
        let Some(rest) = text.strip_prefix(&start) else {
            return Err(not_understood(whole));
        };
        Ok(match (rest.split_once('.'), affix) {
            (None, Affix::Prefix) => self.of_region(affix, rest),
            (None, _) => Filter::all([bucket(Test::Absent), self.of_region(Affix::Whole, rest)]),
            (Some((region, "")), Affix::Prefix) => {
                Filter::all([bucket(Test::Exists), self.of_region(Affix::Whole, region)])
            }
            (Some((region, name)), affix) => {
                Filter::all([bucket(test(affix, name)), self.of_region(Affix::Whole, region)])
            }
        })
    }

    fn of_region(&self, affix: Affix, text: &str) -> Filter {
        let own = Filter::Is(Field::Region, test(affix, text));
        if fits(affix, self.source.region, text) {
            return Filter::any([own, Filter::Is(Field::Region, Test::Absent)]);
        }
        own
    }
}

fn test(affix: Affix, text: &str) -> Test {
    match affix {
        Affix::Whole => Test::equals(text),
        Affix::Prefix => Test::prefix(text),
        Affix::Suffix => Test::suffix(text),
    }
}

fn fits(affix: Affix, value: &str, text: &str) -> bool {
    match affix {
        Affix::Whole => value == text,
        Affix::Prefix => value.starts_with(text),
        Affix::Suffix => value.ends_with(text),
    }
}

fn constant(affix: Affix, text: &str, value: &str, at: &Place<'_>) -> Read<Filter> {
    if fits(affix, value, text) {
        return Ok(Filter::All(Vec::new()));
    }
    Err(at.fault("no event meets this condition", format!("the attribute is always `{value}`")))
}

/// Types of S3 are all known; of the others the host has its own.
fn of_type(affix: Affix, text: &str) -> Filter {
    let of_s3 = |t: &KnownType| {
        t.name().strip_prefix("s3:").is_some_and(|name| fits(affix, &format!("{S3_PREFIX}{name}"), text))
    };
    let s3: Vec<KnownType> = KnownType::ALL.iter().copied().filter(of_s3).collect();
    let is = |test| Filter::Is(Field::EventType, test);
    let mut own = Vec::new();
    match affix {
        Affix::Whole => own.extend(text.strip_prefix(OWN_PREFIX).map(Test::equals)),
        Affix::Prefix if OWN_PREFIX.starts_with(text) => own.push(Test::Exists),
        Affix::Prefix => own.extend(text.strip_prefix(OWN_PREFIX).map(Test::prefix)),
        Affix::Suffix => {
            own.push(Test::suffix(text));
            // Or it takes in the whole name and the end of what stands before it.
            let before = text.char_indices().skip(1).filter(|(i, _)| OWN_PREFIX.ends_with(&text[..*i]));
            own.extend(before.map(|(i, _)| Test::equals(&text[i..])));
        }
    }
    let mut any = Vec::new();
    if !s3.is_empty() {
        any.push(types::one_of(&s3));
    }
    if !own.is_empty() {
        any.push(Filter::all([Filter::any(own.into_iter().map(is)), is(Test::prefix("s3:")).not()]));
    }
    Filter::any(any)
}

/// `bucket/key`, or the bucket alone.
fn of_partition_key(affix: Affix, text: &str) -> Filter {
    let bucket = |test| Filter::Is(Field::Bucket, test);
    let key = |test| Filter::Is(Field::Key, test);
    // Events of the store itself may have a key and no bucket.
    let whole = |name: &str| bucket(if name.is_empty() { Test::Absent } else { Test::equals(name) });
    match (affix, text.split_once('/')) {
        (Affix::Whole, None) => Filter::all([whole(text), key(Test::Absent)]),
        (Affix::Whole, Some((name, rest))) => Filter::all([whole(name), key(Test::equals(rest))]),
        (Affix::Prefix, None) => bucket(Test::prefix(text)),
        (Affix::Prefix, Some((name, ""))) => Filter::all([whole(name), key(Test::Exists)]),
        (Affix::Prefix, Some((name, rest))) => Filter::all([whole(name), key(Test::prefix(rest))]),
        (Affix::Suffix, _) => {
            let alone = Filter::all([bucket(Test::suffix(text)), key(Test::Absent)]);
            // Names of buckets have no slash, so that only the first can be the one between.
            let across = text.split_once('/').filter(|(_, rest)| !rest.is_empty()).map(|(name, rest)| {
                let end = (!name.is_empty()).then(|| bucket(Test::suffix(name)));
                Filter::all(end.into_iter().chain([key(Test::equals(rest))]))
            });
            let alone = (!text.contains('/')).then_some(alone);
            Filter::any([key(Test::suffix(text))].into_iter().chain(across).chain(alone))
        }
    }
}

/// Written with milliseconds.
fn of_time(affix: Affix, text: &str, at: &Place<'_>) -> Read<Filter> {
    let wrong = || -> Box<Fault> {
        at.fault(
            "this condition on the time is not understood",
            "write a time such as 2026-05-04T10:00:00.000Z, or with `prefix` its beginning up to a whole unit",
        )
    };
    let range = match affix {
        Affix::Prefix => times_that_begin_with(text).ok_or_else(wrong)?,
        Affix::Whole => {
            let time: jiff::Timestamp = text.parse().map_err(|_| wrong())?;
            let start = time.as_nanosecond();
            if start % 1_000_000 != 0 {
                return Err(wrong());
            }
            Range { low: Bound::Included(Number::Int(start)), high: Bound::Excluded(Number::Int(start + 1_000_000)) }
        }
        Affix::Suffix => return Err(wrong()),
    };
    Ok(Filter::Is(Field::Time, Test::Number(range)))
}

#[cfg(test)]
mod tests;
