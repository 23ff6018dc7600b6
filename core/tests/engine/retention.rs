//! What stays in the log after it was delivered, and for how long.

use std::time::Duration;

use crate::common::*;
use tidewire::config::{Config, Keep};
use tidewire::event::EventTypes;
use tidewire::filter::Filter;
use tidewire::log::reader::ReadFrom;
use tidewire::rule::{Rule, RuleSet};
use tidewire::{Engine, ErrorKind, Event, KnownType, Published};
use tidewire_receiver::Behaviour;

#[test]
fn an_event_that_no_destination_wants_is_kept_by_a_rule_and_survives() {
    let dir = tempfile::tempdir().unwrap();
    let r = receiver(Behaviour::Ok204);
    let types = EventTypes::default();
    let mut keeper = Rule::new("keep", ["s3:ObjectCreated:*"], &types).unwrap().with_filter(Filter::new("keep/", ""));
    keeper.retain = true;
    let deliver = Rule::new("out", ["s3:ObjectCreated:*"], &types)
        .unwrap()
        .with_filter(Filter::new("", ".jpg"))
        .with_destination("hook");
    let rules = || RuleSet::build(vec![keeper.clone(), deliver.clone()], vec![hook("hook", &r.url())], types.clone());
    let engine = open(dir.path(), 1, rules().unwrap());
    for key in ["keep/a", "keep/b.jpg", "c.jpg", "nobody"] {
        put(&engine, key, 1);
    }
    engine.flush(WAIT).unwrap();
    let s = engine.stats();
    assert_eq!((s.accepted, s.stored, s.routed, s.delivered, s.no_match, s.waiting), (4, 3, 2, 2, 1, 0));
    engine.close(WAIT).unwrap();
    let (entries, gaps) = read_all(dir.path(), ReadFrom::Beginning);
    assert_eq!((keys(&entries), gaps), (vec!["keep/a".into(), "keep/b.jpg".into(), "c.jpg".into()], vec![]));
    // Nothing of it is delivered when the engine opens again.
    let engine = open(dir.path(), 1, rules().unwrap());
    put(&engine, "d.jpg", 1);
    engine.flush(WAIT).unwrap();
    engine.close(WAIT).unwrap();
    assert_eq!(r.records().len(), 3);
    assert_eq!(read_all(dir.path(), ReadFrom::Beginning).0.len(), 4);
}

#[test]
fn everything_is_kept_if_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let mut c = config(dir.path(), 2);
    c.retention.keep = Keep::All;
    let engine = Engine::open_with(c, passing(vec![])).unwrap();
    assert!(engine.is_interested("any", KnownType::ObjectTaggingPut.into()));
    for n in 0..10 {
        let key = format!("k{n}");
        let event = Event::new(KnownType::ObjectTaggingPut.into(), "bucket", key.as_bytes());
        assert_eq!(engine.publish(&event).unwrap(), Published::Accepted);
    }
    // Changed rules do not change that.
    engine.replace_rules(passing(vec![hook("hook", "http://127.0.0.1:9/")])).unwrap();
    engine.replace_rules(passing(vec![])).unwrap();
    engine.publish(&Event::new(KnownType::SystemHealthOk.into(), "", b"disk1")).unwrap();
    engine.close(WAIT).unwrap();
    assert_eq!(read_all(dir.path(), ReadFrom::Beginning).0.len(), 11);
}

#[test]
fn without_retention_nothing_stays() {
    let dir = tempfile::tempdir().unwrap();
    let r = receiver(Behaviour::Ok204);
    let mut c = config(dir.path(), 1);
    c.retention.keep = Keep::Nothing;
    let engine = Engine::open_with(c, passing(vec![hook("hook", &r.url())])).unwrap();
    put(&engine, "k", 1);
    engine.flush(WAIT).unwrap();
    engine.close(WAIT).unwrap();
    assert!(segments(dir.path()).is_empty());
}

#[test]
fn the_oldest_segments_go_when_the_log_is_larger_than_allowed() {
    let dir = tempfile::tempdir().unwrap();
    let mut c = config(dir.path(), 1);
    c.retention.bytes_max = Some(4 << 20);
    let engine = Engine::open_with(c, kept(vec![])).unwrap();
    for n in 0..3000 {
        put_large(&engine, &format!("k{n}"), n);
    }
    sync(&engine);
    until("old segments are gone", || segments(dir.path()).len() <= 4);
    engine.close(WAIT).unwrap();
    let (entries, gaps) = read_all(dir.path(), ReadFrom::Sequence(100));
    assert_eq!(gaps.len(), 1, "who wants what is gone is told");
    assert_eq!(entries.len() as u64 + gaps[0].sequences(), 3000 - 99);
    assert!(entries.len() > 200, "{}", entries.len());
}

#[test]
fn segments_go_when_they_are_too_old_even_if_nothing_happens() {
    let dir = tempfile::tempdir().unwrap();
    let mut c = config(dir.path(), 1);
    c.retention.age_max = Some(Duration::from_secs(1));
    let engine = Engine::open_with(c, kept(vec![])).unwrap();
    let begun = std::time::Instant::now();
    for n in 0..1000 {
        put_large(&engine, &format!("k{n}"), n);
    }
    sync(&engine);
    let there = segments(dir.path()).len();
    assert!(there >= 4 || begun.elapsed() > Duration::from_secs(1), "they stay at first: {there}");
    until("the closed segments are gone", || segments(dir.path()).len() == 1);
    engine.close(WAIT).unwrap();
}

#[test]
fn undelivered_events_stay_whatever_retention_says() {
    let dir = tempfile::tempdir().unwrap();
    let mut c = config(dir.path(), 1);
    (c.retention.age_max, c.retention.bytes_max) = (Some(Duration::from_secs(1)), Some(1 << 20));
    let engine = Engine::open_with(c, kept(vec![hook("dead", "http://127.0.0.1:9/")])).unwrap();
    for n in 0..1000 {
        put_large(&engine, &format!("k{n}"), n);
    }
    sync(&engine);
    std::thread::sleep(Duration::from_millis(2500));
    engine.close(Duration::ZERO).unwrap();
    assert_eq!(read_all(dir.path(), ReadFrom::Beginning).0.len(), 1000);
}

#[test]
fn a_rule_that_retains_needs_a_log_that_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let mut c = config(dir.path(), 1);
    c.retention.keep = Keep::Nothing;
    let e = Engine::open_with(c.clone(), kept(vec![])).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::InvalidConfig);
    assert!(e.to_string().contains("rule `keep`") && e.to_string().contains("[engine.retention]"), "{e}");
    let engine = Engine::open_with(c, passing(vec![])).unwrap();
    assert_eq!(engine.replace_rules(kept(vec![])).unwrap_err().kind(), ErrorKind::InvalidConfig);
    engine.close(WAIT).unwrap();
    let text = "[engine]\ndata_dir = \"d\"\n[[rule]]\nid = \"r\"\nevents = [\"*\"]\nretain = true\n";
    let e = Config::from_toml(text, "t.toml", dir.path()).unwrap_err();
    assert!(e.to_string().starts_with("t.toml:6:10: rule `r`"), "{e}");
}

#[test]
fn an_event_with_several_records_is_one_event() {
    let dir = tempfile::tempdir().unwrap();
    let r = receiver(Behaviour::Ok204);
    let mut twice = everything("again").with_destination("hook");
    twice.repeat = true;
    let rules = vec![everything("first").with_destination("hook"), twice];
    let set = RuleSet::build(rules, vec![hook("hook", &r.url())], EventTypes::default()).unwrap();
    let engine = open(dir.path(), 1, set);
    put(&engine, "k", 1);
    engine.flush(WAIT).unwrap();
    engine.close(WAIT).unwrap();
    assert_eq!((r.records().len(), read_all(dir.path(), ReadFrom::Beginning).0.len()), (2, 1));
}
