//! What a destination says about TLS.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::error::{Error, Result};
use crate::rule::within_time;

/// How the certificate of an endpoint is judged, and by which one we are known there.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tls {
    /// PEM files of the authorities to trust instead of those of the system, up to 16. Default: none, those of the system.
    pub ca: Vec<PathBuf>,
    /// The DNS name or IP address that is asked for (SNI) and that the certificate must hold, instead of the URL's host.
    /// Default: the URL's host.
    pub server_name: Option<String>,
    /// Keys of which the endpoint's certificate must have one, besides being issued by an authority that is trusted, up to
    /// 16. Default: none, then any.
    pub pins: Vec<Pin>,
    /// A PEM file with the certificate by which we are known to endpoints that ask for one: ours first, then any
    /// intermediate ones. With [`Tls::client_key`]. Default: none.
    pub client_cert: Option<PathBuf>,
    /// A PEM file with its private key, not encrypted; it may be the same file.
    pub client_key: Option<PathBuf>,
    /// The oldest version that is spoken. Default: [`TlsVersion::V1_2`].
    pub version_min: TlsVersion,
    /// How long before a certificate ends, ours or the endpoint's, warnings begin, up to 400 days. Default: 14 days.
    pub expiry_warning: Duration,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum TlsVersion {
    /// TLS 1.2 (RFC 5246), without its weak ciphers.
    #[default]
    V1_2,
    /// TLS 1.3 (RFC 8446).
    V1_3,
}

/// The SHA-256 of the public key of a certificate (its `SubjectPublicKeyInfo` in DER).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Pin(pub [u8; 32]);

const DAY: Duration = Duration::from_secs(24 * 3600);
const FILES_MAX: usize = 16;
const PINS_MAX: usize = 16;

impl Default for Tls {
    fn default() -> Self {
        Tls {
            ca: Vec::new(),
            server_name: None,
            pins: Vec::new(),
            client_cert: None,
            client_key: None,
            version_min: TlsVersion::default(),
            expiry_warning: 14 * DAY,
        }
    }
}

impl TlsVersion {
    /// Every version with its name in the configuration.
    pub const ALL: [(TlsVersion, &'static str); 2] = [(TlsVersion::V1_2, "1.2"), (TlsVersion::V1_3, "1.3")];

    /// Its name in the configuration.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(v, _)| *v == self).map_or("", |(_, name)| name)
    }

    /// The version of a name.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidConfig`].
    pub fn parse(name: &str) -> Result<TlsVersion> {
        let found = Self::ALL.iter().find(|(_, n)| *n == name).map(|(v, _)| *v);
        found.ok_or_else(|| {
            Error::invalid_config(format!("`{}` is no version of TLS that is spoken", name.escape_debug()))
                .at("version_min")
                .remedy("write \"1.2\" or \"1.3\"; earlier ones are broken")
        })
    }
}

impl Pin {
    /// A pin as it is written, and as curl and others write it: `sha256//` and Base64.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidConfig`].
    pub fn parse(text: &str) -> Result<Pin> {
        let bytes = text.strip_prefix("sha256//").and_then(|b| STANDARD.decode(b).ok());
        bytes.and_then(|b| b.try_into().ok()).map(Pin).ok_or_else(|| {
            Error::invalid_config(format!("`{}` is no pin of a public key", text.escape_debug())).at("pins").remedy(
                "write `sha256//` and the Base64 of what `openssl x509 -pubkey -noout -in CERT | openssl pkey -pubin \
                 -outform der | openssl dgst -sha256 -binary` says",
            )
        })
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256//{}", STANDARD.encode(self.0))
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Tls {
    /// Checks what can be checked without files. `is_used`: whether TLS is spoken at all.
    pub(crate) fn validate(&self, is_used: bool) -> Result<()> {
        let bad = |what: &str, key: &str, remedy: &str| Err(Error::invalid_config(what).at(key).remedy(remedy));
        if !is_used && *self != Tls::default() {
            let key = if self.ca.is_empty() { "tls" } else { "tls.ca" };
            return bad("TLS has settings, and the URL is one without TLS", key, "write https://, or leave tls out");
        }
        if self.ca.len() > FILES_MAX {
            return bad(
                "more than 16 files of authorities are given",
                "tls.ca",
                "put several certificates in one file",
            );
        }
        if self.pins.len() > PINS_MAX {
            return bad("more than 16 pins are given", "tls.pins", "keep those of keys that are in use or come next");
        }
        match (&self.client_cert, &self.client_key) {
            (Some(_), None) => {
                return bad(
                    "a client certificate is given without its key",
                    "tls.client_cert",
                    "add `client_key`; it may be the same file",
                );
            }
            (None, Some(_)) => {
                return bad("a client key is given without its certificate", "tls.client_key", "add `client_cert`");
            }
            _ => {}
        }
        if let Some(name) = &self.server_name {
            super::server_name(name)
                .map_err(|e| e.at("tls.server_name").remedy("write the name that the endpoint's certificate holds"))?;
        }
        within_time("tls.expiry_warning", self.expiry_warning, Duration::ZERO, 400 * DAY)
    }

    /// Reads the files and sees whether they are what they should be. Whether the client certificate is valid now is not asked:
    /// that changes by itself, and must not keep an engine from opening; see [`Tls::check_time`]. Blocks.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidConfig`] or [`crate::ErrorKind::Io`], with the key and the file as its place.
    pub fn check_files(&self) -> Result<()> {
        super::keeper::check(self)
    }

    /// Sees whether the client certificate is valid at a time, in seconds since the Unix epoch. Blocks.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidConfig`] if it has expired.
    pub fn check_time(&self, unix: i64) -> Result<()> {
        super::keeper::check_end(self.client_expires(), unix)
    }

    /// When the client certificate expires, in seconds since the Unix epoch; `None` if there is none, or it cannot be read.
    /// Blocks.
    pub fn client_expires(&self) -> Option<i64> {
        super::keeper::client_expires(self.client_cert.as_deref()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_are_written_as_curl_has_them() {
        let text = "sha256//47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";
        let pin = Pin::parse(text).unwrap();
        assert_eq!(pin.0[..4], [0xe3, 0xb0, 0xc4, 0x42]);
        assert_eq!((pin.to_string(), format!("{pin:?}")), (text.into(), text.into()));
        for bad in ["", "sha256//", "sha256/AAAA", "sha256//AAAA", &text[8..], &text.replace('=', "")] {
            let error = Pin::parse(bad).unwrap_err().to_string();
            assert!(error.contains("openssl dgst"), "{error}");
        }
    }

    #[test]
    fn settings_that_cannot_be_meant_are_refused() {
        let refused = |with: &dyn Fn(&mut Tls), is_used, what: &str| {
            let mut tls = Tls::default();
            with(&mut tls);
            let error = tls.validate(is_used).unwrap_err().to_string();
            assert!(error.contains(what), "{error}, not {what}");
        };
        refused(&|t| t.client_cert = Some("c".into()), true, "client_key");
        refused(&|t| t.client_key = Some("c".into()), true, "client_cert");
        refused(&|t| t.ca = vec!["c".into()], false, "tls.ca");
        refused(&|t| t.version_min = TlsVersion::V1_3, false, "https://");
        refused(&|t| t.ca = vec!["c".into(); 17], true, "tls.ca");
        refused(&|t| t.pins = vec![Pin([0; 32]); 17], true, "tls.pins");
        refused(&|t| t.server_name = Some("a b".into()), true, "tls.server_name");
        refused(&|t| t.expiry_warning = 401 * DAY, true, "tls.expiry_warning");
        assert!(Tls::default().validate(false).is_ok());
        assert_eq!(TlsVersion::parse("1.3").unwrap().name(), "1.3");
        assert!(TlsVersion::parse("1.1").unwrap_err().to_string().contains("version_min"));
    }
}
