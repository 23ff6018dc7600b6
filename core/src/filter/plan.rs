//! What filters are compiled to, told to people: how an event comes to them, and what is checked then.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::fmt;

use serde_json::{Value, json};
use smallvec::smallvec;

use super::access::{self, Access, Ways};
use super::builder::{Builder, conjuncts, left_to_check};
use super::expression::{Field, Filter, Test};
use super::matcher::{Matcher, Prepared, is_of_types, prepare};
use super::pattern::Regex;
use super::program::{self, Next, Step};
use super::subject::Kind;
use crate::error::Result;
use crate::rule::Rule;

/// What a filter is compiled to. Displayed, it is some lines of text.
///
/// A filter is filed under one condition that the index looks up (its access predicate); the rest of it is checked where
/// that condition is met. One that has no such condition is tried on each event of its buckets.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Plan {
    /// The buckets whose events are looked at; `None` is every bucket.
    pub buckets: Option<Vec<String>>,
    /// Conditions on the type: they narrow the set of types, which is looked at first and costs nothing more.
    pub types: Vec<Filter>,
    /// Where the filter is filed. Of several places, an event that passes comes to at least one. None if no event passes.
    pub filings: Vec<Filing>,
    /// What it costs.
    pub cost: Cost,
    /// Why it is not filed under a condition: a sentence for each of its conditions. Empty if it is.
    pub reasons: Vec<String>,
    /// How many regular expressions it has.
    pub regexes: usize,
    /// The memory that these take compiled, in bytes.
    pub regex_bytes: usize,
}

/// One place that a filter is filed in.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Filing {
    /// The condition that an event comes here by: a field and a test of it that is [`Test::Equals`], [`Test::Prefix`],
    /// [`Test::Suffix`] or [`Test::Contains`]. `None`: each event comes here.
    pub predicate: Option<(Field, Test)>,
    /// What is left to check here, step by step, from the first one. Empty: nothing, an event that comes here passes.
    pub program: Vec<Step>,
}

/// What a filter costs where many others are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Cost {
    /// Nothing: no event passes, and it is not in the index.
    Never,
    /// It is looked up: only events that meet the condition it is filed under cost more, whatever the number of filters.
    Indexed,
    /// Nothing but the type is looked at: each event of its buckets with such a type passes.
    Free,
    /// Each event of its buckets costs some comparisons, about ten nanoseconds each.
    Compare,
    /// For each event of its buckets a text, pairs or the data are looked through, about a hundred nanoseconds each time,
    /// for regular expressions and data some hundreds; or an expression is evaluated, which takes microseconds.
    Scan,
}

impl Cost {
    /// The name: `never`, `indexed`, `free`, `compare` or `scan`.
    pub fn name(self) -> &'static str {
        match self {
            Cost::Never => "never",
            Cost::Indexed => "indexed",
            Cost::Free => "free",
            Cost::Compare => "compare",
            Cost::Scan => "scan",
        }
    }

    /// Whether each event of its buckets is tried.
    pub fn is_unindexed(self) -> bool {
        matches!(self, Cost::Compare | Cost::Scan)
    }
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Cost::Never => "never: no event passes",
            Cost::Indexed => "indexed: only events that meet what it is filed under cost more",
            Cost::Free => "free: each event of its types passes, nothing is looked at",
            Cost::Compare => "compare: each event costs some comparisons",
            Cost::Scan => "scan: each event is looked through",
        })
    }
}

/// What rules are compiled to together: see [`plan`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Plans {
    /// Of each rule.
    pub rules: Vec<Plan>,
    /// What they come to.
    pub totals: Totals,
}

/// What the index of some rules comes to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Totals {
    /// Rules.
    pub rules: usize,
    /// Buckets that rules name, and one more if there are rules of every bucket.
    pub scopes: usize,
    /// The memory of the index, in bytes, compiled regular expressions among it.
    pub bytes: usize,
    /// Rules that no event passes.
    pub never: usize,
    /// Rules that each event of their types passes.
    pub free: usize,
    /// Rules that each event is tried on ([`Cost::is_unindexed`]).
    pub unindexed: usize,
    /// Regular expressions.
    pub regexes: usize,
    /// The memory that these take compiled, in bytes.
    pub regex_bytes: usize,
}

/// What these rules are compiled to together. Which of its conditions a rule is filed under depends on how many others have
/// the same; of a rule in several buckets it is that of the first, by name.
///
/// # Errors
/// As [`Matcher::compile`], which is called to tell the memory.
pub fn plan(rules: &[Rule]) -> Result<Plans> {
    let prepared: Vec<Option<Prepared<'_>>> = rules.iter().map(prepare).collect();
    let mut scopes: BTreeMap<&str, Vec<(usize, &Filter)>> = BTreeMap::new();
    for (i, p) in prepared.iter().enumerate() {
        let Some(p) = p else { continue };
        let names = p.buckets.clone().unwrap_or_else(|| smallvec![""]);
        names.into_iter().for_each(|name| scopes.entry(name).or_default().push((i, &*p.filter)));
    }
    let mut plans: Vec<Option<Plan>> = vec![None; rules.len()];
    let mut builder = Builder::default();
    for members in scopes.values() {
        let chosen = builder.choose(members.iter().map(|(_, filter)| *filter));
        for (at, (i, _)) in members.iter().enumerate() {
            if plans[*i].is_none() {
                plans[*i] = Some(Plan::of(&rules[*i].filter, prepared[*i].as_ref(), chosen.way(at)));
            }
        }
    }
    let plans =
        plans.into_iter().zip(rules).map(|(plan, rule)| plan.unwrap_or_else(|| Plan::of(&rule.filter, None, None)));
    let plans: Vec<Plan> = plans.collect();
    let count = |is: &dyn Fn(Cost) -> bool| plans.iter().filter(|p| is(p.cost)).count();
    let totals = Totals {
        rules: rules.len(),
        scopes: scopes.len(),
        bytes: Matcher::compile(rules)?.bytes(),
        never: count(&|c| c == Cost::Never),
        free: count(&|c| c == Cost::Free),
        unindexed: count(&Cost::is_unindexed),
        regexes: plans.iter().map(|p| p.regexes).sum(),
        regex_bytes: plans.iter().map(|p| p.regex_bytes).sum(),
    };
    Ok(Plans { rules: plans, totals })
}

impl Filter {
    /// What it is compiled to by itself, in every bucket. Among other rules it may be filed under another of its conditions:
    /// see [`plan`].
    pub fn plan(&self) -> Plan {
        let rule = Rule { filter: self.clone(), ..Rule::default() };
        let prepared = prepare(&rule);
        let filters = prepared.iter().map(|p| &*p.filter).collect::<Vec<_>>();
        let mut builder = Builder::default();
        let chosen = builder.choose(filters.into_iter());
        let way = prepared.as_ref().and_then(|_| chosen.way(0));
        Plan::of(self, prepared.as_ref(), way)
    }

    /// Every regular expression, those within other tests too.
    pub(super) fn each_regex<'a>(&'a self, each: &mut impl FnMut(&'a Regex)) {
        self.each_test(&mut |_, test| match test {
            Test::Regex(r) => each(r),
            Test::NoneOf(tests) => tests.iter().for_each(|t| {
                if let Test::Regex(r) = t {
                    each(r);
                }
            }),
            _ => {}
        });
    }
}

impl Plan {
    /// The plan of a filter: in the form that is compiled, filed under `way`.
    fn of(filter: &Filter, prepared: Option<&Prepared<'_>>, way: Option<&[Access<'_>]>) -> Plan {
        let mut seen = HashSet::new();
        let (mut regexes, mut regex_bytes) = (0, 0);
        filter.each_regex(&mut |r| {
            regexes += 1;
            if seen.insert(r.address()) {
                regex_bytes += r.bytes();
            }
        });
        let mut plan = Plan {
            buckets: None,
            types: Vec::new(),
            filings: Vec::new(),
            cost: Cost::Never,
            reasons: Vec::new(),
            regexes,
            regex_bytes,
        };
        let Some(prepared) = prepared else { return plan };
        plan.buckets = prepared.buckets.as_ref().map(|all| all.iter().map(|b| (*b).to_owned()).collect());
        let (mut whole, mut left) = (Vec::new(), Vec::new());
        conjuncts(filter, &mut whole);
        conjuncts(&prepared.filter, &mut left);
        plan.types = whole.into_iter().filter(|f| is_of_types(f) && !left.contains(f)).cloned().collect();
        let Some(way) = way else {
            let anything = Access::Prefix(Cow::Borrowed(&[]));
            let (_, left) = left_to_check(&prepared.filter, &anything);
            plan.cost = cost_of(&left);
            if plan.cost != Cost::Free {
                plan.reasons = left.iter().map(|f| why_not(f)).collect();
            }
            plan.filings.push(Filing { predicate: None, program: program::listing(&left) });
            return plan;
        };
        plan.cost = Cost::Indexed;
        for access in way {
            let (_, left) = left_to_check(&prepared.filter, access);
            plan.filings.push(Filing { predicate: Some(predicate(access)), program: program::listing(&left) });
        }
        plan
    }

    /// The same as JSON, conditions in the native form.
    pub fn to_json(&self) -> Value {
        let next = |next: Next| match next {
            Next::Accept => json!("accept"),
            Next::Reject => json!("reject"),
            Next::Step(n) => json!(n),
        };
        let step = |s: &Step| json!({"condition": s.condition.to_json(), "then": next(s.then), "otherwise": next(s.otherwise)});
        let filing = |f: &Filing| {
            let predicate = f.predicate.clone().map(|p| Filter::from(p).to_json());
            json!({"predicate": predicate, "program": f.program.iter().map(step).collect::<Vec<_>>()})
        };
        json!({
            "buckets": self.buckets,
            "types": self.types.iter().map(Filter::to_json).collect::<Vec<_>>(),
            "filings": self.filings.iter().map(filing).collect::<Vec<_>>(),
            "cost": self.cost.name(),
            "reasons": self.reasons,
            "regexes": self.regexes,
            "regex_bytes": self.regex_bytes,
        })
    }
}

/// What is left to check of filters that each event is tried on.
fn cost_of(left: &[&Filter]) -> Cost {
    match left.iter().map(|f| tests(f)).fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1)) {
        (0, 0) => Cost::Free,
        (_, 0) => Cost::Compare,
        _ => Cost::Scan,
    }
}

/// An expression that is evaluated counts as so many tests that look through something.
const SCANS_PER_CEL: usize = 16;

/// How many of its tests only compare, and how many look through something.
fn tests(filter: &Filter) -> (usize, usize) {
    let (mut compare, mut scan) = (0, 0);
    filter.each_test(&mut |field, test| {
        let each = match test {
            Test::NoneOf(tests) => tests,
            test => std::slice::from_ref(test),
        };
        let scans = each.iter().filter(|t| scans(field, t)).count();
        scan += scans;
        compare += each.len() - scans;
    });
    filter.each_cel(&mut |_| scan += SCANS_PER_CEL);
    (compare, scan)
}

/// Whether a test takes longer for a longer event.
fn scans(field: &Field, test: &Test) -> bool {
    let compares = matches!(
        test,
        Test::Exists
            | Test::Absent
            | Test::Equals(_)
            | Test::Prefix(_)
            | Test::Suffix(_)
            | Test::Number(_)
            | Test::Window(_)
            | Test::Bool(_)
            | Test::Null
    );
    !compares || matches!(field, Field::Metadata(_) | Field::Tag(_) | Field::Data(_))
}

/// How many tests are made on each event of each bucket of a rule, because its filter is not looked up: those that compare,
/// and those that look through something. It follows from the rule's bucket and filter alone.
pub(super) fn unindexed_tests(prepared: &Prepared<'_>) -> (usize, usize) {
    // By far the most, and without asking for memory.
    if prepared.filter.affixes().is_some_and(|(prefix, suffix)| !prefix.is_empty() || !suffix.is_empty()) {
        return (0, 0);
    }
    let mut ways = Ways::default();
    access::ways(&prepared.filter, &mut ways);
    if ways.len() > 0 {
        return (0, 0);
    }
    let mut left = Vec::new();
    conjuncts(&prepared.filter, &mut left);
    // Those on the type may be gone or not: that depends on the rule's types.
    left.retain(|f| !is_of_types(f));
    left.iter().map(|f| tests(f)).fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1))
}

fn predicate(access: &Access<'_>) -> (Field, Test) {
    match access {
        Access::Exact(x) => (Field::Key, Test::equals(x)),
        Access::Prefix(x) => (Field::Key, Test::prefix(x)),
        Access::Suffix(x) => (Field::Key, Test::suffix(x)),
        Access::Infix(x) => (Field::Key, Test::contains(x)),
        Access::Value(kind, selector, value) => (field_of(*kind, selector), Test::equals(value)),
    }
}

/// The field that values are looked up of.
fn field_of(kind: Kind, selector: &[u8]) -> Field {
    let name = || String::from_utf8_lossy(selector).into();
    match kind {
        Kind::VersionId => Field::VersionId,
        Kind::Etag => Field::Etag,
        Kind::Requester => Field::Requester,
        Kind::SourceIp => Field::SourceIp,
        Kind::RequestId => Field::RequestId,
        Kind::HostId => Field::HostId,
        Kind::ContentType => Field::ContentType,
        Kind::BucketOwner => Field::BucketOwner,
        Kind::Metadata => Field::Metadata(name()),
        Kind::Tag => Field::Tag(name()),
        // Nothing else is looked up.
        _ => Field::Key,
    }
}

/// Why a condition is none that a filter can be filed under.
fn why_not(filter: &Filter) -> String {
    let shown = filter.to_json();
    match filter {
        Filter::Not(_) => format!("{shown}: a negation is not looked up"),
        Filter::All(_) => format!("{shown}: none of its conditions is looked up"),
        Filter::Any(list) => {
            let without = |f: &&Filter| {
                let mut ways = Ways::default();
                access::ways(f, &mut ways);
                ways.len() == 0
            };
            match list.iter().find(without) {
                Some(branch) => format!("one alternative is not looked up, {}", why_not(branch)),
                None => format!("{shown}: it has more than {} alternatives", access::PLACES_MAX),
            }
        }
        Filter::Is(Field::Key, Test::Wildcard(_)) => format!("{shown}: the wildcard has no text between its stars"),
        Filter::Is(Field::Key, Test::Regex(_)) => {
            format!("{shown}: the regular expression has no text that each key it fits must have")
        }
        Filter::Is(Field::Key, test) => format!("{shown}: tests of the kind `{}` are not looked up", test.kind()),
        Filter::Is(field, test) if access::is_looked_up(field) => {
            format!("{shown}: of `{}` only exact values are looked up, not `{}`", field.name(), test.kind())
        }
        Filter::Is(field, _) => format!("{shown}: `{}` is not looked up", field.name()),
        Filter::Cel(_) => format!("{shown}: what is evaluated is not looked up"),
    }
}

impl fmt::Display for Next {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Next::Accept => f.write_str("accept"),
            Next::Reject => f.write_str("reject"),
            Next::Step(n) => write!(f, "{n}"),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}  then {}, else {}", self.condition.to_json(), self.then, self.otherwise)
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.buckets {
            Some(names) => writeln!(f, "buckets      {}", names.join(", "))?,
            None => writeln!(f, "buckets      every one")?,
        }
        for types in &self.types {
            writeln!(f, "types        {}", types.to_json())?;
        }
        for (i, filing) in self.filings.iter().enumerate() {
            match &filing.predicate {
                Some(predicate) => writeln!(f, "filed under  {}", Filter::from(predicate.clone()).to_json())?,
                None if self.reasons.is_empty() => writeln!(f, "filed under  nothing")?,
                None => writeln!(f, "filed under  nothing, each event is tried")?,
            }
            for reason in &self.reasons {
                writeln!(f, "  because    {reason}")?;
            }
            // What is left is often the same wherever it is filed.
            if self.filings.get(i + 1).is_some_and(|next| next.program == filing.program) {
                continue;
            }
            match &filing.program[..] {
                [] => writeln!(f, "to check     nothing")?,
                steps => {
                    for (n, step) in steps.iter().enumerate() {
                        writeln!(f, "{}{n}  {step}", if n == 0 { "to check     " } else { "             " })?;
                    }
                }
            }
        }
        if self.regexes > 0 {
            writeln!(f, "regexes      {}, {} bytes", self.regexes, self.regex_bytes)?;
        }
        write!(f, "cost         {}", self.cost)
    }
}

impl Totals {
    /// The same as JSON, with the names of the fields.
    pub fn to_json(&self) -> Value {
        json!({
            "rules": self.rules,
            "scopes": self.scopes,
            "bytes": self.bytes,
            "never": self.never,
            "free": self.free,
            "unindexed": self.unindexed,
            "regexes": self.regexes,
            "regex_bytes": self.regex_bytes,
        })
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let share = 100.0 * self.unindexed as f64 / self.rules.max(1) as f64;
        writeln!(f, "rules        {}, in {} scopes", self.rules, self.scopes)?;
        writeln!(f, "un-indexed   {} ({share:.1} %)", self.unindexed)?;
        writeln!(f, "free         {}", self.free)?;
        writeln!(f, "never        {}", self.never)?;
        writeln!(f, "regexes      {}, {} bytes", self.regexes, self.regex_bytes)?;
        write!(f, "index        {} bytes", self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::super::NamedFilters;
    use super::*;
    use crate::event::EventTypes;

    fn read(value: Value) -> Filter {
        Filter::from_json(&value, &NamedFilters::new()).unwrap()
    }

    /// What it is filed under, and its cost.
    fn filed(value: Value) -> (Vec<Value>, Cost) {
        let plan = read(value).plan();
        let predicate = |f: &Filing| f.predicate.clone().map_or(Value::Null, |p| Filter::from(p).to_json());
        (plan.filings.iter().map(predicate).collect(), plan.cost)
    }

    #[test]
    fn a_filter_is_filed_under_what_is_met_least() {
        for (filter, under) in [
            (json!({"prefix": "in/", "suffix": ".jpeg"}), vec![json!({"suffix": ".jpeg"})]),
            (json!({"exact": "a", "prefix": "a"}), vec![json!({"key": "a"})]),
            (json!({"suffix": [".a", ".b"]}), vec![json!({"suffix": ".a"}), json!({"suffix": ".b"})]),
            (json!({"tags": {"env": "prod"}, "size": 5}), vec![json!({"tags": {"env": "prod"}})]),
            (json!({"wildcard": "*middle*"}), vec![json!({"key": {"contains": "middle"}})]),
            (json!({"regex": "^logs/.*x"}), vec![json!({"prefix": "logs/"})]),
        ] {
            assert_eq!(filed(filter.clone()), (under, Cost::Indexed), "{filter}");
        }
    }

    #[test]
    fn what_each_event_is_tried_on_is_told_with_its_reasons() {
        for (filter, cost, reason) in [
            (json!({"size": {"min": 1}}), Cost::Compare, "`size` is not looked up"),
            (json!({"not": {"prefix": "tmp/"}}), Cost::Compare, "a negation is not looked up"),
            (json!({"key": {"anything_but": ["a", "b"]}}), Cost::Compare, "`anything_but` are not looked up"),
            (json!({"wildcard": "*?*"}), Cost::Scan, "no text between its stars"),
            (json!({"regex": "[0-9]+"}), Cost::Scan, "no text that each key"),
            (json!({"any": [{"prefix": "a"}, {"size": 1}]}), Cost::Compare, "one alternative is not looked up"),
            (json!({"requester": {"prefix": "a"}}), Cost::Compare, "only exact values"),
            (json!({"data": {"a": "b"}}), Cost::Scan, "`data` is not looked up"),
        ] {
            let plan = read(filter.clone()).plan();
            assert_eq!((plan.cost, plan.filings.len(), plan.reasons.len()), (cost, 1, 1), "{filter}");
            assert!(plan.cost.is_unindexed() && plan.filings[0].predicate.is_none(), "{filter}");
            assert!(plan.reasons[0].contains(reason), "{}", plan.reasons[0]);
            assert!(plan.to_string().contains(reason));
        }
        let many: Vec<String> = (0..65).map(|n| format!("k{n}")).collect();
        assert!(read(json!({"exact": many})).plan().reasons[0].contains("more than 64"));
    }

    #[test]
    fn what_costs_nothing_is_told_apart() {
        assert_eq!(filed(json!({})), (vec![Value::Null], Cost::Free));
        assert_eq!(filed(json!({"event_type": "s3:ObjectRemoved:*"})), (vec![Value::Null], Cost::Free));
        assert_eq!(filed(json!({"any": []})), (vec![], Cost::Never));
        let plan = read(json!({"event_type": "s3:ObjectRemoved:*", "prefix": "a", "bucket": ["x", "y"]})).plan();
        assert_eq!((plan.types.len(), plan.buckets), (1, Some(vec!["x".to_owned(), "y".to_owned()])));
    }

    #[test]
    fn the_program_is_what_is_left_in_the_order_it_is_checked() {
        let plan = read(json!({"prefix": "in/", "regex": "[0-9]", "any": [{"size": 1}, {"size": 2}]})).plan();
        let steps: Vec<String> = plan.filings[0].program.iter().map(ToString::to_string).collect();
        assert_eq!(
            steps,
            [
                r#"{"size":1}  then 2, else 1"#,
                r#"{"size":2}  then 2, else reject"#,
                r#"{"key":{"regex":"[0-9]"}}  then accept, else reject"#,
            ]
        );
        assert!(plan.regexes == 1 && plan.regex_bytes > 0);
        assert_eq!(
            plan.to_string().lines().take(3).collect::<Vec<_>>(),
            [
                "buckets      every one",
                r#"filed under  {"prefix":"in/"}"#,
                r#"to check     0  {"size":1}  then 2, else 1"#,
            ]
        );
        let json = plan.to_json();
        assert_eq!(json["filings"][0]["program"][1]["otherwise"], "reject");
        assert_eq!((&json["cost"], &json["buckets"]), (&json!("indexed"), &Value::Null));
        assert_eq!(read(json!({"exact": "a"})).plan().filings[0].program, []);
    }

    #[test]
    fn rules_together_are_filed_by_what_few_of_them_have() {
        let rule = |prefix: &str, bucket: Option<&str>| {
            let mut rule = Rule::new("r", ["*"], &EventTypes::default()).unwrap();
            rule.bucket = bucket.map(str::to_owned);
            rule.filter = Filter::new(prefix, ".jpg");
            rule
        };
        let mut rules: Vec<Rule> = (0..50).map(|n| rule(&format!("{n}/"), Some("b"))).collect();
        rules.push(rule("0/", None));
        rules.push(Rule { filter: Filter::Any(vec![]), ..rule("", None) });
        rules.push(Rule { filter: read(json!({"hops": 1})), ..rule("", None) });
        rules.push(Rule { filter: Filter::default(), ..rule("", None) });
        let plans = plan(&rules).unwrap();
        // Each has the suffix, and the prefix is its own; alone, the longer one is better.
        assert_eq!(plans.rules[0].filings[0].predicate, Some((Field::Key, Test::prefix("0/"))));
        assert_eq!(plans.rules[50].filings[0].predicate, Some((Field::Key, Test::suffix(".jpg"))));
        let t = plans.totals;
        assert_eq!((t.rules, t.scopes, t.never, t.free, t.unindexed, t.regexes), (54, 2, 1, 1, 1, 0));
        assert!(t.bytes > 1000 && t.to_string().contains("un-indexed   1 (1.9 %)"), "{t}");
        assert_eq!(plan(&[]).unwrap().totals.to_string().lines().next(), Some("rules        0, in 0 scopes"));
    }

    #[test]
    fn the_memory_of_regular_expressions_is_in_that_of_the_index() {
        let rule = |filter: Value| {
            let mut rule = Rule::new("r", ["*"], &EventTypes::default()).unwrap();
            rule.filter = read(filter);
            rule
        };
        let with = plan(&[rule(json!({"bucket": ["x", "y"], "regex": r"\w{3}"}))]).unwrap();
        let without = plan(&[rule(json!({"bucket": ["x", "y"], "wildcard": "*?*"}))]).unwrap();
        let more = with.totals.bytes - without.totals.bytes;
        assert!(with.totals.regex_bytes > 10_000 && more >= with.totals.regex_bytes, "{:?}", with.totals);
        assert!(more < with.totals.regex_bytes * 3 / 2, "two buckets share one");
    }
}
