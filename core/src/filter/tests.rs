use proptest::prelude::*;

use super::*;
use crate::event::{EventType, EventTypes, KnownType};
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

fn found(m: &Matcher, bucket: &str, t: EventType<'_>, key: &[u8]) -> Vec<u32> {
    let mut out = Vec::new();
    m.matches(bucket, t, key, &mut out);
    out
}

/// One rule with this prefix and suffix, tried as a filter and through the index.
fn passes(prefix: &[u8], suffix: &[u8], key: &[u8]) -> bool {
    let r = rule(Some("b"), &["*"], prefix, suffix);
    let alone = r.filter.matches(key);
    let m = Matcher::compile(&[r]);
    assert_eq!(!found(&m, "b", PUT, key).is_empty(), alone);
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
    assert_eq!(e.place(), Some("suffix"));
    assert!(e.message().contains("1025"), "{e}");
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
    let m = Matcher::compile(&[
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
    let m = Matcher::compile(&[
        rule(Some("photos"), &["s3:ObjectRemoved:*"], b"a/", b""),
        rule(None, &["acme:Scan:*"], b"", b""),
    ]);
    assert!(m.interested("photos", DELETE));
    assert!(!m.interested("photos", PUT));
    assert!(!m.interested("other", DELETE));
    assert!(m.interested("other", EventType::Custom("acme:Scan:Clean")));
    assert!(m.interested("photos", EventType::Custom("acme:Scan:Clean")));
    assert!(!m.interested("photos", EventType::Custom("acme:Other")));
    assert!(!Matcher::compile(&[]).interested("photos", PUT));
}

#[test]
fn custom_types_match_by_name_and_by_star() {
    let m = Matcher::compile(&[
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
    let m = Matcher::compile(&[rule(None, &["*"], b"", b"c"), rule(None, &["*"], b"a", b"")]);
    let mut out = vec![9, 8];
    m.matches("b", PUT, b"abc", &mut out);
    assert_eq!(out, [9, 8, 0, 1]);
}

#[test]
fn events_of_the_store_itself_reach_rules_of_every_bucket() {
    let m = Matcher::compile(&[rule(None, &["System:*"], b"", b""), rule(Some("b"), &["*"], b"", b"")]);
    assert_eq!(found(&m, "", EventType::Known(KnownType::SystemHealthFailed), b""), [0]);
}

#[test]
fn nested_prefixes_a_thousand_deep() {
    let key = vec![b'a'; 1024];
    let rules: Vec<Rule> = (0..=1024).map(|n| rule(Some("b"), &["*"], &key[..n], b"")).collect();
    let m = Matcher::compile(&rules);
    assert_eq!(found(&m, "b", PUT, &key[..700]).len(), 701);
    assert_eq!(found(&m, "b", PUT, b"ab"), [0, 1]);
}

#[test]
fn more_than_65536_rules_behind_one_prefix() {
    let one = rule(Some("b"), &["s3:ObjectCreated:*"], b"logs/", b"");
    let m = Matcher::compile(&vec![one; 70_000]);
    assert_eq!(found(&m, "b", PUT, b"logs/x").len(), 70_000);
    assert!(found(&m, "b", PUT, b"log").is_empty());
}

#[test]
fn rules_are_filed_under_what_few_share() {
    let rules: Vec<Rule> = (0..20_000)
        .map(|n| rule(Some("b"), &["s3:ObjectCreated:Put"], b"logs/", format!("-{n:05}.gz").as_bytes()))
        .collect();
    let m = Matcher::compile(&rules);
    assert_eq!(found(&m, "b", PUT, b"logs/2024-00017.gz"), [17]);
    // The shared prefix must not be where they are filed.
    assert_eq!(m.filed_by_prefix("b"), 0);
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop::sample::select(b"ab/".to_vec()), 0..6)
}

fn any_rule() -> impl Strategy<Value = Rule> {
    let events = prop::sample::select(vec![
        "s3:ObjectCreated:*",
        "s3:ObjectRemoved:Delete",
        "*",
        "acme:*",
        "acme:Scan:Clean",
        "s3:ObjectCreated:Put",
    ]);
    let bucket = prop::sample::select(vec![None, Some("a"), Some("b"), Some("c")]);
    (bucket, prop::collection::vec(events, 1..3), bytes(), bytes()).prop_map(|(b, e, p, s)| rule(b, &e, &p, &s))
}

proptest! {
    #[test]
    fn agrees_with_the_plain_loop(
        rules in prop::collection::vec(any_rule(), 0..40),
        keys in prop::collection::vec(bytes(), 1..20),
    ) {
        let m = Matcher::compile(&rules);
        for bucket in ["a", "b", "d", ""] {
            for t in [PUT, DELETE, EventType::Custom("acme:Scan:Clean"), EventType::Custom("acme:Scan:Infected")] {
                for key in &keys {
                    let expected: Vec<u32> = (0..rules.len() as u32)
                        .filter(|&i| {
                            let r = &rules[i as usize];
                            r.bucket.as_deref().is_none_or(|b| b == bucket)
                                && r.events.contains(t)
                                && r.filter.matches(key)
                        })
                        .collect();
                    prop_assert_eq!(found(&m, bucket, t, key), expected.clone());
                    prop_assert!(expected.is_empty() || m.interested(bucket, t));
                }
                let wanted = rules.iter().any(|r| {
                    r.bucket.as_deref().is_none_or(|b| b == bucket) && r.events.contains(t)
                });
                prop_assert_eq!(m.interested(bucket, t), wanted);
            }
        }
    }

    #[test]
    fn form_decoding_undoes_form_encoding(raw in "\\PC{0,20}") {
        let encoded: String = url::form_urlencoded::byte_serialize(raw.as_bytes()).collect();
        prop_assert_eq!(decode_form(&encoded).unwrap(), raw.as_bytes());
    }
}

#[test]
fn patterns_with_the_same_types_are_kept_once() {
    let m =
        Matcher::compile(&[rule(None, &["ObjectCreated:*"], b"x", b""), rule(None, &["s3:ObjectCreated:*"], b"", b"")]);
    assert_eq!(m.pattern_count(), 1);
}
