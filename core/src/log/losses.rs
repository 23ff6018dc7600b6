//! The audit of losses: which events were dropped, when and why. Kept per shard in segments of the log's format, within
//! bounds; the oldest go first.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::ControlFlow;
use std::path::Path;

use serde::Serialize;

use super::BLOCK_BYTES;
use super::appender::{Appender, SegmentPlan};
use super::cursor::section;
use super::dead::{self, at_path, read_if_there, text_or_base64, time};
use super::names::Names;
use super::record::{Kind, RECORD_HEADER_BYTES, RecordView};
use super::recovery::{self, Findings, limits, list_segments, scan, shard_path};
use super::segment::{Purpose, SegmentHeader};
use crate::driver::{fs, wall_ns};
use crate::error::{Error, ErrorKind, Result};
use crate::event::EventId;

/// Why an event was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[non_exhaustive]
#[repr(u8)]
pub enum LossReason {
    /// The queue was full and the oldest were to go.
    DropOldest = 1,
    /// The queue was full and the newest were to go.
    DropNewest = 2,
    /// It waited for too long, where the oldest were to be dropped.
    TooOld = 3,
    /// It was a dead letter, and there were too many.
    DeadLettersFull = 4,
    /// It was a dead letter for too long.
    DeadLetterTooOld = 5,
    /// It was a dead letter, and somebody purged it.
    Purged = 6,
    /// What the log had of it could not be read.
    Damaged = 7,
    /// Its destination was removed, and what waited for it was to be purged.
    Removed = 8,
}

impl LossReason {
    /// Every reason.
    pub const ALL: [LossReason; 8] = [
        LossReason::DropOldest,
        LossReason::DropNewest,
        LossReason::TooOld,
        LossReason::DeadLettersFull,
        LossReason::DeadLetterTooOld,
        LossReason::Purged,
        LossReason::Damaged,
        LossReason::Removed,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            LossReason::DropOldest => "drop_oldest",
            LossReason::DropNewest => "drop_newest",
            LossReason::TooOld => "too_old",
            LossReason::DeadLettersFull => "dead_letters_full",
            LossReason::DeadLetterTooOld => "dead_letter_too_old",
            LossReason::Purged => "purged",
            LossReason::Damaged => "damaged",
            LossReason::Removed => "removed",
        }
    }

    /// The reason of a name.
    pub fn parse(name: &str) -> Option<LossReason> {
        LossReason::ALL.into_iter().find(|r| r.name() == name)
    }

    /// Whether the event still waited for its destination; otherwise it was a dead letter already.
    pub fn was_waiting(self) -> bool {
        use LossReason::{Damaged, DropNewest, DropOldest, Removed, TooOld};
        matches!(self, DropOldest | DropNewest | TooOld | Damaged | Removed)
    }
}

impl fmt::Display for LossReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One event that was dropped for one destination, or many of which there was no room to tell each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loss<'a> {
    /// Why.
    pub reason: LossReason,
    /// The destination's number.
    pub destination: u32,
    /// The rule's number.
    pub rule: u32,
    /// How many events; if more than one, nothing is said of each.
    pub count: u64,
    /// The event's id, if it ever got one: what was dropped before it was stored has none.
    pub id: Option<EventId>,
    /// When it was accepted, ns since the epoch.
    pub accepted_ns: u64,
    /// Its type.
    pub event_type: &'a str,
    /// Its bucket.
    pub bucket: &'a str,
    /// Its key.
    pub key: &'a [u8],
}

/// ```text
///  0  u8 reason   1 u8 flags: 1 = there is an id   2 u16 length of the type   4 u16 of the bucket   6 u16 of the key
///  8  u32 destination   12 u32 rule   16 u64 count   24 u64 accepted   32 u64 incarnation   40 u64 sequence
/// 48  u16 shard   50  type, bucket, key
/// ```
const FIXED_BYTES: usize = 50;

impl<'a> Loss<'a> {
    /// So many events of which no more is known.
    pub fn sum(reason: LossReason, destination: u32, rule: u32, count: u64) -> Loss<'a> {
        Loss { reason, destination, rule, count, id: None, accepted_ns: 0, event_type: "", bucket: "", key: b"" }
    }

    /// The loss as a record's body.
    ///
    /// # Panics
    /// Never: longer texts than an event may have are cut.
    pub fn encode(&self) -> Vec<u8> {
        let cut = |b: &'a [u8]| &b[..b.len().min(u16::MAX as usize)];
        let texts = [cut(self.event_type.as_bytes()), cut(self.bucket.as_bytes()), cut(self.key)];
        let id = self.id.unwrap_or(EventId { incarnation: 0, shard: 0, sequence: 0 });
        let mut b = Vec::with_capacity(FIXED_BYTES + texts.iter().map(|t| t.len()).sum::<usize>());
        b.extend_from_slice(&[self.reason as u8, u8::from(self.id.is_some())]);
        texts.iter().for_each(|t| b.extend_from_slice(&(t.len() as u16).to_le_bytes()));
        b.extend_from_slice(&self.destination.to_le_bytes());
        b.extend_from_slice(&self.rule.to_le_bytes());
        b.extend_from_slice(&self.count.to_le_bytes());
        b.extend_from_slice(&self.accepted_ns.to_le_bytes());
        b.extend_from_slice(&id.incarnation.to_le_bytes());
        b.extend_from_slice(&id.sequence.to_le_bytes());
        b.extend_from_slice(&id.shard.to_le_bytes());
        texts.iter().for_each(|t| b.extend_from_slice(t));
        b
    }

    /// Reads a record's body.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] if it is not one, [`ErrorKind::NewerFormat`] if its reason is not known.
    pub fn decode(b: &'a [u8]) -> Result<Loss<'a>> {
        let corrupt = || Error::new(ErrorKind::Corrupt, "loss: it cannot be understood");
        let (fixed, rest) = b.split_at_checked(FIXED_BYTES).ok_or_else(corrupt)?;
        let u16_at = |at: usize| u16::from_le_bytes([fixed[at], fixed[at + 1]]);
        let u32_at = |at: usize| u32::from_le_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]]);
        let u64_at = |at: usize| u64::from_le_bytes(fixed[at..at + 8].try_into().unwrap_or_default());
        let reason = LossReason::ALL.into_iter().find(|r| *r as u8 == fixed[0]).ok_or_else(|| {
            Error::new(ErrorKind::NewerFormat, format!("loss: reason {} is not known", fixed[0]))
                .remedy("use a newer Tidewire to read it")
        })?;
        let (event_type, rest) = rest.split_at_checked(u16_at(2) as usize).ok_or_else(corrupt)?;
        let (bucket, key) = rest.split_at_checked(u16_at(4) as usize).ok_or_else(corrupt)?;
        if key.len() != u16_at(6) as usize {
            return Err(corrupt());
        }
        let text = |b: &'a [u8]| std::str::from_utf8(b).map_err(|_| corrupt());
        Ok(Loss {
            reason,
            destination: u32_at(8),
            rule: u32_at(12),
            count: u64_at(16),
            id: (fixed[1] & 1 != 0).then(|| EventId {
                incarnation: u64_at(32),
                sequence: u64_at(40),
                shard: u16_at(48),
            }),
            accepted_ns: u64_at(24),
            event_type: text(event_type)?,
            bucket: text(bucket)?,
            key,
        })
    }
}

/// A loss as it is told.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecordedLoss {
    /// The shard that tells it, and its number there.
    pub shard: u16,
    /// See `shard`. Numbers grow.
    pub number: u64,
    /// When, ns since the epoch.
    pub at_ns: u64,
    /// Why.
    pub reason: LossReason,
    /// How many events; if more than one, nothing is said of each.
    pub count: u64,
    /// The destination that was not told.
    pub destination: String,
    /// The rule that had sent the event there.
    pub rule: String,
    /// The event's id, if it ever got one.
    pub event_id: Option<EventId>,
    /// When it was accepted, ns since the epoch; 0 if that is not known.
    pub accepted_ns: u64,
    /// Its type.
    pub event_type: String,
    /// Its bucket.
    pub bucket: String,
    /// Its key, raw.
    pub key: Vec<u8>,
}

#[derive(Serialize)]
struct Line<'a> {
    shard: u16,
    number: u64,
    time: String,
    reason: &'static str,
    count: u64,
    destination: &'a str,
    rule: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    event_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    accepted: Option<String>,
    #[serde(rename = "type", skip_serializing_if = "str::is_empty")]
    event_type: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    bucket: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_base64: Option<String>,
}

impl RecordedLoss {
    fn read(shard: u16, r: &RecordView<'_>, names: &Names) -> Result<RecordedLoss> {
        if r.header().kind != Kind::Loss {
            return Err(Error::new(ErrorKind::Corrupt, "loss: the record is something else"));
        }
        let l = Loss::decode(r.body())?;
        let named = |name: Option<&str>, number: u32| name.map_or_else(|| format!("#{number}"), str::to_owned);
        Ok(RecordedLoss {
            shard,
            number: r.sequence(),
            at_ns: r.header().clock_ns,
            reason: l.reason,
            count: l.count,
            destination: named(names.destination(l.destination), l.destination),
            rule: named(names.rule(l.rule), l.rule),
            event_id: l.id,
            accepted_ns: l.accepted_ns,
            event_type: l.event_type.to_owned(),
            bucket: l.bucket.to_owned(),
            key: l.key.to_owned(),
        })
    }

    /// One line of JSON, without the line's end. A key that is not UTF-8 is `key_base64`.
    pub fn to_json(&self) -> String {
        let (key, key_base64) = text_or_base64(&self.key);
        let line = Line {
            shard: self.shard,
            number: self.number,
            time: time(self.at_ns),
            reason: self.reason.name(),
            count: self.count,
            destination: &self.destination,
            rule: &self.rule,
            event_id: self.event_id.map(|id| id.to_string()),
            accepted: (self.accepted_ns > 0).then(|| time(self.accepted_ns)),
            event_type: &self.event_type,
            bucket: &self.bucket,
            key: key.filter(|k| !k.is_empty()),
            key_base64,
        };
        // Strings and numbers only, so this cannot fail.
        serde_json::to_string(&line).unwrap_or_default()
    }
}

/// The directory of a shard's losses.
pub(crate) const DIRECTORY: &str = "losses";

/// Adds losses to those of a shard, while no engine has the data directory open.
pub(super) fn append(shard_dir: &Path, shard: u16, losses: &[Vec<u8>]) -> Result<()> {
    let dir = shard_dir.join(DIRECTORY);
    fs::create_dir_all(&dir).map_err(|e| at_path(&dir)(Error::io("cannot create it", &e)))?;
    let found = dead::recover(&dir, &mut Findings::default())?;
    let (mut next, last) = (found.next, found.last());
    if let Some((segment, number)) = recovery::saved_numbers(shard_dir, section::LOSSES)? {
        next = (next.0.max(segment), next.1.max(number));
    }
    let plan = SegmentPlan { bytes_max: 4 << 20, shard, incarnation: 0, purpose: Purpose::Losses };
    let mut appender = Appender::new(plan, next.0, last.unwrap_or(next.1 - 1), next.1, 0);
    let mut files: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
    for body in losses {
        appender.append(Kind::Loss, &[], body, wall_ns());
    }
    while let Some(group) = appender.take() {
        let file = files.entry(group.segment).or_default();
        file.truncate(group.offset as usize);
        file.extend_from_slice(&group.bytes);
    }
    for (id, mut bytes) in files {
        // Zeros behind the last record, as the engine would leave them.
        bytes.resize((bytes.len() + RECORD_HEADER_BYTES).next_multiple_of(BLOCK_BYTES), 0);
        let path = dir.join(SegmentHeader::file_name(id));
        fs::replace(&path, &path.with_extension("tmp"), &bytes)
            .map_err(|e| at_path(&path)(Error::io("cannot write it", &e)))?;
    }
    Ok(())
}

/// Goes through the losses that a data directory still knows of, by shard and number, until told to stop. Reads only, and
/// works while an engine has the directory open.
///
/// # Errors
/// If a file cannot be read or was written by a newer version.
pub fn each_loss(data_dir: &Path, mut each: impl FnMut(RecordedLoss) -> ControlFlow<()>) -> Result<()> {
    let names = Names::read(data_dir)?;
    for shard in recovery::shard_numbers(data_dir)? {
        let dir = shard_path(data_dir, shard).join(DIRECTORY);
        let segments = list_segments(&dir, &mut Findings::default()).map_err(|e| at_path(&dir)(e))?;
        for (s, limit) in limits(&segments) {
            let Some(bytes) = read_if_there(&s.path)? else { continue };
            let mut flow = ControlFlow::Continue(());
            scan(&s.header, &bytes, |_, r| {
                if flow.is_break() || r.sequence() > limit {
                    return;
                }
                match RecordedLoss::read(shard as u16, &r, &names) {
                    Ok(loss) => flow = each(loss),
                    Err(e) => log::error!("{}: {e}", s.path.display()),
                }
            });
            if flow.is_break() {
                return Ok(());
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn loss(reason: LossReason) -> Loss<'static> {
        Loss {
            reason,
            destination: 1,
            rule: 2,
            count: 1,
            id: Some(EventId { incarnation: 3, shard: 4, sequence: 5 }),
            accepted_ns: 6,
            event_type: "s3:ObjectCreated:Put",
            bucket: "bucket",
            key: b"k\xffy",
        }
    }

    #[test]
    fn every_reason_comes_back_by_number_and_name() {
        for reason in LossReason::ALL {
            let l = loss(reason);
            assert_eq!(Loss::decode(&l.encode()).unwrap(), l);
            assert_eq!(LossReason::parse(reason.name()), Some(reason));
        }
        let none = Loss { id: None, count: 77, event_type: "", bucket: "", key: b"", ..loss(LossReason::Damaged) };
        assert_eq!(Loss::decode(&none.encode()).unwrap(), none);
        let mut newer = none.encode();
        newer[0] = 200;
        assert_eq!(Loss::decode(&newer).unwrap_err().kind(), ErrorKind::NewerFormat);
    }

    #[test]
    fn every_cut_is_noticed() {
        let b = loss(LossReason::DropOldest).encode();
        for cut in 0..b.len() {
            assert!(Loss::decode(&b[..cut]).is_err());
        }
    }

    proptest! {
        #[test]
        fn reading_anything_does_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Loss::decode(&bytes);
        }
    }
}
