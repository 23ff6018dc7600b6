//! The receivers' process: healthy ones, which note when each event arrives, and those that are dead in different ways.

use std::cell::RefCell;
use std::net::{SocketAddr, TcpListener as Listener};
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::time::Duration;

use hdrhistogram::Histogram;
use tidewire_benches::{histogram, quantile};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{LocalSet, spawn_local};

use super::{Addresses, Arrivals, DEAD_OF, hear, monotonic_ns, raise_descriptors, say};

const HEALTHY: usize = 4;
/// Ten thousand connections come at nearly the same time.
const BACKLOG: i32 = 4096;
const ANSWER: &[u8] = b"HTTP/1.1 204 No Content\r\n\r\n";

type Times = Rc<RefCell<Histogram<u64>>>;

/// So many connections may wait to be accepted.
fn wait_in_line(listener: &Listener, most: i32) {
    // SAFETY: the call takes no pointers, and the descriptor is open.
    assert_eq!(unsafe { libc::listen(listener.as_raw_fd(), most) }, 0);
}

fn listen() -> (Listener, String) {
    let listener = Listener::bind("127.0.0.1:0").expect("a port");
    listener.set_nonblocking(true).expect("a plain socket");
    wait_in_line(&listener, BACKLOG);
    let address = listener.local_addr().expect("an address").to_string();
    (listener, address)
}

/// Bytes, as many as there are now, or more once there are some; 0 at the end.
async fn read(stream: &TcpStream, into: &mut [u8]) -> usize {
    loop {
        match stream.try_read(into) {
            Ok(n) => return n,
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {
                if stream.readable().await.is_err() {
                    return 0;
                }
            }
            Err(_) => return 0,
        }
    }
}

fn number_after(text: &[u8], mark: &[u8]) -> Option<u64> {
    let at = memchr::memmem::find(text, mark)? + mark.len();
    let digits = text[at..].iter().take_while(|b| b.is_ascii_digit()).count();
    std::str::from_utf8(&text[at..at + digits]).ok()?.parse().ok()
}

/// The length of the first request, if it is whole.
fn whole(got: &[u8]) -> Option<usize> {
    let end = memchr::memmem::find(got, b"\r\n\r\n")? + 4;
    let length =
        number_after(&got[..end], b"content-length: ").or_else(|| number_after(&got[..end], b"Content-Length: "))?;
    Some(end + length as usize).filter(|len| got.len() >= *len)
}

async fn take_all(stream: TcpStream, times: Times) {
    let mut buf = vec![0; 2048];
    let mut have = 0;
    loop {
        while let Some(len) = whole(&buf[..have]) {
            let now = monotonic_ns();
            let request = &buf[..len];
            // Destinations that are dead in other runs are not measured in any.
            if number_after(request, b"POST /").is_some_and(|n| !n.is_multiple_of(DEAD_OF as u64)) {
                let mut rest = request;
                while let Some(at) = memchr::memmem::find(rest, b"\"size\":") {
                    let due = number_after(&rest[at..], b"\"size\":").unwrap_or(0);
                    if due > 0 {
                        times.borrow_mut().saturating_record(now.saturating_sub(due).max(1));
                    }
                    rest = &rest[at + 7..];
                }
            }
            buf.copy_within(len..have, 0);
            have -= len;
            if stream.try_write(ANSWER).is_err() {
                return;
            }
        }
        if have == buf.len() {
            buf.resize(2 * have, 0);
        }
        match read(&stream, &mut buf[have..]).await {
            0 => return,
            n => have += n,
        }
    }
}

/// Takes requests and never answers.
async fn stall(stream: TcpStream) {
    let mut buf = [0; 2048];
    while read(&stream, &mut buf).await > 0 {}
}

/// Answers a byte per second.
async fn drip(stream: TcpStream) {
    let mut buf = [0; 2048];
    if read(&stream, &mut buf).await == 0 {
        return;
    }
    for byte in b"HTTP/1.1 200 OK\r\nX-Slow: ".iter().chain(std::iter::repeat(&b'x')) {
        if stream.try_write(&[*byte]).is_err() {
            return;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

fn serve<F: Future<Output = ()> + 'static>(listener: Listener, with: impl Fn(TcpStream) -> F + 'static) {
    let listener = TcpListener::from_std(listener).expect("a listener");
    spawn_local(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let _ = stream.set_nodelay(true);
            spawn_local(with(stream));
        }
    });
}

/// A listener that nobody accepts at, with no room for more connections: the next ones wait for ever.
fn full() -> (String, Vec<Box<dyn std::any::Any>>) {
    let (listener, address) = listen();
    wait_in_line(&listener, 0);
    let at: SocketAddr = address.parse().expect("an address");
    let mut kept: Vec<Box<dyn std::any::Any>> = vec![Box::new(listener)];
    while let Ok(c) = std::net::TcpStream::connect_timeout(&at, Duration::from_millis(200)) {
        kept.push(Box::new(c));
    }
    (address, kept)
}

pub(super) fn main() {
    hear::<()>(&mut std::io::stdin().lock());
    raise_descriptors();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let times: Times = Rc::new(RefCell::new(histogram()));
    let local = LocalSet::new();
    local.block_on(&runtime, async {
        let mut addresses = Addresses::default();
        for _ in 0..HEALTHY {
            let (listener, address) = listen();
            let times = times.clone();
            serve(listener, move |stream| take_all(stream, times.clone()));
            addresses.healthy.push(address);
        }
        let (refusing, address) = listen();
        drop(refusing);
        addresses.dead.push(address);
        let (listener, address) = listen();
        serve(listener, stall);
        addresses.dead.push(address);
        let (address, _full) = full();
        addresses.dead.push(address);
        let (listener, address) = listen();
        serve(listener, drip);
        addresses.dead.push(address);
        say(&mut std::io::stdout(), &addresses);
        let asked = tokio::task::spawn_blocking(|| hear::<()>(&mut std::io::stdin().lock()));
        asked.await.expect("it is asked");
    });
    let h = times.borrow();
    let us = |q: f64| quantile(&h, q) / 1e3;
    say(&mut std::io::stdout(), &Arrivals { events: h.len(), p50: us(0.5), p99: us(0.99), max: h.max() as f64 / 1e3 });
}
