//! `tidewire filter`.

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use tidewire::config::Config;
use tidewire::event::{FrameView, frame, ingest};
use tidewire::filter::{FILTER_SCHEMA, Filter, Matcher, NamedFilters};
use tidewire::rule::{self, Rule};
use tidewire::{Error, Event};

use crate::Failure;
use crate::values::usage;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Action {
    /// Says which events pass a filter, or which rules want them; and if not, the first condition that is not met
    #[command(group = clap::ArgGroup::new("what").required(true))]
    Test {
        /// A filter in the native JSON form
        #[arg(long, value_name = "JSON", group = "what")]
        filter: Option<String>,
        /// A configuration file; its rules and filters are read, and nothing else is needed in it
        #[arg(long, value_name = "FILE", group = "what")]
        rule_file: Option<PathBuf>,
        /// A file of events, or `-` for the standard input
        #[arg(long, value_name = "FILE")]
        event: PathBuf,
        /// How the events are written; by default it is seen from them
        #[arg(long, value_name = "FORMAT")]
        format: Option<Format>,
    },
    /// Says what a filter is compiled to: what it is filed under, what is checked then, and what it costs; of a file of rules
    /// also what they take together
    #[command(group = clap::ArgGroup::new("whose").required(true))]
    Explain {
        /// A filter in the native JSON form
        #[arg(long, value_name = "JSON", group = "whose")]
        filter: Option<String>,
        /// A configuration file; its rules and filters are read, and nothing else is needed in it
        #[arg(long, value_name = "FILE", group = "whose")]
        rule_file: Option<PathBuf>,
        /// Only the rules with this id
        #[arg(long, value_name = "ID", conflicts_with = "filter")]
        rule: Option<String>,
        /// JSON, one object per line
        #[arg(long)]
        json: bool,
    },
    /// Looks for rules that never want an event, that say the same, or that overlap; fails if it finds some
    Lint {
        /// The configuration file
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Prints the JSON Schema of filters
    Schema,
}

/// How events are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// One JSON object per line, with the names of the fields of events
    Native,
    /// The notification documents of S3
    S3,
    /// CloudEvents, structured: one, or a list
    Cloudevents,
}

pub(crate) fn run(action: &Action, out: &mut dyn Write) -> Result<(), Failure> {
    match action {
        Action::Test { filter, rule_file, event, format } => {
            test(&read_rules(filter.as_deref(), rule_file.as_deref())?, event, *format, out)
        }
        Action::Explain { filter, rule_file, rule, json } => {
            match read_rules(filter.as_deref(), rule_file.as_deref())? {
                Rules::One(filter) => explain(&filter, *json, out),
                Rules::Several(rules) => explain_rules(&rules, rule.as_deref(), *json, out),
            }
        }
        Action::Lint { config } => lint(&Config::rules_from_file(config).map_err(Failure::Usage)?, out),
        Action::Schema => Ok(out.write_all(FILTER_SCHEMA.as_bytes())?),
    }
}

/// A filter, or the rules of a file.
enum Rules {
    One(Filter),
    Several(Vec<Rule>),
}

fn read_rules(filter: Option<&str>, file: Option<&Path>) -> Result<Rules, Failure> {
    match (filter, file) {
        (Some(json), _) => {
            let filter = Filter::parse_json(json, &NamedFilters::new());
            Ok(Rules::One(filter.map_err(|e| Failure::Usage(e.at("--filter")))?))
        }
        (None, Some(path)) => Ok(Rules::Several(Config::rules_from_file(path).map_err(Failure::Usage)?)),
        (None, None) => Err(usage("there is nothing to look at", "give --filter or --rule-file")),
    }
}

fn test(rules: &Rules, file: &Path, format: Option<Format>, out: &mut dyn Write) -> Result<(), Failure> {
    let mut body = read(file)?;
    let seen = ingest::Format::detect(&body, "");
    let (fits, media) = match format {
        None => (true, ""),
        Some(Format::Native) => (seen == ingest::Format::Ndjson, ""),
        Some(Format::S3) => (seen == ingest::Format::S3Records, ""),
        Some(Format::Cloudevents) if seen == ingest::Format::CloudEventsBatch => {
            (true, "application/cloudevents-batch+json")
        }
        Some(Format::Cloudevents) => (true, "application/cloudevents+json"),
    };
    if !fits {
        let message = format!("{} does not hold events of this format", file.display());
        return Err(usage(message, "leave --format out, or name what is in the file"));
    }
    // Of events that do not say when they happened.
    let now = u64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or_default();
    let mut lines = Vec::new();
    let mut number = 0;
    let read = ingest::parse(&mut body, media, &mut |event| {
        number += 1;
        let bytes = frame::encode_to_vec(event, now);
        let frame = FrameView::parse(&bytes).map_err(|e| Error::invalid_event(e.to_string()))?;
        lines.push(format!("event {number}: {}", shown(event)));
        match rules {
            Rules::One(filter) => lines.push(format!("  {}", verdict(filter.explain(frame).first()))),
            Rules::Several(rules) => {
                lines.extend(rules.iter().map(|rule| format!("  rule `{}`: {}", rule.id, of_rule(rule, event, frame))));
            }
        }
        Ok(())
    });
    read.map_err(|e| Failure::Usage(e.at(file.display().to_string())))?;
    lines.iter().try_for_each(|line| writeln!(out, "{line}"))?;
    Ok(())
}

fn read(file: &Path) -> Result<Vec<u8>, Failure> {
    let mut body = Vec::new();
    let max = ingest::BODY_BYTES_MAX as u64 + 1;
    let result = if file == Path::new("-") {
        std::io::stdin().lock().take(max).read_to_end(&mut body)
    } else {
        fs::File::open(file).and_then(|f| f.take(max).read_to_end(&mut body))
    };
    match result {
        Ok(_) => Ok(body),
        Err(e) => Err(Failure::Failed(Error::io(format!("reading {}", file.display()), &e))),
    }
}

fn shown(event: &Event<'_>) -> String {
    format!("{} {}/{}", event.event_type, event.bucket, String::from_utf8_lossy(event.key).escape_debug())
}

fn verdict(unmet: Option<&tidewire::filter::Unmet>) -> String {
    unmet.map_or_else(|| "passes".to_owned(), |unmet| format!("does not pass: {unmet}"))
}

fn of_rule(rule: &Rule, event: &Event<'_>, frame: FrameView<'_>) -> String {
    if let Some(bucket) = rule.bucket.as_deref().filter(|b| *b != event.bucket) {
        return format!("does not pass: it is for bucket {bucket}");
    }
    if !rule.events.contains(event.event_type) {
        return format!("does not pass: {} is not among its events", event.event_type);
    }
    verdict(rule.filter.explain(frame).first())
}

fn lint(rules: &[Rule], out: &mut dyn Write) -> Result<(), Failure> {
    let findings = rule::lint(rules);
    for finding in &findings {
        writeln!(out, "{finding}")?;
    }
    if findings.is_empty() {
        writeln!(out, "{} rules, nothing found", rules.len())?;
        return Ok(());
    }
    out.flush()?;
    Err(Failure::Told)
}

/// Prints what one filter is compiled to.
fn explain(filter: &Filter, json: bool, out: &mut dyn Write) -> Result<(), Failure> {
    let plan = filter.plan();
    if json {
        writeln!(out, "{}", plan.to_json())?
    } else {
        writeln!(out, "{plan}")?
    }
    Ok(())
}

/// Prints what rules are compiled to together; with `id` only those of that id, without what they all come to.
fn explain_rules(rules: &[Rule], id: Option<&str>, json: bool, out: &mut dyn Write) -> Result<(), Failure> {
    let chosen = |rule: &Rule| id.is_none_or(|id| rule.id == id);
    if !rules.iter().any(chosen) {
        let message = format!("there is no rule `{}`", id.unwrap_or_default());
        return Err(usage(message, "name a rule of the file with --rule, or leave it out for all of them"));
    }
    let plans = tidewire::filter::plan(rules)?;
    for (rule, plan) in rules.iter().zip(&plans.rules).filter(|(rule, _)| chosen(rule)) {
        if json {
            writeln!(out, "{}", serde_json::json!({"rule": rule.id, "plan": plan.to_json()}))?;
        } else {
            writeln!(out, "rule `{}`", rule.id)?;
            plan.to_string().lines().try_for_each(|line| writeln!(out, "  {line}"))?;
        }
    }
    if id.is_some() {
        return Ok(());
    }
    let begin = Instant::now();
    Matcher::compile(rules)?;
    let micros = begin.elapsed().as_micros() as u64;
    if json {
        writeln!(out, "{}", serde_json::json!({"totals": plans.totals.to_json(), "build_us": micros}))?;
    } else {
        writeln!(out, "all together")?;
        plans.totals.to_string().lines().try_for_each(|line| writeln!(out, "  {line}"))?;
        writeln!(out, "  built in     {micros} us")?;
    }
    Ok(())
}
