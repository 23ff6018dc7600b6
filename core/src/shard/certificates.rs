//! The certificates of destinations: which end soon, and which files cannot be used.

use std::sync::Arc;
use std::time::Duration;

use crate::log::standing::Certificates;
use crate::net::tls::keeper::{Keeper, Shared, day};
use crate::net::tls::server_name;
use crate::rule::DestinationKind;

/// How often it is said that one ends.
const TOLD_EVERY_MS: u64 = 24 * 3600 * 1000;

/// The certificates of one destination.
#[derive(Debug)]
pub(super) struct Watched {
    shared: Arc<Shared>,
    /// As [`Shared`] knows the endpoint.
    server: String,
    warning: Duration,
    /// When it was said last that one ends: ours, the endpoint's.
    told_ms: [Option<u64>; 2],
}

impl Watched {
    /// Nothing without TLS.
    pub(super) fn of(kind: &DestinationKind, keeper: &Keeper) -> Option<Watched> {
        let w = kind.webhook()?;
        if w.url.scheme() != "https" {
            return None;
        }
        let host = w.tls.server_name.as_deref().or(w.url.host_str())?;
        let server = server_name(host).ok()?.to_str().into_owned();
        let shared = keeper.get(&w.tls, w.http2);
        Some(Watched { shared, server, warning: w.tls.expiry_warning, told_ms: [None; 2] })
    }

    /// Takes over what is known now.
    pub(super) fn update(&self, known: &mut Certificates) {
        // What is not known yet in this run is most likely still so.
        known.client_expires = self.shared.client_ends().or(known.client_expires);
        known.server_expires = self.shared.server_ends(&self.server).or(known.server_expires);
        known.trouble = self.shared.trouble();
    }

    /// Says which of them end soon, once a day.
    pub(super) fn warn(&mut self, name: &str, known: &Certificates, wall_ms: u64) {
        let all =
            [("the client certificate", known.client_expires), ("the endpoint's certificate", known.server_expires)];
        for ((what, ends), told_ms) in all.into_iter().zip(&mut self.told_ms) {
            let Some(ends) = ends else { continue };
            let is_told = told_ms.is_some_and(|at| wall_ms.saturating_sub(at) < TOLD_EVERY_MS);
            let left_s = ends.saturating_sub_unsigned(wall_ms / 1000);
            if is_told || left_s > i64::try_from(self.warning.as_secs()).unwrap_or(i64::MAX) {
                continue;
            }
            *told_ms = Some(wall_ms);
            match left_s {
                ..0 => log::error!("destination `{name}`: {what} expired on {}", day(ends)),
                _ => log::warn!("destination `{name}`: {what} expires on {}, in {} days", day(ends), left_s / 86400),
            }
        }
    }
}
