//! Events of the log are sent again, beside the live ones.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::common::*;
use tidewire::event::EventTypes;
use tidewire::event::profile::Profile;
use tidewire::filter::{EventFilter, Filter};
use tidewire::log::reader::{Position, ReadFrom};
use tidewire::log::recovery;
use tidewire::rule::{BatchLimits, Destination};
use tidewire::{Engine, ErrorKind, Event, KnownType, ReplayRequest, ReplayState, ReplayTo};
use tidewire_receiver::{Behaviour, Receiver, Record, Reply, check_per_key_order};

fn to_hook() -> ReplayRequest {
    ReplayRequest::new(ReplayTo::Named("hook".into()))
}

fn one_off(url: &str) -> Box<Destination> {
    Box::new(hook("spare", url))
}

/// What came since there were so many.
fn since(r: &Receiver, n: usize) -> Vec<Record> {
    r.records().split_off(n)
}

fn ids(records: &[Record]) -> Vec<String> {
    records.iter().map(|r| r.event_id.clone()).collect()
}

fn now_ns() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64
}

#[test]
fn everything_is_sent_again_in_order_with_the_same_ids() {
    let dir = tempfile::tempdir().unwrap();
    let r = receiver(Behaviour::Ok204);
    let engine = open(dir.path(), 2, kept(vec![hook("hook", &r.url())]));
    for n in 0..3000 {
        put(&engine, &format!("key-{}", n % 50), n);
    }
    engine.flush(WAIT).unwrap();
    let first: BTreeSet<String> = ids(&r.records()).into_iter().collect();
    let sequencers: BTreeMap<String, String> = r.records().into_iter().map(|x| (x.event_id, x.sequencer)).collect();
    let replay = engine.replay(to_hook()).unwrap();
    let p = replay.wait(WAIT).unwrap();
    assert_eq!((p.state, p.found, p.delivered, p.dead_lettered, p.missing), (ReplayState::Done, 3000, 3000, 0, 0));
    assert_eq!(p.read, 1.0);
    let again = since(&r, 3000);
    assert_eq!(again.len(), 3000);
    assert_eq!(ids(&again).into_iter().collect::<BTreeSet<_>>(), first);
    assert!(again.iter().all(|x| sequencers[&x.event_id] == x.sequencer));
    assert!(check_per_key_order(&again).is_empty());
    assert_eq!(engine.stats().delivered, 3000, "the destination's own counts know nothing of it");
    assert!(engine.replays().unwrap().is_empty());
    engine.close(WAIT).unwrap();
    // It is through for good.
    let engine = open(dir.path(), 2, kept(vec![hook("hook", &r.url())]));
    assert!(engine.replays().unwrap().is_empty());
    engine.flush(WAIT).unwrap();
    engine.close(WAIT).unwrap();
    assert_eq!(r.records().len(), 6000);
}

#[test]
fn records_of_a_replay_say_so() {
    let dir = tempfile::tempdir().unwrap();
    let bodies = Arc::new(bodies::Bodies::default());
    let seen = bodies.clone();
    let r = receiver(Behaviour::decide(move |hit| {
        seen.push(hit.body);
        Reply::status(204)
    }));
    let mut cloud = hook("cloud", &r.url());
    cloud.profile = Profile::CloudEvents;
    let engine = open(dir.path(), 1, kept(vec![hook("hook", &r.url()), cloud]));
    put(&engine, "k", 1);
    engine.flush(WAIT).unwrap();
    let live = bodies.take();
    assert!(live.iter().all(|b| !b.contains("replay")));
    for to in ["hook", "cloud"] {
        let mut request = ReplayRequest::new(ReplayTo::Named(to.into()));
        request.name = Some("again.1".into());
        engine.replay(request).unwrap().wait(WAIT).unwrap();
        let body = bodies.take().pop().unwrap();
        let value: serde_json::Value = serde_json::from_str(&body).unwrap();
        let record = if to == "hook" { &value["Records"][0] } else { &value[0] };
        assert_eq!(record["replay"], "again.1", "{body}");
        // But for that, nothing differs.
        let plain = body.replace(",\"replay\":\"again.1\"", "");
        assert!(live.contains(&plain), "{plain}\n{live:?}");
    }
    engine.close(WAIT).unwrap();
}

/// A list that a receiver's function may fill.
mod bodies {
    #[derive(Default)]
    pub struct Bodies(std::sync::Mutex<Vec<String>>);

    impl Bodies {
        pub fn push(&self, body: &[u8]) {
            self.0.lock().unwrap().push(String::from_utf8(body.to_vec()).unwrap());
        }

        pub fn take(&self) -> Vec<String> {
            std::mem::take(&mut self.0.lock().unwrap())
        }
    }
}

#[test]
fn a_replay_is_bounded_by_filter_sequence_time_and_end() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path(), 1, kept(vec![]));
    let types = EventTypes::default();
    for n in 1..=50 {
        put(&engine, &format!("a/{n}.jpg"), n);
        put(&engine, &format!("b/{n}.txt"), n);
    }
    engine.publish(&Event::new(KnownType::ObjectRemovedDelete.into(), "other", b"a/x.jpg")).unwrap();
    let middle = now_ns();
    std::thread::sleep(Duration::from_millis(5));
    for n in 51..=60 {
        put(&engine, &format!("a/{n}.jpg"), n);
    }
    sync(&engine);
    let run = |change: &dyn Fn(&mut ReplayRequest)| {
        let r = receiver(Behaviour::Ok204);
        let mut request = ReplayRequest::new(ReplayTo::OneOff(one_off(&r.url())));
        request.filter = EventFilter::all().with_bucket("bucket");
        change(&mut request);
        let p = engine.replay(request).unwrap().wait(WAIT).unwrap();
        assert_eq!((p.state, p.delivered as usize), (ReplayState::Done, r.records().len()));
        r.records().iter().map(|x| x.key.clone()).collect::<Vec<_>>()
    };
    assert_eq!(run(&|_| ()).len(), 110);
    let key = |q: &mut ReplayRequest, f: Filter| q.filter = q.filter.clone().with_key(f);
    assert_eq!(run(&|q| key(q, Filter::new("a/", ""))).len(), 60);
    assert_eq!(run(&|q| key(q, Filter::new("", "5.txt"))).len(), 5);
    assert_eq!(run(&|q| q.filter = EventFilter::all().with_events(["s3:ObjectRemoved:*"], &types).unwrap()).len(), 1);
    assert_eq!(run(&|q| q.from = ReadFrom::Sequence(91)).len(), 20);
    assert_eq!(run(&|q| q.from = ReadFrom::Position(Position(vec![90]))).len(), 20);
    assert_eq!(run(&|q| q.from = ReadFrom::Time(middle)).len(), 10);
    assert_eq!(run(&|q| q.until_ns = Some(middle)).len(), 100);
    assert_eq!(run(&|q| (q.from, q.until_ns) = (ReadFrom::Time(middle), Some(middle))).len(), 0);
    // What is published after the request is not of it.
    let r = receiver(Behaviour::Ok204);
    let mut request = ReplayRequest::new(ReplayTo::OneOff(one_off(&r.url())));
    request.rate_max = Some(100);
    let replay = engine.replay(request).unwrap();
    put(&engine, "late", 1);
    replay.wait(WAIT).unwrap();
    assert!(r.records().iter().all(|x| x.key != "late"));
    engine.close(WAIT).unwrap();
}

#[test]
fn live_events_are_not_held_up_by_a_replay() {
    let dir = tempfile::tempdir().unwrap();
    let r = receiver(Behaviour::Ok204);
    let engine = open(dir.path(), 1, kept(vec![hook("hook", &r.url())]));
    for n in 0..2000 {
        put(&engine, &format!("old-{n}"), n);
    }
    engine.flush(WAIT).unwrap();
    let mut request = to_hook();
    request.rate_max = Some(500);
    let replay = engine.replay(request).unwrap();
    until("the replay sends", || r.records().len() > 2020);
    put(&engine, "live", 1);
    engine.flush(WAIT).unwrap();
    let records = since(&r, 2000);
    let live = records.iter().position(|x| x.key == "live").unwrap();
    assert!(live < 1500, "{live} came before it");
    assert_eq!(replay.progress().state, ReplayState::Running);
    assert_eq!(replay.wait(WAIT).unwrap().delivered, 2000);
    assert!(check_per_key_order(&since(&r, 2000)).is_empty());
    engine.close(WAIT).unwrap();
}

#[test]
fn the_rate_is_a_limit() {
    let dir = tempfile::tempdir().unwrap();
    let r = receiver(Behaviour::Ok204);
    let engine = open(dir.path(), 2, kept(vec![]));
    for n in 0..300 {
        put(&engine, &format!("k-{n}"), n);
    }
    sync(&engine);
    let mut request = ReplayRequest::new(ReplayTo::OneOff(one_off(&r.url())));
    request.rate_max = Some(200);
    request.filter = EventFilter::all().with_bucket("bucket");
    let begun = Instant::now();
    engine.replay(request).unwrap().wait(WAIT).unwrap();
    // 300 events at 200 a second, less the burst of 20.
    assert!(begun.elapsed() > Duration::from_millis(1300), "{:?}", begun.elapsed());
    assert_eq!(r.records().len(), 300);
    engine.close(WAIT).unwrap();
}

#[test]
fn a_replay_goes_on_after_a_restart_where_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let r = receiver(Behaviour::Ok204);
    let engine = open(dir.path(), 2, kept(vec![hook("hook", &r.url())]));
    for n in 0..2000 {
        put(&engine, &format!("k-{}", n % 100), n);
    }
    engine.flush(WAIT).unwrap();
    let mut request = to_hook();
    (request.rate_max, request.name) = (Some(1000), Some("again".into()));
    let replay = engine.replay(request).unwrap();
    until("half is sent", || r.records().len() > 2600);
    assert_eq!(
        engine
            .replay({
                let mut q = to_hook();
                q.name = Some("again".into());
                q
            })
            .unwrap_err()
            .kind(),
        ErrorKind::InvalidArgument
    );
    engine.close(WAIT).unwrap();
    assert_eq!(replay.wait(WAIT).unwrap_err().kind(), ErrorKind::Closed);
    let before = r.records().len();
    assert!(before < 4000);

    let engine = open(dir.path(), 2, kept(vec![hook("hook", &r.url())]));
    let replays = engine.replays().unwrap();
    assert_eq!(replays.iter().map(|r| r.name()).collect::<Vec<_>>(), ["again"]);
    let p = replays[0].wait(WAIT).unwrap();
    assert!(p.delivered < 1990, "it did not begin anew: {p:?}");
    let records = since(&r, 2000);
    assert_eq!(ids(&records).into_iter().collect::<BTreeSet<_>>().len(), 2000, "nothing is missing");
    assert!(check_per_key_order(&records).is_empty());
    engine.close(WAIT).unwrap();
}

#[test]
fn a_replay_to_a_destination_of_its_own_waits_after_a_restart_until_it_is_told_where() {
    let dir = tempfile::tempdir().unwrap();
    let r = receiver(Behaviour::Ok204);
    let mut d = one_off(&r.url());
    let tidewire::rule::DestinationKind::Webhook(w) = &mut d.kind else { panic!("no webhook") };
    w.headers.push(("Authorization".into(), "Bearer top-secret".into()));
    let engine = open(dir.path(), 1, kept(vec![]));
    for n in 0..500 {
        put(&engine, &format!("k-{n}"), n);
    }
    sync(&engine);
    let mut request = ReplayRequest::new(ReplayTo::OneOff(d.clone()));
    (request.rate_max, request.name) = (Some(400), Some("spare".into()));
    request.filter = EventFilter::all().with_bucket("bucket");
    engine.replay(request).unwrap();
    until("some are sent", || r.records().len() > 100);
    engine.close(WAIT).unwrap();
    for file in ["replays.json", "names.json"] {
        let text = std::fs::read_to_string(dir.path().join(file)).unwrap();
        assert!(!text.contains("secret") && !text.contains(&r.url()), "{text}");
    }

    let engine = open(dir.path(), 1, kept(vec![]));
    let replay = engine.replays().unwrap().pop().unwrap();
    assert_eq!(replay.progress().state, ReplayState::Waiting);
    let e = replay.wait(Duration::from_millis(50)).unwrap_err();
    assert!(e.kind() == ErrorKind::Timeout && e.to_string().contains("resume_replay"), "{e}");
    assert_eq!(engine.resume_replay("other", (*d).clone()).unwrap_err().kind(), ErrorKind::NotFound);
    engine.resume_replay("spare", (*d).clone()).unwrap();
    assert_eq!(engine.resume_replay("spare", (*d).clone()).unwrap_err().kind(), ErrorKind::InvalidArgument);
    assert_eq!(replay.wait(WAIT).unwrap().state, ReplayState::Done);
    assert_eq!(ids(&r.records()).into_iter().collect::<BTreeSet<_>>().len(), 500);
    engine.close(WAIT).unwrap();
}

#[test]
fn a_replay_can_be_cancelled_and_stays_so() {
    let dir = tempfile::tempdir().unwrap();
    let r = receiver(Behaviour::Delay(Duration::from_millis(20)));
    let mut d = hook("hook", &r.url());
    d.batch = BatchLimits { events_max: 1, ..BatchLimits::default() };
    d.concurrency = 4;
    let engine = open(dir.path(), 1, kept(vec![d.clone()]));
    for n in 0..400 {
        put(&engine, &format!("k-{n}"), n);
    }
    engine.flush(WAIT).unwrap();
    let replay = engine.replay(to_hook()).unwrap();
    until("some are sent", || r.records().len() > 405);
    replay.cancel().unwrap();
    assert_eq!(replay.wait(WAIT).unwrap().state, ReplayState::Cancelled);
    replay.cancel().unwrap();
    assert!(engine.replays().unwrap().is_empty());
    // What was under way ends, the lane's memory is given back, and the destination goes on. The receiver may still have to
    // take what was sent before.
    until("nothing is held", || engine.stats().held_bytes == 0);
    let sent = r.records().len() + d.concurrency;
    assert!(sent < 800);
    put(&engine, "live", 1);
    engine.flush(WAIT).unwrap();
    engine.close(WAIT).unwrap();
    let engine = open(dir.path(), 1, kept(vec![d]));
    assert!(engine.replays().unwrap().is_empty());
    engine.flush(WAIT).unwrap();
    engine.close(WAIT).unwrap();
    let records = r.records();
    assert!(records.len() <= sent + 1, "nothing but the live one: {} after {sent}", records.len());
    assert_eq!(records.iter().filter(|x| x.key == "live").count(), 1);
}

#[test]
fn failures_are_retried_in_order_and_poison_becomes_a_dead_letter() {
    let dir = tempfile::tempdir().unwrap();
    let tries = Arc::new(AtomicU64::new(0));
    let seen = tries.clone();
    let r = receiver(Behaviour::decide(move |hit| {
        if hit.records.iter().any(|x| x.key == "poison") {
            return Reply::status(400);
        }
        Reply::status(if seen.fetch_add(1, Ordering::SeqCst).is_multiple_of(3) { 503 } else { 204 })
    }));
    let engine = open(dir.path(), 1, kept(vec![]));
    for n in 0..200 {
        put(&engine, &format!("k-{}", n % 10), n);
    }
    put(&engine, "poison", 1);
    sync(&engine);
    let mut d = one_off(&r.url());
    (d.retry.poison_attempts, d.batch.events_max) = (1, 7);
    // The events are older than the budget, which begins with the replay.
    d.retry.age_max = Duration::from_millis(2500);
    std::thread::sleep(Duration::from_secs(3));
    let mut request = ReplayRequest::new(ReplayTo::OneOff(d));
    request.filter = EventFilter::all().with_bucket("bucket");
    let p = engine.replay(request).unwrap().wait(WAIT).unwrap();
    assert_eq!((p.state, p.delivered, p.dead_lettered), (ReplayState::Done, 200, 1));
    assert!(p.retried > 0 && !p.last_error.is_empty());
    assert!(check_per_key_order(&r.records()).is_empty());
    engine.close(WAIT).unwrap();
    assert_eq!(recovery::dead_letters(dir.path()).unwrap().len(), 1);
    // The number that they are filed under makes no lane.
    let engine = open(dir.path(), 1, kept(vec![]));
    assert!(engine.stats().destinations.is_empty());
    engine.close(WAIT).unwrap();
}

#[test]
fn a_dead_destination_holds_the_replay_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let r = receiver(Behaviour::Ok204);
    let engine = open(dir.path(), 1, kept(vec![hook("hook", &r.url())]));
    for n in 0..5000 {
        put_large(&engine, &format!("k-{n}"), n);
    }
    engine.flush(WAIT).unwrap();
    let replay = engine.replay(ReplayRequest::new(ReplayTo::OneOff(one_off("http://127.0.0.1:9/")))).unwrap();
    let e = replay.wait(Duration::from_millis(500)).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Timeout);
    assert!(e.to_string().contains("0 of") && e.to_string().contains("refused"), "{e}");
    put(&engine, "live", 1);
    engine.flush(WAIT).unwrap();
    assert!(engine.stats().held_bytes < 32 << 20, "{}", engine.stats().held_bytes);
    engine.close(WAIT).unwrap();
}

#[test]
fn the_log_that_a_replay_still_needs_is_kept_and_what_was_gone_before_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let gate = Arc::new(AtomicU64::new(0));
    let open_gate = gate.clone();
    let r =
        receiver(Behaviour::decide(move |_| Reply::status(if gate.load(Ordering::SeqCst) == 0 { 503 } else { 204 })));
    let mut c = config(dir.path(), 1);
    c.retention.bytes_max = Some(4 << 20);
    let engine = Engine::open_with(c, kept(vec![])).unwrap();
    for n in 0..2000 {
        put_large(&engine, &format!("k-{n}"), n);
    }
    sync(&engine);
    until("old segments are gone", || segments(dir.path()).len() <= 4);
    let (there, _) = read_all(dir.path(), ReadFrom::Beginning);
    let mut request = ReplayRequest::new(ReplayTo::OneOff(one_off(&r.url())));
    request.from = ReadFrom::Sequence(2);
    request.filter = EventFilter::all().with_bucket("bucket");
    let replay = engine.replay(request).unwrap();
    for n in 2000..4000 {
        put_large(&engine, &format!("k-{n}"), n);
    }
    sync(&engine);
    std::thread::sleep(Duration::from_millis(1500));
    assert!(segments(dir.path()).len() > 8, "they stay while the replay needs them");
    open_gate.store(1, Ordering::SeqCst);
    let p = replay.wait(WAIT).unwrap();
    assert_eq!((p.state, p.delivered as usize), (ReplayState::Done, there.len()));
    assert_eq!(p.missing, there[0].sequence - 2);
    until("they go when it is through", || segments(dir.path()).len() <= 4);
    engine.close(WAIT).unwrap();
}

#[test]
fn a_replay_ends_when_its_destination_is_removed_from_the_rules() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path(), 1, kept(vec![hook("hook", "http://127.0.0.1:9/")]));
    for n in 0..100 {
        put(&engine, &format!("k-{n}"), n);
    }
    let replay = engine.replay(to_hook()).unwrap();
    engine.replace_rules(kept(vec![hook("other", "http://127.0.0.1:9/")])).unwrap();
    assert_eq!(replay.wait(WAIT).unwrap().state, ReplayState::Failed);
    engine.close(Duration::ZERO).unwrap();
    let replay_of = |rules| {
        let engine = open(dir.path(), 1, rules);
        let replay = engine.replay(to_hook()).map(|_| ());
        engine.close(Duration::ZERO).unwrap();
        replay
    };
    replay_of(kept(vec![hook("hook", "http://127.0.0.1:9/")])).unwrap();
    // Removed while the engine was closed.
    let engine = open(dir.path(), 1, kept(vec![]));
    assert!(engine.replays().unwrap().is_empty());
    engine.close(Duration::ZERO).unwrap();
}

#[test]
fn requests_that_make_no_sense_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path(), 2, kept(vec![hook("thumbnails", "http://127.0.0.1:9/")]));
    let refused = |change: &dyn Fn(&mut ReplayRequest)| {
        let mut request = ReplayRequest::new(ReplayTo::Named("thumbnails".into()));
        change(&mut request);
        engine.replay(request).unwrap_err()
    };
    let e = refused(&|q| q.to = ReplayTo::Named("thumbnail".into()));
    assert_eq!((e.kind(), e.remedy_text()), (ErrorKind::NotFound, Some("did you mean `thumbnails`?")));
    assert_eq!(refused(&|q| q.from = ReadFrom::Now).kind(), ErrorKind::InvalidArgument);
    assert_eq!(refused(&|q| q.rate_max = Some(0)).kind(), ErrorKind::InvalidArgument);
    assert_eq!(refused(&|q| q.name = Some("a b".into())).kind(), ErrorKind::InvalidArgument);
    assert_eq!(refused(&|q| q.from = ReadFrom::Position(Position(vec![1]))).kind(), ErrorKind::InvalidArgument);
    let mut bad = one_off("http://127.0.0.1:9/");
    bad.concurrency = 0;
    assert_eq!(refused(&|q| q.to = ReplayTo::OneOff(bad.clone())).kind(), ErrorKind::InvalidConfig);
    // Of an empty log there is nothing to send.
    let p = engine.replay(ReplayRequest::new(ReplayTo::Named("thumbnails".into()))).unwrap().wait(WAIT).unwrap();
    assert_eq!((p.state, p.found), (ReplayState::Done, 0));
    engine.close(WAIT).unwrap();
    assert_eq!(refused(&|_| ()).kind(), ErrorKind::Closed);
}
