//! Models of the ring.

use std::future::poll_fn;

use loom::future::block_on;
use loom::sync::Arc;
use loom::thread;

use crate::shard::ring::{Consumer, PushError, Ring};
use crate::shard::sync::pause;

/// The payload of a record: whose it is, and its number.
fn payload(producer: u8, number: u8, len: usize) -> Vec<u8> {
    let mut bytes = vec![producer ^ number.rotate_left(4); len];
    bytes[0] = producer;
    bytes[1] = number;
    bytes
}

fn push(ring: &Ring, producer: u8, number: u8, len: usize) -> Result<u64, PushError> {
    ring.push_with(len, u32::from(producer), |b| b.copy_from_slice(&payload(producer, number, len)))
}

/// What came out so far; each producer's records must come in their order.
#[derive(Default)]
struct Seen {
    next: [u8; 3],
    total: usize,
}

impl Seen {
    fn drain(&mut self, consumer: &mut Consumer<'_>) {
        consumer.drain(u64::MAX, |bytes, tag, _| {
            let (producer, number) = (bytes[0], bytes[1]);
            assert_eq!(bytes, payload(producer, number, bytes.len()));
            assert_eq!((tag, self.next[producer as usize]), (u32::from(producer), number));
            self.next[producer as usize] += 1;
            self.total += 1;
            true
        });
    }
}

/// A ring of 256 bytes that has been used up to `position`, in records of 32 bytes and one of 48.
fn used(position: u64) -> Arc<Ring> {
    let ring = Ring::of(256, 0x1234_5678_9ABC_DEF1);
    // SAFETY: the only consumer of this ring.
    let mut consumer = unsafe { Consumer::new(&ring) };
    while ring.tail() < position {
        let len = if position - ring.tail() == 48 { 32 } else { 16 };
        ring.push_with(len, 0, |b| b.fill(0xEE)).unwrap();
        consumer.drain(u64::MAX, |_, _, _| true);
    }
    assert_eq!(ring.tail(), position);
    drop(consumer);
    Arc::new(ring)
}

/// Sleeps as the ingest task does while nothing is there.
fn sleep(ring: &Ring, consumer: &mut Consumer<'_>, nap: bool) {
    if !consumer.sleep(nap) || ring.is_closed() {
        consumer.awake();
        return;
    }
    block_on(poll_fn(|cx| consumer.poll_woken(cx)));
    consumer.awake();
}

/// Two producers claim and commit across the end of the buffer, one with padding before it, while the consumer reads.
pub fn records_of_two_producers_come_out_whole_and_in_order() {
    let ring = used(208);
    let producers = [1, 2].map(|producer| {
        let ring = ring.clone();
        thread::spawn(move || {
            for number in 0..3 - producer {
                push(&ring, producer, number, 16 + 16 * producer as usize).unwrap();
            }
        })
    });
    // SAFETY: the only consumer of this ring.
    let mut consumer = unsafe { Consumer::new(&ring) };
    let mut seen = Seen::default();
    while seen.total < 3 {
        seen.drain(&mut consumer);
        pause();
    }
    producers.into_iter().for_each(|p| p.join().unwrap());
    assert!(consumer.is_empty());
}

/// Producers find the ring full, or write where another lap's record was: one learns from the consumer that it was read,
/// the other maybe from the first.
pub fn space_is_taken_again_once_it_was_read() {
    let ring = used(32);
    for number in 0..8 {
        push(&ring, 0, number, 16).unwrap();
    }
    let producers = [1, 2].map(|producer| {
        let ring = ring.clone();
        thread::spawn(move || {
            let mut taken = 0;
            for _ in 0..2 {
                taken += u8::from(push(&ring, producer, taken, 16).is_ok());
            }
            taken
        })
    });
    // SAFETY: the only consumer of this ring.
    let mut consumer = unsafe { Consumer::new(&ring) };
    let mut seen = Seen::default();
    seen.drain(&mut consumer);
    let taken: u8 = producers.into_iter().map(|p| p.join().unwrap()).sum();
    seen.drain(&mut consumer);
    assert_eq!(seen.total, 8 + taken as usize);
}

/// The consumer sleeps whenever nothing is there; every record wakes it.
pub fn no_wake_up_is_lost(nap: bool) {
    let ring = used(224);
    let producers = [1, 2].map(|producer| {
        let ring = ring.clone();
        thread::spawn(move || {
            push(&ring, producer, 0, 16).unwrap();
            ring.notify(nap);
        })
    });
    // SAFETY: the only consumer of this ring.
    let mut consumer = unsafe { Consumer::new(&ring) };
    let mut seen = Seen::default();
    while seen.total < 2 {
        seen.drain(&mut consumer);
        if seen.total < 2 {
            sleep(&ring, &mut consumer, nap);
        }
    }
    producers.into_iter().for_each(|p| p.join().unwrap());
}

/// A consumer that sleeps learns that the ring was closed, and has then got every record that was taken.
pub fn closing_wakes_the_consumer() {
    let ring = used(32);
    let producer = {
        let ring = ring.clone();
        thread::spawn(move || {
            let taken = push(&ring, 1, 0, 16).is_ok();
            if taken {
                ring.notify(false);
            }
            taken
        })
    };
    let closer = {
        let ring = ring.clone();
        thread::spawn(move || ring.close())
    };
    // SAFETY: the only consumer of this ring.
    let mut consumer = unsafe { Consumer::new(&ring) };
    let mut seen = Seen::default();
    loop {
        seen.drain(&mut consumer);
        if ring.is_closed() && consumer.is_empty() {
            break;
        }
        sleep(&ring, &mut consumer, false);
        pause();
    }
    let taken = producer.join().unwrap();
    closer.join().unwrap();
    assert_eq!(seen.total, usize::from(taken));
    assert_eq!(push(&ring, 2, 0, 16), Err(PushError::Closed));
}

/// A producer that waits for space, which nobody makes, is told that the ring was closed.
pub fn closing_wakes_who_waits_for_space() {
    let ring = used(32);
    for number in 0..8 {
        push(&ring, 0, number, 16).unwrap();
    }
    let producer = {
        let ring = ring.clone();
        thread::spawn(move || {
            while push(&ring, 1, 0, 16) == Err(PushError::Full) {
                ring.wait_for_space(None);
            }
            push(&ring, 1, 0, 16)
        })
    };
    ring.close();
    assert_eq!(producer.join().unwrap(), Err(PushError::Closed));
}

/// A producer that waits for space is told of it, without a look of its own now and then.
pub fn who_waits_for_space_is_told(producers: u8) {
    let ring = used(32);
    for number in 0..8 {
        push(&ring, 0, number, 16).unwrap();
    }
    let producers: Vec<_> = (1..=producers)
        .map(|producer| {
            let ring = ring.clone();
            thread::spawn(move || {
                while push(&ring, producer, 0, 16) == Err(PushError::Full) {
                    ring.wait_for_space(None);
                }
                ring.notify(false);
            })
        })
        .collect();
    // SAFETY: the only consumer of this ring.
    let mut consumer = unsafe { Consumer::new(&ring) };
    let mut seen = Seen::default();
    let all = 8 + producers.len();
    while seen.total < all {
        seen.drain(&mut consumer);
        if seen.total < all {
            sleep(&ring, &mut consumer, false);
        }
    }
    producers.into_iter().for_each(|p| p.join().unwrap());
}
