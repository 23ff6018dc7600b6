//! The command, as a process.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::symlink;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use tidewire::config::Config;
use tidewire::{Engine, Event, KnownType};
use tidewire_receiver::{Behaviour, Receiver};

const WAIT: Duration = Duration::from_secs(120);

fn tidewire(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tidewire")).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Writes a configuration into a directory, with a bucket of files beside it.
fn configuration(dir: &Path, url: &str, more: &str) -> String {
    fs::create_dir_all(dir.join("bucket")).unwrap();
    let file = dir.join("tidewire.toml");
    let text = format!(
        r#"
[engine]
data_dir = "data"
shards = 1
{more}
[[destination]]
name = "hook"
type = "webhook"
url = "{url}secret-path"
retry = {{ backoff_min = "1ms", backoff_max = "2ms", poison_attempts = 1 }}
[[rule]]
id = "all"
bucket = "b"
events = ["s3:ObjectCreated:*", "s3:ObjectRemoved:*"]
prefix = "in/"
destinations = ["hook"]
[[source]]
type = "http"
listen = "127.0.0.1:0"
[[source]]
type = "directory"
path = "bucket"
bucket = "b"
"#
    );
    fs::write(&file, text).unwrap();
    file.to_str().unwrap().to_owned()
}

fn receiver(behaviour: Behaviour) -> Receiver {
    Receiver::start("127.0.0.1:0".parse().unwrap(), behaviour).unwrap()
}

/// `tidewire run`, ready.
struct Running {
    child: Child,
    address: String,
}

fn run(config: &str) -> Running {
    let mut child = Command::new(env!("CARGO_BIN_EXE_tidewire"))
        .args(["run", "--config", config])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut address = String::new();
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        if let Some(at) = line.strip_prefix("tidewire: listening on http://") {
            address = at.to_owned();
        }
        if line == "tidewire: ready" {
            return Running { child, address };
        }
    }
    panic!("it ended: {:?}", child.wait_with_output());
}

impl Running {
    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }

    fn wait(&mut self, limit: Duration) -> ExitStatus {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            if Instant::now() > deadline {
                self.child.kill().unwrap();
                panic!("it does not end");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn post(&self, body: &str) -> String {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let head =
            format!("POST /v1/events HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}", body.len());
        stream.write_all(format!("{head}\r\n\r\n{body}").as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn check_tells_what_is_in_a_configuration_or_what_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let file = configuration(dir.path(), "http://127.0.0.1:9/", "");
    let out = tidewire(&["check", "--config", &file]);
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    let said = text(&out.stdout);
    for part in [
        "tidewire.toml: good",
        "shards: 1",
        "hook: webhook http://127.0.0.1:9/…, profile aws",
        "all: bucket b, s3:ObjectCreated:* s3:ObjectRemoved:*, prefix \"in/\" → hook",
        "http://127.0.0.1:0 (POST /v1/events)",
        "as bucket b",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(!said.contains("secret"), "{said}");
    assert!(!dir.path().join("data").exists(), "nothing is started");

    let bad = dir.path().join("bad.toml");
    fs::write(
        &bad,
        fs::read_to_string(&file).unwrap().replace("destinations = [\"hook\"]", "destinations = [\"hok\"]"),
    )
    .unwrap();
    let out = tidewire(&["check", "--config", bad.to_str().unwrap()]);
    let said = text(&out.stderr);
    assert_eq!(out.status.code(), Some(2), "{said}");
    assert!(said.contains("bad.toml:16:") && said.contains("hok") && said.contains("hook"), "{said}");
    assert!(out.stdout.is_empty());

    let twice = dir.path().join("twice.toml");
    let more = "\n[[source]]\ntype = \"directory\"\npath = \"other\"\nbucket = \"b\"\n";
    fs::write(&twice, fs::read_to_string(&file).unwrap() + more).unwrap();
    let out = tidewire(&["check", "--config", twice.to_str().unwrap()]);
    assert_eq!((out.status.code(), text(&out.stderr).contains("bucket `b`")), (Some(2), true));

    assert_eq!(tidewire(&["check", "--config", "/nowhere.toml"]).status.code(), Some(2));
    assert_eq!(tidewire(&["chekc"]).status.code(), Some(2));
    assert_eq!(tidewire(&["--help"]).status.code(), Some(0));
}

#[test]
fn an_address_where_a_data_directory_is_wanted_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = configuration(dir.path(), "http://127.0.0.1:9/", "");
    let snapshot = dir.path().join("snapshot");
    fs::write(&snapshot, "").unwrap();
    let snapshot = snapshot.to_str().unwrap();
    let refused = |arguments: &[&str], place: &str, code: i32| {
        let command = Command::new(env!("CARGO_BIN_EXE_tidewire")).args(arguments).current_dir(dir.path()).output();
        let out = command.unwrap();
        let said = text(&out.stderr);
        assert_eq!(out.status.code(), Some(code), "{arguments:?}: {said}");
        for part in [place, "is an address, not a directory", "name a directory"] {
            assert!(said.contains(part), "{arguments:?}: {part}: {said}");
        }
        assert!(!dir.path().join("unix:").exists(), "{arguments:?}");
    };
    let address = "unix:/run/engine.sock";
    refused(&["run", "--config", &file, "--data-dir", address], "data_dir: ", 2);
    refused(&["tail", "--data-dir", address], address, 2);
    refused(&["history", "b", "k", "--data-dir", address], address, 2);
    refused(&["losses", "list", "--data-dir", address], address, 1);
    refused(&["dead-letters", "list", "--data-dir", address], address, 2);
    refused(&["snapshot", "restore", snapshot, address], address, 2);
    fs::write(&file, fs::read_to_string(&file).unwrap().replace("\"data\"", &format!("\"{address}\""))).unwrap();
    refused(&["check", "--config", &file], "tidewire.toml:3:12: engine.data_dir", 2);
    refused(&["run", "--config", &file], "tidewire.toml:3:12: engine.data_dir", 2);
}

#[test]
fn event_types_lists_the_registry() {
    let out = tidewire(&["event-types"]);
    let said = text(&out.stdout);
    assert!(out.status.success());
    for t in KnownType::ALL {
        assert!(said.contains(t.name()), "{}", t.name());
    }
    let line = |name: &str| said.lines().find(|l| l.starts_with(name)).unwrap().to_owned();
    assert!(line("s3:ObjectRenamed").contains("sourceKey"));
    // By the headings, each of which is a profile but the last.
    let headings = said.lines().next().unwrap().split("of a").nth(1).unwrap().to_owned();
    let marks = |name: &str| {
        // Before them stand the type and what it is of.
        let line = line(name);
        let cells = line.split_whitespace().skip(2).map(str::to_owned);
        headings.split_whitespace().map(str::to_owned).zip(cells).collect::<Vec<_>>()
    };
    let has = |name: &str, heading: &str, cell: &str| marks(name).contains(&(heading.to_owned(), cell.to_owned()));
    for profile in ["aws", "gcs", "cloudevents", "debezium"] {
        assert!(has("s3:ObjectCreated:Put", profile, "yes"), "{profile}");
    }
    assert!(has("s3:ObjectCreated:Put", "data", "-"));
    assert!(has("s3:BucketCreated", "aws", "-") && has("s3:BucketCreated", "cloudevents", "yes"));
}

#[test]
fn dead_letters_are_listed() {
    let dir = tempfile::tempdir().unwrap();
    let receiver = receiver(Behaviour::Status(400));
    let file = configuration(dir.path(), &receiver.url(), "");
    let engine = Engine::open(Config::from_file(Path::new(&file)).unwrap()).unwrap();
    for key in [&b"in/a b"[..], b"in/raw\xff"] {
        engine.publish(&Event::new(KnownType::ObjectCreatedPut.into(), "b", key)).unwrap();
    }
    engine.flush(WAIT).unwrap();
    engine.close(WAIT).unwrap();

    let data = dir.path().join("data");
    let data = data.to_str().unwrap();
    let out = tidewire(&["dead-letters", "list", "--data-dir", data]);
    let said = text(&out.stdout);
    assert!(out.status.success(), "{}", text(&out.stderr));
    for part in
        ["hook: s3:ObjectCreated:Put b/in/a b\n", "b/in/raw\\xff\n", "rule all", "(status 400)", "2 dead letters"]
    {
        assert!(said.contains(part), "{part}: {said}");
    }
    let out = tidewire(&["dead-letters", "list", "--json", "--data-dir", data]);
    let mut lines: Vec<serde_json::Value> =
        text(&out.stdout).lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    lines.sort_by_key(|l| l["key"].is_null());
    assert_eq!(lines.len(), 2);
    assert_eq!((lines[0]["key"].as_str(), lines[0]["destination"].as_str()), (Some("in/a b"), Some("hook")));
    assert_eq!((lines[0]["status"].as_u64(), lines[0]["rule"].as_str()), (Some(400), Some("all")));
    assert_eq!(lines[1]["key_base64"].as_str(), Some("aW4vcmF3/w=="));

    let out = tidewire(&["dead-letters", "list", "--data-dir", "/nowhere"]);
    assert_eq!(out.status.code(), Some(1));
    assert!(text(&out.stderr).contains("/nowhere"), "{}", text(&out.stderr));
}

#[test]
fn dead_letters_are_shown_exported_purged_and_redriven() {
    let dir = tempfile::tempdir().unwrap();
    let receiver = receiver(Behaviour::Status(400));
    let file = configuration(dir.path(), &receiver.url(), "");
    // One after the other, so that the letters have the order of the events.
    let text_of = fs::read_to_string(&file).unwrap();
    let one = "concurrency = 1\nbatch = { events_max = 1 }\nretry = {";
    fs::write(&file, text_of.replacen("retry = {", one, 1)).unwrap();
    let data = dir.path().join("data");
    let data = data.to_str().unwrap();
    let ok = |arguments: &[&str]| {
        let out = tidewire(arguments);
        assert!(out.status.success(), "{arguments:?}: {}", text(&out.stderr));
        text(&out.stdout)
    };
    let fails = |arguments: &[&str], code: i32, words: &str| {
        let out = tidewire(arguments);
        assert_eq!(out.status.code(), Some(code), "{arguments:?}");
        assert!(text(&out.stderr).contains(words), "{}", text(&out.stderr));
    };
    let redrive = ["dead-letters", "redrive", "--config", &file, "--all", "--wait", "20s"];
    fails(&redrive, 1, "no data directory");

    let engine = Engine::open(Config::from_file(Path::new(&file)).unwrap()).unwrap();
    for n in 0..6 {
        let key = format!("in/{n}");
        engine.publish(&Event::new(KnownType::ObjectCreatedPut.into(), "b", key.as_bytes())).unwrap();
    }
    engine.flush(WAIT).unwrap();
    // What needs the directory for itself says so while an engine runs; looking is free.
    assert!(ok(&["dead-letters", "list", "--data-dir", data]).ends_with("6 dead letters\n"));
    fails(&["dead-letters", "purge", "--data-dir", data, "--all"], 1, "another engine");
    fails(&redrive, 1, "Engine::redrive");
    engine.close(WAIT).unwrap();

    let shown = ok(&["dead-letters", "show", "--data-dir", data, "0-3"]);
    assert!(shown.contains("b/in/2") && shown.contains("\"frame_base64\""), "{shown}");
    fails(&["dead-letters", "show", "--data-dir", data, "0-77"], 1, "no dead letter 0-77");
    fails(&["dead-letters", "show", "--data-dir", data, "77"], 2, "not the id");
    let exported = ok(&["dead-letters", "export", "--data-dir", data, "--profile", "aws", "--prefix", "in/4"]);
    let line: serde_json::Value = serde_json::from_str(&exported).unwrap();
    assert_eq!(line["record"]["s3"]["object"]["key"], "in/4");
    fails(&["dead-letters", "export", "--data-dir", data, "--profile", "avs"], 2, "did you mean `aws`");

    fails(&["dead-letters", "purge", "--data-dir", data], 2, "--all");
    fails(&["dead-letters", "purge", "--data-dir", data, "--destination", "hock"], 1, "did you mean `hook`");
    assert_eq!(ok(&["dead-letters", "purge", "--data-dir", data, "--until", "1h"]), "0 dead letters purged\n");
    assert_eq!(ok(&["dead-letters", "purge", "--data-dir", data, "--prefix", "in/5"]), "1 dead letter purged\n");
    let rest = ok(&["dead-letters", "list", "--data-dir", data, "--after", "0-2", "--limit", "2", "--json"]);
    let ids: Vec<String> = rest.lines().map(|l| l.split('"').nth(3).unwrap().to_owned()).collect();
    assert_eq!(ids, ["0-3", "0-4"]);

    receiver.set_behaviour(Behaviour::Ok204);
    let said = ok(&redrive);
    assert_eq!(said, "5 dead letters redriven\n5 delivered, 0 given up again\n");
    assert_eq!(receiver.accepted(), 5);
    assert_eq!(ok(&["dead-letters", "list", "--data-dir", data]), "0 dead letters\n");
}

#[test]
fn losses_are_listed() {
    let dir = tempfile::tempdir().unwrap();
    let file = configuration(dir.path(), "http://127.0.0.1:9/", "");
    let text_of = fs::read_to_string(&file).unwrap();
    let queue = "[destination.queue]\nevents_max = 2\non_full = \"drop_newest\"\n[[rule]]";
    fs::write(&file, text_of.replacen("[[rule]]", queue, 1)).unwrap();
    let engine = Engine::open(Config::from_file(Path::new(&file)).unwrap()).unwrap();
    for n in 0..5 {
        let key = format!("in/{n}");
        engine.publish(&Event::new(KnownType::ObjectCreatedPut.into(), "b", key.as_bytes())).unwrap();
    }
    let data = dir.path().join("data");
    let list = |more: &[&str]| {
        let out = tidewire(&[&["losses", "list", "--data-dir", data.to_str().unwrap()], more].concat());
        assert!(out.status.success(), "{}", text(&out.stderr));
        text(&out.stdout)
    };
    let said = list(&[]);
    assert!(said.contains("hook (rule all): drop_newest: s3:ObjectCreated:Put b/in/2\n"), "{said}");
    assert!(said.ends_with("3 events lost\n"), "{said}");
    assert_eq!(list(&["--reason", "purged"]), "0 events lost\n");
    assert_eq!(list(&["--destination", "other"]), "0 events lost\n");
    let json = list(&["--json", "--reason", "drop_newest", "--destination", "hook"]);
    let first: serde_json::Value = serde_json::from_str(json.lines().next().unwrap()).unwrap();
    assert_eq!((first["key"].as_str(), first["reason"].as_str()), (Some("in/2"), Some("drop_newest")));
    engine.close(Duration::ZERO).unwrap();
    let out = tidewire(&["losses", "list", "--data-dir", "/nowhere"]);
    assert_eq!(out.status.code(), Some(1));
    let out = tidewire(&["losses", "list", "--data-dir", "x", "--reason", "bad luck"]);
    assert_eq!(out.status.code(), Some(2));
}

#[test]
fn run_serves_its_sources_until_a_signal() {
    let dir = tempfile::tempdir().unwrap();
    let receiver = receiver(Behaviour::Ok204);
    let file = configuration(dir.path(), &receiver.url(), "");
    let mut running = run(&file);
    let answer = running.post(r#"{"type":"s3:ObjectCreated:Put","bucket":"b","key":"in/posted"}"#);
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("\"accepted\":1"), "{answer}");
    fs::create_dir(dir.path().join("bucket/in")).unwrap();
    fs::write(dir.path().join("bucket/in/file"), "x").unwrap();
    assert!(receiver.wait_for(2, WAIT));

    // The same data directory is not for two.
    let other = tidewire(&["run", "--config", &file]);
    assert_eq!(other.status.code(), Some(1));
    assert!(text(&other.stderr).contains("another engine"), "{}", text(&other.stderr));

    running.signal("TERM");
    let status = running.wait(WAIT);
    let mut said = String::new();
    running.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(status.code(), Some(0), "{said}");
    assert!(said.contains("stopped after"), "{said}");
    let mut keys: Vec<String> = receiver.records().into_iter().map(|r| r.key).collect();
    keys.sort();
    assert_eq!(keys, ["in/file", "in/posted"]);

    // Nothing is told of twice by the next run.
    fs::write(dir.path().join("bucket/in/meanwhile"), "x").unwrap();
    let mut running = run(&file);
    assert!(receiver.wait_for(3, WAIT));
    running.signal("INT");
    assert_eq!(running.wait(WAIT).code(), Some(0));
    assert_eq!(receiver.records().len(), 3);
}

#[test]
fn a_second_signal_ends_a_run_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let receiver = receiver(Behaviour::Status(503));
    let file = configuration(dir.path(), &receiver.url(), "close_timeout = \"60s\"");
    let mut running = run(&file);
    running.post(r#"{"type":"s3:ObjectCreated:Put","bucket":"b","key":"in/stuck"}"#);
    running.signal("TERM");
    std::thread::sleep(Duration::from_millis(500));
    assert!(running.child.try_wait().unwrap().is_none(), "it waits for the delivery");
    running.signal("TERM");
    let status = running.wait(Duration::from_secs(5));
    assert_eq!(status.signal(), Some(15), "{status:?}");

    // What was accepted is delivered by the next run.
    receiver.set_behaviour(Behaviour::Ok204);
    let mut running = run(&file);
    assert!(receiver.wait_for(1, WAIT));
    running.signal("TERM");
    assert_eq!(running.wait(WAIT).code(), Some(0));
}

#[test]
fn the_demo_finds_everything_as_promised() {
    let out = tidewire(&["demo", "--files", "120"]);
    let said = text(&out.stdout);
    assert_eq!(out.status.code(), Some(0), "{said}{}", text(&out.stderr));
    assert!(said.contains("Every event arrived"), "{said}");
    assert!(text(&out.stderr).contains("thumbnails is killed"));
}

#[test]
fn the_bench_accounts_for_every_event_and_sets_its_figures_beside_limits() {
    let dir = tempfile::tempdir().unwrap();
    let json = dir.path().join("bench.json");
    let at = ["--dir", dir.path().to_str().unwrap(), "--json", json.to_str().unwrap()];
    let brief = ["--seconds", "0.2", "--repeat", "1", "--shards", "1"];
    let bench = |parts: &[&str]| tidewire(&[&["bench"], parts, &at, &brief].concat());
    let out = bench(&["throughput", "latency", "idle"]);
    let said = text(&out.stdout);
    assert_eq!(out.status.code(), Some(0), "{said}{}", text(&out.stderr));
    assert!(said.contains("x of as many bytes sent by a bare loop"), "{said}");
    let report: serde_json::Value = serde_json::from_str(&fs::read_to_string(&json).unwrap()).unwrap();
    let figures = report["figures"].as_array().unwrap();
    let named = |name: &str| figures.iter().filter(|f| f["name"].as_str().unwrap().ends_with(name)).collect::<Vec<_>>();
    let value = |f: &serde_json::Value| f["value"].as_f64().unwrap();
    let through = named("events through");
    assert!(value(through[0]) > 0.0 && through[0]["beside"]["ratio"].as_f64().unwrap() > 0.0, "{through:?}");
    // At `synced`, the default, there is something to set beside the disk, and something to be acknowledged.
    assert_eq!((named("beside the disk").len(), named("acknowledged, p50").len()), (1, 6));
    for (low, high) in [("received, p50", "received, p99"), ("received, p99", "received, p99.9")] {
        let pairs = named(low).into_iter().zip(named(high)).collect::<Vec<_>>();
        assert!(pairs.len() >= 6 && pairs.iter().all(|(l, h)| value(l) <= value(h)), "{pairs:?}");
    }
    assert_eq!(named("of one processor").len(), 1);
    let left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["bench.json"], "the logs are removed again");

    let out = tidewire(&["bench", "idle", "--dir", "/nowhere/at/all"]);
    assert_eq!(out.status.code(), Some(1));
    assert!(text(&out.stderr).contains("cannot make a directory in /nowhere/at/all"), "{}", text(&out.stderr));
    for (option, value, said) in [("--seconds", "0", "0.05 to 3600"), ("--ack", "perhaps", "memory, written or synced")]
    {
        let out = tidewire(&["bench", option, value]);
        assert_eq!(out.status.code(), Some(2));
        assert!(text(&out.stderr).contains(said), "{}", text(&out.stderr));
    }
}

#[test]
fn filter_test_tells_what_passes_and_which_condition_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let events = path(
        "events.ndjson",
        "{\"type\": \"ObjectCreated:Put\", \"bucket\": \"b\", \"key\": \"in/a.jpg\", \"size\": 5}\n\
         {\"type\": \"ObjectRemoved:Delete\", \"bucket\": \"b\", \"key\": \"out/b.jpg\"}\n",
    );
    let test = |more: &[&str]| tidewire(&[&["filter", "test"], more].concat());
    let filter = r#"{"prefix": "in/", "size": {"min": 1}}"#;
    let out = test(&["--filter", filter, "--event", &events]);
    assert!(out.status.success(), "{}", text(&out.stderr));
    assert_eq!(
        text(&out.stdout),
        "event 1: s3:ObjectCreated:Put b/in/a.jpg\n  passes\nevent 2: s3:ObjectRemoved:Delete b/out/b.jpg\n  \
         does not pass: {\"prefix\":\"in/\"} is not met: key is \"out/b.jpg\"\n"
    );
    let evaluated = test(&["--filter", r#"{"cel": "size(event.key) > 8"}"#, "--event", &events]);
    let shown = text(&evaluated.stdout);
    assert!(
        shown.contains("does not pass: {\"cel\":\"size(event.key) > 8\"} is not met: evaluated, it is false"),
        "{shown}"
    );
    // A file of rules needs no destinations and no data directory.
    let rules = path(
        "rules.toml",
        "[[rule]]\nid = \"small\"\nevents = [\"*\"]\ndestinations = [\"x\"]\nfilter = { use = \"tiny\" }\n\
         [[rule]]\nid = \"gone\"\nbucket = \"b\"\nevents = [\"s3:ObjectRemoved:*\"]\ndestinations = [\"x\"]\ncel = \"event.key.endsWith('.jpg')\"\n\
         [[rule]]\nid = \"other\"\nbucket = \"c\"\nevents = [\"*\"]\ndestinations = [\"x\"]\n\
         [[filter]]\nname = \"tiny\"\nsize = { max = \"1KiB\" }\n",
    );
    let out = test(&["--rule-file", &rules, "--event", &events, "--format", "native"]);
    let shown = text(&out.stdout);
    for line in [
        "rule `small`: passes\n  rule `gone`: does not pass: s3:ObjectCreated:Put is not among its events",
        "rule `other`: does not pass: it is for bucket c",
        "rule `small`: does not pass: {\"size\":{\"max\":1024}} is not met: the event has no size\n  rule `gone`: passes",
    ] {
        assert!(shown.contains(line), "`{line}` is not in: {shown}");
    }
    let s3 = path(
        "s3.json",
        r#"{"Records": [{"eventVersion": "2.1", "eventSource": "aws:s3", "awsRegion": "x", "eventTime": "2024-01-01T00:00:00.000Z", "eventName": "ObjectCreated:Put", "s3": {"bucket": {"name": "b"}, "object": {"key": "in/a", "size": 1}}}]}"#,
    );
    assert!(text(&test(&["--filter", filter, "--event", &s3, "--format", "s3"]).stdout).contains("  passes"));
    for (more, code, parts) in [
        (
            &["--filter", r#"{"prefx": "a"}"#, "--event", &events][..],
            2,
            &["--filter: filter.prefx", "did you mean `prefix`?"][..],
        ),
        (&["--filter", "{}", "--event", &events, "--format", "s3"], 2, &["events of this format"]),
        (&["--filter", "{}", "--event", "no-such-file"], 1, &["no-such-file"]),
        (&["--rule-file", &events, "--event", &events], 2, &["events.ndjson:1:"]),
        (&["--event", &events], 2, &["--filter"]),
        (&["--filter", "{}", "--event", &rules], 2, &["rules.toml"]),
    ] {
        let out = test(more);
        let shown = text(&out.stderr);
        assert_eq!(out.status.code(), Some(code), "{shown}");
        parts.iter().for_each(|part| assert!(shown.contains(part), "`{part}` is not in: {shown}"));
    }
}

#[test]
fn filter_explain_tells_what_filters_are_compiled_to() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("rules.toml");
    fs::write(
        &file,
        "[[rule]]\nid = \"in\"\nbucket = \"b\"\nevents = [\"*\"]\ndestinations = [\"x\"]\nprefix = \"in/\"\nfilter.size = 5\n\
         [[rule]]\nid = \"odd\"\nevents = [\"*\"]\ndestinations = [\"x\"]\nregex = \"[0-9]\"\n",
    )
    .unwrap();
    let file = file.to_str().unwrap();
    let explain = |more: &[&str]| {
        let out = tidewire(&[&["filter", "explain"], more].concat());
        (out.status.code(), text(&out.stdout), text(&out.stderr))
    };
    let (code, out, err) =
        explain(&["--filter", r#"{"suffix": [".a", ".b"], "tags": {"k": "v"}, "size": {"min": 1}}"#]);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert_eq!(
        out,
        "buckets      every one\n\
         filed under  {\"tags\":{\"k\":\"v\"}}\n\
         to check     0  {\"size\":{\"min\":1}}  then 1, else reject\n             \
         1  {\"suffix\":\".a\"}  then 3, else 2\n             \
         2  {\"suffix\":\".b\"}  then 3, else reject\n             \
         3  {\"tags\":{\"k\":\"v\"}}  then accept, else reject\n\
         cost         indexed: only events that meet what it is filed under cost more\n"
    );
    let (code, out, _) = explain(&["--rule-file", file]);
    assert_eq!(code, Some(0));
    for part in [
        "rule `in`\n  buckets      b\n  filed under  {\"prefix\":\"in/\"}\n  to check     0  {\"size\":5}",
        "rule `odd`\n  buckets      every one\n  filed under  nothing, each event is tried\n    because    ",
        "cost         scan",
        "all together\n  rules        2, in 2 scopes\n  un-indexed   1 (50.0 %)",
        "regexes      1, ",
        "built in",
    ] {
        assert!(out.contains(part), "`{part}` is not in: {out}");
    }
    let (_, out, _) = explain(&["--rule-file", file, "--rule", "in"]);
    assert!(out.starts_with("rule `in`") && !out.contains("odd") && !out.contains("together"), "{out}");
    let (_, out, _) = explain(&["--rule-file", file, "--json"]);
    let lines: Vec<serde_json::Value> = out.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!((lines.len(), &lines[0]["plan"]["cost"]), (3, &serde_json::json!("indexed")));
    assert!(lines[1]["plan"]["reasons"][0].is_string() && lines[2]["totals"]["bytes"].as_u64() > Some(100));
    for (more, part) in [
        (&["--rule-file", file, "--rule", "no"][..], "there is no rule `no`"),
        (&["--filter", r#"{"prefx": "a"}"#], "did you mean `prefix`?"),
        (&["--filter", "{}", "--rule", "in"], "--rule"),
        (&[], "--filter"),
        (&["--filter", "{}", "--rule-file", file], "--rule-file"),
    ] {
        let (code, _, err) = explain(more);
        assert!(code == Some(2) && err.contains(part), "`{part}` is not in: {err}");
    }
}

#[test]
fn filter_lint_finds_what_is_wrong_with_good_rules() {
    let dir = tempfile::tempdir().unwrap();
    let lint = |rules: &str| {
        let file = dir.path().join("rules.toml");
        fs::write(&file, rules).unwrap();
        let out = tidewire(&["filter", "lint", "--config", file.to_str().unwrap()]);
        (out.status.code(), text(&out.stdout), text(&out.stderr))
    };
    let rule = |id: &str, more: &str| {
        format!(
            "[[rule]]\nid = \"{id}\"\nbucket = \"b\"\nevents = [\"s3:ObjectCreated:*\"]\ndestinations = [\"x\"]\n{more}\n"
        )
    };
    let good = rule("a", "prefix = \"a/\"") + &rule("b", "prefix = \"b/\"");
    assert_eq!(lint(&good), (Some(0), "2 rules, nothing found\n".to_owned(), String::new()));
    for (rules, part) in [
        (rule("a", "prefix = \"a/\"\nexact = \"b\""), "rule `a` never wants an event"),
        (rule("a", "filter = { size = { min = 5, max = 4 } }"), "rule `a` never wants an event"),
        (rule("a", "filter = { event_type = \"s3:ObjectRemoved:*\" }"), "takes none of its event types"),
        (rule("a", "filter = { event_type = \"*\" }"), "hold for every event"),
        (rule("a", "suffix = \"x\"") + &rule("b", "suffix = \"x\""), "rules `a` and `b` say the same to `x`"),
        (
            rule("a", "prefix = \"x\"") + &rule("b", "suffix = \"y\""),
            "rules `a` and `b` may both want an event for `x`",
        ),
    ] {
        let (code, out, err) = lint(&rules);
        assert_eq!((code, err.as_str()), (Some(1), ""), "{out}");
        assert!(out.contains(part), "`{part}` is not in: {out}");
    }
    let (code, _, err) = lint(&rule("a", "regex = \"(\""));
    assert!(code == Some(2) && err.contains("rules.toml:6:9"), "{err}");
}

#[test]
fn filter_schema_is_a_schema() {
    let out = tidewire(&["filter", "schema"]);
    let schema: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
}

/// Writes a configuration with one rule, `in/` or what is given.
fn with_prefix(file: &Path, url: &str, prefix: &str) {
    let text = fs::read_to_string(configuration(file.parent().unwrap(), url, "")).unwrap();
    fs::write(file, text.replace("prefix = \"in/\"", &format!("prefix = \"{prefix}\""))).unwrap();
}

impl Running {
    /// Posts events under these prefixes until one of each that is wanted has arrived and none of the others does.
    fn delivers_only(&self, r: &Receiver, wanted: &str, others: &[&str], round: &mut u32) {
        let deadline = Instant::now() + WAIT;
        loop {
            *round += 1;
            let mut all = vec![wanted];
            all.extend(others);
            for prefix in all {
                let event = format!(r#"{{"type":"s3:ObjectCreated:Put","bucket":"b","key":"{prefix}{round}"}}"#);
                let answer = self.post(&event);
                assert!(answer.starts_with("HTTP/1.1 200") || answer.starts_with("HTTP/1.1 202"), "{answer}");
            }
            std::thread::sleep(Duration::from_millis(100));
            let arrived = |prefix: &str| r.records().iter().any(|x| x.key == format!("{prefix}{round}"));
            if arrived(wanted) && !others.iter().any(|o| arrived(o)) {
                return;
            }
            assert!(Instant::now() < deadline, "the rules are not those of {wanted}");
        }
    }
}

#[test]
fn a_run_takes_a_changed_configuration_at_a_signal_and_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let r = receiver(Behaviour::Ok204);
    let file = dir.path().join("tidewire.toml");
    with_prefix(&file, &r.url(), "in/");
    let mut running = run(file.to_str().unwrap());
    let mut round = 0;
    running.delivers_only(&r, "in/", &["out/"], &mut round);
    with_prefix(&file, &r.url(), "out/");
    running.signal("HUP");
    running.delivers_only(&r, "out/", &["in/"], &mut round);
    with_prefix(&file, &r.url(), "third/");
    running.delivers_only(&r, "third/", &["in/", "out/"], &mut round);
    running.signal("TERM");
    assert!(running.wait(WAIT).success());
}

#[test]
fn a_run_stays_with_its_rules_if_the_changed_configuration_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let r = receiver(Behaviour::Ok204);
    let file = dir.path().join("tidewire.toml");
    with_prefix(&file, &r.url(), "in/");
    let mut running = run(file.to_str().unwrap());
    let mut round = 0;
    running.delivers_only(&r, "in/", &["out/"], &mut round);
    let good = fs::read_to_string(&file).unwrap();
    fs::write(&file, good.replace("destinations = [\"hook\"]", "destinations = [\"hok\"]")).unwrap();
    running.signal("HUP");
    running.delivers_only(&r, "in/", &["out/"], &mut round);
    fs::remove_file(&file).unwrap();
    running.signal("HUP");
    running.delivers_only(&r, "in/", &["out/"], &mut round);
    // And takes it when it is right again.
    with_prefix(&file, &r.url(), "out/");
    running.delivers_only(&r, "out/", &["in/"], &mut round);
    running.signal("TERM");
    assert!(running.wait(WAIT).success());
    let mut said = String::new();
    running.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(said.contains("not reloaded") && said.contains("unknown destination `hok`"), "{said}");
}

/// As Kubernetes mounts a ConfigMap: the file is a link through a directory that is a link, which is swapped.
#[test]
fn a_mounted_configuration_whose_directory_is_swapped_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let r = receiver(Behaviour::Ok204);
    let mount = dir.path().join("mount");
    fs::create_dir(&mount).unwrap();
    for (version, prefix) in [("v1", "in/"), ("v2", "out/")] {
        let data = mount.join(version);
        fs::create_dir(&data).unwrap();
        with_prefix(&data.join("tidewire.toml"), &r.url(), prefix);
    }
    symlink("v1", mount.join("..data")).unwrap();
    symlink("..data/tidewire.toml", mount.join("tidewire.toml")).unwrap();
    fs::create_dir_all(mount.join("bucket")).unwrap();
    let mut running = run(mount.join("tidewire.toml").to_str().unwrap());
    let mut round = 0;
    running.delivers_only(&r, "in/", &["out/"], &mut round);
    symlink("v2", mount.join("..new")).unwrap();
    fs::rename(mount.join("..new"), mount.join("..data")).unwrap();
    running.delivers_only(&r, "out/", &["in/"], &mut round);
    running.signal("TERM");
    assert!(running.wait(WAIT).success());
}
