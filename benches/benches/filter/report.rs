//! The figures as tables.

use std::time::Duration;

use tidewire_benches::workload::Mix;
use tidewire_benches::{Figure, keep};

/// What an engine did with a set of rules.
#[derive(Clone, Debug)]
pub struct Measured {
    pub name: String,
    /// For one event.
    pub ns: f64,
    /// For one rule.
    pub bytes: f64,
    /// For one rule, in microseconds.
    pub build: f64,
}

impl Measured {
    /// With the time that it took to build and the bytes of what was built, if anything was.
    pub fn new(name: &str, rules: usize, built: Option<(Duration, usize)>) -> Measured {
        let rules = rules as f64;
        let (build, bytes) = built.map_or((f64::NAN, f64::NAN), |(t, n)| (t.as_secs_f64() * 1e6, n as f64));
        Measured { name: name.into(), ns: f64::NAN, bytes: bytes / rules, build: build / rules }
    }
}

struct Cell {
    mix: Mix,
    rules: usize,
    matches: f64,
    measured: Vec<Measured>,
}

struct LeftOut {
    mix: Mix,
    engine: String,
    why: String,
    rules: Vec<usize>,
}

#[derive(Default)]
pub struct Report {
    cells: Vec<Cell>,
    left_out: Vec<LeftOut>,
    grown: Vec<(Mix, Vec<f64>)>,
}

impl Report {
    pub fn add(&mut self, mix: Mix, rules: usize, matches: f64, measured: Vec<Measured>) {
        self.cells.push(Cell { mix, rules, matches, measured });
    }

    pub fn left_out(&mut self, mix: Mix, rules: usize, engine: &str, why: String) {
        let same = |l: &&mut LeftOut| l.mix == mix && l.engine == engine && l.why == why;
        match self.left_out.iter_mut().find(same) {
            Some(l) => l.rules.push(rules),
            None => self.left_out.push(LeftOut { mix, engine: engine.into(), why, rules: vec![rules] }),
        }
    }

    /// Takes what Tidewire needs for an event among each number of rules, measured in turn.
    pub fn grown(&mut self, mix: Mix, ns: Vec<f64>) {
        self.grown.push((mix, ns));
    }

    fn find(&self, mix: Mix, rules: usize, name: &str) -> Option<&Measured> {
        let cell = self.cells.iter().find(|c| c.mix == mix && c.rules == rules)?;
        cell.measured.iter().find(|m| m.name == name)
    }

    /// Prints what is known of a mix.
    pub fn print(&self, mix: Mix, counts: &[usize]) {
        let cells: Vec<&Cell> = self.cells.iter().filter(|c| c.mix == mix).collect();
        let mut names: Vec<&str> = Vec::new();
        for m in cells.iter().flat_map(|c| &c.measured) {
            if !names.contains(&&*m.name) {
                names.push(&m.name);
            }
        }
        type Value = fn(&Measured) -> f64;
        let tables: [(&str, Value); 3] =
            [("ns per event", |m| m.ns), ("bytes per rule", |m| m.bytes), ("build, us per rule", |m| m.build)];
        for (what, value) in tables {
            print!("\n{:<32}", format!("{}: {what}", mix.name()));
            counts.iter().for_each(|n| print!(" {n:>12}"));
            println!("{}", if what.starts_with("ns") { "   100->100k  100->1M" } else { "" });
            for name in &names {
                let at = |n: usize| self.find(mix, n, name).map(value).filter(|x| x.is_finite());
                if counts.iter().all(|n| at(*n).is_none()) {
                    continue;
                }
                print!("{name:<32}");
                for n in counts {
                    match at(*n) {
                        Some(x) if x < 100.0 => print!(" {x:>12.1}"),
                        Some(x) => print!(" {x:>12.0}"),
                        None => print!(" {:>12}", "-"),
                    }
                }
                if what.starts_with("ns") {
                    for n in [100_000, 1_000_000] {
                        match at(100).zip(at(n)) {
                            Some((few, many)) => print!(" {:>10.2}", many / few),
                            None => print!(" {:>10}", "-"),
                        }
                    }
                }
                println!();
            }
        }
        for (_, ns) in self.grown.iter().filter(|(m, _)| *m == mix) {
            print!("\n{:<32}", "Tidewire, all numbers in turn");
            ns.iter().for_each(|x| print!(" {x:>12.1}"));
            print!("\n{:<32}", "to the first");
            ns.iter().for_each(|x| print!(" {:>12.2}", x / ns[0]));
        }
        print!("\n{:<32}", format!("{}: matches per event", mix.name()));
        cells.iter().for_each(|c| print!(" {:>12.2}", c.matches));
        println!("\n\n{:<32}", format!("{}: times Tidewire's", mix.name()));
        for name in names.iter().skip(1) {
            print!("{name:<32}");
            for n in counts {
                match self.find(mix, *n, names[0]).zip(self.find(mix, *n, name)) {
                    Some((own, other)) => print!(" {:>12.2}", other.ns / own.ns),
                    None => print!(" {:>12}", "-"),
                }
            }
            println!();
        }
        for l in self.left_out.iter().filter(|l| l.mix == mix) {
            println!("{} is left out at {:?} rules: {}", l.engine, l.rules, l.why);
        }
        println!("load of the machine now: {}", load());
    }

    /// Keeps the figures for the table of all benches.
    pub fn keep(&self) {
        let mut figures = Vec::new();
        for cell in &self.cells {
            let Some((own, others)) = cell.measured.split_first() else { continue };
            for other in others {
                figures.push(Figure {
                    name: format!("{}, {} rules", cell.mix.name(), cell.rules),
                    value: own.ns,
                    unit: "ns".into(),
                    beside: other.name.clone(),
                    beside_value: other.ns,
                });
            }
        }
        if !figures.is_empty() {
            keep("filter", &figures);
        }
    }
}

/// How busy the machine was in the last 1, 5 and 15 minutes, and its processors.
fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load: Vec<&str> = text.split(' ').take(3).collect();
    let processors = std::thread::available_parallelism().map_or(0, |n| n.get());
    format!("{}, of {processors} processors", load.join(" "))
}
