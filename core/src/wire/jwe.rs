//! JSON Web Encryption in the compact form (RFC 7516), with the content encryption A256GCM.
//!
//! Written here on the primitives of `ring`, `aes-kw` and `rsa`: the libraries for JWE want OpenSSL, have licences that this
//! project does not take, or are not released. Only encryption is needed, which is little more than joining their results.

use aes_kw::{KeyInit, KwAes256};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::digest::{self, SHA256};
use rsa::{Oaep, PublicKey};
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use super::key::{self, Agreed, Bytes};
use super::random;
use crate::auth::{Keys, Reader, SecretEncoding, Secrets};
use crate::error::{Error, ErrorKind, Result};

/// How the key of each message reaches the receiver (RFC 7518, 4.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum JweAlgorithm {
    /// Encrypted for a public RSA key. The default.
    #[default]
    RsaOaep256,
    /// Agreed upon with a public key on P-256 or X25519.
    EcdhEsA256Kw,
    /// Wrapped by a shared key of 32 bytes.
    A256Kw,
    /// It is a shared key of 32 bytes itself. One key is good for some thousand million messages.
    Dir,
}

impl JweAlgorithm {
    /// Each with its name in JOSE and in the configuration.
    pub const ALL: [(JweAlgorithm, &'static str); 4] = [
        (JweAlgorithm::RsaOaep256, "RSA-OAEP-256"),
        (JweAlgorithm::EcdhEsA256Kw, "ECDH-ES+A256KW"),
        (JweAlgorithm::A256Kw, "A256KW"),
        (JweAlgorithm::Dir, "dir"),
    ];

    /// The name.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(a, _)| *a == self).map_or("", |(_, name)| name)
    }
}

/// See the module. The id of a secret becomes `kid`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Jwe {
    /// How the key of each message reaches the receiver.
    pub algorithm: JweAlgorithm,
    /// How a shared key is written, unless it is a JSON Web Key. Default: base64.
    pub secret_encoding: SecretEncoding,
    /// The receiver's public key, in PEM or as a JSON Web Key; or the shared one.
    pub secrets: Secrets,
}

/// A key of an algorithm.
pub(super) enum Key {
    Rsa(Box<PublicKey>),
    Agreed(Agreed),
    Shared(Bytes),
}

impl Jwe {
    /// With these keys.
    pub fn new(algorithm: JweAlgorithm, secrets: impl Into<Secrets>) -> Jwe {
        Jwe { algorithm, secret_encoding: SecretEncoding::Base64, secrets: secrets.into() }
    }

    pub(super) fn load(&self, reader: &mut Reader) -> Result<Keys<Key>> {
        self.secrets.load(reader, |text| {
            Ok(match self.algorithm {
                JweAlgorithm::RsaOaep256 => Key::Rsa(Box::new(key::rsa(text)?)),
                JweAlgorithm::EcdhEsA256Kw => Key::Agreed(key::agreed(text)?),
                JweAlgorithm::A256Kw | JweAlgorithm::Dir => {
                    let bytes = key::shared(text, self.secret_encoding)?;
                    if bytes.len() != 32 {
                        return Err(Error::invalid_config(format!("the key has {} bytes, not 32", bytes.len()))
                            .remedy("make one with `openssl rand -base64 32`"));
                    }
                    Key::Shared(bytes)
                }
            })
        })
    }
}

fn failed(what: &str) -> Error {
    Error::new(ErrorKind::Internal, format!("{what} failed"))
}

/// A body as a JWE.
pub(super) fn seal(
    algorithm: JweAlgorithm,
    key: &Key,
    id: Option<&str>,
    body: &[u8],
    content_type: &str,
    is_deflated: bool,
) -> Result<Vec<u8>> {
    let mut header = Map::new();
    header.insert("alg".into(), algorithm.name().into());
    header.insert("enc".into(), "A256GCM".into());
    if let Some(id) = id {
        header.insert("kid".into(), id.into());
    }
    if !content_type.is_empty() {
        header.insert("cty".into(), content_type.into());
    }
    if is_deflated {
        header.insert("zip".into(), "DEF".into());
    }
    let fresh = || random::<32>().map(|k| Zeroizing::new(k.to_vec()));
    let wrap = |by: &[u8], key: &[u8]| -> Result<Vec<u8>> {
        let cipher = KwAes256::new_from_slice(by).map_err(|_| failed("wrapping the key"))?;
        let mut wrapped = vec![0; key.len() + 8];
        cipher.wrap_key(key, &mut wrapped).map_err(|_| failed("wrapping the key"))?;
        Ok(wrapped)
    };
    let (content_key, encrypted_key) = match (key, algorithm) {
        (Key::Shared(shared), JweAlgorithm::Dir) => (shared.clone(), Vec::new()),
        (Key::Shared(shared), _) => {
            let key = fresh()?;
            let wrapped = wrap(shared, &key)?;
            (key, wrapped)
        }
        (Key::Rsa(public), _) => {
            let key = fresh()?;
            let encrypted = public
                .encrypt(&mut getrandom::SysRng, Oaep::<rsa::sha2::Sha256>::new(), &key)
                .map_err(|_| failed("encrypting the key"))?;
            (key, encrypted)
        }
        (Key::Agreed(peer), _) => {
            let (own, secret) = key::agree(peer).map_err(|_| failed("agreeing on a key"))?;
            header.insert("epk".into(), ephemeral(peer.curve, &own));
            let key = fresh()?;
            let wrapped = wrap(&concat_kdf(&secret, algorithm.name()), &key)?;
            (key, wrapped)
        }
    };

    let nonce: [u8; 12] = random()?;
    let mut out = URL_SAFE_NO_PAD.encode(Value::Object(header).to_string());
    let cipher = UnboundKey::new(&AES_256_GCM, &content_key).map_err(|_| failed("making the key"))?;
    let mut text = body.to_vec();
    let tag = LessSafeKey::new(cipher)
        .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(out.as_bytes()), &mut text)
        .map_err(|_| failed("encrypting the body"))?;
    out.reserve((text.len() + encrypted_key.len()) * 4 / 3 + 64);
    for part in [&encrypted_key[..], &nonce, &text, tag.as_ref()] {
        out.push('.');
        URL_SAFE_NO_PAD.encode_string(part, &mut out);
    }
    Ok(out.into_bytes())
}

/// A public key of ours, as a JSON Web Key.
fn ephemeral(curve: &str, public: &[u8]) -> Value {
    let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    match public {
        // An uncompressed point.
        [4, point @ ..] if curve == "P-256" && point.len() == 64 => {
            json!({"kty": "EC", "crv": curve, "x": text(&point[..32]), "y": text(&point[32..])})
        }
        _ => json!({"kty": "OKP", "crv": curve, "x": text(public)}),
    }
}

/// The key that wraps, from what was agreed upon (RFC 7518, 4.6.2): 256 bits, one round of SHA-256.
pub(super) fn concat_kdf(secret: &[u8], algorithm: &str) -> Bytes {
    let mut context = digest::Context::new(&SHA256);
    context.update(&1u32.to_be_bytes());
    context.update(secret);
    context.update(&(algorithm.len() as u32).to_be_bytes());
    context.update(algorithm.as_bytes());
    // Neither party is named.
    context.update(&[0; 8]);
    context.update(&256u32.to_be_bytes());
    Zeroizing::new(context.finish().as_ref().to_vec())
}
