//! A host that uses reservations is killed again and again: an event arrives if, and only if, its operation came to be.
//!
//! 6 kills; with `TIDEWIRE_LONG=1` 100. `TIDEWIRE_SEED` repeats a run's choices.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tidewire_e2e::{Process, program, receiver};
use tidewire_receiver::{Behaviour, compare_sequencers};

/// Operations of a life that is killed: more than it comes to.
const LIFE: u64 = 1_000_000;
const LAST_LIFE: u64 = 200;

#[test]
fn an_event_arrives_if_and_only_if_its_operation_came_to_be() {
    let kills = if std::env::var_os("TIDEWIRE_LONG").is_some() { 100 } else { 6 };
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_nanos() as u64;
    let seed = std::env::var("TIDEWIRE_SEED").ok().map_or(clock, |s| s.parse().expect("a number")) | 1;
    println!("seed {seed}, {kills} kills");
    let mut random = seed;
    let mut below = |n: u64| {
        random ^= random >> 12;
        random ^= random << 25;
        random ^= random >> 27;
        random.wrapping_mul(0x2545_F491_4F6C_DD1D) % n
    };

    let helper = program("tidewire-e2e", "helper");
    let dir = tempfile::tempdir().expect("a directory");
    let journal = dir.path().join("journal");
    let receiver = receiver(Behaviour::Ok204);
    for life in 0..=kills {
        let mut command = Command::new(&helper);
        let count = if life < kills { LIFE } else { LAST_LIFE };
        command.arg("host").arg(dir.path().join("data")).arg(&journal);
        command.args([receiver.url(), (life * LIFE).to_string(), count.to_string()]);
        let mut process = Process(command.stdout(Stdio::piped()).spawn().expect("a process"));
        let mut lines = BufReader::new(process.0.stdout.take().expect("piped")).lines();
        if life < kills {
            // Some lives end before they have asked what is in doubt, or while they do.
            if below(4) > 0 {
                assert_eq!(lines.next().expect("a line").expect("text"), "working");
            }
            std::thread::sleep(Duration::from_micros(below(300_000)));
            process.kill();
        } else {
            assert_eq!(lines.map_while(Result::ok).last().as_deref(), Some("OK"));
            assert!(process.0.wait().expect("its end").success());
        }
    }

    let journal = std::fs::read_to_string(&journal).expect("the journal");
    let done: BTreeSet<u64> = journal.lines().map(|l| l.parse().expect("a number")).collect();
    let mut ids: BTreeMap<u64, String> = BTreeMap::new();
    let mut last: BTreeMap<String, (u64, String)> = BTreeMap::new();
    let (mut wrong, mut repeats) = (Vec::new(), 0);
    for record in receiver.records() {
        let n = record.size.expect("a size");
        if let Some(id) = ids.get(&n) {
            repeats += 1;
            if *id != record.event_id {
                wrong.push(format!("once more as another event: {record:?}"));
            }
            continue;
        }
        if ids.values().any(|id| *id == record.event_id) {
            wrong.push(format!("with the id of another event: {record:?}"));
        }
        ids.insert(n, record.event_id.clone());
        if let Some((before, sequencer)) = last.get(&record.key)
            && (*before >= n || compare_sequencers(sequencer, &record.sequencer).is_ge())
        {
            wrong.push(format!("after {before}: {record:?}"));
        }
        last.insert(record.key.clone(), (n, record.sequencer.clone()));
    }
    let arrived: BTreeSet<u64> = ids.keys().copied().collect();
    println!("{} operations, {} events, {repeats} repeats", done.len(), arrived.len());
    assert!(done.len() > LAST_LIFE as usize / 2, "{} operations", done.len());
    let lost: Vec<&u64> = done.difference(&arrived).collect();
    let invented: Vec<&u64> = arrived.difference(&done).collect();
    assert!(lost.is_empty() && invented.is_empty(), "lost {lost:?}, invented {invented:?}");
    assert!(wrong.is_empty(), "{wrong:?}");
}
