//! The index over all rules: which of them want an event.

use std::borrow::Cow;
use std::collections::HashMap;
use std::hash::BuildHasher;

use foldhash::fast::RandomState;

use super::bytes;
use super::expression::{Field, Filter, Test};
use super::scope::{Builder, MatchMemory, Met, Scope, Source};
use super::subject::{Kind, Subject, Value};
use crate::error::Result;
use crate::event::{EventPattern, EventType, FrameView, KnownType};
use crate::rule::Rule;

/// Finds the rules that want an event, without looking at the others.
///
/// Rules are kept per bucket, and those of every bucket apart; within each, see the module `scope`. Matching allocates
/// nothing once its [`MatchMemory`] has grown, never fails, and its cost grows with the length of the event and the number
/// of rules that are met, not with the number of rules.
#[derive(Clone, Debug)]
pub struct Matcher {
    /// By name, in a table of power-of-two size with linear probing.
    buckets: Box<[Option<(u64, Scope)>]>,
    hasher: RandomState,
    /// Rules of every bucket.
    any: Scope,
}

/// What a rule wants, in the form that is compiled: its scopes, and what constants and conditions on type and bucket leave
/// of its filter.
struct Prepared<'r> {
    /// The buckets; `None` is every bucket.
    buckets: Option<Vec<&'r str>>,
    events: Cow<'r, EventPattern>,
    filter: Cow<'r, Filter>,
}

impl Matcher {
    /// The index of these rules; a rule's number is its place in the slice.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidConfig`] if the rules take too much memory together. That each rule is valid by itself is
    /// not checked ([`crate::rule::RuleSet`]).
    pub fn compile(rules: &[Rule]) -> Result<Matcher> {
        let prepared: Vec<Option<Prepared<'_>>> = rules.iter().map(prepare).collect();
        let mut any: Vec<Source<'_>> = Vec::new();
        let mut scopes: HashMap<&str, Vec<Source<'_>>, RandomState> = HashMap::default();
        for (i, p) in prepared.iter().enumerate() {
            let Some(p) = p else { continue };
            let source = Source { rule: i as u32, events: &p.events, filter: &p.filter };
            match &p.buckets {
                None => any.push(source),
                Some(buckets) => buckets.iter().for_each(|b| scopes.entry(b).or_default().push(source)),
            }
        }
        let mut builder = Builder::default();
        let any = builder.build("", &any)?;
        let hasher = RandomState::default();
        let slots = (scopes.len() * 2).next_power_of_two();
        let mut buckets: Vec<Option<(u64, Scope)>> = vec![None; slots];
        for (name, sources) in &scopes {
            let hash = hasher.hash_one(name.as_bytes());
            let mut at = hash as usize & (slots - 1);
            while buckets[at].is_some() {
                at = (at + 1) & (slots - 1);
            }
            buckets[at] = Some((hash, builder.build(name, sources)?));
        }
        Ok(Matcher { buckets: buckets.into(), hasher, any })
    }

    #[inline]
    fn bucket(&self, name: &[u8]) -> Option<&Scope> {
        let hash = self.hasher.hash_one(name);
        let mask = self.buckets.len() - 1;
        let mut at = hash as usize & mask;
        loop {
            match &self.buckets[at] {
                Some((h, scope)) if *h == hash && bytes::equals(scope.name(), name) => return Some(scope),
                Some(_) => at = (at + 1) & mask,
                None => return None,
            }
        }
    }

    /// Whether any rule could want events of this type in this bucket. Never `false` for an event that
    /// [`Matcher::matches`] finds a rule for.
    #[inline]
    pub fn interested(&self, bucket: &str, t: EventType<'_>) -> bool {
        self.any.wants(t) || self.bucket(bucket.as_bytes()).is_some_and(|scope| scope.wants(t))
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

    #[inline]
    fn find(&self, frame: &FrameView<'_>, before: bool, memory: &mut MatchMemory, out: &mut Vec<u32>) {
        let t = frame.event_type();
        let (bucket, key) = frame.bucket_and_key();
        let bucket = self.bucket(bucket).filter(|scope| scope.wants(t));
        let any = self.any.wants(t).then_some(&self.any);
        if bucket.is_none() && any.is_none() {
            return;
        }
        let start = out.len();
        let MatchMemory { data, found, touched, places, checks } = memory;
        let mut subject = Subject::new(*frame, data);
        let mut met = Met { event_type: t, key, subject: &mut subject, found, touched, places, checks, before };
        let mut repeats = false;
        for scope in [bucket, any].into_iter().flatten() {
            scope.matches(&mut met, out);
            repeats |= scope.repeats();
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

    /// Bytes of memory that the index takes.
    pub fn bytes(&self) -> usize {
        let scopes = self.buckets.iter().flatten().map(|(_, s)| s.bytes()).sum::<usize>();
        scopes + self.any.bytes() + std::mem::size_of_val(&*self.buckets)
    }
}

/// The rule in the form that is compiled; `None` if it never wants anything.
fn prepare(rule: &Rule) -> Option<Prepared<'_>> {
    let filter = simplify(&rule.filter);
    if is_never(&filter) {
        return None;
    }
    let mut p =
        Prepared { buckets: rule.bucket.as_deref().map(|b| vec![b]), events: Cow::Borrowed(&rule.events), filter };
    // Conditions on the type narrow the set of types, and those on the bucket the scope.
    let has = |f: &Filter, wanted: &Field| matches!(f, Filter::Is(field, _) if field == wanted);
    let narrows = |f: &Filter| has(f, &Field::EventType) || bucket_names(f).is_some();
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
        if let Filter::Is(Field::EventType, test) = f {
            let events = p.events.to_mut();
            events.retain(|t| match t {
                EventType::Known(t) => test.passes(Kind::EventType, Value::Text(KnownType::name(t).as_bytes())),
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
