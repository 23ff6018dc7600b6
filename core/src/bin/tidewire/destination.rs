//! `tidewire destination`.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use clap::{Args, Subcommand};
use tidewire::auth::rotation;
use tidewire::config::Config;
use tidewire::log::standing::{self, EndpointStanding, Order, Standing, State};
use tidewire::rule::DestinationKind;
use tidewire::{Error, ErrorKind};

use zeroize::Zeroizing;

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
    /// Vouches for one that is pending: it counts as having agreed to be sent events
    Confirm {
        /// Its name
        name: String,
        /// The requests per minute that it allows
        #[arg(long, value_name = "N")]
        rate: Option<u32>,
        #[command(flatten)]
        place: Place,
    },
    /// Makes a new secret and prints it once; the one of before stays valid for a while. A running engine uses it within a
    /// second, until the configuration has another secret
    RotateSecret {
        /// Its name
        name: String,
        /// How long the secret of before stays valid, up to 168h
        #[arg(long, value_name = "TIME", default_value = "24h", value_parser = crate::dead_letters::duration)]
        overlap: Duration,
        /// Takes the new secret from a file instead of making one; it is not printed
        #[arg(long, value_name = "FILE")]
        from: Option<PathBuf>,
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
        Action::Confirm { name, rate, place } => order(name, place, Order::Confirm(*rate), out),
        Action::RotateSecret { name, overlap, from, place } => rotate(name, place, *overlap, from.as_deref(), out),
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
        Some((_, Order::Confirm(_))) => "; it is to be confirmed",
        Some((_, Order::Secrets)) => "; its secrets are to be read",
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
    if s.next_verification_ms > 0 && s.state == State::Pending {
        let at = crate::values::rfc3339(s.next_verification_ms.saturating_mul(1_000_000));
        writeln!(out, "  it is asked again at {at}")?;
    }
    if let Some(DestinationKind::Webhook(w)) = configured.map(|d| &d.kind) {
        // The path may be a secret.
        let several = w.endpoints.len() > 1;
        for (i, url) in w.urls().enumerate() {
            let at = url.origin().ascii_serialization();
            let of = s.endpoints.get(i).filter(|e| e.at == at);
            writeln!(out, "  at {at}{}", of.map_or(String::new(), |e| about(e, several)))?;
        }
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

/// What is known of an endpoint.
fn about(e: &EndpointStanding, several: bool) -> String {
    let mut text = String::new();
    if several {
        text += &format!(": {}", e.state.name());
        if !e.reason.is_empty() {
            text += &format!(": {}", e.reason);
        }
        if e.left_alone {
            text += ", left alone for now";
        }
        if e.failing_attempts > 0 {
            let time = Duration::from_secs(e.failing_ms / 1000);
            text += &format!(", {} attempts have failed for {time:?}", e.failing_attempts);
        }
    }
    if let Some(rate) = e.granted_per_minute {
        text += &format!(", allows {rate} requests per minute");
    }
    if e.latency_us > 0 {
        text += &format!(", answers in {:.1} ms", e.latency_us as f64 / 1000.0);
    }
    text
}

fn rotate(
    name: &str,
    place: &Place,
    overlap: Duration,
    from: Option<&Path>,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let (config, names) = open(place)?;
    let destination = config.rules.destinations.iter().find(|d| d.name == name);
    let Some(destination) = destination else { return Err(unknown(name, &names)) };
    let Some(webhook) = destination.kind.webhook() else {
        let what = format!("destination `{name}` has no secrets: {} takes it", destination.kind.shown());
        return Err(Error::new(ErrorKind::NotFound, what).into());
    };
    let given = from.map(read_secret).transpose()?;
    let made = given.is_none();
    let dir = &config.engine.data_dir;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let unix = now.as_secs() as i64;
    let new = rotation::rotate(dir, name, &webhook.auth, given, unix, overlap)?;
    standing::give_order(dir, name, Order::Secrets)?;
    if made {
        writeln!(out, "{}", new.secret.as_str())?;
    }
    if let Some(public) = &new.public {
        writeln!(out, "receivers verify with {public}")?;
    }
    Ok(())
}

/// The contents of a file, without the line break at its end.
fn read_secret(path: &Path) -> Result<Zeroizing<String>, Failure> {
    let io = |e: std::io::Error| {
        let e = Error::new(ErrorKind::Io, format!("reading {}: {e}", path.display()));
        Failure::Failed(e.remedy("check the path and its permissions"))
    };
    let mut text = Zeroizing::new(std::fs::read_to_string(path).map_err(io)?);
    let end = text.trim_end_matches(['\r', '\n']).len();
    text.truncate(end);
    Ok(text)
}

fn order(name: &str, place: &Place, order: Order, out: &mut impl Write) -> Result<(), Failure> {
    let (config, names) = open(place)?;
    if !names.iter().any(|n| n == name) {
        return Err(unknown(name, &names));
    }
    standing::give_order(&config.engine.data_dir, name, order)?;
    let what = match order {
        Order::Suspend => "suspended",
        Order::Confirm(_) => "confirmed",
        _ => "resumed",
    };
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
