//! What client and server say to each other over the socket.
//!
//! ```text
//! message: 4 bytes TWS1   u32 length of the JSON   u32 length of what comes behind it   both
//! ```
//!
//! The first message of a connection says what it is for. One connection of a client is its *session*: with the answer come
//! the descriptors of its ring and of what either side wakes the other with, and later answers to events that asked; it
//! ends with the client. Others carry *calls*, one after the other.

use std::io::{self, IoSlice, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{Error, ErrorKind, Result, S3Code};
use crate::event::EventId;
use crate::shard::dedup::DedupKey;

const MAGIC: [u8; 4] = *b"TWS1";
const HEAD_BYTES: usize = 12;
/// The version of all this.
pub(super) const PROTOCOL: u32 = 2;
/// The largest message, of either part.
pub(super) const PART_BYTES_MAX: usize = 64 << 20;
/// So much is made room for before it is there.
const STEP_BYTES: usize = 64 << 10;

/// The first message of a connection.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Hello {
    pub(super) protocol: u32,
    /// Of the library.
    pub(super) version: String,
    pub(super) wants: Wants,
}

impl Hello {
    pub(super) fn new(wants: Wants) -> Hello {
        Hello { protocol: PROTOCOL, version: env!("CARGO_PKG_VERSION").to_owned(), wants }
    }
}

/// What a connection is for.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Wants {
    /// To publish.
    Session {
        /// Where the ring begins.
        position: u64,
    },
    /// To call.
    Calls {
        /// Of whom.
        session: u64,
        /// What only that client knows.
        secret: [u64; 2],
    },
}

/// The answer to [`Wants::Session`].
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Welcome {
    /// Of the server's library.
    pub(super) version: String,
    pub(super) session: u64,
    pub(super) secret: [u64; 2],
    /// The lock whose file comes with the descriptors.
    pub(super) presence: u64,
    pub(super) ring_bytes: usize,
    pub(super) event_bytes_max: usize,
    pub(super) reserve_percent: usize,
    /// The event types that are not of the registry.
    pub(super) event_types: Vec<String>,
    pub(super) close_timeout_ms: u64,
}

/// An answer.
pub(super) type Answer<T> = std::result::Result<T, WireError>;

/// An error on its way.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct WireError {
    kind: u32,
    message: String,
    place: Option<String>,
    remedy: Option<String>,
    s3: String,
}

impl From<&Error> for WireError {
    fn from(e: &Error) -> WireError {
        WireError {
            kind: e.kind() as u32,
            message: e.message().to_owned(),
            place: e.place().map(str::to_owned),
            remedy: e.remedy_text().map(str::to_owned),
            s3: e.s3_code().name().to_owned(),
        }
    }
}

impl From<WireError> for Error {
    fn from(e: WireError) -> Error {
        let mut error = Error::new(ErrorKind::from_number(e.kind).unwrap_or(ErrorKind::Internal), e.message);
        if let Some(code) = S3Code::from_name(&e.s3) {
            error = error.s3(code);
        }
        if let Some(place) = e.place {
            error = error.at(place);
        }
        if let Some(remedy) = e.remedy {
            error = error.remedy(remedy);
        }
        error
    }
}

/// What a server tells a session by itself.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Told {
    /// The answer to an event that asked, by the position after it.
    Became { position: u64, outcome: Answer<Became> },
    /// An event that was accepted will not reach its level.
    Failed { position: u64, ack: u8, error: WireError },
}

/// What became of an event that asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Became {
    Accepted,
    NoMatch,
    Duplicate,
    /// Not accepted now; it may be tried again for so long.
    Busy {
        error: WireError,
        for_ms: u64,
    },
}

/// What precedes the frame of an event whose publisher waits for the answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) dedup_key: Option<DedupKey>,
    pub(super) host_cursor: Option<u64>,
}

impl Asked {
    pub(super) const BYTES: usize = 32;

    /// # Panics
    /// If `out` is shorter.
    pub(super) fn encode<'a>(&self, out: &'a mut [u8]) -> &'a mut [u8] {
        let (own, rest) = out.split_at_mut(Self::BYTES);
        own[0..8].copy_from_slice(
            &(u64::from(self.dedup_key.is_some()) | u64::from(self.host_cursor.is_some()) << 1).to_le_bytes(),
        );
        own[8..24].copy_from_slice(&self.dedup_key.map_or(0, DedupKey::number).to_le_bytes());
        own[24..32].copy_from_slice(&self.host_cursor.unwrap_or(0).to_le_bytes());
        rest
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<(Asked, &[u8])> {
        let (flags, rest) = bytes.split_first_chunk::<8>()?;
        let (key, rest) = rest.split_first_chunk::<16>()?;
        let (cursor, rest) = rest.split_first_chunk::<8>()?;
        let flags = u64::from_le_bytes(*flags);
        let asked = Asked {
            dedup_key: (flags & 1 != 0).then(|| DedupKey::of_number(u128::from_le_bytes(*key))),
            host_cursor: (flags & 2 != 0).then(|| u64::from_le_bytes(*cursor)),
        };
        (flags < 4).then_some((asked, rest))
    }
}

/// Bytes of the token of a reservation in the ring.
pub(super) const TOKEN_BYTES: usize = 24;

/// # Panics
/// If `out` is shorter.
pub(super) fn encode_token(token: EventId, out: &mut [u8]) -> &mut [u8] {
    let (own, rest) = out.split_at_mut(TOKEN_BYTES);
    own[0..8].copy_from_slice(&token.incarnation.to_le_bytes());
    own[8..16].copy_from_slice(&token.sequence.to_le_bytes());
    own[16..24].copy_from_slice(&u64::from(token.shard).to_le_bytes());
    rest
}

pub(super) fn decode_token(bytes: &[u8]) -> Option<(EventId, &[u8])> {
    let (incarnation, rest) = bytes.split_first_chunk::<8>()?;
    let (sequence, rest) = rest.split_first_chunk::<8>()?;
    let (shard, rest) = rest.split_first_chunk::<8>()?;
    let token = EventId {
        incarnation: u64::from_le_bytes(*incarnation),
        shard: u16::try_from(u64::from_le_bytes(*shard)).ok()?,
        sequence: u64::from_le_bytes(*sequence),
    };
    Some((token, rest))
}

/// The bytes of a message.
///
/// # Errors
/// If it is too large.
pub(super) fn message(json: &impl Serialize, behind: &[u8]) -> Result<Vec<u8>> {
    let mut bytes = vec![0; HEAD_BYTES];
    serde_json::to_writer(&mut bytes, json).map_err(|e| Error::new(ErrorKind::Internal, e.to_string()))?;
    let json_len = bytes.len() - HEAD_BYTES;
    for len in [json_len, behind.len()] {
        if len > PART_BYTES_MAX {
            let what = format!("a call to the engine's process has {len} bytes, more than {PART_BYTES_MAX}");
            return Err(Error::new(ErrorKind::InvalidArgument, what).remedy("ask for less at a time"));
        }
    }
    bytes[0..4].copy_from_slice(&MAGIC);
    bytes[4..8].copy_from_slice(&(json_len as u32).to_le_bytes());
    bytes[8..12].copy_from_slice(&(behind.len() as u32).to_le_bytes());
    bytes.extend_from_slice(behind);
    Ok(bytes)
}

/// Writes a message.
pub(super) fn send(to: &UnixStream, json: &impl Serialize, behind: &[u8]) -> Result<()> {
    Unsignalled(to).write_all(&message(json, behind)?).map_err(|e| lost(&e))
}

/// A socket whose other end may have gone: no signal tells of it, which would end a host that does not expect one.
struct Unsignalled<'a>(&'a UnixStream);

impl Write for Unsignalled<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // SAFETY: the bytes live, and the descriptor is open.
        let n = unsafe { libc::send(self.0.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), libc::MSG_NOSIGNAL) };
        usize::try_from(n).map_err(|_| io::Error::last_os_error())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads a message.
///
/// # Errors
/// [`ErrorKind::Disconnected`] if there is no more, or it is none.
pub(super) fn receive<T: DeserializeOwned>(mut from: &UnixStream) -> Result<(T, Vec<u8>)> {
    let mut head = [0; HEAD_BYTES];
    from.read_exact(&mut head).map_err(|e| lost(&e))?;
    let (json_len, behind_len) = lengths(&head)?;
    let mut json = Vec::new();
    read_into(&mut from, json_len, &mut json)?;
    let mut behind = Vec::new();
    read_into(&mut from, behind_len, &mut behind)?;
    Ok((parse(&json)?, behind))
}

fn parse<T: DeserializeOwned>(json: &[u8]) -> Result<T> {
    serde_json::from_slice(json).map_err(|e| {
        Error::new(ErrorKind::Disconnected, format!("the other side says what nobody understands: {e}"))
            .remedy("run the same version on both sides")
    })
}

fn lengths(head: &[u8; HEAD_BYTES]) -> Result<(usize, usize)> {
    let len = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]) as usize;
    let (json, behind) = (len(4), len(8));
    if head[..4] != MAGIC || json > PART_BYTES_MAX || behind > PART_BYTES_MAX {
        return Err(Error::new(
            ErrorKind::Disconnected,
            "what listens there is no engine, or speaks of another version",
        )
        .remedy("give the path of the socket of `[engine.shared]`"));
    }
    Ok((json, behind))
}

fn read_into(from: &mut impl Read, len: usize, out: &mut Vec<u8>) -> Result<()> {
    while out.len() < len {
        let at = out.len();
        // Nobody makes us take memory by saying that there will be much.
        out.resize(len.min(at + STEP_BYTES), 0);
        from.read_exact(&mut out[at..]).map_err(|e| lost(&e))?;
    }
    Ok(())
}

/// What comes over a session, of which there may be a part so far.
#[derive(Debug, Default)]
pub(super) struct Inbox(Vec<u8>);

impl Inbox {
    /// Reads what is there without waiting; `false` if the other side has ended.
    pub(super) fn fill(&mut self, from: &UnixStream) -> bool {
        let mut buffer = [0u8; 4096];
        loop {
            // SAFETY: the buffer may be written, and the descriptor is open.
            let n =
                unsafe { libc::recv(from.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), libc::MSG_DONTWAIT) };
            match n {
                0 => return false,
                n if n > 0 => self.0.extend_from_slice(&buffer[..n as usize]),
                _ => match io::Error::last_os_error().kind() {
                    io::ErrorKind::WouldBlock => return true,
                    io::ErrorKind::Interrupted => {}
                    _ => return false,
                },
            }
        }
    }

    /// The next message that is whole.
    pub(super) fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>> {
        let Some(head) = self.0.first_chunk::<HEAD_BYTES>() else { return Ok(None) };
        let (json, behind) = lengths(head)?;
        let end = HEAD_BYTES + json + behind;
        if self.0.len() < end {
            return Ok(None);
        }
        let told = parse(&self.0[HEAD_BYTES..HEAD_BYTES + json]);
        self.0.drain(..end);
        told.map(Some)
    }
}

/// What waits to be sent to a client that may not be reading.
#[derive(Debug, Default)]
pub(super) struct Outbox(Vec<u8>);

impl Outbox {
    /// So much waits at most.
    const BYTES_MAX: usize = 4 << 20;

    /// Adds a message; `false` if too much waits.
    pub(super) fn add(&mut self, told: &Told) -> bool {
        if let Ok(bytes) = message(told, &[]) {
            self.0.extend_from_slice(&bytes);
        }
        self.0.len() <= Self::BYTES_MAX
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Sends what can be sent without waiting; `false` if the other side has ended.
    pub(super) fn flush(&mut self, to: &UnixStream) -> bool {
        while !self.0.is_empty() {
            let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
            // SAFETY: the bytes live, and the descriptor is open.
            let n = unsafe { libc::send(to.as_raw_fd(), self.0.as_ptr().cast(), self.0.len(), flags) };
            if n > 0 {
                self.0.drain(..n as usize);
                continue;
            }
            match io::Error::last_os_error().kind() {
                io::ErrorKind::WouldBlock => return true,
                io::ErrorKind::Interrupted => {}
                _ => return false,
            }
        }
        true
    }
}

/// How many descriptors come with a [`Welcome`].
pub(super) const DESCRIPTORS: usize = 5;
const CONTROL_BYTES: usize = 64;

/// Room for the descriptors beside a byte, aligned as the system wants it.
#[repr(C, align(8))]
struct Control([u8; CONTROL_BYTES]);

/// Sends a byte with descriptors.
pub(super) fn send_descriptors(to: &UnixStream, fds: [RawFd; DESCRIPTORS]) -> Result<()> {
    let byte = [b'F'];
    let mut io = [IoSlice::new(&byte)];
    let mut control = Control([0; CONTROL_BYTES]);
    let bytes = size_of_val(&fds) as libc::c_uint;
    // SAFETY: the header points to what lives during the call; the control block has room for the descriptors.
    let sent = unsafe {
        let mut head = std::mem::zeroed::<libc::msghdr>();
        head.msg_iov = io.as_mut_ptr().cast();
        head.msg_iovlen = 1;
        head.msg_control = control.0.as_mut_ptr().cast();
        head.msg_controllen = libc::CMSG_SPACE(bytes) as usize;
        let part = libc::CMSG_FIRSTHDR(&head);
        (*part).cmsg_level = libc::SOL_SOCKET;
        (*part).cmsg_type = libc::SCM_RIGHTS;
        (*part).cmsg_len = libc::CMSG_LEN(bytes) as usize;
        std::ptr::copy_nonoverlapping(fds.as_ptr().cast::<u8>(), libc::CMSG_DATA(part), bytes as usize);
        libc::sendmsg(to.as_raw_fd(), &head, libc::MSG_NOSIGNAL)
    };
    if sent == 1 { Ok(()) } else { Err(lost(&io::Error::last_os_error())) }
}

/// Receives what [`send_descriptors`] has sent.
pub(super) fn receive_descriptors(from: &UnixStream) -> Result<[OwnedFd; DESCRIPTORS]> {
    let mut byte = [0u8];
    let mut io = [io::IoSliceMut::new(&mut byte)];
    let mut control = Control([0; CONTROL_BYTES]);
    let mut fds = Vec::new();
    // SAFETY: the header points to what lives during the call; what the system says is there is read, and each descriptor
    // belongs to this process from now on.
    unsafe {
        let mut head = std::mem::zeroed::<libc::msghdr>();
        head.msg_iov = io.as_mut_ptr().cast();
        head.msg_iovlen = 1;
        head.msg_control = control.0.as_mut_ptr().cast();
        head.msg_controllen = CONTROL_BYTES;
        if libc::recvmsg(from.as_raw_fd(), &mut head, libc::MSG_CMSG_CLOEXEC) < 1 {
            return Err(lost(&io::Error::last_os_error()));
        }
        let mut part = libc::CMSG_FIRSTHDR(&head);
        while !part.is_null() {
            if (*part).cmsg_level == libc::SOL_SOCKET && (*part).cmsg_type == libc::SCM_RIGHTS {
                let bytes = (*part).cmsg_len as usize - libc::CMSG_LEN(0) as usize;
                for n in 0..bytes / size_of::<RawFd>() {
                    let fd = libc::CMSG_DATA(part).cast::<RawFd>().add(n).read_unaligned();
                    fds.push(OwnedFd::from_raw_fd(fd));
                }
            }
            part = libc::CMSG_NXTHDR(&head, part);
        }
    }
    fds.try_into().map_err(|_| {
        Error::new(ErrorKind::Disconnected, "the engine's process has sent no ring")
            .remedy("raise the limit of open files (ulimit -n), or run the same version on both sides")
    })
}

/// The connection is gone.
#[cold]
pub(super) fn lost(e: &io::Error) -> Error {
    let what = match e.kind() {
        io::ErrorKind::UnexpectedEof => "the process that has the engine has ended, or has ended the connection".into(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => "the other side does not answer".into(),
        _ => format!("the connection to the engine's process: {e}"),
    };
    Error::new(ErrorKind::Disconnected, what)
        .remedy("it is connected again as soon as an engine listens there; try again then")
}

/// What an answer holds.
pub(super) fn value<T: DeserializeOwned>(answer: Answer<Value>) -> Result<T> {
    let value = answer.map_err(Error::from)?;
    serde_json::from_value(value).map_err(|e| {
        Error::new(ErrorKind::Disconnected, format!("the engine's process answers what nobody understands: {e}"))
            .remedy("run the same version on both sides")
    })
}

#[cfg(test)]
mod tests;
