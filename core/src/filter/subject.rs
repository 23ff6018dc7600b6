//! The event as tests see it: the values of its fields.

#[cfg(feature = "cel")]
mod parts;

use std::borrow::Cow;
use std::fmt;

use simd_json::{Buffers, Node, StaticNode, Tape};

use super::expression::Field;
use super::number::Number;
use crate::event::frame::{self, FrameView};
use crate::event::{Origin, Priority};

#[cfg(feature = "cel")]
pub(super) use parts::DataValue;

/// One value of a field.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Value<'a> {
    Text(&'a [u8]),
    Number(Number),
    Bool(bool),
    Null,
}

/// Which field, as compiled filters name it; what is in brackets is apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Kind {
    EventType,
    Bucket,
    Key,
    VersionId,
    Etag,
    Requester,
    SourceIp,
    RequestId,
    HostId,
    Region,
    ContentType,
    Method,
    UserAgent,
    BucketOwner,
    Size,
    Time,
    Hops,
    Origin,
    Priority,
    Metadata,
    Tag,
    Data,
    /// None: several are looked at together.
    Expression,
}

impl Kind {
    const ALL: [Kind; 23] = [
        Kind::EventType,
        Kind::Bucket,
        Kind::Key,
        Kind::VersionId,
        Kind::Etag,
        Kind::Requester,
        Kind::SourceIp,
        Kind::RequestId,
        Kind::HostId,
        Kind::Region,
        Kind::ContentType,
        Kind::Method,
        Kind::UserAgent,
        Kind::BucketOwner,
        Kind::Size,
        Kind::Time,
        Kind::Hops,
        Kind::Origin,
        Kind::Priority,
        Kind::Metadata,
        Kind::Tag,
        Kind::Data,
        Kind::Expression,
    ];

    #[inline]
    pub(super) fn from_u8(n: u8) -> Kind {
        Kind::ALL[n as usize]
    }

    /// Whether something in brackets says which value is meant.
    #[inline]
    pub(super) fn has_selector(self) -> bool {
        matches!(self, Kind::Metadata | Kind::Tag | Kind::Data)
    }

    /// In a set of kinds, the bit that stands for it.
    pub(super) fn bit(self) -> u32 {
        1 << self as u8
    }

    /// Whether a host knows it before the operation.
    pub(super) fn is_known_before(self) -> bool {
        matches!(self, Kind::EventType | Kind::Bucket | Kind::Key)
    }
}

impl Field {
    pub(super) fn kind(&self) -> Kind {
        match self {
            Field::EventType => Kind::EventType,
            Field::Bucket => Kind::Bucket,
            Field::Key => Kind::Key,
            Field::VersionId => Kind::VersionId,
            Field::Etag => Kind::Etag,
            Field::Requester => Kind::Requester,
            Field::SourceIp => Kind::SourceIp,
            Field::RequestId => Kind::RequestId,
            Field::HostId => Kind::HostId,
            Field::Region => Kind::Region,
            Field::ContentType => Kind::ContentType,
            Field::Method => Kind::Method,
            Field::UserAgent => Kind::UserAgent,
            Field::BucketOwner => Kind::BucketOwner,
            Field::Size => Kind::Size,
            Field::Time => Kind::Time,
            Field::Hops => Kind::Hops,
            Field::Origin => Kind::Origin,
            Field::Priority => Kind::Priority,
            Field::Metadata(_) => Kind::Metadata,
            Field::Tag(_) => Kind::Tag,
            Field::Data(_) => Kind::Data,
        }
    }

    /// What is in brackets: the name, or the steps of a path, each with its length (u16) before it.
    pub(super) fn selector(&self) -> Cow<'_, [u8]> {
        match self {
            Field::Metadata(name) | Field::Tag(name) => name.as_bytes().into(),
            Field::Data(path) => {
                path.iter().flat_map(|s| [&(s.len() as u16).to_le_bytes(), s.as_bytes()].concat()).collect()
            }
            _ => Cow::default(),
        }
    }
}

/// Working memory for the JSON data of events; used again and again, it allocates no more.
#[derive(Default)]
pub struct DataMemory {
    bytes: Vec<u8>,
    nodes: Vec<DataNode>,
    buffers: Buffers,
    tape: Vec<Node<'static>>,
    /// `nodes` are those of the present event.
    is_read: bool,
}

impl fmt::Debug for DataMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DataMemory").field("bytes", &self.bytes.capacity()).finish_non_exhaustive()
    }
}

/// A value, before its parts.
#[derive(Clone, Copy, Debug)]
enum DataNode {
    /// A part of the bytes.
    Text(u32, u32),
    /// Members, and nodes behind this one that belong to it.
    Object(u32, u32),
    Array(u32, u32),
    Number(Number),
    Bool(bool),
    Null,
}

impl DataMemory {
    /// Another event comes.
    #[inline]
    pub(super) fn forget(&mut self) {
        self.is_read = false;
    }

    /// Reads the data, unless that is done. What is no JSON has no values; publishing refuses it.
    fn read(&mut self, data: &[u8]) {
        if std::mem::replace(&mut self.is_read, true) {
            return;
        }
        self.nodes.clear();
        self.bytes.clear();
        if data.is_empty() {
            return;
        }
        self.bytes.extend_from_slice(data);
        let start = self.bytes.as_ptr() as usize;
        let mut tape = Tape(std::mem::take(&mut self.tape)).reset();
        if simd_json::fill_tape(&mut self.bytes, &mut self.buffers, &mut tape).is_ok() {
            self.nodes.extend(tape.0.iter().map(|node| match *node {
                // Strings are unescaped where they stand.
                Node::String(s) => DataNode::Text((s.as_ptr() as usize - start) as u32, s.len() as u32),
                Node::Object { len, count } => DataNode::Object(len as u32, count as u32),
                Node::Array { len, count } => DataNode::Array(len as u32, count as u32),
                Node::Static(StaticNode::I64(n)) => DataNode::Number(n.into()),
                Node::Static(StaticNode::U64(n)) => DataNode::Number(n.into()),
                Node::Static(StaticNode::F64(n)) => Number::float(n).map_or(DataNode::Null, DataNode::Number),
                Node::Static(StaticNode::Bool(b)) => DataNode::Bool(b),
                Node::Static(StaticNode::Null) => DataNode::Null,
            }));
        }
        self.tape = tape.reset().0;
    }

    /// How many nodes the value at `at` takes.
    fn count(&self, at: usize) -> usize {
        match self.nodes[at] {
            DataNode::Object(_, count) | DataNode::Array(_, count) => 1 + count as usize,
            _ => 1,
        }
    }

    fn text(&self, start: u32, len: u32) -> &[u8] {
        &self.bytes[start as usize..][..len as usize]
    }

    /// Whether `passes` holds for some value at the end of the path.
    fn any(&self, at: usize, path: &[u8], passes: &mut dyn FnMut(Value<'_>) -> bool) -> bool {
        let value = match self.nodes[at] {
            DataNode::Array(len, _) => {
                let mut at = at + 1;
                return (0..len).any(|_| {
                    let element = at;
                    at += self.count(element);
                    self.any(element, path, passes)
                });
            }
            DataNode::Object(len, _) => {
                let Some((step, rest)) = split_step(path) else { return false };
                let mut at = at + 1;
                return (0..len).any(|_| {
                    let (name, value) = (at, at + 1);
                    at = value + self.count(value);
                    matches!(self.nodes[name], DataNode::Text(start, len) if self.text(start, len) == step)
                        && self.any(value, rest, passes)
                });
            }
            _ if !path.is_empty() => return false,
            DataNode::Text(start, len) => Value::Text(self.text(start, len)),
            DataNode::Number(n) => Value::Number(n),
            DataNode::Bool(b) => Value::Bool(b),
            DataNode::Null => Value::Null,
        };
        passes(value)
    }
}

fn split_step(path: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = path.split_first_chunk::<2>()?;
    rest.split_at_checked(u16::from_le_bytes(*len) as usize)
}

/// An event and the memory for its data.
#[derive(Debug)]
pub struct Subject<'a> {
    pub(super) frame: FrameView<'a>,
    pub(super) data: &'a mut DataMemory,
}

fn text_field(kind: Kind) -> Option<frame::Field> {
    use frame::Field as F;
    Some(match kind {
        Kind::Bucket => F::Bucket,
        Kind::Key => F::Key,
        Kind::VersionId => F::VersionId,
        Kind::Etag => F::Etag,
        Kind::Requester => F::Requester,
        Kind::SourceIp => F::SourceIp,
        Kind::RequestId => F::RequestId,
        Kind::HostId => F::HostId,
        Kind::Region => F::Region,
        Kind::ContentType => F::ContentType,
        Kind::Method => F::Method,
        Kind::UserAgent => F::UserAgent,
        Kind::BucketOwner => F::BucketOwner,
        _ => return None,
    })
}

impl<'a> Subject<'a> {
    /// The event of a frame. `data` is working memory.
    pub fn new(frame: FrameView<'a>, data: &'a mut DataMemory) -> Subject<'a> {
        data.forget();
        Subject { frame, data }
    }

    /// Whether `passes` holds for some value of the field.
    pub(super) fn any(&mut self, kind: Kind, selector: &[u8], passes: &mut dyn FnMut(Value<'_>) -> bool) -> bool {
        let frame = &self.frame;
        match kind {
            Kind::Metadata => frame
                .metadata()
                .any(|(name, v)| name.as_bytes().eq_ignore_ascii_case(selector) && passes(Value::Text(v.as_bytes()))),
            Kind::Tag => frame.tags().any(|(name, v)| name.as_bytes() == selector && passes(Value::Text(v.as_bytes()))),
            Kind::Data => {
                self.data.read(frame.field(frame::Field::Data));
                !self.data.nodes.is_empty() && self.data.any(0, selector, passes)
            }
            kind => self.value(kind).is_some_and(passes),
        }
    }

    /// The value of a field that has one at most; none of those that have several.
    #[inline]
    pub(super) fn value(&self, kind: Kind) -> Option<Value<'a>> {
        let frame = &self.frame;
        if let Some(field) = text_field(kind) {
            let text = frame.field(field);
            return (!text.is_empty()).then_some(Value::Text(text));
        }
        Some(match kind {
            Kind::EventType => Value::Text(frame.event_type().name().as_bytes()),
            Kind::Size => Value::Number(frame.size()?.into()),
            Kind::Time => Value::Number(frame.time_ns().into()),
            Kind::Hops => Value::Number(u64::from(frame.hops()).into()),
            Kind::Origin => Value::Text(origin_name(frame.origin())),
            Kind::Priority => Value::Text(priority_name(frame.priority())),
            _ => return None,
        })
    }

    /// Calls `each` with every text that the event has in fields of these kinds ([`Kind::bit`]): the kind, what is in
    /// brackets, the text.
    #[inline]
    pub(super) fn each_text(&self, kinds: u32, mut each: impl FnMut(Kind, &[u8], &[u8])) {
        let frame = &self.frame;
        let mut left = kinds & !(Kind::Metadata.bit() | Kind::Tag.bit());
        while left != 0 {
            let kind = Kind::from_u8(left.trailing_zeros() as u8);
            left &= left - 1;
            let text = text_field(kind).map_or(&[][..], |field| frame.field(field));
            if !text.is_empty() {
                each(kind, b"", text);
            }
        }
        if kinds & Kind::Metadata.bit() != 0 {
            frame.metadata().for_each(|(name, v)| each(Kind::Metadata, name.as_bytes(), v.as_bytes()));
        }
        if kinds & Kind::Tag.bit() != 0 {
            frame.tags().for_each(|(name, v)| each(Kind::Tag, name.as_bytes(), v.as_bytes()));
        }
    }
}

/// The names of [`Field::Origin`].
pub(super) fn origin_name(origin: Origin) -> &'static [u8] {
    match origin {
        Origin::User => b"user",
        Origin::Replica => b"replica",
        Origin::Lifecycle => b"lifecycle",
    }
}

fn priority_name(priority: Priority) -> &'static [u8] {
    match priority {
        Priority::Low => b"low",
        Priority::Normal => b"normal",
        Priority::High => b"high",
    }
}
