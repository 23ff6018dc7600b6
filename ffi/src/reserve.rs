//! Reservations, and what a crash left of them.

use std::ffi::{c_char, c_void};
use std::mem::MaybeUninit;
use std::time::Duration;

use engine::event::EVENT_BYTES_MAX;
use engine::{
    CommitFields, CommitOptions, Error, ErrorKind, EventId, Intent, OnFull, Reservation, ReserveOptions, Reserved,
    ReservedBatch, Resolution, Result,
};

use crate::args::{Versioned, check_count, first_size, look, null, read, tidewire_bytes_t, tidewire_pair_t};
use crate::completions::{completions_ref, tidewire_completions_t};
use crate::engine_handle::{engine_ref, milliseconds, tidewire_engine_t};
use crate::error::{entry, tidewire_error_t};
use crate::event::{Fetch, Pairs, PairsOf, text, tidewire_event_t, unknown, with_events};
use crate::handle::{free, give, held, none};
use crate::numbers::tidewire_intent_t as intent;
use crate::publish::{options_of, tidewire_publish_options_t};
use crate::raw::{tidewire_intent_t, tidewire_result_t};

/// Space for one event, and the promise that its commit is not refused for want of it: made by `tidewire_reserve` before an
/// operation, committed or aborted after it, and freed with `tidewire_reservation_free`.
///
/// It may be used from any threads, also at the same time: one of a commit and an abort that race wins. It keeps the
/// engine's memory, but does not keep it from closing; a commit after that answers `TIDEWIRE_CLOSED`.
pub struct tidewire_reservation_t(Reservation);

/// How an event is reserved. Initialise with `TIDEWIRE_RESERVE_OPTIONS_INIT`. For `struct_size` see `tidewire_options_t`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct tidewire_reserve_options_t {
    /// `sizeof(tidewire_reserve_options_t)`.
    pub struct_size: usize,
    /// What of the reservation survives a crash.
    pub intent: tidewire_intent_t,
    /// Must be 0.
    pub reserved: u32,
    /// The most bytes that the event will have encoded, at most `engine.event_bytes_max`; 0 means what the event given has
    /// and 512 more.
    pub bytes_max: usize,
    /// How long to wait for space, in milliseconds; 0 means not at all.
    pub full_timeout_ms: u64,
    /// How long to wait for a durable intent to be synced, in milliseconds; 0 means 30000.
    pub ack_timeout_ms: u64,
}

// SAFETY: `repr(C)`, the size is first, integers only.
unsafe impl Versioned for tidewire_reserve_options_t {
    const INIT: &'static str = "TIDEWIRE_RESERVE_OPTIONS_INIT";
    const FIRST_SIZE: usize = first_size!(tidewire_reserve_options_t, ack_timeout_ms: u64);
}

/// What is known of an event only after the operation. Initialise with `TIDEWIRE_COMMIT_INIT`; what is left empty stays as
/// it was when the event was reserved. For `struct_size` see `tidewire_options_t`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct tidewire_commit_t {
    /// `sizeof(tidewire_commit_t)`.
    pub struct_size: usize,
    /// When it happened, in nanoseconds since the Unix epoch; 0 is the time given when it was reserved, or now if none was.
    pub time_ns: u64,
    /// The object's size in bytes, if `has_size` is not 0.
    pub size: u64,
    /// Not 0 if `size` is known.
    pub has_size: u8,
    /// Must be 0.
    pub reserved: [u8; 7],
    /// The entity tag, without quotes.
    pub etag: tidewire_bytes_t,
    /// The object's version.
    pub version_id: tidewire_bytes_t,
    /// The object's content type.
    pub content_type: tidewire_bytes_t,
    /// Data of the host or of the event type's schema: a JSON document.
    pub data: tidewire_bytes_t,
    /// User metadata, names without `x-amz-meta-`: `metadata_count` pairs.
    pub metadata: *const tidewire_pair_t,
    /// How many pairs, at most 65535.
    pub metadata_count: usize,
    /// Object tags: `tags_count` pairs.
    pub tags: *const tidewire_pair_t,
    /// How many pairs, at most 65535.
    pub tags_count: usize,
}

// SAFETY: `repr(C)`, the size is first, pointers and integers only.
unsafe impl Versioned for tidewire_commit_t {
    const INIT: &'static str = "TIDEWIRE_COMMIT_INIT";
    const FIRST_SIZE: usize = first_size!(tidewire_commit_t, tags_count: usize);
}

/// Bytes of a token, with the NUL at its end.
pub const TIDEWIRE_TOKEN_BYTES: usize = 39;

/// Called with a reservation that an earlier run left without an end: its token, NUL-terminated; when it was made, in
/// nanoseconds since the Unix epoch; and the event as it was given then. All of it may be read during the call only. It may
/// call `tidewire_resolve_commit` and `tidewire_resolve_abort`.
pub type tidewire_in_doubt_callback_t = Option<
    unsafe extern "C" fn(
        callback_data: *mut c_void,
        token: *const c_char,
        reserved_ns: u64,
        event: *const tidewire_event_t,
    ),
>;

/// Reserves space for the event of an operation that is about to begin. What can be refused is refused here, so that the
/// commit after the operation is not.
///
/// `event`: what is known before; at least its type, bucket and key.
/// `options`: NULL for the defaults.
/// `reservation_out`: set to the reservation, or to NULL if the call fails. It is also NULL if no rule wants such an event:
/// then there is nothing to commit, and `tidewire_commit` and `tidewire_abort` take NULL for that.
///
/// Fails with `TIDEWIRE_FULL` if there is no space, or too much of it is reserved (`engine.reserve_percent`), and with
/// `_INVALID_EVENT`, `_INVALID_ARGUMENT`, `_CLOSED`, `_WRONG_PROCESS`; with a durable intent also with `_TIMEOUT` and
/// `_LOG_FAILED`.
///
/// # Safety
/// The pointers are NULL or as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidewire_reserve(
    engine: *const tidewire_engine_t,
    event: *const tidewire_event_t,
    options: *const tidewire_reserve_options_t,
    reservation_out: *mut *mut tidewire_reservation_t,
    err: *mut *mut tidewire_error_t,
) -> tidewire_result_t {
    let body = || {
        // SAFETY: NULL or writable, by contract.
        unsafe { none(reservation_out, "reservation_out")? };
        // SAFETY: NULL or open, by contract.
        let engine = unsafe { engine_ref(engine)? };
        let mut space = MaybeUninit::uninit();
        // SAFETY: NULL or structs of their size that stay unchanged during this call, by contract.
        let (event, options) = unsafe { (look(event, "event", &mut space)?, reserve_options(options)?) };
        let (mut metadata, mut tags) = (Pairs::default(), Pairs::default());
        // SAFETY: the fields are as described and stay so during this call, by contract.
        let event = unsafe { event.view(Fetch::Never, &mut metadata, &mut tags)? };
        match engine.reserve(&event, &options)? {
            Reserved::Held(r) => {
                // SAFETY: as above.
                unsafe { give(reservation_out, tidewire_reservation_t(r)) };
                Ok(())
            }
            Reserved::NoMatch => Ok(()),
            Reserved::WouldBlock => Err(too_much()),
        }
    };
    // SAFETY: NULL or writable, by contract.
    unsafe { entry(err, body) }
}

/// The same for the events of an operation on several objects: there is space for all of them or for none. Durable intents
/// of one call are synced together.
///
/// `events`: `count` of them, all with the same `struct_size`.
/// `reservations_out`: `count` pointers, each set as `tidewire_reserve` does; all to NULL if the call fails.
///
/// # Safety
/// The pointers are NULL or as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidewire_reserve_batch(
    engine: *const tidewire_engine_t,
    events: *const tidewire_event_t,
    count: usize,
    options: *const tidewire_reserve_options_t,
    reservations_out: *mut *mut tidewire_reservation_t,
    err: *mut *mut tidewire_error_t,
) -> tidewire_result_t {
    let body = || {
        check_count(count, "events")?;
        if reservations_out.is_null() && count > 0 {
            return Err(null("reservations_out"));
        }
        for n in 0..count {
            // SAFETY: `count` may be written, by contract.
            unsafe { reservations_out.add(n).write_unaligned(std::ptr::null_mut()) };
        }
        // SAFETY: NULL or open, by contract.
        let engine = unsafe { engine_ref(engine)? };
        // SAFETY: NULL or a struct of its size, by contract.
        let options = unsafe { reserve_options(options)? };
        let held = |events: &[engine::Event<'_>]| match engine.reserve_batch(events, &options)? {
            ReservedBatch::Held(batch) => Ok(batch.into_items()),
            ReservedBatch::WouldBlock => Err(too_much()),
        };
        // SAFETY: as described, by contract.
        let items = unsafe { with_events(events, count, Fetch::Never, held)? };
        for (n, item) in items.into_iter().enumerate() {
            let item = item.map_or(std::ptr::null_mut(), handle);
            // SAFETY: as above.
            unsafe { reservations_out.add(n).write_unaligned(item) };
        }
        Ok(())
    };
    // SAFETY: NULL or writable, by contract.
    unsafe { entry(err, body) }
}

/// Commits a reservation: the operation came to be, and its event is accepted. To commit once more changes nothing. The
/// reservation is still to be freed.
///
/// `reservation`: NULL does nothing, for an event that no rule wanted.
/// `fields`: what became known; NULL if nothing did.
/// `options`: NULL for the defaults; only `ack` and `ack_timeout_ms` count.
///
/// Fails with `TIDEWIRE_INVALID_EVENT` (larger than was reserved, for instance; the reservation stays open),
/// `_INVALID_ARGUMENT` if it was aborted, `_CLOSED` and `_LOG_FAILED` (the event is not accepted; a durable intent is in
/// doubt at the next opening), `_TIMEOUT` (it is accepted, but has not reached the ack level), `_WRONG_PROCESS`.
///
/// # Safety
/// The pointers are NULL or as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidewire_commit(
    reservation: *const tidewire_reservation_t,
    fields: *const tidewire_commit_t,
    options: *const tidewire_publish_options_t,
    err: *mut *mut tidewire_error_t,
) -> tidewire_result_t {
    let body = || {
        // SAFETY: NULL or a struct of its size, by contract.
        let options = unsafe { commit_options(options)? };
        // SAFETY: NULL or not freed, by contract.
        let Some(r) = (unsafe { reservation.as_ref() }) else { return Ok(()) };
        // SAFETY: NULL or as described, by contract.
        unsafe { with_fields(fields, |fields| r.0.commit(fields, &options)) }
    };
    // SAFETY: NULL or writable, by contract.
    unsafe { entry(err, body) }
}

/// Commits a reservation as `tidewire_commit` does, but does not wait for the ack level: when that is reached,
/// `completions` tells it with `user_data`, if the call succeeds and `reservation` is not NULL.
///
/// # Safety
/// The pointers are NULL or as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidewire_commit_submit(
    reservation: *const tidewire_reservation_t,
    fields: *const tidewire_commit_t,
    options: *const tidewire_publish_options_t,
    completions: *const tidewire_completions_t,
    user_data: u64,
    err: *mut *mut tidewire_error_t,
) -> tidewire_result_t {
    let body = || {
        // SAFETY: NULL or a struct of its size, and NULL or open, by contract.
        let (options, completions) = unsafe { (commit_options(options)?, completions_ref(completions)?) };
        // SAFETY: NULL or not freed, by contract.
        let Some(r) = (unsafe { reservation.as_ref() }) else { return Ok(()) };
        // SAFETY: NULL or as described, by contract.
        let receipt = unsafe { with_fields(fields, |fields| r.0.submit(fields, options.ack))? };
        completions.queue().watch(&receipt, options.ack, user_data)
    };
    // SAFETY: NULL or writable, by contract.
    unsafe { entry(err, body) }
}

/// Commits several reservations, and waits once for all of them.
///
/// `reservations`: `count` of them; those that are NULL or aborted are passed over.
/// `fields`: `count` of them, all with the same `struct_size`, in the same order; NULL if nothing became known.
///
/// Fails as `tidewire_commit`, with the error of the first that has one: those before it are committed, it and those
/// after it stay open.
///
/// # Safety
/// The pointers are NULL or as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidewire_commit_batch(
    reservations: *const *const tidewire_reservation_t,
    fields: *const tidewire_commit_t,
    count: usize,
    options: *const tidewire_publish_options_t,
    err: *mut *mut tidewire_error_t,
) -> tidewire_result_t {
    let body = || {
        // SAFETY: NULL or a struct of its size, by contract.
        let options = unsafe { commit_options(options)? };
        check_count(count, "reservations")?;
        if reservations.is_null() && count > 0 {
            return Err(null("reservations"));
        }
        // SAFETY: NULL or `count` structs, by contract.
        let all = unsafe { crate::args::read_all(fields, count, "fields")? };
        let mut pairs: Vec<(Pairs<'_>, Pairs<'_>)> = all.iter().map(|_| Default::default()).collect();
        let mut items = Vec::with_capacity(count);
        let mut known = all.iter().zip(&mut pairs);
        for n in 0..count {
            let fields = match known.next() {
                None => CommitFields::default(),
                // SAFETY: the fields are as described and stay so during this call, by contract.
                Some((fields, (metadata, tags))) => unsafe {
                    fields.view(metadata, tags).map_err(|e| e.at(format!("fields[{n}]")))?
                },
            };
            // SAFETY: `count` pointers, each NULL or not freed, by contract.
            if let Some(r) = unsafe { reservations.add(n).read_unaligned().as_ref() } {
                items.push((&r.0, fields));
            }
        }
        Reservation::commit_all(items, &options)
    };
    // SAFETY: NULL or writable, by contract.
    unsafe { entry(err, body) }
}

/// Aborts a reservation: the operation did not come to be, nothing is told of it, and its space is free. To abort once more
/// changes nothing. The reservation is still to be freed.
///
/// `reservation`: NULL does nothing.
///
/// Fails with `TIDEWIRE_INVALID_ARGUMENT` if it was committed; `_CLOSED` or `_LOG_FAILED` if a durable intent could not be
/// ended and is in doubt at the next opening; `_WRONG_PROCESS`.
///
/// # Safety
/// The pointers are NULL or as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidewire_abort(
    reservation: *const tidewire_reservation_t,
    err: *mut *mut tidewire_error_t,
) -> tidewire_result_t {
    // SAFETY: NULL or not freed, by contract.
    let body = || unsafe { reservation.as_ref() }.map_or(Ok(()), |r| r.0.abort());
    // SAFETY: NULL or writable, by contract.
    unsafe { entry(err, body) }
}

/// By what a journal of the host can name a reservation with a durable intent: the id that the event has once it is
/// committed.
///
/// `token_out`: `TIDEWIRE_TOKEN_BYTES` bytes, filled with the token and a NUL.
///
/// Fails with `TIDEWIRE_NOT_FOUND` if it has no durable intent, or with `_INVALID_ARGUMENT`.
///
/// # Safety
/// The pointers are NULL or as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidewire_reservation_token(
    reservation: *const tidewire_reservation_t,
    token_out: *mut c_char,
    err: *mut *mut tidewire_error_t,
) -> tidewire_result_t {
    let body = || {
        if token_out.is_null() {
            return Err(null("token_out"));
        }
        // SAFETY: NULL or not freed, by contract.
        let r = unsafe { held(reservation, "reservation")? };
        let token = r.0.token().ok_or_else(|| {
            Error::new(ErrorKind::NotFound, "the reservation has no token")
                .remedy("reserve with TIDEWIRE_INTENT_DURABLE, so that it outlives a crash")
        })?;
        let token = token_bytes(token);
        // SAFETY: as many bytes may be written, by contract.
        unsafe { std::ptr::copy_nonoverlapping(token.as_ptr(), token_out.cast::<u8>(), token.len()) };
        Ok(())
    };
    // SAFETY: NULL or writable, by contract.
    unsafe { entry(err, body) }
}

/// Frees a reservation. If it is neither committed nor aborted, it is aborted.
///
/// `reservation`: the address of the pointer to it, which is set to NULL. NULL, and the address of NULL, are allowed and do
/// nothing. No other call with it may be running or follow.
///
/// # Safety
/// `reservation` is NULL or as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidewire_reservation_free(reservation: *mut *mut tidewire_reservation_t) {
    // SAFETY: as described, by contract.
    unsafe { free(reservation) }
}

/// Calls back with every reservation with a durable intent that earlier runs left without an end, and that is not resolved
/// yet. The host says of each what became of its operation; until then they are kept, and their part of the log with
/// them.
///
/// Fails with `TIDEWIRE_INVALID_ARGUMENT` or `_WRONG_PROCESS`.
///
/// # Safety
/// The pointers are NULL or as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidewire_in_doubt(
    engine: *const tidewire_engine_t,
    callback: tidewire_in_doubt_callback_t,
    callback_data: *mut c_void,
    err: *mut *mut tidewire_error_t,
) -> tidewire_result_t {
    let body = || {
        // SAFETY: NULL or open, by contract.
        let engine = unsafe { engine_ref(engine)? };
        let callback = callback.ok_or_else(|| null("callback"))?;
        for d in engine.in_doubt()? {
            let mut pairs = PairsOf::default();
            let event = tidewire_event_t::of(&d.event(), &mut pairs);
            let token = token_bytes(d.token);
            // SAFETY: everything lives during the call; the host promises the rest.
            unsafe { callback(callback_data, token.as_ptr().cast(), d.reserved_ns, &event) };
        }
        Ok(())
    };
    // SAFETY: NULL or writable, by contract.
    unsafe { entry(err, body) }
}

/// Says of a reservation in doubt that its operation came to be, and waits until that is durable. The event has the token's
/// id, and comes after the events of its key that were accepted before this call. To say so again changes nothing.
///
/// `token`: as `tidewire_in_doubt` or `tidewire_reservation_token` gave it, without a NUL.
/// `event`: the whole event; its type, bucket and key are those that were reserved.
///
/// Fails with `TIDEWIRE_NOT_FOUND` if nothing of this token is in doubt, `_INVALID_ARGUMENT` if it was aborted before, and
/// as `tidewire_publish`.
///
/// # Safety
/// The pointers are NULL or as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidewire_resolve_commit(
    engine: *const tidewire_engine_t,
    token: tidewire_bytes_t,
    event: *const tidewire_event_t,
    err: *mut *mut tidewire_error_t,
) -> tidewire_result_t {
    let body = || {
        // SAFETY: NULL or open, by contract.
        let engine = unsafe { engine_ref(engine)? };
        // SAFETY: as described, by contract.
        let (token, event) = unsafe { (token_of(token)?, read(event, "event")?) };
        let (mut metadata, mut tags) = (Pairs::default(), Pairs::default());
        // SAFETY: the fields are as described and stay so during this call, by contract.
        let event = unsafe { event.view(Fetch::For(engine), &mut metadata, &mut tags)? };
        engine.resolve(token, Resolution::Commit(&event))
    };
    // SAFETY: NULL or writable, by contract.
    unsafe { entry(err, body) }
}

/// Says of a reservation in doubt that its operation did not come to be, and waits until that is durable. To say so again
/// changes nothing.
///
/// Fails with `TIDEWIRE_NOT_FOUND` if nothing of this token is in doubt, `_INVALID_ARGUMENT` if it was committed before,
/// and with `_FULL`, `_TIMEOUT`, `_LOG_FAILED`, `_CLOSED`, `_WRONG_PROCESS`.
///
/// # Safety
/// The pointers are NULL or as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidewire_resolve_abort(
    engine: *const tidewire_engine_t,
    token: tidewire_bytes_t,
    err: *mut *mut tidewire_error_t,
) -> tidewire_result_t {
    let body = || {
        // SAFETY: NULL or open, by contract.
        let engine = unsafe { engine_ref(engine)? };
        // SAFETY: as described, by contract.
        engine.resolve(unsafe { token_of(token)? }, Resolution::Abort)
    };
    // SAFETY: NULL or writable, by contract.
    unsafe { entry(err, body) }
}

fn handle(reservation: Reservation) -> *mut tidewire_reservation_t {
    Box::into_raw(Box::new(tidewire_reservation_t(reservation)))
}

#[cold]
fn too_much() -> Error {
    Error::new(ErrorKind::Full, "too much space is reserved now")
        .remedy("try again when others have committed, or raise engine.reserve_percent or engine.ring_bytes")
}

/// The token with a NUL.
fn token_bytes(token: EventId) -> [u8; TIDEWIRE_TOKEN_BYTES] {
    let mut bytes = [0; TIDEWIRE_TOKEN_BYTES];
    let text = token.to_string();
    bytes[..text.len()].copy_from_slice(text.as_bytes());
    bytes
}

/// # Safety
/// `token` is as described.
unsafe fn token_of(token: tidewire_bytes_t) -> Result<EventId> {
    // SAFETY: as for this function.
    unsafe { token.text(ErrorKind::InvalidArgument, "token", 1024)? }.parse()
}

/// # Safety
/// `options` is NULL or a struct of its size.
unsafe fn reserve_options(options: *const tidewire_reserve_options_t) -> Result<ReserveOptions> {
    if options.is_null() {
        return Ok(ReserveOptions::default());
    }
    // SAFETY: a struct of its size, by contract.
    let o = unsafe { read(options, "options")? };
    if o.reserved != 0 {
        return Err(unknown("reserved", o.reserved, "set it to 0"));
    }
    Ok(ReserveOptions {
        bytes_max: (o.bytes_max > 0).then_some(o.bytes_max),
        intent: match o.intent {
            n if n == intent::TIDEWIRE_INTENT_NONE as u32 => Intent::None,
            n if n == intent::TIDEWIRE_INTENT_DURABLE as u32 => Intent::Durable,
            n => return Err(unknown("intent", n, "use a TIDEWIRE_INTENT_ constant")),
        },
        on_full: match o.full_timeout_ms {
            0 => OnFull::Refuse,
            ms => OnFull::Block(milliseconds(ms)),
        },
        ack_timeout: match o.ack_timeout_ms {
            0 => Duration::from_secs(30),
            ms => milliseconds(ms),
        },
    })
}

/// # Safety
/// `options` is NULL or a struct of its size.
unsafe fn commit_options(options: *const tidewire_publish_options_t) -> Result<CommitOptions> {
    // SAFETY: as for this function.
    let o = unsafe { options_of(options)? };
    Ok(CommitOptions { ack: o.ack, ack_timeout: o.ack_timeout })
}

/// # Safety
/// `fields` is NULL or as described.
unsafe fn with_fields<T>(
    fields: *const tidewire_commit_t,
    use_it: impl FnOnce(&CommitFields<'_>) -> Result<T>,
) -> Result<T> {
    if fields.is_null() {
        return use_it(&CommitFields::default());
    }
    let mut space = MaybeUninit::uninit();
    // SAFETY: a struct of its size that stays unchanged during this call, by contract.
    let fields = unsafe { look(fields, "fields", &mut space)? };
    let (mut metadata, mut tags) = (Pairs::default(), Pairs::default());
    // SAFETY: the fields are as described, by contract.
    use_it(&unsafe { fields.view(&mut metadata, &mut tags)? })
}

impl tidewire_commit_t {
    /// # Safety
    /// The fields are as described, for `'a`.
    unsafe fn view<'a>(&self, metadata: &'a mut Pairs<'a>, tags: &'a mut Pairs<'a>) -> Result<CommitFields<'a>> {
        if let Some(n) = self.reserved.iter().find(|n| **n != 0) {
            return Err(unknown("reserved", u32::from(*n), "set it to 0"));
        }
        // SAFETY: as for this function.
        unsafe {
            Ok(CommitFields {
                time_ns: self.time_ns,
                size: (self.has_size != 0).then_some(self.size),
                etag: text(self.etag, "etag")?,
                version_id: text(self.version_id, "version_id")?,
                content_type: text(self.content_type, "content_type")?,
                data: self.data.get(ErrorKind::InvalidEvent, "data", EVENT_BYTES_MAX)?,
                metadata: metadata.fill(self.metadata, self.metadata_count, "metadata")?,
                tags: tags.fill(self.tags, self.tags_count, "tags")?,
            })
        }
    }
}
