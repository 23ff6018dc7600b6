//! Publishing.

use std::time::{Duration, Instant};

use engine::{Ack, OnFull, PublishOptions, Published, Result};

use crate::args::{Versioned, first_size, read};
use crate::engine_handle::{engine_ref, milliseconds, tidewire_engine_t};
use crate::error::{barrier, entry, tidewire_error_t};
use crate::event::{Pairs, tidewire_event_t, unknown};
use crate::numbers::{self, tidewire_outcome_t as outcome};
use crate::raw::{tidewire_ack_t, tidewire_on_full_t, tidewire_outcome_t, tidewire_result_t};

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
}

// SAFETY: `repr(C)`, the size is first, integers only.
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
        // SAFETY: NULL or a struct of its size, by contract.
        let event = unsafe { read(event, "event")? };
        let options = if options.is_null() {
            PublishOptions::default()
        } else {
            // SAFETY: a struct of its size, by contract.
            unsafe { read(options, "options")? }.checked()?
        };
        let (mut metadata, mut tags) = (Pairs::default(), Pairs::default());
        // SAFETY: the fields are as described and stay so during this call, by contract.
        let event = unsafe { event.view(&mut metadata, &mut tags)? };
        if options.ack == Ack::Memory {
            tell(match engine.publish_with(&event, &options)? {
                Published::Accepted | Published::Duplicate => outcome::TIDEWIRE_OUTCOME_ACCEPTED,
                Published::NoMatch => outcome::TIDEWIRE_OUTCOME_NO_MATCH,
            });
            return Ok(());
        }
        // In two steps, so that the outcome is right when the second fails.
        let Some(receipt) = engine.submit(&event, &options)? else {
            tell(outcome::TIDEWIRE_OUTCOME_NO_MATCH);
            return Ok(());
        };
        tell(outcome::TIDEWIRE_OUTCOME_ACCEPTED);
        receipt.wait(options.ack, Some(Instant::now() + options.ack_timeout))
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
        // SAFETY: NULL or a struct of its size whose fields are as described, by contract.
        let (bucket, event_type) = unsafe { read(event, "event")?.bucket_and_type()? };
        Ok(engine.is_interested(bucket, event_type))
    };
    barrier(body).unwrap_or(true)
}

impl tidewire_publish_options_t {
    fn checked(&self) -> Result<PublishOptions> {
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
            ..PublishOptions::default()
        })
    }
}

fn time(ms: u64) -> Duration {
    milliseconds(if ms == 0 { 30_000 } else { ms })
}
