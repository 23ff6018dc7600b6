//! Several processes over one engine: calls, order, acknowledgements, and what becomes of them when either side dies.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tidewire::config::{Config, EngineConfig, SharedConfig};
use tidewire::event::EventTypes;
use tidewire::log::reader::{Item, ReadFrom};
use tidewire::rule::{Expect, Format, OnQueueFull, Rule, RuleSet};
use tidewire::shared::AnyConsumer;
use tidewire::{
    Ack, AnyEngine, Client, ClientOptions, CommitFields, CommitOptions, ConsumerOptions, DeadLetterFilter, DedupKey,
    Delivery, DetailsWanted, Engine, ErrorKind, Event, Intent, KnownType, MetricsFormat, OnFull, PublishOptions,
    Published, PublishedJson, RedriveOptions, ReserveOptions, Reserved, ReservedBatch, Resolution,
};
use tidewire_receiver::Behaviour;

use crate::common::{self, WAIT, hook, kept, passing, receiver, until};

const MEMORY: PublishOptions =
    PublishOptions { ack: Ack::Memory, on_full: OnFull::Block(WAIT), ack_timeout: WAIT, dedup_key: None };
const SYNCED: PublishOptions = PublishOptions { ack: Ack::Synced, ..MEMORY };
const DURABLE: ReserveOptions =
    ReserveOptions { bytes_max: None, intent: Intent::Durable, on_full: OnFull::Block(WAIT), ack_timeout: WAIT };

/// A directory with an engine's data and its socket.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Place {
        Place(tempfile::tempdir().unwrap())
    }

    fn socket(&self) -> PathBuf {
        self.0.path().join("s")
    }

    fn data(&self) -> PathBuf {
        self.0.path().join("data")
    }

    fn config(&self) -> EngineConfig {
        let mut c = common::config(&self.data(), 2);
        c.shared = Some(SharedConfig::new(self.socket()));
        c
    }

    fn open(&self, rules: RuleSet) -> Engine {
        Engine::open_with(self.config(), rules).unwrap()
    }

    fn client(&self) -> Client {
        let mut options = ClientOptions::default();
        options.connect_timeout = WAIT;
        Client::connect(self.socket(), options).unwrap()
    }
}

fn event(key: &str, n: u64) -> Event<'_> {
    let mut e = Event::new(KnownType::ObjectCreatedPut.into(), "bucket", key.as_bytes());
    e.size = Some(n);
    e
}

/// The sizes of the events in the log, by key and in its order.
fn logged(engine: &Engine) -> BTreeMap<String, Vec<u64>> {
    common::sync(engine);
    let mut tail = engine.tail(tidewire::filter::EventFilter::all(), &ReadFrom::Beginning).unwrap();
    let mut found = BTreeMap::<String, Vec<u64>>::new();
    while let Some(item) = tail.next_within(Duration::ZERO).unwrap() {
        let Item::Entry(entry) = item else { panic!("{item:?}") };
        let frame = entry.frame();
        if frame.bucket() == "bucket" {
            let key = String::from_utf8(frame.key().to_vec()).unwrap();
            found.entry(key).or_default().push(frame.size().unwrap_or(0));
        }
    }
    found
}

#[test]
fn every_ack_level_and_outcome_is_that_of_the_engine() {
    let place = Place::new();
    let engine = place.open(kept(vec![]));
    let client = place.client();
    for (n, ack) in [Ack::Memory, Ack::Written, Ack::Synced].into_iter().enumerate() {
        let options = PublishOptions { ack, ..SYNCED };
        assert_eq!(client.publish_with(&event("k", n as u64), &options).unwrap(), Published::Accepted);
    }
    assert_eq!(logged(&engine)["k"], [0, 1, 2]);

    let receipt = client.submit(&event("k", 3), &SYNCED).unwrap().unwrap();
    receipt.wait(Ack::Synced, Some(Instant::now() + WAIT)).unwrap();
    assert!(receipt.is(Ack::Synced) && receipt.is(Ack::Written) && receipt.is(Ack::Memory));
    let receipt = client.submit(&event("k", 4), &MEMORY).unwrap().unwrap();
    let e = receipt.wait(Ack::Synced, Some(Instant::now() + WAIT)).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::InvalidArgument, "{e}");

    // What is wrong with an event is told at once, by the process that has it.
    let e = client.publish_with(&Event::new(KnownType::ObjectCreatedPut.into(), "", b"k"), &MEMORY).unwrap_err();
    assert_eq!((e.kind(), e.place()), (ErrorKind::InvalidEvent, Some("bucket")));
    let large = "x".repeat(70_000);
    let mut e = event("k", 5);
    e.data = large.as_bytes();
    assert_eq!(client.publish_with(&e, &MEMORY).unwrap_err().kind(), ErrorKind::InvalidEvent);
    let unknown = Event::new(tidewire::EventType::Custom("acme:None"), "bucket", b"k");
    assert_eq!(client.publish_with(&unknown, &MEMORY).unwrap_err().kind(), ErrorKind::InvalidEvent);

    let mut outcomes = Vec::new();
    let e = client.publish_batch(&[event("k", 6), event("", 7), event("k", 8)], &SYNCED, &mut outcomes).unwrap_err();
    assert_eq!((outcomes.len(), e.kind()), (1, ErrorKind::InvalidEvent), "{e}");
    let mut published = PublishedJson::default();
    let mut lines = br#"{"type": "s3:ObjectCreated:Put", "bucket": "bucket", "key": "k", "size": 9}"#.to_vec();
    client.publish_json(&mut lines, "", &SYNCED, &mut published).unwrap();
    assert_eq!(published.accepted, 1);
    assert_eq!(logged(&engine)["k"], [0, 1, 2, 3, 4, 6, 9]);

    client.close(WAIT).unwrap();
    let e = client.publish_with(&event("k", 1), &MEMORY).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Closed, "{e}");
    until("the engine has forgotten the client", || engine.stats().clients == 0);
    engine.close(WAIT).unwrap();
}

#[test]
fn what_no_rule_wants_is_told_by_the_rules_of_now() {
    let place = Place::new();
    let mut rule = Rule::new("one", ["s3:ObjectCreated:*"], &EventTypes::default()).unwrap();
    rule.bucket = Some("bucket".to_owned());
    rule.retain = true;
    let engine = place.open(RuleSet::build(vec![rule.clone()], vec![], EventTypes::default()).unwrap());
    let client = place.client();
    let removed = Event::new(KnownType::ObjectRemovedDelete.into(), "bucket", b"k");
    let elsewhere = Event::new(KnownType::ObjectCreatedPut.into(), "other", b"k");
    for _ in 0..2 {
        assert_eq!(client.publish_with(&event("k", 1), &SYNCED).unwrap(), Published::Accepted);
        assert_eq!(client.publish_with(&removed, &SYNCED).unwrap(), Published::NoMatch);
        assert_eq!(client.publish_with(&elsewhere, &MEMORY).unwrap(), Published::NoMatch);
        assert!(!client.is_interested("other", KnownType::ObjectCreatedPut.into()));
        assert!(client.is_interested("bucket", KnownType::ObjectCreatedPut.into()));
    }
    assert_eq!(client.details_wanted(&event("k", 1)).unwrap(), DetailsWanted::ALL);
    assert_eq!(client.details_wanted(&elsewhere).unwrap(), DetailsWanted::default());
    assert!(matches!(client.reserve(&elsewhere, &ReserveOptions::default()).unwrap(), Reserved::NoMatch));
    until("the count has come", || engine.stats().no_match >= 4);

    let text = r#"{"id": "two", "bucket": "other", "events": ["*"], "retain": true}"#;
    let any = AnyEngine::from(client.clone());
    let version = any.put_rule_text(text, Expect::Absent).unwrap();
    assert_eq!(client.publish_with(&elsewhere, &SYNCED).unwrap(), Published::Accepted);
    any.delete_rule(Some("other"), "two", Expect::Version(version)).unwrap();
    assert_eq!(client.publish_with(&elsewhere, &SYNCED).unwrap(), Published::NoMatch);
    engine.close(WAIT).unwrap();
}

#[test]
fn completions_come_from_the_other_process() {
    let place = Place::new();
    let engine = place.open(kept(vec![]));
    let client = place.client();
    let told = std::sync::Arc::new(AtomicU64::new(0));
    let count = told.clone();
    let calls = client
        .completions_to(move |c| {
            assert!(c.iter().all(|c| c.result.is_ok()), "{c:?}");
            count.fetch_add(c.len() as u64, Ordering::SeqCst);
        })
        .unwrap();
    let queue = client.completions().unwrap();
    for n in 0..2000 {
        let options = PublishOptions { ack: [Ack::Memory, Ack::Written, Ack::Synced][n as usize % 3], ..SYNCED };
        let receipt = client.submit(&event(&format!("k{}", n % 7), n), &options).unwrap().unwrap();
        calls.watch(&receipt, options.ack, n).unwrap();
        queue.watch(&receipt, options.ack, n).unwrap();
    }
    let mut taken = Vec::new();
    until("all are through", || {
        queue.take(100, |c| taken.push(c.user_data)).unwrap();
        taken.len() == 2000 && told.load(Ordering::SeqCst) == 2000
    });
    taken.sort_unstable();
    assert!(taken.into_iter().eq(0..2000));
    drop((calls, queue));
    engine.close(WAIT).unwrap();
}

#[test]
fn keys_and_cursors_are_looked_after_by_the_engine() {
    let place = Place::new();
    let mut config = place.config();
    config.dedup.window = Duration::from_secs(600);
    let engine = Engine::open_with(config, kept(vec![])).unwrap();
    let (a, b) = (place.client(), place.client());
    let keyed = PublishOptions { dedup_key: Some(DedupKey::new(b"request")), ..SYNCED };
    assert_eq!(a.publish_with(&event("k", 1), &keyed).unwrap(), Published::Accepted);
    assert_eq!(b.publish_with(&event("k", 1), &keyed).unwrap(), Published::Duplicate);
    assert_eq!(engine.publish_with(&event("k", 1), &keyed).unwrap(), Published::Duplicate);
    assert_eq!(b.append_at(0, &event("k", 1), &SYNCED).unwrap_err().kind(), ErrorKind::InvalidArgument);
    for (cursor, client) in [(1, &a), (2, &b), (3, &a)] {
        assert_eq!(client.append_at(cursor, &event("c", cursor), &SYNCED).unwrap(), Published::Accepted);
        assert_eq!(b.append_at(cursor, &event("c", cursor), &SYNCED).unwrap(), Published::Duplicate);
    }
    until("the cursor is saved", || a.last_applied().unwrap() == 3);
    assert_eq!(logged(&engine)["c"], [1, 2, 3]);
    engine.close(WAIT).unwrap();
}

#[test]
fn a_full_queue_refuses_or_blocks_clients_as_the_rule_says() {
    for on_full in [OnQueueFull::Refuse, OnQueueFull::Block] {
        let place = Place::new();
        let mut d = hook("dead", "http://127.0.0.1:9/");
        d.queue.events_max = Some(20);
        d.queue.on_full = on_full;
        d.queue.block_timeout = Duration::from_millis(50);
        let engine = place.open(passing(vec![d]));
        let client = place.client();
        let mut refused = None;
        for n in 0..100_000 {
            if let Err(e) = client.publish_with(&event("k", n), &SYNCED) {
                refused = Some(e);
                break;
            }
        }
        let e = refused.expect("the queue has no end");
        assert_eq!(e.kind(), ErrorKind::Full, "{e}");
        assert!(e.message().contains("the queue of destination `dead` is full"), "{e}");
        let e = client.publish_with(&event("k", 0), &MEMORY).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Full, "{e}");
        let e = client.reserve(&event("k", 0), &ReserveOptions::default()).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Full, "{e}");
        // Those that go elsewhere are not held up.
        engine.close(Duration::ZERO).unwrap();
    }
}

#[test]
fn reservations_are_kept_here_and_durable_ones_there() {
    let place = Place::new();
    let engine = place.open(kept(vec![]));
    let client = place.client();
    let held = |options: &ReserveOptions, key: &str| match client.reserve(&event(key, 0), options).unwrap() {
        Reserved::Held(r) => r,
        other => panic!("{other:?}"),
    };
    let sized = |size| CommitFields { size: Some(size), ..CommitFields::default() };
    let commit = CommitOptions { ack: Ack::Synced, ack_timeout: WAIT };

    let (first, second) = (held(&ReserveOptions::default(), "v"), held(&ReserveOptions::default(), "v"));
    second.commit(&sized(2), &commit).unwrap();
    first.commit(&sized(1), &commit).unwrap();
    first.commit(&sized(1), &commit).unwrap();
    let aborted = held(&ReserveOptions::default(), "v");
    aborted.abort().unwrap();
    aborted.abort().unwrap();
    assert_eq!(aborted.commit(&sized(3), &commit).unwrap_err().kind(), ErrorKind::InvalidArgument);
    drop(held(&ReserveOptions::default(), "v"));
    let e = second.commit_event(&event("other", 1), &commit);
    assert!(e.is_ok(), "a second commit changes nothing: {e:?}");
    let wrong = held(&ReserveOptions::default(), "v");
    assert_eq!(wrong.commit_event(&event("w", 1), &commit).unwrap_err().place(), Some("key"));
    drop(wrong);

    let durable = held(&DURABLE, "d");
    let token = durable.token().unwrap();
    assert_eq!(engine.stats().reservations, 1);
    assert!(client.in_doubt().unwrap().is_empty(), "nothing is in doubt while its host lives");
    durable.commit(&sized(5), &commit).unwrap();
    until("it is through", || engine.stats().reservations == 0);
    drop(durable);
    let ended = held(&DURABLE, "d");
    ended.abort().unwrap();
    until("it is through", || engine.stats().reservations == 0);
    assert_eq!(client.resolve(token, Resolution::Abort).unwrap_err().kind(), ErrorKind::NotFound);
    let found = logged(&engine);
    assert_eq!((&found["v"][..], &found["d"][..]), (&[2, 1][..], &[5][..]));

    // A batch is held as a whole, and no more of the ring than may be.
    let events: Vec<Event<'_>> = (0..3).map(|n| event("b", n)).collect();
    let ReservedBatch::Held(batch) = client.reserve_batch(&events, &ReserveOptions::default()).unwrap() else {
        panic!()
    };
    batch.commit_all(&[sized(7), sized(8), sized(9)], &commit).unwrap();
    let large = ReserveOptions { bytes_max: Some(60_000), ..ReserveOptions::default() };
    let mut many = Vec::new();
    loop {
        match client.reserve(&event("x", 0), &large).unwrap() {
            Reserved::Held(r) => many.push(r),
            Reserved::WouldBlock => break,
            Reserved::NoMatch => panic!(),
        }
    }
    assert!((4..=9).contains(&many.len()), "{}", many.len());
    let both: Vec<Event<'_>> = (0..9).map(|n| event("z", n)).collect();
    for on_full in [OnFull::Refuse, OnFull::Block(Duration::from_millis(20))] {
        let options = ReserveOptions { on_full, ..large };
        assert!(matches!(client.reserve_batch(&both, &options).unwrap(), ReservedBatch::WouldBlock));
    }
    // What is reserved is free for commits, however much others publish.
    for n in 0..5000 {
        client.publish_with(&event("y", n), &MEMORY).unwrap();
    }
    let text = "x".repeat(4000);
    let fields = CommitFields { content_type: &text, ..CommitFields::default() };
    many.iter().for_each(|r| r.commit(&fields, &CommitOptions { ack: Ack::Memory, ack_timeout: WAIT }).unwrap());
    let count = many.len();
    drop(many);
    assert!(matches!(client.reserve(&event("x", 0), &large).unwrap(), Reserved::Held(_)));
    let found = logged(&engine);
    assert_eq!((&found["b"][..], found["x"].len(), found["y"].len()), (&[7, 8, 9][..], count, 5000));
    engine.close(WAIT).unwrap();
}

#[test]
fn the_engines_other_calls_are_there_for_clients() {
    let place = Place::new();
    let r = receiver(Behaviour::Status(500));
    let mut dead = hook("dead", &r.url());
    dead.retry.attempts_max = Some(1);
    let engine = place.open(kept(vec![dead]));
    let client = place.client();
    let any = AnyEngine::from(client.clone());
    let local = AnyEngine::from(engine.clone());

    for n in 0..20 {
        any.publish_with(&event(&format!("k{n}"), n), &SYNCED).unwrap();
    }
    any.flush(WAIT).unwrap();
    let stats = any.stats().unwrap();
    assert_eq!((stats.accepted, stats.dead_lettered, stats.clients), (20, 20, 1));
    assert_eq!(stats.latency.len(), local.stats().unwrap().latency.len());
    assert_eq!(any.stats_json().unwrap()["dead_lettered"], 20);
    assert!(any.prometheus(MetricsFormat::OpenMetrics).unwrap().ends_with("# EOF\n"));

    // Rules and documents.
    let e = any.put_rule_text("{", Expect::Anything).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::InvalidConfig, "{e}");
    let rule = r#"{"id": "mine", "bucket": "b", "events": ["s3:ObjectCreated:*"], "destinations": ["dead"]}"#;
    let version = any.put_rule_text(rule, Expect::Absent).unwrap();
    let e = any.put_rule_text(rule, Expect::Absent).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Conflict, "{e}");
    assert_eq!(any.rule_json(Some("b"), "mine").unwrap(), local.rule_json(Some("b"), "mine").unwrap());
    assert_eq!(any.rule_json(Some("b"), "mine").unwrap()["version"], version);
    assert_eq!(any.rules_json().unwrap(), local.rules_json().unwrap());
    assert_eq!(any.rule_json(None, "none").unwrap_err().kind(), ErrorKind::NotFound);
    let bad = any.put_bucket_notification("b", "<x/>", None, &Default::default(), Expect::Anything).unwrap_err();
    assert_eq!(bad.s3_code().name(), "MalformedXML", "{bad}");
    let document = r#"{"QueueConfigurations": [{"Id": "q", "QueueArn": "arn:minio:sqs::dead:webhook",
        "Events": ["s3:ObjectCreated:*"]}]}"#;
    any.check_bucket_notification("b", document, Some(Format::Json), &Default::default()).unwrap();
    let version = any.put_bucket_notification("b", document, None, &Default::default(), Expect::Anything).unwrap();
    let found = any.bucket_notification("b", Format::Json).unwrap();
    assert_eq!(found, local.bucket_notification("b", Format::Json).unwrap());
    assert_eq!(found.version, Some(version));

    // Destinations.
    let text = r#"{"name": "more", "type": "webhook", "url": "http://127.0.0.1:9/"}"#;
    any.put_destination_text(text, Expect::Absent, &Default::default()).unwrap();
    assert_eq!(any.destinations_json().unwrap(), local.destinations_json().unwrap());
    any.suspend_destination("more").unwrap();
    assert_eq!(any.destination_json("more").unwrap(), local.destination_json("more").unwrap());
    any.resume_destination("more").unwrap();
    assert_eq!(any.destination_test_json("more").unwrap()["ok"], false);
    any.delete_destination("more", Expect::Anything, &Default::default()).unwrap();
    assert_eq!(any.suspend_destination("more").unwrap_err().kind(), ErrorKind::NotFound);
    let e = any.set_handler("h", None).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::InvalidArgument, "{e}");

    // Dead letters.
    let (mut here, mut there) = (Vec::new(), Vec::new());
    assert_eq!(any.export_dead_letters(&DeadLetterFilter::default(), &mut here).unwrap(), 20);
    assert_eq!(local.export_dead_letters(&DeadLetterFilter::default(), &mut there).unwrap(), 20);
    assert!(!here.is_empty() && here == there);
    let all = any.dead_letters(&DeadLetterFilter::default(), None, usize::MAX).unwrap();
    assert_eq!(all, local.dead_letters(&DeadLetterFilter::default(), None, usize::MAX).unwrap());
    let rest = any.dead_letters(&DeadLetterFilter::default(), Some(all[3].id), 5).unwrap();
    assert_eq!(rest, all[4..9]);
    assert!(any.dead_letters(&DeadLetterFilter::default(), None, 0).unwrap().is_empty());
    r.set_behaviour(Behaviour::Ok204);
    let mut one = DeadLetterFilter::default();
    one.key_prefix = b"k1".to_vec();
    let (redriven, result) = any.redrive(&one, &RedriveOptions::default(), WAIT).unwrap();
    result.unwrap();
    assert_eq!((redriven.redriven, redriven.left), (11, 0));
    assert_eq!(any.purge_dead_letters(&DeadLetterFilter::default(), WAIT).unwrap(), 9);

    // Reading.
    let mut tail = any.tail(tidewire::filter::EventFilter::all(), &ReadFrom::Beginning).unwrap();
    let mut beside = local.tail(tidewire::filter::EventFilter::all(), &ReadFrom::Beginning).unwrap();
    for _ in 0..20 {
        let (Some(Item::Entry(a)), Some(Item::Entry(b))) =
            (tail.next_within(WAIT).unwrap(), beside.next_within(WAIT).unwrap())
        else {
            panic!()
        };
        assert_eq!((a.id, a.frame().as_bytes(), a.sequencer), (b.id, b.frame().as_bytes(), b.sequencer));
        assert_eq!(tail.position(), beside.position());
    }
    let mut again =
        any.tail(tidewire::filter::EventFilter::all(), &ReadFrom::Position(tail.position().parse().unwrap())).unwrap();
    drop(tail);
    any.publish_with(&event("new", 99), &SYNCED).unwrap();
    let found = loop {
        match again.next_within(WAIT).unwrap() {
            Some(Item::Entry(e)) if e.frame().key() == b"new" => break e,
            Some(_) => {}
            None => panic!("it has not come"),
        }
    };
    assert_eq!(found.frame().size(), Some(99));

    let mut options = ConsumerOptions::default();
    options.from = ReadFrom::Beginning;
    let consumer = any.consumer("workers", &options).unwrap();
    let mut got = 0;
    until("all were fetched", || {
        let items = consumer.fetch(7, Duration::from_millis(200)).unwrap();
        let leases: Vec<_> = items
            .iter()
            .map(|d| match d {
                Delivery::Event(d) => d.lease,
                Delivery::Gap(g) => panic!("{g:?}"),
            })
            .collect();
        got += leases.len();
        if !leases.is_empty() {
            consumer.ack(&leases).unwrap();
        }
        got >= 21
    });
    assert_eq!(any.groups().unwrap(), local.groups().unwrap());
    drop(consumer);
    any.delete_group("workers").unwrap();

    // Waiting by descriptors, as a host with a loop does.
    let mut tail = any.tail(tidewire::filter::EventFilter::all(), &ReadFrom::Now).unwrap();
    let consumer = any.consumer("loop", &ConsumerOptions::default()).unwrap();
    assert!(tail.is_remote() && tail.watch().is_none() && consumer.is_remote() && consumer.watch().is_none());
    let told = |consumer: &AnyConsumer| loop {
        // Nothing to wait for: it is at hand.
        if let Some(asked) = consumer.ask(10, WAIT).unwrap() {
            assert!(readable(&asked));
        }
        match &consumer.fetch(10, Duration::ZERO).unwrap()[..] {
            [] => {}
            [Delivery::Event(given)] => break given.clone(),
            more => panic!("{more:?}"),
        }
    };
    let first = tail.ask(WAIT).unwrap().unwrap();
    assert!(tail.next_within(Duration::ZERO).unwrap().is_none(), "it is still asked for");
    any.publish_with(&event("told", 1), &SYNCED).unwrap();
    assert!(readable(&first));
    let entry = loop {
        match tail.next_within(Duration::ZERO).unwrap() {
            Some(Item::Entry(entry)) => break entry,
            Some(gap) => panic!("{gap:?}"),
            None => assert!(tail.ask(WAIT).unwrap().is_none_or(|asked| readable(&asked))),
        }
    };
    assert_eq!(entry.frame().key(), b"told");
    let given = told(&consumer);
    assert_eq!(given.entry.frame().key(), b"told");
    consumer.ack(&[given.lease]).unwrap();
    // What comes while something else is asked is given out after it.
    any.publish_with(&event("later", 2), &SYNCED).unwrap();
    assert!(readable(&consumer.ask(10, WAIT).unwrap().unwrap()));
    consumer.extend(given.lease).unwrap_err();
    let given = told(&consumer);
    assert_eq!(given.entry.frame().key(), b"later");
    consumer.nack(given.lease, Duration::ZERO).unwrap();
    assert_eq!(consumer.fetch(10, WAIT).unwrap().len(), 1);
    drop(consumer);
    any.delete_group("loop").unwrap();
    let mut flush = client.start_flush(WAIT).unwrap();
    assert!(readable(&flush));
    assert_eq!(flush.wait(Instant::now()).unwrap(), Some(()));
    let redrive = client.start_redrive(&DeadLetterFilter::default(), &RedriveOptions::default(), WAIT);
    let (redriven, result) = redrive.unwrap().wait(Instant::now() + WAIT).unwrap().unwrap();
    result.unwrap();
    assert_eq!((redriven.redriven, redriven.left), (0, 0));

    // A copy.
    let copy = place.0.path().join("copy");
    any.snapshot(&copy).unwrap();
    assert!(copy.metadata().unwrap().len() > 0);
    let e = any.snapshot(&place.0.path().join("none/copy")).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Io, "{e}");
    assert_eq!(any.rules_version().unwrap(), local.rules_version().unwrap());

    // Replays.
    let replay = any.replay(
        Some("r".into()),
        Some("dead".into()),
        None,
        &ReadFrom::Beginning,
        None,
        &tidewire::filter::EventFilter::all(),
        None,
    );
    let replay = replay.unwrap();
    assert_eq!(replay.name(), "r");
    assert!(replay.wait(WAIT).unwrap().delivered >= 21);
    assert_eq!(any.find_replay("gone").unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(any.replays_json().unwrap(), local.replays_json().unwrap());

    // Closing a client ends what waits there.
    let (mut tail, consumer) = (
        any.tail(tidewire::filter::EventFilter::all(), &ReadFrom::Now).unwrap(),
        any.consumer("waits", &ConsumerOptions::default()).unwrap(),
    );
    let asked = tail.ask(WAIT).unwrap().unwrap();
    let waiting = std::thread::spawn(move || consumer.fetch(10, WAIT).unwrap_err().kind());
    std::thread::sleep(Duration::from_millis(50));
    client.close(WAIT).unwrap();
    assert!(readable(&asked));
    assert_eq!(tail.next_within(WAIT).unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(waiting.join().unwrap(), ErrorKind::Closed);
    assert_eq!(any.rules_json().unwrap_err().kind(), ErrorKind::Closed);
    engine.close(WAIT).unwrap();
}

/// Whether a descriptor becomes readable.
fn readable(fd: &impl AsFd) -> bool {
    let mut entry = libc::pollfd { fd: fd.as_fd().as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one valid entry.
    unsafe { libc::poll(&mut entry, 1, WAIT.as_millis() as i32) == 1 }
}

/// What is published here and what is published there come in the order of the calls.
#[test]
fn the_process_that_has_the_engine_keeps_the_order_too() {
    let place = Place::new();
    let engine = place.open(kept(vec![]));
    let clients = [place.client(), place.client()];
    for n in 0..3000 {
        let options = if n % 97 == 0 { SYNCED } else { MEMORY };
        match n % 3 {
            2 => engine.publish_with(&event("k", n), &options).unwrap(),
            c => clients[c as usize].publish_with(&event("k", n), &options).unwrap(),
        };
    }
    let found = logged(&engine);
    assert!(found["k"].iter().copied().eq(0..3000), "{:?}", found["k"]);
    engine.close(WAIT).unwrap();
}

#[test]
fn what_cannot_be_shared_or_reached_is_said_clearly() {
    let place = Place::new();
    let options = || {
        let mut o = ClientOptions::default();
        o.connect_timeout = Duration::ZERO;
        o
    };
    let e = Client::connect(place.socket(), options()).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Disconnected, "{e}");
    assert!(e.message().contains("nobody listens"), "{e}");
    let e = Client::connect("/".repeat(200), options()).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::InvalidConfig, "{e}");
    let e = AnyEngine::connect("tcp:1.2.3.4", options()).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::InvalidArgument, "{e}");
    // Where a directory is wanted, an address is a mistake: nothing is made of that name.
    let address = format!("unix:{}", place.socket().display());
    let e = Engine::open_with(common::config(Path::new(&address), 1), kept(vec![])).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::InvalidConfig, "{e}");
    assert!(e.place().unwrap().contains(&address) && e.remedy_text().unwrap().contains("Client::connect"), "{e}");
    assert!(!Path::new("unix:").exists());
    let mut long = place.config();
    long.shared = Some(SharedConfig::new("x".repeat(200)));
    let e = long.validate().unwrap_err();
    assert_eq!(e.place(), Some("engine.shared.socket"), "{e}");

    // A socket of a process that is gone is replaced; a file is not.
    drop(UnixListener::bind(place.socket()).unwrap());
    let e = Client::connect(place.socket(), options()).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Disconnected, "{e}");
    let engine = place.open(kept(vec![]));
    let mut other = common::config(&place.0.path().join("other"), 1);
    other.shared = Some(SharedConfig::new(place.socket()));
    let e = Engine::open_with(other.clone(), kept(vec![])).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Locked, "{e}");
    let client = place.client();
    client.publish_with(&event("k", 1), &SYNCED).unwrap();
    engine.close(WAIT).unwrap();
    assert!(!place.socket().exists());
    std::fs::write(place.socket(), "a file").unwrap();
    let e = Engine::open_with(other, kept(vec![])).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::InvalidConfig, "{e}");

    // With nobody there calls wait as long as they may, and say so.
    let refuse = PublishOptions { on_full: OnFull::Refuse, ..MEMORY };
    until("the client knows", || !client.is_connected());
    let e = client.publish_with(&event("k", 2), &refuse).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Disconnected, "{e}");
    let short = PublishOptions { on_full: OnFull::Block(Duration::from_millis(50)), ..MEMORY };
    let e = client.publish_with(&event("k", 2), &short).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Disconnected, "{e}");
    assert!(e.remedy_text().is_some());
}

#[test]
fn who_speaks_another_language_harms_nobody() {
    let place = Place::new();
    let engine = place.open(kept(vec![]));
    let client = place.client();
    let mut rng = 7u64;
    let mut open = Vec::new();
    for round in 0..60 {
        let mut socket = UnixStream::connect(place.socket()).unwrap();
        let bytes: Vec<u8> = (0..200)
            .map(|_| {
                rng = rng.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                (rng >> 33) as u8
            })
            .collect();
        let _ = match round % 6 {
            0 => socket.write_all(&bytes),
            // A message that says it is long, and never comes.
            1 => socket.write_all(b"TWS1\xff\xff\xff\x03\0\0\0\0{"),
            2 => socket.write_all(b"TWS1\xff\xff\xff\xff\xff\xff\xff\xff{"),
            3 => socket.write_all(b"TWS1\x02\0\0\0\0\0\0\0{}"),
            4 => {
                let hello = br#"{"protocol": 99, "version": "9.9.9", "wants": {"Session": {"position": 0}}}"#;
                let mut m = b"TWS1".to_vec();
                m.extend((hello.len() as u32).to_le_bytes());
                m.extend(0u32.to_le_bytes());
                m.extend(hello);
                socket.write_all(&m).unwrap();
                let mut answer = vec![0; 400];
                let n = socket.read(&mut answer).unwrap();
                let text = String::from_utf8_lossy(&answer[..n]).into_owned();
                assert!(text.contains("9.9.9") && text.contains("protocol"), "{text}");
                Ok(())
            }
            _ => Ok(()),
        };
        if round % 2 == 0 {
            open.push(socket);
        }
        client.publish_with(&event("k", round), &SYNCED).unwrap();
    }
    assert!(logged(&engine)["k"].iter().copied().eq(0..60));
    drop(open);
    engine.close(WAIT).unwrap();
}

#[test]
fn threads_of_one_process_keep_their_order() {
    let place = Place::new();
    let engine = place.open(kept(vec![]));
    let client = place.client();
    std::thread::scope(|s| {
        for t in 0..4 {
            let client = &client;
            s.spawn(move || {
                for n in 0..3000 {
                    let options = if n % 500 == 0 { SYNCED } else { MEMORY };
                    client.publish_with(&event(&format!("t{t}"), n), &options).unwrap();
                }
            });
        }
    });
    let found = logged(&engine);
    for t in 0..4 {
        assert!(found[&format!("t{t}")].iter().copied().eq(0..3000));
    }
    engine.close(WAIT).unwrap();
}

#[test]
fn closing_tells_clients_what_it_has_made_durable() {
    let place = Place::new();
    let engine = place.open(kept(vec![]));
    let client = place.client();
    let receipts: Vec<_> = (0..300).map(|n| client.submit(&event("k", n), &SYNCED).unwrap().unwrap()).collect();
    engine.close(WAIT).unwrap();
    for receipt in receipts {
        receipt.wait(Ack::Synced, Some(Instant::now() + WAIT)).unwrap();
    }
    until("the client knows", || !client.is_connected());
    client.close(WAIT).unwrap();
}

#[test]
fn no_more_processes_than_may_are_connected() {
    let place = Place::new();
    let mut config = place.config();
    config.shared.as_mut().unwrap().clients_max = 2;
    let engine = Engine::open_with(config, kept(vec![])).unwrap();
    let (first, second) = (place.client(), place.client());
    let e = Client::connect(place.socket(), ClientOptions::default()).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Full, "{e}");
    assert!(e.to_string().contains("clients_max"), "{e}");
    first.publish_with(&event("k", 1), &SYNCED).unwrap();
    drop(second);
    until("there is a place again", || Client::connect(place.socket(), ClientOptions::default()).is_ok());
    engine.close(WAIT).unwrap();
}

/// Only root can be somebody else.
#[test]
fn another_user_is_let_in_only_by_name() {
    use std::os::unix::fs::PermissionsExt;
    const NOBODY: libc::uid_t = 65534;
    // SAFETY: the call has no arguments.
    if unsafe { libc::geteuid() } != 0 {
        return;
    }
    let place = Place::new();
    std::fs::set_permissions(place.0.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut shared = SharedConfig::new(place.socket());
    for (mode, uids, told) in [
        (0o600, vec![NOBODY], Err("let this user write to the socket")),
        (0o666, vec![], Err("`uids` of [engine.shared]")),
        (0o666, vec![NOBODY], Ok(())),
    ] {
        (shared.mode, shared.uids) = (mode, uids);
        let mut config = place.config();
        config.shared = Some(shared.clone());
        let engine = Engine::open_with(config, kept(vec![])).unwrap();
        let socket = place.socket();
        let thread = std::thread::spawn(move || {
            // SAFETY: the system call itself changes this thread alone.
            assert_eq!(unsafe { libc::syscall(libc::SYS_setresuid, -1, NOBODY, -1) }, 0);
            let mut options = ClientOptions::default();
            options.connect_timeout = Duration::ZERO;
            let client = Client::connect(socket, options)?;
            client.publish_with(&event("k", 1), &SYNCED)
        });
        match (thread.join().unwrap(), told) {
            (Ok(published), Ok(())) => assert_eq!(published, Published::Accepted),
            (Err(e), Err(part)) => {
                assert_eq!(e.kind(), ErrorKind::InvalidArgument, "{e}");
                assert!(e.to_string().contains(part), "{e}");
            }
            other => panic!("{other:?}"),
        }
        engine.close(WAIT).unwrap();
    }
}

// Processes of their own.

/// What a child process does; it is this program again.
fn child(place: &Place, what: &str, args: &[&str]) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "shared::as_another_process", "--nocapture"])
        .env("TIDEWIRE_TEST_CHILD", what)
        .env("TIDEWIRE_TEST_PLACE", place.0.path())
        .env("TIDEWIRE_TEST_ARGS", args.join(" "))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

/// A counter in memory that processes share, under a lock: whoever has it publishes, so that their calls are in its order.
struct Turns {
    file: std::fs::File,
    path: PathBuf,
}

impl Turns {
    fn open(dir: &Path) -> Turns {
        let path = dir.join("turns");
        let file = std::fs::OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&path).unwrap();
        Turns { file, path }
    }

    fn take(&self, publish: impl FnOnce(u64)) {
        use std::os::unix::fs::FileExt;
        self.file.lock().unwrap();
        let mut bytes = [0; 8];
        let n = if self.file.read_at(&mut bytes, 0).unwrap() == 8 { u64::from_le_bytes(bytes) } else { 0 };
        publish(n);
        self.file.write_all_at(&(n + 1).to_le_bytes(), 0).unwrap();
        self.file.unlock().unwrap();
    }

    fn count(&self) -> u64 {
        let bytes = std::fs::read(&self.path).unwrap();
        bytes.first_chunk().map_or(0, |b| u64::from_le_bytes(*b))
    }
}

fn served(place: &Place, url: &str) -> Engine {
    let mut rules = kept(vec![]);
    if !url.is_empty() {
        rules = kept(vec![hook("hook", url)]);
    }
    place.open(rules)
}

/// What the children of the other tests are; by itself it does nothing.
#[test]
fn as_another_process() {
    let Ok(what) = std::env::var("TIDEWIRE_TEST_CHILD") else { return };
    let dir = PathBuf::from(std::env::var("TIDEWIRE_TEST_PLACE").unwrap());
    let args = std::env::var("TIDEWIRE_TEST_ARGS").unwrap();
    let args: Vec<&str> = args.split(' ').collect();
    // The directory is the parent's to remove.
    let place = std::mem::ManuallyDrop::new(Place(tempfile::TempDir::new_in(&dir).unwrap()));
    let socket = dir.join("s");
    let mut options = ClientOptions::default();
    options.connect_timeout = WAIT;
    match what.as_str() {
        // Publishes in turns with others.
        "turns" => {
            let client = Client::connect(&socket, options).unwrap();
            let turns = Turns::open(&dir);
            for n in 0..args[0].parse::<u64>().unwrap() {
                let options = if n % 512 == 0 { SYNCED } else { MEMORY };
                turns.take(|turn| {
                    client.publish_with(&event(&format!("k{}", turn % 5), turn), &options).unwrap();
                });
            }
            client.close(WAIT).unwrap();
        }
        // Publishes until it is killed, and writes down what was acknowledged.
        "stream" => {
            let client = Client::connect(&socket, options).unwrap();
            let mut done = std::fs::OpenOptions::new().append(true).create(true).open(dir.join(args[0])).unwrap();
            for n in 0.. {
                let held = match client.reserve(&event(args[0], n), &ReserveOptions::default()).unwrap() {
                    Reserved::Held(held) => Some(held),
                    _ => None,
                };
                let ack = if n % 16 == 0 { SYNCED } else { MEMORY };
                client.publish_with(&event(args[0], n), &ack).unwrap();
                if n % 16 == 0 {
                    done.write_all(&n.to_le_bytes()).unwrap();
                }
                drop(held);
            }
        }
        // Goes on whatever becomes of the engine: an event of which nobody knows is told again.
        "onward" => {
            let client = Client::connect(&socket, options).unwrap();
            let mut done = std::fs::OpenOptions::new().append(true).create(true).open(dir.join(args[0])).unwrap();
            let stop = dir.join("stop");
            let mut n = 0u64;
            while !stop.exists() {
                match client.publish_with(&event(args[0], n), &SYNCED) {
                    Ok(_) => {
                        done.write_all(&n.to_le_bytes()).unwrap();
                        n += 1;
                    }
                    Err(e) => assert_eq!(e.kind(), ErrorKind::Disconnected, "{e}"),
                }
            }
            client.close(WAIT).unwrap();
        }
        "server" => {
            let data = dir.join("data");
            let mut config = common::config(&data, 2);
            config.shared = Some(SharedConfig::new(&socket));
            let engine = Engine::open_with(config, kept(vec![])).unwrap();
            // Until it is killed, or told to end.
            let _ = std::io::stdin().read(&mut [0]);
            engine.close(WAIT).unwrap();
        }
        // Publishes one event when it may, and ends when it is told to.
        "once" => {
            let client = Client::connect(&socket, options).unwrap();
            std::fs::write(dir.join("connected"), "").unwrap();
            until("it may publish", || dir.join("go").exists());
            client.publish_with(&event("k", args[0].parse().unwrap()), &MEMORY).unwrap();
            std::fs::write(dir.join("published"), "").unwrap();
            let _ = std::io::stdin().read(&mut [0]);
            client.close(WAIT).unwrap();
        }
        "reserve" => {
            let client = Client::connect(&socket, options).unwrap();
            let Reserved::Held(durable) = client.reserve(&event("d", 1), &DURABLE).unwrap() else { panic!() };
            let Reserved::Held(volatile) = client.reserve(&event("v", 1), &ReserveOptions::default()).unwrap() else {
                panic!()
            };
            std::fs::write(dir.join("token"), durable.token().unwrap().to_string()).unwrap();
            let _ = std::io::stdin().read(&mut [0]);
            drop((durable, volatile));
        }
        other => panic!("{other}"),
    }
    let _ = std::fs::remove_dir_all(place.0.path());
}

fn ended(mut child: Child) {
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
}

#[test]
fn events_of_several_processes_are_delivered_in_the_order_of_their_calls() {
    const EACH: u64 = 4000;
    let place = Place::new();
    let r = receiver(Behaviour::Ok204);
    let engine = served(&place, &r.url());
    let children: Vec<Child> = (0..4).map(|_| child(&place, "turns", &[&EACH.to_string()])).collect();
    children.into_iter().for_each(ended);
    engine.flush(WAIT).unwrap();
    assert_eq!(Turns::open(place.0.path()).count(), 4 * EACH);
    let mut told = BTreeMap::<String, Vec<u64>>::new();
    for record in r.records() {
        told.entry(record.key.clone()).or_default().push(record.size.unwrap());
    }
    assert_eq!(told.values().map(Vec::len).sum::<usize>() as u64, 4 * EACH);
    for (key, sizes) in told {
        assert!(sizes.is_sorted(), "{key}: {sizes:?}");
    }
    engine.close(WAIT).unwrap();
}

#[test]
fn clients_that_are_killed_lose_nothing_of_anybody() {
    let place = Place::new();
    let engine = served(&place, "");
    let client = place.client();
    let mut published = 0;
    // Five at a time, each killed at another moment.
    for round in 0..10u64 {
        let names: Vec<String> = (0..5).map(|n| format!("c{}", round * 5 + n)).collect();
        let mut victims: Vec<Child> = names.iter().map(|name| child(&place, "stream", &[name])).collect();
        for name in &names {
            let path = place.0.path().join(name);
            until("it publishes", || std::fs::metadata(&path).is_ok_and(|m| m.len() >= 8));
        }
        for (n, victim) in victims.iter_mut().enumerate() {
            let begun = Instant::now();
            while begun.elapsed() < Duration::from_millis((round * 7 + n as u64 * 3) % 20) {
                client.publish_with(&event("steady", published), &MEMORY).unwrap();
                published += 1;
            }
            victim.kill().unwrap();
            victim.wait().unwrap();
            client.publish_with(&event("steady", published), &SYNCED).unwrap();
            published += 1;
        }
    }
    until("nobody is left but one", || engine.stats().clients == 1);
    assert_eq!(engine.stats().reservations, 0);
    let found = logged(&engine);
    assert!(found["steady"].iter().copied().eq(0..published));
    for round in 0..50 {
        let name = format!("c{round}");
        let bytes = std::fs::read(place.0.path().join(&name)).unwrap();
        let last = bytes.chunks_exact(8).next_back().map(|b| u64::from_le_bytes(b.try_into().unwrap())).unwrap();
        let events = &found[&name];
        // Without a hole, and with everything that was acknowledged.
        assert!(events.iter().copied().eq(0..events.len() as u64), "{name}");
        assert!(events.len() as u64 > last, "{name}: {} of {last}", events.len());
    }
    engine.close(WAIT).unwrap();
}

#[test]
fn a_durable_reservation_of_a_client_that_died_is_in_doubt() {
    let place = Place::new();
    let engine = served(&place, "");
    let client = place.client();
    let mut victim = child(&place, "reserve", &[]);
    let token_file = place.0.path().join("token");
    until("it has reserved", || std::fs::read(&token_file).is_ok_and(|t| !t.is_empty()));
    assert!(client.in_doubt().unwrap().is_empty());
    victim.kill().unwrap();
    victim.wait().unwrap();
    until("it is in doubt", || client.in_doubt().unwrap().len() == 1);
    let doubt = client.in_doubt().unwrap().remove(0);
    assert_eq!(doubt.token.to_string(), std::fs::read_to_string(&token_file).unwrap());
    assert_eq!((doubt.event().bucket(), doubt.event().key()), ("bucket", &b"d"[..]));
    assert_eq!((engine.stats().reservations, engine.stats().ring_reserved_bytes), (0, 0));
    client.resolve(doubt.token, Resolution::Commit(&event("d", 77))).unwrap();
    client.resolve(doubt.token, Resolution::Commit(&event("d", 77))).unwrap();
    assert_eq!(client.resolve(doubt.token, Resolution::Abort).unwrap_err().kind(), ErrorKind::InvalidArgument);
    let found = logged(&engine);
    assert_eq!((&found["d"][..], found.get("v")), (&[77][..], None));
    engine.close(WAIT).unwrap();

    // Also after the engine was opened anew, and only until it was said what became of it.
    let engine = served(&place, "");
    assert!(engine.in_doubt().unwrap().is_empty());
    engine.close(WAIT).unwrap();
}

#[test]
fn clients_go_on_by_themselves_when_the_engine_dies() {
    let place = Place::new();
    let names = ["a", "b", "c"];
    let mut server = child(&place, "server", &[]);
    until("it listens", || UnixStream::connect(place.socket()).is_ok());
    let children: Vec<Child> = names.iter().map(|name| child(&place, "onward", &[name])).collect();
    let acknowledged = |name: &str| std::fs::metadata(place.0.path().join(name)).map_or(0, |m| m.len() / 8);
    for round in 0..6u64 {
        let before: Vec<u64> = names.iter().map(|n| acknowledged(n)).collect();
        until("all go on", || names.iter().zip(&before).all(|(n, b)| acknowledged(n) > b + 20));
        std::thread::sleep(Duration::from_millis(round * 3));
        server.kill().unwrap();
        server.wait().unwrap();
        server = child(&place, "server", &[]);
    }
    let before: Vec<u64> = names.iter().map(|n| acknowledged(n)).collect();
    until("all go on", || names.iter().zip(&before).all(|(n, b)| acknowledged(n) > b + 20));
    std::fs::write(place.0.path().join("stop"), "").unwrap();
    children.into_iter().for_each(ended);
    ended(server);
    let engine = served(&place, "");
    let found = logged(&engine);
    for name in names {
        let events = &found[name];
        // What was acknowledged is there, in its order; what nobody knew of may be there twice, one behind the other.
        let mut once = events.clone();
        once.dedup();
        let count = acknowledged(name);
        assert!(once.iter().copied().eq(0..once.len() as u64), "{name}: {events:?}");
        assert!(once.len() as u64 >= count, "{name}: {} of {count}", once.len());
        assert!(events.len() - once.len() <= 7, "{name}: {} repeats", events.len() - once.len());
    }
    engine.close(WAIT).unwrap();
}

#[test]
fn what_the_engine_had_not_taken_is_given_to_the_next_one() {
    let place = Place::new();
    let mut server = child(&place, "server", &[]);
    let client = place.client();
    client.publish_with(&event("k", 0), &SYNCED).unwrap();
    let durable = match client.reserve(&event("d", 0), &DURABLE).unwrap() {
        Reserved::Held(r) => r,
        other => panic!("{other:?}"),
    };
    let volatile = match client.reserve(&event("v", 0), &ReserveOptions::default()).unwrap() {
        Reserved::Held(r) => r,
        other => panic!("{other:?}"),
    };
    // It is stopped, so that it takes nothing more.
    let pid = server.id() as libc::pid_t;
    // SAFETY: a signal to a child of this process.
    unsafe { libc::kill(pid, libc::SIGSTOP) };
    until("it has stopped", || std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|s| s.contains(") T")));
    for n in 1..=500 {
        client.publish_with(&event("k", n), &MEMORY).unwrap();
    }
    let receipt = client.submit(&event("k", 501), &SYNCED).unwrap().unwrap();
    let fields = CommitFields { size: Some(3), ..CommitFields::default() };
    volatile.commit(&fields, &CommitOptions { ack: Ack::Memory, ack_timeout: WAIT }).unwrap();
    server.kill().unwrap();
    server.wait().unwrap();
    until("the client knows", || !client.is_connected());
    let engine = served(&place, "");
    receipt.wait(Ack::Synced, Some(Instant::now() + WAIT)).unwrap();
    until("it is connected anew", || client.reconnects() == 1);
    // The operation that was reserved for with the engine before came to be: its commit ends what is in doubt there.
    assert_eq!(client.in_doubt().unwrap().len(), 1);
    durable.commit(&fields, &CommitOptions { ack: Ack::Synced, ack_timeout: WAIT }).unwrap();
    assert!(client.in_doubt().unwrap().is_empty());
    let found = logged(&engine);
    assert!(found["k"].iter().copied().eq(0..=501), "{:?}", found["k"]);
    assert_eq!((&found["d"][..], &found["v"][..]), (&[3][..], &[3][..]));
    assert_eq!(client.lost(), 0);
    engine.close(WAIT).unwrap();
}

/// A signal to a child.
fn signal(child: &Child, signal: libc::c_int, state: &str) {
    let pid = child.id() as libc::pid_t;
    // SAFETY: a signal to a child of this process.
    unsafe { libc::kill(pid, signal) };
    let told = || std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|s| s.contains(state));
    until("it has the signal", || state.is_empty() || told());
}

#[test]
fn what_was_published_before_an_engine_died_comes_before_what_is_published_later() {
    for ends_instead in [false, true] {
        let place = Place::new();
        let mut server = child(&place, "server", &[]);
        let client = place.client();
        client.publish_with(&event("k", 0), &SYNCED).unwrap();
        let mut other = child(&place, "once", &["1"]);
        let published = place.0.path().join("published");
        until("it is connected", || place.0.path().join("connected").exists());
        // It takes nothing more.
        signal(&server, libc::SIGSTOP, ") T");
        std::fs::write(place.0.path().join("go"), "").unwrap();
        until("another process has published", || published.exists());
        // That one does not come back before this one has published more.
        signal(&other, libc::SIGSTOP, ") T");
        client.publish_with(&event("k", 2), &MEMORY).unwrap();
        server.kill().unwrap();
        server.wait().unwrap();
        let engine = served(&place, "");
        until("it is connected anew", || client.reconnects() == 1);
        client.publish_with(&event("k", 3), &MEMORY).unwrap();
        if ends_instead {
            other.kill().unwrap();
        } else {
            signal(&other, libc::SIGCONT, "");
        }
        client.publish_with(&event("k", 4), &SYNCED).unwrap();
        let wanted: &[u64] = if ends_instead { &[0, 2, 3, 4] } else { &[0, 1, 2, 3, 4] };
        assert_eq!(logged(&engine)["k"], wanted);
        if ends_instead {
            other.wait().unwrap();
        } else {
            ended(other);
        }
        engine.close(WAIT).unwrap();
    }
}

#[test]
fn an_engine_does_not_wait_for_ever_for_clients_of_the_last_one() {
    let place = Place::new();
    let mut server = child(&place, "server", &[]);
    let other = child(&place, "once", &["1"]);
    until("it is connected", || place.0.path().join("connected").exists());
    signal(&other, libc::SIGSTOP, ") T");
    server.kill().unwrap();
    server.wait().unwrap();
    let engine = served(&place, "");
    // Who has the engine waits as others do, as long as he may.
    let refuse = PublishOptions { on_full: OnFull::Refuse, ..MEMORY };
    let e = engine.publish_with(&event("k", 0), &refuse).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Full, "{e}");
    engine.publish_with(&event("k", 1), &SYNCED).unwrap();
    std::fs::write(place.0.path().join("go"), "").unwrap();
    signal(&other, libc::SIGCONT, "");
    ended(other);
    engine.close(WAIT).unwrap();
}

#[test]
fn the_first_that_opens_has_the_engine_and_another_takes_it_over() {
    let place = Place::new();
    let text = format!(
        "[engine]\ndata_dir = {:?}\nshards = 1\nretention = {{ keep = \"all\" }}\nshared = {{ socket = {:?} }}\n",
        place.data(),
        place.socket(),
    );
    let config = || Config::from_toml(&text, "t.toml", Path::new("")).unwrap();
    let mut options = ClientOptions::default();
    options.connect_timeout = WAIT;
    let first = Client::open_or_connect(config(), options.clone()).unwrap();
    let second = Client::open_or_connect(config(), options.clone()).unwrap();
    assert!(first.has_engine() && !second.has_engine());
    first.publish_with(&event("k", 0), &MEMORY).unwrap();
    second.publish_with(&event("k", 1), &SYNCED).unwrap();
    first.close(WAIT).unwrap();
    second.publish_with(&event("k", 2), &SYNCED).unwrap();
    assert!(second.has_engine());
    let third = Client::open_or_connect(config(), options.clone()).unwrap();
    third.publish_with(&event("k", 3), &SYNCED).unwrap();
    second.close(WAIT).unwrap();
    third.publish_with(&event("k", 4), &SYNCED).unwrap();
    third.close(WAIT).unwrap();
    let mut alone = common::config(&place.data(), 1);
    alone.retention.keep = tidewire::config::Keep::All;
    let engine = Engine::open_with(alone, RuleSet::default()).unwrap();
    assert!(logged(&engine)["k"].iter().copied().eq(0..=4));
    engine.close(WAIT).unwrap();
}

#[test]
fn a_forked_child_does_not_use_its_parents_connection() {
    let place = Place::new();
    let engine = served(&place, "");
    let client = place.client();
    client.publish_with(&event("k", 0), &SYNCED).unwrap();
    // SAFETY: the child calls what must be safe there, and leaves at once.
    unsafe {
        match libc::fork() {
            0 => {
                let told = [
                    client.publish_with(&event("k", 1), &MEMORY).map(drop),
                    client.flush(WAIT),
                    client.in_doubt().map(drop),
                    client.close(WAIT),
                    client.completions().map(drop),
                ];
                let wrong = told.iter().all(|t| t.as_ref().is_err_and(|e| e.kind() == ErrorKind::WrongProcess));
                drop(client);
                libc::_exit(i32::from(!wrong));
            }
            child => {
                let mut status = 0;
                assert_eq!(libc::waitpid(child, &mut status, 0), child);
                assert_eq!(status, 0);
            }
        }
    }
    client.publish_with(&event("k", 1), &SYNCED).unwrap();
    assert_eq!(logged(&engine)["k"], [0, 1]);
    engine.close(WAIT).unwrap();
}
