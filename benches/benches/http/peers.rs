//! Other clients.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tidewire::bench::thread_cpu;
use tokio::net::TcpStream;
use tokio::task::LocalSet;

use super::{CLIENT, Done, parts, pin};

const WARM_UP: u64 = 50;

/// Where the body of a request begins.
pub(super) fn head_len(request: &[u8]) -> Option<usize> {
    memchr::memmem::find(request, b"\r\n\r\n").map(|at| at + 4)
}

/// Whether a request is there to its end.
pub(super) fn is_whole(request: &[u8]) -> bool {
    let Some(head) = head_len(request) else { return false };
    let text = String::from_utf8_lossy(&request[..head]).to_ascii_lowercase();
    let length = text.split("content-length: ").nth(1).and_then(|t| t.split("\r\n").next()?.parse::<usize>().ok());
    request.len() >= head + length.expect("a length")
}

pub(super) fn has_wrk() -> bool {
    Command::new("wrk").arg("-v").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

/// `wrk` with one thread, sending these bytes.
pub(super) fn wrk(address: SocketAddr, request: &[u8], connections: usize, duration: Duration) -> Done {
    let dir = tempfile::tempdir().expect("a directory");
    let script = dir.path().join("request.lua");
    let mut text = String::from("local r = \"");
    for b in request {
        write!(text, "\\{b:03}").expect("text");
    }
    text.push_str("\"\nrequest = function() return r end\n");
    std::fs::write(&script, text).expect("written");
    let mut command = Command::new("wrk");
    command.args(["-t1", &format!("-c{connections}"), &format!("-d{}s", duration.as_secs().max(1)), "-s"]).arg(&script);
    command.arg(format!("http://{address}/hook")).stdout(Stdio::piped());
    // SAFETY: the closure makes one system call.
    unsafe {
        command.pre_exec(|| {
            pin(CLIENT);
            Ok(())
        });
    }
    let before = children_cpu();
    let output = command.spawn().and_then(std::process::Child::wait_with_output).expect("wrk");
    let cpu = children_cpu().saturating_sub(before);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let number = |line: &str| text.lines().find_map(|l| l.trim().strip_prefix(line)?.trim().parse::<f64>().ok());
    let per_second = number("Requests/sec:").unwrap_or_else(|| panic!("wrk said: {text}"));
    let requests = text.lines().find_map(|l| l.trim().split_once(" requests in")?.0.parse::<f64>().ok());
    assert!(!text.contains("Non-2xx"), "{text}");
    Done { per_second, per_cpu_second: requests.expect("a count") / cpu.as_secs_f64() }
}

/// Of the children that were waited for.
fn children_cpu() -> Duration {
    // SAFETY: plain data that the call fills in.
    let usage = unsafe {
        let mut usage = std::mem::zeroed::<libc::rusage>();
        libc::getrusage(libc::RUSAGE_CHILDREN, &mut usage);
        usage
    };
    let time = |t: libc::timeval| Duration::new(t.tv_sec as u64, t.tv_usec as u32 * 1000);
    time(usage.ru_utime) + time(usage.ru_stime)
}

/// A client of tokio, with one thread, and hyper; the same request with the same headers.
pub(super) fn hyper(address: SocketAddr, request: &[u8], connections: usize, duration: Duration) -> Done {
    let (path, headers, body) = parts(request);
    let client = move || {
        pin(CLIENT);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        LocalSet::new().block_on(&runtime, async {
            let mut senders = Vec::new();
            for _ in 0..connections {
                let stream = TcpStream::connect(address).await.expect("connected");
                stream.set_nodelay(true).expect("nodelay");
                let (sender, connection) = handshake(TokioIo::new(stream)).await.expect("a connection");
                tokio::task::spawn_local(connection);
                senders.push(sender);
            }
            let make = move || {
                let mut r = Request::post(&path);
                for (name, value) in &headers {
                    r = r.header(name, value);
                }
                r.body(Full::new(body.clone())).expect("a request")
            };
            let (senders, _) = all(senders, &make, WARM_UP, None).await;
            let (begun, cpu) = (Instant::now(), thread_cpu());
            let (_, requests) = all(senders, &make, u64::MAX, Some(begun + duration)).await;
            Done::of(requests, begun.elapsed(), thread_cpu().saturating_sub(cpu))
        })
    };
    std::thread::spawn(client).join().expect("requests")
}

type Sender = SendRequest<Full<Bytes>>;

async fn all(
    senders: Vec<Sender>,
    make: &(impl Fn() -> Request<Full<Bytes>> + Clone + 'static),
    most: u64,
    end: Option<Instant>,
) -> (Vec<Sender>, u64) {
    let tasks: Vec<_> = senders
        .into_iter()
        .map(|mut sender| {
            let make = make.clone();
            tokio::task::spawn_local(async move {
                let mut done = 0;
                while done < most && end.is_none_or(|end| Instant::now() < end) {
                    sender.ready().await.expect("ready");
                    let answer = sender.send_request(make()).await.expect("an answer");
                    assert_eq!(answer.status(), 204);
                    answer.into_body().collect().await.expect("its end");
                    done += 1;
                }
                (sender, done)
            })
        })
        .collect();
    let (mut senders, mut sum) = (Vec::new(), 0);
    for task in tasks {
        let (sender, done) = task.await.expect("requests");
        senders.push(sender);
        sum += done;
    }
    (senders, sum)
}
