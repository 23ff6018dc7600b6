//! Connections of a shard.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::io::{AsyncRead, AsyncWrite};

use super::glommio as ring;
#[cfg(feature = "sim")]
use super::sim;

/// When a TCP connection is given up whose other end is silent.
#[derive(Clone, Copy, Debug)]
pub struct SocketOptions {
    /// How long what was sent may stay without an acknowledgement, or the other end's window closed, before the connection
    /// is given up (`TCP_USER_TIMEOUT`).
    pub user_timeout: Duration,
    /// How long a connection may be quiet before the kernel asks whether the other end is there (`TCP_KEEPIDLE`), and how
    /// often it asks then, at least 1 s.
    pub keep_alive: Duration,
}

/// A connection of a shard.
pub enum Stream {
    /// TCP, of the io_uring runtime.
    Tcp(ring::TcpStream),
    /// A Unix socket, of the io_uring runtime.
    Unix(ring::UnixStream),
    /// Of a simulation.
    #[cfg(feature = "sim")]
    Sim(sim::net::Stream),
}

impl Stream {
    /// Connects over TCP. The caller sets the limit.
    pub async fn connect(address: SocketAddr, options: &SocketOptions) -> io::Result<Stream> {
        #[cfg(feature = "sim")]
        if let Some(world) = sim::current() {
            return sim::net::Net::connect(&world, address).await.map(Stream::Sim);
        }
        ring::TcpStream::connect(address, options).await.map(Stream::Tcp)
    }

    /// Connects to a Unix socket. The caller sets the limit.
    pub async fn connect_unix(path: &Path) -> io::Result<Stream> {
        #[cfg(feature = "sim")]
        if sim::active() {
            return Err(io::ErrorKind::NotFound.into());
        }
        ring::UnixStream::connect(path).await.map(Stream::Unix)
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Tcp(s) => Pin::new(s).poll_read(cx, buf),
            Stream::Unix(s) => Pin::new(s).poll_read(cx, buf),
            #[cfg(feature = "sim")]
            Stream::Sim(s) => s.poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Tcp(s) => Pin::new(s).poll_write(cx, buf),
            Stream::Unix(s) => Pin::new(s).poll_write(cx, buf),
            #[cfg(feature = "sim")]
            Stream::Sim(s) => Poll::Ready(s.write(buf)),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Tcp(s) => Pin::new(s).poll_write_vectored(cx, bufs),
            Stream::Unix(s) => Pin::new(s).poll_write_vectored(cx, bufs),
            #[cfg(feature = "sim")]
            Stream::Sim(s) => Poll::Ready(bufs.iter().try_fold(0, |n, b| Ok(n + s.write(b)?))),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Tcp(s) => Pin::new(s).poll_flush(cx),
            Stream::Unix(s) => Pin::new(s).poll_flush(cx),
            #[cfg(feature = "sim")]
            Stream::Sim(_) => Poll::Ready(Ok(())),
        }
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Tcp(s) => Pin::new(s).poll_close(cx),
            Stream::Unix(s) => Pin::new(s).poll_close(cx),
            #[cfg(feature = "sim")]
            Stream::Sim(_) => Poll::Ready(Ok(())),
        }
    }
}
