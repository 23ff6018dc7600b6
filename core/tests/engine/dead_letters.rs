//! Dead letters from end to end: kept with their story, listed, redriven, passed on, purged, bounded.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tidewire::config::EngineConfig;
use tidewire::event::EventTypes;
use tidewire::event::profile::Profile;
use tidewire::rule::{BreakerPolicy, Destination, DestinationKind, Rule, RuleSet, Webhook};
use tidewire::{
    Ack, DeadLetterFilter, DeadLetterId, Engine, ErrorKind, Event, KnownType, PublishOptions, RedriveOptions, Stats,
    StoredDeadLetter,
};
use tidewire_receiver::{Behaviour, Receiver, Reply, check_per_key_order};

const WAIT: Duration = Duration::from_secs(120);

fn receiver(behaviour: Behaviour) -> Receiver {
    Receiver::start("127.0.0.1:0".parse().unwrap(), behaviour).unwrap()
}

/// A webhook that gives up after one attempt.
fn hook(name: &str, url: &str) -> Destination {
    let mut d = Destination::new(name, DestinationKind::Webhook(Webhook::new(url).unwrap()));
    d.retry.backoff_min = Duration::from_millis(5);
    d.retry.backoff_max = Duration::from_millis(20);
    d.retry.attempts_max = Some(1);
    d.retry.poison_attempts = 1;
    d.breaker = BreakerPolicy {
        consecutive_failures: 1_000_000,
        open_min: Duration::from_millis(5),
        open_max: Duration::from_millis(20),
        ..BreakerPolicy::default()
    };
    d
}

/// A rule per destination of `told` that takes every creation; the other destinations have none.
fn rules(told: &[&str], destinations: Vec<Destination>) -> RuleSet {
    let types = EventTypes::default();
    let rule = |d: &&str| {
        Rule::new(format!("to-{d}"), ["s3:ObjectCreated:*"], &types).unwrap().with_destination(d.to_string())
    };
    RuleSet::build(told.iter().map(rule).collect(), destinations, types.clone()).unwrap()
}

fn config(dir: &Path, shards: usize) -> EngineConfig {
    let mut c = EngineConfig::new(dir);
    c.shards = Some(shards);
    c.close_timeout = Duration::from_secs(5);
    c
}

fn open(dir: &Path, rules: RuleSet) -> Engine {
    Engine::open_with(config(dir, 2), rules).unwrap()
}

fn put(engine: &Engine, key: &str, size: u64) {
    let mut e = Event::new(KnownType::ObjectCreatedPut.into(), "bucket", key.as_bytes());
    e.size = Some(size);
    engine.publish_with(&e, &PublishOptions { ack: Ack::Memory, ..PublishOptions::default() }).unwrap();
}

fn letters(engine: &Engine) -> Vec<StoredDeadLetter> {
    engine.dead_letters(&DeadLetterFilter::default(), None, 10_000).unwrap()
}

fn all() -> DeadLetterFilter {
    DeadLetterFilter::default()
}

fn of(destination: &str) -> DeadLetterFilter {
    let mut f = DeadLetterFilter::default();
    f.destination = Some(destination.to_owned());
    f
}

fn to(destination: &str) -> RedriveOptions {
    let mut o = RedriveOptions::default();
    o.to = Some(destination.to_owned());
    o
}

fn soon() -> Instant {
    Instant::now() + WAIT
}

fn redrive(engine: &Engine, filter: &DeadLetterFilter) -> u64 {
    let done = engine.redrive(filter, &RedriveOptions::default()).unwrap().wait(soon()).unwrap();
    assert_eq!((done.left, done.why), (0, Vec::new()));
    done.redriven
}

#[test]
fn a_letter_tells_its_whole_story() {
    let dir = tempfile::tempdir().unwrap();
    let answer = Reply { body: b"<no>\xff</no>".to_vec(), ..Reply::status(503) };
    let r = receiver(Behaviour::decide(move |_| answer.clone()));
    let mut d = hook("hook", &r.url());
    d.retry.attempts_max = Some(3);
    let engine = open(dir.path(), rules(&["hook"], vec![d]));
    put(&engine, "some key", 42);
    engine.flush(WAIT).unwrap();
    let found = letters(&engine);
    assert_eq!(found.len(), 1);
    let l = &found[0];
    assert_eq!((&*l.destination, &*l.rule, &*l.event_type), ("hook", "to-hook", "s3:ObjectCreated:Put"));
    assert_eq!((&*l.bucket, &l.key[..], l.attempts, l.status, l.hops), ("bucket", &b"some key"[..], 3, 503, 0));
    assert_eq!((&*l.reason, &l.answer[..]), ("the endpoint answered 503", &b"<no>\xff</no>"[..]));
    assert!(l.accepted_ns < l.given_up_ns);
    assert_eq!(l.event_id.to_string(), r.records()[0].event_id);
    assert_eq!(engine.dead_letter(l.id).unwrap(), *l);
    let none = DeadLetterId { shard: 0, number: 999 };
    assert_eq!(engine.dead_letter(none).unwrap_err().kind(), ErrorKind::NotFound);
    let mut out = Vec::new();
    assert_eq!(engine.export_dead_letters(&all(), &mut out).unwrap(), 1);
    let line: serde_json::Value = serde_json::from_slice(&out).unwrap();
    assert_eq!((line["attempts"].as_u64(), line["profile"].as_str()), (Some(3), Some("aws")));
    assert_eq!(line["record"]["s3"]["object"]["key"], "some+key");
    assert!(line["frame_base64"].as_str().is_some() && line["answer_base64"].as_str().is_some(), "{line}");
    let s = engine.stats();
    assert_eq!((s.dead_letters_kept, s.dead_lettered, s.waiting), (1, 1, 0));
    engine.close(WAIT).unwrap();
}

#[test]
fn redriven_events_are_the_same_events_in_the_same_order() {
    let dir = tempfile::tempdir().unwrap();
    let r = receiver(Behaviour::Status(500));
    let engine = open(dir.path(), rules(&["hook"], vec![hook("hook", &r.url())]));
    for n in 0..300 {
        put(&engine, &format!("key-{}", n % 20), n);
    }
    engine.flush(WAIT).unwrap();
    let before: BTreeSet<(String, String)> = r.records().into_iter().map(|x| (x.event_id, x.sequencer)).collect();
    assert_eq!((letters(&engine).len(), before.len()), (300, 300));
    assert_eq!(engine.stats().dead_letters_kept, 300);

    let healthy = receiver(Behaviour::Ok204);
    engine.replace_rules(rules(&["hook"], vec![hook("hook", &healthy.url())])).unwrap();
    // Some first, then the rest: of a key, the later ones may come first then, but never within one redrive.
    let mut some = all();
    some.key_prefix = b"key-1".to_vec();
    let first = redrive(&engine, &some);
    assert_eq!(first, 165);
    assert_eq!(redrive(&engine, &all()), 300 - first);
    engine.flush(WAIT).unwrap();
    let after: BTreeSet<(String, String)> = healthy.records().into_iter().map(|x| (x.event_id, x.sequencer)).collect();
    assert_eq!(after, before, "ids and sequencers are those of the first publication");
    assert_eq!(healthy.records().len(), 300);
    assert!(check_per_key_order(&healthy.records()).is_empty());
    assert!(letters(&engine).is_empty());
    let s = engine.stats();
    assert_eq!((s.dead_letters_redriven, s.dead_letters_kept, s.delivered, s.waiting), (300, 0, 300, 0));
    assert_eq!(s.destinations[0].routed, s.delivered + s.dead_lettered);
    engine.close(WAIT).unwrap();
}

#[test]
fn letters_that_died_in_another_order_are_redriven_in_the_order_of_their_events() {
    let dir = tempfile::tempdir().unwrap();
    let r = receiver(Behaviour::Status(500));
    let engine = open(dir.path(), rules(&["hook"], vec![hook("hook", &r.url())]));
    for n in 0..4 {
        put(&engine, "key", n);
    }
    engine.flush(WAIT).unwrap();
    // The first event comes out and dies again, so that its letter is younger than those of the later ones.
    let mut one = all();
    one.ids = vec![letters(&engine)[0].id];
    assert_eq!(redrive(&engine, &one), 1);
    engine.flush(WAIT).unwrap();
    let found = letters(&engine);
    assert_eq!(found.iter().map(|l| l.hops).collect::<Vec<_>>(), [0, 0, 0, 1]);
    r.set_behaviour(Behaviour::Ok204);
    assert_eq!(redrive(&engine, &all()), 4);
    engine.flush(WAIT).unwrap();
    let sizes: Vec<u64> = r.records().iter().filter(|x| x.accepted).map(|x| x.size.unwrap()).collect();
    assert_eq!(sizes, [0, 1, 2, 3]);
    engine.close(WAIT).unwrap();
}

/// A consumer of dead letters that puts everything back would go round for ever.
#[test]
fn a_dead_letter_consumer_feeds_the_source_in_an_endless_loop() {
    let dir = tempfile::tempdir().unwrap();
    let r = receiver(Behaviour::Status(500));
    let mut c = config(dir.path(), 1);
    c.dead_letters.hops_max = 3;
    let engine = Engine::open_with(c, rules(&["hook"], vec![hook("hook", &r.url())])).unwrap();
    for n in 0..10 {
        put(&engine, &format!("k{n}"), n);
    }
    engine.flush(WAIT).unwrap();
    // Nothing comes out of the dead letters by itself.
    assert_eq!((r.records().len(), letters(&engine).len()), (10, 10));
    let mut rounds = Vec::new();
    for _ in 0..6 {
        let done = engine.redrive(&all(), &RedriveOptions::default()).unwrap().wait(soon()).unwrap();
        engine.flush(WAIT).unwrap();
        rounds.push((done.redriven, done.left));
        if done.left > 0 {
            assert!(done.why[0].0.contains("hops_max"), "{:?}", done.why);
        }
    }
    // One redrive never takes what died again meanwhile, and after three times a letter stays.
    assert_eq!(rounds, [(10, 0), (10, 0), (10, 0), (0, 10), (0, 10), (0, 10)]);
    assert!(letters(&engine).iter().all(|l| l.hops == 3));
    assert_eq!(engine.purge_dead_letters(&all(), soon()).unwrap(), 10);
    assert!(letters(&engine).is_empty());
    engine.close(WAIT).unwrap();
}

/// With the attempts in memory only, each restart gives a refused event its whole budget again.
#[test]
fn infinite_retries_because_attempts_were_not_counted_across_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let r = receiver(Behaviour::Status(403));
    let mut d = hook("hook", &r.url());
    d.retry.attempts_max = Some(5);
    // Each run makes one attempt: the endpoint is left alone after that.
    d.concurrency = 1;
    (d.breaker.open_min, d.breaker.open_max) = (Duration::from_secs(3600), Duration::from_secs(3600));
    let set = || rules(&["hook"], vec![d.clone()]);
    let mut engine = Some(open(dir.path(), set()));
    for n in 0..3 {
        put(engine.as_ref().unwrap(), &format!("k{n}"), n);
    }
    for run in 0.. {
        assert!(run <= 15, "{} attempts", r.records().len());
        let e = engine.take().unwrap_or_else(|| open(dir.path(), set()));
        let begun = Instant::now();
        let found = letters(&e);
        if found.len() == 3 {
            assert_eq!(found.iter().map(|l| (l.attempts, l.status)).collect::<Vec<_>>(), [(5, 403); 3]);
            e.flush(WAIT).unwrap();
            e.close(WAIT).unwrap();
            break;
        }
        while e.stats().destinations[0].failures < 1 {
            assert!(begun.elapsed() < WAIT, "run {run}: {} attempts", r.records().len());
            std::thread::sleep(Duration::from_millis(5));
        }
        e.close(Duration::ZERO).unwrap();
    }
    assert_eq!(r.records().len(), 15, "no attempt beyond the budget");
}

#[test]
fn default_retry_limit_silently_loses_data() {
    let dir = tempfile::tempdir().unwrap();
    let r = receiver(Behaviour::Status(500));
    // Whatever ends an event's budget, it is kept, without anything being configured for that.
    let engine = open(dir.path(), rules(&["hook"], vec![hook("hook", &r.url())]));
    for n in 0..50 {
        put(&engine, &format!("k{n}"), n);
    }
    engine.flush(WAIT).unwrap();
    engine.close(WAIT).unwrap();
    let mut keys = BTreeSet::new();
    tidewire::log::dead::each_dead_letter(dir.path(), &all(), None, |l| {
        keys.insert(l.key);
        std::ops::ControlFlow::Continue(())
    })
    .unwrap();
    assert_eq!(keys.len(), 50);
}

#[test]
fn a_budget_applies_to_every_failure_class() {
    for status in [0, 302, 403, 404, 500, 503, 400] {
        let dir = tempfile::tempdir().unwrap();
        let r = receiver(Behaviour::decide(move |_| if status == 0 { Reply::close() } else { Reply::status(status) }));
        let mut d = hook("hook", &r.url());
        d.retry.attempts_max = Some(2);
        d.retry.poison_attempts = 1;
        let engine = Engine::open_with(config(dir.path(), 1), rules(&["hook"], vec![d])).unwrap();
        put(&engine, "key", 1);
        engine.flush(WAIT).unwrap();
        let l = &letters(&engine)[0];
        assert_eq!((l.attempts, l.status), (if status == 400 { 1 } else { 2 }, status));
        engine.close(WAIT).unwrap();
    }
    // What the endpoint puts off for ever ends by its age.
    let dir = tempfile::tempdir().unwrap();
    let r = receiver(Behaviour::decide(|_| Reply::status(429).header("Retry-After", "1")));
    let mut d = hook("hook", &r.url());
    d.retry.age_max = Duration::from_millis(500);
    let engine = Engine::open_with(config(dir.path(), 1), rules(&["hook"], vec![d])).unwrap();
    put(&engine, "key", 1);
    engine.flush(WAIT).unwrap();
    assert_eq!(letters(&engine)[0].status, 429);
    engine.close(WAIT).unwrap();
}

#[test]
fn letters_of_a_removed_destination_are_redriven_to_another_one_only() {
    let dir = tempfile::tempdir().unwrap();
    let r = receiver(Behaviour::Status(500));
    let engine = open(dir.path(), rules(&["gone"], vec![hook("gone", &r.url())]));
    for n in 0..10 {
        put(&engine, &format!("k{n}"), n);
    }
    engine.flush(WAIT).unwrap();
    let healthy = receiver(Behaviour::Ok204);
    engine.replace_rules(rules(&["other"], vec![hook("other", &healthy.url())])).unwrap();
    let e = engine.redrive(&of("gone"), &RedriveOptions::default()).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::NotFound);
    assert!(e.to_string().contains("`gone` is not configured") && e.to_string().contains("`other`"), "{e}");
    let e = engine.redrive(&all(), &to("nowhere")).unwrap_err();
    assert!(e.to_string().contains("`nowhere` is not configured"), "{e}");
    let e = engine.redrive(&of("never"), &RedriveOptions::default()).unwrap_err();
    assert!(e.to_string().contains("ever called `never`"), "{e}");
    let done = engine.redrive(&all(), &RedriveOptions::default()).unwrap().wait(soon()).unwrap();
    assert_eq!((done.redriven, done.left), (0, 10));
    assert!(done.why[0].0.contains("not configured any more"), "{:?}", done.why);
    assert_eq!(letters(&engine).len(), 10);
    let done = engine.redrive(&of("gone"), &to("other")).unwrap().wait(soon()).unwrap();
    assert_eq!((done.redriven, done.left), (10, 0));
    engine.flush(WAIT).unwrap();
    assert_eq!((healthy.accepted(), letters(&engine).len()), (10, 0));
    engine.close(WAIT).unwrap();
}

#[test]
fn redriven_events_wait_in_the_log_across_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let r = receiver(Behaviour::Status(500));
    let engine = open(dir.path(), rules(&["hook"], vec![hook("hook", &r.url())]));
    for n in 0..100 {
        put(&engine, &format!("k{}", n % 7), n);
    }
    engine.flush(WAIT).unwrap();
    let ids: BTreeSet<String> = letters(&engine).iter().map(|l| l.event_id.to_string()).collect();
    // Now they would be tried for a long time.
    let mut patient = hook("hook", "http://127.0.0.1:9/");
    patient.retry.attempts_max = None;
    engine.replace_rules(rules(&["hook"], vec![patient])).unwrap();
    assert_eq!(redrive(&engine, &all()), 100);
    engine.close(Duration::ZERO).unwrap();

    let healthy = receiver(Behaviour::Ok204);
    let engine = open(dir.path(), rules(&["hook"], vec![hook("hook", &healthy.url())]));
    engine.flush(WAIT).unwrap();
    assert!(letters(&engine).is_empty(), "a letter is one or the other");
    assert_eq!(healthy.records().iter().map(|x| x.event_id.clone()).collect::<BTreeSet<_>>(), ids);
    assert!(check_per_key_order(&healthy.records()).is_empty());
    engine.close(WAIT).unwrap();
}

/// A crash between the two writes of a redrive leaves both the event and its letter.
#[test]
fn a_crash_within_a_redrive_repeats_events_and_loses_none() {
    let dir = tempfile::tempdir().unwrap();
    let r = receiver(Behaviour::Status(500));
    let one = |url: &str| rules(&["hook"], vec![hook("hook", url)]);
    let engine = Engine::open_with(config(dir.path(), 1), one(&r.url())).unwrap();
    (0..10).for_each(|n| put(&engine, &format!("k{n}"), n));
    engine.flush(WAIT).unwrap();
    engine.close(WAIT).unwrap();
    let dead = dir.path().join("shard-0000/dead");
    let kept: Vec<_> = std::fs::read_dir(&dead).unwrap().map(|e| e.unwrap().path()).collect();
    let kept: Vec<_> = kept.into_iter().map(|p| (std::fs::read(&p).unwrap(), p)).collect();
    let healthy = receiver(Behaviour::Ok204);
    let engine = Engine::open_with(config(dir.path(), 1), one(&healthy.url())).unwrap();
    assert_eq!(redrive(&engine, &all()), 10);
    engine.flush(WAIT).unwrap();
    engine.close(WAIT).unwrap();
    assert_eq!(std::fs::read_dir(&dead).unwrap().count(), 0, "the segment went with its last letter");
    // As if what made the letters go had never reached the disk.
    for (bytes, path) in kept {
        std::fs::write(path, bytes).unwrap();
    }
    let engine = Engine::open_with(config(dir.path(), 1), one(&healthy.url())).unwrap();
    assert_eq!(redrive(&engine, &all()), 10);
    engine.flush(WAIT).unwrap();
    engine.close(WAIT).unwrap();
    let ids: BTreeSet<String> = healthy.records().iter().map(|x| x.event_id.clone()).collect();
    assert_eq!((healthy.records().len(), ids.len()), (20, 10), "the same events twice");
}

#[test]
fn a_redrive_with_a_rate_can_be_stopped_and_forgets_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let r = receiver(Behaviour::Status(500));
    let engine = open(dir.path(), rules(&["hook"], vec![hook("hook", &r.url())]));
    (0..200).for_each(|n| put(&engine, &format!("k{n}"), n));
    engine.flush(WAIT).unwrap();
    r.set_behaviour(Behaviour::Ok204);
    let mut options = RedriveOptions::default();
    options.per_second = Some(2);
    let mut slow = engine.redrive(&all(), &options).unwrap();
    let e = slow.wait(Instant::now() + Duration::from_millis(50)).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Timeout);
    // A purge does not wait for it.
    let mut some = all();
    some.key_prefix = b"k19".to_vec();
    let purged = engine.purge_dead_letters(&some, soon()).unwrap();
    slow.stop();
    // Each shard looks when its next step is due.
    let done = slow.wait(soon()).unwrap();
    assert!(done.redriven < 100, "{done:?}");
    let left = letters(&engine).len() as u64;
    assert_eq!(done.redriven + purged + left, 200, "{done:?}");
    engine.flush(WAIT).unwrap();
    engine.close(WAIT).unwrap();
    let engine = open(dir.path(), rules(&["hook"], vec![hook("hook", &r.url())]));
    assert_eq!(letters(&engine).len() as u64, left);
    assert_eq!(redrive(&engine, &all()), left);
    engine.flush(WAIT).unwrap();
    assert_eq!(r.records().iter().filter(|x| x.accepted).count() as u64, 200 - purged);
    engine.close(WAIT).unwrap();
}

#[test]
fn closing_ends_a_redrive_and_tells_who_waits() {
    let dir = tempfile::tempdir().unwrap();
    let r = receiver(Behaviour::Status(500));
    let engine = open(dir.path(), rules(&["hook"], vec![hook("hook", &r.url())]));
    (0..50).for_each(|n| put(&engine, &format!("k{n}"), n));
    engine.flush(WAIT).unwrap();
    let mut options = RedriveOptions::default();
    options.per_second = Some(1);
    let mut slow = engine.redrive(&all(), &options).unwrap();
    engine.close(WAIT).unwrap();
    assert_eq!(slow.wait(soon()).unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(engine.redrive(&all(), &RedriveOptions::default()).unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(engine.purge_dead_letters(&all(), soon()).unwrap_err().kind(), ErrorKind::Closed);
}

#[test]
fn a_dead_letter_destination_is_told_why_and_only_what_fails_there_too_is_kept() {
    for profile in [Profile::Aws, Profile::CloudEvents] {
        let dir = tempfile::tempdir().unwrap();
        let r = receiver(Behaviour::Status(502));
        let refuse = Arc::new(AtomicBool::new(false));
        let refusing = refuse.clone();
        let notes = Arc::new(Mutex::new(Vec::new()));
        let noted = notes.clone();
        let second = receiver(Behaviour::decide(move |hit| {
            noted.lock().unwrap().push(serde_json::from_slice::<serde_json::Value>(hit.body).unwrap());
            Reply::status(if refusing.load(Ordering::SeqCst) { 507 } else { 204 })
        }));
        let mut first = hook("first", &r.url());
        first.dead_letter_to = Some("second".into());
        let mut other = hook("second", &second.url());
        other.profile = profile;
        let engine = open(dir.path(), rules(&["first"], vec![first, other]));
        (0..20).for_each(|n| put(&engine, &format!("k{n}"), n));
        engine.flush(WAIT).unwrap();
        engine.flush(WAIT).unwrap();
        assert!(letters(&engine).is_empty());
        let ids: BTreeSet<String> = r.records().into_iter().map(|x| x.event_id).collect();
        let mut told = Vec::new();
        for body in &*notes.lock().unwrap() {
            let records = body.get("Records").unwrap_or(body).as_array().unwrap().clone();
            let id = |r: &serde_json::Value| r.get("eventId").unwrap_or(&r["id"]).as_str().unwrap().to_owned();
            told.extend(records.iter().map(id));
        }
        assert_eq!((told.len(), told.into_iter().collect::<BTreeSet<_>>()), (20, ids), "the same events, once each");
        let note = notes.lock().unwrap()[0].clone();
        match profile {
            Profile::Aws => {
                let n = &note["Records"][0]["deadLetter"];
                assert_eq!((n["destination"].as_str(), n["status"].as_u64()), (Some("first"), Some(502)), "{note}");
                assert_eq!((n["attempts"].as_u64(), n["hops"].as_u64()), (Some(1), Some(1)));
                assert_eq!(n["reason"], "the endpoint answered 502");
            }
            _ => {
                let n = &note[0];
                assert_eq!(
                    (n["deadletterfrom"].as_str(), n["deadletterstatus"].as_u64(), n["deadletterattempts"].as_u64()),
                    (Some("first"), Some(502), Some(1)),
                    "{note}"
                );
            }
        }
        refuse.store(true, Ordering::SeqCst);
        put(&engine, "unlucky", 7);
        engine.flush(WAIT).unwrap();
        engine.flush(WAIT).unwrap();
        let found = letters(&engine);
        assert_eq!(found.len(), 1);
        let l = &found[0];
        assert_eq!((&*l.destination, &l.key[..], l.hops, l.attempts, l.status), ("first", &b"unlucky"[..], 1, 2, 507));
        assert!(l.reason.contains("502") && l.reason.contains("dead-letter destination `second`"), "{}", l.reason);
        let s = engine.stats();
        for d in &s.destinations {
            assert_eq!(d.routed, d.delivered + d.dead_lettered + d.waiting, "{}", d.name);
        }
        engine.close(WAIT).unwrap();
    }
}

#[test]
fn what_is_on_its_way_to_a_dead_letter_destination_survives_a_restart_with_its_story() {
    let dir = tempfile::tempdir().unwrap();
    let r = receiver(Behaviour::Status(502));
    let set = |second: &str, patient: bool| {
        let mut first = hook("first", &r.url());
        first.dead_letter_to = Some("second".into());
        let mut other = hook("second", second);
        if patient {
            other.retry.attempts_max = None;
        }
        rules(&["first"], vec![first, other])
    };
    let engine = open(dir.path(), set("http://127.0.0.1:9/", true));
    (0..20).for_each(|n| put(&engine, &format!("k{n}"), n));
    let begun = Instant::now();
    while engine.stats().dead_lettered < 20 {
        assert!(begun.elapsed() < WAIT);
        std::thread::sleep(Duration::from_millis(5));
    }
    engine.close(Duration::ZERO).unwrap();
    let bodies = Arc::new(Mutex::new(String::new()));
    let seen = bodies.clone();
    let second = receiver(Behaviour::decide(move |hit| {
        seen.lock().unwrap().push_str(std::str::from_utf8(hit.body).unwrap());
        Reply::status(204)
    }));
    let engine = open(dir.path(), set(&second.url(), false));
    engine.flush(WAIT).unwrap();
    assert_eq!((second.accepted(), letters(&engine).len()), (20, 0));
    assert_eq!(bodies.lock().unwrap().matches("\"reason\":\"the endpoint answered 502\"").count(), 20);
    engine.close(WAIT).unwrap();
}

#[test]
fn too_many_letters_cost_the_oldest_ones_and_are_warned_of() {
    let dir = tempfile::tempdir().unwrap();
    let r = receiver(Behaviour::Status(500));
    let mut c = config(dir.path(), 1);
    c.dead_letters.bytes_max = 8 << 20;
    let engine = Engine::open_with(c, rules(&["hook"], vec![hook("hook", &r.url())])).unwrap();
    let data = format!("{:?}", "x".repeat(50_000));
    for n in 0..300 {
        let key = format!("k{n:03}");
        let mut e = Event::new(KnownType::ObjectCreatedPut.into(), "bucket", key.as_bytes());
        e.data = data.as_bytes();
        engine.publish(&e).unwrap();
    }
    engine.flush(WAIT).unwrap();
    let begun = Instant::now();
    let settled = |s: &Stats| {
        s.dead_letters_bytes <= 8 << 20 && s.dead_letters_lost > 0 && s.dead_letters_kept + s.dead_letters_lost == 300
    };
    while !settled(&engine.stats()) {
        let s = engine.stats();
        assert!(begun.elapsed() < WAIT, "{} + {}", s.dead_letters_kept, s.dead_letters_lost);
        std::thread::sleep(Duration::from_millis(5));
    }
    let s = engine.stats();
    assert!(s.dead_letters_warning);
    let found = letters(&engine);
    assert_eq!(found.len() as u64, s.dead_letters_kept);
    assert_eq!(found.last().unwrap().id.number, 300, "the youngest stay");
    assert_eq!(found.first().unwrap().id.number, 301 - s.dead_letters_kept, "in one piece");
    assert_eq!(engine.purge_dead_letters(&all(), soon()).unwrap(), s.dead_letters_kept);
    engine.close(WAIT).unwrap();
}

#[test]
fn letters_grow_old_and_numbers_are_never_given_again() {
    let dir = tempfile::tempdir().unwrap();
    let r = receiver(Behaviour::Status(500));
    let mut c = config(dir.path(), 1);
    c.dead_letters.age_max = Duration::from_secs(1);
    let engine = Engine::open_with(c.clone(), rules(&["hook"], vec![hook("hook", &r.url())])).unwrap();
    put(&engine, "old", 1);
    engine.flush(WAIT).unwrap();
    assert_eq!(letters(&engine)[0].id.number, 1);
    let begun = Instant::now();
    while engine.stats().dead_letters_lost < 1 {
        assert!(begun.elapsed() < WAIT);
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(letters(&engine).is_empty());
    assert!(std::fs::read_dir(dir.path().join("shard-0000/dead")).unwrap().next().is_none());
    engine.close(WAIT).unwrap();
    c.dead_letters.age_max = Duration::from_secs(3600);
    let engine = Engine::open_with(c, rules(&["hook"], vec![hook("hook", &r.url())])).unwrap();
    put(&engine, "new", 1);
    engine.flush(WAIT).unwrap();
    assert_eq!(letters(&engine)[0].id.number, 2);
    engine.close(WAIT).unwrap();
}

#[test]
fn letters_and_what_was_told_of_losses_stay_when_there_are_fewer_shards() {
    let dir = tempfile::tempdir().unwrap();
    let r = receiver(Behaviour::Status(500));
    let make = || rules(&["hook"], vec![hook("hook", &r.url())]);
    let engine = Engine::open_with(config(dir.path(), 4), make()).unwrap();
    (0..40).for_each(|n| put(&engine, &format!("k{n}"), n));
    engine.flush(WAIT).unwrap();
    let before = letters(&engine);
    assert_eq!((before.len(), before.iter().map(|l| l.id.shard).collect::<BTreeSet<_>>().len()), (40, 4));
    // One of a shard that will be needed no more is lost.
    let one = before.iter().rfind(|l| l.id.shard == 3).unwrap().id;
    let mut chosen = all();
    chosen.ids = vec![one];
    assert_eq!(engine.purge_dead_letters(&chosen, soon()).unwrap(), 1);
    engine.close(WAIT).unwrap();

    let engine = Engine::open_with(config(dir.path(), 1), make()).unwrap();
    let left: Vec<_> = before.iter().filter(|l| l.id != one).cloned().collect();
    assert_eq!(letters(&engine), left);
    r.set_behaviour(Behaviour::Ok204);
    assert_eq!(redrive(&engine, &all()), 39);
    engine.flush(WAIT).unwrap();
    assert_eq!(letters(&engine).len(), 0);
    let told: BTreeSet<String> = r.records().iter().filter(|r| r.accepted).map(|r| r.event_id.clone()).collect();
    assert_eq!(told, left.iter().map(|l| l.event_id.to_string()).collect());
    engine.close(WAIT).unwrap();
    // Nothing of the other shards is left but what was told of the loss.
    for _ in 0..2 {
        let engine = Engine::open_with(config(dir.path(), 1), make()).unwrap();
        let mut losses = 0;
        engine
            .each_loss(|l| {
                losses += l.count;
                assert_eq!(l.event_id.unwrap(), before.iter().find(|l| l.id == one).unwrap().event_id);
                std::ops::ControlFlow::Continue(())
            })
            .unwrap();
        assert_eq!(losses, 1);
        engine.close(WAIT).unwrap();
    }
    assert_eq!(tidewire::log::recovery::shard_numbers(dir.path()).unwrap(), [0, 3]);
}

/// One shard delivers everything of such a destination, and has its dead letters; what is passed on or redriven to it comes
/// from any.
#[test]
fn letters_go_to_a_destination_of_strict_order_and_come_from_it() {
    let dir = tempfile::tempdir().unwrap();
    let (first, last) = (receiver(Behaviour::Status(500)), receiver(Behaviour::Status(500)));
    let strict = |name: &str, url: &str| {
        let mut d = hook(name, url);
        d.order = tidewire::rule::Order::Strict;
        d
    };
    let mut told = hook("told", &first.url());
    told.dead_letter_to = Some("last".to_owned());
    let set = rules(&["told"], vec![told, strict("last", &last.url())]);
    let engine = Engine::open_with(config(dir.path(), 3), set).unwrap();
    (0..30).for_each(|n| put(&engine, &format!("k{n}"), n));
    // They fail, are passed on, and fail again.
    let deadline = soon();
    while letters(&engine).len() < 30 {
        assert!(Instant::now() < deadline, "{:?}", engine.stats().destinations);
        std::thread::sleep(Duration::from_millis(5));
    }
    let dead = letters(&engine);
    assert!(
        dead.iter().all(|l| l.destination == "told" && l.hops == 1 && l.reason.contains("`last`")),
        "{:?}",
        dead[0]
    );
    assert_eq!(dead.iter().map(|l| l.id.shard).collect::<BTreeSet<_>>().len(), 1, "all at home");
    // To where they failed last: that is another shard's.
    last.set_behaviour(Behaviour::Ok204);
    let done = engine.redrive(&all(), &to("last")).unwrap().wait(soon()).unwrap();
    assert_eq!((done.redriven, done.left), (30, 0));
    engine.flush(WAIT).unwrap();
    let ids = |r: &Receiver| -> BTreeSet<String> {
        r.records().iter().filter(|r| r.accepted).map(|r| r.event_id.clone()).collect()
    };
    assert_eq!(ids(&last), dead.iter().map(|l| l.event_id.to_string()).collect());
    assert_eq!(letters(&engine).len(), 0);
    engine.close(WAIT).unwrap();
}
