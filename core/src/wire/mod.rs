//! What becomes of a body before it goes on the wire: it is compressed, then encrypted. What is signed is the result.
//!
//! Pure but for the reading of keys; random bytes come from the system.

mod aes128gcm;
mod compress;
mod config;
mod jwe;
mod key;

#[cfg(test)]
mod tests;

pub use aes128gcm::Aes128Gcm;
pub use compress::{Compression, CompressionAlgorithm};
pub(crate) use config::{read_compression, read_encryption, write_compression, write_encryption};
pub use jwe::{Jwe, JweAlgorithm};

use crate::auth::{Keys, Reader, Secrets};
use crate::error::{Error, ErrorKind, Result};

/// How bodies are encrypted for the receiver. Its `Debug` form shows no key.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Encryption {
    /// JSON Web Encryption (RFC 7516) in the compact form, `application/jose`.
    Jwe(Jwe),
    /// Encrypted content encoding (RFC 8188).
    Aes128Gcm(Aes128Gcm),
}

impl Encryption {
    /// Its name in the configuration.
    pub fn scheme(&self) -> &'static str {
        match self {
            Encryption::Jwe(_) => "jwe",
            Encryption::Aes128Gcm(_) => "aes128gcm",
        }
    }

    /// The keys. The first valid one is used.
    pub fn secrets(&self) -> &Secrets {
        match self {
            Encryption::Jwe(e) => &e.secrets,
            Encryption::Aes128Gcm(e) => &e.secrets,
        }
    }

    /// Checks what can be checked without reading anything.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] that names the field. No error shows a key.
    pub fn validate(&self) -> Result<()> {
        Sealer::read(self, &mut Reader::literal_only()).map(drop)
    }

    /// Reads the keys, and checks those too. May block.
    ///
    /// # Errors
    /// As [`Encryption::validate`]; and if a variable or a file is not there, or cannot be read.
    pub fn check(&self) -> Result<()> {
        Sealer::read(self, &mut Reader::default()).map(drop)
    }
}

enum Loaded {
    Jwe(JweAlgorithm, Keys<jwe::Key>),
    Aes128Gcm(u32, Keys<key::Bytes>),
}

/// Encryption with its keys.
pub(crate) struct Sealer {
    loaded: Loaded,
    reader: Reader,
}

impl Sealer {
    /// Reads the keys. May block.
    ///
    /// # Errors
    /// As [`Encryption::check`].
    pub(crate) fn load(encryption: &Encryption) -> Result<Sealer> {
        let mut reader = Reader::default();
        let loaded = Sealer::read(encryption, &mut reader)?;
        Ok(Sealer { loaded, reader })
    }

    fn read(encryption: &Encryption, reader: &mut Reader) -> Result<Loaded> {
        match encryption {
            Encryption::Jwe(e) => e.load(reader).map(|keys| Loaded::Jwe(e.algorithm, keys)),
            Encryption::Aes128Gcm(e) => e.load(reader).map(|keys| Loaded::Aes128Gcm(e.record_bytes, keys)),
        }
        .map_err(|e| e.at("encryption"))
    }

    pub(crate) fn watches(&self) -> bool {
        self.reader.watches()
    }

    pub(crate) fn is_outdated(&self) -> bool {
        self.reader.is_outdated()
    }

    /// Encrypts a body of a media type, at a time in seconds since the Unix epoch.
    ///
    /// # Errors
    /// If no key is valid, or the system has no random numbers.
    fn seal(&self, body: &[u8], content_type: &str, is_deflated: bool, unix: i64) -> Result<Vec<u8>> {
        let none = || Error::new(ErrorKind::Internal, "there is no key");
        match &self.loaded {
            Loaded::Jwe(algorithm, keys) => {
                let key = keys.live(unix)?.next().ok_or_else(none)?;
                jwe::seal(*algorithm, &key.key, key.id.as_deref(), body, content_type, is_deflated)
            }
            Loaded::Aes128Gcm(record_bytes, keys) => {
                let key = keys.live(unix)?.next().ok_or_else(none)?;
                aes128gcm::seal(&key.key, key.id.as_deref().unwrap_or_default(), *record_bytes, random()?, body)
            }
        }
    }
}

/// A body as it goes on the wire.
pub(crate) struct Wrapped {
    pub(crate) body: Vec<u8>,
    /// The value of `Content-Encoding`, if it has one.
    pub(crate) content_encoding: Option<&'static str>,
}

/// Compresses and encrypts a body of a media type.
///
/// # Errors
/// As [`Sealer::seal`].
pub(crate) fn wrap(
    body: Vec<u8>,
    content_type: &str,
    compression: Option<&Compression>,
    sealer: Option<&Sealer>,
    unix: i64,
) -> Result<Wrapped> {
    let of_jwe = sealer.is_some_and(|s| matches!(s.loaded, Loaded::Jwe(..)));
    let compressed = compression.and_then(|c| if of_jwe { c.deflate(&body) } else { c.compress(&body) });
    let algorithm = compression.filter(|_| compressed.is_some()).map(|c| c.algorithm);
    let body = compressed.unwrap_or(body);
    let body = match sealer {
        None => body,
        Some(sealer) => sealer.seal(&body, content_type, algorithm.is_some(), unix)?,
    };
    let content_encoding = match (algorithm, sealer.is_some()) {
        // A JWE says itself how its contents are compressed.
        (_, true) if of_jwe => None,
        (None, false) => None,
        (None, true) => Some("aes128gcm"),
        (Some(CompressionAlgorithm::Gzip), false) => Some("gzip"),
        (Some(CompressionAlgorithm::Zstd), false) => Some("zstd"),
        (Some(CompressionAlgorithm::Gzip), true) => Some("gzip, aes128gcm"),
        (Some(CompressionAlgorithm::Zstd), true) => Some("zstd, aes128gcm"),
    };
    Ok(Wrapped { body, content_encoding })
}

/// Checks that compression and encryption go together.
///
/// # Errors
/// [`ErrorKind::InvalidConfig`] that names the field.
pub(crate) fn validate(compression: Option<&Compression>, encryption: Option<&Encryption>) -> Result<()> {
    if let Some(c) = compression {
        c.validate()?;
    }
    if let Some(e) = encryption {
        e.validate()?;
    }
    if let (Some(c), Some(Encryption::Jwe(_))) = (compression, encryption)
        && c.algorithm != CompressionAlgorithm::Gzip
    {
        return Err(Error::invalid_config("a JWE cannot be compressed by zstd")
            .at("compression")
            .remedy("choose gzip, which becomes `\"zip\": \"DEF\"` in the JWE, or the encryption aes128gcm"));
    }
    Ok(())
}

fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)
        .map_err(|e| Error::new(ErrorKind::Internal, format!("the system has no random numbers: {e}")))?;
    Ok(bytes)
}
