//! What the machine can do at all, without an engine: the same bytes written to the same disk, and sent to the same receiver.

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use tidewire::Error;

use super::load::Run;
use super::receiver::Receiver;
use crate::Failure;

/// The file is written over again after so many bytes, as a log's segments are used again.
const FILE_BYTES: u64 = 64 << 20;

/// Events per second of a loop that writes as many bytes as the engine did and syncs as often, and does nothing else. `None`
/// if the engine has not synced.
pub(super) fn disk(dir: &Path, run: &Run, duration: Duration) -> Result<Option<f64>, Failure> {
    if run.syncs == 0 {
        return Ok(None);
    }
    let failed = |e: std::io::Error| Error::io(format!("cannot write to {}", dir.display()), &e);
    let file: File = tempfile::tempfile_in(dir).map_err(failed)?;
    file.set_len(FILE_BYTES).map_err(failed)?;
    let bytes = (run.log_bytes / run.syncs).max(1);
    let group = vec![0x5a; bytes as usize];
    let (mut at, mut groups) = (0, 0u64);
    let begun = Instant::now();
    while begun.elapsed() < duration {
        file.write_all_at(&group, at).map_err(failed)?;
        file.sync_data().map_err(failed)?;
        at = if at + 2 * bytes > FILE_BYTES { 0 } else { at + bytes };
        groups += 1;
    }
    let events_per_group = run.events as f64 / run.syncs as f64;
    Ok(Some(groups as f64 * events_per_group / begun.elapsed().as_secs_f64()))
}

/// Events per second of threads that send requests of the same size to the same receiver and wait for each answer.
pub(super) fn loopback(connections: usize, run: &Run, duration: Duration) -> Result<f64, Failure> {
    let receiver = Receiver::start()?;
    let requests = run.requests.max(1);
    let events_per_request = run.events as f64 / requests as f64;
    let head = |body: u64| format!("POST / HTTP/1.1\r\nHost: {}\r\nContent-Length: {body}\r\n\r\n", receiver.address());
    // So that head and body are as long as a request of the engine.
    let bytes = run.bytes / requests;
    let body = bytes.saturating_sub(head(bytes).len() as u64).max(1);
    let mut request = head(body).into_bytes();
    request.resize(request.len() + body as usize, b' ');
    let begun = Instant::now();
    let sent = std::thread::scope(|scope| {
        let loops: Vec<_> =
            (0..connections).map(|_| scope.spawn(|| send(&receiver, &request, begun, duration))).collect();
        // A loop that panicked has sent nothing.
        loops.into_iter().map(|l| l.join().unwrap_or(Ok(0))).sum::<std::io::Result<u64>>()
    });
    let sent = sent.map_err(|e| Error::io("cannot send to the receiver", &e))?;
    Ok(sent as f64 * events_per_request / begun.elapsed().as_secs_f64())
}

fn send(receiver: &Receiver, request: &[u8], begun: Instant, duration: Duration) -> std::io::Result<u64> {
    let mut stream = TcpStream::connect(receiver.address())?;
    stream.set_nodelay(true)?;
    let (mut answer, mut sent) = ([0; 256], 0);
    while begun.elapsed() < duration {
        stream.write_all(request)?;
        // The answer is short and comes in one piece.
        if stream.read(&mut answer)? == 0 {
            break;
        }
        sent += 1;
    }
    Ok(sent)
}
