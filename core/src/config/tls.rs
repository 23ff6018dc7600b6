//! The table `tls` of a destination, in files and as it is kept.

use std::path::PathBuf;

use serde::Deserialize;
use serde_json::{Value, json};
use toml::Spanned;

use super::load::Places;
use super::stored::time;
use super::units::Time;
use crate::error::Error;
use crate::net::tls::{Pin, Tls, TlsVersion};

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TlsTable {
    ca: Option<Spanned<OneOrMore>>,
    server_name: Option<Spanned<String>>,
    pins: Option<Spanned<OneOrMore>>,
    client_cert: Option<Spanned<String>>,
    client_key: Option<Spanned<String>>,
    version_min: Option<Spanned<String>>,
    expiry_warning: Option<Spanned<Time>>,
}

impl TlsTable {
    /// Where the first thing in it stands, if there is any.
    pub(super) fn begins(&self) -> Option<usize> {
        let texts = [&self.server_name, &self.client_cert, &self.client_key, &self.version_min];
        let lists = [&self.ca, &self.pins].into_iter().flatten().map(Spanned::span);
        let spans = texts.into_iter().flatten().map(Spanned::span).chain(lists);
        spans.chain(self.expiry_warning.iter().map(Spanned::span)).map(|span| span.start).min()
    }
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

impl OneOrMore {
    fn list(self) -> Vec<String> {
        match self {
            OneOrMore::One(text) => vec![text],
            OneOrMore::More(list) => list,
        }
    }
}

/// `path` says where a file is that is named. Errors come with the place of what they are about.
pub(super) fn read(
    table: TlsTable,
    path: &dyn Fn(&str) -> PathBuf,
    places: &mut Places,
) -> Result<Tls, (usize, Error)> {
    let mut tls = Tls::default();
    let mut taken = |key, offset| places.push((key, offset));
    if let Some(ca) = table.ca {
        let offset = ca.span().start;
        taken("tls.ca", offset);
        tls.ca = ca.into_inner().list().iter().map(|p| path(p)).collect();
        if tls.ca.is_empty() {
            let error = Error::invalid_config("no file of authorities is named").at("tls.ca");
            return Err((offset, error.remedy("name one, or leave `ca` out for those of the system")));
        }
    }
    if let Some(name) = table.server_name {
        taken("tls.server_name", name.span().start);
        tls.server_name = Some(name.into_inner());
    }
    if let Some(pins) = table.pins {
        let offset = pins.span().start;
        taken("tls.pins", offset);
        let parsed: Result<_, Error> = pins.into_inner().list().iter().map(|p| Pin::parse(p)).collect();
        tls.pins = parsed.map_err(|e| (offset, e.at("tls")))?;
        if tls.pins.is_empty() {
            let error = Error::invalid_config("no pin is given").at("tls.pins");
            return Err((offset, error.remedy("give one, or leave `pins` out")));
        }
    }
    if let Some(cert) = table.client_cert {
        taken("tls.client_cert", cert.span().start);
        tls.client_cert = Some(path(cert.get_ref()));
    }
    if let Some(key) = table.client_key {
        taken("tls.client_key", key.span().start);
        tls.client_key = Some(path(key.get_ref()));
    }
    if let Some(version) = table.version_min {
        let offset = version.span().start;
        taken("tls.version_min", offset);
        tls.version_min = TlsVersion::parse(version.get_ref()).map_err(|e| (offset, e.at("tls")))?;
    }
    if let Some(warning) = table.expiry_warning {
        taken("tls.expiry_warning", warning.span().start);
        tls.expiry_warning = warning.into_inner().0;
    }
    Ok(tls)
}

/// As it is kept; nothing if all is as usual. What is as usual is left out, so that an earlier version can read it.
pub(super) fn write(tls: &Tls) -> Option<Value> {
    let usual = Tls::default();
    if *tls == usual {
        return None;
    }
    let text = |path: &PathBuf| Value::from(path.to_string_lossy());
    let fields = [
        (
            "ca",
            (!tls.ca.is_empty()).then(|| match &tls.ca[..] {
                [one] => text(one),
                more => more.iter().map(text).collect(),
            }),
        ),
        ("server_name", tls.server_name.clone().map(Value::from)),
        ("pins", (!tls.pins.is_empty()).then(|| tls.pins.iter().map(ToString::to_string).collect())),
        ("client_cert", tls.client_cert.as_ref().map(text)),
        ("client_key", tls.client_key.as_ref().map(text)),
        ("version_min", (tls.version_min != usual.version_min).then(|| tls.version_min.name().into())),
        ("expiry_warning", (tls.expiry_warning != usual.expiry_warning).then(|| time(tls.expiry_warning))),
    ];
    Some(fields.into_iter().filter_map(|(key, value)| value.map(|v| (key, v))).collect())
}

/// What was kept so. The files are not looked for.
pub(super) fn of_json(kept: Value) -> Option<Tls> {
    let text = toml::to_string(&json!({ "tls": kept })).ok()?;
    #[derive(Deserialize)]
    struct Kept {
        tls: TlsTable,
    }
    let kept: Kept = toml::from_str(&text).ok()?;
    read(kept.tls, &|path| PathBuf::from(path), &mut Vec::new()).ok()
}
