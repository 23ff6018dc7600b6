//! Deliveries leave no descriptor behind. Alone in its process, for it counts what the process has open.

mod common;

use std::io::Write;
use std::net::TcpListener;
use std::time::Duration;

use common::*;
use tidewire::Engine;
use tidewire::net::resolve::Source;
use tidewire::rule::{BatchLimits, DestinationKind};
use tidewire_receiver::{Behaviour, DnsAnswer, DnsServer, Reply};

fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[test]
fn descriptors_leak_with_ten_thousand_deliveries() {
    const EVENTS: u64 = 10_000;
    let dir = tempfile::tempdir().unwrap();
    let server = DnsServer::start().unwrap();
    server.set("h.example", DnsAnswer::Truncated(vec![[127, 0, 0, 1].into()]));
    // Every third answer is a failure, every fifth ends the connection, some bodies are longer than is read.
    let r = receiver(Behaviour::decide(|hit| match hit.number % 15 {
        0 | 3 => Reply::status(503),
        6 => Reply { body: vec![b'x'; 200_000], ..Reply::status(500) },
        5 | 10 => Reply::close(),
        _ => Reply::status(204),
    }));
    let dead = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    // One that takes a connection, says half of something, and hangs up.
    let half = TcpListener::bind("127.0.0.1:0").unwrap();
    let half_url = format!("http://{}/", half.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in half.incoming() {
            let _ = stream.unwrap().write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nab");
        }
    });
    let quick = |name: &str, url: &str| {
        let mut d = hook(name, url);
        d.batch = BatchLimits { events_max: 1, ..BatchLimits::default() };
        d.breaker.consecutive_failures = 1_000_000;
        d.concurrency = 16;
        d
    };
    let mut named = quick("named", &format!("http://h.example:{}/", r.addr().port()));
    (named.retry.backoff_min, named.retry.backoff_max) = (Duration::from_millis(1), Duration::from_millis(2));
    let DestinationKind::Webhook(w) = &mut named.kind else { unreachable!() };
    w.pool.requests_max = 7;
    let before = open_descriptors();
    for _ in 0..2 {
        let hooks = vec![named.clone(), quick("dead", &format!("http://{dead}/")), quick("half", &half_url)];
        let mut c = config(dir.path(), 2);
        c.network.resolver = Source::Dns(vec![server.address()]);
        let engine = Engine::open_with(c, passing(hooks)).unwrap();
        let of = |name: &str| engine.stats().destinations.into_iter().find(|d| d.name == name).unwrap();
        for round in 0..10 {
            (0..EVENTS / 10).for_each(|n| put(&engine, &format!("k{}", n % 97), round * EVENTS + n));
            // As long as anything moves: how fast is the machine's affair.
            loop {
                let (waiting, before) = (of("named").waiting, of("named").requests);
                if waiting == 0 && of("named").routed == (round + 1) * (EVENTS / 10) {
                    break;
                }
                until("anything moves", || of("named").requests > before || of("named").waiting != waiting);
            }
            // While it runs: no more than the pools, the shards and the receiver's ends hold.
            let open = open_descriptors();
            assert!(open < before + 400, "{open} descriptors, {before} before");
        }
        assert!(of("dead").failures > 0 && of("half").failures > 0);
        engine.close(Duration::ZERO).unwrap();
        drop(engine);
    }
    drop(r);
    drop(server);
    until("all are closed", || open_descriptors() <= before);
}
