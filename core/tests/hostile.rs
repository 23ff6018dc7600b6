//! The hostile receiver: whatever an endpoint does to connections and answers, each event is delivered or a dead letter with
//! the reason, and no connection, descriptor, task or memory is left behind.
//!
//! A test counts what its process has open, so they run one after the other. With `TIDEWIRE_LONG` each behaviour gets
//! 10,000 deliveries, else 200.

mod common;
#[path = "common/h2_server.rs"]
mod h2_server;
#[path = "common/left_behind.rs"]
mod left_behind;
#[path = "common/nginx.rs"]
mod nginx;

use std::collections::HashMap;
use std::io::Write;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::{config, hook, passing, put, until};
use h2::Reason;
use h2_server::{Act, Server, Settings};
use left_behind::{Counting, Mark};
use nginx::{Ca, YEAR};
use tidewire::config::{EngineConfig, Sockets};
use tidewire::net::address::{Trust, parse_net};
use tidewire::net::resolve::Source;
use tidewire::net::socket_counts;
use tidewire::rule::{Destination, DestinationKind, Webhook};
use tidewire::{DeadLetterFilter, DestinationStats, Engine};
use tidewire_receiver::{Behaviour, DnsAnswer, DnsServer, Hostile, HostileSettings, Reply, Trick};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn is_long() -> bool {
    std::env::var_os("TIDEWIRE_LONG").is_some()
}

/// So many deliveries each behaviour gets.
fn deliveries() -> u64 {
    if is_long() { 10_000 } else { 200 }
}

/// Those who hold it are alone in the process.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn edit(d: &mut Destination, with: impl FnOnce(&mut Webhook)) {
    match &mut d.kind {
        DestinationKind::Webhook(w) => with(w),
        _ => unreachable!(),
    }
}

/// One event per request, many requests at once, and no pause that is longer than it must be.
fn relentless(url: &str) -> Destination {
    let mut d = hook("hook", url);
    d.batch.events_max = 1;
    d.concurrency = 256;
    d.adaptive_concurrency = false;
    d.breaker.consecutive_failures = 1_000_000;
    d.breaker.calls_min = 1_000_000;
    d.retry.backoff_min = Duration::from_millis(1);
    d.retry.backoff_max = Duration::from_millis(10);
    d.retry.retry_after_max = Duration::from_secs(1);
    edit(&mut d, |w| {
        w.timeout = Duration::from_secs(60);
        w.connect_timeout = Duration::from_secs(30);
        w.idle = Duration::from_millis(300);
    });
    d
}

/// With attempts that are given up soon.
fn impatient(mut d: Destination) -> Destination {
    d.concurrency = 1000;
    edit(&mut d, |w| {
        w.timeout = Duration::from_millis(250);
        w.connect_timeout = Duration::from_millis(250);
    });
    d
}

fn of(engine: &Engine) -> DestinationStats {
    engine.stats().destinations.into_iter().find(|d| d.name == "hook").unwrap()
}

/// Waits as long as anything moves: how fast is the machine's affair.
fn settle(what: &str, engine: &Engine) {
    loop {
        let is_over = |d: &DestinationStats| d.waiting == 0 && d.delivered + d.dead_lettered == d.routed;
        let last = of(engine);
        if is_over(&last) {
            return;
        }
        until(what, || {
            let now = of(engine);
            is_over(&now) || now.waiting != last.waiting || now.requests != last.requests
        });
    }
}

fn publish(engine: &Engine, count: u64) {
    let before = of(engine).routed;
    (0..count).for_each(|n| put(engine, &format!("k{n}"), n));
    until("all are routed", || of(engine).routed >= before + count);
}

/// An engine with one destination, and what its process had open before and when nothing was under way.
struct Scene {
    engine: Engine,
    /// Before there was an engine.
    before: Mark,
    /// When nothing was under way.
    idle: Mark,
    begun: Instant,
    what: String,
    dir: tempfile::TempDir,
}

impl Scene {
    /// Opens the engine, and has some events delivered, so that everything is there that stays.
    fn open(
        what: &str,
        d: Destination,
        with: impl FnOnce(&mut EngineConfig),
        open_connections: impl Fn() -> u64,
    ) -> Scene {
        let dir = tempfile::tempdir().unwrap();
        let before = Mark::now(0);
        let mut c = config(dir.path(), 2);
        with(&mut c);
        let engine = Engine::open_with(c, passing(vec![d])).unwrap();
        publish(&engine, 64);
        settle(what, &engine);
        until("the connections of the start are closed", || open_connections() == 0 && socket_counts().operations == 0);
        let idle = Mark::beginning(engine.stats().tasks);
        Scene { engine, before, idle, begun: Instant::now(), what: what.to_owned(), dir }
    }

    /// While the engine is open: connections are closed when they were idle, and nothing is left of what is over.
    fn leaves_nothing(&self, events: u64, open_connections: impl Fn() -> u64) {
        let what = &self.what;
        until(&format!("{what}: no connection is open"), || open_connections() == 0);
        let mut last = String::new();
        let deadline = Instant::now() + common::WAIT;
        while let Some(more) = Mark::now(self.engine.stats().tasks).more_than(&self.idle, events) {
            last = more;
            assert!(Instant::now() < deadline, "{what}: is left behind: {last}");
            std::thread::sleep(Duration::from_millis(20));
        }
        drop(last);
        let d = of(&self.engine);
        println!(
            "{what}: {events} events, {} requests, {} failures, {} connections, {:.1?}; {}",
            d.requests,
            d.failures,
            d.connections,
            self.begun.elapsed(),
            Mark::now(self.engine.stats().tasks).told_since(&self.idle),
        );
    }

    /// Closes the engine: nothing is left of it.
    fn close(self, open_connections: impl Fn() -> u64) {
        let Scene { engine, before, what, dir, .. } = self;
        engine.close(Duration::ZERO).unwrap();
        drop(engine);
        drop(dir);
        until(&format!("{what}: no connection is open after the end"), || open_connections() == 0);
        let more = || Mark::now(0).descriptors_more_than(&before);
        until(&format!("{what}: no descriptor is open after the end"), || {
            let more = more();
            more.iter().for_each(|m| println!("{what}: {m}"));
            more.is_none()
        });
    }
}

/// What is to become of events.
enum Outcome {
    /// They are delivered by such answers, without a failure.
    Delivered,
    /// Attempts fail until the endpoint is calm, or their number is up, with these words as the reason and this status.
    Fails(&'static str, u16),
    /// The endpoint is left alone, and no attempt counts.
    Waits,
}

fn hostile(tls: bool) -> Hostile {
    Hostile::start(HostileSettings { tls, ..HostileSettings::default() }).unwrap()
}

/// Each event was taken, and if `once`, once.
fn all_taken(what: &str, taken: &HashMap<String, u32>, count: u64, once: bool) {
    for n in 0..count {
        let times = taken.get(&format!("k{n}")).copied().unwrap_or(0);
        assert!(times >= 1, "{what}: k{n} is lost");
        assert!(!once || times == 1, "{what}: k{n} was taken {times} times");
    }
    assert_eq!(taken.len() as u64, count, "{what}");
}

struct Case {
    trick: Trick,
    outcome: Outcome,
    tls: bool,
    impatient: bool,
    /// An event that was taken may come again.
    repeats: bool,
}

impl Case {
    fn new(trick: Trick, outcome: Outcome) -> Case {
        Case { trick, outcome, tls: false, impatient: false, repeats: false }
    }

    fn run(&self) {
        self.run_over(Sockets::Ring);
        // Those that take their time only where there is plenty.
        let takes_time = self.tls || self.impatient || matches!(self.outcome, Outcome::Waits);
        if is_long() || !takes_time {
            self.run_over(Sockets::Runtime);
        }
    }

    fn run_over(&self, sockets: Sockets) {
        let _alone = alone();
        let (trick, count) = (self.trick, deliveries());
        let what = format!("{trick}{} ({sockets:?})", if self.tls { " over TLS" } else { "" });
        let h = hostile(self.tls);
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root.pem");
        std::fs::write(&root, h.authority()).unwrap();
        let mut d = relentless(&h.url());
        if self.tls {
            edit(&mut d, |w| w.tls.ca = vec![root]);
        }
        let open = || h.open();
        let patient = d.clone();
        if self.impatient {
            d = impatient(d);
        }
        let scene = Scene::open(&what, d.clone(), |c| c.network.sockets = sockets, open);
        let engine = &scene.engine;
        h.take_events();
        let before = of(engine);
        h.play(trick, if matches!(self.outcome, Outcome::Delivered) { u64::MAX } else { count });
        if trick == Trick::CloseIdle {
            for n in 0..count {
                put(engine, &format!("k{n}"), n);
                if n % 8 == 7 {
                    // From before it closes to after.
                    std::thread::sleep(Duration::from_micros(n % 200 * 10));
                }
            }
            until("all are routed", || of(engine).routed == before.routed + count);
        } else {
            publish(engine, count);
        }
        if self.impatient {
            // What is calm may take its time.
            until(&what, || h.played() >= count || of(engine).waiting == 0);
            engine.replace_rules(passing(vec![patient.clone()])).unwrap();
        }
        settle(&what, engine);
        let after = of(engine);
        let failures = after.failures - before.failures;
        assert_eq!(
            (after.delivered - before.delivered, after.dead_lettered),
            (count, 0),
            "{what}: {}",
            after.last_error
        );
        match self.outcome {
            Outcome::Delivered => assert_eq!(failures, 0, "{what}: {}", after.last_error),
            // A connection that is used again and closed without a word costs no attempt, but a turn.
            _ => assert!(failures >= count / 4 && h.played() == count, "{what}: {failures} failures"),
        }
        // A calm answer may have come too late for who is impatient.
        all_taken(&what, &h.take_events(), count, !self.repeats && !self.impatient);
        assert_eq!(h.wrong_requests(), 0, "{what}");
        scene.leaves_nothing(count, open);
        match self.outcome {
            Outcome::Fails(reason, status) => self.dead_letters(&what, &scene, &h, &d, (reason, status)),
            Outcome::Waits => self.no_attempt_counts(&what, &scene, &h, &patient),
            Outcome::Delivered => {}
        }
        until(&what, || h.open() == 0);
        h.take_events();
        scene.close(open);
    }

    /// With two attempts and an endpoint that stays so, each event is a dead letter that says why.
    fn dead_letters(&self, what: &str, scene: &Scene, h: &Hostile, d: &Destination, (reason, status): (&str, u16)) {
        const EVENTS: u64 = 40;
        let engine = &scene.engine;
        let mut d = d.clone();
        d.retry.attempts_max = Some(2);
        engine.replace_rules(passing(vec![d])).unwrap();
        h.play(self.trick, u64::MAX);
        publish(engine, EVENTS);
        settle(what, engine);
        let letters = || engine.dead_letters(&DeadLetterFilter::default(), None, 1000).unwrap();
        until("they are kept", || letters().len() as u64 == EVENTS);
        assert_eq!(of(engine).dead_lettered, EVENTS, "{what}");
        for letter in letters() {
            assert!(letter.reason.contains(reason), "{what}: {}", letter.reason);
            assert_eq!((letter.attempts, letter.status), (2, status), "{what}: {}", letter.reason);
        }
        assert!(h.take_events().is_empty() || self.repeats, "{what}");
    }

    /// With one attempt there is no dead letter either.
    fn no_attempt_counts(&self, what: &str, scene: &Scene, h: &Hostile, d: &Destination) {
        const EVENTS: u64 = 40;
        let engine = &scene.engine;
        let mut d = d.clone();
        d.retry.attempts_max = Some(1);
        engine.replace_rules(passing(vec![d])).unwrap();
        h.play(self.trick, EVENTS);
        let failures = of(engine).failures;
        publish(engine, EVENTS);
        settle(what, engine);
        let d = of(engine);
        assert!(d.failures > failures, "{what}");
        assert_eq!(d.dead_lettered, 0, "{what}: {}", d.last_error);
        all_taken(what, &h.take_events(), EVENTS, true);
        let notes = engine.destination_standing("hook").unwrap().attempts;
        assert!(notes.iter().any(|a| a.status == 429), "{what}: {notes:?}");
    }
}

macro_rules! cases {
    ($($(#[$doc:meta])* fn $name:ident() = $trick:ident, $outcome:expr $(, $field:ident)*;)+) => {
        $(
            $(#[$doc])*
            #[test]
            fn $name() {
                #[allow(unused_mut)]
                let mut case = Case::new(Trick::$trick, $outcome);
                $(case.$field = true;)*
                case.run();
            }
        )+
    };
}

use Outcome::{Delivered, Fails, Waits};

cases! {
    fn closed_before_the_request_was_read() = CloseBeforeRead, Fails("onnect", 0);
    fn reset_before_the_request_was_read() = ResetBeforeRead, Fails("onnect", 0);
    fn reset_after_the_head_of_the_request() = ResetAfterRequestHead, Fails("the connection broke", 0);
    fn closed_without_an_answer() = CloseAfterRequest, Fails("closed the connection without an answer", 0);
    fn reset_without_an_answer() = ResetAfterRequest, Fails("the connection broke", 0);
    fn reset_after_the_head_of_the_answer() = ResetAfterHead, Fails("the connection broke", 0);
    /// What was said counts, if it arrived before the reset did.
    fn reset_after_the_answer() = ResetAfterAnswer, Delivered, repeats;
    fn half_a_head() = HalfHead, Fails("closed the connection mid-answer", 0);
    fn half_an_answer() = HalfResponse, Fails("within the body of an answer 200", 0);
    fn half_a_chunk() = HalfChunk, Fails("within the body of an answer 200", 0);
    fn an_answer_of_a_byte_per_second() = Drip, Fails("no complete answer within 250ms", 0), impatient;
    fn a_body_without_end() = EndlessBody, Delivered;
    fn chunks_without_end() = EndlessChunks, Delivered;
    /// Nothing is decompressed.
    fn a_gzip_bomb() = GzipBomb, Delivered;
    fn a_head_of_a_mebibyte() = HugeHead, Fails("the headers of the answer exceed", 0);
    fn a_flood_of_interim_answers() = InterimFlood, Fails("interim answers", 0);
    fn nothing_but_100_continue() = ContinueOnly, Fails("no complete answer within 250ms", 0), impatient;
    /// What follows is no answer to the next request.
    fn a_204_with_a_body() = NoContentWithBody, Delivered;
    fn two_different_lengths() = TwoLengths, Fails("two different Content-Length", 0);
    /// Its `Location` is told, and nobody goes there.
    fn a_redirect_to_a_private_address() = RedirectPrivate, Fails("169.254.169.254", 307);
    fn retry_after_in_seconds() = RetryAfterSeconds, Waits;
    fn retry_after_as_a_date() = RetryAfterDate, Waits;
    fn retry_after_that_is_garbage() = RetryAfterGarbage, Waits;
    fn retry_after_in_thousands_of_years() = RetryAfterHuge, Waits;
    fn retry_after_before_now() = RetryAfterNegative, Waits;
    /// The request is sent once more on another connection, and no attempt fails.
    fn idle_connections_closed_at_the_moment_of_use() = CloseIdle, Delivered;
    fn accepted_and_never_read() = Stall, Fails("no complete answer within 250ms", 0), impatient;
    fn read_and_never_answered() = StallAfterRequest, Fails("no complete answer within 250ms", 0), impatient;
    fn a_certificate_of_an_unknown_authority() = WrongCertificate, Fails("UnknownIssuer", 0), tls;
    fn a_certificate_that_has_expired() = ExpiredCertificate, Fails("xpired", 0), tls;
    fn a_certificate_of_another_name() = OtherName, Fails("name", 0), tls;
    fn a_handshake_that_is_never_answered() = Stall, Fails("within 250ms", 0), tls, impatient;
    fn a_handshake_that_is_reset() = ResetBeforeRead, Fails("", 0), tls;
    fn half_an_answer_over_tls() = HalfResponse, Fails("", 0), tls;
    fn a_body_without_end_over_tls() = EndlessBody, Delivered, tls;
    fn idle_tls_connections_closed_at_the_moment_of_use() = CloseIdle, Delivered, tls;
}

/// What counts what is under way sees it.
#[test]
fn what_is_under_way_is_counted() {
    const EVENTS: u64 = 50;
    let _alone = alone();
    let h = hostile(false);
    let open = || h.open();
    let scene = Scene::open("counting", relentless(&h.url()), |c| c.network.sockets = Sockets::Ring, open);
    h.play(Trick::StallAfterRequest, EVENTS);
    publish(&scene.engine, EVENTS);
    until("all are under way", || h.played() == EVENTS);
    let parts = [format!("{EVENTS} tasks"), format!("{EVENTS} operations"), format!("{} sockets", 2 * EVENTS)];
    // The endpoint may have the requests before the shard has counted.
    until("all are counted", || {
        let more = Mark::now(scene.engine.stats().tasks).more_than(&scene.idle, 0).unwrap_or_default();
        parts.iter().all(|part| more.contains(part))
    });
    scene.close(open);
}

/// The endpoint says once that it is gone. It is left alone until somebody says that it is there; no event is lost.
#[test]
fn gone_once() {
    let _alone = alone();
    let (h, count) = (hostile(false), deliveries());
    let open = || h.open();
    let scene = Scene::open("gone", relentless(&h.url()), |_| {}, open);
    let engine = &scene.engine;
    h.take_events();
    let before = of(engine);
    h.play(Trick::Gone, 1);
    put(engine, "k0", 0);
    until("it is gone", || of(engine).failures == before.failures + 1);
    (1..count).for_each(|n| put(engine, &format!("k{n}"), n));
    until("all wait", || of(engine).waiting == count);
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(of(engine).requests, before.requests + 1, "it is left alone");
    engine.resume_destination("hook").unwrap();
    settle("gone", engine);
    let d = of(engine);
    assert_eq!((d.delivered, d.failures, d.dead_lettered), (before.delivered + count, before.failures + 1, 0));
    all_taken("gone", &h.take_events(), count, true);
    scene.leaves_nothing(count, open);
    scene.close(open);
}

/// A length with every body, never chunks, never `Expect`.
#[test]
fn simple_receivers_understand_every_request() {
    let _alone = alone();
    let h = hostile(false);
    let open = || h.open();
    let scene = Scene::open("simple", relentless(&h.url()), |_| {}, open);
    let mut batches = relentless(&h.url());
    batches.batch.events_max = 10_000;
    batches.batch.linger = Duration::from_millis(50);
    scene.engine.replace_rules(passing(vec![batches])).unwrap();
    h.take_events();
    let requests = h.requests();
    (0..2000).for_each(|n| common::put_large(&scene.engine, &format!("k{n}"), n));
    until("all are taken", || {
        of(&scene.engine).delivered == of(&scene.engine).routed && of(&scene.engine).routed >= 2064
    });
    all_taken("simple", &h.take_events(), 2000, true);
    assert!(h.requests() - requests < 2000 && h.wrong_requests() == 0);
    // It would notice.
    let mut wrong = TcpStream::connect(h.addr()).unwrap();
    wrong.write_all(b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n").unwrap();
    until("it notices", || h.wrong_requests() > 0);
    drop(wrong);
    scene.close(open);
}

/// They are kept as they came, up to a bound, and shown as text that is legal.
#[test]
fn the_bytes_of_an_answer_break_the_record_of_the_attempt() {
    let _alone = alone();
    let body: Vec<u8> = [0x1f, 0x8b, 0x08, 0x00, 0xff, 0xc3].into_iter().chain((0..20_000).map(|n| n as u8)).collect();
    let reply = Reply { body: body.clone(), ..Reply::status(500) }.header("Content-Encoding", "gzip");
    let r = common::receiver(Behaviour::decide(move |_| reply.clone()));
    let dir = tempfile::tempdir().unwrap();
    let mut d = relentless(&r.url());
    d.retry.attempts_max = Some(2);
    let engine = Engine::open_with(config(dir.path(), 1), passing(vec![d])).unwrap();
    publish(&engine, 20);
    settle("answers", &engine);
    let letters = || engine.dead_letters(&DeadLetterFilter::default(), None, 1000).unwrap();
    until("they are kept", || letters().len() == 20);
    for letter in letters() {
        assert_eq!((letter.status, letter.attempts), (500, 2), "{}", letter.reason);
        assert!(letter.answer.len() >= 1024 && letter.answer.len() <= 4096 && body.starts_with(&letter.answer));
    }
    let notes = engine.destination_standing("hook").unwrap().attempts;
    assert!(!notes.is_empty());
    for note in notes {
        assert!(note.status == 500 && !note.answer.is_empty());
        assert!(note.answer.len() <= 4096, "{} bytes", note.answer.len());
    }
    engine.close(Duration::ZERO).unwrap();
}

fn ips(list: &[&str]) -> Vec<IpAddr> {
    list.iter().map(|t| t.parse().unwrap()).collect()
}

/// Hostile receivers at one port of several addresses of this machine.
fn hostiles(addresses: &[&str]) -> (u16, Vec<Hostile>) {
    for _ in 0..50 {
        let start = |ip: &str, port| {
            let listen = SocketAddr::new(ip.parse().unwrap(), port);
            Hostile::start(HostileSettings { listen, ..HostileSettings::default() })
        };
        let first = start(addresses[0], 0).unwrap();
        let port = first.addr().port();
        let others: Result<Vec<_>, _> = addresses[1..].iter().map(|ip| start(ip, port)).collect();
        if let Ok(others) = others {
            return (port, [first].into_iter().chain(others).collect());
        }
    }
    panic!("no port that is free at all of {addresses:?}");
}

struct Names {
    server: DnsServer,
    port: u16,
    receivers: Vec<Hostile>,
}

impl Names {
    fn new() -> Names {
        let (port, receivers) = hostiles(&["127.0.0.1", "127.0.0.2"]);
        Names { server: DnsServer::start().unwrap(), port, receivers }
    }

    fn set(&self, addresses: &[&str], ttl: u32) {
        self.server.set("h.example", DnsAnswer::Addresses(ips(addresses), ttl));
    }

    /// A connection for each request, for names are looked up when one is made.
    fn open(&self, what: &str, with: impl FnOnce(&mut Webhook)) -> Scene {
        let mut d = relentless(&format!("http://h.example:{}/", self.port));
        edit(&mut d, |w| {
            w.pool.requests_max = 1;
            with(w);
        });
        let configured = |c: &mut EngineConfig| {
            c.network.resolver = Source::Dns(vec![self.server.address()]);
            c.network.tenant.https_only = false;
        };
        let scene = Scene::open(what, d, configured, || self.connections());
        self.taken();
        scene
    }

    fn connections(&self) -> u64 {
        self.receivers.iter().map(Hostile::open).sum()
    }

    /// What each receiver took, together.
    fn taken(&self) -> HashMap<String, u32> {
        let mut all = HashMap::new();
        for (key, times) in self.receivers.iter().flat_map(Hostile::take_events) {
            *all.entry(key).or_default() += times;
        }
        all
    }

    fn ends(&self, what: &str, scene: Scene, count: u64) {
        all_taken(what, &self.taken(), count, true);
        scene.leaves_nothing(count, || self.connections());
        scene.close(|| self.connections());
    }
}

#[test]
fn a_name_that_is_not_there() {
    let _alone = alone();
    let (names, count) = (Names::new(), deliveries());
    names.set(&["127.0.0.1"], 0);
    let scene = names.open("no such name", |_| {});
    let engine = &scene.engine;
    names.server.set("h.example", DnsAnswer::NoSuchName);
    until("it is not there any more", || {
        put(engine, "probe", 0);
        of(engine).last_error.contains("cannot look up h.example")
    });
    let before = of(engine);
    publish(engine, count);
    until("attempts fail", || of(engine).failures >= before.failures + count);
    names.set(&["127.0.0.1"], 0);
    settle("no such name", engine);
    assert_eq!(of(engine).dead_lettered, 0);
    let mut taken = names.taken();
    taken.remove("probe");
    all_taken("no such name", &taken, count, true);
    drop(taken);
    scene.leaves_nothing(count, || names.connections());
    scene.close(|| names.connections());
}

/// Both addresses are the endpoint's; each answer of the resolver has another one.
#[test]
fn an_address_that_flips_and_lives_for_no_time() {
    let _alone = alone();
    let (names, count) = (Names::new(), deliveries());
    names.set(&["127.0.0.1"], 0);
    let scene = names.open("flipping address", |_| {});
    let flips = AtomicU64::new(0);
    let stop = AtomicBool::new(false);
    std::thread::scope(|s| {
        s.spawn(|| {
            while !stop.load(Ordering::SeqCst) {
                let n = flips.fetch_add(1, Ordering::SeqCst);
                names.set(&[["127.0.0.2", "127.0.0.1"][n as usize % 2]], 0);
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            publish(&scene.engine, count);
            settle("flipping address", &scene.engine);
        }));
        stop.store(true, Ordering::SeqCst);
        ended.unwrap();
    });
    assert_eq!(of(&scene.engine).failures, 0, "{}", of(&scene.engine).last_error);
    names.ends("flipping address", scene, count);
}

/// One address is dead: the other one is used, and no attempt fails.
#[test]
fn an_address_that_is_dead_beside_one_that_is_not() {
    let _alone = alone();
    let (mut names, count) = (Names::new(), deliveries());
    names.set(&["127.0.0.1", "127.0.0.2"], 0);
    drop(names.receivers.pop());
    let scene = names.open("dead address", |_| {});
    publish(&scene.engine, count);
    settle("dead address", &scene.engine);
    assert_eq!(of(&scene.engine).failures, 0, "{}", of(&scene.engine).last_error);
    names.ends("dead address", scene, count);
}

/// Only the public one is connected to.
#[test]
fn public_and_private_addresses_of_one_name() {
    let _alone = alone();
    let (names, count) = (Names::new(), deliveries());
    names.set(&["127.0.0.2", "127.0.0.1", "::1"], 0);
    let scene = names.open("mixed addresses", |w| {
        w.trust = Some(Trust::Tenant);
        // What is public cannot be had here: one address of this machine stands for it.
        w.addresses.allow = vec![parse_net("127.0.0.1").unwrap()];
    });
    publish(&scene.engine, count);
    settle("mixed addresses", &scene.engine);
    assert_eq!((of(&scene.engine).failures, names.receivers[1].accepted()), (0, 0));
    names.ends("mixed addresses", scene, count);
}

/// What requests of HTTP/2 meet with.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Over {
    Failures,
    /// Hardly any: what the endpoint says at the end may be lost with the connection, when that is broken while it is written to.
    HardlyAny,
    NoFailure,
}

/// Requests of HTTP/2 that meet with this until so many have come, and are answered then.
fn over_http2(what: &str, acts: impl Fn(u64) -> Act + Send + Sync + 'static, over: Over, impatient_too: bool) {
    let _alone = alone();
    let count = deliveries();
    let dir = tempfile::tempdir().unwrap();
    let ca = Ca::new("servers");
    let root: PathBuf = dir.path().join("root.pem");
    std::fs::write(&root, ca.pem()).unwrap();
    let left = Arc::new(AtomicU64::new(0));
    let turns = left.clone();
    let script = move |n| {
        let turn = turns.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        if turn.is_ok() { acts(n) } else { h2_server::ok() }
    };
    let server = Server::start(&ca.leaf("server", &["localhost"], YEAR), Settings::default(), script);
    let open = || server.seen.open.load(Ordering::SeqCst);
    let taken = || {
        server.seen.heads.lock().unwrap().clear();
        std::mem::take(&mut *server.seen.bodies.lock().unwrap())
    };
    // Its runtime is up, and has the descriptors that it will have.
    drop(TcpStream::connect(("127.0.0.1", server.port)).unwrap());
    until("it serves", || server.connections() > 0 && open() == 0);
    let mut d = relentless(&server.url());
    edit(&mut d, |w| {
        w.tls.ca = vec![root];
        w.http2 = true;
    });
    let patient = d.clone();
    if impatient_too {
        d = impatient(d);
    }
    let scene = Scene::open(what, d, |_| {}, open);
    let engine = &scene.engine;
    taken();
    let before = of(engine);
    left.store(count, Ordering::SeqCst);
    publish(engine, count);
    until(what, || left.load(Ordering::SeqCst) == 0);
    engine.replace_rules(passing(vec![patient])).unwrap();
    settle(what, engine);
    let d = of(engine);
    assert_eq!((d.delivered - before.delivered, d.dead_lettered), (count, 0), "{what}: {}", d.last_error);
    let failures = d.failures - before.failures;
    let as_expected = match over {
        Over::Failures => failures > 0,
        Over::HardlyAny => failures <= count / 100,
        Over::NoFailure => failures == 0,
    };
    assert!(as_expected, "{what}: {failures} failures, {}", d.last_error);
    let bodies = taken();
    assert!(bodies.len() as u64 >= count, "{what}: {}", bodies.len());
    drop(bodies);
    scene.leaves_nothing(count, open);
    scene.close(open);
}

#[test]
fn streams_that_are_reset() {
    over_http2("HTTP/2, reset", |_| Act::Reset(Reason::INTERNAL_ERROR), Over::Failures, false);
}

#[test]
fn streams_that_end_within_the_answer() {
    over_http2("HTTP/2, half", |_| Act::Half, Over::Failures, false);
}

#[test]
fn streams_that_are_never_answered() {
    over_http2("HTTP/2, stall", |_| Act::Stall, Over::Failures, true);
}

#[test]
fn connections_of_http2_that_are_cut() {
    over_http2(
        "HTTP/2, cut",
        |n| if n % 50 == 0 { Act::Cut } else { Act::Reset(Reason::CANCEL) },
        Over::Failures,
        false,
    );
}

#[test]
fn connections_of_http2_that_are_ended() {
    over_http2("HTTP/2, go away", |n| if n % 10 == 0 { Act::GoAway } else { h2_server::ok() }, Over::HardlyAny, false);
}

#[test]
fn bodies_of_http2_without_end() {
    let big = Bytes::from(vec![b'x'; 1 << 20]);
    over_http2("HTTP/2, a large body", move |_| Act::Answer(200, Vec::new(), big.clone()), Over::NoFailure, false);
}
