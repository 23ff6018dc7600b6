//! The index over all rules: which of them want an event.

use std::borrow::Cow;
use std::collections::HashSet;
use std::hash::BuildHasher;
use std::ops::Deref;
use std::sync::Arc;

use foldhash::fast::RandomState;
use smallvec::{SmallVec, smallvec};

use super::bytes;
use super::compiler::Compiler;
use super::expression::{Field, Filter, Test};
use super::scope::{MatchMemory, Met, Scope};
use super::subject::{Kind, Subject, Value};
use super::walk::{Postings, Walks};
use crate::error::Result;
use crate::event::{EventPattern, EventType, FrameView, KnownType};
use crate::rule::Rule;

/// Finds the rules that want an event, without looking at the others.
///
/// Rules are kept per bucket, and those of every bucket apart; within each, see the module `scope`. Matching allocates
/// nothing once its [`MatchMemory`] has grown, but where an expression is evaluated ([`Filter::Cel`]), never fails, and its
/// cost grows with the length of the event and the number of rules that are met, not with the number of rules.
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

    #[inline(always)]
    fn wants(&self, t: EventType<'_>) -> bool {
        self.first.wants(t) || self.more.as_ref().is_some_and(|m| m.wants(t))
    }

    /// Appends the rules that want the event; whether one may have come twice. With `walked`, the tries of `first` have been
    /// walked through, and this is what was met.
    #[inline]
    fn matches(
        &self,
        walked: Option<impl Iterator<Item = Postings>>,
        met: &mut Met<'_, '_, '_>,
        out: &mut Vec<u32>,
    ) -> bool {
        let start = out.len();
        match walked {
            None => self.first.matches(met, out),
            Some(walked) => self.first.matches_walked(walked, met, out),
        }
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
    fn wants(&self, t: EventType<'_>) -> bool {
        self.layers.iter().any(|(scope, _)| scope.wants(t))
    }

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
    /// Those whose rules take more memory than stays close to the processor.
    large: usize,
    /// Of all compiled rules.
    bytes: usize,
}

/// An open table of power-of-two size with linear probing.
type Part = [Slot];

/// A place for a bucket, as long as a line of the cache: the hash of its name, and its rules.
#[derive(Clone, Debug, Default)]
#[repr(align(64))]
struct Slot(Option<(u64, Layers)>);

const _: () = assert!(size_of::<Slot>() == 64);

fn part_from(entries: impl Iterator<Item = (u64, Layers)>, len: usize) -> Arc<Part> {
    let mut slots = vec![Slot::default(); (len * 2).next_power_of_two()];
    let mask = slots.len() - 1;
    for (hash, layers) in entries {
        let mut at = hash as usize & mask;
        while slots[at].0.is_some() {
            at = (at + 1) & mask;
        }
        slots[at].0 = Some((hash, layers));
    }
    slots.into()
}

/// The first with this hash for which `is` holds; hardly ever is there more than one with the hash.
#[inline(always)]
fn with_hash(part: &Part, hash: u64, is: impl Fn(&Layers) -> bool) -> Option<&Layers> {
    let mask = part.len() - 1;
    let mut at = hash as usize & mask;
    loop {
        let (held, layers) = part[at].0.as_ref()?;
        if *held == hash && is(layers) {
            return Some(layers);
        }
        at = (at + 1) & mask;
    }
}

/// So many events are matched at once.
const BATCH: usize = 16;
/// An index of fewer bytes stays close to the processor, so there is nothing to wait for.
const NEAR_BYTES: usize = if cfg!(test) { 512 } else { 512 * 1024 };
/// Among small scopes, the bucket of the event so many places on is asked for while one is matched, and the rules of the
/// one so many places on.
const BUCKET_AHEAD: usize = 8;
const RULES_AHEAD: usize = 4;
/// Buckets per part that are aimed at.
const PART_BUCKETS: usize = 32;

impl Buckets {
    pub(super) fn new() -> Buckets {
        Buckets::of(Vec::new())
    }

    /// Those of these scopes, each of another bucket.
    pub(super) fn of(scopes: Vec<Layers>) -> Buckets {
        let hasher = RandomState::default();
        let count = (scopes.len() / PART_BUCKETS).next_power_of_two();
        let (len, large) = (scopes.len(), scopes.iter().filter(|layers| layers.first.is_large()).count());
        let bytes = scopes.iter().map(Layers::bytes).sum();
        let mut parts: Vec<Vec<(u64, Layers)>> = vec![Vec::new(); count];
        for layers in scopes {
            let hash = hasher.hash_one(layers.first.name());
            parts[part_of(hash, count)].push((hash, layers));
        }
        let part = |entries: Vec<(u64, Layers)>| {
            let len = entries.len();
            part_from(entries.into_iter(), len)
        };
        Buckets { hasher, parts: parts.into_iter().map(part).collect(), len, large, bytes }
    }

    #[inline]
    fn hash(&self, name: &[u8]) -> u64 {
        self.hasher.hash_one(name)
    }

    #[inline]
    fn get(&self, name: &[u8]) -> Option<&Layers> {
        self.get_hashed(self.hash(name), name)
    }

    #[inline(always)]
    fn get_hashed(&self, hash: u64, name: &[u8]) -> Option<&Layers> {
        with_hash(self.part(hash), hash, |layers| bytes::equals(layers.first.name(), name))
    }

    #[inline]
    fn part(&self, hash: u64) -> &Part {
        &self.parts[part_of(hash, self.parts.len())]
    }

    /// Says that the bucket of this hash will be asked for.
    #[inline]
    fn expect(&self, hash: u64) {
        let part = self.part(hash);
        bytes::prefetch(part, hash as usize & (part.len() - 1));
    }

    /// Says that the bucket of this hash will be matched.
    #[inline]
    fn expect_rules(&self, hash: u64) {
        if let Some(layers) = with_hash(self.part(hash), hash, |_| true) {
            layers.first.expect();
        }
    }

    /// Puts the rules of a bucket in the place of those it had; with `None` the bucket has no rules any more.
    pub(super) fn set(&mut self, name: &str, layers: Option<Layers>) {
        let hash = self.hasher.hash_one(name.as_bytes());
        let part = &mut self.parts[part_of(hash, self.parts.len())];
        let others = part.iter().filter_map(|slot| slot.0.as_ref());
        let others = others.filter(|(h, l)| *h != hash || l.first.name() != name.as_bytes());
        let next: Vec<(u64, Layers)> = others.cloned().chain(layers.map(|l| (hash, l))).collect();
        let size = |layers: &mut dyn Iterator<Item = &Layers>| {
            layers.fold((0, 0, 0), |(len, large, bytes), layers| {
                (len + 1, large + usize::from(layers.first.is_large()), bytes + layers.bytes())
            })
        };
        let before = size(&mut part.iter().filter_map(|slot| Some(&slot.0.as_ref()?.1)));
        let (len, large, bytes) = size(&mut next.iter().map(|(_, layers)| layers));
        self.len = self.len - before.0 + len;
        self.large = self.large - before.1 + large;
        self.bytes = self.bytes - before.2 + bytes;
        *part = part_from(next.into_iter(), len);
        if self.len > self.parts.len() * PART_BUCKETS * 4 {
            *self = Buckets::of(self.all().cloned().collect());
        }
    }

    fn all(&self) -> impl Iterator<Item = &Layers> {
        self.parts.iter().flat_map(|part| part.iter().filter_map(|slot| Some(&slot.0.as_ref()?.1)))
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
        Ok(Compiler::compile(rules)?.into_matcher())
    }

    /// Whether any rule could want events of this type in this bucket. Never `false` for an event that
    /// [`Matcher::matches`] finds a rule for.
    #[inline]
    pub fn interested(&self, bucket: &str, t: EventType<'_>) -> bool {
        self.any.wants(t) || self.buckets.get(bucket.as_bytes()).is_some_and(|layers| layers.wants(t))
    }

    /// Whether any rule could want events of this type in every bucket.
    pub(crate) fn interested_everywhere(&self, t: EventType<'_>) -> bool {
        self.any.wants(t)
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
    /// Faster than one after the other where there are many thousand rules: while one event is matched, the memory that the
    /// next ones need is on its way.
    pub fn matches_batch(
        &self,
        frames: &[FrameView<'_>],
        memory: &mut MatchMemory,
        mut each: impl FnMut(usize, &[u32]),
    ) {
        let mut out = std::mem::take(&mut memory.matched);
        if self.buckets.large == 0 && !self.any.first.is_large() {
            if self.buckets.bytes < NEAR_BYTES {
                for (i, frame) in frames.iter().enumerate() {
                    out.clear();
                    self.find(frame, false, memory, &mut out);
                    each(i, &out);
                }
            } else {
                self.find_ahead(frames, memory, &mut out, &mut each);
            }
            out.clear();
            memory.matched = out;
            return;
        }
        let mut walks = std::mem::take(&mut memory.walks);
        for (chunk, frames) in frames.chunks(BATCH).enumerate() {
            let mut events = [Wanted::default(); BATCH];
            let events = &mut events[..frames.len()];
            self.look_up(frames, events);
            walks.clear(events.len() * 2);
            let mut of: [(&[u8], &[u8]); BATCH * 2] = [(&[], &[]); BATCH * 2];
            for (i, event) in events.iter().enumerate() {
                for (list, layers) in [(i * 2, event.bucket), (i * 2 + 1, event.any)] {
                    if let Some(layers) = layers.filter(|layers| layers.first.is_large()) {
                        of[list] = (layers.first.block(), event.key);
                        layers.first.begin(list, &mut walks);
                    }
                }
            }
            walks.walk(&of);
            for (i, (event, frame)) in events.iter().zip(frames).enumerate() {
                out.clear();
                event.find(frame, false, Some((&walks, i)), memory, &mut out);
                each(chunk * BATCH + i, &out);
            }
        }
        out.clear();
        memory.matched = out;
        memory.walks = walks;
    }

    /// For many small scopes: while an event is matched, the bucket of a later one is on its way, and of one between the two
    /// the rules.
    fn find_ahead(
        &self,
        frames: &[FrameView<'_>],
        memory: &mut MatchMemory,
        out: &mut Vec<u32>,
        each: &mut impl FnMut(usize, &[u32]),
    ) {
        let mut hashes = [0; BUCKET_AHEAD];
        for at in 0..frames.len() + BUCKET_AHEAD {
            let hash = hashes[at % BUCKET_AHEAD];
            if let Some(frame) = frames.get(at) {
                let hash = self.buckets.hash(frame.bucket_and_key().0);
                hashes[at % BUCKET_AHEAD] = hash;
                self.buckets.expect(hash);
            }
            let rules_of = (at + RULES_AHEAD).wrapping_sub(BUCKET_AHEAD);
            if rules_of < frames.len() {
                self.buckets.expect_rules(hashes[rules_of % BUCKET_AHEAD]);
            }
            if let Some(i) = at.checked_sub(BUCKET_AHEAD) {
                let frame = &frames[i];
                let (bucket, key) = frame.bucket_and_key();
                let mut event = Wanted { event_type: frame.event_type(), key, ..Wanted::default() };
                event.look(self.buckets.get_hashed(hash, bucket), &self.any);
                out.clear();
                event.find(frame, false, None, memory, out);
                each(i, out);
            }
        }
    }

    /// Finds the scopes of several events at once.
    #[inline]
    fn look_up<'m, 'f>(&'m self, frames: &[FrameView<'f>], events: &mut [Wanted<'m, 'f>]) {
        let mut names: [(&[u8], u64); BATCH] = [(&[], 0); BATCH];
        for ((event, name), frame) in events.iter_mut().zip(&mut names).zip(frames) {
            let (bucket, key) = frame.bucket_and_key();
            *name = (bucket, self.buckets.hash(bucket));
            self.buckets.expect(name.1);
            (event.event_type, event.key) = (frame.event_type(), key);
        }
        let names = &names[..frames.len()];
        names.iter().for_each(|(_, hash)| self.buckets.expect_rules(*hash));
        for (event, (bucket, hash)) in events.iter_mut().zip(names) {
            event.look(self.buckets.get_hashed(*hash, bucket), &self.any);
        }
    }

    #[inline(always)]
    fn find(&self, frame: &FrameView<'_>, before: bool, memory: &mut MatchMemory, out: &mut Vec<u32>) {
        let (bucket, key) = frame.bucket_and_key();
        let mut event = Wanted { event_type: frame.event_type(), key, ..Wanted::default() };
        event.look(self.buckets.get(bucket), &self.any);
        event.find(frame, before, None, memory, out);
    }

    /// Bytes of memory that the index takes, with its compiled regular expressions and the expressions that are evaluated.
    pub fn bytes(&self) -> usize {
        let slots = self.buckets.parts.iter().map(|p| std::mem::size_of_val(&**p) + 64).sum::<usize>();
        let all = || self.buckets.all().chain([&self.any]);
        let mut seen = HashSet::new();
        let shared = all().flat_map(Layers::scopes).flat_map(Scope::shared);
        let shared: usize = shared.filter(|(address, _)| seen.insert(*address)).map(|(_, bytes)| bytes).sum();
        slots + all().map(Layers::bytes).sum::<usize>() + shared
    }

    /// The name and the memory of the bucket whose rules take most of it; an empty name stands for every bucket. Expressions
    /// that buckets share count in each.
    pub(super) fn largest(&self) -> (&[u8], usize) {
        let bytes = |layers: &Layers| {
            layers.bytes() + layers.scopes().flat_map(Scope::shared).map(|(_, bytes)| bytes).sum::<usize>()
        };
        let all = self.buckets.all().chain([&self.any]).map(|layers| (layers.first.name(), bytes(layers)));
        all.max_by_key(|(_, bytes)| *bytes).unwrap_or((b"", 0))
    }
}

/// An event, and the scopes that have rules for its type.
#[derive(Clone, Copy)]
struct Wanted<'m, 'f> {
    event_type: EventType<'f>,
    key: &'f [u8],
    bucket: Option<&'m Layers>,
    any: Option<&'m Layers>,
}

impl Default for Wanted<'_, '_> {
    fn default() -> Self {
        Wanted { event_type: EventType::Custom(""), key: &[], bucket: None, any: None }
    }
}

impl<'m> Wanted<'m, '_> {
    /// Takes from these scopes those that have rules for its type.
    #[inline]
    fn look(&mut self, bucket: Option<&'m Layers>, any: &'m Layers) {
        self.bucket = bucket.filter(|layers| layers.wants(self.event_type));
        self.any = any.wants(self.event_type).then_some(any);
    }

    /// Appends the rules. With `walked`, the first walks have been taken already: these, for the event of this place.
    // Where there are no walks, nothing is to be left of the question.
    #[inline(always)]
    fn find(
        &self,
        frame: &FrameView<'_>,
        before: bool,
        walked: Option<(&Walks, usize)>,
        memory: &mut MatchMemory,
        out: &mut Vec<u32>,
    ) {
        if self.bucket.is_none() && self.any.is_none() {
            return;
        }
        let start = out.len();
        let MatchMemory { data, places, checks, .. } = memory;
        let mut subject = Subject::new(*frame, data);
        let Wanted { event_type, key, .. } = *self;
        let mut met = Met { event_type, key, subject: &mut subject, places, checks, before };
        let mut look = |layers: Option<&Layers>, list: usize| {
            let Some(layers) = layers else { return false };
            let walked = walked.filter(|_| layers.first.is_large()).map(|(walks, event)| walks.met(event * 2 + list));
            layers.matches(walked, &mut met, out)
        };
        let repeats = look(self.bucket, 0) | look(self.any, 1);
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
}

/// The buckets that a rule names: one, as a rule.
pub(super) type Names<'r> = SmallVec<[&'r str; 1]>;

/// What a rule wants, in the form that is compiled: its scopes, and what constants and conditions on type and bucket leave
/// of its filter.
pub(super) struct Prepared<'r> {
    /// The buckets; `None` is every bucket.
    pub(super) buckets: Option<Names<'r>>,
    pub(super) events: Lent<'r, EventPattern>,
    pub(super) filter: Lent<'r, Filter>,
}

/// A part of a rule, or what has become of it. Few are made anew, and a million rules are prepared at once: so it is small.
pub(super) enum Lent<'r, T> {
    Borrowed(&'r T),
    Owned(Box<T>),
}

impl<T> Deref for Lent<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        match self {
            Lent::Borrowed(part) => part,
            Lent::Owned(part) => part,
        }
    }
}

impl<'r, T: Clone> From<Cow<'r, T>> for Lent<'r, T> {
    fn from(part: Cow<'r, T>) -> Lent<'r, T> {
        match part {
            Cow::Borrowed(part) => Lent::Borrowed(part),
            Cow::Owned(part) => Lent::Owned(Box::new(part)),
        }
    }
}

/// The rule in the form that is compiled; `None` if it never wants anything.
pub(super) fn prepare(rule: &Rule) -> Option<Prepared<'_>> {
    let filter = simplify(&rule.filter);
    if is_never(&filter) {
        return None;
    }
    let buckets = rule.bucket.as_deref().map(|b| smallvec![b]);
    let mut p = Prepared { buckets, events: Lent::Borrowed(&rule.events), filter: filter.into() };
    // Conditions on the type narrow the set of types, and those on the bucket the scope.
    let narrows = |f: &Filter| is_of_types(f) || bucket_names(f).is_some();
    let top: &[Filter] = match &*p.filter {
        Filter::All(list) => list,
        f => std::slice::from_ref(f),
    };
    if !top.iter().any(narrows) {
        return Some(p);
    }
    let Lent::Borrowed(_) = p.filter else {
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
            let mut events = p.events.clone();
            events.retain(|t| match t {
                EventType::Known(t) => holds_for(f, t),
                EventType::Custom(_) => true,
            });
            let is_said = events.custom().next().is_none();
            p.events = Lent::Owned(Box::new(events));
            if is_said {
                continue;
            }
        } else if let Some(names) = bucket_names(f)
            && p.buckets.is_none()
        {
            let mut names: Names<'_> = names.collect();
            names.sort_unstable();
            names.dedup();
            p.buckets = Some(names);
            continue;
        }
        left.push(f.clone());
    }
    p.filter = Lent::Owned(Box::new(Filter::All(left)));
    Some(p)
}

/// Whether a condition is about the type and nothing else.
pub(super) fn is_of_types(f: &Filter) -> bool {
    match f {
        Filter::All(list) | Filter::Any(list) => list.iter().all(is_of_types),
        Filter::Not(inner) => is_of_types(inner),
        Filter::Is(field, _) => *field == Field::EventType,
        Filter::Cel(_) => false,
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
        // It is not about the type alone.
        Filter::Cel(_) => true,
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
        Filter::Is(..) | Filter::Cel(_) => false,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Event, EventTypes, frame};

    /// Several at once are matched as each by itself is, whichever way is taken.
    #[test]
    fn a_batch_among_many_small_buckets_is_matched_as_one_after_the_other() {
        let types = EventTypes::default();
        let rule = |n: usize| {
            let filter = Filter::Is(Field::Key, Test::prefix([b"x/", b"y/", b"z/"][n % 3]));
            let rule = Rule::new(format!("r{n}"), ["s3:ObjectCreated:*"], &types).unwrap();
            rule.with_bucket(format!("b{}", n / 2)).with_filter(filter)
        };
        for (buckets, ahead) in [(2, false), (60, true)] {
            let matcher = Matcher::compile(&(0..buckets * 2).map(rule).collect::<Vec<_>>()).unwrap();
            assert_eq!((matcher.buckets.large, matcher.buckets.bytes >= NEAR_BYTES), (0, ahead));
            // Some of a bucket that has no rules, and several of one after the other.
            for len in [0, 1, BUCKET_AHEAD - 1, BUCKET_AHEAD, 100] {
                let frames: Vec<Vec<u8>> = (0..len)
                    .map(|n| {
                        let (bucket, key) =
                            (format!("b{}", n * 7 / 2 % (buckets + 3)), format!("{}/k", b"xyz"[n % 3] as char));
                        let event = Event::new(KnownType::ObjectCreatedPut.into(), &bucket, key.as_bytes());
                        frame::encode_to_vec(&event, 1)
                    })
                    .collect();
                let views: Vec<FrameView<'_>> = frames.iter().map(|f| FrameView::trusted(f)).collect();
                let (mut memory, mut met) = (MatchMemory::default(), vec![None; len]);
                matcher.matches_batch(&views, &mut memory, |i, rules| {
                    assert!(met[i].replace(rules.to_vec()).is_none(), "once");
                });
                for (view, met) in views.iter().zip(met) {
                    let mut alone = Vec::new();
                    matcher.matches(view, &mut memory, &mut alone);
                    assert_eq!(met, Some(alone));
                }
            }
        }
    }
}
