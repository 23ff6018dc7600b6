//! The C interface of Tidewire.
//!
//! What a C program sees is in `include/tidewire.h`, which is generated from this crate: the doc comments here are the
//! comments there. Each function checks its arguments, does its work behind a barrier that panics do not cross, and
//! hands an error out as a number and an object. The names are those of C.

#![allow(non_camel_case_types)]

mod args;
mod engine_handle;
mod error;
mod event;
mod filter;
pub mod numbers;
mod publish;
pub mod raw;
mod stats;
mod version;

pub use args::{tidewire_bytes_t, tidewire_pair_t};
pub use engine_handle::{tidewire_close, tidewire_engine_t, tidewire_flush, tidewire_open, tidewire_options_t};
pub use error::{tidewire_error_code, tidewire_error_free, tidewire_error_message, tidewire_error_t};
pub use event::tidewire_event_t;
pub use filter::{
    tidewire_filter_explain, tidewire_filter_free, tidewire_filter_json, tidewire_filter_matches,
    tidewire_filter_parse, tidewire_filter_plan, tidewire_filter_plan_json, tidewire_filter_schema, tidewire_filter_t,
    tidewire_lint,
};
pub use publish::{tidewire_is_interested, tidewire_publish, tidewire_publish_options_t};
pub use stats::{tidewire_stats, tidewire_stats_json, tidewire_stats_t, tidewire_string_free};
pub use version::{tidewire_version, tidewire_version_number};

#[cfg(test)]
mod tests;
