//! Versions.

use std::ffi::c_char;

/// The first number of the version that this header belongs to: other programs break when it changes.
pub const TIDEWIRE_VERSION_MAJOR: u32 = 0;
/// The second number: new functions and fields, or, while the first is 0, changes that break programs.
pub const TIDEWIRE_VERSION_MINOR: u32 = 1;
/// The third number: repairs.
pub const TIDEWIRE_VERSION_PATCH: u32 = 0;

/// The version that this header belongs to, as one number that grows: compare with `tidewire_version_number()`, which
/// tells the version of the library in use.
pub const TIDEWIRE_VERSION_NUMBER: u32 =
    TIDEWIRE_VERSION_MAJOR * 1000000 + TIDEWIRE_VERSION_MINOR * 1000 + TIDEWIRE_VERSION_PATCH;

/// The version of the library in use, such as `0.1.0`. The text is static. Any thread may call it at any time.
#[unsafe(no_mangle)]
pub extern "C" fn tidewire_version() -> *const c_char {
    const TEXT: &str = concat!(env!("CARGO_PKG_VERSION"), "\0");
    TEXT.as_ptr().cast()
}

/// The version of the library in use as a number: major * 1000000 + minor * 1000 + patch. Any thread may call it at any
/// time.
#[unsafe(no_mangle)]
pub extern "C" fn tidewire_version_number() -> u32 {
    TIDEWIRE_VERSION_NUMBER
}
