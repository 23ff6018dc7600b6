//! Connections of a shard.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::io::{AsyncRead, AsyncWrite};

use super::glommio as ring;
#[cfg(feature = "sim")]
use super::sim;

/// A TCP connection of a shard.
pub enum TcpStream {
    /// Of the io_uring runtime.
    Ring(ring::TcpStream),
    /// Of a simulation.
    #[cfg(feature = "sim")]
    Sim(sim::net::Stream),
}

impl TcpStream {
    /// Connects. The caller sets the limit.
    pub async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
        #[cfg(feature = "sim")]
        if let Some(world) = sim::current() {
            return sim::net::Net::connect(&world, address).await.map(TcpStream::Sim);
        }
        ring::TcpStream::connect(address).await.map(TcpStream::Ring)
    }
}

impl AsyncRead for TcpStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            TcpStream::Ring(s) => Pin::new(s).poll_read(cx, buf),
            #[cfg(feature = "sim")]
            TcpStream::Sim(s) => s.poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for TcpStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            TcpStream::Ring(s) => Pin::new(s).poll_write(cx, buf),
            #[cfg(feature = "sim")]
            TcpStream::Sim(s) => Poll::Ready(s.write(buf)),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            TcpStream::Ring(s) => Pin::new(s).poll_write_vectored(cx, bufs),
            #[cfg(feature = "sim")]
            TcpStream::Sim(s) => Poll::Ready(bufs.iter().try_fold(0, |n, b| Ok(n + s.write(b)?))),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            TcpStream::Ring(s) => Pin::new(s).poll_flush(cx),
            #[cfg(feature = "sim")]
            TcpStream::Sim(_) => Poll::Ready(Ok(())),
        }
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            TcpStream::Ring(s) => Pin::new(s).poll_close(cx),
            #[cfg(feature = "sim")]
            TcpStream::Sim(_) => Poll::Ready(Ok(())),
        }
    }
}
