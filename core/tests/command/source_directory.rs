//! The directory source: every kind of change, told of once, in order, and nothing lost between two runs.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tidewire::Engine;
use tidewire::config::{Config, DirectorySource, Source};
use tidewire::source::directory::DirectoryWatch;
use tidewire_receiver::{Behaviour, Receiver, check_per_key_order};

const WAIT: Duration = Duration::from_secs(120);
/// Longer than anything is put off.
const QUIET: Duration = Duration::from_millis(700);

struct Setup {
    dir: tempfile::TempDir,
    root: PathBuf,
    receiver: Receiver,
    on_start: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Told {
    name: String,
    key: Vec<u8>,
    size: Option<u64>,
    etag: String,
    data: String,
}

struct Running {
    engine: Engine,
    watch: DirectoryWatch,
    told: Arc<Mutex<Vec<Told>>>,
}

fn setup(on_start: &'static str) -> Setup {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("bucket");
    fs::create_dir(&root).unwrap();
    let receiver = Receiver::start("127.0.0.1:0".parse().unwrap(), Behaviour::Ok204).unwrap();
    Setup { dir, root, receiver, on_start }
}

impl Setup {
    fn config(&self, root: &Path) -> (Config, DirectorySource) {
        let text = format!(
            r#"
            [engine]
            data_dir = "{}"
            shards = 2
            [[destination]]
            name = "hook"
            type = "webhook"
            url = "{}"
            [[rule]]
            id = "all"
            events = ["s3:ObjectCreated:*", "s3:ObjectRemoved:*"]
            destinations = ["hook"]
            [[source]]
            type = "directory"
            path = "{}"
            bucket = "files"
            on_start = "{}"
            "#,
            self.dir.path().join("data").display(),
            self.receiver.url(),
            root.display(),
            self.on_start
        );
        let config = Config::from_toml(&text, "test.toml", Path::new("/")).unwrap();
        let Some(Source::Directory(source)) = config.sources.first().cloned() else { panic!("no source") };
        (config, source)
    }

    fn start(&self) -> Running {
        let (config, source) = self.config(&self.root);
        let engine = Engine::open(config).unwrap();
        let told = Arc::new(Mutex::new(Vec::new()));
        let into = told.clone();
        let observer = Box::new(move |e: &tidewire::Event<'_>, _: tidewire::Published| {
            into.lock().unwrap().push(Told {
                name: e.event_type.name().trim_start_matches("s3:Object").to_owned(),
                key: e.key.to_vec(),
                size: e.size,
                etag: e.etag.to_owned(),
                data: String::from_utf8(e.data.to_vec()).unwrap(),
            });
        });
        let watch = DirectoryWatch::start_with(engine.clone(), &source, Some(observer)).unwrap();
        Running { engine, watch, told }
    }

    fn write(&self, name: impl AsRef<Path>, contents: &str) {
        let path = self.root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, contents).unwrap();
    }
}

impl Running {
    fn told(&self) -> Vec<Told> {
        self.told.lock().unwrap().clone()
    }

    fn lines(&self) -> Vec<String> {
        self.told().iter().map(|t| format!("{} {}", t.name, String::from_utf8_lossy(&t.key))).collect()
    }

    /// Waits for as many events as expected, then whether there are more; answers them and forgets them.
    fn take(&self, expected: usize) -> Vec<String> {
        let deadline = Instant::now() + WAIT;
        while self.told().len() < expected {
            assert!(Instant::now() < deadline, "only {:?}", self.lines());
            std::thread::sleep(Duration::from_millis(5));
        }
        std::thread::sleep(QUIET);
        let lines = self.lines();
        self.told.lock().unwrap().clear();
        lines
    }

    fn stop(self) -> Vec<String> {
        let started = Instant::now();
        self.watch.stop(WAIT).unwrap();
        assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
        self.engine.close(WAIT).unwrap();
        self.told.lock().unwrap().iter().map(|t| format!("{} {}", t.name, String::from_utf8_lossy(&t.key))).collect()
    }
}

fn sorted(mut lines: Vec<String>) -> Vec<String> {
    lines.sort();
    lines
}

#[test]
fn create_overwrite_rename_and_remove_arrive_in_order() {
    let s = setup("ignore");
    let r = s.start();
    s.write("a.txt", "one");
    assert_eq!(r.take(1), ["Created:Put a.txt"]);
    s.write("a.txt", "other");
    std::thread::sleep(Duration::from_millis(50));
    let told = r.told();
    assert_eq!((told[0].size, told[0].etag.is_empty()), (Some(5), false));
    assert_eq!(r.take(1), ["Created:Put a.txt"]);
    fs::rename(s.root.join("a.txt"), s.root.join("b.txt")).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(r.told().last().unwrap().data, r#"{"sourceKey":"a.txt"}"#);
    assert_eq!(r.take(2), ["Removed:Delete a.txt", "Created:Copy b.txt"]);
    fs::remove_file(s.root.join("b.txt")).unwrap();
    assert_eq!(r.take(1), ["Removed:Delete b.txt"]);

    // What is written beside and renamed into place.
    s.write("target", "old");
    s.write("target.tmp", "new");
    fs::rename(s.root.join("target.tmp"), s.root.join("target")).unwrap();
    // The name in between may be gone before it is looked at.
    let lines = r.take(1);
    assert!(lines.iter().rfind(|l| l.ends_with(" target")).is_some_and(|l| l.starts_with("Created:")), "{lines:?}");
    r.engine.flush(WAIT).unwrap();
    assert!(check_per_key_order(&s.receiver.records()).is_empty());
    let key =
        |k: &str| s.receiver.records().iter().filter(|r| r.key == k).map(|r| r.event_name.clone()).collect::<Vec<_>>();
    assert_eq!(key("b.txt"), ["ObjectCreated:Copy", "ObjectRemoved:Delete"]);
    assert_eq!(r.stop(), Vec::<String>::new());
}

#[test]
fn links_pipes_and_unchanged_files_are_not_told_of() {
    let s = setup("ignore");
    let outside = s.dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("x"), "x").unwrap();
    let r = s.start();
    std::os::unix::fs::symlink(&outside, s.root.join("link")).unwrap();
    std::os::unix::fs::symlink(outside.join("x"), s.root.join("link.txt")).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(s.root.join("pipe")).status().unwrap().success());
    fs::write(outside.join("y"), "y").unwrap();
    assert_eq!(r.take(0), Vec::<String>::new());

    s.write("file", "x");
    assert_eq!(r.take(1), ["Created:Put file"]);
    // A second name is an object of its own.
    fs::hard_link(s.root.join("file"), s.root.join("file2")).unwrap();
    assert_eq!(r.take(1), ["Created:Put file2"]);
    // A file that is being written is told of when it is closed.
    let file = fs::File::create(s.root.join("slow")).unwrap();
    std::thread::sleep(QUIET);
    assert_eq!(r.take(0), Vec::<String>::new());
    drop(file);
    assert_eq!(r.take(1), ["Created:Put slow"]);
    std::thread::sleep(Duration::from_secs(2));
    drop(fs::OpenOptions::new().append(true).open(s.root.join("slow")).unwrap());
    assert_eq!(r.take(0), Vec::<String>::new(), "opened for writing, but not written");
    r.stop();
}

#[test]
fn trees_that_come_at_once_are_told_of_whole() {
    let s = setup("ignore");
    let r = s.start();
    for i in 0..50 {
        s.write(format!("deep/{}/{}/x/{i}", i % 3, i % 7), "x");
    }
    let lines = sorted(r.take(50));
    let mut expected: Vec<String> = (0..50).map(|i| format!("Created:Put deep/{}/{}/x/{i}", i % 3, i % 7)).collect();
    expected.sort();
    assert_eq!(lines, expected);

    // From outside, by renaming.
    let outside = s.dir.path().join("outside");
    fs::create_dir_all(outside.join("p/q")).unwrap();
    for i in 0..10 {
        fs::write(outside.join(format!("p/q/{i}")), "x").unwrap();
    }
    fs::rename(&outside, s.root.join("in")).unwrap();
    let lines = sorted(r.take(10));
    assert_eq!(lines, (0..10).map(|i| format!("Created:Put in/p/q/{i}")).collect::<Vec<_>>());

    // Renamed: each file goes and comes.
    fs::rename(s.root.join("in"), s.root.join("moved")).unwrap();
    let lines = r.take(20);
    for i in 0..10 {
        let gone = lines.iter().position(|l| *l == format!("Removed:Delete in/p/q/{i}"));
        let came = lines.iter().position(|l| *l == format!("Created:Copy moved/p/q/{i}"));
        assert!(gone.is_some() && gone < came, "{lines:?}");
    }
    assert_eq!(lines.len(), 20);
    // It is watched under its new name.
    s.write("moved/p/q/0", "changed");
    assert_eq!(r.take(1), ["Created:Put moved/p/q/0"]);

    // Out of it.
    fs::rename(s.root.join("moved/p"), s.dir.path().join("out")).unwrap();
    assert_eq!(sorted(r.take(10)), (0..10).map(|i| format!("Removed:Delete moved/p/q/{i}")).collect::<Vec<_>>());
    fs::write(s.dir.path().join("out/q/0"), "unseen").unwrap();
    assert_eq!(r.take(0), Vec::<String>::new());

    fs::remove_dir_all(s.root.join("deep")).unwrap();
    let lines = sorted(r.take(50));
    assert_eq!(lines.len(), 50);
    assert!(lines.iter().all(|l| l.starts_with("Removed:Delete deep/")), "{lines:?}");
    assert_eq!(r.watch.stats().files, 0);
    // The same name again is watched again.
    s.write("deep/again", "x");
    assert_eq!(r.take(1), ["Created:Put deep/again"]);
    r.stop();
}

#[test]
fn names_are_bytes() {
    let s = setup("ignore");
    let r = s.start();
    let names: [&[u8]; 7] =
        ["a b".as_bytes(), b"a+b", "é/ü".as_bytes(), "🙂.png".as_bytes(), b"raw\xff\xfe/x\x80", b"%41", b"line\nbreak"];
    for name in names {
        s.write(OsStr::from_bytes(name), "x");
    }
    r.take(7);
    fs::remove_file(s.root.join(OsStr::from_bytes(b"raw\xff\xfe/x\x80"))).unwrap();
    let told = {
        r.take(1);
        r.engine.flush(WAIT).unwrap();
        s.receiver.records()
    };
    let mut keys: Vec<String> = told.iter().map(|t| t.key.clone()).collect();
    keys.sort();
    let mut expected: Vec<String> = names.iter().map(|n| String::from_utf8_lossy(n).into_owned()).collect();
    expected.push(String::from_utf8_lossy(b"raw\xff\xfe/x\x80").into_owned());
    expected.sort();
    assert_eq!(keys, expected);

    // Longer than a key may be: counted, and no harm to others.
    let long: PathBuf = (0..6).map(|_| "d".repeat(200)).collect();
    s.write(long.join("x"), "x");
    s.write("after", "x");
    assert_eq!(r.take(1), ["Created:Put after"]);
    assert_eq!(r.watch.stats().invalid, 1);
    r.stop();
}

#[test]
fn fast_changes_end_in_the_last_state() {
    let s = setup("ignore");
    let r = s.start();
    let threads: Vec<_> = (0..4)
        .map(|t| {
            let root = s.root.clone();
            std::thread::spawn(move || {
                for i in 0..400 {
                    let path = root.join(format!("t{t}/k{}", i % 10));
                    fs::create_dir_all(path.parent().unwrap()).unwrap();
                    match i % 7 {
                        3 => drop(fs::remove_file(&path)),
                        5 => drop(fs::rename(&path, path.with_extension("moved"))),
                        _ => fs::write(&path, "x".repeat(i)).unwrap(),
                    }
                    if i % 97 == 96 {
                        fs::remove_dir_all(path.parent().unwrap()).unwrap();
                    }
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|t| t.join().unwrap());
    r.take(1);
    let (_, source) = s.config(&s.root);
    let mut files = std::collections::BTreeMap::new();
    for dir in fs::read_dir(source.path).unwrap() {
        for file in fs::read_dir(dir.unwrap().path()).unwrap() {
            let file = file.unwrap();
            let key = file.path().strip_prefix(&s.root).unwrap().to_str().unwrap().to_owned();
            files.insert(key, file.metadata().unwrap().len());
        }
    }
    let deadline = Instant::now() + WAIT;
    while r.watch.stats().files != files.len() as u64 || r.watch.stats().pending > 0 {
        assert!(Instant::now() < deadline, "{} files, {:?}", files.len(), r.watch.stats());
        std::thread::sleep(Duration::from_millis(20));
    }
    std::thread::sleep(QUIET);
    assert_eq!(r.watch.rescan(WAIT).unwrap(), 0, "nothing was missed");
    r.engine.flush(WAIT).unwrap();
    let records = s.receiver.records();
    assert!(check_per_key_order(&records).is_empty());
    let last: std::collections::BTreeMap<String, String> =
        records.iter().map(|r| (r.key.clone(), r.event_name.clone())).collect();
    for key in files.keys() {
        assert!(last[key].starts_with("ObjectCreated"), "{key}: {}", last[key]);
    }
    for (key, name) in &last {
        assert_eq!(files.contains_key(key), name.starts_with("ObjectCreated"), "{key}: {name}");
    }
    r.stop();
}

#[test]
fn a_scan_finds_what_no_notice_told_of() {
    let s = setup("ignore");
    let r = s.start();
    s.write("a", "x");
    s.write("b", "x");
    r.take(2);
    assert_eq!(r.watch.rescan(WAIT).unwrap(), 0);
    // As after writing through a memory map: the time changes, and nothing is closed.
    let file = fs::File::open(s.root.join("a")).unwrap();
    file.set_modified(std::time::SystemTime::now() + Duration::from_secs(5)).unwrap();
    assert_eq!(r.take(0), Vec::<String>::new());
    assert_eq!(r.watch.rescan(WAIT).unwrap(), 1);
    assert_eq!(r.take(1), ["Created:Put a"]);
    assert_eq!(r.watch.rescan(WAIT).unwrap(), 0);
    assert!(r.watch.stats().scans >= 4);
    r.stop();
}

#[test]
fn lost_notices_are_made_up_for() {
    let s = setup("ignore");
    for i in 0..40 {
        fs::create_dir(s.root.join(format!("d{i}"))).unwrap();
    }
    let (config, source) = s.config(&s.root);
    let engine = Engine::open(config).unwrap();
    let gate = Arc::new(Mutex::new(()));
    let last = Arc::new(Mutex::new(std::collections::BTreeMap::new()));
    let (wait_at, into) = (gate.clone(), last.clone());
    let observer = Box::new(move |e: &tidewire::Event<'_>, _: tidewire::Published| {
        drop(wait_at.lock().unwrap());
        let created = e.event_type.name().contains("Created");
        into.lock().unwrap().insert(String::from_utf8(e.key.to_vec()).unwrap(), created);
    });
    let watch = DirectoryWatch::start_with(engine.clone(), &source, Some(observer)).unwrap();
    // While the source is held up, more happens than it keeps notices of.
    let held = gate.lock().unwrap();
    for i in 0..8000 {
        s.write(format!("d{}/{i}", i % 40), "x");
    }
    for i in (0..8000).step_by(3) {
        fs::remove_file(s.root.join(format!("d{}/{i}", i % 40))).unwrap();
    }
    drop(held);
    let there = 8000 - 8000_usize.div_ceil(3);
    let deadline = Instant::now() + WAIT;
    while watch.stats().files != there as u64 || watch.stats().pending > 0 || watch.stats().overflows == 0 {
        assert!(Instant::now() < deadline, "{:?}", watch.stats());
        std::thread::sleep(Duration::from_millis(20));
    }
    std::thread::sleep(QUIET);
    assert_eq!(watch.rescan(WAIT).unwrap(), 0);
    let last = last.lock().unwrap().clone();
    assert_eq!(last.values().filter(|created| **created).count(), there);
    for (key, created) in last {
        assert_eq!(created, s.root.join(&key).exists(), "{key}");
    }
    watch.stop(WAIT).unwrap();
    engine.close(WAIT).unwrap();
}

#[test]
fn a_restart_finds_what_changed_meanwhile() {
    let mut s = setup("ignore");
    s.write("old", "x");
    s.write("keep/same", "x");
    let r = s.start();
    assert_eq!(r.take(0), Vec::<String>::new(), "they were there before the first start");
    s.write("new", "x");
    r.take(1);
    assert_eq!(r.stop(), Vec::<String>::new());

    std::thread::sleep(Duration::from_millis(20));
    s.write("old", "changed");
    s.write("meanwhile/a", "x");
    fs::remove_file(s.root.join("new")).unwrap();
    let r = s.start();
    let lines = sorted(r.take(3));
    assert_eq!(lines, ["Created:Put meanwhile/a", "Created:Put old", "Removed:Delete new"]);
    r.stop();

    // Nothing has changed: nothing is told of, whatever `on_start` says.
    s.on_start = "emit";
    let r = s.start();
    assert_eq!(r.take(0), Vec::<String>::new());
    r.stop();

    // Without an index, it decides.
    fs::remove_file(s.dir.path().join("data/source-files.index")).unwrap();
    let r = s.start();
    assert_eq!(sorted(r.take(3)), ["Created:Put keep/same", "Created:Put meanwhile/a", "Created:Put old"]);
    r.stop();

    // A damaged one is no reason not to start.
    fs::write(s.dir.path().join("data/source-files.index"), "TIDEWIRE-INDEX1\nxxxx").unwrap();
    s.on_start = "ignore";
    let r = s.start();
    assert_eq!(r.take(0), Vec::<String>::new());
    r.stop();
}

#[test]
fn a_directory_that_goes_away_and_comes_back() {
    let s = setup("ignore");
    s.write("a", "x");
    s.write("b", "x");
    // Until a change of them would show in their times; else they are told of once more.
    std::thread::sleep(Duration::from_millis(100));
    let r = s.start();
    let aside = s.dir.path().join("aside");
    fs::rename(&s.root, &aside).unwrap();
    fs::remove_file(aside.join("a")).unwrap();
    let deadline = Instant::now() + WAIT;
    while r.watch.stats().unhealthy.is_empty() {
        assert!(Instant::now() < deadline, "it was not noticed");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(r.take(0), Vec::<String>::new(), "its absence says nothing about the files");
    fs::write(aside.join("c"), "x").unwrap();
    fs::rename(&aside, &s.root).unwrap();
    assert_eq!(sorted(r.take(2)), ["Created:Put c", "Removed:Delete a"]);
    assert!(r.watch.stats().unhealthy.is_empty());
    s.write("d", "x");
    assert_eq!(r.take(1), ["Created:Put d"]);
    r.stop();
}

#[test]
fn what_cannot_work_is_refused_at_the_start() {
    let s = setup("ignore");
    let (config, mut source) = s.config(&s.root);
    let engine = Engine::open(config).unwrap();
    source.path = s.dir.path().join("nowhere");
    let e = DirectoryWatch::start(engine.clone(), &source).unwrap_err().to_string();
    assert!(e.contains("nowhere") && e.contains("make the directory"), "{e}");
    source.path = s.dir.path().to_owned();
    let e = DirectoryWatch::start(engine, &source).unwrap_err().to_string();
    assert!(e.contains("data directory is in it"), "{e}");
}

#[test]
fn an_engine_that_closes_ends_the_source_with_its_reason() {
    let s = setup("ignore");
    let r = s.start();
    r.engine.close(WAIT).unwrap();
    s.write("late", "x");
    let deadline = Instant::now() + WAIT;
    while r.watch.stats().unhealthy.is_empty() {
        assert!(Instant::now() < deadline, "it was not noticed");
        std::thread::sleep(Duration::from_millis(10));
    }
    let e = r.watch.stop(WAIT).unwrap_err();
    assert_eq!(e.kind(), tidewire::ErrorKind::Closed);
    // The file was not told of, so the next run does.
    let r = s.start();
    assert_eq!(r.take(1), ["Created:Put late"]);
    r.stop();
}
