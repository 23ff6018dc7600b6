//! Values on the command line and in the output.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use serde_json::Value;
use tidewire::config::Config;
use tidewire::log::reader::{Position, ReadFrom};
use tidewire::{Error, ErrorKind};

use crate::{Failure, load};

/// Where the data directory is: told as itself, or by a configuration.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub(crate) struct DataDir {
    /// The data directory of the engine
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// The configuration file of the engine, which names the data directory
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl DataDir {
    pub(crate) fn config(&self) -> Option<&Path> {
        self.config.as_deref()
    }

    pub(crate) fn path(&self) -> Result<PathBuf, Failure> {
        match (&self.data_dir, &self.config) {
            (Some(dir), _) => Ok(dir.clone()),
            (None, Some(file)) => load(file, None).map(|c: Config| c.engine.data_dir),
            (None, None) => Ok(Path::new("").to_owned()),
        }
    }
}

/// A time, ns since the epoch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Time(pub(crate) u64);

impl std::str::FromStr for Time {
    type Err = String;

    fn from_str(text: &str) -> Result<Time, String> {
        let bad = || format!("`{}` is no time; write it as 2026-05-04T10:00:00Z, or `now`", text.escape_debug());
        let time = if text == "now" { jiff::Timestamp::now() } else { text.parse().map_err(|_| bad())? };
        u64::try_from(time.as_nanosecond()).map(Time).map_err(|_| bad())
    }
}

/// Where to begin reading.
#[derive(Clone, Debug)]
pub(crate) struct From(pub(crate) ReadFrom);

impl std::str::FromStr for From {
    type Err = String;

    fn from_str(text: &str) -> Result<From, String> {
        let from = match text {
            "beginning" => ReadFrom::Beginning,
            "now" => ReadFrom::Now,
            _ => match text.strip_prefix("sequence:") {
                Some(n) => ReadFrom::Sequence(n.parse().map_err(|_| format!("`{n}` is no sequence"))?),
                None if text.starts_with("tw") => {
                    ReadFrom::Position(text.parse::<Position>().map_err(|e| e.to_string())?)
                }
                None => ReadFrom::Time(text.parse::<Time>().map_err(|_| {
                    let shown = text.escape_debug();
                    format!("`{shown}` is none of: beginning, now, a time (2026-05-04T10:00:00Z), sequence:N, a position")
                })?.0),
            },
        };
        Ok(From(from))
    }
}

pub(crate) fn rfc3339(ns: u64) -> String {
    match jiff::Timestamp::from_nanosecond(i128::from(ns)) {
        Ok(t) => format!("{t:.3}"),
        Err(_) => format!("{ns} ns"),
    }
}

/// Adds a key, as text if it is some.
pub(crate) fn key_json(line: &mut Value, key: &[u8]) {
    match std::str::from_utf8(key) {
        Ok(key) => line["key"] = key.into(),
        Err(_) => line["key_base64"] = base64::engine::general_purpose::STANDARD.encode(key).into(),
    }
}

/// A failure of usage.
pub(crate) fn usage(message: impl Into<String>, remedy: &str) -> Failure {
    Failure::Usage(Error::new(ErrorKind::InvalidArgument, message).remedy(remedy))
}
