//! Reading the log: the events of one shard in order, or of all shards by their clocks.
//!
//! A reader works on the files alone, on any thread but a shard's: beside a running engine, which it does not disturb, or
//! without one. It reads a chunk at a time, whatever the size of the segments, and stops before what is not complete yet.
//! What is no longer there, or damaged, is told as a [`Gap`], never passed over in silence.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::BLOCK_BYTES;
use super::record::{self, Kind, Parsed, RECORD_BYTES_MAX, RECORD_HEADER_BYTES, RecordView, Route};
use super::recovery::{self, Writers, shard_path};
use super::segment::SegmentHeader;
use crate::driver::{self, fs};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{EventId, FrameView, Sequencer};

/// Bytes read at a time.
const CHUNK_BYTES: usize = 256 * 1024;
/// Bytes read where the log ended a moment ago.
const PEEK_BYTES: usize = 16 * 1024;
/// How long something that is no record must stay so before it counts as damage, in a segment that is being written: a
/// write under way may be seen in parts.
const SETTLE: Duration = Duration::from_secs(1);
/// How often a reader looks again when files vanish under its hands.
const LOOKS: usize = 16;

/// An event of the log.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The shard.
    pub shard: u16,
    /// Place in the shard's log.
    pub sequence: u64,
    /// Hybrid clock of the record, ns since the epoch, and what tells records of the same reading apart.
    pub clock: (u64, u32),
    /// The event's id.
    pub id: EventId,
    /// The event's place in the order of its key.
    pub sequencer: Sequencer,
    /// Where matching sent it.
    pub routes: Vec<Route>,
    frame: Vec<u8>,
}

impl Entry {
    /// As another process told it.
    pub(crate) fn of_parts(
        (shard, sequence, clock): (u16, u64, (u64, u32)),
        id: EventId,
        sequencer: Sequencer,
        routes: Vec<Route>,
        frame: Vec<u8>,
    ) -> Entry {
        Entry { shard, sequence, clock, id, sequencer, routes, frame }
    }

    /// The event.
    pub fn frame(&self) -> FrameView<'_> {
        FrameView::trusted(&self.frame)
    }

    /// How many bytes it has in memory, about.
    pub fn bytes(&self) -> usize {
        size_of::<Entry>() + self.frame.len() + self.routes.len() * size_of::<Route>()
    }
}

/// A stretch of a shard's log that a reader wanted and did not get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The shard.
    pub shard: u16,
    /// The first sequence that is missing.
    pub first: u64,
    /// The last one. Not every number between need have been an event.
    pub last: u64,
    /// The clock of the last record before it, ns since the epoch, if the reader saw one.
    pub since_ns: Option<u64>,
    /// The clock at which the log goes on, if it does.
    pub until_ns: Option<u64>,
    /// Why.
    pub cause: GapCause,
}

/// Why there is a [`Gap`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GapCause {
    /// The segments were removed: everything had been delivered, and retention did not keep them, or not so long.
    Removed,
    /// The bytes there are no records.
    Damaged,
}

impl Gap {
    /// How many sequences it covers.
    pub fn sequences(&self) -> u64 {
        (self.last + 1).saturating_sub(self.first)
    }
}

/// What a reader comes upon.
#[derive(Clone, Debug)]
pub enum Item {
    /// An event.
    Entry(Entry),
    /// Something missing.
    Gap(Gap),
}

/// What a call of a reader brought.
#[derive(Clone, Debug)]
pub enum Step {
    /// An event or a gap.
    Item(Item),
    /// Nothing yet, but there is more to read: call again.
    More,
    /// Everything that is complete was read.
    End,
}

/// Where reading begins.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReadFrom {
    /// With the oldest event that there is.
    Beginning,
    /// Behind the newest one.
    Now,
    /// With the first event whose clock is at least this, ns since the epoch.
    Time(u64),
    /// With this sequence, of each shard.
    Sequence(u64),
    /// Where a reader stopped. What has been removed since then is told as a gap.
    Position(Position),
}

/// How far a reader has come: the last sequence of each shard. As text, `tw1:` and the numbers with dots between.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Position(pub Vec<u64>);

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("tw1:")?;
        for (i, n) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str(".")?;
            }
            write!(f, "{n}")?;
        }
        Ok(())
    }
}

impl FromStr for Position {
    type Err = Error;

    fn from_str(text: &str) -> Result<Position> {
        let bad = || {
            Error::new(ErrorKind::InvalidArgument, format!("`{}` is no position in a log", text.escape_debug()))
                .remedy("give one as a reader told it, such as `tw1:120.98`")
        };
        let numbers = text.strip_prefix("tw1:").ok_or_else(bad)?;
        let parse = |n: &str| n.parse::<u64>().ok().filter(|_| n.bytes().all(|b| b.is_ascii_digit()));
        let numbers: Option<Vec<u64>> = numbers.split('.').map(parse).collect();
        numbers.filter(|n| n.len() <= recovery::SHARDS_MAX).map(Position).ok_or_else(bad)
    }
}

/// Whether an event is wanted.
pub type Want<'a> = dyn FnMut(&FrameView<'_>) -> bool + 'a;

/// The segment being read.
#[derive(Debug)]
struct Open {
    header: SegmentHeader,
    file: fs::ReadFile,
    /// There is a later segment, so that nothing more is written to this one.
    closed: bool,
}

/// Reads one shard.
#[derive(Debug)]
pub struct ShardReader {
    dir: PathBuf,
    shard: u16,
    writers: Arc<Writers>,
    /// The last sequence looked at.
    seen: u64,
    seen_ns: Option<u64>,
    not_before_ns: u64,
    /// Sequences that are missing right after `seen` are a gap, not merely where the log begins.
    strict: bool,
    open: Option<Open>,
    /// Bytes of the open segment from `base` on; those before `at` are done.
    buffer: Vec<u8>,
    base: u64,
    at: usize,
    /// The buffer reaches the end of the file.
    at_eof: bool,
    /// Where something stands that is no record, and since when it was seen.
    suspect: Option<(u64, Instant)>,
}

impl ShardReader {
    /// A reader of the shard's events behind `seen`. If `strict`, it tells of a gap when the log does not reach back so
    /// far; otherwise it begins where the log does. Events with a clock below `not_before_ns` are passed over.
    pub fn new(
        data_dir: &Path,
        shard: usize,
        writers: Arc<Writers>,
        seen: u64,
        strict: bool,
        not_before_ns: u64,
    ) -> ShardReader {
        ShardReader {
            dir: shard_path(data_dir, shard),
            shard: shard as u16,
            writers,
            seen,
            seen_ns: None,
            not_before_ns,
            strict,
            open: None,
            buffer: Vec::new(),
            base: 0,
            at: 0,
            at_eof: false,
            suspect: None,
        }
    }

    /// The last sequence looked at.
    pub fn seen(&self) -> u64 {
        self.seen
    }

    /// Passes over everything up to `sequence`, without reading it.
    pub fn skip_to(&mut self, sequence: u64) {
        if sequence > self.seen {
            self.seen = sequence;
            self.open = None;
        }
    }

    /// The next event that `want` wants, or a gap. Reads at most a chunk. With a `limit`, only records up to that sequence
    /// are read: those that the shard says are complete.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub fn next(&mut self, limit: Option<u64>, want: &mut Want<'_>) -> Result<Step> {
        let mut read = false;
        loop {
            if limit.is_some_and(|l| self.seen >= l) {
                return Ok(Step::End);
            }
            let Some(id) = self.open.as_ref().map(|o| o.header.id) else {
                match self.locate(limit)? {
                    Located::Found => {}
                    Located::Gap(gap) => return Ok(Step::Item(Item::Gap(gap))),
                    Located::Nothing => return Ok(Step::End),
                }
                continue;
            };
            let (seen, not_before_ns) = (self.seen, self.not_before_ns);
            match record::parse(id, &self.buffer[self.at..]) {
                Parsed::Record(r) => {
                    let h = r.header();
                    if limit.is_some_and(|l| h.sequence > l) {
                        return Ok(Step::End);
                    }
                    self.suspect = None;
                    let entry =
                        if h.sequence > seen && h.clock_ns >= not_before_ns { self.entry(&r, want) } else { None };
                    self.at += r.padded_len();
                    if h.sequence > seen {
                        (self.seen, self.seen_ns, self.strict) = (h.sequence, Some(h.clock_ns), true);
                    }
                    if let Some(entry) = entry {
                        return Ok(Step::Item(Item::Entry(entry)));
                    }
                }
                Parsed::Short(need) if !self.at_eof => {
                    self.fill(need.max(CHUNK_BYTES))?;
                    return Ok(Step::More);
                }
                // What was read before may have been written since.
                _ if !read => {
                    self.fill(PEEK_BYTES)?;
                    read = true;
                }
                _ => match self.rest(limit)? {
                    Rest::Again => {
                        self.fill(CHUNK_BYTES)?;
                        return Ok(Step::More);
                    }
                    Rest::Next => {}
                    Rest::Gap(gap) => return Ok(Step::Item(Item::Gap(gap))),
                    Rest::End => return Ok(Step::End),
                },
            }
        }
    }

    /// The event of a record, if it is one that stands for itself and is wanted.
    fn entry(&self, r: &RecordView<'_>, want: &mut Want<'_>) -> Option<Entry> {
        let h = r.header();
        let frame = event_of(r)?;
        if !want(&frame) {
            return None;
        }
        let incarnation = self.open.as_ref().map_or(0, |o| o.header.incarnation);
        let (id, sequencer) = identity(r, incarnation, self.shard, &self.writers);
        Some(Entry {
            shard: self.shard,
            sequence: h.sequence,
            clock: (h.clock_ns, h.tie),
            id,
            sequencer,
            routes: r.routes().collect(),
            frame: r.body().to_vec(),
        })
    }

    /// Reads on behind what is done.
    fn fill(&mut self, bytes: usize) -> Result<()> {
        let Some(open) = &self.open else { return Ok(()) };
        self.base += self.at as u64;
        self.at = 0;
        open.file.read_at(self.base, bytes, &mut self.buffer).map_err(|e| {
            let path = self.dir.join(SegmentHeader::file_name(open.header.id));
            Error::io("cannot read the log", &e).at(path.display().to_string())
        })?;
        self.at_eof = self.buffer.len() < bytes;
        Ok(())
    }

    fn gap(&mut self, last: u64, until_ns: Option<u64>, cause: GapCause) -> Gap {
        let gap = Gap { shard: self.shard, first: self.seen + 1, last, since_ns: self.seen_ns, until_ns, cause };
        self.seen = last;
        self.strict = true;
        gap
    }

    /// Opens the segment that the next sequence is in.
    fn locate(&mut self, limit: Option<u64>) -> Result<Located> {
        for _ in 0..LOOKS {
            let ids = segment_ids(&self.dir)?;
            let Some(first_id) = ids.first().copied() else {
                // Everything up to the limit was there and is gone.
                return Ok(match limit {
                    Some(limit) if self.strict && limit > self.seen => {
                        Located::Gap(self.gap(limit, None, GapCause::Removed))
                    }
                    _ => Located::Nothing,
                });
            };
            let (next, not_before) = (self.seen + 1, self.not_before_ns);
            let by_time = !self.strict && self.seen == 0;
            // The last one that begins at or before what is wanted; the clocks of a segment are above its base.
            let before = |h: &SegmentHeader| {
                if by_time { h.base_clock_ns < not_before } else { h.base_sequence <= next }
            };
            let Some(at) = last_before(&self.dir, &ids, before)? else { continue };
            let Some(open) = open_segment(&self.dir, ids[at])? else { continue };
            let base = open.header.base_sequence;
            let missing = base > next;
            let gap = (missing && self.strict && (at > 0 || first_id > 1))
                .then(|| self.gap(base - 1, Some(open.header.base_clock_ns), GapCause::Removed));
            if missing && gap.is_none() {
                self.seen = base - 1;
            }
            self.begin(open);
            return Ok(gap.map_or(Located::Found, Located::Gap));
        }
        Ok(Located::Nothing)
    }

    fn begin(&mut self, open: Open) {
        self.open = Some(open);
        self.buffer.clear();
        (self.base, self.at, self.at_eof, self.suspect) = (BLOCK_BYTES as u64, 0, false, None);
    }

    /// What to do where no record follows in the open segment.
    fn rest(&mut self, limit: Option<u64>) -> Result<Rest> {
        let here = self.base + self.at as u64;
        let invalid = !self.at_zeros();
        let Some(open) = &mut self.open else { return Ok(Rest::Next) };
        let id = open.header.id;
        let next = segment_ids(&self.dir)?.into_iter().find(|n| *n > id);
        let next = match next {
            Some(n) => open_segment(&self.dir, n)?,
            None => None,
        };
        let Some(next) = next else { return self.live_rest(limit, here) };
        if !std::mem::replace(&mut open.closed, true) {
            // Records may have been added after the last look and before the next segment began.
            return Ok(Rest::Again);
        }
        if !still_there(open)? {
            // The file holds another segment by now.
            self.open = None;
            self.strict = true;
            return Ok(Rest::Next);
        }
        let last = next.header.base_sequence.saturating_sub(1);
        if self.seen < last {
            if let Some((at, sequence, clock_ns)) = find_record(&open.file, id, here, self.seen, last)
                .map_err(|e| Error::io("cannot read the log", &e).at(self.dir.display().to_string()))?
            {
                return Ok(Rest::Gap(self.jump(at, sequence, clock_ns)));
            }
            if invalid {
                let until = next.header.base_clock_ns;
                let gap = self.gap(last, Some(until), GapCause::Damaged);
                self.begin(next);
                return Ok(Rest::Gap(gap));
            }
        }
        let (base, base_clock) = (next.header.base_sequence, next.header.base_clock_ns);
        let contiguous = next.header.id == id + 1;
        self.begin(next);
        if !contiguous && base > self.seen + 1 {
            return Ok(Rest::Gap(self.gap(base - 1, Some(base_clock), GapCause::Removed)));
        }
        Ok(Rest::Next)
    }

    /// The same in the segment that is being written.
    fn live_rest(&mut self, limit: Option<u64>, here: u64) -> Result<Rest> {
        let Some(open) = &self.open else { return Ok(Rest::Next) };
        let id = open.header.id;
        if self.at_zeros() || matches!(record::parse(id, &self.buffer[self.at..]), Parsed::Short(_)) {
            self.suspect = None;
            return Ok(Rest::End);
        }
        match self.suspect {
            Some((at, since)) if at == here && driver::since(since) >= SETTLE => {}
            Some((at, _)) if at == here => return Ok(Rest::End),
            _ => {
                self.suspect = Some((here, driver::now()));
                return Ok(Rest::End);
            }
        }
        let found = find_record(&open.file, id, here, self.seen, limit.unwrap_or(u64::MAX))
            .map_err(|e| Error::io("cannot read the log", &e).at(self.dir.display().to_string()))?;
        Ok(match found {
            Some((at, sequence, clock_ns)) => Rest::Gap(self.jump(at, sequence, clock_ns)),
            None => Rest::End,
        })
    }

    /// Whether a record's header of zeros follows, or nothing: there a segment ends.
    fn at_zeros(&self) -> bool {
        self.buffer[self.at..].iter().take(RECORD_HEADER_BYTES).all(|b| *b == 0)
    }

    /// Whether something stands where the log ends that is no record, so that waiting may bring more.
    pub fn is_unsettled(&self) -> bool {
        self.suspect.is_some_and(|(_, since)| driver::since(since) < SETTLE)
    }

    /// Goes on at a record behind damage.
    fn jump(&mut self, at: u64, sequence: u64, clock_ns: u64) -> Gap {
        self.buffer.clear();
        (self.base, self.at, self.at_eof, self.suspect) = (at, 0, false, None);
        self.gap(sequence - 1, Some(clock_ns), GapCause::Damaged)
    }
}

enum Located {
    Found,
    Gap(Gap),
    Nothing,
}

enum Rest {
    /// Read once more.
    Again,
    /// Another segment is open, or none.
    Next,
    Gap(Gap),
    End,
}

/// The frame of a record, if it is an event that stands for itself: not a second record of one event, not the one by which
/// another shard delivers it, and not one that came out of the dead letters for one destination.
pub(crate) fn event_of<'a>(r: &RecordView<'a>) -> Option<FrameView<'a>> {
    if r.header().kind != Kind::Event {
        return None;
    }
    let e = r.extensions();
    if e.continued || e.hops > 0 || e.handed_over.is_some() {
        return None;
    }
    FrameView::parse(r.body()).ok()
}

/// The id and the sequencer of a record's event. `incarnation` is that of its segment.
pub(crate) fn identity(r: &RecordView<'_>, incarnation: u64, shard: u16, writers: &Writers) -> (EventId, Sequencer) {
    let o = r.origin(incarnation, shard);
    (
        EventId { incarnation: o.incarnation, shard: o.shard, sequence: o.sequence },
        Sequencer { clock_ns: o.clock_ns, tie: o.tie, writer: writers.of(o.incarnation) },
    )
}

/// The numbers of the segments of a directory, in order.
pub(crate) fn segment_ids(dir: &Path) -> Result<Vec<u64>> {
    let names = match fs::list(dir) {
        Ok(names) => names,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(Error::io("cannot list it", &e).at(dir.display().to_string())),
    };
    let mut ids: Vec<u64> = names.iter().filter_map(|n| SegmentHeader::parse_file_name(n)).collect();
    ids.sort_unstable();
    Ok(ids)
}

/// Opens a segment; `None` if it is gone, or has no readable header (yet).
fn open_segment(dir: &Path, id: u64) -> Result<Option<Open>> {
    let path = dir.join(SegmentHeader::file_name(id));
    let place = |e: &std::io::Error| Error::io("cannot read it", e).at(path.display().to_string());
    let file = match fs::ReadFile::open(&path) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(place(&e)),
    };
    let mut block = Vec::new();
    file.read_at(0, BLOCK_BYTES, &mut block).map_err(|e| place(&e))?;
    match SegmentHeader::decode(&block) {
        Ok(header) if header.id == id => Ok(Some(Open { header, file, closed: false })),
        Err(e) if e.kind() == ErrorKind::NewerFormat => Err(e.at(path.display().to_string())),
        Ok(_) | Err(_) => Ok(None),
    }
}

/// Whether the file still holds the segment that it was opened for.
fn still_there(open: &Open) -> Result<bool> {
    let mut block = Vec::new();
    open.file.read_at(0, BLOCK_BYTES, &mut block).map_err(|e| Error::io("cannot read the log", &e))?;
    Ok(SegmentHeader::decode(&block).is_ok_and(|h| h.id == open.header.id))
}

/// The place of the last segment that `before` holds for, found by halving; that of the first one if it holds for none.
/// `None` if no header could be read.
fn last_before(dir: &Path, ids: &[u64], before: impl Fn(&SegmentHeader) -> bool) -> Result<Option<usize>> {
    let (mut low, mut high) = (0, ids.len());
    let mut best = None;
    let mut first_readable = None;
    while low < high {
        let middle = low + (high - low) / 2;
        // One without a readable header says nothing; the nearest one after it does.
        let mut probe = middle;
        let mut header = None;
        while probe < high && header.is_none() {
            header = open_segment(dir, ids[probe])?.map(|o| o.header);
            probe += usize::from(header.is_none());
        }
        match header {
            Some(h) if before(&h) => {
                best = Some(probe);
                low = probe + 1;
            }
            Some(_) => {
                first_readable = Some(probe);
                high = middle;
            }
            None => high = middle,
        }
    }
    Ok(best.or(first_readable))
}

/// The next record behind `from` whose sequence is above `after` and at most `last`: its offset, sequence and clock.
pub(super) fn find_record(
    file: &fs::ReadFile,
    segment: u64,
    from: u64,
    after: u64,
    last: u64,
) -> std::io::Result<Option<(u64, u64, u64)>> {
    let mut at = from.next_multiple_of(8) + 8;
    let (mut window, mut candidate) = (Vec::new(), Vec::new());
    loop {
        file.read_at(at, CHUNK_BYTES, &mut window)?;
        let mut i = 0;
        while i + RECORD_HEADER_BYTES <= window.len() {
            let sequence = u64::from_le_bytes(window[i + 8..i + 16].try_into().unwrap_or_default());
            // Before anything is lost to a look at the checksum: the number must fit the distance.
            let fits = after.saturating_add((at + i as u64 - from) / RECORD_HEADER_BYTES as u64 + 2);
            if sequence > after && sequence <= last.min(fits) {
                file.read_at(at + i as u64, RECORD_BYTES_MAX, &mut candidate)?;
                if let Parsed::Record(r) = record::parse(segment, &candidate) {
                    return Ok(Some((at + i as u64, sequence, r.header().clock_ns)));
                }
            }
            i += 8;
        }
        if window.len() < CHUNK_BYTES {
            return Ok(None);
        }
        at += i as u64;
    }
}

/// Reads all shards, merged by their clocks. Within a shard, and so for each resource key, the order is that of the log;
/// across shards it is that of clocks that follow the same wall clock.
#[derive(Debug)]
pub struct LogReader {
    shards: Vec<ShardReader>,
    heads: Vec<Option<Item>>,
}

impl LogReader {
    /// A reader of the directory. Takes no lock.
    ///
    /// # Errors
    /// As [`recovery::inspect`]; [`ErrorKind::InvalidArgument`] for a position of a directory with another number of
    /// shards.
    pub fn open(data_dir: &Path, from: &ReadFrom) -> Result<LogReader> {
        let info = recovery::inspect(data_dir)?;
        LogReader::with(data_dir, info.shards, Arc::new(info.writers), from, None)
    }

    /// As [`LogReader::open`], for who knows the directory, and how far each shard's log is complete: there
    /// [`ReadFrom::Now`] begins.
    pub(crate) fn with(
        data_dir: &Path,
        shards: usize,
        writers: Arc<Writers>,
        from: &ReadFrom,
        heads: Option<&[u64]>,
    ) -> Result<LogReader> {
        if let ReadFrom::Position(p) = from
            && p.0.len() != shards
        {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                format!("position `{p}` is of {} shards, and the directory has {shards}", p.0.len()),
            )
            .remedy("use a position with the directory that it was told for"));
        }
        let mut readers = Vec::new();
        for shard in 0..shards {
            let (seen, strict, not_before_ns) = match from {
                ReadFrom::Beginning => (0, false, 0),
                ReadFrom::Now => match heads {
                    Some(heads) => (heads.get(shard).copied().unwrap_or(0), true, 0),
                    None => (last_sequence(data_dir, shard, &writers)?, true, 0),
                },
                ReadFrom::Time(ns) => (0, false, *ns),
                ReadFrom::Sequence(n) => (n.saturating_sub(1), *n > 1, 0),
                ReadFrom::Position(p) => (p.0[shard], true, 0),
            };
            readers.push(ShardReader::new(data_dir, shard, writers.clone(), seen, strict, not_before_ns));
        }
        Ok(LogReader { heads: readers.iter().map(|_| None).collect(), shards: readers })
    }

    /// As [`ShardReader::next`], over all shards; `limits` has one per shard.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub fn next(&mut self, limits: Option<&[u64]>, want: &mut Want<'_>) -> Result<Step> {
        let mut more = false;
        for (i, (shard, head)) in self.shards.iter_mut().zip(&mut self.heads).enumerate() {
            if head.is_none() {
                match shard.next(limits.and_then(|l| l.get(i).copied()), want)? {
                    Step::Item(item) => *head = Some(item),
                    Step::More => more = true,
                    Step::End => {}
                }
            }
        }
        if more {
            return Ok(Step::More);
        }
        let order = |item: &Item| match item {
            Item::Entry(e) => e.clock,
            Item::Gap(g) => (g.since_ns.unwrap_or(0), 0),
        };
        let first = self.heads.iter_mut().filter(|h| h.is_some()).min_by_key(|h| h.as_ref().map(order));
        Ok(match first.and_then(Option::take) {
            Some(item) => Step::Item(item),
            None => Step::End,
        })
    }

    /// As [`LogReader::next`], for who wants everything that there is now: `None` at the end. Where something stands that may
    /// become a record within moments, it waits for that.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub fn next_settled(&mut self, limits: Option<&[u64]>, want: &mut Want<'_>) -> Result<Option<Item>> {
        let mut settled = false;
        loop {
            match self.next(limits, want)? {
                Step::Item(item) => return Ok(Some(item)),
                Step::More => {}
                Step::End if self.is_unsettled() => std::thread::sleep(SETTLE / 20),
                Step::End if settled => return Ok(None),
                // What has settled is damage, which one more look tells.
                Step::End => settled = true,
            }
        }
    }

    /// How far the reader has come: behind everything that [`LogReader::next`] has given out.
    pub fn position(&self) -> Position {
        let of = |(shard, head): (&ShardReader, &Option<Item>)| match head {
            Some(Item::Entry(e)) => e.sequence - 1,
            Some(Item::Gap(g)) => g.first - 1,
            None => shard.seen(),
        };
        Position(self.shards.iter().zip(&self.heads).map(of).collect())
    }

    /// Whether something stands where a shard's log ends that may become a record within moments.
    pub fn is_unsettled(&self) -> bool {
        self.shards.iter().any(ShardReader::is_unsettled)
    }
}

/// The sequence of a shard's last complete record, 0 if there is none.
pub(super) fn last_sequence(data_dir: &Path, shard: usize, writers: &Arc<Writers>) -> Result<u64> {
    let dir = shard_path(data_dir, shard);
    let ids = segment_ids(&dir)?;
    let Some(last) = last_before(&dir, &ids, |_| true)? else { return Ok(0) };
    let Some(open) = open_segment(&dir, ids[last])? else { return Ok(0) };
    let mut reader =
        ShardReader::new(data_dir, shard, writers.clone(), open.header.base_sequence.saturating_sub(1), false, 0);
    loop {
        match reader.next(None, &mut |_| false)? {
            Step::Item(_) | Step::More => {}
            Step::End => return Ok(reader.seen()),
        }
    }
}

#[cfg(test)]
mod tests;
