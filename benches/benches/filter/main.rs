//! Matching among many rules: the same 20,000 events against 100 to a million rules, beside what else does it.
//!
//! Every engine runs on one thread, in turn with the others and many times over; a figure is the median of its passes, in
//! CPU time of the thread. Each pass follows one that is not measured, so that no engine pays for what the one before it has
//! driven out of the caches. An engine that is slow takes fewer of the events in a pass, at least 8. Before it is measured
//! it is checked against the plain scan on some of the events, and the bench fails if the two differ.
//!
//! Options, behind the name of the bench: `--mix NAME` and `--rules N` (each as often as wanted) for a part of it, `--peers`
//! for the peers that are no Rust (`benches/peers`: Event Ruler and hypermatch), `--growth` for Tidewire alone, and
//! `--profile match|single|json|compile` to do that alone for some seconds, or with `--passes N` so many times, for a
//! profiler.

mod engines;
mod options;
mod patterns;
mod peers;
mod report;

use std::hint::black_box;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tidewire::event::EventTypes;
use tidewire::filter::Matcher;
use tidewire::rule::Rule;
use tidewire_benches::median;
use tidewire_benches::workload::{self, Mix, Wish};

use engines::{Engine, Sample, Samples};
use options::Options;
use peers::Files;
use report::{Measured, Report};

const SEED: u64 = 1;
const EVENTS: usize = 20_000;
const PASSES: usize = 11;
const GROWTH_PASSES: usize = 31;
/// The longest pass of an engine, if that leaves it [`EVENTS_MIN`] events.
const PASS: Duration = Duration::from_millis(80);
const EVENTS_MIN: usize = 8;
/// The most rules that peers of other languages are given.
const PEERS_RULES_MAX: usize = 100_000;

fn main() {
    let options = Options::from_args();
    let types = EventTypes::default();
    let mut report = Report::default();
    for mix in &options.mixes {
        for rules in &options.rules {
            if let Some(what) = options.profile {
                profile(what, *mix, *rules, options.passes, &types);
            } else if !options.growth {
                measure(*mix, *rules, &types, options.peers, &mut report);
            }
        }
        if options.profile.is_none() {
            report.grown(*mix, growth(*mix, &options.rules, &types));
            report.print(*mix, &options.rules);
        }
    }
    report.keep();
}

/// CPU time of this thread.
fn cpu_time() -> Duration {
    let mut t = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the clock exists and `t` is a place for its reading.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut t) };
    Duration::new(t.tv_sec as u64, t.tv_nsec as u32)
}

/// Bytes of the heap in use.
fn heap() -> usize {
    // SAFETY: it has no conditions.
    let info = unsafe { libc::mallinfo2() };
    info.uordblks + info.hblkhd
}

fn rules_of(wishes: &[Wish], types: &EventTypes) -> Vec<Rule> {
    wishes.iter().map(|w| w.rule(types)).collect()
}

fn measure(mix: Mix, rules: usize, types: &EventTypes, peers: bool, report: &mut Report) {
    let wishes: Vec<Wish> = workload::wishes(rules, SEED, mix).collect();
    let samples = Samples::new(workload::happenings(EVENTS, SEED, rules));
    let samples = samples.all();
    let tidewire_rules = rules_of(&wishes, types);
    eprintln!("{}, {rules} rules", mix.name());

    // The oracle, and how it says each of some events is to be matched.
    let mut linear = engines::linear(&wishes);
    let checked = &samples[..if rules > 100_000 { 60 } else { 300 }];
    let expected: Vec<Vec<u32>> = checked.iter().map(|s| linear.once(s)).collect();
    drop(linear);

    let (compile, matcher) = compile(&tidewire_rules);
    let own = [
        ("Tidewire", engines::tidewire(matcher.clone())),
        ("Tidewire, one at a time", engines::tidewire_single(matcher.clone())),
        ("Tidewire from JSON", engines::tidewire_from(matcher.clone(), "application/x-ndjson", |s| s.json)),
        ("Tidewire from an S3 record", engines::tidewire_from(matcher.clone(), "application/json", |s| s.record)),
    ];
    let mut measured = Vec::new();
    let mut engines: Vec<Engine> = Vec::new();
    for (name, mut engine) in own {
        check(name, &mut engine, checked, &expected);
        let mut m = Measured::new(name, rules, None);
        if name == "Tidewire" {
            m = Measured::new(name, rules, Some((compile, matcher.bytes())));
        }
        measured.push(m);
        engines.push(engine);
    }
    type Make<'a> = &'a dyn Fn() -> Result<Vec<(&'static str, Engine)>, String>;
    let makers: [(&'static str, Make<'_>); 8] = [
        ("linear scan, tuned by hand", &|| Ok(vec![("linear scan, tuned by hand", engines::linear(&wishes))])),
        ("linear scan", &|| Ok(vec![("linear scan", engines::in_turn(&tidewire_rules))])),
        ("linear scan, key first", &|| Ok(vec![("linear scan, key first", engines::linear_key_first(&wishes, mix)?)])),
        ("hash per length", &|| Ok(vec![("hash per length", engines::hash_per_length(&wishes))])),
        ("glob lists", &|| Ok(vec![("glob lists", engines::globs(&wishes, mix)?)])),
        ("RegexSet", &|| Ok(vec![("RegexSet", engines::regex_set(&wishes, mix)?)])),
        ("quamina", &|| {
            let (engine, flattening) = engines::quamina(&wishes, mix)?;
            Ok(vec![("quamina from JSON", engine), ("quamina, reading JSON alone", flattening)])
        }),
        ("memchr", &|| Ok(vec![("memchr over the key", engines::memchr())])),
    ];
    for (name, make) in makers {
        let (heap_before, begun) = (heap(), cpu_time());
        match make() {
            Err(why) => report.left_out(mix, rules, name, why),
            Ok(made) => {
                let build = cpu_time() - begun;
                for (name, mut engine) in made {
                    if engine.checked {
                        check(name, &mut engine, checked, &expected);
                    }
                    // Some have all their memory only once they have matched.
                    let bytes = heap().saturating_sub(heap_before);
                    measured.push(Measured::new(name, rules, engine.built.then_some((build, bytes))));
                    engines.push(engine);
                }
            }
        }
    }

    let counts: Vec<usize> = engines.iter_mut().map(|e| events_in_a_pass(e, &samples)).collect();
    let mut passes: Vec<Vec<f64>> = vec![Vec::new(); engines.len()];
    let mut matches = 0;
    for _ in 0..PASSES {
        for ((engine, count), times) in engines.iter_mut().zip(&counts).zip(&mut passes) {
            let (time, found) = pass(engine, &samples[..*count]);
            times.push(time);
            if *count == samples.len() && engine.checked {
                matches = found;
            }
        }
    }
    for (m, times) in measured.iter_mut().zip(&mut passes) {
        m.ns = median(times);
    }
    if peers && rules > PEERS_RULES_MAX {
        let why = "reading and building takes minutes";
        peers::NAMES.iter().for_each(|name| report.left_out(mix, rules, name, why.into()));
    } else if peers {
        drop(engines);
        let files = Files::write(&wishes, &samples, &expected);
        for name in peers::NAMES {
            match files.run(name) {
                Ok(ways) => measured.extend(ways),
                Err(why) => report.left_out(mix, rules, name, why),
            }
        }
    }
    report.add(mix, rules, matches as f64 / samples.len() as f64, measured);
}

/// Nanoseconds for an event among each of these numbers of rules, all measured in turn: what the machine does meanwhile
/// then hits them alike, and how they grow is seen.
fn growth(mix: Mix, counts: &[usize], types: &EventTypes) -> Vec<f64> {
    let samples: Vec<Samples> = counts.iter().map(|n| Samples::new(workload::happenings(EVENTS, SEED, *n))).collect();
    let mut engines: Vec<(Engine, Vec<Sample<'_>>)> = Vec::new();
    for (n, samples) in counts.iter().zip(&samples) {
        let rules: Vec<Rule> = workload::wishes(*n, SEED, mix).map(|w| w.rule(types)).collect();
        let matcher = Matcher::compile(&rules).expect("rules");
        engines.push((engines::tidewire(Rc::new(matcher)), samples.all()));
    }
    let mut passes = vec![Vec::new(); counts.len()];
    for _ in 0..GROWTH_PASSES {
        for ((engine, samples), times) in engines.iter_mut().zip(&mut passes) {
            times.push(pass(engine, samples).0);
        }
    }
    passes.iter_mut().map(|times| median(times)).collect()
}

/// Nanoseconds for an event, and how many rules all of them met.
fn pass(engine: &mut Engine, samples: &[Sample<'_>]) -> (f64, usize) {
    (engine.run)(black_box(samples));
    let begun = cpu_time();
    let found = (engine.run)(black_box(samples));
    ((cpu_time() - begun).as_nanos() as f64 / samples.len() as f64, found)
}

/// The index, and how long it takes to build: the median of three.
fn compile(rules: &[Rule]) -> (Duration, Rc<Matcher>) {
    let mut times = Vec::new();
    let mut matcher = None;
    for _ in 0..3 {
        drop(matcher.take());
        let begun = cpu_time();
        matcher = Some(Matcher::compile(black_box(rules)).expect("rules"));
        times.push(cpu_time() - begun);
    }
    times.sort_unstable();
    (times[1], Rc::new(matcher.expect("compiled")))
}

/// Checks as many of the events as can be done in a second, but some.
fn check(name: &str, engine: &mut Engine, samples: &[Sample<'_>], expected: &[Vec<u32>]) {
    let begun = Instant::now();
    for (i, (sample, expected)) in samples.iter().zip(expected).enumerate() {
        let found = engine.once(sample);
        assert_eq!(&found, expected, "{name}: {}", workload::line(sample.happening));
        if i > EVENTS_MIN && begun.elapsed() > Duration::from_secs(1) {
            break;
        }
    }
}

/// As many as it does in [`PASS`].
fn events_in_a_pass(engine: &mut Engine, samples: &[Sample<'_>]) -> usize {
    let mut count = EVENTS_MIN;
    loop {
        let begun = cpu_time();
        (engine.run)(&samples[..count]);
        let time = cpu_time() - begun;
        if count == samples.len() {
            return count;
        }
        if time * 2 > PASS {
            let fits = PASS.as_nanos() * count as u128 / time.as_nanos().max(1);
            return (fits as usize).clamp(EVENTS_MIN, samples.len());
        }
        count = (count * 2).min(samples.len());
    }
}

/// Does one thing for eight seconds, or so many times.
fn profile(what: options::Profile, mix: Mix, rules: usize, passes: Option<u128>, types: &EventTypes) {
    let wishes: Vec<Wish> = workload::wishes(rules, SEED, mix).collect();
    let samples = Samples::new(workload::happenings(EVENTS, SEED, rules));
    let samples = samples.all();
    let rules = rules_of(&wishes, types);
    let matcher = Rc::new(Matcher::compile(&rules).expect("rules"));
    let mut engine = match what {
        options::Profile::Json => engines::tidewire_from(matcher, "application/x-ndjson", |s| s.json),
        options::Profile::Single => engines::tidewire_single(matcher),
        _ => engines::tidewire(matcher),
    };
    let begun = Instant::now();
    let (mut times, mut all) = (0, 0);
    while passes.map_or_else(|| begun.elapsed() < Duration::from_secs(8), |n| times < n) {
        match what {
            options::Profile::Compile => all += Matcher::compile(black_box(&rules)).expect("rules").bytes(),
            _ => all += (engine.run)(black_box(&samples)),
        }
        times += 1;
    }
    println!(
        "{}, {} rules: {times} times, {} ns each, {all}",
        mix.name(),
        rules.len(),
        begun.elapsed().as_nanos() / times.max(1)
    );
}
