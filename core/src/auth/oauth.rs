//! Access tokens (RFC 6749): what is asked of a token endpoint, what its answer means, and when to ask again.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::rand::SecureRandom;
use serde_json::{Map, Value};
use url::Url;
use url::form_urlencoded::byte_serialize;
use zeroize::Zeroizing;

use super::secret::{Keys, Reader};
use super::{Secrets, check_header_value};
use crate::error::{Error, ErrorKind, Result};

/// OAuth 2.0 client credentials. The secret is the client's.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClientCredentials {
    /// Where tokens are given out.
    pub endpoint: TokenEndpoint,
    /// Who we are there.
    pub client_id: String,
    /// How we say so. Default: [`ClientAuth::Basic`].
    pub client_auth: ClientAuth,
    /// What the token shall be good for, separated by spaces. Default: not said.
    pub scope: Option<String>,
    /// `audience`, which some endpoints ask for. Default: not said.
    pub audience: Option<String>,
    /// The client's secret; the first valid one is used.
    pub secrets: Secrets,
}

/// A token endpoint. Its `Debug` form leaves out path and query.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TokenEndpoint {
    /// `https`, or `http` on this machine.
    pub url: Url,
    /// A PEM file of the authorities to trust instead of those of the system. `https` only.
    pub ca: Option<PathBuf>,
}

impl fmt::Debug for TokenEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = format_args!("{}/…", self.url.origin().ascii_serialization()).to_string();
        f.debug_struct("TokenEndpoint").field("url", &url).field("ca", &self.ca).finish()
    }
}

impl TokenEndpoint {
    /// An endpoint with the system's authorities.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] as for a destination's URL, or if secrets would go over a network in the clear.
    pub fn new(url: &str) -> Result<TokenEndpoint> {
        let url = crate::rule::Webhook::new(url).map_err(|e| {
            let remedy = e.remedy_text().unwrap_or_default().to_owned();
            Error::invalid_config(e.message()).at("token_url").remedy(remedy)
        })?;
        let endpoint = TokenEndpoint { url: url.url, ca: None };
        endpoint.validate()?;
        Ok(endpoint)
    }

    pub(super) fn validate(&self) -> Result<()> {
        let local = match self.url.host() {
            Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
            Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
            Some(url::Host::Domain(name)) => name == "localhost",
            None => false,
        };
        if self.url.scheme() != "https" && !local {
            return Err(Error::invalid_config("the client's secret would go over the network in the clear")
                .at("token_url")
                .remedy("write https://"));
        }
        if self.ca.is_some() && self.url.scheme() != "https" {
            return Err(Error::invalid_config("an authority is given for a URL without TLS")
                .at("token_ca")
                .remedy("write https://, or leave token_ca out"));
        }
        Ok(())
    }
}

/// How a client tells who it is (RFC 6749, 2.3.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ClientAuth {
    /// In `Authorization: Basic`, as every endpoint must take it.
    #[default]
    Basic,
    /// In the form.
    Body,
}

impl ClientAuth {
    /// Each with its name in the configuration.
    pub const ALL: [(ClientAuth, &'static str); 2] = [(ClientAuth::Basic, "basic"), (ClientAuth::Body, "body")];
}

/// When a token is asked for.
pub(crate) struct Moment<'a> {
    /// Seconds since the Unix epoch.
    pub(crate) unix: i64,
    pub(crate) random: &'a dyn SecureRandom,
}

/// Where tokens come from.
pub(crate) trait TokenSource: Send + Sync {
    /// Where the answer to [`TokenSource::ask`] comes from, if it has to be fetched.
    fn endpoint(&self) -> Option<&TokenEndpoint>;

    /// The token, or what is to be sent for it.
    ///
    /// # Errors
    /// If no secret is valid.
    fn ask(&self, now: &Moment<'_>) -> Result<Ask>;
}

pub(crate) enum Ask {
    /// It was made here.
    Made { token: Zeroizing<String>, lifetime_s: u64 },
    /// A form to POST to the endpoint.
    Post { body: Zeroizing<String>, authorization: Option<Zeroizing<String>> },
}

/// The type of such a form.
pub(crate) const FORM: &str = "application/x-www-form-urlencoded";

pub(super) fn form<'a>(fields: impl IntoIterator<Item = (&'a str, &'a str)>) -> Zeroizing<String> {
    let mut out = Zeroizing::new(String::with_capacity(4096));
    for (name, value) in fields {
        if !out.is_empty() {
            out.push('&');
        }
        out.push_str(name);
        out.push('=');
        byte_serialize(value.as_bytes()).for_each(|part| out.push_str(part));
    }
    out
}

impl ClientCredentials {
    /// With the defaults for everything else.
    pub fn new(endpoint: TokenEndpoint, client_id: impl Into<String>, secret: impl Into<Secrets>) -> ClientCredentials {
        ClientCredentials {
            endpoint,
            client_id: client_id.into(),
            client_auth: ClientAuth::default(),
            scope: None,
            audience: None,
            secrets: secret.into(),
        }
    }

    pub(super) fn load(&self, reader: &mut Reader) -> Result<impl TokenSource + use<>> {
        self.endpoint.validate()?;
        if self.client_id.is_empty() {
            return Err(Error::invalid_config("the client has no id").at("client_id").remedy("give it"));
        }
        let keys = self.secrets.load(reader, |secret| Ok(ClientSecret(Zeroizing::new(secret.to_owned()))))?;
        Ok(Client { config: ClientCredentials { secrets: Secrets(Vec::new()), ..self.clone() }, keys })
    }
}

struct ClientSecret(Zeroizing<String>);

struct Client {
    /// Without the secrets.
    config: ClientCredentials,
    keys: Keys<ClientSecret>,
}

impl TokenSource for Client {
    fn endpoint(&self) -> Option<&TokenEndpoint> {
        Some(&self.config.endpoint)
    }

    fn ask(&self, now: &Moment<'_>) -> Result<Ask> {
        let c = &self.config;
        let secret = &self.keys.first(now.unix)?.key.0;
        let mut fields = vec![("grant_type", "client_credentials")];
        fields.extend(c.scope.as_deref().map(|s| ("scope", s)));
        fields.extend(c.audience.as_deref().map(|s| ("audience", s)));
        let mut authorization = None;
        match c.client_auth {
            ClientAuth::Body => fields.extend([("client_id", c.client_id.as_str()), ("client_secret", secret)]),
            ClientAuth::Basic => {
                let encoded = |text: &str| byte_serialize(text.as_bytes()).collect::<String>();
                let pair = Zeroizing::new([encoded(&c.client_id), encoded(secret)].join(":"));
                authorization = Some(Zeroizing::new(format!("Basic {}", STANDARD.encode(pair.as_bytes()))));
            }
        }
        Ok(Ask::Post { body: form(fields), authorization })
    }
}

/// What a token endpoint gave.
pub(crate) struct Given {
    pub(crate) token: Zeroizing<String>,
    /// How long it is valid, if that is said.
    pub(crate) lifetime_s: Option<u64>,
}

/// Reads the answer of a token endpoint (RFC 6749, 5).
///
/// # Errors
/// [`ErrorKind::Io`] with the endpoint's error code. No error holds what else it has said.
pub(crate) fn read_answer(status: u16, body: &[u8]) -> Result<Given> {
    let bad = |what: String| Error::new(ErrorKind::Io, what).at("the token endpoint");
    let answer: Option<Map<String, Value>> = serde_json::from_slice(body).ok();
    if !(200..300).contains(&status) {
        let code = answer.as_ref().and_then(|a| a.get("error")?.as_str());
        let code =
            code.filter(|c| c.len() <= 64 && c.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b)));
        let what = match code {
            Some(code) => format!("it answered {status}: {code}"),
            None => format!("it answered {status}"),
        };
        return Err(bad(what).remedy("check token_url, the client's id, its secret and the scope"));
    }
    let Some(mut answer) = answer else {
        return Err(bad("its answer is not a JSON object, or too long".into()).remedy("check token_url"));
    };
    let Some(Value::String(token)) = answer.remove("access_token") else {
        return Err(bad("its answer has no `access_token`".into()).remedy("check token_url"));
    };
    let token = Zeroizing::new(token);
    if token.is_empty() || token.contains(' ') || check_header_value(&token).is_err() {
        return Err(bad("its token cannot be sent in a header".into()).remedy("check token_url"));
    }
    let kind = answer.get("token_type").and_then(Value::as_str).unwrap_or("bearer");
    if !kind.eq_ignore_ascii_case("bearer") {
        return Err(bad("its token is of another type than Bearer".into()).remedy("ask for a bearer token"));
    }
    // Some endpoints write the number as a string.
    let lifetime_s = answer.get("expires_in").and_then(|v| v.as_u64().or_else(|| v.as_str()?.parse().ok()));
    Ok(Given { token, lifetime_s })
}

/// How one token is looked after.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TokenPolicy {
    /// A token is replaced so long before its end, and up to twice as long, but not in the first half of its life.
    pub(crate) margin: Duration,
    /// The life of a token whose end is not told.
    pub(crate) lifetime: Duration,
    /// The first wait after a failure; doubles up to `backoff_max`.
    pub(crate) backoff_min: Duration,
    pub(crate) backoff_max: Duration,
}

impl Default for TokenPolicy {
    fn default() -> Self {
        TokenPolicy {
            margin: Duration::from_secs(60),
            lifetime: Duration::from_secs(300),
            backoff_min: Duration::from_secs(1),
            backoff_max: Duration::from_secs(300),
        }
    }
}

/// One token and when to fetch the next. Times are nanoseconds of any clock that does not step back; `jitter` is a random
/// number from 0 to 1.
pub(crate) struct TokenState {
    policy: TokenPolicy,
    token: Option<Zeroizing<String>>,
    /// Counts tokens.
    generation: u64,
    refresh_ns: u64,
    end_ns: u64,
    fetching: bool,
    failures: u32,
    /// Not asked for again before.
    next_ns: u64,
    reason: String,
    /// The token came after the one before it was refused, and nobody has accepted it yet.
    suspect: bool,
}

/// What to do now.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Use the token, of this generation.
    Use(u64),
    /// Fetch one, and then call one of [`TokenState::fetched`], [`TokenState::failed`] and [`TokenState::abandoned`]. Nobody
    /// else is told so meanwhile.
    Fetch,
    /// Another one is fetching.
    Busy,
    /// Nothing before this time.
    Wait(u64),
}

impl TokenState {
    pub(crate) fn new(policy: TokenPolicy) -> TokenState {
        TokenState {
            policy,
            token: None,
            generation: 0,
            refresh_ns: 0,
            end_ns: 0,
            fetching: false,
            failures: 0,
            next_ns: 0,
            reason: String::new(),
            suspect: false,
        }
    }

    pub(crate) fn poll(&mut self, now_ns: u64) -> Step {
        if now_ns >= self.end_ns {
            self.token = None;
        }
        match &self.token {
            Some(_) if now_ns < self.refresh_ns || self.fetching || now_ns < self.next_ns => Step::Use(self.generation),
            None if self.fetching => Step::Busy,
            None if now_ns < self.next_ns => Step::Wait(self.next_ns),
            _ => {
                self.fetching = true;
                Step::Fetch
            }
        }
    }

    /// The token, as long as there is one.
    pub(crate) fn token(&self) -> Option<&str> {
        self.token.as_ref().map(|t| t.as_str())
    }

    /// Why there is none.
    pub(crate) fn reason(&self) -> &str {
        &self.reason
    }

    pub(crate) fn fetched(&mut self, now_ns: u64, token: Zeroizing<String>, lifetime_s: Option<u64>, jitter: f64) {
        // An hour is a day is a year: nothing is kept for longer than that.
        let lifetime = lifetime_s.map_or(self.policy.lifetime, |s| Duration::from_secs(s.min(365 * 86_400)));
        let lifetime = nanos(lifetime);
        let margin = (nanos(self.policy.margin) as f64 * (1.0 + jitter)) as u64;
        self.fetching = false;
        if !self.suspect {
            self.failures = 0;
        }
        self.next_ns = 0;
        self.generation += 1;
        self.end_ns = now_ns.saturating_add(lifetime);
        self.refresh_ns = self.end_ns - margin.min(lifetime / 2);
        self.token = Some(token);
    }

    /// It could not be fetched. A token that is still valid stays in use.
    pub(crate) fn failed(&mut self, now_ns: u64, reason: impl Into<String>, jitter: f64) {
        self.fetching = false;
        self.reason = reason.into();
        self.back_off(now_ns, jitter);
    }

    /// Whoever was to fetch it was stopped.
    pub(crate) fn abandoned(&mut self) {
        self.fetching = false;
    }

    /// The endpoint has accepted a token.
    pub(crate) fn accepted(&mut self, generation: u64) {
        if generation == self.generation {
            self.suspect = false;
            self.failures = 0;
        }
    }

    /// The endpoint has refused a token. Whether it is worth trying again at once with another one: only once, for a new
    /// token that is refused too is not what is wrong.
    pub(crate) fn rejected(&mut self, now_ns: u64, generation: u64, jitter: f64) -> bool {
        if generation != self.generation || self.token.is_none() {
            // It was replaced meanwhile, or somebody else was refused with it before.
            return true;
        }
        if self.suspect {
            // The next one comes after a wait; until then this one is as good as none.
            self.back_off(now_ns, jitter);
            self.refresh_ns = self.refresh_ns.min(self.next_ns);
            return false;
        }
        self.suspect = true;
        self.token = None;
        true
    }

    fn back_off(&mut self, now_ns: u64, jitter: f64) {
        let doubled = nanos(self.policy.backoff_min).saturating_mul(1 << self.failures.min(32));
        let wait = doubled.min(nanos(self.policy.backoff_max));
        self.failures += 1;
        self.next_ns = now_ns.saturating_add(wait / 2 + (wait as f64 / 2.0 * jitter) as u64);
    }
}

fn nanos(d: Duration) -> u64 {
    u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;

    fn state() -> TokenState {
        TokenState::new(TokenPolicy::default())
    }

    fn token(n: u32) -> Zeroizing<String> {
        Zeroizing::new(format!("token-{n}"))
    }

    #[test]
    fn one_at_a_time_fetches_and_the_others_use_what_is_there() {
        let mut s = state();
        assert_eq!((s.poll(0), s.poll(0), s.token()), (Step::Fetch, Step::Busy, None));
        s.fetched(S, token(1), Some(3600), 0.5);
        assert_eq!((s.poll(S), s.token()), (Step::Use(1), Some("token-1")));
        // Margin 60 s, half as much again by chance: 90 s before the end.
        let refresh = S + 3600 * S - 90 * S;
        assert_eq!(s.poll(refresh - 1), Step::Use(1));
        assert_eq!((s.poll(refresh), s.poll(refresh)), (Step::Fetch, Step::Use(1)));
        s.fetched(refresh, token(2), Some(3600), 0.0);
        assert_eq!((s.poll(refresh), s.token()), (Step::Use(2), Some("token-2")));
        // Whoever fetched was stopped: somebody else may.
        let end = refresh + 3600 * S;
        assert_eq!((s.poll(end), s.poll(end)), (Step::Fetch, Step::Busy));
        s.abandoned();
        assert_eq!(s.poll(end), Step::Fetch);
    }

    #[test]
    fn a_failed_refresh_is_tried_again_later_and_the_token_used_to_its_end() {
        let mut s = state();
        s.poll(0);
        s.fetched(0, token(1), Some(600), 0.0);
        let refresh = 540 * S;
        assert_eq!(s.poll(refresh), Step::Fetch);
        s.failed(refresh, "away", 0.0);
        assert_eq!((s.poll(refresh), s.poll(refresh + S / 2 - 1)), (Step::Use(1), Step::Use(1)));
        assert_eq!(s.poll(refresh + S / 2), Step::Fetch);
        s.failed(599 * S, "away still", 1.0);
        assert_eq!((s.poll(600 * S - 1), s.poll(600 * S)), (Step::Use(1), Step::Wait(601 * S)));
        assert_eq!((s.token(), s.reason()), (None, "away still"));
        // The waits double up to five minutes.
        let mut waits = Vec::new();
        let mut now = 601 * S;
        for _ in 0..10 {
            assert_eq!(s.poll(now), Step::Fetch);
            s.failed(now, "away", 1.0);
            let Step::Wait(until) = s.poll(now) else { panic!("it does not wait") };
            waits.push((until - now) / S);
            now = until;
        }
        assert_eq!(waits, [4, 8, 16, 32, 64, 128, 256, 300, 300, 300]);
    }

    #[test]
    fn a_refused_token_is_replaced_once() {
        let mut s = state();
        s.poll(0);
        s.fetched(0, token(1), Some(3600), 0.0);
        assert!(s.rejected(S, 1, 0.0));
        assert!(s.rejected(S, 1, 0.0), "others had the same one");
        assert_eq!((s.poll(S), s.poll(S)), (Step::Fetch, Step::Busy));
        assert!(s.rejected(S, 1, 0.0));
        s.fetched(S, token(2), Some(3600), 0.0);
        // Another attempt that had the old one: the new one is there already.
        assert!(s.rejected(S, 1, 0.0));
        assert_eq!(s.poll(S), Step::Use(2));
        // The new one is refused too: no storm of tokens.
        assert!(!s.rejected(S, 2, 1.0));
        assert_eq!((s.poll(S), s.poll(2 * S - 1), s.poll(2 * S)), (Step::Use(2), Step::Use(2), Step::Fetch));
        s.fetched(2 * S, token(3), Some(3600), 0.0);
        assert!(!s.rejected(2 * S, 3, 1.0));
        assert_eq!((s.poll(4 * S - 1), s.poll(4 * S)), (Step::Use(3), Step::Fetch), "the waits grow");
        s.fetched(4 * S, token(4), Some(3600), 0.0);
        // One that was accepted is trusted again.
        s.accepted(4);
        assert!(s.rejected(5 * S, 4, 0.0));
    }

    #[test]
    fn a_token_of_unknown_or_odd_life_is_replaced_in_its_second_half() {
        for (lifetime, refresh, end) in
            [(None, 240, 300), (Some(10), 5, 10), (Some(0), 0, 0), (Some(u64::MAX), 31_535_940, 31_536_000)]
        {
            let mut s = state();
            s.poll(0);
            s.fetched(0, token(1), lifetime, 0.0);
            assert_eq!((s.refresh_ns / S, s.end_ns / S), (refresh, end), "{lifetime:?}");
        }
        let mut s = state();
        s.poll(0);
        s.fetched(0, token(1), Some(0), 0.0);
        assert_eq!((s.poll(0), s.token()), (Step::Fetch, None), "one that is never valid is never used");
    }

    #[test]
    fn answers_of_token_endpoints() {
        let good = read_answer(200, br#"{"access_token":"t","token_type":"bearer","expires_in":"60","x":1}"#).unwrap();
        assert_eq!((good.token.as_str(), good.lifetime_s), ("t", Some(60)));
        let good = read_answer(200, br#"{"access_token":"t","expires_in":3599}"#).unwrap();
        assert_eq!(good.lifetime_s, Some(3599));
        for (status, body, what) in [
            (401, r#"{"error":"invalid_client","error_description":"SECRET"}"#, "it answered 401: invalid_client"),
            (400, r#"{"error":"SECRET with a space"}"#, "it answered 400; "),
            (503, "SECRET", "it answered 503; "),
            (302, "", "it answered 302"),
            (200, "SECRET", "not a JSON object"),
            (200, "[1]", "not a JSON object"),
            (200, r#"{"token":"SECRET"}"#, "no `access_token`"),
            (200, r#"{"access_token":"SECRET\r\nX: y"}"#, "cannot be sent in a header"),
            (200, r#"{"access_token":""}"#, "cannot be sent in a header"),
            (200, r#"{"access_token":"SECRET","token_type":"mac"}"#, "another type than Bearer"),
        ] {
            let e = read_answer(status, body.as_bytes()).err().unwrap();
            let text = format!("{e} {e:?}");
            assert!(text.contains(what) && !text.contains("SECRET") && e.remedy_text().is_some(), "{text}");
        }
    }
}
