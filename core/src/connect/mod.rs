//! Connectors: one file per kind of system.

#[cfg(feature = "bench")]
pub mod bench;
mod credentials;
pub mod custom;
mod http2;
mod parts;
mod probe;
mod reread;
pub(crate) mod tokens;
pub(crate) mod trace;
mod verify;
mod webhook;
mod wrapping;

pub use probe::{TestReport, test_destination};
pub use trace::TestStep;
pub(crate) use verify::{Unwilling, verify};

use std::rc::Rc;
use std::sync::Arc;

use crate::config::Network;
use crate::delivery::Connector;
use crate::error::Result;
use crate::rule::{Destination, DestinationKind};
use custom::{Answers, CustomConnector};

/// The connector of a destination, for one shard, whose answers of the host are these. Nothing is connected yet.
///
/// # Errors
/// If a file that it needs (an authority, a key) cannot be read.
pub(crate) fn connector(
    destination: &Destination,
    network: &Arc<Network>,
    answers: &Rc<Answers>,
) -> Result<Rc<dyn Connector>> {
    let form = (destination.profile, &destination.format);
    let concurrency = destination.concurrency;
    match &destination.kind {
        DestinationKind::Webhook(w) => Ok(Rc::new(webhook::WebhookConnector::new(w, form, concurrency, network)?)),
        DestinationKind::Custom(c) => Ok(Rc::new(CustomConnector::new(destination, c, &network.handlers, answers))),
    }
}
