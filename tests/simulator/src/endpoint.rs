//! Endpoints of the simulation: HTTP servers that behave as badly as they are told to.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use tidewire::sim::net::{Answer, Peer};
use tidewire::sim::{Rng, World};

use crate::oracle::Oracle;

/// How an endpoint is at present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    /// Answers every request with success.
    Healthy,
    /// Fails so many requests of a hundred, in any way.
    Flaky(u64),
    /// Refuses connections.
    Down,
    /// Takes connections and says nothing, or does not even take them.
    Silent,
    /// Answers everything with this status.
    Status(u16),
}

/// One endpoint.
pub struct Endpoint {
    /// Which destination it is.
    pub number: usize,
    mood: Cell<Mood>,
    rng: RefCell<Rng>,
    oracle: Rc<RefCell<Oracle>>,
    world: std::rc::Weak<World>,
    /// Requests read to their end.
    pub requests: Cell<u64>,
}

impl Endpoint {
    /// Starts an endpoint at a port.
    pub fn start(world: &Rc<World>, port: u16, number: usize, oracle: Rc<RefCell<Oracle>>, rng: Rng) -> Rc<Endpoint> {
        let endpoint = Rc::new(Endpoint {
            number,
            mood: Cell::new(Mood::Healthy),
            rng: RefCell::new(rng),
            oracle,
            world: Rc::downgrade(world),
            requests: Cell::new(0),
        });
        let it = endpoint.clone();
        world.net.listen(port, move |peer| it.clone().take(peer));
        endpoint
    }

    /// Changes how it is.
    pub fn set_mood(&self, mood: Mood) {
        self.mood.set(mood);
    }

    fn percent(&self, percent: u64) -> bool {
        self.rng.borrow_mut().percent(percent)
    }

    fn below(&self, n: u64) -> u64 {
        self.rng.borrow_mut().below(n)
    }

    fn take(self: Rc<Self>, peer: Peer) -> Answer {
        match self.mood.get() {
            Mood::Down => return Answer::Refuse,
            Mood::Silent if self.percent(50) => return Answer::Silence,
            Mood::Flaky(p) if self.percent(p / 4) => return Answer::Refuse,
            _ => {}
        }
        if let Some(world) = self.world.upgrade() {
            world.spawn_outside(async move {
                // An error is the engine's end of the connection going away.
                let _ = self.serve(&peer).await;
            });
        }
        Answer::Accept
    }

    async fn wait(&self, ns: u64) {
        // A world that is gone polls nobody.
        if let Some(world) = self.world.upgrade() {
            world.pause(ns).await;
        }
    }

    async fn serve(&self, peer: &Peer) -> std::io::Result<()> {
        let mut bytes = Vec::new();
        loop {
            let Some(body) = self.request(peer, &mut bytes).await? else { return Ok(()) };
            self.requests.set(self.requests.get() + 1);
            let events = self.oracle.borrow_mut().received(self.number, &body);
            log::debug!("{}: {:?} gets {events:?}", self.number, self.mood.get());
            self.wait(1_000 + self.below(3_000_000)).await;
            if !self.answer(peer, &events).await? {
                return Ok(());
            }
        }
    }

    /// Reads a request; its body, or nothing if the connection ends before.
    async fn request(&self, peer: &Peer, bytes: &mut Vec<u8>) -> std::io::Result<Option<Vec<u8>>> {
        let mut buf = [0; 4096];
        loop {
            let mut headers = [httparse::EMPTY_HEADER; 32];
            let mut head = httparse::Request::new(&mut headers);
            let parsed = head.parse(bytes).unwrap_or_else(|e| panic!("the engine sent no HTTP: {e}"));
            if let httparse::Status::Complete(at) = parsed {
                assert_eq!(head.method, Some("POST"));
                let length = head.headers.iter().find(|h| h.name.eq_ignore_ascii_case("content-length"));
                let length: usize = length
                    .and_then(|h| std::str::from_utf8(h.value).ok()?.parse().ok())
                    .unwrap_or_else(|| panic!("a request without its length"));
                if bytes.len() >= at + length {
                    let body = bytes[at..at + length].to_vec();
                    bytes.drain(..at + length);
                    return Ok(Some(body));
                }
            }
            // It may break at any place of the request; before, the answer to the last one might not have been read.
            if let Mood::Flaky(p) = self.mood.get()
                && !bytes.is_empty()
                && self.percent(p / 8)
            {
                peer.reset();
                return Ok(None);
            }
            match peer.read(&mut buf).await? {
                0 => return Ok(None),
                n => bytes.extend_from_slice(&buf[..n]),
            }
        }
    }

    /// Answers a request that has been read; whether the connection goes on.
    async fn answer(&self, peer: &Peer, events: &[u64]) -> std::io::Result<bool> {
        let fails = match self.mood.get() {
            Mood::Healthy => false,
            Mood::Flaky(p) => self.percent(p),
            Mood::Down => true,
            Mood::Silent => {
                // Longer than anybody waits.
                self.wait(3_600_000_000_000).await;
                return Ok(false);
            }
            Mood::Status(status) => {
                peer.write(format!("HTTP/1.1 {status} Set\r\nContent-Length: 0\r\n\r\n").as_bytes())?;
                return Ok(true);
            }
        };
        if fails {
            return self.fail(peer).await;
        }
        let text = match self.below(5) {
            0 => "HTTP/1.1 204 No Content\r\n\r\n",
            1 => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nok.\r\n0\r\n\r\n",
            2 => "HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            _ => "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        };
        if self.percent(30) {
            let (first, second) = text.split_at(self.below(text.len() as u64) as usize);
            peer.write(first.as_bytes())?;
            self.wait(self.below(2_000_000)).await;
            peer.write(second.as_bytes())?;
        } else {
            peer.write(text.as_bytes())?;
        }
        log::debug!("{}: accepts {events:?} with {text:?}", self.number);
        self.oracle.borrow_mut().accepted(self.number, events);
        if self.percent(10) {
            peer.close();
            return Ok(false);
        }
        Ok(true)
    }

    async fn fail(&self, peer: &Peer) -> std::io::Result<bool> {
        log::debug!("{}: fails", self.number);
        let status = |s: &str| peer.write(format!("HTTP/1.1 {s}\r\nContent-Length: 3\r\n\r\nno!").as_bytes());
        match self.below(14) {
            0 => status("500 Internal Server Error")?,
            1 => status("503 Service Unavailable")?,
            2 => peer.write(b"HTTP/1.1 503 Busy\r\nRetry-After: 2\r\nContent-Length: 0\r\n\r\n")?,
            3 => peer.write(b"HTTP/1.1 429 Slow Down\r\nRetry-After: 3\r\nContent-Length: 0\r\n\r\n")?,
            4 => status("404 Not Found")?,
            5 => status("403 Forbidden")?,
            6 => status("301 Moved Permanently")?,
            7 => status("400 Bad Request")?,
            8 => status("413 Content Too Large")?,
            9 => {
                peer.reset();
                return Ok(false);
            }
            10 => {
                peer.close();
                return Ok(false);
            }
            11 => {
                peer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nhalf")?;
                peer.close();
                return Ok(false);
            }
            12 => {
                peer.write(b"\x00\x01 this is no HTTP \r\n\r\n")?;
                return Ok(false);
            }
            _ => {
                self.wait(3_600_000_000_000).await;
                return Ok(false);
            }
        }
        Ok(true)
    }
}
