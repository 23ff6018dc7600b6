//! Which addresses a destination may be connected to. Pure: no I/O, no names.
//!
//! What is judged is the very address that a socket is about to be connected to, whatever name or proxy setting led there,
//! so that a name whose answer changes gains nothing. Literals in URLs are judged when they are configured as well, for
//! the earlier error.
//!
//! An address is judged in all the forms that reach a host: an IPv4 address inside an IPv6 one (mapped, compatible,
//! translated, 6to4, NAT64, Teredo, ISATAP) is judged by itself too. In this order:
//!
//! 1. Metadata services of the clouds and link-local addresses are refused, whatever else is set: what lies there hands out
//!    the credentials of the machine, and no receiver of events lives there. There is no setting against it.
//! 2. Addresses that are none of one host (unspecified, multicast, broadcast) are refused.
//! 3. What [`AddressPolicy::deny`] holds is refused.
//! 4. What [`AddressPolicy::allow`] holds is granted; a form at a time, so that an allowed NAT64 prefix does not open the
//!    IPv4 addresses behind it.
//! 5. [`Trust::Operator`] grants the rest, [`Trust::Tenant`] what is public.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::Deserialize;
use url::{Host, Url};

use crate::error::{Error, ErrorKind, Result};

/// On whose word a destination's address is taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Trust {
    /// The operator of the store: private networks and this machine are normal. The default.
    #[default]
    Operator,
    /// A tenant of the store: public unicast addresses only, over TLS, at the ports of [`TenantLimits`].
    Tenant,
}

impl Trust {
    /// Its name in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Trust::Operator => "operator",
            Trust::Tenant => "tenant",
        }
    }
}

/// What destinations of tenants are held to besides their addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TenantLimits {
    /// Whether only `https` will do. Default: `true`.
    pub https_only: bool,
    /// The ports that may be connected to. Default: 80, 443, and 1024 to 65535.
    pub ports: Vec<RangeInclusive<u16>>,
}

impl Default for TenantLimits {
    fn default() -> Self {
        TenantLimits { https_only: true, ports: vec![80..=80, 443..=443, 1024..=65535] }
    }
}

/// Ranges that are granted or refused whatever the trust says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressLists {
    /// Granted, although the trust would not.
    pub allow: Vec<IpNet>,
    /// Refused, also where `allow` grants them.
    pub deny: Vec<IpNet>,
}

/// What is judged by. See the module for the order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressPolicy {
    /// On whose word.
    pub trust: Trust,
    /// Ranges that are granted although the trust would not.
    pub allow: Vec<IpNet>,
    /// Ranges that are refused, also where `allow` grants them.
    pub deny: Vec<IpNet>,
    /// For tenants.
    pub tenant: TenantLimits,
}

/// Why an address is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    address: IpAddr,
    /// The form of the address that is at fault, if it is not the address itself.
    form: IpAddr,
    why: Why,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Why {
    Metadata(&'static Range),
    NotOneHost(&'static Range),
    Denied(IpNet),
    NotPublic(&'static Range),
    Port(u16),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Metadata,
    NotOneHost,
    NotPublic,
}

#[derive(Debug, PartialEq, Eq)]
struct Range {
    net: IpNet,
    name: &'static str,
    class: Class,
}

const fn v4(a: u8, b: u8, c: u8, d: u8, bits: u8, name: &'static str, class: Class) -> Range {
    Range { net: IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), bits)), name, class }
}

const fn v6(s: [u16; 8], bits: u8, name: &'static str, class: Class) -> Range {
    let ip = Ipv6Addr::new(s[0], s[1], s[2], s[3], s[4], s[5], s[6], s[7]);
    Range { net: IpNet::V6(Ipv6Net::new_assert(ip, bits)), name, class }
}

/// The ranges that are special, the narrower ones first. Of the IANA registries of special-purpose addresses, and of what
/// the clouds document.
static RANGES: [Range; 51] = {
    use Class::{Metadata, NotOneHost, NotPublic};
    [
        // 169.254.169.254 of nearly everybody, 169.254.170.2 and .23 of containers at AWS, 169.254.0.23 at Tencent, ...
        v4(169, 254, 0, 0, 16, "link-local, metadata services", Metadata),
        v4(168, 63, 129, 16, 32, "host service of Azure", Metadata),
        v4(100, 100, 100, 200, 32, "metadata service of Alibaba Cloud", Metadata),
        v4(100, 96, 0, 96, 32, "metadata service of Volcano Engine", Metadata),
        v4(192, 0, 0, 192, 32, "metadata service of Oracle Cloud Classic", Metadata),
        v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10, "link-local, metadata services", Metadata),
        // ::254 is the metadata service; names, time and the identities of pods are there too.
        v6([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0], 32, "instance services of AWS", Metadata),
        v6([0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254], 128, "metadata service of Google Cloud", Metadata),
        v6([0xfd00, 0xc1, 0, 0, 0, 0, 0xa9fe, 0xa9fe], 128, "metadata service of Oracle Cloud", Metadata),
        v6([0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42], 128, "metadata service of Scaleway", Metadata),
        v6([0xfd00, 0xa9fe, 0xa9fe, 0, 0, 0, 0, 1], 128, "metadata service of Linode", Metadata),
        v6([0xfd00, 0x100, 0, 0, 0, 0, 0x100, 0x200], 128, "metadata service of Alibaba Cloud", Metadata),
        v4(0, 0, 0, 0, 32, "unspecified address", NotOneHost),
        v4(224, 0, 0, 0, 4, "multicast", NotOneHost),
        v4(255, 255, 255, 255, 32, "broadcast", NotOneHost),
        v6([0; 8], 128, "unspecified address", NotOneHost),
        v6([0xff00, 0, 0, 0, 0, 0, 0, 0], 8, "multicast", NotOneHost),
        v4(0, 0, 0, 0, 8, "this network", NotPublic),
        v4(10, 0, 0, 0, 8, "private network", NotPublic),
        v4(100, 64, 0, 0, 10, "shared address space of carriers", NotPublic),
        v4(127, 0, 0, 0, 8, "loopback", NotPublic),
        v4(172, 16, 0, 0, 12, "private network", NotPublic),
        v4(192, 0, 0, 0, 24, "protocol assignments", NotPublic),
        v4(192, 0, 2, 0, 24, "documentation", NotPublic),
        v4(192, 31, 196, 0, 24, "sink of reverse names", NotPublic),
        v4(192, 52, 193, 0, 24, "multicast relays", NotPublic),
        v4(192, 88, 99, 0, 24, "relays of 6to4", NotPublic),
        v4(192, 168, 0, 0, 16, "private network", NotPublic),
        v4(192, 175, 48, 0, 24, "sink of reverse names", NotPublic),
        v4(198, 18, 0, 0, 15, "benchmarks", NotPublic),
        v4(198, 51, 100, 0, 24, "documentation", NotPublic),
        v4(203, 0, 113, 0, 24, "documentation", NotPublic),
        v4(240, 0, 0, 0, 4, "reserved", NotPublic),
        v6([0, 0, 0, 0, 0, 0, 0, 1], 128, "loopback", NotPublic),
        v6([0x64, 0xff9b, 1, 0, 0, 0, 0, 0], 48, "local translation to IPv4", NotPublic),
        v6([0x100, 0, 0, 0, 0, 0, 0, 0], 64, "discarded", NotPublic),
        v6([0x100, 0, 0, 1, 0, 0, 0, 0], 64, "dummy prefix", NotPublic),
        v6([0x2001, 2, 0, 0, 0, 0, 0, 0], 48, "benchmarks", NotPublic),
        v6([0x2001, 4, 0x112, 0, 0, 0, 0, 0], 48, "sink of reverse names", NotPublic),
        v6([0x2001, 0x10, 0, 0, 0, 0, 0, 0], 28, "identifiers, not addresses", NotPublic),
        v6([0x2001, 0x20, 0, 0, 0, 0, 0, 0], 28, "identifiers, not addresses", NotPublic),
        v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 23, "protocol assignments", NotPublic),
        v6([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32, "documentation", NotPublic),
        v6([0x2620, 0x4f, 0x8000, 0, 0, 0, 0, 0], 48, "sink of reverse names", NotPublic),
        v6([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20, "documentation", NotPublic),
        v6([0x5f00, 0, 0, 0, 0, 0, 0, 0], 16, "segment routing", NotPublic),
        v6([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7, "private network (unique local)", NotPublic),
        v6([0xfec0, 0, 0, 0, 0, 0, 0, 0], 10, "site-local", NotPublic),
        // What is neither global unicast (2000::/3) nor named above. The translation to IPv4 is judged by that.
        v6([0, 0, 0, 0, 0, 0, 0, 0], 3, "not global unicast", NotPublic),
        v6([0x4000, 0, 0, 0, 0, 0, 0, 0], 2, "not global unicast", NotPublic),
        v6([0x8000, 0, 0, 0, 0, 0, 0, 0], 1, "not global unicast", NotPublic),
    ]
};

/// The prefix that every network may translate to IPv4 with (RFC 6052).
const NAT64: [u16; 6] = [0x64, 0xff9b, 0, 0, 0, 0];

/// The forms in which an address reaches a host: first the address itself, unless it is nothing but another way to write
/// an IPv4 address, then what it embeds.
fn forms(ip: IpAddr) -> Vec<IpAddr> {
    let IpAddr::V6(ip) = ip else { return vec![ip] };
    let s = ip.segments();
    let o = ip.octets();
    let at = |i: usize, j: usize, k: usize, l: usize| IpAddr::V4(Ipv4Addr::new(o[i], o[j], o[k], o[l]));
    let last = at(12, 13, 14, 15);
    match s {
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => return vec![ip.into()],
        // Compatible, mapped, translated (RFC 2765), and the common prefix of NAT64.
        [0, 0, 0, 0, 0, 0 | 0xffff, ..] | [0, 0, 0, 0, 0xffff, 0, ..] => return vec![last],
        _ if s[..6] == NAT64 => return vec![last],
        _ => {}
    }
    let mut forms = vec![IpAddr::V6(ip)];
    match s {
        [0x2002, ..] => forms.push(at(2, 3, 4, 5)),
        // Teredo: the server, and the client with its bits turned.
        [0x2001, 0, ..] => {
            forms.push(at(4, 5, 6, 7));
            forms.push(Ipv4Addr::new(!o[12], !o[13], !o[14], !o[15]).into());
        }
        [0x64, 0xff9b, 1, ..] => {
            // How long the prefix is, and with that where the IPv4 address stands (RFC 6052), is the network's own choice.
            forms.push(last);
            if o[6..12] != [0; 6] {
                forms.extend([at(6, 7, 9, 10), at(7, 9, 10, 11), at(9, 10, 11, 12)]);
            }
        }
        // ISATAP.
        [_, _, _, _, 0 | 0x200, 0x5efe, ..] => forms.push(last),
        _ => {}
    }
    forms
}

fn range_of(ip: IpAddr, class: Class) -> Option<&'static Range> {
    RANGES.iter().find(|r| r.class == class && r.net.contains(&ip))
}

fn not_public(ip: IpAddr) -> Option<&'static Range> {
    match ip {
        // Teredo lies in a special range, and is judged by what it embeds.
        IpAddr::V6(ip) if matches!(ip.segments(), [0x2001, 0, ..]) => None,
        _ => range_of(ip, Class::NotPublic),
    }
}

impl AddressPolicy {
    /// Judges an address that is about to be connected to.
    ///
    /// # Errors
    /// The reason for which it is refused.
    pub fn judge(&self, address: SocketAddr) -> Result<(), Refusal> {
        self.judge_ip(address.ip())?;
        if self.trust == Trust::Tenant && !self.tenant.ports.iter().any(|r| r.contains(&address.port())) {
            let ip = address.ip();
            return Err(Refusal { address: ip, form: ip, why: Why::Port(address.port()) });
        }
        Ok(())
    }

    /// As [`AddressPolicy::judge`], without the port.
    ///
    /// # Errors
    /// The reason for which it is refused.
    pub fn judge_ip(&self, address: IpAddr) -> Result<(), Refusal> {
        let forms = forms(address);
        let refuse = |form: IpAddr, why| Err(Refusal { address, form, why });
        for form in &forms {
            if let Some(range) = range_of(*form, Class::Metadata) {
                return refuse(*form, Why::Metadata(range));
            }
        }
        for form in forms {
            if let Some(range) = range_of(form, Class::NotOneHost) {
                return refuse(form, Why::NotOneHost(range));
            }
            if let Some(net) = self.deny.iter().find(|net| net.contains(&form)) {
                return refuse(form, Why::Denied(*net));
            }
            if self.trust == Trust::Operator || self.allow.iter().any(|net| net.contains(&form)) {
                continue;
            }
            if let Some(range) = not_public(form) {
                return refuse(form, Why::NotPublic(range));
            }
        }
        Ok(())
    }

    /// The addresses that may be connected to, in their order.
    ///
    /// # Errors
    /// The reason for the first one, if none is left.
    pub fn granted(&self, addresses: &[IpAddr], port: u16) -> Result<Vec<SocketAddr>, Refusal> {
        let mut first = None;
        let mut granted = Vec::with_capacity(addresses.len());
        for ip in addresses {
            let address = SocketAddr::new(*ip, port);
            match self.judge(address) {
                Ok(()) => granted.push(address),
                Err(refusal) => {
                    first.get_or_insert(refusal);
                }
            }
        }
        match first {
            Some(refusal) if granted.is_empty() => Err(refusal),
            _ => Ok(granted),
        }
    }

    /// Judges what a URL says by itself: its scheme, its port, and its address if it has one instead of a name.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] at `url`.
    pub fn check_url(&self, url: &Url) -> Result<()> {
        if self.trust == Trust::Tenant {
            if self.tenant.https_only && url.scheme() != "https" {
                return Err(Error::invalid_config("a tenant's destination must have an https URL")
                    .at("url")
                    .remedy("write https://, or set `trust = \"operator\"` if the operator vouches for the receiver"));
            }
            let port = url.port_or_known_default().unwrap_or(0);
            if !self.tenant.ports.iter().any(|r| r.contains(&port)) {
                return Err(Error::invalid_config(Why::Port(port).to_string()).at("url").remedy(PORT_REMEDY));
            }
        }
        let literal = match url.host() {
            Some(Host::Ipv4(ip)) => IpAddr::V4(ip),
            Some(Host::Ipv6(ip)) => IpAddr::V6(ip),
            _ => return Ok(()),
        };
        self.judge_ip(literal).map_err(|refusal| refusal.error().at("url"))
    }
}

const PORT_REMEDY: &str = "use port 80, 443 or one from 1024 on, or set `engine.network.tenant_ports`";

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::Metadata(r) => write!(f, "it is in {} ({}), which no destination may reach", r.net, r.name),
            Why::NotOneHost(r) => write!(f, "it is in {} ({}) and not the address of one host", r.net, r.name),
            Why::Denied(net) => write!(f, "it is in {net}, which is denied by `addresses.deny`"),
            Why::NotPublic(r) => {
                write!(f, "it is in {} ({}), and a tenant's destination must be public", r.net, r.name)
            }
            Why::Port(port) => write!(f, "port {port} is not open to destinations of tenants"),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.address == self.form {
            write!(f, "the address {} is refused: {}", self.address, self.why)
        } else {
            write!(f, "the address {}, which stands for {}, is refused: {}", self.address, self.form, self.why)
        }
    }
}

impl Refusal {
    /// What can be done about it.
    pub fn remedy(&self) -> &'static str {
        match self.why {
            Why::Metadata(_) => "name the receiver's own address; no setting opens this range",
            Why::NotOneHost(_) => "name the address of the receiver; this machine is 127.0.0.1",
            Why::Denied(_) => "choose another receiver, or take the range out of `addresses.deny`",
            Why::NotPublic(_) => {
                "use a public address; if the operator vouches for this one, add it to `addresses.allow` or set \
                 `trust = \"operator\"`"
            }
            Why::Port(_) => PORT_REMEDY,
        }
    }

    /// The refusal as an error of the configuration.
    #[cold]
    pub fn error(&self) -> Error {
        Error::new(ErrorKind::InvalidConfig, self.to_string()).remedy(self.remedy())
    }
}

/// Reads a range of addresses: CIDR, or a single address.
///
/// # Errors
/// [`ErrorKind::InvalidConfig`] if it is none, or if it would never hold an address, because addresses are judged in
/// another form.
pub fn parse_net(text: &str) -> Result<IpNet> {
    let bad = |what: String, remedy: &str| Err(Error::invalid_config(what).remedy(remedy.to_owned()));
    let shown = text.escape_debug();
    let net = match text.parse::<IpNet>() {
        Ok(net) => net,
        Err(_) => match text.parse::<IpAddr>() {
            Ok(ip) => IpNet::from(ip),
            Err(_) => {
                return bad(format!("`{shown}` is no range of addresses"), "write it as 10.0.0.0/8 or 2001:db8::/32");
            }
        },
    };
    if net.trunc() != net {
        return bad(format!("`{shown}` has bits beyond its prefix"), &format!("write {}", net.trunc()));
    }
    if let IpNet::V6(v6) = net
        && v6.prefix_len() >= 96
        && let [IpAddr::V4(inner)] = forms(v6.network().into())[..]
    {
        let bits = v6.prefix_len() - 96;
        return bad(
            format!("`{shown}` is another way to write IPv4 addresses, which are judged as such"),
            &format!("write {inner}/{bits}"),
        );
    }
    Ok(net)
}

#[cfg(test)]
mod tests;
