//! Conditions in the Common Expression Language.
//!
//! The event is the variable `event`. Its fields have the names of the native form: `event.key`, `event.size`,
//! `event.event_type`, `event.tags["x"]`, `event.metadata["x"]`, `event.data.a.b`. Texts are strings, `size` and `hops` are
//! ints, `time` is a timestamp; what is in `data` has the type that it has there, whole numbers are ints. `tags`, `metadata`
//! and `data` are maps, empty if the event has none; names of metadata are in lower case, without `x-amz-meta-`.
//!
//! The whole language is understood but for macros and comprehensions (`all`, `exists`, `map`, `filter`), of which there is
//! `has(…)` alone, and for messages and optional values.
//!
//! # What becomes tests, and what is evaluated
//!
//! `&&`, `||`, `!` and `? :` of conditions become connectives. A field compared with a value that is written out (`==`, `!=`,
//! `<`, `<=`, `>`, `>=`, `in` a list), `startsWith`, `endsWith`, `contains` and `matches` of a field with a text that is
//! written out, `has(…)`, `"x" in event.tags` and booleans in `data` become tests, as if they were written in the native form:
//! they are looked up in the index, and matching allocates nothing. A value that is written out may be calculated from
//! others: `10 * 1024`, `timestamp("…")`.
//!
//! Everything else is evaluated as it stands, event by event: arithmetic, `size()` and other functions of fields, conversions,
//! fields compared with each other, the order of texts, elements of lists, `in` a list of the data. So is each largest part of
//! a filter that is no test, and it is evaluated last, for events that have passed all that is tested with `&&` beside it. It
//! takes memory and microseconds where a test takes nanoseconds, more for large data. Regular expressions are not evaluated:
//! `matches` must be a condition of its own.
//!
//! # Errors
//!
//! A field that the event does not have is an error, as in CEL, and so is an operator on a value of another type, a number
//! that does not fit and a division by zero. `&&` and `||` go on without an operand that is an error where the other one
//! decides; a filter that is an error as a whole does not hold. `!(event.requester == "a")` is therefore false without a
//! requester: write `!has(event.requester) || …`.
//!
//! # Where it is not as in CEL
//!
//! A text that the event leaves empty is absent. And in tests, a list in `data` stands for each of its elements:
//! `event.data.list == "a"` holds if one of them is equal, its negation if there are some and none is, and so it is with
//! `<` and the numbers of a list; an object has no value
//! and is as if it were absent, and `has(event.data.a.b)` is false, not an error, where `a` is no object. In what is evaluated,
//! lists and objects of `data` are the lists and maps of CEL.
//!
//! A key that is no UTF-8 is of the type `bytes` in what is evaluated: `size(event.key)` is its length, `event.key + "x"` is an
//! error, and it equals no string. Tests compare its raw bytes.

#[cfg(feature = "cel")]
mod check;
#[cfg(feature = "cel")]
mod lower;
#[cfg(feature = "cel")]
mod parser;
#[cfg(feature = "cel")]
mod rest;
#[cfg(feature = "cel")]
mod show;

use crate::error::{Error, Result};
use crate::filter::expression::Filter;

/// The longest expression, in bytes.
pub const CEL_BYTES_MAX: usize = 8192;

impl Filter {
    /// Reads a condition in the Common Expression Language on the variable `event`, such as
    /// `event.key.startsWith("in/") && event.size > 10 * 1024`.
    ///
    /// What is no test of a field becomes a [`Filter::Cel`], which is evaluated. A field that the event does not have is an
    /// error, as in CEL; a filter that is an error does not hold.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidConfig`] with the column, and the part that is not understood. Without the cargo feature
    /// `cel`, always.
    pub fn parse_cel(text: &str) -> Result<Filter> {
        if text.len() > CEL_BYTES_MAX {
            return Err(Error::invalid_config(format!(
                "the expression has {} bytes, more than {CEL_BYTES_MAX}",
                text.len()
            ))
            .at("cel")
            .remedy("shorten it, or split the rule"));
        }
        parse(text)
    }
}

#[cfg(not(feature = "cel"))]
fn parse(_: &str) -> Result<Filter> {
    Err(Error::invalid_config("conditions in CEL are not in this build of Tidewire")
        .at("cel")
        .remedy("build it with the cargo feature `cel`, or write the condition in the native form"))
}

#[cfg(feature = "cel")]
fn parse(text: &str) -> Result<Filter> {
    let expression = parser::parse(text).map_err(|e| parser::placed(text, *e))?;
    let filter = lower::lower(&expression).map_err(|e| parser::placed(text, *e))?;
    filter.validate().map_err(|e| e.at("cel"))?;
    Ok(filter)
}

/// An error and what it is about.
#[cfg(feature = "cel")]
#[derive(Debug)]
struct Wrong {
    at: At,
    error: Error,
}

#[cfg(feature = "cel")]
#[derive(Debug)]
enum At {
    /// What stands there.
    Offset(usize),
    /// An expression: the ids of it and its parts.
    Parts(Vec<u64>),
}

#[cfg(feature = "cel")]
#[cold]
fn wrong(at: usize, message: impl Into<String>, remedy: impl Into<String>) -> Box<Wrong> {
    Box::new(Wrong { at: At::Offset(at), error: Error::invalid_config(message).remedy(remedy) })
}

#[cfg(all(test, feature = "cel"))]
mod tests;

#[cfg(all(test, not(feature = "cel")))]
mod tests {
    use super::*;

    #[test]
    fn without_the_feature_it_is_named() {
        let e = Filter::parse_cel("event.key == 'a'").unwrap_err();
        assert!(
            e.to_string().contains("not in this build") && e.remedy_text().is_some_and(|r| r.contains("`cel`")),
            "{e}"
        );
    }
}
