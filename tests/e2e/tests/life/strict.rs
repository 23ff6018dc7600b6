//! An engine that delivers in one order for all is killed again and again: nothing that it acknowledged is lost, and the
//! order stays one.
//!
//! 5 kills; with `TIDEWIRE_LONG=1` 60. `TIDEWIRE_SEED` repeats a run's choices.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tidewire::EventId;
use tidewire_e2e::{Process, program, receiver};
use tidewire_receiver::{Behaviour, Reply, compare_sequencers};

/// Events of a life that is killed: more than it comes to.
const LIFE: u64 = 1_000_000;
const LAST_LIFE: u64 = 300;

#[test]
fn one_order_for_all_through_kills() {
    let kills = if std::env::var_os("TIDEWIRE_LONG").is_some() { 60 } else { 5 };
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
    let requests = AtomicUsize::new(0);
    let receiver = receiver(Behaviour::decide(move |_| {
        Reply::status(if requests.fetch_add(1, Ordering::Relaxed) % 5 == 2 { 503 } else { 204 })
    }));
    let mut acknowledged = BTreeSet::new();
    for life in 0..=kills {
        let mut command = Command::new(&helper);
        let count = if life < kills { LIFE } else { LAST_LIFE };
        command.arg("strict").arg(dir.path());
        command.args([receiver.url(), (life * LIFE).to_string(), count.to_string()]);
        let mut process = Process(command.stdout(Stdio::piped()).spawn().expect("a process"));
        let lines = BufReader::new(process.0.stdout.take().expect("piped")).lines();
        let reader = std::thread::spawn(move || lines.map_while(Result::ok).collect::<Vec<_>>());
        if life < kills {
            std::thread::sleep(Duration::from_micros(100_000 + below(400_000)));
            process.kill();
        } else {
            assert!(process.0.wait().expect("its end").success());
        }
        acknowledged.extend(reader.join().expect("lines").iter().filter_map(|l| l.parse::<u64>().ok()));
    }

    // As the first arrivals have it; every request is a stretch of that order.
    let mut order: HashMap<String, usize> = HashMap::new();
    let mut last_of_key: BTreeMap<String, (u64, String)> = BTreeMap::new();
    let mut last_of_shard: BTreeMap<(u64, u16), u64> = BTreeMap::new();
    let records = receiver.records();
    for record in &records {
        let n = order.len();
        if *order.entry(record.event_id.clone()).or_insert(n) < n {
            continue;
        }
        let id: EventId = record.event_id.parse().expect("an id");
        let before = last_of_shard.insert((id.incarnation, id.shard), id.sequence);
        assert!(before.is_none_or(|b| b < id.sequence), "{record:?} after {before:?} of its shard");
        let size = record.size.expect("a size");
        if let Some((before, sequencer)) = last_of_key.insert(record.key.clone(), (size, record.sequencer.clone())) {
            assert!(before < size && compare_sequencers(&sequencer, &record.sequencer).is_lt(), "{record:?}");
        }
    }
    for pair in records.windows(2).filter(|p| p[0].request == p[1].request) {
        assert_eq!(order[&pair[0].event_id] + 1, order[&pair[1].event_id], "request {}", pair[0].request);
    }
    let arrived: BTreeSet<u64> = records.iter().filter(|r| r.accepted).filter_map(|r| r.size).collect();
    let events: BTreeSet<u64> = records.iter().filter_map(|r| r.size).collect();
    assert_eq!(order.len(), events.len(), "an event came with two ids");
    let lost: Vec<&u64> = acknowledged.difference(&arrived).collect();
    println!("{} acknowledged, {} arrived, {} records", acknowledged.len(), arrived.len(), records.len());
    assert!(acknowledged.len() > LAST_LIFE as usize && lost.is_empty(), "lost {lost:?}");
}
