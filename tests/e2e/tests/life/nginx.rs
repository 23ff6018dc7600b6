//! Delivery to nginx: plain, over TLS, and through one that is killed and comes back.

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, KeyUsagePurpose};
use tempfile::TempDir;
use tidewire::{Ack, Engine};
use tidewire_e2e::{
    config, engine, free_port, keys, publish, receiver, rules, skip, tls_hook, wait_for_stats, wait_until,
};
use tidewire_receiver::{Behaviour, check_per_key_order, parse_body};

const PATIENCE: Duration = Duration::from_secs(20);
/// The configuration; the words in capitals are replaced.
const CONFIG: &str = include_str!("../../../nginx/nginx.conf");

/// A running nginx with everything of its own below one directory.
struct Nginx {
    dir: TempDir,
    port: u16,
    tls: bool,
    process: Option<Child>,
}

impl Nginx {
    /// `None`, and the test is counted as skipped, if there is no nginx. `upstream` answers the requests; nginx itself
    /// does if there is none.
    fn start(upstream: Option<&str>, tls: Option<(String, String)>) -> Option<Nginx> {
        if program().is_none() {
            skip("nginx is not installed");
            return None;
        }
        let dir = tempfile::tempdir().expect("a directory");
        let (port, inner) = (free_port(), free_port());
        let listen = if tls.is_some() { format!("{port} ssl") } else { port.to_string() };
        let inner_url = format!("http://127.0.0.1:{inner}/");
        let text = CONFIG
            .replace("LISTEN", &listen)
            .replace("INNER", &inner.to_string())
            .replace("UPSTREAM", upstream.unwrap_or(&inner_url))
            .replace("TLS;", if tls.is_some() { "ssl_certificate tls.pem; ssl_certificate_key tls.key;" } else { "" });
        if let Some((certificate, key)) = &tls {
            fs::write(dir.path().join("tls.pem"), certificate).expect("written");
            fs::write(dir.path().join("tls.key"), key).expect("written");
        }
        fs::write(dir.path().join("nginx.conf"), text).expect("written");
        let mut nginx = Nginx { dir, port, tls: tls.is_some(), process: None };
        nginx.run();
        Some(nginx)
    }

    fn run(&mut self) {
        let path = program().expect("nginx");
        let errors = self.dir.path().join("errors");
        let mut command = Command::new(path);
        command.arg("-p").arg(self.dir.path()).args(["-c", "nginx.conf", "-e", "errors"]);
        // A group of its own: its workers are killed with it.
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).process_group(0).spawn();
        self.process = Some(child.expect("nginx"));
        let up = wait_until(PATIENCE, || TcpStream::connect(("127.0.0.1", self.port)).is_ok());
        assert!(up, "nginx: {}", fs::read_to_string(errors).unwrap_or_default());
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.process.take() {
            let group = i32::try_from(child.id()).expect("a process id");
            // SAFETY: a signal to the group of a child that was not waited for yet.
            unsafe { libc::kill(-group, libc::SIGKILL) };
            let _ = child.wait();
        }
    }

    fn url(&self) -> String {
        format!("{}://127.0.0.1:{}/hook", if self.tls { "https" } else { "http" }, self.port)
    }

    /// Status and body of each request so far.
    fn requests(&self) -> Vec<(String, String)> {
        let text = fs::read_to_string(self.dir.path().join("hook.log")).unwrap_or_default();
        text.lines().filter_map(|l| l.split_once(' ')).map(|(s, b)| (s.to_owned(), b.to_owned())).collect()
    }

    /// Waits until the log has so many different events, all with status 204, and returns how many requests they took.
    fn check_events(&self, count: usize) -> usize {
        let ids = || {
            let mut ids = BTreeSet::new();
            for (status, body) in self.requests() {
                assert_eq!(status, "204");
                ids.extend(parse_body(body.as_bytes(), None, 0).expect("records").into_iter().map(|r| r.event_id));
            }
            ids.len()
        };
        assert!(wait_until(PATIENCE, || ids() >= count), "{} of {count} events", ids());
        assert_eq!(ids(), count);
        self.requests().len()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        self.kill();
    }
}

fn program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    dirs.map(|d| d.join("nginx")).find(|p| p.is_file())
}

#[test]
fn nginx_takes_every_event() {
    let Some(nginx) = Nginx::start(None, None) else { return };
    let dir = tempfile::tempdir().expect("a directory");
    let engine = engine(dir.path(), &nginx.url()).expect("an engine");
    publish(&engine, &keys("dir/a key with é & %/", 50), 0, 10, Ack::Memory).expect("published");
    engine.flush(PATIENCE).expect("flushed");
    let requests = nginx.check_events(500);
    let stats = engine.stats();
    println!("500 events in {requests} requests over {} connections", stats.destinations[0].connections);
    assert!(requests < 500, "there were batches");
    assert_eq!((stats.delivered, stats.destinations[0].failures), (500, 0));
    engine.close(PATIENCE).expect("closed");
}

/// An authority, and a certificate of it for 127.0.0.1 with its key.
fn authority(name: &str) -> (String, (String, String)) {
    let mut params = CertificateParams::new(Vec::new()).expect("parameters");
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority");
    let leaf = CertificateParams::new(vec!["127.0.0.1".to_owned(), "localhost".to_owned()]).expect("parameters");
    let key = KeyPair::generate().expect("a key");
    let certificate = leaf.signed_by(&key, &ca).expect("a certificate");
    (ca.pem(), (certificate.pem(), key.serialize_pem()))
}

#[test]
fn tls_with_the_wrong_authority_waits_and_with_the_right_one_delivers() {
    let (right, leaf) = authority("right");
    let (wrong, _) = authority("wrong");
    let Some(nginx) = Nginx::start(None, Some(leaf)) else { return };
    let dir = tempfile::tempdir().expect("a directory");
    let file = |name: &str, pem: &str| {
        let path = dir.path().join(name);
        fs::write(&path, pem).expect("written");
        path
    };
    let (right, wrong) = (file("right.pem", &right), file("wrong.pem", &wrong));
    let with = |ca: &Path| rules(vec![tls_hook("hook", &nginx.url(), ca)]);
    let engine = Engine::open_with(config(&dir.path().join("data"), 2), with(&wrong)).expect("an engine");
    publish(&engine, &keys("key", 50), 0, 10, Ack::Synced).expect("published");
    wait_for_stats(&engine, "retried", |s| {
        s.destinations.iter().any(|d| d.failures >= 3 && d.retried > 0 && d.waiting == 500)
    });
    let stats = engine.stats();
    let d = &stats.destinations[0];
    assert_eq!((d.delivered, d.dead_lettered, d.waiting), (0, 0, 500));
    println!("{}", d.last_error);
    assert!(d.last_error.contains("UnknownIssuer") || d.last_error.contains("issuer"), "{}", d.last_error);
    assert!(nginx.requests().is_empty());

    engine.replace_rules(with(&right)).expect("new rules");
    engine.flush(PATIENCE).expect("flushed");
    let requests = nginx.check_events(500);
    println!("500 events in {requests} requests");
    engine.close(PATIENCE).expect("closed");
}

#[test]
fn nothing_is_lost_when_nginx_is_killed_and_comes_back() {
    // nginx writes its log after it has answered; what stands behind it tells what has arrived.
    let behind = receiver(Behaviour::Ok204);
    let Some(mut nginx) = Nginx::start(Some(&behind.url()), None) else { return };
    let dir = tempfile::tempdir().expect("a directory");
    let engine = engine(dir.path(), &nginx.url()).expect("an engine");
    let keys = keys("key", 50);
    for round in 0..6 {
        publish(&engine, &keys, round * 20, 10, Ack::Memory).expect("published");
        // Some of this round has arrived, some is on its way, some is still to come.
        assert!(behind.wait_for(usize::try_from(round).expect("small") * 1000 + 100, PATIENCE));
        nginx.kill();
        publish(&engine, &keys, round * 20 + 10, 10, Ack::Memory).expect("published");
        std::thread::sleep(Duration::from_millis(50));
        nginx.run();
        engine.flush(PATIENCE).expect("flushed");
    }
    let records = behind.records();
    let repeats = records.len() - behind.accepted();
    println!(
        "{} events, {repeats} repeats, {} failed requests",
        behind.accepted(),
        engine.stats().destinations[0].failures
    );
    assert_eq!(behind.accepted(), 6000);
    assert_eq!(check_per_key_order(&records), []);
    engine.close(PATIENCE).expect("closed");
}
