//! The subcommands that look at the log, as a process.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::common::*;
use tidewire::config::Config;
use tidewire::{Engine, Event, KnownType};
use tidewire_receiver::{Behaviour, Receiver};

fn tidewire(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tidewire")).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[track_caller]
fn good(arguments: &[&str]) -> String {
    let out = tidewire(arguments);
    assert!(out.status.success(), "{arguments:?}: {}", text(&out.stderr));
    text(&out.stdout)
}

#[track_caller]
fn bad(code: i32, arguments: &[&str], words: &str) {
    let out = tidewire(arguments);
    assert_eq!(out.status.code(), Some(code), "{arguments:?}: {}", text(&out.stderr));
    assert!(text(&out.stderr).contains(words), "{arguments:?}: {}", text(&out.stderr));
}

/// A configuration with a log that is kept, and a destination.
fn configuration(dir: &Path, url: &str) -> String {
    let file = dir.join("tidewire.toml");
    let text = format!(
        r#"
[engine]
data_dir = "data"
shards = 2
close_timeout = "0s"
event_types = ["acme:Scan"]
[engine.retention]
keep = "rules"
[[destination]]
name = "hook"
type = "webhook"
url = "{url}"
[[rule]]
id = "keep"
events = ["*"]
retain = true
"#
    );
    fs::write(&file, text).unwrap();
    file.to_str().unwrap().to_owned()
}

fn engine(config: &str) -> Engine {
    Engine::open(Config::from_file(Path::new(config)).unwrap()).unwrap()
}

fn put_object(engine: &Engine, t: KnownType, key: &str, size: u64) {
    let mut e = Event::new(t.into(), "photos", key.as_bytes());
    (e.size, e.etag) = (Some(size), "e7a9");
    engine.publish(&e).unwrap();
}

struct Place {
    dir: tempfile::TempDir,
    config: String,
    data: String,
    receiver: Receiver,
}

fn place() -> Place {
    let dir = tempfile::tempdir().unwrap();
    let receiver = receiver(Behaviour::Ok204);
    let config = configuration(dir.path(), &receiver.url());
    let data = dir.path().join("data").to_str().unwrap().to_owned();
    Place { config, data, receiver, dir }
}

#[test]
fn history_and_state_are_listed_while_an_engine_runs() {
    use KnownType::*;
    let p = place();
    let engine = engine(&p.config);
    put_object(&engine, ObjectCreatedPut, "cats/tom.jpg", 10);
    put_object(&engine, ObjectCreatedPut, "dogs/rex.jpg", 20);
    put_object(&engine, ObjectRemovedDelete, "dogs/rex.jpg", 0);
    put_object(&engine, ObjectCreatedPut, "cats/\u{1F431}", 30);
    let history = good(&["history", "photos", "dogs/rex.jpg", "--data-dir", &p.data]);
    assert!(history.contains("s3:ObjectCreated:Put etag e7a9 20 bytes"), "{history}");
    assert!(history.contains("s3:ObjectRemoved:Delete") && history.ends_with("2 events\n"), "{history}");
    let json = good(&["history", "photos", "cats/tom.jpg", "--config", &p.config, "--json"]);
    let line: serde_json::Value = serde_json::from_str(json.trim()).unwrap();
    assert_eq!(
        (&line["key"], &line["size"], &line["type"]),
        (&"cats/tom.jpg".into(), &10.into(), &"s3:ObjectCreated:Put".into())
    );
    assert_eq!(line["sequencer"].as_str().unwrap().len(), 32);
    let state = good(&["state", "photos", "--data-dir", &p.data]);
    assert!(
        state.contains("cats/tom.jpg") && !state.contains("rex") && state.ends_with("2 objects, 40 bytes\n"),
        "{state}"
    );
    assert!(good(&["state", "photos", "--data-dir", &p.data, "--prefix", "dogs/"]).starts_with("0 objects"));
    assert!(good(&["state", "photos", "--data-dir", &p.data, "--at", "2001-01-01T00:00:00Z"]).starts_with("0 objects"));
    engine.close(WAIT).unwrap();
    bad(1, &["history", "photos", "k", "--data-dir", p.dir.path().to_str().unwrap()], "meta.json");
    bad(2, &["state", "photos", "--data-dir", &p.data, "--at", "yesterday"], "2026-05-04T10:00:00Z");
    bad(2, &["state", "photos"], "--data-dir");
}

#[test]
fn a_log_that_does_not_reach_back_is_said_to_be_so() {
    let p = place();
    let text = fs::read_to_string(&p.config).unwrap();
    let text = text.replace("keep = \"rules\"", "bytes_max = \"1MiB\"\n[engine.log]\nsegment_bytes = \"1MiB\"");
    fs::write(&p.config, text).unwrap();
    let engine = engine(&p.config);
    for n in 0..2000 {
        put_large(&engine, &format!("k{n}"), n);
    }
    until("old segments are gone", || {
        segments(Path::new(&p.data)).iter().all(|s| !s.ends_with("0000000000000001.log"))
    });
    engine.close(WAIT).unwrap();
    let out = tidewire(&["state", "bucket", "--data-dir", &p.data]);
    assert!(out.status.success());
    assert!(text_of(&out).contains("it is complete since 20"), "{}", text_of(&out));
}

fn text_of(out: &Output) -> String {
    text(&out.stderr)
}

#[test]
fn the_tail_prints_records_as_lines_and_goes_on_from_a_position() {
    let p = place();
    let engine = engine(&p.config);
    for n in 0..10 {
        put_object(&engine, KnownType::ObjectCreatedPut, &format!("k{n}"), n);
    }
    let out = tidewire(&["tail", "--data-dir", &p.data]);
    let lines: Vec<serde_json::Value> = text(&out.stdout).lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(lines.len(), 10);
    assert!(
        lines.iter().all(|l| l["specversion"] == "1.0" && l["data"]["s3"]["configurationId"] == "keep"),
        "{lines:?}"
    );
    let position = text(&out.stderr).trim().strip_prefix("tidewire: position ").unwrap().to_owned();
    put_object(&engine, KnownType::ObjectCreatedPut, "later.jpg", 11);
    engine.publish(&Event::new(tidewire::EventType::Custom("acme:Scan"), "photos", b"later.jpg")).unwrap();
    let rest = good(&["tail", "--config", &p.config, "--from", &position, "--profile", "aws"]);
    assert_eq!(rest.lines().count(), 2);
    assert!(rest.lines().all(|l| serde_json::from_str::<serde_json::Value>(l).unwrap()["eventId"].is_string()));
    let count = |more: &[&str]| {
        let mut arguments = vec!["tail", "--data-dir", &p.data];
        arguments.extend(more);
        good(&arguments).lines().count()
    };
    assert_eq!(count(&["--suffix", ".jpg", "--event", "s3:ObjectCreated:*"]), 1);
    assert_eq!(count(&["--event", "acme:Scan"]), 1);
    assert_eq!(count(&["--event", "acme:*"]), 1);
    assert_eq!(count(&["--bucket", "other"]), 0);
    assert_eq!(count(&["--filter", r#"{"size": {"min": 8}}"#]), 3);
    assert_eq!(count(&["--prefix", "k", "--filter", r#"{"not": {"size": {"min": 8}}}"#]), 8);
    assert_eq!(count(&["--from", "now"]), 0);
    engine.close(WAIT).unwrap();
    bad(2, &["tail", "--data-dir", &p.data, "--from", "tw1:1.2.3"], "3 shards");
    bad(2, &["tail", "--data-dir", &p.data, "--from", "later"], "sequence:N");
    bad(2, &["tail", "--data-dir", &p.data, "--filter", r#"{"sise": 8}"#], "did you mean `size`?");
    bad(2, &["tail", "--data-dir", &p.data, "--profile", "ams"], "did you mean `aws`?");
    bad(2, &["tail", "--data-dir", &p.data, "--event", "s3:ObjectCreatd:Put"], "s3:ObjectCreated:Put");
}

#[test]
fn the_tail_follows_until_it_is_stopped() {
    let p = place();
    let engine = engine(&p.config);
    put_object(&engine, KnownType::ObjectCreatedPut, "before", 1);
    let mut child = Command::new(env!("CARGO_BIN_EXE_tidewire"))
        .args(["tail", "--data-dir", &p.data, "--follow", "--from", "beginning"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().contains("before"));
    for n in 0..50 {
        put_object(&engine, KnownType::ObjectCreatedPut, &format!("live-{n}"), n);
    }
    let mut got: Vec<String> = (0..50).map(|_| lines.next().unwrap().unwrap()).collect();
    got.sort();
    assert!((0..50).all(|n| got.iter().any(|l| l.contains(&format!("\"subject\":\"live-{n}\"")))), "{got:?}");
    assert!(Command::new("kill").args(["-s", "TERM", &child.id().to_string()]).status().unwrap().success());
    assert!(child.wait().unwrap().success());
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert!(stderr.contains("tidewire: position tw1:"), "{stderr}");
    engine.close(WAIT).unwrap();
}

#[test]
fn events_are_replayed_to_a_destination_or_a_url_by_a_command() {
    let p = place();
    let e = engine(&p.config);
    for n in 0..100 {
        put_object(&e, KnownType::ObjectCreatedPut, &format!("in/k{n}"), n);
        put_object(&e, KnownType::ObjectCreatedPut, &format!("out/k{n}"), n);
    }
    let base = ["replay", "--config", &p.config, "--from", "beginning"];
    let with = |more: &[&str]| [&base[..], more].concat().into_iter().map(str::to_owned).collect::<Vec<_>>();
    let run = |more: &[&str]| {
        let arguments = with(more);
        tidewire(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let out = run(&["--to", "hook"]);
    assert_eq!(out.status.code(), Some(1));
    assert!(
        text_of(&out).contains("stop that engine") && text_of(&out).contains("Engine::replay"),
        "{}",
        text_of(&out)
    );
    e.close(WAIT).unwrap();

    let out = run(&["--to", "hook", "--prefix", "in/", "--name", "again"]);
    assert!(out.status.success(), "{}", text_of(&out));
    assert!(text_of(&out).contains("100 of 100 events delivered"), "{}", text_of(&out));
    assert_eq!(p.receiver.records().len(), 100);
    assert!(text(&p.receiver.last_request().unwrap().body).contains("\"replay\":\"again\""));
    let other = receiver(Behaviour::Ok204);
    let out = run(&["--to", &other.url(), "--from", "beginning"]);
    assert_eq!(out.status.code(), Some(2), "an option may be given once");
    let out = run(&["--to", &other.url()]);
    assert!(out.status.success(), "{}", text_of(&out));
    assert_eq!(other.records().len(), 200);

    for (more, words) in [
        (&["--to", "hok"][..], "did you mean `hook`?"),
        (&["--to", "ftp://x/"], "http"),
        (&["--to", "hook", "--rate", "0"], "--rate 0"),
        (&["--to", "hook", "--event", "s3:Nothing"], "s3:Nothing"),
        (&["--to", "hook", "--name", "a b"], "cannot name a replay"),
    ] {
        let out = run(more);
        assert_eq!(out.status.code(), Some(2), "{more:?}: {}", text_of(&out));
        assert!(text_of(&out).contains(words), "{more:?}: {}", text_of(&out));
    }
}

#[test]
fn a_replay_that_is_interrupted_goes_on_with_the_same_command() {
    let p = place();
    let e = engine(&p.config);
    for n in 0..300 {
        put_object(&e, KnownType::ObjectCreatedPut, &format!("k{n}"), n);
    }
    e.close(WAIT).unwrap();
    for signal in ["INT", "KILL"] {
        let r = receiver(Behaviour::Ok204);
        let url = r.url();
        let name = format!("slow-{signal}");
        let arguments =
            ["replay", "--config", &p.config, "--from", "beginning", "--to", &url, "--name", &name, "--rate", "150"];
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidewire"));
        let child = command.args(arguments).stderr(Stdio::piped()).spawn().unwrap();
        assert!(r.wait_for(100, WAIT));
        assert!(Command::new("kill").args(["-s", signal, &child.id().to_string()]).status().unwrap().success());
        let out = child.wait_with_output().unwrap();
        if signal == "INT" {
            assert_eq!(out.status.code(), Some(1));
            assert!(text_of(&out).contains("--name slow-INT"), "{}", text_of(&out));
        }
        assert!(r.records().len() < 300);
        good(&arguments);
        let ids: std::collections::BTreeSet<String> = r.records().into_iter().map(|r| r.event_id).collect();
        assert_eq!(ids.len(), 300);
        assert!(r.records().len() < 300 + 100, "it did not begin anew: {}", r.records().len());
    }
}

#[test]
fn a_snapshot_is_made_and_restored_by_commands() {
    let p = place();
    let e = engine(&p.config);
    for n in 0..20 {
        put_object(&e, KnownType::ObjectCreatedPut, &format!("k{n}"), n);
    }
    let at = |name: &str| p.dir.path().join(name).to_str().unwrap().to_owned();
    let (file, restored) = (at("snapshot.tar"), at("restored"));
    bad(1, &["snapshot", "export", &p.data, &file], "another engine has it open");
    e.close(WAIT).unwrap();
    assert!(good(&["snapshot", "export", &p.data, &file]).contains("2 shards"));
    let listed = Command::new("tar").args(["tf", &file]).output().unwrap();
    assert!(text(&listed.stdout).ends_with("manifest.json\n"), "any tar reads it: {}", text(&listed.stdout));
    assert!(good(&["snapshot", "restore", &file, &restored]).contains("2 shards"));
    let plain = |dir: &str| good(&["tail", "--data-dir", dir]);
    assert_eq!(plain(&p.data), plain(&restored));
    bad(1, &["snapshot", "restore", &file, &restored], "something in it");
    fs::write(&file, b"no").unwrap();
    bad(1, &["snapshot", "restore", &file, &at("third")], "no snapshot");
}
