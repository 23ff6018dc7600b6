//! The least that a client over this kernel's TCP can take: a ring of its own, the same bytes sent again as soon as something
//! has come back, of which nothing is looked at but its first line. No requests are made, no headers parsed, nobody is woken,
//! nothing times out. What it takes is the kernel's, and the share of it that a client's own work is measured against.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use io_uring::types::{BufRingEntry, Fixed};
use io_uring::{IoUring, cqueue, opcode, squeue};
use tidewire::bench::thread_cpu;

use super::{CLIENT, Done, pin};

const WARM_UP: u64 = 50;
const BUFFERS: u16 = 256;
const BUFFER_BYTES: usize = 2048;
const PAGE: usize = 4096;
/// Marks what was sent.
const SENT: u64 = 1 << 32;

/// The memory that the ring receives into: entries, then buffers.
struct Memory {
    at: *mut u8,
    tail: u16,
}

impl Memory {
    fn layout() -> Layout {
        Layout::from_size_align(PAGE + usize::from(BUFFERS) * BUFFER_BYTES, PAGE).expect("a layout")
    }

    fn new() -> Memory {
        // SAFETY: the layout is not empty.
        let at = unsafe { alloc_zeroed(Memory::layout()) };
        assert!(!at.is_null());
        let mut memory = Memory { at, tail: 0 };
        (0..BUFFERS).for_each(|b| memory.give(b));
        memory
    }

    fn buffer(&self, n: u16) -> *mut u8 {
        // SAFETY: within the memory.
        unsafe { self.at.add(PAGE + usize::from(n % BUFFERS) * BUFFER_BYTES) }
    }

    fn give(&mut self, n: u16) {
        let entries = self.at.cast::<BufRingEntry>();
        // SAFETY: within the first page, which is aligned; the kernel reads an entry once the tail has passed it.
        unsafe {
            let entry = &mut *entries.add(usize::from(self.tail % BUFFERS));
            entry.set_addr(self.buffer(n) as u64);
            entry.set_len(BUFFER_BYTES as u32);
            entry.set_bid(n);
            self.tail = self.tail.wrapping_add(1);
            AtomicU16::from_ptr(BufRingEntry::tail(entries).cast_mut()).store(self.tail, Ordering::Release);
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout; the ring is gone.
        unsafe { dealloc(self.at, Memory::layout()) };
    }
}

/// Sends these bytes over so many connections, one request at a time on each.
pub(super) fn least(address: SocketAddr, request: &[u8], connections: usize, duration: Duration) -> Done {
    let request = request.to_vec();
    let client = move || {
        pin(CLIENT);
        let streams: Vec<TcpStream> = (0..connections)
            .map(|_| {
                let stream = TcpStream::connect(address).expect("connected");
                stream.set_nodelay(true).expect("nodelay");
                stream
            })
            .collect();
        let mut memory = Memory::new();
        let mut builder = IoUring::builder();
        builder.setup_single_issuer().setup_defer_taskrun().setup_submit_all().setup_cqsize(4096);
        let mut ring: IoUring = builder.build(256).expect("a ring with deferred work (Linux 6.1)");
        let fds: Vec<RawFd> = streams.iter().map(AsRawFd::as_raw_fd).collect();
        ring.submitter().register_files(&fds).expect("registered");
        // SAFETY: the memory outlives the ring, which is dropped below.
        unsafe { ring.submitter().register_buf_ring_with_flags(memory.at as u64, BUFFERS, 0, 0) }.expect("buffers");
        (0..connections).for_each(|c| push(&mut ring, &receive(c)));
        (0..connections).for_each(|c| push(&mut ring, &send(c, &request)));
        let mut done = 0;
        rounds(&mut ring, &mut memory, &request, &mut done, |done| done < WARM_UP * connections as u64);
        let (begun, cpu) = (Instant::now(), thread_cpu());
        done = 0;
        rounds(&mut ring, &mut memory, &request, &mut done, |_| begun.elapsed() < duration);
        let result = Done::of(done, begun.elapsed(), thread_cpu().saturating_sub(cpu));
        drop(ring);
        result
    };
    std::thread::spawn(client).join().expect("requests")
}

fn receive(connection: usize) -> squeue::Entry {
    opcode::RecvMulti::new(Fixed(connection as u32), 0).build().user_data(connection as u64)
}

fn send(connection: usize, request: &[u8]) -> squeue::Entry {
    let send = opcode::Send::new(Fixed(connection as u32), request.as_ptr(), request.len() as u32);
    send.flags(libc::MSG_NOSIGNAL | libc::MSG_WAITALL).build().user_data(connection as u64 | SENT)
}

fn push(ring: &mut IoUring, entry: &squeue::Entry) {
    // SAFETY: what the entry points to stays until the ring is dropped.
    while unsafe { ring.submission().push(entry) }.is_err() {
        ring.submit().expect("submitted");
    }
}

fn rounds(ring: &mut IoUring, memory: &mut Memory, request: &[u8], done: &mut u64, goes_on: impl Fn(u64) -> bool) {
    let mut completed: Vec<cqueue::Entry> = Vec::new();
    while goes_on(*done) {
        ring.submit_and_wait(1).expect("completions");
        completed.extend(ring.completion());
        for c in completed.drain(..) {
            assert!(c.result() >= 0, "{}", std::io::Error::from_raw_os_error(-c.result()));
            if c.user_data() & SENT != 0 {
                assert_eq!(c.result() as usize, request.len());
                continue;
            }
            let connection = c.user_data() as usize;
            let buffer = cqueue::buffer_select(c.flags()).expect("a buffer");
            // SAFETY: the kernel has written so many bytes there, and leaves them alone until the buffer is given back.
            let answer = unsafe { std::slice::from_raw_parts(memory.buffer(buffer), c.result() as usize) };
            assert!(answer.starts_with(b"HTTP/1.1 204 ") && answer.ends_with(b"\r\n\r\n"));
            memory.give(buffer);
            if !cqueue::more(c.flags()) {
                push(ring, &receive(connection));
            }
            push(ring, &send(connection, request));
            *done += 1;
        }
    }
}
