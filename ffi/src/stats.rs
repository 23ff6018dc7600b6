//! What an engine has counted.

use std::ffi::{CString, c_char};

use engine::{MetricsFormat, Stats};

use crate::args::{Versioned, fill, first_size, size_of_struct};
use crate::engine_handle::{engine_ref, tidewire_engine_t};
use crate::error::{entry, string, tidewire_error_t};
use crate::event::unknown;
use crate::numbers::tidewire_metrics_format_t as metrics;
use crate::raw::{tidewire_metrics_format_t, tidewire_result_t};

/// What an engine has counted since it was opened. Initialise with `TIDEWIRE_STATS_INIT`. For `struct_size` see
/// `tidewire_options_t`; a library fills as much of an older program's struct as there is.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct tidewire_stats_t {
    /// `sizeof(tidewire_stats_t)`.
    pub struct_size: usize,
    /// Shards.
    pub shards: u64,
    /// Shards whose log failed or waits; the JSON form tells why.
    pub unhealthy_shards: u64,
    /// Destinations that have had deliveries.
    pub destinations: u64,
    /// Events taken from the host.
    pub accepted: u64,
    /// Events refused because there was no space.
    pub refused_full: u64,
    /// Events refused because they were not valid. Those that this interface refused itself (pointers, UTF-8) are not
    /// counted.
    pub invalid: u64,
    /// Events that no rule wanted.
    pub no_match: u64,
    /// Events written to the log.
    pub stored: u64,
    /// Deliveries that the stored events call for: one per event and destination.
    pub routed: u64,
    /// Deliveries done.
    pub delivered: u64,
    /// Deliveries given up and kept as dead letters.
    pub dead_lettered: u64,
    /// Deliveries not done yet.
    pub waiting: u64,
    /// Bytes of records written to the log.
    pub log_bytes: u64,
    /// Groups written to the log.
    pub commits: u64,
    /// Times the log was made durable.
    pub syncs: u64,
    /// Segment files of the log.
    pub segments: u64,
    /// Damaged stretches found in the log.
    pub damaged: u64,
    /// Bytes of events on their way into the log.
    pub ring_used_bytes: u64,
    /// Bytes of rendered records held for delivery.
    pub held_bytes: u64,
    /// From acceptance to the destination's answer, in microseconds: half of the deliveries took at most so long.
    pub latency_us_p50: u64,
    /// The same for 99 of 100.
    pub latency_us_p99: u64,
    /// The same for 999 of 1000.
    pub latency_us_p999: u64,
    /// The longest.
    pub latency_us_max: u64,
    /// Events that the enricher saw, whether it added anything or not (`tidewire_enricher_set`).
    pub enriched: u64,
    /// Events for which it took too long; these and the next two have got the fallback.
    pub enrich_timeouts: u64,
    /// Events for which it failed, or added what cannot be.
    pub enrich_failed: u64,
    /// Events that it did not see, because it had not come back from an earlier one, or the engine closed.
    pub enrich_skipped: u64,
}

// SAFETY: `repr(C)`, the size is first, integers only.
unsafe impl Versioned for tidewire_stats_t {
    const INIT: &'static str = "TIDEWIRE_STATS_INIT";
    const FIRST_SIZE: usize = first_size!(tidewire_stats_t, latency_us_max: u64);
}

/// Fills in what the engine has counted. The numbers are taken one after the other while the engine runs, so they need
/// not add up exactly.
///
/// `stats_out`: initialised with `TIDEWIRE_STATS_INIT`; unchanged if the call fails.
///
/// Fails with `TIDEWIRE_INVALID_ARGUMENT` or `_WRONG_PROCESS`.
///
/// # Safety
/// The pointers are NULL or as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidewire_stats(
    engine: *const tidewire_engine_t,
    stats_out: *mut tidewire_stats_t,
    err: *mut *mut tidewire_error_t,
) -> tidewire_result_t {
    let body = || {
        // SAFETY: NULL or open, by contract.
        let engine = unsafe { engine_ref(engine)? };
        // SAFETY: NULL or a struct of its size, by contract.
        unsafe { size_of_struct(stats_out, "stats_out")? };
        let stats = tidewire_stats_t::of(&engine.stats()?);
        // SAFETY: as above, and it may be written.
        unsafe { fill(stats_out, "stats_out", &stats) }
    };
    // SAFETY: NULL or writable, by contract.
    unsafe { entry(err, body) }
}

/// What the engine has counted, as a JSON object: the numbers of `tidewire_stats_t`, what is wrong with each unhealthy
/// shard, and the numbers and last error of each destination. Later versions may add members.
///
/// `json_out`: set to NUL-terminated UTF-8, or to NULL if the call fails. Free it with `tidewire_string_free`.
/// `len_out`: set to its length in bytes without the NUL; may be NULL.
///
/// Fails with `TIDEWIRE_INVALID_ARGUMENT` or `_WRONG_PROCESS`.
///
/// # Safety
/// The pointers are NULL or as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidewire_stats_json(
    engine: *const tidewire_engine_t,
    json_out: *mut *mut c_char,
    len_out: *mut usize,
    err: *mut *mut tidewire_error_t,
) -> tidewire_result_t {
    let body = || {
        // SAFETY: NULL or open, by contract.
        let engine = unsafe { engine_ref(engine)? };
        Ok(engine.stats_json()?.to_string())
    };
    // SAFETY: NULL or writable, by contract.
    unsafe { string(json_out, "json_out", len_out, err, body) }
}

/// What the engine has counted, as a text to be scraped: all names begin with `tidewire_`, and what is about a destination
/// has the label `destination`.
///
/// `format`: `TIDEWIRE_METRICS_PROMETHEUS` (`text/plain; version=0.0.4`) or `TIDEWIRE_METRICS_OPENMETRICS`
/// (`application/openmetrics-text; version=1.0.0`).
/// `text_out`: set to NUL-terminated UTF-8, or to NULL if the call fails. Free it with `tidewire_string_free`.
/// `len_out`: set to its length in bytes without the NUL; may be NULL.
///
/// Fails with `TIDEWIRE_INVALID_ARGUMENT` or `_WRONG_PROCESS`.
///
/// # Safety
/// The pointers are NULL or as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidewire_prometheus(
    engine: *const tidewire_engine_t,
    format: tidewire_metrics_format_t,
    text_out: *mut *mut c_char,
    len_out: *mut usize,
    err: *mut *mut tidewire_error_t,
) -> tidewire_result_t {
    let body = || {
        // SAFETY: NULL or open, by contract.
        let engine = unsafe { engine_ref(engine)? };
        let format = match format {
            n if n == metrics::TIDEWIRE_METRICS_PROMETHEUS as u32 => MetricsFormat::Prometheus,
            n if n == metrics::TIDEWIRE_METRICS_OPENMETRICS as u32 => MetricsFormat::OpenMetrics,
            n => return Err(unknown("format", n, "use a TIDEWIRE_METRICS_ constant")),
        };
        engine.prometheus(format)
    };
    // SAFETY: NULL or writable, by contract.
    unsafe { string(text_out, "text_out", len_out, err, body) }
}

/// Frees a string that this library made. NULL is allowed.
///
/// # Safety
/// `string` is NULL or such a string, unchanged and not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidewire_string_free(string: *mut c_char) {
    if !string.is_null() {
        // SAFETY: made by `CString::into_raw`, not freed yet, by contract.
        drop(unsafe { CString::from_raw(string) });
    }
}

impl tidewire_stats_t {
    fn of(s: &Stats) -> Self {
        tidewire_stats_t {
            struct_size: size_of::<Self>(),
            shards: s.shards,
            unhealthy_shards: s.unhealthy.len() as u64,
            destinations: s.destinations.len() as u64,
            accepted: s.accepted,
            refused_full: s.refused_full,
            invalid: s.invalid,
            no_match: s.no_match,
            stored: s.stored,
            routed: s.routed,
            delivered: s.delivered,
            dead_lettered: s.dead_lettered,
            waiting: s.waiting,
            log_bytes: s.log_bytes,
            commits: s.commits,
            syncs: s.syncs,
            segments: s.segments,
            damaged: s.damaged,
            ring_used_bytes: s.ring_used_bytes,
            held_bytes: s.held_bytes,
            latency_us_p50: s.latency.value_at_quantile(0.5),
            latency_us_p99: s.latency.value_at_quantile(0.99),
            latency_us_p999: s.latency.value_at_quantile(0.999),
            latency_us_max: s.latency.max(),
            enriched: s.enriched,
            enrich_timeouts: s.enrich_timeouts,
            enrich_failed: s.enrich_failed + s.enrich_panicked,
            enrich_skipped: s.enrich_skipped,
        }
    }
}
