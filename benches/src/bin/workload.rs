//! Prints rules or events as lines of JSON: `workload rules N [MIX]`, `workload events N [RULES]`. MIX is `full`, `scoped`,
//! `infix` or `boolean`; RULES is how many rules the events are for.

use std::io::Write;

use tidewire_benches::workload::{Mix, happenings, line, wishes};

const SEED: u64 = 1;

fn lines(args: &[String]) -> Option<Box<dyn Iterator<Item = String>>> {
    let n = args.get(1)?.parse().ok()?;
    Some(match args[0].as_str() {
        "rules" => {
            let mix = args.get(2).map_or(Some(Mix::Full), |name| Mix::parse(name))?;
            Box::new(wishes(n, SEED, mix).map(|w| line(&w)))
        }
        "events" => {
            let rules = args.get(2).map_or(Some(1000), |n| n.parse().ok())?;
            Box::new(happenings(n, SEED, rules).map(|h| line(&h)))
        }
        _ => return None,
    })
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let Some(lines) = lines(&args) else {
        eprintln!("workload rules N [full|scoped|infix|boolean], or workload events N [RULES]");
        std::process::exit(2);
    };
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    for line in lines {
        // Who reads it may have had enough.
        if writeln!(out, "{line}").is_err() {
            return;
        }
    }
}
