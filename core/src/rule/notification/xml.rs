//! The XML form: the body of `PutBucketNotificationConfiguration`.
//!
//! Read into a small tree with the place of each element, then understood strictly.

use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};

use super::{Document, Entry, EntryKind, FilterList, FilterRule, Located, Spot, unknown_part};
use crate::error::Error;

/// How deep elements may nest; the deepest known path has six.
const DEPTH_MAX: usize = 16;

struct Element {
    name: String,
    offset: usize,
    children: Vec<Element>,
    text: String,
    /// Where the text begins.
    text_offset: usize,
}

pub(super) fn parse(doc: &str, ceph: bool) -> Located<Document> {
    let root = tree(doc)?;
    if root.name != "NotificationConfiguration" {
        let error = Error::invalid_config(format!("the document's element is `{}`", root.name));
        return Err((root.offset, error.remedy("write <NotificationConfiguration>")));
    }
    const KNOWN: &[&str] =
        &["TopicConfiguration", "QueueConfiguration", "CloudFunctionConfiguration", "EventBridgeConfiguration"];
    let mut document = Document::default();
    for child in root.elements()? {
        let (kind, arn) = match child.name.as_str() {
            "TopicConfiguration" => (EntryKind::Topic, "Topic"),
            "QueueConfiguration" => (EntryKind::Queue, "Queue"),
            "CloudFunctionConfiguration" => (EntryKind::Function, "CloudFunction"),
            "EventBridgeConfiguration" => {
                if let Some(inner) = child.elements()?.first() {
                    return Err(inner.unknown(&[]));
                }
                if document.event_bridge.replace(child.offset).is_some() {
                    return Err(child.twice());
                }
                continue;
            }
            _ => return Err(child.unknown(KNOWN)),
        };
        document.entries.push(entry(child, kind, arn, ceph)?);
    }
    Ok(document)
}

/// The rules of a `Filter` that stands by itself.
pub(super) fn parse_filter(doc: &str, ceph: bool) -> Located<Vec<FilterRule>> {
    let root = tree(doc)?;
    if root.name != "Filter" {
        let error = Error::invalid_config(format!("the element is `{}`", root.name));
        return Err((root.offset, error.remedy("write <Filter>")));
    }
    read_filter(&root, ceph)
}

fn entry(element: &Element, kind: EntryKind, arn_name: &str, ceph: bool) -> Located<Entry> {
    let known = ["Id", arn_name, "Event", "Filter"];
    let (mut id, mut arn, mut filter, mut events) = (None, None, None, Vec::new());
    for child in element.elements()? {
        match child.name.as_str() {
            "Id" => child.once(&mut id, child.trimmed()?)?,
            name if name == arn_name => child.once(&mut arn, child.trimmed()?)?,
            "Event" => events.push(child.trimmed()?),
            "Filter" => child.once(&mut filter, read_filter(child, ceph)?)?,
            _ => return Err(child.unknown(&known)),
        }
    }
    let Some(arn) = arn else {
        let error = Error::invalid_config(format!("`{}` has no `{arn_name}`", element.name));
        return Err((element.offset, error.remedy(format!("add <{arn_name}> with the ARN of a destination"))));
    };
    Ok(Entry {
        kind,
        offset: element.offset,
        id: id.filter(|id| !id.text.is_empty()),
        arn,
        events,
        filter: filter.unwrap_or_default(),
    })
}

fn read_filter(element: &Element, ceph: bool) -> Located<Vec<FilterRule>> {
    let (lists, parts): (&[&str], &[&str]) = if ceph {
        (&["S3Key", "S3Metadata", "S3Tags"], &["Name", "Value", "Type"])
    } else {
        (&["S3Key"], &["Name", "Value"])
    };
    let mut rules = Vec::new();
    let mut seen = [None; 3];
    for list in element.elements()? {
        let (kind, slot) = match list.name.as_str() {
            "S3Key" => (FilterList::Key, &mut seen[0]),
            "S3Metadata" if ceph => (FilterList::Metadata, &mut seen[1]),
            "S3Tags" if ceph => (FilterList::Tags, &mut seen[2]),
            _ => return Err(list.unknown(lists)),
        };
        list.once(slot, ())?;
        for rule in list.elements()? {
            if rule.name != "FilterRule" {
                return Err(rule.unknown(&["FilterRule"]));
            }
            let (mut name, mut value, mut sense) = (None, None, None);
            for child in rule.elements()? {
                match child.name.as_str() {
                    "Name" => child.once(&mut name, child.trimmed()?)?,
                    // Not trimmed: keys may begin and end with spaces.
                    "Value" => child.once(&mut value, child.whole()?)?,
                    "Type" if ceph => child.once(&mut sense, child.trimmed()?)?,
                    _ => return Err(child.unknown(parts)),
                }
            }
            match (name, value) {
                (Some(name), Some(value)) => rules.push(FilterRule { list: kind, name, value, sense }),
                _ => {
                    let error = Error::invalid_config("`FilterRule` lacks its name or its value");
                    return Err((rule.offset, error.remedy("add <Name> and <Value>; an empty value matches all")));
                }
            }
        }
    }
    Ok(rules)
}

impl Element {
    /// The children of an element that has no text of its own.
    fn elements(&self) -> Located<&[Element]> {
        if self.text.trim().is_empty() {
            return Ok(&self.children);
        }
        let lead = self.text.len() - self.text.trim_start().len();
        let error = Error::invalid_config(format!("`{}` has text in it", self.name));
        Err((self.text_offset + lead, error.remedy("write elements there, or leave the text out")))
    }

    fn whole(&self) -> Located<Spot> {
        match self.children.first() {
            Some(child) => Err(child.unknown(&[])),
            None => Ok(Spot { text: self.text.clone(), offset: self.text_offset }),
        }
    }

    fn trimmed(&self) -> Located<Spot> {
        let Spot { text, offset } = self.whole()?;
        let lead = text.len() - text.trim_start().len();
        Ok(Spot { text: text.trim().to_owned(), offset: offset + lead })
    }

    fn once<T>(&self, slot: &mut Option<T>, value: T) -> Located<()> {
        if slot.replace(value).is_some() { Err(self.twice()) } else { Ok(()) }
    }

    #[cold]
    fn twice(&self) -> (usize, Error) {
        (self.offset, Error::invalid_config(format!("`{}` is given twice", self.name)).remedy("keep one"))
    }

    #[cold]
    fn unknown(&self, known: &[&str]) -> (usize, Error) {
        let error = Error::invalid_config(format!("unknown element `{}`", self.name));
        let error = match known {
            [] => error.remedy("leave it out: no elements belong here"),
            _ => unknown_part(error, &self.name, known),
        };
        (self.offset, error)
    }
}

fn tree(doc: &str) -> Located<Element> {
    let mut reader = Reader::from_str(doc);
    let mut open: Vec<Element> = Vec::new();
    let mut root: Option<Element> = None;
    loop {
        let offset = reader.buffer_position() as usize;
        let event = reader.read_event().map_err(|e| (reader.error_position() as usize, syntax(e)))?;
        match event {
            Event::Start(start) => {
                if open.len() >= DEPTH_MAX {
                    let error = Error::invalid_config(format!("elements nest deeper than {DEPTH_MAX}"));
                    return Err((offset, error.remedy("compare it with the documents of S3")));
                }
                let text_offset = reader.buffer_position() as usize;
                open.push(element(&start, offset, text_offset, root.is_some() && open.is_empty())?);
            }
            Event::Empty(start) => {
                let element = element(&start, offset, offset, root.is_some() && open.is_empty())?;
                close(element, &mut open, &mut root);
            }
            Event::End(_) => {
                if let Some(element) = open.pop() {
                    close(element, &mut open, &mut root);
                }
            }
            Event::Text(text) => add_text(&mut open, offset, &text.xml10_content())?,
            Event::CData(text) => add_text(&mut open, offset, &text.xml10_content())?,
            Event::GeneralRef(reference) => {
                let c = match reference.resolve_char_ref() {
                    Ok(Some(c)) => Some(c),
                    Ok(None) => match &*reference.xml10_content() {
                        "lt" => Some('<'),
                        "gt" => Some('>'),
                        "amp" => Some('&'),
                        "quot" => Some('"'),
                        "apos" => Some('\''),
                        _ => None,
                    },
                    Err(_) => None,
                };
                let Some(c) = c else {
                    let error = Error::invalid_config("an entity is not known here");
                    return Err((offset, error.remedy("write the character, or its number as in &#x26;")));
                };
                add_text(&mut open, offset, c.encode_utf8(&mut [0; 4]))?;
            }
            Event::DocType(_) => {
                let error = Error::invalid_config("the document has a DOCTYPE");
                return Err((offset, error.remedy("leave it out; S3 documents have none")));
            }
            Event::Comment(_) | Event::Decl(_) | Event::PI(_) => {}
            Event::Eof => {
                if let Some(element) = open.last() {
                    let error = Error::invalid_config(format!("element `{}` is not closed", element.name));
                    return Err((element.offset, error.remedy("the document may be cut off; close it")));
                }
                return root.ok_or_else(|| {
                    let error = Error::invalid_config("the document has no element");
                    (offset, error.remedy("write <NotificationConfiguration/> to switch notifications off"))
                });
            }
        }
    }
}

fn element(start: &BytesStart<'_>, offset: usize, text_offset: usize, second_root: bool) -> Located<Element> {
    let name = String::from(start.local_name().as_ref());
    if second_root {
        let error = Error::invalid_config(format!("`{name}` follows the end of the document"));
        return Err((offset, error.remedy("write one <NotificationConfiguration>")));
    }
    for attribute in start.attributes() {
        let attribute = attribute.map_err(|e| (offset, syntax(e)))?;
        let key: &str = attribute.key.as_ref();
        // Namespaces are accepted, whatever they are: tools write several, and none.
        if key != "xmlns" && !key.starts_with("xmlns:") && !key.starts_with("xsi:") {
            let error = Error::invalid_config(format!("unknown attribute `{key}` of `{name}`"));
            return Err((offset, error.remedy("leave it out; only xmlns is understood")));
        }
    }
    Ok(Element { name, offset, children: Vec::new(), text: String::new(), text_offset })
}

fn close(element: Element, open: &mut [Element], root: &mut Option<Element>) {
    match open.last_mut() {
        Some(parent) => parent.children.push(element),
        None => *root = Some(element),
    }
}

fn add_text(open: &mut [Element], offset: usize, text: &str) -> Located<()> {
    match open.last_mut() {
        Some(element) => {
            if element.text.is_empty() {
                element.text_offset = offset;
            }
            element.text.push_str(text);
            Ok(())
        }
        None if text.trim().is_empty() => Ok(()),
        None => {
            let error = Error::invalid_config("text stands outside of the document's element");
            Err((offset, error.remedy("write one <NotificationConfiguration>")))
        }
    }
}

#[cold]
fn syntax(e: impl std::fmt::Display) -> Error {
    Error::invalid_config(format!("this is not well-formed XML: {e}")).remedy("correct the syntax")
}
