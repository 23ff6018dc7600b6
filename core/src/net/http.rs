//! HTTP/1.1 as a client of webhooks speaks it: heads out, answers in, no I/O and no clock.
//!
//! A [`RequestHead`] is made once for a destination and rendered for each attempt; a [`ResponseParser`] takes the
//! answer's bytes in whatever pieces they arrive; [`classify`] says what an answer means for the events sent.
//! Framing follows RFC 9112, with every length bounded by a constant below.

mod date;
mod request;
mod response;
#[cfg(test)]
mod tests;

pub use date::{RETRY_AFTER_MAX, RetryAfter, parse_http_date};
pub use request::{Method, REQUEST_HEAD_BYTES_MAX, RequestHead};
pub use response::{
    BODY_KEPT_BYTES_MAX, BODY_READ_BYTES_MAX, HEADERS_MAX, INTERIM_RESPONSES_MAX, LOCATION_BYTES_MAX, Progress,
    RESPONSE_HEAD_BYTES_MAX, Response, ResponseError, ResponseParser, State,
};

/// What a status says about the events of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Class {
    /// 2xx: delivered.
    Success,
    /// Everything that has no class of its own, 3xx among it (never followed): the full retry budget.
    Retry,
    /// 401, 403: the full retry budget, as a pause of the whole endpoint, because rotated credentials are repaired
    /// at the endpoint and not in the event.
    Unauthorized,
    /// 400, 413, 415, 422: this request is at fault and will likely stay so; a short budget, then dead letter.
    Poison,
    /// 429: the endpoint pauses, and no attempt is counted.
    Throttle,
    /// 410: the endpoint pauses at once, is probed, and is disabled if it stays gone.
    Gone,
}

/// The class of a status code.
pub fn classify(status: u16) -> Class {
    match status {
        200..=299 => Class::Success,
        400 | 413 | 415 | 422 => Class::Poison,
        401 | 403 => Class::Unauthorized,
        410 => Class::Gone,
        429 => Class::Throttle,
        _ => Class::Retry,
    }
}

/// A sentence for operators about an answer that is not a success.
///
/// A redirect is shown with its `Location`, as far as the path: user information and query may hold secrets. The body
/// is not quoted.
pub fn describe(response: &Response) -> String {
    let status = response.status;
    let (300..=399, Some(location)) = (status, &response.location) else {
        return format!("the endpoint answered {status}");
    };
    let shown = without_secrets(location);
    format!(
        "the endpoint answered {status} with Location {shown}; redirects are not followed: \
         set the destination to its final address"
    )
}

fn without_secrets(location: &str) -> String {
    let end = location.find(['?', '#']).unwrap_or(location.len());
    let (kept, cut) = location.split_at(end);
    let more = if cut.is_empty() { "" } else { "?..." };
    let Some(start) = kept.find("//").map(|at| at + 2) else {
        return format!("{kept}{more}");
    };
    let authority_end = kept[start..].find('/').map_or(kept.len(), |at| start + at);
    let host = kept[start..authority_end].rfind('@').map_or(start, |at| start + at + 1);
    format!("{}{}{more}", &kept[..start], &kept[host..])
}
