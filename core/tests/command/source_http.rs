//! Ingest over HTTP: every kind of document, every refusal, and what happens when client or server stops halfway.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use tidewire::Engine;
use tidewire::config::{Config, HttpSource, Source};
use tidewire::source::http::{HttpIngest, HttpLimits};
use tidewire_receiver::{Behaviour, Receiver, check_per_key_order};

const WAIT: Duration = Duration::from_secs(120);

struct Setup {
    _dir: tempfile::TempDir,
    receiver: Receiver,
    engine: Engine,
    http: Option<HttpIngest>,
    addr: SocketAddr,
}

fn config(dir: &Path, url: &str, engine: &str) -> Config {
    let text = format!(
        r#"
        [engine]
        data_dir = "{}"
        event_types = ["acme:Scan:Done"]
        {engine}
        [[destination]]
        name = "hook"
        type = "webhook"
        url = "{url}"
        [[rule]]
        id = "all"
        bucket = "photos"
        events = ["s3:ObjectCreated:*", "s3:ObjectRemoved:*"]
        destinations = ["hook"]
        [[source]]
        type = "http"
        listen = "127.0.0.1:0"
        max_body = "64KiB"
        "#,
        dir.display()
    );
    Config::from_toml(&text, "test.toml", Path::new("/")).unwrap()
}

fn http_source(config: &Config) -> HttpSource {
    let Some(Source::Http(source)) = config.sources.first() else { panic!("no source") };
    source.clone()
}

fn setup_with(behaviour: Behaviour, engine: &str, limits: HttpLimits) -> Setup {
    let dir = tempfile::tempdir().unwrap();
    let receiver = Receiver::start("127.0.0.1:0".parse().unwrap(), behaviour).unwrap();
    let config = config(dir.path(), &receiver.url(), engine);
    let source = http_source(&config);
    let engine = Engine::open(config).unwrap();
    let http = HttpIngest::start_with(engine.clone(), &source, limits).unwrap();
    let addr = http.local_addr();
    Setup { _dir: dir, receiver, engine, http: Some(http), addr }
}

fn setup() -> Setup {
    setup_with(Behaviour::Ok204, "shards = 2", HttpLimits::default())
}

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn header(&self, name: &str) -> Option<String> {
        let lines = self.head.lines().filter_map(|line| line.split_once(':'));
        let mut values = lines.filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim().to_owned());
        values.next()
    }

    fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.body))
    }
}

/// Reads one answer.
fn answer(stream: &mut TcpStream) -> Answer {
    stream.set_read_timeout(Some(WAIT)).unwrap();
    let mut bytes = Vec::new();
    let mut byte = [0];
    while !bytes.ends_with(b"\r\n\r\n") {
        assert_eq!(stream.read(&mut byte).unwrap(), 1, "closed after {:?}", String::from_utf8_lossy(&bytes));
        bytes.push(byte[0]);
    }
    let head = String::from_utf8(bytes).unwrap().to_ascii_lowercase();
    let length = head.lines().find_map(|l| l.strip_prefix("content-length: ")).map_or(0, |n| n.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head, body: String::from_utf8(body).unwrap() }
}

fn send(stream: &mut TcpStream, method: &str, target: &str, headers: &[(&str, &str)], body: &str) {
    let mut text = format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n", body.len());
    for (name, value) in headers {
        text += &format!("{name}: {value}\r\n");
    }
    stream.write_all(format!("{text}\r\n{body}").as_bytes()).unwrap();
}

impl Setup {
    fn call(&self, method: &str, target: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let mut stream = TcpStream::connect(self.addr).unwrap();
        send(&mut stream, method, target, headers, body);
        answer(&mut stream)
    }

    fn post(&self, media: &str, body: &str) -> Answer {
        self.call("POST", "/v1/events", &[("Content-Type", media)], body)
    }

    /// Keys that arrived, in order, once everything is delivered.
    fn keys(&self) -> Vec<String> {
        self.engine.flush(WAIT).unwrap();
        self.receiver.records().into_iter().filter(|r| r.accepted).map(|r| r.key).collect()
    }
}

const RECORDS: &str = r#"{"Records":[
    {"eventName":"ObjectCreated:Put","s3":{"bucket":{"name":"photos"},"object":{"key":"a+b.jpg","size":3}}},
    {"eventName":"s3:ObjectRemoved:Delete","s3":{"bucket":{"name":"photos"},"object":{"key":"c%C3%A9"}}}]}"#;
const CLOUD: &str = r#"{"specversion":"1.0","id":"1","source":"x","type":"com.amazonaws.s3.ObjectCreated:Put",
    "subject":"cloud","data":{"bucket":"photos","key":"cloud"}}"#;

#[test]
fn every_kind_of_document_is_taken() {
    let s = setup();
    let taken = |a: Answer, accepted: u64| {
        assert_eq!(a.status, 200, "{}", a.body);
        assert_eq!(a.json(), serde_json::json!({"accepted": accepted, "no_match": 0}));
    };
    taken(s.post("application/json", RECORDS), 2);
    taken(s.post("application/cloudevents+json; charset=utf-8", CLOUD), 1);
    taken(s.post("application/cloudevents-batch+json", &format!("[{CLOUD},{CLOUD}]")), 2);
    let line = |key: &str| format!(r#"{{"type":"s3:ObjectCreated:Put","bucket":"photos","key":"{key}"}}"#);
    taken(s.post("application/x-ndjson", &format!("{}\n\n{}\n", line("l1"), line("l2"))), 2);
    taken(s.call("POST", "/", &[], &line("bare")), 1);
    let headers = [
        ("ce-specversion", "1.0"),
        ("ce-id", "1"),
        ("ce-source", "x"),
        ("ce-type", "com.amazonaws.s3.ObjectCreated:Put"),
        ("ce-subject", "binary%20k%C3%A9y"),
        ("Content-Type", "application/json"),
    ];
    taken(s.call("POST", "/v1/events", &headers, r#"{"bucket":"photos"}"#), 1);
    let a = s.post("application/json", r#"{"Service":"Amazon S3","Event":"s3:TestEvent","Bucket":"photos"}"#);
    taken(a, 0);
    let a = s.post("application/json", &line("x").replace("photos", "other"));
    assert_eq!(a.json(), serde_json::json!({"accepted": 0, "no_match": 1}));
    let mut keys = s.keys();
    keys.sort();
    assert_eq!(keys, ["a b.jpg", "bare", "binary kéy", "cloud", "cloud", "cloud", "cé", "l1", "l2"]);
}

#[test]
fn an_endpoint_confirms_with_the_token_that_it_was_sent() {
    let asked: std::sync::Arc<std::sync::Mutex<Option<String>>> = std::sync::Arc::default();
    let seen = asked.clone();
    let behaviour = Behaviour::decide(move |hit| {
        if let Some(callback) = hit.headers.get("webhook-request-callback").filter(|_| hit.body.is_empty()) {
            *seen.lock().unwrap() = Some(callback.to_str().unwrap().to_owned());
            return tidewire_receiver::Reply::status(200);
        }
        tidewire_receiver::Reply::status(204)
    });
    let dir = tempfile::tempdir().unwrap();
    let receiver = Receiver::start("127.0.0.1:0".parse().unwrap(), behaviour).unwrap();
    let verification = r#""
        verification = { method = "cloudevents", origin = "me.example", callback = "http://127.0.0.1/v1/confirm", rate = 90000 }
        idle = "4s"#;
    let config = config(dir.path(), &format!("{}{verification}", receiver.url()), "shards = 2");
    let source = http_source(&config);
    let engine = Engine::open(config).unwrap();
    let http = HttpIngest::start_with(engine.clone(), &source, HttpLimits::default()).unwrap();
    let addr = http.local_addr();
    let s = Setup { _dir: dir, receiver, engine, http: Some(http), addr };
    assert_eq!(s.post("application/json", RECORDS).status, 200);
    let deadline = std::time::Instant::now() + WAIT;
    let url = loop {
        if let Some(url) = asked.lock().unwrap().clone() {
            break url;
        }
        assert!(std::time::Instant::now() < deadline, "it is never asked");
        std::thread::sleep(std::time::Duration::from_millis(5));
    };
    let target = url.strip_prefix("http://127.0.0.1").unwrap();
    let state = || s.engine.destination_standing("hook").unwrap();
    for (method, target, status) in [
        ("PUT", target.to_owned(), 405),
        ("GET", "/v1/confirm".to_owned(), 400),
        ("GET", target.replace("destination=hook", "destination=other"), 404),
        ("GET", format!("{target}0"), 404),
    ] {
        assert_eq!(s.call(method, &target, &[], "").status, status, "{method} {target}");
    }
    assert_eq!(s.call("POST", target, &[("WebHook-Allowed-Rate", "some")], "").status, 400);
    assert_eq!(state().state.name(), "pending");
    assert_eq!(s.call("POST", target, &[("WebHook-Allowed-Rate", "60000")], "").status, 200);
    assert_eq!(s.keys().len(), 2);
    assert_eq!(state().endpoints[0].granted_per_minute, Some(60_000));
    assert_eq!(s.call("GET", target, &[], "").status, 404, "a token serves once");
}

#[test]
fn ack_levels_are_asked_for_by_query_or_header() {
    let s = setup();
    for (target, header) in [
        ("/v1/events?ack=memory", None),
        ("/v1/events?ack=written", Some("memory")),
        ("/v1/events", Some("written")),
        ("/v1/events", Some("synced")),
        ("/v1/events?ack=synced", None),
    ] {
        let mut headers = vec![("Content-Type", "application/json")];
        headers.extend(header.map(|level| ("Tidewire-Ack", level)));
        let a = s.call("POST", target, &headers, RECORDS);
        assert_eq!((a.status, a.json()["accepted"].as_u64()), (200, Some(2)), "{target} {header:?}");
    }
    for (target, header) in
        [("/v1/events?ack=disk", "memory"), ("/v1/events?akc=memory", "memory"), ("/v1/events", "1")]
    {
        let a = s.call("POST", target, &[("Content-Type", "application/json"), ("Tidewire-Ack", header)], RECORDS);
        assert_eq!(a.status, 400, "{target} {header}");
        assert!(a.json()["error"].as_str().unwrap().contains("ack"), "{}", a.body);
    }
    assert_eq!(s.keys().len(), 10);
}

#[test]
fn a_bad_document_publishes_nothing() {
    let s = setup();
    let good = r#"{"type":"s3:ObjectCreated:Put","bucket":"photos","key":"good"}"#;
    let big = format!(r#"{{"type":"s3:ObjectCreated:Put","bucket":"photos","key":"{}"}}"#, "k".repeat(1025));
    for (bad, says) in [
        ("{", "line 2"),
        (r#"{"type":"s3:ObjectCreated:Put","bukcet":"photos","key":"x"}"#, "did you mean `bucket`"),
        (r#"{"type":"acme:Scan:Doen","bucket":"photos","key":"x"}"#, "did you mean `acme:Scan:Done`"),
        (r#"{"type":"s3:ObjectCreatde:Put","bucket":"photos","key":"x"}"#, "did you mean"),
        (&big, "1025 bytes"),
    ] {
        let a = s.post("application/x-ndjson", &format!("{good}\n{bad}\n"));
        assert_eq!(a.status, 400, "{bad}: {}", a.body);
        let error = a.json()["error"].as_str().unwrap().to_owned();
        assert!(error.contains(says) && error.contains("line 2"), "{error}");
    }
    for bad in ["", "[]x", "null", "{\"Records\":[{}]}"] {
        assert_eq!(s.post("application/json", bad).status, 400, "{bad}");
    }
    let custom = r#"{"type":"acme:Scan:Done","bucket":"photos","key":"x"}"#;
    assert_eq!(s.post("application/json", custom).json(), serde_json::json!({"accepted": 0, "no_match": 1}));
    assert_eq!(s.keys(), Vec::<String>::new());
    assert_eq!(s.engine.stats().accepted, 0);
}

#[test]
fn sizes_methods_paths_and_media_types_are_checked() {
    let s = setup();
    let large = "x".repeat(64 * 1024 + 1);
    assert_eq!(s.post("application/json", &large).status, 413);
    // Without a length, only reading tells.
    let mut stream = TcpStream::connect(s.addr).unwrap();
    stream.write_all(b"POST /v1/events HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap();
    let _ = stream.write_all(format!("{:x}\r\n{large}\r\n0\r\n\r\n", large.len()).as_bytes());
    assert_eq!(answer(&mut stream).status, 413);

    let a = s.call("GET", "/v1/events", &[], "");
    assert_eq!(a.status, 405);
    assert!(a.head.contains("allow: post"), "{}", a.head);
    assert_eq!(s.call("PUT", "/", &[], "").status, 405);
    assert_eq!(s.call("POST", "/healthz", &[], "").status, 405);
    assert_eq!(s.call("POST", "/v2/events", &[], RECORDS).status, 404);
    for media in ["text/plain", "application/xml", "application/x-www-form-urlencoded"] {
        assert_eq!(s.post(media, RECORDS).status, 415, "{media}");
    }
    let encoded = [("Content-Type", "application/json"), ("Content-Encoding", "gzip")];
    assert_eq!(s.call("POST", "/", &encoded, RECORDS).status, 415);
    let page = [("Content-Type", "application/json"), ("Origin", "http://evil.example")];
    assert_eq!(s.call("POST", "/", &page, RECORDS).status, 403);
    assert_eq!(s.keys(), Vec::<String>::new());
}

#[test]
fn requests_of_one_connection_keep_their_order() {
    let s = setup();
    let mut stream = TcpStream::connect(s.addr).unwrap();
    for round in 0..20 {
        let lines: String = (0..10)
            .map(|i| {
                format!(
                    "{{\"type\":\"s3:ObjectCreated:Put\",\"bucket\":\"photos\",\"key\":\"k{}\",\"size\":{round}}}\n",
                    i % 5
                )
            })
            .collect();
        send(&mut stream, "POST", "/v1/events?ack=memory", &[("Content-Type", "application/x-ndjson")], &lines);
    }
    for _ in 0..20 {
        assert_eq!(answer(&mut stream).status, 200);
    }
    assert_eq!(s.keys().len(), 200);
    assert!(check_per_key_order(&s.receiver.records()).is_empty());
}

#[test]
fn slow_clients_are_cut_off_and_do_not_disturb_others() {
    let limits = HttpLimits {
        connections: 4,
        head_timeout: Duration::from_millis(300),
        body_timeout: Duration::from_millis(300),
        ..HttpLimits::default()
    };
    let s = setup_with(Behaviour::Ok204, "shards = 1", limits);
    let mut slow_head = TcpStream::connect(s.addr).unwrap();
    slow_head.write_all(b"POST /v1/events HTTP/1.1\r\nHost:").unwrap();
    let mut slow_body = TcpStream::connect(s.addr).unwrap();
    slow_body.write_all(b"POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{").unwrap();
    let _idle: Vec<_> = (0..6).map(|_| TcpStream::connect(s.addr).unwrap()).collect();
    let started = Instant::now();
    assert_eq!(s.post("application/json", RECORDS).status, 200);
    assert!(started.elapsed() < Duration::from_secs(5));
    assert_eq!(answer(&mut slow_body).status, 408);
    slow_head.set_read_timeout(Some(WAIT)).unwrap();
    let mut rest = Vec::new();
    let _ = slow_head.read_to_end(&mut rest);
    assert!(!rest.starts_with(b"HTTP/1.1 200"));
    assert_eq!(s.keys().len(), 2);
}

#[test]
fn statistics_and_health_are_told() {
    let mut s = setup();
    s.post("application/json", RECORDS);
    s.keys();
    let stats = s.call("GET", "/v1/stats", &[], "").json();
    for (name, value) in [("accepted", 2), ("delivered", 2), ("waiting", 0), ("shards", 2)] {
        assert_eq!(stats[name], value, "{name}: {stats}");
    }
    assert_eq!(stats["destinations"][0]["name"], "hook");
    assert_eq!(stats["latency_micros"]["count"], 2);
    assert!(stats["latency_micros"]["p99"].as_u64().unwrap() > 0);
    for (accept, media_type, end) in [
        ("*/*", "text/plain; version=0.0.4; charset=utf-8", ""),
        (
            "application/openmetrics-text;version=1.0.0",
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
            "# EOF\n",
        ),
    ] {
        let told = s.call("GET", "/metrics", &[("Accept", accept)], "");
        assert_eq!((told.status, told.header("content-type").as_deref()), (200, Some(media_type)));
        assert!(
            told.body.contains("\ntidewire_destination_delivered_total{destination=\"hook\"} 2\n"),
            "{}",
            told.body
        );
        assert!(told.body.ends_with(end));
    }
    assert_eq!(s.call("POST", "/metrics", &[], "").status, 405);
    assert_eq!(s.call("GET", "/healthz", &[], "").status, 200);

    s.engine.close(WAIT).unwrap();
    let a = s.call("GET", "/healthz", &[], "");
    assert_eq!(a.status, 503);
    assert!(a.json()["reasons"][0].as_str().unwrap().contains("closed"), "{}", a.body);
    let a = s.post("application/json", RECORDS);
    assert_eq!(a.status, 503);
    assert!(a.head.contains("retry-after: "), "{}", a.head);
    s.http.take().unwrap().stop(WAIT);
    assert!(TcpStream::connect(s.addr).is_err());
}

#[test]
fn stopping_lets_requests_in_flight_finish() {
    let mut s = setup();
    let clients: Vec<_> = (0..8)
        .map(|c| {
            let addr = s.addr;
            std::thread::spawn(move || {
                let (mut done, mut broken) = (0, 0);
                'work: for round in 0.. {
                    let Ok(mut stream) = TcpStream::connect(addr) else { break };
                    let _ = stream.set_read_timeout(Some(WAIT));
                    for i in 0..50 {
                        let line =
                            format!(r#"{{"type":"s3:ObjectCreated:Put","bucket":"photos","key":"{c}-{round}-{i}"}}"#);
                        let text =
                            format!("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{line}", line.len());
                        if stream.write_all(text.as_bytes()).is_err() {
                            break 'work;
                        }
                        let mut bytes = [0; 512];
                        match stream.read(&mut bytes) {
                            Ok(n) if n > 0 => {
                                assert!(bytes.starts_with(b"HTTP/1.1 200"), "{:?}", String::from_utf8_lossy(&bytes));
                                done += 1;
                                if String::from_utf8_lossy(&bytes[..n])
                                    .to_ascii_lowercase()
                                    .contains("connection: close")
                                {
                                    break 'work;
                                }
                            }
                            _ => {
                                broken += 1;
                                break 'work;
                            }
                        }
                    }
                }
                (done, broken)
            })
        })
        .collect();
    std::thread::sleep(Duration::from_millis(300));
    let started = Instant::now();
    s.http.take().unwrap().stop(WAIT);
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    let done: usize = clients.into_iter().map(|c| c.join().unwrap().0).sum();
    let arrived = s.keys().len();
    assert!(done > 0 && arrived >= done, "{done} answered, {arrived} arrived");
}

#[test]
fn stopping_does_not_wait_for_a_stuck_client_past_its_deadline() {
    let mut s = setup();
    let mut stuck = TcpStream::connect(s.addr).unwrap();
    stuck.write_all(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{").unwrap();
    std::thread::sleep(Duration::from_millis(100));
    let started = Instant::now();
    s.http.take().unwrap().stop(Duration::from_millis(300));
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
}
