//! Dead letters as they are kept: which there are, and taking them out. Blocking I/O, for the caller's thread or a shard's
//! helper thread; what is read may be written by a running engine meanwhile.

use std::collections::{BTreeMap, BinaryHeap};
use std::fmt;
use std::io::{ErrorKind as IoKind, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::BytesMut;
use serde::Serialize;
use serde_json::value::RawValue;

use super::losses::{self, Loss, LossReason};
use super::names::Names;
use super::record::{self, DeadLetter, Kind, Origin, Parsed, RecordView};
use super::recovery::{
    self, Findings, Listing, OwnedDeadLetter, SegmentInfo, Writers, list_files, lock_data_dir, scan, shard_path,
};
use super::segment::SegmentHeader;
use super::taken::Taken;
use crate::driver::fs;
use crate::error::{Error, ErrorKind, Result};
use crate::event::profile::{Profile, RecordContext, text};
use crate::event::{EventId, EventType, FrameView, Sequencer};
use crate::rule::suggest;

/// Names a dead letter for as long as its data directory lives. Written `shard-number`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct DeadLetterId {
    /// The shard that keeps it.
    pub shard: u16,
    /// Its number there. Letters are numbered as they come, and a number is never given again.
    pub number: u64,
}

impl fmt::Display for DeadLetterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.shard, self.number)
    }
}

impl FromStr for DeadLetterId {
    type Err = Error;

    fn from_str(text: &str) -> Result<DeadLetterId> {
        let parts = text.split_once('-').and_then(|(s, n)| Some((s.parse().ok()?, n.parse().ok()?)));
        match parts {
            Some((shard, number)) => Ok(DeadLetterId { shard, number }),
            None => Err(Error::new(
                ErrorKind::InvalidArgument,
                format!("`{}` is not the id of a dead letter", text.escape_debug()),
            )
            .remedy("write it as the list shows it, such as 0-17")),
        }
    }
}

/// An event that was given up, with everything that is known about it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[non_exhaustive]
pub struct StoredDeadLetter {
    /// Which it is.
    pub id: DeadLetterId,
    /// The event's id, the same as in every record of it.
    pub event_id: EventId,
    /// The event's place in the order of its key: clock and tie.
    pub order: (u64, u32),
    /// The destination that could not be told.
    pub destination: String,
    /// The rule that sent the event there.
    pub rule: String,
    /// The number of the rule in the log.
    pub rule_number: u32,
    /// The event's type.
    pub event_type: String,
    /// Its bucket.
    pub bucket: String,
    /// Its key, raw.
    pub key: Vec<u8>,
    /// When it was accepted, ns since the epoch.
    pub accepted_ns: u64,
    /// When it was given up, ns since the epoch.
    pub given_up_ns: u64,
    /// How often delivery was tried.
    pub attempts: u32,
    /// How often the event was dead before: redriven, or passed on to a dead-letter destination.
    pub hops: u8,
    /// The status of the last answer, 0 if there was none.
    pub status: u16,
    /// What went wrong.
    pub reason: String,
    /// The beginning of the last answer's body, up to 4 KiB; empty if there was none.
    pub answer: Vec<u8>,
    /// The event as it was accepted: read it with [`FrameView::parse`].
    pub frame: Vec<u8>,
}

/// Which dead letters are meant: those for which everything that is set holds. The default is all.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[non_exhaustive]
pub struct DeadLetterFilter {
    /// Only these; empty is any.
    pub ids: Vec<DeadLetterId>,
    /// Of this destination, by name. It need not be configured any more.
    pub destination: Option<String>,
    /// Of this bucket.
    pub bucket: Option<String>,
    /// Of keys that begin so.
    pub key_prefix: Vec<u8>,
    /// With this text in the reason.
    pub reason: Option<String>,
    /// Given up at this time or later, ns since the epoch.
    pub from_ns: Option<u64>,
    /// Given up before this time, ns since the epoch.
    pub before_ns: Option<u64>,
}

/// A filter with the number of its destination.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wanted {
    filter: DeadLetterFilter,
    /// One, and those that it had before, if any.
    destination: Option<Vec<u32>>,
}

impl Wanted {
    /// # Errors
    /// [`ErrorKind::NotFound`] if the data directory never had such a destination.
    pub(crate) fn new(filter: &DeadLetterFilter, names: &Names) -> Result<Wanted> {
        let destination = match &filter.destination {
            None => None,
            Some(name) => Some(Some(names.numbers_of(name)).filter(|n| !n.is_empty()).ok_or_else(|| {
                Error::new(ErrorKind::NotFound, format!("no destination was ever called `{}`", name.escape_debug()))
                    .remedy(suggest("destination", name, names.destination_names()))
            })?),
        };
        Ok(Wanted { filter: filter.clone(), destination })
    }

    fn matches(&self, id: DeadLetterId, l: &Letter<'_>) -> bool {
        let f = &self.filter;
        self.destination.as_ref().is_none_or(|d| d.contains(&l.letter.destination))
            && (f.ids.is_empty() || f.ids.contains(&id))
            && f.bucket.as_ref().is_none_or(|b| b == l.frame.bucket())
            && l.frame.key().starts_with(&f.key_prefix)
            && f.reason.as_ref().is_none_or(|r| l.letter.reason.contains(r.as_str()))
            && f.from_ns.is_none_or(|t| l.letter.last_ns >= t)
            && f.before_ns.is_none_or(|t| l.letter.last_ns < t)
    }

    /// Whether a whole segment can be left out, because no letter of it was asked for.
    fn passes_over(&self, shard: u16, first: u64, last: u64) -> bool {
        let ids = &self.filter.ids;
        !ids.is_empty() && !ids.iter().any(|id| id.shard == shard && (first..=last).contains(&id.number))
    }
}

/// A dead letter read in place.
#[derive(Clone, Debug)]
pub(crate) struct Letter<'a> {
    pub(crate) number: u64,
    /// Where the event was accepted: what its id and its place in the order of its key are made of.
    pub(crate) origin: Origin,
    pub(crate) hops: u8,
    pub(crate) letter: DeadLetter<'a>,
    pub(crate) frame: FrameView<'a>,
}

impl<'a> Letter<'a> {
    /// Reads a record of a dead-letter segment.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] or [`ErrorKind::NewerFormat`].
    pub(crate) fn read(shard: u16, r: &RecordView<'a>) -> Result<Letter<'a>> {
        if r.header().kind != Kind::DeadLetter {
            return Err(Error::new(ErrorKind::Corrupt, "dead letter: the record is something else"));
        }
        let letter = DeadLetter::decode(r.body())?;
        let e = r.extensions();
        Ok(Letter {
            number: r.sequence(),
            // Letters of format 1 tell less.
            origin: e.origin.unwrap_or(Origin {
                incarnation: letter.incarnation,
                shard,
                sequence: letter.sequence,
                clock_ns: letter.first_ns,
                tie: 0,
            }),
            hops: e.hops,
            frame: FrameView::parse(letter.frame)?,
            letter,
        })
    }

    fn stored(&self, shard: u16, names: &Names) -> StoredDeadLetter {
        let (l, o) = (&self.letter, self.origin);
        let named = |name: Option<&str>, number: u32| name.map_or_else(|| format!("#{number}"), str::to_owned);
        StoredDeadLetter {
            id: DeadLetterId { shard, number: self.number },
            event_id: EventId { incarnation: o.incarnation, shard: o.shard, sequence: o.sequence },
            order: (o.clock_ns, o.tie),
            destination: named(names.destination(l.destination), l.destination),
            rule: named(names.rule(l.rule), l.rule),
            rule_number: l.rule,
            event_type: self.frame.event_type().name().to_owned(),
            bucket: self.frame.bucket().to_owned(),
            key: self.frame.key().to_owned(),
            accepted_ns: l.first_ns,
            given_up_ns: l.last_ns,
            attempts: l.attempts,
            hops: self.hops,
            status: l.status,
            reason: l.reason.to_owned(),
            answer: l.answer.to_owned(),
            frame: l.frame.to_owned(),
        }
    }
}

/// A letter as a line of JSON.
#[derive(Serialize)]
struct Line<'a> {
    id: String,
    shard: u16,
    number: u64,
    event_id: String,
    #[serde(rename = "type")]
    event_type: &'a str,
    bucket: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_base64: Option<String>,
    destination: &'a str,
    rule: &'a str,
    attempts: u32,
    hops: u8,
    status: u16,
    reason: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    answer: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    answer_base64: Option<String>,
    accepted: String,
    given_up: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    frame_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    profile: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    record: Option<&'a RawValue>,
}

/// Text as it is, anything else as base64.
pub(super) fn text_or_base64(bytes: &[u8]) -> (Option<&str>, Option<String>) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (Some(text), None),
        Err(_) => (None, Some(BASE64.encode(bytes))),
    }
}

pub(super) fn time(ns: u64) -> String {
    String::from_utf8_lossy(&text::timestamp(ns)).into_owned()
}

impl StoredDeadLetter {
    /// The event's type; one that this version does not know is a custom one.
    pub fn event_type(&self) -> EventType<'_> {
        EventType::parse(&self.event_type).unwrap_or(EventType::Custom(&self.event_type))
    }

    /// Everything but the event itself as one line of JSON, without the line's end. A key or an answer that is not UTF-8 is
    /// `key_base64` or `answer_base64`.
    pub fn to_json(&self) -> String {
        json(&self.line())
    }

    fn line(&self) -> Line<'_> {
        let (key, key_base64) = text_or_base64(&self.key);
        let (answer, answer_base64) = text_or_base64(&self.answer);
        Line {
            id: self.id.to_string(),
            shard: self.id.shard,
            number: self.id.number,
            event_id: self.event_id.to_string(),
            event_type: &self.event_type,
            bucket: &self.bucket,
            key,
            key_base64,
            destination: &self.destination,
            rule: &self.rule,
            attempts: self.attempts,
            hops: self.hops,
            status: self.status,
            reason: &self.reason,
            answer: answer.filter(|a| !a.is_empty()),
            answer_base64,
            accepted: time(self.accepted_ns),
            given_up: time(self.given_up_ns),
            frame_base64: None,
            profile: None,
            record: None,
        }
    }
}

fn json(line: &Line<'_>) -> String {
    // Strings and numbers only, so this cannot fail.
    serde_json::to_string(line).unwrap_or_default()
}

/// How the records of an export are written.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ExportOptions {
    /// The profile of destinations that are not in `profiles`. Default: [`Profile::CloudEvents`], which has every type.
    pub profile: Profile,
    /// The profiles of destinations by name.
    pub profiles: BTreeMap<String, Profile>,
    /// The region of events that name none.
    pub region: String,
    /// The `eventSource` of records; empty means the default.
    pub event_source: String,
}

impl Default for ExportOptions {
    fn default() -> Self {
        ExportOptions {
            profile: Profile::CloudEvents,
            profiles: BTreeMap::new(),
            region: "us-east-1".to_owned(),
            event_source: String::new(),
        }
    }
}

/// Writes dead letters as lines of JSON with everything that is known of them: as [`StoredDeadLetter::to_json`], and the
/// event both as it was accepted (`frame_base64`) and as the record that its destination would have been sent (`record`, of
/// `profile`). Nothing is taken out. Returns how many.
///
/// # Errors
/// As [`each_dead_letter`], or if `out` cannot be written.
pub fn export_dead_letters(
    data_dir: &Path,
    filter: &DeadLetterFilter,
    options: &ExportOptions,
    out: &mut dyn Write,
) -> Result<u64> {
    let writers: Writers = recovery::inspect(data_dir)?.writers;
    let (mut count, mut failed) = (0, None);
    each_dead_letter(data_dir, filter, None, |l| {
        let Ok(frame) = FrameView::parse(&l.frame) else { return ControlFlow::Continue(()) };
        let cx = RecordContext {
            id: l.event_id,
            sequencer: Sequencer { clock_ns: l.order.0, tie: l.order.1, writer: writers.of(l.event_id.incarnation) },
            rule: &l.rule,
            region: &options.region,
            event_source: &options.event_source,
        };
        let profile = options.profiles.get(&l.destination).copied().unwrap_or(options.profile);
        let mut record = BytesMut::new();
        profile.write_record(&frame, &cx, &mut record);
        let raw = std::str::from_utf8(&record).ok().and_then(|r| serde_json::from_str::<&RawValue>(r).ok());
        let line = Line {
            frame_base64: Some(BASE64.encode(&l.frame)),
            profile: raw.map(|_| profile.name()),
            record: raw,
            ..l.line()
        };
        count += 1;
        match writeln!(out, "{}", json(&line)) {
            Ok(()) => ControlFlow::Continue(()),
            Err(e) => {
                failed = Some(Error::io("cannot write the export", &e));
                ControlFlow::Break(())
            }
        }
    })?;
    failed.map_or(Ok(count), Err)
}

/// A segment of dead letters, or of losses, on disk.
#[derive(Clone, Debug)]
pub(crate) struct KeptSegment {
    pub(crate) info: SegmentInfo,
    pub(crate) taken: Taken,
    /// Of its file.
    pub(crate) bytes: u64,
    /// When the youngest record in it was written, or later.
    pub(crate) newest_ns: u64,
}

impl KeptSegment {
    /// Letters that are in it and were not taken.
    pub(crate) fn letters(&self) -> u64 {
        (self.info.last_sequence + 1).saturating_sub(self.info.header.base_sequence).saturating_sub(self.taken.count())
    }

    fn first(&self) -> u64 {
        self.info.header.base_sequence
    }

    fn remove(self) -> Result<()> {
        remove_segment(&self.info.path, self.info.header.id)
    }
}

/// The dead letters, or the losses, of a shard as recovery found them.
#[derive(Clone, Debug, Default)]
pub(crate) struct KeptState {
    pub(crate) segments: Vec<KeptSegment>,
    /// The number of the next segment, and the next letter's.
    pub(crate) next: (u64, u64),
}

impl KeptState {
    /// Letters that are there.
    pub(crate) fn letters(&self) -> u64 {
        self.segments.iter().map(KeptSegment::letters).sum()
    }

    /// The number of the last letter that the segments hold, if there are any.
    pub(crate) fn last(&self) -> Option<u64> {
        self.segments.last().map(|s| s.info.last_sequence)
    }
}

pub(super) fn at_path(path: &Path) -> impl Fn(Error) -> Error {
    let place = path.display().to_string();
    move |e| e.at(place.clone())
}

/// Finds the dead letters of a directory. Only the last segment is read whole.
///
/// # Errors
/// If a file cannot be read or was written by a newer version.
pub(crate) fn recover(dir: &Path, findings: &mut Findings) -> Result<KeptState> {
    let listing = list_files(dir, findings)?;
    let mut state = KeptState { next: (listing.numbers_used + 1, 1), ..KeptState::default() };
    // What was begun in place of a segment that failed.
    for path in &listing.spares {
        let _ = fs::remove_file(path);
    }
    state.segments = examine(dir, listing)?;
    if let Some(last) = state.segments.last() {
        state.next.1 = last.info.last_sequence.max(last.first().saturating_sub(1)) + 1;
    }
    // A crash between the removals of a segment and of its list of taken letters.
    for name in list(dir)? {
        if let Some(id) = Taken::parse_file_name(&name)
            && !state.segments.iter().any(|s| s.info.header.id == id)
        {
            let _ = fs::remove_file(&dir.join(name));
        }
    }
    Ok(state)
}

fn list(dir: &Path) -> Result<Vec<String>> {
    match fs::list(dir) {
        Ok(names) => Ok(names),
        Err(e) if e.kind() == IoKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(at_path(dir)(Error::io("cannot list it", &e))),
    }
}

/// As [`recover`], without changing anything.
fn find(dir: &Path, findings: &mut Findings) -> Result<Vec<KeptSegment>> {
    examine(dir, list_files(dir, findings)?)
}

fn examine(dir: &Path, listing: Listing) -> Result<Vec<KeptSegment>> {
    let ids: Vec<u64> = listing.segments.iter().map(|s| s.header.id).collect();
    let mut segments: Vec<KeptSegment> = Vec::with_capacity(ids.len());
    for (i, mut info) in listing.segments.into_iter().enumerate() {
        if let Some(before) = segments.last_mut() {
            before.newest_ns = info.header.base_clock_ns;
        }
        let mut newest_ns = info.header.base_clock_ns;
        // The next one tells where this one ends, unless it is another one's next.
        let next = ids.get(i + 1).copied();
        if next != Some(info.header.id + 1) {
            let limit = if next.is_some() { info.last_sequence } else { u64::MAX };
            let Some(bytes) = read_if_there(&info.path)? else { continue };
            if let Some((sequence, clock_ns)) = scan(&info.header, &bytes, |_, _| ()).last {
                (info.last_sequence, newest_ns) = (sequence.min(limit), clock_ns);
            }
        }
        let taken = read_taken(dir, &info.header)?;
        let bytes = info.bytes;
        segments.push(KeptSegment { info, taken, bytes, newest_ns });
    }
    Ok(segments)
}

/// A file may be removed by a running engine at any time.
fn gone_is_none<T>(result: std::io::Result<T>) -> Result<Option<T>> {
    match result {
        Ok(t) => Ok(Some(t)),
        Err(e) if e.kind() == IoKind::NotFound => Ok(None),
        Err(e) => Err(Error::io("cannot read it", &e)),
    }
}

/// A whole segment.
pub(super) fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>> {
    gone_is_none(fs::read_log(path)).map_err(at_path(path))
}

fn read_taken(dir: &Path, header: &SegmentHeader) -> Result<Taken> {
    let path = dir.join(Taken::file_name(header.id));
    let none = Taken::new(header.id, header.base_sequence);
    let Some(bytes) = gone_is_none(fs::read(&path)).map_err(at_path(&path))? else { return Ok(none) };
    match Taken::decode(header.id, header.base_sequence, &bytes) {
        Ok(taken) => Ok(taken),
        Err(e) if e.kind() == ErrorKind::NewerFormat => Err(at_path(&path)(e)),
        Err(e) => {
            log::error!("{}: {e}; dead letters that were taken from this segment are there again", path.display());
            Ok(none)
        }
    }
}

/// Makes it durable which letters of a segment were taken.
pub(crate) fn write_taken(dir: &Path, segment: u64, taken: &Taken) -> Result<()> {
    let path = dir.join(Taken::file_name(segment));
    fs::replace(&path, &path.with_extension("taken.tmp"), &taken.encode())
        .map_err(|e| at_path(&path)(Error::io("cannot write it", &e)))
}

/// Removes a segment; only then what tells which of its letters were taken.
pub(crate) fn remove_segment(path: &Path, id: u64) -> Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    match fs::remove_file(path) {
        Err(e) if e.kind() != IoKind::NotFound => return Err(at_path(path)(Error::io("cannot remove it", &e))),
        _ => {}
    }
    fs::sync_dir(dir).map_err(|e| at_path(dir)(Error::io("cannot sync the directory", &e)))?;
    let _ = fs::remove_file(&dir.join(Taken::file_name(id)));
    Ok(())
}

/// Goes through the letters of a segment that are wanted and were not taken, in the order of their numbers, until told to
/// stop. What cannot be understood is told to the log and passed over.
fn each_letter(
    shard: u16,
    segment: &KeptSegment,
    wanted: &Wanted,
    mut each: impl FnMut(usize, usize, &Letter<'_>) -> ControlFlow<()>,
) -> Result<ControlFlow<()>> {
    let info = &segment.info;
    let mut flow = ControlFlow::Continue(());
    if wanted.passes_over(shard, info.header.base_sequence, info.last_sequence) {
        return Ok(flow);
    }
    let Some(bytes) = read_if_there(&info.path)? else { return Ok(flow) };
    scan(&info.header, &bytes, |at, r| {
        // What a segment that failed has beyond its last durable letter is in the next one.
        if flow.is_break() || r.sequence() > info.last_sequence || segment.taken.is_taken(r.sequence()) {
            return;
        }
        match Letter::read(shard, &r) {
            Ok(letter) if wanted.matches(DeadLetterId { shard, number: letter.number }, &letter) => {
                flow = each(at, r.padded_len(), &letter);
            }
            Ok(_) => {}
            Err(e) => log::error!("dead letter {shard}-{}: {e}", r.sequence()),
        }
    });
    Ok(flow)
}

/// What the audit tells of a letter that is gone.
#[derive(Clone, Debug)]
pub(crate) struct Story {
    pub(crate) number: u64,
    pub(crate) destination: u32,
    pub(crate) rule: u32,
    pub(crate) id: EventId,
    pub(crate) accepted_ns: u64,
    pub(crate) event_type: String,
    pub(crate) bucket: String,
    pub(crate) key: Vec<u8>,
}

impl Story {
    pub(crate) fn loss(&self, reason: LossReason) -> Loss<'_> {
        Loss {
            reason,
            destination: self.destination,
            rule: self.rule,
            count: 1,
            id: Some(self.id),
            accepted_ns: self.accepted_ns,
            event_type: &self.event_type,
            bucket: &self.bucket,
            key: &self.key,
        }
    }
}

/// The stories of the letters of a segment that are wanted.
pub(crate) fn stories(shard: u16, segment: &KeptSegment, wanted: &Wanted) -> Result<Vec<Story>> {
    let mut out = Vec::new();
    let _ = each_letter(shard, segment, wanted, |_, _, l| {
        let o = l.origin;
        out.push(Story {
            number: l.number,
            destination: l.letter.destination,
            rule: l.letter.rule,
            id: EventId { incarnation: o.incarnation, shard: o.shard, sequence: o.sequence },
            accepted_ns: l.letter.first_ns,
            event_type: l.frame.event_type().name().to_owned(),
            bucket: l.frame.bucket().to_owned(),
            key: l.frame.key().to_owned(),
        });
        ControlFlow::Continue(())
    })?;
    Ok(out)
}

/// Where a letter is, and its event's place in the order of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Selected {
    pub(crate) clock_ns: u64,
    pub(crate) tie: u32,
    pub(crate) number: u64,
    pub(crate) segment: u64,
    offset: u64,
    len: u32,
}

/// Of the letters that are wanted, have a number below `below` and come after `after`, the first `max` in the order of
/// their events.
pub(crate) fn select(
    shard: u16,
    segments: &[KeptSegment],
    wanted: &Wanted,
    after: Option<&Selected>,
    below: u64,
    max: usize,
) -> Result<Vec<Selected>> {
    let mut first = BinaryHeap::new();
    for s in segments {
        let _ = each_letter(shard, s, wanted, |offset, len, l| {
            let selected = Selected {
                clock_ns: l.origin.clock_ns,
                tie: l.origin.tie,
                number: l.number,
                segment: s.info.header.id,
                offset: offset as u64,
                len: len as u32,
            };
            if l.number < below && after.is_none_or(|a| selected > *a) {
                first.push(selected);
                if first.len() > max {
                    first.pop();
                }
            }
            ControlFlow::Continue(())
        })?;
    }
    Ok(first.into_sorted_vec())
}

/// Reads a selected letter's record again; `None` if its segment is gone or it cannot be read any more.
pub(crate) fn fetch(dir: &Path, selected: &Selected) -> Option<Vec<u8>> {
    let path = dir.join(SegmentHeader::file_name(selected.segment));
    let mut bytes = Vec::new();
    fs::ReadFile::open(&path).and_then(|f| f.read_at(selected.offset, selected.len as usize, &mut bytes)).ok()?;
    match record::parse(selected.segment, &bytes) {
        Parsed::Record(r) if r.sequence() == selected.number => Some(bytes),
        _ => None,
    }
}

/// The dead-letter directories of a data directory, by shard.
fn shards(data_dir: &Path) -> Result<impl Iterator<Item = (u16, PathBuf)>> {
    let numbers = recovery::shard_numbers(data_dir)?;
    Ok(numbers.into_iter().map(|n| (n as u16, shard_path(data_dir, n).join("dead"))))
}

/// Goes through the dead letters of a data directory, by shard and number, until told to stop; those up to `after` are
/// passed over. Reads only, and works while an engine has the directory open.
///
/// # Errors
/// [`ErrorKind::NotFound`] if the filter names a destination that the directory never had; otherwise if a file cannot be
/// read or was written by a newer version.
pub fn each_dead_letter(
    data_dir: &Path,
    filter: &DeadLetterFilter,
    after: Option<DeadLetterId>,
    mut each: impl FnMut(StoredDeadLetter) -> ControlFlow<()>,
) -> Result<()> {
    let names = Names::read(data_dir)?;
    let wanted = Wanted::new(filter, &names)?;
    for (shard, dir) in shards(data_dir)? {
        let after = match after {
            Some(id) if id.shard > shard => continue,
            Some(id) if id.shard == shard => id.number,
            _ => 0,
        };
        for s in find(&dir, &mut Findings::default())? {
            if s.info.last_sequence <= after {
                continue;
            }
            let flow = each_letter(shard, &s, &wanted, |_, _, l| {
                if l.number <= after { ControlFlow::Continue(()) } else { each(l.stored(shard, &names)) }
            })?;
            if flow.is_break() {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// The bodies of all dead letters of a data directory.
pub(super) fn bodies(data_dir: &Path) -> Result<Vec<OwnedDeadLetter>> {
    let mut out = Vec::new();
    for (shard, dir) in shards(data_dir)? {
        for s in find(&dir, &mut Findings::default())? {
            let Some(bytes) = read_if_there(&s.info.path)? else { continue };
            scan(&s.info.header, &bytes, |_, r| {
                if r.sequence() <= s.info.last_sequence && !s.taken.is_taken(r.sequence()) {
                    let shard = usize::from(shard);
                    out.push(OwnedDeadLetter { shard, number: r.sequence(), body: r.body().to_vec() });
                }
            });
        }
    }
    Ok(out)
}

/// Removes dead letters from a data directory that no engine has open, and tells the audit. Returns how many.
///
/// # Errors
/// [`ErrorKind::Locked`] if an engine has it open; as [`each_dead_letter`]; or if a file cannot be written.
pub fn purge_dead_letters(data_dir: &Path, filter: &DeadLetterFilter) -> Result<u64> {
    let names = Names::read(data_dir)?;
    let wanted = Wanted::new(filter, &names)?;
    let lock = lock_data_dir(data_dir)?;
    let mut purged = 0;
    for (shard, dir) in shards(data_dir)? {
        for mut s in recover(&dir, &mut Findings::default())?.segments {
            let mut stories = stories(shard, &s, &wanted)?;
            stories.retain(|story| s.taken.take(story.number));
            if stories.is_empty() {
                continue;
            }
            // Told before it is done: what is told twice is better than what is not told.
            let told: Vec<Vec<u8>> = stories.iter().map(|s| s.loss(LossReason::Purged).encode()).collect();
            losses::append(&shard_path(data_dir, shard.into()), shard, &told)?;
            purged += stories.len() as u64;
            if s.letters() == 0 {
                s.remove()?;
            } else {
                write_taken(&dir, s.info.header.id, &s.taken)?;
            }
        }
    }
    drop(lock);
    Ok(purged)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Event, KnownType, frame};
    use crate::log::appender::{Appender, SegmentPlan};
    use crate::log::record::Extensions;
    use crate::log::segment::Purpose;

    const NAMES: &str = r#"{"format":1,"next":9,"destinations":{"a":1,"b":2},"rules":{"r":3}}"#;

    /// Letters of destination `n % 2 + 1`, each segment of `per` letters; the later a letter, the earlier its event.
    fn directory(letters: u64, per: u64) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("names.json"), NAMES).unwrap();
        let dir = root.path().join("shard-0000/dead");
        std::fs::create_dir_all(&dir).unwrap();
        let plan = SegmentPlan { bytes_max: 1 << 20, shard: 0, incarnation: 5, purpose: Purpose::DeadLetters };
        let mut a = Appender::new(plan, 1, 0, 1, 0);
        for n in 0..letters {
            let key = format!("key-{n}");
            let event = Event::new(KnownType::ObjectCreatedPut.into(), "bucket", key.as_bytes());
            let frame = frame::encode_to_vec(&event, 7);
            let letter = DeadLetter {
                destination: (n % 2) as u32 + 1,
                rule: 3,
                sequence: 100 + n,
                incarnation: 5,
                attempts: 4,
                first_ns: 1000,
                last_ns: 2000 + n,
                status: 503,
                reason: "the endpoint answered 503",
                answer: b"busy",
                frame: &frame,
            };
            let origin = Origin { incarnation: 5, shard: 0, sequence: 100 + n, clock_ns: 9000 - n, tie: 1 };
            let e = Extensions { origin: Some(origin), hops: 2, ..Extensions::default() };
            a.append_extended(Kind::DeadLetter, &[], &e, &letter.encode(), 50_000 + n);
            if (n + 1) % per == 0 {
                a.end_segment();
            }
        }
        while let Some(g) = a.take() {
            let mut bytes = g.bytes.to_vec();
            bytes.resize(bytes.len().next_multiple_of(4096) + 4096, 0);
            std::fs::write(dir.join(SegmentHeader::file_name(g.segment)), bytes).unwrap();
        }
        root
    }

    fn all(dir: &Path, filter: &DeadLetterFilter) -> Vec<StoredDeadLetter> {
        let mut out = Vec::new();
        each_dead_letter(dir, filter, None, |l| {
            out.push(l);
            ControlFlow::Continue(())
        })
        .unwrap();
        out
    }

    fn numbers(dir: &Path, filter: &DeadLetterFilter) -> Vec<u64> {
        all(dir, filter).iter().map(|l| l.id.number).collect()
    }

    #[test]
    fn everything_about_a_letter_is_told() {
        let dir = directory(1, 10);
        let l = &all(dir.path(), &DeadLetterFilter::default())[0];
        assert_eq!(
            (l.id.to_string(), l.event_id.to_string()),
            ("0-1".into(), EventId { incarnation: 5, shard: 0, sequence: 100 }.to_string())
        );
        assert_eq!((&*l.destination, &*l.rule, &*l.bucket, &l.key[..]), ("a", "r", "bucket", &b"key-0"[..]));
        assert_eq!(
            (l.attempts, l.hops, l.status, &*l.reason, &l.answer[..]),
            (4, 2, 503, "the endpoint answered 503", &b"busy"[..])
        );
        assert_eq!((l.accepted_ns, l.given_up_ns, l.order), (1000, 2000, (9000, 1)));
        assert_eq!(l.event_type(), KnownType::ObjectCreatedPut.into());
    }

    #[test]
    fn filters_narrow_and_pages_follow_each_other() {
        let dir = directory(20, 6);
        let f = DeadLetterFilter::default();
        assert_eq!(numbers(dir.path(), &f), (1..=20).collect::<Vec<_>>());
        let one = |f: DeadLetterFilter| numbers(dir.path(), &f);
        assert_eq!(one(DeadLetterFilter { destination: Some("b".into()), ..f.clone() }).len(), 10);
        assert_eq!(one(DeadLetterFilter { key_prefix: b"key-1".to_vec(), ..f.clone() }).len(), 11);
        assert_eq!(one(DeadLetterFilter { bucket: Some("other".into()), ..f.clone() }).len(), 0);
        assert_eq!(one(DeadLetterFilter { reason: Some("503".into()), ..f.clone() }).len(), 20);
        assert_eq!(one(DeadLetterFilter { from_ns: Some(2005), before_ns: Some(2008), ..f.clone() }), [6, 7, 8]);
        let ids = vec!["0-3".parse().unwrap(), "0-19".parse().unwrap(), "1-4".parse().unwrap()];
        assert_eq!(one(DeadLetterFilter { ids, ..f.clone() }), [3, 19]);
        let unknown = DeadLetterFilter { destination: Some("c".into()), ..f.clone() };
        let e = each_dead_letter(dir.path(), &unknown, None, |_| ControlFlow::Continue(())).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::NotFound);
        let (mut after, mut seen) = (None, Vec::new());
        loop {
            let mut page = Vec::new();
            each_dead_letter(dir.path(), &f, after, |l| {
                page.push(l.id);
                if page.len() < 7 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            })
            .unwrap();
            after = page.last().copied();
            seen.extend(page.iter().map(|id| id.number));
            if page.len() < 7 {
                break;
            }
        }
        assert_eq!(seen, (1..=20).collect::<Vec<_>>());
    }

    #[test]
    fn the_events_that_come_first_are_selected_and_can_be_fetched() {
        let dir = directory(20, 6);
        let dead = dir.path().join("shard-0000/dead");
        let mut segments = find(&dead, &mut Findings::default()).unwrap();
        segments[3].taken.take(20);
        let some = select(0, &segments, &Wanted::default(), None, 19, 4).unwrap();
        // The later the letter, the earlier its event; 20 is taken and 19 is not below 19.
        assert_eq!(some.iter().map(|s| s.number).collect::<Vec<_>>(), [18, 17, 16, 15]);
        let more = select(0, &segments, &Wanted::default(), Some(&some[3]), 19, 3).unwrap();
        assert_eq!(more.iter().map(|s| s.number).collect::<Vec<_>>(), [14, 13, 12]);
        let record = fetch(&dead, &some[1]).unwrap();
        let Parsed::Record(r) = record::parse(some[1].segment, &record) else { panic!("no record") };
        assert_eq!(Letter::read(0, &r).unwrap().frame.key(), b"key-16");
        std::fs::remove_file(dead.join(SegmentHeader::file_name(some[1].segment))).unwrap();
        assert_eq!(fetch(&dead, &some[1]), None);
    }

    #[test]
    fn purged_letters_are_gone_for_good_and_empty_segments_with_them() {
        let dir = directory(20, 6);
        let b = DeadLetterFilter { destination: Some("b".into()), ..DeadLetterFilter::default() };
        assert_eq!(purge_dead_letters(dir.path(), &b).unwrap(), 10);
        assert_eq!(purge_dead_letters(dir.path(), &b).unwrap(), 0);
        assert_eq!(numbers(dir.path(), &DeadLetterFilter::default()), (1..=20).step_by(2).collect::<Vec<_>>());
        let early = DeadLetterFilter { before_ns: Some(2006), ..DeadLetterFilter::default() };
        assert_eq!(purge_dead_letters(dir.path(), &early).unwrap(), 3);
        let mut left = std::fs::read_dir(dir.path().join("shard-0000/dead"))
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect::<Vec<_>>();
        left.sort();
        assert_eq!(left.len(), 6, "the first segment went with its list: {left:?}");
        assert_eq!(numbers(dir.path(), &DeadLetterFilter::default()), [7, 9, 11, 13, 15, 17, 19]);
        // The numbers go on behind what was there.
        let dead = dir.path().join("shard-0000/dead");
        assert_eq!(recover(&dead, &mut Findings::default()).unwrap().next, (5, 21));
    }

    #[test]
    fn a_damaged_list_brings_letters_back_rather_than_losing_any() {
        let dir = directory(6, 6);
        let b = DeadLetterFilter { destination: Some("b".into()), ..DeadLetterFilter::default() };
        purge_dead_letters(dir.path(), &b).unwrap();
        let path = dir.path().join("shard-0000/dead").join(Taken::file_name(1));
        let mut bytes = std::fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(all(dir.path(), &DeadLetterFilter::default()).len(), 6);
    }

    #[test]
    fn a_list_without_its_segment_is_removed_at_the_open() {
        let dir = directory(6, 6);
        let dead = dir.path().join("shard-0000/dead");
        let orphan = dead.join(Taken::file_name(77));
        std::fs::write(&orphan, Taken::new(77, 500).encode()).unwrap();
        recover(&dead, &mut Findings::default()).unwrap();
        assert!(!orphan.exists());
    }

    #[test]
    fn ids_are_written_and_read() {
        let id = DeadLetterId { shard: 3, number: 17 };
        assert_eq!((id.to_string(), "3-17".parse::<DeadLetterId>().unwrap()), ("3-17".into(), id));
        for bad in ["", "17", "a-1", "1-", "-1", "1-2-3", "70000-1"] {
            assert_eq!(bad.parse::<DeadLetterId>().unwrap_err().kind(), ErrorKind::InvalidArgument, "{bad}");
        }
    }
}
