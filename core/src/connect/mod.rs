//! Connectors: one file per kind of system.

#[cfg(feature = "bench")]
pub mod bench;
mod credentials;
mod http2;
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

/// The connector of a destination, for one shard. Nothing is connected yet.
///
/// # Errors
/// If a file that it needs (an authority, a key) cannot be read.
pub(crate) fn connector(destination: &Destination, network: &Arc<Network>) -> Result<Rc<dyn Connector>> {
    let form = (destination.profile, &destination.format);
    let concurrency = destination.concurrency;
    match &destination.kind {
        DestinationKind::Webhook(w) => Ok(Rc::new(webhook::WebhookConnector::new(w, form, concurrency, network)?)),
    }
}
