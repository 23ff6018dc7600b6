//! What the host adds to events before they are matched.

use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::{PyAny, PyDict};
use tidewire::event::FrameView;
use tidewire::{EnrichOptions, Enricher, Enrichment};

use crate::args::{self, Pairs};
use crate::call::call;
use crate::engine::Engine;
use crate::error::{OrRaise, guard, invalid_argument};
use crate::event::PyEvent;

#[pymethods]
impl Engine {
    /// Gives the engine a callable that adds metadata, tags or data to each event before it is matched. It takes the place of an
    /// earlier one; ``None`` takes that away.
    ///
    /// It is called with an :class:`Event`, and returns ``None``, or a ``dict`` of what is added: ``metadata`` and ``tags``, which are
    /// mappings, and ``data``, as for :meth:`publish`. What the event has under the same name is replaced. What it adds is
    /// written to the log with the event and never asked for again. Each shard has a thread for it, so it may block, and is called
    /// by several threads where there are several shards. What comes after an event waits for it, and so does an ack. If it
    /// takes longer than ``timeout`` seconds (0.001 to 60), raises, or returns what cannot be, the event gets ``metadata`` and
    /// ``tags`` instead; after a timeout nobody waits for it until it is back. :meth:`stats` counts.
    ///
    /// Raises :exc:`InvalidArgument` for a timeout, metadata or tags that cannot be; :exc:`IoError` if there can be no thread;
    /// :exc:`Closed`, :exc:`WrongProcess`.
    #[pyo3(signature = (enricher, *, timeout=0.1, metadata=None, tags=None))]
    fn set_enricher(
        &self,
        py: Python<'_>,
        enricher: Option<&Bound<'_, PyAny>>,
        timeout: f64,
        metadata: Option<&Bound<'_, PyAny>>,
        tags: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let mut options = EnrichOptions::default();
        options.timeout = args::seconds("timeout", timeout).or_raise(py)?;
        add(&mut options.fallback, metadata, tags)?;
        let enricher = match enricher {
            None => None,
            Some(call) if !call.is_callable() => {
                return Err(args::wrong_type("enricher", "a callable or None", call));
            }
            Some(call) => Some(Arc::new(Host(call.clone().unbind())) as Arc<dyn Enricher>),
        };
        self.change(py, move |engine| engine.set_enricher(enricher, options))
    }
}

fn add(to: &mut Enrichment, metadata: Option<&Bound<'_, PyAny>>, tags: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
    if let Some(metadata) = metadata {
        for (name, value) in Pairs::new("metadata", metadata)?.borrow("metadata")? {
            to.set_metadata(name, value);
        }
    }
    if let Some(tags) = tags {
        for (name, value) in Pairs::new("tags", tags)?.borrow("tags")? {
            to.set_tag(name, value);
        }
    }
    Ok(())
}

/// The callable of the host.
struct Host(Py<PyAny>);

impl Host {
    fn ask(&self, py: Python<'_>, event: &FrameView<'_>, added: &mut Enrichment) -> PyResult<()> {
        guard(py, || {
            let answer = call(self.0.bind(py), (PyEvent::of_frame(*event),))?;
            if answer.is_none() {
                return Ok(());
            }
            let Ok(parts) = answer.cast::<PyDict>() else {
                return Err(args::wrong_type("what the enricher returns", "a dict or None", &answer));
            };
            for (name, value) in parts.iter() {
                match args::text("name", &name)? {
                    _ if value.is_none() => {}
                    "metadata" => add(added, Some(&value), None)?,
                    "tags" => add(added, None, Some(&value))?,
                    "data" => {
                        added.set_data(args::data(&value)?.to_vec());
                    }
                    other => {
                        let what = format!("the enricher returns `{other}`");
                        let e = invalid_argument("enricher", what, "return metadata, tags and data only");
                        return Err(e).or_raise(py);
                    }
                }
            }
            Ok(())
        })
    }
}

impl Enricher for Host {
    fn enrich(&self, event: &FrameView<'_>, added: &mut Enrichment) -> Result<(), String> {
        // Where the interpreter ends the event gets the fallback.
        let asked = Python::try_attach(|py| self.ask(py, event, added).map_err(|e| e.to_string()));
        asked.unwrap_or_else(|| Err("the interpreter has ended".to_owned()))
    }
}
