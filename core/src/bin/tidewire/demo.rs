//! `tidewire demo`: files become events, a receiver dies and comes back, and every event is accounted for.

mod files;
mod receiver;
mod verdict;

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use tidewire::config::{Config, Source};
use tidewire::source::directory::DirectoryWatch;
use tidewire::{Engine, Error, ErrorKind, Event, Stats};

use crate::Failure;
use files::{Done, Fate};
use receiver::Receiver;
use verdict::{Said, Verdict, judge};

const WRITERS: u64 = 4;
/// The first receiver is killed when this part of the files is written, in percent.
const KILL_AT: u64 = 40;
const OUTAGE: Duration = Duration::from_secs(1);
const OUTAGE_EXTRA: Duration = Duration::from_millis(500);
/// How long everything may take to arrive after the last change.
const PATIENCE: Duration = Duration::from_secs(60);
/// Nothing happens for so long before the source is taken to have noticed everything.
const QUIET: Duration = Duration::from_millis(300);
const TICK: Duration = Duration::from_millis(30);

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// How many files to write
    #[arg(long, value_name = "N", default_value_t = 3000, value_parser = clap::value_parser!(u64).range(10..=1_000_000))]
    files: u64,
    /// Keep the directory with the files, the engine's data and its configuration
    #[arg(long)]
    keep: bool,
}

/// The destination of a key, as the rules of the demo say.
fn wanted_by(key: &str) -> Option<usize> {
    if key.starts_with("images/") && key.ends_with(".jpg") { Some(0) } else { key.starts_with("logs/").then_some(1) }
}

/// How many events were published for a destination.
fn wanted(said: &Mutex<Vec<Said>>, destination: usize) -> u64 {
    said.lock().unwrap().iter().filter(|s| wanted_by(&s.key) == Some(destination)).count() as u64
}

fn configuration(receivers: &[Receiver; 2]) -> String {
    let destination = |r: &Receiver| {
        format!(
            r#"
[[destination]]
name = "{}"
type = "webhook"
url = "http://{}/"
retry = {{ backoff_min = "50ms", backoff_max = "400ms" }}
breaker = {{ consecutive_failures = 3, open_min = "100ms", open_max = "400ms" }}
"#,
            r.name,
            r.address()
        )
    };
    format!(
        r#"# Made by `tidewire demo`.
[engine]
data_dir = "data"
{}{}
[[rule]]
id = "images"
bucket = "demo"
events = ["s3:ObjectCreated:*", "s3:ObjectRemoved:*"]
prefix = "images/"
suffix = ".jpg"
destinations = ["{}"]

[[rule]]
id = "logs"
bucket = "demo"
events = ["s3:ObjectCreated:*", "s3:ObjectRemoved:*"]
prefix = "logs/"
destinations = ["{}"]

[[source]]
type = "directory"
path = "bucket"
bucket = "demo"
"#,
        destination(&receivers[0]),
        destination(&receivers[1]),
        receivers[0].name,
        receivers[1].name,
    )
}

pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    let io = |doing: &'static str| move |e: io::Error| Error::io(doing, &e);
    let dir = tempfile::Builder::new().prefix("tidewire-demo-").tempdir().map_err(io("cannot make a directory"))?;
    let path = dir.path().to_owned();
    let result = show(options, &path);
    if options.keep {
        let _ = dir.keep();
        say(&format!("\nkept: {0} (try `tidewire check --config {0}/tidewire.toml`)", path.display()));
    } else {
        dir.close().map_err(io("cannot remove the directory"))?;
        say(&format!("\n{} is removed again; --keep keeps it", path.display()));
    }
    result
}

fn show(options: &Options, path: &Path) -> Result<(), Failure> {
    let io = |doing: &'static str| move |e: io::Error| Error::io(doing, &e);
    let bucket = path.join("bucket");
    std::fs::create_dir(&bucket).map_err(io("cannot make the bucket"))?;
    let mut receivers = [
        Receiver::start("thumbnails").map_err(io("cannot start a receiver"))?,
        Receiver::start("archive").map_err(io("cannot start a receiver"))?,
    ];
    let file = path.join("tidewire.toml");
    std::fs::write(&file, configuration(&receivers)).map_err(io("cannot write the configuration"))?;
    let config = Config::from_file(&file)?;
    let source = config.sources.iter().find_map(|s| match s {
        Source::Directory(d) => Some(d.clone()),
        _ => None,
    });
    let source = source.ok_or_else(|| Error::new(ErrorKind::Internal, "the demo's configuration has no directory"))?;
    let close_timeout = config.engine.close_timeout;
    let engine = Engine::open(config)?;

    let said: Arc<Mutex<Vec<Said>>> = Arc::default();
    let into = said.clone();
    let observer = move |e: &Event<'_>, _| {
        let created = e.event_type.name().starts_with("s3:ObjectCreated:");
        let key = String::from_utf8_lossy(e.key).into_owned();
        into.lock().unwrap().push(Said { key, created, size: e.size, at: Instant::now() });
    };
    let watch = DirectoryWatch::start_with(engine.clone(), &source, Some(Box::new(observer)))?;
    say(&format!("a directory as a bucket       {}", bucket.display()));
    for (r, rule) in receivers.iter().zip(["images/*.jpg", "logs/*"]) {
        say(&format!("{rule:<13} → {:<12} http://{}/", r.name, r.address()));
    }

    let begun = Instant::now();
    let samples = Arc::new(files::samples().map_err(io("cannot find files to copy"))?);
    let done = Arc::new(Done::default());
    let writers = (0..WRITERS)
        .map(|n| files::write(bucket.clone(), samples.clone(), done.clone(), (n, WRITERS, options.files)))
        .collect::<io::Result<Vec<_>>>()
        .map_err(io("cannot start a writer"))?;
    let mut play =
        Play { options, engine, watch, said, done, begun, screen: Screen::new(), outage: None, last_line: begun };
    let written = play.until_written(writers, &mut receivers)?;
    let finished = play.finish(&receivers);
    play.screen.clear();
    let total = begun.elapsed();
    let Play { engine, watch, said, outage, done, .. } = play;
    let stats = engine.stats();
    let stopped = watch.stop(close_timeout).and(engine.close(close_timeout));
    finished?;
    stopped?;
    let fates = written.fates;
    let wrote = [&done.written, &done.overwritten, &done.deleted].map(|n| n.load(Ordering::Relaxed));
    let summary =
        Summary { said: &said.lock().unwrap(), fates: &fates, stats: &stats, wrote, took: written.took, total, outage };
    summary.print(&receivers, &bucket)
}

/// What the writers did.
struct Written {
    fates: BTreeMap<String, Fate>,
    took: Duration,
}

/// The outage of the first receiver.
#[derive(Clone, Copy, Debug)]
struct Outage {
    since: Instant,
    /// What the other receiver had then.
    other_had: u64,
    /// When it was back, with how many events it had, and how many it should have had.
    back: Option<(Instant, u64, u64)>,
    /// When it had those.
    caught_up: Option<Instant>,
}

struct Play<'a> {
    options: &'a Options,
    engine: Engine,
    watch: DirectoryWatch,
    said: Arc<Mutex<Vec<Said>>>,
    done: Arc<Done>,
    begun: Instant,
    screen: Screen,
    outage: Option<Outage>,
    last_line: Instant,
}

type Writer = JoinHandle<io::Result<BTreeMap<String, Fate>>>;

impl Play<'_> {
    /// Goes on until all files are written and the receiver that was killed is back.
    fn until_written(&mut self, writers: Vec<Writer>, receivers: &mut [Receiver; 2]) -> Result<Written, Error> {
        let mut took = None;
        loop {
            std::thread::sleep(TICK);
            if took.is_none() && writers.iter().all(JoinHandle::is_finished) {
                took = Some(self.begun.elapsed());
            }
            let written = self.done.written.load(Ordering::Relaxed);
            match &mut self.outage {
                None if written * 100 >= self.options.files * KILL_AT => {
                    receivers[0].kill();
                    self.outage = Some(Outage {
                        since: Instant::now(),
                        other_had: receivers[1].received(),
                        back: None,
                        caught_up: None,
                    });
                    self.line(&format!("{} is killed: its port and its connections are closed", receivers[0].name));
                }
                Some(o) if o.back.is_none() && o.since.elapsed() >= OUTAGE + OUTAGE_EXTRA => {
                    receivers[0].restart().map_err(|e| Error::io("cannot start the receiver again", &e))?;
                    let (had, wanted) = (receivers[0].received(), wanted(&self.said, 0));
                    o.back = Some((Instant::now(), had, wanted));
                    let meanwhile = receivers[1].received() - o.other_had;
                    let waiting = wanted.saturating_sub(had);
                    let [name, other] = [receivers[0].name, receivers[1].name];
                    self.line(&format!(
                        "{name} is back; {waiting} events wait for it; {other} got {meanwhile} meanwhile"
                    ));
                }
                _ => {}
            }
            self.update(receivers);
            if let Some(took) = took
                && self.outage.is_some_and(|o| o.back.is_some())
            {
                let mut fates = BTreeMap::new();
                for writer in writers {
                    let written = writer
                        .join()
                        .map_err(|_| Error::new(ErrorKind::Internal, "a writer panicked"))?
                        .map_err(|e| Error::io("cannot write into the bucket", &e))?;
                    fates.extend(written);
                }
                return Ok(Written { fates, took });
            }
        }
    }

    /// Waits until the source has noticed everything and everything is delivered.
    fn finish(&mut self, receivers: &[Receiver; 2]) -> Result<(), Error> {
        let deadline = Instant::now() + PATIENCE;
        let mut last = (0, Instant::now());
        loop {
            let published = self.said.lock().unwrap().len();
            if published != last.0 || self.watch.stats().pending > 0 {
                last = (published, Instant::now());
            } else if last.1.elapsed() > QUIET {
                break;
            }
            if Instant::now() > deadline {
                return Err(Error::new(ErrorKind::Timeout, "the source does not come to rest"));
            }
            std::thread::sleep(TICK);
            self.update(receivers);
        }
        let missed = self.watch.rescan(PATIENCE)?;
        if missed > 0 {
            self.line(&format!("a last scan found {missed} changes more"));
            std::thread::sleep(QUIET);
        }
        while self.engine.flush(TICK).is_err() {
            self.update(receivers);
            if Instant::now() > deadline {
                // What is missing will be told.
                break;
            }
        }
        self.update(receivers);
        Ok(())
    }

    fn line(&self, text: &str) {
        self.screen.line(&format!("{:5.1} s  {text}", self.begun.elapsed().as_secs_f64()));
    }

    fn update(&mut self, receivers: &[Receiver; 2]) {
        if let Some(o) = &mut self.outage
            && let (Some((_, _, wanted)), None) = (o.back, o.caught_up)
            && receivers[0].received() >= wanted
        {
            o.caught_up = Some(Instant::now());
        }
        let written = self.done.written.load(Ordering::Relaxed);
        let numbers = [0, 1].map(|i| (receivers[i].received(), wanted(&self.said, i)));
        let retried: u64 = self.engine.stats().destinations.iter().map(|d| d.retried).sum();
        self.screen.show(written, self.options.files, numbers, retried);
        if !self.screen.is_terminal() && self.last_line.elapsed() >= Duration::from_secs(1) {
            self.last_line = Instant::now();
            let [a, b] = numbers;
            let published = self.said.lock().unwrap().len();
            self.line(&format!(
                "{written} files written, {published} events published, {} of {} and {} of {} delivered, {retried} retried",
                a.0, a.1, b.0, b.1
            ));
        }
    }
}

/// Progress on stderr: bars on a terminal, lines elsewhere.
struct Screen {
    all: MultiProgress,
    bars: Option<[ProgressBar; 3]>,
}

impl Screen {
    fn new() -> Screen {
        let all = MultiProgress::new();
        let bars = io::stderr().is_terminal().then(|| {
            ["files", "thumbnails", "archive"].map(|name| {
                let bar = all.add(ProgressBar::new(1).with_prefix(name));
                if let Ok(style) = ProgressStyle::with_template("  {prefix:<11}{bar:40.green} {pos:>6}/{len:<6} {msg}")
                {
                    bar.set_style(style);
                }
                bar
            })
        });
        Screen { all, bars }
    }

    fn is_terminal(&self) -> bool {
        self.bars.is_some()
    }

    fn line(&self, text: &str) {
        if self.bars.is_some() {
            let _ = self.all.println(text);
        } else {
            say(text);
        }
    }

    fn show(&self, written: u64, files: u64, numbers: [(u64, u64); 2], retried: u64) {
        let Some([written_bar, bars @ ..]) = &self.bars else { return };
        written_bar.set_length(files);
        written_bar.set_position(written);
        for (bar, (received, wanted)) in bars.iter().zip(numbers) {
            bar.set_length(wanted.max(1));
            bar.set_position(received);
        }
        bars[0].set_message(if retried > 0 { format!("{retried} retried") } else { String::new() });
    }

    fn clear(&self) {
        for bar in self.bars.iter().flatten() {
            bar.abandon();
        }
    }
}

fn say(text: &str) {
    // Nobody may be reading; the exit code still tells.
    let _ = writeln!(io::stderr(), "{text}");
}

struct Summary<'a> {
    said: &'a [Said],
    fates: &'a BTreeMap<String, Fate>,
    stats: &'a Stats,
    wrote: [u64; 3],
    took: Duration,
    total: Duration,
    outage: Option<Outage>,
}

impl Summary<'_> {
    fn print(&self, receivers: &[Receiver; 2], bucket: &Path) -> Result<(), Failure> {
        let verdicts = [0, 1].map(|i| {
            let said: Vec<&Said> = self.said.iter().filter(|s| wanted_by(&s.key) == Some(i)).collect();
            let fates: BTreeMap<&str, Fate> =
                self.fates.iter().filter(|(k, _)| wanted_by(k) == Some(i)).map(|(k, f)| (k.as_str(), *f)).collect();
            judge(&said, &receivers[i].log(), &fates)
        });
        let mut faults: Vec<String> = Vec::new();
        for (r, v) in receivers.iter().zip(&verdicts) {
            faults.extend(v.faults.iter().map(|f| format!("{}: {f}", r.name)));
        }
        self.check_files(bucket, &mut faults);
        let wanted: u64 = verdicts.iter().map(|v| v.expected).sum();
        let published = self.said.len() as u64;
        let s = self.stats;
        for (what, counted, expected) in [
            ("accepted", s.accepted, published),
            ("wanted by no rule", s.no_match, published - wanted),
            ("deliveries", s.routed, wanted),
            ("delivered", s.delivered, wanted),
            ("dead letters", s.dead_lettered, 0),
            ("waiting", s.waiting, 0),
        ] {
            if counted != expected {
                faults.push(format!("the engine counted {counted} {what}, and there should be {expected}"));
            }
        }
        let mut out = io::stdout().lock();
        self.table(&mut out, receivers, &verdicts, published, wanted)?;
        if faults.is_empty() {
            writeln!(out, "\nEvery event arrived, in order for each key; the files agree.")?;
            return Ok(());
        }
        writeln!(out, "\nNot everything is as promised:")?;
        for fault in &faults {
            writeln!(out, "  {fault}")?;
        }
        Err(Failure::Told)
    }

    /// The files that are there are those that the writers left.
    fn check_files(&self, bucket: &Path, faults: &mut Vec<String>) {
        let left = self.fates.iter().filter(|(_, f)| **f != Fate::Deleted).map(|(k, _)| bucket.join(k));
        let mut left: Vec<PathBuf> = left.collect();
        let mut there: Vec<PathBuf> = walkdir::WalkDir::new(bucket)
            .into_iter()
            .flatten()
            .filter(|e| e.file_type().is_file())
            .map(walkdir::DirEntry::into_path)
            .collect();
        left.sort();
        there.sort();
        if left != there {
            faults.push(format!("{} files are in the bucket, and the writers left {}", there.len(), left.len()));
        }
    }

    fn table(
        &self,
        out: &mut dyn Write,
        receivers: &[Receiver; 2],
        verdicts: &[Verdict; 2],
        published: u64,
        wanted: u64,
    ) -> io::Result<()> {
        let [written, overwritten, deleted] = self.wrote;
        let rate = |n: u64, t: Duration| (n as f64 / t.as_secs_f64().max(1e-6)) as u64;
        writeln!(out)?;
        writeln!(
            out,
            "changes    {written} files written, {overwritten} overwritten, {deleted} deleted by {WRITERS} threads in {:.1?} (paced)",
            self.took
        )?;
        writeln!(
            out,
            "published  {published} events = {wanted} that a rule wants + {} that none wants",
            published - wanted
        )?;
        let overtaken = (written + overwritten + deleted).saturating_sub(published);
        if overtaken > 0 {
            writeln!(
                out,
                "           {overtaken} changes were overtaken by the next one of the file before they were looked at"
            )?;
        }
        writeln!(
            out,
            "delivered  {} of {wanted}, {} events/s over the whole demo ({:.1?})",
            self.stats.delivered,
            rate(self.stats.delivered, self.total),
            self.total
        )?;
        if let Some(Outage { since, back: Some((back, had, should)), caught_up: Some(caught_up), .. }) = self.outage {
            let backlog = should.saturating_sub(had);
            let time = caught_up.duration_since(back);
            writeln!(
                out,
                "outage     {} was down for {:.1?}; the {backlog} events that waited arrived within {time:.0?} of its return",
                receivers[0].name,
                back.duration_since(since),
            )?;
        }
        writeln!(out)?;
        writeln!(
            out,
            "{:<12}{:>9}{:>10}{:>9}{:>9}{:>10}{:>10}{:>10}{:>10}",
            "", "wanted", "arrived", "repeats", "retried", "requests", "p50", "p99", "p99.9"
        )?;
        for (r, v) in receivers.iter().zip(verdicts) {
            let retried = self.stats.destinations.iter().find(|d| d.name == r.name).map_or(0, |d| d.retried);
            let time = |q: f64| format!("{:.1} ms", v.latency.value_at_quantile(q) as f64 / 1000.0);
            writeln!(
                out,
                "{:<12}{:>9}{:>10}{:>9}{retried:>9}{:>10}{:>10}{:>10}{:>10}",
                r.name,
                v.expected,
                v.received,
                v.repeats,
                v.requests,
                time(0.5),
                time(0.99),
                time(0.999)
            )?;
        }
        writeln!(out, "\nTimes are from publishing to arrival, the outage included. Repeats carry the id of the first.")
    }
}
