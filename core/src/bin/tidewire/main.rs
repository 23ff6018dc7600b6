//! The `tidewire` command: the engine as a process of its own, and the operator's tool.
//!
//! Exit codes: 0 all is well, 1 it failed, 2 the arguments or the configuration are wrong.

mod bench;
mod check;
mod dead_letters;
mod demo;
mod destination;
mod event_types;
mod filter;
mod history;
mod losses;
mod reload;
mod replay;
mod run;
mod snapshot;
mod tail;
mod values;

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tidewire::config::{Config, Source};
use tidewire::{Error, ErrorKind};
use values::{DataDir, Time};

/// Event notifications for object stores.
#[derive(Debug, Parser)]
#[command(name = "tidewire", version, about, after_help = AFTER_HELP)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "Exit codes: 0 all is well, 1 it failed, 2 the arguments or the configuration are wrong.
Messages go to stderr; TIDEWIRE_LOG sets how many (error, warn, info, debug; default info).";

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs an engine with the sources of a configuration, until SIGTERM or SIGINT; a second one ends it at once. Rules and
    /// destinations are read anew at SIGHUP, and when a file of the configuration has changed
    Run {
        /// The configuration file
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// Where to keep logs and cursors, instead of where the configuration says
        #[arg(long, value_name = "DIR")]
        data_dir: Option<PathBuf>,
    },
    /// Checks a configuration and tells what is in it, without starting anything
    Check {
        /// The configuration file
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// The events that were given up: lists, shows, exports, purges and redrives them
    #[command(subcommand)]
    DeadLetters(Box<dead_letters::Action>),
    /// The destinations: lists and shows their states, suspends and resumes them, sends test events
    #[command(subcommand)]
    Destination(destination::Action),
    /// The events that were dropped, by a policy or otherwise: which, when and why
    #[command(subcommand)]
    Losses(losses::Action),
    /// Lists what the log still tells of one key: every version and operation; works while an engine is running
    History {
        /// The bucket
        bucket: String,
        /// The key
        key: OsString,
        #[command(flatten)]
        data_dir: DataDir,
        /// One JSON object per line
        #[arg(long)]
        json: bool,
    },
    /// Lists the objects that a bucket had at a time, as far as the log reaches back; works while an engine is running
    State {
        /// The bucket
        bucket: String,
        #[command(flatten)]
        data_dir: DataDir,
        /// The time, such as 2026-05-04T10:00:00Z
        #[arg(long, value_name = "TIME", default_value = "now")]
        at: Time,
        /// Only objects whose keys begin with this
        #[arg(long, value_name = "PREFIX", default_value = "")]
        prefix: OsString,
        /// One JSON object per line
        #[arg(long)]
        json: bool,
    },
    /// Sends events of the log again, to a destination of the configuration or to a webhook of its own
    Replay(replay::Options),
    /// Prints the events of the log, one JSON record per line; works while an engine is running
    Tail(tail::Options),
    /// Copies a data directory into one file, and makes a data directory of such a file
    Snapshot {
        #[command(subcommand)]
        what: snapshot::Snapshot,
    },
    /// Tries filters on events, looks for faults of rules, prints the form of filters
    #[command(subcommand)]
    Filter(filter::Action),
    /// Lists the event types, what their data holds, and which profiles can express them
    EventTypes,
    /// Measures what an engine does on this machine, beside what the machine can do at all
    Bench(bench::Options),
    /// The receiver of `bench`, as a process of its own
    #[command(hide = true)]
    BenchReceiver,
    /// Shows it working: thousands of files become events, a receiver dies and comes back, nothing is lost
    Demo(demo::Options),
}

/// Why a command did not work.
#[derive(Debug)]
enum Failure {
    /// Exit code 2.
    Usage(Error),
    /// Exit code 1.
    Failed(Error),
    /// Exit code 1; what there is to say was said.
    Told,
}

impl From<Error> for Failure {
    fn from(e: Error) -> Failure {
        if e.kind() == ErrorKind::InvalidConfig { Failure::Usage(e) } else { Failure::Failed(e) }
    }
}

impl From<io::Error> for Failure {
    fn from(e: io::Error) -> Failure {
        Failure::Failed(Error::io("cannot write the output", &e))
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let quiet = matches!(arguments.command, Command::Bench(_) | Command::BenchReceiver | Command::Demo(_));
    let filter = if quiet { "off" } else { "warn,tidewire=info,notify=error" };
    env_logger::Builder::from_env(env_logger::Env::new().filter_or("TIDEWIRE_LOG", filter)).init();
    let result = match &arguments.command {
        Command::Run { config, data_dir } => run::run(config, data_dir.as_deref()),
        Command::Check { config } => print(|out| check::check(config, out)),
        Command::DeadLetters(action) => print(|out| dead_letters::run(action, out)),
        Command::Destination(action) => print(|mut out| destination::act(action, &mut out)),
        Command::Losses(action) => print(|out| losses::run(action, out)),
        Command::History { bucket, key, data_dir, json } => {
            data_dir.path().and_then(|dir| print(|out| history::list(&dir, bucket, key.as_bytes(), *json, out)))
        }
        Command::State { bucket, data_dir, at, prefix, json } => data_dir
            .path()
            .and_then(|dir| print(|out| history::state(&dir, bucket, prefix.as_bytes(), at.0, *json, out))),
        Command::Replay(options) => replay::replay(options),
        Command::Tail(options) => print(|out| tail::tail(options, out)),
        Command::Snapshot { what } => print(|out| snapshot::run(what, out)),
        Command::Filter(action) => print(|out| filter::run(action, out)),
        Command::EventTypes => print(event_types::list),
        Command::Bench(options) => bench::run(options),
        Command::BenchReceiver => bench::receive(),
        Command::Demo(options) => demo::run(options),
    };
    let (code, error) = match result {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failure::Usage(e)) => (2, Some(e)),
        Err(Failure::Failed(e)) => (1, Some(e)),
        Err(Failure::Told) => (1, None),
    };
    if let Some(e) = error {
        let _ = writeln!(io::stderr(), "tidewire: {e}");
    }
    ExitCode::from(code)
}

/// Runs a command that writes to stdout. That nobody reads to the end, as behind `| head`, is no failure.
fn print(command: impl FnOnce(&mut dyn Write) -> Result<(), Failure>) -> Result<(), Failure> {
    let mut out = Pipe { out: io::BufWriter::new(io::stdout().lock()), closed: false };
    let result = command(&mut out).and_then(|()| Ok(out.flush()?));
    if out.closed { Ok(()) } else { result }
}

struct Pipe<W> {
    out: W,
    closed: bool,
}

impl<W: Write> Write for Pipe<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write(bytes).inspect_err(|e| self.closed |= e.kind() == io::ErrorKind::BrokenPipe)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush().inspect_err(|e| self.closed |= e.kind() == io::ErrorKind::BrokenPipe)
    }
}

/// Reads a configuration; any error in it is one of usage.
fn load(file: &Path, data_dir: Option<&Path>) -> Result<Config, Failure> {
    let config = match data_dir {
        Some(dir) => Config::from_file_with_data_dir(file, dir),
        None => Config::from_file(file),
    };
    let config = config.map_err(Failure::Usage)?;
    let mut buckets: Vec<&str> = Vec::new();
    for source in &config.sources {
        if let Source::Directory(d) = source {
            if buckets.contains(&d.bucket.as_str()) {
                let e = Error::invalid_config(format!("two directories are the bucket `{}`", d.bucket));
                return Err(Failure::Usage(e.at(file.display().to_string()).remedy("give each a bucket of its own")));
            }
            buckets.push(&d.bucket);
        }
    }
    Ok(config)
}
