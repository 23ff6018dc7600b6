//! `tidewire destination`.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use clap::{Args, Subcommand};
use tidewire::config::Config;
use tidewire::log::standing::{self, Order, Standing, State};
use tidewire::rule::DestinationKind;
use tidewire::{Error, ErrorKind};

use crate::Failure;

#[derive(Debug, Subcommand)]
pub(crate) enum Action {
    /// Lists the destinations with their states; works while an engine is running
    List {
        #[command(flatten)]
        place: Place,
        /// One JSON object per line
        #[arg(long)]
        json: bool,
    },
    /// Shows one with its last attempts that failed; works while an engine is running
    Show {
        /// Its name
        name: String,
        #[command(flatten)]
        place: Place,
        /// As one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Sends it nothing until it is resumed; its events wait. A running engine does so within a second
    Suspend {
        /// Its name
        name: String,
        #[command(flatten)]
        place: Place,
    },
    /// Sends to it again, at once, whatever was in the way. A running engine does so within a second
    Resume {
        /// Its name
        name: String,
        #[command(flatten)]
        place: Place,
    },
    /// Sends it a test event, with its own settings and credentials, and shows each step with its time
    Test {
        /// Its name
        name: String,
        #[command(flatten)]
        place: Place,
    },
}

/// Where it is configured and kept.
#[derive(Debug, Args)]
pub(crate) struct Place {
    /// The configuration file
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// The data directory, instead of the one in the configuration
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

/// Configured, or kept in the data directory.
fn open(place: &Place) -> Result<(Config, Vec<String>), Failure> {
    let config = crate::load(&place.config, place.data_dir.as_deref())?;
    let mut names: Vec<String> = config.rules.destinations.iter().map(|d| d.name.clone()).collect();
    names
        .extend(standing::kept(&config.engine.data_dir).into_iter().filter(|n| !names.contains(n)).collect::<Vec<_>>());
    names.sort();
    Ok((config, names))
}

fn unknown(name: &str, names: &[String]) -> Failure {
    let known = names.iter().map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ");
    Failure::Failed(
        Error::new(ErrorKind::NotFound, format!("there is no destination `{}`", name.escape_debug()))
            .remedy(format!("there are: {known}")),
    )
}

pub(crate) fn act(action: &Action, out: &mut impl Write) -> Result<(), Failure> {
    match action {
        Action::List { place, json } => list(place, *json, out),
        Action::Show { name, place, json } => show(name, place, *json, out),
        Action::Suspend { name, place } => order(name, place, Order::Suspend, out),
        Action::Resume { name, place } => order(name, place, Order::Resume, out),
        Action::Test { name, place } => test(name, place, out),
    }
}

fn of(dir: &Path, name: &str) -> Result<Standing, Failure> {
    Ok(standing::read(dir, name)?.unwrap_or_default())
}

fn ordered(dir: &Path, name: &str) -> &'static str {
    match standing::orders(dir).into_iter().find(|(n, _)| n == name) {
        Some((_, Order::Suspend)) => "; it is to be suspended",
        Some((_, Order::Resume)) => "; it is to be resumed",
        None => "",
    }
}

fn list(place: &Place, json: bool, out: &mut impl Write) -> Result<(), Failure> {
    let (config, names) = open(place)?;
    let dir = &config.engine.data_dir;
    for name in names {
        let s = of(dir, &name)?;
        if json {
            let told = serde_json::json!({
                "name": name, "state": s.state.name(), "reason": s.reason, "sinceMs": s.since_ms,
                "failingMs": s.failing_ms, "failingAttempts": s.failing_attempts,
            });
            writeln!(out, "{told}")?;
        } else {
            writeln!(out, "{name}: {}{}{}", s.state.name(), because(&s), ordered(dir, &name))?;
        }
    }
    Ok(())
}

fn because(s: &Standing) -> String {
    let failing = || match s.failing_attempts {
        0 => String::new(),
        n => format!(", but {n} attempts have failed for {:?}", Duration::from_secs(s.failing_ms / 1000)),
    };
    match s.state {
        State::Active => failing(),
        _ => format!(": {}", s.reason),
    }
}

fn show(name: &str, place: &Place, json: bool, out: &mut impl Write) -> Result<(), Failure> {
    let (config, names) = open(place)?;
    if !names.iter().any(|n| n == name) {
        return Err(unknown(name, &names));
    }
    let dir = &config.engine.data_dir;
    let mut s = of(dir, name)?;
    let configured = config.rules.destinations.iter().find(|d| d.name == name);
    if let Some(DestinationKind::Webhook(w)) = configured.map(|d| &d.kind) {
        // As it is now, also if no engine has read it.
        s.certificates.client_expires = w.tls.client_expires();
    }
    if json {
        let mut told = serde_json::to_value(&s).unwrap_or_default();
        if let Some(object) = told.as_object_mut() {
            object.insert("name".into(), name.into());
        }
        writeln!(out, "{told}")?;
        return Ok(());
    }
    writeln!(out, "{name}: {}{}{}", s.state.name(), because(&s), ordered(dir, name))?;
    if let Some(d) = config.rules.destinations.iter().find(|d| d.name == name)
        && let DestinationKind::Webhook(w) = &d.kind
    {
        // The path may be a secret.
        writeln!(out, "  at {}", w.url.origin().ascii_serialization())?;
    }
    for (what, expires) in [
        ("client certificate", s.certificates.client_expires),
        ("endpoint's certificate", s.certificates.server_expires),
    ] {
        if let Some(unix) = expires {
            writeln!(out, "  the {what} {}", expiry(unix))?;
        }
    }
    if !s.certificates.trouble.is_empty() {
        writeln!(out, "  files of TLS have changed and cannot be used: {}", s.certificates.trouble)?;
    }
    if !s.attempts.is_empty() {
        writeln!(out, "  last attempts that failed:")?;
    }
    for a in &s.attempts {
        let at = crate::values::rfc3339(a.at_ms.saturating_mul(1_000_000));
        writeln!(out, "  {at} {} of {} events in {} ms: {}", a.outcome, a.events, a.took_ms, a.reason)?;
        if !a.answer.is_empty() {
            writeln!(out, "    {}", a.answer.escape_debug())?;
        }
    }
    Ok(())
}

/// When a certificate expires, and how long that is from now.
fn expiry(unix: i64) -> String {
    let at = crate::values::rfc3339(u64::try_from(unix).unwrap_or(0).saturating_mul(1_000_000_000));
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs());
    match unix.saturating_sub_unsigned(now) {
        ..0 => format!("expired {at}"),
        left => format!("expires {at}, in {} days", left / 86400),
    }
}

fn order(name: &str, place: &Place, order: Order, out: &mut impl Write) -> Result<(), Failure> {
    let (config, names) = open(place)?;
    if !names.iter().any(|n| n == name) {
        return Err(unknown(name, &names));
    }
    standing::give_order(&config.engine.data_dir, name, order)?;
    let what = if order == Order::Suspend { "suspended" } else { "resumed" };
    writeln!(out, "{name} is {what} within a second if an engine is running, else when one is started")?;
    Ok(())
}

fn test(name: &str, place: &Place, out: &mut impl Write) -> Result<(), Failure> {
    let (config, names) = open(place)?;
    let destination = config.rules.destinations.iter().find(|d| d.name == name);
    let Some(destination) = destination else { return Err(unknown(name, &names)) };
    let report = tidewire::test_destination(destination, &config.engine)?;
    for step in &report.steps {
        writeln!(out, "{:>8.1} ms  {}", step.took.as_secs_f64() * 1000.0, step.what)?;
    }
    match report.failure {
        None => writeln!(out, "{name} took the test event")?,
        Some(why) => {
            writeln!(out, "{name} did not take the test event: {why}")?;
            return Err(Failure::Told);
        }
    }
    Ok(())
}
