//! A sink that understands just enough HTTP to be honest: it reads every byte of every request and answers 204.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// See the module.
#[derive(Debug)]
pub struct Sink {
    /// Where it is.
    pub url: String,
    /// The same.
    pub address: SocketAddr,
    /// Bytes read.
    pub bytes: Arc<AtomicU64>,
    /// Requests answered.
    pub requests: Arc<AtomicU64>,
}

impl Sink {
    /// Starts one at a free port.
    ///
    /// # Panics
    /// If there is none.
    pub fn new() -> Sink {
        Sink::at("127.0.0.1:0".parse().expect("an address"))
    }

    /// Starts one at an address.
    ///
    /// # Panics
    /// If that is taken.
    pub fn at(address: SocketAddr) -> Sink {
        let listener = TcpListener::bind(address).expect("a port");
        let address = listener.local_addr().expect("an address");
        let (bytes, requests) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let (b, r) = (bytes.clone(), requests.clone());
        std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                let (b, r) = (b.clone(), r.clone());
                std::thread::spawn(move || serve(stream, &b, &r));
            }
        });
        Sink { url: format!("http://{address}/"), address, bytes, requests }
    }
}

impl Default for Sink {
    fn default() -> Self {
        Sink::new()
    }
}

fn serve(mut stream: TcpStream, bytes: &AtomicU64, requests: &AtomicU64) {
    let _ = stream.set_nodelay(true);
    let mut buf = vec![0; 256 * 1024];
    let mut have = 0;
    loop {
        let head_end = loop {
            if let Some(at) = memchr::memmem::find(&buf[..have], b"\r\n\r\n") {
                break at + 4;
            }
            match stream.read(&mut buf[have..]) {
                Ok(n) if n > 0 => have += n,
                _ => return,
            }
        };
        let head = String::from_utf8_lossy(&buf[..head_end]).to_ascii_lowercase();
        let length: usize = head
            .split("content-length:")
            .nth(1)
            .and_then(|rest| rest.split("\r\n").next())
            .and_then(|n| n.trim().parse().ok())
            .unwrap_or(0);
        let mut body = have - head_end;
        while body < length {
            match stream.read(&mut buf) {
                Ok(n) if n > 0 => body += n,
                _ => return,
            }
        }
        bytes.fetch_add((head_end + length) as u64, Ordering::Relaxed);
        requests.fetch_add(1, Ordering::Relaxed);
        have = 0;
        if stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").is_err() {
            return;
        }
    }
}
