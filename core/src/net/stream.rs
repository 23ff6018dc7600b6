//! A connection to an endpoint, with TLS or without.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use futures_rustls::client::TlsStream;

use crate::driver;

/// How many slices one write is given; the system takes 1024 at most.
const SLICES_MAX: usize = 512;

/// See the module.
pub(crate) enum Stream {
    Plain(driver::Stream),
    Tls(Box<TlsStream<driver::Stream>>),
}

impl Stream {
    fn poll_write_vectored(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match self {
            Stream::Plain(s) => Pin::new(s).poll_write_vectored(cx, bufs),
            Stream::Tls(s) => Pin::new(s).poll_write_vectored(cx, bufs),
        }
    }

    async fn flush(&mut self) -> io::Result<()> {
        match self {
            Stream::Plain(_) => Ok(()),
            Stream::Tls(s) => s.flush().await,
        }
    }

    fn socket(&self) -> &driver::Stream {
        match self {
            Stream::Plain(s) => s,
            Stream::Tls(s) => s.get_ref().0,
        }
    }

    /// Whether it is known that nothing can be asked over it any more: the endpoint has closed it, or says something
    /// although it was not asked. Only of a connection that is idle.
    pub(crate) fn is_closed(&self) -> bool {
        // Under TLS there may be more to say than answers.
        self.socket().has_ended() || matches!(self, Stream::Plain(s) if s.has_input())
    }

    /// Sends the pieces one after the other. They may still be under way when this returns: [`Stream::sent`] tells.
    pub(crate) async fn send(&mut self, pieces: Vec<Bytes>) -> io::Result<()> {
        let pieces = match self {
            Stream::Plain(s) => s.send(pieces)?,
            Stream::Tls(_) => Some(pieces),
        };
        match pieces {
            None => Ok(()),
            Some(pieces) => self.write_all(&pieces).await,
        }
    }

    /// Whether all is sent, or why not.
    pub(crate) fn sent(&self) -> io::Result<bool> {
        self.socket().sent().map(|sent| sent.is_ready())
    }

    /// Reads some bytes; none at the end.
    pub(crate) fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        match self {
            Stream::Plain(s) => Pin::new(s).poll_read(cx, buf),
            Stream::Tls(s) => Pin::new(s).poll_read(cx, buf),
        }
    }

    /// Writes the pieces one after the other, as few system calls as can be.
    async fn write_all(&mut self, pieces: &[Bytes]) -> io::Result<()> {
        // Not an array, which every attempt would have room for.
        let mut slices: Vec<IoSlice<'_>> = pieces.iter().filter(|p| !p.is_empty()).map(|p| IoSlice::new(p)).collect();
        let mut rest = &mut slices[..];
        while !rest.is_empty() {
            let next = &rest[..rest.len().min(SLICES_MAX)];
            let wrote = poll_fn(|cx| self.poll_write_vectored(cx, next)).await?;
            if wrote == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            IoSlice::advance_slices(&mut rest, wrote);
        }
        self.flush().await
    }
}
