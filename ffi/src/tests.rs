//! Numbers against the engine's, the barrier, and sizes of structs.

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::ptr::null_mut;

use engine::{Error, ErrorKind, KnownType, Result};

use crate::args::{Versioned, fill, first_size, read};
use crate::error::{barrier, entry};
use crate::{
    numbers, tidewire_error_code, tidewire_error_free, tidewire_error_message, tidewire_filter_schema, version,
};

const HEADER: &str = include_str!("../../include/tidewire.h");

/// The constants of the header whose names begin with `prefix`, without it.
fn constants<'a>(text: &'a str, prefix: &str) -> BTreeMap<&'a str, u32> {
    let constant = |line: &'a str| {
        let (name, number) = line.trim().strip_suffix(',')?.split_once(" = ")?;
        Some((name.strip_prefix(prefix)?, number.parse().ok()?))
    };
    text.lines().filter_map(constant).collect()
}

fn screaming(name: &str) -> String {
    let mut out = String::new();
    for c in name.chars() {
        if c.is_uppercase() && !out.is_empty() {
            out.push('_');
        }
        out.extend(c.to_uppercase());
    }
    out
}

#[test]
fn results_are_the_kinds_of_errors_of_the_engine() {
    let header = HEADER.split("enum tidewire_result_t").nth(1).unwrap().split('}').next().unwrap();
    let header = constants(header, "TIDEWIRE_");
    // The enum may grow without this crate being told, so it is read from its source.
    let source = include_str!("../../core/src/error.rs");
    let kinds = source.split("pub enum ErrorKind {").nth(1).unwrap().split('}').next().unwrap();
    let kinds = constants(kinds, "");
    assert!(kinds.len() >= 18);
    assert_eq!(header.len(), kinds.len() + 1, "one for each, and TIDEWIRE_OK");
    assert_eq!(header["OK"], 0);
    for (name, number) in kinds {
        assert_eq!(header.get(screaming(name).as_str()), Some(&number), "{name}");
    }
    assert_eq!(numbers::tidewire_result_t::TIDEWIRE_INTERNAL as u32, ErrorKind::Internal as u32);
}

#[test]
fn event_types_are_the_known_types_of_the_engine() {
    let header = constants(HEADER, "TIDEWIRE_EVENT_");
    assert_eq!(header.len(), KnownType::ALL.len() + 1);
    assert_eq!(header["NAMED"], 0);
    for t in KnownType::ALL {
        let name = screaming(&format!("{t:?}"));
        assert_eq!(header.get(name.as_str()), Some(&(*t as u32)), "{name}");
    }
}

#[test]
fn the_version_is_that_of_the_package() {
    let numbers = [version::TIDEWIRE_VERSION_MAJOR, version::TIDEWIRE_VERSION_MINOR, version::TIDEWIRE_VERSION_PATCH];
    assert_eq!(numbers.map(|n| n.to_string()).join("."), env!("CARGO_PKG_VERSION"));
    // SAFETY: a static text that ends with NUL.
    let text = unsafe { CStr::from_ptr(version::tidewire_version()) };
    assert_eq!(text.to_str(), Ok(env!("CARGO_PKG_VERSION")));
}

#[test]
fn the_schema_is_that_of_the_engine() {
    // SAFETY: a static text that ends with NUL.
    let text = unsafe { CStr::from_ptr(tidewire_filter_schema()) };
    assert_eq!(text.to_str(), Ok(engine::filter::FILTER_SCHEMA));
}

#[test]
fn a_panic_becomes_an_error() {
    std::panic::set_hook(Box::new(|_| {}));
    let e = barrier(|| -> Result<()> { panic!("with {} value", 1) }).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Panic);
    assert!(e.to_string().starts_with("panic in Tidewire: with 1 value; "), "{e}");
    let e = barrier(|| -> Result<()> { std::panic::panic_any(7) }).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Panic);
    // SAFETY: `err` may be NULL.
    let code = unsafe { entry(null_mut(), || panic!("plain")) };
    assert_eq!(code, 15);
    let _ = std::panic::take_hook();
}

#[test]
fn messages_are_one_line_of_c() {
    let mut err = null_mut();
    // SAFETY: `err` may be written; what it is set to is read and freed once.
    unsafe {
        assert_eq!(entry(&raw mut err, || Err(Error::new(ErrorKind::NotFound, "a\0b\nc"))), 17);
        assert_eq!(tidewire_error_code(err), 17);
        assert_eq!(CStr::from_ptr(tidewire_error_message(err)).to_str(), Ok("a\\u{0}b\\nc"));
        tidewire_error_free(err);
        assert_eq!(entry(&raw mut err, || Ok(())), 0);
        assert!(err.is_null());
        assert_eq!(tidewire_error_code(err), 0);
        assert_eq!(tidewire_error_message(err).read(), 0);
        tidewire_error_free(err);
    }
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Grown {
    struct_size: usize,
    first: u64,
    later: u64,
}

// SAFETY: `repr(C)`, the size is first, integers only.
unsafe impl Versioned for Grown {
    const INIT: &'static str = "GROWN_INIT";
    const FIRST_SIZE: usize = first_size!(Grown, first: u64);
}

#[test]
fn structs_of_older_programs_are_taken_as_far_as_they_go() {
    let old = size_of::<usize>() + 8;
    let mut s = Grown { struct_size: old, first: 5, later: 6 };
    // SAFETY: a struct of at least its size.
    let seen = unsafe { read(&raw const s, "s").unwrap() };
    assert_eq!((seen.first, seen.later), (5, 0));
    // SAFETY: as above.
    unsafe { fill(&raw mut s, "s", &Grown { struct_size: 99, first: 7, later: 8 }).unwrap() };
    assert_eq!((s.struct_size, s.first, s.later), (old, 7, 6), "what the caller has not is not written");
    for (size, remedy) in
        [(0, "GROWN_INIT"), (old - 1, "GROWN_INIT"), (size_of::<Grown>() + 8, "later version"), (usize::MAX, "GROWN")]
    {
        s.struct_size = size;
        // SAFETY: as above; wrong sizes are found before anything else is read.
        let e = unsafe { read(&raw const s, "s") }.map(|_| ()).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::InvalidArgument);
        assert!(e.to_string().contains(remedy) && e.to_string().starts_with("s.struct_size is"), "{e}");
    }
}
