//! `tidewire dead-letters`.

use std::io::Write;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use clap::{Args, Subcommand};
use tidewire::event::profile::Profile;
use tidewire::log::dead::{ExportOptions, each_dead_letter, export_dead_letters, purge_dead_letters};
use tidewire::{DeadLetterFilter, DeadLetterId, Engine, Error, ErrorKind, RedriveOptions, StoredDeadLetter};

use crate::Failure;

#[derive(Debug, Subcommand)]
pub(crate) enum Action {
    /// Lists them with the reasons, by shard and number; works while an engine is running
    List {
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        which: Which,
        /// Only those after this one, for the next page
        #[arg(long, value_name = "ID")]
        after: Option<DeadLetterId>,
        /// At most so many
        #[arg(long, value_name = "N")]
        limit: Option<u64>,
        /// One JSON object per line
        #[arg(long)]
        json: bool,
    },
    /// Shows one with everything that is known of it; works while an engine is running
    Show {
        #[command(flatten)]
        place: Place,
        /// Its id, as the list shows it
        id: DeadLetterId,
    },
    /// Writes them to stdout, one JSON object per line, with the event as base64 and as a record; works while an engine is
    /// running
    Export {
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        which: Which,
        /// How the records are written
        #[arg(long, value_name = "PROFILE", default_value = "cloudevents")]
        profile: String,
    },
    /// Removes them for good; only while no engine has the directory open
    Purge {
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        which: Which,
        /// All of them, without any condition
        #[arg(long)]
        all: bool,
    },
    /// Delivers them again: opens the engine of a configuration, puts their events back into its log, delivers for a while,
    /// and closes it. What is not delivered by then stays in the log for the engine's next run
    Redrive {
        /// The configuration file
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// The data directory, instead of the one in the configuration
        #[arg(long, value_name = "DIR")]
        data_dir: Option<PathBuf>,
        #[command(flatten)]
        which: Which,
        /// All of them, without any condition
        #[arg(long)]
        all: bool,
        /// Another destination than their own
        #[arg(long, value_name = "NAME")]
        to: Option<String>,
        /// At most so many a second
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        rate: Option<u32>,
        /// How long to deliver, such as 30s or 10m
        #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration)]
        wait: Duration,
    },
}

/// Where they are.
#[derive(Debug, Args)]
pub(crate) struct Place {
    /// The data directory of the engine
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
}

/// Which of them.
#[derive(Debug, Args)]
pub(crate) struct Which {
    /// Only this one; may be given several times
    #[arg(long, value_name = "ID")]
    id: Vec<DeadLetterId>,
    /// Only those of this destination
    #[arg(long, value_name = "NAME")]
    destination: Option<String>,
    /// Only those of this bucket
    #[arg(long, value_name = "NAME")]
    bucket: Option<String>,
    /// Only those of keys that begin so
    #[arg(long, value_name = "TEXT")]
    prefix: Option<String>,
    /// Only those with this text in the reason
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Only those given up since: a time such as 2026-07-01T00:00:00Z, or how long ago, such as 2h
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<u64>,
    /// Only those given up before: a time, or how long ago
    #[arg(long, value_name = "TIME", value_parser = moment)]
    until: Option<u64>,
}

impl Which {
    fn filter(&self) -> DeadLetterFilter {
        let mut f = DeadLetterFilter::default();
        f.ids.clone_from(&self.id);
        f.destination.clone_from(&self.destination);
        f.bucket.clone_from(&self.bucket);
        f.key_prefix = self.prefix.clone().unwrap_or_default().into_bytes();
        f.reason.clone_from(&self.reason);
        f.from_ns = self.since;
        f.before_ns = self.until;
        f
    }

    /// What cannot be undone is not done to everything by leaving a word out.
    fn chosen(&self, all: bool) -> Result<DeadLetterFilter, Failure> {
        let filter = self.filter();
        if (filter == DeadLetterFilter::default()) != all {
            let error = if all { "--all and a condition are given" } else { "no condition is given" };
            let error = Error::new(ErrorKind::InvalidArgument, error);
            return Err(Failure::Usage(error.remedy("say which dead letters are meant, or --all")));
        }
        Ok(filter)
    }
}

pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let d = text.parse::<jiff::SignedDuration>().map_err(|e| e.to_string())?;
    Duration::try_from(d).map_err(|_| "a length of time is not negative".to_owned())
}

/// Nanoseconds since the epoch.
fn moment(text: &str) -> Result<u64, String> {
    if let Ok(t) = text.parse::<jiff::Timestamp>() {
        return u64::try_from(t.as_nanosecond()).map_err(|_| "the time is before 1970".to_owned());
    }
    let ago = duration(text).map_err(|_| format!("`{text}` is neither a time nor a length of time"))?;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Ok(now.saturating_sub(ago).as_nanos() as u64)
}

pub(crate) fn run(action: &Action, out: &mut dyn Write) -> Result<(), Failure> {
    match action {
        Action::List { place, which, after, limit, json } => {
            list(&place.data_dir, &which.filter(), *after, limit.unwrap_or(u64::MAX), *json, out)
        }
        Action::Show { place, id } => show(&place.data_dir, *id, out),
        Action::Export { place, which, profile } => {
            let mut options = ExportOptions::default();
            options.profile = Profile::parse(profile).map_err(Failure::Usage)?;
            export_dead_letters(&place.data_dir, &which.filter(), &options, out)?;
            Ok(())
        }
        Action::Purge { place, which, all } => {
            let purged = purge_dead_letters(&place.data_dir, &which.chosen(*all)?)?;
            Ok(writeln!(out, "{} purged", count(purged))?)
        }
        Action::Redrive { config, data_dir, which, all, to, rate, wait } => {
            let filter = which.chosen(*all)?;
            let mut options = RedriveOptions::default();
            options.to.clone_from(to);
            options.per_second = *rate;
            redrive(config, data_dir.as_deref(), &filter, &options, *wait, out)
        }
    }
}

fn list(
    data_dir: &Path,
    filter: &DeadLetterFilter,
    after: Option<DeadLetterId>,
    limit: u64,
    json: bool,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let (mut listed, mut result) = (0u64, Ok(()));
    each_dead_letter(data_dir, filter, after, |l| {
        if listed == limit {
            return ControlFlow::Break(());
        }
        listed += 1;
        result = if json { writeln!(out, "{}", l.to_json()) } else { describe(&l, out) };
        if result.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    result?;
    if !json {
        writeln!(out, "{}", count(listed))?;
    }
    Ok(())
}

fn count(n: u64) -> String {
    format!("{n} dead letter{}", if n == 1 { "" } else { "s" })
}

fn describe(l: &StoredDeadLetter, out: &mut dyn Write) -> std::io::Result<()> {
    writeln!(out, "{} {}: {} {}/{}", l.id, l.destination, l.event_type, l.bucket, l.key.escape_ascii())?;
    writeln!(out, "  rule {}, event {}", l.rule, l.event_id)?;
    let tries = if l.attempts == 1 { "1 attempt".to_owned() } else { format!("{} attempts", l.attempts) };
    let status = if l.status == 0 { String::new() } else { format!(" (status {})", l.status) };
    writeln!(out, "  given up after {tries}{status}: {}", l.reason.escape_debug())?;
    let hops = if l.hops == 0 { String::new() } else { format!(", for the {}. time", u32::from(l.hops) + 1) };
    writeln!(out, "  accepted {}, given up {}{hops}", time(l.accepted_ns), time(l.given_up_ns))
}

fn show(data_dir: &Path, id: DeadLetterId, out: &mut dyn Write) -> Result<(), Failure> {
    let mut filter = DeadLetterFilter::default();
    filter.ids = vec![id];
    let mut found = None;
    each_dead_letter(data_dir, &filter, None, |l| {
        found = Some(l);
        ControlFlow::Break(())
    })?;
    let Some(l) = found else {
        let error = Error::new(ErrorKind::NotFound, format!("there is no dead letter {id}"));
        return Err(error.remedy("it may have been redriven, purged or dropped; list them").into());
    };
    describe(&l, out)?;
    if !l.answer.is_empty() {
        writeln!(out, "  last answer: {}", l.answer.escape_ascii())?;
    }
    let mut record = Vec::new();
    export_dead_letters(data_dir, &filter, &ExportOptions::default(), &mut record)?;
    out.write_all(&record)?;
    Ok(())
}

fn redrive(
    config: &Path,
    data_dir: Option<&Path>,
    filter: &DeadLetterFilter,
    options: &RedriveOptions,
    wait: Duration,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let config = crate::load(config, data_dir)?;
    // Not made by looking for dead letters in it.
    if !config.engine.data_dir.join("meta.json").is_file() {
        let error = Error::new(ErrorKind::NotFound, "there is no data directory of an engine");
        let error = error.at(config.engine.data_dir.display().to_string());
        return Err(error.remedy("run the engine first, or correct engine.data_dir").into());
    }
    let engine = Engine::open(config).map_err(|e| match e.kind() {
        ErrorKind::Locked => e.remedy("while it runs, only its own program can redrive: `Engine::redrive`"),
        _ => e,
    })?;
    // However long a rate makes it: it ends with the letters that were there when it began.
    let done = engine.redrive(filter, options)?.wait(Instant::now() + Duration::from_secs(365 * 24 * 3600))?;
    writeln!(out, "{} redriven", count(done.redriven))?;
    for (why, n) in &done.why {
        writeln!(out, "{} left: {why}", count(*n))?;
    }
    match engine.flush(wait) {
        Ok(()) => {}
        Err(e) if e.kind() == ErrorKind::Timeout => writeln!(out, "{e}")?,
        Err(e) => return Err(e.into()),
    }
    let stats = engine.stats();
    writeln!(out, "{} delivered, {} given up again", stats.delivered, stats.dead_lettered)?;
    engine.close(Duration::ZERO)?;
    if done.left > 0 { Err(Failure::Told) } else { Ok(()) }
}

pub(crate) fn time(ns: u64) -> String {
    match jiff::Timestamp::from_nanosecond(i128::from(ns)) {
        Ok(t) => format!("{t:.3}"),
        Err(_) => format!("{ns} ns"),
    }
}
