//! Opening, flushing and closing.

use std::ffi::c_void;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};
use std::time::Duration;

use engine::config::{Config, WallClock};
use engine::{AnyEngine, ClientOptions, Error, ErrorKind, Result};

use crate::args::{Versioned, first_size, null, read, tidewire_bytes_t};
use crate::error::{entry, tidewire_error_t};
use crate::event::unknown;
use crate::handlers::tidewire_release_callback_t;
use crate::raw::tidewire_result_t;

/// An engine over one data directory: made by `tidewire_open`, ended by `tidewire_close`. It is this process's own, or that of
/// another one, to which this process is connected; all functions are the same.
///
/// All functions that take a `const tidewire_engine_t *` may be called from any threads at the same time, signal
/// handlers excepted. A process may have many engines, each with its own data directory.
///
/// After `fork`, the child must not use the engine of its parent: calls answer `TIDEWIRE_WRONG_PROCESS`, and
/// `tidewire_close` only frees what the child has of it. The child may open an engine of its own, on another data
/// directory. The parent is not affected.
pub struct tidewire_engine_t {
    pub(crate) engine: AnyEngine,
}

/// How an engine is opened. Initialise with `TIDEWIRE_OPTIONS_INIT`.
///
/// Structs that begin with `struct_size` grow at the end in later versions. A library takes the struct of an older
/// header, and uses the defaults for what it lacks. It refuses that of a newer one with `TIDEWIRE_INVALID_ARGUMENT`,
/// because it does not know what it would be ignoring. All bytes zero but `struct_size` is the same as the
/// initialiser.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct tidewire_options_t {
    /// `sizeof(tidewire_options_t)`.
    pub struct_size: usize,
    /// The configuration as text (TOML), at most 64 MiB. Paths in it are relative to the current directory. Give this,
    /// `config_path` or `address`.
    pub config_text: tidewire_bytes_t,
    /// The path of a configuration file. Paths in the file are relative to its directory.
    pub config_path: tidewire_bytes_t,
    /// The data directory; if it is not empty, the one of the configuration is of no account.
    pub data_dir: tidewire_bytes_t,
    /// The engine of another process: `unix:` and the path of the socket where it listens (`[engine.shared]` of its
    /// configuration). Then there is no configuration here.
    pub address: tidewire_bytes_t,
    /// How long to wait for that process to listen, in milliseconds, and for the connection to come back in calls that have no
    /// time of their own; 0 means 5000.
    pub connect_timeout_ms: u64,
    /// Not 0: the engine of this configuration is for several processes, which all open it like this. The first has the data
    /// directory and listens at `engine.shared.socket`, the others are connected to it; when it ends, one of them takes it
    /// over.
    pub shared: u32,
    /// Must be 0.
    pub reserved: u32,
    /// The wall clock; NULL means that of the machine. See `tidewire_clock_callback_t`.
    pub clock: tidewire_clock_callback_t,
    /// Handed to `clock`.
    pub clock_data: *mut c_void,
    /// Called once, when `clock` will not be called any more, with `clock_data`; may be NULL. If the engine could not be opened
    /// it is not called.
    pub clock_release: tidewire_release_callback_t,
}

/// Says the time, in nanoseconds since the Unix epoch. Events that tell no time of their own are told it by this, and the log,
/// ages, retention and windows go by it. Waiting does not, and what other machines compare with theirs goes by the machine's
/// clock: signatures, tokens, certificates, the times when a secret is valid, states of destinations.
///
/// Any thread calls it, for each event, so it must be quick and must not wait for anything, nor call this library. It may go
/// backwards: no sequencer becomes smaller than an earlier one, and no age larger. Where it jumps ahead, what is there is as old
/// as it says. A time beyond the year 2262 is that year, and 0 is 1.
pub type tidewire_clock_callback_t = Option<unsafe extern "C" fn(clock_data: *mut c_void) -> u64>;

// SAFETY: `repr(C)`, the size is first, pointers and integers only.
unsafe impl Versioned for tidewire_options_t {
    const INIT: &'static str = "TIDEWIRE_OPTIONS_INIT";
    const FIRST_SIZE: usize = first_size!(tidewire_options_t, data_dir: tidewire_bytes_t);
}

/// For `tidewire_close`: the time that the configuration gives (`engine.close_timeout`, 10 s by default).
pub const TIDEWIRE_TIMEOUT_CONFIGURED: u64 = u64::MAX;

/// The largest configuration, in bytes.
const CONFIG_BYTES_MAX: usize = 64 << 20;
/// The longest address, in bytes.
const ADDRESS_BYTES_MAX: usize = 4096;
/// Longer times mean this one, about ten years; the clock would overflow with the longest.
const TIMEOUT_MS_MAX: u64 = 10 * 366 * 24 * 3600 * 1000;

/// Opens an engine, or connects to that of another process.
///
/// Several processes over one engine: events of one bucket and key are delivered in the order of the calls, whatever
/// processes made them. What is accepted at `TIDEWIRE_ACK_MEMORY` is taken in although the process that published it dies.
/// A reservation ends with its process; one with a durable intent is in doubt from then on (`tidewire_in_doubt`). When the
/// engine's process dies, the others connect again by themselves, and what it had not taken is given to the next one;
/// meanwhile calls wait as long as they may, and then fail with `TIDEWIRE_DISCONNECTED`. With that they also fail if they
/// were waiting: then nobody knows whether the event was accepted. Handlers (`tidewire_handler_set`) belong to the process
/// that has the engine.
///
/// What an earlier run left undelivered in the data directory goes on. Destinations are not contacted yet, so one that
/// is down delays nothing. The engine runs a few threads per shard, on which all signals but those of faults are blocked;
/// it installs no handlers. The sources of the configuration are for the `tidewire` command, and are not started.
///
/// `options`: read during the call only.
/// `engine_out`: set to the new engine, or to NULL if it fails. End it with `tidewire_close`.
/// `err`: see `tidewire_error_t`; may be NULL.
///
/// Fails with `TIDEWIRE_INVALID_ARGUMENT`, `_INVALID_CONFIG`, `_IO_URING_UNAVAILABLE`, `_LOCKED`, `_READ_ONLY`,
/// `_NO_SPACE`, `_NEWER_FORMAT`, `_CORRUPT` or `_IO`; with an address also with `_DISCONNECTED`, and with `_FULL` if too many
/// processes are connected.
///
/// # Safety
/// The pointers are NULL or as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidewire_open(
    options: *const tidewire_options_t,
    engine_out: *mut *mut tidewire_engine_t,
    err: *mut *mut tidewire_error_t,
) -> tidewire_result_t {
    let body = || {
        if engine_out.is_null() {
            return Err(null("engine_out"));
        }
        // SAFETY: not NULL, so it may be written.
        unsafe { engine_out.write_unaligned(std::ptr::null_mut()) };
        // SAFETY: NULL or a struct of its size, by contract.
        let options = unsafe { read(options, "options")? };
        // SAFETY: what the fields say, by contract.
        let handle = Box::new(tidewire_engine_t { engine: unsafe { opened(&options)? } });
        // SAFETY: as above.
        unsafe { engine_out.write_unaligned(Box::into_raw(handle)) };
        Ok(())
    };
    // SAFETY: NULL or writable, by contract.
    unsafe { entry(err, body) }
}

/// # Safety
/// The fields are as described.
unsafe fn opened(options: &tidewire_options_t) -> Result<AnyEngine> {
    let host = options.clock.map(|callback| {
        let (data, release) = (options.clock_data, options.clock_release);
        Arc::new(HostClock { callback, data, release, refused: AtomicBool::new(false) })
    });
    let clock = host.clone().map(|host| WallClock::new(move || host.now_ns()));
    // SAFETY: as for this function.
    let opened = unsafe { opened_with(options, clock) };
    if let (Err(_), Some(host)) = (&opened, &host) {
        host.refused.store(true, Ordering::Relaxed);
    }
    opened
}

/// The clock of the host.
struct HostClock {
    callback: unsafe extern "C" fn(*mut c_void) -> u64,
    data: *mut c_void,
    release: tidewire_release_callback_t,
    /// The data are still the host's.
    refused: AtomicBool,
}

// SAFETY: the data are only handed to the callbacks, which the host has promised may be called from any thread.
unsafe impl Send for HostClock {}
// SAFETY: as above, at the same time.
unsafe impl Sync for HostClock {}

impl HostClock {
    fn now_ns(&self) -> u64 {
        // SAFETY: the host promises the rest.
        unsafe { (self.callback)(self.data) }
    }
}

impl Drop for HostClock {
    fn drop(&mut self) {
        if let Some(release) = self.release
            && !*self.refused.get_mut()
        {
            // SAFETY: the callback is called no more; the host promises the rest.
            unsafe { release(self.data) };
        }
    }
}

/// # Safety
/// The fields are as described.
unsafe fn opened_with(options: &tidewire_options_t, clock: Option<WallClock>) -> Result<AnyEngine> {
    let mut how = ClientOptions::default();
    how.clock = clock.clone();
    if options.connect_timeout_ms > 0 {
        how.connect_timeout = milliseconds(options.connect_timeout_ms);
    }
    if options.reserved != 0 {
        return Err(unknown("reserved", options.reserved, "set it to 0"));
    }
    if options.address.is_empty() {
        // SAFETY: as for this function.
        let mut config = unsafe { config(options)? };
        config.engine.clock = clock;
        return if options.shared == 0 { AnyEngine::open(config) } else { AnyEngine::open_or_connect(config, how) };
    }
    if !options.config_text.is_empty() || !options.config_path.is_empty() || !options.data_dir.is_empty() {
        return Err(Error::new(ErrorKind::InvalidArgument, "options has an address and a configuration")
            .at("address")
            .remedy("the configuration is that of the process that has the engine; give one of them"));
    }
    // SAFETY: as for this function.
    let address = unsafe { options.address.text(ErrorKind::InvalidArgument, "address", ADDRESS_BYTES_MAX)? };
    AnyEngine::connect(address, how)
}

/// # Safety
/// The fields are as described.
pub(crate) unsafe fn config(options: &tidewire_options_t) -> Result<Config> {
    // SAFETY: as for this function.
    let data_dir = unsafe { options.data_dir.path("data_dir")? };
    let data_dir = (!data_dir.as_os_str().is_empty()).then_some(data_dir);
    match (options.config_text.is_empty(), options.config_path.is_empty()) {
        (false, true) => {
            const NAME: &str = "config_text";
            // SAFETY: as for this function.
            let text = unsafe { options.config_text.text(ErrorKind::InvalidConfig, NAME, CONFIG_BYTES_MAX)? };
            match data_dir {
                Some(dir) => Config::from_toml_with_data_dir(text, NAME, Path::new(""), dir),
                None => Config::from_toml(text, NAME, Path::new("")),
            }
        }
        (true, false) => {
            // SAFETY: as for this function.
            let path = unsafe { options.config_path.path("config_path")? };
            match data_dir {
                Some(dir) => Config::from_file_with_data_dir(path, dir),
                None => Config::from_file(path),
            }
        }
        (true, true) => Err(Error::new(ErrorKind::InvalidArgument, "options has no configuration")
            .remedy("give config_text or config_path, or the address of an engine")),
        (false, false) => Err(Error::new(ErrorKind::InvalidArgument, "options has two configurations")
            .remedy("give config_text or config_path, not both")),
    }
}

/// Waits until every event that was accepted before the call is delivered or a dead letter.
///
/// `timeout_ms`: how long to wait; 0 asks whether it is so now.
///
/// Fails with `TIDEWIRE_TIMEOUT` (the message tells how many deliveries still wait; they go on), `_CLOSED`,
/// `_WRONG_PROCESS` or `_INVALID_ARGUMENT`.
///
/// # Safety
/// The pointers are NULL or as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidewire_flush(
    engine: *const tidewire_engine_t,
    timeout_ms: u64,
    err: *mut *mut tidewire_error_t,
) -> tidewire_result_t {
    let body = || {
        // SAFETY: NULL or open, by contract.
        let engine = unsafe { engine_ref(engine)? };
        engine.flush(milliseconds(timeout_ms))
    };
    // SAFETY: NULL or writable, by contract.
    unsafe { entry(err, body) }
}

/// Closes an engine and frees it. That of another process goes on: closing waits until it has taken in what this process has
/// published, and ends the connection. One of this process takes no more events, writes and syncs what was accepted, delivers
/// until the timeout, and leaves the rest in the data directory for the next opening. When it returns, no file or socket of the engine is
/// left and its shards have ended; a helper thread of each may take a moment more.
///
/// `engine`: the address of the pointer to the engine, which is set to NULL before anything else, whatever the result
/// is. NULL, and the address of NULL, are allowed and do nothing, so that closing twice does no harm. No other call
/// with this engine may be running or follow, and it must not be called from a signal handler.
/// `timeout_ms`: how long to deliver; 0 only makes durable what was accepted; `TIDEWIRE_TIMEOUT_CONFIGURED` takes the
/// time of the configuration.
///
/// Fails with `TIDEWIRE_TIMEOUT` if another process has not taken in everything, `TIDEWIRE_INTERNAL` if a shard ended badly, `_WRONG_PROCESS` in a forked child (where it frees the
/// child's copy, and the engine of the parent goes on), or `_PANIC`. Events that are not delivered in time are no
/// failure.
///
/// # Safety
/// The pointers are NULL or as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidewire_close(
    engine: *mut *mut tidewire_engine_t,
    timeout_ms: u64,
    err: *mut *mut tidewire_error_t,
) -> tidewire_result_t {
    let body = || {
        if engine.is_null() {
            return Ok(());
        }
        if !engine.is_aligned() {
            return Err(Error::new(ErrorKind::InvalidArgument, "engine is not the address of a pointer"));
        }
        // SAFETY: aligned and writable. Two threads that close through one variable get the engine once.
        let taken = unsafe { AtomicPtr::from_ptr(engine) }.swap(std::ptr::null_mut(), Ordering::AcqRel);
        if taken.is_null() {
            return Ok(());
        }
        // SAFETY: made by `tidewire_open`, not closed yet, by contract.
        let handle = unsafe { Box::from_raw(taken) };
        let timeout = match timeout_ms {
            TIDEWIRE_TIMEOUT_CONFIGURED => handle.engine.close_timeout(),
            ms => milliseconds(ms),
        };
        handle.engine.close(timeout)
    };
    // SAFETY: NULL or writable, by contract.
    unsafe { entry(err, body) }
}

/// # Safety
/// `engine` is NULL or open for `'a`.
pub(crate) unsafe fn engine_ref<'a>(engine: *const tidewire_engine_t) -> Result<&'a AnyEngine> {
    // SAFETY: NULL or open, by contract.
    match unsafe { engine.as_ref() } {
        Some(handle) => Ok(&handle.engine),
        None => Err(null("engine")),
    }
}

pub(crate) fn milliseconds(ms: u64) -> Duration {
    Duration::from_millis(ms.min(TIMEOUT_MS_MAX))
}
