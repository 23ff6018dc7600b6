//! The ring by which one process gives another its events, and how the one that takes them in sleeps.

mod memory;
#[path = "../../../../core/src/shared/ring.rs"]
mod ring;
#[path = "../../../../core/src/shared/status.rs"]
mod status;
mod sync;

use std::os::fd::AsFd;
use std::sync::Arc;

use loom::sync::{Condvar, Mutex};
use loom::thread;

use crate::log::Ack;
use ring::{Kind, Reader, Ring, Writer};
use status::{Doing, Status};

const CAPACITY: usize = 256;
/// What a record takes: with this payload four of them fill the ring.
const RECORD_BYTES: u64 = 64;
const PAYLOAD_BYTES: usize = 48;

/// An eventfd: rung, it stays so until it is silenced. Waiting has no limit, so that a ring that is missed shows as a deadlock.
#[derive(Default)]
struct Bell {
    rung: Mutex<bool>,
    changed: Condvar,
}

impl Bell {
    fn ring(&self) {
        *self.rung.lock().unwrap() = true;
        self.changed.notify_all();
    }

    fn wait(&self) {
        let mut rung = self.rung.lock().unwrap();
        while !*rung {
            rung = self.changed.wait(rung).unwrap();
        }
    }

    fn silence(&self) {
        *self.rung.lock().unwrap() = false;
    }
}

fn ring_of(position: u64) -> Arc<Ring> {
    let null = memory::new_file(c"", 0).unwrap();
    let ring = Arc::new(Ring::map(null.as_fd(), CAPACITY).unwrap());
    ring.begin(position);
    ring
}

fn push(writer: &mut Writer, number: u8) -> u64 {
    writer.push(Kind::Event, Ack::Memory, u64::from(number) + 1, PAYLOAD_BYTES, |out| out.fill(number))
}

/// Takes what there is; records must come whole and in order.
fn take(reader: &mut Reader, next: &mut u8) {
    reader.look().unwrap();
    while let Some(header) = reader.peek().unwrap() {
        let mut payload = Vec::new();
        reader.copy(&header, &mut payload);
        assert_eq!((header.stamp, payload), (u64::from(*next) + 1, vec![*next; PAYLOAD_BYTES]));
        reader.taking(&header);
        reader.taken(&header);
        *next += 1;
    }
}

/// The server sleeps whenever nothing is there; each client's record wakes it. With `nap` it sleeps so that only those do who
/// wait for an answer, and they do.
pub fn no_wake_up_of_the_server_is_lost(nap: bool) {
    let status = Arc::new(Status::new().unwrap().0);
    // What stands in it is made when it is first used, which is before anybody else has it.
    status.set_asks(false);
    let bell = Arc::new(Bell::default());
    let rings = [ring_of(0), ring_of(CAPACITY as u64 - RECORD_BYTES)];
    let starts = [0, CAPACITY as u64 - RECORD_BYTES];
    let mut readers: Vec<_> = rings.iter().zip(starts).map(|(ring, at)| Reader::new(ring.clone(), at)).collect();
    let clients: Vec<_> = rings
        .into_iter()
        .zip(starts)
        .map(|(ring, at)| {
            let (status, bell) = (status.clone(), bell.clone());
            thread::spawn(move || {
                push(&mut Writer::new(ring, at), 0);
                if status.sleeps(nap) {
                    bell.ring();
                }
            })
        })
        .collect();
    let mut next = [0; 2];
    while next != [1, 1] {
        readers.iter_mut().zip(&mut next).for_each(|(reader, next)| take(reader, next));
        if next != [1, 1] {
            let doing = if nap { Doing::Napping } else { Doing::Parked };
            status.rest(doing, || readers.iter().any(Reader::has_more), || bell.wait());
            bell.silence();
        }
    }
    clients.into_iter().for_each(|c| c.join().unwrap());
}

/// A client that finds the ring full is told when there is space, and writes where the server has read.
pub fn a_client_that_waits_for_space_is_told() {
    let bell = Arc::new(Bell::default());
    let ring = ring_of(0);
    let mut writer = Writer::new(ring.clone(), 0);
    let mut reader = Reader::new(ring, 0);
    for number in 0..4 {
        assert!(writer.has_space(RECORD_BYTES, 0));
        push(&mut writer, number);
    }
    let client = {
        let bell = bell.clone();
        thread::spawn(move || {
            while !writer.has_space(RECORD_BYTES, 0) {
                writer.ring.want_space();
                if writer.has_space(RECORD_BYTES, 0) {
                    break;
                }
                bell.wait();
                bell.silence();
            }
            push(&mut writer, 4);
        })
    };
    let mut next = 0;
    while next < 5 {
        take(&mut reader, &mut next);
        if reader.space_wanted() {
            bell.ring();
        }
        thread::yield_now();
    }
    client.join().unwrap();
}

/// Whatever a client sees of what the server says: what is at a level was taken before, and what is taken for sure was being
/// taken.
pub fn what_the_server_says_is_in_order() {
    let ring = ring_of(0);
    let mut writer = Writer::new(ring.clone(), 0);
    let ends: Vec<u64> = (0..2).map(|number| push(&mut writer, number)).collect();
    let server = {
        let ring = ring.clone();
        thread::spawn(move || {
            let mut reader = Reader::new(ring, 0);
            reader.look().unwrap();
            while let Some(header) = reader.peek().unwrap() {
                reader.taking(&header);
                reader.taken(&header);
                reader.tell_reached(Ack::Written, header.end);
                reader.tell_reached(Ack::Synced, header.end);
            }
        })
    };
    let seen = ring.reached();
    assert!(seen.written.max(seen.synced) <= seen.head && seen.head <= seen.taken, "{seen:?}");
    server.join().unwrap();
    let seen = ring.reached();
    assert_eq!([seen.taken, seen.head, seen.written, seen.synced], [ends[1]; 4]);
}
