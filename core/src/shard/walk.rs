//! A walk through the records of the log, for what looks at them without delivering.

use super::Shard;
use super::dispatch::READ_BYTES;
use crate::driver::DiskFile;
use crate::error::{Error, Result};
use crate::log::BLOCK_BYTES;
use crate::log::appender::Position;
use crate::log::record::{self, Parsed, RecordView};
use crate::log::recovery::SegmentInfo;

/// How far a walk has come.
#[derive(Clone, Copy, Debug)]
pub(super) struct Walk {
    pub(super) at: Position,
    /// The last sequence looked at.
    pub(super) seen: u64,
}

/// What to do after a record.
pub(super) enum Look {
    /// Look at the next one.
    On,
    /// Stop before this one; the next walk begins with it.
    Stop,
}

/// How a stretch of a walk ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Walked {
    /// There is more.
    On,
    /// It was told to stop.
    Stopped,
    /// Everything that was written was looked at.
    End,
}

impl Shard {
    /// The way to the first record after a sequence; `None` if there is none.
    pub(super) fn walk_from(&self, seen: u64) -> Option<Walk> {
        let segment = self.files.containing(seen.saturating_add(1))?;
        Some(Walk { at: Position { segment: segment.header.id, offset: BLOCK_BYTES as u64 }, seen })
    }

    /// Looks at the records of the next stretch of the log. Nothing else of the shard runs between two looks of a stretch.
    /// What is damaged is passed over; whoever delivers tells of it.
    pub(super) async fn walk(
        &self,
        walk: &mut Walk,
        mut look: impl FnMut(&SegmentInfo, Position, &RecordView<'_>) -> Look,
    ) -> Result<Walked> {
        let mut want = READ_BYTES;
        let mut bytes = Vec::new();
        loop {
            // Records on their way to a new segment are looked at when they are there.
            let Some(segment) = self.files.at_or_after(walk.at.segment) else { return Ok(Walked::End) };
            let id = segment.header.id;
            if id != walk.at.segment {
                walk.at = Position { segment: id, offset: BLOCK_BYTES as u64 };
            }
            let live = self.files.live_end(id);
            if live.is_some_and(|e| e.offset <= walk.at.offset) {
                return Ok(Walked::End);
            }
            let aligned = walk.at.offset / BLOCK_BYTES as u64 * BLOCK_BYTES as u64;
            let skip = (walk.at.offset - aligned) as usize;
            let place = |e| Error::io("cannot read the log", &e).at(segment.path.display().to_string());
            let _held = self.files.hold(id);
            let file = DiskFile::open(&segment.path).await.map_err(place)?;
            bytes.clear();
            let read = file.read_at(aligned, want, &mut bytes).await;
            let _ = file.close().await;
            read.map_err(place)?;
            if let Some(e) = live {
                bytes.truncate((e.offset - aligned) as usize);
            }
            let whole = bytes.len() < want;
            let stretch = bytes.get(skip..).unwrap_or_default();
            let mut at = 0;
            let position = |at: usize| Position { segment: id, offset: walk.at.offset + at as u64 };
            let (mut done, mut seen) = (false, walk.seen);
            let ended = loop {
                // What a segment that failed has beyond its last durable record is in the next one; and what a file has
                // behind the last record may be of an earlier segment.
                if seen >= segment.last_sequence {
                    done = true;
                    break None;
                }
                match record::parse(id, stretch.get(at..).unwrap_or_default()) {
                    Parsed::Record(r) if r.sequence() > segment.last_sequence => {
                        done = true;
                        break None;
                    }
                    Parsed::Record(r) => {
                        if r.sequence() > seen {
                            if let Look::Stop = look(&segment, position(at), &r) {
                                break Some(Walked::Stopped);
                            }
                            seen = r.sequence();
                        }
                        at += r.padded_len();
                    }
                    Parsed::End if whole => {
                        done = true;
                        break None;
                    }
                    Parsed::Short(_) if !whole => break None,
                    Parsed::Short(_) => {
                        done = true;
                        break None;
                    }
                    // Damage, or zeros in the middle: what follows tells.
                    Parsed::End | Parsed::Invalid => match record::resync(id, stretch, at + 8, seen) {
                        Some(next) => at = next,
                        None => {
                            done = whole;
                            break None;
                        }
                    },
                }
            };
            let moved = at > 0;
            walk.at = position(at);
            walk.seen = seen;
            if let Some(ended) = ended {
                return Ok(ended);
            }
            if done {
                // What was lost at a segment's end was looked at as far as it can be.
                walk.seen = walk.seen.max(if live.is_some() { walk.seen } else { segment.last_sequence });
                if live.is_some() {
                    return Ok(if self.files.live_end(id) == live { Walked::End } else { Walked::On });
                }
                walk.at = Position { segment: id + 1, offset: BLOCK_BYTES as u64 };
                return Ok(Walked::On);
            }
            if moved {
                return Ok(Walked::On);
            }
            // A record that is longer than what was read, or damage to its end.
            want *= 2;
        }
    }
}
