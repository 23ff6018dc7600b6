//! The way out over HTTP: the connector of a webhook on a shard of its own, which is all that an attempt is made of but the
//! lane's bookkeeping, beside `wrk` and a client of tokio and hyper that send the same bytes to the same nginx.
//!
//! Clients run on CPU 0, one at a time, in alternating rounds; nginx (or the sink) on CPU 1. A request carries one event or
//! 100; connections are kept and each carries one request at a time. What is told is the median of the rounds; ratios are
//! medians of the ratios within rounds.
//!
//! Copies of the payload are counted by instructions; see `copies.rs`.
//!
//! Options: `--rounds N` (5), `--seconds N` (1) per client and round, `--only PART` (`plain`, `many`, `tls`, `engine`, `copies`),
//! `--connections N`, `--client NAME` (`ours`, `wrk`, `hyper`, `runtime`; ours is measured in any case).

mod copies;
mod engine;
mod nginx;
mod peers;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tidewire::bench::{Load, run};
use tidewire::config::Sockets;
use tidewire::delivery::Record;
use tidewire::event::profile::{Profile, RecordContext};
use tidewire::event::{EventId, FrameView, Sequencer, frame};
use tidewire::rule::Webhook;
use tidewire_benches::sink::Sink;
use tidewire_benches::{Figure, keep, median};

/// Where clients run, and where what they call.
const CLIENT: usize = 0;
const SERVER: usize = 1;

/// What a client has done in one round.
#[derive(Clone, Copy, Debug)]
struct Done {
    per_second: f64,
    per_cpu_second: f64,
}

impl Done {
    fn of(requests: u64, elapsed: Duration, cpu: Duration) -> Done {
        Done {
            per_second: requests as f64 / elapsed.as_secs_f64(),
            per_cpu_second: requests as f64 / cpu.as_secs_f64(),
        }
    }
}

/// The calling thread runs on this CPU from now on, and so do the threads and processes that it starts.
fn pin(cpu: usize) {
    // SAFETY: plain bits.
    let mut set = unsafe { std::mem::zeroed::<libc::cpu_set_t>() };
    // SAFETY: the set is valid, and the number is within it.
    let ok = unsafe {
        libc::CPU_SET(cpu, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set)
    };
    assert_eq!(ok, 0, "CPU {cpu} is needed");
}

/// Records as a lane hands them to a connector.
fn records(count: usize) -> Vec<Record> {
    let bytes = frame::encode_to_vec(&tidewire_benches::event(), 0);
    let view = FrameView::parse(&bytes).expect("a frame");
    (0..count as u64)
        .map(|sequence| {
            let id = EventId { incarnation: 0x1234_5678_9abc_def0, shard: 1, sequence };
            let context = RecordContext {
                id,
                sequencer: Sequencer { clock_ns: 1_750_000_000_123_456_789, tie: sequence as u32, writer: 7 },
                rule: "images",
                region: "eu-central-1",
                event_source: "aws:s3",
            };
            let mut out = BytesMut::from(Profile::Aws.separator());
            Profile::Aws.write_record(&view, &context, &mut out);
            Record { id, bytes: out.freeze() }
        })
        .collect()
}

fn webhook(url: &str) -> Webhook {
    let mut w = Webhook::new(url).expect("a URL");
    w.pool.requests_max = 1_000_000_000;
    w.pool.lifetime = Duration::from_secs(3600);
    w
}

fn ours(webhook: &Webhook, sockets: Sockets, connections: usize, records: &[Record], seconds: u64) -> Done {
    let load = Load {
        webhook: webhook.clone(),
        sockets,
        connections,
        records: records.to_vec(),
        duration: Duration::from_secs(seconds),
        requests: u64::MAX,
        copied: false,
        cpu: CLIENT,
    };
    let run = run(load).expect("requests");
    Done::of(run.requests, run.elapsed, run.cpu)
}

/// The bytes that the connector sends for these records to this address, where nobody else listens yet.
fn request(address: SocketAddr, records: &[Record]) -> Vec<u8> {
    let listener = TcpListener::bind(address).expect("a port");
    let load = Load {
        webhook: webhook(&format!("http://{address}/hook")),
        sockets: Sockets::Ring,
        connections: 1,
        records: records.to_vec(),
        duration: Duration::ZERO,
        requests: u64::MAX,
        copied: false,
        cpu: CLIENT,
    };
    std::thread::spawn(move || {
        // It ends badly: only its first request is looked at.
        let _ = run(load);
    });
    let (mut c, _) = listener.accept().expect("a connection");
    let mut got = Vec::new();
    let mut buf = [0; 65536];
    loop {
        let n = c.read(&mut buf).expect("a request");
        got.extend_from_slice(&buf[..n]);
        if n == 0 || peers::is_whole(&got) {
            let _ = c.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
            return got;
        }
    }
}

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port")
}

/// By client, one entry per round.
type Rounds = BTreeMap<&'static str, Vec<Done>>;

fn medians(rounds: &Rounds, client: &str, of: impl Fn(&Done) -> f64) -> f64 {
    median(&mut rounds[client].iter().map(of).collect::<Vec<_>>())
}

fn ratio(rounds: &Rounds, beside: &str, of: impl Fn(&Done) -> f64) -> f64 {
    median(&mut rounds["ours"].iter().zip(&rounds[beside]).map(|(a, b)| of(a) / of(b)).collect::<Vec<_>>())
}

fn tell(figures: &mut Vec<Figure>, name: &str, rounds: &Rounds, per_request: f64) {
    let unit = if per_request > 1.0 { "ev" } else { "req" };
    for (client, done) in rounds {
        println!(
            "{name:<28} {client:<14} {:>10.0} {unit}/s {:>10.0} {unit} per CPU second   {}",
            per_request * medians(rounds, client, |d| d.per_second),
            per_request * medians(rounds, client, |d| d.per_cpu_second),
            done.iter().map(|d| format!("{:.0}", per_request * d.per_second)).collect::<Vec<_>>().join(" "),
        );
    }
    for client in rounds.keys().filter(|c| **c != "ours") {
        println!(
            "{name:<28} ratio to {client:<12} {:.2} by time, {:.2} by CPU",
            ratio(rounds, client, |d| d.per_second),
            ratio(rounds, client, |d| d.per_cpu_second)
        );
        for (what, of) in [("s", (|d| d.per_second) as fn(&Done) -> f64), ("CPU s", |d| d.per_cpu_second)] {
            figures.push(Figure {
                name: format!("{name}, per {what}"),
                value: per_request * medians(rounds, "ours", of),
                unit: format!("{unit}/s"),
                beside: (*client).into(),
                beside_value: per_request * medians(rounds, client, of),
            });
        }
    }
}

struct Options {
    rounds: usize,
    seconds: u64,
    only: Option<String>,
    connections: Option<usize>,
    client: Option<String>,
}

fn options() -> Options {
    let mut o = Options { rounds: 5, seconds: 1, only: None, connections: None, client: None };
    let mut args = std::env::args().skip(1).filter(|a| a != "--bench");
    while let Some(name) = args.next() {
        let value = args.next().unwrap_or_default();
        match name.as_str() {
            "--rounds" => o.rounds = value.parse().expect("a number of rounds"),
            "--seconds" => o.seconds = value.parse().expect("a number of seconds"),
            "--only" => o.only = Some(value),
            "--connections" => o.connections = Some(value.parse().expect("a number of connections")),
            "--client" => o.client = Some(value),
            _ => panic!("{name} is not known; there are --rounds, --seconds, --only, --connections, --client"),
        }
    }
    o
}

fn main() {
    if copies::is_asked() {
        return;
    }
    let options = options();
    let wants = |part: &str| options.only.as_deref().is_none_or(|only| only == part);
    let with = |client: &str| options.client.as_deref().is_none_or(|only| only == client);
    let of_count = |c: &usize| options.connections.is_none_or(|only| only == *c);
    pin(SERVER);
    let wrk = peers::has_wrk() && with("wrk");
    if !wrk && with("wrk") {
        println!("wrk is not here (Debian: apt-get install wrk): it is left out");
    }
    let mut figures = Vec::new();
    let one = records(1);
    let many = records(100);

    let address = free_address();
    let bytes = request(address, &one);
    println!("a request with one event has {} bytes, one with 100 has {}", bytes.len(), {
        many.iter().map(|r| r.bytes.len()).sum::<usize>()
    });
    let nginx = nginx::start(address);
    if nginx.is_none() {
        println!("nginx is not here (Debian: apt-get install nginx-light): only the sink is called");
    }
    if let Some(nginx) = &nginx {
        let plain = webhook(&format!("http://{address}/hook"));
        for connections in [1, 16, 64].into_iter().filter(|c| wants("plain") && of_count(c)) {
            let mut rounds = Rounds::new();
            for _ in 0..options.rounds {
                let mut note = |client, done| rounds.entry(client).or_default().push(done);
                note("ours", ours(&plain, Sockets::Ring, connections, &one, options.seconds));
                if wrk {
                    note("wrk", peers::wrk(address, &bytes, connections, options.seconds));
                }
                if with("hyper") {
                    note("tokio+hyper", peers::hyper(address, &bytes, connections, options.seconds));
                }
                if with("runtime") {
                    note("runtime's", ours(&plain, Sockets::Runtime, connections, &one, options.seconds));
                }
            }
            tell(&mut figures, &format!("nginx, {connections} connections"), &rounds, 1.0);
        }
        let mut tls = webhook(&format!("https://localhost:{}/hook", nginx.tls.port()));
        tls.tls.ca = vec![nginx.ca.clone()];
        for (per_request, records) in [(1, &one), (100, &many)].into_iter().filter(|_| wants("tls")) {
            let mut rounds = Rounds::new();
            for _ in 0..options.rounds {
                let mut note = |client, done| rounds.entry(client).or_default().push(done);
                note("ours", ours(&tls, Sockets::Ring, 16, records, options.seconds));
                note("ours, plain", ours(&plain, Sockets::Ring, 16, records, options.seconds));
            }
            tell(&mut figures, &format!("TLS, {per_request} per request"), &rounds, per_request as f64);
        }
    }
    drop(nginx);
    if wants("many") {
        let sink = Sink::new();
        let bytes = {
            let address = free_address();
            request(address, &many)
        };
        let hook = webhook(&sink.url);
        for connections in [1, 4, 16].into_iter().filter(of_count) {
            let mut rounds = Rounds::new();
            for _ in 0..options.rounds {
                let mut note = |client, done| rounds.entry(client).or_default().push(done);
                note("ours", ours(&hook, Sockets::Ring, connections, &many, options.seconds));
                if wrk {
                    note("wrk", peers::wrk(sink.address, &bytes, connections, options.seconds));
                }
                if with("hyper") {
                    note("tokio+hyper", peers::hyper(sink.address, &bytes, connections, options.seconds));
                }
                if with("runtime") {
                    note("runtime's", ours(&hook, Sockets::Runtime, connections, &many, options.seconds));
                }
            }
            tell(&mut figures, &format!("sink, 100 per request, {connections}"), &rounds, 100.0);
        }
    }
    if wants("engine") {
        engine::measure(&mut figures, options.rounds);
    }
    if wants("copies") {
        copies::measure(&mut figures);
    }
    let counts = tidewire::net::socket_counts();
    println!(
        "{} rings, {} receptions without a buffer, {} wake-ups lost",
        counts.rings, counts.starved, counts.rescues
    );
    keep("http", &figures);
}

/// The bytes of a request as slices: method and path, headers, body.
fn parts(request: &[u8]) -> (String, Vec<(String, String)>, Bytes) {
    let end = peers::head_len(request).expect("a request");
    let head = String::from_utf8_lossy(&request[..end]).into_owned();
    let mut lines = head.trim_end().split("\r\n");
    let path = lines.next().and_then(|l| l.split(' ').nth(1)).expect("a path").to_owned();
    let headers = lines.filter_map(|l| l.split_once(": ")).map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
    (path, headers, Bytes::copy_from_slice(&request[end..]))
}
