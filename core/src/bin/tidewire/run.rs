//! `tidewire run`.

use std::io::{self, Write};
use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tidewire::config::Source;
use tidewire::source::directory::DirectoryWatch;
use tidewire::source::http::HttpIngest;
use tidewire::{Engine, Error, Result};

use crate::Failure;
use crate::reload::Reloader;

/// Of the time for closing, the sources take at most this much.
const SOURCES_TIMEOUT: Duration = Duration::from_secs(5);

/// How often it is looked whether the configuration has changed.
const LOOK: Duration = Duration::from_millis(500);

/// The sources that are running.
#[derive(Default)]
struct Sources {
    http: Vec<HttpIngest>,
    directories: Vec<DirectoryWatch>,
}

pub(crate) fn run(file: &Path, data_dir: Option<&Path>) -> std::result::Result<(), Failure> {
    let mut reloader = Reloader::start(file, data_dir)?;
    let told = told_by_signals(&[SIGTERM, SIGINT, SIGHUP])?;
    let wanted = reloader.config().sources.clone();
    let close_timeout = reloader.config().engine.close_timeout;
    let engine = Engine::open(reloader.config().clone())?;
    let mut sources = Sources::default();
    let started = sources.start(&engine, &wanted);
    if started.is_ok() {
        announce(&engine, &sources);
        loop {
            match told.recv_timeout(LOOK) {
                Ok(SIGHUP) => reloader.reload(&engine),
                Err(mpsc::RecvTimeoutError::Timeout) => reloader.poll(&engine),
                // An error means that the thread that waits for signals is gone; then there is nothing to wait for.
                Ok(_) | Err(mpsc::RecvTimeoutError::Disconnected) => break,
            }
        }
        log::info!("stopping; a second signal ends at once");
    }
    let begun = Instant::now();
    let stopped = sources.stop(close_timeout.min(SOURCES_TIMEOUT));
    let closed = engine.close(close_timeout);
    let stats = engine.stats();
    if started.is_ok() {
        log::info!(
            "stopped after {:.1?}: {} events accepted, {} deliveries done, {} left for the next start",
            begun.elapsed(),
            stats.accepted,
            stats.delivered,
            stats.waiting
        );
    }
    started.and(stopped).and(closed).map_err(Failure::from)
}

/// Tells of the first signal to stop; the second ends the process.
pub(crate) fn signals() -> Result<mpsc::Receiver<i32>> {
    told_by_signals(&[SIGTERM, SIGINT])
}

/// Tells of signals. The second one to stop ends the process.
fn told_by_signals(which: &[i32]) -> Result<mpsc::Receiver<i32>> {
    let mut signals = Signals::new(which).map_err(|e| Error::io("cannot handle signals", &e))?;
    let (tell, told) = mpsc::channel();
    let wait = move || {
        let mut stopping = false;
        for signal in signals.forever() {
            if stopping && signal != SIGHUP {
                // As if the signal had not been handled. Without effect for a process that cannot be ended so.
                let _ = signal_hook::low_level::emulate_default_handler(signal);
                std::process::exit(1);
            }
            stopping |= signal != SIGHUP;
            let _ = tell.send(signal);
        }
    };
    std::thread::Builder::new()
        .name("tidewire-signal".into())
        .spawn(wait)
        .map_err(|e| Error::io("cannot start a thread", &e))?;
    Ok(told)
}

/// Who started the process waits for these lines.
fn announce(engine: &Engine, sources: &Sources) {
    let mut text = String::new();
    if let Some(shared) = &engine.config().shared {
        text += &format!("tidewire: sharing the engine at {}\n", shared.socket.display());
    }
    for http in &sources.http {
        text += &format!("tidewire: listening on http://{}\n", http.local_addr());
    }
    for directory in &sources.directories {
        text += &format!("tidewire: watching {}\n", directory.path().display());
    }
    text += "tidewire: ready\n";
    // Nobody may be reading; that is no reason to stop.
    let _ = io::stdout().write_all(text.as_bytes()).and_then(|()| io::stdout().flush());
}

impl Sources {
    fn start(&mut self, engine: &Engine, wanted: &[Source]) -> Result<()> {
        if wanted.is_empty() && engine.config().shared.is_none() {
            log::warn!(
                "the configuration has no [[source]] and no [engine.shared]: only what was left undelivered will be delivered"
            );
        }
        for source in wanted {
            match source {
                Source::Http(http) => self.http.push(HttpIngest::start(engine.clone(), http)?),
                Source::Directory(d) => self.directories.push(DirectoryWatch::start(engine.clone(), d)?),
                other => log::error!("{other:?} is not known to this version of the command"),
            }
        }
        for http in &self.http {
            for directory in &self.directories {
                let monitor = directory.monitor();
                http.add_health_check(move || monitor().unhealthy);
            }
        }
        Ok(())
    }

    fn stop(self, timeout: Duration) -> Result<()> {
        let deadline = Instant::now() + timeout;
        let left = || deadline.saturating_duration_since(Instant::now());
        self.http.into_iter().for_each(|http| http.stop(left()));
        self.directories.into_iter().map(|d| d.stop(left())).fold(Ok(()), Result::and)
    }
}
