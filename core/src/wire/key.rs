//! Keys as they are written: bytes in text, hex or base64; public keys in PEM or as JSON Web Keys (RFC 7517).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::agreement;
use rsa::pkcs8::DecodePublicKey;
use rsa::traits::PublicKeyParts;
use rsa::{BoxedUint, PublicKey};
use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::pki_types::pem::PemObject;
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::auth::SecretEncoding;
use crate::error::{Error, Result};

/// A key that is bytes.
pub(super) type Bytes = Zeroizing<Vec<u8>>;

/// The fewest bits of an RSA key.
const RSA_BITS_MIN: u32 = 2048;

/// What a P-256 and an X25519 key in the form SubjectPublicKeyInfo (RFC 5480, RFC 8410) begin with.
const P256_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
const X25519_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x6e, 0x03, 0x21, 0x00];

#[derive(Deserialize)]
struct Jwk {
    kty: String,
    crv: Option<String>,
    x: Option<String>,
    y: Option<String>,
    n: Option<String>,
    e: Option<String>,
    k: Option<String>,
    d: Option<serde::de::IgnoredAny>,
}

impl Jwk {
    /// The key, if the text is meant to be one.
    fn parse(text: &str) -> Option<Result<Jwk>> {
        text.trim_start().starts_with('{').then(|| {
            let jwk: Jwk = serde_json::from_str(text)
                .map_err(|_| Error::invalid_config("the key is no JSON Web Key").remedy("correct it (RFC 7517)"))?;
            match &jwk.d {
                Some(_) => Err(Error::invalid_config("the key is a private one")
                    .remedy("give the receiver's public key only; the private one is theirs")),
                None => Ok(jwk),
            }
        })
    }
}

fn part(text: Option<&String>) -> Result<Vec<u8>> {
    let bytes = text.and_then(|t| URL_SAFE_NO_PAD.decode(t).ok());
    bytes.ok_or_else(|| {
        Error::invalid_config("the JSON Web Key lacks a member, or one is no base64url").remedy("correct it (RFC 7518)")
    })
}

/// A shared key: a JSON Web Key of the type `oct`, or bytes in an encoding.
pub(super) fn shared(text: &str, encoding: SecretEncoding) -> Result<Bytes> {
    match Jwk::parse(text) {
        None => encoding.decode(text),
        Some(jwk) => {
            let jwk = jwk?;
            let text = jwk.k.map(Zeroizing::new).filter(|_| jwk.kty == "oct");
            let bytes = text.and_then(|k| URL_SAFE_NO_PAD.decode(&*k).ok());
            bytes.map(Zeroizing::new).ok_or_else(|| {
                Error::invalid_config("the JSON Web Key is no shared key").remedy("give one of the type `oct`")
            })
        }
    }
}

/// A public RSA key.
pub(super) fn rsa(text: &str) -> Result<PublicKey> {
    let bad = |what: &str| {
        Error::invalid_config(what.to_owned())
            .remedy(format!("give a public RSA key of at least {RSA_BITS_MIN} bits, in PEM or as a JSON Web Key"))
    };
    let key = match Jwk::parse(text) {
        Some(jwk) => {
            let jwk = jwk?;
            if jwk.kty != "RSA" {
                return Err(bad("the JSON Web Key is none of RSA"));
            }
            let number = |bytes: &[u8]| BoxedUint::from_be_slice_vartime(bytes);
            PublicKey::new(number(&part(jwk.n.as_ref())?), number(&part(jwk.e.as_ref())?)).ok()
        }
        None => spki(text).and_then(|der| PublicKey::from_public_key_der(&der).ok()),
    };
    match key {
        Some(key) if key.n().bit_width() >= RSA_BITS_MIN => Ok(key),
        Some(_) => Err(bad("the RSA key is too short")),
        None => Err(bad("the key is no public RSA key")),
    }
}

/// A key to agree with: P-256 as an uncompressed point, or X25519.
pub(super) struct Agreed {
    pub(super) algorithm: &'static agreement::Algorithm,
    /// As JSON Web Keys call it.
    pub(super) curve: &'static str,
    pub(super) public: Vec<u8>,
}

/// A public key on P-256 or X25519.
pub(super) fn agreed(text: &str) -> Result<Agreed> {
    let bad = || {
        Error::invalid_config("the key is no public key on P-256 or X25519")
            .remedy("give one in PEM, as `openssl pkey -pubout` writes it, or as a JSON Web Key")
    };
    let p256 = |public| Agreed { algorithm: &agreement::ECDH_P256, curve: "P-256", public };
    let x25519 = |public| Agreed { algorithm: &agreement::X25519, curve: "X25519", public };
    let key = match Jwk::parse(text) {
        Some(jwk) => {
            let jwk = jwk?;
            match (&*jwk.kty, jwk.crv.as_deref()) {
                ("EC", Some("P-256")) => p256([vec![4], part(jwk.x.as_ref())?, part(jwk.y.as_ref())?].concat()),
                ("OKP", Some("X25519")) => x25519(part(jwk.x.as_ref())?),
                _ => return Err(bad()),
            }
        }
        None => {
            let der = spki(text).ok_or_else(bad)?;
            match (der.strip_prefix(&P256_PREFIX), der.strip_prefix(&X25519_PREFIX)) {
                (Some(point), _) => p256(point.to_vec()),
                (_, Some(key)) => x25519(key.to_vec()),
                _ => return Err(bad()),
            }
        }
    };
    // A first agreement tells whether it is a point of the curve.
    agree(&key).map(|_| key).map_err(|_| bad())
}

/// A fresh key of ours, and what it comes to with the other one.
pub(super) fn agree(key: &Agreed) -> Result<(Vec<u8>, Bytes), ring::error::Unspecified> {
    let random = ring::rand::SystemRandom::new();
    let own = agreement::EphemeralPrivateKey::generate(key.algorithm, &random)?;
    let public = own.compute_public_key()?.as_ref().to_vec();
    let peer = agreement::UnparsedPublicKey::new(key.algorithm, &key.public);
    agreement::agree_ephemeral(own, &peer, |z| (public, Zeroizing::new(z.to_vec())))
}

fn spki(text: &str) -> Option<Vec<u8>> {
    SubjectPublicKeyInfoDer::from_pem_slice(text.as_bytes()).ok().map(|der| der.as_ref().to_vec())
}
