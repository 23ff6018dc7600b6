//! The server: a thread with a runtime of its own.

use std::collections::HashSet;
use std::convert::Infallible;
use std::fmt;
use std::fs::File;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{HeaderName, HeaderValue};
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{self, RootCertStore, ServerConfig};

use crate::behaviour::{Behaviour, Hit, Reply};
use crate::log;
use crate::record::{Record, parse_body};

/// The largest request body taken; the connection of a larger one is closed.
pub const BODY_BYTES_MAX: usize = 64 * 1024 * 1024;

/// How long a restart waits for its port.
const REBIND_WAIT: Duration = Duration::from_secs(5);

/// How a receiver is set up.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where to listen; port 0 is one that is free.
    pub listen: SocketAddr,
    /// How to answer at first.
    pub behaviour: Behaviour,
    /// The certificate, for https.
    pub tls: Option<Tls>,
    /// A file to which accepted records are appended before they are answered; see [`crate::read_log`].
    pub log: Option<PathBuf>,
    /// Whether to remember records and ids; without, only the counters work.
    pub keep_records: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            behaviour: Behaviour::Ok204,
            tls: None,
            log: None,
            keep_records: true,
        }
    }
}

/// Certificate and key, in PEM.
#[derive(Clone)]
pub struct Tls {
    /// The certificate and any intermediate ones.
    pub certificates: String,
    /// The private key.
    pub key: String,
    /// If given, clients must present a certificate of this authority.
    pub client_ca: Option<String>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("client_ca", &self.client_ca.is_some()).finish_non_exhaustive()
    }
}

/// The last request that came, as it came.
#[derive(Clone, Debug)]
pub struct LastRequest {
    /// The request line's method.
    pub method: String,
    /// The request line's target.
    pub target: String,
    /// The header fields.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

/// A running receiver; dropping it stops it.
#[derive(Debug)]
pub struct Receiver {
    addr: SocketAddr,
    shared: Arc<Shared>,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    stop: oneshot::Sender<Infallible>,
    thread: JoinHandle<()>,
}

struct Shared {
    state: Mutex<State>,
    accepted_more: Condvar,
    keep_records: bool,
    log: Option<File>,
    tls: Option<TlsAcceptor>,
    requests: AtomicU64,
    connections: AtomicU64,
    unreadable: AtomicU64,
    failed_handshakes: AtomicU64,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("requests", &self.requests).finish_non_exhaustive()
    }
}

struct State {
    behaviour: Behaviour,
    /// Requests since the behaviour was set.
    hits: u64,
    records: Vec<Record>,
    accepted_ids: HashSet<String>,
    last: Option<LastRequest>,
}

impl Receiver {
    /// Starts a receiver of plain HTTP.
    ///
    /// # Errors
    /// As [`Receiver::with`].
    pub fn start(listen: SocketAddr, behaviour: Behaviour) -> io::Result<Self> {
        Self::with(Settings { listen, behaviour, ..Settings::default() })
    }

    /// Starts a receiver.
    ///
    /// # Errors
    /// If the address is taken, the log cannot be opened, or the certificate and its key are not usable.
    pub fn with(settings: Settings) -> io::Result<Self> {
        let Settings { listen, behaviour, tls, log, keep_records } = settings;
        let tls = tls.as_ref().map(acceptor).transpose()?;
        let log = log.as_deref().map(log::open).transpose()?;
        let listener = TcpListener::bind(listen)?;
        let state = State { behaviour, hits: 0, records: Vec::new(), accepted_ids: HashSet::new(), last: None };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            accepted_more: Condvar::new(),
            keep_records,
            log,
            tls,
            requests: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            unreadable: AtomicU64::new(0),
            failed_handshakes: AtomicU64::new(0),
        });
        let addr = listener.local_addr()?;
        let running = Some(run(listener, shared.clone())?);
        Ok(Receiver { addr, shared, running })
    }

    /// Where it listens, or listened before it was stopped.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Its URL, by address and with the path `/`.
    pub fn url(&self) -> String {
        let scheme = if self.shared.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}/", self.addr)
    }

    /// Closes the listener and every connection, answered or not. What it remembers stays.
    pub fn stop(&mut self) {
        if let Some(Running { stop, thread }) = self.running.take() {
            drop(stop);
            // A panic there has been printed, and the records show its effect.
            let _ = thread.join();
        }
    }

    /// Listens again on the same port, after [`Receiver::stop`].
    ///
    /// # Errors
    /// If the port is not free within a few seconds.
    pub fn restart(&mut self) -> io::Result<()> {
        self.stop();
        let deadline = Instant::now() + REBIND_WAIT;
        let listener = loop {
            match TcpListener::bind(self.addr) {
                Err(e) if e.kind() == io::ErrorKind::AddrInUse && Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                done => break done?,
            }
        };
        self.running = Some(run(listener, self.shared.clone())?);
        Ok(())
    }

    /// Answers differently from the next request on, and counts anew for the behaviours that count.
    pub fn set_behaviour(&self, behaviour: Behaviour) {
        let mut state = self.shared.state();
        state.behaviour = behaviour;
        state.hits = 0;
    }

    /// All records, in the order of arrival.
    pub fn records(&self) -> Vec<Record> {
        self.shared.state().records.clone()
    }

    /// The last request.
    pub fn last_request(&self) -> Option<LastRequest> {
        self.shared.state().last.clone()
    }

    /// The number of different events accepted.
    pub fn accepted(&self) -> usize {
        self.shared.state().accepted_ids.len()
    }

    /// Waits until so many different events were accepted; `false` if the time passes before.
    pub fn wait_for(&self, accepted: usize, timeout: Duration) -> bool {
        let waiting = |state: &mut State| state.accepted_ids.len() < accepted;
        let guard = self.shared.state();
        let waited = self.shared.accepted_more.wait_timeout_while(guard, timeout, waiting);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// The number of requests whose body came in full.
    pub fn requests(&self) -> u64 {
        self.shared.requests.load(Ordering::Relaxed)
    }

    /// The number of TCP connections accepted.
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// The number of requests whose body was not `{"Records": [...]}`.
    pub fn unreadable(&self) -> u64 {
        self.shared.unreadable.load(Ordering::Relaxed)
    }

    /// The number of TLS handshakes that failed.
    pub fn failed_handshakes(&self) -> u64 {
        self.shared.failed_handshakes.load(Ordering::Relaxed)
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.stop();
    }
}

fn run(listener: TcpListener, shared: Arc<Shared>) -> io::Result<Running> {
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let listener = {
        let _inside = runtime.enter();
        tokio::net::TcpListener::from_std(listener)?
    };
    let (stop, stopped) = oneshot::channel::<Infallible>();
    let work = move || {
        runtime.block_on(async {
            tokio::select! {
                () = accept(listener, shared) => {}
                _ = stopped => {}
            }
        });
        // Dropping the runtime here drops the tasks, and with them the connections.
    };
    let thread = std::thread::Builder::new().name("receiver".into()).spawn(work)?;
    Ok(Running { stop, thread })
}

async fn accept(listener: tokio::net::TcpListener, shared: Arc<Shared>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors, most likely: others will be closed.
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        shared.connections.fetch_add(1, Ordering::Relaxed);
        let _ = stream.set_nodelay(true);
        let shared = shared.clone();
        tokio::spawn(async move {
            let Some(tls) = shared.tls.clone() else {
                return serve(stream, shared).await;
            };
            match tls.accept(stream).await {
                Ok(stream) => serve(stream, shared).await,
                Err(_) => {
                    shared.failed_handshakes.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
    }
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin, shared: Arc<Shared>) {
    let service = service_fn(move |request| handle(shared.clone(), request));
    // An error is a client that went away, or the close that a behaviour asked for.
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

/// Stands for "close the connection".
#[derive(Debug)]
struct Close;

impl fmt::Display for Close {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("closed as asked")
    }
}

impl std::error::Error for Close {}

async fn handle(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Close> {
    let (head, body) = request.into_parts();
    let body = Limited::new(body, BODY_BYTES_MAX).collect().await.map_err(|_| Close)?.to_bytes();
    let request =
        LastRequest { method: head.method.to_string(), target: head.uri.to_string(), headers: head.headers, body };
    let reply = shared.take(request);
    tokio::time::sleep(reply.delay).await;
    let mut response = Response::new(Full::new(Bytes::from(reply.body)));
    *response.status_mut() = reply.status.and_then(|s| StatusCode::from_u16(s).ok()).ok_or(Close)?;
    for (name, value) in &reply.headers {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            response.headers_mut().append(name, value);
        }
    }
    Ok(response)
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records a request and decides its answer, without a pause in between: requests are handled one by one, in the
    /// order in which their bodies were complete.
    fn take(&self, request: LastRequest) -> Reply {
        let serial = self.requests.fetch_add(1, Ordering::Relaxed) + 1;
        let webhook_id = request.headers.get("webhook-id").and_then(|v| v.to_str().ok());
        let mut records = parse_body(&request.body, webhook_id, serial).unwrap_or_else(|_| {
            self.unreadable.fetch_add(1, Ordering::Relaxed);
            Vec::new()
        });
        // The lock is not held while a function decides: it may ask the receiver.
        let (behaviour, number) = {
            let mut state = self.state();
            state.hits += 1;
            (state.behaviour.clone(), state.hits - 1)
        };
        let hit = Hit { number, records: &records, headers: &request.headers, body: &request.body };
        let mut reply = behaviour.reply(&hit);
        if reply.accepts()
            && let Some(file) = &self.log
            && let Err(e) = log::append(file, &records)
        {
            reply = Reply { body: format!("the log: {e}").into_bytes(), ..Reply::status(500) };
        }
        let accepted = reply.accepts();
        for record in &mut records {
            record.accepted = accepted;
        }
        let mut state = self.state();
        state.last = Some(request);
        if self.keep_records {
            if accepted {
                state.accepted_ids.extend(records.iter().map(|r| r.event_id.clone()));
            }
            state.records.extend(records);
        }
        self.accepted_more.notify_all();
        reply
    }
}

pub(crate) fn acceptor(tls: &Tls) -> io::Result<TlsAcceptor> {
    let bad = |e: &dyn fmt::Display| io::Error::new(io::ErrorKind::InvalidInput, e.to_string());
    let chain = CertificateDer::pem_slice_iter(tls.certificates.as_bytes()).collect::<Result<Vec<_>, _>>();
    let chain = chain.map_err(|e| bad(&e))?;
    let key = PrivateKeyDer::from_pem_slice(tls.key.as_bytes()).map_err(|e| bad(&e))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|e| bad(&e))?;
    let builder = match &tls.client_ca {
        None => builder.with_no_client_auth(),
        Some(pem) => {
            let mut roots = RootCertStore::empty();
            let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|e| bad(&e))?;
            roots.add(certificate).map_err(|e| bad(&e))?;
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(verifier.map_err(|e| bad(&e))?)
        }
    };
    let mut config = builder.with_single_cert(chain, key).map_err(|e| bad(&e))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
