//! Configurations of TLS as clients, made once for all who have the same settings, and made anew when their files change.
//!
//! Connections that are made share a configuration, and with it the sessions that they resume. A thread looks at the files
//! once a second. What cannot be made anew stays as it was: a broken file never means that anybody goes on without the
//! client certificate or with other authorities.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, RootCertStore};
use xxhash_rust::xxh3::xxh3_64;

use super::pinned::Pinned;
use super::settings::{Pin, Tls, TlsVersion};
use super::{add_file, add_system, certificate, certificates_of, private_key};
use crate::driver;
use crate::error::{Error, ErrorKind, Result};
use crate::fork::ForkGuard;
use crate::lock::{Condvar, Mutex};
use crate::stamp::Stamp;

/// How often files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// So many endpoints have sessions to be resumed, and certificates whose ends are remembered, per configuration.
const SERVERS_MAX: usize = 1024;
const STACK_BYTES: usize = 512 * 1024;
/// Where systems have their authorities, in one file.
const SYSTEM_FILES: [&str; 2] = ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt"];

/// The names of the protocols in the handshake (RFC 7301).
pub(crate) const H2: &[u8] = b"h2";
const HTTP1: &[u8] = b"http/1.1";

type Stamps = Vec<(PathBuf, Option<Stamp>)>;

/// What a configuration is made of.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    /// None: those of the system.
    ca: Vec<PathBuf>,
    pins: Vec<Pin>,
    /// The files of certificate and key.
    client: Option<(PathBuf, PathBuf)>,
    version_min: TlsVersion,
    http2: bool,
}

impl Key {
    fn of(tls: &Tls, http2: bool) -> Key {
        Key {
            ca: tls.ca.clone(),
            pins: tls.pins.clone(),
            client: tls.client_cert.clone().zip(tls.client_key.clone()),
            version_min: tls.version_min,
            http2,
        }
    }

    fn files(&self) -> impl Iterator<Item = PathBuf> {
        self.client.iter().flat_map(|(cert, key)| [cert.clone(), key.clone()]).chain(ca_files(&self.ca))
    }
}

/// The files that authorities come from.
fn ca_files(ca: &[PathBuf]) -> Vec<PathBuf> {
    match ca {
        [] => match std::env::var_os("SSL_CERT_FILE") {
            Some(path) => vec![path.into()],
            None => SYSTEM_FILES.iter().map(PathBuf::from).collect(),
        },
        ca => ca.to_vec(),
    }
}

fn stamps(files: impl IntoIterator<Item = PathBuf>) -> Stamps {
    let stamped = |path: PathBuf| {
        let stamp = Stamp::of(&path);
        (path, stamp)
    };
    files.into_iter().map(stamped).collect()
}

fn is_outdated(stamps: &Stamps) -> bool {
    stamps.iter().any(|(path, stamp)| *stamp != Stamp::of(path))
}

/// A configuration at work.
pub(crate) struct Built {
    /// Offers what the settings allow.
    pub(crate) config: Arc<ClientConfig>,
    /// Offers HTTP/1.1 alone, and resumes the same sessions.
    pub(crate) http1: Arc<ClientConfig>,
    /// When the client certificate ends, or one of its intermediates before it.
    client_ends: Option<i64>,
    stamps: Stamps,
}

impl Built {
    /// Whether the client certificate is still valid. With one that is not, an endpoint would answer as it likes, nginx for
    /// instance with 400, as if the events were at fault.
    pub(crate) fn check_time(&self, unix: i64) -> Result<()> {
        check_end(self.client_ends, unix)
    }
}

/// Whether a client certificate that ends then is valid.
pub(super) fn check_end(ends: Option<i64>, unix: i64) -> Result<()> {
    match ends {
        Some(ends) if ends < unix => Err(expired(ends)),
        _ => Ok(()),
    }
}

fn unix_now() -> i64 {
    (driver::system_ns() / 1_000_000_000) as i64
}

#[cold]
fn expired(ends: i64) -> Error {
    Error::invalid_config(format!("the client certificate expired on {}", day(ends)))
        .at("tls.client_cert")
        .remedy("renew it, and check this machine's clock")
}

/// Sets of authorities: a system's takes a quarter of a megabyte, and most destinations have the same.
#[derive(Default)]
struct AllRoots(Mutex<HashMap<Vec<PathBuf>, Known>>);

/// What the files were, and what was read from them.
type Known = (Stamps, Weak<RootCertStore>);

impl AllRoots {
    /// Blocks.
    fn get(&self, ca: &[PathBuf]) -> Result<Arc<RootCertStore>> {
        // Not held while files are read: their file system may not answer.
        let known = self.0.lock().get(ca).and_then(|(stamps, roots)| Some((stamps.clone(), roots.upgrade()?)));
        if let Some((stamps, roots)) = known
            && !is_outdated(&stamps)
        {
            return Ok(roots);
        }
        // Looked at before they are read: what changes in between is a change.
        let stamps = stamps(ca_files(ca));
        let roots = Arc::new(roots(ca)?);
        let mut all = self.0.lock();
        all.retain(|_, (_, roots)| roots.strong_count() > 0);
        all.insert(ca.to_vec(), (stamps, Arc::downgrade(&roots)));
        Ok(roots)
    }
}

fn roots(ca: &[PathBuf]) -> Result<RootCertStore> {
    let mut store = RootCertStore::empty();
    for path in ca {
        add_file(&mut store, path).map_err(|e| e.at("tls.ca"))?;
    }
    if ca.is_empty() {
        add_system(&mut store)?;
    }
    Ok(store)
}

fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: std::sync::OnceLock<Arc<CryptoProvider>> = std::sync::OnceLock::new();
    PROVIDER.get_or_init(|| Arc::new(rustls::crypto::ring::default_provider())).clone()
}

/// The certificates and the key of the client, and when the first of these certificates ends.
fn identity(cert: &Path, key: &Path, provider: &CryptoProvider) -> Result<(CertifiedKey, Option<i64>)> {
    let chain = certificates_of(cert).map_err(|e| e.at("tls.client_cert"))?;
    let ends = first_end(&chain);
    let wrong = |e: rustls::Error| {
        Error::invalid_config(format!("the private key cannot be used with {}: {e}", cert.display()))
            .at(key.display().to_string())
            .at("tls.client_key")
            .remedy("give the key that the certificate was issued for")
    };
    let private = private_key(key).map_err(|e| e.at("tls.client_key"))?;
    Ok((CertifiedKey::from_der(chain, private, provider).map_err(wrong)?, ends))
}

/// See [`Tls::client_expires`].
pub(super) fn client_expires(cert: &Path) -> Option<i64> {
    first_end(&certificates_of(cert).ok()?)
}

/// When the first of a chain's certificates ends.
fn first_end(chain: &[CertificateDer<'_>]) -> Option<i64> {
    chain.iter().filter_map(|c| certificate::ends(c)).min()
}

/// A time as people write it.
pub(crate) fn day(unix: i64) -> String {
    jiff::Timestamp::from_second(unix).map_or_else(|_| unix.to_string(), |t| t.to_string())
}

/// A configuration by itself for HTTP/1.1, which nobody shares and which does not follow its files. Blocks.
///
/// # Errors
/// As [`Tls::check_files`], and if the system has no roots.
pub fn client_config(tls: &Tls) -> Result<Arc<ClientConfig>> {
    Ok(build(&Key::of(tls, false), &AllRoots::default())?.config)
}

/// See [`Tls::check_files`].
pub(super) fn check(tls: &Tls) -> Result<()> {
    if !tls.ca.is_empty() {
        roots(&tls.ca)?;
    }
    if let (Some(cert), Some(key)) = (&tls.client_cert, &tls.client_key) {
        identity(cert, key, &provider())?;
    }
    Ok(())
}

fn build(key: &Key, all: &AllRoots) -> Result<Built> {
    let stamps = stamps(key.files());
    let provider = provider();
    let versions: &[&rustls::SupportedProtocolVersion] = match key.version_min {
        TlsVersion::V1_2 => &[&rustls::version::TLS13, &rustls::version::TLS12],
        TlsVersion::V1_3 => &[&rustls::version::TLS13],
    };
    let internal = |e: &dyn std::fmt::Display| Error::new(ErrorKind::Internal, format!("TLS cannot be set up: {e}"));
    let roots = all.get(&key.ca)?;
    let usual = WebPkiServerVerifier::builder_with_provider(roots, provider.clone()).build();
    let usual = usual.map_err(|e| internal(&e))?;
    let builder = ClientConfig::builder_with_provider(provider.clone());
    let builder = builder.with_protocol_versions(versions).map_err(|e| internal(&e))?;
    let builder = match &key.pins[..] {
        [] => builder.with_webpki_verifier(usual),
        // Nothing of the usual verification is left out.
        pins => builder.dangerous().with_custom_certificate_verifier(Arc::new(Pinned { usual, pins: pins.to_vec() })),
    };
    let (mut config, client_ends) = match &key.client {
        None => (builder.with_no_client_auth(), None),
        Some((cert, private)) => {
            let (own, ends) = identity(cert, private, &provider)?;
            (builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(own))), ends)
        }
    };
    config.resumption = Resumption::in_memory_sessions(SERVERS_MAX);
    config.alpn_protocols = vec![HTTP1.to_vec()];
    let http1 = Arc::new(config.clone());
    if key.http2 {
        config.alpn_protocols.insert(0, H2.to_vec());
    }
    Ok(Built { config: Arc::new(config), http1, client_ends, stamps })
}

/// The configuration of all destinations with the same settings.
pub(crate) struct Shared {
    key: Key,
    roots: Arc<AllRoots>,
    present: ArcSwapOption<Built>,
    /// Held while a configuration is made: in how many looks that has failed.
    making: Mutex<u32>,
    /// Why the files cannot be used that there are now.
    trouble: Mutex<String>,
    /// By the names of endpoints: which certificate they have shown, and when it ends.
    servers: Mutex<BTreeMap<String, (u64, Option<i64>)>>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("key", &self.key).finish_non_exhaustive()
    }
}

impl Shared {
    /// The configuration, if it was made.
    pub(crate) fn present(&self) -> Option<Arc<Built>> {
        self.present.load_full()
    }

    /// The configuration, made if it was not. Blocks.
    ///
    /// # Errors
    /// As [`Tls::check_files`], and if the system has no roots.
    pub(crate) fn load(&self) -> Result<Arc<Built>> {
        let _making = self.making.lock();
        if let Some(present) = self.present() {
            return Ok(present);
        }
        match build(&self.key, &self.roots) {
            Ok(built) => {
                let built = Arc::new(built);
                self.present.store(Some(built.clone()));
                self.trouble.lock().clear();
                Ok(built)
            }
            Err(e) => {
                *self.trouble.lock() = e.to_string();
                Err(e)
            }
        }
    }

    /// Looks whether files have changed, and makes the configuration anew if so. Blocks.
    fn look(&self) {
        let Some(present) = self.present() else {
            // So that an end that is near shows before the first event.
            if self.key.client.is_some() {
                let _ = self.load();
            }
            return;
        };
        let mut failed = self.making.lock();
        let before = self.trouble();
        if !is_outdated(&present.stamps) {
            *failed = 0;
            self.trouble.lock().clear();
            return;
        }
        // One that has ended is no reason to give up one that may still be valid.
        let built = build(&self.key, &self.roots).and_then(|b| b.check_time(unix_now()).map(|()| b));
        match built {
            Ok(built) => {
                self.present.store(Some(Arc::new(built)));
                *failed = 0;
                self.trouble.lock().clear();
                let files: Vec<String> = self.key.files().map(|p| p.display().to_string()).collect();
                log::info!("new TLS connections use what changed in {}", files.join(", "));
            }
            Err(e) => {
                let text = e.to_string();
                *failed = if before == text { *failed + 1 } else { 1 };
                *self.trouble.lock() = text;
                // Of certificate and key one is replaced before the other.
                if *failed == 2 {
                    log::warn!("files of TLS have changed and cannot be used, what they were stays in use: {e}");
                }
            }
        }
    }

    /// Why the files as they are now cannot be used; empty if they can.
    pub(crate) fn trouble(&self) -> String {
        self.trouble.lock().clone()
    }

    /// When the client certificate ends, in seconds since the Unix epoch.
    pub(crate) fn client_ends(&self) -> Option<i64> {
        self.present().and_then(|built| built.client_ends)
    }

    /// When the certificate ends that an endpoint has shown last.
    pub(crate) fn server_ends(&self, name: &str) -> Option<i64> {
        self.servers.lock().get(name).and_then(|(_, ends)| *ends)
    }

    /// Remembers when the certificate ends that an endpoint shows.
    pub(crate) fn note_server(&self, name: &str, certificate: &CertificateDer<'_>) {
        let print = xxh3_64(certificate);
        let mut servers = self.servers.lock();
        if servers.get(name).is_some_and(|(known, _)| *known == print) {
            return;
        }
        if servers.len() >= SERVERS_MAX && !servers.contains_key(name) {
            servers.pop_first();
        }
        servers.insert(name.to_owned(), (print, certificate::ends(certificate)));
    }
}

#[derive(Default)]
struct State {
    all: HashMap<Key, Weak<Shared>>,
    thread: Option<JoinHandle<()>>,
    /// The thread is at the files.
    looking: bool,
    closed: bool,
}

struct Inner {
    state: Mutex<State>,
    ended: Condvar,
    cpus: Vec<usize>,
}

impl Inner {
    /// The thread's work.
    fn watch(&self) {
        let mut state = self.state.lock();
        loop {
            let next = Instant::now() + LOOK_EVERY;
            while !state.closed && Instant::now() < next {
                state = self.ended.wait_until(state, next);
            }
            if state.closed {
                return;
            }
            state.all.retain(|_, shared| shared.strong_count() > 0);
            let all: Vec<_> = state.all.values().filter_map(Weak::upgrade).collect();
            state.looking = true;
            drop(state);
            all.iter().for_each(|shared| shared.look());
            drop(all);
            state = self.state.lock();
            state.looking = false;
        }
    }
}

/// All configurations of an engine. See the module.
pub(crate) struct Keeper {
    roots: Arc<AllRoots>,
    inner: Arc<Inner>,
    fork: ForkGuard,
}

impl std::fmt::Debug for Keeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keeper")
    }
}

impl Keeper {
    /// To be called where no CPU is chosen for the calling thread.
    pub(crate) fn new() -> Keeper {
        let inner = Inner { state: Mutex::default(), ended: Condvar::default(), cpus: driver::usable_cpus() };
        Keeper { roots: Arc::default(), inner: Arc::new(inner), fork: ForkGuard::new(()) }
    }

    /// The configuration of these settings; nothing is read yet.
    pub(crate) fn get(&self, tls: &Tls, http2: bool) -> Arc<Shared> {
        let key = Key::of(tls, http2);
        let mut state = self.inner.state.lock();
        if let Some(shared) = state.all.get(&key).and_then(Weak::upgrade) {
            return shared;
        }
        let shared = Arc::new(Shared {
            key: key.clone(),
            roots: self.roots.clone(),
            present: ArcSwapOption::empty(),
            making: Mutex::default(),
            trouble: Mutex::default(),
            servers: Mutex::default(),
        });
        state.all.insert(key, Arc::downgrade(&shared));
        if state.thread.is_none() && !state.closed && driver::has_threads() {
            let inner = self.inner.clone();
            match driver::spawn_helper("tidewire-tls", STACK_BYTES, &self.inner.cpus, move || inner.watch()) {
                Ok(thread) => state.thread = Some(thread),
                Err(e) => log::error!("changed files of TLS are not noticed: {e}"),
            }
        }
        shared
    }

    /// Ends the thread. It is not waited for while it looks at files: their file system may not answer.
    pub(crate) fn close(&self) {
        let mut state = self.inner.state.lock();
        state.closed = true;
        let thread = state.thread.take().filter(|_| !state.looking);
        drop(state);
        self.inner.ended.notify_all();
        thread.map(JoinHandle::join);
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        // The thread is the parent's, and what it had locked stays so: in a forked child there is nothing to end.
        if self.fork.same_process() {
            self.close();
        }
    }
}
