//! Opening where it cannot work: refused system calls, full and read-only disks, locked directories, newer formats.

use std::io::{BufRead, BufReader};
use std::ops::Range;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use tidewire::{Ack, Engine, ErrorKind};
use tidewire_e2e::{Process, contents, engine, helper, keys, publish, receiver, skip};
use tidewire_receiver::Behaviour;

const NOWHERE: &str = "http://127.0.0.1:9/";
const HELPER: &str = env!("CARGO_BIN_EXE_helper");

/// Runs the helper on a file system of 4 MiB of its own, unless that is not permitted.
fn on_small_disk(mode: &str) {
    const MOUNT: &str = r#"mount -t tmpfs -o size=4m tidewire "$1" && exec "${@:2}" "$1""#;
    let dir = tempfile::tempdir().expect("a directory");
    let dir = dir.path().to_str().expect("a path");
    let within = ["unshare", "--mount", "--", "bash", "-c", MOUNT, "bash", dir];
    let probe = Command::new(within[0]).args(&within[1..]).arg("true").output();
    if !probe.is_ok_and(|p| p.status.success()) {
        return skip("mounting in a namespace of one's own is not permitted");
    }
    helper(within.into_iter().chain([HELPER, mode]));
}

#[test]
fn a_seccomp_filter_is_named_with_the_remedy() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("data");
    for (errno, words) in [
        ("EPERM", ["seccomp", "io_uring_setup, io_uring_enter and io_uring_register"]),
        ("ENOSYS", ["seccomp", "Linux 5.8"]),
    ] {
        let out = helper([HELPER, "seccomp", errno, path.to_str().expect("a path")]);
        assert!(out.contains("IoUringUnavailable") && words.iter().all(|w| out.contains(w)), "{out}");
        assert!(!path.exists(), "nothing was made");
    }
}

#[test]
fn a_full_disk_loses_nothing_that_was_acknowledged() {
    on_small_disk("full");
}

#[test]
fn a_disk_that_is_full_at_the_start_is_named() {
    on_small_disk("full-at-start");
}

#[test]
fn a_read_only_directory_is_named() {
    on_small_disk("read-only");
}

#[test]
fn a_locked_directory_names_who_has_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let first = engine(dir.path(), NOWHERE).expect("an engine");
    let own = format!("process {}", std::process::id());
    let e = engine(dir.path(), NOWHERE).expect_err("a locked directory");
    assert!(e.kind() == ErrorKind::Locked && e.to_string().contains(&own), "{e}");
    first.close(Duration::ZERO).expect("closed");
    drop(first);

    let mut command = Command::new(HELPER);
    command.arg("open").arg(dir.path()).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut other = Process(command.spawn().expect("a process"));
    let mut line = String::new();
    BufReader::new(other.0.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
    assert_eq!(line, "open\n");
    let e = engine(dir.path(), NOWHERE).expect_err("a locked directory");
    let holder = format!("process {}", other.0.id());
    assert!(e.kind() == ErrorKind::Locked && e.to_string().contains(&holder), "{e}");
    println!("{e}");

    // A crash leaves no lock behind.
    other.kill();
    engine(dir.path(), NOWHERE).expect("an engine").close(Duration::ZERO).expect("closed");
}

/// Whether a directory that `change` was made to is refused as newer, and left as it is.
fn refused_as_newer(dir: &Path, what: &str, change: impl FnOnce(&mut Vec<u8>), file: &Path) {
    let good = std::fs::read(file).expect("a file");
    let mut changed = good.clone();
    change(&mut changed);
    assert_ne!(good, changed, "{what}");
    std::fs::write(file, &changed).expect("written");
    let before = contents(dir);
    let e = engine(dir, NOWHERE).expect_err("a newer format");
    assert_eq!(e.kind(), ErrorKind::NewerFormat, "{what}: {e}");
    assert!(e.to_string().contains("format 99") && e.to_string().contains("newer Tidewire"), "{what}: {e}");
    assert!(contents(dir) == before, "{what}: something was changed");
    println!("{what}: {e}");
    std::fs::write(file, good).expect("written");
}

fn json_format(bytes: &mut Vec<u8>) {
    let text = String::from_utf8(std::mem::take(bytes)).expect("text");
    *bytes = text
        .replace(&format!("\"format\": {},", tidewire::log::FORMAT), "\"format\": 99,\n  \"news\": [],")
        .into_bytes();
}

/// The checksum covers the format and `rest`; it keeps its place in every format.
fn binary_format(bytes: &mut [u8], rest: Range<usize>) {
    bytes[8..12].copy_from_slice(&99u32.to_le_bytes());
    let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[8..12]), &bytes[rest]);
    bytes[12..16].copy_from_slice(&crc.to_le_bytes());
}

#[test]
fn a_newer_format_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().expect("a directory");
    let refusing = receiver(Behaviour::Status(503));
    let e = engine(dir.path(), &refusing.url()).expect("an engine");
    publish(&e, &keys("key", 40), 0, 1, Ack::Synced).expect("published");
    e.close(Duration::ZERO).expect("closed");
    drop(e);
    let shard = dir.path().join("shard-0001");
    refused_as_newer(dir.path(), "the directory", json_format, &dir.path().join("meta.json"));
    refused_as_newer(dir.path(), "the names", json_format, &dir.path().join("names.json"));
    refused_as_newer(dir.path(), "a segment", |b| binary_format(b, 16..72), &shard.join("0000000000000001.log"));
    let cursors = |b: &mut Vec<u8>| {
        let len = u32::from_le_bytes(b[16..20].try_into().expect("four bytes"));
        binary_format(b, 20..20 + len as usize);
    };
    refused_as_newer(dir.path(), "a cursor", cursors, &shard.join("cursor.a"));

    let receiver = receiver(Behaviour::Ok204);
    let e: Engine = engine(dir.path(), &receiver.url()).expect("an engine, all being as it was");
    e.flush(Duration::from_secs(20)).expect("flushed");
    assert_eq!(receiver.accepted(), 40);
}
