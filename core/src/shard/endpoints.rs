//! The endpoints of destinations, one each for all shards.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::delivery::endpoint::{Endpoint, EndpointPolicy};
use crate::lock::Mutex;
use crate::rule::{BreakerPolicy, Destination, DestinationKind, Order, RateLimits};

#[derive(Debug)]
struct Entry {
    endpoint: Arc<Endpoint>,
    /// Where it is: another address is another endpoint, of which nothing is known.
    kind: DestinationKind,
}

/// By the numbers of destinations.
#[derive(Debug, Default)]
pub(crate) struct Endpoints(Mutex<BTreeMap<u32, Entry>>);

fn policy(d: &Destination) -> EndpointPolicy {
    EndpointPolicy {
        concurrency: if d.order == Order::Strict { 1 } else { d.concurrency },
        adapts: d.adaptive_concurrency,
        breaker: d.breaker,
        retry_after_max_ns: d.retry.retry_after_max.as_nanos() as u64,
        rate: d.rate,
    }
}

impl Endpoints {
    /// The endpoint of a destination with these settings.
    pub(crate) fn of(&self, number: u32, d: &Destination) -> Arc<Endpoint> {
        let mut all = self.0.lock();
        match all.get_mut(&number) {
            Some(entry) => {
                entry.endpoint.set_policy(policy(d));
                if entry.kind != d.kind {
                    entry.kind = d.kind.clone();
                    entry.endpoint.reset();
                }
                entry.endpoint.clone()
            }
            None => {
                let endpoint = Endpoint::new(policy(d));
                all.insert(number, Entry { endpoint: endpoint.clone(), kind: d.kind.clone() });
                endpoint
            }
        }
    }

    /// The endpoint of a destination, if it ever had any.
    pub(crate) fn get(&self, number: u32) -> Option<Arc<Endpoint>> {
        self.0.lock().get(&number).map(|e| e.endpoint.clone())
    }

    /// What takes the place of an endpoint where there is none: one at a time, and always there.
    pub(crate) fn none() -> Arc<Endpoint> {
        let breaker = BreakerPolicy {
            consecutive_failures: u32::MAX,
            calls_min: u32::MAX,
            window: Duration::from_secs(3600),
            ..BreakerPolicy::default()
        };
        Endpoint::new(EndpointPolicy {
            concurrency: 1,
            adapts: false,
            breaker,
            retry_after_max_ns: 0,
            rate: RateLimits::default(),
        })
    }
}
