//! The receiver, spoken to over plain sockets.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tidewire_receiver::{
    Behaviour, Receiver, Reply, Settings, Tls, check_per_key_order, duplicates, missing, read_log,
};
use tokio_rustls::rustls::{self, ClientConfig, ClientConnection, RootCertStore, StreamOwned};

fn local() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

fn record(id: &str, key: &str, sequencer: &str) -> String {
    format!(
        r#"{{"eventId":"{id}","eventName":"ObjectCreated:Put","s3":{{"bucket":{{"name":"b"}},"object":{{"key":"{key}","sequencer":"{sequencer}"}}}}}}"#
    )
}

fn request(records: &[String]) -> Vec<u8> {
    let body = format!(r#"{{"Records":[{}]}}"#, records.join(","));
    format!("POST /hook HTTP/1.1\r\nHost: h\r\nwebhook-id: w\r\nContent-Length: {}\r\n\r\n{body}", body.len())
        .into_bytes()
}

/// The head of the next answer, or what came of it.
fn answer(stream: &mut impl Read) -> String {
    let mut text = Vec::new();
    let mut byte = [0];
    while !text.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|n| n == 1) {
        text.push(byte[0]);
    }
    String::from_utf8(text).expect("ASCII")
}

fn connect(addr: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(addr).expect("a connection");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
    stream
}

fn status(stream: &mut (impl Read + Write), records: &[String]) -> Option<u16> {
    stream.write_all(&request(records)).ok()?;
    answer(stream).get(9..12)?.parse().ok()
}

#[test]
fn remembers_what_came() {
    let receiver = Receiver::start(local(), Behaviour::Ok204).expect("a receiver");
    let mut stream = connect(receiver.addr());
    assert_eq!(status(&mut stream, &[record("1", "a+b", "01"), record("2", "c", "02")]), Some(204));
    assert_eq!(status(&mut stream, &[record("3", "c", "03")]), Some(204));
    assert!(receiver.wait_for(3, Duration::ZERO) && !receiver.wait_for(4, Duration::from_millis(10)));
    let records = receiver.records();
    assert_eq!(records.iter().map(|r| r.key.as_str()).collect::<Vec<_>>(), ["a b", "c", "c"]);
    assert!(records.iter().all(|r| r.accepted && r.bucket == "b" && r.event_name == "ObjectCreated:Put"));
    assert_eq!(records.iter().map(|r| r.request).collect::<Vec<_>>(), [1, 1, 2]);
    assert_eq!((receiver.requests(), receiver.connections(), receiver.unreadable()), (2, 1, 0));
    let last = receiver.last_request().expect("a request");
    assert_eq!((last.method.as_str(), last.target.as_str()), ("POST", "/hook"));
    assert!(last.headers.contains_key("webhook-id") && last.body.starts_with(b"{\"Records\""));
    assert_eq!(check_per_key_order(&records), []);
    assert_eq!(duplicates(&records), []);
    assert_eq!(missing(&records, ["1", "2", "3", "4"]), ["4"]);

    let mut stream = connect(receiver.addr());
    stream.write_all(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n[]").expect("sent");
    assert!(answer(&mut stream).starts_with("HTTP/1.1 204"));
    assert_eq!((receiver.unreadable(), receiver.connections()), (1, 2));
}

#[test]
fn answers_as_told() {
    let receiver = Receiver::start(local(), Behaviour::FailFirst(2, 503)).expect("a receiver");
    let mut stream = connect(receiver.addr());
    let one = [record("1", "k", "01")];
    let mut next = || status(&mut stream, &one);
    assert_eq!([next(), next(), next()], [Some(503), Some(503), Some(204)]);
    receiver.set_behaviour(Behaviour::Status(410));
    assert_eq!(next(), Some(410));
    receiver.set_behaviour(Behaviour::Script(vec![Reply::status(400), Reply::status(200)]));
    assert_eq!([next(), next(), next()], [Some(400), Some(200), Some(204)]);
    receiver.set_behaviour(Behaviour::decide(|hit| {
        Reply::status(if hit.records.iter().any(|r| r.key == "k") { 500 } else { 204 })
    }));
    assert_eq!(next(), Some(500));
    let accepted: Vec<bool> = receiver.records().iter().map(|r| r.accepted).collect();
    assert_eq!(accepted, [false, false, true, false, false, true, true, false]);

    receiver.set_behaviour(Behaviour::RetryAfter(1, 429, "7".into()));
    stream.write_all(&request(&one)).expect("sent");
    let head = answer(&mut stream).to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 429") && head.contains("retry-after: 7\r\n"), "{head}");

    receiver.set_behaviour(Behaviour::Delay(Duration::from_millis(50)));
    let start = Instant::now();
    assert_eq!(status(&mut stream, &one), Some(204));
    assert!(start.elapsed() >= Duration::from_millis(50));

    receiver.set_behaviour(Behaviour::CloseBeforeResponse(1));
    assert_eq!(status(&mut stream, &one), None);
    assert_eq!(status(&mut connect(receiver.addr()), &one), Some(204));
}

#[test]
fn stops_and_starts_again() {
    let mut receiver = Receiver::start(local(), Behaviour::Ok204).expect("a receiver");
    let mut stream = connect(receiver.addr());
    assert_eq!(status(&mut stream, &[record("1", "k", "01")]), Some(204));
    receiver.stop();
    receiver.stop();
    assert_eq!(status(&mut stream, &[record("2", "k", "02")]), None);
    assert!(TcpStream::connect(receiver.addr()).is_err());
    receiver.restart().expect("the same port");
    assert_eq!(status(&mut connect(receiver.addr()), &[record("2", "k", "02")]), Some(204));
    assert_eq!((receiver.accepted(), receiver.connections()), (2, 2));
}

#[test]
fn speaks_tls() {
    let key = rcgen::KeyPair::generate().expect("a key");
    let leaf = rcgen::CertificateParams::new(vec!["localhost".into()]).expect("parameters").self_signed(&key);
    let leaf = leaf.expect("a certificate");
    let tls = Tls { certificates: leaf.pem(), key: key.serialize_pem(), client_ca: None };
    let receiver = Receiver::with(Settings { tls: Some(tls), ..Settings::default() }).expect("a receiver");
    assert!(receiver.url().starts_with("https://"));

    let client = |roots: RootCertStore| {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.expect("versions").with_root_certificates(roots).with_no_client_auth();
        let name = "localhost".try_into().expect("a name");
        let connection = ClientConnection::new(Arc::new(config), name).expect("a client");
        StreamOwned::new(connection, connect(receiver.addr()))
    };
    let mut roots = RootCertStore::empty();
    roots.add(leaf.der().clone()).expect("a root");
    assert_eq!(status(&mut client(roots), &[record("1", "k", "01")]), Some(204));
    assert_eq!(status(&mut client(RootCertStore::empty()), &[record("2", "k", "02")]), None);
    // The failed handshake is counted when the receiver reads the alert.
    let deadline = Instant::now() + Duration::from_secs(5);
    while receiver.failed_handshakes() == 0 && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!((receiver.failed_handshakes(), receiver.accepted()), (1, 1));

    let broken = Tls { certificates: leaf.pem(), key: "none".into(), client_ca: None };
    assert!(Receiver::with(Settings { tls: Some(broken), ..Settings::default() }).is_err());
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_log_outlives_a_kill() {
    let directory = tempfile::tempdir().expect("a directory");
    let log = directory.path().join("log");
    for round in 0..3 {
        let command = Command::new(env!("CARGO_BIN_EXE_tidewire-receiver"))
            .args(["--listen", "127.0.0.1:0", "--log"])
            .arg(&log)
            .stdout(Stdio::piped())
            .spawn();
        let mut child = Killed(command.expect("a process"));
        let mut line = String::new();
        BufReader::new(child.0.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
        let addr = line.trim().strip_prefix("listening on ").expect("the address").parse().expect("an address");
        let mut stream = connect(addr);
        let records = [record(&format!("{round}-a"), "x+y z", "01"), record(&format!("{round}-b"), "", "")];
        assert_eq!(status(&mut stream, &records), Some(204));
    }
    let lines = read_log(&log).expect("a log");
    assert_eq!(
        lines.iter().map(|l| l.event_id.as_str()).collect::<Vec<_>>(),
        ["0-a", "0-b", "1-a", "1-b", "2-a", "2-b"]
    );
    assert_eq!((lines[0].key.as_str(), lines[0].sequencer.as_str()), ("x y z", "01"));
    assert_eq!(lines[1].sequencer, "");

    std::fs::write(&log, "1 k 01 7\n2 k 02 7").expect("written");
    let lines = read_log(&log).expect("a log");
    assert_eq!((lines.len(), lines[0].size), (1, Some(7)));
    std::fs::write(&log, "1 k 01\n").expect("written");
    assert!(read_log(&log).is_err());
    let usage = Command::new(env!("CARGO_BIN_EXE_tidewire-receiver")).output().expect("a process");
    assert_eq!(usage.status.code(), Some(2));
}

#[test]
fn the_command_is_hostile_for_some_turns_and_tells_what_it_can_do() {
    let directory = tempfile::tempdir().expect("a directory");
    let authority = directory.path().join("authority.pem");
    let run = |more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidewire-receiver"));
        command.args(["--listen", "127.0.0.1:0", "--hostile"]).args(more);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = Killed(command.spawn().expect("a process"));
        let mut line = String::new();
        BufReader::new(child.0.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
        (child, line.trim().strip_prefix("listening on ").map(|a| a.parse().expect("an address")))
    };
    let (_child, address) = run(&["half-response", "--turns", "1"]);
    let mut stream = connect(address.expect("it listens"));
    stream.write_all(&request(&[record("1", "k", "")])).expect("sent");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("half of an answer");
    assert!(text.starts_with("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n") && text.len() < 80, "{text}");
    assert_eq!(status(&mut connect(address.expect("it listens")), &[record("2", "k", "")]), Some(204));

    let (_child, address) = run(&["other-name", "--authority", authority.to_str().expect("a path")]);
    assert!(address.is_some() && std::fs::read_to_string(&authority).expect("written").contains("BEGIN CERTIFICATE"));
    for wrong in [&["no-such-trick"][..], &["other-name"]] {
        let (mut child, address) = run(wrong);
        let mut told = String::new();
        child.0.stderr.take().expect("piped").read_to_string(&mut told).expect("text");
        assert!(address.is_none() && told.contains("retry-after-date"), "{told}");
    }
}
