//! What the library has to say, for the host's log.

use std::ffi::{CString, c_void};
use std::sync::{PoisonError, RwLock};

use engine::{Error, ErrorKind, Result};
use log::{LevelFilter, Log, Metadata, Record};

use crate::error::{entry, one_line, tidewire_error_t};
use crate::event::unknown;
use crate::numbers::tidewire_log_level_t as level;
use crate::raw::{tidewire_log_level_t, tidewire_result_t};

/// Called with one message: how important it is, the part of the library that it is from, and the message, one line of UTF-8.
/// Both are NUL-terminated and may be read during the call only. It is called from any threads, also at the same time, the
/// shards among them, which wait for it: so it should be quick. It must not throw, end its thread, or call this library.
pub type tidewire_log_callback_t = Option<
    unsafe extern "C" fn(
        callback_data: *mut c_void,
        level: tidewire_log_level_t,
        target: *const std::ffi::c_char,
        message: *const std::ffi::c_char,
    ),
>;

type Callback =
    unsafe extern "C" fn(*mut c_void, tidewire_log_level_t, *const std::ffi::c_char, *const std::ffi::c_char);

/// Has the messages of the library told to a function. It is one for all engines of the process, also those that are open
/// already; it takes the place of an earlier one, which is not called any more when this returns. Without it the library says
/// nothing: what concerns one call is in its error, and what is wrong with an engine in `tidewire_stats_json`.
///
/// `callback`: NULL to hear nothing more.
/// `level`: messages less important than this are left out. Those of libraries inside this one are told from
/// `TIDEWIRE_LOG_WARN` on.
///
/// Fails with `TIDEWIRE_INVALID_ARGUMENT` for an unknown level, `_CONFLICT` if the library is part of a program that has its
/// messages already.
///
/// # Safety
/// The pointers are NULL or as described. `callback_data` stays usable until another function takes the place of this one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidewire_log_to(
    callback: tidewire_log_callback_t,
    callback_data: *mut c_void,
    level: tidewire_log_level_t,
    err: *mut *mut tidewire_error_t,
) -> tidewire_result_t {
    let body = || {
        let most = filter(level)?;
        // The first call of the process; later ones find it set, by themselves or by somebody else.
        if log::set_logger(&HOST).is_err() && !std::ptr::eq(address(log::logger()), address(&HOST)) {
            return Err(Error::new(ErrorKind::Conflict, "the messages of the library go elsewhere already")
                .remedy("use the logger of the program that the library is linked into"));
        }
        let mut place = HOST.to.write().unwrap_or_else(PoisonError::into_inner);
        *place = callback.map(|callback| To { callback, data: callback_data });
        log::set_max_level(if place.is_some() { most } else { LevelFilter::Off });
        Ok(())
    };
    // SAFETY: NULL or writable, by contract.
    unsafe { entry(err, body) }
}

fn address(logger: &dyn Log) -> *const () {
    std::ptr::from_ref(logger).cast()
}

static HOST: Host = Host { to: RwLock::new(None) };

struct Host {
    to: RwLock<Option<To>>,
}

struct To {
    callback: Callback,
    data: *mut c_void,
}

// SAFETY: the host promises that the callback may be called from any thread.
unsafe impl Send for To {}
// SAFETY: as above.
unsafe impl Sync for To {}

impl Log for Host {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // Those of other libraries are for who works on this one.
        metadata.target().starts_with("tidewire") || metadata.level() <= log::Level::Warn
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let to = self.to.read().unwrap_or_else(PoisonError::into_inner);
        let Some(to) = &*to else { return };
        let message = one_line(&record.args().to_string());
        let target: CString = one_line(record.target());
        // SAFETY: both live during the call; the host promises the rest.
        unsafe { (to.callback)(to.data, record.level() as u32, target.as_ptr(), message.as_ptr()) };
    }

    fn flush(&self) {}
}

fn filter(n: tidewire_log_level_t) -> Result<LevelFilter> {
    match n {
        n if n == level::TIDEWIRE_LOG_ERROR as u32 => Ok(LevelFilter::Error),
        n if n == level::TIDEWIRE_LOG_WARN as u32 => Ok(LevelFilter::Warn),
        n if n == level::TIDEWIRE_LOG_INFO as u32 => Ok(LevelFilter::Info),
        n if n == level::TIDEWIRE_LOG_DEBUG as u32 => Ok(LevelFilter::Debug),
        n if n == level::TIDEWIRE_LOG_TRACE as u32 => Ok(LevelFilter::Trace),
        n => Err(unknown("level", n, "use a TIDEWIRE_LOG_ constant")),
    }
}
