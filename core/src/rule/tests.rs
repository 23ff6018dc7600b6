use std::collections::HashMap;
use std::time::Duration;

use super::*;
use crate::ErrorKind;
use crate::event::profile::Profile;

fn types() -> EventTypes {
    EventTypes::with_custom(["acme:Scan:Clean"]).unwrap()
}

fn webhook(name: &str) -> Destination {
    Destination::new(name, DestinationKind::Webhook(Webhook::new("https://example.com/hook").unwrap()))
}

fn rule(id: &str, destinations: &[&str]) -> Rule {
    let mut rule = Rule::new(id, ["s3:ObjectCreated:*"], &types()).unwrap();
    rule.destinations = destinations.iter().map(|d| (*d).to_owned()).collect();
    rule
}

fn refused(rules: Vec<Rule>, destinations: Vec<Destination>) -> String {
    let e = RuleSet::build(rules, destinations, types()).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::InvalidConfig);
    assert!(e.remedy_text().is_some(), "{e}");
    e.to_string()
}

/// The error of one destination with a change.
fn refused_with(change: impl FnOnce(&mut Destination)) -> String {
    let mut d = webhook("hook");
    change(&mut d);
    refused(vec![], vec![d])
}

fn with_header(name: &str, value: &str) -> String {
    refused_with(|d| {
        let w = d.kind.webhook_mut().unwrap();
        w.headers.push((name.to_owned(), value.to_owned()));
    })
}

#[track_caller]
fn assert_has(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "`{part}` is not in: {text}");
    }
}

#[test]
fn the_defaults_are_the_documented_ones() {
    let d = webhook("hook");
    assert_eq!(d.batch, BatchLimits { events_max: 100, bytes_max: 262_144, linger: Duration::from_millis(5) });
    assert_eq!((d.concurrency, d.retry.poison_attempts, d.breaker.consecutive_failures), (64, 3, 5));
    assert_eq!(d.retry.backoff_min, Duration::from_secs(1));
    assert_eq!(d.retry.backoff_max, Duration::from_secs(3600));
    assert_eq!(d.retry.age_max, Duration::from_secs(72 * 3600));
    assert_eq!((d.breaker.open_min, d.breaker.open_max), (Duration::from_secs(5), Duration::from_secs(300)));
    let w = d.kind.webhook().unwrap();
    assert_eq!((w.timeout, w.connect_timeout, w.idle).0, Duration::from_secs(15));
    assert_eq!((w.connect_timeout, w.idle), (Duration::from_secs(5), Duration::from_secs(4)));
    RuleSet::build(vec![rule("r", &["hook"])], vec![d], types()).unwrap();
}

#[test]
fn names_come_once() {
    assert_has(&refused(vec![], vec![webhook("a"), webhook("a")]), &["destination `a`", "same name"]);
    assert_has(&refused(vec![rule("r", &["a"]), rule("r", &["a"])], vec![webhook("a")]), &["rule `r`", "same id"]);
    // Two buckets may each have a rule of the same name, as two S3 documents may.
    let rules = vec![rule("r", &["a"]).with_bucket("x"), rule("r", &["a"]).with_bucket("y"), rule("r", &["a"])];
    RuleSet::build(rules, vec![webhook("a")], types()).unwrap();
}

#[test]
fn names_are_legal() {
    for bad in ["", "-a", "a b", "a:b", "a/b", "é", &"a".repeat(129)] {
        assert_has(&refused(vec![], vec![webhook(bad)]), &["cannot name a destination"]);
    }
    RuleSet::build(vec![], vec![webhook(&"a".repeat(128)), webhook("A-1_2.3")], types()).unwrap();
    for bad in ["", "a\nb", &"a".repeat(256)] {
        assert_has(&refused(vec![rule(bad, &["a"])], vec![webhook("a")]), &["id"]);
    }
}

#[test]
fn an_unknown_destination_is_refused_with_the_nearest() {
    let text = refused(vec![rule("images", &["thumbnailr"])], vec![webhook("audit"), webhook("thumbnailer")]);
    assert_has(&text, &["rule `images`", "`thumbnailr`", "did you mean `thumbnailer`?"]);
    assert_has(&refused(vec![rule("r", &["x"])], vec![]), &["there is no destination yet"]);
}

#[test]
fn a_rule_needs_types_and_destinations() {
    assert_has(&refused(vec![rule("r", &[])], vec![webhook("a")]), &["rule `r`", "no destinations"]);
    assert_has(&refused(vec![rule("r", &["a", "a"])], vec![webhook("a")]), &["named twice"]);
    let mut keeper = rule("r", &[]);
    keeper.retain = true;
    RuleSet::build(vec![keeper], vec![], types()).unwrap();
    let mut r = rule("r", &["a"]);
    r.events = EventPattern::default();
    assert_has(&refused(vec![r], vec![webhook("a")]), &["rule `r`", "no event types"]);
}

#[test]
fn an_unknown_type_is_refused_with_the_nearest() {
    let e = Rule::new("r", ["s3:ObjectCreatd:Put"], &types()).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::InvalidConfig);
    assert_has(&e.to_string(), &["rule `r`", "s3:ObjectCreated:Put"]);
}

#[test]
fn a_type_that_the_profile_has_no_record_for_is_refused_if_named() {
    let named = Rule::new("r", ["s3:ObjectCreated:*", "System:Health:Failed"], &types()).unwrap();
    let text = refused(vec![named.clone().with_destination("a")], vec![webhook("a")]);
    assert_has(&text, &["rule `r`", "`System:Health:Failed`", "profile `aws`", "destination `a`"]);
    let mut d = webhook("a");
    d.profile = Profile::CloudEvents;
    RuleSet::build(vec![named.with_destination("a")], vec![d], types()).unwrap();
    // A wildcard takes what there is, if there is anything.
    let all = Rule::new("r", ["*"], &types()).unwrap().with_destination("a");
    RuleSet::build(vec![all], vec![webhook("a")], types()).unwrap();
    let nothing = Rule::new("r", ["System:*"], &types()).unwrap().with_destination("a");
    assert_has(&refused(vec![nothing], vec![webhook("a")]), &["any type of this rule"]);
}

#[test]
fn dead_letters_that_would_go_round_for_ever_are_refused() {
    let to = |name: &str, next: Option<&str>| {
        let mut d = webhook(name);
        d.dead_letter_to = next.map(str::to_owned);
        d
    };
    let e = refused(vec![], vec![to("a", Some("a"))]);
    assert_has(&e, &["destination `a`", "dead_letter_to", "a -> a"]);
    let e = refused(vec![], vec![to("a", Some("b")), to("b", Some("c")), to("c", Some("b"))]);
    assert_has(&e, &["destination `b`", "b -> c -> b"]);
    let e = refused(vec![], vec![to("a", Some("b")), to("b", Some("c")), to("c", Some("a"))]);
    assert_has(&e, &["a -> b -> c -> a"]);
    let e = refused(vec![], vec![to("hook", None), to("b", Some("hoo"))]);
    assert_has(&e, &["unknown destination `hoo`", "did you mean `hook`"]);
    let chain = vec![to("a", Some("b")), to("b", Some("c")), to("c", None), to("d", Some("b"))];
    RuleSet::build(vec![], chain, types()).unwrap();
}

#[test]
fn a_dead_letter_destination_must_have_records_for_what_it_may_be_told() {
    let mut all = webhook("all");
    all.profile = Profile::CloudEvents;
    all.dead_letter_to = Some("middle".into());
    let mut middle = webhook("middle");
    middle.profile = Profile::CloudEvents;
    middle.dead_letter_to = Some("objects".into());
    let everything = Rule::new("r", ["*"], &types()).unwrap().with_destination("all");
    let e = refused(vec![everything], vec![all.clone(), middle.clone(), webhook("objects")]);
    assert_has(&e, &["rule `r`", "destination `objects`", "profile `aws`"]);
    let objects = Rule::new("r", ["s3:ObjectCreated:*"], &types()).unwrap().with_destination("all");
    RuleSet::build(vec![objects], vec![all, middle, webhook("objects")], types()).unwrap();
}

#[test]
fn conditions_and_buckets_are_checked() {
    let long = rule("r", &["a"]).with_filter(Filter::new(vec![b'a'; 1025], ""));
    assert_has(&refused(vec![long], vec![webhook("a")]), &["rule `r`", "1025", "prefix"]);
    for bad in ["", "logs-*", "a/b", &"a".repeat(256)] {
        assert_has(&refused(vec![rule("r", &["a"]).with_bucket(bad)], vec![webhook("a")]), &["rule `r`", "bucket"]);
    }
}

#[test]
fn a_budget_of_no_attempts_is_refused() {
    let e = refused_with(|d| d.retry.attempts_max = Some(0));
    assert_has(&e, &["retry.attempts_max is 0", "choose from 1"]);
}

#[test]
fn limits_of_zero_and_bounds_the_wrong_way_round_are_refused() {
    let zero = Duration::ZERO;
    assert_has(&refused_with(|d| d.batch.events_max = 0), &["destination `hook`", "batch.events_max is 0"]);
    assert_has(&refused_with(|d| d.batch.bytes_max = 0), &["batch.bytes_max is 0"]);
    assert_has(&refused_with(|d| d.concurrency = 0), &["concurrency is 0", "1 to 1024"]);
    assert_has(&refused_with(|d| d.retry.backoff_min = zero), &["retry.backoff_min"]);
    assert_has(&refused_with(|d| d.retry.backoff_max = zero), &["retry.backoff_max"]);
    assert_has(&refused_with(|d| d.retry.age_max = zero), &["retry.age_max"]);
    assert_has(&refused_with(|d| d.retry.poison_attempts = 0), &["retry.poison_attempts is 0"]);
    assert_has(&refused_with(|d| d.breaker.consecutive_failures = 0), &["breaker.consecutive_failures"]);
    assert_has(&refused_with(|d| d.breaker.open_min = zero), &["breaker.open_min"]);
    assert_has(&refused_with(|d| d.batch.linger = Duration::from_secs(61)), &["batch.linger"]);
    assert_has(&refused_with(|d| d.retry.backoff_min = Duration::from_secs(7200)), &["more than retry.backoff_max"]);
    assert_has(&refused_with(|d| d.breaker.open_max = Duration::from_secs(1)), &["more than breaker.open_max"]);
    assert_has(
        &refused_with(|d| {
            let w = d.kind.webhook_mut().unwrap();
            w.connect_timeout = Duration::from_secs(16);
        }),
        &["connect_timeout (16s) is more than timeout (15s)"],
    );
    let mut d = webhook("hook");
    d.batch.linger = zero;
    d.validate().unwrap();
}

#[test]
fn urls_that_are_not_plain_http_are_refused() {
    for (url, why) in [
        ("ftp://example.com/", "http://"),
        ("example.com/hook", "http://"),
        ("https:example.com", "http://"),
        ("https://", "malformed"),
        ("https://exa mple.com/", "space"),
        ("https://example.com/\r\nX: y", "control"),
        ("https:\\\\example.com", "backslash"),
        ("https://example.com:99999/", "malformed"),
        ("https://example.com:0/", "port 0"),
        ("https://example.com/#x", "fragment"),
        ("https://user:hunter2@example.com/", "password"),
        ("https://user@example.com/", "user"),
        ("", "http://"),
    ] {
        let e = Webhook::new(url).unwrap_err();
        assert_eq!(e.place(), Some("url"));
        assert_has(&e.to_string(), &[why]);
        assert!(!e.to_string().contains("hunter2"));
    }
    for good in ["http://127.0.0.1:9000", "HTTPS://example.com/a?b=c%20d", "https://[::1]:8443/x"] {
        Webhook::new(good).unwrap();
    }
}

#[test]
fn headers_cannot_break_the_request() {
    for name in ["", "a b", "a:b", "X\r\n", "é"] {
        assert_has(&with_header(name, "v"), &["is not a header name"]);
    }
    for name in ["Host", "content-length", "Transfer-Encoding", "CONNECTION", "TE", "Expect", "Content-Type"] {
        assert_has(&with_header(name, "v"), &["cannot be set"]);
    }
    for value in ["a\r\nX-Evil: 1", "a\n", "a\0", "é", "\u{7f}"] {
        let text = with_header("X-Token", value);
        assert_has(&text, &["the value of header `X-Token`"]);
        assert!(!text.contains("Evil"), "{text}");
    }
    assert_has(&with_header("X-Token", " v"), &["white space"]);
    assert_has(&with_header("X-Long", &"v".repeat(9000)), &["headers (bytes)"]);
    let twice = refused_with(|d| {
        let w = d.kind.webhook_mut().unwrap();
        w.headers = vec![("X-A".into(), "1".into()), ("x-a".into(), "2".into())];
    });
    assert_has(&twice, &["given twice"]);
}

#[test]
fn an_authority_needs_tls() {
    let text = refused_with(|d| {
        let mut w = Webhook::new("http://example.com/").unwrap();
        w.tls.ca = vec!["/etc/ca.pem".into()];
        d.kind = DestinationKind::Webhook(w);
    });
    assert_has(&text, &["without TLS"]);
}

#[test]
fn debug_output_has_no_secrets() {
    let mut w = Webhook::new("https://example.com/T0KEN?key=s3cret").unwrap();
    w.headers.push(("Authorization".into(), "Bearer hunter2".into()));
    let text = format!("{w:?}");
    assert_has(&text, &["example.com", "Authorization"]);
    assert!(!text.contains("T0KEN") && !text.contains("s3cret") && !text.contains("hunter2"), "{text}");
}

fn arns() -> Arns {
    let aliases = HashMap::from([("arn:aws:sqs:us-east-1:123456789012:thumbs".to_owned(), "images".to_owned())]);
    Arns::new(["images", "audit"], aliases).unwrap()
}

#[test]
fn arns_lead_to_destinations() {
    for arn in [
        "arn:aws:sqs:us-east-1:123456789012:thumbs",
        "arn:tidewire:events:::images",
        "arn:tidewire:sqs:eu-west-1:42:images",
        "arn:minio:sqs::images:webhook",
        "arn:minio:sqs:us-east-1:images:kafka",
    ] {
        assert_eq!(arns().resolve(arn).unwrap(), "images", "{arn}");
    }
}

#[test]
fn an_alias_comes_before_the_form() {
    let aliases = HashMap::from([("arn:minio:sqs::audit:webhook".to_owned(), "images".to_owned())]);
    let arns = Arns::new(["images", "audit"], aliases).unwrap();
    assert_eq!(arns.resolve("arn:minio:sqs::audit:webhook").unwrap(), "images");
}

#[test]
fn unknown_arns_are_refused_with_the_nearest() {
    let text = |arn: &str| arns().resolve(arn).unwrap_err().to_string();
    assert_has(
        &text("arn:tidewire:events:::imges"),
        &["arn:tidewire:events:::imges", "did you mean destination `images`?"],
    );
    assert_has(
        &text("arn:aws:sqs:us-east-1:123456789013:thumbs"),
        &["did you mean `arn:aws:sqs:us-east-1:123456789012"],
    );
    assert_has(&text("arn:aws:sns:eu-west-1:9:images"), &["\"arn:aws:sns:eu-west-1:9:images\" = \"images\"", "[arns]"]);
    assert_has(&text("arn:aws:sqs:x:y:zzz"), &["known: `audit`, `images`"]);
    for odd in
        ["", "images", "arn:tidewire:events::images", "arn:tidewire:events:::a:b", "ARN:tidewire:events:::images"]
    {
        assert!(arns().resolve(odd).is_err(), "{odd}");
    }
}

#[test]
fn aliases_lead_to_known_destinations() {
    let e = Arns::new(["images"], HashMap::from([("arn:x".to_owned(), "imags".to_owned())])).unwrap_err();
    assert_has(&e.to_string(), &["arn:x", "did you mean `images`?"]);
}
