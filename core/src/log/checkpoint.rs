//! The checkpoint: what is known of the records up to a sequence and saved with the cursors, so that opening reads only
//! the records after it.
//!
//! Only what is durable counts: a record that was written but not synced may be gone after a crash, and what it brought to
//! its end is open again then. So records are noted when they are written and take effect when a sync has covered them.

use std::collections::{BTreeMap, VecDeque};

use super::appender::Position;
use super::cursor::{Cursors, section};
use super::layout::Since;
use super::record::{Kind, RecordView};

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checkpoint {
    through: u64,
    /// Intents without an end, by sequence.
    intents: BTreeMap<u64, Position>,
    /// The layout that `host_cursor` is of: in another one, other events are for this shard.
    since: Since,
    /// Everything that the host appended up to this cursor of its own is in the log, or was not for this shard.
    host_cursor: u64,
    /// Higher ones, with the sequences from which on they are right; of records only in `noted`.
    host_cursor_noted: Option<(u64, u64)>,
    /// Per destination and other shard, the last of its records that it handed over.
    handed_over: BTreeMap<(u32, u16), u64>,
    /// Records that were handed over and stand behind a gap: what was handed over before them is not here.
    behind_gaps: Vec<BehindGap>,
    /// The keys of repeats that were not taken yet.
    dedup: Vec<DedupEntry>,
    /// The keys of the records up to here are in files of their own.
    dedup_through: u64,
    /// What records after `through` say, in order.
    noted: VecDeque<(u64, Note)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Note {
    Intent(Position),
    Resolved(u64),
    HostCursor(u64),
    Dedup(DedupEntry),
    HandedOver((u32, u16), u64),
}

/// A record that another shard handed over, and that stands in this shard's log without the one handed over before it. If
/// the other shard does not know that it is here, it will hand over both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BehindGap {
    /// The destination.
    pub destination: u32,
    /// Its place here.
    pub sequence: u64,
    /// Its place there.
    pub from: (u16, u64),
    /// It was handed over once more since, so it does not count, whatever the other shard knows by now.
    pub again: bool,
}

/// The key of an event by which repeats are recognised, and when the event was accepted, ns since the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DedupEntry {
    /// The key, as in [`super::record::Extensions::dedup`].
    pub key: u128,
    /// When.
    pub at_ns: u64,
}

impl DedupEntry {
    /// Bytes of one in a list.
    pub const BYTES: usize = 24;

    /// A list of them.
    pub fn encode(entries: &[DedupEntry]) -> Vec<u8> {
        let mut out = Vec::with_capacity(entries.len() * DedupEntry::BYTES);
        for e in entries {
            out.extend_from_slice(&e.key.to_le_bytes());
            out.extend_from_slice(&e.at_ns.to_le_bytes());
        }
        out
    }

    /// Reads a list.
    pub fn decode(bytes: &[u8]) -> impl Iterator<Item = DedupEntry> + '_ {
        bytes.chunks_exact(DedupEntry::BYTES).map(|b| {
            let (key, at_ns) = b.split_at(16);
            DedupEntry { key: key.try_into().map_or(0, u128::from_le_bytes), at_ns: number(at_ns).unwrap_or_default() }
        })
    }
}

impl Checkpoint {
    /// The checkpoint that was saved with these cursors. Those of an older version have none: then it is that of a log
    /// without any of what it tells, up to the sequence that they were saved at.
    pub fn saved(cursors: &Cursors, since: Since) -> Checkpoint {
        let through = cursors.next_sequence.saturating_sub(1);
        let older = Checkpoint { through, dedup_through: through, since, ..Checkpoint::default() };
        Checkpoint::decode(cursors, since).unwrap_or(older)
    }

    fn decode(cursors: &Cursors, since: Since) -> Option<Checkpoint> {
        let through = number(cursors.sections.get(&section::THROUGH)?)?;
        let mut c = Checkpoint { through, since, ..Checkpoint::default() };
        let optional = |tag| cursors.sections.get(&tag).and_then(|b| number(b));
        if let Some((cursor, generation)) =
            cursors.sections.get(&section::HOST_CURSOR).and_then(|b| b.split_at_checked(8))
            && generation == since.generation.to_le_bytes()
        {
            c.host_cursor = number(cursor)?;
        }
        c.dedup_through = optional(section::DEDUP).unwrap_or(c.through);
        for entry in cursors.sections.get(&section::INTENTS)?.chunks_exact(24) {
            let [sequence, segment, offset] = [0, 8, 16].map(|at| number(&entry[at..at + 8]).unwrap_or_default());
            c.intents.insert(sequence, Position { segment, offset });
        }
        for entry in cursors.sections.get(&section::HANDED_OVER).map_or(&[][..], Vec::as_slice).chunks_exact(14) {
            let destination = u32::from_le_bytes([entry[0], entry[1], entry[2], entry[3]]);
            let shard = u16::from_le_bytes([entry[4], entry[5]]);
            c.handed_over.insert((destination, shard), number(&entry[6..]).unwrap_or_default());
        }
        Some(c)
    }

    /// Adds its sections to those that are saved with the cursors.
    pub fn save(&self, sections: &mut BTreeMap<u16, Vec<u8>>) {
        sections.insert(section::THROUGH, self.through.to_le_bytes().to_vec());
        let mut intents = Vec::with_capacity(self.intents.len() * 24);
        for (sequence, p) in &self.intents {
            [*sequence, p.segment, p.offset].iter().for_each(|n| intents.extend_from_slice(&n.to_le_bytes()));
        }
        sections.insert(section::INTENTS, intents);
        sections.insert(section::DEDUP, self.dedup_through.to_le_bytes().to_vec());
        if !self.handed_over.is_empty() {
            let mut all = Vec::with_capacity(self.handed_over.len() * 14);
            for ((destination, shard), sequence) in &self.handed_over {
                all.extend_from_slice(&destination.to_le_bytes());
                all.extend_from_slice(&shard.to_le_bytes());
                all.extend_from_slice(&sequence.to_le_bytes());
            }
            sections.insert(section::HANDED_OVER, all);
        }
        if self.host_cursor > 0 {
            let mut cursor = self.host_cursor.to_le_bytes().to_vec();
            cursor.extend_from_slice(&self.since.generation.to_le_bytes());
            sections.insert(section::HOST_CURSOR, cursor);
        }
    }

    /// Everything up to here is in it.
    pub fn through(&self) -> u64 {
        self.through
    }

    /// The records up to here are not needed any more.
    pub fn low(&self) -> u64 {
        let oldest = self.intents.first_key_value().map_or(self.through, |(oldest, _)| oldest - 1);
        oldest.min(self.dedup_through)
    }

    /// The records after here must be looked at when it was read from where it is saved.
    pub fn look_after(&self) -> u64 {
        self.through.min(self.dedup_through)
    }

    /// Intents without an end, in order.
    pub fn intents(&self) -> impl ExactSizeIterator<Item = (u64, Position)> + '_ {
        self.intents.iter().map(|(sequence, position)| (*sequence, *position))
    }

    /// Everything that the host appended up to this cursor of its own is in the log, or was not for this shard.
    pub fn host_cursor(&self) -> u64 {
        self.host_cursor
    }

    /// Goes over to a layout, if it is not in it already. What the host appended up to `floor` need not come any more.
    pub fn follow(&mut self, since: Since, floor: u64) {
        if self.since != since {
            (self.since, self.host_cursor) = (since, 0);
        }
        self.host_cursor = self.host_cursor.max(floor);
    }

    /// Once everything up to `sequence` is durable, that is so of this cursor.
    pub fn note_host_cursor(&mut self, sequence: u64, cursor: u64) {
        self.host_cursor_noted = Some((sequence, cursor));
        self.advance(self.through);
    }

    /// Whether a cursor was noted that does not count yet.
    pub fn awaits_host_cursor(&self) -> bool {
        self.host_cursor_noted.is_some()
    }

    /// Per destination and other shard, the last of its records that it handed over.
    pub fn handed_over(&self) -> &BTreeMap<(u32, u16), u64> {
        &self.handed_over
    }

    /// The destinations of which other shards handed something over.
    pub fn handed_destinations(&self) -> impl Iterator<Item = u32> + '_ {
        self.handed_over.keys().map(|(d, _)| *d).chain(self.behind_gaps.iter().map(|gap| gap.destination))
    }

    /// What was handed over and stands behind a gap.
    pub fn behind_gaps(&self) -> &[BehindGap] {
        &self.behind_gaps
    }

    /// The keys of repeats that have become durable since they were taken last.
    pub fn dedup(&self) -> &[DedupEntry] {
        &self.dedup
    }

    /// Takes them, those of the records up to [`Checkpoint::through`].
    pub fn take_dedup(&mut self) -> Vec<DedupEntry> {
        std::mem::take(&mut self.dedup)
    }

    /// All keys that were taken when the checkpoint went up to `through` are saved.
    pub fn dedup_saved(&mut self, through: u64) {
        self.dedup_through = through;
    }

    /// Takes out an intent that cannot be read any more.
    pub fn forget_intent(&mut self, sequence: u64) {
        self.intents.remove(&sequence);
    }

    /// Looks at a record that was written. Records come in order; those up to [`Checkpoint::through`] are passed over. One
    /// that is written once more, to another place, is looked at once more, and so is everything after it.
    #[inline]
    pub fn note(&mut self, position: Position, record: &RecordView<'_>) {
        if record.is_extended() || record.header().kind == Kind::Intent {
            self.note_special(position, record);
        }
    }

    fn note_special(&mut self, position: Position, record: &RecordView<'_>) {
        let sequence = record.sequence();
        if sequence <= self.through {
            if let Some(key) = record.extensions().dedup.filter(|_| sequence > self.dedup_through) {
                self.dedup.push(DedupEntry { key, at_ns: record.header().clock_ns });
            }
            return;
        }
        while self.noted.pop_back_if(|(later, _)| *later >= sequence).is_some() {}
        if record.header().kind == Kind::Intent {
            self.noted.push_back((sequence, Note::Intent(position)));
        }
        let extensions = record.extensions();
        if let Some(intent) = extensions.resolves {
            self.noted.push_back((sequence, Note::Resolved(intent)));
        }
        if let Some(cursor) = extensions.host_cursor.filter(|_| sequence >= self.since.sequence) {
            self.noted.push_back((sequence, Note::HostCursor(cursor)));
        }
        if let (Some(from), Some(route)) = (extensions.handed_over, record.routes().next()) {
            let key = (route.destination, from.shard);
            let noted = self.noted.iter().rev().find_map(|(_, note)| match note {
                Note::HandedOver(k, sequence) if *k == key => Some(*sequence),
                _ => None,
            });
            let known = noted.or_else(|| self.handed_over.get(&key).copied()).unwrap_or(0);
            for gap in &mut self.behind_gaps {
                gap.again |=
                    (gap.destination, gap.from.0) == key && from.sequence <= gap.from.1 && gap.sequence < sequence;
            }
            if from.previous <= known {
                self.noted.push_back((sequence, Note::HandedOver(key, from.sequence)));
            } else {
                let from = (from.shard, from.sequence);
                self.behind_gaps.push(BehindGap { destination: route.destination, sequence, from, again: false });
            }
        }
        if let Some(key) = extensions.dedup {
            self.noted.push_back((sequence, Note::Dedup(DedupEntry { key, at_ns: record.header().clock_ns })));
        }
    }

    /// Everything up to this sequence is durable.
    pub fn advance(&mut self, through: u64) {
        self.through = self.through.max(through);
        while let Some((sequence, note)) = self.noted.pop_front_if(|(sequence, _)| *sequence <= through) {
            match note {
                Note::Intent(position) => drop(self.intents.insert(sequence, position)),
                Note::Resolved(intent) => drop(self.intents.remove(&intent)),
                Note::HostCursor(cursor) => self.host_cursor = self.host_cursor.max(cursor),
                Note::Dedup(entry) => self.dedup.push(entry),
                Note::HandedOver(from, sequence) => drop(self.handed_over.insert(from, sequence)),
            }
        }
        if let Some((_, cursor)) = self.host_cursor_noted.take_if(|(sequence, _)| *sequence <= self.through) {
            self.host_cursor = self.host_cursor.max(cursor);
        }
    }
}

fn number(bytes: &[u8]) -> Option<u64> {
    bytes.try_into().ok().map(u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::log::appender::{Appender, SegmentPlan};
    use crate::log::record::{Extensions, HandedOver, Route};
    use crate::log::segment::Purpose;

    /// Appends records, each an intent (`None`) or the end of one.
    fn append(appender: &mut Appender, records: &[Option<u64>], into: &mut [&mut Checkpoint]) {
        for resolves in records {
            let kind = if resolves.is_some() { Kind::Abort } else { Kind::Intent };
            let extensions = Extensions { resolves: *resolves, ..Extensions::default() };
            appender.append_extended(kind, &[], &extensions, b"", 1);
            let group = appender.take().unwrap();
            for (position, record) in group.iter() {
                into.iter_mut().for_each(|c| c.note(position, &record));
            }
        }
    }

    fn appender() -> Appender {
        Appender::new(
            SegmentPlan { bytes_max: 1 << 20, shard: 0, incarnation: 1, purpose: Purpose::Events },
            1,
            0,
            1,
            0,
        )
    }

    fn open(c: &Checkpoint) -> Vec<u64> {
        c.intents().map(|(sequence, _)| sequence).collect()
    }

    fn saved(c: &Checkpoint) -> Checkpoint {
        let mut cursors = Cursors::default();
        c.save(&mut cursors.sections);
        Checkpoint::saved(&Cursors::decode(&cursors.encode()).unwrap(), Since::default())
    }

    #[test]
    fn an_end_that_is_not_durable_yet_leaves_the_intent_open() {
        let (mut a, mut c) = (appender(), Checkpoint::default());
        append(&mut a, &[None, None], &mut [&mut c]);
        assert_eq!((open(&c), c.low()), (vec![], 0));
        c.advance(2);
        c.dedup_saved(2);
        assert_eq!((open(&c), c.low()), (vec![1, 2], 0));
        append(&mut a, &[Some(1)], &mut [&mut c]);
        let before = saved(&c);
        c.advance(3);
        assert_eq!((open(&c), c.low()), (vec![2], 1));
        // After a crash the record may be there or not.
        assert_eq!((open(&before), before.through()), (vec![1, 2], 2));
    }

    #[test]
    fn what_was_saved_and_what_came_after_are_the_whole() {
        let records: Vec<Option<u64>> =
            (1..200).map(|i: u64| if i.is_multiple_of(3) { Some(i / 3 * 2) } else { None }).collect();
        for save_at in [0, 1, 50, 98, 199] {
            let (mut a, mut whole) = (appender(), Checkpoint::default());
            let n = save_at.min(records.len());
            append(&mut a, &records[..n], &mut [&mut whole]);
            whole.advance(n as u64 * 2 / 3);
            let mut again = saved(&whole);
            // Recovery sees everything again, what is in the checkpoint and what is not.
            let mut b = appender();
            append(&mut b, &records, &mut [&mut again]);
            append(&mut a, &records[n..], &mut [&mut whole]);
            whole.advance(199);
            again.advance(199);
            assert_eq!(again, whole);
            assert!(whole.intents().len() > 50);
        }
    }

    #[test]
    fn a_host_cursor_counts_once_what_came_before_it_is_durable() {
        let (mut a, mut c) = (appender(), Checkpoint::default());
        append(&mut a, &[None, None, None], &mut [&mut c]);
        c.note_host_cursor(3, 70);
        c.advance(2);
        assert_eq!((c.host_cursor(), c.awaits_host_cursor()), (0, true));
        c.advance(3);
        assert_eq!((saved(&c).host_cursor(), c.awaits_host_cursor()), (70, false));
        c.note_host_cursor(3, 80);
        assert_eq!(c.host_cursor(), 80, "it is durable already");
        c.note_host_cursor(3, 60);
        assert_eq!(c.host_cursor(), 80, "never lower");
        let extensions = Extensions { host_cursor: Some(90), dedup: Some(5), ..Extensions::default() };
        a.append_extended(Kind::Event, &[], &extensions, b"", 1);
        let group = a.take().unwrap();
        group.iter().for_each(|(position, record)| c.note(position, &record));
        assert_eq!((c.host_cursor(), c.dedup().len()), (80, 0));
        c.advance(4);
        assert_eq!((c.host_cursor(), c.take_dedup()[0].key), (90, 5));
        assert!(c.take_dedup().is_empty());
        // They are not saved yet: the record is needed still, and after a crash looked at again.
        assert_eq!((c.low(), saved(&c).look_after()), (0, 0));
        let mut again = saved(&c);
        group.iter().for_each(|(position, record)| again.note(position, &record));
        assert_eq!(again.dedup().len(), 1);
        c.dedup_saved(4);
        assert_eq!(saved(&c).look_after(), 4);
    }

    #[test]
    fn what_was_handed_over_is_known_by_destination_and_shard() {
        let (mut a, mut c) = (appender(), Checkpoint::default());
        for (destination, shard, sequence) in [(1, 0, 5), (1, 2, 9), (2, 0, 7), (1, 0, 6)] {
            let handed_over = Some(HandedOver { shard, sequence, previous: 0 });
            let extensions = Extensions { handed_over, ..Extensions::default() };
            a.append_extended(Kind::Event, &[Route::new(destination, 1)], &extensions, b"", 1);
        }
        a.take().unwrap().iter().for_each(|(position, record)| c.note(position, &record));
        c.advance(3);
        assert_eq!(*saved(&c).handed_over(), [((1, 0), 5), ((1, 2), 9), ((2, 0), 7)].into());
        c.advance(4);
        assert_eq!(saved(&c).handed_over()[&(1, 0)], 6);
    }

    /// A power cut left a hole where the records 1 and 2 of the other shard were, which hands all of them over once more.
    #[test]
    fn what_was_handed_over_behind_a_gap_is_known_and_whether_it_came_again() {
        let (mut a, mut c) = (appender(), Checkpoint::default());
        for (sequence, previous) in [(5, 2), (6, 5), (1, 0), (2, 1), (5, 2)] {
            let handed_over = Some(HandedOver { shard: 0, sequence, previous });
            let extensions = Extensions { handed_over, ..Extensions::default() };
            a.append_extended(Kind::Event, &[Route::new(3, 1)], &extensions, b"", 1);
        }
        let group = a.take().unwrap();
        let again =
            |c: &Checkpoint| c.behind_gaps().iter().map(|g| (g.sequence, g.from.1, g.again)).collect::<Vec<_>>();
        group.iter().take(2).for_each(|(position, record)| c.note(position, &record));
        assert_eq!(again(&c), [(1, 5, false), (2, 6, false)]);
        assert_eq!((c.handed_over().len(), c.handed_destinations().collect::<BTreeSet<_>>()), (0, [3].into()));
        group.iter().skip(2).for_each(|(position, record)| c.note(position, &record));
        assert_eq!(again(&c), [(1, 5, true), (2, 6, true)]);
        c.advance(5);
        assert_eq!(c.handed_over()[&(3, 0)], 5);
    }

    #[test]
    fn a_record_that_is_written_once_more_counts_where_it_is_then() {
        let (mut a, mut c) = (appender(), Checkpoint::default());
        append(&mut a, &[None, None, Some(1)], &mut [&mut c]);
        let mut moved = Appender::new(
            SegmentPlan { bytes_max: 1 << 20, shard: 0, incarnation: 1, purpose: Purpose::Events },
            7,
            1,
            2,
            0,
        );
        append(&mut moved, &[None, Some(1)], &mut [&mut c]);
        c.advance(3);
        let at: Vec<_> = c.intents().map(|(sequence, at)| (sequence, at.segment)).collect();
        assert_eq!(at, [(2, 7)]);
    }

    #[test]
    fn keys_of_repeats_are_read_as_they_were_written() {
        let entries: Vec<DedupEntry> = (0..100).map(|n| DedupEntry { key: u128::MAX - n, at_ns: n as u64 }).collect();
        assert_eq!(DedupEntry::decode(&DedupEntry::encode(&entries)).collect::<Vec<_>>(), entries);
    }

    #[test]
    fn cursors_of_an_older_version_stand_for_a_log_without_intents() {
        let cursors = Cursors { next_sequence: 40, ..Cursors::default() };
        assert_eq!(Checkpoint::saved(&cursors, Since::default()).through(), 39);
        assert_eq!(Checkpoint::saved(&Cursors::default(), Since::default()).through(), 0);
    }

    #[test]
    fn a_host_cursor_counts_in_its_layout_only() {
        let (mut a, mut c) = (appender(), Checkpoint::default());
        for cursor in [70, 71] {
            let extensions = Extensions { host_cursor: Some(cursor), ..Extensions::default() };
            a.append_extended(Kind::Event, &[], &extensions, b"", 1);
        }
        let group = a.take().unwrap();
        group.iter().for_each(|(position, record)| c.note(position, &record));
        c.advance(2);
        assert_eq!(c.host_cursor(), 71);
        let later = Since { generation: 2, sequence: 2 };
        let mut cursors = Cursors::default();
        c.save(&mut cursors.sections);
        assert_eq!(Checkpoint::saved(&cursors, Since::default()).host_cursor(), 71);
        let mut c = Checkpoint::saved(&cursors, later);
        assert_eq!(c.host_cursor(), 0, "in another layout other events are for the shard");
        c.follow(later, 50);
        assert_eq!(c.host_cursor(), 50);
        // After a crash the records tell, those of this layout.
        let mut c = Checkpoint { since: later, ..Checkpoint::default() };
        group.iter().for_each(|(position, record)| c.note(position, &record));
        c.advance(2);
        assert_eq!(c.host_cursor(), 71);
        let mut c = Checkpoint { since: Since { generation: 2, sequence: 3 }, ..Checkpoint::default() };
        group.iter().for_each(|(position, record)| c.note(position, &record));
        c.advance(2);
        assert_eq!(c.host_cursor(), 0);
    }
}
