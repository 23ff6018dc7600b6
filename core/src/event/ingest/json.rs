//! Reading the tape of simd-json: a cursor whose strings live as long as the document, and whose errors name fields.

use bytes::BufMut;
use simd_json::{Node, StaticNode};

use crate::error::{Error, Result};
use crate::event::profile::text::{self, DEPTH_MAX};

/// One value on the tape.
#[derive(Clone, Copy)]
pub(super) struct Json<'t, 'a>(&'t [Node<'a>]);

/// How many nodes the value at the start of `nodes` takes.
fn node_count(nodes: &[Node<'_>]) -> usize {
    match nodes[0] {
        Node::Object { count, .. } | Node::Array { count, .. } => 1 + count,
        _ => 1,
    }
}

impl<'t, 'a> Json<'t, 'a> {
    /// The document's value. The tape is one that simd-json filled.
    pub(super) fn root(nodes: &'t [Node<'a>]) -> Self {
        Json(nodes)
    }

    /// What the value is, for messages.
    pub(super) fn kind(self) -> &'static str {
        match self.0[0] {
            Node::String(_) => "a string",
            Node::Object { .. } => "an object",
            Node::Array { .. } => "an array",
            Node::Static(StaticNode::Bool(_)) => "true or false",
            Node::Static(StaticNode::Null) => "null",
            Node::Static(_) => "a number",
        }
    }

    pub(super) fn is_null(self) -> bool {
        matches!(self.0[0], Node::Static(StaticNode::Null))
    }

    pub(super) fn is_object(self) -> bool {
        matches!(self.0[0], Node::Object { .. })
    }

    pub(super) fn is_array(self) -> bool {
        matches!(self.0[0], Node::Array { .. })
    }

    /// The string, if it is one.
    pub(super) fn as_str(self) -> Option<&'a str> {
        match self.0[0] {
            Node::String(s) => Some(s),
            _ => None,
        }
    }

    /// The members of an object; none for anything else.
    pub(super) fn members(self) -> impl Iterator<Item = (&'a str, Json<'t, 'a>)> {
        let mut left = match self.0[0] {
            Node::Object { len, .. } => len,
            _ => 0,
        };
        let mut rest = &self.0[1..];
        std::iter::from_fn(move || {
            left = left.checked_sub(1)?;
            let Node::String(name) = rest[0] else { return None };
            let (value, after) = rest[1..].split_at(node_count(&rest[1..]));
            rest = after;
            Some((name, Json(value)))
        })
    }

    /// The elements of an array; none for anything else.
    pub(super) fn elements(self) -> impl Iterator<Item = Json<'t, 'a>> {
        let mut left = match self.0[0] {
            Node::Array { len, .. } => len,
            _ => 0,
        };
        let mut rest = &self.0[1..];
        std::iter::from_fn(move || {
            left = left.checked_sub(1)?;
            let (value, after) = rest.split_at(node_count(rest));
            rest = after;
            Some(Json(value))
        })
    }

    /// A member of an object; `None` if it is absent or null, or if this is no object.
    pub(super) fn get(self, name: &str) -> Option<Json<'t, 'a>> {
        self.members().find(|(n, _)| *n == name).map(|(_, v)| v).filter(|v| !v.is_null())
    }

    /// The member at the end of a path of objects; `None` as in [`Json::get`].
    pub(super) fn path(self, path: &[&str]) -> Option<Json<'t, 'a>> {
        path.iter().try_fold(self, |value, name| value.get(name))
    }

    /// The string at the end of a path, empty if it is absent or null.
    pub(super) fn text_at(self, path: &[&str]) -> Result<&'a str> {
        match self.path(path) {
            None => Ok(""),
            Some(value) => value.text().map_err(|e| e.at(path.join("."))),
        }
    }

    /// The string.
    pub(super) fn text(self) -> Result<&'a str> {
        self.as_str().ok_or_else(|| Error::invalid_event(format!("is {}, not a string", self.kind())))
    }

    /// The number, which has no sign and no fraction.
    pub(super) fn unsigned(self) -> Result<u64> {
        match self.0[0] {
            Node::Static(StaticNode::U64(n)) => Ok(n),
            Node::Static(StaticNode::I64(n)) if n >= 0 => Ok(n as u64),
            Node::Static(StaticNode::I64(_) | StaticNode::F64(_)) => {
                Err(Error::invalid_event("is not a whole number from 0 to 2^64 - 1"))
            }
            _ => Err(Error::invalid_event(format!("is {}, not a number", self.kind()))),
        }
    }

    /// The pairs of an object of strings, or of an array of `{"key": ..., "val": ...}` as one peer writes them.
    pub(super) fn pairs(self) -> Result<Vec<(&'a str, &'a str)>> {
        if self.is_object() {
            return self.members().map(|(name, v)| Ok((name, v.text().map_err(|e| e.at(name))?))).collect();
        }
        if !self.is_array() {
            return Err(Error::invalid_event(format!("is {}, not an object of strings", self.kind())));
        }
        self.elements()
            .map(|e| Ok((e.text_at(&["key"])?, e.text_at(&[if e.get("val").is_some() { "val" } else { "value" }])?)))
            .collect()
    }

    /// The value as JSON, for [`crate::Event::data`]. Spelling of numbers and spacing are normal forms, not those of
    /// the document. Deeper nesting than a record can carry is refused here, while there is somebody to tell.
    pub(super) fn to_data(self) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        if !self.write(DEPTH_MAX, &mut out) {
            return Err(Error::invalid_event(format!("is nested more than {DEPTH_MAX} deep")).remedy("flatten it"));
        }
        Ok(out)
    }

    /// Writes the value if it is nested at most `left` deep.
    fn write(self, left: usize, out: &mut Vec<u8>) -> bool {
        match self.0[0] {
            Node::String(s) => text::string(out, s),
            Node::Static(StaticNode::Null) => out.put_slice(b"null"),
            Node::Static(StaticNode::Bool(b)) => out.put_slice(if b { b"true" } else { b"false" }),
            Node::Static(StaticNode::I64(n)) => out.put_slice(itoa::Buffer::new().format(n).as_bytes()),
            Node::Static(StaticNode::U64(n)) => out.put_slice(itoa::Buffer::new().format(n).as_bytes()),
            Node::Static(StaticNode::F64(n)) => {
                // Writing a finite number to memory does not fail.
                let _ = serde_json::to_writer(out, &n);
            }
            Node::Object { .. } | Node::Array { .. } if left == 0 => return false,
            Node::Object { .. } => {
                out.put_u8(b'{');
                for (i, (name, value)) in self.members().enumerate() {
                    if i > 0 {
                        out.put_u8(b',');
                    }
                    text::string(out, name);
                    out.put_u8(b':');
                    if !value.write(left - 1, out) {
                        return false;
                    }
                }
                out.put_u8(b'}');
            }
            Node::Array { .. } => {
                out.put_u8(b'[');
                for (i, value) in self.elements().enumerate() {
                    if i > 0 {
                        out.put_u8(b',');
                    }
                    if !value.write(left - 1, out) {
                        return false;
                    }
                }
                out.put_u8(b']');
            }
            #[allow(unreachable_patterns)] // Wider numbers exist if another crate asks simd-json for them.
            _ => out.put_slice(b"null"),
        }
        true
    }
}

/// Walks over text that is meant to be JSON, without checking it: yields each token's start with its depth.
struct Scan<'b> {
    body: &'b [u8],
    at: usize,
    depth: usize,
}

/// A token that [`Scan`] stops at.
enum Token<'b> {
    /// The inside of a string, with its escapes, and whether a colon follows.
    Text(&'b [u8], bool),
    /// The end of an array or object.
    End,
    /// Anything else.
    Other,
}

impl<'b> Iterator for Scan<'b> {
    type Item = (usize, Token<'b>);

    fn next(&mut self) -> Option<Self::Item> {
        let rest = &self.body[self.at..];
        let rest = rest.trim_ascii_start();
        let start = self.body.len() - rest.len();
        let (&first, _) = rest.split_first()?;
        self.at = start + 1;
        Some(match first {
            b'{' | b'[' => {
                self.depth += 1;
                (self.depth, Token::Other)
            }
            b'}' | b']' => {
                self.depth = self.depth.saturating_sub(1);
                (self.depth, Token::End)
            }
            b'"' => {
                let mut end = start + 1;
                loop {
                    end += memchr::memchr2(b'"', b'\\', self.body.get(end..)?)?;
                    if self.body[end] == b'"' {
                        break;
                    }
                    end += 2;
                }
                self.at = end + 1;
                let colon = self.body[self.at..].trim_ascii_start().first() == Some(&b':');
                (self.depth, Token::Text(&self.body[start + 1..end], colon))
            }
            _ => (self.depth, Token::Other),
        })
    }
}

/// The names of the members of the first object of a body, found without parsing it.
pub(super) fn members(body: &[u8]) -> impl Iterator<Item = &[u8]> {
    let scan = Scan { body, at: 0, depth: 0 };
    scan.take_while(|(depth, _)| *depth > 0).filter_map(|(depth, token)| match token {
        Token::Text(name, true) if depth == 1 => Some(name),
        _ => None,
    })
}

/// Whether there is nothing after the first object or array of a body.
pub(super) fn is_single_value(body: &[u8]) -> bool {
    let mut scan = Scan { body, at: 0, depth: 0 };
    let closed = scan.any(|(depth, token)| depth == 0 && matches!(token, Token::End));
    !closed || scan.next().is_none()
}
