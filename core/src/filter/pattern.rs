//! Wildcards and regular expressions.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use regex_automata::{meta, util::syntax};
use regex_syntax::hir::{Hir, HirKind, Look};

use super::bytes::{find, strip_prefix, strip_suffix};
use super::expression::FILTER_TEXT_BYTES_MAX;
use crate::error::{Error, Result};

/// The most stars of one wildcard.
pub const WILDCARD_STARS_MAX: usize = 16;
/// The longest regular expression, in bytes.
pub const REGEX_BYTES_MAX: usize = 1024;
/// The memory that each automaton of a compiled regular expression may take, in bytes; it has one or several. What it takes
/// as a whole, which [`Regex::bytes`] tells, is limited by [`super::FilterLimits::regex_bytes_max`].
pub const REGEX_MEMORY_MAX: usize = 256 << 10;

/// A pattern for a whole text: `*` stands for any bytes, also none and slashes, `?` for one character, `\*`, `\?` and `\\`
/// for the character after the backslash. Everything else stands for itself.
///
/// One character is one of UTF-8, or one byte where the text is no UTF-8. Matching never backtracks over a star: its cost is
/// that of one search of the text per part between stars.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Wildcard {
    pattern: Box<[u8]>,
    /// What the matcher runs: a flag for a star at the beginning and at the end, the number of parts between stars, and
    /// each part: whether it has a `?`, its length, and its bytes (with a `?`: two for each character, see `Part`).
    code: Box<[u8]>,
}

const STAR_FIRST: u8 = 1;
const STAR_LAST: u8 = 2;
/// The first of two bytes of a part with `?`: the second is one byte of the text, or stands for any character.
const BYTE: u8 = 0;
const ANY: u8 = 1;

impl Wildcard {
    /// Reads a pattern.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidConfig`] for one that is too long, has more than [`WILDCARD_STARS_MAX`] stars (several in
    /// a row count as one), or a backslash before anything but `*`, `?` and `\`.
    pub fn parse(pattern: &[u8]) -> Result<Wildcard> {
        let shown = || pattern.escape_ascii().to_string();
        if pattern.len() > FILTER_TEXT_BYTES_MAX {
            let bytes = pattern.len();
            let error = format!("the wildcard has {bytes} bytes, more than {FILTER_TEXT_BYTES_MAX}");
            return Err(Error::invalid_config(error).remedy("shorten it; no key is longer"));
        }
        // Parts between stars; `None` is a `?`.
        let mut parts: Vec<Vec<Option<u8>>> = vec![Vec::new()];
        let mut stars = 0;
        let mut bytes = pattern.iter();
        while let Some(&b) = bytes.next() {
            let last = parts.len() - 1;
            match b {
                b'*' => {
                    if stars == 0 || !parts[last].is_empty() {
                        stars += 1;
                        parts.push(Vec::new());
                    }
                }
                b'?' => parts[last].push(None),
                b'\\' => match bytes.next() {
                    Some(&b @ (b'*' | b'?' | b'\\')) => parts[last].push(Some(b)),
                    _ => {
                        let error = format!("the wildcard `{}` has a backslash that hides nothing", shown());
                        return Err(Error::invalid_config(error).remedy("write `\\\\` for a backslash"));
                    }
                },
                b => parts[last].push(Some(b)),
            }
        }
        if stars > WILDCARD_STARS_MAX {
            return Err(Error::invalid_config(format!("the wildcard `{}` has {stars} stars", shown()))
                .remedy(format!("use at most {WILDCARD_STARS_MAX}")));
        }
        let mut flags = 0;
        if stars > 0 && parts[0].is_empty() {
            flags |= STAR_FIRST;
        }
        if stars > 0 && parts[parts.len() - 1].is_empty() {
            flags |= STAR_LAST;
        }
        parts.retain(|p| !p.is_empty());
        let mut code = vec![flags, parts.len() as u8];
        for part in parts {
            let plain = part.iter().all(Option::is_some);
            let bytes: Vec<u8> = if plain {
                part.into_iter().flatten().collect()
            } else {
                part.into_iter().flat_map(|t| t.map_or([ANY, 0], |b| [BYTE, b])).collect()
            };
            code.push(u8::from(!plain));
            code.extend_from_slice(&(bytes.len() as u16).to_le_bytes());
            code.extend_from_slice(&bytes);
        }
        Ok(Wildcard { pattern: pattern.into(), code: code.into() })
    }

    /// The pattern for texts that begin with `prefix`, end with `suffix` and do not overlap in between.
    pub fn between(prefix: &[u8], suffix: &[u8]) -> Result<Wildcard> {
        Wildcard::parse(&[&escape(prefix), &b"*"[..], &escape(suffix)].concat())
    }

    /// The pattern as written.
    pub fn pattern(&self) -> &[u8] {
        &self.pattern
    }

    /// How many stars it has; several in a row are one.
    pub fn stars(&self) -> usize {
        let at_ends = usize::from(self.code[0] & STAR_FIRST != 0) + usize::from(self.code[0] & STAR_LAST != 0);
        match self.code[1] as usize {
            0 => at_ends.min(1),
            parts => parts - 1 + at_ends,
        }
    }

    /// Whether the pattern fits the whole text.
    #[inline]
    pub fn matches(&self, text: &[u8]) -> bool {
        matches(&self.code, text)
    }

    pub(super) fn code(&self) -> &[u8] {
        &self.code
    }

    /// What a text that fits has in it, if that is all that is asked of it.
    pub(super) fn contained(&self) -> Option<&[u8]> {
        match (self.code[0], parts(&self.code).next(), self.code[1]) {
            (flags, Some(Part::Plain(text)), 1) if flags == STAR_FIRST | STAR_LAST => Some(text),
            _ => None,
        }
    }

    /// The parts between stars, and whether there is a star before the first and after the last.
    pub(super) fn parts(&self) -> (bool, impl Iterator<Item = Part<'_>>, bool) {
        (self.code[0] & STAR_FIRST != 0, parts(&self.code), self.code[0] & STAR_LAST != 0)
    }
}

/// The bytes with what is special in a wildcard escaped.
pub(super) fn escape(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    for &b in text {
        if matches!(b, b'*' | b'?' | b'\\') {
            out.push(b'\\');
        }
        out.push(b);
    }
    out
}

impl fmt::Debug for Wildcard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Wildcard(\"{}\")", self.pattern.escape_ascii())
    }
}

/// What stands between two stars.
#[derive(Clone, Copy)]
pub(super) enum Part<'a> {
    /// These bytes.
    Plain(&'a [u8]),
    /// Characters, of which some may be anything: pairs of bytes.
    Mixed(&'a [u8]),
}

fn parts(code: &[u8]) -> impl Iterator<Item = Part<'_>> {
    let mut rest = &code[2..];
    (0..code[1]).map(move |_| {
        let len = u16::from_le_bytes([rest[1], rest[2]]) as usize;
        let (mixed, bytes) = (rest[0] != 0, &rest[3..3 + len]);
        rest = &rest[3 + len..];
        if mixed { Part::Mixed(bytes) } else { Part::Plain(bytes) }
    })
}

/// Whether the wildcard of this code fits the whole text.
#[inline]
pub(super) fn matches(code: &[u8], text: &[u8]) -> bool {
    let (flags, count) = (code[0], code[1] as usize);
    if count == 0 {
        return flags != 0 || text.is_empty();
    }
    let (mut from, mut to) = (0, text.len());
    for (i, part) in parts(code).enumerate() {
        let found = if i == 0 && flags & STAR_FIRST == 0 {
            part.begins(&text[from..to]).map(|end| from + end)
        } else if i + 1 == count && flags & STAR_LAST == 0 {
            part.ends(&text[from..to]).map(|start| {
                // What lies between is what stars still have to cover.
                to = from + start;
                from
            })
        } else {
            part.find(&text[from..to]).map(|end| from + end)
        };
        let Some(found) = found else { return false };
        from = found;
    }
    // Without any star the only part must be all of it.
    flags != 0 || count > 1 || from == to
}

/// How many bytes the character at the beginning of `text` has; 1 if it is none.
fn char_len(text: &[u8]) -> usize {
    let len = match text[0] {
        0xc2..0xe0 => 2,
        0xe0..0xf0 => 3,
        0xf0..0xf5 => 4,
        _ => return 1,
    };
    text.get(..len).filter(|c| std::str::from_utf8(c).is_ok()).map_or(1, |_| len)
}

/// The same for the character at the end.
fn last_char_len(text: &[u8]) -> usize {
    let continued = text.iter().rev().take(3).take_while(|b| **b & 0xc0 == 0x80).count();
    let start = text.len().checked_sub(continued + 1);
    start.filter(|s| char_len(&text[*s..]) == continued + 1).map_or(1, |_| continued + 1)
}

impl<'a> Part<'a> {
    /// The runs of a mixed part that have no `?`, as pairs.
    pub(super) fn runs(self) -> impl Iterator<Item = &'a [u8]> {
        let pairs = match self {
            Part::Mixed(pairs) => pairs,
            Part::Plain(_) => &[],
        };
        let mut at = 0;
        std::iter::from_fn(move || {
            while pairs.get(at) == Some(&ANY) {
                at += 2;
            }
            let start = at;
            while pairs.get(at) == Some(&BYTE) {
                at += 2;
            }
            (start < at).then(|| &pairs[start..at])
        })
    }

    /// Where the part ends, if the text begins with it.
    fn begins(self, text: &[u8]) -> Option<usize> {
        match self {
            Part::Plain(bytes) => strip_prefix(text, bytes).map(|_| bytes.len()),
            Part::Mixed(pairs) => {
                let mut at = 0;
                for pair in pairs.chunks_exact(2) {
                    let rest = text.get(at..).filter(|r| !r.is_empty())?;
                    at += match pair[0] {
                        ANY => char_len(rest),
                        _ if rest[0] == pair[1] => 1,
                        _ => return None,
                    };
                }
                Some(at)
            }
        }
    }

    /// Where the part begins, if the text ends with it.
    fn ends(self, text: &[u8]) -> Option<usize> {
        match self {
            Part::Plain(bytes) => strip_suffix(text, bytes).map(<[u8]>::len),
            Part::Mixed(pairs) => {
                let mut rest = text;
                for pair in pairs.chunks_exact(2).rev() {
                    let last = *rest.last()?;
                    let len = match pair[0] {
                        ANY => last_char_len(rest),
                        _ if last == pair[1] => 1,
                        _ => return None,
                    };
                    rest = &rest[..rest.len() - len];
                }
                Some(rest.len())
            }
        }
    }

    /// Where its first occurrence ends.
    fn find(self, text: &[u8]) -> Option<usize> {
        match self {
            Part::Plain(bytes) => find(text, bytes).map(|at| at + bytes.len()),
            Part::Mixed(_) => {
                let mut at = 0;
                while at < text.len() {
                    if let Some(len) = self.begins(&text[at..]) {
                        return Some(at + len);
                    }
                    at += char_len(&text[at..]);
                }
                None
            }
        }
    }
}

/// A regular expression over the bytes of a text, in the syntax of the crate `regex`: linear time, no look-around and no
/// back-references.
#[derive(Clone)]
pub struct Regex {
    pattern: Box<str>,
    /// Whether it must fit the whole text.
    whole: bool,
    compiled: Arc<meta::Regex>,
    required: Arc<Required>,
}

/// What every text has that a regular expression finds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Required {
    /// Nothing is known.
    Nothing,
    /// It begins with this.
    Prefix(Vec<u8>),
    /// It ends with this.
    Suffix(Vec<u8>),
    /// At least one of these is in it.
    AnyOf(Vec<Vec<u8>>),
}

/// The most texts of [`Required::AnyOf`].
const REQUIRED_MAX: usize = 16;

impl Required {
    fn of(pattern: &str) -> Required {
        let parsed = regex_syntax::ParserBuilder::new().utf8(false).nest_limit(64).build().parse(pattern);
        let Ok(hir) = parsed else { return Required::Nothing };
        let mut parts: Vec<&Hir> = Vec::new();
        flatten(&hir, &mut parts);
        let literal = |h: Option<&&Hir>| match h.map(|h| h.kind()) {
            Some(HirKind::Literal(l)) => Some(l.0.to_vec()),
            _ => None,
        };
        let anchored =
            |h: Option<&&Hir>, look: Look| matches!(h.map(|h| h.kind()), Some(HirKind::Look(l)) if *l == look);
        let within = substrings(&hir).filter(|all| all.iter().all(|x| !x.is_empty()));
        let len = within.as_ref().and_then(|all| all.iter().map(Vec::len).min()).unwrap_or(0);
        // A side is looked up without a further pass over the text.
        if anchored(parts.first(), Look::Start)
            && let Some(prefix) = literal(parts.get(1)).filter(|x| x.len() * 2 >= len)
        {
            return Required::Prefix(prefix);
        }
        if anchored(parts.last(), Look::End)
            && let Some(suffix) = parts.len().checked_sub(2).and_then(|i| literal(parts.get(i)))
            && suffix.len() * 2 >= len
        {
            return Required::Suffix(suffix);
        }
        within.map_or(Required::Nothing, Required::AnyOf)
    }
}

/// The parts of an expression that follow one another.
fn flatten<'h>(hir: &'h Hir, out: &mut Vec<&'h Hir>) {
    match hir.kind() {
        HirKind::Concat(list) => list.iter().for_each(|h| flatten(h, out)),
        HirKind::Capture(c) => flatten(&c.sub, out),
        _ => out.push(hir),
    }
}

/// Texts of which at least one is in whatever the expression finds.
fn substrings(hir: &Hir) -> Option<Vec<Vec<u8>>> {
    match hir.kind() {
        HirKind::Literal(l) => Some(vec![l.0.to_vec()]),
        HirKind::Capture(c) => substrings(&c.sub),
        HirKind::Repetition(r) if r.min > 0 => substrings(&r.sub),
        HirKind::Concat(list) => {
            let shortest = |all: &Vec<Vec<u8>>| all.iter().map(Vec::len).min().unwrap_or(0);
            let all = list.iter().filter_map(substrings);
            all.max_by_key(|all| (shortest(all), std::cmp::Reverse(all.len())))
        }
        HirKind::Alternation(list) => {
            let all: Vec<Vec<u8>> = list.iter().map(substrings).collect::<Option<Vec<_>>>()?.concat();
            (all.len() <= REQUIRED_MAX).then_some(all)
        }
        _ => None,
    }
}

impl Regex {
    /// Reads an expression. With `whole` it must fit the whole text, otherwise some part of it.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidConfig`] if it is none, is longer than [`REGEX_BYTES_MAX`], or an automaton of it takes
    /// more than [`REGEX_MEMORY_MAX`] bytes of memory.
    pub fn parse(pattern: &str, whole: bool) -> Result<Regex> {
        if pattern.len() > REGEX_BYTES_MAX {
            let error = format!("the regular expression has {} bytes, more than {REGEX_BYTES_MAX}", pattern.len());
            return Err(Error::invalid_config(error).remedy("shorten it, or split the rule"));
        }
        let full = if whole { format!("^(?:{pattern})$") } else { pattern.to_owned() };
        let limits = meta::Config::new()
            .nfa_size_limit(Some(REGEX_MEMORY_MAX))
            .hybrid_cache_capacity(REGEX_MEMORY_MAX)
            .utf8_empty(false);
        let syntax = syntax::Config::new().utf8(false).nest_limit(64);
        let build = |text: &str| {
            let built = meta::Regex::builder().configure(limits.clone()).syntax(syntax).build(text);
            built.map_err(Box::new)
        };
        // By itself first: `a)(b` is none, also where the brackets put around it would make it one.
        let compiled = build(pattern).and_then(|alone| if whole { build(&full) } else { Ok(alone) });
        let compiled = compiled.map_err(|e| match e.size_limit() {
            Some(max) => Error::invalid_config(format!("the regular expression takes more than {max} bytes of memory"))
                .remedy("use smaller repetitions and classes"),
            // The crate draws the place over several lines; the last one says what is wrong.
            None => {
                let text = e.syntax_error().map_or_else(|| e.to_string(), ToString::to_string);
                let why = text.lines().last().unwrap_or_default().trim_start_matches("error: ");
                Error::invalid_config(format!("`{}` is no regular expression: {why}", pattern.escape_debug())).remedy(
                    "there are no look-around and no back-references; escape special characters with a backslash",
                )
            }
        })?;
        let required = Arc::new(Required::of(&full));
        Ok(Regex { pattern: pattern.into(), whole, compiled: Arc::new(compiled), required })
    }

    /// The expression as written.
    pub fn pattern(&self) -> &str {
        &self.pattern
    }

    /// Whether it must fit the whole text.
    pub fn is_whole(&self) -> bool {
        self.whole
    }

    /// The memory that it takes compiled, in bytes. What each thread needs while it matches, at most twice
    /// [`REGEX_MEMORY_MAX`] and some buffers, comes on top.
    pub fn bytes(&self) -> usize {
        self.compiled.memory_usage()
    }

    /// Tells copies of one compiled expression from others.
    pub(super) fn address(&self) -> usize {
        Arc::as_ptr(&self.compiled) as usize
    }

    /// What every text has that it finds.
    pub(super) fn required(&self) -> &Required {
        &self.required
    }

    /// Whether it fits the text, or a part of it.
    #[inline]
    pub fn matches(&self, text: &[u8]) -> bool {
        self.compiled.is_match(text)
    }
}

impl PartialEq for Regex {
    fn eq(&self, other: &Regex) -> bool {
        (&self.pattern, self.whole) == (&other.pattern, other.whole)
    }
}

impl Eq for Regex {}

impl Hash for Regex {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.pattern, self.whole).hash(state);
    }
}

impl fmt::Debug for Regex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Regex({:?}, whole: {})", self.pattern, self.whole)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fits(pattern: &str, text: &str) -> bool {
        Wildcard::parse(pattern.as_bytes()).unwrap().matches(text.as_bytes())
    }

    #[test]
    fn stars_stand_for_anything() {
        assert!(fits("*", "") && fits("*", "a/b") && fits("a*", "a") && fits("*a", "ba") && fits("a*c", "abc"));
        assert!(fits("logs/*/api/*.gz", "logs/x/y/api/z.gz"));
        assert!(!fits("logs/*/api/*.gz", "logs/api/z.gz"), "one slash cannot be two");
        assert!(!fits("ab*b", "ab"), "what is before the star and after it does not overlap");
        assert!(fits("ab*b", "abb") && fits("**a**", "bab") && !fits("a", "ab") && !fits("", "a") && fits("", ""));
    }

    #[test]
    fn a_question_mark_is_one_character() {
        assert!(fits("caf?.jpg", "café.jpg") && !fits("caf?.jpg", "caf.jpg") && !fits("caf?.jpg", "cafée.jpg"));
        assert!(fits("*?", "é") && fits("?*", "é") && !fits("??", "é") && fits("*?é", "🎉é"));
        assert!(fits("*a?c*", "zzaécz") && !fits("*a?c*", "zzacz"));
        // A byte that is no character is one all the same.
        let w = Wildcard::parse(b"a?c").unwrap();
        assert!(w.matches(b"a\xffc") && w.matches(b"a\x80c") && !w.matches(b"a\xff\xffc"));
        assert!(Wildcard::parse(b"*?").unwrap().matches(b"\xe2\x82"));
    }

    #[test]
    fn a_backslash_hides_what_is_special() {
        assert!(fits(r"a\*b", "a*b") && !fits(r"a\*b", "axb") && fits(r"\?", "?") && fits(r"\\", r"\"));
        for wrong in [r"a\", r"\a"] {
            let e = Wildcard::parse(wrong.as_bytes()).unwrap_err();
            assert!(e.to_string().contains("backslash"), "{e}");
        }
        let w = Wildcard::between(b"a*", b"?\\").unwrap();
        assert!(w.matches(b"a*xx?\\") && !w.matches(b"abxx?\\"));
    }

    #[test]
    fn too_much_is_refused() {
        assert!(Wildcard::parse(&b"a*".repeat(16)).is_ok());
        assert!(Wildcard::parse(&b"a*".repeat(17)).unwrap_err().to_string().contains("17 stars"));
        assert!(Wildcard::parse(&[b'*'; 1000]).is_ok(), "stars in a row are one");
        assert!(Wildcard::parse(&[b'a'; 1025]).is_err());
        assert!(Regex::parse(&"a".repeat(1025), false).is_err());
        let e = Regex::parse(r"(\w{1,100}){1,100}", false).unwrap_err();
        assert!(e.to_string().contains("memory"), "{e}");
        let e = Regex::parse("a(b", true).unwrap_err();
        assert!(e.to_string().contains("unclosed group"), "{e}");
        assert!(Regex::parse("a)(b", true).is_err());
        assert!(Regex::parse(r"(?=a)b", false).unwrap_err().to_string().contains("look-around"));
    }

    #[test]
    fn stars_are_counted() {
        let stars = |p: &str| Wildcard::parse(p.as_bytes()).unwrap().stars();
        let counts = ["", "a", "*", "***", "a*", "*a*", "a*b", "*a**b?*", r"\*", "?"].map(stars);
        assert_eq!(counts, [0, 0, 1, 1, 1, 2, 1, 3, 0, 0]);
    }

    #[test]
    fn memory_of_an_expression_is_told() {
        let bytes = |p: &str| Regex::parse(p, false).unwrap().bytes();
        assert!(bytes("^a") > 0 && bytes(r"\w{3}") > 4 * bytes("[a-z]{3}"));
        let one = Regex::parse("[ab]+", false).unwrap();
        assert!(
            one.address() == one.clone().address() && one.address() != Regex::parse("[ab]+", false).unwrap().address()
        );
    }

    #[test]
    fn expressions_fit_a_part_or_the_whole() {
        let part = Regex::parse("b+", false).unwrap();
        let whole = Regex::parse("a|b+", true).unwrap();
        assert!(part.matches(b"abbc") && !part.matches(b"ac"));
        assert!(whole.matches(b"bb") && whole.matches(b"a") && !whole.matches(b"ab"));
        assert!(Regex::parse("(?-u:\\xff)", false).unwrap().matches(b"a\xff"));
        assert_ne!(Regex::parse("a", true).unwrap(), Regex::parse("a", false).unwrap());
    }

    #[test]
    fn what_an_expression_requires() {
        let of = |p: &str, whole: bool| Regex::parse(p, whole).unwrap().required().clone();
        let any = |all: &[&str]| Required::AnyOf(all.iter().map(|x| x.as_bytes().to_vec()).collect());
        assert_eq!(of("report", false), any(&["report"]));
        assert_eq!(of("(ab|cd)+x?", false), any(&["ab", "cd"]));
        assert_eq!(of("^logs/.*", false), Required::Prefix(b"logs/".to_vec()));
        assert_eq!(of("logs/.*", true), Required::Prefix(b"logs/".to_vec()));
        assert_eq!(of(r".*\.jpg", true), Required::Suffix(b".jpg".to_vec()));
        assert_eq!(of(r"a.*something.*", true), any(&["something"]));
        for p in ["a?b*", ".*", "(?i)report", "a|", "[ab]c?", ""] {
            assert_eq!(of(p, false), Required::Nothing, "{p}");
        }
    }

    /// By the meaning alone, over characters.
    fn plainly(pattern: &[Option<Option<char>>], text: &[char]) -> bool {
        match (pattern.split_first(), text.split_first()) {
            (None, None) => true,
            (None, Some(_)) => false,
            (Some((None, more)), rest) => {
                plainly(more, text) || rest.is_some_and(|(_, behind)| plainly(pattern, behind))
            }
            (Some((Some(c), more)), Some((t, behind))) => c.is_none_or(|c| c == *t) && plainly(more, behind),
            (Some(_), None) => false,
        }
    }

    proptest! {
        #[test]
        fn it_means_what_it_says(
            pattern in prop::collection::vec(prop::sample::select(vec!["*", "?", "a", "b", "é", "\\*"]), 0..7),
            text in prop::collection::vec(prop::sample::select(vec!['a', 'b', 'é', '*', '🎉']), 0..7),
        ) {
            let tokens: Vec<_> = pattern.iter().map(|t| match *t {
                "*" => None,
                "?" => Some(None),
                t => Some(t.chars().last()),
            }).collect();
            let string: String = text.iter().collect();
            prop_assert_eq!(fits(&pattern.concat(), &string), plainly(&tokens, &text));
        }

        #[test]
        fn bytes_never_make_it_panic(pattern in prop::collection::vec(any::<u8>(), 0..20), text in prop::collection::vec(any::<u8>(), 0..20)) {
            if let Ok(w) = Wildcard::parse(&pattern) {
                w.matches(&text);
            }
        }
    }
}
