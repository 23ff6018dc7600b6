//! What is kept of each destination beside its queue: whether it gets anything, why not, and its last attempts that
//! failed. One JSON file per destination in the data directory, written by the engine, and orders of operators beside
//! them, which the engine takes up within a second or when it is opened next.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::driver::fs;
use crate::error::{Error, ErrorKind, Result};

/// The directory, in the data directory.
pub const DIRECTORY: &str = "destinations";
const ENDS: &str = ".json";
/// What has nothing to do with each other has files of its own, so that no order takes another's place.
const ORDER_ENDS: [&str; 3] = [".order", ".confirm", ".rotated"];

/// Whether a destination gets anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum State {
    /// It does.
    #[default]
    Active,
    /// It is asked whether it wants events, and has not agreed yet. Its events wait.
    Pending,
    /// An operator has suspended it. Its events wait.
    Suspended,
    /// It was given up, because it was gone for a day or took nothing for too long. Its events wait, and become dead
    /// letters when they are too old, until somebody resumes it.
    Disabled,
}

impl State {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            State::Active => "active",
            State::Pending => "pending",
            State::Suspended => "suspended",
            State::Disabled => "disabled",
        }
    }
}

/// One attempt that failed, or the first one after such that did not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AttemptNote {
    /// When it ended, ms since the epoch.
    pub at_ms: u64,
    /// How long it took, ms.
    pub took_ms: u64,
    /// The events in it.
    pub events: usize,
    /// The id of the first one.
    pub first_event: String,
    /// What became of them: `delivered`, `partial`, `retry`, `wait`, `denied`, `gone`, `wrong` or `undeliverable`.
    pub outcome: String,
    /// The answer's status, 0 if there was none.
    pub status: u16,
    /// What went wrong.
    pub reason: String,
    /// The beginning of the answer's body, at most 4 KiB, with what is known to be secret left out.
    pub answer: String,
    /// The endpoint, without its path, if there are several.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub endpoint: String,
}

/// What is kept of one endpoint of a destination.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct EndpointStanding {
    /// Where it is, without its path, which may be a secret.
    pub at: String,
    /// By what it is known again: a hash of its URL.
    pub key: String,
    /// Whether it gets anything.
    pub state: State,
    /// Why not; empty if it does.
    pub reason: String,
    /// Whether it is left alone for now, because it failed or asked for a pause.
    pub left_alone: bool,
    /// For how long it has taken nothing, ms, and the attempts in that time.
    pub failing_ms: u64,
    /// See above.
    pub failing_attempts: u32,
    /// The last warning about that, in percent.
    pub noticed: u8,
    /// For how long it has said that it is gone, ms.
    pub gone_ms: u64,
    /// How long its answers take, a moving average in microseconds; 0 if it is not known.
    pub latency_us: u64,
    /// To what it has agreed, as a hash; empty if to nothing.
    pub verified: String,
    /// The requests per minute that it granted, if it named a number.
    pub granted_per_minute: Option<u32>,
}

/// What is known of the certificates of a destination.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Certificates {
    /// When the client certificate expires, in seconds since the epoch; `None` if there is none, or it was not read yet.
    pub client_expires: Option<i64>,
    /// When the certificate expires that the endpoint has shown last, likewise.
    pub server_expires: Option<i64>,
    /// Why files of TLS that have changed cannot be used; what they were stays in use. Empty if they can.
    pub trouble: String,
}

/// What is kept of a destination.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Standing {
    /// Whether it gets anything.
    pub state: State,
    /// Why not; empty if it does.
    pub reason: String,
    /// Since when, ms since the epoch; 0 if that is not known.
    pub since_ms: u64,
    /// For how long it has taken nothing, while an engine was running, ms.
    pub failing_ms: u64,
    /// The attempts in that time.
    pub failing_attempts: u32,
    /// The last warning about that, in percent of the time after which it is disabled.
    pub noticed: u8,
    /// For how long it has said that it is gone, ms.
    pub gone_ms: u64,
    /// Its certificates.
    pub certificates: Certificates,
    /// When a destination that is pending is asked next, ms since the epoch; 0 if it is not known.
    pub next_verification_ms: u64,
    /// Its endpoints.
    pub endpoints: Vec<EndpointStanding>,
    /// The last attempts that failed, oldest first.
    pub attempts: Vec<AttemptNote>,
}

/// What an operator asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Send nothing until it is resumed.
    Suspend,
    /// Send again, at once, whatever was in the way. One that has not agreed yet is asked at once.
    Resume,
    /// Somebody vouches for it: it counts as having agreed, to so many requests per minute if that is said.
    Confirm(Option<u32>),
    /// Its secrets were rotated: read them.
    Secrets,
}

impl Order {
    fn ends(self) -> &'static str {
        match self {
            Order::Suspend | Order::Resume => ORDER_ENDS[0],
            Order::Confirm(_) => ORDER_ENDS[1],
            Order::Secrets => ORDER_ENDS[2],
        }
    }

    fn text(self) -> String {
        match self {
            Order::Suspend => "suspend".into(),
            Order::Resume => "resume".into(),
            Order::Confirm(None) => "confirm".into(),
            Order::Confirm(Some(rate)) => format!("confirm {rate}"),
            Order::Secrets => "secrets".into(),
        }
    }

    fn parse(text: &[u8]) -> Option<Order> {
        match std::str::from_utf8(text).ok()?.trim() {
            "suspend" => Some(Order::Suspend),
            "resume" => Some(Order::Resume),
            "confirm" => Some(Order::Confirm(None)),
            "secrets" => Some(Order::Secrets),
            other => other.strip_prefix("confirm ")?.parse().ok().map(|rate| Order::Confirm(Some(rate))),
        }
    }
}

fn path(dir: &Path, name: &str, ends: &str) -> PathBuf {
    dir.join(DIRECTORY).join(format!("{name}{ends}"))
}

fn failed(what: &str, at: &Path, e: &io::Error) -> Error {
    Error::io(what, e).at(at.display().to_string())
}

/// Writes an order down for the engine of a data directory, whether it is running or not.
///
/// # Errors
/// If it cannot be written.
pub fn give_order(dir: &Path, name: &str, order: Order) -> Result<()> {
    let at = path(dir, name, order.ends());
    let all = dir.join(DIRECTORY);
    fs::create_dir_all(&all).map_err(|e| failed("cannot make the directory", &all, &e))?;
    let scratch = path(dir, name, &format!("{}.new", order.ends()));
    fs::replace(&at, &scratch, order.text().as_bytes()).map_err(|e| failed("cannot write the order", &at, &e))
}

/// The orders that were given and not taken up, by destination.
pub fn orders(dir: &Path) -> Vec<(String, Order)> {
    let names = fs::list(&dir.join(DIRECTORY)).unwrap_or_default();
    let of = |file: String| {
        let name = ORDER_ENDS.iter().find_map(|ends| file.strip_suffix(ends))?.to_owned();
        let text = fs::read(&dir.join(DIRECTORY).join(&file)).ok()?;
        Order::parse(&text).map(|order| (name, order))
    };
    let mut orders: Vec<_> = names.into_iter().filter_map(of).collect();
    orders.sort_by(|a, b| a.0.cmp(&b.0));
    orders
}

/// Forgets an order that was taken up, unless another one was given meanwhile.
pub(crate) fn forget_order(dir: &Path, name: &str, order: Order) -> io::Result<()> {
    // Earlier versions had all orders in one file.
    for at in [order.ends(), ORDER_ENDS[0]].map(|ends| path(dir, name, ends)) {
        match fs::read(&at) {
            Ok(text) if Order::parse(&text) == Some(order) => fs::remove_file(&at)?,
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
    }
    fs::sync_dir(&dir.join(DIRECTORY))
}

/// What is kept of a destination; nothing was if it never failed.
///
/// # Errors
/// If it cannot be read, or is damaged.
pub fn read(dir: &Path, name: &str) -> Result<Option<Standing>> {
    let at = path(dir, name, ENDS);
    match fs::read(&at) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|e| Error::new(ErrorKind::Corrupt, e.to_string()).at(at.display().to_string())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(failed("cannot read it", &at, &e)),
    }
}

/// The destinations of which something is kept.
pub fn kept(dir: &Path) -> Vec<String> {
    let names = fs::list(&dir.join(DIRECTORY)).unwrap_or_default();
    let mut names: Vec<_> = names.iter().filter_map(|n| n.strip_suffix(ENDS)).map(str::to_owned).collect();
    names.sort();
    names
}

/// Secrets that were rotated, see [`crate::auth::rotation`].
const SECRETS_END: &str = ".secrets";

/// Whether a file of the directory has what is kept of a destination, and is not an order or in the making.
pub(crate) fn is_kept(file: &str) -> bool {
    [ENDS, SECRETS_END].iter().any(|ends| file.strip_suffix(ends).is_some_and(|name| !name.is_empty()))
}

/// What is kept of all destinations, as it stands in the files of the directory.
pub(crate) fn files(dir: &Path) -> Result<Vec<(String, Vec<u8>)>> {
    let mut names = fs::list(&dir.join(DIRECTORY)).unwrap_or_default();
    names.retain(|name| is_kept(name));
    names.sort();
    let mut files = Vec::new();
    for name in names {
        let at = dir.join(DIRECTORY).join(&name);
        match fs::read(&at) {
            Ok(bytes) => files.push((name, bytes)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(failed("cannot read it", &at, &e)),
        }
    }
    Ok(files)
}

/// Keeps it, durably.
pub(crate) fn write(dir: &Path, name: &str, standing: &Standing) -> Result<()> {
    let at = path(dir, name, ENDS);
    let all = dir.join(DIRECTORY);
    fs::create_dir_all(&all).map_err(|e| failed("cannot make the directory", &all, &e))?;
    let internal = |e: serde_json::Error| Error::new(ErrorKind::Internal, e.to_string()).at(at.display().to_string());
    let bytes = serde_json::to_vec_pretty(standing).map_err(internal)?;
    fs::replace(&at, &path(dir, name, ".json.new"), &bytes).map_err(|e| failed("cannot write it", &at, &e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_and_ordered_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        assert_eq!((read(dir, "a").unwrap(), orders(dir), kept(dir)), (None, vec![], vec![]));
        let note = AttemptNote { at_ms: 5, status: 403, reason: "\"é\"".into(), ..AttemptNote::default() };
        let standing = Standing { state: State::Disabled, failing_ms: 7, attempts: vec![note], ..Standing::default() };
        write(dir, "a", &standing).unwrap();
        assert_eq!(read(dir, "a").unwrap(), Some(standing));
        give_order(dir, "b.order", Order::Suspend).unwrap();
        give_order(dir, "a", Order::Suspend).unwrap();
        give_order(dir, "a", Order::Resume).unwrap();
        assert_eq!(orders(dir), [("a".to_owned(), Order::Resume), ("b.order".to_owned(), Order::Suspend)]);
        forget_order(dir, "a", Order::Resume).unwrap();
        assert_eq!((orders(dir).len(), kept(dir)), (1, vec!["a".to_owned()]));
        // None takes the place of one that is about something else, and none is forgotten that was given meanwhile.
        let given = [Order::Suspend, Order::Confirm(Some(7)), Order::Secrets];
        given.iter().for_each(|order| give_order(dir, "c", *order).unwrap());
        let of_c =
            || orders(dir).into_iter().filter(|(name, _)| name == "c").map(|(_, order)| order).collect::<Vec<_>>();
        assert!(of_c().len() == 3 && given.iter().all(|order| of_c().contains(order)), "{:?}", of_c());
        forget_order(dir, "c", Order::Resume).unwrap();
        assert_eq!(of_c().len(), 3);
        given.iter().for_each(|order| forget_order(dir, "c", *order).unwrap());
        std::fs::write(path(dir, "c", ".order"), "secrets").unwrap();
        forget_order(dir, "c", Order::Secrets).unwrap();
        assert!(of_c().is_empty());
        // What a later version has more is left out; what is damaged is told.
        std::fs::write(path(dir, "a", ENDS), br#"{"state": "active", "more": 1}"#).unwrap();
        assert_eq!(read(dir, "a").unwrap(), Some(Standing::default()));
        std::fs::write(path(dir, "a", ENDS), b"{").unwrap();
        assert_eq!(read(dir, "a").unwrap_err().kind(), ErrorKind::Corrupt);
    }
}
