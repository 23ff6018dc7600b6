//! `tidewire filter`.

use std::collections::HashMap;
use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use tidewire::config::Config;
use tidewire::event::{FrameView, frame, ingest};
use tidewire::filter::{FILTER_SCHEMA, Filter, NamedFilters};
use tidewire::rule::Rule;
use tidewire::{Error, Event, EventType, KnownType};

use crate::Failure;
use crate::values::usage;

/// The most findings of `lint` about one pair of bucket and destination.
const PAIRS_MAX: usize = 100;

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
            let rules = match (filter, rule_file) {
                (Some(json), _) => {
                    let filter = Filter::parse_json(json, &NamedFilters::new());
                    Rules::One(filter.map_err(|e| Failure::Usage(e.at("--filter")))?)
                }
                (None, Some(path)) => Rules::Several(Config::rules_from_file(path).map_err(Failure::Usage)?),
                (None, None) => return Err(usage("there is nothing to test", "give --filter or --rule-file")),
            };
            test(&rules, event, *format, out)
        }
        Action::Lint { config } => lint(&Config::rules_from_file(config).map_err(Failure::Usage)?, out),
        Action::Schema => Ok(out.write_all(FILTER_SCHEMA.as_bytes())?),
    }
}

/// What events are tested against.
enum Rules {
    One(Filter),
    Several(Vec<Rule>),
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
    let mut findings = Vec::new();
    for rule in rules {
        match rule.filter.verdict() {
            Some(false) => {
                findings.push(format!("rule `{}` never wants an event: its conditions exclude each other", rule.id))
            }
            Some(true) if !rule.filter.is_empty() => {
                findings.push(format!("rule `{}` has conditions that hold for every event", rule.id));
            }
            _ => {}
        }
        let wanted = rule.events.known().any(|t| may_have_type(&rule.filter, t));
        if !wanted && rule.events.custom().next().is_none() && rule.filter.verdict().is_none() {
            findings.push(format!("rule `{}` never wants an event: its filter takes none of its event types", rule.id));
        }
    }
    // Only rules that tell the same destination of the same bucket come in each other's way.
    let mut groups: HashMap<(Option<&str>, &str), Vec<&Rule>> = HashMap::new();
    let mut order = Vec::new();
    for rule in rules {
        for destination in &rule.destinations {
            let group = (rule.bucket.as_deref(), destination.as_str());
            groups.entry(group).or_insert_with(|| {
                order.push(group);
                Vec::new()
            });
            groups.entry(group).or_default().push(rule);
        }
    }
    for group in order {
        overlaps(group.1, &groups[&group], &mut findings);
    }
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

/// Whether an event of this type may pass, by what the filter says of types alone.
fn may_have_type(filter: &Filter, t: KnownType) -> bool {
    let is = Filter::from((tidewire::filter::Field::EventType, tidewire::filter::Test::equals(t.name())));
    !filter.excludes(&is)
}

fn overlaps(destination: &str, rules: &[&Rule], findings: &mut Vec<String>) {
    let mut told = 0;
    for (i, later) in rules.iter().enumerate() {
        for earlier in &rules[..i] {
            let shared = later.events.known().find(|t| earlier.events.contains(EventType::Known(*t)));
            let (a, b) = (&earlier.id, &later.id);
            let what = if earlier.filter == later.filter && earlier.events == later.events {
                format!("rules `{a}` and `{b}` say the same to `{destination}`")
            } else if let Some(t) = shared
                && !earlier.filter.excludes(&later.filter)
            {
                format!("rules `{a}` and `{b}` may both want an event for `{destination}`, such as one of {}", t.name())
            } else {
                continue;
            };
            if told == PAIRS_MAX {
                findings.push(format!("more pairs of rules overlap for `{destination}`"));
                return;
            }
            told += 1;
            findings.push(what);
        }
    }
}
