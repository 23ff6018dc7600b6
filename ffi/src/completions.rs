//! Publishing without waiting: completions through a descriptor or a callback.

use std::ffi::{c_int, c_void};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd};

use engine::{CompletionCalls, Completions, Error, ErrorKind, Result};

use crate::args::{Versioned, first_size, look, null, read};
use crate::engine_handle::{engine_ref, tidewire_engine_t};
use crate::error::{OK, entry, tidewire_error_t};
use crate::event::{Fetch, Pairs, tidewire_event_t};
use crate::handle::{free, give, held, none};
use crate::numbers::tidewire_outcome_t as outcome;
use crate::publish::{of_receipt, options_of, tidewire_publish_options_t};
use crate::raw::{tidewire_outcome_t, tidewire_result_t};

/// A queue of completions: tells which of the events that were submitted with it have reached their ack level. Made by
/// `tidewire_completions_open`, ended by `tidewire_completions_free`.
///
/// All functions that take a `const tidewire_completions_t *` may be called from any threads at the same time.
pub struct tidewire_completions_t(Queue);

enum Queue {
    Taken(Completions),
    Called(CompletionCalls),
}

/// An event that has reached its ack level, or never will.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct tidewire_completion_t {
    /// As it was given with the event.
    pub user_data: u64,
    /// `TIDEWIRE_OK` if the level is reached, else why it never will be: `TIDEWIRE_LOG_FAILED` or `TIDEWIRE_CLOSED`.
    pub result: tidewire_result_t,
    /// 0.
    pub reserved: u32,
}

/// Called with completions, by one thread of the queue. They may be read during the call only. It may publish, submit and
/// reserve. While it runs no other completions of the queue are told. It must not throw, end its thread, or free the
/// queue.
pub type tidewire_completions_callback_t =
    Option<unsafe extern "C" fn(callback_data: *mut c_void, completions: *const tidewire_completion_t, count: usize)>;

/// How a queue of completions is opened. Initialise with `TIDEWIRE_COMPLETIONS_OPTIONS_INIT`. For `struct_size` see
/// `tidewire_options_t`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct tidewire_completions_options_t {
    /// `sizeof(tidewire_completions_options_t)`.
    pub struct_size: usize,
    /// NULL: the host watches `tidewire_completions_fd` and calls `tidewire_completions_take`. Otherwise the queue has a
    /// thread of its own, which calls this; then there is nothing to be taken.
    pub callback: tidewire_completions_callback_t,
    /// Handed to the callback.
    pub callback_data: *mut c_void,
}

// SAFETY: `repr(C)`, the size is first, pointers and integers only.
unsafe impl Versioned for tidewire_completions_options_t {
    const INIT: &'static str = "TIDEWIRE_COMPLETIONS_OPTIONS_INIT";
    const FIRST_SIZE: usize = first_size!(tidewire_completions_options_t, callback_data: *mut c_void);
}

/// Opens a queue of completions. An engine may have several, one per event loop for instance. It keeps the engine's memory,
/// but does not keep it from closing: closing completes everything that was submitted.
///
/// `options`: NULL for the defaults.
/// `completions_out`: set to the new queue, or to NULL if it fails.
///
/// Fails with `TIDEWIRE_INVALID_ARGUMENT`, `_IO` if there are no descriptors or threads left, `_WRONG_PROCESS`.
///
/// # Safety
/// The pointers are NULL or as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidewire_completions_open(
    engine: *const tidewire_engine_t,
    options: *const tidewire_completions_options_t,
    completions_out: *mut *mut tidewire_completions_t,
    err: *mut *mut tidewire_error_t,
) -> tidewire_result_t {
    let body = || {
        // SAFETY: NULL or writable, by contract.
        unsafe { none(completions_out, "completions_out")? };
        // SAFETY: NULL or open, by contract.
        let engine = unsafe { engine_ref(engine)? };
        let (callback, data) = if options.is_null() {
            (None, std::ptr::null_mut())
        } else {
            // SAFETY: a struct of its size, by contract.
            let options = unsafe { read(options, "options")? };
            (options.callback, options.callback_data)
        };
        let queue = match callback {
            None => Queue::Taken(engine.completions()?),
            Some(callback) => {
                let data = Data(data);
                let mut told = Vec::new();
                Queue::Called(engine.completions_to(move |completions| {
                    told.clear();
                    told.extend(completions.iter().map(tidewire_completion_t::from));
                    // SAFETY: they live; the host promises the rest.
                    unsafe { callback(data.get(), told.as_ptr(), told.len()) };
                })?)
            }
        };
        // SAFETY: as above.
        unsafe { give(completions_out, tidewire_completions_t(queue)) };
        Ok(())
    };
    // SAFETY: NULL or writable, by contract.
    unsafe { entry(err, body) }
}

/// A descriptor that is readable while there may be completions to take: for `poll`, `epoll` or a library of event loops.
/// The host must neither read nor close it; it lives as long as the queue. -1 for NULL.
///
/// # Safety
/// `completions` is NULL or open.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidewire_completions_fd(completions: *const tidewire_completions_t) -> c_int {
    // SAFETY: NULL or open, by contract.
    unsafe { completions.as_ref() }.map_or(-1, |c| c.queue().as_fd().as_raw_fd())
}

/// Takes completions; never waits. Those of events with one key and one ack level come in the order of the events. While
/// there are more the descriptor stays readable.
///
/// `completions_out`: filled with up to `max` of them.
/// `count_out`: set to how many there are; 0 if the call fails.
///
/// Fails with `TIDEWIRE_INVALID_ARGUMENT` (also if the queue has a callback) or `_WRONG_PROCESS`.
///
/// # Safety
/// The pointers are NULL or as described; `completions_out` has room for `max`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidewire_completions_take(
    completions: *const tidewire_completions_t,
    completions_out: *mut tidewire_completion_t,
    max: usize,
    count_out: *mut usize,
    err: *mut *mut tidewire_error_t,
) -> tidewire_result_t {
    let body = || {
        if count_out.is_null() {
            return Err(null("count_out"));
        }
        let mut count = 0;
        // SAFETY: may be written, by contract.
        unsafe { count_out.write_unaligned(0) };
        // SAFETY: NULL or open, by contract.
        let this = unsafe { completions_ref(completions)? };
        if completions_out.is_null() && max > 0 {
            return Err(null("completions_out"));
        }
        let Queue::Taken(queue) = &this.0 else {
            return Err(Error::new(ErrorKind::InvalidArgument, "the queue has a callback, which gets its completions")
                .remedy("open it without one to take them"));
        };
        queue.take(max, |c| {
            // SAFETY: there is room for `max`, by contract, and no more come.
            unsafe { completions_out.add(count).write_unaligned((&c).into()) };
            count += 1;
        })?;
        // SAFETY: as above.
        unsafe { count_out.write_unaligned(count) };
        Ok(())
    };
    // SAFETY: NULL or writable, by contract.
    unsafe { entry(err, body) }
}

/// Frees a queue. Completions that were not taken are lost, the events are not. If it has a callback, it is told what has
/// completed by now, and is not called any more when this returns.
///
/// `completions`: the address of the pointer to the queue, which is set to NULL. NULL, and the address of NULL, are allowed
/// and do nothing. No other call with this queue may be running or follow.
///
/// # Safety
/// `completions` is NULL or as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidewire_completions_free(completions: *mut *mut tidewire_completions_t) {
    // SAFETY: as described, by contract.
    unsafe { free(completions) }
}

/// Publishes an event as `tidewire_publish` does, but does not wait for `options.ack`: when that is reached, `completions`
/// tells it with `user_data`. There is one completion for each event that was
/// accepted, now or before, and none for others.
///
/// It still waits for space, unless `options` say otherwise.
///
/// `outcome_out`: set to what became of the event, also when the call fails; may be NULL.
///
/// Fails with `TIDEWIRE_INVALID_EVENT`, `_INVALID_ARGUMENT`, `_FULL`, `_CLOSED`, `_WRONG_PROCESS` or `_LOG_FAILED`: the
/// event was not accepted.
///
/// # Safety
/// The pointers are NULL or as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidewire_submit(
    engine: *const tidewire_engine_t,
    event: *const tidewire_event_t,
    options: *const tidewire_publish_options_t,
    completions: *const tidewire_completions_t,
    user_data: u64,
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
        let (engine, this) = unsafe { (engine_ref(engine)?, completions_ref(completions)?) };
        let mut space = MaybeUninit::uninit();
        // SAFETY: NULL or structs of their size that stay unchanged during this call, by contract.
        let (event, options) = unsafe { (look(event, "event", &mut space)?, options_of(options)?) };
        let (mut metadata, mut tags) = (Pairs::default(), Pairs::default());
        // SAFETY: the fields are as described and stay so during this call, by contract.
        let event = unsafe { event.view(Fetch::For(engine), &mut metadata, &mut tags)? };
        match engine.submit(&event, &options)? {
            None => tell(outcome::TIDEWIRE_OUTCOME_NO_MATCH),
            Some(receipt) => {
                tell(of_receipt(&receipt));
                this.queue().watch(&receipt, options.ack, user_data)?;
            }
        }
        Ok(())
    };
    // SAFETY: NULL or writable, by contract.
    unsafe { entry(err, body) }
}

/// # Safety
/// `completions` is NULL or open for `'a`.
pub(crate) unsafe fn completions_ref<'a>(
    completions: *const tidewire_completions_t,
) -> Result<&'a tidewire_completions_t> {
    // SAFETY: NULL or open, by contract.
    unsafe { held(completions, "completions") }
}

impl tidewire_completions_t {
    pub(crate) fn queue(&self) -> &Completions {
        match &self.0 {
            Queue::Taken(queue) => queue,
            Queue::Called(calls) => calls,
        }
    }
}

impl From<&engine::Completion> for tidewire_completion_t {
    fn from(c: &engine::Completion) -> Self {
        let result = c.result.as_ref().map_or_else(|e| e.kind() as u32, |()| OK);
        tidewire_completion_t { user_data: c.user_data, result, reserved: 0 }
    }
}

/// A pointer of the host that goes to another thread, as the host was told.
struct Data(*mut c_void);

// SAFETY: it is only handed to the callback.
unsafe impl Send for Data {}

impl Data {
    fn get(&self) -> *mut c_void {
        self.0
    }
}
