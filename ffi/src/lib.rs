//! The C interface of Tidewire.
//!
//! What a C program sees is in `include/tidewire.h`, which is generated from this crate: the doc comments here are the
//! comments there. Each function checks its arguments, does its work behind a barrier that panics do not cross, and
//! hands an error out as a number and an object. The names are those of C.

#![allow(non_camel_case_types)]

mod args;
mod completions;
mod dead_letters;
mod destinations;
mod engine_handle;
mod enrich;
mod error;
mod event;
mod filter;
mod handle;
mod handlers;
mod logging;
mod notification;
pub mod numbers;
mod publish;
pub mod raw;
mod reading;
mod receive;
mod replay;
mod reserve;
mod rules;
mod stats;
mod version;

pub use args::{tidewire_bytes_t, tidewire_pair_t};
pub use completions::{
    tidewire_completion_t, tidewire_completions_callback_t, tidewire_completions_fd, tidewire_completions_free,
    tidewire_completions_open, tidewire_completions_options_t, tidewire_completions_t, tidewire_completions_take,
    tidewire_submit,
};
pub use dead_letters::{
    tidewire_dead_letter_filter_t, tidewire_dead_letters_export, tidewire_dead_letters_purge,
    tidewire_dead_letters_redrive, tidewire_write_callback_t,
};
pub use destinations::{
    tidewire_destination_confirm, tidewire_destination_delete, tidewire_destination_json, tidewire_destination_put,
    tidewire_destination_resume, tidewire_destination_rotate_secret, tidewire_destination_suspend,
    tidewire_destination_test, tidewire_destinations_json,
};
pub use engine_handle::{
    tidewire_clock_callback_t, tidewire_close, tidewire_engine_t, tidewire_flush, tidewire_open, tidewire_options_t,
};
pub use enrich::{
    tidewire_enrich_callback_t, tidewire_enrich_fail, tidewire_enrich_set_data, tidewire_enrich_set_metadata,
    tidewire_enrich_set_tag, tidewire_enricher_set, tidewire_enricher_t, tidewire_enrichment_t,
};
pub use error::{
    tidewire_error_code, tidewire_error_free, tidewire_error_message, tidewire_error_place, tidewire_error_remedy,
    tidewire_error_t,
};
pub use event::{tidewire_details_t, tidewire_event_t, tidewire_fetch_callback_t};
pub use filter::{
    tidewire_filter_explain, tidewire_filter_free, tidewire_filter_json, tidewire_filter_matches,
    tidewire_filter_parse, tidewire_filter_plan, tidewire_filter_plan_json, tidewire_filter_schema, tidewire_filter_t,
    tidewire_lint,
};
pub use handlers::{
    tidewire_batch_accept, tidewire_batch_accept_but, tidewire_batch_body, tidewire_batch_event,
    tidewire_batch_event_t, tidewire_batch_free, tidewire_batch_header, tidewire_batch_info, tidewire_batch_info_t,
    tidewire_batch_refuse, tidewire_batch_retry, tidewire_batch_retry_after, tidewire_batch_t,
    tidewire_handler_callback_t, tidewire_handler_set, tidewire_handler_t, tidewire_release_callback_t,
};
pub use logging::{tidewire_log_callback_t, tidewire_log_to};
pub use notification::{
    tidewire_bucket_notification_check, tidewire_bucket_notification_get, tidewire_bucket_notification_put,
    tidewire_error_s3_code, tidewire_error_s3_status, tidewire_error_s3_xml, tidewire_notification_options_t,
};
pub use publish::{
    tidewire_append_at, tidewire_details_wanted, tidewire_is_interested, tidewire_last_applied, tidewire_publish,
    tidewire_publish_batch, tidewire_publish_json, tidewire_publish_options_t, tidewire_published_t,
};
pub use reading::{
    tidewire_consumer_ack, tidewire_consumer_extend, tidewire_consumer_fetch, tidewire_consumer_free,
    tidewire_consumer_nack, tidewire_consumer_open, tidewire_consumer_t, tidewire_group_delete, tidewire_groups_json,
    tidewire_item_t, tidewire_items_count, tidewire_items_free, tidewire_items_get, tidewire_items_t, tidewire_lease_t,
    tidewire_read_options_t, tidewire_tail_free, tidewire_tail_next, tidewire_tail_open, tidewire_tail_position,
    tidewire_tail_t,
};
pub use receive::{tidewire_receive_json, tidewire_receive_verify, tidewire_sequencer_compare};
pub use replay::{
    tidewire_replay_cancel, tidewire_replay_find, tidewire_replay_free, tidewire_replay_json,
    tidewire_replay_options_t, tidewire_replay_resume, tidewire_replay_start, tidewire_replay_t, tidewire_replay_wait,
    tidewire_replays_json,
};
pub use reserve::{
    tidewire_abort, tidewire_commit, tidewire_commit_batch, tidewire_commit_submit, tidewire_commit_t,
    tidewire_in_doubt, tidewire_in_doubt_callback_t, tidewire_reservation_free, tidewire_reservation_t,
    tidewire_reservation_token, tidewire_reserve, tidewire_reserve_batch, tidewire_reserve_options_t,
    tidewire_resolve_abort, tidewire_resolve_commit,
};
pub use rules::{tidewire_rule_delete, tidewire_rule_json, tidewire_rule_put, tidewire_rules_json, tidewire_validate};
pub use stats::{tidewire_prometheus, tidewire_stats, tidewire_stats_json, tidewire_stats_t, tidewire_string_free};
pub use version::{tidewire_version, tidewire_version_number};

#[cfg(test)]
mod tests;
