//! What C hands in: bytes, and structs that tell their size.

use std::ffi::OsStr;
use std::fmt::Display;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use engine::{Error, ErrorKind, Result};

/// Bytes that somebody else owns, not NUL-terminated. `data` may be NULL if `len` is 0. Where they are text, they are
/// UTF-8.
///
/// The library never keeps the pointer after a call, unless the function says so. `tidewire_str("...")` makes one of a C
/// string.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct tidewire_bytes_t {
    /// The first byte.
    pub data: *const u8,
    /// How many bytes.
    pub len: usize,
}

/// A name with a value: UTF-8 both, at most 65535 bytes each.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct tidewire_pair_t {
    /// Not empty.
    pub name: tidewire_bytes_t,
    /// May be empty.
    pub value: tidewire_bytes_t,
}

impl tidewire_bytes_t {
    /// Bytes that go out, for as long as they live.
    pub(crate) fn of(bytes: &[u8]) -> tidewire_bytes_t {
        tidewire_bytes_t { data: bytes.as_ptr(), len: bytes.len() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The bytes, at most `max` of them. The length is checked before anything is read.
    ///
    /// # Safety
    /// `data` points to `len` bytes that stay unchanged for `'a`, or is NULL.
    #[inline]
    pub(crate) unsafe fn get<'a>(self, kind: ErrorKind, field: impl Display, max: usize) -> Result<&'a [u8]> {
        if self.len == 0 {
            return Ok(&[]);
        }
        if self.data.is_null() {
            return Err(null_data(field, self.len));
        }
        if self.len > max {
            return Err(too_long(kind, field, self.len, max));
        }
        // SAFETY: readable by contract, and `max` is below `isize::MAX`.
        Ok(unsafe { std::slice::from_raw_parts(self.data, self.len) })
    }

    /// The text, at most `max` bytes.
    ///
    /// # Safety
    /// As for [`tidewire_bytes_t::get`].
    #[inline]
    pub(crate) unsafe fn text<'a>(self, kind: ErrorKind, field: impl Display, max: usize) -> Result<&'a str> {
        if self.len == 0 {
            return Ok("");
        }
        // SAFETY: as for this function.
        let bytes = unsafe { self.get(kind, &field, max)? };
        // Most are, and that is seen several bytes at a time.
        if bytes.is_ascii() {
            // SAFETY: ASCII is UTF-8.
            return Ok(unsafe { std::str::from_utf8_unchecked(bytes) });
        }
        std::str::from_utf8(bytes).map_err(|e| not_utf8(kind, field, e.valid_up_to()))
    }

    /// The path.
    ///
    /// # Safety
    /// As for [`tidewire_bytes_t::get`].
    pub(crate) unsafe fn path<'a>(self, field: &str) -> Result<&'a Path> {
        // SAFETY: as for this function.
        let bytes = unsafe { self.get(ErrorKind::InvalidArgument, field, PATH_BYTES_MAX)? };
        if let Some(at) = bytes.iter().position(|b| *b == 0) {
            return Err(Error::new(ErrorKind::InvalidArgument, format!("{field} has a NUL byte at offset {at}"))
                .at(field.to_owned())
                .remedy("give the path's length without the end mark of C"));
        }
        Ok(Path::new(OsStr::from_bytes(bytes)))
    }
}

/// The longest path, in bytes (that of Linux).
const PATH_BYTES_MAX: usize = 4096;

/// A struct of the header whose first field is `struct_size`.
///
/// # Safety
/// `repr(C)`, the first field is the size as `usize`, and any bytes are a valid value.
pub(crate) unsafe trait Versioned: Copy {
    /// The initialiser of the header, for errors.
    const INIT: &'static str;
    /// What the size was in the first version; it never changes.
    const FIRST_SIZE: usize;
}

/// A copy of a struct of the caller; what an older program's struct lacks is zero.
///
/// # Safety
/// `ptr` is NULL or points to as many bytes as its first field says.
pub(crate) unsafe fn read<T: Versioned>(ptr: *const T, name: &str) -> Result<T> {
    // SAFETY: as for this function.
    let size = unsafe { size_of_struct(ptr, name)? };
    let mut out = MaybeUninit::<T>::zeroed();
    // SAFETY: `size` bytes are readable by contract and fit into `out`; any bytes are valid.
    unsafe {
        std::ptr::copy_nonoverlapping(ptr.cast::<u8>(), out.as_mut_ptr().cast::<u8>(), size);
        Ok(out.assume_init())
    }
}

/// The struct itself where it is one of this version, or else a copy in `space`. For what is called often: structs of events
/// are large.
///
/// # Safety
/// `ptr` is NULL or points to as many bytes as its first field says, which stay unchanged for `'a`.
#[inline]
pub(crate) unsafe fn look<'a, T: Versioned>(ptr: *const T, name: &str, space: &'a mut MaybeUninit<T>) -> Result<&'a T> {
    // SAFETY: as for this function.
    let size = unsafe { size_of_struct(ptr, name)? };
    if size == size_of::<T>() && ptr.is_aligned() {
        // SAFETY: it is whole, aligned, readable and unchanged by contract; any bytes are valid.
        return Ok(unsafe { &*ptr });
    }
    // SAFETY: as for this function.
    Ok(space.write(unsafe { read(ptr, name)? }))
}

/// Copies of an array of such structs, which are all of one size: that of the caller's header. NULL has none.
///
/// # Safety
/// `ptr` is NULL or points to `count` structs, each of as many bytes as its first field says.
pub(crate) unsafe fn read_all<T: Versioned>(ptr: *const T, count: usize, name: &str) -> Result<Vec<T>> {
    if ptr.is_null() || count == 0 {
        return Ok(Vec::new());
    }
    check_count(count, name)?;
    // SAFETY: as for this function, of the first.
    let size = unsafe { size_of_struct(ptr, &format!("{name}[0]"))? };
    let mut all = Vec::with_capacity(count);
    for n in 0..count {
        // SAFETY: as for this function: those before it are each of this size.
        let item = unsafe { ptr.byte_add(n * size) };
        // SAFETY: as above.
        if n > 0 && unsafe { item.cast::<usize>().read_unaligned() } != size {
            return Err(another_size(name, n));
        }
        // SAFETY: as above.
        all.push(unsafe { read(item, name)? });
    }
    Ok(all)
}

/// Sees whether an array can be so long, before anything of it is read or written.
pub(crate) fn check_count(count: usize, name: &str) -> Result<()> {
    if count > ARRAY_MAX { Err(too_many(name, count)) } else { Ok(()) }
}

/// The longest array; more is a mistake of the caller.
const ARRAY_MAX: usize = 1 << 20;

/// Fills a struct of the caller as far as it goes; its size field stays.
///
/// # Safety
/// `ptr` is NULL or points to as many bytes as its first field says, which may be written.
pub(crate) unsafe fn fill<T: Versioned>(ptr: *mut T, name: &str, value: &T) -> Result<()> {
    // SAFETY: as for this function.
    let size = unsafe { size_of_struct(ptr, name)? };
    let head = size_of::<usize>();
    // SAFETY: `size` bytes are writable by contract and within `value`, and not fewer than the head.
    unsafe {
        let from = std::ptr::from_ref(value).cast::<u8>();
        std::ptr::copy_nonoverlapping(from.add(head), ptr.cast::<u8>().add(head), size - head);
    }
    Ok(())
}

/// The size that a struct says it has, if this version can work with it.
///
/// # Safety
/// `ptr` is NULL or points to a `usize`.
#[inline]
pub(crate) unsafe fn size_of_struct<T: Versioned>(ptr: *const T, name: &str) -> Result<usize> {
    if ptr.is_null() {
        return Err(null(name));
    }
    // SAFETY: readable by contract.
    let size = unsafe { ptr.cast::<usize>().read_unaligned() };
    // What was added is in whole words, so that a size that ends within a field is nobody's.
    let is_whole = size == T::FIRST_SIZE || size.is_multiple_of(size_of::<u64>());
    if (T::FIRST_SIZE..=size_of::<T>()).contains(&size) && is_whole {
        return Ok(size);
    }
    Err(wrong_size(name, size, T::INIT, T::FIRST_SIZE, size_of::<T>()))
}

/// `struct_size` reaching up to and with the last field of the first version.
macro_rules! first_size {
    ($type:ty, $last:ident: $field:ty) => {
        std::mem::offset_of!($type, $last) + size_of::<$field>()
    };
}
pub(crate) use first_size;

#[cold]
pub(crate) fn null(name: &str) -> Error {
    Error::new(ErrorKind::InvalidArgument, format!("{name} is NULL"))
}

#[cold]
pub(crate) fn null_data(field: impl Display, len: usize) -> Error {
    Error::new(ErrorKind::InvalidArgument, format!("{field} is NULL, but its length is {len}"))
        .at(field.to_string())
        .remedy("give the data, or the length 0")
}

#[cold]
pub(crate) fn too_long(kind: ErrorKind, field: impl Display, len: usize, max: usize) -> Error {
    Error::new(kind, format!("{field} has {len} bytes, more than {max}")).at(field.to_string()).remedy("shorten it")
}

#[cold]
fn too_many(name: &str, count: usize) -> Error {
    Error::new(ErrorKind::InvalidArgument, format!("{name} has {count} entries, more than {ARRAY_MAX}"))
        .at(name.to_owned())
        .remedy("give fewer at a time")
}

#[cold]
fn another_size(name: &str, n: usize) -> Error {
    Error::new(ErrorKind::InvalidArgument, format!("{name}[{n}].struct_size differs from that of {name}[0]"))
        .at(name.to_owned())
        .remedy("initialise every entry with the initialiser of the same header")
}

#[cold]
fn not_utf8(kind: ErrorKind, field: impl Display, offset: usize) -> Error {
    Error::new(kind, format!("{field} is not UTF-8 at offset {offset}"))
        .at(field.to_string())
        .remedy("encode it as UTF-8; only key and data may be any bytes")
}

#[cold]
fn wrong_size(name: &str, size: usize, init: &str, first: usize, known: usize) -> Error {
    let e = Error::new(ErrorKind::InvalidArgument, format!("{name}.struct_size is {size}, not {first} to {known}"));
    if size < first || size > 2 * known {
        e.remedy(format!("initialise the struct with {init}"))
    } else {
        e.remedy(format!(
            "the program may be built with the header of a later version than {}: use that version's library",
            env!("CARGO_PKG_VERSION")
        ))
    }
}
