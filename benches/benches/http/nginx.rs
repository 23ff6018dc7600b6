//! An nginx that answers every request with 204, plain and under TLS, by one worker on the CPU of servers.

use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use super::{SERVER, free_address, pin};

/// Ended when dropped.
pub(super) struct Nginx {
    process: Child,
    pub(super) tls: SocketAddr,
    pub(super) ca: PathBuf,
    _dir: tempfile::TempDir,
}

/// None if there is no nginx.
pub(super) fn start(plain: SocketAddr) -> Option<Nginx> {
    let program = ["/usr/sbin/nginx", "/usr/bin/nginx", "/usr/local/sbin/nginx"].into_iter().map(PathBuf::from);
    let program = program.into_iter().find(|p| p.is_file())?;
    let dir = tempfile::tempdir().expect("a directory");
    let tls = free_address();
    let ca = certificates(&dir);
    let text = format!(
        "daemon off; user root; worker_processes 1; pid nginx.pid; error_log errors warn;
         events {{ worker_connections 1024; }}
         http {{
           access_log off; keepalive_requests 1000000000; keepalive_timeout 3600s; client_max_body_size 10m;
           client_body_buffer_size 1m; client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
           uwsgi_temp_path uwsgi; scgi_temp_path scgi;
           server {{ listen {plain}; return 204; }}
           server {{ listen {tls} ssl; ssl_certificate leaf.pem; ssl_certificate_key leaf.key; return 204; }}
         }}"
    );
    std::fs::write(dir.path().join("nginx.conf"), text).expect("written");
    let mut command = Command::new(program);
    command.arg("-p").arg(dir.path()).args(["-c", "nginx.conf", "-e", "errors"]).stdin(Stdio::null());
    // SAFETY: the closure makes one system call, and ends with this process at the latest.
    unsafe {
        command.pre_exec(|| {
            pin(SERVER);
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            Ok(())
        });
    }
    let process = command.spawn().expect("nginx");
    let nginx = Nginx { process, tls, ca, _dir: dir };
    let end = Instant::now() + Duration::from_secs(30);
    while TcpStream::connect(plain).is_err() {
        assert!(Instant::now() < end, "nginx does not start");
        std::thread::sleep(Duration::from_millis(20));
    }
    Some(nginx)
}

fn certificates(dir: &tempfile::TempDir) -> PathBuf {
    let mut authority = CertificateParams::new(Vec::<String>::new()).expect("no names");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().expect("a key")).expect("signed");
    let key = KeyPair::generate().expect("a key");
    let leaf = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
    let leaf = leaf.signed_by(&key, &authority).expect("signed");
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).expect("written");
    write("ca.pem", &authority.pem());
    write("leaf.pem", &leaf.pem());
    write("leaf.key", &key.serialize_pem());
    dir.path().join("ca.pem")
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // SAFETY: the process is ours and was not waited for yet.
        unsafe { libc::kill(self.process.id() as libc::pid_t, libc::SIGTERM) };
        let _ = self.process.wait();
    }
}
