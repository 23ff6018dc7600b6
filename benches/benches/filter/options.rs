//! What is to be measured.

use tidewire_benches::workload::Mix;

/// One thing to do alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    Match,
    /// The same, one event at a time.
    Single,
    /// Reading JSON and matching.
    Json,
    Compile,
}

#[derive(Clone, Debug, Default)]
pub struct Options {
    pub mixes: Vec<Mix>,
    pub rules: Vec<usize>,
    pub peers: bool,
    /// Nothing but Tidewire, among all numbers of rules in turn.
    pub growth: bool,
    pub profile: Option<Profile>,
    /// How often that is done.
    pub passes: Option<u128>,
}

impl Options {
    /// The options of this process; ends it if there is one that it does not know.
    pub fn from_args() -> Options {
        let mut options = Options::default();
        let mut args = std::env::args().skip(1);
        while let Some(arg) = args.next() {
            let understood = match arg.as_str() {
                // What cargo adds.
                "--bench" => Some(()),
                "--peers" => {
                    options.peers = true;
                    Some(())
                }
                "--growth" => {
                    options.growth = true;
                    Some(())
                }
                "--mix" => args.next().and_then(|x| Mix::parse(&x)).map(|mix| options.mixes.push(mix)),
                "--rules" => args.next().and_then(|x| x.parse().ok()).map(|n| options.rules.push(n)),
                "--profile" => args
                    .next()
                    .and_then(|x| match x.as_str() {
                        "match" => Some(Profile::Match),
                        "single" => Some(Profile::Single),
                        "json" => Some(Profile::Json),
                        "compile" => Some(Profile::Compile),
                        _ => None,
                    })
                    .map(|p| options.profile = Some(p)),
                "--passes" => args.next().and_then(|x| x.parse().ok()).map(|n| options.passes = Some(n)),
                _ => None,
            };
            if understood.is_none() {
                eprintln!(
                    "not understood: {arg}; there are --peers, --growth, --mix full|scoped|infix|boolean, --rules N, --profile match|single|json|compile, --passes N"
                );
                std::process::exit(2);
            }
        }
        if options.mixes.is_empty() {
            options.mixes = Mix::ALL.to_vec();
        }
        if options.rules.is_empty() {
            options.rules = vec![100, 1000, 10_000, 100_000, 1_000_000];
        }
        options
    }
}
