//! An endpoint of HTTP/2 that behaves as told.
#![allow(dead_code)]

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use h2::server::SendResponse;
use http::{HeaderMap, Request, Response};
use rcgen::KeyPair;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::{self, ServerConfig};

/// What becomes of one request.
#[derive(Clone, Debug)]
pub enum Act {
    /// Reads it and answers with a status and a body.
    Answer(u16, Vec<(&'static str, &'static str)>, Bytes),
    /// Refuses or resets its stream without reading it.
    Reset(Reason),
    /// Reads it and never answers.
    Stall,
    /// Answers before the body is read, and resets the stream without an error.
    Early(u16),
    /// Sends the head of an answer and a part of its body, then resets the stream.
    Half,
    /// Breaks the connection without a word.
    Cut,
    /// Ends the connection: what it has begun is answered, what comes later was not looked at.
    GoAway,
}

pub fn ok() -> Act {
    Act::Answer(204, Vec::new(), Bytes::new())
}

/// What has come.
#[derive(Debug, Default)]
pub struct Seen {
    pub connections: AtomicU64,
    /// Requests answered with success.
    pub answered: AtomicU64,
    /// All.
    pub requests: AtomicU64,
    /// On their way, and the most at once on one connection.
    pub most: AtomicU64,
    pub bodies: Mutex<Vec<Bytes>>,
    pub heads: Mutex<Vec<(String, HeaderMap)>>,
    /// What is open.
    pub open: AtomicU64,
}

pub struct Settings {
    pub streams_max: u32,
    /// The names of protocols that are chosen from.
    pub alpn: Vec<Vec<u8>>,
    /// So long an answer takes.
    pub delay: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Settings { streams_max: 100, alpn: vec![b"h2".to_vec()], delay: Duration::ZERO }
    }
}

type Script = Arc<dyn Fn(u64) -> Act + Send + Sync>;

pub struct Server {
    pub port: u16,
    pub seen: Arc<Seen>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// `script` says what to do with the request of a number, from 0 on.
    pub fn start(
        (certificate, key): &(String, KeyPair),
        settings: Settings,
        script: impl Fn(u64) -> Act + Send + Sync + 'static,
    ) -> Server {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
        let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
        let mut config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        config.alpn_protocols.clone_from(&settings.alpn);
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let (seen, script): (Arc<Seen>, Script) = (Arc::default(), Arc::new(script));
        let (stop, stopped) = oneshot::channel();
        let shared = seen.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let settings = Arc::new(settings);
            runtime.block_on(async move {
                let listener = TcpListener::from_std(listener).unwrap();
                let serve = async {
                    while let Ok((socket, _)) = listener.accept().await {
                        let (acceptor, seen) = (acceptor.clone(), shared.clone());
                        let (script, settings) = (script.clone(), settings.clone());
                        tokio::spawn(async move {
                            seen.connections.fetch_add(1, Ordering::SeqCst);
                            seen.open.fetch_add(1, Ordering::SeqCst);
                            connection(socket, acceptor, settings, script, &seen).await;
                            seen.open.fetch_sub(1, Ordering::SeqCst);
                        });
                    }
                };
                tokio::select! { () = serve => {}, _ = stopped => {} }
            });
        });
        Server { port, seen, stop: Some(stop), thread: Some(thread) }
    }

    pub fn url(&self) -> String {
        format!("https://localhost:{}/hook?a=b", self.port)
    }

    pub fn connections(&self) -> u64 {
        self.seen.connections.load(Ordering::SeqCst)
    }

    pub fn requests(&self) -> u64 {
        self.seen.requests.load(Ordering::SeqCst)
    }

    /// The bodies of what was answered with success that differ.
    pub fn different(&self) -> usize {
        self.seen.bodies.lock().unwrap().iter().collect::<BTreeSet<_>>().len()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        self.thread.take().map(JoinHandle::join);
    }
}

async fn connection(
    socket: TcpStream,
    acceptor: TlsAcceptor,
    settings: Arc<Settings>,
    script: Script,
    seen: &Arc<Seen>,
) {
    let Ok(stream) = acceptor.accept(socket).await else { return };
    let mut builder = h2::server::Builder::new();
    builder.max_concurrent_streams(settings.streams_max);
    let Ok(mut connection) = builder.handshake::<_, Bytes>(stream).await else { return };
    let here = Arc::new(AtomicU64::new(0));
    // What is done with its requests ends with it.
    let mut acts = JoinSet::new();
    while let Some(Ok((request, respond))) = connection.accept().await {
        let act = script(seen.requests.fetch_add(1, Ordering::SeqCst));
        match act {
            Act::Cut => return,
            Act::GoAway => connection.graceful_shutdown(),
            _ => {}
        }
        let (seen, here, delay) = (seen.clone(), here.clone(), settings.delay);
        while acts.try_join_next().is_some() {}
        acts.spawn(async move {
            let now = here.fetch_add(1, Ordering::SeqCst) + 1;
            seen.most.fetch_max(now, Ordering::SeqCst);
            act_on(act, request, respond, delay, &seen).await;
            here.fetch_sub(1, Ordering::SeqCst);
        });
    }
}

async fn act_on(
    act: Act,
    request: Request<h2::RecvStream>,
    mut respond: SendResponse<Bytes>,
    delay: Duration,
    seen: &Seen,
) {
    let (status, fields, answer) = match act {
        Act::Reset(reason) => return respond.send_reset(reason),
        Act::Answer(status, fields, body) => (status, fields, body),
        Act::Early(status) => {
            let answer = Response::builder().status(status).body(()).unwrap();
            let _ = respond.send_response(answer, true);
            // The library takes back what is not out yet.
            tokio::time::sleep(Duration::from_millis(50)).await;
            return respond.send_reset(Reason::NO_ERROR);
        }
        Act::Half => {
            if let Ok(mut stream) = respond.send_response(Response::new(()), false) {
                let _ = stream.send_data(Bytes::from_static(b"half"), false);
                tokio::time::sleep(Duration::from_millis(20)).await;
                stream.send_reset(Reason::INTERNAL_ERROR);
            }
            return;
        }
        Act::Stall => {
            tokio::time::sleep(Duration::from_secs(3600)).await;
            return;
        }
        Act::Cut | Act::GoAway => (204, Vec::new(), Bytes::new()),
    };
    let (head, mut incoming) = request.into_parts();
    let mut body = Vec::new();
    while let Some(piece) = incoming.data().await {
        let Ok(piece) = piece else { return };
        body.extend_from_slice(&piece);
        let _ = incoming.flow_control().release_capacity(piece.len());
    }
    tokio::time::sleep(delay).await;
    if (200..300).contains(&status) {
        // Counted before it is answered.
        seen.bodies.lock().unwrap().push(body.into());
        seen.heads.lock().unwrap().push((format!("{} {}", head.method, head.uri), head.headers));
        seen.answered.fetch_add(1, Ordering::SeqCst);
    }
    let mut head = Response::builder().status(status);
    for (name, value) in fields {
        head = head.header(name, value);
    }
    if let Ok(mut stream) = respond.send_response(head.body(()).unwrap(), answer.is_empty())
        && !answer.is_empty()
    {
        let _ = stream.send_data(answer, true);
        // Until it is out, or not wanted.
        let _ = std::future::poll_fn(|cx| stream.poll_reset(cx)).await;
    }
}
