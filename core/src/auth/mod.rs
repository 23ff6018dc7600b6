//! Who we are, for the systems that receive: signatures, passwords and tokens, one file per scheme.
//!
//! Pure but for the reading of secrets: clock and randomness are arguments, and tokens are fetched elsewhere. What is signed
//! are the bytes that go on the wire, in the slices in which they go.

pub mod api_key;
pub mod basic;
pub mod bearer;
mod config;
pub mod hmac;
pub mod jwt;
mod key;
pub mod message_signatures;
pub mod oauth;
pub mod rotation;
pub mod secret;

use std::borrow::Cow;
use std::fmt;

use ring::digest::{self, SHA256};
use ring::rand::SecureRandom;
use zeroize::Zeroizing;

use crate::error::{Error, Result};
use crate::event::EventId;
use crate::rule::check_header;

pub use api_key::ApiKey;
pub use basic::Basic;
pub use bearer::Bearer;
pub(crate) use config::{Read, Table, check, fault, name_of, read, secrets_json, within_step, write};
pub use hmac::{Hmac, StandardWebhooks};
pub use jwt::JwtBearer;
pub use message_signatures::MessageSignatures;
pub use oauth::ClientCredentials;
pub use secret::{Secret, SecretAnswer, Secrets};

pub use key::SecretEncoding;
use oauth::TokenSource;
pub(crate) use secret::{Keys, Reader};

/// How many schemes one destination may have.
const SCHEMES_MAX: usize = 4;

/// A scheme, as configured.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Auth {
    /// Standard Webhooks 1.0.0: `webhook-id`, `webhook-timestamp`, `webhook-signature`.
    StandardWebhooks(StandardWebhooks),
    /// A keyed hash in a header, as GitHub and many others have it.
    Hmac(Hmac),
    /// User and password (RFC 7617).
    Basic(Basic),
    /// A token in `Authorization` (RFC 6750), or in a header of its own.
    Bearer(Bearer),
    /// A key in a header or in the query.
    ApiKey(ApiKey),
    /// HTTP Message Signatures (RFC 9421) with Content-Digest (RFC 9530).
    MessageSignatures(MessageSignatures),
    /// A signed JWT, sent as it is or exchanged for a token (RFC 7523).
    JwtBearer(JwtBearer),
    /// OAuth 2.0 client credentials (RFC 6749, 4.4).
    ClientCredentials(ClientCredentials),
}

/// What is signed: a request as it goes on the wire.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// As in the request line.
    pub method: &'a str,
    /// `http` or `https`.
    pub scheme: &'a str,
    /// As in `Host`.
    pub authority: &'a str,
    /// Path and query, as in the request line.
    pub target: &'a str,
    /// The value of `Content-Type`.
    pub content_type: &'a str,
    /// The destination's own headers.
    pub headers: &'a [(String, String)],
    /// The body, in slices.
    pub body: &'a [&'a [u8]],
    /// The id of the batch; see [`batch_id`].
    pub id: &'a str,
    /// The time of the attempt, in seconds since the Unix epoch.
    pub unix: i64,
    /// For the schemes whose signatures are made with random numbers.
    pub random: &'a dyn SecureRandom,
}

impl Request<'_> {
    /// The size of the body in bytes.
    pub fn body_len(&self) -> usize {
        self.body.iter().map(|s| s.len()).sum()
    }
}

/// What a request gets. Its `Debug` form shows no value.
#[derive(Default)]
pub struct Signed {
    headers: Vec<(Cow<'static, str>, Zeroizing<String>)>,
    target: Option<Zeroizing<String>>,
    /// What it has of secrets as they are.
    secrets: Vec<Zeroizing<String>>,
}

/// A shorter secret is not looked for in answers: too much else would be like it.
const HIDDEN_BYTES_MIN: usize = 4;

impl Signed {
    fn header(&mut self, name: impl Into<Cow<'static, str>>, value: impl Into<String>) {
        self.headers.push((name.into(), Zeroizing::new(value.into())));
    }

    /// The headers to add, in order.
    pub fn headers(&self) -> Vec<(&str, &str)> {
        self.headers.iter().map(|(n, v)| (&**n, v.as_str())).collect()
    }

    /// The target to use instead, if it is another one.
    pub fn target(&self) -> Option<&str> {
        self.target.as_ref().map(|t| t.as_str())
    }

    /// Makes asterisks of the secrets in what an endpoint has answered: many quote a token that they refuse.
    pub(crate) fn hide(&self, answer: &mut [u8]) {
        for secret in self.secrets.iter().filter(|s| s.len() >= HIDDEN_BYTES_MIN) {
            let mut from = 0;
            while let Some(at) = memchr::memmem::find(&answer[from..], secret.as_bytes()) {
                let end = from + at + secret.len();
                answer[from + at..end].fill(b'*');
                from = end;
            }
        }
    }

    /// A secret that a header or the target has as it is.
    fn has_secret(&mut self, secret: &str) {
        self.secrets.push(Zeroizing::new(secret.to_owned()));
    }

    /// Adds a token that was fetched.
    pub(crate) fn bearer(&mut self, token: &str) {
        self.has_secret(token);
        self.header(AUTHORIZATION, format!("Bearer {token}"));
    }

    fn find(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }
}

impl fmt::Debug for Signed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.headers.iter().map(|(n, _)| &**n).collect();
        let target = self.target.as_ref().map(|_| format_args!("***"));
        f.debug_struct("Signed").field("headers", &names).field("target", &target).finish()
    }
}

const AUTHORIZATION: &str = "Authorization";
const WEBHOOK_ID: &str = "webhook-id";

/// A scheme with its keys.
enum Loaded {
    Scheme(Box<dyn Scheme>),
    Token(Box<dyn TokenSource>),
}

/// A scheme that needs nothing but its keys.
trait Scheme: Send + Sync {
    /// # Errors
    /// If no secret is valid at the time of the attempt, or cannot be used there.
    fn sign(&self, request: &Request<'_>, out: &mut Signed) -> Result<()>;
}

impl Auth {
    /// Its name in the configuration.
    pub fn scheme(&self) -> &'static str {
        match self {
            Auth::StandardWebhooks(_) => "standard-webhooks",
            Auth::Hmac(h) if h.is_github() => "github",
            Auth::Hmac(_) => "hmac",
            Auth::Basic(_) => "basic",
            Auth::Bearer(b) if b.header.is_none() => "bearer",
            Auth::Bearer(_) => "token",
            Auth::ApiKey(_) => "api-key",
            Auth::MessageSignatures(_) => "http-message-signatures",
            Auth::JwtBearer(_) => "jwt-bearer",
            Auth::ClientCredentials(_) => "oauth2-client-credentials",
        }
    }

    /// Its secrets.
    pub fn secrets(&self) -> &Secrets {
        match self {
            Auth::StandardWebhooks(s) => &s.secrets,
            Auth::Hmac(s) => &s.secrets,
            Auth::Basic(s) => &s.secrets,
            Auth::Bearer(s) => &s.secrets,
            Auth::ApiKey(s) => &s.secrets,
            Auth::MessageSignatures(s) => &s.secrets,
            Auth::JwtBearer(s) => &s.secrets,
            Auth::ClientCredentials(s) => &s.secrets,
        }
    }

    /// Its secrets, to be replaced: see [`Secrets::rotate`].
    pub fn secrets_mut(&mut self) -> &mut Secrets {
        match self {
            Auth::StandardWebhooks(s) => &mut s.secrets,
            Auth::Hmac(s) => &mut s.secrets,
            Auth::Basic(s) => &mut s.secrets,
            Auth::Bearer(s) => &mut s.secrets,
            Auth::ApiKey(s) => &mut s.secrets,
            Auth::MessageSignatures(s) => &mut s.secrets,
            Auth::JwtBearer(s) => &mut s.secrets,
            Auth::ClientCredentials(s) => &mut s.secrets,
        }
    }

    /// The headers that it sets.
    fn header_names(&self) -> Vec<&str> {
        match self {
            Auth::StandardWebhooks(_) => vec![WEBHOOK_ID, "webhook-timestamp", "webhook-signature"],
            Auth::Hmac(h) => h.header_names(),
            Auth::Basic(_) | Auth::JwtBearer(_) | Auth::ClientCredentials(_) => vec![AUTHORIZATION],
            Auth::Bearer(b) => vec![b.header.as_deref().unwrap_or(AUTHORIZATION)],
            Auth::ApiKey(k) => k.header_names(),
            Auth::MessageSignatures(m) => m.header_names(),
        }
    }

    /// Checks what can be checked without reading anything.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidConfig`], whose place is the setting.
    pub fn validate(&self) -> Result<()> {
        self.load(&mut Reader::literal_only()).map(drop)
    }

    /// Reads the secrets, and checks those too. May block.
    ///
    /// # Errors
    /// As [`Auth::validate`]; and if a variable or a file is not there, or cannot be read.
    pub fn check(&self) -> Result<()> {
        self.load(&mut Reader::default()).map(drop)
    }

    fn load(&self, reader: &mut Reader) -> Result<Loaded> {
        Ok(match self {
            Auth::StandardWebhooks(s) => Loaded::Scheme(Box::new(s.load(reader)?)),
            Auth::Hmac(s) => Loaded::Scheme(Box::new(s.load(reader)?)),
            Auth::Basic(s) => Loaded::Scheme(Box::new(s.load(reader)?)),
            Auth::Bearer(s) => Loaded::Scheme(Box::new(s.load(reader)?)),
            Auth::ApiKey(s) => Loaded::Scheme(Box::new(s.load(reader)?)),
            Auth::MessageSignatures(s) => Loaded::Scheme(Box::new(s.load(reader)?)),
            Auth::JwtBearer(s) => Loaded::Token(Box::new(s.load(reader)?)),
            Auth::ClientCredentials(s) => Loaded::Token(Box::new(s.load(reader)?)),
        })
    }
}

/// Checks the schemes of a destination together, with its own headers.
///
/// # Errors
/// [`crate::ErrorKind::InvalidConfig`], whose place is `auth`.
pub(crate) fn validate(list: &[Auth], headers: &[(String, String)]) -> Result<()> {
    let bad = |what: String, remedy: &str| Err(Error::invalid_config(what).at("auth").remedy(remedy.to_owned()));
    if list.len() > SCHEMES_MAX {
        return bad(format!("{} schemes, more than {SCHEMES_MAX}", list.len()), "leave some out");
    }
    let mut names: Vec<String> = Vec::new();
    for auth in list {
        auth.validate().map_err(|e| e.at("auth"))?;
        for name in auth.header_names() {
            if headers.iter().any(|(n, _)| n.eq_ignore_ascii_case(name)) {
                let what = format!("the scheme {} sets the header {name}, which is given too", auth.scheme());
                return bad(what, "leave the header out");
            }
            let name = name.to_ascii_lowercase();
            // The id is the same whoever sets it.
            if name != WEBHOOK_ID && names.contains(&name) {
                return bad(
                    format!("two schemes set the header {name}"),
                    "leave one of them out, or rename its header",
                );
            }
            names.push(name);
        }
    }
    let own = headers.iter().map(|(n, _)| n.to_ascii_lowercase());
    let known: Vec<String> = names.iter().cloned().chain(own).collect();
    for auth in list {
        if let Auth::MessageSignatures(m) = auth {
            m.check_components(&known).map_err(|e| e.at("auth"))?;
        }
    }
    Ok(())
}

/// Checks what somebody puts now: whether all that it has can be kept, if it is to be, and some secret be used yet.
///
/// # Errors
/// [`crate::ErrorKind::InvalidConfig`], whose place is the secret.
pub(crate) fn check_put(list: &[Auth], is_kept: bool, unix: i64) -> Result<()> {
    list.iter().try_for_each(|auth| check_secrets_put(auth.secrets(), "auth", is_kept, unix))
}

/// As [`check_put`], of the secrets of one use.
pub(crate) fn check_secrets_put(secrets: &Secrets, place: &str, is_kept: bool, unix: i64) -> Result<()> {
    let bad =
        |what: String, remedy: &str| Err(Error::invalid_config(what).at("secret").at(place).remedy(remedy.to_owned()));
    if is_kept && secrets.list().iter().any(Secret::is_callback) {
        let what = "a function of the host cannot be kept in the data directory".into();
        return bad(what, "give the destination when the engine is opened, or the secret as a variable or a file");
    }
    if let Some(end) = secrets.last_end().filter(|end| *end <= unix) {
        let what = format!("every secret has expired, the last one at {}", secret::time_text(end));
        return bad(what, "add a secret that is valid");
    }
    Ok(())
}

/// The schemes of a destination with their keys.
pub(crate) struct Signer {
    /// Those that sign what others have added come last.
    schemes: Vec<Box<dyn Scheme>>,
    token: Option<Box<dyn TokenSource>>,
    reader: Reader,
}

impl Signer {
    /// Reads the secrets. May block.
    ///
    /// # Errors
    /// As [`Auth::check`].
    pub(crate) fn load(list: &[Auth]) -> Result<Signer> {
        let mut signer = Signer { schemes: Vec::new(), token: None, reader: Reader::default() };
        let last = |a: &&Auth| matches!(a, Auth::MessageSignatures(_));
        for auth in list.iter().filter(|a| !last(a)).chain(list.iter().filter(last)) {
            match auth.load(&mut signer.reader).map_err(|e| e.at("auth"))? {
                Loaded::Scheme(scheme) => signer.schemes.push(scheme),
                Loaded::Token(source) => signer.token = Some(source),
            }
        }
        Ok(signer)
    }

    /// Where the token comes from, if there is one to send.
    pub(crate) fn token(&self) -> Option<&dyn TokenSource> {
        self.token.as_deref()
    }

    /// Whether the secrets may change while running.
    pub(crate) fn watches(&self) -> bool {
        self.reader.watches()
    }

    /// Whether a secret may be another one now. May block.
    pub(crate) fn is_outdated(&self) -> bool {
        self.reader.is_outdated()
    }

    /// Adds to `out`, which may have something already, what a request gets.
    ///
    /// # Errors
    /// If no secret is valid at the time of the attempt.
    pub(crate) fn sign(&self, request: &Request<'_>, out: &mut Signed) -> Result<()> {
        self.schemes.iter().try_for_each(|s| s.sign(request, out)).map_err(|e| e.at("auth"))
    }
}

/// The id of the events of one request, in their order: a retry of the same events has the same one, any other choice of
/// events another one. No two requests with different events share one. It has no dot.
///
/// `msg_` and the id of the event if it is a single one, else 160 bits of their SHA-256 in base 62.
pub fn batch_id(ids: impl ExactSizeIterator<Item = EventId>) -> String {
    let mut ids = ids.peekable();
    if ids.len() == 1
        && let Some(id) = ids.peek()
    {
        return format!("msg_{id}");
    }
    let mut hash = digest::Context::new(&SHA256);
    for id in ids {
        let mut bytes = [0; 18];
        bytes[..8].copy_from_slice(&id.incarnation.to_be_bytes());
        bytes[8..10].copy_from_slice(&id.shard.to_be_bytes());
        bytes[10..].copy_from_slice(&id.sequence.to_be_bytes());
        hash.update(&bytes);
    }
    format!("msg_{}", base62(&hash.finish().as_ref()[..20]))
}

/// 160 bits as 27 digits.
fn base62(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut number = bytes.to_vec();
    let mut out = vec![0; 27];
    for digit in out.iter_mut().rev() {
        let mut rest = 0u32;
        for byte in &mut number {
            let value = rest << 8 | u32::from(*byte);
            *byte = (value / 62) as u8;
            rest = value % 62;
        }
        *digit = DIGITS[rest as usize];
    }
    out.into_iter().map(char::from).collect()
}

/// Checks the name of a header that a scheme sets.
fn check_header_name(name: &str) -> Result<()> {
    check_header(name, "").map_err(|e| {
        let remedy = e.remedy_text().unwrap_or("use letters, digits and hyphens").to_owned();
        Error::invalid_config(e.message()).at("header").remedy(remedy)
    })
}

/// Checks a secret that goes into a header as it is.
fn check_header_value(value: &str) -> Result<()> {
    let bad = |what: &str, remedy: &str| Err(Error::invalid_config(what).remedy(remedy));
    if value.bytes().any(|b| matches!(b, b'\r' | b'\n')) {
        return bad("the secret has a line break, which no header can hold", "is it the right secret, and only one?");
    }
    if value.bytes().any(|b| b < b' ' || b == 0x7f) {
        return bad("the secret has a control character, which no header can hold", "leave the character out");
    }
    if !value.is_ascii() {
        return bad("the secret is not ASCII, as a header must be", "encode it as its receiver expects it");
    }
    if value.trim_matches([' ', '\t']).len() != value.len() {
        return bad("the secret begins or ends with white space", "leave the space out");
    }
    Ok(())
}

#[cfg(test)]
mod tests;
