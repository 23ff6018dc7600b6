//! Secrets that were rotated by a word: they are kept in the data directory and take the place of the configured ones, until
//! the configuration has others.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::rand::{SecureRandom, SystemRandom};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::config::secrets_json;
use super::{Auth, Reader, Secret, SecretEncoding, Secrets, Table, hmac};
use crate::driver::fs;
use crate::error::{Error, ErrorKind, Result};
use crate::log::standing::DIRECTORY;
use crate::rule::fingerprint;

const ENDS: &str = ".secrets";
/// What a new secret is made of.
const SECRET_BYTES: usize = 32;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rotated {
    /// Which of the destination's schemes.
    scheme: usize,
    /// What was configured when it was rotated, as a hash.
    of: String,
    secrets: Secrets,
}

/// A new secret, to be shown once.
#[derive(Clone)]
#[non_exhaustive]
pub struct NewSecret {
    /// The secret. Its memory is overwritten when it is dropped.
    pub secret: Zeroizing<String>,
    /// What receivers verify with, where that is something else (`whpk_…`).
    pub public: Option<String>,
}

impl std::fmt::Debug for NewSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewSecret").field("secret", &"***").field("public", &self.public).finish()
    }
}

fn of(auth: &Auth) -> String {
    fingerprint(&[auth.scheme(), &secrets_json(auth.secrets()).to_string()])
}

fn path(dir: &Path, name: &str, ends: &str) -> PathBuf {
    dir.join(DIRECTORY).join(format!("{name}{ends}"))
}

impl Rotated {
    /// Puts the rotated secrets in the place of the configured ones, if these are still the same.
    pub(crate) fn apply(&self, list: &mut [Auth]) {
        if let Some(auth) = list.get_mut(self.scheme).filter(|auth| of(auth) == self.of) {
            *auth.secrets_mut() = self.secrets.clone();
        }
    }

    /// Rotates a secret of a destination's schemes: `given`, or a new one that is made. `before` is what was rotated earlier.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] if no scheme has a secret that can be made, the overlap is too long, or too many would
    /// be valid at once.
    pub(crate) fn rotate(
        list: &[Auth],
        before: Option<&Rotated>,
        given: Option<Zeroizing<String>>,
        unix: i64,
        overlap: Duration,
    ) -> Result<(Rotated, NewSecret)> {
        let invalid = |what: &str, remedy: &str| Err(Error::new(ErrorKind::InvalidArgument, what).remedy(remedy));
        let scheme = match list {
            [] => return invalid("the destination has no secret", "configure `auth` first"),
            [_] => 0,
            // The one whose receivers hold a copy.
            _ => list.iter().position(|a| matches!(a, Auth::StandardWebhooks(_) | Auth::Hmac(_))).unwrap_or(0),
        };
        let configured = of(&list[scheme]);
        let mut auth = list[scheme].clone();
        if auth.secrets().list().iter().any(Secret::is_callback) {
            return invalid("the host's function says what the secret is", "rotate it there");
        }
        if let Some(before) = before.filter(|b| b.scheme == scheme && b.of == configured) {
            *auth.secrets_mut() = before.secrets.clone();
        }
        let new = match given {
            Some(secret) => {
                let public = hmac::public_key(&secret).ok().filter(|_| matches!(auth, Auth::StandardWebhooks(_)));
                NewSecret { secret, public }
            }
            None => make(&auth)?,
        };
        auth.secrets_mut().rotate(Secret::text(new.secret.as_str()), unix, overlap)?;
        let invalid = |e: Error| Error::new(ErrorKind::InvalidArgument, e.message());
        auth.validate().map_err(invalid)?;
        // The new one alone has to do: those of before may be where only the engine can read them.
        let mut alone = auth.clone();
        *alone.secrets_mut() = Secret::text(new.secret.as_str()).into();
        alone.check().map_err(invalid)?;
        Ok((Rotated { scheme, of: configured, secrets: auth.secrets().clone() }, new))
    }

    /// What is kept of a destination.
    ///
    /// # Errors
    /// If it cannot be read, or is damaged.
    pub(crate) fn read(dir: &Path, name: &str) -> Result<Option<Rotated>> {
        let at = path(dir, name, ENDS);
        let damaged = || Error::new(ErrorKind::Corrupt, "these are no secrets").at(at.display().to_string());
        let bytes = match fs::read(&at) {
            Ok(bytes) => Zeroizing::new(bytes),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Error::io("cannot read the secrets", &e).at(at.display().to_string())),
        };
        let value: Value = serde_json::from_slice(&bytes).map_err(|_| damaged())?;
        let scheme = value.get("scheme").and_then(Value::as_u64).ok_or_else(damaged)? as usize;
        let of = value.get("of").and_then(Value::as_str).ok_or_else(damaged)?.to_owned();
        let map = value.as_object().ok_or_else(damaged)?;
        let secrets = Table::new(map, Path::new("")).secrets().map_err(|_| damaged())?;
        Ok(Some(Rotated { scheme, of, secrets }))
    }

    /// What is kept of all destinations. What cannot be read is told and left out.
    pub(crate) fn read_all(dir: &Path) -> BTreeMap<String, std::sync::Arc<Rotated>> {
        let names = fs::list(&dir.join(DIRECTORY)).unwrap_or_default();
        let read = |name: &str| match Rotated::read(dir, name) {
            Ok(found) => found.map(|r| (name.to_owned(), std::sync::Arc::new(r))),
            Err(e) => {
                log::error!("destination `{name}` has the secrets of its configuration: {e}");
                None
            }
        };
        names.iter().filter_map(|n| n.strip_suffix(ENDS)).filter_map(read).collect()
    }

    /// Keeps them, durably, for their owner alone.
    pub(crate) fn write(&self, dir: &Path, name: &str) -> Result<()> {
        let at = path(dir, name, ENDS);
        let all = dir.join(DIRECTORY);
        let failed = |e: &io::Error| Error::io("cannot keep the secrets", e).at(at.display().to_string());
        fs::create_dir_all(&all).map_err(|e| failed(&e))?;
        let value = json!({"scheme": self.scheme, "of": self.of, "secret": secrets_json(&self.secrets)});
        let text = Zeroizing::new(value.to_string());
        fs::replace(&at, &path(dir, name, ".secrets.new"), text.as_bytes()).map_err(|e| failed(&e))
    }
}

/// Rotates a secret of a destination of a data directory, and keeps it there; an engine that is running uses it within a
/// second after [`crate::log::standing::Order::Secrets`]. The secret is `given`, or made.
///
/// # Errors
/// [`ErrorKind::InvalidArgument`] if there is no secret to rotate, none can be made for its scheme, `overlap` is more than
/// [`super::secret::ROTATION_OVERLAP_MAX`], or more secrets than may be would be valid at once; [`ErrorKind::Io`].
pub fn rotate(
    dir: &Path,
    name: &str,
    list: &[Auth],
    given: Option<Zeroizing<String>>,
    unix: i64,
    overlap: Duration,
) -> Result<NewSecret> {
    let before = Rotated::read(dir, name)?;
    let (rotated, new) = Rotated::rotate(list, before.as_ref(), given, unix, overlap)?;
    rotated.write(dir, name)?;
    Ok(new)
}

fn random<const N: usize>() -> Result<Zeroizing<[u8; N]>> {
    let mut bytes = Zeroizing::new([0; N]);
    let none = |_| Error::new(ErrorKind::Io, "the system gives no random numbers");
    SystemRandom::new().fill(bytes.as_mut()).map_err(none)?;
    Ok(bytes)
}

/// A new secret of the kind that the scheme has.
fn make(auth: &Auth) -> Result<NewSecret> {
    let bytes = random::<SECRET_BYTES>()?;
    let encoded = |encoding: SecretEncoding| match encoding {
        SecretEncoding::Text => URL_SAFE_NO_PAD.encode(*bytes),
        SecretEncoding::Base64 => STANDARD.encode(*bytes),
        SecretEncoding::Hex => bytes.iter().map(|b| format!("{b:02x}")).collect(),
    };
    let secret = match auth {
        Auth::StandardWebhooks(_) if has_private_key(auth) => format!("whsk_{}", STANDARD.encode(*bytes)),
        Auth::StandardWebhooks(_) => format!("whsec_{}", STANDARD.encode(*bytes)),
        Auth::Hmac(h) => encoded(h.secret_encoding),
        Auth::Basic(_) | Auth::Bearer(_) | Auth::ApiKey(_) => encoded(SecretEncoding::Text),
        Auth::MessageSignatures(_) | Auth::JwtBearer(_) | Auth::ClientCredentials(_) => {
            let what = format!("a secret for `{}` is not made here", auth.scheme());
            return Err(Error::new(ErrorKind::InvalidArgument, what).remedy("give the new one"));
        }
    };
    let secret = Zeroizing::new(secret);
    let public = if secret.starts_with("whsk_") { Some(hmac::public_key(&secret)?) } else { None };
    Ok(NewSecret { secret, public })
}

/// Whether what is used now is a key rather than a secret, as far as that can be read here.
fn has_private_key(auth: &Auth) -> bool {
    let keys = auth.secrets().load(&mut Reader::default(), |text| Ok(text.starts_with("whsk_")));
    keys.ok().and_then(|keys| keys.first(i64::MAX / 2).or_else(|_| keys.first(0)).ok().map(|k| k.key)).unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::{Bearer, ClientCredentials, Hmac, StandardWebhooks, secret::ROTATION_OVERLAP};

    const OLD: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    #[test]
    fn a_rotated_secret_is_kept_and_holds_until_the_configuration_has_another() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let list = vec![Auth::StandardWebhooks(StandardWebhooks::new(Secret::text(OLD)))];
        assert_eq!(Rotated::read(dir, "a").unwrap(), None);
        let new = rotate(dir, "a", &list, None, 1000, ROTATION_OVERLAP).unwrap();
        assert!(new.secret.starts_with("whsec_") && new.public.is_none() && !format!("{new:?}").contains(&*new.secret));
        let kept = Rotated::read_all(dir);
        let mut used = list.clone();
        kept["a"].apply(&mut used);
        let expected = vec![Secret::text(new.secret.as_str()), Secret::text(OLD).valid_until(1000 + 86_400)];
        assert_eq!(used[0].secrets().list(), expected);
        // Once more, before the overlap has ended.
        let third = rotate(dir, "a", &list, None, 2000, Duration::from_secs(60)).unwrap();
        let mut used = list.clone();
        Rotated::read(dir, "a").unwrap().unwrap().apply(&mut used);
        let ends: Vec<_> = used[0].secrets().list().iter().map(|s| s.until).collect();
        assert_eq!(ends, [None, Some(2060), Some(2060)]);
        assert_ne!(*third.secret, *new.secret);
        // The operator puts the new one into the configuration.
        let mut other = vec![Auth::StandardWebhooks(StandardWebhooks::new(Secret::text(third.secret.as_str())))];
        let before = other.clone();
        Rotated::read(dir, "a").unwrap().unwrap().apply(&mut other);
        assert_eq!(other, before);
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(path(dir, "a", ENDS)).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0);
        std::fs::write(path(dir, "a", ENDS), b"{").unwrap();
        assert_eq!(Rotated::read(dir, "a").unwrap_err().kind(), ErrorKind::Corrupt);
    }

    #[test]
    fn each_scheme_gets_a_secret_of_its_kind_or_wants_one() {
        let rotate = |auth: Auth, given: Option<&str>| {
            let given = given.map(|g| Zeroizing::new(g.to_owned()));
            Rotated::rotate(&[auth], None, given, 0, ROTATION_OVERLAP).map(|(_, new)| new)
        };
        let private = format!("whsk_{}", STANDARD.encode([7; 32]));
        let key = rotate(Auth::StandardWebhooks(StandardWebhooks::new(Secret::text(private.as_str()))), None).unwrap();
        assert!(key.secret.starts_with("whsk_") && key.public.unwrap().starts_with("whpk_"));
        assert_eq!(rotate(Auth::Hmac(Hmac::github(Secret::text("x"))), None).unwrap().secret.len(), 43);
        // Where it stands in the environment of another process, it is not known what it was.
        let elsewhere = Auth::StandardWebhooks(StandardWebhooks::new(Secret::env("TIDEWIRE_NO_SUCH_SECRET")));
        assert!(rotate(elsewhere.clone(), None).unwrap().secret.starts_with("whsec_"));
        assert_eq!(&**rotate(Auth::Bearer(Bearer::new(Secret::text("x"))), Some("y")).unwrap().secret, "y");
        let oauth = Auth::ClientCredentials(ClientCredentials::new(
            super::super::oauth::TokenEndpoint::new("https://a.example/t").unwrap(),
            "id",
            Secret::text("x"),
        ));
        for (auth, given, what) in [
            (oauth, None, "not made here"),
            (elsewhere, Some("wrong"), "whsec_"),
            (Auth::Bearer(Bearer::new(Secret::callback(|| Ok("x".into())))), None, "host's function"),
        ] {
            let e = rotate(auth, given).unwrap_err();
            assert!(e.kind() == ErrorKind::InvalidArgument && e.to_string().contains(what), "{e}");
        }
        assert!(Rotated::rotate(&[], None, None, 0, ROTATION_OVERLAP).is_err());
    }
}
