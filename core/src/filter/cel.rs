//! A condition in CEL that no tests can be made of: it is evaluated, event by event.
//!
//! It is the dearest condition there is: the event's values are built each time, which takes memory, and the expression is
//! walked. So it comes last, for events that have passed everything else of the filter, and no filter is filed under it.
//!
//! What it may cost is bounded when it is read: each part of the expression is evaluated at most once, for there are no
//! comprehensions; the number of parts and how deep they are nested have limits, and so has what sums copy. The cost of one
//! evaluation is therefore at most linear in the size of the event.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use super::subject::Subject;

#[cfg(feature = "cel")]
mod program;
#[cfg(feature = "cel")]
mod values;

#[cfg(all(test, feature = "cel"))]
pub(super) use program::EVALUATIONS;
#[cfg(feature = "cel")]
pub(super) use program::{FUNCTIONS, Program, constant};
#[cfg(feature = "cel")]
pub(super) use values::Wanted;

/// There is none without the feature `cel`.
#[cfg(not(feature = "cel"))]
pub(super) enum Program {}

/// An expression in CEL and what it must give for the condition to hold: true, or false. One that gives neither, because it
/// is an error, meets neither condition.
///
/// Made by [`super::Filter::parse_cel`], immutable, cheap to clone. Equal are conditions of the same text.
#[derive(Clone)]
pub struct Cel {
    program: Arc<Program>,
    wanted: bool,
}

impl Cel {
    #[cfg(feature = "cel")]
    pub(super) fn new(program: Program, wanted: bool) -> Cel {
        Cel { program: Arc::new(program), wanted }
    }

    /// The expression as it is written out, without the parentheses that it can do without.
    pub fn text(&self) -> &str {
        self.program.text()
    }

    /// What the expression must give.
    pub fn wanted(&self) -> bool {
        self.wanted
    }

    /// An expression that is true where the condition holds.
    pub fn condition(&self) -> String {
        if self.wanted { self.text().to_owned() } else { format!("!({})", self.text()) }
    }

    /// How many parts the expression has; at least 1.
    pub fn nodes(&self) -> usize {
        self.program.nodes()
    }

    /// The longest text that is written in the expression, in bytes.
    pub(super) fn literal_bytes(&self) -> usize {
        self.program.literal_bytes()
    }

    /// Bytes of memory that the expression takes, roughly.
    pub(super) fn bytes(&self) -> usize {
        self.program.bytes()
    }

    /// Clones have the same, other expressions another one.
    pub(super) fn address(&self) -> usize {
        Arc::as_ptr(&self.program) as usize
    }

    /// Whether the condition holds.
    pub(super) fn passes(&self, subject: &mut Subject<'_>) -> bool {
        self.program.evaluate(subject) == Ok(self.wanted)
    }

    /// What the expression gives, as people read it.
    pub(super) fn told(&self, subject: &mut Subject<'_>) -> String {
        match self.program.evaluate(subject) {
            Ok(is) => is.to_string(),
            Err(why) => format!("an error: {why}"),
        }
    }
}

#[cfg(not(feature = "cel"))]
impl Program {
    fn text(&self) -> &str {
        match *self {}
    }

    fn nodes(&self) -> usize {
        match *self {}
    }

    fn literal_bytes(&self) -> usize {
        match *self {}
    }

    fn bytes(&self) -> usize {
        match *self {}
    }

    fn evaluate(&self, _: &mut Subject<'_>) -> Result<bool, String> {
        match *self {}
    }
}

impl fmt::Debug for Cel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Cel").field(&self.condition()).finish()
    }
}

impl PartialEq for Cel {
    fn eq(&self, other: &Cel) -> bool {
        self.wanted == other.wanted && self.text() == other.text()
    }
}

impl Eq for Cel {}

impl Hash for Cel {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.wanted.hash(state);
        self.text().hash(state);
    }
}
