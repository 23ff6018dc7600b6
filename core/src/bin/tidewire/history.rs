//! `tidewire history` and `tidewire state`.

use std::io::Write;
use std::path::Path;

use serde_json::{Value, json};
use tidewire::event::FrameView;
use tidewire::event::frame::Field;
use tidewire::log::history::{history, state_at};
use tidewire::log::reader::{Entry, Gap, GapCause, Item};

use crate::Failure;
use crate::values::{key_json, rfc3339};

pub(crate) fn list(
    data_dir: &Path,
    bucket: &str,
    key: &[u8],
    as_json: bool,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let history = history(data_dir, bucket, key)?;
    warn_incomplete(history.complete_since_ns);
    let mut count = 0u64;
    for item in history {
        match item? {
            Item::Gap(gap) => warn_gap(&gap),
            Item::Entry(e) if as_json => writeln!(out, "{}", entry_json(&e))?,
            Item::Entry(e) => {
                count += 1;
                let f = e.frame();
                writeln!(out, "{} {}{}", rfc3339(f.time_ns()), f.event_type(), details(&f))?;
                writeln!(out, "  sequencer {}, event {}", e.sequencer, e.id)?;
            }
        }
    }
    if !as_json {
        writeln!(out, "{count} event{}", if count == 1 { "" } else { "s" })?;
    }
    Ok(())
}

fn details(f: &FrameView<'_>) -> String {
    let mut text = String::new();
    for (name, field) in [("version", Field::VersionId), ("etag", Field::Etag), ("by", Field::Requester)] {
        if !f.text(field).is_empty() {
            text += &format!(" {name} {}", f.text(field).escape_debug());
        }
    }
    if let Some(size) = f.size() {
        text += &format!(" {size} bytes");
    }
    text
}

fn entry_json(e: &Entry) -> Value {
    let f = e.frame();
    let mut line = json!({
        "time": rfc3339(f.time_ns()),
        "type": f.event_type().name(),
        "bucket": f.bucket(),
        "sequencer": e.sequencer.to_string(),
        "event_id": e.id.to_string(),
    });
    key_json(&mut line, f.key());
    for (name, field) in [("version_id", Field::VersionId), ("etag", Field::Etag), ("requester", Field::Requester)] {
        if !f.text(field).is_empty() {
            line[name] = f.text(field).into();
        }
    }
    if let Some(size) = f.size() {
        line["size"] = size.into();
    }
    line
}

pub(crate) fn state(
    data_dir: &Path,
    bucket: &str,
    prefix: &[u8],
    at_ns: u64,
    as_json: bool,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let state = state_at(data_dir, bucket, prefix, at_ns)?;
    warn_incomplete(state.complete_since_ns);
    state.gaps.iter().for_each(warn_gap);
    let (mut count, mut bytes) = (0u64, 0u64);
    for (key, v) in state.objects.live() {
        count += 1;
        bytes = bytes.saturating_add(v.size.unwrap_or(0));
        if as_json {
            let mut line = json!({
                "time": rfc3339(v.time_ns),
                "sequencer": v.sequencer.to_string(),
                "event_id": v.id.to_string(),
            });
            key_json(&mut line, key);
            for (name, text) in [("version_id", &v.version_id), ("etag", &v.etag)] {
                if !text.is_empty() {
                    line[name] = text.as_str().into();
                }
            }
            if let Some(size) = v.size {
                line["size"] = size.into();
            }
            writeln!(out, "{line}")?;
        } else {
            let size = v.size.map_or_else(|| "-".to_owned(), |n| n.to_string());
            let version = if v.version_id.is_empty() { String::new() } else { format!(" version {}", v.version_id) };
            writeln!(out, "{} {size:>12} {}{version}", rfc3339(v.time_ns), key.escape_ascii())?;
        }
    }
    if !as_json {
        writeln!(out, "{count} object{}, {bytes} bytes", if count == 1 { "" } else { "s" })?;
    }
    Ok(())
}

/// What is not in the log cannot be told; who reads the answer must know.
fn warn_incomplete(since_ns: Option<u64>) {
    if let Some(ns) = since_ns {
        log::warn!(
            "the log does not reach back to its beginning: it is complete since {}, and what happened before is missing",
            rfc3339(ns)
        );
    }
}

pub(crate) fn warn_gap(gap: &Gap) {
    let cause = match gap.cause {
        GapCause::Removed => "were removed",
        GapCause::Damaged => "are damaged",
    };
    let since = gap.since_ns.map_or_else(String::new, |ns| format!(" after {}", rfc3339(ns)));
    log::warn!("shard {}: up to {} events{since} {cause} and are missing", gap.shard, gap.sequences());
}
