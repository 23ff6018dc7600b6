//! One connection of a hostile receiver.

use std::io::{self, Write};
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use flate2::Compression;
use flate2::write::GzEncoder;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use super::Shared;
use super::trick::Trick;
use crate::record::parse_body;

const CALM: &[u8] = b"HTTP/1.1 204 No Content\r\n\r\n";
const HEAD_BYTES_MAX: usize = 64 << 10;
const HUGE_HEAD_BYTES: usize = 1 << 20;
const PIECE_BYTES: usize = 16 << 10;
const DRIP: Duration = Duration::from_secs(1);
/// How often a connection that is not read from is asked whether it is still there.
const LOOK: Duration = Duration::from_millis(20);
/// What a bomb becomes.
const BOMB_BYTES: usize = 48 << 20;

/// Zeros, compressed: the same member of the file again and again.
pub(super) fn bomb() -> io::Result<Vec<u8>> {
    const MEMBER_BYTES: usize = 1 << 20;
    let mut out = GzEncoder::new(Vec::new(), Compression::fast());
    out.write_all(&vec![0; MEMBER_BYTES])?;
    Ok(out.finish()?.repeat(BOMB_BYTES / MEMBER_BYTES))
}

enum Line {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Line {
    fn tcp(&self) -> &TcpStream {
        match self {
            Line::Plain(s) => s,
            Line::Tls(s) => s.get_ref().0,
        }
    }
}

impl AsyncRead for Line {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Line::Plain(s) => Pin::new(s).poll_read(cx, buf),
            Line::Tls(s) => Pin::new(s).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Line {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Line::Plain(s) => Pin::new(s).poll_write(cx, buf),
            Line::Tls(s) => Pin::new(s).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Line::Plain(s) => Pin::new(s).poll_flush(cx),
            Line::Tls(s) => Pin::new(s).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Line::Plain(s) => Pin::new(s).poll_shutdown(cx),
            Line::Tls(s) => Pin::new(s).poll_shutdown(cx),
        }
    }
}

/// Until the connection ends.
pub(super) async fn connection(stream: TcpStream, shared: &Shared) -> io::Result<()> {
    let mut trick = shared.turn();
    match trick {
        Trick::CloseBeforeRead => return Ok(()),
        Trick::ResetBeforeRead => return stream.set_zero_linger(),
        Trick::Stall => return until_they_hang_up(&stream).await,
        _ => {}
    }
    let line = match &shared.certificates {
        None => Line::Plain(stream),
        Some(certificates) => match certificates.for_trick(trick).accept(stream).await {
            Ok(stream) => Line::Tls(Box::new(stream)),
            Err(e) => {
                shared.failed_handshakes.fetch_add(1, Ordering::SeqCst);
                return Err(e);
            }
        },
    };
    let mut peer = Peer { line, got: Vec::new(), shared };
    while peer.play(trick).await? {
        let wait = if trick == Trick::CloseIdle { shared.settings.idle } else { Duration::MAX };
        match tokio::time::timeout(wait, peer.fill()).await {
            // It was idle for too long, or they have closed it.
            Err(_) | Ok(Ok(0)) => break,
            Ok(more) => more?,
        };
        trick = shared.turn();
    }
    Ok(())
}

/// Without reading what they send.
async fn until_they_hang_up(stream: &TcpStream) -> io::Result<()> {
    loop {
        let ready = stream.ready(Interest::READABLE | Interest::ERROR).await?;
        if ready.is_read_closed() || ready.is_error() {
            return Ok(());
        }
        tokio::time::sleep(LOOK).await;
    }
}

struct Peer<'a> {
    line: Line,
    got: Vec<u8>,
    shared: &'a Shared,
}

impl Peer<'_> {
    /// Deals with one request. Whether the connection takes another one.
    async fn play(&mut self, trick: Trick) -> io::Result<bool> {
        let (head_bytes, length) = self.head().await?;
        if matches!(trick, Trick::ResetAfterRequestHead) {
            return self.reset();
        }
        let whole = head_bytes + length;
        while self.got.len() < whole {
            if self.fill().await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        let body: Vec<u8> = self.got.drain(..whole).skip(head_bytes).collect();
        let waits =
            |after: &str| format!("HTTP/1.1 429 Slow down\r\nRetry-After: {after}\r\nContent-Length: 0\r\n\r\n");
        match trick {
            Trick::Calm | Trick::CloseIdle => {
                self.take(&body);
                self.line.write_all(CALM).await?;
                return Ok(true);
            }
            Trick::CloseAfterRequest | Trick::CloseBeforeRead => {}
            Trick::ResetAfterRequest | Trick::ResetBeforeRead | Trick::ResetAfterRequestHead => return self.reset(),
            Trick::ResetAfterHead => {
                self.line.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n").await?;
                return self.reset();
            }
            Trick::ResetAfterAnswer => {
                self.take(&body);
                self.line.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\ntaken").await?;
                return self.reset();
            }
            Trick::HalfHead => self.line.write_all(b"HTTP/1.1 200 OK\r\nContent-Len").await?,
            Trick::HalfResponse => {
                self.line.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf of it").await?;
            }
            Trick::HalfChunk => {
                self.line.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n40\r\nhalf of it").await?;
            }
            Trick::Drip => {
                for byte in CALM {
                    self.line.write_all(&[*byte]).await?;
                    self.line.flush().await?;
                    if let Ok(closed) = tokio::time::timeout(DRIP, self.until_closed()).await {
                        return closed.map(|()| false);
                    }
                }
            }
            Trick::EndlessBody => {
                self.take(&body);
                self.endless(b"HTTP/1.1 200 OK\r\n\r\n", &vec![b'x'; PIECE_BYTES]).await?;
            }
            Trick::EndlessChunks => {
                self.take(&body);
                let piece = [format!("{PIECE_BYTES:x}\r\n").as_bytes(), &vec![b'x'; PIECE_BYTES], b"\r\n"].concat();
                self.endless(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", &piece).await?;
            }
            Trick::GzipBomb => {
                self.take(&body);
                let length = self.shared.bomb.len();
                let head = format!("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {length}\r\n\r\n");
                self.line.write_all(head.as_bytes()).await?;
                self.line.write_all(&self.shared.bomb).await?;
                return Ok(true);
            }
            Trick::HugeHead => {
                self.line.write_all(b"HTTP/1.1 200 OK\r\nX: ").await?;
                let piece = [b'x'; 1024];
                for _ in 0..HUGE_HEAD_BYTES / piece.len() {
                    self.line.write_all(&piece).await?;
                }
                self.line.write_all(b"\r\n\r\n").await?;
                self.until_closed().await?;
            }
            Trick::InterimFlood => {
                let piece = b"HTTP/1.1 102 Processing\r\n\r\n".repeat(100);
                self.endless(b"", &piece).await?;
            }
            Trick::ContinueOnly => {
                self.line.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
                self.until_closed().await?;
            }
            Trick::NoContentWithBody => {
                self.take(&body);
                self.line.write_all(b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\ntaken").await?;
                return Ok(true);
            }
            Trick::TwoLengths => {
                let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\ntaken!";
                self.line.write_all(answer).await?;
                return Ok(true);
            }
            Trick::RedirectPrivate => {
                let to = &self.shared.settings.location;
                let head = format!("HTTP/1.1 307 Elsewhere\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n");
                self.line.write_all(head.as_bytes()).await?;
                return Ok(true);
            }
            Trick::RetryAfterSeconds => return self.say(&waits("1")).await,
            Trick::RetryAfterDate => {
                let then = SystemTime::now() + Duration::from_secs(2);
                return self.say(&waits(&httpdate::fmt_http_date(then))).await;
            }
            Trick::RetryAfterGarbage => return self.say(&waits("after lunch")).await,
            Trick::RetryAfterHuge => return self.say(&waits("99999999999")).await,
            Trick::RetryAfterNegative => return self.say(&waits("-1")).await,
            Trick::Gone => return self.say("HTTP/1.1 410 Gone\r\nContent-Length: 0\r\n\r\n").await,
            Trick::Stall | Trick::StallAfterRequest => self.until_closed().await?,
            // They trust it after all.
            Trick::WrongCertificate | Trick::ExpiredCertificate | Trick::OtherName => {
                self.take(&body);
                return self.say("HTTP/1.1 204 No Content\r\n\r\n").await;
            }
        }
        let _ = self.line.shutdown().await;
        Ok(false)
    }

    async fn say(&mut self, text: &str) -> io::Result<bool> {
        self.line.write_all(text.as_bytes()).await?;
        Ok(true)
    }

    async fn fill(&mut self) -> io::Result<usize> {
        self.got.reserve(PIECE_BYTES);
        self.line.read_buf(&mut self.got).await
    }

    /// The bytes of the head, and of the body that follows it.
    async fn head(&mut self) -> io::Result<(usize, usize)> {
        let end = loop {
            if let Some(at) = self.got.windows(4).position(|w| w == b"\r\n\r\n") {
                break at + 4;
            }
            if self.got.len() > HEAD_BYTES_MAX || self.fill().await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        };
        self.shared.requests.fetch_add(1, Ordering::SeqCst);
        let head = String::from_utf8_lossy(&self.got[..end]).to_ascii_lowercase();
        let value = |name: &str| head.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':')).map(str::trim);
        let length = value("content-length").and_then(|v| v.parse().ok());
        if length.is_none() || value("transfer-encoding").is_some() || value("expect").is_some() {
            self.shared.wrong.fetch_add(1, Ordering::SeqCst);
        }
        Ok((end, length.unwrap_or(0)))
    }

    /// Counts the events of a body as taken.
    fn take(&self, body: &[u8]) {
        match parse_body(body, None, 0) {
            Ok(records) => {
                let mut plan = self.shared.plan();
                for record in records {
                    *plan.taken.entry(record.key).or_default() += 1;
                }
            }
            Err(_) => {
                self.shared.wrong.fetch_add(1, Ordering::SeqCst);
            }
        }
    }

    /// Has the connection reset when it is dropped.
    fn reset(&self) -> io::Result<bool> {
        self.line.tcp().set_zero_linger()?;
        Ok(false)
    }

    async fn until_closed(&mut self) -> io::Result<()> {
        while self.fill().await? > 0 {
            self.got.clear();
        }
        Ok(())
    }

    /// Until they hang up.
    async fn endless(&mut self, head: &[u8], piece: &[u8]) -> io::Result<()> {
        self.line.write_all(head).await?;
        loop {
            self.line.write_all(piece).await?;
        }
    }
}
