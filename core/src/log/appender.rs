//! The appender: packs records into groups that are written with one write and made durable with one sync.
//!
//! Pure: it fills buffers and says where in which segment each belongs; writing is the caller's. A group begins at a block
//! boundary and repeats the bytes of the block that the group before it ended in, so that every write is of whole blocks.
//! Groups must therefore be written in order.

use std::collections::VecDeque;

use super::buffer::BlockBuffer;
use super::record::{self, Extensions, Kind, RECORD_HEADER_BYTES, RecordHeader, Route};
use super::segment::{Purpose, SegmentHeader};
use super::{Ack, BLOCK_BYTES, segment};
use crate::event::id::HybridClock;

/// A group is closed when it has this many bytes, even while none can be written.
const GROUP_BYTES: usize = 1 << 20;
/// Buffers kept for the next groups: as many as are in use while one is filled, one written and one synced.
const SPARE_BUFFERS: usize = 4;

/// The most routes one event can have.
pub const ROUTES_MAX: usize = 60_000;

/// Where a record stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The segment.
    pub segment: u64,
    /// Bytes from the start of its file.
    pub offset: u64,
}

/// Records that are written together.
#[derive(Debug)]
pub struct Group {
    /// The segment they go into.
    pub segment: u64,
    /// If this is the segment's first group: its header, which is already at the front of `bytes`.
    pub new_segment: Option<SegmentHeader>,
    /// Where `bytes` belong in the file; a multiple of a block.
    pub offset: u64,
    /// The bytes, not padded to a block. In the file at least a record's header of zeros follows them: there the segment
    /// ends, whatever the file held before.
    pub bytes: BlockBuffer,
    /// Where the group's own records begin in `bytes`.
    pub fresh: usize,
    /// How many records.
    pub records: usize,
    /// The last one's sequence (the one before the group if it has none).
    pub last_sequence: u64,
    /// What somebody waits for; at [`Ack::Memory`] nobody does.
    pub wants: Ack,
    /// The ring position that the group covers.
    pub ring_position: u64,
}

impl Group {
    /// Notes in the header of a new segment that its file held another one.
    pub fn mark_recycled(&mut self) {
        if let Some(header) = &mut self.new_segment {
            header.recycled = true;
            header.encode(&mut self.bytes.bytes_mut()[..BLOCK_BYTES]);
        }
    }

    /// The position after its last record.
    pub fn end(&self) -> Position {
        Position { segment: self.segment, offset: self.offset + self.bytes.len() as u64 }
    }

    /// Its own records with their positions.
    pub fn iter(&self) -> impl Iterator<Item = (Position, record::RecordView<'_>)> {
        let mut at = self.fresh;
        std::iter::from_fn(move || match record::parse_trusted(&self.bytes[at..]) {
            Some(view) => {
                let position = Position { segment: self.segment, offset: self.offset + at as u64 };
                at += view.padded_len();
                Some((position, view))
            }
            None => None,
        })
    }
}

/// How a new segment is to be.
#[derive(Clone, Copy, Debug)]
pub struct SegmentPlan {
    /// Closed before it grows past this.
    pub bytes_max: u64,
    /// The shard.
    pub shard: u16,
    /// Of this opening.
    pub incarnation: u64,
    /// What it holds.
    pub purpose: Purpose,
}

/// See the module.
#[derive(Debug)]
pub struct Appender {
    plan: SegmentPlan,
    clock: HybridClock,
    next_sequence: u64,
    next_segment: u64,
    /// The last record's sequence.
    last_sequence: u64,
    /// Where the next record goes; `None` before the first segment.
    at: Option<Position>,
    current: Option<Group>,
    closed: VecDeque<Group>,
    closed_bytes: usize,
    /// The block that the last group ended in, up to its end.
    tail: Vec<u8>,
    spare: Vec<BlockBuffer>,
}

impl Appender {
    /// An appender that starts a new segment with its first record. `last_sequence` is the one that the segments so far
    /// end with; there may be a gap between it and the next.
    pub fn new(
        plan: SegmentPlan,
        next_segment: u64,
        last_sequence: u64,
        next_sequence: u64,
        clock_floor_ns: u64,
    ) -> Appender {
        Appender {
            plan,
            clock: HybridClock::starting_above(clock_floor_ns),
            next_sequence,
            next_segment,
            last_sequence,
            at: None,
            current: None,
            closed: VecDeque::new(),
            closed_bytes: 0,
            tail: Vec::new(),
            spare: Vec::new(),
        }
    }

    /// The next record's sequence.
    pub fn next_sequence(&self) -> u64 {
        self.next_sequence
    }

    /// The number of the next segment.
    pub fn next_segment(&self) -> u64 {
        self.next_segment
    }

    /// The highest clock reading given out.
    pub fn clock_ns(&self) -> u64 {
        self.clock.last_ns()
    }

    /// Bytes that wait to be taken.
    pub fn pending_bytes(&self) -> usize {
        self.closed_bytes + self.current.as_ref().map_or(0, |g| g.bytes.len())
    }

    /// Whether something waits to be taken.
    pub fn pending(&self) -> bool {
        self.current.is_some() || !self.closed.is_empty()
    }

    /// Whether the next group to be taken begins a segment.
    pub fn begins_segment(&self) -> bool {
        self.closed.front().or(self.current.as_ref()).is_some_and(|g| g.new_segment.is_some())
    }

    /// Whether something waits to be taken, and none of it is waited for by anybody, nor much.
    pub fn may_linger(&self) -> bool {
        self.closed.is_empty() && self.current.as_ref().is_some_and(|g| g.wants == Ack::Memory)
    }

    /// Adds a record. Returns its sequence.
    ///
    /// # Panics
    /// If there are more than [`ROUTES_MAX`] routes or the body is larger than an event may be.
    pub fn append(&mut self, kind: Kind, routes: &[Route], body: &[u8], wall_ns: u64) -> u64 {
        self.append_extended(kind, routes, &Extensions::default(), body, wall_ns)
    }

    /// As [`Appender::append`], with extensions.
    ///
    /// # Panics
    /// As [`Appender::append`].
    pub fn append_extended(
        &mut self,
        kind: Kind,
        routes: &[Route],
        extensions: &Extensions,
        body: &[u8],
        wall_ns: u64,
    ) -> u64 {
        assert!(routes.len() <= ROUTES_MAX);
        let need = record::padded_len(routes.len(), extensions, body.len());
        assert!(need <= record::RECORD_BYTES_MAX);
        let (clock_ns, tie) = self.clock.tick(wall_ns);
        let sequence = self.next_sequence;
        self.next_sequence += 1;

        let (segment, out) = self.space(need, sequence, clock_ns, wall_ns, true);
        let header = RecordHeader { kind, sequence, clock_ns, tie };
        record::encode(segment, &header, routes, extensions, body, out);
        sequence
    }

    /// Room for a record in the group that it belongs to, and that group's segment. `may_roll` says whether the segment is
    /// ended when it is full.
    fn space(&mut self, need: usize, sequence: u64, clock_ns: u64, wall_ns: u64, may_roll: bool) -> (u64, &mut [u8]) {
        // The zeros behind the last record belong to the segment too, so that it never grows past its size.
        let full = |p: Position| p.offset + (need + RECORD_HEADER_BYTES) as u64 > self.plan.bytes_max;
        if self.at.is_none_or(|p| may_roll && full(p) && p.offset > BLOCK_BYTES as u64) {
            self.close_current();
            self.begin_segment(sequence, clock_ns, wall_ns);
        } else if self.current.as_ref().is_some_and(|g| g.bytes.len() + need > GROUP_BYTES && g.records > 0) {
            self.close_current();
        }
        let group = self.group();
        group.records += 1;
        group.last_sequence = sequence;
        let segment = group.segment;
        let end = Position { offset: group.end().offset + need as u64, segment };
        self.at = Some(end);
        self.last_sequence = sequence;
        (segment, self.group().bytes.grow(need))
    }

    /// Ends the segment: the next record begins another one.
    pub fn end_segment(&mut self) {
        self.close_current();
        self.tail.clear();
        self.at = None;
    }

    /// Moves records to a new segment, after the one they were meant for has failed: those of `taken`, which were taken
    /// and are not known to be durable, and those that wait. Sequences and clocks stay. They are there to be taken again,
    /// in order; what was taken before is in one segment, even if that grows past its size.
    pub fn relocate(&mut self, taken: Vec<Group>, wall_ns: u64) {
        self.end_segment();
        let waiting = std::mem::take(&mut self.closed);
        self.closed_bytes = 0;
        let together = taken.len();
        for (i, group) in taken.into_iter().chain(waiting).enumerate() {
            for (_, r) in group.iter() {
                let (h, raw) = (r.header(), r.raw());
                let (segment, out) = self.space(r.padded_len(), h.sequence, h.clock_ns, wall_ns, i >= together);
                let (record, padding) = out.split_at_mut(raw.len());
                record.copy_from_slice(raw);
                record::readdress(segment, record);
                padding.fill(0);
            }
            self.cover(group.ring_position, group.wants);
            self.recycle(group);
        }
    }

    /// Notes that everything up to this ring position is in the groups so far, and what somebody waits for.
    pub fn cover(&mut self, ring_position: u64, wants: Ack) {
        let group = self.group();
        group.ring_position = group.ring_position.max(ring_position);
        group.wants = group.wants.max(wants);
    }

    /// Asks that the group so far be made durable.
    pub fn want_synced(&mut self) {
        if let Some(g) = self.current.as_mut().or(self.closed.back_mut()) {
            g.wants = Ack::Synced;
        }
    }

    fn begin_segment(&mut self, sequence: u64, clock_ns: u64, wall_ns: u64) {
        let header = SegmentHeader {
            id: self.next_segment,
            incarnation: self.plan.incarnation,
            base_sequence: sequence,
            base_clock_ns: clock_ns.saturating_sub(1),
            created_ns: wall_ns,
            shard: self.plan.shard,
            purpose: self.plan.purpose,
            // Records that are moved to this segment are no longer in the one before.
            previous_last: self.last_sequence.min(sequence - 1),
            recycled: false,
        };
        self.next_segment += 1;
        self.tail.clear();
        let mut bytes = self.spare.pop().unwrap_or_default();
        header.encode(bytes.grow(BLOCK_BYTES));
        self.at = Some(Position { segment: header.id, offset: BLOCK_BYTES as u64 });
        self.current = Some(Group {
            segment: header.id,
            new_segment: Some(header),
            offset: 0,
            fresh: bytes.len(),
            bytes,
            records: 0,
            last_sequence: sequence - 1,
            wants: Ack::Memory,
            ring_position: 0,
        });
    }

    fn group(&mut self) -> &mut Group {
        let last_sequence = self.next_sequence - 1;
        self.current.get_or_insert_with(|| {
            let end = self.at.unwrap_or(Position { segment: 0, offset: 0 });
            let mut bytes = self.spare.pop().unwrap_or_default();
            bytes.extend_from_slice(&self.tail);
            Group {
                segment: end.segment,
                new_segment: None,
                offset: end.offset - bytes.len() as u64,
                fresh: bytes.len(),
                bytes,
                records: 0,
                last_sequence,
                wants: Ack::Memory,
                ring_position: 0,
            }
        })
    }

    fn close_current(&mut self) {
        if let Some(g) = self.current.take() {
            self.remember_tail(&g);
            self.closed_bytes += g.bytes.len();
            self.closed.push_back(g);
        }
    }

    fn remember_tail(&mut self, g: &Group) {
        let whole = g.bytes.len() / BLOCK_BYTES * BLOCK_BYTES;
        self.tail.clear();
        self.tail.extend_from_slice(&g.bytes[whole..]);
    }

    /// The next group to write, if there is one with records, or one that covers more of the ring.
    pub fn take(&mut self) -> Option<Group> {
        if let Some(g) = self.closed.pop_front() {
            self.closed_bytes -= g.bytes.len();
            return Some(g);
        }
        let g = self.current.take()?;
        self.remember_tail(&g);
        Some(g)
    }

    /// Gives a group's memory back for the next ones.
    pub fn recycle(&mut self, mut group: Group) {
        if self.spare.len() < SPARE_BUFFERS {
            group.bytes.clear();
            self.spare.push(group.bytes);
        }
    }
}

const _: () = assert!(segment::HEADER_FITS);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::recovery::scan;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn plan(bytes_max: u64) -> SegmentPlan {
        SegmentPlan { bytes_max, shard: 0, incarnation: 7, purpose: Purpose::Events }
    }

    /// Writes groups into files in memory as a disk would have them, whole blocks at a time.
    fn write(files: &mut BTreeMap<u64, Vec<u8>>, g: &Group) {
        let file = files.entry(g.segment).or_default();
        assert_eq!(g.offset as usize % BLOCK_BYTES, 0);
        let padded = (g.bytes.len() + RECORD_HEADER_BYTES).next_multiple_of(BLOCK_BYTES);
        file.resize(file.len().max(g.offset as usize + padded), 0);
        file[g.offset as usize..][..g.bytes.len()].copy_from_slice(&g.bytes);
    }

    fn groups(a: &mut Appender) -> Vec<Group> {
        std::iter::from_fn(|| a.take()).collect()
    }

    fn sequences(groups: &[Group]) -> Vec<u64> {
        groups.iter().flat_map(|g| g.iter().map(|(_, r)| r.sequence())).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn what_goes_in_comes_out(
            sizes in proptest::collection::vec((1usize..20_000, 0usize..20, any::<bool>()), 1..120),
            bytes_max in 70_000u64..400_000,
        ) {
            let mut a = Appender::new(plan(bytes_max), 5, 99, 100, 50);
            let mut files = BTreeMap::new();
            let mut seen = 99;
            for (i, (size, routes, take)) in sizes.iter().enumerate() {
                let routes: Vec<Route> = (0..*routes as u32).map(|n| Route::new(n, n + 1)).collect();
                let s = a.append(Kind::Event, &routes, &vec![i as u8; *size], 10);
                prop_assert_eq!(s, 100 + i as u64);
                if *take {
                    while let Some(g) = a.take() {
                        for (p, r) in g.iter() {
                            seen += 1;
                            prop_assert_eq!(r.sequence(), seen);
                            prop_assert_eq!(p.segment, g.segment);
                        }
                        write(&mut files, &g);
                        a.recycle(g);
                    }
                }
            }
            while let Some(g) = a.take() {
                write(&mut files, &g);
            }
            let mut next = 100;
            let mut clock = (50, u32::MAX);
            for (id, bytes) in &files {
                prop_assert!(bytes.len() as u64 <= bytes_max.next_multiple_of(BLOCK_BYTES as u64));
                let header = SegmentHeader::decode(bytes).unwrap();
                prop_assert_eq!((header.id, header.base_sequence, header.incarnation), (*id, next, 7));
                let mut all = Vec::new();
                let s = scan(&header, bytes, |_, r| all.push((r.header(), r.routes().len(), r.body().to_vec())));
                prop_assert_eq!((s.damage.len(), s.torn_bytes), (0, 0));
                for (h, routes, body) in all {
                    let (size, n, _) = sizes[(next - 100) as usize];
                    prop_assert_eq!(h.sequence, next);
                    prop_assert!((h.clock_ns, h.tie) > clock);
                    prop_assert!(h.clock_ns > header.base_clock_ns);
                    clock = (h.clock_ns, h.tie);
                    prop_assert_eq!(routes, n);
                    prop_assert_eq!(body, vec![(next - 100) as u8; size]);
                    next += 1;
                }
            }
            prop_assert_eq!(next, 100 + sizes.len() as u64);
        }
    }

    #[test]
    fn a_large_flood_is_cut_into_groups() {
        let mut a = Appender::new(plan(1 << 30), 1, 0, 1, 0);
        for _ in 0..100 {
            a.append(Kind::Event, &[], &[1; 60_000], 1);
        }
        let mut groups = 0;
        while let Some(g) = a.take() {
            assert!(g.bytes.len() <= GROUP_BYTES);
            groups += 1;
        }
        assert!(groups >= 6, "{groups}");
    }

    #[test]
    fn an_ended_segment_is_followed_by_another_one() {
        let mut a = Appender::new(plan(1 << 20), 1, 0, 1, 0);
        a.append(Kind::Event, &[], b"x", 1);
        a.end_segment();
        a.append(Kind::Event, &[], b"y", 1);
        let told: Vec<_> = groups(&mut a).iter().map(|g| (g.segment, g.offset, g.new_segment.is_some())).collect();
        assert_eq!(told, [(1, 0, true), (2, 0, true)]);
    }

    #[test]
    fn relocated_records_keep_sequence_clock_and_contents_in_a_segment_of_their_own() {
        // Groups of a segment that has failed, taken and waiting, and one of the segment after it.
        let mut a = Appender::new(plan(300_000), 5, 99, 100, 50);
        let body = |n: u64| vec![n as u8; 20_000];
        let route = Route::new(3, 4);
        let extended = Extensions { resolves: Some(9), ..Extensions::default() };
        for n in 0..3 {
            a.append_extended(Kind::Event, &[route], &extended, &body(n), 60);
        }
        a.cover(1000, Ack::Synced);
        let durable = a.take().unwrap();
        let mut taken = Vec::new();
        for n in 3..9 {
            a.append(Kind::Event, &[route], &body(n), 60);
            a.cover(1000 + n, Ack::Written);
            taken.extend(a.take());
        }
        for n in 9..25 {
            a.append(Kind::Event, &[route], &body(n), 60);
        }
        a.cover(2000, Ack::Synced);
        assert_eq!(a.next_segment(), 7, "the last records are for a second segment");
        let clocks: BTreeMap<u64, (u64, u32)> = taken
            .iter()
            .flat_map(|g| g.iter().map(|(_, r)| (r.sequence(), (r.header().clock_ns, r.header().tie))))
            .collect();

        a.relocate(taken, 70);
        a.append(Kind::Event, &[route], &body(25), 60);
        let again = groups(&mut a);
        assert_eq!(sequences(&again), (103..126).collect::<Vec<_>>());
        let first = again[0].new_segment.unwrap();
        assert_eq!((first.id, first.base_sequence, again[0].offset), (7, 103, 0), "a number never used before");
        assert_eq!(again.iter().map(|g| g.ring_position).max(), Some(2000));
        assert!(again.iter().any(|g| g.wants == Ack::Synced));
        let mut files = BTreeMap::new();
        again.iter().for_each(|g| write(&mut files, g));
        let mut seen = 102;
        for (id, bytes) in &files {
            let header = SegmentHeader::decode(bytes).unwrap();
            assert_eq!((header.id, header.base_sequence), (*id, seen + 1));
            let s = scan(&header, bytes, |_, r| {
                seen += 1;
                assert_eq!((r.sequence(), r.body(), r.routes().next()), (seen, &body(seen - 100)[..], Some(route)));
                if let Some(clock) = clocks.get(&seen) {
                    assert_eq!((r.header().clock_ns, r.header().tie), *clock);
                }
            });
            assert_eq!((s.damage.len(), s.torn_bytes), (0, 0));
        }
        assert_eq!(seen, 125);
        assert_eq!(sequences(&[durable]), [100, 101, 102], "what is durable stays where it is");
    }

    #[test]
    fn covering_without_records_gives_a_group_without_fresh_bytes() {
        let mut a = Appender::new(plan(1 << 20), 1, 0, 1, 0);
        a.append(Kind::Event, &[], b"x", 1);
        a.take().unwrap();
        a.cover(500, Ack::Synced);
        let g = a.take().unwrap();
        assert_eq!((g.records, g.fresh, g.ring_position, g.wants), (0, g.bytes.len(), 500, Ack::Synced));
        assert!(a.take().is_none());
    }
}
