//! Reading the log: tails, which follow it, and groups of consumers, which share it.

use std::ffi::{CString, c_char};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use engine::event::EventTypes;
use engine::log::reader::{Entry, Gap, GapCause, Item, ReadFrom};
use engine::shared::{AnyConsumer, AnyTail};
use engine::{ConsumerOptions, Delivery, ErrorKind, GroupStats, Lease, Result};
use serde_json::{Value, json};

use crate::args::{Versioned, check_count, fill, first_size, null, read, tidewire_bytes_t};
use crate::engine_handle::{engine_ref, milliseconds, tidewire_engine_t};
use crate::error::{entry, string, tidewire_error_t};
use crate::event::{PairsOf, tidewire_event_t, unknown};
use crate::filter::{event_filter, tidewire_filter_t};
use crate::handle::{free, give, held, none};
use crate::numbers::{tidewire_from_t as from, tidewire_gap_t as gap_t};
use crate::raw::{tidewire_from_t, tidewire_gap_t, tidewire_result_t};
use crate::rules::{TEXT_BYTES_MAX, name};

/// What a call of `tidewire_consumer_fetch` brings at most.
const FETCH_MAX: usize = 10_000;

/// A tail: the events of the log from some place on, and then each one as it is published. Made by `tidewire_tail_open`, freed
/// with `tidewire_tail_free`.
///
/// It reads the log's files on the thread that asks it: however slow that is, nothing else waits for it, and its memory does
/// not grow. It keeps nothing in the log; what is removed before it was read comes as a gap. Threads that use it at the same
/// time wait for each other. It keeps the engine's memory, but does not keep it from closing.
pub struct tidewire_tail_t(Mutex<AnyTail>);

/// A member of a group of consumers: made by `tidewire_consumer_open`, freed with `tidewire_consumer_free`, which gives back
/// what it has; the group stays.
///
/// Its functions may be called from any threads at the same time. It keeps the engine's memory, but does not keep it from
/// closing.
pub struct tidewire_consumer_t(AnyConsumer);

/// What was read: freed with `tidewire_items_free`. It never changes, so any thread may read it.
pub struct tidewire_items_t(Vec<Held>);

struct Held {
    /// But for its pointers.
    item: tidewire_item_t,
    /// None for a gap.
    event: Option<tidewire_event_t>,
    id: CString,
    /// What `event` points to.
    _pairs: PairsOf,
    _entry: Option<Arc<Entry>>,
}

// SAFETY: the pointers in `event` lead into `_pairs` and `_entry`, which are as little bound to a thread, and never change.
unsafe impl Send for tidewire_items_t {}
// SAFETY: as above.
unsafe impl Sync for tidewire_items_t {}

/// By what a member of a group has an event. It is for one giving-out of it. A host may keep it as numbers; they mean
/// something to the run of the engine that gave them.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct tidewire_lease_t {
    /// The shard.
    pub shard: u64,
    /// The event's sequence there.
    pub sequence: u64,
    /// Which giving-out it is.
    pub token: u64,
}

/// An event of the log, or a stretch of it that is missing. Initialise with `TIDEWIRE_ITEM_INIT`. For `struct_size` see
/// `tidewire_options_t`; a library fills as much of an older program's struct as there is.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct tidewire_item_t {
    /// `sizeof(tidewire_item_t)`.
    pub struct_size: usize,
    /// The event; NULL for a gap. It lives as long as the items.
    pub event: *const tidewire_event_t,
    /// The event's id, NUL-terminated; empty for a gap. It lives as long as the items.
    pub id: *const c_char,
    /// The shard of the log that it stands in.
    pub shard: u32,
    /// `TIDEWIRE_GAP_NONE` for an event, else why something is missing.
    pub gap: tidewire_gap_t,
    /// The event's sequence in its shard; of a gap the first one that is missing.
    pub sequence: u64,
    /// The same; of a gap the last one that is missing. Not every one between need have been an event.
    pub sequence_last: u64,
    /// The engine's clock when it took the event, in nanoseconds since the Unix epoch: never lower than an earlier event's. Of
    /// a gap that of the last event before it, or 0 if that is not known.
    pub clock_ns: u64,
    /// For a member of a group: how often the event was given out, this time included. More than 1 means that somebody may
    /// have processed it before. 0 otherwise.
    pub deliveries: u32,
    /// 0.
    pub reserved: u32,
    /// For a member of a group: to acknowledge it by.
    pub lease: tidewire_lease_t,
}

// SAFETY: `repr(C)`, the size is first, pointers and integers only.
unsafe impl Versioned for tidewire_item_t {
    const INIT: &'static str = "TIDEWIRE_ITEM_INIT";
    const FIRST_SIZE: usize = first_size!(tidewire_item_t, lease: tidewire_lease_t);
}

/// Which events are read, and from where on. Initialise with `TIDEWIRE_READ_OPTIONS_INIT`: all that come from now on. For
/// `struct_size` see `tidewire_options_t`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct tidewire_read_options_t {
    /// `sizeof(tidewire_read_options_t)`.
    pub struct_size: usize,
    /// Where reading begins.
    pub from: tidewire_from_t,
    /// For a group: how often an event is given out before it becomes a dead letter, 1 to 1,000,000; 0 means 16. The latest
    /// call counts for the group.
    pub deliveries_max: u32,
    /// The clock that `TIDEWIRE_FROM_TIME` begins at, in nanoseconds since the Unix epoch.
    pub from_ns: u64,
    /// What `TIDEWIRE_FROM_POSITION` goes on behind, as `tidewire_tail_position` gave it.
    pub position: tidewire_bytes_t,
    /// Only events of this bucket; empty for all.
    pub bucket: tidewire_bytes_t,
    /// Only events of these types: names and wildcards as in rules (`s3:ObjectCreated:*`), with spaces between; empty for all.
    pub events: tidewire_bytes_t,
    /// Only events that this filter wants; NULL for all. Read during the call only.
    pub filter: *const tidewire_filter_t,
    /// For a group: how long this member has for an event before another may get it, in milliseconds, up to 12 hours; 0 means
    /// 30000. See `tidewire_consumer_extend`.
    pub visibility_timeout_ms: u64,
    /// For a group: how many bytes of log are kept for it while it is behind, at least 1 MiB; 0 means 1 GiB. What it has not
    /// read by then comes as a gap. The latest call counts for the group.
    pub lag_bytes_max: u64,
    /// For a group: how old the log gets that is kept for it while it is behind, in milliseconds, at least 1000; 0 means 7
    /// days. The latest call counts for the group.
    pub lag_age_max_ms: u64,
}

// SAFETY: `repr(C)`, the size is first, pointers and integers only.
unsafe impl Versioned for tidewire_read_options_t {
    const INIT: &'static str = "TIDEWIRE_READ_OPTIONS_INIT";
    const FIRST_SIZE: usize = first_size!(tidewire_read_options_t, lag_age_max_ms: u64);
}

/// Follows the log. Only events that a rule wants, or that are kept (`engine.retention`), are in it.
///
/// `options`: NULL for the defaults. What is said to be for a group is of no account.
/// `tail_out`: set to the tail, or to NULL if it fails.
///
/// Fails with `TIDEWIRE_INVALID_ARGUMENT` (also for a position of another data directory), `_INVALID_CONFIG` for a filter, a
/// bucket or types that are wrong, `_CLOSED`, `_WRONG_PROCESS`.
///
/// # Safety
/// The pointers are NULL or as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidewire_tail_open(
    engine: *const tidewire_engine_t,
    options: *const tidewire_read_options_t,
    tail_out: *mut *mut tidewire_tail_t,
    err: *mut *mut tidewire_error_t,
) -> tidewire_result_t {
    let body = || {
        // SAFETY: NULL or writable, by contract.
        unsafe { none(tail_out, "tail_out")? };
        // SAFETY: NULL or open, by contract.
        let engine = unsafe { engine_ref(engine)? };
        // SAFETY: NULL or a struct of its size, whose fields are as described, by contract.
        let wanted = unsafe { wanted(options, &engine.event_types())? };
        let tail = engine.tail(wanted.filter, &wanted.from)?;
        // SAFETY: as above.
        unsafe { give(tail_out, tidewire_tail_t(Mutex::new(tail))) };
        Ok(())
    };
    // SAFETY: NULL or writable, by contract.
    unsafe { entry(err, body) }
}

/// What comes next: waits for the first one, and takes what is there then.
///
/// `max`: the most items.
/// `timeout_ms`: how long to wait for the first one.
/// `items_out`: set to what was read, which is none if there was nothing in time; to NULL if the call fails. Free it with
/// `tidewire_items_free`.
///
/// Fails with `TIDEWIRE_CLOSED` when the engine is closed and everything was read; `_IO` and the like if the log cannot be
/// read; `_INVALID_ARGUMENT`, `_WRONG_PROCESS`. The items before that were given.
///
/// # Safety
/// The pointers are NULL or as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidewire_tail_next(
    tail: *const tidewire_tail_t,
    max: usize,
    timeout_ms: u64,
    items_out: *mut *mut tidewire_items_t,
    err: *mut *mut tidewire_error_t,
) -> tidewire_result_t {
    let body = || {
        // SAFETY: NULL or writable, by contract.
        unsafe { none(items_out, "items_out")? };
        check_count(max, "max")?;
        // SAFETY: NULL or not freed, by contract.
        let mut tail = unsafe { held(tail, "tail")? }.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut items = Vec::new();
        let mut wait = milliseconds(timeout_ms);
        while items.len() < max {
            match tail.next_within(wait) {
                Ok(Some(Item::Entry(entry))) => {
                    items.push(Held::event(Arc::new(entry), 0, tidewire_lease_t::default()))
                }
                Ok(Some(Item::Gap(gap))) => items.push(Held::gap(&gap)),
                Ok(None) => break,
                // It is told by the next call.
                Err(_) if !items.is_empty() => break,
                Err(e) => return Err(e),
            }
            wait = Duration::ZERO;
        }
        // SAFETY: as above.
        unsafe { give(items_out, tidewire_items_t(items)) };
        Ok(())
    };
    // SAFETY: NULL or writable, by contract.
    unsafe { entry(err, body) }
}

/// How far a tail has come, for `TIDEWIRE_FROM_POSITION`, also of another run.
///
/// `position_out`: set to a NUL-terminated text, or to NULL if the call fails. Free it with `tidewire_string_free`.
/// `len_out`: set to its length in bytes without the NUL; may be NULL.
///
/// Fails with `TIDEWIRE_INVALID_ARGUMENT`.
///
/// # Safety
/// The pointers are NULL or as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidewire_tail_position(
    tail: *const tidewire_tail_t,
    position_out: *mut *mut c_char,
    len_out: *mut usize,
    err: *mut *mut tidewire_error_t,
) -> tidewire_result_t {
    let body = || {
        // SAFETY: NULL or not freed, by contract.
        let tail = unsafe { held(tail, "tail")? }.0.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(tail.position())
    };
    // SAFETY: NULL or writable, by contract.
    unsafe { string(position_out, "position_out", len_out, err, body) }
}

/// Frees a tail.
///
/// `tail`: the address of the pointer, which is set to NULL. NULL, and the address of NULL, are allowed and do nothing. No
/// other call with it may be running or follow.
///
/// # Safety
/// `tail` is NULL or as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidewire_tail_free(tail: *mut *mut tidewire_tail_t) {
    // SAFETY: as described, by contract.
    unsafe { free(tail) }
}

/// How many items there are; 0 for NULL.
///
/// # Safety
/// `items` is NULL or not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidewire_items_count(items: *const tidewire_items_t) -> usize {
    // SAFETY: NULL or not freed, by contract.
    unsafe { items.as_ref() }.map_or(0, |items| items.0.len())
}

/// One of the items.
///
/// `n`: which one, from 0.
/// `item_out`: initialised with `TIDEWIRE_ITEM_INIT`; filled in, or left unchanged if the call fails.
///
/// Fails with `TIDEWIRE_INVALID_ARGUMENT`.
///
/// # Safety
/// The pointers are NULL or as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidewire_items_get(
    items: *const tidewire_items_t,
    n: usize,
    item_out: *mut tidewire_item_t,
    err: *mut *mut tidewire_error_t,
) -> tidewire_result_t {
    let body = || {
        // SAFETY: NULL or not freed, by contract.
        let items = unsafe { held(items, "items")? };
        let item = items.0.get(n).ok_or_else(|| {
            engine::Error::new(ErrorKind::InvalidArgument, format!("there is no item {n}; there are {}", items.0.len()))
                .at("n")
                .remedy("ask for those below tidewire_items_count")
        })?;
        // SAFETY: NULL or a struct of its size, by contract.
        unsafe { fill(item_out, "item_out", &item.item()) }
    };
    // SAFETY: NULL or writable, by contract.
    unsafe { entry(err, body) }
}

/// Frees items, and the events that they point to. Events that a member of a group has stay with it.
///
/// `items`: the address of the pointer, which is set to NULL. NULL, and the address of NULL, are allowed and do nothing.
///
/// # Safety
/// `items` is NULL or as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidewire_items_free(items: *mut *mut tidewire_items_t) {
    // SAFETY: as described, by contract.
    unsafe { free(items) }
}

/// A member of a group of consumers, which is made if it is not there.
///
/// Members of a group share its events: each goes to one of them, on a lease. Of one key there is one event out at a time, so
/// that the events of a key are processed in order, whoever does it. An event that is not acknowledged in time goes out again.
/// What a group has done is saved about every `engine.delivery.cursor_interval`: after a crash, what was acknowledged since
/// then goes out again. The events that a group wants are kept in the log for it, whether or not a rule wants them. A group
/// exists until `tidewire_group_delete`, with or without members.
///
/// `group`: its name.
/// `options`: NULL for the defaults. Which events it wants is fixed when the group is made, and where it begins is of no
/// account for one that exists.
/// `consumer_out`: set to the member, or to NULL if it fails.
///
/// Fails with `TIDEWIRE_INVALID_ARGUMENT` for a name that is not allowed, another filter than the group's or a position of
/// another directory; `_INVALID_CONFIG` for options out of range; `_FULL` if there are too many groups; `_IO` and the like if
/// it cannot be stored; `_CLOSED`, `_WRONG_PROCESS`.
///
/// # Safety
/// The pointers are NULL or as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidewire_consumer_open(
    engine: *const tidewire_engine_t,
    group: tidewire_bytes_t,
    options: *const tidewire_read_options_t,
    consumer_out: *mut *mut tidewire_consumer_t,
    err: *mut *mut tidewire_error_t,
) -> tidewire_result_t {
    let body = || {
        // SAFETY: NULL or writable, by contract.
        unsafe { none(consumer_out, "consumer_out")? };
        // SAFETY: NULL or open, by contract.
        let engine = unsafe { engine_ref(engine)? };
        // SAFETY: as described, by contract.
        let (group, wanted) = unsafe { (name(group, "group")?, wanted(options, &engine.event_types())?) };
        let consumer = engine.consumer(group, &wanted)?;
        // SAFETY: as above.
        unsafe { give(consumer_out, tidewire_consumer_t(consumer)) };
        Ok(())
    };
    // SAFETY: NULL or writable, by contract.
    unsafe { entry(err, body) }
}

/// Takes events that no member has, and waits if there are none. Fewer than `max` are no sign that there are no more. A gap
/// tells of events that the group should have had and will not get, because it was too far behind or they were damaged: it
/// comes once, to one member, and needs no acknowledgement.
///
/// `max`: the most items; at most 10000 come at a time.
/// `timeout_ms`: how long to wait if there are none.
/// `items_out`: set to what was taken, which may be none; to NULL if the call fails. Free it with `tidewire_items_free`.
///
/// Fails with `TIDEWIRE_NOT_FOUND` if the group was deleted; `_IO` and the like if the log cannot be read; `_CLOSED`,
/// `_INVALID_ARGUMENT`, `_WRONG_PROCESS`.
///
/// # Safety
/// The pointers are NULL or as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidewire_consumer_fetch(
    consumer: *const tidewire_consumer_t,
    max: usize,
    timeout_ms: u64,
    items_out: *mut *mut tidewire_items_t,
    err: *mut *mut tidewire_error_t,
) -> tidewire_result_t {
    let body = || {
        // SAFETY: NULL or writable, by contract.
        unsafe { none(items_out, "items_out")? };
        // SAFETY: NULL or not freed, by contract.
        let fetched = unsafe { held(consumer, "consumer")? }.0.fetch(max, milliseconds(timeout_ms))?;
        let items = fetched.into_iter().map(|delivery| match delivery {
            Delivery::Event(d) => {
                let [shard, sequence, token] = d.lease.to_numbers();
                Held::event(d.entry, d.deliveries, tidewire_lease_t { shard, sequence, token })
            }
            Delivery::Gap(gap) => Held::gap(&gap),
        });
        // SAFETY: as above.
        unsafe { give(items_out, tidewire_items_t(items.collect())) };
        Ok(())
    };
    // SAFETY: NULL or writable, by contract.
    unsafe { entry(err, body) }
}

/// Events are processed. Those whose leases are good are done, whatever becomes of the others.
///
/// `leases`: `count` of them, as the items have them.
///
/// Fails with `TIDEWIRE_TIMEOUT` if a lease had run out: the event was, or will be, given to another member, and what was done
/// for it here may be done twice. `_NOT_FOUND` if an event is done already, or the group was deleted. `_CLOSED`,
/// `_WRONG_PROCESS`, `_INVALID_ARGUMENT`: nothing is done.
///
/// # Safety
/// The pointers are NULL or as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidewire_consumer_ack(
    consumer: *const tidewire_consumer_t,
    leases: *const tidewire_lease_t,
    count: usize,
    err: *mut *mut tidewire_error_t,
) -> tidewire_result_t {
    let body = || {
        // SAFETY: NULL or not freed, by contract.
        let consumer = unsafe { held(consumer, "consumer")? };
        check_count(count, "leases")?;
        if leases.is_null() && count > 0 {
            return Err(null("leases"));
        }
        // SAFETY: `count` of them, by contract.
        let leases: Vec<Lease> = (0..count).map(|n| unsafe { leases.add(n).read_unaligned() }.lease()).collect();
        consumer.0.ack(&leases)
    };
    // SAFETY: NULL or writable, by contract.
    unsafe { entry(err, body) }
}

/// An event could not be processed: it goes out again.
///
/// `delay_ms`: how long it waits before.
///
/// Fails as `tidewire_consumer_ack`.
///
/// # Safety
/// The pointers are NULL or as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidewire_consumer_nack(
    consumer: *const tidewire_consumer_t,
    lease: *const tidewire_lease_t,
    delay_ms: u64,
    err: *mut *mut tidewire_error_t,
) -> tidewire_result_t {
    // SAFETY: NULL or as described, by contract.
    let body = || unsafe { with_lease(consumer, lease, |c, l| c.nack(l, milliseconds(delay_ms))) };
    // SAFETY: NULL or writable, by contract.
    unsafe { entry(err, body) }
}

/// An event takes longer: the lease begins anew, with the member's whole `visibility_timeout_ms`.
///
/// Fails as `tidewire_consumer_ack`.
///
/// # Safety
/// The pointers are NULL or as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidewire_consumer_extend(
    consumer: *const tidewire_consumer_t,
    lease: *const tidewire_lease_t,
    err: *mut *mut tidewire_error_t,
) -> tidewire_result_t {
    // SAFETY: NULL or as described, by contract.
    let body = || unsafe { with_lease(consumer, lease, AnyConsumer::extend) };
    // SAFETY: NULL or writable, by contract.
    unsafe { entry(err, body) }
}

/// Frees a member: what it has not acknowledged goes out again at once.
///
/// `consumer`: the address of the pointer, which is set to NULL. NULL, and the address of NULL, are allowed and do nothing. No
/// other call with it may be running or follow.
///
/// # Safety
/// `consumer` is NULL or as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidewire_consumer_free(consumer: *mut *mut tidewire_consumer_t) {
    // SAFETY: as described, by contract.
    unsafe { free(consumer) }
}

/// Deletes a group of consumers: what it has done is forgotten, and the log is not kept for it any more. Calls of its members
/// fail with `TIDEWIRE_NOT_FOUND` from then on.
///
/// Fails with `TIDEWIRE_NOT_FOUND` if there is no such group; `_IO` and the like if that cannot be stored; `_CLOSED`,
/// `_INVALID_ARGUMENT`, `_WRONG_PROCESS`.
///
/// # Safety
/// The pointers are NULL or as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidewire_group_delete(
    engine: *const tidewire_engine_t,
    group: tidewire_bytes_t,
    err: *mut *mut tidewire_error_t,
) -> tidewire_result_t {
    let body = || {
        // SAFETY: NULL or open, and as described, by contract.
        let (engine, group) = unsafe { (engine_ref(engine)?, name(group, "group")?) };
        engine.delete_group(group)
    };
    // SAFETY: NULL or writable, by contract.
    unsafe { entry(err, body) }
}

/// The groups of consumers, as a JSON list of objects with `name`, `given`, `repeated`, `expired`, `acknowledged`,
/// `dead_lettered`, `missed`, `out` and `lag`: events given out, of those repeats, leases that ran out, events acknowledged and
/// given up, sequences that never came, events that members have now, and sequences of the log behind the oldest event that is
/// not done. Counts are of this run of the engine. Later versions may add members.
///
/// # Safety
/// The pointers are NULL or as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidewire_groups_json(
    engine: *const tidewire_engine_t,
    json_out: *mut *mut c_char,
    len_out: *mut usize,
    err: *mut *mut tidewire_error_t,
) -> tidewire_result_t {
    let body = || {
        // SAFETY: NULL or open, by contract.
        let groups = unsafe { engine_ref(engine)? }.groups()?;
        Ok(groups.iter().map(told).collect::<Value>().to_string())
    };
    // SAFETY: NULL or writable, by contract.
    unsafe { string(json_out, "json_out", len_out, err, body) }
}

fn told(g: &GroupStats) -> Value {
    json!({
        "name": g.name, "given": g.given, "repeated": g.repeated, "expired": g.expired, "acknowledged": g.acknowledged,
        "dead_lettered": g.dead_lettered, "missed": g.missed, "out": g.out, "lag": g.lag,
    })
}

impl tidewire_lease_t {
    fn lease(self) -> Lease {
        Lease::of_numbers([self.shard, self.sequence, self.token])
    }
}

/// # Safety
/// `consumer` is NULL or not freed, `lease` NULL or readable.
unsafe fn with_lease(
    consumer: *const tidewire_consumer_t,
    lease: *const tidewire_lease_t,
    act: impl FnOnce(&AnyConsumer, Lease) -> Result<()>,
) -> Result<()> {
    // SAFETY: as for this function.
    let consumer = unsafe { held(consumer, "consumer")? };
    if lease.is_null() {
        return Err(null("lease"));
    }
    // SAFETY: as for this function.
    act(&consumer.0, unsafe { lease.read_unaligned() }.lease())
}

impl Held {
    fn event(entry: Arc<Entry>, deliveries: u32, lease: tidewire_lease_t) -> Held {
        let mut pairs = PairsOf::default();
        let event = tidewire_event_t::of(&entry.frame(), &mut pairs);
        let item = tidewire_item_t {
            shard: u32::from(entry.id.shard),
            sequence: entry.id.sequence,
            sequence_last: entry.id.sequence,
            clock_ns: entry.sequencer.clock_ns,
            deliveries,
            lease,
            ..tidewire_item_t::default()
        };
        // An id has no NUL.
        let id = CString::new(entry.id.to_string()).unwrap_or_default();
        Held { item, event: Some(event), id, _pairs: pairs, _entry: Some(entry) }
    }

    fn gap(gap: &Gap) -> Held {
        let item = tidewire_item_t {
            shard: u32::from(gap.shard),
            gap: match gap.cause {
                GapCause::Removed => gap_t::TIDEWIRE_GAP_REMOVED as u32,
                GapCause::Damaged => gap_t::TIDEWIRE_GAP_DAMAGED as u32,
            },
            sequence: gap.first,
            sequence_last: gap.last,
            clock_ns: gap.since_ns.unwrap_or(0),
            ..tidewire_item_t::default()
        };
        Held { item, event: None, id: CString::default(), _pairs: PairsOf::default(), _entry: None }
    }

    fn item(&self) -> tidewire_item_t {
        tidewire_item_t {
            event: self.event.as_ref().map_or(std::ptr::null(), std::ptr::from_ref),
            id: self.id.as_ptr(),
            ..self.item
        }
    }
}

impl Default for tidewire_item_t {
    fn default() -> Self {
        tidewire_item_t {
            struct_size: size_of::<tidewire_item_t>(),
            event: std::ptr::null(),
            id: std::ptr::null(),
            shard: 0,
            gap: gap_t::TIDEWIRE_GAP_NONE as u32,
            sequence: 0,
            sequence_last: 0,
            clock_ns: 0,
            deliveries: 0,
            reserved: 0,
            lease: tidewire_lease_t::default(),
        }
    }
}

/// What is read, from where on, and what is said for a group.
///
/// # Safety
/// `options` is NULL or a struct of its size, whose fields are as described.
unsafe fn wanted(options: *const tidewire_read_options_t, types: &EventTypes) -> Result<ConsumerOptions> {
    let mut wanted = ConsumerOptions::default();
    wanted.batch = FETCH_MAX;
    if options.is_null() {
        return Ok(wanted);
    }
    // SAFETY: as for this function.
    let o = unsafe { read(options, "options")? };
    // SAFETY: as for this function.
    let (bucket, events, position) = unsafe {
        (
            name(o.bucket, "bucket")?,
            o.events.text(ErrorKind::InvalidConfig, "events", TEXT_BYTES_MAX)?,
            o.position.text(ErrorKind::InvalidArgument, "position", TEXT_BYTES_MAX)?,
        )
    };
    // SAFETY: NULL or not freed, by contract.
    let filter = unsafe { event_filter(bucket, o.filter)? };
    wanted.filter = filter.with_events(events.split_ascii_whitespace(), types)?;
    wanted.from = match o.from {
        n if n == from::TIDEWIRE_FROM_NOW as u32 => ReadFrom::Now,
        n if n == from::TIDEWIRE_FROM_BEGINNING as u32 => ReadFrom::Beginning,
        n if n == from::TIDEWIRE_FROM_TIME as u32 => ReadFrom::Time(o.from_ns),
        n if n == from::TIDEWIRE_FROM_POSITION as u32 => ReadFrom::Position(position.parse()?),
        n => return Err(unknown("from", n, "use a TIDEWIRE_FROM_ constant")),
    };
    if o.deliveries_max > 0 {
        wanted.deliveries_max = o.deliveries_max;
    }
    if o.visibility_timeout_ms > 0 {
        wanted.visibility_timeout = milliseconds(o.visibility_timeout_ms);
    }
    if o.lag_bytes_max > 0 {
        wanted.lag_bytes_max = o.lag_bytes_max;
    }
    if o.lag_age_max_ms > 0 {
        wanted.lag_age_max = milliseconds(o.lag_age_max_ms);
    }
    Ok(wanted)
}
