//! What is measured, each as a function from an event to the numbers of rules.

use std::cell::RefCell;
use std::collections::HashMap;
use std::hint::black_box;
use std::rc::Rc;
use std::time::Duration;

use bytes::BytesMut;
use foldhash::fast::RandomState;
use quamina::QuaminaBuilder;
use tidewire::event::profile::{Profile, RecordContext};
use tidewire::event::{EventId, FrameView, Layout, Sequencer, frame, ingest};
use tidewire::filter::{DataMemory, MatchMemory, Matcher, Subject};
use tidewire::rule::Rule;
use tidewire_benches::workload::{self, Condition, Happening, Mix, Wish};

use super::cpu_time;
use super::patterns::{glob_of, patterns};

/// Events in the forms that engines take, each form in one piece of memory, as events lie in a ring.
pub struct Samples {
    happenings: Vec<Happening>,
    frames: Pieces,
    json: Pieces,
    records: Pieces,
}

/// One of them.
#[derive(Clone, Copy)]
pub struct Sample<'a> {
    pub happening: &'a Happening,
    /// The number of its type among [`workload::type_names`].
    pub event_type: usize,
    pub bucket: &'a str,
    pub key: &'a [u8],
    pub frame: &'a [u8],
    /// As Tidewire's own JSON.
    pub json: &'a [u8],
    /// As a document with one S3 record.
    pub record: &'a [u8],
}

/// Pieces one behind the other.
#[derive(Default)]
struct Pieces {
    bytes: Vec<u8>,
    ranges: Vec<(usize, usize)>,
}

impl Pieces {
    fn push(&mut self, piece: &[u8]) {
        // As records are aligned.
        self.bytes.resize(self.bytes.len().next_multiple_of(8), 0);
        self.ranges.push((self.bytes.len(), piece.len()));
        self.bytes.extend_from_slice(piece);
    }

    fn get(&self, i: usize) -> &[u8] {
        let (start, len) = self.ranges[i];
        &self.bytes[start..start + len]
    }
}

impl Samples {
    pub fn new(happenings: impl Iterator<Item = Happening>) -> Samples {
        let happenings: Vec<Happening> = happenings.map(Happening::with_bare_metadata).collect();
        let (mut frames, mut json, mut records) = (Pieces::default(), Pieces::default(), Pieces::default());
        let mut record = BytesMut::new();
        let context = RecordContext {
            id: EventId { incarnation: 1, shard: 0, sequence: 1 },
            sequencer: Sequencer { clock_ns: 1, tie: 1, writer: 1 },
            rule: "rule",
            region: "eu-central-1",
            event_source: "",
        };
        for h in &happenings {
            let frame = h.frame();
            frames.push(&frame);
            json.push(workload::line(h).as_bytes());
            record.clear();
            record.extend_from_slice(Profile::Aws.batch_head());
            Profile::Aws.write_record(&FrameView::trusted(&frame), &context, &mut record);
            record.extend_from_slice(Profile::Aws.batch_tail());
            records.push(&record);
        }
        Samples { happenings, frames, json, records }
    }

    pub fn all(&self) -> Vec<Sample<'_>> {
        let of = |(i, happening): (usize, _)| self.sample(i, happening);
        self.happenings.iter().enumerate().map(of).collect()
    }

    fn sample<'a>(&'a self, i: usize, happening: &'a Happening) -> Sample<'a> {
        let event_type = workload::type_names().position(|t| t == happening.event_type).expect("a type");
        let frame = self.frames.get(i);
        let view = FrameView::trusted(frame);
        Sample {
            happening,
            event_type,
            bucket: view.bucket(),
            key: view.key(),
            frame,
            json: self.json.get(i),
            record: self.records.get(i),
        }
    }
}

type Run = dyn FnMut(&[Sample<'_>]) -> usize;
type Found = dyn FnMut(&Sample<'_>) -> Vec<u32>;

/// One way to match.
pub struct Engine {
    /// Whether it answers as the plain scan does; else it is a limit.
    pub checked: bool,
    /// Whether it has an index, so that bytes and time to build mean something.
    pub built: bool,
    /// Matches these events and tells how many rules they met together.
    pub run: Box<Run>,
    found: Box<Found>,
}

impl Engine {
    /// From what appends the rules that an event meets.
    fn new(each: impl FnMut(&Sample<'_>, &mut Vec<u32>) + 'static) -> Engine {
        let each = Rc::new(RefCell::new(each));
        let same = each.clone();
        let mut out = Vec::new();
        Engine {
            checked: true,
            built: true,
            run: Box::new(move |samples| {
                let each = &mut *each.borrow_mut();
                let mut found = 0;
                for sample in samples {
                    out.clear();
                    each(sample, &mut out);
                    found += black_box(&out).len();
                }
                found
            }),
            found: Box::new(move |sample| {
                let mut out = Vec::new();
                (same.borrow_mut())(sample, &mut out);
                out.sort_unstable();
                out
            }),
        }
    }

    fn limit(each: impl FnMut(&Sample<'_>, &mut Vec<u32>) + 'static) -> Engine {
        Engine { checked: false, built: false, ..Engine::new(each) }
    }

    /// The rules that one event meets, ascending.
    pub fn once(&mut self, sample: &Sample<'_>) -> Vec<u32> {
        (self.found)(sample)
    }
}

/// The most events that are matched with one call.
const BATCH: usize = 64;

/// Tidewire, of events as they are in its ring and log, so many at a time as a shard has at hand.
pub fn tidewire(matcher: Rc<Matcher>) -> Engine {
    let (mut memory, mut once_memory) = (MatchMemory::default(), MatchMemory::default());
    let same = matcher.clone();
    Engine {
        checked: true,
        built: true,
        run: Box::new(move |samples| {
            let mut frames = Vec::with_capacity(BATCH);
            let mut found = 0;
            for samples in samples.chunks(BATCH) {
                frames.clear();
                frames.extend(samples.iter().map(|sample| FrameView::trusted(sample.frame)));
                matcher.matches_batch(&frames, &mut memory, |_, rules| found += black_box(rules).len());
            }
            found
        }),
        found: Box::new(move |sample| {
            // Among others of its kind.
            let frames = [FrameView::trusted(sample.frame); 3];
            let mut out = Vec::new();
            same.matches_batch(&frames, &mut once_memory, |i, rules| {
                if i == 1 {
                    out.extend_from_slice(rules);
                }
            });
            out
        }),
    }
}

/// Tidewire, of one event after the other.
pub fn tidewire_single(matcher: Rc<Matcher>) -> Engine {
    let mut memory = MatchMemory::default();
    Engine::new(move |sample, out| matcher.matches(&FrameView::trusted(sample.frame), &mut memory, out))
}

/// Tidewire, of events that it reads and makes frames of.
pub fn tidewire_from(
    matcher: Rc<Matcher>,
    media_type: &'static str,
    text: for<'a> fn(&Sample<'a>) -> &'a [u8],
) -> Engine {
    let mut memory = MatchMemory::default();
    let (mut body, mut bytes) = (Vec::new(), Vec::new());
    let engine = Engine::new(move |sample, out| {
        // Reading unescapes in place.
        body.clear();
        body.extend_from_slice(text(sample));
        let read = ingest::parse(&mut body, media_type, &mut |event| {
            let layout = Layout::of(event);
            bytes.resize(layout.len(), 0);
            frame::encode(event, layout, 1, &mut bytes);
            matcher.matches(&FrameView::trusted(&bytes), &mut memory, out);
            Ok(())
        });
        read.expect("an event");
    });
    Engine { built: false, ..engine }
}

/// The limit: one pass over the key.
pub fn memchr() -> Engine {
    Engine::limit(|sample, _| {
        black_box(memchr::memchr(0, black_box(sample.key)));
    })
}

/// Which of the types a rule wants, as bits.
fn type_bits(wish: &Wish) -> u16 {
    let means = |name: &str, t: &str| match name.strip_suffix('*') {
        Some(start) => t.starts_with(start),
        None => t == name,
    };
    let bits = workload::type_names().enumerate().filter(|(_, t)| wish.events.iter().any(|name| means(name, t)));
    bits.fold(0, |bits, (i, _)| bits | 1 << i)
}

/// One rule after the other, tuned by hand to this workload: types as bits of one number, then the bucket, then conditions in a
/// form that has no indirection.
pub fn linear(wishes: &[Wish]) -> Engine {
    let rules: Vec<(Option<String>, u16, Vec<Condition>)> =
        wishes.iter().map(|w| (w.bucket.clone(), type_bits(w), w.conditions())).collect();
    Engine::new(move |sample, out| {
        for (i, (bucket, types, conditions)) in rules.iter().enumerate() {
            if types & (1 << sample.event_type) != 0
                && bucket.as_deref().is_none_or(|b| b == sample.bucket)
                && conditions.iter().all(|c| holds(c, sample))
            {
                out.push(i as u32);
            }
        }
    })
}

/// Each rule in turn as it is configured: bucket, types, and its filter evaluated, as brokers with one filter object per
/// subscription do it.
pub fn in_turn(rules: &[Rule]) -> Engine {
    let rules = rules.to_vec();
    let mut memory = DataMemory::default();
    Engine::new(move |sample, out| {
        let frame = FrameView::trusted(sample.frame);
        let (bucket, event_type) = (frame.bucket(), frame.event_type());
        let mut subject = Subject::new(frame, &mut memory);
        for (i, rule) in rules.iter().enumerate() {
            if rule.bucket.as_deref().is_none_or(|b| b == bucket)
                && rule.events.contains(event_type)
                && rule.filter.matches(&mut subject)
            {
                out.push(i as u32);
            }
        }
    })
}

/// The plain scan, but each pattern is tried before bucket and type are looked at, as if there were one bucket.
pub fn linear_key_first(wishes: &[Wish], mix: Mix) -> Result<Engine, String> {
    if mix != Mix::Infix {
        return Err("it is for patterns that start anywhere".into());
    }
    let rules: Vec<(Option<String>, u16, String)> =
        wishes.iter().map(|w| (w.bucket.clone(), type_bits(w), w.wildcard.clone().unwrap_or_default())).collect();
    Ok(Engine::new(move |sample, out| {
        for (i, (bucket, types, pattern)) in rules.iter().enumerate() {
            if glob(pattern.as_bytes(), sample.key)
                && types & (1 << sample.event_type) != 0
                && bucket.as_deref().is_none_or(|b| b == sample.bucket)
            {
                out.push(i as u32);
            }
        }
    }))
}

fn holds(condition: &Condition, sample: &Sample<'_>) -> bool {
    let (h, key) = (sample.happening, sample.key);
    let has = |pairs: &[(&str, String)], name: &str, value: &str| pairs.iter().any(|(k, v)| *k == name && v == value);
    match condition {
        Condition::Prefix(x) => key.starts_with(x.as_bytes()),
        Condition::Suffix(x) => key.ends_with(x.as_bytes()),
        Condition::Exact(x) => key == x.as_bytes(),
        Condition::Wildcard(x) => glob(x.as_bytes(), key),
        Condition::Size(size) => {
            h.size.is_some_and(|n| size.min.is_none_or(|min| n >= min) && size.max.is_none_or(|max| n <= max))
        }
        Condition::Tags(tags) => tags.iter().all(|(k, v)| has(&h.tags, k, v)),
        Condition::Metadata(metadata) => metadata.iter().all(|(k, v)| has(&h.metadata, workload::bare(k), v)),
        Condition::Requester(x) => h.requester == *x,
        Condition::All(all) => all.iter().all(|c| holds(c, sample)),
        Condition::Any(any) => any.iter().any(|c| holds(c, sample)),
        Condition::Not(inner) => !holds(inner, sample),
    }
}

/// Whether the text fits the pattern, in which `*` stands for any text. Goes back to the last star only, so that the time
/// is at most the product of the lengths and mostly their sum.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        if pattern.get(p) == Some(&b'*') {
            p += 1;
            star = Some((p, t));
        } else if pattern.get(p) == Some(&text[t]) {
            p += 1;
            t += 1;
        } else if let Some((after, tried)) = star {
            star = Some((after, tried + 1));
            (p, t) = (after, tried + 1);
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|b| *b == b'*')
}

/// By type, patterns for the key with the rules that they are of.
type Globs = [Vec<(String, u32)>; 10];

/// What stores do: for each bucket and type a list of patterns, prefix and suffix made one with a star, all tried.
pub fn globs(wishes: &[Wish], mix: Mix) -> Result<Engine, String> {
    if mix == Mix::Boolean {
        return Err("it has patterns for keys only".into());
    }
    let mut buckets: HashMap<String, Globs> = HashMap::new();
    let mut any = Globs::default();
    for (i, w) in wishes.iter().enumerate() {
        let own = w.bucket.as_ref().map_or(&mut any, |b| buckets.entry(b.clone()).or_default());
        let glob = glob_of(&w.conditions()).expect("a condition on the key");
        let types = type_bits(w);
        for (_, list) in own.iter_mut().enumerate().filter(|(t, _)| types & (1 << t) != 0) {
            list.push((glob.clone(), i as u32));
        }
    }
    Ok(Engine::new(move |sample, out| {
        for lists in buckets.get(sample.bucket).into_iter().chain([&any]) {
            let fits = lists[sample.event_type].iter().filter(|(x, _)| glob(x.as_bytes(), sample.key));
            out.extend(fits.map(|(_, i)| *i));
        }
    }))
}

type Hashed<K> = HashMap<K, Vec<u32>, RandomState>;

/// Rules by the beginning of the key, or its end, or the whole of it.
#[derive(Default)]
struct Lengths {
    whole: Hashed<Vec<u8>>,
    beginnings: (Vec<usize>, Hashed<Vec<u8>>),
    ends: (Vec<usize>, Hashed<Vec<u8>>),
}

impl Lengths {
    fn add(&mut self, pattern: &str, rule: u32) {
        let by = |(lengths, rules): &mut (Vec<usize>, Hashed<Vec<u8>>), text: &str| {
            if let Err(at) = lengths.binary_search(&text.len()) {
                lengths.insert(at, text.len());
            }
            rules.entry(text.into()).or_default().push(rule);
        };
        match (pattern.split_once('*'), pattern.rsplit_once('*')) {
            (Some(("", _)), Some((_, end))) => by(&mut self.ends, end),
            (Some((beginning, _)), _) => by(&mut self.beginnings, beginning),
            _ => self.whole.entry(pattern.into()).or_default().push(rule),
        }
    }

    fn each(&self, key: &[u8], mut found: impl FnMut(u32)) {
        let whole = self.whole.get(key);
        let lengths = |of: &'_ [usize]| of.partition_point(|n| *n <= key.len());
        let (begin, end) = (&self.beginnings, &self.ends);
        let beginnings = begin.0[..lengths(&begin.0)].iter().filter_map(|n| begin.1.get(&key[..*n]));
        let ends = end.0[..lengths(&end.0)].iter().filter_map(|n| end.1.get(&key[key.len() - n..]));
        whole.into_iter().chain(beginnings).chain(ends).flatten().for_each(|rule| found(*rule));
    }
}

/// For each bucket, one probe of a table for each length that a beginning or an end has, and the rest of the rules found:
/// the simplest index that does not grow with the rules.
pub fn hash_per_length(wishes: &[Wish]) -> Engine {
    let mut buckets: HashMap<String, Lengths, RandomState> = HashMap::default();
    let mut any = Lengths::default();
    let mut rules: Vec<(u16, Vec<Condition>)> = Vec::new();
    for (i, w) in wishes.iter().enumerate() {
        let mut conditions = w.conditions();
        if let [Condition::All(all)] = &mut conditions[..] {
            conditions = std::mem::take(all);
        }
        let own = w.bucket.as_ref().map_or(&mut any, |b| buckets.entry(b.clone()).or_default());
        own.add(&glob_of(&conditions).expect("a condition on the key"), i as u32);
        rules.push((type_bits(w), conditions));
    }
    Engine::new(move |sample, out| {
        for own in buckets.get(sample.bucket).into_iter().chain([&any]) {
            own.each(sample.key, |i| {
                let (types, conditions) = &rules[i as usize];
                if types & (1 << sample.event_type) != 0 && conditions.iter().all(|c| holds(c, sample)) {
                    out.push(i);
                }
            });
        }
    })
}

/// One automaton over bucket and key, made while it runs; the types are looked at after it.
pub fn regex_set(wishes: &[Wish], mix: Mix) -> Result<Engine, String> {
    if mix == Mix::Boolean {
        return Err("it has patterns for texts only".into());
    }
    if wishes.len() > 1000 {
        return Err("its automaton no longer fits its memory, and an event takes milliseconds".into());
    }
    let pattern = |w: &Wish| {
        let bucket = w.bucket.as_deref().map_or("[^\\x00]*".into(), regex::escape);
        let glob = glob_of(&w.conditions()).expect("a condition on the key");
        let key: Vec<String> = glob.split('*').map(regex::escape).collect();
        format!("(?s-u)^{bucket}\\x00{}$", key.join(".*"))
    };
    let set = regex::bytes::RegexSetBuilder::new(wishes.iter().map(pattern))
        .size_limit(256 << 20)
        .dfa_size_limit(256 << 20)
        .build()
        .map_err(|e| e.to_string())?;
    let types: Vec<u16> = wishes.iter().map(type_bits).collect();
    let mut text = Vec::new();
    Ok(Engine::new(move |sample, out| {
        text.clear();
        text.extend_from_slice(sample.bucket.as_bytes());
        text.push(0);
        text.extend_from_slice(sample.key);
        let found = set.matches(&text).into_iter().filter(|i| types[*i] & (1 << sample.event_type) != 0);
        out.extend(found.map(|i| i as u32));
    }))
}

/// The longest that an engine may take to be built.
const BUILD_MAX: Duration = Duration::from_secs(40);

/// Quamina, of JSON; second, its reading of the JSON alone, of which it takes the fields that a pattern names.
pub fn quamina(wishes: &[Wish], mix: Mix) -> Result<(Engine, Engine), String> {
    let most = if mix == Mix::Infix { 1000 } else { 100_000 };
    if wishes.len() > most {
        return Err("64 KB of memory a rule, or milliseconds an event".into());
    }
    let begun = cpu_time();
    let mut q = QuaminaBuilder::<u32>::new().with_arena_byte_budget(16 << 30).build().map_err(|e| e.to_string())?;
    for (i, w) in wishes.iter().enumerate() {
        for pattern in patterns(w) {
            q.add_pattern(i as u32, &pattern.to_string()).map_err(|e| e.to_string())?;
        }
        if cpu_time() - begun > BUILD_MAX {
            return Err(format!("{i} rules took {} s to add", BUILD_MAX.as_secs()));
        }
    }
    // The first event has it finish what it built.
    q.matches_for_event(b"{\"key\":\"\"}").map_err(|e| e.to_string())?;
    let q = Rc::new(q);
    let same = q.clone();
    let engine = Engine::new(move |sample, out| {
        out.extend(q.matches_for_event(sample.json).expect("an event"));
        // A rule of two patterns may be met by both.
        out.sort_unstable();
        out.dedup();
    });
    let flattening = Engine::limit(move |sample, _| {
        black_box(same.flatten_only(sample.json).expect("an event"));
    });
    Ok((engine, flattening))
}
