//! How libtidewire.so is linked. The header is not made here: it is checked in, and `tests/header.rs` keeps it fresh.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "linux") {
        // The number changes when programs linked against the last one would break.
        println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libtidewire.so.0");
        // Threads may still be leaving when a host calls dlclose; the code stays mapped.
        println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
    }
}
