//! A DNS server for tests: it answers as told, also wrongly, and counts what it is asked.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use domain::base::iana::{Class, Rcode, Rtype};
use domain::base::message_builder::AnswerBuilder;
use domain::base::{Message, MessageBuilder, Name, Ttl};
use domain::rdata::{A, Aaaa, Cname};

const LOOK: Duration = Duration::from_millis(20);
const TRIES: usize = 50;

/// What the server says of a name.
#[derive(Clone, Debug)]
pub enum DnsAnswer {
    /// These addresses, for so many seconds.
    Addresses(Vec<IpAddr>, u32),
    /// That the name is there and has no address.
    NoAddress,
    /// That there is no such name.
    NoSuchName,
    /// That it failed.
    Failure,
    /// Nothing.
    Silence,
    /// These addresses at the end of so many aliases.
    Aliases(usize, Vec<IpAddr>),
    /// Two aliases that lead to each other.
    AliasLoop,
    /// Over UDP that the answer does not fit, over TCP these addresses.
    Truncated(Vec<IpAddr>),
    /// These addresses, as those of another name that was not asked for.
    OtherName(Vec<IpAddr>),
    /// These addresses, in an answer to another question.
    WrongId(Vec<IpAddr>),
    /// The first ones in forged answers (another id, another name), and then the second ones in a true one.
    Forged(Vec<IpAddr>, Vec<IpAddr>),
    /// IPv4 addresses only; to questions for IPv6 nothing.
    SilentAboutV6(Vec<IpAddr>),
    /// IPv4 addresses only; to questions for IPv6 that there is no such name.
    DeniesV6(Vec<IpAddr>),
    /// One after the other, for each question of a family the next; the last one stays.
    InTurn(Vec<DnsAnswer>),
}

#[derive(Default)]
struct Zone {
    answers: HashMap<String, DnsAnswer>,
    /// By name and kind.
    asked: HashMap<(String, Rtype), u64>,
    over_tcp: u64,
}

struct Shared {
    zone: Mutex<Zone>,
    stop: AtomicBool,
}

impl Shared {
    fn zone(&self) -> MutexGuard<'_, Zone> {
        self.zone.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }
}

/// The server, over UDP and TCP, until it is dropped.
pub struct DnsServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl DnsServer {
    /// Starts one at a free port of 127.0.0.1. It knows no name.
    ///
    /// # Errors
    /// If there is no port.
    pub fn start() -> io::Result<DnsServer> {
        let (udp, tcp) = sockets()?;
        let address = udp.local_addr()?;
        udp.set_read_timeout(Some(LOOK))?;
        tcp.set_nonblocking(true)?;
        let shared = Arc::new(Shared { zone: Mutex::default(), stop: AtomicBool::new(false) });
        let (of_udp, of_tcp) = (shared.clone(), shared.clone());
        let threads = vec![
            std::thread::spawn(move || serve_udp(&udp, &of_udp)),
            std::thread::spawn(move || serve_tcp(&tcp, &of_tcp)),
        ];
        Ok(DnsServer { address, shared, threads })
    }

    /// Where it is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Says what to answer for a name from now on.
    pub fn set(&self, name: &str, answer: DnsAnswer) {
        self.shared.zone().answers.insert(name.to_ascii_lowercase(), answer);
    }

    /// How many questions came for a name, of both families together.
    pub fn questions(&self, name: &str) -> u64 {
        let name = name.to_ascii_lowercase();
        self.shared.zone().asked.iter().filter(|((n, _), _)| *n == name).map(|(_, count)| count).sum()
    }

    /// How many questions came over TCP.
    pub fn over_tcp(&self) -> u64 {
        self.shared.zone().over_tcp
    }
}

impl Drop for DnsServer {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Both at one port.
fn sockets() -> io::Result<(UdpSocket, TcpListener)> {
    let mut last = io::Error::from(io::ErrorKind::AddrInUse);
    for _ in 0..TRIES {
        let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        match TcpListener::bind(udp.local_addr()?) {
            Ok(tcp) => return Ok((udp, tcp)),
            Err(e) => last = e,
        }
    }
    Err(last)
}

fn serve_udp(socket: &UdpSocket, shared: &Shared) {
    let mut buf = [0; 4096];
    while !shared.stopped() {
        let Ok((n, from)) = socket.recv_from(&mut buf) else { continue };
        for message in answer(&buf[..n], shared, false) {
            let _ = socket.send_to(&message, from);
        }
    }
}

fn serve_tcp(listener: &TcpListener, shared: &Shared) {
    while !shared.stopped() {
        match listener.accept() {
            Ok((stream, _)) => {
                let _ = serve_one(stream, shared);
            }
            Err(_) => std::thread::sleep(LOOK),
        }
    }
}

fn serve_one(mut stream: TcpStream, shared: &Shared) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut question = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut question)?;
    for message in answer(&question, shared, true) {
        stream.write_all(&(message.len() as u16).to_be_bytes())?;
        // In two pieces, as it may come.
        let (first, rest) = message.split_at(message.len() / 2);
        stream.write_all(first)?;
        stream.flush()?;
        std::thread::sleep(Duration::from_millis(1));
        stream.write_all(rest)?;
    }
    Ok(())
}

type OwnName = Name<Vec<u8>>;

/// The messages that answer a question.
fn answer(bytes: &[u8], shared: &Shared, tcp: bool) -> Vec<Vec<u8>> {
    let Ok(message) = Message::from_octets(bytes) else { return Vec::new() };
    let Ok(question) = message.sole_question() else { return Vec::new() };
    let name = question.qname().to_string().to_ascii_lowercase();
    let kind = question.qtype();
    let how = {
        let mut zone = shared.zone();
        zone.over_tcp += u64::from(tcp);
        let count = zone.asked.entry((name.clone(), kind)).or_default();
        let nth = *count;
        *count += 1;
        match zone.answers.get(&name) {
            Some(DnsAnswer::InTurn(list)) => list.get(nth as usize).or(list.last()).cloned(),
            other => other.cloned(),
        }
    };
    let asked = Asked { id: message.header().id(), name, kind };
    let forged = |ips: &[IpAddr]| {
        vec![
            Asked { id: asked.id ^ 0x5555, ..asked.clone() }.found(ips, 60),
            Asked { name: "other.example".into(), ..asked.clone() }.found(ips, 60),
        ]
    };
    match how.unwrap_or(DnsAnswer::NoSuchName) {
        DnsAnswer::Addresses(ips, ttl) => vec![asked.found(&ips, ttl)],
        DnsAnswer::NoAddress => vec![asked.found(&[], 0)],
        DnsAnswer::NoSuchName => vec![asked.begin(Rcode::NXDOMAIN).finish()],
        DnsAnswer::Failure | DnsAnswer::InTurn(_) => vec![asked.begin(Rcode::SERVFAIL).finish()],
        DnsAnswer::Silence => Vec::new(),
        DnsAnswer::Aliases(n, ips) => {
            let mut b = asked.begin(Rcode::NOERROR);
            let mut at = asked.name.clone();
            for i in 0..n {
                let next = format!("alias-{i}.example");
                alias(&mut b, &at, &next);
                at = next;
            }
            asked.push(&mut b, &at, &ips, 60);
            vec![b.finish()]
        }
        DnsAnswer::AliasLoop => {
            let mut b = asked.begin(Rcode::NOERROR);
            alias(&mut b, &asked.name, "alias.example");
            alias(&mut b, "alias.example", &asked.name);
            vec![b.finish()]
        }
        DnsAnswer::Truncated(ips) if tcp => vec![asked.found(&ips, 60)],
        DnsAnswer::Truncated(_) => {
            let mut b = asked.begin(Rcode::NOERROR);
            b.header_mut().set_tc(true);
            vec![b.finish()]
        }
        DnsAnswer::OtherName(ips) => {
            let mut b = asked.begin(Rcode::NOERROR);
            asked.push(&mut b, "other.example", &ips, 60);
            vec![b.finish()]
        }
        DnsAnswer::WrongId(ips) => vec![Asked { id: asked.id ^ 1, ..asked.clone() }.found(&ips, 60)],
        DnsAnswer::Forged(lies, ips) => {
            let mut all = forged(&lies);
            all.push(asked.found(&ips, 60));
            all
        }
        DnsAnswer::SilentAboutV6(_) if kind == Rtype::AAAA => Vec::new(),
        DnsAnswer::DeniesV6(_) if kind == Rtype::AAAA => vec![asked.begin(Rcode::NXDOMAIN).finish()],
        DnsAnswer::SilentAboutV6(ips) | DnsAnswer::DeniesV6(ips) => vec![asked.found(&ips, 60)],
    }
}

#[derive(Clone)]
struct Asked {
    id: u16,
    name: String,
    kind: Rtype,
}

impl Asked {
    fn begin(&self, code: Rcode) -> AnswerBuilder<Vec<u8>> {
        let mut b = MessageBuilder::new_vec();
        let header = b.header_mut();
        header.set_id(self.id);
        header.set_qr(true);
        header.set_rd(true);
        header.set_ra(true);
        header.set_rcode(code);
        let mut q = b.question();
        q.push((name(&self.name), self.kind, Class::IN)).expect("it fits");
        q.answer()
    }

    fn found(&self, ips: &[IpAddr], ttl: u32) -> Vec<u8> {
        let mut b = self.begin(Rcode::NOERROR);
        self.push(&mut b, &self.name, ips, ttl);
        b.finish()
    }

    fn push(&self, b: &mut AnswerBuilder<Vec<u8>>, owner: &str, ips: &[IpAddr], ttl: u32) {
        let ttl = Ttl::from_secs(ttl);
        for ip in ips {
            let pushed = match ip {
                IpAddr::V4(ip) if self.kind == Rtype::A => b.push((name(owner), ttl, A::new(*ip))),
                IpAddr::V6(ip) if self.kind == Rtype::AAAA => b.push((name(owner), ttl, Aaaa::new(*ip))),
                _ => Ok(()),
            };
            pushed.expect("it fits");
        }
    }
}

fn alias(b: &mut AnswerBuilder<Vec<u8>>, owner: &str, to: &str) {
    b.push((name(owner), Ttl::from_secs(60), Cname::new(name(to)))).expect("it fits");
}

fn name(text: &str) -> OwnName {
    text.parse().expect("a name")
}
