//! `tidewire bench`: what an engine does on this machine, each figure beside a limit that is measured in the same run.

mod limits;
mod load;
mod receiver;
mod report;
// The benches of the repository use them too, and more of them.
#[allow(dead_code, reason = "the benches of the repository use the rest")]
mod sink;
#[allow(dead_code, reason = "the benches of the repository use the rest")]
mod workload;

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;
use hdrhistogram::Histogram;
use serde::Serialize;
use tidewire::{Ack, Error};

use crate::Failure;
use load::{Bed, Pace, Run, Setup};
use report::{Beside, Figure, Machine, Place, Report};

pub(crate) use receiver::run as receive;

/// Parts of the sustainable rate at which latency is measured.
const SHARES: [f64; 6] = [0.05, 0.1, 0.25, 0.5, 0.75, 0.9];
const RULES: [usize; 4] = [0, 1_000, 10_000, 100_000];
const DESTINATIONS: [usize; 4] = [1, 2, 10, 100];
const ACKS: [(Ack, &str); 3] = [(Ack::Memory, "memory"), (Ack::Written, "written"), (Ack::Synced, "synced")];

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
enum Part {
    /// Events per second that go through to one destination, and the processor time of each
    Throughput,
    /// How long events are on their way at parts of that rate
    Latency,
    /// Throughput by ack level
    Ack,
    /// Throughput by the number of rules
    Rules,
    /// Processor time of an event by the number of destinations that it goes to
    Destinations,
    /// Processor time of an engine that has nothing to do
    Idle,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// What to measure; everything if nothing is named
    #[arg(value_enum, value_name = "PART")]
    parts: Vec<Part>,
    /// How long each measurement takes
    #[arg(long, value_name = "SECONDS", default_value_t = 2.0, value_parser = seconds)]
    seconds: f64,
    /// How often each is made; the median counts
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=101))]
    repeat: u64,
    /// When an event counts as published: memory, written or synced
    #[arg(long, value_name = "LEVEL", default_value = "synced", value_parser = Ack::parse)]
    #[arg(hide_possible_values = true)]
    ack: Ack,
    /// Threads that publish
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=256))]
    publishers: u64,
    /// Shards of the engine; as an engine chooses if it is not said
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=256))]
    shards: Option<u64>,
    /// The most events of one request
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    batch: u64,
    /// How long the first event of a request waits for others, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 0.0, value_parser = milliseconds)]
    linger: f64,
    /// Requests to a destination at once
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u64).range(1..=1024))]
    concurrency: u64,
    /// Where the logs are kept meanwhile: the disk that is measured
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,
    /// Also writes everything into this file, as JSON; `python -m tidewire.plot FILE` draws it
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Another seed makes other events and rules
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
}

fn seconds(text: &str) -> Result<f64, String> {
    between(text, 0.05, 3600.0, "seconds")
}

fn milliseconds(text: &str) -> Result<f64, String> {
    between(text, 0.0, 60_000.0, "milliseconds")
}

fn between(text: &str, from: f64, to: f64, unit: &str) -> Result<f64, String> {
    let n = text.parse::<f64>().ok().filter(|n| (from..=to).contains(n));
    n.ok_or_else(|| format!("`{}` is no number of {unit} from {from} to {to}", text.escape_debug()))
}

pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    let wants = |part| options.parts.is_empty() || options.parts.contains(&part);
    let mut bench = Bench { options, figures: Vec::new() };
    let mut capacity = None;
    if wants(Part::Throughput) {
        capacity = Some(bench.throughput()?);
    }
    if wants(Part::Latency) {
        bench.latency(capacity)?;
    }
    if wants(Part::Ack) {
        bench.acks()?;
    }
    if wants(Part::Rules) {
        bench.rules()?;
    }
    if wants(Part::Destinations) {
        bench.destinations()?;
    }
    if wants(Part::Idle) {
        bench.idle()?;
    }
    let report = Report {
        version: env!("CARGO_PKG_VERSION"),
        machine: Machine::this(&options.dir),
        settings: bench.settings(),
        figures: bench.figures,
    };
    if let Some(path) = &options.json {
        let text = serde_json::to_string_pretty(&report).map_err(io::Error::from)?;
        std::fs::write(path, text + "\n").map_err(|e| Error::io(format!("cannot write {}", path.display()), &e))?;
    }
    crate::print(|out| Ok(report.print(out)?))
}

/// How long a step of events took.
type Times = fn(&Run) -> &Histogram<u64>;

struct Bench<'a> {
    options: &'a Options,
    figures: Vec<Figure>,
}

impl Bench<'_> {
    fn setup(&self) -> Setup {
        let o = self.options;
        Setup {
            dir: o.dir.clone(),
            seed: o.seed,
            ack: o.ack,
            publishers: o.publishers as usize,
            shards: o.shards.map(|n| n as usize),
            batch: o.batch as usize,
            linger: Duration::from_secs_f64(o.linger / 1e3),
            concurrency: o.concurrency as usize,
            destinations: 1,
            rules: 0,
        }
    }

    fn settings(&self) -> serde_json::Value {
        let o = self.options;
        let ack = ACKS.iter().find(|(ack, _)| *ack == o.ack).map(|(_, name)| *name);
        serde_json::json!({
            "parts": o.parts, "seconds": o.seconds, "repeat": o.repeat, "ack": ack, "publishers": o.publishers,
            "shards": o.shards, "batch": o.batch, "linger_ms": o.linger, "concurrency": o.concurrency, "seed": o.seed,
        })
    }

    fn duration(&self) -> Duration {
        Duration::from_secs_f64(self.options.seconds)
    }

    /// Says what is being measured, if somebody looks.
    fn say(&self, what: &str) {
        let mut err = io::stderr();
        if err.is_terminal() {
            let _ = writeln!(err, "{what}");
        }
    }

    fn add(&mut self, part: &'static str, name: impl Into<String>, unit: &'static str, values: &[f64]) -> &mut Figure {
        let value = median(values);
        let range = values.iter().fold([f64::INFINITY, f64::NEG_INFINITY], |[l, h], v| [l.min(*v), h.max(*v)]);
        let figure = Figure { part, name: name.into(), at: None, value, range, unit, beside: None };
        self.figures.push(figure);
        // It was just pushed.
        let last = self.figures.len() - 1;
        &mut self.figures[last]
    }

    /// Beds for each of several setups, measured in turn as often as is wanted; the runs by setup.
    fn in_turn(&self, part: &str, setups: Vec<Setup>) -> Result<Vec<Vec<Run>>, Failure> {
        let mut beds = setups.iter().map(Bed::new).collect::<Result<Vec<_>, _>>()?;
        let mut runs: Vec<Vec<Run>> = beds.iter().map(|_| Vec::new()).collect();
        for n in 0..self.options.repeat {
            self.say(&format!("{part}: {} of {}", n + 1, self.options.repeat));
            for (bed, runs) in beds.iter_mut().zip(&mut runs) {
                runs.push(bed.run(Pace::Full, self.duration())?);
            }
        }
        beds.into_iter().try_for_each(Bed::close)?;
        Ok(runs)
    }

    /// The sustainable rate.
    fn throughput(&mut self) -> Result<f64, Failure> {
        const PART: &str = "throughput, one destination";
        let setup = self.setup();
        let mut bed = Bed::new(&setup)?;
        let (mut runs, mut sent, mut written) = (Vec::new(), Vec::new(), Vec::new());
        for n in 0..self.options.repeat {
            self.say(&format!("throughput: {} of {}", n + 1, self.options.repeat));
            let run = bed.run(Pace::Full, self.duration())?;
            sent.push(limits::loopback(setup.concurrency, &run, self.duration())?);
            written.extend(limits::disk(&setup.dir, &run, self.duration())?);
            runs.push(run);
        }
        bed.close()?;
        let rates = of(&runs, Run::rate);
        self.add(PART, "events through", "ev/s", &rates).beside =
            Some(beside("as many bytes sent by a bare loop", &rates, &sent));
        if written.len() == rates.len() {
            self.add(PART, "the same beside the disk", "ev/s", &rates).beside =
                Some(beside("as many bytes written and synced by a bare loop", &rates, &written));
        }
        let per_event = |f: fn(&Run) -> Duration| move |r: &Run| f(r).as_nanos() as f64 / r.events.max(1) as f64;
        self.add(PART, "processor, publishing", "ns/ev", &of(&runs, per_event(|r| r.publishers_cpu)));
        self.add(PART, "processor, everything after it", "ns/ev", &of(&runs, per_event(|r| r.engine_cpu)));
        self.add(PART, "processor, the receiver", "ns/ev", &of(&runs, per_event(|r| r.receiver_cpu)));
        self.add(PART, "events per request", "", &of(&runs, |r| r.events as f64 / r.requests.max(1) as f64));
        self.add(PART, "events per sync", "", &of(&runs, |r| r.events as f64 / r.syncs.max(1) as f64));
        Ok(median(&rates))
    }

    fn latency(&mut self, capacity: Option<f64>) -> Result<(), Failure> {
        const PART: &str = "latency, from when an event was due";
        let mut bed = Bed::new(&self.setup())?;
        let capacity = match capacity {
            Some(rate) => rate,
            None => {
                let runs = (0..3).map(|_| bed.run(Pace::Full, self.duration())).collect::<Result<Vec<_>, _>>()?;
                median(&of(&runs, Run::rate))
            }
        };
        let mut runs: Vec<Vec<Run>> = SHARES.iter().map(|_| Vec::new()).collect();
        for n in 0..self.options.repeat {
            self.say(&format!("latency: {} of {}", n + 1, self.options.repeat));
            for (share, runs) in SHARES.iter().zip(&mut runs) {
                runs.push(bed.run(Pace::Rate(capacity * share), self.duration())?);
            }
        }
        bed.close()?;
        for (share, runs) in SHARES.iter().zip(&runs) {
            let rate = capacity * share;
            let steps: [(&str, Times); 3] = [
                ("publish is back", |r| &r.called),
                ("acknowledged", |r| &r.acknowledged),
                ("received", |r| &r.received),
            ];
            for (step, times) in steps {
                // At `memory` nothing is acknowledged later.
                if runs.iter().any(|r| times(r).is_empty()) {
                    continue;
                }
                for (name, q) in [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)] {
                    let values = of(runs, |r| times(r).value_at_quantile(q) as f64 / 1e3);
                    let line = format!("{step}, {name}");
                    let name = format!("{} ev/s ({:.0} %): {line}", report::shown(rate), share * 100.0);
                    self.add(PART, name, "us", &values).at = place("events per second", rate, &line);
                }
            }
        }
        Ok(())
    }

    fn acks(&mut self) -> Result<(), Failure> {
        let setups = ACKS.iter().map(|(ack, _)| Setup { ack: *ack, ..self.setup() }).collect();
        let runs = self.in_turn("ack", setups)?;
        let base = of(&runs[0], Run::rate);
        for ((_, name), runs) in ACKS.iter().zip(&runs) {
            let rates = of(runs, Run::rate);
            self.add("throughput by ack level", *name, "ev/s", &rates).beside = Some(beside("memory", &rates, &base));
        }
        Ok(())
    }

    fn rules(&mut self) -> Result<(), Failure> {
        let setups = RULES.iter().map(|rules| Setup { rules: *rules, ..self.setup() }).collect();
        let runs = self.in_turn("rules", setups)?;
        let base = of(&runs[0], Run::rate);
        for (rules, runs) in RULES.iter().zip(&runs) {
            let rates = of(runs, Run::rate);
            let name = format!("{} rules more", report::shown(*rules as f64));
            let figure = self.add("throughput by rules", name, "ev/s", &rates);
            figure.at = place("rules", *rules as f64, "throughput");
            figure.beside = Some(beside("one rule", &rates, &base));
        }
        Ok(())
    }

    fn destinations(&mut self) -> Result<(), Failure> {
        let setups = DESTINATIONS.iter().map(|n| Setup { destinations: *n, ..self.setup() }).collect();
        let runs = self.in_turn("destinations", setups)?;
        let base = of(&runs[0], Run::cpu_ns_per_event);
        for (n, runs) in DESTINATIONS.iter().zip(&runs) {
            let (cpu, rates) = (of(runs, Run::cpu_ns_per_event), of(runs, |r| r.rate() * *n as f64));
            const PART: &str = "one event to several destinations";
            let figure = self.add(PART, format!("processor, {n} destinations"), "ns/ev", &cpu);
            figure.at = place("destinations", *n as f64, "processor");
            figure.beside = Some(beside("one destination", &cpu, &base));
            self.add(PART, format!("deliveries, {n} destinations"), "/s", &rates);
        }
        Ok(())
    }

    fn idle(&mut self) -> Result<(), Failure> {
        let bed = Bed::new(&self.setup())?;
        // What the warm-up has left to do is done first.
        std::thread::sleep(Duration::from_millis(500));
        let mut percents = Vec::new();
        for _ in 0..self.options.repeat {
            let before = receiver::cpu_time(libc::RUSAGE_SELF);
            std::thread::sleep(self.duration());
            let used = receiver::cpu_time(libc::RUSAGE_SELF) - before;
            percents.push(used.as_secs_f64() / self.options.seconds * 100.0);
        }
        bed.close()?;
        self.add("an engine with nothing to do", "of one processor", "%", &percents);
        Ok(())
    }
}

fn place(axis: &'static str, value: f64, line: &str) -> Option<Place> {
    Some(Place { axis, value, line: line.into() })
}

fn of(runs: &[Run], f: impl Fn(&Run) -> f64) -> Vec<f64> {
    runs.iter().map(f).collect()
}

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// What was measured in turn with the figure's values.
fn beside(name: &str, values: &[f64], limits: &[f64]) -> Beside {
    let ratios: Vec<f64> = values.iter().zip(limits).map(|(v, l)| v / l).collect();
    Beside { name: name.into(), value: median(limits), ratio: median(&ratios) }
}
