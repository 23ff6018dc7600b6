//! The configuration of a running command, read anew when it changes.

use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use tidewire::config::Config;
use tidewire::{Engine, Error};

use crate::{Failure, load};

/// What tells that a file is another one, or holds something else: device, inode, size, and when it was written and changed.
type Look = Option<(u64, u64, u64, i128, i128)>;

/// Where the configuration comes from, and what it was.
pub(crate) struct Reloader<'a> {
    file: &'a Path,
    data_dir: Option<&'a Path>,
    /// As it was started with: what only a start can change.
    started: Config,
    files: Vec<PathBuf>,
    /// What the files were when they were read last, and when they were looked at last.
    read: Vec<Look>,
    seen: Vec<Look>,
}

/// Follows symbolic links, so that a link which leads elsewhere is a change, wherever in the path it is.
fn look(files: &[PathBuf]) -> Vec<Look> {
    let time = |seconds: i64, ns: i64| i128::from(seconds) * 1_000_000_000 + i128::from(ns);
    let of = |path: &PathBuf| {
        let m = std::fs::metadata(path).ok()?;
        Some((m.dev(), m.ino(), m.len(), time(m.mtime(), m.mtime_nsec()), time(m.ctime(), m.ctime_nsec())))
    };
    files.iter().map(of).collect()
}

impl<'a> Reloader<'a> {
    /// Reads the configuration for the first time.
    pub(crate) fn start(file: &'a Path, data_dir: Option<&'a Path>) -> Result<Reloader<'a>, Failure> {
        // Looked at before it is read: what changes in between is a change.
        let before = look(&[file.to_owned()]);
        let started = load(file, data_dir)?;
        let files = started.files.clone();
        let mut read = look(&files);
        read.splice(..1, before);
        Ok(Reloader { file, data_dir, started, files, seen: read.clone(), read })
    }

    pub(crate) fn config(&self) -> &Config {
        &self.started
    }

    /// Looks whether the files have changed, and reads them if they have, and have not since the last look: whoever writes
    /// one is given the time to finish.
    pub(crate) fn poll(&mut self, engine: &Engine) {
        let now = look(&self.files);
        let settled = now == self.seen;
        self.seen = now;
        if settled && self.seen != self.read {
            self.reload(engine);
        }
    }

    /// Reads the configuration anew and puts its rules and destinations into force; if anything is wrong with it, those that
    /// there are stay in force.
    pub(crate) fn reload(&mut self, engine: &Engine) {
        self.read = look(&self.files);
        self.seen.clone_from(&self.read);
        let config = match load(self.file, self.data_dir) {
            Ok(config) => config,
            Err(Failure::Usage(e) | Failure::Failed(e)) => return refused(&e),
            Err(Failure::Told) => return,
        };
        if config.files != self.files {
            self.files.clone_from(&config.files);
            self.read = look(&self.files);
            self.seen.clone_from(&self.read);
        }
        if config.engine != self.started.engine || config.sources != self.started.sources {
            log::warn!(
                "{}: [engine] or [[source]] is not what this was started with; that takes effect at the next start",
                self.file.display()
            );
        }
        let (rules, destinations) = (config.rules.rules.len(), config.rules.destinations.len());
        match engine.replace_rules(config.rules) {
            Ok(()) => {
                log::info!("{}: reloaded: {rules} rules, {destinations} destinations", self.file.display());
                // Nobody may be reading; that is no reason to stop.
                let _ = io::stdout().write_all(b"tidewire: reloaded\n").and_then(|()| io::stdout().flush());
            }
            Err(e) => refused(&e),
        }
    }
}

fn refused(e: &Error) {
    log::error!("the configuration is not reloaded, the one before stays in force: {e}");
}
