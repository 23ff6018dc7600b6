//! The way out over HTTP: the connector of a webhook on a shard of its own, which is all that an attempt is made of but the
//! lane's bookkeeping, beside `wrk` and a client of tokio and hyper that send the same bytes to the same nginx.
//!
//! Clients run on CPU 0, one at a time; nginx (or the sink) on CPU 1. A request carries one event or 100; connections are
//! kept and each carries one request at a time. Ours and another client run in pairs, begun by the one and the other in turn.
//! Pairs are short, so that a machine whose speed changes changes it for both, and many: ratios are medians of the ratios
//! within pairs. (`wrk` counts in whole seconds.)
//!
//! Beside them `least.rs` is what nobody can do with less, and what it makes of tokio and hyper is the bound of any client.
//!
//! Copies of the payload are counted by instructions; see `copies.rs`.
//!
//! Options: `--seconds N` (10) for each side of a comparison, `--only PART` (`plain`, `many`, `tls`, `engine`, `copies`),
//! `--connections N`, `--client NAME` (ours is compared with this one alone: `wrk`, `hyper`, `least` or `runtime`).

mod copies;
mod engine;
mod least;
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
use tidewire_benches::{Figure, in_turn, keep, paired};

/// Of the measurements that are no comparisons.
const ROUNDS: usize = 5;
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

fn ours(webhook: &Webhook, sockets: Sockets, connections: usize, records: &[Record], duration: Duration) -> Done {
    let load = Load {
        webhook: webhook.clone(),
        sockets,
        connections,
        records: records.to_vec(),
        duration,
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

/// Ours and another client, by the other's name.
type Pairs = BTreeMap<&'static str, Vec<(Done, Done)>>;

/// How long one side of a pair runs.
const SLICE: Duration = Duration::from_millis(250);

/// Runs both for so many seconds each.
fn pairs(
    seconds: u64,
    slice: Duration,
    ours: impl Fn(Duration) -> Done,
    other: impl Fn(Duration) -> Done,
) -> Vec<(Done, Done)> {
    let pairs = (Duration::from_secs(seconds).as_millis() / slice.as_millis()).max(1);
    in_turn(pairs as usize, || ours(slice), || other(slice))
}

fn tell(figures: &mut Vec<Figure>, name: &str, pairs: &Pairs, per_request: f64) {
    let unit = if per_request > 1.0 { "ev" } else { "req" };
    let per_second: fn(&Done) -> f64 = |d| d.per_second;
    for (client, pairs) in pairs {
        for (what, of) in [("s", per_second), ("CPU s", |d| d.per_cpu_second)] {
            let (ours, other) = paired(&pairs.iter().map(|(ours, other)| (of(ours), of(other))).collect::<Vec<_>>());
            let (low, high) = quartiles(pairs.iter().map(|(ours, other)| of(ours) / of(other)).collect());
            let (value, beside_value, ratio) = (per_request * ours, per_request * other, ours / other);
            println!(
                "{name:<28} {value:>10.0} {unit} per {what:<5}  {ratio:.2}x of {client}, half of {} pairs {low:.2} to {high:.2}",
                pairs.len()
            );
            figures.push(Figure {
                name: format!("{name}, per {what}"),
                value,
                unit: format!("{unit}/{what}"),
                beside: (*client).into(),
                beside_value,
            });
        }
    }
}

fn quartiles(mut values: Vec<f64>) -> (f64, f64) {
    values.sort_by(f64::total_cmp);
    (values[values.len() / 4], values[values.len() * 3 / 4])
}

struct Options {
    seconds: u64,
    only: Option<String>,
    connections: Option<usize>,
    client: Option<String>,
}

fn options() -> Options {
    let mut o = Options { seconds: 10, only: None, connections: None, client: None };
    let mut args = std::env::args().skip(1).filter(|a| a != "--bench");
    while let Some(name) = args.next() {
        let value = args.next().unwrap_or_default();
        match name.as_str() {
            "--seconds" => o.seconds = value.parse().expect("a number of seconds"),
            "--only" => o.only = Some(value),
            "--connections" => o.connections = Some(value.parse().expect("a number of connections")),
            "--client" => o.client = Some(value),
            _ => panic!("{name} is not known; there are --seconds, --only, --connections, --client"),
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

    let compare = |figures: &mut Vec<Figure>,
                   name: &str,
                   (address, bytes): (SocketAddr, &[u8]),
                   load: (&Webhook, usize, &[Record])| {
        let (hook, connections, records) = load;
        let mine = |slice| ours(hook, Sockets::Ring, connections, records, slice);
        let mut all = Pairs::new();
        if wrk {
            let theirs = |slice| peers::wrk(address, bytes, connections, slice);
            all.insert("wrk", pairs(options.seconds, Duration::from_secs(1), mine, theirs));
        }
        if with("hyper") {
            let theirs = |slice| peers::hyper(address, bytes, connections, slice);
            all.insert("tokio+hyper", pairs(options.seconds, SLICE, mine, theirs));
        }
        if with("least") {
            let theirs = |slice| least::least(address, bytes, connections, slice);
            all.insert("the least", pairs(options.seconds, SLICE, mine, theirs));
        }
        if with("runtime") {
            let theirs = |slice| ours(hook, Sockets::Runtime, connections, records, slice);
            all.insert("runtime's", pairs(options.seconds, SLICE, mine, theirs));
        }
        tell(figures, name, &all, records.len() as f64);
    };
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
            compare(
                &mut figures,
                &format!("nginx, {connections} connections"),
                (address, &bytes),
                (&plain, connections, &one),
            );
            if with("least") {
                let least = |slice| least::least(address, &bytes, connections, slice);
                let hyper = |slice| peers::hyper(address, &bytes, connections, slice);
                let all = Pairs::from([("tokio+hyper", pairs(options.seconds, SLICE, least, hyper))]);
                tell(&mut figures, &format!("the least, {connections} connections"), &all, 1.0);
            }
        }
        let mut tls = webhook(&format!("https://localhost:{}/hook", nginx.tls.port()));
        tls.tls.ca = vec![nginx.ca.clone()];
        for (per_request, records) in [(1, &one), (100, &many)].into_iter().filter(|_| wants("tls")) {
            let run = |hook| move |slice| ours(hook, Sockets::Ring, 16, records, slice);
            let pairs = Pairs::from([("ours, plain", pairs(options.seconds, SLICE, run(&tls), run(&plain)))]);
            tell(&mut figures, &format!("TLS, {per_request} per request"), &pairs, per_request as f64);
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
            compare(
                &mut figures,
                &format!("sink, 100 per request, {connections}"),
                (sink.address, &bytes),
                (&hook, connections, &many),
            );
        }
    }
    if wants("engine") {
        engine::measure(&mut figures, ROUNDS);
    }
    if wants("copies") {
        copies::measure(&mut figures);
    }
    let counts = tidewire::net::socket_counts();
    println!(
        "{} rings, {} receptions without a buffer, {} wake-ups lost, {} for several answers",
        counts.rings, counts.starved, counts.rescues, counts.gathers
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
