//! What was measured, as a table and as JSON.

use std::io::{self, Write};
use std::path::Path;

use serde::Serialize;

/// One figure.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Figure {
    /// The part of the bench.
    pub(super) part: &'static str,
    /// What was measured.
    pub(super) name: String,
    /// Where it belongs in a chart of the part, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) at: Option<Place>,
    /// The median of the repetitions.
    pub(super) value: f64,
    /// The lowest and the highest of them.
    pub(super) range: [f64; 2],
    pub(super) unit: &'static str,
    /// What it is to be judged by, measured in the same run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) beside: Option<Beside>,
}

/// A point of a chart, but for its height.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Place {
    /// What the horizontal axis counts.
    pub(super) axis: &'static str,
    pub(super) value: f64,
    /// The line that the point belongs to.
    pub(super) line: String,
}

/// A limit, or the same where a part's axis begins.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Beside {
    pub(super) name: String,
    pub(super) value: f64,
    /// The figure by this one: the median of the ratios of those that were measured together.
    pub(super) ratio: f64,
}

/// The machine.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Machine {
    pub(super) processor: String,
    pub(super) processors: usize,
    pub(super) memory_bytes: u64,
    pub(super) kernel: String,
    /// Where the log was, and on which file system.
    pub(super) dir: String,
    pub(super) file_system: String,
}

impl Machine {
    pub(super) fn this(dir: &Path) -> Machine {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let field = |text: &str, name: &str| {
            let line = text.lines().find(|l| l.starts_with(name));
            line.and_then(|l| l.split_once(':')).map(|(_, v)| v.trim().to_owned()).unwrap_or_default()
        };
        let memory = field(&read("/proc/meminfo"), "MemTotal");
        let memory_kib = memory.split(' ').next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
        Machine {
            processor: field(&read("/proc/cpuinfo"), "model name"),
            processors: std::thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: memory_kib * 1024,
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            dir: dir.display().to_string(),
            file_system: file_system(&read("/proc/self/mounts"), dir).unwrap_or_default(),
        }
    }
}

/// The type of the file system of the longest mount point that the directory lies in.
fn file_system(mounts: &str, dir: &Path) -> Option<String> {
    let dir = dir.canonicalize().ok()?;
    let of = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(1);
        let (at, kind) = (Path::new(words.next()?), words.next()?);
        dir.starts_with(at).then(|| (at.as_os_str().len(), kind.to_owned()))
    });
    of.max_by_key(|(len, _)| *len).map(|(_, kind)| kind)
}

/// All of it.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Report {
    pub(super) version: &'static str,
    pub(super) machine: Machine,
    /// The settings, as the command's options have them.
    pub(super) settings: serde_json::Value,
    pub(super) figures: Vec<Figure>,
}

/// A number with as many digits as say something.
pub(super) fn shown(n: f64) -> String {
    match n.abs() {
        a if a >= 10_000.0 => thousands(n.round() as i64),
        a if a >= 100.0 => format!("{n:.0}"),
        a if a >= 10.0 => format!("{n:.1}"),
        _ => format!("{n:.2}"),
    }
}

fn thousands(n: i64) -> String {
    let digits = n.unsigned_abs().to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    if n < 0 { format!("-{out}") } else { out }
}

impl Report {
    pub(super) fn print(&self, out: &mut dyn Write) -> io::Result<()> {
        let m = &self.machine;
        let gib = m.memory_bytes as f64 / f64::from(1 << 30);
        writeln!(
            out,
            "{} x {}, {gib:.0} GiB, Linux {}; log in {} ({})",
            m.processors, m.processor, m.kernel, m.dir, m.file_system
        )?;
        let mut part = "";
        for f in &self.figures {
            if f.part != part {
                part = f.part;
                writeln!(out, "\n{part}")?;
            }
            let spread = format!("{}–{}", shown(f.range[0]), shown(f.range[1]));
            write!(out, "  {:<44}{:>12} {:<10}{spread:>20}", f.name, shown(f.value), f.unit)?;
            match &f.beside {
                Some(b) => writeln!(out, "  {:.2}x of {} ({})", b.ratio, b.name, shown(b.value))?,
                None => writeln!(out)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_shown_as_they_are_read() {
        let cases = [
            (0.0, "0.00"),
            (0.126, "0.13"),
            (12.34, "12.3"),
            (1234.5, "1234"),
            (12_345.6, "12,346"),
            (-1_234_567.0, "-1,234,567"),
        ];
        for (n, text) in cases {
            assert_eq!(shown(n), text);
        }
    }

    #[test]
    fn a_directory_is_on_the_innermost_mount() {
        let mounts = "/dev/a / ext4 rw 0 0\ntmpfs /tmp tmpfs rw 0 0\nbad\n";
        assert_eq!(file_system(mounts, Path::new("/")).as_deref(), Some("ext4"));
        assert_eq!(file_system(mounts, Path::new("/tmp")).as_deref(), Some("tmpfs"));
        assert_eq!(file_system(mounts, Path::new("/nowhere/at/all")), None);
    }
}
