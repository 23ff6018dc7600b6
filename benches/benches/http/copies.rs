//! How often user space copies the payload on its way out, by instructions: those that a request of 64 KiB needs more than
//! one of 4 KiB, per byte, beside the same with one copy made on purpose. Valgrind counts them, in a process that does
//! nothing but send; the kernel's are not among them.

use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use tidewire::bench::{Load, run};
use tidewire::config::Sockets;
use tidewire::delivery::Record;
use tidewire_benches::Figure;
use tidewire_benches::sink::Sink;

use super::{CLIENT, SERVER, pin, records, webhook};

/// Set for the process that only sends: URL, bytes, requests, whether it copies.
const ASKED: &str = "TIDEWIRE_BENCH_COPIES";

const SMALL: usize = 4 << 10;
const LARGE: usize = 64 << 10;
/// So many requests less, and all that is not of requests cancels out.
const FEW: u64 = 100;
const MANY: u64 = 600;

/// Whether this process is the one that only sends; it has done so then.
pub(super) fn is_asked() -> bool {
    let Ok(asked) = std::env::var(ASKED) else { return false };
    let words: Vec<&str> = asked.split(' ').collect();
    let [url, bytes, requests, copied] = words[..] else { panic!("{ASKED} is not for use by hand") };
    let bytes: usize = bytes.parse().expect("a number");
    let mut record = records(1).remove(0);
    record = Record { bytes: Bytes::from(vec![b'x'; bytes]), ..record };
    let load = Load {
        webhook: webhook(url),
        sockets: Sockets::Ring,
        connections: 1,
        records: vec![record],
        duration: Duration::from_secs(600),
        requests: requests.parse().expect("a number"),
        copied: copied == "true",
        cpu: CLIENT,
    };
    run(load).expect("requests");
    true
}

pub(super) fn measure(figures: &mut Vec<Figure>) {
    if Command::new("valgrind").arg("--version").output().is_err() {
        println!("valgrind is not here (Debian: apt-get install valgrind): copies are not counted");
        return;
    }
    pin(SERVER);
    let sink = Sink::new();
    let per_byte = |copied| {
        let of = |bytes| per_request(&sink.url, bytes, copied);
        (of(LARGE) - of(SMALL)) / (LARGE - SMALL) as f64
    };
    let (sent, copied) = (per_byte(false), per_byte(true));
    println!(
        "copies of a payload byte     {sent:.5} instructions per byte; with a copy made on purpose {copied:.5}: \
         {:.2} copies",
        sent / (copied - sent)
    );
    figures.push(Figure {
        name: "instructions per payload byte".into(),
        value: sent,
        unit: "instructions".into(),
        beside: "with one copy".into(),
        beside_value: copied,
    });
}

fn per_request(url: &str, bytes: usize, copied: bool) -> f64 {
    let count = |requests: u64| instructions(&format!("{url} {bytes} {requests} {copied}"));
    (count(MANY) - count(FEW)) / (MANY - FEW) as f64
}

/// What a process that only sends executes.
fn instructions(asked: &str) -> f64 {
    let dir = tempfile::tempdir().expect("a directory");
    let out = dir.path().join("callgrind");
    let status = Command::new("valgrind")
        .args(["--tool=callgrind", "-q"])
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(std::env::current_exe().expect("this program"))
        .env(ASKED, asked)
        .output()
        .expect("valgrind");
    assert!(status.status.success(), "{}", String::from_utf8_lossy(&status.stderr));
    let text = std::fs::read_to_string(out).expect("counts");
    let line = text.lines().find_map(|l| l.strip_prefix("totals:").or(l.strip_prefix("summary:")));
    line.and_then(|l| l.trim().parse().ok()).expect("a total")
}
