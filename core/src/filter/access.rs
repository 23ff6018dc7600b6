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

/// Ways to find filters: each is conditions of which at least one must hold.
#[derive(Debug, Default)]
pub(super) struct Ways<'r> {
    accesses: Vec<Access<'r>>,
    /// Where each way ends.
    ends: Vec<u32>,
}

impl<'r> Ways<'r> {
    /// None yet, with memory for so many of one condition each.
    pub(super) fn with_capacity(ways: usize) -> Ways<'r> {
        Ways { accesses: Vec::with_capacity(ways), ends: Vec::with_capacity(ways) }
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// The conditions of a way.
    pub(super) fn way(&self, number: usize) -> &[Access<'r>] {
        let start = number.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.accesses[start as usize..self.ends[number] as usize]
    }

    /// Where the conditions of a way stand among all.
    pub(super) fn range(&self, number: usize) -> std::ops::Range<usize> {
        let start = number.checked_sub(1).map_or(0, |before| self.ends[before]);
        start as usize..self.ends[number] as usize
    }

    pub(super) fn accesses(&self) -> &[Access<'r>] {
        &self.accesses
    }

    fn push(&mut self, access: Access<'r>) {
        self.accesses.push(access);
        self.ends.push(self.accesses.len() as u32);
    }

    fn push_all(&mut self, accesses: impl IntoIterator<Item = Access<'r>>) {
        self.accesses.extend(accesses);
        self.ends.push(self.accesses.len() as u32);
    }
}

/// The most places that a filter is filed under.
pub(super) const PLACES_MAX: usize = 64;

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
pub(super) fn ways<'r>(filter: &'r Filter, out: &mut Ways<'r>) {
    match filter {
        Filter::All(list) => list.iter().for_each(|f| ways(f, out)),
        Filter::Any(list) => {
            // Of each branch the one way that looks best by itself; together they are one.
            let (before, one) = (out.accesses.len(), out.ends.len());
            out.ends.push(before as u32);
            for branch in list {
                ways(branch, out);
                let cost = |way: &usize| out.way(*way).iter().map(|a| a.cost(1)).sum::<f32>();
                let best = (one + 1..out.len()).min_by(|a, b| cost(a).total_cmp(&cost(b)));
                let Some(best) = best else {
                    out.accesses.truncate(before);
                    break;
                };
                let best = out.range(best);
                out.accesses.truncate(best.end);
                out.accesses.drain(out.ends[one] as usize..best.start);
                out.ends.truncate(one);
                out.ends.push(out.accesses.len() as u32);
            }
            if out.accesses.len() == before || out.accesses.len() - before > PLACES_MAX {
                out.accesses.truncate(before);
                out.ends.truncate(one);
            }
        }
        Filter::Not(_) | Filter::Cel(_) => {}
        Filter::Is(Field::Key, test) => key_ways(test, out),
        Filter::Is(field, Test::Equals(value)) if is_looked_up(field) => {
            out.push(Access::Value(field.kind(), field.selector(), value));
        }
        Filter::Is(..) => {}
    }
}

/// Fields whose values tell few events from many.
pub(super) fn is_looked_up(field: &Field) -> bool {
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

fn key_ways<'r>(test: &'r Test, out: &mut Ways<'r>) {
    match test {
        Test::Equals(x) if !x.is_empty() => out.push(Access::Exact(Cow::Borrowed(x))),
        Test::Prefix(x) if !x.is_empty() => out.push(Access::Prefix(Cow::Borrowed(x))),
        Test::Suffix(x) if !x.is_empty() => out.push(Access::Suffix(Cow::Borrowed(x))),
        Test::Contains(x) if !x.is_empty() => out.push(Access::Infix(Cow::Borrowed(x))),
        Test::Wildcard(w) => wildcard_ways(w, out),
        Test::Regex(r) => match r.required() {
            Required::Nothing => {}
            Required::Prefix(x) => out.push(Access::Prefix(Cow::Borrowed(x))),
            Required::Suffix(x) => out.push(Access::Suffix(Cow::Borrowed(x))),
            Required::AnyOf(all) => out.push_all(all.iter().map(|x| Access::Infix(Cow::Borrowed(x)))),
        },
        _ => {}
    }
}

fn wildcard_ways<'r>(w: &'r Wildcard, out: &mut Ways<'r>) {
    let (star_first, parts, star_last) = w.parts();
    let parts: Vec<Part<'r>> = parts.collect();
    for (i, part) in parts.iter().enumerate() {
        let (first, last) = (i == 0 && !star_first, i + 1 == parts.len() && !star_last);
        let text = |pairs: &[u8]| Cow::Owned(pairs.chunks_exact(2).map(|p| p[1]).collect::<Vec<u8>>());
        match *part {
            Part::Plain(x) if first && last => out.push(Access::Exact(Cow::Borrowed(x))),
            Part::Plain(x) if first => out.push(Access::Prefix(Cow::Borrowed(x))),
            Part::Plain(x) if last => out.push(Access::Suffix(Cow::Borrowed(x))),
            Part::Plain(x) => out.push(Access::Infix(Cow::Borrowed(x))),
            Part::Mixed(pairs) => {
                let runs: Vec<&[u8]> = part.runs().collect();
                let at_start = pairs[0] == 0;
                let at_end = pairs[pairs.len() - 2] == 0;
                for (n, run) in runs.iter().enumerate() {
                    let run_text = text(run);
                    out.push(if first && n == 0 && at_start {
                        Access::Prefix(run_text)
                    } else if last && n + 1 == runs.len() && at_end {
                        Access::Suffix(run_text)
                    } else {
                        Access::Infix(run_text)
                    });
                }
            }
        }
    }
}
