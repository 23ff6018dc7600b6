//! HTTP Message Signatures (RFC 9421), and the digest of the body that they cover (RFC 9530).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{self, SHA256, SHA512};
use ring::hmac::{self, HMAC_SHA256};
use ring::rand::SystemRandom;

use super::key::{Kind, PrivateKey, SecretEncoding};
use super::secret::{Keys, Reader};
use super::{Request, Scheme, Secrets, Signed, WEBHOOK_ID};
use crate::error::{Error, Result};
use crate::rule::suggest;

/// A signature over parts of the request. One for each valid key, under labels of their own, so that a receiver that knows
/// the old or the new key finds one that it can verify.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MessageSignatures {
    /// How is signed.
    pub algorithm: SignatureAlgorithm,
    /// What is signed, in this order: `@method`, `@target-uri`, `@authority`, `@scheme`, `@request-target`, `@path`, `@query`
    /// and headers in lower case. Default: [`DEFAULT_COMPONENTS`].
    pub components: Vec<String>,
    /// The name of the signature; the second and further ones have a number after it. Default: `sig1`; then they are `sig2`
    /// and so on.
    pub label: String,
    /// Whether the algorithm is told (`alg`). Default: yes.
    pub tell_algorithm: bool,
    /// For how many seconds after the attempt the signature says that it is valid (`expires`). Default: it does not say.
    pub valid_for_s: Option<u32>,
    /// The digest of the body. Default: SHA-256.
    pub digest: DigestAlgorithm,
    /// How a secret is written, with [`SignatureAlgorithm::HmacSha256`]. Default: as text. Private keys are in PEM form.
    pub secret_encoding: SecretEncoding,
    /// The keys; their ids are told (`keyid`).
    pub secrets: Secrets,
}

/// What is signed if nothing else is said.
pub const DEFAULT_COMPONENTS: [&str; 5] = ["@method", "@target-uri", "content-digest", "content-type", WEBHOOK_ID];

const DERIVED: [&str; 7] = ["@method", "@target-uri", "@authority", "@scheme", "@request-target", "@path", "@query"];
/// Headers that every request has.
const ALWAYS: [&str; 5] = ["content-type", "content-length", "host", CONTENT_DIGEST, WEBHOOK_ID];
const CONTENT_DIGEST: &str = "content-digest";
const COMPONENTS_MAX: usize = 32;

/// The algorithms of the registry that are offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum SignatureAlgorithm {
    Ed25519,
    HmacSha256,
    EcdsaP256Sha256,
    /// A signature takes about a millisecond of the shard's thread.
    RsaPssSha512,
}

impl SignatureAlgorithm {
    /// Each with its name in the registry and the configuration.
    pub const ALL: [(SignatureAlgorithm, &'static str); 4] = [
        (SignatureAlgorithm::Ed25519, "ed25519"),
        (SignatureAlgorithm::HmacSha256, "hmac-sha256"),
        (SignatureAlgorithm::EcdsaP256Sha256, "ecdsa-p256-sha256"),
        (SignatureAlgorithm::RsaPssSha512, "rsa-pss-sha512"),
    ];

    /// The name.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(a, _)| *a == self).map_or("", |(_, name)| name)
    }
}

/// The digest of the body in `Content-Digest`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum DigestAlgorithm {
    #[default]
    Sha256,
    Sha512,
}

impl DigestAlgorithm {
    /// Each with its name in the registry and the configuration.
    pub const ALL: [(DigestAlgorithm, &'static str); 2] =
        [(DigestAlgorithm::Sha256, "sha-256"), (DigestAlgorithm::Sha512, "sha-512")];
}

impl MessageSignatures {
    /// With the defaults for everything but algorithm and keys.
    pub fn new(algorithm: SignatureAlgorithm, secrets: impl Into<Secrets>) -> MessageSignatures {
        MessageSignatures {
            algorithm,
            components: DEFAULT_COMPONENTS.map(str::to_owned).to_vec(),
            label: "sig1".into(),
            tell_algorithm: true,
            valid_for_s: None,
            digest: DigestAlgorithm::default(),
            secret_encoding: SecretEncoding::default(),
            secrets: secrets.into(),
        }
    }

    fn covers(&self, component: &str) -> bool {
        self.components.iter().any(|c| c == component)
    }

    pub(super) fn header_names(&self) -> Vec<&str> {
        let mut names = vec!["Signature-Input", "Signature"];
        names.extend([CONTENT_DIGEST, WEBHOOK_ID].into_iter().filter(|n| self.covers(n)));
        names
    }

    /// Checks that all that is to be signed will be there; `headers` are the further ones, in lower case.
    pub(super) fn check_components(&self, headers: &[String]) -> Result<()> {
        let known = || DERIVED.into_iter().chain(ALWAYS).chain(headers.iter().map(String::as_str));
        match self.components.iter().find(|c| !known().any(|k| k == c.as_str())) {
            None => Ok(()),
            Some(c) => Err(Error::invalid_config(format!("no request has the component `{}`", c.escape_debug()))
                .at("components")
                .remedy(suggest("component", c, known()))),
        }
    }

    pub(super) fn load(&self, reader: &mut Reader) -> Result<impl Scheme + use<>> {
        let bad = |at: &str, what: String, remedy: &str| {
            Err(Error::invalid_config(what).at(at.to_owned()).remedy(remedy.to_owned()))
        };
        if self.components.len() > COMPONENTS_MAX {
            let what = format!("{} components, more than {COMPONENTS_MAX}", self.components.len());
            return bad("components", what, "leave some out");
        }
        for (i, c) in self.components.iter().enumerate() {
            let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.*@".contains(&b);
            if c.is_empty() || !c.bytes().all(legal) {
                let what = format!("`{}` is no component", c.escape_debug());
                return bad("components", what, "write headers in lower case, as in \"content-type\"");
            }
            if self.components[..i].contains(c) {
                return bad("components", format!("the component `{c}` is there twice"), "leave one out");
            }
        }
        let start = self.label.bytes().next();
        let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-.*".contains(&b);
        if !start.is_some_and(|b| b.is_ascii_lowercase() || b == b'*') || !self.label.bytes().all(legal) {
            let what = format!("`{}` cannot name a signature", self.label.escape_debug());
            return bad("label", what, "use lower-case letters, digits, - and _, the first a letter");
        }
        if self.valid_for_s == Some(0) {
            return bad("valid_for", "the signature would never be valid".into(), "choose at least 1s");
        }
        for id in self.secrets.list().iter().filter_map(|s| s.id.as_deref()) {
            if !id.bytes().all(|b| (b' '..=b'~').contains(&b)) {
                return bad("secret", "the id of a key is not visible ASCII".into(), "choose another id");
            }
        }
        let keys = self.secrets.load(reader, |text| {
            let kind = match self.algorithm {
                SignatureAlgorithm::HmacSha256 => {
                    let secret = self.secret_encoding.decode(text)?;
                    return Ok(SigningKey::Hmac(hmac::Key::new(HMAC_SHA256, &secret)));
                }
                SignatureAlgorithm::Ed25519 => Kind::Ed25519,
                SignatureAlgorithm::EcdsaP256Sha256 => Kind::EcdsaP256Sha256,
                SignatureAlgorithm::RsaPssSha512 => Kind::RsaPssSha512,
            };
            PrivateKey::from_pem(text, kind, &SystemRandom::new()).map(SigningKey::Private)
        })?;
        Ok(Signatures { config: MessageSignatures { secrets: Secrets(Vec::new()), ..self.clone() }, keys })
    }

    /// The name of the `n`th signature.
    fn label_of(&self, n: usize) -> String {
        match (n, self.label.strip_suffix('1')) {
            (0, _) => self.label.clone(),
            (n, Some(stem)) => format!("{stem}{}", n + 1),
            (n, None) => format!("{}{}", self.label, n + 1),
        }
    }

    /// The parameters of a signature (RFC 9421, 2.3).
    fn parameters(&self, unix: i64, id: Option<&str>) -> String {
        let components: Vec<String> = self.components.iter().map(|c| format!("\"{c}\"")).collect();
        let mut out = format!("({});created={unix}", components.join(" "));
        if let Some(s) = self.valid_for_s {
            out.push_str(&format!(";expires={}", unix.saturating_add(s.into())));
        }
        if let Some(id) = id {
            out.push_str(&format!(";keyid=\"{}\"", id.replace('\\', "\\\\").replace('"', "\\\"")));
        }
        if self.tell_algorithm {
            out.push_str(&format!(";alg=\"{}\"", self.algorithm.name()));
        }
        out
    }
}

enum SigningKey {
    Hmac(hmac::Key),
    Private(PrivateKey),
}

struct Signatures {
    /// Without the secrets.
    config: MessageSignatures,
    keys: Keys<SigningKey>,
}

impl Scheme for Signatures {
    fn sign(&self, request: &Request<'_>, out: &mut Signed) -> Result<()> {
        let c = &self.config;
        if c.covers(CONTENT_DIGEST) {
            out.header("Content-Digest", content_digest(c.digest, request.body));
        }
        if c.covers(WEBHOOK_ID) && out.find(WEBHOOK_ID).is_none() {
            out.header(WEBHOOK_ID, request.id);
        }
        let mut base = String::new();
        for component in &c.components {
            let value = component_value(component, request, out)?;
            base.push_str(&format!("\"{component}\": {value}\n"));
        }
        let (mut inputs, mut signatures) = (Vec::new(), Vec::new());
        for (n, live) in self.keys.live(request.unix)?.enumerate() {
            let (label, parameters) = (c.label_of(n), c.parameters(request.unix, live.id.as_deref()));
            let signed = format!("{base}\"@signature-params\": {parameters}");
            let signature = match &live.key {
                SigningKey::Hmac(key) => hmac::sign(key, signed.as_bytes()).as_ref().to_vec(),
                SigningKey::Private(key) => key.sign(signed.as_bytes(), request.random)?,
            };
            inputs.push(format!("{label}={parameters}"));
            signatures.push(format!("{label}=:{}:", STANDARD.encode(signature)));
        }
        out.header("Signature-Input", inputs.join(", "));
        out.header("Signature", signatures.join(", "));
        Ok(())
    }
}

fn content_digest(algorithm: DigestAlgorithm, body: &[&[u8]]) -> String {
    let (ring, name) = match algorithm {
        DigestAlgorithm::Sha256 => (&SHA256, "sha-256"),
        DigestAlgorithm::Sha512 => (&SHA512, "sha-512"),
    };
    let mut context = digest::Context::new(ring);
    body.iter().for_each(|s| context.update(s));
    format!("{name}=:{}:", STANDARD.encode(context.finish()))
}

/// The value of a component (RFC 9421, 2.1 and 2.2).
fn component_value(name: &str, request: &Request<'_>, out: &Signed) -> Result<String> {
    let target = out.target().unwrap_or(request.target);
    let (path, query) = target.split_once('?').map_or((target, None), |(p, q)| (p, Some(q)));
    let own = || request.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str());
    Ok(match name {
        "@method" => request.method.to_owned(),
        "@target-uri" => format!("{}://{}{target}", request.scheme, request.authority),
        "@authority" | "host" => request.authority.to_ascii_lowercase(),
        "@scheme" => request.scheme.to_owned(),
        "@request-target" => target.to_owned(),
        "@path" => path.to_owned(),
        "@query" => format!("?{}", query.unwrap_or_default()),
        "content-type" => request.content_type.to_owned(),
        "content-length" => request.body_len().to_string(),
        _ => match out.find(name).or_else(own) {
            Some(value) => value.trim_matches([' ', '\t']).to_owned(),
            None => {
                let what = format!("the request has no `{name}`, which is to be signed");
                return Err(Error::invalid_config(what).at("components").remedy("leave the component out"));
            }
        },
    })
}
