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
            Some(pieces) => self.write_all(&pieces.iter().map(|p| &p[..]).collect::<Vec<_>>()).await,
        }
    }

    /// Whether all is sent, or why not.
    pub(crate) fn sent(&self) -> io::Result<bool> {
        self.socket().sent().map(|sent| sent.is_ready())
    }

    /// Reads some bytes; none at the end.
    pub(crate) async fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        poll_fn(|cx| match self {
            Stream::Plain(s) => Pin::new(s).poll_read(cx, buf),
            Stream::Tls(s) => Pin::new(s).poll_read(cx, buf),
        })
        .await
    }

    /// Writes the pieces one after the other, as few system calls as can be.
    async fn write_all(&mut self, pieces: &[&[u8]]) -> io::Result<()> {
        let mut piece = 0;
        let mut offset = 0;
        while piece < pieces.len() {
            let mut slices: [IoSlice<'_>; SLICES_MAX] = [IoSlice::new(&[]); SLICES_MAX];
            let mut n = 0;
            for p in &pieces[piece..] {
                if n == SLICES_MAX {
                    break;
                }
                slices[n] = IoSlice::new(if n == 0 { &p[offset..] } else { p });
                n += 1;
            }
            let mut wrote = poll_fn(|cx| self.poll_write_vectored(cx, &slices[..n])).await?;
            if wrote == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            while piece < pieces.len() && wrote >= pieces[piece].len() - offset {
                wrote -= pieces[piece].len() - offset;
                piece += 1;
                offset = 0;
            }
            offset += wrote;
        }
        self.flush().await
    }
}
