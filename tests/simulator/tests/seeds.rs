//! A fixed number of seeds, the same ones each time.

use tidewire_simulator::{Report, run};

/// The first seeds; `tests/simulate` runs as many as wanted.
const SEEDS: u64 = 40;

#[test]
fn nothing_is_lost_invented_out_of_order_or_stuck() {
    let threads = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    let reports: Vec<Report> = std::thread::scope(|s| {
        let runs: Vec<_> = (0..threads)
            .map(|t| s.spawn(move || (1..=SEEDS).filter(|n| n % threads == t).map(run).collect()))
            .collect();
        runs.into_iter().flat_map(|r| -> Vec<Report> { r.join().expect("a run panicked") }).collect()
    });
    let failed: Vec<_> = reports.iter().filter(|r| !r.violations.is_empty()).map(|r| (r.seed, &r.violations)).collect();
    assert!(failed.is_empty(), "replay with tests/simulate 1 SEED: {failed:#?}");
    // Runs in which nothing happens would show nothing.
    let mut sum = Report::default();
    reports.iter().for_each(|r| sum.add(r));
    println!("{sum:?}");
    assert!(sum.durable > 50 * SEEDS && sum.accepted > 50 * SEEDS && sum.repeats > 0, "{sum:?}");
    assert!(sum.kills > 0 && sum.closes > 0 && sum.power_losses > 0 && sum.sectors_lost > 0, "{sum:?}");
    assert!(sum.disk_errors > 0, "{sum:?}");
}

#[test]
fn a_seed_is_the_same_run_each_time() {
    for seed in 1..=20 {
        let (a, b) = (run(seed), run(seed));
        assert_eq!((a.trace, a.steps, a.accepted), (b.trace, b.steps, b.accepted), "seed {seed}");
    }
}
