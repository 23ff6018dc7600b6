//! The receiver's side, for services that get webhooks. No engine is needed.

use std::cmp::Ordering;
use std::ffi::c_char;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use engine::receive::{self, StandardWebhooks, TOLERANCE};
use engine::{ErrorKind, Result};
use serde_json::{Value, json};

use crate::args::{null, tidewire_bytes_t};
use crate::error::{entry, string, tidewire_error_t};
use crate::raw::tidewire_result_t;
use crate::rules::TEXT_BYTES_MAX;

/// The largest body that is looked at, in bytes.
const BODY_BYTES_MAX: usize = 64 << 20;

/// Checks a request that is signed as Standard Webhooks says.
///
/// `secrets`: `whsec_…` or a public key `whpk_…`; several with spaces between them while one takes the place of another.
/// `id`, `timestamp`, `signature`: the values of the headers `webhook-id`, `webhook-timestamp` and `webhook-signature`.
/// `body`: as it was sent.
/// `tolerance_s`: how far its time may be from now, in seconds; 0 is 300.
/// `err`: see `tidewire_error_t`; may be NULL.
///
/// Fails with `TIDEWIRE_INVALID_ARGUMENT` if no signature fits or the time is too far from now (answer 401), and for secrets that
/// are none.
///
/// # Safety
/// The pointers are NULL or as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidewire_receive_verify(
    secrets: tidewire_bytes_t,
    id: tidewire_bytes_t,
    timestamp: tidewire_bytes_t,
    signature: tidewire_bytes_t,
    body: tidewire_bytes_t,
    tolerance_s: u32,
    err: *mut *mut tidewire_error_t,
) -> tidewire_result_t {
    let body = || {
        // SAFETY: as described, by contract.
        let text = |bytes: &tidewire_bytes_t, name| unsafe {
            bytes.text(ErrorKind::InvalidArgument, name, TEXT_BYTES_MAX).map(str::to_owned)
        };
        let secrets = text(&secrets, "secrets")?;
        let (id, timestamp) = (text(&id, "id")?, text(&timestamp, "timestamp")?);
        let signature = text(&signature, "signature")?;
        // SAFETY: as described, by contract.
        let body = unsafe { body.get(ErrorKind::InvalidArgument, "body", BODY_BYTES_MAX)? };
        let tolerance = if tolerance_s == 0 { TOLERANCE } else { Duration::from_secs(tolerance_s.into()) };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() as i64;
        StandardWebhooks::new(secrets.split_ascii_whitespace())?
            .verify(&id, &timestamp, &signature, body, now, tolerance)
    };
    // SAFETY: NULL or writable, by contract.
    unsafe { entry(err, body) }
}

/// Reads the events of a body, in their order: `Records` of the profiles `aws`, `minio` and `ceph`, CloudEvents in JSON, one or
/// many, or lines of these.
///
/// `body`: at most 64 MiB.
/// `json_out`: set to a JSON list of objects with `id`, `event_type`, `bucket`, `key` (or `key_base64`, if it is not UTF-8),
/// `sequencer` and `record`, NUL-terminated; NULL if the call fails. Free it with `tidewire_string_free`.
/// `len_out`: set to its length in bytes without the NUL; may be NULL.
/// `err`: see `tidewire_error_t`; may be NULL.
///
/// Fails with `TIDEWIRE_INVALID_ARGUMENT` if it is none of that: answer 400. A repeat has the same `id`.
///
/// # Safety
/// The pointers are NULL or as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidewire_receive_json(
    body: tidewire_bytes_t,
    json_out: *mut *mut c_char,
    len_out: *mut usize,
    err: *mut *mut tidewire_error_t,
) -> tidewire_result_t {
    let body = || {
        // SAFETY: as described, by contract.
        let body = unsafe { body.get(ErrorKind::InvalidArgument, "body", BODY_BYTES_MAX)? };
        let told = |event: receive::Received| {
            let mut told = json!({
                "id": event.id, "event_type": event.event_type, "bucket": event.bucket,
                "sequencer": event.sequencer, "record": event.record,
            });
            match String::from_utf8(event.key) {
                Ok(key) => told["key"] = key.into(),
                Err(e) => told["key_base64"] = STANDARD.encode(e.as_bytes()).into(),
            }
            told
        };
        Ok(receive::read(body)?.into_iter().map(told).collect::<Value>().to_string())
    };
    // SAFETY: NULL or writable, by contract.
    unsafe { string(json_out, "json_out", len_out, err, body) }
}

/// Which of two events of one key is newer, by their sequencers.
///
/// `order_out`: set to -1 if `b` is newer, to 1 if `a` is, to 0 if they are the same.
///
/// Fails with `TIDEWIRE_INVALID_ARGUMENT` for what has not 1 to 64 hexadecimal digits.
///
/// # Safety
/// The pointers are NULL or as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidewire_sequencer_compare(
    a: tidewire_bytes_t,
    b: tidewire_bytes_t,
    order_out: *mut i32,
    err: *mut *mut tidewire_error_t,
) -> tidewire_result_t {
    let body = || -> Result<()> {
        if order_out.is_null() {
            return Err(null("order_out"));
        }
        // SAFETY: as described, by contract.
        let text = |bytes: &tidewire_bytes_t, name| unsafe {
            bytes.text(ErrorKind::InvalidArgument, name, TEXT_BYTES_MAX).map(str::to_owned)
        };
        let order = match receive::compare_sequencers(&text(&a, "a")?, &text(&b, "b")?)? {
            Ordering::Less => -1,
            Ordering::Equal => 0,
            Ordering::Greater => 1,
        };
        // SAFETY: not NULL, so it may be written, by contract.
        unsafe { order_out.write_unaligned(order) };
        Ok(())
    };
    // SAFETY: NULL or writable, by contract.
    unsafe { entry(err, body) }
}
