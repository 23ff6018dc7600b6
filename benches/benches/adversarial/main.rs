//! Whether the cost of matching stays linear in what somebody can send, and nearly the same however many rules there are,
//! also where both are made to hurt.
//!
//! Each case is run at one, two and four times its size under valgrind's callgrind, which counts instructions: the counts
//! hardly differ from run to run, whatever else the machine does. Doubling a case may multiply its count by the limit of
//! the case and no more (where rules grow, the mean of both doublings), or the bench ends with 1. A case that is quadratic on purpose is run too: the bench ends with 1
//! if that one stays within its limit.
//!
//! Options, behind the name of the bench: names of cases, for these alone; `--list` for the names.

mod cases;

use std::hint::black_box;
use std::process::{Command, ExitCode};

use tidewire::event::FrameView;
use tidewire::filter::{MatchMemory, Matcher};
use tidewire_benches::{Figure, keep};

use cases::{CASES, Case, Work};

/// Sizes, in multiples of the smallest.
const SCALES: [usize; 3] = [1, 2, 4];

/// The function whose instructions are counted, with all that it calls.
const COUNTED: &str = "instructions_are_counted_here";

#[inline(never)]
fn instructions_are_counted_here(work: &mut dyn FnMut()) {
    work();
    // So that the call is none that takes this function's place.
    black_box(());
}

fn main() -> ExitCode {
    // What cargo adds.
    let args: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    match &args[..] {
        [option, name, scale] if option == "--count" => {
            let case = CASES.iter().find(|c| c.name == name);
            let (Some(case), Ok(scale)) = (case, scale.parse()) else { return not_understood(&args) };
            count(case, scale);
            return ExitCode::SUCCESS;
        }
        [option] if option == "--list" => {
            CASES.iter().for_each(|c| println!("{}", c.name));
            return ExitCode::SUCCESS;
        }
        names if names.iter().all(|n| CASES.iter().any(|c| c.name == *n)) => {}
        _ => return not_understood(&args),
    }
    let wanted = |c: &&Case| args.is_empty() || args.iter().any(|n| n == c.name);
    compare(&CASES.iter().filter(wanted).collect::<Vec<_>>())
}

fn not_understood(args: &[String]) -> ExitCode {
    eprintln!("not understood: {}; there are names of cases, and --list for them", args.join(" "));
    ExitCode::from(2)
}

/// Does the work of a case once, to be counted.
fn count(case: &Case, scale: usize) {
    let mut work = (case.make)(scale);
    let mut run: Box<dyn FnMut()> = match &mut work {
        Work::Match { rules, frames } => {
            let matcher = Matcher::compile(rules).expect("rules");
            let mut memory = MatchMemory::default();
            let mut out = Vec::new();
            Box::new(move || {
                for frame in &*frames {
                    out.clear();
                    matcher.matches(&FrameView::trusted(black_box(frame)), &mut memory, &mut out);
                    black_box(&out);
                }
            })
        }
        Work::Compile { rules } => Box::new(|| drop(black_box(Matcher::compile(black_box(rules))))),
        Work::Other(work) => Box::new(work),
    };
    // What grows or is read only the first time is no part of it.
    run();
    instructions_are_counted_here(&mut run);
}

/// Instructions of a case at one size.
fn instructions(case: &Case, scale: usize) -> Result<u64, String> {
    let own = std::env::current_exe().map_err(|e| e.to_string())?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--collect-atstart=no"])
        .arg(format!("--toggle-collect=*{COUNTED}*"))
        .arg(own)
        .args(["--count", case.name, &scale.to_string()])
        .output()
        .map_err(|e| format!("valgrind does not run ({e}); it is a package of most distributions"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(said.into_owned());
    }
    let collected = said.lines().find_map(|l| l.split_once("Collected :")).map(|(_, n)| n.trim().parse());
    match collected {
        Some(Ok(n)) if n > 0 => Ok(n),
        _ => Err(format!("it counted nothing: {said}")),
    }
}

/// Runs cases and prints them as a table.
fn compare(cases: &[&Case]) -> ExitCode {
    println!(
        "{:<34} {:>14} {:>14} {:>14} {:>7} {:>7} {:>6}",
        "instructions", "1x", "2x", "4x", "2x/1x", "4x/2x", "limit"
    );
    let mut figures = Vec::new();
    let mut failed = 0;
    for case in cases {
        let counts: Result<Vec<u64>, String> = SCALES.iter().map(|s| instructions(case, *s)).collect();
        let counts = match counts {
            Ok(counts) => counts,
            Err(why) => {
                eprintln!("{}: {why}", case.name);
                return ExitCode::FAILURE;
            }
        };
        let ratios: Vec<f64> = counts.windows(2).map(|pair| pair[1] as f64 / pair[0] as f64).collect();
        let worst = case.grows.judged(&ratios);
        let limit = case.grows.limit();
        let wrong = match (worst > limit, case.is_control) {
            (true, false) => "  TOO MUCH",
            (false, true) => "  NOT SEEN, though it is quadratic",
            (true, true) => "  as it should be: this one is quadratic on purpose",
            (false, false) => "",
        };
        failed += usize::from((worst > limit) != case.is_control);
        print!("{:<34}", case.name);
        counts.iter().for_each(|n| print!(" {n:>14}"));
        ratios.iter().for_each(|r| print!(" {r:>7.2}"));
        println!(" {limit:>6.2}{wrong}");
        if !case.is_control {
            figures.push(Figure {
                name: format!("{}, doubled", case.name),
                value: worst,
                unit: "times".into(),
                beside: "limit".into(),
                beside_value: limit,
            });
        }
    }
    keep("adversarial", &figures);
    // The last line, as tests/run reads it.
    println!("{} passed, {failed} failed", cases.len() - failed);
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
