//! Tidewire's own form: an object whose members must all hold.
//!
//! | member | holds if |
//! |---|---|
//! | `all`, `any`: list of filters; `not`: filter | each, at least one, not that one holds |
//! | `use`: name | the filter of this name holds |
//! | `cel`: text | the condition in CEL holds ([`Filter::parse_cel`]) |
//! | `prefix`, `suffix`, `exact`, `wildcard`, `contains`, `regex`: text or list | the key fits one of them; an empty `prefix` or `suffix` is no condition |
//! | `event_type`, `bucket`, `key`, …: condition | the field meets it |
//! | `size`, `hops`, `time`: condition on a number | the field meets it |
//! | `tags`, `metadata`: object of name to condition | each named value meets its condition |
//! | `data`: object of path (`a.b`) to condition, or list of `{path, is}` | some value there meets it |
//!
//! A condition is a value (exactly that), a list (any of them), or an object whose members must all hold: `exact`,
//! `prefix`, `suffix`, `contains`, `wildcard`, `regex`, `cidr` (each a text or a list, any of it), `exists`,
//! `anything_but` (the field is there and has a value that meets none of these), and for numbers `min`, `max`, `above`,
//! `below`. `ignore_case` goes with `exact`, `prefix` and `suffix`; `whole` with `regex`, which otherwise may fit a part.
//! Sizes may be written as `"10MiB"`. Times are RFC 3339: `{from, until}`, until before which it holds; or
//! `{days, from, until, offset}`, hours that come again. A text that is no UTF-8 is `{"base64": "…"}`.
//!
//! An empty object has no condition; an empty `any` never holds.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use super::time::{parse_minutes, parse_offset, parse_time};
use super::{Budget, Fault, Place, Read, check_depth, check_name, check_path, finish, kind, object, string, unknown};
use crate::config::units::{SIZE_FORMS, parse_size};
use crate::error::{Error, Result};
use crate::event::{EventPattern, EventType, EventTypes, KnownType};
use crate::filter::expression::{Affix, FILTER_DEPTH_MAX, FILTER_TEXT_BYTES_MAX, Field, Filter, Folded, Test};
use crate::filter::number::{Bound, Number, Range};
use crate::filter::pattern::{Regex, Wildcard};
use crate::filter::window::Window;

/// The fields that a name is enough for.
pub(super) const FIELDS: &[Field] = &[
    Field::EventType,
    Field::Bucket,
    Field::Key,
    Field::VersionId,
    Field::Etag,
    Field::Requester,
    Field::SourceIp,
    Field::RequestId,
    Field::HostId,
    Field::Region,
    Field::ContentType,
    Field::Method,
    Field::UserAgent,
    Field::BucketOwner,
    Field::Size,
    Field::Time,
    Field::Hops,
    Field::Origin,
    Field::Priority,
];

/// Conditions on the key.
pub(super) const KEY_TESTS: &[&str] = &["prefix", "suffix", "exact", "wildcard", "contains", "regex"];
/// Conditions on named values.
const NAMED: &[&str] = &["tags", "metadata", "data"];
/// Connectives, and what is written in another language.
const CONNECTIVES: &[&str] = &["all", "any", "not", "use", "cel"];

/// Members of a condition on a text.
const TEXT_TESTS: &[&str] = &["exact", "prefix", "suffix", "contains", "wildcard", "regex", "cidr"];
/// Members that change others.
const MODIFIERS: &[&str] = &["ignore_case", "whole"];
/// Members of a condition on anything.
const ANY_TESTS: &[&str] = &["exists", "anything_but"];
/// Members of a condition on a number.
const NUMBER_TESTS: &[&str] = &["min", "max", "above", "below"];
/// Members of a condition on the time, beside those of numbers.
const TIME_TESTS: &[&str] = &["from", "until", "days", "offset"];

/// The days of the week, as windows count them.
pub(super) const DAYS: &[&str] = &["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
pub(super) const ORIGINS: &[&str] = &["user", "replica", "lifecycle"];
pub(super) const PRIORITIES: &[&str] = &["low", "normal", "high"];

/// The place of a member in the order in which members are read.
pub(super) fn rank(name: &str) -> usize {
    members().position(|n| n == name).unwrap_or(usize::MAX)
}

/// Every member that a filter may have, in the order in which they are read.
fn members() -> impl Iterator<Item = &'static str> {
    let fields = FIELDS.iter().map(Field::name);
    KEY_TESTS.iter().copied().chain(fields).chain(NAMED.iter().copied()).chain(CONNECTIVES.iter().copied())
}

/// Filters that others refer to by name, with `use`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NamedFilters {
    filters: BTreeMap<String, Filter>,
}

impl NamedFilters {
    /// None.
    pub fn new() -> NamedFilters {
        NamedFilters::default()
    }

    /// These, in the native form. They may use each other, in any order.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidConfig`] if one is wrong, two have the same name, or some use each other in a circle.
    pub fn from_json<N: Into<String>>(definitions: impl IntoIterator<Item = (N, Value)>) -> Result<NamedFilters> {
        let definitions: Vec<(String, Value)> = definitions.into_iter().map(|(n, v)| (n.into(), v)).collect();
        NamedFilters::resolve(&definitions)
            .map_err(|(i, fault)| fault.error.at(format!("filter `{}`", definitions[i].0.escape_debug())))
    }

    /// As [`NamedFilters::from_json`]; tells which definition the error is in.
    pub(crate) fn resolve(definitions: &[(String, Value)]) -> Result<NamedFilters, (usize, Box<Fault>)> {
        let mut resolver =
            Resolver { definitions, done: vec![None; definitions.len()], under: Vec::new(), wrong: None };
        for (i, (name, _)) in definitions.iter().enumerate() {
            let at = Place::root("name");
            if definitions[..i].iter().any(|(n, _)| n == name) {
                let message = format!("another filter has the name `{}`", name.escape_debug());
                return Err((i, at.fault(message, "rename one of them")));
            }
            check_name("filter's name", name, &at).map_err(|e| (i, e))?;
        }
        for i in 0..definitions.len() {
            if let Err(fault) = resolver.define(i) {
                return Err((resolver.wrong.unwrap_or(i), fault));
            }
        }
        let filters = definitions.iter().zip(resolver.done).filter_map(|((n, _), f)| Some((n.clone(), f?))).collect();
        Ok(NamedFilters { filters })
    }

    /// The filter of a name.
    pub fn get(&self, name: &str) -> Option<&Filter> {
        self.filters.get(name)
    }

    /// The names, in their order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.filters.keys().map(String::as_str)
    }

    /// Adds a filter, or replaces the one of this name.
    pub fn insert(&mut self, name: impl Into<String>, filter: Filter) {
        self.filters.insert(name.into(), filter);
    }
}

/// Finds what `use` names.
trait Lookup {
    fn find(&mut self, name: &str, at: &Place<'_>) -> Read<Filter>;
}

impl Lookup for &NamedFilters {
    fn find(&mut self, name: &str, at: &Place<'_>) -> Read<Filter> {
        let known: Vec<&str> = self.names().collect();
        self.get(name).cloned().ok_or_else(|| unknown("filter", name, &known, at))
    }
}

/// Reads definitions in the order in which they use each other.
struct Resolver<'a> {
    definitions: &'a [(String, Value)],
    done: Vec<Option<Filter>>,
    /// Those that are being read, each used by the one before it.
    under: Vec<usize>,
    /// The one that the error is in.
    wrong: Option<usize>,
}

impl Resolver<'_> {
    fn define(&mut self, i: usize) -> Read<()> {
        if self.done[i].is_some() {
            return Ok(());
        }
        self.under.push(i);
        let definitions = self.definitions;
        let filter = read(&definitions[i].1, "", &mut *self).inspect_err(|_| {
            self.wrong.get_or_insert(i);
        })?;
        self.under.pop();
        self.done[i] = Some(filter);
        Ok(())
    }
}

impl Lookup for Resolver<'_> {
    fn find(&mut self, name: &str, at: &Place<'_>) -> Read<Filter> {
        let Some(i) = self.definitions.iter().position(|(n, _)| n == name) else {
            let known: Vec<&str> = self.definitions.iter().map(|(n, _)| n.as_str()).collect();
            return Err(unknown("filter", name, &known, at));
        };
        if let Some(start) = self.under.iter().position(|u| *u == i) {
            let names = self.under[start..].iter().chain([&i]).map(|u| format!("`{}`", self.definitions[*u].0));
            let names: Vec<String> = names.collect();
            let message = format!("filters use each other in a circle: {}", names.join(", "));
            return Err(at.fault(message, "let one of them do without the other"));
        }
        if self.under.len() > FILTER_DEPTH_MAX {
            let message = format!("more than {FILTER_DEPTH_MAX} filters use one another");
            return Err(at.fault(message, "write some of them out"));
        }
        self.define(i)?;
        Ok(self.done[i].clone().unwrap_or_default())
    }
}

impl Filter {
    /// Reads the native form.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidConfig`] that names the place, as in `filter.all[2].size.min`, for anything that is not
    /// understood, does not suit its field, or is beyond the limits of [`Filter::validate`].
    pub fn from_json(value: &Value, named: &NamedFilters) -> Result<Filter> {
        Filter::read_native(value, "filter", named).map_err(|fault| fault.error)
    }

    /// `root` is how places call the filter.
    pub(crate) fn read_native(value: &Value, root: &str, named: &NamedFilters) -> Read<Filter> {
        read(value, root, &mut &*named)
    }

    /// Reads the native form from JSON text. A name that an object has twice is refused.
    ///
    /// # Errors
    /// As [`Filter::from_json`], and for what is no JSON.
    pub fn parse_json(text: &str, named: &NamedFilters) -> Result<Filter> {
        Filter::from_json(&super::parse_json(text)?, named)
    }
}

impl serde::Serialize for Filter {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.to_json().serialize(serializer)
    }
}

/// Reads the native form, without named filters.
impl<'de> serde::Deserialize<'de> for Filter {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Filter, D::Error> {
        let value = Value::deserialize(deserializer)?;
        Filter::from_json(&value, &NamedFilters::default()).map_err(serde::de::Error::custom)
    }
}

fn read(value: &Value, root: &str, named: &mut dyn Lookup) -> Read<Filter> {
    let at = Place::root(root);
    let filter = Reader { named, budget: Budget::default() }.filter(value, 0, &at)?;
    finish(filter, &at)
}

struct Reader<'n> {
    named: &'n mut dyn Lookup,
    budget: Budget,
}

/// Tests of which at least one must pass.
type Group = Vec<Test>;

impl Reader<'_> {
    fn filter(&mut self, value: &Value, depth: usize, at: &Place<'_>) -> Read<Filter> {
        check_depth(depth, at)?;
        let written = object(value, at, "an object such as {\"prefix\": \"images/\"}")?;
        if let Some(name) = written.keys().find(|n| rank(n) == usize::MAX) {
            let known: Vec<&str> = members().collect();
            return Err(unknown("member of a filter", name, &known, &at.name(name)));
        }
        let mut parts = Vec::new();
        for name in members() {
            let Some(value) = written.get(name) else { continue };
            let at = at.name(name);
            match name {
                "all" | "any" => {
                    let list = self.list(value, depth + 1, &at)?;
                    parts.push(if name == "all" { Filter::all(list) } else { Filter::any(list) });
                }
                "not" => parts.push(self.filter(value, depth + 1, &at)?.not()),
                "use" => parts.push(self.named(string(value, &at)?, &at)?),
                "cel" => {
                    let filter = Filter::parse_cel(string(value, &at)?).map_err(|e| at.wrap(e))?;
                    self.budget.spend(filter.nodes(), &at)?;
                    parts.push(filter);
                }
                "tags" => self.each_named(value, &at, Field::Tag, &mut parts)?,
                "metadata" => self.each_named(value, &at, |n| Field::metadata(&n), &mut parts)?,
                "data" => self.data(value, &at, &mut parts)?,
                _ if KEY_TESTS.contains(&name) => {
                    let mut tests = Vec::new();
                    let mut none = false;
                    each(value, &at, &mut |v, at| {
                        none |= matches!(name, "prefix" | "suffix") && v.as_str() == Some("");
                        self.text_test(&Field::Key, name, v, false, false, at, &mut tests)
                    })?;
                    // Of several, one that every key has is as none.
                    if !none {
                        parts.push(Filter::any(tests.into_iter().map(|t| Filter::Is(Field::Key, t))));
                    }
                }
                _ => {
                    if let Some(field) = FIELDS.iter().find(|f| f.name() == name) {
                        parts.push(self.condition(field, value, &at)?);
                    }
                }
            }
        }
        // One condition alone is itself.
        if parts.len() != 1 {
            self.budget.spend(1, at)?;
        }
        Ok(Filter::all(parts))
    }

    fn list(&mut self, value: &Value, depth: usize, at: &Place<'_>) -> Read<Vec<Filter>> {
        let Some(list) = value.as_array() else {
            return Err(at.fault(format!("this is {}, not a list", kind(value)), "write a list of filters in brackets"));
        };
        list.iter().enumerate().map(|(i, v)| self.filter(v, depth, &at.index(i))).collect()
    }

    fn named(&mut self, name: &str, at: &Place<'_>) -> Read<Filter> {
        let filter = self.named.find(name, at)?;
        let mut nodes = 0;
        filter.each_test(&mut |_, _| nodes += 1);
        filter.each_cel(&mut |cel| nodes += cel.nodes());
        self.budget.spend(nodes, at)?;
        Ok(filter)
    }

    fn each_named(
        &mut self,
        value: &Value,
        at: &Place<'_>,
        field: impl Fn(Box<str>) -> Field,
        parts: &mut Vec<Filter>,
    ) -> Read<()> {
        for (name, value) in object(value, at, "an object of names and conditions")? {
            let at = at.name(name);
            check_name("name", name, &at)?;
            parts.push(self.condition(&field(name.as_str().into()), value, &at)?);
        }
        Ok(())
    }

    fn data(&mut self, value: &Value, at: &Place<'_>, parts: &mut Vec<Filter>) -> Read<()> {
        let Value::Array(list) = value else {
            for (path, value) in object(value, at, "an object of paths and conditions, or a list of {path, is}")? {
                let at = at.name(path);
                parts.push(self.condition(&dotted(path, &at)?, value, &at)?);
            }
            return Ok(());
        };
        for (i, element) in list.iter().enumerate() {
            let at = at.index(i);
            let members = object(element, &at, "an object with `path` and `is`")?;
            if let Some(name) = members.keys().find(|n| !matches!(n.as_str(), "path" | "is")) {
                return Err(unknown("member", name, &["path", "is"], &at.name(name)));
            }
            let (Some(path), Some(is)) = (members.get("path"), members.get("is")) else {
                return Err(at.fault("`path` or `is` is missing", "write both: the path, and the condition"));
            };
            let path_at = at.name("path");
            let field = match path {
                Value::Array(steps) => {
                    let steps = steps.iter().enumerate().map(|(i, s)| string(s, &path_at.index(i)));
                    let steps: Vec<&str> = steps.collect::<Read<_>>()?;
                    check_path(&steps, &path_at)?;
                    Field::data(steps)
                }
                path => dotted(string(path, &path_at)?, &path_at)?,
            };
            parts.push(self.condition(&field, is, &at.name("is"))?);
        }
        Ok(())
    }

    /// A condition on a field: a value, a list of which one must hold, or an object of which each member must hold.
    fn condition(&mut self, field: &Field, value: &Value, at: &Place<'_>) -> Read<Filter> {
        let mut any = Vec::new();
        each(value, at, &mut |value, at| {
            let all = match members_of(value) {
                Some(members) => self.groups(field, members, false, at)?,
                None => vec![self.value_tests(field, value, at)?],
            };
            let is = |t| Filter::Is(field.clone(), t);
            any.push(Filter::all(all.into_iter().map(|group| Filter::any(group.into_iter().map(is)))));
            Ok(())
        })?;
        Ok(Filter::any(any))
    }

    /// The tests that one value, written by itself, stands for.
    fn value_tests(&mut self, field: &Field, value: &Value, at: &Place<'_>) -> Read<Group> {
        let free = matches!(field, Field::Metadata(_) | Field::Tag(_) | Field::Data(_));
        let data = matches!(field, Field::Data(_));
        let mut tests = Vec::new();
        match value {
            _ if field.is_number() => tests.push(Test::Number(Range::exactly(number(field, value, at)?))),
            Value::String(_) | Value::Object(_) => {
                self.text_test(field, "exact", value, false, false, at, &mut tests)?;
                return Ok(tests);
            }
            Value::Number(_) if free => tests.push(Test::Number(Range::exactly(number(field, value, at)?))),
            Value::Bool(b) if data => tests.push(Test::Bool(*b)),
            Value::Null if data => tests.push(Test::Null),
            _ => {
                let message = format!("this is {}, and `{}` is a text", kind(value), field.name());
                return Err(at.fault(message, "write a text in double quotes, a list of them, or an object"));
            }
        }
        self.budget.spend(1, at)?;
        Ok(tests)
    }

    /// The members of a condition, each a group. Within `anything_but` there is one.
    fn groups(&mut self, field: &Field, members: &Map<String, Value>, inner: bool, at: &Place<'_>) -> Read<Vec<Group>> {
        let spent = self.budget.0;
        let known = known_tests(field);
        if let Some(name) = members.keys().find(|n| !known.contains(&n.as_str())) {
            let every = [TEXT_TESTS, MODIFIERS, ANY_TESTS, NUMBER_TESTS, TIME_TESTS].concat();
            if every.contains(&name.as_str()) {
                let message = format!("`{name}` does not suit `{}`", field.name());
                return Err(at.name(name).fault(message, format!("use one of `{}`", known.join("`, `"))));
            }
            return Err(unknown("test", name, &known, &at.name(name)));
        }
        let flag = |name: &'static str| match members.get(name) {
            None => Ok(false),
            Some(Value::Bool(b)) => Ok(*b),
            Some(v) => Err(at.name(name).fault(format!("this is {}", kind(v)), "write true or false")),
        };
        let (ignore_case, whole) = (flag("ignore_case")?, flag("whole")?);
        let has = |names: &[&str]| names.iter().any(|n| members.contains_key(*n));
        if members.contains_key("ignore_case") && !has(&["exact", "prefix", "suffix"]) {
            let message = "`ignore_case` has nothing to go with";
            return Err(at.name("ignore_case").fault(message, "write `exact`, `prefix` or `suffix` beside it"));
        }
        if ignore_case && has(&["contains", "wildcard", "regex", "cidr"]) {
            let message = "`ignore_case` goes with `exact`, `prefix` and `suffix` only";
            return Err(at.name("ignore_case").fault(message, "begin a regular expression with (?i) instead"));
        }
        if members.contains_key("whole") && !has(&["regex"]) {
            return Err(at.name("whole").fault("`whole` has nothing to go with", "write `regex` beside it"));
        }
        let mut groups = Vec::new();
        for name in TEXT_TESTS.iter().filter(|n| known.contains(n)) {
            let Some(value) = members.get(*name) else { continue };
            let mut tests = Vec::new();
            let at = at.name(name);
            each(value, &at, &mut |v, at| self.text_test(field, name, v, ignore_case, whole, at, &mut tests))?;
            groups.push(tests);
        }
        if *field == Field::Time
            && let Some(window) = window(members, at)?
        {
            groups.push(vec![Test::Window(window)]);
        } else if let Some(range) = range(field, members, at)? {
            groups.push(vec![Test::Number(range)]);
        }
        if let Some(value) = members.get("exists") {
            let Some(exists) = value.as_bool() else {
                return Err(at.name("exists").fault(format!("this is {}", kind(value)), "write true or false"));
            };
            if inner {
                let message = "`exists` cannot be within `anything_but`";
                return Err(at.name("exists").fault(message, "write it beside `anything_but`"));
            }
            groups.push(vec![if exists { Test::Exists } else { Test::Absent }]);
        }
        if let Some(value) = members.get("anything_but") {
            let at = at.name("anything_but");
            if inner {
                return Err(at.fault("`anything_but` is within another", "write the condition itself"));
            }
            groups.push(vec![Test::NoneOf(self.none_of(field, value, &at)?.into())]);
        }
        if groups.is_empty() {
            return Err(at.fault("the condition says nothing", format!("use one of `{}`", known.join("`, `"))));
        }
        if inner && groups.len() > 1 {
            let message = "`anything_but` has several tests in one object";
            return Err(at.fault(message, "write a list of objects with one test each"));
        }
        let nodes = |test: &Test| match test {
            Test::NoneOf(tests) => 1 + tests.len(),
            _ => 1,
        };
        // What its members are made of has been counted on the way.
        self.budget = Budget(spent);
        self.budget.spend(groups.iter().flatten().map(nodes).sum(), at)?;
        Ok(groups)
    }

    fn none_of(&mut self, field: &Field, value: &Value, at: &Place<'_>) -> Read<Group> {
        let mut tests = Vec::new();
        each(value, at, &mut |value, at| {
            match members_of(value) {
                Some(members) => tests.extend(self.groups(field, members, true, at)?.into_iter().flatten()),
                None => tests.extend(self.value_tests(field, value, at)?),
            }
            Ok(())
        })?;
        Ok(tests)
    }

    /// Adds the test of a text.
    #[allow(clippy::too_many_arguments)]
    fn text_test(
        &mut self,
        field: &Field,
        name: &str,
        value: &Value,
        ignore_case: bool,
        whole: bool,
        at: &Place<'_>,
        tests: &mut Group,
    ) -> Read<()> {
        let text = text(value, at)?;
        self.budget.spend(1, at)?;
        let utf8 = || {
            std::str::from_utf8(&text)
                .map_err(|_| at.fault("the text is no UTF-8", "write it as a string; case needs one"))
        };
        tests.push(match name {
            "exact" | "prefix" | "suffix" if ignore_case => {
                let affix = match name {
                    "exact" => Affix::Whole,
                    "prefix" => Affix::Prefix,
                    _ => Affix::Suffix,
                };
                Test::IgnoreCase(affix, Folded::new(utf8()?))
            }
            "exact" => {
                tests.extend(exact(field, &text).map_err(|e| at.wrap(e))?);
                return Ok(());
            }
            "prefix" => Test::Prefix(text.into()),
            "suffix" => Test::Suffix(text.into()),
            "contains" => Test::Contains(text.into()),
            "wildcard" => Test::Wildcard(Wildcard::parse(&text).map_err(|e| at.wrap(e))?),
            "regex" => Test::Regex(Regex::parse(utf8()?, whole).map_err(|e| at.wrap(e))?),
            _ => Test::Cidr(cidr(utf8()?).ok_or_else(|| {
                at.fault("this is no network", "write an address and a length, such as \"10.0.0.0/8\"")
            })?),
        });
        Ok(())
    }
}

/// The names of the tests that a field takes.
fn known_tests(field: &Field) -> Vec<&'static str> {
    match field {
        Field::Time => [NUMBER_TESTS, TIME_TESTS, ANY_TESTS].concat(),
        f if f.is_number() => [NUMBER_TESTS, ANY_TESTS].concat(),
        Field::Metadata(_) | Field::Tag(_) | Field::Data(_) => {
            [TEXT_TESTS, MODIFIERS, NUMBER_TESTS, ANY_TESTS].concat()
        }
        _ => [TEXT_TESTS, MODIFIERS, ANY_TESTS].concat(),
    }
}

/// The members of an object that is a condition and not a text.
fn members_of(value: &Value) -> Option<&Map<String, Value>> {
    value.as_object().filter(|o| !o.contains_key("base64"))
}

/// Calls `f` with the value, or with each of a list.
fn each(value: &Value, at: &Place<'_>, f: &mut dyn FnMut(&Value, &Place<'_>) -> Read<()>) -> Read<()> {
    let Value::Array(list) = value else { return f(value, at) };
    if list.is_empty() {
        return Err(at.fault("the list is empty", "name at least one, or leave the condition out"));
    }
    list.iter().enumerate().try_for_each(|(i, v)| {
        let at = at.index(i);
        if v.is_array() {
            return Err(at.fault("this is a list in a list", "write the values side by side"));
        }
        f(v, &at)
    })
}

/// A string, or bytes in base64.
fn text(value: &Value, at: &Place<'_>) -> Read<Vec<u8>> {
    let bytes = match value {
        Value::String(s) => s.as_bytes().to_vec(),
        Value::Object(members) if members.len() == 1 && members.contains_key("base64") => {
            let at = at.name("base64");
            let encoded = string(&members["base64"], &at)?;
            let wrong = |e| at.fault(format!("this is no base64: {e}"), "write it with padding");
            STANDARD.decode(encoded).map_err(wrong)?
        }
        _ => return Err(at.fault(format!("this is {}, not a text", kind(value)), "write a text in double quotes")),
    };
    if bytes.len() > FILTER_TEXT_BYTES_MAX {
        let message = format!("the text has {} bytes, more than {FILTER_TEXT_BYTES_MAX}", bytes.len());
        return Err(at.fault(message, "shorten it: no key is longer, so such a condition on a key would match nothing"));
    }
    Ok(bytes)
}

/// The path `a.b.c`.
fn dotted(path: &str, at: &Place<'_>) -> Read<Field> {
    let steps: Vec<&str> = path.split('.').collect();
    if steps.contains(&"") {
        let message = format!("the path `{}` has an empty step", path.escape_debug());
        return Err(at.fault(
            message,
            "write names between the dots; for names with dots use the list form {path: [..], is: ..}",
        ));
    }
    check_path(&steps, at)?;
    Ok(Field::data(steps))
}

/// The tests for a text that the field is exactly; several for a name of event types that ends with a star.
///
/// # Errors
/// If the field never has this value by its nature.
pub(super) fn exact(field: &Field, text: &[u8]) -> Result<Vec<Test>> {
    let shown = || String::from_utf8_lossy(text).escape_debug().to_string();
    let one_of = |what: &str, known: &[&str]| match known.iter().any(|k| k.as_bytes() == text) {
        true => Ok(()),
        false => Err(Error::invalid_config(format!("unknown {what} `{}`", shown())).remedy(crate::rule::suggest(
            what,
            &shown(),
            known.iter().copied(),
        ))),
    };
    match field {
        Field::EventType => return event_type(text),
        Field::Origin => one_of("origin", ORIGINS)?,
        Field::Priority => one_of("priority", PRIORITIES)?,
        Field::Bucket if text.iter().any(|b| matches!(b, b'*' | b'?' | b'/')) => {
            return Err(Error::invalid_config(format!("`{}` is not the name of a bucket", shown()))
                .remedy("write {\"wildcard\": \"…\"} for a pattern"));
        }
        _ => {}
    }
    Ok(vec![Test::Equals(text.into())])
}

/// The tests for a name of event types, or a wildcard as rules have them.
fn event_type(text: &[u8]) -> Result<Vec<Test>> {
    let name = String::from_utf8_lossy(text);
    let Some(stem) = name.strip_suffix('*') else {
        let t = EventType::parse(&name).map_err(|e| {
            let error = Error::invalid_config(e.message());
            error.remedy(e.remedy_text().unwrap_or("use a name of the registry, or your own as `family:Name`"))
        })?;
        return Ok(vec![Test::equals(t.name())]);
    };
    // A host's own names are not known here; a family of them is every name that begins so.
    let own = EventTypes::with_custom([format!("{stem}x")]).unwrap_or_default();
    let set = EventPattern::parse([&name], &own)?;
    let full = if KnownType::ALL.iter().any(|t| t.name().starts_with(stem)) || set.known().next().is_none() {
        stem.to_owned()
    } else {
        format!("s3:{stem}")
    };
    let by_stem = KnownType::ALL.iter().copied().filter(|t| t.name().starts_with(&full));
    if by_stem.eq(set.known()) {
        return Ok(vec![Test::prefix(full)]);
    }
    // Some are meant by the names that peers give them.
    Ok(set.known().map(|t| Test::equals(t.name())).collect())
}

/// A network, or one address.
pub(super) fn cidr(text: &str) -> Option<ipnet::IpNet> {
    text.parse().ok().or_else(|| text.parse::<std::net::IpAddr>().ok().map(ipnet::IpNet::from))
}

/// The number of a JSON value, if it is one.
pub(super) fn json_number(value: &Value) -> Option<Number> {
    let n = value.as_number()?;
    n.as_i64().map(Number::from).or_else(|| n.as_u64().map(Number::from)).or_else(|| Number::float(n.as_f64()?))
}

fn number(field: &Field, value: &Value, at: &Place<'_>) -> Read<Number> {
    if let Some(n) = json_number(value) {
        return Ok(n);
    }
    let forms = match field {
        Field::Size => SIZE_FORMS,
        Field::Time => "write a time such as \"2026-05-04T10:00:00Z\"",
        _ => "write a number",
    };
    match (field, value.as_str()) {
        (Field::Size, Some(text)) => match parse_size(text) {
            Ok(size) => Ok(size.0.into()),
            Err(_) => Err(at.fault(format!("`{}` is not a size", text.escape_debug()), forms)),
        },
        (Field::Time, Some(text)) => {
            parse_time(text).ok_or_else(|| at.fault(format!("`{}` is not a time", text.escape_debug()), forms))
        }
        _ => Err(at.fault(format!("this is {}, not a number", kind(value)), forms)),
    }
}

/// The range of `min`, `max`, `above` and `below`, if there are some; of times also `from` and `until`.
fn range(field: &Field, members: &Map<String, Value>, at: &Place<'_>) -> Read<Option<Range>> {
    let (mut low, mut high) = (Bound::Open, Bound::Open);
    for name in ["min", "above", "from", "max", "below", "until"] {
        let Some(value) = members.get(name) else { continue };
        let at = at.name(name);
        let end = if matches!(name, "min" | "above" | "from") { &mut low } else { &mut high };
        if *end != Bound::Open {
            return Err(at.fault("the range has this end twice", "keep one of them"));
        }
        let n = number(field, value, &at)?;
        *end = if matches!(name, "min" | "from" | "max") { Bound::Included(n) } else { Bound::Excluded(n) };
    }
    Ok(((low, high) != (Bound::Open, Bound::Open)).then_some(Range { low, high }))
}

/// The hours that come again, if `days`, `offset` or hours are there.
fn window(members: &Map<String, Value>, at: &Place<'_>) -> Read<Option<Window>> {
    let hours = |name: &str| members.get(name).and_then(Value::as_str).and_then(parse_minutes);
    let recurs = members.contains_key("days") || members.contains_key("offset");
    if !recurs && hours("from").is_none() && hours("until").is_none() {
        return Ok(None);
    }
    if let Some(name) = NUMBER_TESTS.iter().find(|n| members.contains_key(**n)) {
        let message = "hours that come again and a range of time are in one object";
        return Err(at.name(name).fault(message, "write two conditions, joined by `all`"));
    }
    let minutes = |name: &'static str, default| match members.get(name) {
        None => Ok(default),
        Some(value) => {
            let at = at.name(name);
            let fault = || at.fault("this is no time of the day", "write it as \"HH:MM\", from 00:00 to 24:00");
            parse_minutes(string(value, &at)?).ok_or_else(fault)
        }
    };
    let mut days = 0;
    match members.get("days") {
        None => days = 0x7f,
        Some(value) => {
            let at = at.name("days");
            each(value, &at, &mut |v, at| {
                let name = string(v, at)?;
                let day = DAYS.iter().position(|d| *d == name).ok_or_else(|| unknown("day", name, DAYS, at))?;
                days |= 1 << day;
                Ok(())
            })?;
        }
    }
    let offset = match members.get("offset") {
        None => 0,
        Some(value) => {
            let at = at.name("offset");
            let fault = || at.fault("this is no offset from UTC", "write it as \"+HH:MM\" or \"-HH:MM\"");
            parse_offset(string(value, &at)?).ok_or_else(fault)?
        }
    };
    Window::new(days, minutes("from", 0)?, minutes("until", 24 * 60)?, offset).map(Some).map_err(|e| at.wrap(e))
}
