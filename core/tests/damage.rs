//! Damage to the log: every bit flip and every cut of a segment, of its header and of the cursor files, and every way a
//! crash can leave a write half done. Recovery must neither panic nor hang, must not invent a record, and may lose the
//! record that was hit and no other.
//!
//! With `TIDEWIRE_LONG=1` every bit and every cut is tried, otherwise a part that has all bits of a byte and all places of
//! a record in it.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use tidewire::log::BLOCK_BYTES;
use tidewire::log::appender::{Appender, Group, SegmentPlan};
use tidewire::log::cursor::{Cursor, Cursors};
use tidewire::log::layout::Since;
use tidewire::log::record::{Kind, RECORD_HEADER_BYTES, RecordView, Route};
use tidewire::log::recovery::{self, CURSOR_FILES, ShardState};
use tidewire::log::segment::{Purpose, SegmentHeader};

const FILE_BYTES: usize = 64 * 1024;
const SECTOR_BYTES: usize = 512;
const SEGMENT: u64 = 5;
const FIRST_SEQUENCE: u64 = 1000;

fn long() -> bool {
    std::env::var_os("TIDEWIRE_LONG").is_some()
}

/// A small generator of numbers that look random (xorshift64*).
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % n
    }
}

/// What the rest of a segment file holds when its first group is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Before {
    /// Zeros: the file is new.
    Zeros,
    /// Records of another segment, with sequences that would fit: the file is used again.
    Records,
}

/// A record as it was written.
#[derive(Debug)]
struct Written {
    place: Range<usize>,
    sequence: u64,
    clock: (u64, u32),
    routes: Vec<Route>,
    body: Vec<u8>,
}

/// A segment and what is in it.
#[derive(Debug)]
struct Log {
    header: SegmentHeader,
    bytes: Vec<u8>,
    records: Vec<Written>,
}

/// The groups of a segment that fills at most `bytes_max`, with records of mixed sizes and routes.
fn groups(segment: u64, first_sequence: u64, bytes_max: usize) -> Vec<Group> {
    let plan = SegmentPlan { bytes_max: bytes_max as u64, shard: 0, incarnation: 77, purpose: Purpose::Events };
    let mut appender = Appender::new(plan, segment, first_sequence - 1, first_sequence, 5_000);
    let mut random = Random(segment + 1);
    let mut groups = Vec::new();
    loop {
        for _ in 0..1 + random.below(6) {
            let body: Vec<u8> = match random.below(20) {
                0 => vec![0; 1 + random.below(400)],
                1 => vec![7; 3_000 + random.below(3_000)],
                _ => (0..1 + random.below(400)).map(|_| random.below(256) as u8).collect(),
            };
            let routes = if random.below(30) == 0 { 40 } else { random.below(4) as u32 };
            let routes: Vec<_> = (0..routes).map(|n| Route::new(n, n + 10)).collect();
            appender.append(Kind::Event, &routes, &body, 6_000 + random.below(10) as u64);
        }
        while let Some(group) = appender.take() {
            if group.segment != segment {
                return groups;
            }
            groups.push(group);
        }
    }
}

/// The groups of the segment under test, in a file that was this before.
fn groups_over(before: Before, bytes_max: usize) -> Vec<Group> {
    let mut groups = groups(SEGMENT, FIRST_SEQUENCE, bytes_max);
    let header = SegmentHeader { recycled: before == Before::Records, ..groups[0].new_segment.unwrap() };
    header.encode(groups[0].bytes.bytes_mut());
    groups[0].new_segment = Some(header);
    groups
}

/// The blocks that a group is written with: as the shard does it, whole and with zeros after the last record.
fn blocks(group: &Group) -> Vec<u8> {
    group.bytes.clone().padded(RECORD_HEADER_BYTES).to_vec()
}

fn write(file: &mut Vec<u8>, group: &Group) {
    let bytes = blocks(group);
    let end = group.offset as usize + bytes.len();
    file.resize(file.len().max(end), 0);
    file[group.offset as usize..end].copy_from_slice(&bytes);
}

/// A file of [`FILE_BYTES`] before a segment is written to it.
fn file_before(before: Before) -> Vec<u8> {
    let mut file = vec![0; FILE_BYTES];
    if before == Before::Records {
        for group in groups(SEGMENT - 2, FIRST_SEQUENCE, FILE_BYTES) {
            write(&mut file, &group);
        }
    }
    file
}

fn written(group: &Group) -> impl Iterator<Item = Written> {
    group.iter().map(|(position, r)| Written {
        place: position.offset as usize..position.offset as usize + r.padded_len(),
        sequence: r.sequence(),
        clock: (r.header().clock_ns, r.header().tie),
        routes: r.routes().collect(),
        body: r.body().to_vec(),
    })
}

fn log(before: Before, bytes_max: usize) -> Log {
    let mut bytes = file_before(before);
    let groups = groups_over(before, bytes_max);
    for group in &groups {
        write(&mut bytes, group);
    }
    let header = SegmentHeader { recycled: before == Before::Records, ..groups[0].new_segment.unwrap() };
    header.encode(&mut bytes);
    Log { header, bytes, records: groups.iter().flat_map(|g| written(g).collect::<Vec<_>>()).collect() }
}

/// New files and files used again, with space left and without.
fn logs() -> Vec<(String, Before, Log)> {
    let mut logs = Vec::new();
    for before in [Before::Zeros, Before::Records] {
        for bytes_max in [FILE_BYTES - 9_000, FILE_BYTES] {
            logs.push((format!("{bytes_max} bytes over {before:?}"), before, log(before, bytes_max)));
        }
    }
    logs
}

fn assert_same(r: &RecordView<'_>, w: &Written, what: &dyn Display) {
    let h = r.header();
    assert_eq!((h.kind, h.sequence, (h.clock_ns, h.tie)), (Kind::Event, w.sequence, w.clock), "{what}");
    assert!(r.routes().eq(w.routes.iter().copied()), "{what}: routes of record {}", w.sequence);
    assert_eq!(r.body(), w.body, "{what}: body of record {}", w.sequence);
}

/// What recovery made of a damaged segment.
#[derive(Debug)]
struct Outcome {
    /// Indexes of the records that were lost.
    lost: Vec<usize>,
    /// Whether anything was reported.
    reported: bool,
}

/// Recovers a segment of which the bytes of `hit` are not as they were written.
fn recover(log: &Log, bytes: &[u8], hit: Range<usize>, what: &dyn Display) -> Outcome {
    let mut next = 0;
    let mut lost = Vec::new();
    let found = recovery::scan(&log.header, bytes, |at, r| {
        while log.records.get(next).is_some_and(|w| w.place.start < at) {
            lost.push(next);
            next += 1;
        }
        let Some(w) = log.records.get(next).filter(|w| w.place.start == at) else {
            panic!("{what}: a record at {at} that was never written, with sequence {}", r.sequence());
        };
        if w.place.start < hit.end && hit.start < w.place.end {
            assert_same(&r, w, what);
        } else {
            // Its bytes are as they were written.
            assert_eq!((r.sequence(), r.padded_len()), (w.sequence, w.place.len()), "{what}");
        }
        next += 1;
    });
    lost.extend(next..log.records.len());
    assert_eq!(found.records as usize + lost.len(), log.records.len(), "{what}");
    Outcome { lost, reported: !found.damage.is_empty() || found.torn_bytes > 0 }
}

/// Runs `each` for the numbers below `n`, all of them or every `stride`th, on all processors. Each thread has its own copy
/// of `bytes`.
fn for_each(n: usize, stride: usize, bytes: &[u8], each: impl Fn(&mut Vec<u8>, usize) + Sync) {
    let stride = if long() { 1 } else { stride };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|s| {
        for thread in 0..threads {
            let each = &each;
            let mut bytes = bytes.to_vec();
            s.spawn(move || {
                for i in (thread * stride..n).step_by(threads * stride) {
                    each(&mut bytes, i);
                }
            });
        }
    });
}

#[test]
fn an_undamaged_segment_gives_back_what_was_written() {
    for (name, _, log) in logs() {
        assert!(log.records.len() > 80, "{name}: {}", log.records.len());
        let mut records = log.records.iter();
        let found = recovery::scan(&log.header, &log.bytes, |_, r| assert_same(&r, records.next().unwrap(), &name));
        assert_eq!((found.records as usize, found.damage.len()), (log.records.len(), 0), "{name}");
        // What a file held before it was used again is told from a torn record.
        assert_eq!(found.torn_bytes, 0, "{name}");
    }
}

#[test]
fn a_flipped_bit_costs_the_record_it_hits_at_most() {
    for (name, _, log) in logs() {
        let (tried, noticed) = (AtomicUsize::new(0), AtomicUsize::new(0));
        for_each(FILE_BYTES * 8, 13, &log.bytes, |bytes, bit| {
            let at = bit / 8;
            bytes[at] ^= 1 << (bit % 8);
            let what = format_args!("{name}, bit {bit}");
            let outcome = recover(&log, bytes, at..at + 1, &what);
            bytes[at] ^= 1 << (bit % 8);
            let record = log.records.iter().position(|w| w.place.contains(&at));
            match (&outcome.lost[..], record) {
                ([], _) => {}
                ([lost], Some(hit)) if *lost == hit => assert!(outcome.reported, "{what}: lost in silence"),
                (lost, _) => panic!("{what}: hit {record:?}, lost {lost:?}"),
            }
            tried.fetch_add(usize::from(record.is_some()), Relaxed);
            noticed.fetch_add(outcome.lost.len(), Relaxed);
        });
        // Only the padding after a record may differ unnoticed.
        let (tried, noticed) = (tried.into_inner(), noticed.into_inner());
        assert!(noticed > tried * 95 / 100, "{name}: {noticed} of {tried} flips in records were noticed");
    }
}

#[test]
fn a_cut_costs_what_was_cut_off() {
    for (name, _, log) in logs() {
        for_each(FILE_BYTES + 1, 5, &log.bytes, |bytes, cut| {
            let what = format_args!("{name}, cut at {cut}");
            let outcome = recover(&log, &bytes[..cut], cut..FILE_BYTES, &what);
            let whole = log.records.iter().take_while(|w| w.place.end <= cut).count();
            assert!(outcome.lost.iter().eq(&Vec::from_iter(whole..log.records.len())), "{what}: {outcome:?}");
            let torn = log.records.get(whole).map_or(cut, |w| w.place.start.min(cut));
            if bytes[torn..cut].iter().any(|b| *b != 0) {
                assert!(outcome.reported, "{what}: lost in silence");
            }
        });
    }
}

/// More than a bit: sectors and blocks that read as zeros, as ones, or as nonsense.
#[test]
fn a_lost_sector_costs_the_records_in_it() {
    for (name, _, log) in logs() {
        let mut random = Random(3);
        for bytes_lost in [SECTOR_BYTES, BLOCK_BYTES] {
            for at in (BLOCK_BYTES..FILE_BYTES).step_by(bytes_lost) {
                for fill in 0..3 {
                    let mut bytes = log.bytes.clone();
                    let hit = at..at + bytes_lost;
                    match fill {
                        0 => bytes[hit.clone()].fill(0),
                        1 => bytes[hit.clone()].fill(0xFF),
                        _ => bytes[hit.clone()].fill_with(|| random.below(256) as u8),
                    }
                    let what = format_args!("{name}, {bytes_lost} bytes at {at}, fill {fill}");
                    let outcome = recover(&log, &bytes, hit.clone(), &what);
                    for lost in &outcome.lost {
                        let place = &log.records[*lost].place;
                        assert!(place.start < hit.end && hit.start < place.end, "{what}: lost {lost} at {place:?}");
                    }
                    // Zeros where the last records were look as if nothing was ever written there.
                    let vanished = fill == 0 && outcome.lost.last() == Some(&(log.records.len() - 1));
                    assert!(outcome.lost.is_empty() || outcome.reported || vanished, "{what}: lost in silence");
                }
            }
        }
    }
}

/// For every prefix of the blocks that were written, and every subset of the sectors of the block that was being written.
#[test]
fn a_crash_in_a_write_costs_no_group_before_it() {
    for before in [Before::Zeros, Before::Records] {
        let groups = groups_over(before, FILE_BYTES);
        let log = log(before, FILE_BYTES);
        let mut file = file_before(before);
        let mut complete = 0;
        for (number, group) in groups.iter().enumerate() {
            let blocks = blocks(group);
            for block in 0..blocks.len() / BLOCK_BYTES {
                let start = group.offset as usize + block * BLOCK_BYTES;
                for sectors in 0..1u32 << (BLOCK_BYTES / SECTOR_BYTES) {
                    let mut torn = file.clone();
                    for sector in (0..BLOCK_BYTES / SECTOR_BYTES).filter(|s| sectors >> s & 1 != 0) {
                        let at = sector * SECTOR_BYTES;
                        torn[start + at..][..SECTOR_BYTES]
                            .copy_from_slice(&blocks[block * BLOCK_BYTES + at..][..SECTOR_BYTES]);
                    }
                    let what = format_args!("{before:?}, group {number}, block {block}, sectors {sectors:08b}");
                    let outcome = recover(&log, &torn, group.offset as usize..FILE_BYTES, &what);
                    let first_lost = outcome.lost.first().copied().unwrap_or(usize::MAX);
                    assert!(first_lost >= complete, "{what}: lost {first_lost}, and {complete} were written");
                    if number % 8 == 0 && sectors % 16 == 5 {
                        recovers_in_a_directory(&log, &torn, &outcome, &what);
                    }
                }
                file[start..start + BLOCK_BYTES].copy_from_slice(&blocks[block * BLOCK_BYTES..][..BLOCK_BYTES]);
            }
            complete += group.records;
        }
        assert_eq!((complete, &file), (log.records.len(), &log.bytes));
    }
}

/// Recovers a shard's directory with this segment, which gave `outcome` when it was scanned.
fn recovers_in_a_directory(log: &Log, bytes: &[u8], outcome: &Outcome, what: &dyn Display) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(SegmentHeader::file_name(SEGMENT));
    std::fs::write(&path, bytes).unwrap();
    let state = recovery::recover_shard(dir.path(), Since::default()).unwrap();
    let found = &state.findings;
    let kept = log.records.len() - outcome.lost.len();
    if state.segments.is_empty() {
        // A file that holds nothing may serve for a later segment.
        let useless: Vec<_> = found.unreadable.iter().chain(&state.spares).collect();
        assert_eq!((kept, &useless[..]), (0, &[&path][..]), "{what}");
        assert_eq!(state.next_segment, SEGMENT + 1, "{what}");
        return;
    }
    assert_eq!(found.damaged > 0 || found.torn_bytes > 0, outcome.reported, "{what}: {found:?}");
    let quarantined = std::fs::read_dir(dir.path().join("quarantine")).unwrap().count();
    assert_eq!(quarantined > 0, outcome.reported, "{what}");
    let last = (0..log.records.len()).rev().find(|i| !outcome.lost.contains(i)).map(|i| &log.records[i]);
    let info = state.segments.last().unwrap();
    assert_eq!(info.last_sequence, last.map_or(info.header.base_sequence - 1, |w| w.sequence), "{what}");
    assert!(state.next_sequence > info.last_sequence, "{what}");
    assert!(state.clock_floor_ns >= last.map_or(0, |w| w.clock.0), "{what}");
    // What was on the disk, even in part, keeps its number to itself.
    let torn = log.records.iter().rev().find(|w| {
        let place = w.place.start.min(bytes.len())..w.place.end.min(bytes.len());
        bytes[place.clone()] == log.bytes[place.clone()] && bytes[place].iter().any(|b| *b != 0)
    });
    assert!(torn.is_none_or(|w| state.next_sequence > w.sequence), "{what}");
    // What was found is mended: the next opening finds the same records and nothing to tell.
    let again = recovery::recover_shard(dir.path(), Since::default()).unwrap();
    let nothing = recovery::Findings { headers_rebuilt: again.findings.headers_rebuilt.clone(), ..Default::default() };
    assert_eq!((again.findings, again.next_sequence), (nothing, state.next_sequence), "{what}");
    assert_eq!(std::fs::read_dir(dir.path().join("quarantine")).unwrap().count(), quarantined, "{what}");
}

#[test]
fn a_shard_with_a_damaged_segment_opens_and_tells() {
    for (name, _, log) in logs() {
        for_each(FILE_BYTES * 8, 4_099, &log.bytes, |bytes, i| {
            // Each of these takes some hundred times as long as a scan.
            let i = if long() && i % 101 != 0 { return } else { i };
            let (bit, cut) = (BLOCK_BYTES * 8 + i % ((FILE_BYTES - BLOCK_BYTES) * 8), i / 8);
            let what = format_args!("{name}, bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
            let outcome = recover(&log, bytes, bit / 8..bit / 8 + 1, &what);
            recovers_in_a_directory(&log, bytes, &outcome, &what);
            bytes[bit / 8] ^= 1 << (bit % 8);
            let what = format_args!("{name}, cut at {cut}");
            let outcome = recover(&log, &bytes[..cut], cut..FILE_BYTES, &what);
            recovers_in_a_directory(&log, &bytes[..cut], &outcome, &what);
        });
    }
}

/// Three segments in a row, in files of a shard's directory.
struct Shard {
    dir: tempfile::TempDir,
    logs: Vec<Log>,
}

impl Shard {
    fn new() -> Shard {
        let dir = tempfile::tempdir().unwrap();
        let mut logs: Vec<Log> = Vec::new();
        let mut first = FIRST_SEQUENCE;
        for segment in SEGMENT..SEGMENT + 3 {
            let mut bytes = vec![0; FILE_BYTES];
            let groups = groups(segment, first, FILE_BYTES);
            groups.iter().for_each(|g| write(&mut bytes, g));
            first = groups.last().unwrap().last_sequence + 1;
            std::fs::write(dir.path().join(SegmentHeader::file_name(segment)), &bytes).unwrap();
            logs.push(Log {
                header: groups[0].new_segment.unwrap(),
                bytes,
                records: groups.iter().flat_map(|g| written(g).collect::<Vec<_>>()).collect(),
            });
        }
        Shard { dir, logs }
    }

    fn path(&self, i: usize) -> PathBuf {
        self.dir.path().join(SegmentHeader::file_name(SEGMENT + i as u64))
    }

    fn recover(&self) -> ShardState {
        recovery::recover_shard(self.dir.path(), Since::default()).unwrap()
    }

    /// The state is what it is without damage to the headers, and each record is found with the header that was found.
    fn assert_whole(&self, state: &ShardState, what: &dyn Display) {
        let next = self.logs[2].records.last().unwrap().sequence + 1;
        assert_eq!((state.next_sequence, state.next_segment), (next, SEGMENT + 3), "{what}");
        assert_eq!(state.segments.len(), 3, "{what}");
        for (info, log) in state.segments.iter().zip(&self.logs) {
            let (h, good) = (&info.header, &log.header);
            assert_eq!(
                (h.id, h.base_sequence, h.incarnation, h.shard, h.purpose),
                (good.id, good.base_sequence, good.incarnation, good.shard, good.purpose),
                "{what}"
            );
            assert_eq!(info.last_sequence, log.records.last().unwrap().sequence, "{what}");
            assert!(h.base_clock_ns < log.records[0].clock.0, "{what}");
            let found = recovery::scan(h, &log.bytes, |_, _| ());
            assert_eq!(found.records as usize, log.records.len(), "{what}");
        }
    }
}

#[test]
fn a_damaged_header_costs_no_record() {
    let shard = Shard::new();
    shard.assert_whole(&shard.recover(), &"no damage");
    for i in 0..3 {
        let mut rebuilt = 0;
        let mut recover = |bytes: &[u8], what: &dyn Display| {
            std::fs::write(shard.path(i), bytes).unwrap();
            let state = shard.recover();
            shard.assert_whole(&state, what);
            assert_eq!((state.findings.damaged, state.findings.unreadable.len()), (0, 0), "{what}");
            let found = &state.findings.headers_rebuilt;
            assert!(found.is_empty() || *found == [shard.path(i)], "{what}: {found:?}");
            rebuilt += found.len();
        };
        let mut bytes = shard.logs[i].bytes.clone();
        // What is after the first sector is not used.
        for bit in (0..SECTOR_BYTES * 8).chain((SECTOR_BYTES * 8..BLOCK_BYTES * 8).step_by(61)) {
            bytes[bit / 8] ^= 1 << (bit % 8);
            recover(&bytes, &format_args!("segment {i}, bit {bit}"));
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        for fill in [0, 0xFF] {
            bytes[..BLOCK_BYTES].fill(fill);
            recover(&bytes, &format_args!("segment {i}, all of the header is {fill}"));
        }
        assert!(rebuilt > 400, "{rebuilt} damaged headers were noticed");
        std::fs::write(shard.path(i), &shard.logs[i].bytes).unwrap();
    }
}

#[test]
fn a_shard_opens_whatever_header_is_cut() {
    let shard = Shard::new();
    for i in 0..3 {
        for cut in 0..=BLOCK_BYTES {
            std::fs::write(shard.path(i), &shard.logs[i].bytes[..cut]).unwrap();
            let what = format_args!("segment {i}, cut at {cut}");
            let state = shard.recover();
            let found = &state.findings;
            let useless: Vec<_> = found.unreadable.iter().chain(&state.spares).collect();
            assert_eq!(useless.len() + state.segments.len(), 3, "{what}");
            assert!(useless.iter().all(|p| **p == shard.path(i)) && found.headers_rebuilt.is_empty(), "{what}");
            assert_eq!(state.next_segment, SEGMENT + 3, "{what}: a number is used once");
            if i < 2 {
                assert_eq!(state.next_sequence, shard.logs[2].records.last().unwrap().sequence + 1, "{what}");
            }
        }
        std::fs::write(shard.path(i), &shard.logs[i].bytes).unwrap();
    }
}

/// Cursors as two saves in a row leave them, the later ones second.
fn cursors(next_sequence: u64) -> [Cursors; 2] {
    [8, 9].map(|generation| {
        let mut lanes = BTreeMap::new();
        for destination in 1..4 {
            let mut lane = Cursor::at(FIRST_SEQUENCE + generation * 2);
            lane.done(FIRST_SEQUENCE + 30 + generation);
            lane.done(FIRST_SEQUENCE + 50 + u64::from(destination));
            lanes.insert(destination, lane);
        }
        Cursors { generation, next_sequence, clock_ceiling_ns: 1_000_000 + generation, lanes, ..Cursors::default() }
    })
}

/// As the shard writes them: whole blocks.
fn cursor_file(cursors: &Cursors) -> Vec<u8> {
    let mut bytes = cursors.encode();
    bytes.resize(bytes.len().next_multiple_of(BLOCK_BYTES), 0);
    bytes
}

/// What can happen to a file: each flipped bit and each cut, or every `stride`th of them.
fn damages(bytes: &[u8], used: usize, stride: usize) -> impl Iterator<Item = (String, Vec<u8>)> {
    let flips = (0..used * 8).step_by(stride).map(|bit| {
        let mut bad = bytes.to_vec();
        bad[bit / 8] ^= 1 << (bit % 8);
        (format!("bit {bit}"), bad)
    });
    let cuts = (0..used).step_by(stride).map(|cut| (format!("cut at {cut}"), bytes[..cut].to_vec()));
    flips.chain(cuts)
}

#[test]
fn a_damaged_cursor_file_leaves_the_other() {
    let shard = Shard::new();
    let next = shard.recover().next_sequence;
    let saved = cursors(next);
    let path = |c: &Cursors| shard.dir.path().join(CURSOR_FILES[(c.generation % 2) as usize]);
    saved.iter().for_each(|c| std::fs::write(path(c), cursor_file(c)).unwrap());
    assert_eq!(shard.recover().cursors, saved[1]);
    for (hit, other) in [(&saved[0], &saved[1]), (&saved[1], &saved[0])] {
        let file = cursor_file(hit);
        for (what, bad) in damages(&file, hit.encode().len(), 1) {
            std::fs::write(path(hit), bad).unwrap();
            let state = shard.recover();
            assert_eq!(state.cursors, *other, "generation {}, {what}", hit.generation);
            assert_eq!(state.findings.cursor_damaged, 1, "{what}");
            shard.assert_whole(&state, &what);
        }
        // Bytes after the contents are not used.
        std::fs::write(path(hit), &file[..hit.encode().len()]).unwrap();
        assert_eq!(shard.recover().cursors, saved[1]);
        std::fs::write(path(hit), file).unwrap();
    }
}

#[test]
fn two_damaged_cursor_files_make_nothing_look_delivered() {
    let shard = Shard::new();
    let saved = cursors(shard.recover().next_sequence);
    let [a, b] = saved.each_ref().map(cursor_file);
    let [path_a, path_b] = CURSOR_FILES.map(|name| shard.dir.path().join(name));
    for (what_a, bad_a) in damages(&a, saved[0].encode().len(), if long() { 3 } else { 61 }) {
        std::fs::write(&path_a, bad_a).unwrap();
        for (what_b, bad_b) in damages(&b, saved[1].encode().len(), 67) {
            std::fs::write(&path_b, bad_b).unwrap();
            let what = format_args!("{what_a} and {what_b}");
            let state = shard.recover();
            assert_eq!((&state.cursors, state.findings.cursor_damaged), (&Cursors::default(), 2), "{what}");
            shard.assert_whole(&state, &what);
        }
    }
}
