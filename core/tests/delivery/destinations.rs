//! The states of destinations, their attempts that failed, and test events.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::common::*;
use tidewire::config::EngineConfig;
use tidewire::event::EventTypes;
use tidewire::event::profile::Profile;
use tidewire::log::standing::{self, Order, State};
use tidewire::rule::{Destination, DestinationKind, RuleSet, Verification, VerificationMethod};
use tidewire::{DeadLetterFilter, Engine, ErrorKind, test_destination};
use tidewire_receiver::{Behaviour, Receiver, Reply};

fn state(engine: &Engine) -> State {
    engine.destination_standing("hook").unwrap().state
}

fn open_one(dir: &Path, d: &Destination) -> Engine {
    open(dir, 2, passing(vec![d.clone()]))
}

#[test]
fn a_suspended_destination_gets_nothing_until_it_is_resumed_restarts_or_not() {
    let dir = tempfile::tempdir().unwrap();
    let r = receiver(Behaviour::Ok204);
    let d = hook("hook", &r.url());
    let mut engine = open_one(dir.path(), &d);
    assert_eq!(engine.suspend_destination("other").unwrap_err().kind(), ErrorKind::NotFound);
    put(&engine, "a", 1);
    engine.flush(WAIT).unwrap();
    engine.suspend_destination("hook").unwrap();
    for restart in [false, true] {
        if restart {
            engine.close(Duration::ZERO).unwrap();
            engine = open_one(dir.path(), &d);
        }
        (0..20).for_each(|n| put(&engine, &format!("k{n}"), n));
        assert_eq!(engine.flush(Duration::from_millis(200)).unwrap_err().kind(), ErrorKind::Timeout);
        assert_eq!((state(&engine), r.accepted()), (State::Suspended, 1));
    }
    engine.resume_destination("hook").unwrap();
    engine.flush(WAIT).unwrap();
    assert_eq!((state(&engine), r.accepted()), (State::Active, 41));
    engine.close(WAIT).unwrap();
    let engine = open_one(dir.path(), &d);
    assert_eq!(state(&engine), State::Active);
    // By the files, as the command does it.
    standing::give_order(dir.path(), "hook", Order::Suspend).unwrap();
    until("the order is taken up", || standing::orders(dir.path()).is_empty());
    assert_eq!(state(&engine), State::Suspended);
    put(&engine, "b", 2);
    engine.close(Duration::ZERO).unwrap();
    standing::give_order(dir.path(), "hook", Order::Resume).unwrap();
    let engine = open_one(dir.path(), &d);
    engine.flush(WAIT).unwrap();
    assert_eq!((state(&engine), r.accepted()), (State::Active, 42));
    engine.close(WAIT).unwrap();
}

#[test]
fn a_destination_that_takes_nothing_for_too_long_is_disabled_and_its_events_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let r = receiver(Behaviour::decide(|_| Reply { body: b"out of order".to_vec(), ..Reply::status(500) }));
    let mut d = hook("hook", &r.url());
    (d.disable.after, d.disable.attempts_min) = (Duration::from_millis(20), 3);
    let engine = open_one(dir.path(), &d);
    (0..20).for_each(|n| put(&engine, &format!("k{n}"), n));
    until("it is disabled", || state(&engine) == State::Disabled);
    let requests = r.requests();
    assert!(requests >= 3);
    let s = engine.destination_standing("hook").unwrap();
    let last = s.attempts.last().unwrap();
    assert_eq!((&*last.outcome, last.status, &*last.answer), ("retry", 500, "out of order"));
    assert!(last.events > 0 && !last.first_event.is_empty() && last.reason.contains("500"));
    engine.close(Duration::ZERO).unwrap();
    r.set_behaviour(Behaviour::Ok204);
    let engine = open_one(dir.path(), &d);
    assert_eq!(state(&engine), State::Disabled);
    until("what waits is counted", || engine.stats().waiting == 20);
    assert_eq!(engine.flush(Duration::from_millis(200)).unwrap_err().kind(), ErrorKind::Timeout);
    assert_eq!(r.accepted(), 0);
    assert!(!engine.destination_standing("hook").unwrap().attempts.is_empty(), "what failed is still known");
    engine.resume_destination("hook").unwrap();
    engine.flush(WAIT).unwrap();
    assert_eq!((state(&engine), r.accepted()), (State::Active, 20));
    engine.close(WAIT).unwrap();
}

#[test]
fn events_of_a_disabled_destination_become_dead_letters_when_they_are_too_old() {
    let dir = tempfile::tempdir().unwrap();
    let r = receiver(Behaviour::Status(500));
    let mut d = hook("hook", &r.url());
    (d.disable.after, d.disable.attempts_min) = (Duration::from_millis(20), 3);
    d.retry.age_max = Duration::from_secs(2);
    let engine = open_one(dir.path(), &d);
    // Some of them are tried, others never.
    (0..40).for_each(|n| put(&engine, &format!("k{n}"), n));
    engine.flush(WAIT).unwrap();
    let letters = engine.dead_letters(&DeadLetterFilter::default(), None, 100).unwrap();
    assert_eq!((letters.len(), r.accepted()), (40, 0));
    engine.close(WAIT).unwrap();
}

#[test]
fn closing_does_not_wait_for_what_is_suspended_or_pending() {
    let dir = tempfile::tempdir().unwrap();
    let r = receiver(Behaviour::Status(404));
    let mut pending = hook("pending", &r.url());
    let DestinationKind::Webhook(w) = &mut pending.kind else { unreachable!() };
    w.verification = Some(Verification::new(VerificationMethod::CloudEvents));
    let works = receiver(Behaviour::Delay(Duration::from_millis(50)));
    let rules = || passing(vec![hook("hook", &r.url()), pending.clone(), hook("works", &works.url())]);
    let engine = open(dir.path(), 2, rules());
    engine.suspend_destination("hook").unwrap();
    (0..50).for_each(|n| put(&engine, &format!("k{n}"), n));
    // It would be for ever.
    engine.close(Duration::from_secs(1_000_000)).unwrap();
    assert_eq!(works.accepted(), 50, "what can be delivered was waited for");
    r.set_behaviour(Behaviour::Ok204);
    let engine = open(dir.path(), 2, rules());
    engine.resume_destination("hook").unwrap();
    engine.confirm_destination("pending", None).unwrap();
    engine.flush(WAIT).unwrap();
    // Both have the same receiver, which knows events by their ids.
    assert_eq!((r.accepted(), r.records().iter().filter(|r| r.accepted).count()), (50, 100));
    engine.close(WAIT).unwrap();
}

/// The bodies that a receiver was sent, as text.
type Bodies = std::sync::Arc<std::sync::Mutex<Vec<serde_json::Value>>>;

fn taking(bodies: &Bodies) -> Behaviour {
    let bodies = bodies.clone();
    Behaviour::decide(move |hit| {
        let value: serde_json::Value = serde_json::from_slice(hit.body).unwrap_or_default();
        bodies.lock().unwrap().extend(value.as_array().cloned().unwrap_or_default());
        Reply::status(204)
    })
}

#[test]
fn the_operator_is_told_what_becomes_of_destinations_and_never_of_his_own() {
    let dir = tempfile::tempdir().unwrap();
    let bodies = Bodies::default();
    let ops = receiver(taking(&bodies));
    let r = receiver(Behaviour::Status(500));
    let mut d = hook("hook", &r.url());
    (d.disable.after, d.disable.attempts_min) = (Duration::from_millis(1500), 3);
    let mut pending = hook("pending", &r.url());
    let DestinationKind::Webhook(w) = &mut pending.kind else { unreachable!() };
    w.verification = Some(Verification::new(VerificationMethod::Challenge));
    let mut operator = hook("ops", &ops.url());
    operator.profile = Profile::CloudEvents;
    let mut config = config(dir.path(), 2);
    config.operator_destination = Some("ops".into());
    // Only the one that fails has a rule.
    let rules = || {
        let rules = vec![everything("all").with_destination("hook")];
        RuleSet::build(rules, vec![d.clone(), pending.clone(), operator.clone()], EventTypes::default()).unwrap()
    };
    let engine = Engine::open_with(config.clone(), rules()).unwrap();
    (0..20).for_each(|n| put(&engine, &format!("k{n}"), n));
    let told = |of: &str, what: &str| {
        let kind = format!("System:Destination:{what}");
        let all = bodies.lock().unwrap();
        let is_it = |e: &&serde_json::Value| e["type"].as_str().is_some_and(|t| t.ends_with(&kind));
        all.iter().filter(is_it).filter(|e| e.to_string().contains(&format!("\"destination\":\"{of}\""))).count()
    };
    for (of, what) in [("pending", "Pending"), ("hook", "BreakerOpened"), ("hook", "Failing"), ("hook", "Disabled")] {
        until(what, || told(of, what) > 0);
    }
    assert_eq!(told("hook", "Disabled"), 1);
    engine.resume_destination("hook").unwrap();
    until("it is told", || told("hook", "Resumed") == 1);
    engine.suspend_destination("hook").unwrap();
    until("it is told", || told("hook", "Suspended") == 1);
    engine.confirm_destination("pending", None).unwrap();
    until("it is told", || told("pending", "Verified") == 1);
    // Of itself nothing is told, whatever becomes of it.
    engine.suspend_destination("ops").unwrap();
    until("that is written", || standing::read(dir.path(), "ops").unwrap().is_some());
    engine.resume_destination("ops").unwrap();
    put(&engine, "k", 1);
    engine.resume_destination("hook").unwrap();
    until("it is told", || told("hook", "Resumed") == 2);
    assert!(!bodies.lock().unwrap().iter().any(|e| e.to_string().contains("\"destination\":\"ops\"")));
    engine.close(Duration::ZERO).unwrap();
    // One that cannot be told is refused.
    operator.profile = Profile::Aws;
    let rules = RuleSet::build(vec![], vec![operator], EventTypes::default()).unwrap();
    let e = Engine::open_with(config, rules).unwrap_err();
    assert!(e.to_string().contains("operator_destination") && e.remedy_text().is_some(), "{e}");
}

/// Whether a request is signed with a secret of Standard Webhooks, and by how many.
fn signed_by(r: &tidewire_receiver::LastRequest, secret: &str) -> (bool, usize) {
    use base64::Engine as _;
    let engine = base64::engine::general_purpose::STANDARD;
    let key = engine.decode(secret.strip_prefix("whsec_").unwrap()).unwrap();
    let of = |name: &str| r.headers[name].to_str().unwrap();
    let mut text = format!("{}.{}.", of("webhook-id"), of("webhook-timestamp")).into_bytes();
    text.extend_from_slice(&r.body);
    let made = ring::hmac::sign(&ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &key), &text);
    let signatures: Vec<&str> = of("webhook-signature").split(' ').collect();
    let expected = format!("v1,{}", engine.encode(made.as_ref()));
    (signatures.contains(&expected.as_str()), signatures.len())
}

#[test]
fn of_secrets_that_are_rotated_at_once_none_is_lost() {
    use tidewire::auth::{Auth, Secret, StandardWebhooks};
    const OLD: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let r = receiver(Behaviour::Ok204);
    for _ in 0..10 {
        let dir = tempfile::tempdir().unwrap();
        let mut d = hook("hook", &r.url());
        let DestinationKind::Webhook(w) = &mut d.kind else { unreachable!() };
        w.auth = vec![Auth::StandardWebhooks(StandardWebhooks::new(Secret::text(OLD)))];
        let engine = open(dir.path(), 1, passing(vec![d]));
        let start = std::sync::Barrier::new(3);
        let rotate = || {
            start.wait();
            engine.rotate_secret("hook", None, Duration::from_secs(3600)).unwrap()
        };
        let new: Vec<_> = std::thread::scope(|s| {
            let all: Vec<_> = (0..3).map(|_| s.spawn(rotate)).collect();
            all.into_iter().map(|one| one.join().unwrap()).collect()
        });
        put(&engine, "k", 1);
        engine.flush(WAIT).unwrap();
        let request = r.last_request().unwrap();
        assert!(new.iter().all(|n| signed_by(&request, &n.secret) == (true, 4)));
        engine.close(WAIT).unwrap();
    }
}

#[test]
fn a_secret_is_rotated_while_events_flow_and_is_shown_once() {
    const OLD: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let r = receiver(Behaviour::Ok204);
    let file = dir.path().join("t.toml");
    let text = format!(
        "[engine]\ndata_dir = \"data\"\n[[destination]]\nname = \"hook\"\ntype = \"webhook\"\nurl = \"{}\"\n\
         auth = {{ scheme = \"standard-webhooks\", secret = \"{OLD}\" }}\n\
         [[rule]]\nid = \"all\"\nevents = [\"*\"]\ndestinations = [\"hook\"]\n",
        r.url()
    );
    std::fs::write(&file, text).unwrap();
    let run = |words: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidewire"));
        let out = command.arg("destination").args(words).arg("--config").arg(&file).output().unwrap();
        let text = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
        (out.status.code().unwrap(), text)
    };
    let load = || tidewire::config::Config::from_file(&file).unwrap();
    let engine = Engine::open(load()).unwrap();
    let send = |engine: &Engine| {
        put(engine, "k", 1);
        engine.flush(WAIT).unwrap();
        r.last_request().unwrap()
    };
    assert_eq!(signed_by(&send(&engine), OLD), (true, 1));
    let (code, new) = run(&["rotate-secret", "hook"]);
    let new = new.trim().to_owned();
    assert!(code == 0 && new.starts_with("whsec_") && !new.contains('\n'), "{new}");
    until("both are used", || signed_by(&send(&engine), &new) == (true, 2));
    assert_eq!(signed_by(&send(&engine), OLD), (true, 2));
    engine.close(WAIT).unwrap();
    for words in [&["show", "hook"][..], &["show", "hook", "--json"], &["list"]] {
        let (_, shown) = run(words);
        assert!(!shown.contains(&new) && !shown.contains(OLD), "{shown}");
    }
    // It holds after a restart too; and another one, without an overlap, by the engine's own word.
    let engine = Engine::open(load()).unwrap();
    assert_eq!(signed_by(&send(&engine), &new), (true, 2));
    let third = engine.rotate_secret("hook", None, Duration::ZERO).unwrap();
    assert_eq!(signed_by(&send(&engine), &third.secret), (true, 1));
    assert_eq!(engine.rotate_secret("other", None, Duration::ZERO).unwrap_err().kind(), ErrorKind::NotFound);
    let e = engine.rotate_secret("hook", None, Duration::from_secs(8 * 86_400)).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::InvalidArgument);
    engine.close(WAIT).unwrap();
    // One that is given is not printed.
    let given = dir.path().join("given");
    std::fs::write(&given, format!("{OLD}\n")).unwrap();
    assert_eq!(run(&["rotate-secret", "hook", "--overlap", "1h", "--from", given.to_str().unwrap()]), (0, "".into()));
    let engine = Engine::open(load()).unwrap();
    assert_eq!(signed_by(&send(&engine), OLD), (true, 2));
    engine.close(WAIT).unwrap();
    let (code, said) = run(&["rotate-secret", "nosuch"]);
    assert!(code == 1 && said.contains("`hook`"), "{said}");
    assert!(data.join("destinations/hook.secrets").is_file());
}

fn report(r: &str) -> tidewire::TestReport {
    test_destination(&hook("hook", r), &EngineConfig::new("/nowhere")).unwrap()
}

#[test]
fn a_test_event_shows_each_step() {
    let mut r = Receiver::start("127.0.0.1:0".parse().unwrap(), Behaviour::Ok204).unwrap();
    let steps = report(&r.url().replace("127.0.0.1", "localhost")).steps;
    let text: Vec<&str> = steps.iter().map(|s| &*s.what).collect();
    for (step, begins) in
        text.iter().zip(["the name localhost is ", "connected to ", "", "the answer begins", "the answer is 204"])
    {
        assert!(step.starts_with(begins), "{text:?}");
    }
    assert_eq!((text.len(), r.accepted()), (5, 1));
    r.set_behaviour(Behaviour::Status(403));
    let refused = report(&r.url());
    assert!(refused.failure.unwrap().contains("403") && refused.steps.len() == 4);
    let url = r.url();
    r.stop();
    assert!(report(&url).failure.unwrap().contains("cannot connect"));
}

#[test]
fn the_command_lists_shows_suspends_resumes_and_tests() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let r = receiver(Behaviour::decide(|_| Reply { body: b"who are you?".to_vec(), ..Reply::status(401) }));
    let file = dir.path().join("t.toml");
    let text = format!(
        "[engine]\ndata_dir = \"data\"\n[[destination]]\nname = \"hook\"\ntype = \"webhook\"\nurl = \"{}secret\"\n\
         [[rule]]\nid = \"all\"\nevents = [\"*\"]\ndestinations = [\"hook\"]\n",
        r.url()
    );
    std::fs::write(&file, text).unwrap();
    let run = |words: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidewire"));
        let out = command.arg("destination").args(words).arg("--config").arg(&file).output().unwrap();
        let text = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
        (out.status.code().unwrap(), text)
    };
    assert_eq!(run(&["list"]), (0, "hook: active\n".into()));
    let DestinationKind::Webhook(_) = hook("hook", &r.url()).kind else { unreachable!() };
    let engine = open_one(&data, &hook("hook", &r.url()));
    put(&engine, "k", 1);
    until("it failed", || r.requests() > 0);
    until("that is known", || standing::read(&data, "hook").unwrap().is_some_and(|s| !s.attempts.is_empty()));
    let (code, shown) = run(&["show", "hook"]);
    assert!(code == 0 && shown.contains("denied") && shown.contains("who are you?"), "{shown}");
    assert!(!shown.contains("secret"), "{shown}");
    let (code, json) = run(&["show", "hook", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((code, &json["state"], &json["attempts"][0]["status"]), (0, &"active".into(), &401.into()));
    assert_eq!(run(&["suspend", "hook"]).0, 0);
    until("it is suspended", || run(&["list"]).1.starts_with("hook: suspended"));
    r.set_behaviour(Behaviour::Ok204);
    assert_eq!(run(&["resume", "hook"]).0, 0);
    engine.flush(WAIT).unwrap();
    let (code, tested) = run(&["test", "hook"]);
    assert!(code == 0 && tested.contains("the answer is 204"), "{tested}");
    r.set_behaviour(Behaviour::Status(404));
    let (code, tested) = run(&["test", "hook"]);
    assert!(code == 1 && tested.contains("404"), "{tested}");
    let (code, missing) = run(&["show", "nosuch"]);
    assert!(code == 1 && missing.contains("`hook`"), "{missing}");
    engine.close(WAIT).unwrap();
}
