//! The engine is killed in the middle of its work, again and again, and loses nothing that it has acknowledged.
//!
//! Three processes: this test, which posts events over HTTP and remembers which were acknowledged; `tidewire run`, which
//! is ended with SIGKILL once a round; and `tidewire-receiver`, whose log says what has arrived. A request without an
//! answer is never sent again: its events may have arrived or not, but each at most as one event and in its place.
//!
//! 2 rounds of 10,000 events and 5 of 500; with `TIDEWIRE_LONG=1` 20 rounds of 100,000 and 300 of 2,000. `TIDEWIRE_SEED`
//! repeats a run's choices.

use std::collections::HashSet;
use std::fs::{self, File};
use std::hash::{BuildHasher, RandomState};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tidewire_e2e::{Process, program, wait_until};
use tidewire_receiver::{LogLine, compare_sequencers};

const CONNECTIONS: usize = 4;
const KEYS_PER_CONNECTION: usize = 40;
const EVENTS_PER_REQUEST: usize = 50;
const START_LIMIT: Duration = Duration::from_secs(20);
const PATIENCE: Duration = Duration::from_secs(120);

/// xorshift64*: choices that a seed repeats.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) % n
    }
}

/// One key: whether each of its events, numbered from 0, was acknowledged and has arrived.
#[derive(Clone, Default)]
struct Key {
    acknowledged: Vec<bool>,
    arrived: Vec<bool>,
    last: Option<(u64, String)>,
}

/// The keys of one connection, which posts their events in order.
struct Connection {
    number: usize,
    keys: Vec<Key>,
    random: Random,
}

impl Connection {
    fn key_name(connection: usize, key: usize) -> String {
        format!("c{connection}/key {key}+é")
    }

    /// Posts requests until `left` is used up or one fails.
    fn post(&mut self, url: &str, left: &AtomicU64, acknowledged: &AtomicU64, dead: &AtomicBool) {
        let config = ureq::Agent::config_builder().timeout_global(Some(PATIENCE)).build();
        let agent = ureq::Agent::new_with_config(config);
        let take = |n: u64| n.checked_sub(EVENTS_PER_REQUEST as u64);
        while !dead.load(Ordering::Relaxed) && left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok() {
            let mut body = String::new();
            let mut posted = Vec::new();
            for _ in 0..EVENTS_PER_REQUEST {
                let key = self.random.below(KEYS_PER_CONNECTION as u64) as usize;
                let n = self.keys[key].acknowledged.len();
                self.keys[key].acknowledged.push(false);
                posted.push((key, n));
                let name = Connection::key_name(self.number, key);
                let event = serde_json::json!(
                    { "type": "s3:ObjectCreated:Put", "bucket": "bucket", "key": name, "size": n });
                body += &format!("{event}\n");
            }
            match agent.post(url).header("Content-Type", "application/x-ndjson").send(body) {
                Ok(answer) => {
                    assert_eq!(answer.status(), 200);
                    for (key, n) in posted {
                        self.keys[key].acknowledged[n] = true;
                    }
                    acknowledged.fetch_add(EVENTS_PER_REQUEST as u64, Ordering::Relaxed);
                }
                // Killed: whether these were taken is not known.
                Err(ureq::Error::Io(_) | ureq::Error::ConnectionFailed) => return,
                Err(e) => panic!("the engine did not take events: {e}"),
            }
        }
    }
}

/// What the receiver's log says, read as it grows.
struct Arrivals {
    log: BufReader<File>,
    rest: String,
    hasher: RandomState,
    ids: HashSet<u64>,
    lines: u64,
    repeats: u64,
    wrong: Vec<String>,
}

impl Arrivals {
    fn read(&mut self, connections: &mut [Connection]) {
        loop {
            if self.log.read_line(&mut self.rest).expect("the log") == 0 || !self.rest.ends_with('\n') {
                return;
            }
            let line = LogLine::parse(self.rest.trim_end_matches('\n')).expect("a line of the log");
            self.rest.clear();
            self.lines += 1;
            if let Err(what) = self.take(&line, connections) {
                self.wrong.push(format!("{what}: {line:?}"));
            }
        }
    }

    fn take(&mut self, line: &LogLine, connections: &mut [Connection]) -> Result<(), &'static str> {
        if !self.ids.insert(self.hasher.hash_one(&line.event_id)) {
            self.repeats += 1;
            return Ok(());
        }
        let place = |key: &str| {
            let (connection, key) = key.strip_prefix('c')?.split_once("/key ")?;
            Some((connection.parse::<usize>().ok()?, key.strip_suffix("+é")?.parse::<usize>().ok()?))
        };
        let (connection, key) = place(&line.key).ok_or("never posted")?;
        let key = connections.get_mut(connection).and_then(|c| c.keys.get_mut(key)).ok_or("never posted")?;
        let n = line.size.ok_or("without a size")?;
        if n >= key.acknowledged.len() as u64 {
            return Err("never posted");
        }
        key.arrived.resize(key.acknowledged.len(), false);
        key.arrived[n as usize] = true;
        if let Some((last, sequencer)) = &key.last {
            if *last >= n {
                return Err("out of order, or once more as another event");
            }
            if compare_sequencers(sequencer, &line.sequencer).is_ge() {
                return Err("with a sequencer that is not higher");
            }
        }
        key.last = Some((n, line.sequencer.clone()));
        Ok(())
    }
}

/// Starts a program and returns it with what follows `before` on a line of its output.
fn start(command: &mut Command, before: &'static str) -> (Process, String) {
    let mut process = Process(command.stdout(Stdio::piped()).spawn().expect("a process"));
    let out = BufReader::new(process.0.stdout.take().expect("piped"));
    let (tell, told) = std::sync::mpsc::channel();
    // The output is read to its end: nothing that is printed later must block the program.
    std::thread::spawn(move || {
        for line in out.lines().map_while(Result::ok) {
            if let Some(rest) = line.strip_prefix(before) {
                let _ = tell.send(rest.to_owned());
            }
        }
    });
    match told.recv_timeout(START_LIMIT) {
        Ok(rest) => (process, rest),
        Err(e) => panic!("no line `{before}` from {command:?} within {START_LIMIT:?}: {e}"),
    }
}

fn write_config(dir: &Path, receiver: &str) {
    let text = format!(
        r#"
[engine]
data_dir = "data"
shards = 2
[engine.log]
segment_bytes = "4MiB"

[[source]]
type = "http"
listen = "127.0.0.1:0"

[[destination]]
name = "hook"
type = "webhook"
url = "http://{receiver}/"
[destination.retry]
backoff_min = "20ms"
backoff_max = "1s"

[[rule]]
id = "all"
events = ["s3:ObjectCreated:*"]
destinations = ["hook"]
"#
    );
    fs::write(dir.join("tidewire.toml"), text).expect("written");
}

/// How many deliveries wait, as the engine says.
fn waiting(url: &str) -> Option<u64> {
    let text = ureq::get(url.to_owned() + "/v1/stats").call().ok()?.body_mut().read_to_string().ok()?;
    serde_json::from_str::<serde_json::Value>(&text).ok()?.get("waiting")?.as_u64()
}

fn count(connections: &[Connection], each: impl Fn(bool, bool) -> bool) -> usize {
    let keys = connections.iter().flat_map(|c| &c.keys);
    let arrived = |k: &Key, n: usize| k.arrived.get(n).copied().unwrap_or(false);
    keys.map(|k| (0..k.acknowledged.len()).filter(|n| each(k.acknowledged[*n], arrived(k, *n))).count()).sum()
}

fn long() -> bool {
    std::env::var_os("TIDEWIRE_LONG").is_some()
}

#[test]
fn killed_and_started_again_it_loses_nothing() {
    let (rounds, events) = if long() { (20, 100_000) } else { (2, 10_000) };
    kill(rounds, events);
}

#[test]
fn killed_soon_and_often_it_loses_nothing() {
    let (rounds, events) = if long() { (300, 2_000) } else { (5, 500) };
    kill(rounds, events);
}

fn kill(rounds: u64, events: u64) {
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_nanos() as u64;
    let seed = std::env::var("TIDEWIRE_SEED").ok().map_or(clock, |s| s.parse().expect("a number")) | 1;
    println!("seed {seed}, {rounds} rounds of {events} events");
    let mut random = Random(seed);

    let tidewire = program("tidewire", "tidewire");
    let dir = tempfile::tempdir().expect("a directory");
    let log = dir.path().join("arrivals");
    let mut receiver = Command::new(program("tidewire-receiver", "tidewire-receiver"));
    receiver.args(["--listen", "127.0.0.1:0", "--log"]).arg(&log);
    let (_receiver, address) = start(&mut receiver, "listening on ");
    write_config(dir.path(), &address);
    let messages = File::create(dir.path().join("messages")).expect("a file");
    let run = || {
        let mut command = Command::new(&tidewire);
        command.args(["run", "--config"]).arg(dir.path().join("tidewire.toml"));
        start(command.stderr(messages.try_clone().expect("a file")), "tidewire: listening on ")
    };

    let mut connections: Vec<Connection> = (0..CONNECTIONS)
        .map(|number| Connection {
            number,
            keys: vec![Key::default(); KEYS_PER_CONNECTION],
            random: Random(random.below(u64::MAX) | 1),
        })
        .collect();
    let mut arrivals = Arrivals {
        log: BufReader::new(File::open(&log).expect("the log")),
        rest: String::new(),
        hasher: RandomState::new(),
        ids: HashSet::new(),
        lines: 0,
        repeats: 0,
        wrong: Vec::new(),
    };

    let (mut engine, mut url) = run();
    for round in 1..=rounds {
        let started = Instant::now();
        let (left, acknowledged) = (AtomicU64::new(events), AtomicU64::new(0));
        let kill_after = events / 10 + random.below(events * 8 / 10);
        let pause = Duration::from_micros(random.below(10_000));
        let mut reopened = Duration::ZERO;
        for killing in [true, false] {
            let dead = AtomicBool::new(false);
            let posts = format!("{url}/v1/events");
            std::thread::scope(|scope| {
                for connection in &mut connections {
                    scope.spawn(|| connection.post(&posts, &left, &acknowledged, &dead));
                }
                if killing {
                    let reached = wait_until(PATIENCE, || acknowledged.load(Ordering::Relaxed) >= kill_after);
                    assert!(reached, "{} of {events} after {PATIENCE:?}", acknowledged.load(Ordering::Relaxed));
                    std::thread::sleep(pause);
                    engine.kill();
                    dead.store(true, Ordering::Relaxed);
                }
            });
            if killing {
                let begun = Instant::now();
                (engine, url) = run();
                reopened = begun.elapsed();
            }
        }
        let all = wait_until(PATIENCE, || {
            arrivals.read(&mut connections);
            count(&connections, |acknowledged, arrived| acknowledged && !arrived) == 0 && waiting(&url) == Some(0)
        });
        arrivals.read(&mut connections);
        let lost = count(&connections, |acknowledged, arrived| acknowledged && !arrived);
        println!(
            "round {round}: killed after {kill_after} of {events}, open again in {reopened:.1?}; {} acknowledged, \
             {lost} of them lost; {} without an answer, {} of them arrived; {} repeats; {:.1?}",
            count(&connections, |acknowledged, _| acknowledged),
            count(&connections, |acknowledged, _| !acknowledged),
            count(&connections, |acknowledged, arrived| !acknowledged && arrived),
            arrivals.repeats,
            started.elapsed()
        );
        let messages = || fs::read_to_string(dir.path().join("messages")).unwrap_or_default();
        assert!(arrivals.wrong.is_empty(), "{} wrong, as {:?}", arrivals.wrong.len(), &arrivals.wrong[..1]);
        assert!(all && lost == 0, "{lost} lost, {:?} waiting; {}", waiting(&url), messages());
    }
    // And in the end it stops when it is told to.
    let pid = i32::try_from(engine.0.id()).expect("a process id");
    // SAFETY: a signal to a child that was not waited for yet.
    unsafe { libc::kill(pid, libc::SIGTERM) };
    assert!(engine.0.wait().expect("its end").success());
    println!("{} arrivals, {} of them repeats", arrivals.lines, arrivals.repeats);
}
