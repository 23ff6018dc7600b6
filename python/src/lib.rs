//! The Python module `tidewire._tidewire`: the engine for storage stacks written in Python.
//!
//! The package around it (`tidewire/`) has the exceptions, the constants and the stubs. Nothing here keeps the
//! interpreter waiting: what may wait lets go of it, and looks for signals every [`wait::SLICE`].

mod aio;
mod args;
mod call;
mod engine;
mod enrich;
mod error;
mod event;
mod filter;
mod handlers;
mod hub;
mod letters;
mod logging;
mod publish;
mod reading;
mod reserve;
mod rules;
mod stats;
mod wait;

use pyo3::prelude::*;
use tidewire::KnownType;

/// The native part of `tidewire`.
#[pymodule(gil_used = false)]
mod _tidewire {
    #[pymodule_export]
    use super::aio::{Acks, Poller};
    #[pymodule_export]
    use super::engine::{Engine, Flushing, check_config, check_interpreter, close_all};
    #[pymodule_export]
    use super::event::PyEvent;
    #[pymodule_export]
    use super::event_types;
    #[pymodule_export]
    use super::filter::{Filter, lint};
    #[pymodule_export]
    use super::handlers::Batch;
    #[pymodule_export]
    use super::letters::Replay;
    #[pymodule_export]
    use super::logging::refresh_logging;
    #[pymodule_export]
    use super::publish::PySeries;
    #[pymodule_export]
    use super::reading::{Consumer, Delivery, Entry, Gap, Tail};
    #[pymodule_export]
    use super::reserve::{BatchReservation, Reservation};

    #[pymodule_export]
    #[allow(non_upper_case_globals)]
    const __version__: &str = env!("CARGO_PKG_VERSION");

    #[pymodule_export]
    const FILTER_SCHEMA: &str = tidewire::filter::FILTER_SCHEMA;
}

/// Name and value of each constant of `EventType`, in the order of the registry: `OBJECT_CREATED_PUT` and
/// `s3:ObjectCreated:Put`.
#[pyfunction]
fn event_types() -> Vec<(String, &'static str)> {
    KnownType::ALL.iter().map(|t| (constant_name(&format!("{t:?}")), t.name())).collect()
}

/// `ObjectCreatedPut` as `OBJECT_CREATED_PUT`.
fn constant_name(camel: &str) -> String {
    let mut name = String::with_capacity(camel.len() + 8);
    for (i, c) in camel.char_indices() {
        if c.is_ascii_uppercase() && i > 0 {
            name.push('_');
        }
        name.push(c.to_ascii_uppercase());
    }
    name
}
