//! What the host adds to events before they are matched, and a function for that which misbehaves.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tidewire::config::SharedConfig;
use tidewire::event::{EventTypes, FrameView};
use tidewire::filter::{Field, Filter, Test};
use tidewire::log::reader::{Entry, ReadFrom};
use tidewire::rule::{Rule, RuleSet};
use tidewire::{
    Ack, AnyEngine, Client, ClientOptions, CommitFields, CommitOptions, Engine, EnrichOptions, Enricher, Enrichment,
    ErrorKind, Event, Intent, KnownType, PublishOptions, Published, ReplayRequest, ReplayTo, ReserveOptions, Reserved,
};
use tidewire_receiver::{Behaviour, check_per_key_order};

use crate::common::*;

type Told = std::result::Result<(), String>;

fn enrich(
    engine: &Engine,
    options: EnrichOptions,
    f: impl Fn(&FrameView<'_>, &mut Enrichment) -> Told + Send + Sync + 'static,
) {
    engine.set_enricher(Some(Arc::new(f)), options).unwrap();
}

/// So long that it never passes.
fn patient() -> EnrichOptions {
    let mut options = EnrichOptions::default();
    options.timeout = Duration::from_secs(60);
    options
}

fn fallback(timeout: Duration) -> EnrichOptions {
    let mut options = EnrichOptions::default();
    options.timeout = timeout;
    options.fallback.set_tag("fallback", "yes");
    options
}

/// What was added to each event of the log, by key: the metadata `n`, the tag `fallback`.
fn logged(dir: &Path) -> BTreeMap<String, Vec<(Option<String>, bool)>> {
    let mut found = BTreeMap::<String, Vec<_>>::new();
    let (entries, gaps) = read_all(dir, ReadFrom::Beginning);
    assert!(gaps.is_empty());
    for entry in entries {
        found.entry(String::from_utf8(entry.frame().key().to_vec()).unwrap()).or_default().push(added(&entry));
    }
    found
}

fn added(entry: &Entry) -> (Option<String>, bool) {
    let frame = entry.frame();
    let n = frame.metadata().find(|(name, _)| *name == "n").map(|(_, value)| value.to_owned());
    (n, frame.tags().any(|pair| pair == ("fallback", "yes")))
}

/// Lets go of an enricher that waits, also when the test fails.
struct Gate(Arc<(Mutex<bool>, std::sync::Condvar)>);

impl Gate {
    fn new() -> Gate {
        Gate(Arc::default())
    }

    fn wait(of: &(Mutex<bool>, std::sync::Condvar)) {
        let mut open = of.0.lock().unwrap();
        while !*open {
            open = of.1.wait(open).unwrap();
        }
    }

    fn open(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.open();
    }
}

#[test]
fn rules_see_what_was_added_and_neither_replay_nor_restart_asks_again() {
    let dir = tempfile::tempdir().unwrap();
    let r = receiver(Behaviour::Ok204);
    let rules = || {
        let filter = Filter::Is(Field::Tag("class".into()), Test::Equals((*b"hot").into()));
        let rule =
            Rule::new("hot", ["*"], &EventTypes::default()).unwrap().with_filter(filter).with_destination("hook");
        let mut keeper = everything("keep");
        keeper.retain = true;
        RuleSet::build(vec![rule, keeper], vec![hook("hook", &r.url())], EventTypes::default()).unwrap()
    };
    let engine = open(dir.path(), 2, rules());
    let calls = Arc::new(AtomicU64::new(0));
    let counted = calls.clone();
    let classify = move |event: &FrameView<'_>, added: &mut Enrichment| {
        let n = counted.fetch_add(1, Ordering::SeqCst);
        added.set_metadata("n", n.to_string());
        if event.size().is_some_and(|n| n.is_multiple_of(2)) {
            added.set_tag("class", "hot");
        }
        Ok(())
    };
    put(&engine, "before", 0);
    sync(&engine);
    enrich(&engine, patient(), classify.clone());
    for n in 0..2000 {
        put(&engine, &format!("key-{}", n % 50), n);
    }
    engine.flush(WAIT).unwrap();
    sync(&engine);
    let s = engine.stats();
    assert_eq!(
        (s.enriched, s.enrich_timeouts, s.enrich_failed, s.enrich_panicked, s.enrich_skipped),
        (2064, 0, 0, 0, 0)
    );
    let records = r.records();
    assert_eq!(records.len(), 1000);
    assert!(records.iter().all(|x| x.size.unwrap().is_multiple_of(2)));
    assert!(check_per_key_order(&records).is_empty());
    let called = calls.load(Ordering::SeqCst);

    // Sent again, as it was logged.
    let again = ReplayRequest::new(ReplayTo::Named("hook".into()));
    let done = engine.replay(again).unwrap().wait(WAIT).unwrap();
    assert!(done.found >= 2001 && done.delivered == done.found, "{done:?}");
    let first = logged(dir.path());
    assert_eq!(first["before"], [(None, false)]);
    assert_eq!(first.iter().filter(|(key, _)| *key != "before").flat_map(|(_, all)| all).count(), 2000);
    assert!(first.iter().filter(|(key, _)| *key != "before").all(|(_, all)| all.iter().all(|(n, _)| n.is_some())));
    engine.close(WAIT).unwrap();

    // Nor is what an earlier run left asked about.
    r.set_behaviour(Behaviour::Status(503));
    let engine = open(dir.path(), 2, rules());
    enrich(&engine, patient(), classify.clone());
    put(&engine, "left", 4);
    sync(&engine);
    engine.close(Duration::ZERO).unwrap();
    let called_with_left = calls.load(Ordering::SeqCst);
    assert_eq!(called_with_left, called + 65);
    r.set_behaviour(Behaviour::Ok204);
    let engine = open(dir.path(), 2, rules());
    enrich(&engine, patient(), classify);
    engine.flush(WAIT).unwrap();
    assert_eq!(r.records().iter().filter(|x| x.key == "left" && x.accepted).count(), 1);
    assert_eq!(calls.load(Ordering::SeqCst), called_with_left);
    engine.close(WAIT).unwrap();
    let after = logged(dir.path());
    assert!(first.iter().all(|(key, all)| after[key] == *all));
}

#[test]
fn one_that_is_slow_keeps_the_order_and_acks_wait_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path(), 2, kept(vec![]));
    enrich(&engine, patient(), |event, added| {
        std::thread::sleep(Duration::from_millis(event.size().unwrap_or(0) % 3));
        added.set_metadata("n", event.size().unwrap_or(0).to_string());
        Ok(())
    });
    std::thread::scope(|s| {
        for t in 0..4u64 {
            let engine = &engine;
            s.spawn(move || {
                for n in 0..60u64 {
                    let key = format!("key-{t}");
                    let mut e = Event::new(KnownType::ObjectCreatedPut.into(), "bucket", key.as_bytes());
                    e.size = Some(n);
                    let ack = if n.is_multiple_of(10) { Ack::Synced } else { Ack::Memory };
                    let options = PublishOptions { ack, ack_timeout: WAIT, ..PublishOptions::default() };
                    assert_eq!(engine.publish_with(&e, &options).unwrap(), Published::Accepted);
                }
            });
        }
    });
    sync(&engine);
    for (key, all) in logged(dir.path()) {
        assert!(all.iter().map(|(n, _)| n.as_deref().unwrap().parse::<u64>().unwrap()).eq(0..60), "{key}: {all:?}");
    }
    assert_eq!(engine.stats().enriched, 240 + 64);
    engine.close(WAIT).unwrap();
}

#[test]
fn one_that_fails_panics_or_says_what_cannot_be_leaves_the_fallback() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path(), 1, kept(vec![]));
    enrich(&engine, fallback(Duration::from_secs(60)), |event, added| {
        added.set_metadata("n", "set");
        match event.key() {
            b"fails" => return Err("not today".into()),
            b"panics" => panic!("on purpose"),
            b"large" => {
                added.set_metadata("more", "x".repeat(70_000));
            }
            b"nameless" => {
                added.set_tag("", "x");
            }
            b"no-json" => {
                added.set_data("{");
            }
            b"good" => {
                added.set_data(r#"{"a":1}"#);
            }
            _ => {}
        }
        Ok(())
    });
    for key in ["fails", "panics", "large", "nameless", "no-json", "good", "panics"] {
        put(&engine, key, 1);
    }
    sync(&engine);
    let found = logged(dir.path());
    for key in ["fails", "panics", "large", "nameless", "no-json"] {
        assert!(found[key].iter().all(|a| *a == (None, true)), "{key}: {:?}", found[key]);
    }
    assert_eq!(found["good"], [(Some("set".into()), false)]);
    let s = engine.stats();
    assert_eq!((s.enriched, s.enrich_failed, s.enrich_panicked, s.enrich_timeouts), (65, 4, 2, 0));
    engine.close(WAIT).unwrap();
}

#[test]
fn a_fallback_that_makes_an_event_too_large_is_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path(), 1);
    config.event_bytes_max = 4096;
    let engine = Engine::open_with(config, kept(vec![])).unwrap();
    let mut options = patient();
    options.fallback.set_tag("fallback", "yes").set_tag("more", "x".repeat(2000));
    enrich(&engine, options, |_, _| Err("never".into()));
    let text = "x".repeat(2500);
    let mut e = Event::new(KnownType::ObjectCreatedPut.into(), "bucket", b"large");
    e.user_agent = &text;
    engine.publish(&e).unwrap();
    e.user_agent = "";
    e.key = b"small";
    engine.publish(&e).unwrap();
    let found = logged(dir.path());
    assert_eq!((found["large"][0].1, found["small"][0].1), (false, true));
    engine.close(WAIT).unwrap();
}

#[test]
fn nobody_waits_for_one_that_does_not_come_back_until_it_does() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path(), 1, kept(vec![]));
    let gate = Gate::new();
    let held = gate.0.clone();
    enrich(&engine, fallback(Duration::from_secs(2)), move |event, added| {
        if event.key() == b"stuck" {
            Gate::wait(&held);
        }
        added.set_metadata("n", "set");
        Ok(())
    });
    put(&engine, "first", 0);
    until("the first is through", || engine.stats().enriched == 1);
    put(&engine, "stuck", 0);
    until("it is given up", || engine.stats().enrich_timeouts == 1);
    for n in 0..500 {
        put(&engine, &format!("meanwhile-{n}"), n);
    }
    sync(&engine);
    let s = engine.stats();
    assert_eq!((s.enriched, s.enrich_timeouts, s.enrich_skipped), (1, 1, 564));
    let found = logged(dir.path());
    assert_eq!(found["first"], [(Some("set".into()), false)]);
    assert!(found.iter().filter(|(key, _)| *key != "first").all(|(_, all)| all.iter().all(|a| *a == (None, true))));
    gate.open();
    // It is back: what comes is enriched again, and what it said late changes nothing.
    until("it is asked again", || {
        put(&engine, "after", 0);
        sync(&engine);
        logged(dir.path())["after"].last() == Some(&(Some("set".into()), false))
    });
    assert_eq!(logged(dir.path())["stuck"], [(None, true)]);
    engine.close(WAIT).unwrap();
}

#[test]
fn closing_waits_for_the_enricher_no_longer_than_it_may() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path(), 2, kept(vec![]));
    let gate = Gate::new();
    let held = gate.0.clone();
    let (let_go, gone) = channel::<()>();
    let let_go = Mutex::new(let_go);
    enrich(&engine, fallback(Duration::from_secs(60)), move |_, _| {
        let _held: &Mutex<Sender<()>> = &let_go;
        Gate::wait(&held);
        Ok(())
    });
    for n in 0..100 {
        put(&engine, &format!("{n}"), n);
    }
    // It never comes back, and would have a minute for each event.
    engine.close(Duration::from_millis(200)).unwrap();
    let found = logged(dir.path());
    assert_eq!(found.len(), 100);
    assert!(found.values().all(|all| *all == [(None, true)]));
    // What was lent to it is dropped when it does come back.
    assert!(gone.try_recv().is_err_and(|e| e == std::sync::mpsc::TryRecvError::Empty));
    gate.open();
    assert_eq!(gone.recv_timeout(WAIT), Err(std::sync::mpsc::RecvTimeoutError::Disconnected));
    assert_eq!(engine.set_enricher(None, EnrichOptions::default()).unwrap_err().kind(), ErrorKind::Closed);
}

#[test]
fn one_takes_the_place_of_another_for_what_comes_after() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path(), 2, kept(vec![]));
    let named = |name: &'static str| {
        move |_: &FrameView<'_>, added: &mut Enrichment| {
            added.set_metadata("n", name);
            Ok(())
        }
    };
    for round in 0..20 {
        for (name, enricher) in [("a", Some(named("a"))), ("b", Some(named("b"))), ("none", None)] {
            let enricher = enricher.map(|e| Arc::new(e) as Arc<dyn Enricher>);
            engine.set_enricher(enricher, patient()).unwrap();
            for n in 0..20 {
                put(&engine, &format!("{name}-{}", n % 5), round);
            }
            // What is still in the ring may go to the next one.
            if name != "a" {
                sync(&engine);
            }
        }
    }
    for (key, all) in logged(dir.path()) {
        assert_eq!(all.len(), 80);
        for (n, _) in all {
            match key.split('-').next().unwrap() {
                "a" => assert!(n.as_deref() == Some("a") || n.as_deref() == Some("b"), "{key}: {n:?}"),
                "b" => assert_eq!(n.as_deref(), Some("b"), "{key}"),
                _ => assert_eq!(n, None, "{key}"),
            }
        }
    }
    let error = |change: fn(&mut EnrichOptions)| {
        let mut options = EnrichOptions::default();
        change(&mut options);
        engine.set_enricher(None, options).unwrap_err()
    };
    for e in [
        error(|o| o.timeout = Duration::ZERO),
        error(|o| {
            o.fallback.set_data("{");
        }),
    ] {
        assert_eq!(e.kind(), ErrorKind::InvalidArgument, "{e}");
    }
    engine.close(WAIT).unwrap();
}

#[test]
fn one_may_use_the_engine_that_it_adds_to() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path(), 1, kept(vec![]));
    let own = engine.clone();
    enrich(&engine, patient(), move |event, added| {
        if event.key() == b"one" {
            put(&own, "more", 1);
        }
        added.set_metadata("n", "set");
        Ok(())
    });
    put(&engine, "one", 0);
    sync(&engine);
    assert_eq!(logged(dir.path())["more"], [(Some("set".into()), false)]);
    engine.set_enricher(None, EnrichOptions::default()).unwrap();
    engine.close(WAIT).unwrap();
}

#[test]
fn the_events_of_reservations_are_enriched_at_their_commit() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path(), 2, kept(vec![]));
    let seen = Arc::new(Mutex::new(Vec::new()));
    let noted = seen.clone();
    enrich(&engine, patient(), move |event, added| {
        if event.bucket() == "bucket" {
            noted.lock().unwrap().push((String::from_utf8(event.key().to_vec()).unwrap(), event.size()));
        }
        added.set_metadata("n", event.size().unwrap_or(0).to_string());
        Ok(())
    });
    for (key, intent) in [("volatile", Intent::None), ("durable", Intent::Durable)] {
        for commit in [true, false] {
            let e = Event::new(KnownType::ObjectCreatedPut.into(), "bucket", key.as_bytes());
            let options = ReserveOptions { intent, ..ReserveOptions::default() };
            let Reserved::Held(held) = engine.reserve(&e, &options).unwrap() else { panic!("held") };
            if commit {
                let fields = CommitFields { size: Some(7), ..CommitFields::default() };
                held.commit(&fields, &CommitOptions::default()).unwrap();
            } else {
                held.abort().unwrap();
            }
        }
    }
    sync(&engine);
    let found = logged(dir.path());
    for key in ["volatile", "durable"] {
        assert_eq!(found[key], [(Some("7".into()), false)]);
    }
    assert_eq!(*seen.lock().unwrap(), [("volatile".into(), Some(7)), ("durable".into(), Some(7))]);
    engine.close(WAIT).unwrap();
}

#[test]
fn it_belongs_to_the_process_that_has_the_engine_and_sees_what_clients_publish() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s");
    let mut config = config(&dir.path().join("data"), 1);
    config.shared = Some(SharedConfig::new(&socket));
    let engine = Engine::open_with(config, kept(vec![])).unwrap();
    enrich(&engine, patient(), |_, added| {
        added.set_metadata("n", "owner");
        Ok(())
    });
    let client = Client::connect(&socket, ClientOptions::default()).unwrap();
    let e = Event::new(KnownType::ObjectCreatedPut.into(), "bucket", b"theirs");
    client.publish_with(&e, &PublishOptions::default()).unwrap();
    assert_eq!(logged(&dir.path().join("data"))["theirs"], [(Some("owner".into()), false)]);
    let any = AnyEngine::Remote(client);
    let refused = any.set_enricher(None, EnrichOptions::default()).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidArgument, "{refused}");
    assert!(refused.to_string().contains("another process"), "{refused}");
    any.close(WAIT).unwrap();
    engine.close(WAIT).unwrap();
}

#[test]
fn a_forked_child_sets_none_and_lets_go_of_none() {
    struct Lent(Arc<AtomicU64>);
    impl Enricher for Lent {
        fn enrich(&self, _: &FrameView<'_>, added: &mut Enrichment) -> Told {
            added.set_metadata("n", "set");
            Ok(())
        }
    }
    impl Drop for Lent {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path(), 1, kept(vec![]));
    let dropped = Arc::new(AtomicU64::new(0));
    engine.set_enricher(Some(Arc::new(Lent(dropped.clone()))), patient()).unwrap();
    put(&engine, "a", 0);
    sync(&engine);
    // SAFETY: the child calls what must be safe there, and leaves at once.
    unsafe {
        match libc::fork() {
            0 => {
                let told = engine.set_enricher(None, EnrichOptions::default());
                let wrong = told.is_err_and(|e| e.kind() == ErrorKind::WrongProcess);
                drop(engine);
                libc::_exit(i32::from(!(wrong && dropped.load(Ordering::SeqCst) == 0)));
            }
            child => {
                let mut status = 0;
                assert_eq!(libc::waitpid(child, &mut status, 0), child);
                assert_eq!(status, 0);
            }
        }
    }
    put(&engine, "b", 0);
    sync(&engine);
    assert_eq!(logged(dir.path())["b"], [(Some("set".into()), false)]);
    engine.close(WAIT).unwrap();
    until("it is let go of", || dropped.load(Ordering::SeqCst) == 1);
}

#[test]
fn a_crash_while_it_is_away_loses_nothing_that_was_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path(), 1, kept(vec![]));
    enrich(&engine, patient(), |event, added| {
        added.set_metadata("n", event.size().unwrap_or(0).to_string());
        Ok(())
    });
    let begun = Instant::now();
    for n in 0..50 {
        let key = format!("{n}");
        let mut e = Event::new(KnownType::ObjectCreatedPut.into(), "bucket", key.as_bytes());
        e.size = Some(n);
        engine.publish(&e).unwrap();
    }
    assert!(begun.elapsed() < WAIT);
    let crashed = copy(dir.path());
    engine.close(WAIT).unwrap();
    let engine = open(crashed.path(), 1, kept(vec![]));
    sync(&engine);
    for (key, all) in logged(crashed.path()) {
        assert_eq!(all, [(Some(key.clone()), false)]);
    }
    engine.close(WAIT).unwrap();
}
