//! The command, and the sources of those who embed nothing.

#[path = "../common/mod.rs"]
mod common;

mod log;
mod process;
#[cfg(feature = "source-directory")]
mod source_directory;
#[cfg(feature = "source-http")]
mod source_http;
