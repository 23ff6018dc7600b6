//! Making a connection to an endpoint: from its name to a stream that a request can be written to.
//!
//! All of it is within one deadline: the lookup, the addresses in turn, the tunnel of a proxy, TLS. Every address is judged
//! right before it is connected to, and nothing is connected to but what was judged.

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::io::{AsyncReadExt, AsyncWriteExt};
use futures_rustls::TlsConnector;
use rustls::HandshakeKind;
use rustls::pki_types::ServerName;
use url::Host;

use crate::connect::trace::Trace;
use crate::driver::{self, SocketOptions};
use crate::net::address::AddressPolicy;
use crate::net::proxy::{Proxy, tunnel_is_open};
use crate::net::resolve::Resolver;
use crate::net::stream::Stream;
use crate::net::tls;
use crate::net::tls::keeper::{Built, Shared, day};

/// How long an address that failed is tried after the others.
const FAILED_KEPT: Duration = Duration::from_secs(60);
/// How many failed addresses are remembered.
const FAILED_MAX: usize = 64;
/// The shortest that an address is waited for while there are others, unless the deadline is sooner.
const TRY_MIN: Duration = Duration::from_millis(250);
const READ_BYTES: usize = 1024;

/// Which way connections take.
pub(crate) enum Way {
    Direct,
    /// With what its own addresses are judged by.
    Proxy(Proxy, AddressPolicy),
    /// A Unix socket; the URL then only says what is asked for there.
    Unix(PathBuf),
}

/// How a connection is secured.
pub(crate) struct Secured {
    /// The configuration, shared by all shards.
    pub(crate) shared: Arc<Shared>,
    /// What is asked for and verified.
    pub(crate) name: ServerName<'static>,
    /// HTTP/1.1 alone is offered: the endpoint has said that it wants that.
    pub(crate) http1_only: Cell<bool>,
}

/// How a connection is to be secured, and what it takes.
type Ready<'a> = (&'a Secured, Arc<Built>);

/// Makes what new connections are secured with, if it was not made, and says whether it may be used now.
async fn present(secured: &Secured) -> Result<Arc<Built>, String> {
    let built = match secured.shared.present() {
        Some(built) => built,
        None => {
            // On a helper thread: files are read, and the first one makes it for all.
            let shared = secured.shared.clone();
            driver::blocking(move || shared.load()).await.map_err(|e| e.to_string())?
        }
    };
    built.check_time((driver::system_ns() / 1_000_000_000) as i64).map_err(|e| e.to_string())?;
    Ok(built)
}

/// Makes the connections of one destination on one shard.
pub(crate) struct Dialer {
    host: Host<String>,
    port: u16,
    way: Way,
    /// What the addresses of the endpoint are judged by.
    policy: AddressPolicy,
    tls: Option<Secured>,
    resolver: Arc<Resolver>,
    timeout: Duration,
    options: SocketOptions,
    trace: Rc<Trace>,
    failed: RefCell<Vec<(IpAddr, Instant)>>,
}

impl Dialer {
    pub(crate) fn new(
        (host, port): (Host<String>, u16),
        way: Way,
        policy: AddressPolicy,
        tls: Option<Secured>,
        resolver: Arc<Resolver>,
        timeout: Duration,
        options: SocketOptions,
    ) -> Dialer {
        Dialer {
            host,
            port,
            way,
            policy,
            tls,
            resolver,
            timeout,
            options,
            trace: Rc::default(),
            failed: RefCell::default(),
        }
    }

    /// Where the steps of making a connection are noted.
    pub(crate) fn trace(&self) -> &Rc<Trace> {
        &self.trace
    }

    /// Makes a connection.
    ///
    /// # Errors
    /// What went wrong, as a sentence.
    pub(crate) async fn dial(&self) -> Result<Stream, String> {
        let deadline = driver::now() + self.timeout;
        // First: without certificates nobody need be asked.
        let tls = match &self.tls {
            Some(secured) => match driver::until(deadline, present(secured)).await {
                Some(built) => Some((secured, built?)),
                None => return Err(format!("the certificates could not be read within {:?}", self.timeout)),
            },
            None => None,
        };
        let tls = tls.as_ref();
        match &self.way {
            Way::Direct => self.reach(&self.host, self.port, &self.policy, tls, deadline).await,
            Way::Proxy(proxy, policy) => {
                // A name is the proxy's to look up, and to judge.
                if let Some(ip) = literal(&self.host) {
                    let judged = self.policy.judge(SocketAddr::new(ip, self.port));
                    judged.map_err(|refusal| refusal.error().to_string())?;
                }
                let reached = self.reach(proxy.host(), proxy.port(), policy, tls, deadline).await;
                reached.map_err(|e| format!("by the proxy: {e}"))
            }
            Way::Unix(path) => {
                let connected = driver::until(deadline, driver::Stream::connect_unix(path, &self.options)).await;
                let failed = |why: String| format!("cannot connect to the Unix socket {}: {why}", path.display());
                let socket = connected.ok_or_else(|| failed(format!("not within {:?}", self.timeout)))?;
                self.prepare(socket.map_err(|e| failed(e.to_string()))?, tls, deadline).await
            }
        }
    }

    /// How connections are secured, if they are.
    pub(crate) fn secured(&self) -> Option<&Secured> {
        self.tls.as_ref()
    }

    /// The text of an error of a connection that was made.
    pub(crate) fn explain(&self, e: &std::io::Error) -> String {
        match (&self.tls, e.kind()) {
            (_, std::io::ErrorKind::TimedOut) => "the connection broke: the endpoint's machine is silent".to_owned(),
            (Some(_), _) => tls::explain(&self.host.to_string(), e).to_string(),
            (None, _) => format!("the connection broke: {e}"),
        }
    }

    async fn reach(
        &self,
        host: &Host<String>,
        port: u16,
        policy: &AddressPolicy,
        tls: Option<&Ready<'_>>,
        deadline: Instant,
    ) -> Result<Stream, String> {
        let (name, addresses) = match host {
            Host::Ipv4(_) | Host::Ipv6(_) => (None, literal(host).into_iter().collect()),
            Host::Domain(name) => match driver::until(deadline, self.resolver.resolve(name)).await {
                Some(answer) => (Some(name), answer.map_err(|e| e.to_string())?.addresses.clone()),
                None => return Err(format!("the name {name} could not be looked up in time")),
            },
        };
        if let Some(name) = name {
            self.trace.note(|| {
                let list: Vec<String> = addresses.iter().map(ToString::to_string).collect();
                format!("the name {name} is {}", list.join(", "))
            });
        }
        let granted = policy.granted(&addresses, port).map_err(|refusal| {
            let error = refusal.error();
            name.map_or_else(|| error.to_string(), |name| format!("{name}: {error}"))
        })?;
        let addresses = in_order(granted, &self.failed(driver::now()));
        let late = || format!("no connection to {host}:{port} within {:?}", self.timeout);
        let mut last = None;
        for (n, address) in addresses.iter().enumerate() {
            let now = driver::now();
            let left = deadline.saturating_duration_since(now);
            if left.is_zero() {
                break;
            }
            let share = (left / (addresses.len() - n) as u32).max(TRY_MIN).min(left);
            match driver::until(now + share, driver::Stream::connect(*address, &self.options)).await {
                Some(Ok(socket)) => {
                    self.trace.note(|| format!("connected to {address}"));
                    let stream = self.prepare(socket, tls, deadline).await;
                    // Also one whose TLS is broken: another may do better.
                    self.note(address.ip(), stream.is_ok());
                    return stream;
                }
                Some(Err(e)) => last = Some(format!("cannot connect to {address}: {e}")),
                None => last = Some(format!("{address} does not answer")),
            }
            self.note(address.ip(), false);
        }
        if let Some(name) = name {
            self.resolver.doubt(name);
        }
        if driver::now() >= deadline {
            return Err(late());
        }
        Err(last.unwrap_or_else(late))
    }

    /// The tunnel, if there is one to make, and TLS.
    async fn prepare(
        &self,
        mut socket: driver::Stream,
        tls: Option<&Ready<'_>>,
        deadline: Instant,
    ) -> Result<Stream, String> {
        let Some(tls) = tls else { return Ok(Stream::Plain(socket)) };
        let late = |what: &str| format!("{what} {}:{} within {:?}", self.host, self.port, self.timeout);
        if let Way::Proxy(proxy, _) = &self.way {
            match driver::until(deadline, self.tunnel(proxy, &mut socket)).await {
                Some(made) => made?,
                None => return Err(late("no tunnel to")),
            }
        }
        match driver::until(deadline, self.secure(tls, socket)).await {
            Some(stream) => stream,
            None => Err(late("no TLS with")),
        }
    }

    async fn secure(&self, (secured, built): &Ready<'_>, socket: driver::Stream) -> Result<Stream, String> {
        let config = if secured.http1_only.get() { &built.http1 } else { &built.config };
        let connecting = TlsConnector::from(config.clone()).connect(secured.name.clone(), socket);
        let stream = connecting.await.map_err(|e| self.explain(&e))?;
        let (_, agreed) = stream.get_ref();
        let resumed = agreed.handshake_kind() == Some(HandshakeKind::Resumed);
        let name = secured.name.to_str();
        if let Some([certificate, ..]) = agreed.peer_certificates().filter(|_| !resumed) {
            secured.shared.note_server(&name, certificate);
        }
        self.trace.note(|| {
            let version = agreed.protocol_version().and_then(|v| v.as_str()).unwrap_or_default();
            let how = if resumed { ", resumed" } else { "" };
            let ends = secured.shared.server_ends(&name).map(|ends| format!("; the certificate expires {}", day(ends)));
            format!("TLS is agreed on {version}{how}{}", ends.unwrap_or_default())
        });
        Ok(Stream::Tls(Box::new(stream)))
    }

    async fn tunnel(&self, proxy: &Proxy, socket: &mut driver::Stream) -> Result<(), String> {
        let broke = |e: std::io::Error| format!("the connection broke: {e}");
        socket.write_all(&proxy.connect_head(&self.host, self.port)).await.map_err(broke)?;
        let mut answer = Vec::new();
        let mut buf = [0; READ_BYTES];
        loop {
            match socket.read(&mut buf).await.map_err(broke)? {
                0 => return Err("it closed the connection when it was asked for a tunnel".into()),
                n => answer.extend_from_slice(&buf[..n]),
            }
            if tunnel_is_open(&answer)? {
                return Ok(());
            }
        }
    }

    fn failed(&self, now: Instant) -> Vec<IpAddr> {
        let mut failed = self.failed.borrow_mut();
        failed.retain(|(_, at)| now.saturating_duration_since(*at) < FAILED_KEPT);
        failed.iter().map(|(ip, _)| *ip).collect()
    }

    fn note(&self, ip: IpAddr, works: bool) {
        let mut failed = self.failed.borrow_mut();
        failed.retain(|(other, _)| *other != ip);
        if !works {
            if failed.len() == FAILED_MAX {
                failed.remove(0);
            }
            failed.push((ip, driver::now()));
        }
    }
}

fn literal(host: &Host<String>) -> Option<IpAddr> {
    match host {
        Host::Domain(_) => None,
        Host::Ipv4(ip) => Some(IpAddr::V4(*ip)),
        Host::Ipv6(ip) => Some(IpAddr::V6(*ip)),
    }
}

/// The order in which addresses are tried: the families in turn, beginning with that of the first, so that a network that
/// carries only one of them costs one try; and those that failed lately after the others, the latest last.
fn in_order(addresses: Vec<SocketAddr>, failed: &[IpAddr]) -> Vec<SocketAddr> {
    let first_is_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (same, other): (Vec<_>, Vec<_>) = addresses.into_iter().partition(|a| a.is_ipv6() == first_is_v6);
    let (mut same, mut other) = (same.into_iter(), other.into_iter());
    let mut out = Vec::new();
    loop {
        let before = out.len();
        out.extend(same.next());
        out.extend(other.next());
        if out.len() == before {
            break;
        }
    }
    out.sort_by_key(|a| failed.iter().position(|ip| *ip == a.ip()).map_or(0, |n| n + 1));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_take_turns_and_what_failed_goes_last() {
        let order = |list: &[&str], failed: &[&str]| {
            let addresses = list.iter().map(|t| SocketAddr::new(t.parse().unwrap(), 80)).collect();
            let failed: Vec<IpAddr> = failed.iter().map(|t| t.parse().unwrap()).collect();
            in_order(addresses, &failed).iter().map(|a| a.ip().to_string()).collect::<Vec<_>>()
        };
        assert_eq!(order(&["::1", "::2", "::3", "10.0.0.1"], &[]), ["::1", "10.0.0.1", "::2", "::3"]);
        assert_eq!(order(&["10.0.0.1", "10.0.0.2", "::1"], &[]), ["10.0.0.1", "::1", "10.0.0.2"]);
        assert_eq!(order(&["::1", "::2", "10.0.0.1"], &["::1", "10.9.9.9"]), ["10.0.0.1", "::2", "::1"]);
        assert_eq!(order(&["::1", "::2", "10.0.0.1"], &["::2", "::1"]), ["10.0.0.1", "::2", "::1"]);
        assert_eq!(order(&["::1"], &["::1"]), ["::1"]);
        assert_eq!(order(&[], &["::1"]), [""; 0]);
    }
}
