//! The class `Filter`, and what else there is about filters without an engine.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use pyo3::basic::CompareOp;
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyDict, PyType};
use tidewire::Error;
use tidewire::config::Config;
use tidewire::filter::{self, NamedFilters, PatternOf, SourceOf};
use tidewire::rule::{self, Extensions, FilterValues, NotificationOptions};

use crate::args;
use crate::error::{OrRaise, guard, invalid_argument};

/// A condition on events, without an engine. It never changes, and may be used from any thread.
///
/// An event is an :class:`Event`, or a mapping of its parts, such as ``{"bucket": "photos", "key": "in/a.jpg", "size": 5}``.
#[pyclass(frozen, module = "tidewire")]
pub(crate) struct Filter {
    pub(crate) filter: filter::Filter,
}

#[pymethods]
impl Filter {
    /// Reads the native form: JSON text, or a ``dict`` to write as such. ``FILTER_SCHEMA`` describes it.
    ///
    /// Raises :exc:`InvalidConfig` with the place in it.
    #[classmethod]
    #[pyo3(signature = (filter, /))]
    fn parse(_cls: &Bound<'_, PyType>, py: Python<'_>, filter: &Bound<'_, PyAny>) -> PyResult<Filter> {
        let text = args::json("filter", filter)?;
        read(py, || filter::Filter::parse_json(&text, &NamedFilters::new()))
    }

    /// Reads an event pattern of Amazon EventBridge: JSON text, or a ``dict``. It is about the EventBridge form of S3
    /// events, with ``data=True`` about the JSON data of events. ``region`` is that of events which name none.
    ///
    /// Raises :exc:`InvalidConfig` with the place in it.
    #[classmethod]
    #[pyo3(
        signature = (pattern, /, *, data=false, region=None),
        text_signature = "($cls, pattern, /, *, data=False, region='us-east-1')"
    )]
    fn from_eventbridge(
        _cls: &Bound<'_, PyType>,
        py: Python<'_>,
        pattern: &Bound<'_, PyAny>,
        data: bool,
        region: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Filter> {
        let (text, region) = (args::json("pattern", pattern)?, args::text_or_none("region", region)?);
        let region = region.unwrap_or(SourceOf::default().region);
        let of = if data { PatternOf::Data } else { PatternOf::S3 { region } };
        read(py, || filter::Filter::parse_event_pattern(&text, of))
    }

    /// Reads the filters of a CloudEvents subscription: JSON text, or a ``list`` or ``dict``. ``event_source`` and
    /// ``region`` are those of the engine whose events it is for.
    ///
    /// Raises :exc:`InvalidConfig` with the place in it.
    #[classmethod]
    #[pyo3(
        signature = (filters, /, *, event_source=None, region=None),
        text_signature = "($cls, filters, /, *, event_source='aws:s3', region='us-east-1')"
    )]
    fn from_cloudevents(
        _cls: &Bound<'_, PyType>,
        py: Python<'_>,
        filters: &Bound<'_, PyAny>,
        event_source: Option<&Bound<'_, PyAny>>,
        region: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Filter> {
        let text = args::json("filters", filters)?;
        let (name, region) = (args::text_or_none("event_source", event_source)?, args::text_or_none("region", region)?);
        let default = SourceOf::default();
        let source =
            SourceOf { event_source: name.unwrap_or(default.event_source), region: region.unwrap_or(default.region) };
        read(py, || filter::Filter::parse_cloudevents(&text, source))
    }

    /// Reads a condition in the Common Expression Language on the variable ``event``, such as
    /// ``event.key.startsWith("in/") && event.size > 0``.
    ///
    /// Raises :exc:`InvalidConfig` with the column.
    #[classmethod]
    #[pyo3(signature = (expression, /))]
    fn from_cel(_cls: &Bound<'_, PyType>, py: Python<'_>, expression: &Bound<'_, PyAny>) -> PyResult<Filter> {
        let text = args::text("expression", expression)?;
        read(py, || filter::Filter::parse_cel(text))
    }

    /// Reads the ``Filter`` of an S3 notification document: XML or JSON text, or a ``dict``. ``encoded``: its values are
    /// form-encoded. ``ceph``: it may have what Ceph has more than S3.
    ///
    /// Raises :exc:`InvalidConfig` with line and column.
    #[classmethod]
    #[pyo3(signature = (filter, /, *, encoded=false, ceph=false))]
    fn from_s3(
        _cls: &Bound<'_, PyType>,
        py: Python<'_>,
        filter: &Bound<'_, PyAny>,
        encoded: bool,
        ceph: bool,
    ) -> PyResult<Filter> {
        let text = args::json("filter", filter)?;
        let options = NotificationOptions {
            filter_values: if encoded { FilterValues::Encoded } else { FilterValues::Raw },
            extensions: if ceph { Extensions::Ceph } else { Extensions::None },
            ..NotificationOptions::default()
        };
        read(py, || rule::parse_s3_filter(&text, &options))
    }

    /// Whether the event passes. One without ``time_ns`` happens now.
    ///
    /// Raises :exc:`InvalidEvent` for what :meth:`Engine.publish` would not take.
    #[pyo3(signature = (event, /))]
    fn matches(&self, py: Python<'_>, event: &Bound<'_, PyAny>) -> PyResult<bool> {
        args::with_event(event, |event| guard(py, || self.filter.matches_event(event, now_ns()).or_raise(py)))
    }

    /// The conditions that the event does not meet, each with what it has instead, for people; none if it passes.
    ///
    /// Raises :exc:`InvalidEvent` for what :meth:`Engine.publish` would not take.
    #[pyo3(signature = (event, /))]
    fn explain(&self, py: Python<'_>, event: &Bound<'_, PyAny>) -> PyResult<Vec<String>> {
        args::with_event(event, |event| {
            guard(py, || {
                let unmet = self.filter.explain_event(event, now_ns()).or_raise(py)?;
                Ok(unmet.iter().map(ToString::to_string).collect())
            })
        })
    }

    /// What the filter is compiled to: the condition that it is filed under in the index of an engine, what is checked
    /// then, and what that costs: see :class:`Plan`.
    fn plan<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        guard(py, || args::loads(py, &self.filter.plan().to_json().to_string()))
    }

    /// The native form as JSON text. Read again, it passes the same events.
    fn to_json(&self, py: Python<'_>) -> PyResult<String> {
        guard(py, || Ok(self.filter.to_json().to_string()))
    }

    fn __richcmp__(&self, other: &Filter, op: CompareOp) -> Option<bool> {
        match op {
            CompareOp::Eq => Some(self.filter == other.filter),
            CompareOp::Ne => Some(self.filter != other.filter),
            _ => None,
        }
    }

    fn __hash__(&self) -> u64 {
        use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
        BuildHasherDefault::<DefaultHasher>::new().hash_one(&self.filter)
    }

    fn __repr__(&self) -> String {
        format!("<tidewire.Filter {}>", self.filter.to_json())
    }
}

/// Looks for rules that never want an event, that always do in spite of their conditions, that say the same, or that may
/// want the same event for the same destination: see :class:`Finding`.
///
/// Exactly one of ``config`` (TOML text) and ``config_path`` (a file) has the rules; destinations and a data directory are not
/// needed.
///
/// Raises :exc:`InvalidConfig` or :exc:`IoError`.
#[pyfunction]
#[pyo3(signature = (config=None, *, config_path=None))]
pub(crate) fn lint<'py>(
    py: Python<'py>,
    config: Option<&Bound<'py, PyAny>>,
    config_path: Option<PathBuf>,
) -> PyResult<Vec<Bound<'py, PyDict>>> {
    let config = args::text_or_none("config", config)?;
    guard(py, || {
        let found = py.detach(|| -> Result<_, Error> {
            let rules = match (config, config_path.as_deref()) {
                (Some(text), None) => Config::rules_from_toml(text, "config", Path::new(""))?,
                (None, Some(path)) => Config::rules_from_file(path)?,
                (None, None) => {
                    let remedy = "give config (TOML text) or config_path";
                    return Err(invalid_argument("config", "there is no configuration", remedy));
                }
                (Some(_), Some(_)) => {
                    let remedy = "give config or config_path, not both";
                    return Err(invalid_argument("config", "there are two configurations", remedy));
                }
            };
            let findings = rule::lint(&rules);
            Ok((rules, findings))
        });
        let (rules, findings) = found.or_raise(py)?;
        let finding = |f: rule::Finding| {
            let dict = PyDict::new(py);
            dict.set_item("kind", f.kind.name())?;
            dict.set_item("rules", f.rules.iter().map(|i| rules[*i].id.as_str()).collect::<Vec<_>>())?;
            dict.set_item("message", f.message)?;
            Ok(dict)
        };
        findings.into_iter().map(finding).collect()
    })
}

fn read(py: Python<'_>, parse: impl FnOnce() -> Result<filter::Filter, Error>) -> PyResult<Filter> {
    guard(py, || Ok(Filter { filter: parse().or_raise(py)? }))
}

/// When events happened that do not say.
fn now_ns() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}
