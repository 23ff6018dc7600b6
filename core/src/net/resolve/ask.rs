//! A lookup, on a thread that may block: the files of the system, then its DNS servers; or the system's resolver.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::dns::{ADDRESSES_MAX, Query, Reply};
use super::system::{self, Asking};
use super::{Answer, Failure, FailureKind, Source};
use crate::driver;

/// The longest that a lookup takes, all servers and names of the search list together.
const LOOKUP_MAX: Duration = Duration::from_secs(5);
/// The shortest that a server is waited for.
const TRY_MIN: Duration = Duration::from_millis(200);
/// How often a thread that waits looks whether it is to end.
const LOOK: Duration = Duration::from_millis(100);
/// What the system's resolver and `/etc/hosts` say holds so long; neither tells.
const SYSTEM_TTL: Duration = Duration::from_secs(30);
/// How long connecting to a server may take: it cannot be ended before.
const TCP_CONNECT_MAX: Duration = Duration::from_secs(1);
/// The largest message over UDP.
const UDP_BYTES_MAX: usize = 4096;

/// Looks names up until it is told to stop.
#[derive(Debug)]
pub struct Asker {
    source: Source,
    stop: AtomicBool,
    /// Which server goes first when they take turns.
    turn: AtomicUsize,
}

impl Asker {
    pub fn new(source: Source) -> Asker {
        Asker { source, stop: AtomicBool::new(false), turn: AtomicUsize::new(0) }
    }

    /// Lookups end soon, and so do those that begin later.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Whether a lookup ends soon after [`Asker::stop`]: the system's resolver cannot be told.
    pub fn can_stop(&self) -> bool {
        self.source != Source::System
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Looks a name up, in [`LOOKUP_MAX`] unless the system's resolver takes longer.
    pub fn look_up(&self, name: &str) -> Result<Answer, Failure> {
        let mut answer = match &self.source {
            Source::System => system_lookup(name)?,
            Source::Dns(servers) => self.dns_lookup(name, servers)?,
        };
        answer.addresses.truncate(ADDRESSES_MAX);
        // What this machine has no way to goes last.
        answer.addresses.sort_by_key(|ip| !has_route(*ip));
        Ok(answer)
    }

    fn dns_lookup(&self, name: &str, servers: &[SocketAddr]) -> Result<Answer, Failure> {
        let addresses = system::hosts(&read("/etc/hosts"), name);
        if !addresses.is_empty() {
            return Ok(Answer { addresses, ttl: SYSTEM_TTL });
        }
        let mut asking = match servers {
            [] => Asking::read(&read("/etc/resolv.conf")),
            servers => Asking::of(servers.to_vec()),
        };
        if asking.rotate {
            let first = self.turn.fetch_add(1, Ordering::Relaxed) % asking.servers.len();
            asking.servers.rotate_left(first);
        }
        let deadline = Instant::now() + LOOKUP_MAX;
        let mut there = false;
        let mut trouble = None;
        for candidate in asking.candidates(name) {
            match self.ask_all(&asking, &candidate, deadline) {
                Ok(answer) if !answer.addresses.is_empty() => return Ok(answer),
                Ok(_) => there = true,
                Err(failure) if failure.kind == FailureKind::NoAddress => {}
                // As the system's resolver does: another name of the search list may have a server that works.
                Err(failure) => {
                    trouble.get_or_insert(failure);
                }
            }
        }
        Err(trouble.unwrap_or_else(|| {
            let text = if there { "it has no address" } else { "there is no such name" };
            Failure { kind: FailureKind::NoAddress, text: text.into() }
        }))
    }

    /// Asks the servers in turn for one name, until one knows.
    fn ask_all(&self, asking: &Asking, name: &str, deadline: Instant) -> Result<Answer, Failure> {
        let unanswered = |text: String| Failure { kind: FailureKind::Unanswered, text };
        let tries = asking.servers.len() * asking.attempts;
        let mut trouble = "no DNS server answers in time".to_owned();
        for n in 0..tries {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || self.stopped() {
                break;
            }
            let share = (left / (tries - n) as u32).clamp(TRY_MIN, asking.timeout).min(left);
            let server = asking.servers[n % asking.servers.len()];
            let [v6, v4] = match self.ask_server(server, name, asking.tcp, Instant::now() + share) {
                Ok(replies) => replies,
                Err(Trouble::Name) => {
                    return Err(Failure { kind: FailureKind::NoAddress, text: "there is no such name".into() });
                }
                Err(Trouble::Io(e)) => {
                    trouble = format!("the DNS server {server} cannot be asked: {e}");
                    continue;
                }
            };
            let replies = [v6, v4];
            // Servers exist that deny the whole name for the one family and have addresses of the other.
            let denied = replies.contains(&Some(Reply::NoSuchName));
            let mut answer = Answer { addresses: Vec::new(), ttl: Duration::MAX };
            let mut whole = true;
            for reply in replies {
                match reply {
                    Some(Reply::Found(addresses, ttl)) => {
                        if !addresses.is_empty() {
                            answer.ttl = answer.ttl.min(ttl);
                        }
                        answer.addresses.extend(addresses);
                    }
                    Some(Reply::NoSuchName) => {}
                    Some(Reply::Failed(text)) => {
                        whole = false;
                        trouble = format!("the DNS server {server} gives {text}");
                    }
                    _ => {
                        whole = false;
                        trouble = format!("the DNS server {server} does not answer in time");
                    }
                }
            }
            // One family is enough, if the server has no word for the other.
            if answer.addresses.is_empty() && denied {
                return Err(Failure { kind: FailureKind::NoAddress, text: "there is no such name".into() });
            }
            if whole || !answer.addresses.is_empty() {
                return Ok(answer);
            }
        }
        Err(unanswered(trouble))
    }

    /// The replies of one server for both families.
    fn ask_server(&self, server: SocketAddr, name: &str, tcp: bool, deadline: Instant) -> Result<Replies, Trouble> {
        let query = |v6| {
            let id = driver::random_u64().map_err(|e| Trouble::Io(io::Error::other(e.to_string())))? as u16;
            Query::new(id, name, v6).ok_or(Trouble::Name)
        };
        let queries = [query(true)?, query(false)?];
        let mut replies = if tcp {
            [Some(Reply::Truncated), Some(Reply::Truncated)]
        } else {
            self.ask_udp(server, &queries, deadline)?
        };
        for (query, reply) in queries.iter().zip(&mut replies) {
            if *reply == Some(Reply::Truncated) {
                *reply = self.ask_tcp(server, query, deadline)?;
            }
        }
        Ok(replies)
    }

    fn ask_udp(&self, server: SocketAddr, queries: &[Query; 2], deadline: Instant) -> io::Result<Replies> {
        // A port of its own each time, chosen by the system, and connected, so that nobody else's datagrams come in: with
        // the id that is what a forger would have to guess.
        let socket = UdpSocket::bind(any(server.ip()))?;
        socket.connect(server)?;
        for query in queries {
            socket.send(&query.message())?;
        }
        let mut replies = [None, None];
        let mut buf = [0; UDP_BYTES_MAX];
        while replies.contains(&None) {
            let Some(n) = self.wait(deadline, |slice| {
                socket.set_read_timeout(Some(slice))?;
                socket.recv(&mut buf)
            })?
            else {
                break;
            };
            for (query, reply) in queries.iter().zip(&mut replies) {
                match query.read(&buf[..n]) {
                    Reply::NotOurs => {}
                    read => *reply = Some(read),
                }
            }
        }
        Ok(replies)
    }

    fn ask_tcp(&self, server: SocketAddr, query: &Query, deadline: Instant) -> io::Result<Option<Reply>> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        let mut stream = TcpStream::connect_timeout(&server, left.min(TCP_CONNECT_MAX))?;
        let message = query.message();
        let mut framed = (message.len() as u16).to_be_bytes().to_vec();
        framed.extend(message);
        stream.set_write_timeout(Some(left))?;
        stream.write_all(&framed)?;
        let mut got = Vec::new();
        let mut buf = [0; UDP_BYTES_MAX];
        loop {
            let whole = got.first_chunk::<2>().map(|length| 2 + usize::from(u16::from_be_bytes(*length)));
            if let Some(whole) = whole.filter(|whole| got.len() >= *whole) {
                let reply = query.read(&got[2..whole]);
                return Ok(Some(match reply {
                    Reply::NotOurs | Reply::Truncated => Reply::Failed("a wrong answer over TCP".into()),
                    reply => reply,
                }));
            }
            let read = self.wait(deadline, |slice| {
                stream.set_read_timeout(Some(slice))?;
                stream.read(&mut buf)
            })?;
            match read {
                None => return Ok(None),
                Some(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Some(n) => got.extend_from_slice(&buf[..n]),
            }
        }
    }

    /// Waits for bytes a slice of time at a time; `None` if none came by the deadline, or it is time to end.
    fn wait(
        &self,
        deadline: Instant,
        mut read: impl FnMut(Duration) -> io::Result<usize>,
    ) -> io::Result<Option<usize>> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || self.stopped() {
                return Ok(None);
            }
            match read(left.min(LOOK)) {
                Ok(n) => return Ok(Some(n)),
                Err(e) => match e.kind() {
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted => {}
                    _ => return Err(e),
                },
            }
        }
    }
}

/// For IPv6 and for IPv4.
type Replies = [Option<Reply>; 2];

enum Trouble {
    /// What is asked for is no name.
    Name,
    Io(io::Error),
}

impl From<io::Error> for Trouble {
    fn from(e: io::Error) -> Trouble {
        Trouble::Io(e)
    }
}

fn read(path: &str) -> String {
    std::fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

fn any(ip: IpAddr) -> SocketAddr {
    match ip {
        IpAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        IpAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    }
}

/// Whether this machine has a way to an address. Nothing is sent.
fn has_route(ip: IpAddr) -> bool {
    UdpSocket::bind(any(ip)).and_then(|socket| socket.connect((ip, system::DNS_PORT))).is_ok()
}

fn system_lookup(name: &str) -> Result<Answer, Failure> {
    let found = (name, 0).to_socket_addrs().map_err(|e| Failure {
        // Whether the name is not there, or nobody could be asked, the standard library does not tell; as a word that
        // is final it would drop old answers in an outage.
        kind: FailureKind::Unanswered,
        text: e.to_string(),
    })?;
    let mut addresses: Vec<IpAddr> = Vec::new();
    for ip in found.map(|a| a.ip()) {
        if !addresses.contains(&ip) {
            addresses.push(ip);
        }
    }
    if addresses.is_empty() {
        return Err(Failure { kind: FailureKind::NoAddress, text: "it has no address".into() });
    }
    Ok(Answer { addresses, ttl: SYSTEM_TTL })
}
