//! Publishing.

use std::mem::MaybeUninit;
use std::time::{Duration, Instant};

use engine::event::ingest::BODY_BYTES_MAX;
use engine::{
    Ack, DedupKey, DetailsWanted, ErrorKind, OnFull, PublishOptions, Published, PublishedJson, Receipt, Result,
};

use crate::args::{Versioned, check_count, fill, first_size, look, null, read, tidewire_bytes_t};
use crate::engine_handle::{engine_ref, milliseconds, tidewire_engine_t};
use crate::error::{barrier, entry, tidewire_error_t};
use crate::event::{Fetch, Pairs, flags, tidewire_event_t, unknown, with_events};
use crate::numbers::{self, tidewire_outcome_t as outcome};
use crate::raw::{
    tidewire_ack_t, tidewire_details_wanted_t, tidewire_on_full_t, tidewire_outcome_t, tidewire_result_t,
};

/// How an event is published. Initialise with `TIDEWIRE_PUBLISH_OPTIONS_INIT`. For `struct_size` see
/// `tidewire_options_t`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct tidewire_publish_options_t {
    /// `sizeof(tidewire_publish_options_t)`.
    pub struct_size: usize,
    /// How safe the event is before the call returns.
    pub ack: tidewire_ack_t,
    /// What happens when there is no space.
    pub on_full: tidewire_on_full_t,
    /// How long to wait for space, in milliseconds; 0 means 30000.
    pub full_timeout_ms: u64,
    /// How long to wait for `ack`, in milliseconds; 0 means 30000.
    pub ack_timeout_ms: u64,
    /// By what repeats of this publication are recognised, such as the id of a request: a second event of the same bucket
    /// and key with the same one, within `engine.dedup.window`, is not accepted. Any bytes, at most 1024; empty means
    /// that there is none.
    pub dedup_key: tidewire_bytes_t,
}

/// The longest dedup key, in bytes.
const DEDUP_BYTES_MAX: usize = 1024;

// SAFETY: `repr(C)`, the size is first, pointers and integers only.
unsafe impl Versioned for tidewire_publish_options_t {
    const INIT: &'static str = "TIDEWIRE_PUBLISH_OPTIONS_INIT";
    const FIRST_SIZE: usize = first_size!(tidewire_publish_options_t, ack_timeout_ms: u64);
}

/// Publishes an event.
///
/// By default the call returns when the event is durable; many threads share the waiting for the disk. With
/// `TIDEWIRE_ACK_MEMORY` it waits for nothing, unless there is no space. It never waits for a destination. Events of one
/// bucket and key are delivered in the order of the calls.
///
/// `event`: read during the call only; the caller keeps it and everything that it points to.
/// `options`: NULL for the defaults.
/// `outcome_out`: set to what became of the event, also when the call fails; may be NULL.
///
/// Fails with `TIDEWIRE_INVALID_EVENT`, `_INVALID_ARGUMENT`, `_FULL`, `_CLOSED`, `_WRONG_PROCESS`: the event was not
/// accepted. With `TIDEWIRE_TIMEOUT` or `_LOG_FAILED` it may have been, and the outcome tells.
///
/// # Safety
/// The pointers are NULL or as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidewire_publish(
    engine: *const tidewire_engine_t,
    event: *const tidewire_event_t,
    options: *const tidewire_publish_options_t,
    outcome_out: *mut tidewire_outcome_t,
    err: *mut *mut tidewire_error_t,
) -> tidewire_result_t {
    let tell = |outcome: outcome| {
        if !outcome_out.is_null() {
            // SAFETY: may be written, by contract.
            unsafe { outcome_out.write_unaligned(outcome as u32) };
        }
    };
    let body = || {
        tell(outcome::TIDEWIRE_OUTCOME_REFUSED);
        // SAFETY: NULL or open, by contract.
        let engine = unsafe { engine_ref(engine)? };
        let mut space = MaybeUninit::uninit();
        // SAFETY: NULL or a struct of its size that stays unchanged during this call, by contract.
        let event = unsafe { look(event, "event", &mut space)? };
        // SAFETY: NULL or a struct of its size, by contract.
        let options = unsafe { options_of(options)? };
        let (mut metadata, mut tags) = (Pairs::default(), Pairs::default());
        // SAFETY: the fields are as described and stay so during this call, by contract.
        let event = unsafe { event.view(Fetch::For(engine), &mut metadata, &mut tags)? };
        if options.ack == Ack::Memory {
            tell(engine.publish_with(&event, &options)?.into());
            return Ok(());
        }
        // In two steps, so that the outcome is right when the second fails.
        let Some(receipt) = engine.submit(&event, &options)? else {
            tell(outcome::TIDEWIRE_OUTCOME_NO_MATCH);
            return Ok(());
        };
        tell(of_receipt(&receipt));
        receipt.wait(options.ack, Some(Instant::now() + options.ack_timeout))
    };
    // SAFETY: NULL or writable, by contract.
    unsafe { entry(err, body) }
}

/// Publishes several events, one after the other, and waits once for the ack level of all of them.
///
/// `events`: `count` of them, all with the same `struct_size`; read during the call only.
/// `options`: NULL for the defaults. They are for all events; so `dedup_key` tells only events of different keys apart.
/// `outcomes_out`: `count` of them, set to what became of each event, also when the call fails; may be NULL.
///
/// Fails as `tidewire_publish`, with the error of the first event that is refused: those before it are accepted, and the
/// call has waited for them; it and those after it are not (`TIDEWIRE_OUTCOME_REFUSED`).
///
/// # Safety
/// The pointers are NULL or as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidewire_publish_batch(
    engine: *const tidewire_engine_t,
    events: *const tidewire_event_t,
    count: usize,
    options: *const tidewire_publish_options_t,
    outcomes_out: *mut tidewire_outcome_t,
    err: *mut *mut tidewire_error_t,
) -> tidewire_result_t {
    let tell = |n: usize, outcome: outcome| {
        if !outcomes_out.is_null() {
            // SAFETY: `count` may be written, by contract.
            unsafe { outcomes_out.add(n).write_unaligned(outcome as u32) };
        }
    };
    let body = || {
        check_count(count, "events")?;
        (0..count).for_each(|n| tell(n, outcome::TIDEWIRE_OUTCOME_REFUSED));
        // SAFETY: NULL or open, by contract.
        let engine = unsafe { engine_ref(engine)? };
        // SAFETY: NULL or a struct of its size, by contract.
        let options = unsafe { options_of(options)? };
        let publish = |events: &[engine::Event<'_>]| {
            let mut outcomes = Vec::with_capacity(count);
            let result = engine.publish_batch(events, &options, &mut outcomes);
            outcomes.into_iter().enumerate().for_each(|(n, published)| tell(n, published.into()));
            result
        };
        // SAFETY: as described, by contract.
        unsafe { with_events(events, count, Fetch::For(engine), publish) }
    };
    // SAFETY: NULL or writable, by contract.
    unsafe { entry(err, body) }
}

/// Publishes an event that stands at `cursor` in a log of the host. Replaying that log is harmless: what the engine has
/// already is answered with `TIDEWIRE_OUTCOME_DUPLICATE`, and `tidewire_last_applied` says where to begin.
///
/// `cursor`: from 1, growing from call to call. One that is not above an earlier call's is taken for a repeat. Calls of
/// several threads are made one after the other; it is for the host to keep them in the order of its log. An event that
/// was refused must be given again before the next one.
///
/// Otherwise as `tidewire_publish`; but after `TIDEWIRE_LOG_FAILED` the outcome does not tell whether the event is in the
/// log: give it again to the next opening.
///
/// # Safety
/// The pointers are NULL or as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidewire_append_at(
    engine: *const tidewire_engine_t,
    cursor: u64,
    event: *const tidewire_event_t,
    options: *const tidewire_publish_options_t,
    outcome_out: *mut tidewire_outcome_t,
    err: *mut *mut tidewire_error_t,
) -> tidewire_result_t {
    let tell = |outcome: outcome| {
        if !outcome_out.is_null() {
            // SAFETY: may be written, by contract.
            unsafe { outcome_out.write_unaligned(outcome as u32) };
        }
    };
    let body = || {
        tell(outcome::TIDEWIRE_OUTCOME_REFUSED);
        // SAFETY: NULL or open, by contract.
        let engine = unsafe { engine_ref(engine)? };
        // SAFETY: NULL or structs of their size, by contract.
        let (event, options) = unsafe { (read(event, "event")?, options_of(options)?) };
        let (mut metadata, mut tags) = (Pairs::default(), Pairs::default());
        // SAFETY: the fields are as described and stay so during this call, by contract.
        let event = unsafe { event.view(Fetch::For(engine), &mut metadata, &mut tags)? };
        let published = engine.append_at(cursor, &event, &options);
        if published.as_ref().is_err_and(|e| e.kind() == ErrorKind::Timeout) {
            tell(outcome::TIDEWIRE_OUTCOME_ACCEPTED);
        }
        tell(published?.into());
        Ok(())
    };
    // SAFETY: NULL or writable, by contract.
    unsafe { entry(err, body) }
}

/// What became of the events of a document. Initialise with `TIDEWIRE_PUBLISHED_INIT`. For `struct_size` see
/// `tidewire_options_t`; a library fills as much of an older program's struct as there is.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct tidewire_published_t {
    /// `sizeof(tidewire_published_t)`.
    pub struct_size: usize,
    /// Those that were accepted.
    pub accepted: u64,
    /// Those that no rule wants.
    pub no_match: u64,
    /// Those that had been accepted before.
    pub duplicates: u64,
}

// SAFETY: `repr(C)`, the size is first, integers only.
unsafe impl Versioned for tidewire_published_t {
    const INIT: &'static str = "TIDEWIRE_PUBLISHED_INIT";
    const FIRST_SIZE: usize = first_size!(tidewire_published_t, duplicates: u64);
}

/// Publishes the events of a JSON document, in its order, and waits once for the ack level of all of them: `Records` as S3 and
/// its peers send them, CloudEvents (one or a batch), or a line per event, with names as of the fields of `tidewire_event_t`:
/// `{"type": "s3:ObjectCreated:Put", "bucket": "b", "key": "k", "size": 1024}`.
///
/// `json`: at most 4 MiB, as lines at most 16 MiB; with at most 65536 events.
/// `content_type`: says what it is, such as `application/cloudevents+json`; if it does not say enough, or is empty, the document
/// does.
/// `options`: NULL for the defaults. They are for all events; so `dedup_key` tells only events of different keys apart.
/// `published_out`: set to what became of the events, also when the call fails; may be NULL.
///
/// Fails with `TIDEWIRE_INVALID_EVENT`, with the place, if anything of the document is wrong: then nothing of it is published.
/// Otherwise as `tidewire_publish_batch`.
///
/// # Safety
/// The pointers are NULL or as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidewire_publish_json(
    engine: *const tidewire_engine_t,
    json: tidewire_bytes_t,
    content_type: tidewire_bytes_t,
    options: *const tidewire_publish_options_t,
    published_out: *mut tidewire_published_t,
    err: *mut *mut tidewire_error_t,
) -> tidewire_result_t {
    let body = || {
        let tell = |p: &PublishedJson| {
            if published_out.is_null() {
                return Ok(());
            }
            let (accepted, no_match, duplicates) = (p.accepted, p.no_match, p.duplicates);
            // SAFETY: a struct of its size, by contract.
            unsafe {
                fill(
                    published_out,
                    "published_out",
                    &tidewire_published_t { struct_size: 0, accepted, no_match, duplicates },
                )
            }
        };
        let mut published = PublishedJson::default();
        tell(&published)?;
        // SAFETY: NULL or open, by contract.
        let engine = unsafe { engine_ref(engine)? };
        // SAFETY: as described, by contract.
        let (json, content_type, options) = unsafe {
            (
                json.get(ErrorKind::InvalidEvent, "json", BODY_BYTES_MAX)?,
                content_type.text(ErrorKind::InvalidArgument, "content_type", CONTENT_TYPE_BYTES_MAX)?,
                options_of(options)?,
            )
        };
        // Parsing uses it as scratch space, and the caller's stays as it is.
        let mut json = json.to_vec();
        let done = engine.publish_json(&mut json, content_type, &options, &mut published);
        tell(&published)?;
        done
    };
    // SAFETY: NULL or writable, by contract.
    unsafe { entry(err, body) }
}

/// The longest content type, in bytes.
const CONTENT_TYPE_BYTES_MAX: usize = 4096;

/// Up to which cursor everything that `tidewire_append_at` was called with is durable, 0 if nothing is: the host need not
/// keep its log up to there, and replays it from there. It never falls. It follows what is durable with a delay of about
/// `engine.delivery.cursor_interval`, and is exact after a clean close.
///
/// `cursor_out`: set to it.
///
/// Fails with `TIDEWIRE_INVALID_ARGUMENT` or `_WRONG_PROCESS`.
///
/// # Safety
/// The pointers are NULL or as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidewire_last_applied(
    engine: *const tidewire_engine_t,
    cursor_out: *mut u64,
    err: *mut *mut tidewire_error_t,
) -> tidewire_result_t {
    let body = || {
        if cursor_out.is_null() {
            return Err(null("cursor_out"));
        }
        // SAFETY: NULL or open, by contract.
        let cursor = unsafe { engine_ref(engine)? }.last_applied()?;
        // SAFETY: may be written, by contract.
        unsafe { cursor_out.write_unaligned(cursor) };
        Ok(())
    };
    // SAFETY: NULL or writable, by contract.
    unsafe { entry(err, body) }
}

/// Whether any rule could want events of this bucket and type: if not, the host need not collect what an event would
/// say. It takes some nanoseconds.
///
/// `event`: only its bucket and type are looked at.
///
/// Also true for an event that no rule takes in the end; and true if anything is wrong with the arguments, so that
/// nothing is lost in silence: `tidewire_publish` then tells what it is.
///
/// # Safety
/// The pointers are NULL or as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidewire_is_interested(
    engine: *const tidewire_engine_t,
    event: *const tidewire_event_t,
) -> bool {
    let body = || {
        // SAFETY: NULL or open, by contract.
        let engine = unsafe { engine_ref(engine)? };
        engine.check_process()?;
        let mut space = MaybeUninit::uninit();
        // SAFETY: NULL or a struct of its size whose fields are as described, by contract.
        let (bucket, event_type) = unsafe { look(event, "event", &mut space)?.bucket_and_type()? };
        Ok(engine.is_interested(bucket, event_type))
    };
    barrier(body).unwrap_or(true)
}

/// Which details of an event the host should fetch: the sum of the `TIDEWIRE_DETAILS_` that are of use. For hosts that fetch
/// them by themselves, and for commits; `fetch` of the event asks the same.
///
/// `event`: only its bucket, type and key are looked at.
///
/// They are of use if a rule that may want the event looks at them or keeps the event, or a destination that it would go to has
/// them in its records. All are, if anything is wrong with the arguments.
///
/// # Safety
/// The pointers are NULL or as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidewire_details_wanted(
    engine: *const tidewire_engine_t,
    event: *const tidewire_event_t,
) -> tidewire_details_wanted_t {
    let body = || {
        // SAFETY: NULL or open, by contract.
        let engine = unsafe { engine_ref(engine)? };
        // SAFETY: NULL or a struct of its size whose fields are as described, by contract.
        let event = unsafe { read(event, "event")?.resource()? };
        engine.details_wanted(&event)
    };
    flags(barrier(body).unwrap_or(DetailsWanted::ALL))
}

impl From<Published> for outcome {
    fn from(published: Published) -> Self {
        match published {
            Published::Accepted => outcome::TIDEWIRE_OUTCOME_ACCEPTED,
            Published::NoMatch => outcome::TIDEWIRE_OUTCOME_NO_MATCH,
            Published::Duplicate => outcome::TIDEWIRE_OUTCOME_DUPLICATE,
        }
    }
}

pub(crate) fn of_receipt(receipt: &Receipt) -> outcome {
    let repeat = receipt.is_duplicate();
    if repeat { outcome::TIDEWIRE_OUTCOME_DUPLICATE } else { outcome::TIDEWIRE_OUTCOME_ACCEPTED }
}

/// # Safety
/// `options` is NULL or a struct of its size.
pub(crate) unsafe fn options_of(options: *const tidewire_publish_options_t) -> Result<PublishOptions> {
    if options.is_null() {
        return Ok(PublishOptions::default());
    }
    let mut space = MaybeUninit::uninit();
    // SAFETY: a struct of its size, with fields as described, by contract.
    unsafe { look(options, "options", &mut space)?.checked() }
}

impl tidewire_publish_options_t {
    /// # Safety
    /// The fields are as described.
    unsafe fn checked(&self) -> Result<PublishOptions> {
        use numbers::{tidewire_ack_t as ack, tidewire_on_full_t as on_full};
        Ok(PublishOptions {
            ack: match self.ack {
                n if n == ack::TIDEWIRE_ACK_SYNCED as u32 => Ack::Synced,
                n if n == ack::TIDEWIRE_ACK_WRITTEN as u32 => Ack::Written,
                n if n == ack::TIDEWIRE_ACK_MEMORY as u32 => Ack::Memory,
                n => return Err(unknown("ack", n, "use a TIDEWIRE_ACK_ constant")),
            },
            on_full: match self.on_full {
                n if n == on_full::TIDEWIRE_ON_FULL_BLOCK as u32 => OnFull::Block(time(self.full_timeout_ms)),
                n if n == on_full::TIDEWIRE_ON_FULL_REFUSE as u32 => OnFull::Refuse,
                n => return Err(unknown("on_full", n, "use a TIDEWIRE_ON_FULL_ constant")),
            },
            ack_timeout: time(self.ack_timeout_ms),
            dedup_key: match self.dedup_key {
                key if key.is_empty() => None,
                key => {
                    // SAFETY: as for this function.
                    let key = unsafe { key.get(ErrorKind::InvalidArgument, "dedup_key", DEDUP_BYTES_MAX)? };
                    Some(DedupKey::new(key))
                }
            },
        })
    }
}

fn time(ms: u64) -> Duration {
    milliseconds(if ms == 0 { 30_000 } else { ms })
}
