//! The balancer by itself, and with a lane that sends to several endpoints.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::delivery::endpoint::{EndpointPolicy, Permit, Rates, Said};
use crate::delivery::lane::{Action, Batch, Fault, Item, Lane, LanePolicy, Now, Outcome};
use crate::event::Priority;
use crate::log::cursor::Cursor;
use crate::rule::{BatchLimits, BreakerPolicy, DisablePolicy, RateLimits, RetryPolicy};

const S: u64 = 1_000_000_000;

fn policy() -> EndpointPolicy {
    EndpointPolicy {
        concurrency: 64,
        adapts: false,
        breaker: BreakerPolicy::default(),
        retry_after_max_ns: 3600 * S,
        rate: RateLimits::default(),
        disable: DisablePolicy::default(),
    }
}

/// Weight, priority and region of each.
fn of(method: Balance, list: &[(u32, u32, &str)]) -> Arc<Balancer> {
    with(method, policy(), list)
}

fn with(method: Balance, policy: EndpointPolicy, list: &[(u32, u32, &str)]) -> Arc<Balancer> {
    let rates = Arc::new(Rates::default());
    rates.set(&policy.rate);
    let target = |(at, (weight, priority, region)): (usize, &(u32, u32, &str))| Target {
        endpoint: Endpoint::of_several(at as u32, policy, rates.clone()),
        at,
        weight: *weight,
        priority: *priority,
        region: region_number(region),
        place: mix(at as u64),
    };
    Balancer::new(method, list.iter().enumerate().map(target).collect())
}

fn want(key: u64, region: &str) -> Want {
    Want { events: 1, bytes: 1, whole: false, key, region: region_number(region), failed: None }
}

fn go(b: &Balancer, want: Want, now: u64) -> Permit {
    match b.ask(Seat::default(), &want, now) {
        Leave::Go(permit) => permit,
        other => panic!("no permit: {other:?}"),
    }
}

fn end(permit: Permit, said: Said, now: u64) {
    Endpoint::ended(permit, Seat::default(), said, now, 0.5);
}

fn endpoint(b: &Balancer, id: u32) -> &Arc<Endpoint> {
    &b.targets().iter().find(|t| t.endpoint.id() == id).unwrap().endpoint
}

/// How often each is chosen, one request at a time.
fn shares(b: &Balancer, n: u64, region: &str) -> BTreeMap<u32, u64> {
    let mut counts = BTreeMap::new();
    for key in 0..n {
        let permit = go(b, want(mix(key), region), S);
        *counts.entry(permit.endpoint().id()).or_default() += 1;
        // Nothing, so that no time is measured.
        end(permit, Said::Nothing, S);
    }
    counts
}

fn fail(b: &Balancer, id: u32, now: u64) {
    for _ in 0..5 {
        let Leave::Go(p) = endpoint(b, id).ask(Seat::default(), 1, 1, false, now) else { panic!("no permit") };
        end(p, Said::Fails, now);
    }
    assert!(matches!(endpoint(b, id).gate(now), Gate::Open(_)));
}

#[test]
fn round_robin_takes_turns() {
    let b = of(Balance::RoundRobin, &[(1, 0, ""), (5, 0, ""), (1, 0, "")]);
    assert_eq!(shares(&b, 300, ""), BTreeMap::from([(0, 100), (1, 100), (2, 100)]));
}

#[test]
fn weights_are_kept_to() {
    for method in [Balance::Weighted, Balance::Affinity] {
        let b = of(method, &[(1, 0, ""), (2, 0, ""), (5, 0, "")]);
        let n = 80_000;
        for (id, count) in shares(&b, n, "") {
            let p = [1.0, 2.0, 5.0][id as usize] / 8.0;
            let sigma = (n as f64 * p * (1.0 - p)).sqrt();
            assert!((count as f64 - n as f64 * p).abs() < 4.0 * sigma, "{method:?} {id}: {count}");
        }
    }
}

#[test]
fn the_one_with_the_fewest_on_their_way_is_next() {
    let b = of(Balance::LeastOutstanding, &[(1, 0, ""), (1, 0, ""), (2, 0, "")]);
    let held: Vec<Permit> = (0..40).map(|n| go(&b, want(n, ""), S)).collect();
    let in_flight = |id| endpoint(&b, id).in_flight().0;
    assert_eq!((in_flight(0), in_flight(1), in_flight(2)), (10, 10, 20), "twice the weight, twice as many");
    drop(held);
}

#[test]
fn the_next_group_is_used_only_while_all_of_the_first_are_away() {
    for method in [Balance::RoundRobin, Balance::LeastOutstanding, Balance::Weighted, Balance::Affinity] {
        let b = of(method, &[(1, 7, ""), (1, 3, ""), (1, 3, "")]);
        assert!(!shares(&b, 100, "").contains_key(&0), "{method:?}");
        fail(&b, 1, S);
        assert_eq!(shares(&b, 100, "").into_keys().collect::<Vec<_>>(), [2], "{method:?}");
        fail(&b, 2, S);
        assert_eq!(shares(&b, 100, "").into_keys().collect::<Vec<_>>(), [0], "{method:?}");
        // When its time has come, one of the first group is probed, with one request at a time; the others go where it works.
        let later = 7 * S;
        let held: Vec<Permit> = (0..64).map(|n| go(&b, want(mix(n), ""), later)).collect();
        let mut to: BTreeMap<u32, usize> = BTreeMap::new();
        held.iter().for_each(|p| *to.entry(p.endpoint().id()).or_default() += 1);
        assert_eq!((to.get(&0), to.get(&1), to.get(&2)), (Some(&62), Some(&1), Some(&1)), "{method:?}");
        held.into_iter().for_each(|p| end(p, Said::Works, later));
        // After three probes each they are back, and the last group rests.
        for n in 0..20 {
            end(go(&b, want(mix(n), ""), later), Said::Works, later);
        }
        assert!(!shares(&b, 100, "").contains_key(&0), "{method:?}");
    }
}

#[test]
fn what_is_stopped_or_pending_gets_nothing_and_all_of_them_stop_everything() {
    let b = of(Balance::RoundRobin, &[(1, 0, ""), (1, 0, "")]);
    endpoint(&b, 0).unverified();
    assert_eq!(shares(&b, 10, "").into_keys().collect::<Vec<_>>(), [1]);
    endpoint(&b, 1).suspend();
    assert!(b.is_stopped() && b.gate(S) == Gate::Open(NEVER_NS));
    assert!(matches!(b.ask(Seat::default(), &want(1, ""), S), Leave::Wait(NEVER_NS)));
    endpoint(&b, 0).verified(Some(60));
    assert!(!b.is_stopped());
    end(go(&b, want(1, ""), S), Said::Works, S);
    // A request a second is granted.
    assert!(matches!(b.ask(Seat::default(), &want(1, ""), S), Leave::Wait(at) if at > S && at <= 2 * S));
}

#[test]
fn the_nearest_region_is_used_and_then_the_one_that_answers_soonest() {
    let b = of(Balance::RoundRobin, &[(1, 0, "eu"), (1, 0, "us"), (1, 0, "us"), (1, 0, "ap")]);
    for (id, ms) in [(0, 20), (1, 90), (2, 150), (3, 200)] {
        let Leave::Go(p) = endpoint(&b, id).ask(Seat::default(), 1, 1, false, S) else { panic!() };
        end(p, Said::Works, S + ms * 1_000_000);
    }
    assert_eq!(shares(&b, 100, "us"), BTreeMap::from([(1, 50), (2, 50)]));
    assert_eq!(shares(&b, 100, "ap"), BTreeMap::from([(3, 100)]));
    fail(&b, 1, S);
    assert_eq!(shares(&b, 10, "us"), BTreeMap::from([(2, 10)]));
    fail(&b, 2, S);
    let elsewhere = shares(&b, 10, "us");
    assert!(elsewhere.len() == 1 && !elsewhere.contains_key(&3), "{elsewhere:?}: the fastest of the others");
    // Nobody is in its region, or it has none.
    for region in ["af", ""] {
        assert_eq!(shares(&b, 10, region), BTreeMap::from([(0, 10)]), "{region}");
    }
}

#[test]
fn a_rate_holds_for_all_endpoints_together() {
    let rate = RateLimits { requests_per_second: Some(10), ..RateLimits::default() };
    let b = with(Balance::RoundRobin, EndpointPolicy { rate, ..policy() }, &[(1, 0, ""), (1, 0, ""), (1, 0, "")]);
    let mut sent = 0;
    for ms in 0..3000 {
        if let Leave::Go(p) = b.ask(Seat::default(), &want(ms, ""), S + ms * 1_000_000) {
            end(p, Said::Works, S + ms * 1_000_000);
            sent += 1;
        }
    }
    assert!((39..=41).contains(&sent), "{sent}: a burst, and ten for each second");
}

proptest! {
    /// When one endpoint goes, only its keys move; when it comes back they do too.
    #[test]
    fn only_the_keys_of_what_is_away_move(
        weights in prop::collection::vec(1u32..20, 2..8),
        keys in prop::collection::vec(any::<u64>(), 1..200),
        gone in any::<prop::sample::Index>(),
    ) {
        let list: Vec<(u32, u32, &str)> = weights.iter().map(|w| (*w, 0, "")).collect();
        let b = of(Balance::Affinity, &list);
        let places = || keys.iter().map(|key| {
            let p = go(&b, want(*key, ""), S);
            let id = p.endpoint().id();
            end(p, Said::Works, S);
            id
        }).collect::<Vec<u32>>();
        let before = places();
        let gone = gone.index(weights.len()) as u32;
        endpoint(&b, gone).suspend();
        for (was, is) in before.iter().zip(places()) {
            prop_assert!(is != gone && (*was == gone || *was == is));
        }
        endpoint(&b, gone).reset();
        prop_assert_eq!(before, places());
    }

    /// Whatever the endpoints are like, a batch goes to one that can be used, and never past a better group.
    #[test]
    fn no_choice_passes_a_group_that_can_be_used(
        targets in prop::collection::vec((1u32..4, 0u32..3, 0usize..3, any::<bool>()), 1..8),
        method in 0usize..4,
        key in any::<u64>(),
        region in 0usize..3,
    ) {
        let regions = ["", "eu", "us"];
        let list: Vec<_> = targets.iter().map(|(w, p, r, _)| (*w, *p, regions[*r])).collect();
        let b = of(Balance::ALL[method].0, &list);
        for (id, (.., away)) in targets.iter().enumerate() {
            if *away {
                endpoint(&b, id as u32).suspend();
            }
        }
        let best = targets.iter().filter(|t| !t.3).map(|t| t.1).min();
        match (b.ask(Seat::default(), &want(key, regions[region]), S), best) {
            (Leave::Go(p), Some(best)) => {
                let (_, priority, r, away) = targets[p.endpoint().id() as usize];
                prop_assert!(!away && priority == best);
                let near = targets.iter().any(|t| !t.3 && t.1 == best && t.2 == region && region != 0);
                prop_assert!(!near || r == region);
            }
            (Leave::Wait(NEVER_NS), None) => {}
            (other, best) => prop_assert!(false, "{other:?} {best:?}"),
        }
    }
}

fn lane(b: Arc<Balancer>, events_max: usize) -> Lane<u64> {
    let policy = LanePolicy {
        batch: BatchLimits { events_max, bytes_max: 100_000, linger: Duration::ZERO },
        retry: RetryPolicy { backoff_min: Duration::from_secs(1), ..RetryPolicy::default() },
        events_max: 1000,
    };
    Lane::new(policy, b, Seat::default(), Cursor::at(0))
}

fn item(sequence: u64, key: u64, region: &str) -> Item<u64> {
    let region = region_number(region);
    Item { sequence, key, bytes: 10, accepted_ns: 0, priority: Priority::Normal, region, body: sequence }
}

fn at(mono_ns: u64) -> Now {
    Now { mono_ns, wall_ns: mono_ns }
}

fn send(l: &mut Lane<u64>, now: u64) -> Batch<u64> {
    match l.poll(at(now)) {
        Action::Send(b) => b,
        other => panic!("expected a batch, got {other:?}"),
    }
}

fn failed() -> Outcome {
    Outcome::Retry { fault: Fault::Endpoint, reason: "x".into(), status: 500, answer: bytes::Bytes::new() }
}

fn to(b: &Batch<u64>) -> u32 {
    b.endpoint().unwrap().id()
}

#[test]
fn what_failed_at_one_endpoint_goes_to_another_at_once_and_waits_when_all_have_failed() {
    let b = of(Balance::RoundRobin, &[(1, 0, ""), (1, 0, ""), (1, 1, "")]);
    let mut l = lane(b, 10);
    l.push(item(1, 1, ""), at(0));
    let mut tried = BTreeSet::new();
    for _ in 0..2 {
        let batch = send(&mut l, S);
        assert!(tried.insert(to(&batch)), "{tried:?}");
        l.complete(batch, failed(), at(S), 0.0);
    }
    // The third one is of another group; but two of a better one can be used still.
    let batch = send(&mut l, S);
    l.complete(batch, failed(), at(S), 0.0);
    assert!(matches!(l.poll(at(S)), Action::Wait(_)), "three attempts in a row, then a pause");
    let batch = send(&mut l, 10 * S);
    assert_eq!(l.complete(batch, Outcome::Success, at(10 * S), 0.0).delivered, 1);
}

#[test]
fn a_pause_that_one_endpoint_asks_for_sends_its_events_to_the_others() {
    let mut l = lane(of(Balance::Affinity, &[(1, 0, ""), (1, 0, "")]), 10);
    l.push(item(1, 1, ""), at(0));
    let throttled =
        || Outcome::Throttle { after_ns: Some(60 * S), reason: "x".into(), status: 429, answer: bytes::Bytes::new() };
    let batch = send(&mut l, S);
    let first = to(&batch);
    l.complete(batch, throttled(), at(S), 0.0);
    let batch = send(&mut l, S + 1);
    assert_ne!(to(&batch), first);
    l.complete(batch, throttled(), at(2 * S), 0.0);
    assert!(matches!(l.poll(at(3 * S)), Action::Wait(until) if until >= 61 * S), "both have asked to be left alone");
    assert_eq!(to(&send(&mut l, 61 * S)), first, "the first one's pause is over first");
}

#[test]
fn a_batch_holds_keys_of_one_endpoint_and_one_region() {
    let b = of(Balance::Affinity, &[(1, 0, "eu"), (1, 0, "eu"), (1, 0, "us"), (1, 0, "us")]);
    let mut l = lane(b, 50);
    let mut regions = HashMap::new();
    for n in 1..=400u64 {
        let (key, region) = (mix(n % 40), ["eu", "us"][(n % 40 % 2) as usize]);
        regions.insert(n, region);
        l.push(item(n, key, region), at(0));
    }
    let mut place: HashMap<u64, u32> = HashMap::new();
    let mut delivered = 0;
    let mut last: HashMap<u64, u64> = HashMap::new();
    while let Action::Send(batch) = l.poll(at(S)) {
        for i in &batch.items {
            assert_eq!(*place.entry(i.key).or_insert(to(&batch)), to(&batch), "a key stays where it is");
            let near = if regions[&i.sequence] == "eu" { [0, 1] } else { [2, 3] };
            assert!(near.contains(&to(&batch)));
            assert!(last.insert(i.key, i.sequence).is_none_or(|before| before < i.sequence));
        }
        delivered += batch.items.len();
        l.complete(batch, Outcome::Success, at(S), 0.5);
    }
    assert_eq!(delivered, 400);
    assert_eq!(place.values().collect::<BTreeSet<_>>().len(), 4, "all of them have some");
}

#[test]
fn an_endpoint_that_is_full_holds_up_only_its_own_keys() {
    let policy = EndpointPolicy { concurrency: 1, ..policy() };
    let mut l = lane(with(Balance::Affinity, policy, &[(1, 0, ""), (1, 0, "")]), 1);
    (1..=200).for_each(|n| assert!(l.push(item(n, mix(n), ""), at(0))));
    let stuck = send(&mut l, S);
    let mut others = 0;
    while let Action::Send(batch) = l.poll(at(S)) {
        assert_ne!(to(&batch), to(&stuck));
        l.complete(batch, Outcome::Success, at(S), 0.5);
        others += 1;
    }
    assert!((60..140).contains(&others), "{others}");
}

proptest! {
    /// Whatever fails, and wherever, events of a key arrive in their order, one request at a time, and none is lost.
    #[test]
    fn order_per_key_holds_under_failover(
        method in 0usize..4,
        groups in prop::collection::vec(0u32..2, 2..5),
        keys in prop::collection::vec(0u64..8, 1..120),
        script in prop::collection::vec((0usize..4, 0u8..10), 0..200),
    ) {
        let list: Vec<(u32, u32, &str)> = groups.iter().map(|p| (1, *p, "")).collect();
        let mut l = lane(of(Balance::ALL[method].0, &list), 4);
        for (n, key) in keys.iter().enumerate() {
            l.push(item(n as u64 + 1, mix(*key), ""), at(0));
        }
        let mut script = script.into_iter();
        let mut now = S;
        let mut flying: Vec<Batch<u64>> = Vec::new();
        let mut arrived: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
        for _ in 0..5000 {
            match l.poll(at(now)) {
                Action::Send(batch) => {
                    for i in &batch.items {
                        prop_assert!(flying.iter().flat_map(|b| &b.items).all(|o| o.key != i.key), "one at a time");
                    }
                    flying.push(batch);
                    if flying.len() < 3 {
                        continue;
                    }
                }
                Action::Wait(until) if flying.is_empty() => now = until,
                Action::Idle if flying.is_empty() => break,
                _ => {}
            }
            if flying.is_empty() {
                continue;
            }
            let (which, fate) = script.next().unwrap_or((0, 9));
            let batch = flying.remove(which % flying.len());
            let outcome = match fate {
                0..=3 => failed(),
                4 => Outcome::Throttle { after_ns: Some(S), reason: "x".into(), status: 429, answer: bytes::Bytes::new() },
                5 => Outcome::Poison { reason: "x".into(), status: 400, answer: bytes::Bytes::new() },
                _ => Outcome::Success,
            };
            if outcome == Outcome::Success {
                for i in &batch.items {
                    arrived.entry(i.key).or_default().push(i.sequence);
                }
            }
            let done = l.complete(batch, outcome, at(now), 0.5);
            for s in done.spent {
                arrived.entry(s.item.key).or_default().push(s.item.sequence);
                l.settle(s.item.sequence);
            }
            now += 1_000_000;
        }
        prop_assert_eq!(l.open_events(), 0);
        for list in arrived.values() {
            prop_assert!(list.windows(2).all(|w| w[0] < w[1]), "{:?}", list);
        }
        prop_assert_eq!(arrived.values().map(Vec::len).sum::<usize>(), keys.len());
    }
}
