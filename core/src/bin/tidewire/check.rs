//! `tidewire check`.

use std::io::Write;
use std::path::Path;

use tidewire::config::{OnStart, Source};
use tidewire::event::format::Encoding;
use tidewire::rule::{Destination, DestinationKind, Rule};

use crate::{Failure, load};

pub(crate) fn check(file: &Path, out: &mut dyn Write) -> Result<(), Failure> {
    let config = load(file, None)?;
    let rules = &config.rules;
    writeln!(out, "{}: good", file.display())?;
    writeln!(out, "data directory: {}", config.engine.data_dir.display())?;
    match config.engine.shards {
        Some(n) => writeln!(out, "shards: {n}")?,
        None => writeln!(out, "shards: one per CPU")?,
    }
    writeln!(out, "destinations: {}", rules.destinations.len())?;
    for d in &rules.destinations {
        writeln!(out, "  {}", destination(d))?;
    }
    writeln!(out, "rules: {}", rules.rules.len())?;
    for r in &rules.rules {
        writeln!(out, "  {}", rule(r))?;
    }
    writeln!(out, "sources: {}", config.sources.len())?;
    for s in &config.sources {
        writeln!(out, "  {}", source(s))?;
    }
    Ok(())
}

fn destination(d: &Destination) -> String {
    let address = match &d.kind {
        // Path and query may be secret.
        DestinationKind::Webhook(webhook) => format!("webhook {}/…", webhook.url.origin().ascii_serialization()),
        kind => format!("{}, {}", kind.name(), kind.shown()),
    };
    let mut records = format!("profile {}", d.profile);
    if d.format.template.is_some() {
        records = "a template".to_owned();
    }
    if d.format.encoding != Encoding::Json {
        records += &format!(" as {}", d.format.encoding.name());
    }
    match d.batch_limits().events_max {
        1 => format!("{}: {address}, {records}, one event per request", d.name),
        n => format!("{}: {address}, {records}, up to {n} events per request", d.name),
    }
}

fn rule(r: &Rule) -> String {
    let mut text = format!("{}: ", r.id);
    match &r.bucket {
        Some(bucket) => text += &format!("bucket {bucket}, "),
        None => text += "every bucket, ",
    }
    text += &r.event_names.join(" ");
    match r.filter.affixes() {
        Some((prefix, suffix)) => {
            for (name, value) in [("prefix", prefix), ("suffix", suffix)].iter().filter(|(_, v)| !v.is_empty()) {
                text += &format!(", {name} {:?}", String::from_utf8_lossy(value));
            }
        }
        None => text += ", a filter",
    }
    format!("{text} → {}", r.destinations.join(", "))
}

fn source(s: &Source) -> String {
    match s {
        Source::Http(http) => format!("http://{} (POST /v1/events)", http.listen),
        Source::Directory(d) => {
            let first = match d.on_start {
                OnStart::Ignore => "ignored",
                OnStart::Emit => "told of",
            };
            format!("directory {} as bucket {}, files of the first start are {first}", d.path.display(), d.bucket)
        }
        other => format!("{other:?}"),
    }
}
