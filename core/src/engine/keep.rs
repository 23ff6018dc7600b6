//! What the engine writes down about replays and groups of consumers, as JSON files in the data directory.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::event::EventTypes;
use crate::filter::{EventFilter, Filter, NamedFilters};
use crate::log::reader::ReadFrom;
use crate::rule::DESTINATION_NAME_BYTES_MAX;

/// A filter as written down: prefix and suffix, or else `filter`. A version that does not know the latter misses the
/// former, and does not take the filter for one that passes everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FilterFile {
    bucket: Option<String>,
    events: Vec<String>,
    /// Base64: keys are bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    prefix: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    suffix: Option<String>,
    /// In the native form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    filter: Option<serde_json::Value>,
}

impl FilterFile {
    pub(crate) fn of(filter: &EventFilter) -> FilterFile {
        let (bucket, events) = (filter.bucket().map(str::to_owned), filter.event_names().to_vec());
        let (prefix, suffix, filter) = match filter.filter().affixes() {
            Some((prefix, suffix)) => (Some(STANDARD.encode(prefix)), Some(STANDARD.encode(suffix)), None),
            None => (None, None, Some(filter.filter().to_json())),
        };
        FilterFile { bucket, events, prefix, suffix, filter }
    }

    /// The filter. A type that is no longer registered is left out, and told.
    pub(crate) fn filter(&self, whose: &str, types: &EventTypes) -> Result<EventFilter> {
        let corrupt = |message: String| Error::new(ErrorKind::Corrupt, message).at(whose);
        let bytes = |text: &str| STANDARD.decode(text).map_err(|e| corrupt(format!("not base64: {e}")));
        let filter = match (&self.prefix, &self.suffix, &self.filter) {
            (Some(prefix), Some(suffix), None) => Filter::new(bytes(prefix)?, bytes(suffix)?),
            (None, None, Some(json)) => {
                Filter::from_json(json, &NamedFilters::new()).map_err(|e| corrupt(format!("no filter: {e}")))?
            }
            // As nothing at all it would pass everything.
            _ => return Err(corrupt("the filter is missing, or there twice".to_owned())),
        };
        let mut filter = EventFilter::all().with_filter(filter);
        if let Some(bucket) = &self.bucket {
            filter = filter.with_bucket(bucket);
        }
        for name in &self.events {
            match filter.clone().with_events([name], types) {
                Ok(with) => filter = with,
                Err(e) => log::error!("{whose}: {e}; events of this type are left out"),
            }
        }
        if filter.event_names().is_empty() && !self.events.is_empty() {
            // Nothing is left of what it wanted, which is not the same as everything.
            return Err(Error::new(ErrorKind::InvalidConfig, "none of its event types is registered any more")
                .at(whose)
                .remedy("register them again (`engine.event_types`)"));
        }
        Ok(filter)
    }
}

/// Where reading begins on each shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StartFile {
    /// Everything up to here is not wanted; one per shard.
    pub(super) after: Vec<u64>,
    /// What lies between that and the oldest segment is missing.
    pub(super) strict: bool,
    /// Nor is what has a lower clock, ns since the epoch.
    pub(super) not_before_ns: u64,
}

impl StartFile {
    /// Where `from` is in a log that is complete up to `heads`.
    pub(super) fn of(from: &ReadFrom, heads: &[u64]) -> Result<StartFile> {
        let start = |after, strict, not_before_ns| StartFile { after, strict, not_before_ns };
        let all = |n: u64| vec![n; heads.len()];
        Ok(match from {
            ReadFrom::Beginning => start(all(0), false, 0),
            ReadFrom::Now => start(heads.to_vec(), true, 0),
            ReadFrom::Time(ns) => start(all(0), false, *ns),
            ReadFrom::Sequence(n) => start(all(n.saturating_sub(1)), *n > 1, 0),
            ReadFrom::Position(p) if p.0.len() == heads.len() => start(p.0.clone(), true, 0),
            ReadFrom::Position(p) => {
                return Err(Error::new(
                    ErrorKind::InvalidArgument,
                    format!("position `{p}` is of {} shards, and there are {}", p.0.len(), heads.len()),
                )
                .remedy("use a position with the directory that it was told for"));
            }
        })
    }
}

/// Checks the name of a group or replay.
pub(super) fn check_name(what: &str, name: &str) -> Result<()> {
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let first = name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    if first && name.bytes().all(legal) && name.len() <= DESTINATION_NAME_BYTES_MAX {
        return Ok(());
    }
    Err(Error::new(ErrorKind::InvalidArgument, format!("`{}` cannot name a {what}", name.escape_debug())).remedy(
        format!("use 1 to {DESTINATION_NAME_BYTES_MAX} letters, digits, `-`, `_` and `.`, the first a letter or digit"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_come_back_as_they_were() {
        let types = EventTypes::with_custom(["acme:Scan"]).unwrap();
        let all = EventFilter::all();
        let some = EventFilter::all()
            .with_bucket("b")
            .with_key(Filter::new(&b"\xff/"[..], ".jpg"))
            .with_events(["s3:ObjectCreated:*", "acme:Scan"], &types)
            .unwrap();
        let size: Filter = serde_json::from_str(r#"{"size": {"min": 5}, "not": {"key": {"base64": "/w=="}}}"#).unwrap();
        let any = EventFilter::all().with_filter(size);
        for filter in [&all, &some, &any] {
            let text = serde_json::to_string(&FilterFile::of(filter)).unwrap();
            let back: FilterFile = serde_json::from_str(&text).unwrap();
            assert_eq!(back.filter("x", &types).unwrap(), *filter);
        }
        // A type that is gone is left out; when none is left, it is not as if there had been no condition.
        let without = EventTypes::default();
        let left = FilterFile::of(&some).filter("x", &without).unwrap();
        assert_eq!(left.event_names(), ["s3:ObjectCreated:*"]);
        let only = EventFilter::all().with_events(["acme:Scan"], &types).unwrap();
        assert_eq!(FilterFile::of(&only).filter("x", &without).unwrap_err().kind(), ErrorKind::InvalidConfig);
        for bad in [
            r#"{"bucket": null, "events": [], "prefix": "!", "suffix": ""}"#,
            r#"{"bucket": null, "events": [], "prefix": "cA=="}"#,
            r#"{"bucket": null, "events": [], "filter": {"prefx": "a"}}"#,
            r#"{"bucket": null, "events": [], "filter": {}, "prefix": "", "suffix": ""}"#,
            r#"{"bucket": null, "events": []}"#,
        ] {
            let file: FilterFile = serde_json::from_str(bad).unwrap();
            assert_eq!(file.filter("x", &types).unwrap_err().kind(), ErrorKind::Corrupt, "{bad}");
        }
    }

    #[test]
    fn filters_of_earlier_versions_are_read() {
        let old = r#"{"bucket":"b","events":["s3:ObjectCreated:*"],"prefix":"/y8=","suffix":"LmpwZw=="}"#;
        let file: FilterFile = serde_json::from_str(old).unwrap();
        let types = EventTypes::default();
        let filter = EventFilter::all()
            .with_bucket("b")
            .with_key(Filter::new(&b"\xff/"[..], ".jpg"))
            .with_events(["s3:ObjectCreated:*"], &types)
            .unwrap();
        assert_eq!(file.filter("x", &types).unwrap(), filter);
        // They read what they can express.
        assert_eq!(serde_json::to_string(&FilterFile::of(&filter)).unwrap(), old);
    }

    #[test]
    fn names_are_legal() {
        for good in ["a", "A-1_2.3", &"a".repeat(128)] {
            check_name("group", good).unwrap();
        }
        for bad in ["", "-a", "a b", "a:b", "a/b", "é", &"a".repeat(129)] {
            let e = check_name("group", bad).unwrap_err();
            assert!(e.to_string().contains("cannot name a group"), "{e}");
        }
    }
}
