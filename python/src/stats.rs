//! What the engine has counted, as a `dict`. `tidewire/_types.py` has the same names for type checkers.

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use tidewire::{DestinationStats, Stats};

/// A `dict` of fields under their names.
macro_rules! fields {
    ($py:expr, $from:expr, $($name:ident)*) => {{
        let dict = PyDict::new($py);
        $(dict.set_item(pyo3::intern!($py, stringify!($name)), &$from.$name)?;)*
        dict
    }};
}

pub(crate) fn stats<'py>(py: Python<'py>, s: &Stats) -> PyResult<Bound<'py, PyDict>> {
    let dict = fields!(py, s, shards accepted refused_full invalid no_match refused_queue duplicates stored routed
        delivered dead_lettered dropped reservations in_doubt dead_letters_kept waiting log_bytes commits syncs segments damaged ring_used_bytes held_bytes enriched enrich_timeouts enrich_failed enrich_panicked enrich_skipped unhealthy);
    let destinations = PyList::empty(py);
    for d in &s.destinations {
        destinations.append(destination(py, d)?)?;
    }
    dict.set_item("destinations", destinations)?;
    dict.set_item("latency_us", latency(py, s)?)?;
    Ok(dict)
}

fn destination<'py>(py: Python<'py>, d: &DestinationStats) -> PyResult<Bound<'py, PyDict>> {
    Ok(fields!(py, d, name routed delivered retried dead_lettered requests failures waiting connections last_error))
}

fn latency<'py>(py: Python<'py>, s: &Stats) -> PyResult<Bound<'py, PyDict>> {
    let (h, dict) = (&s.latency, PyDict::new(py));
    dict.set_item("count", h.len())?;
    dict.set_item("mean", if h.is_empty() { 0.0 } else { h.mean() })?;
    for (name, quantile) in [("min", 0.0), ("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p999", 0.999), ("max", 1.0)] {
        dict.set_item(name, h.value_at_quantile(quantile))?;
    }
    Ok(dict)
}
