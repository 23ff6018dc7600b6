//! The states of destinations, their attempts that failed, and test events.

mod common;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use common::*;
use tidewire::config::EngineConfig;
use tidewire::log::standing::{self, Order, State};
use tidewire::rule::{Destination, DestinationKind};
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
