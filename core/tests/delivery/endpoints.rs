//! Several endpoints of one destination: failover and return, shares, regions, and the order of keys across them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::common::*;
use tidewire::log::standing::State;
use tidewire::rule::{Balance, Destination, DestinationKind, Order, RuleSet, Webhook, WebhookEndpoint};
use tidewire::{Ack, Engine, ErrorKind, Event, KnownType, PublishOptions};
use tidewire_receiver::{Behaviour, Receiver, Reply};

fn endpoint(r: &Receiver, weight: u32, priority: u32, region: Option<&str>) -> WebhookEndpoint {
    let mut e = WebhookEndpoint::new(&r.url()).unwrap();
    (e.weight, e.priority, e.region) = (weight, priority, region.map(str::to_owned));
    e
}

fn of(endpoints: Vec<WebhookEndpoint>, order: Order, balance: Option<Balance>) -> Destination {
    let mut w = Webhook::with_endpoints(endpoints).unwrap();
    w.balance = balance;
    let mut d = hook("hook", "http://localhost/");
    d.kind = DestinationKind::Webhook(w);
    (d.order, d.batch.events_max, d.batch.linger) = (order, 1, Duration::ZERO);
    d
}

fn open_one(dir: &Path, shards: usize, d: &Destination) -> Engine {
    open(dir, shards, passing(vec![d.clone()]))
}

fn receivers<const N: usize>() -> [Receiver; N] {
    std::array::from_fn(|_| receiver(Behaviour::Ok204))
}

#[test]
fn requests_fail_over_to_the_next_group_and_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let [mut a, mut b, c] = receivers();
    let list = vec![endpoint(&c, 1, 9, None), endpoint(&a, 1, 1, None), endpoint(&b, 1, 1, None)];
    let engine = open_one(dir.path(), 2, &of(list, Order::Key, None));
    let send = |n: u64| {
        (0..n).for_each(|k| put(&engine, &format!("k{k}"), k));
        engine.flush(WAIT).unwrap();
    };
    send(50);
    assert!(a.accepted() > 0 && b.accepted() > 0 && c.requests() == 0);
    assert_eq!(a.accepted() + b.accepted(), 50);
    a.stop();
    send(50);
    assert_eq!((a.accepted() + b.accepted(), c.requests()), (100, 0), "all to the other one of its group");
    b.stop();
    send(50);
    assert_eq!(c.accepted(), 50);
    let standing = engine.destination_standing("hook").unwrap();
    assert_eq!((standing.state, standing.endpoints.len()), (State::Active, 3));
    assert!(standing.endpoints.iter().filter(|e| e.left_alone).count() >= 1);
    assert!(standing.attempts.iter().all(|n| n.endpoint.starts_with("http://127.0.0.1:")));
    // They come back, and the last group rests.
    a.restart().unwrap();
    b.restart().unwrap();
    until("both are used again", || {
        let before = (a.accepted(), b.accepted(), c.requests());
        send(20);
        a.accepted() > before.0 && b.accepted() > before.1 && c.requests() == before.2
    });
    engine.close(WAIT).unwrap();
}

#[test]
fn an_endpoint_that_refuses_costs_no_event_and_no_pause_of_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let [a, b] = receivers();
    a.set_behaviour(Behaviour::Status(503));
    let mut d = of(vec![endpoint(&a, 1, 0, None), endpoint(&b, 1, 0, None)], Order::None, None);
    // If it had to wait for its back-off, it would wait for an hour.
    (d.retry.backoff_min, d.retry.backoff_max) = (Duration::from_secs(3600), Duration::from_secs(3600));
    let engine = open_one(dir.path(), 2, &d);
    (0..100).for_each(|n| put(&engine, &format!("k{n}"), n));
    engine.flush(WAIT).unwrap();
    assert_eq!((a.accepted(), b.accepted()), (0, 100));
    assert!(a.requests() > 0);
    engine.close(WAIT).unwrap();
}

#[test]
fn the_shares_are_those_of_the_weights() {
    for (balance, order) in [(Balance::Weighted, Order::None), (Balance::Affinity, Order::Key)] {
        let dir = tempfile::tempdir().unwrap();
        let [a, b, c] = receivers();
        let list = vec![endpoint(&a, 1, 0, None), endpoint(&b, 2, 0, None), endpoint(&c, 5, 0, None)];
        let engine = open_one(dir.path(), 1, &of(list, order, Some(balance)));
        let n = 1600;
        for k in 0..n {
            put(&engine, &format!("key-{k}"), k);
            // Few at a time: who has no place is passed over.
            if k % 3 == 2 {
                engine.flush(WAIT).unwrap();
            }
        }
        engine.flush(WAIT).unwrap();
        let counts = [a.accepted(), b.accepted(), c.accepted()];
        assert_eq!(counts.iter().sum::<usize>(), n as usize);
        for (count, weight) in counts.into_iter().zip([1.0, 2.0, 5.0]) {
            let p = weight / 8.0;
            let sigma = (n as f64 * p * (1.0 - p)).sqrt();
            assert!((count as f64 - n as f64 * p).abs() < 5.0 * sigma, "{balance:?}: {counts:?}");
        }
        engine.close(WAIT).unwrap();
    }
}

#[test]
fn events_go_to_their_region_and_elsewhere_only_while_it_is_away() {
    let dir = tempfile::tempdir().unwrap();
    let [mut eu, us] = receivers();
    let list = vec![endpoint(&eu, 1, 0, Some("eu-1")), endpoint(&us, 1, 0, Some("us-1"))];
    let mut config = config(dir.path(), 2);
    config.region = "us-1".into();
    let engine = Engine::open_with(config, passing(vec![of(list, Order::Key, None)])).unwrap();
    let send = |region: &str, from: u64| {
        for n in from..from + 40 {
            let key = format!("{region}{n}");
            let mut e = Event::new(KnownType::ObjectCreatedPut.into(), "bucket", key.as_bytes());
            e.region = region;
            engine.publish_with(&e, &PublishOptions { ack: Ack::Memory, ..PublishOptions::default() }).unwrap();
        }
        engine.flush(WAIT).unwrap();
    };
    send("eu-1", 0);
    assert_eq!((eu.accepted(), us.accepted()), (40, 0));
    // Those that name none are the engine's.
    send("us-1", 0);
    send("", 0);
    assert_eq!((eu.accepted(), us.accepted()), (40, 80));
    eu.stop();
    send("eu-1", 100);
    assert_eq!((eu.accepted(), us.accepted()), (40, 120));
    eu.restart().unwrap();
    until("it is used again", || {
        let before = us.accepted();
        send("eu-1", 200 + eu.requests() * 1000);
        us.accepted() == before
    });
    engine.close(WAIT).unwrap();
}

#[test]
fn a_key_keeps_its_order_across_endpoints_that_come_and_go() {
    for (order, balance) in
        [(Order::Key, None), (Order::Key, Some(Balance::RoundRobin)), (Order::Strict, Some(Balance::LeastOutstanding))]
    {
        let dir = tempfile::tempdir().unwrap();
        let arrived: Arc<Mutex<Vec<(String, u64)>>> = Arc::default();
        let wild = Arc::new(AtomicBool::new(true));
        let turn = Arc::new(AtomicU64::new(0));
        let list: Vec<Receiver> = (0..3).map(|_| receiver(Behaviour::Ok204)).collect();
        for r in &list {
            let (arrived, wild, turn) = (arrived.clone(), wild.clone(), turn.clone());
            r.set_behaviour(Behaviour::decide(move |hit| {
                let n = turn.fetch_add(1, Ordering::SeqCst);
                match n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 61 {
                    _ if !wild.load(Ordering::SeqCst) => {}
                    0 => return Reply::status(503),
                    1 => return Reply::close(),
                    2 => return Reply::status(429).header("Retry-After", "0"),
                    _ => {}
                }
                let records = hit.records.iter().map(|r| (r.key.clone(), r.size.unwrap_or_default()));
                arrived.lock().unwrap().extend(records);
                Reply::status(204).after(Duration::from_millis(n % 3))
            }));
        }
        let endpoints = list.iter().enumerate().map(|(i, r)| endpoint(r, 1, i as u32 / 2, None)).collect();
        let mut d = of(endpoints, order, balance);
        d.batch.events_max = 5;
        d.breaker.open_min = Duration::from_millis(20);
        d.breaker.open_max = Duration::from_millis(50);
        let engine = open_one(dir.path(), 2, &d);
        let (keys, each) = (12, 20);
        for n in 1..=each {
            (0..keys).for_each(|k| put(&engine, &format!("k{k}"), n));
            if n == each / 2 {
                wild.store(false, Ordering::SeqCst);
                engine.flush(WAIT).unwrap();
                wild.store(true, Ordering::SeqCst);
            }
        }
        std::thread::sleep(Duration::from_millis(200));
        wild.store(false, Ordering::SeqCst);
        engine.flush(WAIT).unwrap();
        let mut of_key: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        for (key, n) in arrived.lock().unwrap().drain(..) {
            of_key.entry(key).or_default().push(n);
        }
        for (key, list) in &of_key {
            assert_eq!(list, &(1..=each).collect::<Vec<_>>(), "{order:?} {balance:?} {key}");
        }
        assert_eq!(of_key.len(), keys);
        engine.close(WAIT).unwrap();
    }
}

#[test]
fn a_destination_is_disabled_when_none_of_its_endpoints_takes_anything() {
    let dir = tempfile::tempdir().unwrap();
    let [a, b] = receivers();
    a.set_behaviour(Behaviour::Status(500));
    let mut d = of(vec![endpoint(&a, 1, 0, None), endpoint(&b, 1, 1, None)], Order::Key, None);
    (d.disable.after, d.disable.attempts_min) = (Duration::from_millis(50), 3);
    let engine = open_one(dir.path(), 2, &d);
    let state = |engine: &Engine| engine.destination_standing("hook").unwrap().state;
    // One that works is enough, however long the other one fails.
    for n in 0..30 {
        put(&engine, &format!("k{n}"), n);
        engine.flush(WAIT).unwrap();
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!((state(&engine), b.accepted()), (State::Active, 30));
    b.set_behaviour(Behaviour::Status(500));
    (0..20).for_each(|n| put(&engine, &format!("k{n}"), n));
    until("it is disabled", || state(&engine) == State::Disabled);
    assert_eq!(engine.flush(Duration::from_millis(200)).unwrap_err().kind(), ErrorKind::Timeout);
    engine.close(WAIT).unwrap();
    a.set_behaviour(Behaviour::Ok204);
    let engine = open_one(dir.path(), 2, &d);
    assert_eq!(state(&engine), State::Disabled);
    engine.resume_destination("hook").unwrap();
    engine.flush(WAIT).unwrap();
    assert_eq!((state(&engine), a.accepted() + b.accepted()), (State::Active, 50));
    engine.close(WAIT).unwrap();
}

#[test]
fn endpoints_are_added_and_removed_while_events_flow() {
    let dir = tempfile::tempdir().unwrap();
    let [a, b, c] = receivers();
    let rules = |list: Vec<WebhookEndpoint>| -> RuleSet { passing(vec![of(list, Order::Key, None)]) };
    let both = vec![endpoint(&a, 1, 0, None), endpoint(&b, 1, 0, None)];
    let engine = open(dir.path(), 2, rules(both));
    let mut sent = 0;
    for list in [
        vec![endpoint(&c, 1, 0, None), endpoint(&b, 1, 0, None)],
        vec![endpoint(&c, 1, 0, None)],
        vec![endpoint(&a, 3, 0, None), endpoint(&c, 1, 0, Some("eu")), endpoint(&b, 1, 7, None)],
    ] {
        for n in 0..300 {
            put(&engine, &format!("k{}", n % 50), n);
            sent += 1;
            if n == 150 {
                engine.replace_rules(rules(list.clone())).unwrap();
            }
        }
    }
    engine.flush(WAIT).unwrap();
    assert_eq!(a.accepted() + b.accepted() + c.accepted(), sent);
    let removed = b.requests();
    (0..50).for_each(|n| put(&engine, &format!("k{n}"), n));
    engine.flush(WAIT).unwrap();
    assert_eq!(b.requests(), removed, "it is of a group that is not needed");
    engine.close(WAIT).unwrap();
}

#[test]
fn what_the_configuration_says_of_endpoints_is_checked() {
    let text = |more: &str| {
        format!(
            "[engine]\ndata_dir = \"data\"\n[[destination]]\nname = \"hook\"\ntype = \"webhook\"\n{more}\n\
             [[rule]]\nid = \"all\"\nevents = [\"*\"]\ndestinations = [\"hook\"]\n"
        )
    };
    let load = |more: &str| tidewire::config::Config::from_toml(&text(more), "t.toml", Path::new(""));
    let good = "endpoints = [{ url = \"https://a.example/x\", weight = 3, priority = 1, region = \"eu\" }, \
                { url = \"https://b.example\" }]\nbalance = \"round_robin\"\n\
                verification = { method = \"cloudevents\", origin = \"me.example\", rate = 60 }";
    let config = load(good).unwrap();
    let DestinationKind::Webhook(w) = &config.rules.destinations[0].kind else { unreachable!() };
    assert_eq!((w.endpoints.len(), w.balance), (2, Some(Balance::RoundRobin)));
    assert_eq!((w.endpoints[0].weight, w.endpoints[0].priority, w.endpoints[1].weight), (3, 1, 1));
    assert_eq!(w.verification.as_ref().unwrap().rate, Some(60));
    assert!(!format!("{w:?}").contains("/x"), "paths may be secrets");
    let one = |more: &str| format!("url = \"https://a.example\"\n{more}");
    for (more, what) in [
        (String::new(), "`url` is missing"),
        ("endpoints = []".into(), "there is no endpoint"),
        (one("endpoints = [{ url = \"https://b.example\" }]"), "`url` and `endpoints`"),
        ("endpoints = [{ url = \"https://b.example\", weight = 0 }]".into(), "endpoints.weight is 0"),
        ("endpoints = [{ url = \"https://b.example\", priority = 1001 }]".into(), "endpoints.priority is 1001"),
        ("endpoints = [{ url = \"https://b.example\", region = \"\" }]".into(), "a region is empty"),
        ("endpoints = [{ url = \"ftp://b.example\" }]".into(), "http"),
        ("endpoints = [{ url = \"https://b.example\", wieght = 1 }]".into(), "wieght"),
        ("endpoints = [{ url = \"https://b.example\" }, { url = \"https://b.example\" }]".into(), "same URL"),
        (one("balance = \"roundrobin\""), "round_robin"),
        (one("verification = \"cloud-events\""), "cloudevents"),
        (one("verification = { method = \"challenge\", rate = 5 }"), "`rate` is not for `challenge`"),
        (one("verification = { method = \"cloudevents\", origins = \"x\" }"), "origins"),
        (one("verification = { method = \"cloudevents\", origin = \"a b\" }"), "no name of a host"),
        (one("verification = { method = \"cloudevents\", rate = 0 }"), "verification.rate is 0"),
        (one("verification = 5"), "no verification"),
    ] {
        let e = load(&more).unwrap_err();
        assert!(e.to_string().contains(what) && e.remedy_text().is_some(), "{more}: {e}");
        assert!(e.place().is_some_and(|p| p.contains("line") || p.contains(':')), "{e}");
    }
}
