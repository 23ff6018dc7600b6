//! Makes matchers, one after the other, as rules come, change and go.
//!
//! A change costs the rules of its scope, not all rules; and of a scope with many rules it costs a few of them. Such a scope
//! is kept in layers (the logarithmic method of Bentley and Saxe, 1980): what comes goes into the first, small one, which is
//! compiled anew each time; what goes is noted beside the layer that has it. A layer that has grown too large is merged into
//! the next one, which is [`LAYER_GROWTH`] times as large. Merging takes longer than a change may wait for, so it is a work
//! of its own: [`Compiler::begin_merge`], [`Merge::compile`], which any thread may do while rules go on changing, and
//! [`Compiler::end_merge`].

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::num::NonZero;
use std::sync::Arc;

use foldhash::fast::RandomState;

use super::builder::{Builder, Source};
use super::matcher::{Buckets, Layers, Matcher, More, Prepared, prepare};
use super::region::long_list;
use super::scope::Scope;
use crate::driver::BlockedSignals;
use crate::error::Result;
use crate::rule::Rule;

/// The most rules of the layer that is compiled anew with each change; more are tolerated while a merge is under way.
pub const LAYER_RULES_MIN: usize = 128;
/// How much larger each layer may be than the one before.
pub const LAYER_GROWTH: usize = 16;
/// The most rules that may be noted as gone from a layer before it is compiled anew.
const GONE_MAX: usize = 4096;
/// A thread is worth its making for so many rules, and more threads than these find the memory busy.
const RULES_OF_A_THREAD: usize = 25_000;
const THREADS_MAX: usize = 4;

/// Where the rules are that a [`Compiler`] knows by their numbers.
pub trait Rules {
    /// The rule of a number.
    fn rule(&self, number: u32) -> Option<&Rule>;
}

impl Rules for [Rule] {
    fn rule(&self, number: u32) -> Option<&Rule> {
        self.get(number as usize)
    }
}

impl Rules for Vec<Rule> {
    fn rule(&self, number: u32) -> Option<&Rule> {
        self.get(number as usize)
    }
}

/// The rules of a scope: a bucket's, or with the empty name those of every bucket.
#[derive(Debug, Default)]
struct Layered {
    /// What came last.
    delta: Option<Layer>,
    /// From the smallest to the largest.
    layers: Vec<Layer>,
    merging: Option<Merging>,
}

/// The first so many of [`Layered::layers`] are being merged.
#[derive(Debug)]
struct Merging {
    layers: usize,
    /// What has gone out of them since that began.
    gone: BTreeSet<u32>,
}

#[derive(Debug)]
struct Layer {
    /// The rules that it was compiled from, in order.
    rules: Vec<u32>,
    /// Those of them that are there no more, or are in another layer now.
    gone: BTreeSet<u32>,
    scope: Scope,
}

impl Layer {
    fn new(rules: Vec<u32>, scope: Scope) -> Layer {
        Layer { rules, gone: BTreeSet::new(), scope }
    }

    fn live(&self) -> impl Iterator<Item = u32> {
        self.rules.iter().copied().filter(|r| !self.gone.contains(r))
    }

    fn live_count(&self) -> usize {
        self.rules.len() - self.gone.len()
    }

    fn has(&self, rule: u32) -> bool {
        self.rules.binary_search(&rule).is_ok() && !self.gone.contains(&rule)
    }

    fn gone_box(&self) -> Box<[u32]> {
        self.gone.iter().copied().collect()
    }
}

impl Layered {
    /// The rules that the next delta has, when these have gone out of it and those come.
    fn next_delta(&self, gone: &[u32], come: &[u32]) -> Vec<u32> {
        let small = self.small_layer().into_iter().flat_map(Layer::live);
        let own = self.delta.iter().flat_map(Layer::live).chain(small);
        let mut next: BTreeSet<u32> = own.filter(|r| !gone.contains(r)).collect();
        next.extend(come);
        next.into_iter().collect()
    }

    /// The only layer, if it is so small that it is compiled anew with each change.
    fn small_layer(&self) -> Option<&Layer> {
        match &self.layers[..] {
            [only] if self.merging.is_none() && only.rules.len() <= LAYER_RULES_MIN => Some(only),
            _ => None,
        }
    }

    fn change(&mut self, gone: &[u32], delta: Option<Layer>) {
        if self.small_layer().is_some() {
            self.layers.clear();
        }
        for rule in gone {
            if self.delta.as_ref().is_some_and(|d| d.has(*rule)) {
                continue;
            }
            if let Some(at) = self.layers.iter().position(|l| l.has(*rule)) {
                self.layers[at].gone.insert(*rule);
                if let Some(merging) = self.merging.as_mut().filter(|m| at < m.layers) {
                    merging.gone.insert(*rule);
                }
            }
        }
        self.delta = delta;
    }

    /// The layers as they are matched; `None` if there are no rules.
    fn published(&self) -> Option<Layers> {
        let mut all: Vec<&Layer> = self.delta.iter().chain(&self.layers).filter(|l| l.live_count() > 0).collect();
        let first = all.pop()?;
        let layers: Vec<_> = all.iter().map(|l| (l.scope.clone(), l.gone_box())).collect();
        let more = More { gone: first.gone_box(), layers };
        let more = (!more.gone.is_empty() || !more.layers.is_empty()).then(|| Arc::new(more));
        Some(Layers { first: first.scope.clone(), more })
    }

    /// How many layers are to be merged with the delta, if it is time for that.
    fn to_merge(&self) -> Option<usize> {
        if self.merging.is_some() {
            return None;
        }
        let mut total = self.delta.as_ref().map_or(0, Layer::live_count);
        // One that has lost much is compiled anew, and with it what is smaller.
        let worn = self.layers.iter().rposition(|l| l.gone.len() > GONE_MAX || l.gone.len() * 2 > l.rules.len());
        let worn = worn.map_or(0, |at| at + 1);
        if total < LAYER_RULES_MIN && worn == 0 {
            return None;
        }
        let mut count = 0;
        while let Some(layer) = self.layers.get(count)
            && (count < worn || layer.rules.len() <= total * LAYER_GROWTH)
        {
            total += layer.live_count();
            count += 1;
        }
        Some(count)
    }
}

/// See the module. The matcher that it made last is [`Compiler::matcher`].
#[derive(Debug)]
pub struct Compiler {
    builder: Builder,
    matcher: Matcher,
    scopes: HashMap<Box<str>, Layered, RandomState>,
    /// Those that have changed since it was looked whether they are to be merged: not all there are, which may be a million.
    changed: BTreeSet<Box<str>>,
}

/// A merge of layers of one scope: see [`Compiler::begin_merge`].
#[derive(Debug)]
#[must_use = "its scope has no other merge until this one is ended"]
pub struct Merge {
    name: Box<str>,
    rules: Vec<u32>,
}

/// What a merge has come to.
#[derive(Debug)]
#[must_use = "for `Compiler::end_merge`"]
pub struct Merged {
    name: Box<str>,
    layer: Option<Layer>,
}

/// What a merge has put something in the place of. To drop it may take long.
#[derive(Debug)]
#[must_use = "to be dropped where nobody waits for that"]
pub struct Replaced {
    #[expect(dead_code, reason = "kept to be dropped")]
    layers: Vec<Layer>,
}

impl Merge {
    /// Does the work. `rules` are those of the time when the merge was begun, or later ones.
    ///
    /// # Errors
    /// As [`Matcher::compile`]; the merge is to be ended with [`Compiler::abandon_merge`] then.
    pub fn compile(&self, rules: &(impl Rules + ?Sized)) -> Result<Merged> {
        let layer = build(&mut Builder::default(), &self.name, &self.rules, rules)?;
        Ok(Merged { name: self.name.clone(), layer })
    }
}

/// Compiles the rules of these numbers; `None` if there are none.
fn build(builder: &mut Builder, name: &str, numbers: &[u32], rules: &(impl Rules + ?Sized)) -> Result<Option<Layer>> {
    let found = numbers.iter().filter_map(|n| Some((*n, prepare(rules.rule(*n)?)?)));
    let prepared: Vec<(u32, Prepared<'_>)> = found.collect();
    if prepared.is_empty() {
        return Ok(None);
    }
    let sources: Vec<Source<'_>> =
        prepared.iter().map(|(rule, p)| Source { rule: *rule, events: &p.events, filter: &p.filter }).collect();
    let scope = builder.build(name, &sources)?;
    Ok(Some(Layer::new(sources.iter().map(|s| s.rule).collect(), scope)))
}

/// The names of the scopes that a rule is in.
fn scopes_of<'p, 'r>(p: &'p Prepared<'r>) -> &'p [&'r str] {
    p.buckets.as_deref().unwrap_or(&[""])
}

/// As [`Builder::build_all`], by several threads if the rules are many.
fn build_scopes(builder: &mut Builder, names: &[(&str, usize)], rules: &[Source<'_>]) -> Result<Vec<Scope>> {
    let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
    let shares = (rules.len() / RULES_OF_A_THREAD).clamp(1, processors.min(THREADS_MAX));
    build_shares(builder, names, rules, shares)
}

/// The same in so many shares.
fn build_shares(
    builder: &mut Builder,
    mut names: &[(&str, usize)],
    mut rules: &[Source<'_>],
    shares: usize,
) -> Result<Vec<Scope>> {
    let share = rules.len().div_ceil(shares.max(1)).max(1);
    // As many scopes as have so many rules together.
    let mut cut = || {
        let mut count = 0;
        let enough = |(_, of_scope): &(&str, usize)| {
            count += of_scope;
            count >= share
        };
        let scopes = names.iter().position(enough).map_or(names.len(), |last| last + 1);
        let count = names[..scopes].iter().map(|(_, of_scope)| of_scope).sum::<usize>();
        Some((names.split_off(..scopes)?, rules.split_off(..count)?)).filter(|(names, _)| !names.is_empty())
    };
    let Some((first_names, first_rules)) = cut() else { return Ok(Vec::new()) };
    std::thread::scope(|threads| {
        // They are not to run the handlers of the host.
        let mask = BlockedSignals::new();
        let others: Vec<_> = std::iter::from_fn(cut)
            .map(|(names, rules)| {
                let build = move || Builder::default().build_all(names, rules);
                let thread = std::thread::Builder::new().name("tidewire-rules".to_owned());
                // Where the system has no thread to give, it is done here, after the rest.
                (thread.spawn_scoped(threads, build), build)
            })
            .collect();
        drop(mask);
        let mut built = builder.build_all(first_names, first_rules)?;
        for (thread, build) in others {
            let scopes = match thread {
                Ok(thread) => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
                Err(_) => build(),
            };
            built.extend(scopes?);
        }
        Ok(built)
    })
}

impl Compiler {
    /// Compiles these rules; their numbers are their places.
    ///
    /// # Errors
    /// As [`Matcher::compile`].
    pub fn compile(rules: &[Rule]) -> Result<Compiler> {
        Compiler::compile_numbered(0..rules.len() as u32, rules)
    }

    /// Compiles the rules of these numbers, which ascend. Tens of thousands of rules are compiled by several threads, no more
    /// than the calling one has processors.
    ///
    /// # Errors
    /// As [`Matcher::compile`].
    pub fn compile_numbered(numbers: impl IntoIterator<Item = u32>, rules: &(impl Rules + ?Sized)) -> Result<Compiler> {
        let numbered = numbers.into_iter().filter_map(|n| Some((n, prepare(rules.rule(n)?)?)));
        let mut prepared: Vec<(u32, Prepared<'_>)> = long_list(numbered.size_hint().1.unwrap_or(0));
        prepared.extend(numbered);
        // Every bucket's first, then those of each bucket one behind the other: counted before they are put there.
        let mut names: Vec<(&str, usize)> = vec![("", 0)];
        let mut numbers: HashMap<&str, u32, RandomState> = HashMap::default();
        let mut scopes_of_rules: Vec<u32> = Vec::with_capacity(prepared.len());
        for (_, p) in &prepared {
            for name in scopes_of(p) {
                let scope = if name.is_empty() {
                    0
                } else {
                    *numbers.entry(name).or_insert_with(|| {
                        names.push((name, 0));
                        names.len() as u32 - 1
                    })
                };
                names[scope as usize].1 += 1;
                scopes_of_rules.push(scope);
            }
        }
        let mut ends: Vec<usize> = Vec::with_capacity(names.len());
        let mut total = 0;
        for (_, count) in &names {
            ends.push(total);
            total += count;
        }
        let mut sources: Vec<Option<Source<'_>>> = long_list(total);
        sources.resize(total, None);
        let mut scopes = scopes_of_rules.iter();
        for (rule, p) in &prepared {
            for scope in scopes.by_ref().take(scopes_of(p).len()) {
                let end = &mut ends[*scope as usize];
                sources[*end] = Some(Source { rule: *rule, events: &p.events, filter: &p.filter });
                *end += 1;
            }
        }
        let sources: Vec<Source<'_>> = sources.into_iter().flatten().collect();
        let mut builder = Builder::default();
        let built = build_scopes(&mut builder, &names, &sources)?;
        let mut rest = &sources[..];
        let layer_of = |((name, count), scope): (&(&str, usize), &Scope)| {
            let own = rest.split_off(..*count).unwrap_or_default();
            let layer = Layer::new(own.iter().map(|s| s.rule).collect(), scope.clone());
            ((*name).into(), Layered { layers: vec![layer], ..Layered::default() })
        };
        let scopes = names.iter().zip(&built).map(layer_of).collect();
        let mut all: Vec<Layers> = built.into_iter().map(Layers::of).collect();
        let any = all.swap_remove(0);
        let buckets = if all.is_empty() { Buckets::new() } else { Buckets::of(all) };
        Ok(Compiler { builder, matcher: Matcher { buckets, any }, scopes, changed: BTreeSet::new() })
    }

    /// The matcher of the rules as they are.
    pub fn matcher(&self) -> &Matcher {
        &self.matcher
    }

    pub(super) fn into_matcher(self) -> Matcher {
        self.matcher
    }

    /// Takes rules out and puts rules in: `before` are the rules that had these numbers until now, and `rules` knows those
    /// that have them from now on. All of it is in the next matcher, or with an error none.
    ///
    /// # Errors
    /// As [`Matcher::compile`].
    pub fn change(&mut self, before: &[(u32, &Rule)], now: &[u32], rules: &(impl Rules + ?Sized)) -> Result<()> {
        let mut changes: BTreeMap<&str, (Vec<u32>, Vec<u32>)> = BTreeMap::new();
        let prepared: Vec<_> = before.iter().map(|(number, rule)| (*number, prepare(rule))).collect();
        for (number, p) in prepared.iter().filter_map(|(n, p)| Some((*n, p.as_ref()?))) {
            for name in scopes_of(p) {
                changes.entry(name).or_default().0.push(number);
            }
        }
        let added: Vec<_> = now
            .iter()
            .filter_map(|n| Some((*n, rules.rule(*n)?)))
            .filter_map(|(n, r)| Some((n, prepare(r)?)))
            .collect();
        for (number, p) in &added {
            for name in scopes_of(p) {
                changes.entry(name).or_default().1.push(*number);
            }
        }
        // Everything is compiled before anything is changed.
        let mut compiled: Vec<(&str, Vec<u32>, Option<Layer>)> = Vec::new();
        for (name, (gone, come)) in changes {
            let none = Layered::default();
            let next = self.scopes.get(name).unwrap_or(&none).next_delta(&gone, &come);
            compiled.push((name, gone, build(&mut self.builder, name, &next, rules)?));
        }
        for (name, gone, delta) in compiled {
            self.scopes.entry(name.into()).or_default().change(&gone, delta);
            self.publish(name)?;
        }
        Ok(())
    }

    /// Puts what a scope has become into the matcher.
    fn publish(&mut self, name: &str) -> Result<()> {
        self.changed.insert(name.into());
        let layers = self.scopes.get(name).and_then(Layered::published);
        if name.is_empty() {
            self.matcher.any = match layers {
                Some(layers) => layers,
                None => Layers::of(self.builder.build("", &[])?),
            };
            return Ok(());
        }
        if layers.is_none() {
            self.scopes.remove(name);
        }
        self.matcher.buckets.set(name, layers);
        Ok(())
    }

    /// The next merge that is to be done, if any: of a scope whose newest layer has grown too large, or of which a layer has
    /// lost much. Until it is ended that scope has no other.
    pub fn begin_merge(&mut self) -> Option<Merge> {
        let (name, count) = loop {
            let name = self.changed.pop_first()?;
            if let Some(count) = self.scopes.get(&name).and_then(Layered::to_merge) {
                break (name, count);
            }
        };
        let layered = self.scopes.get_mut(&name)?;
        let delta = layered.delta.take();
        let layers = count + usize::from(delta.is_some());
        layered.layers.splice(0..0, delta);
        layered.merging = Some(Merging { layers, gone: BTreeSet::new() });
        let rules: BTreeSet<u32> = layered.layers[..layers].iter().flat_map(Layer::live).collect();
        Some(Merge { name, rules: rules.into_iter().collect() })
    }

    /// Puts the merged layer in the place of those it was made of, which are answered. What has changed meanwhile is in force
    /// all along.
    ///
    /// # Errors
    /// As [`Matcher::compile`].
    pub fn end_merge(&mut self, merged: Merged) -> Result<Replaced> {
        let none = || Ok(Replaced { layers: Vec::new() });
        let Some(layered) = self.scopes.get_mut(&merged.name) else { return none() };
        let Some(merging) = layered.merging.take() else { return none() };
        let mut layer = merged.layer;
        if let Some(layer) = &mut layer {
            layer.gone = merging.gone.into_iter().filter(|r| layer.rules.binary_search(r).is_ok()).collect();
        }
        let layers = layered.layers.splice(..merging.layers, layer.filter(|l| l.live_count() > 0)).collect();
        self.publish(&merged.name)?;
        Ok(Replaced { layers })
    }

    /// Leaves the layers of a merge that could not be done as they are. It is tried again when more has changed.
    pub fn abandon_merge(&mut self, merge: Merge) {
        if let Some(layered) = self.scopes.get_mut(&merge.name) {
            layered.merging = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::super::{Field, Filter, MatchMemory, Test};
    use super::*;
    use crate::event::{Event, EventTypes, FrameView, KnownType, frame};

    /// Rules by number, some of which are free.
    #[derive(Clone, Debug, Default)]
    struct Table(BTreeMap<u32, Rule>);

    impl Rules for Table {
        fn rule(&self, number: u32) -> Option<&Rule> {
            self.0.get(&number)
        }
    }

    /// A rule of some bucket, or of every one, or of two.
    fn rule(n: u32) -> Rule {
        let mut rule = Rule::new("r", ["s3:ObjectCreated:*"], &EventTypes::default()).unwrap();
        rule.bucket = [None, Some("a"), Some("b"), None][n as usize % 4].map(str::to_owned);
        let key = format!("{}/{}", n / 4 % 5, n % 7);
        rule.filter = match n % 3 {
            0 => Filter::new(format!("{}/", n / 4 % 5), ""),
            1 => Filter::Is(Field::Key, Test::equals(key)),
            _ => Filter::new("", format!("{}", n % 7)),
        };
        if n % 11 == 3 {
            let either = ["a", "b"].map(|b| Filter::Is(Field::Bucket, Test::equals(b)));
            rule.filter = Filter::all([Filter::any(either), rule.filter]);
        }
        rule
    }

    /// However many threads compile, the scopes are the same and in the same order.
    #[test]
    fn shares_are_one_whole() {
        let rules: Vec<Rule> = (0..200).map(rule).collect();
        let source =
            |(n, rule): (usize, &'static Rule)| Source { rule: n as u32, events: &rule.events, filter: &rule.filter };
        let sources: Vec<Source<'_>> = rules.leak().iter().enumerate().map(source).collect();
        for counts in [&[0, 3, 90, 1, 1, 40, 65][..], &[200], &[0], &[], &[199, 1], &[1; 200]] {
            let names: Vec<String> = (0..counts.len()).map(|n| n.to_string()).collect();
            let names: Vec<(&str, usize)> = names.iter().map(String::as_str).zip(counts.iter().copied()).collect();
            let rules = &sources[..counts.iter().sum()];
            let blocks = |scopes: Vec<Scope>| scopes.into_iter().map(|scope| scope.block).collect::<Vec<_>>();
            let whole = blocks(Builder::default().build_all(&names, rules).unwrap());
            assert_eq!(whole.len(), counts.len());
            for shares in 0..9 {
                assert_eq!(
                    blocks(build_shares(&mut Builder::default(), &names, rules, shares).unwrap()),
                    whole,
                    "{shares}"
                );
            }
        }
    }

    fn check(c: &Compiler, table: &Table) {
        let mut memory = MatchMemory::default();
        for bucket in ["a", "b", "c"] {
            for key in ["0/0", "3/6", "4/1", "x"] {
                let e = Event::new(KnownType::ObjectCreatedPut.into(), bucket, key.as_bytes());
                let bytes = frame::encode_to_vec(&e, 1);
                let view = FrameView::parse(&bytes).unwrap();
                let wants = |r: &Rule| r.bucket.as_deref().is_none_or(|b| b == bucket) && r.filter.matches_frame(view);
                let expected: Vec<u32> = table.0.iter().filter(|(_, r)| wants(r)).map(|(n, _)| *n).collect();
                let mut out = Vec::new();
                c.matcher().matches(&view, &mut memory, &mut out);
                assert_eq!(out, expected, "{bucket} {key}");
                assert!(expected.is_empty() || c.matcher().interested(bucket, KnownType::ObjectCreatedPut.into()));
            }
        }
    }

    fn change(c: &mut Compiler, table: &mut Table, puts: &[(u32, u32)], takes: &[u32]) {
        let mut next = table.clone();
        takes.iter().for_each(|n| drop(next.0.remove(n)));
        let puts: BTreeMap<u32, u32> = puts.iter().copied().filter(|(n, _)| !takes.contains(n)).collect();
        puts.iter().for_each(|(n, seed)| drop(next.0.insert(*n, rule(*seed))));
        let changed: BTreeSet<u32> = puts.keys().chain(takes).copied().collect();
        let before: Vec<(u32, &Rule)> = changed.iter().filter_map(|n| Some((*n, table.0.get(n)?))).collect();
        let now: Vec<u32> = puts.keys().copied().collect();
        c.change(&before, &now, &next).unwrap();
        *table = next;
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

        #[test]
        fn changes_are_the_same_as_beginning_anew(
            first in 0u32..700,
            steps in prop::collection::vec(
                (prop::collection::vec((0u32..900, any::<u32>()), 0..80), prop::collection::vec(0u32..900, 0..20), 0u8..4),
                1..25,
            ),
        ) {
            let rules: Vec<Rule> = (0..first).map(|n| rule(n * 7)).collect();
            let mut c = Compiler::compile(&rules).unwrap();
            let mut table = Table(rules.into_iter().enumerate().map(|(i, r)| (i as u32, r)).collect());
            let mut merge: Option<Merge> = None;
            for (puts, takes, then) in steps {
                change(&mut c, &mut table, &puts, &takes);
                check(&c, &table);
                match (then, merge.take()) {
                    (0, None) => merge = c.begin_merge(),
                    (1, Some(m)) => {
                        let merged = m.compile(&table).unwrap();
                        drop(c.end_merge(merged).unwrap());
                    }
                    (2, Some(m)) => c.abandon_merge(m),
                    (_, m) => merge = m,
                }
                check(&c, &table);
            }
            if let Some(m) = merge {
                let merged = m.compile(&table).unwrap();
                drop(c.end_merge(merged).unwrap());
            }
            while let Some(m) = c.begin_merge() {
                let merged = m.compile(&table).unwrap();
                drop(c.end_merge(merged).unwrap());
                check(&c, &table);
            }
            let all: Vec<u32> = table.0.keys().copied().collect();
            change(&mut c, &mut table, &[], &all);
            check(&c, &table);
            prop_assert!(c.scopes.keys().all(|name| name.is_empty()));
        }
    }

    #[test]
    fn a_matcher_in_use_does_not_change() {
        let rules = vec![rule(0), rule(1)];
        let mut c = Compiler::compile(&rules).unwrap();
        let before = c.matcher().clone();
        let mut table = Table(rules.into_iter().enumerate().map(|(i, r)| (i as u32, r)).collect());
        let old = table.clone();
        change(&mut c, &mut table, &[(5, 2)], &[0]);
        check(&c, &table);
        let after = std::mem::replace(&mut c.matcher, before);
        check(&c, &old);
        c.matcher = after;
        check(&c, &table);
    }

    #[test]
    fn every_scope_that_has_grown_is_merged_once() {
        let mut table = Table::default();
        let mut compiler = Compiler::compile_numbered([], &table).unwrap();
        // In two buckets in turn, and in a third one too few.
        let last = 2 * LAYER_RULES_MIN as u32;
        for n in 0..=last {
            let bucket = if n == last { "few" } else { ["a", "b"][n as usize % 2] };
            table.0.insert(n, Rule { bucket: Some(bucket.to_owned()), ..rule(n * 12 + 1) });
            compiler.change(&[], &[n], &table).unwrap();
        }
        let mut merged = Vec::new();
        while let Some(merge) = compiler.begin_merge() {
            merged.push(merge.name.clone());
            drop(compiler.end_merge(merge.compile(&table).unwrap()).unwrap());
        }
        assert_eq!(merged, [Box::from("a"), Box::from("b")]);
        // What changes while its scope is merged counts when that is done.
        let next = last + 1;
        for n in next..next + 2 * LAYER_RULES_MIN as u32 {
            table.0.insert(n, Rule { bucket: Some("a".to_owned()), ..rule(n * 12 + 1) });
        }
        let numbers: Vec<u32> = (next..next + 2 * LAYER_RULES_MIN as u32).collect();
        let (first, second) = numbers.split_at(LAYER_RULES_MIN);
        compiler.change(&[], first, &table).unwrap();
        let merge = compiler.begin_merge().expect("a merge");
        compiler.change(&[], second, &table).unwrap();
        assert!(compiler.begin_merge().is_none(), "it is being merged");
        drop(compiler.end_merge(merge.compile(&table).unwrap()).unwrap());
        assert!(compiler.begin_merge().is_some());
    }
}
