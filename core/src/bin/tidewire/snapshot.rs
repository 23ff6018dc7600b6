//! `tidewire snapshot`.

use std::io::Write;
use std::path::PathBuf;

use tidewire::log::archive::{Manifest, export, restore};

use crate::Failure;
use crate::values::rfc3339;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Snapshot {
    /// Copies the data directory of an engine that is not running into one file (a running engine makes a snapshot of
    /// itself: Engine::snapshot)
    Export {
        /// The data directory
        dir: PathBuf,
        /// The file to write, a tar archive
        file: PathBuf,
    },
    /// Makes a new data directory of a snapshot
    Restore {
        /// The snapshot
        file: PathBuf,
        /// The directory to make; must not be there, or be empty
        dir: PathBuf,
    },
}

pub(crate) fn run(what: &Snapshot, out: &mut dyn Write) -> Result<(), Failure> {
    match what {
        Snapshot::Export { dir, file } => {
            let manifest = export(dir, file)?;
            writeln!(out, "{}: {}", file.display(), contents(&manifest))?;
        }
        Snapshot::Restore { file, dir } => {
            let manifest = restore(file, dir)?;
            writeln!(out, "{}: {}", dir.display(), contents(&manifest))?;
        }
    }
    Ok(())
}

fn contents(m: &Manifest) -> String {
    let bytes: u64 = m.files.values().map(|f| f.bytes).sum();
    format!("{} shards, {} files, {bytes} bytes, of {}", m.shards, m.files.len(), rfc3339(m.made_ns))
}
