//! Keys in a header or in the query of the URL.

use url::form_urlencoded::byte_serialize;
use zeroize::Zeroizing;

use super::secret::{Keys, Reader};
use super::{Request, Scheme, Secrets, Signed, check_header_name, check_header_value};
use crate::error::{Error, Result};

/// An API key. The secret is the key; the first valid one is used.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ApiKey {
    /// Where it goes.
    pub place: KeyPlace,
    /// The key.
    pub secrets: Secrets,
}

/// Where an API key goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyPlace {
    /// Into a header of this name.
    Header(String),
    /// Into the query, as this parameter. Queries are written into the logs of many servers: prefer a header.
    Query(String),
}

impl ApiKey {
    /// A key and its place.
    pub fn new(place: KeyPlace, key: impl Into<Secrets>) -> ApiKey {
        ApiKey { place, secrets: key.into() }
    }

    pub(super) fn header_names(&self) -> Vec<&str> {
        match &self.place {
            KeyPlace::Header(name) => vec![name],
            KeyPlace::Query(_) => Vec::new(),
        }
    }

    pub(super) fn load(&self, reader: &mut Reader) -> Result<impl Scheme + use<>> {
        match &self.place {
            KeyPlace::Header(name) => check_header_name(name)?,
            KeyPlace::Query(name) if name.is_empty() || name.chars().any(char::is_control) => {
                return Err(Error::invalid_config(
                    "the name of the query parameter is empty or has a control character",
                )
                .at("query")
                .remedy("name the parameter that the endpoint reads"));
            }
            KeyPlace::Query(_) => {}
        }
        let keys = self.secrets.load(reader, |key| match &self.place {
            KeyPlace::Header(_) => {
                check_header_value(key)?;
                let text = Zeroizing::new(key.to_owned());
                Ok(ApiKeyText { key: text.clone(), text })
            }
            KeyPlace::Query(name) => {
                if key.chars().any(char::is_control) {
                    return Err(Error::invalid_config("the key has a control character")
                        .remedy("is it the right secret, and on one line?"));
                }
                let name: String = byte_serialize(name.as_bytes()).collect();
                let mut text = Zeroizing::new(String::with_capacity(name.len() + 1 + 3 * key.len()));
                text.push_str(&name);
                text.push('=');
                byte_serialize(key.as_bytes()).for_each(|part| text.push_str(part));
                Ok(ApiKeyText { text, key: Zeroizing::new(key.to_owned()) })
            }
        })?;
        Ok(Placed { place: self.place.clone(), keys })
    }
}

struct ApiKeyText {
    /// The value of the header, or the parameter with its name.
    text: Zeroizing<String>,
    key: Zeroizing<String>,
}

struct Placed {
    place: KeyPlace,
    keys: Keys<ApiKeyText>,
}

impl Scheme for Placed {
    fn sign(&self, request: &Request<'_>, out: &mut Signed) -> Result<()> {
        let ApiKeyText { text, key } = &self.keys.first(request.unix)?.key;
        out.has_secret(key);
        match &self.place {
            KeyPlace::Header(name) => out.header(name.clone(), text.as_str()),
            KeyPlace::Query(_) => {
                out.has_secret(text.split_once('=').map_or(text, |(_, encoded)| encoded));
                let target = out.target().unwrap_or(request.target);
                let between = match target.split_once('?') {
                    None => "?",
                    Some((_, query)) if query.is_empty() || query.ends_with('&') => "",
                    Some(_) => "&",
                };
                let target = Zeroizing::new([target, between, text.as_str()].concat());
                out.target = Some(target);
            }
        }
        Ok(())
    }
}
