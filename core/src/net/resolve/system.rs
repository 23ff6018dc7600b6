//! What the system says about names: `/etc/hosts` and `/etc/resolv.conf`. Reading them is lenient, as the system's own
//! resolver is: what cannot be understood is passed over.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::time::Duration;

/// The port of DNS.
pub const DNS_PORT: u16 = 53;
/// The most servers that are asked; the system's own resolver takes three.
const SERVERS_MAX: usize = 8;
const SEARCH_MAX: usize = 16;

/// Whom to ask, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asking {
    /// The servers, in their order.
    pub servers: Vec<SocketAddr>,
    /// What is put behind a name that has fewer than `ndots` dots.
    pub search: Vec<String>,
    /// See `search`.
    pub ndots: usize,
    /// How long one server is waited for.
    pub timeout: Duration,
    /// How often the servers are asked.
    pub attempts: usize,
    /// Whether another server goes first each time.
    pub rotate: bool,
    /// Whether TCP is used from the start.
    pub tcp: bool,
}

impl Asking {
    /// Of these servers, in the usual way.
    pub fn of(servers: Vec<SocketAddr>) -> Asking {
        Asking {
            servers,
            search: Vec::new(),
            ndots: 1,
            timeout: Duration::from_secs(5),
            attempts: 2,
            rotate: false,
            tcp: false,
        }
    }

    /// Reads the text of `/etc/resolv.conf`.
    pub fn read(text: &str) -> Asking {
        let mut asking = Asking::of(Vec::new());
        for line in text.lines() {
            let mut words = line.split([' ', '\t']).filter(|w| !w.is_empty());
            match words.next() {
                Some("nameserver") => {
                    let server = words.next().and_then(server);
                    asking.servers.extend(server.filter(|_| asking.servers.len() < SERVERS_MAX));
                }
                // The last of these lines counts.
                Some("domain") => asking.search = words.next().map(str::to_owned).into_iter().collect(),
                Some("search") => asking.search = words.take(SEARCH_MAX).map(str::to_owned).collect(),
                Some("options") => words.for_each(|w| asking.set_option(w)),
                _ => {}
            }
        }
        if asking.servers.is_empty() {
            asking.servers.push((Ipv4Addr::LOCALHOST, DNS_PORT).into());
        }
        asking
    }

    fn set_option(&mut self, option: &str) {
        let (name, value) = option.split_once(':').unwrap_or((option, ""));
        let number = || value.parse::<u64>().ok();
        match (name, number()) {
            ("ndots", Some(n)) => self.ndots = n.min(15) as usize,
            ("timeout", Some(n)) => self.timeout = Duration::from_secs(n.clamp(1, 30)),
            ("attempts", Some(n)) => self.attempts = n.clamp(1, 5) as usize,
            ("rotate", _) => self.rotate = true,
            ("use-vc", _) => self.tcp = true,
            _ => {}
        }
    }

    /// The names that are asked for in turn for `name`, each without the dot at its end.
    pub fn candidates(&self, name: &str) -> Vec<String> {
        if let Some(whole) = name.strip_suffix('.') {
            return vec![whole.to_owned()];
        }
        let with = |domain: &String| format!("{name}.{}", domain.trim_end_matches('.'));
        let searched = self.search.iter().filter(|d| !d.trim_end_matches('.').is_empty()).map(with);
        let mut all: Vec<String> = searched.collect();
        let place = if name.matches('.').count() >= self.ndots { 0 } else { all.len() };
        all.insert(place, name.to_owned());
        all
    }
}

/// A server's address as resolv.conf has it; one that is link-local names its interface.
fn server(text: &str) -> Option<SocketAddr> {
    let Some((ip, zone)) = text.split_once('%') else {
        return Some(SocketAddr::new(text.parse::<IpAddr>().ok()?, DNS_PORT));
    };
    let ip: Ipv6Addr = ip.parse().ok()?;
    let number = |zone: &str| {
        if zone.contains(['/', '.']) {
            return None;
        }
        std::fs::read_to_string(format!("/sys/class/net/{zone}/ifindex")).ok()?.trim().parse::<u32>().ok()
    };
    let zone = zone.parse::<u32>().ok().or_else(|| number(zone))?;
    Some(SocketAddrV6::new(ip, DNS_PORT, 0, zone).into())
}

/// The addresses of a name in the text of `/etc/hosts`. `localhost`, and every name below it, is this machine even if it is
/// not there (RFC 6761).
pub fn hosts(text: &str, name: &str) -> Vec<IpAddr> {
    let name = name.strip_suffix('.').unwrap_or(name);
    let mut found: Vec<IpAddr> = Vec::new();
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default();
        let mut words = line.split_ascii_whitespace();
        let Some(ip) = words.next().and_then(|w| w.parse().ok()) else { continue };
        if words.any(|w| w.eq_ignore_ascii_case(name)) && !found.contains(&ip) {
            found.push(ip);
        }
    }
    let last = name.rsplit('.').next().unwrap_or_default();
    if found.is_empty() && last.eq_ignore_ascii_case("localhost") {
        found = vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolv_conf() {
        let text = "# by somebody\n; old\nnameserver 10.0.0.1\nnameserver\t2001:db8::53\nnameserver nonsense\n\
                    domain ignored.example\nsearch a.example b.example.\n\
                    options ndots:2 timeout:3 attempts:99 rotate edns0 unknown:7 ndots:x\nsortlist 10.0.0.0\n";
        let asking = Asking::read(text);
        assert_eq!(
            asking,
            Asking {
                servers: vec!["10.0.0.1:53".parse().unwrap(), "[2001:db8::53]:53".parse().unwrap()],
                search: vec!["a.example".into(), "b.example.".into()],
                ndots: 2,
                timeout: Duration::from_secs(3),
                attempts: 5,
                rotate: true,
                tcp: false,
            }
        );
        assert_eq!(Asking::read("").servers, ["127.0.0.1:53".parse().unwrap()]);
        assert_eq!(Asking::read("\0\u{fffd} nameserver").servers.len(), 1);
        assert_eq!(Asking::read("nameserver fe80::1%3").servers[0].to_string(), "[fe80::1%3]:53");
        assert_eq!(Asking::read("nameserver fe80::1%lo").servers.len(), 1);
        let many = "nameserver 10.0.0.1\n".repeat(100);
        assert_eq!(Asking::read(&many).servers.len(), SERVERS_MAX);
    }

    #[test]
    fn search_lists() {
        let asking = Asking::read("search a.example b.example.\noptions ndots:2");
        assert_eq!(asking.candidates("h"), ["h.a.example", "h.b.example", "h"]);
        assert_eq!(asking.candidates("h.x"), ["h.x.a.example", "h.x.b.example", "h.x"]);
        assert_eq!(asking.candidates("h.x.y"), ["h.x.y", "h.x.y.a.example", "h.x.y.b.example"]);
        assert_eq!(asking.candidates("h."), ["h"]);
        assert_eq!(Asking::read("search .").candidates("h.x"), ["h.x"]);
    }

    #[test]
    fn hosts_file() {
        let text = "127.0.0.1 localhost lo # x y\n10.0.0.1\tH.example h\n::1 localhost\n#10.0.0.9 h\n\
                    fd00::1 h.example\nnonsense h\n10.0.0.1 h\n";
        let shown = |name| hosts(text, name).iter().map(IpAddr::to_string).collect::<Vec<_>>();
        assert_eq!(shown("h.example"), ["10.0.0.1", "fd00::1"]);
        assert_eq!(shown("h.EXAMPLE."), ["10.0.0.1", "fd00::1"]);
        assert_eq!(shown("h"), ["10.0.0.1"]);
        assert_eq!(shown("localhost"), ["127.0.0.1", "::1"]);
        assert_eq!(shown("api.localhost"), ["127.0.0.1", "::1"]);
        assert_eq!(shown("y"), [""; 0]);
        assert_eq!(hosts("", "localhost").len(), 2);
        assert!(hosts("", "notlocalhost").is_empty());
    }
}
