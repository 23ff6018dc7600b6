//! The native form: what it means, what is refused, and that it comes back.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::event::{Event, EventType, FrameView, KnownType, Origin, Priority, frame};
use crate::filter::{Affix, Bound, Field, Folded, Number, Range, Regex, Test, Wildcard, Window};

fn read(value: Value) -> Filter {
    Filter::from_json(&value, &NamedFilters::new()).unwrap_or_else(|e| panic!("{value}: {e}"))
}

/// It is refused, with all of these words, a place and a remedy.
#[track_caller]
pub(super) fn refused_with(e: Error, parts: &[&str]) {
    let shown = e.to_string();
    assert_eq!(e.kind(), crate::ErrorKind::InvalidConfig, "{shown}");
    assert!(e.remedy_text().is_some() && e.place().is_some(), "{shown}");
    for part in parts {
        assert!(shown.contains(part), "`{part}` is not in: {shown}");
    }
}

#[track_caller]
fn refused(value: Value, parts: &[&str]) {
    match Filter::from_json(&value, &NamedFilters::new()) {
        Err(e) => refused_with(e, parts),
        Ok(f) => panic!("{value} was read as {f:?}"),
    }
}

fn key(test: Test) -> Filter {
    Filter::Is(Field::Key, test)
}

fn is(field: Field, test: Test) -> Filter {
    Filter::Is(field, test)
}

fn range(low: Bound, high: Bound) -> Test {
    Test::Number(Range { low, high })
}

#[test]
fn conditions_become_tests() {
    use Bound::{Excluded, Included, Open};
    let n = |n: i64| Number::from(n);
    let at = |t: &str| Number::Int(t.parse::<jiff::Timestamp>().unwrap().as_nanosecond());
    let cases: Vec<(Value, Filter)> = vec![
        (json!({}), Filter::default()),
        (json!({"prefix": "a/"}), key(Test::prefix("a/"))),
        (json!({"suffix": ".jpg", "prefix": "a/"}), Filter::new("a/", ".jpg")),
        (json!({"prefix": "", "suffix": ""}), Filter::default()),
        (json!({"suffix": [".jpg", ".png"]}), Filter::Any(vec![key(Test::suffix(".jpg")), key(Test::suffix(".png"))])),
        (json!({"exact": "k"}), key(Test::equals("k"))),
        (json!({"contains": {"base64": "/w=="}}), key(Test::contains(b"\xff"))),
        (json!({"wildcard": "*/x?"}), key(Test::wildcard("*/x?").unwrap())),
        (json!({"regex": "^a+$"}), key(Test::Regex(Regex::parse("^a+$", false).unwrap()))),
        (json!({"key": {"regex": "a+", "whole": true}}), key(Test::Regex(Regex::parse("a+", true).unwrap()))),
        (json!({"bucket": "b"}), is(Field::Bucket, Test::equals("b"))),
        (json!({"bucket": {"prefix": ""}}), is(Field::Bucket, Test::prefix(""))),
        (
            json!({"requester": ["a", {"prefix": "b"}]}),
            Filter::Any(vec![is(Field::Requester, Test::equals("a")), is(Field::Requester, Test::prefix("b"))]),
        ),
        (
            json!({"etag": {"prefix": "a", "suffix": ["b", "c"]}}),
            Filter::All(vec![
                is(Field::Etag, Test::prefix("a")),
                Filter::Any(vec![is(Field::Etag, Test::suffix("b")), is(Field::Etag, Test::suffix("c"))]),
            ]),
        ),
        (
            json!({"content_type": {"prefix": "IMAGE/", "ignore_case": true}}),
            is(Field::ContentType, Test::IgnoreCase(Affix::Prefix, Folded::new("image/"))),
        ),
        (json!({"source_ip": {"cidr": "10.0.0.0/8"}}), is(Field::SourceIp, Test::Cidr("10.0.0.0/8".parse().unwrap()))),
        (json!({"source_ip": {"cidr": "::1"}}), is(Field::SourceIp, Test::Cidr("::1/128".parse().unwrap()))),
        (json!({"version_id": {"exists": true}}), is(Field::VersionId, Test::Exists)),
        (json!({"version_id": {"exists": false}}), is(Field::VersionId, Test::Absent)),
        (
            json!({"region": {"anything_but": ["a", {"prefix": ["b", "c"]}]}}),
            is(Field::Region, Test::NoneOf([Test::equals("a"), Test::prefix("b"), Test::prefix("c")].into())),
        ),
        (json!({"event_type": "ObjectCreated:Put"}), is(Field::EventType, Test::equals("s3:ObjectCreated:Put"))),
        (
            json!({"event_type": "s3:ObjectCreated:PutTagging"}),
            is(Field::EventType, Test::equals("s3:ObjectTagging:Put")),
        ),
        (json!({"event_type": "ObjectCreated:*"}), is(Field::EventType, Test::prefix("s3:ObjectCreated:"))),
        (json!({"event_type": "System:*"}), is(Field::EventType, Test::prefix("System:"))),
        (json!({"event_type": "acme:Scan:*"}), is(Field::EventType, Test::prefix("acme:Scan:"))),
        (json!({"event_type": "acme:Scan"}), is(Field::EventType, Test::equals("acme:Scan"))),
        (json!({"event_type": "*"}), is(Field::EventType, Test::prefix(""))),
        (
            json!({"event_type": "s3:ObjectTransition:*"}),
            Filter::Any(
                [KnownType::LifecycleTransition, KnownType::LifecycleTransitionFailed]
                    .map(|t| is(Field::EventType, Test::equals(t.name())))
                    .to_vec(),
            ),
        ),
        (json!({"origin": "replica"}), is(Field::Origin, Test::equals("replica"))),
        (json!({"size": 5}), is(Field::Size, Test::number(5i64))),
        (
            json!({"size": {"min": "1KiB", "below": "1MiB"}}),
            is(Field::Size, range(Included(n(1024)), Excluded(n(1 << 20)))),
        ),
        (json!({"size": {"above": 1.5}}), is(Field::Size, range(Excluded(Number::float(1.5).unwrap()), Open))),
        (
            json!({"size": [1, {"max": 0}]}),
            Filter::Any(vec![is(Field::Size, Test::number(1i64)), is(Field::Size, range(Open, Included(n(0))))]),
        ),
        (json!({"hops": {"max": 3}}), is(Field::Hops, range(Open, Included(n(3))))),
        (
            json!({"time": {"from": "2024-01-01T00:00:00Z", "until": "2024-01-02T00:00:00+01:00"}}),
            is(Field::Time, range(Included(at("2024-01-01T00:00:00Z")), Excluded(at("2024-01-01T23:00:00Z")))),
        ),
        (
            json!({"time": {"days": ["mon", "sun"], "from": "22:00", "until": "06:00", "offset": "+02:00"}}),
            is(Field::Time, Test::Window(Window::new(0b100_0001, 22 * 60, 6 * 60, 120).unwrap())),
        ),
        (json!({"time": {"until": "06:00"}}), is(Field::Time, Test::Window(Window::new(0x7f, 0, 360, 0).unwrap()))),
        (json!({"time": {"days": "sat"}}), is(Field::Time, Test::Window(Window::new(0b10_0000, 0, 1440, 0).unwrap()))),
        (
            json!({"tags": {"a": "b", "n": {"min": 2}}}),
            Filter::All(vec![
                is(Field::Tag("a".into()), Test::equals("b")),
                is(Field::Tag("n".into()), range(Included(n(2)), Open)),
            ]),
        ),
        (json!({"metadata": {"X-Amz-Meta-Colour": "red"}}), is(Field::metadata("colour"), Test::equals("red"))),
        (json!({"tags": {"n": 7}}), is(Field::Tag("n".into()), Test::number(7i64))),
        (json!({"data": {"a.b": true}}), is(Field::data(["a", "b"]), Test::Bool(true))),
        (json!({"data": {"a": null}}), is(Field::data(["a"]), Test::Null)),
        (
            json!({"data": [{"path": ["a.b", ""], "is": 1.5}]}),
            is(Field::data(["a.b", ""]), Test::Number(Range::exactly(Number::float(1.5).unwrap()))),
        ),
        (
            json!({"data": [{"path": "a.b", "is": {"anything_but": [1, null]}}]}),
            is(Field::data(["a", "b"]), Test::NoneOf([Test::number(1i64), Test::Null].into())),
        ),
        (json!({"not": {"prefix": "a"}}), key(Test::prefix("a")).not()),
        (json!({"any": []}), Filter::Any(vec![])),
        (
            json!({"all": [{"prefix": "a"}, {"any": [{"suffix": "b"}, {"exact": "c"}]}]}),
            Filter::All(vec![
                key(Test::prefix("a")),
                Filter::Any(vec![key(Test::suffix("b")), key(Test::equals("c"))]),
            ]),
        ),
        #[cfg(feature = "cel")]
        (json!({"prefix": "a", "cel": "event.key.endsWith('b')"}), Filter::new("a", "b")),
    ];
    let schema = Schema::new();
    for (value, filter) in cases {
        assert_eq!(read(value.clone()), filter, "{value}");
        schema.check(&value, true);
    }
}

#[test]
fn what_is_not_understood_is_refused_with_its_place() {
    // Whether the schema refuses it too; it knows nothing of the insides of texts.
    let cases: Vec<(Value, bool, &[&str])> = vec![
        (json!(5), true, &["filter", "a number, not an object"]),
        (json!([]), true, &["filter"]),
        (json!({"prefx": "a"}), true, &["filter.prefx", "unknown", "did you mean `prefix`?"]),
        (json!({"prefix": 5}), true, &["filter.prefix", "a number, not a text"]),
        (json!({"prefix": []}), true, &["filter.prefix", "empty"]),
        (json!({"prefix": [["a"]]}), true, &["filter.prefix[0]", "a list in a list"]),
        (json!({"prefix": null}), true, &["filter.prefix", "null"]),
        (json!({"cel": ["true"]}), true, &["filter.cel", "a list, not a string"]),
        (json!({"cel": ""}), true, &["filter.cel", "cel"]),
        (json!({"contains": {"base64": "!"}}), false, &["filter.contains.base64", "no base64"]),
        (json!({"contains": {"base64": "", "x": 1}}), true, &["filter.contains"]),
        (json!({"key": {"base64": 5}}), true, &["filter.key.base64", "not a string"]),
        (json!({"wildcard": "a\\b"}), false, &["filter.wildcard", "backslash"]),
        (json!({"regex": "("}), false, &["filter.regex", "no regular expression"]),
        (json!({"regex": {"base64": "/w=="}}), true, &["filter.regex", "no UTF-8"]),
        (json!({"all": {}}), true, &["filter.all", "an object, not a list"]),
        (
            json!({"all": [{}, {"any": [{"size": {"min": "5MB"}}]}]}),
            true,
            &["filter.all[1].any[0].size.min", "5MB", "MiB"],
        ),
        (json!({"size": "big"}), true, &["filter.size", "not a size"]),
        (json!({"size": {"min": 1, "above": 2}}), true, &["filter.size.above", "twice"]),
        (json!({"size": {"prefix": "1"}}), true, &["filter.size.prefix", "does not suit"]),
        (json!({"size": {"abov": 1}}), true, &["filter.size.abov", "did you mean `above`?"]),
        (json!({"size": {}}), true, &["filter.size", "says nothing"]),
        (json!({"size": true}), true, &["filter.size", "a boolean"]),
        (json!({"key": {}}), true, &["filter.key", "says nothing"]),
        (json!({"key": {"min": 1}}), true, &["filter.key.min", "does not suit"]),
        (json!({"key": 5}), true, &["filter.key", "a number"]),
        (json!({"key": {"exists": "yes"}}), true, &["filter.key.exists", "true or false"]),
        (json!({"key": {"ignore_case": true}}), true, &["filter.key.ignore_case", "nothing to go with"]),
        (json!({"key": {"exact": "a", "ignore_case": 1}}), true, &["filter.key.ignore_case"]),
        (json!({"key": {"exact": "a", "regex": "b", "ignore_case": true}}), true, &["filter.key.ignore_case", "(?i)"]),
        (json!({"key": {"exact": {"base64": "/w=="}, "ignore_case": true}}), false, &["filter.key.exact", "no UTF-8"]),
        (json!({"key": {"exact": "a", "whole": true}}), true, &["filter.key.whole"]),
        (json!({"key": {"anything_but": {"exists": true}}}), true, &["filter.key.anything_but.exists"]),
        (json!({"key": {"anything_but": {"anything_but": "a"}}}), true, &["filter.key.anything_but.anything_but"]),
        (
            json!({"key": {"anything_but": {"prefix": "a", "suffix": "b"}}}),
            false,
            &["filter.key.anything_but", "several"],
        ),
        (json!({"key": {"anything_but": []}}), true, &["filter.key.anything_but", "empty"]),
        (json!({"source_ip": {"cidr": "10.0.0.0/33"}}), false, &["filter.source_ip.cidr", "no network"]),
        (json!({"event_type": "s3:ObjectCreted:Put"}), false, &["filter.event_type", "did you mean"]),
        (json!({"event_type": "s3:Object*"}), false, &["filter.event_type", "star"]),
        (json!({"origin": "replic"}), false, &["filter.origin", "did you mean `replica`?"]),
        (json!({"priority": "urgent"}), false, &["filter.priority", "`low`"]),
        (json!({"bucket": "photos-*"}), false, &["filter.bucket", "wildcard"]),
        (json!({"hops": "3"}), true, &["filter.hops", "a string, not a number"]),
        (json!({"time": "yesterday"}), true, &["filter.time", "not a time"]),
        (json!({"time": {"from": "25:00"}}), true, &["filter.time.from", "not a time"]),
        (json!({"time": {"days": "monday"}}), true, &["filter.time.days", "did you mean `mon`?"]),
        (json!({"time": {"days": "mon", "min": 5}}), true, &["filter.time.min", "two conditions"]),
        (json!({"time": {"days": "mon", "from": "2024-01-01T00:00:00Z"}}), true, &["filter.time.from", "HH:MM"]),
        (json!({"time": {"offset": "CET"}}), true, &["filter.time.offset", "+HH:MM"]),
        (json!({"tags": ["a"]}), true, &["filter.tags", "an object"]),
        (json!({"tags": {"": "a"}}), true, &["filter.tags", "0 bytes"]),
        (json!({"tags": {"a b": true}}), true, &["filter.tags[\"a b\"]", "a boolean"]),
        (json!({"data": {"a..b": 1}}), true, &["filter.data[\"a..b\"]", "empty step"]),
        (json!({"data": {"a": []}}), true, &["filter.data.a", "empty"]),
        (json!({"data": [{"path": "a"}]}), true, &["filter.data[0]", "`is`"]),
        (json!({"data": [{"path": "a", "is": 1, "or": 2}]}), true, &["filter.data[0].or"]),
        (json!({"data": [{"path": vec!["a"; 33], "is": 1}]}), true, &["filter.data[0].path", "33 steps"]),
        (json!({"use": "x"}), false, &["filter.use", "unknown filter `x`"]),
        (json!({"use": 5}), true, &["filter.use", "not a string"]),
        (json!({"prefix": "a".repeat(1025)}), false, &["filter", "1025 bytes"]),
        (json!({"exact": vec!["a"; 300]}), false, &["filter.exact", "more than 256"]),
        (json!({"not": {"not": {"size": {"x": 1}}}}), true, &["filter.not.not.size.x"]),
    ];
    let schema = Schema::new();
    for (value, also_by_schema, parts) in cases {
        refused(value.clone(), parts);
        schema.check(&value, !also_by_schema);
    }
}

/// The published schema.
struct Schema(boon::Schemas, boon::SchemaIndex);

impl Schema {
    fn new() -> Schema {
        let (mut schemas, mut compiler) = (boon::Schemas::new(), boon::Compiler::new());
        compiler.add_resource("filter.json", serde_json::from_str(FILTER_SCHEMA).unwrap()).unwrap();
        let index = compiler.compile("filter.json", &mut schemas).unwrap();
        Schema(schemas, index)
    }

    #[track_caller]
    fn check(&self, value: &Value, good: bool) {
        let result = self.0.validate(value, self.1);
        assert_eq!(result.is_ok(), good, "{value}: {:?}", result.err().map(|e| e.to_string()));
    }
}

#[test]
fn nesting_and_size_are_bounded() {
    let nested = |n: usize| (0..n).fold(json!({"prefix": "a"}), |f, _| json!({"not": f}));
    read(nested(31));
    refused(nested(33), &["filter.not.not", "more than 32 deep"]);
    refused(nested(300), &["more than 32 deep"]);
    refused(json!({"all": vec![json!({"prefix": "a"}); 257]}), &["filter.all", "more than 256 conditions"]);
}

#[test]
fn names_stand_for_filters() {
    let named = NamedFilters::from_json([
        ("thumbs", json!({"use": "images", "not": {"prefix": "raw/"}})),
        ("images", json!({"suffix": [".jpg", ".png"]})),
    ])
    .unwrap();
    assert_eq!(named.names().collect::<Vec<_>>(), ["images", "thumbs"]);
    let images = Filter::Any(vec![key(Test::suffix(".jpg")), key(Test::suffix(".png"))]);
    assert_eq!(named.get("images"), Some(&images));
    let filter = Filter::from_json(&json!({"bucket": "b", "use": "thumbs"}), &named).unwrap();
    let thumbs = Filter::All(vec![key(Test::prefix("raw/")).not(), images]);
    assert_eq!(filter, Filter::All(vec![is(Field::Bucket, Test::equals("b")), thumbs]));
    let e = Filter::from_json(&json!({"any": [{"use": "image"}]}), &named).unwrap_err();
    refused_with(e, &["filter.any[0].use", "unknown filter `image`", "did you mean `images`?"]);
}

#[test]
fn filters_that_use_each_other_in_a_circle_are_refused() {
    let circle = [("a", json!({"use": "b"})), ("b", json!({"not": {"use": "c"}})), ("c", json!({"use": "b"}))];
    let e = NamedFilters::from_json(circle).unwrap_err();
    refused_with(e, &["filter `c`: use", "circle: `b`, `c`, `b`"]);
    refused_with(NamedFilters::from_json([("a", json!({"use": "a"}))]).unwrap_err(), &["circle: `a`, `a`"]);
    let double = [("a", json!({})), ("a", json!({}))];
    refused_with(NamedFilters::from_json(double).unwrap_err(), &["another filter has the name `a`"]);
    // Each uses the next one, too many times over to be written out; nothing grows before that is noticed.
    let many = (0..20).map(|i| (format!("f{i}"), json!({"any": vec![json!({"use": format!("f{}", i + 1)}); 4]})));
    let last = [("f20".to_owned(), json!({"prefix": "a"}))];
    refused_with(NamedFilters::from_json(many.chain(last)).unwrap_err(), &["more than 256 conditions"]);
    let chain = (0..10_000).map(|i| (format!("f{i}"), json!({"use": format!("f{}", i + 1)})));
    refused_with(NamedFilters::from_json(chain).unwrap_err(), &["more than 32 filters use one another"]);
}

#[test]
fn a_name_that_is_there_twice_is_refused() {
    let e = Filter::parse_json("{\"prefix\": \"a\",\n \"prefix\": \"b\"}", &NamedFilters::new()).unwrap_err();
    refused_with(e, &["line 2", "`prefix` is there twice"]);
    let e = Filter::parse_json("{\"size\": 1e999}", &NamedFilters::new()).unwrap_err();
    refused_with(e, &["line 1", "no JSON"]);
    let e = Filter::parse_json("{} {}", &NamedFilters::new()).unwrap_err();
    refused_with(e, &["line 1"]);
    assert!(Filter::parse_json(&"[".repeat(100_000), &NamedFilters::new()).is_err());
}

#[test]
fn the_largest_filters_come_back() {
    let tests = [
        Test::prefix("a"),
        Test::contains("b"),
        Test::wildcard("a*").unwrap(),
        Test::equals("c"),
        Test::Exists,
        Test::Regex(Regex::parse("a+", true).unwrap()),
        Test::Cidr("10.0.0.0/8".parse().unwrap()),
        Test::IgnoreCase(Affix::Whole, Folded::new("x")),
    ];
    for test in tests {
        for field in [Field::Key, Field::Requester, Field::Tag("t".into()), Field::data(["a"])] {
            let others = Filter::Is(Field::Size, range(Bound::Included(1u64.into()), Bound::Open));
            let one = Filter::Is(field, test.clone());
            let list: Vec<Filter> = [one, others].into_iter().cycle().take(255).collect();
            for filter in [Filter::All(list.clone()), Filter::Any(list)] {
                assert_eq!(filter.nodes(), 256);
                assert_eq!(read(filter.to_json()), filter);
            }
        }
    }
    let none_of = Filter::Is(Field::Key, Test::NoneOf((0..255).map(|n| Test::prefix(n.to_string())).collect()));
    assert_eq!((none_of.nodes(), read(none_of.to_json())), (256, none_of));
}

#[test]
fn serde_reads_and_writes_the_native_form() {
    let filter: Filter = serde_json::from_str(r#"{"prefix": "a", "size": {"max": 5}}"#).unwrap();
    assert_eq!(serde_json::to_string(&filter).unwrap(), r#"{"prefix":"a","size":{"max":5}}"#);
    assert!(serde_json::from_str::<Filter>(r#"{"prefx": "a"}"#).unwrap_err().to_string().contains("filter.prefx"));
}

fn pick<T: Clone + std::fmt::Debug + 'static>(from: &[T]) -> impl Strategy<Value = T> + use<T> {
    prop::sample::select(from.to_vec())
}

fn texts() -> impl Strategy<Value = Vec<u8>> {
    let pieces: &[&[u8]] =
        &[b"a", b"b", b"/", "é".as_bytes(), b"\xff", b"*", b"\\", b"?", b"A", b"s3:ObjectCreated:Put"];
    prop::collection::vec(pick(pieces), 0..4).prop_map(|p| p.concat())
}

fn ranges() -> impl Strategy<Value = Test> {
    let number = || {
        prop_oneof![
            (0i64..4).prop_map(Number::from),
            pick(&[0.5, 1.0, 1e300]).prop_map(|f| Number::float(f).unwrap()),
            any::<u64>().prop_map(Number::from)
        ]
    };
    let bound =
        move || prop_oneof![Just(Bound::Open), number().prop_map(Bound::Included), number().prop_map(Bound::Excluded)];
    (bound(), bound()).prop_map(|(low, high)| Test::Number(Range { low, high }))
}

fn value_tests() -> impl Strategy<Value = Test> {
    prop_oneof![
        texts().prop_map(Test::equals),
        texts().prop_map(Test::prefix),
        texts().prop_map(Test::suffix),
        texts().prop_map(Test::contains),
        pick(&["*a", "a?", "\\*b", ""]).prop_map(|w| Test::wildcard(w).unwrap()),
        (pick(&["a+", "^a", "(?-u)\\xff"]), any::<bool>()).prop_map(|(r, w)| Test::Regex(Regex::parse(r, w).unwrap())),
        (pick(&[Affix::Whole, Affix::Prefix, Affix::Suffix]), pick(&["aB", "É", "", "İ"]))
            .prop_map(|(affix, t)| Test::IgnoreCase(affix, Folded::new(t))),
        pick(&["10.0.0.0/8", "::/0"]).prop_map(|n| Test::Cidr(n.parse().unwrap())),
        ranges(),
        (1u8..0x80, 0u16..1440, 0u16..=1440, -1439i16..1440)
            .prop_map(|(d, f, t, o)| Test::Window(Window::new(d, f, t, o).unwrap())),
        any::<bool>().prop_map(Test::Bool),
        Just(Test::Null),
    ]
}

fn fields() -> impl Strategy<Value = Field> {
    let named = [
        Field::metadata("m"),
        Field::Tag("t.u".into()),
        Field::data(["a", "b"]),
        Field::data(["a.b"]),
        Field::data([""]),
        Field::Data([].into()),
    ];
    pick(&[super::native::FIELDS, &named].concat())
}

fn conditions() -> impl Strategy<Value = Filter> {
    let test = prop_oneof![
        6 => value_tests(),
        1 => Just(Test::Exists),
        1 => Just(Test::Absent),
        1 => prop::collection::vec(value_tests(), 1..3).prop_map(|t| Test::NoneOf(t.into())),
    ];
    (fields(), test).prop_map(|(f, t)| Filter::Is(f, t)).prop_filter("a test that suits", |f| f.validate().is_ok())
}

fn filters() -> impl Strategy<Value = Filter> {
    conditions().prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Filter::All),
            prop::collection::vec(inner.clone(), 0..4).prop_map(Filter::Any),
            inner.prop_map(Filter::not),
        ]
    })
}

/// With what is written another way and means the same made equal.
fn plain(filter: &Filter) -> Filter {
    match filter {
        Filter::All(list) => Filter::all(list.iter().map(plain)),
        Filter::Any(list) => Filter::any(list.iter().map(plain)),
        Filter::Not(inner) => plain(inner).not(),
        Filter::Is(field, test) => Filter::Is(field.clone(), plain_test(field, test)),
        Filter::Cel(_) => filter.clone(),
    }
}

fn plain_test(field: &Field, test: &Test) -> Test {
    match test {
        // Not every text is a value of these; the others are written as wildcards.
        Test::Equals(text) if matches!(field, Field::EventType | Field::Bucket | Field::Origin | Field::Priority) => {
            Test::Wildcard(Wildcard::parse(&crate::filter::pattern::escape(text)).unwrap())
        }
        Test::Number(r) if (r.low, r.high) == (Bound::Open, Bound::Open) => {
            Test::Number(Range { low: Bound::Included(Number::Float(f64::MIN)), high: Bound::Open })
        }
        Test::NoneOf(list) => Test::NoneOf(list.iter().map(|t| plain_test(field, t)).collect()),
        t => t.clone(),
    }
}

fn events() -> impl Strategy<Value = Vec<u8>> {
    let key = texts().prop_map(|mut k| {
        k.push(b'k');
        k
    });
    let text = || pick(&["", "a", "10.1.2.3", "aB/", "*"]);
    let data = pick(&["", "5", "{\"a\": {\"b\": [1, \"x\", null]}, \"a.b\": true}", "{\"\": \"a\"}", "[\"a\"]"]);
    (key, text(), text(), prop::option::of(0u64..4), data, any::<u32>()).prop_map(|(key, a, b, size, data, time)| {
        let (metadata, tags) = ([("m", a)], [("t.u", b)]);
        let mut e = Event::new(EventType::Known(KnownType::ObjectCreatedPut), "b", &key);
        (e.requester, e.source_ip, e.size, e.etag) = (a, b, size, a);
        (e.metadata, e.tags, e.data, e.time_ns) = (&metadata, &tags, data.as_bytes(), u64::from(time) << 30);
        (e.origin, e.priority) = (Origin::Replica, Priority::High);
        frame::encode_to_vec(&e, 1)
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read_as_the_same(filter in filters(), events in prop::collection::vec(events(), 4)) {
        let json = filter.to_json();
        let text = json.to_string();
        let back = Filter::parse_json(&text, &NamedFilters::new()).map_err(|e| TestCaseError::fail(format!("{text}: {e}")))?;
        prop_assert_eq!(plain(&back), plain(&filter), "{}", text);
        prop_assert_eq!(&back.to_json(), &back.to_json());
        for event in &events {
            let frame = FrameView::parse(event).unwrap();
            prop_assert_eq!(back.matches_frame(frame), filter.matches_frame(frame), "{}", text);
        }
    }

    #[test]
    fn no_text_makes_the_reader_panic(text in "\\PC{0,60}", value in filters()) {
        let _ = Filter::parse_json(&text, &NamedFilters::new());
        // A good one with a piece of anything in it.
        let json = value.to_json().to_string();
        let at = text.len() % (json.len() + 1);
        if json.is_char_boundary(at) {
            let _ = Filter::parse_json(&[&json[..at], &text, &json[at..]].concat(), &NamedFilters::new());
        }
    }

    #[test]
    fn a_verdict_without_an_event_is_that_of_every_event(
        filter in filters(), other in filters(), events in prop::collection::vec(events(), 6),
    ) {
        let both = Filter::All(vec![filter.clone(), other.clone()]);
        for event in &events {
            let frame = FrameView::parse(event).unwrap();
            if let Some(verdict) = filter.verdict() {
                prop_assert_eq!(filter.matches_frame(frame), verdict);
            }
            prop_assert!(!(filter.excludes(&other) && both.matches_frame(frame)), "{}", both.to_json());
            prop_assert_eq!(filter.explain(frame).is_empty(), filter.matches_frame(frame));
        }
    }

    #[test]
    fn what_the_schema_says_of_written_filters(filter in filters()) {
        Schema::new().check(&filter.to_json(), true);
    }
}
