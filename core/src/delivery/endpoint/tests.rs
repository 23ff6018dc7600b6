//! The endpoint by itself, and asked by several shards.

use std::sync::atomic::AtomicUsize;

use super::*;

const S: u64 = 1_000_000_000;

fn policy() -> EndpointPolicy {
    EndpointPolicy {
        concurrency: 64,
        adapts: true,
        breaker: BreakerPolicy::default(),
        retry_after_max_ns: 3600 * S,
        rate: RateLimits::default(),
        disable: DisablePolicy::default(),
    }
}

fn go(e: &Arc<Endpoint>, shard: usize, now: u64) -> Option<Permit> {
    match e.ask(Seat::new(shard, false), 1, 100, false, now) {
        Leave::Go(permit) => Some(permit),
        _ => None,
    }
}

fn end(permit: Permit, shard: usize, said: Said, now: u64) -> Option<Seat> {
    Endpoint::ended(permit, Seat::new(shard, false), said, now, 0.5)
}

#[test]
fn what_is_on_its_way_is_counted_for_all_shards_together() {
    for shards in [1, 2, 4] {
        let e = Endpoint::new(policy());
        let mut held: Vec<(usize, Permit)> = Vec::new();
        for round in 0..40 {
            for shard in 0..shards {
                held.extend(go(&e, (shard + round) % shards, 0).map(|p| ((shard + round) % shards, p)));
            }
        }
        assert_eq!((held.len(), e.in_flight()), (4, (4, 4)), "{shards} shards");
        // Who asked in vain is told, each in its turn.
        let mut told = Vec::new();
        for (shard, p) in held {
            told.extend(end(p, shard, Said::Works, S));
        }
        assert_eq!(told.is_empty(), shards == 1, "{told:?}");
        assert_eq!(e.in_flight().0, 0);
    }
}

#[test]
fn a_place_that_is_free_goes_to_who_waits() {
    let e = Endpoint::new(EndpointPolicy { concurrency: 1, ..policy() });
    let mut had = [0; 3];
    let mut permit = go(&e, 0, 0).unwrap();
    let mut holder = 0;
    for n in 1..300 {
        for shard in 0..3 {
            if shard != holder {
                assert!(go(&e, shard, n).is_none());
            }
        }
        had[holder] += 1;
        let next = end(permit, holder, Said::Works, n).unwrap();
        assert!(go(&e, holder, n).is_none(), "who had the last one stands back");
        let told = (0..3).find(|s| next.is_of(*s)).unwrap();
        permit = go(&e, told, n).unwrap();
        holder = told;
    }
    assert!(had.iter().all(|n| *n > 80), "{had:?}");
    // Who was told and does not want it any more holds nobody up for long.
    drop(permit);
    assert!((0..3).filter_map(|s| go(&e, s, 1000)).next().is_some());
}

#[test]
fn failures_on_all_shards_open_the_one_breaker_and_one_of_them_probes() {
    for shards in [1, 2, 4] {
        let e = Endpoint::new(EndpointPolicy { adapts: false, ..policy() });
        for n in 0..5 {
            assert_eq!(e.gate(S), Gate::Closed);
            let p = go(&e, n % shards, S).unwrap();
            end(p, n % shards, Said::Fails, S);
        }
        assert_eq!(e.gate(S), Gate::Open(6 * S));
        assert!((0..shards).all(|s| go(&e, s, 6 * S - 1).is_none()));
        let probes: Vec<Permit> = (0..shards).filter_map(|s| go(&e, s, 6 * S)).collect();
        assert_eq!(probes.len(), 1);
        for p in probes {
            end(p, 0, Said::Fails, 6 * S);
        }
        assert_eq!(e.gate(6 * S), Gate::Open(16 * S), "opened twice, however many shards");
        for n in 0..3 {
            let p = go(&e, n % shards, (100 + n as u64) * S).or_else(|| go(&e, 0, (101 + n as u64) * S)).unwrap();
            end(p, n % shards, Said::Works, 100 * S);
        }
        assert_eq!((e.gate(100 * S), e.in_flight().1), (Gate::Closed, 1), "slowly at first");
    }
}

#[test]
fn attempts_that_began_before_the_breaker_opened_tell_nothing_new() {
    let e = Endpoint::new(EndpointPolicy { adapts: false, ..policy() });
    let old: Vec<Permit> = (0..20).map(|_| go(&e, 0, S).unwrap()).collect();
    let fails: Vec<Permit> = (0..5).map(|_| go(&e, 0, S).unwrap()).collect();
    for p in fails {
        end(p, 0, Said::Fails, S);
    }
    assert_eq!(e.gate(S), Gate::Open(6 * S));
    for (n, p) in old.into_iter().enumerate() {
        end(p, 0, if n % 2 == 0 { Said::Fails } else { Said::Works }, 7 * S);
    }
    assert_eq!(e.gate(7 * S), Gate::Probe, "neither opened for longer nor closed");
    // What is denied to many at once opens it once.
    let e = Endpoint::new(policy());
    let many: Vec<Permit> = (0..4).map(|_| go(&e, 0, S).unwrap()).collect();
    for p in many {
        end(p, 0, Said::Denied, S);
    }
    assert_eq!(e.gate(S), Gate::Open(6 * S));
}

#[test]
fn a_pause_is_everybodys_and_bounded_and_too_much_halves_what_goes_at_once() {
    let day = 24 * 3600;
    for (after, max, expect) in [
        (None, 3600, 30),
        (None, 5, 5),
        (Some(0), 3600, 1),
        (Some(7), 3600, 7),
        (Some(day), 3600, 3600),
        (Some(day), day, day),
        (Some(u64::MAX / S), day, day),
    ] {
        let e = Endpoint::new(EndpointPolicy { retry_after_max_ns: max * S, ..policy() });
        let p = go(&e, 0, S).unwrap();
        end(p, 0, Said::Wait { after_ns: after.map(|s| s * S), too_much: true }, S);
        assert_eq!((e.gate(S), e.in_flight().1), (Gate::Open(S + expect * S), 2), "{after:?}");
        assert!(go(&e, 1, S).is_none() && go(&e, 1, S + expect * S).is_some());
    }
    let e = Endpoint::new(policy());
    let p = go(&e, 0, S).unwrap();
    end(p, 0, Said::Overloaded, S);
    assert_eq!(e.in_flight().1, 2);
}

/// Whatever it says, but that it takes something.
#[test]
fn what_takes_nothing_for_five_days_is_given_up_with_warnings_before_and_restarts_do_not_begin_that_anew() {
    const HOUR: u64 = 3600 * S;
    for said in [Said::Fails, Said::Denied, Said::Answers, Said::Wait { after_ns: Some(1), too_much: true }] {
        let (mut e, mut now, mut told) = (Endpoint::new(policy()), S, Vec::new());
        let mut down = 0;
        for n in 0.. {
            assert!(n < 10_000);
            if let Some(p) = go(&e, 0, now) {
                end(p, 0, said, now);
            }
            told.extend(e.take_notice(now).map(|percent| (percent, (now - S - down) / HOUR)));
            if e.stopped().is_some() {
                break;
            }
            if n == 50 {
                // Another run; what lies between does not count.
                let known = e.known(now);
                e = Endpoint::new(policy());
                e.restore(known, Vec::new(), now + 500 * HOUR);
                (now, down) = (now + 500 * HOUR, 500 * HOUR);
            }
            now += HOUR;
        }
        assert_eq!(e.stopped(), Some(Stopped::Failing), "{said:?}");
        assert_eq!(told, [(50, 60), (70, 84), (90, 108), (100, 120)], "{said:?}");
        assert!(go(&e, 0, NEVER_NS - 1).is_none());
        e.reset();
        assert!(go(&e, 0, now).is_some() && e.known(now) == Known::default());
    }
    // With too few attempts, or a success in between, it is not.
    let e = Endpoint::new(policy());
    for n in 0..40 {
        if n == 21 {
            end(go(&e, 0, n * 10 * HOUR).unwrap(), 0, Said::Works, n * 10 * HOUR);
        }
        if !(19..=21).contains(&n) {
            end(go(&e, 0, n * 10 * HOUR).unwrap(), 0, Said::Answers, n * 10 * HOUR);
        }
    }
    assert_eq!(e.stopped(), None);
}

#[test]
fn a_suspended_endpoint_stays_so_until_it_is_resumed() {
    let e = Endpoint::new(policy());
    e.suspend();
    e.replaced();
    e.set_policy(EndpointPolicy { concurrency: 2, ..policy() });
    assert!(go(&e, 0, S).is_none());
    let again = Endpoint::new(policy());
    again.restore(e.known(S), vec![AttemptNote::default(); 3], S);
    assert_eq!((again.stopped(), again.attempts().len()), (Some(Stopped::Suspended), 3));
    (0..50).for_each(|n| again.remember(AttemptNote { at_ms: n, ..AttemptNote::default() }));
    assert_eq!((again.attempts().len(), again.attempts()[0].at_ms), (ATTEMPTS_MAX, 30));
    again.reset();
    assert!(go(&again, 0, S).is_some());
}

#[test]
fn what_is_granted_holds_beside_what_is_configured() {
    let rate = RateLimits { requests_per_second: Some(100), burst: Duration::from_secs(1), ..RateLimits::default() };
    let e = Endpoint::new(EndpointPolicy { rate, adapts: false, ..policy() });
    e.verified(Some(60));
    let sent = |from: u64| {
        let mut n = 0;
        for ms in from * 1000..(from + 10) * 1000 {
            if let Some(p) = go(&e, 0, ms * 1_000_000) {
                n += 1;
                end(p, 0, Said::Works, ms * 1_000_000);
            }
        }
        n
    };
    assert_eq!(sent(0), 10);
    e.verified(None);
    let n = sent(100);
    assert!((1000..=1101).contains(&n), "{n}");
}

/// Threads for shards: neither more on their way than allowed, nor more in all than the rate gives, whatever their number.
#[test]
fn however_many_shards_they_never_do_together_what_one_must_not() {
    for shards in [1, 2, 4] {
        let rate = RateLimits { events_per_second: Some(10_000), ..RateLimits::default() };
        let e = Endpoint::new(EndpointPolicy { concurrency: 3, adapts: false, rate, ..policy() });
        let (on_way, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let (clock, sum) = (AtomicU64::new(0), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for shard in 0..shards {
                let (e, on_way, most, clock, sum) = (&e, &on_way, &most, &clock, &sum);
                scope.spawn(move || {
                    loop {
                        let now = clock.fetch_add(20_000, Ordering::Relaxed);
                        if now >= 5 * S {
                            break;
                        }
                        let Leave::Go(mut p) = e.ask(Seat::new(shard, false), 50, 5000, false, now) else { continue };
                        most.fetch_max(on_way.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        let events = p.events_max.min(50);
                        p.carries(events, 100);
                        sum.fetch_add(events as u64, Ordering::Relaxed);
                        on_way.fetch_sub(1, Ordering::SeqCst);
                        end(p, shard, Said::Works, now);
                    }
                });
            }
        });
        assert!(most.into_inner() <= 3);
        let sum = sum.into_inner();
        assert!(sum <= 60_001, "{shards}: {sum}");
        assert_eq!(e.in_flight().0, 0);
    }
}
