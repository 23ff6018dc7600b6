//! The formats of destinations: from their tables, and as they are kept.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use toml::Spanned;

use super::load::read_file;
use super::text::{DestinationTable, TemplateTable};
use super::units::Size;
use super::{clamp, load};
use crate::error::{Error, Result};
use crate::event::format::{Encoding, Escape, Format, Template};
use crate::event::profile::{Choice, Profile};
use crate::rule::suggest;

/// What a destination's table says of its records: profile and format. Errors come with the place where it stands.
pub(super) fn read(
    table: &DestinationTable,
    path_of: &dyn Fn(&str) -> std::path::PathBuf,
    places: &mut load::Places,
) -> Result<(Profile, Format), (usize, Error)> {
    let mut format = Format::default();
    let profile = match &table.profile {
        Some(name) => {
            places.push(("profile", name.span().start));
            Profile::parse(name.get_ref()).map_err(|e| (name.span().start, e.at("profile")))?
        }
        // A template decides by itself what it writes, of whatever event.
        None if table.template.is_some() => Profile::CloudEvents,
        None => Profile::default(),
    };
    if let Some(name) = &table.encoding {
        places.push(("encoding", name.span().start));
        format.encoding = one_of("encoding", name, &Encoding::ALL)?;
    }
    for (key, value, slot) in
        [("metadata", &table.metadata, &mut format.metadata), ("tags", &table.tags, &mut format.tags)]
    {
        let Some(value) = value else { continue };
        places.push((key, value.span().start));
        *slot = choice(value.get_ref()).ok_or_else(|| {
            let e = Error::invalid_config(format!("`{key}` says not which")).at(key);
            (value.span().start, e.remedy("write \"all\", \"none\", or a list of names"))
        })?;
    }
    if let Some(max) = &table.record_bytes_max {
        places.push(("record_bytes_max", max.span().start));
        let Size(bytes) = *max.get_ref();
        format.record_bytes_max = clamp(bytes);
    }
    if let Some(template) = &table.template {
        places.push(("template", template.span().start));
        format.template = Some(read_template(template, path_of)?);
    }
    format.header_templates = read_headers(&table.header_templates)?;
    Ok((profile, format))
}

fn one_of<T: Copy>(key: &str, name: &Spanned<String>, all: &[(T, &'static str)]) -> Result<T, (usize, Error)> {
    let found = all.iter().find(|(_, n)| *n == name.get_ref().as_str()).map(|(value, _)| *value);
    found.ok_or_else(|| {
        let e = Error::invalid_config(format!("unknown {key} `{}`", name.get_ref().escape_debug())).at(key.to_owned());
        (name.span().start, e.remedy(suggest(key, name.get_ref(), all.iter().map(|(_, n)| *n))))
    })
}

fn choice(value: &toml::Value) -> Option<Choice> {
    match value {
        toml::Value::String(s) if s == "all" => Some(Choice::All),
        toml::Value::String(s) if s == "none" => Some(Choice::None),
        toml::Value::Array(list) => {
            list.iter().map(|v| v.as_str().map(str::to_owned)).collect::<Option<_>>().map(Choice::Only)
        }
        _ => None,
    }
}

fn read_template(
    table: &Spanned<TemplateTable>,
    path_of: &dyn Fn(&str) -> std::path::PathBuf,
) -> Result<Template, (usize, Error)> {
    let (start, table) = (table.span().start, table.get_ref());
    let here = |e: Error| (start, e.at("template"));
    let escape = table.escape.as_ref().map_or(Ok(Escape::default()), |e| one_of("escape", e, &Escape::ALL))?;
    let (at, source) = match (&table.text, &table.file) {
        (Some(text), None) => (text.span().start, text.get_ref().clone()),
        (None, Some(file)) => {
            let at = file.span().start;
            (at, read_file(&path_of(file.get_ref())).map_err(|e| (at, e.at("template")))?)
        }
        _ => {
            let e = Error::invalid_config("a template has one of `text` and `file`");
            return Err(here(e.remedy("write the template as `text`, or name its `file`")));
        }
    };
    let template = Template::new(source, escape).map_err(|e| (at, e.at("template")))?;
    match &table.content_type {
        None => Ok(template),
        Some(name) => {
            let at = name.span().start;
            template.with_content_type(name.get_ref().clone()).map_err(|e| (at, e.at("template")))
        }
    }
}

fn read_headers(table: &BTreeMap<Spanned<String>, Spanned<String>>) -> Result<Vec<(String, Template)>, (usize, Error)> {
    let mut list: Vec<_> = table.iter().collect();
    list.sort_by_key(|(name, _)| name.span().start);
    let read = |(name, text): (&Spanned<String>, &Spanned<String>)| {
        let place =
            |e: Error| (text.span().start, e.at(format!("header_templates: {}", name.get_ref().escape_debug())));
        let template = Template::new(text.get_ref().clone(), Escape::Header).map_err(place)?;
        Ok((name.get_ref().clone(), template))
    };
    list.into_iter().map(read).collect()
}

/// Adds a format to a destination as it is kept. What is as usual is left out, so that an earlier version can read it.
pub(super) fn write(format: &Format, value: &mut Value) {
    let Some(object) = value.as_object_mut() else { return };
    if format.encoding != Encoding::default() {
        object.insert("encoding".into(), format.encoding.name().into());
    }
    for (key, choice) in [("metadata", &format.metadata), ("tags", &format.tags)] {
        match choice {
            Choice::All => {}
            Choice::None => drop(object.insert(key.into(), "none".into())),
            Choice::Only(names) => drop(object.insert(key.into(), json!(names))),
        }
    }
    if format.record_bytes_max != Format::default().record_bytes_max {
        object.insert("record_bytes_max".into(), format.record_bytes_max.into());
    }
    if let Some(t) = &format.template {
        let table = json!({"text": t.source(), "escape": t.escape().name(), "content_type": t.content_type()});
        object.insert("template".into(), table);
    }
    if !format.header_templates.is_empty() {
        // A list, for their order counts.
        let list = format.header_templates.iter().map(|(name, t)| json!([name, t.source()])).collect();
        object.insert("header_templates".into(), list);
    }
}

/// The templates of headers that were kept so.
pub(super) fn headers_of_json(value: &Value) -> Option<Vec<(String, Template)>> {
    let list: Vec<(String, String)> = serde_json::from_value(value.clone()).ok()?;
    list.into_iter().map(|(name, text)| Some((name, Template::new(text, Escape::Header).ok()?))).collect()
}
