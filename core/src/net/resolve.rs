//! From names to addresses, for all shards of an engine.
//!
//! Names are looked up by threads of the engine's own, never by those of its shards. Of one name there is one lookup at a
//! time in the whole engine; what it gives is kept as long as its records say, within 5 to 60 s, and a failure for 5 s, so
//! that a name that cannot be looked up costs the DNS servers no more than that, however many events wait for it. While
//! the servers do not answer, the last answer is used for up to an hour.
//!
//! Two ways of looking up: [`Source::Dns`] reads `/etc/hosts` and asks the servers of `/etc/resolv.conf` itself, in bounded
//! time, and knows how long an answer holds. [`Source::System`] asks the system's resolver (`getaddrinfo`), which knows
//! whatever `nsswitch.conf` says, but neither tells how long an answer holds nor ends when it is told to.

pub mod cache;

mod ask;
mod dns;
mod system;

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use futures::channel::oneshot;

use ask::Asker;
use cache::{Ask, Cache};

use crate::driver;
use crate::error::{Error, ErrorKind, Result};
use crate::fork::ForkGuard;
use crate::lock::{Condvar, Mutex};

/// The most lookups at a time; the rest wait. Each is a thread while there is something to look up.
pub const LOOKUPS_MAX: usize = 8;
/// How long a thread without work stays.
const THREAD_KEPT: Duration = Duration::from_secs(10);
/// How long an attempt that has an old answer waits for a new one.
const STALE_WAIT: Duration = Duration::from_secs(1);
const STACK_BYTES: usize = 256 << 10;
/// With so many waiting for one name, those that have given up are forgotten.
const WAITING_LOOK: usize = 64;

/// Where addresses come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// `/etc/hosts`, then these servers; those of `/etc/resolv.conf` if there are none.
    Dns(Vec<SocketAddr>),
    /// The system's resolver.
    System,
}

/// The addresses of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// At least one, in the order in which they are to be tried.
    pub addresses: Vec<IpAddr>,
    /// How long they hold.
    pub ttl: Duration,
}

/// Why a name has no addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What kind of failure it is.
    pub kind: FailureKind,
    /// What happened, for people.
    pub text: String,
}

/// See [`Failure`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// There is no such name, or it has no address.
    NoAddress,
    /// Nobody could say.
    Unanswered,
}

#[derive(Debug, Default)]
struct State {
    cache: Cache,
    /// Who waits for a lookup that is under way.
    waiting: HashMap<Arc<str>, Vec<oneshot::Sender<()>>>,
    queue: VecDeque<Arc<str>>,
    threads: Vec<JoinHandle<()>>,
    /// Threads that have not ended, and those of them without work.
    running: usize,
    idle: usize,
    closed: bool,
}

#[derive(Debug)]
struct Inner {
    asker: Asker,
    /// Where the threads may run: one that is started by a shard would else stay on the shard's CPU.
    cpus: Vec<usize>,
    state: Mutex<State>,
    news: Condvar,
}

/// See the module. Its threads end when it is dropped.
#[derive(Debug)]
pub struct Resolver {
    inner: Arc<Inner>,
    fork: ForkGuard,
}

impl Resolver {
    /// A resolver. Nothing is looked up yet, and there is no thread. To be called where no CPU is chosen for the calling
    /// thread.
    pub fn new(source: Source) -> Resolver {
        let cpus = driver::usable_cpus();
        let inner = Inner { asker: Asker::new(source), cpus, state: Mutex::default(), news: Condvar::new() };
        Resolver { inner: Arc::new(inner), fork: ForkGuard::new(()) }
    }

    /// The addresses of a name, at least one. The caller sets the limit.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] if it has none, or they could not be looked up.
    pub(crate) async fn resolve(&self, name: &str) -> Result<Arc<Answer>> {
        let mut limit = None;
        loop {
            let (old, mut done) = {
                let mut state = self.inner.state.lock();
                if state.closed {
                    return Err(Error::new(ErrorKind::Closed, "the engine is closing"));
                }
                let (old, look) = match state.cache.ask(name, driver::now()) {
                    Ask::Known(answer) => return Ok(answer),
                    Ask::Failed(failure) => return Err(explain(name, &failure)),
                    Ask::Look(old) => (old, true),
                    Ask::Wait(old) => (old, false),
                };
                if look && !driver::has_threads() {
                    drop(state);
                    self.inner.end(name, self.inner.asker.look_up(name));
                    continue;
                }
                if look && !self.start(&mut state, name.into()) {
                    let text = "there can be no thread to look it up".to_owned();
                    state.cache.done(name, Err(Failure { kind: FailureKind::Unanswered, text }), driver::now());
                    continue;
                }
                let (told, done) = oneshot::channel();
                let waiting = state.waiting.entry(name.into()).or_default();
                if waiting.len() >= WAITING_LOOK {
                    waiting.retain(|w| !w.is_canceled());
                }
                waiting.push(told);
                (old, done)
            };
            let Some(old) = old else {
                // An error if the resolver is closed meanwhile: the next round tells.
                let _ = done.await;
                continue;
            };
            let end = *limit.get_or_insert_with(|| driver::now() + STALE_WAIT);
            if driver::until(end, &mut done).await.is_none() {
                return Ok(old);
            }
        }
    }

    /// No address of the name can be reached: it may have moved.
    pub(crate) fn doubt(&self, name: &str) {
        self.inner.state.lock().cache.doubt(name);
    }

    /// Has a thread look a name up; `false` if there is none and can be none.
    fn start(&self, state: &mut State, name: Arc<str>) -> bool {
        state.threads.retain(|t| !t.is_finished());
        if state.idle <= state.queue.len() && state.running < LOOKUPS_MAX {
            let inner = self.inner.clone();
            match driver::spawn_helper("tidewire-names", STACK_BYTES, &self.inner.cpus, move || inner.work()) {
                Ok(thread) => {
                    state.threads.push(thread);
                    state.running += 1;
                }
                Err(e) if state.running == 0 => {
                    log::error!("{e}");
                    return false;
                }
                Err(_) => {}
            }
        }
        state.queue.push_back(name);
        self.inner.news.notify_one();
        true
    }
}

impl Inner {
    /// What a thread does: one lookup after the other, until there was none for a while.
    fn work(&self) {
        let mut state = self.state.lock();
        loop {
            let Some(name) = state.queue.pop_front().filter(|_| !state.closed) else {
                let until = std::time::Instant::now() + THREAD_KEPT;
                state.idle += 1;
                while state.queue.is_empty() && !state.closed && std::time::Instant::now() < until {
                    state = self.news.wait_until(state, until);
                }
                state.idle -= 1;
                if state.closed || state.queue.is_empty() {
                    state.running -= 1;
                    return;
                }
                continue;
            };
            drop(state);
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.asker.look_up(&name)));
            let result = result.unwrap_or_else(|_| {
                let text = "the lookup panicked; a defect of Tidewire".into();
                Err(Failure { kind: FailureKind::Unanswered, text })
            });
            self.end(&name, result);
            state = self.state.lock();
        }
    }

    fn end(&self, name: &str, result: std::result::Result<Answer, Failure>) {
        let mut state = self.state.lock();
        state.cache.done(name, result, driver::now());
        let waiting = state.waiting.remove(name).unwrap_or_default();
        drop(state);
        for told in waiting {
            let _ = told.send(());
        }
    }
}

impl Drop for Resolver {
    fn drop(&mut self) {
        // The threads are the parent's, and what they had locked stays so: in a forked child there is nothing to end.
        if self.fork.same_process() {
            self.close();
        }
    }
}

impl Resolver {
    /// Ends the threads, and with them what is being looked up; only a lookup by the system's resolver, which cannot be
    /// told, ends by itself. Whoever waits for a name, or asks for one later, is told that the engine is closing.
    pub fn close(&self) {
        self.inner.asker.stop();
        let mut state = self.inner.state.lock();
        state.closed = true;
        state.waiting.clear();
        let threads = std::mem::take(&mut state.threads);
        drop(state);
        self.inner.news.notify_all();
        if self.inner.asker.can_stop() {
            for thread in threads {
                let _ = thread.join();
            }
        }
    }
}

#[cold]
fn explain(name: &str, failure: &Failure) -> Error {
    let remedy = match failure.kind {
        FailureKind::NoAddress => {
            "check the name; one that only the system's resolver knows (nsswitch.conf) needs \
             `resolver = \"system\"` in [engine.network]"
        }
        FailureKind::Unanswered => "check the name and the DNS servers in /etc/resolv.conf",
    };
    Error::new(ErrorKind::Io, format!("cannot look up {name}: {}", failure.text)).remedy(remedy)
}

#[cfg(test)]
mod tests;
