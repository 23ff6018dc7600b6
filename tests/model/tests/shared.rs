//! The ring between processes under the checker.

use tidewire_model::{Heavy, check, shared};

fn interruptions() -> usize {
    if std::env::var_os("TIDEWIRE_LONG").is_some() { 4 } else { 3 }
}

#[test]
fn no_wake_up_of_the_server_is_lost() {
    for nap in [false, true] {
        check(interruptions(), Heavy::Ordinary, move || shared::no_wake_up_of_the_server_is_lost(nap));
    }
}

#[test]
fn a_client_that_waits_for_space_is_told() {
    check(interruptions(), Heavy::Ordinary, shared::a_client_that_waits_for_space_is_told);
}

#[test]
fn what_the_server_says_is_in_order() {
    check(interruptions(), Heavy::Ordinary, shared::what_the_server_says_is_in_order);
}
