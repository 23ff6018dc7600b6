//! What the kernel is asked to do with a socket, and what it needs until it is done.
//!
//! An operation holds its socket and all memory that the kernel may look at, so that nothing of it goes before the last
//! word about it has come, whoever has lost interest meanwhile.

use std::cell::RefCell;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::task::Waker;

use bytes::Bytes;
use smallvec::SmallVec;
use socket2::SockAddr;

/// More slices than this the kernel takes in no message (`UIO_MAXIOV`).
const SLICES_MAX: usize = 1024;
/// So many are kept in the message itself.
const SLICES_INLINE: usize = 4;
/// So much room an empty inbox may keep.
const INBOX_KEPT_BYTES: usize = 16 << 10;

/// An operation under way.
pub(super) enum Op {
    /// Receives until it is told to stop.
    Receive(Rc<Socket>),
    Send(Rc<Socket>, Box<Message>),
    Connect(Rc<Socket>, #[expect(dead_code, reason = "the kernel reads it")] Box<SockAddr>),
    /// Waits until there is room to send.
    Writable(Rc<Socket>),
}

/// A connection as its stream and its operations share it.
pub(super) struct Socket {
    pub(super) fd: OwnedFd,
    pub(super) state: RefCell<State>,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) inbox: Inbox,
    /// How reception has ended, if it has.
    pub(super) end: Option<End>,
    pub(super) receiving: Receiving,
    pub(super) sending: Option<usize>,
    /// The number of the error that sending has ended with.
    pub(super) send_error: Option<i32>,
    pub(super) connecting: Connecting,
    pub(super) writable: Option<usize>,
    /// Who waits for bytes or for the connection.
    pub(super) reader: Option<Waker>,
    /// Who waits for room.
    pub(super) writer: Option<Waker>,
    /// The stream was dropped.
    pub(super) gone: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The other end sends no more.
    Closed,
    /// With the number of the error.
    Failed(i32),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Receiving {
    #[default]
    Off,
    On(usize),
    /// On, but told to stop, because nobody reads what comes.
    Stopping(usize),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Connecting {
    #[default]
    No,
    Under(usize),
    /// The number of the error, or 0.
    Done(i32),
}

/// Bytes that came and were not read yet.
#[derive(Default)]
pub(super) struct Inbox {
    bytes: Vec<u8>,
    read: usize,
}

impl Inbox {
    pub(super) fn len(&self) -> usize {
        self.bytes.len() - self.read
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Takes out what fits.
    pub(super) fn take(&mut self, out: &mut [u8]) -> usize {
        let n = self.len().min(out.len());
        out[..n].copy_from_slice(&self.bytes[self.read..self.read + n]);
        self.read += n;
        if self.read == self.bytes.len() {
            self.clear();
        }
        n
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.read = 0;
        if self.bytes.capacity() > INBOX_KEPT_BYTES {
            self.bytes = Vec::new();
        }
    }
}

/// Shared slices that go out one after the other.
pub(super) struct Message {
    /// What the slices lie in.
    _pieces: Vec<Bytes>,
    slices: SmallVec<[libc::iovec; SLICES_INLINE]>,
    /// The first slice that is not wholly sent.
    next: usize,
    header: libc::msghdr,
}

impl Message {
    pub(super) fn new(pieces: Vec<Bytes>) -> Box<Message> {
        let slice = |p: &Bytes| libc::iovec { iov_base: p.as_ptr().cast_mut().cast(), iov_len: p.len() };
        let slices = pieces.iter().filter(|p| !p.is_empty()).map(slice).collect();
        // SAFETY: plain data, for which zeros mean that there is nothing.
        let header = unsafe { std::mem::zeroed::<libc::msghdr>() };
        Box::new(Message { _pieces: pieces, slices, next: 0, header })
    }

    pub(super) fn is_sent(&self) -> bool {
        self.next == self.slices.len()
    }

    /// Notes that so many more bytes are sent.
    pub(super) fn advance(&mut self, mut sent: usize) {
        while let Some(slice) = self.slices.get_mut(self.next) {
            if sent < slice.iov_len {
                slice.iov_base = slice.iov_base.cast::<u8>().wrapping_add(sent).cast();
                slice.iov_len -= sent;
                return;
            }
            sent -= slice.iov_len;
            self.next += 1;
        }
    }

    /// For the kernel: what is left to send, or as much of it as it takes at once. Valid as long as the message stays where
    /// it is and is not changed.
    pub(super) fn rest(&mut self) -> *const libc::msghdr {
        let rest = &mut self.slices[self.next..];
        self.header.msg_iov = rest.as_mut_ptr();
        self.header.msg_iovlen = rest.len().min(SLICES_MAX) as _;
        &self.header
    }

    /// The same if it is in one piece.
    pub(super) fn only_piece(&self) -> Option<(*const u8, u32)> {
        match &self.slices[self.next..] {
            [one] => Some((one.iov_base.cast_const().cast(), u32::try_from(one.iov_len).ok()?)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_goes_on_where_it_was_left() {
        let mut m = Message::new(vec!["head".into(), Bytes::new(), "body".into(), "!".into()]);
        let left = |m: &Message| -> usize { m.slices[m.next..].iter().map(|s| s.iov_len).sum() };
        assert_eq!((left(&m), m.slices.len()), (9, 3), "empty pieces are left out");
        m.advance(3);
        m.advance(1);
        assert_eq!((left(&m), m.next), (5, 1));
        // SAFETY: the header and its slices were just made from live memory.
        let rest = unsafe { &*m.rest() };
        assert_eq!(rest.msg_iovlen as usize, 2);
        assert!(m.only_piece().is_none());
        m.advance(4);
        assert_eq!(m.only_piece().map(|p| p.1), Some(1));
        m.advance(1);
        assert!(m.is_sent());
        assert!(Message::new(vec![Bytes::new()]).is_sent());
        let mut long = Message::new(vec![Bytes::from_static(b"x"); 3000]);
        // SAFETY: as above.
        assert_eq!(unsafe { &*long.rest() }.msg_iovlen as usize, SLICES_MAX);
        long.advance(2999);
        assert_eq!(left(&long), 1);
    }

    #[test]
    fn an_inbox_gives_in_order_and_keeps_little() {
        let mut inbox = Inbox::default();
        inbox.push(b"abc");
        let mut out = [0; 2];
        assert_eq!((inbox.take(&mut out), &out), (2, b"ab"));
        inbox.push(b"d");
        assert_eq!((inbox.take(&mut out), &out), (2, b"cd"));
        assert_eq!(inbox.take(&mut out), 0);
        inbox.push(&vec![0; 1 << 20]);
        inbox.take(&mut vec![0; 1 << 20]);
        assert!(inbox.bytes.capacity() <= INBOX_KEPT_BYTES);
    }
}
