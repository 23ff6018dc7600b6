//! Filters by themselves, without an engine.

use std::ffi::c_char;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use engine::config::Config;
use engine::filter::{EventFilter, Filter, NamedFilters, PatternOf, SourceOf};
use engine::rule::{Extensions, NotificationOptions, lint, parse_s3_filter};
use engine::{ErrorKind, Result};
use serde_json::{Value, json};

use crate::args::{null, read, tidewire_bytes_t};
use crate::error::{entry, string, tidewire_error_t};
use crate::event::{Fetch, Pairs, tidewire_event_t, unknown};
use crate::numbers::tidewire_filter_format_t as format;
use crate::raw::{tidewire_filter_format_t, tidewire_result_t};

/// A condition on events: made by `tidewire_filter_parse`, freed by `tidewire_filter_free`. It never changes, so any
/// threads may use it at the same time, also in a forked child. No engine is needed.
pub struct tidewire_filter_t {
    filter: Filter,
}

/// The longest text of a filter, in bytes.
const FILTER_BYTES_MAX: usize = 4 << 20;
/// The largest configuration that is looked through, in bytes.
const CONFIG_BYTES_MAX: usize = 64 << 20;

/// Reads a filter.
///
/// `format`: how it is written.
/// `text`: read during the call only; UTF-8, at most 4 MiB.
/// `filter_out`: set to the new filter, or to NULL if it fails. Free it with `tidewire_filter_free`.
/// `err`: see `tidewire_error_t`; may be NULL.
///
/// What is not understood is refused, with the place and a remedy; nothing is skipped. Filters of CloudEvents and
/// EventBridge that look at the source or the region are read for an engine with the defaults (`aws:s3`, `us-east-1`).
///
/// Fails with `TIDEWIRE_INVALID_CONFIG` or `_INVALID_ARGUMENT`.
///
/// # Safety
/// The pointers are NULL or as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidewire_filter_parse(
    format: tidewire_filter_format_t,
    text: tidewire_bytes_t,
    filter_out: *mut *mut tidewire_filter_t,
    err: *mut *mut tidewire_error_t,
) -> tidewire_result_t {
    let body = || {
        if filter_out.is_null() {
            return Err(null("filter_out"));
        }
        // SAFETY: not NULL, so it may be written.
        unsafe { filter_out.write_unaligned(std::ptr::null_mut()) };
        // SAFETY: as described, by contract.
        let text = unsafe { text.text(ErrorKind::InvalidConfig, "text", FILTER_BYTES_MAX)? };
        let handle = Box::new(tidewire_filter_t { filter: parse(format, text)? });
        // SAFETY: as above.
        unsafe { filter_out.write_unaligned(Box::into_raw(handle)) };
        Ok(())
    };
    // SAFETY: NULL or writable, by contract.
    unsafe { entry(err, body) }
}

fn parse(number: tidewire_filter_format_t, text: &str) -> Result<Filter> {
    let source = SourceOf::default();
    match number {
        n if n == format::TIDEWIRE_FILTER_JSON as u32 => Filter::parse_json(text, &NamedFilters::new()),
        n if n == format::TIDEWIRE_FILTER_EVENTBRIDGE as u32 => {
            Filter::parse_event_pattern(text, PatternOf::S3 { region: source.region })
        }
        n if n == format::TIDEWIRE_FILTER_EVENTBRIDGE_DATA as u32 => Filter::parse_event_pattern(text, PatternOf::Data),
        n if n == format::TIDEWIRE_FILTER_CLOUDEVENTS as u32 => Filter::parse_cloudevents(text, source),
        n if n == format::TIDEWIRE_FILTER_CEL as u32 => Filter::parse_cel(text),
        n if n == format::TIDEWIRE_FILTER_S3 as u32 => parse_s3_filter(text, &NotificationOptions::default()),
        n if n == format::TIDEWIRE_FILTER_S3_CEPH as u32 => {
            let options = NotificationOptions { extensions: Extensions::Ceph, ..NotificationOptions::default() };
            parse_s3_filter(text, &options)
        }
        n => Err(unknown("format", n, "use a TIDEWIRE_FILTER_ constant")),
    }
}

/// Whether an event passes.
///
/// `event`: read during the call only. It must be one that `tidewire_publish` would take. One without a time happens now.
/// `passes_out`: set to the answer; to false if the call fails.
///
/// Fails with `TIDEWIRE_INVALID_EVENT` or `_INVALID_ARGUMENT`.
///
/// # Safety
/// The pointers are NULL or as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidewire_filter_matches(
    filter: *const tidewire_filter_t,
    event: *const tidewire_event_t,
    passes_out: *mut bool,
    err: *mut *mut tidewire_error_t,
) -> tidewire_result_t {
    let body = || {
        if passes_out.is_null() {
            return Err(null("passes_out"));
        }
        // SAFETY: not NULL, so it may be written.
        unsafe { passes_out.write(false) };
        // SAFETY: NULL or alive, by contract.
        let filter = unsafe { filter_ref(filter)? };
        // SAFETY: NULL or a struct of its size whose fields are as described, by contract.
        let passes = unsafe { with_event(event, |event| filter.matches_event(event, now_ns()))? };
        // SAFETY: as above.
        unsafe { passes_out.write(passes) };
        Ok(())
    };
    // SAFETY: NULL or writable, by contract.
    unsafe { entry(err, body) }
}

/// Why an event does not pass: the first condition that it does not meet, and what it has instead, for people. The
/// wording is not stable. Empty if it passes.
///
/// `event`: as for `tidewire_filter_matches`.
/// `text_out`: set to NUL-terminated UTF-8, or to NULL if the call fails. Free it with `tidewire_string_free`.
/// `len_out`: set to its length in bytes without the NUL; may be NULL.
///
/// Fails with `TIDEWIRE_INVALID_EVENT` or `_INVALID_ARGUMENT`.
///
/// # Safety
/// The pointers are NULL or as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidewire_filter_explain(
    filter: *const tidewire_filter_t,
    event: *const tidewire_event_t,
    text_out: *mut *mut c_char,
    len_out: *mut usize,
    err: *mut *mut tidewire_error_t,
) -> tidewire_result_t {
    let body = || {
        // SAFETY: NULL or alive, by contract.
        let filter = unsafe { filter_ref(filter)? };
        // SAFETY: NULL or a struct of its size whose fields are as described, by contract.
        let unmet = unsafe { with_event(event, |event| filter.explain_event(event, now_ns()))? };
        Ok(unmet.first().map(ToString::to_string).unwrap_or_default())
    };
    // SAFETY: NULL or writable, by contract.
    unsafe { string(text_out, "text_out", len_out, err, body) }
}

/// What a filter is compiled to: the condition that it is filed under in the index of an engine, what is checked then,
/// and what that costs, for people. The wording is not stable.
///
/// `text_out`, `len_out`: as for `tidewire_filter_explain`.
///
/// Fails with `TIDEWIRE_INVALID_ARGUMENT`.
///
/// # Safety
/// The pointers are NULL or as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidewire_filter_plan(
    filter: *const tidewire_filter_t,
    text_out: *mut *mut c_char,
    len_out: *mut usize,
    err: *mut *mut tidewire_error_t,
) -> tidewire_result_t {
    // SAFETY: NULL or alive, by contract.
    let body = || unsafe { filter_ref(filter) }.map(|filter| filter.plan().to_string());
    // SAFETY: NULL or writable, by contract.
    unsafe { string(text_out, "text_out", len_out, err, body) }
}

/// As `tidewire_filter_plan`, as a JSON object. Its member `cost` is `never`, `indexed`, `free`, `compare` or `scan`; with
/// the last two each event of an engine is tried. Later versions may add members.
///
/// `json_out`, `len_out`: as for `tidewire_filter_explain`.
///
/// Fails with `TIDEWIRE_INVALID_ARGUMENT`.
///
/// # Safety
/// The pointers are NULL or as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidewire_filter_plan_json(
    filter: *const tidewire_filter_t,
    json_out: *mut *mut c_char,
    len_out: *mut usize,
    err: *mut *mut tidewire_error_t,
) -> tidewire_result_t {
    // SAFETY: NULL or alive, by contract.
    let body = || unsafe { filter_ref(filter) }.map(|filter| filter.plan().to_json().to_string());
    // SAFETY: NULL or writable, by contract.
    unsafe { string(json_out, "json_out", len_out, err, body) }
}

/// A filter in the native JSON form, whatever it was written in. Read again, it passes the same events.
///
/// `json_out`, `len_out`: as for `tidewire_filter_explain`.
///
/// Fails with `TIDEWIRE_INVALID_ARGUMENT`.
///
/// # Safety
/// The pointers are NULL or as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidewire_filter_json(
    filter: *const tidewire_filter_t,
    json_out: *mut *mut c_char,
    len_out: *mut usize,
    err: *mut *mut tidewire_error_t,
) -> tidewire_result_t {
    // SAFETY: NULL or alive, by contract.
    let body = || unsafe { filter_ref(filter) }.map(|filter| filter.to_json().to_string());
    // SAFETY: NULL or writable, by contract.
    unsafe { string(json_out, "json_out", len_out, err, body) }
}

/// Frees a filter. NULL is allowed.
///
/// # Safety
/// `filter` is NULL or a filter that is not freed, and nobody uses it any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidewire_filter_free(filter: *mut tidewire_filter_t) {
    if !filter.is_null() {
        // SAFETY: made by `tidewire_filter_parse`, not freed yet, by contract.
        drop(unsafe { Box::from_raw(filter) });
    }
}

/// The JSON Schema (draft 2020-12) of filters in the native form, NUL-terminated. The text is static. Any thread may call
/// it at any time.
#[unsafe(no_mangle)]
pub extern "C" fn tidewire_filter_schema() -> *const c_char {
    const TEXT: &str = concat!(include_str!("../../core/src/filter/filter.schema.json"), "\0");
    TEXT.as_ptr().cast()
}

/// Looks for rules of a configuration that never want an event, that always do in spite of their conditions, that say the
/// same, or that may want the same event for the same destination.
///
/// `config_text`: the configuration (TOML), at most 64 MiB, or a part of it with rules and filters; destinations and a data
/// directory are not needed. Paths in it are relative to the current directory.
/// `json_out`: set to a JSON list of objects with `kind` (`never`, `always`, `same`, `overlap` or `unfinished`), `rules` (the
/// ids that it is about) and `message`; empty if nothing was found. NUL-terminated UTF-8, or NULL if the call fails. Free it
/// with `tidewire_string_free`.
/// `len_out`: set to its length in bytes without the NUL; may be NULL.
///
/// Fails with `TIDEWIRE_INVALID_CONFIG`, `_INVALID_ARGUMENT` or `_IO`.
///
/// # Safety
/// The pointers are NULL or as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidewire_lint(
    config_text: tidewire_bytes_t,
    json_out: *mut *mut c_char,
    len_out: *mut usize,
    err: *mut *mut tidewire_error_t,
) -> tidewire_result_t {
    let body = || {
        const NAME: &str = "config_text";
        // SAFETY: as described, by contract.
        let text = unsafe { config_text.text(ErrorKind::InvalidConfig, NAME, CONFIG_BYTES_MAX)? };
        let rules = Config::rules_from_toml(text, NAME, Path::new(""))?;
        let findings: Vec<Value> = lint(&rules)
            .iter()
            .map(|f| {
                let ids: Vec<&str> = f.rules.iter().map(|i| rules[*i].id.as_str()).collect();
                json!({"kind": f.kind.name(), "rules": ids, "message": f.message})
            })
            .collect();
        Ok(Value::from(findings).to_string())
    };
    // SAFETY: NULL or writable, by contract.
    unsafe { string(json_out, "json_out", len_out, err, body) }
}

/// Events of this bucket, if it is not empty, that this filter wants, if there is one.
///
/// # Safety
/// `filter` is NULL or alive.
pub(crate) unsafe fn event_filter(bucket: &str, filter: *const tidewire_filter_t) -> Result<EventFilter> {
    let mut events = EventFilter::all();
    if !bucket.is_empty() {
        events = events.with_bucket(bucket);
    }
    if !filter.is_null() {
        // SAFETY: as for this function.
        events = events.with_filter(unsafe { filter_ref(filter)? }.clone());
    }
    Ok(events)
}

/// # Safety
/// `filter` is NULL or alive for `'a`.
unsafe fn filter_ref<'a>(filter: *const tidewire_filter_t) -> Result<&'a Filter> {
    // SAFETY: NULL or alive, by contract.
    match unsafe { filter.as_ref() } {
        Some(handle) => Ok(&handle.filter),
        None => Err(null("filter")),
    }
}

/// # Safety
/// `event` is NULL or a struct of its size whose fields are as described.
unsafe fn with_event<T>(event: *const tidewire_event_t, f: impl FnOnce(&engine::Event<'_>) -> Result<T>) -> Result<T> {
    // SAFETY: as for this function.
    let event = unsafe { read(event, "event")? };
    let (mut metadata, mut tags) = (Pairs::default(), Pairs::default());
    // SAFETY: as for this function.
    f(&unsafe { event.view(Fetch::Always, &mut metadata, &mut tags)? })
}

/// When events happened that do not say.
fn now_ns() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}
