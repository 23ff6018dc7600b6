//! The compression and encryption of a destination at work.

use std::sync::Arc;

use super::reread::Reread;
use crate::driver;
use crate::error::Result;
use crate::rule::Webhook;
use crate::wire::{Compression, Encryption, Sealer, Wrapped, wrap};

/// A body with more bytes than this is dealt with on another thread: it would hold up everything else of the shard.
const INLINE_BYTES_MAX: usize = 16 * 1024;

/// See the module. One for each destination and shard.
pub(super) struct Wrapping {
    host: String,
    compression: Option<Compression>,
    encryption: Option<(Arc<Encryption>, Reread<Sealer>)>,
}

impl Wrapping {
    /// Nothing, if bodies go as they are.
    pub(super) fn of(webhook: &Webhook) -> Option<Wrapping> {
        let encryption = webhook.encryption.clone().map(|e| (Arc::new(e), Reread::new()));
        (webhook.compression.is_some() || encryption.is_some()).then(|| Wrapping {
            host: webhook.url.host_str().unwrap_or_default().to_owned(),
            compression: webhook.compression,
            encryption,
        })
    }

    /// The media type of what goes on the wire, if it is not that of the body.
    pub(super) fn content_type(&self) -> Option<&'static str> {
        match self.encryption.as_ref().map(|(e, _)| &**e) {
            Some(Encryption::Jwe(_)) => Some("application/jose"),
            _ => None,
        }
    }

    /// The body, of a media type, as it goes on the wire.
    pub(super) async fn wrap(&self, body: Vec<u8>, content_type: &str) -> Result<Wrapped> {
        let sealer = match &self.encryption {
            None => None,
            Some((encryption, sealer)) => {
                let encryption = encryption.clone();
                Some(sealer.get(&self.host, move || Sealer::load(&encryption)).await?)
            }
        };
        let unix = (driver::system_ns() / 1_000_000_000) as i64;
        let compression = self.compression;
        if body.len() <= INLINE_BYTES_MAX {
            return wrap(body, content_type, compression.as_ref(), sealer.as_deref(), unix);
        }
        let content_type = content_type.to_owned();
        driver::blocking(move || wrap(body, &content_type, compression.as_ref(), sealer.as_deref(), unix)).await
    }
}
