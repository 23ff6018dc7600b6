//! Signed JSON Web Tokens (RFC 7515, 7519), sent as they are or exchanged for an access token (RFC 7523, 2.1).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::{SecureRandom, SystemRandom};
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use super::Secrets;
use super::key::{Kind, PrivateKey};
use super::oauth::{Ask, Moment, TokenEndpoint, TokenSource, form};
use super::secret::{Keys, Reader};
use crate::error::{Error, Result};
use crate::rule::within;

/// A token that we sign ourselves, in `Authorization: Bearer`; or with an endpoint, what is given for it there.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct JwtBearer {
    /// How it is signed.
    pub algorithm: JwtAlgorithm,
    /// `iss`. Default: what a service account's file says.
    pub issuer: Option<String>,
    /// `sub`. Default: the issuer.
    pub subject: Option<String>,
    /// `aud`: who shall accept it.
    pub audience: String,
    /// `scope`, as a claim, and also asked for at a token endpoint. Default: none.
    pub scope: Option<String>,
    /// Further claims. Default: none.
    pub claims: Map<String, Value>,
    /// How long a token is valid, 60 to 86,400 seconds. Default: 3600.
    pub lifetime_s: u32,
    /// Where it is exchanged. Default: nowhere, it is sent as it is.
    pub endpoint: Option<TokenEndpoint>,
    /// Private keys in PEM form, or the JSON files of service accounts (`private_key`, `private_key_id`, `client_email`); the
    /// first valid one is used. Its id, if there is one, is told (`kid`).
    pub secrets: Secrets,
}

/// How a token is signed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum JwtAlgorithm {
    #[default]
    Rs256,
    Es256,
    EdDsa,
}

impl JwtAlgorithm {
    /// Each with its name in the registry and the configuration.
    pub const ALL: [(JwtAlgorithm, &'static str); 3] =
        [(JwtAlgorithm::Rs256, "RS256"), (JwtAlgorithm::Es256, "ES256"), (JwtAlgorithm::EdDsa, "EdDSA")];

    fn kind(self) -> Kind {
        match self {
            JwtAlgorithm::Rs256 => Kind::RsaPkcs1Sha256,
            JwtAlgorithm::Es256 => Kind::EcdsaP256Sha256,
            JwtAlgorithm::EdDsa => Kind::Ed25519,
        }
    }

    fn name(self) -> &'static str {
        Self::ALL.iter().find(|(a, _)| *a == self).map_or("", |(_, name)| name)
    }
}

/// Claims that are set here.
const OWN_CLAIMS: [&str; 7] = ["iss", "sub", "aud", "iat", "exp", "jti", "scope"];

impl JwtBearer {
    /// With the defaults for everything else.
    pub fn new(algorithm: JwtAlgorithm, audience: impl Into<String>, keys: impl Into<Secrets>) -> JwtBearer {
        JwtBearer {
            algorithm,
            issuer: None,
            subject: None,
            audience: audience.into(),
            scope: None,
            claims: Map::new(),
            lifetime_s: 3600,
            endpoint: None,
            secrets: keys.into(),
        }
    }

    pub(super) fn load(&self, reader: &mut Reader) -> Result<impl TokenSource + use<>> {
        within("lifetime", self.lifetime_s as usize, 60, 86_400)?;
        if self.audience.is_empty() {
            return Err(Error::invalid_config("the audience is empty").at("audience").remedy("name who accepts it"));
        }
        if let Some(name) = self.claims.keys().find(|name| OWN_CLAIMS.contains(&name.as_str())) {
            return Err(Error::invalid_config(format!("the claim `{name}` has a setting of its own"))
                .at("claims")
                .remedy("leave it out of claims"));
        }
        if let Some(endpoint) = &self.endpoint {
            endpoint.validate()?;
        }
        let keys = self.secrets.load(reader, |text| {
            let account = text.trim_start().starts_with('{').then(|| Account::parse(text)).transpose()?;
            let pem = account.as_ref().map_or(text, |a| &a.private_key);
            let key = PrivateKey::from_pem(pem, self.algorithm.kind(), &SystemRandom::new())?;
            let (id, email) = account.map_or((None, None), |a| (a.private_key_id, a.client_email));
            if self.issuer.is_none() && email.is_none() {
                return Err(Error::invalid_config("there is no issuer")
                    .remedy("add `issuer`, or give the JSON file of a service account"));
            }
            Ok(SigningKey { key, id, email })
        })?;
        Ok(Tokens { config: JwtBearer { secrets: Secrets(Vec::new()), ..self.clone() }, keys })
    }
}

/// The file of a service account.
struct Account {
    private_key: Zeroizing<String>,
    private_key_id: Option<String>,
    client_email: Option<String>,
}

impl Account {
    fn parse(text: &str) -> Result<Account> {
        let bad = |what: &str| Error::invalid_config(what).remedy("give the file as it was downloaded, or a PEM key");
        // What the reader of JSON says may have parts of the secret in it.
        let mut all: Map<String, Value> =
            serde_json::from_str(text).map_err(|_| bad("the service account's file is not JSON"))?;
        let mut take = |name: &str| match all.remove(name) {
            Some(Value::String(text)) => Some(text),
            _ => None,
        };
        let private_key = take("private_key").ok_or_else(|| bad("the service account's file has no `private_key`"))?;
        Ok(Account {
            private_key: Zeroizing::new(private_key),
            private_key_id: take("private_key_id"),
            client_email: take("client_email"),
        })
    }
}

struct SigningKey {
    key: PrivateKey,
    id: Option<String>,
    email: Option<String>,
}

struct Tokens {
    /// Without the secrets.
    config: JwtBearer,
    keys: Keys<SigningKey>,
}

impl Tokens {
    fn make(&self, now: &Moment<'_>) -> Result<Zeroizing<String>> {
        let c = &self.config;
        let live = self.keys.first(now.unix)?;
        let mut header = json!({ "alg": c.algorithm.name(), "typ": "JWT" });
        if let Some(id) = live.id.as_ref().or(live.key.id.as_ref()) {
            header["kid"] = id.as_str().into();
        }
        let issuer = c.issuer.as_ref().or(live.key.email.as_ref());
        let mut claims = c.claims.clone();
        let mut set = |name: &str, value: Value| claims.insert(name.to_owned(), value);
        set("iss", json!(issuer));
        set("sub", json!(c.subject.as_ref().or(issuer)));
        set("aud", json!(c.audience));
        set("iat", now.unix.into());
        set("exp", now.unix.saturating_add(c.lifetime_s.into()).into());
        set("jti", json!(token_id(now.random)?));
        if let Some(scope) = &c.scope {
            set("scope", json!(scope));
        }
        let mut token = Zeroizing::new(URL_SAFE_NO_PAD.encode(header.to_string()));
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(Value::Object(claims).to_string(), &mut token);
        let signature = live.key.key.sign(token.as_bytes(), now.random)?;
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        Ok(token)
    }
}

/// No two tokens have the same one.
fn token_id(random: &dyn SecureRandom) -> Result<String> {
    let mut bytes = [0; 16];
    random
        .fill(&mut bytes)
        .map_err(|_| Error::new(crate::ErrorKind::Io, "the system gives no random numbers").at("jti"))?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

impl TokenSource for Tokens {
    fn endpoint(&self) -> Option<&TokenEndpoint> {
        self.config.endpoint.as_ref()
    }

    fn ask(&self, now: &Moment<'_>) -> Result<Ask> {
        let token = self.make(now)?;
        Ok(match self.config.endpoint {
            None => Ask::Made { token, lifetime_s: self.config.lifetime_s.into() },
            Some(_) => {
                let grant = "urn:ietf:params:oauth:grant-type:jwt-bearer";
                let mut fields = vec![("grant_type", grant), ("assertion", &token)];
                // Besides the claim, which some endpoints read: it is a parameter of the request (RFC 7521, 4.1).
                fields.extend(self.config.scope.as_deref().map(|s| ("scope", s)));
                Ask::Post { body: form(fields), authorization: None }
            }
        })
    }
}
