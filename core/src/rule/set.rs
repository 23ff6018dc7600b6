//! The validated set of rules and destinations that an engine runs.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::place::suggest;
use super::{Destination, Rule, check_bucket};
use crate::error::{Error, Result};
use crate::event::{EventType, EventTypes};

/// The most rules of one set.
pub(crate) const RULES_MAX: usize = 1_000_000;
/// The most destinations of one set. Each has a lane on every shard.
const DESTINATIONS_MAX: usize = 16_384;

/// Rules and destinations that fit together. Made by [`RuleSet::build`] and not changed afterwards: a change is a new
/// set.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct RuleSet {
    /// The rules; numbers that [`crate::filter::Matcher`] gives are places in this list.
    pub rules: Vec<Rule>,
    /// The destinations; [`Route::destination`] is a place in this list.
    pub destinations: Vec<Arc<Destination>>,
    /// The event types that the rules were read with.
    pub types: EventTypes,
    /// The destinations of all rules, back to back, and where each rule's begin.
    targets: Vec<u32>,
    target_starts: Vec<u32>,
    /// How many of the rules, at the end, are the engine's own.
    keepers: usize,
}

/// One delivery that an event leads to: the destination, and the first of the rules that sends it there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Route {
    /// The place of the destination in [`RuleSet::destinations`].
    pub destination: u32,
    /// The place of the rule in [`RuleSet::rules`].
    pub rule: u32,
}

/// What an error of [`RuleSet::build_located`] is about; numbers are places in the lists given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Subject {
    Set,
    Destination(usize),
    Rule(usize),
    RuleEvent(usize, usize),
    RuleFilter(usize),
    RuleDestination(usize, usize),
}

impl RuleSet {
    /// The set of these rules and destinations, if they fit together. One that does not refuses the whole set.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidConfig`] that names the rule or destination, for: an illegal or double name, a limit
    /// out of range, a rule without event types or destinations, an unknown destination, a condition that no key can
    /// meet, an event type that a destination's profile has no record for, dead letters that would go round in a circle.
    pub fn build(rules: Vec<Rule>, destinations: Vec<Destination>, types: EventTypes) -> Result<RuleSet> {
        RuleSet::build_located(rules, destinations, types).map_err(|(_, e)| e)
    }

    /// As [`RuleSet::build`]; tells what the error is about, so that the reader of a file can add the line.
    pub(crate) fn build_located(
        rules: Vec<Rule>,
        destinations: Vec<Destination>,
        types: EventTypes,
    ) -> Result<RuleSet, (Subject, Error)> {
        for (what, n, max) in
            [("rules", rules.len(), RULES_MAX), ("destinations", destinations.len(), DESTINATIONS_MAX)]
        {
            if n > max {
                let error = Error::invalid_config(format!("{n} {what}, more than {max}"));
                return Err((Subject::Set, error.remedy(format!("merge some {what}"))));
            }
        }
        let mut numbers: HashMap<&str, u32> = HashMap::new();
        for (i, d) in destinations.iter().enumerate() {
            d.validate().map_err(|e| (Subject::Destination(i), e.at(d.label())))?;
            if numbers.insert(&d.name, i as u32).is_some() {
                let error = Error::invalid_config("another destination has the same name").at(d.label());
                return Err((Subject::Destination(i), error.remedy("rename one of them")));
            }
        }
        for i in 0..destinations.len() {
            check_dead_letter_to(i, &destinations, &numbers)
                .map_err(|e| (Subject::Destination(i), e.at("dead_letter_to").at(destinations[i].label())))?;
        }
        let mut ids = HashSet::new();
        let (mut targets, mut target_starts) = (Vec::new(), vec![0]);
        for (i, rule) in rules.iter().enumerate() {
            check_rule(rule, &destinations, &numbers, &types, &mut targets)
                .map_err(|(subject, e)| (subject(i), e.at(rule.label())))?;
            if !ids.insert((rule.bucket.as_deref(), rule.id.as_str())) {
                let whose = match &rule.bucket {
                    Some(bucket) => format!("another rule of bucket `{bucket}` has the same id"),
                    None => "another rule of every bucket has the same id".to_owned(),
                };
                let error = Error::invalid_config(whose).at(rule.label()).remedy("rename one of them");
                return Err((Subject::Rule(i), error));
            }
            target_starts.push(targets.len() as u32);
        }
        drop(ids);
        let destinations = destinations.into_iter().map(Arc::new).collect();
        Ok(RuleSet { rules, destinations, types, targets, target_starts, keepers: 0 })
    }

    /// The destinations of a rule, as places in [`RuleSet::destinations`], in the order that the rule names them.
    ///
    /// # Panics
    /// If there is no such rule.
    pub fn targets(&self, rule: u32) -> &[u32] {
        let at = |i: usize| self.target_starts[i] as usize;
        &self.targets[at(rule as usize)..at(rule as usize + 1)]
    }

    /// What an event leads to that these rules want (as [`crate::filter::Matcher::matches`] appends them): replaces
    /// `out` by the routes, ordered by destination. A destination comes once, with the first rule that sends it there,
    /// and once more for every later rule with [`Rule::repeat`].
    pub fn routes(&self, matched: &[u32], out: &mut Vec<Route>) {
        out.clear();
        for &rule in matched {
            out.extend(self.targets(rule).iter().map(|&destination| Route { destination, rule }));
        }
        if matched.len() > 1 || out.len() > 1 {
            out.sort_unstable();
            out.dedup_by(|later, kept| {
                later.destination == kept.destination && !self.rules[later.rule as usize].repeat
            });
        }
    }

    /// Puts rules of the engine's own behind the configured ones, in the place of those that were there. They keep events
    /// and have no destinations.
    pub(crate) fn set_keepers(&mut self, keepers: Vec<Rule>) {
        let configured = self.rules.len() - std::mem::replace(&mut self.keepers, keepers.len());
        self.rules.truncate(configured);
        // A set that was not built has no starts at all.
        self.target_starts.resize(configured + 1, 0);
        for rule in keepers {
            self.rules.push(rule);
            self.target_starts.push(self.targets.len() as u32);
        }
    }

    /// The place of a destination by its name.
    pub fn destination(&self, name: &str) -> Option<u32> {
        self.destinations.iter().position(|d| d.name == name).map(|i| i as u32)
    }
}

/// Makes a [`Subject`] of the rule's place.
type Within = Box<dyn Fn(usize) -> Subject>;

fn check_rule(
    rule: &Rule,
    destinations: &[Destination],
    numbers: &HashMap<&str, u32>,
    types: &EventTypes,
    targets: &mut Vec<u32>,
) -> Result<(), (Within, Error)> {
    let whole = |e: Error| -> (Within, Error) { (Box::new(Subject::Rule), e) };
    rule.check_id().map_err(whole)?;
    if let Some(bucket) = &rule.bucket {
        check_bucket(bucket).map_err(whole)?;
    }
    rule.filter.validate().map_err(|e| -> (Within, Error) { (Box::new(Subject::RuleFilter), e) })?;
    if rule.events.is_empty() {
        let error = Error::invalid_config("the rule has no event types").at("events");
        return Err(whole(error.remedy("list some, such as `s3:ObjectCreated:*`, or `*` for all")));
    }
    if rule.destinations.is_empty() && !rule.retain {
        let error = Error::invalid_config("the rule has no destinations").at("destinations");
        return Err(whole(error.remedy("name at least one")));
    }
    for (j, name) in rule.destinations.iter().enumerate() {
        let here =
            |e: Error| -> (Within, Error) { (Box::new(move |i| Subject::RuleDestination(i, j)), e.at("destinations")) };
        let Some(&number) = numbers.get(name.as_str()) else {
            let known = destinations.iter().map(|d| d.name.as_str());
            let error = Error::invalid_config(format!("unknown destination `{name}`"));
            return Err(here(error.remedy(suggest("destination", name, known))));
        };
        if rule.destinations[..j].contains(name) {
            let error = Error::invalid_config(format!("destination `{name}` is named twice"));
            return Err(here(error.remedy("name it once")));
        }
        check_profile(rule, &destinations[number as usize], types)?;
        check_dead_letter_profiles(rule, number as usize, destinations, numbers, types).map_err(whole)?;
        targets.push(number);
    }
    Ok(())
}

/// A destination's dead-letter destination must be there, and no chain of them may lead back to it.
fn check_dead_letter_to(start: usize, destinations: &[Destination], numbers: &HashMap<&str, u32>) -> Result<()> {
    let mut chain = vec![destinations[start].name.as_str()];
    let mut at = start;
    while let Some(next) = &destinations[at].dead_letter_to {
        let Some(&number) = numbers.get(next.as_str()) else {
            // The one that names it is told about it.
            return if at == start {
                let known = destinations.iter().map(|d| d.name.as_str());
                let error = Error::invalid_config(format!("unknown destination `{}`", next.escape_debug()));
                Err(error.remedy(suggest("destination", next, known)))
            } else {
                Ok(())
            };
        };
        chain.push(next);
        at = number as usize;
        if at == start {
            let error = Error::invalid_config(format!("dead letters would go round for ever: {}", chain.join(" -> ")));
            return Err(error.remedy("let the chain end in a destination without `dead_letter_to`"));
        }
        if chain.len() > destinations.len() {
            return Ok(()); // A round that this destination only leads into; those in it are told.
        }
    }
    Ok(())
}

/// What a rule's destination may have to pass on as a dead letter, the dead-letter destination must have records for.
fn check_dead_letter_profiles(
    rule: &Rule,
    from: usize,
    destinations: &[Destination],
    numbers: &HashMap<&str, u32>,
    types: &EventTypes,
) -> Result<()> {
    let mut at = &destinations[from];
    while let Some(next) = at.dead_letter_to.as_ref().and_then(|name| numbers.get(name.as_str())) {
        let next = &destinations[*next as usize];
        let known = rule.events.known().map(EventType::Known);
        let custom = types.custom().iter().map(|n| EventType::Custom(n)).filter(|t| rule.events.contains(*t));
        let first = &destinations[from];
        let lost = known.chain(custom).find(|t| first.profile.expressible(*t) && !next.profile.expressible(*t));
        if let Some(t) = lost {
            return Err(Error::invalid_config(format!(
                "dead letters of {} go to {}, whose profile `{}` has no record for `{t}`",
                first.label(),
                next.label(),
                next.profile.name()
            ))
            .at("events")
            .remedy(format!("choose another profile for {} (`cloudevents` has every type)", next.label())));
        }
        at = next;
    }
    Ok(())
}

/// A type named without a star must be one that the destination can be told of; of a wildcard, at least one must be.
fn check_profile(rule: &Rule, d: &Destination, types: &EventTypes) -> Result<(), (Within, Error)> {
    let remedy = format!("choose another profile for {} (`cloudevents` has every type), or another type", d.label());
    for (j, name) in rule.event_names.iter().enumerate().filter(|(_, n)| !n.ends_with('*')) {
        let expressible = EventType::parse(name).is_ok_and(|t| d.profile.expressible(t));
        if !expressible {
            let error = Error::invalid_config(format!(
                "{} writes records of profile `{}`, which has none for `{name}`",
                d.label(),
                d.profile.name()
            ));
            return Err((Box::new(move |i| Subject::RuleEvent(i, j)), error.at("events").remedy(remedy)));
        }
    }
    let known = rule.events.known().map(EventType::Known);
    let custom = types.custom().iter().map(|n| EventType::Custom(n)).filter(|t| rule.events.contains(*t));
    if !known.chain(custom).any(|t| d.profile.expressible(t)) {
        let error = Error::invalid_config(format!(
            "{} writes records of profile `{}`, which has none for any type of this rule",
            d.label(),
            d.profile.name()
        ));
        return Err((Box::new(Subject::Rule), error.at("events").remedy(remedy)));
    }
    Ok(())
}
