//! Events posted over HTTP.
//!
//! | request | answer |
//! |---|---|
//! | `POST /v1/events` (or `/`) | takes the events of the body; 200 `{"accepted":n,"no_match":m}` |
//! | `GET /v1/stats` | the engine's counters, destinations and latencies, as JSON |
//! | `GET /metrics` | the same as a text that Prometheus scrapes ([`crate::Engine::prometheus`]) |
//! | `GET /v1/confirm`, `POST` | an endpoint agrees to be sent events, with the token that it was sent |
//! | `GET /healthz` | 200 if all is well, 503 with the reasons if not |
//!
//! The body is one of the documents of [`crate::event::ingest`]: S3 `Records`, CloudEvents (structured, batched, or
//! in the binary mode with `ce-` headers), or one JSON object per line. The media type must be one of JSON or absent.
//!
//! `?ack=memory|written|synced`, or the header `Tidewire-Ack`, says how safe the events are before the answer comes;
//! `synced` if neither does. The events of a body are published in its order, and the requests of one connection in
//! theirs.
//!
//! A refusal is JSON, `{"error": …}`, with place and remedy. A body with an error in it (400) publishes nothing. A
//! 503 carries `Retry-After`; if it came after some events were taken, it says how many (`accepted`), and sending the
//! whole body again repeats those. Requests with an `Origin` header are refused: no web page may publish here.

mod answer;

use std::net::{SocketAddr, TcpListener};
use std::pin::pin;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;

use crate::Engine;
use crate::config::HttpSource;
use crate::error::{Error, Result};
use crate::lock::Mutex;

/// The largest head of a request, in bytes.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Bodies of this many bytes in all, or four of the largest that is allowed, are held at once.
const BODIES_BYTES: usize = 64 << 20;

/// What one server grants its clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HttpLimits {
    /// Connections at a time; more wait in the backlog of the socket. Default: 256.
    pub connections: usize,
    /// How long a head may take, and how long a connection may be idle before one. Default: 30 s.
    pub head_timeout: Duration,
    /// How long a body may take. Default: 30 s.
    pub body_timeout: Duration,
    /// How long the events of a body may wait for space and for their ack level. Default: 30 s.
    pub publish_timeout: Duration,
}

impl Default for HttpLimits {
    fn default() -> Self {
        HttpLimits {
            connections: 256,
            head_timeout: Duration::from_secs(30),
            body_timeout: Duration::from_secs(30),
            publish_timeout: Duration::from_secs(30),
        }
    }
}

/// A running server. Dropping it stops it without waiting for requests.
#[derive(Debug)]
pub struct HttpIngest {
    address: SocketAddr,
    stop: watch::Sender<Option<Instant>>,
    thread: Option<JoinHandle<()>>,
    service: Arc<Service>,
}

/// Tells what is wrong with something else than the engine.
type HealthCheck = Box<dyn Fn() -> Vec<String> + Send + Sync>;

/// What every connection needs.
struct Service {
    engine: Engine,
    limits: HttpLimits,
    body_max: usize,
    /// Bytes of bodies that may be held, in units of [`answer::UNIT`].
    bodies: Arc<Semaphore>,
    started: Instant,
    health_checks: Mutex<Vec<HealthCheck>>,
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Service").field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl HttpIngest {
    /// Listens and serves in a thread of its own.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidConfig`] if the address is not one of this machine alone; [`crate::ErrorKind::Io`]
    /// if it is taken.
    pub fn start(engine: Engine, config: &HttpSource) -> Result<HttpIngest> {
        HttpIngest::start_with(engine, config, HttpLimits::default())
    }

    /// As [`HttpIngest::start`], with other limits.
    ///
    /// # Errors
    /// As [`HttpIngest::start`].
    pub fn start_with(engine: Engine, config: &HttpSource, limits: HttpLimits) -> Result<HttpIngest> {
        let at = |e: Error| e.at(format!("source `http` on {}", config.listen));
        if !config.listen.ip().is_loopback() {
            return Err(at(Error::invalid_config("other machines could reach it")
                .remedy("listen on 127.0.0.1 or ::1: this source neither encrypts nor asks who is there")));
        }
        let io = |doing: &str, e: std::io::Error| at(Error::io(doing, &e));
        let listener = TcpListener::bind(config.listen)
            .map_err(|e| io("cannot listen", e).remedy("choose another port, or stop the process that has it"))?;
        listener.set_nonblocking(true).map_err(|e| io("cannot prepare the socket", e))?;
        let address = listener.local_addr().map_err(|e| io("cannot tell its address", e))?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| io("cannot make a runtime", e))?;
        let listener = {
            let _inside = runtime.enter();
            tokio::net::TcpListener::from_std(listener).map_err(|e| io("cannot watch the socket", e))?
        };
        let body_max = config.max_body.min(crate::event::ingest::BODY_BYTES_MAX);
        let service = Arc::new(Service {
            engine,
            limits,
            body_max,
            bodies: Arc::new(Semaphore::new(answer::units(BODIES_BYTES.max(4 * body_max)))),
            started: Instant::now(),
            health_checks: Mutex::default(),
        });
        let serving = service.clone();
        let (stop, stopped) = watch::channel(None);
        let work = move || {
            runtime.block_on(async {
                tokio::select! {
                    () = serve(listener, serving, stopped.clone()) => {}
                    () = deadline(stopped) => {}
                }
            });
            // What is left of the tasks goes down with the runtime, and with them the connections.
        };
        let thread = std::thread::Builder::new()
            .name("tidewire-http".into())
            .spawn(work)
            .map_err(|e| io("cannot start a thread", e))?;
        Ok(HttpIngest { address, stop, thread: Some(thread), service })
    }

    /// Where it listens: the configured address, with the port that the system chose if that was 0.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Has `/healthz` ask this, too, for what is wrong.
    pub fn add_health_check(&self, check: impl Fn() -> Vec<String> + Send + Sync + 'static) {
        self.service.health_checks.lock().push(Box::new(check));
    }

    /// Takes no more connections and requests, answers those that came until `timeout`, and closes the rest.
    pub fn stop(mut self, timeout: Duration) {
        self.end(Instant::now() + timeout);
    }

    fn end(&mut self, deadline: Instant) {
        self.stop.send_replace(Some(deadline));
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("the thread of the source `http` on {} panicked", self.address);
        }
    }
}

impl Drop for HttpIngest {
    fn drop(&mut self) {
        self.end(Instant::now());
    }
}

/// Ready once the server is told to stop.
async fn told(stop: &mut watch::Receiver<Option<Instant>>) {
    // An error means that the server was dropped.
    let _ = stop.wait_for(Option::is_some).await;
}

/// Ready once the time to stop is over.
async fn deadline(mut stop: watch::Receiver<Option<Instant>>) {
    let at = stop.wait_for(Option::is_some).await.ok().and_then(|at| *at);
    if let Some(at) = at {
        tokio::time::sleep_until(at.into()).await;
    }
}

async fn serve(listener: tokio::net::TcpListener, service: Arc<Service>, mut stop: watch::Receiver<Option<Instant>>) {
    let slots = Arc::new(Semaphore::new(service.limits.connections.max(1)));
    let mut connections = JoinSet::new();
    loop {
        let permit = tokio::select! {
            permit = slots.clone().acquire_owned() => permit,
            () = told(&mut stop) => break,
        };
        let Ok(permit) = permit else { break };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = told(&mut stop) => break,
        };
        while connections.try_join_next().is_some() {}
        match accepted {
            Ok((stream, _)) => {
                connections.spawn(connection(stream, service.clone(), stop.clone(), permit));
            }
            Err(e) => {
                log::warn!("cannot accept a connection: {e}");
                // Out of descriptors, most likely: others will be closed.
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn connection(
    stream: TcpStream,
    service: Arc<Service>,
    mut stop: watch::Receiver<Option<Instant>>,
    _permit: OwnedSemaphorePermit,
) {
    // Answers are small and must not wait for more.
    let _ = stream.set_nodelay(true);
    let head_timeout = service.limits.head_timeout;
    let handler = service_fn(move |request| {
        let service = service.clone();
        async move { Ok::<_, std::convert::Infallible>(service.answer(request).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(head_timeout)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), handler);
    let mut served = pin!(served);
    let ended = tokio::select! {
        ended = served.as_mut() => ended,
        () = told(&mut stop) => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(e) = ended {
        log::debug!("a connection ended: {e}");
    }
}
