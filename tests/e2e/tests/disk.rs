//! Disks that fail while an engine writes to them, a process that is stopped meanwhile, and places that are no ordinary
//! disk. Nothing that was acknowledged as synced is lost.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use tidewire_e2e::{Helper, helper, receiver, skip, wait_until};
use tidewire_receiver::{Behaviour, check_per_key_order};

const HELPER: &str = env!("CARGO_BIN_EXE_helper");

/// Runs the helper in a mount namespace of its own, unless that is not permitted or `needs` is not there.
fn in_namespace(mode: &str, needs: &str, mount: &str, dir: &Path) {
    let script = format!("{mount} && exec \"${{@:2}}\" \"$1\"");
    let dir = dir.to_str().expect("a path");
    let within = ["unshare", "--mount", "--", "bash", "-c", &script, "bash", dir];
    let probe = Command::new(within[0]).args(&within[1..]).args(["bash", "-c", needs]).output();
    match probe {
        Ok(p) if p.status.success() => {
            helper(within.into_iter().chain([HELPER, mode]));
        }
        Ok(p) => {
            skip(&format!("cannot mount in a namespace of one's own: {}", String::from_utf8_lossy(&p.stderr).trim()))
        }
        Err(e) => skip(&format!("no unshare: {e}")),
    }
}

/// Loop devices with ext4 in them.
const LOOP: &str = "PATH=$PATH:/sbin:/usr/sbin; command -v mkfs.ext4 && test -e /dev/loop-control || { echo no loop devices or no mkfs.ext4 >&2; false; }";

#[test]
fn a_limit_on_the_size_of_files_shortens_segments_and_stops_the_log_only_if_nothing_fits() {
    let dir = tempfile::tempdir().expect("a directory");
    helper([HELPER, "limit", dir.path().to_str().expect("a path")]);
}

#[test]
fn a_file_system_that_becomes_read_only_stops_the_log_until_it_is_mended_and_opened() {
    let dir = tempfile::tempdir().expect("a directory");
    in_namespace("aborted", LOOP, "true", dir.path());
}

#[test]
fn power_lost_at_any_time_loses_nothing_that_was_acknowledged() {
    let dir = tempfile::tempdir().expect("a directory");
    in_namespace("power", LOOP, "true", dir.path());
}

#[test]
fn the_log_works_on_a_file_system_in_memory() {
    let Ok(dir) = tempfile::tempdir_in("/dev/shm") else { return skip("there is no /dev/shm") };
    helper([HELPER, "use", dir.path().to_str().expect("a path")]);
}

#[test]
fn the_log_works_on_an_overlay() {
    let dir = tempfile::tempdir().expect("a directory");
    let mount = r#"mkdir "$1/lower" "$1/upper" "$1/work" "$1/data" 2>/dev/null; mount -t overlay -o "lowerdir=$1/lower,upperdir=$1/upper,workdir=$1/work" tidewire "$1/data""#;
    in_namespace("use", "true", mount, dir.path());
}

#[test]
fn a_process_that_is_stopped_and_continued_loses_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let receiver = receiver(Behaviour::Ok204);
    let mut publisher = Command::new(HELPER);
    publisher.arg("publish").arg(dir.path()).args(["2", &receiver.url(), "0", "300"]);
    let mut helper = Helper::start(publisher.stdin(Stdio::piped()));
    let pid = i32::try_from(helper.id()).expect("a process id");
    for n in [20, 120, 200] {
        helper.wait_for(&format!("acked {n}"));
        // SAFETY: signals to a child that was not waited for yet.
        unsafe { libc::kill(pid, libc::SIGSTOP) };
        std::thread::sleep(Duration::from_millis(700));
        // SAFETY: as above.
        unsafe { libc::kill(pid, libc::SIGCONT) };
    }
    helper.wait_for("acked 299");
    assert!(wait_until(Duration::from_secs(30), || receiver.accepted() >= 300 * 60), "{}", receiver.accepted());
    assert_eq!(check_per_key_order(&receiver.records()), []);
    drop(helper.end());
}
