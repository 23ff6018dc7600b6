//! Destinations that the host serves itself: every answer, late and missing ones, and functions that misbehave.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tidewire::config::EngineConfig;
use tidewire::custom::{Batch, Handler};
use tidewire::rule::{BatchLimits, Custom, Destination, DestinationKind, Order, RetryPolicy};
use tidewire::{Engine, ErrorKind};

use crate::common::{WAIT, config, passing, put, until};

fn destination(name: &str, change: impl FnOnce(&mut Destination, &mut Custom)) -> Destination {
    let mut custom = Custom::new("mine");
    let mut d = Destination::new(name, DestinationKind::Custom(custom.clone()));
    d.retry = RetryPolicy {
        backoff_min: Duration::from_millis(10),
        backoff_max: Duration::from_millis(50),
        ..RetryPolicy::default()
    };
    d.breaker.consecutive_failures = 1_000_000;
    d.breaker.calls_min = 1_000_000;
    d.batch.linger = Duration::from_millis(1);
    change(&mut d, &mut custom);
    d.kind = DestinationKind::Custom(custom);
    d
}

fn open(dir: &Path, destinations: Vec<Destination>) -> Engine {
    Engine::open_with(config(dir, 2), passing(destinations)).unwrap()
}

fn handle(engine: &Engine, handler: impl Handler + 'static) {
    engine.set_handler("mine", Some(Arc::new(handler))).unwrap();
}

/// The keys of a batch's records, which are those of `aws`.
fn keys(batch: &Batch) -> Vec<String> {
    let key = |i| {
        let record: serde_json::Value = serde_json::from_slice(batch.record(i).unwrap()).unwrap();
        record["s3"]["object"]["key"].as_str().unwrap().to_owned()
    };
    (0..batch.events()).map(key).collect()
}

fn delivered(engine: &Engine) -> u64 {
    engine.stats().delivered
}

#[test]
fn a_function_gets_what_a_webhook_would_get() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path(), vec![destination("own", |_, _| {})]);
    let (sender, batches) = channel();
    let sender = Mutex::new(sender);
    handle(&engine, move |batch: Batch| {
        assert_eq!((batch.destination(), batch.content_type()), ("own", "application/json"));
        assert!(batch.headers().is_empty() && batch.deadline() > Instant::now());
        let body: Vec<u8> = batch.body().collect::<Vec<_>>().concat();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        let records = body["Records"].as_array().unwrap();
        assert_eq!(records.len(), batch.events());
        for (i, record) in records.iter().enumerate() {
            let alone: serde_json::Value = serde_json::from_slice(batch.record(i).unwrap()).unwrap();
            assert_eq!(*record, alone);
            assert_eq!(record["eventId"], batch.id(i).unwrap().to_string());
        }
        assert!(batch.id(records.len()).is_none() && batch.record(records.len()).is_none());
        sender.lock().unwrap().send(keys(&batch)).unwrap();
        batch.accept();
    });
    for n in 0..100 {
        put(&engine, &format!("k{n}"), n);
    }
    engine.flush(WAIT).unwrap();
    let seen: Vec<String> = batches.try_iter().flatten().collect();
    assert_eq!((seen.len(), seen.iter().collect::<BTreeSet<_>>().len()), (100, 100));
    assert_eq!(delivered(&engine), 100);
    engine.close(WAIT).unwrap();
}

/// Keeps batches for a thread that answers them when it likes, in an order of its own.
fn answering(batches: Receiver<Batch>, answer: impl Fn(Batch) + Send + 'static) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        let mut held = Vec::new();
        while let Ok(batch) = batches.recv() {
            held.push(batch);
            held.extend(batches.try_iter());
            std::thread::sleep(Duration::from_millis(2));
            // The last one first.
            while let Some(batch) = held.pop() {
                answer(batch);
            }
        }
    })
}

#[test]
fn answers_come_later_from_any_thread_and_the_order_of_each_key_holds() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path(), vec![destination("own", |d, _| d.batch.events_max = 3)]);
    let (sender, batches) = channel();
    let seen = Arc::new(Mutex::new(HashMap::<String, Vec<u64>>::new()));
    let most = Arc::new(AtomicUsize::new(0));
    let under_way = Arc::new(AtomicUsize::new(0));
    let (noted, busy) = (seen.clone(), under_way.clone());
    let thread = answering(batches, move |batch| {
        let mut seen = noted.lock().unwrap();
        for i in 0..batch.events() {
            let record: serde_json::Value = serde_json::from_slice(batch.record(i).unwrap()).unwrap();
            let object = &record["s3"]["object"];
            let of = seen.entry(object["key"].as_str().unwrap().to_owned()).or_default();
            of.push(object["size"].as_u64().unwrap());
        }
        drop(seen);
        busy.fetch_sub(1, Ordering::SeqCst);
        batch.accept();
    });
    let (sender, at_once) = (Mutex::new(sender), most.clone());
    handle(&engine, move |batch: Batch| {
        at_once.fetch_max(under_way.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        sender.lock().unwrap().send(batch).unwrap();
    });
    for n in 0..50 {
        for key in 0..20 {
            put(&engine, &format!("k{key}"), n);
        }
    }
    engine.flush(WAIT).unwrap();
    engine.set_handler("mine", None).unwrap();
    engine.close(WAIT).unwrap();
    thread.join().unwrap();
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), 20);
    for (key, sizes) in &*seen {
        assert_eq!(*sizes, (0..50).collect::<Vec<_>>(), "{key}");
    }
    assert!(most.load(Ordering::SeqCst) > 1, "several are with the host at once");
}

/// Every way to say that it is not done: the events come again, and each is delivered in the end, or is a dead letter.
#[test]
fn what_was_not_taken_comes_again() {
    let dir = tempfile::tempdir().unwrap();
    let own = destination("own", |d, c| {
        d.batch = BatchLimits { events_max: 4, ..d.batch };
        d.retry.poison_attempts = 2;
        c.timeout = Duration::from_millis(300);
    });
    let engine = open(dir.path(), vec![own]);
    let seen = Arc::new(Mutex::new(BTreeMap::<String, usize>::new()));
    let calls = Arc::new(AtomicUsize::new(0));
    let late = Arc::new(Mutex::new(Vec::new()));
    let (noted, held) = (seen.clone(), late.clone());
    handle(&engine, move |batch: Batch| {
        let keys = keys(&batch);
        if keys.iter().any(|key| key == "bad") {
            return batch.refuse("this one never");
        }
        match calls.fetch_add(1, Ordering::SeqCst) {
            0 => batch.retry("not now"),
            1 => batch.retry_after(Duration::from_millis(1), "in a moment"),
            2 => drop(batch),
            3 => held.lock().unwrap().push(batch),
            4 => panic!("a defect of the host"),
            5 if keys.len() > 1 => {
                keys[1..].iter().for_each(|key| *noted.lock().unwrap().entry(key.clone()).or_default() += 1);
                batch.accept_but(&[0, 0, 77], "the first one failed");
            }
            _ => {
                keys.into_iter().for_each(|key| *noted.lock().unwrap().entry(key).or_default() += 1);
                batch.accept();
            }
        }
    });
    for n in 0..40 {
        put(&engine, &format!("k{n}"), n);
        if n == 20 {
            put(&engine, "bad", 0);
        }
    }
    engine.flush(WAIT).unwrap();
    // The answer that comes too late changes nothing.
    late.lock().unwrap().drain(..).for_each(Batch::accept);
    let stats = engine.stats();
    assert_eq!((stats.delivered, stats.dead_lettered, stats.waiting), (40, 1, 0));
    let seen = seen.lock().unwrap();
    assert_eq!((seen.len(), seen.values().max()), (40, Some(&1)), "{seen:?}");
    let attempts = engine.destination_standing("own").unwrap().attempts;
    let reasons: Vec<&str> = attempts.iter().map(|a| a.reason.as_str()).collect();
    for reason in
        ["not now", "in a moment", "without an answer", "not answered within 300ms", "the first one failed", "never"]
    {
        assert!(reasons.iter().any(|r| r.contains(reason)), "{reason}: {reasons:?}");
    }
    engine.close(WAIT).unwrap();
}

#[test]
fn events_wait_for_a_function_that_is_given_later_replaced_and_taken_away() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path(), vec![destination("own", |_, _| {})]);
    put(&engine, "a", 1);
    assert_eq!(engine.flush(Duration::from_millis(300)).unwrap_err().kind(), ErrorKind::Timeout);
    let counting = || {
        let count = Arc::new(AtomicUsize::new(0));
        let counted = count.clone();
        let handler = move |batch: Batch| {
            counted.fetch_add(batch.events(), Ordering::SeqCst);
            batch.accept();
        };
        (count, handler)
    };
    let (first, handler) = counting();
    handle(&engine, handler);
    engine.flush(WAIT).unwrap();
    let (second, handler) = counting();
    handle(&engine, handler);
    put(&engine, "b", 1);
    engine.flush(WAIT).unwrap();
    engine.set_handler("mine", None).unwrap();
    put(&engine, "c", 1);
    assert_eq!(engine.flush(Duration::from_millis(300)).unwrap_err().kind(), ErrorKind::Timeout);
    assert_eq!((first.load(Ordering::SeqCst), second.load(Ordering::SeqCst)), (1, 1));
    // Those that were replaced are let go of.
    until("they are gone", || Arc::strong_count(&first) == 1 && Arc::strong_count(&second) == 1);
    assert_eq!(engine.set_handler("", None).unwrap_err().kind(), ErrorKind::InvalidConfig);
    engine.close(Duration::from_millis(100)).unwrap();
    assert_eq!(engine.set_handler("mine", None).unwrap_err().kind(), ErrorKind::Closed);
    // What waits is delivered in the next run.
    let engine = open(dir.path(), vec![destination("own", |_, _| {})]);
    let (third, handler) = counting();
    handle(&engine, handler);
    engine.flush(WAIT).unwrap();
    assert_eq!(third.load(Ordering::SeqCst), 1);
    engine.close(WAIT).unwrap();
}

#[test]
fn a_function_that_blocks_holds_up_nothing_else_and_closing_is_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let mut other = destination("other", |_, c| c.handler = "other".into());
    other.order = Order::None;
    let engine = open(dir.path(), vec![destination("own", |_, _| {}), other]);
    let go_on = Arc::new(AtomicBool::new(false));
    let (waits, entered) = (go_on.clone(), Arc::new(AtomicBool::new(false)));
    let inside = entered.clone();
    let alive = Arc::new(());
    let held = alive.clone();
    handle(&engine, move |batch: Batch| {
        let _held = &held;
        inside.store(true, Ordering::SeqCst);
        while !waits.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(5));
        }
        batch.accept();
    });
    let taken = Arc::new(AtomicUsize::new(0));
    let counted = taken.clone();
    engine
        .set_handler(
            "other",
            Some(Arc::new(move |batch: Batch| {
                counted.fetch_add(batch.events(), Ordering::SeqCst);
                batch.accept();
            })),
        )
        .unwrap();
    for n in 0..1000 {
        put(&engine, &format!("k{}", n % 50), n);
    }
    until("the other has all", || taken.load(Ordering::SeqCst) == 1000 && entered.load(Ordering::SeqCst));
    let begun = Instant::now();
    engine.close(Duration::from_millis(300)).unwrap();
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    assert_eq!(Arc::strong_count(&alive), 2, "it is still within the call");
    go_on.store(true, Ordering::SeqCst);
    until("it has returned", || Arc::strong_count(&alive) == 1);
    // Whatever the late answer said, nothing is lost.
    let engine = open(dir.path(), vec![destination("own", |_, _| {})]);
    let taken = Arc::new(Mutex::new(BTreeSet::new()));
    let noted = taken.clone();
    handle(&engine, move |batch: Batch| {
        noted.lock().unwrap().extend((0..batch.events()).map(|i| batch.id(i).unwrap().to_string()));
        batch.accept();
    });
    engine.flush(WAIT).unwrap();
    assert_eq!(taken.lock().unwrap().len(), 1000);
    engine.close(WAIT).unwrap();
}

/// The engine may be closed from within a function, and by the last one that has it.
#[test]
fn an_engine_is_closed_from_within_a_function() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path(), vec![destination("own", |_, _| {})]);
    let (sender, done) = channel();
    let (own, sender) = (engine.clone(), Mutex::new(sender));
    handle(&engine, move |batch: Batch| {
        batch.accept();
        sender.lock().unwrap().send(own.close(Duration::from_secs(5)).is_ok()).unwrap();
    });
    put(&engine, "a", 1);
    assert_eq!(done.recv_timeout(WAIT), Ok(true));
}

#[test]
fn it_is_configured_and_kept_like_any_other() {
    let dir = tempfile::tempdir().unwrap();
    let text = |more: &str| {
        format!(
            "[engine]\ndata_dir = '{}'\n[[destination]]\nname = 'own'\ntype = 'custom'\n{more}\n[[rule]]\nid = 'all'\nevents = ['*']\ndestinations = ['own']\n",
            dir.path().join("data").display()
        )
    };
    let load = |more: &str| tidewire::config::Config::from_toml(&text(more), "t.toml", dir.path());
    let kind = |more: &str| load(more).unwrap().rules.destinations[0].kind.clone();
    assert_eq!(kind(""), DestinationKind::Custom(Custom::new("own")));
    let mut other = Custom::new("other");
    other.timeout = Duration::from_secs(3);
    assert_eq!(kind("handler = 'other'\ntimeout = '3s'"), DestinationKind::Custom(other.clone()));
    for (more, what) in [
        ("url = 'http://localhost/'", "`url` is not for a destination that the host serves"),
        ("headers = { A = 'b' }", "`headers` is not"),
        ("pool = { lifetime = '1s' }", "`pool` is not"),
        ("pool = { user_timeout = '1s' }", "`pool` is not"),
        ("trust = 'tenant'", "`trust` is not"),
        ("tls = { server_name = 'x' }", "`tls` is not"),
        ("addresses = { deny = ['10.0.0.0/8'] }", "`addresses` is not"),
        ("handler = ''", "handler"),
        ("timeout = '0s'", "timeout"),
    ] {
        let e = load(more).unwrap_err().to_string();
        assert!(e.contains(what) && e.contains("destination `own`") && e.contains("t.toml"), "{more}: {e}");
    }
    let webhook =
        "[engine]\ndata_dir = 'd'\n[[destination]]\nname = 'w'\ntype = 'webhook'\nurl = 'http://x/'\nhandler = 'h'\n";
    let e = tidewire::config::Config::from_toml(webhook, "t.toml", dir.path()).unwrap_err().to_string();
    assert!(e.contains("a webhook has no handler"), "{e}");

    // Put while the engine runs, it is there again in the next run.
    let engine = Engine::open_with(EngineConfig::new(dir.path().join("kept")), passing(vec![])).unwrap();
    let d = Destination::new("put", DestinationKind::Custom(other));
    engine.put_destination(d.clone(), tidewire::rule::Expect::Absent, &tidewire::rule::Backlog::Keep).unwrap();
    engine.close(WAIT).unwrap();
    let engine = Engine::open_with(EngineConfig::new(dir.path().join("kept")), passing(vec![])).unwrap();
    let kept = engine.destinations().into_iter().find(|kept| kept.destination.name == "put");
    assert_eq!(*kept.unwrap().destination, d);
    let e = engine.rotate_secret("put", None, Duration::ZERO).unwrap_err();
    assert!(e.kind() == ErrorKind::NotFound && e.to_string().contains("no secrets"), "{e}");
    engine.close(WAIT).unwrap();
}
