use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use proptest::prelude::*;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED, ED25519, UnparsedPublicKey};
use serde_json::{Value, json};

use super::oauth::{Ask, Moment};
use super::*;
use crate::ErrorKind;
use crate::rule::Webhook;

/// The key of RFC 9421, B.1.4.
const ED25519_PEM: &str = "-----BEGIN PRIVATE KEY-----\n\
    MC4CAQAwBQYDK2VwBCIEIJ+DYvh6SEqVTm50DFtMDoQikTmiCqirVv9mWG9qfSnF\n-----END PRIVATE KEY-----\n";
/// That of B.1.5.
const SHARED_SECRET: &str = "uzvJfB4u3N0Jy4T7NZ75MDVcr8zSTInedJtkgcu46YW4XByzNJjxBdtjUkdJPBtbmHhIDi6pcl8jsasjlTMtDQ==";
const WHSEC: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

fn auths(value: Value) -> Vec<Auth> {
    read(&value, Path::new("/base")).unwrap_or_else(|f| panic!("{value}: {}", f.error))
}

fn sign_as(value: Value, request: &Request<'_>) -> Result<Signed> {
    let list = auths(value);
    validate(&list, request.headers)?;
    let mut out = Signed::default();
    Signer::load(&list)?.sign(request, &mut out)?;
    Ok(out)
}

fn with_request<R>(body: &[&[u8]], headers: &[(String, String)], f: impl FnOnce(&Request<'_>) -> R) -> R {
    f(&Request {
        method: "POST",
        scheme: "https",
        authority: "example.com",
        target: "/foo?param=Value&Pet=dog",
        content_type: "application/json",
        headers,
        body,
        id: "msg_p5jXN8AQM9LWM0D4loKWxJek",
        unix: 1_614_265_330,
        random: &SystemRandom::new(),
    })
}

/// The headers that a body gets.
fn headers_of(value: Value, body: &[u8]) -> Vec<(String, String)> {
    let signed = with_request(&[body], &[], |r| sign_as(value, r)).unwrap();
    signed.headers().into_iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect()
}

fn header(headers: &[(String, String)], name: &str) -> String {
    headers.iter().find(|(n, _)| n == name).unwrap_or_else(|| panic!("{name} is not in {headers:?}")).1.clone()
}

#[test]
fn the_vector_of_standard_webhooks() {
    let got = headers_of(json!({"scheme": "standard-webhooks", "secret": WHSEC}), br#"{"test": 2432232314}"#);
    let expected = [
        ("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek"),
        ("webhook-timestamp", "1614265330"),
        ("webhook-signature", "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="),
    ];
    assert_eq!(got, expected.map(|(n, v)| (n.to_owned(), v.to_owned())));
}

#[test]
fn while_a_secret_is_replaced_both_sign_and_an_expired_one_never() {
    let secret = json!([
        {"text": WHSEC, "until": "2021-02-25T15:02:10Z"},
        {"text": format!("whsk_{}", STANDARD.encode([7; 32])), "not_before": "2021-02-25T15:02:10Z"},
        {"text": format!("whsec_{}", STANDARD.encode([9; 24]))},
    ]);
    let config = json!({"scheme": "standard-webhooks", "secret": secret});
    let signer = Signer::load(&auths(config)).unwrap();
    let at = |unix: i64| {
        let mut out = Signed::default();
        with_request(&[b"x"], &[], |r| signer.sign(&Request { unix, ..*r }, &mut out)).unwrap();
        let all = out.find("webhook-signature").unwrap().to_owned();
        all.split(' ').map(|s| s.split_once(',').unwrap().0.to_owned()).collect::<Vec<_>>()
    };
    // The same keys are loaded all the time: only the time of the attempt counts.
    assert_eq!(at(1_614_265_329), ["v1", "v1"]);
    assert_eq!(at(1_614_265_330), ["v1a", "v1"]);

    let one = json!({"scheme": "github", "secret": {"text": "x", "until": "2021-02-25T15:02:10Z"}});
    let signer = Signer::load(&auths(one)).unwrap();
    let mut out = Signed::default();
    let e = with_request(&[b""], &[], |r| signer.sign(r, &mut out)).unwrap_err();
    assert!(e.to_string().contains("auth: secret: every secret has expired"), "{e}");
    assert!(out.headers().is_empty());
}

#[test]
fn an_ed25519_signature_of_standard_webhooks() {
    let seed = [7; 32];
    let key = format!("whsk_{}", STANDARD.encode(seed));
    let public = hmac::public_key(&key).unwrap();
    let public = STANDARD.decode(public.strip_prefix("whpk_").unwrap()).unwrap();
    let both = format!("whsk_{}", STANDARD.encode([&seed[..], &public].concat()));
    for key in [key, both] {
        let got = headers_of(json!({"scheme": "standard-webhooks", "secret": key}), b"body");
        let signature = header(&got, "webhook-signature");
        let signature = STANDARD.decode(signature.strip_prefix("v1a,").unwrap()).unwrap();
        let message = b"msg_p5jXN8AQM9LWM0D4loKWxJek.1614265330.body";
        UnparsedPublicKey::new(&ED25519, &public).verify(message, &signature).unwrap();
    }
}

#[test]
fn keyed_hashes_as_others_write_them() {
    let got = headers_of(json!({"scheme": "github", "secret": "It's a Secret to Everybody"}), b"Hello, World!");
    let value = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
    assert_eq!(got, [("X-Hub-Signature-256".to_owned(), value.to_owned())]);
    // RFC 2202 and 4231, second cases.
    let body = b"what do ya want for nothing?";
    let sha512 = "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea2505549758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b636e070a38bce737";
    for (algorithm, expected) in [("sha1", "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79"), ("sha512", sha512)] {
        let config = json!({"scheme": "hmac", "header": "X-S", "algorithm": algorithm, "secret": "Jefe"});
        assert_eq!(header(&headers_of(config, body), "X-S"), expected);
    }
    // The same key in three spellings, and the time before the body.
    for (encoding, secret) in [("text", "Jefe"), ("hex", "4a656665"), ("base64", "SmVmZQ==")] {
        let config = json!({"scheme": "hmac", "header": "X-S", "algorithm": "sha1", "secret": secret,
            "secret_encoding": encoding, "encoding": "base64", "prefix": "s=", "timestamp_header": "X-Time",
            "timestamp_separator": ":"});
        let got = headers_of(config, body);
        assert_eq!(header(&got, "X-Time"), "1614265330");
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, b"Jefe");
        let tag = ring::hmac::sign(&key, &[&b"1614265330:"[..], body].concat());
        assert_eq!(header(&got, "X-S"), format!("s={}", STANDARD.encode(tag)));
    }
}

#[test]
fn passwords_tokens_and_keys() {
    for (config, name, value) in [
        // RFC 7617.
        (
            json!({"scheme": "basic", "username": "Aladdin", "secret": "open sesame"}),
            "Authorization",
            "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==",
        ),
        (json!({"scheme": "basic", "username": "test", "secret": "123£"}), "Authorization", "Basic dGVzdDoxMjPCow=="),
        (json!({"scheme": "bearer", "secret": "mF_9.B5f-4.1JqM"}), "Authorization", "Bearer mF_9.B5f-4.1JqM"),
        (json!({"scheme": "token", "header": "X-T", "prefix": "Token ", "secret": "a b"}), "X-T", "Token a b"),
        (json!({"scheme": "api-key", "header": "X-Key", "secret": "k"}), "X-Key", "k"),
    ] {
        assert_eq!(headers_of(config, b""), [(name.to_owned(), value.to_owned())]);
    }
    for (target, expected) in
        [("/p", "/p?k%26=a+%2B%C3%A9"), ("/p?", "/p?k%26=a+%2B%C3%A9"), ("/p?x=1", "/p?x=1&k%26=a+%2B%C3%A9")]
    {
        let config = json!({"scheme": "api-key", "query": "k&", "secret": "a +é"});
        let signed = with_request(&[], &[], |r| sign_as(config, &Request { target, ..*r })).unwrap();
        assert_eq!((signed.target(), signed.headers()), (Some(expected), Vec::new()));
    }
}

/// The signature and its input, as the RFC has them.
fn rfc_vector(config: Value, headers: &[(&str, &str)]) -> (String, String) {
    let headers: Vec<(String, String)> = headers.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect();
    let signed = with_request(&[br#"{"hello": "#, br#""world"}"#], &headers, |r| {
        sign_as(config, &Request { unix: 1_618_884_473, ..*r }).unwrap()
    });
    (signed.find("Signature-Input").unwrap().to_owned(), signed.find("Signature").unwrap().to_owned())
}

#[test]
fn the_vectors_of_http_message_signatures() {
    let date = [("Date", "Tue, 20 Apr 2021 02:07:55 GMT")];
    let b25 = json!({"scheme": "http-message-signatures", "algorithm": "hmac-sha256", "label": "sig-b25",
        "components": ["date", "@authority", "content-type"], "tell_algorithm": false, "secret_encoding": "base64",
        "secret": {"text": SHARED_SECRET, "id": "test-shared-secret"}});
    assert_eq!(
        rfc_vector(b25, &date),
        (
            "sig-b25=(\"date\" \"@authority\" \"content-type\");created=1618884473;keyid=\"test-shared-secret\"".into(),
            "sig-b25=:pxcQw6G3AjtMBQjwo8XzkZf/bws5LelbaMk5rGIGtE8=:".into()
        )
    );
    let components = ["date", "@method", "@path", "@authority", "content-type", "content-length"];
    let b26 = json!({"scheme": "http-message-signatures", "algorithm": "ed25519", "label": "sig-b26",
        "components": components, "tell_algorithm": false, "secret": {"text": ED25519_PEM, "id": "test-key-ed25519"}});
    let (input, signature) = rfc_vector(b26, &date);
    assert!(input.ends_with("\"content-length\");created=1618884473;keyid=\"test-key-ed25519\""), "{input}");
    let expected = "wqcAqbmYJ2ji2glfAMaRy4gruYYnx2nEFN2HN6jrnDnQCK1u02Gb04v9EDgwUPiu4A0w6vuQv5lIp5WPpBKRCw==";
    assert_eq!(signature, format!("sig-b26=:{expected}:"));
}

#[test]
fn message_signatures_cover_the_digest_and_what_other_schemes_add() {
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let list = json!([
        {"scheme": "http-message-signatures", "algorithm": "ecdsa-p256-sha256", "valid_for": "5m",
         "components": ["@method", "@target-uri", "@query", "@scheme", "@request-target", "content-digest", "webhook-id",
            "authorization", "x-own"],
         "secret": [{"text": pair.serialize_pem(), "id": "a \"quoted\" \\ one"}, {"text": pair.serialize_pem()}]},
        {"scheme": "bearer", "secret": "T"},
        {"scheme": "api-key", "query": "key", "secret": "K"},
    ]);
    let own = [("X-Own".to_owned(), "mine".to_owned())];
    let signed = with_request(&[b"{\"hello\": \"world\"}"], &own, |r| sign_as(list, r)).unwrap();
    // RFC 9530, appendix; of the same body.
    let digest = "sha-256=:X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=:";
    assert_eq!(signed.find("Content-Digest"), Some(digest));
    let parameters = "(\"@method\" \"@target-uri\" \"@query\" \"@scheme\" \"@request-target\" \"content-digest\" \"webhook-id\" \
        \"authorization\" \"x-own\");created=1614265330;expires=1614265630";
    let first = format!("{parameters};keyid=\"a \\\"quoted\\\" \\\\ one\";alg=\"ecdsa-p256-sha256\"");
    let second = format!("{parameters};alg=\"ecdsa-p256-sha256\"");
    assert_eq!(signed.find("Signature-Input"), Some(&*format!("sig1={first}, sig2={second}")));
    let base = format!(
        "\"@method\": POST\n\"@target-uri\": https://example.com/foo?param=Value&Pet=dog&key=K\n\
         \"@query\": ?param=Value&Pet=dog&key=K\n\"@scheme\": https\n\"@request-target\": /foo?param=Value&Pet=dog&key=K\n\
         \"content-digest\": {digest}\n\"webhook-id\": msg_p5jXN8AQM9LWM0D4loKWxJek\n\"authorization\": Bearer T\n\
         \"x-own\": mine\n\"@signature-params\": {first}"
    );
    let signature = signed.find("Signature").unwrap().split(", ").next().unwrap();
    let signature = STANDARD.decode(signature.strip_prefix("sig1=:").unwrap().trim_end_matches(':')).unwrap();
    let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, pair.public_key_raw());
    public.verify(base.as_bytes(), &signature).unwrap();
    // An empty body and another digest.
    let config =
        json!({"scheme": "http-message-signatures", "algorithm": "hmac-sha256", "digest": "sha-512", "secret": "s"});
    let digest = header(&headers_of(config, b""), "Content-Digest");
    assert!(
        digest.starts_with("sha-512=:z4PhNX7vuL3xVChQ1m2AB9Yg5AULVxXcg/SpIdNs6c5H0NE8XYXysP+DGNKHfuwvY7kxvUdBeoGlODJ6")
    );
}

fn ask(value: Value, unix: i64) -> Result<Ask> {
    let signer = Signer::load(&auths(value)).unwrap();
    signer.token().unwrap().ask(&Moment { unix, random: &SystemRandom::new() })
}

#[test]
fn a_jwt_is_made_and_can_be_verified() {
    let account = json!({"type": "service_account", "private_key": ED25519_PEM, "private_key_id": "kid-1",
        "client_email": "me@project", "token_uri": "https://elsewhere.example/"});
    for secret in [json!({"text": ED25519_PEM, "id": "kid-1"}), json!(account.to_string())] {
        let config = json!({"scheme": "jwt-bearer", "algorithm": "EdDSA", "issuer": "me@project", "audience": "https://a/",
            "scope": "x y", "lifetime": "10m", "claims": {"target": 1}, "secret": secret});
        let Ask::Made { token, lifetime_s } = ask(config, 1000).unwrap() else { panic!("it asks somebody") };
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let public = ring::signature::Ed25519KeyPair::from_pkcs8_maybe_unchecked(
            &STANDARD.decode(ED25519_PEM.lines().nth(1).unwrap()).unwrap(),
        );
        let public = ring::signature::KeyPair::public_key(&public.unwrap()).as_ref().to_vec();
        let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
        UnparsedPublicKey::new(&ED25519, public).verify(signed.as_bytes(), &signature).unwrap();
        let parts: Vec<Value> =
            signed.split('.').map(|p| serde_json::from_slice(&URL_SAFE_NO_PAD.decode(p).unwrap()).unwrap()).collect();
        assert_eq!(parts[0], json!({"alg": "EdDSA", "typ": "JWT", "kid": "kid-1"}));
        let mut claims = parts[1].clone();
        assert_eq!(claims.as_object_mut().unwrap().remove("jti").unwrap().as_str().unwrap().len(), 22);
        let expected = json!({"iss": "me@project", "sub": "me@project", "aud": "https://a/", "scope": "x y", "iat": 1000,
            "exp": 1600, "target": 1});
        assert_eq!((claims, lifetime_s), (expected, 600));
    }
}

#[test]
fn what_token_endpoints_are_asked() {
    let mut config = json!({"scheme": "oauth2-client-credentials", "token_url": "https://id.example/t", "client_id": "a:b c",
        "scope": "r w", "audience": "https://x/?y", "secret": "p&s+é"});
    let Ask::Post { body, authorization } = ask(config.clone(), 0).unwrap() else { panic!("made here") };
    assert_eq!(*body, "grant_type=client_credentials&scope=r+w&audience=https%3A%2F%2Fx%2F%3Fy");
    let pair = STANDARD.encode("a%3Ab+c:p%26s%2B%C3%A9");
    assert_eq!(*authorization.unwrap(), format!("Basic {pair}"));
    config["client_auth"] = "body".into();
    let Ask::Post { body, authorization } = ask(config, 0).unwrap() else { panic!("made here") };
    assert!(body.ends_with("&client_id=a%3Ab+c&client_secret=p%26s%2B%C3%A9") && authorization.is_none());
    let config = json!({"scheme": "jwt-bearer", "algorithm": "EdDSA", "issuer": "i", "audience": "a",
        "token_url": "http://127.0.0.1:1/t", "secret": ED25519_PEM});
    let Ask::Post { body, .. } = ask(config, 0).unwrap() else { panic!("made here") };
    assert!(
        body.starts_with("grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion=eyJ"),
        "{}",
        *body
    );
}

/// One configuration of each scheme, with everything that can be set, and with `secret` wherever a text is.
fn every_scheme(secret: &str, pem: &str) -> Vec<Value> {
    vec![
        json!({"scheme": "standard-webhooks", "secret": [format!("whsec_{secret}"), {"env": "X"}]}),
        json!({"scheme": "github", "secret": {"text": secret, "not_before": "2020-01-01T00:00:00Z"}}),
        json!({"scheme": "hmac", "header": "X-Sign", "prefix": "p=", "algorithm": "sha512", "encoding": "base64",
            "secret_encoding": "base64", "timestamp_header": "X-Time", "timestamp_separator": "|", "secret": secret}),
        json!({"scheme": "hmac", "header": "X-Sign", "secret": {"file": "some/file", "until": "2030-01-31T12:00:00Z"}}),
        json!({"scheme": "basic", "username": "u", "secret": secret}),
        json!({"scheme": "bearer", "secret": secret}),
        json!({"scheme": "token", "header": "X-Token", "prefix": "Token ", "secret": secret}),
        json!({"scheme": "api-key", "header": "X-Key", "secret": secret}),
        json!({"scheme": "api-key", "query": "key", "secret": secret}),
        json!({"scheme": "http-message-signatures", "algorithm": "hmac-sha256", "secret": secret}),
        json!({"scheme": "http-message-signatures", "algorithm": "ed25519", "components": ["@method", "content-digest"],
            "label": "sig-a", "tell_algorithm": false, "valid_for": "300s", "digest": "sha-512",
            "secret": {"text": pem, "id": "k"}}),
        json!({"scheme": "jwt-bearer", "algorithm": "EdDSA", "audience": "a", "issuer": "i", "secret": pem}),
        json!({"scheme": "jwt-bearer", "algorithm": "EdDSA", "audience": "a", "issuer": "i", "subject": "s", "scope": "x",
            "lifetime": "600s", "claims": {"c": [1]}, "token_url": "https://t.example/x", "token_ca": "/ca.pem",
            "secret": {"text": pem, "id": "k"}}),
        json!({"scheme": "oauth2-client-credentials", "token_url": "https://t.example/x?SECRETPATH", "token_ca": "/ca.pem",
            "client_id": "c", "client_auth": "body", "scope": "x", "audience": "a", "secret": secret}),
    ]
}

#[test]
fn what_was_kept_is_the_same() {
    for config in every_scheme("c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0", ED25519_PEM) {
        let list = auths(config.clone());
        let again = read(&write(&list), Path::new("")).unwrap_or_else(|f| panic!("{config}: {}", f.error));
        assert_eq!(again, list, "{config}");
        assert_eq!(list[0].scheme(), config["scheme"].as_str().unwrap());
    }
    assert_eq!(
        auths(json!({"scheme": "github", "secret": {"file": "a/b"}}))[0].secrets().list()[0].file_path(),
        Some(Path::new("/base/a/b"))
    );
}

#[test]
fn no_secret_is_shown() {
    let (secret, pem_line) = ("c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0", ED25519_PEM.lines().nth(1).unwrap());
    let check = |text: String| {
        for hidden in [secret, pem_line, "SECRETPATH", "secret-secret"] {
            assert!(!text.contains(hidden), "{text}");
        }
    };
    for config in every_scheme(secret, ED25519_PEM) {
        let list = auths(config.clone());
        let mut webhook = Webhook::new("https://example.com/").unwrap();
        webhook.auth.clone_from(&list);
        check(format!("{list:?} {webhook:?} {:#?}", webhook.clone()));
        if let Ok(signed) = with_request(&[b"x"], &[], |r| sign_as(config.clone(), r)) {
            check(format!("{signed:?}"));
        }
    }
    // Nor is it in an error, in whatever place it is written, and whatever is wrong with it.
    for bad in [
        "Qm9ndXM-c2VjcmV0",
        "whsec_Qm9ndXM-c2VjcmV0",
        "whsec_Qm9ndXM=",
        "whsk_Qm9ndXM=",
        "{\"Qm9ndXM-c2VjcmV0\": 1",
        "-----BEGIN PRIVATE KEY-----\nQm9ndXM-c2VjcmV0\n-----END PRIVATE KEY-----",
        "Qm9ndXM-c2VjcmV0\r\nX: y",
    ] {
        let mut shown = String::new();
        for config in every_scheme(bad, bad) {
            shown +=
                &read(&config, Path::new("")).err().map_or(String::new(), |f| format!("{} {:?}", f.error, f.error));
            for wrong in
                ["valid_for", "label", "tell_algorithm", "claims", "token_url", "header", "components", "until"]
            {
                let mut config = config.clone();
                config[wrong] = json!({"x": bad});
                shown += &read(&config, Path::new("")).err().map_or(String::new(), |f| f.error.to_string());
            }
        }
        assert!(!shown.is_empty() && !shown.contains("Qm9ndXM"), "{shown}");
    }
}

#[test]
fn secrets_that_an_endpoint_quotes_are_hidden() {
    let list = json!([
        {"scheme": "basic", "username": "me", "secret": "pass word"},
        {"scheme": "token", "header": "X-T", "prefix": "Token ", "secret": "tttt"},
        {"scheme": "api-key", "query": "k", "secret": "a +é"},
        {"scheme": "api-key", "header": "X-K", "secret": "x"},
    ]);
    let signed = with_request(&[], &[], |r| sign_as(list, r)).unwrap();
    let mut answer =
        "no `tttttttt` Basic bWU6cGFzcyB3b3Jk or pass word, k=a+%2B%C3%A9 a +é: Token x".to_owned().into_bytes();
    signed.hide(&mut answer);
    let hidden = "no `********` Basic **************** or *********, k=*********** *****: Token x";
    assert_eq!(String::from_utf8(answer).unwrap(), hidden);
    let mut fetched = Signed::default();
    fetched.bearer("****");
    fetched.bearer("from-elsewhere");
    let mut answer = b"{\"token\": \"from-elsewhere\"}".to_vec();
    fetched.hide(&mut answer);
    assert_eq!(answer, b"{\"token\": \"**************\"}");
}

#[test]
fn what_is_wrong_is_told_with_place_and_remedy() {
    let pem = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap().serialize_pem();
    let webhooks = |secret: Value| json!({"scheme": "standard-webhooks", "secret": secret});
    let signatures = |key: &str, value: Value| {
        let mut v = json!({"scheme": "http-message-signatures", "algorithm": "hmac-sha256", "secret": "s"});
        v[key] = value;
        v
    };
    let oauth =
        |url: &str| json!({"scheme": "oauth2-client-credentials", "token_url": url, "client_id": "c", "secret": "s"});
    for (config, parts) in [
        (json!("x"), &["a scheme is no table", "{ scheme ="][..]),
        (json!({}), &["`scheme` is missing"]),
        (json!({"scheme": "standard-webhook"}), &["unknown scheme", "did you mean `standard-webhooks`?"]),
        (json!({"scheme": "bearer"}), &["`secret` is missing", "{ env = "]),
        (json!({"scheme": "bearer", "secret": 5}), &["auth: secret: this is no secret"]),
        (json!({"scheme": "bearer", "secret": "x", "secrte": 1}), &["unknown key `secrte`", "did you mean `secret`?"]),
        (json!({"scheme": "bearer", "secret": "x", "username": "u"}), &["unknown key `username`", "known: "]),
        (json!({"scheme": "bearer", "secret": {"envv": "x"}}), &["secret: ", "`env` is missing"]),
        (
            json!({"scheme": "bearer", "secret": {"env": "X", "fil": "x"}}),
            &["unknown key `fil`", "did you mean `file`?"],
        ),
        (json!({"scheme": "bearer", "secret": {"env": "X", "file": "y"}}), &["more than one of `env`", "write a list"]),
        (json!({"scheme": "bearer", "secret": {"env": "A=B"}}), &["`env` is no name of an environment variable"]),
        (json!({"scheme": "bearer", "secret": []}), &["there is no secret"]),
        (json!({"scheme": "bearer", "secret": {"text": "x", "until": "soon"}}), &["`until` is no time", "2030-01-31"]),
        (json!({"scheme": "bearer", "secret": ""}), &["secret: the secret is empty"]),
        (json!({"scheme": "bearer", "secret": ["a", "b\nc"]}), &["secret[1]: ", "line break"]),
        (json!({"scheme": "bearer", "secret": "a\u{7f}"}), &["control character"]),
        (json!({"scheme": "bearer", "secret": "é"}), &["not ASCII"]),
        (json!({"scheme": "bearer", "secret": " a"}), &["white space"]),
        (
            json!({"scheme": "bearer", "secret": "Bearer x"}),
            &["the token has a space", "`Bearer` is written before it"],
        ),
        (json!({"scheme": "token", "secret": "x"}), &["`header` is missing"]),
        (json!({"scheme": "token", "header": "a b", "secret": "x"}), &["header: ", "is not a header name"]),
        (json!({"scheme": "token", "header": "Host", "secret": "x"}), &["header: ", "cannot be set"]),
        (json!({"scheme": "token", "header": "X", "prefix": "é", "secret": "x"}), &["prefix: "]),
        (json!({"scheme": "api-key", "secret": "x"}), &["`header` is missing", "`query`"]),
        (json!({"scheme": "api-key", "header": "X", "query": "k", "secret": "x"}), &["query: ", "choose one"]),
        (json!({"scheme": "api-key", "query": "", "secret": "x"}), &["query: "]),
        (json!({"scheme": "basic", "username": "a:b", "secret": "x"}), &["username: ", "colon"]),
        (json!({"scheme": "basic", "username": "a", "secret": "x\ny"}), &["secret: ", "control character"]),
        (webhooks(json!("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")), &["secret: ", "neither whsec_ nor whsk_"]),
        (webhooks(json!("whpk_x")), &["public key", "whsk_"]),
        (webhooks(json!("whsec_a-b")), &["not base64", "A-Z"]),
        (webhooks(json!("whsec_c2hvcnQ=")), &["5 bytes", "24 to 64", "openssl rand -base64 32"]),
        (webhooks(json!("whsk_c2hvcnQ=")), &["5 bytes", "has 32"]),
        (webhooks(json!(["whsec_c2hvcnQ="])), &["secret: ", "5 bytes"]),
        (webhooks(json!([WHSEC, WHSEC, WHSEC, WHSEC, WHSEC])), &["5 secrets are valid at the same time, more than 4"]),
        (
            json!({"scheme": "hmac", "header": "X", "algorithm": "md5", "secret": "x"}),
            &["unknown algorithm `md5`", "known: "],
        ),
        (json!({"scheme": "hmac", "header": "X", "secret_encoding": "hex", "secret": "abc"}), &["secret: ", "not hex"]),
        (json!({"scheme": "hmac", "header": "X", "timestamp_header": "x", "secret": "s"}), &["timestamp_header: "]),
        (signatures("algorithm", json!("ed25519")), &["not a private key in PEM form", "openssl genpkey"]),
        (signatures("components", json!(["@method", "Content-Type"])), &["components: ", "lower case"]),
        (signatures("components", json!(["@method", "@method"])), &["components: ", "twice"]),
        (signatures("components", json!("@method")), &["components: ", "list of strings"]),
        (signatures("label", json!("Sig")), &["label: "]),
        (signatures("valid_for", json!("5")), &["valid_for: ", "\"72h\""]),
        (signatures("valid_for", json!("1ms")), &["valid_for: ", "whole seconds"]),
        (json!({"scheme": "http-message-signatures", "secret": "s"}), &["`algorithm` is missing", "ed25519"]),
        (json!({"scheme": "http-message-signatures", "algorithm": "ed25519", "secret": pem}), &["not an Ed25519 key"]),
        (json!({"scheme": "jwt-bearer", "secret": pem}), &["`audience` is missing"]),
        (json!({"scheme": "jwt-bearer", "audience": "a", "issuer": "i", "secret": pem}), &["not an RSA key"]),
        (
            json!({"scheme": "jwt-bearer", "algorithm": "ES256", "audience": "a", "secret": pem}),
            &["there is no issuer"],
        ),
        (json!({"scheme": "jwt-bearer", "audience": "a", "secret": "{}"}), &["no `private_key`"]),
        (json!({"scheme": "jwt-bearer", "audience": "a", "claims": {"exp": 1}, "secret": pem}), &["claims: ", "`exp`"]),
        (json!({"scheme": "jwt-bearer", "audience": "a", "lifetime": "5s", "secret": pem}), &["lifetime: ", "from 60"]),
        (oauth("http://id.example/t"), &["token_url: ", "in the clear", "https://"]),
        (oauth("id.example"), &["token_url: ", "http://"]),
        (json!({"scheme": "oauth2-client-credentials", "client_id": "c", "secret": "s"}), &["`token_url` is missing"]),
    ] {
        let e = read(&config, Path::new("")).err().unwrap_or_else(|| panic!("{config} is taken")).error;
        let text = e.to_string();
        assert_eq!(e.kind(), ErrorKind::InvalidConfig);
        assert!(e.remedy_text().is_some() && text.starts_with("auth: "), "{text}");
        for part in parts {
            assert!(text.contains(part), "`{part}` is not in: {text}");
        }
    }
}

#[test]
fn schemes_that_do_not_go_together_are_refused() {
    let bearer = json!({"scheme": "bearer", "secret": "x"});
    let basic = json!({"scheme": "basic", "username": "u", "secret": "x"});
    let webhooks = json!({"scheme": "standard-webhooks", "secret": WHSEC});
    let signatures = |c: &str| json!({"scheme": "http-message-signatures", "algorithm": "hmac-sha256", "components": [c], "secret": "s"});
    let own = [("X-Own".to_owned(), "1".to_owned()), ("authorization".to_owned(), "2".to_owned())];
    let check = |list: Value, headers: &[(String, String)]| validate(&auths(list), headers);
    for (list, headers, what) in [
        (json!([bearer, basic]), &own[..1], "two schemes set the header authorization"),
        (json!([bearer]), &own[..], "the scheme bearer sets the header Authorization, which is given too"),
        (json!([signatures("x-owns")]), &own[..1], "no request has the component `x-owns`; did you mean `x-own`?"),
        (json!([webhooks, webhooks, webhooks, webhooks, webhooks]), &[][..], "5 schemes, more than 4"),
    ] {
        let e = check(list, headers).unwrap_err();
        assert!(e.to_string().contains(what) && e.place().unwrap().starts_with("auth"), "{e}");
    }
    check(json!([webhooks, bearer, signatures("webhook-id")]), &own[..1]).unwrap();
    check(json!([signatures("webhook-timestamp"), webhooks]), &own[..1]).unwrap();
    check(json!([]), &own).unwrap();
}

#[test]
fn what_is_put_can_be_kept_and_used() {
    let bearer = |secret: Secret| [Auth::Bearer(Bearer::new(secret))];
    let callback = bearer(Secret::callback(|| Ok("x".into())));
    let e = check_put(&callback, true, 0).unwrap_err().to_string();
    assert!(e.contains("auth: secret: a function of the host cannot be kept"), "{e}");
    check_put(&callback, false, 0).unwrap();
    let past = bearer(Secret::text("x").valid_until(60));
    check_put(&past, true, 59).unwrap();
    let e = check_put(&past, true, 60).unwrap_err().to_string();
    assert!(e.contains("auth: secret: every secret has expired, the last one at 1970-01-01T00:01:00Z"), "{e}");
}

#[test]
fn secrets_of_the_environment_files_and_functions_are_checked_before_use() {
    let check = |auth: &Auth| auth.check().map_err(|e| e.to_string());
    let bearer = |secret: Secret| Auth::Bearer(Bearer::new(secret));
    let e = check(&bearer(Secret::env("TIDEWIRE_NO_SUCH_SECRET"))).unwrap_err();
    assert!(e.starts_with("secret: there is no environment variable TIDEWIRE_NO_SUCH_SECRET; set "), "{e}");
    let e = check(&bearer(Secret::callback(|| Ok("a\nb".into())))).unwrap_err();
    assert!(e.contains("line break"), "{e}");
    bearer(Secret::env("TIDEWIRE_NO_SUCH_SECRET")).validate().unwrap();
    let path = std::env::var("PATH").unwrap();
    assert!(!path.is_empty());
    check(&bearer(Secret::env("PATH"))).unwrap();
}

#[test]
fn the_id_of_a_batch_is_that_of_its_events() {
    let id = |n: u64| EventId { incarnation: 0xFEED, shard: 3, sequence: n };
    let of = |list: &[u64]| batch_id(list.iter().map(|n| id(*n)));
    assert_eq!(of(&[12]), "msg_000000000000FEED-0003-000000000000000C");
    assert_eq!(of(&[1, 2, 3]), of(&[1, 2, 3]), "a retry repeats it");
    // A split batch, another order, an event more or less.
    let all: Vec<String> = [&[1, 2, 3][..], &[1, 2], &[3], &[2, 3], &[3, 2, 1], &[1, 2, 3, 4], &[]].map(of).to_vec();
    let different: std::collections::BTreeSet<&String> = all.iter().collect();
    assert_eq!(different.len(), all.len(), "{all:?}");
    for id in &all {
        assert!(id.starts_with("msg_") && id[4..].bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'), "{id}");
    }
    assert_eq!(of(&[1, 2]).len(), 31);
    assert_eq!((base62(&[0; 20]), base62(&[0xFF; 20])), ("0".repeat(27), "aWgEPTl1tmebfsQzFP4bxwgy80V".into()));
    assert_eq!(base62(&[vec![0; 18], vec![1, 0]].concat()), format!("{}48", "0".repeat(25)));
}

proptest! {
    #[test]
    fn signing_slices_is_signing_the_whole(
        slices in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 0..12),
        unix in 1..4_000_000_000i64,
    ) {
        let slices: Vec<&[u8]> = slices.iter().map(Vec::as_slice).collect();
        let joined = slices.concat();
        let list = json!([
            {"scheme": "standard-webhooks", "secret": [WHSEC, format!("whsk_{}", STANDARD.encode([7; 32]))]},
            {"scheme": "hmac", "header": "x-a", "timestamp_header": "x-b", "algorithm": "sha512", "secret": "s"},
            {"scheme": "github", "secret": "s"},
            {"scheme": "http-message-signatures", "algorithm": "ed25519", "secret": ED25519_PEM,
             "components": ["content-digest", "content-length", "webhook-signature", "x-a"]},
        ]);
        let signer = Signer::load(&auths(list)).unwrap();
        let of = |body: &[&[u8]]| {
            let mut out = Signed::default();
            with_request(body, &[], |r| signer.sign(&Request { unix, ..*r }, &mut out)).unwrap();
            out.headers.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect::<Vec<_>>()
        };
        let got = of(&slices);
        prop_assert_eq!(got.len(), 3 + 2 + 1 + 3);
        prop_assert_eq!(got, of(&[&joined]));
    }
}
