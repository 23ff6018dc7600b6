use proptest::prelude::*;

use super::*;
use crate::event::{Event, KnownType, frame};
use crate::log::appender::{Appender, Group, SegmentPlan};
use crate::log::record::Extensions;
use crate::log::recovery::DataDir;
use crate::log::segment::Purpose;

/// A data directory that is written as a shard writes it.
struct Disk {
    dir: tempfile::TempDir,
    shards: Vec<Appender>,
    clock: u64,
}

fn event(n: u64, bytes: usize) -> Vec<u8> {
    let key = format!("k{n}/{}", "x".repeat(bytes.min(900)));
    let text = "y".repeat(bytes.saturating_sub(900).min(50_000));
    let data = format!("\"{text}\"");
    let mut e = Event::new(KnownType::ObjectCreatedPut.into(), "bucket", key.as_bytes());
    e.size = Some(n);
    if !text.is_empty() {
        e.data = data.as_bytes();
    }
    frame::encode_to_vec(&e, 1)
}

impl Disk {
    fn new(shards: usize, segment_bytes: u64) -> Disk {
        let dir = tempfile::tempdir().unwrap();
        drop(DataDir::open(dir.path(), Some(shards), shards).unwrap());
        let appender = |shard: usize| {
            std::fs::create_dir_all(shard_path(dir.path(), shard)).unwrap();
            let plan =
                SegmentPlan { bytes_max: segment_bytes, shard: shard as u16, incarnation: 7, purpose: Purpose::Events };
            Appender::new(plan, 1, 0, 1, 0)
        };
        let shards = (0..shards).map(appender).collect();
        Disk { dir, shards, clock: 1000 }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn segment(&self, shard: usize, id: u64) -> PathBuf {
        shard_path(self.path(), shard).join(SegmentHeader::file_name(id))
    }

    /// Appends an event of one nanosecond later without writing it.
    fn pack(&mut self, shard: usize, n: u64, bytes: usize) {
        self.clock += 1;
        self.shards[shard].append(Kind::Event, &[Route::new(1, 2)], &event(n, bytes), self.clock);
    }

    fn put(&mut self, shard: usize, n: u64, bytes: usize) {
        self.pack(shard, n, bytes);
        self.write(shard);
    }

    fn write(&mut self, shard: usize) {
        while let Some(g) = self.shards[shard].take() {
            self.write_group(shard, &g, g.bytes.len());
            self.shards[shard].recycle(g);
        }
    }

    /// Writes a group's first bytes, and zeros behind a whole one.
    fn write_group(&self, shard: usize, g: &Group, bytes: usize) {
        let path = self.segment(shard, g.segment);
        let mut file = std::fs::read(&path).unwrap_or_default();
        let end = (g.offset as usize + g.bytes.len() + RECORD_HEADER_BYTES).next_multiple_of(BLOCK_BYTES);
        file.resize(file.len().max(end), 0);
        file[g.offset as usize..][..bytes].copy_from_slice(&g.bytes[..bytes]);
        std::fs::write(path, file).unwrap();
    }

    fn reader(&self, from: ReadFrom) -> LogReader {
        LogReader::open(self.path(), &from).unwrap()
    }
}

/// Everything up to the end: the numbers of events, and gaps.
fn drain(r: &mut LogReader) -> (Vec<u64>, Vec<Gap>) {
    drain_to(r, None)
}

fn drain_to(r: &mut LogReader, limits: Option<&[u64]>) -> (Vec<u64>, Vec<Gap>) {
    let (mut numbers, mut gaps) = (Vec::new(), Vec::new());
    loop {
        match r.next(limits, &mut |_| true).unwrap() {
            Step::Item(Item::Entry(e)) => numbers.push(e.frame().size().unwrap()),
            Step::Item(Item::Gap(g)) => gaps.push(g),
            Step::More => {}
            Step::End => return (numbers, gaps),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn every_event_is_read_once_in_order_from_wherever_one_begins(
        sizes in proptest::collection::vec(1usize..40_000, 1..80),
        start in 0usize..80,
        stop in 0usize..80,
    ) {
        let mut disk = Disk::new(1, 1 << 18);
        for (n, size) in sizes.iter().enumerate() {
            disk.put(0, n as u64 + 1, *size);
        }
        let all: Vec<u64> = (1..=sizes.len() as u64).collect();
        prop_assert_eq!(drain(&mut disk.reader(ReadFrom::Beginning)), (all.clone(), vec![]));
        let from = start.min(sizes.len());
        let rest = all[from..].to_vec();
        prop_assert_eq!(drain(&mut disk.reader(ReadFrom::Sequence(from as u64 + 1))), (rest.clone(), vec![]));
        // The clock of event n is 1000 + n.
        prop_assert_eq!(drain(&mut disk.reader(ReadFrom::Time(1001 + from as u64))), (rest.clone(), vec![]));
        prop_assert_eq!(drain(&mut disk.reader(ReadFrom::Position(Position(vec![from as u64])))), (rest, vec![]));
        prop_assert_eq!(drain(&mut disk.reader(ReadFrom::Now)), (vec![], vec![]));
        // Reading can stop after any event and go on with another reader.
        let mut first = disk.reader(ReadFrom::Beginning);
        let mut numbers = Vec::new();
        while numbers.len() < stop.min(sizes.len()) {
            if let Step::Item(Item::Entry(e)) = first.next(None, &mut |_| true).unwrap() {
                numbers.push(e.sequence);
            }
        }
        let text = first.position().to_string();
        let (rest, gaps) = drain(&mut disk.reader(ReadFrom::Position(text.parse().unwrap())));
        numbers.extend(rest);
        prop_assert_eq!((numbers, gaps), (all, vec![]));
        prop_assert!(first.shards[0].buffer.capacity() <= CHUNK_BYTES + RECORD_BYTES_MAX, "memory is bounded");
    }
}

#[test]
fn shards_are_merged_by_their_clocks() {
    let mut disk = Disk::new(3, 1 << 20);
    for n in 1..=300 {
        disk.put((n * 7 % 3) as usize, n, 10);
    }
    assert_eq!(drain(&mut disk.reader(ReadFrom::Beginning)).0, (1..=300).collect::<Vec<_>>());
    assert_eq!(drain(&mut disk.reader(ReadFrom::Time(1201))).0, (201..=300).collect::<Vec<_>>());
    let mut r = disk.reader(ReadFrom::Beginning);
    let mut first = 0;
    while first < 100 {
        if let Step::Item(Item::Entry(e)) = r.next(None, &mut |_| true).unwrap() {
            first = e.frame().size().unwrap();
        }
    }
    let position = r.position();
    assert_eq!(drain(&mut disk.reader(ReadFrom::Position(position))).0, (101..=300).collect::<Vec<_>>());
}

#[test]
fn only_what_is_wanted_comes() {
    let mut disk = Disk::new(1, 1 << 20);
    for n in 1..=10 {
        disk.put(0, n, 10);
    }
    let mut r = disk.reader(ReadFrom::Beginning);
    let mut found = Vec::new();
    loop {
        match r.next(None, &mut |f| f.size().unwrap() % 4 == 0).unwrap() {
            Step::Item(Item::Entry(e)) => found.push((e.sequence, e.id.sequence, e.id.incarnation)),
            Step::Item(Item::Gap(g)) => panic!("{g:?}"),
            Step::More => {}
            Step::End => break,
        }
    }
    assert_eq!(found, [(4, 4, 7), (8, 8, 7)]);
    assert_eq!(r.position(), Position(vec![10]), "what is not wanted is passed");
}

#[test]
fn a_reader_follows_a_log_that_grows_into_new_segments() {
    let mut disk = Disk::new(1, 1 << 16);
    let mut r = disk.reader(ReadFrom::Beginning);
    assert_eq!(drain(&mut r), (vec![], vec![]));
    let mut next = 1;
    for round in 0..40 {
        for _ in 0..round % 5 {
            disk.pack(0, next, 3000);
            next += 1;
        }
        disk.write(0);
        let (numbers, gaps) = drain(&mut r);
        assert!(gaps.is_empty());
        assert_eq!(numbers.len(), round % 5);
        assert_eq!(numbers.last().copied().unwrap_or(next - 1), next - 1);
    }
    assert!(segment_ids(&shard_path(disk.path(), 0)).unwrap().len() > 2);
}

#[test]
fn a_write_that_is_seen_in_parts_is_no_damage() {
    let mut disk = Disk::new(1, 1 << 20);
    disk.put(0, 1, 100);
    let mut r = disk.reader(ReadFrom::Beginning);
    assert_eq!(drain(&mut r).0, [1]);
    for n in 2..=20 {
        disk.pack(0, n, 900);
    }
    let g = disk.shards[0].take().unwrap();
    // The last blocks are there, the first ones not yet.
    let mut late = g.bytes.clone();
    late.bytes_mut()[g.fresh + 500..2 * BLOCK_BYTES].fill(0);
    let partial = Group { bytes: late, ..clone(&g) };
    disk.write_group(0, &partial, partial.bytes.len());
    assert_eq!(drain(&mut r), (vec![], vec![]));
    assert!(r.is_unsettled());
    disk.write_group(0, &g, g.bytes.len());
    assert_eq!(drain(&mut r), ((2..=20).collect(), vec![]));
    assert!(!r.is_unsettled());
}

fn clone(g: &Group) -> Group {
    Group { bytes: g.bytes.clone(), ..*g }
}

#[test]
fn nothing_beyond_the_limit_is_read() {
    let mut disk = Disk::new(2, 1 << 20);
    for n in 1..=20 {
        disk.put((n % 2) as usize, n, 10);
    }
    let mut r = disk.reader(ReadFrom::Beginning);
    assert_eq!(drain_to(&mut r, Some(&[3, 2])).0, [1, 2, 3, 4, 6]);
    assert_eq!(drain_to(&mut r, Some(&[10, 10])).0.len(), 15);
}

#[test]
fn removed_segments_are_a_gap_for_who_was_there_before() {
    let mut disk = Disk::new(1, 1 << 16);
    for n in 1..=200 {
        disk.put(0, n, 900);
    }
    let ids = segment_ids(&shard_path(disk.path(), 0)).unwrap();
    assert!(ids.len() > 3);
    let base = open_segment(&shard_path(disk.path(), 0), ids[2]).unwrap().unwrap().header.base_sequence;
    // This one has the first segment open.
    let mut open = disk.reader(ReadFrom::Beginning);
    while !matches!(open.next(None, &mut |_| true).unwrap(), Step::Item(_)) {}
    for id in &ids[..2] {
        std::fs::remove_file(disk.segment(0, *id)).unwrap();
    }
    let (numbers, gaps) = drain(&mut disk.reader(ReadFrom::Position(Position(vec![5]))));
    assert_eq!(numbers, (base..=200).collect::<Vec<_>>());
    assert_eq!(gaps.len(), 1);
    assert_eq!((gaps[0].first, gaps[0].last, gaps[0].cause), (6, base - 1, GapCause::Removed));
    assert_eq!((gaps[0].sequences(), gaps[0].until_ns), (base - 6, Some(999 + base)));
    // Who begins where the log begins misses nothing.
    assert_eq!(drain(&mut disk.reader(ReadFrom::Beginning)), ((base..=200).collect(), vec![]));
    assert_eq!(drain(&mut disk.reader(ReadFrom::Time(1))), ((base..=200).collect(), vec![]));
    // Who has a removed file open reads it to its end, and is told of the rest.
    let (numbers, gaps) = drain(&mut open);
    assert_eq!(gaps.len(), 1);
    assert_eq!(numbers.len() as u64 + gaps[0].sequences(), 199);
    assert_eq!(gaps[0].since_ns, Some(1000 + gaps[0].first - 1));
}

#[test]
fn a_log_that_is_gone_is_a_gap_up_to_what_is_known_to_have_been_there() {
    let mut disk = Disk::new(1, 1 << 20);
    for n in 1..=9 {
        disk.put(0, n, 10);
    }
    std::fs::remove_file(disk.segment(0, 1)).unwrap();
    let mut r = disk.reader(ReadFrom::Position(Position(vec![4])));
    let (numbers, gaps) = drain_to(&mut r, Some(&[9]));
    assert_eq!((numbers, gaps.len(), gaps[0].first, gaps[0].last), (vec![], 1, 5, 9));
    assert_eq!(drain_to(&mut r, Some(&[9])), (vec![], vec![]), "told once");
}

#[test]
fn damage_in_a_closed_segment_is_a_gap_and_the_rest_is_read() {
    for zeros in [false, true] {
        let mut disk = Disk::new(1, 1 << 16);
        for n in 1..=200 {
            disk.put(0, n, 900);
        }
        let path = disk.segment(0, 1);
        let mut bytes = std::fs::read(&path).unwrap();
        if zeros {
            bytes[3 * BLOCK_BYTES..4 * BLOCK_BYTES].fill(0);
        } else {
            bytes[3 * BLOCK_BYTES + 100] ^= 1;
        }
        std::fs::write(&path, bytes).unwrap();
        let (numbers, gaps) = drain(&mut disk.reader(ReadFrom::Beginning));
        assert_eq!(gaps.len(), 1, "{gaps:?}");
        assert_eq!(gaps[0].cause, GapCause::Damaged);
        assert_eq!(gaps[0].sequences(), if zeros { 5 } else { 1 }, "{gaps:?}");
        let expected: Vec<u64> = (1..=200).filter(|n| !(gaps[0].first..=gaps[0].last).contains(n)).collect();
        assert_eq!(numbers, expected);
    }
}

#[test]
fn a_damaged_end_of_a_closed_segment_is_a_gap() {
    let mut disk = Disk::new(1, 1 << 16);
    for n in 1..=100 {
        disk.put(0, n, 900);
    }
    let base = open_segment(&shard_path(disk.path(), 0), 2).unwrap().unwrap().header.base_sequence;
    let path = disk.segment(0, 1);
    let mut bytes = std::fs::read(&path).unwrap();
    let last = bytes.iter().rposition(|b| *b != 0).unwrap();
    bytes[last] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let (numbers, gaps) = drain(&mut disk.reader(ReadFrom::Beginning));
    assert_eq!((gaps.len(), gaps[0].first, gaps[0].last), (1, base - 1, base - 1));
    assert_eq!(numbers.len(), 99);
}

#[test]
fn a_file_that_is_used_again_under_a_reader_gives_a_gap_and_no_wrong_event() {
    let mut disk = Disk::new(1, 1 << 16);
    for n in 1..=120 {
        disk.put(0, n, 900);
    }
    let mut r = disk.reader(ReadFrom::Beginning);
    while !matches!(r.next(None, &mut |_| true).unwrap(), Step::Item(_)) {}
    // What the first file holds is read no more; its place on disk is given to a later segment.
    let done = r.shards[0].at;
    r.shards[0].buffer.truncate(done);
    let first = disk.segment(0, 1);
    let ids = segment_ids(&shard_path(disk.path(), 0)).unwrap();
    let newest = disk.segment(0, *ids.last().unwrap());
    let contents = std::fs::read(&newest).unwrap();
    std::fs::write(&first, contents).unwrap();
    std::fs::rename(&first, &newest).unwrap();
    let (numbers, gaps) = drain(&mut r);
    let base = open_segment(&shard_path(disk.path(), 0), 2).unwrap().unwrap().header.base_sequence;
    assert_eq!((gaps.len(), gaps[0].cause, gaps[0].last), (1, GapCause::Removed, base - 1));
    assert_eq!(numbers, (base..=120).collect::<Vec<_>>());
}

#[test]
fn a_segment_without_a_header_is_passed_over() {
    let mut disk = Disk::new(1, 1 << 16);
    for n in 1..=100 {
        disk.put(0, n, 900);
    }
    let last = *segment_ids(&shard_path(disk.path(), 0)).unwrap().last().unwrap();
    std::fs::write(disk.segment(0, last + 1), [0; BLOCK_BYTES]).unwrap();
    assert_eq!(drain(&mut disk.reader(ReadFrom::Beginning)), ((1..=100).collect(), vec![]));
    assert_eq!(drain(&mut disk.reader(ReadFrom::Sequence(90))), ((90..=100).collect(), vec![]));
    assert_eq!(drain(&mut disk.reader(ReadFrom::Now)), (vec![], vec![]));
}

#[test]
fn second_records_of_an_event_and_redriven_ones_are_not_events_of_their_own() {
    let mut disk = Disk::new(1, 1 << 20);
    disk.put(0, 1, 10);
    for e in [Extensions { continued: true, ..Extensions::default() }, Extensions { hops: 1, ..Extensions::default() }]
    {
        disk.shards[0].append_extended(Kind::Event, &[], &e, &event(1, 10), 2000);
    }
    disk.shards[0].append(Kind::Mark, &[], b"", 2000);
    let origin = record::Origin { incarnation: 9, shard: 3, sequence: 77, clock_ns: 5, tie: 6 };
    let e = Extensions { origin: Some(origin), ..Extensions::default() };
    disk.shards[0].append_extended(Kind::Event, &[], &e, &event(2, 10), 2000);
    disk.write(0);
    let mut r = disk.reader(ReadFrom::Beginning);
    let mut ids = Vec::new();
    loop {
        match r.next(None, &mut |_| true).unwrap() {
            Step::Item(Item::Entry(e)) => ids.push((e.sequence, e.id.incarnation, e.id.sequence, e.sequencer.clock_ns)),
            Step::Item(Item::Gap(g)) => panic!("{g:?}"),
            Step::More => {}
            Step::End => break,
        }
    }
    assert_eq!(ids, [(1, 7, 1, 1001), (5, 9, 77, 5)], "an event that came from elsewhere keeps its id");
}

#[test]
fn the_wrong_directory_and_the_wrong_position_are_refused() {
    let empty = tempfile::tempdir().unwrap();
    let e = LogReader::open(empty.path(), &ReadFrom::Beginning).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::NotFound);
    assert!(e.to_string().contains("meta.json"), "{e}");
    let disk = Disk::new(2, 1 << 20);
    let e = LogReader::open(disk.path(), &ReadFrom::Position(Position(vec![1, 2, 3]))).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::InvalidArgument);
    assert!(e.to_string().contains("3 shards"), "{e}");
    for bad in ["", "tw1:", "tw1", "5.6", "tw1:5.", "tw1:5,6", "tw1:-5", "tw1:+5", "tw2:5", "tw1:99999999999999999999"]
    {
        assert_eq!(bad.parse::<Position>().unwrap_err().kind(), ErrorKind::InvalidArgument, "{bad}");
    }
    assert_eq!("tw1:5.77".parse::<Position>().unwrap(), Position(vec![5, 77]));
}
