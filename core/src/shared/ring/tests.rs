use std::os::fd::AsFd;
use std::sync::Arc;

use proptest::prelude::*;

use super::super::memory;
use super::*;

const CAPACITY: usize = 4096;

fn pair(position: u64) -> (Writer, Reader) {
    let fd = memory::new_file(c"ring-test", file_bytes(CAPACITY)).unwrap();
    assert!(memory::is_fixed(fd.as_fd(), file_bytes(CAPACITY)));
    let server = Arc::new(Ring::map(fd.as_fd(), CAPACITY).unwrap());
    server.begin(position);
    let client = Arc::new(Ring::map(fd.as_fd(), CAPACITY).unwrap());
    (Writer::new(client, position), Reader::new(server, position))
}

fn next(reader: &mut Reader, payload: &mut Vec<u8>) -> Option<Header> {
    reader.look().unwrap();
    let header = reader.peek().unwrap()?;
    reader.copy(&header, payload);
    reader.taking(&header);
    reader.taken(&header);
    Some(header)
}

proptest! {
    /// Whatever is written comes out as it was, around the end of the buffer and around the end of positions.
    #[test]
    fn records_come_out_as_they_went_in(
        begin in prop_oneof![Just(0), Just(0u64.wrapping_sub(2048)), (0u64..1 << 40).prop_map(|n| n * 8)],
        lens in proptest::collection::vec((0usize..1000, 0usize..4), 1..200),
    ) {
        let (mut writer, mut reader) = pair(begin);
        let mut payload = Vec::new();
        let mut waiting = std::collections::VecDeque::new();
        for (n, (len, take)) in lens.into_iter().enumerate() {
            if writer.has_space(need(len), 0) {
                let ack = [Ack::Memory, Ack::Written, Ack::Synced][n % 3];
                let kind = [Kind::Event, Kind::Asked, Kind::Commit, Kind::Abort][n % 4];
                let end = writer.push(kind, ack, n as u64, len, |out| out.fill(n as u8));
                waiting.push_back((kind, ack, n, len, end));
            }
            for _ in 0..take {
                match (next(&mut reader, &mut payload), waiting.pop_front()) {
                    (None, None) => {}
                    (Some(h), Some((kind, ack, n, len, end))) => {
                        prop_assert_eq!((h.kind, h.ack, h.stamp, h.end), (kind, ack, n as u64, end));
                        prop_assert!(payload.len() == len && payload.iter().all(|b| *b == n as u8));
                        prop_assert_eq!(writer.ring.reached().head, end);
                    }
                    other => prop_assert!(false, "{:?}", other),
                }
            }
        }
    }

    /// A client may write what it likes: the server reads nothing outside of the ring, and comes to an end.
    #[test]
    fn nonsense_is_told_from_records(
        bytes in proptest::collection::vec(any::<u8>(), CAPACITY),
        tails in proptest::collection::vec(prop_oneof![any::<u64>(), (0u64..CAPACITY as u64 / 8 + 2).prop_map(|n| n * 8)], 1..20),
        begin in (0u64..1000).prop_map(|n| n * 8),
        small in any::<bool>(),
    ) {
        let (writer, mut reader) = pair(begin);
        let at = writer.ring.mapping.at(PAGE_BYTES, CAPACITY);
        // SAFETY: this test has both sides.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), at, CAPACITY) };
        if small {
            // Lengths that may be, so that more is looked at than the first word.
            for place in (0..CAPACITY).step_by(8) {
                // SAFETY: as above.
                unsafe { at.add(place).cast::<u64>().write(u64::from(bytes[place]) | 1 << 32) };
            }
        }
        let mut payload = Vec::new();
        for tail in tails {
            writer.ring.words().client.tail.store(tail.wrapping_add(begin), Ordering::Release);
            if reader.look().is_err() {
                continue;
            }
            let mut records = 0;
            while let Ok(Some(header)) = reader.peek() {
                reader.copy(&header, &mut payload);
                prop_assert!(payload.len() <= reader.ring.payload_bytes_max());
                reader.taking(&header);
                reader.taken(&header);
                records += 1;
                prop_assert!(records <= CAPACITY / 16);
            }
        }
    }
}

#[test]
fn a_full_ring_takes_nothing_until_there_is_space() {
    let (mut writer, mut reader) = pair(64);
    let mut count = 0;
    while writer.has_space(need(100), 0) {
        writer.push(Kind::Event, Ack::Memory, count, 100, |out| out.fill(1));
        count += 1;
    }
    assert_eq!(count, CAPACITY as u64 / need(100));
    assert!(writer.is_half_full() && writer.has_records());
    writer.ring.want_space();
    let mut payload = Vec::new();
    next(&mut reader, &mut payload).unwrap();
    assert!(reader.space_wanted() && !reader.space_wanted());
    assert!(writer.has_space(need(100), 0));
    assert!(!writer.has_space(need(100), need(100)), "what is kept is kept");
    while next(&mut reader, &mut payload).is_some() {}
    assert!(!reader.has_more() && !writer.has_records());
}

#[test]
fn a_record_that_was_being_taken_is_told_from_those_that_wait() {
    let (mut writer, mut reader) = pair(0);
    let ends: Vec<u64> = (0..3).map(|n| writer.push(Kind::Event, Ack::Synced, n, 8, |out| out.fill(n as u8))).collect();
    let mut payload = Vec::new();
    next(&mut reader, &mut payload).unwrap();
    let second = reader.peek().unwrap().unwrap();
    reader.taking(&second);
    let reached = writer.ring.reached();
    assert_eq!((reached.head, reached.taken), (ends[0], ends[1]));
    reader.not_taking();
    assert_eq!(writer.ring.reached().taken, ends[0]);
    reader.taking(&second);
    reader.tell_reached(Ack::Synced, ends[0]);
    assert_eq!(writer.ring.reached(), Reached { taken: ends[1], head: ends[0], written: 0, synced: ends[0] });

    // The next server gets what was not begun.
    let (_, mut other) = pair(0);
    let taken = writer.ring.reached().taken;
    other.ring.begin(taken);
    other.head = taken;
    let mut next_writer = Writer::new(other.ring.clone(), taken);
    assert!(next_writer.take_over(&writer, taken));
    let header = next(&mut other, &mut payload).unwrap();
    assert_eq!((header.stamp, header.end, &payload[..]), (2, ends[2], &[2; 8][..]));
    assert_eq!(next(&mut other, &mut payload), None);
}

#[test]
fn events_that_no_rule_wants_are_counted_and_no_client_overcounts() {
    let (writer, mut reader) = pair(0);
    (0..5).for_each(|_| writer.ring.count_no_match());
    assert_eq!((reader.new_no_match(), reader.new_no_match()), (5, 0));
    writer.ring.words().client.no_match.store(u64::MAX, Ordering::Relaxed);
    assert_eq!(reader.new_no_match(), 0);
}

#[test]
fn the_other_side_cannot_take_the_memory_away() {
    let fd = memory::new_file(c"ring-test", file_bytes(CAPACITY)).unwrap();
    // SAFETY: the descriptor is open.
    let cut = unsafe { libc::ftruncate(std::os::fd::AsRawFd::as_raw_fd(&fd), 0) };
    assert_eq!(cut, -1);
    let (status, fd) = super::super::status::Status::new().unwrap();
    assert!(Mapping::new(fd.as_fd(), PAGE_BYTES, None, true).is_err(), "clients only read it");
    let seen = super::super::status::Status::map(fd.as_fd()).unwrap();
    status.set_asks(true);
    status.set_rules([5, 1 << 63]);
    assert!(seen.asks() && seen.rules() == 1);
}

/// What is told of a record is told after the record; under both orders of the two sides' steps.
#[test]
fn two_threads_pass_records_in_order() {
    let (mut writer, mut reader) = pair(0);
    let thread = std::thread::spawn(move || {
        let mut n = 0;
        while n < 20_000 {
            if writer.has_space(need(24), 0) {
                writer.push(Kind::Event, Ack::Memory, n, 24, |out| out.fill(n as u8));
                n += 1;
            } else {
                std::thread::yield_now();
            }
        }
    });
    let mut payload = Vec::new();
    for n in 0..20_000u64 {
        let header = loop {
            match next(&mut reader, &mut payload) {
                Some(header) => break header,
                None => std::thread::yield_now(),
            }
        };
        assert!(header.stamp == n && payload.iter().all(|b| *b == n as u8));
    }
    thread.join().unwrap();
}
