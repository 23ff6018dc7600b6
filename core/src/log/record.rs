//! A record: one event in a segment, with the routes that matching gave it.
//!
//! ```text
//!  0  u32  CRC32C of the segment id (u64) and of bytes 4.. of the record, padding excluded
//!  4  u32  length without padding; 0 ends the segment
//!  8  u64  sequence: place in the shard's log, one more than the record before
//! 16  u8   kind           17  u8  flags: 1 = there are extensions
//! 18  u16  number of routes
//! 20  u32  clock tie      24  u64 hybrid clock, ns since the epoch
//! 32  per route: u32 destination, u32 rule with the priority in its top two bits (0 normal, 1 low, 2 high)
//! ..  extensions, if there are any: u16 length of them all with this field, then each as u8 tag, u8 length, value
//! ..  body, padded with zeros to 8 bytes
//! ```
//!
//! Extensions with tags that are not known are passed over. Format 1 had none.
//!
//! The segment id in the checksum keeps a recycled file's old records from being taken for new ones.

use crate::error::{Error, ErrorKind, Result};
use crate::event::Priority;
use crate::le::{u32_at, u64_at};

/// The fixed part of a record, in bytes.
pub const RECORD_HEADER_BYTES: usize = 32;
/// One route, in bytes.
pub const ROUTE_BYTES: usize = 8;
/// In the flags: extensions follow the routes.
const EXTENDED: u8 = 1;
/// The largest record: a frame of the largest size with as many routes as fit.
pub const RECORD_BYTES_MAX: usize = 1024 * 1024;

/// What a record holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A frame that is to be delivered along its routes.
    Event = 1,
    /// A dead letter (only in `dead/` segments): its body is a [`DeadLetter`].
    DeadLetter = 2,
    /// A reservation of which the outcome is not known yet: its body is the frame as it was declared. Not delivered.
    Intent = 3,
    /// The end of an [`Kind::Intent`] that came to nothing; which one, [`Extensions::resolves`] says. No body.
    Abort = 4,
    /// Nothing happened. In `dedup/` segments the body is a list of [`super::checkpoint::DedupEntry`].
    Mark = 5,
    /// A dead letter on its way to the dead-letter destination of its destination: its body is a [`DeadLetter`], of which
    /// the frame is delivered along the routes.
    Forward = 6,
    /// An event that was dropped (only in `losses/` segments): its body is a [`super::losses::Loss`].
    Loss = 7,
}

impl Kind {
    pub(crate) fn from_number(n: u8) -> Option<Kind> {
        Some(match n {
            1 => Kind::Event,
            2 => Kind::DeadLetter,
            3 => Kind::Intent,
            4 => Kind::Abort,
            5 => Kind::Mark,
            6 => Kind::Forward,
            7 => Kind::Loss,
            _ => return None,
        })
    }

    /// Whether such a record is delivered along its routes.
    pub fn is_delivered(self) -> bool {
        matches!(self, Kind::Event | Kind::Forward)
    }
}

/// What only some records have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extensions {
    /// The sequence of the intent that this event or abort brings to its end.
    pub resolves: Option<u64>,
    /// The host's own cursor, for events that it appends from a log of its own.
    pub host_cursor: Option<u64>,
    /// What the event's id is made of, if not of its own place in the log: the intent that it brings to its end, or its
    /// place on the shard that handed it over.
    pub origin: Option<Origin>,
    /// The key by which the host has repeats of one publication recognised, as a hash.
    pub dedup: Option<u128>,
    /// How often the event came out of the dead letters or out of a replay again.
    pub hops: u8,
    /// The record that this one was made from, on another shard that handed it over.
    pub handed_over: Option<HandedOver>,
    /// The event stands in an earlier record too, with other routes: this record adds routes, not an event.
    pub continued: bool,
}

/// A record of another shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HandedOver {
    /// The shard.
    pub shard: u16,
    /// The record's place in its log.
    pub sequence: u64,
    /// The place of the one that the shard with this record took over before it, in the same run and for the same
    /// destination; 0 if there was none.
    pub previous: u64,
}

/// Where an event was accepted and the clock it got there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Incarnation of the engine.
    pub incarnation: u64,
    /// Shard.
    pub shard: u16,
    /// Sequence in that shard.
    pub sequence: u64,
    /// Hybrid clock there; 0 if that of the record counts.
    pub clock_ns: u64,
    /// Its tie.
    pub tie: u32,
}

const RESOLVES: u8 = 1;
const HOST_CURSOR: u8 = 2;
const ORIGIN: u8 = 3;
const DEDUP: u8 = 4;
const HOPS: u8 = 5;
const HANDED_OVER: u8 = 8;
const CONTINUED: u8 = 6;

impl Extensions {
    /// Whether there is nothing to write.
    #[inline]
    pub fn is_empty(&self) -> bool {
        *self == Extensions::default()
    }

    /// Bytes in the record.
    #[inline]
    pub fn encoded_len(&self) -> usize {
        if self.is_empty() {
            return 0;
        }
        2 + self.resolves.map_or(0, |_| 10)
            + self.host_cursor.map_or(0, |_| 10)
            + self.origin.map_or(0, |_| 32)
            + self.dedup.map_or(0, |_| 18)
            + if self.hops > 0 { 3 } else { 0 }
            + self.handed_over.map_or(0, |_| 20)
            + if self.continued { 2 } else { 0 }
    }

    /// Writes them; `out` has [`Extensions::encoded_len`] bytes, of which there is at least one.
    pub(crate) fn encode(&self, out: &mut [u8]) {
        let len = out.len() as u16;
        out[..2].copy_from_slice(&len.to_le_bytes());
        let mut at = 2;
        let mut put = |tag: u8, value: &[u8]| {
            out[at] = tag;
            out[at + 1] = value.len() as u8;
            out[at + 2..at + 2 + value.len()].copy_from_slice(value);
            at += 2 + value.len();
        };
        if let Some(n) = self.resolves {
            put(RESOLVES, &n.to_le_bytes());
        }
        if let Some(n) = self.host_cursor {
            put(HOST_CURSOR, &n.to_le_bytes());
        }
        if let Some(o) = self.origin {
            let mut b = [0; 30];
            b[..8].copy_from_slice(&o.incarnation.to_le_bytes());
            b[8..16].copy_from_slice(&o.sequence.to_le_bytes());
            b[16..24].copy_from_slice(&o.clock_ns.to_le_bytes());
            b[24..28].copy_from_slice(&o.tie.to_le_bytes());
            b[28..].copy_from_slice(&o.shard.to_le_bytes());
            put(ORIGIN, &b);
        }
        if let Some(n) = self.dedup {
            put(DEDUP, &n.to_le_bytes());
        }
        if self.hops > 0 {
            put(HOPS, &[self.hops]);
        }
        if self.continued {
            put(CONTINUED, &[]);
        }
        if let Some(h) = self.handed_over {
            let mut b = [0; 18];
            b[..8].copy_from_slice(&h.sequence.to_le_bytes());
            b[8..16].copy_from_slice(&h.previous.to_le_bytes());
            b[16..].copy_from_slice(&h.shard.to_le_bytes());
            put(HANDED_OVER, &b);
        }
    }

    /// Reads them; `bytes` are all of them, with the length in front.
    pub(crate) fn decode(bytes: &[u8]) -> Extensions {
        let mut e = Extensions::default();
        let mut rest = bytes.get(2..).unwrap_or_default();
        while let [tag, len, tail @ ..] = rest {
            let Some((value, next)) = tail.split_at_checked(*len as usize) else { break };
            match (*tag, value.len()) {
                (RESOLVES, 8) => e.resolves = Some(u64_at(value, 0)),
                (HOST_CURSOR, 8) => e.host_cursor = Some(u64_at(value, 0)),
                (ORIGIN, 30) => {
                    e.origin = Some(Origin {
                        incarnation: u64_at(value, 0),
                        sequence: u64_at(value, 8),
                        clock_ns: u64_at(value, 16),
                        tie: u32_at(value, 24),
                        shard: u16::from_le_bytes([value[28], value[29]]),
                    });
                }
                (DEDUP, 16) => e.dedup = value.try_into().ok().map(u128::from_le_bytes),
                (HOPS, 1) => e.hops = value[0],
                (HANDED_OVER, 18) => {
                    let shard = u16::from_le_bytes([value[16], value[17]]);
                    let (sequence, previous) = (u64_at(value, 0), u64_at(value, 8));
                    e.handed_over = Some(HandedOver { shard, sequence, previous });
                }
                (CONTINUED, 0) => e.continued = true,
                _ => {}
            }
            rest = next;
        }
        e
    }
}

/// One destination that wants the event, and the rule that says so. Numbers come from `names.json`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// The destination's number.
    pub destination: u32,
    /// The rule's number, below 2^30.
    pub rule: u32,
    /// What goes first when not everything can. Stored, because a rule may change what it says about that.
    pub priority: Priority,
}

/// Where the priority stands in the number of the rule.
const PRIORITY_SHIFT: u32 = 30;

impl Route {
    /// The destination of an event that none wants and that is kept all the same. No name ever has this number.
    pub const NOBODY: u32 = 0;

    /// A route of normal priority.
    pub fn new(destination: u32, rule: u32) -> Route {
        Route { destination, rule, priority: Priority::Normal }
    }

    /// As it is stored: destination, and rule with the priority.
    pub(crate) fn to_words(self) -> (u32, u32) {
        (self.destination, self.rule_word())
    }

    fn rule_word(self) -> u32 {
        let priority = match self.priority {
            Priority::Normal => 0,
            Priority::Low => 1,
            Priority::High => 2,
        };
        (self.rule & !(3 << PRIORITY_SHIFT)) | priority << PRIORITY_SHIFT
    }

    /// Reads what [`Route::to_words`] gave.
    pub(crate) fn from_words(destination: u32, rule: u32) -> Route {
        let priority = match rule >> PRIORITY_SHIFT {
            1 => Priority::Low,
            2 => Priority::High,
            _ => Priority::Normal,
        };
        Route { destination, rule: rule & !(3 << PRIORITY_SHIFT), priority }
    }
}

/// A record's fields in memory.
#[derive(Clone, Copy, Debug)]
pub struct RecordHeader {
    /// What the body is.
    pub kind: Kind,
    /// Place in the log.
    pub sequence: u64,
    /// Hybrid clock, ns since the epoch.
    pub clock_ns: u64,
    /// Counts records with the same clock.
    pub tie: u32,
}

/// The record's length in the segment, padding included.
pub fn padded_len(routes: usize, extensions: &Extensions, body: usize) -> usize {
    (RECORD_HEADER_BYTES + routes * ROUTE_BYTES + extensions.encoded_len() + body).next_multiple_of(8)
}

/// Writes a record into the front of `out`, which must have [`padded_len`] bytes; returns that length.
///
/// # Panics
/// If `out` is shorter.
pub fn encode(
    segment: u64,
    h: &RecordHeader,
    routes: &[Route],
    extensions: &Extensions,
    body: &[u8],
    out: &mut [u8],
) -> usize {
    let extra = extensions.encoded_len();
    let len = RECORD_HEADER_BYTES + routes.len() * ROUTE_BYTES + extra + body.len();
    let padded = len.next_multiple_of(8);
    let out = &mut out[..padded];
    out[4..8].copy_from_slice(&(len as u32).to_le_bytes());
    out[8..16].copy_from_slice(&h.sequence.to_le_bytes());
    out[16] = h.kind as u8;
    out[17] = if extra > 0 { EXTENDED } else { 0 };
    out[18..20].copy_from_slice(&(routes.len() as u16).to_le_bytes());
    out[20..24].copy_from_slice(&h.tie.to_le_bytes());
    out[24..32].copy_from_slice(&h.clock_ns.to_le_bytes());
    let mut at = RECORD_HEADER_BYTES;
    for r in routes {
        out[at..at + 4].copy_from_slice(&r.destination.to_le_bytes());
        out[at + 4..at + 8].copy_from_slice(&r.rule_word().to_le_bytes());
        at += ROUTE_BYTES;
    }
    if extra > 0 {
        extensions.encode(&mut out[at..at + extra]);
        at += extra;
    }
    out[at..len].copy_from_slice(body);
    out[len..].fill(0);
    let crc = checksum(segment, &out[4..len]);
    out[..4].copy_from_slice(&crc.to_le_bytes());
    padded
}

/// Makes a record, without padding, one of this segment.
pub(super) fn readdress(segment: u64, record: &mut [u8]) {
    let crc = checksum(segment, &record[4..]);
    record[..4].copy_from_slice(&crc.to_le_bytes());
}

fn checksum(segment: u64, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&segment.to_le_bytes()), bytes)
}

/// A record read in place.
#[derive(Clone, Copy, Debug)]
pub struct RecordView<'a> {
    bytes: &'a [u8],
    routes: usize,
    extensions: usize,
}

/// What stands at the front of some bytes of a segment.
#[derive(Debug)]
pub enum Parsed<'a> {
    /// A whole, valid record.
    Record(RecordView<'a>),
    /// The record goes on past the bytes given; so many are needed at least.
    Short(usize),
    /// Length zero: nothing was written here.
    End,
    /// Not a record of this segment.
    Invalid,
}

/// Reads the record at the front of `bytes`.
pub fn parse(segment: u64, bytes: &[u8]) -> Parsed<'_> {
    if bytes.len() < RECORD_HEADER_BYTES {
        return Parsed::Short(RECORD_HEADER_BYTES);
    }
    let len = u32_at(bytes, 4) as usize;
    if len == 0 {
        return if u32_at(bytes, 0) == 0 { Parsed::End } else { Parsed::Invalid };
    }
    let routes = u16::from_le_bytes([bytes[18], bytes[19]]) as usize;
    if !(RECORD_HEADER_BYTES..=RECORD_BYTES_MAX).contains(&len)
        || len < RECORD_HEADER_BYTES + routes * ROUTE_BYTES
        || Kind::from_number(bytes[16]).is_none()
    {
        return Parsed::Invalid;
    }
    let padded = len.next_multiple_of(8);
    if bytes.len() < padded {
        return Parsed::Short(padded);
    }
    if u32_at(bytes, 0) != checksum(segment, &bytes[4..len]) {
        return Parsed::Invalid;
    }
    match RecordView::new(&bytes[..len], routes) {
        Some(view) => Parsed::Record(view),
        None => Parsed::Invalid,
    }
}

/// The record at the front of bytes that this process encoded, without checking it again; `None` at their end.
pub(crate) fn parse_trusted(bytes: &[u8]) -> Option<RecordView<'_>> {
    if bytes.len() < RECORD_HEADER_BYTES {
        return None;
    }
    let len = u32_at(bytes, 4) as usize;
    let routes = u16::from_le_bytes([bytes[18], bytes[19]]) as usize;
    RecordView::new(bytes.get(..len)?, routes)
}

impl<'a> RecordView<'a> {
    /// `None` if the lengths in the record contradict each other.
    fn new(bytes: &'a [u8], routes: usize) -> Option<RecordView<'a>> {
        let at = RECORD_HEADER_BYTES + routes * ROUTE_BYTES;
        let rest = bytes.get(at..)?;
        let extensions = if bytes[17] & EXTENDED == 0 {
            0
        } else {
            let len = u16::from_le_bytes([*rest.first()?, *rest.get(1)?]) as usize;
            if !(2..=rest.len()).contains(&len) {
                return None;
            }
            len
        };
        Some(RecordView { bytes, routes, extensions })
    }

    /// The record as it stands, without padding.
    pub(crate) fn raw(&self) -> &'a [u8] {
        self.bytes
    }

    /// The record's length in the segment.
    pub fn padded_len(&self) -> usize {
        self.bytes.len().next_multiple_of(8)
    }

    /// The fixed fields.
    pub fn header(&self) -> RecordHeader {
        RecordHeader {
            kind: Kind::from_number(self.bytes[16]).unwrap_or(Kind::Mark),
            sequence: u64_at(self.bytes, 8),
            clock_ns: u64_at(self.bytes, 24),
            tie: u32_at(self.bytes, 20),
        }
    }

    /// The place in the log.
    pub fn sequence(&self) -> u64 {
        u64_at(self.bytes, 8)
    }

    /// The routes.
    pub fn routes(&self) -> impl ExactSizeIterator<Item = Route> + 'a {
        let bytes = self.bytes;
        (0..self.routes).map(move |i| {
            let at = RECORD_HEADER_BYTES + i * ROUTE_BYTES;
            Route::from_words(u32_at(bytes, at), u32_at(bytes, at + 4))
        })
    }

    /// Whether there are extensions.
    #[inline]
    pub fn is_extended(&self) -> bool {
        self.extensions > 0
    }

    /// The extensions.
    #[inline]
    pub fn extensions(&self) -> Extensions {
        if self.extensions == 0 {
            return Extensions::default();
        }
        let at = RECORD_HEADER_BYTES + self.routes * ROUTE_BYTES;
        Extensions::decode(&self.bytes[at..at + self.extensions])
    }

    /// What the id and the sequencer of its event are made of, for a record that `shard` wrote in this `incarnation`.
    pub fn origin(&self, incarnation: u64, shard: u16) -> Origin {
        let h = self.header();
        let own = Origin { incarnation, shard, sequence: h.sequence, clock_ns: h.clock_ns, tie: h.tie };
        match self.extensions().origin {
            Some(o) if o.clock_ns > 0 => o,
            Some(o) => Origin { clock_ns: own.clock_ns, tie: own.tie, ..o },
            None => own,
        }
    }

    /// The body: a frame, or a dead letter.
    pub fn body(&self) -> &'a [u8] {
        &self.bytes[RECORD_HEADER_BYTES + self.routes * ROUTE_BYTES + self.extensions..]
    }
}

/// Finds the next valid record in `bytes` at an offset that is a multiple of 8 and not before `from`, whose sequence is
/// above `after`. Used to go on behind damage.
///
/// The sequence is checked before the checksum, and must be plausible for the distance, so that damage is passed in
/// about one step per 8 bytes.
pub fn resync(segment: u64, bytes: &[u8], from: usize, after: u64) -> Option<usize> {
    let mut at = from.next_multiple_of(8);
    while at + RECORD_HEADER_BYTES <= bytes.len() {
        let sequence = u64_at(bytes, at + 8);
        let skipped_max = (at - from) as u64 / RECORD_HEADER_BYTES as u64 + 2;
        if sequence > after
            && sequence <= after.saturating_add(skipped_max)
            && let Parsed::Record(_) = parse(segment, &bytes[at..])
        {
            return Some(at);
        }
        at += 8;
    }
    None
}

/// The first valid record in `bytes`, whatever its sequence, at an offset that is a multiple of 8 and not before `from`.
pub fn first(segment: u64, bytes: &[u8], from: usize) -> Option<(usize, RecordView<'_>)> {
    let from = from.next_multiple_of(8);
    (from..bytes.len()).step_by(8).find_map(|at| match parse(segment, &bytes[at..]) {
        Parsed::Record(r) => Some((at, r)),
        Parsed::Short(_) | Parsed::End | Parsed::Invalid => None,
    })
}

/// The longest reason of a dead letter, in bytes; what is longer is cut.
pub const REASON_BYTES_MAX: usize = 1024;
/// The most of an answer's body that a dead letter keeps, in bytes.
pub const ANSWER_BYTES_MAX: usize = 4096;

/// Why and how an event came to be dead, with its original frame. The record's extensions say where the event was accepted
/// ([`Extensions::origin`]) and how often it was dead before ([`Extensions::hops`]).
///
/// ```text
///  0  u32 destination    16  u64 incarnation    36  u64 given up, ns since the epoch
///  4  u32 rule           24  u32 attempts       44  u16 status
///  8  u64 sequence       28  u64 accepted       46  u16 length of the reason; top bit: there is an answer
/// 48  reason, then if there is an answer its u16 length and bytes, then the frame
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter<'a> {
    /// The destination's number.
    pub destination: u32,
    /// The rule's number.
    pub rule: u32,
    /// Sequence in the log that it came from.
    pub sequence: u64,
    /// Incarnation of the segment it came from; with shard and sequence, the event's id.
    pub incarnation: u64,
    /// How often delivery was tried.
    pub attempts: u32,
    /// When it was accepted, ns since the epoch.
    pub first_ns: u64,
    /// When it was given up, ns since the epoch.
    pub last_ns: u64,
    /// The status of the last answer; 0 if there was none.
    pub status: u16,
    /// What went wrong last.
    pub reason: &'a str,
    /// The beginning of the last answer's body, as it came; empty if there was none.
    pub answer: &'a [u8],
    /// The event.
    pub frame: &'a [u8],
}

impl<'a> DeadLetter<'a> {
    const FIXED: usize = 4 + 4 + 8 + 8 + 4 + 8 + 8 + 2 + 2;
    /// In the length of the reason: an answer follows.
    const ANSWERED: u16 = 1 << 15;

    /// The letter as a record's body. The reason is cut to [`REASON_BYTES_MAX`], the answer to [`ANSWER_BYTES_MAX`].
    pub fn encode(&self) -> Vec<u8> {
        let mut cut = self.reason.len().min(REASON_BYTES_MAX);
        while !self.reason.is_char_boundary(cut) {
            cut -= 1;
        }
        let answer = &self.answer[..self.answer.len().min(ANSWER_BYTES_MAX)];
        let mut b = Vec::with_capacity(Self::FIXED + cut + 2 + answer.len() + self.frame.len());
        b.extend_from_slice(&self.destination.to_le_bytes());
        b.extend_from_slice(&self.rule.to_le_bytes());
        b.extend_from_slice(&self.sequence.to_le_bytes());
        b.extend_from_slice(&self.incarnation.to_le_bytes());
        b.extend_from_slice(&self.attempts.to_le_bytes());
        b.extend_from_slice(&self.first_ns.to_le_bytes());
        b.extend_from_slice(&self.last_ns.to_le_bytes());
        b.extend_from_slice(&self.status.to_le_bytes());
        let answered = if answer.is_empty() { 0 } else { Self::ANSWERED };
        b.extend_from_slice(&(cut as u16 | answered).to_le_bytes());
        b.extend_from_slice(&self.reason.as_bytes()[..cut]);
        if !answer.is_empty() {
            b.extend_from_slice(&(answer.len() as u16).to_le_bytes());
            b.extend_from_slice(answer);
        }
        b.extend_from_slice(self.frame);
        b
    }

    /// Reads a record's body.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] if it is not one.
    pub fn decode(b: &'a [u8]) -> Result<DeadLetter<'a>> {
        let corrupt = || Error::new(ErrorKind::Corrupt, "dead letter: shorter than its fields");
        let (fixed, rest) = b.split_at_checked(Self::FIXED).ok_or_else(corrupt)?;
        let lengths = u16::from_le_bytes([fixed[46], fixed[47]]);
        let (reason, mut rest) = rest.split_at_checked((lengths & !Self::ANSWERED) as usize).ok_or_else(corrupt)?;
        let mut answer = &[][..];
        if lengths & Self::ANSWERED != 0 {
            let (len, tail) = rest.split_first_chunk::<2>().ok_or_else(corrupt)?;
            (answer, rest) = tail.split_at_checked(u16::from_le_bytes(*len) as usize).ok_or_else(corrupt)?;
        }
        Ok(DeadLetter {
            destination: u32_at(fixed, 0),
            rule: u32_at(fixed, 4),
            sequence: u64_at(fixed, 8),
            incarnation: u64_at(fixed, 16),
            attempts: u32_at(fixed, 24),
            first_ns: u64_at(fixed, 28),
            last_ns: u64_at(fixed, 36),
            status: u16::from_le_bytes([fixed[44], fixed[45]]),
            reason: std::str::from_utf8(reason)
                .map_err(|_| Error::new(ErrorKind::Corrupt, "dead letter: reason is not UTF-8"))?,
            answer,
            frame: rest,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(segment: u64, sequence: u64, body: &[u8]) -> Vec<u8> {
        extended(segment, sequence, &Extensions::default(), body)
    }

    fn extended(segment: u64, sequence: u64, extensions: &Extensions, body: &[u8]) -> Vec<u8> {
        let routes = [Route::new(1, 2), Route { priority: Priority::High, ..Route::new(3, 4) }];
        let mut out = vec![0xAA; padded_len(routes.len(), extensions, body.len())];
        let h = RecordHeader { kind: Kind::Event, sequence, clock_ns: 77, tie: 5 };
        encode(segment, &h, &routes, extensions, body, &mut out);
        out
    }

    #[test]
    fn round_trip() {
        let r = record(9, 42, b"hello");
        let Parsed::Record(v) = parse(9, &r) else { panic!("not a record") };
        assert_eq!((v.sequence(), v.header().clock_ns, v.header().tie), (42, 77, 5));
        assert_eq!(v.routes().map(|r| (r.destination, r.rule)).collect::<Vec<_>>(), [(1, 2), (3, 4)]);
        assert_eq!(v.routes().map(|r| r.priority).collect::<Vec<_>>(), [Priority::Normal, Priority::High]);
        assert_eq!(v.body(), b"hello");
        assert_eq!(v.padded_len(), r.len());
    }

    #[test]
    fn extensions_round_trip_alone_and_together_and_unknown_ones_are_passed_over() {
        let origin = Origin { incarnation: 1, shard: 2, sequence: 3, clock_ns: 4, tie: 5 };
        let all = Extensions {
            resolves: Some(6),
            host_cursor: Some(7),
            origin: Some(origin),
            dedup: Some(u128::MAX - 1),
            hops: 8,
            handed_over: Some(HandedOver { shard: 9, sequence: 10, previous: 8 }),
            continued: true,
        };
        let none = Extensions::default();
        for e in [
            none,
            Extensions { resolves: all.resolves, ..none },
            Extensions { host_cursor: all.host_cursor, ..none },
            Extensions { origin: all.origin, ..none },
            Extensions { dedup: all.dedup, ..none },
            Extensions { hops: 1, ..none },
            Extensions { handed_over: all.handed_over, ..none },
            Extensions { continued: true, ..none },
            all,
        ] {
            let r = extended(9, 42, &e, b"hello");
            let Parsed::Record(v) = parse(9, &r) else { panic!("not a record") };
            assert_eq!((v.extensions(), v.body(), v.routes().len()), (e, &b"hello"[..], 2));
        }
        let mut unknown = vec![0, 0, 99, 2, 1, 1, HOPS, 1, 3];
        unknown[0] = unknown.len() as u8;
        assert_eq!(Extensions::decode(&unknown), Extensions { hops: 3, ..none });
    }

    #[test]
    fn priorities_take_no_bits_from_the_rule() {
        for priority in [Priority::Low, Priority::Normal, Priority::High] {
            let r = Route { destination: u32::MAX, rule: (1 << 30) - 1, priority };
            assert_eq!(Route::from_words(r.destination, r.rule_word()), r);
        }
        assert_eq!(Route::from_words(1, 2), Route::new(1, 2), "as format 1 wrote it");
    }

    #[test]
    fn a_record_of_another_segment_is_not_taken() {
        assert!(matches!(parse(10, &record(9, 42, b"hello")), Parsed::Invalid));
    }

    #[test]
    fn every_single_bit_flip_is_noticed() {
        let good = record(9, 42, b"some body that is long enough");
        let len = u32_at(&good, 4) as usize;
        for bit in 0..len * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            match parse(9, &bad) {
                Parsed::Record(_) => panic!("bit {bit} was not noticed"),
                Parsed::End => panic!("bit {bit} hides the record"),
                Parsed::Short(_) | Parsed::Invalid => {}
            }
        }
    }

    #[test]
    fn every_cut_is_noticed() {
        let good = record(9, 42, b"body");
        for cut in 0..good.len() {
            assert!(matches!(parse(9, &good[..cut]), Parsed::Short(_)), "cut at {cut}");
        }
    }

    #[test]
    fn resync_finds_the_next_record_behind_damage() {
        let mut log = Vec::new();
        let mut starts = Vec::new();
        for s in 1..=5 {
            starts.push(log.len());
            log.extend(record(1, s, format!("body {s}").as_bytes()));
        }
        log[starts[1] + 40] ^= 1;
        assert!(matches!(parse(1, &log[starts[1]..]), Parsed::Invalid));
        assert_eq!(resync(1, &log, starts[1] + 8, 1), Some(starts[2]));
        assert_eq!(resync(1, &log[..starts[2]], starts[1] + 8, 1), None);
    }

    #[test]
    fn dead_letter_round_trip_and_cuts() {
        for answer in [&b""[..], b"<html>no</html>", &[0xFF; ANSWER_BYTES_MAX]] {
            let d = DeadLetter {
                destination: 1,
                rule: 2,
                sequence: 3,
                incarnation: 4,
                attempts: 5,
                first_ns: 6,
                last_ns: 7,
                status: 503,
                reason: "it said é",
                answer,
                frame: b"frame",
            };
            let b = d.encode();
            assert_eq!(DeadLetter::decode(&b).unwrap(), d);
            for cut in 0..b.len() - d.frame.len() {
                assert!(DeadLetter::decode(&b[..cut]).is_err());
            }
        }
    }

    #[test]
    fn long_reasons_and_answers_of_dead_letters_are_cut() {
        let d = DeadLetter {
            destination: 1,
            rule: 2,
            sequence: 3,
            incarnation: 4,
            attempts: 5,
            first_ns: 6,
            last_ns: 7,
            status: 503,
            reason: &"é".repeat(REASON_BYTES_MAX),
            answer: &[7; 2 * ANSWER_BYTES_MAX],
            frame: b"frame",
        };
        let b = d.encode();
        let got = DeadLetter::decode(&b).unwrap();
        assert_eq!((got.reason.len(), got.answer.len(), got.frame), (REASON_BYTES_MAX, ANSWER_BYTES_MAX, d.frame));
    }
}
