//! The rules as the publishers and shards see them: immutable, swapped as a whole.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::driver;
use crate::event::profile::Profile;
use crate::event::{Event, EventType, FrameView, Priority, frame};
use crate::filter::{FilterLimits, MatchMemory, Matcher};
use crate::log::record::Route;
use crate::log::recovery::Names;
use crate::rule::{Destination, Order, RuleSet};
use crate::{Result, rule};

/// One version of the rules, with the numbers that the log knows them by.
#[derive(Debug)]
pub(crate) struct Snapshot {
    /// Grows with each change.
    pub(crate) version: u64,
    pub(crate) rules: RuleSet,
    matcher: Matcher,
    /// Per place in `rules.destinations`, the number.
    destination_numbers: Vec<u32>,
    /// Per place in `rules.rules`, the number.
    rule_numbers: Vec<u32>,
    /// Destinations by number.
    destinations: BTreeMap<u32, Arc<Destination>>,
    /// Ids of rules by number, also of rules that are gone but whose events may still be in the log.
    rule_ids: HashMap<u32, Arc<str>>,
    hands_over: bool,
    /// Some rule keeps events that no destination wants.
    retains: bool,
    /// Every event is kept.
    keep_all: bool,
    /// Numbers of all destinations that this directory ever had.
    pub(crate) numbers_ever: Vec<u32>,
    /// Numbers of destinations that this directory never had before: nothing in its log is for them.
    pub(crate) new_destinations: Vec<u32>,
}

impl Snapshot {
    /// Gives every destination and rule its number and compiles the matcher.
    pub(crate) fn new(version: u64, mut rules: RuleSet, names: &mut Names) -> Result<Snapshot> {
        // A wildcard asks for what the destinations' profiles have records for; the gate shall refuse the rest.
        for i in 0..rules.rules.len() {
            if rules.rules[i].retain {
                continue;
            }
            let profiles: Vec<Profile> =
                rules.targets(i as u32).iter().map(|d| rules.destinations[*d as usize].profile).collect();
            rules.rules[i].events.retain(|t| profiles.iter().any(|p| p.expressible(t)));
        }
        let destinations: Vec<&str> = rules.destinations.iter().map(|d| d.name.as_str()).collect();
        let ids: Vec<&str> = rules.rules.iter().map(|r| r.id.as_str()).collect();
        let numbers = names.assign(&destinations, &ids)?;
        let matcher = Matcher::compile(&rules.rules)?;
        Ok(Snapshot {
            version,
            matcher,
            retains: rules.rules.iter().any(|r| r.retain),
            keep_all: false,
            destinations: numbers.destinations.iter().copied().zip(rules.destinations.iter().cloned()).collect(),
            rule_ids: names.rules().map(|(n, id)| (n, Arc::from(id))).collect(),
            destination_numbers: numbers.destinations,
            rule_numbers: numbers.rules,
            hands_over: rules.destinations.iter().any(|d| d.order == Order::Strict),
            numbers_ever: names.destinations().collect(),
            new_destinations: numbers.new_destinations,
            rules,
        })
    }

    /// Checks that the index of the rules takes no more memory than it may.
    pub(crate) fn check_memory(&self, limits: &FilterLimits) -> Result<()> {
        limits.check_memory(&self.matcher)
    }

    /// The same, with every event kept if `all`.
    pub(crate) fn keeping(mut self, all: bool) -> Snapshot {
        self.keep_all = all;
        self
    }

    /// Whether any rule could want such an event: the gate.
    #[inline]
    pub(crate) fn interested(&self, bucket: &str, event_type: EventType<'_>) -> bool {
        self.keep_all || self.matcher.interested(bucket, event_type)
    }

    /// Replaces `out` by the routes of an event: one to [`Route::NOBODY`] if it is only kept. `scratch` is working memory.
    pub(crate) fn routes(&self, frame: &FrameView<'_>, scratch: &mut Scratch, out: &mut Vec<Route>) {
        scratch.matched.clear();
        self.matcher.matches(frame, &mut scratch.memory, &mut scratch.matched);
        self.routes_of_matched(frame.event_type(), frame.priority(), scratch, out);
    }

    /// As [`Snapshot::routes`], for an event that has no frame yet; of one that is not known as a whole, the routes that it
    /// may have.
    pub(crate) fn routes_of(&self, event: &Event<'_>, known: Known, scratch: &mut Scratch, out: &mut Vec<Route>) {
        scratch.matched.clear();
        let bytes = frame::encode_to_vec(event, driver::wall_ns());
        let frame = FrameView::trusted(&bytes);
        match known {
            Known::Whole => self.matcher.matches(&frame, &mut scratch.memory, &mut scratch.matched),
            Known::Before => self.matcher.may_match(&frame, &mut scratch.memory, &mut scratch.matched),
        }
        self.routes_of_matched(event.event_type, event.priority, scratch, out);
    }

    fn routes_of_matched(
        &self,
        event_type: EventType<'_>,
        priority: Priority,
        scratch: &mut Scratch,
        out: &mut Vec<Route>,
    ) {
        out.clear();
        if !scratch.matched.is_empty() {
            self.destination_routes(event_type, priority, scratch, out);
        }
        if out.is_empty() {
            out.extend(self.keeper(scratch));
        }
    }

    /// The route of the event that was matched last if no destination gets it and it is kept all the same.
    pub(crate) fn keeper(&self, scratch: &Scratch) -> Option<Route> {
        if !self.retains && !self.keep_all {
            return None;
        }
        let keeper = scratch.matched.iter().find(|r| self.rules.rules[**r as usize].retain);
        let rule = keeper.map_or(0, |r| self.rule_numbers[*r as usize]);
        (keeper.is_some() || self.keep_all).then(|| Route::new(Route::NOBODY, rule))
    }

    fn destination_routes(
        &self,
        event_type: EventType<'_>,
        priority: Priority,
        scratch: &mut Scratch,
        out: &mut Vec<Route>,
    ) {
        self.rules.routes(&scratch.matched, &mut scratch.routes);
        out.extend(scratch.routes.iter().filter_map(|r| {
            // A wildcard rule may match what the destination's profile has no record for.
            let d = self.rules.destinations.get(r.destination as usize)?;
            d.profile.expressible(event_type).then(|| Route {
                destination: self.destination_numbers[r.destination as usize],
                rule: self.rule_numbers[r.rule as usize],
                priority: self.rules.rules[r.rule as usize].priority.unwrap_or(priority),
            })
        }));
    }

    /// The destination of a number, if the rules still have it.
    pub(crate) fn destination(&self, number: u32) -> Option<&Arc<Destination>> {
        self.destinations.get(&number)
    }

    /// The number of a destination, if the rules have it.
    pub(crate) fn destination_number(&self, name: &str) -> Option<u32> {
        self.rules.destination(name).map(|place| self.destination_numbers[place as usize])
    }

    /// Takes over what outlives the rules before.
    pub(crate) fn follow(&mut self, before: &Snapshot) {
        // Lanes change their way when what they hold is out.
        self.hands_over |= before.hands_over;
    }

    /// Whether any destination has, or had in this run, all its events delivered by one shard.
    pub(crate) fn hands_over(&self) -> bool {
        self.hands_over
    }

    /// The destinations with their numbers.
    pub(crate) fn destinations(&self) -> impl Iterator<Item = (u32, &Arc<Destination>)> {
        self.destinations.iter().map(|(n, d)| (*n, d))
    }

    /// The id of a rule.
    pub(crate) fn rule_id(&self, number: u32) -> &str {
        self.rule_ids.get(&number).map_or("", |id| id)
    }
}

/// What is known of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    /// Everything.
    Whole,
    /// Type, bucket and key, as before the operation that it tells of; the rest perhaps.
    Before,
}

/// Working memory of [`Snapshot::routes`].
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    memory: MatchMemory,
    matched: Vec<u32>,
    routes: Vec<rule::Route>,
}
