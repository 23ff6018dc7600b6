//! `tidewire losses`.

use std::io::Write;
use std::ops::ControlFlow;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use tidewire::log::losses::each_loss;
use tidewire::{Error, ErrorKind, LossReason, RecordedLoss};

use crate::Failure;

#[derive(Debug, Subcommand)]
pub(crate) enum Action {
    /// Lists them, oldest first per shard; works while an engine is running
    List(List),
}

#[derive(Debug, Args)]
pub(crate) struct List {
    /// The data directory of the engine
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// Only those of this destination
    #[arg(long, value_name = "NAME")]
    destination: Option<String>,
    /// Only those for this reason
    #[arg(long, value_name = "REASON", value_parser = reason)]
    reason: Option<LossReason>,
    /// One JSON object per line
    #[arg(long)]
    json: bool,
}

fn reason(name: &str) -> Result<LossReason, String> {
    LossReason::parse(name).ok_or_else(|| {
        let names: Vec<&str> = LossReason::ALL.iter().map(|r| r.name()).collect();
        format!("no such reason; there are {}", names.join(", "))
    })
}

pub(crate) fn run(action: &Action, out: &mut dyn Write) -> Result<(), Failure> {
    let Action::List(l) = action;
    let (mut count, mut result) = (0u64, Ok(()));
    each_loss(&l.data_dir, |loss| {
        let wanted =
            l.destination.as_ref().is_none_or(|d| *d == loss.destination) && l.reason.is_none_or(|r| r == loss.reason);
        if wanted {
            count += loss.count;
            result = if l.json { writeln!(out, "{}", loss.to_json()) } else { describe(&loss, out) };
        }
        if result.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })
    .map_err(|e: Error| if e.kind() == ErrorKind::InvalidArgument { Failure::Usage(e) } else { Failure::Failed(e) })?;
    result?;
    if !l.json {
        writeln!(out, "{count} event{} lost", if count == 1 { "" } else { "s" })?;
    }
    Ok(())
}

fn describe(l: &RecordedLoss, out: &mut dyn Write) -> std::io::Result<()> {
    let time = crate::dead_letters::time(l.at_ns);
    let rule = if l.rule.starts_with('#') { String::new() } else { format!(" (rule {})", l.rule) };
    let what = if l.event_type.is_empty() {
        format!("{} events that were not told one by one", l.count)
    } else {
        format!("{} {}/{}", l.event_type, l.bucket, l.key.escape_ascii())
    };
    writeln!(out, "{time} {}{rule}: {}: {what}", l.destination, l.reason)?;
    if let Some(id) = l.event_id {
        writeln!(out, "  event {id}, accepted {}", crate::dead_letters::time(l.accepted_ns))?;
    }
    Ok(())
}
