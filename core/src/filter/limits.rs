//! How much filters may ask for: limits of each, and quotas of all together. They are checked when rules are loaded, so that
//! nothing has to be refused while events are matched.

use std::collections::HashMap;
use std::fmt;

use super::expression::{FILTER_NODES_MAX, FILTER_TEXT_BYTES_MAX, Field, Filter, Test};
use super::matcher::{Matcher, Names, prepare};
use super::pattern::WILDCARD_STARS_MAX;
use super::plan::unindexed_tests;
use crate::error::{Error, Result};
use crate::rule::Rule;

/// How many tests that only compare count as one that looks through something.
const COMPARES_PER_SCAN: usize = 16;

/// How much rules may ask of the index. A rule that asks for more is refused when it is loaded.
///
/// The first five are about each rule, the others about all that are loaded together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FilterLimits {
    /// The most conditions and connectives of one filter, 1 to [`FILTER_NODES_MAX`]. Default: that.
    pub nodes_max: usize,
    /// The longest text, wildcard or regular expression as written, in bytes, 1 to [`FILTER_TEXT_BYTES_MAX`]. Default: that.
    pub literal_bytes_max: usize,
    /// The most stars of one wildcard, 0 to [`WILDCARD_STARS_MAX`]. Default: that.
    pub wildcards_max: usize,
    /// The memory that one compiled regular expression may take ([`super::Regex::bytes`]), 1 KiB to 2 MiB. Default: 1 MiB.
    /// What is larger than [`super::REGEX_MEMORY_MAX`] per automaton is refused in any case.
    pub regex_bytes_max: usize,
    /// The most rules of one bucket, 1 to 1,000,000. Default: 1,000,000, because the number of rules that the index looks up
    /// costs an event nothing. To be set where tenants write the rules of their buckets.
    pub rules_per_bucket_max: usize,
    /// The most rules of every bucket, 0 to 1,000,000. Default: 1,000,000.
    pub rules_of_every_bucket_max: usize,
    /// How many tests each event of a bucket may be tried on, because the filters that they are of are not looked up
    /// ([`super::Cost::is_unindexed`]), 0 to 1,000,000. Default: 256, some tens of microseconds for each event. The rules of
    /// each bucket have this limit, and those of every bucket have it for themselves.
    ///
    /// A test counts that looks through a text, pairs or the data; of tests that only compare, sixteen count as one, and an
    /// expression that is evaluated ([`super::Cel`]) counts as sixteen. Rules
    /// without a condition, or with conditions on type and bucket only, do not count: with them nothing is tried.
    pub unindexed_max: usize,
    /// The most regular expressions of all rules, 0 to 1,000,000. Default: 4096; each takes some 10 KiB.
    pub regexes_max: usize,
    /// The memory that the index of all rules may take ([`Matcher::bytes`]), 1 MiB to 1 TiB. Default: 1 GiB. The compiled
    /// regular expressions of all rules alone may not take more either; the index has those that are alike only once.
    pub memory_bytes_max: usize,
}

impl Default for FilterLimits {
    fn default() -> Self {
        FilterLimits {
            nodes_max: FILTER_NODES_MAX,
            literal_bytes_max: FILTER_TEXT_BYTES_MAX,
            wildcards_max: WILDCARD_STARS_MAX,
            regex_bytes_max: 1 << 20,
            rules_per_bucket_max: 1_000_000,
            rules_of_every_bucket_max: 1_000_000,
            unindexed_max: 256,
            regexes_max: 4096,
            memory_bytes_max: 1 << 30,
        }
    }
}

impl FilterLimits {
    /// Checks one rule by itself. What it is together with others, [`FilterUsage::add`] checks.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidConfig`] that names the rule, the limit, what was found and the remedy.
    pub fn check_rule(&self, rule: &Rule) -> Result<()> {
        self.check_filter(&rule.filter).map_err(|e| e.at(rule.label()))
    }

    /// Checks one filter by itself.
    ///
    /// # Errors
    /// As [`FilterLimits::check_rule`].
    pub fn check_filter(&self, filter: &Filter) -> Result<()> {
        within(Limit::Nodes, filter.nodes(), self.nodes_max, format_args!("the filter has"), "split the rule")?;
        let mut result = Ok(());
        filter.each_cel(&mut |cel| {
            if result.is_ok() {
                let what = format_args!("a text in the expression `{}` has", cel.text());
                result = within(Limit::LiteralBytes, cel.literal_bytes(), self.literal_bytes_max, what, "shorten it");
            }
        });
        filter.each_test(&mut |field, test| {
            if result.is_ok() {
                result = self.check_test(field, test);
            }
        });
        result
    }

    fn check_test(&self, field: &Field, test: &Test) -> Result<()> {
        let here = |e: Error| e.at(field.to_string());
        let text = |what: &str, bytes: usize| {
            let what = format_args!("the {what} has");
            within(Limit::LiteralBytes, bytes, self.literal_bytes_max, what, "shorten it").map_err(here)
        };
        match test {
            Test::Equals(x) | Test::Prefix(x) | Test::Suffix(x) | Test::Contains(x) => text(test.kind(), x.len()),
            Test::IgnoreCase(_, x) => text(test.kind(), x.as_str().len()),
            Test::Wildcard(w) => {
                text(test.kind(), w.pattern().len())?;
                let pattern = w.pattern().escape_ascii();
                let what = format_args!("the wildcard `{pattern}` has");
                within(Limit::Wildcards, w.stars(), self.wildcards_max, what, "use fewer stars").map_err(here)
            }
            Test::Regex(r) => {
                text("regular expression", r.pattern().len())?;
                let pattern = r.pattern().escape_debug();
                let what = format_args!("the regular expression `{pattern}` takes");
                let remedy = "use smaller repetitions and classes";
                within(Limit::RegexBytes, r.bytes(), self.regex_bytes_max, what, remedy).map_err(here)
            }
            Test::NoneOf(tests) => tests.iter().try_for_each(|t| self.check_test(field, t)),
            _ => Ok(()),
        }
    }

    /// Checks the memory that the index of all rules takes.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidConfig`] that names the limit, what was found, and the bucket that takes most.
    pub fn check_memory(&self, matcher: &Matcher) -> Result<()> {
        let bytes = matcher.bytes();
        if bytes <= self.memory_bytes_max {
            return Ok(());
        }
        let (name, most) = matcher.largest();
        let name = String::from_utf8_lossy(name);
        let whose = Whose((!name.is_empty()).then_some(&*name));
        let remedy = format!("use fewer rules or shorter texts; {whose} take {most} bytes of it");
        within(Limit::MemoryBytes, bytes, self.memory_bytes_max, format_args!("the index of the rules takes"), &remedy)
    }

    /// Checks rules that are loaded together, all but the memory that they take, which is known when they are compiled.
    ///
    /// # Errors
    /// As [`FilterLimits::check_rule`] and [`FilterUsage::add`].
    pub fn check_rules(&self, rules: &[Rule]) -> Result<()> {
        self.check_located(rules).map_err(|(_, e)| e)
    }

    /// The same; tells which rule the error is about.
    pub(crate) fn check_located(&self, rules: &[Rule]) -> Result<(), (usize, Error)> {
        let mut usage = FilterUsage::default();
        rules
            .iter()
            .enumerate()
            .try_for_each(|(i, rule)| self.check_rule(rule).and_then(|()| usage.add(rule, self)).map_err(|e| (i, e)))
    }
}

#[derive(Clone, Copy)]
enum Limit {
    Nodes,
    LiteralBytes,
    Wildcards,
    RegexBytes,
    RulesPerBucket,
    RulesOfEveryBucket,
    Unindexed,
    Regexes,
    MemoryBytes,
}

impl Limit {
    /// The key in a configuration file, and what is counted.
    fn names(self) -> (&'static str, &'static str) {
        match self {
            Limit::Nodes => ("nodes_max", "conditions and connectives"),
            Limit::LiteralBytes => ("literal_bytes_max", "bytes"),
            Limit::Wildcards => ("wildcards_max", "stars"),
            Limit::RegexBytes => ("regex_bytes_max", "bytes of memory"),
            Limit::RulesPerBucket => ("rules_per_bucket_max", "rules"),
            Limit::RulesOfEveryBucket => ("rules_of_every_bucket_max", "rules"),
            Limit::Unindexed => ("unindexed_max", "tests that each event is tried on"),
            Limit::Regexes => ("regexes_max", "regular expressions"),
            Limit::MemoryBytes => ("memory_bytes_max", "bytes of memory"),
        }
    }
}

fn within(limit: Limit, found: usize, max: usize, what: fmt::Arguments<'_>, remedy: &str) -> Result<()> {
    if found <= max { Ok(()) } else { Err(beyond(limit, found, max, what, remedy)) }
}

#[cold]
fn beyond(limit: Limit, found: usize, max: usize, what: fmt::Arguments<'_>, remedy: &str) -> Error {
    let (key, counted) = limit.names();
    Error::invalid_config(format!("{what} {found} {counted}, more than engine.filter.{key} ({max})"))
        .remedy(format!("{remedy}, or raise the limit"))
}

/// What rules that are loaded together take of the limits that hold for all of them. Rules are added and removed one by one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FilterUsage {
    every_bucket: Taken,
    buckets: HashMap<Box<str>, Taken>,
    regexes: usize,
    regex_bytes: usize,
}

/// What the rules of one bucket, or of every bucket, take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Taken {
    rules: usize,
    /// Tests that each event is tried on, those that compare as one and the others as [`COMPARES_PER_SCAN`].
    unindexed: usize,
}

/// What one rule takes.
struct Wants<'r> {
    /// `None` is every bucket.
    buckets: Option<Names<'r>>,
    unindexed: usize,
    regexes: usize,
    regex_bytes: usize,
}

impl Wants<'_> {
    /// `None` if the rule never wants an event; then it is not in the index.
    fn of(rule: &Rule) -> Option<Wants<'_>> {
        let prepared = prepare(rule)?;
        let (compare, scan) = unindexed_tests(&prepared);
        let (mut regexes, mut regex_bytes) = (0, 0);
        prepared.filter.each_regex(&mut |r| {
            regexes += 1;
            regex_bytes += r.bytes();
        });
        let unindexed = compare + scan * COMPARES_PER_SCAN;
        Some(Wants { unindexed, regexes, regex_bytes, buckets: prepared.buckets })
    }
}

/// Whose rules: those of a bucket, or of every one.
struct Whose<'a>(Option<&'a str>);

impl fmt::Display for Whose<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(name) => write!(f, "the rules of bucket `{name}`"),
            None => f.write_str("the rules of every bucket"),
        }
    }
}

impl FilterUsage {
    /// Adds a rule, if it is within the limits together with those that are there.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidConfig`] that names the rule, the limit, what was found and the remedy. Nothing has changed
    /// then.
    pub fn add(&mut self, rule: &Rule, limits: &FilterLimits) -> Result<()> {
        let Some(wants) = Wants::of(rule) else { return Ok(()) };
        self.check(&wants, limits).map_err(|e| e.at(rule.label()))?;
        self.take(&wants);
        Ok(())
    }

    /// Adds a rule, whatever the limits are: one that was removed a moment ago and shall stay.
    pub fn put_back(&mut self, rule: &Rule) {
        if let Some(wants) = Wants::of(rule) {
            self.take(&wants);
        }
    }

    /// Takes a rule out that was added. What it counts for follows from its bucket and its filter alone.
    pub fn remove(&mut self, rule: &Rule) {
        let Some(wants) = Wants::of(rule) else { return };
        self.regexes = self.regexes.saturating_sub(wants.regexes);
        self.regex_bytes = self.regex_bytes.saturating_sub(wants.regex_bytes);
        let Some(names) = &wants.buckets else {
            self.every_bucket.remove(&wants);
            return;
        };
        for name in names {
            let Some(taken) = self.buckets.get_mut(*name) else { continue };
            taken.remove(&wants);
            if *taken == Taken::default() {
                self.buckets.remove(*name);
            }
        }
    }

    /// How many rules of this bucket there are, those of every bucket not among them; `None` asks for those.
    pub fn rules(&self, bucket: Option<&str>) -> usize {
        self.taken(bucket).rules
    }

    /// How many regular expressions there are.
    pub fn regexes(&self) -> usize {
        self.regexes
    }

    /// How many tests each event of this bucket is tried on, as [`FilterLimits::unindexed_max`] counts them, those of every
    /// bucket not among them; `None` asks for those.
    pub fn unindexed(&self, bucket: Option<&str>) -> usize {
        self.taken(bucket).unindexed.div_ceil(COMPARES_PER_SCAN)
    }

    fn taken(&self, bucket: Option<&str>) -> Taken {
        match bucket {
            None => self.every_bucket,
            Some(name) => self.buckets.get(name).copied().unwrap_or_default(),
        }
    }

    fn check(&self, wants: &Wants<'_>, limits: &FilterLimits) -> Result<()> {
        if wants.regexes > 0 {
            let all = self.regexes + wants.regexes;
            let remedy = "use wildcards or prefixes in place of some";
            within(Limit::Regexes, all, limits.regexes_max, format_args!("the rules together have"), remedy)?;
            let all = self.regex_bytes + wants.regex_bytes;
            let what = format_args!("the regular expressions of the rules together have");
            within(Limit::MemoryBytes, all, limits.memory_bytes_max, what, remedy)?;
        }
        match &wants.buckets {
            None => self.check_taken(None, wants, limits),
            Some(names) => names.iter().try_for_each(|name| self.check_taken(Some(name), wants, limits)),
        }
    }

    fn check_taken(&self, bucket: Option<&str>, wants: &Wants<'_>, limits: &FilterLimits) -> Result<()> {
        let taken = self.taken(bucket);
        let (limit, max) = match bucket {
            None => (Limit::RulesOfEveryBucket, limits.rules_of_every_bucket_max),
            Some(_) => (Limit::RulesPerBucket, limits.rules_per_bucket_max),
        };
        if taken.rules >= max {
            return Err(beyond(
                limit,
                taken.rules + 1,
                max,
                format_args!("{} have", Whose(bucket)),
                "merge some of them",
            ));
        }
        if wants.unindexed == 0 {
            return Ok(());
        }
        let tests = (taken.unindexed + wants.unindexed).div_ceil(COMPARES_PER_SCAN);
        if tests > limits.unindexed_max {
            let remedy =
                "give the rule a condition that is looked up, such as a prefix, a suffix or the value of a tag";
            return Err(beyond(
                Limit::Unindexed,
                tests,
                limits.unindexed_max,
                format_args!("{} have", Whose(bucket)),
                remedy,
            ));
        }
        Ok(())
    }

    fn take(&mut self, wants: &Wants<'_>) {
        self.regexes += wants.regexes;
        self.regex_bytes += wants.regex_bytes;
        match &wants.buckets {
            None => self.every_bucket.add(wants),
            Some(names) => {
                for name in names {
                    if let Some(taken) = self.buckets.get_mut(*name) {
                        taken.add(wants);
                    } else {
                        self.buckets.entry((*name).into()).or_default().add(wants);
                    }
                }
            }
        }
    }
}

impl Taken {
    fn add(&mut self, wants: &Wants<'_>) {
        self.rules += 1;
        self.unindexed += wants.unindexed;
    }

    fn remove(&mut self, wants: &Wants<'_>) {
        self.rules = self.rules.saturating_sub(1);
        self.unindexed = self.unindexed.saturating_sub(wants.unindexed);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::NamedFilters;
    use super::*;
    use crate::event::EventTypes;

    fn rule(bucket: Option<&str>, filter: Value) -> Rule {
        let mut rule = Rule::new("r", ["*"], &EventTypes::default()).unwrap();
        rule.bucket = bucket.map(str::to_owned);
        rule.filter = Filter::from_json(&filter, &NamedFilters::new()).unwrap();
        rule
    }

    /// The error has rule, limit, number and remedy.
    #[track_caller]
    fn refused(result: Result<()>, parts: &[&str]) {
        let e = result.unwrap_err();
        let shown = e.to_string();
        assert_eq!(e.kind(), crate::ErrorKind::InvalidConfig, "{shown}");
        assert!(
            shown.starts_with("rule `r`") && e.remedy_text().is_some_and(|r| r.contains("raise the limit")),
            "{shown}"
        );
        parts.iter().for_each(|part| assert!(shown.contains(part), "`{part}` is not in: {shown}"));
    }

    #[test]
    fn each_rule_has_its_limits() {
        let limits = FilterLimits {
            nodes_max: 5,
            literal_bytes_max: 8,
            wildcards_max: 2,
            regex_bytes_max: 20_000,
            ..FilterLimits::default()
        };
        for (fits, beyond, parts) in [
            (
                json!({"exact": ["1", "2", "3", "4"]}),
                json!({"exact": ["1", "2", "3", "4", "5"]}),
                &["the filter has 6 conditions", "engine.filter.nodes_max (5)", "split"][..],
            ),
            (
                json!({"key": {"anything_but": ["1", "2", "3", "4"]}}),
                json!({"not": {"key": {"anything_but": ["1", "2", "3", "4"]}}}),
                &["has 6 conditions"],
            ),
            (
                json!({"prefix": "12345678"}),
                json!({"all": [{"size": 1}, {"prefix": "123456789"}]}),
                &["key: the prefix has 9 bytes", "literal_bytes_max (8)", "shorten"],
            ),
            (
                json!({"requester": {"prefix": "12345678", "ignore_case": true}}),
                json!({"requester": {"anything_but": {"prefix": "123456789", "ignore_case": true}}}),
                &["requester: the ignore_case has 9 bytes"],
            ),
            (json!({"regex": "[ab]{2}x"}), json!({"regex": "[ab]{2}xy"}), &["the regular expression has 9 bytes"]),
            (
                json!({"wildcard": "*a**b"}),
                json!({"wildcard": "*a*b*"}),
                &["the wildcard `*a*b*` has 3 stars", "wildcards_max (2)", "fewer stars"],
            ),
            (
                json!({"regex": "[a-z]{2}"}),
                json!({"regex": r"\w{2}"}),
                &[r"`\\w{2}` takes ", "regex_bytes_max (20000)"],
            ),
        ] {
            limits.check_rule(&rule(None, fits)).unwrap();
            refused(limits.check_rule(&rule(None, beyond)), parts);
        }
    }

    #[test]
    fn buckets_have_a_number_of_rules_each_and_every_bucket_its_own() {
        let limits = FilterLimits { rules_per_bucket_max: 2, rules_of_every_bucket_max: 1, ..FilterLimits::default() };
        let mut usage = FilterUsage::default();
        let a = rule(Some("a"), json!({"prefix": "x"}));
        let both = rule(None, json!({"bucket": ["a", "b"], "prefix": "x"}));
        let every = rule(None, json!({}));
        for r in [&a, &both, &every] {
            usage.add(r, &limits).unwrap();
        }
        let before = usage.clone();
        refused(usage.add(&a, &limits), &["the rules of bucket `a` have 3 rules", "rules_per_bucket_max (2)"]);
        refused(usage.add(&both, &limits), &["bucket `a`"]);
        refused(
            usage.add(&every, &limits),
            &["the rules of every bucket have 2 rules", "rules_of_every_bucket_max (1)"],
        );
        assert_eq!(usage, before, "what is refused changes nothing");
        usage.add(&rule(None, json!({"any": []})), &limits).unwrap();
        assert_eq!((usage.rules(Some("a")), usage.rules(Some("b")), usage.rules(None)), (2, 1, 1));
        usage.remove(&both);
        usage.add(&a, &limits).unwrap();
        refused(usage.add(&a, &limits), &["bucket `a`"]);
        for r in [&a, &a, &every] {
            usage.remove(r);
        }
        assert_eq!(usage, FilterUsage::default(), "nothing is left of what was removed");
    }

    #[test]
    fn tests_that_each_event_is_tried_on_have_a_quota() {
        let limits = FilterLimits { unindexed_max: 2, ..FilterLimits::default() };
        let scan = rule(Some("a"), json!({"wildcard": "*?*"}));
        let compare = |n: usize| rule(Some("a"), json!({"all": vec![json!({"size": {"min": 1}}); n]}));
        let mut usage = FilterUsage::default();
        // Looked up, or free.
        for filter in
            [json!({"prefix": "a"}), json!({"suffix": "b", "regex": "[0-9]"}), json!({}), json!({"event_type": "*"})]
        {
            usage.add(&rule(Some("a"), filter), &limits).unwrap();
        }
        assert_eq!(usage.unindexed(Some("a")), 0);
        usage.add(&scan, &limits).unwrap();
        usage.add(&compare(10), &limits).unwrap();
        usage.add(&compare(6), &limits).unwrap();
        assert_eq!(usage.unindexed(Some("a")), 2);
        refused(
            usage.add(&compare(1), &limits),
            &["the rules of bucket `a` have 3 tests that each event is tried on", "unindexed_max (2)", "a prefix"],
        );
        refused(usage.add(&scan, &limits), &["have 3 tests"]);
        // Another bucket, and those of every bucket, have their own.
        usage.add(&Rule { bucket: None, ..scan.clone() }, &limits).unwrap();
        usage.add(&Rule { bucket: Some("b".to_owned()), ..scan.clone() }, &limits).unwrap();
        usage.add(&rule(Some("a"), json!({"exact": "x"})), &limits).unwrap();
        usage.remove(&scan);
        usage.add(&scan, &limits).unwrap();
        usage.remove(&scan);
        usage.put_back(&scan);
        usage.put_back(&scan);
        assert_eq!(usage.unindexed(Some("a")), 3, "what is put back is not asked about");
        let none = FilterLimits { unindexed_max: 0, ..limits };
        refused(FilterUsage::default().add(&compare(1), &none), &["have 1 tests"]);
    }

    #[test]
    fn what_a_rule_counts_does_not_depend_on_its_types() {
        let types = EventTypes::with_custom(["acme:Scan:Clean"]).unwrap();
        let mut wide = Rule::new("r", ["*"], &types).unwrap();
        wide.filter = rule(None, json!({"event_type": {"prefix": "s3:"}, "size": 1})).filter;
        let mut narrow = wide.clone();
        narrow.events.retain(|t| matches!(t, crate::event::EventType::Known(_)));
        let mut usage = FilterUsage::default();
        usage.add(&wide, &FilterLimits::default()).unwrap();
        usage.remove(&narrow);
        assert_eq!(usage, FilterUsage::default());
    }

    #[test]
    fn regular_expressions_of_all_rules_have_a_quota() {
        let limits = FilterLimits { regexes_max: 2, ..FilterLimits::default() };
        let two = rule(Some("a"), json!({"regex": ["^a[0-9]", "^b[0-9]"]}));
        let hidden = rule(Some("b"), json!({"key": {"anything_but": {"regex": "^a[0-9]"}}}));
        let mut usage = FilterUsage::default();
        usage.add(&two, &limits).unwrap();
        refused(usage.add(&hidden, &limits), &["the rules together have 3 regular expressions", "regexes_max (2)"]);
        usage.add(&rule(Some("b"), json!({"prefix": "a"})), &limits).unwrap();
        usage.remove(&two);
        usage.add(&hidden, &limits).unwrap();
        assert_eq!(usage.regexes(), 1);
        let small = FilterLimits { memory_bytes_max: 200_000, ..FilterLimits::default() };
        let mut usage = FilterUsage::default();
        let large = rule(Some("a"), json!({"regex": r"\w{3}"}));
        usage.add(&large, &small).unwrap();
        let parts = ["the regular expressions of the rules together have ", "memory_bytes_max (200000)"];
        refused(usage.add(&large, &small), &parts);
        usage.remove(&large);
        assert_eq!(usage, FilterUsage::default());
        refused(FilterLimits { regexes_max: 0, ..limits }.check_rules(&[hidden]), &["have 1 regular"]);
    }

    #[test]
    fn the_memory_of_the_index_is_limited() {
        let rules = [rule(None, json!({"regex": "^a"})), rule(Some("big"), json!({"regex": r"\w{3}"}))];
        let matcher = Matcher::compile(&rules).unwrap();
        let mut limits = FilterLimits { memory_bytes_max: matcher.bytes(), ..FilterLimits::default() };
        limits.check_memory(&matcher).unwrap();
        limits.memory_bytes_max -= 1;
        let e = limits.check_memory(&matcher).unwrap_err().to_string();
        assert!(e.contains("memory_bytes_max") && e.contains("the rules of bucket `big` take"), "{e}");
    }

    #[test]
    fn the_rule_that_is_beyond_is_named_among_all() {
        let rules = [rule(None, json!({})), rule(None, json!({"prefix": "ab"})), rule(None, json!({"prefix": "abc"}))];
        let limits = FilterLimits { literal_bytes_max: 2, ..FilterLimits::default() };
        assert_eq!(limits.check_located(&rules).unwrap_err().0, 2);
        FilterLimits::default().check_rules(&rules).unwrap();
    }
}
