//! The ring by which one process gives another its events: one writer, one reader, records of any size.
//!
//! ```text
//! a page of words (see `Words`), then the records, one after the other:
//! u32 length of the payload   u8 kind   u8 ack level   u16 0   u64 stamp   payload, padded to 8 bytes
//! ```
//!
//! Positions are bytes since the client began and never wrap; they serve as receipts. The stamp is the monotonic clock at the
//! time of the call, which all processes of a machine read alike: it tells in which order calls of several processes were.
//!
//! The server trusts nothing that stands here. It reads each word once, copies a record before it looks at it, and keeps its
//! own account of where it is. What it writes it never reads.

use std::io;
use std::os::fd::BorrowedFd;

use super::memory::{Mapping, Mirrored, PAGE_BYTES};
use super::sync::{AtomicU32, AtomicU64, Ordering, fence};
use crate::log::Ack;

/// Records begin at multiples of this.
const ALIGN: u64 = 8;
const HEADER_BYTES: u64 = 16;

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    /// An event whose publisher has been told that it is accepted: its frame.
    Event = 1,
    /// One whose publisher waits for the answer: an [`super::wire::Asked`], and the frame.
    Asked = 2,
    /// The event of a durable reservation: its token, and the frame.
    Commit = 3,
    /// The end of a durable reservation: its token.
    Abort = 4,
}

/// What both sides tell each other beside the records. Each line is written by one side.
#[derive(Default)]
#[repr(C)]
pub(super) struct Words {
    client: ClientWords,
    server: ServerWords,
}

#[derive(Default)]
#[repr(C, align(128))]
struct ClientWords {
    tail: AtomicU64,
    /// The client waits for space.
    wants_space: AtomicU32,
    /// Events that no rule wanted, which never came into the ring.
    no_match: AtomicU64,
}

#[derive(Default)]
#[repr(C, align(128))]
struct ServerWords {
    /// Up to here the ring is free again.
    head: AtomicU64,
    /// The end of the record that is being taken in.
    taking: AtomicU64,
    /// Up to here every record that asked to be written is written.
    written: AtomicU64,
    /// Up to here every record that asked to be durable is durable.
    synced: AtomicU64,
}

/// The memory of a ring, on either side.
#[derive(Debug)]
pub(super) struct Ring {
    mapping: Mapping,
    capacity: u64,
}

/// How far the server says it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Reached {
    /// Taken out, or being taken.
    pub(super) taken: u64,
    /// Taken out for sure.
    pub(super) head: u64,
    pub(super) written: u64,
    pub(super) synced: u64,
}

/// The bytes of the file of a ring that holds `capacity` bytes of records.
pub(super) fn file_bytes(capacity: usize) -> usize {
    PAGE_BYTES + capacity
}

impl Ring {
    /// Maps a ring of `capacity` bytes, a power of two that is a multiple of a page.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn map(fd: BorrowedFd<'_>, capacity: usize) -> io::Result<Ring> {
        const { assert!(size_of::<Words>() <= PAGE_BYTES) };
        assert!(capacity.is_power_of_two() && capacity >= PAGE_BYTES, "ring capacity {capacity}");
        let mirrored = Mirrored { from: PAGE_BYTES, bytes: capacity };
        let mapping = Mapping::new(fd, file_bytes(capacity), Some(mirrored), true)?;
        Ok(Ring { mapping, capacity: capacity as u64 })
    }

    #[inline]
    fn words(&self) -> &Words {
        // SAFETY: atomics alone, aligned to less than a page.
        unsafe { self.mapping.front() }
    }

    /// Where in the mapping the bytes from a position on begin; so many are there in one piece.
    #[inline]
    fn offset(&self, position: u64, bytes: u64) -> usize {
        assert!(bytes <= self.capacity, "longer than the ring");
        PAGE_BYTES + (position & (self.capacity - 1)) as usize
    }

    /// The eight bytes at a position, which the other side may write meanwhile.
    #[inline]
    fn word(&self, position: u64) -> u64 {
        self.mapping.word(self.offset(position, 8))
    }

    /// The largest payload that a ring takes.
    pub(super) fn payload_bytes_max(&self) -> usize {
        (self.capacity / 4 - HEADER_BYTES) as usize
    }

    pub(super) fn capacity(&self) -> u64 {
        self.capacity
    }

    /// Where both sides begin. By the server, before the client has the ring.
    pub(super) fn begin(&self, position: u64) {
        let words = self.words();
        words.client.tail.store(position, Ordering::Relaxed);
        let s = &words.server;
        for word in [&s.head, &s.taking, &s.written, &s.synced] {
            word.store(position, Ordering::Release);
        }
    }

    /// What the server has said.
    pub(super) fn reached(&self) -> Reached {
        let s = &self.words().server;
        // The levels first: what is at a level was taken before.
        let (written, synced) = (s.written.load(Ordering::Acquire), s.synced.load(Ordering::Acquire));
        let (taking, head) = (s.taking.load(Ordering::Acquire), s.head.load(Ordering::Acquire));
        Reached { taken: taking.max(head), head, written, synced }
    }

    /// Tells the server that somebody waits for space.
    pub(super) fn want_space(&self) {
        self.words().client.wants_space.store(1, Ordering::SeqCst);
        // Before the next look at the head.
        fence(Ordering::SeqCst);
    }

    /// Counts an event that no rule wants.
    pub(super) fn count_no_match(&self) {
        self.words().client.no_match.fetch_add(1, Ordering::Relaxed);
    }
}

/// What a record takes in the ring.
#[inline]
pub(super) fn need(len: usize) -> u64 {
    (HEADER_BYTES + len as u64).next_multiple_of(ALIGN)
}

/// The side that writes.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) ring: std::sync::Arc<Ring>,
    tail: u64,
    head_seen: u64,
}

impl Writer {
    pub(super) fn new(ring: std::sync::Arc<Ring>, position: u64) -> Writer {
        Writer { ring, tail: position, head_seen: position }
    }

    /// Where the next record will begin.
    pub(super) fn tail(&self) -> u64 {
        self.tail
    }

    /// Bytes that the server has not given back.
    fn used(&self, head: u64) -> u64 {
        // A server that says nonsense gives nothing.
        let used = self.tail.wrapping_sub(head);
        if used > self.ring.capacity { self.ring.capacity } else { used }
    }

    /// Whether there is space for a record of `bytes`, with `kept` bytes left over.
    #[inline]
    pub(super) fn has_space(&mut self, bytes: u64, kept: u64) -> bool {
        if self.used(self.head_seen) + bytes + kept <= self.ring.capacity {
            return true;
        }
        // Acquire: what stood there was read before it is written again.
        self.head_seen = self.ring.words().server.head.load(Ordering::Acquire);
        self.used(self.head_seen) + bytes + kept <= self.ring.capacity
    }

    /// Writes a record, for which there is space, and returns the position after it. `fill` gets `len` bytes.
    ///
    /// # Panics
    /// If the record is longer than the ring.
    #[inline]
    pub(super) fn push(&mut self, kind: Kind, ack: Ack, stamp: u64, len: usize, fill: impl FnOnce(&mut [u8])) -> u64 {
        let need = need(len);
        let head = HEADER_BYTES as usize;
        let first = len as u64 | (kind as u64) << 32 | (ack as u64) << 40;
        let write = |out: &mut [u8]| {
            out[..8].copy_from_slice(&first.to_ne_bytes());
            out[8..head].copy_from_slice(&stamp.to_ne_bytes());
            fill(&mut out[head..head + len]);
        };
        // SAFETY: these bytes are this side's alone until the tail says otherwise.
        unsafe { self.ring.mapping.write(self.ring.offset(self.tail, need), need as usize, write) };
        self.publish(need)
    }

    fn publish(&mut self, need: u64) -> u64 {
        self.tail = self.tail.wrapping_add(need);
        self.ring.words().client.tail.store(self.tail, Ordering::Release);
        self.tail
    }

    /// Copies the records that another ring holds from `head` on: what a server that is gone has not taken.
    /// `false` if they do not fit.
    pub(super) fn take_over(&mut self, from: &Writer, head: u64) -> bool {
        let left = from.tail.wrapping_sub(head);
        if left == 0 {
            return true;
        }
        if left > self.ring.capacity || left > from.ring.capacity {
            return false;
        }
        let copy = |out: &mut [u8]| {
            for (n, word) in out.chunks_exact_mut(8).enumerate() {
                word.copy_from_slice(&from.ring.word(head.wrapping_add(n as u64 * 8)).to_ne_bytes());
            }
        };
        // SAFETY: as for a record; the other mapping is of another file.
        unsafe { self.ring.mapping.write(self.ring.offset(self.tail, left), left as usize, copy) };
        self.publish(left);
        true
    }

    /// Whether the server has not taken everything.
    pub(super) fn has_records(&self) -> bool {
        self.ring.words().server.head.load(Ordering::Acquire) != self.tail
    }

    /// Whether so much waits, as far as is known here, that the server should be at it.
    pub(super) fn is_half_full(&self) -> bool {
        self.used(self.head_seen) > self.ring.capacity / 2
    }
}

/// What a record says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) kind: Kind,
    pub(super) ack: Ack,
    pub(super) stamp: u64,
    len: usize,
    /// The position after the record.
    pub(super) end: u64,
}

/// The side that reads.
#[derive(Debug)]
pub(super) struct Reader {
    pub(super) ring: std::sync::Arc<Ring>,
    head: u64,
    /// Up to here there are records.
    limit: u64,
    no_match_seen: u64,
}

/// What a client has written that no client writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Nonsense(pub(super) &'static str);

impl Reader {
    pub(super) fn new(ring: std::sync::Arc<Ring>, position: u64) -> Reader {
        Reader { ring, head: position, limit: position, no_match_seen: 0 }
    }

    /// Looks how far the client has written.
    #[inline]
    pub(super) fn look(&mut self) -> Result<(), Nonsense> {
        let tail = self.ring.words().client.tail.load(Ordering::Acquire);
        if tail.wrapping_sub(self.head) > self.ring.capacity || !tail.is_multiple_of(ALIGN) {
            return Err(Nonsense("its end is not within the ring"));
        }
        self.limit = tail;
        Ok(())
    }

    /// Whether there is something to read, now.
    pub(super) fn has_more(&self) -> bool {
        self.ring.words().client.tail.load(Ordering::Acquire) != self.head
    }

    /// What the next record says of itself, of those that the last look has seen.
    #[inline]
    pub(super) fn peek(&self) -> Result<Option<Header>, Nonsense> {
        let left = self.limit.wrapping_sub(self.head);
        if left == 0 {
            return Ok(None);
        }
        if left < HEADER_BYTES {
            return Err(Nonsense("a record is cut short"));
        }
        let (first, stamp) = (self.ring.word(self.head), self.ring.word(self.head.wrapping_add(8)));
        let len = first as u32 as usize;
        if len > self.ring.payload_bytes_max() || need(len) > left {
            return Err(Nonsense("a record is longer than what there is"));
        }
        let kind = match (first >> 32) as u8 {
            1 => Kind::Event,
            2 => Kind::Asked,
            3 => Kind::Commit,
            4 => Kind::Abort,
            _ => return Err(Nonsense("a record is of no kind")),
        };
        let ack = match (first >> 40) as u8 {
            0 => Ack::Memory,
            1 => Ack::Written,
            2 => Ack::Synced,
            _ => return Err(Nonsense("a record asks for no level")),
        };
        if first >> 48 != 0 {
            return Err(Nonsense("a record has a mark of no meaning"));
        }
        Ok(Some(Header { kind, ack, stamp, len, end: self.head.wrapping_add(need(len)) }))
    }

    /// Copies the payload of the next record.
    pub(super) fn copy(&self, header: &Header, out: &mut Vec<u8>) {
        out.clear();
        let mut position = self.head.wrapping_add(HEADER_BYTES);
        // With what pads it, which goes again.
        while out.len() < header.len {
            out.extend_from_slice(&self.ring.word(position).to_ne_bytes());
            position = position.wrapping_add(8);
        }
        out.truncate(header.len);
    }

    /// The record is about to be taken in. If this process ends before it says more, the client knows which one it does not
    /// know about.
    #[inline]
    pub(super) fn taking(&self, header: &Header) {
        self.ring.words().server.taking.store(header.end, Ordering::Release);
    }

    /// It is not taken in yet.
    pub(super) fn not_taking(&self) {
        self.ring.words().server.taking.store(self.head, Ordering::Release);
    }

    /// It was taken in; its space is free.
    #[inline]
    pub(super) fn taken(&mut self, header: &Header) {
        self.head = header.end;
        self.ring.words().server.head.store(self.head, Ordering::Release);
    }

    /// Whether the client waits for space; it is told once.
    pub(super) fn space_wanted(&self) -> bool {
        // After the head was stored: either this sees that the client waits, or the client sees the head.
        fence(Ordering::SeqCst);
        let wants = &self.ring.words().client.wants_space;
        wants.load(Ordering::Relaxed) != 0 && wants.swap(0, Ordering::SeqCst) != 0
    }

    /// Events that were counted as wanted by no rule since the last time. A client may say what it likes.
    pub(super) fn new_no_match(&mut self) -> u64 {
        let now = self.ring.words().client.no_match.load(Ordering::Relaxed);
        let new = now.wrapping_sub(self.no_match_seen);
        self.no_match_seen = now;
        if new > u64::from(u32::MAX) { 0 } else { new }
    }

    /// Tells the client how far a level has come.
    pub(super) fn tell_reached(&self, ack: Ack, position: u64) {
        let s = &self.ring.words().server;
        match ack {
            Ack::Memory => {}
            Ack::Written => s.written.store(position, Ordering::Release),
            Ack::Synced => s.synced.store(position, Ordering::Release),
        }
    }
}

#[cfg(test)]
#[path = "ring/tests.rs"]
mod tests;
