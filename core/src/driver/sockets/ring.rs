//! The ring itself: operations go in, completions come out and are told to the sockets. Nothing here waits.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::atomic::{Ordering, fence};
use std::task::Waker;
use std::time::Duration;

use bytes::Bytes;
use io_uring::{IoUring, cqueue, opcode, squeue, types};
use slab::Slab;
use socket2::SockAddr;

use super::OPERATIONS;
use super::buffers::{self, Buffers};
use super::op::{Connecting, End, Message, Op, Receiving, Socket, State};
use crate::driver;

/// Operations that one system call takes; what is more waits for the next one.
const SUBMISSIONS: u32 = 256;
/// Completions that the ring has room for; the kernel keeps more of them elsewhere until there is room.
const COMPLETIONS: u32 = 4096;
/// When so much has come that nobody has read, no more is received.
const INBOX_BYTES_MAX: usize = 64 << 10;
/// Marks completions that nobody waits for.
const NOBODY: u64 = u64::MAX;
/// `IORING_ENTER_GETEVENTS`.
const GET_EVENTS: u32 = 1;

/// See the module.
pub(super) struct Ring {
    ring: IoUring,
    bell: Option<Bell>,
    /// By the number that the kernel knows them by.
    ops: Slab<Op>,
    buffers: Option<Buffers>,
    /// What did not fit into the submission queue.
    backlog: VecDeque<squeue::Entry>,
    completed: Vec<cqueue::Entry>,
    /// So many of `ops` are in the count of all shards.
    counted: usize,
    /// The kernel says that completions wait, but did not give any when it was asked.
    stale: bool,
}

/// Tells of completions where the ring's own descriptor does not: with `IORING_SETUP_DEFER_TASKRUN` that one becomes
/// readable only when somebody has entered the ring. It also costs less while nobody has to be told, for it can be silenced.
struct Bell(OwnedFd);

impl Bell {
    fn register(ring: &IoUring) -> io::Result<Bell> {
        let fd = driver::eventfd(0)?;
        ring.submitter().register_eventfd(fd.as_raw_fd())?;
        Ok(Bell(fd))
    }

    fn clear(&self) {
        let mut rung = 0u64;
        // SAFETY: the descriptor is open, and there is room for the eight bytes that it gives. It may have none to give.
        unsafe { libc::read(self.0.as_raw_fd(), (&raw mut rung).cast(), size_of::<u64>()) };
    }
}

/// How a round looks into the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Enter {
    /// If something says that there is news, or something is to be submitted.
    ForNews,
    /// Whatever anything says.
    Anyway,
    /// Until so many completions have come, but for so long at most.
    Gather(u32, Duration),
}

/// What a round has brought.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Round {
    pub(super) completed: usize,
    /// As many have completed as it was slept for.
    pub(super) gathered: bool,
    /// Receptions that found no buffer free.
    pub(super) starved: u64,
}

impl Ring {
    /// A ring, tried out: an older kernel takes the flags of some operations without knowing them.
    pub(super) fn new() -> io::Result<Ring> {
        // Completions wait until this thread asks for them.
        match Ring::builder().setup_single_issuer().setup_defer_taskrun().build(SUBMISSIONS) {
            Ok(ring) => {
                let bell = Bell::register(&ring)?;
                Ring::tried(ring, Some(bell))
            }
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => Ring::before_6_1(),
            Err(e) => Err(e),
        }
    }

    /// The same for a Linux before 6.1: there they wait until the thread enters the kernel for whatever reason, and dealing
    /// with them costs more.
    pub(super) fn before_6_1() -> io::Result<Ring> {
        Ring::tried(Ring::builder().setup_coop_taskrun().build(SUBMISSIONS)?, None)
    }

    fn builder() -> io_uring::Builder<squeue::Entry, cqueue::Entry> {
        let mut builder = IoUring::builder();
        builder.setup_taskrun_flag().setup_submit_all().setup_cqsize(COMPLETIONS);
        builder
    }

    fn tried(ring: IoUring, bell: Option<Bell>) -> io::Result<Ring> {
        let buffers = Buffers::register(&ring)?;
        let mut ring = Ring {
            ring,
            bell,
            ops: Slab::new(),
            buffers: Some(buffers),
            backlog: VecDeque::new(),
            completed: Vec::new(),
            counted: 0,
            stale: false,
        };
        ring.disarm();
        ring.try_out()?;
        Ok(ring)
    }

    /// What is readable once a completion has come while the bell was armed.
    pub(super) fn fd(&self) -> RawFd {
        self.bell.as_ref().map_or(self.ring.as_raw_fd(), |bell| bell.0.as_raw_fd())
    }

    #[cfg(test)]
    pub(super) fn kernel_fd(&self) -> RawFd {
        self.ring.as_raw_fd()
    }

    /// To be called before this thread sleeps. Who then finds nothing to do is told of what comes after.
    pub(super) fn arm(&mut self) {
        if self.bell.is_some() {
            self.ring.completion().enable_eventfd();
            // Either the kernel sees this, or who looks for completions next sees the one that it does not tell of.
            fence(Ordering::SeqCst);
        }
    }

    /// While this thread is awake, it does not have to be told.
    pub(super) fn disarm(&mut self) {
        if let Some(bell) = &self.bell {
            self.ring.completion().disable_eventfd();
            bell.clear();
        }
    }

    fn try_out(&mut self) -> io::Result<()> {
        let (ours, mut theirs) = UnixStream::pair()?;
        theirs.write_all(b"?")?;
        let socket = Rc::new(Socket { fd: OwnedFd::from(ours), state: State::default().into() });
        self.receive(&socket);
        // Both ends are here, so neither wait can take long.
        self.enter(1)?;
        self.round(Enter::ForNews, &mut Vec::new())?;
        if socket.state.borrow().inbox.len() == 1 && socket.state.borrow().receiving != Receiving::Off {
            drop(theirs);
            self.enter(1)?;
            self.round(Enter::ForNews, &mut Vec::new())?;
        }
        if self.ops.is_empty() && socket.state.borrow().end == Some(End::Closed) {
            return Ok(());
        }
        Err(io::Error::new(io::ErrorKind::Unsupported, "the kernel does not receive repeatedly"))
    }

    /// Whether no operation is under way.
    pub(super) fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// Whether a round has something to do.
    pub(super) fn has_work(&mut self) -> bool {
        let (_, sq, cq) = self.ring.split();
        let waits = sq.taskrun() && !self.stale;
        !sq.is_empty() || !self.backlog.is_empty() || !cq.is_empty() || waits || sq.cq_overflow()
    }

    /// Whether there are completions, or what becomes some, that a round has not seen.
    pub(super) fn has_completions(&mut self) -> bool {
        let (_, sq, cq) = self.ring.split();
        !cq.is_empty() || (sq.taskrun() && !self.stale)
    }

    /// Whether the kernel's word that completions wait means nothing. It puts work on a list first and says so after that;
    /// if this thread takes the work between the two, the word is left standing until there is other work, and only the
    /// descriptor or a look into the kernel tells of that.
    pub(super) fn is_stale(&self) -> bool {
        self.stale
    }

    /// Receives from now on.
    pub(super) fn receive(&mut self, socket: &Rc<Socket>) {
        let key = self.ops.insert(Op::Receive(socket.clone()));
        let fd = types::Fd(socket.fd.as_raw_fd());
        socket.state.borrow_mut().receiving = Receiving::On(key);
        self.push(opcode::RecvMulti::new(fd, buffers::GROUP).build().user_data(key as u64));
    }

    /// Sends the pieces one after the other. The caller sees to it that nothing else is being sent.
    pub(super) fn send(&mut self, socket: &Rc<Socket>, pieces: Vec<Bytes>) {
        let message = Message::new(pieces);
        if message.is_sent() {
            return;
        }
        let key = self.ops.insert(Op::Send(socket.clone(), message));
        socket.state.borrow_mut().sending = Some(key);
        self.push_send(key);
    }

    fn push_send(&mut self, key: usize) {
        let Some(Op::Send(socket, message)) = self.ops.get_mut(key) else { return };
        let fd = types::Fd(socket.fd.as_raw_fd());
        // A part that was sent is no news: the kernel goes on with the rest by itself.
        let flags = libc::MSG_NOSIGNAL | libc::MSG_WAITALL;
        let entry = match message.only_piece() {
            Some((bytes, len)) => opcode::Send::new(fd, bytes, len).flags(flags).build(),
            None => opcode::SendMsg::new(fd, message.rest()).flags(flags as u32).build(),
        };
        self.push(entry.user_data(key as u64));
    }

    pub(super) fn connect(&mut self, socket: &Rc<Socket>, address: SockAddr) {
        let address = Box::new(address);
        let (at, len) = (address.as_ptr().cast::<libc::sockaddr>(), address.len());
        let key = self.ops.insert(Op::Connect(socket.clone(), address));
        socket.state.borrow_mut().connecting = Connecting::Under(key);
        self.push(opcode::Connect::new(types::Fd(socket.fd.as_raw_fd()), at, len).build().user_data(key as u64));
    }

    /// Waits for room to send.
    pub(super) fn await_writable(&mut self, socket: &Rc<Socket>) {
        let key = self.ops.insert(Op::Writable(socket.clone()));
        socket.state.borrow_mut().writable = Some(key);
        let fd = types::Fd(socket.fd.as_raw_fd());
        self.push(opcode::PollAdd::new(fd, libc::POLLOUT as u32).build().user_data(key as u64));
    }

    /// Asks the kernel to let go of an operation; it still tells its end.
    pub(super) fn cancel(&mut self, key: usize) {
        self.push(opcode::AsyncCancel::new(key as u64).build().user_data(NOBODY));
    }

    /// The same for all.
    pub(super) fn cancel_all(&mut self) {
        let keys: Vec<usize> = self.ops.iter().map(|(key, _)| key).collect();
        for key in keys {
            self.cancel(key);
        }
    }

    /// Completes without having done anything, so that who waits for the ring's descriptor is woken. The completion is left
    /// where it is, for the runtime may not have begun to wait yet: one that was taken out before that tells nobody.
    pub(super) fn nudge(&mut self) -> io::Result<()> {
        self.arm();
        self.push(opcode::Nop::new().build().user_data(NOBODY));
        self.submit()
    }

    fn push(&mut self, entry: squeue::Entry) {
        // SAFETY: what the entry points to belongs to an operation in `ops` and stays until its last completion.
        if !self.backlog.is_empty() || unsafe { self.ring.submission().push(&entry) }.is_err() {
            self.backlog.push_back(entry);
        }
    }

    /// Submits, and waits for so many completions.
    fn enter(&mut self, wait: u32) -> io::Result<()> {
        let queued = self.ring.submission().len() as u32;
        // SAFETY: no argument is passed.
        unsafe { self.ring.submitter().enter::<libc::sigset_t>(queued, wait, GET_EVENTS, None)? };
        Ok(())
    }

    /// Submits without waiting. What is not taken stays queued: room comes with the completions that are dealt with.
    fn submit(&mut self) -> io::Result<()> {
        match self.enter(0) {
            Err(e) if matches!(e.raw_os_error(), Some(libc::EAGAIN | libc::EBUSY | libc::EINTR)) => Ok(()),
            other => other,
        }
    }

    /// As [`Ring::submit`], but the thread sleeps until so many completions have come beside one for each operation that goes
    /// in, or for so long at most. How many it was slept for.
    fn submit_and_gather(&mut self, completions: u32, limit: Duration) -> io::Result<usize> {
        let want = self.ring.submission().len() + completions as usize;
        let limit = types::Timespec::from(limit);
        match self.ring.submitter().submit_with_args(want, &types::SubmitArgs::new().timespec(&limit)) {
            Err(e) if matches!(e.raw_os_error(), Some(libc::ETIME | libc::EAGAIN | libc::EBUSY | libc::EINTR)) => {
                Ok(want)
            }
            other => other.map(|_| want),
        }
    }

    /// Submits what is queued, if anything is, and deals with what is completed; how it looks for that says `enter`. Whom it
    /// concerns is appended to `wakers`.
    ///
    /// # Errors
    /// If the ring cannot be used any more.
    pub(super) fn round(&mut self, enter: Enter, wakers: &mut Vec<Waker>) -> io::Result<Round> {
        let enters = {
            let (_, mut sq, _) = self.ring.split();
            while let Some(entry) = self.backlog.front() {
                // SAFETY: as in `push`.
                if unsafe { sq.push(entry) }.is_err() {
                    break;
                }
                self.backlog.pop_front();
            }
            enter != Enter::ForNews || !sq.is_empty() || sq.taskrun() || sq.cq_overflow()
        };
        let mut wanted = 0;
        match enter {
            Enter::Gather(completions, limit) => wanted = self.submit_and_gather(completions, limit)?,
            _ if enters => self.submit()?,
            _ => {}
        }
        let mut completed = std::mem::take(&mut self.completed);
        completed.extend(self.ring.completion());
        let mut round = Round { completed: completed.len(), gathered: completed.len() >= wanted, starved: 0 };
        if enters {
            self.stale = completed.is_empty() && self.ring.submission().taskrun();
        }
        for c in completed.drain(..) {
            if c.user_data() != NOBODY {
                self.complete(c.user_data() as usize, c.result(), c.flags(), wakers, &mut round);
            }
        }
        self.completed = completed;
        self.count();
        Ok(round)
    }

    /// Once per round, so that a request costs no word that shards contend for.
    fn count(&mut self) {
        let now = self.ops.len();
        if now != self.counted {
            OPERATIONS.fetch_add((now as u64).wrapping_sub(self.counted as u64), Ordering::Relaxed);
            self.counted = now;
        }
    }

    fn complete(&mut self, key: usize, result: i32, flags: u32, wakers: &mut Vec<Waker>, round: &mut Round) {
        let Some(op) = self.ops.get_mut(key) else {
            log::error!("the kernel tells of an operation that is over; a defect of Tidewire");
            return;
        };
        match op {
            Op::Receive(socket) => {
                let socket = socket.clone();
                self.received(&socket, key, result, flags, wakers, round);
            }
            Op::Send(socket, message) => {
                message.advance(usize::try_from(result).unwrap_or(0));
                let again = result == -libc::EINTR || (result > 0 && !message.is_sent());
                if again && !socket.state.borrow().gone {
                    return self.push_send(key);
                }
                let mut state = socket.state.borrow_mut();
                state.sending = None;
                if !message.is_sent() {
                    state.send_error = Some(if result < 0 { -result } else { libc::EPIPE });
                }
                wakers.extend(state.writer.take());
                drop(state);
                self.ops.remove(key);
            }
            Op::Connect(socket, _) => {
                let mut state = socket.state.borrow_mut();
                state.connecting = Connecting::Done(-result);
                wakers.extend(state.reader.take());
                drop(state);
                self.ops.remove(key);
            }
            Op::Writable(socket) => {
                let mut state = socket.state.borrow_mut();
                state.writable = None;
                wakers.extend(state.writer.take());
                drop(state);
                self.ops.remove(key);
            }
        }
    }

    fn received(
        &mut self,
        socket: &Rc<Socket>,
        key: usize,
        result: i32,
        flags: u32,
        wakers: &mut Vec<Waker>,
        round: &mut Round,
    ) {
        let mut state = socket.state.borrow_mut();
        if let (Some(buffer), Some(buffers)) = (cqueue::buffer_select(flags), &mut self.buffers) {
            if result > 0 && !state.gone {
                state.inbox.push(buffers.bytes(buffer, result as usize));
            }
            buffers.give_back(buffer);
        }
        let full = state.inbox.len() >= INBOX_BYTES_MAX;
        if cqueue::more(flags) {
            if full && state.receiving == Receiving::On(key) {
                state.receiving = Receiving::Stopping(key);
                wakers.extend(state.reader.take());
                drop(state);
                return self.cancel(key);
            }
            wakers.extend(state.reader.take());
            return;
        }
        let stopped = state.receiving == Receiving::Stopping(key);
        state.receiving = Receiving::Off;
        match result {
            0 => state.end = Some(End::Closed),
            1.. => {}
            // All buffers were in use. They are free again by now.
            e if e == -libc::ENOBUFS => round.starved += 1,
            e if e == -libc::EINTR || (e == -libc::ECANCELED && stopped) => {}
            e => state.end = Some(End::Failed(-e)),
        }
        let goes_on = state.end.is_none() && !full && !state.gone;
        if !goes_on || result > 0 {
            wakers.extend(state.reader.take());
        }
        drop(state);
        self.ops.remove(key);
        if goes_on {
            self.receive(socket);
        }
    }

    /// Tells all sockets that nothing will come of what they wait for. The ring must not be used after.
    pub(super) fn fail(&mut self, wakers: &mut Vec<Waker>) {
        for (_, op) in &self.ops {
            let (Op::Receive(s) | Op::Send(s, _) | Op::Connect(s, _) | Op::Writable(s)) = op;
            let mut state = s.state.borrow_mut();
            state.end.get_or_insert(End::Failed(libc::ECANCELED));
            state.send_error.get_or_insert(libc::ECANCELED);
            if let Connecting::Under(_) = state.connecting {
                state.connecting = Connecting::Done(libc::ECANCELED);
            }
            wakers.extend(state.reader.take());
            wakers.extend(state.writer.take());
        }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        self.count();
        let free = self.buffers.as_ref().is_none_or(|b| b.unregister(&self.ring).is_ok());
        if !self.ops.is_empty() || !free {
            // The kernel may still use what they hold.
            std::mem::forget(std::mem::take(&mut self.ops));
            std::mem::forget(self.buffers.take());
        }
    }
}
