//! Sockets on a ring of our own, beside that of the runtime.
//!
//! The runtime's ring has each completion that arrives interrupt the thread, and each read and write is a system call after
//! it. Here the operations of all connections of a shard go into the kernel together, answers are received without being
//! asked for each time, and completions wait until the thread enters the kernel anyway: a third less of a processor's time
//! for a small request.
//!
//! One task per shard drives the ring, as long as there is something to do by itself, then by waiting for a descriptor that
//! tells of completions, as the runtime waits for any other. The ring is made with the first connection. Where the kernel
//! refuses it, the runtime's own sockets are used.

mod buffers;
mod op;
mod ring;
mod stream;
#[cfg(test)]
mod tests;

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::mem::ManuallyDrop;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Once, OnceLock};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use futures::FutureExt;

use self::ring::{Enter, Ring, Round};
pub use self::stream::Stream;
use super::Notify;
use super::glommio::{self, Readable, Task};
use super::timers::{self, Sleep};

/// A wake-up that is lost would hold answers up for ever; so while somebody waits for one, a timer looks after it.
const WATCH: Duration = Duration::from_millis(25);
/// How long it is looked out for completions before the shard sleeps, if that pays.
const LOOK: Duration = Duration::from_micros(6);
/// How often it is looked before the time is.
const LOOKS: usize = 4;
/// So many that wait for something make it pay to sleep until several of them can go on, and so many at most.
const GATHER_FROM: usize = 8;
const GATHER_MAX: usize = 16;
/// How long the ring may take to finish when its shard ends.
const END: Duration = Duration::from_secs(2);
/// The pause after a look for the ring's descriptor that failed.
const FAILED_PAUSE: Duration = Duration::from_millis(10);

static RINGS: AtomicU64 = AtomicU64::new(0);
static STARVED: AtomicU64 = AtomicU64::new(0);
static RESCUES: AtomicU64 = AtomicU64::new(0);
static OPERATIONS: AtomicU64 = AtomicU64::new(0);
static GATHERS: AtomicU64 = AtomicU64::new(0);

/// What has happened in this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SocketCounts {
    /// Rings that were made.
    pub rings: u64,
    /// Receptions that found all buffers in use and began anew.
    pub starved: u64,
    /// Completions that were there, and nothing but the watching timer has told of.
    pub rescues: u64,
    /// Operations that the kernel has under way. An open connection that is idle has one: it is being read from.
    pub operations: u64,
    /// Times that a thread slept until several operations had completed.
    pub gathers: u64,
}

/// Of all shards.
pub fn socket_counts() -> SocketCounts {
    let of = |n: &AtomicU64| n.load(Ordering::Relaxed);
    SocketCounts {
        rings: of(&RINGS),
        starved: of(&STARVED),
        rescues: of(&RESCUES),
        operations: of(&OPERATIONS),
        gathers: of(&GATHERS),
    }
}

/// How much of a shard's time its connections may take before it looks at anything else, and how.
struct Manners {
    /// How long connections and the driver take turns without the runtime.
    round: Duration,
    /// One wake-up serves as many as this share of those that wait for something.
    gather_share: usize,
    /// How long it is slept for that at most.
    gather: Duration,
}

const PROMPT: Manners =
    Manners { round: Duration::from_micros(200), gather_share: 4, gather: Duration::from_micros(100) };
/// Where answers come a bit later than they could, nothing is lost but their own time.
const AT_EASE: Manners = Manners { round: Duration::from_millis(2), gather_share: 2, gather: Duration::from_millis(1) };

thread_local! {
    /// Until when this thread is prompt.
    static PROMPT_UNTIL: Cell<Option<Instant>> = const { Cell::new(None) };
    /// Taken out when the shard ends as it should. If it ends by a panic it is left behind: its task has no executor any
    /// more that it could be dropped by.
    static CURRENT: RefCell<ManuallyDrop<Current>> = const { RefCell::new(ManuallyDrop::new(Current::Untried)) };
}

/// Somebody waits for this thread, or will until then: so long its connections keep nothing else waiting for more than some
/// hundreds of microseconds. Else that may become some milliseconds while they have much to do.
pub fn be_prompt(until: Instant) {
    PROMPT_UNTIL.set(Some(until));
}

fn manners(now: Instant) -> &'static Manners {
    match PROMPT_UNTIL.get() {
        Some(until) if now < until => &PROMPT,
        Some(_) => {
            PROMPT_UNTIL.set(None);
            &AT_EASE
        }
        None => &AT_EASE,
    }
}

enum Current {
    Untried,
    /// Also when the shard has ended.
    Refused,
    Made(Rc<Sockets>, Task<()>),
}

/// The ring of this shard, if it is wanted and can be had. The environment variable `TIDEWIRE_SOCKETS`, `ring` or `runtime`,
/// goes before what is `wanted`: it is for tests, and for telling where a trouble comes from.
pub(super) fn usable(wanted: super::Sockets) -> Option<Rc<Sockets>> {
    static FORCED: OnceLock<Option<super::Sockets>> = OnceLock::new();
    let forced = FORCED.get_or_init(|| match std::env::var("TIDEWIRE_SOCKETS").as_deref() {
        Ok("ring") => Some(super::Sockets::Ring),
        Ok("runtime") => Some(super::Sockets::Runtime),
        _ => None,
    });
    match forced.unwrap_or(wanted) {
        super::Sockets::Ring => current(),
        super::Sockets::Runtime => None,
    }
}

/// The ring of this shard, made now if need be; `None` where the kernel refuses it.
fn current() -> Option<Rc<Sockets>> {
    CURRENT.with_borrow_mut(|current| {
        if let Current::Untried = **current {
            **current = match Ring::new() {
                Ok(ring) => {
                    RINGS.fetch_add(1, Ordering::Relaxed);
                    let sockets = Rc::new(Sockets::new(ring));
                    let task = glommio::spawn(drive(sockets.clone()));
                    Current::Made(sockets, task)
                }
                Err(e) => {
                    static TOLD: Once = Once::new();
                    TOLD.call_once(|| log::info!("connections are the runtime's: no ring for sockets: {e}"));
                    Current::Refused
                }
            };
        }
        match &**current {
            Current::Made(sockets, _) if !sockets.is_broken() => Some(sockets.clone()),
            _ => None,
        }
    })
}

/// Ends what the shard still has under way, and the ring. Connections that are left fail.
pub(super) async fn close() {
    let current = CURRENT.replace(ManuallyDrop::new(Current::Refused));
    if let Current::Made(sockets, task) = ManuallyDrop::into_inner(current) {
        sockets.closing.set(true);
        sockets.with_ring(Ring::cancel_all);
        task.await;
    }
}

/// What the streams of a shard share.
pub(super) struct Sockets {
    /// None if it is broken or has ended.
    ring: RefCell<Option<Ring>>,
    /// There is something to submit.
    kick: Notify,
    /// How many wait for something.
    waiting: Cell<usize>,
    closing: Cell<bool>,
}

impl Sockets {
    fn new(ring: Ring) -> Sockets {
        Sockets {
            ring: RefCell::new(Some(ring)),
            kick: Notify::default(),
            waiting: Cell::new(0),
            closing: Cell::new(false),
        }
    }

    fn is_broken(&self) -> bool {
        self.ring.borrow().is_none()
    }

    /// `None` if there is no ring any more.
    fn with<T>(&self, act: impl FnOnce(&mut Ring) -> T) -> Option<T> {
        self.ring.borrow_mut().as_mut().map(act)
    }

    /// Has something submitted. `None` if there is no ring any more.
    fn with_ring<T>(&self, act: impl FnOnce(&mut Ring) -> T) -> Option<T> {
        let done = self.with(act)?;
        self.kick.notify();
        Some(done)
    }

    fn is_empty(&self) -> bool {
        self.ring.borrow().as_ref().is_none_or(Ring::is_empty)
    }

    fn has_completions(&self) -> bool {
        self.with(Ring::has_completions).unwrap_or(false)
    }

    fn has_work(&self) -> bool {
        self.with(Ring::has_work).unwrap_or(false)
    }

    fn is_stale(&self) -> bool {
        self.with(|ring| ring.is_stale()).unwrap_or(false)
    }

    /// Notes who waits.
    fn wait(&self, place: &mut Option<Waker>, cx: &Context<'_>) {
        match place {
            Some(waker) => waker.clone_from(cx.waker()),
            None => {
                *place = Some(cx.waker().clone());
                self.waiting.set(self.waiting.get() + 1);
            }
        }
    }

    /// Notes that so many do not wait any more.
    fn waited(&self, count: usize) {
        self.waiting.set(self.waiting.get().saturating_sub(count));
    }

    /// One round of the ring.
    fn round(&self, enter: Enter, wakers: &mut Vec<Waker>) -> io::Result<Round> {
        let round = match &mut *self.ring.borrow_mut() {
            Some(ring) => ring.round(enter, wakers)?,
            None => return Ok(Round::default()),
        };
        if round.starved > 0 {
            STARVED.fetch_add(round.starved, Ordering::Relaxed);
        }
        self.wake(wakers);
        Ok(round)
    }

    /// Looks out for something to do for a moment, if that has paid lately; whether there is something.
    async fn look(&self, patience: &mut Patience) -> bool {
        if self.has_work() {
            return true;
        }
        if self.waiting.get() == 0 || !patience.looks() {
            return false;
        }
        let end = Instant::now() + LOOK;
        loop {
            // To ask for the time takes as long as to look.
            for _ in 0..LOOKS {
                others().await;
                if self.has_work() {
                    patience.note(true);
                    return true;
                }
            }
            if Instant::now() >= end {
                patience.note(false);
                return false;
            }
        }
    }

    fn wake(&self, wakers: &mut Vec<Waker>) {
        self.waited(wakers.len());
        wakers.drain(..).for_each(Waker::wake);
    }

    /// No use is made of the ring any more.
    fn give_up(&self) {
        let Some(mut ring) = self.ring.borrow_mut().take() else { return };
        let mut wakers = Vec::new();
        if !ring.is_empty() {
            ring.fail(&mut wakers);
        }
        drop(ring);
        self.wake(&mut wakers);
    }
}

/// Whether it pays to look out for completions before going to sleep. Pure.
///
/// To sleep and to be woken takes as long as it takes a busy endpoint to answer the next request. So it is looked out for
/// that long, as long as at least every second look finds something; else only now and then.
#[derive(Default)]
struct Patience {
    score: u8,
    passed: u8,
}

impl Patience {
    const SCORE_MAX: u8 = 16;
    const PASSED_MAX: u8 = 32;

    fn looks(&mut self) -> bool {
        self.passed += 1;
        if self.score < Self::SCORE_MAX / 2 && self.passed < Self::PASSED_MAX {
            return false;
        }
        self.passed = 0;
        true
    }

    fn note(&mut self, found: bool) {
        self.score = if found { (self.score + 1).min(Self::SCORE_MAX) } else { self.score.saturating_sub(1) };
        // One find after a long time is enough to look again.
        if found && self.score < Self::SCORE_MAX / 2 {
            self.score = Self::SCORE_MAX / 2;
        }
    }
}

/// How many answers a thread sleeps for. Pure.
///
/// Where many requests are under way, their answers come one by one, and to sleep and be woken for each costs more than
/// everything else that is done for it. So the thread sleeps until several have come, as long as those come soon. That
/// answers wait for others costs nothing but their own time: the endpoint has enough to do.
#[derive(Default)]
struct Gathering {
    /// How many waited when it was asked last: as soon as so many do again, those that were woken have gone on.
    level: usize,
    patience: Patience,
}

impl Gathering {
    /// How many to sleep for, if `waiting` wait for something, and for how long.
    fn wants(&mut self, waiting: usize, manners: &Manners) -> Option<Enter> {
        let settled = waiting >= self.level;
        self.level = waiting;
        (settled && waiting >= GATHER_FROM && self.patience.looks())
            .then(|| Enter::Gather((waiting / manners.gather_share).min(GATHER_MAX) as u32, manners.gather))
    }
}

/// The task of a ring.
async fn drive(sockets: Rc<Sockets>) {
    match AssertUnwindSafe(rounds(&sockets)).catch_unwind().await {
        Ok(Ok(())) => {}
        Ok(Err(e)) => log::error!("the ring of sockets broke, connections are the runtime's from now on: {e}"),
        Err(_) => log::error!("the task of the ring of sockets panicked; a defect of Tidewire"),
    }
    sockets.give_up();
}

async fn rounds(sockets: &Sockets) -> io::Result<()> {
    let Some(fd) = sockets.ring.borrow().as_ref().map(Ring::fd) else { return Ok(()) };
    let mut waiting = Waiting { readable: Readable::new(fd)?, watch: None };
    let mut wakers = Vec::new();
    let mut patience = Patience::default();
    let mut gathering = Gathering::default();
    let mut turned = Instant::now();
    let mut enter = Enter::ForNews;
    let mut in_vain = false;
    let mut end = None;
    loop {
        let Round { completed, gathered, .. } = sockets.round(enter, &mut wakers)?;
        let has_gathered = matches!(enter, Enter::Gather(..));
        if has_gathered {
            GATHERS.fetch_add(1, Ordering::Relaxed);
            gathering.patience.note(gathered);
        }
        enter = Enter::ForNews;
        if sockets.closing.get() {
            let end = *end.get_or_insert_with(|| Instant::now() + END);
            if sockets.is_empty() || Instant::now() >= end {
                break;
            }
        }
        let now = Instant::now();
        let manners = manners(now);
        let is_in_round = now.duration_since(turned) < manners.round;
        if completed > 0 && is_in_round {
            // Those that were woken, and with what they want at once the next round.
            others().await;
        }
        if is_in_round
            && !(completed == 0 && has_gathered)
            && !super::disk::is_busy()
            && let Some(gather) = gathering.wants(sockets.waiting.get(), manners)
        {
            (enter, in_vain) = (gather, false);
            continue;
        }
        if completed == 0 {
            if !sockets.look(&mut patience).await {
                if waiting.wait(sockets, &mut wakers).await? {
                    enter = Enter::Anyway;
                }
                in_vain = false;
            } else if std::mem::replace(&mut in_vain, true) {
                // There is something to do that cannot be done now: the kernel may lack memory. Others can go on.
                glommio::turn().await;
            }
            turned = Instant::now();
            continue;
        }
        in_vain = false;
        if !is_in_round {
            glommio::turn().await;
            turned = Instant::now();
        }
    }
    // What waits for the ring's descriptor ends by being woken: to cancel it would leave it for the runtime to clean up.
    if waiting.readable.is_armed() {
        sockets.with_ring(Ring::nudge).transpose()?;
        let mut late = pin!(timers::sleep(END));
        poll_fn(|cx| match waiting.readable.poll(cx) {
            Poll::Ready(_) => Poll::Ready(()),
            Poll::Pending => late.as_mut().poll(cx),
        })
        .await;
    }
    Ok(())
}

/// Lets the other tasks of the shard's ordinary queue run once.
async fn others() {
    let mut yielded = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await
}

struct Waiting {
    readable: Readable,
    watch: Option<Sleep>,
}

/// What has ended a wait.
enum Ended {
    Told,
    /// The timer, and whether there were completions then.
    Watch(bool),
    Failed(io::Error),
}

impl Waiting {
    /// Waits until there is something to do. `true` if only the timer has ended it, and there may be completions that
    /// nothing has told of.
    ///
    /// # Errors
    /// If the ring cannot be used any more.
    async fn wait(&mut self, sockets: &Sockets, wakers: &mut Vec<Waker>) -> io::Result<bool> {
        sockets.with(Ring::arm);
        // What has come before that, nobody tells of.
        let has_work =
            sockets.has_work() || (sockets.is_stale() && sockets.round(Enter::Anyway, wakers)?.completed > 0);
        let anyway = !has_work && self.wait_armed(sockets).await;
        sockets.with(Ring::disarm);
        Ok(anyway)
    }

    async fn wait_armed(&mut self, sockets: &Sockets) -> bool {
        let ended = poll_fn(|cx| {
            // First of all, so that it is waited for whatever else ends this.
            match self.readable.poll(cx) {
                Poll::Ready(Ok(())) => return Poll::Ready(Ended::Told),
                Poll::Ready(Err(e)) => return Poll::Ready(Ended::Failed(e)),
                Poll::Pending => {}
            }
            if pin!(sockets.kick.notified()).poll(cx).is_ready() {
                return Poll::Ready(Ended::Told);
            }
            if self.watch.as_mut().is_some_and(|watch| pin!(watch).poll(cx).is_ready()) {
                self.watch = None;
                return Poll::Ready(Ended::Watch(sockets.has_completions()));
            }
            if sockets.has_work() {
                return Poll::Ready(Ended::Told);
            }
            // An idle shard shall sleep.
            if self.watch.is_none() && (sockets.waiting.get() > 0 || sockets.closing.get()) {
                let mut watch = timers::sleep(WATCH);
                let _ = pin!(&mut watch).poll(cx);
                self.watch = Some(watch);
            }
            Poll::Pending
        })
        .await;
        match ended {
            Ended::Told => false,
            Ended::Watch(had_completions) => {
                // The runtime may only be late: it gets time to tell.
                glommio::turn().await;
                glommio::turn().await;
                let told = poll_fn(|cx| Poll::Ready(self.readable.poll(cx).is_ready())).await;
                if had_completions && !told {
                    RESCUES.fetch_add(1, Ordering::Relaxed);
                }
                !told
            }
            Ended::Failed(e) => {
                log::warn!("the ring of sockets cannot be waited for: {e}");
                timers::sleep(FAILED_PAUSE).await;
                true
            }
        }
    }
}
