//! Encrypted content encoding, `aes128gcm` (RFC 8188), on the primitives of `ring`.

use ring::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, KeyType, Salt};

use super::key::{self, Bytes};
use crate::auth::{Keys, Reader, SecretEncoding, Secrets};
use crate::error::{Error, ErrorKind, Result};
use crate::rule::within;

const SALT_BYTES: usize = 16;
const TAG_BYTES: usize = 16;
const KEY_BYTES_MIN: usize = 16;
const KEY_ID_BYTES_MAX: usize = 255;

/// See the module. The id of a secret becomes the `keyid` of the header.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Aes128Gcm {
    /// The size of an encrypted record, 18 bytes to 16 MiB. Default: 4 KiB.
    pub record_bytes: u32,
    /// How the keys are written, unless they are JSON Web Keys. Default: base64.
    pub secret_encoding: SecretEncoding,
    /// The keying material that is shared with the receiver, at least 16 bytes.
    pub secrets: Secrets,
}

impl Aes128Gcm {
    /// With these keys.
    pub fn new(secrets: impl Into<Secrets>) -> Aes128Gcm {
        Aes128Gcm { record_bytes: 4096, secret_encoding: SecretEncoding::Base64, secrets: secrets.into() }
    }

    pub(super) fn load(&self, reader: &mut Reader) -> Result<Keys<Bytes>> {
        within("record_bytes", self.record_bytes as usize, TAG_BYTES + 2, 16 << 20)?;
        if let Some(id) = self.secrets.list().iter().filter_map(|s| s.id.as_ref()).find(|i| i.len() > KEY_ID_BYTES_MAX)
        {
            let what = format!("the id of a key has {} bytes, more than {KEY_ID_BYTES_MAX}", id.len());
            return Err(Error::invalid_config(what).at("secret").remedy("shorten it"));
        }
        self.secrets.load(reader, |text| {
            let bytes = key::shared(text, self.secret_encoding)?;
            if bytes.len() < KEY_BYTES_MIN {
                let what = format!("the key has {} bytes, fewer than {KEY_BYTES_MIN}", bytes.len());
                return Err(Error::invalid_config(what).remedy("make one with `openssl rand -base64 32`"));
            }
            Ok(bytes)
        })
    }
}

/// So many bytes.
struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

/// A body, encrypted: the header, then records of `record_bytes`. The salt must be fresh.
pub(super) fn seal(key: &[u8], id: &str, record_bytes: u32, salt: [u8; SALT_BYTES], body: &[u8]) -> Result<Vec<u8>> {
    let failed = |_| Error::new(ErrorKind::Internal, "encrypting the body failed");
    let prk = Salt::new(HKDF_SHA256, &salt).extract(key);
    let derive = |info: &[u8], out: &mut [u8]| prk.expand(&[info], Length(out.len()))?.fill(out);
    let (mut content_key, mut nonce_base) = (zeroize::Zeroizing::new([0; 16]), [0; 12]);
    derive(b"Content-Encoding: aes128gcm\0", &mut *content_key).map_err(failed)?;
    derive(b"Content-Encoding: nonce\0", &mut nonce_base).map_err(failed)?;
    let cipher = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &*content_key).map_err(failed)?);

    let text_bytes = record_bytes as usize - TAG_BYTES - 1;
    let records = body.len().div_ceil(text_bytes).max(1);
    let mut out = Vec::with_capacity(SALT_BYTES + 5 + id.len() + body.len() + records * (TAG_BYTES + 1));
    out.extend_from_slice(&salt);
    out.extend_from_slice(&record_bytes.to_be_bytes());
    out.push(id.len() as u8);
    out.extend_from_slice(id.as_bytes());
    for n in 0..records {
        let end = body.len().min((n + 1) * text_bytes);
        let start = out.len();
        out.extend_from_slice(&body[n * text_bytes..end]);
        // What ends the text of a record also says whether it is the last one.
        out.push(if n + 1 == records { 2 } else { 1 });
        let mut nonce = nonce_base;
        nonce[4..].iter_mut().zip((n as u64).to_be_bytes()).for_each(|(a, b)| *a ^= b);
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = cipher.seal_in_place_separate_tag(nonce, Aad::empty(), &mut out[start..]).map_err(failed)?;
        out.extend_from_slice(tag.as_ref());
    }
    Ok(out)
}
