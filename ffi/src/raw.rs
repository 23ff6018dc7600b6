//! The integers that stand for the enums of [`crate::numbers`] in signatures and structs.

macro_rules! raw {
    ($($name:ident)*) => { $(#[doc = concat!("A number of [`crate::numbers::", stringify!($name), "`], or any other.")]
        pub type $name = u32;)* };
}

// By a macro, so that the header has the enums and not these.
raw! {
    tidewire_result_t
    tidewire_ack_t
    tidewire_on_full_t
    tidewire_outcome_t
    tidewire_intent_t
    tidewire_from_t
    tidewire_log_level_t
    tidewire_gap_t
    tidewire_backlog_t
    tidewire_priority_t
    tidewire_origin_t
    tidewire_event_type_t
    tidewire_filter_format_t
    tidewire_notification_format_t
    tidewire_overlap_t
    tidewire_filter_values_t
    tidewire_extensions_t
    tidewire_metrics_format_t
    tidewire_details_wanted_t
}
