//! Forward proxies: which destinations go through one, and how it is asked. Pure.
//!
//! For `https` the proxy is asked for a tunnel (`CONNECT`), and TLS is spoken with the endpoint through it; for `http` it is
//! given the request with the whole URL. The proxy is the operator's, and so is the hop to it. What a name means is then the
//! proxy's to find out, and which addresses it connects to are its to judge: the policy of addresses sees literals only.

use std::fmt;
use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use httparse::{EMPTY_HEADER, Status};
use ipnet::IpNet;
use url::{Host, Url};

use crate::error::{Error, Result};
use crate::net::address::parse_net;

/// The most bytes of a proxy's answer to `CONNECT`.
const ANSWER_BYTES_MAX: usize = 16 * 1024;
const CREDENTIAL_BYTES_MAX: usize = 1024;

/// A forward proxy. Its `Debug` form leaves the password out.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    host: Host<String>,
    port: u16,
    credentials: Option<(String, String)>,
}

impl Proxy {
    /// A proxy by its URL: `http://host[:port]`, the port 80 if it is not given.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidConfig`] if the URL is anything else. No error quotes it: it may hold a password.
    pub fn new(url: &str) -> Result<Proxy> {
        let bad = |what: &str, remedy: &str| Err(Error::invalid_config(what).at("proxy.url").remedy(remedy));
        let form = "write it as http://host:port";
        let Ok(parsed) = Url::parse(url) else { return bad("the proxy's URL is malformed", form) };
        if parsed.scheme() != "http" {
            return bad("the proxy's URL is not http; it is spoken to in plain HTTP, whatever goes through it", form);
        }
        if !parsed.username().is_empty() || parsed.password().is_some() {
            return bad("the proxy's URL has a user or a password in it", "give them as proxy.user and proxy.password");
        }
        if parsed.path() != "/" || parsed.query().is_some() || parsed.fragment().is_some() {
            return bad("the proxy's URL has more than host and port", form);
        }
        match parsed.host() {
            Some(host) if !matches!(host, Host::Domain("")) && parsed.port() != Some(0) => {
                Ok(Proxy { host: host.to_owned(), port: parsed.port().unwrap_or(80), credentials: None })
            }
            _ => bad("the proxy's URL has no host or no port", form),
        }
    }

    /// The same with a user and a password (Basic).
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidConfig`] if the user has a colon, or one of both a control character.
    pub fn with_credentials(mut self, user: &str, password: &str) -> Result<Proxy> {
        let legal = |t: &str| t.len() <= CREDENTIAL_BYTES_MAX && !t.bytes().any(|b| b.is_ascii_control());
        if user.is_empty() || user.contains(':') || !legal(user) {
            return Err(Error::invalid_config(
                "the proxy's user is empty, too long, or has a colon or a control character",
            )
            .at("proxy.user")
            .remedy("write the user without its password"));
        }
        if !legal(password) {
            return Err(Error::invalid_config("the proxy's password is too long or has a control character")
                .at("proxy.password")
                .remedy("is there a line break at its end?"));
        }
        self.credentials = Some((user.to_owned(), password.to_owned()));
        Ok(self)
    }

    /// Its host.
    pub fn host(&self) -> &Host<String> {
        &self.host
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its URL, without user and password.
    pub fn url(&self) -> String {
        format!("http://{}:{}", self.host, self.port)
    }

    /// User and password.
    pub(crate) fn credentials(&self) -> Option<(&str, &str)> {
        self.credentials.as_ref().map(|(user, password)| (user.as_str(), password.as_str()))
    }

    /// The value of `Proxy-Authorization`.
    pub(crate) fn authorization(&self) -> Option<String> {
        self.credentials().map(|(user, password)| format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))))
    }

    /// The request for a tunnel.
    pub(crate) fn connect_head(&self, host: &Host<String>, port: u16) -> Vec<u8> {
        let mut head = format!("CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n");
        if let Some(value) = self.authorization() {
            head.push_str("Proxy-Authorization: ");
            head.push_str(&value);
            head.push_str("\r\n");
        }
        head.push_str("\r\n");
        head.into_bytes()
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy")
            .field("url", &self.url())
            .field("user", &self.credentials().map(|(user, _)| user))
            .finish_non_exhaustive()
    }
}

/// Whether the bytes that a proxy has sent so far are its answer to `CONNECT`: `false` if more are needed.
///
/// # Errors
/// If the proxy refuses, or this is no answer.
pub(crate) fn tunnel_is_open(answer: &[u8]) -> std::result::Result<bool, String> {
    let mut rest = answer;
    loop {
        let mut headers = [EMPTY_HEADER; 64];
        let mut response = httparse::Response::new(&mut headers);
        match response.parse(rest) {
            Ok(Status::Partial) if answer.len() < ANSWER_BYTES_MAX => return Ok(false),
            Ok(Status::Complete(end)) => match response.code.unwrap_or(0) {
                100..=199 => rest = &rest[end..],
                200..=299 if end == rest.len() => return Ok(true),
                200..=299 => return Err("the proxy sent something before the endpoint could".into()),
                407 => return Err("the proxy wants a user and a password: set proxy.user and proxy.password".into()),
                code => return Err(format!("the proxy answered {code} when it was asked for a tunnel")),
            },
            _ => return Err("the proxy's answer is not HTTP".into()),
        }
    }
}

/// Hosts that are reached without the proxy of the engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoProxy {
    /// Every one.
    All,
    /// A name, and all names below it.
    Name(String),
    /// Literal addresses in a range.
    Net(IpNet),
}

impl NoProxy {
    /// Reads `*`, a name (`example.com`, `.example.com`), an address or a range.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidConfig`] if it is none of these.
    pub fn parse(text: &str) -> Result<NoProxy> {
        if text == "*" {
            return Ok(NoProxy::All);
        }
        if text.contains('/') || text.parse::<IpAddr>().is_ok() {
            return parse_net(text).map(NoProxy::Net);
        }
        let name = text.strip_prefix("*.").or_else(|| text.strip_prefix('.')).unwrap_or(text);
        match Host::parse(name) {
            Ok(Host::Domain(name)) => Ok(NoProxy::Name(name.trim_end_matches('.').to_owned())),
            _ => Err(Error::invalid_config(format!("`{}` is no host, no range and not `*`", text.escape_debug()))
                .remedy("write a name without port, such as `.internal.example`, or a range such as 10.0.0.0/8")),
        }
    }

    /// Whether it holds a host.
    pub fn holds(&self, host: &Host<String>) -> bool {
        match (self, host) {
            (NoProxy::All, _) => true,
            (NoProxy::Name(name), Host::Domain(host)) => {
                let host = host.trim_end_matches('.');
                host.strip_suffix(name.as_str()).is_some_and(|before| before.is_empty() || before.ends_with('.'))
            }
            (NoProxy::Net(net), Host::Ipv4(ip)) => net.contains(&IpAddr::V4(*ip)),
            (NoProxy::Net(net), Host::Ipv6(ip)) => net.contains(&ip.to_canonical()),
            _ => false,
        }
    }
}

impl fmt::Display for NoProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NoProxy::All => f.write_str("*"),
            NoProxy::Name(name) => f.write_str(name),
            NoProxy::Net(net) => write!(f, "{net}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_by_url() {
        let proxy = Proxy::new("http://proxy.example:3128").unwrap();
        assert_eq!((proxy.url().as_str(), proxy.port()), ("http://proxy.example:3128", 3128));
        assert_eq!(Proxy::new("http://[::1]/").unwrap().url(), "http://[::1]:80");
        for bad in [
            "proxy.example:3128",
            "https://proxy.example",
            "socks5://proxy.example",
            "http://u:hunter2@proxy.example",
            "http://proxy.example/hunter2",
            "http://proxy.example?hunter2",
            "http://:80",
            "http://proxy.example:0",
            "",
        ] {
            let e = Proxy::new(bad).expect_err(bad);
            assert!(e.place() == Some("proxy.url") && e.remedy_text().is_some(), "{e}");
            assert!(!e.to_string().contains("hunter2"), "{e}");
        }
    }

    #[test]
    fn credentials_are_sent_and_not_shown() {
        let proxy = Proxy::new("http://p.example:8080").unwrap().with_credentials("Aladdin", "open sesame").unwrap();
        let head = String::from_utf8(proxy.connect_head(&Host::parse("[::1]").unwrap(), 443)).unwrap();
        assert_eq!(
            head,
            "CONNECT [::1]:443 HTTP/1.1\r\nHost: [::1]:443\r\nProxy-Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n\r\n"
        );
        assert!(!format!("{proxy:?}").contains("sesame"));
        for (user, password, place) in
            [("", "x", "proxy.user"), ("a:b", "x", "proxy.user"), ("a", "hunter2\n", "proxy.password")]
        {
            let e = Proxy::new("http://p.example").unwrap().with_credentials(user, password).unwrap_err();
            assert!(e.place() == Some(place) && !e.to_string().contains("hunter2"), "{e}");
        }
    }

    #[test]
    fn answers_to_connect() {
        for (answer, expected) in [
            ("", Ok(false)),
            ("HTTP/1.1 200 Connection established\r\n", Ok(false)),
            ("HTTP/1.1 200 Connection established\r\nVia: x\r\n\r\n", Ok(true)),
            ("HTTP/1.0 200 OK\r\n\r\n", Ok(true)),
            ("HTTP/1.1 100 Continue\r\n\r\n", Ok(false)),
            ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", Ok(true)),
            ("HTTP/1.1 200 OK\r\n\r\nx", Err("before the endpoint")),
            ("HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", Err("proxy.user")),
            ("HTTP/1.1 403 Forbidden\r\nContent-Length: 3\r\n\r\nno!", Err("403")),
            ("HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1/\r\n\r\n", Err("302")),
            ("SSH-2.0-x\r\n", Err("not HTTP")),
        ] {
            match (tunnel_is_open(answer.as_bytes()), expected) {
                (Ok(open), Ok(expected)) => assert_eq!(open, expected, "{answer}"),
                (Err(e), Err(part)) => assert!(e.contains(part), "{answer}: {e}"),
                (got, _) => panic!("{answer}: {got:?}"),
            }
        }
        let endless = format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(ANSWER_BYTES_MAX));
        assert!(tunnel_is_open(endless.as_bytes()).is_err());
        let cut = "HTTP/1.1 200 OK\r\nX: y\r\n\r\n";
        (0..cut.len()).for_each(|n| assert_eq!(tunnel_is_open(&cut.as_bytes()[..n]), Ok(false)));
    }

    #[test]
    fn hosts_without_a_proxy() {
        let holds = |text: &str, host: &str| NoProxy::parse(text).unwrap().holds(&Host::parse(host).unwrap());
        for (text, host) in [
            ("*", "a.example"),
            ("example.com", "example.com"),
            ("example.com", "a.example.com"),
            (".example.com", "EXAMPLE.com."),
            ("*.example.com", "a.b.example.com"),
            ("10.0.0.0/8", "10.1.2.3"),
            ("10.1.2.3", "[::ffff:10.1.2.3]"),
            ("fd00::/8", "[fd00::1]"),
        ] {
            assert!(holds(text, host), "{text} {host}");
        }
        for (text, host) in [
            ("example.com", "badexample.com"),
            ("a.example.com", "example.com"),
            ("10.0.0.0/8", "11.0.0.1"),
            ("10.0.0.0/8", "ten.example"),
            ("example.com", "10.1.2.3"),
        ] {
            assert!(!holds(text, host), "{text} {host}");
        }
        for bad in ["", "a b", "http://x", "10.0.0.0/40", "x:80"] {
            assert!(NoProxy::parse(bad).unwrap_err().remedy_text().is_some(), "{bad}");
        }
    }
}
