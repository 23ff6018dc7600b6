//! What the host adds to events before they are matched.

use std::ffi::c_void;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use engine::event::{EVENT_BYTES_MAX, FrameView};
use engine::{EnrichOptions, Enricher, Enrichment, Error, ErrorKind, Result};

use crate::args::{Versioned, check_count, first_size, null, null_data, read, tidewire_bytes_t, tidewire_pair_t};
use crate::engine_handle::{engine_ref, milliseconds, tidewire_engine_t};
use crate::error::{entry, tidewire_error_t};
use crate::event::{PairsOf, tidewire_event_t};
use crate::handlers::tidewire_release_callback_t;
use crate::raw::tidewire_result_t;

/// What an enricher adds to the event that it was called with. It belongs to the library, and is good until the call returns,
/// on the thread of the call.
pub struct tidewire_enrichment_t {
    added: Enrichment,
    failed: Option<String>,
}

/// Called with one event after the other, for each shard by a thread of its own, so from several threads at the same time where
/// there are several shards. `event` and what it points to are good until it returns. What it adds it says by
/// `tidewire_enrich_set_metadata`, `tidewire_enrich_set_tag` and `tidewire_enrich_set_data`, or `tidewire_enrich_fail`. It may
/// block, but not wait for an ack of the same engine. It must not throw or end its thread.
pub type tidewire_enrich_callback_t = Option<
    unsafe extern "C" fn(
        callback_data: *mut c_void,
        event: *const tidewire_event_t,
        enrichment: *mut tidewire_enrichment_t,
    ),
>;

/// What enriches events. Initialise with `TIDEWIRE_ENRICHER_INIT`. For `struct_size` see `tidewire_options_t`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct tidewire_enricher_t {
    /// `sizeof(tidewire_enricher_t)`.
    pub struct_size: usize,
    /// Called with each event.
    pub callback: tidewire_enrich_callback_t,
    /// Handed to the callback.
    pub callback_data: *mut c_void,
    /// Called once, when the callback will not be called any more, with the callback's data; may be NULL. If the enricher could
    /// not be set it is not called.
    pub release: tidewire_release_callback_t,
    /// How long it may take for an event, in milliseconds, 1 to 60000; 0 means 100.
    pub timeout_ms: u64,
    /// What is added to an event for which it took too long, failed, or said something that cannot be: metadata and tags.
    /// Without any the event stays as it is. So does one that would be too large with them.
    pub fallback_metadata: *const tidewire_pair_t,
    /// How many.
    pub fallback_metadata_count: usize,
    /// See `fallback_metadata`.
    pub fallback_tags: *const tidewire_pair_t,
    /// How many.
    pub fallback_tags_count: usize,
}

// SAFETY: `repr(C)`, the size is first, pointers and integers only.
unsafe impl Versioned for tidewire_enricher_t {
    const INIT: &'static str = "TIDEWIRE_ENRICHER_INIT";
    const FIRST_SIZE: usize = first_size!(tidewire_enricher_t, fallback_tags_count: usize);
}

/// Sets what adds metadata, tags or data to each event before it is matched, in the place of an earlier one. What is published
/// after this call goes to the new one, and so does what was not taken in by then. A call of the earlier one may still be under
/// way when this returns.
///
/// It sees the events that are published here and by other processes, those of reservations at their commit. What it adds is
/// written to the log with the event and never asked for again: not by retries, replays or the next opening. The order of
/// events stays as it is: what comes after an event waits for it, and so does an ack; publishing does not, until the ring is
/// full. After an event for which it took too long nobody waits for it until it has come back; events get the fallback
/// meanwhile. `tidewire_stats` counts. Whether an event is of interest at all is decided before, by its bucket and type.
///
/// `enricher`: NULL to take the one there is away.
///
/// Fails with `TIDEWIRE_INVALID_ARGUMENT`, also if the engine is another process's, `_CLOSED`, `_WRONG_PROCESS` or, if there are
/// no threads left, `_IO`.
///
/// # Safety
/// The pointers are NULL or as described. The callback's data stays usable until `release` is called, or else for good.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidewire_enricher_set(
    engine: *const tidewire_engine_t,
    enricher: *const tidewire_enricher_t,
    err: *mut *mut tidewire_error_t,
) -> tidewire_result_t {
    let body = || {
        // SAFETY: NULL or open, by contract.
        let engine = unsafe { engine_ref(engine)? };
        if enricher.is_null() {
            return engine.set_enricher(None, EnrichOptions::default());
        }
        // SAFETY: a struct of its size, by contract.
        let enricher = unsafe { read(enricher, "enricher")? };
        let Some(callback) = enricher.callback else { return Err(null("enricher.callback")) };
        let mut options = EnrichOptions::default();
        if enricher.timeout_ms > 0 {
            options.timeout = milliseconds(enricher.timeout_ms);
        }
        // SAFETY: as described, by contract.
        unsafe {
            each_pair(enricher.fallback_metadata, enricher.fallback_metadata_count, "fallback_metadata", |n, v| {
                options.fallback.set_metadata(n, v);
            })?;
            each_pair(enricher.fallback_tags, enricher.fallback_tags_count, "fallback_tags", |n, v| {
                options.fallback.set_tag(n, v);
            })?;
        }
        let host = Arc::new(Host {
            callback,
            data: enricher.callback_data,
            release: enricher.release,
            refused: AtomicBool::new(false),
        });
        let set = engine.set_enricher(Some(host.clone()), options);
        if set.is_err() {
            host.refused.store(true, Ordering::Relaxed);
        }
        set
    };
    // SAFETY: NULL or writable, by contract.
    unsafe { entry(err, body) }
}

/// # Safety
/// `pairs` is NULL or points to `count` pairs as described.
unsafe fn each_pair(
    pairs: *const tidewire_pair_t,
    count: usize,
    field: &'static str,
    mut each: impl FnMut(&str, &str),
) -> Result<()> {
    check_count(count, field)?;
    if pairs.is_null() && count > 0 {
        return Err(null_data(field, count));
    }
    for n in 0..count {
        // SAFETY: there are so many, by contract.
        let pair = unsafe { pairs.add(n).read_unaligned() };
        let part = |of: &str| format!("{field}[{n}].{of}");
        // SAFETY: as described, by contract.
        let (name, value) = unsafe {
            (
                pair.name.text(ErrorKind::InvalidArgument, part("name"), EVENT_BYTES_MAX)?,
                pair.value.text(ErrorKind::InvalidArgument, part("value"), EVENT_BYTES_MAX)?,
            )
        };
        each(name, value);
    }
    Ok(())
}

/// The callback of the host.
struct Host {
    callback: unsafe extern "C" fn(*mut c_void, *const tidewire_event_t, *mut tidewire_enrichment_t),
    data: *mut c_void,
    release: tidewire_release_callback_t,
    /// The data are still the host's.
    refused: AtomicBool,
}

// SAFETY: the data are only handed to the callbacks, which the host has promised may be called from the threads of the shards.
unsafe impl Send for Host {}
// SAFETY: as above, at the same time.
unsafe impl Sync for Host {}

impl Enricher for Host {
    fn enrich(&self, event: &FrameView<'_>, added: &mut Enrichment) -> std::result::Result<(), String> {
        let mut pairs = PairsOf::default();
        let event = tidewire_event_t::of(event, &mut pairs);
        let mut enrichment = tidewire_enrichment_t { added: std::mem::take(added), failed: None };
        // SAFETY: the host promises the rest.
        unsafe { (self.callback)(self.data, &event, &mut enrichment) };
        *added = enrichment.added;
        enrichment.failed.map_or(Ok(()), Err)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(release) = self.release
            && !*self.refused.get_mut()
        {
            // SAFETY: the callback is called no more; the host promises the rest.
            unsafe { release(self.data) };
        }
    }
}

/// Adds an entry to the user metadata of the event, in the place of one of the same name.
///
/// Fails with `TIDEWIRE_INVALID_ARGUMENT`, also if it is not UTF-8 or longer than an event may be; then nothing was added. What
/// makes the event as a whole too large shows when the callback returns: then it counts as failed.
///
/// # Safety
/// `enrichment` is NULL or that of the call under way; the texts are as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidewire_enrich_set_metadata(
    enrichment: *mut tidewire_enrichment_t,
    name: tidewire_bytes_t,
    value: tidewire_bytes_t,
    err: *mut *mut tidewire_error_t,
) -> tidewire_result_t {
    // SAFETY: as described, by contract.
    unsafe {
        entry(err, || {
            let (name, value) = pair(name, value)?;
            adding(enrichment)?.added.set_metadata(name, value);
            Ok(())
        })
    }
}

/// Adds a tag to the event, in the place of one of the same name.
///
/// Fails as `tidewire_enrich_set_metadata`.
///
/// # Safety
/// As for `tidewire_enrich_set_metadata`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidewire_enrich_set_tag(
    enrichment: *mut tidewire_enrichment_t,
    name: tidewire_bytes_t,
    value: tidewire_bytes_t,
    err: *mut *mut tidewire_error_t,
) -> tidewire_result_t {
    // SAFETY: as described, by contract.
    unsafe {
        entry(err, || {
            let (name, value) = pair(name, value)?;
            adding(enrichment)?.added.set_tag(name, value);
            Ok(())
        })
    }
}

/// Sets the data of the event, a JSON document, in the place of what it has.
///
/// Fails with `TIDEWIRE_INVALID_ARGUMENT`. What is no JSON shows when the callback returns: then it counts as failed.
///
/// # Safety
/// As for `tidewire_enrich_set_metadata`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidewire_enrich_set_data(
    enrichment: *mut tidewire_enrichment_t,
    data: tidewire_bytes_t,
    err: *mut *mut tidewire_error_t,
) -> tidewire_result_t {
    // SAFETY: as described, by contract.
    unsafe {
        entry(err, || {
            let data = data.get(ErrorKind::InvalidArgument, "data", EVENT_BYTES_MAX)?;
            adding(enrichment)?.added.set_data(data);
            Ok(())
        })
    }
}

/// Says that nothing could be found out: the event gets the fallback, and what was set does not count.
///
/// `reason`: why, for the log; may be empty.
///
/// Fails with `TIDEWIRE_INVALID_ARGUMENT`; if `reason` is not UTF-8 the event gets the fallback all the same.
///
/// # Safety
/// As for `tidewire_enrich_set_metadata`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidewire_enrich_fail(
    enrichment: *mut tidewire_enrichment_t,
    reason: tidewire_bytes_t,
    err: *mut *mut tidewire_error_t,
) -> tidewire_result_t {
    // SAFETY: as described, by contract.
    unsafe {
        entry(err, || {
            let adding = adding(enrichment)?;
            adding.failed = Some(String::new());
            adding.failed = Some(reason.text(ErrorKind::InvalidArgument, "reason", EVENT_BYTES_MAX)?.to_owned());
            Ok(())
        })
    }
}

/// # Safety
/// As for [`tidewire_enrich_set_metadata`].
unsafe fn adding<'a>(enrichment: *mut tidewire_enrichment_t) -> Result<&'a mut tidewire_enrichment_t> {
    // SAFETY: NULL or of the call under way, whose thread this is, by contract.
    unsafe { enrichment.as_mut() }.ok_or_else(|| null("enrichment"))
}

/// # Safety
/// As for [`tidewire_enrich_set_metadata`].
unsafe fn pair<'a>(name: tidewire_bytes_t, value: tidewire_bytes_t) -> Result<(&'a str, &'a str)> {
    // SAFETY: as described, by contract.
    let (name, value) = unsafe {
        (
            name.text(ErrorKind::InvalidArgument, "name", EVENT_BYTES_MAX)?,
            value.text(ErrorKind::InvalidArgument, "value", EVENT_BYTES_MAX)?,
        )
    };
    if name.is_empty() {
        return Err(Error::new(ErrorKind::InvalidArgument, "name is empty").at("name"));
    }
    Ok((name, value))
}
