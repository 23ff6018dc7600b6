//! The expression tree: what all front ends are read into, and what is compiled.

use std::fmt;

use ipnet::IpNet;

use super::cel::Cel;
use super::number::{Number, Range};
use super::pattern::{Regex, Wildcard};
use super::window::Window;
use crate::error::{Error, Result};

/// The most conditions and connectives of one filter.
pub const FILTER_NODES_MAX: usize = 256;
/// The deepest nesting of connectives.
pub const FILTER_DEPTH_MAX: usize = 32;
/// The longest text that a condition compares with, in bytes.
pub const FILTER_TEXT_BYTES_MAX: usize = 1024;

/// A condition on an event: tests of its fields, joined by `all`, `any` and `not`.
///
/// A test of a field that the event does not have is false, whatever the test, except [`Test::Absent`]. `Not` is plain
/// negation: `not (requester = "a")` holds for an event without a requester. [`Test::NoneOf`] is what front ends use that
/// want a value to be there and to be another one.
///
/// Keys and texts are compared as raw bytes, case counts, and nothing is decoded.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Filter {
    /// Each of them holds; with none, always.
    All(Vec<Filter>),
    /// At least one holds; with none, never.
    Any(Vec<Filter>),
    /// It does not hold.
    Not(Box<Filter>),
    /// Some value of the field passes the test.
    Is(Field, Test),
    /// An expression in CEL is true, or false, where it is evaluated.
    Cel(Cel),
}

/// What a test looks at. Texts that the event leaves empty are absent.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Field {
    /// The full name of the type, such as `s3:ObjectCreated:Put`.
    EventType,
    /// The bucket.
    Bucket,
    /// The key, as raw bytes.
    Key,
    /// The object's version.
    VersionId,
    /// The entity tag.
    Etag,
    /// Who asked for the operation.
    Requester,
    /// The address that the request came from.
    SourceIp,
    /// The id of the request.
    RequestId,
    /// The second id of the request.
    HostId,
    /// The region that the event names; absent where that is left to the engine.
    Region,
    /// The content type.
    ContentType,
    /// The operation as the API names it, such as `PutObject`.
    Method,
    /// The client's user agent.
    UserAgent,
    /// The owner of the bucket.
    BucketOwner,
    /// The object's size in bytes; a number. Events of deletions have none.
    Size,
    /// When it happened, in nanoseconds since the Unix epoch; a number.
    Time,
    /// How many notification handlers the event has passed; a number, always there.
    Hops,
    /// Who caused the event: `user`, `replica` or `lifecycle`; always there.
    Origin,
    /// `low`, `normal` or `high`; always there.
    Priority,
    /// The user metadata of this name, without `x-amz-meta-`; case does not count in the name.
    Metadata(Box<str>),
    /// The tag of this name.
    Tag(Box<str>),
    /// The values at this path of the event's JSON data: the names of the members to follow. An array stands for each of
    /// its elements, at every step.
    Data(Box<[Box<str>]>),
}

/// What a value must be.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Test {
    /// The field is there, whatever its value.
    Exists,
    /// The field is not there.
    Absent,
    /// A text: these bytes.
    Equals(Box<[u8]>),
    /// A text: begins with these bytes.
    Prefix(Box<[u8]>),
    /// A text: ends with these bytes.
    Suffix(Box<[u8]>),
    /// A text: has these bytes in it.
    Contains(Box<[u8]>),
    /// A text that the pattern fits as a whole.
    Wildcard(Wildcard),
    /// A text that the regular expression finds.
    Regex(Regex),
    /// A text that is this, begins or ends with it, regardless of the case of letters.
    IgnoreCase(Affix, Folded),
    /// A text that is an IP address within the network.
    Cidr(IpNet),
    /// A number within the range. Values of metadata and tags are read as decimal numbers; strings of JSON data are not
    /// numbers.
    Number(Range),
    /// A time within a recurring window.
    Window(Window),
    /// This boolean of JSON data.
    Bool(bool),
    /// The null of JSON data.
    Null,
    /// The field is there and has a value that passes none of these.
    NoneOf(Box<[Test]>),
}

/// Which part of a text is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Affix {
    /// All of it.
    Whole,
    /// Its beginning.
    Prefix,
    /// Its end.
    Suffix,
}

/// A text without its case: every character in lower case, as Unicode maps it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Folded(Box<str>);

impl Folded {
    /// The text without its case.
    pub fn new(text: &str) -> Folded {
        Folded(text.chars().flat_map(char::to_lowercase).collect())
    }

    /// The folded text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether `text` is this, or begins or ends with it, without case. Bytes that are no UTF-8 fit nothing.
    pub fn fits(&self, affix: Affix, text: &[u8]) -> bool {
        fits_folded(&self.0, affix, text)
    }
}

/// See [`Folded::fits`].
pub(super) fn fits_folded(folded: &str, affix: Affix, text: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(text) else { return false };
    let mut own = folded.chars();
    match affix {
        Affix::Whole => text.chars().flat_map(char::to_lowercase).eq(own),
        Affix::Prefix => {
            let mut chars = text.chars().flat_map(char::to_lowercase);
            own.all(|c| chars.next() == Some(c))
        }
        Affix::Suffix => {
            let mut chars = text.chars().rev().flat_map(|c| c.to_lowercase().rev());
            own.by_ref().rev().all(|c| chars.next() == Some(c))
        }
    }
}

impl Default for Filter {
    /// Passes everything.
    fn default() -> Filter {
        Filter::All(Vec::new())
    }
}

impl From<(Field, Test)> for Filter {
    fn from((field, test): (Field, Test)) -> Filter {
        Filter::Is(field, test)
    }
}

impl Filter {
    /// Whether it looks at a field of which `is` says yes. An expression in CEL may look at any.
    pub(crate) fn looks_at(&self, is: &impl Fn(&Field) -> bool) -> bool {
        match self {
            Filter::All(parts) | Filter::Any(parts) => parts.iter().any(|part| part.looks_at(is)),
            Filter::Not(part) => part.looks_at(is),
            Filter::Is(field, _) => is(field),
            Filter::Cel(_) => true,
        }
    }

    /// A condition on the key: it begins with `prefix` and ends with `suffix`. The two are tested separately, so that they
    /// may overlap: key `abc` passes prefix `ab` with suffix `bc`. Empty means no condition.
    pub fn new(prefix: impl Into<Vec<u8>>, suffix: impl Into<Vec<u8>>) -> Filter {
        let (prefix, suffix) = (prefix.into(), suffix.into());
        let mut all = Vec::new();
        if !prefix.is_empty() {
            all.push(Filter::Is(Field::Key, Test::Prefix(prefix.into())));
        }
        if !suffix.is_empty() {
            all.push(Filter::Is(Field::Key, Test::Suffix(suffix.into())));
        }
        Filter::all(all)
    }

    /// Each of these; one alone is itself.
    pub fn all(filters: impl IntoIterator<Item = Filter>) -> Filter {
        let mut all: Vec<Filter> = filters.into_iter().collect();
        if all.len() == 1 { all.remove(0) } else { Filter::All(all) }
    }

    /// At least one of these; one alone is itself.
    pub fn any(filters: impl IntoIterator<Item = Filter>) -> Filter {
        let mut any: Vec<Filter> = filters.into_iter().collect();
        if any.len() == 1 { any.remove(0) } else { Filter::Any(any) }
    }

    /// The negation.
    #[allow(clippy::should_implement_trait)]
    pub fn not(self) -> Filter {
        Filter::Not(Box::new(self))
    }

    /// Whether it passes everything by its form alone: it has no condition.
    pub fn is_empty(&self) -> bool {
        matches!(self, Filter::All(all) if all.iter().all(Filter::is_empty))
    }

    /// Prefix and suffix, if the filter is what [`Filter::new`] makes of them.
    pub fn affixes(&self) -> Option<(&[u8], &[u8])> {
        let list = match self {
            Filter::All(list) => list,
            f => std::slice::from_ref(f),
        };
        Some(match list {
            [] => (&[], &[]),
            [Filter::Is(Field::Key, Test::Prefix(p))] => (p, &[]),
            [Filter::Is(Field::Key, Test::Suffix(s))] => (&[], s),
            [Filter::Is(Field::Key, Test::Prefix(p)), Filter::Is(Field::Key, Test::Suffix(s))] => (p, s),
            _ => return None,
        })
    }

    /// Calls `each` with every test. Expressions that are evaluated are none: see [`Filter::each_cel`].
    pub fn each_test<'a>(&'a self, each: &mut impl FnMut(&'a Field, &'a Test)) {
        match self {
            Filter::All(list) | Filter::Any(list) => list.iter().for_each(|f| f.each_test(each)),
            Filter::Not(inner) => inner.each_test(each),
            Filter::Is(field, test) => each(field, test),
            Filter::Cel(_) => {}
        }
    }

    /// Calls `each` with every expression that is evaluated.
    pub fn each_cel<'a>(&'a self, each: &mut impl FnMut(&'a Cel)) {
        match self {
            Filter::All(list) | Filter::Any(list) => list.iter().for_each(|f| f.each_cel(each)),
            Filter::Not(inner) => inner.each_cel(each),
            Filter::Is(..) => {}
            Filter::Cel(cel) => each(cel),
        }
    }

    /// How many conditions and connectives it has, and parts of expressions that are evaluated.
    pub fn nodes(&self) -> usize {
        match self {
            Filter::All(list) | Filter::Any(list) => 1 + list.iter().map(Filter::nodes).sum::<usize>(),
            Filter::Not(inner) => 1 + inner.nodes(),
            Filter::Is(_, Test::NoneOf(tests)) => 1 + tests.len(),
            Filter::Is(..) => 1,
            Filter::Cel(cel) => cel.nodes(),
        }
    }

    /// Checks sizes and that each test suits its field.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidConfig`] that names the condition and the number.
    pub fn validate(&self) -> Result<()> {
        let mut nodes = 0;
        self.check(0, &mut nodes)
    }

    fn check(&self, depth: usize, nodes: &mut usize) -> Result<()> {
        *nodes += 1;
        if depth > FILTER_DEPTH_MAX {
            return Err(Error::invalid_config(format!("the filter is nested more than {FILTER_DEPTH_MAX} deep"))
                .remedy("merge nested `all`, `any` and `not`"));
        }
        match self {
            Filter::All(list) | Filter::Any(list) => list.iter().try_for_each(|f| f.check(depth + 1, nodes))?,
            Filter::Not(inner) => inner.check(depth + 1, nodes)?,
            Filter::Is(field, test) => {
                let mut tests = 0;
                test.check(field, 0, &mut tests).map_err(|e| e.at(field.to_string()))?;
                *nodes += tests - 1;
            }
            Filter::Cel(cel) => *nodes += cel.nodes() - 1,
        }
        if *nodes > FILTER_NODES_MAX {
            return Err(Error::invalid_config(format!("the filter has more than {FILTER_NODES_MAX} conditions"))
                .remedy("split the rule, or use a wildcard in place of many values"));
        }
        Ok(())
    }
}

impl Field {
    /// The metadata of this name. A leading `x-amz-meta-` is left out, as in events.
    pub fn metadata(name: &str) -> Field {
        let name = name.to_ascii_lowercase();
        Field::Metadata(name.strip_prefix("x-amz-meta-").unwrap_or(&name).into())
    }

    /// The values of the event's JSON data at the path.
    pub fn data<S: AsRef<str>>(path: impl IntoIterator<Item = S>) -> Field {
        Field::Data(path.into_iter().map(|s| s.as_ref().into()).collect())
    }

    /// Whether the values are numbers and nothing else.
    pub fn is_number(&self) -> bool {
        matches!(self, Field::Size | Field::Time | Field::Hops)
    }

    /// Whether the values may be texts.
    pub fn is_text(&self) -> bool {
        !self.is_number()
    }

    /// The name in filters, such as `source_ip`; of metadata, tags and data without what is in brackets.
    pub fn name(&self) -> &'static str {
        match self {
            Field::EventType => "event_type",
            Field::Bucket => "bucket",
            Field::Key => "key",
            Field::VersionId => "version_id",
            Field::Etag => "etag",
            Field::Requester => "requester",
            Field::SourceIp => "source_ip",
            Field::RequestId => "request_id",
            Field::HostId => "host_id",
            Field::Region => "region",
            Field::ContentType => "content_type",
            Field::Method => "method",
            Field::UserAgent => "user_agent",
            Field::BucketOwner => "bucket_owner",
            Field::Size => "size",
            Field::Time => "time",
            Field::Hops => "hops",
            Field::Origin => "origin",
            Field::Priority => "priority",
            Field::Metadata(_) => "metadata",
            Field::Tag(_) => "tags",
            Field::Data(_) => "data",
        }
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        match self {
            Field::Metadata(name) | Field::Tag(name) => write!(f, ".{name}"),
            Field::Data(path) => path.iter().try_for_each(|step| write!(f, ".{step}")),
            _ => Ok(()),
        }
    }
}

impl Test {
    fn check(&self, field: &Field, depth: usize, tests: &mut usize) -> Result<()> {
        *tests += 1;
        let fits = match self {
            Test::Exists | Test::Absent => depth == 0,
            Test::Equals(_) | Test::Prefix(_) | Test::Suffix(_) | Test::Contains(_) | Test::Wildcard(_) => {
                field.is_text()
            }
            Test::Regex(_) | Test::IgnoreCase(..) | Test::Cidr(_) => field.is_text(),
            Test::Number(_) => {
                field.is_number() || matches!(field, Field::Metadata(_) | Field::Tag(_) | Field::Data(_))
            }
            Test::Window(_) => *field == Field::Time,
            Test::Bool(_) | Test::Null => matches!(field, Field::Data(_)),
            Test::NoneOf(inner) => {
                if inner.is_empty() || inner.iter().any(|t| matches!(t, Test::NoneOf(_))) {
                    return Err(Error::invalid_config(
                        "`anything_but` needs values, and no other `anything_but` within",
                    ));
                }
                inner.iter().try_for_each(|t| t.check(field, depth + 1, tests))?;
                true
            }
        };
        if !fits {
            let error = Error::invalid_config(format!("a test of the kind `{}` does not suit this field", self.kind()));
            return Err(error.remedy(match field.is_number() {
                true => "compare numbers with `min` and `max`",
                false => "compare texts with `exact`, `prefix`, `suffix`, `contains`, `wildcard` or `regex`",
            }));
        }
        let text: &[u8] = match self {
            Test::Equals(text) | Test::Prefix(text) | Test::Suffix(text) | Test::Contains(text) => text,
            Test::IgnoreCase(_, text) => text.0.as_bytes(),
            _ => &[],
        };
        if text.len() > FILTER_TEXT_BYTES_MAX {
            let bytes = text.len();
            let kind = self.kind();
            return Err(Error::invalid_config(format!(
                "the {kind} has {bytes} bytes, more than {FILTER_TEXT_BYTES_MAX}"
            ))
            .remedy("shorten it; no key is longer, so such a condition on a key would match nothing"));
        }
        Ok(())
    }

    /// What kind of test it is, as filters name it.
    pub fn kind(&self) -> &'static str {
        match self {
            Test::Exists => "exists",
            Test::Absent => "absent",
            Test::Equals(_) => "exact",
            Test::Prefix(_) => "prefix",
            Test::Suffix(_) => "suffix",
            Test::Contains(_) => "contains",
            Test::Wildcard(_) => "wildcard",
            Test::Regex(_) => "regex",
            Test::IgnoreCase(..) => "ignore_case",
            Test::Cidr(_) => "cidr",
            Test::Number(_) => "number",
            Test::Window(_) => "window",
            Test::Bool(_) => "boolean",
            Test::Null => "null",
            Test::NoneOf(_) => "anything_but",
        }
    }

    /// The text is this.
    pub fn equals(text: impl AsRef<[u8]>) -> Test {
        Test::Equals(text.as_ref().into())
    }

    /// The text begins with this.
    pub fn prefix(text: impl AsRef<[u8]>) -> Test {
        Test::Prefix(text.as_ref().into())
    }

    /// The text ends with this.
    pub fn suffix(text: impl AsRef<[u8]>) -> Test {
        Test::Suffix(text.as_ref().into())
    }

    /// The text has this in it.
    pub fn contains(text: impl AsRef<[u8]>) -> Test {
        Test::Contains(text.as_ref().into())
    }

    /// The number is this.
    pub fn number(n: impl Into<Number>) -> Test {
        Test::Number(Range::exactly(n.into()))
    }

    /// The text fits the pattern: see [`Wildcard`].
    ///
    /// # Errors
    /// As [`Wildcard::parse`].
    pub fn wildcard(pattern: impl AsRef<[u8]>) -> Result<Test> {
        Ok(Test::Wildcard(Wildcard::parse(pattern.as_ref())?))
    }
}
