//! A simulated machine in place of the runtime: one thread, a seeded scheduler, a clock that moves when nothing else does,
//! a disk that may lose what was not synced, and a network that may lose anything. The engine above it is the real one.
//!
//! A [`World`] is current for the thread that runs it. While it is, everything that the driver offers goes to it, so a run
//! with the same seed is the same run.

pub mod disk;
pub mod net;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use crate::lock::Mutex;

thread_local! {
    static WORLD: RefCell<Option<Rc<World>>> = const { RefCell::new(None) };
}

/// The world that is current on this thread.
pub(crate) fn current() -> Option<Rc<World>> {
    WORLD.with_borrow(Clone::clone)
}

/// The world that is current on this thread.
pub fn world() -> Option<Rc<World>> {
    current()
}

/// Whether this thread is in a simulation.
#[inline]
pub(crate) fn active() -> bool {
    WORLD.with_borrow(Option::is_some)
}

/// The number of the simulated process that runs now; the same all the time outside of simulations.
pub(crate) fn process() -> u64 {
    WORLD.with_borrow(|w| w.as_ref().map_or(OUTSIDE, |w| w.process.get()))
}

/// Numbers from a seed (splitmix64).
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// A generator.
    pub fn new(seed: u64) -> Rng {
        Rng(seed)
    }

    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Uniform below `n`, which is above zero.
    pub fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.draw()) * u128::from(n)) >> 64) as u64
    }

    /// Uniform from `low` to `high`, both included.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    /// Yes in `percent` of the cases.
    pub fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

type Work = Pin<Box<dyn Future<Output = ()>>>;

struct Entry {
    /// Absent while it runs.
    work: Option<Work>,
    waker: Arc<TaskWaker>,
    process: u64,
}

struct TaskWaker {
    id: u64,
    queued: AtomicBool,
    ready: Arc<Mutex<Vec<u64>>>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        if !self.queued.swap(true, Ordering::Relaxed) {
            self.ready.lock().push(self.id);
        }
    }
}

/// What tasks of the world itself belong to; they survive every kill.
const OUTSIDE: u64 = 0;

/// See the module.
pub struct World {
    rng: RefCell<Rng>,
    base: Instant,
    now_ns: Cell<u64>,
    wall_ns: Cell<u64>,
    next_id: Cell<u64>,
    /// The process that runs now; each kill ends one.
    process: Cell<u64>,
    running: Cell<u64>,
    tasks: RefCell<BTreeMap<u64, Entry>>,
    ready: Arc<Mutex<Vec<u64>>>,
    timers: RefCell<BTreeMap<(u64, u64), Waker>>,
    steps: Cell<u64>,
    trace: Cell<u64>,
    /// The disk.
    pub disk: disk::Disk,
    /// The network.
    pub net: net::Net,
}

/// Makes a world current until dropped.
pub struct Entered(());

impl Drop for Entered {
    fn drop(&mut self) {
        if let Some(world) = WORLD.take() {
            world.drop_tasks(|_| true);
        }
    }
}

impl World {
    /// A world made from a seed.
    pub fn new(seed: u64) -> Rc<World> {
        let mut rng = Rng::new(seed);
        Rc::new(World {
            disk: disk::Disk::new(Rng::new(rng.draw())),
            net: net::Net::new(Rng::new(rng.draw())),
            rng: RefCell::new(rng),
            base: Instant::now(),
            now_ns: Cell::new(0),
            wall_ns: Cell::new(1_700_000_000_000_000_000),
            next_id: Cell::new(1),
            process: Cell::new(OUTSIDE + 1),
            running: Cell::new(OUTSIDE),
            tasks: RefCell::default(),
            ready: Arc::default(),
            timers: RefCell::default(),
            steps: Cell::new(0),
            trace: Cell::new(seed),
        })
    }

    /// Makes it the world of this thread.
    ///
    /// # Panics
    /// If there is one already.
    pub fn enter(self: &Rc<World>) -> Entered {
        assert!(WORLD.replace(Some(self.clone())).is_none(), "one world at a time");
        Entered(())
    }

    /// Virtual nanoseconds since the world began.
    pub fn now_ns(&self) -> u64 {
        self.now_ns.get()
    }

    /// Moves the wall clock, and only that, by so many nanoseconds.
    pub fn step_wall_clock(&self, by_ns: i64) {
        self.wall_ns.set(self.wall_ns.get().saturating_add_signed(by_ns));
    }

    /// How many task polls there were.
    pub fn steps(&self) -> u64 {
        self.steps.get()
    }

    /// A number that is the same for two runs only if they went the same way.
    pub fn trace(&self) -> u64 {
        self.trace.get()
    }

    /// Mixes something into [`World::trace`].
    pub fn note(&self, what: u64) {
        self.trace.set((self.trace.get() ^ what).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(23));
    }

    pub(crate) fn now(&self) -> Instant {
        self.base + Duration::from_nanos(self.now_ns.get())
    }

    pub(crate) fn wall(&self) -> u64 {
        self.wall_ns.get()
    }

    /// What the wall clock shows, ns since the epoch.
    pub fn wall_ns(&self) -> u64 {
        self.wall_ns.get()
    }

    pub(crate) fn random(&self) -> u64 {
        self.rng.borrow_mut().draw()
    }

    fn id(&self) -> u64 {
        let id = self.next_id.get();
        self.next_id.set(id + 1);
        id
    }

    /// Starts a task of the world, which no kill ends.
    pub fn spawn_outside(self: &Rc<World>, work: impl Future<Output = ()> + 'static) {
        self.start(OUTSIDE, Box::pin(work));
    }

    fn start(&self, process: u64, work: Work) -> u64 {
        let id = self.id();
        let waker = Arc::new(TaskWaker { id, queued: AtomicBool::new(true), ready: self.ready.clone() });
        self.tasks.borrow_mut().insert(id, Entry { work: Some(work), waker, process });
        self.ready.lock().push(id);
        id
    }

    pub(crate) fn spawn<T: 'static>(&self, future: impl Future<Output = T> + 'static) -> Join<T> {
        let join = Join(Rc::new(JoinState { out: RefCell::new(None), waker: RefCell::new(None) }));
        let state = join.0.clone();
        let process = if self.running.get() == OUTSIDE { self.process.get() } else { self.running.get() };
        self.start(
            process,
            Box::pin(async move {
                let out = future.await;
                *state.out.borrow_mut() = Some(out);
                if let Some(w) = state.waker.borrow_mut().take() {
                    w.wake();
                }
            }),
        );
        join
    }

    /// Polls one ready task, any; `false` if there is none.
    fn poll_one(&self) -> bool {
        let id = {
            let mut ready = self.ready.lock();
            if ready.is_empty() {
                return false;
            }
            let n = self.rng.borrow_mut().below(ready.len() as u64) as usize;
            ready.swap_remove(n)
        };
        self.poll_task(id);
        true
    }

    fn poll_task(&self, id: u64) {
        let Some((mut work, waker, process)) = self.tasks.borrow_mut().get_mut(&id).and_then(|t| {
            t.waker.queued.store(false, Ordering::Relaxed);
            Some((t.work.take()?, Waker::from(t.waker.clone()), t.process))
        }) else {
            return;
        };
        self.steps.set(self.steps.get() + 1);
        self.note(id);
        let before = self.running.replace(process);
        let done = work.as_mut().poll(&mut Context::from_waker(&waker)).is_ready();
        self.running.set(before);
        if done {
            self.tasks.borrow_mut().remove(&id);
            drop(work);
        } else if let Some(t) = self.tasks.borrow_mut().get_mut(&id) {
            t.work = Some(work);
        }
    }

    /// Moves the clock to the next timer and fires it; `false` if there is none.
    fn next_timer(&self) -> bool {
        let Some(((at, _), waker)) = self.timers.borrow_mut().pop_first() else { return false };
        if at > self.now_ns.get() {
            let by = at - self.now_ns.get();
            self.now_ns.set(at);
            self.wall_ns.set(self.wall_ns.get() + by);
        }
        waker.wake();
        true
    }

    /// One step: a task, or the clock. `false` if nothing will ever happen again.
    pub fn step(&self) -> bool {
        self.poll_one() || self.next_timer()
    }

    /// Runs until `done`, at most for so many virtual nanoseconds and so many polls. Whether it was done.
    pub fn run_until(&self, limit_ns: u64, polls_max: u64, mut done: impl FnMut() -> bool) -> bool {
        let end = self.now_ns.get().saturating_add(limit_ns);
        let last = self.steps.get() + polls_max;
        loop {
            if done() {
                return true;
            }
            if self.steps.get() >= last {
                return false;
            }
            if !self.poll_one() {
                match self.timers.borrow().first_key_value() {
                    Some(((at, _), _)) if *at <= end => {}
                    _ => {
                        // Nothing more within the limit: the clock goes there by itself.
                        let by = end.saturating_sub(self.now_ns.get());
                        self.now_ns.set(self.now_ns.get() + by);
                        self.wall_ns.set(self.wall_ns.get() + by);
                        return done();
                    }
                }
                self.next_timer();
            }
        }
    }

    /// For somebody outside who waits, at most for so long: the next thing happens, or the time passes.
    ///
    /// # Panics
    /// If nothing will ever happen, and he waits without a limit.
    pub(crate) fn let_happen(&self, limit: Option<Duration>) {
        match limit {
            Some(limit) => drop(self.run_until(limit.as_nanos() as u64, 1, || false)),
            None => assert!(self.step(), "somebody waits for ever"),
        }
    }

    /// Ends the process as kill -9 does, and with `power_lost` the machine: then the disk keeps what it likes of what was
    /// not synced. Engines of the process must be dropped afterwards; they do nothing any more.
    pub fn kill(self: &Rc<World>, power_lost: bool) {
        let dead = self.process.get();
        self.process.set(dead + 1);
        self.drop_tasks(|t| t.process == dead);
        self.disk.end_process(self, power_lost);
        self.net.end_process();
    }

    fn drop_tasks(&self, which: impl Fn(&Entry) -> bool) {
        let ids: Vec<u64> = self.tasks.borrow().iter().filter(|(_, t)| which(t)).map(|(id, _)| *id).collect();
        for id in ids {
            let entry = self.tasks.borrow_mut().remove(&id);
            drop(entry);
        }
    }

    pub(crate) fn sleep_until(self: &Rc<World>, when: Instant) -> Sleep {
        let at_ns = when.saturating_duration_since(self.base).as_nanos() as u64;
        Sleep { world: self.clone(), at_ns, armed: None }
    }

    /// Waits for so many virtual nanoseconds.
    pub fn pause(self: &Rc<World>, ns: u64) -> Sleep {
        Sleep { world: self.clone(), at_ns: self.now_ns.get() + ns, armed: None }
    }
}

/// Waits for a time of the world.
pub struct Sleep {
    world: Rc<World>,
    at_ns: u64,
    armed: Option<u64>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(id) = self.armed.take() {
            self.world.timers.borrow_mut().remove(&(self.at_ns, id));
        }
        if self.world.now_ns.get() >= self.at_ns {
            return Poll::Ready(());
        }
        let id = self.world.id();
        self.armed = Some(id);
        self.world.timers.borrow_mut().insert((self.at_ns, id), cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(id) = self.armed {
            self.world.timers.borrow_mut().remove(&(self.at_ns, id));
        }
    }
}

struct JoinState<T> {
    out: RefCell<Option<T>>,
    waker: RefCell<Option<Waker>>,
}

/// A task's result.
pub struct Join<T>(Rc<JoinState<T>>);

impl<T> Future for Join<T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        match self.0.out.borrow_mut().take() {
            Some(out) => Poll::Ready(out),
            None => {
                *self.0.waker.borrow_mut() = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

/// The thread of a shard: a task.
#[derive(Clone, Debug)]
pub struct Thread(Arc<AtomicBool>);

impl Thread {
    /// Whether it has ended.
    pub(crate) fn is_done(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

pub(crate) fn spawn_shard<F: Future<Output = ()> + 'static>(world: &Rc<World>, main: F) -> Thread {
    let thread = Thread(Arc::default());
    let ended = thread.clone();
    let task = world.spawn(async move {
        main.await;
        ended.0.store(true, Ordering::Relaxed);
    });
    drop(task);
    // Up to its first wait at once: whoever starts it waits for that, and nobody else would run it meanwhile.
    let id = world.next_id.get() - 1;
    world.ready.lock().retain(|r| *r != id);
    world.poll_task(id);
    thread
}

/// Lets other tasks run.
pub(crate) fn turn() -> impl Future<Output = ()> {
    let mut yielded = false;
    std::future::poll_fn(move |cx| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
}
