//! Destinations that the host serves itself: a function of its own gets their batches.

use std::ffi::{CString, c_char, c_void};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use engine::custom::{Batch, Handler};
use engine::{Error, ErrorKind, Result};

use crate::args::{Versioned, check_count, fill, first_size, null, read, tidewire_bytes_t, tidewire_pair_t};
use crate::engine_handle::{engine_ref, milliseconds, tidewire_engine_t};
use crate::error::{barrier, entry, tidewire_error_t};
use crate::handle::{free, held, take};
use crate::raw::tidewire_result_t;
use crate::rules::name;

/// Some events of a destination that the host serves itself, with the duty to say what became of them. A handler gets it,
/// and answers with one of `tidewire_batch_accept`, `_accept_but`, `_retry`, `_retry_after` and `_refuse`, then or later,
/// from any thread; or it lets go with `tidewire_batch_free`. An answer that does not come within the destination's `timeout` counts as none: the events are tried
/// again, and what is said later changes nothing, but still frees the batch.
///
/// Functions that take a `const tidewire_batch_t *` may be called from any threads at the same time, until it is answered.
/// What they give lives as long.
pub struct tidewire_batch_t {
    batch: Batch,
    ids: Vec<CString>,
}

/// Called with one batch after the other, by a thread that belongs to the handler. The batch is the host's to answer. While
/// it runs, this handler gets no other. It may call this library, and close the engine. It must not throw or end its thread.
pub type tidewire_handler_callback_t =
    Option<unsafe extern "C" fn(callback_data: *mut c_void, batch: *mut tidewire_batch_t)>;

/// Called when what was handed to callbacks is no longer needed.
pub type tidewire_release_callback_t = Option<unsafe extern "C" fn(callback_data: *mut c_void)>;

/// What serves destinations. Initialise with `TIDEWIRE_HANDLER_INIT`. For `struct_size` see `tidewire_options_t`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct tidewire_handler_t {
    /// `sizeof(tidewire_handler_t)`.
    pub struct_size: usize,
    /// Called with each batch.
    pub callback: tidewire_handler_callback_t,
    /// Handed to the callback.
    pub callback_data: *mut c_void,
    /// Called once, when the callback will not be called any more, with the callback's data; may be NULL. If the handler could
    /// not be set it is not called.
    pub release: tidewire_release_callback_t,
}

// SAFETY: `repr(C)`, the size is first, pointers and integers only.
unsafe impl Versioned for tidewire_handler_t {
    const INIT: &'static str = "TIDEWIRE_HANDLER_INIT";
    const FIRST_SIZE: usize = first_size!(tidewire_handler_t, release: tidewire_release_callback_t);
}

/// What a batch is. Initialise with `TIDEWIRE_BATCH_INFO_INIT`. For `struct_size` see `tidewire_options_t`; a library fills
/// as much of an older program's struct as there is.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct tidewire_batch_info_t {
    /// `sizeof(tidewire_batch_info_t)`.
    pub struct_size: usize,
    /// The name of the destination.
    pub destination: tidewire_bytes_t,
    /// The media type of the body.
    pub content_type: tidewire_bytes_t,
    /// How many events it has, at least 1.
    pub events: usize,
    /// How many headers it has.
    pub headers: usize,
    /// How many pieces the body is in.
    pub pieces: usize,
    /// How many bytes the body has.
    pub body_bytes: usize,
    /// How long an answer still counts, in milliseconds; 0 if no longer.
    pub left_ms: u64,
}

// SAFETY: `repr(C)`, the size is first, pointers and integers only.
unsafe impl Versioned for tidewire_batch_info_t {
    const INIT: &'static str = "TIDEWIRE_BATCH_INFO_INIT";
    const FIRST_SIZE: usize = first_size!(tidewire_batch_info_t, left_ms: u64);
}

/// One event of a batch. Initialise with `TIDEWIRE_BATCH_EVENT_INIT`. For `struct_size` see `tidewire_options_t`; a library
/// fills as much of an older program's struct as there is.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct tidewire_batch_event_t {
    /// `sizeof(tidewire_batch_event_t)`.
    pub struct_size: usize,
    /// Its id, NUL-terminated. If the event comes again, it has the same.
    pub id: *const c_char,
    /// Its record, as the destination's profile and format write it.
    pub record: tidewire_bytes_t,
}

// SAFETY: `repr(C)`, the size is first, pointers and integers only.
unsafe impl Versioned for tidewire_batch_event_t {
    const INIT: &'static str = "TIDEWIRE_BATCH_EVENT_INIT";
    const FIRST_SIZE: usize = first_size!(tidewire_batch_event_t, record: tidewire_bytes_t);
}

/// Sets what serves the destinations with `type = "custom"` whose `handler`, or else whose name, is `handler_name`. It takes
/// the place of an earlier one, which gets no more batches; a call of that one may still be under way when this returns, and
/// its batches may still be answered. Events wait for a handler that is not there yet.
///
/// A handler has a thread of its own, so one that blocks holds up its own destinations and nothing else. It may keep batches:
/// as many may be unanswered as the destinations' `concurrency` allows. Closing the engine ends the handlers, and waits for a
/// call under way until its timeout.
///
/// `handler`: NULL to take the one there is away.
///
/// Fails with `TIDEWIRE_INVALID_ARGUMENT`, `_CLOSED`, `_WRONG_PROCESS` or, if there are no threads left, `_IO`.
///
/// # Safety
/// The pointers are NULL or as described. The callback's data stays usable until `release` is called, or else for good.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidewire_handler_set(
    engine: *const tidewire_engine_t,
    handler_name: tidewire_bytes_t,
    handler: *const tidewire_handler_t,
    err: *mut *mut tidewire_error_t,
) -> tidewire_result_t {
    let body = || {
        // SAFETY: NULL or open, by contract.
        let engine = unsafe { engine_ref(engine)? };
        // SAFETY: as described, by contract.
        let handler_name = unsafe { name(handler_name, "handler_name")? };
        if handler.is_null() {
            return engine.set_handler(handler_name, None);
        }
        // SAFETY: a struct of its size, by contract.
        let handler = unsafe { read(handler, "handler")? };
        let Some(callback) = handler.callback else { return Err(null("handler.callback")) };
        let host = Arc::new(Host {
            callback,
            data: handler.callback_data,
            release: handler.release,
            refused: AtomicBool::new(false),
        });
        let set = engine.set_handler(handler_name, Some(host.clone()));
        if set.is_err() {
            host.refused.store(true, Ordering::Relaxed);
        }
        set
    };
    // SAFETY: NULL or writable, by contract.
    unsafe { entry(err, body) }
}

/// The callback of the host.
struct Host {
    callback: unsafe extern "C" fn(*mut c_void, *mut tidewire_batch_t),
    data: *mut c_void,
    release: tidewire_release_callback_t,
    /// The data are still the host's.
    refused: AtomicBool,
}

// SAFETY: the data are only handed to the callbacks, which the host has promised may be called from the handler's thread.
unsafe impl Send for Host {}
// SAFETY: as above.
unsafe impl Sync for Host {}

impl Handler for Host {
    fn deliver(&self, batch: Batch) {
        let ids = (0..batch.events()).filter_map(|n| CString::new(batch.id(n)?.to_string()).ok()).collect();
        let batch = Box::into_raw(Box::new(tidewire_batch_t { batch, ids }));
        // SAFETY: the host promises the rest.
        unsafe { (self.callback)(self.data, batch) };
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

/// Tells what a batch is.
///
/// Fails with `TIDEWIRE_INVALID_ARGUMENT`.
///
/// # Safety
/// The pointers are NULL or as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidewire_batch_info(
    batch: *const tidewire_batch_t,
    info_out: *mut tidewire_batch_info_t,
    err: *mut *mut tidewire_error_t,
) -> tidewire_result_t {
    let body = || {
        // SAFETY: NULL or not answered, by contract.
        let batch = unsafe { batch_ref(batch)? };
        let left = batch.deadline().saturating_duration_since(Instant::now());
        let info = tidewire_batch_info_t {
            struct_size: size_of::<tidewire_batch_info_t>(),
            destination: tidewire_bytes_t::of(batch.destination().as_bytes()),
            content_type: tidewire_bytes_t::of(batch.content_type().as_bytes()),
            events: batch.events(),
            headers: batch.headers().len(),
            pieces: batch.body().len(),
            body_bytes: batch.body().map(<[u8]>::len).sum(),
            left_ms: u64::try_from(left.as_millis()).unwrap_or(u64::MAX),
        };
        // SAFETY: NULL or a struct of its size, by contract.
        unsafe { fill(info_out, "info_out", &info) }
    };
    // SAFETY: NULL or writable, by contract.
    unsafe { entry(err, body) }
}

/// Gives one event of a batch.
///
/// `event`: which one, from 0 on.
///
/// Fails with `TIDEWIRE_INVALID_ARGUMENT`, also if there is no such event.
///
/// # Safety
/// The pointers are NULL or as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidewire_batch_event(
    batch: *const tidewire_batch_t,
    event: usize,
    event_out: *mut tidewire_batch_event_t,
    err: *mut *mut tidewire_error_t,
) -> tidewire_result_t {
    let body = || {
        // SAFETY: NULL or not answered, by contract.
        let this = unsafe { held(batch, "batch")? };
        let (Some(id), Some(record)) = (this.ids.get(event), this.batch.record(event)) else {
            return Err(beyond("event", event, this.batch.events(), "events"));
        };
        let event = tidewire_batch_event_t {
            struct_size: size_of::<tidewire_batch_event_t>(),
            id: id.as_ptr(),
            record: tidewire_bytes_t::of(record),
        };
        // SAFETY: NULL or a struct of its size, by contract.
        unsafe { fill(event_out, "event_out", &event) }
    };
    // SAFETY: NULL or writable, by contract.
    unsafe { entry(err, body) }
}

/// Gives one header of a batch. There are some where the destination's format puts parts of an event beside its record, as
/// CloudEvents in binary mode.
///
/// `header`: which one, from 0 on.
///
/// Fails with `TIDEWIRE_INVALID_ARGUMENT`, also if there is no such header.
///
/// # Safety
/// The pointers are NULL or as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidewire_batch_header(
    batch: *const tidewire_batch_t,
    header: usize,
    header_out: *mut tidewire_pair_t,
    err: *mut *mut tidewire_error_t,
) -> tidewire_result_t {
    let body = || {
        // SAFETY: NULL or not answered, by contract.
        let batch = unsafe { batch_ref(batch)? };
        if header_out.is_null() {
            return Err(null("header_out"));
        }
        let Some((name, value)) = batch.headers().get(header) else {
            return Err(beyond("header", header, batch.headers().len(), "headers"));
        };
        let pair = tidewire_pair_t {
            name: tidewire_bytes_t::of(name.as_bytes()),
            value: tidewire_bytes_t::of(value.as_bytes()),
        };
        // SAFETY: not NULL, so it may be written, by contract.
        unsafe { header_out.write_unaligned(pair) };
        Ok(())
    };
    // SAFETY: NULL or writable, by contract.
    unsafe { entry(err, body) }
}

/// Gives the body that a webhook would get, as pieces that make it one after the other. Nothing is copied; a
/// `tidewire_bytes_t` is laid out as a `struct iovec`.
///
/// `pieces_out`: filled with the first pieces, up to `max` of them.
/// `count_out`: set to how many there are; 0 if the call fails. There are `pieces` of `tidewire_batch_info` in all.
///
/// Fails with `TIDEWIRE_INVALID_ARGUMENT`.
///
/// # Safety
/// The pointers are NULL or as described; `pieces_out` has room for `max`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidewire_batch_body(
    batch: *const tidewire_batch_t,
    pieces_out: *mut tidewire_bytes_t,
    max: usize,
    count_out: *mut usize,
    err: *mut *mut tidewire_error_t,
) -> tidewire_result_t {
    let body = || {
        if count_out.is_null() {
            return Err(null("count_out"));
        }
        // SAFETY: may be written, by contract.
        unsafe { count_out.write_unaligned(0) };
        // SAFETY: NULL or not answered, by contract.
        let batch = unsafe { batch_ref(batch)? };
        if pieces_out.is_null() && max > 0 {
            return Err(null("pieces_out"));
        }
        let mut count = 0;
        for piece in batch.body().take(max) {
            // SAFETY: there is room for `max`, by contract.
            unsafe { pieces_out.add(count).write_unaligned(tidewire_bytes_t::of(piece)) };
            count += 1;
        }
        // SAFETY: as above.
        unsafe { count_out.write_unaligned(count) };
        Ok(())
    };
    // SAFETY: NULL or writable, by contract.
    unsafe { entry(err, body) }
}

/// Answers that everything was taken, and is the host's to keep. Frees the batch.
///
/// `batch`: the address of the pointer to the batch, which is set to NULL. NULL, and the address of NULL, are allowed and do
/// nothing, so that answering twice does no harm.
///
/// # Safety
/// `batch` is NULL or as described; no other call with this batch is running or follows.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidewire_batch_accept(batch: *mut *mut tidewire_batch_t) {
    // SAFETY: as described, by contract.
    unsafe { answer(batch, Batch::accept) };
}

/// Answers that everything was taken but for some events, which are tried again. Frees the batch.
///
/// `batch`: as for `tidewire_batch_accept`; if the call fails it stays as it is, to be answered.
/// `failed`: which events were not taken, from 0 on, in any order.
/// `failed_count`: how many those are; 0 accepts everything.
/// `reason`: why, for statistics and logs; may be empty.
///
/// Fails with `TIDEWIRE_INVALID_ARGUMENT`, also if there is no such event.
///
/// # Safety
/// The pointers are NULL or as described; no other call with this batch is running or follows.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidewire_batch_accept_but(
    batch: *mut *mut tidewire_batch_t,
    failed: *const usize,
    failed_count: usize,
    reason: tidewire_bytes_t,
    err: *mut *mut tidewire_error_t,
) -> tidewire_result_t {
    let body = || {
        // SAFETY: as described, by contract.
        let Some(events) = (unsafe { events_of(batch) }) else { return Ok(()) };
        check_count(failed_count, "failed")?;
        if failed.is_null() && failed_count > 0 {
            return Err(null("failed"));
        }
        // SAFETY: `failed_count` of them are readable, by contract.
        let failed: Vec<usize> = (0..failed_count).map(|n| unsafe { failed.add(n).read_unaligned() }).collect();
        if let Some(n) = failed.iter().find(|n| **n >= events) {
            return Err(beyond("failed", *n, events, "events"));
        }
        // SAFETY: as described, by contract.
        let reason = unsafe { name(reason, "reason")? };
        // SAFETY: as described, by contract.
        unsafe { answer(batch, |batch| batch.accept_but(&failed, reason)) };
        Ok(())
    };
    // SAFETY: NULL or writable, by contract.
    unsafe { entry(err, body) }
}

/// Answers that the events could not be taken now: they are tried again with the waits of the destination's `retry`, and it
/// counts as a failure for its breaker. Frees the batch.
///
/// `batch`, `reason`: as for `tidewire_batch_accept_but`.
///
/// Fails with `TIDEWIRE_INVALID_ARGUMENT`.
///
/// # Safety
/// As for `tidewire_batch_accept_but`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidewire_batch_retry(
    batch: *mut *mut tidewire_batch_t,
    reason: tidewire_bytes_t,
    err: *mut *mut tidewire_error_t,
) -> tidewire_result_t {
    // SAFETY: as for this function.
    unsafe { answer_because(batch, reason, err, Batch::retry) }
}

/// Answers that nothing more is to come for a while; then the events are tried again. It does not count as an attempt. Frees
/// the batch.
///
/// `batch`, `reason`: as for `tidewire_batch_accept_but`.
/// `wait_ms`: for how long, in milliseconds; at most what the destination's `retry` allows.
///
/// Fails with `TIDEWIRE_INVALID_ARGUMENT`.
///
/// # Safety
/// As for `tidewire_batch_accept_but`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidewire_batch_retry_after(
    batch: *mut *mut tidewire_batch_t,
    wait_ms: u64,
    reason: tidewire_bytes_t,
    err: *mut *mut tidewire_error_t,
) -> tidewire_result_t {
    // SAFETY: as for this function.
    unsafe { answer_because(batch, reason, err, |batch, reason| batch.retry_after(milliseconds(wait_ms), reason)) }
}

/// Answers that something in the batch will never be taken. It is tried again in parts, until what is refused alone is a dead
/// letter after the destination's `retry.poison_attempts`. Frees the batch.
///
/// `batch`, `reason`: as for `tidewire_batch_accept_but`.
///
/// Fails with `TIDEWIRE_INVALID_ARGUMENT`.
///
/// # Safety
/// As for `tidewire_batch_accept_but`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidewire_batch_refuse(
    batch: *mut *mut tidewire_batch_t,
    reason: tidewire_bytes_t,
    err: *mut *mut tidewire_error_t,
) -> tidewire_result_t {
    // SAFETY: as for this function.
    unsafe { answer_because(batch, reason, err, Batch::refuse) }
}

/// Lets go of a batch without an answer, and frees it: its events are tried again.
///
/// `batch`: as for `tidewire_batch_accept`.
///
/// # Safety
/// As for `tidewire_batch_accept`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidewire_batch_free(batch: *mut *mut tidewire_batch_t) {
    // SAFETY: as described, by contract.
    unsafe { free(batch) }
}

/// # Safety
/// As for [`tidewire_batch_retry`].
unsafe fn answer_because(
    batch: *mut *mut tidewire_batch_t,
    reason: tidewire_bytes_t,
    err: *mut *mut tidewire_error_t,
    give: impl FnOnce(Batch, &str),
) -> tidewire_result_t {
    let body = || {
        // SAFETY: as described, by contract.
        let reason = unsafe { name(reason, "reason")? };
        // SAFETY: as described, by contract.
        unsafe { answer(batch, |batch| give(batch, reason)) };
        Ok(())
    };
    // SAFETY: NULL or writable, by contract.
    unsafe { entry(err, body) }
}

/// Takes a batch that is there from its place, and answers it.
///
/// # Safety
/// `batch` is NULL, or may be read and written; then it points to NULL or to a batch that nobody else uses.
unsafe fn answer(batch: *mut *mut tidewire_batch_t, give: impl FnOnce(Batch)) {
    let _ = barrier(|| {
        // SAFETY: as for this function.
        if let Some(this) = unsafe { take(batch) } {
            give(this.batch);
        }
        Ok(())
    });
}

/// How many events a batch has that is there.
///
/// # Safety
/// As for [`answer`].
unsafe fn events_of(batch: *mut *mut tidewire_batch_t) -> Option<usize> {
    // SAFETY: as for this function.
    unsafe { batch.as_ref()?.as_ref() }.map(|this| this.batch.events())
}

/// # Safety
/// `batch` is NULL or not answered for `'a`.
unsafe fn batch_ref<'a>(batch: *const tidewire_batch_t) -> Result<&'a Batch> {
    // SAFETY: as for this function.
    Ok(unsafe { &held(batch, "batch")?.batch })
}

fn beyond(name: &str, n: usize, count: usize, what: &str) -> Error {
    Error::new(ErrorKind::InvalidArgument, format!("{name} is {n}, but the batch has {count} {what}"))
        .at(name.to_owned())
        .remedy("count from 0")
}
