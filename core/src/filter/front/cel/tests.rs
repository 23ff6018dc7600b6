//! What expressions mean, against the interpreter of CEL, and what is refused.

use std::collections::HashMap;
use std::sync::Arc;

use cel::common::ast::{EntryExpr, Expr, IdedExpr, operators as op};
use cel::extractors::This;
use cel::parser::PrattParser;
use proptest::prelude::*;

use super::*;
use crate::event::{Event, EventTypes, FrameView, KnownType, frame};
use crate::filter::cel::EVALUATIONS;
use crate::filter::{Cost, FilterLimits, MatchMemory, Matcher, NamedFilters, Regex};
use crate::rule::Rule;

fn event() -> Vec<u8> {
    let mut e = Event::new(KnownType::ObjectCreatedPut.into(), "photos", b"in/a.jpg");
    (e.size, e.requester, e.source_ip) = (Some(2048), "alice", "10.1.2.3");
    e.time_ns = 1_700_000_000_000_000_000; // 2023-11-14T22:13:20Z
    (e.tags, e.metadata) = (&[("env", "prod"), ("a b", "c")], &[("colour", "red")]);
    e.data = br#"{"n": 5, "f": true, "s": "text", "z": null, "when": "23-11-14T22:00:00Z", "o": {"list": ["x", 2], "k-1": "v"}}"#;
    frame::encode_to_vec(&e, 1)
}

fn holds(text: &str) -> bool {
    let filter = Filter::parse_cel(text).unwrap_or_else(|e| panic!("{text}: {e}"));
    filter.matches_frame(FrameView::parse(&event()).unwrap())
}

#[track_caller]
fn refused(text: &str, parts: &[&str]) {
    match Filter::parse_cel(text) {
        Err(e) => super::super::tests::refused_with(e, parts),
        Ok(f) => panic!("{text} was read as {f:?}"),
    }
}

#[test]
fn expressions_hold_or_do_not() {
    for text in [
        "true",
        "!false",
        "event.key == 'in/a.jpg'",
        "\"photos\" == event.bucket",
        "event.key.startsWith(\"in/\") && event.key.endsWith(\".jpg\")",
        "event.key.contains('/a') || event.key.contains('zz')",
        r"event.key.matches('^in/.*\\.jpg$')",
        r#"event.key.matches(r"^in/.*\.jpg$")"#,
        "event.key != 'x'",
        "!(event.key == 'x')",
        "event.size > 2 * 1024 - 1 && event.size <= 2048u && event.size < 1e9 && 2047 < event.size",
        "event.size == 0x800",
        "event.size == 2048.0",
        "event.time >= timestamp('2023-11-14T22:13:20Z') && event.time < timestamp('2024-01-01T00:00:00+01:00')",
        "event.event_type == 's3:ObjectCreated:Put'",
        "event.event_type.startsWith('s3:ObjectCreated:')",
        "event.requester in ['bob', 'alice',]",
        "!(event.requester in ['bob'])",
        "event.size in [1, 2048]",
        "'env' in event.tags && !('x' in event.tags)",
        "event.tags.env == 'prod' && event.tags['a b'] == 'c' && event.metadata['Colour'] == 'red'",
        "has(event.tags.env) && !has(event.tags.x) && has(event.requester) && !has(event.etag)",
        "event.data.n == 5 && event.data.n > 4.5 && event.data.f && event.data.s == 'text' && event.data.z == null",
        "!event.data.g || event.data.f",
        "event.data.o['k-1'] == 'v' && event.data.o.list == 'x' && event.data.o.list == 2",
        "event.data.n != 'five' && event.data.n != null",
        "event.size > 1 ? event.bucket == 'photos' : false",
        "event.size > 5000 ? false : event.bucket == 'photos'",
        // An operand that is an error is left out where the other one decides.
        "event.etag == 'x' || event.bucket == 'photos'",
        "!(event.etag == 'x' && event.bucket == 'x')",
        "event.key == 'in/a.jpg' // a remark",
        "event.origin == \"user\" && event.priority == 'normal' && event.hops == 0",
        "event.key == '''in/a.jpg''' && event.key == \"in\\x2fa\\u002ejp\\147\"",
    ] {
        assert!(holds(text), "{text}");
    }
    for text in [
        "false",
        "event.key == 'in/A.jpg'",
        "event.key.startsWith('a')",
        "event.size > 2048",
        "event.tags.env != 'prod'",
        "event.data.f == false",
        "!event.data.f",
        "event.data.o.list == 'y'",
        "!(event.data.o.list == 'x')",
        "event.requester in []",
        // Errors: neither they nor their negations hold.
        "event.etag == 'x'",
        "event.etag != 'x'",
        "!(event.etag == 'x')",
        "event.etag == 'x' || event.bucket == 'x'",
        "!(event.etag == 'x') && event.bucket == 'photos'",
        "event.data.n.startsWith('5')",
        "!event.data.n.startsWith('5')",
        "event.data.s > 5",
        "!(event.data.s > 5)",
        "event.data.n",
        "!event.data.n",
        "event.etag == 'x' ? true : true",
    ] {
        assert!(!holds(text), "{text}");
    }
}

#[test]
fn what_is_not_understood_is_refused_naming_the_part() {
    refused("", &["cel, column 1", "ends", "a value"]);
    refused("event.key ==", &["column 13", "ends"]);
    refused("event.key = 'a'", &["column 11", "`=`"]);
    refused("event.requestr == 'a'", &["column 1", "unknown field `requestr`", "did you mean `requester`?"]);
    refused("key == 'a'", &["unknown name `key`", "event.key"]);
    refused("event", &["the whole event"]);
    refused("event.tags == 'a'", &["`event.tags` is not understood", "event.tags[\"name\"]"]);
    refused("event.key.x == 'a'", &["`key` has no members"]);
    refused("event.key", &["no boolean", "has()"]);
    refused("'a'", &["no boolean"]);
    refused("event.key == 5", &["`key` never has such a value", "in quotes"]);
    refused("event.size == '5'", &["`size` never has such a value", "a number"]);
    refused("event.time == '2024-01-01T00:00:00Z'", &["timestamp"]);
    refused("event.time > timestamp('soon')", &["column 14", "`timestamp(\"soon\")` has no value"]);
    refused("event.key < 5", &["have no order"]);
    refused("event.size > 'b'", &["have no order"]);
    refused("event.key.length() > 5", &["`event.key.length()`", "no such function"]);
    refused("event.key.startWith('a')", &["`event.key.startWith(\"a\")`", "did you mean `startsWith`?"]);
    refused("event.key.startsWith('a', 'b')", &["one argument"]);
    refused("event.key.startsWith(event.size)", &["`event.size`", "no text", "string()"]);
    refused("event.key.startsWith(5)", &["column 22", "no text"]);
    refused("event.size.startsWith('a')", &["`size` is no text"]);
    refused("event.key.matches('(')", &["column 19", "no regular expression"]);
    refused("event.data.list.all(x, x > 5)", &["comprehensions"]);
    refused("event.data.list.exists(x, x == 'a')", &["comprehensions", "each of its elements"]);
    refused("event.key in event.bucket", &["no list"]);
    refused("event.key in 'abc'", &["no list"]);
    refused("has(event.tags['x'])", &["`\"name\" in event.tags`"]);
    refused("event.size + 1", &["`event.size + 1`", "no boolean"]);
    refused("size(event.key)", &["no boolean"]);
    refused(
        "event.size > 9223372036854775807 * 4",
        &["`9223372036854775807 * 4` has no value", "column 14", "verflow"],
    );
    refused("event.size > 5 / 0", &["`5 / 0` has no value", "zero"]);
    refused("event.size > 2u + 1", &["`2u + 1` has no value"]);
    refused("event.size > 99999999999999999999", &["column 14", "no number"]);
    refused("event.size > 12ab", &["column 14", "`12a` is no number"]);
    refused("event.event_type == 's3:ObjectCreted:Put'", &["did you mean"]);
    refused("event.event_type == 'ObjectCreated:Put'", &["write \"s3:ObjectCreated:Put\""]);
    refused("event.event_type == 's3:ObjectCreated:*'", &["startsWith()"]);
    refused("event.origin == 'me'", &["unknown origin `me`"]);
    refused("event.key == b'a'", &["`key` never has such a value"]);
    refused("event.key == {'a': 1}", &["`key` never has such a value"]);
    refused("event.key == Key{a: 1}", &["messages"]);
    refused("event.key == 'a", &["does not end"]);
    refused("event.key == 'a\\q'", &["column 14", "escape"]);
    refused("event.key == 'a' & true", &["column 18", "`&` has no meaning"]);
    refused("event.?key == 'a'", &["column 6"]);
    refused("event.key == €", &["column 14", "`€` has no meaning"]);
    refused("size(event) > 1", &["column 6", "the whole event"]);
    refused("event[event.key] == 1", &["the whole event"]);
    refused("event.data[0].x == event.requestr", &["unknown field `requestr`", "column 20"]);
    refused("size(key) > 5", &["column 6", "unknown name `key`"]);
    refused("(event.key + 'x').matches('x')", &["regular expressions are not evaluated", "condition of its own"]);
    refused("event.key.matches(event.bucket)", &["regular expressions are not evaluated"]);
    refused("(event.size > 1) == matches(event.key, 'x')", &["regular expressions are not evaluated"]);
    refused("int(event.key, 2) > 1", &["not called so", "int(…)"]);
    refused("event.time.getHours(1, 2) > 1", &["not called so", "time zone"]);
    refused("startsWith(event.key + 'x', 'a')", &["not called so", "….startsWith(…)"]);
    refused("optional.of(event.key) == 1", &["no such function"]);
    refused(&format!("event.key + '{}' == 'a'", "x".repeat(1025)), &["1025 bytes"]);
    refused("event.key == 'a' event", &["column 18", "`event` stands where the end"]);
    refused("(event.key == 'a'", &["`)`"]);
    refused("event.key == 'a')", &["column 17", "closes nothing"]);
    refused("size([event.key) > 1", &["column 16", "closes nothing"]);
    refused(&"x".repeat(9000), &["9000 bytes"]);
    refused(&vec!["event.key == 'a'"; 300].join("||"), &["more than 256 conditions"]);
    // Each choice asks twice for its condition.
    let choice = (0..30).fold("event.data.f".to_owned(), |c, _| format!("({c} ? true : false)"));
    refused(&choice, &["more than 256 conditions"]);
}

/// The condition is evaluated, and this is its text.
#[track_caller]
fn evaluated(text: &str, shown: &str) {
    match Filter::parse_cel(text) {
        Ok(Filter::Cel(cel)) => assert_eq!((cel.condition().as_str(), cel.wanted()), (shown, !shown.starts_with('!'))),
        other => panic!("{text} was read as {other:?}"),
    }
}

#[test]
fn what_is_no_test_is_evaluated() {
    for text in [
        "size(event.key) == 8 && event.key.size() < 9",
        "event.size + 1 == 2049 && event.size * 2 - 96 == 4000 && event.size % 1000 == 48 && -event.size < 0",
        "event.key == 'in/' + 'a.jpg' && event.key + 'x' == 'in/a.jpgx'",
        "event.key.startsWith(event.bucket) || event.bucket < event.key || event.bucket != event.key",
        "event.key > 'a' && 'z' > event.key",
        "double(event.size) / 4.0 == 512.0 && string(event.size) == '2048' && int('5') == event.data.n",
        "event.time > timestamp('20' + event.data.when) && event.time - timestamp('2023-11-14T20:00:00Z') < duration('3h')",
        "event.time.getFullYear() == 2023 && event.time.getHours('+02:00') == 0",
        "'x' in event.data.o.list && event.data.o.list[0] == 'x' && event.data.o.list[1] + 1 == 3",
        "size(event.data.o.list) == 2 && event.data.o.list == ['x', 2] && !(7 in event.data.o.list)",
        "event.tags[event.data.s == 'text' ? 'env' : 'x'] == 'prod' && size(event.tags) == 2",
        "event.requester in [event.data.s, 'al' + 'ice'] && event.key in ['in/' + event.data.s, event.key]",
        "event.metadata['x-amz-meta-Colour'] + '' == 'red' && size(event.metadata) == 1",
        "event['metadata'].Colour + event['bucket'] == 'redphotos' && event['metadata'].Colour == 'red'",
        "event.key in {event.key: true} && {'a': event.size}['a'] == 2048",
        "(event.size > 1) == true && (event.size > 1 ? 1 : 2) == 1",
        "type(event.size) == int && type(event.key) == string && type(event.data.o) == map",
        "event.event_type + event.origin + event.priority == 's3:ObjectCreated:Putusernormal' && event.hops + 1 == 1",
        "event.data.o['k-1'] + event.source_ip == 'v10.1.2.3'",
        "!(size(event.key) > 100) && !(event.size + 1 == 5)",
        // An error is left out where the other operand decides.
        "event.size / 0 > 1 || event.bucket == 'photos'",
        "size(event.etag) > 1 || true",
        "!(event.size + event.key == 5 && false)",
    ] {
        assert!(holds(text), "{text}");
    }
    for text in ["size(event.key) > 8", "event.size + 1 == 5", "event.data.list in event.data.o.list"] {
        assert!(!holds(text), "{text}");
    }
    // Errors: neither they nor their negations hold.
    for text in [
        "event.size / 0 > 1",
        "event.size % 0 > 1",
        "event.size + 9223372036854775807 > 0",
        "event.size * -9223372036854775807 > 0",
        "-event.size - 9223372036854775807 < 0",
        "size(event.etag) > 1",
        "event.size + event.key == 5",
        "event.size + 1.5 > 1.0",
        "event.data.o.list[2] == 1",
        "event.data.o.list[-1] == 1",
        "event.data.none + 1 > 1",
        "event.data.s.x.y + 1 > 1",
        "int(event.key) == 1",
        "int(1e300) + event.size > 1",
        "timestamp(event.key) > event.time",
        "duration(event.key) > event.time - event.time",
        "event.time - timestamp('0001-01-01T00:00:00Z') > duration('1h')",
        "event.time.getHours('nowhere') > 1",
        "(event.data.s ? 1 : 2) == 1",
        "event.data.o.list[0]",
    ] {
        assert!(!holds(text) && !holds(&format!("!({text})")), "{text}");
    }
}

#[test]
fn the_largest_part_that_is_no_test_is_evaluated_and_the_rest_is_tested() {
    evaluated("size(event.key) > 5", "size(event.key) > 5");
    evaluated("!(size(event.key)>5)", "!(size(event.key) > 5)");
    evaluated("! !(size(event.key) > 5)", "size(event.key) > 5");
    evaluated("(event.size + 1)*2 > 5 // much", "(event.size + 1) * 2 > 5");
    evaluated("(event.size > 5) == (event.hops < 1 && true)", "event.size > 5 == (event.hops < 1 && true)");
    evaluated("event.metadata.Colour+'\\n\"' < 'x'", r#"event.metadata.colour + "\n\"" < "x""#);
    evaluated("(event.size > 1 ? -1 : -(1)) < event.hops", "(event.size > 1 ? -1 : -(1)) < event.hops");
    let filter = Filter::parse_cel("event.key.startsWith('in/') && size(event.key) > 5 && event.size > 1").unwrap();
    let shown = filter.to_json().to_string();
    let cel = r#"{"cel":"size(event.key) > 5"}"#;
    assert_eq!(shown, format!(r#"{{"all":[{{"prefix":"in/"}},{cel},{{"size":{{"above":1}}}}]}}"#));
    let plan = filter.plan();
    assert_eq!(plan.cost, Cost::Indexed);
    let steps: Vec<String> = plan.filings[0].program.iter().map(|s| s.condition.to_json().to_string()).collect();
    assert_eq!(steps, [r#"{"size":{"above":1}}"#, cel], "the dearest comes last");
    // Alone, it is tried on each event.
    let alone = Filter::parse_cel("size(event.key) > 5").unwrap().plan();
    assert!(alone.cost.is_unindexed() && alone.reasons[0].contains("evaluated"), "{alone}");
}

#[test]
fn the_native_form_has_it_and_gives_it_back() {
    let read = |v: serde_json::Value| Filter::from_json(&v, &NamedFilters::new());
    for text in ["size(event.key) > 5", "!(size(event.key) > 5)", "event.key == 'a'"] {
        let filter = Filter::parse_cel(text).unwrap();
        assert_eq!(read(filter.to_json()).unwrap(), filter, "{text}");
    }
    let mixed = read(serde_json::json!({"prefix": "in/", "cel": "event.size + 1 > 5 && event.size < 9"})).unwrap();
    assert_eq!(read(mixed.to_json()).unwrap().to_json(), mixed.to_json());
    let named = NamedFilters::from_json([("long", serde_json::json!({"cel": "size(event.key) > 5"}))]).unwrap();
    let used = Filter::from_json(&serde_json::json!({"use": "long"}), &named).unwrap();
    assert_eq!(used, Filter::parse_cel("size(event.key) > 5").unwrap());
    let e = read(serde_json::json!({"any": [{"cel": "event.key =="}]})).unwrap_err();
    super::super::tests::refused_with(e, &["filter.any[0].cel", "column 13"]);
    assert!(read(serde_json::json!({"cel": 5})).unwrap_err().to_string().contains("not a string"));
    let long = vec!["size(event.key) > 5"; 40].join(" || ");
    let e = read(serde_json::json!({"all": [{"cel": long}, {"cel": long}]})).unwrap_err();
    super::super::tests::refused_with(e, &["filter.all[1].cel", "more than 256 conditions"]);
}

#[test]
fn what_an_expression_gives_is_told() {
    let told = |text: &str| {
        let filter = Filter::parse_cel(text).unwrap();
        let bytes = event();
        filter.explain(FrameView::parse(&bytes).unwrap()).iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(
        told("event.bucket == 'photos' && size(event.key) > 50"),
        [r#"{"cel":"size(event.key) > 50"} is not met: evaluated, it is false"#]
    );
    assert_eq!(
        told("!(size(event.key) > 5)"),
        [r#"{"cel":"!(size(event.key) > 5)"} is not met: evaluated, it is true"#]
    );
    let error = told("size(event.etag) > 5");
    assert!(error[0].contains("an error: No such key: etag"), "{error:?}");
    assert!(told("size(event.key) > 5").is_empty());
    // What is opaque is equal to itself only.
    let (a, b) = (Filter::parse_cel("size(event.key)>5").unwrap(), Filter::parse_cel("size(event.key) > 6").unwrap());
    assert!(a.verdict().is_none() && !a.excludes(&b) && a != b);
    assert_eq!(a, Filter::parse_cel("(size(event.key) > 5)").unwrap());
}

#[test]
fn macros_are_refused() {
    for name in check::MACROS {
        for text in [
            format!("event.data.list.{name}(x, x > 5)"),
            format!("event.data.list.{name}(x, y, x > y)"),
            format!("size(event.data.list.{name} (x, x)) > 1"),
            format!("cel.{name}(x, 1, x > event.size)"),
            format!("{name}(event.key)"),
        ] {
            refused(&text, &[name, "comprehensions", "each of its elements"]);
        }
        // As names they are as good as any.
        assert!(Filter::parse_cel(&format!("event.data.{name} == 'all(x, y)'")).is_ok());
    }
}

/// Runs with a stack of 2 MiB, as threads have.
fn on_a_small_stack(f: impl FnOnce() + Send + 'static) {
    std::thread::Builder::new().stack_size(2 << 20).spawn(f).unwrap().join().unwrap();
}

#[test]
fn nothing_nested_deep_overflows_the_stack() {
    on_a_small_stack(|| {
        let full = |part: &str| part.repeat(CEL_BYTES_MAX / part.len());
        for part in [
            "(",
            "!",
            "-",
            "!-",
            "[",
            "{",
            "a(",
            "a.",
            "a?a:",
            "a?",
            "-(",
            "!(",
            "a[",
            "[[",
            "a.a(",
            "1+",
            "1*-",
            "1<",
            "a in ",
            "a?(",
            "{1:",
            "has(",
            "a||(",
            "a||a&&(",
            "!a||(",
            "int(",
            "()",
            "(1)",
            "a:",
            ",",
            "\"\\",
            "event.data.a.",
        ] {
            refused(&full(part), &[]);
        }
        for (open, inner, close) in [
            ("(", "1", ")"),
            ("!(", "event.data.f", ")"),
            ("-(", "event.size", ")"),
            ("[", "event.size", "]"),
            ("int(", "event.size", ")"),
            ("{1:", "event.size", "}"),
            ("(1+", "event.size", ")"),
            ("(true||false&&", "event.data.f", ")"),
            ("(event.data.f?1:", "event.size", ")"),
            ("(true&&true||", "size(event.key) > 1", ")"),
            ("((event.data.f||event.data.f||event.data.f&&", "event.data.f", "))"),
        ] {
            for depth in [1, 10, 30, 31, 32, 60, 62, 63, 64, 65, 300, 1000] {
                let nested = [open.repeat(depth), inner.to_owned(), close.repeat(depth)].concat();
                for text in [nested.clone(), format!("{nested} == 1"), format!("{nested} == true")] {
                    let Ok(filter) = Filter::parse_cel(&text) else { continue };
                    assert!(depth <= 64, "{text}");
                    let _ = filter.matches_frame(FrameView::parse(&event()).unwrap());
                }
            }
        }
        let signs = format!("{}event.data.f{}", "!(".repeat(12), ")".repeat(12));
        assert!(holds(&signs) && holds(&format!("({signs}) == true")));
        refused(&"!".repeat(200), &["more than 64 deep"]);
        refused(&"(".repeat(5000), &["more than 64 deep"]);
        refused(&format!("event.data{}", ".a".repeat(2000)), &["more than 64 deep"]);
        refused(&format!("event.data{} == 1", ".a".repeat(33)), &["no single value"]);
        // Many side by side are not deep.
        let many = vec!["size(event.key) > 1"; 40].join(" || ");
        assert!(holds(&many) && holds(&format!("({many}) == true")));
        // Data that is nested deep is an error where it is evaluated as a whole.
        let mut e = Event::new(KnownType::ObjectCreatedPut.into(), "b", b"k");
        let data = format!("{{\"a\": {}1{}}}", "[".repeat(900), "]".repeat(900));
        e.data = data.as_bytes();
        let bytes = frame::encode_to_vec(&e, 1);
        let frame = FrameView::parse(&bytes).unwrap();
        for text in ["size(event.data.a) == 1", "!(size(event.data.a) == 1)"] {
            assert!(!Filter::parse_cel(text).unwrap().matches_frame(frame), "{text}");
        }
        let unmet = Filter::parse_cel("size(event.data.a) == 1").unwrap().explain(frame);
        assert!(unmet[0].to_string().contains("nested more than 64 deep"), "{}", unmet[0]);
    });
}

#[test]
fn what_sums_copy_is_bounded() {
    let sum = |n: usize| vec!["event.data.big"; n].join(" + ");
    refused(&format!("size({}) > 1", sum(24)), &["more than 16 deep"]);
    let lists = ["[event.data.big, event.data.big, event.data.big]"; 12].join(" + ");
    refused(&format!("size({lists}) > 1"), &["too many sums"]);
    let mut e = Event::new(KnownType::ObjectCreatedPut.into(), "b", b"k");
    let data = format!("{{\"big\": \"{}\"}}", "x".repeat(60_000));
    e.data = data.as_bytes();
    let bytes = frame::encode_to_vec(&e, 1);
    let view = FrameView::parse(&bytes).unwrap();
    let text = format!("size({}) == {}", sum(15), 15 * 60_000);
    assert!(Filter::parse_cel(&text).unwrap().matches_frame(view));
}

#[test]
fn limits_count_what_is_evaluated() {
    let filter = Filter::parse_cel("event.key + 'long text' == event.bucket").unwrap();
    assert_eq!(filter.nodes(), 5);
    let few = FilterLimits { nodes_max: 4, ..FilterLimits::default() };
    assert!(few.check_filter(&filter).unwrap_err().to_string().contains("nodes_max (4)"));
    let short = FilterLimits { literal_bytes_max: 8, ..FilterLimits::default() };
    let e = short.check_filter(&filter).unwrap_err();
    assert!(
        e.to_string().contains("event.key + \"long text\"") && e.to_string().contains("literal_bytes_max (8)"),
        "{e}"
    );
    assert!(FilterLimits::default().check_filter(&filter).is_ok());
    // The rules that each event is tried on have a limit, and these count as several.
    let rules: Vec<Rule> = (0..17).map(|n| rule(&format!("size(event.key) > {n}"))).collect();
    let e = FilterLimits::default().check_rules(&rules).unwrap_err();
    assert!(e.to_string().contains("unindexed_max (256)"), "{e}");
    assert!(FilterLimits::default().check_rules(&rules[..16]).is_ok());
    let many = vec!["event.key == event.bucket"; 90].join(" || ");
    refused(&many, &["more than 256 conditions"]);
}

#[test]
fn keys_that_are_no_utf8_are_bytes_where_they_are_evaluated() {
    let bytes = frame::encode_to_vec(&Event::new(KnownType::ObjectCreatedPut.into(), "b", b"in/\xff\xfe"), 1);
    let frame = FrameView::parse(&bytes).unwrap();
    for (text, is) in [
        ("event.key.startsWith('in/')", true),
        ("size(event.key) == 5", true),
        ("type(event.key) == bytes", true),
        ("event.key == event.bucket", false),
        ("!(event.key == event.bucket)", true),
        ("bytes(event.key) == b'in/\\xff\\xfe'", true),
        ("event.key + 'x' == 'y' || true", true),
        ("event.key + 'x' != 'y'", false),
        ("string(event.key) != 'y'", false),
        ("event.key < 'z' || event.key >= 'z'", false),
    ] {
        assert_eq!(Filter::parse_cel(text).unwrap().matches_frame(frame), is, "{text}");
    }
}

fn rule(text: &str) -> Rule {
    let mut rule = Rule::new("r", ["*"], &EventTypes::default()).unwrap().with_destination("x");
    rule.filter = Filter::parse_cel(text).unwrap();
    rule
}

#[test]
fn only_rules_that_the_index_finds_are_evaluated() {
    let text = |n: u32| format!("event.key.startsWith('tenant-{n}/') && size(event.key) > 8 && event.size < 100");
    let mut rules: Vec<Rule> = (0..4000).map(|n| rule(&text(n))).collect();
    rules.push(rule("event.key.endsWith('.jpg') && event.size + 1 == 6"));
    let matcher = Matcher::compile(&rules).unwrap();
    let mut memory = MatchMemory::default();
    let mut asked = |key: &str, size: u64| {
        let mut e = Event::new(KnownType::ObjectCreatedPut.into(), "b", key.as_bytes());
        e.size = Some(size);
        let bytes = frame::encode_to_vec(&e, 1);
        let (before, mut out) = (EVALUATIONS.get(), Vec::new());
        matcher.matches(&FrameView::parse(&bytes).unwrap(), &mut memory, &mut out);
        (out, EVALUATIONS.get() - before)
    };
    assert_eq!(asked("tenant-17/a", 5), (vec![17], 1));
    assert_eq!(asked("tenant-17/a.jpg", 5), (vec![17, 4000], 2));
    assert_eq!(asked("tenant-17/a.jpg", 50), (vec![17], 2));
    assert_eq!(asked("tenant-17/a", 500), (vec![], 0), "a test before it says no");
    assert_eq!(asked("other/a", 5), (vec![], 0));
    let one = |text: &str| Matcher::compile(&[rule(text)]).unwrap().bytes();
    assert!(
        one("event.key.startsWith('a') && event.size == 1") + 100
            < one("event.key.startsWith('a') && -event.size == 1")
    );
    // Before the event is known as a whole, it may pass.
    let bytes = frame::encode_to_vec(&Event::new(KnownType::ObjectCreatedPut.into(), "b", b"tenant-3/a"), 1);
    let (before, mut out) = (EVALUATIONS.get(), Vec::new());
    matcher.may_match(&FrameView::parse(&bytes).unwrap(), &mut memory, &mut out);
    assert_eq!((out, EVALUATIONS.get() - before), (vec![3], 0));
}

/// A value of JSON as the interpreter has it.
fn value_of(json: &serde_json::Value) -> cel::Value {
    use serde_json::Value as Json;
    match json {
        Json::Null => cel::Value::Null,
        Json::Bool(b) => (*b).into(),
        Json::Number(n) => match n.as_i64() {
            Some(n) => n.into(),
            None => n.as_f64().unwrap().into(),
        },
        Json::String(s) => s.as_str().into(),
        Json::Array(list) => list.iter().map(value_of).collect::<Vec<_>>().into(),
        Json::Object(map) => map.iter().map(|(k, v)| (k.clone(), value_of(v))).collect::<HashMap<_, _>>().into(),
    }
}

thread_local! {
    static ENV: Arc<cel::Env> = Arc::new(cel::Env::stdlib());
}

/// What the interpreter says of the whole expression, with nothing lowered; `None` is an error, or no boolean.
fn interpreted(text: &str, event: &serde_json::Value, time_ns: i64) -> Option<bool> {
    let mut context = cel::Context::with_env(ENV.with(Arc::clone));
    let matches = |This(text): This<Arc<String>>, regex: Arc<String>| {
        Regex::parse(&regex, false).unwrap().matches(text.as_bytes())
    };
    context.add_function("matches", matches).unwrap();
    let fields = event.as_object().unwrap().iter().map(|(k, v)| (k.clone(), value_of(v)));
    let time = chrono::DateTime::from_timestamp_nanos(time_ns).fixed_offset();
    let time = ("time".to_owned(), cel::Value::Timestamp(time));
    context.add_variable_from_value("event", fields.chain([time]).collect::<HashMap<_, _>>());
    match cel::Value::resolve(&PrattParser::new().parse(text).unwrap(), &context) {
        Ok(cel::Value::Bool(b)) => Some(b),
        _ => None,
    }
}

fn pick<T: Clone + std::fmt::Debug + 'static>(from: &[T]) -> impl Strategy<Value = T> + use<T> {
    prop::sample::select(from.to_vec())
}

/// Values of any type, of which no tests can be made.
fn calculated() -> impl Strategy<Value = String> {
    let leaf = pick(&[
        "event.data.a",
        "event.data.b",
        "event.data['c']",
        "event.data.none",
        // Not a list as it stands: compared with what comes to a constant it is a test, in which it stands for its elements.
        "dyn(event.data.l)",
        "event.data.l[0]",
        "event.data.o.k",
        "event.key",
        "event.bucket",
        "event.requester",
        "event.etag",
        "event.size",
        "event.hops",
        "event.time",
        "event.tags.env",
        "event.tags",
        "event.metadata.m",
        "1",
        "2u",
        "2.5",
        "-1",
        "9223372036854775807",
        "'x'",
        "''",
        "b'x'",
        "true",
        "null",
        "[1, 'x']",
        "{'x': 1, 2: 'y'}",
        "0",
        "duration('1h')",
    ]);
    leaf.prop_map(str::to_owned).prop_recursive(3, 10, 2, |inner| {
        let two = (inner.clone(), inner.clone());
        prop_oneof![
            (two.clone(), pick(&["+", "-", "*", "/", "%"])).prop_map(|((a, b), o)| format!("({a} {o} {b})")),
            (
                inner.clone(),
                pick(&["size", "int", "uint", "double", "string", "bytes", "bool", "dyn", "type", "timestamp"])
            )
                .prop_map(|(a, f)| format!("{f}({a})")),
            two.clone().prop_map(|(a, b)| format!("({a})[{b}]")),
            inner.clone().prop_map(|a| format!("-({a})")),
            inner.clone().prop_map(|a| format!("({a}).x")),
            two.clone().prop_map(|(a, b)| format!("[{a}, {b}]")),
            two.clone().prop_map(|(a, b)| format!("{{'x': {a}, 'y': {b}}}")),
            (inner.clone(), pick(&["getHours", "getDayOfYear", "size"])).prop_map(|(a, f)| format!("({a}).{f}()")),
            (two, inner).prop_map(|((a, b), c)| format!("({a} == {b} ? {b} : {c})")),
        ]
    })
}

/// Conditions, some of them tests, some to be evaluated.
fn conditions() -> impl Strategy<Value = String> {
    let field = || pick(&["event.data.a", "event.data.b", "event.data[\"c\"]", "event.data.none"]);
    let constant = || pick(&["1", "2.5", "'x'", "''", "true", "false", "null", "-1", "2u", "1 + 1", "'a' + 'x'"]);
    let texts = || pick(&["event.data.a", "event.key", "event.requester", "event.etag", "event.tags.env"]);
    let relation = || pick(&["==", "!=", "<", "<=", ">", ">="]);
    let method = || pick(&["startsWith", "endsWith", "contains"]);
    let one = prop_oneof![
        (field(), pick(&["==", "!="]), constant()).prop_map(|(f, o, c)| format!("{f} {o} {c}")),
        (field(), relation(), pick(&["1", "2.5", "-1"])).prop_map(|(f, o, c)| format!("{c} {o} {f}")),
        (pick(&["event.size", "event.hops"]), relation(), pick(&["1", "2.5", "0"]))
            .prop_map(|(f, o, c)| format!("{f} {o} {c}")),
        (relation(), pick(&["1", "5"]))
            .prop_map(|(o, n)| format!("event.time {o} timestamp('1970-01-01T00:00:0{n}Z')")),
        (texts(), relation(), pick(&["'x'", "'in/x'", "''"])).prop_map(|(f, o, c)| format!("{f} {o} {c}")),
        (field(), prop::collection::vec(constant(), 0..3)).prop_map(|(f, c)| format!("{f} in [{}]", c.join(","))),
        (texts(), method()).prop_map(|(f, m)| format!("{f}.{m}('x')")),
        (texts(), pick(&["x$", "^in", "."])).prop_map(|(f, m)| format!("{f}.matches('{m}')")),
        pick(&["event.data.a", "event.data.none", "event.tags.env", "event.etag", "event.data.o.k"])
            .prop_map(|f| format!("has({f})")),
        pick(&["'env' in event.tags", "'a' in event.data", "'none' in event.data", "'m' in event.metadata"])
            .prop_map(str::to_owned),
        field().prop_map(str::to_owned),
        pick(&["true", "false"]).prop_map(str::to_owned),
    ];
    let rest = prop_oneof![
        (calculated(), relation(), calculated()).prop_map(|(a, o, b)| format!("{a} {o} {b}")),
        (calculated(), calculated()).prop_map(|(a, b)| format!("{a} in {b}")),
        (calculated(), method(), calculated()).prop_map(|(a, m, b)| format!("({a}).{m}({b})")),
        calculated().prop_map(|a| format!("bool({a})")),
        calculated().prop_map(|a| format!("[{a}][0]")),
    ];
    prop_oneof![one, rest].prop_recursive(3, 16, 3, |inner| {
        prop_oneof![
            (inner.clone(), pick(&["&&", "||"]), inner.clone()).prop_map(|(a, o, b)| format!("({a} {o} {b})")),
            inner.clone().prop_map(|a| format!("!({a})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a}) == ({b})")),
            (inner.clone(), inner.clone(), inner).prop_map(|(a, b, c)| format!("({a} ? {b} : {c})")),
        ]
    })
}

/// JSON of one scalar.
fn scalars() -> impl Strategy<Value = &'static str> {
    pick(&["1", "2", "-1", "2.5", "0", "\"x\"", "\"ax\"", "\"\"", "\"1\"", "true", "false", "null"])
}

fn cases() -> u32 {
    if std::env::var_os("TIDEWIRE_LONG").is_some() { 100_000 } else { 1_500 }
}

/// An expression without the numbers of its parts, and with chains of one logical operator as lists: how these are nested is
/// the reader's choice, who keeps them shallow.
fn structure(e: &IdedExpr) -> String {
    fn links<'e>(e: &'e IdedExpr, name: &str, into: &mut Vec<&'e IdedExpr>) {
        match &e.expr {
            Expr::Call(call) if call.func_name == name => call.args.iter().for_each(|e| links(e, name, into)),
            _ => into.push(e),
        }
    }
    let all = |of: &[IdedExpr]| of.iter().map(structure).collect::<Vec<_>>();
    match &e.expr {
        Expr::Call(call) if [op::LOGICAL_AND, op::LOGICAL_OR].contains(&call.func_name.as_str()) => {
            let mut of = Vec::new();
            links(e, &call.func_name, &mut of);
            format!("{} {:?}", call.func_name, of.into_iter().map(structure).collect::<Vec<_>>())
        }
        Expr::Call(call) => {
            format!("{} {:?} {:?}", call.func_name, call.target.as_deref().map(structure), all(&call.args))
        }
        Expr::Select(select) => format!("{} . {} {}", structure(&select.operand), select.field, select.test),
        Expr::List(list) => format!("{:?}", all(&list.elements)),
        Expr::Map(map) => format!(
            "{:?}",
            map.entries
                .iter()
                .map(|entry| match &entry.expr {
                    EntryExpr::MapEntry(entry) => (structure(&entry.key), structure(&entry.value)),
                    EntryExpr::StructField(field) => (field.field.clone(), structure(&field.value)),
                })
                .collect::<Vec<_>>()
        ),
        other => format!("{other:?}"),
    }
}

/// In tests a list stands for its elements.
#[test]
fn an_order_and_its_negation_never_hold_both() {
    let numbers = [-5, -1, 0, 1, 7];
    let lists = ["[]", "[\"x\"]", "[-5]", "[1, \"x\", 1]", "[-5, 1]", "[7, 0]", "-1", "1", "\"x\"", "null"];
    for list in lists {
        let data = format!("{{\"l\": {list}}}");
        let mut e = Event::new(KnownType::ObjectCreatedPut.into(), "b", b"k");
        e.data = data.as_bytes();
        let bytes = frame::encode_to_vec(&e, 1);
        let view = FrameView::parse(&bytes).unwrap();
        let json: serde_json::Value = serde_json::from_str(list).unwrap();
        let elements = json.as_array().cloned().unwrap_or_else(|| vec![json.clone()]);
        let values: Vec<i64> = elements.iter().filter_map(serde_json::Value::as_i64).collect();
        for n in numbers {
            type Holds = fn(i64, i64) -> bool;
            let orders: [(&str, Holds); 4] =
                [("<", |a, b| a < b), ("<=", |a, b| a <= b), (">", |a, b| a > b), (">=", |a, b| a >= b)];
            for (order, holds) in orders {
                let some = values.iter().any(|v| holds(*v, n));
                let text = format!("event.data.l {order} {n}");
                let passes = |text: &str| Filter::parse_cel(text).unwrap().matches_frame(view);
                assert_eq!(passes(&text), some, "{text} of {data}");
                assert_eq!(passes(&format!("!({text})")), !some && !values.is_empty(), "!({text}) of {data}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), ..ProptestConfig::default() })]

    #[test]
    fn filters_hold_where_the_interpreter_says_true(
        texts in prop::collection::vec(conditions(), 1..6), a in scalars(), b in scalars(), c in scalars(), time in 0i64..8,
    ) {
        let data = format!(r#"{{"a": {a}, "b": {b}, "c": {c}, "l": [1, "x", {a}], "o": {{"k": {b}, "x": {c}}}}}"#);
        let mut e = Event::new(KnownType::ObjectCreatedPut.into(), "b", b"in/x");
        (e.data, e.requester, e.size, e.tags) = (data.as_bytes(), "x", Some(1), &[("env", "x"), ("x", "env")]);
        (e.metadata, e.time_ns) = (&[("M", "x")], (time * 1_000_000_000) as u64 + 1);
        let bytes = frame::encode_to_vec(&e, 1);
        let view = FrameView::parse(&bytes).unwrap();
        let json = serde_json::json!({
            "key": "in/x", "bucket": "b", "requester": "x", "size": 1, "hops": 0, "tags": {"env": "x", "x": "env"},
            "metadata": {"m": "x"}, "data": serde_json::from_str::<serde_json::Value>(&data).unwrap(),
        });
        let mut expected = Vec::new();
        let mut rules = Vec::new();
        for text in &texts {
            let truth = interpreted(text, &json, time * 1_000_000_000 + 1);
            let negated = format!("!({text})");
            for (text, is) in [(text, truth == Some(true)), (&negated, truth == Some(false))] {
                let filter = match Filter::parse_cel(text) {
                    Ok(filter) => filter,
                    // What can be seen to be an error is refused.
                    Err(e) => {
                        let known = ["has no value", "no boolean", "have no order", "no list", "no text", "more than", "no map",
                            "never has such", "no single value", "names are texts", "not evaluated", "has no members"];
                        prop_assert!(known.iter().any(|k| e.to_string().contains(k)), "{}: {}", text, e);
                        continue;
                    }
                };
                prop_assert_eq!(filter.matches_frame(view), is, "{} of {}: {:?}", text, data, filter);
                let again = Filter::from_json(&filter.to_json(), &NamedFilters::new());
                prop_assert_eq!(again.unwrap().matches_frame(view), is, "{} came back otherwise", text);
                prop_assert_eq!(filter.explain(view).is_empty(), is);
                let mut rule = Rule::new("r", ["*"], &EventTypes::default()).unwrap();
                rule.filter = filter;
                expected.extend(is.then_some(rules.len() as u32));
                rules.push(rule);
            }
        }
        let mut out = Vec::new();
        Matcher::compile(&rules).unwrap().matches(&view, &mut MatchMemory::default(), &mut out);
        prop_assert_eq!(out, expected, "{:?} of {}", texts, data);
    }

    #[test]
    fn the_text_of_an_expression_is_read_as_the_same(text in conditions()) {
        let e = parser::parse(&text).map_err(|e| parser::placed(&text, *e)).unwrap();
        let shown = show::show(&e);
        let again = parser::parse(&shown).map_err(|e| parser::placed(&shown, *e)).unwrap();
        prop_assert_eq!(structure(&e), structure(&again), "{} as {}", text, shown);
    }

    #[test]
    fn no_text_makes_the_reader_panic(text in "\\PC{0,80}", words in prop::collection::vec(pick(&[
        "event", ".", "key", "data", "(", ")", "[", "]", "'a'", "\"", "'''", "r'", "1", "1.", "0x", "1e", "-", "!", "&&", "||",
        "==", "<", "in", "?", ":", "has", "size", "{", "}", ",", "\\", "é", "//", "\n", "timestamp", "true", "b'", "`", "+", "%",
        "matches", "all", "event.key", "event.size", "x", "u", "duration", "'1h'", "int", "0", "*", "/", "&", "\r",
    ]), 0..24)) {
        let bytes = event();
        for text in [text, words.concat(), words.join(" ")] {
            if let Ok(filter) = Filter::parse_cel(&text) {
                let _ = filter.matches_frame(FrameView::parse(&bytes).unwrap());
            }
        }
    }
}
