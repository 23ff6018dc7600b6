//! Destinations while an engine runs.

use std::ffi::c_char;

use engine::rule::Backlog;
use engine::{ErrorKind, Result};

use crate::args::tidewire_bytes_t;
use crate::engine_handle::{engine_ref, milliseconds, tidewire_engine_t};
use crate::error::{entry, string, tidewire_error_t};
use crate::event::unknown;
use crate::numbers::tidewire_backlog_t as backlog;
use crate::raw::{tidewire_backlog_t, tidewire_result_t};
use crate::rules::{TEXT_BYTES_MAX, expected, name, tell};

/// Puts one destination, new or in the place of the one of its name. It is kept in the data directory with the secrets that
/// are given as text, in files that only their owner can read, unless the configuration says `engine.rules = "host"`.
///
/// `destination`: one `[[destination]]` as the configuration has it, or its table as a JSON object:
/// `{"name": "d", "type": "webhook", "url": "https://example.com/hook"}`. Paths in it are relative to the current directory.
/// `expect`: the version that it must have now, `TIDEWIRE_EXPECT_ANYTHING` or `TIDEWIRE_EXPECT_ABSENT`.
/// `waiting`: what becomes of what waits for it, if its settings are others now.
/// `move_to`: the destination to move that to, with `TIDEWIRE_BACKLOG_MOVE`; empty otherwise.
/// `version_out`: set to its new version; may be NULL.
///
/// Fails with `TIDEWIRE_INVALID_CONFIG` if it is wrong, or a rule does not fit it; `_CONFLICT` if `expect` does not hold, or
/// the configuration has one of its name; `_NOT_FOUND` if there is nothing to move to; `_IO` and the like if it cannot be
/// stored; `_CLOSED`, `_WRONG_PROCESS`, `_INVALID_ARGUMENT`. Then nothing has changed.
///
/// # Safety
/// The pointers are NULL or as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidewire_destination_put(
    engine: *const tidewire_engine_t,
    destination: tidewire_bytes_t,
    expect: u64,
    waiting: tidewire_backlog_t,
    move_to: tidewire_bytes_t,
    version_out: *mut u64,
    err: *mut *mut tidewire_error_t,
) -> tidewire_result_t {
    let body = || {
        // SAFETY: NULL or open, by contract.
        let engine = unsafe { engine_ref(engine)? };
        // SAFETY: as described, by contract.
        let (text, backlog) = unsafe {
            (destination.text(ErrorKind::InvalidConfig, "destination", TEXT_BYTES_MAX)?, backlog_of(waiting, move_to)?)
        };
        let version = engine.put_destination_text(text, expected(expect), &backlog)?;
        // SAFETY: NULL or writable, by contract.
        unsafe { tell(version_out, version) };
        Ok(())
    };
    // SAFETY: NULL or writable, by contract.
    unsafe { entry(err, body) }
}

/// Deletes a destination that was put.
///
/// `waiting`, `move_to`: what becomes of what waits for it; that may take longer than this run.
///
/// Fails with `TIDEWIRE_NOT_FOUND` if there is none that was put; `_CONFLICT` if `expect` does not hold, or rules that were
/// put send to it; otherwise as `tidewire_destination_put`.
///
/// # Safety
/// The pointers are NULL or as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidewire_destination_delete(
    engine: *const tidewire_engine_t,
    destination: tidewire_bytes_t,
    expect: u64,
    waiting: tidewire_backlog_t,
    move_to: tidewire_bytes_t,
    err: *mut *mut tidewire_error_t,
) -> tidewire_result_t {
    let body = || {
        // SAFETY: NULL or open, by contract.
        let engine = unsafe { engine_ref(engine)? };
        // SAFETY: as described, by contract.
        let (destination, backlog) = unsafe { (name(destination, "destination")?, backlog_of(waiting, move_to)?) };
        engine.delete_destination(destination, expected(expect), &backlog)
    };
    // SAFETY: NULL or writable, by contract.
    unsafe { entry(err, body) }
}

/// Sends a destination nothing until it is resumed; its events wait. It stays so through restarts, from a second after this
/// at the latest.
///
/// Fails with `TIDEWIRE_NOT_FOUND`, `_INVALID_ARGUMENT` or `_WRONG_PROCESS`.
///
/// # Safety
/// The pointers are NULL or as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidewire_destination_suspend(
    engine: *const tidewire_engine_t,
    destination: tidewire_bytes_t,
    err: *mut *mut tidewire_error_t,
) -> tidewire_result_t {
    // SAFETY: as for this function.
    unsafe { order(engine, destination, err, |engine, name| engine.suspend_destination(name)) }
}

/// Sends to a destination again, at once, whatever was in the way: it was suspended or disabled, or is left alone because it
/// failed.
///
/// Fails as `tidewire_destination_suspend`.
///
/// # Safety
/// The pointers are NULL or as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidewire_destination_resume(
    engine: *const tidewire_engine_t,
    destination: tidewire_bytes_t,
    err: *mut *mut tidewire_error_t,
) -> tidewire_result_t {
    // SAFETY: as for this function.
    unsafe { order(engine, destination, err, |engine, name| engine.resume_destination(name)) }
}

/// Vouches for a destination that is pending: its endpoints count as having agreed to be sent events. Of one that is not
/// pending nothing changes.
///
/// `per_minute`: to so many requests per minute; 0 for as many as there are.
///
/// Fails as `tidewire_destination_suspend`.
///
/// # Safety
/// The pointers are NULL or as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidewire_destination_confirm(
    engine: *const tidewire_engine_t,
    destination: tidewire_bytes_t,
    per_minute: u32,
    err: *mut *mut tidewire_error_t,
) -> tidewire_result_t {
    let granted = (per_minute > 0).then_some(per_minute);
    // SAFETY: as for this function.
    unsafe { order(engine, destination, err, |engine, name| engine.confirm_destination(name, granted)) }
}

/// Whether a destination gets anything, why not, its endpoints, its certificates, and its last attempts that failed, as a
/// JSON object: what `tidewire destination show --json` prints. Later versions may add members.
///
/// `json_out`: set to NUL-terminated UTF-8, or to NULL if the call fails. Free it with `tidewire_string_free`.
/// `len_out`: set to its length in bytes without the NUL; may be NULL.
///
/// Fails as `tidewire_destination_suspend`.
///
/// # Safety
/// The pointers are NULL or as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidewire_destination_json(
    engine: *const tidewire_engine_t,
    destination: tidewire_bytes_t,
    json_out: *mut *mut c_char,
    len_out: *mut usize,
    err: *mut *mut tidewire_error_t,
) -> tidewire_result_t {
    let body = || {
        // SAFETY: NULL or open, by contract.
        let engine = unsafe { engine_ref(engine)? };
        // SAFETY: as described, by contract.
        Ok(engine.destination_json(unsafe { name(destination, "destination")? })?.to_string())
    };
    // SAFETY: NULL or writable, by contract.
    unsafe { string(json_out, "json_out", len_out, err, body) }
}

/// All destinations, also those that are not in force, as a JSON list of objects with `name`, `version`, `owner`
/// (`configuration` or `callers`) and `inactive` (why it is not in force, or null). Settings are not told, for they may be
/// secret. Later versions may add members.
///
/// # Safety
/// The pointers are NULL or as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidewire_destinations_json(
    engine: *const tidewire_engine_t,
    json_out: *mut *mut c_char,
    len_out: *mut usize,
    err: *mut *mut tidewire_error_t,
) -> tidewire_result_t {
    let body = || {
        // SAFETY: NULL or open, by contract.
        let engine = unsafe { engine_ref(engine)? };
        Ok(engine.destinations_json()?.to_string())
    };
    // SAFETY: NULL or writable, by contract.
    unsafe { string(json_out, "json_out", len_out, err, body) }
}

/// Sends a destination one event of its own (`s3:TestEvent`), apart from everything else that is on its way, and tells step
/// by step what happened. Blocks for as long as the destination's `timeout` at most.
///
/// `json_out`: set to a JSON object with `ok`, `failure` (why it did not take the event, or null) and `steps`, a list of
/// objects with `what` and `took_us`. NULL if nothing could be tried. Free it with `tidewire_string_free`.
/// `len_out`: set to its length in bytes without the NUL; may be NULL.
///
/// Fails with `TIDEWIRE_NOT_FOUND`, `_INVALID_CONFIG` or `_IO` if a file of its settings cannot be used,
/// `_INVALID_ARGUMENT` or `_WRONG_PROCESS`. That it does not take the event is no failure of the call.
///
/// # Safety
/// The pointers are NULL or as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidewire_destination_test(
    engine: *const tidewire_engine_t,
    destination: tidewire_bytes_t,
    json_out: *mut *mut c_char,
    len_out: *mut usize,
    err: *mut *mut tidewire_error_t,
) -> tidewire_result_t {
    let body = || {
        // SAFETY: NULL or open, by contract.
        let engine = unsafe { engine_ref(engine)? };
        // SAFETY: as described, by contract.
        Ok(engine.destination_test_json(unsafe { name(destination, "destination")? })?.to_string())
    };
    // SAFETY: NULL or writable, by contract.
    unsafe { string(json_out, "json_out", len_out, err, body) }
}

/// Rotates a secret of a destination. What was used before stays valid for a while; receivers find signatures of both where
/// the scheme can send several. The new secret is kept in the data directory, and takes the place of the configured one until
/// the configuration has another. Blocks on files.
///
/// `secret`: the new one; empty to have one made.
/// `overlap_ms`: for how long the old one stays valid, in milliseconds, at most 7 days; 0 for the usual 24 hours.
/// `secret_out`: set to the new secret, NUL-terminated, or to NULL if the call fails; it is never shown again. Free it with
/// `tidewire_string_free`.
/// `len_out`: set to its length in bytes without the NUL; may be NULL.
///
/// Fails with `TIDEWIRE_NOT_FOUND`, `_INVALID_ARGUMENT` if the destination has no secret or the new one does not fit, `_IO`
/// and the like if it cannot be stored, `_WRONG_PROCESS`.
///
/// # Safety
/// The pointers are NULL or as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidewire_destination_rotate_secret(
    engine: *const tidewire_engine_t,
    destination: tidewire_bytes_t,
    secret: tidewire_bytes_t,
    overlap_ms: u64,
    secret_out: *mut *mut c_char,
    len_out: *mut usize,
    err: *mut *mut tidewire_error_t,
) -> tidewire_result_t {
    let body = || {
        // SAFETY: NULL or open, by contract.
        let engine = unsafe { engine_ref(engine)? };
        // SAFETY: as described, by contract.
        let (name, given) = unsafe { (name(destination, "destination")?, name(secret, "secret")?) };
        let given = (!given.is_empty()).then(|| given.to_owned());
        engine.rotate_secret(name, given, (overlap_ms > 0).then(|| milliseconds(overlap_ms)))
    };
    // SAFETY: NULL or writable, by contract.
    unsafe { string(secret_out, "secret_out", len_out, err, body) }
}

/// # Safety
/// As for the functions that call it.
unsafe fn order(
    engine: *const tidewire_engine_t,
    destination: tidewire_bytes_t,
    err: *mut *mut tidewire_error_t,
    give: impl FnOnce(&engine::AnyEngine, &str) -> Result<()>,
) -> tidewire_result_t {
    let body = || {
        // SAFETY: NULL or open, by contract.
        let engine = unsafe { engine_ref(engine)? };
        engine.check_process()?;
        // SAFETY: as described, by contract.
        give(engine, unsafe { name(destination, "destination")? })
    };
    // SAFETY: NULL or writable, by contract.
    unsafe { entry(err, body) }
}

/// # Safety
/// `move_to` is as described.
unsafe fn backlog_of(waiting: tidewire_backlog_t, move_to: tidewire_bytes_t) -> Result<Backlog> {
    // SAFETY: as for this function.
    let to = unsafe { name(move_to, "move_to")? };
    let moves = waiting == backlog::TIDEWIRE_BACKLOG_MOVE as u32;
    if moves == to.is_empty() {
        let what = if moves { "there is no move_to" } else { "there is a move_to, and nothing moves" };
        return Err(engine::Error::new(ErrorKind::InvalidArgument, what)
            .at("move_to")
            .remedy("give the name of a destination with TIDEWIRE_BACKLOG_MOVE, and only then"));
    }
    match waiting {
        n if n == backlog::TIDEWIRE_BACKLOG_KEEP as u32 => Ok(Backlog::Keep),
        n if n == backlog::TIDEWIRE_BACKLOG_DRAIN as u32 => Ok(Backlog::Drain),
        n if n == backlog::TIDEWIRE_BACKLOG_DEAD_LETTER as u32 => Ok(Backlog::DeadLetter),
        n if n == backlog::TIDEWIRE_BACKLOG_PURGE as u32 => Ok(Backlog::Purge),
        _ if moves => Ok(Backlog::MoveTo(to.to_owned())),
        n => Err(unknown("waiting", n, "use a TIDEWIRE_BACKLOG_ constant")),
    }
}
