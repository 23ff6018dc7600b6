//! An engine that sheds is killed again and again: what it acknowledged was delivered, is a dead letter, or is told of by
//! the audit of losses. 4 rounds per policy; with `TIDEWIRE_LONG=1` 60.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::ops::ControlFlow;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use tidewire::log::{dead, losses};
use tidewire::{DeadLetterFilter, Engine};
use tidewire_e2e::{Process, config, hook, receiver, rules};
use tidewire_receiver::Behaviour;

fn number(key: &[u8]) -> u64 {
    let key = std::str::from_utf8(key).expect("a key");
    key.strip_prefix('k').and_then(|n| n.parse().ok()).expect("one of ours")
}

/// Whether something is told of as dropped, or kept as a dead letter.
fn has_shed(dir: &Path) -> bool {
    let mut any = false;
    losses::each_loss(dir, |_| {
        any = true;
        ControlFlow::Break(())
    })
    .expect("losses");
    dead::each_dead_letter(dir, &DeadLetterFilter::default(), None, |_| {
        any = true;
        ControlFlow::Break(())
    })
    .expect("dead letters");
    any
}

#[test]
fn what_is_shed_is_accounted_for_through_kills() {
    let rounds = if std::env::var_os("TIDEWIRE_LONG").is_some() { 60 } else { 4 };
    for policy in ["drop_oldest", "drop_newest", "dead_letter_oldest"] {
        let dir = tempfile::tempdir().expect("a directory");
        let target = receiver(Behaviour::Status(503));
        let mut acknowledged: BTreeSet<u64> = BTreeSet::new();
        let mut next = 0;
        for round in 0..rounds {
            let mut child = Command::new(env!("CARGO_BIN_EXE_helper"))
                .args(["shed", dir.path().to_str().expect("a path"), &target.url(), policy, &next.to_string()])
                .stdout(Stdio::piped())
                .spawn()
                .expect("a process");
            let out = BufReader::new(child.stdout.take().expect("its output"));
            let mut process = Process(child);
            // Sooner or later within its work, by the number of events rather than by the clock.
            let events = 300 + 211 * (round % 7);
            let mut lines = out.lines();
            let mut read: Vec<String> = lines.by_ref().take(events).map_while(Result::ok).collect();
            assert_eq!(read.len(), events, "{policy}: it ended by itself");
            // On a fast disk that may be before anything was shed.
            while round + 1 == rounds && !has_shed(dir.path()) {
                let more: Vec<String> = lines.by_ref().take(100).map_while(Result::ok).collect();
                assert_eq!(more.len(), 100, "{policy}: it ended by itself");
                read.extend(more);
            }
            process.kill();
            read.extend(lines.map_while(Result::ok));
            // A last line that was cut is the number of an event with another number, if not of none.
            read.pop();
            acknowledged.extend(read.iter().map(|line| line.parse::<u64>().expect("a number")));
            // What was being published has numbers that are not used again.
            next = acknowledged.last().map_or(0, |n| n + 100);
        }
        target.set_behaviour(Behaviour::Ok204);
        let engine = Engine::open_with(config(dir.path(), 2), rules(vec![hook("hook", &target.url())])).expect("opens");
        engine.flush(Duration::from_secs(60)).expect("everything delivered");
        engine.close(Duration::from_secs(10)).expect("closes");
        let mut found: BTreeSet<u64> =
            target.records().iter().filter(|r| r.accepted).map(|r| number(r.key.as_bytes())).collect();
        let (delivered, mut shed) = (found.len(), 0);
        dead::each_dead_letter(dir.path(), &DeadLetterFilter::default(), None, |l| {
            found.insert(number(&l.key));
            shed += 1;
            ControlFlow::Continue(())
        })
        .expect("dead letters");
        let with_dead = found.len();
        losses::each_loss(dir.path(), |l| {
            assert_eq!(l.count, 1);
            found.insert(number(&l.key));
            shed += 1;
            ControlFlow::Continue(())
        })
        .expect("losses");
        let missing: Vec<u64> = acknowledged.difference(&found).copied().collect();
        assert!(missing.is_empty(), "{policy}: {} of {} missing: {missing:?}", missing.len(), acknowledged.len());
        println!(
            "{policy}: {} acknowledged; {delivered} delivered, {} more dead, {} more dropped",
            acknowledged.len(),
            with_dead - delivered,
            found.len() - with_dead
        );
        // What was told as shed just before a kill may have been delivered after it all the same.
        assert!(delivered > 0 && shed > 0, "{policy}: {delivered} delivered of {}, {shed} shed", found.len());
    }
}
