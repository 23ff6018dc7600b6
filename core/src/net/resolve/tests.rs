//! The resolver at a DNS server that answers as told.

use std::sync::mpsc;
use std::time::Instant;

use tidewire_receiver::{DnsAnswer, DnsServer};

use super::*;
use crate::driver::block_on;

const WAIT: Duration = Duration::from_secs(60);

fn at(server: &DnsServer) -> Resolver {
    Resolver::new(Source::Dns(vec![server.address()]))
}

fn ips(list: &[&str]) -> Vec<IpAddr> {
    list.iter().map(|t| t.parse().unwrap()).collect()
}

fn ask(resolver: &Resolver, name: &str) -> Result<Vec<IpAddr>> {
    block_on(resolver.resolve(name), Some(Instant::now() + WAIT)).expect("an end").map(|a| a.addresses.clone())
}

/// The same on the thread of a shard, where there are timers.
fn ask_on_a_shard(resolver: &Arc<Resolver>, name: &'static str) -> Result<Vec<IpAddr>> {
    let (resolver, (told, heard)) = (resolver.clone(), mpsc::channel());
    let work = move || async move {
        told.send(resolver.resolve(name).await.map(|a| a.addresses.clone())).unwrap();
    };
    let shard = driver::spawn_shard("names", None, work).unwrap();
    let got = heard.recv_timeout(WAIT).unwrap();
    shard.join().unwrap();
    got
}

/// In whatever order: that depends on the ways that this machine has.
fn sorted(mut list: Vec<IpAddr>) -> Vec<IpAddr> {
    list.sort();
    list
}

#[test]
fn answers_of_every_kind() {
    let server = DnsServer::start().unwrap();
    let good = || ips(&["127.0.0.1", "127.0.0.2"]);
    let mixed = ips(&["127.0.0.1", "8.8.8.8", "::1", "2001:db8::1"]);
    let many: Vec<IpAddr> = (1..=250).map(|n| IpAddr::from([127, 0, 1, n])).collect();
    let evil = || ips(&["127.6.6.6"]);
    for (name, answer, expected) in [
        ("plain.example", DnsAnswer::Addresses(good(), 60), Ok(good())),
        ("zero.example", DnsAnswer::Addresses(good(), 0), Ok(good())),
        ("mixed.example", DnsAnswer::Addresses(mixed.clone(), 60), Ok(mixed)),
        ("alias.example", DnsAnswer::Aliases(10, good()), Ok(good())),
        ("large.example", DnsAnswer::Truncated(many.clone()), Ok(many[..64].to_vec())),
        ("forged.example", DnsAnswer::Forged(evil(), good()), Ok(good())),
        ("half.example", DnsAnswer::SilentAboutV6(good()), Ok(good())),
        ("denied.example", DnsAnswer::DeniesV6(good()), Ok(good())),
        ("again.example", DnsAnswer::InTurn(vec![DnsAnswer::Silence, DnsAnswer::Addresses(good(), 60)]), Ok(good())),
        ("none.example", DnsAnswer::NoAddress, Err("has no address")),
        ("nowhere.example", DnsAnswer::NoSuchName, Err("no such name")),
        ("failing.example", DnsAnswer::Failure, Err("SERVFAIL")),
        ("circle.example", DnsAnswer::AliasLoop, Err("aliases without an end")),
        ("far.example", DnsAnswer::Aliases(40, good()), Err("aliases without an end")),
        ("other.example", DnsAnswer::OtherName(evil()), Err("no such name")),
        ("wrong.example", DnsAnswer::WrongId(evil()), Err("does not answer in time")),
        ("silent.example", DnsAnswer::Silence, Err("does not answer in time")),
    ] {
        // What is nobody's name is not there.
        if name != "other.example" {
            server.set(name, answer.clone());
        } else {
            server.set("another.example", answer.clone());
        }
        let resolver = at(&server);
        match (ask(&resolver, name), expected) {
            (Ok(got), Ok(expected)) => assert_eq!(sorted(got), sorted(expected), "{name}"),
            (Err(e), Err(part)) => {
                assert!(e.kind() == ErrorKind::Io && e.to_string().contains(part), "{name}: {e}");
                assert!(e.to_string().contains(name) && e.remedy_text().is_some(), "{e}");
            }
            (got, _) => panic!("{name}: {got:?}"),
        }
    }
    let resolver = at(&server);
    assert!(ask(&resolver, "another.example").unwrap_err().to_string().contains("has no address"));
    assert!(server.over_tcp() >= 2);
}

#[test]
fn names_that_no_server_is_asked_for() {
    let server = DnsServer::start().unwrap();
    let resolver = at(&server);
    for name in ["localhost", "a.localhost", "LOCALHOST."] {
        assert!(ask(&resolver, name).unwrap().iter().all(IpAddr::is_loopback), "{name}");
        assert_eq!(server.questions(name), 0);
    }
    let long = "x".repeat(64);
    assert!(ask(&resolver, &long).unwrap_err().to_string().contains("no such name"));
    assert_eq!(server.questions(&long), 0);
}

#[test]
fn the_next_server_is_asked_when_one_is_dead() {
    let dead = DnsServer::start().unwrap();
    let (silent, refusing) = (DnsServer::start().unwrap(), dead.address());
    drop(dead);
    let server = DnsServer::start().unwrap();
    silent.set("h.example", DnsAnswer::Silence);
    server.set("h.example", DnsAnswer::Addresses(ips(&["127.0.0.1"]), 60));
    let resolver = Resolver::new(Source::Dns(vec![refusing, silent.address(), server.address()]));
    assert_eq!(ask(&resolver, "h.example").unwrap(), ips(&["127.0.0.1"]));
    assert_eq!((silent.questions("h.example"), server.questions("h.example")), (2, 2));
    // A word that is final ends the round.
    silent.set("gone.example", DnsAnswer::NoSuchName);
    ask(&resolver, "gone.example").unwrap_err();
    assert_eq!(server.questions("gone.example"), 0);
}

#[test]
fn one_lookup_for_all_who_ask_at_once() {
    let server = DnsServer::start().unwrap();
    // The first question is lost, so that all others come while it is under way.
    let answer = DnsAnswer::Addresses(ips(&["127.0.0.1"]), 60);
    server.set("h.example", DnsAnswer::InTurn(vec![DnsAnswer::Silence, answer]));
    let resolver = Arc::new(at(&server));
    let (told, heard) = mpsc::channel();
    for _ in 0..50 {
        let (resolver, told) = (resolver.clone(), told.clone());
        std::thread::spawn(move || told.send(ask(&resolver, "h.example")).unwrap());
    }
    for _ in 0..50 {
        assert_eq!(heard.recv_timeout(WAIT).unwrap().unwrap(), ips(&["127.0.0.1"]));
    }
    assert_eq!(server.questions("h.example"), 4, "two tries for two families");
}

#[test]
fn old_answers_are_used_while_no_server_answers() {
    let server = DnsServer::start().unwrap();
    server.set("h.example", DnsAnswer::Addresses(ips(&["127.0.0.1"]), 0));
    let resolver = Arc::new(at(&server));
    ask(&resolver, "h.example").unwrap();
    for trouble in [DnsAnswer::Failure, DnsAnswer::Silence] {
        server.set("h.example", trouble);
        // Its time is over by then.
        std::thread::sleep(cache::TTL_MIN + Duration::from_millis(100));
        let before = server.questions("h.example");
        assert_eq!(ask_on_a_shard(&resolver, "h.example").unwrap(), ips(&["127.0.0.1"]));
        assert!(server.questions("h.example") > before, "it was looked up");
    }
}

#[test]
fn many_names_at_once_take_turns() {
    let server = DnsServer::start().unwrap();
    let names: Vec<String> = (0..100).map(|n| format!("n{n}.example")).collect();
    for (n, name) in names.iter().enumerate() {
        server.set(name, DnsAnswer::Addresses(vec![[127, 0, 2, n as u8].into()], 60));
    }
    let resolver = Arc::new(at(&server));
    let threads: Vec<_> = names
        .into_iter()
        .map(|name| {
            let resolver = resolver.clone();
            std::thread::spawn(move || ask(&resolver, &name).unwrap())
        })
        .collect();
    for (n, thread) in threads.into_iter().enumerate() {
        assert_eq!(thread.join().unwrap(), [IpAddr::from([127, 0, 2, n as u8])]);
    }
    assert!(resolver.inner.state.lock().running <= LOOKUPS_MAX);
}

#[test]
fn closing_ends_lookups_and_tells_who_waits() {
    let server = DnsServer::start().unwrap();
    server.set("h.example", DnsAnswer::Silence);
    let resolver = Arc::new(at(&server));
    let asking = resolver.clone();
    let waiting = std::thread::spawn(move || ask(&asking, "h.example"));
    while server.questions("h.example") == 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
    resolver.close();
    assert_eq!(waiting.join().unwrap().unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(ask(&resolver, "h.example").unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(resolver.inner.state.lock().running, 0);
    resolver.close();
}

#[test]
fn the_system_knows_this_machine() {
    let resolver = Resolver::new(Source::System);
    assert!(ask(&resolver, "localhost").unwrap().iter().all(IpAddr::is_loopback));
    let e = ask(&resolver, &format!("{}.invalid", "x".repeat(64))).unwrap_err();
    assert!(e.to_string().contains("cannot look up"), "{e}");
}
