//! Templates: records and headers that the operator writes, in the language of Jinja.
//!
//! A template sees one name, `event`. What the event does not have is not there, and a template that uses it fails; `is
//! defined` and `default` ask first. Values are escaped for what the template writes.

use std::fmt;
use std::io;
use std::sync::Arc;

use bytes::BytesMut;
use minijinja::value::{Enumerator, Object, Value};
use minijinja::{AutoEscape, Environment, ErrorKind, UndefinedBehavior};

use super::Format;
use crate::error::{Error, Result};
use crate::event::frame::{self, Field};
use crate::event::profile::{Choice, DeadNote, Profile, RecordContext, Story, text};
use crate::event::{Event, EventId, FrameView, KnownType, Origin, Priority, Sequencer};
use crate::rule::suggest;

/// The longest template, in bytes.
const TEMPLATE_BYTES_MAX: usize = 64 * 1024;
/// Instructions that one use of a template may take: some milliseconds.
const FUEL: u64 = 50_000;
/// What the one template of an environment is called.
const NAME: &str = "template";
const SAMPLE_BYTES_MAX: usize = 16 << 20;

/// How the values in a template are escaped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Escape {
    /// Each value becomes JSON, a string with its quotes; the whole must be one JSON value.
    #[default]
    Json,
    /// For XML and HTML.
    Xml,
    /// Not at all.
    None,
    /// As the value of a header: everything but visible ASCII is percent-encoded, and `"` and `%`.
    Header,
}

impl Escape {
    /// Those of records with their names in the configuration.
    pub const ALL: [(Escape, &'static str); 3] = [(Escape::Json, "json"), (Escape::Xml, "xml"), (Escape::None, "none")];

    /// Its name in the configuration.
    pub fn name(self) -> &'static str {
        Escape::ALL.iter().find(|(e, _)| *e == self).map_or("header", |(_, name)| name)
    }

    fn content_type(self) -> &'static str {
        match self {
            Escape::Json => "application/json",
            Escape::Xml => "application/xml",
            Escape::None | Escape::Header => "text/plain; charset=utf-8",
        }
    }
}

/// A template, compiled. Cheap to clone.
#[derive(Clone)]
pub struct Template(Arc<Compiled>);

struct Compiled {
    source: String,
    escape: Escape,
    content_type: String,
    environment: Environment<'static>,
}

impl PartialEq for Template {
    fn eq(&self, other: &Template) -> bool {
        let parts = |t: &'_ Template| (t.0.source.clone(), t.0.escape, t.0.content_type.clone());
        Arc::ptr_eq(&self.0, &other.0) || parts(self) == parts(other)
    }
}

impl Eq for Template {}

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Template")
            .field("escape", &self.0.escape)
            .field("content_type", &self.0.content_type)
            .field("source", &self.0.source)
            .finish()
    }
}

impl Template {
    /// Compiles a template and tries it on an event that has everything.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidConfig`] if it cannot work: its syntax, an unknown name, filter or function, or with
    /// [`Escape::Json`] something that is no JSON.
    pub fn new(source: impl Into<String>, escape: Escape) -> Result<Template> {
        let source = source.into();
        if source.is_empty() || source.len() > TEMPLATE_BYTES_MAX {
            return Err(Error::invalid_config(format!("the template has {} bytes", source.len()))
                .remedy(format!("write 1 to {TEMPLATE_BYTES_MAX} bytes")));
        }
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_fuel(Some(FUEL));
        environment.set_debug(true);
        environment.set_auto_escape_callback(move |_| match escape {
            Escape::Json => AutoEscape::Json,
            Escape::Xml => AutoEscape::Html,
            Escape::None | Escape::Header => AutoEscape::None,
        });
        if escape == Escape::Header {
            environment.set_formatter(|out, _, value| {
                let mut bytes = Vec::new();
                text::header_value(&mut bytes, &value.to_string());
                out.write_str(&String::from_utf8_lossy(&bytes)).map_err(|_| ErrorKind::WriteFailure.into())
            });
        }
        let broken = |e: &minijinja::Error| Error::invalid_config(format!("it cannot work: {}", explain(e)));
        environment
            .add_template_owned(NAME, source.clone())
            .map_err(|e| broken(&e).remedy("correct the syntax; it is that of Jinja"))?;
        let content_type = escape.content_type().to_owned();
        let template = Template(Arc::new(Compiled { source, escape, content_type, environment }));
        template.check()?;
        Ok(template)
    }

    /// With another media type than that of its escaping.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidConfig`] if it is none.
    pub fn with_content_type(self, content_type: impl Into<String>) -> Result<Template> {
        let content_type = content_type.into();
        let part = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&b));
        let legal = content_type.bytes().all(|b| (b' '..=b'~').contains(&b))
            && content_type.trim_end() == content_type
            && content_type.split(';').next().and_then(|t| t.split_once('/')).is_some_and(|(a, b)| part(a) && part(b));
        if !legal || content_type.len() > 255 {
            return Err(Error::invalid_config(format!("`{}` is no media type", content_type.escape_debug()))
                .at("content_type")
                .remedy("write it as application/json"));
        }
        let Compiled { source, escape, environment, .. } = &*self.0;
        let (source, escape, environment) = (source.clone(), *escape, environment.clone());
        Ok(Template(Arc::new(Compiled { source, escape, content_type, environment })))
    }

    /// The text that it was made from.
    pub fn source(&self) -> &str {
        &self.0.source
    }

    /// How values are escaped.
    pub fn escape(&self) -> Escape {
        self.0.escape
    }

    /// The media type of what it writes.
    pub fn content_type(&self) -> &str {
        &self.0.content_type
    }

    /// Whether it looks at this field of the event, or at all of it.
    fn uses(&self, field: &str) -> bool {
        let Ok(template) = self.0.environment.get_template(NAME) else { return true };
        let names = template.undeclared_variables(true);
        names.contains("event") || names.iter().any(|n| n.split('.').nth(1) == Some(field))
    }

    fn check(&self) -> Result<()> {
        let environment = &self.0.environment;
        let template = environment
            .get_template(NAME)
            .map_err(|e| Error::invalid_config(format!("it cannot work: {}", explain(&e))))?;
        let mut names: Vec<String> = template.undeclared_variables(true).into_iter().collect();
        names.sort();
        for name in &names {
            let mut path = name.split('.');
            let (root, field) = (path.next().unwrap_or_default(), path.next());
            if root != "event" {
                if environment.globals().any(|(g, _)| g == root) {
                    continue;
                }
                let e = Error::invalid_config(format!("it cannot work: there is no `{}`", root.escape_debug()));
                let near = if FIELDS.contains(&root) { format!("write `event.{root}`") } else { OF_EVENT.into() };
                return Err(e.remedy(near));
            }
            if let Some(field) = field
                && !FIELDS.contains(&field)
            {
                let e = Error::invalid_config(format!("it cannot work: an event has no `{}`", field.escape_debug()));
                return Err(e.remedy(suggest("field", field, FIELDS.iter().copied())));
            }
        }
        match self.render(&Value::from_object(Sample::new()), SAMPLE_BYTES_MAX) {
            Ok(text) if self.0.escape == Escape::Header => crate::rule::check_header("X", &text),
            Ok(_) => Ok(()),
            Err(reason) => {
                // The sample knows nothing of what the host's data are like.
                if self.uses("data") && reason.contains(INVALID_OPERATION) {
                    return Ok(());
                }
                let e = Error::invalid_config(format!("it cannot work, not even with an event that has all: {reason}"));
                Err(e.remedy(match self.0.escape {
                    Escape::Json if reason.contains(NO_JSON) => {
                        "write values without quotes, as in {\"key\": {{ event.key }}}; join text with ~"
                    }
                    _ => OF_EVENT,
                }))
            }
        }
    }

    /// Writes it for an event; why not, if it fails.
    pub(super) fn render(&self, event: &Value, bytes_max: usize) -> Result<String, String> {
        let template = self.0.environment.get_template(NAME).map_err(|e| explain(&e))?;
        let mut out = Limited { bytes: Vec::new(), left: bytes_max };
        let context = Value::from_pairs([("event", event.clone())]);
        let written = template.render_captured_to(context, &mut out).map(|_| ());
        if out.left == 0 && written.is_err() {
            return Err(format!("it gives more than {bytes_max} bytes"));
        }
        written.map_err(|e| explain(&e))?;
        if self.0.escape == Escape::Json && !text::is_json(&out.bytes) {
            return Err(NO_JSON.into());
        }
        String::from_utf8(out.bytes).map_err(|_| "it gives no UTF-8".into())
    }
}

const NO_JSON: &str = "what it gives is no JSON";
const INVALID_OPERATION: &str = "invalid operation";
const OF_EVENT: &str = "use `event.key`, `event.bucket` and the other fields of `event`";

/// What went wrong in a template, in one line.
fn explain(e: &minijinja::Error) -> String {
    let mut text = e.kind().to_string();
    let place = e.range().zip(e.template_source()).and_then(|(range, source)| source.get(range));
    if let Some(place) = place.map(str::trim).filter(|s| !s.is_empty() && s.len() <= 100 && !s.contains('\n')) {
        text = format!("`{place}`: {text}");
    }
    if let Some(detail) = e.detail() {
        text = format!("{text}: {detail}");
    }
    if let Some(line) = e.line() {
        text = format!("{text} (line {line})");
    }
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Takes so many bytes and no more.
struct Limited {
    bytes: Vec<u8>,
    left: usize,
}

impl io::Write for Limited {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() > self.left {
            self.left = 0;
            return Err(io::Error::other("too much"));
        }
        self.left -= bytes.len();
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What a template may ask of `event`.
const FIELDS: &[&str] = &[
    "id",
    "type",
    "time",
    "time_ns",
    "bucket",
    "key",
    "key_encoded",
    "version_id",
    "size",
    "etag",
    "requester",
    "source_ip",
    "request_id",
    "host_id",
    "region",
    "content_type",
    "method",
    "user_agent",
    "bucket_owner",
    "metadata",
    "tags",
    "data",
    "origin",
    "priority",
    "sequencer",
    "rule",
    "event_source",
    "record",
    "replay",
    "dead_letter",
];

/// A dead letter's story, owned.
#[derive(Debug, Clone)]
struct Note {
    destination: String,
    reason: String,
    attempts: u32,
    status: u16,
    given_up_ns: u64,
    hops: u8,
}

/// An event as templates see it. Fields are made when they are asked for.
#[derive(Debug)]
struct EventValue {
    frame: Vec<u8>,
    id: EventId,
    sequencer: Sequencer,
    rule: String,
    region: String,
    event_source: String,
    replay: Option<String>,
    note: Option<Note>,
    profile: Profile,
    metadata: Choice,
    tags: Choice,
    record_bytes_max: usize,
}

/// The event as a value of templates.
pub(super) fn event_value(
    format: &Format,
    profile: Profile,
    frame: &FrameView<'_>,
    cx: &RecordContext<'_>,
    story: &Story<'_>,
) -> Value {
    Value::from_object(EventValue {
        frame: frame.as_bytes().to_vec(),
        id: cx.id,
        sequencer: cx.sequencer,
        rule: cx.rule.to_owned(),
        region: cx.region.to_owned(),
        event_source: cx.source().to_owned(),
        replay: story.replay.map(str::to_owned),
        note: story.note.map(|n| Note {
            destination: n.destination.to_owned(),
            reason: n.reason.to_owned(),
            attempts: n.attempts,
            status: n.status,
            given_up_ns: n.given_up_ns,
            hops: n.hops,
        }),
        profile,
        metadata: format.metadata.clone(),
        tags: format.tags.clone(),
        record_bytes_max: format.record_bytes_max,
    })
}

fn time(ns: u64) -> Value {
    Value::from(String::from_utf8_lossy(&text::timestamp(ns)).into_owned())
}

fn map<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> Value {
    Value::from_pairs(pairs.map(|(name, value)| (name.to_owned(), Value::from(value))))
}

/// JSON as a value of templates. Nested as deep as data of hosts may be at most.
fn value_of(json: serde_json::Value) -> Value {
    use serde_json::Value as Json;
    match json {
        Json::Null => Value::from(()),
        Json::Bool(b) => b.into(),
        Json::Number(n) => match (n.as_u64(), n.as_i64()) {
            (Some(n), _) => n.into(),
            (None, Some(n)) => n.into(),
            (None, None) => n.as_f64().map_or_else(|| n.to_string().into(), Value::from),
        },
        Json::String(s) => s.into(),
        Json::Array(list) => list.into_iter().map(value_of).collect::<Vec<Value>>().into(),
        Json::Object(map) => Value::from_pairs(map.into_iter().map(|(name, value)| (name, value_of(value)))),
    }
}

impl EventValue {
    fn record(&self) -> Value {
        let cx = RecordContext {
            id: self.id,
            sequencer: self.sequencer,
            rule: &self.rule,
            region: &self.region,
            event_source: &self.event_source,
        };
        let note = self.note.as_ref().map(|n| DeadNote {
            destination: &n.destination,
            reason: &n.reason,
            attempts: n.attempts,
            status: n.status,
            given_up_ns: n.given_up_ns,
            hops: n.hops,
        });
        let story = Story { replay: self.replay.as_deref(), note: note.as_ref(), left_out: &[] };
        let (metadata, tags) = (self.metadata.clone(), self.tags.clone());
        let plain = Format { metadata, tags, record_bytes_max: self.record_bytes_max, ..Format::default() };
        let mut out = BytesMut::new();
        let view = FrameView::trusted(&self.frame);
        plain.write_fitting(&view, &story, &mut out, |shown, story, out| {
            self.profile.write_shown(&view, &cx, shown, out);
            self.profile.add(story, out);
        });
        // It is JSON, and goes into JSON as it is.
        Value::from_safe_string(String::from_utf8_lossy(&out).into_owned())
    }

    fn field(&self, name: &str) -> Option<Value> {
        let view = FrameView::trusted(&self.frame);
        let text_of = |field| Some(view.text(field)).filter(|s| !s.is_empty()).map(Value::from);
        match name {
            "id" => Some(self.id.to_string().into()),
            "type" => Some(view.event_type().name().into()),
            "time" => Some(time(view.time_ns())),
            "time_ns" => Some(view.time_ns().into()),
            "bucket" => text_of(Field::Bucket),
            // One that is not UTF-8 is there in its encoded form only: what is like it would be another key.
            "key" => std::str::from_utf8(view.key()).ok().filter(|k| !k.is_empty()).map(Value::from),
            "key_encoded" => {
                let mut out = Vec::new();
                text::encoded_key(&mut out, view.key());
                Some(String::from_utf8_lossy(&out).into_owned()).filter(|k| !k.is_empty()).map(Value::from)
            }
            "version_id" => text_of(Field::VersionId),
            "size" => view.size().map(Value::from),
            "etag" => text_of(Field::Etag),
            "requester" => text_of(Field::Requester),
            "source_ip" => text_of(Field::SourceIp),
            "request_id" => text_of(Field::RequestId),
            "host_id" => text_of(Field::HostId),
            "region" => text_of(Field::Region).or_else(|| Some(self.region.as_str().into())),
            "content_type" => text_of(Field::ContentType),
            "method" => text_of(Field::Method),
            "user_agent" => text_of(Field::UserAgent),
            "bucket_owner" => text_of(Field::BucketOwner),
            "metadata" => Some(map(self.metadata.of(view.metadata()))),
            "tags" => Some(map(self.tags.of(view.tags()))),
            "data" => {
                let data = view.field(Field::Data);
                let value = text::is_json(data).then(|| serde_json::from_slice::<serde_json::Value>(data).ok());
                value.flatten().map(value_of)
            }
            "origin" => Some(
                match view.origin() {
                    Origin::User => "user",
                    Origin::Replica => "replica",
                    Origin::Lifecycle => "lifecycle",
                }
                .into(),
            ),
            "priority" => Some(
                match view.priority() {
                    Priority::Low => "low",
                    Priority::Normal => "normal",
                    Priority::High => "high",
                }
                .into(),
            ),
            "sequencer" => Some(self.sequencer.to_string().into()),
            "rule" => Some(self.rule.as_str().into()),
            "event_source" => Some(self.event_source.as_str().into()),
            "record" => Some(self.record()),
            "replay" => self.replay.as_deref().map(Value::from),
            "dead_letter" => self.note.as_ref().map(|n| {
                Value::from_pairs([
                    ("destination", Value::from(n.destination.as_str())),
                    ("reason", n.reason.as_str().into()),
                    ("attempts", n.attempts.into()),
                    ("status", n.status.into()),
                    ("given_up_time", time(n.given_up_ns)),
                    ("hops", u32::from(n.hops).into()),
                ])
            }),
            _ => None,
        }
    }
}

impl Object for EventValue {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.field(key.as_str()?)
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        let there = FIELDS.iter().filter(|f| **f != "record" && self.field(f).is_some());
        Enumerator::Values(there.map(|f| Value::from(*f)).collect())
    }
}

/// An event that has everything, to try templates on.
#[derive(Debug)]
struct Sample(Arc<EventValue>);

impl Sample {
    fn new() -> Sample {
        let mut e = Event::new(KnownType::ObjectCreatedPut.into(), "bucket", b"key");
        (e.version_id, e.size, e.etag, e.requester) = ("v", Some(1), "etag", "requester");
        (e.source_ip, e.request_id, e.host_id, e.region) = ("192.0.2.1", "request", "host", "region");
        (e.content_type, e.method, e.user_agent) = ("text/plain", "PutObject", "agent");
        e.bucket_owner = "owner";
        let note = Note {
            destination: "destination".into(),
            reason: "reason".into(),
            attempts: 1,
            status: 500,
            given_up_ns: 1,
            hops: 1,
        };
        Sample(Arc::new(EventValue {
            frame: frame::encode_to_vec(&e, 1),
            id: EventId { incarnation: 1, shard: 1, sequence: 1 },
            sequencer: Sequencer { clock_ns: 1, tie: 1, writer: 1 },
            rule: "rule".into(),
            region: "region".into(),
            event_source: "aws:s3".into(),
            replay: Some("replay".into()),
            note: Some(note),
            profile: Profile::CloudEvents,
            metadata: Choice::All,
            tags: Choice::All,
            record_bytes_max: SAMPLE_BYTES_MAX,
        }))
    }
}

impl Object for Sample {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        match key.as_str()? {
            "metadata" | "tags" => Some(Value::from_object(Anything { texts: true })),
            "data" => Some(Value::from_object(Anything { texts: false })),
            name => self.0.field(name),
        }
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Str(FIELDS)
    }
}

/// Has every member.
#[derive(Debug)]
struct Anything {
    /// They are texts, and have no members.
    texts: bool,
}

impl Object for Anything {
    fn get_value(self: &Arc<Self>, _: &Value) -> Option<Value> {
        Some(if self.texts { Value::from("text") } else { Value::from_object(Anything { texts: false }) })
    }
}
