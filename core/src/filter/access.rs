//! By what a filter is found: conditions of which one must hold for the whole to hold, and which an index can look up.

use std::borrow::Cow;

use super::expression::{Field, Filter, Test};
use super::pattern::{Part, Required, Wildcard};
use super::subject::Kind;

/// One condition that an index can look up.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Access<'r> {
    /// The key is this.
    Exact(Cow<'r, [u8]>),
    /// The key begins with this. Empty: nothing is known of the key.
    Prefix(Cow<'r, [u8]>),
    /// The key ends with this.
    Suffix(Cow<'r, [u8]>),
    /// The key has this in it.
    Infix(Cow<'r, [u8]>),
    /// A field other than the key has this value: which field, its name in brackets, the value.
    Value(Kind, Cow<'r, [u8]>, &'r [u8]),
}

/// Conditions of which at least one must hold.
pub(super) type AnyOf<'r> = Vec<Access<'r>>;

/// The most places that a filter is filed under.
const PLACES_MAX: usize = 64;

impl Access<'_> {
    /// How many events and rules are expected to meet here, in arbitrary units, given how many rules have this condition.
    pub(super) fn cost(&self, uses: u32) -> f32 {
        let uses = uses as f32;
        match self {
            Access::Exact(_) => 0.001 * uses,
            Access::Prefix(x) | Access::Suffix(x) => uses / (1 + x.len()) as f32,
            // One probe for each value that an event has.
            Access::Value(..) => 0.1 * uses + 0.2,
            // One more pass over the key.
            Access::Infix(x) => uses / (1 + x.len()) as f32 + 0.5,
        }
    }
}

/// Appends the ways to find a filter; any one of them will do. None if it can only be tried.
pub(super) fn ways<'r>(filter: &'r Filter, out: &mut Vec<AnyOf<'r>>) {
    match filter {
        Filter::All(list) => list.iter().for_each(|f| ways(f, out)),
        Filter::Any(list) => {
            // Of each branch the one way that looks best by itself.
            let mut all = Vec::new();
            for branch in list {
                let mut own = Vec::new();
                ways(branch, &mut own);
                let cost = |way: &AnyOf<'_>| way.iter().map(|a| a.cost(1)).sum::<f32>();
                let Some(best) = own.into_iter().min_by(|a, b| cost(a).total_cmp(&cost(b))) else { return };
                all.extend(best);
            }
            if !all.is_empty() && all.len() <= PLACES_MAX {
                out.push(all);
            }
        }
        Filter::Not(_) => {}
        Filter::Is(Field::Key, test) => key_ways(test, out),
        Filter::Is(field, Test::Equals(value)) if is_looked_up(field) => {
            out.push(vec![Access::Value(field.kind(), Cow::Owned(field.selector()), value)]);
        }
        Filter::Is(..) => {}
    }
}

/// Fields whose values tell few events from many.
fn is_looked_up(field: &Field) -> bool {
    matches!(
        field,
        Field::VersionId
            | Field::Etag
            | Field::Requester
            | Field::SourceIp
            | Field::RequestId
            | Field::HostId
            | Field::ContentType
            | Field::BucketOwner
            | Field::Metadata(_)
            | Field::Tag(_)
    )
}

fn key_ways<'r>(test: &'r Test, out: &mut Vec<AnyOf<'r>>) {
    match test {
        Test::Equals(x) if !x.is_empty() => out.push(vec![Access::Exact(Cow::Borrowed(x))]),
        Test::Prefix(x) if !x.is_empty() => out.push(vec![Access::Prefix(Cow::Borrowed(x))]),
        Test::Suffix(x) if !x.is_empty() => out.push(vec![Access::Suffix(Cow::Borrowed(x))]),
        Test::Contains(x) if !x.is_empty() => out.push(vec![Access::Infix(Cow::Borrowed(x))]),
        Test::Wildcard(w) => wildcard_ways(w, out),
        Test::Regex(r) => match r.required() {
            Required::Nothing => {}
            Required::Prefix(x) => out.push(vec![Access::Prefix(Cow::Borrowed(x))]),
            Required::Suffix(x) => out.push(vec![Access::Suffix(Cow::Borrowed(x))]),
            Required::AnyOf(all) => out.push(all.iter().map(|x| Access::Infix(Cow::Borrowed(&**x))).collect()),
        },
        _ => {}
    }
}

fn wildcard_ways<'r>(w: &'r Wildcard, out: &mut Vec<AnyOf<'r>>) {
    let (star_first, parts, star_last) = w.parts();
    let parts: Vec<Part<'r>> = parts.collect();
    for (i, part) in parts.iter().enumerate() {
        let (first, last) = (i == 0 && !star_first, i + 1 == parts.len() && !star_last);
        let text = |pairs: &[u8]| Cow::Owned(pairs.chunks_exact(2).map(|p| p[1]).collect::<Vec<u8>>());
        match *part {
            Part::Plain(x) if first && last => out.push(vec![Access::Exact(Cow::Borrowed(x))]),
            Part::Plain(x) if first => out.push(vec![Access::Prefix(Cow::Borrowed(x))]),
            Part::Plain(x) if last => out.push(vec![Access::Suffix(Cow::Borrowed(x))]),
            Part::Plain(x) => out.push(vec![Access::Infix(Cow::Borrowed(x))]),
            Part::Mixed(pairs) => {
                let runs: Vec<&[u8]> = part.runs().collect();
                let at_start = pairs[0] == 0;
                let at_end = pairs[pairs.len() - 2] == 0;
                for (n, run) in runs.iter().enumerate() {
                    let run_text = text(run);
                    out.push(vec![if first && n == 0 && at_start {
                        Access::Prefix(run_text)
                    } else if last && n + 1 == runs.len() && at_end {
                        Access::Suffix(run_text)
                    } else {
                        Access::Infix(run_text)
                    }]);
                }
            }
        }
    }
}
