//! The JSON form: `put-bucket-notification-configuration` of the AWS tools.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Document, Entry, EntryKind, FilterList, FilterRule, Located, Spot, unknown_part};
use crate::error::Error;
use crate::rule::place::{offset_of, unknown_name};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "PascalCase")]
struct Root<'a> {
    #[serde(borrow, default)]
    topic_configurations: Vec<&'a RawValue>,
    #[serde(borrow, default)]
    queue_configurations: Vec<&'a RawValue>,
    #[serde(borrow, default)]
    lambda_function_configurations: Vec<&'a RawValue>,
    #[serde(borrow)]
    event_bridge_configuration: Option<&'a RawValue>,
}

macro_rules! configuration {
    ($name:ident, $arn:literal) => {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields, rename_all = "PascalCase")]
        struct $name<'a> {
            #[serde(borrow)]
            id: Option<&'a RawValue>,
            #[serde(borrow, rename = $arn)]
            arn: &'a RawValue,
            #[serde(borrow)]
            events: Vec<&'a RawValue>,
            #[serde(borrow)]
            filter: Option<&'a RawValue>,
        }

        impl<'a> $name<'a> {
            fn entry(doc: &'a str, raw: &'a RawValue, ceph: bool) -> Located<Entry> {
                let c: $name<'a> = part(doc, raw)?;
                Ok(Entry {
                    kind: EntryKind::$name,
                    offset: offset(doc, raw),
                    id: c.id.map(|id| text(doc, id)).transpose()?.filter(|id| !id.text.is_empty()),
                    arn: text(doc, c.arn)?,
                    events: c.events.iter().map(|e| text(doc, e)).collect::<Located<_>>()?,
                    filter: c.filter.map(|f| filter(doc, f, ceph)).transpose()?.unwrap_or_default(),
                })
            }
        }
    };
}

configuration!(Topic, "TopicArn");
configuration!(Queue, "QueueArn");
configuration!(Function, "LambdaFunctionArn");

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "PascalCase")]
struct RawFilter<'a> {
    #[serde(borrow)]
    key: Option<RawKey<'a>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "PascalCase")]
struct RawKey<'a> {
    #[serde(borrow, default)]
    filter_rules: Vec<RawRule<'a>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "PascalCase")]
struct RawRule<'a> {
    #[serde(borrow)]
    name: &'a RawValue,
    #[serde(borrow)]
    value: &'a RawValue,
}

/// As [`RawFilter`], with what Ceph has more.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "PascalCase")]
struct CephFilter<'a> {
    #[serde(borrow)]
    key: Option<CephRules<'a>>,
    #[serde(borrow)]
    metadata: Option<CephRules<'a>>,
    #[serde(borrow)]
    tags: Option<CephRules<'a>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "PascalCase")]
struct CephRules<'a> {
    #[serde(borrow, default)]
    filter_rules: Vec<CephRule<'a>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "PascalCase")]
struct CephRule<'a> {
    #[serde(borrow)]
    name: &'a RawValue,
    #[serde(borrow)]
    value: &'a RawValue,
    #[serde(borrow)]
    r#type: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

pub(super) fn parse(doc: &str, ceph: bool) -> Located<Document> {
    let root: Root<'_> = serde_json::from_str(doc).map_err(|e| located(0, doc, &e))?;
    let mut entries = Vec::new();
    for raw in root.topic_configurations {
        entries.push(Topic::entry(doc, raw, ceph)?);
    }
    for raw in root.queue_configurations {
        entries.push(Queue::entry(doc, raw, ceph)?);
    }
    for raw in root.lambda_function_configurations {
        entries.push(Function::entry(doc, raw, ceph)?);
    }
    let event_bridge = match root.event_bridge_configuration {
        Some(raw) => {
            part::<Nothing>(doc, raw)?;
            Some(offset(doc, raw))
        }
        None => None,
    };
    Ok(Document { entries, event_bridge })
}

/// The rules of a `Filter` that stands by itself.
pub(super) fn parse_filter(doc: &str, ceph: bool) -> Located<Vec<FilterRule>> {
    let raw: &RawValue = serde_json::from_str(doc).map_err(|e| located(0, doc, &e))?;
    filter(doc, raw, ceph)
}

/// Raw values are slices of the document, so their address tells their place.
fn offset(doc: &str, raw: &RawValue) -> usize {
    (raw.get().as_ptr() as usize).saturating_sub(doc.as_ptr() as usize)
}

fn part<'a, T: Deserialize<'a>>(doc: &str, raw: &'a RawValue) -> Located<T> {
    serde_json::from_str(raw.get()).map_err(|e| located(offset(doc, raw), raw.get(), &e))
}

fn text(doc: &str, raw: &RawValue) -> Located<Spot> {
    let offset = offset(doc, raw);
    match serde_json::from_str(raw.get()) {
        Ok(text) => Ok(Spot { text, offset }),
        Err(_) => Err((offset, Error::invalid_config("this is not a string").remedy("write it in double quotes"))),
    }
}

fn filter(doc: &str, raw: &RawValue, ceph: bool) -> Located<Vec<FilterRule>> {
    let rule = |list, name, value, sense: Option<&RawValue>| {
        let sense = sense.map(|s| text(doc, s)).transpose()?;
        Ok(FilterRule { list, name: text(doc, name)?, value: text(doc, value)?, sense })
    };
    if !ceph {
        let filter: RawFilter<'_> = part(doc, raw)?;
        let rules = filter.key.map(|k| k.filter_rules).unwrap_or_default();
        return rules.iter().map(|r| rule(FilterList::Key, r.name, r.value, None)).collect();
    }
    let filter: CephFilter<'_> = part(doc, raw)?;
    let lists =
        [(FilterList::Key, filter.key), (FilterList::Metadata, filter.metadata), (FilterList::Tags, filter.tags)];
    let rules =
        lists.into_iter().flat_map(|(list, r)| r.unwrap_or_default().filter_rules.into_iter().map(move |r| (list, r)));
    rules.map(|(list, r)| rule(list, r.name, r.value, r.r#type)).collect()
}

/// An error of serde in `part`, which begins at `start` of the document.
#[cold]
fn located(start: usize, part: &str, e: &serde_json::Error) -> (usize, Error) {
    let full = e.to_string();
    let message = full.rsplit_once(" at line ").map_or(full.as_str(), |(m, _)| m);
    let mut offset = start + offset_of(part, e.line(), e.column());
    let error = match unknown_name(message) {
        Some((name, known)) => {
            // Serde points behind the name.
            offset = offset.saturating_sub(name.len() + 1);
            unknown_part(Error::invalid_config(format!("unknown field `{name}`")), name, &known)
        }
        None if message.starts_with("missing field") => {
            offset = start;
            Error::invalid_config(message).remedy("add it")
        }
        None => Error::invalid_config(format!("this is not the JSON of a notification document: {message}"))
            .remedy("compare it with the output of `aws s3api get-bucket-notification-configuration`"),
    };
    (offset, error)
}
