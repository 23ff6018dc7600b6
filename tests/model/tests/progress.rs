//! The receipts under the checker.
//!
//! With `TIDEWIRE_LONG=1` threads are interrupted more often.

use tidewire_model::{Heavy, check, progress};

fn interruptions() -> usize {
    if std::env::var_os("TIDEWIRE_LONG").is_some() { 4 } else { 2 }
}

#[test]
fn who_waits_for_an_ack_is_told() {
    check(interruptions(), Heavy::Expedited, progress::who_waits_for_an_ack_is_told);
}

#[test]
fn who_waits_when_the_log_fails_is_told() {
    check(interruptions(), Heavy::Expedited, progress::who_waits_when_the_log_fails_is_told);
}

#[test]
fn who_gives_up_disturbs_nobody() {
    check(interruptions(), Heavy::Expedited, progress::who_gives_up_disturbs_nobody);
}
