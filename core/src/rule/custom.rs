//! Destinations that the host itself serves.

use std::time::Duration;

use super::destination::{TICK, TIMEOUT_MAX, check_name, within_time};
use crate::error::Result;

/// A function of the host that takes the batches ([`crate::custom::Handler`]).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Custom {
    /// The name under which the host gives the function ([`crate::Engine::set_handler`]); as that of a destination. In a file:
    /// `handler`, by default the destination's name. As long as there is none of this name, events wait.
    pub handler: String,
    /// How long the answer to a batch may take, up to 1 h; then it is tried again. Default: 15 s.
    pub timeout: Duration,
}

impl Custom {
    /// One that is served by the handler of this name.
    pub fn new(handler: impl Into<String>) -> Custom {
        Custom { handler: handler.into(), timeout: Duration::from_secs(15) }
    }

    pub(crate) fn validate(&self) -> Result<()> {
        check_name(&self.handler).map_err(|e| e.at("handler"))?;
        within_time("timeout", self.timeout, TICK, TIMEOUT_MAX)
    }
}
