//! The rules and destinations of a running engine: each with a version, and changed one by one.
//!
//! A change is first planned, which alters nothing and may fail, and then taken: between the two it is written down and
//! compiled. Nothing here does I/O.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use indexmap::IndexMap;

use super::set::{DestinationsByName, check_dead_letter_to, check_rule};
use super::{Destination, Order, Rule, RuleSet, suggest};
use crate::error::{Error, ErrorKind, Result};
use crate::event::profile::Profile;
use crate::event::{EventPattern, EventTypes, Priority};
use crate::filter::{Filter, FilterLimits, FilterUsage, Rules};
use crate::table::Table;

/// The most rules of one engine.
pub(crate) const RULES_MAX: usize = 1_000_000;
/// The most destinations of one engine. Each has a lane on every shard.
pub(super) const DESTINATIONS_MAX: usize = 16_384;

/// Who a rule or destination belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Owner {
    /// The configuration: the file, or what the host gave when it opened the engine. Changed by replacing that as a whole.
    Configuration,
    /// The callers of [`crate::Engine::put_rule`] and the like.
    Callers,
    /// The engine itself, which keeps events for consumers.
    Engine,
}

/// What must be true of what is there for a change to be made (compare-and-swap).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum Expect {
    /// Nothing.
    #[default]
    Anything,
    /// There is nothing of that name.
    Absent,
    /// It is there, and has this version.
    Version(u64),
}

/// What becomes of what waits for a destination that is removed, or changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[non_exhaustive]
pub enum Backlog {
    /// It goes on to the destination as it is from now on. Of one that is removed: the same as [`Backlog::Drain`].
    #[default]
    Keep,
    /// It is delivered with the settings of before.
    Drain,
    /// It becomes dead letters.
    DeadLetter,
    /// It is dropped, counted and audited ([`crate::LossReason::Removed`]).
    Purge,
    /// It goes to another destination, before what that one gets from now on. Events that both had arrive there twice, with
    /// the same id. Neither may have one order for all its events ([`Order::Strict`]).
    MoveTo(String),
}

/// A destination that is gone, as far as something may wait for it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Retired {
    pub(crate) name: String,
    pub(crate) backlog: Backlog,
    /// The settings that it had; `None` if they are not known any more.
    pub(crate) settings: Option<Arc<Destination>>,
}

/// A rule of a running engine.
#[derive(Debug)]
pub struct LiveRule {
    /// With the event types that its destinations have records for.
    narrowed: Rule,
    /// The event types as they were given, if they are others.
    given: Option<EventPattern>,
    pub(crate) version: u64,
    pub(crate) owner: Owner,
    /// Its number in the log.
    pub(crate) number: u32,
    pub(crate) targets: Box<[Target]>,
    inactive: Option<Error>,
    /// Shared with the rule of the same name that was here before.
    matched: Arc<AtomicU64>,
}

/// Where a rule sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) destination: u32,
    pub(crate) profile: Profile,
}

impl LiveRule {
    fn new(
        mut rule: Rule,
        owner: Owner,
        version: u64,
        number: u32,
        inactive: Option<Error>,
        destinations: &LiveDestinations,
    ) -> LiveRule {
        let target = |name: &String| {
            let d = destinations.by_name(name)?;
            Some(Target { destination: d.number, profile: d.destination.profile })
        };
        let targets: Box<[Target]> = rule.destinations.iter().filter_map(target).collect();
        let mut given = None;
        // A wildcard asks for what the destinations' profiles have records for; the gate shall refuse the rest.
        if !rule.retain && inactive.is_none() {
            let before = rule.events.clone();
            rule.events.retain(|t| targets.iter().any(|target| target.profile.expressible(t)));
            given = Some(before).filter(|before| *before != rule.events);
        }
        LiveRule { narrowed: rule, given, version, owner, number, targets, inactive, matched: Arc::default() }
    }

    /// Whether there is no difference.
    fn is_same(&self, other: &LiveRule) -> bool {
        let reason = |r: &LiveRule| r.inactive.as_ref().map(ToString::to_string);
        self.narrowed == other.narrowed
            && self.given == other.given
            && (self.version, self.owner, self.number) == (other.version, other.owner, other.number)
            && self.targets == other.targets
            && reason(self) == reason(other)
    }

    /// The rule as it was given, to be looked at, or changed and put again. What it was in a document is left out, for that
    /// would be wrong of a changed one.
    pub fn rule(&self) -> Rule {
        Rule { document: None, ..self.whole() }
    }

    /// The same with what it was in a document.
    pub(crate) fn whole(&self) -> Rule {
        let mut rule = self.narrowed.clone();
        if let Some(events) = &self.given {
            rule.events.clone_from(events);
        }
        rule
    }

    /// Its name.
    pub fn id(&self) -> &str {
        &self.narrowed.id
    }

    /// Its bucket; `None` is every bucket.
    pub fn bucket(&self) -> Option<&str> {
        self.narrowed.bucket.as_deref()
    }

    /// The version that it has had since it was changed last.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Who it belongs to.
    pub fn owner(&self) -> Owner {
        self.owner
    }

    /// Why it is not in force, if it is not: its destination is gone, the configuration has a rule of the same id, or the
    /// like. It comes into force when that is mended.
    pub fn inactive(&self) -> Option<&Error> {
        self.inactive.as_ref()
    }

    /// How many events it has wanted in this run.
    pub fn matched(&self) -> u64 {
        self.matched.load(Ordering::Relaxed)
    }

    /// It has wanted so many more.
    pub(crate) fn add_matched(&self, events: u32) {
        self.matched.fetch_add(events.into(), Ordering::Relaxed);
    }

    pub(crate) fn priority(&self) -> Option<Priority> {
        self.narrowed.priority
    }

    pub(crate) fn repeats(&self) -> bool {
        self.narrowed.repeat
    }

    pub(crate) fn retains(&self) -> bool {
        self.narrowed.retain
    }

    pub(crate) fn filter(&self) -> &Filter {
        &self.narrowed.filter
    }
}

/// Rules by place.
pub(crate) type RuleTable = Table<Arc<LiveRule>>;

impl Rules for RuleTable {
    fn rule(&self, place: u32) -> Option<&Rule> {
        self.get(place).filter(|r| r.inactive.is_none()).map(|r| &r.narrowed)
    }
}

/// A destination of a running engine.
#[derive(Clone, Debug)]
pub struct LiveDestination {
    /// Its settings.
    pub destination: Arc<Destination>,
    /// The version that it has had since it was changed last.
    pub version: u64,
    /// Who it belongs to.
    pub owner: Owner,
    /// Its number in the log.
    pub(crate) number: u32,
    /// Why it is not in force, if it is not.
    pub inactive: Option<Error>,
}

/// The destinations of a running engine.
#[derive(Clone, Debug, Default)]
pub(crate) struct LiveDestinations {
    /// Those in force.
    by_number: BTreeMap<u32, Arc<Destination>>,
    by_name: BTreeMap<String, LiveDestination>,
    /// Those of callers that are not in force, because the configuration has one of the same name.
    inactive: BTreeMap<String, LiveDestination>,
    /// Those that are gone, by number.
    retired: BTreeMap<u32, Retired>,
}

impl DestinationsByName for LiveDestinations {
    fn destination(&self, name: &str) -> Option<&Destination> {
        self.by_name.get(name).map(|d| &*d.destination)
    }

    fn names(&self) -> Vec<&str> {
        self.by_name.keys().map(String::as_str).collect()
    }
}

impl LiveDestinations {
    /// The destination of a number.
    pub(crate) fn get(&self, number: u32) -> Option<&Arc<Destination>> {
        self.by_number.get(&number)
    }

    pub(crate) fn retired(&self) -> &BTreeMap<u32, Retired> {
        &self.retired
    }

    /// What is done with what waits for a destination, in force or gone: with which settings it is delivered, if it is.
    pub(crate) fn settings(&self, number: u32) -> Option<Arc<Destination>> {
        if let Some(d) = self.by_number.get(&number) {
            return Some(d.clone());
        }
        let gone = self.retired.get(&number)?;
        match &gone.backlog {
            Backlog::Keep | Backlog::Drain => gone.settings.clone(),
            Backlog::MoveTo(name) => self.by_name.get(name).map(|d| d.destination.clone()),
            Backlog::DeadLetter | Backlog::Purge => None,
        }
    }

    /// The destinations that are gone whose backlog goes to this one.
    pub(crate) fn moved_to(&self, number: u32) -> Vec<u32> {
        let Some(d) = self.by_number.get(&number) else { return Vec::new() };
        let moved = self.retired.iter().filter(|(_, r)| r.backlog == Backlog::MoveTo(d.name.clone()));
        moved.map(|(n, _)| *n).collect()
    }

    pub(crate) fn by_name(&self, name: &str) -> Option<&LiveDestination> {
        self.by_name.get(name)
    }

    pub(crate) fn by_number(&self) -> impl Iterator<Item = (u32, &Arc<Destination>)> {
        self.by_number.iter().map(|(n, d)| (*n, d))
    }

    /// All, also those that are not in force, by name.
    pub(crate) fn all(&self) -> impl Iterator<Item = &LiveDestination> {
        self.by_name.values().chain(self.inactive.values())
    }

    pub(crate) fn hand_over(&self) -> bool {
        self.by_number.values().any(|d| d.order == Order::Strict)
    }

    fn insert(&mut self, d: LiveDestination) {
        self.by_number.insert(d.number, d.destination.clone());
        self.by_name.insert(d.destination.name.clone(), d);
    }

    fn remove(&mut self, name: &str) {
        if let Some(d) = self.by_name.remove(name) {
            self.by_number.remove(&d.number);
        }
    }
}

/// Where names get their numbers.
pub(crate) trait Numbers {
    /// The numbers of these destinations and rules, in order.
    fn assign(&mut self, destinations: &[&str], rules: &[&str]) -> Result<(Vec<u32>, Vec<u32>)>;

    /// A further number for a destination that has one, which stays that of what waits for it.
    fn renumber(&mut self, destination: &str) -> Result<u32>;
}

/// The bucket of a rule (empty for every bucket) and its id.
pub(crate) type Key = (Box<str>, Box<str>);

pub(crate) fn key(bucket: Option<&str>, id: &str) -> Key {
    (bucket.unwrap_or_default().into(), id.into())
}

/// All rules and destinations.
#[derive(Debug, Default)]
pub(crate) struct LiveRules {
    table: RuleTable,
    index: BTreeMap<Owner, BTreeMap<Key, u32>>,
    /// Places that are free, below the first that was never used.
    free: BTreeSet<u32>,
    end: u32,
    destinations: Arc<LiveDestinations>,
    /// When the rules that callers have given a bucket were changed last.
    bucket_versions: BTreeMap<Box<str>, u64>,
    types: Arc<EventTypes>,
    version: u64,
    /// Rules in force that retain.
    retaining: usize,
    /// Rules that are not in force.
    inactive: usize,
    /// Whether rules may retain: the log is kept.
    may_retain: bool,
    limits: FilterLimits,
    /// What the rules in force take of the limits.
    usage: FilterUsage,
}

/// `None` is to be removed. A version is that of something that was kept; otherwise it is that of the change.
type Given<T> = Option<(T, Option<u64>)>;

/// What shall be otherwise. What is new gets its place, and its number, in this order.
#[derive(Debug, Default)]
pub(crate) struct Edit {
    /// Rules by key.
    pub(crate) rules: IndexMap<Key, Given<Rule>>,
    /// Destinations by name.
    pub(crate) destinations: IndexMap<String, Given<Arc<Destination>>>,
    pub(crate) types: Option<EventTypes>,
    /// What becomes of what waits for destinations that are removed or changed.
    pub(crate) backlog: Backlog,
    /// Destinations that are gone.
    pub(crate) retired: BTreeMap<u32, Retired>,
    /// What does not fit is kept without being in force; otherwise it refuses the change.
    pub(crate) lenient: bool,
}

/// What a change comes to.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) owner: Owner,
    pub(crate) version: u64,
    /// The table with the change.
    pub(crate) table: RuleTable,
    pub(crate) destinations: Arc<LiveDestinations>,
    pub(crate) types: Arc<EventTypes>,
    slots: Vec<Slot>,
    lenient: bool,
    /// Of the owner's destinations, those that become others, by name; `None` is one that goes.
    pub(crate) changed_destinations: Vec<(String, Option<LiveDestination>)>,
    /// Destinations that have gone with it.
    pub(crate) retired: BTreeMap<u32, Retired>,
}

/// A place of the table that changes.
#[derive(Debug)]
struct Slot {
    place: u32,
    before: Option<Arc<LiveRule>>,
    after: Option<Arc<LiveRule>>,
}

/// What there is to compile of a rule; `None` if it is not in force.
fn compiled(rule: &Option<Arc<LiveRule>>) -> Option<&Rule> {
    rule.as_ref().filter(|r| r.inactive.is_none()).map(|r| &r.narrowed)
}

impl Slot {
    fn is_compiled_anew(&self) -> bool {
        let of =
            |r: &Option<Arc<LiveRule>>| compiled(r).map(|r| (r.bucket.clone(), r.events.clone(), r.filter.clone()));
        of(&self.before) != of(&self.after)
    }
}

impl Plan {
    /// The rules that were in force and have to be taken out of the index.
    pub(crate) fn gone(&self) -> Vec<(u32, &Rule)> {
        let changed = self.slots.iter().filter(|s| s.is_compiled_anew());
        changed.filter_map(|s| Some((s.place, compiled(&s.before)?))).collect()
    }

    /// The places of the rules that have to be put into it.
    pub(crate) fn come(&self) -> Vec<u32> {
        let changed = self.slots.iter().filter(|s| s.is_compiled_anew());
        changed.filter(|s| compiled(&s.after).is_some()).map(|s| s.place).collect()
    }

    /// Whether everything is so already.
    pub(crate) fn is_empty(&self, live: &LiveRules) -> bool {
        self.slots.is_empty()
            && self.changed_destinations.is_empty()
            && self.retired.is_empty()
            && Arc::ptr_eq(&self.types, &live.types)
    }

    /// How many places change.
    pub(crate) fn changes(&self) -> usize {
        self.slots.len()
    }

    /// The rules of the owner that become others, by key; `None` is one that goes.
    pub(crate) fn changed_rules(&self) -> impl Iterator<Item = (Key, Option<&LiveRule>)> {
        self.slots.iter().filter_map(|s| {
            let any = s.after.as_ref().or(s.before.as_ref())?;
            let is_new = s.after.as_ref().is_none_or(|r| r.version == self.version);
            (any.owner == self.owner && is_new).then(|| (key(any.bucket(), any.id()), s.after.as_deref()))
        })
    }
}

impl LiveDestination {
    fn retire(&self, backlog: &Backlog) -> Retired {
        let backlog = if *backlog == Backlog::Keep { Backlog::Drain } else { backlog.clone() };
        Retired { name: self.destination.name.clone(), backlog, settings: Some(self.destination.clone()) }
    }
}

impl LiveRules {
    /// None, in an engine whose log is kept or not.
    pub(crate) fn new(may_retain: bool, limits: FilterLimits) -> LiveRules {
        LiveRules { may_retain, limits, ..LiveRules::default() }
    }

    pub(crate) fn table(&self) -> &RuleTable {
        &self.table
    }

    /// How many rules are not in force.
    pub(crate) fn inactive(&self) -> usize {
        self.inactive
    }

    /// Whether some rule keeps events that no destination wants.
    pub(crate) fn retains(&self) -> bool {
        self.retaining > 0
    }

    pub(crate) fn types(&self) -> &Arc<EventTypes> {
        &self.types
    }

    pub(crate) fn destinations(&self) -> &Arc<LiveDestinations> {
        &self.destinations
    }

    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    fn place(&self, owner: Owner, key: &Key) -> Option<u32> {
        self.index.get(&owner)?.get(key).copied()
    }

    /// A rule by its key.
    pub(crate) fn get(&self, owner: Owner, key: &Key) -> Option<&Arc<LiveRule>> {
        self.table.get(self.place(owner, key)?)
    }

    /// The rules of an owner in one bucket, by id.
    pub(crate) fn of_bucket(&self, owner: Owner, bucket: &str) -> impl Iterator<Item = &Arc<LiveRule>> {
        let first: Key = (bucket.into(), "".into());
        let range = self.index.get(&owner).map(|i| i.range(first..));
        let bucket = bucket.to_owned();
        let own = range.into_iter().flatten().take_while(move |((b, _), _)| **b == *bucket);
        own.filter_map(|(_, place)| self.table.get(*place))
    }

    fn keys(&self, owner: Owner) -> impl Iterator<Item = &Key> {
        self.index.get(&owner).into_iter().flat_map(BTreeMap::keys)
    }

    /// The version of the rules that callers have given a bucket; `None` if it never had any.
    pub(crate) fn bucket_version(&self, bucket: &str) -> Option<u64> {
        self.bucket_versions.get(bucket).copied()
    }

    pub(crate) fn bucket_versions(&self) -> &BTreeMap<Box<str>, u64> {
        &self.bucket_versions
    }

    /// Versions go on from those of an earlier run. Call before anything else.
    pub(crate) fn resume(&mut self, version: u64, bucket_versions: BTreeMap<Box<str>, u64>) {
        self.version = version;
        self.bucket_versions = bucket_versions;
    }

    /// All rules of an owner.
    pub(crate) fn all_of(&self, owner: Owner) -> impl Iterator<Item = &Arc<LiveRule>> {
        let places = self.index.get(&owner).into_iter().flat_map(BTreeMap::values);
        places.filter_map(|place| self.table.get(*place))
    }

    /// The edit that makes these rules all that an owner has.
    pub(crate) fn replacing(&self, owner: Owner, rules: Vec<Rule>) -> Edit {
        let mut edit = Edit::default();
        edit.rules.extend(self.keys(owner).map(|key| (key.clone(), None)));
        edit.rules.extend(rules.into_iter().map(|r| (key(r.bucket.as_deref(), &r.id), Some((r, None)))));
        edit
    }

    /// The edit that makes a set the configuration.
    pub(crate) fn configuring(&self, set: RuleSet) -> Edit {
        let mut edit = self.replacing(Owner::Configuration, set.rules);
        let mine = self.destinations.by_name.values().filter(|d| d.owner == Owner::Configuration);
        edit.destinations.extend(mine.map(|d| (d.destination.name.clone(), None)));
        edit.destinations.extend(set.destinations.into_iter().map(|d| (d.name.clone(), Some((d, None)))));
        edit.types = Some(set.types);
        edit
    }

    /// What a change would come to. Alters nothing; `numbers` may give out some that are not used then.
    ///
    /// # Errors
    /// As [`RuleSet::build`], and [`ErrorKind::Conflict`] where something belongs to another owner; then there is no change.
    pub(crate) fn plan(&self, owner: Owner, edit: Edit, numbers: &mut impl Numbers) -> Result<Plan> {
        let Edit { rules, destinations, types, backlog, retired, lenient } = edit;
        let version = self.version + 1;
        let types = types.filter(|t| *t != *self.types).map_or_else(|| self.types.clone(), Arc::new);
        let touched: BTreeSet<String> = destinations.keys().cloned().collect();
        let destinations = if destinations.is_empty() && retired.is_empty() {
            self.destinations.clone()
        } else {
            let mut all = self.plan_destinations(owner, destinations, version, lenient, &backlog, numbers)?;
            all.retired.extend(retired);
            Arc::new(all)
        };
        // What else may come into force, or not be in force any more.
        let mut again: BTreeSet<(Owner, Key)> = BTreeSet::new();
        let mut configured: BTreeMap<Key, bool> = BTreeMap::new();
        if owner == Owner::Configuration {
            for (key, rule) in rules.iter().filter(|(key, _)| self.place(Owner::Callers, key).is_some()) {
                again.insert((Owner::Callers, key.clone()));
                configured.insert(key.clone(), rule.is_some());
            }
        }
        let mut draft = Draft { live: self, owner, configured, types: &types, destinations: &destinations, lenient };
        if !touched.is_empty() {
            for (other, index) in &self.index {
                for (key, place) in index {
                    let names = |r: &Arc<LiveRule>| r.narrowed.destinations.iter().any(|d| touched.contains(d));
                    if self.table.get(*place).is_some_and(names) && !(*other == owner && rules.contains_key(key)) {
                        again.insert((*other, key.clone()));
                    }
                }
            }
        }

        let mut wanted: Vec<(Owner, Key, Rule, u64, Option<Error>)> = Vec::new();
        let mut removed: Vec<u32> = Vec::new();
        for (key, rule) in rules {
            match rule {
                None => removed.extend(self.place(owner, &key)),
                Some((rule, kept)) => {
                    let fault = draft.fault(owner, &key, &rule, false)?;
                    let before = self.get(owner, &key).filter(|r| kept.is_none() && r.whole() == rule);
                    let version = kept.or(before.map(|r| r.version)).unwrap_or(version);
                    wanted.push((owner, key, rule, version, fault));
                }
            }
        }
        draft.lenient |= owner == Owner::Configuration;
        for (other, key) in again {
            let Some(before) = self.get(other, &key) else { continue };
            let rule = before.whole();
            let fault = draft.fault(other, &key, &rule, before.inactive.is_none())?;
            wanted.push((other, key, rule, before.version, fault));
        }

        let ids: Vec<&str> = wanted.iter().map(|(_, key, ..)| &*key.1).collect();
        let (_, given) = numbers.assign(&[], &ids)?;
        let mut slots = Vec::new();
        for place in removed {
            slots.push(Slot { place, before: self.table.get(place).cloned(), after: None });
        }
        let mut fresh = self.free.iter().copied().chain(self.end..);
        for ((owner, key, rule, version, inactive), number) in wanted.into_iter().zip(given) {
            let mut rule = LiveRule::new(rule, owner, version, number, inactive, &destinations);
            let known = self.place(owner, &key);
            let before = known.and_then(|place| self.table.get(place)).cloned();
            if before.as_ref().is_some_and(|before| before.is_same(&rule)) {
                continue;
            }
            if let Some(before) = &before {
                rule.matched.clone_from(&before.matched);
            }
            let Some(place) = known.or_else(|| fresh.next()) else { break };
            slots.push(Slot { place, before, after: Some(Arc::new(rule)) });
        }
        let count = |which: fn(&Slot) -> &Option<Arc<LiveRule>>| slots.iter().filter(|s| which(s).is_some()).count();
        let len = self.len() + count(|s| &s.after) - count(|s| &s.before);
        if len > RULES_MAX {
            let error = Error::invalid_config(format!("{len} rules, more than {RULES_MAX}"));
            return Err(error.remedy("merge some rules"));
        }
        let mut table = self.table.clone();
        slots.iter().for_each(|s| table.set(s.place, s.after.clone()));
        let of_owner = |all: &LiveDestinations, name: &str| {
            let both = [all.by_name.get(name), all.inactive.get(name)];
            both.into_iter().flatten().find(|d| d.owner == owner).cloned()
        };
        let mut changed_destinations = Vec::new();
        for name in touched {
            let (before, after) = (of_owner(&self.destinations, &name), of_owner(&destinations, &name));
            if before.as_ref().map(|d| d.version) != after.as_ref().map(|d| d.version) {
                changed_destinations.push((name, after));
            }
        }
        let gone = destinations.retired.iter().filter(|(n, r)| self.destinations.retired.get(n) != Some(r));
        let retired = gone.map(|(n, r)| (*n, r.clone())).collect();
        Ok(Plan { owner, version, table, destinations, types, slots, lenient, changed_destinations, retired })
    }

    /// How many rules there are.
    pub(crate) fn len(&self) -> usize {
        self.index.values().map(BTreeMap::len).sum()
    }

    fn plan_destinations(
        &self,
        owner: Owner,
        changes: IndexMap<String, Given<Arc<Destination>>>,
        version: u64,
        lenient: bool,
        backlog: &Backlog,
        numbers: &mut impl Numbers,
    ) -> Result<LiveDestinations> {
        let mut all = (*self.destinations).clone();
        let conflict = |name: &str| {
            let error = Error::new(ErrorKind::Conflict, "the configuration has a destination of this name");
            let error = error.at(format!("destination `{}`", name.escape_debug()));
            error.remedy("change it there, or choose another name")
        };
        let names: Vec<&str> = changes.iter().filter(|(_, d)| d.is_some()).map(|(name, _)| name.as_str()).collect();
        let (given, _) = numbers.assign(&names, &[])?;
        let mut given = given.into_iter();
        for (name, change) in &changes {
            let theirs = all.by_name.get(name).is_some_and(|d| d.owner != owner);
            let Some((destination, kept)) = change else {
                if theirs {
                    all.inactive.remove(name);
                } else {
                    let gone = all.by_name.get(name).filter(|_| owner == Owner::Callers);
                    if let Some((number, gone)) = gone.map(|d| (d.number, d.retire(backlog))) {
                        all.retired.insert(number, gone);
                    }
                    all.remove(name);
                    // One that the configuration had in its place.
                    if let Some(mut d) = all.inactive.remove(name) {
                        d.inactive = None;
                        all.insert(d);
                    }
                }
                continue;
            };
            destination.validate().map_err(|e| e.at(destination.label()))?;
            let before = self.destinations.by_name.get(name).filter(|d| d.owner == owner && kept.is_none());
            let same = before.filter(|d| *d.destination == **destination);
            let number = given.next().unwrap_or_default();
            let number = before.map_or(number, |d| d.number);
            let mut d = LiveDestination {
                destination: same.map_or_else(|| destination.clone(), |d| d.destination.clone()),
                version: kept.or(same.map(|d| d.version)).unwrap_or(version),
                owner,
                number,
                inactive: None,
            };
            match all.by_name.get(name) {
                Some(other) if other.owner != owner && owner == Owner::Configuration => {
                    let mut other = other.clone();
                    other.inactive = Some(conflict(name));
                    all.inactive.insert(name.clone(), other);
                    all.insert(d);
                }
                Some(other) if other.owner != owner => {
                    if !lenient {
                        return Err(conflict(name));
                    }
                    d.inactive = Some(conflict(name));
                    all.inactive.insert(name.clone(), d);
                }
                _ => {
                    let changed = before.filter(|_| same.is_none() && *backlog != Backlog::Keep);
                    if let Some(before) = changed {
                        d.number = numbers.renumber(name)?;
                        all.retired.insert(before.number, before.retire(backlog));
                        all.by_number.remove(&before.number);
                    }
                    all.insert(d);
                }
            }
        }
        if all.by_name.len() > DESTINATIONS_MAX {
            let error =
                Error::invalid_config(format!("{} destinations, more than {DESTINATIONS_MAX}", all.by_name.len()));
            return Err(error.remedy("merge some destinations"));
        }
        for d in all.by_name.values() {
            let fault = check_dead_letter_to(&d.destination, &all);
            if let (Err(e), false) = (fault, lenient || owner == Owner::Configuration) {
                return Err(e);
            }
        }
        Ok(all)
    }

    /// Counts what a change takes of the limits.
    ///
    /// # Errors
    /// If that is too much; then nothing has changed.
    pub(crate) fn account(&mut self, plan: &Plan) -> Result<()> {
        let anew: Vec<&Slot> = plan.slots.iter().filter(|s| s.is_compiled_anew()).collect();
        anew.iter().filter_map(|s| compiled(&s.before)).for_each(|rule| self.usage.remove(rule));
        let mut added = Vec::new();
        for slot in &anew {
            let Some(rule) = compiled(&slot.after) else { continue };
            let checked = slot.after.as_ref().is_some_and(|r| r.owner != Owner::Engine) && !plan.lenient;
            match self.usage.add(rule, &self.limits) {
                Err(e) if checked => {
                    added.into_iter().for_each(|rule| self.usage.remove(rule));
                    anew.iter().filter_map(|s| compiled(&s.before)).for_each(|rule| self.usage.put_back(rule));
                    return Err(e);
                }
                Err(_) => self.usage.put_back(rule),
                Ok(()) => {}
            }
            added.push(rule);
        }
        Ok(())
    }

    /// Takes that back.
    pub(crate) fn account_back(&mut self, plan: &Plan) {
        let anew = || plan.slots.iter().filter(|s| s.is_compiled_anew());
        anew().filter_map(|s| compiled(&s.after)).for_each(|rule| self.usage.remove(rule));
        anew().filter_map(|s| compiled(&s.before)).for_each(|rule| self.usage.put_back(rule));
    }

    pub(crate) fn limits(&self) -> &FilterLimits {
        &self.limits
    }

    /// Makes a change that was planned from what is here.
    pub(crate) fn take(&mut self, plan: Plan) {
        for slot in plan.slots {
            let retains = |rule: &Option<Arc<LiveRule>>| usize::from(compiled(rule).is_some_and(|r| r.retain));
            self.retaining = self.retaining + retains(&slot.after) - retains(&slot.before);
            let idle = |rule: &Option<Arc<LiveRule>>| usize::from(rule.as_ref().is_some_and(|r| r.inactive.is_some()));
            self.inactive = self.inactive + idle(&slot.after) - idle(&slot.before);
            if let Some(before) = &slot.before
                && slot.after.is_none()
            {
                self.index.entry(before.owner).or_default().remove(&key(before.bucket(), before.id()));
                self.free.insert(slot.place);
            }
            if let Some(after) = &slot.after {
                self.index.entry(after.owner).or_default().insert(key(after.bucket(), after.id()), slot.place);
                self.free.remove(&slot.place);
                self.end = self.end.max(slot.place + 1);
            }
            let any = slot.after.as_ref().or(slot.before.as_ref());
            if let Some(any) = any.filter(|r| r.owner == Owner::Callers && plan.owner == Owner::Callers) {
                let now = slot.after.as_ref().map_or(plan.version, |r| r.version);
                let bucket = self.bucket_versions.entry(any.bucket().unwrap_or_default().into()).or_default();
                *bucket = (*bucket).max(now);
            }
        }
        self.table = plan.table;
        self.destinations = plan.destinations;
        self.types = plan.types;
        self.version = plan.version;
    }

    /// Checks what a change expects of a destination.
    pub(crate) fn check_destination(&self, name: &str, expect: Expect) -> Result<()> {
        let mine = self.destinations.all().find(|d| d.owner == Owner::Callers && d.destination.name == name);
        expect.check(mine.map(|d| d.version), || format!("destination `{}`", name.escape_debug()))
    }

    /// Checks that what waits for a destination can go where it is to go.
    pub(crate) fn check_backlog(&self, name: &str, order: Option<Order>, backlog: &Backlog) -> Result<()> {
        let Backlog::MoveTo(other) = backlog else { return Ok(()) };
        let at = |e: Error| e.at(format!("destination `{}`", name.escape_debug()));
        if other == name {
            return Err(at(Error::invalid_config("what waits for it cannot be moved to itself").remedy("keep it")));
        }
        let Some(to) = self.destinations.by_name(other) else {
            let error = Error::new(ErrorKind::NotFound, format!("unknown destination `{}`", other.escape_debug()));
            let known = self.destinations.names();
            return Err(at(error.remedy(suggest("destination", other, known))));
        };
        if order == Some(Order::Strict) || to.destination.order == Order::Strict {
            let error = Error::invalid_config("what waits cannot be moved from or to a destination of strict order");
            return Err(at(error.remedy("let it drain, or make dead letters of it and redrive them")));
        }
        Ok(())
    }

    /// The ids of the rules in force that send to a destination and belong to callers; a few of them.
    pub(crate) fn senders(&self, name: &str) -> Vec<&str> {
        let of = |r: &&Arc<LiveRule>| r.inactive.is_none() && r.narrowed.destinations.iter().any(|d| d == name);
        self.all_of(Owner::Callers).filter(of).map(|r| r.id()).take(4).collect()
    }

    /// Checks what a change expects of a rule.
    pub(crate) fn check_rule(&self, key: &Key, expect: Expect) -> Result<()> {
        let bucket = if key.0.is_empty() { String::new() } else { format!(" of bucket `{}`", key.0.escape_debug()) };
        let what = || format!("rule `{}`{bucket}", key.1.escape_debug());
        expect.check(self.get(Owner::Callers, key).map(|r| r.version), what)
    }
}

impl Expect {
    /// Whether that is so of something that has this version, if it is there.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`].
    pub(crate) fn check(self, found: Option<u64>, what: impl Fn() -> String) -> Result<()> {
        let error = match (self, found) {
            (Expect::Anything, _) | (Expect::Absent, None) => return Ok(()),
            (Expect::Version(wanted), Some(found)) if wanted == found => return Ok(()),
            (Expect::Absent, Some(found)) => format!("it is there already, with version {found}"),
            (Expect::Version(wanted), Some(found)) => format!("its version is {found}, not {wanted}"),
            (Expect::Version(wanted), None) => format!("it is not there, so it has no version {wanted}"),
        };
        let error = Error::new(ErrorKind::Conflict, error).at(what());
        Err(error.remedy("read it anew, and decide again"))
    }
}

/// What rules are to fit into.
struct Draft<'a> {
    live: &'a LiveRules,
    owner: Owner,
    /// Which of these rules the configuration will have.
    configured: BTreeMap<Key, bool>,
    types: &'a EventTypes,
    destinations: &'a LiveDestinations,
    lenient: bool,
}

impl Draft<'_> {
    /// Why a rule cannot be in force.
    ///
    /// # Errors
    /// The same, if that refuses the change. A rule that was not in force before does not.
    fn fault(&self, owner: Owner, key: &Key, rule: &Rule, was_in_force: bool) -> Result<Option<Error>> {
        // The configuration comes as a set that fits together, and was held to the limits; the engine's own rules are.
        if owner != Owner::Callers {
            return Ok(None);
        }
        let configured = self.configured.get(key).copied();
        let shadowed = configured.unwrap_or_else(|| self.live.place(Owner::Configuration, key).is_some());
        let fault = if shadowed {
            let error = Error::new(ErrorKind::Conflict, "the configuration has a rule of this id").at(rule.label());
            Some(error.remedy("change it there, or choose another id"))
        } else if rule.retain && !self.live.may_retain {
            Some(rule.retains_in_vain())
        } else {
            let checked = check_rule(rule, self.destinations, self.types).map_err(|(_, e)| e);
            checked.and_then(|()| self.live.limits.check_rule(rule)).err()
        };
        let refuses = !self.lenient && (was_in_force || owner == self.owner);
        match fault {
            Some(e) if refuses => Err(e),
            fault => Ok(fault),
        }
    }
}
