//! How destinations are reached: addresses, names and proxies.

use std::net::SocketAddr;
use std::sync::Arc;

use url::Host;

use crate::connect::custom::Handlers;
use crate::connect::tokens::Tokens;
use crate::driver::Sockets;
use crate::error::{Error, Result};
use crate::net::address::{AddressLists, AddressPolicy, TenantLimits, Trust};
use crate::net::proxy::{NoProxy, Proxy};
use crate::net::resolve::{Resolver, Source};
use crate::net::tls::keeper::Keeper;
use crate::rule::{Destination, ProxyChoice, Webhook};

/// The most DNS servers that can be given.
const SERVERS_MAX: usize = 8;

/// How destinations are reached, and what holds for those that say nothing else (`[engine.network]` in a file).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NetworkConfig {
    /// How names are looked up. Default: [`Source::Dns`] with the servers of `/etc/resolv.conf`. That ends in bounded time,
    /// follows the lifetime of records, and loads no modules of the system into the host's process; it knows `/etc/hosts`
    /// and DNS, and nothing else that `nsswitch.conf` may name: where that is needed, [`Source::System`].
    pub resolver: Source,
    /// On whose word the address of a destination is taken that does not say. Default: [`Trust::Operator`].
    pub trust: Trust,
    /// Ranges that are granted and refused to all destinations, besides their own.
    pub addresses: AddressLists,
    /// What destinations of tenants are held to.
    pub tenant: TenantLimits,
    /// The proxy of all destinations that do not choose another way. Default: none. Environment variables are not read.
    pub proxy: Option<Proxy>,
    /// Hosts that are reached without that proxy.
    pub no_proxy: Vec<NoProxy>,
    /// Whose sockets connections are made of. Default: [`Sockets::Ring`].
    pub sockets: Sockets,
}

impl Default for NetworkConfig {
    fn default() -> Self {
        NetworkConfig {
            resolver: Source::Dns(Vec::new()),
            trust: Trust::default(),
            addresses: AddressLists::default(),
            tenant: TenantLimits::default(),
            proxy: None,
            no_proxy: Vec::new(),
            sockets: Sockets::default(),
        }
    }
}

impl NetworkConfig {
    /// What the addresses of a destination are judged by.
    pub fn policy(&self, webhook: &Webhook) -> AddressPolicy {
        let both = |of: &[_], own: &[_]| of.iter().chain(own).copied().collect();
        AddressPolicy {
            trust: webhook.trust.unwrap_or(self.trust),
            allow: both(&self.addresses.allow, &webhook.addresses.allow),
            deny: both(&self.addresses.deny, &webhook.addresses.deny),
            tenant: self.tenant.clone(),
        }
    }

    /// What the addresses of proxies are judged by: they are the operator's, and the lists are about destinations.
    pub(crate) fn policy_of_proxies(&self) -> AddressPolicy {
        AddressPolicy::default()
    }

    /// The proxy that a destination is reached through, if it is.
    pub fn proxy_of<'a>(&'a self, webhook: &'a Webhook) -> Option<&'a Proxy> {
        match &webhook.proxy {
            ProxyChoice::Engine => {
                let host = webhook.url.host()?.to_owned();
                self.proxy.as_ref().filter(|_| !self.no_proxy.iter().any(|n| n.holds(&host)))
            }
            ProxyChoice::Direct => None,
            ProxyChoice::Through(proxy) => Some(proxy),
        }
    }

    /// Checks the limits.
    pub(super) fn validate(&self) -> Result<()> {
        let bad = |what: String, key: &str, remedy: &str| Err(Error::invalid_config(what).at(key).remedy(remedy));
        if let Source::Dns(servers) = &self.resolver {
            if servers.len() > SERVERS_MAX {
                let what = format!("{} DNS servers are given", servers.len());
                return bad(what, "engine.network.dns_servers", "keep 8 at most");
            }
            if servers.iter().any(|s| s.port() == 0 || s.ip().is_unspecified() || s.ip().is_multicast()) {
                let what = "a DNS server has port 0 or an address that is none of one host".to_owned();
                return bad(what, "engine.network.dns_servers", "write it as 10.0.0.2 or 10.0.0.2:53");
            }
        }
        if self.tenant.ports.is_empty() || self.tenant.ports.iter().any(|r| r.is_empty() || *r.start() == 0) {
            let what = "engine.network.tenant_ports holds no port, or port 0".to_owned();
            return bad(
                what,
                "engine.network.tenant_ports",
                "write ports and ranges, such as \"443\" and \"1024-65535\"",
            );
        }
        if self.proxy.is_none() && !self.no_proxy.is_empty() {
            let what = "hosts are given that need no proxy, and no proxy".to_owned();
            return bad(what, "engine.network.proxy.no_proxy", "add engine.network.proxy.url, or leave them out");
        }
        if let Some(proxy) = &self.proxy {
            check_proxy(proxy).map_err(|e| e.at("engine.network"))?;
        }
        Ok(())
    }

    /// Checks what the URL of a destination says by itself: that is what can be known of its address before its name is
    /// looked up.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidConfig`] that names the destination.
    pub fn check(&self, destination: &Destination) -> Result<()> {
        let webhook = destination.kind.webhook();
        webhook.map_or(Ok(()), |w| self.check_webhook(w).map_err(|e| e.at(destination.label())))
    }

    fn check_webhook(&self, webhook: &Webhook) -> Result<()> {
        let policy = self.policy(webhook);
        if webhook.unix_socket.is_some() {
            if policy.trust == Trust::Tenant {
                return Err(Error::invalid_config("a tenant's destination cannot be a Unix socket")
                    .at("unix_socket")
                    .remedy("set `trust = \"operator\"` if the operator vouches for it"));
            }
            // The URL's host is only said, not connected to.
            return Ok(());
        }
        webhook.urls().try_for_each(|url| policy.check_url(url))
    }
}

/// Checks a proxy's literal address.
pub(crate) fn check_proxy(proxy: &Proxy) -> Result<()> {
    let ip = match proxy.host() {
        Host::Ipv4(ip) => (*ip).into(),
        Host::Ipv6(ip) => (*ip).into(),
        Host::Domain(_) => return Ok(()),
    };
    AddressPolicy::default().judge_ip(ip).map_err(|refusal| refusal.error().at("proxy.url"))
}

/// A DNS server as it is written: an address, the port 53 if it has none.
pub(super) fn parse_server(text: &str) -> Result<SocketAddr> {
    let ip = text.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    match (text.parse::<SocketAddr>(), ip) {
        (Ok(address), _) => Ok(address),
        (_, Ok(ip)) => Ok((ip, 53).into()),
        _ => Err(Error::invalid_config(format!("`{}` is no address of a DNS server", text.escape_debug()))
            .remedy("write it as 10.0.0.2, 10.0.0.2:53 or [2001:db8::2]:53")),
    }
}

/// Ports as they are written: one, or the first and the last.
pub(super) fn parse_ports(text: &str) -> Result<std::ops::RangeInclusive<u16>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (first.trim().parse::<u16>(), last.trim().parse::<u16>()) {
        (Ok(first), Ok(last)) if (1..=last).contains(&first) => Ok(first..=last),
        _ => Err(Error::invalid_config(format!("`{}` is no port and no range of ports", text.escape_debug()))
            .remedy("write \"443\" or \"1024-65535\"")),
    }
}

/// What all shards of an engine need to reach destinations.
#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) config: NetworkConfig,
    pub(crate) resolver: Arc<Resolver>,
    pub(crate) tls: Arc<Keeper>,
    pub(crate) tokens: Tokens,
    /// What the host serves itself.
    pub(crate) handlers: Arc<Handlers>,
}

impl Network {
    /// To be called where no CPU is chosen for the calling thread.
    pub(crate) fn new(config: &NetworkConfig) -> Network {
        let resolver = Arc::new(Resolver::new(config.resolver.clone()));
        Network {
            config: config.clone(),
            resolver,
            tls: Arc::new(Keeper::new()),
            tokens: Tokens::default(),
            handlers: Arc::default(),
        }
    }
}
