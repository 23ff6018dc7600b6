//! Keyed hashes: Standard Webhooks, GitHub's header, and headers of one's own.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::hmac::{self, HMAC_SHA1_FOR_LEGACY_USE_ONLY, HMAC_SHA256, HMAC_SHA512};
use ring::signature::{Ed25519KeyPair, KeyPair};

pub use super::key::SecretEncoding;

use super::key;
use super::secret::{Keys, Reader};
use super::{Request, Scheme, Secrets, Signed, WEBHOOK_ID, check_header_name};
use crate::error::{Error, Result};

/// Standard Webhooks 1.0.0. A secret `whsec_…` (24 to 64 bytes in base64) signs with HMAC-SHA256 (`v1`), a key `whsk_…` (32 or
/// 64 bytes) with Ed25519 (`v1a`). One signature for each valid one.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StandardWebhooks {
    /// The secrets and keys.
    pub secrets: Secrets,
}

impl StandardWebhooks {
    /// With these secrets.
    pub fn new(secrets: impl Into<Secrets>) -> StandardWebhooks {
        StandardWebhooks { secrets: secrets.into() }
    }

    pub(super) fn load(&self, reader: &mut Reader) -> Result<impl Scheme + use<>> {
        self.secrets.load(reader, WebhookKey::parse)
    }
}

enum WebhookKey {
    V1(hmac::Key),
    V1a(Ed25519KeyPair),
}

impl WebhookKey {
    fn parse(text: &str) -> Result<WebhookKey> {
        let bad = |what: String, remedy: &str| Err(Error::invalid_config(what).remedy(remedy.to_owned()));
        if let Some(text) = text.strip_prefix("whsec_") {
            let secret = key::base64(text)?;
            if !(24..=64).contains(&secret.len()) {
                let what = format!("the secret has {} bytes; Standard Webhooks wants 24 to 64", secret.len());
                return bad(what, "make one with `openssl rand -base64 32`, and write whsec_ before it");
            }
            return Ok(WebhookKey::V1(hmac::Key::new(HMAC_SHA256, &secret)));
        }
        if let Some(text) = text.strip_prefix("whsk_") {
            let bytes = key::base64(text)?;
            let pair = match bytes.len() {
                32 => Ed25519KeyPair::from_seed_unchecked(&bytes),
                64 => Ed25519KeyPair::from_seed_and_public_key(&bytes[..32], &bytes[32..]),
                n => {
                    let what = format!("the key has {n} bytes; an Ed25519 key has 32, or 64 with its public half");
                    return bad(what, "is it the whole key?");
                }
            };
            return match pair {
                Ok(pair) => Ok(WebhookKey::V1a(pair)),
                Err(_) => bad("the halves of the Ed25519 key do not fit together".into(), "is it the whole key?"),
            };
        }
        if text.starts_with("whpk_") {
            return bad("this is a public key, which receivers verify with".into(), "give the private one, whsk_…");
        }
        bad("the secret begins with neither whsec_ nor whsk_".into(), "write whsec_ before a secret in base64")
    }
}

impl Scheme for Keys<WebhookKey> {
    fn sign(&self, request: &Request<'_>, out: &mut Signed) -> Result<()> {
        let start = format!("{}.{}.", request.id, request.unix);
        let mut signatures = String::new();
        for live in self.live(request.unix)? {
            if !signatures.is_empty() {
                signatures.push(' ');
            }
            match &live.key {
                WebhookKey::V1(key) => {
                    let mut context = hmac::Context::with_key(key);
                    context.update(start.as_bytes());
                    request.body.iter().for_each(|s| context.update(s));
                    signatures.push_str("v1,");
                    STANDARD.encode_string(context.sign(), &mut signatures);
                }
                WebhookKey::V1a(pair) => {
                    // Ed25519 goes over its message twice and takes it in one piece.
                    let mut message = Vec::with_capacity(start.len() + request.body_len());
                    message.extend_from_slice(start.as_bytes());
                    request.body.iter().for_each(|s| message.extend_from_slice(s));
                    signatures.push_str("v1a,");
                    STANDARD.encode_string(pair.sign(&message), &mut signatures);
                }
            }
        }
        out.header(WEBHOOK_ID, request.id);
        out.header("webhook-timestamp", request.unix.to_string());
        out.header("webhook-signature", signatures);
        Ok(())
    }
}

/// The public key `whpk_…` of a private one `whsk_…`, for receivers to verify with.
///
/// # Errors
/// [`crate::ErrorKind::InvalidConfig`] if it is no such key.
pub fn public_key(private: &str) -> Result<String> {
    match WebhookKey::parse(private)? {
        WebhookKey::V1a(pair) => Ok(format!("whpk_{}", STANDARD.encode(pair.public_key().as_ref()))),
        WebhookKey::V1(_) => Err(Error::invalid_config("a secret has no public half").remedy("give a key, whsk_…")),
    }
}

/// The hash of a keyed hash.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum HmacAlgorithm {
    /// For receivers that know nothing else.
    Sha1,
    #[default]
    Sha256,
    Sha512,
}

impl HmacAlgorithm {
    /// Each with its name in the configuration.
    pub const ALL: [(HmacAlgorithm, &'static str); 3] =
        [(HmacAlgorithm::Sha1, "sha1"), (HmacAlgorithm::Sha256, "sha256"), (HmacAlgorithm::Sha512, "sha512")];

    fn ring(self) -> hmac::Algorithm {
        match self {
            HmacAlgorithm::Sha1 => HMAC_SHA1_FOR_LEGACY_USE_ONLY,
            HmacAlgorithm::Sha256 => HMAC_SHA256,
            HmacAlgorithm::Sha512 => HMAC_SHA512,
        }
    }
}

/// How a signature is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum SignatureEncoding {
    /// Lower-case hex digits.
    #[default]
    Hex,
    /// Base 64 with padding.
    Base64,
}

impl SignatureEncoding {
    /// Each with its name in the configuration.
    pub const ALL: [(SignatureEncoding, &'static str); 2] =
        [(SignatureEncoding::Hex, "hex"), (SignatureEncoding::Base64, "base64")];
}

/// A keyed hash of the body in a header. The first valid secret is used: these receivers take one signature.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Hmac {
    /// The header with the signature.
    pub header: String,
    /// What goes before the signature. Default: nothing.
    pub prefix: String,
    /// The hash. Default: SHA-256.
    pub algorithm: HmacAlgorithm,
    /// How the signature is written. Default: hex.
    pub encoding: SignatureEncoding,
    /// A header with the time of the attempt in seconds since the Unix epoch. If there is one, what is signed is the time, the
    /// separator and the body; else the body alone, which anyone who saw a request could send again later. Default: none.
    pub timestamp_header: Option<String>,
    /// What is signed between the time and the body. Default: a dot.
    pub timestamp_separator: String,
    /// How the secret is written. Default: as text.
    pub secret_encoding: SecretEncoding,
    /// The secrets.
    pub secrets: Secrets,
}

const GITHUB_HEADER: &str = "X-Hub-Signature-256";
const GITHUB_PREFIX: &str = "sha256=";

impl Hmac {
    /// With the defaults for everything but header and secrets.
    pub fn new(header: impl Into<String>, secrets: impl Into<Secrets>) -> Hmac {
        Hmac {
            header: header.into(),
            prefix: String::new(),
            algorithm: HmacAlgorithm::default(),
            encoding: SignatureEncoding::default(),
            timestamp_header: None,
            timestamp_separator: ".".into(),
            secret_encoding: SecretEncoding::default(),
            secrets: secrets.into(),
        }
    }

    /// As GitHub signs: `X-Hub-Signature-256: sha256=…`.
    pub fn github(secrets: impl Into<Secrets>) -> Hmac {
        Hmac { prefix: GITHUB_PREFIX.into(), ..Hmac::new(GITHUB_HEADER, secrets) }
    }

    pub(super) fn is_github(&self) -> bool {
        *self == Hmac::github(self.secrets.clone())
    }

    pub(super) fn header_names(&self) -> Vec<&str> {
        [&self.header].into_iter().chain(&self.timestamp_header).map(String::as_str).collect()
    }

    pub(super) fn load(&self, reader: &mut Reader) -> Result<impl Scheme + use<>> {
        check_header_name(&self.header)?;
        if let Some(name) = &self.timestamp_header {
            check_header_name(name).map_err(|e| {
                let remedy = e.remedy_text().unwrap_or_default().to_owned();
                Error::invalid_config(e.message()).at("timestamp_header").remedy(remedy)
            })?;
            if name.eq_ignore_ascii_case(&self.header) {
                return Err(Error::invalid_config("the time and the signature have the same header")
                    .at("timestamp_header")
                    .remedy("name another header"));
            }
        }
        if !self.prefix.bytes().all(|b| (b' '..=b'~').contains(&b)) || self.prefix.starts_with(' ') {
            return Err(Error::invalid_config("the prefix cannot begin a header's value")
                .at("prefix")
                .remedy("use visible ASCII characters"));
        }
        let keys = self.secrets.load(reader, |text| {
            let secret = self.secret_encoding.decode(text)?;
            Ok(hmac::Key::new(self.algorithm.ring(), &secret))
        })?;
        Ok(InHeader { config: Hmac { secrets: Secrets(Vec::new()), ..self.clone() }, keys })
    }
}

struct InHeader {
    /// Without the secrets.
    config: Hmac,
    keys: Keys<hmac::Key>,
}

impl Scheme for InHeader {
    fn sign(&self, request: &Request<'_>, out: &mut Signed) -> Result<()> {
        let c = &self.config;
        let mut context = hmac::Context::with_key(&self.keys.first(request.unix)?.key);
        if let Some(name) = &c.timestamp_header {
            let time = request.unix.to_string();
            context.update(time.as_bytes());
            context.update(c.timestamp_separator.as_bytes());
            out.header(name.clone(), time);
        }
        request.body.iter().for_each(|s| context.update(s));
        let tag = context.sign();
        let mut value = c.prefix.clone();
        match c.encoding {
            SignatureEncoding::Base64 => STANDARD.encode_string(tag, &mut value),
            SignatureEncoding::Hex => tag.as_ref().iter().for_each(|b| {
                value.extend([b >> 4, b & 15].map(|d| char::from_digit(d.into(), 16).unwrap_or_default()));
            }),
        }
        out.header(c.header.clone(), value);
        Ok(())
    }
}
