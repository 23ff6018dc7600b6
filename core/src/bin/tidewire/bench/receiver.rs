//! The receiver of a bench, which is a process of its own so that its share of the processor is known: it reads every byte
//! of every request, and notes how long each event was on its way.
//!
//! An event says when it was due by its request id: nanoseconds of the machine's monotonic clock, as 16 hexadecimal digits.
//! The bench asks by lines on standard input and is answered by lines of JSON.

use std::io::{self, BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hdrhistogram::Histogram;
use memchr::memmem;
use serde::{Deserialize, Serialize};
use tidewire::{Error, ErrorKind};

use super::sink::Sink;
use crate::Failure;

const BEFORE_ID: &[u8] = b"\"x-amz-request-id\":\"";
const ID_DIGITS: usize = 16;

/// Of the machine: the same for all processes.
pub(super) fn monotonic_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: there is room for the answer, and the clock exists on every Linux.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Nanoseconds up to a minute, three digits of them.
pub(super) fn histogram() -> Histogram<u64> {
    // The bounds are constant and in order.
    Histogram::new_with_bounds(1, 60_000_000_000, 3).unwrap_or_else(|_| unreachable!("constant bounds"))
}

/// Processor time that this process has used.
pub(super) fn cpu_time(of: libc::c_int) -> Duration {
    // SAFETY: plain numbers, for which zeros are a value.
    let mut usage = unsafe { std::mem::zeroed::<libc::rusage>() };
    // SAFETY: there is room for the answer.
    unsafe { libc::getrusage(of, &raw mut usage) };
    let of = |t: libc::timeval| Duration::from_micros(t.tv_sec as u64 * 1_000_000 + t.tv_usec as u64);
    of(usage.ru_utime) + of(usage.ru_stime)
}

/// What a set of events is recognised by, whatever their order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Checksum {
    pub(super) events: u64,
    /// Of their ids, wrapping.
    sum: u64,
    /// Of their ids, scrambled, wrapping: two ids that are off by as much in both directions are told from none.
    scrambled: u64,
}

impl Checksum {
    pub(super) fn add(&mut self, id: u64) {
        self.add_all(&Checksum { events: 1, sum: id, scrambled: id.wrapping_mul(id | 1).rotate_left(29) });
    }

    pub(super) fn add_all(&mut self, other: &Checksum) {
        self.events += other.events;
        self.sum = self.sum.wrapping_add(other.sum);
        self.scrambled = self.scrambled.wrapping_add(other.scrambled);
    }

    /// Of the same events, each so many times.
    pub(super) fn times(self, n: u64) -> Checksum {
        Checksum { events: self.events * n, sum: self.sum.wrapping_mul(n), scrambled: self.scrambled.wrapping_mul(n) }
    }
}

/// What has come since it was asked last.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Arrived {
    pub(super) checksum: Checksum,
    pub(super) requests: u64,
    pub(super) bytes: u64,
    pub(super) cpu_us: u64,
    /// How long events were on their way: nanoseconds, and how many took that long.
    pub(super) times: Vec<(u64, u64)>,
}

struct Seen {
    checksum: Checksum,
    times: Histogram<u64>,
}

/// The process.
pub(crate) fn run() -> Result<(), Failure> {
    let seen = Arc::new(Mutex::new(Seen { checksum: Checksum::default(), times: histogram() }));
    let events = Arc::new(AtomicU64::new(0));
    let (into, count) = (seen.clone(), events.clone());
    let watch = move |body: &[u8]| {
        let now = monotonic_ns();
        let mut seen = into.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        for id in ids(body) {
            seen.checksum.add(id);
            seen.times.saturating_record(now.saturating_sub(id).max(1));
        }
        count.store(seen.checksum.events, Ordering::Relaxed);
    };
    let sink = Sink::watched(([127, 0, 0, 1], 0).into(), Arc::new(watch))?;
    let mut out = io::stdout().lock();
    writeln!(out, "{}", sink.address)?;
    out.flush()?;
    let (mut cpu, mut requests, mut bytes) = (Duration::ZERO, 0, 0);
    // Its end is that of the bench.
    for line in io::stdin().lock().lines() {
        if line? == "count" {
            writeln!(out, "{}", events.load(Ordering::Relaxed))?;
        } else {
            let Seen { checksum, times } = {
                let mut seen = seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                events.store(0, Ordering::Relaxed);
                std::mem::replace(&mut *seen, Seen { checksum: Checksum::default(), times: histogram() })
            };
            let now = (
                cpu_time(libc::RUSAGE_SELF),
                sink.requests.load(Ordering::Relaxed),
                sink.bytes.load(Ordering::Relaxed),
            );
            let arrived = Arrived {
                checksum,
                requests: now.1 - requests,
                bytes: now.2 - bytes,
                cpu_us: (now.0 - cpu).as_micros() as u64,
                times: times.iter_recorded().map(|v| (v.value_iterated_to(), v.count_at_value())).collect(),
            };
            (cpu, requests, bytes) = now;
            writeln!(out, "{}", serde_json::to_string(&arrived).map_err(io::Error::from)?)?;
        }
        out.flush()?;
    }
    Ok(())
}

/// The request ids that are times.
fn ids(body: &[u8]) -> impl Iterator<Item = u64> {
    memmem::find_iter(body, BEFORE_ID).filter_map(|at| {
        let digits = body.get(at + BEFORE_ID.len()..)?.get(..ID_DIGITS)?;
        u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    })
}

/// The request id of a time.
pub(super) fn id_of(due_ns: u64) -> String {
    format!("{due_ns:016X}")
}

/// The bench's end of it. Dropping it ends the process.
pub(super) struct Receiver {
    child: Child,
    ask: ChildStdin,
    answers: BufReader<ChildStdout>,
    address: String,
}

impl Receiver {
    pub(super) fn start() -> Result<Receiver, Failure> {
        let failed = |e: io::Error| Error::io("cannot start the receiver", &e);
        let program = std::env::current_exe().map_err(failed)?;
        let mut command = Command::new(program);
        command.arg("bench-receiver").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(failed)?;
        let (Some(ask), Some(answers)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(Error::new(ErrorKind::Internal, "the receiver has no pipes").into());
        };
        let mut receiver = Receiver { child, ask, answers: BufReader::new(answers), address: String::new() };
        receiver.address = receiver.line()?;
        Ok(receiver)
    }

    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// So many events have come since [`Receiver::take`].
    pub(super) fn count(&mut self) -> Result<u64, Failure> {
        let line = self.asked("count")?;
        line.parse().map_err(|_| unexpected(&line))
    }

    /// What has come since the last call.
    pub(super) fn take(&mut self) -> Result<Arrived, Failure> {
        let line = self.asked("take")?;
        serde_json::from_str(&line).map_err(|_| unexpected(&line))
    }

    fn asked(&mut self, what: &str) -> Result<String, Failure> {
        writeln!(self.ask, "{what}").map_err(|e| Error::io("cannot ask the receiver", &e))?;
        self.line()
    }

    fn line(&mut self) -> Result<String, Failure> {
        let mut line = String::new();
        match self.answers.read_line(&mut line) {
            Ok(n) if n > 0 => Ok(line.trim_end().to_owned()),
            Ok(_) => Err(Error::new(ErrorKind::Io, "the receiver has ended").into()),
            Err(e) => Err(Error::io("the receiver does not answer", &e).into()),
        }
    }
}

fn unexpected(line: &str) -> Failure {
    Error::new(ErrorKind::Internal, format!("the receiver says `{line}`")).into()
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checksum(ids: &[u64]) -> Checksum {
        let mut checksum = Checksum::default();
        ids.iter().for_each(|id| checksum.add(*id));
        checksum
    }

    #[test]
    fn one_event_for_another_is_noticed() {
        let of = checksum(&[100, 200, 300]);
        assert_eq!(of, checksum(&[300, 100, 200]));
        for others in [&[100, 200][..], &[100, 200, 300, 300], &[100, 199, 301], &[100, 100, 400], &[0, 300, 300]] {
            assert_ne!(of, checksum(others), "{others:?}");
        }
        assert_eq!(of.times(2), checksum(&[100, 200, 300, 100, 200, 300]));
    }

    #[test]
    fn ids_are_found_in_records() {
        let record = |id: &str| format!("{{\"responseElements\":{{\"x-amz-request-id\":\"{id}\"}}}}");
        let body = [&id_of(7), "", "no time at all!!", &id_of(u64::MAX), "00"].map(record).join(",");
        assert_eq!(ids(body.as_bytes()).collect::<Vec<_>>(), [7, u64::MAX]);
    }
}
