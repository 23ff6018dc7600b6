//! Which metadata and tags of an event its records carry.

use std::sync::Arc;

use bytes::{BufMut, BytesMut};

use super::text;
use crate::event::FrameView;
use crate::event::frame::{Field, Pairs};

/// Which entries of metadata or tags records carry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// Every one.
    #[default]
    All,
    /// None.
    None,
    /// Those with these names, exactly as the event has them.
    Only(Arc<[String]>),
}

impl Choice {
    /// Those with these names.
    pub fn only<S: Into<String>>(names: impl IntoIterator<Item = S>) -> Choice {
        Choice::Only(names.into_iter().map(Into::into).collect())
    }

    /// The entries that are carried.
    pub(crate) fn of<'a>(&'a self, pairs: Pairs<'a>) -> impl Iterator<Item = (&'a str, &'a str)> {
        pairs.filter(move |(name, _)| match self {
            Choice::All => true,
            Choice::None => false,
            Choice::Only(names) => names.iter().any(|n| n == name),
        })
    }
}

/// What is written of an event, of that which may be left out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shown<'a> {
    pub(crate) metadata: &'a Choice,
    pub(crate) tags: &'a Choice,
    /// The host's data.
    pub(crate) data: bool,
}

impl Shown<'_> {
    pub(crate) const ALL: Shown<'static> = Shown { metadata: &Choice::All, tags: &Choice::All, data: true };

    /// The metadata that is written, if any.
    pub(super) fn metadata<'a>(&'a self, frame: &FrameView<'a>) -> Option<impl Iterator<Item = (&'a str, &'a str)>> {
        some(self.metadata, frame.field(Field::Metadata), frame.metadata())
    }

    /// The tags that are written, if any.
    pub(super) fn tags<'a>(&'a self, frame: &FrameView<'a>) -> Option<impl Iterator<Item = (&'a str, &'a str)>> {
        some(self.tags, frame.field(Field::Tags), frame.tags())
    }

    /// Writes both as members of an object that has others before, each if there is something in it.
    pub(super) fn write_maps(&self, frame: &FrameView<'_>, metadata: &str, tags: &str, out: &mut BytesMut) {
        if let Some(pairs) = self.metadata(frame) {
            write_map(metadata, pairs, out);
        }
        if let Some(pairs) = self.tags(frame) {
            write_map(tags, pairs, out);
        }
    }
}

fn some<'a>(
    choice: &'a Choice,
    field: &[u8],
    pairs: Pairs<'a>,
) -> Option<impl Iterator<Item = (&'a str, &'a str)> + use<'a>> {
    if field.is_empty() || *choice == Choice::None {
        return None;
    }
    if *choice != Choice::All {
        choice.of(pairs.clone()).next()?;
    }
    Some(choice.of(pairs))
}

fn write_map<'a>(name: &str, pairs: impl Iterator<Item = (&'a str, &'a str)>, out: &mut BytesMut) {
    out.put_slice(b",\"");
    out.put_slice(name.as_bytes());
    out.put_slice(b"\":");
    text::string_map(out, pairs);
}
