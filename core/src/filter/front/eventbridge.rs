//! Event patterns of Amazon EventBridge.
//!
//! A pattern has the shape of the document that it describes, with a list of values and operators where that has a value.
//! Every operator of the published list is understood: exact values, `prefix`, `suffix`, `equals-ignore-case` (also within
//! those two), `anything-but` (values, lists, and `prefix`, `suffix`, `equals-ignore-case`, `wildcard` within), `numeric`,
//! `cidr`, `exists`, `wildcard` and `$or`. What EventBridge refuses, an empty list or a value without one, is refused here.
//!
//! What is absent: every operator but `exists: false` needs the value to be there, `anything-but` and `null` too; `exists`
//! is about values, not about the objects on the way to them. A list in the document stands for each of its elements.
//!
//! Two differences are left. Fields of objects in one list are looked at separately, so that `{"a": {"x": [1], "y": [2]}}`
//! passes a list `a` in which one element has the `x` and another the `y`. And a text that an event leaves empty is absent.

use serde_json::{Map, Value};

use super::native::{cidr, json_number};
use super::time::times_that_begin_with;
use super::types::{self, OfType};
use super::{Budget, Place, Read, check_depth, check_path, finish, kind, object, string, unknown};
use crate::error::Result;
use crate::event::KnownType;
use crate::event::profile::eventbridge::{deletion_type, detail_type, reason};
use crate::filter::expression::{Affix, Field, Filter, Folded, Test};
use crate::filter::number::{Bound, Range};
use crate::filter::pattern::Wildcard;
use crate::filter::subject;

/// The document that an event pattern describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatternOf<'a> {
    /// The EventBridge form of an S3 event: `source`, `detail-type`, `detail.object.key` and so on. Types that S3 sends no
    /// such event for have no `source` and no `detail-type`.
    S3 {
        /// The region of events that do not name one; empty if that is not known, and then such events have none.
        region: &'a str,
    },
    /// The event's JSON data, whatever is in it.
    Data,
}

impl Filter {
    /// Reads an event pattern of Amazon EventBridge.
    ///
    /// Operators need the value to be there, all but `exists: false`. Lists in the data of an event stand for each of their
    /// elements, each path by itself.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidConfig`] that names the place, as in `pattern.detail.object.key[0]`, for what is no event
    /// pattern, for fields that the document does not have or that are not known when rules are matched (`id`, `account`,
    /// `sequencer`), and for conditions on the type that no type meets.
    pub fn from_event_pattern(pattern: &Value, of: PatternOf<'_>) -> Result<Filter> {
        Filter::read_event_pattern(pattern, of).map_err(|fault| fault.error)
    }

    pub(crate) fn read_event_pattern(pattern: &Value, of: PatternOf<'_>) -> Read<Filter> {
        let at = Place::root("pattern");
        let filter = Reader { of, budget: Budget::default() }.pattern(pattern, &mut Vec::new(), 0, &at)?;
        finish(filter, &at)
    }

    /// Reads an event pattern from JSON text. A name that an object has twice is refused.
    ///
    /// # Errors
    /// As [`Filter::from_event_pattern`], and for what is no JSON.
    pub fn parse_event_pattern(text: &str, of: PatternOf<'_>) -> Result<Filter> {
        Filter::from_event_pattern(&super::parse_json(text)?, of)
    }
}

/// What a path of the S3 document is to us.
enum Target {
    /// A text of the event.
    Text(Field),
    /// The size.
    Size,
    /// A text of the event's data.
    Data(&'static str),
    /// The same for every event.
    Constant(&'static str),
    /// It follows from the type.
    OfType(OfType),
    Time,
    Region,
    /// The ARN of the bucket.
    Arn,
    /// It is made when a record is written, after rules were matched.
    Later,
}

const PATHS: &[(&str, Target)] = &[
    ("version", Target::Constant("0")),
    ("id", Target::Later),
    ("detail-type", Target::OfType(detail_type)),
    ("source", Target::OfType(source)),
    ("account", Target::Later),
    ("time", Target::Time),
    ("region", Target::Region),
    ("resources", Target::Arn),
    ("detail.version", Target::Constant("0")),
    ("detail.bucket.name", Target::Text(Field::Bucket)),
    ("detail.object.key", Target::Text(Field::Key)),
    ("detail.object.size", Target::Size),
    ("detail.object.etag", Target::Text(Field::Etag)),
    ("detail.object.version-id", Target::Text(Field::VersionId)),
    ("detail.object.sequencer", Target::Later),
    ("detail.request-id", Target::Text(Field::RequestId)),
    ("detail.requester", Target::Text(Field::Requester)),
    ("detail.source-ip-address", Target::Text(Field::SourceIp)),
    ("detail.reason", Target::OfType(reason)),
    ("detail.deletion-type", Target::OfType(deletion_type)),
    ("detail.restore-expiry-time", Target::Data("lifecycleRestorationExpiryTime")),
    ("detail.source-storage-class", Target::Data("lifecycleRestoreStorageClass")),
    ("detail.destination-storage-class", Target::Data("destinationStorageClass")),
    ("detail.destination-access-tier", Target::Data("destinationAccessTier")),
];

/// What the ARN of a bucket begins with.
const ARN: &str = "arn:aws:s3:::";

fn source(t: KnownType) -> Option<&'static str> {
    detail_type(t).map(|_| "aws.s3")
}

/// What values the document has at a path.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Values {
    Texts,
    Numbers,
    All,
}

const OPERATORS: &[&str] =
    &["prefix", "suffix", "equals-ignore-case", "anything-but", "numeric", "cidr", "exists", "wildcard"];

struct Reader<'a> {
    of: PatternOf<'a>,
    budget: Budget,
}

impl Reader<'_> {
    fn pattern<'v>(&mut self, value: &'v Value, path: &mut Vec<&'v str>, depth: usize, at: &Place<'_>) -> Read<Filter> {
        check_depth(depth, at)?;
        let members = object(value, at, "an object such as {\"detail-type\": [\"Object Created\"]}")?;
        if members.is_empty() {
            return Err(at.fault("the object is empty", "name a field and what it must be, or leave the object out"));
        }
        let mut parts = Vec::new();
        for (name, value) in members {
            let at = at.name(name);
            if name == "$or" {
                parts.push(self.or(value, path, depth + 1, &at)?);
                continue;
            }
            path.push(name);
            parts.push(match value {
                Value::Object(_) => self.pattern(value, path, depth + 1, &at)?,
                Value::Array(list) => self.leaf(list, path, &at)?,
                _ => {
                    let message = format!("this is {}, not a list", kind(value));
                    return Err(at.fault(message, "write the value in brackets, as in [\"aws.s3\"]"));
                }
            });
            path.pop();
        }
        Ok(Filter::all(parts))
    }

    fn or<'v>(&mut self, value: &'v Value, path: &mut Vec<&'v str>, depth: usize, at: &Place<'_>) -> Read<Filter> {
        let list = value
            .as_array()
            .filter(|l| !l.is_empty())
            .ok_or_else(|| at.fault("`$or` is no list of patterns", "write [{…}, {…}], of which one must hold"))?;
        self.budget.spend(1, at)?;
        let any = list.iter().enumerate().map(|(i, v)| self.pattern(v, path, depth, &at.index(i)));
        Ok(Filter::any(any.collect::<Read<Vec<_>>>()?))
    }

    /// A list of values and operators, of which one must hold for the value at the path.
    fn leaf(&mut self, list: &[Value], path: &[&str], at: &Place<'_>) -> Read<Filter> {
        if list.is_empty() {
            return Err(at.fault("the list is empty", "name at least one value; as it is nothing could match"));
        }
        let PatternOf::S3 { region } = self.of else {
            check_path(path, at)?;
            return Ok(any(&Field::data(path), self.tests(list, Values::All, at)?));
        };
        let Some((_, target)) = PATHS.iter().find(|(known, _)| known.split('.').eq(path.iter().copied())) else {
            let known: Vec<&str> = PATHS.iter().filter(|(_, t)| !matches!(t, Target::Later)).map(|(p, _)| *p).collect();
            return Err(unknown("field of an S3 event", &path.join("."), &known, at));
        };
        let values = if matches!(target, Target::Size) { Values::Numbers } else { Values::Texts };
        let tests = self.tests(list, values, at)?;
        Ok(match target {
            Target::Text(field) => any(field, tests),
            Target::Size => any(&Field::Size, tests),
            Target::Data(name) => any(&Field::data([name]), tests),
            Target::Constant(text) => {
                if !tests.iter().any(|t| passes(t, text)) {
                    return Err(never(at, &[text]));
                }
                Filter::All(Vec::new())
            }
            Target::OfType(of) => types::decide(*of, &tests).ok_or_else(|| never(at, &types::values(*of)))?,
            Target::Time => {
                let tests = tests.iter().map(|t| time_test(t, at)).collect::<Read<Vec<_>>>()?;
                any(&Field::Time, tests)
            }
            Target::Region => {
                let of_engine = !region.is_empty() && tests.iter().any(|t| passes(t, region));
                let absent = Filter::Is(Field::Region, Test::Absent);
                // Every event has a region then.
                let tests = tests.into_iter().filter(|t| region.is_empty() || *t != Test::Absent);
                let tests = tests.map(|t| Filter::Is(Field::Region, t)).chain(of_engine.then_some(absent));
                let tests: Vec<Filter> = tests.collect();
                if tests.is_empty() {
                    return Err(never(at, &[region]));
                }
                Filter::any(tests)
            }
            Target::Arn => {
                let tests = tests.iter().map(|t| arn_test(t, at)).collect::<Read<Vec<_>>>()?;
                let tests: Vec<Test> = tests.into_iter().flatten().collect();
                if tests.is_empty() {
                    return Err(never(at, &["arn:aws:s3:::BUCKET"]));
                }
                any(&Field::Bucket, tests)
            }
            Target::Later => {
                let message =
                    format!("`{}` is made when a record is written, after rules were matched", path.join("."));
                return Err(at.fault(message, "filter on another field"));
            }
        })
    }

    fn tests(&mut self, list: &[Value], values: Values, at: &Place<'_>) -> Read<Vec<Test>> {
        let mut tests = Vec::new();
        for (i, value) in list.iter().enumerate() {
            let at = at.index(i);
            self.budget.spend(1, &at)?;
            tests.push(match value {
                Value::Object(members) => self.operator(members, values, &at)?,
                value => scalar(value, values, &at)?,
            });
        }
        Ok(tests)
    }

    fn operator(&mut self, members: &Map<String, Value>, values: Values, at: &Place<'_>) -> Read<Test> {
        let (name, value) = one_member(members, OPERATORS, at)?;
        let at = &at.name(name);
        let of_texts = matches!(name, "prefix" | "suffix" | "equals-ignore-case" | "cidr" | "wildcard");
        if values == Values::Numbers && of_texts || values == Values::Texts && name == "numeric" {
            let what = if values == Values::Numbers { "number" } else { "text" };
            return Err(at.fault(format!("`{name}` does not suit a {what}"), "use an operator for such values"));
        }
        Ok(match name {
            "prefix" | "suffix" => {
                let affix = if name == "prefix" { Affix::Prefix } else { Affix::Suffix };
                match value {
                    Value::Object(inner) => {
                        let (inner, value) = one_member(inner, &["equals-ignore-case"], at)?;
                        Test::IgnoreCase(affix, Folded::new(string(value, &at.name(inner))?))
                    }
                    value => affix_test(affix, string(value, at)?),
                }
            }
            "equals-ignore-case" => Test::IgnoreCase(Affix::Whole, Folded::new(string(value, at)?)),
            "wildcard" => wildcard(string(value, at)?, at)?,
            "cidr" => Test::Cidr(cidr(string(value, at)?).ok_or_else(|| {
                at.fault("this is no network", "write an address and a length, such as \"10.0.0.0/24\"")
            })?),
            "numeric" => Test::Number(numeric(value, at)?),
            "exists" => match value {
                Value::Bool(true) => Test::Exists,
                Value::Bool(false) => Test::Absent,
                value => return Err(at.fault(format!("this is {}", kind(value)), "write true or false")),
            },
            _ => Test::NoneOf(self.anything_but(value, values, at)?.into()),
        })
    }

    fn anything_but(&mut self, value: &Value, values: Values, at: &Place<'_>) -> Read<Vec<Test>> {
        let mut tests = Vec::new();
        if let Value::Object(members) = value {
            let (name, value) = one_member(members, &["prefix", "suffix", "equals-ignore-case", "wildcard"], at)?;
            let at = at.name(name);
            if values == Values::Numbers {
                return Err(at.fault(format!("`{name}` does not suit a number"), "name the numbers"));
            }
            each(value, &at, &mut |value, at| {
                self.budget.spend(1, at)?;
                let text = string(value, at)?;
                tests.push(match name {
                    "prefix" => affix_test(Affix::Prefix, text),
                    "suffix" => affix_test(Affix::Suffix, text),
                    "wildcard" => wildcard(text, at)?,
                    _ => Test::IgnoreCase(Affix::Whole, Folded::new(text)),
                });
                Ok(())
            })?;
            return Ok(tests);
        }
        each(value, at, &mut |value, at| {
            self.budget.spend(1, at)?;
            if !matches!(value, Value::String(_) | Value::Number(_)) {
                let message = format!("`anything-but` has {}", kind(value));
                return Err(at.fault(message, "name texts or numbers"));
            }
            tests.push(scalar(value, values, at)?);
            Ok(())
        })?;
        Ok(tests)
    }
}

/// Calls `f` with the value, or with each of a list.
fn each(value: &Value, at: &Place<'_>, f: &mut dyn FnMut(&Value, &Place<'_>) -> Read<()>) -> Read<()> {
    match value {
        Value::Array(list) if list.is_empty() => Err(at.fault("the list is empty", "name at least one value")),
        Value::Array(list) => list.iter().enumerate().try_for_each(|(i, v)| f(v, &at.index(i))),
        value => f(value, at),
    }
}

/// The only member of an operator.
fn one_member<'v>(members: &'v Map<String, Value>, known: &[&str], at: &Place<'_>) -> Read<(&'v str, &'v Value)> {
    if let Some(name) = members.keys().find(|n| !known.contains(&n.as_str())) {
        return Err(unknown("operator", name, known, &at.name(name)));
    }
    let mut all = members.iter();
    match (all.next(), all.next()) {
        (Some((name, value)), None) => Ok((name, value)),
        (None, _) => Err(at.fault("the operator is missing", format!("use one of `{}`", known.join("`, `")))),
        _ => Err(at.fault("several operators are in one object", "write each in an object of its own")),
    }
}

fn scalar(value: &Value, values: Values, at: &Place<'_>) -> Read<Test> {
    let wrong = |remedy: &str| at.fault(format!("this is {}, which the field never is", kind(value)), remedy);
    Ok(match value {
        Value::String(_) if values == Values::Numbers => return Err(wrong("write a number, without quotes")),
        Value::String(text) => Test::equals(text),
        Value::Number(_) if values != Values::Texts => match json_number(value) {
            Some(n) => Test::Number(Range::exactly(n)),
            None => return Err(wrong("write a finite number")),
        },
        Value::Bool(b) if values == Values::All => Test::Bool(*b),
        Value::Null if values == Values::All => Test::Null,
        Value::Array(_) => return Err(wrong("write the values side by side")),
        _ if values == Values::Numbers => return Err(wrong("write a number")),
        _ => return Err(wrong("write a text in double quotes")),
    })
}

fn affix_test(affix: Affix, text: &str) -> Test {
    if affix == Affix::Prefix { Test::prefix(text) } else { Test::suffix(text) }
}

/// A wildcard of EventBridge: `*` is special, `?` is not.
fn wildcard(text: &str, at: &Place<'_>) -> Read<Test> {
    let mut pattern = String::with_capacity(text.len());
    let mut hidden = false;
    for c in text.chars() {
        if hidden && !matches!(c, '*' | '\\') {
            return Err(at.fault("a backslash hides nothing", "write `\\\\` for a backslash; only `*` needs one"));
        }
        hidden = c == '\\' && !hidden;
        if c == '?' {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    Ok(Test::Wildcard(Wildcard::parse(pattern.as_bytes()).map_err(|e| at.wrap(e))?))
}

/// `[">", 0, "<=", 5]`.
fn numeric(value: &Value, at: &Place<'_>) -> Read<Range> {
    let form = "write comparisons and numbers in turn, as in [\">\", 0, \"<=\", 5]";
    let list = value.as_array().filter(|l| matches!(l.len(), 2 | 4));
    let list = list.ok_or_else(|| at.fault("`numeric` is no list of one or two comparisons", form))?;
    let mut range = Range { low: Bound::Open, high: Bound::Open };
    for (i, pair) in list.chunks_exact(2).enumerate() {
        let (name_at, number_at) = (at.index(2 * i), at.index(2 * i + 1));
        let name = string(&pair[0], &name_at)?;
        let n = json_number(&pair[1])
            .ok_or_else(|| number_at.fault(format!("this is {}, not a number", kind(&pair[1])), form))?;
        let (end, bound) = match name {
            "=" if list.len() == 2 => return Ok(Range::exactly(n)),
            "<" => (&mut range.high, Bound::Excluded(n)),
            "<=" => (&mut range.high, Bound::Included(n)),
            ">" => (&mut range.low, Bound::Excluded(n)),
            ">=" => (&mut range.low, Bound::Included(n)),
            "!=" => return Err(name_at.fault("there is no `!=`", "write {\"anything-but\": number}")),
            _ => {
                let message = format!("`{}` is no comparison that can stand here", name.escape_debug());
                return Err(name_at.fault(message, "use `<`, `<=`, `>`, `>=`, or `=` alone"));
            }
        };
        if *end != Bound::Open {
            return Err(name_at.fault("the range has this end twice", form));
        }
        *end = bound;
    }
    if range.is_empty() {
        return Err(at.fault("no number is within the range", "let the lower end be less than the upper one"));
    }
    Ok(range)
}

fn any(field: &Field, tests: Vec<Test>) -> Filter {
    Filter::any(tests.into_iter().map(|t| Filter::Is(field.clone(), t)))
}

/// Whether a text that is always there passes.
fn passes(test: &Test, text: &str) -> bool {
    test.passes(subject::Kind::Data, subject::Value::Text(text.as_bytes()))
}

/// A condition that no event meets.
#[cold]
fn never(at: &Place<'_>, known: &[&str]) -> Box<super::Fault> {
    at.fault("no event meets this condition", format!("the values are `{}`", known.join("`, `")))
}

/// The same test of the time as a number.
fn time_test(test: &Test, at: &Place<'_>) -> Read<Test> {
    let wrong = || {
        at.fault(
            "this condition on the time is not understood",
            "write the whole time or its beginning, as in {\"prefix\": \"2026-05-04\"}",
        )
    };
    Ok(match test {
        Test::Exists | Test::Absent => test.clone(),
        Test::Equals(text) => {
            let text = std::str::from_utf8(text).ok().filter(|t| t.ends_with('Z'));
            Test::Number(text.and_then(times_that_begin_with).ok_or_else(wrong)?)
        }
        Test::Prefix(text) => {
            let text = std::str::from_utf8(text).ok();
            Test::Number(text.and_then(times_that_begin_with).ok_or_else(wrong)?)
        }
        Test::NoneOf(tests) => Test::NoneOf(tests.iter().map(|t| time_test(t, at)).collect::<Read<_>>()?),
        _ => return Err(wrong()),
    })
}

/// The same test of the bucket's name alone; `None` if no bucket passes.
fn arn_test(test: &Test, at: &Place<'_>) -> Read<Option<Test>> {
    let text = |t: &[u8]| String::from_utf8_lossy(t).into_owned();
    let folded = |t: &str| t.strip_prefix(ARN).map(str::to_owned);
    Ok(match test {
        Test::Exists | Test::Absent => Some(test.clone()),
        Test::Equals(arn) => text(arn).strip_prefix(ARN).map(Test::equals),
        Test::Prefix(start) => match text(start) {
            start if ARN.starts_with(&start) => Some(Test::Exists),
            start => start.strip_prefix(ARN).map(Test::prefix),
        },
        // Names of buckets have no colon.
        Test::Suffix(end) => match text(end).rsplit_once(':') {
            None => Some(Test::Suffix(end.clone())),
            Some((before, name)) => ARN.ends_with(&format!("{before}:")).then(|| Test::equals(name)),
        },
        Test::IgnoreCase(Affix::Whole, arn) => {
            folded(arn.as_str()).map(|name| Test::IgnoreCase(Affix::Whole, Folded::new(&name)))
        }
        Test::Wildcard(w) => {
            let fits = text(w.pattern()).strip_prefix(ARN).map(|rest| Wildcard::parse(rest.as_bytes()));
            let Some(Ok(rest)) = fits else {
                let message = "this condition on the ARN is not understood";
                return Err(at.fault(message, "begin it with arn:aws:s3:::, or filter on detail.bucket.name"));
            };
            Some(Test::Wildcard(rest))
        }
        Test::NoneOf(tests) => {
            let tests: Vec<Option<Test>> = tests.iter().map(|t| arn_test(t, at)).collect::<Read<_>>()?;
            let tests: Vec<Test> = tests.into_iter().flatten().collect();
            if tests.contains(&Test::Exists) {
                return Ok(None);
            }
            Some(if tests.is_empty() { Test::Exists } else { Test::NoneOf(tests.into()) })
        }
        _ => {
            let message = "this condition on the ARN is not understood";
            return Err(at.fault(message, "filter on detail.bucket.name"));
        }
    })
}

#[cfg(test)]
mod tests;
