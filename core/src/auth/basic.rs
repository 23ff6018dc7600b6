//! User and password (RFC 7617).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::secret::{Keys, Reader};
use super::{AUTHORIZATION, Request, Scheme, Secrets, Signed};
use crate::error::{Error, Result};

/// `Authorization: Basic`. The secret is the password.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Basic {
    /// Without a colon.
    pub username: String,
    /// The password; the first valid one is used.
    pub secrets: Secrets,
}

impl Basic {
    /// A user and the password.
    pub fn new(username: impl Into<String>, password: impl Into<Secrets>) -> Basic {
        Basic { username: username.into(), secrets: password.into() }
    }

    pub(super) fn load(&self, reader: &mut Reader) -> Result<impl Scheme + use<>> {
        let bad = |what: &str, remedy: &str| Err(Error::invalid_config(what).at("username").remedy(remedy));
        if self.username.contains(':') {
            return bad("the user name has a colon, which would end it", "choose another user");
        }
        if self.username.chars().any(char::is_control) {
            return bad("the user name has a control character", "leave the character out");
        }
        self.secrets.load(reader, |password| {
            if password.chars().any(char::is_control) {
                return Err(Error::invalid_config("the password has a control character")
                    .remedy("is it the right secret, and on one line?"));
            }
            let pair = Zeroizing::new(format!("{}:{password}", self.username));
            let value = Zeroizing::new(format!("Basic {}", STANDARD.encode(pair.as_bytes())));
            Ok(Credentials { value, password: Zeroizing::new(password.to_owned()) })
        })
    }
}

struct Credentials {
    /// That of the header.
    value: Zeroizing<String>,
    password: Zeroizing<String>,
}

impl Scheme for Keys<Credentials> {
    fn sign(&self, request: &Request<'_>, out: &mut Signed) -> Result<()> {
        let credentials = &self.first(request.unix)?.key;
        out.header(AUTHORIZATION, credentials.value.as_str());
        out.has_secret(credentials.value.trim_start_matches("Basic "));
        out.has_secret(&credentials.password);
        Ok(())
    }
}
