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

use std::time::{Duration, Instant};

use crossbeam_utils::CachePadded;

use super::sync::{
    AtomicU8, AtomicU64, AtomicUsize, AtomicWaker, Condvar, Fences, Memory, Mutex, Ordering, WORDS_BYTES, fence,
};

const HEADER_BYTES: u64 = WORDS_BYTES;
/// Records begin at multiples of this.
const ALIGN: u64 = WORDS_BYTES;
/// How far ahead of the producers lines are asked for.
const PREFETCH_BYTES: u64 = 2048;
const PADDING: u32 = 1 << 31;
/// Set in `tail` once the ring takes no more records.
const CLOSED: u64 = 1 << 63;

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

/// What producers share with each other, in one cache line.
struct Producers {
    /// Where the next record is claimed; with [`CLOSED`].
    tail: AtomicU64,
    /// `head` as a producer saw it last: as long as that leaves space, nobody needs the consumer's line.
    head_seen: AtomicU64,
}

/// The ring of one shard.
pub struct Ring {
    memory: Memory,
    capacity: u64,
    secret: u64,
    producers: CachePadded<Producers>,
    head: CachePadded<AtomicU64>,
    state: CachePadded<AtomicU8>,
    fences: Fences,
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
            memory: Memory::new(capacity),
            capacity: capacity as u64,
            secret,
            producers: CachePadded::new(Producers { tail: AtomicU64::new(0), head_seen: AtomicU64::new(0) }),
            head: CachePadded::new(AtomicU64::new(0)),
            state: CachePadded::new(AtomicU8::new(AWAKE)),
            fences: Fences::new(),
            waker: AtomicWaker::new(),
            waiting_for_space: CachePadded::new(AtomicUsize::new(0)),
            space_lock: Mutex::new(()),
            space: Condvar::new(),
        }
    }

    /// The largest payload that fits.
    pub fn payload_bytes_max(&self) -> usize {
        (self.capacity / 4 - HEADER_BYTES) as usize
    }

    fn offset(&self, position: u64) -> u64 {
        position & (self.capacity - 1)
    }

    /// The two words of the header at a position.
    ///
    /// Header words are accessed atomically; bytes that were payload in another lap are no longer accessed as such when
    /// their place becomes a header (the consumer has passed them before they are claimed again).
    #[inline]
    fn header(&self, position: u64) -> &[AtomicU64; 2] {
        self.memory.words(self.offset(position))
    }

    /// What stands in the header of a committed record at this position; never zero, which is what new memory has.
    #[inline]
    fn stamp(&self, position: u64) -> u64 {
        (position ^ self.secret).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1
    }

    #[inline]
    fn commit(&self, position: u64, word: u64) {
        let header = self.header(position);
        header[0].store(word, Ordering::Relaxed);
        header[1].store(self.stamp(position), Ordering::Release);
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
        debug_assert!(len > 0 && len <= self.payload_bytes_max());
        let need = HEADER_BYTES + (len as u64).next_multiple_of(ALIGN);
        let mut tail = self.producers.tail.load(Ordering::Relaxed);
        let (start, pad) = loop {
            if tail & CLOSED != 0 {
                return Err(PushError::Closed);
            }
            let to_end = self.capacity - self.offset(tail);
            let pad = if to_end < need { to_end } else { 0 };
            // Acquire: the consumer must have read what stands there before it is written again. Whoever stored `head_seen`
            // had acquired it from the consumer.
            if tail + pad + need - self.producers.head_seen.load(Ordering::Acquire).min(tail) > self.capacity {
                let head = self.head.load(Ordering::Acquire);
                self.producers.head_seen.store(head, Ordering::Release);
                if tail + pad + need - head.min(tail) > self.capacity {
                    return Err(PushError::Full);
                }
            }
            match self.producers.tail.compare_exchange_weak(
                tail,
                tail + pad + need,
                Ordering::Relaxed,
                Ordering::Relaxed,
            ) {
                Ok(_) => break (tail + pad, pad),
                Err(now) => tail = now,
            }
        };
        if pad > 0 {
            self.commit(tail, u64::from(PADDING | (pad as u32)));
        }
        // SAFETY: `start..start + need` was claimed by this thread alone, lies within the buffer (it does not cross the
        // end, see `pad`), and the consumer does not look past an uncommitted header.
        unsafe { self.memory.write(self.offset(start) + HEADER_BYTES, len, fill) };
        self.commit(start, len as u64 | u64::from(tag) << 32);
        self.prefetch(start + need);
        Ok(start + need)
    }

    /// Asks for the cache lines that the next record of about this size will be written to. The consumer's core has them
    /// from an earlier lap, and without this each record would wait for its predecessor's lines, one by one.
    #[inline]
    fn prefetch(&self, position: u64) {
        for ahead in (0..PREFETCH_BYTES).step_by(64) {
            self.memory.prefetch(self.offset(position + ahead));
        }
    }

    /// Wakes the consumer if it sleeps and, unless `urgent`, does not merely nap. Call after a push.
    #[inline]
    pub fn notify(&self, urgent: bool) {
        // Pairs with the fence in `Consumer::sleep`: either this thread sees the consumer asleep, or the consumer, checking
        // once more before it sleeps, sees the record.
        self.fences.light();
        let state = self.state.load(Ordering::Relaxed);
        if state == PARKED || (state == NAPPING && urgent) {
            self.wake();
        }
    }

    /// Wakes the consumer whatever it does.
    #[cold]
    pub fn wake(&self) {
        // What the caller has done before, be it a record or not, is seen by a consumer that was not asleep yet.
        fence(Ordering::SeqCst);
        if self.state.swap(AWAKE, Ordering::SeqCst) != AWAKE {
            self.waker.wake();
        }
    }

    /// Waits until there may be space, at most until `deadline`. Returns whether it is worth trying again.
    #[cold]
    pub fn wait_for_space(&self, deadline: Option<Instant>) -> bool {
        self.waiting_for_space.fetch_add(1, Ordering::SeqCst);
        self.wake();
        let now = Instant::now();
        // Short rounds: a wake-up that was missed costs a moment, never the deadline.
        let round = now + Duration::from_millis(5);
        let until = deadline.map_or(round, |d| d.min(round));
        let mut guard = self.space_lock.lock();
        if self.used() > self.capacity / 2 && !self.is_closed() {
            self.space.wait_until(&mut guard, until);
        }
        drop(guard);
        self.waiting_for_space.fetch_sub(1, Ordering::SeqCst);
        deadline.is_none_or(|d| Instant::now() < d)
    }

    /// Bytes claimed and not consumed yet.
    pub fn used(&self) -> u64 {
        let head = self.head.load(Ordering::Relaxed);
        (self.producers.tail.load(Ordering::Relaxed) & !CLOSED).saturating_sub(head)
    }

    /// The position after everything claimed so far.
    pub fn tail(&self) -> u64 {
        self.producers.tail.load(Ordering::SeqCst) & !CLOSED
    }

    /// Takes no more records from now on; what was claimed before will still be consumed.
    pub fn close(&self) {
        self.producers.tail.fetch_or(CLOSED, Ordering::SeqCst);
        self.wake();
        let _guard = self.space_lock.lock();
        self.space.notify_all();
    }

    /// Whether [`Ring::close`] was called.
    pub fn is_closed(&self) -> bool {
        self.producers.tail.load(Ordering::Relaxed) & CLOSED != 0
    }
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
    pub fn drain(&mut self, bytes_max: u64, mut each: impl FnMut(&[u8], u32, u64) -> bool) -> u64 {
        let ring = self.ring;
        let start = ring.head.load(Ordering::Relaxed);
        let mut at = start;
        let mut go_on = true;
        // Not beyond what is claimed by now: to look at the header of a record that a publisher is just writing takes its
        // line away from him, each time. Whoever follows a burst too closely slows it down several times.
        let end = start + bytes_max.min(ring.tail() - start);
        while go_on && at < end {
            let header = ring.header(at);
            if header[1].load(Ordering::Acquire) != ring.stamp(at) {
                break;
            }
            let word = header[0].load(Ordering::Relaxed);
            let len = word as u32;
            if len & PADDING != 0 {
                at += u64::from(len & !PADDING);
                continue;
            }
            let need = HEADER_BYTES + u64::from(len).next_multiple_of(ALIGN);
            let offset = ring.offset(at) + HEADER_BYTES;
            // SAFETY: the Acquire load of the stamp saw the producer's commit, so the payload is initialised and no
            // longer written; it lies within the buffer.
            go_on = unsafe {
                ring.memory.read(offset, len as usize, |payload| each(payload, (word >> 32) as u32, at + need))
            };
            at += need;
        }
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
        self.ring.state.swap(if nap { NAPPING } else { PARKED }, Ordering::SeqCst);
        self.ring.fences.heavy();
        if self.has_record() {
            self.awake();
            return false;
        }
        true
    }

    /// Ends a sleep that nobody else ended.
    pub fn awake(&mut self) {
        self.ring.state.swap(AWAKE, Ordering::SeqCst);
    }

    /// Ready once somebody has woken the consumer since [`Consumer::sleep`].
    pub fn poll_woken(&self, cx: &mut std::task::Context<'_>) -> std::task::Poll<()> {
        if self.ring.state.load(Ordering::SeqCst) == AWAKE {
            return std::task::Poll::Ready(());
        }
        self.ring.waker.register(cx.waker());
        if self.ring.state.load(Ordering::SeqCst) == AWAKE {
            return std::task::Poll::Ready(());
        }
        std::task::Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

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
}
