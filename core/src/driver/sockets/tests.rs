//! The ring against peers on threads of their own that do what peers do.

use std::future::Future;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread::JoinHandle;

use bytes::Bytes;
use futures::io::{AsyncReadExt, AsyncWriteExt};
use socket2::SockRef;

use super::op::{Socket, State};
use super::*;
use crate::driver::{self, SocketOptions};

/// Far beyond what anything here takes.
const WAIT: Duration = Duration::from_secs(60);
/// For what shall not be done by then.
const A_WHILE: Duration = Duration::from_millis(50);
const SEC: Duration = Duration::from_secs(1);

const OPTIONS: SocketOptions =
    SocketOptions { sockets: driver::Sockets::Ring, user_timeout: WAIT, keep_alive: Duration::from_secs(15) };

/// Runs something on a thread of a shard, and answers with what it says.
fn on_shard<T: Send + 'static, F: Future<Output = T> + 'static>(work: impl FnOnce() -> F + Send + 'static) -> T {
    let (told, heard) = channel();
    let main = move || async move {
        let _ = told.send(work().await);
    };
    let shard = driver::spawn_shard("sockets", None, main).expect("a shard");
    // Counted in looks: a machine that is stopped for a while is no stall.
    let got = (0..600).find_map(|_| match heard.recv_timeout(Duration::from_millis(100)) {
        Err(RecvTimeoutError::Timeout) => None,
        got => Some(got.expect("no panic")),
    });
    let got = got.unwrap_or_else(|| panic!("it does not end; {:?}", socket_counts()));
    shard.join().expect("no panic");
    got
}

/// A peer that does this with each connection, one after the other.
fn peer(serve: impl Fn(TcpStream) + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || listener.incoming().flatten().for_each(serve));
    address
}

/// One that takes a single connection and says what came of it.
fn one<T: Send + 'static>(serve: impl FnOnce(TcpStream) -> T + Send + 'static) -> (SocketAddr, JoinHandle<T>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    (address, std::thread::spawn(move || serve(listener.accept().expect("a connection").0)))
}

async fn connect(address: SocketAddr) -> io::Result<Stream> {
    Stream::connect(current().expect("a ring"), address, &OPTIONS).await
}

/// Waits until what was given to the kernel is sent, or cannot be.
async fn sent(stream: &Stream) -> io::Result<()> {
    while stream.sent()?.is_pending() {
        driver::sleep(Duration::from_millis(1)).await;
    }
    Ok(())
}

async fn until_true(what: impl Fn() -> bool) {
    let end = Instant::now() + WAIT;
    while !what() {
        assert!(Instant::now() < end, "it does not come to be");
        driver::sleep(Duration::from_millis(1)).await;
    }
}

/// Bytes that are wrong anywhere but in their place.
fn pattern(len: usize) -> Vec<u8> {
    (0..len as u64).map(|n| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}

/// In pieces of all lengths, empty ones too.
fn pieces(bytes: &[u8]) -> Vec<Bytes> {
    let (mut out, mut rest, mut n) = (vec![Bytes::new()], bytes, 0);
    while !rest.is_empty() {
        n = (n * 7 + 1) % 4099;
        let (piece, more) = rest.split_at(n.min(rest.len()));
        out.push(Bytes::copy_from_slice(piece));
        rest = more;
    }
    out
}

#[test]
fn it_is_looked_out_for_completions_as_long_as_that_pays() {
    let mut patience = Patience::default();
    let looks = |p: &mut Patience, found: bool| {
        (0..1000)
            .filter(|_| {
                let looks = p.looks();
                if looks {
                    p.note(found);
                }
                looks
            })
            .count()
    };
    let rare = 1000 / usize::from(Patience::PASSED_MAX);
    assert!((1..=rare).contains(&looks(&mut patience, false)));
    assert!(looks(&mut patience, true) > 1000 - usize::from(Patience::PASSED_MAX) - 1);
    assert!(looks(&mut patience, false) <= rare + usize::from(Patience::SCORE_MAX));
}

#[test]
fn it_is_slept_for_several_where_many_wait_and_all_that_can_have_gone_on() {
    let mut gathering = Gathering::default();
    let found = |g: &mut Gathering, waiting: usize, found: bool| {
        let wants = g.wants(waiting, &PROMPT);
        if wants.is_some() {
            g.patience.note(found);
        }
        wants.map(|enter| match enter {
            Enter::Gather(completions, limit) if limit == PROMPT.gather => completions,
            other => panic!("{other:?}"),
        })
    };
    assert!((0..100).all(|_| found(&mut gathering, GATHER_FROM - 1, true).is_none()), "too few");
    let first = (0..100).find_map(|_| found(&mut gathering, 16, true));
    assert_eq!(first, Some(4), "one wake-up for a quarter of them");
    assert_eq!(found(&mut gathering, 16, true), Some(4));
    assert_eq!(found(&mut gathering, 13, true), None, "three were answered and have not asked again yet");
    assert_eq!(found(&mut gathering, 16, true), Some(4));
    assert_eq!(found(&mut gathering, 10_000, true), Some(GATHER_MAX as u32));
    assert_eq!(gathering.wants(16, &AT_EASE), None, "fewer than before");
    assert_eq!(gathering.wants(16, &AT_EASE), Some(Enter::Gather(8, AT_EASE.gather)));
    for _ in 0..Patience::SCORE_MAX {
        found(&mut gathering, 16, false);
    }
    let seldom = (0..100).filter(|_| found(&mut gathering, 16, false).is_some()).count();
    assert!(seldom <= 100 / usize::from(Patience::PASSED_MAX) + 1, "answers do not come soon: {seldom}");
}

#[test]
fn a_thread_is_prompt_for_as_long_as_it_was_told_to_be() {
    let (now, moment) = (Instant::now(), Duration::from_nanos(1));
    assert_eq!(manners(now).gather, AT_EASE.gather);
    be_prompt(now + moment);
    assert_eq!(manners(now).gather, PROMPT.gather);
    assert_eq!(manners(now + moment).gather, AT_EASE.gather);
    assert_eq!(manners(now).gather, AT_EASE.gather, "it is over for good");
}

/// Some answer at once, some late, some now and then never: each connection goes on as its own peer does.
#[test]
fn many_requests_under_way_get_their_own_answers() {
    const CONNECTIONS: usize = 48;
    const ROUNDS: u32 = 300;
    const SILENT: u8 = 47;
    let address = peer(|mut c| {
        drop(std::thread::spawn(move || {
            let mut asked = [0; 8];
            for round in 0.. {
                if c.read_exact(&mut asked).is_err() {
                    return;
                }
                match asked[0] {
                    SILENT if round == 100 => return std::thread::sleep(Duration::from_millis(300)),
                    n if n % 16 == 5 => std::thread::sleep(Duration::from_micros(500)),
                    _ => {}
                }
                if c.write_all(&asked).is_err() {
                    return;
                }
            }
        }));
    });
    on_shard(move || async move {
        let mut tasks = Vec::new();
        for n in 0..CONNECTIONS as u8 {
            let mut stream = connect(address).await.expect("connected");
            tasks.push(driver::spawn(async move {
                for round in 0..ROUNDS {
                    let mut asked = [n; 8];
                    asked[4..].copy_from_slice(&round.to_le_bytes());
                    stream.send(vec![Bytes::copy_from_slice(&asked)]).expect("under way");
                    let mut answer = [0; 8];
                    if let Err(e) = stream.read_exact(&mut answer).await {
                        assert!(n == SILENT && round == 100, "{n}, {round}: {e}");
                        return;
                    }
                    assert_eq!(answer, asked);
                }
                assert_ne!(n, SILENT);
            }));
        }
        for task in tasks {
            task.await;
        }
    });
}

#[test]
fn a_round_sleeps_until_several_have_come_or_its_time_is_up() {
    for ring in [Ring::new(), Ring::before_6_1()] {
        let mut ring = ring.expect("a ring");
        let mut all = Vec::new();
        for _ in 0..3 {
            let (ours, theirs) = UnixStream::pair().expect("a pair");
            let socket = Rc::new(Socket { fd: ours.into(), state: State::default().into() });
            ring.receive(&socket);
            all.push((socket, theirs));
        }
        let len = |(socket, _): &(Rc<Socket>, UnixStream)| socket.state.borrow().inbox.len();
        let [first, second, mut third] = [0, 1, 2].map(|n: usize| all[n].1.try_clone().expect("a copy"));
        // One after the other, so that whoever does not wait for both finds one.
        let writes = std::thread::spawn(move || {
            for mut peer in [first, second] {
                std::thread::sleep(A_WHILE);
                peer.write_all(b"x").expect("written");
            }
        });
        let mut wakers = Vec::new();
        // No completion comes of what goes in: it goes on.
        ring.round(Enter::ForNews, &mut wakers).expect("submitted");
        let round = ring.round(Enter::Gather(2, WAIT), &mut wakers).expect("a round");
        assert!(round.gathered && round.completed == 2, "{round:?}");
        assert_eq!(all.iter().map(len).collect::<Vec<_>>(), [1, 1, 0]);
        writes.join().expect("no panic");
        third.write_all(b"y").expect("written");
        let round = ring.round(Enter::Gather(2, A_WHILE), &mut wakers).expect("a round");
        assert!(!round.gathered && round.completed == 1, "{round:?}");
        assert_eq!(all.iter().map(len).collect::<Vec<_>>(), [1, 1, 1]);
    }
}

#[test]
fn shared_pieces_arrive_whole_and_in_order() {
    const LEN: usize = 12 << 20;
    let (address, got) = one(|mut c| {
        let mut got = Vec::new();
        // A slow start, so that the first sends end in the middle.
        std::thread::sleep(A_WHILE);
        (&mut c).take(LEN as u64).read_to_end(&mut got).expect("all");
        c.write_all(b"thanks").expect("told");
        got
    });
    on_shard(move || async move {
        let mut stream = connect(address).await.expect("connected");
        let bytes = pattern(LEN);
        let parts = pieces(&bytes);
        assert!(parts.len() > 3 * 1024, "more than one message takes");
        stream.send(parts).expect("under way");
        assert!(stream.send(vec!["x".into()]).is_err(), "one at a time");
        let mut answer = [0; 6];
        stream.read_exact(&mut answer).await.expect("an answer");
        assert_eq!(&answer, b"thanks");
        assert!(stream.sent().expect("no error").is_ready());
        assert!(!stream.has_input());
        assert_eq!(stream.read(&mut answer).await.expect("the end"), 0);
        assert!(stream.has_ended());
    });
    assert!(got.join().expect("no panic") == pattern(LEN));
}

#[test]
fn what_is_written_comes_back() {
    const LEN: usize = 8 << 20;
    let address = peer(|c| {
        std::thread::spawn(move || {
            let _ = std::io::copy(&mut c.try_clone().expect("a handle"), &mut &c);
        });
    });
    on_shard(move || async move {
        let (mut reader, mut writer) = connect(address).await.expect("connected").split();
        let writing = async move {
            let bytes = pattern(LEN);
            let (first, second) = bytes.split_at(LEN / 3);
            writer.write_all(first).await.expect("written");
            for chunk in second.chunks(70_001) {
                let slices = [io::IoSlice::new(&chunk[..chunk.len() / 2]), io::IoSlice::new(&chunk[chunk.len() / 2..])];
                let n = writer.write_vectored(&slices).await.expect("written");
                writer.write_all(&chunk[n..]).await.expect("written");
            }
            writer.close().await.expect("the end told");
        };
        let reading = async {
            let mut got = Vec::new();
            reader.read_to_end(&mut got).await.expect("all");
            assert!(got == pattern(LEN));
        };
        futures::join!(writing, reading);
    });
}

#[test]
fn a_unix_socket_is_no_different() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("socket");
    let listener = UnixListener::bind(&path).expect("bound");
    let peer = std::thread::spawn(move || {
        let (mut c, _) = listener.accept().expect("a connection");
        let mut got = vec![0; 1 << 20];
        c.read_exact(&mut got).expect("all");
        c.write_all(&got).expect("sent back");
    });
    on_shard(move || async move {
        let sockets = current().expect("a ring");
        let none = Stream::connect_unix(sockets.clone(), &path.with_extension("none")).await;
        assert_eq!(none.err().map(|e| e.kind()), Some(io::ErrorKind::NotFound));
        let mut stream = Stream::connect_unix(sockets, &path).await.expect("connected");
        let bytes = pattern(1 << 20);
        stream.send(pieces(&bytes)).expect("under way");
        let mut got = Vec::new();
        stream.read_to_end(&mut got).await.expect("all");
        assert!(got == bytes);
    });
    peer.join().expect("no panic");
}

#[test]
fn a_refused_connection_says_so() {
    on_shard(|| async {
        let nobody = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
        let refused = connect(nobody).await.err().map(|e| e.kind());
        assert_eq!(refused, Some(io::ErrorKind::ConnectionRefused));
    });
}

#[test]
fn the_peer_may_close_at_every_stage() {
    // At once; after some bytes; with a reset; in the middle of what it is sent; after an answer before it has all.
    let closes = peer(drop);
    let answers = peer(|mut c| c.write_all(b"bye").expect("told"));
    let resets = peer(|c| SockRef::from(&c).set_linger(Some(Duration::ZERO)).expect("set"));
    let stops = peer(|mut c| {
        c.read_exact(&mut [0; 1000]).expect("some");
    });
    let early = peer(|mut c| {
        c.read_exact(&mut [0; 1000]).expect("some");
        c.write_all(b"no").expect("told");
        // Kept, so that the answer is not lost with a reset.
        std::mem::forget(c);
    });
    on_shard(move || async move {
        for _ in 0..20 {
            let mut all = Vec::new();
            let mut stream = connect(closes).await.expect("connected");
            assert_eq!(stream.read_to_end(&mut all).await.expect("the end"), 0);

            let mut stream = connect(answers).await.expect("connected");
            until_true(|| stream.has_ended()).await;
            assert!(stream.has_input());
            assert_eq!(stream.read_to_end(&mut all).await.expect("the end"), 3);

            // The reset may be there before the connection is reported.
            if let Ok(mut stream) = connect(resets).await {
                let error = stream.read_to_end(&mut all).await.expect_err("a reset");
                assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
                assert!(stream.has_ended());
                assert!(stream.write_all(b"x").await.is_err());
            }

            let stream = connect(stops).await.expect("connected");
            stream.send(vec![Bytes::from(vec![0; 16 << 20])]).expect("under way");
            assert!(sent(&stream).await.is_err());

            let mut stream = connect(early).await.expect("connected");
            stream.send(vec![Bytes::from(vec![0; 16 << 20])]).expect("under way");
            let mut answer = [0; 2];
            stream.read_exact(&mut answer).await.expect("an answer");
            assert_eq!(&answer, b"no");
            assert!(stream.sent().expect("no error").is_pending(), "it was not read");
        }
    });
}

/// Tells when it is no longer needed.
struct Owned(Arc<AtomicU64>, Vec<u8>);

impl AsRef<[u8]> for Owned {
    fn as_ref(&self) -> &[u8] {
        &self.1
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").map_or(0, |d| {
        d.flatten()
            .filter(|e| std::fs::read_link(e.path()).is_ok_and(|l| l.to_string_lossy().starts_with("socket:")))
            .count()
    })
}

#[test]
fn a_stream_that_is_dropped_leaves_nothing_behind() {
    // Takes connections and never reads or says anything.
    let (gone, gone_of_peers) = channel();
    let silent = peer(move |c| gone.send(c).expect("kept"));
    on_shard(move || async move {
        let freed = Arc::new(AtomicU64::new(0));
        for _ in 0..50 {
            // In the middle of sending, more than the buffers of both ends hold.
            let stream = connect(silent).await.expect("connected");
            stream.send(vec![Bytes::from_owner(Owned(freed.clone(), vec![1; 16 << 20]))]).expect("under way");
            driver::turn().await;
            assert!(stream.sent().expect("no error").is_pending());
            drop(stream);
            // Before the operation is even submitted.
            let stream = connect(silent).await.expect("connected");
            stream.send(vec![Bytes::from_owner(Owned(freed.clone(), vec![1; 100]))]).expect("under way");
            drop(stream);
            // Waiting for bytes, and for room.
            let mut stream = connect(silent).await.expect("connected");
            assert!(driver::within(Duration::from_millis(1), stream.read(&mut [0; 10])).await.is_none());
            let full = vec![0; 16 << 20];
            assert!(driver::within(Duration::from_millis(5), stream.write_all(&full)).await.is_none());
            drop(stream);
        }
        until_true(|| freed.load(Ordering::Relaxed) == 100).await;
        let sockets = current().expect("a ring");
        until_true(|| sockets.is_empty()).await;
        assert_eq!(sockets.waiting.get(), 0);
        // The other ends see it too.
        for _ in 0..150 {
            let mut c = gone_of_peers.recv_timeout(WAIT).expect("connected");
            c.set_read_timeout(Some(WAIT)).expect("set");
            let _ = std::io::copy(&mut c, &mut std::io::sink());
        }
    });
}

#[test]
fn a_connection_attempt_can_be_given_up() {
    // A queue that is full lets further attempts wait.
    let listener = System::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    listener.bind(&"127.0.0.1:0".parse::<SocketAddr>().expect("an address").into()).expect("bound");
    listener.listen(0).expect("listening");
    let address = listener.local_addr().expect("an address").as_socket().expect("an address");
    on_shard(move || async move {
        let mut held = Vec::new();
        let mut given_up = 0;
        while given_up < 5 {
            match driver::within(A_WHILE, connect(address)).await {
                Some(stream) => held.push(stream.expect("connected")),
                None => given_up += 1,
            }
        }
        assert!(held.len() < 100);
        held.clear();
        let sockets = current().expect("a ring");
        until_true(|| sockets.is_empty()).await;
    });
}

use socket2::Socket as System;

#[test]
fn a_ring_can_be_had_from_an_older_kernel() {
    // Made, it has received and been told of an end.
    let mut ring = super::ring::Ring::before_6_1().expect("a ring");
    assert!(ring.is_empty() && !ring.has_completions());
    ring.nudge().expect("submitted");
    assert!(ring.has_completions());
    assert_eq!(ring.round(Enter::ForNews, &mut Vec::new()).expect("a round").completed, 1);
}

#[test]
fn more_answers_at_once_than_there_are_buffers() {
    const COUNT: usize = 100;
    const EACH: usize = 60_000;
    let before = socket_counts();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let (go, going) = channel::<()>();
    let (done, ended) = channel::<()>();
    let peer = std::thread::spawn(move || {
        let connections: Vec<TcpStream> = listener.incoming().take(COUNT).map(|c| c.expect("one")).collect();
        going.recv_timeout(WAIT).expect("a word");
        for (n, mut c) in connections.iter().enumerate() {
            c.write_all(&vec![n as u8; EACH]).expect("sent");
        }
        done.send(()).expect("told");
        connections
    });
    on_shard(move || async move {
        let mut streams = Vec::new();
        for _ in 0..COUNT {
            streams.push(connect(address).await.expect("connected"));
        }
        // The shard looks away until all have spoken.
        go.send(()).expect("told");
        ended.recv_timeout(WAIT).expect("a word");
        for (n, stream) in streams.iter_mut().enumerate() {
            let mut got = vec![0; EACH];
            stream.read_exact(&mut got).await.expect("all");
            assert!(got.iter().all(|b| *b == n as u8));
        }
    });
    drop(peer.join().expect("no panic"));
    assert!(socket_counts().starved > before.starved, "the buffers sufficed");
}

#[test]
fn a_peer_that_sends_without_end_fills_no_memory() {
    const LEN: usize = 32 << 20;
    let (address, done) = one(|mut c| c.write_all(&pattern(LEN)).expect("all"));
    on_shard(move || async move {
        let mut stream = connect(address).await.expect("connected");
        until_true(|| stream.socket().state.borrow().receiving == op::Receiving::Off).await;
        let held = stream.socket().state.borrow().inbox.len();
        assert!(held < 1 << 20, "{held} bytes");
        let mut got = Vec::new();
        let mut buf = vec![0; 10_000];
        while got.len() < LEN {
            let n = stream.read(&mut buf).await.expect("more");
            got.extend_from_slice(&buf[..n]);
            assert!(stream.socket().state.borrow().inbox.len() < 1 << 20);
        }
        assert!(got == pattern(LEN));
    });
    done.join().expect("no panic");
}

#[test]
fn thousands_of_connections() {
    const COUNT: usize = 3000;
    let address = peer(|c| {
        std::thread::Builder::new()
            .stack_size(64 << 10)
            .spawn(move || {
                let mut request = [0; 8];
                while (&c).read_exact(&mut request).is_ok() {
                    (&c).write_all(&request).expect("answered");
                }
            })
            .expect("a thread");
    });
    on_shard(move || async move {
        let tasks: Vec<_> = (0..COUNT as u64)
            .map(|n| {
                glommio::spawn(async move {
                    let mut stream = connect(address).await.expect("connected");
                    for round in 0..3 {
                        let mut answer = [0; 8];
                        stream.send(vec![Bytes::copy_from_slice(&(n + round).to_le_bytes())]).expect("under way");
                        stream.read_exact(&mut answer).await.expect("an answer");
                        assert_eq!(u64::from_le_bytes(answer), n + round);
                    }
                    // All are there at the same time.
                    stream
                })
            })
            .collect();
        let mut streams = Vec::new();
        for task in tasks {
            streams.push(task.await);
        }
        assert!(streams.iter().all(|s| !s.has_ended()));
    });
}

#[test]
fn streams_of_a_shard_that_has_ended_fail() {
    let before = open_descriptors();
    let silent = peer(std::mem::forget);
    let kept = on_shard(move || async move {
        let mut stream = connect(silent).await.expect("connected");
        let sending = connect(silent).await.expect("connected");
        sending.send(vec![Bytes::from(vec![0; 16 << 20])]).expect("under way");
        let reading = glommio::spawn(async move { stream.read(&mut [0; 8]).await.map_err(|e| e.to_string()) });
        driver::turn().await;
        close().await;
        assert!(reading.await.is_err());
        assert!(sending.sent().is_err());
        assert!(current().is_none());
        assert!(sending.send(vec!["x".into()]).is_err());
        drop(sending);
        open_descriptors()
    });
    println!("{before} sockets before, {kept} with their peers");
}

#[test]
fn a_shard_that_panics_takes_nobody_with_it() {
    let silent = peer(std::mem::forget);
    let main = move || async move {
        let stream = connect(silent).await.expect("connected");
        stream.send(vec![Bytes::from(vec![0; 16 << 20])]).expect("under way");
        driver::turn().await;
        panic!("as a defect would");
    };
    let shard = driver::spawn_shard("panicking", None, main).expect("a shard");
    assert!(shard.join().is_err());
}

#[test]
fn a_shard_that_waits_for_nothing_sleeps() {
    let address = peer(std::mem::forget);
    on_shard(move || async move {
        let stream = connect(address).await.expect("connected");
        driver::sleep(A_WHILE).await;
        let clock = || {
            // SAFETY: plain data that the call fills in.
            let mut usage = unsafe { std::mem::zeroed::<libc::rusage>() };
            // SAFETY: the place is valid.
            unsafe { libc::getrusage(libc::RUSAGE_THREAD, &mut usage) };
            usage.ru_nvcsw
        };
        let before = clock();
        driver::sleep(SEC).await;
        // Not even the timer that looks after wake-ups runs while nobody waits for one.
        assert!(clock() - before < 20, "{} switches", clock() - before);
        drop(stream);
    });
}

#[test]
fn short_lives_of_a_ring_never_stall() {
    let address = peer(|c| {
        std::thread::spawn(move || {
            let mut request = [0; 64];
            while let Ok(n @ 1..) = (&c).read(&mut request) {
                if (&c).write_all(&request[..n]).is_err() {
                    return;
                }
            }
        });
    });
    let rounds = if std::env::var_os("TIDEWIRE_LONG").is_some() { 20_000 } else { 300 };
    for round in 0..rounds {
        on_shard(move || async move {
            let requests = |n: usize| {
                glommio::spawn(async move {
                    let mut stream = connect(address).await.expect("connected");
                    for _ in 0..n {
                        let mut answer = [0; 9];
                        stream.send(vec!["question ".into()]).expect("under way");
                        stream.read_exact(&mut answer).await.expect("an answer");
                        assert_eq!(&answer, b"question ");
                    }
                })
            };
            let tasks: Vec<_> = (0..1 + round % 17).map(|n| requests(1 + (round + n) % 5)).collect();
            for task in tasks {
                task.await;
            }
        });
    }
    println!("{:?}", socket_counts());
}

/// The kernel's word that completions wait (`IORING_SQ_TASKRUN`), where it lies in the memory shared with it.
struct Word(*const std::sync::atomic::AtomicU32);

// SAFETY: an atomic that stays mapped until the process ends.
unsafe impl Send for Word {}

impl Word {
    const TASKRUN: u32 = 1 << 2;

    fn of(ring: std::os::fd::RawFd) -> Word {
        // `struct io_uring_params`, of which `sq_off.flags` is the 15th word.
        let mut params = [0u32; 30];
        // SAFETY: the kernel reads and writes 120 bytes, which are there; the descriptor that it gives is closed at once.
        unsafe { libc::close(libc::syscall(libc::SYS_io_uring_setup, 2u32, params.as_mut_ptr()) as i32) };
        let (at, access) = (params[14] as usize, libc::PROT_READ | libc::PROT_WRITE);
        // SAFETY: a new mapping of the ring's first page.
        let page = unsafe { libc::mmap(std::ptr::null_mut(), 4096, access, libc::MAP_SHARED, ring, 0) };
        assert!(page != libc::MAP_FAILED && (1..4096).contains(&at));
        Word(page.wrapping_byte_add(at).cast())
    }

    fn leave_standing(&self) {
        // SAFETY: see the type.
        unsafe { &*self.0 }.fetch_or(Word::TASKRUN, Ordering::SeqCst);
    }
}

#[test]
fn a_word_of_the_kernel_that_means_nothing_keeps_nobody_awake() {
    let address = peer(|mut c| {
        let mut one = [0];
        while c.read_exact(&mut one).is_ok() && c.write_all(&one).is_ok() {}
    });
    on_shard(move || async move {
        let mut stream = connect(address).await.expect("connected");
        let sockets = current().expect("a ring");
        let word = Word::of(sockets.with(|ring| ring.kernel_fd()).expect("a ring"));
        for n in 0..50 {
            word.leave_standing();
            // The driver has nothing to do but to look at it.
            sockets.kick.notify();
            driver::sleep(Duration::from_millis(2)).await;
            assert!(sockets.is_stale() && !sockets.has_work());
            stream.send(vec![Bytes::copy_from_slice(&[n])]).expect("under way");
            let mut answer = [0];
            stream.read_exact(&mut answer).await.expect("an answer");
            assert_eq!(answer, [n]);
        }
        // At any moment.
        let (done, mut ended) = futures::channel::oneshot::channel::<()>();
        let setting = std::thread::spawn(move || {
            let word = word;
            while !matches!(ended.try_recv(), Ok(Some(())) | Err(_)) {
                word.leave_standing();
                std::thread::sleep(Duration::from_micros(20));
            }
        });
        for n in 0..5000 {
            stream.send(vec![Bytes::copy_from_slice(&[n as u8])]).expect("under way");
            let mut answer = [0];
            stream.read_exact(&mut answer).await.expect("an answer");
            assert_eq!(answer, [n as u8]);
            if n % 500 == 0 {
                driver::sleep(Duration::from_millis(2)).await;
            }
        }
        let _ = done.send(());
        setting.join().expect("no panic");
    });
}
