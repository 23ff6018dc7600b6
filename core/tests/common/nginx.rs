//! nginx as an endpoint with TLS, and the certificates for it.
#![allow(dead_code)]

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose, date_time_ymd,
};
use tempfile::TempDir;

use crate::common::until;

/// An authority.
pub struct Ca(CertifiedIssuer<'static, KeyPair>);

impl Ca {
    pub fn new(name: &str) -> Ca {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Ca(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate of it and its key, for some names, valid for so long.
    pub fn leaf(&self, common_name: &str, names: &[&str], valid: Duration) -> (String, KeyPair) {
        let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, common_name);
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(1970, 1, 1) + now + valid;
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.0).unwrap().pem(), key)
    }
}

pub const YEAR: Duration = Duration::from_secs(365 * 86400);

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A program of the system, where Debian has it; without one the test counts as skipped.
pub fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut dirs = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    let found = dirs.find(|d| d.join(name).is_file()).map(|d| d.join(name));
    if found.is_none() {
        println!("SKIPPED: {name} is not installed");
    }
    found
}

/// A running nginx with everything of its own below one directory.
pub struct Nginx {
    pub dir: TempDir,
    pub port: u16,
    process: Child,
}

const CONFIG: &str = r#"
daemon off;
user root;
worker_processes 1;
pid nginx.pid;
events { worker_connections 512; }
http {
    log_format hook '$status|$ssl_session_reused|$server_protocol|$ssl_client_s_dn|$http_authorization|$ssl_server_name|$connection|$ssl_protocol|';
    access_log off;
    client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
    client_body_buffer_size 1m;
    client_max_body_size 1m;
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    server {
        listen 127.0.0.1:PORT ssl LISTEN;
        ssl_certificate leaf.pem;
        ssl_certificate_key leaf.key;
        EXTRA
        location / { access_log hook.log hook; proxy_pass UPSTREAM; }
    }
}
"#;

/// One line of its log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    pub status: String,
    pub resumed: bool,
    pub protocol: String,
    pub client: String,
    pub authorization: String,
    pub server_name: String,
    pub connection: String,
    pub tls: String,
}

impl Nginx {
    /// `listen` is what else stands in its `listen`, `extra` in its `server`; requests go to `upstream`. Clients must show
    /// certificates of the authorities in `clients`, if given. `None` if there is no nginx.
    pub fn start(
        leaf: (String, KeyPair),
        clients: Option<&str>,
        listen: &str,
        extra: &str,
        upstream: &str,
    ) -> Option<Nginx> {
        let path = program("nginx")?;
        let dir = tempfile::tempdir().unwrap();
        let port = free_port();
        let wanted = clients.map_or("", |_| "ssl_client_certificate clients.pem; ssl_verify_client on;");
        fs::write(dir.path().join("clients.pem"), clients.unwrap_or_default()).unwrap();
        let text = CONFIG
            .replace("PORT", &port.to_string())
            .replace("LISTEN", listen)
            .replace("EXTRA", &format!("{wanted} {extra}"))
            .replace("UPSTREAM", upstream);
        fs::write(dir.path().join("nginx.conf"), text).unwrap();
        write_pair(dir.path(), "leaf", &leaf);
        let mut command = Command::new(path);
        command.arg("-p").arg(dir.path()).args(["-c", "nginx.conf", "-e", "errors"]);
        // A group of its own: its workers are killed with it.
        let process = command.stdout(Stdio::null()).stderr(Stdio::null()).process_group(0).spawn().unwrap();
        let nginx = Nginx { dir, port, process };
        let errors = || fs::read_to_string(nginx.dir.path().join("errors")).unwrap_or_default();
        until("nginx is up", || {
            assert!(!errors().contains("[emerg]"), "{}", errors());
            TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        Some(nginx)
    }

    /// Has it read its files again; its old workers finish what they have.
    pub fn reload(&self) {
        // SAFETY: a signal to a child that was not waited for yet.
        unsafe { libc::kill(i32::try_from(self.process.id()).unwrap(), libc::SIGHUP) };
    }

    pub fn url(&self) -> String {
        format!("https://localhost:{}/hook", self.port)
    }

    pub fn lines(&self) -> Vec<Line> {
        let text = fs::read_to_string(self.dir.path().join("hook.log")).unwrap_or_default();
        let line = |text: &str| {
            let mut fields = text.split('|').map(str::to_owned);
            let mut next = || fields.next().unwrap_or_default();
            Line {
                status: next(),
                resumed: next() == "r",
                protocol: next(),
                client: next(),
                authorization: next(),
                server_name: next(),
                connection: next(),
                tls: next(),
            }
        };
        text.lines().map(line).collect()
    }

    pub fn errors(&self) -> String {
        fs::read_to_string(self.dir.path().join("errors")).unwrap_or_default()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let group = i32::try_from(self.process.id()).unwrap();
        // SAFETY: a signal to the group of a child that was not waited for yet.
        unsafe { libc::kill(-group, libc::SIGKILL) };
        let _ = self.process.wait();
    }
}

/// Replaces a file as careful people do.
pub fn replace(path: &Path, text: &str) {
    let scratch = path.with_extension("new");
    fs::write(&scratch, text).unwrap();
    fs::rename(scratch, path).unwrap();
}

/// `NAME.pem` and `NAME.key`.
pub fn write_pair(dir: &Path, name: &str, (certificate, key): &(String, KeyPair)) {
    replace(&dir.join(format!("{name}.pem")), certificate);
    replace(&dir.join(format!("{name}.key")), &key.serialize_pem());
}
