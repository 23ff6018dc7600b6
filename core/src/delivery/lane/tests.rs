//! The lane by itself: time and randomness made up, no network.

use super::*;
use crate::delivery::endpoint::{EndpointPolicy, Stopped};
use crate::rule::{BreakerPolicy, DisablePolicy, RateLimits};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::time::Duration;

const S: u64 = 1_000_000_000;

fn policy() -> LanePolicy {
    LanePolicy {
        batch: BatchLimits { events_max: 10, bytes_max: 1000, linger: Duration::from_millis(5) },
        retry: RetryPolicy::default(),
        events_max: 100,
    }
}

fn endpoint() -> EndpointPolicy {
    EndpointPolicy {
        concurrency: 4,
        adapts: false,
        breaker: BreakerPolicy::default(),
        retry_after_max_ns: 3600 * S,
        rate: RateLimits::default(),
        disable: DisablePolicy::default(),
    }
}

fn made(policy: LanePolicy, endpoint: EndpointPolicy, cursor: Cursor) -> Lane<u64> {
    Lane::new(policy, Balancer::single(Endpoint::new(endpoint)), Seat::default(), cursor)
}

fn item(sequence: u64, key: u64) -> Item<u64> {
    Item { sequence, key, bytes: 50, accepted_ns: sequence, priority: Priority::Normal, region: 0, body: sequence }
}

fn at(mono_ns: u64) -> Now {
    Now { mono_ns, wall_ns: mono_ns }
}

fn lane() -> Lane<u64> {
    made(policy(), endpoint(), Cursor::at(0))
}

fn push(lane: &mut Lane<u64>, item: Item<u64>) {
    assert!(lane.push(item, at(0)));
}

fn send(lane: &mut Lane<u64>, now: Now) -> Batch<u64> {
    match lane.poll(now) {
        Action::Send(b) => b,
        other => panic!("expected a batch, got {other:?}"),
    }
}

fn sequences(b: &Batch<u64>) -> Vec<u64> {
    b.items.iter().map(|i| i.sequence).collect()
}

fn retry() -> Outcome {
    Outcome::Retry { fault: Fault::Events, reason: "x".into(), status: 404, answer: Bytes::new() }
}

#[test]
fn waits_for_company_until_linger_or_full() {
    let mut l = lane();
    l.push(item(1, 1), at(0));
    assert!(matches!(l.poll(at(0)), Action::Wait(5_000_000)));
    assert_eq!(sequences(&send(&mut l, at(5_000_000))), [1]);
    let mut l = lane();
    (1..=10).for_each(|n| push(&mut l, item(n, n)));
    assert_eq!(send(&mut l, at(0)).items.len(), 10);
    let mut l = lane();
    l.push(item(1, 1), at(0));
    l.set_flushing(true);
    assert_eq!(send(&mut l, at(0)).items.len(), 1);
}

#[test]
fn batches_are_cut_by_bytes_and_one_large_event_goes_alone() {
    let mut l = lane();
    for n in 1..=3 {
        l.push(Item { bytes: 600, ..item(n, n) }, at(0));
    }
    l.push(Item { bytes: 5000, ..item(4, 4) }, at(0));
    l.set_flushing(true);
    for expect in 1..=4 {
        assert_eq!(sequences(&send(&mut l, at(0))), [expect]);
    }
}

#[test]
fn a_failing_key_holds_no_other_key() {
    let mut l = lane();
    l.push(item(1, 7), at(0));
    let b = send(&mut l, at(S));
    l.push(item(2, 7), at(S));
    l.push(item(3, 8), at(S));
    l.complete(b, retry(), at(S), 1.0);
    let b = send(&mut l, at(S + 10_000_000));
    assert_eq!(sequences(&b), [3], "the other key goes on");
    l.complete(b, Outcome::Success, at(S), 0.0);
    // The key's first event again, alone, then the one behind it.
    let b = send(&mut l, at(3 * S));
    assert_eq!((sequences(&b), b.attempts), (vec![1], 1));
    assert!(!matches!(l.poll(at(3 * S)), Action::Send(_)));
    l.complete(b, Outcome::Success, at(3 * S), 0.0);
    assert_eq!(sequences(&send(&mut l, at(4 * S))), [2]);
}

#[test]
fn back_off_doubles_with_jitter_between_half_and_whole() {
    for (random, share) in [(0.0, 0.5), (0.999_999_9, 1.0)] {
        let mut l = lane();
        l.push(item(1, 1), at(0));
        let mut now = S;
        for n in 0..5 {
            let b = send(&mut l, at(now));
            l.complete(b, retry(), at(now), random);
            let Action::Wait(until) = l.poll(at(now)) else { panic!("no wait") };
            let expect = (S << n) as f64 * share;
            assert!((((until - now) as f64) - expect).abs() < 1000.0, "{} for {expect}", until - now);
            now = until;
        }
    }
}

#[test]
fn old_events_become_dead_and_the_key_goes_on() {
    let mut l = lane();
    l.push(item(1, 1), at(0));
    let late = 73 * 3600 * S;
    let b = send(&mut l, at(late));
    l.push(Item { accepted_ns: late, ..item(2, 1) }, at(late));
    let done = l.complete(b, retry(), at(late), 0.5);
    assert_eq!((done.spent.len(), done.spent[0].status, done.retried), (1, 404, 0));
    assert_eq!(l.cursor(2).low(), 0, "it is open until its letter is stored");
    l.settle(1);
    assert_eq!(l.cursor(2).low(), 1);
    assert_eq!(sequences(&send(&mut l, at(late + S))), [2]);
}

#[test]
fn poison_is_cut_out_and_spent_after_three_attempts() {
    let mut l = lane();
    (1..=8).for_each(|n| push(&mut l, item(n, n)));
    l.set_flushing(true);
    let (mut now, mut delivered, mut spent) = (0, 0, Vec::new());
    for _ in 0..100 {
        match l.poll(at(now)) {
            Action::Send(b) => {
                let bad = sequences(&b).contains(&5);
                let outcome = if bad {
                    Outcome::Poison { reason: "bad".into(), status: 400, answer: Bytes::new() }
                } else {
                    Outcome::Success
                };
                let done = l.complete(b, outcome, at(now), 0.5);
                delivered += done.delivered;
                spent.extend(done.spent.into_iter().map(|s| (s.item.sequence, s.status)));
            }
            Action::Wait(until) => now = until,
            Action::Idle => break,
        }
    }
    assert_eq!((delivered, spent), (7, vec![(5, 400)]));
    assert!(now < 300 * S, "within five minutes");
}

#[test]
fn poison_among_events_of_one_key_keeps_their_order() {
    let mut l = lane();
    (1..=8).for_each(|n| push(&mut l, item(n, 1)));
    l.set_flushing(true);
    let (mut now, mut order) = (0, Vec::new());
    for _ in 0..100 {
        match l.poll(at(now)) {
            Action::Send(b) => {
                let s = sequences(&b);
                let outcome = if s.contains(&3) {
                    Outcome::Poison { reason: "bad".into(), status: 400, answer: Bytes::new() }
                } else {
                    order.extend(s);
                    Outcome::Success
                };
                for x in l.complete(b, outcome, at(now), 0.5).spent {
                    order.push(x.item.sequence);
                }
            }
            Action::Wait(until) => now = until,
            Action::Idle => break,
        }
    }
    assert_eq!(order, [1, 2, 3, 4, 5, 6, 7, 8]);
}

#[test]
fn throttling_pauses_the_endpoint_and_counts_no_attempt() {
    let mut l = lane();
    l.push(item(1, 1), at(0));
    let b = send(&mut l, at(S));
    l.push(item(2, 2), at(S));
    let slow = Outcome::Throttle { after_ns: Some(7 * S), reason: "429".into(), status: 429, answer: Bytes::new() };
    l.complete(b, slow, at(S), 0.5);
    assert!(matches!(l.poll(at(2 * S)), Action::Wait(until) if until == 8 * S));
    let b = send(&mut l, at(8 * S));
    assert_eq!((sequences(&b), b.attempts), (vec![1], 0));
}

#[test]
fn a_dead_endpoint_is_probed_one_batch_at_a_time() {
    let mut l = lane();
    for n in 1..=60 {
        l.push(item(n, n), at(0));
    }
    let down = || Outcome::Retry { fault: Fault::Endpoint, reason: "refused".into(), status: 0, answer: Bytes::new() };
    let mut now = 0;
    let mut sent = 0;
    while matches!(l.gate(at(now)), Gate::Closed) {
        match l.poll(at(now)) {
            Action::Send(b) => {
                sent += 1;
                l.complete(b, down(), at(now), 0.5);
            }
            Action::Wait(until) => now = until,
            Action::Idle => panic!("idle"),
        }
    }
    assert_eq!(sent, 5);
    let Action::Wait(until) = l.poll(at(now)) else { panic!("must wait") };
    let probe = send(&mut l, at(until));
    assert!(matches!(l.poll(at(until)), Action::Idle), "one probe only");
    l.complete(probe, Outcome::Success, at(until), 0.5);
    for _ in 0..2 {
        let probe = send(&mut l, at(until));
        assert!(matches!(l.poll(at(until)), Action::Idle), "still one at a time");
        l.complete(probe, Outcome::Success, at(until), 0.5);
    }
    assert!(matches!(l.gate(at(until)), Gate::Closed));
    l.policy.events_max = 1000;
    for n in 61..=300 {
        l.push(item(n, n), at(0));
    }
    // From one at a time to as many as before.
    for together in [1, 2, 4, 4] {
        let batches: Vec<_> = (0..together).map(|_| send(&mut l, at(until + 100 * S))).collect();
        assert!(matches!(l.poll(at(until + 100 * S)), Action::Idle));
        batches.into_iter().for_each(|b| drop(l.complete(b, Outcome::Success, at(until + 100 * S), 0.5)));
    }
}

/// Two days away, and then four more than events are kept for: it is asked at the latest when the breaker's longest time is
/// over, for as long as there is something to send.
#[test]
fn reconnecting_is_given_up_after_five_minutes() {
    const HOUR: u64 = 3600 * S;
    let policy = policy();
    let longest = endpoint().breaker.open_max.as_nanos() as u64 * 12 / 10;
    for (away, random) in [(48 * HOUR, 0.0), (48 * HOUR, 0.999), (168 * HOUR, 0.5)] {
        // Nor is it disabled meanwhile.
        let disable = DisablePolicy { after: Duration::from_secs(1000 * 3600), ..DisablePolicy::default() };
        let mut l = made(policy.clone(), EndpointPolicy { disable, ..endpoint() }, Cursor::at(0));
        let (mut now, mut asked, mut delivered, mut spent, mut pushed) = (S, S, 0, 0, 0);
        for _ in 0..1_000_000 {
            // Something new every hour.
            while pushed * HOUR <= now.min(away) {
                pushed += 1;
                l.push(Item { accepted_ns: now, ..item(pushed, pushed % 7) }, at(now));
            }
            match l.poll(at(now)) {
                Action::Send(b) => {
                    assert!(now - asked <= longest, "not asked for {} s", (now - asked) / S);
                    asked = now;
                    let down = || Outcome::Retry {
                        fault: Fault::Endpoint,
                        reason: "x".into(),
                        status: 0,
                        answer: Bytes::new(),
                    };
                    let done = l.complete(b, if now < away { down() } else { Outcome::Success }, at(now), random);
                    delivered += done.delivered;
                    spent += done.spent.len();
                    done.spent.iter().for_each(|s| l.settle(s.item.sequence));
                }
                Action::Wait(until) => now = until,
                Action::Idle if now < away => now += HOUR,
                Action::Idle => break,
            }
        }
        assert_eq!(delivered + spent, pushed as usize);
        assert_eq!(spent > 0, away > 72 * HOUR, "given up is what is too old, and only that: {spent}");
        assert!(delivered > 40, "{delivered}");
    }
}

#[test]
fn retry_after_is_ignored_or_taken_without_a_bound() {
    for (after_ns, expect) in [(Some(0), 1), (Some(7 * S), 7), (Some(u64::MAX), 3600), (None, 30)] {
        let mut l = lane();
        l.push(item(1, 1), at(0));
        let b = send(&mut l, at(S));
        let later = Outcome::Throttle { after_ns, reason: "503".into(), status: 503, answer: Bytes::new() };
        l.complete(b, later, at(S), 0.5);
        l.push(item(2, 2), at(S));
        l.set_flushing(true);
        assert!(matches!(l.poll(at(S)), Action::Wait(until) if until == S + expect * S), "{after_ns:?}");
        assert_eq!(sequences(&send(&mut l, at(S + expect * S))), [1]);
    }
}

fn denied() -> Outcome {
    Outcome::Denied { reason: "403".into(), status: 403, answer: Bytes::new() }
}

#[test]
fn a_receiver_that_lets_nobody_in_is_left_alone_as_a_whole_and_its_events_keep_their_budget() {
    let mut l = lane();
    l.set_flushing(true);
    (1..=20).for_each(|n| push(&mut l, item(n, n)));
    let (mut now, mut asked) = (S, 0);
    // For two days: one batch is tried each time, later and later; nothing is given up.
    while now < 48 * 3600 * S {
        match l.poll(at(now)) {
            Action::Send(b) => {
                asked += 1;
                let others: Vec<_> = std::iter::from_fn(|| match l.poll(at(now)) {
                    Action::Send(b) => Some(b),
                    _ => None,
                })
                .collect();
                assert!(asked == 1 || others.is_empty(), "one at a time");
                for b in std::iter::once(b).chain(others) {
                    assert_eq!(l.complete(b, denied(), at(now), 0.5).spent.len(), 0);
                }
            }
            Action::Wait(until) => now = until,
            Action::Idle => panic!("idle"),
        }
    }
    assert!((500..700).contains(&asked), "every five minutes: {asked}");
    let mut sum = 0;
    while let Action::Send(b) = l.poll(at(now)) {
        sum += l.complete(b, Outcome::Success, at(now), 0.5).delivered;
    }
    assert_eq!(sum, 20);
}

/// One that is refused each time does not stand for all others when the endpoint is probed.
#[test]
fn one_event_that_is_not_let_in_holds_others_up_for_a_moment_only() {
    let mut l = lane();
    l.set_flushing(true);
    l.policy.batch.events_max = 1;
    push(&mut l, item(1, 7));
    // An event each second for a day, and how long each waits.
    let (mut now, mut next, mut pushed_at, mut slow) = (S, 2, BTreeMap::new(), 0);
    while next < 86_400 {
        while next * S <= now {
            push(&mut l, item(next, next + 10));
            pushed_at.insert(next, next * S);
            next += 1;
        }
        match l.poll(at(now)) {
            Action::Send(b) => {
                let n = b.items[0].sequence;
                slow += u64::from(pushed_at.remove(&n).is_some_and(|then| now - then > 20 * S));
                l.complete(b, if n == 1 { denied() } else { Outcome::Success }, at(now), 0.5);
            }
            Action::Wait(until) => now = until.min(next * S),
            Action::Idle => now = next * S,
        }
    }
    assert!(slow < 60 && pushed_at.len() < 10, "{slow} slow, {} wait", pushed_at.len());
}

#[test]
fn what_is_gone_is_asked_each_hour_for_a_day_and_then_no_more() {
    const HOUR: u64 = 3600 * S;
    for back_after in [None, Some(5)] {
        let mut l = lane();
        l.set_flushing(true);
        (1..=3).for_each(|n| push(&mut l, item(n, n)));
        let (mut now, mut asked) = (S, Vec::new());
        loop {
            match l.poll(at(now)) {
                Action::Send(b) => {
                    asked.push(now);
                    let back = back_after.is_some_and(|n| asked.len() > n);
                    let gone = Outcome::Gone { reason: "410".into(), status: 410, answer: Bytes::new() };
                    l.complete(b, if back { Outcome::Success } else { gone }, at(now), 0.5);
                }
                Action::Wait(until) => now = until,
                Action::Idle => break,
            }
        }
        let apart = asked.windows(2).take(5).all(|w| w[1] - w[0] == HOUR);
        assert!(apart, "{asked:?}");
        match back_after {
            None => {
                assert_eq!((asked.len(), l.endpoints().only().unwrap().stopped()), (25, Some(Stopped::Gone)));
                assert_eq!(l.open_events(), 3, "nothing is lost by it");
                l.endpoints().only().unwrap().reset();
                assert_eq!(sequences(&send(&mut l, at(now))).len(), 3);
            }
            Some(n) => {
                assert_eq!((asked.len(), l.endpoints().only().unwrap().stopped(), l.open_events()), (n + 1, None, 0))
            }
        }
    }
}

#[test]
fn partial_batch_failure_the_whole_batch_again_or_a_key_out_of_order() {
    let mut l = lane();
    // Keys: 1 1 2 1 3 2.
    for (n, key) in [(1, 1), (2, 1), (3, 2), (4, 1), (5, 3), (6, 2)] {
        push(&mut l, item(n, key));
    }
    l.set_flushing(true);
    let b = send(&mut l, at(S));
    assert_eq!(sequences(&b), [1, 2, 4, 3, 6, 5], "a key goes as a whole");
    // The second of key 1, and the last of key 2.
    let partial = |failed| Outcome::Partial { failed, reason: "2 of 6".into(), status: 200, answer: Bytes::new() };
    let done = l.complete(b, partial(vec![1, 4]), at(S), 0.5);
    assert_eq!((done.delivered, done.retried, done.spent.len()), (3, 3, 0));
    // What waits of those keys, and of another that is done with.
    push(&mut l, item(7, 1));
    push(&mut l, item(8, 3));
    assert_eq!(sequences(&send(&mut l, at(S))), [8], "a key without failures goes on");
    let b = send(&mut l, at(3 * S));
    assert_eq!((sequences(&b), b.attempts), (vec![2, 4, 6], 1), "what came after a failed one of its key comes again");
    assert_eq!(l.complete(b, partial(vec![0]), at(3 * S), 0.5).delivered, 1);
    let b = send(&mut l, at(9 * S));
    assert_eq!(sequences(&b), [2, 4]);
    l.complete(b, Outcome::Success, at(9 * S), 0.5);
    assert_eq!(sequences(&send(&mut l, at(9 * S))), [7]);
    for n in [1, 2, 3, 4, 5, 6] {
        assert!(l.is_done(n), "{n}");
    }
}

#[test]
fn rates_cut_batches_and_make_the_rest_wait() {
    let mut p = policy();
    p.batch.bytes_max = 100_000;
    let rate = RateLimits { events_per_second: Some(5), burst: Duration::from_secs(1), ..RateLimits::default() };
    let mut l = made(p, EndpointPolicy { rate, ..endpoint() }, Cursor::at(0));
    l.set_flushing(true);
    (1..=60).for_each(|n| push(&mut l, item(n, n)));
    let (mut now, mut sum) = (0, 0u64);
    loop {
        match l.poll(at(now)) {
            Action::Send(b) => {
                sum += b.items.len() as u64;
                assert!(sum <= 5 + 5 * now / S, "{sum} after {now} ns");
                // A failure costs as much as a success, and as much again when it is tried again.
                l.complete(b, Outcome::Success, at(now), 0.5);
            }
            Action::Wait(until) => now = until,
            Action::Idle => break,
        }
    }
    assert_eq!((sum, now.div_ceil(S)), (60, 11));
}

#[test]
fn what_was_done_before_a_restart_is_not_done_again() {
    let mut c = Cursor::at(5);
    c.done(8);
    let mut l = made(policy(), endpoint(), c);
    for n in 4..=9 {
        l.push(item(n, n), at(0));
    }
    assert_eq!(sequences(&send(&mut l, at(S))), [6, 7, 9]);
}

#[test]
fn a_budget_by_attempts_applies_to_every_failure_but_being_put_off() {
    let mut p = policy();
    p.retry.attempts_max = Some(3);
    let mut e = endpoint();
    e.breaker.consecutive_failures = 100;
    let faults =
        [(Fault::Endpoint, 0), (Fault::Overload, 503), (Fault::Events, 302), (Fault::Own, 0), (Fault::Events, 404)];
    for (fault, status) in faults {
        let mut l = made(p.clone(), e, Cursor::at(0));
        l.push(item(1, 1), at(0));
        let (mut now, mut spent) = (S, Vec::new());
        for _ in 0..3 {
            let b = send(&mut l, at(now));
            let slow = Outcome::Throttle { after_ns: None, reason: "later".into(), status: 429, answer: Bytes::new() };
            assert_eq!(l.complete(b, slow, at(now), 0.5).spent.len(), 0);
            now += 10_000 * S;
            let b = send(&mut l, at(now));
            let answer = Bytes::from_static(b"no");
            let failed = Outcome::Retry { fault, reason: "r".into(), status, answer };
            spent.extend(l.complete(b, failed, at(now), 0.5).spent);
            now += 10_000 * S;
        }
        assert_eq!((spent.len(), spent[0].attempts, spent[0].status, &*spent[0].answer), (1, 3, status, &b"no"[..]));
        l.settle(1);
        assert!(matches!(l.poll(at(now)), Action::Idle) && l.tried().is_empty());
    }
}

#[test]
fn attempts_made_before_a_restart_count() {
    let mut p = policy();
    p.retry.attempts_max = Some(4);
    let mut l = made(p.clone(), endpoint(), Cursor::at(0));
    (1..=3).for_each(|n| push(&mut l, item(n, n)));
    l.push(item(4, 9), at(0));
    let b = send(&mut l, at(S));
    assert_eq!(b.items.len(), 4);
    l.complete(b, retry(), at(S), 0.5);
    let b = send(&mut l, at(10 * S));
    l.complete(b, retry(), at(10 * S), 0.5);
    let saved = l.tried().clone();
    assert_eq!(saved.values().map(|t| t.attempts).collect::<Vec<_>>(), [2, 2, 2, 2]);

    let mut l = made(p, endpoint(), Cursor::at(1));
    l.restore_tried(saved);
    assert_eq!(l.tried().len(), 3, "what is done needs no attempts");
    (2..=6).for_each(|n| push(&mut l, item(n, n)));
    l.set_flushing(true);
    // What was tried before does not share a batch, and so a number of attempts, with what was not.
    let first = send(&mut l, at(S));
    assert_eq!((sequences(&first), first.attempts), (vec![2, 3, 4], 2));
    let second = send(&mut l, at(S));
    assert_eq!((sequences(&second), second.attempts), (vec![5, 6], 0));
    l.complete(first, retry(), at(S), 0.5);
    l.complete(second, Outcome::Success, at(S), 0.5);
    let b = send(&mut l, at(100 * S));
    assert_eq!(l.complete(b, retry(), at(100 * S), 0.5).spent.len(), 3, "the fourth attempt is the last");
}

#[test]
fn events_that_share_a_batch_with_a_wrong_one_keep_their_attempts() {
    let mut p = policy();
    p.retry.attempts_max = Some(1);
    let mut l = made(p, endpoint(), Cursor::at(0));
    (1..=8).for_each(|n| push(&mut l, item(n, n)));
    l.set_flushing(true);
    let wrong = || Outcome::Poison { reason: "bad".into(), status: 400, answer: Bytes::new() };
    let mut spent = Vec::new();
    while let Action::Send(b) = l.poll(at(S)) {
        let outcome = if sequences(&b).contains(&5) { wrong() } else { Outcome::Success };
        spent.extend(l.complete(b, outcome, at(S), 0.5).spent.into_iter().map(|s| (s.item.sequence, s.attempts)));
    }
    assert_eq!(spent, [(5, 1)]);
}

fn high(sequence: u64, key: u64) -> Item<u64> {
    Item { priority: Priority::High, ..item(sequence, key) }
}

fn low(sequence: u64, key: u64) -> Item<u64> {
    Item { priority: Priority::Low, ..item(sequence, key) }
}

/// The sequences in the order in which they are sent, one batch of two at a time.
fn drained(l: &mut Lane<u64>) -> Vec<u64> {
    let mut order = Vec::new();
    l.set_flushing(true);
    while let Action::Send(b) = l.poll(at(S)) {
        order.extend(sequences(&b));
        l.complete(b, Outcome::Success, at(S), 0.5);
    }
    order
}

#[test]
fn high_priority_goes_first_and_takes_what_its_key_has_before_it_along() {
    let mut p = policy();
    p.batch.events_max = 2;
    let mut l = made(p, endpoint(), Cursor::at(0));
    for i in [item(1, 1), item(2, 2), low(3, 3), item(4, 4), high(5, 4), high(6, 6), item(7, 6)] {
        assert!(l.push(i, at(0)));
    }
    assert_eq!(drained(&mut l), [4, 5, 6, 7, 1, 2, 3]);
    assert!(l.keys.is_empty());
}

#[test]
fn low_priority_waits_under_pressure_only() {
    for (pressure, order) in [(false, [1, 2, 3, 4]), (true, [2, 4, 1, 3])] {
        let mut l = lane();
        l.set_pressure(pressure);
        for i in [low(1, 1), item(2, 2), low(3, 3), item(4, 4)] {
            l.push(i, at(0));
        }
        assert_eq!(drained(&mut l), order);
    }
}

#[test]
fn keys_that_were_passed_over_do_not_pile_up() {
    let mut l = lane();
    l.set_flushing(true);
    l.push(item(1, 999), at(0));
    for n in 0..10_000 {
        // Made ready as normal, then moved to high, with something high always there first.
        l.push(item(3 * n + 2, 1), at(0));
        l.push(high(3 * n + 3, 1), at(0));
        l.push(high(3 * n + 4, 2), at(0));
        let Action::Send(b) = l.poll(at(S)) else { panic!("nothing to send") };
        assert!(b.items.iter().any(|i| i.priority == Priority::High));
        l.complete(b, Outcome::Success, at(S), 0.5);
        assert!(l.ready.iter().all(|q| q.len() < 100));
    }
}

#[test]
fn what_waits_can_be_taken_out_and_what_is_on_its_way_cannot() {
    let mut l = lane();
    (1..=3).for_each(|n| push(&mut l, item(n, n)));
    let flying = send(&mut l, at(S));
    assert_eq!(sequences(&flying), [1, 2, 3]);
    (4..=9).for_each(|n| push(&mut l, item(n, n % 3 + 1)));
    l.push(item(10, 7), at(0));
    let failed = send(&mut l, at(S));
    assert_eq!(sequences(&failed), [10]);
    l.complete(failed, retry(), at(S), 0.5);
    assert_eq!(l.busy(false).into_iter().collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(l.busy(true).into_iter().collect::<Vec<_>>(), [1, 2, 3, 10]);
    let mut gone: Vec<u64> = l.take(|i| i.sequence <= 6 || i.sequence == 10).iter().map(|i| i.sequence).collect();
    gone.sort_unstable();
    assert_eq!(gone, [4, 5, 6, 10]);
    assert_eq!(l.busy(false).into_iter().collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6, 10]);
    gone.iter().for_each(|n| l.settle(*n));
    assert!(l.tried().is_empty() && !l.holds(5) && l.holds(7) && l.is_done(5));
    l.complete(flying, retry(), at(S), 0.5);
    assert_eq!(sequences(&send(&mut l, at(9 * S))), [1, 2, 3]);
    let rest = l.take(|_| true);
    assert_eq!((rest.len(), l.ready_events, l.ready_bytes), (3, 0, 0));
    // The key of what was taken out is free again.
    l.push(item(11, 7), at(9 * S));
    l.set_flushing(true);
    assert_eq!(sequences(&send(&mut l, at(9 * S))), [11]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 4 } else { 300 }))]
    /// Random outcomes and times: everything is delivered or spent, in order per key, and the cursor is right.
    #[test]
    fn nothing_is_lost_or_reordered(
        keys in proptest::collection::vec(0u64..6, 1..120),
        outcomes in proptest::collection::vec(0u8..14, 1..400),
        priorities in proptest::collection::vec(0u8..3, 1..40),
        together in 1usize..5,
        removals in proptest::collection::vec(0usize..2_000, 0..4),
    ) {
        let mut l = made(policy(), EndpointPolicy { concurrency: together, ..endpoint() }, Cursor::at(0));
        let mut last: BTreeMap<u64, u64> = BTreeMap::new();
        let mut ended: std::collections::BTreeSet<u64> = Default::default();
        let mut in_flight: Vec<Batch<u64>> = Vec::new();
        let (mut now, mut pushed, mut step) = (0u64, 0usize, 0usize);
        loop {
            step += 1;
            prop_assert!(step < 20_000, "it goes on for ever");
            while pushed < keys.len() && l.has_room() && (step % 3 != 0 || pushed < 5) {
                let priority = Priority::from_u8(priorities[pushed % priorities.len()]);
                let taken = l.push(Item { priority, ..item(pushed as u64 + 1, keys[pushed]) }, at(now));
                prop_assert!(taken);
                pushed += 1;
            }
            l.set_pressure(step % 7 < 3);
            if removals.contains(&step) {
                let before = l.busy(false);
                for i in l.take(|i| i.sequence % 3 == 0) {
                    prop_assert!(!before.contains(&i.sequence) && ended.insert(i.sequence));
                    l.settle(i.sequence);
                }
                prop_assert_eq!(l.busy(false), before);
            }
            let (mut wait, mut idle) = (None, false);
            match l.poll(at(now)) {
                Action::Send(b) => {
                    prop_assert!(b.items.len() <= 10 && !b.items.is_empty());
                    for other in &in_flight {
                        for i in &b.items {
                            prop_assert!(other.items.iter().all(|o| o.key != i.key), "a key twice in flight");
                        }
                    }
                    in_flight.push(b);
                    prop_assert!(in_flight.len() <= together);
                    continue;
                }
                Action::Wait(until) => wait = Some(until),
                Action::Idle => idle = true,
            }
            if !in_flight.is_empty() {
                let b = in_flight.remove(step % in_flight.len());
                let n = outcomes[step % outcomes.len()];
                let reason = || "r".to_owned();
                let outcome = match if step > 5_000 { 0 } else { n } {
                    0..=5 => Outcome::Success,
                    6 => Outcome::Retry { fault: Fault::Endpoint, reason: reason(), status: 503, answer: Bytes::new() },
                    7 => retry(),
                    10 => Outcome::Denied { reason: reason(), status: 403, answer: Bytes::new() },
                    11 => Outcome::Gone { reason: reason(), status: 410, answer: Bytes::new() },
                    12 | 13 => {
                        let failed = (0..b.items.len()).filter(|i| (i + step) % 3 == 0).collect();
                        Outcome::Partial { failed, reason: reason(), status: 200, answer: Bytes::new() }
                    }
                    8 => Outcome::Throttle { after_ns: None, reason: reason(), status: 429, answer: Bytes::new() },
                    _ => Outcome::Poison { reason: reason(), status: 400, answer: Bytes::new() },
                };
                let ok = outcome == Outcome::Success;
                let items = b.items.clone();
                let done = l.complete(b, outcome, at(now), 0.3);
                let over: Vec<_> = if ok {
                    items
                } else {
                    prop_assert_eq!(done.delivered, done.delivered_items.len());
                    done.delivered_items.into_iter().chain(done.spent.into_iter().map(|s| s.item)).collect()
                };
                for i in over {
                    prop_assert!(ended.insert(i.sequence), "{} ended twice", i.sequence);
                    let before = last.insert(i.key, i.sequence).unwrap_or(0);
                    prop_assert!(before < i.sequence, "key {}: {} after {}", i.key, i.sequence, before);
                    l.settle(i.sequence);
                }
                for s in 1..=pushed as u64 {
                    prop_assert_eq!(l.is_done(s), ended.contains(&s));
                }
                let low = l.cursor(pushed as u64).low();
                prop_assert!((1..=low).all(|s| ended.contains(&s)));
                prop_assert!(low == pushed as u64 || !ended.contains(&(low + 1)));
            } else if l.endpoints().only().unwrap().stopped().is_some() {
                l.endpoints().only().unwrap().reset();
            } else if let Some(until) = wait {
                prop_assert!(until > now);
                now = until;
            } else if idle && pushed == keys.len() {
                break;
            }
        }
        prop_assert_eq!(ended.len(), keys.len());
        prop_assert_eq!(l.open_events(), 0);
        prop_assert_eq!(l.keys.len(), 0);
        prop_assert_eq!((l.ready_events, l.ready_bytes), (0, 0));
    }
}
