//! Webhook endpoints that are slow, away, wrong or gone, and what becomes of the events.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use crate::common::*;
use tidewire::auth::{Auth, Secret, StandardWebhooks};
use tidewire::rule::{BatchLimits, Destination, DestinationKind, Order, RuleSet, Success, Webhook};
use tidewire::{Ack, DeadLetterFilter, DestinationStats, Engine, ErrorKind, Event, KnownType, PublishOptions};
use tidewire_receiver::{Behaviour, Hit, Receiver, Reply, check_per_key_order};

/// Requests with one event each, one at a time.
fn one_by_one(name: &str, url: &str) -> Destination {
    let mut d = hook(name, url);
    d.batch = BatchLimits { events_max: 1, ..BatchLimits::default() };
    d.concurrency = 1;
    d
}

fn open_one(dir: &Path, destination: Destination) -> Engine {
    open(dir, 1, passing(vec![destination]))
}

fn of(engine: &Engine, name: &str) -> DestinationStats {
    engine.stats().destinations.into_iter().find(|d| d.name == name).unwrap()
}

fn in_order(r: &Receiver) {
    assert_eq!(check_per_key_order(&r.records()), []);
}

#[test]
fn slow_target_holds_the_put() {
    const PUTS: u64 = 1000;
    let dir = tempfile::tempdir().unwrap();
    // Nothing is answered while the test runs, and no attempt is given up.
    let r = receiver(Behaviour::Delay(Duration::from_secs(1800)));
    let mut webhook = Webhook::new(&r.url()).unwrap();
    webhook.timeout = Duration::from_secs(3600);
    let engine = open_one(dir.path(), Destination::new("hook", DestinationKind::Webhook(webhook)));
    put(&engine, "first", 0);
    until("the target is at work", || r.requests() > 0);
    let (done, all_done) = mpsc::channel();
    let publisher = engine.clone();
    std::thread::spawn(move || {
        for n in 1..PUTS {
            let ack = if n % 50 == 0 { Ack::Synced } else { Ack::Memory };
            let key = format!("k{n}");
            let event = Event::new(KnownType::ObjectCreatedPut.into(), "bucket", key.as_bytes());
            publisher.publish_with(&event, &PublishOptions { ack, ..PublishOptions::default() }).unwrap();
        }
        done.send(()).unwrap();
    });
    all_done.recv_timeout(WAIT).expect("the puts wait for the target");
    until("all wait", || of(&engine, "hook").waiting == PUTS);
    assert_eq!(of(&engine, "hook").delivered, 0);
    engine.close(Duration::ZERO).unwrap();
}

/// Also: nothing was sent any more after the receiver had restarted.
#[test]
fn delivery_stalls_until_the_target_is_added_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut r = receiver(Behaviour::Ok204);
    let engine = open(dir.path(), 2, passing(vec![hook("hook", &r.url())]));
    for round in 0..3 {
        (0..100).for_each(|n| put(&engine, &format!("k{}", n % 7), round * 200 + n));
        engine.flush(WAIT).unwrap();
        let failures = of(&engine, "hook").failures;
        r.stop();
        (100..200).for_each(|n| put(&engine, &format!("k{}", n % 7), round * 200 + n));
        until("it is known to be away", || of(&engine, "hook").failures > failures + 5);
        r.restart().unwrap();
        engine.flush(WAIT).unwrap();
    }
    assert_eq!(r.accepted(), 600);
    in_order(&r);
    engine.close(WAIT).unwrap();
}

#[test]
fn events_dropped_when_a_pooled_connection_is_severed() {
    let dir = tempfile::tempdir().unwrap();
    // Every other request finds its connection closed under it: those on connections that were used before.
    let r = receiver(Behaviour::decide(|hit| if hit.number % 2 == 1 { Reply::close() } else { Reply::status(204) }));
    let engine = open_one(dir.path(), one_by_one("hook", &r.url()));
    for n in 0..20 {
        put(&engine, "k", n);
        engine.flush(WAIT).unwrap();
    }
    let d = of(&engine, "hook");
    assert_eq!((d.delivered, d.failures), (20, 0), "sent again at once, on a new connection: {}", d.last_error);
    assert!(r.records().iter().any(|x| !x.accepted) && r.accepted() == 20);
    in_order(&r);
    // On a new connection it is a failure, after which the same event comes again.
    r.set_behaviour(Behaviour::CloseBeforeResponse(3));
    let before = r.records().len();
    put(&engine, "other", 1);
    engine.flush(WAIT).unwrap();
    assert!(of(&engine, "hook").failures > 0);
    let ids: BTreeSet<String> = r.records()[before..].iter().map(|x| x.event_id.clone()).collect();
    assert_eq!((ids.len(), r.records().len()), (1, before + 4));
    engine.close(WAIT).unwrap();
}

/// Answers that come in another order than the requests, and failures here and there: each destination for itself has the
/// events of a key in order.
#[test]
fn order_is_lost_in_the_fan_out() {
    let dir = tempfile::tempdir().unwrap();
    let late = |hit: &Hit<'_>| Reply::status(204).after(Duration::from_millis(7 * hit.number % 20));
    let behaviours = [
        Behaviour::Ok204,
        Behaviour::decide(late),
        Behaviour::decide(move |hit| Reply { status: Some([204, 503, 404][hit.number as usize % 3]), ..late(hit) }),
    ];
    let receivers = behaviours.map(receiver);
    let mut destinations = Vec::new();
    for (i, r) in receivers.iter().enumerate() {
        let mut d = hook(&format!("hook-{i}"), &r.url());
        d.batch.events_max = 5;
        d.breaker.consecutive_failures = 1000;
        destinations.push(d);
    }
    let engine = open(dir.path(), 2, passing(destinations));
    (0..600).for_each(|n| put(&engine, &format!("k{}", n % 40), n));
    engine.flush(WAIT).unwrap();
    for r in &receivers {
        let mut accepted = r.records();
        accepted.retain(|x| x.accepted);
        assert_eq!((accepted.len(), r.accepted()), (600, 600));
        for key in 0..40 {
            let sizes: Vec<u64> =
                accepted.iter().filter(|x| x.key == format!("k{key}")).map(|x| x.size.unwrap()).collect();
            assert!(sizes.is_sorted(), "k{key}: {sizes:?}");
        }
        in_order(r);
    }
    engine.close(WAIT).unwrap();
}

#[test]
fn a_batch_larger_than_the_receiver_takes_is_rejected_for_ever() {
    const BODY_MAX: usize = 3000;
    let dir = tempfile::tempdir().unwrap();
    let r = receiver(Behaviour::decide(|hit| Reply::status(if hit.body.len() > BODY_MAX { 413 } else { 204 })));
    let mut d = hook("hook", &r.url());
    d.batch.linger = Duration::from_millis(200);
    d.retry.poison_attempts = 1;
    let engine = open_one(dir.path(), d);
    for n in 0..200 {
        put(&engine, &format!("k{}", n % 9), n);
    }
    let wide = "é".repeat(512);
    put(&engine, &wide, 1);
    engine.flush(WAIT).unwrap();
    assert!(r.records().iter().any(|x| !x.accepted), "batches were too large");
    let d = of(&engine, "hook");
    assert_eq!((d.delivered, d.dead_lettered, d.waiting, r.accepted()), (200, 1, 0, 200));
    let letters = engine.dead_letters(&DeadLetterFilter::default(), None, 10).unwrap();
    assert_eq!((&letters[0].key[..], letters[0].status), (wide.as_bytes(), 413));
    in_order(&r);
    engine.close(WAIT).unwrap();
}

#[test]
fn an_unresolvable_host_is_looked_up_for_every_event() {
    let dir = tempfile::tempdir().unwrap();
    // A label that is too long: it is refused without asking anybody.
    let url = format!("http://{}.invalid/", "x".repeat(64));
    let mut d = one_by_one("hook", &url);
    d.breaker.consecutive_failures = 3;
    (d.breaker.open_min, d.breaker.open_max) = (Duration::from_secs(3600), Duration::from_secs(3600));
    let engine = open_one(dir.path(), d);
    (0..500).for_each(|n| put(&engine, &format!("k{n}"), n));
    until("it has failed", || of(&engine, "hook").failures == 3);
    assert!(of(&engine, "hook").last_error.contains("cannot look up"), "{}", of(&engine, "hook").last_error);
    (500..1000).for_each(|n| put(&engine, &format!("k{n}"), n));
    assert_eq!(engine.flush(Duration::from_millis(300)).unwrap_err().kind(), ErrorKind::Timeout);
    let d = of(&engine, "hook");
    assert_eq!((d.requests, d.failures, d.waiting), (3, 3, 1000), "the endpoint is left alone, not each event");
    engine.close(Duration::ZERO).unwrap();
}

/// Each class of answers, and what becomes of the events: tried at once and again, put off as a whole, or given up soon.
#[test]
fn each_class_of_answers_has_its_consequence() {
    struct Case {
        reply: Reply,
        /// A second key is delivered meanwhile.
        others_go_on: bool,
        /// Requests that come within a moment, at least.
        requests: u64,
        attempts_count: bool,
    }
    let case =
        |reply: Reply, others_go_on, requests, attempts_count| Case { reply, others_go_on, requests, attempts_count };
    let status = Reply::status;
    let cases = [
        // Fails, is tried again, and is not followed.
        case(status(302).header("Location", "http://127.0.0.1:1/"), true, 3, true),
        case(status(404), true, 3, true),
        case(status(408), true, 3, true),
        case(status(409), true, 3, true),
        // The endpoint's own failure: it is probed.
        case(status(500), false, 3, true),
        case(status(501), false, 3, true),
        case(status(503), false, 3, true),
        // The whole endpoint is left alone, and probed.
        case(status(401), false, 2, true),
        case(status(403), false, 2, true),
        // For an hour.
        case(status(410), false, 1, true),
        // For as long as it says, and no attempt counts.
        case(status(429).header("Retry-After", "3600"), false, 1, false),
        case(status(429), false, 1, false),
        case(status(503).header("Retry-After", "Fri, 31 Dec 2199 23:59:59 GMT"), false, 1, false),
        case(status(404).header("Retry-After", "600"), false, 1, false),
    ];
    for Case { reply, others_go_on, requests, attempts_count } in cases {
        let what = format!("{reply:?}");
        let dir = tempfile::tempdir().unwrap();
        let bad = move |hit: &Hit<'_>| hit.records.iter().any(|r| r.key == "bad");
        let r = receiver(Behaviour::decide(move |hit| if bad(hit) { reply.clone() } else { Reply::status(204) }));
        let mut d = one_by_one("hook", &r.url());
        (d.breaker.consecutive_failures, d.breaker.open_min) = (1, Duration::from_millis(50));
        d.breaker.open_max = if others_go_on { Duration::from_millis(50) } else { Duration::from_millis(100) };
        d.retry.attempts_max = Some(1000);
        let engine = open_one(dir.path(), d);
        put(&engine, "bad", 1);
        until(&what, || r.requests() >= requests);
        let tries = r.requests();
        put(&engine, "good", 2);
        if others_go_on || requests > 1 {
            until(&what, || r.accepted() == 1);
        } else {
            std::thread::sleep(Duration::from_millis(300));
            assert_eq!((r.accepted(), r.requests()), (0, tries), "{what}");
        }
        let waiting = if others_go_on || requests > 1 { 1 } else { 2 };
        until(&what, || of(&engine, "hook").waiting == waiting);
        assert_eq!(of(&engine, "hook").dead_lettered, 0, "{what}");
        // What was tried is known after another opening, unless it did not count.
        engine.close(Duration::ZERO).unwrap();
        r.set_behaviour(Behaviour::Status(400));
        let mut d = one_by_one("hook", &r.url());
        (d.retry.attempts_max, d.retry.poison_attempts) = (Some(if attempts_count { 1 } else { 1000 }), 1);
        let engine = open_one(dir.path(), d);
        engine.flush(WAIT).unwrap();
        let letters = engine.dead_letters(&DeadLetterFilter::default(), None, 10).unwrap();
        let bad = letters.iter().find(|l| l.key == b"bad").unwrap();
        assert_eq!(bad.attempts > 1, attempts_count, "{what}: {}", bad.attempts);
        engine.close(WAIT).unwrap();
    }
}

/// Also 413, which is cut in halves first.
#[test]
fn http_400_is_retried_hard_and_for_ever() {
    for status in [400, 413, 415, 422] {
        let dir = tempfile::tempdir().unwrap();
        let bad = |hit: &Hit<'_>| hit.records.iter().any(|r| r.key == "bad");
        let r = receiver(Behaviour::decide(move |hit| Reply::status(if bad(hit) { status } else { 204 })));
        let mut d = hook("hook", &r.url());
        d.batch.linger = Duration::from_millis(50);
        // The default is three, a minute apart.
        d.retry.poison_attempts = 1;
        let engine = open_one(dir.path(), d);
        for n in 0..40 {
            put(&engine, if n == 17 { "bad" } else { ["a", "b", "c"][n as usize % 3] }, n);
        }
        engine.flush(WAIT).unwrap();
        let d = of(&engine, "hook");
        assert_eq!((d.delivered, d.dead_lettered, r.accepted()), (39, 1, 39), "{status}");
        let letters = engine.dead_letters(&DeadLetterFilter::default(), None, 10).unwrap();
        assert_eq!((&letters[0].key[..], letters[0].status, letters[0].attempts), (&b"bad"[..], status, 1));
        in_order(&r);
        engine.close(WAIT).unwrap();
    }
}

/// Of four shards, each would have a breaker, and a number of requests, and a rate of its own.
#[test]
fn limits_hold_for_all_shards_together() {
    for shards in [1, 2, 4] {
        let dir = tempfile::tempdir().unwrap();
        let r = receiver(Behaviour::Delay(Duration::from_millis(5)));
        let mut d = one_by_one("hook", &r.url());
        d.concurrency = 3;
        d.adaptive_concurrency = false;
        let engine = open(dir.path(), shards, passing(vec![d]));
        (0..300).for_each(|n| put(&engine, &format!("k{n}"), n));
        engine.flush(WAIT).unwrap();
        assert_eq!(r.accepted(), 300);
        assert!(r.connections() <= 3 * shards as u64, "{} connections", r.connections());
        // A breaker that stays open: five failures in all, then nothing, whichever shards the events are on.
        r.set_behaviour(Behaviour::Status(500));
        let before = r.requests();
        let mut d = one_by_one("hook", &r.url());
        (d.breaker.open_min, d.breaker.open_max) = (Duration::from_secs(3600), Duration::from_secs(3600));
        engine.replace_rules(passing(vec![d])).unwrap();
        (0..300).for_each(|n| put(&engine, &format!("k{n}"), n));
        until("five have failed", || r.requests() - before >= 5);
        std::thread::sleep(Duration::from_millis(200));
        assert_eq!(r.requests() - before, 5, "{shards} shards");
        engine.close(Duration::ZERO).unwrap();
    }
}

/// What a destination calls success is its own: a set of statuses, a header, something in the body.
#[test]
fn a_login_page_with_status_200_counts_as_delivered() {
    let json = |text: &str| serde_json::from_str(text).unwrap();
    let page = || Reply { body: b"<html>please log in</html>".to_vec(), ..Reply::status(200) };
    let good = |body: &str| Reply { body: body.as_bytes().to_vec(), ..Reply::status(200) };
    let cases: [(Success, Reply); 4] = [
        (json(r#"{"statuses": [202]}"#), Reply::status(202)),
        (json(r#"{"statuses": ["409-409"], "header": {"name": "x-taken"}}"#), Reply::status(409).header("X-Taken", "")),
        (json(r#"{"header": {"name": "X-Taken", "value": "yes"}}"#), Reply::status(200).header("x-taken", "yes")),
        (json(r#"{"body": {"path": "/taken", "equals": true}}"#), good(r#"{"taken": true}"#)),
    ];
    for (success, reply) in cases {
        let dir = tempfile::tempdir().unwrap();
        let answer = reply.clone();
        let r = receiver(Behaviour::decide(move |hit| if hit.number < 3 { page() } else { answer.clone() }));
        let mut d = one_by_one("hook", &r.url());
        let DestinationKind::Webhook(w) = &mut d.kind else { unreachable!() };
        w.success = success;
        let engine = open_one(dir.path(), d);
        put(&engine, "k", 1);
        engine.flush(WAIT).unwrap();
        let d = of(&engine, "hook");
        assert_eq!((d.delivered, d.failures, r.requests()), (1, 3, 4), "{reply:?}: {}", d.last_error);
        engine.close(WAIT).unwrap();
    }
}

/// The receiver takes a request and names what it could not do: only that comes again, with what is behind it in its key,
/// and under an id of its own.
#[test]
fn of_a_batch_that_failed_in_part_everything_is_sent_again() {
    for (order, spread) in [(Order::Key, 1), (Order::Key, 7), (Order::None, 1)] {
        let dir = tempfile::tempdir().unwrap();
        let ids = Arc::new(Mutex::new(Vec::new()));
        let seen = ids.clone();
        let r = receiver(Behaviour::decide(move |hit| {
            let id = hit.headers.get("webhook-id").unwrap().to_str().unwrap().to_owned();
            let events: Vec<String> = hit.records.iter().map(|r| r.event_id.clone()).collect();
            seen.lock().unwrap().push((id, events.clone()));
            // The fourth and the sixth of the first request, and the first of the second.
            let failed = match hit.number {
                0 => vec![3, 5],
                1 => vec![0],
                _ => vec![],
            };
            let failed: Vec<_> =
                failed.iter().map(|i: &usize| serde_json::json!({"itemIdentifier": events[*i]})).collect();
            let body = serde_json::json!({ "batchItemFailures": failed }).to_string().into_bytes();
            Reply { body, ..Reply::status(200) }
        }));
        let mut d = hook("hook", &r.url());
        d.order = order;
        (d.batch.events_max, d.batch.linger) = (8, Duration::from_secs(60));
        let DestinationKind::Webhook(w) = &mut d.kind else { unreachable!() };
        w.auth =
            vec![Auth::StandardWebhooks(StandardWebhooks::new(Secret::text("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")))];
        let partial = r#"{"failures": "/batchItemFailures", "id": "itemIdentifier"}"#;
        w.partial = serde_json::from_str(partial).unwrap();
        let engine = open_one(dir.path(), d);
        (0..8).for_each(|n| put(&engine, &format!("k{}", n % spread), n));
        engine.flush(WAIT).unwrap();
        let d = of(&engine, "hook");
        assert_eq!((d.delivered, d.dead_lettered, d.waiting, d.failures), (8, 0, 0, 2), "{}", d.last_error);
        let requests = ids.lock().unwrap().clone();
        let first = &requests[0].1;
        let expect: Vec<String> = match (order, spread) {
            // One key: everything from the fourth on.
            (Order::Key, 1) => first[3..].to_vec(),
            (Order::Key, _) => {
                // The eighth event is the first key's second.
                let fails = [3, 5];
                let behind = |i: usize| fails.contains(&i) || fails.iter().any(|f| i == f + 1 && *f == 0);
                (0..8).filter(|i| behind(*i)).map(|i| first[i].clone()).collect()
            }
            _ => vec![first[3].clone(), first[5].clone()],
        };
        assert_eq!(requests[1].1, expect, "{order:?}, {spread}");
        let distinct: BTreeSet<&String> = requests.iter().map(|(id, _)| id).collect();
        let sets: BTreeSet<&Vec<String>> = requests.iter().map(|(_, events)| events).collect();
        assert_eq!(distinct.len(), sets.len(), "an id for each choice of events");
        engine.close(WAIT).unwrap();
    }
}

/// Reads a request to its end.
fn read_request(stream: &mut TcpStream) {
    let mut got = Vec::new();
    let mut buf = [0; 4096];
    loop {
        let n = stream.read(&mut buf).unwrap_or(0);
        got.extend_from_slice(&buf[..n]);
        let text = String::from_utf8_lossy(&got).to_ascii_lowercase();
        let whole = text.split_once("\r\n\r\n").is_some_and(|(head, _)| {
            let length = head.lines().find_map(|l| l.strip_prefix("content-length: ")?.trim().parse::<usize>().ok());
            got.len() >= head.len() + 4 + length.unwrap_or(0)
        });
        if n == 0 || whole {
            return;
        }
    }
}

#[test]
fn panic_when_the_webhook_answers_500_or_nonsense() {
    let nonsense: [&[u8]; 14] = [
        b"HTTP/1.1 500 \r\n\r\n",
        b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 3\r\n\r\nno!",
        b"",
        b"\0",
        b"\r\n\r\n\r\n\r\n",
        b"HTTP/1.1",
        b"HTTP/1.1 204",
        b"HTTP/9.9 204 No\r\n\r\n",
        b"HTTP/1.1 99999 No\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551616\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFF\r\n\r\n",
        b"\xff\xfe<html>\xff</html>",
    ];
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    // Ends with the test's process, if an answer is never fetched.
    std::thread::spawn(move || {
        let good: &[u8] = b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n";
        for answer in nonsense.iter().flat_map(|bad| [bad, good]) {
            let (mut stream, _) = listener.accept().unwrap();
            read_request(&mut stream);
            stream.write_all(answer).unwrap();
        }
    });
    let dir = tempfile::tempdir().unwrap();
    let engine = open_one(dir.path(), one_by_one("hook", &url));
    for (n, answer) in nonsense.iter().enumerate() {
        let n = n as u64 + 1;
        put(&engine, "k", n);
        engine.flush(WAIT).unwrap();
        let d = of(&engine, "hook");
        assert_eq!((d.delivered, d.failures), (n, n), "{:?}", String::from_utf8_lossy(answer));
        assert!(!d.last_error.is_empty() && !d.last_error.contains("panicked"), "{}", d.last_error);
    }
    engine.close(WAIT).unwrap();
}

/// What waits for a destination that was deleted keeps its budget, and ends with it; at the next opening it ends at once.
#[test]
fn endpoint_deleted_while_its_events_wait_for_a_retry_fails_for_ever() {
    let root = tempfile::tempdir().unwrap();
    let letters = |e: &Engine| e.dead_letters(&DeadLetterFilter::default(), None, 1000).unwrap();
    for status in [404, 500] {
        for restart in [false, true] {
            let dir = root.path().join(format!("{status}-{restart}"));
            let r = receiver(Behaviour::Status(status));
            let mut d = hook("gone", &r.url());
            d.retry.attempts_max = Some(3);
            if restart {
                (d.retry.backoff_min, d.retry.backoff_max) = (Duration::from_secs(3600), Duration::from_secs(3600));
                (d.breaker.open_min, d.breaker.open_max) = (Duration::from_secs(3600), Duration::from_secs(3600));
            }
            let mut engine = open(&dir, 2, passing(vec![d]));
            (0..50).for_each(|n| put(&engine, &format!("k{}", n % 10), n));
            sync(&engine);
            until("it has failed", || of(&engine, "gone").failures > 0);
            engine.replace_rules(RuleSet::default()).unwrap();
            if restart {
                engine.close(Duration::ZERO).unwrap();
                r.set_behaviour(Behaviour::Ok204);
                engine = open(&dir, 2, RuleSet::default());
            }
            engine.flush(WAIT).unwrap();
            assert_eq!(engine.stats().waiting, 0);
            // Those of `sync` are among them.
            let found = letters(&engine);
            let found: Vec<_> = found.iter().filter(|l| l.bucket == "bucket").collect();
            assert_eq!((found.len(), r.accepted()), (50, 0), "{status}, restart {restart}");
            let told = |l: &str| if restart { l.contains("removed") } else { l.contains(&status.to_string()) };
            assert!(found.iter().all(|l| told(&l.reason) && (restart || l.attempts == 3)), "{:?}", found[0]);
            engine.close(WAIT).unwrap();
        }
    }
}
