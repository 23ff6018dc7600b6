//! Compression and encryption as they are written in the configuration file and in what the data directory keeps.

use std::path::Path;

use serde_json::{Value, json};

use super::{Aes128Gcm, Compression, CompressionAlgorithm, Encryption, Jwe, JweAlgorithm};
use crate::auth::{Read, SecretEncoding, Table, fault, name_of, secrets_json, within_step};
use crate::error::Error;
use crate::filter::{Fault, OwnStep};
use crate::rule::suggest;

/// A name, or a table.
///
/// # Errors
/// An [`crate::ErrorKind::InvalidConfig`] with the way to what is wrong.
pub(crate) fn read_compression(value: &Value) -> Read<Compression> {
    let read = || match value {
        Value::String(name) => {
            let found = CompressionAlgorithm::ALL.iter().find(|(_, n)| n == name);
            let unknown = || {
                let e = Error::invalid_config(format!("unknown algorithm `{}`", name.escape_debug()));
                fault(Vec::new(), e.remedy(suggest("algorithm", name, CompressionAlgorithm::ALL.map(|(_, n)| n))))
            };
            found.map(|(algorithm, _)| Compression::new(*algorithm)).ok_or_else(unknown)
        }
        Value::Object(map) => {
            let mut t = Table::new(map, Path::new(""));
            let mut algorithm = CompressionAlgorithm::default();
            t.choose("algorithm", &CompressionAlgorithm::ALL, &mut algorithm)?;
            let mut c = Compression::new(algorithm);
            if let Some(level) = t.number("level")? {
                c.level = u32::try_from(level).unwrap_or(u32::MAX);
            }
            if let Some(bytes) = t.size("bytes_min")? {
                c.bytes_min = usize::try_from(bytes).unwrap_or(usize::MAX);
            }
            t.finish()?;
            Ok(c)
        }
        _ => {
            let e = Error::invalid_config("this is no compression");
            Err(fault(
                Vec::new(),
                e.remedy("write \"gzip\", \"zstd\", or { algorithm = \"gzip\", bytes_min = \"1KiB\" }"),
            ))
        }
    };
    read().map_err(|f| Box::new(Fault { error: f.error.at("compression"), steps: f.steps }))
}

/// A table. Files are named from `base_dir`. What is not text is not read.
///
/// # Errors
/// As [`read_compression`].
pub(crate) fn read_encryption(value: &Value, base_dir: &Path) -> Read<Encryption> {
    let read = || {
        let Value::Object(map) = value else {
            let e = Error::invalid_config("this is no encryption");
            return Err(fault(Vec::new(), e.remedy("write { scheme = \"jwe\", … } or { scheme = \"aes128gcm\", … }")));
        };
        let mut t = Table::new(map, base_dir);
        let scheme = t.need("scheme", "write `jwe` or `aes128gcm`")?;
        let encryption = match scheme {
            "jwe" => {
                let mut jwe = Jwe::new(JweAlgorithm::default(), t.secrets()?);
                t.choose("algorithm", &JweAlgorithm::ALL, &mut jwe.algorithm)?;
                t.choose("secret_encoding", &SecretEncoding::ALL, &mut jwe.secret_encoding)?;
                Encryption::Jwe(jwe)
            }
            "aes128gcm" => {
                let mut e = Aes128Gcm::new(t.secrets()?);
                if let Some(bytes) = t.size("record_bytes")? {
                    e.record_bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
                }
                t.choose("secret_encoding", &SecretEncoding::ALL, &mut e.secret_encoding)?;
                Encryption::Aes128Gcm(e)
            }
            _ => {
                let e = Error::invalid_config(format!("unknown scheme `{}`", scheme.escape_debug())).at("scheme");
                let e = e.remedy(suggest("scheme", scheme, ["jwe", "aes128gcm"]));
                return Err(within_step(fault(Vec::new(), e), OwnStep::Name("scheme".into())));
            }
        };
        t.finish()?;
        encryption.validate().map_err(|e| fault(Vec::new(), e))?;
        Ok(encryption)
    };
    read().map_err(|f| Box::new(Fault { error: f.error.at("encryption"), steps: f.steps }))
}

/// As it is kept.
pub(crate) fn write_compression(c: &Compression) -> Value {
    json!({"algorithm": c.algorithm.name(), "level": c.level, "bytes_min": c.bytes_min})
}

/// As it is kept, with the keys that are given as text.
pub(crate) fn write_encryption(e: &Encryption) -> Value {
    let secret = secrets_json(e.secrets());
    match e {
        Encryption::Jwe(e) => json!({
            "scheme": "jwe",
            "algorithm": e.algorithm.name(),
            "secret_encoding": name_of(&SecretEncoding::ALL, e.secret_encoding),
            "secret": secret,
        }),
        Encryption::Aes128Gcm(e) => json!({
            "scheme": "aes128gcm",
            "record_bytes": e.record_bytes,
            "secret_encoding": name_of(&SecretEncoding::ALL, e.secret_encoding),
            "secret": secret,
        }),
    }
}
