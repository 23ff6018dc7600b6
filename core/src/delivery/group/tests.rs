use proptest::prelude::*;

use super::*;

fn policy(deliveries_max: u32) -> GroupPolicy {
    GroupPolicy { events_max: 100, bytes_max: 1 << 20, deliveries_max }
}

fn group(deliveries_max: u32) -> Group<u64> {
    Group::new(policy(deliveries_max), Cursor::at(0), BTreeMap::new(), 1000)
}

/// Offers events of these keys with sequences from 1.
fn offered(keys: &[u64]) -> Group<u64> {
    let mut g = group(3);
    for (i, key) in keys.iter().enumerate() {
        g.offer(i as u64 + 1, *key, 10, i as u64 + 1);
    }
    g
}

fn take(g: &mut Group<u64>, until: u64) -> Option<(u64, u64, u32)> {
    g.take(1, until).map(|o| {
        assert_eq!(*o.item, o.sequence);
        (o.sequence, o.token, o.deliveries)
    })
}

#[test]
fn of_one_key_there_is_one_event_out_at_a_time() {
    let mut g = offered(&[7, 7, 8, 7]);
    let (a, token, _) = take(&mut g, 100).unwrap();
    let (b, ..) = take(&mut g, 100).unwrap();
    assert_eq!((a, b, take(&mut g, 100)), (1, 3, None));
    g.ack(a, token, 1).unwrap();
    let (c, token, _) = take(&mut g, 100).unwrap();
    assert_eq!((c, take(&mut g, 100)), (2, None));
    g.ack(c, token, 1).unwrap();
    assert_eq!(take(&mut g, 100).unwrap().0, 4);
}

#[test]
fn a_lease_that_runs_out_goes_to_another_and_the_late_one_is_refused() {
    let mut g = offered(&[7, 7]);
    let (_, first, _) = take(&mut g, 100).unwrap();
    assert_eq!(g.next_timer(), Some(100));
    // It is over when its time is, whether or not anybody has looked.
    assert_eq!(g.ack(1, first, 100), Err(Refused::Expired));
    g.expire(99);
    assert_eq!(take(&mut g, 200), None);
    g.expire(100);
    assert_eq!(g.ack(1, first, 50), Err(Refused::Expired));
    let (sequence, second, deliveries) = take(&mut g, 200).unwrap();
    assert_eq!((sequence, deliveries), (1, 2));
    assert_ne!(first, second);
    assert_eq!(g.ack(1, first, 150), Err(Refused::Superseded));
    assert_eq!(g.extend(1, first, 150, 900), Err(Refused::Superseded));
    assert_eq!(g.nack(1, first, 150, 150), Err(Refused::Superseded));
    g.ack(1, second, 150).unwrap();
    assert_eq!(g.ack(1, second, 150), Err(Refused::NotOut));
    assert_eq!(g.ack(77, second, 150), Err(Refused::NotOut));
    assert_eq!(g.expired(), 1);
    assert_eq!(take(&mut g, 300).unwrap().0, 2);
}

#[test]
fn a_lease_can_be_made_longer() {
    let mut g = offered(&[7]);
    let (_, token, _) = take(&mut g, 100).unwrap();
    g.extend(1, token, 50, 300).unwrap();
    g.expire(200);
    assert_eq!((take(&mut g, 400), g.next_timer()), (None, Some(300)));
    g.ack(1, token, 299).unwrap();
    assert_eq!((g.next_timer(), g.open()), (None, (0, 0)));
}

#[test]
fn what_is_given_back_goes_out_again_after_its_delay_before_the_next_of_its_key() {
    let mut g = offered(&[7, 7]);
    let (_, token, _) = take(&mut g, 100).unwrap();
    g.nack(1, token, 10, 500).unwrap();
    assert_eq!((take(&mut g, 600), g.next_timer()), (None, Some(500)));
    g.expire(500);
    let (sequence, token, deliveries) = take(&mut g, 600).unwrap();
    assert_eq!((sequence, deliveries), (1, 2));
    g.nack(1, token, 510, 0).unwrap();
    assert_eq!(take(&mut g, 600).map(|t| (t.0, t.2)), Some((1, 3)), "at once");
}

#[test]
fn what_a_member_had_goes_out_again_when_it_leaves() {
    let mut g = offered(&[1, 2, 3]);
    let a = g.take(5, 100).unwrap().sequence;
    let b = g.take(6, 100).unwrap();
    let (b, token) = (b.sequence, b.token);
    g.release(5);
    assert_eq!((a, b), (1, 2));
    assert_eq!(take(&mut g, 100).map(|t| (t.0, t.2)), Some((1, 2)));
    g.ack(b, token, 1).unwrap();
    assert_eq!(g.next_timer(), Some(100));
}

#[test]
fn an_event_that_is_given_out_too_often_is_spent_and_holds_its_key_until_it_is_settled() {
    let mut g = offered(&[7, 7]);
    for n in 1..=3 {
        let (sequence, _, deliveries) = take(&mut g, n * 100).unwrap();
        assert_eq!((sequence, deliveries), (1, n as u32));
        assert_eq!(g.spent().count(), 0);
        g.expire(n * 100);
    }
    assert_eq!(take(&mut g, 1000), None);
    assert_eq!(g.spent().map(|(n, d, _)| (n, d)).collect::<Vec<_>>(), [(1, 3)]);
    g.settle(1);
    assert_eq!((g.spent().count(), take(&mut g, 1000).unwrap().0), (0, 2));
    // Given back with a delay, it does not wait for that in vain.
    let mut g = Group::new(policy(1), Cursor::at(0), BTreeMap::new(), 1);
    g.offer(1, 1, 1, 1);
    let (_, token, _) = take(&mut g, 100).unwrap();
    g.nack(1, token, 1, 900).unwrap();
    assert_eq!((g.spent().count(), g.next_timer()), (1, None));
}

#[test]
fn memory_is_bounded_by_number_and_bytes() {
    let mut g =
        Group::new(GroupPolicy { events_max: 3, bytes_max: 100, deliveries_max: 1 }, Cursor::at(0), BTreeMap::new(), 1);
    for n in 1..=3 {
        assert!(g.has_room());
        g.offer(n, n, 10, n);
    }
    assert!(!g.has_room());
    let (n, token, _) = take(&mut g, 10).unwrap();
    g.ack(n, token, 1).unwrap();
    assert!(g.has_room());
    g.offer(4, 4, 90, 4);
    assert!(!g.has_room());
    let mut large =
        Group::new(GroupPolicy { events_max: 3, bytes_max: 100, deliveries_max: 1 }, Cursor::at(0), BTreeMap::new(), 1);
    assert!(large.has_room());
    large.offer(1, 1, 1000, 1);
    assert!(!large.has_room());
}

#[test]
fn counts_and_what_is_done_come_back_after_a_restart() {
    let mut g = offered(&[1, 2, 3, 4]);
    g.pass(9);
    let leased: Vec<_> = (0..3).map(|_| take(&mut g, 100).unwrap()).collect();
    g.ack(3, leased[2].1, 1).unwrap();
    let (cursor, counts) = g.state();
    assert_eq!((cursor.low(), cursor.ranges().collect::<Vec<_>>()), (0, vec![(3, 3)]));
    assert_eq!(counts, [(1, 1), (2, 1)]);
    let mut back = Group::new(policy(3), cursor.clone(), counts.into_iter().collect(), 5000);
    // Before anything is read, nothing is lost of it.
    let (cursor, counts) = back.state();
    assert_eq!((cursor.low(), counts), (0, vec![(1, 1), (2, 1)]));
    for n in 1..=4 {
        back.offer(n, n, 10, n);
    }
    back.pass(9);
    assert_eq!(take(&mut back, 100).map(|t| (t.0, t.2)), Some((1, 2)));
    assert_eq!(take(&mut back, 100).map(|t| (t.0, t.2)), Some((2, 2)));
    assert_eq!(take(&mut back, 100).map(|t| (t.0, t.2)), Some((4, 1)), "the third is done");
    assert_eq!(take(&mut back, 100), None);
    assert_eq!(back.ack(1, leased[0].1, 1), Err(Refused::Superseded), "leases of an earlier run are over");
}

#[derive(Clone, Debug)]
enum Op {
    Offer(u64),
    Take(u64),
    Ack(usize, bool),
    Nack(usize, u64),
    Extend(usize, u64),
    Leave(u64),
    Wait(u64),
    Restart,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        4 => (0u64..4).prop_map(Op::Offer),
        6 => (0u64..3).prop_map(Op::Take),
        6 => (0usize..8, any::<bool>()).prop_map(|(i, late)| Op::Ack(i, late)),
        2 => (0usize..8, 0u64..30).prop_map(|(i, d)| Op::Nack(i, d)),
        1 => (0usize..8, 1u64..30).prop_map(|(i, d)| Op::Extend(i, d)),
        1 => (0u64..3).prop_map(Op::Leave),
        4 => (1u64..30).prop_map(Op::Wait),
        1 => Just(Op::Restart),
    ];
    proptest::collection::vec(op, 0..200)
}

proptest! {
    #[test]
    fn whatever_happens_each_event_is_done_once_and_the_events_of_a_key_in_order(ops in ops()) {
        const LEASE: u64 = 20;
        let mut g: Group<u64> = group(u32::MAX);
        let mut now = 1;
        let mut log: Vec<u64> = Vec::new(); // the key of sequence i + 1
        let mut done: Vec<u64> = Vec::new();
        // Every lease that was ever given: sequence, token, until, member.
        let mut leases: Vec<(u64, u64, u64, u64)> = Vec::new();
        let mut live: BTreeMap<u64, usize> = BTreeMap::new(); // per sequence, its lease that is good
        for op in ops {
            g.expire(now);
            live.retain(|_, i| leases[*i].2 > now);
            match op {
                Op::Offer(key) => {
                    log.push(key);
                    g.offer(log.len() as u64, key, 1, log.len() as u64);
                }
                Op::Take(member) => {
                    if let Some(o) = g.take(member, now + LEASE) {
                        let (s, token) = (o.sequence, o.token);
                        prop_assert!(!done.contains(&s), "{s} is done and goes out again");
                        prop_assert!(!live.contains_key(&s), "{s} goes out twice");
                        let key = log[s as usize - 1];
                        let before = (1..s).filter(|n| log[*n as usize - 1] == key);
                        prop_assert!(before.clone().all(|n| done.contains(&n)), "{s} goes out before an earlier one of its key");
                        prop_assert!(live.keys().all(|n| log[*n as usize - 1] != key), "two of one key are out");
                        live.insert(s, leases.len());
                        leases.push((s, token, now + LEASE, member));
                    }
                }
                Op::Ack(i, any) => {
                    // Any lease of the past, or one that is good.
                    let pick = if any { leases.len().checked_sub(1 + i) } else { live.values().nth(i).copied() };
                    if let Some(at) = pick {
                        let (s, token, ..) = leases[at];
                        let good = live.get(&s) == Some(&at);
                        let result = g.ack(s, token, now);
                        prop_assert_eq!(result.is_ok(), good, "{:?}", result);
                        if good {
                            live.remove(&s);
                            done.push(s);
                        }
                    }
                }
                Op::Nack(i, delay) => {
                    if let Some(at) = live.values().nth(i).copied() {
                        let (s, token, ..) = leases[at];
                        g.nack(s, token, now, now + delay).unwrap();
                        live.remove(&s);
                    }
                }
                Op::Extend(i, by) => {
                    if let Some(at) = live.values().nth(i).copied() {
                        let (s, token, ..) = leases[at];
                        g.extend(s, token, now, now + by).unwrap();
                        leases[at].2 = now + by;
                    }
                }
                Op::Leave(member) => {
                    g.release(member);
                    live.retain(|_, i| leases[*i].3 != member);
                }
                Op::Wait(ns) => now += ns,
                Op::Restart => {
                    let (cursor, counts) = g.state();
                    g = Group::new(policy(u32::MAX), cursor.clone(), counts.into_iter().collect(), g.next_token + 1);
                    for (i, key) in log.iter().enumerate() {
                        g.offer(i as u64 + 1, *key, 1, i as u64 + 1);
                    }
                    live.clear();
                }
            }
            let (cursor, _) = g.state();
            for s in 1..=log.len() as u64 {
                prop_assert_eq!(cursor.is_done(s), done.contains(&s), "sequence {}", s);
            }
        }
        // In the end everything gets done.
        for _ in 0..10 * log.len() + 10 {
            now += 1000;
            g.expire(now);
            while let Some(o) = g.take(0, now + 10) {
                let (s, token) = (o.sequence, o.token);
                done.push(s);
                g.ack(s, token, now).unwrap();
            }
        }
        done.sort_unstable();
        prop_assert_eq!(done, (1..=log.len() as u64).collect::<Vec<_>>());
        let (cursor, counts) = g.state();
        prop_assert_eq!((cursor.low(), counts.len()), (log.len() as u64, 0));
    }
}
