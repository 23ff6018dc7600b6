//! Certificates whose keys are known beforehand.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error, OtherError, SignatureScheme};

use super::certificate;
use super::settings::Pin;

/// Verifies as usual, and then that the certificate has one of the keys.
#[derive(Debug)]
pub(super) struct Pinned {
    pub(super) usual: Arc<WebPkiServerVerifier>,
    pub(super) pins: Vec<Pin>,
}

/// The certificate is good, and of another key.
#[derive(Debug)]
pub(super) struct OtherKey(pub(super) Option<Pin>);

impl std::fmt::Display for OtherKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0 {
            Some(pin) => write!(f, "its public key is {pin}, which is none of the pins"),
            None => f.write_str("its public key cannot be read, and pins are given"),
        }
    }
}

impl std::error::Error for OtherKey {}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified = self.usual.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)?;
        match certificate::pin(end_entity) {
            Some(pin) if self.pins.contains(&pin) => Ok(verified),
            other => Err(CertificateError::Other(OtherError(Arc::new(OtherKey(other)))).into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.usual.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.usual.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.usual.supported_verify_schemes()
    }
}
