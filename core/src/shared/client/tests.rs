//! A flush whose engine ends under it, against a server that ends where it is told to.

use std::os::unix::net::UnixListener;
use std::sync::mpsc;

use super::*;

/// What the server does with a connection for calls.
enum Act {
    /// Ends between the answer to the connection and the request.
    EndBefore,
    /// Ends when it has the request, which is later than this after it came.
    EndBehind(Duration),
    /// Answers the request.
    Answer(Answer<Value>),
}

/// Where it listens, and what it was asked, of the requests that came.
struct Server {
    dir: tempfile::TempDir,
    asked: mpsc::Receiver<Request>,
}

impl Server {
    fn start(acts: Vec<Act>) -> Server {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("s")).unwrap();
        let (tell, asked) = mpsc::channel();
        std::thread::spawn(move || serve(&listener, acts, &tell));
        Server { dir, asked }
    }

    fn client(&self) -> Client {
        let options = ClientOptions { connect_timeout: Duration::from_secs(60), ..ClientOptions::default() };
        Client::connect(self.dir.path().join("s"), options).unwrap()
    }

    fn milliseconds(&self) -> u64 {
        match self.asked.recv().unwrap() {
            Request::Flush { ms } => ms,
            other => panic!("{other:?}"),
        }
    }
}

fn serve(listener: &UnixListener, acts: Vec<Act>, tell: &mpsc::Sender<Request>) {
    // One session, and calls one after the other.
    let (status, status_fd) = Status::new().unwrap();
    let ring_bytes = 256 << 10;
    let ring_fd = memory::new_file(c"ring", file_bytes(ring_bytes)).unwrap();
    let bells = [driver::eventfd(0).unwrap(), driver::eventfd(0).unwrap()];
    let mut sessions = Vec::new();
    let mut acts = acts.into_iter();
    loop {
        let (socket, _) = listener.accept().unwrap();
        let hello: Hello = wire::receive(&socket).unwrap().0;
        if let Wants::Session { .. } = hello.wants {
            let welcome = Welcome { ring_bytes, event_bytes_max: 65536, ..Welcome::default() };
            wire::send(&socket, &Answer::Ok(welcome), &[]).unwrap();
            let fds = [&ring_fd, &ring_fd, &status_fd, &bells[0], &bells[1]].map(AsRawFd::as_raw_fd);
            wire::send_descriptors(&socket, fds).unwrap();
            sessions.push((socket, &status));
            continue;
        }
        let Some(act) = acts.next() else { return };
        if let Act::EndBefore = act {
            // So that what is written to it fails, and does not wait for nobody.
            socket.shutdown(std::net::Shutdown::Read).unwrap();
        }
        wire::send(&socket, &Answer::Ok(()), &[]).unwrap();
        if let Act::EndBefore = act {
            continue;
        }
        tell.send(wire::receive(&socket).unwrap().0).unwrap();
        match act {
            Act::EndBehind(wait) => std::thread::sleep(wait),
            Act::Answer(answer) => wire::send(&socket, &answer, &[]).unwrap(),
            Act::EndBefore => {}
        }
    }
}

const LIMIT: Duration = Duration::from_secs(600);

#[test]
fn a_flush_asks_the_next_engine_for_what_is_left() {
    let parts = [30, 70].map(Duration::from_millis);
    let server = Server::start(vec![Act::EndBehind(parts[0]), Act::EndBehind(parts[1]), Act::Answer(Ok(Value::Null))]);
    server.client().flush(LIMIT).unwrap();
    let asked = [server.milliseconds(), server.milliseconds(), server.milliseconds()];
    let limit = LIMIT.as_millis() as u64;
    assert!(asked[0] <= limit && asked[1] + 30 <= asked[0] && asked[2] + 70 <= asked[1], "{asked:?}");
}

#[test]
fn a_flush_whose_time_is_over_still_asks_whether_it_is_done() {
    let server = Server::start(vec![Act::EndBehind(Duration::from_millis(20)), Act::Answer(Ok(Value::Null))]);
    server.client().flush(Duration::from_millis(10)).unwrap();
    server.milliseconds();
    assert_eq!(server.milliseconds(), 0);

    let late = Error::new(ErrorKind::Timeout, "3 deliveries still wait");
    let server = Server::start(vec![Act::EndBehind(Duration::ZERO), Act::Answer(Err((&late).into()))]);
    let e = server.client().flush(LIMIT).unwrap_err();
    assert_eq!((e.kind(), e.message()), (ErrorKind::Timeout, late.message()));
}

#[test]
fn engines_that_end_before_they_are_asked_do_not_end_a_flush() {
    let done = || Act::Answer(Ok(Value::Null));
    // At its beginning, and where it goes on.
    let server = Server::start(vec![Act::EndBefore, Act::EndBefore, done()]);
    server.client().flush(LIMIT).unwrap();
    server.milliseconds();
    let acts = vec![Act::EndBehind(Duration::ZERO), Act::EndBefore, Act::EndBefore, done()];
    let server = Server::start(acts);
    server.client().flush(LIMIT).unwrap();
    assert!(server.milliseconds() >= server.milliseconds());
    assert!(server.asked.try_recv().is_err());
}

#[test]
fn a_call_that_must_not_be_made_twice_is_not() {
    let server = Server::start(vec![Act::EndBefore, Act::EndBehind(Duration::ZERO)]);
    let client = server.client();
    let redrive = client.start_redrive(&DeadLetterFilter::default(), &RedriveOptions::default(), LIMIT);
    let e = redrive.unwrap().wait(deadline_in(LIMIT)).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Disconnected, "{e}");
    assert!(matches!(server.asked.recv().unwrap(), Request::Redrive { .. }));
}

#[test]
fn closing_ends_a_flush() {
    let server = Server::start(vec![Act::EndBehind(LIMIT)]);
    let client = server.client();
    let mut flush = client.start_flush(LIMIT).unwrap();
    assert!(flush.wait(driver::now()).unwrap().is_none());
    server.milliseconds();
    client.close(LIMIT).unwrap();
    assert_eq!(flush.wait(deadline_in(LIMIT)).unwrap_err().kind(), ErrorKind::Closed);
}
