//! Peers of other languages, each a process of its own that measures itself.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use tidewire_benches::workload::Wish;

use super::engines::Sample;
use super::patterns::patterns;
use super::report::Measured;

/// All.
pub const NAMES: [&str; 2] = ["event-ruler", "hypermatch"];

/// Rules and events in files, for `benches/peers/run`.
pub struct Files(PathBuf);

impl Files {
    pub fn write(wishes: &[Wish], samples: &[Sample<'_>], expected: &[Vec<u32>]) -> Files {
        let dir = tidewire_benches::figures_path("filter").with_extension("");
        let mut rules = String::new();
        for (id, w) in wishes.iter().enumerate() {
            writeln!(rules, "{}", json!({ "id": id, "patterns": patterns(w) })).expect("a string");
        }
        let events: Vec<u8> = samples.iter().flat_map(|s| [s.json, b"\n"].concat()).collect();
        let counts: String = expected.iter().map(|rules| format!("{}\n", rules.len())).collect();
        fs::create_dir_all(&dir).expect("the target directory is writable");
        let put =
            |name: &str, bytes: &[u8]| fs::write(dir.join(name), bytes).expect("the target directory is writable");
        put("patterns.jsonl", rules.as_bytes());
        put("events.jsonl", &events);
        put("counts.txt", counts.as_bytes());
        Files(dir)
    }

    /// Runs a peer, which may have several ways to match.
    ///
    /// # Errors
    /// Why there is no answer.
    ///
    /// # Panics
    /// If it matches otherwise than the plain scan.
    pub fn run(&self, name: &str) -> Result<Vec<Measured>, String> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/run");
        let output = Command::new(script).arg(name).arg(&self.0).output().map_err(|e| e.to_string())?;
        let errors = String::from_utf8_lossy(&output.stderr);
        let last = errors.lines().last().unwrap_or("it says nothing").to_owned();
        if output.status.code() == Some(3) {
            return Err(last);
        }
        assert!(output.status.success(), "{name}: {errors}");
        let lines = serde_json::Deserializer::from_slice(&output.stdout).into_iter::<Value>();
        lines.map(|line| measured(name, &line.map_err(|e| e.to_string())?)).collect()
    }
}

/// What a line of a peer says.
fn measured(peer: &str, line: &Value) -> Result<Measured, String> {
    let number = |name: &str| line[name].as_f64();
    Ok(Measured {
        name: line["name"].as_str().unwrap_or(peer).into(),
        ns: number("ns").ok_or_else(|| format!("it answered {line}"))?,
        bytes: number("bytes").unwrap_or(f64::NAN),
        build: number("build_us").unwrap_or(f64::NAN),
    })
}
