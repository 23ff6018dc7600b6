//! A sink that understands just enough HTTP to be honest: it reads every byte of every request and answers 204.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Looks at the body of a request.
type Watch = dyn Fn(&[u8]) + Send + Sync;

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
        Sink::watched(address, Arc::new(|_: &[u8]| {})).expect("a port")
    }

    /// Starts one at an address that looks at each body before it answers.
    ///
    /// # Errors
    /// If the address is taken, or there can be no thread.
    pub fn watched(address: SocketAddr, watch: Arc<Watch>) -> io::Result<Sink> {
        let listener = TcpListener::bind(address)?;
        let address = listener.local_addr()?;
        let (bytes, requests) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let (b, r) = (bytes.clone(), requests.clone());
        std::thread::Builder::new().name("sink".into()).spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                let (b, r, w) = (b.clone(), r.clone(), watch.clone());
                // Without a thread the connection is closed again.
                let thread = std::thread::Builder::new().name("sink".into()).stack_size(256 * 1024);
                let _ = thread.spawn(move || serve(stream, &b, &r, &*w));
            }
        })?;
        Ok(Sink { url: format!("http://{address}/"), address, bytes, requests })
    }
}

impl Default for Sink {
    fn default() -> Self {
        Sink::new()
    }
}

/// Until the other end closes the connection, or says what is no request.
fn serve(mut stream: TcpStream, bytes: &AtomicU64, requests: &AtomicU64, watch: &Watch) -> Option<()> {
    let _ = stream.set_nodelay(true);
    let mut buf = vec![0; 256 * 1024];
    loop {
        let mut have = 0;
        let head_end = loop {
            if let Some(at) = memchr::memmem::find(&buf[..have], b"\r\n\r\n") {
                break at + 4;
            }
            have += read(&mut stream, &mut buf[have..])?;
        };
        let end = head_end + content_length(&buf[..head_end])?;
        if buf.len() < end {
            buf.resize(end, 0);
        }
        while have < end {
            have += read(&mut stream, &mut buf[have..end])?;
        }
        watch(&buf[head_end..end]);
        bytes.fetch_add(end as u64, Ordering::Relaxed);
        requests.fetch_add(1, Ordering::Relaxed);
        stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").ok()?;
    }
}

/// At least one byte.
fn read(stream: &mut TcpStream, into: &mut [u8]) -> Option<usize> {
    stream.read(into).ok().filter(|n| *n > 0)
}

fn content_length(head: &[u8]) -> Option<usize> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut request = httparse::Request::new(&mut headers);
    request.parse(head).ok()?;
    let header = request.headers.iter().find(|h| h.name.eq_ignore_ascii_case("content-length"));
    header.map_or(Some(0), |h| std::str::from_utf8(h.value).ok()?.trim().parse().ok())
}
