//! TLS as a client: whom to trust, who we are, and what a failed handshake means.
//!
//! The cryptography is ring's, given to each configuration explicitly: the host's process default is neither used nor
//! set. Protocols are TLS 1.2 and 1.3. Revocation is not checked, and there is no way to switch verification off.

mod certificate;
pub(crate) mod keeper;
mod pinned;
mod settings;

pub(crate) use keeper::H2;
pub use keeper::client_config;
pub use settings::{Pin, Tls, TlsVersion};

use std::fmt::Display;
use std::io;
use std::path::Path;

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{AlertDescription, CertificateError, RootCertStore};

use crate::error::{Error, ErrorKind, Result};

/// The largest PEM file read, in bytes; a system's whole set of roots is about a quarter of a megabyte.
pub const PEM_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// The name to ask for and to verify, from the host of a URL: a DNS name, with or without the final dot, or an IP
/// address, an IPv6 one with or without brackets.
///
/// # Errors
/// [`ErrorKind::InvalidConfig`] if it is neither.
pub fn server_name(host: &str) -> Result<ServerName<'static>> {
    let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    // Certificates name hosts without the root's dot.
    let bare = bare.strip_suffix('.').unwrap_or(bare);
    ServerName::try_from(bare.to_owned())
        .map_err(|_| Error::invalid_config(format!("{host:?} is neither a DNS name nor an IP address")))
}

/// Puts into words what went wrong on a TLS connection to `host`, and what to do about it.
///
/// Takes the I/O error in which the TLS stream wraps it; any other error comes back as by [`Error::io`].
#[cold]
pub fn explain(host: &str, error: &io::Error) -> Error {
    let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) else {
        return Error::io(format_args!("TLS with {host}"), error);
    };
    let told = Error::new(ErrorKind::Io, format!("TLS with {host}: {tls}"));
    match tls {
        rustls::Error::InvalidCertificate(reason) => match certificate_remedy(reason) {
            Some(remedy) => told.remedy(remedy),
            None => told,
        },
        rustls::Error::InvalidMessage(_) => told.remedy("the endpoint may not speak TLS on this port: try http://"),
        rustls::Error::NoApplicationProtocol
        | rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol) => {
            told.remedy("the endpoint refuses what is offered: enable HTTP/1.1 there, or set `http2 = true`")
        }
        rustls::Error::AlertReceived(AlertDescription::ProtocolVersion) => {
            told.remedy("enable TLS 1.3 or TLS 1.2 at the endpoint, or see whether `tls.version_min` asks for too much")
        }
        rustls::Error::AlertReceived(
            AlertDescription::CertificateRequired
            | AlertDescription::UnknownCA
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateUnknown
            | AlertDescription::CertificateExpired,
        ) => told.remedy(
            "the endpoint wants a client certificate that it trusts: check `tls.client_cert` and `tls.client_key`",
        ),
        _ => told,
    }
}

fn certificate_remedy(reason: &CertificateError) -> Option<&'static str> {
    Some(match reason {
        CertificateError::UnknownIssuer => {
            "give the certificate of the authority that issued it as the CA file, and let the endpoint send its \
             intermediate certificates"
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "renew the endpoint's certificate, and check this machine's clock"
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => "check this machine's clock",
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "use a name that the certificate holds (as subject alternative name; the common name does not count)"
        }
        CertificateError::BadSignature => {
            "the CA file may hold an earlier certificate of the same authority: give the one that issued the endpoint's"
        }
        // The type behind it is of a crate that is not our dependency; its name is part of the text.
        CertificateError::Other(other) if format!("{other:?}").contains("CaUsedAsEndEntity") => {
            "the endpoint presents a CA certificate as its own, as `openssl req -x509` makes by default; issue a leaf \
             certificate (basicConstraints CA:FALSE) from a CA and give the CA's certificate as the CA file"
        }
        CertificateError::Other(other) if other.0.is::<pinned::OtherKey>() => {
            "if the endpoint's key was replaced on purpose, add the new one to `tls.pins`"
        }
        _ => return None,
    })
}

fn add_system(store: &mut RootCertStore) -> Result<()> {
    let found = rustls_native_certs::load_native_certs();
    let (added, unusable) = store.add_parsable_certificates(found.certs);
    if added > 0 {
        if unusable > 0 || !found.errors.is_empty() {
            log::warn!("of the system's root certificates {added} are used, {} failed", unusable + found.errors.len());
        }
        return Ok(());
    }
    let reasons: Vec<String> = found.errors.iter().take(3).map(ToString::to_string).collect();
    let reasons = if reasons.is_empty() { String::new() } else { format!(": {}", reasons.join("; ")) };
    Err(Error::invalid_config(format!("the system has no usable root certificates{reasons}"))
        .remedy("install the package ca-certificates, set SSL_CERT_FILE, or give a CA file"))
}

fn add_file(store: &mut RootCertStore, path: &Path) -> Result<()> {
    for (index, certificate) in certificates_of(path)?.into_iter().enumerate() {
        store.add(certificate).map_err(|e| {
            bad_file(path, format_args!("certificate {} cannot be a trust anchor: {e}", index + 1))
                .remedy("give certificates of authorities, in PEM")
        })?;
    }
    Ok(())
}

fn certificates_of(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let text = read(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let found = found.map_err(|e| bad_file(path, pem_text(&e)).remedy("give certificates in PEM"))?;
    if found.is_empty() {
        let error = bad_file(path, "the file holds no certificate");
        return Err(match () {
            () if PrivateKeyDer::from_pem_slice(&text).is_ok() => {
                error.remedy("it holds a private key: give the certificate file here")
            }
            // A DER certificate is a SEQUENCE with a two-byte length.
            () if text.starts_with(&[0x30, 0x82]) => {
                error.remedy("it seems to be DER: convert it with `openssl x509 -inform der`")
            }
            () => error.remedy("give certificates in PEM (-----BEGIN CERTIFICATE-----)"),
        });
    }
    Ok(found)
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>> {
    let text = read(path)?;
    PrivateKeyDer::from_pem_slice(&text).map_err(|e| {
        if memchr::memmem::find(&text, b"ENCRYPTED").is_some() {
            return bad_file(path, "the private key is encrypted").remedy("decrypt it with `openssl pkey`");
        }
        let error = match e {
            pem::Error::NoItemsFound => bad_file(path, "the file holds no private key"),
            e => bad_file(path, pem_text(&e)),
        };
        error.remedy("give a private key in PEM (PKCS #8, PKCS #1 or SEC1)")
    })
}

/// The kind of the fault, without the line at fault: that may be part of a key.
fn pem_text(error: &pem::Error) -> &'static str {
    match error {
        pem::Error::MissingSectionEnd { .. } => "a PEM section has no END line",
        pem::Error::IllegalSectionStart { .. } => "a PEM section begins with a faulty line",
        pem::Error::Base64Decode(_) => "a PEM section is not Base64",
        _ => "the file is not PEM",
    }
}

fn bad_file(path: &Path, what: impl Display) -> Error {
    Error::invalid_config(what.to_string()).at(path.display().to_string())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    // Not Error::io, whose remedies are about the data directory.
    let failed = |e: &io::Error| {
        let error = Error::new(ErrorKind::Io, format!("cannot be read: {e}")).at(path.display().to_string());
        match e.kind() {
            io::ErrorKind::NotFound => bad_file(path, "there is no such file").remedy("name a file in PEM"),
            io::ErrorKind::PermissionDenied => error.remedy("make the file readable for this user"),
            _ => error,
        }
    };
    let size = std::fs::metadata(path).map_err(|e| failed(&e))?.len();
    if size > PEM_BYTES_MAX {
        return Err(bad_file(path, format_args!("the file has {size} bytes, more than {PEM_BYTES_MAX}")));
    }
    std::fs::read(path).map_err(|e| failed(&e))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::Arc;

    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};
    use rustls::pki_types::PrivatePkcs8KeyDer;
    use rustls::server::WebPkiClientVerifier;
    use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection};
    use tempfile::NamedTempFile;

    use super::*;

    /// Who is trusted, and who we are: the files of certificate and key.
    fn settings(ca: Option<&NamedTempFile>, own: Option<(&NamedTempFile, &NamedTempFile)>) -> Tls {
        let path = |f: &NamedTempFile| f.path().to_owned();
        Tls {
            ca: ca.map(path).into_iter().collect(),
            client_cert: own.map(|(cert, _)| path(cert)),
            client_key: own.map(|(_, key)| path(key)),
            ..Tls::default()
        }
    }

    fn trusting(ca: &NamedTempFile) -> Arc<ClientConfig> {
        client_config(&settings(Some(ca), None)).expect("a configuration")
    }

    fn file(text: impl AsRef<[u8]>) -> NamedTempFile {
        let mut file = NamedTempFile::new().expect("a file");
        file.write_all(text.as_ref()).expect("written");
        file
    }

    fn key() -> KeyPair {
        KeyPair::generate().expect("a key")
    }

    fn authority() -> CertifiedIssuer<'static, KeyPair> {
        authority_named("authority")
    }

    fn authority_named(name: &str) -> CertifiedIssuer<'static, KeyPair> {
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        CertifiedIssuer::self_signed(params, key()).expect("an authority")
    }

    fn leaf_params() -> CertificateParams {
        CertificateParams::new(vec!["h.example".to_owned(), "127.0.0.1".to_owned()]).expect("parameters")
    }

    /// A server with a leaf of `ca`, which asks for client certificates of `clients` if given.
    fn server(ca: &CertifiedIssuer<'_, KeyPair>, leaf: CertificateParams, clients: Option<&str>) -> ServerConfig {
        let key = key();
        let leaf = leaf.signed_by(&key, ca).expect("a leaf");
        server_with(leaf.der().clone(), &key, clients)
    }

    fn server_with(certificate: CertificateDer<'static>, key: &KeyPair, clients: Option<&str>) -> ServerConfig {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .expect("versions");
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(pem) => {
                let mut roots = RootCertStore::empty();
                roots.add(CertificateDer::from_pem_slice(pem.as_bytes()).expect("PEM")).expect("a root");
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
                builder.with_client_cert_verifier(verifier.expect("a verifier"))
            }
        };
        let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
        let mut config = builder.with_single_cert(vec![certificate], key).expect("a server");
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        config
    }

    /// Carries bytes between both ends until they have nothing to say, or one objects.
    fn shake(client: Arc<ClientConfig>, server: ServerConfig, host: &str) -> Result<Option<Vec<u8>>> {
        let name = server_name(host)?;
        let wrap = |e: rustls::Error| explain(host, &io::Error::new(io::ErrorKind::InvalidData, e));
        let mut client = ClientConnection::new(client, name).map_err(wrap)?;
        let mut server = ServerConnection::new(Arc::new(server)).map_err(wrap)?;
        while client.wants_write() || server.wants_write() {
            let mut wire = Vec::new();
            while client.wants_write() {
                client.write_tls(&mut wire).expect("into memory");
            }
            let mut pending = wire.as_slice();
            while !pending.is_empty() {
                server.read_tls(&mut pending).expect("from memory");
                // The server's objection reaches the client as an alert.
                let _ = server.process_new_packets();
            }
            let mut wire = Vec::new();
            while server.wants_write() {
                server.write_tls(&mut wire).expect("into memory");
            }
            let mut pending = wire.as_slice();
            while !pending.is_empty() {
                client.read_tls(&mut pending).expect("from memory");
                client.process_new_packets().map_err(wrap)?;
            }
        }
        assert!(!client.is_handshaking());
        Ok(client.alpn_protocol().map(<[u8]>::to_vec))
    }

    #[test]
    fn a_ca_file_is_trusted() {
        let ca = authority();
        let pem = file(ca.pem());
        let config = trusting(&pem);
        for host in ["h.example", "h.example.", "127.0.0.1"] {
            let agreed = shake(config.clone(), server(&ca, leaf_params(), None), host).expect(host);
            assert_eq!(agreed.as_deref(), Some(&b"http/1.1"[..]));
        }
    }

    #[test]
    fn system_roots() {
        // A machine may have none; then the error says what to do.
        match client_config(&Tls::default()) {
            Ok(config) => {
                let ca = authority();
                let error = shake(config, server(&ca, leaf_params(), None), "h.example").expect_err("not a public one");
                assert!(error.to_string().contains("CA file"), "{error}");
            }
            Err(error) => assert!(error.to_string().contains("ca-certificates"), "{error}"),
        }
    }

    #[test]
    fn several_certificates_in_one_file() {
        let (a, b) = (authority_named("a"), authority_named("b"));
        let pem = file(format!("comment\n{}\n{}", a.pem(), b.pem()));
        let config = trusting(&pem);
        for ca in [&a, &b] {
            shake(config.clone(), server(ca, leaf_params(), None), "h.example").expect("trusted");
        }
    }

    #[test]
    fn failed_handshakes_are_explained() {
        let ca = authority();
        let pem = file(ca.pem());
        let config = trusting(&pem);
        let told = |config: &Arc<ClientConfig>, server, host| {
            let error = shake(config.clone(), server, host).expect_err("refused");
            assert_eq!(error.kind(), ErrorKind::Io);
            assert!(error.message().contains(host), "{error}");
            error.remedy_text().unwrap_or_else(|| panic!("no remedy: {error}")).to_owned()
        };
        let other = authority_named("other");
        assert!(told(&config, server(&other, leaf_params(), None), "h.example").contains("CA file"));
        assert!(told(&config, server(&authority(), leaf_params(), None), "h.example").contains("earlier"));
        assert!(told(&config, server(&ca, leaf_params(), None), "other.example").contains("alternative name"));
        let mut expired = leaf_params();
        expired.not_after = date_time_ymd(2001, 1, 1);
        assert!(told(&config, server(&ca, expired, None), "h.example").contains("renew"));
        let mut future = leaf_params();
        future.not_before = date_time_ymd(4000, 1, 1);
        assert!(told(&config, server(&ca, future, None), "h.example").contains("clock"));

        // What `openssl req -x509` makes: one certificate that is its own authority.
        let key = key();
        let mut params = leaf_params();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let own = params.self_signed(&key).expect("self-signed");
        let pem = file(own.pem());
        let config = trusting(&pem);
        let remedy = told(&config, server_with(own.der().clone(), &key, None), "h.example");
        assert!(remedy.contains("CA:FALSE"), "{remedy}");
    }

    #[test]
    fn an_endpoint_without_tls_is_explained() {
        let pem = file(authority().pem());
        let config = trusting(&pem);
        let mut client = ClientConnection::new(config, server_name("h").expect("a name")).expect("a client");
        client.read_tls(&mut &b"HTTP/1.1 400 Bad Request\r\n\r\n"[..]).expect("from memory");
        let error = client.process_new_packets().expect_err("not TLS");
        let error = explain("h", &io::Error::new(io::ErrorKind::InvalidData, error));
        assert!(error.to_string().contains("http://"), "{error}");
        let error = explain("h", &io::Error::from(io::ErrorKind::ConnectionReset));
        assert_eq!(error.kind(), ErrorKind::Io);
    }

    #[test]
    fn client_certificates() {
        let (ca, clients) = (authority(), authority());
        let pem = file(ca.pem());
        let key = key();
        let own = leaf_params().signed_by(&key, &clients).expect("a leaf");
        let (own, own_key) = (file(own.pem()), file(key.serialize_pem()));
        let config = client_config(&settings(Some(&pem), Some((&own, &own_key)))).expect("a configuration");
        shake(config, server(&ca, leaf_params(), Some(&clients.pem())), "h.example").expect("known");

        let error =
            shake(trusting(&pem), server(&ca, leaf_params(), Some(&clients.pem())), "h.example").expect_err("unknown");
        assert!(error.to_string().contains("client certificate"), "{error}");

        let other = file(KeyPair::generate().expect("a key").serialize_pem());
        let error = client_config(&settings(Some(&pem), Some((&own, &other)))).expect_err("the wrong key");
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        assert_eq!(error.place(), Some(format!("tls.client_key: {}", other.path().display()).as_str()));
    }

    #[test]
    fn bad_files_name_the_file_and_the_remedy() {
        let ca = authority();
        let key = key().serialize_pem();
        let cut = ca.pem().replace("-----END CERTIFICATE-----", "");
        let cases: Vec<(Vec<u8>, &str)> = vec![
            (b"".to_vec(), "BEGIN CERTIFICATE"),
            (b"nonsense\xff".to_vec(), "BEGIN CERTIFICATE"),
            (cut.into_bytes(), "no END line"),
            (b"-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n".to_vec(), "Base64"),
            (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_vec(), "trust anchor"),
            (key.into_bytes(), "private key"),
            (ca.der().to_vec(), "DER"),
        ];
        for (text, expected) in cases {
            let bad = file(&text);
            let error = client_config(&settings(Some(&bad), None)).expect_err(expected);
            assert_eq!(error.kind(), ErrorKind::InvalidConfig);
            assert_eq!(error.place(), Some(format!("tls.ca: {}", bad.path().display()).as_str()));
            assert!(error.to_string().contains(expected), "{error}, not {expected}");
        }
        let error = client_config(&Tls { ca: vec!["/nowhere/ca.pem".into()], ..Tls::default() }).expect_err("no file");
        assert!(error.kind() == ErrorKind::InvalidConfig && error.to_string().contains("/nowhere/ca.pem"), "{error}");
    }

    #[test]
    fn bad_keys_are_not_quoted() {
        let pem = file(authority().pem());
        for (text, expected) in [
            ("hunter2", "no private key"),
            ("-----BEGIN PRIVATE KEY-----\nhunter2hunter2!\n-----END PRIVATE KEY-----\n", "Base64"),
            ("-----BEGIN ENCRYPTED PRIVATE KEY-----\naHVudGVyMg==\n-----END ENCRYPTED PRIVATE KEY-----\n", "encrypted"),
            ("-----BEGIN PRIVATE KEY-----\naHVudGVyMg==\n-----END PRIVATE KEY-----\n", "cannot be used"),
        ] {
            let key = file(text);
            let error = client_config(&settings(Some(&pem), Some((&pem, &key)))).expect_err(expected);
            assert!(error.to_string().contains(expected) && !error.to_string().contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn server_names() {
        for (host, expected) in [
            ("h.example", "h.example"),
            ("h.example.", "h.example"),
            ("10.0.0.1", "10.0.0.1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("::1", "::1"),
        ] {
            assert_eq!(server_name(host).expect(host).to_str(), expected);
        }
        for host in ["", ".", "a b", "[h", "h:80", "-h-..x"] {
            assert_eq!(server_name(host).expect_err(host).kind(), ErrorKind::InvalidConfig);
        }
    }
}
