//! Which metadata and tags a host has to fetch for an event.

use std::time::Duration;

use tidewire::config::Keep;
use tidewire::event::EventTypes;
use tidewire::event::profile::Choice;
use tidewire::filter::{Field, Filter, Test};
use tidewire::rule::{Destination, Expect, Rule, RuleSet};
use tidewire::{DetailsWanted, Engine, Event, KnownType};

use crate::common::{config, hook};

const NEITHER: DetailsWanted = DetailsWanted { metadata: false, tags: false };
const METADATA: DetailsWanted = DetailsWanted { metadata: true, tags: false };
const TAGS: DetailsWanted = DetailsWanted { metadata: false, tags: true };

fn carrying(name: &str, metadata: Choice, tags: Choice) -> Destination {
    let mut d = hook(name, "http://127.0.0.1:9/");
    (d.format.metadata, d.format.tags) = (metadata, tags);
    d
}

fn rule(bucket: &str, filter: Filter, destination: &str) -> Rule {
    let rule = Rule::new(bucket, ["s3:ObjectCreated:*"], &EventTypes::default()).unwrap();
    rule.with_bucket(bucket).with_filter(filter).with_destination(destination)
}

fn wanted(engine: &Engine, bucket: &str, key: &str) -> DetailsWanted {
    engine.details_wanted(&Event::new(KnownType::ObjectCreatedPut.into(), bucket, key.as_bytes())).unwrap()
}

#[test]
fn what_a_rule_looks_at_or_a_destination_carries_is_wanted() {
    let dir = tempfile::tempdir().unwrap();
    let destinations = vec![
        carrying("bare", Choice::None, Choice::None),
        carrying("tagged", Choice::None, Choice::only(["colour"])),
        carrying("full", Choice::All, Choice::All),
    ];
    let tag = Filter::Is(Field::Tag("colour".into()), Test::Equals((*b"blue").into()));
    let metadata = Filter::Is(Field::Metadata("owner".into()), Test::Exists);
    let image = Filter::new("img/", "");
    let rules = vec![
        rule("bare", image.clone(), "bare"),
        rule("by-tag", Filter::all([image.clone(), tag.clone()]), "bare"),
        rule("by-metadata", Filter::any([tag.clone(), metadata.clone().not()]), "bare"),
        rule("no-metadata", Filter::all([image.clone(), metadata.not()]), "bare"),
        rule("tagged", image.clone(), "tagged"),
        rule("full", image, "full"),
    ];
    let rules = RuleSet::build(rules, destinations, EventTypes::default()).unwrap();
    let engine = Engine::open_with(config(dir.path(), 1), rules).unwrap();
    for (bucket, expected) in [
        ("bare", NEITHER),
        ("by-tag", TAGS),
        ("by-metadata", DetailsWanted::ALL),
        ("no-metadata", METADATA),
        ("tagged", TAGS),
        ("full", DetailsWanted::ALL),
        ("no-rule", NEITHER),
    ] {
        assert_eq!(wanted(&engine, bucket, "img/1"), expected, "{bucket}");
        let elsewhere = if bucket == "by-metadata" { expected } else { NEITHER };
        assert_eq!(wanted(&engine, bucket, "doc/1"), elsewhere, "{bucket}: a key that its rule does not want");
    }
    let removed = Event::new(KnownType::ObjectRemovedDelete.into(), "full", b"img/1");
    assert_eq!(engine.details_wanted(&removed).unwrap(), NEITHER, "a type that no rule wants");
    // Several rules want what any of them does, and changed ones what they want now.
    let all = Rule { id: "all".into(), ..rule("tagged", Filter::default(), "bare") };
    engine.put_rule(Rule { filter: tag, ..all.clone() }, Expect::Absent).unwrap();
    assert_eq!((wanted(&engine, "tagged", "img/1"), wanted(&engine, "tagged", "doc/1")), (TAGS, TAGS));
    engine.put_rule(all, Expect::Anything).unwrap();
    assert_eq!((wanted(&engine, "tagged", "img/1"), wanted(&engine, "tagged", "doc/1")), (TAGS, NEITHER));
}

#[test]
fn what_is_kept_is_kept_whole() {
    let dir = tempfile::tempdir().unwrap();
    let keep = |keep| {
        let mut c = config(dir.path(), 1);
        (c.retention.keep, c.retention.age_max) = (keep, Some(Duration::from_secs(3600)));
        c
    };
    let rules = || {
        let kept = Rule { retain: true, ..rule("kept", Filter::new("img/", ""), "bare") };
        let bare = rule("bare", Filter::default(), "bare");
        let d = carrying("bare", Choice::None, Choice::None);
        RuleSet::build(vec![kept, bare], vec![d], EventTypes::default()).unwrap()
    };
    let engine = Engine::open_with(keep(Keep::Rules), rules()).unwrap();
    assert_eq!(wanted(&engine, "kept", "img/1"), DetailsWanted::ALL);
    assert_eq!((wanted(&engine, "kept", "doc/1"), wanted(&engine, "bare", "img/1")), (NEITHER, NEITHER));
    drop(engine);
    let engine = Engine::open_with(keep(Keep::All), rules()).unwrap();
    assert_eq!((wanted(&engine, "bare", "x"), wanted(&engine, "none", "x")), (DetailsWanted::ALL, DetailsWanted::ALL));
}
