//! Vectors of the RFCs, and what is refused. Decryption by other implementations: `tests/hosts/command`.

use std::io::Read;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::*;
use crate::auth::Secret;

fn url(text: &str) -> Vec<u8> {
    URL_SAFE_NO_PAD.decode(text).unwrap()
}

/// RFC 8188, 3.1 and 3.2.
#[test]
fn aes128gcm_agrees_with_the_rfc() {
    let salt = |text: &str| <[u8; 16]>::try_from(&url(text)[..16]).unwrap();
    let text = b"I am the walrus";
    let expected = "I1BsxtFttlv3u_Oo94xnmwAAEAAA-NAVub2qFgBEuQKRapoZu-IxkIva3MEB1PD-ly8Thjg";
    let sealed = aes128gcm::seal(&url("yqdlZ-tYemfogSmv7Ws5PQ"), "", 4096, salt(expected), text).unwrap();
    assert_eq!(URL_SAFE_NO_PAD.encode(sealed), expected);
    // The example of several records has padding, which is never written here: its header, its size, and its first record's
    // key are the same.
    let expected = "uNCkWiNYzKTnBN9ji3-qWAAAABkCYTHOG8chz_gnvgOqdGYovxyjuqRyJFjEDyoF1Fvkj6hQPdPHI51OEUKEpgz3SsLWIqS_uA";
    let sealed = aes128gcm::seal(&url("BO3ZVPxUlnLORbVGMpbT1Q"), "a1", 25, salt(expected), text).unwrap();
    assert_eq!(&sealed[..23], &url(expected)[..23]);
    assert_eq!(sealed.len(), 23 + 25 + 16 + 1 + 7);
}

/// RFC 7518, appendix C, with A128GCM in the place of the algorithm and 128 bits: the first bits of the same round.
#[test]
fn keys_are_derived_as_the_rfc_derives_them() {
    // What OpenSSL's SSKDF (NIST SP 800-56C) gives for the secret of 32 bytes 0..31 and the same other information.
    let secret: Vec<u8> = (0..32).collect();
    let mut info = b"\0\0\0\x0eECDH-ES+A256KW\0\0\0\0\0\0\0\0\0\0\x01\0".to_vec();
    let mut round = vec![0, 0, 0, 1];
    round.extend_from_slice(&secret);
    round.append(&mut info);
    assert_eq!(
        *jwe::concat_kdf(&secret, "ECDH-ES+A256KW"),
        ring::digest::digest(&ring::digest::SHA256, &round).as_ref()
    );
}

#[test]
fn bodies_are_compressed_from_the_threshold_on_and_never_grow() {
    let body = b"{\"a\":1}".repeat(300);
    for (algorithm, encoding) in [(CompressionAlgorithm::Gzip, "gzip"), (CompressionAlgorithm::Zstd, "zstd")] {
        let c = Compression::new(algorithm);
        let wrapped = wrap(body.clone(), "", Some(&c), None, 0).unwrap();
        assert_eq!(wrapped.content_encoding, Some(encoding));
        assert!(wrapped.body.len() < body.len() / 4);
        let mut back = Vec::new();
        match algorithm {
            CompressionAlgorithm::Gzip => {
                flate2::read::GzDecoder::new(&wrapped.body[..]).read_to_end(&mut back).unwrap();
            }
            CompressionAlgorithm::Zstd => back = zstd::stream::decode_all(&wrapped.body[..]).unwrap(),
        }
        assert_eq!(back, body);
        let small = wrap(body[..1023].to_vec(), "", Some(&c), None, 0).unwrap();
        assert_eq!((small.body.len(), small.content_encoding), (1023, None));
        let noise: Vec<u8> = (0..64).flat_map(|_| random::<32>().unwrap()).collect();
        let kept = wrap(noise.clone(), "", Some(&c), None, 0).unwrap();
        assert_eq!((kept.body, kept.content_encoding), (noise, None));
    }
}

#[test]
fn content_encodings_come_in_the_order_in_which_they_were_applied() {
    let body = b"{\"a\":1}".repeat(300);
    let key = STANDARD.encode([7; 16]);
    let sealer = Sealer::load(&Encryption::Aes128Gcm(Aes128Gcm::new(Secret::text(&key).with_id("k")))).unwrap();
    for (c, expected) in [
        (None, "aes128gcm"),
        (Some(Compression::new(CompressionAlgorithm::Gzip)), "gzip, aes128gcm"),
        (Some(Compression::new(CompressionAlgorithm::Zstd)), "zstd, aes128gcm"),
    ] {
        let wrapped = wrap(body.clone(), "", c.as_ref(), Some(&sealer), 0).unwrap();
        assert_eq!(wrapped.content_encoding, Some(expected));
        assert_eq!((wrapped.body[20], wrapped.body[21]), (1, b'k'));
    }
    // No two are alike.
    let of = || wrap(body.clone(), "", None, Some(&sealer), 0).unwrap().body;
    assert_ne!(of(), of());
}

#[test]
fn a_jwe_says_what_is_in_it() {
    let body = b"{\"a\":1}".repeat(300);
    let key = STANDARD.encode([7; 32]);
    for (algorithm, key_bytes) in [(JweAlgorithm::Dir, 0), (JweAlgorithm::A256Kw, 40)] {
        let jwe = Jwe::new(algorithm, Secret::text(&key).with_id("k"));
        let sealer = Sealer::load(&Encryption::Jwe(jwe)).unwrap();
        let gzip = Compression::new(CompressionAlgorithm::Gzip);
        let wrapped = wrap(body.clone(), "application/json", Some(&gzip), Some(&sealer), 0).unwrap();
        assert_eq!(wrapped.content_encoding, None);
        let text = String::from_utf8(wrapped.body).unwrap();
        let parts: Vec<Vec<u8>> = text.split('.').map(url).collect();
        let header: Value = serde_json::from_slice(&parts[0]).unwrap();
        let expected =
            json!({"alg": algorithm.name(), "enc": "A256GCM", "kid": "k", "cty": "application/json", "zip": "DEF"});
        assert_eq!(header, expected);
        assert_eq!((parts.len(), parts[1].len(), parts[2].len(), parts[4].len()), (5, key_bytes, 12, 16));
        assert!(parts[3].len() < body.len() / 4);
    }
}

#[test]
fn keys_that_cannot_be_used_are_refused_and_not_shown() {
    let jwe = |algorithm, text: &str| Encryption::Jwe(Jwe::new(algorithm, Secret::text(text))).validate();
    let short = "MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQC7secret";
    for (algorithm, text, part) in [
        (JweAlgorithm::Dir, "c2VjcmV0LXRvby1zaG9ydA==", "16 bytes, not 32"),
        (JweAlgorithm::Dir, "no base64, secret", "not base64"),
        (JweAlgorithm::A256Kw, "{\"kty\":\"RSA\"}", "no shared key"),
        (JweAlgorithm::RsaOaep256, short, "no public RSA key"),
        (JweAlgorithm::RsaOaep256, "{\"kty\":\"EC\"}", "none of RSA"),
        (JweAlgorithm::RsaOaep256, "{\"kty\":\"RSA\",\"n\":\"AQAB\",\"e\":\"AQAB\",\"d\":\"secret\"}", "private"),
        (JweAlgorithm::RsaOaep256, "{\"kty\":\"RSA\",\"n\":\"AQAB\",\"e\":\"AQAB\"}", "RSA key"),
        (JweAlgorithm::EcdhEsA256Kw, "{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"AAAA\",\"y\":\"AAAA\"}", "P-256"),
        (JweAlgorithm::EcdhEsA256Kw, "secret", "P-256 or X25519"),
    ] {
        let e = jwe(algorithm, text).unwrap_err().to_string();
        assert!(e.contains(part) && e.contains("encryption") && !e.contains("secret-too") && !e.contains(short), "{e}");
    }
    let aes = |text: &str, record_bytes| {
        let mut a = Aes128Gcm::new(Secret::text(text));
        a.record_bytes = record_bytes;
        Encryption::Aes128Gcm(a).validate().unwrap_err().to_string()
    };
    assert!(aes("c2hvcnQ=", 4096).contains("5 bytes, fewer than 16"));
    assert!(aes("AAECAwQFBgcICQoLDA0ODw==", 17).contains("record_bytes"));
    let zstd = Compression::new(CompressionAlgorithm::Zstd);
    let jwe = Encryption::Jwe(Jwe::new(JweAlgorithm::Dir, Secret::text(STANDARD.encode([7; 32]))));
    let e = validate(Some(&zstd), Some(&jwe)).unwrap_err();
    assert!(e.remedy_text().unwrap().contains("gzip"), "{e}");
    validate(Some(&Compression::new(CompressionAlgorithm::Gzip)), Some(&jwe)).unwrap();
    assert!(!format!("{jwe:?}").contains("BwcH"));
    let mut c = zstd;
    c.level = 23;
    assert!(validate(Some(&c), None).unwrap_err().to_string().contains("choose from 1 to 19"));
}
