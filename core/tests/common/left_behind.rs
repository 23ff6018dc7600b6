//! What a process has: descriptors by kind, tasks, operations under way, memory.
#![allow(dead_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};

use tidewire::net::socket_counts;

/// The system's allocator, counting what is allocated.
pub struct Counting;

static PIECES: AtomicI64 = AtomicI64::new(0);
static BYTES: AtomicI64 = AtomicI64::new(0);
static PEAK: AtomicI64 = AtomicI64::new(0);

fn add(pieces: i64, bytes: i64) {
    PIECES.fetch_add(pieces, Ordering::Relaxed);
    let now = BYTES.fetch_add(bytes, Ordering::Relaxed) + bytes;
    if bytes > 0 && now > PEAK.load(Ordering::Relaxed) {
        PEAK.fetch_max(now, Ordering::Relaxed);
    }
}

// SAFETY: everything is the system's allocator's, which is given what came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        add(1, layout.size() as i64);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        add(-1, -(layout.size() as i64));
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        add(0, size as i64 - layout.size() as i64);
        // SAFETY: as the caller promises.
        unsafe { System.realloc(at, layout, size) }
    }
}

/// What there was at a time.
pub struct Mark {
    descriptors: BTreeMap<String, i64>,
    tasks: u64,
    operations: u64,
    pieces: i64,
    bytes: i64,
    resident: i64,
}

/// Beyond what grows with the number of events.
const PIECES_MORE: i64 = 2000;
const BYTES_MORE: i64 = 8 << 20;
/// Of everything in the process, the receivers included.
const PEAK_BYTES_MAX: i64 = 256 << 20;

impl Mark {
    /// `tasks` is what the engine counts.
    pub fn now(tasks: u64) -> Mark {
        Mark {
            descriptors: descriptors(),
            tasks,
            operations: socket_counts().operations,
            pieces: PIECES.load(Ordering::Relaxed),
            bytes: BYTES.load(Ordering::Relaxed),
            resident: resident_kib(),
        }
    }

    /// The same; the most memory is counted from here on.
    pub fn beginning(tasks: u64) -> Mark {
        PEAK.store(BYTES.load(Ordering::Relaxed), Ordering::Relaxed);
        Mark::now(tasks)
    }

    /// What is there now and was not before, of an engine that is open, after so many events.
    pub fn more_than(&self, before: &Mark, events: u64) -> Option<String> {
        let sockets = |m: &Mark| m.descriptors.get("socket").copied().unwrap_or(0);
        // Beyond that something is left of each event, or of every tenth.
        let pieces_max = PIECES_MORE + events as i64 / 10;
        let checks = [
            ("sockets", sockets(self) - sockets(before), 0),
            ("tasks", self.tasks as i64 - before.tasks as i64, 0),
            ("operations of the ring", self.operations as i64 - before.operations as i64, 0),
            ("pieces of memory", self.pieces - before.pieces, pieces_max),
            ("bytes of memory", self.bytes - before.bytes, BYTES_MORE),
            ("bytes of memory at most", PEAK.load(Ordering::Relaxed) - before.bytes, PEAK_BYTES_MAX),
        ];
        let wrong = checks.iter().filter(|(_, more, max)| more > max);
        let text: Vec<String> = wrong.map(|(what, more, max)| format!("{more} {what} more, {max} allowed")).collect();
        (!text.is_empty()).then(|| text.join("; "))
    }

    /// Which kinds of descriptors there are more of, whatever they are of.
    pub fn descriptors_more_than(&self, before: &Mark) -> Option<String> {
        let of_before = |kind: &String| before.descriptors.get(kind).copied().unwrap_or(0);
        let more = self.descriptors.iter().filter(|(kind, count)| **count > of_before(kind));
        let text: Vec<String> = more.map(|(kind, count)| format!("{kind}: {count}, not {}", of_before(kind))).collect();
        (!text.is_empty()).then(|| text.join("; "))
    }

    pub fn told_since(&self, before: &Mark) -> String {
        format!(
            "memory {:+} KiB in {:+} pieces, {:+} KiB at most, resident {:+} KiB",
            (self.bytes - before.bytes) >> 10,
            self.pieces - before.pieces,
            (PEAK.load(Ordering::Relaxed) - before.bytes) >> 10,
            self.resident - before.resident,
        )
    }
}

/// How many there are of each kind; files are one.
fn descriptors() -> BTreeMap<String, i64> {
    let mut kinds = BTreeMap::new();
    for entry in std::fs::read_dir("/proc/self/fd").unwrap() {
        // The one of this directory is gone by now.
        let Ok(target) = std::fs::read_link(entry.unwrap().path()) else { continue };
        let target = target.to_string_lossy();
        let kind = match target.split_once(':') {
            _ if target.starts_with('/') => "file",
            Some(("anon_inode", what)) => what,
            Some((kind, _)) => kind,
            None => &target,
        };
        *kinds.entry(kind.to_owned()).or_default() += 1;
    }
    kinds
}

fn resident_kib() -> i64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
    line.and_then(|l| l.trim().trim_end_matches(" kB").parse().ok()).unwrap()
}
