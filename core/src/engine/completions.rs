//! Completions: which events have reached their ack level, told through one file descriptor.
//!
//! For hosts with an event loop, which cannot have a thread wait for each event. Per shard and level there is one heap of
//! what is watched, by ring position, and of all of it only the first is known to the shard: so watching an event costs
//! the shard nothing, and one sync that makes a thousand events durable wakes the host once.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::future::Future;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::JoinHandle;

use super::Engine;
use crate::driver;
use crate::error::{Error, Result};
use crate::lock::Mutex;
use crate::log::Ack;
use crate::shard::progress::{Receipt, ReceiptFuture, Way};
use crate::shared::Client;

/// Completions that are told to a callback at a time.
const AT_ONCE: usize = 256;
/// Of the thread that calls: it runs code of the host.
const STACK_BYTES: usize = 2 << 20;

/// Tells which events have reached their ack level: see [`Engine::completions`].
///
/// May be used from any threads at the same time. It keeps the engine open as an [`Engine`] does.
#[derive(Debug)]
pub struct Completions {
    keep: Keep,
    inner: Arc<Inner>,
    waker: Waker,
}

/// An event that has reached its ack level, or never will.
#[derive(Debug)]
pub struct Completion {
    /// As it was given to [`Completions::watch`].
    pub user_data: u64,
    /// [`crate::ErrorKind::LogFailed`] or [`crate::ErrorKind::Closed`] if it will never be reached.
    pub result: Result<()>,
}

/// Whose events are watched, and kept open by it.
#[derive(Debug)]
pub(crate) enum Keep {
    Engine(Engine),
    Client(Client),
    /// It is for whoever has it to see to that.
    Nothing,
}

impl Keep {
    fn check_process(&self) -> Result<()> {
        match self {
            Keep::Engine(engine) => engine.check_process(),
            Keep::Client(client) => client.check_process(),
            Keep::Nothing => Ok(()),
        }
    }
}

#[derive(Debug)]
struct Inner {
    /// An eventfd: readable while there may be completions to take.
    fd: OwnedFd,
    /// It was written since it was last read.
    told: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    done: VecDeque<Completion>,
    /// One for each shard and level that something was watched of.
    lines: Vec<Line>,
    /// What is watched in all of them.
    watched: usize,
}

/// What is watched of one shard, at one level.
#[derive(Debug)]
struct Line {
    way: Way,
    ack: Ack,
    /// Ring position, and what stands for the event; the lowest position first.
    waiting: BinaryHeap<Reverse<(u64, u64)>>,
    /// Of the first: known to the shard.
    first: Option<(u64, ReceiptFuture)>,
}

/// Tells the host; weak, because shards hold it.
struct Bell(Weak<Inner>);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        if let Some(inner) = self.0.upgrade() {
            inner.tell();
        }
    }
}

impl Inner {
    /// Makes the descriptor readable.
    fn tell(&self) {
        // SeqCst, and in `take`: either this sees that it was read, or who reads sees what has come.
        if !self.told.swap(true, Ordering::SeqCst) {
            let one = 1u64.to_ne_bytes();
            // SAFETY: eight bytes that live; the descriptor is open. It fails only if the counter is at its end, and then
            // it is readable.
            unsafe { libc::write(self.fd.as_raw_fd(), one.as_ptr().cast(), one.len()) };
        }
    }

    /// Makes it unreadable. What has been told until this returns is not told again: it is to be looked at after it.
    fn hush(&self) {
        let mut count = [0u8; 8];
        // SAFETY: eight bytes that may be written; the descriptor is open, and it does not block.
        unsafe { libc::read(self.fd.as_raw_fd(), count.as_mut_ptr().cast(), count.len()) };
        self.told.store(false, Ordering::SeqCst);
    }
}

impl State {
    /// Moves what has reached its level.
    fn advance(&mut self, waker: &Waker) {
        let mut cx = Context::from_waker(waker);
        for line in &mut self.lines {
            line.advance(&mut cx, &mut self.done, &mut self.watched);
        }
    }
}

impl Line {
    fn advance(&mut self, cx: &mut Context<'_>, done: &mut VecDeque<Completion>, watched: &mut usize) {
        while let Some((_, first)) = &mut self.first {
            let Poll::Ready(result) = Pin::new(&mut *first).poll(cx) else { return };
            let receipt = first.receipt().clone();
            let reached = receipt.reached_position(self.ack);
            let fault = |position| receipt.fault_at(position, self.ack);
            let all_failed = result.is_err() && fault(receipt.position).is_none();
            while let Some(Reverse((position, user_data))) = self.waiting.peek().copied() {
                let fault = fault(position);
                if position > reached && !all_failed && fault.is_none() {
                    break;
                }
                self.waiting.pop();
                *watched -= 1;
                // Of a log that has failed, what had reached its level before has not failed.
                let result = match fault {
                    Some(e) => Err(e),
                    None if position <= reached => Ok(()),
                    None => result.clone(),
                };
                done.push_back(Completion { user_data, result });
            }
            self.first = self.waiting.peek().map(|Reverse((position, _))| {
                let next = Receipt { position: *position, ..receipt };
                (*position, next.reached(self.ack))
            });
        }
    }

    fn push(&mut self, receipt: &Receipt, user_data: u64) {
        self.waiting.push(Reverse((receipt.position, user_data)));
        if self.first.as_ref().is_none_or(|(position, _)| receipt.position < *position) {
            self.first = Some((receipt.position, receipt.reached(self.ack)));
        }
    }
}

impl Engine {
    /// A queue of completions, for a host with an event loop: it watches the descriptor ([`Completions::as_fd`]) for
    /// reading and then takes what has completed. An engine may have several, one per loop for instance.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Io`] if there are no descriptors left, [`crate::ErrorKind::WrongProcess`].
    pub fn completions(&self) -> Result<Completions> {
        Completions::new(Keep::Engine(self.clone()))
    }
}

impl Completions {
    /// A queue for the events of whom it keeps open.
    pub(crate) fn new(keep: Keep) -> Result<Completions> {
        keep.check_process()?;
        let fd = driver::eventfd(0)
            .map_err(|e| Error::io("cannot make an eventfd", &e).remedy("raise the limit of open files"))?;
        let inner = Inner { fd, told: AtomicBool::new(false), state: Mutex::default() };
        let inner = Arc::new(inner);
        let waker = Waker::from(Arc::new(Bell(Arc::downgrade(&inner))));
        Ok(Completions { keep, inner, waker })
    }

    /// Watches for an event's level; `user_data` comes with its completion, which there will be one of, at once if the
    /// level is reached already.
    ///
    /// # Errors
    /// [`crate::ErrorKind::WrongProcess`].
    pub fn watch(&self, receipt: &Receipt, ack: Ack, user_data: u64) -> Result<()> {
        self.keep.check_process()?;
        let (way, ack) = (&receipt.way, receipt.way.level(ack)?);
        let mut state = self.inner.state.lock();
        let at = match state.lines.iter().position(|l| l.ack == ack && l.way.is(way)) {
            Some(at) => at,
            None => {
                state.lines.push(Line { way: way.clone(), ack, waiting: BinaryHeap::new(), first: None });
                state.lines.len() - 1
            }
        };
        state.watched += 1;
        let State { done, lines, watched } = &mut *state;
        lines[at].push(receipt, user_data);
        lines[at].advance(&mut Context::from_waker(&self.waker), done, watched);
        if !done.is_empty() {
            self.inner.tell();
        }
        Ok(())
    }

    /// Takes up to `max` completions; never waits. Those of one shard and level come in the order of their events. While
    /// there are more the descriptor stays readable.
    ///
    /// # Errors
    /// [`crate::ErrorKind::WrongProcess`].
    pub fn take(&self, max: usize, mut each: impl FnMut(Completion)) -> Result<usize> {
        self.keep.check_process()?;
        let mut state = self.inner.state.lock();
        // Before looking: what comes after this tells again.
        self.inner.hush();
        state.advance(&self.waker);
        let count = state.done.len().min(max);
        let taken: Vec<Completion> = state.done.drain(..count).collect();
        if !state.done.is_empty() {
            self.inner.tell();
        }
        // What is called may watch or take.
        drop(state);
        taken.into_iter().for_each(&mut each);
        Ok(count)
    }

    /// Events whose completion was not taken yet.
    pub fn pending(&self) -> usize {
        let state = self.inner.state.lock();
        state.watched + state.done.len()
    }
}

impl Engine {
    /// A queue of completions with a thread of its own that calls `each` with them, some at a time. `each` may publish and
    /// watch; while it runs no others of the queue are told.
    ///
    /// # Errors
    /// As [`Engine::completions`], and [`crate::ErrorKind::Io`] if there can be no thread.
    pub fn completions_to(&self, each: impl FnMut(&[Completion]) + Send + 'static) -> Result<CompletionCalls> {
        self.completions()?.call(each)
    }
}

impl Completions {
    /// Has a thread of its own take and call.
    pub(crate) fn call(self, mut each: impl FnMut(&[Completion]) + Send + 'static) -> Result<CompletionCalls> {
        let queue = Arc::new(self);
        let stop = Arc::new(AtomicBool::new(false));
        let (calling, stopped) = (queue.clone(), stop.clone());
        let work = move || {
            let mut told = Vec::with_capacity(AT_ONCE);
            let mut take_all = || {
                while calling.take(AT_ONCE, |c| told.push(c)).is_ok_and(|n| n > 0) {
                    each(&told);
                    told.clear();
                }
            };
            loop {
                take_all();
                // After it, for the word of the end may have been taken from the descriptor there, and will not come again.
                if stopped.load(Ordering::SeqCst) {
                    // What has completed when the end is asked for is told.
                    return take_all();
                }
                let mut poll = libc::pollfd { fd: calling.as_fd().as_raw_fd(), events: libc::POLLIN, revents: 0 };
                // SAFETY: one valid entry. Whatever the answer is, the queue is looked at again.
                unsafe { libc::poll(&mut poll, 1, -1) };
            }
        };
        let thread = driver::spawn_helper("tidewire-acks", STACK_BYTES, &driver::usable_cpus(), work)?;
        Ok(CompletionCalls { queue, stop, thread: Some(thread) })
    }
}

/// See [`Engine::completions_to`]. When it is dropped, what has completed by then is told, and then nothing more.
#[derive(Debug)]
pub struct CompletionCalls {
    queue: Arc<Completions>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl std::ops::Deref for CompletionCalls {
    type Target = Completions;

    fn deref(&self) -> &Completions {
        &self.queue
    }
}

impl Drop for CompletionCalls {
    fn drop(&mut self) {
        // A forked child does not have the thread.
        if self.queue.keep.check_process().is_err() {
            return;
        }
        self.stop.store(true, Ordering::SeqCst);
        self.queue.inner.tell();
        // Dropped by the thread itself, it ends when that is done.
        if let Some(thread) = self.thread.take().filter(|t| t.thread().id() != std::thread::current().id()) {
            let _ = thread.join();
        }
    }
}

impl AsFd for Completions {
    /// An eventfd, readable while there may be completions to take. Only to be polled; it is read by [`Completions::take`].
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::atomic::AtomicU64;
    use std::time::{Duration, Instant};

    use super::*;
    use crate::config::EngineConfig;
    use crate::error::ErrorKind;
    use crate::event::{Event, EventTypes, KnownType};
    use crate::rule::{Rule, RuleSet};
    use crate::{OnFull, PublishOptions};

    const WAIT: Duration = Duration::from_secs(60);

    fn engine(dir: &std::path::Path, shards: usize) -> Engine {
        let mut config = EngineConfig::new(dir);
        config.shards = Some(shards);
        config.retention.keep = crate::config::Keep::Rules;
        let mut rule = Rule::new("all", ["*"], &EventTypes::default()).unwrap();
        rule.retain = true;
        Engine::open_with(config, RuleSet::build(vec![rule], vec![], EventTypes::default()).unwrap()).unwrap()
    }

    fn submit(engine: &Engine, key: &str, ack: Ack) -> Receipt {
        let event = Event::new(KnownType::ObjectCreatedPut.into(), "b", key.as_bytes());
        let options = PublishOptions { ack, on_full: OnFull::Block(WAIT), ..PublishOptions::default() };
        engine.submit(&event, &options).unwrap().unwrap()
    }

    fn shard_of(receipt: &Receipt) -> usize {
        match &receipt.way {
            Way::Shard(shard) => shard.index,
            Way::Client(..) => unreachable!(),
        }
    }

    fn is_readable(fd: BorrowedFd<'_>, wait: Duration) -> bool {
        let mut poll = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one valid entry.
        unsafe { libc::poll(&mut poll, 1, wait.as_millis() as libc::c_int) > 0 }
    }

    /// Takes as an event loop does, until so many have come.
    fn all(of: &Completions, count: usize) -> Vec<Completion> {
        let (mut taken, begun) = (Vec::new(), Instant::now());
        while taken.len() < count {
            assert!(begun.elapsed() < WAIT, "{} of {count} came; {:?}", taken.len(), of.inner);
            if is_readable(of.as_fd(), Duration::from_secs(1)) {
                of.take(7, |c| taken.push(c)).unwrap();
            }
        }
        taken
    }

    #[test]
    fn each_event_completes_once_at_its_level_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let engine = engine(dir.path(), 2);
        let completions = engine.completions().unwrap();
        assert!(!is_readable(completions.as_fd(), Duration::ZERO));
        let mut of_shard: BTreeMap<(usize, Ack), Vec<u64>> = BTreeMap::new();
        for n in 0..2000 {
            let ack = [Ack::Synced, Ack::Written, Ack::Memory][n as usize % 3];
            let receipt = submit(&engine, &format!("k{}", n % 7), ack);
            of_shard.entry((shard_of(&receipt), ack)).or_default().push(n);
            completions.watch(&receipt, ack, n).unwrap();
        }
        let taken = all(&completions, 2000);
        assert!(taken.iter().all(|c| c.result.is_ok()));
        let mut place = vec![usize::MAX; 2000];
        taken.iter().enumerate().for_each(|(at, c)| place[c.user_data as usize] = at);
        assert!(!place.contains(&usize::MAX));
        for line in of_shard.values() {
            assert!(line.is_sorted_by_key(|n| place[*n as usize]));
        }
        assert_eq!(completions.pending(), 0);
        assert_eq!(completions.take(10, |_| unreachable!()).unwrap(), 0);
        assert!(!is_readable(completions.as_fd(), Duration::ZERO));
        engine.close(WAIT).unwrap();
    }

    #[test]
    fn an_earlier_event_that_is_watched_later_completes_first() {
        let dir = tempfile::tempdir().unwrap();
        let engine = engine(dir.path(), 1);
        let completions = engine.completions().unwrap();
        let receipts: Vec<Receipt> = (0..10).map(|_| submit(&engine, "k", Ack::Synced)).collect();
        for (n, receipt) in receipts.iter().enumerate().rev() {
            completions.watch(receipt, Ack::Synced, n as u64).unwrap();
        }
        let mut taken: Vec<u64> = all(&completions, 10).iter().map(|c| c.user_data).collect();
        taken.sort_unstable();
        assert_eq!(taken, (0..10).collect::<Vec<_>>());
    }

    #[test]
    fn what_will_never_be_reached_completes_with_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let engine = engine(dir.path(), 1);
        let completions = engine.completions().unwrap();
        let reached = submit(&engine, "k", Ack::Synced);
        reached.wait(Ack::Synced, Some(Instant::now() + WAIT)).unwrap();
        // Far behind everything: the shard does not come to it.
        let never = |n| Receipt { position: u64::MAX - n, ..reached.clone() };
        completions.watch(&never(0), Ack::Synced, 0).unwrap();
        completions.watch(&never(1), Ack::Written, 1).unwrap();
        completions.watch(&reached, Ack::Synced, 2).unwrap();
        assert_eq!(completions.pending(), 3);
        let error = Error::new(ErrorKind::LogFailed, "a disk is gone");
        engine.inner.shards[0].progress.fail(error, || {});
        let mut taken = all(&completions, 3);
        taken.sort_unstable_by_key(|c| c.user_data);
        let kinds: Vec<_> = taken.iter().map(|c| c.result.as_ref().err().map(Error::kind)).collect();
        assert_eq!(kinds, [Some(ErrorKind::LogFailed), Some(ErrorKind::LogFailed), None]);
        completions.watch(&never(2), Ack::Synced, 3).unwrap();
        assert!(all(&completions, 1)[0].result.is_err());
    }

    #[test]
    fn closing_completes_everything() {
        let dir = tempfile::tempdir().unwrap();
        let engine = engine(dir.path(), 2);
        let completions = engine.completions().unwrap();
        for n in 0..200 {
            completions.watch(&submit(&engine, &n.to_string(), Ack::Memory), Ack::Synced, n).unwrap();
        }
        engine.close(WAIT).unwrap();
        assert!(all(&completions, 200).iter().all(|c| c.result.is_ok()), "closing makes durable what was accepted");
    }

    #[test]
    fn threads_publish_while_another_takes() {
        let dir = tempfile::tempdir().unwrap();
        let engine = engine(dir.path(), 2);
        let completions = engine.completions().unwrap();
        std::thread::scope(|s| {
            for t in 0..4 {
                let (engine, completions) = (&engine, &completions);
                s.spawn(move || {
                    for n in 0..500 {
                        let receipt = submit(engine, &format!("{t}-{n}"), Ack::Synced);
                        completions.watch(&receipt, Ack::Synced, t * 500 + n).unwrap();
                    }
                });
            }
            let mut taken: Vec<u64> = all(&completions, 2000).iter().map(|c| c.user_data).collect();
            taken.sort_unstable();
            assert_eq!(taken, (0..2000).collect::<Vec<_>>());
        });
    }

    #[test]
    fn a_thread_of_the_queue_calls_until_it_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let engine = engine(dir.path(), 2);
        let told = Arc::new(Mutex::new(Vec::new()));
        let calls = told.clone();
        let queue = engine.completions_to(move |c| calls.lock().extend(c.iter().map(|c| c.user_data))).unwrap();
        for n in 0..500 {
            let receipt = submit(&engine, &n.to_string(), Ack::Synced);
            queue.watch(&receipt, Ack::Synced, n).unwrap();
            if n == 499 {
                // All of its key are told before; others may be on their way.
                receipt.wait(Ack::Synced, Some(Instant::now() + WAIT)).unwrap();
            }
        }
        let begun = Instant::now();
        while told.lock().len() < 500 {
            assert!(begun.elapsed() < WAIT, "{} came", told.lock().len());
            std::thread::sleep(Duration::from_millis(1));
        }
        // What has completed is told even if nothing else has woken the thread.
        queue.watch(&submit(&engine, "k", Ack::Memory), Ack::Memory, 500).unwrap();
        drop(queue);
        assert_eq!(told.lock().len(), 501);
        told.lock().sort_unstable();
        assert!(told.lock().iter().copied().eq(0..=500));
        engine.close(WAIT).unwrap();
    }

    /// The end is asked for at every place in the thread's way from being told to waiting again.
    #[test]
    fn a_thread_ends_whenever_its_queue_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let engine = engine(dir.path(), 1);
        let receipt = submit(&engine, "k", Ack::Memory);
        for n in 0..3000 {
            let told = Arc::new(AtomicU64::new(0));
            let calls = told.clone();
            let queue = engine.completions_to(move |c| {
                calls.fetch_add(c.len() as u64, Ordering::SeqCst);
            });
            let queue = queue.unwrap();
            if n % 3 > 0 {
                std::thread::sleep(Duration::from_micros(n % 97));
            }
            queue.watch(&receipt, Ack::Memory, n).unwrap();
            for _ in 0..n % 31 * 20 {
                std::hint::spin_loop();
            }
            drop(queue);
            assert_eq!(told.load(Ordering::SeqCst), 1);
        }
    }

    #[test]
    fn a_queue_that_is_gone_is_told_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let engine = engine(dir.path(), 1);
        let completions = engine.completions().unwrap();
        completions.watch(&submit(&engine, "k", Ack::Synced), Ack::Synced, 0).unwrap();
        let inner = Arc::downgrade(&completions.inner);
        drop(completions);
        // The shard may be telling it at this moment.
        let begun = Instant::now();
        while inner.strong_count() > 0 {
            assert!(begun.elapsed() < WAIT, "something keeps it");
            std::thread::yield_now();
        }
        submit(&engine, "k", Ack::Synced).wait(Ack::Synced, Some(Instant::now() + WAIT)).unwrap();
        engine.close(WAIT).unwrap();
    }
}
