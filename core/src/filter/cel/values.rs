//! The event as expressions see it: the variable `event`.

use std::collections::{BTreeMap, HashMap};

use cel::common::types::{
    CelBool, CelBytes, CelDouble, CelInt, CelList, CelMap, CelMapKey, CelNull, CelString, CelTimestamp, CelUInt,
};
use cel::common::value::Val;
use chrono::DateTime;

use crate::filter::expression::Field;
use crate::filter::number::Number;
use crate::filter::subject::{DataValue, Subject, Value};

/// How deep the data of an event may be nested where it is evaluated.
const DATA_DEPTH_MAX: usize = 64;

/// What of the event an expression names. Nothing else is built.
#[derive(Clone, Debug, Default)]
pub(in crate::filter) struct Wanted {
    fields: Vec<Field>,
    tags: bool,
    metadata: bool,
    data: Option<Part>,
}

/// Which part of a value of the data.
#[derive(Clone, Debug)]
enum Part {
    Whole,
    /// These members, if it is an object.
    Members(BTreeMap<Box<str>, Part>),
}

type Boxed<'a> = Box<dyn Val + 'a>;
type Members<'a> = HashMap<CelMapKey<'a>, Boxed<'a>>;

impl Wanted {
    /// This field in addition. Of tags and metadata all are wanted, because names may be calculated.
    pub(in crate::filter) fn add(&mut self, field: &Field) {
        match field {
            Field::Tag(_) => self.tags = true,
            Field::Metadata(_) => self.metadata = true,
            Field::Data(path) => {
                let mut part = self.data.get_or_insert(Part::Members(BTreeMap::new()));
                for step in path {
                    let Part::Members(members) = part else { return };
                    part = members.entry(step.clone()).or_insert(Part::Members(BTreeMap::new()));
                }
                *part = Part::Whole;
            }
            field if self.fields.contains(field) => {}
            field => self.fields.push(field.clone()),
        }
    }

    /// The value of `event`.
    ///
    /// # Errors
    /// The data is nested too deep, in words.
    pub(in crate::filter) fn of<'s>(&self, subject: &'s mut Subject<'_>) -> Result<CelMap<'s>, String> {
        let mut event: Members<'s> = HashMap::new();
        if self.data.is_some() {
            subject.read_data();
        }
        let subject = &*subject;
        for field in &self.fields {
            if let Some(value) = subject.value(field.kind()) {
                event.insert(field.name().into(), plain(value, *field == Field::Time));
            }
        }
        let text = |v: &'s str| -> Boxed<'s> { Box::new(CelString::from(v)) };
        if self.tags {
            let tags: Members<'s> = subject.frame.tags().map(|(name, v)| (name.into(), text(v))).collect();
            event.insert("tags".into(), Box::new(CelMap::from(tags)));
        }
        if self.metadata {
            let metadata = subject.frame.metadata().map(|(name, v)| (name.to_ascii_lowercase().into(), text(v)));
            event.insert("metadata".into(), Box::new(CelMap::from(metadata.collect::<Members<'s>>())));
        }
        if let Some(part) = &self.data {
            let data = match subject.data_value() {
                Some(value) => of_data(value, part, 0)?,
                None => Box::new(CelMap::from(HashMap::new())),
            };
            event.insert("data".into(), data);
        }
        Ok(CelMap::from(event))
    }
}

/// A text, or if it is no UTF-8, bytes.
fn text(bytes: &[u8]) -> Boxed<'_> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Box::new(CelString::from(text)),
        Err(_) => Box::new(CelBytes::from(bytes)),
    }
}

fn plain(value: Value<'_>, is_time: bool) -> Boxed<'_> {
    match value {
        Value::Text(bytes) => text(bytes),
        Value::Number(Number::Int(ns)) if is_time => {
            let seconds = i64::try_from(ns.div_euclid(1_000_000_000)).unwrap_or_default();
            let time = DateTime::from_timestamp(seconds, ns.rem_euclid(1_000_000_000) as u32);
            Box::new(CelTimestamp::from(time.unwrap_or_default().fixed_offset()))
        }
        Value::Number(Number::Int(n)) => match (i64::try_from(n), u64::try_from(n)) {
            (Ok(n), _) => Box::new(CelInt::from(n)),
            (_, Ok(n)) => Box::new(CelUInt::from(n)),
            _ => Box::new(CelDouble::from(n as f64)),
        },
        Value::Number(Number::Float(n)) => Box::new(CelDouble::from(n)),
        Value::Bool(b) => Box::new(CelBool::from(b)),
        Value::Null => Box::new(CelNull),
    }
}

fn of_data<'s>(value: DataValue<'s>, part: &Part, depth: usize) -> Result<Boxed<'s>, String> {
    if depth > DATA_DEPTH_MAX {
        return Err(format!("the data is nested more than {DATA_DEPTH_MAX} deep"));
    }
    Ok(match (value, part) {
        (DataValue::Plain(value), _) => plain(value, false),
        (DataValue::Array(elements), Part::Whole) => {
            let list = elements.map(|v| of_data(v, part, depth + 1)).collect::<Result<Vec<_>, _>>()?;
            Box::new(CelList::from(list))
        }
        // A member of it is asked for, and it has none.
        (DataValue::Array(_), Part::Members(_)) => Box::new(CelList::from(Vec::new())),
        (DataValue::Object(members), part) => {
            let mut map: Members<'s> = HashMap::new();
            for (name, value) in members {
                let part = match part {
                    Part::Whole => part,
                    Part::Members(wanted) => match wanted.get(name) {
                        Some(part) => part,
                        None => continue,
                    },
                };
                map.insert(name.into(), of_data(value, part, depth + 1)?);
            }
            Box::new(CelMap::from(map))
        }
    })
}
