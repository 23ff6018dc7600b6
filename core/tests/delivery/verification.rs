//! Endpoints are asked before they get events: the handshakes, what waits meanwhile, and what is remembered of it.

use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::common::*;
use serde_json::{Value, json};
use tidewire::event::profile::Profile;
use tidewire::log::standing::{self, State};
use tidewire::rule::{Destination, DestinationKind, Verification, VerificationMethod, Webhook};
use tidewire::{Engine, ErrorKind};
use tidewire_receiver::{Behaviour, Hit, Reply};

fn asked(url: &str, verification: Verification) -> Destination {
    let mut d = hook("hook", url);
    let DestinationKind::Webhook(w) = &mut d.kind else { unreachable!() };
    w.verification = Some(verification);
    d
}

fn of(url: &str, method: VerificationMethod) -> Destination {
    asked(url, Verification::new(method))
}

fn open_one(dir: &Path, d: &Destination) -> Engine {
    open(dir, 2, passing(vec![d.clone()]))
}

fn state(engine: &Engine) -> State {
    engine.destination_standing("hook").unwrap().state
}

fn reason(engine: &Engine) -> String {
    engine.destination_standing("hook").unwrap().reason
}

fn header<'a>(hit: &'a Hit<'_>, name: &str) -> Option<&'a str> {
    hit.headers.get(name).and_then(|v| v.to_str().ok())
}

/// What a receiver was asked and sent: the bodies.
type Bodies = Arc<Mutex<Vec<Vec<u8>>>>;

/// Notes the bodies, and answers 204 what has records, other requests as told.
fn noting(bodies: &Bodies, answer: impl Fn(&Hit<'_>) -> Reply + Send + Sync + 'static) -> Behaviour {
    let bodies = bodies.clone();
    Behaviour::decide(move |hit| {
        if !hit.records.is_empty() {
            return Reply::status(204);
        }
        bodies.lock().unwrap().push(hit.body.to_vec());
        answer(hit)
    })
}

fn last_json(bodies: &Bodies) -> Value {
    serde_json::from_slice(bodies.lock().unwrap().last().unwrap()).unwrap()
}

#[test]
fn nothing_is_sent_before_consent_and_a_status_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let bodies = Bodies::default();
    let r = receiver(noting(&bodies, |_| Reply::status(200).header("Allow", "POST")));
    let mut v = Verification::new(VerificationMethod::CloudEvents);
    (v.origin, v.rate) = (Some("store.example.com".into()), Some(600_000));
    let d = asked(&r.url(), v.clone());
    let engine = open_one(dir.path(), &d);
    (0..20).for_each(|n| put(&engine, &format!("k{n}"), n));
    until("it is told why", || reason(&engine).contains("without WebHook-Allowed-Origin"));
    assert_eq!((state(&engine), r.accepted()), (State::Pending, 0));
    let request = r.last_request().unwrap();
    assert_eq!((&*request.method, request.body.len()), ("OPTIONS", 0));
    assert_eq!(request.headers["webhook-request-origin"], "store.example.com");
    assert_eq!(request.headers["webhook-request-rate"], "600000");
    // Across a restart it waits on, and so do its events.
    engine.close(WAIT).unwrap();
    let engine = open_one(dir.path(), &d);
    put(&engine, "k", 1);
    assert_eq!((state(&engine), r.accepted()), (State::Pending, 0));
    let consent = |hit: &Hit<'_>| {
        assert_eq!(header(hit, "webhook-request-origin"), Some("store.example.com"));
        let reply = Reply::status(405);
        reply.header("WebHook-Allowed-Origin", "store.example.com").header("WebHook-Allowed-Rate", "120000")
    };
    r.set_behaviour(noting(&bodies, consent));
    engine.resume_destination("hook").unwrap();
    engine.flush(WAIT).unwrap();
    assert_eq!((state(&engine), r.accepted()), (State::Active, 21));
    assert_eq!(r.last_request().unwrap().headers["webhook-request-origin"], "store.example.com");
    let known = engine.destination_standing("hook").unwrap();
    assert_eq!(known.endpoints[0].granted_per_minute, Some(120_000));
    engine.close(WAIT).unwrap();
    // Asked again only when its address or this changes.
    let questions = bodies.lock().unwrap().len();
    let mut more = d.clone();
    more.concurrency = 2;
    let engine = open_one(dir.path(), &more);
    put(&engine, "again", 1);
    engine.flush(WAIT).unwrap();
    assert_eq!((bodies.lock().unwrap().len(), r.accepted()), (questions, 22));
    assert_eq!(engine.destination_standing("hook").unwrap().endpoints[0].granted_per_minute, Some(120_000));
    v.rate = Some(60_000);
    engine.replace_rules(passing(vec![asked(&r.url(), v)])).unwrap();
    until("it is asked again", || bodies.lock().unwrap().len() > questions);
    put(&engine, "once more", 1);
    engine.flush(WAIT).unwrap();
    assert_eq!((state(&engine), r.accepted()), (State::Active, 23));
    engine.close(WAIT).unwrap();
}

#[test]
fn the_granted_rate_holds_for_all_shards_together() {
    let dir = tempfile::tempdir().unwrap();
    let grant = |hit: &Hit<'_>| match hit.records.is_empty() {
        true => Reply::status(200).header("WebHook-Allowed-Origin", "*").header("WebHook-Allowed-Rate", "120"),
        false => Reply::status(204),
    };
    let r = receiver(Behaviour::decide(grant));
    let mut d = of(&r.url(), VerificationMethod::CloudEvents);
    d.batch.events_max = 1;
    let engine = open(dir.path(), 4, passing(vec![d]));
    let begun = Instant::now();
    (0..7).for_each(|n| put(&engine, &format!("k{n}"), n));
    engine.flush(WAIT).unwrap();
    // Two a second, of which a second's worth may go at once: a slow machine only makes it longer.
    assert!(begun.elapsed() >= Duration::from_millis(2400), "{:?}", begun.elapsed());
    engine.close(WAIT).unwrap();
}

#[test]
fn a_validation_event_is_answered_with_its_code() {
    let dir = tempfile::tempdir().unwrap();
    let bodies = Bodies::default();
    let wrong = |_: &Hit<'_>| Reply { body: br#"{"validationResponse":"guess"}"#.to_vec(), ..Reply::status(200) };
    let r = receiver(noting(&bodies, wrong));
    let mut d = of(&r.url(), VerificationMethod::EventGrid);
    d.profile = Profile::Azure;
    let engine = open_one(dir.path(), &d);
    put(&engine, "k", 1);
    until("it is told why", || reason(&engine).contains("another `validationResponse`"));
    assert_eq!(state(&engine), State::Pending);
    assert_eq!(r.last_request().unwrap().headers["aeg-event-type"], "SubscriptionValidation");
    let event = last_json(&bodies);
    assert_eq!(event[0]["eventType"], "Microsoft.EventGrid.SubscriptionValidationEvent");
    let right = |hit: &Hit<'_>| {
        let event: Value = serde_json::from_slice(hit.body).unwrap();
        match event[0]["data"]["validationCode"].as_str() {
            Some(code) => Reply { body: json!({"validationResponse": code}).to_string().into(), ..Reply::status(200) },
            None => Reply::status(200),
        }
    };
    r.set_behaviour(Behaviour::decide(right));
    engine.flush(WAIT).unwrap();
    assert_eq!(state(&engine), State::Active);
    assert_eq!(r.last_request().unwrap().headers["aeg-event-type"], "Notification");
    engine.close(WAIT).unwrap();
}

#[test]
fn an_endpoint_may_confirm_later_with_its_token_and_with_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let bodies = Bodies::default();
    let r = receiver(noting(&bodies, |_| Reply::status(202)));
    let v = Verification::new(VerificationMethod::EventGrid).with_callback("https://me.example/v1/confirm").unwrap();
    let engine = open_one(dir.path(), &asked(&r.url(), v));
    put(&engine, "k", 1);
    until("it waits for that", || reason(&engine).contains("to be confirmed"));
    assert_eq!(state(&engine), State::Pending);
    let event = last_json(&bodies);
    let code = event[0]["data"]["validationCode"].as_str().unwrap();
    let url = event[0]["data"]["validationUrl"].as_str().unwrap();
    assert_eq!(url, format!("https://me.example/v1/confirm?destination=hook&token={code}"));
    for wrong in ["", "x", &code[1..], &code.to_uppercase()] {
        assert_eq!(engine.confirm_by_token("hook", wrong, None).unwrap_err().kind(), ErrorKind::NotFound);
    }
    assert_eq!(engine.confirm_by_token("other", code, None).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!((state(&engine), r.accepted()), (State::Pending, 0));
    engine.confirm_by_token("hook", code, Some(6000)).unwrap();
    engine.flush(WAIT).unwrap();
    assert_eq!((state(&engine), r.accepted()), (State::Active, 1));
    assert_eq!(engine.confirm_by_token("hook", code, None).unwrap_err().kind(), ErrorKind::NotFound, "once");
    assert_eq!(engine.destination_standing("hook").unwrap().endpoints[0].granted_per_minute, Some(6000));
    engine.close(WAIT).unwrap();
}

#[test]
fn a_challenge_is_echoed_or_nothing_comes() {
    let dir = tempfile::tempdir().unwrap();
    let bodies = Bodies::default();
    let r = receiver(noting(&bodies, |_| Reply { body: b"ok".to_vec(), ..Reply::status(200) }));
    let engine = open_one(dir.path(), &of(&r.url(), VerificationMethod::Challenge));
    put(&engine, "k", 1);
    until("it is told why", || reason(&engine).contains("without the challenge"));
    assert_eq!(last_json(&bodies)["type"], "url_verification");
    let echo = |hit: &Hit<'_>| {
        let asked: Value = serde_json::from_slice(hit.body).unwrap();
        Reply { body: asked["challenge"].as_str().unwrap().into(), ..Reply::status(200) }
    };
    r.set_behaviour(noting(&bodies, echo));
    engine.flush(WAIT).unwrap();
    assert_eq!((state(&engine), r.accepted()), (State::Active, 1));
    engine.close(WAIT).unwrap();
}

#[test]
fn a_test_event_is_that_of_s3_and_is_judged_as_events_are() {
    let dir = tempfile::tempdir().unwrap();
    let bodies = Bodies::default();
    let r = receiver(noting(&bodies, |_| Reply::status(204)));
    let mut d = of(&r.url(), VerificationMethod::TestEvent);
    let DestinationKind::Webhook(w) = &mut d.kind else { unreachable!() };
    w.success = serde_json::from_value(json!({"statuses": [200, 204], "header": {"name": "X-Taken"}})).unwrap();
    let engine = open_one(dir.path(), &d);
    until("it is told why", || reason(&engine).contains("did not take the test event"));
    let test = last_json(&bodies);
    assert_eq!((&test["Service"], &test["Event"]), (&json!("Amazon S3"), &json!("s3:TestEvent")));
    for member in ["Time", "Bucket", "RequestId", "HostId"] {
        assert!(test[member].as_str().is_some_and(|t| !t.is_empty()), "{test}");
    }
    assert!(test.get("Records").is_none());
    r.set_behaviour(Behaviour::decide(|_| Reply::status(200).header("X-Taken", "1")));
    put(&engine, "k", 1);
    engine.flush(WAIT).unwrap();
    assert_eq!((state(&engine), r.accepted()), (State::Active, 1));
    engine.close(WAIT).unwrap();
    // A profile that has test events of its own sends those.
    let dir = tempfile::tempdir().unwrap();
    let bodies = Bodies::default();
    let r = receiver(noting(&bodies, |_| Reply::status(204)));
    let mut d = of(&r.url(), VerificationMethod::TestEvent);
    d.profile = Profile::CloudEventsStructured;
    let engine = open_one(dir.path(), &d);
    until("it agreed", || state(&engine) == State::Active);
    engine.close(WAIT).unwrap();
}

#[test]
fn suspended_or_without_an_endpoint_it_is_not_asked_and_an_operator_may_vouch_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut r = receiver(Behaviour::Status(500));
    let url = r.url();
    r.stop();
    let d = of(&url, VerificationMethod::Challenge);
    let engine = open_one(dir.path(), &d);
    put(&engine, "k", 1);
    until("it was asked", || reason(&engine).contains("cannot connect"));
    engine.suspend_destination("hook").unwrap();
    assert_eq!(state(&engine), State::Suspended);
    engine.close(WAIT).unwrap();
    let engine = open_one(dir.path(), &d);
    assert_eq!(state(&engine), State::Suspended);
    // Resumed it is pending again: nobody has agreed.
    engine.resume_destination("hook").unwrap();
    assert_eq!(state(&engine), State::Pending);
    engine.confirm_destination("hook", Some(600_000)).unwrap();
    assert_eq!(state(&engine), State::Active);
    r.set_behaviour(Behaviour::Ok204);
    r.restart().unwrap();
    engine.resume_destination("hook").unwrap();
    engine.flush(WAIT).unwrap();
    assert_eq!(r.accepted(), 1);
    engine.close(WAIT).unwrap();
    let engine = open_one(dir.path(), &d);
    assert_eq!(state(&engine), State::Active, "what an operator vouched for is kept");
    engine.close(WAIT).unwrap();
}

#[test]
fn each_of_several_endpoints_is_asked_and_those_that_agree_are_used() {
    let dir = tempfile::tempdir().unwrap();
    let agrees = |hit: &Hit<'_>| match hit.records.is_empty() {
        true => Reply::status(200).header("WebHook-Allowed-Origin", "*"),
        false => Reply::status(204),
    };
    let (a, b) = (receiver(Behaviour::decide(agrees)), receiver(Behaviour::Ok204));
    let endpoint = |url: &str| tidewire::rule::WebhookEndpoint::new(url).unwrap();
    let mut w = Webhook::with_endpoints(vec![endpoint(&a.url()), endpoint(&b.url())]).unwrap();
    w.verification = Some(Verification::new(VerificationMethod::CloudEvents));
    let mut d = hook("hook", &a.url());
    d.kind = DestinationKind::Webhook(w);
    let engine = open_one(dir.path(), &d);
    (0..50).for_each(|n| put(&engine, &format!("k{n}"), n));
    engine.flush(WAIT).unwrap();
    assert_eq!((state(&engine), a.accepted(), b.accepted()), (State::Active, 50, 0));
    let known = engine.destination_standing("hook").unwrap().endpoints;
    assert_eq!((known[0].state, known[1].state), (State::Active, State::Pending));
    b.set_behaviour(Behaviour::decide(agrees));
    engine.resume_destination("hook").unwrap();
    until("the other one agrees", || engine.destination_standing("hook").unwrap().endpoints[1].state == State::Active);
    (0..50).for_each(|n| put(&engine, &format!("k{n}"), n));
    engine.flush(WAIT).unwrap();
    assert!(b.accepted() > 0 && a.accepted() + b.accepted() == 100);
    engine.close(WAIT).unwrap();
}

#[test]
fn the_command_shows_what_is_pending_and_confirms_it() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let r = receiver(Behaviour::decide(|hit| match hit.records.is_empty() {
        true => Reply::status(404),
        false => Reply::status(204),
    }));
    let file = dir.path().join("t.toml");
    let text = format!(
        "[engine]\ndata_dir = \"data\"\n[[destination]]\nname = \"hook\"\ntype = \"webhook\"\nurl = \"{}\"\n\
         verification = {{ method = \"cloudevents\", origin = \"store.example.com\" }}\n\
         [[rule]]\nid = \"all\"\nevents = [\"*\"]\ndestinations = [\"hook\"]\n",
        r.url()
    );
    std::fs::write(&file, text).unwrap();
    let config = tidewire::config::Config::from_file(&file).unwrap();
    let engine = Engine::open(config).unwrap();
    let run = |words: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidewire"));
        let out = command.arg("destination").args(words).arg("--config").arg(&file).output().unwrap();
        let text = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
        (out.status.code().unwrap(), text)
    };
    put(&engine, "k", 1);
    let mut shown = String::new();
    until("that is written", || {
        shown = run(&["show", "hook"]).1;
        shown.contains("404") && shown.contains("asked again at")
    });
    assert!(shown.starts_with("hook: pending: the endpoint answered 404"), "{shown}");
    assert!(run(&["list"]).1.starts_with("hook: pending"));
    let (code, said) = run(&["confirm", "hook", "--rate", "60000"]);
    assert!(code == 0 && said.contains("confirmed"), "{said}");
    engine.flush(WAIT).unwrap();
    until("that is written", || standing::read(&data, "hook").unwrap().is_some_and(|s| s.state == State::Active));
    assert!(run(&["show", "hook"]).1.contains("allows 60000 requests per minute"));
    engine.close(WAIT).unwrap();
}
