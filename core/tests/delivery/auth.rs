//! Credentials of destinations at work: signatures on every attempt, secrets that change, tokens, and nothing that is shown.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use crate::common::*;
use tidewire::auth::message_signatures::SignatureAlgorithm;
use tidewire::auth::oauth::TokenEndpoint;
use tidewire::auth::secret::ROTATION_OVERLAP;
use tidewire::auth::{
    ApiKey, Auth, Basic, Bearer, ClientCredentials, Hmac, MessageSignatures, Secret, Secrets, StandardWebhooks, api_key,
};
use tidewire::config::RulesKept;
use tidewire::rule::{Backlog, BatchLimits, Destination, DestinationKind, Expect, RuleSet, Webhook};
use tidewire::{DeadLetterFilter, Engine, Event, KnownType};
use tidewire_receiver::{Behaviour, Hit, Receiver, Reply};

const OLD: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const NEW: &str = "whsec_b2xkLW5ldy1vbGQtbmV3LW9sZC1uZXctb2xk";

/// What came: the headers of each request, and its body.
type Seen = Arc<Mutex<Vec<(Vec<(String, String)>, Vec<u8>)>>>;

fn watched(answer: impl Fn(&Hit<'_>) -> Reply + Send + Sync + 'static) -> (Receiver, Seen) {
    let seen = Seen::default();
    let into = seen.clone();
    let r = receiver(Behaviour::decide(move |hit| {
        let headers = hit.headers.iter().map(|(n, v)| (n.as_str().to_owned(), v.to_str().unwrap().to_owned()));
        into.lock().unwrap().push((headers.collect(), hit.body.to_vec()));
        answer(hit)
    }));
    (r, seen)
}

fn values(seen: &Seen, name: &str) -> Vec<String> {
    let seen = seen.lock().unwrap();
    let of = |h: &[(String, String)]| h.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone()).unwrap_or_default();
    seen.iter().map(|(headers, _)| of(headers)).collect()
}

fn with_auth(name: &str, url: &str, auth: Vec<Auth>) -> Destination {
    let mut d = hook(name, url);
    let DestinationKind::Webhook(w) = &mut d.kind else { unreachable!() };
    w.auth = auth;
    d.batch = BatchLimits { events_max: 1, linger: Duration::ZERO, ..BatchLimits::default() };
    d.concurrency = 1;
    d
}

fn open_one(dir: &Path, d: Destination) -> Engine {
    open(dir, 1, passing(vec![d]))
}

fn last_error(engine: &Engine) -> String {
    engine.stats().destinations[0].last_error.clone()
}

fn unix() -> i64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() as i64
}

#[test]
fn a_retry_has_the_id_of_its_events_and_a_split_batch_its_own() {
    let dir = tempfile::tempdir().unwrap();
    // Batches of several are refused, and so come again; the events that are alone are accepted.
    let (r, seen) = watched(|hit| Reply::status(if hit.records.len() > 1 && hit.number < 4 { 503 } else { 204 }));
    let mut d = with_auth("hook", &r.url(), vec![Auth::StandardWebhooks(StandardWebhooks::new(Secret::text(OLD)))]);
    d.batch = BatchLimits { events_max: 3, linger: Duration::from_secs(5), ..BatchLimits::default() };
    d.breaker.consecutive_failures = 1000;
    let engine = open_one(dir.path(), d);
    (0..3).for_each(|n| put(&engine, &format!("k{n}"), n));
    engine.flush(WAIT).unwrap();
    put(&engine, "alone", 9);
    engine.flush(WAIT).unwrap();
    let ids = values(&seen, "webhook-id");
    let events = |body: &[u8]| {
        let body: serde_json::Value = serde_json::from_slice(body).unwrap();
        let of = |r: &serde_json::Value| r["s3"]["object"]["key"].as_str().unwrap().to_owned();
        body["Records"].as_array().unwrap().iter().map(of).collect::<Vec<_>>()
    };
    let of_events: Vec<(Vec<String>, &String)> =
        seen.lock().unwrap().iter().map(|(_, b)| events(b)).zip(&ids).collect();
    assert!(of_events.len() >= 3, "{of_events:?}");
    for (events, id) in &of_events {
        for (other, other_id) in &of_events {
            assert_eq!(events == other, id == other_id, "{of_events:?}");
        }
    }
    assert!(ids.iter().all(|id| id.starts_with("msg_") && !id.contains('.')));
    engine.close(WAIT).unwrap();
}

#[test]
fn a_secret_file_that_is_changed_while_running_is_used_by_the_next_attempt() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    std::fs::write(&file, "first\n").unwrap();
    let (r, seen) = watched(|_| Reply::status(204));
    let engine = open_one(
        &dir.path().join("data"),
        with_auth("hook", &r.url(), vec![Auth::Bearer(Bearer::new(Secret::file(&file)))]),
    );
    put(&engine, "a", 1);
    engine.flush(WAIT).unwrap();
    std::fs::write(dir.path().join("other"), "second\n").unwrap();
    std::fs::rename(dir.path().join("other"), &file).unwrap();
    // It is looked at once a second.
    std::thread::sleep(Duration::from_millis(1100));
    put(&engine, "b", 2);
    engine.flush(WAIT).unwrap();
    // A file that is gone, or being written, changes nothing.
    std::fs::write(&file, "").unwrap();
    std::thread::sleep(Duration::from_millis(1100));
    put(&engine, "c", 3);
    engine.flush(WAIT).unwrap();
    assert_eq!(values(&seen, "authorization"), ["Bearer first", "Bearer second", "Bearer second"]);
    engine.close(WAIT).unwrap();
}

#[test]
fn a_function_of_the_host_answers_the_secret() {
    let dir = tempfile::tempdir().unwrap();
    let asked = Arc::new(AtomicU64::new(0));
    let counter = asked.clone();
    let secret = Secret::callback(move || match counter.fetch_add(1, Ordering::Relaxed) {
        0 => Err("the vault is sealed".into()),
        n => Ok(format!("token-{n}")),
    });
    let (r, seen) = watched(|_| Reply::status(204));
    let engine = open_one(dir.path(), with_auth("hook", &r.url(), vec![Auth::Bearer(Bearer::new(secret))]));
    put(&engine, "a", 1);
    engine.flush(WAIT).unwrap();
    assert!(last_error(&engine).contains("auth: secret: the host has no secret: the vault is sealed"));
    assert_eq!(values(&seen, "authorization"), ["Bearer token-1"]);
    (0..50).for_each(|n| put(&engine, "a", n));
    engine.flush(WAIT).unwrap();
    assert!(asked.load(Ordering::Relaxed) < 20, "it is asked again for each attempt");
    engine.close(WAIT).unwrap();
}

#[test]
fn messages_signed_with_expired_keys() {
    let dir = tempfile::tempdir().unwrap();
    let (r, seen) = watched(|_| Reply::status(204));
    // One ends while the engine runs, and the other has ended.
    let secrets =
        vec![Secret::text(NEW), Secret::text(OLD).valid_until(unix() + 3), Secret::text(OLD).valid_until(unix() - 1)];
    let engine =
        open_one(dir.path(), with_auth("hook", &r.url(), vec![Auth::StandardWebhooks(StandardWebhooks::new(secrets))]));
    let signatures = || values(&seen, "webhook-signature").last().unwrap().split(' ').count();
    put(&engine, "a", 1);
    engine.flush(WAIT).unwrap();
    let before = values(&seen, "webhook-timestamp")[0].parse::<i64>().unwrap();
    // Where this machine was asleep for long, the first attempt was late itself.
    let first = signatures();
    until("the old one is past", || {
        put(&engine, "a", 1);
        engine.flush(WAIT).unwrap();
        signatures() == 1
    });
    let last = values(&seen, "webhook-timestamp").last().unwrap().parse::<i64>().unwrap();
    assert!(first == 2 && last > before || first == 1, "{first} {before} {last}");
    engine.close(WAIT).unwrap();
}

#[test]
fn without_a_valid_secret_nothing_is_sent_and_nothing_lost() {
    let dir = tempfile::tempdir().unwrap();
    let r = receiver(Behaviour::Ok204);
    let expired = Secret::text("x").valid_until(unix() - 10);
    let engine = open_one(dir.path(), with_auth("hook", &r.url(), vec![Auth::Hmac(Hmac::github(expired))]));
    put(&engine, "a", 1);
    until("it was tried", || engine.stats().destinations[0].failures > 0);
    let e = last_error(&engine);
    assert!(e.contains("auth: secret: every secret has expired, the last one at 20"), "{e}");
    assert_eq!((r.requests(), engine.stats().destinations[0].waiting), (0, 1));
    engine.close(WAIT).unwrap();
    // With a good one it goes on.
    let engine = open_one(dir.path(), with_auth("hook", &r.url(), vec![Auth::Hmac(Hmac::github(Secret::text("x")))]));
    engine.flush(WAIT).unwrap();
    assert_eq!(r.accepted(), 1);
    engine.close(WAIT).unwrap();
}

fn readable_by_others(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            found.extend(readable_by_others(&path));
        } else if path.metadata().unwrap().permissions().mode() & 0o077 != 0 {
            found.push(path.display().to_string());
        }
    }
    found
}

#[test]
fn a_secret_is_replaced_by_the_api_and_both_sign_meanwhile() {
    let dir = tempfile::tempdir().unwrap();
    let (r, seen) = watched(|_| Reply::status(204));
    let engine = open(dir.path(), 1, RuleSet::default());
    let mut d = with_auth("hook", &r.url(), vec![Auth::StandardWebhooks(StandardWebhooks::new(Secret::text(OLD)))]);
    engine.put_destination(d.clone(), Expect::Absent, &Backlog::Keep).unwrap();
    engine.put_rule(everything("all").with_destination("hook"), Expect::Absent).unwrap();
    put(&engine, "a", 1);
    engine.flush(WAIT).unwrap();
    let DestinationKind::Webhook(w) = &mut d.kind else { unreachable!() };
    w.auth[0].secrets_mut().rotate(Secret::text(NEW), unix(), ROTATION_OVERLAP).unwrap();
    engine.put_destination(d, Expect::Anything, &Backlog::Keep).unwrap();
    put(&engine, "a", 2);
    engine.flush(WAIT).unwrap();
    engine.close(WAIT).unwrap();
    // It is there again after a restart, in files that are for nobody else.
    let engine = open(dir.path(), 1, RuleSet::default());
    put(&engine, "a", 3);
    engine.flush(WAIT).unwrap();
    let counts: Vec<usize> = values(&seen, "webhook-signature").iter().map(|s| s.split(' ').count()).collect();
    assert_eq!(counts, [1, 2, 2]);
    engine.close(WAIT).unwrap();
    assert_eq!(readable_by_others(dir.path()), Vec::<String>::new());
    let kept = std::fs::read_to_string(dir.path().join("rules.journal")).unwrap_or_default()
        + &std::fs::read_to_string(dir.path().join("rules.json")).unwrap_or_default();
    assert!(kept.contains(NEW), "secrets that are put as text are kept");
}

#[test]
fn what_cannot_be_kept_is_not_put() {
    let dir = tempfile::tempdir().unwrap();
    let callback = || {
        with_auth("hook", "http://127.0.0.1:1/", vec![Auth::Bearer(Bearer::new(Secret::callback(|| Ok("x".into()))))])
    };
    let engine = open(&dir.path().join("a"), 1, RuleSet::default());
    let e = engine.put_destination(callback(), Expect::Anything, &Backlog::Keep).unwrap_err().to_string();
    assert!(e.contains("destination `hook`: auth: secret: a function of the host cannot be kept"), "{e}");
    engine.close(WAIT).unwrap();
    let mut config = config(&dir.path().join("b"), 1);
    config.rules = RulesKept::Host;
    let engine = Engine::open_with(config, RuleSet::default()).unwrap();
    engine.put_destination(callback(), Expect::Anything, &Backlog::Keep).unwrap();
    engine.close(WAIT).unwrap();
}

/// An endpoint of tokens: `{"access_token": "token-N"}`, and what it was asked.
fn token_endpoint(status: impl Fn(u64) -> u16 + Send + Sync + 'static) -> (Receiver, Seen) {
    let count = AtomicU64::new(0);
    watched(move |_| {
        let n = count.fetch_add(1, Ordering::Relaxed) + 1;
        let mut reply = Reply::status(status(n));
        let filler = "x".repeat(6000);
        reply.body =
            format!("{{\"note\":\"{filler}\",\"access_token\":\"token-{n}\",\"expires_in\":3600}}").into_bytes();
        reply
    })
}

fn credentials(endpoint: &str) -> Vec<Auth> {
    let endpoint = TokenEndpoint::new(endpoint).unwrap();
    vec![Auth::ClientCredentials(ClientCredentials::new(endpoint, "client", Secret::text("s3cret")))]
}

#[test]
fn a_token_is_fetched_once_and_again_when_it_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (tokens, asked) = token_endpoint(|_| 200);
    let revoked = Arc::new(AtomicU64::new(0));
    let at_least = revoked.clone();
    let (r, seen) = watched(move |hit| {
        let token = hit.headers.get("authorization").and_then(|v| v.to_str().ok()?.strip_prefix("Bearer token-"));
        let token: u64 = token.and_then(|n| n.parse().ok()).unwrap_or(0);
        Reply::status(if token > at_least.load(Ordering::Relaxed) { 204 } else { 401 })
    });
    let mut d = with_auth("hook", &r.url(), credentials(&tokens.url()));
    d.concurrency = 8;
    let engine = open_one(dir.path(), d);
    (0..100).for_each(|n| put(&engine, &format!("k{n}"), n));
    engine.flush(WAIT).unwrap();
    assert_eq!((tokens.requests(), r.accepted()), (1, 100));
    assert_eq!(asked.lock().unwrap()[0].1, b"grant_type=client_credentials");
    assert_eq!(values(&asked, "authorization"), ["Basic Y2xpZW50OnMzY3JldA=="]);
    assert_eq!(values(&asked, "content-type"), ["application/x-www-form-urlencoded"]);
    // Refused: one attempt asks for another token and sends again, and no attempt counts as failed.
    revoked.store(1, Ordering::Relaxed);
    (0..100).for_each(|n| put(&engine, &format!("k{n}"), n));
    engine.flush(WAIT).unwrap();
    assert_eq!((tokens.requests(), r.accepted(), engine.stats().destinations[0].failures), (2, 200, 0));
    assert!(values(&seen, "authorization").contains(&"Bearer token-2".to_owned()));
    // Whatever it is given is refused: no storm of tokens.
    revoked.store(1000, Ordering::Relaxed);
    put(&engine, "k", 1);
    until("it was tried often", || engine.stats().destinations[0].failures > 8);
    let (asked, failures) = (tokens.requests(), engine.stats().destinations[0].failures);
    assert!(asked < 3 + failures, "{asked} tokens for {failures} failures");
    engine.close(Duration::ZERO).unwrap();
}

#[test]
fn a_token_endpoint_that_fails_is_told_of_and_asked_again_later() {
    let dir = tempfile::tempdir().unwrap();
    let (tokens, _) = token_endpoint(|n| if n <= 2 { 503 } else { 200 });
    let r = receiver(Behaviour::Ok204);
    let engine = open_one(dir.path(), with_auth("hook", &r.url(), credentials(&tokens.url())));
    put(&engine, "k", 1);
    until("it was tried", || engine.stats().destinations[0].failures > 0);
    let e = last_error(&engine);
    assert!(e.contains("auth: there is no token: the token endpoint: it answered 503"), "{e}");
    assert_eq!(r.requests(), 0);
    engine.flush(WAIT).unwrap();
    assert_eq!((tokens.requests(), r.accepted()), (3, 1));
    engine.close(WAIT).unwrap();
}

/// Everything that is logged in this process.
static LOGGED: Mutex<String> = Mutex::new(String::new());

struct Keep;

impl log::Log for Keep {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let mut logged = LOGGED.lock().unwrap();
        *logged += &format!("{} {}\n", record.level(), record.args());
    }

    fn flush(&self) {}
}

#[test]
fn secrets_are_nowhere_to_be_seen() {
    log::set_logger(&Keep).unwrap();
    log::set_max_level(log::LevelFilter::Trace);
    const HIDDEN: &str = "HiddenHiddenHiddenHiddenHiddenHi";
    let dir = tempfile::tempdir().unwrap();
    let secret = || Secrets::from(Secret::text(HIDDEN));
    let place = api_key::KeyPlace::Query("key".into());
    let webhook = Secret::text(format!("whsec_{HIDDEN}"));
    let schemes = [
        vec![Auth::Basic(Basic::new("u", secret())), Auth::ApiKey(ApiKey::new(place, secret()))],
        vec![Auth::Bearer(Bearer::new(secret())), Auth::StandardWebhooks(StandardWebhooks::new(webhook))],
        vec![
            Auth::Hmac(Hmac::github(secret())),
            Auth::MessageSignatures(MessageSignatures::new(SignatureAlgorithm::HmacSha256, secret())),
        ],
        // Wrong, each at its use.
        vec![Auth::Bearer(Bearer::new(Secret::callback(|| Ok(format!("{HIDDEN}\n{HIDDEN}")))))],
        vec![Auth::StandardWebhooks(StandardWebhooks::new(Secret::callback(|| Ok(format!("whsec_{HIDDEN}-")))))],
        vec![Auth::MessageSignatures(MessageSignatures::new(
            SignatureAlgorithm::Ed25519,
            Secret::callback(|| Ok(format!("-----BEGIN PRIVATE KEY-----\n{HIDDEN}\n-----END PRIVATE KEY-----\n"))),
        ))],
        credentials("http://127.0.0.1:1/t?HiddenHiddenHiddenHiddenHiddenHi"),
    ];
    // One that says what it was sent.
    let r = receiver(Behaviour::decide(|hit| {
        let mut reply = Reply::status(400);
        reply.body = format!("{:?}", hit.headers).into_bytes();
        reply
    }));
    let all = schemes.into_iter().enumerate();
    let mut all: Vec<Destination> = all.map(|(i, auth)| with_auth(&format!("d{i}"), &r.url(), auth)).collect();
    all.iter_mut().for_each(|d| d.retry.poison_attempts = 1);
    let mut shown = format!("{all:?} {all:#?}");
    let count = all.len();
    let engine = open(dir.path(), 1, passing(all));
    put(&engine, "k", 1);
    until("each was tried", || engine.stats().destinations.iter().filter(|d| d.failures > 0).count() == count);
    shown += &format!("{:?} {:?} {engine:?}", engine.stats(), engine.destinations());
    until("the first three have given up", || {
        engine.dead_letters(&DeadLetterFilter::default(), None, 10).unwrap().len() >= 3
    });
    for letter in engine.dead_letters(&DeadLetterFilter::default(), None, 10).unwrap() {
        let answer = String::from_utf8_lossy(&letter.answer).into_owned();
        assert!(answer.contains("tidewire/"), "{answer}");
        shown += &format!("{answer} {letter:?}");
    }
    engine.close(Duration::ZERO).unwrap();
    shown += &LOGGED.lock().unwrap();
    assert!(shown.contains("destination"), "something was logged");
    for hidden in ["Hidden", "SGlkZGVu"] {
        assert!(!shown.contains(hidden), "{shown}");
    }
    let mut d = Webhook::new(&r.url()).unwrap();
    d.auth = vec![Auth::Bearer(Bearer::new(Secret::text(format!("{HIDDEN}\n"))))];
    let d = Destination::new("d", DestinationKind::Webhook(d));
    let e = d.validate().unwrap_err();
    assert!(!format!("{e} {e:?}").contains("Hidden") && e.to_string().contains("line break"), "{e}");
}

#[test]
fn an_event_for_a_host_with_credentials_is_sent_as_ever() {
    let dir = tempfile::tempdir().unwrap();
    let (r, seen) = watched(|_| Reply::status(204));
    let engine = open_one(dir.path(), with_auth("hook", &r.url(), Vec::new()));
    let event = Event::new(KnownType::ObjectCreatedPut.into(), "bucket", b"k");
    engine.publish(&event).unwrap();
    engine.flush(WAIT).unwrap();
    let names: Vec<String> = seen.lock().unwrap()[0].0.iter().map(|(n, _)| n.clone()).collect();
    assert_eq!(names, ["host", "user-agent", "content-type", "accept-encoding", "content-length"]);
    engine.close(WAIT).unwrap();
}
