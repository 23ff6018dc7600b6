//! Notification documents of S3 while an engine runs, and what to answer a client of S3 to an error.

use std::ffi::c_char;

use engine::rule::{Extensions, FilterValues, Format, NotificationOptions, Overlap};
use engine::{ErrorKind, Result};

use crate::args::{Versioned, first_size, null, read, tidewire_bytes_t};
use crate::engine_handle::{engine_ref, tidewire_engine_t};
use crate::error::{entry, string, tidewire_error_t};
use crate::event::unknown;
use crate::numbers::{
    tidewire_extensions_t as extensions, tidewire_filter_values_t as values, tidewire_notification_format_t as format,
    tidewire_overlap_t as overlap,
};
use crate::raw::{
    tidewire_extensions_t, tidewire_filter_values_t, tidewire_notification_format_t, tidewire_overlap_t,
    tidewire_result_t,
};
use crate::rules::{NAME_BYTES_MAX, expected, name, tell};

/// The largest document is 4 MiB; what is larger the engine refuses with a message of its own.
const DOCUMENT_BYTES_MAX: usize = 64 << 20;

/// How a notification document is read. Initialise with `TIDEWIRE_NOTIFICATION_OPTIONS_INIT`. For `struct_size` see
/// `tidewire_options_t`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct tidewire_notification_options_t {
    /// `sizeof(tidewire_notification_options_t)`.
    pub struct_size: usize,
    /// XML or JSON.
    pub format: tidewire_notification_format_t,
    /// What to do about rules of the document that want the same event.
    pub overlap: tidewire_overlap_t,
    /// How filter values are written.
    pub filter_values: tidewire_filter_values_t,
    /// What the document may say beyond S3.
    pub extensions: tidewire_extensions_t,
    /// The destination that `EventBridgeConfiguration` means; if it is empty, documents that have it are refused.
    pub event_bridge: tidewire_bytes_t,
}

// SAFETY: `repr(C)`, the size is first, pointers and integers only.
unsafe impl Versioned for tidewire_notification_options_t {
    const INIT: &'static str = "TIDEWIRE_NOTIFICATION_OPTIONS_INIT";
    const FIRST_SIZE: usize = first_size!(tidewire_notification_options_t, event_bridge: tidewire_bytes_t);
}

/// Puts the notification document of a bucket, as `PutBucketNotificationConfiguration` of S3 does: all rules that were put
/// for the bucket are replaced by those that it has. An empty one (`<NotificationConfiguration/>`) switches the bucket's
/// notifications off, but for rules of the configuration and of every bucket.
///
/// `document`: XML as the API of S3 takes it, or JSON as the AWS tools write it. Its ARNs name destinations:
/// `arn:tidewire:sqs:::NAME`, `arn:minio:sqs::NAME:webhook`, or those of `[arns]` in the configuration.
/// `options`: NULL for the defaults.
/// `expect`: the version that the bucket's rules must have now, `TIDEWIRE_EXPECT_ANYTHING` or `TIDEWIRE_EXPECT_ABSENT`.
/// `version_out`: set to the new version of the bucket's rules; may be NULL.
///
/// Fails with `TIDEWIRE_INVALID_CONFIG` if the document is wrong, and tells line and column; otherwise as
/// `tidewire_rule_put`. Then nothing has changed. `tidewire_error_s3_code` and `tidewire_error_s3_xml` tell what to answer
/// the client.
///
/// # Safety
/// The pointers are NULL or as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidewire_bucket_notification_put(
    engine: *const tidewire_engine_t,
    bucket: tidewire_bytes_t,
    document: tidewire_bytes_t,
    options: *const tidewire_notification_options_t,
    expect: u64,
    version_out: *mut u64,
    err: *mut *mut tidewire_error_t,
) -> tidewire_result_t {
    let body = || {
        // SAFETY: NULL or open, by contract.
        let engine = unsafe { engine_ref(engine)? };
        // SAFETY: as described, by contract.
        let (bucket, text) = unsafe { (name(bucket, "bucket")?, document_text(document)?) };
        // SAFETY: NULL or a struct of its size, by contract.
        let (format, options) = unsafe { notification_options(options)? };
        let version = engine.put_bucket_notification(bucket, text, format, &options, expected(expect))?;
        // SAFETY: NULL or writable, by contract.
        unsafe { tell(version_out, version) };
        Ok(())
    };
    // SAFETY: NULL or writable, by contract.
    unsafe { entry(err, body) }
}

/// Checks a document as `tidewire_bucket_notification_put` does, and changes nothing.
///
/// # Safety
/// The pointers are NULL or as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidewire_bucket_notification_check(
    engine: *const tidewire_engine_t,
    bucket: tidewire_bytes_t,
    document: tidewire_bytes_t,
    options: *const tidewire_notification_options_t,
    err: *mut *mut tidewire_error_t,
) -> tidewire_result_t {
    let body = || {
        // SAFETY: NULL or open, by contract.
        let engine = unsafe { engine_ref(engine)? };
        // SAFETY: as described, by contract.
        let (bucket, text) = unsafe { (name(bucket, "bucket")?, document_text(document)?) };
        // SAFETY: NULL or a struct of its size, by contract.
        let (format, options) = unsafe { notification_options(options)? };
        engine.check_bucket_notification(bucket, text, format, &options).map(drop)
    };
    // SAFETY: NULL or writable, by contract.
    unsafe { entry(err, body) }
}

/// The notification document of a bucket, as `GetBucketNotificationConfiguration` of S3 gives it: what was put, with ids for
/// configurations that had none; one without configurations if nothing was put. Rules that were put by other ways stand in
/// it where a document can say what they say.
///
/// `format`: `TIDEWIRE_NOTIFICATION_AUTO` is XML here.
/// `text_out`: set to the document, NUL-terminated UTF-8; NULL if the call fails. Free it with `tidewire_string_free`.
/// `len_out`: set to its length in bytes without the NUL; may be NULL.
/// `version_out`: set to the version of the bucket's rules, 0 if it never had any; may be NULL.
/// `left_out`: set to how many rules of the bucket no document can say; may be NULL.
///
/// Fails with `TIDEWIRE_INVALID_ARGUMENT` or `_WRONG_PROCESS`.
///
/// # Safety
/// The pointers are NULL or as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidewire_bucket_notification_get(
    engine: *const tidewire_engine_t,
    bucket: tidewire_bytes_t,
    format: tidewire_notification_format_t,
    text_out: *mut *mut c_char,
    len_out: *mut usize,
    version_out: *mut u64,
    left_out: *mut usize,
    err: *mut *mut tidewire_error_t,
) -> tidewire_result_t {
    let body = || {
        // SAFETY: NULL or open, by contract.
        let engine = unsafe { engine_ref(engine)? };
        // SAFETY: as described, by contract.
        let bucket = unsafe { name(bucket, "bucket")? };
        let found = engine.bucket_notification(bucket, format_of(format)?.unwrap_or(Format::Xml))?;
        // SAFETY: NULL or writable, by contract.
        unsafe {
            tell(version_out, found.version.unwrap_or(0));
            tell(left_out, found.left_out.len());
        }
        Ok(found.text)
    };
    // SAFETY: NULL or writable, by contract.
    unsafe { string(text_out, "text_out", len_out, err, body) }
}

/// What S3 calls an error in the document that its clients get: `MalformedXML`, `InvalidArgument` and the like; empty for
/// NULL. NUL-terminated; it is never freed. `tidewire_error_s3_status` tells the HTTP status that goes with it.
///
/// # Safety
/// `error` is NULL or an error that is not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidewire_error_s3_code(error: *const tidewire_error_t) -> *const c_char {
    // SAFETY: NULL or alive, by contract.
    unsafe { error.as_ref() }.map_or(c"".as_ptr(), tidewire_error_t::s3_code)
}

/// The HTTP status that S3 answers to an error: 400, 404, 409, 500 or 503; 200 for NULL.
///
/// # Safety
/// `error` is NULL or an error that is not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidewire_error_s3_status(error: *const tidewire_error_t) -> u32 {
    // SAFETY: NULL or alive, by contract.
    unsafe { error.as_ref() }.map_or(200, |e| e.engines().s3_code().status().into())
}

/// The error document that S3 answers. Of what failed in the server itself it tells the client nothing.
///
/// `error`: what another call has made.
/// `resource`: what the request was about, such as `/bucket`.
/// `request_id`: the server's id of the request.
/// `xml_out`: set to NUL-terminated UTF-8; NULL if the call fails. Free it with `tidewire_string_free`.
/// `len_out`: set to its length in bytes without the NUL; may be NULL.
///
/// Fails with `TIDEWIRE_INVALID_ARGUMENT`.
///
/// # Safety
/// The pointers are NULL or as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidewire_error_s3_xml(
    error: *const tidewire_error_t,
    resource: tidewire_bytes_t,
    request_id: tidewire_bytes_t,
    xml_out: *mut *mut c_char,
    len_out: *mut usize,
    err: *mut *mut tidewire_error_t,
) -> tidewire_result_t {
    let body = || {
        // SAFETY: NULL or alive, by contract.
        let error = unsafe { error.as_ref() }.ok_or_else(|| null("error"))?;
        // SAFETY: as described, by contract.
        let (resource, id) = unsafe { (name(resource, "resource")?, name(request_id, "request_id")?) };
        Ok(error.engines().to_s3_xml(resource, id))
    };
    // SAFETY: NULL or writable, by contract.
    unsafe { string(xml_out, "xml_out", len_out, err, body) }
}

/// # Safety
/// `document` is as described, for `'a`.
unsafe fn document_text<'a>(document: tidewire_bytes_t) -> Result<&'a str> {
    // SAFETY: as for this function.
    unsafe { document.text(ErrorKind::InvalidConfig, "document", DOCUMENT_BYTES_MAX) }
}

/// # Safety
/// `options` is NULL or points to a struct of its size, whose bytes are as described.
unsafe fn notification_options(
    options: *const tidewire_notification_options_t,
) -> Result<(Option<Format>, NotificationOptions)> {
    if options.is_null() {
        return Ok((None, NotificationOptions::default()));
    }
    // SAFETY: as for this function.
    let o = unsafe { read(options, "options")? };
    // SAFETY: as for this function.
    let bridge = unsafe { o.event_bridge.text(ErrorKind::InvalidArgument, "options.event_bridge", NAME_BYTES_MAX)? };
    let read = NotificationOptions {
        overlap: choice(
            "overlap",
            o.overlap,
            &[
                (overlap::TIDEWIRE_OVERLAP_ALLOW_DEDUPE as u32, Overlap::AllowDedupe),
                (overlap::TIDEWIRE_OVERLAP_STRICT_AWS as u32, Overlap::StrictAws),
                (overlap::TIDEWIRE_OVERLAP_ALLOW_ALL as u32, Overlap::AllowAll),
            ],
        )?,
        filter_values: choice(
            "filter_values",
            o.filter_values,
            &[
                (values::TIDEWIRE_FILTER_VALUES_RAW as u32, FilterValues::Raw),
                (values::TIDEWIRE_FILTER_VALUES_ENCODED as u32, FilterValues::Encoded),
            ],
        )?,
        extensions: choice(
            "extensions",
            o.extensions,
            &[
                (extensions::TIDEWIRE_EXTENSIONS_NONE as u32, Extensions::None),
                (extensions::TIDEWIRE_EXTENSIONS_CEPH as u32, Extensions::Ceph),
            ],
        )?,
        event_bridge: (!bridge.is_empty()).then(|| bridge.to_owned()),
    };
    Ok((format_of(o.format)?, read))
}

fn format_of(number: tidewire_notification_format_t) -> Result<Option<Format>> {
    choice(
        "format",
        number,
        &[
            (format::TIDEWIRE_NOTIFICATION_AUTO as u32, None),
            (format::TIDEWIRE_NOTIFICATION_XML as u32, Some(Format::Xml)),
            (format::TIDEWIRE_NOTIFICATION_JSON as u32, Some(Format::Json)),
        ],
    )
}

fn choice<T: Copy>(field: &str, number: u32, of: &[(u32, T)]) -> Result<T> {
    let found = of.iter().find(|(n, _)| *n == number).map(|(_, choice)| *choice);
    found.ok_or_else(|| unknown(field, number, "use a constant that the header names for it"))
}
