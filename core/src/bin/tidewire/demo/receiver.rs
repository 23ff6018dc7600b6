//! A webhook receiver that remembers what came and can be killed and started again on the same port.

use std::collections::HashSet;
use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::sync::oneshot;

/// How long a restart waits for the port.
const REBIND_WAIT: Duration = Duration::from_secs(5);

/// One event that came for the first time.
#[derive(Clone, Debug)]
pub(super) struct Arrival {
    pub(super) key: String,
    pub(super) sequencer: String,
    pub(super) created: bool,
    pub(super) size: Option<u64>,
    pub(super) at: Instant,
}

/// Everything that came.
#[derive(Debug, Default)]
pub(super) struct Log {
    /// Each event once, in the order of their first arrival.
    pub(super) arrivals: Vec<Arrival>,
    ids: HashSet<String>,
    /// How often an event came that was there already.
    pub(super) repeats: u64,
    pub(super) requests: u64,
    /// Requests that could not be read.
    pub(super) unreadable: u64,
}

#[derive(Deserialize)]
struct Body {
    #[serde(rename = "Records")]
    records: Vec<Record>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    event_id: String,
    event_name: String,
    s3: Part,
}

#[derive(Deserialize)]
struct Part {
    object: Object,
}

#[derive(Deserialize)]
struct Object {
    key: String,
    size: Option<u64>,
    sequencer: String,
}

pub(super) struct Receiver {
    pub(super) name: &'static str,
    address: SocketAddr,
    log: Arc<Mutex<Log>>,
    running: Option<(oneshot::Sender<Infallible>, JoinHandle<()>)>,
}

impl Receiver {
    pub(super) fn start(name: &'static str) -> io::Result<Receiver> {
        let listener = TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let log = Arc::new(Mutex::default());
        let running = Some(run(name, listener, Arc::clone(&log))?);
        Ok(Receiver { name, address, log, running })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The number of different events that came.
    pub(super) fn received(&self) -> u64 {
        self.log.lock().unwrap().arrivals.len() as u64
    }

    pub(super) fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap()
    }

    /// Closes the listener and every connection, whatever is on its way.
    pub(super) fn kill(&mut self) {
        if let Some((stop, thread)) = self.running.take() {
            drop(stop);
            // A panic has been printed, and what is missing shows.
            let _ = thread.join();
        }
    }

    /// Listens again on the same port.
    pub(super) fn restart(&mut self) -> io::Result<()> {
        let deadline = Instant::now() + REBIND_WAIT;
        let listener = loop {
            match TcpListener::bind(self.address) {
                Err(e) if e.kind() == io::ErrorKind::AddrInUse && Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                done => break done?,
            }
        };
        self.running = Some(run(self.name, listener, Arc::clone(&self.log))?);
        Ok(())
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.kill();
    }
}

fn run(
    name: &str,
    listener: TcpListener,
    log: Arc<Mutex<Log>>,
) -> io::Result<(oneshot::Sender<Infallible>, JoinHandle<()>)> {
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let listener = {
        let _inside = runtime.enter();
        tokio::net::TcpListener::from_std(listener)?
    };
    let (stop, stopped) = oneshot::channel();
    let work = move || {
        runtime.block_on(async {
            tokio::select! {
                () = accept(listener, log) => {}
                _ = stopped => {}
            }
        });
        // The tasks, and with them the connections, are dropped with the runtime.
    };
    let thread = std::thread::Builder::new().name(name.to_owned()).spawn(work)?;
    Ok((stop, thread))
}

async fn accept(listener: tokio::net::TcpListener, log: Arc<Mutex<Log>>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let _ = stream.set_nodelay(true);
        let log = Arc::clone(&log);
        tokio::spawn(async move {
            let service = service_fn(|request| answer(&log, request));
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn answer(log: &Mutex<Log>, request: Request<Incoming>) -> Result<Response<Empty<Bytes>>, hyper::Error> {
    let body = request.into_body().collect().await?.to_bytes();
    let at = Instant::now();
    let mut response = Response::new(Empty::new());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let parsed = serde_json::from_slice::<Body>(&body);
    let mut log = log.lock().unwrap();
    log.requests += 1;
    let Ok(body) = parsed else {
        log.unreadable += 1;
        *response.status_mut() = StatusCode::BAD_REQUEST;
        return Ok(response);
    };
    for Record { event_id, event_name, s3: Part { object } } in body.records {
        if !log.ids.insert(event_id) {
            log.repeats += 1;
            continue;
        }
        log.arrivals.push(Arrival {
            key: decode(&object.key),
            sequencer: object.sequencer,
            created: event_name.starts_with("ObjectCreated:"),
            size: object.size,
            at,
        });
    }
    Ok(response)
}

/// Undoes the form encoding of a key. What separates the parts of a form is encoded in keys, so a key is one name.
fn decode(key: &str) -> String {
    url::form_urlencoded::parse(key.as_bytes()).next().map_or_else(String::new, |(name, _)| name.into_owned())
}
