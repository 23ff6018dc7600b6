//! An S3 server that tells the world of its changes: what a Rust host of Tidewire looks like.
//!
//! The server is `s3s` with its file-system back end; nothing of it knows of Tidewire. [`host::Host`] stands in front of
//! it: it passes every operation on, and after one that changed an object it publishes an event and answers the client
//! once the event is durable. The three things that a host must get right are there:
//!
//! - the event is published before the host lets go of its lock on the key, so that events come in the order of the
//!   changes;
//! - nothing is collected for events that no rule wants (`is_interested`);
//! - a client is told of success only when both the change and its event are safe; if the event is not, the client gets
//!   an error and does the operation again.
//!
//! Start it with `tidewire-s3-host host.toml`:
//!
//! ```toml
//! listen = "127.0.0.1:8014"     # a loopback address
//! root = "data"                 # one directory per bucket
//! access_key = "key"
//! secret_key = "secret"
//! tidewire = "tidewire.toml"    # rules and destinations
//! ```
//!
//! Paths are relative to the file. It prints `listening on ADDRESS` and stops on SIGINT or SIGTERM.

mod host;

use std::error::Error;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper_util::rt::TokioIo;
use hyper_util::server::graceful::GracefulShutdown;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use serde::Deserialize;
use tidewire::Engine;
use tidewire::config::Config;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

/// How long connections may go on after the signal to stop, and then deliveries.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    listen: SocketAddr,
    root: PathBuf,
    access_key: String,
    secret_key: String,
    tidewire: PathBuf,
}

/// Where a request came from.
#[derive(Clone, Copy)]
struct Peer(SocketAddr);

fn main() -> Result<(), Box<dyn Error>> {
    let Some(file) = std::env::args_os().nth(1) else {
        return Err("usage: tidewire-s3-host FILE.toml".into());
    };
    let dir = Path::new(&file).parent().unwrap_or(Path::new("")).to_owned();
    let settings: Settings = toml::from_str(&std::fs::read_to_string(&file)?)?;
    if !settings.listen.ip().is_loopback() {
        return Err("this is an example: it listens on a loopback address only".into());
    }
    // The engine has threads of its own; it needs nothing of the host's runtime.
    let engine = Engine::open(Config::from_file(&dir.join(&settings.tidewire))?)?;
    let root = dir.join(&settings.root);
    std::fs::create_dir_all(&root)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let served = runtime.block_on(serve(&settings, &root, &engine));
    engine.close(STOP_TIMEOUT)?;
    served
}

async fn serve(settings: &Settings, root: &Path, engine: &Engine) -> Result<(), Box<dyn Error>> {
    let files = s3s_fs::FileSystem::new(root).map_err(|e| format!("{}: {e:?}", root.display()))?;
    let mut service = S3ServiceBuilder::new(host::Host::new(files, engine.clone()));
    service.set_auth(SimpleAuth::from_single(settings.access_key.clone(), settings.secret_key.clone()));
    let service = service.build();

    let listener = TcpListener::bind(settings.listen).await?;
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    println!("listening on {}", listener.local_addr()?);
    let graceful = GracefulShutdown::new();
    loop {
        let (socket, peer) = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(e) => {
                    log::error!("cannot accept a connection: {e}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        };
        let service = WithPeer(service.clone(), Peer(peer));
        let connection = graceful.watch(http1::Builder::new().serve_connection(TokioIo::new(socket), service));
        tokio::spawn(async move {
            // An error is a client that went away.
            let _ = connection.await;
        });
    }
    drop(listener);
    let _ = tokio::time::timeout(STOP_TIMEOUT, graceful.shutdown()).await;
    Ok(())
}

/// The service for the requests of one connection, with the client's address in each.
struct WithPeer(S3Service, Peer);

impl Service<Request<Incoming>> for WithPeer {
    type Response = <S3Service as Service<Request<Incoming>>>::Response;
    type Error = <S3Service as Service<Request<Incoming>>>::Error;
    type Future = <S3Service as Service<Request<Incoming>>>::Future;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        request.extensions_mut().insert(self.1);
        Service::call(&self.0, request)
    }
}
