//! JSON and TOML texts as values, without losing anything that was written.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::error::{Error, Result};

/// The longest JSON text of a filter, in bytes.
const TEXT_BYTES_MAX: usize = 1 << 20;

/// Reads a JSON text. A name that an object has twice is refused: of two conditions one would be lost.
///
/// # Errors
/// [`crate::ErrorKind::InvalidConfig`] with line and column.
pub(crate) fn parse_json(text: &str) -> Result<Value> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(Error::invalid_config(format!("the text has {} bytes, more than {TEXT_BYTES_MAX}", text.len()))
            .remedy("write a shorter filter"));
    }
    serde_json::from_str::<Strict>(text).map(|s| s.0).map_err(|e| {
        let full = e.to_string();
        let message = full.rsplit_once(" at line ").map_or(full.as_str(), |(m, _)| m);
        Error::invalid_config(format!("this is no JSON: {message}"))
            .at(format!("line {}, column {}", e.line(), e.column()))
            .remedy("correct it there")
    })
}

/// A value whose objects have each name once.
struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Strict, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = Value;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON value")
            }
            fn visit_unit<E>(self) -> Result<Value, E> {
                Ok(Value::Null)
            }
            fn visit_bool<E>(self, b: bool) -> Result<Value, E> {
                Ok(Value::Bool(b))
            }
            fn visit_i64<E>(self, n: i64) -> Result<Value, E> {
                Ok(n.into())
            }
            fn visit_u64<E>(self, n: u64) -> Result<Value, E> {
                Ok(n.into())
            }
            fn visit_f64<E: de::Error>(self, n: f64) -> Result<Value, E> {
                Number::from_f64(n).map(Value::Number).ok_or_else(|| E::custom("a number is too large"))
            }
            fn visit_str<E>(self, s: &str) -> Result<Value, E> {
                Ok(s.into())
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
                let mut list = Vec::new();
                while let Some(Strict(v)) = seq.next_element()? {
                    list.push(v);
                }
                Ok(Value::Array(list))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
                let mut members = Map::new();
                while let Some(name) = map.next_key::<String>()? {
                    if members.contains_key(&name) {
                        return Err(de::Error::custom(format!("the name `{}` is there twice", name.escape_debug())));
                    }
                    let Strict(value) = map.next_value()?;
                    members.insert(name, value);
                }
                Ok(Value::Object(members))
            }
        }
        d.deserialize_any(V).map(Strict)
    }
}

/// The same value in JSON. Times become strings.
///
/// # Errors
/// [`crate::ErrorKind::InvalidConfig`] for a number that JSON does not have.
pub(crate) fn toml_to_json(value: &toml::Value) -> Result<Value> {
    Ok(match value {
        toml::Value::String(s) => s.as_str().into(),
        toml::Value::Integer(n) => (*n).into(),
        toml::Value::Float(n) => Number::from_f64(*n).map(Value::Number).ok_or_else(|| {
            Error::invalid_config(format!("`{n}` is no number that an event can have")).remedy("write a finite number")
        })?,
        toml::Value::Boolean(b) => (*b).into(),
        toml::Value::Datetime(t) => t.to_string().into(),
        toml::Value::Array(list) => list.iter().map(toml_to_json).collect::<Result<_>>()?,
        toml::Value::Table(table) => {
            let members = table.iter().map(|(name, v)| Ok((name.clone(), toml_to_json(v)?)));
            Value::Object(members.collect::<Result<Map<String, Value>>>()?)
        }
    })
}
