//! When a task of a shard wants to be woken.
//!
//! The runtime's timers are not made for a deadline per request: each takes memory and a place in its wheel, which is a
//! seventh of the work for a request that is answered at once; in each of its rounds the runtime looks through all of them;
//! and once there were more than 256 at a time they end up to a millisecond early, after it has gone through every
//! millisecond since the shard began. So the runtime has one timer per shard, and all others are lines in a heap, the
//! earliest on top. What is not waited for any more stays in it until it gets there, or until most of the heap is such.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::future::{Future, poll_fn};
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use slab::Slab;

use super::Notify;
use super::glommio::{self, Task};

/// A heap of so many lines is not looked through for those that nobody waits for.
const LINES_KEPT: usize = 64;

thread_local! {
    /// If the shard ends by a panic it is left behind: wakers have no executor any more that their tasks could be dropped by.
    static TIMERS: RefCell<ManuallyDrop<Timers>> = RefCell::default();
}

#[derive(Default)]
struct Timers {
    waiting: Slab<Waiter>,
    heap: BinaryHeap<Reverse<Line>>,
    /// Tells a waiter from those who had its place before.
    next: u64,
    /// What the task sleeps until; none while it is about to look, or there is nothing to sleep for.
    sleeps_until: Option<Instant>,
    earlier: Option<Rc<Notify>>,
    task: Option<Task<()>>,
    runs: bool,
    closing: bool,
}

struct Waiter {
    number: u64,
    /// None once its time has come.
    waker: Option<Waker>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Line {
    when: Instant,
    number: u64,
    /// Where it waits.
    key: usize,
}

impl Timers {
    /// The key of a new waiter, and whether the task is to be started.
    fn insert(&mut self, when: Instant, waker: Waker) -> (usize, bool) {
        let number = self.next;
        self.next += 1;
        let key = self.waiting.insert(Waiter { number, waker: Some(waker) });
        if self.heap.len() >= LINES_KEPT.max(2 * self.waiting.len()) {
            let waiting = &self.waiting;
            self.heap.retain(|Reverse(line)| line.is_waited_for(waiting));
        }
        self.heap.push(Reverse(Line { when, number, key }));
        let starts = !self.runs && !self.closing;
        self.runs |= starts;
        if self.sleeps_until.is_some_and(|until| when < until) {
            self.sleeps_until = None;
            self.earlier.iter().for_each(|earlier| earlier.notify());
        }
        (key, starts)
    }

    /// Takes those whose time has come. When to look again; never, if nobody waits.
    fn look(&mut self, now: Instant, come: &mut Vec<Waker>) -> Option<Instant> {
        self.sleeps_until = None;
        while let Some(&Reverse(line)) = self.heap.peek() {
            if line.is_waited_for(&self.waiting) {
                if line.when > now {
                    self.sleeps_until = Some(line.when).filter(|_| !self.closing);
                    break;
                }
                come.extend(self.waiting.get_mut(line.key).and_then(|w| w.waker.take()));
            }
            self.heap.pop();
        }
        self.runs = self.sleeps_until.is_some();
        self.sleeps_until
    }
}

impl Line {
    fn is_waited_for(&self, waiting: &Slab<Waiter>) -> bool {
        waiting.get(self.key).is_some_and(|w| w.number == self.number && w.waker.is_some())
    }
}

async fn look_after(earlier: Rc<Notify>) {
    let mut come = Vec::new();
    loop {
        let next = TIMERS.with_borrow_mut(|t| t.look(Instant::now(), &mut come));
        // Not with the heap borrowed, for a task that ends takes its timers with it.
        come.drain(..).for_each(Waker::wake);
        let Some(next) = next else { return };
        let mut sleep = glommio::Timer::until(next);
        let mut earlier = pin!(earlier.notified());
        poll_fn(|cx| match earlier.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(()),
            Poll::Pending => Pin::new(&mut sleep).poll(cx),
        })
        .await;
    }
}

/// The runtime runs a task at once, so not with the heap borrowed.
#[cold]
fn start() {
    let earlier = TIMERS.with_borrow_mut(|t| t.earlier.get_or_insert_default().clone());
    let task = glommio::spawn_urgent(look_after(earlier));
    // The one before has ended.
    drop(TIMERS.with_borrow_mut(|t| t.task.replace(task)));
}

/// When a shard ends: nothing waits for a time any more.
pub(super) async fn close() {
    let task = TIMERS.with_borrow_mut(|t| {
        t.closing = true;
        t.earlier.iter().for_each(|earlier| earlier.notify());
        t.task.take()
    });
    if let Some(task) = task {
        task.await;
    }
    // Nothing in its place that would have to be given back.
    let left = TIMERS.replace(ManuallyDrop::new(Timers { closing: true, ..Timers::default() }));
    drop(ManuallyDrop::into_inner(left));
}

/// Waits.
pub(super) fn sleep(duration: Duration) -> Sleep {
    sleep_until(Instant::now() + duration)
}

/// Waits for a time.
pub(super) fn sleep_until(when: Instant) -> Sleep {
    Sleep { when, key: None, _of_thread: PhantomData }
}

/// Ready at a time, not before. Cheap if it is dropped before that.
pub struct Sleep {
    when: Instant,
    key: Option<usize>,
    /// It waits among the timers of its thread.
    _of_thread: PhantomData<Rc<()>>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        if this.key.is_none() && Instant::now() >= this.when {
            return Poll::Ready(());
        }
        // What is dropped is so after the heap is given back.
        let (mut old, mut starts) = (None, false);
        let poll = TIMERS.with_borrow_mut(|t| {
            let Some(key) = this.key else {
                let (key, first) = t.insert(this.when, cx.waker().clone());
                (this.key, starts) = (Some(key), first);
                return Poll::Pending;
            };
            match t.waiting.get_mut(key).and_then(|w| w.waker.as_mut()) {
                None => return Poll::Ready(()),
                Some(waker) if waker.will_wake(cx.waker()) => {}
                Some(waker) => old = Some(std::mem::replace(waker, cx.waker().clone())),
            }
            Poll::Pending
        });
        drop(old);
        if starts {
            start();
        }
        poll
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            // Where the thread's variables are gone already, nobody waits any more.
            let waiter = TIMERS.try_with(|t| t.borrow_mut().waiting.try_remove(key));
            drop(waiter);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;
    use crate::driver;

    const MS: Duration = Duration::from_millis(1);

    fn on_shard<F: Future<Output = ()> + 'static>(test: impl FnOnce() -> F + Send + 'static) {
        let (done, ended) = channel();
        let main = move || async move {
            test().await;
            done.send(()).expect("somebody waits");
        };
        let thread = glommio::spawn_shard("test", None, main).expect("a shard");
        ended.recv_timeout(Duration::from_secs(120)).expect("the test ends");
        thread.join().expect("no panic");
    }

    fn waiting() -> usize {
        TIMERS.with_borrow(|t| t.waiting.len())
    }

    fn lines() -> usize {
        TIMERS.with_borrow(|t| t.heap.len())
    }

    fn runs() -> bool {
        TIMERS.with_borrow(|t| t.runs)
    }

    #[test]
    fn none_comes_too_early_and_each_comes() {
        on_shard(|| async {
            let begun = Instant::now();
            let mut tasks = Vec::new();
            // The earlier ones last, so that the task has to be told.
            for n in (0..200u32).rev() {
                let when = begun + MS * (n % 40);
                tasks.push(glommio::spawn(async move {
                    sleep_until(when).await;
                    assert!(Instant::now() >= when, "too early");
                }));
            }
            for task in tasks {
                task.await;
            }
            assert_eq!((waiting(), lines()), (0, 0));
            // The task of the timers ends with the last one.
            glommio::turn().await;
            assert!(!runs());
            // And another one begins.
            sleep(MS).await;
        });
    }

    #[test]
    fn of_thousands_of_sleepers_all_wake_up() {
        on_shard(|| async {
            let sleeper = |n: u64| async move {
                for round in 0..40 {
                    sleep(Duration::from_micros(200 + (n * 7919 + round * 104_729) % 9_800)).await;
                }
            };
            let all: Vec<_> = (0..3000).map(|n| glommio::spawn(sleeper(n))).collect();
            for one in all {
                one.await;
            }
            assert_eq!((waiting(), lines()), (0, 0));
        });
    }

    #[test]
    fn what_is_done_in_time_leaves_little() {
        on_shard(|| async {
            let far = Instant::now() + Duration::from_secs(3600);
            let mut others: Vec<_> = (0..100).map(|_| Box::pin(sleep_until(far))).collect();
            let poll = async |s: &mut Pin<Box<Sleep>>| {
                poll_fn(|cx| {
                    assert!(s.as_mut().poll(cx).is_pending());
                    Poll::Ready(())
                })
                .await;
            };
            for other in &mut others {
                poll(other).await;
            }
            for n in 0..1000 {
                assert_eq!(driver::until(far, std::future::ready(n)).await, Some(n));
                assert_eq!(driver::until(far, glommio::turn()).await, Some(()));
                assert!(waiting() == 100 && lines() <= 203, "{} lines", lines());
            }
            let late = driver::until(Instant::now() + MS, std::future::pending::<()>()).await;
            assert_eq!(late, None);
            others.truncate(1);
            assert_eq!(waiting(), 1);
            // Its line is still there when the shard ends, which does not wait an hour.
            poll(&mut others[0]).await;
            assert!(runs());
        });
    }

    #[test]
    fn a_place_that_is_taken_again_is_not_the_old_ones() {
        on_shard(|| async {
            let soon = Instant::now() + MS * 2;
            let mut first = Box::pin(sleep_until(soon));
            poll_fn(|cx| {
                assert!(first.as_mut().poll(cx).is_pending());
                Poll::Ready(())
            })
            .await;
            drop(first);
            // In the same place.
            let late = soon + MS * 10;
            sleep_until(late).await;
            assert!(Instant::now() >= late);
        });
    }

    #[test]
    fn the_waker_is_the_one_that_asked_last() {
        on_shard(|| async {
            let mut slept = Box::pin(sleep(MS * 20));
            let first = glommio::spawn(async move {
                poll_fn(|cx| {
                    assert!(slept.as_mut().poll(cx).is_pending());
                    Poll::Ready(())
                })
                .await;
                Some(slept)
            });
            let slept = first.await.expect("it");
            glommio::spawn(slept).await;
            assert_eq!(waiting(), 0);
        });
    }
}
