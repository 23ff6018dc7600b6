//! Rules while an engine runs, and configurations that are only checked.

use std::ffi::c_char;

use engine::rule::Expect;
use engine::{ErrorKind, Result};

use crate::args::{read, tidewire_bytes_t};
use crate::engine_handle::{config, engine_ref, tidewire_engine_t, tidewire_options_t};
use crate::error::{entry, string, tidewire_error_t};
use crate::raw::tidewire_result_t;

/// For `expect`: whatever is there.
pub const TIDEWIRE_EXPECT_ANYTHING: u64 = 0;
/// For `expect`: nothing of that name is there.
pub const TIDEWIRE_EXPECT_ABSENT: u64 = u64::MAX;

/// The largest rule or destination as text, in bytes.
pub(crate) const TEXT_BYTES_MAX: usize = 4 << 20;
/// The longest name, in bytes; what is really allowed the engine says.
pub(crate) const NAME_BYTES_MAX: usize = 4096;

/// Puts one rule, new or in the place of the one that it has in its bucket. The others stay as they are. An event that is
/// published after this has returned is matched by the new rule, and one that was published before it was called by the
/// earlier one. It is kept in the data directory, unless the configuration says `engine.rules = "host"`.
///
/// `rule`: one `[[rule]]` as the configuration has it, with the named filters that it uses; or its table as a JSON object:
/// `{"id": "images", "bucket": "b", "events": ["s3:ObjectCreated:*"], "prefix": "in/", "destinations": ["d"]}`.
/// `expect`: the version that the rule must have now, `TIDEWIRE_EXPECT_ANYTHING` or `TIDEWIRE_EXPECT_ABSENT`.
/// `version_out`: set to the rule's new version; may be NULL.
///
/// Fails with `TIDEWIRE_INVALID_CONFIG` if the rule is wrong; `_CONFLICT` if `expect` does not hold, or the rule belongs to
/// the configuration; `_IO` and the like if it cannot be stored; `_CLOSED`, `_WRONG_PROCESS`, `_INVALID_ARGUMENT`. Then
/// nothing has changed.
///
/// # Safety
/// The pointers are NULL or as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidewire_rule_put(
    engine: *const tidewire_engine_t,
    rule: tidewire_bytes_t,
    expect: u64,
    version_out: *mut u64,
    err: *mut *mut tidewire_error_t,
) -> tidewire_result_t {
    let body = || {
        // SAFETY: NULL or open, by contract.
        let engine = unsafe { engine_ref(engine)? };
        // SAFETY: as described, by contract.
        let text = unsafe { rule.text(ErrorKind::InvalidConfig, "rule", TEXT_BYTES_MAX)? };
        let version = engine.put_rule_text(text, expected(expect))?;
        // SAFETY: NULL or writable, by contract.
        unsafe { tell(version_out, version) };
        Ok(())
    };
    // SAFETY: NULL or writable, by contract.
    unsafe { entry(err, body) }
}

/// Deletes a rule that was put. What it has matched is delivered all the same.
///
/// `bucket`: empty for a rule of every bucket.
/// `expect`: as for `tidewire_rule_put`.
///
/// Fails with `TIDEWIRE_NOT_FOUND` if there is none that was put; otherwise as `tidewire_rule_put`.
///
/// # Safety
/// The pointers are NULL or as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidewire_rule_delete(
    engine: *const tidewire_engine_t,
    bucket: tidewire_bytes_t,
    id: tidewire_bytes_t,
    expect: u64,
    err: *mut *mut tidewire_error_t,
) -> tidewire_result_t {
    let body = || {
        // SAFETY: NULL or open, by contract.
        let engine = unsafe { engine_ref(engine)? };
        // SAFETY: as described, by contract.
        let (bucket, id) = unsafe { (name(bucket, "bucket")?, name(id, "id")?) };
        engine.delete_rule((!bucket.is_empty()).then_some(bucket), id, expected(expect))
    };
    // SAFETY: NULL or writable, by contract.
    unsafe { entry(err, body) }
}

/// One rule: the one that was put, or else the one of the configuration.
///
/// `bucket`: empty for a rule of every bucket.
/// `json_out`: set to NUL-terminated UTF-8: an object with `rule` (as `tidewire_rule_put` takes it), `version`, `owner`
/// (`configuration` or `callers`), `inactive` (why it is not in force, or null) and `matched` (the events that it wanted).
/// NULL if the call fails. Free it with `tidewire_string_free`.
/// `len_out`: set to its length in bytes without the NUL; may be NULL.
///
/// Fails with `TIDEWIRE_NOT_FOUND`, `_INVALID_ARGUMENT` or `_WRONG_PROCESS`.
///
/// # Safety
/// The pointers are NULL or as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidewire_rule_json(
    engine: *const tidewire_engine_t,
    bucket: tidewire_bytes_t,
    id: tidewire_bytes_t,
    json_out: *mut *mut c_char,
    len_out: *mut usize,
    err: *mut *mut tidewire_error_t,
) -> tidewire_result_t {
    let body = || {
        // SAFETY: NULL or open, by contract.
        let engine = unsafe { engine_ref(engine)? };
        // SAFETY: as described, by contract.
        let (bucket, id) = unsafe { (name(bucket, "bucket")?, name(id, "id")?) };
        Ok(engine.rule_json((!bucket.is_empty()).then_some(bucket), id)?.to_string())
    };
    // SAFETY: NULL or writable, by contract.
    unsafe { string(json_out, "json_out", len_out, err, body) }
}

/// All rules, also those that are not in force: a JSON object with `version`, which grows with each change of rules and
/// destinations, and `rules`, a list of what `tidewire_rule_json` tells of each.
///
/// # Safety
/// The pointers are NULL or as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidewire_rules_json(
    engine: *const tidewire_engine_t,
    json_out: *mut *mut c_char,
    len_out: *mut usize,
    err: *mut *mut tidewire_error_t,
) -> tidewire_result_t {
    let body = || {
        // SAFETY: NULL or open, by contract.
        let engine = unsafe { engine_ref(engine)? };
        Ok(engine.rules_json()?.to_string())
    };
    // SAFETY: NULL or writable, by contract.
    unsafe { string(json_out, "json_out", len_out, err, body) }
}

/// Checks a configuration without opening or changing anything.
///
/// `options`: as for `tidewire_open`; read during the call only.
///
/// Fails as `tidewire_open` does for a configuration that is wrong.
///
/// # Safety
/// The pointers are NULL or as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidewire_validate(
    options: *const tidewire_options_t,
    err: *mut *mut tidewire_error_t,
) -> tidewire_result_t {
    let body = || {
        // SAFETY: NULL or a struct of its size, by contract.
        let options = unsafe { read(options, "options")? };
        // SAFETY: the fields are as described, by contract.
        let config = unsafe { config(&options)? };
        if options.shared != 0 {
            config.engine.required_shared()?;
        }
        Ok(())
    };
    // SAFETY: NULL or writable, by contract.
    unsafe { entry(err, body) }
}

/// # Safety
/// `bytes` is as described, for `'a`.
pub(crate) unsafe fn name<'a>(bytes: tidewire_bytes_t, field: &str) -> Result<&'a str> {
    // SAFETY: as for this function.
    unsafe { bytes.text(ErrorKind::InvalidArgument, field, NAME_BYTES_MAX) }
}

/// # Safety
/// `out` is NULL or may be written.
pub(crate) unsafe fn tell<T>(out: *mut T, value: T) {
    if !out.is_null() {
        // SAFETY: may be written, by contract.
        unsafe { out.write_unaligned(value) };
    }
}

pub(crate) fn expected(expect: u64) -> Expect {
    match expect {
        TIDEWIRE_EXPECT_ANYTHING => Expect::Anything,
        TIDEWIRE_EXPECT_ABSENT => Expect::Absent,
        version => Expect::Version(version),
    }
}
