//! Connections of a shard.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::io::{AsyncRead, AsyncWrite};
use socket2::{SockRef, TcpKeepalive};

#[cfg(feature = "sim")]
use super::sim;
use super::{glommio as ring, sockets};

/// Whose sockets connections are made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Sockets {
    /// Those of a ring of io_uring that a shard has for them alone, made for many requests at once; where the kernel
    /// refuses it (it takes Linux 6.0), those of the runtime.
    #[default]
    Ring,
    /// Those of the runtime.
    Runtime,
}

/// How connections are made, and when one is given up whose other end is silent.
#[derive(Clone, Copy, Debug)]
pub struct SocketOptions {
    /// Whose sockets.
    pub sockets: Sockets,
    /// How long what was sent may stay without an acknowledgement, or the other end's window closed, before the connection
    /// is given up (`TCP_USER_TIMEOUT`).
    pub user_timeout: Duration,
    /// How long a connection may be quiet before the kernel asks whether the other end is there (`TCP_KEEPIDLE`), and how
    /// often it asks then, at least 1 s.
    pub keep_alive: Duration,
}

/// Sets them on a socket, and that nothing is held back.
pub(super) fn set_options<'a>(socket: impl Into<SockRef<'a>>, options: &SocketOptions) -> io::Result<()> {
    let socket = socket.into();
    let alive = TcpKeepalive::new().with_time(options.keep_alive).with_interval(options.keep_alive);
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_user_timeout(Some(options.user_timeout))?;
    socket.set_tcp_keepalive(&alive)
}

/// A connection of a shard.
pub enum Stream {
    /// On the ring of sockets.
    Ring(sockets::Stream),
    /// TCP, of the runtime.
    Tcp(ring::TcpStream),
    /// A Unix socket, of the runtime.
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
        match sockets::usable(options.sockets) {
            Some(sockets) => sockets::Stream::connect(sockets, address, options).await.map(Stream::Ring),
            None => ring::TcpStream::connect(address, options).await.map(Stream::Tcp),
        }
    }

    /// Connects to a Unix socket. The caller sets the limit.
    pub async fn connect_unix(path: &Path, options: &SocketOptions) -> io::Result<Stream> {
        #[cfg(feature = "sim")]
        if sim::active() {
            return Err(io::ErrorKind::NotFound.into());
        }
        match sockets::usable(options.sockets) {
            Some(sockets) => sockets::Stream::connect_unix(sockets, path).await.map(Stream::Ring),
            None => ring::UnixStream::connect(path).await.map(Stream::Unix),
        }
    }

    /// Has shared pieces sent without a copy and without waiting for it; [`Stream::sent`] tells what becomes of them. Gives
    /// them back where that cannot be: there they are to be written.
    ///
    /// # Errors
    /// If something else is still being sent, or the connection is of a shard that has ended.
    pub fn send(&self, pieces: Vec<Bytes>) -> io::Result<Option<Vec<Bytes>>> {
        match self {
            Stream::Ring(s) => s.send(pieces).map(|()| None),
            _ => Ok(Some(pieces)),
        }
    }

    /// Whether all that was given to [`Stream::send`] is sent.
    ///
    /// # Errors
    /// What sending has ended with.
    pub fn sent(&self) -> io::Result<Poll<()>> {
        match self {
            Stream::Ring(s) => s.sent(),
            _ => Ok(Poll::Ready(())),
        }
    }

    /// Whether the other end is known to have closed the connection, or it broke.
    pub fn has_ended(&self) -> bool {
        matches!(self, Stream::Ring(s) if s.has_ended())
    }

    /// Whether something is known to have come that was not read.
    pub fn has_input(&self) -> bool {
        matches!(self, Stream::Ring(s) if s.has_input())
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Ring(s) => Pin::new(s).poll_read(cx, buf),
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
            Stream::Ring(s) => Pin::new(s).poll_write(cx, buf),
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
            Stream::Ring(s) => Pin::new(s).poll_write_vectored(cx, bufs),
            Stream::Tcp(s) => Pin::new(s).poll_write_vectored(cx, bufs),
            Stream::Unix(s) => Pin::new(s).poll_write_vectored(cx, bufs),
            #[cfg(feature = "sim")]
            Stream::Sim(s) => Poll::Ready(bufs.iter().try_fold(0, |n, b| Ok(n + s.write(b)?))),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Ring(s) => Pin::new(s).poll_flush(cx),
            Stream::Tcp(s) => Pin::new(s).poll_flush(cx),
            Stream::Unix(s) => Pin::new(s).poll_flush(cx),
            #[cfg(feature = "sim")]
            Stream::Sim(_) => Poll::Ready(Ok(())),
        }
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Ring(s) => Pin::new(s).poll_close(cx),
            Stream::Tcp(s) => Pin::new(s).poll_close(cx),
            Stream::Unix(s) => Pin::new(s).poll_close(cx),
            #[cfg(feature = "sim")]
            Stream::Sim(_) => Poll::Ready(Ok(())),
        }
    }
}
