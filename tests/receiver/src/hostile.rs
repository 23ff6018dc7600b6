//! A receiver that breaks connections and answers in every way that endpoints were seen to, byte by byte; and counts what
//! it has open.

mod certificates;
mod serve;
mod trick;

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::oneshot;

use self::certificates::Certificates;
pub use self::trick::Trick;

/// Connections that wait to be taken.
const BACKLOG: u32 = 4096;

/// How it is set up.
#[derive(Clone, Debug)]
pub struct HostileSettings {
    /// Where to listen; port 0 is one that is free.
    pub listen: SocketAddr,
    /// Whether to speak TLS, with certificates that are made for `localhost` and 127.0.0.1.
    pub tls: bool,
    /// Where redirects lead.
    pub location: String,
    /// After so long [`Trick::CloseIdle`] closes a connection.
    pub idle: Duration,
}

impl Default for HostileSettings {
    fn default() -> Self {
        HostileSettings {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            tls: false,
            location: "http://169.254.169.254/latest/meta-data/".into(),
            idle: Duration::from_millis(1),
        }
    }
}

/// A running hostile receiver; dropping it stops it and closes its connections.
pub struct Hostile {
    address: SocketAddr,
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<Infallible>>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    settings: HostileSettings,
    certificates: Option<Certificates>,
    plan: Mutex<Plan>,
    bomb: Vec<u8>,
    accepted: AtomicU64,
    open: AtomicU64,
    requests: AtomicU64,
    wrong: AtomicU64,
    failed_handshakes: AtomicU64,
}

struct Plan {
    trick: Trick,
    left: u64,
    played: u64,
    taken: HashMap<String, u32>,
}

impl Shared {
    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What becomes of the next connection, or of the next request on one.
    fn turn(&self) -> Trick {
        let mut plan = self.plan();
        if plan.left == 0 {
            return Trick::Calm;
        }
        plan.left -= 1;
        plan.played += 1;
        plan.trick
    }
}

impl Hostile {
    /// Starts one that is calm.
    ///
    /// # Errors
    /// If the address is taken, or there can be no thread or certificate.
    pub fn start(settings: HostileSettings) -> io::Result<Hostile> {
        let certificates = settings.tls.then(Certificates::make).transpose()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let listener = {
            let _inside = runtime.enter();
            let socket = if settings.listen.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
            socket.set_reuseaddr(true)?;
            socket.bind(settings.listen)?;
            socket.listen(BACKLOG)?
        };
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            settings,
            certificates,
            plan: Mutex::new(Plan { trick: Trick::Calm, left: 0, played: 0, taken: HashMap::new() }),
            bomb: serve::bomb()?,
            accepted: AtomicU64::new(0),
            open: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            wrong: AtomicU64::new(0),
            failed_handshakes: AtomicU64::new(0),
        });
        let (stop, stopped) = oneshot::channel::<Infallible>();
        let served = shared.clone();
        let work = move || {
            runtime.block_on(async {
                tokio::select! {
                    () = accept(listener, served) => {}
                    _ = stopped => {}
                }
            });
        };
        let thread = std::thread::Builder::new().name("hostile".into()).spawn(work)?;
        Ok(Hostile { address, shared, stop: Some(stop), thread: Some(thread) })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.address
    }

    /// Its URL, by address and with the path `/`.
    pub fn url(&self) -> String {
        format!("{}://{}/", if self.shared.settings.tls { "https" } else { "http" }, self.address)
    }

    /// The authority to trust, in PEM; empty without TLS.
    pub fn authority(&self) -> String {
        self.shared.certificates.as_ref().map(|c| c.authority.clone()).unwrap_or_default()
    }

    /// Does this to so many connections and requests from now on, and is calm after. A connection is the first turn, and
    /// each request on it after the first another one.
    pub fn play(&self, trick: Trick, turns: u64) {
        let mut plan = self.shared.plan();
        (plan.trick, plan.left, plan.played) = (trick, turns, 0);
    }

    /// How many turns of [`Hostile::play`] are over.
    pub fn played(&self) -> u64 {
        self.shared.plan().played
    }

    /// The keys of the events that were answered with success, and how often. Each is counted before the answer, and is
    /// forgotten here.
    pub fn take_events(&self) -> HashMap<String, u32> {
        std::mem::take(&mut self.shared.plan().taken)
    }

    /// Connections accepted.
    pub fn accepted(&self) -> u64 {
        self.shared.accepted.load(Ordering::SeqCst)
    }

    /// Connections that are open.
    pub fn open(&self) -> u64 {
        self.shared.open.load(Ordering::SeqCst)
    }

    /// Requests whose head came in full.
    pub fn requests(&self) -> u64 {
        self.shared.requests.load(Ordering::SeqCst)
    }

    /// Requests that a simple receiver does not understand: without a length, in chunks, or with an `Expect`.
    pub fn wrong_requests(&self) -> u64 {
        self.shared.wrong.load(Ordering::SeqCst)
    }

    /// TLS handshakes that failed.
    pub fn failed_handshakes(&self) -> u64 {
        self.shared.failed_handshakes.load(Ordering::SeqCst)
    }
}

impl Drop for Hostile {
    fn drop(&mut self) {
        drop(self.stop.take());
        // A panic there has been printed.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// Counts a connection as open for as long as it is.
struct Open(Arc<Shared>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors, most likely: others will be closed.
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        shared.accepted.fetch_add(1, Ordering::SeqCst);
        shared.open.fetch_add(1, Ordering::SeqCst);
        let open = Open(shared.clone());
        tokio::spawn(async move {
            let _ = stream.set_nodelay(true);
            // An error is a client that went away.
            let _ = serve::connection(stream, &open.0).await;
        });
    }
}
