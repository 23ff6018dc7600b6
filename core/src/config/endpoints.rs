//! Several endpoints of a destination, and how they are verified: from their tables, and as they are kept.

use std::path::Path;

use serde_json::{Value, json};

use super::load::Places;
use super::text::DestinationTable;
use crate::auth::{Read, Table, fault};
use crate::error::{Error, Result};
use crate::filter::toml_to_json;
use crate::rule::{Balance, Verification, VerificationMethod, Webhook, WebhookEndpoint, suggest};

/// Errors in these are shown where the list begins.
const ENDPOINT_KEYS: [&str; 3] = ["endpoints", "endpoints.weight", "endpoints.priority"];
const VERIFICATION_KEYS: [&str; 2] = ["verification", "verification.rate"];

/// The webhook of a destination's table, with its `url` or its `endpoints`, `balance` and `verification`. Errors come with
/// the place where it stands.
pub(super) fn read(table: &DestinationTable, start: usize, places: &mut Places) -> Result<Webhook, (usize, Error)> {
    let mut webhook = match (&table.url, &table.endpoints) {
        (Some(url), None) => {
            places.push(("url", url.span().start));
            Webhook::new(url.get_ref()).map_err(|e| (url.span().start, e))?
        }
        (None, Some(list)) => {
            let mut endpoints = Vec::new();
            for e in list.get_ref() {
                let (at, e) = (e.span().start, e.get_ref());
                let mut endpoint =
                    WebhookEndpoint::new(e.url.get_ref()).map_err(|x| (e.url.span().start, x.at("endpoints")))?;
                endpoint.weight = e.weight.unwrap_or(endpoint.weight);
                endpoint.priority = e.priority.unwrap_or(endpoint.priority);
                endpoint.region.clone_from(&e.region);
                if endpoints.iter().any(|other: &WebhookEndpoint| other.url == endpoint.url) {
                    let error = Error::invalid_config("another endpoint has the same URL").at("endpoints");
                    return Err((at, error.remedy("keep one; give it the sum of their weights")));
                }
                endpoints.push(endpoint);
            }
            let at = list.span().start;
            places.extend(ENDPOINT_KEYS.iter().map(|key| (*key, at)));
            places.push(("url", at));
            Webhook::with_endpoints(endpoints).map_err(|e| (at, e))?
        }
        (Some(_), Some(list)) => {
            let error = Error::invalid_config("a destination has `url` and `endpoints`").at("endpoints");
            return Err((list.span().start, error.remedy("keep one; `url` is a list of one")));
        }
        (None, None) => {
            return Err((start, Error::invalid_config("`url` is missing").remedy("add it, or `endpoints`")));
        }
    };
    if let Some(name) = &table.balance {
        let at = name.span().start;
        places.push(("balance", at));
        let found = Balance::ALL.iter().find(|(_, n)| n == name.get_ref()).map(|(b, _)| *b);
        webhook.balance = Some(found.ok_or_else(|| {
            let e = Error::invalid_config(format!("unknown balance `{}`", name.get_ref().escape_debug()));
            let known = Balance::ALL.iter().map(|(_, name)| *name);
            (at, e.at("balance").remedy(suggest("balance", name.get_ref(), known)))
        })?);
    }
    if let Some(value) = &table.verification {
        let at = value.span().start;
        places.extend(VERIFICATION_KEYS.iter().map(|key| (*key, at)));
        let json = toml_to_json(value.get_ref()).map_err(|e| (at, e.at("verification")))?;
        webhook.verification = verification_of_json(&json).map_err(|f| (at, f.error.at("verification")))?;
    }
    Ok(webhook)
}

fn verification_of_json(value: &Value) -> Read<Option<Verification>> {
    let map = match value {
        Value::String(name) if name == "none" => return Ok(None),
        Value::String(name) => &serde_json::Map::from_iter([("method".to_owned(), Value::from(name.clone()))]),
        Value::Object(map) => map,
        _ => {
            let e = Error::invalid_config("this is no verification");
            return Err(fault(Vec::new(), e.remedy("write \"cloudevents\", or { method = \"cloudevents\", … }")));
        }
    };
    let mut t = Table::new(map, Path::new(""));
    let mut method = VerificationMethod::TestEvent;
    t.need("method", "name the method")?;
    t.choose("method", &VerificationMethod::ALL, &mut method)?;
    let mut v = Verification::new(method);
    v.origin = t.text("origin")?.map(str::to_owned);
    v.rate = t.number("rate")?.map(|n| u32::try_from(n).unwrap_or(u32::MAX));
    if let Some(url) = t.text("callback")? {
        v = v.with_callback(url).map_err(|e| fault(Vec::new(), e))?;
    }
    t.finish()?;
    Ok(Some(v))
}

/// Adds them to a destination as it is kept. What is as usual is left out, so that an earlier version can read it.
pub(super) fn write(webhook: &Webhook, value: &mut Value) {
    let Some(object) = value.as_object_mut() else { return };
    if webhook.endpoints.is_empty() {
        object.insert("url".into(), webhook.url.as_str().into());
    } else {
        let one = |e: &WebhookEndpoint| {
            let mut one = json!({"url": e.url.as_str(), "weight": e.weight, "priority": e.priority});
            if let (Some(region), Some(one)) = (&e.region, one.as_object_mut()) {
                one.insert("region".into(), region.as_str().into());
            }
            one
        };
        object.insert("endpoints".into(), webhook.endpoints.iter().map(one).collect());
    }
    if let Some(balance) = webhook.balance {
        object.insert("balance".into(), balance.name().into());
    }
    if let Some(v) = &webhook.verification {
        let mut kept = serde_json::Map::from_iter([("method".to_owned(), Value::from(v.method.name()))]);
        kept.extend(v.origin.iter().map(|o| ("origin".to_owned(), Value::from(o.as_str()))));
        kept.extend(v.rate.iter().map(|r| ("rate".to_owned(), Value::from(*r))));
        kept.extend(v.callback.iter().map(|u| ("callback".to_owned(), Value::from(u.as_str()))));
        object.insert("verification".into(), kept.into());
    }
}
