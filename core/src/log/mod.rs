//! What is kept: the format of segments and records, cursors, recovery. No I/O happens here but in [`recovery`], which
//! reads a data directory before its shards start, in [`dead`] and [`losses`], which read what is kept beside, and in
//! [`reader`], [`history`] and [`archive`], which read it on any other thread; the shard's [`crate::shard`] code does the
//! rest through the driver.
//!
//! # A data directory
//!
//! ```text
//! LOCK                       held with flock while an engine has the directory open
//! meta.json                  format version, writer id, shard count and what is left of earlier ones
//! names.json, names.journal  numbers of destinations and rules, never used again, and those that came since
//! rules.json, rules.journal  rules and destinations that were put while an engine was running
//! groups.json, replays.json  groups of consumers, and replays under way
//! writers.json               only in a restored directory: the writer ids of the records that came with the snapshot
//! shard-0000/
//!   0000000000000001.log     a segment: one header block of 4096 bytes, then records; or the file made ready for the next
//!                            one, with a header of another number
//!   0000000000000001.spare   a file without records of use, for a later segment
//!   cursor.a, cursor.b       what each lane, group and replay has done; written in turn
//!   dead/                    dead letters, in segments of the same format, and which of them were taken out
//!   losses/                  the audit of what was dropped, in segments of the same format
//!   dedup/                   keys by which repeats are recognised, in segments of the same format
//!   quarantine/              bytes that failed their checksum
//! ```
//!
//! Integers are little-endian. The format's version is [`FORMAT`]; a newer one is refused.

mod ack;
pub mod appender;
pub mod archive;
pub mod attempts;
pub mod buffer;
pub mod checkpoint;
pub mod cursor;
pub mod dead;
pub mod history;
pub(crate) mod journal;
pub mod layout;
pub mod losses;
pub mod names;
pub mod reader;
pub mod record;
pub mod recovery;
pub mod retention;
pub mod segment;
pub mod shed;
pub mod standing;
pub mod state;
pub mod taken;

pub use ack::Ack;

/// The version of everything in a data directory.
///
/// 2: records have extensions, segments flags and a block of zeros behind what was written last, cursor files sections.
/// 3: names have a journal, destinations former numbers; rules are kept.
pub const FORMAT: u32 = 3;

/// Rules and destinations that callers have put, and what has changed of them since.
pub(crate) const RULES_FILE: &str = "rules.json";
pub(crate) const RULES_JOURNAL: &str = "rules.journal";

/// The block that direct I/O is done in, in bytes.
pub const BLOCK_BYTES: usize = 4096;
