//! What is wanted: conditions on an event, and the index that finds the rules whose conditions hold.
//!
//! Today a [`Filter`] is what S3 offers, a prefix and a suffix of the key. The boolean expression tree (other fields of
//! the event, and, or, not, patterns) takes its place here: [`Filter`] becomes the leaf that S3 documents compile to,
//! and [`Matcher`] keeps its face.
//!
//! Conditions look at the raw bytes of the key. Nothing is decoded, nothing is a wildcard: `*`, `?`, `+` and `%` stand
//! for themselves.

mod events;
mod matcher;
mod trie;

pub use events::EventFilter;
pub use matcher::Matcher;

use crate::error::{Error, Result};
use crate::event::KEY_BYTES_MAX;

/// A condition on the key: it starts with `prefix` and ends with `suffix`.
///
/// The two are tested separately, so that they may overlap: key `abc` passes prefix `ab` with suffix `bc`. Empty means
/// no condition; [`Filter::default`] passes everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Filter {
    /// What the key starts with, as raw bytes; at most [`KEY_BYTES_MAX`] of them.
    pub prefix: Vec<u8>,
    /// What the key ends with, as raw bytes; at most [`KEY_BYTES_MAX`] of them.
    pub suffix: Vec<u8>,
}

impl Filter {
    /// The condition on prefix and suffix.
    pub fn new(prefix: impl Into<Vec<u8>>, suffix: impl Into<Vec<u8>>) -> Filter {
        Filter { prefix: prefix.into(), suffix: suffix.into() }
    }

    /// Whether the key passes.
    #[inline]
    pub fn matches(&self, key: &[u8]) -> bool {
        key.starts_with(&self.prefix) && key.ends_with(&self.suffix)
    }

    /// Checks the lengths.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidConfig`] if prefix or suffix is longer than a key can be.
    pub fn validate(&self) -> Result<()> {
        for (name, value) in [("prefix", &self.prefix), ("suffix", &self.suffix)] {
            if value.len() > KEY_BYTES_MAX {
                return Err(Error::invalid_config(format!(
                    "the {name} has {} bytes, more than {KEY_BYTES_MAX}",
                    value.len()
                ))
                .at(name)
                .remedy("shorten it: no key is longer, so it would match nothing"));
            }
        }
        Ok(())
    }
}

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
mod tests;
