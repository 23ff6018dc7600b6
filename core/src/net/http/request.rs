//! The head of a request: built once for a destination, rendered for each attempt.

use std::fmt;

use bytes::BytesMut;
use url::Url;

use crate::error::{Error, ErrorKind, Result};

/// The most bytes of a rendered request head. Common servers refuse beyond 8 to 16 KiB.
pub const REQUEST_HEAD_BYTES_MAX: usize = 16 * 1024;

/// The methods that destinations ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Method {
    Post,
    Put,
    Patch,
    Delete,
    Get,
    Options,
}

impl Method {
    /// The method as written in the request line.
    pub fn as_str(self) -> &'static str {
        match self {
            Method::Post => "POST",
            Method::Put => "PUT",
            Method::Patch => "PATCH",
            Method::Delete => "DELETE",
            Method::Get => "GET",
            Method::Options => "OPTIONS",
        }
    }
}

/// A request head without what changes between attempts (RFC 9112, 3 and 5).
///
/// The body always goes with a `Content-Length`, never chunked and never after an `Expect`: receivers exist that
/// mishandle either. No line break can enter: names and values are checked here and in [`RequestHead::write`].
#[derive(Clone)]
pub struct RequestHead {
    method: Method,
    /// What stands before the target where a proxy is asked; else empty.
    origin: String,
    authority: String,
    target: String,
    content_type: String,
    /// What follows the target.
    template: BytesMut,
    /// The fields of the template but for `Host` and `Accept-Encoding`.
    fields: Vec<(String, String)>,
}

impl RequestHead {
    /// A `POST` to `url`; otherwise as [`RequestHead::new`].
    ///
    /// # Errors
    /// As [`RequestHead::new`].
    pub fn post(url: &Url, content_type: &str, headers: &[(&str, &str)]) -> Result<Self> {
        Self::new(Method::Post, url, Some(content_type), headers)
    }

    /// A head for `url`, with the destination's own `headers` in the order given.
    ///
    /// A `User-Agent` among them takes the place of `tidewire/<version>`. The fragment of the URL is not sent.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] if the URL is not http or https, has no host or holds user information; if a name
    /// is not a token, is one that the codec itself sets, or comes twice where it may not; if a value has anything but
    /// visible ASCII, spaces and tabs; if the head is larger than [`REQUEST_HEAD_BYTES_MAX`]. No error quotes a value.
    pub fn new(method: Method, url: &Url, content_type: Option<&str>, headers: &[(&str, &str)]) -> Result<Self> {
        let authority = authority(url)?;
        let target = match url.query() {
            Some(query) => format!("{}?{query}", url.path()),
            None => url.path().to_owned(),
        };
        // The url crate has percent-encoded these already; the check keeps that from being an assumption.
        if !target.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(Error::invalid_config("the path of the URL has characters that are not percent-encoded"));
        }
        let custom_agent = headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("user-agent"));
        let agent = (!custom_agent).then_some(("User-Agent", concat!("tidewire/", env!("CARGO_PKG_VERSION"))));
        let content_type_header = content_type.map(|value| ("Content-Type", value));

        let mut template = BytesMut::with_capacity(256);
        let mut fields: Vec<(String, String)> = Vec::new();
        put(&mut template, &[" HTTP/1.1\r\nHost: ", &authority, "\r\n"]);
        for &(name, value) in agent.iter().chain(&content_type_header).chain(headers) {
            check(name, value)?;
            let single = SINGLE.iter().any(|s| name.eq_ignore_ascii_case(s));
            if single && fields.iter().any(|(n, _)| n.eq_ignore_ascii_case(name)) {
                return Err(Error::invalid_config(format!("header {name} is given twice")));
            }
            fields.push((name.to_owned(), value.to_owned()));
            put(&mut template, &[name, ": ", value, "\r\n"]);
        }
        // Answers are kept as a few bytes for the operator to read: they should not arrive compressed.
        put(&mut template, &["Accept-Encoding: identity\r\n"]);
        let bytes = method.as_str().len() + 1 + target.len() + template.len();
        if bytes > REQUEST_HEAD_BYTES_MAX {
            return Err(Error::invalid_config(format!(
                "the request head has {bytes} bytes, more than {REQUEST_HEAD_BYTES_MAX}"
            ))
            .remedy("shorten the URL or the headers"));
        }
        let content_type = content_type.unwrap_or_default().to_owned();
        Ok(RequestHead { method, origin: String::new(), authority, target, content_type, template, fields })
    }

    /// The head as a forward proxy takes it for `http` (RFC 9112, 3.2.2): with the whole URL in its first line, and
    /// `Proxy-Authorization` if there is one. What [`RequestHead::target`] says stays.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] if the value is none of a header, or the head is larger than
    /// [`REQUEST_HEAD_BYTES_MAX`].
    pub fn for_proxy(mut self, authorization: Option<&str>) -> Result<Self> {
        self.origin = format!("http://{}", self.authority);
        if let Some(value) = authorization {
            check("Proxy-Authorization", value)?;
            put(&mut self.template, &["Proxy-Authorization: ", value, "\r\n"]);
        }
        let bytes = self.method.as_str().len() + 1 + self.origin.len() + self.target.len() + self.template.len();
        if bytes > REQUEST_HEAD_BYTES_MAX {
            return Err(Error::invalid_config(format!("the request head exceeds {REQUEST_HEAD_BYTES_MAX} bytes"))
                .remedy("shorten the URL or the headers"));
        }
        Ok(self)
    }

    /// Appends the head of one attempt to `out`: the template, `extra` in order, the length of the body in bytes, and
    /// the empty line.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] if a name or value of `extra` would be refused by [`RequestHead::new`], or the
    /// head is larger than [`REQUEST_HEAD_BYTES_MAX`]; `out` is then as it was.
    pub fn write(&self, extra: &[(&str, &str)], content_length: u64, out: &mut BytesMut) -> Result<()> {
        self.write_head(&self.target, extra, content_length, out)
    }

    /// As [`RequestHead::write`], with another path and query. They must be percent-encoded.
    ///
    /// # Errors
    /// As [`RequestHead::write`], and if `target` has anything but visible ASCII.
    pub fn write_to(
        &self,
        target: &str,
        extra: &[(&str, &str)],
        content_length: u64,
        out: &mut BytesMut,
    ) -> Result<()> {
        if !target.bytes().all(|b| b.is_ascii_graphic()) {
            let what = "the path or query has characters that are not percent-encoded";
            return Err(Error::new(ErrorKind::InvalidArgument, what));
        }
        self.write_head(target, extra, content_length, out)
    }

    fn write_head(&self, target: &str, extra: &[(&str, &str)], content_length: u64, out: &mut BytesMut) -> Result<()> {
        let start = out.len();
        put(out, &[self.method.as_str(), " ", &self.origin, target]);
        out.extend_from_slice(&self.template);
        for &(name, value) in extra {
            if let Err(e) = check(name, value) {
                out.truncate(start);
                return Err(Error::new(ErrorKind::InvalidArgument, e.message()));
            }
            put(out, &[name, ": ", value, "\r\n"]);
        }
        put(out, &["Content-Length: ", itoa::Buffer::new().format(content_length), "\r\n\r\n"]);
        if out.len() - start > REQUEST_HEAD_BYTES_MAX {
            out.truncate(start);
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                format!("the request head exceeds {REQUEST_HEAD_BYTES_MAX} bytes"),
            ));
        }
        Ok(())
    }

    /// The method.
    pub fn method(&self) -> Method {
        self.method
    }

    /// The value of `Host`: the host, an IPv6 address in brackets, and the port unless it is the scheme's own.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// The request target: path and query, as sent and as signed.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// The fields that every request has, in their order, but for `Host` and `Accept-Encoding`.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &str)> {
        self.fields.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The value of `Content-Type`, empty if there is none.
    pub fn content_type(&self) -> &str {
        &self.content_type
    }
}

/// Shows the host and the names of the headers; values, path and query may be secrets.
impl fmt::Debug for RequestHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestHead")
            .field("method", &self.method)
            .field("authority", &self.authority)
            .field("headers", &self.fields.iter().map(|(name, _)| name).collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

fn authority(url: &Url) -> Result<String> {
    if !matches!(url.scheme(), "http" | "https") {
        return Err(Error::invalid_config(format!("a URL of scheme {} cannot be called over HTTP", url.scheme()))
            .remedy("use http:// or https://"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Error::invalid_config("the URL holds a user name or password")
            .remedy("give them as the destination's basic authentication"));
    }
    let host = url.host_str().ok_or_else(|| Error::invalid_config("the URL has no host"))?;
    Ok(match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    })
}

/// Headers of which a request has one.
const SINGLE: [&str; 3] = ["content-type", "user-agent", "authorization"];

/// Headers that decide framing or routing, or that the codec sets: nobody else may.
const RESERVED: [&str; 12] = [
    "accept-encoding",
    "connection",
    "content-length",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

fn check(name: &str, value: &str) -> Result<()> {
    if name.is_empty() || !name.bytes().all(is_token) {
        return Err(Error::invalid_config(format!("{name:?} is not a header name")));
    }
    if RESERVED.iter().any(|r| r.eq_ignore_ascii_case(name)) {
        return Err(Error::invalid_config(format!("header {name} is set by Tidewire itself and cannot be given")));
    }
    if value.bytes().all(|b| matches!(b, b' '..=b'~' | b'\t')) {
        return Ok(());
    }
    let what = if value.bytes().any(|b| matches!(b, b'\r' | b'\n')) { "a line break" } else { "a non-ASCII character" };
    let what = if value.bytes().any(|b| b < b' ' && !matches!(b, b'\r' | b'\n' | b'\t') || b == 0x7f) {
        "a control character"
    } else {
        what
    };
    Err(Error::invalid_config(format!("the value of header {name} contains {what}"))
        .remedy("remove it, or percent-encode it"))
}

/// A character of a token (RFC 9110, 5.6.2).
fn is_token(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b)
}

fn put(out: &mut BytesMut, parts: &[&str]) {
    for part in parts {
        out.extend_from_slice(part.as_bytes());
    }
}
