//! Certificates that are in order, and such that are not.

use std::io;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose, date_time_ymd,
};
use tokio_rustls::TlsAcceptor;

use super::trick::Trick;
use crate::server::{Tls, acceptor};

/// For `localhost` and 127.0.0.1.
pub(super) struct Certificates {
    /// The authority that clients are to trust, in PEM.
    pub(super) authority: String,
    good: TlsAcceptor,
    wrong: TlsAcceptor,
    expired: TlsAcceptor,
    other: TlsAcceptor,
}

impl Certificates {
    pub(super) fn make() -> io::Result<Certificates> {
        let bad = |e: rcgen::Error| io::Error::other(e);
        let (known, unknown) = (authority("known").map_err(bad)?, authority("unknown").map_err(bad)?);
        let here: &[&str] = &["localhost", "127.0.0.1"];
        let made = |issuer, names, ends| acceptor(&leaf(issuer, names, ends).map_err(bad)?);
        Ok(Certificates {
            authority: known.pem(),
            good: made(&known, here, 2200)?,
            wrong: made(&unknown, here, 2200)?,
            expired: made(&known, here, 2021)?,
            other: made(&known, &["other.example"], 2200)?,
        })
    }

    pub(super) fn for_trick(&self, trick: Trick) -> &TlsAcceptor {
        match trick {
            Trick::WrongCertificate => &self.wrong,
            Trick::ExpiredCertificate => &self.expired,
            Trick::OtherName => &self.other,
            _ => &self.good,
        }
    }
}

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority(name: &str) -> Result<Authority, rcgen::Error> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    CertifiedIssuer::self_signed(params, KeyPair::generate()?)
}

fn leaf(issuer: &Authority, names: &[&str], last_year: i32) -> Result<Tls, rcgen::Error> {
    let mut params = CertificateParams::new(names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>())?;
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(last_year, 1, 1);
    let key = KeyPair::generate()?;
    let certificates = params.signed_by(&key, issuer)?.pem();
    Ok(Tls { certificates, key: key.serialize_pem(), client_ca: None })
}
