//! The S3 notification document of a bucket, in XML (as the API of S3 takes it) or JSON (as the AWS tools write it).
//!
//! One document is the whole configuration of its bucket: an empty one switches the bucket's notifications off. What
//! the document says and Tidewire does not know is refused with the place, never skipped.

mod document;
mod json;
mod refusal;
mod xml;

use std::collections::HashSet;
use std::fmt::Write;
use std::sync::Arc;

pub(crate) use document::write;
pub use document::{DocumentEntry, DocumentFilterRule, EntryKind, FilterList};

use super::place::{Text, nearest, suggest};
use super::{Arns, RULE_ID_BYTES_MAX, Rule, check_bucket};
use crate::error::{Error, Result, S3Code};
use crate::event::{EventTypes, KEY_BYTES_MAX, KnownType};
use crate::filter::{Field, Filter, Regex, Test, decode_form};

/// The largest document, in bytes.
const DOCUMENT_BYTES_MAX: usize = 4 << 20;

/// What `EventBridgeConfiguration` stands for: the events that S3 sends to EventBridge, which are fewer than all.
const EVENT_BRIDGE_EVENTS: &[&str] = &[
    "s3:ObjectCreated:*",
    "s3:ObjectRemoved:*",
    "s3:LifecycleExpiration:*",
    "s3:LifecycleTransition",
    "s3:IntelligentTiering",
    "s3:ObjectRestore:*",
    "s3:ObjectTagging:*",
    "s3:ObjectAcl:Put",
];

/// The id of the rule that `EventBridgeConfiguration` becomes.
const EVENT_BRIDGE_ID: &str = "EventBridge";

/// What to do about rules of one document that want the same event.
///
/// Two rules overlap if they share an event type, one's prefix starts with the other's, and one's suffix ends with the
/// other's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum Overlap {
    /// They are accepted; a destination hears of an event once. The default.
    #[default]
    AllowDedupe,
    /// They are refused, as AWS does.
    StrictAws,
    /// They are accepted; a destination hears of an event once per rule.
    AllowAll,
}

/// How the filter values of a document are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum FilterValues {
    /// As the bytes of the key. The default.
    #[default]
    Raw,
    /// Form-encoded, as AWS compares them (`schemaVersion%3D1/`, `my+photos/`); decoded when read.
    Encoded,
}

/// What a document may say beyond S3.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum Extensions {
    /// Nothing. The default.
    #[default]
    None,
    /// What Ceph understands: `regex` among the rules of `S3Key`, which must fit the whole key; `S3Metadata` and `S3Tags`,
    /// lists of names and the values that they must have; and `Type` of a rule, where `OUT` is its negation. All rules must
    /// hold.
    Ceph,
}

/// The encoding of a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum Format {
    /// `<NotificationConfiguration>`.
    Xml,
    /// `{"QueueConfigurations": […]}`.
    Json,
}

/// How a document is read; the default is what the fields say.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct NotificationOptions {
    /// What to do about overlapping rules. Default: [`Overlap::AllowDedupe`].
    pub overlap: Overlap,
    /// How filter values are written. Default: [`FilterValues::Raw`].
    pub filter_values: FilterValues,
    /// What the document may say beyond S3. Default: [`Extensions::None`]; what there is of it is refused.
    pub extensions: Extensions,
    /// The destination that `EventBridgeConfiguration` means; without one, documents that have it are refused.
    pub event_bridge: Option<String>,
}

/// A document with what is needed to read it.
#[derive(Clone, Copy, Debug)]
pub struct Notification<'a> {
    /// The bucket that it configures.
    pub bucket: &'a str,
    /// Its text. A byte order mark is skipped.
    pub text: &'a str,
    /// How errors call the document, such as its file's path.
    pub name: &'a str,
    /// XML or JSON; `None` decides by the first character.
    pub format: Option<Format>,
    /// How it is read.
    pub options: &'a NotificationOptions,
    /// What its ARNs mean.
    pub arns: &'a Arns,
    /// The event types that it may name. Names may lack `s3:`.
    pub types: &'a EventTypes,
}

/// A text of the document and where it begins.
#[derive(Clone, Debug)]
struct Spot {
    text: String,
    offset: usize,
}

/// One `…Configuration` element, read but not understood.
#[derive(Clone, Debug)]
struct Entry {
    kind: EntryKind,
    offset: usize,
    id: Option<Spot>,
    arn: Spot,
    events: Vec<Spot>,
    filter: Vec<FilterRule>,
}

/// A rule of a filter, read but not understood.
#[derive(Clone, Debug)]
struct FilterRule {
    list: FilterList,
    name: Spot,
    value: Spot,
    /// `IN` or `OUT`, of Ceph.
    sense: Option<Spot>,
}

/// A document, read but not understood.
#[derive(Clone, Debug, Default)]
struct Document {
    entries: Vec<Entry>,
    /// Where `EventBridgeConfiguration` stands, if it does.
    event_bridge: Option<usize>,
}

/// An error and the offset that it is about.
type Located<T> = Result<T, (usize, Error)>;

/// The condition of a document's rule: what keys begin and end with, and what else must hold.
#[derive(Clone, Debug, Default)]
struct Affixes {
    prefix: Vec<u8>,
    suffix: Vec<u8>,
    more: Vec<Filter>,
}

impl Affixes {
    /// What the rules of a filter come to.
    fn of(rules: &[FilterRule], options: &NotificationOptions) -> Located<Affixes> {
        let at = |offset: usize| move |e: Error| (offset, e);
        let ceph = options.extensions == Extensions::Ceph;
        let mut affixes = Affixes::default();
        let mut seen: Vec<(FilterList, String)> = Vec::new();
        for FilterRule { list, name, value, sense } in rules {
            let out = match sense.as_ref().map(|s| (s.offset, s.text.as_str())) {
                None | Some((_, "IN")) => false,
                Some((_, "OUT")) => true,
                Some((offset, other)) => {
                    let error = Error::invalid_config(format!("a filter rule has the type `{other}`"));
                    return Err(at(offset)(error.remedy("write `IN`, or `OUT` for its negation")));
                }
            };
            let key = match list {
                FilterList::Tags => name.text.clone(),
                _ => name.text.to_ascii_lowercase(),
            };
            if seen.contains(&(*list, key.clone())) {
                let error = Error::invalid_config(format!("filter rule `{}` is given twice", name.text));
                return Err(at(name.offset)(error.remedy("keep one; use one configuration per prefix")));
            }
            seen.push((*list, key.clone()));
            if *list != FilterList::Key {
                let field = if *list == FilterList::Tags { Field::Tag(key.into()) } else { Field::metadata(&key) };
                affixes.add(Filter::Is(field, Test::equals(&value.text)), out);
                continue;
            }
            let (name, text) = match (key.as_str(), &value.text) {
                ("prefix" | "suffix", text) => (key, text),
                ("regex", text) if ceph => {
                    if !text.is_empty() {
                        let regex = Regex::parse(text, true).map_err(at(value.offset))?;
                        affixes.add(Filter::Is(Field::Key, Test::Regex(regex)), out);
                    }
                    continue;
                }
                _ => {
                    let known: &[&str] = if ceph { &["prefix", "suffix", "regex"] } else { &["prefix", "suffix"] };
                    let error = Error::invalid_config(format!("unknown filter rule `{}`", name.text));
                    let near = nearest(&name.text, known.iter().copied());
                    return Err(at(name.offset)(error.remedy(match near {
                        Some(near) => format!("did you mean `{near}`?"),
                        None if key == "regex" => {
                            "use `prefix` or `suffix`, or allow what Ceph has with extensions = \"ceph\"".to_owned()
                        }
                        None => format!("use `{}`", known.join("` or `")),
                    })));
                }
            };
            let bytes = match options.filter_values {
                FilterValues::Raw => text.clone().into_bytes(),
                FilterValues::Encoded => decode_form(text).map_err(at(value.offset))?,
            };
            if bytes.len() > KEY_BYTES_MAX {
                let len = bytes.len();
                let error = Error::invalid_config(format!("the {name} has {len} bytes, more than {KEY_BYTES_MAX}"));
                let remedy = "shorten it: no key is longer, so it would match nothing";
                return Err(at(value.offset)(error.remedy(remedy)));
            }
            match name.as_str() {
                _ if bytes.is_empty() => {}
                "prefix" if out => affixes.add(Filter::Is(Field::Key, Test::prefix(bytes)), true),
                "prefix" => affixes.prefix = bytes,
                _ if out => affixes.add(Filter::Is(Field::Key, Test::suffix(bytes)), true),
                _ => affixes.suffix = bytes,
            }
        }
        Ok(affixes)
    }

    fn add(&mut self, filter: Filter, out: bool) {
        self.more.push(if out { filter.not() } else { filter });
    }

    fn filter(&self) -> Filter {
        let affixes = match Filter::new(self.prefix.clone(), self.suffix.clone()) {
            Filter::All(list) => list,
            one => vec![one],
        };
        Filter::all(affixes.into_iter().chain(self.more.iter().cloned()))
    }
}

/// Reads the `Filter` of a configuration by itself, in XML (`<Filter>`) or JSON (`{"Key": …}`); the first character tells
/// which. Of the options `filter_values` and `extensions` matter.
///
/// # Errors
/// [`crate::ErrorKind::InvalidConfig`] with line and column, as for a whole document.
pub fn parse_s3_filter(text: &str, options: &NotificationOptions) -> Result<Filter> {
    let read = || -> Located<Filter> {
        let ceph = options.extensions == Extensions::Ceph;
        let rules = match text.trim_start().chars().next() {
            _ if text.len() > DOCUMENT_BYTES_MAX => {
                let error = format!("the filter has {} bytes, more than {DOCUMENT_BYTES_MAX}", text.len());
                return Err((0, Error::invalid_config(error).remedy("is it the right text?")));
            }
            Some('<') => xml::parse_filter(text, ceph)?,
            Some('{') => json::parse_filter(text, ceph)?,
            _ => {
                let error = Error::invalid_config("this is no filter of a notification document");
                return Err((0, error.remedy("write XML (`<Filter>`) or JSON (`{\"Key\": {\"FilterRules\": …}}`)")));
            }
        };
        let filter = Affixes::of(&rules, options)?.filter();
        filter.validate().map_err(|e| (0, e))?;
        Ok(filter)
    };
    read().map_err(|(offset, e)| e.at(Text::new("filter", text).place(offset)))
}

/// A rule of a document, with where its parts stand.
#[derive(Clone, Debug)]
pub(crate) struct LocatedRule {
    pub(crate) rule: Rule,
    affixes: Affixes,
    pub(crate) offset: usize,
    pub(crate) event_offsets: Vec<usize>,
    pub(crate) destination_offset: usize,
}

impl Notification<'_> {
    /// The rules of the document, in its order; none if it is empty.
    ///
    /// A rule without an id gets one that is made from its contents, so that it stays the same when the document is
    /// read again.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidConfig`] with the document's name, line and column, for anything that is not
    /// understood: syntax, unknown elements and fields, unknown event types, ARNs that lead nowhere, filter rules that
    /// are doubled or not known, double ids, and overlaps if they are not allowed.
    pub fn rules(&self) -> Result<Vec<Rule>> {
        let place = Text::new(self.name, self.text);
        let rules = self.located_rules().map_err(|(offset, e)| e.at(place.place(offset)))?;
        Ok(rules.into_iter().map(|r| r.rule).collect())
    }

    pub(crate) fn located_rules(&self) -> Located<Vec<LocatedRule>> {
        check_bucket(self.bucket).map_err(|e| (0, e.s3(S3Code::InvalidBucketName)))?;
        let document = self.document().map_err(|(offset, e)| (offset, e.s3(S3Code::MalformedXml)))?;
        let mut rules = Vec::new();
        let mut ids = HashSet::new();
        for entry in &document.entries {
            let rule = self.rule(entry, &mut ids)?;
            rules.push(rule);
        }
        if self.options.overlap == Overlap::StrictAws {
            self.check_overlap(&rules)?;
        }
        if let Some(offset) = document.event_bridge {
            rules.push(self.event_bridge_rule(offset, &ids)?);
        }
        Ok(rules)
    }

    fn document(&self) -> Located<Document> {
        let text = self.text.strip_prefix('\u{feff}').unwrap_or(self.text);
        let skipped = self.text.len() - text.len();
        if text.len() > DOCUMENT_BYTES_MAX {
            let error =
                Error::invalid_config(format!("the document has {} bytes, more than {DOCUMENT_BYTES_MAX}", text.len()));
            let error = error.remedy("a bucket needs fewer rules; split them among buckets or use [[rule]]");
            return Err((0, error.s3(S3Code::EntityTooLarge)));
        }
        let format = match (self.format, text.trim_start().chars().next()) {
            (_, None) => {
                let error = Error::invalid_config("the document has nothing in it");
                return Err((
                    0,
                    error.remedy("to switch notifications off, write `<NotificationConfiguration/>` or `{}`"),
                ));
            }
            (Some(format), _) => format,
            (None, Some('<')) => Format::Xml,
            (None, Some('{')) => Format::Json,
            (None, Some(c)) => {
                let error = Error::invalid_config(format!("the document begins with `{}`", c.escape_debug()));
                return Err((skipped, error.remedy("write XML (`<NotificationConfiguration>`) or JSON (`{`)")));
            }
        };
        let ceph = self.options.extensions == Extensions::Ceph;
        let document = match format {
            Format::Xml => xml::parse(text, ceph),
            Format::Json => json::parse(text, ceph),
        };
        document.map(|d| d.shifted(skipped)).map_err(|(offset, e)| (offset + skipped, e))
    }

    /// How errors name a configuration.
    fn label(&self, entry: &Entry) -> String {
        match &entry.id {
            Some(id) => format!("bucket `{}`, configuration `{}`", self.bucket, id.text),
            None => format!("bucket `{}`, configuration without id", self.bucket),
        }
    }

    fn rule(&self, entry: &Entry, ids: &mut HashSet<String>) -> Located<LocatedRule> {
        let at = |offset: usize| move |e: Error| (offset, e.at(self.label(entry)));
        let destination = self.arns.resolve(&entry.arn.text).map_err(at(entry.arn.offset))?;
        let affixes = Affixes::of(&entry.filter, self.options).map_err(|(offset, e)| at(offset)(e))?;
        let mut rule = Rule {
            bucket: Some(self.bucket.to_owned()),
            destinations: vec![destination.to_owned()],
            repeat: self.options.overlap == Overlap::AllowAll,
            filter: affixes.filter(),
            document: Some(Arc::new(entry.as_written())),
            ..Rule::default()
        };
        if entry.events.is_empty() {
            let error = Error::invalid_config("the configuration names no event");
            return Err(at(entry.offset)(error.remedy("name at least one, such as `s3:ObjectCreated:*`")));
        }
        for event in &entry.events {
            rule.events.add(&event.text, self.types).map_err(at(event.offset))?;
            rule.event_names.push(event.text.clone());
        }
        rule.id = match &entry.id {
            Some(id) => {
                if id.text.len() > RULE_ID_BYTES_MAX || id.text.chars().any(char::is_control) {
                    let error =
                        Error::invalid_config(format!("the id is not 1 to {RULE_ID_BYTES_MAX} printable bytes"));
                    return Err(at(id.offset)(error.remedy("choose a shorter, printable id")));
                }
                if ids.contains(&id.text) {
                    let error = Error::invalid_config("another configuration has the same id");
                    return Err(at(id.offset)(error.remedy("rename one of them, or leave the id out")));
                }
                id.text.clone()
            }
            None => made_id(entry, ids),
        };
        ids.insert(rule.id.clone());
        Ok(LocatedRule {
            rule,
            affixes,
            offset: entry.offset,
            event_offsets: entry.events.iter().map(|e| e.offset).collect(),
            destination_offset: entry.arn.offset,
        })
    }

    fn event_bridge_rule(&self, offset: usize, ids: &HashSet<String>) -> Located<LocatedRule> {
        let at = |e: Error| (offset, e.at(format!("bucket `{}`, EventBridgeConfiguration", self.bucket)));
        let Some(name) = &self.options.event_bridge else {
            let error = Error::invalid_config("no destination is named for EventBridgeConfiguration");
            return Err(at(error.remedy("set `event_bridge = \"DESTINATION\"` beside the document's file")));
        };
        if !self.arns.has(name) {
            let error = Error::invalid_config(format!("unknown destination `{name}`"));
            return Err(at(error.remedy(suggest("destination", name, self.arns.destinations()))));
        }
        if ids.contains(EVENT_BRIDGE_ID) {
            let error = Error::invalid_config(format!("another configuration has the id `{EVENT_BRIDGE_ID}`"));
            return Err(at(error.remedy("rename that one")));
        }
        let mut rule = Rule::new(EVENT_BRIDGE_ID, EVENT_BRIDGE_EVENTS, self.types).map_err(at)?;
        rule.bucket = Some(self.bucket.to_owned());
        rule.destinations = vec![name.clone()];
        rule.repeat = self.options.overlap == Overlap::AllowAll;
        let entry = DocumentEntry { kind: EntryKind::EventBridge, arn: String::new(), filter: Vec::new() };
        rule.document = Some(Arc::new(entry));
        let event_offsets = vec![offset; rule.event_names.len()];
        Ok(LocatedRule { rule, affixes: Affixes::default(), offset, event_offsets, destination_offset: offset })
    }

    fn check_overlap(&self, rules: &[LocatedRule]) -> Located<()> {
        for (i, later) in rules.iter().enumerate() {
            for earlier in &rules[..i] {
                if let Some(shared) = overlap(earlier, later) {
                    let error = Error::invalid_config(format!(
                        "the configuration is ambiguous: `{}` and `{}` share {shared}",
                        earlier.rule.id, later.rule.id
                    ))
                    .at(format!("bucket `{}`, configuration `{}`", self.bucket, later.rule.id))
                    .remedy("make their events, prefixes or suffixes differ, or set overlap = \"allow-dedupe\"");
                    return Err((later.offset, error));
                }
            }
        }
        Ok(())
    }
}

impl Entry {
    /// What the document is written from again.
    fn as_written(&self) -> DocumentEntry {
        let rule = |r: &FilterRule| DocumentFilterRule {
            list: r.list,
            // The case of the others does not count.
            name: if r.list == FilterList::Tags { r.name.text.clone() } else { r.name.text.to_ascii_lowercase() },
            value: r.value.text.clone(),
            out: r.sense.as_ref().is_some_and(|s| s.text == "OUT"),
        };
        let filter = self.filter.iter().map(rule).collect();
        DocumentEntry { kind: self.kind, arn: self.arn.text.clone(), filter }
    }
}

impl Document {
    fn shifted(mut self, by: usize) -> Document {
        for e in &mut self.entries {
            e.offset += by;
            e.arn.offset += by;
            let filter = e.filter.iter_mut().flat_map(|r| [&mut r.name, &mut r.value].into_iter().chain(&mut r.sense));
            for spot in e.id.iter_mut().chain(&mut e.events).chain(filter) {
                spot.offset += by;
            }
        }
        self.event_bridge = self.event_bridge.map(|offset| offset + by);
        self
    }
}

/// What two rules have in common if an event could be wanted by both in the sense of AWS, in words.
fn overlap(a: &LocatedRule, b: &LocatedRule) -> Option<String> {
    let (p, q) = (&a.affixes.prefix, &b.affixes.prefix);
    let (s, t) = (&a.affixes.suffix, &b.affixes.suffix);
    let (a, b) = (&a.rule, &b.rule);
    let prefixes = p.starts_with(q) || q.starts_with(p);
    let suffixes = s.ends_with(t) || t.ends_with(s);
    if !prefixes || !suffixes {
        return None;
    }
    let known = a.events.known().find(|t| b.events.contains((*t).into())).map(KnownType::name);
    let custom = || {
        a.events.custom().find_map(|x| {
            let stem = |p: &str| p.strip_suffix('*').map(str::to_owned);
            b.events.custom().find_map(|y| match (stem(x), stem(y)) {
                (Some(m), Some(n)) if m.starts_with(&n) => Some(x.to_owned()),
                (Some(m), Some(n)) if n.starts_with(&m) => Some(y.to_owned()),
                (Some(m), None) if y.starts_with(&m) => Some(y.to_owned()),
                (None, Some(n)) if x.starts_with(&n) => Some(x.to_owned()),
                (None, None) if x == y => Some(x.to_owned()),
                _ => None,
            })
        })
    };
    let event = known.map(str::to_owned).or_else(custom)?;
    let mut words = format!("event `{event}`");
    for (what, a, b) in [("prefixes", p, q), ("suffixes", s, t)] {
        let show = |v: &[u8]| {
            if v.is_empty() { "none".to_owned() } else { format!("`{}`", v.escape_ascii()) }
        };
        let _ = write!(words, ", {what} {} and {}", show(a), show(b));
    }
    Some(words)
}

/// An id made from the contents of a configuration, different from those in `taken`.
fn made_id(entry: &Entry, taken: &HashSet<String>) -> String {
    let mut events: Vec<&str> = entry.events.iter().map(|e| e.text.as_str()).collect();
    events.sort_unstable();
    let mut filter: Vec<(String, &str)> = entry
        .filter
        .iter()
        .map(|r| {
            let name = match r.list {
                FilterList::Key => r.name.text.to_ascii_lowercase(),
                FilterList::Metadata => format!("metadata {}", r.name.text.to_ascii_lowercase()),
                FilterList::Tags => format!("tags {}", r.name.text),
            };
            let out = r.sense.as_ref().is_some_and(|s| s.text == "OUT");
            (if out { format!("{name} out") } else { name }, r.value.text.as_str())
        })
        .collect();
    filter.sort_unstable();
    let mut hash = xxhash_rust::xxh3::Xxh3::new();
    let mut add = |s: &str| {
        hash.update(&(s.len() as u64).to_le_bytes());
        hash.update(s.as_bytes());
    };
    add(&entry.arn.text);
    events.iter().for_each(|e| add(e));
    add("");
    for (name, value) in &filter {
        add(name);
        add(value);
    }
    let id = format!("tidewire-{:016x}", hash.digest());
    // The same configuration twice in one document.
    (1..).map(|n| if n == 1 { id.clone() } else { format!("{id}-{n}") }).find(|id| !taken.contains(id)).unwrap_or(id)
}

/// The remedy for an element or field that is not known.
fn unknown_part(error: Error, name: &str, known: &[&str]) -> Error {
    match name {
        "S3Metadata" | "S3Tags" | "Metadata" | "Tags" => {
            error.remedy("filters on metadata and tags are not understood in documents of S3; allow what Ceph has with extensions = \"ceph\"")
        }
        _ => error.remedy(suggest("name", name, known.iter().copied())),
    }
}

#[cfg(test)]
mod tests;
