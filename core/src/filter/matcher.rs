//! The index over all rules: which of them want an event.

use std::collections::{BTreeSet, HashMap};

use foldhash::fast::RandomState;

use super::trie::Trie;
use crate::event::{EventPattern, EventType};
use crate::rule::Rule;

/// Finds the rules that want an event, without looking at the others.
///
/// Rules are kept per bucket, and those of every bucket apart. Within each, a rule is filed under its prefix or its
/// suffix, whichever fewer rules share, and the other is checked when the walk over the key meets it. The cost is that
/// of the walk plus the rules met, whatever the number of rules.
#[derive(Clone, Debug)]
pub struct Matcher {
    buckets: HashMap<Box<str>, Bucket, RandomState>,
    /// Rules of every bucket.
    any: Table,
    /// What the rules of every bucket want: the answer for a bucket without rules of its own.
    any_wants: Wants,
    /// The distinct event patterns.
    patterns: Vec<EventPattern>,
    /// The conditions that are checked when a rule is met, back to back.
    others: Vec<u8>,
}

#[derive(Clone, Debug)]
struct Bucket {
    /// What the rules of this bucket and those of every bucket want.
    wants: Wants,
    table: Table,
}

#[derive(Clone, Debug)]
struct Table {
    by_prefix: Trie<Entry, false>,
    by_suffix: Trie<Entry, true>,
}

/// A rule where the walk meets it.
#[derive(Clone, Copy, Debug)]
struct Entry {
    rule: u32,
    pattern: u32,
    /// The other condition: where it lies in `others`. Suffixes for entries of `by_prefix`, prefixes for `by_suffix`.
    other_start: u32,
    other_len: u32,
}

/// A set of event types made for one question, asked on the host's thread.
#[derive(Clone, Debug, Default)]
struct Wants {
    known: [u64; 4],
    /// The host's own names, sorted.
    names: Box<[Box<str>]>,
    /// What the host's own names start with.
    stems: Box<[Box<str>]>,
}

impl Wants {
    fn of<'a>(patterns: impl Iterator<Item = &'a EventPattern>) -> Wants {
        let mut known = [0u64; 4];
        let (mut names, mut stems) = (BTreeSet::new(), BTreeSet::new());
        for p in patterns {
            for t in p.known() {
                known[t as usize / 64] |= 1 << (t as usize % 64);
            }
            for c in p.custom() {
                match c.strip_suffix('*') {
                    Some(stem) => stems.insert(Box::from(stem)),
                    None => names.insert(Box::from(c)),
                };
            }
        }
        Wants { known, names: names.into_iter().collect(), stems: stems.into_iter().collect() }
    }

    #[inline]
    fn has(&self, t: EventType<'_>) -> bool {
        match t {
            EventType::Known(t) => self.known[t as usize / 64] & (1 << (t as usize % 64)) != 0,
            EventType::Custom(name) => {
                self.names.binary_search_by(|n| (**n).cmp(name)).is_ok()
                    || self.stems.iter().any(|s| name.starts_with(&**s))
            }
        }
    }
}

impl Matcher {
    /// The index of these rules; a rule's number is its place in the slice.
    ///
    /// The rules should have been validated ([`crate::rule::RuleSet`]); of rules that were not, some may never match.
    pub fn compile(rules: &[Rule]) -> Matcher {
        let mut patterns = Vec::new();
        let mut others = Vec::new();
        let mut pattern_numbers = HashMap::new();
        let mut numbers = Vec::with_capacity(rules.len());
        for rule in rules {
            let identity: (Vec<u16>, Vec<String>) =
                (rule.events.known().map(|t| t as u16).collect(), rule.events.custom().map(str::to_owned).collect());
            numbers.push(*pattern_numbers.entry(identity).or_insert_with(|| {
                patterns.push(rule.events.clone());
                patterns.len() as u32 - 1
            }));
        }

        let mut any_rules = Vec::new();
        let mut bucket_rules: HashMap<&str, Vec<u32>> = HashMap::new();
        for (i, rule) in rules.iter().enumerate() {
            match &rule.bucket {
                None => any_rules.push(i as u32),
                Some(bucket) => bucket_rules.entry(bucket).or_default().push(i as u32),
            }
        }
        let wants = |own: &[u32]| {
            let used: BTreeSet<u32> = own.iter().chain(&any_rules).map(|&i| numbers[i as usize]).collect();
            Wants::of(used.iter().map(|&n| &patterns[n as usize]))
        };
        let any = Table::build(rules, &numbers, &any_rules, &mut others);
        let buckets = bucket_rules
            .iter()
            .map(|(name, own)| {
                let table = Table::build(rules, &numbers, own, &mut others);
                (Box::from(*name), Bucket { wants: wants(own), table })
            })
            .collect();
        Matcher { buckets, any, any_wants: wants(&[]), patterns, others }
    }

    /// Whether any rule could want events of this type in this bucket. Never `false` for an event that
    /// [`Matcher::matches`] finds a rule for.
    #[inline]
    pub fn interested(&self, bucket: &str, t: EventType<'_>) -> bool {
        match self.buckets.get(bucket) {
            Some(b) => b.wants.has(t),
            None => self.any_wants.has(t),
        }
    }

    /// Appends the numbers of the rules that want this event to `out`, ascending, each once.
    #[inline]
    pub fn matches(&self, bucket: &str, t: EventType<'_>, key: &[u8], out: &mut Vec<u32>) {
        let before = out.len();
        if let Some(b) = self.buckets.get(bucket) {
            if !b.wants.has(t) {
                return;
            }
            self.walk(&b.table, t, key, out);
        } else if !self.any_wants.has(t) {
            return;
        }
        self.walk(&self.any, t, key, out);
        if out.len() - before > 1 {
            out[before..].sort_unstable();
        }
    }

    #[inline]
    fn walk(&self, table: &Table, t: EventType<'_>, key: &[u8], out: &mut Vec<u32>) {
        let other = |e: &Entry| &self.others[e.other_start as usize..][..e.other_len as usize];
        if !table.by_prefix.is_empty() {
            table.by_prefix.walk(key, |e| {
                if self.patterns[e.pattern as usize].contains(t) && key.ends_with(other(e)) {
                    out.push(e.rule);
                }
            });
        }
        if !table.by_suffix.is_empty() {
            table.by_suffix.walk(key, |e| {
                if self.patterns[e.pattern as usize].contains(t) && key.starts_with(other(e)) {
                    out.push(e.rule);
                }
            });
        }
    }
}

impl Table {
    fn build(rules: &[Rule], pattern_numbers: &[u32], own: &[u32], others: &mut Vec<u8>) -> Table {
        let mut prefix_uses: HashMap<&[u8], u32> = HashMap::new();
        let mut suffix_uses: HashMap<&[u8], u32> = HashMap::new();
        for &i in own {
            let f = &rules[i as usize].filter;
            *prefix_uses.entry(&f.prefix).or_default() += 1;
            *suffix_uses.entry(&f.suffix).or_default() += 1;
        }
        let (mut by_prefix, mut by_suffix) = (Vec::new(), Vec::new());
        for &i in own {
            let f = &rules[i as usize].filter;
            let (p, s) = (f.prefix.as_slice(), f.suffix.as_slice());
            // Fewer sharers first, then the longer one: that is met by fewer keys. An empty one is met by all.
            let rank = |v: &[u8], uses: u32| (v.is_empty(), uses, usize::MAX - v.len());
            let prefix_first = rank(p, prefix_uses[p]) <= rank(s, suffix_uses[s]);
            let other = if prefix_first { s } else { p };
            let entry = Entry {
                rule: i,
                pattern: pattern_numbers[i as usize],
                other_start: others.len() as u32,
                other_len: other.len() as u32,
            };
            others.extend_from_slice(other);
            if prefix_first { by_prefix.push((p, entry)) } else { by_suffix.push((s, entry)) }
        }
        Table { by_prefix: Trie::build(by_prefix), by_suffix: Trie::build(by_suffix) }
    }
}

#[cfg(test)]
impl Matcher {
    pub(super) fn pattern_count(&self) -> usize {
        self.patterns.len()
    }

    pub(super) fn filed_by_prefix(&self, bucket: &str) -> usize {
        self.buckets[bucket].table.by_prefix.len()
    }
}
