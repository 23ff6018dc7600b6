//! The compiled form against the plain meaning, on random rules and events.

use proptest::prelude::*;

use super::*;
use crate::event::{Event, EventType, EventTypes, FrameView, KnownType, Origin, Priority, frame};
use crate::rule::Rule;

/// How many cases, each of up to 24 rules and 12 events: pairs are some 60 times as many.
fn cases() -> u32 {
    if std::env::var_os("TIDEWIRE_LONG").is_some() { 40_000 } else { 1_500 }
}

fn pick<T: Clone + std::fmt::Debug + 'static>(from: &[T]) -> impl Strategy<Value = T> + use<T> {
    prop::sample::select(from.to_vec())
}

/// Short texts of few letters, so that they meet; some are no UTF-8, some have what is special elsewhere.
fn text() -> impl Strategy<Value = Vec<u8>> {
    let pieces: &[&[u8]] = &[b"a", b"b", b"/", b"ab", "é".as_bytes(), b"\xff", b"*", b"A", b"logs/"];
    prop::collection::vec(pick(pieces), 0..5).prop_map(|p| p.concat())
}

fn wildcard() -> impl Strategy<Value = Test> {
    let pieces = ["*", "?", "a", "b", "/", "é", "\\*", "ab"];
    prop::collection::vec(pick(&pieces), 0..6).prop_map(|p| Test::wildcard(p.concat()).unwrap())
}

fn regex() -> impl Strategy<Value = Test> {
    let patterns =
        ["a+b", "^a", "b$", "^(a|b)/", "é|ab", "[ab]{2,3}", "(?i)AB", ".*", "a.b", "^logs/.*b$", "(?-u)\\xff", "x?"];
    (pick(&patterns), any::<bool>()).prop_map(|(p, whole)| Test::Regex(Regex::parse(p, whole).unwrap()))
}

fn number() -> impl Strategy<Value = Number> {
    prop_oneof![(0i64..4).prop_map(Number::from), pick(&[0.5, 1.0, 2.5]).prop_map(|f| Number::float(f).unwrap())]
}

fn range() -> impl Strategy<Value = Test> {
    let bound =
        || prop_oneof![Just(Bound::Open), number().prop_map(Bound::Included), number().prop_map(Bound::Excluded)];
    (bound(), bound()).prop_map(|(low, high)| Test::Number(Range { low, high }))
}

/// Tests of one value.
fn value_test() -> impl Strategy<Value = Test> {
    prop_oneof![
        3 => text().prop_map(Test::equals),
        2 => text().prop_map(Test::prefix),
        2 => text().prop_map(Test::suffix),
        1 => text().prop_map(Test::contains),
        2 => wildcard(),
        1 => regex(),
        1 => (pick(&[Affix::Whole, Affix::Prefix, Affix::Suffix]), pick(&["aB", "É", "b/", ""]))
            .prop_map(|(affix, t)| Test::IgnoreCase(affix, Folded::new(t))),
        1 => pick(&["10.0.0.0/8", "10.1.0.0/16", "::/0", "192.168.1.1/32"]).prop_map(|n| Test::Cidr(n.parse().unwrap())),
        1 => range(),
        1 => any::<bool>().prop_map(Test::Bool),
        1 => Just(Test::Null),
    ]
}

fn test() -> impl Strategy<Value = Test> {
    prop_oneof![
        8 => value_test(),
        1 => Just(Test::Exists),
        1 => Just(Test::Absent),
        1 => prop::collection::vec(value_test(), 1..3).prop_map(|t| Test::NoneOf(t.into())),
        1 => (1u8..128, 0u16..1440, 0u16..1440).prop_map(|(d, f, t)| Test::Window(Window::new(d, f, t, 0).unwrap())),
    ]
}

fn field() -> impl Strategy<Value = Field> {
    prop_oneof![
        12 => Just(Field::Key),
        1 => pick(&[Field::EventType, Field::Bucket, Field::VersionId, Field::Etag, Field::Requester, Field::SourceIp]),
        1 => pick(&[Field::RequestId, Field::HostId, Field::Region, Field::ContentType, Field::Method, Field::UserAgent]),
        1 => pick(&[Field::BucketOwner, Field::Size, Field::Time, Field::Hops, Field::Origin, Field::Priority]),
        2 => pick(&["a", "B", "x-amz-meta-a"]).prop_map(Field::metadata),
        2 => pick(&["a", "B"]).prop_map(|n| Field::Tag(n.into())),
        2 => pick(&[&["a"][..], &["a", "b"], &[]]).prop_map(|p| Field::data(p.iter())),
    ]
}

/// A test of a kind that a field has values for.
fn suited(field: &Field, test: Test) -> Test {
    let names: &[&str] = match field {
        Field::EventType => &["s3:ObjectCreated:Put", "s3:ObjectRemoved:Delete", "acme:Scan:Clean"],
        Field::Origin => &["user", "replica"],
        Field::Priority => &["low", "normal"],
        _ => return test,
    };
    match test {
        Test::Equals(x) => Test::equals(names[x.len() % names.len()]),
        Test::Prefix(x) => Test::prefix(&names[x.len() % names.len()][..3]),
        test => test,
    }
}

/// Expressions that are evaluated.
fn evaluated() -> impl Strategy<Value = Filter> {
    let texts = [
        "size(event.key) > 3",
        "!(size(event.key) > 3)",
        "event.size + 1 == 3",
        "event.key.startsWith(event.bucket)",
        "event.requester == event.etag",
        "event.tags.a + event.metadata.a < 'b'",
        "size(event.data.a) > 1 || 'b' in event.data.a",
        "event.data.a.b + 1 > event.size",
        "event.time.getHours() < 12",
    ];
    pick(&texts).prop_map(|text| match Filter::parse_cel(text) {
        Err(_) if !cfg!(feature = "cel") => Filter::default(),
        filter => filter.unwrap(),
    })
}

fn filter() -> impl Strategy<Value = Filter> {
    let test = (field(), test()).prop_map(|(f, t)| {
        let t = suited(&f, t);
        Filter::Is(f, t)
    });
    prop_oneof![9 => test, 1 => evaluated()].prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            3 => prop::collection::vec(inner.clone(), 0..4).prop_map(Filter::All),
            2 => prop::collection::vec(inner.clone(), 0..4).prop_map(Filter::Any),
            1 => inner.prop_map(Filter::not),
        ]
    })
}

fn types() -> EventTypes {
    EventTypes::with_custom(["acme:Scan:Clean", "acme:Scan:Infected"]).unwrap()
}

fn any_rule() -> impl Strategy<Value = Rule> {
    let names =
        ["s3:ObjectCreated:*", "s3:ObjectRemoved:Delete", "*", "acme:*", "acme:Scan:Clean", "s3:ObjectCreated:Put"];
    let bucket = pick(&[None, Some("a"), Some("b"), Some("ab")]);
    let filters = prop_oneof![
        2 => filter(),
        3 => (text(), text()).prop_map(|(p, s)| Filter::new(p, s)),
        1 => text().prop_map(|x| Filter::Is(Field::Key, Test::equals(x))),
    ];
    (bucket, prop::collection::vec(pick(&names), 1..3), filters).prop_map(|(bucket, names, filter)| {
        let mut rule = Rule::new("r", names, &types()).unwrap();
        rule.bucket = bucket.map(str::to_owned);
        rule.filter = filter;
        rule
    })
}

fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    let some = |t: Vec<u8>| String::from_utf8(t).unwrap_or_default();
    let texts = prop::collection::vec(text().prop_map(some), 11);
    let pair = || {
        (
            pick(&["a", "A", "B", "b"]),
            prop_oneof![text().prop_map(some), pick(&["1", "2.5", "x"]).prop_map(str::to_owned)],
        )
    };
    let pairs = || prop::collection::vec(pair(), 0..3);
    let data = pick(&[
        "",
        "1",
        "null",
        r#"{"a":"ab"}"#,
        r#"{"a":[1,"b",{"b":true}]}"#,
        r#"{"a":{"b":[null,2.5,"a"]},"a":"b"}"#,
        "[true,\"a\"]",
        r#"{"a":{"b":3}}"#,
    ]);
    let types = [
        EventType::Known(KnownType::ObjectCreatedPut),
        EventType::Known(KnownType::ObjectRemovedDelete),
        EventType::Known(KnownType::ObjectCreatedCopy),
        EventType::Custom("acme:Scan:Clean"),
        EventType::Custom("acme:Scan:Infected"),
    ];
    let numbers = (prop::option::of(0u64..4), 0u64..200_000_000_000_000, 0u8..4, 0u8..3, 0u8..3);
    let address = pick(&["", "10.1.2.3", "192.168.1.1", "::ffff:10.0.0.1", "fe80::1", "x"]);
    (pick(&types), pick(&["a", "b", "ab", "c"]), text(), texts, pairs(), pairs(), data, numbers, address).prop_map(
        |(t, bucket, key, texts, metadata, tags, data, (size, time, hops, origin, priority), address)| {
            let metadata: Vec<(&str, &str)> = metadata.iter().map(|(k, v)| (*k, v.as_str())).collect();
            let tags: Vec<(&str, &str)> = tags.iter().map(|(k, v)| (*k, v.as_str())).collect();
            let mut e = Event::new(t, bucket, &key);
            (e.version_id, e.etag, e.requester, e.source_ip) = (&texts[0], &texts[1], &texts[2], address);
            (e.request_id, e.host_id, e.region, e.content_type) = (&texts[3], &texts[4], &texts[5], &texts[6]);
            (e.method, e.user_agent, e.bucket_owner) = (&texts[7], &texts[8], &texts[9]);
            (e.size, e.time_ns, e.hops) = (size, time, hops);
            (e.origin, e.priority) = (Origin::from_u8(origin), Priority::from_u8(priority));
            (e.metadata, e.tags, e.data) = (&metadata, &tags, data.as_bytes());
            frame::encode_to_vec(&e, 1)
        },
    )
}

/// The rules that want the event, each asked by itself.
fn plainly(rules: &[Rule], frame: FrameView<'_>) -> Vec<u32> {
    let wants = |r: &Rule| {
        r.bucket.as_deref().is_none_or(|b| b == frame.bucket())
            && r.events.contains(frame.event_type())
            && r.filter.matches_frame(frame)
    };
    (0..rules.len() as u32).filter(|i| wants(&rules[*i as usize])).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), ..ProptestConfig::default() })]

    #[test]
    fn the_index_agrees_with_the_plain_meaning(
        rules in prop::collection::vec(any_rule(), 0..24),
        frames in prop::collection::vec(any_frame(), 1..12),
    ) {
        let m = Matcher::compile(&rules).unwrap();
        let mut memory = MatchMemory::default();
        let views: Vec<FrameView<'_>> = frames.iter().map(|b| FrameView::parse(b).unwrap()).collect();
        let mut batch = vec![Vec::new(); views.len()];
        m.matches_batch(&views, &mut memory, |i, rules| batch[i] = rules.to_vec());
        for (frame, together) in views.into_iter().zip(batch) {
            let expected = plainly(&rules, frame);
            let mut out = Vec::new();
            m.matches(&frame, &mut memory, &mut out);
            prop_assert_eq!(&out, &expected);
            prop_assert_eq!(&together, &expected);
            prop_assert!(expected.is_empty() || m.interested(frame.bucket(), frame.event_type()));

            // What is known before is a part of the event; whatever the rest turns out to be, nothing is missed.
            let (bucket, key) = (frame.bucket().to_owned(), frame.key().to_vec());
            let part = frame::encode_to_vec(&Event::new(frame.event_type(), &bucket, &key), 1);
            let mut may = Vec::new();
            m.may_match(&FrameView::parse(&part).unwrap(), &mut memory, &mut may);
            prop_assert!(expected.iter().all(|r| may.contains(r)), "{expected:?} of {may:?}");
            // Nor is anything said of rules that look at nothing else.
            let only_key = |r: &u32| {
                let mut only = true;
                let filter = &rules[*r as usize].filter;
                filter.each_test(&mut |f, _| only &= matches!(f, Field::Key | Field::Bucket | Field::EventType));
                filter.each_cel(&mut |_| only = false);
                only
            };
            may.retain(only_key);
            let known: Vec<u32> = expected.into_iter().filter(only_key).collect();
            prop_assert_eq!(may, known);
        }
    }
}
