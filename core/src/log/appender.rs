//! The appender: packs records into groups that are written with one write and made durable with one sync.
//!
//! Pure: it fills buffers and says where in which segment each belongs; writing is the caller's. A group begins at a block
//! boundary and repeats the bytes of the block that the group before it ended in, so that every write is of whole blocks.
//! Groups must therefore be written in order.

use std::collections::VecDeque;

use super::record::{self, Extensions, Kind, RecordHeader, Route};
use super::segment::{Purpose, SegmentHeader};
use super::{Ack, BLOCK_BYTES, segment};
use crate::event::id::HybridClock;

/// A group is closed when it has this many bytes, even while none can be written.
const GROUP_BYTES: usize = 1 << 20;

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
    /// The bytes, not padded to a block.
    pub bytes: Vec<u8>,
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
    /// Where the next record goes; `None` before the first segment.
    at: Option<Position>,
    current: Option<Group>,
    closed: VecDeque<Group>,
    closed_bytes: usize,
    /// The block that the last group ended in, up to its end.
    tail: Vec<u8>,
    spare: Vec<Vec<u8>>,
}

impl Appender {
    /// An appender that starts a new segment with its first record.
    pub fn new(plan: SegmentPlan, next_segment: u64, next_sequence: u64, clock_floor_ns: u64) -> Appender {
        Appender {
            plan,
            clock: HybridClock::starting_above(clock_floor_ns),
            next_sequence,
            next_segment,
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

        let roll =
            self.at.is_none_or(|p| p.offset + need as u64 > self.plan.bytes_max && p.offset > BLOCK_BYTES as u64);
        if roll {
            self.close_current();
            self.begin_segment(sequence, clock_ns, wall_ns);
        } else if self.current.as_ref().is_some_and(|g| g.bytes.len() + need > GROUP_BYTES && g.records > 0) {
            self.close_current();
        }
        let group = self.group();
        let start = group.bytes.len();
        group.bytes.resize(start + need, 0);
        let header = RecordHeader { kind, sequence, clock_ns, tie };
        record::encode(group.segment, &header, routes, extensions, body, &mut group.bytes[start..]);
        group.records += 1;
        group.last_sequence = sequence;
        let end = group.end();
        self.at = Some(end);
        sequence
    }

    /// Notes that everything up to this ring position is in the groups so far, and what somebody waits for.
    pub fn cover(&mut self, ring_position: u64, wants: Ack) {
        let group = self.group();
        group.ring_position = ring_position;
        group.wants = group.wants.max(wants);
    }

    /// Asks that the group so far be made durable.
    pub fn want_synced(&mut self) {
        if let Some(g) = self.current.as_mut().or(self.closed.back_mut()) {
            g.wants = Ack::Synced;
        }
    }

    /// Ends the segment: the next record begins another one.
    pub fn end_segment(&mut self) {
        self.close_current();
        self.tail.clear();
        self.at = None;
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
            recycled: false,
        };
        self.next_segment += 1;
        self.tail.clear();
        let mut bytes = self.spare.pop().unwrap_or_default();
        bytes.resize(BLOCK_BYTES, 0);
        header.encode(&mut bytes);
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
        if self.spare.len() < 3 {
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
        let padded = g.bytes.len().next_multiple_of(BLOCK_BYTES);
        file.resize(file.len().max(g.offset as usize + padded), 0);
        file[g.offset as usize..][..g.bytes.len()].copy_from_slice(&g.bytes);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn what_goes_in_comes_out(
            sizes in proptest::collection::vec((1usize..20_000, 0usize..20, any::<bool>()), 1..120),
            bytes_max in 70_000u64..400_000,
        ) {
            let mut a = Appender::new(plan(bytes_max), 5, 100, 50);
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
        let mut a = Appender::new(plan(1 << 30), 1, 1, 0);
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
        let mut a = Appender::new(plan(1 << 20), 1, 1, 0);
        a.append(Kind::DeadLetter, &[], b"x", 1);
        a.end_segment();
        a.append(Kind::DeadLetter, &[], b"y", 1);
        let groups: Vec<Group> = std::iter::from_fn(|| a.take()).collect();
        let told: Vec<_> = groups.iter().map(|g| (g.segment, g.offset, g.last_sequence)).collect();
        assert_eq!(told, [(1, 0, 1), (2, 0, 2)]);
        assert!(groups.iter().all(|g| g.new_segment.is_some() && g.records == 1));
    }

    #[test]
    fn covering_without_records_gives_a_group_without_fresh_bytes() {
        let mut a = Appender::new(plan(1 << 20), 1, 1, 0);
        a.append(Kind::Event, &[], b"x", 1);
        a.take().unwrap();
        a.cover(500, Ack::Synced);
        let g = a.take().unwrap();
        assert_eq!((g.records, g.fresh, g.ring_position, g.wants), (0, g.bytes.len(), 500, Ack::Synced));
        assert!(a.take().is_none());
    }
}
