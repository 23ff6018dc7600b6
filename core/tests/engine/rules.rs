//! Rules that change one by one while the engine runs, and that are there again after it was closed.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tidewire::config::{EngineConfig, RulesKept};
use tidewire::event::EventTypes;
use tidewire::filter::Filter;
use tidewire::log::standing::State;
use tidewire::rule::{Backlog, Destination, Expect, Format, NotificationOptions, OnQueueFull, Owner, Rule, RuleSet};
use tidewire::{
    Ack, DeadLetterFilter, Engine, ErrorKind, Event, KnownType, LossReason, PublishOptions, Published, RedriveOptions,
    S3Code,
};
use tidewire_receiver::{Behaviour, Receiver};

use crate::common::{WAIT, hook, receiver, until};

fn config(dir: &Path) -> EngineConfig {
    let mut c = EngineConfig::new(dir);
    c.shards = Some(2);
    c.close_timeout = Duration::from_secs(5);
    c.log.segment_bytes = 1 << 20;
    c
}

fn configured(destinations: Vec<Destination>) -> RuleSet {
    RuleSet::build(Vec::new(), destinations, EventTypes::default()).unwrap()
}

fn open(dir: &Path, r: &Receiver) -> Engine {
    Engine::open_with(config(dir), configured(vec![hook("hook", &r.url())])).unwrap()
}

fn rule(id: &str, bucket: &str, prefix: &str) -> Rule {
    let rule = Rule::new(id, ["s3:ObjectCreated:*"], &EventTypes::default()).unwrap();
    rule.with_bucket(bucket).with_filter(Filter::new(prefix, "")).with_destination("hook")
}

fn publish(engine: &Engine, bucket: &str, key: &str) -> Published {
    let event = Event::new(KnownType::ObjectCreatedPut.into(), bucket, key.as_bytes());
    engine.publish_with(&event, &PublishOptions { ack: Ack::Memory, ..PublishOptions::default() }).unwrap()
}

fn told(r: &Receiver) -> Vec<String> {
    let mut keys: Vec<String> =
        r.records().into_iter().filter(|record| record.accepted).map(|record| record.key).collect();
    keys.sort();
    keys
}

#[test]
fn a_rule_is_in_force_when_the_call_returns_and_out_of_it_when_it_is_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let r = receiver(Behaviour::Ok204);
    let engine = open(dir.path(), &r);
    assert_eq!(publish(&engine, "b", "a/0"), Published::NoMatch);
    for n in 0..50 {
        engine.put_rule(rule("r", "b", &format!("{n}/")), Expect::Anything).unwrap();
        publish(&engine, "b", &format!("{n}/yes"));
        publish(&engine, "b", &format!("{}/no", n + 1));
    }
    engine.delete_rule(Some("b"), "r", Expect::Anything).unwrap();
    assert_eq!(publish(&engine, "b", "49/late"), Published::NoMatch);
    engine.flush(WAIT).unwrap();
    let mut expected: Vec<String> = (0..50).map(|n| format!("{n}/yes")).collect();
    expected.sort();
    assert_eq!(told(&r), expected);
    assert!(engine.rule(Some("b"), "r").is_none());
    let e = engine.delete_rule(Some("b"), "r", Expect::Anything).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::NotFound);
    engine.close(WAIT).unwrap();
    assert_eq!(engine.put_rule(rule("r", "b", ""), Expect::Anything).unwrap_err().kind(), ErrorKind::Closed);
}

#[test]
fn a_rule_is_in_force_for_an_event_that_a_busy_shard_takes_in_the_same_turn() {
    let dir = tempfile::tempdir().unwrap();
    let r = receiver(Behaviour::Ok204);
    let mut crowd = hook("crowd", &refusing().url());
    crowd.queue.events_max = Some(1);
    crowd.queue.on_full = OnQueueFull::DropNewest;
    let mut c = config(dir.path());
    c.shards = Some(1);
    c.rules = RulesKept::Host;
    let engine = Engine::open_with(c, configured(vec![hook("hook", &r.url()), crowd])).unwrap();
    let mut to_crowd = rule("to-crowd", "b", "crowd/");
    to_crowd.destinations = vec!["crowd".into()];
    engine.put_rule(to_crowd, Expect::Absent).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|s| {
        s.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                publish(&engine, "b", "crowd/x");
            }
        });
        for n in 0..400 {
            engine.put_rule(rule("r", "b", &format!("{n}/")), Expect::Anything).unwrap();
            publish(&engine, "b", &format!("{n}/yes"));
        }
        stop.store(true, Ordering::Relaxed);
    });
    until("all have arrived", || told(&r).len() >= 400);
    engine.close(Duration::ZERO).unwrap();
}

#[test]
fn what_was_put_is_there_after_a_restart_with_its_versions() {
    let dir = tempfile::tempdir().unwrap();
    let r = receiver(Behaviour::Ok204);
    let engine = open(dir.path(), &r);
    let first = engine.put_rule(rule("one", "b", "1/"), Expect::Absent).unwrap();
    let second = engine.put_rule(rule("two", "b", "2/"), Expect::Absent).unwrap();
    engine.put_rule(rule("three", "c", "3/"), Expect::Absent).unwrap();
    engine.delete_rule(Some("c"), "three", Expect::Anything).unwrap();
    let (_, deleted) = engine.bucket_rules(Some("c"));
    engine.close(WAIT).unwrap();
    drop(engine);

    let engine = open(dir.path(), &r);
    let version = |id: &str| engine.rule(Some("b"), id).map(|r| r.version());
    assert_eq!((version("one"), version("two")), (Some(first), Some(second)));
    assert_eq!(engine.rule(Some("b"), "one").unwrap().rule(), rule("one", "b", "1/"));
    assert_eq!(engine.bucket_rules(Some("b")).1, Some(second));
    let (rules, version) = engine.bucket_rules(Some("c"));
    assert!(rules.is_empty() && version == deleted && deleted > Some(second));
    // Numbers of versions are not given again.
    assert!(engine.put_rule(rule("four", "b", "4/"), Expect::Absent).unwrap() > deleted.unwrap());
    for key in ["1/x", "2/x", "3/x", "4/x"] {
        publish(&engine, "b", key);
    }
    engine.flush(WAIT).unwrap();
    assert_eq!(told(&r), ["1/x", "2/x", "4/x"]);
    engine.close(WAIT).unwrap();
}

#[test]
fn what_was_put_is_the_hosts_to_keep_if_it_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let r = receiver(Behaviour::Ok204);
    let open = || {
        let mut c = config(dir.path());
        c.rules = RulesKept::Host;
        Engine::open_with(c, configured(vec![hook("hook", &r.url())])).unwrap()
    };
    let engine = open();
    engine.put_rule(rule("one", "b", ""), Expect::Absent).unwrap();
    publish(&engine, "b", "x");
    engine.flush(WAIT).unwrap();
    engine.close(WAIT).unwrap();
    drop(engine);
    let engine = open();
    assert!(engine.rules().is_empty());
    assert_eq!(told(&r), ["x"]);
    engine.close(WAIT).unwrap();
}

#[test]
fn of_two_concurrent_changes_of_the_rules_of_a_bucket_none_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let r = receiver(Behaviour::Ok204);
    let engine = open(dir.path(), &r);
    engine.put_bucket_rules(Some("b"), vec![rule("first", "b", "")], Expect::Absent).unwrap();
    // Each adds its rules to what it has read, and begins again if somebody was quicker.
    let add = |name: &str| {
        for n in 0..20 {
            loop {
                let (mut rules, version): (Vec<Rule>, _) = {
                    let (rules, version) = engine.bucket_rules(Some("b"));
                    (rules.iter().map(|r| r.rule()).collect(), version.unwrap())
                };
                rules.push(rule(&format!("{name}-{n}"), "b", ""));
                match engine.put_bucket_rules(Some("b"), rules, Expect::Version(version)) {
                    Ok(_) => break,
                    Err(e) => assert_eq!(e.kind(), ErrorKind::Conflict, "{e}"),
                }
            }
        }
    };
    std::thread::scope(|s| {
        for name in ["a", "b", "c"] {
            s.spawn(move || add(name));
        }
    });
    assert_eq!(engine.bucket_rules(Some("b")).0.len(), 61);
    // A document replaces what there was.
    engine.put_bucket_rules(Some("b"), vec![rule("last", "b", "")], Expect::Anything).unwrap();
    let ids: Vec<String> = engine.bucket_rules(Some("b")).0.iter().map(|r| r.id().to_owned()).collect();
    assert_eq!(ids, ["last"]);
    let wrong = vec![rule("x", "b", ""), rule("x", "b", "1")];
    assert!(engine.put_bucket_rules(Some("b"), wrong, Expect::Anything).is_err());
    let wrong = engine.put_bucket_rules(Some("b"), vec![rule("x", "c", "")], Expect::Anything).unwrap_err();
    assert!(wrong.to_string().contains("another bucket"), "{wrong}");
    engine.close(WAIT).unwrap();
}

#[test]
fn the_notification_document_of_a_bucket_is_put_given_back_and_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let r = receiver(Behaviour::Ok204);
    let open = || {
        let mut c = config(dir.path());
        c.arns =
            [("arn:aws:sns:eu:1:hook".into(), "hook".into()), ("arn:aws:sns:eu:1:gone".into(), "gone".into())].into();
        Engine::open_with(c, configured(vec![hook("hook", &r.url())])).unwrap()
    };
    let engine = open();
    let none = engine.bucket_notification("b", Format::Json).unwrap();
    assert_eq!((none.text.as_str(), none.version), ("{}", None));
    let document = |arn: &str, prefix: &str| {
        format!(
            "<NotificationConfiguration><TopicConfiguration><Topic>{arn}</Topic><Event>s3:ObjectCreated:*</Event>\
             <Filter><S3Key><FilterRule><Name>prefix</Name><Value>{prefix}</Value></FilterRule></S3Key></Filter>\
             </TopicConfiguration></NotificationConfiguration>"
        )
    };
    let options = NotificationOptions::default();
    let put = |engine: &Engine, text: &str, expect| engine.put_bucket_notification("b", text, None, &options, expect);
    let first = put(&engine, &document("arn:aws:sns:eu:1:hook", "a/"), Expect::Absent).unwrap();
    assert_eq!(engine.bucket_notification("b", Format::Xml).unwrap().version, Some(first));
    publish(&engine, "b", "a/1");
    publish(&engine, "b", "c/1");
    assert_eq!(publish(&engine, "other", "a/1"), Published::NoMatch);

    // What is refused changes nothing.
    for (text, expect, code) in [
        (document("arn:aws:sns:eu:1:hook", "c/"), Expect::Absent, S3Code::OperationAborted),
        (document("arn:aws:sns:eu:1:gone", "c/"), Expect::Anything, S3Code::InvalidArgument),
        (document("arn:aws:sns:eu:1:nobody", "c/"), Expect::Anything, S3Code::InvalidArgument),
        ("<NotificationConfiguration>".into(), Expect::Anything, S3Code::MalformedXml),
    ] {
        let e = put(&engine, &text, expect).unwrap_err();
        assert_eq!(e.s3_code(), code, "{e}");
    }
    let wrong = engine.put_bucket_notification("a/b", "{}", None, &options, Expect::Anything).unwrap_err();
    assert_eq!(wrong.s3_code(), S3Code::InvalidBucketName, "{wrong}");
    let checked =
        engine.check_bucket_notification("b", &document("arn:tidewire:x:::hook", ""), None, &options).unwrap();
    assert_eq!((checked.len(), checked[0].destinations[0].as_str()), (1, "hook"));
    publish(&engine, "b", "a/2");

    // A rule that was put by itself stands in it too, or is told of.
    engine.put_rule(rule("alone", "b", "d/"), Expect::Absent).unwrap();
    engine.put_rule(rule("two", "b", "e/").with_priority(tidewire::Priority::High), Expect::Absent).unwrap();
    let before = engine.bucket_notification("b", Format::Json).unwrap();
    assert_eq!(before.left_out, ["two"]);
    let json: serde_json::Value = serde_json::from_str(&before.text).unwrap();
    assert_eq!(json["TopicConfigurations"][0]["TopicArn"], "arn:aws:sns:eu:1:hook");
    assert_eq!(json["QueueConfigurations"][0]["Id"], "alone");
    engine.close(WAIT).unwrap();
    drop(engine);

    // It is kept as it was written.
    let engine = open();
    assert_eq!(engine.bucket_notification("b", Format::Json).unwrap(), before);
    // Put again as it is given back, and it stays the same but for what it does not say.
    let version = before.version.unwrap();
    let second = put(&engine, &before.text, Expect::Version(version)).unwrap();
    let after = engine.bucket_notification("b", Format::Json).unwrap();
    assert_eq!((&after.text, after.version, after.left_out.len()), (&before.text, Some(second), 0));
    publish(&engine, "b", "a/3");
    publish(&engine, "b", "d/4");
    publish(&engine, "b", "e/4");
    // A rule that is changed by itself stands there as it is now.
    let id = engine.bucket_rules(Some("b")).0.iter().map(|r| r.id().to_owned()).find(|id| id != "alone").unwrap();
    let mut changed = engine.rule(Some("b"), &id).unwrap().rule();
    changed.filter = Filter::new("z/", "");
    engine.put_rule(changed, Expect::Anything).unwrap();
    let now = engine.bucket_notification("b", Format::Xml).unwrap();
    assert!(now.text.contains("<Value>z/</Value>") && !now.text.contains("<Value>a/</Value>"), "{}", now.text);
    let second = now.version.unwrap();
    // An empty one switches the bucket's notifications off.
    put(&engine, "<NotificationConfiguration/>", Expect::Version(second)).unwrap();
    assert_eq!(publish(&engine, "b", "a/5"), Published::NoMatch);
    assert_eq!(engine.bucket_notification("b", Format::Json).unwrap().text, "{}");
    engine.flush(WAIT).unwrap();
    assert_eq!(told(&r), ["a/1", "a/2", "a/3", "d/4"]);
    engine.close(WAIT).unwrap();
}

/// Of other systems it is told that one rule with an unknown target made all of them unusable after a restart.
#[test]
fn one_unknown_target_does_not_make_the_set_unusable() {
    let dir = tempfile::tempdir().unwrap();
    let r = receiver(Behaviour::Ok204);
    let with_other = || configured(vec![hook("hook", &r.url()), hook("other", &r.url())]);
    let engine = Engine::open_with(config(dir.path()), with_other()).unwrap();
    engine.put_rule(rule("good", "b", "good/"), Expect::Absent).unwrap();
    let mut lost = rule("lost", "b", "lost/");
    lost.destinations = vec!["other".into()];
    engine.put_rule(lost, Expect::Absent).unwrap();
    engine.close(WAIT).unwrap();
    drop(engine);

    let engine = open(dir.path(), &r);
    publish(&engine, "b", "good/1");
    publish(&engine, "b", "lost/1");
    let lost = engine.rule(Some("b"), "lost").unwrap();
    assert!(lost.inactive().unwrap().to_string().contains("unknown destination `other`"));
    // It can be looked at and deleted, and comes back with its destination.
    engine.replace_rules(with_other()).unwrap();
    publish(&engine, "b", "lost/2");
    engine.flush(WAIT).unwrap();
    assert_eq!(told(&r), ["good/1", "lost/2"]);
    engine.delete_rule(Some("b"), "lost", Expect::Anything).unwrap();
    engine.close(WAIT).unwrap();
}

/// A type of the host's own that it does not register any more.
#[test]
fn a_rule_that_cannot_be_read_is_kept_and_does_not_keep_the_others_from_working() {
    let dir = tempfile::tempdir().unwrap();
    let r = receiver(Behaviour::Ok204);
    let types = EventTypes::with_custom(["acme:Scanned"]).unwrap();
    let open = |types: &EventTypes| {
        let mut c = config(dir.path());
        c.event_types = types.clone();
        let mut d = hook("hook", &r.url());
        d.profile = tidewire::event::profile::Profile::CloudEvents;
        Engine::open_with(c, RuleSet::build(Vec::new(), vec![d], types.clone()).unwrap()).unwrap()
    };
    let engine = open(&types);
    engine.put_rule(rule("good", "b", ""), Expect::Absent).unwrap();
    let own = Rule::new("own", ["acme:Scanned"], &types).unwrap().with_bucket("b").with_destination("hook");
    engine.put_rule(own, Expect::Absent).unwrap();
    engine.close(WAIT).unwrap();
    drop(engine);
    let engine = open(&EventTypes::default());
    assert!(engine.rule(Some("b"), "own").is_none() && engine.rule(Some("b"), "good").is_some());
    // Also through a journal that becomes a whole file.
    for n in 0..200 {
        let mut large = rule("large", "b", &n.to_string());
        large.filter = Filter::any((0..80).map(|i| Filter::new("x".repeat(100), format!("{n}-{i}"))));
        engine.put_rule(large, Expect::Anything).unwrap();
    }
    assert!(dir.path().join("rules.json").exists());
    engine.close(WAIT).unwrap();
    drop(engine);
    let engine = open(&types);
    let ids: BTreeSet<String> = engine.rules().iter().map(|r| r.id().to_owned()).collect();
    assert_eq!(ids, BTreeSet::from(["good", "large", "own"].map(str::to_owned)));
    engine.close(WAIT).unwrap();
}

#[test]
fn a_rule_that_cannot_be_stored_is_not_in_force() {
    let dir = tempfile::tempdir().unwrap();
    let r = receiver(Behaviour::Ok204);
    let engine = open(dir.path(), &r);
    engine.put_rule(rule("one", "b", "1/"), Expect::Absent).unwrap();
    let before = engine.rules_version();
    let journal = dir.path().join("rules.journal");
    std::fs::rename(&journal, dir.path().join("elsewhere")).unwrap();
    std::fs::create_dir(&journal).unwrap();
    let e = engine.put_rule(rule("one", "b", "2/"), Expect::Anything).unwrap_err();
    assert!(e.to_string().contains("rules.journal"), "{e}");
    engine.put_rule(rule("two", "c", ""), Expect::Anything).unwrap_err();
    assert_eq!(engine.rules_version(), before);
    assert_eq!(publish(&engine, "c", "x"), Published::NoMatch);
    publish(&engine, "b", "2/x");
    publish(&engine, "b", "1/x");
    engine.flush(WAIT).unwrap();
    assert_eq!(told(&r), ["1/x"]);
    std::fs::remove_dir(&journal).unwrap();
    std::fs::rename(dir.path().join("elsewhere"), &journal).unwrap();
    engine.put_rule(rule("two", "c", ""), Expect::Absent).unwrap();
    engine.close(WAIT).unwrap();
    drop(engine);
    let engine = open(dir.path(), &r);
    assert_eq!(engine.rules().len(), 2);
    engine.close(WAIT).unwrap();
}

#[test]
fn a_rule_of_the_configuration_is_changed_there() {
    let dir = tempfile::tempdir().unwrap();
    let r = receiver(Behaviour::Ok204);
    let set = RuleSet::build(vec![rule("r", "b", "")], vec![hook("hook", &r.url())], EventTypes::default()).unwrap();
    let engine = Engine::open_with(config(dir.path()), set).unwrap();
    let e = engine.put_rule(rule("r", "b", "x"), Expect::Anything).unwrap_err();
    assert!(e.kind() == ErrorKind::Conflict && e.to_string().contains("configuration"), "{e}");
    let e = engine.delete_rule(Some("b"), "r", Expect::Anything).unwrap_err();
    assert!(e.kind() == ErrorKind::NotFound && e.to_string().contains("configuration"), "{e}");
    assert_eq!(engine.rule(Some("b"), "r").unwrap().owner(), Owner::Configuration);
    engine.close(WAIT).unwrap();
}

/// Rules come and go while events flow, so many that they are merged meanwhile.
#[test]
fn changing_rules_loses_and_doubles_nothing_of_what_other_rules_want() {
    let dir = tempfile::tempdir().unwrap();
    let r = receiver(Behaviour::Ok204);
    let mut c = config(dir.path());
    c.rules = RulesKept::Host;
    let engine = Engine::open_with(c, configured(vec![hook("hook", &r.url())])).unwrap();
    engine.put_rule(rule("steady", "b", "steady/"), Expect::Absent).unwrap();
    let stop = AtomicBool::new(false);
    let count = std::thread::scope(|s| {
        let publisher = s.spawn(|| {
            let mut n = 0;
            while !stop.load(Ordering::Relaxed) || n < 100 {
                publish(&engine, "b", &format!("steady/{n:06}"));
                n += 1;
                if n % 64 == 0 {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
            n
        });
        for n in 0..600 {
            engine.put_rule(rule(&format!("r{n}"), "b", &format!("{n}/")), Expect::Anything).unwrap();
            if n % 3 == 2 {
                engine.delete_rule(Some("b"), &format!("r{}", n - 1), Expect::Anything).unwrap();
            }
        }
        stop.store(true, Ordering::Relaxed);
        publisher.join().unwrap()
    });
    for n in [0, 1, 2, 300, 301, 599] {
        publish(&engine, "b", &format!("{n}/x"));
    }
    engine.flush(WAIT).unwrap();
    let mut expected: Vec<String> = (0..count).map(|n| format!("steady/{n:06}")).collect();
    expected.extend([0, 2, 300, 599].map(|n| format!("{n}/x")));
    expected.sort();
    until("all have arrived", || told(&r).len() >= expected.len());
    assert_eq!(told(&r), expected);
    engine.close(WAIT).unwrap();
}

/// An engine whose destination `old`, which is put, refuses everything and has `0..10` of two keys waiting.
fn with_backlog(dir: &Path, other: &Receiver, old: &Receiver) -> Engine {
    let engine = Engine::open_with(config(dir), configured(vec![hook("hook", &other.url())])).unwrap();
    engine.put_destination(hook("old", &old.url()), Expect::Absent, &Backlog::Keep).unwrap();
    let mut to_old = rule("to-old", "b", "");
    to_old.destinations = vec!["old".into()];
    engine.put_rule(to_old, Expect::Absent).unwrap();
    for n in 0..10 {
        sized(&engine, n);
    }
    engine
}

fn refusing() -> Receiver {
    receiver(Behaviour::Status(503))
}

/// An event whose size is its number.
fn sized(engine: &Engine, n: u64) {
    let key = format!("key-{}", n % 2);
    let mut event = Event::new(KnownType::ObjectCreatedPut.into(), "b", key.as_bytes());
    event.size = Some(n);
    engine.publish_with(&event, &PublishOptions { ack: Ack::Memory, ..PublishOptions::default() }).unwrap();
}

/// The numbers of the events that arrived, by key.
fn numbers(r: &Receiver, key: &str) -> Vec<u64> {
    let accepted = r.records().into_iter().filter(|r| r.accepted && r.key == key);
    accepted.map(|r| r.size.unwrap()).collect()
}

fn evens(to: u64) -> Vec<u64> {
    (0..to).filter(|n| n % 2 == 0).collect()
}

fn waiting(engine: &Engine) -> u64 {
    engine.stats().waiting
}

#[test]
fn what_waits_for_a_deleted_destination_is_delivered_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (other, old) = (receiver(Behaviour::Ok204), refusing());
    let engine = with_backlog(dir.path(), &other, &old);
    let e = engine.delete_destination("old", Expect::Anything, &Backlog::Drain).unwrap_err();
    assert!(e.kind() == ErrorKind::Conflict && e.to_string().contains("to-old"), "{e}");
    engine.delete_rule(Some("b"), "to-old", Expect::Anything).unwrap();
    let version = engine.destinations().into_iter().find(|d| d.destination.name == "old").unwrap().version;
    engine.delete_destination("old", Expect::Version(version), &Backlog::Drain).unwrap();
    assert!(engine.destinations().iter().all(|d| d.destination.name != "old"));
    assert_eq!(
        engine.delete_destination("old", Expect::Anything, &Backlog::Drain).unwrap_err().kind(),
        ErrorKind::NotFound
    );
    until("they wait", || waiting(&engine) == 10);
    // The name is free at once, for another queue.
    let r = receiver(Behaviour::Ok204);
    engine.put_destination(hook("old", &r.url()), Expect::Absent, &Backlog::Keep).unwrap();
    let mut again = rule("again", "b", "");
    again.destinations = vec!["old".into()];
    engine.put_rule(again, Expect::Absent).unwrap();
    sized(&engine, 100);
    until("the new one has its own", || numbers(&r, "key-0") == [100]);
    engine.close(Duration::from_millis(200)).unwrap();
    drop(engine);

    old.set_behaviour(Behaviour::Ok204);
    let engine = Engine::open_with(config(dir.path()), configured(vec![hook("hook", &other.url())])).unwrap();
    engine.flush(WAIT).unwrap();
    assert_eq!(numbers(&old, "key-0"), evens(10));
    assert_eq!(numbers(&r, "key-0"), [100]);
    engine.close(WAIT).unwrap();
    drop(engine);
    // What is drained has no lane any more.
    let engine = Engine::open_with(config(dir.path()), configured(vec![hook("hook", &other.url())])).unwrap();
    let names: Vec<String> = engine.stats().destinations.into_iter().map(|d| d.name).collect();
    assert_eq!(names, ["hook", "old"]);
    engine.close(WAIT).unwrap();
}

#[test]
fn what_waits_for_a_deleted_destination_becomes_dead_letters_that_its_successor_can_have() {
    let dir = tempfile::tempdir().unwrap();
    let (other, old) = (receiver(Behaviour::Ok204), refusing());
    let engine = with_backlog(dir.path(), &other, &old);
    engine.delete_rule(Some("b"), "to-old", Expect::Anything).unwrap();
    engine.delete_destination("old", Expect::Anything, &Backlog::DeadLetter).unwrap();
    engine.flush(WAIT).unwrap();
    assert_eq!((engine.stats().dead_letters_kept, engine.stats().dropped), (10, 0));
    let r = receiver(Behaviour::Ok204);
    engine.put_destination(hook("old", &r.url()), Expect::Absent, &Backlog::Keep).unwrap();
    let mut of_old = DeadLetterFilter::default();
    of_old.destination = Some("old".into());
    let done = engine.redrive(&of_old, &RedriveOptions::default()).unwrap().wait(Instant::now() + WAIT).unwrap();
    assert_eq!(done.redriven, 10);
    engine.flush(WAIT).unwrap();
    assert_eq!(numbers(&r, "key-0"), evens(10));
    engine.close(WAIT).unwrap();
}

#[test]
fn what_waits_for_a_deleted_destination_is_purged_counted_and_audited() {
    let dir = tempfile::tempdir().unwrap();
    let (other, old) = (receiver(Behaviour::Ok204), refusing());
    let engine = with_backlog(dir.path(), &other, &old);
    engine.delete_rule(Some("b"), "to-old", Expect::Anything).unwrap();
    engine.delete_destination("old", Expect::Anything, &Backlog::Purge).unwrap();
    engine.flush(WAIT).unwrap();
    let stats = engine.stats();
    assert_eq!((stats.dropped, stats.waiting, stats.dead_letters_kept), (10, 0, 0));
    let counts = engine.loss_counts();
    assert!(counts.iter().any(|l| l.reason == LossReason::Removed && l.count == 10), "{counts:?}");
    engine.close(WAIT).unwrap();
    drop(engine);
    let engine = Engine::open_with(config(dir.path()), configured(vec![hook("hook", &other.url())])).unwrap();
    assert_eq!(waiting(&engine), 0);
    engine.close(WAIT).unwrap();
}

#[test]
fn what_waits_for_a_deleted_destination_moves_before_what_comes_later() {
    let dir = tempfile::tempdir().unwrap();
    let (other, old) = (receiver(Behaviour::Ok204), refusing());
    let engine = with_backlog(dir.path(), &other, &old);
    for to in ["old", "nowhere"] {
        let moved = Backlog::MoveTo(to.into());
        engine.delete_destination("old", Expect::Anything, &moved).unwrap_err();
    }
    // From now on the rule sends to the other one, which waits for what is to be moved.
    engine.put_rule(rule("to-old", "b", ""), Expect::Anything).unwrap();
    engine.delete_destination("old", Expect::Anything, &Backlog::MoveTo("hook".into())).unwrap();
    for n in 10..20 {
        sized(&engine, n);
    }
    engine.flush(WAIT).unwrap();
    assert_eq!(numbers(&other, "key-0"), evens(20));
    engine.close(WAIT).unwrap();
}

#[test]
fn a_changed_destination_takes_its_backlog_along_or_leaves_it() {
    let dir = tempfile::tempdir().unwrap();
    let (other, old) = (receiver(Behaviour::Ok204), refusing());
    let r = receiver(Behaviour::Ok204);
    // Kept: what waits goes to the new address.
    let engine = with_backlog(dir.path(), &other, &old);
    let v = engine.destinations().into_iter().find(|d| d.destination.name == "old").unwrap().version;
    assert_eq!(
        engine.put_destination(hook("old", &r.url()), Expect::Version(v + 1), &Backlog::Keep).unwrap_err().kind(),
        ErrorKind::Conflict
    );
    engine.put_destination(hook("old", &r.url()), Expect::Version(v), &Backlog::Keep).unwrap();
    engine.flush(WAIT).unwrap();
    assert_eq!(numbers(&r, "key-0"), evens(10));
    // Left, as dead letters: the new one begins with what is new.
    engine.put_destination(hook("old", &old.url()), Expect::Anything, &Backlog::Keep).unwrap();
    (10..20).for_each(|n| sized(&engine, n));
    let second = receiver(Behaviour::Ok204);
    engine.put_destination(hook("old", &second.url()), Expect::Anything, &Backlog::DeadLetter).unwrap();
    (20..30).for_each(|n| sized(&engine, n));
    engine.flush(WAIT).unwrap();
    assert_eq!(numbers(&second, "key-0"), [20, 22, 24, 26, 28]);
    assert_eq!(engine.stats().dead_letters_kept, 10);
    // The rule that sends there is still what it was, after a restart too.
    engine.close(WAIT).unwrap();
    drop(engine);
    let engine = Engine::open_with(config(dir.path()), configured(vec![hook("hook", &other.url())])).unwrap();
    sized(&engine, 30);
    engine.flush(WAIT).unwrap();
    assert_eq!(numbers(&second, "key-0"), [20, 22, 24, 26, 28, 30]);
    engine.close(WAIT).unwrap();
}

#[test]
fn what_the_rules_cost_and_want_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let r = receiver(Behaviour::Ok204);
    let engine = open(dir.path(), &r);
    assert_eq!(engine.rules_stats().evaluation_ns, None);
    engine.put_rule(rule("a", "b", "a/"), Expect::Anything).unwrap();
    engine.put_rule(rule("every", "b", ""), Expect::Anything).unwrap();
    let before = engine.rules_stats();
    for n in 0..100 {
        publish(&engine, "b", &format!("a/{n}"));
        publish(&engine, "b", &format!("b/{n}"));
        publish(&engine, "b", &format!("c/{n}"));
    }
    engine.flush(WAIT).unwrap();
    let matched = |id: &str| engine.rule(Some("b"), id).unwrap().matched();
    assert_eq!((matched("a"), matched("every")), (100, 300));
    let s = engine.rules_stats();
    assert_eq!((s.rules, s.inactive, s.destinations, s.evaluations - before.evaluations), (2, 0, 1, 300));
    assert!(s.evaluation_ns.is_some_and(|ns| ns > 0.0) && s.index_bytes > 0 && s.build_time > Duration::ZERO);
    // The counts of a rule outlive a change of it, and those of one that is gone are not another's.
    engine.put_rule(rule("a", "b", "c/"), Expect::Anything).unwrap();
    engine.delete_rule(Some("b"), "every", Expect::Anything).unwrap();
    engine.put_rule(rule("new", "b", "b/"), Expect::Anything).unwrap();
    assert_eq!((matched("a"), matched("new")), (100, 0));
    let s = engine.rules_stats();
    assert!(s.version > before.version && s.builds == before.builds + 3);
    engine.close(WAIT).unwrap();
}

/// So fast that a shard hears of the destination, the rule and the end of both at once.
#[test]
fn a_destination_that_came_and_went_at_once_has_what_was_published_between() {
    let dir = tempfile::tempdir().unwrap();
    let old = refusing();
    let mut c = config(dir.path());
    c.rules = RulesKept::Host;
    let engine = Engine::open_with(c, configured(vec![hook("hook", &old.url())])).unwrap();
    for n in 0..100 {
        let name = format!("d{n}");
        engine.put_destination(hook(&name, &old.url()), Expect::Absent, &Backlog::Keep).unwrap();
        let mut to = rule("to", "b", "");
        to.destinations = vec![name.clone()];
        engine.put_rule(to, Expect::Absent).unwrap();
        sized(&engine, 0);
        sized(&engine, 1);
        engine.delete_rule(Some("b"), "to", Expect::Anything).unwrap();
        engine.delete_destination(&name, Expect::Anything, &Backlog::Purge).unwrap();
    }
    engine.flush(WAIT).unwrap();
    let stats = engine.stats();
    assert_eq!((stats.routed, stats.dropped, stats.waiting), (200, 200, 0));
    engine.close(WAIT).unwrap();
}

#[test]
fn a_destination_that_cannot_be_stored_keeps_its_backlog() {
    let dir = tempfile::tempdir().unwrap();
    let (other, old) = (receiver(Behaviour::Ok204), refusing());
    let engine = with_backlog(dir.path(), &other, &old);
    until("they wait", || waiting(&engine) == 10);
    let (journal, elsewhere) = (dir.path().join("rules.journal"), dir.path().join("elsewhere"));
    std::fs::rename(&journal, &elsewhere).unwrap();
    std::fs::create_dir(&journal).unwrap();
    let changed = hook("old", &other.url());
    engine.put_destination(changed, Expect::Anything, &Backlog::DeadLetter).unwrap_err();
    std::fs::remove_dir(&journal).unwrap();
    std::fs::rename(&elsewhere, &journal).unwrap();
    engine.close(Duration::from_millis(200)).unwrap();
    drop(engine);
    old.set_behaviour(Behaviour::Ok204);
    let engine = Engine::open_with(config(dir.path()), configured(vec![hook("hook", &other.url())])).unwrap();
    engine.flush(WAIT).unwrap();
    assert_eq!((numbers(&old, "key-0"), engine.stats().dead_letters_kept), (evens(10), 0));
    engine.close(WAIT).unwrap();
}

#[test]
fn a_rule_that_is_put_is_held_to_the_limits_and_one_that_goes_makes_room() {
    let dir = tempfile::tempdir().unwrap();
    let r = receiver(Behaviour::Ok204);
    let mut c = config(dir.path());
    c.filter.rules_per_bucket_max = 2;
    let engine = Engine::open_with(c, configured(vec![hook("hook", &r.url())])).unwrap();
    for id in ["a", "b"] {
        engine.put_rule(rule(id, "b", ""), Expect::Absent).unwrap();
    }
    let e = engine.put_rule(rule("c", "b", ""), Expect::Absent).unwrap_err();
    assert!(e.kind() == ErrorKind::InvalidConfig && e.to_string().contains("rules_per_bucket_max"), "{e}");
    engine.put_rule(rule("a", "b", "changed/"), Expect::Anything).unwrap();
    engine.put_rule(rule("c", "other", ""), Expect::Absent).unwrap();
    engine.delete_rule(Some("b"), "a", Expect::Anything).unwrap();
    engine.put_rule(rule("c", "b", ""), Expect::Absent).unwrap();
    engine.put_rule(rule("d", "b", ""), Expect::Absent).unwrap_err();
    assert_eq!(engine.rules().len(), 3);
    engine.close(WAIT).unwrap();
}

#[test]
fn a_destination_that_was_just_put_can_be_looked_after_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let r = receiver(Behaviour::Ok204);
    let engine = open(dir.path(), &r);
    // The first thing that is asked of an engine.
    engine.suspend_destination("hook").unwrap();
    assert_eq!(engine.destination_standing("hook").unwrap().state, State::Suspended);
    for n in 0..100 {
        let name = format!("d{n}");
        engine.put_destination(hook(&name, &r.url()), Expect::Absent, &Backlog::Keep).unwrap();
        engine.suspend_destination(&name).unwrap();
        assert_eq!(engine.destination_standing(&name).unwrap().state, State::Suspended);
        engine.delete_destination(&name, Expect::Anything, &Backlog::Purge).unwrap();
        for gone in [engine.resume_destination(&name), engine.destination_standing(&name).map(drop)] {
            assert_eq!(gone.unwrap_err().kind(), ErrorKind::NotFound);
        }
    }
    engine.close(WAIT).unwrap();
}
