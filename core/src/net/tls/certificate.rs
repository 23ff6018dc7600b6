//! What is wanted of a certificate besides what the TLS library makes of it.

use ring::digest::{SHA256, digest};
use x509_cert::Certificate;
use x509_cert::der::{Decode, Encode};

use super::settings::Pin;

/// When it ends (RFC 5280, 4.1.2.5), in seconds since the Unix epoch; `None` if it cannot be read.
pub(super) fn ends(der: &[u8]) -> Option<i64> {
    let certificate = Certificate::from_der(der).ok()?;
    let ends = certificate.tbs_certificate().validity().not_after.to_unix_duration();
    i64::try_from(ends.as_secs()).ok()
}

/// What its public key is pinned by; `None` if it cannot be read.
pub(super) fn pin(der: &[u8]) -> Option<Pin> {
    let certificate = Certificate::from_der(der).ok()?;
    let key = certificate.tbs_certificate().subject_public_key_info().to_der().ok()?;
    digest(&SHA256, &key).as_ref().try_into().ok().map(Pin)
}
