//! Conditions on what follows from an event's type alone.

use crate::event::KnownType;
use crate::filter::expression::{Field, Filter, Test};
use crate::filter::subject::{Kind, Value};

/// A text that each type of the registry has, or not.
pub(super) type OfType = fn(KnownType) -> Option<&'static str>;

/// The event's type is one of these.
pub(super) fn one_of(types: &[KnownType]) -> Filter {
    let mut any: Vec<Filter> = Vec::new();
    for t in types {
        let name = t.name();
        // A family of which none is missing is one test.
        let stem = &name[..name.rfind(':').map_or(name.len(), |i| i + 1)];
        let mut family = KnownType::ALL.iter().filter(|t| t.name().starts_with(stem));
        let whole = name.starts_with("s3:") && stem != "s3:" && family.clone().count() > 1;
        let test = match whole && family.all(|t| types.contains(t)) {
            true => Test::prefix(stem),
            false => Test::equals(name),
        };
        let is = Filter::Is(Field::EventType, test);
        if !any.contains(&is) {
            any.push(is);
        }
    }
    Filter::any(any)
}

/// Events whose types have a text that passes one of the tests; with [`Test::Absent`] also those that have none, as the
/// types of a host never have. `None` if there are no such types.
pub(super) fn decide(of: OfType, tests: &[Test]) -> Option<Filter> {
    let passes = |t: &KnownType| {
        of(*t).is_some_and(|text| tests.iter().any(|test| test.passes(Kind::EventType, Value::Text(text.as_bytes()))))
    };
    let some: Vec<KnownType> = KnownType::ALL.iter().copied().filter(passes).collect();
    let mut any = Vec::new();
    if !some.is_empty() {
        any.push(one_of(&some));
    }
    if tests.contains(&Test::Absent) {
        let having: Vec<KnownType> = KnownType::ALL.iter().copied().filter(|t| of(*t).is_some()).collect();
        any.push(one_of(&having).not());
    }
    (!any.is_empty()).then(|| Filter::any(any))
}

/// The texts that types have, each once.
pub(super) fn values(of: OfType) -> Vec<&'static str> {
    let mut all: Vec<&str> = KnownType::ALL.iter().filter_map(|t| of(*t)).collect();
    all.sort_unstable();
    all.dedup();
    all
}
