use proptest::prelude::*;

use super::*;
use crate::event::{Event, EventType, EventTypes, FrameView, KnownType, frame};
use crate::rule::Rule;

const PUT: EventType<'static> = EventType::Known(KnownType::ObjectCreatedPut);
const DELETE: EventType<'static> = EventType::Known(KnownType::ObjectRemovedDelete);

fn types() -> EventTypes {
    EventTypes::with_custom(["acme:Scan:Clean", "acme:Scan:Infected"]).unwrap()
}

fn rule(bucket: Option<&str>, events: &[&str], prefix: &[u8], suffix: &[u8]) -> Rule {
    let mut rule = Rule::new("r", events, &types()).unwrap();
    rule.bucket = bucket.map(str::to_owned);
    rule.filter = Filter::new(prefix, suffix);
    rule
}

fn frame_of(bucket: &str, t: EventType<'_>, key: &[u8]) -> Vec<u8> {
    frame::encode_to_vec(&Event::new(t, bucket, key), 1)
}

fn found(m: &Matcher, bucket: &str, t: EventType<'_>, key: &[u8]) -> Vec<u32> {
    found_in(m, &frame_of(bucket, t, key))
}

fn found_in(m: &Matcher, frame: &[u8]) -> Vec<u32> {
    let mut out = Vec::new();
    m.matches(&FrameView::parse(frame).unwrap(), &mut MatchMemory::default(), &mut out);
    out
}

fn compile(rules: &[Rule]) -> Matcher {
    Matcher::compile(rules).unwrap()
}

/// One rule with this prefix and suffix, tried as a filter and through the index.
fn passes(prefix: &[u8], suffix: &[u8], key: &[u8]) -> bool {
    let r = rule(Some("b"), &["*"], prefix, suffix);
    let frame = frame_of("b", PUT, key);
    let alone = r.filter.matches_frame(FrameView::parse(&frame).unwrap());
    assert_eq!(!found_in(&compile(&[r]), &frame).is_empty(), alone);
    alone
}

#[test]
fn prefix_and_suffix_may_overlap() {
    assert!(passes(b"ab", b"bc", b"abc"));
    assert!(passes(b"abc", b"abc", b"abc"));
    assert!(!passes(b"ab", b"bc", b"ab"));
    assert!(!passes(b"abcd", b"", b"abc"));
}

#[test]
fn empty_conditions_pass_everything() {
    assert!(passes(b"", b"", b"anything"));
    assert!(passes(b"", b"", b""));
    assert!(passes(b"", b".jpg", b".jpg"));
}

#[test]
fn wildcard_characters_stand_for_themselves() {
    assert!(passes(b"a*b/", b"", b"a*b/x"));
    assert!(!passes(b"a*b/", b"", b"aXb/x"));
    assert!(!passes(b"*", b"", b"x"));
    assert!(passes(b"", b"?.txt", b"what?.txt"));
    assert!(!passes(b"", b"?.txt", b"what1.txt"));
}

#[test]
fn encodings_stand_for_themselves() {
    // The faults of peers: `+` for a space, `%2F` for a slash, `=` only when encoded.
    assert!(passes(b"my photos/", b"", b"my photos/a.jpg"));
    assert!(!passes(b"my photos/", b"", b"my+photos/a.jpg"));
    assert!(passes(b"a+b", b"", b"a+b/c"));
    assert!(!passes(b"a+b", b"", b"a b/c"));
    assert!(passes(b"dir/", b"", b"dir/x"));
    assert!(!passes(b"dir/", b"", b"dir%2Fx"));
    assert!(passes(b"schemaVersion=1/", b"", b"schemaVersion=1/x"));
    assert!(passes(b"100%", b"", b"100%/x"));
}

#[test]
fn keys_are_bytes() {
    assert!(passes(b"\xff\x00", b"\xfe", b"\xff\x00mid\xfe"));
    assert!(passes("é".as_bytes(), b"", "été".as_bytes()));
    // Composed and decomposed forms are different keys, and case matters.
    assert!(!passes("é".as_bytes(), b"", "e\u{301}".as_bytes()));
    assert!(!passes(b"Logs/", b"", b"logs/x"));
}

#[test]
fn a_condition_longer_than_any_key_is_refused() {
    Filter::new(vec![b'a'; 1024], vec![b'a'; 1024]).validate().unwrap();
    let e = Filter::new("", vec![b'a'; 1025]).validate().unwrap_err();
    assert_eq!(e.place(), Some("key"));
    assert!(e.message().contains("the suffix has 1025 bytes"), "{e}");
}

#[test]
fn form_decoding_is_exact() {
    assert_eq!(decode_form("schemaVersion%3D1/").unwrap(), b"schemaVersion=1/");
    assert_eq!(decode_form("my+photos%2fa%2Bb").unwrap(), b"my photos/a+b");
    assert_eq!(decode_form("%ff%FE").unwrap(), b"\xff\xfe");
    for bad in ["%", "%4", "100%", "%zz", "%+1", "a%é"] {
        assert!(decode_form(bad).is_err(), "{bad}");
    }
}

#[test]
fn rules_are_found_by_bucket_and_type() {
    let m = compile(&[
        rule(None, &["s3:ObjectCreated:*"], b"", b""),
        rule(Some("photos"), &["s3:ObjectRemoved:*"], b"a/", b""),
        rule(Some("photos"), &["s3:ObjectCreated:*"], b"a/", b".jpg"),
        rule(Some("other"), &["*"], b"", b".jpg"),
    ]);
    assert_eq!(found(&m, "photos", PUT, b"a/x.jpg"), [0, 2]);
    assert_eq!(found(&m, "photos", DELETE, b"a/x.jpg"), [1]);
    assert_eq!(found(&m, "other", PUT, b"a/x.jpg"), [0, 3]);
    assert_eq!(found(&m, "unheard-of", PUT, b"k"), [0]);
    assert_eq!(found(&m, "Photos", DELETE, b"a/x.jpg"), [] as [u32; 0]);
}

#[test]
fn the_gate_answers_by_bucket_and_type() {
    let m =
        compile(&[rule(Some("photos"), &["s3:ObjectRemoved:*"], b"a/", b""), rule(None, &["acme:Scan:*"], b"", b"")]);
    assert!(m.interested("photos", DELETE));
    assert!(!m.interested("photos", PUT));
    assert!(!m.interested("other", DELETE));
    assert!(m.interested("other", EventType::Custom("acme:Scan:Clean")));
    assert!(m.interested("photos", EventType::Custom("acme:Scan:Clean")));
    assert!(!m.interested("photos", EventType::Custom("acme:Other")));
    assert!(!compile(&[]).interested("photos", PUT));
}

#[test]
fn custom_types_match_by_name_and_by_star() {
    let m = compile(&[
        rule(Some("b"), &["acme:Scan:Clean"], b"", b""),
        rule(Some("b"), &["acme:*"], b"", b""),
        rule(Some("b"), &["*"], b"", b""),
        rule(Some("b"), &["s3:*"], b"", b""),
    ]);
    assert_eq!(found(&m, "b", EventType::Custom("acme:Scan:Clean"), b"k"), [0, 1, 2]);
    assert_eq!(found(&m, "b", EventType::Custom("acme:Scan:Infected"), b"k"), [1, 2]);
}

#[test]
fn what_is_in_the_output_stays() {
    let m = compile(&[rule(None, &["*"], b"", b"c"), rule(None, &["*"], b"a", b"")]);
    let mut out = vec![9, 8];
    let frame = frame_of("b", PUT, b"abc");
    m.matches(&FrameView::parse(&frame).unwrap(), &mut MatchMemory::default(), &mut out);
    assert_eq!(out, [9, 8, 0, 1]);
}

#[test]
fn events_of_the_store_itself_reach_rules_of_every_bucket() {
    let m = compile(&[rule(None, &["System:*"], b"", b""), rule(Some("b"), &["*"], b"", b"")]);
    assert_eq!(found(&m, "", EventType::Known(KnownType::SystemHealthFailed), b""), [0]);
}

#[test]
fn nested_prefixes_a_thousand_deep() {
    let key = vec![b'a'; 1024];
    let rules: Vec<Rule> = (0..=1024).map(|n| rule(Some("b"), &["*"], &key[..n], b"")).collect();
    let m = compile(&rules);
    assert_eq!(found(&m, "b", PUT, &key[..700]).len(), 701);
    assert_eq!(found(&m, "b", PUT, b"ab"), [0, 1]);
}

#[test]
fn more_than_65536_rules_behind_one_prefix() {
    let one = rule(Some("b"), &["s3:ObjectCreated:*"], b"logs/", b"");
    let m = compile(&vec![one; 70_000]);
    assert_eq!(found(&m, "b", PUT, b"logs/x").len(), 70_000);
    assert!(found(&m, "b", PUT, b"log").is_empty());
}

#[test]
fn rules_are_filed_under_what_few_share() {
    let rules: Vec<Rule> = (0..20_000)
        .map(|n| rule(Some("b"), &["s3:ObjectCreated:Put"], b"logs/", format!("-{n:05}.gz").as_bytes()))
        .collect();
    let m = compile(&rules);
    assert_eq!(found(&m, "b", PUT, b"logs/2024-00017.gz"), [17]);
    // Were they filed under what they share, each would be checked.
    let mut memory = MatchMemory::default();
    let frame = frame_of("b", PUT, b"logs/2024-00017.gz");
    m.matches(&FrameView::parse(&frame).unwrap(), &mut memory, &mut Vec::new());
    assert_eq!(memory.met(), 1);
}

#[test]
fn a_rule_among_many_alike_is_met_alone() {
    for count in [1000, 2000, 4000] {
        let text = |n: u32| format!("{}{n:06}/", "ab".repeat(20));
        let conditions: [fn(String) -> Filter; 4] = [
            |x| Filter::new(x, ""),
            |x| Filter::new("", x),
            |x| Filter::Is(Field::Key, Test::equals(x)),
            |x| Filter::Is(Field::Key, Test::contains(x)),
        ];
        for condition in conditions {
            let rules: Vec<Rule> =
                (0..count).map(|n| rule(Some("b"), &["*"], b"", b"").with_filter(condition(text(n)))).collect();
            let frame = frame_of("b", PUT, text(123).as_bytes());
            let mut memory = MatchMemory::default();
            let mut out = Vec::new();
            compile(&rules).matches(&FrameView::parse(&frame).unwrap(), &mut memory, &mut out);
            assert_eq!((&out[..], memory.met()), (&[123][..], 1), "of {count}");
        }
    }
}

fn frame_with_tags(tags: &[(&str, &str)]) -> Vec<u8> {
    let mut event = Event::new(PUT, "b", b"k");
    event.tags = tags;
    frame::encode_to_vec(&event, 1)
}

#[test]
fn more_than_65536_names_of_tags() {
    let tag = |n: u32| Filter::Is(Field::Tag(format!("name-{n}").into()), Test::equals("x"));
    let rules: Vec<Rule> = (0..66_000).map(|n| rule(Some("b"), &["*"], b"", b"").with_filter(tag(n))).collect();
    let m = compile(&rules);
    assert_eq!(found_in(&m, &frame_with_tags(&[("name-3", "x"), ("name-65999", "x"), ("name-4", "y")])), [3, 65_999]);
}

#[test]
fn a_value_of_one_tag_does_not_meet_the_rules_of_others() {
    let tag = |n: u32| Filter::Is(Field::Tag(format!("name-{n:04}").into()), Test::equals("x"));
    let rules: Vec<Rule> = (0..1000).map(|n| rule(Some("b"), &["*"], b"", b"").with_filter(tag(n))).collect();
    let mut memory = MatchMemory::default();
    let frame = frame_with_tags(&[("name-0017", "x"), ("name-0018", "y"), ("name", "x")]);
    compile(&rules).matches(&FrameView::parse(&frame).unwrap(), &mut memory, &mut Vec::new());
    assert_eq!(memory.met(), 1);
}

#[test]
fn texts_of_two_letters_are_found_in_keys_of_two_letters() {
    let text = |n: u32, len: u32| -> Vec<u8> { (0..len).map(|i| if n >> i & 1 == 0 { b'a' } else { b'b' }).collect() };
    let texts: Vec<Vec<u8>> = (0..1024).map(|n| text(n, 10)).collect();
    let rules: Vec<Rule> = texts
        .iter()
        .map(|x| rule(Some("b"), &["*"], b"", b"").with_filter(Filter::Is(Field::Key, Test::contains(x.clone()))))
        .collect();
    let m = compile(&rules);
    for n in [0, 0xdead_beef, 0x1234_5678, u32::MAX] {
        let key = text(n, 32);
        let there = |x: &Vec<u8>| key.windows(x.len()).any(|w| w == x);
        let expected: Vec<u32> = (0..1024).filter(|i| there(&texts[*i as usize])).collect();
        assert_eq!(found(&m, "b", PUT, &key), expected);
    }
}

#[test]
fn long_programs_say_the_same_as_short_ones() {
    for (count, name_len) in [(1, 8), (3, 1000), (64, 1000), (66, 1000), (254, 8), (255, 8), (255, 200), (255, 1000)] {
        let name = |n: usize| format!("{n:0name_len$}");
        let tag = |n, test| Filter::Is(Field::Tag(name(n).into()), test);
        let absent = Filter::all((0..count).map(|n| tag(n, Test::Absent)));
        let other = Filter::any((0..count).map(|n| tag(n, Test::equals("x"))));
        let m = compile(&[absent, other].map(|f| rule(Some("b"), &["*"], b"", b"").with_filter(f)));
        assert_eq!(found_in(&m, &frame_with_tags(&[])), [0]);
        for n in [0, count / 2, count - 1] {
            assert_eq!(found_in(&m, &frame_with_tags(&[(&name(n), "x")])), [1], "{n} of {count} with {name_len}");
            assert!(found_in(&m, &frame_with_tags(&[(&name(n), "y")])).is_empty(), "{n} of {count} with {name_len}");
        }
    }
}

proptest! {
    #[test]
    fn form_decoding_undoes_form_encoding(raw in "\\PC{0,20}") {
        let encoded: String = url::form_urlencoded::byte_serialize(raw.as_bytes()).collect();
        prop_assert_eq!(decode_form(&encoded).unwrap(), raw.as_bytes());
    }
}
