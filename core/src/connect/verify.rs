//! Asks an endpoint whether it wants events.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use url::Url;

use super::probe::test_record;
use super::webhook::WebhookConnector;
use crate::auth::Auth;
use crate::config::{EngineConfig, Network};
use crate::delivery::{Connector, Outcome, Record};
use crate::driver;
use crate::event::KnownType;
use crate::net::http::{Method, Response, describe};
use crate::rule::{Destination, Verification, VerificationMethod, Webhook};

/// How long an endpoint has to confirm otherwise, before it is asked again (as Event Grid has it).
const LATER: Duration = Duration::from_secs(600);

/// Why an endpoint has not agreed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unwilling {
    /// For operators.
    pub(crate) reason: String,
    /// It may still agree by itself, and is not asked again before this.
    pub(crate) wait: Option<Duration>,
}

fn no<T>(reason: impl Into<String>) -> Result<T, Unwilling> {
    Err(Unwilling { reason: reason.into(), wait: None })
}

/// Asks the endpoint of a destination that has one. `code` is what it may show to confirm later. What it grants: so many
/// requests per minute, or `None` for as many as there are.
pub(crate) async fn verify(
    destination: &Destination,
    code: &str,
    config: &EngineConfig,
    network: &Arc<Network>,
) -> Result<Option<u32>, Unwilling> {
    let webhook = destination.kind.webhook();
    let Some((webhook, verification)) = webhook.and_then(|w| Some((w, w.verification.as_ref()?))) else {
        return Ok(None);
    };
    match verification.method {
        VerificationMethod::CloudEvents => by_options(destination, webhook, verification, code, network).await,
        VerificationMethod::EventGrid => {
            let body = validation_event(destination, verification, code, config);
            let headers = [("aeg-event-type", "SubscriptionValidation")];
            let answer = post(webhook, &headers, "application/json; charset=utf-8", &body, network).await?;
            judge_validation(&answer, code)
        }
        VerificationMethod::Challenge => {
            let body = json!({"type": "url_verification", "challenge": code}).to_string();
            let answer = post(webhook, &[], "application/json", &body, network).await?;
            judge_challenge(&answer, code)
        }
        VerificationMethod::TestEvent => by_test_event(destination, webhook, config, network).await,
    }
}

async fn post(
    webhook: &Webhook,
    headers: &[(&str, &str)],
    content_type: &str,
    body: &str,
    network: &Arc<Network>,
) -> Result<Response, Unwilling> {
    let connector = WebhookConnector::asking(webhook, Method::Post, headers, content_type, network);
    let connector = connector.or_else(|e| no(e.to_string()))?;
    connector.ask(Bytes::copy_from_slice(body.as_bytes())).await.or_else(no)
}

async fn by_options(
    destination: &Destination,
    webhook: &Webhook,
    verification: &Verification,
    code: &str,
    network: &Arc<Network>,
) -> Result<Option<u32>, Unwilling> {
    let origin = verification.origin();
    let rate = verification.rate.map(|r| r.to_string());
    let callback = callback(verification, &destination.name, code);
    let mut headers = vec![("WebHook-Request-Origin", origin.as_str())];
    headers.extend(rate.as_ref().map(|r| ("WebHook-Request-Rate", r.as_str())));
    headers.extend(callback.as_ref().map(|u| ("WebHook-Request-Callback", u.as_str())));
    // A signature that covers the type of the body wants one.
    let signs_it = webhook.auth.iter().any(|a| matches!(a, Auth::MessageSignatures(_)));
    let content_type = if signs_it { "application/json" } else { "" };
    let connector = WebhookConnector::asking(webhook, Method::Options, &headers, content_type, network);
    let connector = connector.or_else(|e| no(e.to_string()))?;
    let answer = connector.ask(Bytes::new()).await.or_else(no)?;
    judge_options(&answer, &origin, verification)
}

/// What the answer to `OPTIONS` says, whatever its status: a server that knows nothing of this may answer 200 too.
fn judge_options(answer: &Response, origin: &str, v: &Verification) -> Result<Option<u32>, Unwilling> {
    let Some(allowed) = &answer.header else {
        let what = format!("{}, without WebHook-Allowed-Origin", describe(answer));
        let wait = v.callback.as_ref().map(|_| LATER);
        return Err(Unwilling { reason: what, wait });
    };
    let is_it = |name: &str| name.trim() == "*" || name.trim().eq_ignore_ascii_case(origin);
    if !allowed.split(',').any(is_it) {
        return no(format!("the endpoint allows events of `{}`, not of `{origin}`", allowed.escape_debug()));
    }
    match answer.also.as_deref().map(str::trim) {
        // Never more than was asked for.
        None => Ok(v.rate),
        Some("*") => Ok(None),
        Some(text) => match text.parse::<u32>() {
            Ok(0) => no("the endpoint allows no requests (WebHook-Allowed-Rate: 0)"),
            Ok(n) => Ok(Some(n)),
            Err(_) => no(format!("WebHook-Allowed-Rate is `{}`, which is no number", text.escape_debug())),
        },
    }
}

/// Where the endpoint may confirm later.
fn callback(v: &Verification, name: &str, code: &str) -> Option<Url> {
    let mut url = v.callback.clone()?;
    url.query_pairs_mut().append_pair("destination", name).append_pair("token", code);
    Some(url)
}

fn validation_event(d: &Destination, v: &Verification, code: &str, config: &EngineConfig) -> String {
    let now = jiff::Timestamp::from_nanosecond(i128::from(driver::wall_ns())).unwrap_or_default();
    let mut data = json!({"validationCode": code});
    if let (Some(url), Some(data)) = (callback(v, &d.name, code), data.as_object_mut()) {
        data.insert("validationUrl".into(), url.as_str().into());
    }
    json!([{
        "id": format!("{}-{}-{}-{}-{}", &code[..8], &code[8..12], &code[12..16], &code[16..20], &code[20..]),
        "topic": config.event_source,
        "subject": "",
        "data": data,
        "eventType": "Microsoft.EventGrid.SubscriptionValidationEvent",
        "eventTime": now.to_string(),
        "metadataVersion": "1",
        "dataVersion": "2",
    }])
    .to_string()
}

fn is_success(answer: &Response) -> Result<(), Unwilling> {
    if (200..300).contains(&answer.status) { Ok(()) } else { no(describe(answer)) }
}

fn judge_validation(answer: &Response, code: &str) -> Result<Option<u32>, Unwilling> {
    is_success(answer)?;
    let body: Option<Value> = serde_json::from_slice(&answer.body_start).ok();
    let shown = body.as_ref().and_then(|b| b.get("validationResponse")).map(|v| v.as_str().unwrap_or_default());
    match shown {
        Some(shown) if shown == code => Ok(None),
        Some(_) => no("the endpoint answered with another `validationResponse` than the code it was sent"),
        None => {
            let what = "the endpoint took the validation event; it is to be confirmed by its URL or by an operator";
            Err(Unwilling { reason: what.into(), wait: Some(LATER) })
        }
    }
}

fn judge_challenge(answer: &Response, code: &str) -> Result<Option<u32>, Unwilling> {
    is_success(answer)?;
    let text = String::from_utf8_lossy(&answer.body_start);
    let member = || {
        let body: Value = serde_json::from_slice(&answer.body_start).ok()?;
        Some(body.get("challenge")?.as_str()? == code)
    };
    let form = text.trim().strip_prefix("challenge=").is_some_and(|c| c == code);
    if text.trim() == code || form || member().unwrap_or(false) {
        return Ok(None);
    }
    no(format!("{}, without the challenge", describe_ok(answer)))
}

fn describe_ok(answer: &Response) -> String {
    format!("the endpoint answered {}", answer.status)
}

async fn by_test_event(
    destination: &Destination,
    webhook: &Webhook,
    config: &EngineConfig,
    network: &Arc<Network>,
) -> Result<Option<u32>, Unwilling> {
    let own = destination.format.template.is_some() || destination.profile.expressible(KnownType::TestEvent.into());
    let form = (destination.profile, &destination.format);
    let connector = WebhookConnector::new(webhook, form, 1, network);
    let connector = connector.or_else(|e| no(e.to_string()))?;
    let (connector, record) = if own {
        (connector, test_record(destination, config).or_else(|e| no(e.to_string()))?.or_else(no)?)
    } else {
        (connector.of_documents(), s3_test_event())
    };
    match connector.send(&[record]).await {
        Outcome::Success => Ok(None),
        Outcome::Unwritable { events } => no(events.into_iter().next().map_or(String::new(), |(_, reason)| reason)),
        Outcome::Retry { reason, .. }
        | Outcome::Throttle { reason, .. }
        | Outcome::Denied { reason, .. }
        | Outcome::Gone { reason, .. }
        | Outcome::Partial { reason, .. }
        | Outcome::Poison { reason, .. }
        | Outcome::Undeliverable { reason } => no(format!("it did not take the test event: {reason}")),
    }
}

/// What S3 sends when a notification is configured.
fn s3_test_event() -> Record {
    let id = super::probe::test_id();
    let at = i128::from(driver::wall_ns()) / 1_000_000 * 1_000_000;
    let time = jiff::Timestamp::from_nanosecond(at).unwrap_or_default();
    let document = json!({
        "Service": "Amazon S3",
        "Event": "s3:TestEvent",
        "Time": format!("{time:.3}"),
        "Bucket": super::probe::TEST_BUCKET,
        "RequestId": id.to_string(),
        "HostId": "tidewire",
    });
    Record { id, bytes: document.to_string().into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::http::ResponseParser;
    use crate::rule::DestinationKind;

    const CODE: &str = "0123456789abcdef0123456789abcdef";

    fn answer(status: u16, headers: &str, body: &str) -> Response {
        let mut parser = ResponseParser::new()
            .looking_for(Some("WebHook-Allowed-Origin".into()))
            .looking_also_for(Some("WebHook-Allowed-Rate".into()));
        let text = format!("HTTP/1.1 {status} X\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len());
        parser.feed(text.as_bytes()).expect("an answer");
        parser.take_response().expect("an answer")
    }

    #[test]
    fn consent_is_read_from_headers_and_never_from_a_status() {
        let mut asked = Verification::new(VerificationMethod::CloudEvents);
        asked.rate = Some(120);
        let unasked = Verification::new(VerificationMethod::CloudEvents);
        let judged = |status, headers: &str, v: &Verification| {
            judge_options(&answer(status, headers, ""), "store.example.com", v).map_err(|u| u.reason)
        };
        for status in [200, 204, 404, 405] {
            assert!(judged(status, "", &asked).unwrap_err().contains("without WebHook-Allowed-Origin"));
            assert!(judged(status, "Allow: POST\r\nWebHook-Allowed-Rate: 10\r\n", &asked).is_err());
            let all = "webhook-allowed-origin: *\r\n";
            assert_eq!((judged(status, all, &asked), judged(status, all, &unasked)), (Ok(Some(120)), Ok(None)));
        }
        for (headers, rate) in [
            ("WebHook-Allowed-Origin: store.example.com\r\nWebHook-Allowed-Rate: 30\r\n", Some(30)),
            ("WebHook-Allowed-Origin: STORE.example.com\r\nWebHook-Allowed-Rate: *\r\n", None),
            ("WebHook-Allowed-Rate: 30\r\nWebHook-Allowed-Origin: other.example, store.example.com\r\n", Some(30)),
        ] {
            assert_eq!(judged(200, headers, &asked), Ok(rate), "{headers}");
        }
        for (headers, what) in [
            ("WebHook-Allowed-Origin: other.example.com\r\n", "other.example.com"),
            ("WebHook-Allowed-Origin: \r\n", "not of `store.example.com`"),
            ("WebHook-Allowed-Origin: *\r\nWebHook-Allowed-Rate: many\r\n", "no number"),
            ("WebHook-Allowed-Origin: *\r\nWebHook-Allowed-Rate: -1\r\n", "no number"),
            ("WebHook-Allowed-Origin: *\r\nWebHook-Allowed-Rate: 0\r\n", "no requests"),
        ] {
            let reason = judged(200, headers, &asked).unwrap_err();
            assert!(reason.contains(what), "{reason}");
        }
    }

    #[test]
    fn a_code_is_shown_at_once_or_later_and_another_one_is_none() {
        let of = |status, body: &str| judge_validation(&answer(status, "", body), CODE).map_err(|u| u.wait);
        let right = format!("{{\"validationResponse\":\"{CODE}\"}}");
        assert_eq!(of(200, &right), Ok(None));
        assert_eq!((of(400, &right), of(302, &right)), (Err(None), Err(None)));
        assert_eq!((of(200, ""), of(202, "{}")), (Err(Some(LATER)), Err(Some(LATER))));
        assert_eq!(
            (of(200, "{\"validationResponse\":\"x\"}"), of(200, "{\"validationResponse\":1}")),
            (Err(None), Err(None))
        );
    }

    #[test]
    fn a_challenge_comes_back_as_text_or_as_a_member() {
        let of = |status, body: &str| judge_challenge(&answer(status, "", body), CODE).is_ok();
        for body in
            [CODE.to_owned(), format!("{CODE}\n"), format!("{{\"challenge\":\"{CODE}\"}}"), format!("challenge={CODE}")]
        {
            assert!(of(200, &body), "{body}");
            assert!(!of(500, &body), "{body}");
        }
        for body in ["", "ok", "{\"challenge\":1}", "{\"challenge\":\"0123\"}", "[]"] {
            assert!(!of(200, body), "{body}");
        }
    }

    #[test]
    fn the_validation_event_is_as_event_grid_has_it() {
        let d = Destination::new("a b", DestinationKind::Webhook(Webhook::new("http://localhost/").unwrap()));
        let v = Verification::new(VerificationMethod::EventGrid).with_callback("https://me.example/v1/confirm?x=1");
        let text = validation_event(&d, &v.unwrap(), CODE, &EngineConfig::new("/nowhere"));
        let value: Value = serde_json::from_str(&text).unwrap();
        let event = &value[0];
        assert_eq!(event["eventType"], "Microsoft.EventGrid.SubscriptionValidationEvent");
        assert_eq!(event["data"]["validationCode"], CODE);
        let url = format!("https://me.example/v1/confirm?x=1&destination=a+b&token={CODE}");
        assert_eq!(event["data"]["validationUrl"], url.as_str());
        assert!(event["eventTime"].as_str().unwrap().ends_with('Z'), "{event}");
    }
}
