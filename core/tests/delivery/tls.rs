//! TLS with nginx: client certificates, sessions, names, pins, and certificates that are replaced or end.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use crate::common::{WAIT, config, hook, passing, put, receiver, until};
use crate::nginx::{Ca, Line, Nginx, YEAR, replace, write_pair};
use rcgen::PublicKeyData;
use tidewire::auth::{Auth, Bearer, Secret};
use tidewire::config::Config;
use tidewire::rule::{Backlog, Destination, DestinationKind, Expect, Pin, TlsVersion, Webhook};
use tidewire::{DestinationStats, Engine, test_destination};
use tidewire_receiver::Behaviour;

const DAY: Duration = Duration::from_secs(86400);

fn of(engine: &Engine, name: &str) -> DestinationStats {
    engine.stats().destinations.into_iter().find(|d| d.name == name).unwrap()
}

fn edited(name: &str, url: &str, with: impl FnOnce(&mut Webhook)) -> Destination {
    let mut d = hook(name, url);
    d.breaker.consecutive_failures = 1_000_000;
    match &mut d.kind {
        DestinationKind::Webhook(w) => with(w),
        _ => unreachable!(),
    }
    d
}

fn file(dir: &Path, name: &str, text: &str) -> PathBuf {
    let path = dir.join(name);
    fs::write(&path, text).unwrap();
    path
}

/// An nginx that wants client certificates of `clients`, with a certificate of `ca`.
fn strict(ca: &Ca, clients: &str, extra: &str, upstream: &str) -> Option<Nginx> {
    let extra = format!("ssl_session_cache shared:s:1m; {extra}");
    Nginx::start(ca.leaf("server", &["localhost"], YEAR), Some(clients), "", &extra, upstream)
}

fn unix() -> i64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() as i64
}

/// What nginx answers without one it trusts is 400, as if the events were at fault.
#[test]
fn without_a_client_certificate_events_wait_and_with_one_they_arrive() {
    let (ca, clients, dir) = (Ca::new("servers"), Ca::new("clients"), tempfile::tempdir().unwrap());
    let r = receiver(Behaviour::Ok204);
    let Some(nginx) = strict(&ca, &clients.pem(), "", &r.url()) else { return };
    let root = file(dir.path(), "ca.pem", &ca.pem());
    write_pair(dir.path(), "own", &clients.leaf("client-1", &[], YEAR));
    write_pair(dir.path(), "stranger", &Ca::new("strangers").leaf("stranger", &[], YEAR));
    let with = |name: &str, pair: Option<&str>| {
        edited(name, &nginx.url(), |w| {
            w.tls.ca = vec![root.clone()];
            w.tls.client_cert = pair.map(|p| dir.path().join(format!("{p}.pem")));
            w.tls.client_key = pair.map(|p| dir.path().join(format!("{p}.key")));
        })
    };
    let hooks = vec![with("known", Some("own")), with("nobody", None), with("stranger", Some("stranger"))];
    let engine = Engine::open_with(config(&dir.path().join("data"), 2), passing(hooks)).unwrap();
    (0..200).for_each(|n| put(&engine, &format!("k{}", n % 20), n));
    until("those of the known one arrive", || of(&engine, "known").delivered == 200);
    for name in ["nobody", "stranger"] {
        until("the others have tried", || of(&engine, name).failures >= 4);
        let d = of(&engine, name);
        assert_eq!((d.delivered, d.dead_lettered, d.waiting), (0, 0, 200), "{}", d.last_error);
    }
    assert_eq!(of(&engine, "known").failures, 0, "{}", of(&engine, "known").last_error);
    assert!(nginx.lines().iter().any(|l| l.client == "CN=client-1" && l.status == "204"));
    engine.close(Duration::ZERO).unwrap();
}

#[test]
fn sessions_are_resumed_by_connections_of_all_shards() {
    let (ca, clients, dir) = (Ca::new("servers"), Ca::new("clients"), tempfile::tempdir().unwrap());
    let r = receiver(Behaviour::Ok204);
    write_pair(dir.path(), "own", &clients.leaf("client-1", &[], YEAR));
    let root = file(dir.path(), "ca.pem", &ca.pem());
    for version in ["TLSv1.2", "TLSv1.3"] {
        let Some(nginx) = strict(&ca, &clients.pem(), &format!("ssl_protocols {version};"), &r.url()) else { return };
        let mut d = edited("hook", &nginx.url(), |w| {
            w.tls.ca = vec![root.clone()];
            w.tls.client_cert = Some(dir.path().join("own.pem"));
            w.tls.client_key = Some(dir.path().join("own.key"));
            w.pool.requests_max = 1;
        });
        d.batch.events_max = 1;
        d.concurrency = 2;
        let engine = Engine::open_with(config(&dir.path().join(version), 2), passing(vec![d])).unwrap();
        (0..200).for_each(|n| put(&engine, &format!("k{n}"), n));
        engine.flush(WAIT).unwrap();
        until("nginx has logged all", || nginx.lines().len() == 200);
        let lines = nginx.lines();
        let resumed = lines.iter().filter(|l| l.resumed).count();
        println!("{version}: {resumed} of {} handshakes were resumed", lines.len());
        // The first ones of each shard cannot be.
        assert!(resumed >= 150, "{version}: {resumed}");
        assert!(lines.iter().all(|l| l.client == "CN=client-1" && l.tls == version), "{lines:?}");
        assert_eq!(of(&engine, "hook").failures, 0);
        engine.close(WAIT).unwrap();
    }
}

/// minio#20722: certificates are read once, and a new one takes a restart.
#[test]
fn certificates_and_secrets_are_rotated_under_load_without_a_failed_attempt() {
    let (old_ca, new_ca, clients) = (Ca::new("old servers"), Ca::new("new servers"), Ca::new("clients"));
    let dir = tempfile::tempdir().unwrap();
    let r = receiver(Behaviour::Ok204);
    let Some(nginx) = strict(&old_ca, &clients.pem(), "keepalive_requests 50;", &r.url()) else { return };
    let ca = file(dir.path(), "ca.pem", &old_ca.pem());
    let token = file(dir.path(), "token", "token-0");
    write_pair(dir.path(), "own", &clients.leaf("client-0", &[], YEAR));
    let mut d = edited("hook", &nginx.url(), |w| {
        w.tls.ca = vec![ca.clone()];
        w.tls.client_cert = Some(dir.path().join("own.pem"));
        w.tls.client_key = Some(dir.path().join("own.key"));
        w.auth = vec![Auth::Bearer(Bearer::new(Secret::file(&token)))];
        w.pool.lifetime = Duration::from_millis(100);
    });
    d.batch.events_max = 4;
    d.concurrency = 16;
    let engine = Engine::open_with(config(&dir.path().join("data"), 2), passing(vec![d])).unwrap();
    let (stop, count) = (AtomicBool::new(false), AtomicU64::new(0));
    let seen = |what: &str, is: &dyn Fn(&Line) -> bool| {
        until(what, || nginx.lines().iter().rev().take(50).any(|l| is(l) && l.status == "204"));
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let n = count.fetch_add(1, Ordering::Relaxed);
                put(&engine, &format!("k{}", n % 64), n);
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            seen("the first ones are used", &|l| l.client == "CN=client-0" && l.authorization == "Bearer token-0");
            for i in 1..=3 {
                let pair = clients.leaf(&format!("client-{i}"), &[], YEAR);
                replace(&dir.path().join("own.pem"), &pair.0);
                // For longer than between two looks certificate and key do not fit each other.
                std::thread::sleep(Duration::from_millis(1200));
                replace(&dir.path().join("own.key"), &pair.1.serialize_pem());
                replace(&token, &format!("token-{i}"));
                seen("the new certificate is used", &|l| l.client == format!("CN=client-{i}"));
                seen("the new secret is used", &|l| l.authorization == format!("Bearer token-{i}"));
            }
            // What is broken is not used, and told.
            replace(&dir.path().join("own.key"), "-----BEGIN PRIVATE KEY-----\n");
            let trouble = || engine.destination_standing("hook").unwrap().certificates.trouble;
            until("the broken key is told", || trouble().contains("own.key"));
            let lines = nginx.lines().len();
            until("more was sent", || nginx.lines().len() > lines + 50);
            seen("with the certificate of before", &|l| l.client == "CN=client-3");
            write_pair(dir.path(), "own", &clients.leaf("client-4", &[], YEAR));
            seen("the repaired one is used", &|l| l.client == "CN=client-4");
            until("there is no trouble", || trouble().is_empty());

            // The server's: a new certificate of the same authority, then one of another.
            write_pair(nginx.dir.path(), "leaf", &old_ca.leaf("server-2", &["localhost"], 30 * DAY));
            nginx.reload();
            let expires = |days: i64| {
                until("the new one was seen", || {
                    let ends = of(&engine, "hook").certificates.server_expires;
                    ends.is_some_and(|ends| (ends - unix() - days * 86400).abs() < 3600)
                });
            };
            expires(30);
            replace(&ca, &format!("{}{}", old_ca.pem(), new_ca.pem()));
            std::thread::sleep(Duration::from_millis(2500));
            write_pair(nginx.dir.path(), "leaf", &new_ca.leaf("server-3", &["localhost"], 60 * DAY));
            nginx.reload();
            expires(60);
            replace(&ca, &new_ca.pem());
            std::thread::sleep(Duration::from_millis(2500));
            let lines = nginx.lines().len();
            until("more was sent", || nginx.lines().len() > lines + 50);
        }));
        stop.store(true, Ordering::Relaxed);
        if let Err(panic) = ended {
            println!("{}\n{}", of(&engine, "hook").last_error, nginx.errors());
            std::panic::resume_unwind(panic);
        }
    });
    engine.flush(WAIT).unwrap();
    let (d, count) = (of(&engine, "hook"), count.load(Ordering::Relaxed));
    println!("{count} events in {} requests on {} connections", d.requests, d.connections);
    assert_eq!((d.delivered, d.failures, d.retried, d.dead_lettered), (count, 0, 0, 0), "{}", d.last_error);
    assert_eq!(r.records().len() as u64, count);
    engine.close(WAIT).unwrap();
}

/// Neither are the events at fault then, nor is anything sent without it.
#[test]
fn a_client_certificate_that_expires_holds_events_until_it_is_renewed() {
    let (ca, clients, dir) = (Ca::new("servers"), Ca::new("clients"), tempfile::tempdir().unwrap());
    let r = receiver(Behaviour::Ok204);
    let Some(nginx) = strict(&ca, &clients.pem(), "", &r.url()) else { return };
    write_pair(dir.path(), "own", &clients.leaf("client-1", &[], Duration::from_secs(4)));
    let root = file(dir.path(), "ca.pem", &ca.pem());
    let mut d = edited("hook", &nginx.url(), |w| {
        w.tls.ca = vec![root.clone()];
        w.tls.client_cert = Some(dir.path().join("own.pem"));
        w.tls.client_key = Some(dir.path().join("own.key"));
        w.pool.lifetime = Duration::from_millis(50);
    });
    (d.breaker.consecutive_failures, d.breaker.calls_min) = (1_000_000, 1_000_000);
    let engine = Engine::open_with(config(&dir.path().join("data"), 1), passing(vec![d])).unwrap();
    let mut n = 0;
    until("it has expired", || {
        put(&engine, &format!("k{}", n % 5), n);
        n += 1;
        of(&engine, "hook").last_error.contains("expired")
    });
    let told = of(&engine, "hook").last_error;
    assert!(told.contains("tls.client_cert") && told.contains("renew"), "{told}");
    let failures = of(&engine, "hook").failures;
    // A connection that was made before still takes some.
    until("it was tried more often", || {
        put(&engine, &format!("k{}", n % 5), n);
        n += 1;
        of(&engine, "hook").failures > failures + 4
    });
    assert!(nginx.lines().iter().all(|l| l.status == "204"), "{:?}", nginx.lines());
    assert_eq!(of(&engine, "hook").dead_lettered, 0);
    write_pair(dir.path(), "own", &clients.leaf("client-2", &[], YEAR));
    engine.flush(WAIT).unwrap();
    assert_eq!(of(&engine, "hook").delivered, n);
    engine.close(WAIT).unwrap();
}

#[test]
fn when_certificates_expire_is_told_beforehand_and_kept() {
    let (ca, clients, dir) = (Ca::new("servers"), Ca::new("clients"), tempfile::tempdir().unwrap());
    let r = receiver(Behaviour::Ok204);
    let leaf = ca.leaf("server", &["localhost"], 5 * DAY);
    let Some(nginx) = Nginx::start(leaf, Some(&clients.pem()), "", "", &r.url()) else { return };
    write_pair(dir.path(), "own", &clients.leaf("client-1", &[], 9 * DAY));
    let root = file(dir.path(), "ca.pem", &ca.pem());
    let d = edited("hook", &nginx.url(), |w| {
        w.tls.ca = vec![root];
        w.tls.client_cert = Some(dir.path().join("own.pem"));
        w.tls.client_key = Some(dir.path().join("own.key"));
    });
    let data = dir.path().join("data");
    let engine = Engine::open_with(config(&data, 1), passing(vec![d.clone()])).unwrap();
    let in_days = |unix_s: Option<i64>, days: i64| unix_s.is_some_and(|s| (s - unix() - days * 86400).abs() < 600);
    // Before the first event.
    until("our own is known", || in_days(engine.destination_standing("hook").unwrap().certificates.client_expires, 9));
    put(&engine, "k", 0);
    engine.flush(WAIT).unwrap();
    assert!(in_days(of(&engine, "hook").certificates.server_expires, 5));
    let kept = || tidewire::log::standing::read(&data, "hook").unwrap().unwrap_or_default().certificates;
    until("it is kept", || in_days(kept().server_expires, 5) && in_days(kept().client_expires, 9));
    engine.close(WAIT).unwrap();
    drop(engine);
    let report = test_destination(&d, &config(&data, 1)).unwrap();
    assert_eq!(report.failure, None);
    let steps: Vec<&str> = report.steps.iter().map(|s| s.what.as_str()).collect();
    assert!(
        steps.iter().any(|s| s.contains("TLS is agreed on TLSv1_") && s.contains("the certificate expires")),
        "{steps:?}"
    );
}

#[test]
fn the_name_that_is_asked_for_and_verified_can_be_another_one() {
    let (ca, dir) = (Ca::new("servers"), tempfile::tempdir().unwrap());
    let r = receiver(Behaviour::Ok204);
    let Some(nginx) = Nginx::start(ca.leaf("server", &["inner.example"], YEAR), None, "", "", &r.url()) else { return };
    let root = file(dir.path(), "ca.pem", &ca.pem());
    let with = |name: &str, server_name: Option<&str>| {
        edited(name, &nginx.url(), |w| {
            w.tls.ca = vec![root.clone()];
            w.tls.server_name = server_name.map(str::to_owned);
        })
    };
    let hooks = vec![with("right", Some("inner.example")), with("wrong", Some("other.example")), with("host", None)];
    let engine = Engine::open_with(config(&dir.path().join("data"), 1), passing(hooks)).unwrap();
    put(&engine, "k", 0);
    until("the right one has it", || of(&engine, "right").delivered == 1);
    for name in ["wrong", "host"] {
        until("the others are told", || of(&engine, name).last_error.contains("certificate"));
        assert_eq!(of(&engine, name).delivered, 0);
    }
    until("it is logged", || !nginx.lines().is_empty());
    assert!(nginx.lines().iter().all(|l| l.server_name == "inner.example"), "{:?}", nginx.lines());
    engine.close(Duration::ZERO).unwrap();
}

#[test]
fn a_pinned_key_must_be_the_endpoints() {
    let (ca, dir) = (Ca::new("servers"), tempfile::tempdir().unwrap());
    let r = receiver(Behaviour::Ok204);
    let leaf = ca.leaf("server", &["localhost"], YEAR);
    let digest = ring::digest::digest(&ring::digest::SHA256, &leaf.1.subject_public_key_info());
    let pin = Pin(digest.as_ref().try_into().unwrap());
    let Some(nginx) = Nginx::start(leaf, None, "", "", &r.url()) else { return };
    let (root, other) = (file(dir.path(), "ca.pem", &ca.pem()), file(dir.path(), "other.pem", &Ca::new("o").pem()));
    let with = |name: &str, pins: Vec<Pin>, root: &Path| {
        edited(name, &nginx.url(), |w| {
            w.tls.ca = vec![root.to_owned()];
            w.tls.pins = pins;
        })
    };
    let hooks = vec![
        with("right", vec![Pin([1; 32]), pin], &root),
        with("wrong", vec![Pin([1; 32])], &root),
        // A pin takes the place of nothing.
        with("untrusted", vec![pin], &other),
    ];
    let engine = Engine::open_with(config(&dir.path().join("data"), 1), passing(hooks)).unwrap();
    put(&engine, "k", 0);
    until("the right one has it", || of(&engine, "right").delivered == 1);
    until("it is told", || of(&engine, "wrong").last_error.contains(&pin.to_string()));
    assert!(of(&engine, "wrong").last_error.contains("tls.pins"), "{}", of(&engine, "wrong").last_error);
    until("it is told", || of(&engine, "untrusted").last_error.contains("CA file"));
    engine.close(Duration::ZERO).unwrap();
}

#[test]
fn an_endpoint_without_the_wanted_version_is_refused() {
    let (ca, dir) = (Ca::new("servers"), tempfile::tempdir().unwrap());
    let r = receiver(Behaviour::Ok204);
    let leaf = ca.leaf("server", &["localhost"], YEAR);
    let Some(nginx) = Nginx::start(leaf, None, "", "ssl_protocols TLSv1.2;", &r.url()) else { return };
    let root = file(dir.path(), "ca.pem", &ca.pem());
    let with = |name: &str, version| {
        edited(name, &nginx.url(), |w| {
            w.tls.ca = vec![root.clone()];
            w.tls.version_min = version;
        })
    };
    let hooks = vec![with("old", TlsVersion::V1_2), with("new", TlsVersion::V1_3)];
    let engine = Engine::open_with(config(&dir.path().join("data"), 1), passing(hooks)).unwrap();
    put(&engine, "k", 0);
    until("the old one has it", || of(&engine, "old").delivered == 1);
    until("the new one is told why", || of(&engine, "new").last_error.contains("tls.version_min"));
    engine.close(Duration::ZERO).unwrap();
}

/// Each with the line, the key, the file and what to do.
#[test]
fn files_that_cannot_be_used_are_refused_when_they_are_loaded() {
    let (clients, dir) = (Ca::new("clients"), tempfile::tempdir().unwrap());
    let d = dir.path();
    write_pair(d, "own", &clients.leaf("client-1", &[], YEAR));
    write_pair(d, "other", &clients.leaf("client-2", &[], YEAR));
    let mut expired = clients.leaf("client-3", &[], Duration::ZERO);
    let params = {
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.not_after = rcgen::date_time_ymd(2021, 2, 3);
        params
    };
    expired.0 = params.self_signed(&expired.1).unwrap().pem();
    write_pair(d, "expired", &expired);
    file(d, "empty.pem", "");
    file(d, "locked.key", "-----BEGIN ENCRYPTED PRIVATE KEY-----\naHVudGVyMg==\n-----END ENCRYPTED PRIVATE KEY-----\n");
    file(d, "ca.pem", &clients.pem());
    let load = |tls: &str| {
        let text = format!(
            "[engine]\ndata_dir = \"data\"\n[[destination]]\nname = \"hook\"\ntype = \"webhook\"\n\
             url = \"https://example.com/h\"\ntls = {{ {tls} }}\n"
        );
        Config::from_file(&file(d, "t.toml", &text))
    };
    let pair = |cert: &str, key: &str| format!("client_cert = \"{cert}\", client_key = \"{key}\"");
    for (tls, parts) in [
        (pair("gone.pem", "own.key"), ["tls.client_cert", "gone.pem", "there is no such file"]),
        (pair("own.pem", "gone.key"), ["tls.client_key", "gone.key", "there is no such file"]),
        (
            pair("own.pem", "other.key"),
            ["tls.client_key", "other.key", "give the key that the certificate was issued for"],
        ),
        (pair("empty.pem", "own.key"), ["tls.client_cert", "empty.pem", "holds no certificate"]),
        (pair("own.key", "own.key"), ["tls.client_cert", "own.key", "it holds a private key"]),
        (pair("own.pem", "own.pem"), ["tls.client_key", "own.pem", "holds no private key"]),
        (pair("own.pem", "locked.key"), ["tls.client_key", "locked.key", "decrypt it"]),
        ("client_cert = \"own.pem\"".into(), ["tls.client_cert", "without its key", "add `client_key`"]),
        ("client_key = \"own.key\"".into(), ["tls.client_key", "without its certificate", "add `client_cert`"]),
        ("ca = [\"ca.pem\", \"empty.pem\"]".into(), ["tls.ca", "empty.pem", "holds no certificate"]),
        ("ca = []".into(), ["tls.ca", "no file of authorities", "leave `ca` out"]),
        ("pins = [\"sha256//x\"]".into(), ["tls: pins", "no pin of a public key", "openssl"]),
        ("version_min = \"1.1\"".into(), ["tls: version_min", "`1.1`", "write \"1.2\" or \"1.3\""]),
        ("server_name = \"a b\"".into(), ["tls.server_name", "a b", "the name that the endpoint's certificate holds"]),
        ("client_certs = \"own.pem\"".into(), ["client_certs", "destination `hook`", "client_cert"]),
    ] {
        let error = load(&tls).map(drop).expect_err(&tls).to_string();
        println!("{error}");
        assert!(error.contains("t.toml:7:") && error.contains("destination `hook`"), "{error}");
        assert!(parts.iter().all(|p| error.contains(p)), "{error}, not {parts:?}");
    }
    // One tenant's certificate that ran out overnight keeps no server from starting; what is put anew is another matter.
    let loaded = load(&pair("expired.pem", "expired.key")).unwrap();
    let engine = Engine::open_with(loaded.engine, loaded.rules.clone()).unwrap();
    until("it is told", || engine.destination_standing("hook").unwrap().certificates.client_expires.is_some());
    let mut put = (*loaded.rules.destinations[0]).clone();
    put.name = "put".into();
    let e = engine.put_destination(put, Expect::Absent, &Backlog::Keep).unwrap_err().to_string();
    assert!(["put", "tls.client_cert", "expired on 2021-02-03", "renew it"].iter().all(|p| e.contains(p)), "{e}");
    engine.close(WAIT).unwrap();
    let loaded = load(&format!("ca = [\"ca.pem\"], version_min = \"1.3\", {}", pair("own.pem", "own.key"))).unwrap();
    let DestinationKind::Webhook(w) = &loaded.rules.destinations[0].kind else { unreachable!() };
    assert_eq!((w.tls.client_cert.clone(), w.tls.version_min), (Some(d.join("own.pem")), TlsVersion::V1_3));
}
