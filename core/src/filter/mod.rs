//! What is wanted: conditions on an event, and the index that finds the rules whose conditions hold.
//!
//! All front ends are read into one tree, [`Filter`]; [`Matcher`] is what a set of rules is compiled to. Conditions look at
//! the raw bytes of the key: nothing is decoded, and `*`, `?`, `+` and `%` stand for themselves except in a [`Wildcard`].

mod access;
mod builder;
mod bytes;
mod cel;
mod compiler;
mod evaluate;
mod events;
mod explain;
mod expression;
mod front;
mod grams;
mod limits;
mod lint;
mod matcher;
mod number;
mod pattern;
mod plan;
mod planes;
mod program;
mod region;
mod scope;
mod subject;
mod walk;
mod window;

pub use self::cel::Cel;
pub use compiler::{Compiler, LAYER_GROWTH, LAYER_RULES_MIN, Merge, Merged, Replaced, Rules};
pub use events::EventFilter;
pub use explain::Unmet;
pub use expression::{Affix, FILTER_DEPTH_MAX, FILTER_NODES_MAX, FILTER_TEXT_BYTES_MAX, Field, Filter, Folded, Test};
pub use front::{CEL_BYTES_MAX, FILTER_SCHEMA, NamedFilters, PatternOf, SourceOf};
pub(crate) use front::{Fault, OwnStep, parse_json, toml_to_json};
pub use limits::{FilterLimits, FilterUsage};
pub use matcher::Matcher;
pub use number::{Bound, Number, Range};
pub use pattern::{REGEX_BYTES_MAX, REGEX_MEMORY_MAX, Regex, WILDCARD_STARS_MAX, Wildcard};
pub use plan::{Cost, Filing, Plan, Plans, Totals, plan};
pub use program::{Next, Step};
pub use scope::MatchMemory;
pub use subject::{DataMemory, Subject};
pub use window::Window;

use crate::error::{Error, Result};

/// The bytes that a form-encoded text stands for: `+` is a space, `%` and two hex digits are a byte.
///
/// S3 documents exported from elsewhere hold filter values in this form (`schemaVersion%3D1/`).
///
/// # Errors
/// [`crate::ErrorKind::InvalidConfig`] if a `%` is not followed by two hex digits.
pub fn decode_form(text: &str) -> Result<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(b) = bytes.next() {
        out.push(match b {
            b'+' => b' ',
            b'%' => {
                let digit = |b: Option<u8>| b.and_then(|b| char::from(b).to_digit(16));
                let (Some(high), Some(low)) = (digit(bytes.next()), digit(bytes.next())) else {
                    return Err(Error::invalid_config(format!(
                        "`{text}` is not form-encoded: a `%` lacks its two hex digits"
                    ))
                    .remedy(
                        "write `%25` for a percent sign, or read the values as they are (filter_values = \"raw\")",
                    ));
                };
                (high * 16 + low) as u8
            }
            b => b,
        });
    }
    Ok(out)
}

#[cfg(test)]
mod oracle;
#[cfg(test)]
mod tests;
