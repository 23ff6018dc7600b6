//! What happens in the bucket: real files come, change and go.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use walkdir::WalkDir;

/// Where files to copy are looked for, in this order.
const PLACES: [&str; 4] = ["/usr/share", "/usr/include", "/etc", "."];
const SAMPLES: usize = 200;
const SAMPLE_BYTES_MAX: u64 = 32 * 1024;
const ENTRIES_MAX: usize = 20_000;
/// Writing this many files is spread over [`PACE`]; of fewer, over as much less.
const PACE_FILES: u64 = 3000;
const PACE: Duration = Duration::from_secs(3);

/// A file to copy.
#[derive(Debug)]
pub(super) struct Sample {
    stem: String,
    contents: Vec<u8>,
}

/// How the files of the bucket ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    There { size: u64 },
    Deleted,
}

/// What the writers have done.
#[derive(Debug, Default)]
pub(super) struct Done {
    pub(super) written: AtomicU64,
    pub(super) overwritten: AtomicU64,
    pub(super) deleted: AtomicU64,
}

/// Files of this machine.
pub(super) fn samples() -> io::Result<Vec<Sample>> {
    let mut samples = Vec::new();
    for place in PLACES {
        // Not all from the same corner.
        let step = if place == "/usr/share" { 37 } else { 1 };
        for (i, entry) in WalkDir::new(place).into_iter().take(ENTRIES_MAX).flatten().enumerate() {
            let fits = entry.file_type().is_file()
                && entry.metadata().is_ok_and(|m| (1..=SAMPLE_BYTES_MAX).contains(&m.len()));
            if !fits || i % step != 0 {
                continue;
            }
            let stem = entry.path().file_stem().and_then(|s| s.to_str());
            if let (Some(stem), Ok(contents)) = (stem, fs::read(entry.path())) {
                let stem = stem.chars().take(40).collect();
                samples.push(Sample { stem, contents });
            }
            if samples.len() == SAMPLES {
                return Ok(samples);
            }
        }
    }
    if samples.is_empty() {
        return Err(io::Error::new(
            io::ErrorKind::NotFound,
            "no readable file in /usr/share, /usr/include, /etc or here",
        ));
    }
    Ok(samples)
}

/// The key of a file: half are images, three in ten are logs, and no rule wants the rest.
fn key(number: u64, stem: &str) -> String {
    let folder = number / 10 % 25;
    match number % 10 {
        0..5 => format!("images/{folder:02}/{stem}-{number}.jpg"),
        5..8 => format!("logs/2026-01-{:02}/{stem}-{number}.log", folder + 1),
        _ => format!("other/{stem} {number}.dat"),
    }
}

/// One thread that writes every `of`th file, overwrites every fifth of its own later on, and deletes every eighth.
/// Answers how its files ended.
pub(super) fn write(
    root: PathBuf,
    samples: Arc<Vec<Sample>>,
    done: Arc<Done>,
    (first, of, files): (u64, u64, u64),
) -> io::Result<JoinHandle<io::Result<BTreeMap<String, Fate>>>> {
    let work = move || {
        let begun = Instant::now();
        let (mut fates, mut live) = (BTreeMap::new(), Vec::<String>::new());
        let mut random = first.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let mut draw = |n: usize| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            (random % n as u64) as usize
        };
        for (count, number) in (first..files).step_by(of as usize).enumerate() {
            let due = PACE.mul_f64(number as f64 / PACE_FILES.max(files) as f64);
            std::thread::sleep(due.saturating_sub(begun.elapsed()));
            let sample = &samples[draw(samples.len())];
            let key = key(number, &sample.stem);
            put(&root, &key, &sample.contents, &mut fates)?;
            live.push(key);
            done.written.fetch_add(1, Ordering::Relaxed);
            if count % 5 == 4 {
                let key = &live[draw(live.len())];
                let sample = &samples[draw(samples.len())];
                put(&root, key, &sample.contents, &mut fates)?;
                done.overwritten.fetch_add(1, Ordering::Relaxed);
            }
            if count % 8 == 7 {
                let key = live.swap_remove(draw(live.len()));
                fs::remove_file(root.join(&key))?;
                fates.insert(key, Fate::Deleted);
                done.deleted.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(fates)
    };
    std::thread::Builder::new().name(format!("writer-{first}")).spawn(work)
}

fn put(root: &Path, key: &str, contents: &[u8], fates: &mut BTreeMap<String, Fate>) -> io::Result<()> {
    let path = root.join(key);
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(path, contents)?;
    fates.insert(key.to_owned(), Fate::There { size: contents.len() as u64 });
    Ok(())
}
