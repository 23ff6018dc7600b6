//! A connection whose operations are the ring's.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::io::{AsyncRead, AsyncWrite};
use socket2::{Domain, Protocol, SockAddr, Socket as System, Type};

use super::Sockets;
use super::op::{Connecting, End, Receiving, Socket, State};
use super::ring::Ring;
use crate::driver::SocketOptions;
use crate::driver::stream::set_options;

/// See the module. Dropping it closes the connection once the kernel has let go of it.
pub struct Stream {
    socket: Rc<Socket>,
    sockets: Rc<Sockets>,
}

impl Stream {
    /// Connects over TCP. The caller sets the limit.
    pub(in crate::driver) async fn connect(
        sockets: Rc<Sockets>,
        address: SocketAddr,
        options: &SocketOptions,
    ) -> io::Result<Stream> {
        let socket = System::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        set_options(&socket, options)?;
        Stream::connected(sockets, socket, address.into()).await
    }

    /// Connects to a Unix socket. The caller sets the limit.
    pub(in crate::driver) async fn connect_unix(sockets: Rc<Sockets>, path: &Path) -> io::Result<Stream> {
        let socket = System::new(Domain::UNIX, Type::STREAM, None)?;
        Stream::connected(sockets, socket, SockAddr::unix(path)?).await
    }

    async fn connected(sockets: Rc<Sockets>, socket: System, address: SockAddr) -> io::Result<Stream> {
        let socket = Rc::new(Socket { fd: OwnedFd::from(socket), state: State::default().into() });
        let stream = Stream { socket, sockets };
        stream.with_ring(|ring| ring.connect(&stream.socket, address))?;
        std::future::poll_fn(|cx| {
            let mut state = stream.socket.state.borrow_mut();
            match state.connecting {
                Connecting::Done(0) => Poll::Ready(Ok(())),
                Connecting::Done(error) => Poll::Ready(Err(io::Error::from_raw_os_error(error))),
                _ => {
                    stream.sockets.wait(&mut state.reader, cx);
                    Poll::Pending
                }
            }
        })
        .await?;
        stream.with_ring(|ring| ring.receive(&stream.socket))?;
        Ok(stream)
    }

    #[cfg(test)]
    pub(super) fn socket(&self) -> &Socket {
        &self.socket
    }

    fn with_ring(&self, act: impl FnOnce(&mut Ring)) -> io::Result<()> {
        self.sockets.with_ring(act).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// Has the pieces sent, one after the other, after all that was written before. What becomes of them tells
    /// [`Stream::sent`].
    ///
    /// # Errors
    /// If something else is still being sent, or the ring has ended.
    pub fn send(&self, pieces: Vec<Bytes>) -> io::Result<()> {
        if self.sent()?.is_pending() {
            return Err(io::Error::other("something else is being sent"));
        }
        self.with_ring(|ring| ring.send(&self.socket, pieces))
    }

    /// Whether all is sent.
    ///
    /// # Errors
    /// What sending has ended with.
    pub fn sent(&self) -> io::Result<Poll<()>> {
        let state = self.socket.state.borrow();
        match (state.send_error, state.sending) {
            (Some(error), _) => Err(io::Error::from_raw_os_error(error)),
            (None, Some(_)) => Ok(Poll::Pending),
            (None, None) => Ok(Poll::Ready(())),
        }
    }

    /// Whether the other end has closed the connection, or it broke.
    pub fn has_ended(&self) -> bool {
        let state = self.socket.state.borrow();
        state.end.is_some() || state.send_error.is_some()
    }

    /// Whether something has come that was not read.
    pub fn has_input(&self) -> bool {
        self.socket.state.borrow().inbox.len() > 0
    }

    /// Sends what there is room for; if there is none, waits for some.
    fn poll_send(&self, cx: &Context<'_>, slices: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let mut state = self.socket.state.borrow_mut();
        if let Some(error) = state.send_error {
            return Poll::Ready(Err(io::Error::from_raw_os_error(error)));
        }
        if state.sending.is_none() && state.writable.is_none() {
            let sent = send_now(&self.socket.fd, slices);
            if !matches!(&sent, Err(e) if e.kind() == io::ErrorKind::WouldBlock) {
                return Poll::Ready(sent);
            }
            drop(state);
            if let Err(e) = self.with_ring(|ring| ring.await_writable(&self.socket)) {
                return Poll::Ready(Err(e));
            }
            state = self.socket.state.borrow_mut();
        }
        self.sockets.wait(&mut state.writer, cx);
        Poll::Pending
    }
}

/// The descriptor is a blocking one, as the ring wants it; this call does not block.
fn send_now(fd: &OwnedFd, slices: &[io::IoSlice<'_>]) -> io::Result<usize> {
    // SAFETY: plain data, for which zeros mean that there is nothing.
    let mut header = unsafe { std::mem::zeroed::<libc::msghdr>() };
    // An `IoSlice` is an iovec, and these are only read.
    header.msg_iov = slices.as_ptr().cast_mut().cast();
    header.msg_iovlen = slices.len() as _;
    loop {
        // SAFETY: the descriptor is open, and the slices are valid during the call.
        let sent = unsafe { libc::sendmsg(fd.as_raw_fd(), &header, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) };
        match usize::try_from(sent) {
            Ok(n) => return Ok(n),
            Err(_) => match io::Error::last_os_error() {
                e if e.kind() == io::ErrorKind::Interrupted => {}
                e => return Err(e),
            },
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut state = self.socket.state.borrow_mut();
        let n = state.inbox.take(buf);
        let resumes = state.inbox.len() == 0 && state.receiving == Receiving::Off && state.end.is_none();
        if n == 0 && !buf.is_empty() {
            match state.end {
                Some(End::Closed) => return Poll::Ready(Ok(0)),
                Some(End::Failed(error)) => return Poll::Ready(Err(io::Error::from_raw_os_error(error))),
                None => self.sockets.wait(&mut state.reader, cx),
            }
        }
        drop(state);
        if resumes && let Err(e) = self.with_ring(|ring| ring.receive(&self.socket)) {
            return Poll::Ready(Err(e));
        }
        if n == 0 && !buf.is_empty() { Poll::Pending } else { Poll::Ready(Ok(n)) }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_send(cx, &[io::IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_send(cx, bufs)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // SAFETY: the descriptor is open; the call takes no pointers.
        match unsafe { libc::shutdown(self.socket.fd.as_raw_fd(), libc::SHUT_WR) } {
            0 => Poll::Ready(Ok(())),
            _ => Poll::Ready(Err(io::Error::last_os_error())),
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let mut state = self.socket.state.borrow_mut();
        state.gone = true;
        state.inbox.clear();
        let waiters = [state.reader.take(), state.writer.take()];
        let receiving = match state.receiving {
            Receiving::On(key) => Some(key),
            // It was told to stop already.
            Receiving::Off | Receiving::Stopping(_) => None,
        };
        let connecting = match state.connecting {
            Connecting::Under(key) => Some(key),
            _ => None,
        };
        let under_way = [receiving, state.sending, connecting, state.writable];
        drop(state);
        self.sockets.waited(waiters.iter().flatten().count());
        if under_way.iter().any(Option::is_some) {
            self.sockets.with_ring(|ring| under_way.into_iter().flatten().for_each(|key| ring.cancel(key)));
        }
    }
}
