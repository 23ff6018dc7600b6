//! The engine's HTTP codec and TLS settings against a server that is not its own.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use bytes::BytesMut;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tidewire::net::http::{RequestHead, Response, ResponseParser, RetryAfter, State};
use tidewire::net::tls::{self, client_config, explain, server_name};
use tidewire_receiver::{Behaviour, Receiver, Reply, Settings, Tls};
use tokio_rustls::rustls::{ClientConnection, StreamOwned};
use url::Url;

const BODY: &[u8] = br#"{"Records":[{"eventId":"1","s3":{"bucket":{"name":"b"},"object":{"key":"k"}}}]}"#;

fn exchange(stream: &mut (impl Read + Write), head: &RequestHead) -> io::Result<Response> {
    let mut out = BytesMut::new();
    head.write(&[("webhook-id", "w")], BODY.len() as u64, &mut out).expect("a head");
    out.extend_from_slice(BODY);
    stream.write_all(&out)?;
    let mut parser = ResponseParser::new();
    let mut input = [0; 7];
    loop {
        let n = stream.read(&mut input)?;
        let state = if n == 0 { parser.eof() } else { parser.feed(&input[..n]).map(|p| p.state) };
        if state.map_err(io::Error::other)? != State::NeedMore {
            return Ok(parser.take_response().expect("an answer"));
        }
    }
}

fn connect(receiver: &Receiver) -> TcpStream {
    let stream = TcpStream::connect(receiver.addr()).expect("a connection");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
    stream
}

fn head(receiver: &Receiver) -> RequestHead {
    let url = Url::parse(&receiver.url()).expect("a URL").join("/hook?a=b").expect("a URL");
    RequestHead::post(&url, "application/json", &[("X-Tenant", "t")]).expect("a head")
}

#[test]
fn one_connection_carries_many_requests() {
    let script = vec![
        Reply::status(204),
        Reply { body: vec![b'x'; 5000], ..Reply::status(500) },
        Reply::status(429).header("Retry-After", "9"),
        Reply::status(302).header("Location", "https://elsewhere.example/"),
    ];
    let receiver = Receiver::start("127.0.0.1:0".parse().expect("an address"), Behaviour::Script(script));
    let receiver = receiver.expect("a receiver");
    let (mut stream, head) = (connect(&receiver), head(&receiver));
    let mut answers = Vec::new();
    for _ in 0..5 {
        answers.push(exchange(&mut stream, &head).expect("an answer"));
    }
    assert_eq!(answers.iter().map(|a| a.status).collect::<Vec<_>>(), [204, 500, 429, 302, 204]);
    assert!(answers.iter().all(|a| a.keep_alive && a.bytes_after == 0));
    assert_eq!(answers[1].body_start, vec![b'x'; 4096]);
    assert_eq!(answers[2].retry_after, Some(RetryAfter::Seconds(9)));
    assert_eq!(answers[3].location.as_deref(), Some("https://elsewhere.example/"));
    assert_eq!((receiver.connections(), receiver.requests(), receiver.unreadable()), (1, 5, 0));
    let last = receiver.last_request().expect("a request");
    assert_eq!((last.target.as_str(), &last.body[..]), ("/hook?a=b", BODY));
    assert_eq!(last.headers["host"].to_str().expect("ASCII"), receiver.addr().to_string());
    assert_eq!(
        (&last.headers["x-tenant"], &last.headers["webhook-id"]),
        (&"t".parse().expect("a value"), &"w".parse().expect("a value"))
    );
}

#[test]
fn a_closed_connection_is_told_from_a_cut_answer() {
    let receiver = Receiver::start("127.0.0.1:0".parse().expect("an address"), Behaviour::CloseBeforeResponse(1));
    let receiver = receiver.expect("a receiver");
    let error = exchange(&mut connect(&receiver), &head(&receiver)).expect_err("closed");
    assert!(error.to_string().contains("without an answer"), "{error}");
    assert_eq!(exchange(&mut connect(&receiver), &head(&receiver)).expect("an answer").status, 204);
}

#[test]
fn mutual_tls() {
    let mut params = CertificateParams::new(Vec::new()).expect("parameters");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority");
    let issue = || {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("parameters");
        (params.signed_by(&key, &ca).expect("a leaf").pem(), key.serialize_pem())
    };
    let (certificates, key) = issue();
    let tls = Some(Tls { certificates, key, client_ca: Some(ca.pem()) });
    let receiver = Receiver::with(Settings { tls, ..Settings::default() }).expect("a receiver");

    let directory = tempfile::tempdir().expect("a directory");
    let path = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).expect("written");
        path
    };
    let (certificates, key) = issue();
    let mut nobody = tls::Tls::default();
    nobody.ca = vec![path("ca.pem", &ca.pem())];
    let mut own = nobody.clone();
    (own.client_cert, own.client_key) = (Some(path("own.pem", &certificates)), Some(path("own.key", &key)));
    let call = |tls: &tls::Tls| {
        let config = client_config(tls).expect("a configuration");
        let name = server_name("127.0.0.1").expect("a name");
        let connection = ClientConnection::new(config, name).expect("a client");
        exchange(&mut StreamOwned::new(connection, connect(&receiver)), &head(&receiver))
    };
    assert_eq!(call(&own).expect("an answer").status, 204);
    let error = explain("127.0.0.1", &call(&nobody).expect_err("no certificate"));
    assert!(error.to_string().contains("client certificate"), "{error}");
}
