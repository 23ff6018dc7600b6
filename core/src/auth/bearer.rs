//! Tokens: `Authorization: Bearer` (RFC 6750), or a header and a prefix of one's own.

use std::borrow::Cow;

use zeroize::Zeroizing;

use super::secret::{Keys, Reader};
use super::{AUTHORIZATION, Request, Scheme, Secrets, Signed, check_header_name, check_header_value};
use crate::error::{Error, Result};

/// A token in a header. The secret is the token; the first valid one is used.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Bearer {
    /// Where it goes. `None` is `Authorization`, with `Bearer ` before it.
    pub header: Option<String>,
    /// What goes before the token in a header of one's own, its space included. Default: nothing.
    pub prefix: String,
    /// The token.
    pub secrets: Secrets,
}

impl Bearer {
    /// A token in `Authorization`.
    pub fn new(token: impl Into<Secrets>) -> Bearer {
        Bearer { header: None, prefix: String::new(), secrets: token.into() }
    }

    /// A token in a header of its own.
    pub fn in_header(header: impl Into<String>, prefix: impl Into<String>, token: impl Into<Secrets>) -> Bearer {
        Bearer { header: Some(header.into()), prefix: prefix.into(), secrets: token.into() }
    }

    pub(super) fn load(&self, reader: &mut Reader) -> Result<impl Scheme + use<>> {
        let (name, prefix) = match &self.header {
            None => (Cow::Borrowed(AUTHORIZATION), "Bearer "),
            Some(name) => {
                check_header_name(name)?;
                (Cow::Owned(name.clone()), self.prefix.as_str())
            }
        };
        if !prefix.bytes().all(|b| (b' '..=b'~').contains(&b)) || prefix.starts_with(' ') {
            return Err(Error::invalid_config("the prefix cannot begin a header's value")
                .at("prefix")
                .remedy("use visible ASCII characters, and a space at the end if one is needed"));
        }
        let keys = self.secrets.load(reader, |token| {
            check_header_value(token)?;
            // As RFC 6750 has it; in one's own header a space may have a meaning.
            if self.header.is_none() && token.contains([' ', '\t']) {
                return Err(Error::invalid_config("the token has a space")
                    .remedy("give the token alone: `Bearer` is written before it"));
            }
            Ok(Token { value: Zeroizing::new(format!("{prefix}{token}")), prefix: prefix.len() })
        })?;
        Ok(InHeader { name, keys })
    }
}

struct Token {
    /// That of the header.
    value: Zeroizing<String>,
    /// So long is what is no secret.
    prefix: usize,
}

struct InHeader {
    name: Cow<'static, str>,
    keys: Keys<Token>,
}

impl Scheme for InHeader {
    fn sign(&self, request: &Request<'_>, out: &mut Signed) -> Result<()> {
        let token = &self.keys.first(request.unix)?.key;
        out.header(self.name.clone(), token.value.as_str());
        out.has_secret(&token.value[token.prefix..]);
        Ok(())
    }
}
