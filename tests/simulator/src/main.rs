//! `tidewire-simulate SEEDS [FIRST]`: runs seeds and ends with one line of counts. Without SEEDS it runs 1000. A seed that
//! fails is printed; running it alone replays exactly what it did.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use tidewire_simulator::{Report, run};

/// Failing seeds that are told in full.
const TOLD: usize = 10;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut number = |what: &str, default: u64| match arguments.next() {
        None => default,
        Some(text) => text.parse().unwrap_or_else(|_| {
            eprintln!("{what} is `{text}`, not a number; use: tidewire-simulate SEEDS [FIRST]");
            std::process::exit(2);
        }),
    };
    let seeds = number("SEEDS", 1000);
    let first = number("FIRST", 1);
    if std::env::var_os("TIDEWIRE_SIMULATE_LOG").is_some() {
        tidewire_simulator::log_to_stderr();
    }
    let threads = if seeds == 1 { 1 } else { std::thread::available_parallelism().map_or(1, usize::from) };
    let next = AtomicU64::new(first);
    let stop = AtomicBool::new(false);
    let total = Mutex::new((Report::default(), Vec::<Report>::new(), 0u64));
    let start = Instant::now();
    std::thread::scope(|s| {
        for _ in 0..threads {
            s.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first.saturating_add(seeds) || stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let report = std::panic::catch_unwind(|| run(seed)).unwrap_or_else(|_| Report {
                        seed,
                        violations: vec!["panicked".into()],
                        ..Report::default()
                    });
                    let mut t = total.lock().unwrap_or_else(|e| e.into_inner());
                    t.0.add(&report);
                    t.2 += 1;
                    if !report.violations.is_empty() {
                        if t.1.len() < TOLD {
                            println!("seed {seed}: {}", report.violations.join("; "));
                        }
                        t.1.push(report);
                        if t.1.len() >= 100 {
                            stop.store(true, Ordering::Relaxed);
                        }
                    }
                }
            });
        }
    });
    let (sum, failed, ran) = total.into_inner().unwrap_or_else(|e| e.into_inner());
    let count = |word: &str| failed.iter().flat_map(|r| &r.violations).filter(|v| v.contains(word)).count();
    println!(
        "{ran} seeds: {} failed (lost {}, spurious {}, order {}, hangs {}); {} events published, {} durable, {} deliveries \
         accepted, {} repeated, {} dead letters; {} kills, {} power losses ({} sectors lost), {} closes, {} disk errors, \
         {} times no space; {:.0} virtual hours in {:.0} s",
        failed.len(),
        count("missing"),
        count("never was") + count("does not want"),
        count("came after"),
        count("get through") + count("spins"),
        sum.published,
        sum.durable,
        sum.accepted,
        sum.repeats,
        sum.dead,
        sum.kills,
        sum.power_losses,
        sum.sectors_lost,
        sum.closes,
        sum.disk_errors,
        sum.no_space,
        sum.virtual_ns as f64 / 3.6e12,
        start.elapsed().as_secs_f64(),
    );
    if !failed.is_empty() {
        println!("replay one with: tests/simulate 1 SEED");
        std::process::exit(1);
    }
}
