//! Conditions in the Common Expression Language.
//!
//! The event is the variable `event`. Its fields have the names of the native form: `event.key`, `event.size`,
//! `event.event_type`, `event.tags["x"]`, `event.metadata["x"]`, `event.data.a.b`. Texts are strings, `size` and `hops` are
//! numbers, `time` is a timestamp; what is in `data` has the type that it has there.
//!
//! Understood are `&&`, `||`, `!`, `? :`, `==`, `!=`, `<`, `<=`, `>`, `>=`, `in` a list, `"x" in event.tags`, `has(…)`,
//! `startsWith`, `endsWith`, `contains`, `matches`, `timestamp("…")`, and numbers written as sums and products.
//! Everything else is refused, comprehensions (`all`, `exists`, `map`, `filter`) and conversions among it.
//!
//! A field that the event does not have is an error, as in CEL, and so is an operator on a value of another type. `&&` and
//! `||` go on without an operand that is an error where the other one decides; a filter that is an error as a whole does not
//! hold. `!(event.requester == "a")` is therefore false without a requester: write `!has(event.requester) || …`.
//!
//! Two things differ from CEL. A text that the event leaves empty is absent. And a list in `data` stands for each of its
//! elements: `event.data.list == "a"` holds if one of them is equal, its negation if there are some and none is.

mod lower;
mod parse;

use crate::error::{Error, Result};
use crate::filter::expression::Filter;

/// The longest expression, in bytes.
pub const CEL_BYTES_MAX: usize = 8192;

impl Filter {
    /// Reads a condition in the Common Expression Language on the variable `event`, such as
    /// `event.key.startsWith("in/") && event.size > 10 * 1024`.
    ///
    /// A field that the event does not have is an error, as in CEL; a filter that is an error does not hold.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidConfig`] with the column, and the part that is not understood.
    pub fn parse_cel(text: &str) -> Result<Filter> {
        if text.len() > CEL_BYTES_MAX {
            return Err(Error::invalid_config(format!(
                "the expression has {} bytes, more than {CEL_BYTES_MAX}",
                text.len()
            ))
            .at("cel")
            .remedy("shorten it, or split the rule"));
        }
        let wrong = |e: Wrong| {
            let column = text[..e.at].chars().count() + 1;
            e.error.at(format!("cel, column {column}"))
        };
        let expression = parse::parse(text).map_err(|e| wrong(*e))?;
        let filter = lower::lower(text, &expression).map_err(|e| wrong(*e))?;
        filter.validate().map_err(|e| e.at("cel"))?;
        Ok(filter)
    }
}

/// An error and the offset that it is about.
#[derive(Debug)]
struct Wrong {
    at: usize,
    error: Error,
}

#[cold]
fn wrong(at: usize, message: impl Into<String>, remedy: impl Into<String>) -> Box<Wrong> {
    Box::new(Wrong { at, error: Error::invalid_config(message).remedy(remedy) })
}

#[cfg(test)]
mod tests;
