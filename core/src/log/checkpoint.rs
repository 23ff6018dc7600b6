//! The checkpoint: what is known of the records up to a sequence and saved with the cursors, so that opening reads only
//! the records after it.
//!
//! Only what is durable counts: a record that was written but not synced may be gone after a crash, and what it brought to
//! its end is open again then. So records are noted when they are written and take effect when a sync has covered them.

use std::collections::{BTreeMap, VecDeque};

use super::appender::Position;
use super::cursor::{Cursors, section};
use super::record::{Kind, RecordView};

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checkpoint {
    through: u64,
    /// Intents without an end, by sequence.
    intents: BTreeMap<u64, Position>,
    /// What records after `through` say, in order.
    noted: VecDeque<(u64, Note)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Note {
    Intent(Position),
    Resolved(u64),
}

impl Checkpoint {
    /// The checkpoint that was saved with these cursors. Those of an older version have none: then it is that of a log
    /// without any of what it tells, up to the sequence that they were saved at.
    pub fn saved(cursors: &Cursors) -> Checkpoint {
        let older = Checkpoint { through: cursors.next_sequence.saturating_sub(1), ..Checkpoint::default() };
        Checkpoint::decode(cursors).unwrap_or(older)
    }

    fn decode(cursors: &Cursors) -> Option<Checkpoint> {
        let mut c = Checkpoint { through: number(cursors.sections.get(&section::THROUGH)?)?, ..Checkpoint::default() };
        for entry in cursors.sections.get(&section::INTENTS)?.chunks_exact(24) {
            let [sequence, segment, offset] = [0, 8, 16].map(|at| number(&entry[at..at + 8]).unwrap_or_default());
            c.intents.insert(sequence, Position { segment, offset });
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
    }

    /// Everything up to here is in it.
    pub fn through(&self) -> u64 {
        self.through
    }

    /// The records up to here are not needed any more.
    pub fn low(&self) -> u64 {
        self.intents.first_key_value().map_or(self.through, |(oldest, _)| oldest - 1)
    }

    /// Intents without an end, in order.
    pub fn intents(&self) -> impl ExactSizeIterator<Item = (u64, Position)> + '_ {
        self.intents.iter().map(|(sequence, position)| (*sequence, *position))
    }

    /// Takes out an intent that cannot be read any more.
    pub fn forget_intent(&mut self, sequence: u64) {
        self.intents.remove(&sequence);
    }

    /// Looks at a record that was written. Records come in order; those up to [`Checkpoint::through`] are passed over.
    #[inline]
    pub fn note(&mut self, position: Position, record: &RecordView<'_>) {
        if record.is_extended() || record.header().kind == Kind::Intent {
            self.note_special(position, record);
        }
    }

    fn note_special(&mut self, position: Position, record: &RecordView<'_>) {
        let sequence = record.sequence();
        if sequence <= self.through {
            return;
        }
        if record.header().kind == Kind::Intent {
            self.noted.push_back((sequence, Note::Intent(position)));
        }
        if let Some(intent) = record.extensions().resolves {
            self.noted.push_back((sequence, Note::Resolved(intent)));
        }
    }

    /// Everything up to this sequence is durable.
    pub fn advance(&mut self, through: u64) {
        self.through = self.through.max(through);
        while let Some((sequence, note)) = self.noted.pop_front_if(|(sequence, _)| *sequence <= through) {
            match note {
                Note::Intent(position) => self.intents.insert(sequence, position),
                Note::Resolved(intent) => self.intents.remove(&intent),
            };
        }
    }
}

fn number(bytes: &[u8]) -> Option<u64> {
    bytes.try_into().ok().map(u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::appender::{Appender, SegmentPlan};
    use crate::log::record::Extensions;
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
        Appender::new(SegmentPlan { bytes_max: 1 << 20, shard: 0, incarnation: 1, purpose: Purpose::Events }, 1, 1, 0)
    }

    fn open(c: &Checkpoint) -> Vec<u64> {
        c.intents().map(|(sequence, _)| sequence).collect()
    }

    fn saved(c: &Checkpoint) -> Checkpoint {
        let mut cursors = Cursors::default();
        c.save(&mut cursors.sections);
        Checkpoint::saved(&Cursors::decode(&cursors.encode()).unwrap())
    }

    #[test]
    fn an_end_that_is_not_durable_yet_leaves_the_intent_open() {
        let (mut a, mut c) = (appender(), Checkpoint::default());
        append(&mut a, &[None, None], &mut [&mut c]);
        assert_eq!((open(&c), c.low()), (vec![], 0));
        c.advance(2);
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
            (1..200).map(|i: u64| if i % 3 == 0 { Some(i / 3 * 2) } else { None }).collect();
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
    fn cursors_of_an_older_version_stand_for_a_log_without_intents() {
        let cursors = Cursors { next_sequence: 40, ..Cursors::default() };
        assert_eq!(Checkpoint::saved(&cursors).through(), 39);
        assert_eq!(Checkpoint::saved(&Cursors::default()).through(), 0);
    }
}
