//! The ring: the bounded, lock-free way in from host threads to one shard.
//!
//! Many producers, one consumer, records of any size in one byte buffer. A producer claims space by moving `tail`, copies
//! its payload and then stores the record's stamp, which the consumer waits for. One tail for all
//! producers gives a total order that respects what the threads tell each other: if publishing A happened before
//! publishing B, A comes first.
//!
//! ```text
//! record: u32 length of the payload (top bit = padding to the end of the buffer)     u32 tag of the caller
//!         u64 stamp: what this position must have once the record is committed
//!         payload, padded to 16 bytes
//! ```
//!
//! Positions are bytes since the ring was made and never wrap; they serve as receipts. The stamp is made of the position
//! and a secret of the ring, so neither what an earlier lap left there nor a payload that somebody crafted is taken for a
//! record. The consumer therefore only reads: a ring that must be zeroed behind the consumer moves every cache line
//! between the cores twice.
//!
//! Space can be reserved for records that come later and must not be refused then (see [`Ring::reserve`]). Between head
//! and head + capacity there is at most one end of the buffer, so the records of all reservations together lose at most
//! one padding: what is kept free is the sum of them all plus the largest of them once more.

use std::time::{Duration, Instant};

use crossbeam_utils::CachePadded;

use super::sync::{
    AtomicU8, AtomicU64, AtomicUsize, AtomicWaker, Condvar, Fences, Memory, Mutex, Ordering, WORDS_BYTES, fence,
};

const HEADER_BYTES: u64 = WORDS_BYTES;
/// Records begin at multiples of this.
const ALIGN: u64 = WORDS_BYTES;
/// So much is asked for ahead at most, in the place of a record and of the next one.
const PREFETCH_BYTES: u64 = 4096;
/// What a record of a usual size takes.
const USUAL_BYTES: u64 = 6 * LINE_BYTES;
const LINE_BYTES: u64 = 64;
const PADDING: u32 = 1 << 31;
/// Set in `tail` once the ring takes no more records, but those that were promised space and those of other shards.
const CLOSED: u64 = 1 << 63;
/// Set in `tail` once it takes none at all.
const SEALED: u64 = 1 << 62;
const POSITION: u64 = !(CLOSED | SEALED);

/// The smallest ring, in bytes: it must hold a few of the largest events.
pub const RING_BYTES_MIN: usize = 256 * 1024;

/// What the consumer is doing; tells producers whether a wake-up is due.
const AWAKE: u8 = 0;
/// It sleeps for a moment by itself; only who waits for durability wakes it.
const NAPPING: u8 = 1;
/// It sleeps until woken.
const PARKED: u8 = 2;

/// Why a record was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PushError {
    /// No space now.
    Full,
    /// The ring takes no more records.
    Closed,
}

/// Why no space was reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReserveError {
    /// It would be more than may be reserved at a time, now.
    TooMuch,
    /// No space now.
    Full,
    /// The ring takes no more records.
    Closed,
}

/// What a claim of space may do.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Right {
    /// Takes what is neither used nor reserved.
    Publish,
    /// The same, also when the ring is closed.
    Late,
    /// Takes what was reserved for it, also when the ring is closed.
    Reserved,
}

/// What producers share with each other, in one cache line.
struct Producers {
    /// Where the next record is claimed; with [`CLOSED`] and [`SEALED`].
    tail: AtomicU64,
    /// `head` as a producer saw it last: as long as that leaves space, nobody needs the consumer's line.
    head_seen: AtomicU64,
    /// What is kept free: see [`Reserved`].
    reserved: AtomicU64,
}

/// What producers read and seldom anybody writes, in one cache line.
struct Fixed {
    memory: Memory,
    capacity: u64,
    secret: u64,
    fences: Fences,
    /// What the consumer is doing. It changes only where the consumer sleeps between two records.
    state: AtomicU8,
}

/// The reservations of a ring, in one word: in its low half what is kept free, in its high half the part of that which is
/// for the padding, both in units of [`ALIGN`].
#[derive(Clone, Copy, PartialEq, Eq)]
struct Reserved(u64);

impl Reserved {
    fn new(records: u64, padding: u64) -> Reserved {
        Reserved(((records + padding) / ALIGN) | (padding / ALIGN) << 32)
    }

    /// Bytes kept free.
    #[inline]
    fn bytes(self) -> u64 {
        u64::from(self.0 as u32) * ALIGN
    }

    fn padding(self) -> u64 {
        (self.0 >> 32) * ALIGN
    }

    fn with(self, need: u64) -> Reserved {
        Reserved::new(self.bytes() - self.padding() + need, self.padding().max(need))
    }

    fn without(self, need: u64) -> Reserved {
        let records = (self.bytes() - self.padding()).saturating_sub(need);
        Reserved::new(records, if records == 0 { 0 } else { self.padding() })
    }
}

/// The ring of one shard.
pub struct Ring {
    fixed: CachePadded<Fixed>,
    producers: CachePadded<Producers>,
    head: CachePadded<AtomicU64>,
    /// [`CLOSED`] and [`SEALED`] once more, set right after those in `tail`: the consumer asks often, and a look at `tail`
    /// would take that line away from the publishers.
    ended: AtomicU64,
    waker: AtomicWaker,
    waiting_for_space: CachePadded<AtomicUsize>,
    space_lock: Mutex<()>,
    space: Condvar,
}

impl Ring {
    /// A ring of `capacity` bytes, a power of two of at least [`RING_BYTES_MIN`]. Its memory is touched at once, so that
    /// no publisher pays for a page fault.
    ///
    /// # Panics
    /// If `capacity` is not such a number.
    pub fn new(capacity: usize) -> Ring {
        assert!(capacity.is_power_of_two() && capacity >= RING_BYTES_MIN, "ring capacity {capacity}");
        Ring::of(capacity, getrandom::u64().unwrap_or_else(|_| super::wall_ns()))
    }

    /// A ring of any capacity that is a power of two.
    pub(crate) fn of(capacity: usize, secret: u64) -> Ring {
        Ring {
            fixed: CachePadded::new(Fixed {
                memory: Memory::new(capacity),
                capacity: capacity as u64,
                secret,
                fences: Fences::new(),
                state: AtomicU8::new(AWAKE),
            }),
            producers: CachePadded::new(Producers {
                tail: AtomicU64::new(0),
                head_seen: AtomicU64::new(0),
                reserved: AtomicU64::new(0),
            }),
            head: CachePadded::new(AtomicU64::new(0)),
            ended: AtomicU64::new(0),
            waker: AtomicWaker::new(),
            waiting_for_space: CachePadded::new(AtomicUsize::new(0)),
            space_lock: Mutex::new(()),
            space: Condvar::new(),
        }
    }

    /// The largest payload that fits: with padding before it, it must not be more than there is.
    pub fn payload_bytes_max(&self) -> usize {
        (self.fixed.capacity / 2 - HEADER_BYTES) as usize
    }

    /// Its size in bytes.
    pub fn capacity(&self) -> u64 {
        self.fixed.capacity
    }

    /// What a reservation for a payload of this length counts for by itself.
    pub fn reservation_bytes(len: usize) -> u64 {
        Reserved(0).with(need(len)).bytes()
    }

    fn offset(&self, position: u64) -> u64 {
        position & (self.fixed.capacity - 1)
    }

    /// The two words of the header at a position.
    ///
    /// Header words are accessed atomically; bytes that were payload in another lap are no longer accessed as such when
    /// their place becomes a header (the consumer has passed them before they are claimed again).
    #[inline]
    fn header(&self, position: u64) -> &[AtomicU64; 2] {
        self.fixed.memory.words(self.offset(position))
    }

    /// What stands in the header of a committed record at this position; never zero, which is what new memory has.
    #[inline]
    fn stamp(&self, position: u64) -> u64 {
        (position ^ self.fixed.secret).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1
    }

    #[inline]
    fn commit(&self, position: u64, word: u64) {
        let header = self.header(position);
        header[0].store(word, Ordering::Relaxed);
        header[1].store(self.stamp(position), Ordering::Release);
    }

    /// Asks for the cache lines that a record of a usual size will be written to. To be called as soon as it is known that
    /// there will be one: they come from the consumer's core while the publisher does everything else.
    #[inline]
    pub fn expect_push(&self) {
        self.prefetch(self.producers.tail.load(Ordering::Relaxed), USUAL_BYTES);
    }

    /// Claims `len` bytes, lets `fill` write them, and commits. Returns the position after the record.
    ///
    /// `fill` must neither panic nor block: until it returns the shard waits at this record, and a record that is never
    /// committed would stall the shard for ever.
    ///
    /// # Errors
    /// [`PushError::Full`] or [`PushError::Closed`]; nothing was taken.
    #[inline]
    pub fn push_with(&self, len: usize, tag: u32, fill: impl FnOnce(&mut [u8])) -> Result<u64, PushError> {
        self.push(len, tag, Right::Publish, fill)
    }

    /// As [`Ring::push_with`], also when the ring is closed but not sealed: for what another shard hands over.
    pub fn push_late(&self, len: usize, tag: u32, fill: impl FnOnce(&mut [u8])) -> Result<u64, PushError> {
        self.push(len, tag, Right::Late, fill)
    }

    /// As [`Ring::push_with`], into space that was reserved for a payload of at least `len` bytes, which the caller then
    /// gives back with [`Ring::release`].
    ///
    /// # Errors
    /// [`PushError::Closed`] if the ring is sealed. [`PushError::Full`] only if nothing was reserved.
    pub fn push_reserved(&self, len: usize, tag: u32, fill: impl FnOnce(&mut [u8])) -> Result<u64, PushError> {
        self.push(len, tag, Right::Reserved, fill)
    }

    #[inline(always)]
    fn push(&self, len: usize, tag: u32, right: Right, fill: impl FnOnce(&mut [u8])) -> Result<u64, PushError> {
        debug_assert!(len > 0 && len <= self.payload_bytes_max());
        let need = need(len);
        let start = self.claim(need, right)?;
        // SAFETY: `start..start + need` was claimed by this thread alone, lies within the buffer (`claim` leaves no record
        // across its end), and the consumer does not look past an uncommitted header.
        unsafe { self.fixed.memory.write(self.offset(start) + HEADER_BYTES, len, fill) };
        self.commit(start, len as u64 | u64::from(tag) << 32);
        // The consumer's core has these lines from an earlier lap. What lies farther ahead is not asked for: it would often be
        // another producer's, and lines that a core has taken for itself in vain cost the next one more than the consumer's.
        self.prefetch(start + need, need);
        Ok(start + need)
    }

    /// Claims `need` bytes that do not cross the end of the buffer. Returns where they begin.
    #[inline(always)]
    fn claim(&self, need: u64, right: Right) -> Result<u64, PushError> {
        // Acquire, and Release below: who sees a tail sees the reservations that were made before it, and a head that is
        // at least the one it was checked against.
        let mut seen = self.producers.tail.load(Ordering::Acquire);
        // What usually comes was asked for by `expect_push`.
        if need > USUAL_BYTES {
            self.prefetch_long(self.offset(seen), need);
        }
        loop {
            let refused = if right == Right::Publish { CLOSED | SEALED } else { SEALED };
            if seen & refused != 0 {
                return Err(PushError::Closed);
            }
            let tail = if right == Right::Publish { seen } else { seen & POSITION };
            let to_end = self.fixed.capacity - (tail & (self.fixed.capacity - 1));
            let pad = if to_end < need { to_end } else { 0 };
            let kept = if right == Right::Reserved {
                0
            } else {
                Reserved(self.producers.reserved.load(Ordering::Relaxed)).bytes()
            };
            let end = tail + pad + need;
            // Acquire: the consumer must have read what stands there before it is written again. Whoever stored `head_seen`
            // had acquired it from the consumer.
            if end + kept - self.producers.head_seen.load(Ordering::Acquire).min(tail) > self.fixed.capacity {
                let head = self.head.load(Ordering::Acquire);
                self.producers.head_seen.store(head, Ordering::Release);
                if end + kept - head.min(tail) > self.fixed.capacity {
                    return Err(PushError::Full);
                }
            }
            #[cfg(test)]
            tests::before_claim();
            match self.producers.tail.compare_exchange_weak(
                seen,
                seen + pad + need,
                Ordering::AcqRel,
                Ordering::Acquire,
            ) {
                Ok(_) if pad > 0 => {
                    self.commit(tail, u64::from(PADDING | (pad as u32)));
                    return Ok(tail + pad);
                }
                Ok(_) => return Ok(tail),
                Err(now) => seen = now,
            }
        }
    }

    /// Keeps space free for a payload of up to `len` bytes, whatever others push, so that [`Ring::push_reserved`] cannot
    /// be refused. Of the ring at most `share` bytes are kept for all reservations together.
    ///
    /// # Errors
    /// [`ReserveError`]; then nothing is kept.
    pub fn reserve(&self, len: usize, share: u64) -> Result<(), ReserveError> {
        let need = need(len);
        let reserved = &self.producers.reserved;
        let mut now = Reserved(reserved.load(Ordering::Relaxed));
        loop {
            let more = now.with(need);
            if more.bytes() > share {
                return Err(ReserveError::TooMuch);
            }
            match reserved.compare_exchange_weak(now.0, more.0, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => break,
                Err(other) => now = Reserved(other),
            }
        }
        // A producer who read the old number and has not claimed yet would take the space away. An empty record moves the
        // tail, so that his claim fails and he reads again; and it is claimed only if there is space for everything
        // reserved.
        match self.claim(ALIGN, Right::Publish) {
            Ok(at) => {
                self.commit(at, u64::from(PADDING | ALIGN as u32));
                Ok(())
            }
            Err(e) => {
                self.release(len);
                Err(if e == PushError::Closed { ReserveError::Closed } else { ReserveError::Full })
            }
        }
    }

    /// Gives back what [`Ring::reserve`] kept for a payload of this length.
    pub fn release(&self, len: usize) {
        let reserved = &self.producers.reserved;
        let mut now = Reserved(reserved.load(Ordering::Relaxed));
        while let Err(other) =
            reserved.compare_exchange_weak(now.0, now.without(need(len)).0, Ordering::SeqCst, Ordering::Relaxed)
        {
            now = Reserved(other);
        }
        if self.waiting_for_space.load(Ordering::SeqCst) > 0 {
            let _guard = self.space_lock.lock();
            self.space.notify_all();
        }
        if self.is_closed() {
            // The consumer may be waiting for the last reservation.
            self.wake();
        }
    }

    /// Bytes kept free for reservations.
    pub fn reserved(&self) -> u64 {
        Reserved(self.producers.reserved.load(Ordering::SeqCst)).bytes()
    }

    /// Asks for the cache lines from a position on (with or without flags), all at once: records after one another would
    /// wait for them one by one.
    #[inline(always)]
    fn prefetch(&self, position: u64, bytes: u64) {
        let offset = self.offset(position);
        for line in 0..USUAL_BYTES / LINE_BYTES {
            if line * LINE_BYTES < bytes {
                self.fixed.memory.prefetch(offset + line * LINE_BYTES);
            }
        }
        if bytes > USUAL_BYTES {
            self.prefetch_long(offset, bytes);
        }
    }

    /// What is left of a record that is longer than usual.
    #[inline(never)]
    fn prefetch_long(&self, offset: u64, bytes: u64) {
        for line in (USUAL_BYTES..bytes.min(PREFETCH_BYTES)).step_by(LINE_BYTES as usize) {
            self.fixed.memory.prefetch(offset + line);
        }
    }

    /// Wakes the consumer if it sleeps and, unless `urgent`, does not merely nap. Call after a push.
    #[inline]
    pub fn notify(&self, urgent: bool) {
        // Pairs with the fence in `Consumer::sleep`: either this thread sees the consumer asleep, or the consumer, checking
        // once more before it sleeps, sees the record.
        self.fixed.fences.light();
        let state = self.fixed.state.load(Ordering::Relaxed);
        if state == PARKED || (state == NAPPING && urgent) {
            self.wake();
        }
    }

    /// Wakes the consumer whatever it does.
    #[cold]
    pub fn wake(&self) {
        // What the caller has done before, be it a record or not, is seen by a consumer that was not asleep yet.
        fence(Ordering::SeqCst);
        if self.fixed.state.swap(AWAKE, Ordering::SeqCst) != AWAKE {
            self.waker.wake();
        }
    }

    /// Waits until there may be space, at most until `deadline`. Returns whether it is worth trying again.
    #[cold]
    pub fn wait_for_space(&self, deadline: Option<Instant>) -> bool {
        self.wait_while(deadline, || self.used() + self.reserved() > self.fixed.capacity / 2 && !self.is_closed())
    }

    /// Waits until less may be reserved than now, at most until `deadline`. Returns whether it is worth trying again.
    #[cold]
    pub fn wait_for_release(&self, deadline: Option<Instant>) -> bool {
        let before = self.reserved();
        self.wait_while(deadline, || self.reserved() >= before && !self.is_closed())
    }

    fn wait_while(&self, deadline: Option<Instant>, condition: impl Fn() -> bool) -> bool {
        self.waiting_for_space.fetch_add(1, Ordering::SeqCst);
        self.wake();
        let now = Instant::now();
        // Short rounds: a wake-up that was missed costs a moment, never the deadline.
        let round = now + Duration::from_millis(5);
        let until = deadline.map_or(round, |d| d.min(round));
        let guard = self.space_lock.lock();
        if condition() {
            drop(self.space.wait_until(guard, until));
        }
        self.waiting_for_space.fetch_sub(1, Ordering::SeqCst);
        deadline.is_none_or(|d| Instant::now() < d)
    }

    /// Bytes claimed and not consumed yet.
    pub fn used(&self) -> u64 {
        let head = self.head.load(Ordering::Relaxed);
        (self.producers.tail.load(Ordering::Relaxed) & POSITION).saturating_sub(head)
    }

    /// The position after everything claimed so far.
    pub fn tail(&self) -> u64 {
        self.producers.tail.load(Ordering::SeqCst) & POSITION
    }

    /// The position up to which everything was consumed.
    pub fn head(&self) -> u64 {
        self.head.load(Ordering::Acquire)
    }

    /// Takes no more records from now on but those for which space is reserved and those of other shards. What was claimed
    /// before will still be consumed.
    pub fn close(&self) {
        self.end(CLOSED);
    }

    /// Takes no more records at all from now on.
    pub fn seal(&self) {
        self.end(CLOSED | SEALED);
    }

    fn end(&self, flags: u64) {
        self.producers.tail.fetch_or(flags, Ordering::SeqCst);
        self.ended.fetch_or(flags, Ordering::SeqCst);
        self.wake();
        let _guard = self.space_lock.lock();
        self.space.notify_all();
    }

    /// Whether [`Ring::close`] or [`Ring::seal`] was called.
    pub fn is_closed(&self) -> bool {
        // In one order with the release of a reservation: either who releases sees the close, or who closes the release.
        self.ended.load(Ordering::SeqCst) & CLOSED != 0
    }

    /// Whether [`Ring::seal`] was called.
    pub fn is_sealed(&self) -> bool {
        self.ended.load(Ordering::SeqCst) & SEALED != 0
    }
}

/// What a record with a payload of `len` bytes takes.
#[inline]
fn need(len: usize) -> u64 {
    HEADER_BYTES + (len as u64).next_multiple_of(ALIGN)
}

/// The consuming end; there is one per ring.
pub struct Consumer<'a> {
    ring: &'a Ring,
}

impl<'a> Consumer<'a> {
    /// The consumer of `ring`.
    ///
    /// # Safety
    /// There must never be two of one ring at the same time.
    pub unsafe fn new(ring: &'a Ring) -> Self {
        Consumer { ring }
    }

    /// Hands committed records to `each` as (payload, tag, position after it), until there are no more, `bytes_max` bytes
    /// were consumed, or `each` answers `false` (that record counts as consumed). Returns how many bytes were consumed.
    pub fn drain(&mut self, bytes_max: u64, each: impl FnMut(&[u8], u32, u64) -> bool) -> u64 {
        self.drain_to(u64::MAX, bytes_max, || true, each)
    }

    /// As [`Consumer::drain`], up to a position, and for as long as `may` says so: it is asked after the next record was seen
    /// and before it is consumed, so that it knows what that record's publisher did before.
    ///
    /// The tail is not looked at: that would take its line away from the publisher, who needs it first.
    pub fn drain_to(
        &mut self,
        limit: u64,
        bytes_max: u64,
        may: impl Fn() -> bool,
        mut each: impl FnMut(&[u8], u32, u64) -> bool,
    ) -> u64 {
        let ring = self.ring;
        let start = ring.head.load(Ordering::Relaxed);
        let at = self.walk(limit.min(start.saturating_add(bytes_max)), may, &mut each);
        if at != start {
            // Release: everything must have been read before the space is claimed again.
            ring.head.store(at, Ordering::Release);
            fence(Ordering::SeqCst);
            if ring.waiting_for_space.load(Ordering::Relaxed) > 0 {
                let _guard = ring.space_lock.lock();
                ring.space.notify_all();
            }
        }
        at - start
    }

    /// Shows committed records to `each` as [`Consumer::drain_to`] does, and consumes none. Returns the position after the
    /// last one shown; what is only padding behind it may be passed, too.
    pub fn look_ahead(&self, limit: u64, may: impl Fn() -> bool, mut each: impl FnMut(&[u8], u32, u64) -> bool) -> u64 {
        self.walk(limit, may, &mut each)
    }

    /// Goes through the committed records before `end`; returns how far it came.
    #[inline(always)]
    fn walk(&self, end: u64, may: impl Fn() -> bool, each: &mut impl FnMut(&[u8], u32, u64) -> bool) -> u64 {
        let ring = self.ring;
        let mut at = ring.head.load(Ordering::Relaxed);
        let mut go_on = true;
        while go_on && at < end {
            let header = ring.header(at);
            if header[1].load(Ordering::Acquire) != ring.stamp(at) || !may() {
                break;
            }
            let word = header[0].load(Ordering::Relaxed);
            let len = word as u32;
            if len & PADDING != 0 {
                at += u64::from(len & !PADDING);
                continue;
            }
            let need = need(len as usize);
            let offset = ring.offset(at) + HEADER_BYTES;
            // SAFETY: the Acquire load of the stamp saw the producer's commit, so the payload is initialised and no
            // longer written; it lies within the buffer.
            go_on = unsafe {
                ring.fixed.memory.read(offset, len as usize, |payload| each(payload, (word >> 32) as u32, at + need))
            };
            at += need;
        }
        at
    }

    /// The position of the next record to consume.
    pub fn position(&self) -> u64 {
        self.ring.head.load(Ordering::Relaxed)
    }

    /// Whether nothing is claimed that has not been consumed.
    pub fn is_empty(&self) -> bool {
        self.ring.tail() == self.position()
    }

    /// Watches for a record, at most for `limit`, and does nothing else. Whether there is one.
    pub fn watch(&self, limit: Duration) -> bool {
        let begun = Instant::now();
        loop {
            for _ in 0..8 {
                if self.has_record() {
                    return true;
                }
                // Not more often: each look takes the line away from the publisher who is writing it.
                for _ in 0..64 {
                    std::hint::spin_loop();
                }
            }
            if begun.elapsed() > limit {
                return false;
            }
        }
    }

    fn has_record(&self) -> bool {
        let at = self.position();
        self.ring.header(at)[1].load(Ordering::Acquire) == self.ring.stamp(at)
    }

    /// The tag of the record to consume next, if there is one.
    pub fn next_tag(&self) -> Option<u32> {
        self.has_record().then(|| (self.ring.header(self.position())[0].load(Ordering::Relaxed) >> 32) as u32)
    }

    /// Announces a sleep: parked, or napping (then only urgent pushes wake). Returns `false`, and the consumer is awake, if
    /// there is a record after all. The caller then awaits [`Consumer::woken`] (or a timer) and calls [`Consumer::awake`].
    pub fn sleep(&mut self, nap: bool) -> bool {
        self.ring.fixed.state.swap(if nap { NAPPING } else { PARKED }, Ordering::SeqCst);
        self.ring.fixed.fences.heavy();
        if self.has_record() {
            self.awake();
            return false;
        }
        true
    }

    /// Ends a sleep that nobody else ended.
    pub fn awake(&mut self) {
        self.ring.fixed.state.swap(AWAKE, Ordering::SeqCst);
    }

    /// Ready once somebody has woken the consumer since [`Consumer::sleep`].
    pub fn poll_woken(&self, cx: &mut std::task::Context<'_>) -> std::task::Poll<()> {
        if self.ring.fixed.state.load(Ordering::SeqCst) == AWAKE {
            return std::task::Poll::Ready(());
        }
        self.ring.waker.register(cx.waker());
        if self.ring.fixed.state.load(Ordering::SeqCst) == AWAKE {
            return std::task::Poll::Ready(());
        }
        std::task::Poll::Pending
    }
}

impl Drop for Consumer<'_> {
    /// Nobody is to be woken any more: a waker that is dropped later, on another thread, would leave its task behind.
    fn drop(&mut self) {
        drop(self.ring.waker.take());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::sync::Arc;

    thread_local! {
        static BEFORE_CLAIM: RefCell<Option<Box<dyn FnOnce()>>> = const { RefCell::new(None) };
    }

    /// What a test does at the moment when a producer has looked at everything and not claimed yet.
    pub(super) fn before_claim() {
        if let Some(act) = BEFORE_CLAIM.take() {
            act();
        }
    }

    #[test]
    fn records_come_out_in_order_across_the_end_of_the_buffer() {
        let ring = Ring::new(RING_BYTES_MIN);
        // SAFETY: the only consumer of this ring.
        let mut c = unsafe { Consumer::new(&ring) };
        let mut expect = 0u64;
        let mut next = 0u64;
        for round in 0..2_000u64 {
            for _ in 0..(round % 7 + 1) {
                let len = 8 + (next * 37 % 3_000) as usize;
                let r = ring.push_with(len, next as u32, |b| {
                    b.fill(next as u8);
                    b[..8].copy_from_slice(&next.to_le_bytes());
                });
                if r.is_err() {
                    break;
                }
                next += 1;
            }
            c.drain(u64::MAX, |b, tag, _| {
                assert_eq!(b[..8], expect.to_le_bytes());
                assert_eq!(tag, expect as u32);
                assert_eq!(b.len(), 8 + (expect * 37 % 3_000) as usize);
                assert!(b[8..].iter().all(|x| *x == expect as u8));
                expect += 1;
                true
            });
        }
        assert_eq!(next, expect);
        assert!(next > 5_000 && c.is_empty());
    }

    #[test]
    fn full_ring_refuses_and_takes_again_after_draining() {
        let ring = Ring::new(RING_BYTES_MIN);
        // SAFETY: the only consumer of this ring.
        let mut c = unsafe { Consumer::new(&ring) };
        let mut n = 0;
        while ring.push_with(1_000, 0, |b| b.fill(1)).is_ok() {
            n += 1;
        }
        assert_eq!(ring.push_with(1_000, 0, |b| b.fill(1)), Err(PushError::Full));
        assert!(n > 200);
        assert!(!ring.wait_for_space(Some(Instant::now() + Duration::from_millis(1))) || ring.used() > 0);
        let mut seen = 0;
        c.drain(u64::MAX, |_, _, _| {
            seen += 1;
            true
        });
        assert_eq!(seen, n);
        assert!(ring.push_with(1_000, 0, |b| b.fill(1)).is_ok());
    }

    #[test]
    fn closed_ring_refuses_but_keeps_what_it_has() {
        let ring = Ring::new(RING_BYTES_MIN);
        // SAFETY: the only consumer of this ring.
        let mut c = unsafe { Consumer::new(&ring) };
        ring.push_with(5, 9, |b| b.copy_from_slice(b"hello")).unwrap();
        ring.close();
        assert_eq!(ring.push_with(5, 0, |_| ()), Err(PushError::Closed));
        let mut got = Vec::new();
        c.drain(u64::MAX, |b, _, _| {
            got.extend_from_slice(b);
            true
        });
        assert_eq!(got, b"hello");
        assert!(c.is_empty());
    }

    #[test]
    fn four_producers_lose_nothing_and_keep_their_own_order() {
        const EACH: u64 = if cfg!(miri) { 200 } else { 50_000 };
        let ring = Arc::new(Ring::new(RING_BYTES_MIN));
        let threads: Vec<_> = (0..4u64)
            .map(|t| {
                let ring = ring.clone();
                std::thread::spawn(move || {
                    for i in 0..EACH {
                        while ring
                            .push_with(16 + (i % 50) as usize, 0, |b| {
                                b[..8].copy_from_slice(&t.to_le_bytes());
                                b[8..16].copy_from_slice(&i.to_le_bytes());
                            })
                            .is_err()
                        {
                            ring.wait_for_space(None);
                        }
                        ring.notify(false);
                    }
                })
            })
            .collect();
        // SAFETY: the only consumer of this ring.
        let mut c = unsafe { Consumer::new(&ring) };
        let mut next = [0u64; 4];
        let mut total = 0;
        while total < 4 * EACH {
            c.drain(64 * 1024, |b, _, _| {
                let t = u64::from_le_bytes(b[..8].try_into().unwrap()) as usize;
                let i = u64::from_le_bytes(b[8..16].try_into().unwrap());
                assert_eq!(i, next[t]);
                next[t] += 1;
                total += 1;
                true
            });
        }
        for t in threads {
            t.join().unwrap();
        }
    }

    #[test]
    fn sleeping_consumer_is_woken_once_per_sleep() {
        use std::sync::atomic::AtomicUsize;
        use std::task::{Context, Poll, Wake, Waker};
        struct Count(AtomicUsize);
        impl Wake for Count {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Ordering::SeqCst);
            }
        }
        let count = Arc::new(Count(AtomicUsize::new(0)));
        let waker = Waker::from(count.clone());
        let mut cx = Context::from_waker(&waker);
        let ring = Ring::new(RING_BYTES_MIN);
        // SAFETY: the only consumer of this ring.
        let mut c = unsafe { Consumer::new(&ring) };
        assert!(c.sleep(false));
        assert_eq!(c.poll_woken(&mut cx), Poll::Pending);
        for _ in 0..10 {
            ring.push_with(8, 0, |b| b.fill(1)).unwrap();
            ring.notify(false);
        }
        assert_eq!(count.0.load(Ordering::SeqCst), 1);
        assert_eq!(c.poll_woken(&mut cx), Poll::Ready(()));
        assert!(!c.sleep(false), "records are waiting, so it must not sleep");
        c.drain(u64::MAX, |_, _, _| true);
        // A nap is left alone by who does not wait, and ended by who does.
        assert!(c.sleep(true));
        assert_eq!(c.poll_woken(&mut cx), Poll::Pending);
        ring.push_with(8, 0, |b| b.fill(1)).unwrap();
        ring.notify(false);
        assert_eq!(count.0.load(Ordering::SeqCst), 1);
        ring.notify(true);
        assert_eq!(count.0.load(Ordering::SeqCst), 2);
    }

    /// Fills the ring with records of `len` bytes.
    fn fill(ring: &Ring, len: usize) -> usize {
        let mut n = 0;
        while ring.push_with(len, 0, |b| b.fill(1)).is_ok() {
            n += 1;
        }
        n
    }

    #[test]
    fn a_reservation_has_space_in_a_ring_that_others_fill() {
        let ring = Ring::new(RING_BYTES_MIN);
        // SAFETY: the only consumer of this ring.
        let mut c = unsafe { Consumer::new(&ring) };
        for round in 0..200 {
            // So that the end of the buffer comes at another place each time.
            ring.push_with(1 + round * 37 % 9000, 0, |b| b.fill(1)).unwrap();
            c.drain(u64::MAX, |_, _, _| true);
            let lens: Vec<usize> = (0..20).map(|i| 100 + (i * 977 + round * 131) % 3000).collect();
            for len in &lens {
                ring.reserve(*len, ring.capacity() / 2).unwrap();
            }
            fill(&ring, 700 + round);
            fill(&ring, 1);
            for len in lens {
                ring.push_reserved(len, 7, |b| b.fill(2)).unwrap();
                ring.release(len);
                assert!(ring.used() <= ring.capacity());
            }
            assert_eq!(ring.reserved(), 0);
            let mut reserved = 0;
            c.drain(u64::MAX, |_, tag, _| {
                reserved += usize::from(tag == 7);
                true
            });
            assert_eq!(reserved, 20);
        }
    }

    #[test]
    fn no_more_is_reserved_than_the_share_and_what_is_free() {
        let ring = Ring::new(RING_BYTES_MIN);
        let share = ring.capacity() / 2;
        let mut n = 0;
        while ring.reserve(1000, share).is_ok() {
            n += 1;
        }
        assert_eq!(ring.reserve(1000, share), Err(ReserveError::TooMuch));
        assert!(ring.reserved() <= share && ring.reserved() > share - 2 * need(1000));
        fill(&ring, 1);
        for _ in 0..n {
            ring.release(1000);
        }
        assert_eq!(ring.reserved(), 0);
        fill(&ring, 1);
        assert_eq!(ring.reserve(1000, share), Err(ReserveError::Full));
        assert_eq!(ring.reserved(), 0);
        ring.close();
        assert_eq!(ring.reserve(1000, share), Err(ReserveError::Closed));
        assert_eq!(ring.reserved(), 0);
    }

    #[test]
    fn what_was_reserved_is_taken_after_the_close_and_not_after_the_seal() {
        let ring = Ring::new(RING_BYTES_MIN);
        // SAFETY: the only consumer of this ring.
        let mut c = unsafe { Consumer::new(&ring) };
        ring.reserve(8, u64::MAX).unwrap();
        ring.close();
        assert_eq!(ring.push_with(8, 0, |_| ()), Err(PushError::Closed));
        ring.push_late(8, 1, |b| b.fill(1)).unwrap();
        ring.push_reserved(8, 2, |b| b.fill(1)).unwrap();
        ring.seal();
        assert_eq!(ring.push_reserved(8, 0, |_| ()), Err(PushError::Closed));
        assert_eq!(ring.push_late(8, 0, |_| ()), Err(PushError::Closed));
        let mut tags = Vec::new();
        c.drain(u64::MAX, |_, tag, _| {
            tags.push(tag);
            true
        });
        assert_eq!(tags, [1, 2]);
        assert!(c.is_empty());
    }

    #[test]
    fn a_publisher_about_to_claim_does_not_take_what_is_reserved_just_then() {
        let ring: &'static Ring = Box::leak(Box::new(Ring::new(RING_BYTES_MIN)));
        while ring.used() < ring.capacity() / 2 {
            ring.push_with(1000, 0, |b| b.fill(1)).unwrap();
        }
        let left = (ring.capacity() - ring.used() - 2 * HEADER_BYTES) as usize;
        BEFORE_CLAIM.set(Some(Box::new(move || ring.reserve(left / 3, ring.capacity() / 2).unwrap())));
        assert_eq!(ring.push_with(left / 2, 0, |b| b.fill(1)), Err(PushError::Full));
        assert!(BEFORE_CLAIM.take().is_none(), "it was about to claim");
        ring.push_reserved(left / 3, 0, |b| b.fill(1)).unwrap();
    }

    #[test]
    fn publishers_never_take_what_others_have_reserved_meanwhile() {
        const EACH: usize = if cfg!(miri) { 50 } else { 50_000 };
        let ring = Ring::new(RING_BYTES_MIN);
        // SAFETY: the only consumer of this ring.
        let mut c = unsafe { Consumer::new(&ring) };
        let (done, holders) = (AtomicUsize::new(0), 2);
        std::thread::scope(|s| {
            for t in 0..holders {
                let (ring, done) = (&ring, &done);
                s.spawn(move || {
                    for i in 0..EACH {
                        let len = 16 + (i * 7919 + t * 31) % 6000;
                        if ring.reserve(len, ring.capacity() / 2).is_ok() {
                            let pushed = i % 16 != 0 || ring.push_reserved(len - len % 4, 1, |b| b.fill(1)).is_ok();
                            ring.release(len);
                            assert!(pushed, "space that was reserved was taken");
                        }
                    }
                    done.fetch_add(1, Ordering::SeqCst);
                });
            }
            for t in 0..2 {
                let (ring, done) = (&ring, &done);
                s.spawn(move || {
                    let mut i = 0;
                    while done.load(Ordering::SeqCst) < holders {
                        let _ = ring.push_with(1 + (i * 104_729 + t) % 100_000, 0, |b| b[0] = 3);
                        i += 1;
                    }
                });
            }
            while done.load(Ordering::SeqCst) < holders {
                c.drain(3000, |_, _, _| true);
            }
        });
        assert_eq!(ring.reserved(), 0);
    }
}
