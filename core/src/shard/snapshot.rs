//! The rules as the publishers and shards see them: immutable, swapped as a whole.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::driver;
use crate::event::profile::Choice;
use crate::event::{Event, EventType, EventTypes, FrameView, KnownType, Priority, frame};
use crate::filter::{Field, MatchMemory, Matcher};
use crate::log::names::Name;
use crate::log::record::Route;
use crate::rule::{Destination, LiveDestinations, RuleTable};
use crate::table::Table;

/// One version of the rules, with the numbers that the log knows them by.
///
/// One that differs in a rule shares with the one before whatever is the same.
#[derive(Debug)]
pub(crate) struct Snapshot {
    /// That of the rules: it grows with each change of them.
    pub(crate) version: u64,
    pub(crate) matcher: Matcher,
    /// By the numbers that the matcher gives.
    pub(crate) rules: RuleTable,
    pub(crate) destinations: Arc<LiveDestinations>,
    pub(crate) types: Arc<EventTypes>,
    /// Names by number, also of rules that are gone but whose events may still be in the log.
    pub(crate) names: Table<Name>,
    /// Any destination has, or had in this run, all its events delivered by one shard.
    pub(crate) hands_over: bool,
    /// Some rule keeps events that no destination wants.
    pub(crate) retains: bool,
    /// Every event is kept.
    pub(crate) keep_all: bool,
}

/// The known types that the rules of every bucket want. For these a publisher need not hold the snapshot, which costs two
/// locked instructions.
#[derive(Debug, Default)]
pub(crate) struct Everywhere([AtomicU64; Everywhere::WORDS]);

impl Everywhere {
    const WORDS: usize = 2;

    pub(crate) fn of(snapshot: &Snapshot) -> Everywhere {
        let everywhere = Everywhere::default();
        everywhere.follow(snapshot);
        everywhere
    }

    /// Goes over to the rules that have just come into force. Whoever publishes at this moment may still see the former ones.
    pub(crate) fn follow(&self, snapshot: &Snapshot) {
        let mut words = [0; Everywhere::WORDS];
        for t in KnownType::ALL {
            if snapshot.keep_all || snapshot.matcher.interested_everywhere((*t).into()) {
                words[*t as usize / 64] |= 1 << (*t as usize % 64);
            }
        }
        self.0.iter().zip(words).for_each(|(word, now)| word.store(now, Ordering::Release));
    }

    /// As bits, by the numbers of the types.
    pub(crate) fn words(&self) -> [u64; Everywhere::WORDS] {
        self.0.each_ref().map(|word| word.load(Ordering::Acquire))
    }

    #[inline]
    pub(crate) fn wants(&self, event_type: EventType<'_>) -> bool {
        match event_type {
            EventType::Known(t) => self.0[t as usize / 64].load(Ordering::Acquire) & 1 << (t as usize % 64) != 0,
            EventType::Custom(_) => false,
        }
    }
}

/// Which of an event's metadata and tags are of use to somebody.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DetailsWanted {
    /// A rule that may want the event looks at metadata or keeps the event, or the records of a destination carry it.
    pub metadata: bool,
    /// The same of tags.
    pub tags: bool,
}

impl DetailsWanted {
    /// Both.
    pub const ALL: DetailsWanted = DetailsWanted { metadata: true, tags: true };

    /// What either wants.
    #[must_use]
    pub fn or(self, other: DetailsWanted) -> DetailsWanted {
        DetailsWanted { metadata: self.metadata || other.metadata, tags: self.tags || other.tags }
    }
}

impl Snapshot {
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

    /// Which metadata and tags of an event may be of use, as far as that can be known from its type, bucket and key.
    pub(crate) fn details_wanted(&self, event: &Event<'_>, scratch: &mut Scratch) -> DetailsWanted {
        if self.keep_all {
            return DetailsWanted::ALL;
        }
        scratch.matched.clear();
        let bytes = frame::encode_to_vec(event, driver::wall_ns());
        self.matcher.may_match(&FrameView::trusted(&bytes), &mut scratch.memory, &mut scratch.matched);
        let mut wanted = DetailsWanted::default();
        for rule in scratch.matched.iter().filter_map(|place| self.rules.get(*place)) {
            let told = rule.targets.iter().filter(|t| t.profile.expressible(event.event_type));
            let mut formats = told.filter_map(|t| Some(&self.destination(t.destination)?.format)).peekable();
            if rule.retains() {
                return DetailsWanted::ALL;
            }
            if formats.peek().is_some() {
                wanted = wanted.or(DetailsWanted {
                    metadata: rule.filter().looks_at(&|field| matches!(field, Field::Metadata(_))),
                    tags: rule.filter().looks_at(&|field| matches!(field, Field::Tag(_))),
                });
            }
            wanted = formats.fold(wanted, |wanted, format| {
                wanted
                    .or(DetailsWanted { metadata: format.metadata != Choice::None, tags: format.tags != Choice::None })
            });
        }
        wanted
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
        let keeper = scratch.matched.iter().filter_map(|place| self.rules.get(*place)).find(|r| r.retains());
        let rule = keeper.map_or(0, |r| r.number);
        (keeper.is_some() || self.keep_all).then(|| Route::new(Route::NOBODY, rule))
    }

    /// A destination comes once, with the first rule that sends it there, and once more for every later rule that repeats
    /// ([`crate::rule::Rule::repeat`]).
    fn destination_routes(
        &self,
        event_type: EventType<'_>,
        priority: Priority,
        scratch: &mut Scratch,
        out: &mut Vec<Route>,
    ) {
        let wanted = &mut scratch.wanted;
        wanted.clear();
        for &place in &scratch.matched {
            let Some(rule) = self.rules.get(place) else { continue };
            // A wildcard rule may match what the destination's profile has no record for.
            let told = rule.targets.iter().filter(|t| t.profile.expressible(event_type));
            let route =
                |destination| Route { destination, rule: rule.number, priority: rule.priority().unwrap_or(priority) };
            wanted.extend(told.map(|t| (t.destination, place, rule.repeats(), route(t.destination))));
        }
        if wanted.len() > 1 {
            wanted.sort_unstable_by_key(|(destination, place, ..)| (*destination, *place));
            wanted.dedup_by(|later, kept| later.0 == kept.0 && !later.2);
        }
        out.extend(wanted.iter().map(|(.., route)| *route));
    }

    /// The destination of a number, if the rules still have it.
    pub(crate) fn destination(&self, number: u32) -> Option<&Arc<Destination>> {
        self.destinations.get(number)
    }

    /// The number of a destination, if the rules have it.
    pub(crate) fn destination_number(&self, name: &str) -> Option<u32> {
        self.destinations.by_name(name).map(|d| d.number)
    }

    /// The destination of a number, or if that is gone the one that has its name now.
    pub(crate) fn current(&self, number: u32) -> Option<(u32, &Arc<Destination>)> {
        if let Some(d) = self.destination(number) {
            return Some((number, d));
        }
        let Some(Name::Destination(name)) = self.names.get(number) else { return None };
        self.destinations.by_name(name).map(|d| (d.number, &d.destination))
    }

    /// The names of the destinations.
    pub(crate) fn destination_names(&self) -> impl Iterator<Item = &str> {
        self.destinations.by_number().map(|(_, d)| d.name.as_str())
    }

    /// The id of a rule.
    pub(crate) fn rule_id(&self, number: u32) -> &str {
        match self.names.get(number) {
            Some(Name::Rule(id)) => id,
            _ => "",
        }
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

/// How many events each rule has wanted since that was told last.
#[derive(Debug, Default)]
pub(crate) struct Matches {
    /// By the rule's place.
    counts: Vec<u32>,
    /// The places with a count.
    places: Vec<u32>,
}

impl Matches {
    /// The rules of the event that was matched last have wanted it.
    #[inline]
    pub(crate) fn count(&mut self, scratch: &Scratch) {
        for &place in &scratch.matched {
            let at = place as usize;
            if at >= self.counts.len() {
                self.counts.resize(at + 1, 0);
            }
            if self.counts[at] == 0 {
                self.places.push(place);
            }
            self.counts[at] += 1;
        }
    }

    /// Tells the rules, which are those that were matched with.
    pub(crate) fn tell(&mut self, snapshot: &Snapshot) {
        for place in self.places.drain(..) {
            let count = std::mem::take(&mut self.counts[place as usize]);
            if let Some(rule) = snapshot.rules.get(place) {
                rule.add_matched(count);
            }
        }
    }
}

/// Working memory of [`Snapshot::routes`].
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    memory: MatchMemory,
    matched: Vec<u32>,
    /// Destination, place of the rule, whether it repeats, and the route.
    wanted: Vec<(u32, u32, bool, Route)>,
}
