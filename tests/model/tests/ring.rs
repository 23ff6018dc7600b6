//! The ring under the checker.
//!
//! With `TIDEWIRE_LONG=1` threads are interrupted more often.

use tidewire_model::{Heavy, check, ring};

fn long() -> bool {
    std::env::var_os("TIDEWIRE_LONG").is_some()
}

fn interruptions() -> usize {
    if long() { 3 } else { 2 }
}

#[test]
fn records_of_two_producers_come_out_whole_and_in_order() {
    check(interruptions(), Heavy::Expedited, ring::records_of_two_producers_come_out_whole_and_in_order);
}

#[test]
fn space_is_taken_again_once_it_was_read() {
    check(interruptions(), Heavy::Expedited, ring::space_is_taken_again_once_it_was_read);
}

#[test]
fn no_wake_up_is_lost() {
    for heavy in [Heavy::Expedited, Heavy::Ordinary] {
        check(interruptions(), heavy, || ring::no_wake_up_is_lost(false));
    }
    check(interruptions(), Heavy::Expedited, || ring::no_wake_up_is_lost(true));
}

#[test]
fn closing_wakes_the_consumer() {
    for heavy in [Heavy::Expedited, Heavy::Ordinary] {
        check(interruptions(), heavy, ring::closing_wakes_the_consumer);
    }
}

#[test]
fn closing_wakes_who_waits_for_space() {
    check(interruptions() + 1, Heavy::Expedited, ring::closing_wakes_who_waits_for_space);
}

#[test]
fn who_waits_for_space_is_told() {
    check(interruptions(), Heavy::Expedited, || ring::who_waits_for_space_is_told(1));
    if long() {
        check(2, Heavy::Expedited, || ring::who_waits_for_space_is_told(2));
    }
}

#[test]
#[should_panic(expected = "deadlock")]
fn a_missing_fence_is_found() {
    check(interruptions(), Heavy::Missing, || ring::no_wake_up_is_lost(false));
}
