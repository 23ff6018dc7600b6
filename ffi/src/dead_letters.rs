//! Dead letters: exported, redriven, purged.

use std::ffi::{c_int, c_void};
use std::io::{self, Write};

use engine::{DeadLetterFilter, DeadLetterId, Error, ErrorKind, RedriveOptions, Result};

use crate::args::{Versioned, first_size, null, read, tidewire_bytes_t};
use crate::engine_handle::{engine_ref, milliseconds, tidewire_engine_t};
use crate::error::{entry, tidewire_error_t};
use crate::raw::tidewire_result_t;
use crate::rules::{TEXT_BYTES_MAX, name, tell};

/// Which dead letters are meant: those for which everything that is set holds. Initialise with
/// `TIDEWIRE_DEAD_LETTER_FILTER_INIT`, which means all. For `struct_size` see `tidewire_options_t`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct tidewire_dead_letter_filter_t {
    /// `sizeof(tidewire_dead_letter_filter_t)`.
    pub struct_size: usize,
    /// Only these: ids as the export has them (`0-17`), with spaces between.
    pub ids: tidewire_bytes_t,
    /// Of this destination, which need not be configured any more.
    pub destination: tidewire_bytes_t,
    /// Of this bucket.
    pub bucket: tidewire_bytes_t,
    /// Of keys that begin so; any bytes.
    pub key_prefix: tidewire_bytes_t,
    /// With this text in the reason.
    pub reason: tidewire_bytes_t,
    /// Given up at this time or later, in nanoseconds since the Unix epoch; 0 means whenever.
    pub from_ns: u64,
    /// Given up before this time, in nanoseconds since the Unix epoch; 0 means whenever.
    pub before_ns: u64,
}

// SAFETY: `repr(C)`, the size is first, pointers and integers only.
unsafe impl Versioned for tidewire_dead_letter_filter_t {
    const INIT: &'static str = "TIDEWIRE_DEAD_LETTER_FILTER_INIT";
    const FIRST_SIZE: usize = first_size!(tidewire_dead_letter_filter_t, before_ns: u64);
}

/// Called with a piece of what is written, `len` bytes at `data`, which may be read during the call only. 0 goes on;
/// anything else ends the writing.
pub type tidewire_write_callback_t =
    Option<unsafe extern "C" fn(callback_data: *mut c_void, data: *const u8, len: usize) -> c_int>;

/// Writes dead letters as lines of JSON, by shard and number: what is known of each, with its event and the record as the
/// destination would have got it, as `tidewire dlq export` does. Reads files on the calling thread; the engine is not
/// disturbed.
///
/// `filter`: NULL for all.
/// `callback`: gets the lines, in pieces of any length.
/// `count_out`: set to how many there are; may be NULL.
///
/// Fails with `TIDEWIRE_NOT_FOUND` if the data directory never had the filter's destination; `_IO` and the like if a file
/// cannot be read, or the callback ended it; `_INVALID_ARGUMENT`, `_WRONG_PROCESS`.
///
/// # Safety
/// The pointers are NULL or as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidewire_dead_letters_export(
    engine: *const tidewire_engine_t,
    filter: *const tidewire_dead_letter_filter_t,
    callback: tidewire_write_callback_t,
    callback_data: *mut c_void,
    count_out: *mut u64,
    err: *mut *mut tidewire_error_t,
) -> tidewire_result_t {
    let body = || {
        // SAFETY: NULL or open, by contract.
        let engine = unsafe { engine_ref(engine)? };
        // SAFETY: NULL or as described, by contract.
        let filter = unsafe { filter_of(filter)? };
        let callback = callback.ok_or_else(|| null("callback"))?;
        let mut out = io::BufWriter::new(Host { callback, callback_data });
        let count = engine.export_dead_letters(&filter, &mut out)?;
        out.flush().map_err(|e| Error::io("cannot write dead letters", &e))?;
        // SAFETY: NULL or writable, by contract.
        unsafe { tell(count_out, count) };
        Ok(())
    };
    // SAFETY: NULL or writable, by contract.
    unsafe { entry(err, body) }
}

/// Puts dead letters back into the log, to be delivered as the same events: their ids and their places in the order of their
/// keys stay. A letter is removed once its event is durable in the log. Letters that come meanwhile are not redriven, so that
/// it ends even if everything fails again.
///
/// `filter`: NULL for all.
/// `to`: another destination than the one they were for; empty for that one.
/// `per_second`: the most events per second; 0 for as many as there are.
/// `timeout_ms`: how long to wait.
/// `redriven_out`, `left_out`: set to how many were redriven, and how many were not because their destination is not
/// configured or the like; may be NULL.
///
/// Fails with `TIDEWIRE_TIMEOUT` if it is not through (it is stopped then; what was redriven stays so, and the outputs
/// tell), `_NOT_FOUND` if the destination is not configured, `_CLOSED`, `_INVALID_ARGUMENT`, `_WRONG_PROCESS`.
///
/// # Safety
/// The pointers are NULL or as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidewire_dead_letters_redrive(
    engine: *const tidewire_engine_t,
    filter: *const tidewire_dead_letter_filter_t,
    to: tidewire_bytes_t,
    per_second: u32,
    timeout_ms: u64,
    redriven_out: *mut u64,
    left_out: *mut u64,
    err: *mut *mut tidewire_error_t,
) -> tidewire_result_t {
    let told = |redriven: u64, left: u64| {
        // SAFETY: NULL or writable, by contract.
        unsafe {
            tell(redriven_out, redriven);
            tell(left_out, left);
        }
    };
    let body = || {
        told(0, 0);
        // SAFETY: NULL or open, by contract.
        let engine = unsafe { engine_ref(engine)? };
        // SAFETY: NULL or as described, by contract.
        let (filter, to) = unsafe { (filter_of(filter)?, name(to, "to")?) };
        let mut options = RedriveOptions::default();
        options.to = (!to.is_empty()).then(|| to.to_owned());
        options.per_second = (per_second > 0).then_some(per_second);
        let (reached, result) = engine.redrive(&filter, &options, milliseconds(timeout_ms))?;
        told(reached.redriven, reached.left);
        result
    };
    // SAFETY: NULL or writable, by contract.
    unsafe { entry(err, body) }
}

/// Removes dead letters for good.
///
/// `filter`: NULL for all.
/// `timeout_ms`: how long to wait.
/// `purged_out`: set to how many there were, once that is durable; may be NULL.
///
/// Fails with `TIDEWIRE_TIMEOUT` if it is not through (it goes on), `_NOT_FOUND` if the data directory never had the filter's
/// destination, `_IO` and the like, `_CLOSED`, `_INVALID_ARGUMENT`, `_WRONG_PROCESS`.
///
/// # Safety
/// The pointers are NULL or as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidewire_dead_letters_purge(
    engine: *const tidewire_engine_t,
    filter: *const tidewire_dead_letter_filter_t,
    timeout_ms: u64,
    purged_out: *mut u64,
    err: *mut *mut tidewire_error_t,
) -> tidewire_result_t {
    let body = || {
        // SAFETY: NULL or writable, by contract.
        unsafe { tell(purged_out, 0) };
        // SAFETY: NULL or open, by contract.
        let engine = unsafe { engine_ref(engine)? };
        // SAFETY: NULL or as described, by contract.
        let filter = unsafe { filter_of(filter)? };
        let purged = engine.purge_dead_letters(&filter, milliseconds(timeout_ms))?;
        // SAFETY: as above.
        unsafe { tell(purged_out, purged) };
        Ok(())
    };
    // SAFETY: NULL or writable, by contract.
    unsafe { entry(err, body) }
}

/// # Safety
/// `filter` is NULL or a struct of its size whose fields are as described.
unsafe fn filter_of(filter: *const tidewire_dead_letter_filter_t) -> Result<DeadLetterFilter> {
    let mut wanted = DeadLetterFilter::default();
    if filter.is_null() {
        return Ok(wanted);
    }
    // SAFETY: as for this function.
    let f = unsafe { read(filter, "filter")? };
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    // SAFETY: as for this function.
    unsafe {
        let ids = f.ids.text(ErrorKind::InvalidArgument, "ids", TEXT_BYTES_MAX)?;
        wanted.ids = ids.split_ascii_whitespace().map(str::parse::<DeadLetterId>).collect::<Result<_>>()?;
        if wanted.ids.is_empty() && !ids.is_empty() {
            // Nothing but spaces would mean all of them.
            return Err(Error::new(ErrorKind::InvalidArgument, "there is no id in ids")
                .at("ids")
                .remedy("name at least one, or leave it empty"));
        }
        wanted.destination = some(name(f.destination, "destination")?);
        wanted.bucket = some(name(f.bucket, "bucket")?);
        wanted.key_prefix = f.key_prefix.get(ErrorKind::InvalidArgument, "key_prefix", TEXT_BYTES_MAX)?.to_vec();
        wanted.reason = some(name(f.reason, "reason")?);
    }
    wanted.from_ns = (f.from_ns > 0).then_some(f.from_ns);
    wanted.before_ns = (f.before_ns > 0).then_some(f.before_ns);
    Ok(wanted)
}

/// Writes to the host.
struct Host {
    callback: unsafe extern "C" fn(*mut c_void, *const u8, usize) -> c_int,
    callback_data: *mut c_void,
}

impl Write for Host {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // SAFETY: the bytes live; the host promises the rest.
        match unsafe { (self.callback)(self.callback_data, bytes.as_ptr(), bytes.len()) } {
            0 => Ok(bytes.len()),
            _ => Err(io::Error::other("the callback ended it")),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
