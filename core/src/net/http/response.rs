//! The answer: a parser that takes bytes in any pieces and stops within stated bounds.

use std::fmt;
use std::mem::MaybeUninit;
use std::sync::Arc;
use std::time::Duration;

use httparse::{Header, ParserConfig, Status};

use super::date::{RETRY_AFTER_MAX, RetryAfter};

/// The most bytes of header sections read for one answer, interim answers included.
pub const RESPONSE_HEAD_BYTES_MAX: usize = 16 * 1024;
/// The most header fields of one section.
pub const HEADERS_MAX: usize = 128;
/// The most interim (1xx) answers skipped before the final one.
pub const INTERIM_RESPONSES_MAX: u32 = 16;
/// The most bytes of a body read, its framing included. A longer body is abandoned, and the connection with it.
pub const BODY_READ_BYTES_MAX: usize = 64 * 1024;
/// The bytes kept of the start of a body.
pub const BODY_KEPT_BYTES_MAX: usize = 4 * 1024;
/// A header section of no more bytes is kept, to be known again.
const KNOWN_BYTES_MAX: usize = 1024;
/// The bytes kept of a `Location`.
pub const LOCATION_BYTES_MAX: usize = 1024;

/// What became of the bytes given to [`ResponseParser::feed`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// How many bytes belonged to this answer.
    pub consumed: usize,
    /// Where the answer stands.
    pub state: State,
}

/// Where an answer stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// More bytes are needed.
    NeedMore,
    /// The answer is complete; [`Response::keep_alive`] says whether the connection can carry another request.
    Done,
    /// The answer is known, but its body goes on beyond [`BODY_READ_BYTES_MAX`]: close the connection.
    CloseAfter,
}

/// A final answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The status, 200 to 999.
    pub status: u16,
    /// `Retry-After`, if there was one that makes sense.
    pub retry_after: Option<RetryAfter>,
    /// `Location`, at most [`LOCATION_BYTES_MAX`], control characters and invalid UTF-8 replaced. Show it to people
    /// through [`super::describe`], which leaves out what may be secret.
    pub location: Option<String>,
    /// Whether the connection may carry another request: HTTP/1.1, no `Connection: close`, a body that was read to a
    /// known end, and nothing after it. It says nothing about a request still being sent: an answer that came before
    /// the request was out means that the connection must be closed.
    pub keep_alive: bool,
    /// `Keep-Alive: timeout=`, at most a day: how long the endpoint keeps an idle connection.
    pub keep_alive_timeout: Option<Duration>,
    /// The value of the header that the parser was told to look for, as [`Response::location`].
    pub header: Option<String>,
    /// The value of the other one.
    pub also: Option<String>,
    /// The first [`BODY_KEPT_BYTES_MAX`] bytes of the body, as they came; more if the parser was made so.
    pub body_start: Vec<u8>,
    /// Bytes that followed a complete answer and do not belong to it.
    pub bytes_after: usize,
}

impl Response {
    /// An answer of HTTP/2, whose framing is not ours to look at; its body is the caller's to add. `wanted` are the headers
    /// whose values go into [`Response::header`] and [`Response::also`].
    pub fn of_fields<'a>(
        status: u16,
        fields: impl Iterator<Item = (&'a str, &'a [u8])>,
        wanted: [Option<&str>; 2],
    ) -> Response {
        let (mut known, mut found) = (Fields::default(), [None, None]);
        for (name, value) in fields {
            // Nothing that the framing of HTTP/1.1 would refuse matters here.
            let _ = known.take(name, value);
            for (found, wanted) in found.iter_mut().zip(wanted) {
                if found.is_none() && wanted.is_some_and(|w| w.eq_ignore_ascii_case(name)) {
                    *found = Some(printable(value));
                }
            }
        }
        let [header, also] = found;
        Response {
            status,
            retry_after: known.retry_after,
            location: known.location,
            keep_alive: true,
            keep_alive_timeout: None,
            header,
            also,
            body_start: Vec::new(),
            bytes_after: 0,
        }
    }
}

/// Why an answer cannot be used. The connection must be closed after any of these.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ResponseError {
    /// The connection ended before the first byte of an answer. On a reused connection the endpoint most likely
    /// closed it while idle, and the request can be sent again at once on a fresh one.
    Closed,
    /// The connection ended within the answer; the status if it was final and read in full.
    Truncated {
        /// The final status, if the header section was complete.
        status: Option<u16>,
    },
    /// What came is not an answer in HTTP/1.
    NotHttp {
        /// What it rather looks like.
        hint: &'static str,
    },
    /// The header section, or the framing of the body, breaks RFC 9112.
    Malformed(&'static str),
    /// The header sections exceed [`RESPONSE_HEAD_BYTES_MAX`] or [`HEADERS_MAX`].
    HeadTooLarge,
    /// More than [`INTERIM_RESPONSES_MAX`] interim answers came.
    TooManyInterim,
}

impl fmt::Display for ResponseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ResponseError::Closed => f.write_str("the endpoint closed the connection without an answer"),
            ResponseError::Truncated { status: Some(status) } => {
                write!(f, "the endpoint closed the connection within the body of an answer {status}")
            }
            ResponseError::Truncated { status: None } => f.write_str("the endpoint closed the connection mid-answer"),
            ResponseError::NotHttp { hint } => write!(f, "the endpoint does not answer in HTTP/1{hint}"),
            ResponseError::Malformed(what) => write!(f, "the endpoint's answer is malformed: {what}"),
            ResponseError::HeadTooLarge => {
                write!(f, "the headers of the answer exceed {RESPONSE_HEAD_BYTES_MAX} bytes or {HEADERS_MAX} fields")
            }
            ResponseError::TooManyInterim => {
                write!(f, "the endpoint sent more than {INTERIM_RESPONSES_MAX} interim answers")
            }
        }
    }
}

impl std::error::Error for ResponseError {}

/// Reads the answer to one request (RFC 9112, 4 to 7), fed with bytes in any pieces.
///
/// After an answer is taken the parser is as new, and keeps its buffer, and the header section if it is short, for the next.
#[derive(Debug, Default)]
pub struct ResponseParser {
    phase: Phase,
    /// A header section that came in more than one piece.
    head: Vec<u8>,
    head_bytes: usize,
    interim: u32,
    body_bytes: usize,
    /// Bytes of the body to keep beyond [`BODY_KEPT_BYTES_MAX`].
    kept_more: usize,
    /// A header whose value is kept.
    wanted: Option<Arc<str>>,
    also_wanted: Option<Arc<str>>,
    any_byte: bool,
    response: Option<Response>,
    known: Option<Box<Known>>,
}

/// A header section and what it says. An endpoint says mostly the same for each request, at least within a second, and to see
/// that takes much less than to read it.
#[derive(Debug)]
struct Known {
    section: Vec<u8>,
    response: Response,
    phase: Phase,
}

#[derive(Clone, Debug, Default)]
enum Phase {
    #[default]
    Head,
    /// So many bytes of body are left.
    Length(u64),
    Chunked(Chunk),
    UntilClose,
    Finished(State),
    Failed(ResponseError),
}

/// Where in a chunked body (RFC 9112, 7.1) the next byte falls.
#[derive(Clone, Copy, Debug)]
enum Chunk {
    Size { value: u64, digits: bool },
    Extension { value: u64 },
    SizeLf { value: u64 },
    Data { left: u64 },
    DataCr,
    DataLf,
    TrailerStart,
    Trailer,
    LastLf,
    End,
}

impl ResponseParser {
    /// A parser at the start of an answer.
    pub fn new() -> Self {
        Self::default()
    }

    /// A parser that keeps [`BODY_READ_BYTES_MAX`] of each body.
    pub fn keeping_bodies() -> Self {
        ResponseParser { kept_more: BODY_READ_BYTES_MAX - BODY_KEPT_BYTES_MAX, ..Self::default() }
    }

    /// The same with the value of a header in [`Response::header`].
    #[must_use]
    pub fn looking_for(mut self, header: Option<Arc<str>>) -> Self {
        self.wanted = header;
        self
    }

    /// The same with the value of another header in [`Response::also`].
    #[must_use]
    pub fn looking_also_for(mut self, header: Option<Arc<str>>) -> Self {
        self.also_wanted = header;
        self
    }

    /// Takes the next bytes of the connection.
    ///
    /// Bytes beyond the answer are not consumed, only counted in [`Response::bytes_after`]: do not feed them again.
    ///
    /// # Errors
    /// [`ResponseError`] if this is no answer that can be used; every later call gives the same error.
    pub fn feed(&mut self, input: &[u8]) -> Result<Progress, ResponseError> {
        self.any_byte |= !input.is_empty();
        let mut consumed = 0;
        loop {
            let rest = &input[consumed..];
            let step = match &mut self.phase {
                Phase::Finished(state) => {
                    let state = *state;
                    self.count_after(state, rest.len());
                    return Ok(Progress { consumed, state });
                }
                Phase::Failed(e) => return Err(e.clone()),
                _ if rest.is_empty() => return Ok(Progress { consumed, state: State::NeedMore }),
                Phase::Head => self.head(rest),
                _ => self.body(rest),
            };
            match step {
                Ok(n) => consumed += n,
                Err(e) => {
                    self.phase = Phase::Failed(e.clone());
                    return Err(e);
                }
            }
        }
    }

    /// Says that the connection has ended: completes a body that is delimited by it.
    ///
    /// # Errors
    /// [`ResponseError::Closed`] or [`ResponseError::Truncated`] if the answer is not complete.
    pub fn eof(&mut self) -> Result<State, ResponseError> {
        let error = match &self.phase {
            Phase::Finished(state) => return Ok(*state),
            Phase::UntilClose => {
                self.phase = Phase::Finished(State::Done);
                return Ok(State::Done);
            }
            Phase::Failed(e) => return Err(e.clone()),
            _ if !self.any_byte => ResponseError::Closed,
            _ => ResponseError::Truncated { status: self.status() },
        };
        self.phase = Phase::Failed(error.clone());
        Err(error)
    }

    /// Whether no byte of an answer has come: with a reused connection that broke, the sign that sending again at once
    /// is fair, for the endpoint had likely closed it before.
    pub fn zero_bytes_seen(&self) -> bool {
        !self.any_byte
    }

    /// The final status, once its header section is complete; the body may be outstanding.
    pub fn status(&self) -> Option<u16> {
        self.response.as_ref().map(|r| r.status)
    }

    /// The answer, once it is [`State::Done`] or [`State::CloseAfter`]; the parser starts anew.
    pub fn take_response(&mut self) -> Option<Response> {
        if !matches!(self.phase, Phase::Finished(_)) {
            return None;
        }
        let response = self.response.take();
        self.reset();
        response
    }

    /// Forgets what was read, for another answer.
    pub fn reset(&mut self) {
        self.phase = Phase::Head;
        self.head.clear();
        self.head_bytes = 0;
        self.interim = 0;
        self.body_bytes = 0;
        self.any_byte = false;
        self.response = None;
    }

    fn count_after(&mut self, state: State, bytes: usize) {
        if let (State::Done, Some(response)) = (state, &mut self.response)
            && bytes > 0
        {
            response.bytes_after = response.bytes_after.saturating_add(bytes);
            response.keep_alive = false;
        }
    }

    /// Collects a header section and, once complete, decides how the body is framed.
    fn head(&mut self, input: &[u8]) -> Result<usize, ResponseError> {
        if self.head_bytes == 0
            && let Some(known) = &self.known
            && input.starts_with(&known.section)
        {
            self.response = Some(known.response.clone());
            self.phase = known.phase.clone();
            self.head_bytes = known.section.len();
            return Ok(self.head_bytes);
        }
        let before = self.head.len();
        let room = RESPONSE_HEAD_BYTES_MAX - self.head_bytes;
        let window = &input[..input.len().min(room)];
        check_start(&self.head, window)?;
        let end = if before == 0 {
            head_end(window, 0)
        } else {
            self.head.extend_from_slice(window);
            // An end may have begun in the three bytes that came before.
            head_end(&self.head, before.saturating_sub(3))
        };
        let Some(end) = end else {
            if input.len() >= room {
                return Err(ResponseError::HeadTooLarge);
            }
            if before == 0 {
                self.head.extend_from_slice(window);
            }
            self.head_bytes += window.len();
            return Ok(window.len());
        };
        let section = if before == 0 { &window[..end] } else { &self.head[..end] };
        let next = parse_section(section, [self.wanted.as_deref(), self.also_wanted.as_deref()])?;
        self.head.clear();
        self.head_bytes += end - before;
        match next {
            None => {
                self.interim += 1;
                if self.interim > INTERIM_RESPONSES_MAX {
                    return Err(ResponseError::TooManyInterim);
                }
            }
            Some((response, phase)) => {
                // One that came in pieces is gone by now.
                if before == 0 {
                    self.know(&window[..end], &response, &phase);
                }
                self.response = Some(response);
                self.phase = phase;
            }
        }
        Ok(end - before)
    }

    /// Keeps a header section to know it again, if that costs little.
    fn know(&mut self, section: &[u8], response: &Response, phase: &Phase) {
        let Response { location, header, also, .. } = response;
        if section.len() > KNOWN_BYTES_MAX || location.is_some() || header.is_some() || also.is_some() {
            return;
        }
        let (response, phase) = (response.clone(), phase.clone());
        match &mut self.known {
            Some(known) => {
                known.section.clear();
                known.section.extend_from_slice(section);
                (known.response, known.phase) = (response, phase);
            }
            None => self.known = Some(Box::new(Known { section: section.to_vec(), response, phase })),
        }
    }

    /// Takes bytes of the body, until it ends or has been read far enough.
    fn body(&mut self, input: &[u8]) -> Result<usize, ResponseError> {
        let room = BODY_READ_BYTES_MAX - self.body_bytes;
        let window = &input[..input.len().min(room)];
        let Some(response) = &mut self.response else {
            return Err(ResponseError::Malformed("a body without a header section"));
        };
        let (kept, max) = (&mut response.body_start, BODY_KEPT_BYTES_MAX + self.kept_more);
        let mut ended = false;
        let used = match &mut self.phase {
            Phase::Length(left) => {
                let used = usize::try_from(*left).unwrap_or(usize::MAX).min(window.len());
                keep(kept, max, &window[..used]);
                *left -= used as u64;
                ended = *left == 0;
                used
            }
            Phase::Chunked(chunk) => {
                let mut used = 0;
                while used < window.len() && !ended {
                    used += chunk.step(&window[used..], kept, max)?;
                    ended = matches!(chunk, Chunk::End);
                }
                used
            }
            _ => {
                keep(kept, max, window);
                window.len()
            }
        };
        self.body_bytes += used;
        if ended {
            self.phase = Phase::Finished(State::Done);
        } else if self.body_bytes == BODY_READ_BYTES_MAX {
            response.keep_alive = false;
            self.phase = Phase::Finished(State::CloseAfter);
        }
        Ok(used)
    }
}

impl Chunk {
    /// Takes at least one byte of a non-empty input.
    fn step(&mut self, input: &[u8], kept: &mut Vec<u8>, max: usize) -> Result<usize, ResponseError> {
        const LINE: ResponseError = ResponseError::Malformed("a line of the chunked body does not end in CR LF");
        let byte = input[0];
        *self = match *self {
            Chunk::Size { value, digits } => match (char::from(byte).to_digit(16), byte) {
                (Some(digit), _) => {
                    let value = value.checked_mul(16).and_then(|v| v.checked_add(u64::from(digit)));
                    let value = value.ok_or(ResponseError::Malformed("a chunk size overflows"))?;
                    Chunk::Size { value, digits: true }
                }
                (None, _) if !digits => return Err(ResponseError::Malformed("a chunk has no size")),
                (None, b'\r') => Chunk::SizeLf { value },
                (None, b';' | b' ' | b'\t') => Chunk::Extension { value },
                (None, _) => return Err(ResponseError::Malformed("a chunk size is not a number")),
            },
            Chunk::Extension { value } => match byte {
                b'\r' => Chunk::SizeLf { value },
                b'\n' => return Err(LINE),
                _ => Chunk::Extension { value },
            },
            Chunk::SizeLf { .. } | Chunk::DataCr | Chunk::DataLf | Chunk::LastLf
                if byte != (if matches!(self, Chunk::DataCr) { b'\r' } else { b'\n' }) =>
            {
                return Err(LINE);
            }
            Chunk::SizeLf { value: 0 } => Chunk::TrailerStart,
            Chunk::SizeLf { value } => Chunk::Data { left: value },
            Chunk::Data { left } => {
                let used = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
                keep(kept, max, &input[..used]);
                let left = left - used as u64;
                *self = if left == 0 { Chunk::DataCr } else { Chunk::Data { left } };
                return Ok(used);
            }
            Chunk::DataCr => Chunk::DataLf,
            Chunk::DataLf => Chunk::Size { value: 0, digits: false },
            Chunk::TrailerStart => match byte {
                b'\r' => Chunk::LastLf,
                b'\n' => Chunk::End,
                _ => Chunk::Trailer,
            },
            Chunk::Trailer => match byte {
                b'\n' => Chunk::TrailerStart,
                _ => Chunk::Trailer,
            },
            Chunk::LastLf | Chunk::End => Chunk::End,
        };
        Ok(1)
    }
}

fn keep(kept: &mut Vec<u8>, max: usize, data: &[u8]) {
    let room = max - kept.len();
    kept.extend_from_slice(&data[..data.len().min(room)]);
}

/// Refuses what cannot become a status line as soon as that shows, instead of waiting for an empty line.
fn check_start(head: &[u8], window: &[u8]) -> Result<(), ResponseError> {
    const START: &[u8] = b"HTTP/1.";
    if head.len() >= START.len() {
        return Ok(());
    }
    if head.iter().chain(window).zip(START).all(|(a, b)| a == b) {
        return Ok(());
    }
    let hint = match head.first().or(window.first()) {
        Some(0x15 | 0x16) => "; it seems to speak TLS: use https://",
        Some(0) => "; it seems to speak HTTP/2 only",
        _ => "",
    };
    Err(ResponseError::NotHttp { hint })
}

/// The end of the header section, that is after the first empty line. A bare LF ends a line too (RFC 9112, 2.2).
fn head_end(bytes: &[u8], from: usize) -> Option<usize> {
    memchr::memchr_iter(b'\n', &bytes[from..]).map(|at| from + at).find_map(|at| match bytes.get(at + 1..)? {
        [b'\n', ..] => Some(at + 2),
        [b'\r', b'\n', ..] => Some(at + 3),
        _ => None,
    })
}

/// What the fields that matter have said so far.
#[derive(Default)]
struct Fields {
    length: Option<u64>,
    transfer_encoding: bool,
    chunked: bool,
    close: bool,
    keep_alive_timeout: Option<Duration>,
    retry_after: Option<RetryAfter>,
    location: Option<String>,
}

/// A complete header section: `None` if it is an interim answer.
fn parse_section(section: &[u8], wanted: [Option<&str>; 2]) -> Result<Option<(Response, Phase)>, ResponseError> {
    let mut room = [const { MaybeUninit::<Header<'_>>::uninit() }; HEADERS_MAX];
    let mut parsed = httparse::Response::new(&mut []);
    // Both are old habits that RFC 9112 lets a client repair; refusing would only repeat delivered events.
    let status = ParserConfig::default()
        .allow_obsolete_multiline_headers_in_responses(true)
        .allow_spaces_after_header_name_in_responses(true)
        .parse_response_with_uninit_headers(&mut parsed, section, &mut room);
    let (version, code) = match status {
        Ok(Status::Complete(_)) => match (parsed.version, parsed.code) {
            (Some(version), Some(code)) => (version, code),
            _ => return Err(ResponseError::Malformed("no status line")),
        },
        Ok(Status::Partial) => return Err(ResponseError::Malformed("the header section ends early")),
        Err(httparse::Error::TooManyHeaders) => return Err(ResponseError::HeadTooLarge),
        Err(httparse::Error::Status | httparse::Error::Version) => {
            return Err(ResponseError::Malformed("the status line"));
        }
        Err(_) => return Err(ResponseError::Malformed("a header field")),
    };
    match code {
        0..=99 => return Err(ResponseError::Malformed("the status code")),
        101 => return Err(ResponseError::Malformed("a switch of protocols that was not asked for")),
        102..=199 | 100 => return Ok(None),
        _ => {}
    }
    let mut fields = Fields::default();
    let mut found = [None, None];
    for header in parsed.headers.iter() {
        fields.take(header.name, header.value)?;
        for (wanted, found) in wanted.iter().zip(&mut found) {
            if found.is_none() && wanted.is_some_and(|name| name.eq_ignore_ascii_case(header.name)) {
                *found = Some(printable(header.value));
            }
        }
    }
    let [found, also] = found;
    if fields.length.is_some() && fields.transfer_encoding {
        return Err(ResponseError::Malformed("both Content-Length and Transfer-Encoding"));
    }
    let phase = match (code, fields.length) {
        (204 | 304, _) | (_, Some(0)) => Phase::Finished(State::Done),
        (_, Some(length)) => Phase::Length(length),
        _ if fields.chunked => Phase::Chunked(Chunk::Size { value: 0, digits: false }),
        _ => Phase::UntilClose,
    };
    let response = Response {
        status: code,
        retry_after: fields.retry_after,
        location: fields.location,
        keep_alive: version == 1 && !fields.close && !matches!(phase, Phase::UntilClose),
        keep_alive_timeout: fields.keep_alive_timeout,
        header: found,
        also,
        body_start: Vec::new(),
        bytes_after: 0,
    };
    Ok(Some((response, phase)))
}

impl Fields {
    fn take(&mut self, name: &str, value: &[u8]) -> Result<(), ResponseError> {
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        if is("content-length") {
            for item in items(value) {
                let length = decimal(item).ok_or(ResponseError::Malformed("Content-Length"))?;
                if self.length.is_some_and(|known| known != length) {
                    return Err(ResponseError::Malformed("two different Content-Length"));
                }
                self.length = Some(length);
            }
        } else if is("transfer-encoding") {
            self.transfer_encoding = true;
            // Only the last coding frames the message; what is inside it does not matter here.
            self.chunked = items(value).last().is_some_and(|coding| coding.eq_ignore_ascii_case(b"chunked"));
        } else if is("connection") {
            self.close |= items(value).any(|option| option.eq_ignore_ascii_case(b"close"));
        } else if is("keep-alive") {
            let timeout = items(value).find_map(|item| {
                let at = item.iter().position(|b| *b == b'=')?;
                item[..at]
                    .trim_ascii()
                    .eq_ignore_ascii_case(b"timeout")
                    .then(|| decimal(item[at + 1..].trim_ascii()))?
            });
            self.keep_alive_timeout = timeout.map(|s| Duration::from_secs(s).min(RETRY_AFTER_MAX));
        } else if is("retry-after") {
            self.retry_after = self.retry_after.or_else(|| RetryAfter::parse(value));
        } else if is("location") && self.location.is_none() {
            self.location = Some(printable(value));
        }
        Ok(())
    }
}

/// The elements of a comma-separated list (RFC 9110, 5.6.1).
fn items(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|b| *b == b',').map(<[u8]>::trim_ascii)
}

fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn printable(value: &[u8]) -> String {
    let cut = &value[..value.len().min(LOCATION_BYTES_MAX)];
    let mut text: String =
        String::from_utf8_lossy(cut).trim().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let mut end = text.len().min(LOCATION_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}
