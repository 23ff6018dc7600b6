//! Several endpoints of one destination, and how requests are spread over them.

use serde::Deserialize;
use url::Url;

use super::destination::{parse_url, within};
use crate::error::{Error, Result};

/// The most endpoints of one destination.
const ENDPOINTS_MAX: usize = 64;
const WEIGHT_MAX: usize = 1000;
const PRIORITY_MAX: usize = 1000;
const REGION_BYTES_MAX: usize = 64;

/// One endpoint of several. Its `Debug` form leaves out the path and query of the URL.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct WebhookEndpoint {
    /// Where to POST, as [`super::Webhook::url`].
    pub url: Url,
    /// Its share of what goes to the endpoints of its priority, 1 to 1000, compared with theirs. Default: 1.
    pub weight: u32,
    /// Lower numbers are used first, 0 to 1000: an endpoint is used only while none with a lower number can be. Default: 0.
    pub priority: u32,
    /// Where it is. If any endpoint says so, those of an event's region are nearest to it, and then those that answer
    /// soonest. 1 to 64 bytes. Default: none.
    pub region: Option<String>,
}

impl WebhookEndpoint {
    /// An endpoint with the defaults for everything but its URL.
    ///
    /// # Errors
    /// As [`super::Webhook::new`].
    pub fn new(url: &str) -> Result<WebhookEndpoint> {
        Ok(WebhookEndpoint { url: parse_url(url)?, weight: 1, priority: 0, region: None })
    }
}

impl std::fmt::Debug for WebhookEndpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WebhookEndpoint")
            .field("url", &format_args!("{}/…", self.url.origin().ascii_serialization()))
            .field("weight", &self.weight)
            .field("priority", &self.priority)
            .field("region", &self.region)
            .finish()
    }
}

/// How requests are spread over the endpoints of a destination that have the same priority and are equally near.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Balance {
    /// Each resource key has its endpoint, by rendezvous hashing with the weights: when an endpoint cannot be used, only its
    /// keys go elsewhere, and they come back with it. The default for destinations that keep an order.
    #[default]
    Affinity,
    /// In turn.
    RoundRobin,
    /// To the one with the fewest requests on their way, compared with its weight. The default for [`super::Order::None`].
    LeastOutstanding,
    /// In the proportion of the weights.
    Weighted,
}

impl Balance {
    pub(crate) const ALL: [(Balance, &'static str); 4] = [
        (Balance::Affinity, "affinity"),
        (Balance::RoundRobin, "round_robin"),
        (Balance::LeastOutstanding, "least_outstanding"),
        (Balance::Weighted, "weighted"),
    ];

    /// Its name in configurations.
    pub fn name(self) -> &'static str {
        Balance::ALL.iter().find(|(b, _)| *b == self).map_or("", |(_, name)| name)
    }
}

/// Checks a list of endpoints; each is checked as the URL of a webhook by `check`.
pub(super) fn validate(list: &[WebhookEndpoint], check: impl Fn(&Url) -> Result<()>) -> Result<()> {
    within("endpoints", list.len(), 0, ENDPOINTS_MAX)?;
    for (i, e) in list.iter().enumerate() {
        check(&e.url).map_err(|e| e.at("endpoints"))?;
        within("endpoints.weight", e.weight as usize, 1, WEIGHT_MAX)?;
        within("endpoints.priority", e.priority as usize, 0, PRIORITY_MAX)?;
        if let Some(region) = &e.region
            && (region.is_empty() || region.len() > REGION_BYTES_MAX || region.chars().any(char::is_control))
        {
            return Err(Error::invalid_config("a region is empty, too long, or has a control character")
                .at("endpoints")
                .remedy(format!("write 1 to {REGION_BYTES_MAX} bytes, or leave it out")));
        }
        if list[..i].iter().any(|other| other.url == e.url) {
            return Err(Error::invalid_config("two endpoints have the same URL")
                .at("endpoints")
                .remedy("keep one; give it the sum of their weights"));
        }
    }
    Ok(())
}
