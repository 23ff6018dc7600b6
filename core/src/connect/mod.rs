//! Connectors: one file per kind of system.

#[cfg(feature = "bench")]
pub mod bench;
mod credentials;
mod webhook;

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
    let (profile, concurrency) = (destination.profile, destination.concurrency);
    match &destination.kind {
        DestinationKind::Webhook(w) => Ok(Rc::new(webhook::WebhookConnector::new(w, profile, concurrency, network)?)),
    }
}
