//! Replays of the log.

use std::ffi::c_char;

use engine::log::reader::ReadFrom;
use engine::shared::AnyReplay;
use engine::{AnyEngine, ErrorKind, Result};

use crate::args::{Versioned, first_size, read, tidewire_bytes_t};
use crate::engine_handle::{engine_ref, milliseconds, tidewire_engine_t};
use crate::error::{entry, string, tidewire_error_t};
use crate::filter::{event_filter, tidewire_filter_t};
use crate::handle::{free, give, held, none};
use crate::raw::tidewire_result_t;
use crate::rules::{TEXT_BYTES_MAX, name};

/// A replay: made by `tidewire_replay_start`, freed with `tidewire_replay_free`, which does not end it. Its functions may be
/// called from any threads at the same time.
pub struct tidewire_replay_t(AnyReplay);

/// What to replay, and to whom. Initialise with `TIDEWIRE_REPLAY_OPTIONS_INIT`: everything that the log still has. For
/// `struct_size` see `tidewire_options_t`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct tidewire_replay_options_t {
    /// `sizeof(tidewire_replay_options_t)`.
    pub struct_size: usize,
    /// The replay's name, which its records carry as `replay`; empty for a new one.
    pub name: tidewire_bytes_t,
    /// A destination of the rules, by name. Give this or `one_off`.
    pub destination: tidewire_bytes_t,
    /// A destination of its own, as `tidewire_destination_put` takes it. It is not stored: after a restart the replay waits
    /// until `tidewire_replay_resume` says again where it goes.
    pub one_off: tidewire_bytes_t,
    /// Begins with the first event whose clock is at least this, in nanoseconds since the Unix epoch; 0 means the oldest.
    pub from_ns: u64,
    /// Events with a clock above this are not replayed; 0 means everything up to the call.
    pub until_ns: u64,
    /// Only events of this bucket; empty for all.
    pub bucket: tidewire_bytes_t,
    /// Only events that this filter wants; NULL for all. Read during the call only.
    pub filter: *const tidewire_filter_t,
    /// The most events per second; 0 for as many as there are.
    pub rate_max: u32,
    /// Must be 0.
    pub reserved: u32,
}

// SAFETY: `repr(C)`, the size is first, pointers and integers only.
unsafe impl Versioned for tidewire_replay_options_t {
    const INIT: &'static str = "TIDEWIRE_REPLAY_OPTIONS_INIT";
    const FIRST_SIZE: usize = first_size!(tidewire_replay_options_t, reserved: u32);
}

/// Sends events of the log again. They keep their ids and their order for each key, through a lane of the replay's own: live
/// events are neither delayed nor kept in order with it. It goes on after a restart.
///
/// `options`: read during the call only.
/// `replay_out`: set to the replay, or to NULL if it fails.
///
/// Fails with `TIDEWIRE_NOT_FOUND` if the rules have no such destination; `_INVALID_ARGUMENT` for a name that is taken or not
/// allowed; `_INVALID_CONFIG` for a destination or filter that is wrong; `_FULL` if too many are under way; `_IO` and the
/// like if it cannot be stored; `_CLOSED`, `_WRONG_PROCESS`.
///
/// # Safety
/// The pointers are NULL or as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidewire_replay_start(
    engine: *const tidewire_engine_t,
    options: *const tidewire_replay_options_t,
    replay_out: *mut *mut tidewire_replay_t,
    err: *mut *mut tidewire_error_t,
) -> tidewire_result_t {
    let body = || {
        // SAFETY: NULL or writable, by contract.
        unsafe { none(replay_out, "replay_out")? };
        // SAFETY: NULL or open, by contract.
        let engine = unsafe { engine_ref(engine)? };
        // SAFETY: NULL or a struct of its size, whose fields are as described, by contract.
        let handle = unsafe { start(engine, &read(options, "options")?)? };
        // SAFETY: as above.
        unsafe { give(replay_out, tidewire_replay_t(handle)) };
        Ok(())
    };
    // SAFETY: NULL or writable, by contract.
    unsafe { entry(err, body) }
}

/// Finds a replay that is under way, also one of an earlier run.
///
/// `replay_out`: set to it, or to NULL if it fails.
///
/// Fails with `TIDEWIRE_NOT_FOUND` if there is none of the name, `_INVALID_ARGUMENT` or `_WRONG_PROCESS`.
///
/// # Safety
/// The pointers are NULL or as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidewire_replay_find(
    engine: *const tidewire_engine_t,
    replay: tidewire_bytes_t,
    replay_out: *mut *mut tidewire_replay_t,
    err: *mut *mut tidewire_error_t,
) -> tidewire_result_t {
    let body = || {
        // SAFETY: NULL or writable, by contract.
        unsafe { none(replay_out, "replay_out")? };
        // SAFETY: NULL or open, by contract.
        let engine = unsafe { engine_ref(engine)? };
        // SAFETY: as described, by contract.
        let name = unsafe { name(replay, "replay")? };
        let found = engine.find_replay(name)?;
        // SAFETY: as above.
        unsafe { give(replay_out, tidewire_replay_t(found)) };
        Ok(())
    };
    // SAFETY: NULL or writable, by contract.
    unsafe { entry(err, body) }
}

/// Says again where a replay goes that waits for its destination.
///
/// `replay`: its name.
/// `destination`: as `tidewire_destination_put` takes it.
///
/// Fails with `TIDEWIRE_NOT_FOUND`, `_INVALID_CONFIG`, `_INVALID_ARGUMENT`, `_CLOSED` or `_WRONG_PROCESS`.
///
/// # Safety
/// The pointers are NULL or as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidewire_replay_resume(
    engine: *const tidewire_engine_t,
    replay: tidewire_bytes_t,
    destination: tidewire_bytes_t,
    err: *mut *mut tidewire_error_t,
) -> tidewire_result_t {
    let body = || {
        // SAFETY: NULL or open, by contract.
        let engine = unsafe { engine_ref(engine)? };
        // SAFETY: as described, by contract.
        let (name, text) = unsafe {
            (name(replay, "replay")?, destination.text(ErrorKind::InvalidConfig, "destination", TEXT_BYTES_MAX)?)
        };
        engine.resume_replay_text(name, text)
    };
    // SAFETY: NULL or writable, by contract.
    unsafe { entry(err, body) }
}

/// The replays that are under way, as a JSON list of what `tidewire_replay_json` tells of each.
///
/// # Safety
/// The pointers are NULL or as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidewire_replays_json(
    engine: *const tidewire_engine_t,
    json_out: *mut *mut c_char,
    len_out: *mut usize,
    err: *mut *mut tidewire_error_t,
) -> tidewire_result_t {
    let body = || {
        // SAFETY: NULL or open, by contract.
        Ok(unsafe { engine_ref(engine)? }.replays_json()?.to_string())
    };
    // SAFETY: NULL or writable, by contract.
    unsafe { string(json_out, "json_out", len_out, err, body) }
}

/// How far a replay is: a JSON object with `name`, `state` (`running`, `waiting`, `done`, `cancelled` or `failed`), `read`
/// (how much of the log, from 0 to 1), `found`, `delivered`, `dead_lettered`, `retried`, `missing` and `last_error`. Counts
/// are of this run of the engine. Later versions may add members.
///
/// # Safety
/// The pointers are NULL or as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidewire_replay_json(
    replay: *const tidewire_replay_t,
    json_out: *mut *mut c_char,
    len_out: *mut usize,
    err: *mut *mut tidewire_error_t,
) -> tidewire_result_t {
    let body = || {
        // SAFETY: NULL or not freed, by contract.
        Ok(unsafe { replay_ref(replay)? }.json()?.to_string())
    };
    // SAFETY: NULL or writable, by contract.
    unsafe { string(json_out, "json_out", len_out, err, body) }
}

/// Waits until a replay has ended.
///
/// Fails with `TIDEWIRE_TIMEOUT`, also for one that waits for a destination; `_CLOSED` if the engine closes first (it goes on
/// when it is opened again); `_INVALID_ARGUMENT`, `_WRONG_PROCESS`. That it was cancelled or failed is told by
/// `tidewire_replay_json`.
///
/// # Safety
/// The pointers are NULL or as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidewire_replay_wait(
    replay: *const tidewire_replay_t,
    timeout_ms: u64,
    err: *mut *mut tidewire_error_t,
) -> tidewire_result_t {
    // SAFETY: NULL or not freed, by contract.
    let body = || unsafe { replay_ref(replay)? }.wait(milliseconds(timeout_ms)).map(drop);
    // SAFETY: NULL or writable, by contract.
    unsafe { entry(err, body) }
}

/// Ends a replay before it is through: what is on its way may still arrive, the rest is not sent. Does nothing to one that
/// has ended.
///
/// Fails with `TIDEWIRE_IO` and the like if it cannot be written down (then the replay goes on when the engine is opened
/// again), `_INVALID_ARGUMENT`, `_WRONG_PROCESS`.
///
/// # Safety
/// The pointers are NULL or as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidewire_replay_cancel(
    replay: *const tidewire_replay_t,
    err: *mut *mut tidewire_error_t,
) -> tidewire_result_t {
    // SAFETY: NULL or not freed, by contract.
    let body = || unsafe { replay_ref(replay)? }.cancel();
    // SAFETY: NULL or writable, by contract.
    unsafe { entry(err, body) }
}

/// Frees what a replay is held by; the replay goes on.
///
/// `replay`: the address of the pointer, which is set to NULL. NULL, and the address of NULL, are allowed and do nothing. No
/// other call with it may be running or follow.
///
/// # Safety
/// `replay` is NULL or as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidewire_replay_free(replay: *mut *mut tidewire_replay_t) {
    // SAFETY: as described, by contract.
    unsafe { free(replay) }
}

/// # Safety
/// `replay` is NULL or not freed for `'a`.
unsafe fn replay_ref<'a>(replay: *const tidewire_replay_t) -> Result<&'a AnyReplay> {
    // SAFETY: as for this function.
    unsafe { held(replay, "replay") }.map(|r| &r.0)
}

/// # Safety
/// The fields are as described.
unsafe fn start(engine: &AnyEngine, o: &tidewire_replay_options_t) -> Result<AnyReplay> {
    // SAFETY: as for this function.
    let (destination, one_off) = unsafe {
        (name(o.destination, "destination")?, o.one_off.text(ErrorKind::InvalidConfig, "one_off", TEXT_BYTES_MAX)?)
    };
    if o.reserved != 0 {
        return Err(crate::event::unknown("reserved", o.reserved, "set it to 0"));
    }
    // SAFETY: as for this function.
    let (replay, bucket) = unsafe { (name(o.name, "name")?, name(o.bucket, "bucket")?) };
    // SAFETY: NULL or not freed, by contract.
    let filter = unsafe { event_filter(bucket, o.filter)? };
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let from = if o.from_ns > 0 { ReadFrom::Time(o.from_ns) } else { ReadFrom::Beginning };
    let until_ns = (o.until_ns > 0).then_some(o.until_ns);
    let rate_max = (o.rate_max > 0).then_some(o.rate_max);
    engine.replay(some(replay), some(destination), some(one_off), &from, until_ns, &filter, rate_max)
}
