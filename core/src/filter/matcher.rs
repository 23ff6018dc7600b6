//! The index over all rules: which of them want an event.

use std::borrow::Cow;
use std::collections::HashSet;
use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::fast::RandomState;

use super::bytes;
use super::compiler::Compiler;
use super::expression::{Field, Filter, Test};
use super::pattern::Regex;
use super::scope::{MatchMemory, Met, Scope};
use super::subject::{Kind, Subject, Value};
use crate::error::Result;
use crate::event::{EventPattern, EventType, FrameView, KnownType};
use crate::rule::Rule;

/// Finds the rules that want an event, without looking at the others.
///
/// Rules are kept per bucket, and those of every bucket apart; within each, see the module `scope`. Matching allocates
/// nothing once its [`MatchMemory`] has grown, never fails, and its cost grows with the length of the event and the number
/// of rules that are met, not with the number of rules.
///
/// It does not change: a [`Compiler`] makes the next one, which shares with this one what is the same.
#[derive(Clone, Debug)]
pub struct Matcher {
    pub(super) buckets: Buckets,
    /// Rules of every bucket.
    pub(super) any: Layers,
}

/// The compiled rules of one bucket, or of every bucket.
#[derive(Clone, Debug)]
pub(super) struct Layers {
    pub(super) first: Scope,
    /// What has come and gone since `first` was compiled.
    pub(super) more: Option<Arc<More>>,
}

/// See [`Layers`].
#[derive(Debug, Default)]
pub(super) struct More {
    /// Numbers of rules of `first` that are there no more, in order.
    pub(super) gone: Box<[u32]>,
    /// Rules that came later, and which of those have gone again.
    pub(super) layers: Vec<(Scope, Box<[u32]>)>,
}

impl Layers {
    pub(super) fn of(first: Scope) -> Layers {
        Layers { first, more: None }
    }

    #[inline]
    fn wants(&self, t: EventType<'_>) -> bool {
        self.first.wants(t) || self.more.as_ref().is_some_and(|m| m.layers.iter().any(|(scope, _)| scope.wants(t)))
    }

    /// Appends the rules that want the event; whether one may have come twice.
    #[inline]
    fn matches(&self, met: &mut Met<'_, '_, '_>, out: &mut Vec<u32>) -> bool {
        let start = out.len();
        self.first.matches(met, out);
        match &self.more {
            None => self.first.repeats(),
            Some(more) => self.first.repeats() | more.matches(start, met, out),
        }
    }

    fn scopes(&self) -> impl Iterator<Item = &Scope> {
        let more = self.more.iter().flat_map(|m| m.layers.iter().map(|(scope, _)| scope));
        std::iter::once(&self.first).chain(more)
    }

    fn bytes(&self) -> usize {
        let more = |m: &Arc<More>| {
            let layer = |(scope, gone): &(Scope, Box<[u32]>)| scope.bytes() + gone.len() * 4;
            m.gone.len() * 4 + m.layers.iter().map(layer).sum::<usize>()
        };
        self.first.bytes() + self.more.as_ref().map_or(0, more)
    }
}

impl More {
    #[cold]
    #[inline(never)]
    fn matches(&self, mut start: usize, met: &mut Met<'_, '_, '_>, out: &mut Vec<u32>) -> bool {
        let mut repeats = false;
        remove(out, start, &self.gone);
        for (scope, gone) in &self.layers {
            start = out.len();
            scope.matches(met, out);
            repeats |= scope.repeats();
            remove(out, start, gone);
        }
        repeats
    }
}

/// Takes out of the numbers from `start` on those that are gone.
fn remove(out: &mut Vec<u32>, start: usize, gone: &[u32]) {
    if gone.is_empty() {
        return;
    }
    let mut kept = start;
    for i in start..out.len() {
        if gone.binary_search(&out[i]).is_err() {
            out[kept] = out[i];
            kept += 1;
        }
    }
    out.truncate(kept);
}

/// Buckets by name, in parts that a change replaces one of.
#[derive(Clone, Debug)]
pub(super) struct Buckets {
    hasher: RandomState,
    /// Of power-of-two number; the upper bits of a name's hash choose.
    parts: Box<[Arc<Part>]>,
    len: usize,
}

/// An open table of power-of-two size with linear probing.
#[derive(Clone, Debug, Default)]
struct Part {
    slots: Box<[Option<(u64, Layers)>]>,
    len: usize,
}

impl Part {
    #[inline]
    fn get(&self, hash: u64, name: &[u8]) -> Option<&Layers> {
        if self.slots.is_empty() {
            return None;
        }
        let mask = self.slots.len() - 1;
        let mut at = hash as usize & mask;
        loop {
            match &self.slots[at] {
                Some((h, layers)) if *h == hash && bytes::equals(layers.first.name(), name) => return Some(layers),
                Some(_) => at = (at + 1) & mask,
                None => return None,
            }
        }
    }

    fn of(entries: impl Iterator<Item = (u64, Layers)>, len: usize) -> Part {
        let mut slots = vec![None; (len * 2).next_power_of_two().max(2)];
        let mask = slots.len() - 1;
        for (hash, layers) in entries {
            let mut at = hash as usize & mask;
            while slots[at].is_some() {
                at = (at + 1) & mask;
            }
            slots[at] = Some((hash, layers));
        }
        Part { slots: slots.into(), len }
    }
}

/// So many events are looked up ahead.
const BATCH: usize = 16;
/// Buckets per part that are aimed at.
const PART_BUCKETS: usize = 32;

impl Buckets {
    pub(super) fn new() -> Buckets {
        Buckets { hasher: RandomState::default(), parts: vec![Arc::default()].into(), len: 0 }
    }

    /// Those of these scopes, each of another bucket.
    pub(super) fn of(scopes: Vec<Layers>) -> Buckets {
        let hasher = RandomState::default();
        let count = (scopes.len() / PART_BUCKETS).next_power_of_two();
        let len = scopes.len();
        let mut parts: Vec<Vec<(u64, Layers)>> = vec![Vec::new(); count];
        for layers in scopes {
            let hash = hasher.hash_one(layers.first.name());
            parts[part_of(hash, count)].push((hash, layers));
        }
        let part = |entries: Vec<(u64, Layers)>| {
            let len = entries.len();
            Arc::new(Part::of(entries.into_iter(), len))
        };
        Buckets { hasher, parts: parts.into_iter().map(part).collect(), len }
    }

    #[inline]
    fn hash(&self, name: &[u8]) -> u64 {
        self.hasher.hash_one(name)
    }

    #[inline]
    fn get(&self, name: &[u8]) -> Option<&Layers> {
        self.get_hashed(self.hash(name), name)
    }

    #[inline]
    fn get_hashed(&self, hash: u64, name: &[u8]) -> Option<&Layers> {
        self.parts[part_of(hash, self.parts.len())].get(hash, name)
    }

    /// Says that the bucket of this hash will be asked for.
    #[inline]
    fn expect(&self, hash: u64) {
        let part = &self.parts[part_of(hash, self.parts.len())];
        if let Some(slot) = part.slots.get(hash as usize & part.slots.len().wrapping_sub(1)) {
            bytes::prefetch(slot);
        }
    }

    /// Puts the rules of a bucket in the place of those it had; with `None` the bucket has no rules any more.
    pub(super) fn set(&mut self, name: &str, layers: Option<Layers>) {
        let hash = self.hasher.hash_one(name.as_bytes());
        let part = &mut self.parts[part_of(hash, self.parts.len())];
        let before = part.get(hash, name.as_bytes()).is_some();
        let others = part.slots.iter().flatten().filter(|(h, l)| *h != hash || l.first.name() != name.as_bytes());
        let len = part.len - usize::from(before) + usize::from(layers.is_some());
        self.len = self.len - usize::from(before) + usize::from(layers.is_some());
        *part = Arc::new(Part::of(others.cloned().chain(layers.map(|l| (hash, l))), len));
        if self.len > self.parts.len() * PART_BUCKETS * 4 {
            *self = Buckets::of(self.all().cloned().collect());
        }
    }

    fn all(&self) -> impl Iterator<Item = &Layers> {
        self.parts.iter().flat_map(|p| p.slots.iter().flatten().map(|(_, layers)| layers))
    }
}

#[inline]
fn part_of(hash: u64, parts: usize) -> usize {
    (hash >> 32) as usize & (parts - 1)
}

impl Matcher {
    /// The index of these rules; a rule's number is its place in the slice.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidConfig`] if the rules take too much memory together. That each rule is valid by itself is
    /// not checked ([`crate::rule::RuleSet`]).
    pub fn compile(rules: &[Rule]) -> Result<Matcher> {
        Ok(Compiler::compile(rules)?.matcher().clone())
    }

    /// Whether any rule could want events of this type in this bucket. Never `false` for an event that
    /// [`Matcher::matches`] finds a rule for.
    #[inline]
    pub fn interested(&self, bucket: &str, t: EventType<'_>) -> bool {
        self.any.wants(t) || self.buckets.get(bucket.as_bytes()).is_some_and(|layers| layers.wants(t))
    }

    /// Appends the numbers of the rules that want this event to `out`, ascending, each once.
    #[inline]
    pub fn matches(&self, frame: &FrameView<'_>, memory: &mut MatchMemory, out: &mut Vec<u32>) {
        self.find(frame, false, memory, out);
    }

    /// The same for an event of which only type, bucket and key are known: the rules that may want it, whatever the rest
    /// will be.
    pub fn may_match(&self, frame: &FrameView<'_>, memory: &mut MatchMemory, out: &mut Vec<u32>) {
        self.find(frame, true, memory, out);
    }

    /// As [`Matcher::matches`] for several events: calls `each` with the place of each in `frames` and the rules that want it.
    ///
    /// Faster than one after the other where there are many rules: while one event is matched, the memory that the next ones
    /// need is on its way.
    pub fn matches_batch(
        &self,
        frames: &[FrameView<'_>],
        memory: &mut MatchMemory,
        mut each: impl FnMut(usize, &[u32]),
    ) {
        let mut out = std::mem::take(&mut memory.matched);
        let mut hashes = [0; BATCH];
        for (chunk, events) in frames.chunks(BATCH).enumerate() {
            for (hash, frame) in hashes.iter_mut().zip(events) {
                *hash = self.buckets.hash(frame.bucket_and_key().0);
                self.buckets.expect(*hash);
            }
            let mut scopes = [None; BATCH];
            for ((scope, hash), frame) in scopes.iter_mut().zip(hashes).zip(events) {
                *scope = self.buckets.get_hashed(hash, frame.bucket_and_key().0);
                if let Some(layers) = scope {
                    layers.first.expect();
                }
            }
            for (i, (scope, frame)) in scopes.iter().zip(events).enumerate() {
                out.clear();
                self.find_in(*scope, frame, false, memory, &mut out);
                each(chunk * BATCH + i, &out);
            }
        }
        out.clear();
        memory.matched = out;
    }

    #[inline]
    fn find(&self, frame: &FrameView<'_>, before: bool, memory: &mut MatchMemory, out: &mut Vec<u32>) {
        self.find_in(self.buckets.get(frame.bucket_and_key().0), frame, before, memory, out);
    }

    #[inline]
    fn find_in(
        &self,
        bucket: Option<&Layers>,
        frame: &FrameView<'_>,
        before: bool,
        memory: &mut MatchMemory,
        out: &mut Vec<u32>,
    ) {
        let event_type = frame.event_type();
        let (_, key) = frame.bucket_and_key();
        let bucket = bucket.filter(|layers| layers.wants(event_type));
        let any = self.any.wants(event_type).then_some(&self.any);
        if bucket.is_none() && any.is_none() {
            return;
        }
        let start = out.len();
        let MatchMemory { data, found, touched, places, checks, .. } = memory;
        let mut subject = Subject::new(*frame, data);
        let mut met = Met { event_type, key, subject: &mut subject, found, touched, places, checks, before };
        let mut repeats = false;
        for layers in [bucket, any].into_iter().flatten() {
            repeats |= layers.matches(&mut met, out);
        }
        if out.len() - start > 1 {
            out[start..].sort_unstable();
            if repeats {
                let mut kept = start + 1;
                for i in start + 1..out.len() {
                    if out[i] != out[kept - 1] {
                        out[kept] = out[i];
                        kept += 1;
                    }
                }
                out.truncate(kept);
            }
        }
    }

    /// Bytes of memory that the index takes, with its compiled regular expressions.
    pub fn bytes(&self) -> usize {
        let slots = self.buckets.parts.iter().map(|p| std::mem::size_of_val(&*p.slots) + 48).sum::<usize>();
        let all = || self.buckets.all().chain([&self.any]);
        let mut seen = HashSet::new();
        let regexes = all().flat_map(Layers::scopes).flat_map(Scope::regexes);
        let regexes: usize = regexes.filter(|r| seen.insert(r.address())).map(Regex::bytes).sum();
        slots + all().map(Layers::bytes).sum::<usize>() + regexes
    }

    /// The name and the memory of the bucket whose rules take most of it; an empty name stands for every bucket. Regular
    /// expressions that buckets share count in each.
    pub(super) fn largest(&self) -> (&[u8], usize) {
        let bytes = |layers: &Layers| {
            layers.bytes() + layers.scopes().flat_map(Scope::regexes).map(Regex::bytes).sum::<usize>()
        };
        let all = self.buckets.all().chain([&self.any]).map(|layers| (layers.first.name(), bytes(layers)));
        all.max_by_key(|(_, bytes)| *bytes).unwrap_or((b"", 0))
    }
}

/// What a rule wants, in the form that is compiled: its scopes, and what constants and conditions on type and bucket leave
/// of its filter.
pub(super) struct Prepared<'r> {
    /// The buckets; `None` is every bucket.
    pub(super) buckets: Option<Vec<&'r str>>,
    pub(super) events: Cow<'r, EventPattern>,
    pub(super) filter: Cow<'r, Filter>,
}

/// The rule in the form that is compiled; `None` if it never wants anything.
pub(super) fn prepare(rule: &Rule) -> Option<Prepared<'_>> {
    let filter = simplify(&rule.filter);
    if is_never(&filter) {
        return None;
    }
    let mut p =
        Prepared { buckets: rule.bucket.as_deref().map(|b| vec![b]), events: Cow::Borrowed(&rule.events), filter };
    // Conditions on the type narrow the set of types, and those on the bucket the scope.
    let narrows = |f: &Filter| is_of_types(f) || bucket_names(f).is_some();
    let top: &[Filter] = match &*p.filter {
        Filter::All(list) => list,
        f => std::slice::from_ref(f),
    };
    if !top.iter().any(narrows) {
        return Some(p);
    }
    let Cow::Borrowed(_) = p.filter else {
        // Rewritten already; it stays as it is, which is slower and no less right.
        return Some(p);
    };
    let top: &[Filter] = match &rule.filter {
        Filter::All(list) => list,
        f => std::slice::from_ref(f),
    };
    let mut left = Vec::new();
    for f in top {
        if is_of_types(f) {
            let events = p.events.to_mut();
            events.retain(|t| match t {
                EventType::Known(t) => holds_for(f, t),
                EventType::Custom(_) => true,
            });
            if events.custom().next().is_none() {
                continue;
            }
        } else if let Some(names) = bucket_names(f)
            && p.buckets.is_none()
        {
            let mut names: Vec<&str> = names.collect();
            names.sort_unstable();
            names.dedup();
            p.buckets = Some(names);
            continue;
        }
        left.push(f.clone());
    }
    p.filter = Cow::Owned(Filter::All(left));
    Some(p)
}

/// Whether a condition is about the type and nothing else.
pub(super) fn is_of_types(f: &Filter) -> bool {
    match f {
        Filter::All(list) | Filter::Any(list) => list.iter().all(is_of_types),
        Filter::Not(inner) => is_of_types(inner),
        Filter::Is(field, _) => *field == Field::EventType,
    }
}

/// Whether such a condition holds for a type.
fn holds_for(f: &Filter, t: KnownType) -> bool {
    match f {
        Filter::All(list) => list.iter().all(|f| holds_for(f, t)),
        Filter::Any(list) => list.iter().any(|f| holds_for(f, t)),
        Filter::Not(inner) => !holds_for(inner, t),
        Filter::Is(_, Test::Absent) => false,
        Filter::Is(_, test) => test.passes(Kind::EventType, Value::Text(t.name().as_bytes())),
    }
}

/// The buckets that a condition asks for, if that is all it does.
fn bucket_names(f: &Filter) -> Option<impl Iterator<Item = &str>> {
    fn name(f: &Filter) -> Option<&str> {
        match f {
            Filter::Is(Field::Bucket, Test::Equals(x)) => std::str::from_utf8(x).ok().filter(|x| !x.is_empty()),
            _ => None,
        }
    }
    let list = match f {
        Filter::Any(list) if !list.is_empty() => list,
        f => std::slice::from_ref(f),
    };
    list.iter().all(|f| name(f).is_some()).then(|| list.iter().filter_map(name))
}

fn is_never(f: &Filter) -> bool {
    matches!(f, Filter::Any(list) if list.is_empty())
}

fn is_always(f: &Filter) -> bool {
    matches!(f, Filter::All(list) if list.is_empty())
}

fn has_constant(f: &Filter) -> bool {
    match f {
        Filter::All(list) | Filter::Any(list) => list.is_empty() || list.iter().any(has_constant),
        Filter::Not(inner) => has_constant(inner),
        Filter::Is(..) => false,
    }
}

/// The filter without constants, unless it is one as a whole.
fn simplify(f: &Filter) -> Cow<'_, Filter> {
    if is_always(f) || is_never(f) || !has_constant(f) {
        return Cow::Borrowed(f);
    }
    Cow::Owned(match f {
        Filter::All(list) => {
            let parts: Vec<Filter> = list.iter().map(|f| simplify(f).into_owned()).filter(|f| !is_always(f)).collect();
            if parts.iter().any(is_never) { Filter::Any(Vec::new()) } else { Filter::all(parts) }
        }
        Filter::Any(list) => {
            let parts: Vec<Filter> = list.iter().map(|f| simplify(f).into_owned()).filter(|f| !is_never(f)).collect();
            if parts.iter().any(is_always) { Filter::All(Vec::new()) } else { Filter::any(parts) }
        }
        Filter::Not(inner) => match simplify(inner).into_owned() {
            f if is_always(&f) => Filter::Any(Vec::new()),
            f if is_never(&f) => Filter::All(Vec::new()),
            f => f.not(),
        },
        f => f.clone(),
    })
}
