//! Keys as they are written: text, hex, base64, PEM.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::rand::SecureRandom;
use ring::rsa;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, RSA_PKCS1_SHA256, RSA_PSS_SHA512,
};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use zeroize::Zeroizing;

use crate::error::{Error, ErrorKind, Result};

/// How a secret that is bytes is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum SecretEncoding {
    /// Its bytes are those of the text.
    #[default]
    Text,
    /// Base 64 with padding.
    Base64,
    /// Hex digits.
    Hex,
}

impl SecretEncoding {
    /// Each with its name in the configuration.
    pub const ALL: [(SecretEncoding, &'static str); 3] =
        [(SecretEncoding::Text, "text"), (SecretEncoding::Base64, "base64"), (SecretEncoding::Hex, "hex")];

    pub(crate) fn decode(self, text: &str) -> Result<Zeroizing<Vec<u8>>> {
        match self {
            SecretEncoding::Text => Ok(Zeroizing::new(text.as_bytes().to_vec())),
            SecretEncoding::Base64 => base64(text),
            SecretEncoding::Hex => hex(text),
        }
    }
}

// What the decoders say has parts of the secret in it, and is not passed on.

pub(super) fn base64(text: &str) -> Result<Zeroizing<Vec<u8>>> {
    STANDARD.decode(text).map(Zeroizing::new).map_err(|_| {
        Error::invalid_config("the secret is not base64")
            .remedy("write it with the letters A-Z, a-z, 0-9, + and /, and = to a multiple of four")
    })
}

fn hex(text: &str) -> Result<Zeroizing<Vec<u8>>> {
    let digit = |b: u8| char::from(b).to_digit(16).map(|d| d as u8);
    let pairs = text.as_bytes().chunks(2).map(|p| Some(digit(p[0])? << 4 | digit(*p.get(1)?)?));
    pairs.collect::<Option<Vec<u8>>>().map(Zeroizing::new).ok_or_else(|| {
        Error::invalid_config("the secret is not hex").remedy("write it with two hex digits for each byte")
    })
}

/// What a private key is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Ed25519,
    EcdsaP256Sha256,
    RsaPssSha512,
    RsaPkcs1Sha256,
}

/// A private key.
pub(super) enum PrivateKey {
    Ed25519(Ed25519KeyPair),
    EcdsaP256(EcdsaKeyPair),
    Rsa(rsa::KeyPair, &'static dyn ring::signature::RsaEncoding),
}

impl PrivateKey {
    /// Reads a PEM text. RSA keys may be PKCS #1 or #8, others PKCS #8; none may be encrypted.
    pub(super) fn from_pem(text: &str, kind: Kind, random: &dyn SecureRandom) -> Result<PrivateKey> {
        let wanted = match kind {
            Kind::Ed25519 => "an Ed25519",
            Kind::EcdsaP256Sha256 => "an ECDSA P-256",
            Kind::RsaPssSha512 | Kind::RsaPkcs1Sha256 => "an RSA",
        };
        let make = match kind {
            Kind::Ed25519 => "openssl genpkey -algorithm ed25519",
            Kind::EcdsaP256Sha256 => "openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256",
            Kind::RsaPssSha512 | Kind::RsaPkcs1Sha256 => "openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048",
        };
        let bad = |what: String| Error::invalid_config(what).remedy(format!("make one with `{make}`"));
        let der = PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|_| {
            if text.contains("ENCRYPTED") {
                return Error::invalid_config("the private key is encrypted")
                    .remedy("decrypt it with `openssl pkey`, and keep the file readable for this user only");
            }
            bad("the secret is not a private key in PEM form".into())
        })?;
        let unfit = || bad(format!("the private key is not {wanted} key that can be used"));
        match (kind, &der) {
            (Kind::Ed25519, PrivateKeyDer::Pkcs8(der)) => {
                Ed25519KeyPair::from_pkcs8_maybe_unchecked(der.secret_pkcs8_der())
                    .map(PrivateKey::Ed25519)
                    .map_err(|_| unfit())
            }
            (Kind::EcdsaP256Sha256, PrivateKeyDer::Pkcs8(der)) => {
                EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der.secret_pkcs8_der(), random)
                    .map(PrivateKey::EcdsaP256)
                    .map_err(|_| unfit())
            }
            (Kind::RsaPssSha512 | Kind::RsaPkcs1Sha256, der) => {
                let pair = match der {
                    PrivateKeyDer::Pkcs8(der) => rsa::KeyPair::from_pkcs8(der.secret_pkcs8_der()),
                    PrivateKeyDer::Pkcs1(der) => rsa::KeyPair::from_der(der.secret_pkcs1_der()),
                    _ => return Err(unfit()),
                };
                let encoding: &'static dyn ring::signature::RsaEncoding =
                    if kind == Kind::RsaPssSha512 { &RSA_PSS_SHA512 } else { &RSA_PKCS1_SHA256 };
                pair.map(|p| PrivateKey::Rsa(p, encoding)).map_err(|_| unfit())
            }
            (_, PrivateKeyDer::Sec1(_)) => Err(Error::invalid_config("the private key is in the form SEC 1")
                .remedy("convert it with `openssl pkcs8 -topk8 -nocrypt`")),
            _ => Err(unfit()),
        }
    }

    pub(super) fn sign(&self, message: &[u8], random: &dyn SecureRandom) -> Result<Vec<u8>> {
        let failed = |_| Error::new(ErrorKind::Internal, "the signature could not be made");
        match self {
            PrivateKey::Ed25519(pair) => Ok(pair.sign(message).as_ref().to_vec()),
            PrivateKey::EcdsaP256(pair) => pair.sign(random, message).map(|s| s.as_ref().to_vec()).map_err(failed),
            PrivateKey::Rsa(pair, encoding) => {
                let mut out = vec![0; pair.public().modulus_len()];
                pair.sign(*encoding, random, message, &mut out).map_err(failed)?;
                Ok(out)
            }
        }
    }
}
