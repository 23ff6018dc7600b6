//! The credentials of a destination at work: secrets that are read anew, tokens that are fetched in time.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ring::rand::SystemRandom;

use super::reread::Reread;
use super::tokens::Token;
use super::webhook::WebhookConnector;
use crate::auth::oauth::{Ask, FORM, Moment, Step, TokenSource, read_answer};
use crate::auth::{Auth, Request, Signed, Signer, batch_id};
use crate::config::Network;
use crate::delivery::Record;
use crate::driver;
use crate::error::{Error, ErrorKind, Result};
use crate::net::http::{RequestHead, Response};
use crate::net::tls::Tls;
use crate::rule::Webhook;

/// How often an attempt looks whether another one has fetched the token.
const TOKEN_LOOK: Duration = Duration::from_millis(10);

/// See the module. One for each destination and shard.
pub(super) struct Credentials {
    /// With the token endpoint's own URL it is connected to as the destination is.
    webhook: Webhook,
    network: Arc<Network>,
    auth: Arc<[Auth]>,
    signer: Reread<Signer>,
    /// The same for all shards.
    token: Arc<Token>,
    /// The way to the token endpoint.
    client: RefCell<Option<Rc<WebhookConnector>>>,
    random: SystemRandom,
}

impl Credentials {
    pub(super) fn new(webhook: &Webhook, network: Arc<Network>) -> Credentials {
        let auth: Arc<[Auth]> = webhook.auth.clone().into();
        Credentials {
            webhook: webhook.clone(),
            token: network.tokens.of(webhook.url.as_str(), &auth),
            network,
            auth,
            signer: Reread::new(),
            client: RefCell::default(),
            random: SystemRandom::new(),
        }
    }

    /// What an attempt made now gets, and the number of its token, if it has one. `made` are headers that only this request
    /// has.
    pub(super) async fn sign(
        &self,
        head: &RequestHead,
        made: &[(&str, &str)],
        body: &[&[u8]],
        records: &[Record],
    ) -> Result<(Signed, Option<u64>)> {
        let signer = self.signer().await?;
        let mut signed = Signed::default();
        let token = match signer.token() {
            None => None,
            Some(_) => Some(self.add_token(&signer, &mut signed).await?),
        };
        let mut all = Vec::new();
        let headers = match made {
            [] => &self.webhook.headers,
            _ => {
                all.clone_from(&self.webhook.headers);
                all.extend(made.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())));
                &all
            }
        };
        let id = batch_id(records.iter().map(|r| r.id));
        let request = Request {
            method: head.method().as_str(),
            scheme: self.webhook.url.scheme(),
            authority: head.authority(),
            target: head.target(),
            content_type: head.content_type(),
            headers,
            body,
            id: &id,
            unix: unix(),
            random: &self.random,
        };
        signer.sign(&request, &mut signed)?;
        Ok((signed, token))
    }

    /// Whether the endpoint has refused the token, and another one is worth trying at once.
    pub(super) fn is_token_refused(&self, token: Option<u64>, status: u16) -> bool {
        let Some(generation) = token else { return false };
        let mut state = self.token.state.lock();
        match status {
            401 => state.rejected(self.token.now_ns(), generation, jitter()),
            200..300 => {
                state.accepted(generation);
                false
            }
            _ => false,
        }
    }

    pub(super) fn expire(&self, now: Instant) {
        if let Some(client) = &*self.client.borrow() {
            client.expire_idle(now);
        }
    }

    /// The keys, read anew if a secret may have changed.
    async fn signer(&self) -> Result<Arc<Signer>> {
        let auth = self.auth.clone();
        let host = self.webhook.url.host_str().unwrap_or_default();
        self.signer.get(host, move || Signer::load(&auth)).await
    }

    /// Adds the token, fetched or made if need be.
    async fn add_token(&self, signer: &Signer, signed: &mut Signed) -> Result<u64> {
        loop {
            let step = {
                let mut state = self.token.state.lock();
                let step = state.poll(self.token.now_ns());
                // At once: on another shard it may be refused meanwhile.
                if let (Step::Use(_), Some(token)) = (&step, state.token()) {
                    signed.bearer(token);
                }
                step
            };
            match step {
                Step::Use(generation) => return Ok(generation),
                Step::Busy => driver::sleep(TOKEN_LOOK).await,
                Step::Wait(_) => {
                    let reason = self.token.state.lock().reason().to_owned();
                    return Err(Error::new(ErrorKind::Io, format!("there is no token: {reason}")).at("auth"));
                }
                Step::Fetch => {
                    let fetching = Fetching(self);
                    let result = self.fetch(signer).await;
                    std::mem::forget(fetching);
                    if let Err(e) = result {
                        log::debug!("no token: {e}");
                        self.token.state.lock().failed(self.token.now_ns(), e.to_string(), jitter());
                    }
                }
            }
        }
    }

    async fn fetch(&self, signer: &Signer) -> Result<()> {
        let source = signer.token().ok_or_else(|| Error::new(ErrorKind::Internal, "there is no source of tokens"))?;
        let (token, lifetime_s) = match source.ask(&Moment { unix: unix(), random: &self.random })? {
            Ask::Made { token, lifetime_s } => (token, Some(lifetime_s)),
            Ask::Post { body, authorization } => {
                let client = self.client(source)?;
                let mut headers = vec![("Accept", "application/json")];
                headers.extend(authorization.iter().map(|a| ("Authorization", a.as_str())));
                let failed = |what: String| Error::new(ErrorKind::Io, what).at("the token endpoint");
                let answer: Response = client.post(&headers, body.as_bytes()).await.map_err(failed)?;
                let given = read_answer(answer.status, &answer.body_start)?;
                (given.token, given.lifetime_s)
            }
        };
        self.token.state.lock().fetched(self.token.now_ns(), token, lifetime_s, jitter());
        Ok(())
    }

    fn client(&self, source: &dyn TokenSource) -> Result<Rc<WebhookConnector>> {
        if let Some(client) = &*self.client.borrow() {
            return Ok(client.clone());
        }
        let endpoint =
            source.endpoint().ok_or_else(|| Error::new(ErrorKind::Internal, "there is no token endpoint"))?;
        let mut webhook = self.webhook.clone();
        webhook.url.clone_from(&endpoint.url);
        // Certificate, pins and names are the destination's.
        webhook.tls =
            Tls { ca: endpoint.ca.iter().cloned().collect(), version_min: webhook.tls.version_min, ..Tls::default() };
        webhook.http2 = false;
        webhook.headers.clear();
        webhook.auth.clear();
        // The destination's own socket leads to the destination.
        webhook.unix_socket = None;
        let client = Rc::new(WebhookConnector::of_tokens(&webhook, FORM, &self.network)?);
        *self.client.borrow_mut() = Some(client.clone());
        Ok(client)
    }
}

impl Drop for Credentials {
    fn drop(&mut self) {
        let (url, network) = (self.webhook.url.as_str().to_owned(), self.network.clone());
        self.token = Arc::default();
        network.tokens.forget(&url);
    }
}

/// An attempt that fetches a token and may be ended before it is done.
struct Fetching<'a>(&'a Credentials);

impl Drop for Fetching<'_> {
    fn drop(&mut self) {
        self.0.token.state.lock().abandoned();
    }
}

/// Seconds since the Unix epoch.
fn unix() -> i64 {
    (driver::system_ns() / 1_000_000_000) as i64
}

/// From 0 to 1.
fn jitter() -> f64 {
    driver::random_u64().map_or(0.5, |n| (n >> 11) as f64 / (1u64 << 53) as f64)
}
