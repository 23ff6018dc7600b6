//! How endpoints are reached: names that change or are not there, addresses that are not granted, connections that die,
//! Unix sockets and proxies.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::common::*;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tidewire::config::{EngineConfig, NetworkConfig};
use tidewire::net::address::{Trust, parse_net};
use tidewire::net::proxy::{NoProxy, Proxy};
use tidewire::net::resolve::Source;
use tidewire::rule::{Backlog, BatchLimits, Destination, DestinationKind, Expect, ProxyChoice, Webhook};
use tidewire::{DestinationStats, Engine, ErrorKind};
use tidewire_receiver::{Behaviour, DnsAnswer, DnsServer, Receiver, Reply, Settings, Tls};

fn of(engine: &Engine, name: &str) -> DestinationStats {
    engine.stats().destinations.into_iter().find(|d| d.name == name).unwrap()
}

fn edit(d: &mut Destination, with: impl FnOnce(&mut Webhook)) {
    match &mut d.kind {
        DestinationKind::Webhook(w) => with(w),
        _ => unreachable!(),
    }
}

/// A hook with one event per request.
fn single(name: &str, url: &str, with: impl FnOnce(&mut Webhook)) -> Destination {
    let mut d = hook(name, url);
    d.batch = BatchLimits { events_max: 1, ..BatchLimits::default() };
    edit(&mut d, with);
    d
}

/// A hook with many attempts at once that are made again at once.
fn relentless(name: &str, url: &str, with: impl FnOnce(&mut Webhook)) -> Destination {
    let mut d = single(name, url, with);
    d.concurrency = 16;
    d.breaker.consecutive_failures = 1_000_000;
    d.breaker.calls_min = 1_000_000;
    d.retry.backoff_min = Duration::from_millis(1);
    d.retry.backoff_max = Duration::from_millis(5);
    d
}

fn network(dir: &Path, shards: usize, with: impl FnOnce(&mut NetworkConfig)) -> EngineConfig {
    let mut c = config(dir, shards);
    with(&mut c.network);
    c
}

fn names(dir: &Path, shards: usize, server: &DnsServer) -> EngineConfig {
    network(dir, shards, |n| n.resolver = Source::Dns(vec![server.address()]))
}

fn ips(list: &[&str]) -> Vec<IpAddr> {
    list.iter().map(|t| t.parse().unwrap()).collect()
}

/// Receivers at one port of several addresses of this machine.
fn receivers(addresses: &[&str]) -> (u16, Vec<Receiver>) {
    for _ in 0..50 {
        let start = |ip: &str, port| Receiver::start(SocketAddr::new(ip.parse().unwrap(), port), Behaviour::Ok204);
        let first = start(addresses[0], 0).unwrap();
        let port = first.addr().port();
        let others: Result<Vec<_>, _> = addresses[1..].iter().map(|ip| start(ip, port)).collect();
        if let Ok(others) = others {
            return (port, [first].into_iter().chain(others).collect());
        }
    }
    panic!("no port that is free at all of {addresses:?}");
}

/// Answers every request with 204. Who hears the answer may look at once, so `asked` is told before it, and `goes_on`
/// is asked after it.
fn serve(mut stream: impl Read + Write, mut asked: impl FnMut(&str), mut goes_on: impl FnMut() -> bool) {
    let mut got = Vec::new();
    let mut buf = [0; 16384];
    loop {
        let text = String::from_utf8_lossy(&got).to_string();
        if let Some((head, _)) = text.split_once("\r\n\r\n") {
            let lower = head.to_ascii_lowercase();
            let length = lower.lines().find_map(|l| l.strip_prefix("content-length: ")?.trim().parse().ok());
            let whole = head.len() + 4 + length.unwrap_or(0usize);
            if got.len() >= whole {
                got.drain(..whole);
                asked(head);
                if stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").is_err() || !goes_on() {
                    return;
                }
                continue;
            }
        }
        match stream.read(&mut buf) {
            Ok(n) if n > 0 => got.extend_from_slice(&buf[..n]),
            _ => return,
        }
    }
}

#[test]
fn an_unresolvable_host_floods_the_servers_of_names() {
    for (answer, per_lookup) in [(DnsAnswer::NoSuchName, 2), (DnsAnswer::Failure, 4)] {
        let dir = tempfile::tempdir().unwrap();
        let server = DnsServer::start().unwrap();
        server.set("nowhere.example", answer);
        let begun = Instant::now();
        // Nothing but the memory of names is to hold lookups back.
        let hooks = (0..3).map(|n| relentless(&format!("hook-{n}"), "http://nowhere.example/", |_| {}));
        let engine = Engine::open_with(names(dir.path(), 2, &server), passing(hooks.collect())).unwrap();
        (0..3000).for_each(|n| put(&engine, &format!("k{n}"), n));
        let failures = |n| of(&engine, &format!("hook-{n}")).failures;
        // Of each destination: attempts that fail at once, without asking anybody, leave room for others.
        until("thousands of attempts have failed", || (0..3).all(|n| failures(n) > 2000));
        until("it is told why", || of(&engine, "hook-0").last_error.contains("cannot look up nowhere.example"));
        let most = per_lookup * (begun.elapsed().as_secs() / 5 + 1);
        let questions = server.questions("nowhere.example");
        assert!((1..=most).contains(&questions), "{questions} questions, {most} would be fair");
        engine.close(Duration::ZERO).unwrap();
    }
}

/// Attempts that fail before anything is sent need no wait of the network; others have their turn all the same.
#[test]
fn attempts_that_fail_at_once_starve_other_destinations() {
    let dir = tempfile::tempdir().unwrap();
    let ca = dir.path().join("gone.pem");
    let without_ca =
        (0..3).map(|n| relentless(&format!("hook-{n}"), "https://127.0.0.1:1/", |w| w.tls.ca = vec![ca.clone()]));
    let r = receiver(Behaviour::Ok204);
    let hooks = without_ca.chain([hook("well", &r.url())]).collect();
    let engine = Engine::open_with(config(dir.path(), 1), passing(hooks)).unwrap();
    (0..3000).for_each(|n| put(&engine, &format!("k{n}"), n));
    let failures = |n| of(&engine, &format!("hook-{n}")).failures;
    until("thousands of attempts have failed", || (0..3).all(|n| failures(n) > 2000));
    assert!(of(&engine, "hook-0").last_error.contains("gone.pem"), "{}", of(&engine, "hook-0").last_error);
    until("what can be delivered is", || of(&engine, "well").delivered == 3000);
    engine.close(Duration::ZERO).unwrap();
}

#[test]
fn dns_change_ignored_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    let server = DnsServer::start().unwrap();
    let (port, r) = receivers(&["127.0.0.1", "127.0.0.2"]);
    server.set("moving.example", DnsAnswer::Addresses(ips(&["127.0.0.1"]), 0));
    let d = single("hook", &format!("http://moving.example:{port}/"), |w| w.pool.lifetime = Duration::from_millis(50));
    let engine = Engine::open_with(names(dir.path(), 2, &server), passing(vec![d])).unwrap();
    (0..50).for_each(|n| put(&engine, &format!("k{}", n % 5), n));
    engine.flush(WAIT).unwrap();
    assert_eq!((r[0].requests(), r[1].requests()), (50, 0));
    server.set("moving.example", DnsAnswer::Addresses(ips(&["127.0.0.2"]), 60));
    // The first one is still there, and keeps its connections.
    let mut n = 50;
    until("the second one is found", || {
        put(&engine, &format!("k{}", n % 5), n);
        n += 1;
        r[1].requests() > 0
    });
    engine.flush(WAIT).unwrap();
    // The last connections to the first one live as long as they may.
    std::thread::sleep(Duration::from_millis(100));
    let before = r[0].requests();
    (0..50).for_each(|i| put(&engine, &format!("k{}", i % 5), n + i));
    engine.flush(WAIT).unwrap();
    assert_eq!(r[0].requests(), before);
    assert_eq!(of(&engine, "hook").failures, 0);
    engine.close(WAIT).unwrap();
}

/// An endpoint that has moved and is dead where it was is not waited for until its record ends.
#[test]
fn a_dead_endpoint_is_looked_up_again_before_its_record_ends() {
    let dir = tempfile::tempdir().unwrap();
    let server = DnsServer::start().unwrap();
    let (port, mut r) = receivers(&["127.0.0.1", "127.0.0.2"]);
    server.set("moving.example", DnsAnswer::Addresses(ips(&["127.0.0.1"]), 86400));
    let d = single("hook", &format!("http://moving.example:{port}/"), |_| {});
    let engine = Engine::open_with(names(dir.path(), 1, &server), passing(vec![d])).unwrap();
    put(&engine, "a", 0);
    engine.flush(WAIT).unwrap();
    server.set("moving.example", DnsAnswer::Addresses(ips(&["127.0.0.2"]), 86400));
    r[0].stop();
    put(&engine, "a", 1);
    engine.flush(WAIT).unwrap();
    assert_eq!(r[1].requests(), 1);
    engine.close(WAIT).unwrap();
}

#[test]
fn a_dead_address_among_several_is_tried_last() {
    let dir = tempfile::tempdir().unwrap();
    let server = DnsServer::start().unwrap();
    let (port, r) = receivers(&["127.0.0.3", "127.0.0.2"]);
    server.set("several.example", DnsAnswer::Addresses(ips(&["127.0.0.1", "::1", "127.0.0.2"]), 60));
    let d = single("hook", &format!("http://several.example:{port}/"), |w| w.pool.requests_max = 1);
    let engine = Engine::open_with(names(dir.path(), 1, &server), passing(vec![d])).unwrap();
    (0..100).for_each(|n| put(&engine, "k", n));
    engine.flush(WAIT).unwrap();
    assert_eq!((r[0].requests(), r[1].requests()), (0, 100));
    assert_eq!((of(&engine, "hook").failures, of(&engine, "hook").connections), (0, 100));
    engine.close(WAIT).unwrap();
}

fn tenant(w: &mut Webhook) {
    w.trust = Some(Trust::Tenant);
    // What is public cannot be had here: one address of this machine stands for it.
    w.addresses.allow = vec![parse_net("127.0.0.1").unwrap()];
}

/// Only what was judged is connected to, whatever a name says, and however often it changes its mind.
#[test]
fn ssrf_by_a_name_that_leads_to_private_addresses() {
    let dir = tempfile::tempdir().unwrap();
    let server = DnsServer::start().unwrap();
    let (port, r) = receivers(&["127.0.0.1", "127.0.0.2"]);
    let good = || DnsAnswer::Addresses(ips(&["127.0.0.1"]), 0);
    let bad = || DnsAnswer::Addresses(ips(&["127.0.0.2", "::ffff:127.0.0.2", "::1"]), 0);
    server.set("mixed.example", DnsAnswer::Addresses(ips(&["127.0.0.2", "127.0.0.1", "::1"]), 0));
    server.set("private.example", bad());
    server.set("alias.example", DnsAnswer::Aliases(3, ips(&["127.0.0.2"])));
    server.set("rebinding.example", DnsAnswer::InTurn(vec![good(), bad()]));
    server.set("metadata.example", DnsAnswer::Addresses(ips(&["169.254.169.254", "fd00:ec2::254"]), 60));
    let mut c = names(dir.path(), 1, &server);
    c.network.tenant.https_only = false;
    let url = |name: &str| format!("http://{name}.example:{port}/");
    let mut hooks: Vec<_> = ["mixed", "private", "alias", "rebinding"].map(|n| single(n, &url(n), tenant)).into();
    // The operator, too.
    hooks.push(single("metadata", &url("metadata"), |_| {}));
    edit(&mut hooks[3], |w| w.pool.lifetime = Duration::from_millis(1));
    let engine = Engine::open_with(c, passing(hooks)).unwrap();
    put(&engine, "k", 0);
    until("the good ones have it", || ["mixed", "rebinding"].iter().all(|n| of(&engine, n).delivered == 1));
    let refused = |name: &str| until("it is refused", || of(&engine, name).last_error.contains("is refused"));
    refused("private");
    refused("alias");
    refused("metadata");
    let mut n = 1;
    until("the answer has changed", || {
        put(&engine, "k", n);
        n += 1;
        of(&engine, "rebinding").last_error.contains("is refused")
    });
    let error = of(&engine, "private").last_error;
    assert!(error.contains("127.0.0.0/8 (loopback)") && error.contains("private.example"), "{error}");
    assert!(error.contains("addresses.allow"), "{error}");
    assert!(of(&engine, "metadata").last_error.contains("metadata"), "{}", of(&engine, "metadata").last_error);
    assert_eq!(r[1].requests(), 0);
    // It is left alone like an endpoint that is down, and its events wait until the name is mended.
    until("all have come to it", || of(&engine, "private").waiting == n);
    assert!(of(&engine, "private").failures < n, "each event is tried by itself");
    server.set("private.example", good());
    until("it is found", || of(&engine, "private").delivered == n);
    assert_eq!(r[1].requests(), 0);
    engine.close(Duration::ZERO).unwrap();
}

/// What names answer, and whether an operator's and a tenant's destination gets there; `None` if nobody is there. A tenant
/// may reach 127.0.0.1, and nothing else that is private.
fn answers() -> Vec<(&'static str, DnsAnswer, Option<bool>, bool)> {
    let of = |list: &[&str]| DnsAnswer::Addresses(ips(list), 60);
    let alias = |list: &[&str]| DnsAnswer::Aliases(3, ips(list));
    let (yes, no) = (Some(true), Some(false));
    vec![
        ("granted", of(&["127.0.0.1"]), yes, true),
        ("private", of(&["127.0.0.2"]), yes, false),
        ("mixed", of(&["127.0.0.2", "127.0.0.1", "::1"]), yes, true),
        ("alias", alias(&["127.0.0.2"]), yes, false),
        ("alias-of-granted", alias(&["127.0.0.1"]), yes, true),
        ("mapped", of(&["::ffff:127.0.0.2"]), None, false),
        ("compatible", of(&["::127.0.0.2"]), None, false),
        ("loopback", of(&["::1"]), None, false),
        ("unique-local", of(&["fd12:3456::1"]), None, false),
        ("carrier", of(&["100.64.0.1"]), None, false),
        ("benchmark", of(&["198.18.0.1"]), None, false),
        ("documentation", of(&["2001:db8::1"]), None, false),
        ("translated", of(&["64:ff9b::7f00:2"]), None, false),
        ("tunnelled", of(&["2002:7f00:2::1"]), None, false),
        ("metadata", of(&["169.254.169.254"]), no, false),
        ("metadata-alias", alias(&["169.254.169.254"]), no, false),
        ("metadata-and-granted", of(&["169.254.169.254", "127.0.0.1"]), yes, true),
        ("metadata-mapped", of(&["::ffff:169.254.169.254"]), no, false),
        ("metadata-translated", of(&["64:ff9b::a9fe:a9fe"]), no, false),
        ("metadata-tunnelled", of(&["2002:a9fe:a9fe::1"]), no, false),
        ("metadata-teredo", of(&["2001:0:808:808:0:0:5601:5601"]), no, false),
        ("aws", of(&["fd00:ec2::254"]), no, false),
        ("google", of(&["fd20:ce::254"]), no, false),
        ("azure", of(&["168.63.129.16"]), no, false),
        ("alibaba", of(&["100.100.100.200"]), no, false),
        ("oracle", of(&["192.0.0.192", "fd00:c1::a9fe:a9fe"]), no, false),
        ("link-local", of(&["fe80::1"]), no, false),
        ("unspecified", of(&["0.0.0.0", "::"]), no, false),
        ("multicast", of(&["224.0.0.1", "ff02::1"]), no, false),
        ("broadcast", of(&["255.255.255.255"]), no, false),
    ]
}

/// A name is judged by what it leads to, whoever names it.
#[test]
fn ssrf_by_names_of_every_kind() {
    let server = DnsServer::start().unwrap();
    let (port, r) = receivers(&["127.0.0.1", "127.0.0.2"]);
    for (name, answer, ..) in answers() {
        server.set(&format!("{name}.example"), answer);
    }
    for trust in [Trust::Tenant, Trust::Operator] {
        let dir = tempfile::tempdir().unwrap();
        let mut c = names(dir.path(), 1, &server);
        c.network.tenant.https_only = false;
        let is_tenant = trust == Trust::Tenant;
        let expected: Vec<(&str, bool)> = answers()
            .into_iter()
            .filter_map(|(name, _, operator, tenant)| Some((name, if is_tenant { tenant } else { operator? })))
            .collect();
        let url = |name: &str| format!("http://{name}.example:{port}/");
        let with = |w: &mut Webhook| {
            if is_tenant {
                tenant(w)
            }
        };
        let hooks = expected.iter().map(|(name, _)| single(name, &url(name), with)).collect();
        let engine = Engine::open_with(c, passing(hooks)).unwrap();
        put(&engine, "k", 0);
        for (name, gets_there) in expected {
            until(name, || {
                let d = of(&engine, name);
                if gets_there { d.delivered == 1 } else { d.last_error.contains("is refused") }
            });
            assert_eq!(of(&engine, name).delivered, u64::from(gets_there), "{name} for {trust:?}");
        }
        if is_tenant {
            assert_eq!(r[1].requests(), 0);
        }
        engine.close(Duration::ZERO).unwrap();
    }
}

#[test]
fn a_redirect_to_a_private_address_is_not_followed() {
    let dir = tempfile::tempdir().unwrap();
    let (port, r) = receivers(&["127.0.0.1", "127.0.0.2"]);
    for status in [301, 302, 303, 307, 308] {
        let reply = Reply::status(status).header("Location", &format!("http://127.0.0.2:{port}/"));
        r[0].set_behaviour(Behaviour::Script(vec![reply]));
        let engine = open(dir.path(), 1, passing(vec![single("hook", &format!("http://127.0.0.1:{port}/"), |_| {})]));
        put(&engine, "k", status.into());
        engine.flush(WAIT).unwrap();
        let error = of(&engine, "hook").last_error;
        assert!(error.contains(&status.to_string()) && error.contains("not followed"), "{error}");
        engine.close(WAIT).unwrap();
    }
    assert_eq!((r[0].requests(), r[1].requests()), (10, 0));
}

#[test]
fn literals_are_refused_when_they_are_put() {
    let dir = tempfile::tempdir().unwrap();
    let refused = |c: EngineConfig, d: Destination, part: &str| {
        let engine = Engine::open_with(c.clone(), passing(vec![])).unwrap();
        let e = engine.put_destination(d.clone(), Expect::Anything, &Backlog::default()).unwrap_err();
        assert!(e.kind() == ErrorKind::InvalidConfig && e.to_string().contains(part), "{e}");
        assert!(e.place().unwrap().starts_with("destination `hook`") && e.remedy_text().is_some(), "{e}");
        engine.replace_rules(passing(vec![d.clone()])).unwrap_err();
        engine.close(WAIT).unwrap();
        Engine::open_with(c, passing(vec![d])).unwrap_err();
    };
    let plain = || config(dir.path(), 1);
    refused(plain(), hook("hook", "http://169.254.169.254/latest/"), "metadata");
    refused(plain(), hook("hook", "http://[::ffff:a9fe:a9fe]/"), "stands for 169.254.169.254");
    refused(plain(), single("hook", "https://10.1.2.3/", |w| w.trust = Some(Trust::Tenant)), "10.0.0.0/8");
    refused(plain(), single("hook", "http://h.example/", |w| w.trust = Some(Trust::Tenant)), "https");
    refused(plain(), single("hook", "https://h.example:22/", |w| w.trust = Some(Trust::Tenant)), "port 22");
    let tenants = network(dir.path(), 1, |n| n.trust = Trust::Tenant);
    refused(tenants.clone(), hook("hook", "https://127.0.0.1/"), "127.0.0.0/8");
    refused(tenants, single("hook", "https://h.example/", |w| w.unix_socket = Some("/run/x".into())), "Unix socket");
    let denied = network(dir.path(), 1, |n| n.addresses.deny = vec![parse_net("10.0.0.0/8").unwrap()]);
    refused(
        denied,
        single("hook", "http://10.0.0.1/", |w| w.addresses.allow = vec![parse_net("10.0.0.1").unwrap()]),
        "denied",
    );
}

#[test]
fn new_tcp_connection_for_each_delivery_because_the_pool_is_small() {
    let dir = tempfile::tempdir().unwrap();
    let r = receiver(Behaviour::Delay(Duration::from_millis(2)));
    let mut d = single("hook", &r.url(), |_| {});
    d.concurrency = 32;
    let engine = open(dir.path(), 1, passing(vec![d]));
    for round in 0..20 {
        (0..100).for_each(|n| put(&engine, &format!("k{n}"), round * 100 + n));
        engine.flush(WAIT).unwrap();
    }
    let made = of(&engine, "hook").connections;
    assert_eq!(r.requests(), 2000);
    assert!(made <= 32, "{made} connections for 32 requests at once");
    engine.close(WAIT).unwrap();
}

#[test]
fn pooled_idle_connection_closed_by_the_peer_at_the_same_moment() {
    let dir = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let accepted = Arc::new(AtomicU64::new(0));
    let count = accepted.clone();
    // Ends with the test's process. It hangs up after each answer, and does not say so.
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            count.fetch_add(1, Ordering::SeqCst);
            let hangs_up = || {
                std::thread::sleep(Duration::from_millis(1));
                false
            };
            serve(stream.unwrap(), |_| (), hangs_up);
        }
    });
    let mut d = single("hook", &url, |_| {});
    d.concurrency = 1;
    let engine = open(dir.path(), 1, passing(vec![d]));
    for n in 0..200 {
        put(&engine, "k", n);
        // From well before it hangs up to well after.
        std::thread::sleep(Duration::from_micros(n * 15));
    }
    engine.flush(WAIT).unwrap();
    let d = of(&engine, "hook");
    assert_eq!((d.delivered, d.failures), (200, 0), "{}", d.last_error);
    assert!(accepted.load(Ordering::SeqCst) >= 200);
    engine.close(WAIT).unwrap();
}

#[test]
fn dead_peer_without_a_reset_hangs_the_lane() {
    let dir = tempfile::tempdir().unwrap();
    // As a process that is stopped: the kernel takes connections and bytes, and nobody answers.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let stopped = Arc::new(Mutex::new(()));
    let guard = stopped.lock().unwrap();
    let wait = stopped.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let wait = wait.clone();
            std::thread::spawn(move || {
                drop(wait.lock());
                serve(stream.unwrap(), |_| (), || true);
            });
        }
    });
    // One is given up by the limit of the whole attempt, the other by the silence, which has no part in that.
    let deadline = single("deadline", &url, |w| {
        w.timeout = Duration::from_millis(300);
        w.connect_timeout = Duration::from_millis(200);
    });
    let mut silence = hook("silence", &url);
    edit(&mut silence, |w| {
        w.timeout = Duration::from_secs(3600);
        w.pool.user_timeout = Duration::from_millis(500);
    });
    // More than the buffers of both ends take.
    silence.batch = BatchLimits { events_max: 10_000, bytes_max: 32 << 20, linger: Duration::from_millis(200) };
    let engine = open(dir.path(), 1, passing(vec![deadline, silence]));
    (0..5000).for_each(|n| put_large(&engine, &format!("k{n}"), n));
    until("both are given up", || ["deadline", "silence"].iter().all(|n| of(&engine, n).failures > 0));
    let errors = ["deadline", "silence"].map(|n| of(&engine, n).last_error);
    assert!(errors[0].contains("no complete answer within 300ms"), "{}", errors[0]);
    assert!(errors[1].contains("is silent"), "{}", errors[1]);
    drop(guard);
    until("it goes on", || of(&engine, "silence").delivered == 5000);
    engine.close(Duration::ZERO).unwrap();
}

#[test]
fn a_host_that_swallows_connections_is_given_up() {
    let dir = tempfile::tempdir().unwrap();
    // With its queue full, a listener takes no more: attempts to connect are not answered at all.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    socket.listen(0).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    let fill: Vec<_> = (0..4).map(|_| TcpStream::connect_timeout(&address, Duration::from_millis(100))).collect();
    assert!(fill.iter().any(Result::is_err), "the queue is not full");
    let d = single("hook", &format!("http://{address}/"), |w| w.connect_timeout = Duration::from_millis(100));
    let engine = open(dir.path(), 1, passing(vec![d]));
    put(&engine, "k", 0);
    until("it is given up", || of(&engine, "hook").failures > 2);
    let error = of(&engine, "hook").last_error;
    assert!(error.contains("within 100ms"), "{error}");
    engine.close(Duration::ZERO).unwrap();
}

#[test]
fn unix_sockets() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("receiver.sock");
    let d = single("hook", "http://h.example:8080/path", |w| w.unix_socket = Some(path.clone()));
    let engine = open(&dir.path().join("data"), 1, passing(vec![d]));
    put(&engine, "k", 0);
    until("it is missed", || of(&engine, "hook").failures > 0);
    let error = of(&engine, "hook").last_error;
    assert!(error.contains("receiver.sock") && error.contains("No such file"), "{error}");
    let listener = UnixListener::bind(&path).unwrap();
    let heads = Arc::new(Mutex::new(Vec::new()));
    let seen = heads.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let seen = seen.clone();
            std::thread::spawn(move || {
                serve(stream.unwrap(), |head| seen.lock().unwrap().push(head.to_owned()), || true);
            });
        }
    });
    (1..100).for_each(|n| put(&engine, "k", n));
    engine.flush(WAIT).unwrap();
    assert_eq!(heads.lock().unwrap().len(), 100);
    let head = heads.lock().unwrap()[0].clone();
    assert!(head.starts_with("POST /path HTTP/1.1\r\nHost: h.example:8080\r\n"), "{head}");
    assert_eq!(of(&engine, "hook").connections, 1);
    engine.close(WAIT).unwrap();
}

/// A forward proxy: tunnels, and requests with a whole URL, which it answers itself. What it was asked for is kept.
struct ForwardProxy {
    address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
}

impl ForwardProxy {
    fn start(credentials: Option<&'static str>) -> ForwardProxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let heads: Arc<Mutex<Vec<String>>> = Arc::default();
        let proxy = ForwardProxy { address: listener.local_addr().unwrap(), heads: heads.clone() };
        // Ends with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let heads = heads.clone();
                std::thread::spawn(move || Self::serve(stream.unwrap(), &heads, credentials));
            }
        });
        proxy
    }

    fn serve(mut stream: TcpStream, heads: &Mutex<Vec<String>>, credentials: Option<&str>) {
        let mut start = [0; 8];
        if !matches!(stream.peek(&mut start), Ok(8)) {
            return;
        }
        if !start.starts_with(b"CONNECT ") {
            return serve(stream, |head| heads.lock().unwrap().push(head.to_owned()), || true);
        }
        let mut head = Vec::new();
        let mut byte = [0; 1];
        while !head.ends_with(b"\r\n\r\n") {
            if stream.read(&mut byte).unwrap_or(0) == 0 {
                return;
            }
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap();
        heads.lock().unwrap().push(head.clone());
        if credentials.is_some_and(|c| !head.contains(c)) {
            let _ = stream.write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n");
            return;
        }
        // Whatever the name is, it is at this machine.
        let port = head.split([' ', '\r']).nth(1).and_then(|a| a.rsplit_once(':')).unwrap().1.parse::<u16>().unwrap();
        let Ok(mut far) = TcpStream::connect(("127.0.0.1", port)) else {
            let _ = stream.write_all(b"HTTP/1.1 502 Bad Gateway\r\n\r\n");
            return;
        };
        let _ = stream.write_all(b"HTTP/1.1 200 Connection established\r\nVia: 1.1 test\r\n\r\n");
        let (mut back_to, mut back_from) = (stream.try_clone().unwrap(), far.try_clone().unwrap());
        std::thread::spawn(move || {
            let _ = std::io::copy(&mut back_from, &mut back_to);
            let _ = back_to.shutdown(std::net::Shutdown::Both);
        });
        let _ = std::io::copy(&mut stream, &mut far);
        let _ = far.shutdown(std::net::Shutdown::Both);
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

/// A receiver with a certificate for `h.example`, and the file of its authority.
fn tls_receiver(dir: &Path) -> (Receiver, std::path::PathBuf) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec!["h.example".to_owned()]).unwrap().signed_by(&key, &ca).unwrap();
    let tls = Tls { certificates: leaf.pem(), key: key.serialize_pem(), client_ca: None };
    let receiver = Receiver::with(Settings { tls: Some(tls), ..Settings::default() }).unwrap();
    let path = dir.join("ca.pem");
    std::fs::write(&path, ca.pem()).unwrap();
    (receiver, path)
}

#[test]
fn tunnels_through_a_proxy() {
    let dir = tempfile::tempdir().unwrap();
    let (r, ca) = tls_receiver(dir.path());
    let proxy = ForwardProxy::start(Some("Basic dXNlcjpzZXNhbWU="));
    // A name that only the proxy can look up.
    let server = DnsServer::start().unwrap();
    let url = format!("https://h.example:{}/path", r.addr().port());
    let through = |password: Option<&str>| {
        let plain = Proxy::new(&proxy.url()).unwrap();
        let made = password.map_or(Ok(plain.clone()), |p| plain.with_credentials("user", p)).unwrap();
        single("hook", &url, |w| {
            w.proxy = ProxyChoice::Through(made);
            w.tls.ca = vec![ca.clone()];
        })
    };
    let open = |d| Engine::open_with(names(&dir.path().join("data"), 1, &server), passing(vec![d])).unwrap();
    for password in [None, Some("open")] {
        let engine = open(through(password));
        put(&engine, "k", 0);
        until("it is refused", || of(&engine, "hook").last_error.contains("proxy.password"));
        assert!(!of(&engine, "hook").last_error.contains("open"), "{}", of(&engine, "hook").last_error);
        engine.close(Duration::ZERO).unwrap();
    }
    assert_eq!(r.requests(), 0);
    let engine = open(through(Some("sesame")));
    (1..50).for_each(|n| put(&engine, "k", n));
    engine.flush(WAIT).unwrap();
    assert_eq!(of(&engine, "hook").connections, 1);
    engine.close(WAIT).unwrap();
    assert!(r.requests() >= 50);
    let port = r.addr().port();
    let head = proxy.heads().pop().unwrap();
    assert!(head.starts_with(&format!("CONNECT h.example:{port} HTTP/1.1\r\nHost: h.example:{port}\r\n")), "{head}");
    assert_eq!(server.questions("h.example"), 0);
}

/// The certificate must be of the URL's host, whatever was connected to to get there.
#[test]
fn tls_server_name_is_not_the_one_that_is_verified() {
    let dir = tempfile::tempdir().unwrap();
    let (r, ca) = tls_receiver(dir.path());
    let (proxy, server) = (ForwardProxy::start(None), DnsServer::start().unwrap());
    let port = r.addr().port();
    server.set("h.example", DnsAnswer::Addresses(ips(&["127.0.0.1"]), 60));
    server.set("other.example", DnsAnswer::Aliases(1, ips(&["127.0.0.1"])));
    let https = |name: &str, host: &str, through: bool| {
        single(name, &format!("https://{host}:{port}/"), |w| {
            w.tls.ca = vec![ca.clone()];
            if through {
                w.proxy = ProxyChoice::Through(Proxy::new(&proxy.url()).unwrap());
            }
        })
    };
    let hooks = vec![
        https("good", "h.example", false),
        https("good-through", "h.example", true),
        https("bad", "other.example", false),
        https("bad-through", "other.example", true),
    ];
    let engine = Engine::open_with(names(&dir.path().join("data"), 1, &server), passing(hooks)).unwrap();
    put(&engine, "k", 0);
    until("the good ones have it", || ["good", "good-through"].iter().all(|n| of(&engine, n).delivered == 1));
    for name in ["bad", "bad-through"] {
        until("it is refused", || of(&engine, name).last_error.contains("other.example"));
        assert!(of(&engine, name).last_error.contains("certificate"), "{}", of(&engine, name).last_error);
    }
    assert_eq!(r.requests(), 2);
    engine.close(Duration::ZERO).unwrap();
}

#[test]
fn plain_requests_through_the_proxy_of_the_engine() {
    let dir = tempfile::tempdir().unwrap();
    let proxy = ForwardProxy::start(None);
    let r = receiver(Behaviour::Ok204);
    let c = network(dir.path(), 1, |n| {
        n.proxy = Some(Proxy::new(&proxy.url()).unwrap().with_credentials("user", "sesame").unwrap());
        n.no_proxy = vec![NoProxy::parse("127.0.0.0/8").unwrap()];
    });
    let direct = single("direct", &r.url(), |w| w.proxy = ProxyChoice::Direct);
    let without = single("without", &r.url(), |_| {});
    let engine = Engine::open_with(c, passing(vec![hook("far", "http://far.example/a?b=c"), direct, without])).unwrap();
    put(&engine, "k", 0);
    engine.flush(WAIT).unwrap();
    assert_eq!(r.requests(), 2);
    let heads = proxy.heads();
    assert_eq!(heads.len(), 1);
    assert!(heads[0].starts_with("POST http://far.example/a?b=c HTTP/1.1\r\nHost: far.example\r\n"), "{}", heads[0]);
    assert!(heads[0].contains("Proxy-Authorization: Basic dXNlcjpzZXNhbWU=\r\n"), "{}", heads[0]);
    engine.close(WAIT).unwrap();
}

/// What was kept under other settings is judged when it is connected to.
#[test]
fn a_literal_behind_a_proxy_is_judged_at_each_connection() {
    let dir = tempfile::tempdir().unwrap();
    let proxy = ForwardProxy::start(None);
    let mut c = network(dir.path(), 1, |n| n.proxy = Some(Proxy::new(&proxy.url()).unwrap()));
    let engine = Engine::open_with(c.clone(), passing(vec![])).unwrap();
    let d = hook("hook", "http://10.0.0.1/");
    engine.put_destination(d, Expect::Anything, &Backlog::default()).unwrap();
    engine.put_rule(everything("to-hook").with_destination("hook"), Expect::Anything).unwrap();
    put(&engine, "k", 0);
    engine.flush(WAIT).unwrap();
    assert_eq!(proxy.heads().len(), 1);
    engine.close(WAIT).unwrap();
    drop(engine);
    c.network.addresses.deny = vec![parse_net("10.0.0.0/8").unwrap()];
    let engine = Engine::open_with(c, passing(vec![])).unwrap();
    put(&engine, "k", 1);
    until("it is refused", || of(&engine, "hook").last_error.contains("is denied"));
    assert_eq!((of(&engine, "hook").waiting, proxy.heads().len()), (1, 1));
    engine.close(Duration::ZERO).unwrap();
}

#[test]
fn a_proxy_that_is_not_there_or_says_no_is_told_of() {
    let dir = tempfile::tempdir().unwrap();
    let (_r, ca) = tls_receiver(dir.path());
    let proxy = ForwardProxy::start(None);
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let https = |name: &str, url: String| {
        single(name, "https://h.example:1/", |w| {
            w.proxy = ProxyChoice::Through(Proxy::new(&url).unwrap());
            w.tls.ca = vec![ca.clone()];
        })
    };
    let hooks = vec![https("gone", format!("http://{gone}")), https("refusing", proxy.url())];
    let engine = open(&dir.path().join("data"), 1, passing(hooks));
    put(&engine, "k", 0);
    until("both have failed", || ["gone", "refusing"].iter().all(|n| of(&engine, n).failures > 0));
    let error = of(&engine, "gone").last_error;
    assert!(error.contains("by the proxy") && error.contains("refused"), "{error}");
    let error = of(&engine, "refusing").last_error;
    assert!(error.contains("502") && error.contains("tunnel"), "{error}");
    engine.close(Duration::ZERO).unwrap();
    // The proxy's own address is the operator's, and still no metadata service.
    let mut d = hook("hook", "http://h.example/");
    edit(&mut d, |w| w.proxy = ProxyChoice::Through(Proxy::new("http://169.254.169.254").unwrap()));
    assert!(d.validate().unwrap_err().to_string().contains("metadata"));
}
