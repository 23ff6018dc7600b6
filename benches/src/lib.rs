//! What the benches share: events of a usual size, a timer that costs little, and figures kept for the table.

use std::hint::spin_loop;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use tidewire::{Event, KnownType};

// The same receiver and the same load as the command has in `tidewire bench`.
#[path = "../../core/src/bin/tidewire/bench/sink.rs"]
pub mod sink;
#[path = "../../core/src/bin/tidewire/bench/workload.rs"]
pub mod workload;

/// One measured figure beside what it is to be judged by.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Figure {
    /// What was measured.
    pub name: String,
    /// How much.
    pub value: f64,
    /// In what unit; for rates ending in `/s` more is better, else less.
    pub unit: String,
    /// The limit or peer, measured in the same run.
    pub beside: String,
    /// Its value in the same unit.
    pub beside_value: f64,
}

fn dir() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target")), PathBuf::from);
    target.join("tidewire-bench")
}

/// Where the figures of a bench are kept.
pub fn figures_path(bench: &str) -> PathBuf {
    dir().join(format!("{bench}.json"))
}

/// Keeps the figures of a bench for the table.
///
/// # Panics
/// If they cannot be written.
pub fn keep(bench: &str, figures: &[Figure]) {
    std::fs::create_dir_all(dir()).expect("the target directory is writable");
    let text = serde_json::to_string_pretty(figures).expect("figures are plain data");
    std::fs::write(figures_path(bench), text).expect("the target directory is writable");
}

/// Ticks of a clock that is cheap to read, and how many make a nanosecond.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    ticks_per_ns: f64,
    overhead_ticks: u64,
}

impl Clock {
    /// Calibrates against the system's clock for 50 ms.
    pub fn new() -> Clock {
        let (t0, begun) = (ticks(), Instant::now());
        while begun.elapsed().as_millis() < 50 {}
        let ticks_per_ns = (ticks() - t0) as f64 / begun.elapsed().as_nanos() as f64;
        let mut overhead: Vec<u64> = (0..1001)
            .map(|_| {
                let t = ticks();
                ticks() - t
            })
            .collect();
        overhead.sort_unstable();
        Clock { ticks_per_ns, overhead_ticks: overhead[500] }
    }

    /// Nanoseconds between two readings, without what reading costs.
    pub fn ns(&self, from: u64, to: u64) -> u64 {
        ((to - from).saturating_sub(self.overhead_ticks) as f64 / self.ticks_per_ns) as u64
    }
}

impl Default for Clock {
    fn default() -> Self {
        Clock::new()
    }
}

/// A reading of the cheap clock, not moved around by the processor.
#[inline]
pub fn ticks() -> u64 {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: both instructions exist on every x86-64 processor and touch no memory.
    unsafe {
        core::arch::x86_64::_mm_lfence();
        let t = core::arch::x86_64::_rdtsc();
        core::arch::x86_64::_mm_lfence();
        t
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        use std::sync::OnceLock;
        static START: OnceLock<Instant> = OnceLock::new();
        START.get_or_init(Instant::now).elapsed().as_nanos() as u64
    }
}

/// A histogram of nanoseconds up to 10 s, three significant digits.
///
/// # Panics
/// Never: the bounds are constant.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 10_000_000_000, 3).expect("constant bounds")
}

/// The median of some values.
pub fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Measures two sides in pairs, of which every second begins with the other side: the machine may slow down as it goes.
pub fn in_turn<T>(pairs: usize, mut ours: impl FnMut() -> T, mut theirs: impl FnMut() -> T) -> Vec<(T, T)> {
    let pair = |n| {
        let first = (n % 2 == 0).then(&mut theirs);
        let ours = ours();
        (ours, first.unwrap_or_else(&mut theirs))
    };
    (0..pairs).map(pair).collect()
}

/// Of two sides that were measured in turn: the median of the first, and beside it what makes their ratio the median of the
/// ratios within pairs. A machine that changes its speed does so for both of a pair, but not for all pairs.
pub fn paired(pairs: &[(f64, f64)]) -> (f64, f64) {
    let value = median(&mut pairs.iter().map(|p| p.0).collect::<Vec<_>>());
    (value, value / median(&mut pairs.iter().map(|p| p.0 / p.1).collect::<Vec<_>>()))
}

/// The median that criterion measured for `group/id`, in nanoseconds.
///
/// # Panics
/// If it has not been measured.
pub fn criterion_median(group: &str, id: &str) -> f64 {
    let clean = |s: &str| s.replace('/', "_");
    let path = dir().with_file_name("criterion").join(clean(group)).join(clean(id)).join("new/estimates.json");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let estimates: serde_json::Value = serde_json::from_str(&text).expect("criterion writes JSON");
    estimates["median"]["point_estimate"].as_f64().expect("a median")
}

/// A figure from two of criterion's measurements in one group.
pub fn criterion_figure(group: &str, id: &str, beside_id: &str) -> Figure {
    Figure {
        name: format!("{group}: {id}"),
        value: criterion_median(group, id),
        unit: "ns".into(),
        beside: beside_id.into(),
        beside_value: criterion_median(group, beside_id),
    }
}

/// An object's creation with the fields that a store usually knows; about 300 bytes as a frame.
pub fn event() -> Event<'static> {
    let key = b"logs/acme/api/2025/03/17/05/api-11-0123456789abcdef.log.gz";
    let mut e = Event::new(KnownType::ObjectCreatedPut.into(), "acme-prod", key);
    e.time_ns = 1_750_000_000_000_000_000;
    e.size = Some(1 << 20);
    e.etag = "0123456789abcdef0123456789abcdef";
    e.version_id = "fedcba9876543210fedcba9876543210";
    e.requester = "AWS:AIDA0042EXAMPLE";
    e.source_ip = "10.1.2.3";
    e.request_id = "4442587FB7D0A2F9";
    e.content_type = "application/gzip";
    e.metadata = &[("owner", "billing")];
    e
}

/// How calls follow each other: so many in a row, then a pause. The pause grows with them, so that all patterns come to the
/// same number of calls in a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bursts(pub usize);

impl Bursts {
    /// One call at a time, as from handlers of requests.
    pub const EVENLY: Bursts = Bursts(1);
    /// As from a handler of a request for many objects.
    pub const OF_16: Bursts = Bursts(16);
}

/// The pause per call, times the number of threads.
const PAUSE: Duration = Duration::from_nanos(2_500);

/// Runs `op` so many times on each of so many threads, with pauses after bursts; answers p50 and p99 in nanoseconds of those
/// that answered `true`.
///
/// # Panics
/// If a thread does.
pub fn paced(
    clock: Clock,
    threads: usize,
    per_thread: usize,
    bursts: Bursts,
    op: impl Fn() -> bool + Sync,
) -> (f64, f64) {
    let pause = PAUSE * (threads * bursts.0) as u32;
    let mut all = histogram();
    std::thread::scope(|s| {
        let runs: Vec<_> = (0..threads)
            .map(|_| {
                s.spawn(|| {
                    let mut h = histogram();
                    for n in 0..per_thread {
                        let from = ticks();
                        let taken = op();
                        let to = ticks();
                        if taken {
                            h.saturating_record(clock.ns(from, to).max(1));
                        }
                        if n % bursts.0 == bursts.0 - 1 {
                            let until = Instant::now() + pause;
                            while Instant::now() < until {
                                spin_loop();
                            }
                        }
                    }
                    h
                })
            })
            .collect();
        for r in runs {
            all.add(r.join().expect("a publisher")).expect("the same bounds");
        }
    });
    (quantile(&all, 0.5), quantile(&all, 0.99))
}

/// A quantile of times that were read from a clock with ticks, which may be as long as what is measured is apart: those that
/// look alike are taken to lie evenly between the ones before and after them.
pub fn quantile(of: &Histogram<u64>, q: f64) -> f64 {
    let values: Vec<(f64, f64)> =
        of.iter_recorded().map(|v| (v.value_iterated_to() as f64, v.count_at_value() as f64)).collect();
    let rank = q * of.len() as f64;
    let mut before = 0.0;
    for (i, (value, count)) in values.iter().enumerate() {
        if before + count >= rank {
            let middle = |n: Option<&(f64, f64)>| n.map_or(*value, |(other, _)| (value + other) / 2.0);
            let (from, to) = (middle(i.checked_sub(1).and_then(|n| values.get(n))), middle(values.get(i + 1)));
            return from + (to - from) * (rank - before) / count;
        }
        before += count;
    }
    f64::NAN
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_lies_between_the_ticks_of_the_clock() {
        let mut h = histogram();
        for (value, count) in [(10, 25), (20, 50), (30, 25)] {
            h.record_n(value, count).expect("within the bounds");
        }
        assert_eq!(quantile(&h, 0.5), 20.0);
        assert_eq!(quantile(&h, 0.3), 16.0);
        assert_eq!(quantile(&h, 0.75), 25.0);
    }
}
