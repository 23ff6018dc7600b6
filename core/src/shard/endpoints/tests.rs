//! What is known of endpoints, over several runs.

use super::*;
use crate::delivery::endpoint::{Leave, NEVER_NS, Said, Seat};
use crate::rule::{Verification, VerificationMethod, Webhook, WebhookEndpoint};

fn open(dir: &Path) -> Endpoints {
    Endpoints::open(dir, Arc::new(Keeper::new()))
}

const S: u64 = 1_000_000_000;

fn destination(urls: &[&str], verification: Option<Verification>) -> Destination {
    let endpoints = urls.iter().map(|url| WebhookEndpoint::new(url).unwrap()).collect();
    let mut w = Webhook::with_endpoints(endpoints).unwrap();
    w.verification = verification;
    let mut d = Destination::new("a", DestinationKind::Webhook(w));
    d.adaptive_concurrency = false;
    d
}

fn attempt(b: &Balancer, at: usize, said: Said, now_ns: u64) {
    let e = &b.targets().iter().find(|t| t.at == at).unwrap().endpoint;
    let Leave::Go(permit) = e.ask(Seat::default(), 1, 1, false, now_ns) else { panic!("no permit") };
    Endpoint::ended(permit, Seat::default(), said, now_ns, 0.5);
}

fn news(tended: &Tended) -> Vec<News> {
    tended.notices.iter().map(|n| n.what).collect()
}

const A: &str = "http://a.example/1";
const B: &str = "http://b.example/2";

#[test]
fn what_was_agreed_to_is_known_again_and_another_address_is_asked() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let v = Verification::new(VerificationMethod::Challenge);
    let of = |urls: &[&str]| destination(urls, Some(v.clone()));
    let run = |d: &Destination, agree: bool| {
        let endpoints = open(dir);
        let b = endpoints.of(1, d);
        let questions = endpoints.to_ask(S, 10, |_| true);
        for q in &questions {
            assert!(endpoints.to_ask(S, 10, |_| true).is_empty(), "each once at a time");
            let answer = if agree { Ok(Some(60)) } else { Err(Unwilling { reason: "no".into(), wait: None }) };
            assert_eq!(endpoints.answered(q, Some(answer), S, 0.5), agree);
        }
        let told = news(&endpoints.tend(dir, 2 * S, 7, true));
        let state = endpoints.standing("a", 2 * S, 7).unwrap();
        assert_eq!(standing::read(dir, "a").unwrap().unwrap().state, state.state);
        (questions.len(), b.is_stopped(), state.state, told)
    };
    assert_eq!(run(&of(&[A]), false), (1, true, State::Pending, vec![News::Pending]));
    assert_eq!(standing::read(dir, "a").unwrap().unwrap().reason, "no");
    assert_eq!(run(&of(&[A]), true), (1, false, State::Active, vec![News::Verified]));
    assert_eq!(run(&of(&[A]), true), (0, false, State::Active, vec![]));
    // Of two, the one that is new is asked.
    assert_eq!(run(&of(&[B, A]), false), (1, false, State::Active, vec![]));
    assert_eq!(run(&of(&[B, A]), true), (1, false, State::Active, vec![]));
    assert_eq!(run(&of(&[B]), true), (0, false, State::Active, vec![]));
    // Nobody is asked where nobody is to be; what was granted holds no more.
    assert_eq!(run(&destination(&[B], None), true), (0, false, State::Active, vec![]));
    assert_eq!(standing::read(dir, "a").unwrap().unwrap().endpoints[0].granted_per_minute, None);
}

#[test]
fn who_does_not_agree_is_asked_less_and_less_often() {
    let dir = tempfile::tempdir().unwrap();
    let endpoints = open(dir.path());
    let d = destination(&[A], Some(Verification::new(VerificationMethod::Challenge)));
    endpoints.of(1, &d);
    let (mut now, mut waits) = (S, Vec::new());
    for _ in 0..20 {
        let q = endpoints.to_ask(now, 10, |_| true).pop().unwrap();
        endpoints.answered(&q, Some(Err(Unwilling { reason: "no".into(), wait: None })), now, 1.0);
        assert!(endpoints.to_ask(now, 10, |_| true).is_empty());
        let at = std::mem::replace(&mut now, endpoints.all.lock()[&1].places[0].asking.next_ns);
        waits.push((now - at) / S);
    }
    assert_eq!((&waits[..4], waits[19]), (&[1, 2, 4, 8][..], 3600));
    // A question that the engine's end cuts short is as if it had not been asked.
    let q = endpoints.to_ask(now, 10, |_| true).pop().unwrap();
    endpoints.answered(&q, None, now, 1.0);
    assert_eq!(endpoints.to_ask(now, 10, |_| true).len(), 1);
    // A destination that is no more is not asked; one that is resumed is, at once.
    endpoints.answered(&q, None, now, 1.0);
    assert!(endpoints.to_ask(now, 10, |_| false).is_empty());
    endpoints.obey("a", standing::Order::Resume);
    assert_eq!(endpoints.to_ask(0, 10, |_| true).len(), 1);
}

#[test]
fn a_breaker_that_comes_and_goes_is_told_once_in_ten_minutes() {
    let dir = tempfile::tempdir().unwrap();
    let endpoints = open(dir.path());
    let b = endpoints.of(1, &destination(&[A], None));
    let (mut told, mut now) = (0, S);
    for _ in 0..20 {
        (0..5).for_each(|_| attempt(&b, 0, Said::Fails, now));
        told += news(&endpoints.tend(dir.path(), now, 0, false)).len();
        now += 6 * S;
        (0..3).for_each(|n| attempt(&b, 0, Said::Works, now + n));
        told += news(&endpoints.tend(dir.path(), now, 0, false)).len();
        now += 6 * S;
    }
    assert_eq!(told, 1);
    (0..5).for_each(|_| attempt(&b, 0, Said::Fails, now + 600 * S));
    assert_eq!(news(&endpoints.tend(dir.path(), now + 600 * S, 0, false)), [News::BreakerOpened]);
}

#[test]
fn several_endpoints_are_given_up_together_with_warnings_before_and_not_while_one_works() {
    let dir = tempfile::tempdir().unwrap();
    let mut d = destination(&[A, B], None);
    (d.disable.after, d.disable.attempts_min) = (Duration::from_secs(100), 4);
    let endpoints = open(dir.path());
    let b = endpoints.of(1, &d);
    let told = |now: u64| news(&endpoints.tend(dir.path(), now, 0, false));
    (0..3).for_each(|_| attempt(&b, 0, Said::Fails, S));
    assert!(told(500 * S).is_empty(), "the other one has not failed");
    attempt(&b, 1, Said::Fails, 500 * S);
    assert_eq!(told(549 * S), []);
    assert_eq!(told(550 * S), [News::Failing(50)]);
    assert_eq!(told(595 * S), [News::Failing(90)]);
    assert_eq!(told(600 * S), [News::Failing(100), News::Disabled]);
    assert!(b.is_stopped() && endpoints.standing("a", 600 * S, 0).unwrap().state == State::Disabled);
    // Another run knows it.
    let again = open(dir.path());
    assert!(again.of(1, &d).is_stopped());
    again.obey("a", standing::Order::Resume);
    assert!(!again.of(1, &d).is_stopped());
    assert_eq!(news(&again.tend(dir.path(), S, 0, false)), [News::Resumed]);
}

#[test]
fn suspended_it_stays_so_whatever_its_endpoints_become() {
    let dir = tempfile::tempdir().unwrap();
    let endpoints = open(dir.path());
    endpoints.of(1, &destination(&[A], None));
    endpoints.obey("a", standing::Order::Suspend);
    for urls in [&[B][..], &[A, B], &["http://c.example/"]] {
        let b = endpoints.of(1, &destination(urls, None));
        assert_eq!((b.is_stopped(), b.gate(S)), (true, Gate::Open(NEVER_NS)), "{urls:?}");
    }
    endpoints.tend(dir.path(), S, 0, true);
    // Across a restart with yet another address too.
    let again = open(dir.path());
    assert!(again.of(1, &destination(&[A], None)).is_stopped());
    // By what an earlier version kept.
    std::fs::write(dir.path().join("destinations/b.json"), br#"{"state":"suspended","attempts":[]}"#).unwrap();
    let mut old = destination(&[A], None);
    old.name = "b".into();
    assert!(open(dir.path()).of(2, &old).is_stopped());
}
