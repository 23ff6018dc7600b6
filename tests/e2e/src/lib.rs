//! What the tests from end to end share.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use tidewire::config::EngineConfig;
use tidewire::event::EventTypes;
use tidewire::rule::{Destination, DestinationKind, Order, Rule, RuleSet, Webhook};
use tidewire::{Ack, Engine, Event, KnownType, OnFull, PublishOptions, Stats};
use tidewire_receiver::{Behaviour, Receiver, check_per_key_order};

/// The bucket of all events here.
pub const BUCKET: &str = "bucket";

/// A destination that is tried again soon and often.
pub fn hook(name: &str, url: &str) -> Destination {
    let webhook = Webhook::new(url).expect("a URL");
    impatient(Destination::new(name, DestinationKind::Webhook(webhook)))
}

/// The same over TLS, trusting the authorities of a file.
pub fn tls_hook(name: &str, url: &str, ca: &Path) -> Destination {
    let mut webhook = Webhook::new(url).expect("a URL");
    webhook.tls.ca = vec![ca.to_owned()];
    impatient(Destination::new(name, DestinationKind::Webhook(webhook)))
}

fn impatient(mut destination: Destination) -> Destination {
    destination.retry.backoff_min = Duration::from_millis(20);
    destination.retry.backoff_max = Duration::from_millis(200);
    destination.breaker.consecutive_failures = 3;
    destination.breaker.open_min = Duration::from_millis(50);
    destination.breaker.open_max = Duration::from_millis(200);
    destination
}

/// One rule that sends every event of objects to all of these.
pub fn rules(destinations: Vec<Destination>) -> RuleSet {
    let types = EventTypes::default();
    let mut rule = Rule::new("all", ["s3:ObjectCreated:*", "s3:ObjectRemoved:*"], &types).expect("a rule");
    for d in &destinations {
        rule = rule.with_destination(&d.name);
    }
    RuleSet::build(vec![rule], destinations, types).expect("rules")
}

/// An engine's settings, with small files.
pub fn config(dir: &Path, shards: usize) -> EngineConfig {
    let mut config = EngineConfig::new(dir);
    config.shards = Some(shards);
    config.ring_bytes = 256 << 10;
    config.log.segment_bytes = 1 << 20;
    config
}

/// Opens an engine of two shards that sends everything to `url`.
pub fn engine(dir: &Path, url: &str) -> tidewire::Result<Engine> {
    Engine::open_with(config(dir, 2), rules(vec![hook("hook", url)]))
}

/// Publishing that waits for this level, and a short while for space.
pub fn options(ack: Ack) -> PublishOptions {
    let limit = Duration::from_secs(10);
    PublishOptions { ack, on_full: OnFull::Block(limit), ack_timeout: limit, ..PublishOptions::default() }
}

/// Publishes `rounds` events of each key; the size of an event is its number within its key, from `first`.
///
/// # Errors
/// Those of the engine.
pub fn publish(engine: &Engine, keys: &[String], first: u64, rounds: u64, ack: Ack) -> tidewire::Result<()> {
    for n in first..first + rounds {
        for key in keys {
            let mut event = Event::new(KnownType::ObjectCreatedPut.into(), BUCKET, key.as_bytes());
            event.size = Some(n);
            engine.publish_with(&event, &options(ack))?;
        }
    }
    Ok(())
}

/// Opens a directory whose destinations are `first` and `second`, and returns what it still delivers, as sorted lines
/// `destination eventId sequencer eventName key`.
///
/// # Panics
/// If it does not open, or does not deliver everything, in order, within 20 s.
pub fn deliver_rest(dir: &Path) -> String {
    let receivers = GOLDEN.map(|name| (name, receiver(Behaviour::Ok204)));
    let destinations = receivers.iter().map(|(name, r)| golden_hook(name, &r.url())).collect();
    let rules = RuleSet::build(Vec::new(), destinations, EventTypes::default()).expect("rules");
    let engine = Engine::open_with(config(dir, 2), rules).expect("an engine");
    engine.flush(Duration::from_secs(20)).expect("everything delivered");
    let mut lines = Vec::new();
    for (name, receiver) in &receivers {
        let records = receiver.records();
        assert_eq!(check_per_key_order(&records), []);
        lines.extend(
            records.iter().map(|r| format!("{name} {} {} {} {}\n", r.event_id, r.sequencer, r.event_name, r.key)),
        );
    }
    lines.sort();
    lines.concat()
}

/// The destinations of golden directories; those of the first version have no `strict`.
pub const GOLDEN: [&str; 3] = ["first", "second", "strict"];

/// One of them.
pub fn golden_hook(name: &str, url: &str) -> Destination {
    let mut d = hook(name, url);
    if name == "strict" {
        d.order = Order::Strict;
    }
    d
}

/// A receiver on a free port of 127.0.0.1.
///
/// # Panics
/// If there is none.
pub fn receiver(behaviour: Behaviour) -> Receiver {
    Receiver::start(([127, 0, 0, 1], 0).into(), behaviour).expect("a receiver")
}

/// The keys `prefix0`, `prefix1`, and so on.
pub fn keys(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|i| format!("{prefix}{i}")).collect()
}

/// Looks every few milliseconds whether something is so; `false` if it is not within `limit`.
pub fn wait_until(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    while !condition() {
        if Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    true
}

/// Waits until the statistics say so.
///
/// # Panics
/// With the statistics, if they do not within 20 s.
pub fn wait_for_stats(engine: &Engine, what: &str, mut condition: impl FnMut(&Stats) -> bool) {
    let so = wait_until(Duration::from_secs(20), || condition(&engine.stats()));
    assert!(so, "{what}: {:?}", Summary(&engine.stats()));
}

/// The statistics without the histogram.
struct Summary<'a>(&'a Stats);

impl std::fmt::Debug for Summary<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let s = self.0;
        f.debug_struct("Stats")
            .field("accepted", &s.accepted)
            .field("routed", &s.routed)
            .field("waiting", &s.waiting)
            .field("destinations", &s.destinations)
            .field("unhealthy", &s.unhealthy)
            .finish_non_exhaustive()
    }
}

/// A port of 127.0.0.1 that nobody listens on.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("its address").port()
}

/// Says that a test cannot run here. `tests/run` counts these.
pub fn skip(reason: &str) {
    println!("SKIPPED: {reason}");
}

/// What the process holds: descriptors, threads, pinned and locked memory in kB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Open descriptors.
    pub descriptors: usize,
    /// Threads.
    pub threads: usize,
    /// Memory pinned by the kernel.
    pub pinned_kb: u64,
    /// Memory locked.
    pub locked_kb: u64,
}

impl Held {
    /// Now.
    ///
    /// # Panics
    /// Without procfs.
    pub fn now() -> Held {
        let count = |dir: &str| std::fs::read_dir(dir).expect("procfs").count();
        let status = std::fs::read_to_string("/proc/self/status").expect("procfs");
        let field = |name: &str| {
            let line = status.lines().find_map(|l| l.strip_prefix(name)).expect("the field");
            line.trim().trim_end_matches(" kB").parse().expect("a number")
        };
        Held {
            descriptors: count("/proc/self/fd"),
            threads: count("/proc/self/task"),
            pinned_kb: field("VmPin:"),
            locked_kb: field("VmLck:"),
        }
    }

    /// Whether no number is larger than there.
    pub fn within(self, limit: Held) -> bool {
        self.descriptors <= limit.descriptors
            && self.threads <= limit.threads
            && self.pinned_kb <= limit.pinned_kb
            && self.locked_kb <= limit.locked_kb
    }
}

/// A process that ends with the test.
#[derive(Debug)]
pub struct Process(pub Child);

impl Process {
    /// Ends it as a crash would, and waits until it is gone.
    pub fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A helper that runs beside the test and is read line by line. It ends with the test.
#[derive(Debug)]
pub struct Helper {
    process: Process,
    lines: std::sync::mpsc::Receiver<String>,
    seen: Vec<String>,
}

impl Helper {
    /// Starts it.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn start(command: &mut Command) -> Helper {
        let mut process = Process(command.stdout(Stdio::piped()).spawn().expect("a process"));
        let out = BufReader::new(process.0.stdout.take().expect("piped"));
        let (tell, lines) = std::sync::mpsc::channel();
        std::thread::spawn(move || out.lines().map_while(Result::ok).all(|line| tell.send(line).is_ok()));
        Helper { process, lines, seen: Vec::new() }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.process.0.id()
    }

    /// Waits for a line.
    ///
    /// # Panics
    /// If it does not come within 60 s.
    pub fn wait_for(&mut self, line: &str) {
        while self.seen.last().is_none_or(|l| l != line) {
            match self.lines.recv_timeout(Duration::from_secs(60)) {
                Ok(l) => self.seen.push(l),
                Err(e) => panic!("no line `{line}`: {e}; {:?}", self.seen.last()),
            }
        }
    }

    /// Kills it and answers all that it has printed.
    pub fn end(mut self) -> Vec<String> {
        self.process.kill();
        self.seen.extend(self.lines.iter());
        std::mem::take(&mut self.seen)
    }
}

/// Runs a helper (through other commands, maybe) for at most two minutes (half an hour with `TIDEWIRE_LONG`) and returns
/// what it printed, which must end with `OK`.
///
/// # Panics
/// If it does not.
pub fn helper<'a>(command: impl IntoIterator<Item = &'a str>) -> String {
    let limit = if std::env::var_os("TIDEWIRE_LONG").is_some() { "1800" } else { "120" };
    let output = Command::new("timeout").args(["--kill-after=1", limit]).args(command).output().expect("a process");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    print!("{out}");
    assert!(output.status.success() && out.ends_with("OK\n"), "{}: {out}{err}", output.status);
    out.into_owned()
}

/// A program of the workspace, built if need be in the same way as this test.
///
/// # Panics
/// If it cannot be built.
pub fn program(package: &str, name: &str) -> PathBuf {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    let dir = DIR.get_or_init(|| {
        // .../target/PROFILE/deps/TEST
        let test = std::env::current_exe().expect("this test's path");
        test.parent().and_then(Path::parent).expect("the target directory").to_owned()
    });
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--quiet", "--manifest-path", concat!(env!("CARGO_MANIFEST_DIR"), "/../../Cargo.toml")]);
    build.args(["--package", package, "--bin", name, "--target-dir"]).arg(dir.parent().expect("the target directory"));
    if dir.ends_with("release") {
        build.arg("--release");
    }
    assert!(build.status().expect("cargo").success(), "cannot build {name}");
    dir.join(name)
}

/// Every file of a directory with its contents, sorted, but for `LOCK`.
///
/// # Panics
/// If something cannot be read.
pub fn contents(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(d) = dirs.pop() {
        for entry in std::fs::read_dir(&d).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                dirs.push(path);
            } else if path.file_name().is_none_or(|n| n != "LOCK") {
                let mut bytes = Vec::new();
                File::open(&path).and_then(|mut f| f.read_to_end(&mut bytes)).expect("a file");
                files.push((path, bytes));
            }
        }
    }
    files.sort();
    files
}
