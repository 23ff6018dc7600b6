//! The log of accepted records, which outlives the receiver that wrote it.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;

use crate::record::{Record, decode_key};

/// One record of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// The event id.
    pub event_id: String,
    /// The key, decoded.
    pub key: String,
    /// The sequencer, empty if there was none.
    pub sequencer: String,
    /// The size, if there was one.
    pub size: Option<u64>,
}

impl LogLine {
    /// Reads one line, without its end.
    pub fn parse(line: &str) -> Option<LogLine> {
        let [event_id, key, sequencer, size] = line.split(' ').collect::<Vec<_>>().try_into().ok()?;
        let sequencer = if sequencer == "-" { "" } else { sequencer };
        let size = if size == "-" { None } else { Some(size.parse().ok()?) };
        Some(LogLine { event_id: event_id.into(), key: decode_key(key), sequencer: sequencer.into(), size })
    }
}

/// Reads a log: one line `eventId key sequencer size` for a record, the key encoded as it came. A last line that is not
/// complete is left out.
///
/// # Errors
/// If the file cannot be read, or [`io::ErrorKind::InvalidData`] if a line is not of this form.
pub fn read_log(path: impl AsRef<Path>) -> io::Result<Vec<LogLine>> {
    let text = std::fs::read_to_string(path)?;
    let complete = text.rfind('\n').map_or("", |end| &text[..end]);
    let bad = |text: &str| io::Error::new(io::ErrorKind::InvalidData, format!("not a line of the log: {text:?}"));
    complete.lines().map(|text| LogLine::parse(text).ok_or_else(|| bad(text))).collect()
}

pub(crate) fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}

/// Hands the lines to the operating system in one write, which a kill of this process does not undo.
pub(crate) fn append(mut file: &File, records: &[Record]) -> io::Result<()> {
    let mut text = String::new();
    for record in records {
        let size = record.size.map(|n| n.to_string()).unwrap_or_default();
        let words = [(&record.event_id, ' '), (&record.encoded_key, ' '), (&record.sequencer, ' '), (&size, '\n')];
        for (word, end) in words {
            put_word(&mut text, word);
            text.push(end);
        }
    }
    file.write_all(text.as_bytes())
}

/// A word without blanks: these are escaped as in a key.
fn put_word(text: &mut String, word: &str) {
    if word.is_empty() {
        text.push('-');
    }
    for c in word.chars() {
        if c.is_whitespace() || c.is_control() {
            for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                // Writing to a string cannot fail.
                let _ = write!(text, "%{byte:02X}");
            }
        } else {
            text.push(c);
        }
    }
}
