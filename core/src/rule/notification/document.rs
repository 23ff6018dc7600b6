//! The way back: from rules to the document that they came from.

use quick_xml::escape::escape;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::Format;
use crate::filter::{Field, Filter, Test};
use crate::rule::Rule;

/// What a rule was in the notification document of S3 that it came from, so that the document can be given back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct DocumentEntry {
    /// Its element.
    pub kind: EntryKind,
    /// The ARN, as written; empty for [`EntryKind::EventBridge`].
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub arn: String,
    /// The rules of its filter, with their values as written.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub filter: Vec<DocumentFilterRule>,
}

/// The elements that rules come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EntryKind {
    /// `TopicConfiguration`.
    Topic,
    /// `QueueConfiguration`.
    Queue,
    /// `CloudFunctionConfiguration`, in JSON `LambdaFunctionConfigurations`.
    Function,
    /// `EventBridgeConfiguration`.
    EventBridge,
}

/// One rule of a filter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct DocumentFilterRule {
    /// What it is about.
    #[serde(default, skip_serializing_if = "FilterList::is_key")]
    pub list: FilterList,
    /// `prefix`, `suffix`, `regex`, or the name of the metadata or the tag.
    pub name: String,
    /// Its value, as written.
    pub value: String,
    /// Whether it is negated (`OUT`, of Ceph).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub out: bool,
}

/// The lists that rules of a filter stand in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FilterList {
    /// `S3Key`.
    #[default]
    Key,
    /// `S3Metadata`, of Ceph.
    Metadata,
    /// `S3Tags`, of Ceph.
    Tags,
}

impl FilterList {
    fn is_key(&self) -> bool {
        *self == FilterList::Key
    }

    /// How XML and JSON call it.
    fn names(self) -> (&'static str, &'static str) {
        match self {
            FilterList::Key => ("S3Key", "Key"),
            FilterList::Metadata => ("S3Metadata", "Metadata"),
            FilterList::Tags => ("S3Tags", "Tags"),
        }
    }
}

impl EntryKind {
    /// How XML calls the element and what is in it that has the ARN, and how JSON does.
    fn names(self) -> [(&'static str, &'static str); 2] {
        match self {
            EntryKind::Topic => [("TopicConfiguration", "Topic"), ("TopicConfigurations", "TopicArn")],
            EntryKind::Queue => [("QueueConfiguration", "Queue"), ("QueueConfigurations", "QueueArn")],
            EntryKind::Function => {
                [("CloudFunctionConfiguration", "CloudFunction"), ("LambdaFunctionConfigurations", "LambdaFunctionArn")]
            }
            EntryKind::EventBridge => [("EventBridgeConfiguration", ""), ("EventBridgeConfiguration", "")],
        }
    }
}

/// The document that says what these rules of one bucket say, and the ids of those that no document can say.
///
/// Rules that came from a document stand in it as they did there. Others do if they have one destination, whose ARN is
/// then `arn:tidewire:events:::NAME`, and nothing in their filter but one prefix and one suffix. XML has no way to write some
/// control characters, which JSON has.
pub(crate) fn write<'r>(rules: impl IntoIterator<Item = &'r Rule>, format: Format) -> (String, Vec<String>) {
    let (mut entries, mut left_out) = (Vec::new(), Vec::new());
    for rule in rules {
        let entry = rule.document.as_deref().cloned().or_else(|| made(rule));
        match entry.filter(|entry| format == Format::Json || is_sayable(rule, entry)) {
            Some(entry) => entries.push((rule, entry)),
            None => left_out.push(rule.id.clone()),
        }
    }
    // As AWS has them, each kind by itself.
    let order = [EntryKind::Topic, EntryKind::Queue, EntryKind::Function, EntryKind::EventBridge];
    entries.sort_by_key(|(_, entry)| order.iter().position(|kind| *kind == entry.kind));
    let text = match format {
        Format::Xml => xml(&entries),
        Format::Json => json(&entries),
    };
    (text, left_out)
}

/// The entry that a rule could have come from.
fn made(rule: &Rule) -> Option<DocumentEntry> {
    let [destination] = &rule.destinations[..] else { return None };
    if rule.retain || rule.priority.is_some() {
        return None;
    }
    let parts = match &rule.filter {
        Filter::All(list) => &list[..],
        one => std::slice::from_ref(one),
    };
    let mut filter: Vec<DocumentFilterRule> = Vec::new();
    for part in parts {
        let (name, value) = match part {
            Filter::Is(Field::Key, Test::Prefix(text)) => ("prefix", text),
            Filter::Is(Field::Key, Test::Suffix(text)) => ("suffix", text),
            _ => return None,
        };
        if filter.iter().any(|rule| rule.name == name) {
            return None;
        }
        let value = str::from_utf8(value).ok()?.to_owned();
        filter.push(DocumentFilterRule { list: FilterList::Key, name: name.into(), value, out: false });
    }
    Some(DocumentEntry { kind: EntryKind::Queue, arn: format!("arn:tidewire:events:::{destination}"), filter })
}

/// Whether XML 1.0 has all characters of it, however they are written.
fn is_sayable(rule: &Rule, entry: &DocumentEntry) -> bool {
    let known =
        |c: char| matches!(c, '\t' | '\n' | '\r' | '\u{20}'..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..);
    let filter = entry.filter.iter().flat_map(|r| [&r.name, &r.value]);
    [&rule.id, &entry.arn].into_iter().chain(filter).all(|text| text.chars().all(known))
}

fn events(rule: &Rule) -> Vec<String> {
    if !rule.event_names.is_empty() {
        return rule.event_names.clone();
    }
    let known = rule.events.known().map(|t| t.name().to_owned());
    known.chain(rule.events.custom().map(str::to_owned)).collect()
}

/// The rules of the filter, each list by itself.
fn lists(entry: &DocumentEntry) -> impl Iterator<Item = (FilterList, Vec<&DocumentFilterRule>)> {
    let of = |list| (list, entry.filter.iter().filter(|r| r.list == list).collect::<Vec<_>>());
    [FilterList::Key, FilterList::Metadata, FilterList::Tags].map(of).into_iter().filter(|(_, rules)| !rules.is_empty())
}

/// As AWS writes them, who takes them in any case.
fn shown(rule: &DocumentFilterRule) -> &str {
    match (rule.list, rule.name.as_str()) {
        (FilterList::Key, "prefix") => "Prefix",
        (FilterList::Key, "suffix") => "Suffix",
        (_, name) => name,
    }
}

fn xml(entries: &[(&Rule, DocumentEntry)]) -> String {
    let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    out.push_str("<NotificationConfiguration xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">");
    let leaf = |out: &mut String, name: &str, text: &str| {
        // A line end would be read as a blank.
        let text = escape(text).replace('\r', "&#13;").replace('\n', "&#10;").replace('\t', "&#9;");
        out.push_str(&format!("<{name}>{text}</{name}>"));
    };
    for (rule, entry) in entries {
        let [(element, arn), _] = entry.kind.names();
        if entry.kind == EntryKind::EventBridge {
            out.push_str(&format!("<{element}/>"));
            continue;
        }
        out.push_str(&format!("<{element}>"));
        leaf(&mut out, "Id", &rule.id);
        leaf(&mut out, arn, &entry.arn);
        for event in events(rule) {
            leaf(&mut out, "Event", &event);
        }
        if !entry.filter.is_empty() {
            out.push_str("<Filter>");
            for (list, rules) in lists(entry) {
                let (name, _) = list.names();
                out.push_str(&format!("<{name}>"));
                for rule in rules {
                    out.push_str("<FilterRule>");
                    leaf(&mut out, "Name", shown(rule));
                    leaf(&mut out, "Value", &rule.value);
                    if rule.out {
                        leaf(&mut out, "Type", "OUT");
                    }
                    out.push_str("</FilterRule>");
                }
                out.push_str(&format!("</{name}>"));
            }
            out.push_str("</Filter>");
        }
        out.push_str(&format!("</{element}>"));
    }
    out.push_str("</NotificationConfiguration>");
    out
}

fn json(entries: &[(&Rule, DocumentEntry)]) -> String {
    let mut root = Map::new();
    for (rule, entry) in entries {
        let [_, (list, arn)] = entry.kind.names();
        if entry.kind == EntryKind::EventBridge {
            root.insert(list.into(), json!({}));
            continue;
        }
        let mut one = json!({ "Id": rule.id, arn: entry.arn, "Events": events(rule) });
        let mut filter = Map::new();
        for (list, rules) in lists(entry) {
            let rules = rules.into_iter().map(|rule| {
                let mut one = json!({ "Name": shown(rule), "Value": rule.value });
                if rule.out {
                    one["Type"] = "OUT".into();
                }
                one
            });
            filter.insert(list.names().1.into(), json!({ "FilterRules": rules.collect::<Vec<_>>() }));
        }
        if !filter.is_empty() {
            one["Filter"] = Value::Object(filter);
        }
        if let Value::Array(all) = root.entry(list).or_insert_with(|| json!([])) {
            all.push(one);
        }
    }
    Value::Object(root).to_string()
}
