//! The frame: an event as the ring and the log hold it.
//!
//! One contiguous little-endian block that the matcher and the record writers read in place:
//!
//! ```text
//!  0  u8   frame version (1)          20  u32  which variable fields are present (bit = field number)
//!  1  u8   priority                   24  u64  size in bytes (0 if bit 31 of `present` is clear)
//!  2  u16  event type (0 = by name)   32  u32  end of each present field, from the start of the frame
//!  4  u32  length of the frame        ..       the fields, one after the other
//!  8  u64  time, ns since the epoch
//! 16  u8   origin   17 u8 hops   18 u16 offset of the table of ends (32)
//! ```
//!
//! Field numbers are fixed for ever; a reader skips numbers that it does not know. Metadata and tags are a count
//! (u16), then per entry two lengths (u16, u16), name and value.

use super::{Event, EventType, KnownType, Origin, Priority};
use crate::error::{Error, ErrorKind, Result};
use crate::le::{u16_at, u32_at, u64_at};

const VERSION: u8 = 1;
const HEADER_BYTES: usize = 32;
const SIZE_KNOWN: u32 = 1 << 31;

/// The variable fields and their numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
#[allow(missing_docs)]
pub enum Field {
    Bucket = 0,
    Key = 1,
    VersionId = 2,
    Etag = 3,
    Requester = 4,
    SourceIp = 5,
    RequestId = 6,
    HostId = 7,
    Region = 8,
    ContentType = 9,
    TypeName = 10,
    Method = 11,
    UserAgent = 12,
    BucketOwner = 13,
    Metadata = 14,
    Tags = 15,
    Data = 16,
}

const FIELDS: usize = 17;

/// Calls `$do` with number and bytes of each plain field (all but metadata and tags), in order.
macro_rules! each_plain_field {
    ($e:expr, $do:ident) => {
        $do!(0, $e.bucket.as_bytes());
        $do!(1, $e.key);
        $do!(2, $e.version_id.as_bytes());
        $do!(3, $e.etag.as_bytes());
        $do!(4, $e.requester.as_bytes());
        $do!(5, $e.source_ip.as_bytes());
        $do!(6, $e.request_id.as_bytes());
        $do!(7, $e.host_id.as_bytes());
        $do!(8, $e.region.as_bytes());
        $do!(9, $e.content_type.as_bytes());
        if let EventType::Custom(name) = $e.event_type {
            $do!(10, name.as_bytes());
        }
        $do!(11, $e.method.as_bytes());
        $do!(12, $e.user_agent.as_bytes());
        $do!(13, $e.bucket_owner.as_bytes());
    };
}

/// What [`encode`] needs to know before it writes: the result of one pass over an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    len: usize,
    present: u32,
    /// What the table of ends takes.
    ends_bytes: u32,
    /// Metadata or tags have an entry without a name, which is not allowed.
    pub(super) nameless: bool,
}

impl Layout {
    /// The layout of an event.
    #[inline(always)]
    pub fn of(e: &Event<'_>) -> Layout {
        let (mut bytes, mut present) = (0, 0u32);
        macro_rules! measure {
            ($n:literal, $f:expr) => {
                bytes += $f.len();
                present |= u32::from(!$f.is_empty()) << $n;
            };
        }
        each_plain_field!(e, measure);
        measure!(16, e.data);
        let mut nameless = false;
        for (n, pairs) in [(14, e.metadata), (15, e.tags)] {
            if !pairs.is_empty() {
                present |= 1 << n;
                bytes += 2;
                for (k, v) in pairs {
                    bytes += 4 + k.len() + v.len();
                    nameless |= k.is_empty();
                }
            }
        }
        let ends_bytes = present.count_ones() * 4;
        Layout { len: HEADER_BYTES + ends_bytes as usize + bytes, present, ends_bytes, nameless }
    }

    /// How many bytes the frame has.
    #[inline]
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.len
    }
}

/// How many bytes the frame of this event has.
pub fn encoded_len(e: &Event<'_>) -> usize {
    Layout::of(e).len
}

/// Writes the frame of `e`, whose layout is `layout`, into `out`, which has exactly as many bytes as that says. `time_ns`
/// is used where the event has none.
///
/// # Panics
/// If `out` has another length or the layout is of another event; the event must have passed [`Event::validate`].
#[inline]
pub fn encode(e: &Event<'_>, layout: Layout, time_ns: u64, out: &mut [u8]) {
    assert_eq!(out.len(), layout.len, "frame length");
    let known = match e.event_type {
        EventType::Known(t) => t as u16,
        EventType::Custom(_) => 0,
    };
    let (header, rest) = out.split_at_mut(HEADER_BYTES);
    header[0] = VERSION;
    header[1] = e.priority as u8;
    header[2..4].copy_from_slice(&known.to_le_bytes());
    header[4..8].copy_from_slice(&(layout.len as u32).to_le_bytes());
    header[8..16].copy_from_slice(&(if e.time_ns == 0 { time_ns } else { e.time_ns }).to_le_bytes());
    header[16] = e.origin as u8;
    header[17] = e.hops;
    header[18..20].copy_from_slice(&(HEADER_BYTES as u16).to_le_bytes());
    header[20..24].copy_from_slice(&(layout.present | if e.size.is_some() { SIZE_KNOWN } else { 0 }).to_le_bytes());
    header[24..32].copy_from_slice(&e.size.unwrap_or(0).to_le_bytes());

    let (ends, body) = rest.split_at_mut(layout.ends_bytes as usize);
    let base = HEADER_BYTES as u32 + layout.ends_bytes;
    let mut ends = ends.chunks_exact_mut(4);
    let mut at = 0;
    macro_rules! end {
        () => {
            if let Some(end) = ends.next() {
                end.copy_from_slice(&(base + at as u32).to_le_bytes());
            }
        };
    }
    macro_rules! write {
        ($n:literal, $f:expr) => {
            if !$f.is_empty() {
                at = put(body, at, $f);
                end!();
            }
        };
    }
    each_plain_field!(e, write);
    for pairs in [e.metadata, e.tags] {
        if !pairs.is_empty() {
            at = put_pairs(body, at, pairs);
            end!();
        }
    }
    write!(16, e.data);
    assert_eq!(base as usize + at, layout.len, "frame length");
}

/// Copies a field to `at` and answers where it ends. Fields are short: a few overlapping copies of constant size are
/// several times faster than a call of `memcpy` for each.
#[inline(always)]
fn put(body: &mut [u8], at: usize, field: &[u8]) -> usize {
    let n = field.len();
    let to = &mut body[at..at + n];
    macro_rules! ends {
        ($size:literal) => {
            if let (Some(a), Some(b)) = (to.first_chunk_mut::<$size>(), field.first_chunk::<$size>()) {
                *a = *b;
            }
            if let (Some(a), Some(b)) = (to.last_chunk_mut::<$size>(), field.last_chunk::<$size>()) {
                *a = *b;
            }
        };
    }
    match n {
        0 => {}
        1..4 => {
            to[0] = field[0];
            to[n / 2] = field[n / 2];
            to[n - 1] = field[n - 1];
        }
        4..8 => {
            ends!(4);
        }
        8..=16 => {
            ends!(8);
        }
        17..=32 => {
            ends!(16);
        }
        33..=64 => {
            ends!(32);
        }
        _ => to.copy_from_slice(field),
    }
    at + n
}

fn put_pairs(body: &mut [u8], mut at: usize, pairs: &[(&str, &str)]) -> usize {
    at = put(body, at, &(pairs.len() as u16).to_le_bytes());
    for (k, v) in pairs {
        at = put(body, at, &(k.len() as u16).to_le_bytes());
        at = put(body, at, &(v.len() as u16).to_le_bytes());
        at = put(body, at, k.as_bytes());
        at = put(body, at, v.as_bytes());
    }
    at
}

/// The frame of an event, in a buffer of its own.
pub fn encode_to_vec(e: &Event<'_>, time_ns: u64) -> Vec<u8> {
    let layout = Layout::of(e);
    let mut out = vec![0; layout.len];
    encode(e, layout, time_ns, &mut out);
    out
}

/// A frame, read in place.
#[derive(Clone, Copy, Debug)]
pub struct FrameView<'a> {
    bytes: &'a [u8],
    present: u32,
    ends: usize,
}

impl<'a> FrameView<'a> {
    /// Checks a frame that comes from a file or another process, so that the accessors cannot go out of bounds.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] for anything that [`encode`] cannot have written, [`ErrorKind::NewerFormat`] for a newer
    /// frame version.
    pub fn parse(bytes: &'a [u8]) -> Result<FrameView<'a>> {
        let corrupt = |what: &str| Error::new(ErrorKind::Corrupt, format!("frame: {what}"));
        if bytes.len() < HEADER_BYTES {
            return Err(corrupt("shorter than its header"));
        }
        if bytes[0] != VERSION {
            return Err(if bytes[0] > VERSION {
                Error::new(ErrorKind::NewerFormat, format!("frame version {} is newer than {VERSION}", bytes[0]))
                    .remedy("use a newer Tidewire to read it")
            } else {
                corrupt("version 0")
            });
        }
        if u32_at(bytes, 4) as usize != bytes.len() {
            return Err(corrupt("length differs"));
        }
        let ends = u16_at(bytes, 18) as usize;
        let present = u32_at(bytes, 20) & !SIZE_KNOWN;
        let count = present.count_ones() as usize;
        let base = ends + count * 4;
        if ends < HEADER_BYTES || base > bytes.len() {
            return Err(corrupt("table of ends out of bounds"));
        }
        let mut last = base;
        for n in 0..count {
            let end = u32_at(bytes, ends + n * 4) as usize;
            if end < last || end > bytes.len() {
                return Err(corrupt("field out of bounds"));
            }
            last = end;
        }
        if last != bytes.len() {
            return Err(corrupt("bytes after the last field"));
        }
        let view = FrameView { bytes, present, ends };
        for f in 0..FIELDS as u32 {
            if f != Field::Key as u32
                && f != Field::Data as u32
                && f != Field::Metadata as u32
                && f != Field::Tags as u32
                && std::str::from_utf8(view.raw(f)).is_err()
            {
                return Err(corrupt("text that is not UTF-8"));
            }
        }
        for f in [Field::Metadata, Field::Tags] {
            Pairs::check(view.raw(f as u32)).ok_or_else(|| corrupt("metadata or tags"))?;
        }
        let code = u16_at(bytes, 2);
        if code == 0 && view.raw(Field::TypeName as u32).is_empty() {
            return Err(corrupt("no event type"));
        }
        if code != 0 && KnownType::from_code(code).is_none() {
            return Err(Error::new(ErrorKind::NewerFormat, format!("event type number {code} is not known"))
                .remedy("use a newer Tidewire to read it"));
        }
        Ok(view)
    }

    /// Takes a frame that this process encoded, without the checks of [`FrameView::parse`].
    ///
    /// Not `unsafe`: a frame that is not one makes the accessors panic or answer nonsense, no more.
    #[inline]
    pub fn trusted(bytes: &'a [u8]) -> FrameView<'a> {
        FrameView { bytes, present: u32_at(bytes, 20) & !SIZE_KNOWN, ends: u16_at(bytes, 18) as usize }
    }

    /// The frame's bytes.
    pub fn as_bytes(&self) -> &'a [u8] {
        self.bytes
    }

    #[inline]
    fn raw(&self, field: u32) -> &'a [u8] {
        if self.present & (1 << field) == 0 {
            return &[];
        }
        let n = (self.present & ((1 << field) - 1)).count_ones() as usize;
        let start = if n == 0 {
            self.ends + self.present.count_ones() as usize * 4
        } else {
            u32_at(self.bytes, self.ends + (n - 1) * 4) as usize
        };
        let end = u32_at(self.bytes, self.ends + n * 4) as usize;
        &self.bytes[start..end]
    }

    /// A variable field as bytes; empty if absent.
    #[inline]
    pub fn field(&self, field: Field) -> &'a [u8] {
        self.raw(field as u32)
    }

    /// A text field; empty if absent.
    #[inline]
    pub fn text(&self, field: Field) -> &'a str {
        std::str::from_utf8(self.raw(field as u32)).unwrap_or_default()
    }

    /// The type.
    #[inline(always)]
    pub fn event_type(&self) -> EventType<'a> {
        match KnownType::from_code(u16_at(self.bytes, 2)) {
            Some(t) => EventType::Known(t),
            None => EventType::Custom(self.text(Field::TypeName)),
        }
    }

    /// Nanoseconds since the Unix epoch.
    pub fn time_ns(&self) -> u64 {
        u64_at(self.bytes, 8)
    }

    /// The object's size, if known.
    pub fn size(&self) -> Option<u64> {
        (u32_at(self.bytes, 20) & SIZE_KNOWN != 0).then(|| u64_at(self.bytes, 24))
    }

    /// The priority.
    pub fn priority(&self) -> Priority {
        Priority::from_u8(self.bytes[1])
    }

    /// Who caused the event.
    pub fn origin(&self) -> Origin {
        Origin::from_u8(self.bytes[16])
    }

    /// The hop count.
    pub fn hops(&self) -> u8 {
        self.bytes[17]
    }

    /// Bucket and key, as bytes.
    #[inline(always)]
    pub(crate) fn bucket_and_key(&self) -> (&'a [u8], &'a [u8]) {
        if self.present & 3 != 3 {
            return (self.raw(Field::Bucket as u32), self.key());
        }
        let start = self.ends + self.present.count_ones() as usize * 4;
        // Both ends at once.
        let ends = u64_at(self.bytes, self.ends);
        let (bucket, key) = (ends as u32 as usize, (ends >> 32) as usize);
        self.bytes[start..key].split_at(bucket - start)
    }

    /// The bucket.
    #[inline]
    pub fn bucket(&self) -> &'a str {
        self.text(Field::Bucket)
    }

    /// The key, raw.
    #[inline]
    pub fn key(&self) -> &'a [u8] {
        self.raw(Field::Key as u32)
    }

    /// User metadata.
    pub fn metadata(&self) -> Pairs<'a> {
        Pairs::new(self.raw(Field::Metadata as u32))
    }

    /// Tags.
    pub fn tags(&self) -> Pairs<'a> {
        Pairs::new(self.raw(Field::Tags as u32))
    }

    /// The event, with the entries that [`FrameView::metadata`] and [`FrameView::tags`] have.
    pub fn event<'b>(&self, metadata: &'b [(&'b str, &'b str)], tags: &'b [(&'b str, &'b str)]) -> Event<'b>
    where
        'a: 'b,
    {
        Event {
            event_type: self.event_type(),
            time_ns: self.time_ns(),
            bucket: self.bucket(),
            key: self.key(),
            version_id: self.text(Field::VersionId),
            size: self.size(),
            etag: self.text(Field::Etag),
            requester: self.text(Field::Requester),
            source_ip: self.text(Field::SourceIp),
            request_id: self.text(Field::RequestId),
            host_id: self.text(Field::HostId),
            region: self.text(Field::Region),
            content_type: self.text(Field::ContentType),
            method: self.text(Field::Method),
            user_agent: self.text(Field::UserAgent),
            bucket_owner: self.text(Field::BucketOwner),
            metadata,
            tags,
            data: self.field(Field::Data),
            priority: self.priority(),
            origin: self.origin(),
            hops: self.hops(),
        }
    }

    /// The shard hash of the resource key.
    #[inline]
    pub fn resource_hash(&self) -> u64 {
        super::resource_hash(self.raw(Field::Bucket as u32), self.key())
    }
}

/// The entries of metadata or tags.
#[derive(Clone, Debug)]
pub struct Pairs<'a> {
    rest: &'a [u8],
    left: u16,
}

impl<'a> Pairs<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        if bytes.len() < 2 { Pairs { rest: &[], left: 0 } } else { Pairs { rest: &bytes[2..], left: u16_at(bytes, 0) } }
    }

    fn check(bytes: &[u8]) -> Option<()> {
        if bytes.is_empty() {
            return Some(());
        }
        let mut left = u16_at(bytes.get(..2)?, 0);
        let mut rest = &bytes[2..];
        while left > 0 {
            let head = rest.get(..4)?;
            let (k, v) = (u16_at(head, 0) as usize, u16_at(head, 2) as usize);
            std::str::from_utf8(rest.get(4..4 + k)?).ok()?;
            std::str::from_utf8(rest.get(4 + k..4 + k + v)?).ok()?;
            rest = &rest[4 + k + v..];
            left -= 1;
        }
        rest.is_empty().then_some(())
    }
}

impl<'a> Iterator for Pairs<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return None;
        }
        let (k, v) = (u16_at(self.rest, 0) as usize, u16_at(self.rest, 2) as usize);
        let (name, rest) = self.rest[4..].split_at(k);
        let (value, rest) = rest.split_at(v);
        self.left -= 1;
        self.rest = rest;
        Some((std::str::from_utf8(name).unwrap_or_default(), std::str::from_utf8(value).unwrap_or_default()))
    }
}

#[cfg(test)]
mod tests;
