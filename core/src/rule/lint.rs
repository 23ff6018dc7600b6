//! What is suspicious about rules that are valid.

use std::collections::HashMap;
use std::fmt;

use super::Rule;
use crate::event::{EventPattern, EventType, KnownType};
use crate::filter::{Field, Filter, Test, Wildcard};

/// The most pairs that are told of for one destination in one bucket.
const PAIRS_MAX: usize = 100;
/// The most pairs of rules that are compared, a second's work or so.
const COMPARISONS_MAX: usize = 1_000_000;

/// Something that was found about rules. Displayed, it is a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// What kind of thing.
    pub kind: FindingKind,
    /// The places in the list of the rules that it is about: one, or the earlier and the later of two. None if it is about
    /// the search itself.
    pub rules: Vec<usize>,
    /// The sentence. The wording is not stable.
    pub message: String,
}

/// What [`lint`] finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FindingKind {
    /// No event passes the rule.
    Never,
    /// The rule has conditions, and each event of its types passes.
    Always,
    /// Two rules of a bucket have the same types and the same filter, and tell the same destination.
    Same,
    /// An event may pass two rules of a bucket that tell the same destination; it is told once.
    Overlap,
    /// There may be more of the same, which was not looked for or is not told.
    Unfinished,
}

impl FindingKind {
    /// The name: `never`, `always`, `same`, `overlap` or `unfinished`.
    pub fn name(self) -> &'static str {
        match self {
            FindingKind::Never => "never",
            FindingKind::Always => "always",
            FindingKind::Same => "same",
            FindingKind::Overlap => "overlap",
            FindingKind::Unfinished => "unfinished",
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// Looks for rules that never want an event, whose conditions always hold, that say the same, or that may want the same
/// event: as far as that is plain from the rules, so that what is not found may still be there.
///
/// Only rules of one bucket (or of every bucket) that tell the same destination are compared, and of those only such whose
/// keys may begin alike. After a million comparisons no more are made, and of one destination in one bucket no more than a
/// hundred pairs are told; a finding of the kind [`FindingKind::Unfinished`] says so.
pub fn lint(rules: &[Rule]) -> Vec<Finding> {
    search(rules, COMPARISONS_MAX)
}

fn search(rules: &[Rule], comparisons_max: usize) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (i, rule) in rules.iter().enumerate() {
        let id = &rule.id;
        let found = match rule.filter.verdict() {
            Some(false) => (FindingKind::Never, "never wants an event: its conditions exclude each other"),
            Some(true) if rule.filter.is_empty() => continue,
            Some(true) => (FindingKind::Always, "has conditions that hold for every event"),
            None if takes_none_of_its_types(rule) => {
                (FindingKind::Never, "never wants an event: its filter takes none of its event types")
            }
            None => continue,
        };
        findings.push(Finding { kind: found.0, rules: vec![i], message: format!("rule `{id}` {}", found.1) });
    }
    // Only rules that tell the same destination of the same bucket come in each other's way.
    let mut numbers: HashMap<(Option<&str>, &str), usize> = HashMap::new();
    let mut groups: Vec<(&str, Vec<usize>)> = Vec::new();
    for (i, rule) in rules.iter().enumerate() {
        for destination in &rule.destinations {
            let number = *numbers.entry((rule.bucket.as_deref(), destination)).or_insert_with(|| {
                groups.push((destination, Vec::new()));
                groups.len() - 1
            });
            groups[number].1.push(i);
        }
    }
    let mut left = comparisons_max;
    for (destination, members) in groups {
        pairs(rules, destination, &members, &mut left, &mut findings);
    }
    if left == 0 {
        // All of them, perhaps; then there is nothing more to find.
        let message = format!("no more than {comparisons_max} pairs of rules were compared; there may be more to find");
        findings.push(Finding { kind: FindingKind::Unfinished, rules: Vec::new(), message });
    }
    findings
}

fn takes_none_of_its_types(rule: &Rule) -> bool {
    rule.events.custom().next().is_none() && !rule.events.known().any(|t| may_have_type(&rule.filter, t))
}

/// Whether an event of this type may pass, by what the filter says of types alone.
fn may_have_type(filter: &Filter, t: KnownType) -> bool {
    !filter.excludes(&Filter::Is(Field::EventType, Test::equals(t.name())))
}

/// Finds the pairs among rules that tell one destination of one bucket. `left` is how many may still be compared.
fn pairs(rules: &[Rule], destination: &str, members: &[usize], left: &mut usize, findings: &mut Vec<Finding>) {
    let mut found = Vec::new();
    // Of rules that say the same, the first. What changes in a filter is the working memory of regular expressions, which is
    // neither hashed nor compared.
    #[allow(clippy::mutable_key_type)]
    let mut first: HashMap<(&Filter, &EventPattern), usize> = HashMap::new();
    let mut distinct: Vec<(&[u8], usize)> = Vec::new();
    for &i in members {
        let rule = &rules[i];
        let other = *first.entry((&rule.filter, &rule.events)).or_insert(i);
        if other == i {
            distinct.push((beginning(&rule.filter), i));
            continue;
        }
        let message = format!("rules `{}` and `{}` say the same to `{destination}`", rules[other].id, rule.id);
        found.push(Finding { kind: FindingKind::Same, rules: vec![other, i], message });
    }
    // In order of what their keys begin with, those that may begin as a key of this one stand before it, one within the other.
    distinct.sort_unstable();
    let mut open: Vec<(&[u8], usize)> = Vec::new();
    'all: for (start, i) in distinct {
        while open.last().is_some_and(|(outer, _)| !start.starts_with(outer)) {
            open.pop();
        }
        for &(_, other) in &open {
            if *left == 0 || found.len() > PAIRS_MAX {
                break 'all;
            }
            *left -= 1;
            found.extend(overlap(rules, destination, other.min(i), other.max(i)));
        }
        open.push((start, i));
    }
    found.sort_by_key(|f| (f.rules[1], f.rules[0]));
    let more = found.len() > PAIRS_MAX;
    found.truncate(PAIRS_MAX);
    findings.append(&mut found);
    if more {
        let message = format!("more pairs of rules overlap for `{destination}`");
        findings.push(Finding { kind: FindingKind::Unfinished, rules: Vec::new(), message });
    }
}

fn overlap(rules: &[Rule], destination: &str, earlier: usize, later: usize) -> Option<Finding> {
    let (a, b) = (&rules[earlier], &rules[later]);
    let shared = b.events.known().find(|t| a.events.contains(EventType::Known(*t)))?;
    if a.filter.excludes(&b.filter) {
        return None;
    }
    let (a, b, shared) = (&a.id, &b.id, shared.name());
    let message = format!("rules `{a}` and `{b}` may both want an event for `{destination}`, such as one of {shared}");
    Some(Finding { kind: FindingKind::Overlap, rules: vec![earlier, later], message })
}

/// What each key begins with that passes; empty if nothing is known.
fn beginning(filter: &Filter) -> &[u8] {
    match filter {
        Filter::All(list) => list.iter().map(beginning).max_by_key(|x| x.len()).unwrap_or_default(),
        Filter::Any(list) => {
            let common = |a: &'_ [u8], b: &[u8]| a.iter().zip(b).take_while(|(x, y)| x == y).count();
            let mut all = list.iter().map(beginning);
            let Some(first) = all.next() else { return &[] };
            &first[..all.fold(first.len(), |len, x| common(&first[..len], x))]
        }
        Filter::Is(Field::Key, Test::Equals(x) | Test::Prefix(x)) => x,
        Filter::Is(Field::Key, Test::Wildcard(w)) => literal_beginning(w),
        _ => &[],
    }
}

/// What stands before the first special character of a wildcard.
fn literal_beginning(w: &Wildcard) -> &[u8] {
    let pattern = w.pattern();
    &pattern[..pattern.iter().position(|b| matches!(b, b'*' | b'?' | b'\\')).unwrap_or(pattern.len())]
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::event::EventTypes;
    use crate::filter::NamedFilters;

    fn rule(id: impl Into<String>, filter: Value) -> Rule {
        let mut rule = Rule::new(id, ["s3:ObjectCreated:*"], &EventTypes::default()).unwrap();
        rule.filter = Filter::from_json(&filter, &NamedFilters::new()).unwrap();
        rule.with_destination("x")
    }

    fn kinds(rules: &[Rule]) -> Vec<(FindingKind, Vec<usize>)> {
        lint(rules).into_iter().map(|f| (f.kind, f.rules)).collect()
    }

    #[test]
    fn rules_by_themselves() {
        use FindingKind::{Always, Never};
        let one = |filter| kinds(&[rule("a", filter)]);
        assert_eq!(one(json!({"prefix": "a/", "exact": "b"})), [(Never, vec![0])]);
        assert_eq!(one(json!({"event_type": "s3:ObjectRemoved:*"})), [(Never, vec![0])]);
        assert_eq!(one(json!({"event_type": "*"})), [(Always, vec![0])]);
        for good in [json!({}), json!({"prefix": "a"}), json!({"event_type": "s3:ObjectCreated:Put"})] {
            assert_eq!(one(good), []);
        }
        assert!(lint(&[]).is_empty());
    }

    #[test]
    fn rules_that_come_in_each_others_way() {
        use FindingKind::{Overlap, Same};
        let set = |filters: &[Value]| -> Vec<Rule> {
            filters.iter().enumerate().map(|(i, f)| rule(i.to_string(), f.clone())).collect()
        };
        let mut rules = set(&[json!({"suffix": "x"}), json!({"prefix": "a"}), json!({"suffix": "x"})]);
        assert_eq!(kinds(&rules), [(Overlap, vec![0, 1]), (Same, vec![0, 2])]);
        rules[2].bucket = Some("other".to_owned());
        rules[1].destinations = vec!["y".to_owned()];
        assert_eq!(kinds(&rules), []);
        // However the beginning of the key is said.
        let rules = set(&[
            json!({"prefix": "a/b"}),
            json!({"wildcard": "a/b*c"}),
            json!({"prefix": ["a/bx", "a/by"], "size": 1}),
            json!({"exact": "b"}),
            json!({"prefix": "a/c"}),
        ]);
        assert_eq!(kinds(&rules), [(Overlap, vec![0, 1]), (Overlap, vec![0, 2]), (Overlap, vec![1, 2])]);
        let said = lint(&rules)[0].to_string();
        assert!(said.starts_with("rules `0` and `1` may both want an event for `x`, such as one of s3:ObjectCreated:"));
        let mut apart = set(&[json!({}), json!({})]);
        apart[1].events = Rule::new("r", ["s3:ObjectRemoved:*"], &EventTypes::default()).unwrap().events;
        assert_eq!(kinds(&apart), []);
    }

    #[test]
    fn every_pair_is_found_that_comparing_all_finds() {
        let parts = ["", "a", "ab", "abc", "b", "a/", "ab/"];
        let mut rules = Vec::new();
        for (i, start) in parts.iter().enumerate() {
            for end in ["", ".x", ".y"] {
                rules.push(rule(format!("{i}{end}"), json!({"prefix": start, "suffix": end})));
            }
        }
        let mut expected = Vec::new();
        for later in 0..rules.len() {
            expected.extend((0..later).filter_map(|earlier| overlap(&rules, "x", earlier, later)));
        }
        assert_eq!(lint(&rules).len().min(PAIRS_MAX), expected.len().min(PAIRS_MAX));
        assert!(expected.len() > 50, "{}", expected.len());
        if expected.len() <= PAIRS_MAX {
            assert_eq!(lint(&rules), expected);
        }
    }

    #[test]
    fn many_rules_are_not_compared_each_with_each() {
        let many: Vec<Rule> = (0..20_000).map(|n| rule(n.to_string(), json!({"prefix": format!("{n}/")}))).collect();
        assert!(lint(&many).is_empty(), "two hundred million pairs would take minutes, and more than may be compared");
        let mut same = vec![many[0].clone(); 200];
        same.iter_mut().enumerate().for_each(|(i, r)| r.id = i.to_string());
        let found = lint(&same);
        assert_eq!(found.len(), PAIRS_MAX + 1);
        assert_eq!(found[PAIRS_MAX].kind, FindingKind::Unfinished);
        assert!(found[PAIRS_MAX].to_string().contains("more pairs"));
    }

    #[test]
    fn the_search_says_where_it_ends() {
        let apart: Vec<Rule> =
            (0..100u32).map(|n| rule(n.to_string(), json!({"suffix": format!(".{n:04}")}))).collect();
        assert!(search(&apart, 4951).is_empty());
        let found = search(&apart, 4949);
        assert_eq!((found.len(), found[0].kind), (1, FindingKind::Unfinished));
        assert!(found[0].rules.is_empty() && found[0].message.contains("4949 pairs"), "{}", found[0]);
    }
}
