use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::event::profile::Profile;
use crate::event::{Event, EventPattern, EventType, EventTypes, FrameView, KnownType, frame};
use crate::filter::Filter;
use crate::log::record::Route;
use crate::rule::{Destination, DestinationKind, Webhook};
use crate::shard::snapshot::{Everywhere, Scratch};

fn names(dir: &tempfile::TempDir) -> Names {
    crate::log::recovery::DataDir::open(dir.path(), Some(1), 1).unwrap().names
}

fn hook(name: &str) -> Destination {
    Destination::new(name, DestinationKind::Webhook(Webhook::new("http://127.0.0.1:9/").unwrap()))
}

fn rule(id: &str, destinations: &[&str]) -> Rule {
    let rule = Rule::new(id, ["s3:ObjectCreated:*"], &EventTypes::default()).unwrap();
    destinations.iter().fold(rule, |rule, d| rule.with_destination(*d))
}

fn set(rules: Vec<Rule>, destinations: Vec<Destination>) -> RuleSet {
    RuleSet::build(rules, destinations, EventTypes::default()).unwrap()
}

struct Live {
    control: Control,
    names: Names,
    _dir: tempfile::TempDir,
}

impl Live {
    fn open(set: RuleSet) -> Live {
        let dir = tempfile::tempdir().unwrap();
        let mut names = names(&dir);
        let config = EngineConfig::new(dir.path());
        let (control, _) = Control::open(set, Vec::new(), None, &config, &mut names).unwrap();
        Live { control, names, _dir: dir }
    }

    fn edit(&mut self, owner: Owner, edit: impl FnOnce(&LiveRules) -> Edit) -> Result<u64> {
        let edit = edit(&self.control.live);
        self.control.edit(owner, edit, &mut self.names)?;
        Ok(self.control.live.version())
    }

    fn put(&mut self, rule: Rule) -> Result<u64> {
        self.edit(Owner::Callers, |_| edit([(key(rule.bucket.as_deref(), &rule.id), Some(rule))]))
    }

    fn get(&self, owner: Owner, id: &str) -> Arc<LiveRule> {
        self.control.live.get(owner, &key(None, id)).unwrap().clone()
    }

    /// The destinations and rules of an event, by name.
    fn told(&mut self, bucket: &str, key: &str) -> Vec<(String, String)> {
        let snapshot = self.control.snapshot(&self.names);
        let event = Event::new(KnownType::ObjectCreatedPut.into(), bucket, key.as_bytes());
        let bytes = frame::encode_to_vec(&event, 1);
        let mut routes: Vec<Route> = Vec::new();
        snapshot.routes(&FrameView::parse(&bytes).unwrap(), &mut Scratch::default(), &mut routes);
        let named = |r: &Route| {
            let name = snapshot.destination(r.destination).unwrap().name.clone();
            (name, snapshot.rule_id(r.rule).to_owned())
        };
        routes.iter().map(named).collect()
    }
}

fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
}

#[test]
fn a_destination_hears_once_unless_a_rule_repeats() {
    let mut rules = vec![rule("one", &["b", "a"]), rule("two", &["a"]), rule("three", &["a"])];
    rules[1].filter = Filter::new("x", "");
    rules[2].filter = Filter::new("y", "");
    rules[2].repeat = true;
    let mut live = Live::open(set(rules, vec![hook("a"), hook("b")]));
    assert_eq!(live.told("any", "x"), pairs(&[("a", "one"), ("b", "one")]));
    assert_eq!(live.told("any", "y"), pairs(&[("a", "one"), ("a", "three"), ("b", "one")]));
}

#[test]
fn a_rule_is_asked_only_for_what_its_destinations_have_records_for_and_is_given_back_whole() {
    let mut plain = hook("plain");
    plain.profile = Profile::Aws;
    let mut every = Rule::new("every", ["*"], &EventTypes::default()).unwrap().with_destination("plain");
    let mut live = Live::open(set(vec![], vec![plain]));
    live.put(every.clone()).unwrap();
    let snapshot = live.control.snapshot(&live.names);
    assert!(snapshot.interested("b", KnownType::ObjectCreatedPut.into()));
    assert!(!snapshot.interested("", crate::EventType::parse("System:Health:Degraded").unwrap()));
    assert_eq!(live.get(Owner::Callers, "every").rule(), every);
    every.retain = true;
    assert!(live.put(every).unwrap_err().to_string().contains("the log is not kept"));
}

#[test]
fn versions_grow_and_a_rule_that_says_the_same_keeps_its_own() {
    let mut live = Live::open(set(vec![rule("c", &["a"])], vec![hook("a")]));
    let first = live.put(rule("r", &["a"])).unwrap();
    let second = live.put(rule("s", &["a"])).unwrap();
    assert!(second > first);
    let third = live.put(rule("r", &["a"])).unwrap();
    assert!(third == second && live.get(Owner::Callers, "r").version() == first);
    live.put(rule("r", &["a"]).with_bucket("other")).unwrap();
    assert_eq!(live.get(Owner::Callers, "r").version(), first);
    let changed = live.put(rule("r", &["a"]).with_filter(Filter::new("p", ""))).unwrap();
    assert_eq!(live.get(Owner::Callers, "r").version(), changed);
}

#[test]
fn what_the_caller_expects_must_be_so() {
    let mut live = Live::open(set(vec![], vec![hook("a")]));
    let r = key(None, "r");
    let check = |live: &Live, expect| live.control.live.check_rule(&r, expect).map_err(|e| (e.kind(), e.to_string()));
    check(&live, Expect::Absent).unwrap();
    check(&live, Expect::Anything).unwrap();
    let (kind, text) = check(&live, Expect::Version(3)).unwrap_err();
    assert!(kind == ErrorKind::Conflict && text.contains("rule `r`") && text.contains("not there"), "{text}");
    let version = live.put(rule("r", &["a"])).unwrap();
    check(&live, Expect::Version(version)).unwrap();
    assert!(check(&live, Expect::Absent).unwrap_err().1.contains(&version.to_string()));
    assert!(check(&live, Expect::Version(version + 1)).unwrap_err().1.contains("not"));
}

#[test]
fn a_bad_rule_changes_nothing() {
    let mut live = Live::open(set(vec![rule("c", &["a"])], vec![hook("a")]));
    live.put(rule("r", &["a"])).unwrap();
    let before = live.told("b", "k");
    let version = live.control.live.version();
    for bad in [rule("", &["a"]), rule("r", &["nobody"]), rule("r", &["a", "a"]), rule("r", &[]), rule("c", &["a"])] {
        live.put(bad).unwrap_err();
    }
    assert_eq!((live.told("b", "k"), live.control.live.version()), (before, version));
}

/// One unknown target made the whole set unusable in another system; here it takes one rule out of force.
#[test]
fn a_rule_whose_destination_goes_is_out_of_force_until_it_comes_back_and_the_others_are_not() {
    let both = || vec![hook("a"), hook("b")];
    let mut live = Live::open(set(vec![], both()));
    live.put(rule("to-a", &["a"])).unwrap();
    let version = live.put(rule("to-b", &["b"])).unwrap();
    live.edit(Owner::Configuration, |l| l.configuring(set(vec![], vec![hook("a")]))).unwrap();
    assert_eq!(live.told("x", "k"), pairs(&[("a", "to-a")]));
    let b = live.get(Owner::Callers, "to-b");
    assert!(b.inactive().unwrap().to_string().contains("unknown destination `b`"));
    assert_eq!(b.version(), version);
    // Others may change meanwhile.
    live.put(rule("more", &["a"])).unwrap();
    live.edit(Owner::Configuration, |l| l.configuring(set(vec![], both()))).unwrap();
    assert_eq!(live.told("x", "k"), pairs(&[("a", "to-a"), ("b", "to-b")]));
    assert!(live.get(Owner::Callers, "to-b").inactive().is_none());
}

#[test]
fn the_configuration_comes_before_what_callers_have_put() {
    let mut live = Live::open(set(vec![], vec![hook("a"), hook("b")]));
    live.put(rule("r", &["a"])).unwrap();
    let configured = || set(vec![rule("r", &["b"])], vec![hook("a"), hook("b")]);
    live.edit(Owner::Configuration, |l| l.configuring(configured())).unwrap();
    assert_eq!(live.told("x", "k"), pairs(&[("b", "r")]));
    assert_eq!(live.get(Owner::Callers, "r").inactive().unwrap().kind(), ErrorKind::Conflict);
    assert_eq!(live.put(rule("r", &["a"])).unwrap_err().kind(), ErrorKind::Conflict);
    // In another bucket it is another rule.
    live.put(rule("r", &["a"]).with_bucket("x")).unwrap();
    assert_eq!(live.told("x", "k"), pairs(&[("a", "r"), ("b", "r")]));
    live.edit(Owner::Configuration, |l| l.configuring(set(vec![], vec![hook("a")]))).unwrap();
    assert_eq!(live.told("y", "k"), pairs(&[("a", "r")]));
}

#[test]
fn a_snapshot_in_use_does_not_change() {
    let mut live = Live::open(set(vec![rule("c", &["a"])], vec![hook("a")]));
    let before = live.control.snapshot(&live.names);
    live.edit(Owner::Configuration, |l| l.configuring(set(vec![], vec![]))).unwrap();
    assert!(before.interested("b", KnownType::ObjectCreatedPut.into()) && before.rules.get(0).is_some());
    assert!(live.told("b", "k").is_empty());
}

/// A rule of some bucket or of every one, to some destination.
fn any_rule(seed: u32) -> Rule {
    let to = ["a", "b", "gone"][seed as usize % 3];
    let mut r = rule(&format!("r{}", seed / 3 % 40), &[to]);
    r.bucket = [None, Some("x"), Some("y")][seed as usize / 7 % 3].map(str::to_owned);
    r.filter = Filter::new(format!("{}", seed / 11 % 3), "");
    r
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// However the rules came to be what they are, the events go where the rules say.
    #[test]
    fn changes_come_to_the_same_as_beginning_anew(
        steps in prop::collection::vec((0u8..6, prop::collection::vec(any::<u32>(), 1..40)), 1..12),
    ) {
        let with_gone = || vec![hook("a"), hook("b"), hook("gone")];
        let mut live = Live::open(set(vec![], with_gone()));
        // By owner, bucket and id.
        let mut model: BTreeMap<(Owner, Key), Rule> = BTreeMap::new();
        let mut gone = false;
        for (what, seeds) in steps {
            match what {
                0..3 => for seed in seeds {
                    let r = any_rule(seed);
                    let k = key(r.bucket.as_deref(), &r.id);
                    let refused = model.contains_key(&(Owner::Configuration, k.clone()))
                        || (gone && r.destinations[0] == "gone");
                    prop_assert_eq!(live.put(r.clone()).is_err(), refused);
                    if !refused {
                        model.insert((Owner::Callers, k), r);
                    }
                },
                3 => for seed in seeds {
                    let r = any_rule(seed);
                    let k = key(r.bucket.as_deref(), &r.id);
                    live.edit(Owner::Callers, |_| edit([(k.clone(), None)])).unwrap();
                    model.remove(&(Owner::Callers, k));
                },
                _ => {
                    gone = what == 5;
                    let rules: BTreeMap<Key, Rule> = seeds.iter().map(|s| any_rule(*s))
                        .filter(|r| !gone || r.destinations[0] != "gone")
                        .map(|r| (key(r.bucket.as_deref(), &r.id), r)).collect();
                    model.retain(|(owner, _), _| *owner != Owner::Configuration);
                    model.extend(rules.iter().map(|(k, r)| ((Owner::Configuration, k.clone()), r.clone())));
                    let destinations = if gone { vec![hook("a"), hook("b")] } else { with_gone() };
                    let configured = set(rules.into_values().collect(), destinations);
                    live.edit(Owner::Configuration, |l| l.configuring(configured)).unwrap();
                }
            }
            if let Some(merge) = live.control.compiler.begin_merge() {
                let merged = merge.compile(live.control.live.table()).unwrap();
                drop(live.control.compiler.end_merge(merged).unwrap());
            }
            for (bucket, object) in [("x", "0"), ("y", "1/2"), ("z", "2")] {
                let event = Event::new(KnownType::ObjectCreatedPut.into(), bucket, object.as_bytes());
                let bytes = frame::encode_to_vec(&event, 1);
                let view = FrameView::parse(&bytes).unwrap();
                let mut expected: Vec<String> = model
                    .iter()
                    .filter(|((owner, k), r)| {
                        let shadowed = model.contains_key(&(Owner::Configuration, k.clone()));
                        let in_force = *owner == Owner::Configuration || !shadowed;
                        let to = &r.destinations[0];
                        let here = r.bucket.as_deref().is_none_or(|b| b == bucket);
                        in_force && here && !(gone && to == "gone") && r.filter.matches_frame(view)
                    })
                    .map(|(_, r)| r.destinations[0].clone())
                    .collect();
                expected.sort();
                expected.dedup();
                let mut told: Vec<String> = live.told(bucket, object).into_iter().map(|(d, _)| d).collect();
                told.sort();
                prop_assert_eq!(told, expected, "{} {}", bucket, object);
            }
            prop_assert_eq!(live.control.live.len(), model.len());
        }
    }
}

#[test]
fn what_every_bucket_wants_follows_the_rules() {
    let mut live = Live::open(set(vec![], vec![hook("a")]));
    let everywhere = Everywhere::of(&live.control.snapshot(&live.names));
    let one = |id: &str, events: &str| Rule::new(id, [events], &EventTypes::default()).unwrap().with_destination("a");
    let mut own = one("own", "*");
    own.bucket = Some("b".into());
    let check = |live: &mut Live, patterns: &[&str]| {
        let snapshot = live.control.snapshot(&live.names);
        everywhere.follow(&snapshot);
        let wanted = patterns.iter().map(|p| EventPattern::parse([*p], &EventTypes::default()).unwrap());
        let wanted: Vec<EventPattern> = wanted.collect();
        for t in KnownType::ALL.iter().map(|t| EventType::Known(*t)) {
            assert_eq!(everywhere.wants(t), wanted.iter().any(|p| p.contains(t)), "{t:?}");
            assert!(!everywhere.wants(t) || snapshot.interested("any", t));
        }
        assert!(!everywhere.wants(EventType::Custom("acme:Scan:Clean")));
    };
    check(&mut live, &[]);
    live.put(own).unwrap();
    check(&mut live, &[]);
    live.put(one("created", "s3:ObjectCreated:*")).unwrap();
    check(&mut live, &["s3:ObjectCreated:*"]);
    live.put(one("removed", "s3:ObjectRemoved:*")).unwrap();
    check(&mut live, &["s3:ObjectCreated:*", "s3:ObjectRemoved:*"]);
    live.edit(Owner::Callers, |_| edit([(key(None, "created"), None)])).unwrap();
    check(&mut live, &["s3:ObjectRemoved:*"]);
}
