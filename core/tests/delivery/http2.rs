//! HTTP/2 with nginx, nghttpd, and endpoints that end, refuse and break what they can.

use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::common::{WAIT, config, hook, passing, put, receiver, until};
use crate::h2_server::{Act, Server, Settings, ok};
use crate::nginx::{Ca, Nginx, YEAR, free_port, program, write_pair};
use bytes::Bytes;
use h2::Reason;
use tidewire::log::standing::State;
use tidewire::rule::{Destination, DestinationKind, Verification, VerificationMethod, Webhook};
use tidewire::{DestinationStats, Engine, test_destination};
use tidewire_receiver::{Behaviour, Reply};

fn of(engine: &Engine, name: &str) -> DestinationStats {
    engine.stats().destinations.into_iter().find(|d| d.name == name).unwrap()
}

/// A hook that may speak HTTP/2, with one event per request and 16 at once.
fn hook2(url: &str, ca: &Path, with: impl FnOnce(&mut Webhook)) -> Destination {
    let mut d = hook("hook", url);
    d.batch.events_max = 1;
    d.concurrency = 16;
    d.adaptive_concurrency = false;
    d.breaker.consecutive_failures = 1_000_000;
    d.breaker.calls_min = 1_000_000;
    match &mut d.kind {
        DestinationKind::Webhook(w) => {
            w.tls.ca = vec![ca.to_owned()];
            w.http2 = true;
            with(w);
        }
        _ => unreachable!(),
    }
    d
}

struct Place {
    dir: tempfile::TempDir,
    ca: Ca,
    root: PathBuf,
}

impl Place {
    fn new() -> Place {
        let (dir, ca) = (tempfile::tempdir().unwrap(), Ca::new("servers"));
        let root = dir.path().join("ca.pem");
        fs::write(&root, ca.pem()).unwrap();
        Place { dir, ca, root }
    }

    fn leaf(&self) -> (String, rcgen::KeyPair) {
        self.ca.leaf("server", &["localhost"], YEAR)
    }

    fn server(&self, settings: Settings, script: impl Fn(u64) -> Act + Send + Sync + 'static) -> Server {
        Server::start(&self.leaf(), settings, script)
    }

    fn open(&self, shards: usize, d: Destination) -> Engine {
        Engine::open_with(config(&self.dir.path().join("data"), shards), passing(vec![d])).unwrap()
    }
}

fn all_at_once(engine: &Engine, count: u64) {
    (0..count).for_each(|n| put(engine, &format!("k{n}"), n));
}

/// The handshake and what it allows go the same way.
#[test]
fn consent_is_asked_for_over_http2_and_refused_or_given() {
    let (place, r) = (Place::new(), receiver(Behaviour::Status(204)));
    let Some(nginx) = Nginx::start(place.leaf(), None, "http2", "", &r.url()) else { return };
    let mut verification = Verification::new(VerificationMethod::CloudEvents);
    verification.origin = Some("store.example.com".into());
    let engine = place.open(1, hook2(&nginx.url(), &place.root, |w| w.verification = Some(verification)));
    all_at_once(&engine, 50);
    let standing = || engine.destination_standing("hook").unwrap();
    until("it is told why", || standing().reason.contains("without WebHook-Allowed-Origin"));
    assert_eq!((standing().state, of(&engine, "hook").delivered), (State::Pending, 0));
    r.set_behaviour(Behaviour::decide(|hit| match hit.records.is_empty() {
        true => Reply::status(200).header("WebHook-Allowed-Origin", "store.example.com"),
        false => Reply::status(204),
    }));
    engine.resume_destination("hook").unwrap();
    engine.flush(WAIT).unwrap();
    assert_eq!((standing().state, of(&engine, "hook").delivered), (State::Active, 50));
    until("all are logged", || nginx.lines().len() >= 52);
    assert!(nginx.lines().iter().all(|l| l.protocol == "HTTP/2.0"), "{:?}", nginx.lines());
    engine.close(WAIT).unwrap();
}

#[test]
fn several_requests_share_a_connection_to_nginx() {
    let (place, r) = (Place::new(), receiver(Behaviour::Ok204));
    let Some(nginx) = Nginx::start(place.leaf(), None, "http2", "", &r.url()) else { return };
    let engine = place.open(1, hook2(&nginx.url(), &place.root, |_| {}));
    all_at_once(&engine, 500);
    engine.flush(WAIT).unwrap();
    let d = of(&engine, "hook");
    assert_eq!((d.delivered, d.failures, d.connections), (500, 0, 1), "{}", d.last_error);
    assert_eq!(r.records().len(), 500);
    until("all are logged", || nginx.lines().len() == 500);
    assert!(nginx.lines().iter().all(|l| l.protocol == "HTTP/2.0" && l.status == "204"));
    engine.close(WAIT).unwrap();
    let report = test_destination(&hook2(&nginx.url(), &place.root, |_| {}), &config(place.dir.path(), 1)).unwrap();
    assert_eq!(report.failure, None);
    assert!(report.steps.iter().any(|s| s.what.contains("HTTP/2")), "{:?}", report.steps);
}

#[test]
fn where_the_endpoint_does_not_choose_it_http1_is_spoken() {
    let (place, r) = (Place::new(), receiver(Behaviour::Ok204));
    let Some(nginx) = Nginx::start(place.leaf(), None, "", "", &r.url()) else { return };
    let engine = place.open(1, hook2(&nginx.url(), &place.root, |_| {}));
    all_at_once(&engine, 200);
    engine.flush(WAIT).unwrap();
    let d = of(&engine, "hook");
    assert_eq!((d.delivered, d.failures), (200, 0), "{}", d.last_error);
    assert!(d.connections <= 16, "{}", d.connections);
    until("all are logged", || nginx.lines().len() == 200);
    assert!(nginx.lines().iter().all(|l| l.protocol == "HTTP/1.1"));
    engine.close(WAIT).unwrap();

    // And where it is not allowed.
    let Some(both) = Nginx::start(place.leaf(), None, "http2", "", &r.url()) else { return };
    let engine = place.open(1, hook2(&both.url(), &place.root, |w| w.http2 = false));
    all_at_once(&engine, 20);
    engine.flush(WAIT).unwrap();
    until("all are logged", || both.lines().len() >= 20);
    assert!(both.lines().iter().all(|l| l.protocol == "HTTP/1.1"));
    engine.close(WAIT).unwrap();
}

/// nginx ends a connection after so many requests, and all of them when it reads its files again.
#[test]
fn connections_that_nginx_ends_under_load_fail_no_attempt() {
    let (place, r) = (Place::new(), receiver(Behaviour::Ok204));
    let Some(nginx) = Nginx::start(place.leaf(), None, "http2", "keepalive_requests 40;", &r.url()) else { return };
    let engine = place.open(2, hook2(&nginx.url(), &place.root, |_| {}));
    let (stop, count) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let n = count.fetch_add(1, Ordering::Relaxed);
                put(&engine, &format!("k{n}"), n);
                while of(&engine, "hook").waiting > 64 && !stop.load(Ordering::Relaxed) {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
        });
        for _ in 0..4 {
            let before = of(&engine, "hook").delivered;
            until("more was delivered", || of(&engine, "hook").delivered > before + 300);
            nginx.reload();
        }
        let before = of(&engine, "hook").delivered;
        until("more was delivered", || of(&engine, "hook").delivered > before + 300);
        stop.store(true, Ordering::Relaxed);
    });
    engine.flush(WAIT).unwrap();
    let (d, count) = (of(&engine, "hook"), count.load(Ordering::Relaxed));
    println!("{count} events on {} connections", d.connections);
    assert_eq!((d.delivered, d.failures, d.dead_lettered), (count, 0, 0), "{}", d.last_error);
    assert!(d.connections >= count / 40, "{}", d.connections);
    assert_eq!(r.records().len() as u64, count);
    engine.close(WAIT).unwrap();
}

#[test]
fn nghttpd_that_takes_two_requests_at_once_gets_two() {
    let place = Place::new();
    let Some(path) = program("nghttpd") else { return };
    write_pair(place.dir.path(), "leaf", &place.leaf());
    let (port, root) = (free_port(), place.dir.path().join("www"));
    fs::create_dir(&root).unwrap();
    fs::write(root.join("hook"), "taken").unwrap();
    let mut command = Command::new(path);
    command.args(["-a", "127.0.0.1", "-m", "2", "-d"]).arg(&root).arg(port.to_string());
    command.arg(place.dir.path().join("leaf.key")).arg(place.dir.path().join("leaf.pem"));
    let mut process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    until("nghttpd is up", || TcpStream::connect(("127.0.0.1", port)).is_ok());
    let url = format!("https://localhost:{port}/hook");
    let engine = place.open(1, hook2(&url, &place.root, |w| w.pool.requests_max = 1_000_000));
    all_at_once(&engine, 300);
    let flushed = engine.flush(WAIT);
    let d = of(&engine, "hook");
    process.kill().unwrap();
    process.wait().unwrap();
    flushed.unwrap();
    // As many connections as 16 requests at once take, two on each; the first may be full before the limit is known.
    println!("{} connections", d.connections);
    assert_eq!((d.delivered, d.failures), (300, 0), "{}", d.last_error);
    assert!((2..=16).contains(&d.connections), "{}", d.connections);
    engine.close(WAIT).unwrap();
}

#[test]
fn a_request_is_what_it_is_over_http1() {
    let place = Place::new();
    let server = place.server(Settings::default(), |_| ok());
    let mut d = hook2(&server.url(), &place.root, |w| w.headers = vec![("X-Own".into(), "1".into())]);
    d.batch.events_max = 100;
    d.batch.linger = Duration::from_millis(200);
    let engine = place.open(1, d);
    all_at_once(&engine, 50);
    engine.flush(WAIT).unwrap();
    let (line, fields) = server.seen.heads.lock().unwrap()[0].clone();
    assert_eq!(line, format!("POST {}", server.url()));
    let value = |name: &str| fields.get(name).map(|v| v.to_str().unwrap().to_owned());
    assert_eq!(value("content-type").as_deref(), Some("application/json"));
    assert_eq!((value("x-own").as_deref(), value("accept-encoding").as_deref()), (Some("1"), Some("identity")));
    assert_eq!((value("host"), value("connection"), value("transfer-encoding")), (None, None, None));
    let body = server.seen.bodies.lock().unwrap()[0].clone();
    assert_eq!(value("content-length"), Some(body.len().to_string()));
    assert!(body.starts_with(b"{\"Records\":[{") && body.ends_with(b"]}"));
    engine.close(WAIT).unwrap();
}

/// hyper#2136 for HTTP/2: what surely was not looked at is sent again at once, and is no failed attempt.
#[test]
fn a_refused_stream_is_sent_again_at_once_and_fails_no_attempt() {
    let place = Place::new();
    let server = place.server(Settings::default(), |n| match n % 60 {
        // Seldom enough that none is refused four times.
        3 => Act::Reset(Reason::REFUSED_STREAM),
        _ => ok(),
    });
    let engine = place.open(1, hook2(&server.url(), &place.root, |_| {}));
    all_at_once(&engine, 600);
    engine.flush(WAIT).unwrap();
    let d = of(&engine, "hook");
    assert_eq!((d.delivered, d.failures), (600, 0), "{}", d.last_error);
    assert_eq!(server.different(), 600);
    assert!(server.requests() >= 610);
    engine.close(WAIT).unwrap();
}

#[test]
fn an_endpoint_that_refuses_every_stream_gets_few_of_them() {
    let place = Place::new();
    let server = place.server(Settings::default(), |_| Act::Reset(Reason::REFUSED_STREAM));
    let engine = place.open(1, hook2(&server.url(), &place.root, |_| {}));
    put(&engine, "k", 0);
    until("attempts have failed", || of(&engine, "hook").failures >= 3);
    let d = of(&engine, "hook");
    assert!(d.last_error.contains("refuses streams"), "{}", d.last_error);
    assert!(server.requests() <= (d.failures + 2) * 4, "{} requests, {} attempts", server.requests(), d.failures);
    engine.close(Duration::ZERO).unwrap();
}

#[test]
fn connections_that_are_ended_in_an_orderly_way_fail_no_attempt() {
    let place = Place::new();
    let server = place.server(Settings::default(), |n| if n % 60 == 59 { Act::GoAway } else { ok() });
    let engine = place.open(1, hook2(&server.url(), &place.root, |_| {}));
    all_at_once(&engine, 600);
    engine.flush(WAIT).unwrap();
    let d = of(&engine, "hook");
    assert_eq!((d.delivered, d.failures), (600, 0), "{}", d.last_error);
    assert_eq!(server.different(), 600);
    assert!(d.connections > 8, "{}", d.connections);
    engine.close(WAIT).unwrap();
    until("no connection is left", || server.seen.open.load(Ordering::SeqCst) == 0);
}

/// Streams that are reset, connections that are cut, answers that are cut off: attempts fail, events do not.
#[test]
fn nothing_is_lost_over_an_endpoint_that_breaks_what_it_can() {
    let place = Place::new();
    let server = place.server(Settings::default(), |n| match n % 53 {
        2 | 22 => Act::Reset(Reason::INTERNAL_ERROR),
        4 | 24 => Act::Half,
        // With it go the others that are on their way.
        40 => Act::Cut,
        8 => Act::Answer(503, vec![("retry-after", "0")], Bytes::new()),
        9 | 29 => Act::Reset(Reason::CANCEL),
        _ => ok(),
    });
    let mut d = hook2(&server.url(), &place.root, |_| {});
    d.retry.backoff_min = Duration::from_millis(1);
    d.retry.backoff_max = Duration::from_millis(5);
    d.retry.retry_after_max = Duration::from_secs(1);
    let engine = place.open(1, d);
    // An answer 503 pauses the endpoint for a second.
    all_at_once(&engine, 200);
    engine.flush(WAIT).unwrap();
    let d = of(&engine, "hook");
    assert_eq!((d.delivered, d.dead_lettered, d.waiting), (200, 0, 0), "{}", d.last_error);
    assert!(d.failures > 0);
    assert_eq!(server.different(), 200);
    engine.close(WAIT).unwrap();
    until("no connection is left", || server.seen.open.load(Ordering::SeqCst) == 0);
}

#[test]
fn an_endpoint_that_wants_http1_gets_it() {
    let place = Place::new();
    let alpn = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let server = place.server(Settings { alpn, ..Settings::default() }, |_| Act::Reset(Reason::HTTP_1_1_REQUIRED));
    let engine = place.open(1, hook2(&server.url(), &place.root, |_| {}));
    put(&engine, "k", 0);
    // This one does not speak it after all; what matters is that it was asked.
    until("an attempt has failed", || of(&engine, "hook").failures >= 1);
    assert_eq!(server.requests(), 1);
    assert!(server.connections() >= 2);
    engine.close(Duration::ZERO).unwrap();
}

#[test]
fn answers_are_read_within_limits() {
    let place = Place::new();
    let big = Bytes::from(vec![b'x'; 10 << 20]);
    let server = place.server(Settings::default(), move |n| match n {
        0 => Act::Answer(200, Vec::new(), big.clone()),
        1 => Act::Early(409),
        2 => Act::Answer(307, vec![("location", "http://elsewhere.example/?secret")], Bytes::new()),
        _ => ok(),
    });
    let engine = place.open(1, hook2(&server.url(), &place.root, |_| {}));
    put(&engine, "a", 0);
    engine.flush(WAIT).unwrap();
    assert_eq!(of(&engine, "hook").failures, 0);
    put(&engine, "a", 1);
    engine.flush(WAIT).unwrap();
    let d = of(&engine, "hook");
    assert_eq!((d.delivered, d.failures, d.connections), (2, 2, 1), "{}", d.last_error);
    let notes = engine.destination_standing("hook").unwrap().attempts;
    let reasons: Vec<&str> = notes.iter().map(|a| a.reason.as_str()).collect();
    assert!(reasons[0].contains("409"), "{reasons:?}");
    assert!(reasons[1].contains("307") && reasons[1].contains("elsewhere.example"), "{reasons:?}");
    assert!(!reasons[1].contains("secret"), "{reasons:?}");
    engine.close(WAIT).unwrap();
}

/// An attempt that is given up leaves its stream, and nobody waits on a connection that says nothing any more.
#[test]
fn a_connection_that_says_nothing_any_more_is_left() {
    let place = Place::new();
    let server = place.server(Settings::default(), |n| if n < 4 { Act::Stall } else { ok() });
    let mut d = hook2(&server.url(), &place.root, |w| {
        w.timeout = Duration::from_millis(500);
        w.connect_timeout = Duration::from_millis(400);
    });
    d.concurrency = 4;
    let engine = place.open(1, d);
    all_at_once(&engine, 50);
    engine.flush(WAIT).unwrap();
    let d = of(&engine, "hook");
    assert_eq!((d.delivered, d.dead_lettered), (50, 0), "{}", d.last_error);
    assert!((1..=8).contains(&d.failures), "{}", d.failures);
    assert_eq!(server.different(), 50);
    engine.close(WAIT).unwrap();
    until("no connection is left", || server.seen.open.load(Ordering::SeqCst) == 0);
}

#[test]
fn requests_run_at_once_up_to_what_both_ends_allow() {
    for (streams_max, expected) in [(100, 16), (3, 3)] {
        let place = Place::new();
        let settings = Settings { streams_max, delay: Duration::from_millis(20), ..Settings::default() };
        let server = place.server(settings, |_| ok());
        let engine = place.open(1, hook2(&server.url(), &place.root, |_| {}));
        all_at_once(&engine, 400);
        engine.flush(WAIT).unwrap();
        let d = of(&engine, "hook");
        let most = server.seen.most.load(Ordering::SeqCst);
        println!("{streams_max} streams: {most} at once, {} connections", d.connections);
        assert_eq!((d.delivered, d.failures), (400, 0), "{}", d.last_error);
        assert!(most <= expected && most > expected / 2, "{most}");
        engine.close(WAIT).unwrap();
    }
}

#[test]
fn connections_end_by_lifetime_and_leave_nothing_behind() {
    let place = Place::new();
    let server = place.server(Settings::default(), |_| ok());
    let engine = place.open(2, hook2(&server.url(), &place.root, |w| w.pool.requests_max = 25));
    for round in 0..20 {
        (0..500).for_each(|n| put(&engine, &format!("k{n}"), round * 500 + n));
        engine.flush(WAIT).unwrap();
    }
    let d = of(&engine, "hook");
    assert_eq!((d.delivered, d.failures), (10_000, 0), "{}", d.last_error);
    assert!(d.connections >= 400, "{}", d.connections);
    // Those that are done have ended, before the engine is closed.
    until("few are open", || server.seen.open.load(Ordering::SeqCst) <= 8);
    engine.close(WAIT).unwrap();
    until("none is open", || server.seen.open.load(Ordering::SeqCst) == 0);
}
