//! Data directories written by earlier versions open, and what was undelivered in them is delivered.
//!
//! `golden/v1/data.tar.gz` was left by a crash; `expected.txt` beside it lists what is still to be delivered. To write
//! the directory of a new version: `TIDEWIRE_GOLDEN=v2 cargo test -p tidewire-e2e --test life golden`.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use tidewire::event::EventTypes;
use tidewire::log::dead::each_dead_letter;
use tidewire::log::recovery;
use tidewire::rule::RuleSet;
use tidewire::{DeadLetterFilter, Engine, RedriveOptions};
use tidewire_e2e::{config, deliver_rest, hook, receiver, rules};
use tidewire_receiver::Behaviour;

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden")
}

fn run(command: &mut Command) {
    let status = command.status().expect("a process");
    assert!(status.success(), "{command:?}: {status}");
}

#[test]
fn write_a_new_one_if_asked_to() {
    let Ok(version) = std::env::var("TIDEWIRE_GOLDEN") else { return };
    let to = golden().join(version);
    std::fs::create_dir_all(&to).expect("a directory");
    let dir = tempfile::tempdir().expect("a directory");
    let mut helper = Command::new(env!("CARGO_BIN_EXE_helper"));
    let status = helper.arg("golden").arg(dir.path().join("data")).arg(to.join("expected.txt")).status();
    assert_eq!(status.expect("a process").code(), None, "it ends by a signal, as in a crash");
    let archive = to.join("data.tar.gz");
    run(Command::new("tar").arg("-czf").arg(archive).arg("-C").arg(dir.path()).arg("data"));
}

/// Letters as earlier versions wrote them are the same events when they come out again.
fn redrive_all(data: &Path) {
    let mut letters = BTreeSet::new();
    each_dead_letter(data, &DeadLetterFilter::default(), None, |l| {
        letters.insert((l.event_id.to_string(), l.key));
        ControlFlow::Continue(())
    })
    .expect("dead letters");
    let receivers = ["first", "second"].map(|name| (name, receiver(Behaviour::Ok204)));
    let destinations = receivers.iter().map(|(name, r)| hook(name, &r.url())).collect();
    let rules = RuleSet::build(Vec::new(), destinations, EventTypes::default()).expect("rules");
    let engine = Engine::open_with(config(data, 2), rules).expect("an engine");
    let mut redrive = engine.redrive(&DeadLetterFilter::default(), &RedriveOptions::default()).expect("a redrive");
    let limit = Duration::from_secs(20);
    assert_eq!(redrive.wait(Instant::now() + limit).expect("redriven").redriven, 2);
    engine.flush(limit).expect("everything delivered");
    engine.close(limit).expect("closed");
    let records = receivers.iter().flat_map(|(_, r)| r.records());
    let arrived: BTreeSet<_> = records.map(|r| (r.event_id, r.key.into_bytes())).collect();
    assert_eq!(arrived, letters);
}

#[test]
fn directories_of_earlier_versions_deliver_what_they_hold() {
    if std::env::var("TIDEWIRE_GOLDEN").is_ok() {
        return;
    }
    let mut versions = 0;
    for version in std::fs::read_dir(golden()).expect("golden directories") {
        let version = version.expect("an entry").path();
        let dir = tempfile::tempdir().expect("a directory");
        run(Command::new("tar").arg("-xzf").arg(version.join("data.tar.gz")).arg("-C").arg(dir.path()));
        let data = dir.path().join("data");
        let dead = || recovery::dead_letters(&data).expect("dead letters").len();
        assert_eq!(dead(), 2, "{}", version.display());
        let expected = std::fs::read_to_string(version.join("expected.txt")).expect("what is expected");
        assert_eq!(deliver_rest(&data), expected, "{}", version.display());
        assert_eq!(dead(), 2, "{}", version.display());
        assert_eq!(deliver_rest(&data), "", "{}: everything is delivered once", version.display());
        let engine =
            Engine::open_with(config(&data, 2), rules(vec![hook("first", "http://127.0.0.1:9/")])).expect("an engine");
        let of_host = (engine.in_doubt().expect("what is in doubt").len(), engine.last_applied().expect("a cursor"));
        // The first version had neither.
        assert_eq!(of_host, if version.ends_with("v1") { (0, 0) } else { (2, 5) }, "{}", version.display());
        // Rules were not kept before the third.
        let kept = engine.rule(Some("kept"), "kept").map(|r| (r.version(), r.inactive().is_some()));
        let put: Vec<String> = engine.destinations().into_iter().map(|d| d.destination.name.clone()).collect();
        if version.ends_with("v1") || version.ends_with("v2") {
            assert_eq!((kept, put), (None, vec!["first".to_owned()]), "{}", version.display());
        } else {
            assert!(kept.is_some_and(|(version, inactive)| version > 0 && !inactive), "{kept:?}");
            assert_eq!(put, ["first", "stays"], "{}", version.display());
        }
        engine.close(Duration::from_secs(20)).expect("closed");
        redrive_all(&data);
        assert_eq!(dead(), 0, "{}", version.display());
        println!("{}: {} deliveries", version.display(), expected.lines().count());
        versions += 1;
    }
    assert!(versions > 0);
}
