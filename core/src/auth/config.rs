//! Schemes as they are written in the configuration file and in what the data directory keeps.

use std::path::Path;
use std::str::FromStr;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::api_key::KeyPlace;
use super::hmac::{HmacAlgorithm, SecretEncoding, SignatureEncoding};
use super::jwt::JwtAlgorithm;
use super::message_signatures::{DigestAlgorithm, SignatureAlgorithm};
use super::oauth::{ClientAuth, TokenEndpoint};
use super::secret::time_text;
use super::{
    ApiKey, Auth, Basic, Bearer, ClientCredentials, Hmac, JwtBearer, MessageSignatures, Secret, Secrets,
    StandardWebhooks,
};
use crate::config::units::{Size, duration, parse_size};
use crate::error::{Error, Result};
use crate::filter::{Fault, OwnStep};
use crate::rule::suggest;

const SCHEMES: [&str; 10] = [
    "standard-webhooks",
    "github",
    "hmac",
    "basic",
    "bearer",
    "token",
    "api-key",
    "http-message-signatures",
    "jwt-bearer",
    "oauth2-client-credentials",
];

pub(crate) type Read<T> = Result<T, Box<Fault>>;

/// One scheme, or a list of them. Files are named from `base_dir`. What is not text is not read.
///
/// # Errors
/// An [`crate::ErrorKind::InvalidConfig`] with the way to what is wrong.
pub(crate) fn read(value: &Value, base_dir: &Path) -> Read<Vec<Auth>> {
    match value {
        Value::Array(list) => {
            let one = |(i, v): (usize, &Value)| scheme(v, base_dir).map_err(|f| within_step(f, OwnStep::Index(i)));
            list.iter().enumerate().map(one).collect()
        }
        one => scheme(one, base_dir).map(|auth| vec![auth]),
    }
    .map_err(|f| Box::new(Fault { error: f.error.at("auth"), steps: f.steps }))
}

/// Reads the secrets of these schemes, and checks them.
///
/// # Errors
/// As [`Auth::check`], with the way to what is wrong.
pub(crate) fn check(list: &[Auth]) -> Read<()> {
    for (i, auth) in list.iter().enumerate() {
        auth.check().map_err(|e| {
            let index = (list.len() > 1).then_some(OwnStep::Index(i));
            let name = e.place().and_then(|p| Some(p.split([':', '[']).next()?.to_owned())).map(OwnStep::Name);
            fault(index.into_iter().chain(name).collect(), e.at("auth"))
        })?;
    }
    Ok(())
}

pub(crate) fn within_step(mut fault: Box<Fault>, step: OwnStep) -> Box<Fault> {
    fault.steps.insert(0, step);
    fault
}

pub(crate) fn fault(steps: Vec<OwnStep>, error: Error) -> Box<Fault> {
    Box::new(Fault { steps, error })
}

fn scheme(value: &Value, base_dir: &Path) -> Read<Auth> {
    let Value::Object(map) = value else {
        let e = Error::invalid_config("a scheme is no table").remedy("write { scheme = \"…\", secret = … }");
        return Err(fault(Vec::new(), e));
    };
    let mut t = Table { map, asked: vec!["scheme"], base_dir };
    let name = t.text("scheme")?.ok_or_else(|| t.missing("scheme", "name the scheme"))?;
    let auth = match name {
        "standard-webhooks" => Auth::StandardWebhooks(StandardWebhooks::new(t.secrets()?)),
        "github" => Auth::Hmac(Hmac::github(t.secrets()?)),
        "hmac" => {
            let mut h = Hmac::new(t.need("header", "name the header that the receiver reads")?, t.secrets()?);
            t.set("prefix", &mut h.prefix)?;
            t.set("timestamp_separator", &mut h.timestamp_separator)?;
            h.timestamp_header = t.text("timestamp_header")?.map(str::to_owned);
            t.choose("algorithm", &HmacAlgorithm::ALL, &mut h.algorithm)?;
            t.choose("encoding", &SignatureEncoding::ALL, &mut h.encoding)?;
            t.choose("secret_encoding", &SecretEncoding::ALL, &mut h.secret_encoding)?;
            Auth::Hmac(h)
        }
        "basic" => Auth::Basic(Basic::new(t.need("username", "name the user")?, t.secrets()?)),
        "bearer" => Auth::Bearer(Bearer::new(t.secrets()?)),
        "token" => {
            let header = t.need("header", "name the header, or choose the scheme `bearer`")?;
            let prefix = t.text("prefix")?.unwrap_or_default();
            Auth::Bearer(Bearer::in_header(header, prefix, t.secrets()?))
        }
        "api-key" => {
            let place = match (t.text("header")?, t.text("query")?) {
                (Some(name), None) => KeyPlace::Header(name.to_owned()),
                (None, Some(name)) => KeyPlace::Query(name.to_owned()),
                (None, None) => return Err(t.missing("header", "name a header, or with `query` a parameter")),
                (Some(_), Some(_)) => {
                    let e = Error::invalid_config("the key has a header and a query parameter").at("query");
                    return Err(t.fault("query", e.remedy("choose one, the header if the endpoint takes it")));
                }
            };
            Auth::ApiKey(ApiKey::new(place, t.secrets()?))
        }
        "http-message-signatures" => {
            let mut algorithm = None;
            t.choose_some("algorithm", &SignatureAlgorithm::ALL, &mut algorithm)?;
            let known = SignatureAlgorithm::ALL.map(|(_, name)| name).join(", ");
            let algorithm = algorithm.ok_or_else(|| t.missing("algorithm", &format!("choose one of {known}")))?;
            let mut m = MessageSignatures::new(algorithm, t.secrets()?);
            if let Some(list) = t.texts("components")? {
                m.components = list;
            }
            t.set("label", &mut m.label)?;
            t.boolean("tell_algorithm", &mut m.tell_algorithm)?;
            m.valid_for_s = t.seconds("valid_for")?;
            t.choose("digest", &DigestAlgorithm::ALL, &mut m.digest)?;
            t.choose("secret_encoding", &SecretEncoding::ALL, &mut m.secret_encoding)?;
            Auth::MessageSignatures(m)
        }
        "jwt-bearer" => {
            let audience = t.need("audience", "name who accepts the token")?;
            let mut j = JwtBearer::new(JwtAlgorithm::default(), audience, t.secrets()?);
            t.choose("algorithm", &JwtAlgorithm::ALL, &mut j.algorithm)?;
            j.issuer = t.text("issuer")?.map(str::to_owned);
            j.subject = t.text("subject")?.map(str::to_owned);
            j.scope = t.text("scope")?.map(str::to_owned);
            j.lifetime_s = t.seconds("lifetime")?.unwrap_or(j.lifetime_s);
            j.claims = t.object("claims")?.cloned().unwrap_or_default();
            j.endpoint = t.endpoint()?;
            Auth::JwtBearer(j)
        }
        "oauth2-client-credentials" => {
            let endpoint = t.endpoint()?.ok_or_else(|| t.missing("token_url", "name the token endpoint"))?;
            let id = t.need("client_id", "name the client")?;
            let mut c = ClientCredentials::new(endpoint, id, t.secrets()?);
            t.choose("client_auth", &ClientAuth::ALL, &mut c.client_auth)?;
            c.scope = t.text("scope")?.map(str::to_owned);
            c.audience = t.text("audience")?.map(str::to_owned);
            Auth::ClientCredentials(c)
        }
        _ => {
            let e = Error::invalid_config(format!("unknown scheme `{}`", name.escape_debug())).at("scheme");
            return Err(t.fault("scheme", e.remedy(suggest("scheme", name, SCHEMES))));
        }
    };
    t.finish()?;
    auth.validate().map_err(|e| fault(steps_of(e.place().unwrap_or_default(), &t), e))?;
    Ok(auth)
}

/// The way to a setting that an error names, as `secret[1]`; as far as it is written there.
fn steps_of(place: &str, t: &Table<'_>) -> Vec<OwnStep> {
    let first = place.split(": ").next().unwrap_or_default();
    let (name, index) = first.split_once('[').map_or((first, None), |(n, i)| (n, i.trim_end_matches(']').parse().ok()));
    if !t.map.contains_key(name) {
        return Vec::new();
    }
    [OwnStep::Name(name.to_owned())].into_iter().chain(index.map(OwnStep::Index)).collect()
}

/// A table of which keys are asked for; those that nobody has asked for are refused.
pub(crate) struct Table<'a> {
    map: &'a Map<String, Value>,
    asked: Vec<&'static str>,
    base_dir: &'a Path,
}

impl<'a> Table<'a> {
    /// The keys of a map; files are named from `base_dir`.
    pub(crate) fn new(map: &'a Map<String, Value>, base_dir: &'a Path) -> Table<'a> {
        Table { map, asked: Vec::new(), base_dir }
    }

    pub(crate) fn number(&mut self, key: &'static str) -> Read<Option<u64>> {
        match self.get(key) {
            None => Ok(None),
            Some(value) => value.as_u64().map(Some).ok_or_else(|| self.wrong(key, "whole number")),
        }
    }

    /// A number of bytes, or a text such as `4KiB`.
    pub(crate) fn size(&mut self, key: &'static str) -> Read<Option<u64>> {
        match self.get(key) {
            Some(Value::String(text)) => parse_size(text).map(|Size(n)| Some(n)).map_err(|e| {
                let (what, remedy) = e.split_once("; ").unwrap_or((&e, "correct it"));
                self.fault(key, Error::invalid_config(what).at(key).remedy(remedy))
            }),
            _ => self.number(key),
        }
    }

    fn get(&mut self, key: &'static str) -> Option<&'a Value> {
        self.asked.push(key);
        self.map.get(key)
    }

    fn fault(&self, key: &str, error: Error) -> Box<Fault> {
        fault(vec![OwnStep::Name(key.to_owned())], error)
    }

    fn missing(&self, key: &str, remedy: &str) -> Box<Fault> {
        fault(Vec::new(), Error::invalid_config(format!("`{key}` is missing")).remedy(remedy.to_owned()))
    }

    /// Does not quote the value: it may be a secret in the wrong place.
    fn wrong(&self, key: &str, wanted: &str) -> Box<Fault> {
        self.fault(
            key,
            Error::invalid_config(format!("`{key}` is no {wanted}")).at(key).remedy(format!("write {wanted}")),
        )
    }

    pub(crate) fn text(&mut self, key: &'static str) -> Read<Option<&'a str>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(self.wrong(key, "string")),
        }
    }

    pub(crate) fn need(&mut self, key: &'static str, remedy: &str) -> Read<&'a str> {
        self.text(key)?.ok_or_else(|| self.missing(key, remedy))
    }

    fn set(&mut self, key: &'static str, slot: &mut String) -> Read<()> {
        if let Some(text) = self.text(key)? {
            text.clone_into(slot);
        }
        Ok(())
    }

    fn boolean(&mut self, key: &'static str, slot: &mut bool) -> Read<()> {
        match self.get(key) {
            None => {}
            Some(Value::Bool(b)) => *slot = *b,
            Some(_) => return Err(self.wrong(key, "true or false")),
        }
        Ok(())
    }

    fn texts(&mut self, key: &'static str) -> Read<Option<Vec<String>>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let list: Option<Vec<String>> =
            value.as_array().and_then(|l| l.iter().map(|v| v.as_str().map(str::to_owned)).collect());
        list.map(Some).ok_or_else(|| self.wrong(key, "list of strings"))
    }

    fn object(&mut self, key: &'static str) -> Read<Option<&'a Map<String, Value>>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Object(map)) => Ok(Some(map)),
            Some(_) => Err(self.wrong(key, "table")),
        }
    }

    fn seconds(&mut self, key: &'static str) -> Read<Option<u32>> {
        let Some(text) = self.text(key)? else { return Ok(None) };
        let time = duration(text).map_err(|e| {
            let (what, remedy) = e.split_once("; ").unwrap_or((&e, "correct it"));
            self.fault(key, Error::invalid_config(what).at(key).remedy(remedy))
        })?;
        if time.subsec_nanos() != 0 || time.as_secs() > u64::from(u32::MAX) {
            let e = Error::invalid_config(format!("`{key}` is not a number of seconds")).at(key);
            return Err(self.fault(key, e.remedy("write whole seconds, as in \"300s\"")));
        }
        Ok(Some(time.as_secs() as u32))
    }

    fn choose_some<T: Copy>(&mut self, key: &'static str, all: &[(T, &'static str)], slot: &mut Option<T>) -> Read<()> {
        if let Some(name) = self.text(key)? {
            let found = all.iter().find(|(_, n)| *n == name).map(|(value, _)| *value);
            let unknown = || {
                let e = Error::invalid_config(format!("unknown {key} `{}`", name.escape_debug())).at(key);
                self.fault(key, e.remedy(suggest(key, name, all.iter().map(|(_, n)| *n))))
            };
            *slot = Some(found.ok_or_else(unknown)?);
        }
        Ok(())
    }

    pub(crate) fn choose<T: Copy>(&mut self, key: &'static str, all: &[(T, &'static str)], slot: &mut T) -> Read<()> {
        let mut chosen = None;
        self.choose_some(key, all, &mut chosen)?;
        *slot = chosen.unwrap_or(*slot);
        Ok(())
    }

    fn endpoint(&mut self) -> Read<Option<TokenEndpoint>> {
        let (url, ca) = (self.text("token_url")?, self.text("token_ca")?);
        let Some(url) = url else {
            return match ca {
                None => Ok(None),
                Some(_) => Err(self.missing("token_url", "name the token endpoint, or leave token_ca out")),
            };
        };
        let mut endpoint = TokenEndpoint::new(url).map_err(|e| self.fault("token_url", e))?;
        endpoint.ca = ca.map(|path| self.base_dir.join(path));
        Ok(Some(endpoint))
    }

    pub(crate) fn secrets(&mut self) -> Read<Secrets> {
        let base_dir = self.base_dir;
        match self.get("secret") {
            None => Err(self.missing("secret", "write secret = { env = \"NAME\" }, { file = \"path\" } or a string")),
            Some(Value::Array(list)) => {
                let one = |(i, v): (usize, &Value)| {
                    secret(v, base_dir).map_err(|f| {
                        let f = Box::new(Fault { error: f.error.at(format!("secret[{i}]")), steps: f.steps });
                        within_step(within_step(f, OwnStep::Index(i)), OwnStep::Name("secret".into()))
                    })
                };
                Ok(Secrets(list.iter().enumerate().map(one).collect::<Read<_>>()?))
            }
            Some(one) => secret(one, base_dir).map(Secrets::from).map_err(|f| {
                let f = Box::new(Fault { error: f.error.at("secret"), steps: f.steps });
                within_step(f, OwnStep::Name("secret".into()))
            }),
        }
    }

    /// Refuses what nobody has asked for.
    pub(crate) fn finish(&self) -> Read<()> {
        match self.map.keys().find(|k| !self.asked.contains(&k.as_str())) {
            None => Ok(()),
            Some(key) => {
                let known = self.asked.iter().copied();
                let e = Error::invalid_config(format!("unknown key `{}`", key.escape_debug()));
                Err(self.fault(key, e.remedy(suggest("key", key, known))))
            }
        }
    }
}

fn secret(value: &Value, base_dir: &Path) -> Read<Secret> {
    let map = match value {
        Value::String(text) => return Ok(Secret::text(text)),
        Value::Object(map) => map,
        _ => {
            let e = Error::invalid_config("this is no secret");
            return Err(fault(
                Vec::new(),
                e.remedy("write { env = \"NAME\" }, { file = \"path\" } or a string; or a list of these"),
            ));
        }
    };
    let mut t = Table::new(map, base_dir);
    let (text, env, file) = (t.text("text")?, t.text("env")?, t.text("file")?);
    let mut secret = match (text, env, file) {
        (Some(text), None, None) => Secret::text(text),
        (None, Some(name), None) if !name.is_empty() && !name.contains(['=', '\0']) => Secret::env(name),
        (None, Some(_), None) => return Err(t.wrong("env", "name of an environment variable")),
        (None, None, Some(path)) if !path.is_empty() => Secret::file(base_dir.join(path)),
        (None, None, Some(_)) => return Err(t.wrong("file", "path of a file")),
        (None, None, None) => return Err(t.missing("env", "add `env`, `file` or `text`")),
        _ => {
            let e = Error::invalid_config("a secret has more than one of `env`, `file` and `text`");
            return Err(fault(Vec::new(), e.remedy("keep one; for more secrets write a list")));
        }
    };
    secret.id = t.text("id")?.map(str::to_owned);
    for (key, slot) in [("not_before", &mut secret.not_before), ("until", &mut secret.until)] {
        let Some(text) = t.text(key)? else { continue };
        let time = Timestamp::from_str(text).map_err(|_| {
            let e = Error::invalid_config(format!("`{key}` is no time")).at(key);
            t.fault(key, e.remedy("write it as 2030-01-31T12:00:00Z"))
        })?;
        *slot = Some(time.as_second());
    }
    t.finish()?;
    Ok(secret)
}

pub(crate) fn secrets_json(secrets: &Secrets) -> Value {
    let one = |s: &Secret| {
        let mut value = match (s.literal(), s.env_name(), s.file_path()) {
            (Some(text), ..) => json!({ "text": text }),
            (_, Some(name), _) => json!({ "env": name }),
            (.., Some(path)) => json!({ "file": path.to_string_lossy() }),
            // What a function of the host answers is not for the disk.
            _ => return None,
        };
        let times = [("not_before", s.not_before), ("until", s.until)].map(|(k, t)| (k, t.map(time_text)));
        for (key, text) in times.into_iter().chain([("id", s.id.clone())]) {
            set(&mut value, key, text.map(Value::from));
        }
        Some(value)
    };
    secrets.list().iter().filter_map(one).collect()
}

fn set(object: &mut Value, key: &str, value: Option<Value>) {
    if let (Some(object), Some(value)) = (object.as_object_mut(), value) {
        object.insert(key.to_owned(), value);
    }
}

pub(crate) fn name_of<T: PartialEq>(all: &[(T, &'static str)], value: T) -> Value {
    all.iter().find(|(v, _)| *v == value).map_or(Value::Null, |(_, name)| (*name).into())
}

fn set_endpoint(value: &mut Value, endpoint: Option<&TokenEndpoint>) {
    set(value, "token_url", endpoint.map(|e| e.url.as_str().into()));
    let ca = endpoint.and_then(|e| e.ca.as_ref());
    set(value, "token_ca", ca.map(|path| path.to_string_lossy().into()));
}

/// The schemes as they are kept, with the secrets that are given as text.
pub(crate) fn write(list: &[Auth]) -> Value {
    list.iter().map(scheme_json).collect()
}

fn scheme_json(auth: &Auth) -> Value {
    let mut v = json!({ "scheme": auth.scheme(), "secret": secrets_json(auth.secrets()) });
    let text = |t: &Option<String>| t.clone().map(Value::from);
    match auth {
        Auth::StandardWebhooks(_) => {}
        Auth::Hmac(h) if h.is_github() => {}
        Auth::Hmac(h) => {
            set(&mut v, "header", Some(h.header.as_str().into()));
            set(&mut v, "prefix", Some(h.prefix.as_str().into()));
            set(&mut v, "algorithm", Some(name_of(&HmacAlgorithm::ALL, h.algorithm)));
            set(&mut v, "encoding", Some(name_of(&SignatureEncoding::ALL, h.encoding)));
            set(&mut v, "secret_encoding", Some(name_of(&SecretEncoding::ALL, h.secret_encoding)));
            set(&mut v, "timestamp_header", text(&h.timestamp_header));
            set(&mut v, "timestamp_separator", Some(h.timestamp_separator.as_str().into()));
        }
        Auth::Basic(b) => set(&mut v, "username", Some(b.username.as_str().into())),
        Auth::Bearer(b) => {
            set(&mut v, "header", text(&b.header));
            set(&mut v, "prefix", b.header.as_ref().map(|_| b.prefix.as_str().into()));
        }
        Auth::ApiKey(k) => match &k.place {
            KeyPlace::Header(name) => set(&mut v, "header", Some(name.as_str().into())),
            KeyPlace::Query(name) => set(&mut v, "query", Some(name.as_str().into())),
        },
        Auth::MessageSignatures(m) => {
            set(&mut v, "algorithm", Some(m.algorithm.name().into()));
            set(&mut v, "components", Some(json!(m.components)));
            set(&mut v, "label", Some(m.label.as_str().into()));
            set(&mut v, "tell_algorithm", Some(m.tell_algorithm.into()));
            set(&mut v, "valid_for", m.valid_for_s.map(|s| format!("{s}s").into()));
            set(&mut v, "digest", Some(name_of(&DigestAlgorithm::ALL, m.digest)));
            set(&mut v, "secret_encoding", Some(name_of(&SecretEncoding::ALL, m.secret_encoding)));
        }
        Auth::JwtBearer(j) => {
            set(&mut v, "algorithm", Some(name_of(&JwtAlgorithm::ALL, j.algorithm)));
            set(&mut v, "audience", Some(j.audience.as_str().into()));
            set(&mut v, "issuer", text(&j.issuer));
            set(&mut v, "subject", text(&j.subject));
            set(&mut v, "scope", text(&j.scope));
            set(&mut v, "lifetime", Some(format!("{}s", j.lifetime_s).into()));
            set(&mut v, "claims", Some(Value::Object(j.claims.clone())).filter(|_| !j.claims.is_empty()));
            set_endpoint(&mut v, j.endpoint.as_ref());
        }
        Auth::ClientCredentials(c) => {
            set_endpoint(&mut v, Some(&c.endpoint));
            set(&mut v, "client_id", Some(c.client_id.as_str().into()));
            set(&mut v, "client_auth", Some(name_of(&ClientAuth::ALL, c.client_auth)));
            set(&mut v, "scope", text(&c.scope));
            set(&mut v, "audience", text(&c.audience));
        }
    }
    v
}
