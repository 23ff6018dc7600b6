//! Where in a document something stands, and what the writer may have meant.

use std::sync::Arc;

/// A document with its name, so that an offset can be told as `name:line:column`.
#[derive(Clone, Debug)]
pub(crate) struct Text {
    name: Arc<str>,
    text: Arc<str>,
}

impl Text {
    pub(crate) fn new(name: &str, text: &str) -> Text {
        Text { name: name.into(), text: text.into() }
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// `name:line:column`, both from 1; the column counts characters.
    pub(crate) fn place(&self, offset: usize) -> String {
        let mut offset = offset.min(self.text.len());
        while !self.text.is_char_boundary(offset) {
            offset -= 1;
        }
        let before = &self.text[..offset];
        let line_start = before.rfind('\n').map_or(0, |i| i + 1);
        let line = before.bytes().filter(|b| *b == b'\n').count() + 1;
        format!("{}:{line}:{}", self.name, before[line_start..].chars().count() + 1)
    }
}

/// The offset of a line and a column, both from 1, the column in bytes.
pub(crate) fn offset_of(text: &str, line: usize, column: usize) -> usize {
    let start: usize = text.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum();
    (start + column.saturating_sub(1)).min(text.len())
}

/// The candidate that looks most like `name`, if one does.
pub(crate) fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let folded = name.to_lowercase();
    candidates
        .into_iter()
        .map(|c| (strsim::jaro_winkler(&c.to_lowercase(), &folded), c))
        // Of two that are as near, the one of which only the end is missing.
        .max_by(|a, b| a.0.total_cmp(&b.0).then(a.1.starts_with(name).cmp(&b.1.starts_with(name))))
        .filter(|(score, _)| *score > 0.8)
        .map(|(_, c)| c)
}

/// The remedy for an unknown name: the nearest known one, or all of them if they are few.
pub(crate) fn suggest<'a>(what: &str, name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.into_iter().collect();
    if let Some(near) = nearest(name, known.iter().copied()) {
        return format!("did you mean `{near}`?");
    }
    match known.len() {
        0 => format!("there is no {what} yet"),
        n if n <= 24 => format!("known: `{}`", known.join("`, `")),
        n => format!("there are {n} known ones; check the spelling"),
    }
}

/// What a serde error of an unknown field or variant offers: the name, and the names in its "expected one of" list.
pub(crate) fn unknown_name(message: &str) -> Option<(&str, Vec<&str>)> {
    let mut quoted = message.split('`').skip(1).step_by(2);
    if !(message.starts_with("unknown field") || message.starts_with("unknown variant")) {
        return None;
    }
    let name = quoted.next()?;
    Some((name, quoted.collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_that_are_as_near_the_one_is_meant_that_goes_on() {
        assert_eq!(nearest("shard", ["shards", "shared"]), Some("shards"));
        assert_eq!(nearest("shard", ["shared", "shards"]), Some("shards"));
        assert_eq!(nearest("shaerd", ["shared", "other"]), Some("shared"));
        assert_eq!(nearest("x", ["shared", "other"]), None);
    }
}
