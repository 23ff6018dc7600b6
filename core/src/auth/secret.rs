//! Secrets: where they come from, when they are valid, and how they are read anew while running.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use zeroize::Zeroizing;

use crate::error::{Error, ErrorKind, Result};
use crate::stamp::Stamp;

/// How many secrets of one list may be valid at the same time.
pub const LIVE_SECRETS_MAX: usize = 4;
/// How many secrets a list may have, those that are past or to come included.
pub const SECRETS_MAX: usize = 16;
/// The largest secret, in bytes. A private key in PEM form has a few thousand.
pub const SECRET_BYTES_MAX: usize = 64 * 1024;
/// How long a replaced secret stays valid beside the new one, if nothing else is said.
pub const ROTATION_OVERLAP: Duration = Duration::from_secs(24 * 3600);
/// The longest time that may be asked for.
pub const ROTATION_OVERLAP_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

/// What a host's function answers that is asked for a secret. Its error is shown to operators: it must not hold the secret.
pub type SecretAnswer = std::result::Result<String, String>;

type Callback = Arc<dyn Fn() -> SecretAnswer + Send + Sync>;

/// One secret: where it comes from, and when it is valid. Its `Debug` form never shows it.
#[derive(Clone)]
#[non_exhaustive]
pub struct Secret {
    source: Source,
    /// How receivers know the key, where the scheme tells them (`keyid`, `kid`).
    pub id: Option<String>,
    /// Not used before this second since the Unix epoch.
    pub not_before: Option<i64>,
    /// Not used from this second since the Unix epoch on.
    pub until: Option<i64>,
}

#[derive(Clone)]
enum Source {
    Text(Arc<Zeroizing<String>>),
    Env(String),
    File(PathBuf),
    Callback(Callback),
}

impl Secret {
    fn of(source: Source) -> Secret {
        Secret { source, id: None, not_before: None, until: None }
    }

    /// The secret itself. Its memory is overwritten when the last clone is dropped.
    pub fn text(secret: impl Into<String>) -> Secret {
        Secret::of(Source::Text(Arc::new(Zeroizing::new(secret.into()))))
    }

    /// The value of an environment variable, read when the destination is first used.
    pub fn env(name: impl Into<String>) -> Secret {
        Secret::of(Source::Env(name.into()))
    }

    /// The contents of a file, without a line break at its end. Read again when the file has changed or another has its
    /// name; looked at once a second at most.
    pub fn file(path: impl Into<PathBuf>) -> Secret {
        Secret::of(Source::File(path.into()))
    }

    /// What a function of the host answers. It is called on threads of the engine, once a second at most for each shard, and
    /// may block.
    pub fn callback(f: impl Fn() -> SecretAnswer + Send + Sync + 'static) -> Secret {
        Secret::of(Source::Callback(Arc::new(f)))
    }

    /// With the id by which receivers know the key.
    #[must_use]
    pub fn with_id(mut self, id: impl Into<String>) -> Secret {
        self.id = Some(id.into());
        self
    }

    /// Valid up to a second since the Unix epoch, not included.
    #[must_use]
    pub fn valid_until(mut self, until: i64) -> Secret {
        self.until = Some(until);
        self
    }

    /// Valid from a second since the Unix epoch on.
    #[must_use]
    pub fn valid_from(mut self, not_before: i64) -> Secret {
        self.not_before = Some(not_before);
        self
    }

    /// The environment variable that it comes from.
    pub(super) fn env_name(&self) -> Option<&str> {
        match &self.source {
            Source::Env(name) => Some(name),
            _ => None,
        }
    }

    /// The file that it comes from.
    pub(super) fn file_path(&self) -> Option<&Path> {
        match &self.source {
            Source::File(path) => Some(path),
            _ => None,
        }
    }

    /// The secret itself, if it was given so.
    pub(super) fn literal(&self) -> Option<&str> {
        match &self.source {
            Source::Text(text) => Some(text.as_str()),
            _ => None,
        }
    }

    /// Whether a function of the host answers it.
    pub(super) fn is_callback(&self) -> bool {
        matches!(self.source, Source::Callback(_))
    }

    /// Reads it; may block.
    fn read(&self) -> Result<Zeroizing<String>> {
        let text = match &self.source {
            Source::Text(text) => Zeroizing::clone(text),
            Source::Env(name) => read_env(name)?,
            Source::File(path) => read_file(path)?,
            Source::Callback(f) => match f() {
                Ok(text) => Zeroizing::new(text),
                Err(e) => {
                    return Err(Error::new(ErrorKind::Io, format!("the host has no secret: {e}"))
                        .remedy("look at what the host's function says"));
                }
            },
        };
        check_size(text.len())?;
        Ok(text)
    }

    fn is_live(&self, unix: i64) -> bool {
        self.not_before.is_none_or(|from| from <= unix) && self.until.is_none_or(|until| unix < until)
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Secret) -> bool {
        let same = match (&self.source, &other.source) {
            (Source::Text(a), Source::Text(b)) => a == b,
            (Source::Env(a), Source::Env(b)) => a == b,
            (Source::File(a), Source::File(b)) => a == b,
            (Source::Callback(a), Source::Callback(b)) => Arc::ptr_eq(a, b),
            _ => false,
        };
        same && (&self.id, self.not_before, self.until) == (&other.id, other.not_before, other.until)
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Secret");
        match &self.source {
            Source::Text(_) => out.field("text", &format_args!("***")),
            Source::Env(name) => out.field("env", name),
            Source::File(path) => out.field("file", path),
            Source::Callback(_) => out.field("callback", &format_args!("***")),
        };
        out.field("id", &self.id).field("not_before", &self.not_before).field("until", &self.until).finish()
    }
}

fn check_size(bytes: usize) -> Result<()> {
    let bad = |what: String, remedy: &str| Err(Error::invalid_config(what).remedy(remedy.to_owned()));
    match bytes {
        0 => bad("the secret is empty".into(), "put the secret there"),
        1..=SECRET_BYTES_MAX => Ok(()),
        _ => bad(format!("the secret has more than {SECRET_BYTES_MAX} bytes"), "is it the right one?"),
    }
}

fn read_env(name: &str) -> Result<Zeroizing<String>> {
    let bad = |what: &str, remedy: String| Err(Error::invalid_config(format!("{what} {name}")).remedy(remedy));
    match std::env::var(name) {
        Ok(text) => Ok(Zeroizing::new(text)),
        Err(std::env::VarError::NotPresent) => {
            bad("there is no environment variable", format!("set {name} for this process, or name another variable"))
        }
        Err(std::env::VarError::NotUnicode(text)) => {
            drop(Zeroizing::new(text.into_encoded_bytes()));
            bad("not UTF-8 is the environment variable", "give a binary secret in base64 or hex".into())
        }
    }
}

fn read_file(path: &Path) -> Result<Zeroizing<String>> {
    let io = |e: &std::io::Error| {
        Error::invalid_config(format!("reading the secret {}: {e}", path.display()))
            .remedy("check the path, and that this user may read it")
    };
    // What a pipe or a device would give has no end, or never comes.
    if !std::fs::metadata(path).map_err(|e| io(&e))?.is_file() {
        return Err(Error::invalid_config("this is no ordinary file")
            .at(path.display().to_string())
            .remedy("name the file that has the secret in it"));
    }
    let mut bytes = Vec::with_capacity(4096);
    let file = File::open(path).map_err(|e| io(&e))?;
    file.take(SECRET_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).map_err(|e| io(&e))?;
    if bytes.len() > SECRET_BYTES_MAX {
        check_size(bytes.len()).map_err(|e| e.at(path.display().to_string()))?;
    }
    let mut text = match String::from_utf8(bytes) {
        Ok(text) => Zeroizing::new(text),
        Err(e) => {
            drop(Zeroizing::new(e.into_bytes()));
            return Err(Error::invalid_config("the secret is not UTF-8")
                .at(path.display().to_string())
                .remedy("store a binary secret in base64 or hex"));
        }
    };
    let end = text.strip_suffix("\r\n").or(text.strip_suffix('\n')).unwrap_or(&text).len();
    text.truncate(end);
    if text.is_empty() {
        return check_size(0).map(|()| text).map_err(|e| e.at(path.display().to_string()));
    }
    Ok(text)
}

/// How messages write a second since the Unix epoch.
pub(super) fn time_text(unix: i64) -> String {
    Timestamp::from_second(unix).map_or_else(|_| unix.to_string(), |t| t.to_string())
}

/// The secrets of one use, the preferred one first. While one is replaced by the other, two or more are valid: a signature is
/// made with each of them, where the scheme can send several; elsewhere the first valid one is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Secrets(pub(super) Vec<Secret>);

impl From<Secret> for Secrets {
    fn from(secret: Secret) -> Secrets {
        Secrets(vec![secret])
    }
}

impl From<Vec<Secret>> for Secrets {
    fn from(list: Vec<Secret>) -> Secrets {
        Secrets(list)
    }
}

impl Secrets {
    /// All of them, valid or not.
    pub fn list(&self) -> &[Secret] {
        &self.0
    }

    /// Puts a new secret first. Those that have no end yet stay valid for `overlap` from `unix` on, the seconds since the
    /// Unix epoch; those that are past are left out.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] if `overlap` is more than [`ROTATION_OVERLAP_MAX`], or if more than
    /// [`LIVE_SECRETS_MAX`] would be valid at once; then nothing has changed.
    pub fn rotate(&mut self, new: Secret, unix: i64, overlap: Duration) -> Result<()> {
        if overlap > ROTATION_OVERLAP_MAX {
            return Err(Error::new(ErrorKind::InvalidArgument, format!("an overlap of {overlap:?} is too long"))
                .remedy(format!("choose up to {ROTATION_OVERLAP_MAX:?}")));
        }
        let end = unix.saturating_add(overlap.as_secs() as i64);
        let mut list = vec![new];
        list.extend(self.0.iter().cloned().map(|mut s| {
            s.until = Some(s.until.map_or(end, |until| until.min(end)));
            s
        }));
        list[1..].sort_by_key(|s| std::cmp::Reverse(s.until));
        list.retain(|s| s.until.is_none_or(|until| until > unix));
        let rotated = Secrets(list);
        rotated.check_times().map_err(|e| Error::new(ErrorKind::InvalidArgument, e.message()))?;
        *self = rotated;
        Ok(())
    }

    /// Reads them and makes keys of them. Secrets that are not given as text are left out if `reader` says so.
    pub(crate) fn load<K>(&self, reader: &mut Reader, parse: impl Fn(&str) -> Result<K>) -> Result<Keys<K>> {
        self.check_times()?;
        let mut keys = Vec::new();
        for (i, secret) in self.0.iter().enumerate() {
            let place = || if self.0.len() == 1 { "secret".to_owned() } else { format!("secret[{i}]") };
            let Some(text) = reader.read(secret).map_err(|e| e.at(place()))? else { continue };
            let key = parse(&text).map_err(|e| e.at(place()))?;
            keys.push(Key { key, id: secret.id.clone(), not_before: secret.not_before, until: secret.until });
        }
        Ok(Keys(keys))
    }

    fn check_times(&self) -> Result<()> {
        let bad = |what: String, remedy: String| Err(Error::invalid_config(what).at("secret").remedy(remedy));
        if self.0.is_empty() {
            return bad("there is no secret".into(), "give one".into());
        }
        if self.0.len() > SECRETS_MAX {
            let what = format!("{} secrets, more than {SECRETS_MAX}", self.0.len());
            return bad(what, "leave out those that are past".into());
        }
        for (i, s) in self.0.iter().enumerate() {
            if let (Some(from), Some(until)) = (s.not_before, s.until)
                && until <= from
            {
                return bad(format!("secret {} ends before it begins", i + 1), "correct not_before or until".into());
            }
            let begin = s.not_before.unwrap_or(i64::MIN);
            let live = self.0.iter().filter(|o| o.is_live(begin)).count();
            if live > LIVE_SECRETS_MAX {
                let what = format!("{live} secrets are valid at the same time, more than {LIVE_SECRETS_MAX}");
                return bad(what, "give the older ones an `until`".into());
            }
        }
        Ok(())
    }

    /// When the last one ends, if all end.
    pub(super) fn last_end(&self) -> Option<i64> {
        self.0.iter().map(|s| s.until).collect::<Option<Vec<_>>>()?.into_iter().max()
    }
}

/// Reads secrets, and remembers what would make a second look worth it.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    literal_only: bool,
    files: Vec<(PathBuf, Option<Stamp>)>,
    callbacks: bool,
}

impl Reader {
    /// Reads nothing: only what is given as text is looked at.
    pub(crate) fn literal_only() -> Reader {
        Reader { literal_only: true, ..Reader::default() }
    }

    fn read(&mut self, secret: &Secret) -> Result<Option<Zeroizing<String>>> {
        match &secret.source {
            Source::Text(_) => {}
            _ if self.literal_only => return Ok(None),
            Source::Env(_) => {}
            // First the look: what changes between the two is seen the next time.
            Source::File(path) => self.files.push((path.clone(), Stamp::of(path))),
            Source::Callback(_) => self.callbacks = true,
        }
        secret.read().map(Some)
    }

    /// Whether anything that was read may change.
    pub(crate) fn watches(&self) -> bool {
        self.callbacks || !self.files.is_empty()
    }

    /// Whether something may be different now. May block.
    pub(crate) fn is_outdated(&self) -> bool {
        self.callbacks || self.files.iter().any(|(path, stamp)| *stamp != Stamp::of(path))
    }
}

/// A key with the time in which it is valid.
pub(crate) struct Key<K> {
    pub(crate) key: K,
    pub(crate) id: Option<String>,
    not_before: Option<i64>,
    until: Option<i64>,
}

/// What the secrets of one use became.
pub(crate) struct Keys<K>(Vec<Key<K>>);

impl<K> Keys<K> {
    /// Those that are valid at a time, at least one and [`LIVE_SECRETS_MAX`] at most.
    ///
    /// # Errors
    /// If none is.
    pub(crate) fn live(&self, unix: i64) -> Result<impl Iterator<Item = &Key<K>>> {
        let is_live =
            move |k: &&Key<K>| k.not_before.is_none_or(|from| from <= unix) && k.until.is_none_or(|until| unix < until);
        if self.0.iter().any(|k| is_live(&k)) {
            return Ok(self.0.iter().filter(is_live).take(LIVE_SECRETS_MAX));
        }
        let last = self.0.iter().filter_map(|k| k.until).filter(|until| *until <= unix).max();
        let next = self.0.iter().filter_map(|k| k.not_before).filter(|from| *from > unix).min();
        let what = match (last, next) {
            (_, Some(next)) => format!("no secret is valid now; the next one is from {} on", time_text(next)),
            (Some(last), None) => format!("every secret has expired, the last one at {}", time_text(last)),
            (None, None) => "there is no secret".into(),
        };
        Err(Error::invalid_config(what).at("secret").remedy("add a secret that is valid now"))
    }

    /// The preferred one of those that are valid.
    ///
    /// # Errors
    /// If none is.
    pub(crate) fn first(&self, unix: i64) -> Result<&Key<K>> {
        let mut live = self.live(unix)?;
        live.next().ok_or_else(|| Error::new(ErrorKind::Internal, "no secret is valid"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(secrets: &Secrets) -> Result<Keys<String>> {
        secrets.load(&mut Reader::default(), |s| Ok(s.to_owned()))
    }

    fn live(secrets: &Secrets, unix: i64) -> Result<Vec<String>> {
        Ok(load(secrets)?.live(unix)?.map(|k| k.key.clone()).collect())
    }

    #[test]
    fn no_secret_is_used_outside_of_its_time() {
        let list = Secrets(vec![
            Secret::text("new").valid_from(100),
            Secret::text("old").valid_until(200),
            Secret::text("gone").valid_until(50),
        ]);
        for (unix, expected) in
            [(49, vec!["old", "gone"]), (50, vec!["old"]), (100, vec!["new", "old"]), (199, vec!["new", "old"])]
        {
            assert_eq!(live(&list, unix).unwrap(), expected, "{unix}");
        }
        assert_eq!(live(&list, 200).unwrap(), ["new"]);
        let past = Secrets(vec![Secret::text("a").valid_until(50), Secret::text("b").valid_until(60)]);
        let e = live(&past, 60).unwrap_err().to_string();
        assert!(e.contains("every secret has expired, the last one at 1970-01-01T00:01:00Z; add a secret"), "{e}");
        let e = live(&Secret::text("a").valid_from(61).into(), 60).unwrap_err().to_string();
        assert!(e.contains("the next one is from 1970-01-01T00:01:01Z on"), "{e}");
    }

    #[test]
    fn a_replaced_secret_stays_for_the_overlap_and_no_longer() {
        let mut list = Secrets::from(Secret::text("a"));
        list.rotate(Secret::text("b"), 1000, ROTATION_OVERLAP).unwrap();
        assert_eq!(live(&list, 1000).unwrap(), ["b", "a"]);
        assert_eq!(live(&list, 1000 + 86_399).unwrap(), ["b", "a"]);
        assert_eq!(live(&list, 1000 + 86_400).unwrap(), ["b"]);
        // A shorter one shortens those that are there; a longer one does not lengthen them.
        list.rotate(Secret::text("c"), 2000, Duration::from_secs(10)).unwrap();
        assert_eq!((live(&list, 2009).unwrap(), live(&list, 2010).unwrap()), (words("c b a"), words("c")));
        list.rotate(Secret::text("d"), 3000, Duration::ZERO).unwrap();
        assert_eq!(list.list().len(), 1);
        for _ in 0..3 {
            list.rotate(Secret::text("e"), 4000, ROTATION_OVERLAP).unwrap();
        }
        let before = list.clone();
        let e = list.rotate(Secret::text("f"), 4000, ROTATION_OVERLAP).unwrap_err();
        assert!(e.to_string().contains("5 secrets are valid at the same time"), "{e}");
        assert_eq!(list, before);
        let e = list.rotate(Secret::text("f"), 4000, Duration::from_secs(8 * 86_400)).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::InvalidArgument);
    }

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn what_cannot_be_read_is_told_with_a_place_and_a_remedy() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, contents: &[u8]| {
            std::fs::write(dir.path().join(name), contents).unwrap();
            Secret::file(dir.path().join(name))
        };
        for (secret, what) in [
            (Secret::env("TIDEWIRE_NO_SUCH_SECRET"), "no environment variable TIDEWIRE_NO_SUCH_SECRET"),
            (Secret::file(dir.path().join("absent")), "absent: No such file"),
            (Secret::file(dir.path()), "this is no ordinary file"),
            (Secret::file("/dev/zero"), "this is no ordinary file"),
            (file("empty", b"\n"), "the secret is empty"),
            (file("binary", &[0xFF, b'p', b'a', b's', b's']), "not UTF-8"),
            (file("large", &vec![b'x'; SECRET_BYTES_MAX + 1]), "more than 65536 bytes"),
            (Secret::text(""), "the secret is empty"),
            (Secret::callback(|| Err("the vault is sealed".into())), "the vault is sealed"),
            (Secret::callback(|| Ok(String::new())), "the secret is empty"),
        ] {
            let e = load(&vec![Secret::text("good"), secret].into()).err().unwrap();
            assert!(e.to_string().contains(what) && e.remedy_text().is_some(), "{e}");
            assert!(e.place().unwrap().starts_with("secret[1]"), "{e}");
        }
        let e = load(&Secrets(Vec::new())).err().unwrap().to_string();
        assert!(e.contains("there is no secret"), "{e}");
        let e = load(&Secret::text("x").valid_from(5).valid_until(5).into()).err().unwrap().to_string();
        assert!(e.contains("ends before it begins"), "{e}");
        let five: Vec<Secret> = (0..5).map(|_| Secret::text("x")).collect();
        let e = load(&five.into()).err().unwrap().to_string();
        assert!(e.contains("5 secrets are valid at the same time, more than 4"), "{e}");
    }

    #[test]
    fn a_file_that_was_changed_or_replaced_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        std::fs::write(&path, "one\r\n").unwrap();
        let read = |reader: &mut Reader| {
            let keys = Secrets::from(Secret::file(&path)).load(reader, |s| Ok(s.to_owned())).unwrap();
            keys.first(0).unwrap().key.clone()
        };
        let mut reader = Reader::default();
        assert_eq!((read(&mut reader).as_str(), reader.watches(), reader.is_outdated()), ("one", true, false));
        std::fs::write(&path, "three").unwrap();
        assert!(reader.is_outdated());
        let mut reader = Reader::default();
        assert_eq!((read(&mut reader).as_str(), reader.is_outdated()), ("three", false));
        // As Kubernetes and good editors do it, with the same length and times.
        let (other, times) = (dir.path().join("other"), std::fs::metadata(&path).unwrap().modified().unwrap());
        std::fs::write(&other, "3rd..").unwrap();
        std::fs::File::open(&other).unwrap().set_modified(times).unwrap();
        std::fs::rename(&other, &path).unwrap();
        assert!(reader.is_outdated());
        std::fs::remove_file(&path).unwrap();
        assert!(reader.is_outdated());
        let mut reader = Reader::default();
        Secrets::from(Secret::text("x")).load(&mut reader, |_| Ok(())).unwrap();
        assert!(!reader.watches());
    }

    #[test]
    fn only_what_is_text_is_looked_at_when_nothing_shall_be_read() {
        let secrets = Secrets(vec![Secret::env("TIDEWIRE_NO_SUCH_SECRET"), Secret::text("a")]);
        let keys = secrets.load(&mut Reader::literal_only(), |s| Ok(s.to_owned())).unwrap();
        assert_eq!(keys.first(0).unwrap().key, "a");
    }
}
