//! What is made to hurt.

use tidewire::event::{Event, EventTypes, KnownType, frame};
use tidewire::filter::{Field, Filter, Regex, Test};
use tidewire::rule::Rule;

/// What a case is made larger in.
#[derive(Clone, Copy)]
pub enum Grows {
    /// What an event holds, a rule asks, or how many rules are met: the cost may grow as much.
    Input,
    /// The number of rules that are not met: the cost may hardly grow.
    Rules,
}

impl Grows {
    /// By how much the instructions may be multiplied where the case is doubled.
    pub fn limit(self) -> f64 {
        match self {
            Grows::Input => 2.3,
            Grows::Rules => 1.3,
        }
    }

    /// What of the ratios of each doubling is compared with the limit.
    pub fn judged(self, ratios: &[f64]) -> f64 {
        match self {
            Grows::Input => ratios.iter().copied().fold(0.0, f64::max),
            // An index may take another form from some number of rules on, which is a step and no growth.
            Grows::Rules => ratios.iter().product::<f64>().powf(1.0 / ratios.len() as f64),
        }
    }
}

/// What is done.
pub enum Work {
    /// Each of the events is matched.
    Match { rules: Vec<Rule>, frames: Vec<Vec<u8>> },
    /// The rules are compiled.
    Compile { rules: Vec<Rule> },
    /// Something else.
    Other(Box<dyn FnMut()>),
}

/// One case.
pub struct Case {
    pub name: &'static str,
    pub grows: Grows,
    /// It is quadratic, to show that this would be seen.
    pub is_control: bool,
    /// So many times the smallest size.
    pub make: fn(usize) -> Work,
}

const fn input(name: &'static str, make: fn(usize) -> Work) -> Case {
    Case { name, grows: Grows::Input, is_control: false, make }
}

const fn rules(name: &'static str, make: fn(usize) -> Work) -> Case {
    Case { name, grows: Grows::Rules, is_control: false, make }
}

/// All.
pub const CASES: &[Case] = &[
    Case { is_control: true, ..input("every-pair", every_pair) },
    // The length of a text that is looked at.
    input("stars", |n| of_text(&wildcards(&STARS), &letters(1024 * n, 'c'))),
    input("stars-on-a-key", |n| of_key(STARS.map(|w| key(wildcard(w))).into(), &format!("b{}", letters(255 * n, 'a')))),
    input("question-marks", |n| of_text(&wildcards(&QUESTION_MARKS), &letters(1024 * n, 'c'))),
    input("regex-nested-plus", |n| of_text(&[regex("(a+)+$")], &letters(1024 * n, '!'))),
    input("regex-alternation", |n| of_text(&[regex("(a|aa)*b")], &letters(1024 * n, '!'))),
    input("regexes-that-backtrack-elsewhere", |n| of_text(&REGEXES.map(regex), &letters(1024 * n, '!'))),
    input("infixes-of-one-letter", |n| of_key(infixes_of_one_letter(64), &letters(256 * n, 'c'))),
    input("infixes-that-begin-at-each-place", |n| of_key(infixes_that_begin(1000), &"aaab".repeat(64 * n))),
    input("suffixes-of-one-letter", |n| of_key(suffixes_of_one_letter(200), &letters(256 * n, 'a'))),
    input("metadata", |n| of_pairs(own_names(1000, false), 32 * n, false)),
    input("tags", |n| of_pairs(own_names(1000, true), 32 * n, true)),
    input("data-wide", |n| of_data(wide_data(12_000 * n))),
    input("data-deep", |n| of_data(deep_data(12_000 * n))),
    input("data-of-one-name", |n| of_data(data_of_one_name(9 + n.ilog2()))),
    input("data-long-number", |n| of_data(format!("{{\"a\":[1.{}]}}", "0123456789".repeat(1200 * n)))),
    input("data-escapes", |n| of_data(format!("{{\"a\":\"{}\"}}", "\\u00e9\\n".repeat(1500 * n)))),
    // The size of a filter.
    input("tree-deep", |n| of_text_by(vec![deep_tree(2 * n)], "agent")),
    input("tree-wide", |n| {
        of_text_by(vec![Filter::any((0..60 * n).map(|i| agent(Test::prefix(format!("x{i}")))))], "agent")
    }),
    // How many rules are met.
    input("nested-prefixes", |n| of_key(nested(256 * n, Test::prefix), &letters(1024, 'a'))),
    input("nested-suffixes", |n| of_key(nested(256 * n, Test::suffix), &letters(1024, 'a'))),
    input("nested-infixes", |n| of_key(nested(256 * n, Test::contains), &letters(1024, 'a'))),
    // How many rules are not met.
    rules("prefixes-alike", |n| of_keys(alike(100_000 * n, |x| key(Test::prefix(x))), &alike_keys("", "/x"))),
    rules("suffixes-alike", |n| {
        let keys = alike_keys("", "/x").iter().map(|k| turned(k)).collect::<Vec<_>>();
        of_keys(alike(25_000 * n, |x| key(Test::suffix(turned(&x)))), &keys)
    }),
    rules("keys-alike", |n| of_keys(alike(25_000 * n, |x| key(Test::equals(x))), &alike_keys("", "/"))),
    rules("infixes-alike", |n| of_keys(alike(50_000 * n, |x| key(Test::contains(x))), &alike_keys("x", "/x"))),
    rules("infixes-of-two-letters", |n| {
        let keys: Vec<String> = (1..9).map(|seed| coin_tosses(1024, seed)).collect();
        of_keys((0..20_000 * n).map(two_letters).map(|x| key(Test::contains(x))).collect(), &keys)
    }),
    rules("names-of-metadata", |n| of_pairs(own_names(2500 * n, false), 64, false)),
    rules("names-of-tags", |n| of_pairs(own_names(2500 * n, true), 64, true)),
    rules("values-of-a-tag", |n| of_pairs(own_values(25_000 * n), 64, true)),
    // What is compiled.
    input("compile-prefixes", |n| Work::Compile { rules: of_rules(alike(2500 * n, |x| key(Test::prefix(x)))) }),
    input("compile-infixes", |n| Work::Compile { rules: of_rules(alike(2500 * n, |x| key(Test::contains(x)))) }),
    input("compile-infixes-of-two-letters", |n| Work::Compile {
        rules: of_rules((0..2500 * n).map(two_letters).map(|x| key(Test::contains(x))).collect()),
    }),
    input("compile-names-of-tags", |n| Work::Compile { rules: of_rules(own_names(2500 * n, true)) }),
    input("compile-regexes", |n| Work::Compile {
        rules: of_rules((0..500 * n).map(|i| agent(regex(&format!("^a{i}(b|c)+$")))).collect()),
    }),
];

const STARS: [&str; 3] = ["*a*a*a*b", "a*a*a*a*a*a*b*", "*a*a*a*a*a*a*a*a*a*a*a*a*a*a*b*"];
const QUESTION_MARKS: [&str; 3] = ["*a?a?a?b*", "*?a*?a*?a*?b", "a*????????b*"];
const REGEXES: [&str; 5] = ["(a*)*b", "^(a?){20}a{20}b", "(a+a+)+b", "(.*)*x", "^(([a-z])+.)+[A-Z]([a-z])+$"];

fn every_pair(scale: usize) -> Work {
    let bytes = vec![b'a'; 500 * scale];
    Work::Other(Box::new(move || {
        let mut pairs = 0u64;
        for a in &bytes {
            for b in &bytes {
                pairs += u64::from(std::hint::black_box(a) == b);
            }
        }
        std::hint::black_box(pairs);
    }))
}

// ---- Rules

fn of_rules(filters: Vec<Filter>) -> Vec<Rule> {
    let types = EventTypes::default();
    let rule = |(i, filter): (usize, Filter)| {
        filter.validate().expect("a filter within the limits");
        Rule::new(format!("{i}"), ["s3:ObjectCreated:*"], &types)
            .expect("a rule")
            .with_bucket("bucket")
            .with_filter(filter)
    };
    filters.into_iter().enumerate().map(rule).collect()
}

fn key(test: Test) -> Filter {
    Filter::Is(Field::Key, test)
}

/// By this field no rule is filed, so that its tests are always made.
fn agent(test: Test) -> Filter {
    Filter::Is(Field::UserAgent, test)
}

fn wildcard(pattern: &str) -> Test {
    Test::wildcard(pattern).expect("a wildcard")
}

fn wildcards(patterns: &[&str]) -> Vec<Test> {
    patterns.iter().map(|p| wildcard(p)).collect()
}

fn regex(pattern: &str) -> Test {
    Test::Regex(Regex::parse(pattern, false).expect("a regular expression"))
}

/// `*aaaab*` and longer.
fn infixes_of_one_letter(count: usize) -> Vec<Filter> {
    (0..count).map(|i| key(wildcard(&format!("*{}b*", "a".repeat(4 + i))))).collect()
}

/// Texts that have four letters in common, which the key has again and again.
fn infixes_that_begin(count: usize) -> Vec<Filter> {
    (0..count).map(|i| key(Test::contains(format!("{}b", "a".repeat(4 + i))))).collect()
}

fn suffixes_of_one_letter(count: usize) -> Vec<Filter> {
    (0..count).flat_map(|i| ["", "b"].map(|begin| key(Test::suffix(format!("{begin}{}", "a".repeat(1 + i)))))).collect()
}

fn nested(count: usize, test: fn(Vec<u8>) -> Test) -> Vec<Filter> {
    (0..count.min(1020)).map(|i| key(test(vec![b'a'; 4 + i]))).collect()
}

/// What the texts of [`alike`] have in common.
fn alike_part() -> String {
    "ab".repeat(20)
}

/// Conditions on texts that differ in a number alone.
fn alike(count: usize, condition: fn(String) -> Filter) -> Vec<Filter> {
    let common = alike_part();
    (0..count).map(|i| condition(format!("{common}{i:06}/"))).collect()
}

/// Keys with texts of [`alike`] that are there at every size.
fn alike_keys(before: &str, after: &str) -> Vec<String> {
    (0..100).map(|i| format!("{before}{}{:06}{after}", alike_part(), i * 7919 % 25_000)).collect()
}

fn turned(text: &str) -> String {
    text.chars().rev().collect()
}

/// A text of 24 letters `a` and `b` for a number.
fn two_letters(number: usize) -> String {
    let spread = (number as u32).wrapping_mul(0x9E37_79B1) >> 8;
    format!("{spread:024b}").replace('0', "a").replace('1', "b")
}

/// Rules each on metadata, or a tag, of another name.
fn own_names(count: usize, tags: bool) -> Vec<Filter> {
    let field = |i: usize| match tags {
        true => Field::Tag(format!("name-{i:06}").into()),
        false => Field::metadata(&format!("name-{i:06}")),
    };
    (0..count).map(|i| Filter::Is(field(i), Test::equals("value"))).collect()
}

/// Rules on values of one tag.
fn own_values(count: usize) -> Vec<Filter> {
    (0..count).map(|i| Filter::Is(Field::Tag("name-000000".into()), Test::equals(format!("value-{i:06}")))).collect()
}

/// All of some and any of others, one in the other ten times, so that each has to be looked at.
fn deep_tree(width: usize) -> Filter {
    (0..10).fold(agent(Test::prefix("agent")), |inner, level| {
        let holds = (0..width).map(|i| agent(Test::suffix(&"agent"[(level + i) % 5..])));
        let fails = (0..width).map(|i| agent(Test::prefix(format!("other-{level}-{i}"))));
        Filter::all(holds.chain([Filter::any(fails.chain([inner.not()]))]))
    })
}

// ---- Events

fn framed(event: &Event<'_>) -> Vec<u8> {
    event.validate(tidewire::event::EVENT_BYTES_MAX).expect("an event within the limits");
    frame::encode_to_vec(event, 1)
}

fn event(key: &str) -> Event<'_> {
    Event::new(KnownType::ObjectCreatedPut.into(), "bucket", key.as_bytes())
}

fn of_key(filters: Vec<Filter>, key: &str) -> Work {
    of_keys(filters, &[key.to_owned()])
}

fn of_keys(filters: Vec<Filter>, keys: &[String]) -> Work {
    Work::Match { rules: of_rules(filters), frames: keys.iter().map(|k| framed(&event(k))).collect() }
}

fn of_text(tests: &[Test], text: &str) -> Work {
    of_text_by(tests.iter().cloned().map(agent).collect(), text)
}

fn of_text_by(filters: Vec<Filter>, text: &str) -> Work {
    let mut event = event("key");
    event.user_agent = text;
    Work::Match { rules: of_rules(filters), frames: vec![framed(&event)] }
}

fn of_pairs(filters: Vec<Filter>, count: usize, tags: bool) -> Work {
    let pairs: Vec<(String, String)> = (0..count).map(|i| (format!("name-{i:06}"), format!("value-{i:06}"))).collect();
    let pairs: Vec<(&str, &str)> = pairs.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    let mut event = event("key");
    if tags {
        event.tags = &pairs;
    } else {
        event.metadata = &pairs;
    }
    Work::Match { rules: of_rules(filters), frames: vec![framed(&event)] }
}

fn of_data(data: String) -> Work {
    let tests = [Test::equals("x"), wildcard("*a*a*b"), Test::Number(tidewire::filter::Range::exactly(7u64.into()))];
    let paths = [&["a"][..], &["a", "a", "a"], &["a", "b"], &[]];
    let filters = paths.iter().flat_map(|p| tests.clone().map(|t| Filter::Is(Field::data(p.iter()), t))).collect();
    let mut event = event("key");
    event.data = data.as_bytes();
    Work::Match { rules: of_rules(filters), frames: vec![framed(&event)] }
}

/// So many letters `a`, the last of them another.
fn letters(count: usize, last: char) -> String {
    format!("{}{last}", "a".repeat(count - 1))
}

/// A text of the letters `a` and `b` without an order.
fn coin_tosses(len: usize, seed: u32) -> String {
    let mut state = seed;
    let toss = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        if state >> 31 == 0 { 'a' } else { 'b' }
    };
    (0..len).map(toss).collect()
}

fn wide_data(bytes: usize) -> String {
    let one = r#"{"a":{"a":{"a":[1,"y"]}},"b":null}"#;
    format!(r#"{{"a":[{}]}}"#, vec![one; bytes / one.len()].join(","))
}

fn deep_data(bytes: usize) -> String {
    let one = format!("{}1{}", "[".repeat(60), "]".repeat(60));
    format!(r#"{{"a":[{}]}}"#, vec![one; bytes / 121].join(","))
}

/// A tree in which every member has the same name.
fn data_of_one_name(depth: u32) -> String {
    (0..depth).fold("1".into(), |inner: String, _| format!(r#"{{"a":{inner},"a":{inner}}}"#))
}
