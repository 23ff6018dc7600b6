//! What the engine has to say, told to Python's `logging`.
//!
//! Shards say things too, and must never wait for the interpreter. So messages go into a queue of bounded length, and a thread of
//! their own hands them over.

use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;

use log::{Level, LevelFilter, Log, Metadata, Record};
use pyo3::intern;
use pyo3::prelude::*;
use tidewire::Error;

use crate::call::{call_helper, tell_raised};
use crate::error::OrRaise;

/// So many messages may wait; more are counted and left out.
const WAITING_MAX: usize = 1024;

struct Message {
    level: Level,
    target: String,
    text: String,
}

static HOST: Host = Host { running: AtomicPtr::new(std::ptr::null_mut()) };

struct Host {
    /// Of the process that has made it; that of a parent, with its locks as they were, is left alone. Never freed.
    running: AtomicPtr<Running>,
}

struct Running {
    process: u32,
    queue: Mutex<Option<SyncSender<Message>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    left_out: AtomicU64,
}

impl Host {
    fn running(&self) -> Option<&'static Running> {
        // SAFETY: NULL, or made by `start` and never freed.
        let running = unsafe { self.running.load(Ordering::Acquire).as_ref() };
        running.filter(|running| running.process == std::process::id())
    }
}

impl Log for Host {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // Those of other libraries are for who works on this one.
        metadata.target().starts_with("tidewire") || metadata.level() <= Level::Warn
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let Some(running) = self.running() else { return };
        let (level, target, text) = (record.level(), record.target().to_owned(), record.args().to_string());
        let queue = running.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(queue) = &*queue
            && let Err(TrySendError::Full(_)) = queue.try_send(Message { level, target, text })
        {
            running.left_out.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn flush(&self) {}
}

/// Has messages told from now on, as far as `logging` wants them; called before each engine is opened, with the interpreter
/// held.
pub(crate) fn start(py: Python<'_>) -> PyResult<()> {
    // If another part of the process has the messages of Rust already, they go there.
    if log::set_logger(&HOST).is_err() && !std::ptr::addr_eq(log::logger(), std::ptr::from_ref::<dyn Log>(&HOST)) {
        return Ok(());
    }
    refresh_logging(py)?;
    if HOST.running().is_some() {
        return Ok(());
    }
    let (queue, messages) = sync_channel(WAITING_MAX);
    let running: &'static Running = Box::leak(Box::new(Running {
        process: std::process::id(),
        queue: Mutex::new(Some(queue)),
        thread: Mutex::new(None),
        left_out: AtomicU64::new(0),
    }));
    let spawned = std::thread::Builder::new().name("tidewire-log".into()).spawn(move || tell(running, &messages));
    let thread = spawned.map_err(|e| Error::io("cannot start a thread", &e)).or_raise(py)?;
    *running.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
    HOST.running.store(std::ptr::from_ref(running).cast_mut(), Ordering::Release);
    Ok(())
}

/// Tells what is left, and nothing more: called when the interpreter ends.
pub(crate) fn stop(py: Python<'_>) {
    let Some(running) = HOST.running() else { return };
    running.queue.lock().unwrap_or_else(PoisonError::into_inner).take();
    let thread = running.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
    // It needs the interpreter for what is left.
    py.detach(|| thread.map(JoinHandle::join));
}

/// Looks anew which messages ``logging`` wants. The levels of the logger ``tidewire`` are asked for when an engine is opened, so
/// that what nobody wants costs nothing; call this after changing them.
#[pyfunction]
pub(crate) fn refresh_logging(py: Python<'_>) -> PyResult<()> {
    let logger = py.import("logging")?.call_method1(intern!(py, "getLogger"), ("tidewire",))?;
    let level: i32 = logger.call_method0(intern!(py, "getEffectiveLevel"))?.extract()?;
    log::set_max_level(match level {
        ..10 => LevelFilter::Trace,
        10..20 => LevelFilter::Debug,
        20..30 => LevelFilter::Info,
        30..40 => LevelFilter::Warn,
        _ => LevelFilter::Error,
    });
    Ok(())
}

fn tell(running: &Running, messages: &Receiver<Message>) {
    while let Ok(first) = messages.recv() {
        let told = Python::try_attach(|py| {
            let told = hand_over(py, &first).and_then(|()| match running.left_out.swap(0, Ordering::Relaxed) {
                0 => Ok(()),
                n => {
                    let text = format!("{n} messages were left out, because there were too many");
                    hand_over(py, &Message { level: Level::Warn, target: "tidewire".into(), text })
                }
            });
            if let Err(e) = told {
                tell_raised(py, e, None);
            }
        });
        if told.is_none() {
            return;
        }
    }
}

fn hand_over(py: Python<'_>, message: &Message) -> PyResult<()> {
    let level = match message.level {
        Level::Error => 40,
        Level::Warn => 30,
        Level::Info => 20,
        Level::Debug => 10,
        Level::Trace => 5,
    };
    // The parts of the library are loggers below `tidewire`.
    let name = match message.target.strip_prefix("tidewire") {
        Some("") => "tidewire".to_owned(),
        Some(_) => message.target.replace("::", "."),
        None => format!("tidewire.{}", message.target.replace("::", ".")),
    };
    call_helper(py, "log", (name, level, &message.text)).map(drop)
}
