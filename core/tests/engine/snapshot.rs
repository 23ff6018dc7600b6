//! Snapshots: a consistent copy of a data directory, and a new directory made of it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::common::*;
use tidewire::filter::EventFilter;
use tidewire::log::archive::{export, restore};
use tidewire::log::reader::{Entry, ReadFrom};
use tidewire::{ConsumerOptions, Delivery, Engine, ErrorKind, ReplayRequest, ReplayTo};
use tidewire_receiver::{Behaviour, check_per_key_order};

fn ids(entries: &[Entry]) -> Vec<String> {
    entries.iter().map(|e| format!("{} {}", e.id, e.sequencer)).collect()
}

struct Place {
    _dir: tempfile::TempDir,
    data: PathBuf,
    file: PathBuf,
    restored: PathBuf,
}

fn place() -> Place {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    Place { data: at("data"), file: at("snapshot.tar"), restored: at("restored"), _dir: dir }
}

#[test]
fn a_directory_that_nobody_has_open_is_copied_with_all_that_is_in_it() {
    let p = place();
    let engine = open(&p.data, 2, kept(vec![hook("dead", "http://127.0.0.1:9/")]));
    for n in 0..1000 {
        put(&engine, &format!("k-{}", n % 30), n);
    }
    let e = export(&p.data, &p.file).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Locked);
    assert!(e.to_string().contains("Engine::snapshot") && !p.file.exists(), "{e}");
    engine.close(Duration::ZERO).unwrap();
    let manifest = export(&p.data, &p.file).unwrap();
    assert_eq!(manifest.shards, 2);
    assert_eq!(restore(&p.file, &p.restored).unwrap(), manifest);
    let (here, there) = (read_all(&p.data, ReadFrom::Beginning), read_all(&p.restored, ReadFrom::Beginning));
    assert_eq!((ids(&here.0), here.1, ids(&there.0).len()), (ids(&there.0), there.1, 1000));
    // What was not delivered is delivered from there, in order.
    let r = receiver(Behaviour::Ok204);
    let engine = open(&p.restored, 2, kept(vec![hook("dead", &r.url())]));
    engine.flush(WAIT).unwrap();
    assert_eq!(r.records().len(), 1000);
    assert!(check_per_key_order(&r.records()).is_empty());
    let ids_here: BTreeSet<String> = here.0.iter().map(|e| e.id.to_string()).collect();
    assert_eq!(r.records().iter().map(|x| x.event_id.clone()).collect::<BTreeSet<_>>(), ids_here);
    // With the sequencers that the original would have given them.
    let sequencers: BTreeSet<String> = here.0.iter().map(|e| e.sequencer.to_string()).collect();
    assert_eq!(r.records().iter().map(|x| x.sequencer.clone()).collect::<BTreeSet<_>>(), sequencers);
    engine.close(WAIT).unwrap();
}

#[test]
fn new_events_of_the_copy_have_other_ids_and_later_sequencers_than_any_in_it() {
    let p = place();
    let engine = open(&p.data, 1, kept(vec![]));
    put(&engine, "k", 1);
    sync(&engine);
    engine.snapshot(&p.file).unwrap();
    restore(&p.file, &p.restored).unwrap();
    // Both go on.
    let copy = open(&p.restored, 1, kept(vec![]));
    for n in 2..50 {
        put(&engine, "k", n);
        put(&copy, "k", n);
    }
    engine.close(WAIT).unwrap();
    copy.close(WAIT).unwrap();
    let (original, _) = read_all(&p.data, ReadFrom::Beginning);
    let (copied, _) = read_all(&p.restored, ReadFrom::Beginning);
    assert_eq!(ids(&original)[0], ids(&copied)[0], "what came with the snapshot is the same event");
    let own = |e: &[Entry]| e[1..].iter().map(|e| e.id).collect::<BTreeSet<_>>();
    assert_eq!((own(&original).len(), own(&copied).len()), (48, 48));
    assert!(own(&original).is_disjoint(&own(&copied)));
    let sequencers: Vec<String> = copied.iter().map(|e| e.sequencer.to_string()).collect();
    assert!(sequencers.windows(2).all(|w| w[0] < w[1]), "{sequencers:?}");
    assert_ne!(original[1].sequencer.writer, copied[1].sequencer.writer);
    assert!(copied[1..].iter().all(|e| e.sequencer.writer == copied[1].sequencer.writer));
    // A snapshot of the copy still knows whose each event is.
    let (file, third) = (p.file.with_extension("2"), p.restored.with_extension("2"));
    export(&p.restored, &file).unwrap();
    restore(&file, &third).unwrap();
    assert_eq!(ids(&read_all(&third, ReadFrom::Beginning).0), ids(&copied));
}

#[test]
fn the_clock_of_the_copy_starts_above_everything_in_it_even_if_the_host_is_behind() {
    let p = place();
    let engine = open(&p.data, 1, kept(vec![]));
    put(&engine, "k", 1);
    sync(&engine);
    engine.snapshot(&p.file).unwrap();
    let before = read_all(&p.data, ReadFrom::Beginning).0;
    engine.close(WAIT).unwrap();
    restore(&p.file, &p.restored).unwrap();
    // As if this host's clock were far behind the one that wrote the snapshot: its promise lies in the future.
    let shard = p.restored.join("shard-0000");
    let future = before[0].clock.0 + 3_600_000_000_000;
    for name in ["cursor.a", "cursor.b"] {
        let Ok(bytes) = std::fs::read(shard.join(name)) else { continue };
        let mut cursors = tidewire::log::cursor::Cursors::decode(&bytes).unwrap();
        cursors.clock_ceiling_ns = future;
        std::fs::write(shard.join(name), cursors.encode()).unwrap();
    }
    let copy = open(&p.restored, 1, kept(vec![]));
    put(&copy, "k", 2);
    copy.close(WAIT).unwrap();
    let after = read_all(&p.restored, ReadFrom::Beginning).0;
    assert!(after[1].clock.0 > future && after[1].sequencer > after[0].sequencer);
}

#[test]
fn a_snapshot_of_a_running_engine_is_whole_and_in_order_whatever_goes_on() {
    let p = place();
    let r = receiver(Behaviour::Ok204);
    let mut c = config(&p.data, 3);
    c.retention.bytes_max = Some(6 << 20);
    let engine = Engine::open_with(c, kept(vec![hook("hook", &r.url())])).unwrap();
    let stop = AtomicBool::new(false);
    let begun = std::time::Instant::now();
    std::thread::scope(|s| {
        for t in 0..2 {
            let (engine, stop) = (&engine, &stop);
            s.spawn(move || {
                let mut n = 0;
                // A failure below leaves the scope only when these have ended.
                while !stop.load(Ordering::SeqCst) && begun.elapsed() < Duration::from_secs(120) {
                    put_large(engine, &format!("t{t}-{}", n % 10), n);
                    n += 1;
                    if n % 10 == 0 {
                        std::thread::sleep(Duration::from_millis(5));
                    }
                }
            });
        }
        for round in 0..4 {
            std::thread::sleep(Duration::from_millis(150));
            let at_least = engine.stats().accepted;
            let file = p.file.with_extension(format!("{round}"));
            let dir = p.restored.with_extension(format!("{round}"));
            let manifest = engine.snapshot(&file).unwrap();
            restore(&file, &dir).unwrap();
            let (entries, gaps) = read_all(&dir, ReadFrom::Beginning);
            assert!(gaps.is_empty(), "{gaps:?}");
            assert!(manifest.heads.iter().sum::<u64>() >= at_least);
            let mut last: BTreeMap<Vec<u8>, u64> = BTreeMap::new();
            for e in &entries {
                let n = e.frame().size().unwrap();
                // Each key's numbers go up by ten: none is missing.
                let before = last.insert(e.frame().key().to_vec(), n);
                assert!(before.is_none_or(|b| n == b + 10), "{before:?} before {n}");
            }
            let mut heads = vec![0; 3];
            entries.iter().for_each(|e| heads[e.shard as usize] = e.sequence);
            assert_eq!(heads, manifest.heads, "everything up to the heads, and nothing beyond");
            // It opens, and loses nothing that was not delivered.
            let copy = open(&dir, 3, kept(vec![]));
            copy.close(Duration::ZERO).unwrap();
        }
        stop.store(true, Ordering::SeqCst);
    });
    engine.close(WAIT).unwrap();
}

/// Writes so slowly that everything else has time to happen.
struct Slow<'a> {
    out: Vec<u8>,
    before_first: Option<Box<dyn FnOnce() + 'a>>,
}

impl Write for Slow<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(f) = self.before_first.take() {
            f();
        }
        self.out.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn nothing_is_removed_while_a_snapshot_is_made() {
    let p = place();
    let mut c = config(&p.data, 1);
    c.retention.age_max = Some(Duration::from_secs(2));
    let engine = Engine::open_with(c, kept(vec![])).unwrap();
    for n in 0..1000 {
        put_large(&engine, &format!("k{n}"), n);
    }
    sync(&engine);
    let data = p.data.clone();
    let wait = move || {
        let there = segments(&data).len();
        assert!(there > 3);
        std::thread::sleep(Duration::from_millis(3500));
        assert_eq!(segments(&data).len(), there, "they are too old, and stay");
    };
    let mut slow = Slow { out: Vec::new(), before_first: Some(Box::new(wait)) };
    engine.snapshot_to(&mut slow).unwrap();
    std::fs::write(&p.file, slow.out).unwrap();
    restore(&p.file, &p.restored).unwrap();
    assert_eq!(read_all(&p.restored, ReadFrom::Beginning).0.len(), 1000);
    until("they go afterwards", || segments(&p.data).len() == 1);
    // A writer that fails leaves nothing pinned.
    struct Full;
    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::Error::from_raw_os_error(28))
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    assert_eq!(engine.snapshot_to(&mut Full).unwrap_err().kind(), ErrorKind::NoSpace);
    assert!(engine.snapshot(Path::new("/no/such/dir/file")).is_err());
    for n in 0..1000 {
        put_large(&engine, &format!("k{n}"), n);
    }
    until("segments are there", || segments(&p.data).len() > 3);
    until("and go", || segments(&p.data).len() == 1);
    engine.close(WAIT).unwrap();
    assert_eq!(engine.snapshot(&p.file).unwrap_err().kind(), ErrorKind::Closed);
}

#[test]
fn groups_and_replays_come_along() {
    let p = place();
    let engine = open(&p.data, 2, kept(vec![hook("hook", "http://127.0.0.1:9/")]));
    let options = || {
        let mut o = ConsumerOptions::default();
        o.filter = EventFilter::all().with_bucket("bucket");
        o
    };
    let c = engine.consumer("g", &options()).unwrap();
    for n in 0..100 {
        put(&engine, &format!("k-{n}"), n);
    }
    let take = |c: &tidewire::Consumer| {
        let mut got = Vec::new();
        while got.len() < 100 {
            let more = c.fetch(100, Duration::from_millis(300)).unwrap();
            if more.is_empty() {
                break;
            }
            got.extend(more.into_iter().map(|d| match d {
                Delivery::Event(d) => d,
                Delivery::Gap(g) => panic!("{g:?}"),
            }));
        }
        got
    };
    let got = take(&c);
    assert_eq!(got.len(), 100);
    c.ack(&got[..60].iter().map(|d| d.lease).collect::<Vec<_>>()).unwrap();
    engine.replay(ReplayRequest::new(ReplayTo::Named("hook".into()))).unwrap();
    until("the cursors are saved", || engine.groups().unwrap()[0].acknowledged == 60);
    std::thread::sleep(Duration::from_millis(200));
    engine.snapshot(&p.file).unwrap();
    engine.close(Duration::ZERO).unwrap();
    restore(&p.file, &p.restored).unwrap();
    let r = receiver(Behaviour::Ok204);
    let copy = open(&p.restored, 2, kept(vec![hook("hook", &r.url())]));
    let c = copy.consumer("g", &options()).unwrap();
    let rest = take(&c);
    assert_eq!(rest.len(), 40);
    assert!(rest.iter().all(|d| d.deliveries == 2));
    until("the live lane and the replay are through", || r.records().len() == 200);
    copy.close(WAIT).unwrap();
}

#[test]
fn a_snapshot_that_is_cut_or_damaged_is_refused_and_leaves_nothing() {
    let p = place();
    let engine = open(&p.data, 1, kept(vec![]));
    for n in 0..200 {
        put(&engine, &format!("k-{n}"), n);
    }
    engine.close(WAIT).unwrap();
    export(&p.data, &p.file).unwrap();
    let good = std::fs::read(&p.file).unwrap();
    let refused = |bytes: &[u8]| {
        std::fs::write(&p.file, bytes).unwrap();
        let e = restore(&p.file, &p.restored).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Corrupt, "{e}");
        let left: Vec<_> =
            std::fs::read_dir(p.data.parent().unwrap()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left.len(), 2, "{left:?}");
        e.to_string()
    };
    // But for the zeros at the end of an archive, which nothing depends on.
    for cut in (0..good.len() - 2048).step_by(good.len() / 20) {
        refused(&good[..cut]);
    }
    for at in (0..good.len()).step_by(good.len() / 30 + 3) {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        std::fs::write(&p.file, &bad).unwrap();
        // A flip in what is only padding of the archive does no harm.
        match restore(&p.file, &p.restored) {
            Ok(_) => {
                assert_eq!(read_all(&p.restored, ReadFrom::Beginning).0.len(), 200, "byte {at}");
                std::fs::remove_dir_all(&p.restored).unwrap();
            }
            Err(e) => assert!(matches!(e.kind(), ErrorKind::Corrupt | ErrorKind::NewerFormat), "{e}"),
        }
    }
    assert!(refused(b"not a tar archive at all").contains("no snapshot"));
    let mut tar = tar_of(&[("../evil", b"x")]);
    assert!(refused(&tar).contains("evil"));
    assert!(!p.data.parent().unwrap().join("evil").exists());
    tar = tar_of(&[("names.json", b"{}")]);
    assert!(refused(&tar).contains("its end is missing"));
}

/// An archive as nobody of ours makes it.
fn tar_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, contents) in files {
        let mut header = vec![0u8; 512];
        header[..name.len()].copy_from_slice(name.as_bytes());
        header[100..107].copy_from_slice(b"0000644");
        header[124..135].copy_from_slice(format!("{:011o}", contents.len()).as_bytes());
        header[136..147].copy_from_slice(b"00000000000");
        header[148..156].fill(b' ');
        header[156] = b'0';
        header[257..265].copy_from_slice(b"ustar\x0000");
        let sum: u32 = header.iter().map(|b| u32::from(*b)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        out.extend(header);
        out.extend_from_slice(contents);
        out.resize(out.len().next_multiple_of(512), 0);
    }
    out.resize(out.len() + 1024, 0);
    out
}

#[test]
fn a_directory_with_something_in_it_is_left_alone() {
    let p = place();
    open(&p.data, 1, kept(vec![])).close(WAIT).unwrap();
    export(&p.data, &p.file).unwrap();
    let e = restore(&p.file, &p.data).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::InvalidArgument);
    assert!(e.to_string().contains("something in it"), "{e}");
    std::fs::create_dir(&p.restored).unwrap();
    restore(&p.file, &p.restored).unwrap();
    open(&p.restored, 1, kept(vec![])).close(WAIT).unwrap();
    assert_eq!(export(&p.file, &p.file).unwrap_err().kind(), ErrorKind::Io);
    assert_eq!(export(&p.data.join("none"), &p.file).unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn the_states_of_destinations_and_their_rotated_secrets_come_with_a_snapshot() {
    use tidewire::auth::{Auth, Secret, StandardWebhooks};
    use tidewire::log::standing::State;
    use tidewire::rule::DestinationKind;
    let p = place();
    let r = receiver(Behaviour::Ok204);
    let mut d = hook("hook", &r.url());
    let DestinationKind::Webhook(w) = &mut d.kind else { unreachable!() };
    let secret = Secret::text("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
    w.auth = vec![Auth::StandardWebhooks(StandardWebhooks::new(secret))];
    let engine = open(&p.data, 1, kept(vec![d.clone()]));
    engine.suspend_destination("hook").unwrap();
    engine.rotate_secret("hook", None, std::time::Duration::from_secs(3600)).unwrap();
    until("that is written", || {
        let found = tidewire::log::standing::read(&p.data, "hook").unwrap();
        found.is_some_and(|s| s.state == State::Suspended)
    });
    put(&engine, "k", 1);
    sync(&engine);
    engine.snapshot(&p.file).unwrap();
    engine.close(WAIT).unwrap();
    restore(&p.file, &p.restored).unwrap();
    let copy = open(&p.restored, 1, kept(vec![d]));
    assert_eq!(copy.destination_standing("hook").unwrap().state, State::Suspended);
    copy.resume_destination("hook").unwrap();
    copy.flush(WAIT).unwrap();
    let signatures = r.last_request().unwrap().headers["webhook-signature"].to_str().unwrap().to_owned();
    assert_eq!(signatures.split(' ').count(), 2, "by both secrets");
    copy.close(WAIT).unwrap();
}
