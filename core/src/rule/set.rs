//! The validated set of rules and destinations that an engine runs.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::live::{DESTINATIONS_MAX, RULES_MAX};
use super::place::suggest;
use super::{Destination, Rule, check_bucket};
use crate::error::{Error, Result};
use crate::event::{EventType, EventTypes};

/// Rules and destinations that fit together. Made by [`RuleSet::build`] and not changed afterwards: a change is a new
/// set, or of one rule [`crate::Engine::put_rule`].
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct RuleSet {
    /// The rules.
    pub rules: Vec<Rule>,
    /// The destinations.
    pub destinations: Vec<Arc<Destination>>,
    /// The event types that the rules were read with.
    pub types: EventTypes,
}

/// Destinations by name.
pub(crate) trait DestinationsByName {
    fn destination(&self, name: &str) -> Option<&Destination>;
    /// The names of all, for suggestions.
    fn names(&self) -> Vec<&str>;
}

impl DestinationsByName for HashMap<&str, &Destination> {
    fn destination(&self, name: &str) -> Option<&Destination> {
        self.get(name).copied()
    }

    fn names(&self) -> Vec<&str> {
        self.keys().copied().collect()
    }
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
        let mut by_name: HashMap<&str, &Destination> = HashMap::new();
        for (i, d) in destinations.iter().enumerate() {
            d.validate().map_err(|e| (Subject::Destination(i), e.at(d.label())))?;
            if by_name.insert(&d.name, d).is_some() {
                let error = Error::invalid_config("another destination has the same name").at(d.label());
                return Err((Subject::Destination(i), error.remedy("rename one of them")));
            }
        }
        for (i, d) in destinations.iter().enumerate() {
            check_dead_letter_to(d, &by_name).map_err(|e| (Subject::Destination(i), e))?;
        }
        let mut ids = HashSet::new();
        for (i, rule) in rules.iter().enumerate() {
            check_rule(rule, &by_name, &types).map_err(|(part, e)| (part.of(i), e))?;
            if !ids.insert((rule.bucket.as_deref(), rule.id.as_str())) {
                let whose = match &rule.bucket {
                    Some(bucket) => format!("another rule of bucket `{bucket}` has the same id"),
                    None => "another rule of every bucket has the same id".to_owned(),
                };
                let error = Error::invalid_config(whose).at(rule.label()).remedy("rename one of them");
                return Err((Subject::Rule(i), error));
            }
        }
        drop(ids);
        drop(by_name);
        let destinations = destinations.into_iter().map(Arc::new).collect();
        Ok(RuleSet { rules, destinations, types })
    }
}

/// What an error of [`check_rule`] is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Whole,
    Event(usize),
    Filter,
    Destination(usize),
}

impl Part {
    fn of(self, rule: usize) -> Subject {
        match self {
            Part::Whole => Subject::Rule(rule),
            Part::Event(i) => Subject::RuleEvent(rule, i),
            Part::Filter => Subject::RuleFilter(rule),
            Part::Destination(i) => Subject::RuleDestination(rule, i),
        }
    }
}

/// Checks a rule by itself and against the destinations that there are. Errors name it.
pub(crate) fn check_rule(
    rule: &Rule,
    destinations: &impl DestinationsByName,
    types: &EventTypes,
) -> Result<(), (Part, Error)> {
    check_parts(rule, destinations, types).map_err(|(part, e)| (part, e.at(rule.label())))
}

fn check_parts(rule: &Rule, destinations: &impl DestinationsByName, types: &EventTypes) -> Result<(), (Part, Error)> {
    let whole = |e: Error| (Part::Whole, e);
    rule.check_id().map_err(whole)?;
    if let Some(bucket) = &rule.bucket {
        check_bucket(bucket).map_err(whole)?;
    }
    rule.filter.validate().map_err(|e| (Part::Filter, e))?;
    if rule.events.is_empty() {
        let error = Error::invalid_config("the rule has no event types").at("events");
        return Err(whole(error.remedy("list some, such as `s3:ObjectCreated:*`, or `*` for all")));
    }
    if rule.destinations.is_empty() && !rule.retain {
        let error = Error::invalid_config("the rule has no destinations").at("destinations");
        return Err(whole(error.remedy("name at least one")));
    }
    for (j, name) in rule.destinations.iter().enumerate() {
        let here = |e: Error| (Part::Destination(j), e.at("destinations"));
        let Some(destination) = destinations.destination(name) else {
            let error = Error::invalid_config(format!("unknown destination `{}`", name.escape_debug()));
            return Err(here(error.remedy(suggest("destination", name, destinations.names()))));
        };
        if rule.destinations[..j].contains(name) {
            let error = Error::invalid_config(format!("destination `{name}` is named twice"));
            return Err(here(error.remedy("name it once")));
        }
        check_profile(rule, destination, types)?;
        check_dead_letter_profiles(rule, destination, destinations, types).map_err(whole)?;
    }
    Ok(())
}

/// A destination's dead-letter destination must be there, and no chain of them may lead back to it.
pub(crate) fn check_dead_letter_to(start: &Destination, destinations: &impl DestinationsByName) -> Result<()> {
    let at = |e: Error| e.at("dead_letter_to").at(start.label());
    let mut chain = vec![start.name.as_str()];
    let mut next = &start.dead_letter_to;
    while let Some(name) = next {
        chain.push(name);
        if *name == start.name {
            let error = Error::invalid_config(format!("dead letters would go round for ever: {}", chain.join(" -> ")));
            return Err(at(error.remedy("let the chain end in a destination without `dead_letter_to`")));
        }
        let Some(found) = destinations.destination(name) else {
            // The one that names it is told about it.
            return if chain.len() == 2 {
                let error = Error::invalid_config(format!("unknown destination `{}`", name.escape_debug()));
                Err(at(error.remedy(suggest("destination", name, destinations.names()))))
            } else {
                Ok(())
            };
        };
        if chain[1..chain.len() - 1].contains(&name.as_str()) {
            return Ok(()); // A round that this destination only leads into; those in it are told.
        }
        next = &found.dead_letter_to;
    }
    Ok(())
}

/// What a rule's destination may have to pass on as a dead letter, the dead-letter destination must have records for.
fn check_dead_letter_profiles(
    rule: &Rule,
    first: &Destination,
    destinations: &impl DestinationsByName,
    types: &EventTypes,
) -> Result<()> {
    let mut at = first;
    let mut seen = 0;
    while let Some(next) = at.dead_letter_to.as_ref().and_then(|name| destinations.destination(name)) {
        let known = rule.events.known().map(EventType::Known);
        let custom = types.custom().iter().map(|n| EventType::Custom(n)).filter(|t| rule.events.contains(*t));
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
        seen += 1;
        if seen > DESTINATIONS_MAX {
            break; // A round, of which its destinations are told.
        }
    }
    Ok(())
}

/// A type named without a star must be one that the destination can be told of; of a wildcard, at least one must be.
fn check_profile(rule: &Rule, d: &Destination, types: &EventTypes) -> Result<(), (Part, Error)> {
    let remedy = format!("choose another profile for {} (`cloudevents` has every type), or another type", d.label());
    for (j, name) in rule.event_names.iter().enumerate().filter(|(_, n)| !n.ends_with('*')) {
        let expressible = EventType::parse(name).is_ok_and(|t| d.profile.expressible(t));
        if !expressible {
            let error = Error::invalid_config(format!(
                "{} writes records of profile `{}`, which has none for `{name}`",
                d.label(),
                d.profile.name()
            ));
            return Err((Part::Event(j), error.at("events").remedy(remedy)));
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
        return Err((Part::Whole, error.at("events").remedy(remedy)));
    }
    Ok(())
}
